//! The only unsafe code of lameduck: what neither std nor rustix offers safely.
//!
//! Signal masks are plain `u64`s, bit n-1 for signal n, as the kernel has them: the C library's own calls refuse to touch
//! signals 32 and 33, and what was inherited must reach the child unchanged.
#![expect(unsafe_code, reason = "the one module that may: see the reason beside each block")]

use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::AtomicU64;

use crate::signal::{HIGHEST, Signal};

/// Every signal. KILL and STOP are in it; the kernel ignores them there (sigprocmask(2)).
pub const ALL_SIGNALS: u64 = u64::MAX;

/// The size of a kernel signal set, in bytes.
const SET_BYTES: usize = size_of::<u64>();

mod entry {
    //! The program's first instructions: block every signal, keep the mask that was inherited, go on to the C library.
    //!
    //! As PID 1 of a namespace, a signal with its default action is dropped unless it is blocked (kernel/signal.c,
    //! `sig_task_ignored`), so a TERM that arrives before the first `sigprocmask` is lost for good. Nothing can run earlier
    //! than the ELF entry point; in a static program nothing else does.

    #[cfg(target_arch = "x86_64")]
    std::arch::global_asm!(
        ".pushsection .text.lameduck_start, \"ax\", @progbits",
        ".globl lameduck_start",
        ".type lameduck_start, @function",
        "lameduck_start:",
        // rt_sigprocmask(SIG_BLOCK, &all, below the stack pointer, 8). rdx holds the loader's exit function (psABI 3.4.1).
        "mov r12, rdx",
        "mov eax, 14",
        "xor edi, edi",
        "lea rsi, [rip + lameduck_all_signals]",
        "lea rdx, [rsp - 64]",
        "mov r10d, 8",
        "syscall",
        "mov rax, [rsp - 64]",
        "mov [rip + lameduck_inherited_mask], rax",
        "mov byte ptr [rip + lameduck_mask_taken], 1",
        "mov rdx, r12",
        "xor r12d, r12d",
        "jmp _start",
        ".size lameduck_start, . - lameduck_start",
        // Beside the code, so that the first instructions touch one page.
        ".balign 8",
        "lameduck_all_signals: .quad -1",
        ".popsection",
    );

    #[cfg(target_arch = "aarch64")]
    std::arch::global_asm!(
        ".pushsection .text.lameduck_start, \"ax\", @progbits",
        ".globl lameduck_start",
        ".type lameduck_start, @function",
        "lameduck_start:",
        "mov x19, x0", // the loader's exit function
        "mov x8, #135",
        "mov x0, #0",
        "adr x1, lameduck_all_signals",
        "sub x2, sp, #64",
        "mov x3, #8",
        "svc #0",
        "ldur x9, [sp, #-64]",
        "adrp x10, lameduck_inherited_mask",
        "add x10, x10, :lo12:lameduck_inherited_mask",
        "str x9, [x10]",
        "mov w9, #1",
        "adrp x10, lameduck_mask_taken",
        "add x10, x10, :lo12:lameduck_mask_taken",
        "strb w9, [x10]",
        "mov x0, x19",
        "b _start",
        ".size lameduck_start, . - lameduck_start",
        ".balign 8",
        "lameduck_all_signals: .quad -1",
        ".popsection",
    );

    std::arch::global_asm!(
        ".pushsection .data.lameduck_inherited_mask, \"aw\", @progbits",
        ".globl lameduck_inherited_mask",
        ".balign 8",
        "lameduck_inherited_mask: .quad 0",
        ".globl lameduck_mask_taken",
        "lameduck_mask_taken: .byte 0",
        ".popsection",
    );

    unsafe extern "C" {
        pub static lameduck_inherited_mask: u64;
        pub static lameduck_mask_taken: u8;
    }
}

/// Blocks every signal and returns the mask the program was started with.
///
/// Where the entry point has done so already (see [`entry`]) this only reads what it kept.
pub fn block_all_signals() -> u64 {
    // SAFETY: both are written once, before any other code of the program, and never again.
    let (taken, kept) = unsafe { (entry::lameduck_mask_taken, entry::lameduck_inherited_mask) };
    let before = set_signal_mask(ALL_SIGNALS);
    if taken == 1 { kept } else { before }
}

