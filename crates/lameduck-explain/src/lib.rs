//! The post mortem. Logs, events and packet captures are read as streams, what they say of each lost request is put together,
//! and each gets its cause by evidence, or `unknown` with what is missing.
//!
//! Input -> lines ([`record`]) -> books ([`books`]) -> the pods' lives ([`world`]) -> causes -> pictures. Nothing here prints,
//! and no clock is read.

pub mod books;
pub mod capture;
pub mod diagnose;
pub mod fix;
pub mod input;
pub mod join;
pub mod json;
pub mod read;
pub mod record;
pub mod render;
pub mod report;
pub mod slo;
pub mod spikes;
pub mod stream;
pub mod time;
pub mod world;

use std::path::PathBuf;

use report::{Explanation, Question};
use stream::{Reader, Reading};

/// What is read, and how.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Files and folders; `-` is not among them.
    pub paths: Vec<PathBuf>,
    /// How lines are read.
    pub reading: Reading,
    /// What is asked.
    pub question: Question,
}

/// Progress, after every block: which of how many inputs, its name, and bytes read in all.
pub type Tell<'t> = &'t mut dyn FnMut(usize, usize, &str, u64);

/// Reads all and explains it. `stream` is standard input, or whatever else has no path.
pub fn explain(
    plan: &Plan,
    stream: Option<(String, Box<dyn std::io::Read + Send>)>,
    tell: Tell<'_>,
) -> Result<Explanation, input::InputError> {
    let mut sources: Vec<input::Source> = input::files(&plan.paths)?.into_iter().map(input::Source::File).collect();
    sources.extend(stream.map(|(name, stream)| input::Source::Stream(name, stream)));
    sources.truncate(usize::from(u16::MAX));
    let names: Vec<String> = sources.iter().map(input::Source::name).collect();
    let mut reader = Reader::default();
    let (mut bytes, all) = (0, sources.len());
    for (place, source) in sources.into_iter().enumerate() {
        let name = names[place].clone();
        let mut told = |more: u64| {
            bytes += more;
            tell(place, all, &name, bytes);
        };
        stream::read(&mut reader, &plan.reading, place as u16, source, &mut told)?;
    }
    let mut sightings = reader.sightings;
    sightings.sort();
    let mut books = reader.books;
    books.close();
    let joined = join::join(&mut books);
    Ok(report::explain(&books, &names, &joined, &sightings, &plan.question))
}
