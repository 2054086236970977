//! A linear layer of a runtime that is not Tercet: owned buffers, `f32` in and out, any batch.
//!
//! It knows `tercet-core` by its documentation only. That it stays this short is the test of the
//! API.

use tercet_core::{Layout, LayoutError, PackedTernary, Rows128, Simd, repack};

/// `y = W·x` with ternary `W` and activations quantised to INT8 a row at a time.
#[derive(Debug)]
pub struct TernaryLinear {
    codes: Vec<u8>, // `Rows128`
    rows: usize,
    cols: usize,
    unit: f32,
    simd: Simd,
}

impl TernaryLinear {
    /// Takes a stored matrix, of whatever layout, and the real size of one trit.
    ///
    /// # Errors
    ///
    /// When `stored` holds a code that is no trit.
    pub fn new<L: Layout>(stored: PackedTernary<'_, L>, unit: f32) -> Result<Self, LayoutError> {
        let (rows, cols) = (stored.rows(), stored.cols());
        let mut codes = vec![0; Rows128::bytes(rows, cols)?];
        repack::<L, Rows128>(stored, &mut codes)?;
        Ok(Self { codes, rows, cols, unit, simd: Simd::detect() })
    }

    /// Applies the layer to `x` of shape `(batch, cols)`; returns `(batch, rows)`.
    ///
    /// # Panics
    ///
    /// When `x` is not whole rows.
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        assert!(x.len().is_multiple_of(self.cols), "{} numbers in rows of {}", x.len(), self.cols);
        let batch = x.len() / self.cols;
        let stride = Rows128::padded_cols(self.cols);
        let mut values = vec![0; batch * stride];
        let (units, value_sums): (Vec<f32>, Vec<i32>) = x
            .chunks_exact(self.cols)
            .zip(values.chunks_exact_mut(stride))
            .map(|(x, values)| self.simd.quantize_row(x, values))
            .map(|row| (row.unit, row.sum))
            .unzip();

        let weights = PackedTernary::<Rows128>::new(&self.codes, self.rows, self.cols)
            .expect("`new` made the codes for this shape");
        let mut sums = vec![0; self.rows * batch];
        // Two halves, as two threads would take them.
        let middle = self.rows / 2;
        let (head, tail) = sums.split_at_mut(middle * batch);
        for (rows, sums) in [(0..middle, head), (middle..self.rows, tail)] {
            self.simd.gemm(weights.row_range(rows), &values, stride, &value_sums, sums);
        }

        (0..batch)
            .flat_map(|b| (0..self.rows).map(move |row| (row, b)))
            .map(|(row, b)| sums[row * batch + b] as f32 * units[b] * self.unit)
            .collect()
    }
}
