//! [`State`]: the buffers of a session, allocated once.

use half::f16;
use rayon::prelude::*;
use tercet_core::activation::RowUnit;
use tercet_kernels_ptx::contract::{DevicePtr, LinearArgs};
use tercet_kernels_ptx::launch;
use tercet_kernels_ptx::ptx::Target;

use super::driver::{Context, CudaError, DeviceBuffer, PinnedBuffer, PinnedUse};
use super::launches::linear_target;
use super::weights::{CudaWeights, DeviceLinear};
use crate::backend::{Buffer, KvType, Limits, Quantized};
use crate::config::{LinearKind, ModelConfig, Positions};
use crate::kv::KvLayout;
use crate::rotary;

/// Rows of the largest step that is recorded: a batch of one token per sequence.
pub(super) const BUCKET_MAX: usize = 128;

/// Marks a row, or a place among those that ask, that only fills up a bucket.
pub(super) const NONE: u32 = u32::MAX;

/// The rows that a step of `rows` rows is padded to, so that few recordings serve all batches.
pub(super) fn bucket(rows: usize) -> usize {
    rows.next_power_of_two()
}

/// Terms of a float (`normalize`): at most three of 16 bits.
const TERMS: usize = 3;
/// Numbers from term to term are a multiple of it.
const TERM_COLS: usize = 64;

/// What the kernels of a step read and write.
#[derive(Debug)]
pub(super) struct State {
    pub(super) layout: KvLayout,
    /// Rows for which there is room: a step's, rounded up to a bucket where that may happen.
    pub(super) rows_max: usize,
    /// The same for rows that ask for logits.
    pub(super) asking_max: usize,
    /// `(rows, hidden)`
    pub(super) hidden: DeviceBuffer<f32>,
    /// `(rows, query + 2 kv)`
    pub(super) qkv: DeviceBuffer<f32>,
    /// `(rows, query)`
    pub(super) mixed: DeviceBuffer<f32>,
    /// `(rows, ffn)`
    pub(super) gated: DeviceBuffer<f32>,
    /// `(asking, vocab)`
    pub(super) logits: DeviceBuffer<f32>,
    /// Quantised rows, as `quantize` writes and `linear` reads them.
    pub(super) values: DeviceBuffer<i8>,
    pub(super) row_units: DeviceBuffer<f32>,
    pub(super) value_sums: DeviceBuffer<i32>,
    /// What stands there, where it is what the last linear read.
    pub(super) quantized: Option<launch::Values>,
    /// What the blocks of `linear` share; zero between launches.
    pub(super) workspace: DeviceBuffer<u32>,
    /// Rows split for float linears: `(rows, terms, stride)`, or those in tiles.
    pub(super) terms: DeviceBuffer<u16>,
    pub(super) scales: DeviceBuffer<f32>,
    /// Keys and values, bytes of the cache's number type.
    pub(super) keys: DeviceBuffer<u8>,
    pub(super) values_cache: DeviceBuffer<u8>,
    /// What the kernel of all layers keeps between its phases; empty where it is not used. Every
    /// bit is set before its first launch; from then on it is the kernel's alone.
    pub(super) rooms: DeviceBuffer<f32>,
    /// Cosines and sines `(positions, head_dim / 2)`, where positions are rotary.
    pub(super) angles: Option<[DeviceBuffer<f32>; 2]>,
    /// The step's [`Rows`], and where the host writes them.
    pub(super) rows: DeviceBuffer<u32>,
    pub(super) rows_host: PinnedBuffer<u32>,
    /// `(asking,)` each: what was chosen, and where a logit is not finite.
    pub(super) chosen: DeviceBuffer<u32>,
    pub(super) chosen_host: PinnedBuffer<u32>,
    /// Where the device tells the host what it has chosen ahead: one word, in its upper half the
    /// number of the choice, which is the other.
    pub(super) told: PinnedBuffer<u64>,
    pub(super) told_serial: u32,
    /// What sampling one row works in: weights `(vocab,)`, a bit for each token of the context
    /// `(vocab / 32,)`.
    pub(super) weights: DeviceBuffer<f32>,
    pub(super) seen: DeviceBuffer<u32>,
}

/// Where in [`State::rows`] what stands. For a step that is begun before the host knows its token,
/// `choose` writes token and position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub(super) positions: usize,
    pub(super) slots: usize,
    /// Rows whose logits are wanted.
    pub(super) asking: usize,
    /// First row and number of rows of each tile of attention.
    pub(super) tiles: usize,
    pub(super) tokens: usize,
    pub(super) len: usize,
}

