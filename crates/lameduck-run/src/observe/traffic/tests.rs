use proptest::prelude::*;

use super::*;

const fn ms(millis: u64) -> Time {
    Duration::from_millis(millis)
}

/// An open connection: `idle` since data came, `answered` whether something was sent after it.
fn open(cookie: u64, received_ago: u32, sent_ago: u32, bytes: u64) -> Socket {
    Socket {
        state: TcpState::ESTABLISHED,
        local_port: 80,
        remote_port: 4000,
        local: IpAddr::from([127, 0, 0, 1]),
        remote: IpAddr::from([10, 0, 0, 1]),
        cookie,
        expires_ms: 0,
        received: 0,
        unsent: 0,
        inode: 1,
        cgroup: None,
        activity: Some(Activity {
            since_sent_ms: sent_ago,
            since_received_ms: received_ago,
            bytes_received: bytes,
            bytes_sent: bytes,
        }),
    }
}

fn look(tracker: &mut Tracker, at: Time, sockets: &[Socket]) -> Figures {
    tracker.begin_look(at);
    for socket in sockets {
        tracker.see(at, socket);
    }
    tracker.end_look();
    tracker.figures()
}

#[test]
fn an_idle_connection_is_no_arrival_and_a_request_on_it_is_one() {
    let mut tracker = Tracker::default();
    let figures = look(&mut tracker, ms(100_000), &[open(1, 30_000, 29_990, 500)]);
    assert_eq!((figures.at_start, figures.arrivals, figures.in_flight), (1, 0, 0));
    assert_eq!(figures.last_arrival, Some(ms(70_000)));
    let figures = look(&mut tracker, ms(100_100), &[open(1, 40, 30, 600)]);
    assert_eq!((figures.arrivals, figures.last_arrival, figures.new), (1, Some(ms(100_060)), 0));
    let figures = look(&mut tracker, ms(100_200), &[open(1, 140, 130, 600)]);
    assert_eq!((figures.arrivals, figures.last_arrival), (1, Some(ms(100_060))), "seen once, counted once");
}

#[test]
fn what_is_in_flight() {
    let check = |socket: Socket, expect: u32, why: &str| {
        let mut tracker = Tracker::default();
        assert_eq!(look(&mut tracker, ms(9000), &[socket]).in_flight, expect, "{why}");
    };
    check(open(1, 50, 40, 100), 0, "answered after it came");
    check(open(1, 40, 900, 100), 1, "came after the last answer");
    check(Socket { received: 10, ..open(1, 40, 30, 100) }, 1, "not read yet");
    check(Socket { unsent: 10, ..open(1, 40, 30, 100) }, 1, "the answer is on its way");
    check(open(1, 40, 40, 0), 0, "nothing was asked");
    let mut fresh = open(1, 40, 40, 100);
    fresh.activity = fresh.activity.map(|activity| Activity { bytes_sent: 0, ..activity });
    check(fresh, 1, "asked on a new connection, nothing answered yet");
    check(Socket { state: TcpState::CLOSE_WAIT, ..open(1, 40, 900, 100) }, 0, "the client has left");
}

/// One-shot connections at the given times, then the figures long after.
fn one_shots(times: &[u64]) -> Figures {
    let mut tracker = Tracker::default();
    look(&mut tracker, ms(0), &[]);
    for (n, at) in times.iter().enumerate() {
        let socket = open(n as u64 + 10, 5, 2, 90);
        look(&mut tracker, ms(*at), &[socket]);
        tracker.destroyed(ms(*at + 20), &socket);
    }
    look(&mut tracker, ms(60_000), &[])
}

#[test]
fn a_regular_slow_one_shot_is_a_prober_anything_else_is_traffic() {
    let prober = one_shots(&[1000, 2000, 3000, 4000]);
    assert_eq!((prober.arrivals, prober.new, prober.ignored, prober.last_arrival), (0, 0, 4, None));
    let quick = one_shots(&[1000, 1400, 1800, 2200]);
    assert_eq!((quick.arrivals, quick.new, quick.last_arrival), (4, 4, Some(ms(2195))));
    let irregular = one_shots(&[1000, 2000, 4500, 5500]);
    assert_eq!((irregular.arrivals, irregular.last_arrival), (4, Some(ms(5495))));
    let two = one_shots(&[1000, 2000]);
    assert_eq!(two.arrivals, 2, "two are no pace yet");
}

