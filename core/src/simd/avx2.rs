//! 256-bit vectors, products of bytes summed in 16-bit lanes.

use core::{
    arch::{asm, x86_64::*},
    ops::Range,
};

use crate::activation;

use super::{
    base3::{self, Base3Codes, Base3Product, DigitBlock},
    product::{CodeBlock, Product, ValueBlock},
};

/// Proof that AVX2, FMA and F16C exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Avx2(());

impl Avx2 {
    /// A token, if the CPU has the instructions (feature `std`) or the crate was compiled for them.
    pub fn detect() -> Option<Self> {
        #[cfg(any(test, feature = "std"))]
        let found = std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("fma")
            && std::is_x86_feature_detected!("f16c");
        #[cfg(not(any(test, feature = "std")))]
        let found =
            cfg!(all(target_feature = "avx2", target_feature = "fma", target_feature = "f16c"));
        found.then_some(Self(()))
    }

    /// A token on the caller's word.
    ///
    /// # Safety
    ///
    /// - The CPU has AVX2, FMA and F16C, and the operating system saves the 256-bit registers.
    pub const unsafe fn assume() -> Self {
        Self(())
    }

    pub(super) fn name(self) -> &'static str {
        "avx2"
    }

    pub(super) fn peak(self, x: &[f32]) -> f32 {
        // SAFETY: AVX2, FMA and F16C exist, because a token does.
        unsafe { peak(x) }
    }

    pub(super) fn quantize(self, x: &[f32], factor: f32, values: &mut [i8]) -> i32 {
        // SAFETY: AVX2, FMA and F16C exist, because a token does.
        unsafe { quantize(x, factor, values) }
    }

    pub(super) fn gemv(self, product: Product<'_>) {
        // SAFETY: AVX2, FMA and F16C exist, because a token does.
        unsafe { gemv(product) }
    }

    pub(super) fn gemm(self, product: Product<'_>) {
        // SAFETY: AVX2, FMA and F16C exist, because a token does.
        unsafe { gemm(product) }
    }

    pub(super) fn gemv_base3(self, product: Base3Product<'_>) {
        // SAFETY: AVX2, FMA and F16C exist, because a token does.
        unsafe { gemv_base3(product) }
    }

    pub(super) fn unpack_base3(self, codes: Base3Codes<'_>) {
        // SAFETY: AVX2, FMA and F16C exist, because a token does.
        unsafe { unpack_base3(codes) }
    }

    #[inline]
    pub(super) fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        // SAFETY: AVX2, FMA and F16C exist, because a token does.
        unsafe { vectorize(f) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn peak(x: &[f32]) -> f32 {
    activation::peak(x)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantize(x: &[f32], factor: f32, values: &mut [i8]) -> i32 {
    activation::quantize(x, factor, values)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn gemv(mut product: Product<'_>) {
    let rows = 0..product.rows();
    band::<1>(&mut product, rows, 0);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn gemm(mut product: Product<'_>) {
    for rows in product.row_chunks() {
        let mut b = 0;
        while b < product.batch() {
            b += match product.batch() - b {
                1 => band::<1>(&mut product, rows.clone(), b),
                2 | 3 => band::<2>(&mut product, rows.clone(), b),
                _ => band::<4>(&mut product, rows.clone(), b),
            };
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn gemv_base3(mut product: Base3Product<'_>) {
    for row in 0..product.rows() {
        let [digits] = product.digits(row);
        let dot = dot_base3(digits, product.values());
        product.store(row, dot);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn unpack_base3(codes: Base3Codes<'_>) {
    codes.write(base3::unpack);
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn vectorize<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// `rows` of the product with `B` rows of values from `b` on; returns `B`.
#[target_feature(enable = "avx2,fma,f16c")]
fn band<const B: usize>(product: &mut Product<'_>, rows: Range<usize>, b: usize) -> usize {
    let values = product.values::<B>(b);
    for row in rows {
        let [codes] = product.codes(row);
        product.store(row, b, dots(codes, values));
    }
    B
}

/// `Σ code · value` of one row of codes and `B` rows of values, equally many blocks each.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots<const B: usize>(codes: &[CodeBlock], values: [&[ValueBlock]; B]) -> [i32; B] {
    // maddubs sums pairs: |2 · code · value| ≤ 2 · 3 · 128 = 768. A lane gets four pairs a block:
    // 10 · 4 · 768 = 30 720, i16 holds it.
    const BLOCKS_MAX: usize = 10;
    let low_bits = _mm256_set1_epi8(3);
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); B]; // i32 lanes
    let blocks = codes.len();
    let values = values.map(|row| &row[..blocks]);
    let mut start = 0;
    while start < blocks {
        let end = blocks.min(start + BLOCKS_MAX);
        let mut pairs = [_mm256_setzero_si256(); B]; // i16 lanes
        for k in start..end {
            prefetch(&codes[k]);
            let bytes = load_codes(&codes[k]);
            // Bits that cross a byte in the 16-bit shifts are masked away.
            let codes = [
                _mm256_and_si256(_mm256_srli_epi16::<6>(bytes), low_bits), // columns 0..32
                _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low_bits), // 32..64
                _mm256_and_si256(_mm256_srli_epi16::<2>(bytes), low_bits), // 64..96
                _mm256_and_si256(bytes, low_bits),                         // 96..128
            ];
            for b in 0..B {
                let values = load_values(&values[b][k]);
                for i in 0..4 {
                    pairs[b] =
                        _mm256_add_epi16(pairs[b], _mm256_maddubs_epi16(codes[i], values[i]));
                }
            }
        }
        for b in 0..B {
            sums[b] = _mm256_add_epi32(sums[b], _mm256_madd_epi16(pairs[b], ones));
        }
        start = end;
    }
    sums.map(|lanes| sum_lanes(lanes))
}

/// `Σ digit · value` of one row of digits and one row of values, equally many blocks each.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_base3(digits: &[DigitBlock], values: &[base3::ValueBlock]) -> i32 {
    // maddubs sums pairs: |2 · digit · value| ≤ 2 · 2 · 128 = 512. A lane gets five pairs a block:
    // 12 · 5 · 512 = 30 720, i16 holds it.
    const BLOCKS_MAX: usize = 12;
    // Bytes less 128, to be compared as signed; tripling keeps that, since 3 · 128 = 128 mod 256.
    let bias = _mm256_set1_epi8(-128);
    let (one, two) = (_mm256_set1_epi8(-43), _mm256_set1_epi8(42)); // 85 and 170, less 128
    let zero = _mm256_setzero_si256();
    let ones = _mm256_set1_epi16(1);
    let mut sums = zero; // i32 lanes
    for (digits, values) in digits.chunks(BLOCKS_MAX).zip(values.chunks(BLOCKS_MAX)) {
        let mut pairs = [zero; 2]; // i16 lanes
        for (block, values) in digits.iter().zip(values) {
            prefetch(block);
            let halves = block.as_chunks().0;
            for half in 0..2 {
                let mut bytes = _mm256_xor_si256(load_codes(&halves[half]), bias);
                for values in values {
                    // Minus one for every third of 256 that is passed.
                    let (first, second) =
                        (_mm256_cmpgt_epi8(bytes, one), _mm256_cmpgt_epi8(bytes, two));
                    let digit = _mm256_sub_epi8(_mm256_sub_epi8(zero, first), second);
                    let values = load_32(&values.as_chunks().0[half]);
                    let products = _mm256_maddubs_epi16(digit, values);
                    pairs[half] = _mm256_add_epi16(pairs[half], products);
                    bytes = triple(bytes);
                }
            }
        }
        for pairs in pairs {
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, ones));
        }
    }
    sum_lanes(sums)
}

/// Three times every byte, modulo 256, in two additions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn triple(bytes: __m256i) -> __m256i {
    let mut tripled = _mm256_add_epi8(bytes, _mm256_add_epi8(bytes, bytes));
    // As for 512 bits: keeps the compiler from multiplying by powers of 3.
    // SAFETY: there is nothing to execute.
    unsafe {
        asm!("/* {} */", inout(ymm_reg) tripled, options(pure, nomem, nostack, preserves_flags));
    }
    tripled
}

/// The sum of eight `i32` lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_lanes(lanes: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b11_10_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b01>(two)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_codes(block: &CodeBlock) -> __m256i {
    // SAFETY: 32 bytes are readable, because the reference covers them; loadu wants no alignment.
    unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
}

/// Values 0..32, 32..64, 64..96 and 96..128 of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_values(block: &ValueBlock) -> [__m256i; 4] {
    let quarters: &[[i8; 32]] = block.as_chunks().0;
    [0, 1, 2, 3].map(|i| load_32(&quarters[i]))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_32(values: &[i8; 32]) -> __m256i {
    // SAFETY: 32 bytes are readable, because the reference covers them; loadu wants no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// Asks for the bytes that are read `AHEAD` bytes later, whether they belong to the matrix or not.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn prefetch<const BYTES: usize>(block: &[u8; BYTES]) {
    const AHEAD: usize = 4096;
    let address = block.as_ptr().wrapping_add(AHEAD);
    _mm_prefetch::<_MM_HINT_T0>(address.cast());
}
