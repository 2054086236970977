//! Launches of the kernels that decode one row.

mod layers;

pub use layers::{DecodeLayersShape, LayersModel};

use super::Grid;
use crate::contract::{DecodeAttendArgs, DecodeLinearArgs};

/// What a launch has to know of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceShape {
    /// Multiprocessors, at least 1.
    pub multiprocessors: u32,
    /// Bytes of shared memory that a thread block can have at most, static and dynamic
    /// (`CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN`).
    pub shared_bytes: u32,
}

/// What becomes of the values of a linear of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeFinish {
    /// Stored: `decode_qkv`.
    Store,
    /// Added to the residual: `decode_out`.
    Add,
    /// `activation(gate) · up`, stored: `decode_gate_up`.
    Gate,
}

/// Launch of a linear of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLinearShape {
    entry: &'static str,
    row_tiles: u32,
    col_tiles: u32,
    block_pairs: u32,
    stages: u32,
}

impl DecodeLinearShape {
    const TILE_ROWS: u32 = 16;
    const TILE_COLS: u32 = 128;
    /// Bytes of a pair of tiles.
    const PAIR_BYTES: u32 = 2 * 512;
    /// Bytes of the sums of a pair of row tiles: of 32 rows, by each warp that multiplies.
    const SUM_BYTES: u32 = (DecodeLinearArgs::THREADS / 32 - 1) * 32 * 4;
    /// Static shared memory of every entry at most.
    const STATIC_BYTES: u32 = 5 * 1024;

    /// The launch for `features` output features (of the gate alone, for `Gate`) of a row of
    /// `cols`, or `None` where no entry serves the shape: the general path has to.
    #[must_use]
    pub fn new(
        finish: DecodeFinish,
        features: u32,
        cols: u32,
        device: DeviceShape,
    ) -> Option<Self> {
        if features == 0 || cols == 0 || !cols.is_multiple_of(4) || device.multiprocessors == 0 {
            return None;
        }
        let entry = match (finish, cols.div_ceil(1024)) {
            (DecodeFinish::Store, ..=4) => "decode_qkv_4",
            (DecodeFinish::Gate, ..=4) => "decode_gate_up_4",
            (DecodeFinish::Add, ..=4) => "decode_out_4",
            (DecodeFinish::Add, ..=9) => "decode_out_9",
            (DecodeFinish::Add, ..=14) => "decode_out_14",
            _ => return None,
        };
        let tiles = features.div_ceil(Self::TILE_ROWS);
        let row_tiles = if finish == DecodeFinish::Gate { tiles.checked_mul(2)? } else { tiles };
        let col_tiles = cols.div_ceil(Self::TILE_COLS);
        let block_pairs = row_tiles.div_ceil(2).div_ceil(device.multiprocessors);
        let left = device
            .shared_bytes
            .checked_sub(Self::STATIC_BYTES)?
            .checked_sub(block_pairs.checked_mul(Self::SUM_BYTES)?)?;
        let stages = (left / (col_tiles * Self::PAIR_BYTES))
            .min(block_pairs)
            .min(DecodeLinearArgs::STAGES_MAX);
        (stages > 0).then_some(Self { entry, row_tiles, col_tiles, block_pairs, stages })
    }

    /// The kernel.
    #[must_use]
    pub const fn entry(self) -> &'static str {
        self.entry
    }

    /// The grid to launch.
    #[must_use]
    pub const fn grid(self) -> Grid {
        Grid { x: self.row_tiles.div_ceil(2).div_ceil(self.block_pairs), y: 1, z: 1 }
    }

    /// Dynamic shared memory in bytes.
    #[must_use]
    pub const fn shared_bytes(self) -> u32 {
        self.stages * self.col_tiles * Self::PAIR_BYTES + self.block_pairs * Self::SUM_BYTES
    }

    /// [`DecodeLinearArgs::row_tiles`].
    #[must_use]
    pub const fn row_tiles(self) -> u32 {
        self.row_tiles
    }

    /// [`DecodeLinearArgs::col_tiles`].
    #[must_use]
    pub const fn col_tiles(self) -> u32 {
        self.col_tiles
    }

    /// [`DecodeLinearArgs::block_pairs`].
    #[must_use]
    pub const fn block_pairs(self) -> u32 {
        self.block_pairs
    }

    /// [`DecodeLinearArgs::stages`].
    #[must_use]
    pub const fn stages(self) -> u32 {
        self.stages
    }
}

