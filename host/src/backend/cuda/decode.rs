//! [`Decode`]: the fused kernels of capability 9.0 for one row, and for attention of one row per
//! sequence. Where they do not serve a shape, the general kernels do.

#![allow(unsafe_code, reason = "launches kernels")]

use std::collections::BTreeSet;

use tercet_kernels_ptx::contract::{DecodeAttendArgs, DecodeLinearArgs, DevicePtr};
use tercet_kernels_ptx::launch::{DecodeAttendShape, DecodeFinish, DecodeLinearShape, DeviceShape};

use super::driver::{Context, CudaError, Launch, Stream};
use super::launches::{Call, Finish, NULL, Step, activation, count};
use super::modules::{Loaded, Modules};
use super::state::{BUCKET_MAX, State};
use super::weights::{CudaWeights, DeviceTernary};
use crate::backend::KvType;
use crate::config::{LinearKind, ModelConfig};

/// Every kernel of this kind.
const LINEARS: [&str; 5] =
    ["decode_qkv_4", "decode_out_4", "decode_out_9", "decode_out_14", "decode_gate_up_4"];
const ATTENDS: [&str; 6] = [
    "decode_attend_f16_128_c4",
    "decode_attend_f16_128_c8",
    "decode_attend_f16_256_c8",
    "decode_attend_f32_256_c8",
    "decode_attend_many_f16_128_c4",
    "decode_attend_many_f16_128_c8",
];

/// The kernels that are loaded.
#[derive(Debug)]
pub(super) struct Decode {
    device: DeviceShape,
    linears: Vec<(&'static str, Loaded<DecodeLinearArgs>)>,
    attends: Vec<(&'static str, Loaded<DecodeAttendArgs>)>,
}

/// The kernels that `config` needs on this device, whatever the session.
pub(super) fn entries(context: &Context, config: &ModelConfig) -> BTreeSet<&'static str> {
    let device = device_shape(context);
    let (hidden, ffn) = (count(config.hidden), count(config.ffn));
    let query = count(config.query_width());
    let linears = [
        (DecodeFinish::Store, query + 2 * count(config.kv_width()), hidden),
        (DecodeFinish::Add, hidden, query),
        (DecodeFinish::Gate, ffn, hidden),
        (DecodeFinish::Add, hidden, ffn),
    ];
    let linears = linears.into_iter().filter_map(|(finish, features, cols)| {
        Some(DecodeLinearShape::new(finish, features, cols, device)?.entry())
    });
    let attends = [KvType::F16, KvType::F32].into_iter();
    let rows = [1, count(BUCKET_MAX)];
    let attends = attends.flat_map(|kv| rows.map(|rows| (kv, rows)));
    let attends =
        attends.filter_map(|(kv, rows)| Some(attend_shape(config, kv, rows, device)?.entry()));
    match config.linears {
        LinearKind::Ternary => linears.chain(attends).collect(),
        LinearKind::Float => attends.collect(),
    }
}

pub(super) fn device_shape(context: &Context) -> DeviceShape {
    let device = context.device();
    DeviceShape {
        multiprocessors: device.multiprocessors,
        shared_bytes: device.shared_per_block_max,
    }
}

/// What a score is multiplied by: `1 / √head_dim`.
#[allow(clippy::cast_precision_loss, reason = "head_dim is at most 512")]
pub(super) fn score_factor(config: &ModelConfig) -> f32 {
    1.0 / (config.head_dim as f32).sqrt()
}

fn attend_shape(
    config: &ModelConfig,
    kv: KvType,
    rows: u32,
    device: DeviceShape,
) -> Option<DecodeAttendShape> {
    let (heads, kv_heads) = (count(config.heads), count(config.kv_heads));
    let halves = kv == KvType::F16;
    DecodeAttendShape::new(heads, kv_heads, count(config.head_dim), halves, rows, device)
}

/// Whether a kernel of `modules` does attention of one row per sequence.
pub(super) fn attends(
    context: &Context,
    modules: &Modules,
    config: &ModelConfig,
    kv: KvType,
) -> bool {
    let shape = attend_shape(config, kv, 1, device_shape(context));
    shape.is_some_and(|shape| modules.entries().any(|entry| entry == shape.entry()))
}

impl Decode {
    /// `deterministic` leaves attention to the general kernels: linears have the same bits either
    /// way, attention has not.
    pub(super) fn new(
        context: &Context,
        modules: &Modules,
        deterministic: bool,
    ) -> Result<Self, CudaError> {
        Ok(Self {
            device: device_shape(context),
            linears: modules.several(&LINEARS)?,
            attends: if deterministic { Vec::new() } else { modules.several(&ATTENDS)? },
        })
    }

