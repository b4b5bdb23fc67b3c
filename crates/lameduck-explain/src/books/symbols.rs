//! Texts by number, and the keys by which requests and addresses are compared.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

/// Distinct texts kept; the rest are "(others)".
const SYMBOLS: usize = 60_000;
/// The longest text kept.
const SYMBOL_BYTES: usize = 240;
/// A text, by number. 0 is the empty one.
pub type Symbol = u32;

/// Texts by number, boundedly many.
#[derive(Debug, Clone)]
pub struct Symbols {
    texts: Vec<Arc<[u8]>>,
    numbers: HashMap<Arc<[u8]>, Symbol>,
    /// The text last asked for of each hash too cheap for anything else.
    recent: Vec<Symbol>,
}

/// Texts remembered as asked for lately.
const RECENT: usize = 256;

/// Of the length and the last bytes: addresses differ at their end.
fn cheap(text: &[u8]) -> usize {
    let last = text.last_chunk::<8>().map_or(0, |last| u64::from_le_bytes(*last));
    (last.wrapping_mul(GOLDEN).wrapping_add(text.len() as u64) >> 32) as usize % RECENT
}

/// An odd constant near 2^64 divided by the golden ratio spreads neighbours.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Stands for all texts that there was no room for.
pub(super) const OTHERS: Symbol = 1;

impl Default for Symbols {
    fn default() -> Self {
        let mut symbols = Symbols { texts: Vec::new(), numbers: HashMap::new(), recent: vec![0; RECENT] };
        symbols.of(b"");
        symbols.of(b"(others)");
        symbols
    }
}

impl Symbols {
    /// The number of a text.
    pub fn of(&mut self, text: &[u8]) -> Symbol {
        let text = &text[..text.len().min(SYMBOL_BYTES)];
        let place = cheap(text);
        let recent = self.recent[place];
        if self.texts.get(recent as usize).is_some_and(|known| **known == *text) {
            return recent;
        }
        let number = self.new_or_known(text);
        self.recent[place] = number;
        number
    }

    fn new_or_known(&mut self, text: &[u8]) -> Symbol {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        if self.texts.len() >= SYMBOLS {
            return OTHERS;
        }
        let number = self.texts.len() as Symbol;
        let text: Arc<[u8]> = text.into();
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    /// The text.
    pub fn text(&self, number: Symbol) -> String {
        self.texts.get(number as usize).map_or_else(String::new, |text| clean(text))
    }

    /// The texts in order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.texts.iter().map(|text| &**text)
    }

    /// The number of a known text.
    pub fn find(&self, text: &[u8]) -> Option<Symbol> {
        self.numbers.get(text).copied()
    }
}

/// A text for people: UTF-8, without control characters.
pub fn clean(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A key for joining: the same text gives the same number within one program.
pub fn key(parts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        hasher.write(part);
        hasher.write_u8(0xff);
    }
    hasher.finish()
}

/// An address without its port, and without brackets.
pub fn host(address: &[u8]) -> &[u8] {
    if let Some(inner) = address.strip_prefix(b"[") {
        return &inner[..memchr::memchr(b']', inner).unwrap_or(inner.len())];
    }
    match memchr::memchr(b':', address) {
        // More than one colon is IPv6.
        Some(at) if memchr::memchr(b':', &address[at + 1..]).is_none() => &address[..at],
        Some(_) | None => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let check = |text: &str, expect: &str| assert_eq!(host(text.as_bytes()), expect.as_bytes());
        check("10.0.0.4:80", "10.0.0.4");
        check("[fe80::1]:80", "fe80::1");
        check("fe80::1", "fe80::1");
        check("web-1", "web-1");
    }
}
