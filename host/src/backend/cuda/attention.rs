//! [`Attention`]: positions, cache, softmax on the device.

#![allow(unsafe_code, reason = "launches kernels")]

use tercet_kernels_ptx::contract::{
    AttendRowsArgs, AttendRowsExactArgs, AttendRowsHopperArgs, DevicePtr, RopeStoreArgs,
};
use tercet_kernels_ptx::launch::{self, AttendRowsShape};

use super::decode::Decode;
use super::driver::{CudaError, Launch, Stream};
use super::launches::{Step, as_launch, count};
use super::modules::{Loaded, Modules};
use super::state::State;
use crate::backend::{DeviceError, KvType, Limits, Row};
use crate::config::ModelConfig;

/// The kernels of attention that a model and a cache need.
#[derive(Debug)]
pub(super) struct Attention {
    kv: KvType,
    store: Loaded<RopeStoreArgs>,
    rows: RowsKernel,
}

/// Attention of many rows of a sequence.
#[derive(Debug)]
enum RowsKernel {
    /// On tensor cores, for a cache of halves and the head widths of known models; and with the
    /// same bits for longer tiles, where the device has it.
    Near(Loaded<AttendRowsArgs>, Option<Loaded<AttendRowsHopperArgs>>),
    /// In the CPU's order of operations, for the rest.
    Exact(Loaded<AttendRowsExactArgs>),
}

fn shape(config: &ModelConfig, kv: KvType) -> AttendRowsShape {
    AttendRowsShape {
        heads: count(config.heads),
        head_dim: count(config.head_dim),
        halves: kv == KvType::F16,
    }
}

/// The kernels that `config` needs, whatever the cache.
pub(super) fn entries(config: &ModelConfig) -> Vec<&'static str> {
    let near = shape(config, KvType::F16).near().unwrap_or("attend_rows_exact_f16");
    let hopper = shape(config, KvType::F16).hopper();
    ["rope_store", "attend_rows_exact_f32", near].into_iter().chain(hopper).collect()
}

/// Whether attention of many rows is equal to the CPU's to the bit.
pub(super) fn is_exact(config: &ModelConfig, kv: KvType) -> bool {
    shape(config, kv).near().is_none()
}

/// Cuts the rows of a step into tiles of at most `most` rows, of one sequence at consecutive
/// positions: two numbers each in `tiles`, first row and number of rows. Returns how many. What is
/// left of `tiles` repeats the first: harmless, should it be looked at.
pub(super) fn tile(rows: &[Row], most: usize, tiles: &mut [u32]) -> u32 {
    let follows =
        |before: &Row, row: &Row| row.slot == before.slot && row.position == before.position + 1;
    let mut made = Vec::with_capacity(rows.len());
    let mut first = 0;
    for index in 1..=rows.len() {
        let goes_on =
            index < rows.len() && index - first < most && follows(&rows[index - 1], &rows[index]);
        if !goes_on {
            made.push((first, index - first));
            first = index;
        }
    }
    // The longest first, so that they do not end last.
    made.sort_by_key(|&(first, rows_of)| core::cmp::Reverse(rows[first + rows_of - 1].position));
    for (index, tile) in tiles.chunks_exact_mut(2).enumerate() {
        let (first, rows) = made[if index < made.len() { index } else { 0 }];
        tile.copy_from_slice(&[count(first), count(rows)]);
    }
    count(made.len())
}

impl Attention {
    pub(super) fn new(
        modules: &Modules,
        config: &ModelConfig,
        limits: &Limits,
    ) -> Result<Self, CudaError> {
        let rows = match (shape(config, limits.kv).near(), limits.kv) {
            (Some(entry), _) => {
                let hopper = shape(config, limits.kv).hopper().map(|entry| modules.get(entry));
                RowsKernel::Near(modules.need(entry)?, hopper.transpose()?.flatten())
            }
            (None, KvType::F16) => RowsKernel::Exact(modules.need("attend_rows_exact_f16")?),
            (None, KvType::F32) => RowsKernel::Exact(modules.need("attend_rows_exact_f32")?),
        };
        Ok(Self { kv: limits.kv, store: modules.need("rope_store")?, rows })
    }

    /// Most rows of a tile.
    pub(super) const fn tile_rows(&self) -> usize {
        let rows = match &self.rows {
            RowsKernel::Near(_, Some(_)) => AttendRowsHopperArgs::TILE_ROWS,
            RowsKernel::Near(_, None) => AttendRowsArgs::TILE_ROWS,
            RowsKernel::Exact(_) => AttendRowsExactArgs::TILE_ROWS,
        };
        rows as usize
    }

