//! [`History`]: what was typed into the chat, kept for the next one.
//!
//! A file of lines, each one entry as a JSON string, so that entries of several lines stay whole.
//! Lines are appended in one write under a lock: of two programs that write, none loses anything.

use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use tercet_host::error::Error;

use super::private::{self, Existing, Locked, make_folder, open_locked, set_aside};
use crate::failure::Failure;

/// Most entries that are kept.
pub const ENTRIES_MAX: usize = 2000;
/// Longest entry that is kept, in bytes.
pub const ENTRY_BYTES_MAX: usize = 64 << 10;
/// Length from which the file is cut, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Longest file read. No program of ours lets it become as long.
const READ_BYTES_MAX: u64 = 16 << 20;
/// Entries beyond [`ENTRIES_MAX`] that may gather before the file is cut.
const ENTRIES_SLACK: usize = 200;
/// Time to wait for a program that has the lock: it holds it for milliseconds, unless it hangs.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// What was typed, on disk. A chat that keeps no history has none of these.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    /// The entry before, to leave out what is typed twice.
    last: Option<String>,
    /// Entries in the file, as far as this program knows.
    count: usize,
}

impl History {
    /// The history in the folder of state `state` (see [`private::state_folder`]). Touches nothing
    /// yet.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { path: state.join("history.jsonl"), last: None, count: 0 }
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The entries, oldest first, at most [`ENTRIES_MAX`]; none where there is no file yet. Lines
    /// that are no entries are skipped. A file in which there is no entry at all, or that is longer
    /// than 16 MiB, is renamed to `history.jsonl.corrupt`, and a history begins anew.
    ///
    /// # Errors
    ///
    /// [`Failure`] when the file is there and cannot be opened, read or renamed.
    pub fn load(&mut self) -> Result<Vec<String>, Failure> {
        let read = |source| Error::Read { path: self.path.clone(), source };
        let file = match self.open(OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(read(error).into()),
        };
        let bytes = read_all(&file).map_err(read)?;
        let mut entries = bytes.as_deref().map(entries).unwrap_or_default();
        if entries.is_empty() && bytes.is_none_or(|bytes| !bytes.is_empty()) {
            set_aside(&self.path).map_err(|source| self.cannot_write(source))?;
        }
        entries.dedup();
        keep_last(&mut entries);
        self.last = entries.last().cloned();
        self.count = entries.len();
        Ok(entries)
    }

    /// Adds an entry, unless it is empty, longer than 64 KiB, or the one before once more.
    ///
    /// # Errors
    ///
    /// [`Failure`] when it cannot be written, or another program holds the file for half a second.
    pub fn push(&mut self, entry: &str) -> Result<(), Failure> {
        let is_last = self.last.as_deref() == Some(entry);
        if entry.trim().is_empty() || entry.len() > ENTRY_BYTES_MAX || is_last {
            return Ok(());
        }
        self.append(entry).map_err(|source| self.cannot_write(source))?;
        self.last = Some(entry.to_owned());
        Ok(())
    }

    fn append(&mut self, entry: &str) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            make_folder(folder)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = self.open(&options)?;
        let mut line = serde_json::to_string(entry)?;
        line.push('\n');
        // The line before has no end where a program was killed while it wrote: it shall not take
        // this one with it.
        let length = file.seek(SeekFrom::End(0))?;
        if length > 0 {
            let mut end = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut end)?;
            if end != *b"\n" {
                line.insert(0, '\n');
            }
        }
        file.write_all(line.as_bytes())?;
        self.count += 1;
        let length = length + line.len() as u64;
        if length > FILE_BYTES_MAX || self.count > ENTRIES_MAX + ENTRIES_SLACK {
            self.cut(&mut file)?;
        }
        Ok(())
    }

    /// Replaces the file, which is locked, by one with the newest entries.
    fn cut(&mut self, file: &mut File) -> io::Result<()> {
        file.seek(SeekFrom::Start(0))?;
        let mut entries = read_all(file)?.as_deref().map(entries).unwrap_or_default();
        entries.dedup();
        keep_last(&mut entries);
        let mut lines = String::new();
        for entry in &entries {
            lines.push_str(&serde_json::to_string(entry)?);
            lines.push('\n');
        }
        private::write(&self.path, lines.as_bytes(), Existing::Replace)?;
        self.count = entries.len();
        Ok(())
    }

    /// Opens and locks the file; waits a little for a program that has it.
    fn open(&self, options: &OpenOptions) -> io::Result<Locked> {
        let start = Instant::now();
        loop {
            if let Some(file) = open_locked(&self.path, options)? {
                return Ok(file);
            }
            if start.elapsed() > WAIT_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "another program holds its lock",
                ));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn cannot_write(&self, source: io::Error) -> Failure {
        Error::Write { path: self.path.clone(), source }.into()
    }
}

