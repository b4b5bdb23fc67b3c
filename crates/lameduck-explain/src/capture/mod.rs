//! Packet captures: connections, the requests on them, and who closed what when. The work is done in sequence numbers, so it does
//! not matter on which side was captured, nor that a clock was wrong.

pub mod connection;
pub mod file;
pub mod http;
pub mod packet;

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::net::SocketAddr;

use connection::{Connection, Exchange, Side};
use file::{Capture, CaptureError};
use packet::{ACK, SYN, Segment};

use crate::read::CAPTURE;
use crate::record::{Hop, Line, Place, Signal};
use crate::stream::{Reader, Reading, Sighting};

/// Connections followed at once; those silent longest are given up for new ones.
const CONNECTIONS: usize = 8192;
/// Bytes held of all of them: heads that are not whole, and what came too early.
const HELD: usize = 96 << 20;

/// Reads a capture into the books.
pub fn read(
    reader: &mut Reader,
    reading: &Reading,
    input: u16,
    content: Box<dyn Read + Send>,
    tell: &mut dyn FnMut(u64),
) {
    let unread = |reader: &mut Reader, line: u64, error: &CaptureError| {
        reader.books.unparsed(Place { input, line }, error.to_string().as_bytes());
    };
    let mut capture = match Capture::open(BufReader::with_capacity(1 << 18, content)) {
        Ok(capture) => capture,
        Err(error) => return unread(reader, 1, &error),
    };
    let mut table = Table { connections: HashMap::new(), held: 0, reader, reading, input, other: 0 };
    let (mut told, mut last) = (0, 0);
    loop {
        let bytes = capture.bytes;
        match capture.next_frame() {
            None => break,
            Some(Ok(frame)) => {
                last = frame.number;
                match packet::segment(frame.link, frame.bytes) {
                    Some(segment) => table.segment(frame.number, frame.at, &segment),
                    None => table.other += 1,
                }
            }
            Some(Err(error)) => {
                unread(table.reader, last + 1, &error);
                break;
            }
        }
        if bytes - told > 1 << 20 {
            tell(bytes - told);
            told = bytes;
        }
    }
    tell(capture.bytes - told);
    let other = table.other;
    table.finish();
    let book = reader.books.input(input);
    book.lines = last;
    book.formats[CAPTURE] = last - other.min(last);
    if capture.dropped > 0 {
        let text = format!(
            "({} packets were dropped while capturing: what is missing may not have been missing)",
            capture.dropped
        );
        reader.books.unparsed(Place { input, line: last }, text.as_bytes());
    }
}

struct Table<'r> {
    connections: HashMap<(SocketAddr, SocketAddr), Connection>,
    held: usize,
    reader: &'r mut Reader,
    reading: &'r Reading,
    input: u16,
    /// Frames without TCP.
    other: u64,
}

impl Table<'_> {
    fn segment(&mut self, frame: u64, at: i64, segment: &Segment<'_>) {
        let key = if segment.from <= segment.to { (segment.from, segment.to) } else { (segment.to, segment.from) };
        let opens = segment.flags & (SYN | ACK) == SYN;
        if opens && self.connections.get(&key).is_some_and(|known| known.is_another(segment)) {
            // The same ports again: a new connection.
            if let Some(old) = self.connections.remove(&key) {
                self.held -= old.held();
                self.close(old);
            }
        }
        if self.held > HELD || !self.connections.contains_key(&key) && self.connections.len() >= CONNECTIONS {
            self.make_room();
        }
        let id = self.reading.id.as_deref();
        let connection = self.connections.entry(key).or_insert_with(|| Connection::new(segment, at));
        self.held -= connection.held();
        connection.take(frame, at, segment, id);
        self.held += connection.held();
        if connection.is_over(at) && connection.done.is_empty() {
            return;
        }
        if !connection.done.is_empty() {
            let done = std::mem::take(&mut connection.done);
            let side = connection.side();
            for exchange in done {
                self.enter(&side, &exchange);
            }
        }
    }

    /// Gives up the eighth that was silent longest.
    fn make_room(&mut self) {
        let mut lasts: Vec<i64> = self.connections.values().map(|connection| connection.last).collect();
        let eighth = lasts.len() / 8;
        let (_, limit, _) = lasts.select_nth_unstable(eighth);
        let limit = *limit;
        let old: Vec<Connection> = self
            .connections
            .extract_if(|_, connection| connection.last <= limit)
            .map(|(_, connection)| connection)
            .collect();
        for connection in old {
            self.held -= connection.held();
            self.close(connection);
        }
    }

    fn close(&mut self, mut connection: Connection) {
        connection.finish();
        let side = connection.side();
        for exchange in std::mem::take(&mut connection.done) {
            self.enter(&side, &exchange);
        }
    }

    fn finish(mut self) {
        let mut rest: Vec<Connection> = self.connections.drain().map(|(_, connection)| connection).collect();
        rest.sort_by_key(|connection| connection.last);
        for connection in rest {
            self.close(connection);
        }
    }

    fn enter(&mut self, side: &Side, exchange: &Exchange) {
        let place = Place { input: self.input, line: exchange.frame };
        let books = &mut self.reader.books;
        if exchange.sighted && self.reader.sightings.len() < 200 {
            let text = format!("{} {} {}", exchange.method, exchange.target, exchange.story(side));
            self.reader.sightings.push(Sighting { place, text });
        }
        let backend = side.server.to_string();
        let client = side.client.to_string();
        let hop = Hop {
            end: Some(exchange.ended),
            took: Some(exchange.ended - exchange.began),
            server_took: Some(exchange.ended - exchange.began),
            status: exchange.status,
            signal: exchange.signal,
            backend: backend.as_bytes(),
            method: exchange.method.as_bytes(),
            target: exchange.target.as_bytes(),
            id: exchange.id.as_bytes(),
            client: client.as_bytes(),
            detail: exchange.signal.words().as_bytes(),
            ..Hop::EMPTY
        };
        let losses = books.losses.len();
        books.enter(place, CAPTURE as u8, Line::Hop(hop));
        // It was counted as a line of its own; frames are counted at the end.
        if exchange.signal != Signal::Answered
            && let Some(loss) = books.losses.get_mut(losses)
        {
            loss.packets = Some(Box::new(exchange.packets(side)));
        }
    }
}
