//! Closed forms that a prediction, a drill and a simulation must agree on.

use std::time::Duration;

/// The chance that one request meets the server's idle close: `λ·w·exp(-λT)`.
///
/// `rate` is requests per second on one connection (λ), `window` the time in which FIN and request cross (w), `timeout`
/// the server's idle timeout (T). Requests on a connection are taken as Poisson arrivals; the race is lost when a gap
/// ends within `window` after T. It is worst at λ = 1/T, with `w / (e·T)`.
pub fn idle_race_per_request(rate: f64, window: Duration, timeout: Duration) -> f64 {
    rate * window.as_secs_f64() * (-rate * timeout.as_secs_f64()).exp()
}

/// Requests refused at one termination: the rate to the pod times the time for which routing still sends what the process
/// no longer accepts.
pub fn refused_per_termination(rate: f64, propagation: Duration, accepts_for: Duration) -> f64 {
    rate * propagation.saturating_sub(accepts_for).as_secs_f64()
}

/// With no loss among `n` requests, the loss rate is at most this at 95 % confidence (Hanley and Lippman-Hand 1983, "If
/// nothing goes wrong, is everything all right?").
pub fn rule_of_three(n: u64) -> f64 {
    if n == 0 { 1.0 } else { (3.0 / n as f64).min(1.0) }
}

/// The 95 % Wilson score interval for a proportion of `events` in `n` (Wilson 1927): sound for few events and small `n`.
pub fn wilson(events: u64, n: u64) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    if n == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (n as f64, events as f64 / n as f64);
    let centre = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn published_points() {
        let close = |got: f64, want: f64| assert!((got - want).abs() < want * 0.001, "{got} against {want}");
        // λ 0.2/s, T 5 s, w 10 ms.
        close(idle_race_per_request(0.2, Duration::from_millis(10), Duration::from_secs(5)), 7.3576e-4);
        close(refused_per_termination(200.0, Duration::from_secs(5), Duration::from_secs(2)), 600.0);
        assert!(refused_per_termination(200.0, Duration::from_secs(1), Duration::from_secs(2)).abs() < 1e-12);
        close(rule_of_three(30_000), 1e-4);
        // 10 of 100: 5.52 % to 17.44 %.
        let (low, high) = wilson(10, 100);
        close(low, 0.05523);
        close(high, 0.17437);
    }

    proptest! {
        #[test]
        fn the_race_is_worst_at_one_over_t(rate in 0.001f64..100.0, timeout in 1u64..700) {
            let (window, timeout) = (Duration::from_millis(10), Duration::from_secs(timeout));
            let worst = window.as_secs_f64() / (std::f64::consts::E * timeout.as_secs_f64());
            prop_assert!(idle_race_per_request(rate, window, timeout) <= worst * 1.000_001);
        }

        #[test]
        fn wilson_holds_the_share(events in 0u64..1000, more in 0u64..1000) {
            let n = events + more;
            let (low, high) = wilson(events, n);
            let share = if n == 0 { 0.5 } else { events as f64 / n as f64 };
            prop_assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
            prop_assert!(low <= share + 1e-9 && share <= high + 1e-9);
        }
    }
}
