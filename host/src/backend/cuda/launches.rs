//! [`Launches`]: which kernels make an operation, and with what arguments.
//!
//! Every launch is made here. What the kernels ask for (lengths, alignments, padding) holds because
//! [`State`] and [`CudaWeights`] are made for it: buffers start at multiples of 256 bytes and have
//! room for `rows_max` rows and `asking_max` rows that ask; weights are padded to whole tiles.
//! Tokens, slots and positions are checked before they get to the device.

#![allow(unsafe_code, reason = "launches kernels")]

use std::collections::BTreeSet;

use tercet_kernels_ptx::contract::{
    DevicePtr, DevicePtrMut, EmbedArgs, FloatLinearArgs, FloatLinearHopperArgs, LinearArgs,
    NormalizeArgs, QuantizeArgs,
};
use tercet_kernels_ptx::launch::{self, FloatLinearShape, LinearShape, WeightType};
use tercet_kernels_ptx::ptx::Target;

use super::attention::{self, Attention};
use super::choose::Choose;
use super::decode::{self, Decode};
use super::driver::{Context, CudaError, Launch, Stream};
use super::kernels::KernelSet;
use super::layers;
use super::modules::Loaded;
use super::state::{State, terms_stride};
use super::weights::{
    CudaWeights, DeviceFloats, DeviceLinear, DeviceNorm, DeviceTernary, Embedding,
};
use crate::backend::{DeviceError, HeadType, Limits};
use crate::config::{Activation, LinearKind, Positions};
use crate::floats::FloatType;
use crate::model::{Layer, LinearWeights, Model};

/// The kernels of a session, and the shape of the step at hand.
#[derive(Debug)]
pub(super) struct Launches {
    multiprocessors: u32,
    shared_bytes_max: u32,
    embed: Loaded<EmbedArgs>,
    normalize: Loaded<NormalizeArgs>,
    quantize: Option<Loaded<QuantizeArgs>>,
    /// What the ternary linears are compiled for.
    linear_target: Target,
    /// By entry: one for each tile.
    linears: Vec<(&'static str, Loaded<LinearArgs>)>,
    floats: Vec<(&'static str, Loaded<FloatLinearArgs>)>,
    /// Those for many rows that want tiles: of the model's types, on Hopper.
    hoppers: Vec<(&'static str, Loaded<FloatLinearHopperArgs>)>,
    attention: Attention,
    decode: Decode,
    pub(super) choose: Choose,
    step: Step,
}

/// What a launch has to know about the step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    /// Whether it has one row per sequence.
    pub(super) batch: bool,
    pub(super) rows: u32,
    pub(super) asked: u32,
    /// Tiles of attention.
    pub(super) tiles: u32,
}

/// What becomes of a linear's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    Store,
    Add,
    /// The activation, of the gate where there is one.
    Activate,
}

/// The types that float linears come in.
const TYPES: [WeightType; 4] = [WeightType::F16, WeightType::Bf16, WeightType::F32, WeightType::I8];

/// The kernels out of `kernels` that `model` needs, with its head held as `head`, whatever the
/// session.
pub(super) fn entries(
    context: &Context,
    kernels: &KernelSet,
    model: &Model<'_>,
    head: HeadType,
) -> Vec<&'static str> {
    let mut entries = vec!["embed", "normalize", "choose"];
    let matrices = model.layers.iter().flat_map(Layer::linears);
    let mut types = vec![match head {
        HeadType::Stored => weight_type(model.head.float),
        HeadType::Int8 => WeightType::I8,
    }];
    types.extend(matrices.filter_map(|linear| match &linear.weights {
        LinearWeights::Float(matrix) => Some(weight_type(matrix.float)),
        LinearWeights::Ternary(_) => None,
    }));
    let types = TYPES.into_iter().filter(|numbers| types.contains(numbers));
    entries.extend(types.clone().filter_map(WeightType::hopper));
    let capability = context.device().capability;
    let target_of = |entry: &str| kernels.best(entry, capability).map(|text| text.target);
    let floats = types.flat_map(WeightType::entries).collect::<BTreeSet<_>>();
    entries.extend(floats.into_iter().filter(|entry| !is_replaced(entry, target_of)));
    if model.config.linears == LinearKind::Ternary {
        entries.push("quantize");
        entries.extend(launch::linear_entries(linear_target(target_of)));
    }
    entries.extend(attention::entries(&model.config));
    entries.extend(decode::entries(context, &model.config));
    entries.extend(layers::entry(context, &model.config));
    entries
}

