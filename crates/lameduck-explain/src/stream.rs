//! Reads inputs into books: blocks of whole lines go to several readers, whose books add up.

use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use crate::answered::{Answer, Wanted};
use crate::books::Books;
use crate::input::objects::{Objects, Piece};
use crate::input::{self, BLOCK, InputError, Opened, Shape, Source};
use crate::read::words::has;
use crate::read::{Context, Custom, FORMATS};
use crate::record::{Line, Place};

/// How lines are read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// What lines do not say.
    pub context: Context,
    /// Formats given by the user; they are tried first.
    pub custom: Vec<Custom>,
    /// The id to follow.
    pub id: Option<String>,
    /// Readers side by side.
    pub threads: usize,
    /// Only answers to these are looked for; nothing else is entered.
    pub wanted: Option<Arc<Wanted>>,
}

/// A line that has the id that is followed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// Where.
    pub place: Place,
    /// The line.
    pub text: String,
}

/// Sightings kept.
const SIGHTINGS: usize = 200;
/// Answers kept.
const ANSWERS: usize = 500_000;
/// Lines tried by every format to find an input's own.
const TRIED: usize = 200;

/// One reader.
#[derive(Debug, Default)]
pub struct Reader {
    /// What it has entered.
    pub books: Books,
    /// Where the id was seen.
    pub sightings: Vec<Sighting>,
    /// Answers to what was wanted.
    pub answers: Vec<Answer>,
}

/// A block of whole lines.
struct Block {
    input: u16,
    first_line: u64,
    own: usize,
    bytes: Vec<u8>,
    len: usize,
}

impl Reader {
    fn line(&mut self, reading: &Reading, place: Place, own: usize, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        for custom in &reading.custom {
            if let Some(said) = custom.read(line, reading.context) {
                self.enter(reading, place, FORMATS.len(), said);
                return;
            }
        }
        // The input's own format, or else the first that knows the line.
        if let Some(format) = FORMATS.get(own)
            && let Some(said) = (format.read)(line, reading.context)
        {
            self.enter(reading, place, own, said);
            return;
        }
        let mut others = FORMATS.iter().enumerate().filter(|(other, _)| *other != own);
        match others.find_map(|(other, format)| Some((other, (format.read)(line, reading.context)?))) {
            Some((other, said)) => self.enter(reading, place, other, said),
            // A table's ages count from a moment that it does not tell.
            None if line.starts_with(b"LAST SEEN") || line.starts_with(b"NAMESPACE ") && has(line, "LAST SEEN") => {
                self.books
                    .unparsed(place, b"(the table of kubectl get events has ages, not dates: use -o json or -o yaml)");
            }
            None => self.books.unparsed(place, line),
        }
    }

    #[inline]
    fn enter(&mut self, reading: &Reading, place: Place, format: usize, said: Line<'_>) {
        let Some(wanted) = &reading.wanted else { return self.books.enter(place, format as u8, said) };
        if let Line::Hop(hop) = said
            && let Some(answer) = wanted.look(place, &hop)
            && self.answers.len() < ANSWERS
        {
            self.answers.push(answer);
        }
    }

    fn block(&mut self, reading: &Reading, block: &Block) {
        let bytes = &block.bytes[..block.len];
        let mut place = Place { input: block.input, line: block.first_line };
        self.books.turn_page();
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', bytes).chain((!bytes.ends_with(b"\n")).then_some(bytes.len())) {
            self.line(reading, place, block.own, &bytes[from..end]);
            place.line += 1;
            from = end + 1;
        }
        self.books.input(block.input).lines += place.line - block.first_line;
        self.sight(reading, block.input, block.first_line, bytes);
    }

    fn sight(&mut self, reading: &Reading, input: u16, first_line: u64, bytes: &[u8]) {
        let Some(id) = reading.id.as_deref().filter(|id| !id.is_empty()) else { return };
        for at in memchr::memmem::find_iter(bytes, id.as_bytes()) {
            if self.sightings.len() >= SIGHTINGS {
                return;
            }
            let from = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |end| end + 1);
            let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end);
            let line = first_line + memchr::memchr_iter(b'\n', &bytes[..at]).count() as u64;
            let text = crate::books::clean(&bytes[from..end.min(from + 1000)]);
            let sighting = Sighting { place: Place { input, line }, text };
            if self.sightings.last() != Some(&sighting) {
                self.sightings.push(sighting);
            }
        }
    }
}

