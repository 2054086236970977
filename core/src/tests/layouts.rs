//! Worked examples: bytes that other programs wrote, and what each error says.
//!
//! The bytes were made by the packing code of the program that a layout comes from, run on these
//! small matrices: transformers 5.23.0, BitBLAS 0c51e34, microsoft/BitNet 16da220.

use std::{format, string::ToString, vec, vec::Vec};

use crate::packed::{
    COLS_MAX, I2s, Interleaved16, Layout, LayoutError, Mma16x128, PackedTernary, Quarters, Rows128,
    Tile16x32, pack,
};

fn packed<L: Layout>(rows: usize, cols: usize, trits: &[i8]) -> Vec<u8> {
    assert_eq!(trits.len(), rows * cols, "a trit an element");
    // Prefilled, so that a byte that nobody wrote shows.
    let mut out = vec![0xee; L::bytes(rows, cols).unwrap()];
    pack::<L>(rows, cols, |row, col| trits[row * cols + col], &mut out).unwrap();
    let matrix = PackedTernary::<L>::new(&out, rows, cols).unwrap();
    matrix.check_codes().unwrap();
    for (index, trit) in trits.iter().enumerate() {
        assert_eq!(matrix.trit(index / cols, index % cols), Some(*trit), "{matrix:?} at {index}");
    }
    out
}

#[test]
fn quarters_example() {
    let trits = [1, 0, -1, 0, 0, 1, 1, -1, 0, 1, -1, 1, 1, 0, 0, 0];
    assert_eq!(packed::<Quarters>(8, 2, &trits), [0x96, 0x69, 0x48, 0x61]);
}

#[test]
fn quarters_beyond_the_last_row_is_code_0_and_ignored() {
    // Five rows: P = 2, rows 0, 2, 4 share byte 0, rows 1 and 3 share byte 1.
    let mut bytes = packed::<Quarters>(5, 1, &[0, 0, 0, 0, 0]);
    assert_eq!(bytes, [0b00_01_01_01, 0b00_00_01_01]);
    bytes[1] |= 0b11_11_00_00; // no trit, but nobody's
    PackedTernary::<Quarters>::new(&bytes, 5, 1).unwrap().check_codes().unwrap();
    bytes[1] |= 0b00_00_11_00; // row 3
    let error = PackedTernary::<Quarters>::new(&bytes, 5, 1).unwrap().check_codes();
    assert_eq!(error, Err(LayoutError::Code { row: 3, col: 0, code: 3 }));
}

#[test]
fn interleaved16_example() {
    let trits = [1, -1, 0, 1, 0, 0, 0, 0, -1, -1, -1, -1, 1, 1, 1, 1];
    assert_eq!(packed::<Interleaved16>(1, 16, &trits), [0xdb, 0xd9, 0xda, 0xdb]);
}

#[test]
fn interleaved16_decodes_with_one_mask_for_four() {
    let trits: Vec<i8> = (0..16).map(|i| (i * i % 3) as i8 - 1).collect();
    let bytes = packed::<Interleaved16>(1, 16, &trits);
    let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for i in 0..4 {
        let four = (word >> (2 * i) & 0x0303_0303).to_le_bytes().map(|code| code as i8 - 2);
        assert_eq!(four, trits[4 * i..4 * i + 4], "elements {} and on", 4 * i);
    }
}

#[test]
fn tile16x32_examples() {
    for (trit, byte) in [(0, 0xaa), (-1, 0x55), (1, 0xff)] {
        assert_eq!(packed::<Tile16x32>(16, 32, &[trit; 512]), [byte; 128]);
    }
    let place = |row, col| Tile16x32::place(32, 64, row, col).byte;
    assert_eq!([place(1, 0), place(0, 16), place(8, 0)], [4, 32, 64]);
    // Tiles follow each other along a row of tiles.
    assert_eq!([place(0, 32), place(16, 0), place(16, 32)], [128, 256, 384]);
}

#[test]
fn i2s_example() {
    let mut trits = [0; 128];
    trits[0] = 1;
    trits[32] = -1;
    trits[96] = 1;
    let mut bytes = packed::<I2s>(1, 128, &trits);
    assert_eq!(bytes[0], 0x86);
    assert_eq!(bytes[1..32], [0x55; 31]);
    assert_eq!(I2s::unit(&bytes), 1.0);
    I2s::set_unit(&mut bytes, 0.75);
    assert_eq!(bytes[32..36], [0x00, 0x00, 0x40, 0x3f]);
    assert_eq!(bytes[36..], [0; 28]);
    assert_eq!(I2s::unit(&bytes), 0.75);
}

