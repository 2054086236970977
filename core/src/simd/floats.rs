//! Products of floats on a level, in one order on all of them.

use super::Simd;
use super::lanes::{AddProducts, Rows};
use crate::stored::Stored;

/// Rows of floats, read: row `r` begins at `r · stride`.
#[derive(Debug, Clone, Copy)]
pub struct FloatRows<'a> {
    /// The numbers.
    pub values: &'a [f32],
    /// Numbers from row to row.
    pub stride: usize,
}

/// Rows of floats, written.
#[derive(Debug)]
pub struct FloatRowsMut<'a> {
    /// The numbers.
    pub values: &'a mut [f32],
    /// Numbers from row to row.
    pub stride: usize,
}

impl Simd {
    /// `out[i] = numbers[i]`. Exact.
    ///
    /// # Panics
    ///
    /// When there are not equally many.
    pub fn widen(self, numbers: Stored<'_>, out: &mut [f32]) {
        assert_eq!(numbers.len(), out.len(), "numbers and places");
        on_level!(self, level => level.widen(numbers, out));
    }

    /// `out[r · batch + b] = dot(weights[r], x[b])`, rows of `cols` numbers.
    ///
    /// `weights` is `(rows, cols)`, `x` `(batch, stride)`, `out` `(rows, batch)`. The order of a
    /// dot is [`reference::dot`](crate::reference::dot)'s, whatever the batch. Weights are read
    /// once, in order, at the memory's pace.
    ///
    /// # Panics
    ///
    /// When `cols` or `batch` is 0, or a length does not fit the shapes.
    pub fn dots(
        self,
        weights: Stored<'_>,
        cols: usize,
        x: FloatRows<'_>,
        batch: usize,
        out: &mut [f32],
    ) {
        assert!(cols > 0 && batch > 0, "{cols} columns, a batch of {batch}");
        assert_eq!(weights.len() % cols, 0, "weights must be (rows, {cols})");
        assert_eq!(out.len(), weights.len() / cols * batch, "out must be (rows, {batch})");
        assert!(x.stride >= cols, "stride {} for {cols} columns", x.stride);
        covers(x.values, x.stride, batch, cols);
        let x = Rows { values: x.values, stride: x.stride };
        on_level!(self, level => level.dots(weights, cols, x, batch, out));
    }

    /// `sums[m, n] += Σ_k factors[m, k] · rows[k, n]`, `k` ascending, product after product added
    /// to the sum.
    ///
    /// `factors` is `(count, depth)`, `rows` `(depth, width)`, `sums` `(count, width)`, each with a
    /// stride of its own. `width` is a multiple of 32. `rows` may overlap, which makes columns that
    /// nobody wants out of what follows a row.
    ///
    /// # Panics
    ///
    /// When `width` is no multiple of 32, or a length does not fit the shapes.
    pub fn add_products(
        self,
        [count, depth, width]: [usize; 3],
        factors: FloatRows<'_>,
        rows: FloatRows<'_>,
        sums: FloatRowsMut<'_>,
    ) {
        assert_eq!(width % 32, 0, "the width must be a multiple of 32");
        assert!(sums.stride >= width, "stride {} for {width} sums", sums.stride);
        covers(factors.values, factors.stride, count, depth);
        covers(rows.values, rows.stride.max(1), depth, width);
        covers(sums.values, sums.stride, count, width);
        let product = AddProducts {
            factors: Rows { values: factors.values, stride: factors.stride },
            rows: Rows { values: rows.values, stride: rows.stride },
            sums: sums.values,
            sums_stride: sums.stride,
            count,
            depth,
            width,
        };
        on_level!(self, level => level.add_products(product));
    }
}

/// Asserts that `values` hold `rows` rows of `cols` numbers.
fn covers(values: &[f32], stride: usize, rows: usize, cols: usize) {
    let needed = match rows {
        0 => Some(0),
        _ => (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(cols)),
    };
    assert!(
        needed.is_some_and(|needed| needed <= values.len()),
        "{} numbers for ({rows}, {cols}) of stride {stride}",
        values.len()
    );
}
