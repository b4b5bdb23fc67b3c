//! A format given by a user, and a line of it.
#![no_main]

use lameduck_explain::read::{Context, Custom};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    if let Ok(custom) = Custom::parse(input.0) {
        let _ = custom.read(input.1, Context::default());
    }
});
