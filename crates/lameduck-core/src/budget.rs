//! The division of the grace period among the phases of a drain.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration::show;

/// The least time left for the app's own stop; a budget that leaves less is refused.
pub const STOP_RESERVE: Duration = Duration::from_secs(1);

/// What was asked for. `None` leaves the choice to [`Budget::divide`], which then makes it fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Kubernetes' `terminationGracePeriodSeconds`: from the deletion (or the signal) to the platform's SIGKILL.
    pub grace: Duration,
    /// How long before the end of `grace` lameduck kills what is left, so that the exit code and the last lines survive.
    pub margin: Option<Duration>,
    /// The least time in lame duck.
    pub min: Option<Duration>,
    /// How long no traffic must arrive before it counts as quiet.
    pub quiet: Option<Duration>,
    /// The most time in lame duck.
    pub max: Option<Duration>,
    /// The sum of the timeouts of all pre-stop commands, which run during lame duck.
    pub pre_stop: Duration,
}

impl Default for Shares {
    fn default() -> Self {
        Shares {
            grace: Duration::from_secs(30),
            margin: None,
            min: None,
            quiet: None,
            max: None,
            pre_stop: Duration::ZERO,
        }
    }
}

/// The grace period, divided. Time that a phase does not use goes to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// The whole.
    #[serde(rename = "grace_s", with = "crate::duration::seconds")]
    pub grace: Duration,
    /// Kept back before the platform's SIGKILL.
    #[serde(rename = "margin_s", with = "crate::duration::seconds")]
    pub margin: Duration,
    /// The least time in lame duck.
    #[serde(rename = "min_s", with = "crate::duration::seconds")]
    pub min: Duration,
    /// How long without arrivals counts as quiet.
    #[serde(rename = "quiet_s", with = "crate::duration::seconds")]
    pub quiet: Duration,
    /// The most time in lame duck.
    #[serde(rename = "lame_duck_s", with = "crate::duration::seconds")]
    pub lame_duck: Duration,
    /// Further time for requests in flight.
    #[serde(rename = "draining_s", with = "crate::duration::seconds")]
    pub draining: Duration,
    /// Time for the app's own stop.
    #[serde(rename = "stopping_s", with = "crate::duration::seconds")]
    pub stopping: Duration,
}

/// A budget that does not add up, with the sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impossible {
    /// The terms of the sum, by option.
    terms: Vec<(&'static str, Duration)>,
    /// What they had to fit into.
    limit: (&'static str, Duration),
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "impossible budget: ")?;
        for (n, (name, value)) in self.terms.iter().enumerate() {
            write!(f, "{}{name} {}", if n == 0 { "" } else { " + " }, show(*value))?;
        }
        if self.terms.len() > 1 {
            write!(f, " = {}", show(self.terms.iter().map(|(_, value)| *value).sum()))?;
        }
        let (name, value) = self.limit;
        write!(f, ", but {name} is {}: raise {name} or lower {}", show(value), self.terms[0].0)
    }
}

impl std::error::Error for Impossible {}

impl Budget {
    /// Divides the grace period. What was asked for explicitly is kept or refused; the rest is made to fit.
    pub fn divide(shares: &Shares) -> Result<Budget, Impossible> {
        let Shares { grace, pre_stop, .. } = *shares;
        let margin = shares.margin.unwrap_or_else(|| Duration::from_secs(1).min(grace / 10));
        let reserve = if shares.min.is_some() || shares.quiet.is_some() || shares.max.is_some() || !pre_stop.is_zero() {
            STOP_RESERVE
        } else {
            STOP_RESERVE.min(grace / 5)
        };
        let fits = |name, value: Duration| {
            if value + reserve + margin <= grace {
                Ok(())
            } else {
                let terms = vec![(name, value), ("the app's own stop", reserve), ("--margin", margin)];
                Err(Impossible { terms, limit: ("--grace", grace) })
            }
        };
        if grace.is_zero() || margin >= grace {
            return Err(Impossible { terms: vec![("--margin", margin)], limit: ("--grace", grace) });
        }
        let asked = [("--min", shares.min), ("--quiet", shares.quiet), ("--max", shares.max)];
        for (name, value) in asked.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            fits(name, value)?;
        }
        fits("--pre-stop timeouts", pre_stop)?;

