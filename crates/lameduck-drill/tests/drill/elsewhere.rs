//! Replicas that somebody else runs: the load follows what it is told of them.

use std::io::{BufRead, BufReader, Cursor, Write, pipe};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lameduck_core::Cause;
use lameduck_core::timeline::Moment;
use lameduck_drill::live::{News, Receiver, Sender, channel};
use lameduck_drill::workers::{Heard, OVER, Order, merged, work};
use lameduck_drill::{DrillResult, Plan, Progress, SetupError, Tick, follow};
use rustix::process::{Pid, Signal, kill_process};

use crate::fixture;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How long routing goes on after a replica's end is known.
const LAG: Duration = ms(500);

/// A service of the fixture's, that this test runs itself.
struct Service {
    name: String,
    address: SocketAddr,
    process: Child,
}

impl Service {
    fn start(name: &str) -> Service {
        // Free a moment ago; whoever takes it meanwhile makes the service fail, and the test with it.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let plan = fixture::plan("naive");
        let mut command = Command::new(&plan.command[0]);
        command.args(&plan.command[1..]).envs(plan.env).env("PORT", address.port().to_string());
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        while TcpStream::connect(address).is_err() {
            thread::sleep(ms(10));
        }
        Service { name: name.to_owned(), address, process }
    }

    fn routed(&self) -> News {
        News::Routed { name: self.name.clone(), address: self.address }
    }

    fn end(&mut self) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).unwrap();
        self.process.wait().unwrap();
    }
}

/// Follows, and tells whoever directs that the load has begun.
fn followed(plan: &Plan, news: Receiver, began: &mpsc::Sender<()>) -> Result<DrillResult, SetupError> {
    follow(plan, news, |piece| {
        if let Progress::LoadBegan { .. } = piece {
            began.send(()).unwrap();
        }
    })
}

/// Ends one of two, and lets routing hear of it late.
fn direct(news: &Sender, leaving: &mut Service) {
    let name = leaving.name.clone();
    thread::sleep(LAG);
    news.tell(News::Event { what: "delete".into() });
    news.tell(News::Stopping { name: name.clone() });
    leaving.end();
    news.tell(News::Exited { name: name.clone() });
    news.tell(News::Status { name: name.clone(), code: 143 });
    thread::sleep(LAG);
    news.tell(News::Unrouted { name });
    thread::sleep(LAG);
    news.tell(News::Enough);
}

#[test]
fn the_load_follows_what_it_is_told() {
    let (mut leaving, staying) = (Service::start("pod-a"), Service::start("pod-b"));
    let (news, receiver) = channel();
    let (began, begins) = mpsc::channel();
    let names = [leaving.name.clone(), staying.name.clone()];
    assert!(news.tell(leaving.routed()) && news.tell(staying.routed()));
    let director = thread::spawn(move || {
        begins.recv().unwrap();
        direct(&news, &mut leaving);
    });
    let plan =
        Plan { replicas: 2, rate: 200.0, lag: Duration::ZERO, rtt: Duration::ZERO, min_sample: 1, ..Plan::default() };
    let result = followed(&plan, receiver, &began);
    director.join().unwrap();
    let mut staying = staying;
    staying.end();
    let result = result.unwrap();
    assert!(result.balances());
    assert_eq!(result.replicas.iter().map(|replica| replica.name.clone()).collect::<Vec<_>>(), names);
    let [left, stayed] = &result.replicas[..] else { panic!("{:?}", result.replicas) };
    let at = |moment: Moment| left.timeline.at(moment).unwrap().as_secs_f64();
    let (exited, removed) = (at(Moment::Exited), at(Moment::EndpointRemoved));
    // Half of 200 requests a second went where nobody listened any more, as long as routing had not heard. First attempts
    // count: that a retry was answered elsewhere changes nothing.
    let refused = result.tally.causes.get(&Cause::RefusedWhileRouted).copied().unwrap_or(0) as f64;
    let expect = (removed - exited) * 100.0;
    assert!((refused - expect).abs() <= 10.0 + expect / 2.0, "{refused} of {expect}: {:?}", result.tally);
    assert_eq!((stayed.tally.lost, stayed.tally.unknown), (0, 0), "{:#?}", result.losses);
    // Told late, and told no more: nothing was sent to it after that.
    assert!(result.losses.iter().all(|loss| loss.sent_s <= removed), "{removed}: {:#?}", result.losses);
    assert!(left.timeline.at(Moment::TermReceived) <= left.timeline.at(Moment::Exited));
    assert_eq!((left.exit.as_deref(), stayed.exit.as_deref()), (Some("signal: 15 (SIGTERM)"), None));
    assert_eq!(result.events[0].event, "delete");
}