/// Sets the signal mask of this thread; returns the one before.
pub fn set_signal_mask(mask: u64) -> u64 {
    let mut before = 0u64;
    // SAFETY: both pointers are to live u64s, and the size says so. With these arguments the call cannot fail.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            ptr::from_ref(&mask),
            ptr::from_mut(&mut before),
            SET_BYTES,
        );
    }
    before
}

/// A descriptor from which the signals in `mask` are read (signalfd(2)).
pub fn signalfd(mask: u64) -> io::Result<OwnedFd> {
    // SAFETY: the pointer is to a live u64 and the size says so.
    let fd = unsafe {
        libc::syscall(libc::SYS_signalfd4, -1, ptr::from_ref(&mask), SET_BYTES, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    owned(fd as RawFd)
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor to us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Size of one record read from a signalfd (signalfd(2)).
pub const SIGNALFD_RECORD: usize = 128;

/// A signal read from a signalfd: which, and the sender's pid (0 where the kernel or another namespace sent it).
pub fn signalfd_record(record: &[u8; SIGNALFD_RECORD]) -> Option<(Signal, u32)> {
    let word = |at: usize| u32::from_ne_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    Some((Signal::new(u8::try_from(word(0)).ok()?)?, word(12)))
}

/// Waits for a signal on a descriptor of [`signalfd`].
pub fn next_signal(signals: BorrowedFd<'_>) -> io::Result<Signal> {
    let mut record = [0; SIGNALFD_RECORD];
    loop {
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(signals, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut fds, None);
        match rustix::io::read(signals, &mut record) {
            Ok(SIGNALFD_RECORD) => {
                if let Some((signal, _)) = signalfd_record(&record) {
                    return Ok(signal);
                }
            }
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Dispositions a program may inherit: by signal number, whether it was ignored.
pub type Ignored = [bool; HIGHEST as usize + 1];

/// Sets a signal's disposition to its default action or to "ignored"; returns whether it was ignored before.
pub fn set_ignored(signal: Signal, ignored: bool) -> io::Result<bool> {
    // SAFETY: an all-zero sigaction is a valid one: SIG_DFL, empty mask, no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: both point to live sigactions; neither installs a handler, so no code of ours runs from a signal.
    let done = unsafe { libc::sigaction(c_int::from(signal.number()), &raw const action, &raw mut before) };
    if done == 0 { Ok(before.sa_sigaction == libc::SIG_IGN) } else { Err(io::Error::last_os_error()) }
}

/// A command ready for exec: no allocation is needed to run it.
pub struct Command {
    words: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Command {
    /// Prepares a command line. `None` if it is empty or a word has a NUL byte in it.
    pub fn new<S: AsRef<OsStr>>(words: &[S]) -> Option<Command> {
        let words: Vec<CString> =
            words.iter().map(|word| CString::new(word.as_ref().as_bytes())).collect::<Result<_, _>>().ok()?;
        let mut pointers: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).collect();
        pointers.push(ptr::null());
        (!words.is_empty()).then_some(Command { words, pointers })
    }

    /// The program's name.
    pub fn program(&self) -> &CStr {
        &self.words[0]
    }

    /// Replaces this process (execvp(3): searched in `PATH`, environment kept). Only returns on failure.
    pub fn exec(&self) -> io::Error {
        // SAFETY: `pointers` ends with NULL and points into `words`, which we keep alive and unmoved.
        unsafe { libc::execvp(self.pointers[0], self.pointers.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Where a child stands towards sessions, process groups and the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// A session of its own, and the terminal on standard input, if there is one, becomes its controlling terminal.
    Own,
    /// A process group of its own.
    Group,
    /// A process group of its own, in the background: a helper.
    Background,
    /// lameduck's own group.
    Shared,
}

/// What a child is started with.
pub struct Start<'a> {
    /// The command.
    pub command: &'a Command,
    /// Its signal mask.
    pub mask: u64,
    /// Whether SIGCHLD was ignored when lameduck started.
    pub ignore_chld: bool,
    /// Its session.
    pub session: Session,
    /// Whether its group takes the foreground of the terminal: see [`has_foreground`].
    pub foreground: bool,
    /// Where it starts, instead of our directory, if that can be entered.
    pub directory: Option<&'a CStr>,
    /// A descriptor for its standard output and error, instead of ours.
    pub output: Option<BorrowedFd<'a>>,
    /// Descriptors to hand to it, and their numbers there: at most [`MOST_HANDED`], none as high as that.
    pub hand: &'a [(BorrowedFd<'a>, RawFd)],
    /// Closed by a successful exec; a failed one writes its step and errno first.
    pub status: BorrowedFd<'a>,
}

/// The most descriptors handed to a child, and above their numbers there.
pub const MOST_HANDED: usize = 64;

/// The step at which a child failed, as written to [`Start::status`].
pub const STEP_SETSID: u8 = 1;
/// exec failed.
pub const STEP_EXEC: u8 = 2;

/// Starts a child; returns its pid.
pub fn spawn(start: &Start<'_>) -> io::Result<rustix::process::Pid> {
    // SAFETY: the program has one thread, so no lock can be held by a thread that the child lacks; the child calls only
    // async-signal-safe functions until it execs or exits.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => child(start),
        pid => rustix::process::Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// The child, between fork and exec.
fn child(start: &Start<'_>) -> ! {
    let mut report_to = start.status.as_raw_fd();
    let fail = |step: u8, report_to: RawFd| -> ! {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0).to_ne_bytes();
        let message = [step, errno[0], errno[1], errno[2], errno[3]];
        // SAFETY: plain system calls on a live buffer, then _exit, which runs nothing of ours.
        unsafe {
            libc::write(report_to, message.as_ptr().cast(), message.len());
            libc::_exit(127);
        }
    };
    // SAFETY (all blocks below): async-signal-safe system calls on plain integers.
    match start.session {
        Session::Own => {
            if unsafe { libc::setsid() } == -1 {
                fail(STEP_SETSID, report_to);
            }
            // No terminal, or one of somebody else: then there is no job control to hand on.
            unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) };
        }
        Session::Group => {
            unsafe { libc::setpgid(0, 0) };
            if start.foreground {
                // Blocked SIGTTOU lets a background process do this (tcsetpgrp(3)).
                unsafe { libc::tcsetpgrp(libc::STDIN_FILENO, libc::getpgrp()) };
            }
        }
        Session::Background => {
            unsafe { libc::setpgid(0, 0) };
        }
        Session::Shared => {}
    }
    if let Some(directory) = start.directory {
        unsafe { libc::chdir(directory.as_ptr()) };
    }
    if let Some(output) = start.output {
        unsafe { libc::dup2(output.as_raw_fd(), libc::STDOUT_FILENO) };
        unsafe { libc::dup2(output.as_raw_fd(), libc::STDERR_FILENO) };
    }
    if !start.hand.is_empty() {
        // Out of the way first, each above all numbers that are handed out, so that none is overwritten by another.
        let above = MOST_HANDED as c_int;
        report_to = unsafe { libc::fcntl(report_to, libc::F_DUPFD_CLOEXEC, above) };
        let mut moved = [-1; MOST_HANDED];
        for (place, (fd, _)) in moved.iter_mut().zip(start.hand) {
            *place = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above) };
        }
        for (fd, (_, number)) in moved.iter().zip(start.hand) {
            unsafe { libc::dup2(*fd, *number) };
        }
    }
    if start.ignore_chld {
        let _ = set_ignored(Signal::CHLD, true);
    }
    set_signal_mask(start.mask);
    let _ = start.command.exec();
    fail(STEP_EXEC, report_to)
}

/// Sets a variable of this process, and so of every child to come.
pub fn set_variable(name: &str, value: &str) {
    // SAFETY: the program has one thread, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var(name, value) };
}

/// A page of memory to share with a child, with the descriptor by which it is handed on (`memfd_create(2)`).
pub fn shared_page() -> io::Result<(OwnedFd, &'static SharedWords)> {
    // SAFETY: a literal and plain integers.
    let fd = owned(unsafe { libc::memfd_create(c"lameduck".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) })?;
    // SAFETY: plain integers. Sealed, nobody can shrink it under us, which would end us by SIGBUS.
    let done = unsafe {
        libc::ftruncate(fd.as_raw_fd(), size_of::<SharedWords>() as libc::off_t) == 0
            && libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW) == 0
    };
    if !done {
        return Err(io::Error::last_os_error());
    }
    let words = map_shared(&fd)?;
    Ok((fd, words))
}

/// The words of a shared page.
pub type SharedWords = [AtomicU64; lameduck_core::front::WORDS];

/// Maps a page that was made by [`shared_page`], for good.
pub fn map_shared(fd: &OwnedFd) -> io::Result<&'static SharedWords> {
    // SAFETY: fcntl only reads the seals of the file.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    let size = rustix::fs::fstat(fd)?.st_size;
    if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 || size < size_of::<SharedWords>() as i64 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the page that lameduck shares with its front"));
    }
    // SAFETY: a new mapping at an address of the kernel's choice, of a file at least as long that can not shrink.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<SharedWords>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: mapped, aligned to a page, of this size, never unmapped; zeros are valid words, and whoever else has the page
    // changes it by whole words too.
    Ok(unsafe { &*page.cast::<SharedWords>() })
}

