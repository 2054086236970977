//! From shapes to grids and buffer lengths: plain arithmetic, tested without a device.

mod decode;
mod floats;
mod slabs;

pub use decode::{
    DecodeAttendShape, DecodeFinish, DecodeLayersShape, DecodeLinearShape, DeviceShape, LayersModel,
};
pub use floats::{AttendRowsShape, Device, FloatLinearShape, Launch, WeightType, rope_store_grid};

use crate::contract::{LinearArgs, QuantizeArgs};
use crate::ptx::Target;
use slabs::Slabs;

/// Thread blocks of a launch along x, y and z. The threads of a block are in the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Fastest.
    pub x: u32,
    /// At most [`Grid::Y_MAX`].
    pub y: u32,
    /// At most [`Grid::Y_MAX`].
    pub z: u32,
}

impl Grid {
    /// What every CUDA device allows along x.
    pub const X_MAX: u32 = 0x7fff_ffff;
    /// What every CUDA device allows along y and along z.
    pub const Y_MAX: u32 = 0xffff;
}

/// The image of INT8 values that `quantize` writes and `linear` reads: `(col_tiles, row_blocks, 8,
/// 128)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values {
    /// Rows of the step.
    pub rows: u32,
    /// Values of a row.
    pub cols: u32,
}

impl Values {
    /// Its bytes: whole tiles.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        row_blocks(self.rows) as u64 * self.cols.div_ceil(TILE_COLS) as u64 * 1024
    }

    /// The byte in which value `(row, col)` stands.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub const fn at(self, row: u32, col: u32) -> u64 {
        assert!(row < self.rows && col < self.cols, "a value of the image");
        let block = (col / TILE_COLS * row_blocks(self.rows) + row / 8) as u64 * 1024;
        let (line, col) = (row % 8, col % TILE_COLS);
        block + (line * 128 + ((col / 16) ^ line) * 16 + col % 16) as u64
    }
}

/// Blocks of eight rows that hold `rows`.
#[must_use]
pub const fn row_blocks(rows: u32) -> u32 {
    rows.div_ceil(8)
}

/// The kernels of a linear that any GPU has: their tiles, which are the rows of the step that a
/// block multiplies together, and their names.
const TILES: [(u32, &str); 5] =
    [(8, "linear_8"), (16, "linear_16"), (32, "linear_32"), (64, "linear_64"), (128, "linear_128")];

/// The kernels that [`LinearShape::launch`] chooses from where the linears are compiled for
/// `target`.
#[must_use]
pub const fn linear_entries(target: Target) -> &'static [&'static str] {
    const PLAIN: [&str; 5] = [TILES[0].1, TILES[1].1, TILES[2].1, TILES[3].1, TILES[4].1];
    const SLABS: [&str; 7] = slabs::entries();
    const EXACT: [&str; 9] = [
        TILES[0].1, TILES[1].1, SLABS[0], SLABS[1], SLABS[2], SLABS[3], SLABS[4], SLABS[5],
        SLABS[6],
    ];
    if target.exact { &EXACT } else { &PLAIN }
}

/// How a linear is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearLaunch {
    /// The kernel.
    pub entry: &'static str,
    /// [`LinearArgs::tile`].
    pub tile: u32,
    /// Thread blocks along x.
    pub blocks: u32,
    /// Blocks of a cluster.
    pub cluster: u32,
    /// Dynamic shared memory in bytes. More than 48 KiB has to be asked for
    /// (`CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`).
    pub shared_bytes: u32,
}

/// Words of workspace for linears over at most `rows` rows, on a GPU of so many multiprocessors.
/// The first [`LinearArgs::FLAGS`] have to be 0 before the first launch.
#[must_use]
pub const fn linear_workspace_words(rows: u32, multiprocessors: u32) -> u64 {
    let largest = match rows {
        ..=8 => 8,
        9..=16 => 16,
        17..=32 => 32,
        33..=64 => 64,
        _ => 128,
    };
    let slot = tile_row_tiles(largest) as u64 * 16 * largest as u64;
    LinearArgs::FLAGS as u64 + blocks_most(multiprocessors) as u64 * slot
}

