//! Trap 1: a request meets the close.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lameduck_core::front::Command;
use lameduck_front::Config;

use super::super::rig::{App, Client, Front, until};
use super::{SLACK, get, post, quick};

/// The sweep goes this far to both sides.
const WIDTH: Duration = Duration::from_millis(5);
/// Connections of a batch, each swept over at its own instant.
const BATCH: u32 = 250;
/// Batches: 2,000 requests.
const BATCHES: u32 = 8;
/// Each side of the close has to be met by this many requests, or the sweep proves nothing.
const BOTH_SIDES: u64 = 20;

/// What became of the requests.
#[derive(Debug, Default)]
struct Met {
    served: Vec<String>,
    closed: Vec<String>,
}

impl Met {
    /// Sends a request on each connection, evenly over the time around `centre`, and reads what comes of it. Every other one
    /// is a POST. `then` is called at the centre.
    fn sweep(&mut self, name: &str, clients: &mut [Client], centre: Instant, mut then: impl FnMut()) {
        let many = clients.len();
        let path = |n: usize| format!("/{name}-{n}");
        let begin = centre.checked_sub(WIDTH).unwrap();
        thread::sleep(begin.saturating_duration_since(Instant::now() + Duration::from_millis(2)));
        let mut unsent = Vec::new();
        for (n, client) in clients.iter_mut().enumerate() {
            let due = begin + 2 * WIDTH * n as u32 / many as u32;
            while Instant::now() < due {
                thread::yield_now();
            }
            if n == many / 2 {
                then();
            }
            let request = if n % 2 == 0 { get(&path(n)) } else { post(&path(n), "body") };
            unsent.extend(std::io::Write::write_all(&mut client.stream, request.as_bytes()).err());
        }
        assert!(unsent.is_empty(), "reset before a request was sent: {unsent:?}");
        for (n, client) in clients.iter_mut().enumerate() {
            let path = path(n);
            let over = client.is_over().unwrap_or_else(|error| panic!("{path}: {error}, and no response"));
            if over {
                self.closed.push(path);
                continue;
            }
            let answer = client.answer();
            let length = if n % 2 == 0 { 0 } else { 4 };
            assert_eq!((answer.status, answer.text()), (200, format!("{} {length}", &path[1..]).as_str()));
            self.served.push(path);
        }
    }

    /// What was answered was executed once, what met the close was not executed.
    fn check(&self, app: &App) {
        let mut seen: HashMap<String, u32> = HashMap::new();
        for path in app.seen.paths() {
            *seen.entry(path).or_default() += 1;
        }
        let times = |path: &String| seen.get(path).copied().unwrap_or(0);
        for path in &self.served {
            assert_eq!(times(path), 1, "{path} was answered");
        }
        for path in &self.closed {
            assert_eq!(times(path), 0, "{path} was not answered, so it may be sent again");
        }
        let sides = (self.served.len() as u64, self.closed.len() as u64);
        eprintln!("{} were served, {} met the close", sides.0, sides.1);
        assert!(sides.0 >= BOTH_SIDES && sides.1 >= BOTH_SIDES, "the sweep missed the close: {sides:?}");
    }
}

fn clients(front: &Front, many: u32) -> Vec<Client> {
    (0..many)
        .map(|_| {
            let mut client = front.client();
            assert_eq!(client.get("/before").status, 200);
            client
        })
        .collect()
}

#[test]
fn a_request_meets_the_idle_close() {
    let app = App::start();
    let config = Config { idle_timeout: Duration::from_millis(300), ..Config::default() };
    let front = Front::start(app.address, config);
    let mut met = Met::default();
    // The clock of a front that serves ticks once a second. A connection that nobody uses shows when.
    let tick = || {
        let mut idle = front.client();
        assert_eq!(idle.get("/before").status, 200);
        thread::spawn(move || {
            assert_eq!(idle.end().unwrap(), b"");
            Instant::now()
        })
    };
    let mut last = tick().join().unwrap();
    let mut period = Duration::from_micros(1_001_500);
    for batch in 0..BATCHES {
        let next = tick();
        let mut clients = clients(&front, BATCH);
        met.sweep(&format!("i{batch}"), &mut clients, last + period, || ());
        let now = next.join().unwrap();
        if now - last < Duration::from_millis(1500) {
            period = now - last;
        }
        last = now;
    }
    met.check(&app);
    until("what came late was seen", || front.figures().crossed_close == met.closed.len() as u64);
    assert_eq!(front.figures().resets_sent, 0);
}

#[test]
fn a_request_meets_the_shed_of_an_idle_connection() {
    // A front sheds only once, so there are many. Few connections each: a front that is busy looks late.
    const FRONTS: u32 = 10;
    let app = App::start();
    let mut met = Met::default();
    let (mut crossed, mut resets) = (0, 0);
    for batch in 0..BATCHES {
        let config = Config { shed_spread: Duration::ZERO, ..quick() };
        let mut fronts: Vec<_> = (0..FRONTS)
            .map(|_| {
                let mut front = Front::start(app.address, config.clone());
                let clients = clients(&front, BATCH / FRONTS);
                front.tell(Command::LameDuck);
                (front, clients)
            })
            .collect();
        // A connection has to be idle for this long before it is shed.
        thread::sleep(Duration::from_millis(300));
        for (n, (front, clients)) in fronts.iter_mut().enumerate() {
            let centre = Instant::now() + WIDTH + Duration::from_millis(2);
            met.sweep(&format!("s{batch}-{n}"), clients, centre, || front.say(Command::Close));
        }
        for (mut front, clients) in fronts {
            drop(clients);
            let page = front.page;
            front.ends_within(SLACK);
            crossed += page.figures().crossed_close;
            resets += page.figures().resets_sent;
        }
    }
    met.check(&app);
    assert_eq!((crossed, resets), (met.closed.len() as u64, 0));
}

