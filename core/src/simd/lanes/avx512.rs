//! Two vectors of 16 singles.

use core::arch::x86_64::*;

use super::{AddProducts, LANES, Lanes, Rows, on_number};
use crate::simd::Avx512Vnni;
use crate::stored::Stored;

/// Lanes 0..16, 16..32.
type Block = [__m512; 2];

impl Avx512Vnni {
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

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn widen(level: Avx512Vnni, numbers: Stored<'_>, out: &mut [f32]) {
    on_number!(numbers, numbers, N => super::widen::<_, N>(level, numbers, out));
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn dots(
    level: Avx512Vnni,
    weights: Stored<'_>,
    cols: usize,
    x: Rows<'_>,
    batch: usize,
    out: &mut [f32],
) {
    on_number!(weights, weights, N => {
        super::dots::<_, N, 4>(level, weights, cols, x, batch, out)
    });
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn add_products(level: Avx512Vnni, product: AddProducts<'_>) {
    // Eight running sums hide the latency of an addition; sixteen were no faster.
    super::add_products::<_, 4>(level, product);
}

impl Lanes for Avx512Vnni {
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
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn splat(x: f32) -> Block {
    [_mm512_set1_ps(x); 2]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load(x: &[f32; LANES]) -> Block {
    let halves: &[[f32; 16]] = x.as_chunks().0;
    // SAFETY: 64 bytes are readable, because the reference covers them; loadu wants no alignment.
    [unsafe { _mm512_loadu_ps(halves[0].as_ptr()) }, unsafe { _mm512_loadu_ps(halves[1].as_ptr()) }]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn store(block: Block, out: &mut [f32; LANES]) {
    let halves: &mut [[f32; 16]] = out.as_chunks_mut().0;
    // SAFETY: 64 bytes are ours to write, because the reference covers them.
    unsafe { _mm512_storeu_ps(halves[0].as_mut_ptr(), block[0]) };
    // SAFETY: as the line before.
    unsafe { _mm512_storeu_ps(halves[1].as_mut_ptr(), block[1]) };
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn add(a: Block, b: Block) -> Block {
    [_mm512_add_ps(a[0], b[0]), _mm512_add_ps(a[1], b[1])]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn mul(a: Block, b: Block) -> Block {
    [_mm512_mul_ps(a[0], b[0]), _mm512_mul_ps(a[1], b[1])]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load_f32(x: &[[u8; 4]; LANES]) -> Block {
    let halves: &[[[u8; 4]; 16]] = x.as_chunks().0;
    // SAFETY: 64 bytes are readable, because the reference covers them; loadu wants no alignment.
    [unsafe { _mm512_loadu_ps(halves[0].as_ptr().cast()) }, unsafe {
        _mm512_loadu_ps(halves[1].as_ptr().cast())
    }]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load_f16(x: &[[u8; 2]; LANES]) -> Block {
    let halves: &[[[u8; 2]; 16]] = x.as_chunks().0;
    [_mm512_cvtph_ps(load_words(&halves[0])), _mm512_cvtph_ps(load_words(&halves[1]))]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load_bf16(x: &[[u8; 2]; LANES]) -> Block {
    let halves: &[[[u8; 2]; 16]] = x.as_chunks().0;
    [upper_half(load_words(&halves[0])), upper_half(load_words(&halves[1]))]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn upper_half(words: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load_words(x: &[[u8; 2]; 16]) -> __m256i {
    // SAFETY: 32 bytes are readable, because the reference covers them; loadu wants no alignment.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load_i8(x: &[i8; LANES]) -> Block {
    let halves: &[[i8; 16]] = x.as_chunks().0;
    [whole(&halves[0]), whole(&halves[1])]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn whole(x: &[i8; 16]) -> __m512 {
    // SAFETY: 16 bytes are readable, because the reference covers them; loadu wants no alignment.
    let bytes = unsafe { _mm_loadu_si128(x.as_ptr().cast()) };
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn prefetch(address: *const u8) {
    _mm_prefetch::<_MM_HINT_T0>(address.cast());
}
