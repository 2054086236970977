//! Files in memory: the only place that maps them.

#![allow(unsafe_code, reason = "a mapping of a file that others can change")]

use core::ops::Deref;
use std::fs::File;
use std::path::Path;

use memmap2::{Mmap, MmapMut};

use super::CheckpointError;
use super::truncation;

/// The bytes of one file: mapped read-only, part of the program, or made by it.
#[derive(Debug)]
pub(super) enum Bytes {
    /// A file on disk.
    Mapped(MappedFile),
    /// A file built into the program.
    Builtin(&'static [u8]),
    /// A file that never was on disk.
    Made(Mmap),
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(file) => &file.map,
            Self::Builtin(bytes) => bytes,
            Self::Made(map) => map,
        }
    }
}

/// A mapped file, known to the handler of truncation while it lives.
#[derive(Debug)]
pub(super) struct MappedFile {
    map: Mmap,
    _watch: truncation::Watch,
}

impl Bytes {
    /// Maps the regular file at `path`.
    pub(super) fn map(path: &Path) -> Result<Self, CheckpointError> {
        let open = |source| CheckpointError::Open { path: path.to_owned(), source };
        // Asked before opening: opening a pipe would wait for a writer.
        if !std::fs::metadata(path).map_err(open)?.is_file() {
            return Err(CheckpointError::NotAFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(open)?;
        if file.metadata().map_err(open)?.len() == 0 {
            // A mapping of nothing is an error of its own; the reader's error is clearer.
            return Ok(Self::Builtin(&[]));
        }
        // SAFETY: the mapping is private and read-only, and `Mmap` keeps it alive as long as the
        // slices borrowed from `self`. What Rust cannot promise is that nobody else changes the
        // file meanwhile. Every reader treats the bytes as untrusted data (a changed byte is a
        // wrong number, never an invalid value), and a shortened file ends in SIGBUS, which
        // `truncation` turns into a clear exit.
        let map = unsafe { Mmap::map(&file) }.map_err(open)?;
        let watch = truncation::Watch::new(map.as_ptr() as usize, map.len());
        Ok(Self::Mapped(MappedFile { map, _watch: watch }))
    }
}

/// Zeros that cost memory when they are first written, in huge pages where the system has them.
///
/// # Errors
///
/// The system's reason, when there is no room for `bytes`.
pub(crate) fn anonymous(bytes: usize) -> std::io::Result<MmapMut> {
    let map = MmapMut::map_anon(bytes.max(1))?;
    // Advice: a system without huge pages is as right, only slower.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}
