//! Paths by number, in about as many bytes as their file names have: each is kept but for what it shares with the one
//! before it, as those of a folder are met one after the other.

use crate::world::hash;

/// Every so many paths stand whole, so that none is far from where reading begins.
const BLOCK: u32 = 16;

#[derive(Debug, Default)]
pub struct Paths {
    /// Of each path: how much it shares, how long the rest is, the rest.
    bytes: Vec<u8>,
    /// Where each block begins.
    blocks: Vec<u32>,
    count: u32,
    last: Vec<u8>,
    /// Numbers by hash, open addressing; 0 is free, else one more than the number.
    slots: Vec<u32>,
}

impl Paths {
    /// The number of a path, a new one if it was not met before.
    pub fn id(&mut self, path: &[u8]) -> crate::span::FileId {
        if (self.count as usize + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let mut slot = self.slot(path);
        while let Some(n) = self.slots[slot].checked_sub(1) {
            if self.get(n) == path {
                return crate::span::FileId(n);
            }
            slot = (slot + 1) % self.slots.len();
        }
        self.slots[slot] = self.count + 1;
        self.push(path);
        crate::span::FileId(self.count - 1)
    }

    fn slot(&self, path: &[u8]) -> usize {
        hash(path) as usize % self.slots.len()
    }

    fn push(&mut self, path: &[u8]) {
        let shared = if self.count.is_multiple_of(BLOCK) {
            self.blocks.push(self.bytes.len() as u32);
            0
        } else {
            let same = self.last.iter().zip(path).take_while(|(a, b)| a == b).count();
            same.min(usize::from(u16::MAX))
        };
        let rest = &path[shared..];
        // A path is never this long: PATH_MAX is 4096.
        let rest = &rest[..rest.len().min(usize::from(u16::MAX))];
        self.bytes.extend((shared as u16).to_le_bytes());
        self.bytes.extend((rest.len() as u16).to_le_bytes());
        self.bytes.extend(rest);
        self.last.clear();
        self.last.extend(path);
        self.count += 1;
    }

    /// The path of a number; empty if there is none.
    pub fn get(&self, n: u32) -> Vec<u8> {
        let mut path = Vec::new();
        let Some(from) = self.blocks.get((n / BLOCK) as usize).filter(|_| n < self.count) else { return path };
        let mut at = *from as usize;
        for _ in 0..=n % BLOCK {
            at = self.read(at, &mut path);
        }
        path
    }

    /// Reads one path on top of the one before it, and says where the next begins.
    fn read(&self, at: usize, path: &mut Vec<u8>) -> usize {
        let Some([a, b, c, d]) = self.bytes.get(at..at + 4) else { return at };
        let (shared, rest) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]));
        path.truncate(usize::from(shared));
        let end = at + 4 + usize::from(rest);
        path.extend(self.bytes.get(at + 4..end).unwrap_or_default());
        end
    }

    fn grow(&mut self) {
        self.slots = vec![0; (self.slots.len() * 2).max(64)];
        let (mut at, mut path) = (0, Vec::new());
        for n in 0..self.count {
            at = self.read(at, &mut path);
            let mut slot = self.slot(&path);
            while self.slots[slot] != 0 {
                slot = (slot + 1) % self.slots.len();
            }
            self.slots[slot] = n + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_path_is_found_again(paths in proptest::collection::vec("[ab/]{0,6}[a-c]{0,3}", 0..200)) {
            let mut table = Paths::default();
            let ids: Vec<u32> = paths.iter().map(|path| table.id(path.as_bytes()).0).collect();
            for (path, id) in paths.iter().zip(&ids) {
                prop_assert_eq!(table.get(*id), path.as_bytes());
                prop_assert_eq!(table.id(path.as_bytes()).0, *id);
            }
            let distinct: std::collections::HashSet<&String> = paths.iter().collect();
            prop_assert_eq!(table.count as usize, distinct.len());
        }
    }
}
