//! Any first bytes of an app's answer: what is accepted is written so that it can be read in one way only, reads back as
//! itself, and is the same over HTTP/2.
#![no_main]

mod words;

use lameduck_front::message::MOST_FIELDS;
use lameduck_front::message::response::{Asked, Framing, LONGEST, Response, Wrong, read, read_for_http2};
use libfuzzer_sys::fuzz_target;

fn with(asked: Asked, input: &[u8]) -> (Result<Option<Response>, Wrong>, Vec<u8>) {
    let mut out = Vec::new();
    let read = read(input, asked, &mut out);
    if !matches!(read, Ok(Some(_))) {
        assert!(out.is_empty(), "nothing is written of what was not understood");
    }
    (read, out)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (flags, bytes) = input;
    let input = words::spell(flags & 1 != 0, bytes);
    let flag = |bit: u8| flags & bit != 0;
    let asked = Asked { head: flag(2), http10: flag(4), keep_alive: flag(8), upgrade: flag(16) };
    let (read, out) = with(asked, &input);
    let over_http2 = read_for_http2(&input, asked);
    let response = match read {
        Ok(Some(response)) => response,
        Ok(None) => {
            assert!(input.len() <= LONGEST && over_http2 == Ok(None));
            return;
        }
        Err(wrong) => {
            assert_eq!(over_http2, Err(wrong));
            return;
        }
    };
    assert!(response.length <= input.len().min(LONGEST));
    assert_eq!(with(asked, &input[..response.length]), (Ok(Some(response)), out.clone()));
    for end in 0..response.length {
        assert_eq!(with(asked, &input[..end]).0, Ok(None), "{end}");
    }

    let fields = words::fields(&out);
    let count = |name: &str| words::count(&fields, name);
    assert!((100..=999).contains(&response.status));
    assert!(out.starts_with(format!("HTTP/1.1 {:03} ", response.status).as_bytes()));
    let bodiless = asked.head || matches!(response.status, 100..=199 | 204 | 304);
    assert_eq!(bodiless, response.framing == Framing::None);
    assert!(count("content-length") + count("transfer-encoding") <= 1);
    assert_eq!(count("transfer-encoding"), usize::from(response.chunked_to(asked)));
    assert_eq!(
        count("content-length") > 0,
        match response.framing {
            Framing::Length(_) => true,
            Framing::None => count("content-length") > 0 && response.status >= 200 && response.status != 204,
            Framing::Chunked | Framing::UntilClose => false,
        }
    );
    for gone in ["keep-alive", "proxy-connection", "http2-settings", "te", "content_length", "transfer.encoding"] {
        assert_eq!(count(gone), 0, "{gone}");
    }
    let switches = response.status == 101;
    assert_eq!(count("upgrade"), usize::from(switches));
    let told = usize::from(switches || response.closes || (asked.http10 && !response.is_interim()));
    assert_eq!(count("connection"), told);
    assert!(!response.closes || fields.contains(&("connection".into(), b"close".to_vec())));
    // The client can tell where the answer ends, or is told that the connection does.
    let ends = response.framing != Framing::UntilClose && !(asked.http10 && response.framing == Framing::Chunked);
    assert!(ends || response.chunked_to(asked) || response.closes);
    assert!(response.framing != Framing::UntilClose || !response.app_keeps);

    if fields.len() > MOST_FIELDS {
        // Ours came on top of as many as there may be.
        return;
    }
    let (again, same) = with(asked, &out);
    let again = again.expect("what was written is accepted").expect("and whole");
    assert_eq!(same.escape_ascii().to_string(), out.escape_ascii().to_string());
    assert_eq!((again.length, again.status, again.closes), (out.len(), response.status, response.closes));
    assert_eq!(again.events, response.events);
    assert_eq!(
        again.framing,
        match response.framing {
            Framing::UntilClose if response.chunked_to(asked) => Framing::Chunked,
            Framing::Chunked if asked.http10 => Framing::UntilClose,
            framing => framing,
        }
    );

    let (over_http2, map) = over_http2.expect("accepted all the same").expect("and whole");
    assert_eq!(over_http2, response);
    let mut by_http2: Vec<(String, Vec<u8>)> =
        map.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    let framing = ["connection", "transfer-encoding", "upgrade"];
    let mut by_http1: Vec<_> = fields.iter().filter(|(name, _)| !framing.contains(&name.as_str())).cloned().collect();
    by_http1.sort();
    by_http2.sort();
    assert_eq!(by_http2, by_http1);
});
