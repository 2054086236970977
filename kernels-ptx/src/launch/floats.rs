//! Launches of the kernels that compute with floats.

use super::Grid;
use crate::contract::{
    AttendRowsArgs, AttendRowsExactArgs, AttendRowsHopperArgs, FloatLinearArgs,
    FloatLinearHopperArgs, RopeStoreArgs,
};
use crate::ptx::Target;

/// How a launch is made; the threads of a block are in the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Which kernel.
    pub entry: &'static str,
    /// Thread blocks.
    pub grid: Grid,
    /// Dynamic shared memory of a block, in bytes; above 48 KiB a kernel has to opt in.
    pub shared_bytes: u32,
}

/// What a launch has to know of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Most shared memory of a block that opts in, in bytes; a multiprocessor has 1 KiB more for
    /// every block.
    pub shared_bytes_max: u32,
    /// The target of the PTX that was loaded.
    pub target: Target,
}

/// Numbers of a float linear's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    /// Half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// Single precision.
    F32,
    /// Signed bytes, with a unit for every feature.
    I8,
}

impl WeightType {
    /// Bytes of a weight.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::I8 => 1,
        }
    }

    /// 16-bit terms of an element of a row: form `F16` of `normalize` has two, `BF16` three.
    #[must_use]
    pub const fn terms(self) -> u32 {
        match self {
            Self::F16 | Self::I8 => 2,
            Self::Bf16 | Self::F32 => 3,
        }
    }

    /// Columns of a chunk of a tile.
    const fn chunk_cols(self) -> u32 {
        match self {
            Self::F16 | Self::Bf16 | Self::F32 => 32,
            Self::I8 => 64,
        }
    }

    /// The entry for many rows on Hopper's matrix instruction.
    #[must_use]
    pub const fn hopper(self) -> Option<&'static str> {
        match self {
            Self::F16 => Some("float_linear_hopper_f16"),
            Self::Bf16 => Some("float_linear_hopper_bf16"),
            Self::I8 => Some("float_linear_hopper_i8"),
            Self::F32 => None,
        }
    }

    /// Entries of `float_linear` for weights of this type: for few rows, for some, for many.
    #[must_use]
    pub const fn entries(self) -> [&'static str; 3] {
        match self {
            Self::F16 => ["float_linear_f16", "float_linear_narrow_f16", "float_linear_wide_f16"],
            Self::Bf16 => {
                ["float_linear_bf16", "float_linear_narrow_bf16", "float_linear_wide_bf16"]
            }
            Self::F32 => ["float_linear_f32", "float_linear_narrow_f32", "float_linear_narrow_f32"],
            Self::I8 => ["float_linear_i8", "float_linear_narrow_i8", "float_linear_wide_i8"],
        }
    }
}

/// Shape of a float linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatLinearShape {
    weights: WeightType,
    features: u32,
    cols: u32,
}

impl FloatLinearShape {
    /// Most rows of one launch.
    pub const ROWS_MAX: u32 = 1 << 20;
    /// More rows than this are many.
    const WIDE_FROM: u32 = 2 * FloatLinearArgs::NARROW_ROWS;

    /// `(features, cols)` weights.
    ///
    /// # Panics
    ///
    /// When there are none, `cols` is no multiple of 4, or a side is above `2^24`.
    #[must_use]
    pub const fn new(weights: WeightType, features: u32, cols: u32) -> Self {
        assert!(features > 0 && features <= 1 << 24, "1 to 2^24 features");
        assert!(cols > 0 && cols <= 1 << 24, "1 to 2^24 columns");
        assert!(cols.is_multiple_of(4), "columns come in fours");
        Self { weights, features, cols }
    }

    /// Type of the weights.
    #[must_use]
    pub const fn weights(self) -> WeightType {
        self.weights
    }

    /// Output features.
    #[must_use]
    pub const fn features(self) -> u32 {
        self.features
    }

    /// Input features.
    #[must_use]
    pub const fn cols(self) -> u32 {
        self.cols
    }

    /// Tiles along the features: the grid of `tile_weights`.
    #[must_use]
    pub const fn tiles(self) -> u32 {
        self.features.div_ceil(FloatLinearArgs::TILE_FEATURES)
    }

    /// Bytes of the tiles.
    #[must_use]
    pub const fn weights_bytes(self) -> u64 {
        let cols = self.cols.next_multiple_of(self.weights.chunk_cols()) as u64;
        let features = self.tiles() as u64 * FloatLinearArgs::TILE_FEATURES as u64;
        features * cols * self.weights.bytes() as u64
    }

