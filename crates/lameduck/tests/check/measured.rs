//! Prediction meets measurement: what `check` says of a workload, and what `drill` then sees of it.
