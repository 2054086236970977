//! A panic in any thread gives the terminal back first, then says what happened, then ends the
//! program with exit code 70.
//!
//! A thread that panics leaves what it shared with others in an unknown state, so that a chat whose
//! engine has panicked is over, wherever the panic was. The message is untrusted like all text: a
//! panic quotes what it stumbled over.
//!
//! A call of `exit`, by whomever, gives the terminal back, too.

use core::time::Duration;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::stderr;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::Once;
use std::thread;

use tercet_host::error::ExitCode;

use super::{hub, tty};
use crate::clean::CleanWriter;

/// How long the program may take to end by itself.
const GRACE: Duration = Duration::from_secs(3);

/// Makes panics and `exit` aware of the screen. Where none is up, they do what they did before.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Where that is refused, the watcher is left.
        let _ = tercet_host::process::at_exit(|| {
            if let Some(tty) = tty::current() {
                tty.abandon();
            }
        });
        let before = take_hook();
        set_hook(Box::new(move |panic| match tty::current() {
            // Turned into an error by whoever expects it.
            Some(_) if tercet_host::text::expects_panic() => {}
            Some(tty) => {
                end_soon();
                tty.speak(|| {
                    tty.abandon();
                    say(panic);
                });
                if let Some(hub) = hub::get() {
                    hub.wake();
                }
            }
            None => before(panic),
        }));
    });
}

/// What the standard hook says, cleaned.
fn say(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let text = format!("thread '{}' {panic}\n", thread.name().unwrap_or("<unnamed>"));
    // Nobody is left to be told when that fails.
    let _ = CleanWriter::new(stderr()).write_text(&text);
    // Names of functions take a second to find; the message does not wait for them.
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        let _ = CleanWriter::new(stderr()).write_text(&trace.to_string());
    }
}

/// Ends the program if whoever should is waiting for a thread that is no more.
fn end_soon() {
    let end = || {
        thread::sleep(GRACE);
        signal_hook::low_level::exit(ExitCode::Internal as i32);
    };
    // Without a thread for it, the program still ends when its main thread hears of the panic.
    let _ = thread::Builder::new().name("end".into()).spawn(end);
}