#[test]
fn i2s_blocks_straddle_rows() {
    let trits: Vec<i8> = (0..4 * 96).map(|i| (i / 7 % 3) as i8 - 1).collect();
    let bytes = packed::<I2s>(4, 96, &trits);
    assert_eq!(bytes, packed::<I2s>(3, 128, &trits), "the shape leaves no trace");
}

#[test]
fn rows128_equals_i2s_where_no_row_is_padded() {
    let trits: Vec<i8> = (0..3 * 256).map(|i| (i * i % 7 % 3) as i8 - 1).collect();
    let bytes = packed::<I2s>(3, 256, &trits);
    assert_eq!(packed::<Rows128>(3, 256, &trits), bytes[..3 * 64]);
}

#[test]
fn rows128_pads_with_the_code_of_zero() {
    let mut bytes = packed::<Rows128>(2, 1, &[1, -1]);
    let expected: Vec<u8> = [[0x95].as_slice(), &[0x55; 31], &[0x15], &[0x55; 31]].concat();
    assert_eq!(bytes, expected);
    bytes[40] = 0b01_10_01_01; // row 1, column 32 + 8: a trit, but padding
    let error = PackedTernary::<Rows128>::new(&bytes, 2, 1).unwrap().check_codes();
    assert_eq!(error, Err(LayoutError::Code { row: 1, col: 40, code: 2 }));
}

#[test]
fn mma16x128_words_are_registers_of_fragments() {
    // Register w of lane t = 4g + q holds rows g and g + 8, columns 4q.. and 16 + 4q.., as the
    // instruction's definition in the PTX manual has them (section "mma.m16n8k32").
    let trits: Vec<i8> = (0..17 * 200).map(|i| (i * i % 7 % 3) as i8 - 1).collect();
    let bytes = packed::<Mma16x128>(17, 200, &trits);
    assert_eq!(bytes.len(), 4 * 512, "two tiles of rows by two of columns");
    let trit = |row: usize, col: usize| {
        if row < 17 && col < 200 { trits[row * 200 + col] } else { 0 }
    };
    let words = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    for (index, word) in words.enumerate() {
        let (tile, lane, register) = (index / 128, index / 4 % 32, index % 4);
        let row = tile / 2 * 16 + lane / 4 + 8 * (register & 1);
        for step in 0..4 {
            let col = tile % 2 * 128 + 32 * step + 16 * (register >> 1) + 4 * (lane % 4);
            let four = (word >> (2 * step) & 0x0303_0303).to_le_bytes().map(|code| code as i8 - 1);
            let expected: [i8; 4] = core::array::from_fn(|byte| trit(row, col + byte));
            assert_eq!(four, expected, "word {index}, step {step}");
        }
    }
}

#[test]
fn mma16x128_pads_with_the_code_of_zero() {
    let mut bytes = packed::<Mma16x128>(1, 1, &[-1]);
    let mut expected = [0x55; 512];
    expected[0] = 0x54;
    assert_eq!(bytes, expected);
    bytes[4] = 0x56; // row 8 is nobody's
    PackedTernary::<Mma16x128>::new(&bytes, 1, 1).unwrap().check_codes().unwrap();
    bytes[0] = 0x64; // row 0, column 64: padding that would be multiplied
    let error = PackedTernary::<Mma16x128>::new(&bytes, 1, 1).unwrap().check_codes();
    assert_eq!(error, Err(LayoutError::Code { row: 0, col: 64, code: 2 }));
}

#[test]
#[should_panic(expected = "rows 15.. and 2 more do not fit 512 bytes of tiles")]
fn rows_behind_the_last_tile_are_a_bug_of_the_caller() {
    let rows = PackedTernary::<Rows128>::new(&[0x55; 64], 2, 128).unwrap();
    Mma16x128::place_rows(rows, 15, &mut [0x55; 512]);
}

#[test]
fn the_first_invalid_code_is_found() {
    fn find<L: Layout>(invalid: u8) {
        let (rows, cols) = (32, 128);
        let mut bytes = packed::<L>(rows, cols, &vec![1; rows * cols]);
        for (row, col) in [(31, 127), (17, 99), (17, 3)] {
            let place = L::place(rows, cols, row, col);
            bytes[place.byte] = bytes[place.byte] & !(3 << place.shift) | invalid << place.shift;
            let matrix = PackedTernary::<L>::new(&bytes, rows, cols).unwrap();
            let error = LayoutError::Code { row, col, code: invalid };
            assert_eq!(matrix.check_codes(), Err(error), "{}", L::NAME);
            assert_eq!(matrix.trit(row, col), None, "{}", L::NAME);
        }
    }
    find::<Quarters>(3);
    find::<Interleaved16>(0);
    find::<Tile16x32>(0);
    find::<I2s>(3);
    find::<Rows128>(3);
    find::<Mma16x128>(3);
}