#[test]
fn a_request_is_sent_as_the_app_closes() {
    const IDLE: Duration = Duration::from_millis(30);
    let app = App::start();
    let front = Front::start(app.address, quick());
    let mut clients: Vec<Client> = (0..25).map(|_| front.client()).collect();
    let many = clients.len() as u32;
    let (mut bad, mut sent) = (0, 0);
    for batch in 0..80 {
        for client in &mut clients {
            client.send(get("/once/30"));
        }
        for client in &mut clients {
            assert_eq!(client.answer().text(), "once");
        }
        // The app closes all of these at about the same time, without a look at what has come meanwhile.
        let begin = Instant::now() + IDLE.saturating_sub(WIDTH);
        let path = |n: usize| format!("/u{batch}-{n}");
        for (n, client) in clients.iter_mut().enumerate() {
            let due = begin + 2 * WIDTH * n as u32 / many;
            while Instant::now() < due {
                thread::yield_now();
            }
            client.send(if n % 2 == 0 { get(&path(n)) } else { post(&path(n), "body") });
        }
        for (n, client) in clients.iter_mut().enumerate() {
            let answer = client.answer();
            let status = if app.seen.count(&path(n)) == 1 { 200 } else { 502 };
            assert_eq!(answer.status, status, "{} was executed {} times", path(n), app.seen.count(&path(n)));
            assert!(status == 200 || n % 2 == 1, "{} can be sent again", path(n));
            bad += u64::from(status == 502);
            sent += 1;
        }
        app.seen.heads.lock().unwrap().clear();
    }
    until("the books are closed", || front.figures().in_flight == 0);
    let figures = front.figures();
    eprintln!("{sent} were sent, {} again, {bad} could not be", figures.retried_reused);
    assert!(figures.retried_reused >= BOTH_SIDES && figures.upstream_closed_idle >= BOTH_SIDES, "{figures:#?}");
    assert_eq!(figures.bad_gateway, bad);
    assert!(bad <= figures.upstream_connects);
}

/// Gunicorn, held up, closes a connection whose 2 s are over though a request waits in it unread: nothing that may not be
/// sent again goes there.
#[test]
fn an_app_that_soon_closes_gets_what_may_not_be_repeated_on_a_new_connection() {
    for (timeout_s, connections) in [(2, 2), (60, 1)] {
        let app = App::start();
        let front = Front::start(app.address, quick());
        let mut client = front.client();
        let answer = "HTTP/1.1_200_OK~Content-Length:_2~";
        let said = client.get(&format!("/raw/{answer}Keep-Alive:_timeout={timeout_s}~~ok"));
        assert_eq!(said.text(), "ok");
        assert_eq!(client.post("/own", "body").status, 200);
        assert_eq!(app.seen.connections.load(Ordering::SeqCst), connections, "timeout={timeout_s}");
        assert_eq!(client.get("/kept").status, 200);
        assert_eq!(app.seen.connections.load(Ordering::SeqCst), connections, "a GET may be sent again");
    }
}

/// An app that executes a request and dies before it answers: what may not be repeated is not.
#[test]
fn a_request_that_may_have_been_executed_is_sent_again_only_if_it_may_be() {
    let app = App::start();
    let front = Front::start(app.address, quick());
    let mut client = front.client();
    assert_eq!(client.get("/first").status, 200);
    assert_eq!(client.post("/die", "once").status, 502);
    assert_eq!(app.seen.count("/die"), 1);
    assert_eq!(client.get("/second").status, 200);
    // Once over the reused connection, once over a new one, and that is all.
    assert_eq!(client.get("/die").status, 502);
    assert_eq!(app.seen.count("/die"), 3);
    assert_eq!(front.figures().retried_reused, 1);
}

/// A client that goes on after it was told that the connection ends sees the end, not a reset, and nothing is executed.
#[test]
fn a_request_after_the_marked_answer_is_not_executed() {
    let app = App::start();
    let mut front = Front::start(app.address, quick());
    front.tell(Command::LameDuck);
    let late = AtomicBool::new(false);
    thread::scope(|scope| {
        for n in 0..8 {
            let (front, late) = (&front, &late);
            scope.spawn(move || {
                for m in 0..25 {
                    let mut client = front.client();
                    let answer = client.get(&format!("/m{n}-{m}"));
                    assert!(answer.closes());
                    client.send(post(&format!("/late{n}-{m}"), "body"));
                    assert!(client.is_over().unwrap());
                    late.store(true, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(late.load(Ordering::Relaxed));
    let seen = app.seen.paths();
    assert_eq!(seen.iter().filter(|path| path.starts_with("/late")).count(), 0);
    assert_eq!(seen.len(), 200);
    until("what came late was seen", || front.figures().crossed_close == 200);
    assert_eq!((front.figures().resets_sent, front.figures().shed_by_header), (0, 200));
}
