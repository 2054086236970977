//! What holds for every matrix.

use std::{vec, vec::Vec};

use bitvec::{order::Lsb0, view::BitView};
use proptest::prelude::*;

use super::Seeded;
use crate::{
    packed::{
        COLS_MAX, I2s, Interleaved16, Layout, LayoutError, Mma16x128, PackedTernary, Quarters,
        Rows128, Tile16x32, TritPlanes, pack, repack, repack_each,
    },
    reference,
};

/// Calls `$f::<A, B>(..)` for every ordered pair of layouts.
macro_rules! every_pair {
    ($f:ident $args:tt) => {
        every_pair!(@from $f $args, Quarters, Interleaved16, Tile16x32, I2s, Rows128, Mma16x128)
    };
    (@from $f:ident $args:tt, $($a:ident),*) => {
        $(every_pair!(@to $f $args, $a);)*
    };
    (@to $f:ident $args:tt, $a:ident) => {
        $f::<$a, Quarters>$args;
        $f::<$a, Interleaved16>$args;
        $f::<$a, Tile16x32>$args;
        $f::<$a, I2s>$args;
        $f::<$a, Rows128>$args;
        $f::<$a, Mma16x128>$args;
    };
}

fn packed<L: Layout>(rows: usize, cols: usize, trits: &[i8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0xee; L::bytes(rows, cols).ok()?];
    pack::<L>(rows, cols, |row, col| trits[row * cols + col], &mut bytes).unwrap();
    Some(bytes)
}

/// `A` to `B` gives what packing in `B` gives, by the definition and by any faster way.
fn there<A: Layout, B: Layout>(rows: usize, cols: usize, trits: &[i8]) {
    let (Some(a), Some(b)) = (packed::<A>(rows, cols, trits), packed::<B>(rows, cols, trits))
    else {
        return; // one of them has no form for this shape
    };
    let from = PackedTernary::<A>::new(&a, rows, cols).unwrap();
    let mut each = vec![0xdd; b.len()];
    repack_each::<A, B>(from, &mut each).unwrap();
    assert_eq!(each, b, "{} to {}, {rows} x {cols}, element by element", A::NAME, B::NAME);
    let mut fast = vec![0xdd; b.len()];
    repack::<A, B>(from, &mut fast).unwrap();
    assert_eq!(fast, b, "{} to {}, {rows} x {cols}", A::NAME, B::NAME);
}

/// An invalid code stops `repack` before it writes.
fn refused<A: Layout, B: Layout>(rows: usize, cols: usize, row: usize, col: usize) {
    let zeros = vec![0; rows * cols];
    let (Some(mut a), Some(b)) = (packed::<A>(rows, cols, &zeros), packed::<B>(rows, cols, &zeros))
    else {
        return;
    };
    let place = A::place(rows, cols, row, col);
    let code = if A::ZERO_CODE == 1 { 3 } else { 0 };
    a[place.byte] = a[place.byte] & !(3 << place.shift) | code << place.shift;
    let from = PackedTernary::<A>::new(&a, rows, cols).unwrap();
    let mut out = vec![0xdd; b.len()];
    let error = Err(LayoutError::Code { row, col, code });
    assert_eq!(repack::<A, B>(from, &mut out), error, "{} to {}", A::NAME, B::NAME);
    assert!(out.iter().all(|byte| *byte == 0xdd), "{} to {} wrote", A::NAME, B::NAME);
}

/// The planes say the same as the layout, both ways, and the reference multiplies by them.
fn planes<A: Layout>(rows: usize, cols: usize, trits: &[i8]) {
    let Some(a) = packed::<A>(rows, cols, trits) else { return };
    let weights = PackedTernary::<A>::new(&a, rows, cols).unwrap();
    let mut bits = [vec![0xff_u8; trits.len().div_ceil(8)], vec![0xff; trits.len().div_ceil(8)]];
    let [nonzero, negative] = &mut bits;
    let nonzero = &mut nonzero.view_bits_mut::<Lsb0>()[..trits.len()];
    let negative = &mut negative.view_bits_mut::<Lsb0>()[..trits.len()];
    let planes = TritPlanes::unpack(weights, nonzero, negative).unwrap();
    for (index, trit) in trits.iter().enumerate() {
        assert_eq!(planes.trit(index / cols, index % cols), *trit, "{} at {index}", A::NAME);
    }
    let checked = TritPlanes::new(planes.nonzero(), planes.negative(), rows, cols);
    assert_eq!(checked, Ok(planes), "{}", A::NAME);
    let mut back = vec![0xdd; a.len()];
    planes.pack::<A>(&mut back).unwrap();
    assert_eq!(back, a, "{}", A::NAME);

    // Σ trit·value over values all 1 is a count of bits.
    let mut sums = vec![0; rows];
    reference::gemv(weights, &vec![1; cols], &mut sums);
    for (row, sum) in sums.iter().enumerate() {
        let bits = row * cols..(row + 1) * cols;
        let nonzero = planes.nonzero()[bits.clone()].count_ones() as i32;
        let negative = planes.negative()[bits].count_ones() as i32;
        assert_eq!(*sum, nonzero - 2 * negative, "{}, row {row}", A::NAME);
    }
}

