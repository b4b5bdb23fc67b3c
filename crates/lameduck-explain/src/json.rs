//! The fields of one JSON object, without building it. Log lines are flat, or nearly so; what a line says twice, or in a
//! depth that no log has, is somebody's attack and is refused.

use std::borrow::Cow;

/// Objects within objects, at most.
const DEPTH: usize = 48;

/// Calls `field` for every scalar of the object: the keys that lead to it (the innermost two), and its text, without quotes.
/// Escapes are left as they are: [`unescape`] resolves them. Gives whether it is one whole object.
pub fn fields<'a>(text: &'a [u8], mut field: impl FnMut(&'a [u8], &'a [u8], &'a [u8])) -> bool {
    let mut scan = Scan { text, at: 0 };
    scan.blank();
    if scan.peek() != Some(b'{') || scan.object(b"", 0, &mut field).is_none() {
        return false;
    }
    scan.blank();
    scan.at == text.len()
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    #[inline]
    fn take(&mut self, byte: u8) -> Option<()> {
        self.blank();
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    /// A string's inside; stands behind its end.
    #[inline]
    fn string(&mut self) -> Option<&'a [u8]> {
        let from = self.at + 1;
        let mut end = from;
        loop {
            end += memchr::memchr2(b'"', b'\\', self.text.get(end..)?)?;
            if self.text[end] == b'"' {
                self.at = end + 1;
                return Some(&self.text[from..end]);
            }
            end += 2;
        }
    }

    fn object(
        &mut self,
        outer: &'a [u8],
        depth: usize,
        field: &mut impl FnMut(&'a [u8], &'a [u8], &'a [u8]),
    ) -> Option<()> {
        self.at += 1;
        self.blank();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Some(());
        }
        loop {
            self.blank();
            (self.peek() == Some(b'"')).then_some(())?;
            let key = self.string()?;
            self.take(b':')?;
            self.value(outer, key, depth, field)?;
            self.blank();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    fn value(
        &mut self,
        outer: &'a [u8],
        key: &'a [u8],
        depth: usize,
        field: &mut impl FnMut(&'a [u8], &'a [u8], &'a [u8]),
    ) -> Option<()> {
        self.blank();
        match self.peek()? {
            b'"' => field(outer, key, self.string()?),
            b'{' if depth < DEPTH => self.object(key, depth + 1, field)?,
            b'[' if depth < DEPTH => self.array(key, depth + 1, field)?,
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                let from = self.at;
                while let Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') = self.peek() {
                    self.at += 1;
                }
                field(outer, key, &self.text[from..self.at]);
            }
            _ => return None,
        }
        Some(())
    }

    /// An array's scalars are fields by the array's own name.
    fn array(
        &mut self,
        key: &'a [u8],
        depth: usize,
        field: &mut impl FnMut(&'a [u8], &'a [u8], &'a [u8]),
    ) -> Option<()> {
        self.at += 1;
        self.blank();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Some(());
        }
        loop {
            self.value(key, b"", depth, field)?;
            self.blank();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }
}

/// A string with its escapes resolved.
pub fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let quoted = [b"\"", text, b"\""].concat();
    match serde_json::from_slice::<String>(&quoted) {
        Ok(plain) => Cow::Owned(plain.into_bytes()),
        Err(_) => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn collect(text: &str) -> Option<Vec<(String, String, String)>> {
        let mut found = Vec::new();
        let own = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields(text.as_bytes(), |outer, key, value| found.push((own(outer), own(key), own(value)))).then_some(found)
    }

    #[test]
    fn every_scalar_by_its_two_innermost_keys() {
        let found =
            collect(r#"{"a": 1, "b": {"c": "x\"y", "d": {"e": null}}, "f": ["g", {"h": -1.5e3}], "i": {}, "j":[]}"#);
        let texts: Vec<_> =
            found.iter().flatten().map(|(outer, key, value)| format!("{outer}.{key}={value}")).collect();
        assert_eq!(texts, [".a=1", r#"b.c=x\"y"#, "d.e=null", "f.=g", ".h=-1.5e3"]);
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for bad in [
            "",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":1}x",
            "[1]",
            "{\"a\":\"",
            "{\"a\":\"\\",
            "{a:1}",
            "{,}",
        ] {
            assert_eq!(collect(bad), None, "{bad}");
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        assert_eq!(collect(&deep), None);
    }

    proptest! {
        #[test]
        fn takes_what_serde_writes(map in prop::collection::btree_map(".{0,8}", ".{0,12}", 0..6)) {
            let text = serde_json::to_string(&map).unwrap();
            let mut found = Vec::new();
            let own = |bytes: &[u8]| String::from_utf8(unescape(bytes).into_owned()).unwrap();
            prop_assert!(fields(text.as_bytes(), |_, key, value| found.push((own(key), own(value)))));
            prop_assert_eq!(found, map.into_iter().collect::<Vec<_>>());
        }
    }
}
