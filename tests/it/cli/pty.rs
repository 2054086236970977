//! The program on a terminal that we hold the other end of.

use core::time::Duration;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use super::emulator::Emulator;
use super::support::PROGRAM;

/// Longest wait for words that have to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal with the program on it.
pub(super) struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// Everything that was ever shown.
    shown: Vec<u8>,
    /// How much of it was looked at.
    seen: usize,
    /// What it looks like.
    emulator: Emulator,
    /// Its settings before the program came.
    before: Termios,
}

impl Terminal {
    /// Starts the program with `args`. It leads a session whose terminal this is (`setsid`, of
    /// util-linux, becomes the program), so that Ctrl-C reaches it.
    pub(super) fn start(args: &[&str]) -> Self {
        let mut command = Command::new("setsid");
        command.args(["--ctty", PROGRAM]).args(args);
        Self::of(command)
    }

    /// Starts `command`, which is the one to make the terminal its own.
    pub(super) fn of(mut command: Command) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = || open(&name, flags, Mode::empty()).unwrap();
        let before = tcgetattr(&master).unwrap();
        let child =
            command.stdin(terminal()).stdout(terminal()).stderr(terminal()).spawn().unwrap();
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of a terminal is an error, not an end of file.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let _ = sender.send(bytes[..count].to_vec());
            }
        });
        let emulator = Emulator::new(size.ws_col, size.ws_row);
        Self { child, keyboard, screen, shown: Vec::new(), seen: 0, emulator, before }
    }

    /// Types `text` and the Enter key.
    pub(super) fn line(&mut self, text: &str) {
        self.keys(format!("{text}\n").as_bytes());
    }

    /// Types bytes: 3 is Ctrl-C, 4 is Ctrl-D.
    pub(super) fn keys(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// What is shown up to and including `words`, from where the last call ended.
    pub(super) fn expect(&mut self, words: &str) -> String {
        let start = Instant::now();
        loop {
            let fresh = String::from_utf8_lossy(&self.shown[self.seen..]).into_owned();
            if let Some(place) = fresh.find(words) {
                let end = place + words.len();
                // A character cut at the border of two reads is still on its way, after the words.
                self.seen += end;
                return fresh[..end].to_owned();
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.show(&bytes),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no `{words}` in: {fresh:?}")
                }
            }
        }
    }

    fn show(&mut self, bytes: &[u8]) {
        self.emulator.feed(bytes);
        self.shown.extend(bytes);
    }

    /// Waits until the screen is as `is_so` wants it.
    #[track_caller]
    pub(super) fn wait_until(&mut self, what: &str, is_so: impl Fn(&Emulator) -> bool) {
        let start = Instant::now();
        while !is_so(&self.emulator) {
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.show(&bytes),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!(
                        "not {what}:\n{}\n{:?}",
                        self.emulator.text(),
                        self.emulator.changed_modes()
                    )
                }
            }
        }
    }

    /// Waits for `words` on the screen.
    #[track_caller]
    pub(super) fn wait_for(&mut self, words: &str) {
        self.wait_until(words, |screen| screen.text().contains(words));
    }

    /// Looks at what is shown for `time`.
    pub(super) fn watch(&mut self, time: Duration) {
        let start = Instant::now();
        while let Ok(bytes) = self.screen.recv_timeout(time.saturating_sub(start.elapsed())) {
            self.show(&bytes);
        }
    }

    /// What the terminal looks like.
    pub(super) fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// Everything that was ever shown.
    pub(super) fn shown(&self) -> &[u8] {
        &self.shown
    }

    /// Gives the terminal another size.
    pub(super) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).unwrap();
    }

    /// What differs from the settings that the terminal had before the program came; empty when
    /// nothing does.
    pub(super) fn changed_settings(&self) -> String {
        let now = tcgetattr(&self.keyboard).unwrap();
        let [before, now] = [&self.before, &now].map(|settings| format!("{settings:?}"));
        if before == now { String::new() } else { format!("{before}\n{now}") }
    }

    /// Waits for the program's end: its exit code and everything it showed.
    pub(super) fn end(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "does not end");
            thread::sleep(Duration::from_millis(2));
        };
        let rest: Vec<u8> = self.screen.iter().flatten().collect();
        self.show(&rest);
        (status.code(), String::from_utf8(core::mem::take(&mut self.shown)).unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Of a test that failed; one that went well has waited for the end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
