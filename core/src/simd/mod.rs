//! The same operations for each instruction set; the only place that chooses between them.
//!
//! Every level is equal to [`reference`](crate::reference) to the bit. A level is a value that
//! proves that its instructions exist, so an operation needs no check and no `unsafe` of its
//! caller.

#![allow(unsafe_code, reason = "the door into a level, and loads of whole vectors, need it")]

#[cfg(target_arch = "x86_64")]
mod amx_int8;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512_vnni;
mod base3;
#[cfg(target_arch = "x86_64")]
mod panels;
mod portable;
mod product;
#[cfg(target_arch = "x86_64")]
mod tiles;

use core::{fmt, str::FromStr};

#[cfg(target_arch = "x86_64")]
pub use amx_int8::AmxInt8;
#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512_vnni::Avx512Vnni;
pub use portable::Portable;

use crate::{
    activation::{PEAK_MIN, RowUnit, VALUE_MAX},
    packed::{COLS_MAX, LayoutError, PackedBase3, PackedTernary, Rows128},
};
use base3::{Base3Codes, Base3Product};
use product::{Order, Product};

/// An instruction set that this CPU has, and with it every operation.
///
/// All levels give equal bits; they differ in speed. The levels of other architectures are not
/// there: outside x86-64 the only variant is [`Portable`](Simd::Portable).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Simd {
    /// Plain Rust for whatever the crate is compiled for.
    Portable(Portable),
    /// x86-64 with AVX2, FMA and F16C (2013).
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// x86-64 with AVX-512 F, BW, VL, DQ and VNNI (2019).
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    /// x86-64 with all of these, AMX-TILE and AMX-INT8 (2023): tiles where there are 16 rows of
    /// values or more.
    #[cfg(target_arch = "x86_64")]
    AmxInt8(AmxInt8),
}

/// Why a level cannot be had by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SimdError {
    /// No level of this crate has that name.
    Unknown,
    /// There is such a level, but this CPU lacks it, or (without feature `std`) the crate was not
    /// compiled for it.
    Unavailable {
        /// The name of the level.
        name: &'static str,
    },
}

impl fmt::Display for SimdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("no such instruction set; known are")?;
                NAMES.iter().try_for_each(|name| write!(f, " `{name}`"))
            }
            Self::Unavailable { name } => write!(f, "`{name}` is not available on this CPU"),
        }
    }
}

impl core::error::Error for SimdError {}

/// All names, ascending, whether this CPU or architecture has the level or not.
const NAMES: [&str; 4] = ["portable", "avx2", "avx512vnni", "amxint8"];

/// `$call` with `$level` bound to the token inside `$simd`: the one match on the level.
macro_rules! on_level {
    ($simd:expr, $level:ident => $call:expr) => {
        match $simd {
            Simd::Portable($level) => $call,
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2($level) => $call,
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512Vnni($level) => $call,
            #[cfg(target_arch = "x86_64")]
            Simd::AmxInt8($level) => $call,
        }
    };
}

mod floats;
mod lanes;

pub use floats::{FloatRows, FloatRowsMut};