    /// Does a linear of one row, if there is a kernel for it. Returns whether there was.
    pub(super) fn linear(
        &self,
        weights: &CudaWeights,
        matrix: &DeviceTernary,
        call: &Call<'_>,
        stream: &Stream,
    ) -> Result<bool, CudaError> {
        let finish = match call.finish {
            Finish::Store => DecodeFinish::Store,
            Finish::Add => DecodeFinish::Add,
            Finish::Activate if matrix.gated => DecodeFinish::Gate,
            Finish::Activate => return Ok(false),
        };
        if call.norm.is_some_and(|norm| norm.bias.is_some()) {
            return Ok(false);
        }
        let shape = DecodeLinearShape::new(finish, matrix.features, matrix.cols, self.device);
        let Some(shape) = shape else { return Ok(false) };
        let Some((_, kernel)) = self.linears.iter().find(|(entry, _)| *entry == shape.entry())
        else {
            return Ok(false);
        };
        let args = DecodeLinearArgs {
            x: call.input,
            norm: call.norm.map_or(NULL, |norm| norm.weight.ptr(0)),
            codes: DevicePtr::new(weights.codes.address(matrix.codes_at)),
            units: matrix.units.ptr(0),
            bias: matrix.bias.as_ref().map_or(NULL, |bias| bias.ptr(0)),
            out: call.output,
            row_tiles: shape.row_tiles(),
            col_tiles: shape.col_tiles(),
            cols: matrix.cols,
            features: matrix.features,
            block_pairs: shape.block_pairs(),
            stages: shape.stages(),
            activation: activation(weights.config.activation),
            eps: weights.config.norm_eps,
        };
        let grid = shape.grid();
        let launch = Launch::grid(grid.x, grid.y, grid.z).shared(shape.shared_bytes());
        // SAFETY: see the beginning of `launches`; the shape is the kernel's own arithmetic.
        unsafe { kernel.function.launch(kernel.prepare(launch), stream, &args) }?;
        Ok(true)
    }

    /// Does attention of a step with one row per sequence, if there is a kernel for it. Returns
    /// whether there was.
    pub(super) fn attend(
        &self,
        config: &ModelConfig,
        kv: KvType,
        start: usize,
        step: Step,
        state: &mut State,
        stream: &Stream,
    ) -> Result<bool, CudaError> {
        let (heads, kv_heads) = (count(config.heads), count(config.kv_heads));
        let head_dim = count(config.head_dim);
        let Some(shape) = attend_shape(config, kv, step.rows, self.device) else {
            return Ok(false);
        };
        let Some((_, kernel)) = self.attends.iter().find(|(entry, _)| *entry == shape.entry())
        else {
            return Ok(false);
        };
        let places = state.list();
        let [cos, sin] = state.angles_ptr();
        let args = DecodeAttendArgs {
            qkv: state.qkv.ptr(0),
            keys: state.keys.ptr_mut(start),
            values: state.values_cache.ptr_mut(start),
            cos,
            sin,
            positions: state.rows.ptr(places.positions),
            slots: state.rows.ptr(places.slots),
            mixed: state.mixed.ptr_mut(0),
            heads,
            kv_heads,
            head_dim,
            capacity: count(state.layout.positions()),
            awaited: 0,
            factor: score_factor(config),
        };
        let grid = shape.grid();
        let launch = Launch::grid(grid.x, grid.y, grid.z).shared(shape.shared_bytes());
        // SAFETY: see `launches`: buffers have room for the step's rows.
        unsafe { kernel.function.launch(kernel.prepare(launch), stream, &args) }?;
        Ok(true)
    }
}
