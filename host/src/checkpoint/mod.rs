//! [`Checkpoint`]: a model's files, mapped; tensors and side files by name.
//!
//! Four sources look alike from here on: a folder in Hugging Face's layout, a `.tercet` file, one
//! built into the program, and one made in memory (`synth/`). Every size is checked against the
//! file before it is believed.

mod header;
mod mapped;
mod shards;
mod truncation;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use header::HeaderError;
use mapped::Bytes;
pub(crate) use mapped::anonymous;
use memmap2::Mmap;
pub use safetensors::Dtype;
use safetensors::tensor::Metadata;
#[cfg(unix)]
pub use truncation::before_exit;
pub use truncation::{LAST_WORD, install_truncation_guard};

use crate::layout::WeightLayout;

/// Metadata key that makes a safetensors file a `.tercet` file; its value is the format's version.
pub const TERCET_FORMAT_KEY: &str = "tercet.format";
/// The version of the `.tercet` format this program reads and writes.
pub const TERCET_FORMAT_VERSION: &str = "1";
/// Metadata key that names the layout of the packed matrices of a `.tercet` file.
pub const TERCET_LAYOUT_KEY: &str = "tercet.layout";
/// Prefix of the tensors of a `.tercet` file that hold side files (`config.json` and so on).
pub const TERCET_FILE_PREFIX: &str = "tercet.file.";
/// Prefix of the tensors of a `.tercet` file that only fill the space to the next multiple of 256.
pub const TERCET_PAD_PREFIX: &str = "tercet.pad.";

/// Longest `tokenizer.json` read, in bytes; the longest published ones have about 35 MB.
const TOKENIZER_BYTES_MAX: u64 = 128 << 20;
/// Longest other side file read, in bytes. As a tree, JSON takes up to 40 times its length.
const SIDE_FILE_BYTES_MAX: u64 = 2 << 20;

/// Why a model's files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("cannot open `{}`: {source}", path.display())]
    Open {
        /// What was to be opened.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A folder, pipe or device where a file should be.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// What was to be opened.
        path: PathBuf,
    },
    /// A side file beyond its limit.
    #[error("`{}` is longer than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Limit in bytes.
        limit: u64,
    },
    /// The folder holds no weights.
    #[error("no weights in `{}`: neither model.safetensors nor its index is there", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// The weights are stored as Python pickles, which are programs.
    #[error("`{}` holds its weights as pickles, which can run code when loaded", path.display())]
    Pickled {
        /// The folder or file.
        path: PathBuf,
    },
    /// A file of a known format that this version does not read.
    #[error("`{}` is a {format} file, which this version does not read", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Name of the format.
        format: &'static str,
    },
    /// A lone safetensors file that is no `.tercet` file.
    #[error("`{}` is a safetensors file without config: not a whole model", path.display())]
    Lone {
        /// The file.
        path: PathBuf,
    },
    /// A `.tercet` file of another version.
    #[error("`{}` has format version `{got}`, this program reads `{TERCET_FORMAT_VERSION}`", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        got: String,
    },
    /// A `.tercet` file in a layout that this version does not read.
    #[error("`{}` is packed in layout `{got}`, which this version does not read", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Name of the layout.
        got: String,
    },
    /// The header of a weights file is damaged.
    #[error("`{}` is damaged: {source}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// The index of a sharded checkpoint is damaged.
    #[error("the index `{}` is damaged: {what}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Two files of one checkpoint hold the same tensor.
    #[error("tensor `{tensor}` stands in two files")]
    Duplicate {
        /// Name of the tensor.
        tensor: String,
    },
    /// A side file the model needs is absent.
    #[error("`{name}` is missing from the model")]
    NoFile {
        /// Name of the side file.
        name: &'static str,
    },
}

impl CheckpointError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Open { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                "give a folder with config.json and model.safetensors, or a .tercet file; \
                 without a model tercet uses the one built in"
            }
            Self::Open { .. } => "check the path and its permissions",
            Self::NotAFile { .. } => "give a folder or a regular file",
            Self::TooLong { .. } => "this is no side file of a model; check the download",
            Self::NoWeights { .. } => "download the safetensors files of the model",
            Self::Pickled { .. } => {
                "convert them with Hugging Face's `save_pretrained(safe_serialization=True)`, or \
                 download the safetensors revision"
            }
            Self::Format { .. } => "use the safetensors folder of the same model",
            Self::Lone { .. } => "give the folder that also holds config.json",
            Self::Version { .. } | Self::Layout { .. } => {
                "convert the model again with this version of tercet"
            }
            Self::Header { .. } | Self::Index { .. } | Self::Duplicate { .. } => {
                "the file is incomplete or altered: download or convert it again"
            }
            Self::NoFile { .. } => "copy the file from the model's repository into the folder",
        }
    }
}

