//! [`CudaWeights`]: a model in device memory.

use core::time::Duration;
use std::time::Instant;

use rayon::prelude::*;
use tercet_core::packed::Mma16x128;
use tercet_core::simd::Simd;
use tercet_kernels_ptx::launch::{FloatLinearShape, WeightType};

use super::driver::{Context, CudaError, DeviceBuffer};
use super::launches::{count, weight_type};
use super::modules::{Loading, Modules};
use super::staging::{Staging, copy_all};
use crate::backend::{DeviceError, HeadType};
use crate::config::{LinearKind, ModelConfig};
use crate::int8::round_row;
use crate::model::{FloatMatrix, Layer, Linear, LinearWeights, Model, Norm};
use crate::ternary::Rows128Matrix;

/// Two codes of trit zero, four times: what pads a matrix.
const ZERO_CODES: u8 = 0b0101_0101;

/// A model in device memory.
#[derive(Debug)]
pub struct CudaWeights {
    pub(super) config: ModelConfig,
    pub(super) embedding: Embedding,
    pub(super) positions: Option<DeviceFloats>,
    /// Codes of all ternary linears: one allocation, because the driver rounds each up to two
    /// mebibytes.
    pub(super) codes: DeviceBuffer<u8>,
    pub(super) layers: Vec<DeviceLayer>,
    pub(super) final_norm: DeviceNorm,
    pub(super) head: DeviceFloats,
    pub(super) modules: Modules,
    /// How long bringing the weights took.
    pub(super) copied_in: Duration,
    /// Bytes of all of it.
    pub(super) bytes: u64,
    /// Bytes of weights that a step reads.
    pub(super) bytes_per_step: u64,
}

/// Where the embedding is.
#[derive(Debug)]
pub(super) enum Embedding {
    /// It is the head.
    Head,
    /// A table of its own.
    Device(DeviceFloats),
}

#[derive(Debug)]
pub(super) struct DeviceLayer {
    pub(super) attention_norm: DeviceNorm,
    pub(super) qkv: DeviceLinear,
    pub(super) attention_sub_norm: Option<DeviceNorm>,
    pub(super) attention_out: DeviceLinear,
    pub(super) ffn_norm: DeviceNorm,
    /// Gate, where there is one, and up.
    pub(super) gate_up: DeviceLinear,
    pub(super) ffn_sub_norm: Option<DeviceNorm>,
    pub(super) down: DeviceLinear,
}

#[derive(Debug)]
pub(super) struct DeviceNorm {
    /// `(width,)`
    pub(super) weight: DeviceBuffer<f32>,
    /// `(width,)` of a layer norm.
    pub(super) bias: Option<DeviceBuffer<f32>>,
}

/// A linear, or several that read the same rows.
#[derive(Debug)]
pub(super) enum DeviceLinear {
    Ternary(DeviceTernary),
    /// Beside each other in the output, in this order; gate before up.
    Float(Vec<DeviceFloats>),
}

/// Ternary matrices as one, in layout `mma16x128`.
#[derive(Debug)]
pub(super) struct DeviceTernary {
    /// `(row_tiles, col_tiles, 512)`, from byte `codes_at` of all layers' codes.
    pub(super) codes_at: usize,
    /// `(16 * row_tiles,)`: weight unit of each row.
    pub(super) units: DeviceBuffer<f32>,
    /// `(16 * row_tiles,)`
    pub(super) bias: Option<DeviceBuffer<f32>>,
    pub(super) row_tiles: u32,
    pub(super) cols: u32,
    /// Features of the output; of gate and up together half of the rows.
    pub(super) features: u32,
    /// Whether row tile `2i` is the gate's and `2i + 1` up's.
    pub(super) gated: bool,
}

/// A float matrix.
#[derive(Debug)]
pub(super) struct DeviceFloats {
    pub(super) numbers: WeightType,
    /// `(rows, cols)`, or the tiles of it that float linears read.
    pub(super) bytes: DeviceBuffer<u8>,
    pub(super) tiled: bool,
    /// `(rows,)` of INT8 weights: what 1 is worth.
    pub(super) units: Option<DeviceBuffer<f32>>,
    /// `(rows,)`
    pub(super) bias: Option<DeviceBuffer<f32>>,
    pub(super) rows: u32,
    pub(super) cols: u32,
}

