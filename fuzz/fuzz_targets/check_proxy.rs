//! Any text: nginx.conf and haproxy.cfg.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| lameduck_check::parsers::proxies(text));
