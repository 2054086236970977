//! 512-bit vectors, four products of bytes summed into a 32-bit lane by one instruction.

use core::{
    arch::{asm, x86_64::*},
    ops::Range,
};

use crate::activation;

use super::{
    base3::{self, Base3Codes, Base3Product, CodeBlocks, DigitBlock, DigitBlocks, ValueGroup},
    product::{CodeBlock, Product, ValueBlock},
};

/// Proof that AVX-512 F, BW, VL, DQ and VNNI exist, and with them AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Avx512Vnni(());

impl Avx512Vnni {
    /// A token, if the CPU has the instructions (feature `std`) or the crate was compiled for them.
    pub fn detect() -> Option<Self> {
        #[cfg(any(test, feature = "std"))]
        let found = std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512vl")
            && std::is_x86_feature_detected!("avx512dq")
            && std::is_x86_feature_detected!("avx512vnni");
        #[cfg(not(any(test, feature = "std")))]
        let found = cfg!(all(
            target_feature = "avx512f",
            target_feature = "avx512bw",
            target_feature = "avx512vl",
            target_feature = "avx512dq",
            target_feature = "avx512vnni"
        ));
        (found && super::Avx2::detect().is_some()).then_some(Self(()))
    }

    /// A token on the caller's word.
    ///
    /// # Safety
    ///
    /// - The CPU has AVX-512 F, BW, VL, DQ and VNNI, AVX2, FMA and F16C, and the operating system
    ///   saves the 512-bit and mask registers.
    pub const unsafe fn assume() -> Self {
        Self(())
    }

