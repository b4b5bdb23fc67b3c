//! Random numbers by place: each purpose has a stream of its own, found from the seed and from what the numbers are for. A fix
//! that takes away one service's terminations leaves every other draw as it was, so that what it gives is seen and not noise.

/// `SplitMix64` (Steele, Lea and Flood 2014): one addition and three mixing steps a number. Not for secrets.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The stream for a purpose: the same path gives the same numbers.
    pub fn stream(path: &[u64]) -> Rng {
        let state = path.iter().fold(GAMMA, |state, step| mix(state ^ step.wrapping_mul(GAMMA)).wrapping_add(GAMMA));
        Rng { state }
    }

    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n.saturating_sub(1))
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Normal with mean 0 and variance 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Poisson. By multiplication for a small mean, else by transformed rejection (Hörmann 1993, PTRS).
    #[expect(clippy::many_single_char_names, reason = "the names of the published algorithm")]
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean.is_nan() || mean <= 0.0 {
            return 0;
        }
        if mean < 10.0 {
            let limit = (-mean).exp();
            let (mut n, mut product) = (0, self.unit());
            while product > limit {
                n += 1;
                product *= self.unit();
            }
            return n;
        }
        let b = 0.931 + 2.53 * mean.sqrt();
        let a = -0.059 + 0.02483 * b;
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let most_v = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let u = self.unit() - 0.5;
            let v = self.unit();
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + mean + 0.43).floor();
            if us >= 0.07 && v <= most_v {
                return k as u64;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            let left = (v * inverse_alpha / (a / (us * us) + b)).ln();
            if left <= k * mean.ln() - mean - ln_factorial(k) {
                return k as u64;
            }
        }
    }
}

/// ln k!, by Stirling's series for what no table holds.
pub(crate) fn ln_factorial(k: f64) -> f64 {
    if k < 16.0 {
        return (2..=k as u64).map(|n| (n as f64).ln()).sum();
    }
    let x = k + 1.0;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_their_path_alone() {
        let first = |path: &[u64]| Rng::stream(path).unit().to_bits();
        assert_eq!(first(&[1, 2, 3]), first(&[1, 2, 3]));
        assert_ne!(first(&[1, 2, 3]), first(&[1, 3, 2]));
        assert_ne!(first(&[1]), first(&[1, 0]));
    }

    /// Mean and variance within five standard errors of their own, for both ways of drawing.
    #[test]
    fn poisson_has_its_mean_and_variance() {
        for mean in [0.01, 0.7, 9.9, 10.1, 40.0, 1e4, 4e7] {
            let mut rng = Rng::stream(&[mean as u64, 7]);
            let n = 40_000.0;
            let all: Vec<f64> = (0..n as usize).map(|_| rng.poisson(mean) as f64).collect();
            let got = all.iter().sum::<f64>() / n;
            let variance = all.iter().map(|x| (x - got).powi(2)).sum::<f64>() / n;
            assert!((got - mean).abs() < 5.0 * (mean / n).sqrt(), "{mean}: {got}");
            // The variance of a Poisson sample's variance: (mean + 2 mean²) / n.
            let error = ((mean + 2.0 * mean * mean) / n).sqrt();
            assert!((variance - mean).abs() < 5.0 * error, "{mean}: {variance}");
        }
        assert_eq!(Rng::stream(&[]).poisson(0.0), 0);
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut rng = Rng::stream(&[5]);
        let all: Vec<f64> = (0..100_000).map(|_| rng.normal()).collect();
        let mean = all.iter().sum::<f64>() / 1e5;
        let variance = all.iter().map(|x| x * x).sum::<f64>() / 1e5;
        assert!(mean.abs() < 5.0 / 1e5f64.sqrt() && (variance - 1.0).abs() < 0.025, "{mean} {variance}");
    }
}
