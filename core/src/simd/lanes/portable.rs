//! Arrays, for the compiler to find vectors in.

use super::{AddProducts, LANES, Lanes, Rows, on_number};
use crate::simd::Portable;
use crate::stored::{Stored, from_half, from_upper_half};

impl Portable {
    pub(in crate::simd) fn widen(self, numbers: Stored<'_>, out: &mut [f32]) {
        on_number!(numbers, numbers, N => super::widen::<_, N>(self, numbers, out));
    }

    pub(in crate::simd) fn dots(
        self,
        weights: Stored<'_>,
        cols: usize,
        x: Rows<'_>,
        batch: usize,
        out: &mut [f32],
    ) {
        on_number!(weights, weights, N => {
            super::dots::<_, N, 1>(self, weights, cols, x, batch, out)
        });
    }

    pub(in crate::simd) fn add_products(self, product: AddProducts<'_>) {
        super::add_products::<_, 1>(self, product);
    }
}

impl Lanes for Portable {
    type Block = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Block {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::Block {
        *x
    }

    #[inline(always)]
    fn store(self, block: Self::Block, out: &mut [f32; LANES]) {
        *out = block;
    }

    #[inline(always)]
    fn add(self, mut a: Self::Block, b: Self::Block) -> Self::Block {
        for (a, b) in a.iter_mut().zip(b) {
            *a += b;
        }
        a
    }

    #[inline(always)]
    fn mul(self, mut a: Self::Block, b: Self::Block) -> Self::Block {
        for (a, b) in a.iter_mut().zip(b) {
            *a *= b;
        }
        a
    }

    #[inline(always)]
    fn load_f32(self, x: &[[u8; 4]; LANES]) -> Self::Block {
        x.map(f32::from_le_bytes)
    }

    #[inline(always)]
    fn load_f16(self, x: &[[u8; 2]; LANES]) -> Self::Block {
        x.map(from_half)
    }

    #[inline(always)]
    fn load_bf16(self, x: &[[u8; 2]; LANES]) -> Self::Block {
        x.map(from_upper_half)
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::Block {
        x.map(f32::from)
    }

    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}
}
