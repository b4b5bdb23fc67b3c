//! Any text: a script in each shell, or where it can not be read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| lameduck_check::parsers::shell(text));