    pub(super) fn name(self) -> &'static str {
        "avx512vnni"
    }

    pub(super) fn peak(self, x: &[f32]) -> f32 {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { peak(x) }
    }

    pub(super) fn quantize(self, x: &[f32], factor: f32, values: &mut [i8]) -> i32 {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { quantize(x, factor, values) }
    }

    pub(super) fn gemv(self, product: Product<'_>) {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { gemv(product) }
    }

    pub(super) fn gemm(self, product: Product<'_>) {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { gemm(product) }
    }

    pub(super) fn gemv_base3(self, product: Base3Product<'_>) {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { gemv_base3(product) }
    }

    pub(super) fn unpack_base3(self, codes: Base3Codes<'_>) {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { unpack_base3(codes) }
    }

    #[inline]
    pub(super) fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { vectorize(f) }
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn peak(x: &[f32]) -> f32 {
    activation::peak(x)
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn quantize(x: &[f32], factor: f32, values: &mut [i8]) -> i32 {
    activation::quantize(x, factor, values)
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn gemv(mut product: Product<'_>) {
    let rows = 0..product.rows();
    band::<1>(&mut product, rows, 0);
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn gemm(mut product: Product<'_>) {
    for rows in product.row_chunks() {
        let mut b = 0;
        while b < product.batch() {
            b += match product.batch() - b {
                1 => band::<1>(&mut product, rows.clone(), b),
                2 => band::<2>(&mut product, rows.clone(), b),
                3 => band::<3>(&mut product, rows.clone(), b),
                _ => band::<4>(&mut product, rows.clone(), b),
            };
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn gemv_base3(mut product: Base3Product<'_>) {
    let rows = product.rows();
    let mut row = 0;
    while row + 4 <= rows {
        let dots = tile_base3(product.digits::<4>(row), product.values());
        for (r, dot) in dots.into_iter().enumerate() {
            product.store(row + r, dot);
        }
        row += 4;
    }
    for row in row..rows {
        let [dot] = tile_base3(product.digits::<1>(row), product.values());
        product.store(row, dot);
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn unpack_base3(codes: Base3Codes<'_>) {
    // Averages with a zero that the compiler knows become three instructions each.
    let mut zero = _mm512_setzero_si512();
    // SAFETY: there is nothing to execute.
    unsafe {
        asm!("/* {} */", inout(zmm_reg) zero, options(pure, nomem, nostack, preserves_flags));
    }
    codes.write(|blocks, codes| unpack(blocks, codes, zero));
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn vectorize<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// `rows` of the product with `B` rows of values from `b` on; returns `B`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn band<const B: usize>(product: &mut Product<'_>, rows: Range<usize>, b: usize) -> usize {
    let values = product.values::<B>(b);
    let mut row = rows.start;
    while row + 4 <= rows.end {
        for (r, dots) in tile(product.codes::<4>(row), values).into_iter().enumerate() {
            product.store(row + r, b, dots);
        }
        row += 4;
    }
    for row in row..rows.end {
        let [dots] = tile(product.codes::<1>(row), values);
        product.store(row, b, dots);
    }
    B
}

/// `Σ code · value` of `R` rows of codes and `B` rows of values, equally many blocks each.
///
/// While it reads these rows it asks for rows to come: left to the hardware's guess, four streams
/// of short rows come from memory at half the speed of one long one.
///
/// For `R = B = 4` the 16 sums, 8 vectors of codes and 2 of values stay in the 32 registers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn tile<const R: usize, const B: usize>(
    codes: [&[CodeBlock]; R],
    values: [&[ValueBlock]; B],
) -> [[i32; B]; R] {
    let (mut codes, mut values) = (codes, values);
    let blocks = codes[0].len();
    for row in &mut codes {
        *row = &row[..blocks];
    }
    for row in &mut values {
        *row = &row[..blocks];
    }
    // With the 32 bytes of a block in both halves of a vector, this keeps columns 64..96 in the
    // lower half, times 4, and 96..128 in the upper; of the bytes shifted by 4, columns 0..32 and
    // 32..64. The lower half's factor comes out at the end, which saves a shift for each half.
    let keep = _mm512_inserti64x4::<0>(_mm512_set1_epi8(0b11), _mm256_set1_epi8(0b1100));
    // A lane of the lower half gets eight products a block: |sum| ≤ cols/128 · 8 · 12 · 128 < 2³¹
    // for cols ≤ COLS_MAX = 2²².
    let mut sums = [[_mm512_setzero_si512(); B]; R];
    // Whole groups of `R` rows, at least 8 KiB: enough to cover a memory access at 30 GB/s.
    let group = (R * blocks).max(1);
    let ahead = group * 256_usize.div_ceil(group);
    for k in 0..blocks {
        let mut heads = [_mm512_setzero_si512(); R];
        let mut tails = [_mm512_setzero_si512(); R];
        for r in 0..R {
            prefetch(&codes[r][k], ahead);
            let twice = load_codes(&codes[r][k]);
            heads[r] = _mm512_and_si512(_mm512_srli_epi16::<4>(twice), keep);
            tails[r] = _mm512_and_si512(twice, keep);
        }
        for b in 0..B {
            let [head, tail] = load_values(&values[b][k]);
            for r in 0..R {
                let sum = _mm512_dpbusd_epi32(sums[r][b], heads[r], head);
                sums[r][b] = _mm512_dpbusd_epi32(sum, tails[r], tail);
            }
        }
    }
    // Loops and not `map`: a closure that is not inlined gets its vectors through memory.
    let mut dots = [[0; B]; R];
    for r in 0..R {
        for b in 0..B {
            dots[r][b] = sum_lanes(sums[r][b]);
        }
    }
    dots
}

/// `Σ digit · value` of `R` rows of digits and a row of values, equally many blocks each.
///
/// With `q_n` a byte that has been tripled `n` times, its digit `n` is `(3·q_n − q_(n+1)) / 256`.
/// So no digit is ever taken out: the bytes themselves are multiplied, before and after tripling,
/// and what remains of a lane is an exact multiple of 256.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn tile_base3<const R: usize>(
    digits: [&[DigitBlock]; R],
    values: &[base3::ValueBlock],
) -> [i32; R] {
    // A lane gets 20 products a block; the sums of bytes may wrap, 256 times that of digits may
    // not: 1600 · 20 · 2 · 128 · 256 < 2³¹.
    const BLOCKS_MAX: usize = 1600;
    let blocks = values.len();
    // Whole groups of `R` rows, at least 8 KiB, as for two-bit codes.
    let group = (R * blocks).max(1);
    let ahead = group * 128_usize.div_ceil(group);
    let mut dots = [0_i32; R];
    for start in (0..blocks).step_by(BLOCKS_MAX) {
        let end = blocks.min(start + BLOCKS_MAX);
        let digits = digits.map(|row| &row[start..end]);
        let values = &values[start..end];
        // Two of each, of digits in turn: one chain of sums would be what a block waits for.
        let mut before = [[_mm512_setzero_si512(); 2]; R];
        let mut after = [[_mm512_setzero_si512(); 2]; R];
        for k in 0..values.len() {
            let mut bytes = [_mm512_setzero_si512(); R];
            for r in 0..R {
                prefetch(&digits[r][k], ahead);
                bytes[r] = load_digits(&digits[r][k]);
            }
            let mut digit = |values: &ValueGroup, chain: usize| {
                let values = load_group(values);
                for r in 0..R {
                    before[r][chain] = _mm512_dpbusd_epi32(before[r][chain], bytes[r], values);
                    bytes[r] = triple(bytes[r]);
                    after[r][chain] = _mm512_dpbusd_epi32(after[r][chain], bytes[r], values);
                }
            };
            let [first, second, third, fourth, fifth] = &values[k];
            digit(first, 0);
            digit(second, 1);
            digit(third, 0);
            digit(fourth, 1);
            digit(fifth, 0);
        }
        for r in 0..R {
            let before = _mm512_add_epi32(before[r][0], before[r][1]);
            let after = _mm512_add_epi32(after[r][0], after[r][1]);
            let three = _mm512_add_epi32(before, _mm512_add_epi32(before, before));
            let lanes = _mm512_srai_epi32::<8>(_mm512_sub_epi32(three, after));
            dots[r] += _mm512_reduce_add_epi32(lanes);
        }
    }
    dots
}

/// [`base3::unpack`] in registers; `zero` is zero.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn unpack(blocks: DigitBlocks<'_>, codes: &mut CodeBlocks, zero: __m512i) {
    let mut bytes = blocks.map(|block| load_digits(block));
    for (k, block) in codes.iter_mut().enumerate() {
        let head = next_digits(&mut bytes[2 * k / 5], zero); // columns 0..64
        let tail = next_digits(&mut bytes[(2 * k + 1) / 5], zero); // 64..128
        // Digits in two bits: where columns 0..32 and 64..96 stand in a byte of codes; the other
        // half is to be shifted to 32..64 and 96..128. Bits that cross a byte in the 16-bit shifts
        // are not among those that are chosen.
        let pairs = choose(_mm512_set1_epi8(0xf0_u8 as i8), head, _mm512_srli_epi16::<4>(tail));
        let upper = _mm512_extracti64x4_epi64::<1>(pairs);
        let both = _mm256_ternarylogic_epi32::<0xca>(
            _mm256_set1_epi8(0xcc_u8 as i8),
            _mm512_castsi512_si256(pairs),
            _mm256_srli_epi16::<2>(upper),
        );
        // SAFETY: 32 bytes may be written, because the reference covers them; storeu wants no
        // alignment.
        unsafe { _mm256_storeu_si256(block.as_mut_ptr().cast(), both) }
    }
}

/// The first digit of every byte in its upper two bits, with anything below; triples the bytes.
/// `zero` is zero.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn next_digits(bytes: &mut __m512i, zero: __m512i) -> __m512i {
    // ⌈(q + max(⌊q / 2⌋ − 1, 0)) / 2⌉ is 64 from q = 86 on and 128 from 171 on, as 3·q / 4 is, and
    // no more than 191.
    let half = _mm512_avg_epu8(_mm512_subs_epu8(*bytes, _mm512_set1_epi8(3)), zero);
    let digits = _mm512_avg_epu8(*bytes, half);
    *bytes = triple(*bytes);
    digits
}

/// Bits of `yes` where `mask` has ones, otherwise of `no`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn choose(mask: __m512i, yes: __m512i, no: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xca>(mask, yes, no)
}

/// The sum of 16 `i32` lanes, of which the lower eight count a quarter (and are multiples of 4).
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn sum_lanes(lanes: __m512i) -> i32 {
    let lower = _mm256_srai_epi32::<2>(_mm512_castsi512_si256(lanes));
    let eight = _mm256_add_epi32(lower, _mm512_extracti64x4_epi64::<1>(lanes));
    let four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b11_10_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b01>(two)))
}

/// The 32 bytes of a block in both halves.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load_codes(block: &CodeBlock) -> __m512i {
    // SAFETY: 32 bytes are readable, because the reference covers them; loadu wants no alignment.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(block.as_ptr().cast()) })
}

