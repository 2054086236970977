//! Random weights of a true shape: a model that can be measured, without a download.
//!
//! Numbers depend on the seed and on a tensor's name and nothing else: the same seed gives the same
//! bytes, in memory and on disk, and every [`Kind`] holds the same model. About a third of the
//! trits is zero (21/64); units are powers of two chosen so that activations keep their size; there
//! is no tokenizer, so such a model runs on token ids. What it says is noise.

mod files;
mod names;
mod random;
mod tensors;
#[cfg(test)]
mod tests;

use std::io::{Cursor, Seek, Write};
use std::path::Path;

use half::bf16;
use safetensors::Dtype;

use self::names::tensors;
use self::tensors::{Role, Take, Tensor};
use crate::backend::DeviceError;
use crate::checkpoint::{Checkpoint, TERCET_FILE_PREFIX, anonymous};
use crate::config::{ModelConfig, UnitRule};
use crate::convert::{TERCET_STYLE, tercet_metadata};
use crate::error::Error;
use crate::floats::FloatType;
use crate::layout::WeightLayout;
use crate::measure::machine::available_memory;
use crate::preset::Preset;
use crate::write::{Entry, Header, SafetensorsWriter};

/// Kinds of checkpoints that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One packed `.tercet` file, its matrices in this layout.
    Tercet(WeightLayout),
    /// A folder in Hugging Face's layout, weights packed to `uint8` with a `weight_scale` each.
    HuggingFace,
    /// A folder in Hugging Face's layout, master weights in bfloat16: each is its trit times the
    /// unit of its matrix. Tercet reads that unit back; a reader that always quantises by the mean
    /// magnitude finds one that is smaller by the share of zeros.
    ///
    /// Models whose linears are floats are the same folder in both.
    Native,
}

