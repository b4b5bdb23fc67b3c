//! A line, to every format; and a format's own example with a part of it replaced, to that one. Whoever sends a request chooses a
//! good part of what is logged of it.
#![no_main]

use lameduck_explain::books::Books;
use lameduck_explain::read::{Context, FORMATS};
use lameduck_explain::record::Place;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u16, u8, &[u8])| {
    let (which, from, len, bytes) = input;
    let mut books = Books::default();
    for (place, format) in FORMATS.iter().enumerate() {
        if let Some(said) = (format.read)(bytes, Context::default()) {
            books.enter(Place::default(), place as u8, said);
        }
    }
    let place = usize::from(which) % FORMATS.len();
    let example = FORMATS[place].example.as_bytes();
    let from = usize::from(from) % (example.len() + 1);
    let end = (from + usize::from(len)).min(example.len());
    let line = [&example[..from], bytes, &example[end..]].concat();
    if let Some(said) = (FORMATS[place].read)(&line, Context::default()) {
        books.enter(Place::default(), place as u8, said);
    }
    books.close();
    lameduck_explain::join::join(&mut books);
});
