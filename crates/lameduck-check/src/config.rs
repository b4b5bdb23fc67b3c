//! `lameduck.toml`, and the findings that are known already.

use serde::{Deserialize, Serialize};

/// `lameduck.toml`. Unknown keys are refused, so that a misspelt one does not pass for a setting.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[check]`
    #[serde(default)]
    pub check: CheckConfig,
}

/// `[check]` of `lameduck.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CheckConfig {
    /// As `--fail-on`.
    pub fail_on: Option<String>,
    /// As `--rate`.
    pub rate: Option<f64>,
    /// As `--lag`, in seconds.
    pub lag: Option<f64>,
    /// As `--baseline`.
    pub baseline: Option<String>,
    /// Findings that do not matter.
    #[serde(default)]
    pub ignore: Vec<IgnoreConfig>,
}

/// `[[check.ignore]]`: one rule, why, and optionally where.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IgnoreConfig {
    /// The rule's name.
    pub rule: String,
    /// Why; required.
    pub reason: String,
    /// The beginning of a path; without it the rule is ignored everywhere.
    pub path: Option<String>,
}

impl Config {
    /// Reads `lameduck.toml`.
    pub fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        for ignore in &config.check.ignore {
            if ignore.reason.trim().is_empty() {
                return Err(format!("[[check.ignore]] of {:?} has no reason: say why", ignore.rule));
            }
            if crate::rules::by_name(&ignore.rule).is_none() {
                return Err(format!("[[check.ignore]]: {:?} is no rule; see lameduck rule --list", ignore.rule));
            }
        }
        Ok(config)
    }
}

/// A finding that was there before. Lines move, so they do not count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Known {
    /// The rule's name.
    pub rule: String,
    /// The file.
    pub file: String,
    /// The message.
    pub message: String,
}

/// The findings known already: `lameduck.baseline/1`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Baseline {
    /// `lameduck.baseline/1`
    pub schema: String,
    /// The findings, sorted.
    pub findings: Vec<Known>,
}

/// The schema of [`Baseline`].
pub const BASELINE: &str = "lameduck.baseline/1";

impl Baseline {
    /// Reads a baseline.
    pub fn parse(text: &str) -> Result<Baseline, String> {
        let baseline: Baseline = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if baseline.schema == BASELINE {
            Ok(baseline)
        } else {
            Err(format!("read schema {:?}, expected {BASELINE:?}", baseline.schema))
        }
    }
}