/// One tensor: its type, shape and little-endian bytes, borrowed from the mapping.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'c> {
    /// Element type.
    pub dtype: Dtype,
    /// Extents, outermost first.
    pub shape: &'c [usize],
    /// Row-major data; may start at any address.
    pub bytes: &'c [u8],
}

#[derive(Debug)]
struct Shard {
    bytes: Bytes,
    header: Metadata,
    data_start: usize,
}

/// A model's files, mapped and indexed. Holds nothing decoded.
#[derive(Debug)]
pub struct Checkpoint {
    name: String,
    folder: Option<PathBuf>,
    shards: Vec<Shard>,
    index: HashMap<String, usize>,
}

impl Checkpoint {
    /// Opens the model at `path`: a folder in Hugging Face's layout or a `.tercet` file.
    ///
    /// Reads headers only; weights are paged in when they are used.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] when the files are absent, of another format, or contradict themselves.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let open = |source| CheckpointError::Open { path: path.to_owned(), source };
        let name = path.display().to_string();
        if std::fs::metadata(path).map_err(open)?.is_dir() {
            let files = weight_files(path)?;
            return Self::from_files(name, Some(path.to_owned()), &files);
        }
        refuse_other_formats(path)?;
        Self::from_files(name, None, &[path.to_owned()])?.checked_tercet(path)
    }

    /// Opens a `.tercet` file that is part of the program.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::open`].
    pub fn builtin(name: &str, bytes: &'static [u8]) -> Result<Self, CheckpointError> {
        let mut checkpoint = Self::empty(name.to_owned(), None);
        checkpoint.add_shard(Path::new(name), Bytes::Builtin(bytes))?;
        checkpoint.checked_tercet(Path::new(name))
    }

    /// Takes the bytes of a `.tercet` file that was made in memory.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::open`].
    pub(crate) fn made(name: &str, bytes: Mmap) -> Result<Self, CheckpointError> {
        let mut checkpoint = Self::empty(name.to_owned(), None);
        checkpoint.add_shard(Path::new(name), Bytes::Made(bytes))?;
        checkpoint.checked_tercet(Path::new(name))
    }

    /// Whether the metadata is that of a `.tercet` file we read.
    fn checked_tercet(self, path: &Path) -> Result<Self, CheckpointError> {
        let path = path.to_owned();
        match self.metadata(TERCET_FORMAT_KEY) {
            Some(TERCET_FORMAT_VERSION) => {}
            Some(got) => return Err(CheckpointError::Version { path, got: got.to_owned() }),
            None => return Err(CheckpointError::Lone { path }),
        }
        if self.layout().is_none() {
            let got = self.metadata(TERCET_LAYOUT_KEY).unwrap_or("unnamed").to_owned();
            return Err(CheckpointError::Layout { path, got });
        }
        Ok(self)
    }

    fn from_files(
        name: String,
        folder: Option<PathBuf>,
        files: &[PathBuf],
    ) -> Result<Self, CheckpointError> {
        let mut checkpoint = Self::empty(name, folder);
        for file in files {
            checkpoint.add_shard(file, Bytes::map(file)?)?;
        }
        Ok(checkpoint)
    }

    fn empty(name: String, folder: Option<PathBuf>) -> Self {
        Self { name, folder, shards: Vec::new(), index: HashMap::new() }
    }

    fn add_shard(&mut self, path: &Path, bytes: Bytes) -> Result<(), CheckpointError> {
        let (header, data_start) = header::read(&bytes)
            .map_err(|source| CheckpointError::Header { path: path.to_owned(), source })?;
        for tensor in header.offset_keys() {
            if self.index.contains_key(&tensor) {
                return Err(CheckpointError::Duplicate { tensor });
            }
            self.index.insert(tensor, self.shards.len());
        }
        self.shards.push(Shard { bytes, header, data_start });
        Ok(())
    }

    /// How the user named the model.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is a `.tercet` file, on disk or built in.
    #[must_use]
    pub fn is_tercet(&self) -> bool {
        self.folder.is_none()
    }

    /// How the ternary matrices of a `.tercet` file are laid out; `None` for a folder.
    #[must_use]
    pub fn layout(&self) -> Option<WeightLayout> {
        if !self.is_tercet() {
            return None;
        }
        self.metadata(TERCET_LAYOUT_KEY).and_then(WeightLayout::by_name)
    }

    /// The tensor called `name`.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let shard = &self.shards[*self.index.get(name)?];
        let info = shard.header.info(name)?;
        let (start, end) = info.data_offsets;
        // In bounds: `header::read` compared the last offset with the file's length.
        let bytes = &shard.bytes[shard.data_start + start..shard.data_start + end];
        Some(Tensor { dtype: info.dtype, shape: &info.shape, bytes })
    }

    /// Names of all tensors, in the order of the files.
    pub fn tensor_names(&self) -> impl Iterator<Item = String> + '_ {
        self.shards.iter().flat_map(|shard| shard.header.offset_keys())
    }

    /// Bytes of all files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes.len() as u64).sum()
    }

    /// All bytes of every file of weights, in their order.
    pub(crate) fn files(&self) -> impl Iterator<Item = &[u8]> {
        self.shards.iter().map(|shard| &*shard.bytes)
    }

    /// What stands before the data in every file of weights: the length field and the header.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &[u8]> {
        self.shards.iter().map(|shard| &shard.bytes[..shard.data_start])
    }

    /// All bytes of the first file, to compare.
    #[cfg(test)]
    pub(crate) fn first_file(&self) -> &[u8] {
        &self.shards[0].bytes
    }

    /// The value of `key` in the metadata of the first file.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.shards.first()?.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// The side file called `name` (`config.json`, `tokenizer.json`, ...), or `None`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Open`] and [`CheckpointError::TooLong`]; a file that is not there is
    /// none.
    pub fn file(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>, CheckpointError> {
        let limit =
            if name == "tokenizer.json" { TOKENIZER_BYTES_MAX } else { SIDE_FILE_BYTES_MAX };
        let Some(folder) = &self.folder else {
            let tensor = self.tensor(&format!("{TERCET_FILE_PREFIX}{name}"));
            return match tensor {
                Some(tensor) if tensor.bytes.len() as u64 > limit => {
                    Err(CheckpointError::TooLong { path: name.into(), limit })
                }
                tensor => Ok(tensor.map(|tensor| Cow::Borrowed(tensor.bytes))),
            };
        };
        match read_small(&folder.join(name), limit) {
            Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
            Err(CheckpointError::Open { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads a regular file of at most `limit` bytes.
fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, CheckpointError> {
    let open = |source| CheckpointError::Open { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(open)?;
    if !metadata.is_file() {
        return Err(CheckpointError::NotAFile { path: path.to_owned() });
    }
    let too_long = || CheckpointError::TooLong { path: path.to_owned(), limit };
    if metadata.len() > limit {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(open)?;
    // The length is what can be read, not what the file system says: one byte more than allowed
    // tells a file that grew.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(open)?;
    if bytes.len() as u64 > limit {
        return Err(too_long());
    }
    Ok(bytes)
}

/// The weight files of a folder: one file, or those its index names.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let single = folder.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = folder.join("model.safetensors.index.json");
    if index.exists() {
        return shards::read(&index);
    }
    let entries = std::fs::read_dir(folder)
        .map_err(|source| CheckpointError::Open { path: folder.to_owned(), source })?;
    let pickled = entries.flatten().any(|entry| is_pickle(&entry.path()));
    Err(if pickled {
        CheckpointError::Pickled { path: folder.to_owned() }
    } else {
        CheckpointError::NoWeights { path: folder.to_owned() }
    })
}

fn is_pickle(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["bin", "pt", "pth", "pkl", "ckpt"].iter().any(|e| extension == *e)
    })
}

/// Names the formats that people have at hand, instead of calling them damaged.
fn refuse_other_formats(path: &Path) -> Result<(), CheckpointError> {
    if is_pickle(path) {
        return Err(CheckpointError::Pickled { path: path.to_owned() });
    }
    let mut magic = [0; 4];
    let open = |source| CheckpointError::Open { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(open)?.is_file() {
        return Err(CheckpointError::NotAFile { path: path.to_owned() });
    }
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut magic));
    let format = match &magic[..read.map_err(open)?] {
        b"GGUF" => "GGUF",
        [b'P', b'K', 3, 4] => "PyTorch (zip)",
        _ => return Ok(()),
    };
    Err(CheckpointError::Format { path: path.to_owned(), format })
}
