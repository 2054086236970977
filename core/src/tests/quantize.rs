//! The rounding rule: worked numbers, then the rule as the standard library would say it.

use std::{vec, vec::Vec};

use proptest::prelude::*;

use crate::{
    activation::{PEAK_MIN, RowUnit},
    reference,
    simd::Simd,
};

#[test]
fn worked_example() {
    // 127 / 2 = 63.5; the products are 31.75, −63.5, 15.875 and 127.
    let mut values = [99; 6];
    for simd in Simd::available() {
        let row = simd.quantize_row(&[0.5, -1.0, 0.25, 2.0], &mut values);
        assert_eq!(values, [32, -64, 16, 127, 0, 0], "{simd}");
        assert_eq!(row, RowUnit { unit: 2.0 / 127.0, sum: 111 }, "{simd}");
    }
}

#[test]
fn halves_go_to_even() {
    // Peak 127: the product is the number itself.
    let x = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, 125.5, 0.499_999_97, 127.0];
    let expected = [0, 2, 2, 0, -2, -2, 126, -126, 126, 0, 127];
    for simd in Simd::available() {
        let mut values = [99; 11];
        simd.quantize_row(&x, &mut values);
        assert_eq!(values, expected, "{simd}");
    }
}

#[test]
fn rows_without_a_peak() {
    for simd in Simd::available() {
        let mut values = [99; 3];
        for x in [[0.0; 3], [f32::NAN; 3], [-0.0, 0.0, f32::NAN]] {
            assert_eq!(simd.peak(&x).to_bits(), 0, "{simd}");
            let row = simd.quantize_row(&x, &mut values);
            assert_eq!(row, RowUnit { unit: PEAK_MIN / 127.0, sum: 0 }, "{simd}");
            assert_eq!(values, [0; 3], "{simd}");
        }
        assert_eq!(simd.quantize_row(&[], &mut []).sum, 0, "{simd}");
        let row = simd.quantize_row(&[1.0, f32::NEG_INFINITY, 2.0], &mut values);
        assert_eq!((row.unit, values), (f32::INFINITY, [0; 3]), "{simd}");
    }
}

#[test]
fn a_smaller_peak_clamps() {
    for simd in Simd::available() {
        let mut values = [99; 4];
        let row = simd.quantize_row_at(&[3.0, -3.0, f32::INFINITY, 0.5], 1.0, &mut values);
        assert_eq!(values, [127, -127, 127, 64], "{simd}");
        assert_eq!(row, RowUnit { unit: 1.0 / 127.0, sum: 191 }, "{simd}");
    }
}

#[test]
#[should_panic(expected = "a peak of NaN has no unit")]
fn a_peak_that_is_none_is_a_bug_of_the_caller() {
    Simd::detect().quantize_row_at(&[1.0], f32::NAN, &mut [0]);
}

#[test]
#[should_panic(expected = "1 values for 2 numbers")]
fn too_short_a_buffer_is_a_bug_of_the_caller() {
    Simd::detect().quantize_row(&[1.0, 2.0], &mut [0]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rule_in_other_words(x in prop::collection::vec(any::<f32>(), 0..200)) {
        let peak = x.iter().fold(0.0_f32, |peak, x| peak.max(x.abs())); // `max` ignores NaN
        let factor = 127.0 / peak.max(1e-5);
        let expected: Vec<i8> = x
            .iter()
            .map(|x| (x * factor).round_ties_even().clamp(-127.0, 127.0) as i8) // NaN becomes 0
            .collect();
        let mut values = vec![99; x.len()];
        let row = reference::quantize_row(&x, &mut values);
        prop_assert_eq!(&values, &expected);
        prop_assert_eq!(row.unit, peak.max(1e-5) / 127.0);
        prop_assert_eq!(row.sum, expected.iter().map(|value| i32::from(*value)).sum::<i32>());
        for simd in Simd::available() {
            prop_assert_eq!(simd.quantize_row(&x, &mut values), row);
            prop_assert_eq!(&values, &expected);
        }
    }

    #[test]
    fn values_times_unit_are_within_half_a_unit(x in prop::collection::vec(-1e3_f32..1e3, 1..200)) {
        let mut values = vec![99; x.len()];
        let row = Simd::detect().quantize_row(&x, &mut values);
        for (value, x) in values.iter().zip(&x) {
            let error = (f32::from(*value) * row.unit - x).abs();
            prop_assert!(error <= row.unit * 0.5001, "{} for {}", value, x);
        }
    }
}
