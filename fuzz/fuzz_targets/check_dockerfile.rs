//! Any text: a Dockerfile, or a list of what it is not. It ends, and does not panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| lameduck_check::parsers::dockerfile(text));
