use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn says(standing: Standing, listens: &[u16], connects: &[u16], after: &[&str]) -> Announcement {
    Announcement {
        asks: true,
        standing,
        pod: None,
        listens: listens.to_vec(),
        connects: connects.to_vec(),
        after: after.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// The app at 8080.
fn app(after: &[&str], connects: &[u16]) -> Order {
    Order {
        name: "app".into(),
        after: after.iter().map(|name| (*name).to_owned()).collect(),
        listens: vec![8080],
        connects: connects.to_vec(),
        ..Order::default()
    }
}

const fn at(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

const LEAVING: Standing = Standing::Leaving;
const SERVING: Standing = Standing::Serving;

#[test]
fn who_connects_to_this_app_leaves_first() {
    let mut order = app(&[], &[]);
    order.hear("proxy", "proxy/1", says(LEAVING, &[80], &[8080], &[]));
    order.hear("other", "other/1", says(LEAVING, &[9090], &[80], &[]));
    let (ahead, news) = order.settle();
    assert_eq!(ahead, Ahead::Leaving);
    let proxies = News::Ahead { name: "proxy".into(), relation: Relation::Proxies, ports: vec![8080] };
    assert_eq!(news, [proxies]);
    assert_eq!(order.settle(), (Ahead::Leaving, vec![]), "said once");
    assert_eq!(order.waited_for(), ["proxy"]);
    order.gone(at(7), "proxy/1");
    assert_eq!(order.settle(), (Ahead::Nobody, vec![News::Left { name: "proxy".into(), at: at(7) }]));
    let [line] = &order.report(at(1), at(9))[..] else { panic!("one was waited for") };
    assert_eq!((line.outcome, line.waited), (NeighbourOutcome::Left, at(6)));
}

#[test]
fn one_that_was_not_told_to_stop_is_not_waited_for() {
    let mut order = app(&[], &[]);
    order.hear("proxy", "proxy/1", says(SERVING, &[80], &[8080], &[]));
    assert_eq!(order.settle(), (Ahead::Nobody, vec![]));
    assert_eq!(order.report(at(0), at(5))[0].outcome, NeighbourOutcome::NotTold);
    // Told a little later.
    order.hear("proxy", "proxy/1", says(LEAVING, &[80], &[8080], &[]));
    assert_eq!(order.settle().0, Ahead::Leaving);
}

#[test]
fn stated_order_waits_for_who_is_there() {
    let mut order = app(&["worker", "nobody"], &[]);
    order.found(&[("worker".into(), "worker/1".into()), ("third".into(), "third/1".into())]);
    assert_eq!(order.settle().0, Ahead::Untold);
    assert_eq!(order.neighbours().len(), 1, "a name on a socket is nobody yet");
    let outcomes = |order: &Order| order.report(at(0), at(5)).iter().map(|line| line.outcome).collect::<Vec<_>>();
    assert_eq!(outcomes(&order), [NeighbourOutcome::Silent, NeighbourOutcome::NotFound]);
    order.hear("worker", "worker/1", says(LEAVING, &[], &[], &[]));
    assert_eq!(order.settle().0, Ahead::Leaving);
    order.gone(at(3), "worker/1");
    assert_eq!(order.settle().0, Ahead::Nobody);
    assert_eq!(outcomes(&order), [NeighbourOutcome::Left, NeighbourOutcome::NotFound]);
}

#[test]
fn two_that_call_each_other_have_no_order() {
    let mut order = app(&[], &[80]);
    order.hear("proxy", "proxy/1", says(LEAVING, &[80], &[8080], &[]));
    assert_eq!(order.settle(), (Ahead::Nobody, vec![News::Mutual { name: "proxy".into() }]));
    assert_eq!(order.report(at(0), at(5))[0].outcome, NeighbourOutcome::Mutual);
    // Stated, it has one: whoever was told to leave after the app is not waited for, although it connects to it.
    let mut order = app(&[], &[]);
    order.hear("proxy", "proxy/1", says(LEAVING, &[80], &[8080], &["app"]));
    assert_eq!(order.settle().0, Ahead::Nobody);
    // And the other way round.
    let mut order = app(&["proxy"], &[80]);
    order.hear("proxy", "proxy/1", says(LEAVING, &[80], &[], &[]));
    assert_eq!(order.settle().0, Ahead::Leaving);
}

#[test]
fn a_stated_order_that_goes_round_is_said_once() {
    let mut order = app(&["b"], &[]);
    order.hear("b", "b/1", says(LEAVING, &[], &[], &["c"]));
    order.hear("c", "c/1", says(LEAVING, &[], &[], &["app"]));
    let (ahead, news) = order.settle();
    assert_eq!(ahead, Ahead::Leaving, "what was stated is kept: the budget ends it");
    assert!(news.contains(&News::Cycle { name: "b".into() }), "{news:?}");
    assert!(order.settle().1.is_empty());
}

#[test]
fn another_pods_neighbour_is_none() {
    let mut order = Order { pod: Some("one".into()), ..app(&["proxy"], &[]) };
    order.hear("proxy", "proxy/1", says(LEAVING, &[80], &[8080], &[]));
    assert_eq!(order.settle().0, Ahead::Nobody);
    order.found(&[("proxy".into(), "proxy/1".into())]);
    assert_eq!(order.settle().0, Ahead::Nobody, "whatever its socket's name");
    let of_this_pod = Announcement { pod: Some("one".into()), ..says(LEAVING, &[80], &[8080], &[]) };
    order.hear("proxy", "proxy/2", of_this_pod);
    assert_eq!(order.settle().0, Ahead::Leaving);
}

#[test]
fn a_port_that_both_hold_is_no_neighbours() {
    // One lameduck above another in a container: the outer one sees the inner one's sockets as its own app's.
    let mut order = app(&[], &[]);
    order.hear("outer", "outer/1", says(LEAVING, &[80, 8080], &[8080], &[]));
    assert_eq!(order.settle().0, Ahead::Nobody);
}

fn said() -> impl Strategy<Value = Announcement> {
    let ports = || prop::collection::vec(1u16..5, 0..4);
    (any::<bool>(), ports(), ports(), prop::collection::vec(0usize..6, 0..4)).prop_map(
        |(leaving, listens, connects, after)| {
            let after: Vec<String> = after.into_iter().map(|n| format!("n{n}")).collect();
            let standing = if leaving { LEAVING } else { SERVING };
            Announcement { after, ..says(standing, &listens, &connects, &[]) }
        },
    )
}

proptest! {
    /// Whatever strangers say, in whatever numbers: no panic, bounded, and once all are gone nobody is ahead.
    #[test]
    fn bounded_and_total(
        own in said(), talk in prop::collection::vec((0usize..80, 0usize..6, said(), any::<bool>()), 0..200)
    ) {
        let mut order = Order {
            name: "n0".into(), after: own.after, listens: own.listens, connects: own.connects, ..Order::default()
        };
        for (n, (address, name, said, gone)) in talk.into_iter().enumerate() {
            let address = format!("a{address}");
            order.hear(&format!("n{name}"), &address, said);
            if gone {
                order.gone(at(n as u64), &address);
            }
            let _ = order.settle();
            prop_assert!(order.neighbours().len() <= MOST);
            prop_assert!(order.report(at(0), at(1000)).len() <= MOST + order.after.len());
        }
        for address in 0..80 {
            order.gone(at(1000), &format!("a{address}"));
        }
        prop_assert_eq!(order.settle().0, Ahead::Nobody);
        prop_assert!(order.waited_for().is_empty());
    }

    /// By what is learned alone, no two ever wait for each other.
    #[test]
    fn learned_order_never_deadlocks(one in said(), other in said()) {
        let see = |own: &Announcement, name: &str, other: &Announcement, other_name: &str| {
            let mut order = Order {
                name: name.into(), listens: own.listens.clone(), connects: own.connects.clone(), ..Order::default()
            };
            order.hear(other_name, "x", Announcement { standing: LEAVING, after: Vec::new(), ..other.clone() });
            order.settle().0
        };
        let waits = [see(&one, "a", &other, "b"), see(&other, "b", &one, "a")];
        prop_assert!(waits != [Ahead::Leaving, Ahead::Leaving]);
    }
}
