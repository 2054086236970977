//! From a checkpoint to a `.tercet` file: packed, self-contained, made for mapping.

use std::path::Path;

use serde_json::{Map, Value};
use tercet_kernels_ptx::contract::CONTRACT_VERSION;
use tercet_kernels_ptx::kernels;

use crate::backend::cuda::kernels::{self, TERCET_CONTRACT_KEY, TERCET_PTX_PREFIX};
use crate::checkpoint::{
    Dtype, TERCET_FILE_PREFIX, TERCET_FORMAT_KEY, TERCET_FORMAT_VERSION, TERCET_LAYOUT_KEY, Tensor,
};
use crate::error::Error;
use crate::layout::WeightLayout;
use crate::package::{Package, SIDE_FILES};
use crate::ternary::TernaryMatrix;
use crate::write::{DIGEST_PREFIX, Entry, Header, SafetensorsWriter, Style};

/// Every tensor of a `.tercet` file starts at a multiple of this many bytes.
pub const TERCET_ALIGN: usize = 256;

/// How a `.tercet` file is laid out.
pub(crate) const TERCET_STYLE: Style = Style { align: TERCET_ALIGN, fill: true, digests: true };

/// What the metadata of a `.tercet` file says beside the digests.
pub(crate) fn tercet_metadata(layout: WeightLayout) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert(TERCET_FORMAT_KEY.into(), TERCET_FORMAT_VERSION.into());
    metadata.insert(TERCET_LAYOUT_KEY.into(), layout.name().into());
    metadata
}

/// A part of the file, in order: large packed matrices first, small files last.
enum Part<'m> {
    Codes(&'m TernaryMatrix<'m>),
    Unit,
    Plain(Tensor<'m>),
    File(std::borrow::Cow<'m, [u8]>),
    Kernel(&'static str),
}

/// Whether a file carries GPU kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// As U8 tensors `tercet.ptx.NAME`, so that the file and its kernels cannot drift apart.
    Include,
    /// A reader uses its own.
    LeaveOut,
}

/// Writes `package` to `path` as a `.tercet` file. `progress` hears bytes done and bytes in all.
///
/// Ternary matrices are packed into `layout` with their unit beside them
/// (`NAME.weight_unit`, F32); everything else is copied as stored. The metadata holds the BLAKE3
/// digest of every tensor. The PTX of the kernels follows, if `with` says so. The file
/// appears under its name when it is complete.
///
/// # Errors
///
/// [`Error::Write`] and, for damaged weights, [`Error::Model`].
pub fn write_tercet(
    package: &Package,
    path: &Path,
    layout: WeightLayout,
    with: Kernels,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Error> {
    let model = package.bind()?;
    let mut parts = Vec::new();
    let mut entries = Vec::new();
    let mut add = |name: String, dtype, shape: Vec<usize>, part| {
        entries.push(Entry { name, dtype, shape });
        parts.push(part);
    };
    for matrix in model.layers.iter().flat_map(|layer| layer.matrices()) {
        let shape = vec![matrix.rows, layout.row_bytes(matrix.cols)];
        add(matrix.name.clone(), Dtype::U8, shape, Part::Codes(matrix));
        add(format!("{}_unit", matrix.name), Dtype::F32, vec![1], Part::Unit);
    }
    for name in &model.plain_tensors {
        if let Some(tensor) = package.checkpoint.tensor(name) {
            add(name.clone(), tensor.dtype, tensor.shape.to_vec(), Part::Plain(tensor));
        }
    }
    for name in SIDE_FILES {
        if let Some(bytes) = package.checkpoint.file(name)? {
            let shape = vec![bytes.len()];
            add(format!("{TERCET_FILE_PREFIX}{name}"), Dtype::U8, shape, Part::File(bytes));
        }
    }

    let mut metadata = tercet_metadata(layout);
    if with == Kernels::Include {
        metadata.insert(TERCET_CONTRACT_KEY.into(), CONTRACT_VERSION.to_string().into());
        for kernel in kernels() {
            let name = format!("{TERCET_PTX_PREFIX}{}", kernels::name(kernel));
            add(name, Dtype::U8, vec![kernel.ptx.len()], Part::Kernel(kernel.ptx));
        }
    }
    let total = parts.iter().map(Part::source_bytes).sum();
    let mut done = 0;
    let header = Header::new(entries, metadata, TERCET_STYLE);
    let mut writer = SafetensorsWriter::create(path, header)?;
    let mut unit = 0.0_f32;
    for part in &parts {
        writer.tensor(|write| match part {
            Part::Codes(matrix) => {
                let (bytes, of_matrix) = matrix.packed(layout)?;
                unit = of_matrix;
                write(&bytes)
            }
            Part::Unit => write(&unit.to_le_bytes()),
            Part::Plain(tensor) => write(tensor.bytes),
            Part::File(bytes) => write(bytes),
            Part::Kernel(ptx) => write(ptx.as_bytes()),
        })?;
        done += part.source_bytes();
        progress(done, total);
    }
    writer.finish()
}

impl Part<'_> {
    fn source_bytes(&self) -> u64 {
        match self {
            Self::Codes(matrix) => matrix.stored_bytes() as u64,
            Self::Unit => 4,
            Self::Plain(tensor) => tensor.bytes.len() as u64,
            Self::File(bytes) => bytes.len() as u64,
            Self::Kernel(ptx) => ptx.len() as u64,
        }
    }
}

/// What [`check_digests`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestReport {
    /// Tensors whose bytes have the recorded digest.
    pub matching: usize,
    /// Names of tensors whose bytes do not.
    pub differing: Vec<String>,
    /// Tensors without a recorded digest (fillers, and files of other writers).
    pub unrecorded: usize,
}

/// Compares every tensor of `package` with the digest its file records. Reads the whole file.
#[must_use]
pub fn check_digests(package: &Package) -> DigestReport {
    let mut report = DigestReport { matching: 0, differing: Vec::new(), unrecorded: 0 };
    for name in package.checkpoint.tensor_names() {
        let recorded = package.checkpoint.metadata(&format!("{DIGEST_PREFIX}{name}"));
        let tensor = package.checkpoint.tensor(&name);
        match (recorded, tensor) {
            (Some(recorded), Some(tensor)) => {
                if blake3::hash(tensor.bytes).to_hex().as_str() == recorded {
                    report.matching += 1;
                } else {
                    report.differing.push(name);
                }
            }
            _ => report.unrecorded += 1,
        }
    }
    report
}
