//! The terminal, taken over for the chat and whole again after every way to end.
//!
//! [`Screen::enter`] takes the terminal over: raw mode, the alternate screen unless the chat is
//! inline, bracketed paste, and reports of the mouse where they are wanted. From then on exactly
//! one of these gives it back:
//!
//! | end | by |
//! |---|---|
//! | quit, error | [`Screen`], when it is dropped |
//! | panic in any thread | the panic hook (`panics.rs`), before it says what happened |
//! | SIGHUP, SIGINT, SIGQUIT, SIGTERM | [`Screen`]: they arrive as [`Incoming::Ending`] |
//! | the same when nobody listens any more | the listening thread (`listen.rs`), after 3 s |
//! | Ctrl-Z, SIGTSTP | [`Screen::suspend`]; [`Screen::resume`] takes it over again |
//! | a mapped file that is cut short (SIGBUS) | the watcher, asked by the signal handler |
//! | `exit`, called by whomever | what is registered for it (`panics.rs`) |
//! | abort, SIGSEGV, SIGKILL, anything else | the watcher (`watcher.rs`) |
//!
//! Nothing is drawn after that: every byte goes through one lock, and is dropped where the terminal
//! is not ours.
//!
//! ```no_run
//! use std::sync::mpsc::channel;
//!
//! use ratatui::Terminal;
//! use tercet::failure::Failure;
//! use tercet::signals::Signals;
//! use tercet::terminal::{Incoming, Kind, Options, Place, Screen};
//!
//! # fn main() -> Result<(), Failure> {
//! # let signals = Signals::detached();
//! let kind = Kind::detect();
//! let (sender, incoming) = channel();
//! let tell = move |event| drop(sender.send(event));
//! let options = Options { place: Place::Full, mouse: false, ask: kind.answers };
//! let screen = Screen::enter(options, &signals, tell).map_err(Failure::io)?;
//! let mut terminal = Terminal::new(screen.canvas()).map_err(Failure::io)?;
//! let mut theme = kind.theme(None);
//! for event in incoming {
//!     match event {
//!         Incoming::Background(background) => theme = kind.theme(Some(background)),
//!         Incoming::Suspend => drop(screen.suspend().map_err(Failure::io)?),
//!         Incoming::Resumed => {
//!             screen.resume().map_err(Failure::io)?;
//!             // Inline, make a new `Terminal`: the old one is somewhere above.
//!             terminal.clear().map_err(Failure::io)?;
//!         }
//!         Incoming::Ending(ending) => return Err(Failure::Ended(ending)),
//!         Incoming::Key(_) => return screen.leave().map_err(Failure::io),
//!         _ => {}
//!     }
//!     terminal.draw(|frame| frame.render_widget("Hello", frame.area())).map_err(Failure::io)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What is left out: the keyboard protocols that tell more keys apart. They are state that a
//! program can leave behind like any other, they change what keys of other alphabets say, and no
//! key of the chat needs them.

mod canvas;
mod decode;
mod hub;
mod kind;
mod listen;
mod panics;
mod sequences;
mod stray;
mod tty;
pub mod watcher;

use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossterm::event::{KeyEvent, MouseEvent};
use rustix::process::{Signal, getpid, kill_current_process_group, kill_process};
use tercet_host::error::ExitCode;

pub use canvas::Canvas;
pub use decode::PASTE_BYTES_MAX;
pub use kind::{Background, Colours, Kind};
pub use sequences::{COPY_BYTES_MAX, Place, TooLong, copy_sequence};

use crate::signals::{Held, Signals};
use hub::Hub;
use tty::Tty;

/// How to take the terminal over.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Where to draw.
    pub place: Place,
    /// Whether to take the mouse, whose wheel then scrolls, and which then selects nothing.
    pub mouse: bool,
    /// Whether to ask for the background's colour: see [`Kind::answers`].
    pub ask: bool,
}

/// What the user, the terminal or the system wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A key, pressed or repeated. A lone Escape arrives 25 ms after it was pressed.
    Key(KeyEvent),
    /// Pasted text, whatever it contains; lines end with `\n`. It may hold control characters:
    /// nothing of it is a key.
    Paste(String),
    /// A paste of so many bytes, more than [`PASTE_BYTES_MAX`]: nothing of it was kept.
    PasteTooLong(usize),
    /// A report of the mouse; cells are counted from 0.
    Mouse(MouseEvent),
    /// The terminal may have another size. At most thirty times a second; ratatui asks for the size
    /// whenever it draws, so drawing is enough.
    Resize,
    /// What the terminal says about its background, soon after the start or never.
    Background(Background),
    /// The user or the system wants the program to stop: call [`Screen::suspend`].
    Suspend,
    /// The program goes on after a stop: call [`Screen::resume`] and draw everything anew.
    Resumed,
    /// The program has to end: return from the loop, save, drop the screen and exit with
    /// [`Ending::exit_code`], within 3 seconds.
    Ending(Ending),
}