    /// Numbers from one term of a row to the next, at least.
    #[must_use]
    pub const fn terms_stride(self) -> u32 {
        self.cols.next_multiple_of(64)
    }

    /// 16-bit numbers in the terms of `rows` rows; tiles have them in eights.
    #[must_use]
    pub const fn terms(self, rows: u32) -> u64 {
        rows.next_multiple_of(8) as u64 * self.weights.terms() as u64 * self.terms_stride() as u64
    }

    /// The launch for `rows` rows. The result does not depend on which it is.
    ///
    /// # Panics
    ///
    /// When `rows` is 0 or above [`Self::ROWS_MAX`].
    #[must_use]
    pub fn launch(self, rows: u32, device: Device) -> Launch {
        assert!(rows > 0 && rows <= Self::ROWS_MAX, "1 to 2^20 rows");
        let [few, narrow, wide] = self.weights.entries();
        // Few features leave most of a device idle where a block takes 128 of them.
        let blocks_many = self.features.div_ceil(FloatLinearArgs::MANY_FEATURES);
        let few_rows = if blocks_many < device.multiprocessors { 32 } else { 8 };
        if rows <= few_rows
            && let Some(launch) = self.few(few, rows, device)
        {
            return launch;
        }
        let newer = device.target.capability.major >= 9;
        let wide_pays = rows > Self::WIDE_FROM && wide != narrow;
        let (entry, block_rows, stage_chunks, shared) = match (wide_pays, newer) {
            (true, true) => {
                (wide, FloatLinearArgs::WIDE_ROWS, 1, FloatLinearArgs::SHARED_WIDE_SM_90)
            }
            (true, false) => {
                (wide, FloatLinearArgs::WIDE_ROWS, 1, FloatLinearArgs::SHARED_WIDE_SM_80)
            }
            (false, true) => {
                (narrow, FloatLinearArgs::NARROW_ROWS, 2, FloatLinearArgs::SHARED_NARROW_SM_90)
            }
            (false, false) => {
                (narrow, FloatLinearArgs::NARROW_ROWS, 2, FloatLinearArgs::SHARED_NARROW_SM_80)
            }
        };
        let stage_chunks =
            if wide_pays && matches!(self.weights, WeightType::F16) { 2 } else { stage_chunks };
        let chunk = self.weights.chunk_cols()
            * (FloatLinearArgs::MANY_FEATURES * self.weights.bytes()
                + block_rows * self.weights.terms() * 2);
        let stage = stage_chunks * chunk;
        let grid = Grid { x: blocks_many * rows.div_ceil(block_rows), y: 1, z: 1 };
        Launch { entry, grid, shared_bytes: shared / stage * stage }
    }

    /// The launch for `rows` rows on Hopper's matrix instruction, whose terms are tiles; `None`
    /// where [`Self::launch`] does better, or alone does it. The bits are the same. It takes
    /// [`FloatLinearHopperArgs`].
    ///
    /// # Panics
    ///
    /// When `rows` is 0 or above [`Self::ROWS_MAX`].
    #[must_use]
    pub fn hopper(self, rows: u32, multiprocessors: u32) -> Option<Launch> {
        assert!(rows > 0 && rows <= Self::ROWS_MAX, "1 to 2^20 rows");
        let entry = self.weights.hopper().filter(|_| rows > Self::WIDE_FROM)?;
        let tiles = self.features.div_ceil(FloatLinearHopperArgs::FEATURES)
            * rows.div_ceil(FloatLinearHopperArgs::ROWS);
        let grid = Grid { x: tiles.min(multiprocessors), y: 1, z: 1 };
        Some(Launch { entry, grid, shared_bytes: FloatLinearHopperArgs::SHARED_BYTES })
    }

    /// Columns of a tile of the terms that [`Self::hopper`] reads.
    #[must_use]
    pub const fn tile_cols(self) -> u32 {
        self.weights.chunk_cols()
    }