/// Uploads `model`; `progress` hears bytes done and bytes in all. `modules` is waited for last:
/// they are being compiled meanwhile.
pub(super) fn upload(
    context: &Context,
    model: &Model<'_>,
    head: HeadType,
    staging: Staging,
    modules: Loading<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CudaWeights, DeviceError> {
    let config = &model.config;
    let layer_bytes = |layer: &Layer<'_>| -> u64 {
        layer.linears().map(|linear| linear.stored_bytes() as u64).sum()
    };
    let tables =
        model.head.bytes.len() + if model.tied() { 0 } else { model.embedding.bytes.len() };
    let total = model.layers.iter().map(layer_bytes).sum::<u64>() + tables as u64;
    progress(0, total);
    let start = Instant::now();

    let codes = DeviceBuffer::uninitialized(context, "the weights", codes_bytes(model))?;
    let mut to = Uploader { context, staging, codes, filled: 0 };
    let head = match head {
        HeadType::Stored => to.floats("the head", &model.head, None)?,
        HeadType::Int8 => to.int8(&model.head)?,
    };
    // A rounded head is no table.
    let embedding = if model.tied() && head.units.is_none() {
        Embedding::Head
    } else {
        Embedding::Device(to.table(&model.embedding)?)
    };
    let mut done = tables as u64;
    progress(modules.as_far(done, total), total);
    let mut layers = Vec::with_capacity(model.layers.len());
    for layer in &model.layers {
        layers.push(to.layer(layer, config)?);
        done += layer_bytes(layer);
        progress(modules.as_far(done, total), total);
    }
    let positions = model.positions.as_ref().map(|table| to.table(table)).transpose()?;
    let final_norm = to.norm(&model.final_norm)?;
    to.staging.finish()?;
    let copied_in = start.elapsed();

    let mut weights = CudaWeights {
        config: config.clone(),
        embedding,
        positions,
        codes: to.codes,
        layers,
        final_norm,
        head,
        modules: modules.wait(total, progress)?,
        copied_in,
        bytes: 0,
        bytes_per_step: 0,
    };
    weights.count();
    Ok(weights)
}

impl CudaWeights {
    /// Sums up what is on the device.
    fn count(&mut self) {
        let layers: usize = self.layers.iter().map(DeviceLayer::bytes).sum();
        let step = self.codes.bytes() + layers + self.final_norm.bytes() + self.head.bytes();
        let table = match &self.embedding {
            Embedding::Head => 0,
            Embedding::Device(table) => table.bytes(),
        };
        let positions = self.positions.as_ref().map_or(0, DeviceFloats::bytes);
        self.bytes_per_step = step as u64;
        self.bytes = (step + table + positions) as u64;
    }

    /// Bytes of weights that a step reads, however many rows it has.
    #[must_use]
    pub fn bytes_per_step(&self) -> u64 {
        self.bytes_per_step
    }

    /// Bytes of device memory that the model takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl DeviceLayer {
    /// Bytes beside the codes.
    fn bytes(&self) -> usize {
        let norms = [&self.attention_norm, &self.ffn_norm].into_iter();
        let norms = norms.chain(&self.attention_sub_norm).chain(&self.ffn_sub_norm);
        let linears = [&self.qkv, &self.attention_out, &self.gate_up, &self.down];
        norms.map(DeviceNorm::bytes).sum::<usize>()
            + linears.into_iter().map(DeviceLinear::bytes).sum::<usize>()
    }
}

impl DeviceNorm {
    fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.as_ref().map_or(0, DeviceBuffer::bytes)
    }
}

impl DeviceLinear {
    fn bytes(&self) -> usize {
        match self {
            Self::Ternary(matrix) => {
                let bias = matrix.bias.as_ref().map_or(0, DeviceBuffer::bytes);
                matrix.units.bytes() + bias
            }
            Self::Float(matrices) => matrices.iter().map(DeviceFloats::bytes).sum(),
        }
    }
}

impl DeviceFloats {
    fn bytes(&self) -> usize {
        let vectors = self.units.iter().chain(&self.bias).map(DeviceBuffer::bytes);
        self.bytes.bytes() + vectors.sum::<usize>()
    }
}