/// `new` takes the right length and no other.
fn length<A: Layout>(rows: usize, cols: usize, other: usize) {
    let Ok(expected) = A::bytes(rows, cols) else { return };
    let bytes = vec![0; expected.max(other)];
    PackedTernary::<A>::new(&bytes[..expected], rows, cols).unwrap();
    if other != expected {
        let error = LayoutError::Length { expected, got: other };
        let new = PackedTernary::<A>::new(&bytes[..other], rows, cols);
        assert_eq!(new.map(|_| ()), Err(error), "{}", A::NAME);
    }
}

/// Distinct elements have distinct places, all inside.
fn places<A: Layout>(rows: usize, cols: usize) {
    let Ok(bytes) = A::bytes(rows, cols) else { return };
    let mut taken = vec![0_u8; bytes];
    for row in 0..rows {
        for col in 0..cols {
            let place = A::place(rows, cols, row, col);
            assert!(matches!(place.shift, 0 | 2 | 4 | 6), "{}: {place:?}", A::NAME);
            assert_eq!(taken[place.byte] >> place.shift & 3, 0, "{}: {place:?}", A::NAME);
            taken[place.byte] |= 3 << place.shift;
        }
    }
}

/// Any shape, with those that all layouts have among them.
fn shapes() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![
        (1_usize..40, 1_usize..300),
        (1_usize..4, 1_usize..10).prop_map(|(rows, cols)| (16 * rows, 32 * cols)),
        (1_usize..4, 1_usize..4).prop_map(|(rows, cols)| (16 * rows, 128 * cols)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_layout_leads_to_every_other((rows, cols) in shapes(), seed: u64) {
        let trits = Seeded(seed).trits(rows * cols);
        every_pair!(there(rows, cols, &trits));
    }

    #[test]
    fn an_invalid_code_leads_nowhere((rows, cols) in shapes(), at: prop::sample::Index) {
        let at = at.index(rows * cols);
        every_pair!(refused(rows, cols, at / cols, at % cols));
    }

    #[test]
    fn planes_are_a_second_witness((rows, cols) in shapes(), seed: u64) {
        let trits = Seeded(seed).trits(rows * cols);
        planes::<Quarters>(rows, cols, &trits);
        planes::<Interleaved16>(rows, cols, &trits);
        planes::<Tile16x32>(rows, cols, &trits);
        planes::<I2s>(rows, cols, &trits);
        planes::<Rows128>(rows, cols, &trits);
        planes::<Mma16x128>(rows, cols, &trits);
    }

    #[test]
    fn only_the_right_length_is_accepted((rows, cols) in shapes(), other in 0_usize..4000) {
        length::<Quarters>(rows, cols, other);
        length::<Interleaved16>(rows, cols, other);
        length::<Tile16x32>(rows, cols, other);
        length::<I2s>(rows, cols, other);
        length::<Rows128>(rows, cols, other);
        length::<Mma16x128>(rows, cols, other);
    }

    #[test]
    fn no_two_elements_share_a_place((rows, cols) in shapes()) {
        places::<Quarters>(rows, cols);
        places::<Interleaved16>(rows, cols);
        places::<Tile16x32>(rows, cols);
        places::<I2s>(rows, cols);
        places::<Rows128>(rows, cols);
        places::<Mma16x128>(rows, cols);
    }

    #[test]
    fn rows_come_together_in_one_matrix(
        (rows, cols) in (1_usize..60, 1_usize..300),
        (cut, more) in (0_usize..60, 0_usize..20),
        seed: u64,
    ) {
        let cut = cut.min(rows);
        let trits = Seeded(seed).trits(rows * cols);
        let whole = packed::<Rows128>(rows, cols, &trits).unwrap();
        let whole = PackedTernary::<Rows128>::new(&whole, rows, cols).unwrap();
        let mut padded = trits.clone();
        padded.resize((rows + more) * cols, 0);
        let expected = packed::<Mma16x128>(rows + more, cols, &padded).unwrap();
        // Rows that nobody places hold the code of zero before, and so they do after.
        let mut out = vec![0x55; expected.len()];
        Mma16x128::place_rows(whole.row_range(cut..rows), cut, &mut out);
        Mma16x128::place_rows(whole.row_range(0..cut), 0, &mut out);
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn lengths_do_not_wrap(rows: usize, cols in 0..2 * COLS_MAX) {
        let all = [
            Quarters::bytes(rows, cols),
            Interleaved16::bytes(rows, cols),
            Tile16x32::bytes(rows, cols),
            I2s::bytes(rows, cols),
            Rows128::bytes(rows, cols),
            Mma16x128::bytes(rows, cols),
        ];
        for bytes in all.into_iter().flatten() {
            prop_assert!(cols <= COLS_MAX);
            prop_assert!(bytes as u128 * 4 >= rows as u128 * cols as u128);
        }
    }
}

#[test]
fn planes_refuse_a_negative_zero_and_other_lengths() {
    let nonzero = [0b011_u8];
    let negative = [0b101_u8];
    let (nonzero, negative) = (nonzero.view_bits::<Lsb0>(), negative.view_bits::<Lsb0>());
    let planes = TritPlanes::new(&nonzero[..3], &negative[..3], 1, 3);
    assert_eq!(planes, Err(LayoutError::Code { row: 0, col: 2, code: 2 }));
    let planes = TritPlanes::new(&nonzero[..3], &negative[..2], 1, 3);
    assert_eq!(planes, Err(LayoutError::Length { expected: 3, got: 2 }));
}
