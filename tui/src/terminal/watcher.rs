//! A process that puts the terminal right when the program could not.
//!
//! A program that is killed, aborts or calls `_exit` runs no code of its own afterwards. So the
//! screen starts a second process of the same program (`__watch`), which holds the terminal and
//! one end of a socket, and sleeps. It learns over the socket when the terminal is taken over and
//! when it was given back. When the other end closes in between, the program is gone: the watcher
//! then restores the settings that it read before, and writes the sequences that undo ours.
//!
//! - It leads a session of its own, so that neither Ctrl-C nor signals to the program's group nor
//!   `kill -9 %1` reach it, and job control does not hold it up; it has a name of its own, so that
//!   `pkill -9 tercet` does not mean it.
//! - The shell may be faster than it. Settings are only restored where they are still raw: a shell
//!   that has prepared the terminal for its prompt is not disturbed.
//! - What others than us write to stderr while the screen is up (a library, the runtime before it
//!   aborts, the guard of mapped files) would be drawn over, and lost with the alternate screen.
//!   stderr is a pipe to the watcher meanwhile, which shows what it got, cleaned, afterwards.
//! - Input that nobody has read is thrown away: the rest of a paste is not for the shell.
//! - Its end of the socket and of the pipe are its standard input and error, so it holds nothing
//!   else of the program's. It ends when the program does. If it cannot be started, the program
//!   restores the terminal itself wherever it can, and that is all.

use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{dup2_stderr, stderr, stdin, stdout};
use rustix::termios::{
    LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr,
};

use super::sequences::{self, Place};
use crate::clean::CleanWriter;

/// Argument that makes the program a watcher.
pub const ARGUMENT: &str = "__watch";

/// What it is called in lists of processes.
const NAME: &core::ffi::CStr = c"restore-tty";

/// The terminal is as it was; sent by the watcher, too, when it has put everything right.
const LEFT: u8 = b'l';
/// The terminal is about to be taken over.
const FULL: u8 = b'f';
/// The same without the alternate screen.
const INLINE: u8 = b'i';
/// The program is about to end without cleaning up: its signal handler says so, and waits.
const DYING: u8 = tercet_host::checkpoint::LAST_WORD;
/// The watcher has read the settings.
const READY: u8 = b'r';

/// Longest wait for a watcher to start. It takes two or three milliseconds.
const START: Duration = Duration::from_millis(500);
/// Longest wait for an answer of the watcher.
const ANSWER: Duration = Duration::from_millis(300);
/// Longest wait for a terminal that does not take what the watcher writes.
const STALLED: Duration = Duration::from_secs(2);
/// Most of what is written to stderr that is kept.
const STRAY_BYTES_MAX: usize = 64 << 10;

/// The program's side.
#[derive(Debug)]
pub(super) struct Watcher {
    process: Child,
    socket: UnixStream,
    /// Our end of stderr's pipe; `None` where stderr is not this terminal.
    stray: Option<OwnedFd>,
    /// stderr as it was, while it is the pipe.
    stderr: Option<OwnedFd>,
}

