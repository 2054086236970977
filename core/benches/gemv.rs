//! How fast each level multiplies, beside how fast this machine reads.
//!
//! `cargo bench -p tercet-core --features std`. One thread. `gemv` is given as bytes of codes a
//! second: *cold* walks over matrices that together exceed the caches, as decoding a model does,
//! *warm* stays on one matrix. `gemm` is given as products a second. Every number is the median of
//! the samples with the least and the greatest behind it; *read* is a loop that only adds up the
//! same bytes, so `gemv / read` says how much of the machine a level uses.
//!
//! Names of levels behind `--` leave out all others: `cargo bench … -- avx512vnni`.

use core::{hint::black_box, time::Duration};
use std::time::Instant;

use tercet_core::{Layout, Mma16x128, PackedTernary, Quarters, Rows128, Simd, repack};

/// A matrix of BitNet b1.58 3B, `down_proj`: 6.9 MB of codes.
const ROWS: usize = 3200;
const COLS: usize = 8640;
/// 265 MB in all: larger than the last-level cache of most machines.
const MATRICES: usize = 40;
const SAMPLES: usize = 9;

fn main() {
    // `cargo test --benches` passes no `--bench`: then show only that everything runs.
    let short = !std::env::args().any(|arg| arg == "--bench");
    let matrices = if short { 1 } else { MATRICES };
    let bytes = Rows128::bytes(ROWS, COLS).expect("a shape that fits");
    let mut codes = vec![0; bytes * matrices];
    // One checkpoint's matrix, random codes: no row is padding, so any valid byte will do.
    let stored_bytes = Quarters::bytes(ROWS, COLS).expect("a shape that fits");
    let stored: Vec<u8> = (0..stored_bytes as u64).map(valid_codes).collect();
    let stored = PackedTernary::<Quarters>::new(&stored, ROWS, COLS).expect("the right length");
    for codes in codes.chunks_exact_mut(bytes) {
        repack::<Quarters, Rows128>(stored, codes).expect("valid codes");
    }
    let matrices: Vec<_> = codes
        .chunks_exact(bytes)
        .map(|codes| PackedTernary::<Rows128>::new(codes, ROWS, COLS).expect("the right length"))
        .collect();
    let small_rows = 256; // 553 kB: inside a second-level cache
    let small = matrices[0].row_range(0..small_rows);

    println!(
        "{ROWS} x {COLS}, {} MB cold, {} kB warm",
        codes.len() >> 20,
        small.codes().len() >> 10
    );
    println!("median (least .. greatest) of {SAMPLES} samples\n");
    let mut repacked = vec![0; bytes];
    report("any", "repack HF", stored_bytes, "GB/s", || {
        repack::<Quarters, Rows128>(stored, &mut repacked).expect("valid codes");
        black_box(&repacked);
    });
    let mut tiles = vec![0; Mma16x128::bytes(ROWS, COLS).expect("a shape that fits")];
    let mut next = matrices.iter().cycle();
    report("any", "to mma16x128", bytes, "GB/s", || {
        Mma16x128::place_rows(*next.next().expect("it goes on for ever"), 0, &mut tiles);
        black_box(&tiles);
    });
    println!();
    let named: Vec<Simd> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    for simd in Simd::available().filter(|simd| named.is_empty() || named.contains(simd)) {
        let mut sums = vec![0; ROWS];
        let (values, value_sums, stride) = activations(simd, 1);
        let read = |codes: &[u8]| {
            simd.vectorize(
                #[inline(always)]
                || read(codes),
            )
        };

        report(simd.name(), "read cold", codes.len(), "GB/s", || {
            black_box(read(&codes));
        });
        report(simd.name(), "gemv cold", codes.len(), "GB/s", || {
            for matrix in &matrices {
                simd.gemv(*matrix, &values, value_sums[0], &mut sums);
            }
            black_box(&sums);
        });
        const REPEATS: usize = 100;
        report(simd.name(), "read warm", small.codes().len() * REPEATS, "GB/s", || {
            for _ in 0..REPEATS {
                black_box(read(black_box(small.codes())));
            }
        });
        report(simd.name(), "gemv warm", small.codes().len() * REPEATS, "GB/s", || {
            for _ in 0..REPEATS {
                simd.gemv(black_box(small), &values, value_sums[0], &mut sums[..small_rows]);
            }
            black_box(&sums);
        });
        assert_eq!(stride, values.len(), "one row of values");
        let batch_max = if short || simd.name() == "portable" { 32 } else { 512 };
        for batch in [2, 4, 8, 16, 32, 64, 128, 256, 512] {
            if batch > batch_max {
                continue;
            }
            let (values, value_sums, stride) = activations(simd, batch);
            let mut sums = vec![0; ROWS * batch];
            report(simd.name(), &format!("gemm {batch}"), ROWS * COLS * batch, "GMAC/s", || {
                simd.gemm(matrices[0], &values, stride, &value_sums, &mut sums);
                black_box(&sums);
            });
            if batch < 32 {
                continue;
            }
            // As a task of a prefill does it: what it takes to begin counts.
            let name = format!("gemm {batch} x64");
            report(simd.name(), &name, ROWS * COLS * batch, "GMAC/s", || {
                for (part, sums) in sums.chunks_exact_mut(64 * batch).enumerate() {
                    let part = matrices[0].row_range(64 * part..64 * part + 64);
                    simd.gemm_batch_major(part, &values, stride, &value_sums, sums);
                }
                black_box(&sums);
            });
        }
        let x: Vec<f32> = (0..COLS).map(|i| (i as f32 * 0.37) % 3.0 - 1.5).collect();
        let mut quantized = vec![0; COLS];
        report(simd.name(), "quantize_row", COLS * REPEATS, "Gvalue/s", || {
            for _ in 0..REPEATS {
                black_box(simd.quantize_row(black_box(&x), &mut quantized));
            }
        });
        println!();
    }
}

/// Four valid codes (0..=2), pseudo-random in `i`.
fn valid_codes(i: u64) -> u8 {
    let bits = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (0..4).fold(0, |byte, k| byte << 2 | ((bits >> (8 * k)) % 3) as u8)
}

/// `batch` quantised rows: values `(batch, stride)`, their sums, the stride.
fn activations(simd: Simd, batch: usize) -> (Vec<i8>, Vec<i32>, usize) {
    let stride = Rows128::padded_cols(COLS);
    let mut values = vec![0; batch * stride];
    let sums = values
        .chunks_exact_mut(stride)
        .enumerate()
        .map(|(b, values)| {
            let x: Vec<f32> = (0..COLS).map(|c| ((c * 7 + b * 13) % 255) as f32 - 127.0).collect();
            simd.quantize_row(&x, values).sum
        })
        .collect();
    (values, sums, stride)
}

/// Adds up all bytes eight at a time, in enough lanes that the adding is not what it waits for.
#[inline(always)]
fn read(bytes: &[u8]) -> u64 {
    let mut lanes = [0_u64; 64];
    for block in bytes.as_chunks::<512>().0 {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}

/// Times `work`, which handles `amount` bytes or products, and prints billions a second.
fn report(level: &str, name: &str, amount: usize, unit: &str, mut work: impl FnMut()) {
    work(); // warm-up
    let mut times: Vec<Duration> = (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    let rate = |time: Duration| amount as f64 / time.as_secs_f64() / 1e9;
    println!(
        "{level:>10}  {name:<12} {:>7.1} {unit:<8} ({:.1} .. {:.1})",
        rate(times[SAMPLES / 2]),
        rate(times[SAMPLES - 1]),
        rate(times[0]),
    );
}
