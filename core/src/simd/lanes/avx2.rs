//! Four vectors of 8 singles.

use core::arch::x86_64::*;

use super::{AddProducts, LANES, Lanes, Rows, on_number};
use crate::simd::Avx2;
use crate::stored::Stored;

/// Lanes 0..8, 8..16, 16..24, 24..32.
type Block = [__m256; 4];

impl Avx2 {
    pub(in crate::simd) fn widen(self, numbers: Stored<'_>, out: &mut [f32]) {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { widen(self, numbers, out) }
    }

    pub(in crate::simd) fn dots(
        self,
        weights: Stored<'_>,
        cols: usize,
        x: Rows<'_>,
        batch: usize,
        out: &mut [f32],
    ) {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { dots(self, weights, cols, x, batch, out) }
    }

    pub(in crate::simd) fn add_products(self, product: AddProducts<'_>) {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { add_products(self, product) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn widen(level: Avx2, numbers: Stored<'_>, out: &mut [f32]) {
    on_number!(numbers, numbers, N => super::widen::<_, N>(level, numbers, out));
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dots(level: Avx2, weights: Stored<'_>, cols: usize, x: Rows<'_>, batch: usize, out: &mut [f32]) {
    on_number!(weights, weights, N => {
        super::dots::<_, N, 2>(level, weights, cols, x, batch, out)
    });
}

#[target_feature(enable = "avx2,fma,f16c")]
fn add_products(level: Avx2, product: AddProducts<'_>) {
    // 8 running sums, 4 of a row: of 16 registers.
    super::add_products::<_, 2>(level, product);
}

impl Lanes for Avx2 {
    type Block = Block;

    #[inline(always)]
    fn splat(self, x: f32) -> Block {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { splat(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Block {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { load(x) }
    }

    #[inline(always)]
    fn store(self, block: Block, out: &mut [f32; LANES]) {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { store(block, out) }
    }

    #[inline(always)]
    fn add(self, a: Block, b: Block) -> Block {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { add(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Block, b: Block) -> Block {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { mul(a, b) }
    }

    #[inline(always)]
    fn load_f32(self, x: &[[u8; 4]; LANES]) -> Block {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { load_f32(x) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[[u8; 2]; LANES]) -> Block {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { load_f16(x) }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[[u8; 2]; LANES]) -> Block {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { load_bf16(x) }
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Block {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { load_i8(x) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { prefetch(address) }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn splat(x: f32) -> Block {
    [_mm256_set1_ps(x); 4]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(x: &[f32; LANES]) -> Block {
    let mut block = splat(0.0);
    for (vector, x) in block.iter_mut().zip(x.as_chunks::<8>().0) {
        // SAFETY: 32 bytes are readable, because the reference covers them; loadu wants no
        // alignment.
        *vector = unsafe { _mm256_loadu_ps(x.as_ptr()) };
    }
    block
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store(block: Block, out: &mut [f32; LANES]) {
    for (vector, out) in block.into_iter().zip(out.as_chunks_mut::<8>().0) {
        // SAFETY: 32 bytes are ours to write, because the reference covers them.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), vector) };
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add(mut a: Block, b: Block) -> Block {
    for i in 0..4 {
        a[i] = _mm256_add_ps(a[i], b[i]);
    }
    a
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn mul(mut a: Block, b: Block) -> Block {
    for i in 0..4 {
        a[i] = _mm256_mul_ps(a[i], b[i]);
    }
    a
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_f32(x: &[[u8; 4]; LANES]) -> Block {
    let mut block = splat(0.0);
    for (vector, x) in block.iter_mut().zip(x.as_chunks::<8>().0) {
        // SAFETY: 32 bytes are readable, because the reference covers them; loadu wants no
        // alignment.
        *vector = unsafe { _mm256_loadu_ps(x.as_ptr().cast()) };
    }
    block
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_f16(x: &[[u8; 2]; LANES]) -> Block {
    let mut block = splat(0.0);
    for (vector, x) in block.iter_mut().zip(x.as_chunks::<8>().0) {
        *vector = _mm256_cvtph_ps(load_words(x));
    }
    block
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_bf16(x: &[[u8; 2]; LANES]) -> Block {
    let mut block = splat(0.0);
    for (vector, x) in block.iter_mut().zip(x.as_chunks::<8>().0) {
        let words = _mm256_cvtepu16_epi32(load_words(x));
        *vector = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words));
    }
    block
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_words(x: &[[u8; 2]; 8]) -> __m128i {
    // SAFETY: 16 bytes are readable, because the reference covers them; loadu wants no alignment.
    unsafe { _mm_loadu_si128(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_i8(x: &[i8; LANES]) -> Block {
    let mut block = splat(0.0);
    for (vector, x) in block.iter_mut().zip(x.as_chunks::<8>().0) {
        // SAFETY: 8 bytes are readable, because the reference covers them; loadl wants no
        // alignment.
        let bytes = unsafe { _mm_loadl_epi64(x.as_ptr().cast()) };
        *vector = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    }
    block
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn prefetch(address: *const u8) {
    _mm_prefetch::<_MM_HINT_T0>(address.cast());
}
