//! [`SafetensorsWriter`]: a safetensors file written as it comes, whole or not at all.
//!
//! The usual serialiser holds everything in memory, sorts, and aligns to 8 bytes. This one streams,
//! keeps the order, starts every tensor at a multiple of the caller's choice (the format forbids
//! holes, so fillers are tensors too), and puts the file under its name only when it is complete.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

use crate::checkpoint::TERCET_PAD_PREFIX;
use crate::error::Error;

/// Prefix of the metadata keys that hold the BLAKE3 digest of a tensor.
pub(crate) const DIGEST_PREFIX: &str = "tercet.blake3.";

/// A tensor to be written.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// How the file is laid out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// The data starts at a multiple of this many bytes of the file.
    pub(crate) align: usize,
    /// And so does every tensor: fillers, which are tensors too, take the space between.
    pub(crate) fill: bool,
    /// Whether the metadata gets a digest of every tensor.
    pub(crate) digests: bool,
}

/// What stands before the data: names, types, shapes, metadata.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    /// Every entry with the number of bytes that fill the space before the next.
    entries: Vec<(Entry, usize)>,
    metadata: Map<String, Value>,
    style: Style,
    /// Length of the JSON, with its padding.
    json_bytes: usize,
}

impl Header {
    pub(crate) fn new(entries: Vec<Entry>, mut metadata: Map<String, Value>, style: Style) -> Self {
        let align = if style.fill { style.align } else { 1 };
        let entries: Vec<_> = entries
            .into_iter()
            .map(|entry| {
                let fill = entry.bytes().next_multiple_of(align) - entry.bytes();
                (entry, fill)
            })
            .collect();
        if style.digests {
            // Room for the digests, which are known last.
            let blank = Value::from(blake3::Hash::from_bytes([0; 32]).to_hex().as_str());
            for (entry, _) in &entries {
                metadata.insert(format!("{DIGEST_PREFIX}{}", entry.name), blank.clone());
            }
        }
        let mut header = Self { entries, metadata, style, json_bytes: 0 };
        header.json_bytes = (8 + header.json().len()).next_multiple_of(style.align) - 8;
        header
    }

    /// Bytes of the whole file.
    pub(crate) fn file_bytes(&self) -> usize {
        let data: usize = self.entries.iter().map(|(entry, fill)| entry.bytes() + fill).sum();
        8 + self.json_bytes + data
    }

    fn json(&self) -> Vec<u8> {
        let mut header = Map::new();
        if !self.metadata.is_empty() {
            header.insert("__metadata__".into(), Value::Object(self.metadata.clone()));
        }
        let mut offset = 0;
        let mut add = |name: String, dtype: Dtype, shape: &[usize], bytes: usize| {
            let offsets = [offset, offset + bytes];
            offset += bytes;
            let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
            header.insert(name, entry);
        };
        for (number, (entry, fill)) in self.entries.iter().enumerate() {
            add(entry.name.clone(), entry.dtype, &entry.shape, entry.bytes());
            if *fill > 0 {
                add(format!("{TERCET_PAD_PREFIX}{number}"), Dtype::U8, &[*fill], *fill);
            }
        }
        Value::Object(header).to_string().into_bytes()
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut json = self.json();
        json.resize(self.json_bytes.max(json.len()), b' ');
        out.write_all(&(json.len() as u64).to_le_bytes())?;
        out.write_all(&json)
    }
}

/// Writes the tensors of a list in order, to a file or into memory.
#[derive(Debug)]
pub(crate) struct SafetensorsWriter<W> {
    /// Name of the destination, for messages.
    path: PathBuf,
    out: W,
    header: Header,
    next: usize,
}

impl SafetensorsWriter<BufWriter<Unfinished>> {
    /// Starts a file that will be called `path`.
    pub(crate) fn create(path: &Path, header: Header) -> Result<Self, Error> {
        let file = Unfinished::create(folder_of(path))
            .map_err(|source| Error::Write { path: path.to_owned(), source })?;
        Self::start(path, header, BufWriter::with_capacity(1 << 20, file))
    }

    /// Completes the header, makes the bytes durable and puts the file under its name.
    ///
    /// # Panics
    ///
    /// When tensors of the list are missing: a bug of the caller.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let path = self.path.clone();
        let error = |source| Error::Write { path: path.clone(), source };
        let file = self.complete()?.into_inner().map_err(|failed| error(failed.into_error()))?;
        file.appear(folder_of(&path), &path).map_err(error)
    }
}

/// The folder that `path` is or will be in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

