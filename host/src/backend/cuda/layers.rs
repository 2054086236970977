//! [`Layers`]: all layers of a step of one row as one kernel, where a model and a session are made
//! for it. Elsewhere each operation has kernels of its own, with the same bits.

#![allow(unsafe_code, reason = "launches a kernel")]

use tercet_kernels_ptx::contract::{DecodeLayersArgs, DevicePtr};
use tercet_kernels_ptx::launch::{DecodeLayersShape, LayersModel};

use super::decode::{device_shape, score_factor};
use super::driver::{Context, CudaError, DeviceBuffer, Launch, Stream};
use super::launches::{activation, count};
use super::modules::Loaded;
use super::state::State;
use super::weights::{CudaWeights, DeviceLayer, DeviceLinear, DeviceNorm};
use crate::backend::{KvType, Limits};
use crate::config::{LinearKind, ModelConfig, Topology};
use crate::kv::KvLayout;

/// Addresses of a layer in the kernel's table.
const WORDS: usize = DecodeLayersArgs::WORDS as usize;

/// The kernel of a session, and where it finds the weights.
#[derive(Debug)]
pub(super) struct Layers {
    kernel: Loaded<DecodeLayersArgs>,
    shape: DecodeLayersShape,
    /// `(layers, WORDS)` addresses in device memory.
    table: DeviceBuffer<u64>,
    /// From layer to layer of the cache, in units of 16 bytes.
    layer_stride: u32,
}

/// The launch for `config` with a cache of halves, the only one that has a kernel.
fn shape(context: &Context, config: &ModelConfig) -> Option<DecodeLayersShape> {
    let served = config.linears == LinearKind::Ternary
        && config.topology == Topology::LlamaLike
        && !config.attention_bias
        && !config.ffn_bias;
    let model = LayersModel {
        layers: count(config.layers),
        hidden: count(config.hidden),
        heads: count(config.heads),
        kv_heads: count(config.kv_heads),
        head_dim: count(config.head_dim),
        ffn: count(config.ffn),
    };
    DecodeLayersShape::new(model, true, device_shape(context)).filter(|_| served)
}

/// The kernel that `config` needs on this device, whatever the session.
pub(super) fn entry(context: &Context, config: &ModelConfig) -> Option<&'static str> {
    Some(shape(context, config)?.entry())
}

impl Layers {
    /// `None` where the kernel does not serve the model, the cache or the device.
    pub(super) fn new(
        context: &Context,
        weights: &CudaWeights,
        limits: &Limits,
    ) -> Result<Option<Self>, CudaError> {
        let config = &weights.config;
        let shape = shape(context, config).filter(|_| limits.kv == KvType::F16);
        let Some(shape) = shape else { return Ok(None) };
        let stride = KvLayout::new(config, limits).layer_elements() * size_of::<half::f16>() / 16;
        let Ok(layer_stride) = u32::try_from(stride) else { return Ok(None) };
        let Some(kernel) = weights.modules.get::<DecodeLayersArgs>(shape.entry())? else {
            return Ok(None);
        };
        // Blocks wait for each other, so all of them have to be resident.
        if kernel.function.blocks_per_multiprocessor(shape.shared_bytes())? == 0 {
            return Ok(None);
        }
        let layers = weights.layers.iter().map(|layer| addresses(weights, layer));
        let Some(table) = layers.collect::<Option<Vec<_>>>() else { return Ok(None) };
        let table = DeviceBuffer::from_slice(context, "the table of layers", table.as_flattened())?;
        Ok(Some(Self { kernel, shape, table, layer_stride }))
    }

    /// Words of [`State::rooms`].
    pub(super) fn rooms_words(&self) -> usize {
        self.shape.rooms_words() as usize
    }

    /// Bytes of device memory that it takes itself.
    pub(super) fn bytes(&self) -> u64 {
        self.table.bytes() as u64
    }

    /// `hidden` through all layers, for a step of one row whose list is on the device.
    pub(super) fn run(
        &self,
        weights: &CudaWeights,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let config = &weights.config;
        let places = state.list();
        let [cos, sin] = state.angles_ptr();
        let args = DecodeLayersArgs {
            layers: DevicePtr::new(self.table.address(0)),
            hidden: state.hidden.ptr_mut(0),
            rooms: state.rooms.ptr_mut(0),
            keys: state.keys.ptr_mut(0),
            values: state.values_cache.ptr_mut(0),
            cos,
            sin,
            positions: state.rows.ptr(places.positions),
            slots: state.rows.ptr(places.slots),
            count: count(config.layers),
            hidden_cols: count(config.hidden),
            heads: count(config.heads),
            kv_heads: count(config.kv_heads),
            head_dim: count(config.head_dim),
            ffn: count(config.ffn),
            capacity: count(state.layout.positions()),
            layer_stride: self.layer_stride,
            slots_of_weights: self.shape.slots_of_weights(),
            activation: activation(config.activation),
            eps: config.norm_eps,
            factor: score_factor(config),
        };
        let grid = self.shape.grid();
        let launch = Launch::grid(grid.x, grid.y, grid.z).shared(self.shape.shared_bytes());
        let launch = self.kernel.prepare(launch).cooperative();
        // SAFETY: see the beginning of `launches`; shape and rooms are the kernel's own arithmetic,
        // the table has the addresses of weights that `addresses` has looked at. The rooms start
        // as the kernel wants them (`State::new`), and nobody else writes them.
        unsafe { self.kernel.function.launch(launch, stream, &args) }
    }
}

/// Codes, units and norms of the linears of `layer`, in the kernel's order; `None` where it has
/// something that the kernel does not know.
fn addresses(weights: &CudaWeights, layer: &DeviceLayer) -> Option<[u64; WORDS]> {
    let linears = [
        (&layer.qkv, Some(&layer.attention_norm)),
        (&layer.attention_out, layer.attention_sub_norm.as_ref()),
        (&layer.gate_up, Some(&layer.ffn_norm)),
        (&layer.down, layer.ffn_sub_norm.as_ref()),
    ];
    let mut words = [0; WORDS];
    for (at, (linear, norm)) in linears.into_iter().enumerate() {
        let DeviceLinear::Ternary(matrix) = linear else { return None };
        // Of four linears one has a gate.
        if matrix.bias.is_some() || matrix.gated != (at == 2) {
            return None;
        }
        words[at] = weights.codes.address(matrix.codes_at);
        words[4 + at] = matrix.units.address(0);
        words[8 + at] = match norm {
            None => 0,
            Some(DeviceNorm { weight, bias: None }) => weight.address(0),
            Some(DeviceNorm { bias: Some(_), .. }) => return None,
        };
    }
    Some(words)
}
