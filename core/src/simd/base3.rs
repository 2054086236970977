//! Operations on base-3 weights, checked, and the loops that every level can have.

use super::product::CodeBlock;
use crate::packed::{Base3, Layout, LayoutError, PackedBase3, Place, Rows128};

/// The digits of one block of columns.
pub(super) type DigitBlock = [u8; Base3::BLOCK_BYTES];

/// The values of one digit of a block.
pub(super) type ValueGroup = [i8; Base3::BLOCK_BYTES];

/// The values of one block of columns, in the order of its digits.
pub(super) type ValueBlock = [ValueGroup; 5];

/// A product whose shapes agree. Levels ask it for rows and give it dots; they see no index.
pub(super) struct Base3Product<'a> {
    weights: PackedBase3<'a>, // (rows, cols)
    values: &'a [ValueBlock], // a row's blocks
    value_sum: i32,
    sums: &'a mut [i32], // (rows,)
}

impl<'a> Base3Product<'a> {
    /// Asserts that the shapes agree: the one check before all kernels.
    pub(super) fn new(
        weights: PackedBase3<'a>,
        values: &'a [i8],
        value_sum: i32,
        sums: &'a mut [i32],
    ) -> Self {
        let (rows, cols) = (weights.rows(), weights.cols());
        let padded_cols = Base3::padded_cols(cols);
        assert!(
            values.len() >= padded_cols,
            "{} values for {padded_cols} padded columns",
            values.len()
        );
        assert_eq!(sums.len(), rows, "a sum for every row");
        debug_assert!(
            values[cols..padded_cols].iter().all(|value| *value == 0),
            "values beyond column {cols} must be 0"
        );
        let (groups, _) = values[..padded_cols].as_chunks();
        Self { weights, values: groups.as_chunks().0, value_sum, sums }
    }

    pub(super) fn rows(&self) -> usize {
        self.sums.len()
    }

    /// As many blocks as a row of digits.
    pub(super) fn values(&self) -> &'a [ValueBlock] {
        self.values
    }

    /// `R` rows of digits, from `row` on.
    pub(super) fn digits<const R: usize>(&self, row: usize) -> [&'a [DigitBlock]; R] {
        core::array::from_fn(|r| self.weights.row_blocks(row + r))
    }

    /// Takes `Σ digit · value` of `row`.
    pub(super) fn store(&mut self, row: usize, dot: i32) {
        // Cannot overflow for a true value sum; a caller's false one gives a wrong number.
        self.sums[row] = dot.wrapping_sub(self.value_sum);
    }
}

/// Columns that are whole blocks of both layouts.
const SUPER_COLS: usize = 640;

/// The digits of [`SUPER_COLS`] columns.
pub(super) type DigitBlocks<'a> = [&'a DigitBlock; SUPER_COLS / Base3::BLOCK_COLS];

/// Their codes.
pub(super) type CodeBlocks = [CodeBlock; SUPER_COLS / Rows128::BLOCK_COLS];

/// Codes to be made of digits, with room for them.
pub(super) struct Base3Codes<'a> {
    weights: PackedBase3<'a>, // (rows, cols)
    codes: &'a mut [u8],      // Rows128::bytes(rows, cols) long
}

impl<'a> Base3Codes<'a> {
    /// The one check before all kernels: that `codes` fits.
    pub(super) fn new(weights: PackedBase3<'a>, codes: &'a mut [u8]) -> Result<Self, LayoutError> {
        let expected = Rows128::bytes(weights.rows(), weights.cols())?;
        if codes.len() != expected {
            return Err(LayoutError::Length { expected, got: codes.len() });
        }
        Ok(Self { weights, codes })
    }

