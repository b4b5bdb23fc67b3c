//! Any first bytes of a connection: a header that neither what follows nor what is missing can change, or a complaint that
//! more bytes do not take back.
#![no_main]

use lameduck_front::proxy_protocol::{LONGEST, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = parse(input);
    match whole {
        Ok(Some(header)) => {
            assert!(header.length <= input.len().min(LONGEST));
            assert_eq!(header.source.is_some(), header.destination.is_some());
            assert_eq!(header.source.map(|a| a.is_ipv4()), header.destination.map(|a| a.is_ipv4()));
            for end in 0..header.length {
                assert_eq!(parse(&input[..end]), Ok(None));
            }
            assert_eq!(parse(&input[..header.length]), whole);
        }
        Ok(None) => {
            assert!(input.len() < LONGEST);
            (0..input.len()).for_each(|end| assert_eq!(parse(&input[..end]), Ok(None)));
        }
        Err(wrong) => {
            // It is the same from the byte on that was wrong.
            let first = (0..=input.len()).find(|&end| parse(&input[..end]).is_err()).expect("the whole is wrong");
            (first..=input.len()).for_each(|end| assert_eq!(parse(&input[..end]), Err(wrong)));
            (0..first).for_each(|end| assert_eq!(parse(&input[..end]), Ok(None)));
        }
    }
});
