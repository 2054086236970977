//! Tiles of 16 rows by 64 bytes, 16 384 products an instruction; for fewer than 16 rows of values,
//! and for everything but `gemm`, 512-bit vectors.

use super::{
    Avx512Vnni,
    base3::{Base3Codes, Base3Product},
    lanes::{AddProducts, Rows},
    panels::{self, SIDE},
    product::Product,
    tiles::{self, Configured},
};
use crate::stored::Stored;

/// Proof that AMX-TILE and AMX-INT8 exist and may be used, and with them all of [`Avx512Vnni`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AmxInt8(Avx512Vnni);

impl AmxInt8 {
    /// A token, if the CPU has the instructions and the operating system grants them.
    ///
    /// Linux grants tiles to a process that asks for them, which this does, once; from then on the
    /// process may use 8 KiB of registers a thread. Without feature `std`, and on other systems,
    /// there is none: a caller who knows more has [`assume`](Self::assume).
    pub fn detect() -> Option<Self> {
        let vectors = Avx512Vnni::detect()?;
        tiles::granted().then_some(Self(vectors))
    }

    /// A token on the caller's word.
    ///
    /// # Safety
    ///
    /// - All that [`Avx512Vnni::assume`] asks holds.
    /// - The CPU has AMX-TILE and AMX-INT8, and the operating system lets every thread of this
    ///   process use the tiles and saves them.
    pub const unsafe fn assume() -> Self {
        // SAFETY: the caller promises all that it asks.
        Self(unsafe { Avx512Vnni::assume() })
    }

    pub(super) fn name(self) -> &'static str {
        "amxint8"
    }

    pub(super) fn peak(self, x: &[f32]) -> f32 {
        self.0.peak(x)
    }

    pub(super) fn quantize(self, x: &[f32], factor: f32, values: &mut [i8]) -> i32 {
        self.0.quantize(x, factor, values)
    }

    pub(super) fn gemv(self, product: Product<'_>) {
        self.0.gemv(product);
    }

    pub(super) fn gemm(self, mut product: Product<'_>) {
        if product.batch() < SIDE {
            return self.0.gemm(product);
        }
        let batch = product.batch();
        // SAFETY: the tiles exist and may be used, because a token does.
        let tiles = unsafe { Configured::new() };
        // SAFETY: the level's instructions exist, because a token does.
        unsafe { panels::gemm(&mut product, batch, &tiles) }
    }

    pub(super) fn gemv_base3(self, product: Base3Product<'_>) {
        self.0.gemv_base3(product);
    }

    pub(super) fn unpack_base3(self, codes: Base3Codes<'_>) {
        self.0.unpack_base3(codes);
    }

    pub(super) fn widen(self, numbers: Stored<'_>, out: &mut [f32]) {
        self.0.widen(numbers, out);
    }

    pub(super) fn dots(
        self,
        weights: Stored<'_>,
        cols: usize,
        x: Rows<'_>,
        batch: usize,
        out: &mut [f32],
    ) {
        self.0.dots(weights, cols, x, batch, out);
    }

    pub(super) fn add_products(self, product: AddProducts<'_>) {
        self.0.add_products(product);
    }

    #[inline]
    pub(super) fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        self.0.vectorize(f)
    }
}
