//! The books balance: every request ends in exactly one way, whatever happens.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lameduck_core::front::{Command, Figures};
use lameduck_front::Config;
use lameduck_front::config::{AccessLog, LongPoll};

use super::super::rig::{App, Client, Front, frame, until};
use super::{SLACK, get, post, quick};

fn requests(figures: &Figures) -> u64 {
    figures.requests_serving + figures.requests_lame_duck + figures.requests_closing
}

fn outcomes(figures: &Figures) -> u64 {
    figures.answered
        + figures.refused
        + figures.shed
        + figures.bad_gateway
        + figures.gateway_timeout
        + figures.cut_by_app
        + figures.client_gone
        + figures.cut_at_deadline
}

/// Numbers that look random and are the same each time (splitmix64; Steele, Lea and Flood 2014).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// Does something with a connection, well or badly, and leaves; whether it `waits` for what ends only with the drain. An error is the front's having closed; that is no matter
/// here.
fn misbehave(address: SocketAddr, dice: &mut Dice, waits: bool) -> io::Result<()> {
    let mut client = Client::over(TcpStream::connect(address)?);
    let send = |client: &mut Client, bytes: &str| client.stream.write_all(bytes.as_bytes());
    for _ in 0..=dice.throw(4) {
        match dice.throw(14) {
            0 => send(&mut client, &get("/a"))?,
            1 => send(&mut client, &post("/b", "body"))?,
            2 => send(&mut client, &get("/slow/40"))?,
            3 => send(&mut client, &get("/stream/3"))?,
            4 => send(&mut client, &get("/die"))?,
            5 => send(&mut client, &get("/cut"))?,
            6 if waits => send(&mut client, &get("/silent/long"))?,
            7 => {
                // Not waited for.
                send(&mut client, &get("/big/3000000"))?;
                return Ok(());
            }
            8 => {
                send(&mut client, &(get("/p1") + &get("/p2") + &post("/p3", "body")))?;
                client.try_answer(false)?;
                client.try_answer(false)?;
            }
            9 => {
                send(&mut client, "POST /left HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nsome")?;
                return Ok(());
            }
            10 => {
                send(&mut client, "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")?;
                thread::sleep(Duration::from_millis(5));
                send(&mut client, if dice.throw(2) == 0 { "zzz\r\n" } else { "0\r\n\r\n" })?;
            }
            11 => {
                send(&mut client, "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")?;
                if !client.head()?.starts_with("HTTP/1.1 101 ") {
                    return Ok(());
                }
                client.stream.write_all(&frame(1, b"hello"))?;
                if !waits {
                    client.stream.write_all(&frame(8, &1000u16.to_be_bytes()))?;
                }
                return client.end().map(drop);
            }
            12 => {
                send(&mut client, &get("/events"))?;
                client.head()?;
                if !waits {
                    return Ok(());
                }
                return client.end().map(drop);
            }
            _ => send(&mut client, "HEAD /h HTTP/1.0\r\n\r\n")?,
        }
        if client.try_answer(false)?.closes() {
            return Ok(());
        }
    }
    Ok(())
}

#[test]
fn every_request_ends_in_exactly_one_way() {
    for (seed, commands) in [
        (1, &[Command::LameDuck, Command::Close][..]),
        (2, &[Command::LameDuck, Command::End]),
        (3, &[Command::LameDuck, Command::Close, Command::End]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let app = App::start();
        let config = Config {
            long_polls: vec![LongPoll { prefix: "/silent/long".into(), status: 204 }],
            access_log: Some(AccessLog::File(path.clone())),
            max_requests: if seed == 3 { 12 } else { 0 },
            ..quick()
        };
        let mut front = Front::start(app.address, config);
        let page = front.page;
        let over = AtomicBool::new(false);
        let address = front.address;
        thread::scope(|scope| {
            for n in 0..16 {
                let over = &over;
                scope.spawn(move || {
                    let mut dice = Dice(seed * 1000 + n);
                    while !over.load(Ordering::Relaxed) {
                        let _ = misbehave(address, &mut dice, n < 6);
                    }
                });
            }
            for (n, command) in commands.iter().enumerate() {
                until("there was enough", || requests(&page.figures()) >= 250 * (n as u64 + 1));
                front.say(*command);
            }
            over.store(true, Ordering::Relaxed);
        });
        front.ends_within(SLACK);
        let figures = page.figures();
        assert_eq!((figures.in_flight, figures.held, figures.connections), (0, 0, 0));
        assert_eq!(requests(&figures), outcomes(&figures), "{figures:#?}");
        let lines = std::fs::read_to_string(&path).unwrap().lines().count() as u64;
        assert_eq!((lines, figures.log_lost), (requests(&figures), 0));
    }
}
