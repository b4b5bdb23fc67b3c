//! Segments of a few connections, in any order, cut and lost: the exchanges on them are told, and add up.
#![no_main]

use std::io::Cursor;

use lameduck_explain::report::Question;
use lameduck_explain::stream::Reading;
use lameduck_explain::{Plan, explain};
use libfuzzer_sys::fuzz_target;

/// From the client, which connection, flags, how far the sequence number and the acknowledgement move, what is said, how much of it was kept.
type Packet<'p> = (bool, u8, u8, i8, i8, u8, &'p [u8]);

const SAID: [&[u8]; 6] = [
    b"",
    b"GET /a HTTP/1.1\r\nX-Request-Id: id\r\n\r\n",
    b"POST /b HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n",
];

fuzz_target!(|packets: Vec<Packet<'_>>| {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0];
    let mut numbers = [[1u32, 1u32]; 3];
    for (n, (client, which, flags, seq, ack, cut, more)) in packets.into_iter().take(200).enumerate() {
        let which = usize::from(which) % numbers.len();
        let payload = [SAID[usize::from(cut) % SAID.len()], &more[..more.len().min(300)]].concat();
        let (own, other) = if client { (0, 1) } else { (1, 0) };
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&((40 + payload.len()) as u16).to_be_bytes());
        let address = |who: usize| [10, 0, 0, 1 + who as u8];
        packet.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
        packet.extend_from_slice(&[address(own), address(other)].concat());
        let port = |who: usize| if who == 0 { 40_000 + which as u16 } else { 80 };
        packet.extend_from_slice(&[port(own).to_be_bytes(), port(other).to_be_bytes()].concat());
        packet.extend_from_slice(&numbers[which][own].wrapping_add_signed(seq.into()).to_be_bytes());
        packet.extend_from_slice(&numbers[which][other].wrapping_add_signed(ack.into()).to_be_bytes());
        packet.extend_from_slice(&[0x50, flags & 0x17, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend_from_slice(&payload);
        numbers[which][own] = numbers[which][own].wrapping_add(payload.len() as u32);
        let kept = if cut > 240 { packet.len().min(54) } else { packet.len() };
        for word in [1_795_132_800, n as u32 * 1000, kept as u32, packet.len() as u32] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(&packet[..kept]);
    }
    let reading = Reading { id: Some("id".into()), ..Reading::default() };
    let plan = Plan { paths: Vec::new(), reading, question: Question::default() };
    let stream = ("fuzz".to_owned(), Box::new(Cursor::new(file)) as Box<dyn std::io::Read + Send>);
    if let Ok(explanation) = explain(&plan, Some(stream), &mut |_, _, _, _| {}) {
        assert_eq!(explanation.causes.iter().map(|cause| cause.requests).sum::<u64>(), explanation.lost);
    }
});
