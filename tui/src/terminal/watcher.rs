//! A process that puts the terminal right when the program could not.
//!
//! A program that is killed or aborts runs no code of its own afterwards. So the
//! screen starts a second process of the same program (`__watch`), which holds the terminal and
//! one end of a socket, and sleeps. It learns over the socket when the terminal is taken over and
//! when it was given back. When the other end closes in between, the program is gone: the watcher
//! then restores the settings that it read before, and writes the sequences that undo ours.
//!
//! - It leads a session of its own, so that neither Ctrl-C nor signals to the program's group nor
//!   `kill -9 %1` reach it, and job control does not hold it up; it has a name of its own, so that
//!   `pkill -9 tercet` does not mean it.
//! - The shell hears of the program's end at the same moment, and on a busy machine it may be
//!   faster. Shells restore the settings themselves after a signal, so these are only touched while
//!   they are still raw; a prompt that was written on the alternate screen is lost with it. After
//!   an exit shells keep the settings that they find. So whatever exits restores first: the screen,
//!   `exit` itself (`at_exit`), and the guard of mapped files, which waits for the watcher.
//!   (A parent in between would lose no race. But it would die with the program in
//!   `pkill -9 tercet` and `kill -9 %1`, it would have to pass every signal on, and it would be the
//!   process that users see, trace and signal.)
//! - Input that nobody has read is thrown away: the rest of a paste is not for the shell.
//! - What was written to stderr (`stray.rs`) is shown.
//! - Socket, terminal and that file are its standard streams; it holds nothing else that the
//!   program opened. It ends when the program does. If it cannot be started, the program restores
//!   the terminal itself wherever it can, and that is all.

use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{
    LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr,
};

use super::sequences::{self, Place};
use super::stray::{self, Stray};

/// Argument that makes the program a watcher.
pub const ARGUMENT: &str = "__watch";

/// What it is called in lists of processes.
const NAME: &core::ffi::CStr = c"restore-tty";

/// The terminal is as it was; the watcher's answer to [`DYING`], too.
const LEFT: u8 = b'l';
/// The terminal is about to be taken over.
const FULL: u8 = b'f';
/// The same without the alternate screen.
const INLINE: u8 = b'i';
/// The program is about to end without cleaning up: its signal handler says so, and waits.
const DYING: u8 = tercet_host::checkpoint::LAST_WORD;
/// Nothing is sent any more: there is nobody.
const GONE: u8 = 0;
/// The watcher has read the settings.
const READY: u8 = b'r';

/// Longest wait for a watcher to start. It takes two or three milliseconds.
const START: Duration = Duration::from_millis(500);
/// Longest wait for a watcher to end.
const END: Duration = Duration::from_millis(300);

/// The program's side.
#[derive(Debug)]
pub(super) struct Watcher {
    process: Child,
    socket: UnixStream,
}

impl Watcher {
    /// Starts a watcher of the terminal `tty`, whose settings have not been changed yet, and waits
    /// until it has read them. `stray` is what it shows if it has to restore the terminal.
    pub(super) fn start(tty: BorrowedFd<'_>, stray: Option<&Stray>) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg0(NAME.to_str().unwrap_or_default()).arg(ARGUMENT);
        command.stdin(OwnedFd::from(theirs)).stdout(tty.try_clone_to_owned()?);
        command.stderr(match stray {
            Some(stray) => Stdio::from(stray.file()?),
            None => Stdio::null(),
        });
        let watcher = Self { process: command.spawn()?, socket };
        // Its end of the socket lives in `command`.
        drop(command);
        watcher.socket.set_read_timeout(Some(START))?;
        let mut answer = [0];
        (&watcher.socket).read_exact(&mut answer)?;
        if answer[0] == READY { Ok(watcher) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// From here on the watcher restores the terminal if the program ends.
    pub(super) fn taken(&self, place: Place) {
        self.say(if place == Place::Full { FULL } else { INLINE });
    }

    /// The terminal is as it was.
    pub(super) fn left(&self) {
        self.say(LEFT);
    }

    fn say(&self, word: u8) {
        // A watcher that is gone cannot help, and does not hinder.
        let _ = (&self.socket).write_all(&[word]);
    }

    /// The socket, for a signal handler: see [`tercet_host::checkpoint::before_exit`].
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        let start = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if start.elapsed() > END {
                // Stopped by somebody, or its terminal is; either way it has nothing left to do.
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Whether a program that draws has set the terminal up: no echo, no lines, no keys for signals.
/// Shells that edit a line leave at least the last.
fn is_raw(settings: &Termios) -> bool {
    let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
    !settings.local_modes.intersects(cooked)
}

/// The watcher's side: the whole process.
#[must_use]
pub fn main() -> ExitCode {
    // Everything here may fail without harm: the program was well before it was watched.
    let _ = rustix::process::setsid();
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_name(NAME);
    match watch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn watch() -> io::Result<()> {
    let (socket, terminal, stray) = (stdin(), stdout(), stderr());
    let original = tcgetattr(terminal)?;
    rustix::io::write(socket, &[READY])?;
    let mut taken = None;
    loop {
        let mut word = [0];
        match rustix::io::read(socket, &mut word) {
            Err(Errno::INTR) => continue,
            // Closed, with words of ours unread or without: the program is gone.
            Ok(0) | Err(_) => word[0] = GONE,
            Ok(_) => {}
        }
        match word[0] {
            FULL => taken = Some(Place::Full),
            INLINE => taken = Some(Place::Inline),
            LEFT => taken = None,
            DYING | GONE => {
                if let Some(place) = taken.take() {
                    restore(terminal, &original, place);
                    stray::show(stray, terminal);
                }
                if word[0] == GONE {
                    return Ok(());
                }
                rustix::io::write(socket, &[LEFT])?;
            }
            _ => {}
        }
    }
}

fn restore(terminal: BorrowedFd<'_>, original: &Termios, place: Place) {
    if tcgetattr(terminal).is_ok_and(|settings| is_raw(&settings)) {
        // What nobody has read was meant for the program: keys, reports, the rest of a paste.
        let _ = tcflush(terminal, QueueSelector::IFlush);
        let _ = tcsetattr(terminal, OptionalActions::Now, original);
    }
    stray::write(terminal, sequences::abandon(place).as_bytes());
}