struct Uploader<'a> {
    context: &'a Context,
    staging: Staging,
    codes: DeviceBuffer<u8>,
    /// Bytes of `codes` that are taken.
    filled: usize,
}

/// Bytes of all codes in whole tiles.
fn codes_bytes(model: &Model<'_>) -> usize {
    let one = |linears: &[&Linear<'_>], gated: bool| -> usize {
        let matrices: Vec<_> = linears.iter().filter_map(|linear| linear.ternary()).collect();
        let Some(first) = matrices.first() else { return 0 };
        let rows = Rows::new(matrices.iter().map(|matrix| matrix.rows), gated);
        rows.tiles * Mma16x128::row_tile_bytes(first.cols)
    };
    let layer = |layer: &Layer<'_>| {
        let [query, key, value] = &layer.qkv;
        let gate_up: Vec<_> = layer.gate.iter().chain([&layer.up]).collect();
        one(&[query, key, value], false)
            + one(&[&layer.attention_out], false)
            + one(&gate_up, layer.gate.is_some())
            + one(&[&layer.down], false)
    };
    model.layers.iter().map(layer).sum()
}

impl Uploader<'_> {
    fn layer(
        &mut self,
        layer: &Layer<'_>,
        config: &ModelConfig,
    ) -> Result<DeviceLayer, DeviceError> {
        let [query, key, value] = &layer.qkv;
        let gate_up: Vec<&Linear<'_>> = layer.gate.iter().chain([&layer.up]).collect();
        let kind = config.linears;
        Ok(DeviceLayer {
            attention_norm: self.norm(&layer.attention_norm)?,
            qkv: self.linear(kind, &[query, key, value], false)?,
            attention_sub_norm: self.optional_norm(layer.attention_sub_norm.as_ref())?,
            attention_out: self.linear(kind, &[&layer.attention_out], false)?,
            ffn_norm: self.norm(&layer.ffn_norm)?,
            gate_up: self.linear(kind, &gate_up, layer.gate.is_some())?,
            ffn_sub_norm: self.optional_norm(layer.ffn_sub_norm.as_ref())?,
            down: self.linear(kind, &[&layer.down], false)?,
        })
    }

    fn optional_norm(&mut self, norm: Option<&Norm>) -> Result<Option<DeviceNorm>, DeviceError> {
        norm.map(|norm| self.norm(norm)).transpose()
    }

    fn norm(&mut self, norm: &Norm) -> Result<DeviceNorm, DeviceError> {
        Ok(DeviceNorm {
            weight: self.vector("a norm", &norm.weight)?,
            bias: norm.bias.as_ref().map(|bias| self.vector("a norm", bias)).transpose()?,
        })
    }

    fn vector(&self, what: &'static str, x: &[f32]) -> Result<DeviceBuffer<f32>, CudaError> {
        DeviceBuffer::from_slice(self.context, what, x)
    }

    fn linear(
        &mut self,
        kind: LinearKind,
        linears: &[&Linear<'_>],
        gated: bool,
    ) -> Result<DeviceLinear, DeviceError> {
        match kind {
            LinearKind::Float => {
                let matrices = linears.iter().map(|linear| {
                    let LinearWeights::Float(matrix) = &linear.weights else {
                        unreachable!("a model's linears are of one kind")
                    };
                    Ok(self.floats("a linear", matrix, linear.bias.as_deref())?)
                });
                matrices.collect::<Result<_, DeviceError>>().map(DeviceLinear::Float)
            }
            LinearKind::Ternary => {
                let matrices: Result<Vec<_>, DeviceError> = linears
                    .par_iter()
                    .map(|linear| {
                        let matrix = linear.ternary().expect("a model's linears are of one kind");
                        Ok(matrix.rows128()?)
                    })
                    .collect();
                let biases: Vec<_> = linears.iter().map(|linear| linear.bias.as_deref()).collect();
                self.ternary(&matrices?, &biases, gated).map(DeviceLinear::Ternary)
            }
        }
    }

    /// Several matrices with the same columns as one: below each other, or `gated`, tile by tile.
    fn ternary(
        &mut self,
        matrices: &[Rows128Matrix<'_>],
        biases: &[Option<&[f32]>],
        gated: bool,
    ) -> Result<DeviceTernary, DeviceError> {
        let rows = Rows::new(matrices.iter().map(|matrix| matrix.rows), gated);
        let cols = matrices[0].cols;
        let unit = Mma16x128::row_tile_bytes(cols);
        let bytes = rows.tiles * unit;
        let codes_at = self.filled;
        self.filled += bytes;
        self.staging.fill(&mut self.codes, codes_at, bytes, unit, |first, out| {
            out.par_chunks_mut(unit).enumerate().for_each(|(index, out)| {
                out.fill(ZERO_CODES);
                for part in rows.parts(first / unit + index) {
                    let view = matrices[part.matrix].view().row_range(part.rows);
                    Mma16x128::place_rows(view, part.place, out);
                }
            });
        })?;
        // Per row of the tiles, in their order.
        let spread = |value: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
            let mut out = vec![0.0; rows.tiles * Mma16x128::TILE_ROWS];
            for (tile, out) in out.chunks_exact_mut(Mma16x128::TILE_ROWS).enumerate() {
                for part in rows.parts(tile) {
                    for (place, row) in (part.place..).zip(part.rows) {
                        out[place] = value(part.matrix, row);
                    }
                }
            }
            out
        };
        let units = self.vector("the units", &spread(&|matrix, _| matrices[matrix].unit))?;
        let bias = biases.iter().any(Option::is_some).then(|| {
            let bias = spread(&|matrix, row| biases[matrix].map_or(0.0, |bias| bias[row]));
            self.vector("a bias", &bias)
        });
        Ok(DeviceTernary {
            codes_at,
            units,
            bias: bias.transpose()?,
            row_tiles: count(rows.tiles),
            cols: count(cols),
            features: count(rows.features),
            gated,
        })
    }

    /// A matrix to be multiplied with: as tiles.
    fn floats(
        &mut self,
        what: &'static str,
        matrix: &FloatMatrix<'_>,
        bias: Option<&[f32]>,
    ) -> Result<DeviceFloats, CudaError> {
        let row_bytes = matrix.cols * matrix.float.bytes();
        let tiles = self.tiles(what, matrix, weight_type(matrix.float), |row, out| {
            copy_all(&matrix.bytes[row * row_bytes..row * row_bytes + out.len()], out);
        })?;
        let bias = bias.map(|bias| self.vector("a bias", bias)).transpose()?;
        Ok(DeviceFloats { bias, ..tiles })
    }

    /// The head rounded to INT8.
    fn int8(&mut self, head: &FloatMatrix<'_>) -> Result<DeviceFloats, CudaError> {
        let simd = Simd::detect();
        let cols = head.cols;
        let mut units = vec![0.0; head.rows];
        let tiles = self.tiles("the INT8 head", head, WeightType::I8, |first, out| {
            let units = &mut units[first..first + out.len() / cols];
            let rows = out.par_chunks_mut(cols).zip(units).enumerate().with_min_len(16);
            rows.for_each_init(
                || vec![0.0; cols],
                |weights, (row, (codes, unit))| {
                    let codes = bytemuck::cast_slice_mut(codes);
                    *unit = round_row(simd, head, first + row, weights, codes);
                },
            );
        })?;
        Ok(DeviceFloats { units: Some(self.vector("the units", &units)?), ..tiles })
    }

    /// `fill(row, out)` writes rows from `row` on as `numbers`.
    fn tiles(
        &mut self,
        what: &'static str,
        matrix: &FloatMatrix<'_>,
        numbers: WeightType,
        fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<DeviceFloats, CudaError> {
        let (rows, cols) = (count(matrix.rows), count(matrix.cols));
        let shape = FloatLinearShape::new(numbers, rows, cols);
        let len = usize::try_from(shape.weights_bytes()).expect("as large as the model");
        let mut bytes = DeviceBuffer::uninitialized(self.context, what, len)?;
        self.staging.tile(shape, &mut bytes, fill)?;
        Ok(DeviceFloats { numbers, bytes, tiled: true, units: None, bias: None, rows, cols })
    }

    /// A table whose rows are looked up: as it is stored.
    fn table(&mut self, table: &FloatMatrix<'_>) -> Result<DeviceFloats, CudaError> {
        let &FloatMatrix { rows, cols, float, bytes: stored } = table;
        let mut bytes = DeviceBuffer::uninitialized(self.context, "the embedding", stored.len())?;
        self.staging.copy(stored, &mut bytes)?;
        let (rows, cols) = (count(rows), count(cols));
        let numbers = weight_type(float);
        Ok(DeviceFloats { numbers, bytes, tiled: false, units: None, bias: None, rows, cols })
    }
}

/// Where the rows of several matrices stand in the tiles of one.
struct Rows {
    /// Rows of each matrix.
    counts: Vec<usize>,
    gated: bool,
    tiles: usize,
    features: usize,
}

/// Rows `rows` of matrix `matrix`, at rows `place..` of a tile.
struct Part {
    matrix: usize,
    rows: core::ops::Range<usize>,
    place: usize,
}

impl Rows {
    fn new(counts: impl Iterator<Item = usize>, gated: bool) -> Self {
        const ROWS: usize = Mma16x128::TILE_ROWS;
        let counts: Vec<_> = counts.collect();
        let (tiles, features) = if gated {
            (2 * counts[0].div_ceil(ROWS), counts[0])
        } else {
            let features = counts.iter().sum::<usize>();
            (features.div_ceil(ROWS), features)
        };
        Self { counts, gated, tiles, features }
    }

    /// What tile `tile` holds.
    fn parts(&self, tile: usize) -> Vec<Part> {
        const ROWS: usize = Mma16x128::TILE_ROWS;
        if self.gated {
            let (matrix, first) = (tile % 2, tile / 2 * ROWS);
            let end = self.counts[matrix].min(first + ROWS);
            return vec![Part { matrix, rows: first..end, place: 0 }];
        }
        let (first, end) = (tile * ROWS, (tile + 1) * ROWS);
        let mut before = 0;
        let mut parts = Vec::new();
        for (matrix, &count) in self.counts.iter().enumerate() {
            let (from, to) = (first.max(before), end.min(before + count));
            if from < to {
                parts.push(Part { matrix, rows: from - before..to - before, place: from - first });
            }
            before += count;
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tercet_core::packed::Rows128;

    /// `(matrix, row)` of every row of the tiles; `None` pads.
    fn places(rows: &Rows) -> Vec<Option<(usize, usize)>> {
        let mut places = vec![None; rows.tiles * Mma16x128::TILE_ROWS];
        for tile in 0..rows.tiles {
            for part in rows.parts(tile) {
                for (place, row) in (part.place..).zip(part.rows) {
                    places[tile * Mma16x128::TILE_ROWS + place] = Some((part.matrix, row));
                }
            }
        }
        places
    }

    #[test]
    fn matrices_stand_below_each_other() {
        let rows = Rows::new([20, 7, 7].into_iter(), false);
        let expected = (0..20).map(|row| (0, row)).chain((0..7).map(|row| (1, row)));
        let expected: Vec<_> = expected.chain((0..7).map(|row| (2, row))).map(Some).collect();
        let places = places(&rows);
        assert_eq!((rows.tiles, rows.features), (3, 34));
        assert_eq!(places[..34], expected);
        assert!(places[34..].iter().all(Option::is_none));
    }

    #[test]
    fn gate_and_up_take_turns() {
        let rows = Rows::new([20, 20].into_iter(), true);
        let places = places(&rows);
        assert_eq!((rows.tiles, rows.features), (4, 20));
        assert_eq!(places[0], Some((0, 0)));
        assert_eq!(places[16], Some((1, 0)));
        assert_eq!(places[32 + 3], Some((0, 19)));
        assert_eq!(places[48 + 3], Some((1, 19)));
        assert_eq!((places[32 + 4], places[48 + 4]), (None, None));
    }

    #[test]
    fn zero_codes_are_trits_of_zero() {
        let bytes = vec![ZERO_CODES; Mma16x128::row_tile_bytes(128)];
        let view = tercet_core::packed::PackedTernary::<Mma16x128>::new(&bytes, 16, 128).unwrap();
        let mut packed = vec![0; 16 * Rows128::row_bytes(128)];
        tercet_core::packed::repack::<Mma16x128, Rows128>(view, &mut packed).unwrap();
        let view = tercet_core::packed::PackedTernary::<Rows128>::new(&packed, 16, 128).unwrap();
        assert!((0..16).all(|row| (0..128).all(|col| view.trit(row, col) == Some(0))));
    }
}
