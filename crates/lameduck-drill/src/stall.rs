//! When the drill itself was held up: it is one thread, and on a busy machine it may not run for a while. What it sees right after that
//! happened at some time since it last ran, so a verdict that leans on that time takes the earliest.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::Clock;

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(10);
/// From how long on a gap is one. Well below the slack that verdicts allow anyway.
const LEAST: Duration = Duration::from_millis(50);
/// What was ready when the gap ended is seen within this.
const AFTER: Duration = Duration::from_millis(50);

/// The gaps of a run, in order.
#[derive(Debug, Default)]
pub(crate) struct Stalls(Vec<(Duration, Duration)>);

impl Stalls {
    /// The earliest that something can have happened which was seen at `at`.
    pub(crate) fn earliest(&self, at: Duration) -> Duration {
        let next = self.0.partition_point(|(from, _)| *from <= at);
        match next.checked_sub(1).map(|last| self.0[last]) {
            Some((from, to)) if at <= to + AFTER => from,
            Some(_) | None => at,
        }
    }

    /// The same for what was seen after something that the drill itself did, and may have been the cause of it: not before that.
    pub(crate) fn earliest_after(&self, own: Option<Duration>, at: Duration) -> Duration {
        let earliest = self.earliest(at);
        own.filter(|own| *own <= at).map_or(earliest, |own| earliest.max(own))
    }
}

/// Notes the gaps, for as long as it is polled.
pub(crate) async fn watch(clock: Clock, stalls: Rc<RefCell<Stalls>>) {
    let mut before = clock.now();
    loop {
        clock.until(before + EVERY).await;
        let now = clock.now();
        if now.saturating_sub(before) >= LEAST {
            stalls.borrow_mut().0.push((before, now));
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_after_a_gap_may_have_happened_in_it() {
        let ms = Duration::from_millis;
        let stalls = Stalls(vec![(ms(100), ms(400)), (ms(1000), ms(1100))]);
        let check = |at: u64, earliest: u64| assert_eq!(stalls.earliest(ms(at)), ms(earliest), "{at}");
        check(50, 50);
        check(100, 100);
        check(399, 100);
        check(450, 100);
        check(451, 451);
        check(1149, 1000);
        check(2000, 2000);
        assert_eq!(Stalls::default().earliest(ms(7)), ms(7));
    }

    #[test]
    fn what_the_drill_did_in_a_gap_comes_before_what_it_saw_then() {
        let ms = Duration::from_millis;
        let stalls = Stalls(vec![(ms(100), ms(400))]);
        let check = |own: Option<u64>, at: u64, earliest: u64| {
            assert_eq!(stalls.earliest_after(own.map(ms), ms(at)), ms(earliest), "{own:?} {at}");
        };
        check(Some(300), 410, 300);
        check(Some(50), 410, 100);
        // It was seen before.
        check(Some(420), 410, 100);
        check(None, 410, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_is_noted() {
        let stalls = Rc::new(RefCell::new(Stalls::default()));
        let clock = Clock::start();
        let held_up = async {
            tokio::time::sleep(Duration::from_millis(95)).await;
            // The clock goes on, and nobody is polled.
            tokio::time::advance(Duration::from_millis(300)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        tokio::select! {
            () = watch(clock, Rc::clone(&stalls)) => {}
            () = held_up => {}
        }
        let stalls = stalls.borrow();
        assert_eq!(stalls.0.len(), 1, "{stalls:?}");
        assert!(stalls.earliest(Duration::from_millis(390)) <= Duration::from_millis(95), "{stalls:?}");
    }
}
