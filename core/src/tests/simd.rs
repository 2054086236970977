//! Every level against the reference, to the bit.

use std::{borrow::ToOwned, env, eprintln, format, string::String, vec, vec::Vec};

use super::Seeded;
#[cfg(target_arch = "x86_64")]
use crate::simd::gemm_on_model;
use crate::{
    packed::{Base3, Layout, LayoutError, PackedBase3, PackedTernary, Rows128, pack},
    reference,
    simd::Simd,
};

/// A level by its name, or a loud skip: a failure if `TERCET_REQUIRE` names the level.
fn level(name: &str) -> Option<Simd> {
    let level = Simd::by_name(name);
    if let Err(error) = level {
        let required = env::var("TERCET_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|one| one.trim() == name), "required: {error}");
        eprintln!("SKIPPED: {error}");
    }
    level.ok()
}

/// Values of `batch` rows at a stride beyond the padding, zero behind `cols`, and their sums.
struct Values {
    values: Vec<i8>,
    stride: usize,
    sums: Vec<i32>,
}

impl Values {
    fn new(batch: usize, cols: usize, mut value: impl FnMut(usize, usize) -> i8) -> Self {
        let padded = Rows128::padded_cols(cols);
        // Nothing may be read behind the padding: what stands there would show.
        let stride = padded + 3;
        let mut values = vec![99; batch * stride];
        let mut sums = vec![0; batch];
        for b in 0..batch {
            values[b * stride..][..padded].fill(0);
            for col in 0..cols {
                let value = value(b, col);
                values[b * stride + col] = value;
                sums[b] += i32::from(value);
            }
        }
        Self { values, stride, sums }
    }
}

/// `(batch, rows)` of `(rows, batch)`.
fn transposed(sums: &[i32], batch: usize) -> Vec<i32> {
    (0..batch).flat_map(|b| sums.iter().skip(b).step_by(batch).copied()).collect()
}

/// Compares `gemm` and, row of values by row of values, `gemv` with the reference.
fn compare(simd: Simd, weights: PackedTernary<'_, Rows128>, values: &Values) {
    let (rows, batch) = (weights.rows(), values.sums.len());
    let at = format!("{simd}, {weights:?}, batch {batch}");
    let mut expected = vec![0; rows * batch];
    reference::gemm(weights, &values.values, values.stride, batch, &mut expected);
    // Prefilled, so that an element that nobody wrote shows.
    let mut sums = vec![i32::MIN; rows * batch];
    simd.gemm(weights, &values.values, values.stride, &values.sums, &mut sums);
    assert_eq!(sums, expected, "gemm, {at}");
    let mut sums = vec![i32::MIN; rows * batch];
    simd.gemm_batch_major(weights, &values.values, values.stride, &values.sums, &mut sums);
    assert_eq!(sums, transposed(&expected, batch), "gemm_batch_major, {at}");
    for b in 0..batch {
        let mut sums = vec![i32::MIN; rows];
        let row = &values.values[b * values.stride..][..values.stride];
        simd.gemv(weights, row, values.sums[b], &mut sums);
        let expected: Vec<i32> = expected.iter().skip(b).step_by(batch).copied().collect();
        assert_eq!(sums, expected, "gemv of row {b}, {at}");
    }
}

fn random_codes(seed: u64, rows: usize, cols: usize) -> Vec<u8> {
    Seeded(seed).bytes(Rows128::bytes(rows, cols).unwrap())
}

fn constant_codes(rows: usize, cols: usize, trit: i8) -> Vec<u8> {
    let mut codes = vec![0; Rows128::bytes(rows, cols).unwrap()];
    pack::<Rows128>(rows, cols, |_, _| trit, &mut codes).unwrap();
    codes
}

fn view(codes: &[u8], rows: usize, cols: usize) -> PackedTernary<'_, Rows128> {
    PackedTernary::new(codes, rows, cols).unwrap()
}

fn every_col_count(simd: Simd) {
    for cols in 0..=300 {
        // All 81 pairs of rows 1..=9 and batch 1..=9 come by as `cols` runs.
        let (rows, batch) = (1 + cols % 9, 1 + cols / 9 % 9);
        let codes = random_codes(cols as u64, rows, cols);
        let mut seeded = Seeded(!(cols as u64));
        let values = Values::new(batch, cols, |_, _| seeded.next() as i8);
        compare(simd, view(&codes, rows, cols), &values);
    }
}