/// Why the program has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The terminal is gone (SIGHUP).
    HangUp,
    /// SIGINT from elsewhere; Ctrl-C is a key.
    Interrupt,
    /// SIGQUIT.
    Quit,
    /// SIGTERM.
    Terminate,
    /// Another thread panicked. The terminal has been given back and the message been shown.
    Panic,
}

impl Ending {
    /// 128 and the signal's number, or 70.
    #[must_use]
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::HangUp => ExitCode::HungUp,
            Self::Interrupt => ExitCode::Interrupted,
            Self::Quit => ExitCode::Quit,
            Self::Terminate => ExitCode::Terminated,
            Self::Panic => ExitCode::Internal,
        }
    }
}

/// The terminal while it is ours; gives it back when dropped.
#[derive(Debug)]
pub struct Screen {
    tty: Arc<Tty>,
    hub: &'static Hub,
    closed: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
    /// Ctrl-C does not end the program meanwhile.
    _held: Held,
}

impl Screen {
    /// Takes the terminal over. `tell` is called with everything that comes in, on a thread of its
    /// own; it should only pass it on.
    ///
    /// A program in the background stops here, as it should.
    ///
    /// # Errors
    ///
    /// When standard input and output are not one terminal, when it belongs to another job that
    /// does not give it up, or when the system refuses. The terminal is then as it was.
    pub fn enter(
        options: Options,
        signals: &Signals,
        tell: impl FnMut(Incoming) + Send + 'static,
    ) -> io::Result<Self> {
        panics::install();
        let held = signals.hold();
        let hub = Hub::open()?;
        let tty = Tty::open(options).inspect_err(|_| hub.close())?;
        let closed = Arc::new(AtomicBool::new(false));
        let mut screen =
            Self { tty, hub, closed: Arc::clone(&closed), listener: None, _held: held };
        let tty = Arc::clone(&screen.tty);
        let listen = move || listen::listen(&tty, hub, &closed, tell);
        // Dropping `screen` gives the terminal back if this fails.
        screen.listener = Some(thread::Builder::new().name("listen".into()).spawn(listen)?);
        Ok(screen)
    }

    /// What ratatui draws on. One frame is one piece; nothing is shown after the terminal was given
    /// back.
    #[must_use]
    pub fn canvas(&self) -> Canvas {
        Canvas::new(Arc::clone(&self.tty))
    }

    /// Takes the mouse, or lets the terminal have it.
    ///
    /// # Errors
    ///
    /// Those of writing to the terminal.
    pub fn set_mouse(&self, on: bool) -> io::Result<()> {
        self.tty.set_mouse(on)
    }

    /// Puts `text` on the clipboard, if the terminal wants to: see [`copy_sequence`]. Only at the
    /// user's wish.
    ///
    /// # Errors
    ///
    /// Those of writing to the terminal; [`TooLong`], as [`io::ErrorKind::InvalidInput`], for more
    /// than [`COPY_BYTES_MAX`] bytes.
    pub fn copy(&self, text: &str) -> io::Result<()> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        self.tty.write(copy_sequence(text).map_err(invalid)?.as_bytes())
    }

    /// Gives the terminal back and stops the program and its group, as Ctrl-Z does to any program.
    /// Returns when it goes on; [`Incoming::Resumed`] follows, and until then nothing is drawn.
    ///
    /// `false` if there is nobody who could let it go on, so that nothing happened.
    ///
    /// # Errors
    ///
    /// Those of the terminal; the program has not stopped then.
    pub fn suspend(&self) -> io::Result<bool> {
        if !self.tty.can_stop() {
            return Ok(false);
        }
        self.tty.leave()?;
        self.tty.stopping.store(true, Ordering::Release);
        // Whoever runs beside us (a script that started us) stops by the signal that says why; we
        // listen to that one, so ourselves by the one that nobody can listen to.
        kill_current_process_group(Signal::TSTP)?;
        kill_process(getpid(), Signal::STOP)?;
        Ok(true)
    }

    /// Takes the terminal over again after a stop.
    ///
    /// # Errors
    ///
    /// Those of the terminal.
    pub fn resume(&self) -> io::Result<()> {
        self.tty.enter()?;
        // Keys are ours again.
        self.hub.wake();
        Ok(())
    }

    /// Gives the terminal back now, and says what dropping cannot.
    ///
    /// # Errors
    ///
    /// Those of the terminal.
    pub fn leave(mut self) -> io::Result<()> {
        self.close()
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(listener) = self.listener.take() else { return self.tty.close() };
        let left = self.tty.close();
        self.closed.store(true, Ordering::Release);
        self.hub.close();
        // A thread that panicked has been reported.
        let _ = listener.join();
        left
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Whoever wants to know calls `leave`.
        let _ = self.close();
        self.hub.close();
    }
}