/// Launch of attention of single rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeAttendShape {
    entry: &'static str,
    grid: Grid,
    shared_bytes: u32,
}

impl DecodeAttendShape {
    /// Thread blocks of one row that are enough for a cluster of 4 instead of 8 each head.
    const ENOUGH_BLOCKS: u32 = 66;
    /// Static shared memory of every entry at most.
    const STATIC_BYTES: u32 = 28 * 1024;
    /// Thread blocks in clusters from which on a block of its own for a set of heads, or a warp,
    /// does better than a cluster: several times what a large device has resident.
    const MANY: u32 = 2560;
    const WARPS: u32 = DecodeAttendArgs::THREADS / 32;
    /// Most warps of a rank that is begun in one round of a thread block and ended in the next.
    const STRADDLING: u32 = 5;

    /// The launch for `rows` rows, or `None` where no entry serves the shape. The bits of a row do
    /// not depend on how many they are: entries for few rows and for many mix the same parts in
    /// the same order.
    ///
    /// `halves`: the cache holds halves, not singles.
    #[must_use]
    pub fn new(
        heads: u32,
        kv_heads: u32,
        head_dim: u32,
        halves: bool,
        rows: u32,
        device: DeviceShape,
    ) -> Option<Self> {
        let served = kv_heads > 0
            && heads > 0
            && heads.is_multiple_of(kv_heads)
            && (4..=256).contains(&head_dim)
            && head_dim.is_multiple_of(4)
            && (1..=Grid::Y_MAX).contains(&rows);
        if !served {
            return None;
        }
        let group = heads / kv_heads;
        let sets = group.div_ceil(DecodeAttendArgs::HEADS_MAX);
        let y = kv_heads.checked_mul(sets).filter(|y| *y <= Grid::Y_MAX / 8)?;
        let (entry, cluster) = match (halves, head_dim) {
            (true, ..=128) if y * 4 >= Self::ENOUGH_BLOCKS => ("decode_attend_f16_128_c4", 4),
            (true, ..=128) => ("decode_attend_f16_128_c8", 8),
            (true, _) => ("decode_attend_f16_256_c8", 8),
            (false, _) => ("decode_attend_f32_256_c8", 8),
        };
        let heads_of = group.min(DecodeAttendArgs::HEADS_MAX);
        let many = match entry {
            "decode_attend_f16_128_c4" => Some("decode_attend_many_f16_128_c4"),
            "decode_attend_f16_128_c8" => Some("decode_attend_many_f16_128_c8"),
            _ => None,
        };
        let shape = match many.filter(|_| (y * cluster).saturating_mul(rows) >= Self::MANY) {
            Some(entry) => Self {
                entry,
                // Where key heads are few, one is a block's; otherwise a warp's.
                grid: match cluster {
                    8 => Grid { x: rows, y, z: 1 },
                    _ => Grid { x: y.div_ceil(Self::WARPS), y: rows, z: 1 },
                },
                shared_bytes: Self::many_bytes(head_dim, heads_of, cluster),
            },
            None => Self {
                entry,
                grid: Grid { x: cluster, y, z: rows },
                shared_bytes: Self::WARPS
                    * if halves { Self::slab_bytes(head_dim) } else { heads_of * head_dim * 4 },
            },
        };
        (shape.shared_bytes + Self::STATIC_BYTES <= device.shared_bytes).then_some(shape)
    }

    /// Sixteen positions of keys, 32 bytes an element, and of values, an odd number of 16 bytes a
    /// position.
    const fn slab_bytes(head_dim: u32) -> u32 {
        head_dim * 32 + 16 * ((head_dim * 2).div_ceil(16) | 1) * 16
    }

    /// Of a warp: queries in two halves, and a slab, in whose place it then has values, sums of
    /// weighted values and what is parked of its units. In place of all but the slabs the block
    /// has, for a row of its own, queries, the new key and value, and its warps' and ranks' sums
    /// and peaks.
    const fn many_bytes(head_dim: u32, heads: u32, ranks: u32) -> u32 {
        let queries = 2 * heads * ((head_dim.div_ceil(16) * 2) | 1) * 16;
        let slab = Self::slab_bytes(head_dim);
        let parked = Self::WARPS * heads * (4 * 16 + 8);
        let second = (slab - head_dim * 32 + heads * head_dim * 4 + parked).next_multiple_of(16);
        let room = if slab > second { slab } else { second };
        let fresh = (head_dim * 4).next_multiple_of(16);
        // Of four ranks the first one's sums are in the output, the last one's nowhere.
        let (slots, sums, peaks) = match ranks {
            8 => (Self::WARPS + Self::STRADDLING - 1, 8, 8),
            _ => (Self::WARPS, ranks - 2, ranks - 1),
        };
        let mixing = (slots + sums) * heads * head_dim * 4 + (slots + peaks) * heads * 8;
        let warps = Self::WARPS * (room + queries);
        let block = Self::WARPS * slab + queries + fresh + mixing + heads * 4;
        if warps > block { warps } else { block }
    }