fn every_tile_shape(simd: Simd) {
    for rows in 0..=9 {
        for batch in (0..=9).chain([33]) {
            for cols in [1, 127, 128, 129, 257] {
                let codes = random_codes(rows as u64, rows, cols);
                let mut seeded = Seeded(batch as u64);
                let values = Values::new(batch, cols, |_, _| seeded.next() as i8);
                compare(simd, view(&codes, rows, cols), &values);
            }
        }
    }
}

/// Shapes around the sides of tiles, of pairs of tiles, of what is unpacked at a time (512
/// columns) and of what stays in a cache (256 rows of values): `(rows, batch, cols)`.
fn shapes_around_tiles() -> impl Iterator<Item = (usize, usize, usize)> {
    let cols = [64, 129, 512, 1, 513, 300, 2200, 1025].into_iter().cycle();
    [1, 15, 16, 17, 31, 32, 33, 70]
        .into_iter()
        .flat_map(|rows| [16, 17, 31, 32, 33, 47, 64, 100, 257, 300].map(|batch| (rows, batch)))
        .zip(cols)
        .map(|((rows, batch), cols)| (rows, batch, cols))
        .chain([(3, 70, 0), (0, 20, 100), (40, 40, 5460)])
}

fn around_tiles(simd: Simd) {
    for (rows, batch, cols) in shapes_around_tiles() {
        let codes = random_codes(rows as u64, rows, cols);
        let mut seeded = Seeded(batch as u64);
        let values = Values::new(batch, cols, |_, _| seeded.next() as i8);
        let weights = view(&codes, rows, cols);
        let mut expected = vec![0; rows * batch];
        reference::gemm(weights, &values.values, values.stride, batch, &mut expected);
        let mut sums = vec![i32::MIN; rows * batch];
        simd.gemm(weights, &values.values, values.stride, &values.sums, &mut sums);
        assert_eq!(sums, expected, "{simd}, {weights:?}, batch {batch}");
        let mut sums = vec![i32::MIN; rows * batch];
        simd.gemm_batch_major(weights, &values.values, values.stride, &values.sums, &mut sums);
        assert_eq!(sums, transposed(&expected, batch), "{simd}, {weights:?}, batch {batch}");
    }
}

/// The tile level's arithmetic of indices, where there are no tiles.
#[cfg(target_arch = "x86_64")]
#[test]
fn tile_level_on_a_model_of_its_tiles() {
    let Some(Simd::Avx512Vnni(vectors)) = level("avx512vnni") else { return };
    for (rows, batch, cols) in shapes_around_tiles() {
        let codes = random_codes(rows as u64, rows, cols);
        let mut seeded = Seeded(batch as u64);
        let values = Values::new(batch, cols, |_, _| seeded.next() as i8);
        let weights = view(&codes, rows, cols);
        let mut expected = vec![0; rows * batch];
        reference::gemm(weights, &values.values, values.stride, batch, &mut expected);
        let mut sums = vec![i32::MIN; rows * batch];
        let Values { values, stride, sums: value_sums } = &values;
        gemm_on_model(vectors, weights, values, *stride, value_sums, &mut sums, false);
        assert_eq!(sums, expected, "{weights:?}, batch {batch}");
        sums.fill(i32::MIN);
        gemm_on_model(vectors, weights, values, *stride, value_sums, &mut sums, true);
        assert_eq!(sums, transposed(&expected, batch), "{weights:?}, batch {batch}");
    }
}

fn model_widths(simd: Simd) {
    for cols in [3200, 8640, 5460] {
        for (rows, batch) in [(9, 1), (5, 3), (6, 33)] {
            let codes = random_codes(cols as u64, rows, cols);
            let mut seeded = Seeded(batch as u64);
            let values = Values::new(batch, cols, |_, _| seeded.next() as i8);
            compare(simd, view(&codes, rows, cols), &values);
        }
    }
}

fn many_row_chunks(simd: Simd) {
    // Rows enough for more than one cache-sized chunk, and a ragged end.
    let (rows, cols) = (2 * (256 << 10) / 32 + 13, 100);
    let codes = random_codes(3, rows, cols);
    let mut seeded = Seeded(4);
    compare(simd, view(&codes, rows, cols), &Values::new(5, cols, |_, _| seeded.next() as i8));
}

fn extreme_values(simd: Simd) {
    for value in [-128, -127, 127] {
        for cols in [128, 1280, 1281, 2688, 2689, 8640] {
            let values = Values::new(5, cols, |_, _| value);
            for trit in [-1, 0, 1] {
                compare(simd, view(&constant_codes(5, cols, trit), 5, cols), &values);
            }
            // Code 3 everywhere: no trit, yet every bound in the kernels allows for it.
            let codes = vec![0xff; Rows128::bytes(5, cols).unwrap()];
            compare(simd, view(&codes, 5, cols), &values);
        }
    }
}

