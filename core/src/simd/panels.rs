//! Products with 16 rows of values or more on a unit that multiplies tiles of bytes: codes are
//! unpacked once for all of the batch, and while the unit multiplies those before them.
//!
//! A left tile is 16 rows of values, read where the caller has them. A right tile is 16 rows of
//! codes by 64 columns, four columns of every row side by side. What comes out is `(batch, rows)`,
//! transposed on its way to a caller who wants `(rows, batch)`.

use core::{arch::x86_64::*, array, mem, ops::Range};

use crate::packed::Rows128;

use super::product::{CodeBlock, Order, Product};

/// Rows of a tile, and its columns of four bytes.
pub(super) const SIDE: usize = 16;

/// Columns of weights that one instruction multiplies.
pub(super) const STEP_COLS: usize = 64;

/// `SIDE` rows of codes by `STEP_COLS` columns, in the order of a right-hand tile: byte
/// `[k][4 · row + i]` is the code of `row` at column `4 · k + i`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct CodeTile(pub(super) [[u8; STEP_COLS]; SIDE]);

impl CodeTile {
    pub(super) const ZERO: Self = Self([[0; STEP_COLS]; SIDE]);
}

/// `SIDE` rows of values by `SIDE` rows of codes: `[value][code]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct SumTile(pub(super) [[i32; SIDE]; SIDE]);

impl SumTile {
    pub(super) const ZERO: Self = Self([[0; SIDE]; SIDE]);
}

/// `SIDE` rows of values, borrowed from the caller at his stride.
#[derive(Clone, Copy)]
pub(super) struct ValueRows<'a> {
    /// From the first value of the first row to the last of the last row, at least.
    pub(super) values: &'a [i8],
    /// Values from one row to the next.
    pub(super) stride: usize,
}

impl ValueRows<'_> {
    /// Asserts that `steps` steps can be read of every row.
    pub(super) fn check(&self, steps: usize) {
        let needed = (SIDE - 1).checked_mul(self.stride).map(|last| last + steps * STEP_COLS);
        assert!(
            needed.is_some_and(|needed| needed <= self.values.len()),
            "{} values for {steps} steps of stride {}",
            self.values.len(),
            self.stride
        );
    }
}

/// Whatever multiplies tiles: the CPU, or the model of it that tests run anywhere.
pub(super) trait TileUnit {
    /// `sums[u][h][b][r] += Σ_step Σ_c values[u] row b, column 64 · step + c · codes[step][h]`
    /// row `r`, column `c`; where `fresh`, sums begin at 0 instead.
    ///
    /// Sums wrap. `U` is 1 or 2. After each step it calls `between`, work for the rest of the core
    /// while the unit is busy, which does not use the unit.
    ///
    /// # Panics
    ///
    /// When a row of values is shorter than `64 · codes.len()`.
    fn multiply<const U: usize>(
        &self,
        values: [ValueRows<'_>; U],
        codes: &[[CodeTile; 2]],
        fresh: bool,
        sums: &mut [[SumTile; 2]; U],
        between: impl FnMut(),
    );
}

/// Blocks of columns that are unpacked at a time: 32 rows of them take 16 KiB. Two units of values
/// take as much and their sums 4 KiB, so that the codes are still in a first-level cache of 48 KiB
/// when the next two units come by.
const BLOCKS_MAX: usize = 4;

/// Steps of a block.
const BLOCK_STEPS: usize = Rows128::BLOCK_COLS / STEP_COLS;

/// Rows of codes that are multiplied together: two tiles.
const ROWS: usize = 2 * SIDE;

/// Units of `SIDE` rows of values that one unpacking serves; their sums take 2 KiB each.
const UNITS_MAX: usize = 16;

/// Bytes of values that stay in a second-level cache of 2 MiB while all rows pass over them.
const VALUES_MAX: usize = 1280 << 10;

/// The first `batch` rows of values of `product`; at least `SIDE`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn gemm(product: &mut Product<'_>, batch: usize, tiles: &impl TileUnit) {
    let unit_bytes = SIDE * Rows128::BLOCK_COLS * product.blocks().max(1);
    // Even, as units are multiplied in pairs.
    let units_max = (VALUES_MAX / unit_bytes).clamp(2, UNITS_MAX) & !1;
    let units = batch.div_ceil(SIDE);
    let unit_groups = units.div_ceil(units_max);
    let group = units.div_ceil(unit_groups).next_multiple_of(2);
    let blocks = product.blocks();
    let parts = blocks.div_ceil(BLOCKS_MAX).max(1);
    let mut codes = [[[CodeTile::ZERO; 2]; BLOCKS_MAX * BLOCK_STEPS]; 2];
    let mut sums = [[SumTile::ZERO; 2]; UNITS_MAX];
    for first in (0..units).step_by(group) {
        let count = group.min(units - first);
        // Every unit is full: the last of a ragged batch begins earlier and repeats some rows.
        let mut starts = [0; UNITS_MAX];
        for (unit, start) in starts[..count].iter_mut().enumerate() {
            *start = ((first + unit) * SIDE).min(batch - SIDE);
        }
        let starts = &starts[..count];
        let [mut now, mut next] = codes.each_mut();
        let mut panel = Panel::new(product, 0);
        Unpacking::new(&panel, 0..blocks / parts, now).finish();
        for row in (0..product.rows()).step_by(ROWS) {
            let below = Panel::new(product, row + ROWS);
            let mut start = 0;
            for part in 0..parts {
                let end = blocks * (part + 1) / parts;
                let mut unpacking = if part + 1 < parts {
                    Unpacking::new(&panel, end..blocks * (part + 2) / parts, next)
                } else {
                    Unpacking::new(&below, 0..blocks / parts, next)
                };
                let codes = &now[..(end - start) * BLOCK_STEPS];
                multiply_part(product, starts, start, codes, &mut unpacking, &mut sums, tiles);
                unpacking.finish();
                mem::swap(&mut now, &mut next);
                start = end;
            }
            store_sums(product, row, starts, &sums);
            panel = below;
        }
    }
}

