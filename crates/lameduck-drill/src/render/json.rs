//! The machine-readable contract.

use serde::Serialize;

use crate::result::{CompareResult, DrillResult};

/// `lameduck.drill/1`.
pub fn json(result: &DrillResult) -> String {
    written(result)
}

/// `lameduck.compare/1`.
pub fn compare_json(result: &CompareResult) -> String {
    written(result)
}

fn written(result: &impl Serialize) -> String {
    // Our results have no map with keys that are not strings and no number that JSON lacks, so this cannot fail.
    let mut text = serde_json::to_string_pretty(result).unwrap_or_default();
    text.push('\n');
    text
}
