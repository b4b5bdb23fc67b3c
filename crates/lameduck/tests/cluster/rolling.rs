//! Two webhooks, each below `lameduck run`, are replaced one after the other while 50 admissions a second come in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::client::{Client, Connection};
use super::webhook::{Running, free, keep_certificate, review, wait_until, webhook};

const RATE: u32 = 50;
/// API servers: each has connections of its own, and several requests at a time.
const WORKERS: u32 = 10;
/// For how long a replica that was told to leave is still routed to: kube-proxy takes 1 to 3 s.
const LAG: Duration = Duration::from_secs(2);

/// Who is routed to, as an `EndpointSlice` has it.
type Endpoints = Arc<Mutex<Vec<SocketAddr>>>;

#[derive(Default)]
struct Books {
    answered: Mutex<BTreeMap<SocketAddr, usize>>,
    failed: Mutex<Vec<String>>,
    sent: AtomicUsize,
    /// The longest from when a request was due to its answer.
    slowest: Mutex<Duration>,
}

/// Sends at the times that are its own, whatever becomes of those before. Its connections are kept.
fn work(n: u32, client: &Client, endpoints: &Endpoints, books: &Books, stop: &AtomicBool) {
    let every = Duration::from_secs(1) * WORKERS / RATE;
    let mut due = Instant::now() + every * n / WORKERS;
    let mut kept: Option<Connection> = None;
    let mut turn = n as usize;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let uid = books.sent.fetch_add(1, Ordering::Relaxed);
        let mut connection = if let Some(connection) = kept.take().filter(|connection| !connection.is_closed()) {
            connection
        } else {
            turn += 1;
            let to = {
                let endpoints = endpoints.lock().unwrap();
                endpoints[turn % endpoints.len()]
            };
            match client.connect(to) {
                Ok(connection) => connection,
                Err(error) => {
                    books.failed.lock().unwrap().push(format!("connect to {to}: {error}"));
                    due += every;
                    continue;
                }
            }
        };
        match connection.ask("/mutate", &review(uid).to_string()) {
            Ok(answer) => {
                let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let fine = answer.status == 200 && json["response"]["uid"] == uid.to_string().as_str();
                if fine && json["response"]["patch"].is_string() {
                    *books.answered.lock().unwrap().entry(connection.to).or_default() += 1;
                } else {
                    books.failed.lock().unwrap().push(format!("{}: {} {json}", connection.to, answer.status));
                }
                let mut slowest = books.slowest.lock().unwrap();
                *slowest = slowest.max(due.elapsed());
                kept = (!answer.close).then_some(connection);
            }
            Err(error) => books.failed.lock().unwrap().push(format!("request to {}: {error}", connection.to)),
        }
        due += every;
    }
}

/// Ends the load with the test, however that ends.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn replica(folder: &str) -> (SocketAddr, Running) {
    let listen = free();
    let port = listen.port().to_string();
    let run = ["run", "--grace", "30", "--port", &port, "--force-on-repeat", "--", super::webhook::LAMEDUCK];
    let mut running = webhook(&run, listen, &["--tls-dir", folder]);
    running.hear("the certificate is served");
    (listen, running)
}

#[test]
fn a_rolling_update_under_50_admissions_a_second_fails_none() {
    let folder = tempfile::tempdir().unwrap();
    let pair = keep_certificate(folder.path(), None);
    let folder = folder.path().to_str().unwrap();
    let mut old: Vec<_> = (0..2).map(|_| replica(folder)).collect();
    let endpoints: Endpoints = Arc::new(Mutex::new(old.iter().map(|(address, _)| *address).collect()));
    let (books, stop, client) = (Books::default(), AtomicBool::new(false), Client::new(&pair.authorities));
    let mut fresh = Vec::new();
    std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        for n in 0..WORKERS {
            let (client, endpoints, books, stop) = (&client, &endpoints, &books, &stop);
            scope.spawn(move || work(n, client, endpoints, books, stop));
        }
        let served = |address: SocketAddr| books.answered.lock().unwrap().contains_key(&address);
        for (address, running) in &mut old {
            wait_until("the old one serves", || served(*address));
            let (new, started) = replica(folder);
            endpoints.lock().unwrap().push(new);
            fresh.push((new, started));
            // The deletion: TERM at once, and routing learns of it later.
            running.signal(Signal::TERM);
            std::thread::sleep(LAG);
            endpoints.lock().unwrap().retain(|other| other != address);
            assert_eq!(running.wait().code(), Some(0));
            wait_until("the new one serves", || served(new));
        }
    });
    let failed = books.failed.lock().unwrap();
    let answered: usize = books.answered.lock().unwrap().values().sum();
    println!("{answered} answered, the slowest after {:?}", books.slowest.lock().unwrap());
    assert_eq!((failed.as_slice(), answered), ([].as_slice(), books.sent.load(Ordering::Relaxed)));
    // Each of the two took at least the least time in lame duck.
    assert!(answered >= (RATE * 2 * 5) as usize / 2, "{answered}");
}
