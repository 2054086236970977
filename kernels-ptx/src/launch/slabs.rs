//! Linears over more than 16 rows on capability 9.0: tiles of slabs of 64 features.

use super::LinearShape;
use crate::contract::LinearArgs;

/// A kernel for tiles of so many features and rows, and how many blocks share a tile's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slabs {
    /// Slabs of a tile.
    slabs: u32,
    /// Rows of a tile.
    pub(super) rows: u32,
    /// Blocks of a tile: a cluster.
    pub(super) sharing: u32,
    /// The kernel.
    pub(super) entry: &'static str,
}

/// Slabs of a tile, its rows, and the kernel.
const KERNELS: [(u32, u32, &str); 7] = [
    (1, 64, "linear_64x64"),
    (2, 64, "linear_128x64"),
    (3, 64, "linear_192x64"),
    (1, 128, "linear_64x128"),
    (2, 128, "linear_128x128"),
    (3, 128, "linear_192x128"),
    (4, 128, "linear_256x128"),
];

/// Blocks that share a tile.
const SHARINGS: [u32; 3] = [1, 2, 4];

impl Slabs {
    /// What takes least time for `shape` on a GPU of so many multiprocessors.
    pub(super) const fn of(shape: LinearShape, multiprocessors: u32) -> Self {
        let mut best = Self { slabs: 1, rows: 64, sharing: 1, entry: KERNELS[0].2 };
        let mut least = u64::MAX;
        let mut at = 0;
        while at < KERNELS.len() * SHARINGS.len() {
            let (slabs, rows, entry) = KERNELS[at / SHARINGS.len()];
            let sharing = SHARINGS[at % SHARINGS.len()];
            let candidate = Self { slabs, rows, sharing, entry };
            let fits = sharing == 1 || sharing <= shape.col_tiles && sharing <= multiprocessors;
            let cost = candidate.cost(shape, multiprocessors);
            if fits && cost < least {
                (best, least) = (candidate, cost);
            }
            at += 1;
        }
        best
    }

    /// Tiles of the output.
    const fn tiles(self, shape: LinearShape) -> u64 {
        shape.row_tiles.div_ceil(self.slabs * 4) as u64 * shape.rows.div_ceil(self.rows) as u64
    }

    /// Thread blocks.
    pub(super) const fn blocks(self, shape: LinearShape) -> u64 {
        self.tiles(shape) * self.sharing as u64
    }

    /// Nanoseconds that it takes, less what it takes whatever the tiles: a model whose constants
    /// were fitted to 56 shapes (the linears of BitNet 3B and 2B-4T, 40 to 2048 rows) on an H200,
    /// where it chose what was measured as the best or came within 6 % of that, but for one.
    ///
    /// Blocks that are resident together multiply, or wait for what the L2 cache brings them; then
    /// they gather what others have of their tiles, and write.
    const fn cost(self, shape: LinearShape, multiprocessors: u32) -> u64 {
        /// A unit of columns of a slab of 64 rows, and of 128.
        const UNIT: [u64; 2] = [125, 150];
        /// What the L2 cache brings in a nanosecond to 132 multiprocessors.
        const BYTES: u64 = 8000;
        /// The end of a tile.
        const END: u64 = 300;
        /// The end of a tile of several blocks, besides.
        const MEETING: u64 = 300;
        /// A KiB of sums that a block writes, and that it reads from another one.
        const WRITTEN: u64 = 20;
        const READ: u64 = 60;

        let Self { slabs, rows, sharing, .. } = self;
        let tiles = self.tiles(shape);
        // Clusters of four leave some multiprocessors of a part of the GPU without work.
        let usable =
            if sharing < 4 { multiprocessors } else { multiprocessors - multiprocessors / 8 };
        let at_once = if usable < sharing { 1 } else { (usable / sharing) as u64 };
        let at_once = if tiles < at_once { tiles } else { at_once };
        let units = shape.col_tiles.div_ceil(sharing) as u64;
        let multiplied = units * slabs as u64 * UNIT[(rows / 64 - 1) as usize];
        let unit_bytes = (rows * 128 + slabs * 4 * 512) as u64;
        let brought =
            at_once * sharing as u64 * units * unit_bytes * 132 / (BYTES * multiprocessors as u64);
        let (more, less) =
            if multiplied > brought { (multiplied, brought) } else { (brought, multiplied) };
        let written = (rows * slabs / 4 / sharing) as u64;
        // A single slab has two teams, and the sums of both are read.
        let read = (sharing - 1) as u64 * written * if slabs == 1 { 2 } else { 1 };
        let meeting = if sharing == 1 { 0 } else { MEETING };
        tiles.div_ceil(at_once)
            * (more + less / 4 + END + written * WRITTEN + meeting + read * READ)
    }
}

/// Dynamic shared memory of a block.
pub(super) const SHARED_BYTES: u32 = LinearArgs::SHARED_SLABS_SM_90;

/// The kernels.
pub(super) const fn entries() -> [&'static str; KERNELS.len()] {
    let mut entries = [""; KERNELS.len()];
    let mut at = 0;
    while at < KERNELS.len() {
        entries[at] = KERNELS[at].2;
        at += 1;
    }
    entries
}
