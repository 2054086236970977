//! `tercet-core` where there is nothing else: no standard library, no C library, no allocator.
//!
//! Repacks a matrix, quantises a row, multiplies through the reference and through every level that
//! the program was compiled for, and exits with 0 if all agree. `cargo run --release` is the test.

#![no_std]
#![no_main]

mod memory;
mod platform;

use core::fmt::Write;

use platform::Stderr;
use tercet_core::{
    Base3, Layout, LayoutError, PackedBase3, PackedTernary, Quarters, Rows128, Simd, pack,
    reference, repack,
};

const ROWS: usize = 7;
const COLS: usize = 300;
const BATCH: usize = 5;
const STRIDE: usize = Rows128::padded_cols(COLS);

/// The exit status: 0 if everything agrees, 1 if a result differs, 2 if a shape is refused.
fn main() -> i32 {
    match check() {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            let _ = writeln!(Stderr, "{error}");
            2
        }
    }
}

fn check() -> Result<bool, LayoutError> {
    // A matrix as a checkpoint holds it, then as the kernels read it.
    let mut stored = [0; ROWS.div_ceil(4) * COLS];
    pack::<Quarters>(ROWS, COLS, |row, col| ((row * 5 + col * col) % 3) as i8 - 1, &mut stored)?;
    let stored = PackedTernary::<Quarters>::new(&stored, ROWS, COLS)?;
    let mut codes = [0; ROWS * Rows128::row_bytes(COLS)];
    assert_eq!(codes.len(), Rows128::bytes(ROWS, COLS)?, "the two ways to say a length");
    repack::<Quarters, Rows128>(stored, &mut codes)?;
    let weights = PackedTernary::<Rows128>::new(&codes, ROWS, COLS)?;
    weights.check_codes()?;

    let mut digits = [0; ROWS * Base3::row_bytes(COLS)];
    let digits = PackedBase3::pack(weights, &mut digits)?;

    let mut all_equal = true;
    for simd in Simd::available() {
        let mut values = [0; BATCH * STRIDE];
        let mut value_sums = [0; BATCH];
        for (b, values) in values.chunks_exact_mut(STRIDE).enumerate() {
            let x: [f32; COLS] = core::array::from_fn(|c| ((c * 37 + b * 11) % 101) as f32 - 50.0);
            let row = simd.quantize_row(&x, values);
            let mut expected = [0; STRIDE];
            all_equal &= row == reference::quantize_row(&x, &mut expected) && *values == expected;
            value_sums[b] = row.sum;
        }

        // The reference reads the stored layout, so it is a witness of `repack` too.
        let mut expected = [0; ROWS * BATCH];
        reference::gemm(stored, &values, STRIDE, BATCH, &mut expected);
        let mut sums = [i32::MIN; ROWS * BATCH];
        simd.gemm(weights, &values, STRIDE, &value_sums, &mut sums);
        all_equal &= sums == expected;

        let mut sums = [i32::MIN; ROWS];
        simd.gemv(weights, &values[..STRIDE], value_sums[0], &mut sums);
        all_equal &= (0..ROWS).all(|row| sums[row] == expected[row * BATCH]);

        let mut values_of_base3 = [0; Base3::padded_cols(COLS)];
        values_of_base3[..COLS].copy_from_slice(&values[..COLS]);
        let mut sums = [i32::MIN; ROWS];
        simd.gemv_base3(digits, &values_of_base3, value_sums[0], &mut sums);
        all_equal &= (0..ROWS).all(|row| sums[row] == expected[row * BATCH]);

        let verdict = if all_equal { "equals" } else { "DIFFERS FROM" };
        // A closed standard error is no reason to fail.
        let _ = writeln!(Stderr, "{simd} {verdict} the reference");
    }
    Ok(all_equal)
}
