//! Ctrl-C: stops an answer, or ends the program when there is none to stop.

use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::sync::Arc;

use signal_hook::consts::SIGINT;
use tercet_host::error::ExitCode;
use tercet_host::forward::Cancel;

/// What Ctrl-C does at the moment.
#[derive(Debug, Clone)]
pub struct Signals {
    /// Set by Ctrl-C.
    pub cancel: Cancel,
    /// Whether Ctrl-C ends the program.
    exits: Arc<AtomicBool>,
}

impl Signals {
    /// Takes Ctrl-C over; at first it ends the program with exit code 130.
    ///
    /// # Errors
    ///
    /// When the system refuses the handler.
    pub fn install() -> io::Result<Self> {
        let signals = Self { cancel: Cancel::default(), exits: Arc::new(AtomicBool::new(true)) };
        let code = ExitCode::Interrupted as i32;
        let exits = Arc::clone(&signals.exits);
        signal_hook::flag::register_conditional_shutdown(SIGINT, code, exits)?;
        signal_hook::flag::register(SIGINT, signals.cancel.flag())?;
        Ok(signals)
    }

    /// The same without the system: only [`Signals::cancel`] stops anything.
    #[must_use]
    pub fn detached() -> Self {
        Self { cancel: Cancel::default(), exits: Arc::new(AtomicBool::new(true)) }
    }

    /// Lets Ctrl-C stop `answer` instead of the program while it runs.
    pub fn during<R>(&self, answer: impl FnOnce() -> R) -> R {
        self.cancel.clear();
        let _held = self.hold();
        answer()
    }

    /// Ctrl-C does not end the program until the result is dropped.
    #[must_use]
    pub fn hold(&self) -> Held {
        let before = self.exits.swap(false, Ordering::Relaxed);
        Held { exits: Arc::clone(&self.exits), before }
    }
}

/// While it lives, Ctrl-C does not end the program.
#[derive(Debug)]
pub struct Held {
    exits: Arc<AtomicBool>,
    before: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.exits.store(self.before, Ordering::Relaxed);
    }
}
