//! Whether four fifths of the bytes are worth more work for each: `base3` beside `rows128`.
//!
//! `cargo bench -p tercet-core --features std --bench base3`. Products with one row of values, as
//! decoding does, over matrices that together exceed the caches by far; one thread, and two that
//! share the rows of every matrix. Both formats, a plain read of the two-bit codes and unpacking
//! (128 rows at a time, as for products with several rows of values) take turns within each sample,
//! so that a noisy neighbour meets all of them. Given as billions of weights a second: the median
//! of the samples with the least and the greatest behind it.

use core::{hint::black_box, ops::Range, time::Duration};
use std::{thread, time::Instant};

use tercet_core::{Base3, Layout, PackedBase3, PackedTernary, Quarters, Rows128, Simd, repack};

/// BitNet b1.58 3B's attention and `down_proj`; 2B-4T's `down_proj`.
const SHAPES: [(usize, usize); 3] = [(3200, 3200), (3200, 8640), (2560, 6912)];
/// Two-bit codes of all matrices of a shape.
const COLD_BYTES: usize = 512 << 20;
const SAMPLES: usize = 9;

/// Matrices of one shape in both formats; the values that multiply them.
struct Work {
    rows: usize,
    cols: usize,
    codes: Vec<u8>,
    bytes: Vec<u8>,
    values: Vec<i8>,
    value_sum: i32,
    simd: Simd,
}

impl Work {
    fn new(simd: Simd, rows: usize, cols: usize, matrices: usize) -> Self {
        // One matrix of random codes in the layout of a checkpoint, which pads nothing; copied,
        // since only its size matters.
        let stored = Quarters::bytes(rows, cols).expect("a shape that fits");
        let stored: Vec<u8> = (0..stored as u64).map(valid_codes).collect();
        let stored = PackedTernary::<Quarters>::new(&stored, rows, cols).expect("that length");
        let mut codes = vec![0; rows * Rows128::row_bytes(cols)];
        repack::<Quarters, Rows128>(stored, &mut codes).expect("valid codes");
        let from = PackedTernary::<Rows128>::new(&codes, rows, cols).expect("the right length");
        let mut bytes = vec![0; rows * Base3::row_bytes(cols)];
        let start = Instant::now();
        PackedBase3::pack(from, &mut bytes).expect("valid codes");
        let weights = (rows * cols) as f64 / start.elapsed().as_secs_f64() / 1e9;
        println!("{rows} x {cols}: rows128 to base3 at {weights:.2} Gweight/s");
        let (codes, bytes) = (codes.repeat(matrices), bytes.repeat(matrices));
        let x: Vec<f32> = (0..cols).map(|c| (c * 7 % 255) as f32 - 127.0).collect();
        let mut values = vec![0; Base3::padded_cols(cols).max(Rows128::padded_cols(cols))];
        let value_sum = simd.quantize_row(&x, &mut values).sum;
        Self { rows, cols, codes, bytes, values, value_sum, simd }
    }

    fn two_bits(&self, rows: Range<usize>, sums: &mut [i32]) {
        for codes in self.codes.chunks_exact(self.rows * Rows128::row_bytes(self.cols)) {
            let matrix = PackedTernary::<Rows128>::new(codes, self.rows, self.cols);
            let part = matrix.expect("the right length").row_range(rows.clone());
            self.simd.gemv(part, &self.values, self.value_sum, sums);
        }
    }

    fn base3(&self, rows: Range<usize>, sums: &mut [i32]) {
        for bytes in self.bytes.chunks_exact(self.rows * Base3::row_bytes(self.cols)) {
            let matrix = PackedBase3::new(bytes, self.rows, self.cols);
            let part = matrix.expect("the right length").row_range(rows.clone());
            self.simd.gemv_base3(part, &self.values, self.value_sum, sums);
        }
    }

