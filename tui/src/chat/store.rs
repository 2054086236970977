//! [`Store`]: the folder of saved sessions, and [`OpenRecord`]: the session that is being held.
//!
//! A session is saved after every turn: its file is replaced by a new one, whole, so that a program
//! killed at any moment leaves one or the other. The file is locked as long as its session is open;
//! a second program is told so.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tercet_host::error::Error;

use super::private::{self, Existing, Locked, make_folder, open_locked, set_aside};
use super::record::{RECORD_BYTES_MAX, ReadError, Record};
use crate::failure::Failure;

/// Longest name of a session, in bytes.
const NAME_BYTES_MAX: usize = 100;
/// Sessions that may begin within one second.
const SAME_SECOND_MAX: usize = 1000;

/// The folder of saved sessions.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// A session that can be resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name: that of its file, without the ending.
    pub name: String,
    /// As [`Record::title`].
    pub title: String,
    /// The model that answered last, as the user named it.
    pub model: String,
    /// Turns.
    pub turns: usize,
    /// When it was last saved, in UTC, as ISO 8601 writes it.
    pub updated: String,
}

/// A session that goes on.
#[derive(Debug)]
pub struct Resumed {
    /// What was said.
    pub record: Record,
    /// Where it is saved from now on.
    pub open: OpenRecord,
    /// Damaged files that were newer and have been renamed to this.
    pub set_aside: Vec<PathBuf>,
}

impl Store {
    /// The store in the folder of state `state` (see [`private::state_folder`]), which is made if
    /// it is not there.
    ///
    /// # Errors
    ///
    /// [`Failure`] when it cannot be made.
    pub fn open(state: &Path) -> Result<Self, Failure> {
        let folder = state.join("sessions");
        make_folder(&folder).map_err(|source| cannot_write(&folder, source))?;
        private::sweep(&folder);
        Ok(Self { folder })
    }

    /// A session that is new: its file appears with its first turn.
    #[must_use]
    pub fn create(&self) -> OpenRecord {
        OpenRecord { folder: self.folder.clone(), file: None }
    }

    /// The sessions, the one saved last first, at most `count_max`; those that cannot be read are
    /// left out.
    ///
    /// # Errors
    ///
    /// [`Failure`] when the folder cannot be read.
    pub fn list(&self, count_max: usize) -> Result<Vec<Listed>, Failure> {
        let listed = |path: PathBuf| {
            let record = Record::read(&path).ok()?;
            Some(Listed {
                name: name_of(&path)?,
                title: record.title(),
                model: record.setups().last().map_or_else(String::new, |s| s.model.name.clone()),
                turns: record.turns().len(),
                updated: record.updated,
            })
        };
        Ok(self.paths()?.into_iter().filter_map(listed).take(count_max).collect())
    }

    /// Session files, the one saved last first.
    fn paths(&self) -> Result<Vec<PathBuf>, Failure> {
        let read = |source| Error::Read { path: self.folder.clone(), source };
        let mut paths: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            // What has gone since is no session any more.
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            if metadata.is_file() && name_of(&path).is_some() {
                paths.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), path));
            }
        }
        // By name where the clock is too coarse: names begin with the time, too.
        paths.sort_by(|a, b| b.cmp(a));
        Ok(paths.into_iter().map(|(_, path)| path).collect())
    }

    /// Names of sessions, those that began last first, at most `count_max`; no file is read.
    #[must_use]
    pub fn names(&self, count_max: usize) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let sessions = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
        let names = sessions.filter_map(|path| path.file_stem()?.to_str().map(str::to_owned));
        let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort_unstable_by(|a, b| b.cmp(a));
        names.truncate(count_max);
        names
    }

    /// The file of a session: by its name, by the beginning of one name, or by path (whatever has a
    /// `/` in it or names a file here that ends in `.json`).
    ///
    /// # Errors
    ///
    /// [`Failure::NoInput`] when there is none, [`Failure::Usage`] when several begin like this.
    pub fn find(&self, name: &str) -> Result<PathBuf, Failure> {
        if is_path(name) {
            return Ok(PathBuf::from(name));
        }
        let whole = self.path_of(name)?;
        if whole.is_file() {
            return Ok(whole);
        }
        let begins = |path: &PathBuf| name_of(path).is_some_and(|whole| whole.starts_with(name));
        let mut found: Vec<_> = self.paths()?.into_iter().filter(begins).collect();
        match (found.pop(), found.len()) {
            (Some(path), 0) => Ok(path),
            (None, _) => Err(Failure::NoInput {
                what: "there is no session of that name",
                hint: "`/load` in the chat lists the sessions; a path to a file works too",
            }),
            (Some(_), more) => Err(Failure::Usage {
                what: format!("{} sessions begin with `{name}`", more + 1),
                hint: "give more of the name",
            }),
        }
    }

    /// The path that a session called `name` has or would have: always in this store's folder.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for a name that is none.
    pub fn path_of(&self, name: &str) -> Result<PathBuf, Failure> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_. ".contains(c);
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.chars().all(fits)
            && name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if is_name {
            Ok(self.folder.join(format!("{name}.json")))
        } else {
            Err(Failure::Usage {
                what: format!("`{name}` is no name for a session"),
                hint: "a name has letters, digits, `-`, `_`, `.` and spaces, and begins with one \
                       of the first two; a path has a `/` in it",
            })
        }
    }

    /// Opens a session to go on with it: `name` as in [`Store::find`], or the one saved last.
    ///
    /// A file outside of the store is read and left alone: what follows is saved as a session of
    /// the store. A damaged file of the store is renamed; without a `name` the next one is taken.
    ///
    /// # Errors
    ///
    /// [`Failure`] when there is none, it is open in another program, or it cannot be read.
    pub fn resume(&self, name: Option<&str>) -> Result<Resumed, Failure> {
        let Some(name) = name else { return self.resume_last() };
        let path = self.find(name)?;
        if !self.holds(&path) {
            let record = Record::read(&path)?;
            return Ok(Resumed { record, open: self.create(), set_aside: Vec::new() });
        }
        match self.take(&path)? {
            Taken::Session(record, open) => {
                Ok(Resumed { record: *record, open, set_aside: Vec::new() })
            }
            Taken::Aside(to, what) => Err(Failure::Data {
                what: format!(
                    "the session `{name}` is damaged and was renamed to `{}`: {what}",
                    to.display()
                ),
                hint: "resume another session, or begin one",
            }),
        }
    }

    fn resume_last(&self) -> Result<Resumed, Failure> {
        let mut set_aside = Vec::new();
        for path in self.paths()? {
            match self.take(&path)? {
                Taken::Session(record, open) => {
                    return Ok(Resumed { record: *record, open, set_aside });
                }
                Taken::Aside(to, _) => set_aside.push(to),
            }
        }
        Err(Failure::NoInput {
            what: "there is no saved session to resume",
            hint: "begin one; it is saved after every answer",
        })
    }

    /// Whether `path` is a file of this store.
    fn holds(&self, path: &Path) -> bool {
        let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
        folder.is_some() && folder == self.folder.canonicalize().ok() && name_of(path).is_some()
    }

    /// Locks and reads a session of the store.
    fn take(&self, path: &Path) -> Result<Taken, Failure> {
        // Writing is what makes the lock exclusive on network file systems.
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let locked = open_locked(path, &options)
            .map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let Some(file) = locked else {
            let name = name_of(path).unwrap_or_default();
            return Err(Failure::Unavailable {
                what: format!("the session `{name}` is open, here or in another tercet"),
                hint: "go on there, or close it; another session can be resumed by its name",
            });
        };
        match Record::read_from(&file) {
            Ok(record) => {
                let open =
                    OpenRecord { folder: self.folder.clone(), file: Some((path.to_owned(), file)) };
                Ok(Taken::Session(Box::new(record), open))
            }
            Err(ReadError::Damaged(what)) => {
                let to = set_aside(path).map_err(|source| cannot_write(path, source))?;
                Ok(Taken::Aside(to, what))
            }
            Err(error) => Err(error.about(path)),
        }
    }
}