/// Row tiles of codes that a thread block multiplies together with `tile` rows.
const fn tile_row_tiles(tile: u32) -> u32 {
    if tile < 128 { 8 } else { 16 }
}

/// A block a multiprocessor, as far as there are flags.
const fn blocks_most(multiprocessors: u32) -> u32 {
    if multiprocessors < LinearShape::BLOCKS_MAX {
        multiprocessors
    } else {
        LinearShape::BLOCKS_MAX
    }
}

/// Columns of a tile of codes and of values.
const TILE_COLS: u32 = 128;

/// Shape of one call of `linear`, known to keep what the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearShape {
    row_tiles: u32,
    col_tiles: u32,
    rows: u32,
}

impl LinearShape {
    /// Thread blocks of a launch at most: each has two flags.
    pub const BLOCKS_MAX: u32 = LinearArgs::FLAGS / 2;

    /// `row_tiles` tiles of 16 weight rows (of gate and up together) with `cols` columns by `rows`
    /// rows of the step.
    ///
    /// # Panics
    ///
    /// When one of them is 0, `cols` is above what [`QuantizeArgs`] allows, or the units of work do
    /// not fit 32 bits.
    #[must_use]
    pub const fn new(row_tiles: u32, cols: u32, rows: u32) -> Self {
        assert!(row_tiles > 0 && cols > 0 && rows > 0, "there is something to multiply");
        assert!(cols <= QuantizeArgs::COLS_MAX, "a row fits the quantiser");
        let shape = Self { row_tiles, col_tiles: cols.div_ceil(TILE_COLS), rows };
        // Counted for the smallest tile of the kernel, whatever its target.
        let tiles = row_tiles.div_ceil(8) as u64 * rows.div_ceil(8) as u64;
        assert!(tiles * shape.col_tiles as u64 <= u32::MAX as u64, "units fit 32 bits");
        shape
    }

    /// The launch on a GPU of so many multiprocessors, where the linears are compiled for `target`.
    /// No choice changes a bit of the result.
    ///
    /// # Panics
    ///
    /// When there is no multiprocessor.
    #[must_use]
    pub const fn launch(self, multiprocessors: u32, target: Target) -> LinearLaunch {
        assert!(multiprocessors > 0, "a GPU has multiprocessors");
        if target.exact && self.rows > LinearArgs::FEW {
            let slabs = Slabs::of(self, multiprocessors);
            return LinearLaunch {
                entry: slabs.entry,
                tile: slabs.rows,
                // At most four for each of the units that fit 32 bits, and far from it.
                blocks: slabs.blocks(self) as u32,
                cluster: slabs.sharing,
                shared_bytes: slabs::SHARED_BYTES,
            };
        }
        let tile = self.tile(multiprocessors);
        let mut at = 0;
        while TILES[at].0 != tile {
            at += 1;
        }
        LinearLaunch {
            entry: TILES[at].1,
            tile,
            blocks: self.blocks(tile, multiprocessors),
            cluster: 1,
            shared_bytes: if target.exact {
                LinearArgs::SHARED_FEW_SM_90
            } else {
                LinearArgs::SHARED_SM_80
            },
        }
    }

    /// Rows of the step that a thread block multiplies together.
    ///
    /// Large tiles read less, but there have to be enough of them to go round. The shares were
    /// found by trying all tiles with the shapes of BitNet 3B and 2B-4T on an H200, 2 to 2048
    /// rows.
    const fn tile(self, multiprocessors: u32) -> u32 {
        match self.rows {
            ..=8 => 8,
            9..=16 => 16,
            17..=32 => 32,
            _ if self.rows > 128 && self.tiles(128) * 2 >= multiprocessors as u64 => 128,
            _ if self.tiles(64) * 2 >= multiprocessors as u64 => 64,
            _ => 32,
        }
    }

