//! A mapped file that is cut short while in use ends in a sentence, not in a crash.
//!
//! The kernel answers a read past the new end with SIGBUS. There is no way to go on: the bytes are
//! gone. [`install_truncation_guard`] replaces the default death by one with a message and exit
//! code 74, but only for addresses inside our own mappings; any other SIGBUS keeps its meaning.

#![allow(unsafe_code, reason = "a signal handler")]

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
#[cfg(unix)]
use std::os::fd::{AsRawFd, BorrowedFd};

/// Most files watched at a time; files beyond that still work, without the clear exit.
const WATCHED_MAX: usize = 256;

/// Start and length of each watched mapping; length 0 marks a free place.
static WATCHED: [(AtomicUsize, AtomicUsize); WATCHED_MAX] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; WATCHED_MAX];

/// A place in [`WATCHED`], given back on drop.
#[derive(Debug)]
pub(super) struct Watch(Option<usize>);

impl Watch {
    pub(super) fn new(start: usize, length: usize) -> Self {
        for (place, (first, count)) in WATCHED.iter().enumerate() {
            // The length is published last: the handler reads it first.
            if first.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                count.store(length, Ordering::Release);
                return Self(Some(place));
            }
        }
        Self(None)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            WATCHED[place].1.store(0, Ordering::Release);
            WATCHED[place].0.store(0, Ordering::Release);
        }
    }
}

/// What is sent over the socket of `before_exit`.
pub const LAST_WORD: u8 = b'd';

/// Longest wait for an answer to it, in milliseconds.
#[cfg(unix)]
const ANSWER_MS: i32 = 1000;

/// The socket of [`before_exit`], or -1.
#[cfg(unix)]
static TELLS: AtomicI32 = AtomicI32::new(-1);

/// Makes the guard send [`LAST_WORD`] over `socket` before it ends the program, and wait up to a
/// second for one byte of answer: somebody may have a terminal to restore. `None`: nobody.
///
/// The socket stays the caller's, who takes it back with `None` before closing it.
#[cfg(unix)]
pub fn before_exit(socket: Option<BorrowedFd<'_>>) {
    TELLS.store(socket.map_or(-1, |socket| socket.as_raw_fd()), Ordering::Release);
}

/// Exit code of a program whose model file changed under it (`EX_IOERR`).
#[cfg(unix)]
const EXIT_IO: i32 = 74;

/// Makes the truncation of a mapped model file end the program with a message and exit code 74.
///
/// A program's choice, because signal handlers belong to the process: the binary `tercet` calls it,
/// a library user may.
#[cfg(unix)]
pub fn install_truncation_guard() {
    // SAFETY: `action` is a valid zero-initialised `sigaction` (all fields are plain integers or
    // nullable pointers).
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction =
        on_bus_error as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as usize;
    // Not SA_RESETHAND: a second thread that meets the end while the first is in the handler would
    // find the default action, which is death without a word.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `sigemptyset` writes to the mask of the struct above, which lives here.
    unsafe { libc::sigemptyset(&raw mut action.sa_mask) };
    // SAFETY: the handler has the signature that SA_SIGINFO asks for and only calls functions that
    // are allowed in signal handlers.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, core::ptr::null_mut()) };
}

/// No mapping ends in SIGBUS here.
#[cfg(not(unix))]
pub fn install_truncation_guard() {}

#[cfg(unix)]
extern "C" fn on_bus_error(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid `siginfo_t`.
    let info = unsafe { &*info };
    // SAFETY: for SIGBUS the address field of the union is the one that is set.
    let address = unsafe { info.si_addr() } as usize;
    let ours = WATCHED.iter().any(|(first, count)| {
        let count = count.load(Ordering::Acquire);
        let first = first.load(Ordering::Acquire);
        count != 0 && address.wrapping_sub(first) < count
    });
    if ours {
        const MESSAGE: &[u8] = b"\ntercet: error: the model file was cut short while in use\n  \
              hint: start again when whatever is writing it has finished\n";
        // Said once: the threads that come later are ended by the first.
        static SAID: AtomicBool = AtomicBool::new(false);
        while SAID.swap(true, Ordering::AcqRel) {
            // SAFETY: `pause` is allowed in signal handlers; another thread is on its way out.
            unsafe { libc::pause() };
        }
        // SAFETY: `write` is allowed in signal handlers; the buffer is static.
        unsafe { libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
        say_last_word(TELLS.load(Ordering::Acquire));
        // SAFETY: `_exit` is allowed in signal handlers and runs no destructors.
        unsafe { libc::_exit(EXIT_IO) };
    }
    // With the default restored, returning repeats the fault and ends the process as if we had
    // never been here.
    // SAFETY: `signal` is allowed in signal handlers.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

/// Sends [`LAST_WORD`] and waits for the answer; does nothing for a negative `socket`.
#[cfg(unix)]
fn say_last_word(socket: i32) {
    if socket < 0 {
        return;
    }
    let mut word = LAST_WORD;
    // SAFETY: `write` is allowed in signal handlers; the buffer is one byte that lives here. A
    // socket that was closed meanwhile gives an error, and one of another meaning a byte too many:
    // the program ends either way.
    if unsafe { libc::write(socket, (&raw const word).cast(), 1) } != 1 {
        return;
    }
    let mut waits = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is allowed in signal handlers; it gets one descriptor, which lives here.
    if unsafe { libc::poll(&raw mut waits, 1, ANSWER_MS) } == 1 {
        // SAFETY: `read` is allowed in signal handlers; the buffer is one byte that lives here.
        unsafe { libc::read(socket, (&raw mut word).cast(), 1) };
    }
}