/// The format that most lines of a block are read by.
fn own_format(reading: &Reading, bytes: &[u8]) -> usize {
    let mut score = [0u32; FORMATS.len()];
    for line in bytes.split(|byte| *byte == b'\n').take(TRIED) {
        for (place, format) in FORMATS.iter().enumerate() {
            if (format.read)(line, reading.context).is_some() {
                score[place] += 1;
                break;
            }
        }
    }
    let best = score.iter().copied().max().unwrap_or(0);
    score.iter().position(|n| *n == best).unwrap_or(0)
}

/// Reads one input into the reader's books; `tell` hears of every block's bytes.
pub fn read(
    reader: &mut Reader,
    reading: &Reading,
    input: u16,
    source: Source,
    tell: &mut dyn FnMut(u64),
) -> Result<Shape, InputError> {
    let Opened { shape, content } = input::open(source)?;
    match shape {
        Shape::Lines => lines(reader, reading, input, content, tell),
        Shape::Objects => objects(reader, reading, input, content, tell),
        Shape::Yaml => yaml(reader, reading, input, content, tell),
        Shape::Capture => crate::capture::read(reader, reading, input, content, tell),
        Shape::Empty => {
            reader.books.input(input);
        }
    }
    Ok(shape)
}

/// Cuts a stream into blocks of whole lines. A line longer than a block is entered as unparsed, and passed over.
struct Blocks<'r> {
    content: Box<dyn Read + Send>,
    rest: Vec<u8>,
    line: u64,
    done: bool,
    reader: &'r mut Reader,
    input: u16,
}

impl Blocks<'_> {
    fn next(&mut self, mut buffer: Vec<u8>) -> Option<(u64, Vec<u8>, usize)> {
        buffer.resize(BLOCK, 0);
        let mut passing = false;
        loop {
            if self.done {
                return None;
            }
            let mut have = self.rest.len();
            buffer[..have].copy_from_slice(&self.rest);
            self.rest.clear();
            // A stream that breaks ends here; what came before it counts.
            let got = input::fill(&mut self.content, &mut buffer[have..]).unwrap_or_else(|error| {
                let text = format!("(the input broke off: {error})");
                self.reader.books.unparsed(Place { input: self.input, line: self.line + 1 }, text.as_bytes());
                0
            });
            have += got;
            self.done = have < BLOCK;
            let mut from = 0;
            if std::mem::take(&mut passing) {
                match memchr::memchr(b'\n', &buffer[..have]) {
                    Some(end) => from = end + 1,
                    None if self.done => return None,
                    None => {
                        passing = true;
                        continue;
                    }
                }
                self.line += 1;
            }
            let end = if self.done { have } else { memchr::memrchr(b'\n', &buffer[..have]).map_or(0, |end| end + 1) };
            if end <= from && !self.done {
                if from > 0 {
                    // The long line ended here; what follows it has no end yet.
                    self.rest.extend_from_slice(&buffer[from..have]);
                    continue;
                }
                let place = Place { input: self.input, line: self.line + 1 };
                let mut text = b"(a line longer than 1 MiB) ".to_vec();
                text.extend_from_slice(&buffer[..100]);
                self.reader.books.unparsed(place, &text);
                self.reader.books.input(self.input).lines += 1;
                passing = true;
                continue;
            }
            self.rest.extend_from_slice(&buffer[end..have]);
            if from > 0 {
                buffer.copy_within(from..end, 0);
            }
            let len = end - from;
            let first = self.line + 1;
            self.line += memchr::memchr_iter(b'\n', &buffer[..len]).count() as u64;
            return (len > 0).then_some((first, buffer, len));
        }
    }
}

fn lines(reader: &mut Reader, reading: &Reading, input: u16, content: Box<dyn Read + Send>, tell: &mut dyn FnMut(u64)) {
    let mut side = Reader::default();
    let mut blocks = Blocks { content, rest: Vec::new(), line: 0, done: false, reader: &mut side, input };
    let Some((first_line, bytes, len)) = blocks.next(Vec::new()) else {
        reader.take(side);
        reader.books.input(input);
        return;
    };
    let own = own_format(reading, &bytes[..len]);
    let first = Block { input, first_line, own, bytes, len };
    if blocks.done || reading.threads < 2 {
        let mut block = first;
        loop {
            reader.block(reading, &block);
            tell(block.len as u64);
            let Some((first_line, bytes, len)) = blocks.next(block.bytes) else { break };
            block = Block { input, first_line, own, bytes, len };
        }
        reader.take(side);
        return;
    }
    let readers = side_by_side(reading, first, &mut blocks, tell);
    for other in readers {
        reader.take(other);
    }
    reader.take(side);
}