impl Rows {
    fn new(rows: usize, asking: usize) -> Self {
        let positions = 0;
        let slots = positions + rows;
        let tiles = slots + rows;
        let asking_at = tiles + 2 * rows;
        let tokens = asking_at + asking;
        let len = tokens + rows;
        Self { positions, slots, asking: asking_at, tiles, tokens, len }
    }
}

impl State {
    /// `rooms_words`: of [`State::rooms`].
    pub(super) fn new(
        context: &Context,
        weights: &CudaWeights,
        limits: &Limits,
        rooms_words: usize,
    ) -> Result<Self, CudaError> {
        let config = &weights.config;
        let bucketed = |n: usize| if n <= BUCKET_MAX { bucket(n) } else { n };
        let (rows, asking) = (bucketed(limits.rows_max), bucketed(limits.logits_max));
        let (query, kv) = (config.query_width(), config.kv_width());
        let widest = config.hidden.max(query).max(config.ffn);
        let layout = KvLayout::new(config, limits);
        let number = match limits.kv {
            KvType::F32 => size_of::<f32>(),
            KvType::F16 => size_of::<f16>(),
        };
        let elements = layout.elements().and_then(|elements| elements.checked_mul(number));
        let cache_bytes = elements.ok_or_else(|| CudaError::OutOfMemory {
            what: "the key/value cache",
            needed: u64::MAX,
            free: context.memory().map_or(0, |memory| memory.free),
            total: context.device().memory,
            call: "cuMemAlloc",
        })?;
        let cache = || DeviceBuffer::zeroed(context, "the key/value cache", cache_bytes);
        let floats = |what, len| DeviceBuffer::<f32>::zeroed(context, what, len);
        let between = |buffer: Buffer, len| floats(buffer.name(), len);
        let count = |n: usize| u32::try_from(n).expect("rows and widths are below 2^32");
        let row_blocks = launch::row_blocks(count(rows)) as usize;
        let values = launch::Values { rows: count(rows), cols: count(widest) }.bytes() as usize;
        let list = Rows::new(rows, asking);
        // The head splits the rows that ask; float linears split every row.
        // Tiles of them have rows in eights.
        let head = asking.next_multiple_of(8) * terms_stride(config.hidden);
        let terms = TERMS
            * match config.linears {
                LinearKind::Ternary => head,
                LinearKind::Float => head.max(rows.next_multiple_of(8) * terms_stride(widest)),
            };
        let mut rooms = DeviceBuffer::uninitialized(context, "the rooms of layers", rooms_words)?;
        rooms.fill(0xff)?;
        Ok(Self {
            layout,
            rows_max: rows,
            asking_max: asking,
            keys: cache()?,
            values_cache: cache()?,
            rooms,
            hidden: between(Buffer::Hidden, rows * config.hidden)?,
            qkv: between(Buffer::Qkv, rows * (query + 2 * kv))?,
            mixed: between(Buffer::Mixed, rows * query)?,
            gated: between(Buffer::Gated, rows * config.ffn)?,
            logits: between(Buffer::Logits, asking * config.vocab)?,
            values: DeviceBuffer::zeroed(context, "the quantised rows", values)?,
            row_units: floats("the quantised rows", 8 * row_blocks)?,
            value_sums: DeviceBuffer::zeroed(context, "the quantised rows", 8 * row_blocks)?,
            quantized: None,
            workspace: DeviceBuffer::zeroed(
                context,
                "the linears' work space",
                workspace_words(context, weights, count(rows)),
            )?,
            terms: DeviceBuffer::zeroed(context, "the split rows", terms)?,
            scales: floats("the split rows", rows.max(asking))?,
            angles: angles(context, config, limits.positions_max)?,
            rows: DeviceBuffer::zeroed(context, "the rows of a step", list.len)?,
            rows_host: PinnedBuffer::zeroed(context, "pinned memory", list.len, PinnedUse::Both)?,
            chosen: DeviceBuffer::zeroed(context, "the chosen tokens", 2 * asking)?,
            weights: floats("the sampler's work space", config.vocab)?,
            seen: DeviceBuffer::zeroed(
                context,
                "the sampler's work space",
                config.vocab.div_ceil(32),
            )?,
            told: PinnedBuffer::zeroed(context, "pinned memory", 1, PinnedUse::Both)?,
            told_serial: 0,
            chosen_host: PinnedBuffer::zeroed(
                context,
                "pinned memory",
                2 * asking,
                PinnedUse::Both,
            )?,
        })
    }

