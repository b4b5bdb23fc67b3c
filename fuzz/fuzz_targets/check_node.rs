//! Any text: a Node.js source, looked through for a server's settings.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| lameduck_check::parsers::node(text));
