//! Float loops: every level against the reference, to the bit.

use std::{format, vec, vec::Vec};

use super::Seeded;
use crate::reference;
use crate::simd::{FloatRows, FloatRowsMut, Simd};
use crate::stored::Stored;

fn floats(seed: u64, len: usize) -> Vec<f32> {
    let mut random = Seeded(seed);
    (0..len).map(|_| (random.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Finite numbers of every type, at odd addresses.
struct Numbers {
    bytes: Vec<u8>,
    whole: Vec<i8>,
}

impl Numbers {
    fn new(seed: u64, len: usize) -> Self {
        let mut bytes = Seeded(seed).bytes(4 * len + 1);
        // An exponent of ones is no number; every second byte holds the upper end of one.
        bytes[1..].iter_mut().skip(1).step_by(2).for_each(|byte| *byte &= 0b1011_1111);
        let whole = Seeded(seed + 1).bytes(len).into_iter().map(|byte| byte as i8).collect();
        Self { bytes, whole }
    }

    fn types(&self) -> [Stored<'_>; 4] {
        let (bytes, len) = (&self.bytes[1..], self.whole.len());
        [
            Stored::F32(&bytes.as_chunks().0[..len]),
            Stored::F16(&bytes.as_chunks().0[..len]),
            Stored::Bf16(&bytes.as_chunks().0[..len]),
            Stored::I8(&self.whole),
        ]
    }
}

#[track_caller]
fn assert_same_bits(expected: &[f32], got: &[f32], what: &str) {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(expected), bits(got), "{what}");
}

/// The value of a half by its definition, NaN apart.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction / 16_777_216.0,
        31 => f64::INFINITY,
        _ => (1.0 + fraction / 1024.0) * f64::from(2.0_f32.powi(exponent - 15)),
    };
    sign * magnitude
}

#[test]
fn every_half_is_the_single_it_stands_for() {
    let bytes: Vec<[u8; 2]> = (0..=u16::MAX).map(u16::to_le_bytes).collect();
    let stored = Stored::F16(&bytes);
    for simd in Simd::available() {
        let mut singles = vec![0.0; bytes.len()];
        simd.widen(stored, &mut singles);
        for (bits, single) in (0..=u16::MAX).zip(&singles) {
            let what = format!("{simd}: {bits:#06x} is {single}");
            assert_eq!(single.to_bits(), stored.get(usize::from(bits)).to_bits(), "{what}");
            if bits & 0x7fff > 0x7c00 {
                // Sign and payload are kept, and the NaN is a quiet one.
                let expected = u32::from(bits) << 16 & 1 << 31 | 0x7fc0_0000;
                assert_eq!(single.to_bits(), expected | u32::from(bits & 0x3ff) << 13, "{what}");
            } else {
                assert_eq!(f64::from(*single).to_bits(), half(bits).to_bits(), "{what}");
            }
        }
    }
}

#[test]
fn widening_is_what_get_says() {
    for len in [0, 1, 31, 32, 33, 64, 100, 4096] {
        let numbers = Numbers::new(len as u64, len);
        for stored in numbers.types() {
            let expected: Vec<f32> = (0..len).map(|place| stored.get(place)).collect();
            for simd in Simd::available() {
                let mut got = vec![f32::NAN; len];
                simd.widen(stored, &mut got);
                assert_same_bits(&expected, &got, &format!("{simd}, {len}"));
            }
        }
    }
}

#[test]
fn dots_are_the_references() {
    for (rows, cols) in [(1, 1), (3, 31), (2, 32), (5, 33), (3, 100), (2, 128), (4, 1000)] {
        let numbers = Numbers::new(cols as u64, rows * cols);
        for batch in [1, 2, 3, 4, 5, 9] {
            let stride = cols + batch % 3;
            let x = floats(7, batch * stride);
            for stored in numbers.types() {
                let row = |r: usize| -> Vec<f32> {
                    (r * cols..(r + 1) * cols).map(|place| stored.get(place)).collect()
                };
                let expected: Vec<f32> = (0..rows * batch)
                    .map(|i| reference::dot(&row(i / batch), &x[i % batch * stride..][..cols]))
                    .collect();
                for simd in Simd::available() {
                    let mut got = vec![f32::NAN; rows * batch];
                    let x = FloatRows { values: &x, stride };
                    simd.dots(stored, cols, x, batch, &mut got);
                    assert_same_bits(
                        &expected,
                        &got,
                        &format!("{simd}, ({rows}, {cols}), {batch}"),
                    );
                }
            }
        }
    }
}

#[test]
fn products_are_added_in_order() {
    for count in [0, 1, 2, 3, 4, 5, 8, 9] {
        for (depth, width, stride) in [(0, 32, 37), (1, 64, 69), (32, 128, 100), (100, 32, 40)] {
            let strides = [depth + 1, stride, width + 3];
            let factors = floats(1, count * strides[0]);
            let rows = floats(2, depth * strides[1] + width);
            let before = floats(3, count * strides[2]);
            let mut expected = before.clone();
            for m in 0..count {
                for n in 0..width {
                    for k in 0..depth {
                        let product = factors[m * strides[0] + k] * rows[k * strides[1] + n];
                        expected[m * strides[2] + n] += product;
                    }
                }
            }
            for simd in Simd::available() {
                let mut got = before.clone();
                simd.add_products(
                    [count, depth, width],
                    FloatRows { values: &factors, stride: strides[0] },
                    FloatRows { values: &rows, stride: strides[1] },
                    FloatRowsMut { values: &mut got, stride: strides[2] },
                );
                assert_same_bits(&expected, &got, &format!("{simd}, {count} {depth} {width}"));
            }
        }
    }
}

#[test]
#[should_panic(expected = "numbers for (2, 3)")]
fn too_few_factors_are_refused() {
    let rows = [0.0; 96];
    let factors = FloatRows { values: &[0.0; 5], stride: 3 };
    let sums = FloatRowsMut { values: &mut [0.0; 64], stride: 32 };
    Simd::detect().add_products([2, 3, 32], factors, FloatRows { values: &rows, stride: 32 }, sums);
}