/// Opens `/dev/null` where standard input, output or error is closed, so that no descriptor of ours gets their numbers. A
/// child finds them closed, as we did.
pub fn fill_standard_descriptors() {
    for fd in libc::STDIN_FILENO..=libc::STDERR_FILENO {
        // SAFETY: plain integers and a literal. The lowest free number is the one just found closed; it stays open for good.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) < 0 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            }
        }
    }
}

/// Closes descriptors that this process was started with and does not need.
pub fn close_inherited(descriptors: &[RawFd]) {
    for fd in descriptors {
        // SAFETY: they were open before any descriptor of ours, so no owner in this program has them.
        unsafe { libc::close(*fd) };
    }
}

/// Takes ownership of a descriptor handed down by number.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl only looks whether it is open.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the parent handed it to this process alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether this process has the foreground of the terminal on standard input, if there is one. Only who has it may hand it
/// on: in a shell's background it is not ours to take.
pub fn has_foreground() -> bool {
    // SAFETY: plain integers.
    unsafe { libc::tcgetpgrp(libc::STDIN_FILENO) == libc::getpgrp() }
}

/// Gives up the controlling terminal, so that a child's session can take it (`tty_ioctl(4)`, `TIOCNOTTY`). Returns whether
/// there was one.
pub fn give_up_terminal() -> bool {
    // SAFETY: takes no argument.
    unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCNOTTY) == 0 }
}

