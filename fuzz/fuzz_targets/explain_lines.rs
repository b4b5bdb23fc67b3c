//! A line, to every format. Whoever sends a request chooses a good part of what is logged of it.
#![no_main]

use lameduck_explain::books::Books;
use lameduck_explain::read::{Context, FORMATS};
use lameduck_explain::record::Place;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let mut books = Books::default();
    for (place, format) in FORMATS.iter().enumerate() {
        if let Some(said) = (format.read)(line, Context::default()) {
            books.enter(Place::default(), place as u8, said);
        }
    }
    books.close();
    lameduck_explain::join::join(&mut books);
});
