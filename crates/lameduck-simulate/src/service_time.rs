//! How long answers take, with the two integrals that losses need: the tail and what lies beyond it.

use serde::Serialize;

use crate::rng::Rng;

/// How long the server works on a request, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum ServiceTime {
    /// Always the same.
    Fixed {
        /// Seconds.
        mean: f64,
    },
    /// Exponential.
    Exponential {
        /// Seconds.
        mean: f64,
    },
    /// Log-normal: most are short, a few are very long.
    LogNormal {
        /// Seconds.
        median: f64,
        /// The standard deviation of the logarithm.
        sigma: f64,
    },
}

impl ServiceTime {
    /// The log-normal one with this median and 99th percentile.
    pub fn by_percentiles(median: f64, p99: f64) -> ServiceTime {
        // The 99 % point of the normal distribution.
        const Z99: f64 = 2.326_347_874;
        ServiceTime::LogNormal { median, sigma: (p99 / median).ln().max(0.0) / Z99 }
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        match *self {
            ServiceTime::Fixed { mean } | ServiceTime::Exponential { mean } => mean,
            ServiceTime::LogNormal { median, sigma } => median * (sigma * sigma / 2.0).exp(),
        }
    }

    /// The integral from `from` to infinity of P(longer than u) du: what is left, on average, beyond `from`. Requests in
    /// flight at a moment that began at a constant rate, and at least `from` before, are `rate` times this.
    pub fn beyond(&self, from: f64) -> f64 {
        let from = from.max(0.0);
        match *self {
            ServiceTime::Fixed { mean } => (mean - from).max(0.0),
            ServiceTime::Exponential { mean } if mean > 0.0 => mean * (-from / mean).exp(),
            ServiceTime::LogNormal { median, sigma } if from > 0.0 && sigma > 0.0 && median > 0.0 => {
                let z = (median / from).ln() / sigma;
                (self.mean() * normal_below(z + sigma) - from * normal_below(z)).max(0.0)
            }
            ServiceTime::LogNormal { .. } => (self.mean() - from).max(0.0),
            ServiceTime::Exponential { .. } => 0.0,
        }
    }

    /// One drawn.
    pub fn draw(&self, rng: &mut Rng) -> f64 {
        match *self {
            ServiceTime::Fixed { mean } => mean,
            ServiceTime::Exponential { mean } => mean * rng.exponential(),
            ServiceTime::LogNormal { median, sigma } => median * (sigma * rng.normal()).exp(),
        }
    }
}

/// The normal distribution function, by the complementary error function's Chebyshev fit (Press et al., Numerical Recipes,
/// erfcc): a relative error below 1.2e-7.
fn normal_below(z: f64) -> f64 {
    let x = -z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x.abs());
    let series = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let sum = series.iter().rev().fold(0.0, |sum, term| sum * t + term);
    let tail = t * (-x * x + sum).exp();
    0.5 * if x >= 0.0 { tail } else { 2.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_distribution() {
        for (z, expect) in [(0.0, 0.5), (1.0, 0.841_344_746), (-1.959_964, 0.025), (-4.0, 3.167_124e-5)] {
            let got = normal_below(z);
            assert!((got - expect).abs() < 1e-6 * expect, "{z}: {got}");
        }
    }

    /// The closed forms against the integral of what is drawn: E[(D - u)+], within five standard errors.
    #[test]
    fn what_lies_beyond_is_what_is_drawn() {
        let kinds = [
            ServiceTime::Fixed { mean: 2.0 },
            ServiceTime::Exponential { mean: 0.5 },
            ServiceTime::by_percentiles(0.2, 3.0),
        ];
        for kind in kinds {
            for from in [0.0, 0.1, 1.0, 5.0] {
                let mut rng = Rng::stream(&[11]);
                let n = 200_000;
                let all: Vec<f64> = (0..n).map(|_| (kind.draw(&mut rng) - from).max(0.0)).collect();
                let mean = all.iter().sum::<f64>() / f64::from(n);
                let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
                let error = 5.0 * (variance / f64::from(n)).sqrt() + 1e-9;
                assert!((mean - kind.beyond(from)).abs() < error, "{kind:?} {from}: {mean} {}", kind.beyond(from));
            }
            assert!((kind.beyond(0.0) - kind.mean()).abs() < 1e-9);
        }
    }
}