/// Sends a signal to a process group, or to a process where `group` is false.
pub fn kill(pid: rustix::process::Pid, group: bool, signal: Signal) -> io::Result<()> {
    let target = if group { -pid.as_raw_nonzero().get() } else { pid.as_raw_nonzero().get() };
    // SAFETY: plain integers.
    let done = unsafe { libc::kill(target, c_int::from(signal.number())) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal to the parent.
pub fn kill_parent(signal: Signal) -> io::Result<()> {
    let parent = rustix::process::getppid().ok_or(io::ErrorKind::NotFound)?;
    kill(parent, false, signal)
}

/// Sends a signal to every process of this pid namespace but this one, which must be its PID 1 (kill(2), pid -1).
pub fn kill_everyone(signal: Signal) {
    // SAFETY: plain integers. As PID 1, the processes reached are this container's; they end with it anyway.
    unsafe { libc::kill(-1, c_int::from(signal.number())) };
}

/// Sends a signal to the process behind a pidfd: never to a process that has its number since (`pidfd_send_signal(2)`).
pub fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: a descriptor we hold, and a null siginfo, which means "as kill(2)".
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            c_int::from(signal.number()),
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The user and the pid (0: of another pid namespace) at the other end of a unix socket (unix(7), `SO_PEERCRED`).
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<(u32, i32)> {
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the pointers are to a live ucred and its length.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            ptr::from_mut(&mut cred).cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok((cred.uid, cred.pid)) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel say of each datagram who sent it (unix(7), `SO_PASSCRED`).
pub fn want_credentials(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: the pointer is to a live integer of the length given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            ptr::from_ref(&on).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A datagram that was received.
pub struct Datagram {
    /// Its length; of a longer one than fits, what fitted.
    pub length: usize,
    /// The abstract name that it was sent from; empty where there is none.
    pub from: Vec<u8>,
    /// The sender's pid (0: of another pid namespace).
    pub pid: i32,
}

/// Receives a datagram from a unix socket with [`want_credentials`], without waiting. Descriptors that come with it are closed by
/// the kernel: there is room for the credentials alone (unix(7), `MSG_CTRUNC`).
pub fn receive_with_credentials(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Datagram> {
    #[repr(align(8))]
    struct Control([u8; 32]);
    // CMSG_SPACE of a struct ucred: a header and twelve bytes, aligned.
    let mut control = Control([0; 32]);
    // SAFETY: all-zero sockaddr_un and msghdr are valid ones.
    let (mut from, mut message): (libc::sockaddr_un, libc::msghdr) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    message.msg_name = ptr::from_mut(&mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: every pointer in the header is to something live of the length given beside it.
    let length =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut pid = -1;
    // SAFETY: the kernel filled the header in; CMSG_FIRSTHDR is null or points into `control`.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if !first.is_null() {
        // SAFETY: not null, so a whole header is there, aligned as cmsghdr is.
        let (level, kind, size) = unsafe { ((*first).cmsg_level, (*first).cmsg_type, (*first).cmsg_len as usize) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_CREDENTIALS && size >= 16 + size_of::<libc::ucred>() {
            // SAFETY: the length says that a whole ucred follows the header; it need not be aligned to be read so.
            pid = unsafe { ptr::read_unaligned(libc::CMSG_DATA(first).cast::<libc::ucred>()) }.pid;
        }
    }
    let start = std::mem::offset_of!(libc::sockaddr_un, sun_path);
    let name = (message.msg_namelen as usize).saturating_sub(start).min(from.sun_path.len());
    // An abstract name begins with a NUL.
    let from: Vec<u8> = match from.sun_path[..name].split_first() {
        Some((0, name)) => name.iter().map(|byte| *byte as u8).collect(),
        Some(_) | None => Vec::new(),
    };
    Ok(Datagram { length, from, pid })
}

/// Sets the signal this process gets when its parent ends (`PR_SET_PDEATHSIG`, prctl(2)).
pub fn set_parent_death_signal(signal: Signal) -> io::Result<()> {
    // SAFETY: plain integers.
    let done = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::c_ulong::from(signal.number())) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A netlink socket for `sock_diag(7)`, subscribed to the multicast `groups` (0: none).
pub fn sock_diag_socket(groups: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers.
    let fd = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            libc::NETLINK_SOCK_DIAG,
        )
    };
    let fd = owned(fd)?;
    // SAFETY: an all-zero sockaddr_nl is a valid one.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = groups;
    // SAFETY: the pointer is to a live sockaddr_nl of the length given.
    let done = unsafe {
        libc::bind(fd.as_raw_fd(), ptr::from_ref(&address).cast(), size_of::<libc::sockaddr_nl>() as libc::socklen_t)
    };
    if done == 0 { Ok(fd) } else { Err(io::Error::last_os_error()) }
}

/// Lets only messages about sockets with these local ports through to a [`sock_diag_socket`]: a busy neighbour in the same
/// network namespace would fill its buffer otherwise. A classic BPF program (socket(7), `SO_ATTACH_FILTER`).
pub fn filter_ports(socket: BorrowedFd<'_>, ports: &[u16]) -> io::Result<()> {
    /// Where the local port stands in a message: after the netlink header and four bytes of `struct inet_diag_msg`.
    const LOCAL_PORT: u32 = 16 + 4;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // The jumps reach 255 instructions far; more ports than that are no app's.
    let ports = &ports[..ports.len().min(200)];
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, LOCAL_PORT)];
    for (n, port) in ports.iter().enumerate() {
        let to_accept = (ports.len() - n) as u8;
        let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        program.push(libc::sock_filter { code, jt: to_accept, jf: 0, k: u32::from(*port) });
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, 0));
    program.push(statement(libc::BPF_RET | libc::BPF_K, u32::MAX));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the pointer is to a live sock_fprog that names `program` with its length; the kernel copies both.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            ptr::from_ref(&filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
