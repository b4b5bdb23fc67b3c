//! Whatever `/proc` says. A process may call itself anything, so `/proc/PID/stat` is input from a stranger.
#![no_main]

use lameduck_run::observe::procfs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let _ = procfs::stat(text);
    let _ = procfs::socket_inode(text);
    if let Ok(text) = std::str::from_utf8(text) {
        for line in text.lines() {
            let _ = procfs::tcp_line(line);
        }
    }
    // The name is the only part that its owner chooses: whatever it is, the fields after it are read right.
    let mut line = b"42 (".to_vec();
    line.extend_from_slice(text);
    line.extend_from_slice(b") S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 10");
    let stat = procfs::stat(&line).expect("a line as the kernel writes it");
    assert_eq!((stat.pid, stat.parent, stat.state, stat.started), (42, 7, b'S', 98765));
});
