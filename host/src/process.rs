//! What this process asks the system about itself: its end, its session, its group.

#![allow(unsafe_code, reason = "functions of the C library")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::parent_id;
use std::sync::OnceLock;

/// What [`at_exit`] was given.
static AT_EXIT: OnceLock<fn()> = OnceLock::new();

/// Has `run` called by `std::process::exit` and by `exit` of any library, on the thread that calls
/// it, while other threads go on; also at the end of `main`. Not by `_exit`, `abort` or a signal.
///
/// Returns whether that will happen: only the first `run` of a program counts. A panic in it ends
/// the program at once.
pub fn at_exit(run: fn()) -> bool {
    extern "C" fn exits() {
        if let Some(run) = AT_EXIT.get() {
            run();
        }
    }
    // SAFETY: `exits` has the signature that `atexit` asks for, lives as long as the program, and
    // cannot unwind: `extern "C"` turns a panic into an abort.
    AT_EXIT.set(run).is_ok() && unsafe { libc::atexit(exits) } == 0
}

/// Whether somebody who started this process could continue it after a stop: a group whose parent
/// is in another session is never continued by anybody.
///
/// In a container the leader of a session or a group may be a process that cannot be seen from
/// inside; the system then says 0 (`pid_namespaces(7)`), which is a number like any other here.
pub fn can_be_continued() -> bool {
    let session_of = |process| {
        // SAFETY: touches no memory. Fails with -1 where there is no such process (any more).
        unsafe { libc::getsid(process) }
    };
    // To the system 0 means this process, so a parent outside the container is left out.
    let parent = i32::try_from(parent_id()).ok().filter(|&parent| parent != 0);
    parent.is_some_and(|parent| session_of(parent) == session_of(0))
}

/// Whether keys of `terminal` come to this process's group. A terminal that does not control this
/// process knows no foreground: that counts as one.
pub fn is_in_foreground(terminal: BorrowedFd<'_>) -> bool {
    // SAFETY: the descriptor is open as long as it is borrowed. Fails with -1.
    let front = unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) };
    // SAFETY: touches no memory and cannot fail.
    front == -1 || front == unsafe { libc::getpgrp() }
}