    /// Places in [`State::rows`].
    pub(super) fn list(&self) -> Rows {
        Rows::new(self.rows_max, self.asking_max)
    }

    /// The buffer that lock step and evaluation look at.
    pub(super) fn buffer(&mut self, buffer: Buffer) -> &mut DeviceBuffer<f32> {
        match buffer {
            Buffer::Hidden => &mut self.hidden,
            Buffer::Qkv => &mut self.qkv,
            Buffer::Mixed => &mut self.mixed,
            Buffer::Gated => &mut self.gated,
            Buffer::Logits => &mut self.logits,
        }
    }

    /// What the last linear read, row by row, where that stands in a buffer.
    pub(super) fn quantized(&self) -> Result<Option<Quantized>, CudaError> {
        let Some(values) = self.quantized else { return Ok(None) };
        let (image, row_units) = (self.values.to_vec()?, self.row_units.to_vec()?);
        let sums = self.value_sums.to_vec()?;
        let places = (0..values.rows).flat_map(|row| (0..values.cols).map(move |col| (row, col)));
        let units = row_units.iter().zip(&sums).map(|(&unit, &sum)| RowUnit { unit, sum });
        Ok(Some(Quantized {
            values: places.map(|(row, col)| image[values.at(row, col) as usize]).collect(),
            units: units.take(values.rows as usize).collect(),
        }))
    }

    /// Addresses of the cosines and sines; null where positions are not rotary.
    pub(super) fn angles_ptr(&self) -> [DevicePtr<f32>; 2] {
        match &self.angles {
            Some([cos, sin]) => [cos.ptr(0), sin.ptr(0)],
            None => [DevicePtr::new(0); 2],
        }
    }

    /// Bytes of the key/value cache.
    pub(super) fn cache_bytes(&self) -> u64 {
        (self.keys.bytes() + self.values_cache.bytes()) as u64
    }

    /// Bytes of everything else.
    pub(super) fn work_bytes(&self) -> u64 {
        let floats = [&self.hidden, &self.qkv, &self.mixed, &self.gated, &self.logits];
        let floats = floats.into_iter().chain([&self.row_units, &self.scales, &self.weights]);
        let floats = floats.chain([&self.rooms]);
        let floats = floats.chain(self.angles.iter().flatten()).map(DeviceBuffer::bytes);
        let lists =
            [&self.workspace, &self.rows, &self.chosen, &self.seen].map(DeviceBuffer::bytes);
        let bytes = floats.sum::<usize>()
            + lists.iter().sum::<usize>()
            + self.values.bytes()
            + self.value_sums.bytes()
            + self.terms.bytes();
        bytes as u64
    }
}

/// Numbers from one term of a row of `cols` to the next.
pub(super) fn terms_stride(cols: usize) -> usize {
    cols.next_multiple_of(TERM_COLS)
}

/// Words that the model's ternary linears need for steps of up to `rows` rows.
fn workspace_words(context: &Context, weights: &CudaWeights, rows: u32) -> usize {
    let mut linears = weights.layers.iter().flat_map(|layer| {
        [&layer.qkv, &layer.attention_out, &layer.gate_up, &layer.down].into_iter()
    });
    if !linears.any(|linear| matches!(linear, DeviceLinear::Ternary(_))) {
        return 0;
    }
    // Hopper's own kernels for more rows share nothing in memory.
    let is_own = linear_target(|entry| weights.modules.target(entry)) == Target::SM_90A;
    let rows = if is_own { rows.min(LinearArgs::FEW) } else { rows };
    let words = launch::linear_workspace_words(rows, context.device().multiprocessors);
    usize::try_from(words).expect("some megabytes")
}

fn angles(
    context: &Context,
    config: &ModelConfig,
    positions: usize,
) -> Result<Option<[DeviceBuffer<f32>; 2]>, CudaError> {
    let Positions::Rotary { theta } = config.positions else { return Ok(None) };
    let frequencies = rotary::frequencies(config.head_dim, theta);
    let pairs = frequencies.len();
    let (mut cos, mut sin) = (vec![0.0; positions * pairs], vec![0.0; positions * pairs]);
    let rows = cos.par_chunks_mut(pairs).zip(sin.par_chunks_mut(pairs)).enumerate();
    rows.for_each(|(position, (cos, sin))| rotary::angles(position, &frequencies, cos, sin));
    let upload = |x: &[f32]| DeviceBuffer::from_slice(context, "the rotary positions", x);
    Ok(Some([upload(&cos)?, upload(&sin)?]))
}
