//! HTTP/1.1 as narrow as it can be read, for what the front writes: anything that two parsers could read in two ways is an
//! error here.

use std::collections::VecDeque;

/// A request as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
}

/// The fields of a head, names in lower case.
type Fields = Vec<(String, Vec<u8>)>;

/// Why bytes are not the narrow grammar.
pub type Wrong = String;

/// Requests from a stream, in any portions.
#[derive(Debug, Default)]
pub struct Requests {
    pub rest: Vec<u8>,
}

impl Requests {
    /// The requests that are complete with these bytes, each with its fields.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<(Request, Fields)>, Wrong> {
        self.rest.extend_from_slice(bytes);
        let mut read = Vec::new();
        while let Some((request, fields, length)) = request(&self.rest)? {
            self.rest.drain(..length);
            read.push((request, fields));
        }
        Ok(read)
    }

    /// The fields of a request whose head has come and whose body has not.
    pub fn begun(&self) -> Option<Fields> {
        head(&self.rest).ok().flatten().map(|(_, fields, _)| fields)
    }
}

/// An answer as it was read.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub fields: Fields,
}

/// Answers from a stream. They can only be told apart by who knows what was asked.
#[derive(Debug, Default)]
pub struct Answers {
    rest: Vec<u8>,
    /// The methods of requests that were not answered yet.
    pub asked: VecDeque<String>,
}

impl Answers {
    /// The final answers that are complete with these bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Answer>, Wrong> {
        self.rest.extend_from_slice(bytes);
        let mut read = Vec::new();
        loop {
            let to_head = self.asked.front().is_some_and(|method| method == "HEAD");
            let Some((answer, length)) = answer(&self.rest, to_head)? else { return Ok(read) };
            self.rest.drain(..length);
            if answer.status >= 200 {
                self.asked.pop_front();
                read.push(answer);
            }
        }
    }

    /// Whether all that came was answers.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// The value of a field.
pub fn field<'a>(fields: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a [u8]> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The first line, the fields, and the length of a head; `None`: it is not complete.
fn head(bytes: &[u8]) -> Result<Option<(String, Fields, usize)>, Wrong> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let mut lines: Vec<&[u8]> = bytes[..end].split(|byte| *byte == b'\n').collect();
    let last = lines.len() - 1;
    for (at, line) in lines.iter_mut().enumerate() {
        // The last one has lost its end above.
        let ended = if at == last { Some(*line) } else { line.strip_suffix(b"\r") };
        *line = ended.ok_or("a line ends with LF alone")?;
        if line.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(format!("a control character in {:?}", String::from_utf8_lossy(line)));
        }
    }
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let colon = line.iter().position(|byte| *byte == b':').ok_or("a field without a colon")?;
        let name = &line[..colon];
        if name.is_empty() || !name.iter().all(|byte| in_token(*byte)) {
            return Err(format!("the field name {:?}", String::from_utf8_lossy(name)));
        }
        fields.push((String::from_utf8_lossy(name).to_lowercase(), line[colon + 1..].trim_ascii().to_vec()));
    }
    Ok(Some((String::from_utf8_lossy(lines[0]).into_owned(), fields, end + 4)))
}

fn request(bytes: &[u8]) -> Result<Option<(Request, Fields, usize)>, Wrong> {
    let Some((line, fields, start)) = head(bytes)? else { return Ok(None) };
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err(format!("the request line {line:?}")) };
    let origin = target.starts_with('/') || (target == "*" && method == "OPTIONS");
    if method.is_empty() || !method.bytes().all(in_token) || !origin || target.contains('#') {
        return Err(format!("the request line {line:?}"));
    }
    if fields.iter().filter(|(name, _)| name == "host").count() != 1 {
        return Err(format!("not one Host in {fields:?}"));
    }
    let Some((body, length)) = body(&fields, &bytes[start..])? else { return Ok(None) };
    let request = Request { method: method.to_owned(), target: target.to_owned(), body };
    Ok(Some((request, fields, start + length)))
}

/// The body at the beginning of `bytes`, and how many of them it is.
fn body(fields: &Fields, bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Wrong> {
    let all =
        |wanted: &str| fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_slice()).collect();
    let (lengths, codings): (Vec<&[u8]>, Vec<&[u8]>) = (all("content-length"), all("transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Some((Vec::new(), 0))),
        ([length], []) => {
            let length = number(length, 10)?;
            Ok(bytes.get(..length).map(|body| (body.to_vec(), length)))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => chunks(bytes),
        _ => Err(format!("lengths {lengths:?} and codings {codings:?}")),
    }
}

fn number(text: &[u8], radix: u32) -> Result<usize, Wrong> {
    let digits = !text.is_empty() && text.iter().all(|byte| char::from(*byte).is_digit(radix));
    let value = std::str::from_utf8(text).ok().and_then(|text| usize::from_str_radix(text, radix).ok());
    value.filter(|_| digits).ok_or_else(|| format!("the number {:?}", String::from_utf8_lossy(text)))
}

fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Wrong> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let size = number(&bytes[at..at + end], 16)?;
        at += end + 2;
        if size == 0 {
            // Trailers, which an empty line ends.
            loop {
                let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
                let line = String::from_utf8_lossy(&bytes[at..at + end]).to_lowercase();
                at += end + 2;
                if end == 0 {
                    return Ok(Some((body, at)));
                }
                // What some take for a field of the head.
                if ["content-length:", "transfer-encoding:", "host:", "x-forwarded-for:"]
                    .iter()
                    .any(|it| line.starts_with(it))
                {
                    return Err(format!("the trailer {line:?}"));
                }
            }
        }
        let Some(data) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !data.ends_with(b"\r\n") {
            return Err("a chunk that does not end where its size says".into());
        }
        body.extend_from_slice(&data[..size]);
        at += size + 2;
    }
}

fn answer(bytes: &[u8], to_head: bool) -> Result<Option<(Answer, usize)>, Wrong> {
    let Some((line, fields, start)) = head(bytes)? else { return Ok(None) };
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let status: u16 = status.ok_or_else(|| format!("the status line {line:?}"))?;
    if to_head || status < 200 || status == 204 || status == 304 {
        return Ok(Some((Answer { status, fields }, start)));
    }
    if field(&fields, "content-length").is_none() && field(&fields, "transfer-encoding").is_none() {
        // Until the connection ends: only servers that refuse do so.
        return Ok(Some((Answer { status, fields }, bytes.len())));
    }
    let Some((_, length)) = body(&fields, &bytes[start..])? else { return Ok(None) };
    Ok(Some((Answer { status, fields }, start + length)))
}

fn in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
