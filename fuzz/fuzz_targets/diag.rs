//! Whatever bytes come from the netlink socket: read, refused or called malformed, and never more sockets than could fit.
#![no_main]

use lameduck_run::observe::diag;
use libfuzzer_sys::fuzz_target;

/// A netlink header and an `inet_diag_msg`: no socket takes fewer bytes.
const LEAST: usize = 16 + 72;

fuzz_target!(|datagram: &[u8]| {
    let mut sockets = 0;
    let _ = diag::parse(datagram, |socket| {
        sockets += 1;
        assert_eq!(socket.remote, socket.remote.to_canonical(), "IPv4 in IPv6 is IPv4");
    });
    assert!(sockets * LEAST <= datagram.len(), "{sockets} sockets out of {} bytes", datagram.len());
});
