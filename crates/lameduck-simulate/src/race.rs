//! The idle race of a pool whose connections are used last in, first out: a renewal law for each depth of the pool, instead of
//! requests one by one.
//!
//! A pool with requests coming at random (rate λ) and answers taking 1/μ on average has as many connections busy as an M/M/∞
//! queue has customers. The connection at depth n + 1 comes back to the pool when the queue falls from n + 1 to n, and is
//! taken again when it next rises from n to n + 1. Its idle time is that first passage, and as the queue starts at n and leaves
//! from n at rate λ, its density at t is λ times the chance to be at n after t without having left: the last element of
//! exp(-At) with A the (n + 1)-by-(n + 1) generator of the states 0 to n. In equilibrium a share P(n) of all requests, Poisson
//! with mean λ/μ, takes depth n + 1.
//!
//! Where many are in flight that is many large matrices, and not needed: a connection that idles for long against the time of an
//! answer is one whose depth is rarely reached. Then the queue either comes back at once, or forgets where it was and takes an
//! exponential time from its bulk, whose mean is the sum of the first passages from there up. For answers that take no time this is λ·exp(-λt), and the race is the closed form
//! [`lameduck_core::law::idle_race_per_request`].

use crate::rng::ln_factorial;

/// The density at `after` seconds of the time for which the connection that a request takes had been idle, over all requests
/// of a pool. `rate` is requests a second to the pool, `mean` the mean time of an answer.
pub fn idle_density(rate: f64, mean: f64, after: f64) -> f64 {
    if rate <= 0.0 {
        return 0.0;
    }
    let busy = rate * mean.max(0.0);
    // Nothing in the pool is idle for so long: the chance that nobody asks is below e^-60 even with nothing in flight.
    if busy < 1e-9 {
        return rate * (-rate * after).exp();
    }
    if busy > MOST_BUSY || (busy > FEW_BUSY && after > LONG * mean) {
        return rare(rate, busy, after);
    }
    by_depth(rate, mean, busy, after)
}

/// With so many in flight on average all depths are still taken one by one.
const FEW_BUSY: f64 = 12.0;
/// With more than that they never are.
const MOST_BUSY: f64 = 60.0;
/// So many times an answer's own is long.
const LONG: f64 = 10.0;

/// The density from the first passages' means alone.
fn rare(rate: f64, busy: f64, after: f64) -> f64 {
    let bulk = busy.floor();
    let most = (busy + 10.0 * busy.sqrt() + 12.0).ceil() as usize;
    let (mut sum, mut passage, mut climb) = (0.0, 1.0 / rate, 0.0);
    for n in 0..=most {
        let n = n as f64;
        if n > 0.0 {
            // E(n) = 1/λ + (nμ/λ) E(n - 1).
            passage = (1.0 + n * rate / busy * passage) / rate;
        }
        if n >= bulk {
            climb += passage;
            let share = (n * busy.ln() - busy - ln_factorial(n)).exp();
            sum += share * passage / (climb * climb) * (-after / climb).exp();
        }
    }
    sum
}

/// The density by each depth's own generator.
fn by_depth(rate: f64, mean: f64, busy: f64, after: f64) -> f64 {
    let (mut sum, mut below) = (0.0, 0.0);
    let most = (busy + 10.0 * busy.sqrt() + 12.0).ceil() as usize;
    let least = (busy - 10.0 * busy.sqrt()).max(0.0) as usize;
    for n in 0..=most {
        let share = (n as f64 * busy.ln() - busy - ln_factorial(n as f64)).exp();
        below += share;
        if n < least || share < 1e-18 {
            continue;
        }
        // The mean first passage is P(at most n) / (λ P(n)); far shorter than `after`, and nothing is left of the density.
        if after * rate * share / below > 60.0 {
            continue;
        }
        sum += share * rate * stays(n, rate, 1.0 / mean, after);
    }
    sum
}

/// The chance to be at `n` after `t`, from `n`, without having risen above it.
fn stays(n: usize, rate: f64, done: f64, t: f64) -> f64 {
    if n == 0 {
        return (-rate * t).exp();
    }
    // The generator made symmetric: diagonal λ + kμ, beside it -sqrt(λ (k+1) μ).
    let mut diagonal: Vec<f64> = (0..=n).map(|k| rate + k as f64 * done).collect();
    let mut beside: Vec<f64> = (0..n).map(|k| (rate * (k + 1) as f64 * done).sqrt()).chain([0.0]).collect();
    let mut last = vec![0.0; n + 1];
    last[n] = 1.0;
    eigen(&mut diagonal, &mut beside, &mut last);
    diagonal.iter().zip(&last).map(|(value, part)| part * part * (-value.max(0.0) * t).exp()).sum()
}