        let usable = grace.saturating_sub(margin);
        let ceiling = usable.saturating_sub(reserve);
        let least = [shares.min.unwrap_or_default(), shares.quiet.unwrap_or_default(), pre_stop]
            .into_iter()
            .max()
            .unwrap_or_default();
        let lame_duck = shares.max.unwrap_or_else(|| (usable * 3 / 5).max(least).min(ceiling));
        for (name, value) in [("--min", shares.min), ("--quiet", shares.quiet), ("--pre-stop timeouts", Some(pre_stop))]
        {
            if let Some(value) = value.filter(|value| *value > lame_duck) {
                return Err(Impossible { terms: vec![(name, value)], limit: ("--max", lame_duck) });
            }
        }
        let min = shares.min.unwrap_or_else(|| Duration::from_secs(5).min(lame_duck));
        let quiet = shares.quiet.unwrap_or_else(|| Duration::from_secs(2).min(lame_duck / 2));
        let left = usable.saturating_sub(lame_duck);
        let stopping = (usable / 5).max(reserve).min(left);
        Ok(Budget { grace, margin, min, quiet, lame_duck, draining: left.saturating_sub(stopping), stopping })
    }

    /// When, after the start of the grace period, what is left is killed.
    pub fn kill_at(&self) -> Duration {
        self.grace.saturating_sub(self.margin)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "lame duck {} + draining {} + stopping {} + margin {} = grace {}",
            show(self.lame_duck),
            show(self.draining),
            show(self.stopping),
            show(self.margin),
            show(self.grace)
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_default_fits_kubernetes_default_grace() {
        let budget = Budget::divide(&Shares::default()).unwrap();
        assert_eq!(budget.to_string(), "lame duck 17.4s + draining 5.8s + stopping 5.8s + margin 1s = grace 30s");
        assert_eq!((budget.min, budget.quiet), (seconds(5), seconds(2)));
    }

    #[test]
    fn impossible_budgets_are_refused_with_the_sum() {
        let check = |shares: Shares, expect: &str| {
            assert_eq!(Budget::divide(&shares).unwrap_err().to_string(), expect);
        };
        check(
            Shares { min: Some(seconds(40)), ..Shares::default() },
            "impossible budget: --min 40s + the app's own stop 1s + --margin 1s = 42s, but --grace is 30s: raise --grace or lower --min",
        );
        check(
            Shares { max: Some(seconds(30)), ..Shares::default() },
            "impossible budget: --max 30s + the app's own stop 1s + --margin 1s = 32s, but --grace is 30s: raise --grace or lower --max",
        );
        check(
            Shares { min: Some(seconds(9)), max: Some(seconds(8)), ..Shares::default() },
            "impossible budget: --min 9s, but --max is 8s: raise --max or lower --min",
        );
        check(
            Shares { pre_stop: seconds(29), ..Shares::default() },
            "impossible budget: --pre-stop timeouts 29s + the app's own stop 1s + --margin 1s = 31s, but --grace is 30s: raise --grace or lower --pre-stop timeouts",
        );
        check(
            Shares { grace: seconds(3), margin: Some(seconds(3)), ..Shares::default() },
            "impossible budget: --margin 3s, but --grace is 3s: raise --grace or lower --margin",
        );
    }

    #[test]
    fn defaults_shrink_into_a_short_grace() {
        let budget = Budget::divide(&Shares { grace: seconds(5), ..Shares::default() }).unwrap();
        assert!(budget.min <= budget.lame_duck && budget.quiet <= budget.lame_duck);
    }

    fn maybe(limit: u64) -> impl Strategy<Value = Option<Duration>> {
        prop::option::of((0..limit).prop_map(Duration::from_millis))
    }

    proptest! {
        #[test]
        fn a_budget_that_is_granted_adds_up(
            grace in 1u64..400_000, margin in maybe(3000), min in maybe(60_000), quiet in maybe(10_000),
            max in maybe(300_000), pre_stop in 0u64..20_000,
        ) {
            let grace = Duration::from_millis(grace);
            let pre_stop = Duration::from_millis(pre_stop);
            let shares = Shares { grace, margin, min, quiet, max, pre_stop };
            match Budget::divide(&shares) {
                Ok(budget) => {
                    prop_assert_eq!(budget.lame_duck + budget.draining + budget.stopping + budget.margin, grace);
                    prop_assert!(budget.min <= budget.lame_duck && budget.quiet <= budget.lame_duck);
                    prop_assert!(pre_stop <= budget.lame_duck);
                    prop_assert!(!budget.stopping.is_zero());
                    for (asked, granted) in [(min, budget.min), (quiet, budget.quiet), (max, budget.lame_duck), (margin, budget.margin)] {
                        prop_assert!(asked.is_none_or(|asked| asked == granted));
                    }
                }
                Err(impossible) => prop_assert!(impossible.to_string().contains("but --")),
            }
        }

        #[test]
        fn grace_alone_is_never_refused(grace in 1u64..10_000_000) {
            let shares = Shares { grace: Duration::from_millis(grace), ..Shares::default() };
            prop_assert!(Budget::divide(&shares).is_ok());
        }
    }
}