/// What came of taking a session.
enum Taken {
    Session(Box<Record>, OpenRecord),
    /// It was damaged: where it is now, and what was wrong.
    Aside(PathBuf, String),
}

/// Where a session is saved; holds the lock on its file while it lives.
#[derive(Debug)]
pub struct OpenRecord {
    folder: PathBuf,
    /// The file, once there is one, and what keeps it locked.
    file: Option<(PathBuf, Locked)>,
}

impl OpenRecord {
    /// The session's file, once it has been saved.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }

    /// Saves the session: the new file replaces the old one as a whole, and is durable when this
    /// returns. A session without turns that has no file gets none. Takes some milliseconds, or
    /// what the disk takes to write the file.
    ///
    /// # Errors
    ///
    /// [`Failure`]; what was saved before is there still, and a later call may succeed.
    pub fn save(&mut self, record: &mut Record) -> Result<(), Failure> {
        if self.file.is_none() && record.turns().is_empty() {
            return Ok(());
        }
        let json = record.renewed();
        if json.len() as u64 > RECORD_BYTES_MAX {
            return Err(Failure::Data {
                what: format!("the session is longer than {RECORD_BYTES_MAX} bytes: not saved"),
                hint: "begin a new one with /clear; this one is saved up to its last turn but one",
            });
        }
        // It may have been removed meanwhile.
        make_folder(&self.folder).map_err(|source| cannot_write(&self.folder, source))?;
        if let Some((path, file)) = &mut self.file {
            *file = private::write(path, json.as_bytes(), Existing::Replace)
                .map_err(|source| cannot_write(path, source))?;
            return Ok(());
        }
        let mut number = 1;
        loop {
            let path = self.folder.join(file_name(&record.created, number));
            match private::write(&path, json.as_bytes(), Existing::Keep) {
                Ok(file) => {
                    self.file = Some((path, file));
                    return Ok(());
                }
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists && number < SAME_SECOND_MAX =>
                {
                    number += 1;
                }
                Err(source) => return Err(cannot_write(&path, source)),
            }
        }
    }
}

/// The name of the file of a session that began at `created`: `2026-11-22-034109.json`, with a
/// number where that is taken.
fn file_name(created: &str, number: usize) -> String {
    let digits: String = created.chars().filter(char::is_ascii_digit).take(14).collect();
    let begun = match (digits.get(..4), digits.get(4..6), digits.get(6..8), digits.get(8..14)) {
        (Some(year), Some(month), Some(day), Some(time)) => format!("{year}-{month}-{day}-{time}"),
        // A clock that says nothing sensible.
        _ => "session".into(),
    };
    if number == 1 { format!("{begun}.json") } else { format!("{begun}-{number}.json") }
}

/// The name of the session in a file of the store; `None` for other files.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    (!name.is_empty() && !name.starts_with('.')).then(|| name.to_owned())
}

/// Whether a name is meant as a path.
fn is_path(name: &str) -> bool {
    name.contains(['/', std::path::MAIN_SEPARATOR])
        || name.ends_with(".json") && Path::new(name).is_file()
}

fn cannot_write(path: &Path, source: io::Error) -> Failure {
    Error::Write { path: path.to_owned(), source }.into()
}

#[cfg(test)]
mod tests;