/// Several readers at one stream.
fn side_by_side(reading: &Reading, first: Block, blocks: &mut Blocks<'_>, tell: &mut dyn FnMut(u64)) -> Vec<Reader> {
    let (input, own) = (first.input, first.own);
    let (full, work): (SyncSender<Block>, Receiver<Block>) = sync_channel(reading.threads * 2);
    let (empty, used) = sync_channel::<Vec<u8>>(reading.threads * 4);
    let work = Arc::new(Mutex::new(work));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..reading.threads)
            .map(|_| {
                let (work, empty) = (Arc::clone(&work), empty.clone());
                scope.spawn(move || {
                    let books = Books::of_one_in(reading.threads);
                    let mut reader = Reader { books, ..Reader::default() };
                    loop {
                        let next = work.lock().ok().and_then(|work| work.recv().ok());
                        let Some(block) = next else { return reader };
                        reader.block(reading, &block);
                        let _ = empty.try_send(block.bytes);
                    }
                })
            })
            .collect();
        tell(first.len as u64);
        let mut open = full.send(first).is_ok();
        while open && let Some((first_line, bytes, len)) = blocks.next(used.try_recv().unwrap_or_default()) {
            tell(len as u64);
            open = full.send(Block { input, first_line, own, bytes, len }).is_ok();
        }
        drop(full);
        readers.into_iter().filter_map(|reader| reader.join().ok()).collect()
    })
}

impl Reader {
    /// Adds what another reader has entered.
    pub fn take(&mut self, other: Reader) {
        self.books.merge(other.books);
        self.answers.extend(other.answers);
        self.sightings.extend(other.sightings);
        self.sightings.sort();
        self.sightings.truncate(SIGHTINGS);
    }
}

fn objects(
    reader: &mut Reader,
    reading: &Reading,
    input: u16,
    mut content: Box<dyn Read + Send>,
    tell: &mut dyn FnMut(u64),
) {
    let mut objects = Objects::default();
    let mut own = FORMATS.len();
    let mut buffer = vec![0; BLOCK];
    let mut out = |piece: Piece<'_>| {
        reader.books.input(input).lines += 1;
        match piece {
            Piece::Object(line, text) => {
                if own == FORMATS.len() {
                    own = own_format(reading, text);
                }
                reader.line(reading, Place { input, line }, own, text);
                if reading.id.as_deref().is_some_and(|id| memchr::memmem::find(text, id.as_bytes()).is_some())
                    && reader.sightings.len() < SIGHTINGS
                {
                    let text = crate::books::clean(&text[..text.len().min(1000)]);
                    reader.sightings.push(Sighting { place: Place { input, line }, text });
                }
            }
            Piece::Refused(line, text) => {
                let text = [b"(not a whole object, or too large or deep) ", text].concat();
                reader.books.unparsed(Place { input, line }, &text);
            }
        }
    };
    loop {
        let got = input::fill(&mut content, &mut buffer).unwrap_or(0);
        if got == 0 {
            break;
        }
        tell(got as u64);
        objects.take(&buffer[..got], &mut out);
    }
    objects.end(out);
}

fn yaml(reader: &mut Reader, reading: &Reading, input: u16, content: Box<dyn Read + Send>, tell: &mut dyn FnMut(u64)) {
    let mut text = String::new();
    let most = input::yaml::MOST as u64;
    let place = Place { input, line: 1 };
    if let Err(error) = content.take(most + 1).read_to_string(&mut text) {
        reader.books.unparsed(place, format!("(not YAML in UTF-8: {error})").as_bytes());
        return;
    }
    tell(text.len() as u64);
    if text.len() as u64 > most {
        reader.books.unparsed(place, b"(YAML of more than 64 MiB; give it as JSON, which is streamed)");
        return;
    }
    reader.sight(reading, input, 1, text.as_bytes());
    let kubernetes = crate::read::by_id("kubernetes").unwrap_or(0) as u8;
    let found = input::yaml::objects(&text, |line, value| {
        reader.books.input(input).lines += 1;
        let place = Place { input, line };
        match crate::read::kube::object(&value, reading.context) {
            Some(said) => reader.books.enter(place, kubernetes, said),
            None => reader.books.unparsed(place, b"(an object of another kind)"),
        }
    });
    if let Err(error) = found {
        reader.books.unparsed(place, error.to_string().as_bytes());
    }
}
