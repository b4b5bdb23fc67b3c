//! Any first bytes of a request: what is accepted is written so that it can be read in one way only, and reads back as itself.
#![no_main]

mod words;

use std::net::Ipv4Addr;

use lameduck_front::Config;
use lameduck_front::config::{Forwarded, LongPoll};
use lameduck_front::message::MOST_FIELDS;
use lameduck_front::message::request::{Context, Framing, Refusal, Request, Told, read};
use libfuzzer_sys::fuzz_target;

fn with(config: &Config, input: &[u8], told: Option<&mut Told>) -> (Result<Option<Request>, Refusal>, Vec<u8>) {
    let context = Context { config, client: Ipv4Addr::new(10, 0, 0, 9).into(), new_id: 7 };
    let mut out = Vec::new();
    let read = read(input, &context, &mut out, told);
    if !matches!(read, Ok(Some(_))) {
        assert!(out.is_empty(), "nothing is written of what was not understood");
    }
    (read, out)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (flags, bytes) = input;
    let input = words::spell(flags & 1 != 0, bytes);
    let config = Config {
        forwarded: [Forwarded::Off, Forwarded::XForwarded, Forwarded::Forwarded][usize::from(flags >> 1) % 3],
        request_id: flags & 0x40 != 0,
        // Small, so that it is met.
        head_bytes: if flags & 0x80 == 0 { 512 } else { 64 << 10 },
        health_path: Some("/a".into()),
        long_polls: vec![LongPoll { prefix: "/b".into(), status: 204 }],
        ..Config::default()
    };
    let mut told = Told::default();
    let (read, out) = with(&config, &input, Some(&mut told));
    let request = match read {
        Ok(Some(request)) => request,
        Ok(None) => return assert!(input.len() <= config.head_bytes),
        Err(refusal) => {
            assert!((400..=505).contains(&refusal.status()) && !refusal.to_string().is_empty());
            return;
        }
    };
    assert!(request.length <= input.len().min(config.head_bytes) && input[..request.length].ends_with(b"\r\n\r\n"));
    assert_eq!(with(&config, &input[..request.length], None), (Ok(Some(request)), out.clone()));
    for end in 0..request.length {
        assert_eq!(with(&config, &input[..end], None).0, Ok(None), "{end}");
    }

    let fields = words::fields(&out);
    let count = |name: &str| words::count(&fields, name);
    assert_eq!(count("host"), 1);
    let framed = (count("content-length"), count("transfer-encoding"));
    assert_eq!(
        framed,
        match request.framing {
            Framing::None => (0, 0),
            Framing::Length(_) => (1, 0),
            Framing::Chunked => (0, 1),
        }
    );
    for gone in ["keep-alive", "proxy-connection", "http2-settings", "content_length", "transfer.encoding"] {
        assert_eq!(count(gone), 0, "{gone}");
    }
    assert_eq!(count("upgrade"), usize::from(request.upgrade.is_some()));
    assert!(count("connection") <= 1 && count("connection") == count("upgrade") + count("te"));
    if config.request_id {
        assert!(count("x-request-id") > 0);
    }
    match config.forwarded {
        Forwarded::Off => {}
        Forwarded::XForwarded => {
            assert_eq!(count("x-forwarded-for"), 1);
            assert!(count("x-forwarded-proto") > 0 && (count("x-forwarded-host") > 0 || request.http10));
        }
        Forwarded::Forwarded => assert_eq!(count("forwarded"), 1),
    }
    let line = format!("{} ", told.method);
    assert!(out.starts_with(line.as_bytes()) && !told.target.is_empty());

    if fields.len() > MOST_FIELDS {
        // Ours came on top of as many as there may be.
        return;
    }
    let plain = Config { forwarded: Forwarded::Off, request_id: false, head_bytes: 128 << 10, ..config };
    let (again, same) = with(&plain, &out, None);
    let again = again.expect("what was written is accepted").expect("and whole");
    assert_eq!(same.escape_ascii().to_string(), out.escape_ascii().to_string());
    // The version is ours, and whether the client stays is between it and us.
    let expect = Request {
        length: out.len(),
        http10: false,
        keep_alive: again.keep_alive,
        expects_continue: again.expects_continue,
        ..request
    };
    assert_eq!(again, expect);
    assert!(request.http10 || again.expects_continue == request.expects_continue);
});
