//! What a folder in Hugging Face's layout holds beside the weights, and how it appears.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Kind;
use crate::config::{LinearKind, parse_object};
use crate::error::Error;
use crate::preset::Preset;
use crate::write::{Style, folder_of};

/// As `safetensors` itself writes: data at a multiple of 8, no holes and no fillers.
pub(super) const STYLE: Style = Style { align: 8, fill: false, digests: false };

/// As transformers writes it, and asks for when it reads.
pub(super) fn metadata() -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("format".into(), "pt".into());
    metadata
}

/// The `config.json` that says how the weights of a kind are stored.
///
/// Packed models need a `quantization_config`; where the released model has none (it holds master
/// weights), it gets the one of Microsoft's packed models, whose scales are multiplied by. Master
/// weights of a model that has one are marked `online`, as in Microsoft's bf16 repository.
pub(super) fn config(preset: &Preset, kind: Kind) -> Result<String, Error> {
    if matches!(kind, Kind::Tercet(_)) || preset.parse()?.linears == LinearKind::Float {
        return Ok(preset.config.to_owned());
    }
    let key = "quantization_config";
    let auto = |mode: &str| {
        json!({
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": mode,
        })
    };
    let mut object = parse_object("config.json", preset.config.as_bytes())?;
    match (kind, object.contains_key(key)) {
        (Kind::HuggingFace, false) => {
            object.insert(key.into(), auto("offline"));
        }
        (Kind::Native, true) => {
            object.insert(key.into(), auto("online"));
        }
        _ => {}
    }
    Ok(format!("{:#}\n", Value::Object(object)))
}

/// Makes a folder at `path` that appears when `fill` has filled it. An empty folder is replaced.
pub(super) fn folder(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    let error = |source| Error::Write { path: path.to_owned(), source };
    // Asked first: finding out after ten gigabytes would be late.
    match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(error(std::io::ErrorKind::DirectoryNotEmpty.into())),
        Err(reason) if reason.kind() == std::io::ErrorKind::NotFound => {}
        Err(reason) => return Err(error(reason)),
    }
    let unfinished =
        tempfile::Builder::new().prefix(".tercet-").suffix(".part").tempdir_in(folder_of(path));
    // Removed with what is in it unless it gets its name.
    let unfinished = unfinished.map_err(error)?;
    fill(unfinished.path())?;
    share(unfinished.path()).map_err(error)?;
    fs::rename(unfinished.path(), path).map_err(error)
}

/// Writes a small file and makes it durable.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::io::Write;
    fs::File::create_new(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// A temporary folder is the user's alone; what appears is as readable as any new folder.
#[cfg(unix)]
fn share(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn share(_path: &Path) -> std::io::Result<()> {
    Ok(())
}
