//! Findings, of which there may be many: their places in memory, the rest in a temporary file without a name once there is
//! more than a little.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use lameduck_core::Severity;

use crate::finding::Finding;
use crate::span::FileId;
use crate::world::hash;

/// So many bytes wait in memory before they are written.
const WAITING: usize = 256 << 10;

/// What is known of a finding without reading it.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    pub file: FileId,
    pub line: u32,
    pub column: u32,
    /// The same rule says the same of the same workload.
    pub echo: u32,
    from: u64,
    long: u32,
    /// As [`crate::rules::ALL`] has it.
    pub rule: u16,
    pub severity: Severity,
    /// `--fix` makes it go away.
    pub safe_fix: bool,
}

#[derive(Debug, Default)]
pub struct Findings {
    pub slots: Vec<Slot>,
    waiting: Vec<u8>,
    file: Option<File>,
    written: u64,
    /// There is nowhere to write: everything stays in memory.
    stuck: bool,
}

impl Findings {
    pub fn add(&mut self, finding: &Finding) {
        let from = self.written + self.waiting.len() as u64;
        let before = self.waiting.len();
        if serde_json::to_writer(&mut self.waiting, finding).is_err() {
            self.waiting.truncate(before);
            return;
        }
        self.slots.push(Slot {
            file: finding.at.file,
            line: finding.at.line,
            column: finding.at.column,
            echo: hash(&(finding.rule, &finding.workload, &finding.message)),
            from,
            long: (self.waiting.len() - before) as u32,
            rule: crate::rules::ALL.iter().position(|rule| rule.name == finding.rule).unwrap_or_default() as u16,
            severity: finding.severity,
            safe_fix: finding.fix.as_ref().is_some_and(|fix| fix.safe),
        });
        if self.waiting.len() >= WAITING && !self.stuck {
            self.write();
        }
    }

    fn write(&mut self) {
        if self.file.is_none() {
            self.file = tempfile::tempfile().ok();
        }
        let written = self.file.as_mut().is_some_and(|file| file.write_all(&self.waiting).is_ok());
        if written {
            self.written += self.waiting.len() as u64;
            self.waiting.clear();
        } else {
            self.stuck = true;
        }
    }

    /// Reads a finding again.
    pub fn get(&self, slot: &Slot) -> io::Result<Finding> {
        let long = slot.long as usize;
        let mut bytes = Vec::new();
        let bytes = if let Some(at) = slot.from.checked_sub(self.written) {
            self.waiting.get(at as usize..at as usize + long).unwrap_or_default()
        } else {
            bytes.resize(long, 0);
            match &self.file {
                Some(file) => file.read_exact_at(&mut bytes, slot.from)?,
                None => return Err(io::ErrorKind::NotFound.into()),
            }
            &bytes
        };
        let rule = crate::rules::ALL.get(usize::from(slot.rule)).map_or("", |rule| rule.name);
        Ok(Finding { rule, ..serde_json::from_slice(bytes)? })
    }
}

#[cfg(test)]
mod tests {
    use lameduck_core::Cause;

    use super::*;
    use crate::span::At;

    #[test]
    fn what_went_into_the_file_comes_back() {
        let mut store = Findings::default();
        let one = |n: u32| {
            let at = At { line: n, ..At::default() };
            let finding = Finding::new(Cause::Overload, Severity::Note, at, format!("{n} {}", "x".repeat(500)));
            Finding { rule: "prestop-missing", ..finding }
        };
        (0..2000).for_each(|n| store.add(&one(n)));
        assert!(store.file.is_some() && store.waiting.len() < WAITING);
        for (n, slot) in store.slots.iter().enumerate().rev() {
            assert_eq!(store.get(slot).unwrap(), one(n as u32));
        }
    }
}