    /// Writes every row, with `unpack` for stretches of 640 columns: two blocks of digits, five of
    /// codes. What `unpack` makes of padding is replaced.
    #[inline(always)]
    pub(super) fn write(self, unpack: impl Fn(DigitBlocks<'_>, &mut CodeBlocks)) {
        /// Digits and codes of zero.
        const ZEROS: DigitBlock = [0x80; Base3::BLOCK_BYTES];
        const ZERO_CODES: u8 = Rows128::ZERO_CODE * 0b01_01_01_01;
        let Self { weights, codes } = self;
        let cols = weights.cols();
        let Some(last) = cols.checked_sub(1) else { return };
        let keep = keep(last % Rows128::BLOCK_COLS + 1);
        let rows = codes.chunks_exact_mut(Rows128::row_bytes(cols)).enumerate();
        for (row, codes) in rows {
            let (codes, _) = codes.as_chunks_mut();
            let (pairs, odd) = weights.row_blocks(row).as_chunks();
            let (supers, rest) = codes.as_chunks_mut();
            let mut supers = supers.iter_mut();
            let mut tail = [[0; Rows128::BLOCK_BYTES]; SUPER_COLS / Rows128::BLOCK_COLS];
            for [first, second] in pairs {
                // Fewer blocks of codes than these digits fill: only at the end of a row.
                unpack([first, second], supers.next().unwrap_or(&mut tail));
            }
            if let [first] = odd {
                unpack([first, &ZEROS], &mut tail);
            }
            rest.copy_from_slice(&tail[..rest.len()]);
            for (byte, keep) in codes[last / Rows128::BLOCK_COLS].iter_mut().zip(keep) {
                *byte = *byte & keep | ZERO_CODES & !keep;
            }
        }
    }
}

/// The bits of a block that hold its first `cols` columns.
fn keep(cols: usize) -> CodeBlock {
    let mut keep = [0; Rows128::BLOCK_BYTES];
    for col in 0..cols {
        let Place { byte, shift } = Rows128::place(1, Rows128::BLOCK_COLS, 0, col);
        keep[byte] |= 3 << shift;
    }
    keep
}

/// [`Base3Codes::write`]'s `unpack` as plain loops, to be compiled once for each level. A digit is
/// a code.
#[inline(always)]
pub(super) fn unpack(blocks: DigitBlocks<'_>, codes: &mut CodeBlocks) {
    let mut groups = [[0; Base3::BLOCK_BYTES]; 10]; // of 64 columns
    for (block, groups) in blocks.into_iter().zip(groups.as_chunks_mut::<5>().0) {
        let mut bytes = *block;
        for digits in groups {
            for (byte, digit) in bytes.iter_mut().zip(digits) {
                *digit = u8::from(*byte >= 86) + u8::from(*byte >= 171); // 3·byte / 256
                *byte = byte.wrapping_mul(3);
            }
        }
    }
    for ([head, tail], codes) in groups.as_chunks().0.iter().zip(codes) {
        for (j, code) in codes.iter_mut().enumerate() {
            *code = head[j] << 6 | head[32 + j] << 4 | tail[j] << 2 | tail[32 + j];
        }
    }
}

/// The whole product as a plain loop, to be compiled once for each level.
#[inline(always)]
pub(super) fn gemv(mut product: Base3Product<'_>) {
    let values = product.values();
    for row in 0..product.rows() {
        let [digits] = product.digits(row);
        let dot = digits.iter().zip(values).map(|(digits, values)| dot(digits, values)).sum();
        product.store(row, dot);
    }
}

/// `Σ digit · value` of a block.
#[inline(always)]
fn dot(digits: &DigitBlock, values: &ValueBlock) -> i32 {
    let mut bytes = *digits;
    let mut lanes = [0_i16; Base3::BLOCK_BYTES]; // |lane| ≤ 5 · 2 · 128
    for values in values {
        for ((byte, value), lane) in bytes.iter_mut().zip(values).zip(&mut lanes) {
            // 3·byte / 256, as a comparison with each multiple of a third.
            let digit = i16::from(*byte >= 86) + i16::from(*byte >= 171);
            *lane += digit * i16::from(*value);
            *byte = byte.wrapping_mul(3);
        }
    }
    lanes.iter().map(|lane| i32::from(*lane)).sum()
}
