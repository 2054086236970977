//! Files that are the user's alone (mode 0600, in folders of 0700): replaced whole or not at all,
//! and locked so that two programs do not write the same one.

use core::ops::{Deref, DerefMut};
use core::time::Duration;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::Builder;

/// Names of files that are not finished.
const UNFINISHED: (&str, &str) = (".tercet-", ".part");

/// Age after which an unfinished file is what a killed program left. Nothing here takes a second.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// Times that a file may be replaced between opening and locking it.
const REPLACED_MAX: usize = 100;

/// Where sessions and the history of input are kept: `TERCET_STATE_DIR`, else
/// `$XDG_STATE_HOME/tercet`, else `~/.local/state/tercet`. `None` where none of the three is set,
/// or only to relative paths, which the XDG Base Directory Specification (0.8) says to ignore.
///
/// `variable` reads the environment: `|name| std::env::var_os(name)`.
pub fn state_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let absolute = |name| path(name).filter(|path| path.is_absolute());
    path("TERCET_STATE_DIR")
        .or_else(|| Some(absolute("XDG_STATE_HOME")?.join("tercet")))
        .or_else(|| Some(absolute("HOME")?.join(".local/state/tercet")))
}

/// Makes `folder` and those above it that are missing.
///
/// # Errors
///
/// The system's reason.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// What to do with a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// Put the new one in its place.
    Replace,
    /// Leave it: [`io::ErrorKind::AlreadyExists`].
    Keep,
}

/// An open file that is locked until this is dropped.
#[derive(Debug)]
pub(super) struct Locked(File);

impl Deref for Locked {
    type Target = File;
    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing it is not enough while a child, which is about to run another program, has it.
        let _ = self.0.unlock();
    }
}

/// Puts a file with `bytes` under the name `path`: durable and whole, or not at all. Returns it,
/// locked.
///
/// # Errors
///
/// The system's reason; what was there before is there still.
pub(super) fn write(path: &Path, bytes: &[u8], existing: Existing) -> io::Result<Locked> {
    let folder = folder_of(path);
    let (prefix, suffix) = UNFINISHED;
    // The crate makes it 0600.
    let mut file = Builder::new().prefix(prefix).suffix(suffix).tempfile_in(folder)?;
    // Before it has its name, so that there is no moment in which somebody else could.
    try_lock(file.as_file())?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    let named = match existing {
        Existing::Replace => file.persist(path),
        Existing::Keep => file.persist_noclobber(path),
    };
    let file = Locked(named.map_err(|failed| failed.error)?);
    // The name, too, outlives a power cut; a file system that cannot promise it says so here.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(file)
}

/// Opens the file at `path` and locks it; `None` when another program has done so.
///
/// # Errors
///
/// The system's reason for not opening it.
pub(super) fn open_locked(path: &Path, options: &OpenOptions) -> io::Result<Option<Locked>> {
    for _ in 0..REPLACED_MAX {
        let file = options.open(path)?;
        let own = file.metadata()?;
        if !own.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if !try_lock(&file)? {
            return Ok(None);
        }
        // While it was being locked, somebody may have put another in its place.
        match fs::metadata(path) {
            Ok(now) if is_same(&now, &own) => return Ok(Some(Locked(file))),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Locks `file`; `false` when another program has. Where the file system has no locks, every file
/// counts as free.
fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Where files have no number of their own, what is open cannot be replaced either.
#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

/// Renames a damaged file to `NAME.corrupt`, or `NAME.corrupt-2` and so on where that is taken;
/// returns its new path.
///
/// # Errors
///
/// The system's reason.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let name = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(".corrupt");
        if number > 1 {
            name.push(format!("-{number}"));
        }
        PathBuf::from(name)
    };
    let free = (1..).map(name).find(|path| fs::symlink_metadata(path).is_err());
    let free = free.unwrap_or_else(|| name(0));
    fs::rename(path, &free)?;
    Ok(free)
}

/// Removes what killed programs left in `folder`.
pub(super) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let unfinished = name.starts_with(UNFINISHED.0) && name.ends_with(UNFINISHED.1);
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if unfinished && age().is_some_and(|age| age > LEFT_BEHIND) {
            // What cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The folder that `path` is or will be in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_where_state_goes() {
        let folder = |variables: &[(&str, &str)]| {
            state_folder(|name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).into())
            })
        };
        let path = |path: &str| Some(PathBuf::from(path));
        let home = ("HOME", "/h");
        assert_eq!(folder(&[home]), path("/h/.local/state/tercet"));
        assert_eq!(folder(&[home, ("XDG_STATE_HOME", "/s")]), path("/s/tercet"));
        assert_eq!(folder(&[home, ("XDG_STATE_HOME", "s")]), path("/h/.local/state/tercet"));
        assert_eq!(folder(&[home, ("XDG_STATE_HOME", "")]), path("/h/.local/state/tercet"));
        let all = [home, ("XDG_STATE_HOME", "/s"), ("TERCET_STATE_DIR", "t")];
        assert_eq!(folder(&all), path("t"));
        assert_eq!(folder(&[]), None);
        assert_eq!(folder(&[("HOME", "h")]), None);
    }

    #[cfg(unix)]
    #[test]
    fn files_and_folders_are_the_users_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        make_folder(&inner).unwrap();
        make_folder(&inner).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(inner.parent().unwrap())), (0o700, 0o700));
        let file = inner.join("file");
        write(&file, b"1", Existing::Keep).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        write(&file, b"2", Existing::Replace).unwrap();
        assert_eq!((mode(&file), fs::read(&file).unwrap()), (0o600, b"2".to_vec()));
        let kept = write(&file, b"3", Existing::Keep).unwrap_err();
        assert_eq!(kept.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"2");
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "nothing unfinished is left");
    }

    /// The lock goes with the name, not with the file that had it before.
    #[test]
    fn a_replaced_file_stays_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let first = write(&path, b"1", Existing::Keep).unwrap();
        assert!(open_locked(&path, &options).unwrap().is_none());
        let second = write(&path, b"2", Existing::Replace).unwrap();
        drop(first);
        assert!(open_locked(&path, &options).unwrap().is_none());
        drop(second);
        let third = open_locked(&path, &options).unwrap();
        assert!(third.is_some() && open_locked(&path, &options).unwrap().is_none());
    }

    #[test]
    fn what_is_damaged_goes_to_a_free_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        for expected in ["x.json.corrupt", "x.json.corrupt-2", "x.json.corrupt-3"] {
            fs::write(&path, expected).unwrap();
            let aside = set_aside(&path).unwrap();
            assert_eq!(aside, folder.path().join(expected));
            assert_eq!(fs::read_to_string(aside).unwrap(), expected);
            assert!(!path.exists());
        }
    }

    #[test]
    fn only_what_was_left_long_ago_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, old: bool| {
            let file = File::create(folder.path().join(name)).unwrap();
            let now = std::time::SystemTime::now();
            let then = if old { now - 2 * LEFT_BEHIND } else { now };
            file.set_modified(then).unwrap();
        };
        file(".tercet-old.part", true);
        file(".tercet-new.part", false);
        file("session.json", true);
        sweep(folder.path());
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".tercet-new.part", "session.json"]);
    }
}