impl Watcher {
    /// Starts a watcher of the terminal `tty`, whose settings have not been changed yet, and waits
    /// until it has read them. With `stray`, stderr goes to it while the terminal is taken over.
    pub(super) fn start(tty: BorrowedFd<'_>, stray: bool) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg0(NAME.to_str().unwrap_or_default()).arg(ARGUMENT);
        command.stdin(OwnedFd::from(theirs)).stdout(tty.try_clone_to_owned()?);
        command.stderr(Stdio::null());
        let mut ours = None;
        if stray {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            // Better to lose words than to stop somebody who has a lot of them.
            fcntl_setfl(&write, OFlags::NONBLOCK)?;
            command.stderr(read);
            ours = Some(write);
        }
        let process = command.spawn()?;
        let watcher = Self { process, socket, stray: ours, stderr: None };
        // Its ends of the socket and the pipe live in `command`.
        drop(command);
        match watcher.answer(START)? {
            READY => Ok(watcher),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn answer(&self, wait: Duration) -> io::Result<u8> {
        self.socket.set_read_timeout(Some(wait))?;
        let mut answer = [0];
        (&self.socket).read_exact(&mut answer)?;
        Ok(answer[0])
    }

    /// From here on the watcher restores the terminal if the program ends.
    pub(super) fn taken(&mut self, place: Place) {
        let word = if place == Place::Full { FULL } else { INLINE };
        // A watcher that is gone cannot help, and does not hinder.
        let _ = (&self.socket).write_all(&[word]);
        if let (Some(stray), None) = (&self.stray, &self.stderr) {
            self.stderr = stderr().try_clone_to_owned().ok();
            if self.stderr.is_some() {
                let _ = dup2_stderr(stray);
            }
        }
    }

    /// The terminal is as it was. Returns when everything that went to stderr meanwhile is shown.
    pub(super) fn left(&mut self) {
        if let Some(stderr) = self.stderr.take() {
            let _ = dup2_stderr(stderr);
        }
        if (&self.socket).write_all(&[LEFT]).is_ok() {
            let _ = self.answer(ANSWER);
        }
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
            if start.elapsed() > ANSWER {
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
pub(super) fn is_raw(settings: &Termios) -> bool {
    let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
    !settings.local_modes.intersects(cooked)
}

/// The watcher's side: the whole process.
#[must_use]
pub fn main() -> ExitCode {
    // Everything here may fail without harm: the program was well before it was watched.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(NAME);
    match watch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn watch() -> io::Result<()> {
    let terminal = stdout();
    let original = tcgetattr(terminal)?;
    rustix::io::write(stdin(), &[READY])?;
    let mut taken = None;
    let mut stray = Stray { open: true, bytes: Vec::new(), lost: 0 };
    loop {
        let mut all = [
            PollFd::from_borrowed_fd(stdin(), PollFlags::IN),
            PollFd::from_borrowed_fd(stderr(), PollFlags::IN),
        ];
        let count = if stray.open { 2 } else { 1 };
        match poll(&mut all[..count], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if count == 2 && !all[1].revents().is_empty() {
            stray.read();
        }
        if all[0].revents().is_empty() {
            continue;
        }
        let mut word = [0];
        // A socket that was closed with words of ours unread gives an error instead of an end.
        let count = rustix::io::read(stdin(), &mut word).unwrap_or(0);
        match (count, word[0]) {
            (0, _) | (_, DYING) => {
                if let Some(place) = taken.take() {
                    restore(terminal, &original, place);
                }
                stray.show(terminal);
                if count == 0 {
                    return Ok(());
                }
                let _ = rustix::io::write(stdin(), &[LEFT]);
            }
            (_, FULL) => taken = Some(Place::Full),
            (_, INLINE) => taken = Some(Place::Inline),
            (_, LEFT) => {
                taken = None;
                stray.show(terminal);
                let _ = rustix::io::write(stdin(), &[LEFT]);
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
    write(terminal, sequences::leave(place).as_bytes());
    write(terminal, sequences::abandon(place).as_bytes());
}

/// Writes to a terminal that may not be reading.
fn write(terminal: BorrowedFd<'_>, mut bytes: &[u8]) {
    let wait = Timespec { tv_sec: STALLED.as_secs().cast_signed(), tv_nsec: 0 };
    while !bytes.is_empty() {
        let mut ready = [PollFd::from_borrowed_fd(terminal, PollFlags::OUT)];
        match poll(&mut ready, Some(&wait)) {
            Ok(1..) => {}
            Err(rustix::io::Errno::INTR) => continue,
            _ => return,
        }
        match rustix::io::write(terminal, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

/// What was written to stderr while the terminal was taken over.
struct Stray {
    /// Whether more can come.
    open: bool,
    bytes: Vec<u8>,
    /// Bytes that were too many.
    lost: usize,
}

impl Stray {
    fn read(&mut self) {
        let mut bytes = [0; 4096];
        match rustix::io::read(stderr(), &mut bytes) {
            Ok(count @ 1..) => {
                let kept = count.min(STRAY_BYTES_MAX - self.bytes.len());
                self.bytes.extend_from_slice(&bytes[..kept]);
                self.lost += count - kept;
            }
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => self.open = false,
        }
    }

    /// Shows all that has come, including what is still in the pipe, and forgets it.
    fn show(&mut self, terminal: BorrowedFd<'_>) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while self.open {
            let mut ready = [PollFd::from_borrowed_fd(stderr(), PollFlags::IN)];
            match poll(&mut ready, Some(&now)) {
                Ok(1..) => self.read(),
                _ => break,
            }
        }
        let mut clean = Vec::new();
        let text = String::from_utf8_lossy(&self.bytes);
        let _ = CleanWriter::new(&mut clean).write_text(&text); // memory takes everything
        if self.lost > 0 {
            let _ = writeln!(clean, "... and {} bytes more", self.lost);
        }
        write(terminal, &clean);
        self.bytes.clear();
        self.lost = 0;
    }
}
