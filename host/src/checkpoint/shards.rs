//! `model.safetensors.index.json`: which file holds which tensor.

use core::fmt;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::CheckpointError;

/// Longest index read, in bytes.
const INDEX_BYTES_MAX: u64 = 16 << 20;
/// Most files an index may name.
const SHARDS_MAX: usize = 4096;

#[derive(Deserialize)]
struct Index {
    weight_map: Files,
}

/// The file names of an index, each once; tensor names and repetitions cost no memory.
struct Files(BTreeSet<String>);

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FilesVisitor)
    }
}

struct FilesVisitor;

impl<'de> Visitor<'de> for FilesVisitor {
    type Value = Files;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from tensor names to file names")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Files, M::Error> {
        let mut names = BTreeSet::new();
        while map.next_key::<IgnoredAny>()?.is_some() {
            names.insert(map.next_value::<String>()?);
            if names.len() > SHARDS_MAX {
                return Err(M::Error::custom(format_args!("more than {SHARDS_MAX} files")));
            }
        }
        Ok(Files(names))
    }
}

/// Reads the index at `path` and returns the files it names, each once, in order of name.
///
/// A name from the index becomes a path, so it is held to the folder: one plain component, a
/// regular file, and a link only where it stays inside the folder or inside the repository folder
/// of a Hugging Face cache (`snapshots/REV/name -> ../../blobs/HASH`).
pub(super) fn read(path: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let index_error = |what: String| CheckpointError::Index { path: path.to_owned(), what };
    let bytes = super::read_small(path, INDEX_BYTES_MAX)?;
    let index: Index =
        serde_json::from_slice(&bytes).map_err(|error| index_error(error.to_string()))?;
    let Files(names) = index.weight_map;
    if names.is_empty() {
        return Err(index_error("it names no file".into()));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    names.iter().map(|name| shard_path(folder, name, &index_error)).collect()
}

fn shard_path(
    folder: &Path,
    name: &str,
    index_error: &dyn Fn(String) -> CheckpointError,
) -> Result<PathBuf, CheckpointError> {
    let plain = !name.is_empty()
        && !name.starts_with('.')
        && name.ends_with(".safetensors")
        && !name.contains(['/', '\\', '\0', ':']);
    if !plain {
        return Err(index_error(format!("`{name}` is no plain name of a safetensors file")));
    }
    let path = folder.join(name);
    let open = |source| CheckpointError::Open { path: path.clone(), source };
    let real = path.canonicalize().map_err(open)?;
    let home = folder.canonicalize().map_err(open)?;
    if !real.starts_with(&home) && !in_cache_blobs(&home, &real) {
        return Err(index_error(format!("`{name}` is a link that leaves the folder")));
    }
    Ok(path)
}

/// Whether `real` lies in the `blobs` folder of the cached repository that `home` is a snapshot of.
fn in_cache_blobs(home: &Path, real: &Path) -> bool {
    let mut up = home.ancestors().skip(1);
    match (up.next(), up.next()) {
        (Some(snapshots), Some(repository)) => {
            snapshots.file_name().is_some_and(|name| name == "snapshots")
                && real.parent() == Some(&repository.join("blobs"))
        }
        _ => false,
    }
}