fn one_hot(simd: Simd) {
    // Distinct trits and values at one column, zero elsewhere: finds any two columns exchanged.
    let cols = 300;
    let trits = Seeded(5).trits(2 * cols);
    let mut codes = vec![0; Rows128::bytes(2, cols).unwrap()];
    pack::<Rows128>(2, cols, |row, col| trits[row * cols + col], &mut codes).unwrap();
    for hot in 0..cols {
        let values = Values::new(2, cols, |b, col| if col == hot { 100 + b as i8 } else { 0 });
        compare(simd, view(&codes, 2, cols), &values);
    }
}

/// Compares `gemv_base3` with the reference on any bytes, at every width around blocks.
fn base3_product(simd: Simd) {
    for cols in (0..=340).chain([639, 640, 641, 3200, 5460, 6912, 8640]) {
        let rows = 1 + cols % 9;
        let mut seeded = Seeded(cols as u64);
        let bytes = seeded.bytes(Base3::bytes(rows, cols).unwrap());
        let weights = PackedBase3::new(&bytes, rows, cols).unwrap();
        compare_base3(simd, weights, |_| seeded.next() as i8);
        for value in [-128, 127] {
            compare_base3(simd, weights, |_| value);
        }
    }
    for byte in 0..=255 {
        let bytes = [byte; 64];
        let weights = PackedBase3::new(&bytes, 1, 320).unwrap();
        compare_base3(simd, weights, |col| (col as i32 % 256 - 128) as i8);
    }
    // Beyond what the lanes of one level hold at a time; the largest digits and values.
    let bytes = vec![0xff; Base3::bytes(5, 1_000_000).unwrap()];
    let weights = PackedBase3::new(&bytes, 5, 1_000_000).unwrap();
    for value in [-128, 127] {
        compare_base3(simd, weights, |_| value);
    }
}

/// Compares `unpack_base3` with [`PackedBase3::unpack`] on any bytes, at every width around blocks
/// of both layouts; whole, and by ranges of rows.
fn base3_codes(simd: Simd) {
    for cols in (0..=700).chain([959, 960, 961, 1279, 1280, 1281, 3200, 5460, 6912, 8640]) {
        let rows = 1 + cols % 5;
        let bytes = Seeded(cols as u64).bytes(Base3::bytes(rows, cols).unwrap());
        let weights = PackedBase3::new(&bytes, rows, cols).unwrap();
        let mut expected = vec![0xdd; Rows128::bytes(rows, cols).unwrap()];
        weights.unpack::<Rows128>(&mut expected).unwrap();
        // Prefilled, so that a byte that nobody wrote shows.
        let mut codes = vec![0xee; expected.len()];
        let view = simd.unpack_base3(weights, &mut codes).unwrap();
        assert_eq!((view.rows(), view.cols(), view.check_codes()), (rows, cols, Ok(())));
        assert_eq!(codes, expected, "{simd}, {weights:?}");
        for range in [0..0, 0..1, 0..rows / 2, rows / 2..rows, rows..rows] {
            let part = weights.row_range(range.clone());
            let row_bytes = Rows128::row_bytes(cols);
            let mut codes = vec![0xee; range.len() * row_bytes];
            simd.unpack_base3(part, &mut codes).unwrap();
            let expected = &expected[range.start * row_bytes..range.end * row_bytes];
            assert_eq!(codes, expected, "{simd}, rows {range:?} of {weights:?}");
        }
    }
    for byte in 0..=255 {
        let bytes = [byte; 128];
        let weights = PackedBase3::new(&bytes, 1, 640).unwrap();
        let mut expected = [0; 160];
        weights.unpack::<Rows128>(&mut expected).unwrap();
        let mut codes = [0xee; 160];
        simd.unpack_base3(weights, &mut codes).unwrap();
        assert_eq!(codes, expected, "{simd}, byte {byte}");
    }
    let weights = PackedBase3::new(&[0; 64], 1, 320).unwrap();
    for got in [0, 95, 97] {
        let error = simd.unpack_base3(weights, &mut vec![0xee; got]).unwrap_err();
        assert_eq!(error, LayoutError::Length { expected: 96, got });
    }
}