/// Whether `entry` is a float linear for many rows in whose place Hopper's own is there.
pub(super) fn is_replaced(entry: &str, target_of: impl Fn(&str) -> Option<Target>) -> bool {
    TYPES.into_iter().any(|numbers| {
        let [.., many] = numbers.entries();
        many == entry && numbers.hopper().is_some_and(|hopper| target_of(hopper).is_some())
    })
}

/// The target of the ternary linears, from that of each kernel there is: Hopper's own only where it
/// is that of all of them.
pub(super) fn linear_target(target_of: impl Fn(&str) -> Option<Target>) -> Target {
    let is_exact = |entry: &&str| target_of(entry) == Some(Target::SM_90A);
    let entries = launch::linear_entries(Target::SM_90A);
    if entries.iter().all(is_exact) { Target::SM_90A } else { Target::SM_80 }
}

impl Launches {
    pub(super) fn new(
        context: &Context,
        weights: &CudaWeights,
        limits: &Limits,
        deterministic: bool,
    ) -> Result<Self, DeviceError> {
        let modules = &weights.modules;
        let linear_target = linear_target(|entry| modules.target(entry));
        let floats = TYPES.into_iter().flat_map(WeightType::entries).collect::<BTreeSet<_>>();
        Ok(Self {
            multiprocessors: context.device().multiprocessors,
            shared_bytes_max: context.device().shared_per_block_max,
            embed: modules.need("embed")?,
            normalize: modules.need("normalize")?,
            quantize: modules.get("quantize")?,
            linear_target,
            linears: modules.several(launch::linear_entries(linear_target))?,
            floats: modules.several(&Vec::from_iter(floats))?,
            hoppers: modules
                .several(&TYPES.into_iter().filter_map(WeightType::hopper).collect::<Vec<_>>())?,
            attention: Attention::new(modules, &weights.config, limits)?,
            decode: Decode::new(context, modules, deterministic)?,
            choose: Choose::new(modules)?,
            step: Step::default(),
        })
    }

    pub(super) fn begin(&mut self, step: Step) {
        self.step = step;
    }

    /// Most rows of a tile of attention.
    pub(super) const fn tile_rows(&self) -> usize {
        self.attention.tile_rows()
    }

    /// `hidden = embedding[token]`, plus the position's row where positions are learned.
    pub(super) fn embed(
        &self,
        weights: &CudaWeights,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let places = state.list();
        let table = match &weights.embedding {
            Embedding::Head => &weights.head,
            Embedding::Device(table) => table,
        };
        let offset = match weights.config.positions {
            Positions::Learned { offset } => count(offset),
            Positions::Rotary { .. } => 0,
        };
        let learned = weights.positions.as_ref();
        let args = EmbedArgs {
            table: table.bytes.ptr(0),
            learned: learned.map_or(DevicePtr::new(0), |table| table.bytes.ptr(0)),
            tokens: state.rows.ptr(places.tokens),
            positions: state.rows.ptr(places.positions),
            hidden: state.hidden.ptr_mut(0),
            cols: table.cols,
            table_form: form(table.numbers),
            learned_form: learned.map_or(0, |table| form(table.numbers)),
            learned_offset: offset,
            tiled: u32::from(table.tiled),
            reserved: 0,
        };
        let grid = Launch::grid(self.step.rows, 1, 1);
        // SAFETY: see the module's beginning: buffers have room for the step's rows.
        unsafe { self.embed.function.launch(self.embed.prepare(grid), stream, &args) }?;
        Ok(())
    }

    pub(super) fn qkv(
        &self,
        weights: &CudaWeights,
        layer: usize,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let layer = &weights.layers[layer];
        let (input, output) = (state.hidden.ptr(0), state.qkv.ptr_mut(0));
        let width = weights.config.query_width() + 2 * weights.config.kv_width();
        let call =
            Call { input, norm: Some(&layer.attention_norm), output, width, finish: Finish::Store };
        self.run(weights, &layer.qkv, call, state, stream)
    }

    pub(super) fn attend(
        &self,
        weights: &CudaWeights,
        layer: usize,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        self.attention.run(&weights.config, layer, self.step, &self.decode, state, stream)
    }