    /// Tiles of the output, `tile` rows each.
    const fn tiles(self, tile: u32) -> u64 {
        self.row_tiles.div_ceil(tile_row_tiles(tile)) as u64 * self.rows.div_ceil(tile) as u64
    }

    /// Thread blocks for such tiles: any smaller number works too.
    const fn blocks(self, tile: u32, multiprocessors: u32) -> u32 {
        let units = self.tiles(tile) * self.col_tiles as u64;
        let most = blocks_most(multiprocessors);
        if units < most as u64 { units as u32 } else { most }
    }

    /// [`LinearArgs::row_tiles`].
    #[must_use]
    pub const fn row_tiles(self) -> u32 {
        self.row_tiles
    }

    /// [`LinearArgs::col_tiles`].
    #[must_use]
    pub const fn col_tiles(self) -> u32 {
        self.col_tiles
    }

    /// [`LinearArgs::rows`].
    #[must_use]
    pub const fn rows(self) -> u32 {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// qkv, attention out, gate and up, down of BitNet 3B.
    const SHAPES: [(u32, u32); 4] = [(600, 3200), (200, 3200), (1080, 3200), (200, 8640)];

    fn launches(rows: u32, target: Target) -> [LinearLaunch; 4] {
        SHAPES.map(|(tiles, cols)| LinearShape::new(tiles, cols, rows).launch(132, target))
    }

    #[test]
    fn tiles_grow_with_the_rows_while_they_go_round() {
        for (rows, tiles) in [
            (1, [8, 8, 8, 8]),
            (9, [16, 16, 16, 16]),
            (32, [32, 32, 32, 32]),
            (64, [64, 32, 64, 32]),
            (128, [64, 32, 64, 32]),
            (256, [128, 64, 128, 64]),
            (2048, [128, 128, 128, 128]),
        ] {
            assert_eq!(launches(rows, Target::SM_80).map(|how| how.tile), tiles, "{rows} rows");
        }
    }

    #[test]
    fn on_9_0_slabs_take_over_from_17_rows_on() {
        for (rows, expected) in [
            (8, [("linear_8", 1); 4]),
            (16, [("linear_16", 1); 4]),
            (
                17,
                [
                    ("linear_128x64", 1),
                    ("linear_64x64", 2),
                    ("linear_192x64", 1),
                    ("linear_128x64", 4),
                ],
            ),
            (
                64,
                [
                    ("linear_128x64", 1),
                    ("linear_64x64", 2),
                    ("linear_192x64", 1),
                    ("linear_128x64", 4),
                ],
            ),
            (
                128,
                [
                    ("linear_128x128", 1),
                    ("linear_64x64", 1),
                    ("linear_192x128", 1),
                    ("linear_128x128", 4),
                ],
            ),
            (
                2048,
                [
                    ("linear_256x128", 1),
                    ("linear_256x128", 1),
                    ("linear_192x128", 1),
                    ("linear_256x128", 1),
                ],
            ),
        ] {
            let got = launches(rows, Target::SM_90A).map(|how| (how.entry, how.cluster));
            assert_eq!(got, expected, "{rows} rows");
        }
    }

    #[test]
    fn slabs_cover_the_output_in_whole_clusters() {
        for rows in [17, 33, 64, 65, 300, 2048] {
            for (row_tiles, cols) in SHAPES.into_iter().chain([(1, 4), (3, 300), (17, 131_072)]) {
                for multiprocessors in [1, 3, 114, 132] {
                    let shape = LinearShape::new(row_tiles, cols, rows);
                    let how = shape.launch(multiprocessors, Target::SM_90A);
                    let features: u32 =
                        how.entry["linear_".len()..].split('x').next().unwrap().parse().unwrap();
                    let tiles = row_tiles.div_ceil(features / 16) * rows.div_ceil(how.tile);
                    assert_eq!(how.blocks, tiles * how.cluster, "{shape:?}");
                    assert!(how.cluster <= multiprocessors && how.cluster <= shape.col_tiles());
                    assert!(linear_entries(Target::SM_90A).contains(&how.entry));
                }
            }
        }
    }

    #[test]
    fn a_block_of_some_rows_leaves_shared_memory_for_the_quantiser() {
        // What `ptxas` says of `quantize`, and what a block costs besides.
        let quantize = 4352 + 1024;
        for (rows, beside) in [(8, 2), (16, 2), (32, 1), (64, 1), (128, 1)] {
            for how in launches(rows, Target::SM_90A) {
                let linear = how.shared_bytes + 1024;
                let all = if beside == 2 { 2 * linear } else { linear + quantize };
                assert!(all <= 228 * 1024, "{how:?}: {all}");
            }
        }
    }

    #[test]
    fn work_is_dealt_to_every_multiprocessor() {
        let blocks = |tiles, cols, rows, multiprocessors| {
            LinearShape::new(tiles, cols, rows).launch(multiprocessors, Target::SM_80).blocks
        };
        for rows in [1, 8, 64, 128, 2048] {
            assert_eq!(blocks(600, 3200, rows, 132), 132, "{rows}");
        }
        // A tile of 16 rows by 128 columns cannot be shared.
        assert_eq!((blocks(1, 4, 1, 132), blocks(1, 4, 1, 1)), (1, 1));
        assert_eq!(blocks(1 << 12, 3200, 2048, u32::MAX), LinearShape::BLOCKS_MAX);
    }

    #[test]
    fn workspace_holds_flags_and_a_tile_for_each_block() {
        let words = |rows| linear_workspace_words(rows, 132);
        assert_eq!(words(8), 2048 + 132 * 128 * 8);
        assert_eq!(words(64), 2048 + 132 * 128 * 64);
        assert_eq!(words(2048), 2048 + 132 * 256 * 128);
        // Enough for every tile that fewer rows may have.
        for rows in 1..300 {
            let tile = LinearShape::new(600, 3200, rows).launch(132, Target::SM_80).tile;
            let slot = u64::from(tile_row_tiles(tile) * 16 * tile);
            assert!(words(rows) >= 2048 + 132 * slot && words(rows) <= words(rows + 1), "{rows}");
        }
    }

    #[test]
    fn values_are_padded_to_blocks_of_eight_rows_and_tiles_of_columns() {
        let bytes = |rows, cols| Values { rows, cols }.bytes();
        assert_eq!(bytes(1, 4), 1024);
        assert_eq!(bytes(9, 3200), 2 * 25 * 1024);
        assert_eq!(bytes(2048, 8640), 256 * 68 * 1024);
    }

    #[test]
    fn every_value_has_a_byte_of_its_own() {
        let image = Values { rows: 19, cols: 300 };
        let places = (0..19).flat_map(|row| (0..300).map(move |col| image.at(row, col)));
        let places: BTreeSet<_> = places.collect();
        assert_eq!(places.len(), 19 * 300);
        assert!(places.iter().all(|&place| place < image.bytes()));
        // Line 1 of a block has its sixteens in pairs that changed places.
        assert_eq!([image.at(0, 17), image.at(1, 0), image.at(9, 130)], [17, 144, 4 * 1024 + 146]);
    }

    #[test]
    #[should_panic(expected = "units fit 32 bits")]
    fn work_beyond_32_bits_is_refused() {
        let _ = LinearShape::new(1 << 20, 1 << 17, 1 << 12);
    }

    #[test]
    #[should_panic(expected = "a row fits the quantiser")]
    fn wider_rows_than_the_quantiser_takes_are_refused() {
        let _ = LinearShape::new(1, (1 << 17) + 4, 1);
    }
}