/// Values 0..64 and 64..128 of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load_values(block: &ValueBlock) -> [__m512i; 2] {
    let mut vectors = [_mm512_setzero_si512(); 2];
    for (vector, half) in vectors.iter_mut().zip(block.as_chunks::<64>().0) {
        // SAFETY: 64 bytes are readable, because the reference covers them; loadu wants no
        // alignment.
        *vector = unsafe { _mm512_loadu_si512(half.as_ptr().cast()) };
    }
    vectors
}

/// Asks for the block `ahead` blocks behind this one, whether it belongs to the matrix or not.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn prefetch<const BYTES: usize>(block: &[u8; BYTES], ahead: usize) {
    let address = block.as_ptr().wrapping_add(ahead * BYTES);
    _mm_prefetch::<_MM_HINT_T0>(address.cast());
}

/// Three times every byte, modulo 256, in two additions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn triple(bytes: __m512i) -> __m512i {
    let mut tripled = _mm512_add_epi8(bytes, _mm512_add_epi8(bytes, bytes));
    // The compiler would see powers of 3 and multiply by them, which takes several instructions
    // where there are no products of bytes. It cannot see through this, which is no instruction.
    // SAFETY: there is nothing to execute.
    unsafe {
        asm!("/* {} */", inout(zmm_reg) tripled, options(pure, nomem, nostack, preserves_flags));
    }
    tripled
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load_digits(block: &DigitBlock) -> __m512i {
    // SAFETY: 64 bytes are readable, because the reference covers them; loadu wants no alignment.
    unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load_group(values: &ValueGroup) -> __m512i {
    // SAFETY: 64 bytes are readable, because the reference covers them; loadu wants no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}