#[test]
fn names_are_what_files_say() {
    let names = [
        Quarters::NAME,
        Interleaved16::NAME,
        Tile16x32::NAME,
        I2s::NAME,
        Rows128::NAME,
        Mma16x128::NAME,
    ];
    let expected = ["quarters", "interleaved16", "tile16x32", "i2s", "rows128", "mma16x128"];
    assert_eq!(names, expected);
}

#[test]
fn shapes_that_are_refused() {
    fn ragged<L: Layout>(rows: usize, cols: usize) {
        let error = L::bytes(rows, cols);
        assert!(matches!(error, Err(LayoutError::Ragged { .. })), "{}: {error:?}", L::NAME);
    }
    ragged::<Interleaved16>(1, 5460); // down_proj of the 1.3B "xl" model
    ragged::<Tile16x32>(8, 32);
    ragged::<Tile16x32>(16, 16);
    ragged::<I2s>(3, 64);

    fn overflow<L: Layout>() {
        for (rows, cols) in [(usize::MAX, 128), (usize::MAX / 64, 128), (16, COLS_MAX + 128)] {
            assert_eq!(
                L::bytes(rows, cols),
                Err(LayoutError::Overflow { rows, cols }),
                "{}",
                L::NAME
            );
        }
        L::bytes(16, COLS_MAX).unwrap();
    }
    overflow::<Quarters>();
    overflow::<Interleaved16>();
    overflow::<Tile16x32>();
    overflow::<I2s>();
    overflow::<Rows128>();
    overflow::<Mma16x128>();
    // Fits without padding, not with it.
    let rows = usize::MAX / 8;
    assert_eq!(Rows128::bytes(rows, 1), Err(LayoutError::Overflow { rows, cols: 1 }));
}

#[test]
fn empty_matrices_are_matrices() {
    fn empty<L: Layout>() {
        for (rows, cols) in [(0, 0), (0, 128), (usize::MAX / 16 * 16, 0)] {
            let mut bytes = vec![0xee; L::bytes(rows, cols).unwrap()];
            pack::<L>(rows, cols, |_, _| unreachable!("no element"), &mut bytes).unwrap();
            PackedTernary::<L>::new(&bytes, rows, cols).unwrap().check_codes().unwrap();
        }
    }
    empty::<Quarters>();
    empty::<Interleaved16>();
    empty::<Tile16x32>();
    empty::<I2s>();
    empty::<Rows128>();
    empty::<Mma16x128>();
}

#[test]
fn errors_say_what_is_wrong() {
    let said = |error: LayoutError| error.to_string();
    assert_eq!(
        said(Interleaved16::bytes(2, 20).unwrap_err()),
        "a 2 x 20 matrix has no form in layout `interleaved16`: `cols` must be a multiple of 16"
    );
    assert_eq!(
        said(PackedTernary::<Quarters>::new(&[0; 3], 4, 4).unwrap_err()),
        "the buffer holds 3 where the shape needs exactly 4"
    );
    assert_eq!(
        said(LayoutError::Overflow { rows: 1, cols: 5_000_000 }),
        "a 1 x 5000000 matrix is too large to address or to sum exactly"
    );
    assert_eq!(
        said(LayoutError::Code { row: 1, col: 2, code: 3 }),
        "code 3 at row 1, column 2 is not a valid trit there"
    );
    let bytes = [0x55; 32];
    let matrix = PackedTernary::<Rows128>::new(&bytes, 1, 128).unwrap();
    assert_eq!(
        format!("{matrix:?}"),
        "PackedTernary { layout: \"rows128\", rows: 1, cols: 128, bytes: 32 }"
    );
}

#[test]
#[should_panic(expected = "element (0, 128) of a 1 x 128 matrix")]
fn an_element_outside_is_a_bug_of_the_caller() {
    PackedTernary::<Rows128>::new(&[0x55; 32], 1, 128).unwrap().trit(0, 128);
}

#[test]
#[should_panic(expected = "rows 1..3 of a matrix with 2 rows")]
fn a_range_outside_is_a_bug_of_the_caller() {
    PackedTernary::<Rows128>::new(&[0x55; 64], 2, 128).unwrap().row_range(1..3);
}

#[test]
#[should_panic(expected = "2 at (0, 0) is not a trit")]
fn packing_a_two_is_a_bug_of_the_caller() {
    let _ = pack::<Quarters>(1, 1, |_, _| 2, &mut [0]);
}
