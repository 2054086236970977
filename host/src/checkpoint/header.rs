//! The safetensors header, read under limits of our own.
//!
//! The crate `safetensors` owns the types and the rules about offsets. It accepts two things its
//! own format description forbids (duplicate keys, a header that does not start with `{`) and lets
//! a legal 100 MB header cost seconds and gigabytes, so the JSON is walked here, with limits, and
//! handed over as checked entries.

use core::fmt;
use std::collections::{HashMap, HashSet};

use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

/// Longest header read, in bytes. Models of 100 layers need about 200 KiB.
pub(super) const HEADER_BYTES_MAX: u64 = 32 << 20;
/// Most tensors in one file, and most entries of its metadata.
pub(super) const TENSORS_MAX: usize = 200_000;

/// Why the bytes are no safetensors file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Fewer bytes than the length field takes.
    #[error("the file has {got} bytes, a safetensors file has at least 8")]
    TooShort {
        /// Length of the file in bytes.
        got: usize,
    },
    /// The header is longer than the limit.
    #[error("the header claims {claimed} bytes, the limit is {HEADER_BYTES_MAX}")]
    TooLong {
        /// Length that the first eight bytes claim.
        claimed: u64,
    },
    /// The header is longer than the file.
    #[error("the header claims {claimed} bytes, the file has {got} after the length field")]
    Truncated {
        /// Length that the first eight bytes claim.
        claimed: u64,
        /// Bytes that follow the length field.
        got: usize,
    },
    /// The header does not begin with `{`.
    #[error("the header begins with byte {byte:#04x} instead of `{{`")]
    NotAnObject {
        /// First byte of the header.
        byte: u8,
    },
    /// The header is no JSON of the expected form, holds a name twice, or too many tensors.
    #[error("the header is damaged: {0}")]
    Json(#[from] serde_json::Error),
    /// Offsets, shapes and types do not fit together.
    #[error("the header contradicts itself: {0}")]
    Contradiction(#[from] safetensors::SafeTensorError),
    /// The tensors end elsewhere than the file.
    #[error(
        "the tensors take {claimed} bytes, the file holds {got}: it is cut short or has a tail"
    )]
    DataLength {
        /// End of the last tensor.
        claimed: usize,
        /// Bytes after the header.
        got: usize,
    },
}

/// Reads the header of `file` and returns it with the offset where tensor data starts.
///
/// # Errors
///
/// [`HeaderError`] unless the header is within the limits, names every tensor once, and its tensors
/// fill the rest of `file` exactly, without holes or overlap.
///
/// Format: <https://github.com/huggingface/safetensors>, README, section "Format" (24b0b28).
pub(super) fn read(file: &[u8]) -> Result<(Metadata, usize), HeaderError> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(HeaderError::TooShort { got: file.len() });
    };
    let claimed = u64::from_le_bytes(*length);
    if claimed > HEADER_BYTES_MAX {
        return Err(HeaderError::TooLong { claimed });
    }
    let header_bytes = usize::try_from(claimed).map_err(|_| HeaderError::TooLong { claimed })?;
    let Some(header) = rest.get(..header_bytes) else {
        return Err(HeaderError::Truncated { claimed, got: rest.len() });
    };
    match header.first() {
        Some(b'{') => {}
        first => return Err(HeaderError::NotAnObject { byte: first.copied().unwrap_or(0) }),
    }

    let mut json = serde_json::Deserializer::from_slice(header);
    let entries = Entries.deserialize(&mut json)?;
    json.end()?;

    let (metadata, mut tensors) = entries;
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let metadata = Metadata::new(metadata, tensors)?;
    let got = rest.len() - header_bytes;
    if metadata.data_len() != got {
        return Err(HeaderError::DataLength { claimed: metadata.data_len(), got });
    }
    Ok((metadata, 8 + header_bytes))
}

type Parsed = (Option<HashMap<String, String>>, Vec<(String, TensorInfo)>);

/// Reads the header object entry by entry, so that limits bind before memory is spent.
struct Entries;

impl<'de> DeserializeSeed<'de> for Entries {
    type Value = Parsed;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parsed, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensor names")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Parsed, M::Error> {
        use serde::de::Error;
        let mut metadata = None;
        let mut names = HashSet::new();
        let mut tensors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(M::Error::custom(format_args!("the name `{name}` stands twice")));
            }
            if name == "__metadata__" {
                metadata = Some(map.next_value::<Texts>()?.0);
                continue;
            }
            if tensors.len() == TENSORS_MAX {
                return Err(M::Error::custom(format_args!("more than {TENSORS_MAX} tensors")));
            }
            tensors.push((name, map.next_value()?));
        }
        Ok((metadata, tensors))
    }
}

/// The metadata: texts by name.
struct Texts(HashMap<String, String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Texts, M::Error> {
        use serde::de::Error;
        let mut texts = HashMap::new();
        while let Some((name, text)) = map.next_entry()? {
            if texts.len() == TENSORS_MAX {
                return Err(M::Error::custom(format_args!("more than {TENSORS_MAX} metadata")));
            }
            texts.insert(name, text);
        }
        Ok(Texts(texts))
    }
}
