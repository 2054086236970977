//! One multiplication by base-3 weights, checked, and the loop that every level can have.

use crate::packed::{Base3, PackedBase3};

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