/// Eigenvalues of a symmetric tridiagonal matrix into `diagonal`, and the eigenvectors' elements of the row that `row` picks,
/// by implicit QL (Golub and Welsch 1969).
#[expect(clippy::many_single_char_names, reason = "the names of the published algorithm")]
fn eigen(diagonal: &mut [f64], beside: &mut [f64], row: &mut [f64]) {
    const ROUNDS: usize = 60;
    let n = diagonal.len();
    for l in 0..n {
        for _ in 0..ROUNDS {
            let small = |m: &usize| {
                let around = diagonal[*m].abs() + diagonal[*m + 1].abs();
                beside[*m].abs() <= f64::EPSILON * around
            };
            let m = (l..n - 1).find(small).unwrap_or(n - 1);
            if m == l {
                break;
            }
            let mut g = (diagonal[l + 1] - diagonal[l]) / (2.0 * beside[l]);
            let mut r = g.hypot(1.0);
            g = diagonal[m] - diagonal[l] + beside[l] / (g + r.copysign(g));
            let (mut sine, mut cosine, mut p) = (1.0, 1.0, 0.0);
            let mut early = false;
            for i in (l..m).rev() {
                let f = sine * beside[i];
                let b = cosine * beside[i];
                r = f.hypot(g);
                beside[i + 1] = r;
                if r == 0.0 {
                    diagonal[i + 1] -= p;
                    beside[m] = 0.0;
                    early = true;
                    break;
                }
                sine = f / r;
                cosine = g / r;
                g = diagonal[i + 1] - p;
                r = (diagonal[i] - g) * sine + 2.0 * cosine * b;
                p = sine * r;
                diagonal[i + 1] = g + p;
                g = cosine * r - b;
                let moved = row[i + 1];
                row[i + 1] = sine * row[i] + cosine * moved;
                row[i] = cosine * row[i] - sine * moved;
            }
            if early {
                continue;
            }
            diagonal[l] -= p;
            beside[l] = g;
            beside[m] = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lameduck_core::law::idle_race_per_request;

    use super::*;

    #[test]
    fn is_the_closed_form_where_answers_take_no_time() {
        for rate in [0.01, 0.2, 1.0] {
            let window = 0.01;
            let closed = idle_race_per_request(rate, Duration::from_secs_f64(window), Duration::from_secs_f64(5.0));
            let got = idle_density(rate, 0.0, 5.0) * window;
            assert!((got - closed).abs() < 1e-9 * closed, "{rate}: {got} {closed}");
            // And nearly so where they take little.
            let short = idle_density(rate, 1e-4, 5.0) * window;
            assert!((short - closed).abs() < 1e-3 * closed, "{rate}: {short} {closed}");
        }
    }

    #[test]
    fn rarely_reached_depths_need_no_matrix() {
        for (busy, after, within) in [(8.0, 10.0, 0.07), (8.0, 50.0, 0.02), (14.0, 20.0, 0.04), (14.0, 500.0, 0.01)] {
            let (exact, short) = (by_depth(busy, 1.0, busy, after), rare(busy, busy, after));
            assert!((short / exact - 1.0).abs() < within, "{busy} {after}: {short} {exact}");
        }
    }

    #[test]
    fn many_in_flight_are_no_trouble() {
        let density = idle_density(1e6, 1.0, 60.0);
        assert!(density.is_finite() && density > 0.0 && density < 1e-3, "{density}");
    }

    /// A density: it integrates to the share of requests that take a connection which had been idle, which in the long run is
    /// all of them.
    #[test]
    fn integrates_to_one() {
        for (rate, mean) in [(0.3, 0.5), (2.0, 1.0), (8.0, 1.0)] {
            let (mut sum, mut t, mut step) = (0.0, 0.0, 1e-4);
            while t < 1e9 {
                sum += step / 6.0
                    * (idle_density(rate, mean, t)
                        + 4.0 * idle_density(rate, mean, t + step / 2.0)
                        + idle_density(rate, mean, t + step));
                t += step;
                step *= 1.05;
            }
            assert!((sum - 1.0).abs() < 0.01, "{rate} {mean}: {sum}");
        }
    }
}
