//! Whatever a stranger in the pod writes: it is read or refused, bounded, and what was read is written again as the same.
#![no_main]

use lameduck_run::pod::wire::{Announcement, MOST_NAMES, MOST_PORTS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let Some(said) = Announcement::decode(datagram) else { return };
    assert!(said.listens.len() <= MOST_PORTS && said.connects.len() <= MOST_PORTS && said.after.len() <= MOST_NAMES);
    assert_eq!(Announcement::decode(said.encode().as_bytes()), Some(said));
});
