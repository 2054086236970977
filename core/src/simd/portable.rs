//! Plain Rust, shaped so that the compiler finds the vectors by itself.

use crate::activation;

use super::{
    base3::{self, Base3Codes, Base3Product},
    product::{CodeBlock, Product, ValueBlock},
};

/// The level that every CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Portable;

impl Portable {
    pub(super) fn name(self) -> &'static str {
        "portable"
    }

    pub(super) fn peak(self, x: &[f32]) -> f32 {
        activation::peak(x)
    }

    pub(super) fn quantize(self, x: &[f32], factor: f32, values: &mut [i8]) -> i32 {
        activation::quantize(x, factor, values)
    }

    pub(super) fn gemv(self, mut product: Product<'_>) {
        let [values] = product.values(0);
        for row in 0..product.rows() {
            let [codes] = product.codes(row);
            product.store(row, 0, dots(codes, [values]));
        }
    }

    pub(super) fn gemm(self, mut product: Product<'_>) {
        for rows in product.row_chunks() {
            let mut b = 0;
            while b < product.batch() {
                b += match product.batch() - b {
                    1 => band::<1>(&mut product, rows.clone(), b),
                    2 | 3 => band::<2>(&mut product, rows.clone(), b),
                    _ => band::<4>(&mut product, rows.clone(), b),
                };
            }
        }
    }

    pub(super) fn gemv_base3(self, product: Base3Product<'_>) {
        base3::gemv(product);
    }

    pub(super) fn unpack_base3(self, codes: Base3Codes<'_>) {
        codes.write(base3::unpack);
    }

    #[inline]
    pub(super) fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
}

/// `rows` of the product with `B` rows of values from `b` on; returns `B`.
fn band<const B: usize>(
    product: &mut Product<'_>,
    rows: core::ops::Range<usize>,
    b: usize,
) -> usize {
    let values = product.values::<B>(b);
    for row in rows {
        let [codes] = product.codes(row);
        product.store(row, b, dots(codes, values));
    }
    B
}

/// `Σ code · value` of one row of codes and `B` rows of values, equally many blocks each.
fn dots<const B: usize>(codes: &[CodeBlock], values: [&[ValueBlock]; B]) -> [i32; B] {
    // A lane gets four products a block: |sum| ≤ 21 · 4 · 3 · 128 = 32 256, i16 holds it.
    const BLOCKS_MAX: usize = 21;
    let mut sums = [0; B];
    for (group, codes) in codes.chunks(BLOCKS_MAX).enumerate() {
        let mut lanes = [[0_i16; 32]; B];
        for (k, codes) in codes.iter().enumerate() {
            for b in 0..B {
                let (values, lanes) = (&values[b][group * BLOCKS_MAX + k], &mut lanes[b]);
                for j in 0..32 {
                    let code = |shift: u32| i16::from(codes[j] >> shift & 3);
                    lanes[j] += code(6) * i16::from(values[j])
                        + code(4) * i16::from(values[32 + j])
                        + code(2) * i16::from(values[64 + j])
                        + code(0) * i16::from(values[96 + j]);
                }
            }
        }
        for (sum, lanes) in sums.iter_mut().zip(lanes) {
            *sum += lanes.iter().map(|lane| i32::from(*lane)).sum::<i32>();
        }
    }
    sums
}
