//! Signals, on their way to the thread that listens to the terminal.

use core::sync::atomic::{AtomicBool, Ordering};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::{flag, low_level};

use super::Ending;

/// Signals that have arrived, and a socket that says so. Made once: handlers stay.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) wakes: UnixStream,
    wake: UnixStream,
    endings: [(Ending, Arc<AtomicBool>); 4],
    stop: Arc<AtomicBool>,
    continued: Arc<AtomicBool>,
    resized: Arc<AtomicBool>,
    /// Whether no screen is up: signals then do what they do to any program.
    idle: Arc<AtomicBool>,
}

static HUB: OnceLock<Hub> = OnceLock::new();

/// The hub, if there is one.
pub(super) fn get() -> Option<&'static Hub> {
    HUB.get()
}

impl Hub {
    /// Hears signals from now on, for a screen that has just come up.
    pub(super) fn open() -> io::Result<&'static Self> {
        let hub = match HUB.get() {
            Some(hub) => hub,
            None => {
                let fresh = Self::install()?;
                HUB.get_or_init(|| fresh)
            }
        };
        for flag in hub.flags() {
            flag.store(false, Ordering::Relaxed);
        }
        hub.idle.store(false, Ordering::Relaxed);
        Ok(hub)
    }

    /// Signals have their usual meaning again.
    pub(super) fn close(&self) {
        self.idle.store(true, Ordering::Relaxed);
        self.wake();
    }

    fn install() -> io::Result<Self> {
        let (wakes, wake) = UnixStream::pair()?;
        wakes.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let idle = Arc::new(AtomicBool::new(false));
        let hears = |signal, ends: bool| {
            let heard = Arc::new(AtomicBool::new(false));
            // In this order: whoever is woken finds the flag set.
            flag::register(signal, Arc::clone(&heard))?;
            low_level::pipe::register(signal, wake.try_clone()?)?;
            if ends {
                flag::register_conditional_default(signal, Arc::clone(&idle))?;
            }
            Ok::<_, io::Error>(heard)
        };
        let endings = [
            (Ending::HangUp, hears(SIGHUP, true)?),
            // `Signals` says what Ctrl-C means without a screen.
            (Ending::Interrupt, hears(SIGINT, false)?),
            (Ending::Quit, hears(SIGQUIT, true)?),
            (Ending::Terminate, hears(SIGTERM, true)?),
        ];
        let stop = hears(SIGTSTP, true)?;
        let (continued, resized) = (hears(SIGCONT, false)?, hears(SIGWINCH, false)?);
        Ok(Self { wakes, wake, endings, stop, continued, resized, idle })
    }

    fn flags(&self) -> impl Iterator<Item = &AtomicBool> {
        let endings = self.endings.iter().map(|(_, flag)| &**flag);
        endings.chain([&*self.stop, &*self.continued, &*self.resized])
    }

    /// Wakes whoever listens.
    pub(super) fn wake(&self) {
        // A full socket wakes, too.
        let _ = (&self.wake).write(&[0]);
    }

    /// Takes what woke us.
    pub(super) fn drain(&self) {
        while matches!((&self.wakes).read(&mut [0; 64]), Ok(1..)) {}
    }

    /// The ending that was asked for, once.
    pub(super) fn ending(&self) -> Option<Ending> {
        let mut asked = self.endings.iter().filter(|(_, flag)| flag.swap(false, Ordering::Relaxed));
        asked.next().map(|(ending, _)| *ending)
    }

    /// Whether the program should stop (SIGTSTP), once.
    pub(super) fn stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }

    /// Whether the program goes on after a stop, once.
    pub(super) fn continued(&self) -> bool {
        self.continued.swap(false, Ordering::Relaxed)
    }

    /// Whether the terminal has another size, once.
    pub(super) fn resized(&self) -> bool {
        self.resized.swap(false, Ordering::Relaxed)
    }
}