    /// The kernel. Its thread blocks form clusters along x; the PTX says so, the launch need not.
    #[must_use]
    pub const fn entry(self) -> &'static str {
        self.entry
    }

    /// The grid to launch.
    #[must_use]
    pub const fn grid(self) -> Grid {
        self.grid
    }

    /// Dynamic shared memory in bytes.
    #[must_use]
    pub const fn shared_bytes(self) -> u32 {
        self.shared_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: DeviceShape = DeviceShape { multiprocessors: 132, shared_bytes: 232_448 };

    fn linear(finish: DecodeFinish, features: u32, cols: u32) -> Option<DecodeLinearShape> {
        DecodeLinearShape::new(finish, features, cols, H200)
    }

    #[test]
    fn layers_of_known_models_are_served() {
        use DecodeFinish::{Add, Gate, Store};
        for (finish, features, cols, entry, pairs, blocks) in [
            (Store, 9600, 3200, "decode_qkv_4", 3, 100),
            (Add, 3200, 3200, "decode_out_4", 1, 100),
            (Gate, 8640, 3200, "decode_gate_up_4", 5, 108),
            (Add, 3200, 8640, "decode_out_9", 1, 100),
            (Store, 3840, 2560, "decode_qkv_4", 1, 120),
            (Gate, 6912, 2560, "decode_gate_up_4", 4, 108),
            (Add, 2560, 6912, "decode_out_9", 1, 80),
            (Add, 4096, 14336, "decode_out_14", 1, 128),
        ] {
            let shape = linear(finish, features, cols).unwrap();
            assert_eq!(shape.entry(), entry);
            assert_eq!((shape.block_pairs(), shape.grid().x), (pairs, blocks), "{shape:?}");
            assert!(shape.stages() == pairs, "all weights are on the way at once: {shape:?}");
            let total = shape.shared_bytes() + DecodeLinearShape::STATIC_BYTES;
            assert!(total <= H200.shared_bytes, "{shape:?}");
        }
    }

    #[test]
    fn blocks_cover_every_row_tile() {
        for features in [1, 16, 17, 250, 3200, 48_000, 151_936] {
            for multiprocessors in [1, 78, 132] {
                let device = DeviceShape { multiprocessors, ..H200 };
                let shape = DecodeLinearShape::new(DecodeFinish::Gate, features, 3200, device);
                let Some(shape) = shape else { continue };
                assert_eq!(shape.row_tiles(), 2 * features.div_ceil(16));
                let pairs = shape.row_tiles() / 2;
                assert!(shape.grid().x * shape.block_pairs() >= pairs, "{shape:?}");
                assert!((shape.grid().x - 1) * shape.block_pairs() < pairs, "no block is idle");
                assert!((1..=shape.block_pairs()).contains(&shape.stages()));
            }
        }
    }

    #[test]
    fn other_linears_take_the_general_path() {
        use DecodeFinish::{Add, Gate, Store};
        assert_eq!(linear(Add, 3200, 3202), None, "columns in fours");
        assert_eq!(linear(Add, 3200, 14_340), None);
        assert_eq!(linear(Store, 3200, 4100), None);
        assert_eq!(linear(Gate, 3200, 4100), None);
        assert_eq!(linear(Add, 0, 3200), None);
        assert_eq!(linear(Add, 3200, 0), None);
        let small = DeviceShape { multiprocessors: 1, shared_bytes: 49_152 };
        assert_eq!(DecodeLinearShape::new(Add, 3200, 3200, small), None, "sums do not fit");
    }

    #[test]
    fn attention_of_known_models_is_served() {
        let of = |heads, kv_heads, head_dim, halves, rows| {
            DecodeAttendShape::new(heads, kv_heads, head_dim, halves, rows, H200)
                .map(|shape| (shape.entry(), shape.grid(), shape.shared_bytes()))
        };
        let grid = |x, y, z| Grid { x, y, z };
        assert_eq!(
            of(32, 32, 100, true, 1),
            Some(("decode_attend_f16_128_c4", grid(4, 32, 1), 8 * (3200 + 16 * 208)))
        );
        assert_eq!(
            of(20, 5, 128, true, 2),
            Some(("decode_attend_f16_128_c8", grid(8, 5, 2), 8 * (4096 + 16 * 272)))
        );
        assert_eq!(of(64, 4, 128, true, 1).unwrap().1, grid(8, 8, 1), "two sets of heads");
        for head_dim in [64, 96, 100, 128, 256] {
            for halves in [true, false] {
                assert!(of(32, 8, head_dim, halves, 1).is_some(), "{head_dim} {halves}");
            }
        }
    }

    /// Shared memory of the H200's multiprocessor, and what it keeps for itself of every block.
    const MULTIPROCESSOR: u32 = 228 * 1024;
    const RESERVED: u32 = 1024;

    #[test]
    fn phases_that_follow_each_other_fit_a_multiprocessor() {
        use DecodeFinish::{Add, Gate, Store};
        for (heads, kv_heads, head_dim, ffn) in [(32, 32, 100, 8640), (20, 5, 128, 6912)] {
            let hidden = heads * head_dim;
            let linear = |finish, features, cols| {
                let shape = linear(finish, features, cols).unwrap();
                shape.shared_bytes() + DecodeLinearShape::STATIC_BYTES + RESERVED
            };
            let attend = DecodeAttendShape::new(heads, kv_heads, head_dim, true, 1, H200).unwrap();
            // Of an entry for heads of up to 128.
            let attend = attend.shared_bytes() + 10 * 1024 + RESERVED;
            let phases = [
                linear(Store, hidden + 2 * kv_heads * head_dim, hidden),
                attend,
                linear(Add, hidden, hidden),
                linear(Gate, ffn, hidden),
                linear(Add, hidden, ffn),
            ];
            for at in 0..phases.len() {
                let both = phases[at] + phases[(at + 1) % phases.len()];
                assert!(both <= MULTIPROCESSOR, "phase {at} of {heads} heads: {both}");
            }
        }
    }

    #[test]
    fn other_attention_takes_the_general_path() {
        let of = |heads, kv_heads, head_dim, rows| {
            DecodeAttendShape::new(heads, kv_heads, head_dim, true, rows, H200)
        };
        assert_eq!(of(32, 5, 128, 1), None);
        assert_eq!(of(32, 0, 128, 1), None);
        assert_eq!(of(32, 8, 260, 1), None);
        assert_eq!(of(32, 8, 102, 1), None);
        assert_eq!(of(32, 8, 128, 0), None);
        assert_eq!(of(32, 8, 128, 1 << 16), None);
        let small = DeviceShape { multiprocessors: 132, shared_bytes: 102_400 };
        assert_eq!(DecodeAttendShape::new(32, 8, 256, true, 1, small), None);
    }

    #[test]
    fn many_rows_take_the_entry_of_the_same_bits() {
        let of = |heads, kv_heads, head_dim, halves, rows| {
            DecodeAttendShape::new(heads, kv_heads, head_dim, halves, rows, H200).unwrap()
        };
        let entry = |rows| of(20, 5, 128, true, rows).entry();
        assert!((1..64).all(|rows| entry(rows) == "decode_attend_f16_128_c8"));
        assert!((64..300).all(|rows| entry(rows) == "decode_attend_many_f16_128_c8"));
        let many = of(32, 32, 100, true, 20);
        assert_eq!(many.entry(), "decode_attend_many_f16_128_c4");
        assert_eq!(many.grid(), Grid { x: 4, y: 20, z: 1 });
        // Slabs; queries, new key and value, sums and peaks of warps and ranks, the query's scale.
        let (slabs, row) = (8 * (3200 + 16 * 208), 2 * 15 * 16 + 400 + 10 * 400 + 11 * 8 + 4);
        assert_eq!(many.shared_bytes(), slabs + row);
        let four = 4 * (many.shared_bytes() + RESERVED);
        assert!(four <= MULTIPROCESSOR, "four thread blocks: {four}");
        let few_heads = of(20, 5, 128, true, 128);
        assert_eq!(few_heads.grid(), Grid { x: 128, y: 5, z: 1 });
        let two = 2 * (few_heads.shared_bytes() + RESERVED);
        assert!(two <= MULTIPROCESSOR, "two thread blocks: {two}");
        for (head_dim, halves) in [(256, true), (128, false)] {
            let entry = |rows| of(32, 32, head_dim, halves, rows).entry();
            assert_eq!(entry(1), entry(128), "no other");
        }
    }
}