/// Makes a `.tercet` model in memory, its matrices in `layout`, in huge pages where the system has
/// them.
///
/// `progress` hears bytes done and bytes in all.
///
/// # Errors
///
/// [`Error::Config`] for a preset that this version does not run, and [`DeviceError::TooLarge`]
/// when there is less memory than the model takes.
pub fn in_memory(
    preset: &Preset,
    layout: WeightLayout,
    seed: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Checkpoint, Error> {
    let what = "the model";
    let plan = Plan::new(preset, Kind::Tercet(layout))?;
    let bytes = plan.header.file_bytes();
    if let Some(available) = available_memory().filter(|available| *available < bytes as u64) {
        return Err(DeviceError::TooLarge { what, needed: bytes as u64, available }.into());
    }
    let refused = |_| DeviceError::OutOfMemory { what, needed: bytes as u64 };
    let mut map = anonymous(bytes).map_err(refused)?;
    let name = format!("{} (random weights, seed {seed})", preset.name);
    let out = Cursor::new(&mut map[..]);
    let writer = SafetensorsWriter::start(Path::new(&name), plan.header.clone(), out)?;
    plan.write(seed, writer, progress)?.complete()?;
    Ok(Checkpoint::made(&name, map.make_read_only().map_err(refused)?)?)
}

/// Writes a checkpoint to `path`: a file for [`Kind::Tercet`], otherwise a folder. It appears under
/// its name when it is complete; a file is replaced, a folder with something in it is not.
///
/// `progress` hears bytes done and bytes in all.
///
/// # Errors
///
/// [`Error::Config`] for a preset that this version does not run, and [`Error::Write`].
pub fn write(
    preset: &Preset,
    kind: Kind,
    path: &Path,
    seed: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Error> {
    let plan = Plan::new(preset, kind)?;
    if matches!(kind, Kind::Tercet(_)) {
        let writer = SafetensorsWriter::create(path, plan.header.clone())?;
        return plan.write(seed, writer, progress)?.finish();
    }
    files::folder(path, |folder| {
        let file = folder.join("model.safetensors");
        let writer = SafetensorsWriter::create(&file, plan.header.clone())?;
        plan.write(seed, writer, progress)?.finish()?;
        files::write(&folder.join("config.json"), plan.config.as_bytes())
    })
}

/// A tensor of the file and how it is made.
struct Part {
    entry: Entry,
    content: Content,
}

enum Content {
    /// Codes in a layout of our own.
    Packed(Tensor, WeightLayout),
    /// Codes as Hugging Face packs them.
    Quarters(Tensor),
    /// Trits times their unit, in bfloat16.
    Master(Tensor),
    /// Anything that is not ternary.
    Floats(Tensor, FloatType),
    /// A unit, or the text of a side file.
    Bytes(Vec<u8>),
}

/// What will stand in the file.
struct Plan {
    /// Text of `config.json`.
    config: String,
    parts: Vec<Part>,
    header: Header,
}

impl Plan {
    fn new(preset: &Preset, kind: Kind) -> Result<Self, Error> {
        let config = files::config(preset, kind)?;
        let parsed = ModelConfig::parse(config.as_bytes())?;
        let divide = parsed.unit_rule == UnitRule::Divide;
        let mut parts = Vec::new();
        let mut add = |name: String, dtype, shape, content| {
            parts.push(Part { entry: Entry { name, dtype, shape }, content });
        };
        for tensor in tensors(&parsed) {
            let Tensor { rows, cols, role, .. } = tensor;
            let (name, unit) = (tensor.name.clone(), tensor.unit());
            match (role, kind) {
                (Role::Float | Role::Table | Role::Norm | Role::Bias, _) => {
                    let dtype = match preset.float {
                        FloatType::F16 => Dtype::F16,
                        FloatType::Bf16 => Dtype::BF16,
                        FloatType::F32 => Dtype::F32,
                    };
                    add(name, dtype, tensor.shape(), Content::Floats(tensor, preset.float));
                }
                (Role::Ternary, Kind::Tercet(layout)) => {
                    let shape = vec![rows, layout.row_bytes(cols)];
                    add(name.clone(), Dtype::U8, shape, Content::Packed(tensor, layout));
                    let unit = Content::Bytes(unit.to_le_bytes().into());
                    add(format!("{name}_unit"), Dtype::F32, vec![1], unit);
                }
                (Role::Ternary, Kind::HuggingFace) => {
                    let shape = vec![rows.div_ceil(4), cols];
                    add(name.clone(), Dtype::U8, shape, Content::Quarters(tensor));
                    let scale = bf16::from_f32(if divide { 1.0 / unit } else { unit });
                    let scale = Content::Bytes(scale.to_le_bytes().into());
                    add(format!("{name}_scale"), Dtype::BF16, vec![1], scale);
                }
                (Role::Ternary, Kind::Native) => {
                    add(name, Dtype::BF16, tensor.shape(), Content::Master(tensor));
                }
            }
        }
        let (metadata, style) = match kind {
            Kind::Tercet(layout) => {
                let (name, text) = (format!("{TERCET_FILE_PREFIX}config.json"), config.as_bytes());
                add(name, Dtype::U8, vec![text.len()], Content::Bytes(text.into()));
                (tercet_metadata(layout), TERCET_STYLE)
            }
            Kind::HuggingFace | Kind::Native => (files::metadata(), files::STYLE),
        };
        let entries = parts.iter().map(|part| part.entry.clone()).collect();
        Ok(Self { config, parts, header: Header::new(entries, metadata, style) })
    }

    /// Makes every tensor.
    fn write<W: Write + Seek>(
        &self,
        seed: u64,
        mut writer: SafetensorsWriter<W>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<SafetensorsWriter<W>, Error> {
        let total = self.header.file_bytes() as u64;
        let mut done = 0;
        for part in &self.parts {
            writer.tensor(|write| {
                part.content.make(seed, &mut |bytes| {
                    write(bytes)?;
                    done += bytes.len() as u64;
                    progress(done, total);
                    Ok(())
                })
            })?;
        }
        Ok(writer)
    }
}

impl Content {
    fn make(&self, seed: u64, take: Take<'_>) -> Result<(), Error> {
        match self {
            Self::Packed(tensor, WeightLayout::Rows128) => tensor.codes(seed, take),
            Self::Packed(tensor, WeightLayout::Base3) => tensor.base3(seed, take),
            Self::Quarters(tensor) => tensor.quarters(seed, take),
            Self::Master(tensor) => tensor.master(seed, take),
            Self::Floats(tensor, float) => tensor.floats(seed, *float, take),
            Self::Bytes(bytes) => take(bytes),
        }
    }
}