/// All of `file`; `None` when it is too long.
fn read_all(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= READ_BYTES_MAX).then_some(bytes))
}

/// The entries of a file's bytes, oldest first.
fn entries(bytes: &[u8]) -> Vec<String> {
    let entry = |line: &[u8]| serde_json::from_slice::<String>(line).ok();
    let fits = |entry: &String| !entry.trim().is_empty() && entry.len() <= ENTRY_BYTES_MAX;
    bytes.split(|byte| *byte == b'\n').filter_map(entry).filter(fits).collect()
}

/// Drops the oldest entries: at most [`ENTRIES_MAX`] stay, of at most half the bytes at which a
/// file is cut.
fn keep_last(entries: &mut Vec<String>) {
    let mut bytes = 0;
    let fits = |entry: &&String| {
        bytes += entry.len() as u64;
        bytes <= FILE_BYTES_MAX / 2
    };
    let kept = entries.iter().rev().take(ENTRIES_MAX).take_while(fits).count();
    entries.drain(..entries.len() - kept);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    fn history() -> (tempfile::TempDir, History) {
        let folder = tempfile::tempdir().unwrap();
        let history = History::new(&folder.path().join("state"));
        (folder, history)
    }

    /// What the next chat would have.
    fn next(history: &History) -> Vec<String> {
        History::new(history.path().parent().unwrap()).load().unwrap()
    }

    #[test]
    fn entries_come_back_as_they_were_typed() {
        let (_folder, mut history) = history();
        assert_eq!(history.load().unwrap(), [""; 0]);
        let typed = ["one", "two\nlines\n", "\ttab \"quoted\" \\", "Grüße, 世界 \u{1b}[31m"];
        for entry in typed {
            history.push(entry).unwrap();
        }
        assert_eq!(next(&history), typed);
        assert_eq!(fs::read_to_string(history.path()).unwrap().lines().count(), typed.len());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(history.path()), 0o600);
            assert_eq!(mode(history.path().parent().unwrap()), 0o700);
        }
    }

    #[test]
    fn what_is_said_twice_or_too_long_is_left_out() {
        let (_folder, mut history) = history();
        let long = "x".repeat(ENTRY_BYTES_MAX + 1);
        let fits = "y".repeat(ENTRY_BYTES_MAX);
        for entry in ["a", "a", "", " \n", "b", "a", &long, "a", &fits] {
            history.push(entry).unwrap();
        }
        assert_eq!(next(&history), ["a", "b", "a", &fits]);
        // The next chat knows what was said last.
        let mut second = History::new(history.path().parent().unwrap());
        second.load().unwrap();
        second.push(&fits).unwrap();
        assert_eq!(next(&history).len(), 4);
    }

    #[test]
    fn damaged_lines_are_skipped() {
        let (_folder, mut history) = history();
        history.push("first").unwrap();
        let mut file = OpenOptions::new().append(true).open(history.path()).unwrap();
        file.write_all(b"17\n\xff\xfe\n{\"a\":1}\n\0\0\0\n\"half of an ent").unwrap();
        history.push("second").unwrap();
        assert_eq!(next(&history), ["first", "second"]);
    }

    #[test]
    fn a_file_that_is_no_history_is_set_aside() {
        let (_folder, mut history) = history();
        let state = history.path().parent().unwrap().to_owned();
        fs::create_dir_all(&state).unwrap();
        let too_long = vec![b'\n'; READ_BYTES_MAX as usize + 1];
        for (bytes, aside) in [(&b"\0\0\0\0"[..], "corrupt"), (&too_long, "corrupt-2")] {
            fs::write(history.path(), bytes).unwrap();
            assert_eq!(history.load().unwrap(), [""; 0]);
            let aside = state.join(format!("history.jsonl.{aside}"));
            assert!(fs::read(aside).unwrap() == bytes && !history.path().exists());
        }
        history.push("anew").unwrap();
        assert_eq!(next(&history), ["anew"]);
    }

    #[test]
    fn what_cannot_be_read_or_written_is_an_error() {
        let (_folder, mut history) = history();
        fs::create_dir_all(history.path()).unwrap();
        let read = history.load().unwrap_err().message().0;
        assert!(read.contains("cannot read") && read.contains("history.jsonl"), "{read}");
        let written = history.push("x").unwrap_err().message().0;
        assert!(written.contains("cannot write") && written.contains("history.jsonl"), "{written}");
    }

    /// By number and by length: the newest stay.
    #[test]
    fn old_entries_make_room() {
        let (_folder, mut many) = history();
        for number in 0..ENTRIES_MAX + 2 * ENTRIES_SLACK {
            many.push(&number.to_string()).unwrap();
        }
        let loaded = next(&many);
        assert_eq!(loaded.len(), ENTRIES_MAX);
        assert_eq!(loaded.last().unwrap(), &(ENTRIES_MAX + 2 * ENTRIES_SLACK - 1).to_string());
        let lines = fs::read_to_string(many.path()).unwrap().lines().count();
        assert!(lines <= ENTRIES_MAX + ENTRIES_SLACK, "{lines} lines");

        let (_folder, mut long) = history();
        for number in 0..100 {
            long.push(&format!("{number} {}", "z".repeat(60_000))).unwrap();
        }
        assert!(fs::metadata(long.path()).unwrap().len() <= FILE_BYTES_MAX);
        let loaded = next(&long);
        assert!(loaded.len() > 30 && loaded.last().unwrap().starts_with("99 "), "{}", loaded.len());
    }

    #[test]
    fn a_lock_that_is_held_is_waited_for_and_then_an_error() {
        let (_folder, mut history) = history();
        history.push("a").unwrap();
        let held = open_locked(history.path(), OpenOptions::new().read(true)).unwrap();
        let start = Instant::now();
        assert!(history.push("b").unwrap_err().message().0.contains("lock"));
        assert!(start.elapsed() >= WAIT_MAX);
        drop(held);
        history.push("b").unwrap();
        assert_eq!(next(&history), ["a", "b"]);
    }

    /// Entries of each of the two writers of the tests below; beyond what the file may hold, so
    /// that it is cut while both write.
    const EACH: usize = 1500;

    fn write_entries(state: &Path, name: &str) {
        let mut history = History::new(state);
        for number in 0..EACH {
            history.push(&format!("{name} {number}\nsecond line")).unwrap();
        }
    }

    /// Nobody's newest entries are missing, and they are in order.
    fn assert_both_are_there(state: &Path) {
        let loaded = History::new(state).load().unwrap();
        assert!(loaded.len() <= ENTRIES_MAX);
        for name in ["a ", "b "] {
            let own: Vec<_> = loaded.iter().filter(|entry| entry.starts_with(name)).collect();
            let first = EACH - own.len();
            for (entry, number) in own.into_iter().zip(first..) {
                assert_eq!(*entry, format!("{name}{number}\nsecond line"));
            }
        }
        assert_eq!(loaded.len(), ENTRIES_MAX.min(2 * EACH), "some were lost");
    }

    #[test]
    fn two_threads_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            for name in ["a", "b"] {
                let state = folder.path();
                scope.spawn(move || write_entries(state, name));
            }
        });
        assert_both_are_there(folder.path());
    }

    #[test]
    #[ignore = "the other process of the test below, which starts it"]
    fn writes_as_told() {
        if let Some(state) = std::env::var_os("TERCET_TEST_HISTORY") {
            let name = std::env::var("TERCET_TEST_NAME").unwrap();
            write_entries(Path::new(&state), &name);
        }
    }

    #[test]
    fn two_processes_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let start = |name| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "chat::history::tests::writes_as_told", "--ignored"])
                .env("TERCET_TEST_HISTORY", folder.path())
                .env("TERCET_TEST_NAME", name)
                .output()
        };
        let (a, b) = thread::scope(|scope| {
            let a = scope.spawn(|| start("a"));
            (start("b").unwrap(), a.join().unwrap().unwrap())
        });
        assert!(a.status.success() && b.status.success(), "{a:?}\n{b:?}");
        assert_both_are_there(folder.path());
    }
}
