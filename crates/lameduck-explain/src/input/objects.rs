//! Takes JSON apart into its objects without holding the whole: the elements of an array at the top, of `items` in a list, or
//! objects one after the other.

/// The largest object kept. etcd takes none beyond 1.5 MiB; in memory one can be twenty times as large as its text.
const MOST: usize = 4 << 20;
/// How deep an object is followed; JSON deeper than this is nobody's log.
const DEPTH: usize = 512;

/// What comes out.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A whole object, and the line it starts on.
    Object(u64, &'a [u8]),
    /// One that was too large or too deep, or text between objects; with its first bytes.
    Refused(u64, &'a [u8]),
}

/// The state between two bytes.
#[derive(Debug, Default)]
pub struct Objects {
    /// The brackets that are open outside of an object of interest.
    outer: Vec<u8>,
    /// The brackets open within one.
    depth: usize,
    object: Vec<u8>,
    begins: u64,
    line: u64,
    in_string: bool,
    escaped: bool,
    over: bool,
}

impl Objects {
    /// Takes more bytes.
    pub fn take(&mut self, bytes: &[u8], mut out: impl FnMut(Piece<'_>)) {
        for &byte in bytes {
            self.line += u64::from(byte == b'\n');
            if self.depth > 0 && self.object.len() < MOST {
                self.object.push(byte);
            } else if self.depth > 0 {
                self.over = true;
            }
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.opens(byte),
                b'}' | b']' => self.closes(byte, &mut out),
                _ => {}
            }
        }
    }

    fn opens(&mut self, byte: u8) {
        if self.depth > 0 {
            self.depth += 1;
            self.over |= self.depth > DEPTH;
            // A list's elements are objects of their own: `{ ... "items": [`.
            if byte == b'[' && self.depth == 2 && self.ends_with_items() {
                self.outer.extend_from_slice(b"{[");
                self.depth = 0;
                self.object.clear();
            }
        } else if byte == b'{' {
            self.depth = 1;
            self.begins = self.line + 1;
            self.object.clear();
            self.object.push(byte);
            self.over = false;
        } else if self.outer.len() < DEPTH {
            self.outer.push(byte);
        }
    }

    fn ends_with_items(&self) -> bool {
        let before = self.object[..self.object.len().saturating_sub(1)].trim_ascii_end();
        let before = before.strip_suffix(b":").unwrap_or(before).trim_ascii_end();
        before.ends_with(b"\"items\"") && self.outer.is_empty()
    }

    fn closes(&mut self, byte: u8, out: &mut impl FnMut(Piece<'_>)) {
        if self.depth == 0 {
            self.outer.pop();
            let _ = byte;
            return;
        }
        self.depth -= 1;
        // What else a list has beside its items, as its own metadata, is no object of interest.
        if self.depth == 0 && self.outer.last() == Some(&b'{') {
            self.object.clear();
        } else if self.depth == 0 {
            out(if self.over {
                Piece::Refused(self.begins, &self.object[..self.object.len().min(160)])
            } else {
                Piece::Object(self.begins, &self.object)
            });
            self.object.clear();
            if self.object.capacity() > 1 << 20 {
                self.object.shrink_to(1 << 16);
            }
        }
    }

    /// The end: what is left open is told.
    pub fn end(self, mut out: impl FnMut(Piece<'_>)) -> u64 {
        if self.depth > 0 {
            out(Piece::Refused(self.begins, &self.object[..self.object.len().min(160)]));
        }
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[&str]) {
        // Cut anywhere, the pieces are the same.
        for step in [1, 3, text.len().max(1)] {
            let mut objects = Objects::default();
            let mut found = Vec::new();
            let mut out = |piece: Piece<'_>| {
                found.push(match piece {
                    Piece::Object(line, text) => format!("{line}:{}", String::from_utf8_lossy(text)),
                    Piece::Refused(line, _) => format!("{line}:refused"),
                });
            };
            for part in text.as_bytes().chunks(step) {
                objects.take(part, &mut out);
            }
            objects.end(&mut out);
            assert_eq!(found, expect, "{text}");
        }
    }

    #[test]
    fn arrays_lists_and_rows() {
        check("[{\"a\":[1]},\n{\"b\":\"]}\"}]", &["1:{\"a\":[1]}", "2:{\"b\":\"]}\"}"]);
        check("{\"a\":1}\n{\n\"b\":2}", &["1:{\"a\":1}", "2:{\n\"b\":2}"]);
        check(
            "{\"kind\":\"List\",\"items\": [{\"c\":{\"items\":[]}}, {\"d\":1}], \"metadata\":{}}",
            &["1:{\"c\":{\"items\":[]}}", "1:{\"d\":1}"],
        );
        check("[{\"a\":", &["1:refused"]);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "{\"a\":".repeat(DEPTH + 2) + &"}".repeat(DEPTH + 2);
        check(&deep, &["1:refused"]);
    }
}