impl<W: Write + Seek> SafetensorsWriter<W> {
    /// Starts at the beginning of `out`; `path` names it in messages.
    pub(crate) fn start(path: &Path, header: Header, out: W) -> Result<Self, Error> {
        let mut writer = Self { path: path.to_owned(), out, header, next: 0 };
        writer.header.write(&mut writer.out).map_err(|source| writer.error(source))?;
        Ok(writer)
    }

    fn error(&self, source: io::Error) -> Error {
        Error::Write { path: self.path.clone(), source }
    }

    /// Writes the next tensor of the list, in pieces that `produce` hands over.
    ///
    /// # Panics
    ///
    /// When the pieces do not add up to the entry: a bug of the caller.
    pub(crate) fn tensor(
        &mut self,
        produce: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (entry, fill) = self.header.entries[self.next].clone();
        let digests = self.header.style.digests;
        let mut digest = blake3::Hasher::new();
        let mut written = 0;
        produce(&mut |bytes| {
            written += bytes.len();
            if digests {
                digest.update(bytes);
            }
            self.out
                .write_all(bytes)
                .map_err(|source| Error::Write { path: self.path.clone(), source })
        })?;
        assert_eq!(written, entry.bytes(), "bytes of `{}`", entry.name);
        self.out.write_all(&vec![0; fill]).map_err(|source| self.error(source))?;
        if digests {
            let digest = Value::from(digest.finalize().to_hex().as_str());
            self.header.metadata.insert(format!("{DIGEST_PREFIX}{}", entry.name), digest);
        }
        self.next += 1;
        Ok(())
    }

    /// Completes the header and gives the destination back.
    ///
    /// # Panics
    ///
    /// When tensors of the list are missing: a bug of the caller.
    pub(crate) fn complete(mut self) -> Result<W, Error> {
        assert_eq!(self.next, self.header.entries.len(), "tensors written");
        if self.header.style.digests {
            let written = match self.out.seek(SeekFrom::Start(0)) {
                Ok(_) => self.header.write(&mut self.out),
                Err(error) => Err(error),
            };
            written.map_err(|source| self.error(source))?;
        }
        Ok(self.out)
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) enum Unfinished {
    /// Without a name: it is gone when the process is, however that ends.
    #[cfg(target_os = "linux")]
    Nameless(File),
    /// Where the system has no such files: under a hidden name, which a killed process leaves.
    Named(NamedTempFile),
}

impl Unfinished {
    fn create(folder: &Path) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(file) = nameless::create(folder) {
            return Ok(Self::Nameless(file));
        }
        Ok(Self::Named(hidden().tempfile_in(folder)?))
    }

    /// Makes the bytes durable and puts them under the name `path`, in `folder`.
    fn appear(self, folder: &Path, path: &Path) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Nameless(file) => {
                file.sync_all()?;
                // A link cannot replace a file, a rename can.
                let named = hidden().make_in(folder, |hidden| nameless::link(&file, hidden))?;
                named.persist(path)?;
            }
            Self::Named(file) => {
                share(&file)?;
                file.as_file().sync_all()?;
                file.persist(path)?;
            }
        }
        Ok(())
    }

    fn file(&mut self) -> &mut File {
        match self {
            #[cfg(target_os = "linux")]
            Self::Nameless(file) => file,
            Self::Named(file) => file.as_file_mut(),
        }
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl Seek for Unfinished {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file().seek(to)
    }
}

/// Names of files that are not finished.
fn hidden() -> tempfile::Builder<'static, 'static> {
    let mut names = tempfile::Builder::new();
    names.prefix(".tercet-").suffix(".part");
    names
}

/// Files without a name, which can get one later.
#[cfg(target_os = "linux")]
mod nameless {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::{Path, PathBuf};

    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};

    /// `None` where the file system has none, or `/proc`, through which they get their name, is not
    /// there. `0o666` less the user's mask, as for any new file.
    pub(super) fn create(folder: &Path) -> Option<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(open(folder, flags, Mode::from_raw_mode(0o666)).ok()?);
        handle(&file).exists().then_some(file)
    }

    /// Gives `file` the name `path`, which must be free.
    pub(super) fn link(file: &File, path: &Path) -> io::Result<()> {
        Ok(linkat(CWD, handle(file), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    }

    fn handle(file: &File) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }
}

/// A temporary file is the user's alone; what replaces it is as readable as any new file (`umask`
/// cannot be asked without changing it, so the common 022 is taken).
#[cfg(unix)]
fn share(file: &NamedTempFile) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn share(_file: &NamedTempFile) -> io::Result<()> {
    Ok(())
}
