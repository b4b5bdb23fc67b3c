//! The kernel's table of TCP sockets, read at once: by `sock_diag(7)`, else from `/proc/net/tcp{,6}`.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;

use lameduck_core::report::TrafficSource;
use rustix::net::{RecvFlags, SendFlags};

use super::{DATAGRAM, Socket, diag, procfs};
use crate::sys;

/// Sockets kept of one look.
const MOST_SOCKETS: usize = 262_144;

/// The table.
#[derive(Debug, Default)]
pub struct Table {
    diag: Option<OwnedFd>,
    buffer: Vec<u8>,
    /// What was last read.
    pub sockets: Vec<Socket>,
}

impl Table {
    /// Reads the sockets in these states (a mask, bit n for state n; `/proc` gives all of them).
    pub fn read(&mut self, states: u32) -> TrafficSource {
        self.sockets.clear();
        if self.diag.is_none() {
            self.diag = sys::sock_diag_socket(0).ok();
            self.buffer.resize(DATAGRAM, 0);
        }
        if self.dump(diag::INET, states).is_ok() && self.dump(diag::INET6, states).is_ok() {
            return TrafficSource::SockDiag;
        }
        // What is left of a dump that failed must not be read as the next one.
        self.diag = sys::sock_diag_socket(0).ok();
        self.sockets.clear();
        let v4 = self.read_proc("/proc/net/tcp");
        let v6 = self.read_proc("/proc/net/tcp6");
        if v4.is_ok() || v6.is_ok() { TrafficSource::ProcNetTcp } else { TrafficSource::None }
    }

    fn dump(&mut self, family: u8, states: u32) -> io::Result<()> {
        let socket = self.diag.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        rustix::net::send(socket, &diag::dump_request(family, states), SendFlags::empty())?;
        loop {
            // The kernel has the next part ready before this call returns the last, so it never blocks.
            let (length, _) = rustix::net::recv(socket, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT)?;
            let sockets = &mut self.sockets;
            let answer = diag::parse(&self.buffer[..length], |socket| {
                if sockets.len() < MOST_SOCKETS {
                    sockets.push(socket);
                }
            });
            match answer {
                diag::Answer::More => {}
                diag::Answer::Done => return Ok(()),
                // A kernel without IPv6 has no such sockets.
                diag::Answer::Refused(libc::ENOENT) if family == diag::INET6 => return Ok(()),
                diag::Answer::Refused(errno) => return Err(io::Error::from_raw_os_error(errno)),
                diag::Answer::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    fn read_proc(&mut self, path: &str) -> io::Result<()> {
        let file = BufReader::new(fs::File::open(path)?);
        for line in file.lines().take(MOST_SOCKETS) {
            self.sockets.extend(procfs::tcp_line(&line?));
        }
        Ok(())
    }
}
