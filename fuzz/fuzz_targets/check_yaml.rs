//! Any text: manifests and Compose files, or what can not be read. Bounded in depth, nodes and aliases.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = lameduck_check::parsers::yaml(text);
    let _ = lameduck_check::parsers::documents(text);
});