fn compare_base3(simd: Simd, weights: PackedBase3<'_>, value: impl FnMut(usize) -> i8) {
    let (rows, cols) = (weights.rows(), weights.cols());
    let mut values = vec![99; Base3::padded_cols(cols) + 3];
    values[..Base3::padded_cols(cols)].fill(0);
    values.iter_mut().zip((0..cols).map(value)).for_each(|(to, value)| *to = value);
    let value_sum = values[..cols].iter().map(|value| i32::from(*value)).sum();
    let mut expected = vec![0; rows];
    reference::gemv_base3(weights, &values, &mut expected);
    let mut sums = vec![i32::MIN; rows];
    simd.gemv_base3(weights, &values, value_sum, &mut sums);
    assert_eq!(sums, expected, "{simd}, {weights:?}");
}

fn row_ranges(simd: Simd) {
    let (rows, cols) = (9, 200);
    let codes = random_codes(6, rows, cols);
    let weights = view(&codes, rows, cols);
    let mut seeded = Seeded(7);
    let values = Values::new(2, cols, |_, _| seeded.next() as i8);
    let mut whole = vec![0; rows * 2];
    simd.gemm(weights, &values.values, values.stride, &values.sums, &mut whole);
    for cut in 0..=rows {
        let mut parts = vec![i32::MIN; rows * 2];
        let (head, tail) = parts.split_at_mut(cut * 2);
        for (range, sums) in [(0..cut, head), (cut..rows, tail)] {
            let part = weights.row_range(range);
            simd.gemm(part, &values.values, values.stride, &values.sums, sums);
        }
        assert_eq!(parts, whole, "{simd}, cut at {cut}");
    }
}

fn quantization(simd: Simd) {
    let mut seeded = Seeded(8);
    for len in (0..=300).chain([3200, 8640]) {
        // Any bits: subnormals, infinities and NaN come by; then tame ones, with halves among them.
        let wild: Vec<f32> = (0..len).map(|_| f32::from_bits(seeded.next() as u32)).collect();
        let tame: Vec<f32> = (0..len).map(|_| (seeded.next() % 509) as f32 / 2.0 - 127.0).collect();
        for x in [wild, tame] {
            let mut expected = vec![77; len + 5];
            let mut values = vec![99; len + 5];
            let peak = reference::peak(&x);
            assert_eq!(simd.peak(&x).to_bits(), peak.to_bits(), "{simd}, {x:?}");
            let of_reference = reference::quantize_row(&x, &mut expected);
            let of_level = simd.quantize_row(&x, &mut values);
            assert_eq!(values, expected, "{simd}, {x:?}");
            assert_eq!(of_level, of_reference, "{simd}, {x:?}");
            for peak in [127.0, 1.0, 1e-40, f32::INFINITY] {
                let of_reference = reference::quantize_row_at(&x, peak, &mut expected);
                let of_level = simd.quantize_row_at(&x, peak, &mut values);
                assert_eq!(values, expected, "{simd} at {peak}, {x:?}");
                assert_eq!(of_level, of_reference, "{simd} at {peak}, {x:?}");
            }
        }
    }
}

fn vectorized_closure(simd: Simd) {
    let x: Vec<f32> = (0..100).map(|i| i as f32).collect();
    let mut y = vec![0.0; 100];
    let sum = simd.vectorize(
        #[inline(always)]
        || {
            y.iter_mut().zip(&x).for_each(|(y, x)| *y = 2.0 * x);
            y.iter().sum::<f32>()
        },
    );
    assert_eq!(sum, 9900.0, "{simd}");
    assert_eq!(y[99], 198.0, "{simd}");
}

/// Stamps every test into a module for the level.
macro_rules! level_tests {
    ($level:ident: $($test:ident)*) => {
        mod $level {
            $(
                #[test]
                fn $test() {
                    if let Some(simd) = super::level(stringify!($level)) {
                        super::$test(simd);
                    }
                }
            )*
        }
    };
    ($($level:ident)*) => {
        $(level_tests!($level: every_col_count every_tile_shape around_tiles
            model_widths many_row_chunks extreme_values one_hot base3_product base3_codes
            row_ranges
            quantization vectorized_closure);)*
    };
}

level_tests!(portable avx2 avx512vnni amxint8);

#[test]
fn levels_have_names() {
    let names: Vec<String> = Simd::available().map(|simd| simd.name().to_owned()).collect();
    eprintln!("levels of this CPU: {names:?}");
    assert_eq!(names[0], "portable", "the first level is everywhere");
    assert_eq!(Simd::detect().name(), names[names.len() - 1], "the best is the last");
    for simd in Simd::available() {
        assert_eq!(format!("{simd}").parse(), Ok(simd), "the name leads back");
    }
    let unknown = Simd::by_name("sse9").unwrap_err();
    assert_eq!(
        format!("{unknown}"),
        "no such instruction set; known are `portable` `avx2` `avx512vnni` `amxint8`"
    );
}