/// As a kubelet ends a container whose PID 1 does not hear TERM: SIGKILL at the deadline, and a status afterwards. The kernel closes its
/// connections before anybody hears of its end.
#[test]
fn what_closes_with_sigkill_was_no_reaction_to_term() {
    let mut deaf = Service::start("pod-a");
    let (news, receiver) = channel();
    let (began, begins) = mpsc::channel();
    news.tell(deaf.routed());
    let mix = lameduck_drill::parse_request_file("GET /slow 4\nGET / 1").unwrap();
    let grace = ms(1500);
    let plan = Plan { replicas: 1, rate: 300.0, grace, lag: ms(2000), min_sample: 1, mix, ..Plan::default() };
    let director = thread::spawn(move || {
        begins.recv().unwrap();
        thread::sleep(LAG);
        let name = deaf.name.clone();
        news.tell(News::Stopping { name: name.clone() });
        thread::sleep(grace);
        deaf.process.kill().unwrap();
        deaf.process.wait().unwrap();
        // Later than the closes.
        thread::sleep(ms(20));
        news.tell(News::Exited { name: name.clone() });
        news.tell(News::Unrouted { name: name.clone() });
        thread::sleep(LAG);
        news.tell(News::Status { name, code: 137 });
        news.tell(News::Enough);
    });
    let result = followed(&plan, receiver, &began);
    director.join().unwrap();
    let result = result.unwrap();
    let causes = &result.tally.causes;
    assert!(causes.get(&Cause::SignalNotDelivered).is_some_and(|count| *count > 0), "{causes:?}");
    assert!(!causes.contains_key(&Cause::KilledAtDeadline), "{causes:?}");
}

/// One that has closed its listener and waits for a client which does not leave has heard TERM, though no connection that this load
/// makes meets the closed door.
#[test]
fn what_no_longer_listens_has_heard_the_signal() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (news, receiver) = channel();
    let (began, begins) = mpsc::channel();
    let name = "pod-a".to_owned();
    news.tell(News::Routed { name: name.clone(), address });
    let grace = ms(1500);
    // It answers on its one connection, and is killed with a request in hand.
    let (end, over) = mpsc::channel::<()>();
    let (holds, held) = mpsc::channel();
    let (answers, answering) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        drop(listener);
        loop {
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
            }
            if answering.try_recv() == Err(mpsc::TryRecvError::Disconnected) {
                holds.send(()).unwrap();
                let _ = over.recv();
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    });
    // Rarely, so that one connection will do.
    let plan =
        Plan { replicas: 1, rate: 2.0, grace, lag: ms(9000), min_sample: 1, rtt: Duration::ZERO, ..Plan::default() };
    let director = thread::spawn(move || {
        begins.recv().unwrap();
        thread::sleep(ms(100));
        news.tell(News::Stopping { name: name.clone() });
        thread::sleep(ms(1200));
        drop(answers);
        thread::sleep(ms(300));
        held.recv().unwrap();
        drop(end);
        news.tell(News::Exited { name: name.clone() });
        news.tell(News::Status { name, code: 137 });
        news.tell(News::Enough);
    });
    let result = followed(&plan, receiver, &began);
    director.join().unwrap();
    server.join().unwrap();
    let causes = result.unwrap().tally.causes;
    assert!(causes.get(&Cause::KilledAtDeadline).is_some_and(|count| *count > 0), "{causes:?}");
    assert!(!causes.contains_key(&Cause::SignalNotDelivered), "{causes:?}");
}

#[test]
fn nothing_is_sent_before_all_are_routed_to() {
    let (news, receiver) = channel();
    assert!(news.tell(News::Routed { name: "only".into(), address: (Ipv4Addr::LOCALHOST, 9).into() }));
    drop(news);
    let error = follow(&Plan { replicas: 2, ..Plan::default() }, receiver, |_| {}).unwrap_err();
    assert!(matches!(error, SetupError::NotRouted { found: 1, wanted: 2, .. }), "{error}");
}

#[test]
fn routing_comes_back_to_one_that_it_left() {
    let (mut first, mut second) = (Service::start("pod-a"), Service::start("pod-b"));
    let (news, receiver) = channel();
    let (began, begins) = mpsc::channel();
    let (again, other) = (first.routed(), second.name.clone());
    assert!(news.tell(first.routed()) && news.tell(second.routed()));
    let name = first.name.clone();
    let director = thread::spawn(move || {
        begins.recv().unwrap();
        // Its probe failed, and passed again; and then the other is left for good.
        for piece in [News::Unrouted { name }, again, News::Unrouted { name: other }, News::Enough] {
            thread::sleep(LAG);
            news.tell(piece);
        }
    });
    let plan = Plan { replicas: 2, rate: 200.0, lag: LAG / 2, rtt: Duration::ZERO, min_sample: 1, ..Plan::default() };
    let result = followed(&plan, receiver, &began);
    director.join().unwrap();
    first.end();
    second.end();
    let result = result.unwrap();
    assert_eq!((result.tally.lost, result.tally.unknown, result.unrouted), (0, 0, 0), "{:#?}", result.losses);
    let sent: Vec<u64> = result.replicas.iter().map(|replica| replica.tally.sent).collect();
    assert!(result.tally.sent > 300 && sent.iter().all(|sent| *sent > 100), "{sent:?}");
}

