//! The layer against the same product in plain `f64`.

use tercet_core::{I2s, Layout, LayoutError, PackedTernary, Quarters, pack};
use tercet_outside::TernaryLinear;

const ROWS: usize = 6;
const COLS: usize = 192;

fn trit(row: usize, col: usize) -> i8 {
    ((row * 31 + col * col) % 3) as i8 - 1
}

fn x(batch: usize) -> Vec<f32> {
    (0..batch * COLS).map(|i| (i as f32 * 0.7).sin()).collect()
}

fn packed<L: Layout>() -> Vec<u8> {
    let mut bytes = vec![0; L::bytes(ROWS, COLS).expect("a shape that fits")];
    pack::<L>(ROWS, COLS, trit, &mut bytes).expect("a buffer that fits");
    bytes
}

#[test]
fn equals_the_real_product_within_the_rounding_of_the_activations() {
    let bytes = packed::<Quarters>();
    let stored = PackedTernary::<Quarters>::new(&bytes, ROWS, COLS).expect("the right length");
    let layer = TernaryLinear::new(stored, 0.25).expect("valid codes");
    let batch = 3;
    let x = x(batch);
    let y = layer.forward(&x);
    assert_eq!(y.len(), batch * ROWS);
    for (b, x) in x.chunks_exact(COLS).enumerate() {
        for row in 0..ROWS {
            let real: f64 =
                (0..COLS).map(|c| f64::from(x[c]) * f64::from(trit(row, c)) * 0.25).sum();
            // Each activation is off by at most half a unit, 1/254 of the peak, which is at most 1.
            let bound = COLS as f64 * 0.25 / 254.0 + 1e-5;
            let error = (f64::from(y[b * ROWS + row]) - real).abs();
            assert!(error <= bound, "row {row} of {b}: off by {error}, bound {bound}");
        }
    }
}

#[test]
fn the_stored_layout_does_not_matter() {
    let quarters = packed::<Quarters>();
    let i2s = packed::<I2s>();
    let from_quarters =
        TernaryLinear::new(PackedTernary::<Quarters>::new(&quarters, ROWS, COLS).unwrap(), 1.0);
    let from_i2s =
        TernaryLinear::new(PackedTernary::<I2s>::new(&i2s, ROWS, COLS).unwrap(), I2s::unit(&i2s));
    let x = x(2);
    assert_eq!(from_quarters.unwrap().forward(&x), from_i2s.unwrap().forward(&x));
}

#[test]
fn a_broken_file_is_an_error() {
    let mut bytes = packed::<Quarters>();
    bytes[5] |= 0b11;
    let stored = PackedTernary::<Quarters>::new(&bytes, ROWS, COLS).expect("the right length");
    let error = TernaryLinear::new(stored, 1.0).map(|_| ()).expect_err("code 3");
    assert_eq!(error, LayoutError::Code { row: 0, col: 5, code: 3 });
}
