//! Packed bytes and the arithmetic on them.

use tercet_core::{
    Base3, I2s, Interleaved16, Layout, Mma16x128, PackedBase3, PackedTernary, Quarters, Rows128,
    Simd, Tile16x32, reference, repack,
};

/// Rows, columns, then code bytes, repeated as often as the shape needs.
///
/// Valid codes come through every pair of layouts unharmed; invalid ones lead nowhere.
pub fn packed_round_trip(data: &[u8]) {
    let [rows, cols, high, codes @ ..] = data else { return };
    let rows = usize::from(*rows) % 33;
    let cols = usize::from(u16::from_le_bytes([*cols, *high])) % 300;
    from_layout::<Quarters>(rows, cols, codes);
    from_layout::<Interleaved16>(rows, cols, codes);
    from_layout::<Tile16x32>(rows, cols, codes);
    from_layout::<I2s>(rows, cols, codes);
    from_layout::<Rows128>(rows, cols, codes);
    from_layout::<Mma16x128>(rows, cols, codes);
}

fn from_layout<A: Layout>(rows: usize, cols: usize, codes: &[u8]) {
    let Ok(bytes) = A::bytes(rows, cols) else { return };
    let codes: Vec<u8> = codes.iter().copied().cycle().take(bytes).collect();
    let Ok(from) = PackedTernary::<A>::new(&codes, rows, cols) else { return };
    there_and_back::<A, Quarters>(from);
    there_and_back::<A, Interleaved16>(from);
    there_and_back::<A, Tile16x32>(from);
    there_and_back::<A, I2s>(from);
    there_and_back::<A, Rows128>(from);
    there_and_back::<A, Mma16x128>(from);
}

fn there_and_back<A: Layout, B: Layout>(from: PackedTernary<'_, A>) {
    let (rows, cols) = (from.rows(), from.cols());
    let Ok(bytes) = B::bytes(rows, cols) else { return };
    let mut there = vec![0xdd; bytes];
    let repacked = repack::<A, B>(from, &mut there);
    assert_eq!(repacked, from.check_codes(), "{} to {}", A::NAME, B::NAME);
    if repacked.is_err() {
        assert!(there.iter().all(|byte| *byte == 0xdd), "an error left something behind");
        return;
    }
    let there = PackedTernary::<B>::new(&there, rows, cols).expect("`repack` took this length");
    assert_eq!(there.check_codes(), Ok(()), "{} to {}", A::NAME, B::NAME);
    for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
        assert_eq!(there.trit(row, col), from.trit(row, col), "{} to {}", A::NAME, B::NAME);
    }
    let mut back = vec![0xdd; A::bytes(rows, cols).expect("it has this shape already")];
    repack::<B, A>(there, &mut back).expect("valid codes have a way back");
    let back = PackedTernary::<A>::new(&back, rows, cols).expect("`repack` took this length");
    for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
        assert_eq!(back.trit(row, col), from.trit(row, col), "{} to {}", B::NAME, A::NAME);
    }
}

/// Rows, columns and batch, then bytes that serve as codes, as values and as reals, repeated.
///
/// Whatever stands in the buffers, every level of this CPU gives the reference's bits.
pub fn simd_equals_reference(data: &[u8]) {
    let [rows, cols, high, batch, bytes @ ..] = data else { return };
    if bytes.is_empty() {
        return;
    }
    let (rows, batch) = (usize::from(*rows) % 40, usize::from(*batch) % 40);
    let cols = usize::from(u16::from_le_bytes([*cols, *high])) % 1025;
    let padded = Rows128::padded_cols(cols);
    let codes: Vec<u8> = bytes.iter().copied().cycle().take(rows * padded / 4).collect();
    let weights = PackedTernary::<Rows128>::new(&codes, rows, cols).expect("cut to fit");

    let mut values = vec![0; batch * padded];
    let mut value_sums = vec![0; batch];
    let mut source = bytes.iter().rev().cycle();
    for b in 0..batch {
        for (value, byte) in values[b * padded..][..cols].iter_mut().zip(&mut source) {
            *value = i8::from_ne_bytes([*byte]);
            value_sums[b] += i32::from(*value);
        }
    }
    let digits = rows * Base3::row_bytes(cols);
    let digits: Vec<u8> = bytes.iter().copied().cycle().take(digits).collect();
    let digits = PackedBase3::new(&digits, rows, cols).expect("cut to fit");
    let mut one_row = vec![0; Base3::padded_cols(cols)];
    one_row[..cols.min(values.len())].copy_from_slice(&values[..cols.min(values.len())]);
    let one_sum = one_row.iter().map(|value| i32::from(*value)).sum();
    let mut unpacked = vec![0xdd; codes.len()];
    digits.unpack::<Rows128>(&mut unpacked).expect("cut to fit");
    let mut of_digits = vec![0; rows];
    reference::gemv_base3(digits, &one_row, &mut of_digits);
    let reals: Vec<f32> =
        bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();

    let mut expected = vec![0; rows * batch];
    reference::gemm(weights, &values, padded, batch, &mut expected);
    let mut expected_row = vec![0; reals.len()];
    let expected_unit = reference::quantize_row(&reals, &mut expected_row);
    for simd in Simd::available() {
        let mut sums = vec![i32::MIN; rows * batch];
        simd.gemm(weights, &values, padded, &value_sums, &mut sums);
        assert_eq!(sums, expected, "gemm at {simd}");
        if let Some(value_sum) = value_sums.first() {
            let mut sums = vec![i32::MIN; rows];
            simd.gemv(weights, &values[..padded], *value_sum, &mut sums);
            assert!(sums.iter().eq(expected.iter().step_by(batch)), "gemv at {simd}");
        }
        let mut sums = vec![i32::MIN; rows];
        simd.gemv_base3(digits, &one_row, one_sum, &mut sums);
        assert_eq!(sums, of_digits, "gemv_base3 at {simd}");
        let mut codes = vec![0xee; unpacked.len()];
        simd.unpack_base3(digits, &mut codes).expect("cut to fit");
        assert_eq!(codes, unpacked, "unpack_base3 at {simd}");
        let mut row = vec![99; reals.len()];
        let unit = simd.quantize_row(&reals, &mut row);
        assert_eq!(
            (unit.unit.to_bits(), unit.sum),
            (expected_unit.unit.to_bits(), expected_unit.sum),
            "{simd}"
        );
        assert_eq!(row, expected_row, "quantize_row at {simd}");
    }
}