/// Two workers send half of the load each, and hear the same from one who directs them.
#[test]
fn books_of_workers_are_merged() {
    let (mut leaving, mut staying) = (Service::start("pod-a"), Service::start("pod-b"));
    let plan =
        Plan { replicas: 2, rate: 300.0, lag: Duration::ZERO, rtt: Duration::ZERO, min_sample: 1, ..Plan::default() };
    let (said, lines) = mpsc::channel();
    let mut inputs = Vec::new();
    let mut workers = Vec::new();
    for n in 0..2 {
        let (input, tell) = pipe().unwrap();
        let (says, output) = pipe().unwrap();
        workers.push(thread::spawn(move || work(input, output).unwrap()));
        let said = said.clone();
        thread::spawn(move || {
            for line in BufReader::new(says).lines() {
                said.send((n, line.unwrap())).unwrap();
            }
        });
        inputs.push(tell);
        let order = serde_json::to_string(&Order::of(&plan, n, 2)).unwrap();
        writeln!(inputs[n], "{order}").unwrap();
    }
    drop(said);
    let mut line = move |line: &str| {
        for input in &mut inputs {
            writeln!(input, "{line}").unwrap();
        }
    };
    let mut tell = move |news: Option<&News>| {
        line(&news.map_or_else(|| OVER.to_owned(), |news| serde_json::to_string(news).unwrap()));
    };
    tell(Some(&leaving.routed()));
    tell(Some(&staying.routed()));
    let mut heard = [Heard::default(), Heard::default()];
    let mut director = Some(move || {
        let name = leaving.name.clone();
        thread::sleep(LAG);
        tell(Some(&News::Event { what: "delete".into() }));
        tell(Some(&News::Stopping { name: name.clone() }));
        leaving.end();
        tell(Some(&News::Exited { name: name.clone() }));
        tell(Some(&News::Status { name: name.clone(), code: 143 }));
        thread::sleep(LAG);
        tell(Some(&News::Unrouted { name }));
        thread::sleep(LAG);
        tell(Some(&News::Enough));
        tell(None);
        // Its input does not end before its output does.
        tell
    });
    let mut directed = None;
    for (n, line) in lines {
        heard[n].line(&line);
        if heard.iter().all(|one| one.began)
            && let Some(director) = director.take()
        {
            directed = Some(thread::spawn(director));
        }
    }
    drop(directed.unwrap().join().unwrap());
    assert!(workers.into_iter().all(|worker| worker.join().unwrap()));
    staying.end();
    let counts = Tick::together(heard.iter().map(|one| one.counts));
    let books = heard.into_iter().enumerate().map(|(n, one)| (format!("worker-{n}"), *one.end.unwrap().unwrap()));
    let whole = merged(&plan, books.collect()).unwrap();
    assert!(whole.balances());
    assert_eq!((whole.workers.len(), whole.replicas.len(), whole.plan.rate), (2, 2, 300.0));
    assert!(whole.workers.iter().all(|worker| worker.tally.sent > 100), "{:?}", whole.workers);
    // Both met the closed door, and nobody lost anything elsewhere.
    let refused = whole.tally.causes.get(&Cause::RefusedWhileRouted).copied().unwrap_or(0);
    assert!(refused > 20, "{:?}", whole.tally);
    assert_eq!(whole.replicas[1].tally.lost, 0, "{:#?}", whole.losses);
    assert_eq!(whole.marks.len() as u64, whole.tally.answered);
    assert!(whole.latency_s.p50.is_some() && counts.sent > 0 && counts.sent <= whole.tally.sent + whole.retries);
    // Each has ids of its own, and the clocks agree: both heard of the event at once.
    let prefix = |id: &str| id.rsplit_once('-').unwrap().0.to_owned();
    let prefixes: std::collections::BTreeSet<_> = whole.losses.iter().map(|loss| prefix(&loss.id)).collect();
    assert_eq!(prefixes.len(), 2);
    let exited = whole.replicas[0].timeline.at(Moment::Exited).unwrap().as_secs_f64();
    assert!(whole.losses.iter().all(|loss| loss.at_s > exited - 1.0), "{exited}: {:#?}", whole.losses);
}

#[test]
fn an_order_that_can_not_be_carried_out_is_said() {
    let check = |input: &str, expect: &str| {
        let mut output = Vec::new();
        assert!(!work(Cursor::new(input.to_owned().into_bytes()), &mut output).unwrap());
        let mut heard = Heard::default();
        heard.line(String::from_utf8(output).unwrap().trim_end());
        let why = heard.end.unwrap().unwrap_err();
        assert!(why.contains(expect), "{why}");
    };
    check("", "standard input ended before an order came");
    check("GET / HTTP/1.1\n", "read \"GET / HTTP/1.1\", expected an order of lameduck.work/1");
    check("{\"schema\":\"lameduck.work/2\"}\n", "read an order of lameduck.work/2, this is lameduck.work/1");
    let order = serde_json::to_string(&Order::of(&Plan::default(), 0, 1)).unwrap();
    check(&order.replace("\"glb\"", "\"gold\""), "there is no profile \"gold\" here");
    // Nobody tells it anything any more.
    check(&format!("{order}\n"), "0 of 3 replicas were routed to");
}