impl Simd {
    /// The best level of this CPU.
    ///
    /// With feature `std` the CPU is asked at run time; without it, the answer is what the crate
    /// was compiled for (`-C target-cpu`), and a caller who knows more has `assume` of the tokens.
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Portable(Portable))
    }

    /// Every level of this CPU, ascending; the first is [`Portable`](Self::Portable).
    pub fn available() -> impl Iterator<Item = Self> {
        let levels = [
            Some(Self::Portable(Portable)),
            #[cfg(target_arch = "x86_64")]
            Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Avx512Vnni::detect().map(Self::Avx512Vnni),
            #[cfg(target_arch = "x86_64")]
            AmxInt8::detect().map(Self::AmxInt8),
        ];
        levels.into_iter().flatten()
    }

    /// The name that [`by_name`](Self::by_name) takes: `portable`, `avx2`, `avx512vnni` or
    /// `amxint8`.
    pub fn name(self) -> &'static str {
        on_level!(self, level => level.name())
    }

    /// The level called `name`; the same as parsing it.
    ///
    /// # Errors
    ///
    /// [`SimdError::Unknown`] for a name that is none, [`SimdError::Unavailable`] for a level that
    /// this CPU lacks.
    pub fn by_name(name: &str) -> Result<Self, SimdError> {
        let known = NAMES.into_iter().find(|known| *known == name).ok_or(SimdError::Unknown)?;
        Self::available()
            .find(|level| level.name() == known)
            .ok_or(SimdError::Unavailable { name: known })
    }

    /// `max |x[c]|`, with NaN ignored and 0 for an empty or all-NaN row. Exact, in any order.
    pub fn peak(self, x: &[f32]) -> f32 {
        on_level!(self, level => level.peak(x))
    }

    /// [`quantize_row_at`](Self::quantize_row_at) the row's own peak: `max(peak(x), PEAK_MIN)`.
    ///
    /// An infinite number makes the unit infinite and all values 0, so that the product comes out
    /// as NaN, not as a plausible number.
    ///
    /// # Panics
    ///
    /// When `values` is shorter than `x`, or `x` longer than [`COLS_MAX`].
    pub fn quantize_row(self, x: &[f32], values: &mut [i8]) -> RowUnit {
        self.quantize_row_at(x, self.peak(x).max(PEAK_MIN), values)
    }

    /// `values[c] = round_half_even(x[c] · (127 / peak))`, clamped to −127..=127;
    /// `unit = peak / 127`.
    ///
    /// `x` is `(cols,)`, `values` at least `(cols,)`: the rest is set to 0, which is the padding
    /// that [`gemv`](Self::gemv) and [`gemm`](Self::gemm) read. NaN gives 0. Equal bits on every
    /// level; the order of operations is in [`activation`](crate::activation). For a caller who
    /// knows the peak already, or wants several rows to share one.
    ///
    /// # Panics
    ///
    /// When `peak` is not above 0, `values` is shorter than `x`, or `x` longer than [`COLS_MAX`].
    pub fn quantize_row_at(self, x: &[f32], peak: f32, values: &mut [i8]) -> RowUnit {
        assert!(peak > 0.0, "a peak of {peak} has no unit");
        assert!(values.len() >= x.len(), "{} values for {} numbers", values.len(), x.len());
        assert!(x.len() <= COLS_MAX, "{} numbers in a row of at most {COLS_MAX}", x.len());
        let (values, padding) = values.split_at_mut(x.len());
        padding.fill(0);
        let sum = on_level!(self, level => level.quantize(x, VALUE_MAX / peak, values));
        RowUnit { unit: peak / VALUE_MAX, sum }
    }

    /// `sums[row] = Σ_c trit(row, c) · values[c]`, as `Σ code · value − value_sum`.
    ///
    /// `weights` is `(rows, cols)`, `values` at least `(padded_cols,)` and 0 from `cols` on (which
    /// [`quantize_row`](Self::quantize_row) sees to), `value_sum` is `Σ_{c < cols} values[c]`
    /// ([`RowUnit::sum`]), `sums` is `(rows,)`. Exact. Bound by memory: each code is read once.
    ///
    /// # Panics
    ///
    /// When `values` is shorter than [`Rows128::padded_cols`], or `sums` not `rows` long.
    pub fn gemv(
        self,
        weights: PackedTernary<'_, Rows128>,
        values: &[i8],
        value_sum: i32,
        sums: &mut [i32],
    ) {
        let value_sums = [value_sum];
        let product =
            Product::new(weights, values, values.len(), &value_sums, sums, Order::RowMajor);
        on_level!(self, level => level.gemv(product));
    }

    /// `sums[row · batch + b] = Σ_c trit(row, c) · values[b · stride + c]`
    ///
    /// `weights` is `(rows, cols)`, `values` `(batch, stride)` with `stride ≥ padded_cols` and
    /// every row 0 from `cols` to `padded_cols`, `value_sums` `(batch,)` as in
    /// [`gemv`](Self::gemv), `sums` `(rows, batch)`. Exact, and the same for a row of values
    /// whatever the batch.
    ///
    /// # Panics
    ///
    /// When `stride` is below [`Rows128::padded_cols`], `values` shorter than `batch · stride`, or
    /// `sums` not `rows · batch` long.
    pub fn gemm(
        self,
        weights: PackedTernary<'_, Rows128>,
        values: &[i8],
        stride: usize,
        value_sums: &[i32],
        sums: &mut [i32],
    ) {
        let product = Product::new(weights, values, stride, value_sums, sums, Order::RowMajor);
        on_level!(self, level => level.gemm(product));
    }

    /// `sums[b · rows + row] = Σ_c trit(row, c) · values[b · stride + c]`
    ///
    /// As [`gemm`](Self::gemm), but `sums` is `(batch, rows)`: the sums of a row of values stand
    /// side by side, which is how a step writes its rows, and how tiles hold them.
    ///
    /// # Panics
    ///
    /// As [`gemm`](Self::gemm).
    pub fn gemm_batch_major(
        self,
        weights: PackedTernary<'_, Rows128>,
        values: &[i8],
        stride: usize,
        value_sums: &[i32],
        sums: &mut [i32],
    ) {
        let product = Product::new(weights, values, stride, value_sums, sums, Order::BatchMajor);
        on_level!(self, level => level.gemm(product));
    }

    /// `sums[row] = Σ_c trit(row, c) · values[c]`, of weights that take 1.6 bits.
    ///
    /// `weights` is `(rows, cols)`, `values` at least `(padded_cols,)` and 0 from `cols` on,
    /// `value_sum` is `Σ_{c < cols} values[c]`, `sums` is `(rows,)`. Exact. As
    /// [`gemv`](Self::gemv), of four fifths of the bytes and with more work for each: for threads
    /// that wait for memory, as those of `avx512vnni` do; the levels below compute for longer.
    ///
    /// # Panics
    ///
    /// When `values` is shorter than [`Base3::padded_cols`](crate::Base3::padded_cols) or `sums` is
    /// not `rows` long.
    pub fn gemv_base3(
        self,
        weights: PackedBase3<'_>,
        values: &[i8],
        value_sum: i32,
        sums: &mut [i32],
    ) {
        let product = Base3Product::new(weights, values, value_sum, sums);
        on_level!(self, level => level.gemv_base3(product));
    }

    /// Writes the matrix into `codes` in layout [`Rows128`], and views it; equal to
    /// [`PackedBase3::unpack`].
    ///
    /// For products with several rows of values, which pay for it:
    /// [`row_range`](PackedBase3::row_range) gives as many rows at a time as a cache holds.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Length`] unless `codes` is [`Rows128::row_bytes`] long for every row;
    /// [`LayoutError::Overflow`] when that exceeds `usize`.
    pub fn unpack_base3<'c>(
        self,
        weights: PackedBase3<'_>,
        codes: &'c mut [u8],
    ) -> Result<PackedTernary<'c, Rows128>, LayoutError> {
        let to_be_made = Base3Codes::new(weights, codes)?;
        on_level!(self, level => level.unpack_base3(to_be_made));
        PackedTernary::new(codes, weights.rows(), weights.cols())
    }

    /// Calls `f` where the compiler may use this level's instructions.
    ///
    /// Whatever is inlined into `f` is compiled for the level, so plain loops are vectorised for
    /// it: pass an `#[inline(always)]` closure of loops and `#[inline(always)]` functions. Results
    /// do not change: Rust neither reorders floats nor fuses a product with a sum unless told to.
    ///
    /// ```
    /// let x = [1.0_f32, 2.0, 3.0];
    /// let mut doubled = [0.0; 3];
    /// tercet_core::Simd::detect().vectorize(
    ///     #[inline(always)]
    ///     || doubled.iter_mut().zip(&x).for_each(|(d, x)| *d = x + x),
    /// );
    /// assert_eq!(doubled, [2.0, 4.0, 6.0]);
    /// ```
    #[inline]
    pub fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        on_level!(self, level => level.vectorize(f))
    }
}

/// [`Simd::gemm`] (or [`Simd::gemm_batch_major`]) of the tile level with a model of the tiles, for
/// CPUs without them: all of the level but the instructions themselves. `batch` is at least 16.
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) fn gemm_on_model(
    _proof: Avx512Vnni,
    weights: PackedTernary<'_, Rows128>,
    values: &[i8],
    stride: usize,
    value_sums: &[i32],
    sums: &mut [i32],
    batch_major: bool,
) {
    let order = if batch_major { Order::BatchMajor } else { Order::RowMajor };
    let mut product = Product::new(weights, values, stride, value_sums, sums, order);
    // SAFETY: the instructions exist, because a token does.
    unsafe { panels::gemm(&mut product, value_sums.len(), &tiles::Model) }
}

impl fmt::Display for Simd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Simd {
    type Err = SimdError;

    fn from_str(name: &str) -> Result<Self, SimdError> {
        Self::by_name(name)
    }
}
