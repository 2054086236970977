//! What is done when the program calls `exit`, wherever it does so.

#![allow(unsafe_code, reason = "a function of the C library")]

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
