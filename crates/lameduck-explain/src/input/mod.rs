//! Files, folders and standard input, as blocks of whole lines, objects or packets. What they are is told by their content.

pub mod objects;
pub mod yaml;

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes read ahead to tell what an input is.
const PEEK: usize = 64 << 10;
/// A block's size; a longer line is given up.
pub const BLOCK: usize = 1 << 20;

/// Something to read.
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input, or any stream, with a name.
    Stream(String, Box<dyn Read + Send>),
}

impl Source {
    /// What it is called in citations.
    pub fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Stream(name, _) => name.clone(),
        }
    }
}

/// What could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}; expected a file or folder with logs, events or captures")]
pub struct InputError {
    path: String,
    error: io::Error,
}

/// The files at these places; folders with all that is in them.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, InputError> {
    let mut found = Vec::new();
    for path in paths {
        let wrong = |error| InputError { path: path.display().to_string(), error };
        if fs::metadata(path).map_err(wrong)?.is_dir() {
            folder(path, 0, &mut found).map_err(wrong)?;
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn folder(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        // Links are not followed: they can go in circles.
        if kind.is_dir() && depth < 16 {
            folder(&entry.path(), depth + 1, found)?;
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// What an input holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A line each.
    Lines,
    /// JSON objects over several lines, in an array, in a list, or one after the other.
    Objects,
    /// Kubernetes objects as YAML.
    Yaml,
    /// Packets.
    Capture,
    /// Nothing.
    Empty,
}

/// An open input.
pub struct Opened {
    /// What it holds.
    pub shape: Shape,
    /// Its content, unpacked, from the start.
    pub content: Box<dyn Read + Send>,
}

/// Opens an input, unpacks it, and looks at what it is.
pub fn open(source: Source) -> Result<Opened, InputError> {
    let name = source.name();
    let wrong = |error| InputError { path: name.clone(), error };
    let raw: Box<dyn Read + Send> = match source {
        Source::File(path) => Box::new(File::open(path).map_err(wrong)?),
        Source::Stream(_, stream) => stream,
    };
    let (head, raw) = peek(raw, 4).map_err(wrong)?;
    let plain: Box<dyn Read + Send> = if head.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(PEEK, raw)))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(Zstd { raw: Some(BufReader::with_capacity(PEEK, raw)), frame: None })
    } else {
        raw
    };
    let (head, content) = peek(plain, PEEK).map_err(wrong)?;
    Ok(Opened { shape: shape(&head), content })
}

/// Zstandard frames one after the other, as log rotation writes them.
struct Zstd<R: Read> {
    raw: Option<BufReader<R>>,
    frame: Option<ruzstd::decoding::StreamingDecoder<BufReader<R>, ruzstd::decoding::FrameDecoder>>,
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let got = frame.read(buffer)?;
                if got > 0 || buffer.is_empty() {
                    return Ok(got);
                }
                self.raw = self.frame.take().map(ruzstd::decoding::StreamingDecoder::into_inner);
            }
            let Some(mut raw) = self.raw.take() else { return Ok(0) };
            if io::BufRead::fill_buf(&mut raw)?.is_empty() {
                return Ok(0);
            }
            let frame = ruzstd::decoding::StreamingDecoder::new(raw).map_err(io::Error::other)?;
            self.frame = Some(frame);
        }
    }
}

/// The first bytes, and the whole again.
fn peek(mut from: Box<dyn Read + Send>, most: usize) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let mut head = vec![0; most];
    let got = fill(&mut from, &mut head)?;
    head.truncate(got);
    Ok((head.clone(), Box::new(io::Cursor::new(head).chain(from))))
}

/// Reads until full or at the end.
pub fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match from.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

fn shape(head: &[u8]) -> Shape {
    const CAPTURES: [[u8; 4]; 6] = [
        [0xa1, 0xb2, 0xc3, 0xd4],
        [0xd4, 0xc3, 0xb2, 0xa1],
        [0xa1, 0xb2, 0x3c, 0x4d],
        [0x4d, 0x3c, 0xb2, 0xa1],
        [0xa1, 0xb2, 0xcd, 0x34],
        [0x0a, 0x0d, 0x0d, 0x0a],
    ];
    if CAPTURES.iter().any(|magic| head.starts_with(magic)) {
        return Shape::Capture;
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    match text.first() {
        None => Shape::Empty,
        Some(b'[') if matches!(text[1..].trim_ascii_start().first(), Some(b'{' | b']')) => Shape::Objects,
        Some(b'{') => {
            let line = text.split(|byte| *byte == b'\n').next().unwrap_or(text);
            let list =
                memchr::memmem::find(line, b"\"items\"").is_some() && memchr::memmem::find(line, b"\"kind\"").is_some();
            if list || !crate::json::fields(line.trim_ascii(), |_, _, _| {}) { Shape::Objects } else { Shape::Lines }
        }
        Some(_) => {
            let starts = |line: &[u8]| {
                [&b"apiVersion:"[..], b"kind:", b"items:", b"- apiVersion:"].iter().any(|key| line.starts_with(key))
            };
            if text.split(|byte| *byte == b'\n').take(20).any(starts) { Shape::Yaml } else { Shape::Lines }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells_the_shape() {
        let check = |text: &str, expect: Shape| assert_eq!(shape(text.as_bytes()), expect, "{text}");
        check("", Shape::Empty);
        check("[\n  {\n", Shape::Objects);
        check("[2026-11-21T18:00:00.500Z] \"GET", Shape::Lines);
        check("{\n  \"kind\": \"List\"", Shape::Objects);
        check("{\"kind\":\"List\",\"items\":[]}", Shape::Objects);
        check("{\"a\":1}\n{\"a\":2}\n", Shape::Lines);
        check("apiVersion: v1\nitems:\n", Shape::Yaml);
        check("10.0.0.1 - - [", Shape::Lines);
        assert_eq!(shape(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0]), Shape::Capture);
    }
}
