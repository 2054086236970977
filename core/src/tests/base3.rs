//! Five trits a byte: bytes worked out by hand, round trips, and what is refused.

use std::{format, vec, vec::Vec};

use proptest::prelude::*;

use super::Seeded;
use crate::{
    packed::{
        Base3, COLS_MAX, I2s, Interleaved16, Layout, LayoutError, PackedBase3, PackedTernary,
        Quarters, Rows128, Tile16x32, pack,
    },
    reference,
};

fn packed<L: Layout>(rows: usize, cols: usize, trits: &[i8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0xee; L::bytes(rows, cols).ok()?];
    pack::<L>(rows, cols, |row, col| trits[row * cols + col], &mut bytes).unwrap();
    Some(bytes)
}

fn base3(rows: usize, cols: usize, trits: &[i8]) -> Vec<u8> {
    let codes = packed::<Rows128>(rows, cols, trits).unwrap();
    let codes = PackedTernary::<Rows128>::new(&codes, rows, cols).unwrap();
    let mut bytes = vec![0xee; Base3::bytes(rows, cols).unwrap()];
    PackedBase3::pack(codes, &mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_worked_out_by_hand() {
    // Columns 0, 64, 128, 192, 256: digits 2 0 1 2 1, v = 162 + 0 + 9 + 6 + 1 = 178,
    // 256 · 178 / 243 = 187.5.
    let mut trits = [0; 320];
    (trits[0], trits[64], trits[192]) = (1, -1, 1);
    // The last column of all: digits 1 1 1 1 0, v = 120, 256 · 120 / 243 = 126.4.
    trits[319] = -1;
    let bytes = base3(1, 320, &trits);
    assert_eq!((bytes[0], bytes[63]), (188, 127));
    assert_eq!(bytes[1..63], [0x80; 62]);
    for (trit, byte) in [(-1, 0x00), (0, 0x80), (1, 0xff)] {
        assert_eq!(base3(2, 320, &[trit; 640]), [byte; 128]);
    }
}

#[test]
fn rows_are_padded_with_zeros() {
    let bytes = base3(2, 1, &[1, -1]);
    // Digits 2 1 1 1 1 and 0 1 1 1 1: v = 202 and 40.
    let expected: Vec<u8> = [[213].as_slice(), &[0x80; 63], &[43], &[0x80; 63]].concat();
    assert_eq!(bytes, expected);
}

#[test]
fn every_byte_is_five_trits() {
    let mut seen = [0; 243];
    for byte in 0..=255 {
        let bytes = [byte; 64];
        let matrix = PackedBase3::new(&bytes, 1, 320).unwrap();
        let trits = [0, 64, 128, 192, 256].map(|col| matrix.trit(0, col));
        let v = trits.iter().fold(0, |v, trit| 3 * v + (*trit + 1) as usize);
        seen[v] += 1;
        // What GGUF's `TQ1_0` says: digits of ⌊243 · q / 256⌋.
        assert_eq!(v, 243 * usize::from(byte) / 256, "byte {byte}");
    }
    assert!(seen.iter().all(|count| matches!(count, 1 | 2)), "{seen:?}");
}

fn there_and_back<L: Layout>(rows: usize, cols: usize, trits: &[i8]) {
    let Some(codes) = packed::<L>(rows, cols, trits) else { return };
    let from = PackedTernary::<L>::new(&codes, rows, cols).unwrap();
    let mut bytes = vec![0xee; Base3::bytes(rows, cols).unwrap()];
    let matrix = PackedBase3::pack(from, &mut bytes).unwrap();
    for (index, trit) in trits.iter().enumerate() {
        assert_eq!(matrix.trit(index / cols, index % cols), *trit, "{} at {index}", L::NAME);
    }
    let mut back = vec![0xdd; codes.len()];
    matrix.unpack::<L>(&mut back).unwrap();
    assert_eq!(back, codes, "{}, {rows} x {cols}", L::NAME);
    assert_eq!(bytes, base3(rows, cols, trits), "{}, {rows} x {cols}", L::NAME);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_layout_there_and_back(rows in 1_usize..34, cols in 1_usize..700, seed: u64) {
        let round = (rows.next_multiple_of(16), cols.next_multiple_of(128));
        for (rows, cols) in [(rows, cols), round] {
            let trits = Seeded(seed).trits(rows * cols);
            there_and_back::<Quarters>(rows, cols, &trits);
            there_and_back::<Interleaved16>(rows, cols, &trits);
            there_and_back::<Tile16x32>(rows, cols, &trits);
            there_and_back::<I2s>(rows, cols, &trits);
            there_and_back::<Rows128>(rows, cols, &trits);
        }
    }
}

#[test]
fn the_reference_says_what_two_bit_codes_say() {
    let (rows, cols) = (7, 1000);
    let mut seeded = Seeded(1);
    let trits = seeded.trits(rows * cols);
    let values: Vec<i8> = (0..cols).map(|_| seeded.next() as i8).collect();
    let codes = packed::<Rows128>(rows, cols, &trits).unwrap();
    let mut expected = vec![0; rows];
    let weights = PackedTernary::<Rows128>::new(&codes, rows, cols).unwrap();
    reference::gemv(weights, &values, &mut expected);
    let bytes = base3(rows, cols, &trits);
    let weights = PackedBase3::new(&bytes, rows, cols).unwrap();
    let mut sums = vec![i32::MIN; rows];
    reference::gemv_base3(weights, &values, &mut sums);
    assert_eq!(sums, expected);
    let (head, tail) = sums.split_at_mut(3);
    reference::gemv_base3(weights.row_range(0..3), &values, head);
    reference::gemv_base3(weights.row_range(3..7), &values, tail);
    assert_eq!(sums, expected, "in two parts");
}

#[test]
fn shapes_and_codes_that_are_refused() {
    for (rows, cols) in [(usize::MAX, 320), (usize::MAX / 32, 1), (1, COLS_MAX + 1)] {
        let error = Err(LayoutError::Overflow { rows, cols });
        assert_eq!(Base3::bytes(rows, cols), error);
    }
    assert_eq!(Base3::bytes(2, COLS_MAX), Ok(2 * 64 * COLS_MAX.div_ceil(320)));
    for (rows, cols) in [(0, 0), (0, 100), (usize::MAX, 0)] {
        let matrix = PackedBase3::new(&[], rows, cols).unwrap();
        assert_eq!((matrix.rows(), matrix.cols()), (rows, cols));
        let from = PackedTernary::<Rows128>::new(&[], rows, cols).unwrap();
        PackedBase3::pack(from, &mut []).unwrap();
    }
    let length = |got| LayoutError::Length { expected: 128, got };
    assert_eq!(PackedBase3::new(&[0; 64], 2, 3).map(|_| ()), Err(length(64)));
    let mut codes = [0x55; 32];
    codes[7] = 0xff;
    let from = PackedTernary::<Rows128>::new(&codes, 1, 128).unwrap();
    let mut out = [0xee; 64];
    let error = LayoutError::Code { row: 0, col: 7, code: 3 };
    assert_eq!(PackedBase3::pack(from, &mut out).map(|_| ()), Err(error));
    assert_eq!(
        PackedBase3::pack(from, &mut out[1..]).map(|_| ()),
        Err(LayoutError::Length { expected: 64, got: 63 })
    );
    assert_eq!(out, [0xee; 64], "untouched");
    let said = format!("{:?}", PackedBase3::new(&out, 1, 300).unwrap());
    assert_eq!(said, "PackedBase3 { rows: 1, cols: 300, bytes: 64 }");
}