    fn unpack(&self, rows: Range<usize>, sums: &mut [i32]) {
        const ROWS: usize = 128;
        let row_bytes = Rows128::row_bytes(self.cols);
        let mut codes = vec![0; ROWS * row_bytes];
        for bytes in self.bytes.chunks_exact(self.rows * Base3::row_bytes(self.cols)) {
            let matrix = PackedBase3::new(bytes, self.rows, self.cols).expect("the right length");
            for start in rows.clone().step_by(ROWS) {
                let part = matrix.row_range(start..rows.end.min(start + ROWS));
                let codes = &mut codes[..part.rows() * row_bytes];
                black_box(self.simd.unpack_base3(part, codes).expect("the right length"));
            }
        }
        sums[0] = i32::from(codes[0]);
    }

    fn read(&self, rows: Range<usize>, sums: &mut [i32]) {
        let row_bytes = Rows128::row_bytes(self.cols);
        let mut sum = 0_u64;
        for codes in self.codes.chunks_exact(self.rows * row_bytes) {
            let codes = &codes[rows.start * row_bytes..rows.end * row_bytes];
            sum = sum.wrapping_add(self.simd.vectorize(
                #[inline(always)]
                || read(codes),
            ));
        }
        sums[0] = sum as i32;
    }

    /// How long `work` takes when `threads` threads share the rows.
    fn time(&self, threads: usize, work: fn(&Self, Range<usize>, &mut [i32])) -> Duration {
        let mut sums = vec![0; self.rows];
        let part = self.rows.div_ceil(threads);
        let start = Instant::now();
        thread::scope(|scope| {
            for (index, sums) in sums.chunks_mut(part).enumerate() {
                let rows = index * part..index * part + sums.len();
                scope.spawn(move || work(self, rows, sums));
            }
        });
        let time = start.elapsed();
        black_box(&sums);
        time
    }
}

fn main() {
    // `cargo test --benches` passes no `--bench`: then show only that everything runs.
    let short = !std::env::args().any(|arg| arg == "--bench");
    let (cold_bytes, samples) = if short { (0, 1) } else { (COLD_BYTES, SAMPLES) };
    let named: Vec<Simd> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let best = if named.is_empty() { vec![Simd::detect()] } else { named };
    println!("median (least .. greatest) of {samples} samples, Gweight/s\n");
    for simd in best {
        for (rows, cols) in SHAPES {
            let matrices = (cold_bytes / (rows * Rows128::row_bytes(cols))).max(1);
            let work = Work::new(simd, rows, cols, matrices);
            println!(
                "{simd}: {} MB of two-bit codes, {} MB of base 3",
                work.codes.len() >> 20,
                work.bytes.len() >> 20,
            );
            for threads in [1, 2] {
                compare(&work, threads, samples, matrices * rows * cols);
            }
            println!();
        }
    }
}

fn compare(work: &Work, threads: usize, samples: usize, weights: usize) {
    let ways = [
        ("read 2-bit", Work::read as fn(&Work, Range<usize>, &mut [i32]), work.codes.len()),
        ("rows128", Work::two_bits, work.codes.len()),
        ("base3", Work::base3, work.bytes.len()),
        ("unpack", Work::unpack, work.bytes.len()),
    ];
    let mut times = ways.map(|_| Vec::new());
    for sample in 0..=samples {
        for ((_, way, _), times) in ways.iter().zip(&mut times) {
            let time = work.time(threads, *way);
            if sample > 0 {
                times.push(time); // the first is the warm-up
            }
        }
    }
    for ((name, _, bytes), mut times) in ways.into_iter().zip(times) {
        times.sort();
        let rate = |amount: usize, time: Duration| amount as f64 / time.as_secs_f64() / 1e9;
        let median = times[times.len() / 2];
        println!(
            "  {threads} threads  {name:<10} {:>7.1}  ({:.1} .. {:.1})  {:>6.1} GB/s",
            rate(weights, median),
            rate(weights, times[times.len() - 1]),
            rate(weights, times[0]),
            rate(bytes, median),
        );
    }
}

/// Four valid codes (0..=2), pseudo-random in `i`.
fn valid_codes(i: u64) -> u8 {
    let bits = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (0..4).fold(0, |byte, k| byte << 2 | ((bits >> (8 * k)) % 3) as u8)
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