    pub(super) fn attention_out(
        &self,
        weights: &CudaWeights,
        layer: usize,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let layer = &weights.layers[layer];
        let (input, output) = (state.mixed.ptr(0), state.hidden.ptr_mut(0));
        let norm = layer.attention_sub_norm.as_ref();
        let call = Call { input, norm, output, width: weights.config.hidden, finish: Finish::Add };
        self.run(weights, &layer.attention_out, call, state, stream)
    }

    pub(super) fn gate_up(
        &self,
        weights: &CudaWeights,
        layer: usize,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let layer = &weights.layers[layer];
        let (input, output) = (state.hidden.ptr(0), state.gated.ptr_mut(0));
        let norm = Some(&layer.ffn_norm);
        let call =
            Call { input, norm, output, width: weights.config.ffn, finish: Finish::Activate };
        self.run(weights, &layer.gate_up, call, state, stream)
    }

    pub(super) fn down(
        &self,
        weights: &CudaWeights,
        layer: usize,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let layer = &weights.layers[layer];
        let (input, output) = (state.gated.ptr(0), state.hidden.ptr_mut(0));
        let norm = layer.ffn_sub_norm.as_ref();
        let call = Call { input, norm, output, width: weights.config.hidden, finish: Finish::Add };
        self.run(weights, &layer.down, call, state, stream)
    }

    pub(super) fn logits(
        &self,
        weights: &CudaWeights,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        if self.step.asked == 0 {
            return Ok(());
        }
        let asking = state.rows.ptr(state.list().asking);
        let input = state.hidden.ptr(0);
        let rows = Rows { input, norm: Some(&weights.final_norm), asking, count: self.step.asked };
        self.normalize(weights, rows, &weights.head, state, stream)?;
        let place = Place {
            output: state.logits.ptr_mut(0),
            width: weights.config.vocab,
            offset: 0,
            rows: self.step.asked,
            epilogue: FloatLinearArgs::STORE,
        };
        self.float(weights, &weights.head, place, state, stream)
    }

