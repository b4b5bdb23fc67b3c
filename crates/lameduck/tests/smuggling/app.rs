//! An app that reads narrowly and says what it has read, and the tap in front of an app that records what goes by.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::strict::{Answer, Answers, Request, Requests, field};

/// What an app has seen: by way of whom, and what.
pub type Seen = Arc<Mutex<Vec<(String, Request)>>>;

/// What goes into `X-Echo`: what was asked, so that an answer shows to which request it belongs.
pub fn echo_of(request: &Request) -> String {
    let sum = request
        .body
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let target = request.target.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    format!("{} {target} {} {sum:016x}", request.method, request.body.len())
}

fn listen(each: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let each = Arc::new(each);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = Arc::clone(&each);
            thread::spawn(move || each(stream));
        }
    });
    address
}

/// The app, and what it sees.
pub fn start() -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let shared = Arc::clone(&seen);
    (listen(move |stream| converse(stream, &shared)), seen)
}

fn converse(mut stream: TcpStream, seen: &Seen) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = Requests::default();
    let (mut bytes, mut continued) = (vec![0; 64 << 10], false);
    loop {
        let n = stream.read(&mut bytes)?;
        if n == 0 {
            return Ok(());
        }
        let Ok(read) = requests.feed(&bytes[..n]) else {
            return stream.write_all(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        for (request, fields) in read {
            let way = field(&fields, "x-way").map_or("", |way| std::str::from_utf8(way).unwrap()).to_owned();
            let echo = echo_of(&request);
            let content = if request.method == "HEAD" { String::new() } else { request.target.clone() };
            let length = request.target.len();
            seen.lock().unwrap().push((way, request));
            write!(stream, "HTTP/1.1 200 OK\r\nX-Echo: {echo}\r\nContent-Length: {length}\r\n\r\n{content}")?;
            continued = false;
        }
        let expects = requests.begun().is_some_and(|fields| field(&fields, "expect").is_some());
        if expects && !std::mem::replace(&mut continued, true) {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
    }
}

/// What went by: requests of the front, each with the app's answer to it, once there is one.
#[derive(Debug, Default)]
pub struct Record {
    /// In the order in which they were complete.
    pub requests: Vec<(Request, Option<Answer>)>,
    /// Where either side left the grammar.
    pub wrong: Vec<String>,
    /// The last words of connections that ended in the middle of a request.
    pub unfinished: Vec<Vec<u8>>,
}

/// A tap before `app`.
pub fn tap(app: SocketAddr) -> (SocketAddr, Arc<Mutex<Record>>) {
    let record = Arc::new(Mutex::new(Record::default()));
    let shared = Arc::clone(&record);
    let address = listen(move |front| {
        let app = TcpStream::connect(app)?;
        front.set_nodelay(true)?;
        app.set_nodelay(true)?;
        // Requests on this connection that are to be answered, by their place in the record.
        let asked = Arc::new(Mutex::new((Answers::default(), Vec::new())));
        let (record, waiting) = (Arc::clone(&shared), Arc::clone(&asked));
        let (from, to) = (front.try_clone()?, app.try_clone()?);
        let there = thread::spawn(move || {
            let mut requests = Requests::default();
            pump(from, &to, |bytes| {
                let mut record = record.lock().unwrap();
                match requests.feed(bytes) {
                    Ok(read) => {
                        for (request, _) in read {
                            let mut waiting = waiting.lock().unwrap();
                            waiting.0.asked.push_back(request.method.clone());
                            waiting.1.push(record.requests.len());
                            record.requests.push((request, None));
                        }
                    }
                    Err(wrong) => record.wrong.push(format!("the front wrote {wrong}")),
                }
            });
            if !requests.rest.is_empty() {
                record.lock().unwrap().unfinished.push(requests.rest);
            }
        });
        pump(app, &front, |bytes| {
            let mut record = shared.lock().unwrap();
            let mut asked = asked.lock().unwrap();
            match asked.0.feed(bytes) {
                Ok(answers) => {
                    for answer in answers {
                        // An answer to what has not come to its end, or to nothing, has no place.
                        if !asked.1.is_empty() {
                            let at = asked.1.remove(0);
                            record.requests[at].1 = Some(answer);
                        }
                    }
                }
                Err(wrong) => record.wrong.push(format!("the app wrote {wrong}")),
            }
        });
        let _ = there.join();
        Ok(())
    });
    (address, record)
}

/// All bytes from one to the other, and then the end.
fn pump(mut from: TcpStream, mut to: &TcpStream, mut by: impl FnMut(&[u8])) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        by(&bytes[..n]);
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
