//! Runs the program and says what came of it.

use core::fmt::{self, Write as _};
use core::time::Duration;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

/// The program as it ships.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tercet-under-test");

/// Time after which a run counts as hanging. Nothing here takes a tenth of it.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// A story short enough for a test; `--seed` or `--greedy` makes it reproducible.
pub(crate) const STORY: &str = "Tell me a story about a red balloon.";

/// One run of the program, being prepared.
#[derive(Debug)]
pub(crate) struct Tercet {
    command: Command,
    stdin: Option<Vec<u8>>,
}

/// The program with `args`; standard input is empty, as from `/dev/null`.
pub(crate) fn tercet<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Tercet {
    let mut command = Command::new(PROGRAM);
    command.arg0("tercet").args(args);
    Tercet::of(command)
}

/// `script` run by `sh`, which finds the program as `$TERCET`.
pub(crate) fn shell(script: &str) -> Tercet {
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("TERCET", PROGRAM);
    Tercet::of(command)
}

impl Tercet {
    fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, stdin: None }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.command.stdin(Stdio::piped());
        self.stdin = Some(bytes.into());
        self
    }

    pub(crate) fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout);
        self
    }

    /// Starts it, with `stdin` already on its way.
    pub(crate) fn spawn(mut self) -> Child {
        let mut child = self.command.spawn().unwrap();
        if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), self.stdin) {
            // A program that does not read to the end is what some tests are about.
            thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        child
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Ran {
        finish(self.spawn())
    }

    /// Runs it to its end, which has to be a good one.
    pub(crate) fn succeed(self) -> Ran {
        let ran = self.run();
        assert_eq!(ran.code, Some(0), "{ran}");
        ran
    }

    /// Runs it to the failure `code`: nothing on stdout, and on stderr one sentence that contains
    /// every one of `words`, and one hint.
    pub(crate) fn fail(self, code: i32, words: &[&str]) -> Ran {
        let ran = self.run();
        assert_eq!(ran.code, Some(code), "{ran}");
        assert!(ran.stdout.is_empty(), "a failure leaves stdout alone: {ran}");
        ran.assert_explained(words);
        ran
    }
}

/// Waits for `child`, reading what it writes.
pub(crate) fn finish(mut child: Child) -> Ran {
    fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            bytes
        })
    }
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > HANGS_AFTER {
            child.kill().unwrap();
            child.wait().unwrap();
            let stderr = String::from_utf8_lossy(&stderr.join().unwrap()).into_owned();
            panic!("hangs; it had said: {stderr}");
        }
        thread::sleep(Duration::from_millis(2));
    };
    Ran {
        code: status.code(),
        signal: status.signal(),
        stdout: stdout.join().unwrap(),
        stderr: String::from_utf8(stderr.join().unwrap()).unwrap(),
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    /// What it answered, as text.
    pub(crate) fn text(&self) -> &str {
        core::str::from_utf8(&self.stdout).unwrap()
    }

    /// What it answered, as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// That stderr is one error, with `words`, and one hint, without control characters.
    pub(crate) fn assert_explained(&self, words: &[&str]) {
        let lines: Vec<_> = self.stderr.trim_start_matches('\n').lines().collect();
        let [error, hint] = lines[..] else { panic!("not an error and a hint: {self}") };
        let what = error.strip_prefix("tercet: error: ");
        let hint = hint.strip_prefix("  hint: ");
        assert!(what.is_some_and(|what| what.len() > 5), "{self}");
        assert!(hint.is_some_and(|hint| hint.len() > 5), "{self}");
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {self}");
        }
        assert!(!self.stderr.contains(|c: char| c.is_control() && c != '\n'), "{self:?}");
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut stdout = String::from_utf8_lossy(&self.stdout).into_owned();
        if let Some((end, _)) = stdout.char_indices().nth(2000) {
            stdout.truncate(end);
            let _ = write!(stdout, "... ({} bytes)", self.stdout.len());
        }
        let Self { code, signal, stderr, .. } = self;
        write!(f, "code {code:?}, signal {signal:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// `path` as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