    /// A linear of either kind, with the norm before and what follows.
    fn run(
        &self,
        weights: &CudaWeights,
        linear: &DeviceLinear,
        call: Call<'_>,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        match linear {
            DeviceLinear::Ternary(matrix) => self.ternary(weights, matrix, call, state, stream),
            DeviceLinear::Float(matrices) => self.matrices(weights, matrices, call, state, stream),
        }
    }

    fn ternary(
        &self,
        weights: &CudaWeights,
        matrix: &DeviceTernary,
        call: Call<'_>,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        state.quantized = None;
        if self.step.rows == 1 && self.decode.linear(weights, matrix, &call, stream)? {
            return Ok(());
        }
        let rows = self.step.rows;
        let shape = LinearShape::new(matrix.row_tiles, matrix.cols, rows);
        let how = shape.launch(self.multiprocessors, self.linear_target);
        let linear = self.linears.iter().find(|(name, _)| *name == how.entry);
        let (Some(quantize), Some((_, linear))) = (&self.quantize, linear) else {
            // Of the program's own none is missing; a file may have only some.
            return Err(CudaError::NoKernel { entry: how.entry }.into());
        };
        let row_blocks = launch::row_blocks(rows);
        let positions = state.rows.ptr(state.list().positions);
        let args = QuantizeArgs {
            x: call.input,
            weight: call.norm.map_or(NULL, |norm| norm.weight.ptr(0)),
            bias: bias_of(call.norm),
            positions,
            values: state.values.ptr_mut(0),
            row_units: state.row_units.ptr_mut(0),
            value_sums: state.value_sums.ptr_mut(0),
            rows,
            cols: matrix.cols,
            stride: matrix.cols,
            row_blocks,
            col_tiles: shape.col_tiles(),
            eps: weights.config.norm_eps,
        };
        // SAFETY: see the module's beginning: buffers have room for the step's rows.
        unsafe {
            quantize.function.launch(quantize.prepare(Launch::grid(rows, 1, 1)), stream, &args)
        }?;
        state.quantized = Some(launch::Values { rows, cols: matrix.cols });
        let args = LinearArgs {
            codes: DevicePtr::new(weights.codes.address(matrix.codes_at)),
            units: matrix.units.ptr(0),
            bias: matrix.bias.as_ref().map_or(NULL, |bias| bias.ptr(0)),
            values: state.values.ptr(0),
            row_units: state.row_units.ptr(0),
            value_sums: state.value_sums.ptr(0),
            out: call.output,
            workspace: state.workspace.ptr_mut(0),
            features: matrix.features,
            row_tiles: matrix.row_tiles,
            col_tiles: shape.col_tiles(),
            rows,
            row_blocks,
            out_stride: count(call.width),
            out_offset: 0,
            finish: match call.finish {
                Finish::Store => LinearArgs::STORE,
                Finish::Add => LinearArgs::ADD,
                Finish::Activate if matrix.gated => LinearArgs::GATED,
                Finish::Activate => LinearArgs::ACTIVATE,
            },
            activation: activation(weights.config.activation),
            tile: how.tile,
        };
        let grid = Launch::grid(how.blocks, 1, 1).shared(how.shared_bytes).cluster(how.cluster);
        // SAFETY: see the module's beginning: buffers have room for the step's rows.
        unsafe { linear.function.launch(linear.prepare(grid), stream, &args) }?;
        Ok(())
    }

    /// Float linears that read the same rows, side by side in the output; or gate and up.
    fn matrices(
        &self,
        weights: &CudaWeights,
        matrices: &[DeviceFloats],
        call: Call<'_>,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let Call { input, norm, output, width, finish } = call;
        let mut offset = 0;
        for (index, matrix) in matrices.iter().enumerate() {
            // Their types may differ, and with them what the rows' terms are.
            if index == 0 || matrices[index - 1].numbers != matrix.numbers {
                let asking = DevicePtr::new(0);
                let rows = Rows { input, norm, asking, count: self.step.rows };
                self.normalize(weights, rows, matrix, state, stream)?;
            }
            let (epilogue, advance) = match (finish, matrices.len(), index) {
                (Finish::Store, ..) => (FloatLinearArgs::STORE, matrix.rows),
                (Finish::Add, ..) => (FloatLinearArgs::ADD, 0),
                (Finish::Activate, 1, _) => (FloatLinearArgs::ACTIVATE, 0),
                // The gate waits in the output for up.
                (Finish::Activate, _, 0) => (FloatLinearArgs::STORE, 0),
                (Finish::Activate, ..) => (FloatLinearArgs::GATE, 0),
            };
            let place = Place { output, width, offset, rows: self.step.rows, epilogue };
            self.float(weights, matrix, place, state, stream)?;
            offset += advance;
        }
        Ok(())
    }

    /// How `matrix` is multiplied with `rows` rows on Hopper's matrix instruction, if it is.
    fn hopper(
        &self,
        matrix: &DeviceFloats,
        rows: u32,
    ) -> Option<(launch::Launch, &Loaded<FloatLinearHopperArgs>)> {
        let launch = shape_of(matrix).hopper(rows, self.multiprocessors)?;
        let (_, kernel) = self.hoppers.iter().find(|(entry, _)| *entry == launch.entry)?;
        Some((launch, kernel))
    }

    /// Rows (or those in a list) as terms that `matrix` can be multiplied with.
    fn normalize(
        &self,
        weights: &CudaWeights,
        rows: Rows<'_>,
        matrix: &DeviceFloats,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let Rows { input, norm, asking, count: rows } = rows;
        let args = NormalizeArgs {
            x: input,
            weight: norm.map_or(NULL, |norm| norm.weight.ptr(0)),
            bias: bias_of(norm),
            asking,
            normed: DevicePtrMut::new(0),
            terms: state.terms.ptr_mut(0),
            scales: state.scales.ptr_mut(0),
            cols: matrix.cols,
            terms_stride: count(terms_stride(matrix.cols as usize)),
            form: match matrix.numbers {
                WeightType::F16 | WeightType::I8 => NormalizeArgs::F16,
                WeightType::Bf16 | WeightType::F32 => NormalizeArgs::BF16,
            },
            eps: weights.config.norm_eps,
            tile_cols: self.hopper(matrix, rows).map_or(0, |_| shape_of(matrix).tile_cols()),
            row_blocks: launch::row_blocks(rows),
        };
        let grid = self.normalize.prepare(Launch::grid(rows, 1, 1));
        // SAFETY: see the module's beginning: buffers have room for the step's rows.
        unsafe { self.normalize.function.launch(grid, stream, &args) }?;
        Ok(())
    }

    fn float(
        &self,
        weights: &CudaWeights,
        matrix: &DeviceFloats,
        place: Place,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let units = matrix.units.as_ref().map_or(NULL, |units| units.ptr(0));
        let bias = matrix.bias.as_ref().map_or(NULL, |bias| bias.ptr(0));
        if let Some((launch, kernel)) = self.hopper(matrix, place.rows) {
            let args = FloatLinearHopperArgs {
                weights: matrix.bytes.ptr(0),
                terms: state.terms.ptr(0),
                scales: state.scales.ptr(0),
                units,
                bias,
                out: place.output,
                features: matrix.rows,
                cols: matrix.cols,
                rows: place.rows,
                out_stride: count(place.width),
                offset: place.offset,
                epilogue: place.epilogue,
                activation: activation(weights.config.activation),
                reserved: 0,
            };
            // SAFETY: see the module's beginning: buffers have room for the step's rows.
            unsafe { kernel.function.launch(kernel.prepare(as_launch(launch)), stream, &args) }?;
            return Ok(());
        }
        let shape = shape_of(matrix);
        let device = launch::Device {
            multiprocessors: self.multiprocessors,
            shared_bytes_max: self.shared_bytes_max,
            target: self.normalize.target,
        };
        let launch = shape.launch(place.rows, device);
        let kernel = self.floats.iter().find(|(entry, _)| *entry == launch.entry);
        let (_, kernel) = kernel.expect("loaded for the types of the model's matrices");
        let args = FloatLinearArgs {
            weights: matrix.bytes.ptr(0),
            terms: state.terms.ptr(0),
            scales: state.scales.ptr(0),
            units,
            bias,
            out: place.output,
            features: matrix.rows,
            cols: matrix.cols,
            rows: place.rows,
            terms_stride: count(terms_stride(matrix.cols as usize)),
            out_stride: count(place.width),
            offset: place.offset,
            epilogue: place.epilogue,
            activation: activation(weights.config.activation),
        };
        // SAFETY: see the module's beginning: buffers have room for the step's rows.
        unsafe { kernel.function.launch(kernel.prepare(as_launch(launch)), stream, &args) }?;
        Ok(())
    }
}

