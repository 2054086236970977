//! One multiplication, checked: what the levels share.

use core::ops::Range;

use crate::packed::{PackedTernary, Rows128};

/// The codes of one block of columns.
pub(super) type CodeBlock = [u8; Rows128::BLOCK_BYTES];

/// The values of one block of columns.
pub(super) type ValueBlock = [i8; Rows128::BLOCK_COLS];

/// A product whose shapes agree. Levels ask it for rows and give it dots; they see no index.
pub(super) struct Product<'a> {
    weights: PackedTernary<'a, Rows128>, // (rows, cols)
    values: &'a [i8],                    // (batch, stride), stride ≥ padded_cols
    stride: usize,
    value_sums: &'a [i32], // (batch,)
    sums: &'a mut [i32],   // in `order`
    order: Order,
}

/// Where a product's sums stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `(rows, batch)`
    RowMajor,
    /// `(batch, rows)`
    BatchMajor,
}

impl<'a> Product<'a> {
    /// Asserts that the shapes agree: the one check before all kernels.
    pub(super) fn new(
        weights: PackedTernary<'a, Rows128>,
        values: &'a [i8],
        stride: usize,
        value_sums: &'a [i32],
        sums: &'a mut [i32],
        order: Order,
    ) -> Self {
        let (rows, cols, batch) = (weights.rows(), weights.cols(), value_sums.len());
        let padded_cols = Rows128::padded_cols(cols);
        assert!(stride >= padded_cols, "stride {stride} is below {padded_cols} padded columns");
        assert!(
            batch.checked_mul(stride).is_some_and(|needed| needed <= values.len()),
            "{} values for batch {batch} of stride {stride}",
            values.len()
        );
        assert_eq!(Some(sums.len()), rows.checked_mul(batch), "{rows} rows, a batch of {batch}");
        debug_assert!(
            (0..batch).all(|b| values[b * stride..][cols..padded_cols].iter().all(|v| *v == 0)),
            "values beyond column {cols} must be 0"
        );
        Self { weights, values, stride, value_sums, sums, order }
    }

    pub(super) fn rows(&self) -> usize {
        self.weights.rows()
    }

    pub(super) fn batch(&self) -> usize {
        self.value_sums.len()
    }

    /// Blocks of columns of a row of codes.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn blocks(&self) -> usize {
        Rows128::padded_cols(self.weights.cols()) / Rows128::BLOCK_COLS
    }

    /// `count` rows of values from `b` on and column `col` on, with the stride from one to the
    /// next: what the tile unit reads by itself. The last row ends with its padding.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn value_rows(&self, b: usize, count: usize, col: usize) -> (&'a [i8], usize) {
        let padded_cols = Rows128::padded_cols(self.weights.cols());
        let last = (b + count - 1) * self.stride;
        (&self.values[b * self.stride + col..last + padded_cols], self.stride)
    }

    /// Consecutive ranges of rows, each small enough to stay in a second-level cache while all of
    /// the batch passes over it.
    pub(super) fn row_chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        const CHUNK_BYTES: usize = 256 << 10;
        let rows = self.rows();
        let row_bytes = Rows128::row_bytes(self.weights.cols());
        // A multiple of every tile's height, so that only the last chunk has rows left over.
        let chunk = (CHUNK_BYTES / row_bytes.max(1)).next_multiple_of(8).max(8);
        (0..rows).step_by(chunk).map(move |start| start..rows.min(start + chunk))
    }

    /// `R` rows of codes, from `row` on. All rows have equally many blocks.
    #[inline(always)]
    pub(super) fn codes<const R: usize>(&self, row: usize) -> [&'a [CodeBlock]; R] {
        // A loop and not a closure, which is called where its tile is too large to take it in.
        let mut codes: [&[CodeBlock]; R] = [&[]; R];
        for (r, codes) in codes.iter_mut().enumerate() {
            *codes = self.weights.row_blocks(row + r);
        }
        codes
    }

    /// `B` rows of values, from `b` on, each as many blocks as a row of codes.
    pub(super) fn values<const B: usize>(&self, b: usize) -> [&'a [ValueBlock]; B] {
        let padded_cols = Rows128::padded_cols(self.weights.cols());
        core::array::from_fn(|i| self.values[(b + i) * self.stride..][..padded_cols].as_chunks().0)
    }

    /// Takes `Σ code · value` of `row` and the `B` rows of values from `b` on.
    #[inline(always)]
    pub(super) fn store<const B: usize>(&mut self, row: usize, b: usize, dots: [i32; B]) {
        let (rows, batch) = (self.rows(), self.batch());
        for ((b, value_sum), dot) in (b..).zip(&self.value_sums[b..b + B]).zip(dots) {
            let at = match self.order {
                Order::RowMajor => row * batch + b,
                Order::BatchMajor => b * rows + row,
            };
            // Cannot overflow for a true value sum; a caller's false one gives a wrong number.
            self.sums[at] = dot.wrapping_sub(*value_sum);
        }
    }

    /// As [`store`](Self::store), of the rows from `row` on and row `b` of values: as many of
    /// `dots` as there are rows left.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn store_column<const R: usize>(&mut self, row: usize, b: usize, dots: &[i32; R]) {
        let (rows, value_sum) = (self.rows(), self.value_sums[b]);
        let at = b * rows + row;
        if let Some(sums) = self.sums[at..(b + 1) * rows].first_chunk_mut::<R>() {
            for (sum, dot) in sums.iter_mut().zip(dots) {
                *sum = dot.wrapping_sub(value_sum);
            }
        } else {
            for (sum, dot) in self.sums[at..(b + 1) * rows].iter_mut().zip(dots) {
                *sum = dot.wrapping_sub(value_sum);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn order(&self) -> Order {
        self.order
    }
}