    /// `q, k` turned by their positions; `k, v` stored; `mixed = softmax(q kᵀ / √head_dim) v`.
    pub(super) fn run(
        &self,
        config: &ModelConfig,
        layer: usize,
        step: Step,
        decode: &Decode,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let number = match self.kv {
            KvType::F16 => 2,
            KvType::F32 => 4,
        };
        let start = layer * state.layout.layer_elements() * number;
        if step.batch && decode.attend(config, self.kv, start, step, state, stream)? {
            return Ok(());
        }
        let places = state.list();
        let [cos, sin] = state.angles_ptr();
        let (heads, kv_heads) = (count(config.heads), count(config.kv_heads));
        let (head_dim, capacity) = (count(config.head_dim), count(state.layout.positions()));
        let args = RopeStoreArgs {
            qkv: state.qkv.ptr_mut(0),
            positions: state.rows.ptr(places.positions),
            slots: state.rows.ptr(places.slots),
            cos,
            sin,
            keys: state.keys.ptr_mut(start),
            values: state.values_cache.ptr_mut(start),
            rows: step.rows,
            heads,
            kv_heads,
            head_dim,
            capacity,
            kv: match self.kv {
                KvType::F16 => RopeStoreArgs::F16,
                KvType::F32 => RopeStoreArgs::F32,
            },
        };
        let grid = launch::rope_store_grid(step.rows, heads, kv_heads);
        let grid = self.store.prepare(Launch::grid(grid.x, grid.y, grid.z));
        // SAFETY: see the beginning of `launches`.
        unsafe { self.store.function.launch(grid, stream, &args) }?;

        let shape = shape(config, self.kv);
        match &self.rows {
            // The tiles of a batch are single rows, too short for it.
            RowsKernel::Near(_, Some(kernel)) if !step.batch => {
                let args = AttendRowsHopperArgs {
                    qkv: state.qkv.ptr(0),
                    keys: DevicePtr::new(state.keys.address(start)),
                    values: DevicePtr::new(state.values_cache.address(start)),
                    positions: state.rows.ptr(places.positions),
                    slots: state.rows.ptr(places.slots),
                    tiles: state.rows.ptr(places.tiles),
                    mixed: state.mixed.ptr_mut(0),
                    heads,
                    kv_heads,
                    head_dim,
                    capacity,
                };
                let launch = shape.launch_hopper(step.tiles).expect("it has a kernel");
                // SAFETY: see `launches`: buffers have room for the step's rows.
                unsafe {
                    kernel.function.launch(kernel.prepare(as_launch(launch)), stream, &args)
                }?;
            }
            RowsKernel::Near(kernel, _) => {
                let args = AttendRowsArgs {
                    qkv: state.qkv.ptr(0),
                    keys: DevicePtr::new(state.keys.address(start)),
                    values: DevicePtr::new(state.values_cache.address(start)),
                    positions: state.rows.ptr(places.positions),
                    slots: state.rows.ptr(places.slots),
                    tiles: state.rows.ptr(places.tiles),
                    mixed: state.mixed.ptr_mut(0),
                    heads,
                    kv_heads,
                    head_dim,
                    capacity,
                };
                let launch = shape.launch_near(step.tiles).expect("it has a kernel");
                // SAFETY: see `launches`: buffers have room for the step's rows.
                unsafe {
                    kernel.function.launch(kernel.prepare(as_launch(launch)), stream, &args)
                }?;
            }
            RowsKernel::Exact(kernel) => {
                let args = AttendRowsExactArgs {
                    qkv: state.qkv.ptr(0),
                    keys: state.keys.ptr(start),
                    values: state.values_cache.ptr(start),
                    positions: state.rows.ptr(places.positions),
                    slots: state.rows.ptr(places.slots),
                    tiles: state.rows.ptr(places.tiles),
                    mixed: state.mixed.ptr_mut(0),
                    heads,
                    kv_heads,
                    head_dim,
                    capacity,
                };
                let launch = as_launch(shape.launch_exact(step.tiles));
                // SAFETY: see `launches`: buffers have room for the step's rows.
                unsafe { kernel.function.launch(kernel.prepare(launch), stream, &args) }?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(slot: usize, position: usize) -> Row {
        Row { slot, position, token: 0, logits: false }
    }

    #[test]
    fn tiles_hold_neighbours_of_one_sequence() {
        let rows: Vec<_> = (0..100).map(|p| row(0, p)).chain((5..8).map(|p| row(1, p))).collect();
        let mut tiles = vec![7; 2 * rows.len()];
        assert_eq!(tile(&rows, 64, &mut tiles), 3);
        assert_eq!(tiles[..6], [64, 36, 0, 64, 100, 3]);
        assert!(tiles[6..].chunks(2).all(|tile| tile == [64, 36]));
        assert_eq!(tile(&rows, 128, &mut tiles), 2);
        assert_eq!(tiles[..4], [0, 100, 100, 3]);
    }

    #[test]
    fn a_gap_ends_a_tile() {
        let rows = [row(0, 3), row(0, 5), row(0, 6), row(2, 7)];
        let mut tiles = [0; 8];
        assert_eq!(tile(&rows, 64, &mut tiles), 3);
        assert_eq!(tiles[..6], [3, 1, 1, 2, 0, 1]);
    }
}
