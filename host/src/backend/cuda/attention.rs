//! [`Attention`]: positions, cache, softmax on the device.

#![allow(unsafe_code, reason = "launches kernels")]

use tercet_kernels_ptx::contract::{
    AttendRowsArgs, AttendRowsExactArgs, DevicePtr, RopeStoreArgs,
};
use tercet_kernels_ptx::launch::{AttendRowsShape, RopeStoreShape};

use super::driver::{CudaError, Launch, Stream};
use super::modules::{Loaded, Modules};
use super::launches::{Step, count};
use super::state::State;
use crate::backend::{DeviceError, KvType, Limits, Row};
use crate::config::ModelConfig;

/// Most rows of a tile: rows of one sequence at consecutive positions that share keys and values.
const TILE_ROWS: usize = AttendRowsArgs::TILE_ROWS as usize;

/// The kernels of attention that a model and a cache need.
#[derive(Debug)]
pub(super) struct Attention {
    store: Loaded<RopeStoreArgs>,
    rows: RowsKernel,
    kv: KvType,
}

/// Attention of many rows of a sequence.
#[derive(Debug)]
enum RowsKernel {
    /// On tensor cores, for a cache of halves and the head widths of known models.
    Tensor(Loaded<AttendRowsArgs>),
    /// In the CPU's order of operations, for the rest.
    Exact(Loaded<AttendRowsExactArgs>),
}

/// The kernels that `config` needs.
pub(super) fn entries(config: &ModelConfig) -> Vec<&'static str> {
    let mut entries = vec!["rope_store", "attend_rows_exact_f32"];
    entries.push(tensor_entry(config.head_dim).unwrap_or("attend_rows_exact_f16"));
    entries
}

/// The kernel on tensor cores for heads of this width.
fn tensor_entry(head_dim: usize) -> Option<&'static str> {
    AttendRowsShape::entry(u32::try_from(head_dim).ok()?)
}

/// Cuts the rows of a step into tiles, two numbers each in `tiles`: first row and number of rows.
/// Returns how many. What is left of `tiles` repeats the first: harmless, should it be looked at.
pub(super) fn tile(rows: &[Row], tiles: &mut [u32]) -> u32 {
    let follows = |before: &Row, row: &Row| {
        row.slot == before.slot && row.position == before.position + 1
    };
    let mut made = Vec::with_capacity(rows.len());
    let mut first = 0;
    for index in 1..=rows.len() {
        let goes_on = index < rows.len()
            && index - first < TILE_ROWS
            && follows(&rows[index - 1], &rows[index]);
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
        let tensor = tensor_entry(config.head_dim).filter(|_| limits.kv == KvType::F16);
        let dim = count(config.head_dim);
        let rows = match (tensor, limits.kv) {
            (Some(entry), _) => {
                let shared = AttendRowsShape::shared_bytes(dim);
                RowsKernel::Tensor(modules.with_shared(entry, shared)?)
            }
            (None, KvType::F16) => RowsKernel::Exact(modules.need("attend_rows_exact_f16")?),
            (None, KvType::F32) => RowsKernel::Exact(modules.need("attend_rows_exact_f32")?),
        };
        Ok(Self { store: modules.need("rope_store")?, rows, kv: limits.kv })
    }

    /// `q, k` turned by their positions; `k, v` stored; `mixed = softmax(q kᵀ / √head_dim) v`.
    pub(super) fn run(
        &self,
        config: &ModelConfig,
        layer: usize,
        step: Step,
        state: &mut State,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let number = match self.kv {
            KvType::F16 => 2,
            KvType::F32 => 4,
        };
        let start = layer * state.layout.layer_elements() * number;
        let places = state.list();
        let angles = |index: usize| match &state.angles {
            Some(angles) => angles[index].ptr(0),
            None => DevicePtr::new(0),
        };
        let (heads, kv_heads) = (count(config.heads), count(config.kv_heads));
        let (head_dim, capacity) = (count(config.head_dim), count(state.layout.positions()));
        let (cos, sin) = (angles(0), angles(1));
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
        let grid = RopeStoreShape::new(step.rows, heads, kv_heads).grid();
        let grid = self.store.prepare(Launch::grid(grid.x, grid.y, grid.z));
        // SAFETY: see the beginning of `launches`.
        unsafe { self.store.function.launch(grid, stream, &args) }?;

        let shape = AttendRowsShape::new(step.tiles, heads, kv_heads, head_dim);
        match &self.rows {
            RowsKernel::Tensor(kernel) => {
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
                let grid = shape.grid();
                let grid = Launch::grid(grid.x, grid.y, grid.z)
                    .shared(AttendRowsShape::shared_bytes(head_dim));
                // SAFETY: see the beginning of `launches`.
                unsafe { kernel.function.launch(kernel.prepare(grid), stream, &args) }?;
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
                let grid = shape.grid();
                let grid = Launch::grid(grid.x, grid.y, grid.z);
                // SAFETY: see the beginning of `launches`.
                unsafe { kernel.function.launch(kernel.prepare(grid), stream, &args) }?;
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
        assert_eq!(tile(&rows, &mut tiles), 3);
        assert_eq!(tiles[..6], [64, 36, 0, 64, 100, 3]);
        assert!(tiles[6..].chunks(2).all(|tile| tile == [64, 36]));
    }

    #[test]
    fn a_gap_ends_a_tile() {
        let rows = [row(0, 3), row(0, 5), row(0, 6), row(2, 7)];
        let mut tiles = [0; 8];
        assert_eq!(tile(&rows, &mut tiles), 3);
        assert_eq!(tiles[..6], [3, 1, 1, 2, 0, 1]);
    }
}
