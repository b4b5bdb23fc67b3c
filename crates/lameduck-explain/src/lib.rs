//! The post mortem. Logs, events and packet captures are read as streams, what they say of each lost request is put together,
//! and each gets its cause by evidence, or `unknown` with what is missing.
//!
//! Input -> lines ([`record`]) -> books ([`books`]) -> the pods' lives ([`world`]) -> causes -> pictures. Nothing here prints,
//! and no clock is read.

pub mod answered;
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
use std::sync::Arc;

use answered::Wanted;
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
    let files = input::files(&plan.paths)?;
    let mut sources: Vec<input::Source> = files.iter().cloned().map(input::Source::File).collect();
    sources.extend(stream.map(|(name, stream)| input::Source::Stream(name, stream)));
    sources.truncate(usize::from(u16::MAX));
    let names: Vec<String> = sources.iter().map(input::Source::name).collect();
    let mut reader = Reader::default();
    let (mut bytes, all) = (0, sources.len());
    let mut read_one = |reader: &mut Reader, reading: &Reading, place: usize, source| {
        let mut told = |more: u64| {
            bytes += more;
            tell(place, all, &names[place], bytes);
        };
        stream::read(reader, reading, place as u16, source, &mut told)
    };
    for (place, source) in sources.into_iter().enumerate() {
        read_one(&mut reader, &plan.reading, place, source)?;
    }
    let Reader { mut books, mut sightings, .. } = reader;
    sightings.sort();
    books.close();
    let joined = join::join(&mut books);
    // Who else has logged the lost ones, as answered? Streams can not be read again.
    let wanted = Wanted::of(&books);
    let with_ids: Vec<usize> = (0..books.inputs.len()).filter(|place| books.inputs[*place].ids > 0).collect();
    if with_ids.len() > 1 && !wanted.is_empty() {
        let reading = Reading { id: None, wanted: Some(Arc::new(wanted)), ..plan.reading.clone() };
        let mut again = Reader::default();
        for place in with_ids.into_iter().filter(|place| books.inputs[*place].formats[read::CAPTURE] == 0) {
            if let Some(file) = files.get(place) {
                read_one(&mut again, &reading, place, input::Source::File(file.clone()))?;
            }
        }
        answered::join(&mut books, again.answers);
    }
    Ok(report::explain(&books, &names, &joined, &sightings, &plan.question))
}