/// Rows of codes that are multiplied together. Beyond the last row of the matrix stands the last
/// row again: computed, and dropped.
#[derive(Clone, Copy)]
struct Panel<'a> {
    /// `[half][row]`; of a panel below all rows, nothing.
    rows: [[&'a [CodeBlock]; SIDE]; 2],
}

impl<'a> Panel<'a> {
    fn new(product: &Product<'a>, first: usize) -> Self {
        let mut rows: [[&[CodeBlock]; SIDE]; 2] = [[&[]; SIDE]; 2];
        if let Some(last) = product.rows().checked_sub(1).filter(|last| first <= *last) {
            for (row, codes) in (first..).zip(rows.as_flattened_mut()) {
                [*codes] = product.codes(row.min(last));
            }
        }
        Self { rows }
    }
}

/// Blocks of columns of a panel on their way into tiles, half a block at a time.
struct Unpacking<'a> {
    panel: &'a Panel<'a>,
    /// `[step][half]`
    tiles: &'a mut [[CodeTile; 2]],
    first: usize,
    done: usize,
    halves: usize,
}

impl<'a> Unpacking<'a> {
    fn new(panel: &'a Panel<'a>, blocks: Range<usize>, tiles: &'a mut [[CodeTile; 2]]) -> Self {
        let halves = if panel.rows[0][0].is_empty() { 0 } else { 2 * blocks.len() };
        Self { panel, tiles, first: blocks.start, done: 0, halves }
    }

    /// The next half of a block, if any is left.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn advance(&mut self) {
        if self.done < self.halves {
            let (block, half) = (self.done / 2, self.done % 2);
            let rows = &self.panel.rows[half];
            let (steps, _) = self.tiles.as_chunks_mut::<BLOCK_STEPS>();
            let [first, second] = &mut steps[block];
            let codes = array::from_fn(|r| &rows[r][self.first + block]);
            unpack(codes, ROWS * rows[0].len(), [&mut first[half], &mut second[half]]);
            self.done += 1;
        }
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn finish(mut self) {
        while self.done < self.halves {
            self.advance();
        }
    }
}

/// One part of the columns, from block `block` on, of the units of values that begin at `starts`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply_part(
    product: &Product<'_>,
    starts: &[usize],
    block: usize,
    codes: &[[CodeTile; 2]],
    unpacking: &mut Unpacking<'_>,
    sums: &mut [[SumTile; 2]; UNITS_MAX],
    tiles: &impl TileUnit,
) {
    let values = |start| {
        let (values, stride) = product.value_rows(start, SIDE, block * Rows128::BLOCK_COLS);
        ValueRows { values, stride }
    };
    let (pairs, single) = starts.as_chunks::<2>();
    let (sums, rest) = sums[..starts.len()].as_chunks_mut::<2>();
    // Spread evenly over the steps.
    let (steps, halves) = (starts.len().div_ceil(2) * codes.len(), unpacking.halves);
    let mut due = 0;
    let mut between = || {
        due += halves;
        if due >= steps {
            due -= steps;
            unpacking.advance();
        }
    };
    for (starts, sums) in pairs.iter().zip(sums) {
        tiles.multiply(starts.map(values), codes, block == 0, sums, &mut between);
    }
    if let ([start], [sums]) = (single, rest) {
        let sums = array::from_mut(sums);
        tiles.multiply([values(*start)], codes, block == 0, sums, &mut between);
    }
}

