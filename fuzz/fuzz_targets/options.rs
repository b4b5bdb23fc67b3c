//! Any command line and any environment: options or a complaint, for `lameduck run` and for both stand-ins.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use lameduck::cli::flag::Failure;
use lameduck_run::persona::{self, StandIn};
use libfuzzer_sys::fuzz_target;

// Arguments end with a newline; the variable `NAME` is the argument that begins with `NAME=`.
fuzz_target!(|input: &[u8]| {
    let words: Vec<OsString> =
        input.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec())).collect();
    let env = |name: &str| {
        words.iter().find_map(|word| {
            let value = word.as_encoded_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(OsString::from_vec(value.to_vec()))
        })
    };
    match lameduck::cli::run::options(&words, &env) {
        Ok(options) => {
            assert!(!options.command.is_empty());
            assert!(options.policy().is_ok(), "what was taken adds up");
        }
        Err(Failure::Help(text)) => assert!(text.contains("--grace")),
        Err(Failure::Error { message, status }) => {
            assert!(!message.is_empty());
            assert_eq!(status, lameduck_run::EXIT_OWN_FAILURE);
        }
    }
    for who in [StandIn::Tini, StandIn::DumbInit] {
        match persona::options(who, &words, env) {
            Ok(options) => assert!(!options.command.is_empty()),
            Err(stop) => assert!(stop.status <= 1 && stop.text.ends_with('\n')),
        }
    }
});
