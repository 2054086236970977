//! How fast the machine reads: the limit that decoding runs into.

use core::hint::black_box;
use std::time::Instant;

use tercet_core::simd::Simd;

use crate::checkpoint::anonymous;

/// Times the buffer is read; the fastest counts, since a neighbour can only slow it down.
const PASSES: usize = 7;

/// Bytes a second that `threads` threads together read from `bytes` of memory, or `None` when there
/// is no room for the buffer.
///
/// Plain loads of the widest registers of `simd`, in order, each thread its own part; anonymous
/// memory in huge pages where the system has them. Takes about a second, mostly to touch the buffer
/// first, which should be several times as large as the last cache.
#[must_use]
pub fn read_bandwidth(threads: usize, simd: Simd, bytes: usize) -> Option<f64> {
    let part = (bytes / threads.max(1)).next_multiple_of(4096);
    let mut map = anonymous(part * threads).ok()?;
    std::thread::scope(|scope| {
        for part in map.chunks_mut(part) {
            scope.spawn(|| part.fill(1));
        }
    });
    let words: &[u64] = bytemuck::cast_slice(&map);
    let parts: Vec<_> = words.chunks(part / 8).collect();
    let seconds = (0..PASSES).map(|_| {
        let start = Instant::now();
        match parts[..] {
            [part] => read(simd, part),
            _ => std::thread::scope(|scope| {
                for part in &parts {
                    scope.spawn(|| read(simd, part));
                }
            }),
        }
        start.elapsed().as_secs_f64()
    });
    let fastest = seconds.fold(f64::INFINITY, f64::min);
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 bytes")]
    let rate = (words.len() * 8) as f64 / fastest;
    Some(rate)
}

/// Sums eight registers' worth at a time, so that loads and not additions are waited for.
fn read(simd: Simd, words: &[u64]) {
    const WORDS: usize = 64;
    let sums = simd.vectorize(
        #[inline(always)]
        || {
            let mut sums = [0_u64; WORDS];
            for words in words.as_chunks::<WORDS>().0 {
                for (sum, word) in sums.iter_mut().zip(words) {
                    *sum = sum.wrapping_add(*word);
                }
            }
            sums
        },
    );
    black_box(sums);
}