/// What a linear reads and writes.
pub(super) struct Call<'a> {
    /// `(rows, cols)`
    pub(super) input: DevicePtr<f32>,
    pub(super) norm: Option<&'a DeviceNorm>,
    /// `(rows, width)`
    pub(super) output: DevicePtrMut<f32>,
    pub(super) width: usize,
    pub(super) finish: Finish,
}

/// Rows on their way to a float linear: `(count, cols)`, or those in the list `asking`.
struct Rows<'a> {
    input: DevicePtr<f32>,
    norm: Option<&'a DeviceNorm>,
    asking: DevicePtr<u32>,
    count: u32,
}

/// Where a float linear writes: features `offset..` of `rows` rows of `width`.
struct Place {
    output: DevicePtrMut<f32>,
    width: usize,
    offset: u32,
    rows: u32,
    /// `FloatLinearArgs::STORE` and so on.
    epilogue: u32,
}

pub(super) const NULL: DevicePtr<f32> = DevicePtr::new(0);

fn bias_of(norm: Option<&DeviceNorm>) -> DevicePtr<f32> {
    norm.and_then(|norm| norm.bias.as_ref()).map_or(NULL, |bias| bias.ptr(0))
}

fn shape_of(matrix: &DeviceFloats) -> FloatLinearShape {
    FloatLinearShape::new(matrix.numbers, matrix.rows, matrix.cols)
}

/// A launch as the contract's arithmetic describes it.
pub(super) fn as_launch(launch: launch::Launch) -> Launch {
    let launch::Grid { x, y, z } = launch.grid;
    Launch::grid(x, y, z).shared(launch.shared_bytes)
}

/// How float linears call a type of weights.
pub(super) fn weight_type(float: FloatType) -> WeightType {
    match float {
        FloatType::F16 => WeightType::F16,
        FloatType::Bf16 => WeightType::Bf16,
        FloatType::F32 => WeightType::F32,
    }
}

/// How `embed` calls a table's numbers.
fn form(numbers: WeightType) -> u32 {
    match numbers {
        WeightType::F16 => EmbedArgs::F16,
        WeightType::Bf16 => EmbedArgs::BF16,
        WeightType::F32 => EmbedArgs::F32,
        WeightType::I8 => unreachable!("tables are looked up as they are stored"),
    }
}

/// How kernels call an activation.
pub(super) fn activation(activation: Activation) -> u32 {
    match activation {
        Activation::Silu => LinearArgs::SILU,
        Activation::Relu2 => LinearArgs::RELU2,
        Activation::Relu => LinearArgs::RELU,
    }
}

pub(super) fn count(n: usize) -> u32 {
    u32::try_from(n).expect("rows and widths are below 2^24")
}
