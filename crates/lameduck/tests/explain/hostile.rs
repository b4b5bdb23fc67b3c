//! Inputs made to hurt: each ends, in bounded memory, and says what it was.

use super::{explain, explain_stdin};

#[test]
fn a_line_without_an_end() {
    let mut input = b"x".repeat(64 << 20);
    input.extend_from_slice(b"\n192.0.2.1 - - [21/Nov/2026:18:00:00 +0000] \"GET / HTTP/1.1\" 502 157 \"-\" \"c\"\n");
    let (e, status) = explain_stdin(&input);
    assert_eq!((status, e["lost"].as_u64(), e["inputs"][0]["unparsed"].as_u64()), (0, Some(1), Some(1)), "{e}");
    assert!(e["inputs"][0]["samples"].to_string().contains("longer than 1 MiB"), "{e}");
}

#[test]
fn nuls_and_noise() {
    let mut input = vec![0u8; 100_000];
    input.extend((0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8));
    let (e, status) = explain_stdin(&input);
    assert_eq!(status, 3, "nothing in it was understood: {e}");
    assert!(e["inputs"][0]["unparsed"].as_u64().is_some_and(|n| n > 0), "{e}");
}

#[test]
fn json_without_a_bottom() {
    let (e, _) = explain_stdin(&b"{\"a\":".repeat(2_000_000));
    assert_eq!(e["inputs"][0]["unparsed"].as_u64(), Some(1), "{e}");
}

#[test]
fn a_capture_with_absurd_lengths() {
    let mut input = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    input.extend_from_slice(&[0; 8]);
    input.extend_from_slice(&[0, 0, 4, 0, 1, 0, 0, 0]);
    input.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let (e, _) = explain_stdin(&input);
    assert!(e["inputs"][0]["samples"].to_string().contains("is not believed"), "{e}");
}

#[test]
fn what_is_not_there_is_said() {
    let output = super::lameduck("explain").arg("/nonexistent/log").output().expect("the program");
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/log"));
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").expect("a file");
    let other = folder.path().join("log");
    std::fs::write(&other, "192.0.2.1 - - [21/Nov/2026:18:00:00 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"c\"\n")
        .expect("a file");
    assert_eq!(explain(&[], &[folder.path()])["requests"], 1);
}

#[test]
fn yaml_that_grows() {
    let input = format!("apiVersion: v1\nitems:\n- [{}]\n", "{},".repeat(600_000));
    let (e, _) = explain_stdin(input.as_bytes());
    assert!(e["inputs"][0]["samples"].to_string().contains("more than 500000 values"), "{e}");
}

#[test]
fn a_table_without_dates() {
    let table = b"LAST SEEN   TYPE     REASON    OBJECT      MESSAGE\n5m          Normal   Killing   pod/web-1   Stopping container web\n";
    let (e, status) = explain_stdin(table);
    assert_eq!(status, 3, "{e}");
    assert!(e["inputs"][0]["samples"][0]["text"].to_string().contains("use -o json"), "{e}");
}