/// Stores the sums of the rows from `row` on, at most `ROWS`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn store_sums(
    product: &mut Product<'_>,
    row: usize,
    starts: &[usize],
    sums: &[[SumTile; 2]; UNITS_MAX],
) {
    let rows = product.rows();
    for (start, halves) in starts.iter().zip(sums) {
        for (half, sums) in halves.iter().enumerate() {
            let first = row + half * SIDE;
            if product.order() == Order::BatchMajor {
                if first < rows {
                    for (b, sums) in (*start..).zip(&sums.0) {
                        product.store_column(first, b, sums);
                    }
                }
                continue;
            }
            for r in (0..SIDE.min(rows.saturating_sub(first))).step_by(4) {
                let columns = columns(array::from_fn(|b| load_sums(sums, b, r)));
                for (r, dots) in (first + r..rows).zip(columns) {
                    product.store(r, *start, lanes(dots));
                }
            }
        }
    }
}

/// One block of columns of 16 rows as the tiles of its two steps.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn unpack(rows: [&CodeBlock; SIDE], ahead: usize, [first, second]: [&mut CodeTile; 2]) {
    let low_bits = _mm512_set1_epi8(0b11);
    for row in rows {
        prefetch(row, ahead);
    }
    for quad in 0..2 {
        let words = columns(array::from_fn(|r| load_codes(rows[r], quad)));
        for (i, word) in words.into_iter().enumerate() {
            // Four columns a byte, 32 apart; bits that cross a byte in the 16-bit shifts are
            // masked away.
            let k = 4 * quad + i;
            store(&mut first.0[k], _mm512_and_si512(_mm512_srli_epi16::<6>(word), low_bits));
            store(&mut first.0[8 + k], _mm512_and_si512(_mm512_srli_epi16::<4>(word), low_bits));
            store(&mut second.0[k], _mm512_and_si512(_mm512_srli_epi16::<2>(word), low_bits));
            store(&mut second.0[8 + k], _mm512_and_si512(word, low_bits));
        }
    }
}

/// A 16 x 4 matrix of 32-bit words, transposed: vector `j` is word `j` of every row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn columns(rows: [__m128i; SIDE]) -> [__m512i; 4] {
    // Rows 4 apart stand side by side, so that transposing each 128 bits by itself is enough.
    let [a, b, c, d] = array::from_fn(|i| {
        let quarter = _mm512_castsi128_si512(rows[i]);
        let half = _mm512_inserti32x4::<1>(quarter, rows[i + 4]);
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(half, rows[i + 8]), rows[i + 12])
    });
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Bytes `16 · quad..` of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load_codes(block: &CodeBlock, quad: usize) -> __m128i {
    let quads: &[[u8; 16]] = block.as_chunks().0;
    let quad = &quads[quad];
    // SAFETY: 16 bytes are readable, because the reference covers them; loadu wants no alignment.
    unsafe { _mm_loadu_si128(quad.as_ptr().cast()) }
}

/// Sums of row `b` of values with the codes of rows `r..r + 4`; `r` is a multiple of 4.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load_sums(sums: &SumTile, b: usize, r: usize) -> __m128i {
    let quads: &[[i32; 4]] = sums.0[b].as_chunks().0;
    let quad = &quads[r / 4];
    // SAFETY: 16 bytes are readable, because the reference covers them; loadu wants no alignment.
    unsafe { _mm_loadu_si128(quad.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn store(bytes: &mut [u8; 64], vector: __m512i) {
    // SAFETY: 64 bytes are writable, because the reference covers them; storeu wants no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn lanes(vector: __m512i) -> [i32; 16] {
    let mut lanes = [0; 16];
    // SAFETY: 64 bytes are writable, because the array has them; storeu wants no alignment.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), vector) }
    lanes
}

/// Asks for the block `ahead` blocks behind this one, whether it belongs to the matrix or not.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn prefetch(block: &CodeBlock, ahead: usize) {
    let address = block.as_ptr().wrapping_add(ahead * size_of::<CodeBlock>());
    _mm_prefetch::<_MM_HINT_T0>(address.cast());
}