    /// A launch whose blocks stay; `None` when the sums of a tile do not fit a block.
    fn few(self, entry: &'static str, rows: u32, device: Device) -> Option<Launch> {
        let stretches = u64::from(self.cols.div_ceil(FloatLinearArgs::STRETCH));
        let pairs = matches!(self.weights, WeightType::I8)
            && self.features >= FloatLinearArgs::PAIR_FEATURES;
        let (together, lane_bytes) = if pairs {
            (2, FloatLinearArgs::PAIR_LANE_BYTES)
        } else {
            (1, FloatLinearArgs::LANE_BYTES)
        };
        let weights = u64::from(lane_bytes * FloatLinearArgs::THREADS);
        let least = weights + u64::from(together) * 2 * stretches * 512;
        let block_rows = rows.min(FloatLinearArgs::BLOCK_ROWS);
        let cols = self.cols.next_multiple_of(self.weights.chunk_cols());
        let kept = least + u64::from(cols) * u64::from(2 * self.weights.terms() * block_rows);
        // Two blocks with the terms, else one with them, else two without, else one without.
        let whole = u64::from(device.shared_bytes_max);
        let half = (whole + 1024) / 2 - 1024;
        let (bytes, blocks) = [(kept, half, 2), (kept, whole, 1), (least, half, 2)]
            .into_iter()
            .find(|&(bytes, room, _)| bytes <= room)
            .map_or((least, 1), |(bytes, _, blocks)| (bytes, blocks));
        if bytes > whole {
            return None;
        }
        let x = self.tiles().div_ceil(together).min(blocks * device.multiprocessors);
        let grid = Grid { x, y: rows.div_ceil(FloatLinearArgs::BLOCK_ROWS), z: 1 };
        Some(Launch { entry, grid, shared_bytes: u32::try_from(bytes).ok()? })
    }
}

/// The grid of `rope_store`.
///
/// # Panics
///
/// When there are no rows, or more heads than a grid has places for.
#[must_use]
pub const fn rope_store_grid(rows: u32, heads: u32, kv_heads: u32) -> Grid {
    assert!(rows > 0, "at least one row");
    assert!(heads <= 1 << 12 && kv_heads <= 1 << 12, "at most 4096 heads");
    Grid { x: rows.div_ceil(RopeStoreArgs::BLOCK_ROWS), y: heads + 2 * kv_heads, z: 1 }
}

/// Attention of many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttendRowsShape {
    /// Query heads.
    pub heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Whether the cache is of halves.
    pub halves: bool,
}

