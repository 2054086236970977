//! [`Staging`]: weights on their way to the device, through two pinned buffers that are filled and
//! copied in turn.

#![allow(unsafe_code, reason = "copies that are still under way when the call returns")]

use rayon::prelude::*;
use tercet_kernels_ptx::contract::{FloatLinearArgs, TileWeightsArgs};
use tercet_kernels_ptx::launch::{FloatLinearShape, WeightType};

use super::driver::{
    Context, CudaError, DeviceBuffer, Event, Function, Launch, PinnedBuffer, PinnedUse, Stream,
};

/// Bytes of a pinned buffer: long enough for the bus's full speed, short enough to be pinned at
/// once.
const BYTES: usize = 8 << 20;

/// Bytes that a thread copies at a time.
const PIECE: usize = 1 << 20;

/// Two pinned buffers and the stream that empties them.
#[derive(Debug)]
pub(super) struct Staging {
    stream: Stream,
    halves: [(PinnedBuffer<u8>, Event); 2],
    turn: usize,
    tile_weights: Function<TileWeightsArgs>,
}

impl Staging {
    pub(super) fn new(
        context: &Context,
        tile_weights: Function<TileWeightsArgs>,
    ) -> Result<Self, CudaError> {
        let half = || {
            let buffer = PinnedBuffer::zeroed(context, "pinned memory", BYTES, PinnedUse::Both)?;
            Ok::<_, CudaError>((buffer, Event::new(context)?))
        };
        let stream = Stream::new(context)?;
        let halves = [half()?, half()?];
        for (_, event) in &halves {
            event.record(&stream)?;
        }
        Ok(Self { stream, halves, turn: 0, tile_weights })
    }

    /// Fills `bytes` bytes of `target` from `at` on, in pieces of whole `unit`s: `fill(first, out)`
    /// writes the piece that starts at byte `first`.
    ///
    /// # Panics
    ///
    /// When a unit is longer than a pinned buffer.
    pub(super) fn fill(
        &mut self,
        target: &mut DeviceBuffer<u8>,
        at: usize,
        bytes: usize,
        unit: usize,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), CudaError> {
        assert!(unit > 0 && unit <= BYTES, "a unit of {unit} bytes");
        let piece = BYTES / unit * unit;
        for first in (0..bytes).step_by(piece) {
            let count = piece.min(bytes - first);
            let (buffer, event) = &mut self.halves[self.turn];
            event.synchronize()?;
            let part = &mut buffer[..count];
            fill(first, part);
            // SAFETY: the pinned bytes are kept, and not written again before the event behind the
            // copy has happened; the target belongs to the caller, who reads it after `finish`.
            unsafe { target.write_queued(at + first, part, &self.stream) }?;
            event.record(&self.stream)?;
            self.turn ^= 1;
        }
        Ok(())
    }

    /// Brings a matrix of `shape` to the device and there into tiles: a run of rows after the
    /// other, by way of a buffer that they share. `fill(row, out)` writes whole rows from `row` on.
    pub(super) fn tile(
        &mut self,
        shape: FloatLinearShape,
        tiles: &mut DeviceBuffer<u8>,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), CudaError> {
        const TILE_ROWS: usize = FloatLinearArgs::TILE_FEATURES as usize;
        let (features, cols) = (shape.features() as usize, shape.cols() as usize);
        let row_bytes = cols * shape.weights().bytes() as usize;
        let run = (BYTES / row_bytes / TILE_ROWS * TILE_ROWS).max(TILE_ROWS);
        let tile_bytes = tiles.len() / features.div_ceil(TILE_ROWS);
        let context = tiles.context().clone();
        let mut rows = DeviceBuffer::uninitialized(&context, "a run of rows", run * row_bytes)?;
        for first in (0..features).step_by(run) {
            let count = run.min(features - first);
            self.fill(&mut rows, 0, count * row_bytes, row_bytes, |at, out| {
                fill(first + at / row_bytes, out);
            })?;
            let number = |n: usize| u32::try_from(n).expect("rows and columns are below 2^24");
            let args = TileWeightsArgs {
                rows: rows.ptr(0),
                tiles: tiles.ptr_mut(first / TILE_ROWS * tile_bytes),
                features: number(count),
                cols: number(cols),
                form: match shape.weights() {
                    WeightType::F16 | WeightType::Bf16 => TileWeightsArgs::BITS16,
                    WeightType::F32 => TileWeightsArgs::F32,
                    WeightType::I8 => TileWeightsArgs::I8,
                },
                reserved: 0,
            };
            let grid = Launch::grid(number(count.div_ceil(TILE_ROWS)), 1, 1);
            // SAFETY: `rows` holds `count` rows, `tiles` the tiles of all features; both are
            // multiples of 16 bytes. The stream does one run after the other, and is waited for
            // before `rows` is freed.
            unsafe { self.tile_weights.launch(grid, &self.stream, &args) }?;
        }
        self.stream.synchronize()
    }

    /// Copies `stored` to `target`.
    pub(super) fn copy(
        &mut self,
        stored: &[u8],
        target: &mut DeviceBuffer<u8>,
    ) -> Result<(), CudaError> {
        self.fill(target, 0, stored.len(), 1, |first, out| {
            copy_all(&stored[first..first + out.len()], out);
        })
    }

    /// Waits until everything is on the device.
    pub(super) fn finish(&self) -> Result<(), CudaError> {
        self.stream.synchronize()
    }
}

/// Copies with all threads.
pub(super) fn copy_all(stored: &[u8], out: &mut [u8]) {
    let pieces = out.par_chunks_mut(PIECE).zip(stored.par_chunks(PIECE));
    pieces.for_each(|(out, stored)| out.copy_from_slice(stored));
}