#[test]
fn time_wait_shows_a_probers_pace_before_the_drain() {
    let closed = |ago: u32| Socket {
        state: TcpState::TIME_WAIT,
        expires_ms: 60_000 - ago,
        activity: None,
        ..open(u64::from(ago), 0, 0, 0)
    };
    let mut tracker = Tracker::default();
    look(&mut tracker, ms(100_000), &[closed(9_000), closed(29_000), closed(19_000)]);
    let probe = open(1, 5, 2, 90);
    look(&mut tracker, ms(101_000), &[probe]);
    tracker.destroyed(ms(101_020), &probe);
    let figures = look(&mut tracker, ms(101_100), &[]);
    assert_eq!((figures.arrivals, figures.last_arrival), (0, None), "the first probe of the drain is known for one");
}

#[test]
fn came_and_gone_between_two_looks() {
    let mut tracker = Tracker::default();
    look(&mut tracker, ms(0), &[]);
    tracker.destroyed(ms(500), &open(1, 30, 20, 100));
    tracker.destroyed(ms(510), &open(2, 30, 20, 0));
    let figures = look(&mut tracker, ms(600), &[]);
    assert_eq!((figures.new, figures.arrivals), (1, 1), "one without data was no request");
    assert_eq!(figures.last_arrival, Some(ms(470)));
}

#[test]
fn an_end_heard_of_late_is_not_a_new_connection() {
    let mut tracker = Tracker::default();
    look(&mut tracker, ms(0), &[]);
    let socket = open(1, 5, 2, 90);
    look(&mut tracker, ms(100), &[socket]);
    look(&mut tracker, ms(200), &[]);
    tracker.destroyed(ms(240), &socket);
    assert_eq!(look(&mut tracker, ms(300), &[]).new, 1);
}

#[test]
fn ignored_sources_count_for_nothing_else() {
    let mut tracker = Tracker::new(vec![Cidr::parse("10.0.0.0/8").unwrap()]);
    look(&mut tracker, ms(0), &[]);
    let figures = look(&mut tracker, ms(100), &[open(1, 5, 900, 90)]);
    assert_eq!(
        (figures.ignored, figures.arrivals, figures.new, figures.in_flight, figures.last_arrival),
        (1, 0, 0, 0, None)
    );
    assert_eq!(look(&mut tracker, ms(200), &[open(1, 5, 900, 190)]).ignored, 1, "a connection is ignored once");
}

fn any_socket() -> impl Strategy<Value = Socket> {
    (0u64..6, 0u32..100_000, 0u32..100_000, 0u64..500, 0u32..3, prop_oneof![Just(1u8), Just(3), Just(6), Just(8)])
        .prop_map(|(cookie, received, sent, bytes, queue, state)| Socket {
            state: TcpState(state),
            received: queue,
            expires_ms: sent,
            local: IpAddr::from([127, 0, 0, 1]),
            remote: IpAddr::from([10, 0, 0, cookie as u8 % 2]),
            ..open(cookie, received, sent, bytes)
        })
}

proptest! {
    /// Whatever the kernel shows: no panic, no arrival in the future, and the sources' counts do not exceed the whole.
    #[test]
    fn any_sequence_of_looks(looks in prop::collection::vec((1u64..3000, prop::collection::vec(any_socket(), 0..6), prop::collection::vec(any_socket(), 0..2)), 1..30)) {
        let mut tracker = Tracker::default();
        let mut now = ms(100_000);
        for (wait, mut sockets, gone) in looks {
            now += ms(wait);
            sockets.sort_by_key(|socket| socket.cookie);
            sockets.dedup_by_key(|socket| socket.cookie);
            let figures = look(&mut tracker, now, &sockets);
            prop_assert!(figures.last_arrival <= Some(now));
            prop_assert!(figures.in_flight <= figures.open);
            prop_assert!(figures.open as usize <= sockets.len());
            for socket in gone {
                tracker.destroyed(now, &socket);
            }
            let by_source: u32 = tracker.by_source(16).iter().map(|source| source.arrivals).sum();
            prop_assert!(by_source <= tracker.figures().arrivals + tracker.figures().ignored);
        }
    }
}