impl AttendRowsShape {
    /// The entry on tensor cores, for a cache of halves and the usual head widths; it takes
    /// [`AttendRowsArgs`].
    #[must_use]
    pub const fn near(self) -> Option<&'static str> {
        match (self.halves, self.head_dim) {
            (true, 64) => Some("attend_rows_f16_64"),
            (true, 96) => Some("attend_rows_f16_96"),
            (true, 100) => Some("attend_rows_f16_100"),
            (true, 128) => Some("attend_rows_f16_128"),
            (true, 256) => Some("attend_rows_f16_256"),
            _ => None,
        }
    }

    /// The launch of [`Self::near`] for `tiles` tiles.
    #[must_use]
    pub const fn launch_near(self, tiles: u32) -> Option<Launch> {
        let Some(entry) = self.near() else { return None };
        let dim = self.head_dim;
        let (positions, stages) = if dim > 128 { (32, 1) } else { (64, 2) };
        let score_dim = dim.next_multiple_of(16);
        let tiles_of_8 = dim.div_ceil(8);
        let query_row = 2 * score_dim + 16;
        let value_row = (tiles_of_8 / 2 * 2 + 1) * 16;
        let stage =
            positions / AttendRowsArgs::KEY_BLOCK * score_dim * 2 * AttendRowsArgs::KEY_BLOCK
                + positions * value_row;
        let queries = if dim > 128 { 2 * AttendRowsArgs::TILE_ROWS * query_row } else { 0 };
        let shared_bytes = queries + stages * stage;
        Some(Launch { entry, grid: self.grid(tiles), shared_bytes })
    }

    /// The entry with the bits of [`Self::near`] on Hopper's matrix instruction; it takes
    /// [`AttendRowsHopperArgs`].
    #[must_use]
    pub const fn hopper(self) -> Option<&'static str> {
        match (self.halves, self.head_dim) {
            (true, 64) => Some("attend_rows_hopper_f16_64"),
            (true, 96) => Some("attend_rows_hopper_f16_96"),
            (true, 100) => Some("attend_rows_hopper_f16_100"),
            (true, 128) => Some("attend_rows_hopper_f16_128"),
            _ => None,
        }
    }

    /// The launch of [`Self::hopper`] for `tiles` tiles of up to
    /// [`AttendRowsHopperArgs::TILE_ROWS`] rows.
    ///
    /// # Panics
    ///
    /// When there is no tile, or more than `2^19`, or more than 4096 heads.
    #[must_use]
    pub const fn launch_hopper(self, tiles: u32) -> Option<Launch> {
        let Some(entry) = self.hopper() else { return None };
        assert!(tiles > 0 && tiles <= 1 << 19, "1 to 2^19 tiles");
        assert!(self.heads <= 1 << 12, "at most 4096 heads");
        // Keys have rows of positions, in sixteens; values have parts of 64 elements of a position.
        let elements = self.head_dim.next_multiple_of(16) + self.head_dim.next_multiple_of(64);
        let stage = elements * 2 * AttendRowsHopperArgs::POSITIONS;
        let shared_bytes = AttendRowsHopperArgs::STAGES * stage + AttendRowsHopperArgs::ALIGNMENT;
        // A grid of one dimension: the longest tiles, which come first, of all heads begin first.
        let grid = Grid { x: tiles * self.heads, y: 1, z: 1 };
        Some(Launch { entry, grid, shared_bytes })
    }

    /// The launch that is equal to the CPU to the bit; it takes [`AttendRowsExactArgs`].
    ///
    /// # Panics
    ///
    /// When `head_dim` is above what the kernel takes.
    #[must_use]
    pub const fn launch_exact(self, tiles: u32) -> Launch {
        assert!(self.head_dim <= AttendRowsExactArgs::HEAD_DIM_MAX, "a narrower head");
        let entry = if self.halves { "attend_rows_exact_f16" } else { "attend_rows_exact_f32" };
        let queries = AttendRowsExactArgs::TILE_ROWS * self.head_dim * 4;
        let weights = AttendRowsExactArgs::KEY_BLOCK * AttendRowsExactArgs::TILE_ROWS * 4;
        Launch { entry, grid: self.grid(tiles), shared_bytes: queries + weights }
    }

    const fn grid(self, tiles: u32) -> Grid {
        assert!(tiles > 0, "at least one tile");
        assert!(self.heads <= 1 << 12, "at most 4096 heads");
        Grid { x: tiles, y: self.heads, z: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptx::Target;

    const H200: Device =
        Device { multiprocessors: 132, shared_bytes_max: 232_448, target: Target::SM_90 };
    const RTX_3060: Device =
        Device { multiprocessors: 28, shared_bytes_max: 101_376, target: Target::SM_80 };

    #[test]
    fn heads_of_known_models_take_the_entries_meant_for_them() {
        let head = FloatLinearShape::new(WeightType::F16, 32000, 3200);
        let of = |rows| head.launch(rows, H200);
        assert_eq!(of(1).entry, "float_linear_f16");
        assert_eq!(of(8).entry, "float_linear_f16");
        assert_eq!(of(9).entry, "float_linear_narrow_f16");
        assert_eq!(of(65).entry, "float_linear_wide_f16");
        assert_eq!(of(1).grid, Grid { x: 264, y: 1, z: 1 });
        assert_eq!(of(65).grid, Grid { x: 250, y: 1, z: 1 });
        assert_eq!(of(129).grid, Grid { x: 500, y: 1, z: 1 });
        // 80 KiB of weights, two times thirteen sums, two terms of one row.
        assert_eq!(of(1).shared_bytes, 81920 + 2 * 13 * 512 + 2 * 2 * 3200);
        // Of INT8 two tiles at a time, with less on the way.
        let head = FloatLinearShape::new(WeightType::I8, 32000, 3200);
        assert_eq!(head.launch(1, H200).shared_bytes, 65536 + 2 * 13 * 1024 + 2 * 2 * 3200);
        assert_eq!(head.launch(1, H200).grid, Grid { x: 264, y: 1, z: 1 });
    }

    #[test]
    fn many_rows_take_the_entry_made_for_hopper() {
        let head = FloatLinearShape::new(WeightType::F16, 32000, 3200);
        let of = |rows| head.hopper(rows, 132).map(|launch| (launch.entry, launch.grid.x));
        assert_eq!(of(64), None);
        assert_eq!(of(65), Some(("float_linear_hopper_f16", 132)));
        let narrow = FloatLinearShape::new(WeightType::Bf16, 300, 3200);
        assert_eq!(narrow.hopper(128, 132).unwrap().grid.x, 3, "a block for every tile");
        assert_eq!(narrow.hopper(129, 132).unwrap().grid.x, 6);
        assert_eq!(FloatLinearShape::new(WeightType::F32, 300, 3200).hopper(128, 132), None);
        let int8 = FloatLinearShape::new(WeightType::I8, 32000, 3200);
        assert_eq!((head.tile_cols(), int8.tile_cols()), (32, 64));
        assert!(int8.hopper(128, 132).unwrap().shared_bytes <= H200.shared_bytes_max);
    }

    #[test]
    fn narrow_linears_keep_the_kernel_for_few_rows() {
        let linear = FloatLinearShape::new(WeightType::F16, 3200, 3200);
        assert_eq!(linear.launch(32, H200).entry, "float_linear_f16");
        assert_eq!(linear.launch(32, H200).grid, Grid { x: 132, y: 4, z: 1 });
        assert_eq!(linear.launch(33, H200).entry, "float_linear_narrow_f16");
    }

    #[test]
    fn every_launch_fits_its_device() {
        for weights in [WeightType::F16, WeightType::Bf16, WeightType::F32, WeightType::I8] {
            for cols in [4, 2560, 8640, 1 << 17] {
                for rows in [1, 8, 9, 64, 65, 2048] {
                    for device in [H200, RTX_3060] {
                        let shape = FloatLinearShape::new(weights, 5000, cols);
                        let launch = shape.launch(rows, device);
                        let fits = launch.shared_bytes <= device.shared_bytes_max;
                        assert!(fits && launch.grid.x > 0, "{shape:?} {rows} {launch:?}");
                        assert!(launch.grid.x <= Grid::X_MAX && launch.grid.y <= Grid::Y_MAX);
                    }
                }
            }
        }
    }

    #[test]
    fn sums_that_fit_no_block_go_to_the_entry_without_them() {
        let shape = FloatLinearShape::new(WeightType::F16, 32000, 1 << 17);
        assert_eq!(shape.launch(1, H200).entry, "float_linear_narrow_f16");
    }

    #[test]
    fn tiles_are_padded_on_both_sides() {
        assert_eq!(FloatLinearShape::new(WeightType::F16, 17, 36).weights_bytes(), 32 * 64 * 2);
        assert_eq!(FloatLinearShape::new(WeightType::I8, 17, 36).weights_bytes(), 32 * 64);
        assert_eq!(FloatLinearShape::new(WeightType::F32, 16, 32).weights_bytes(), 16 * 32 * 4);
        assert_eq!(FloatLinearShape::new(WeightType::Bf16, 16, 36).terms(2), 8 * 3 * 64);
    }

    #[test]
    #[should_panic(expected = "columns come in fours")]
    fn ragged_cols_are_refused() {
        let _ = FloatLinearShape::new(WeightType::F16, 16, 30);
    }

    #[test]
    fn attention_fits_every_device() {
        for head_dim in [64, 96, 100, 128, 256] {
            let shape = AttendRowsShape { heads: 32, head_dim, halves: true };
            let near = shape.launch_near(7).unwrap();
            assert!(near.shared_bytes <= AttendRowsArgs::SHARED_MAX, "{near:?}");
            assert_eq!(near.grid, Grid { x: 7, y: 32, z: 1 });
            assert!(shape.launch_exact(7).shared_bytes <= AttendRowsArgs::SHARED_MAX);
        }
        let singles = AttendRowsShape { heads: 32, head_dim: 128, halves: false };
        assert_eq!((singles.near(), singles.hopper()), (None, None));
        assert_eq!(singles.launch_exact(1).entry, "attend_rows_exact_f32");
        let other = AttendRowsShape { heads: 32, head_dim: 80, halves: true };
        assert_eq!(
            (other.launch_near(1), other.launch_exact(1).entry),
            (None, "attend_rows_exact_f16")
        );
    }

    #[test]
    fn attention_on_hopper_fits_it_and_has_the_widths_of_the_other() {
        for head_dim in 1..=256 {
            let shape = AttendRowsShape { heads: 20, head_dim, halves: true };
            assert!(shape.hopper().is_none() || shape.near().is_some(), "{head_dim}");
            let Some(launch) = shape.launch_hopper(16) else { continue };
            assert!(launch.shared_bytes + 1024 <= H200.shared_bytes_max, "{launch:?}");
            assert_eq!(launch.grid, Grid { x: 320, y: 1, z: 1 });
        }
        let shape = AttendRowsShape { heads: 32, head_dim: 100, halves: true };
        assert_eq!(shape.launch_hopper(1).unwrap().shared_bytes, 4 * (112 + 128) * 128 + 1024);
    }

    #[test]
    fn positions_are_stored_by_blocks_of_rows_and_heads() {
        assert_eq!(rope_store_grid(33, 20, 5), Grid { x: 2, y: 30, z: 1 });
    }
}
