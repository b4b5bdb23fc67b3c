//! Any text: a duration of at most a year, which reads back as it is shown, or a complaint that quotes the text.
#![no_main]

use std::time::Duration;

use lameduck_core::duration::{LONGEST, parse, show};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match parse(text) {
    Ok(duration) => {
        assert!(duration <= LONGEST);
        let again = parse(&show(duration)).expect("what is shown can be read");
        assert!(again.abs_diff(duration) <= Duration::from_millis(1), "{duration:?} was shown as {}", show(duration));
    }
    Err(error) => assert!(error.to_string().contains("is not a duration")),
});
