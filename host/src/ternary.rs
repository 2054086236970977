//! [`TernaryMatrix`]: one ternary linear as a checkpoint stores it, and its way to `rows128`
//! or `base3`.

use std::borrow::Cow;

use tercet_core::packed::{
    Base3, LayoutError, PackedBase3, PackedTernary, Quarters, Rows128, pack, repack,
};
use tercet_core::simd::Simd;

use crate::floats::FloatType;
use crate::layout::WeightLayout;
use crate::model::ModelError;

/// Smallest mean absolute weight that is divided by; transformers' `WeightQuant` clamps there.
const MEAN_MIN: f32 = 1e-5;

/// A ternary matrix `(rows, cols)`, borrowed from the checkpoint.
#[derive(Debug, Clone)]
pub struct TernaryMatrix<'c> {
    /// Name of the tensor, for messages.
    pub name: String,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// The weights.
    pub codes: Codes<'c>,
}

/// The four ways in which checkpoints hold ternary weights.
#[derive(Debug, Clone)]
pub enum Codes<'c> {
    /// Two-bit codes in our own layout (`.tercet`); used as they are.
    Rows128 {
        /// Bytes of the layout.
        bytes: &'c [u8],
        /// Real size of a trit.
        unit: f32,
    },
    /// Five trits a byte in our own layout (`.tercet`); used as they are where few rows of values
    /// are multiplied on a CPU.
    Base3 {
        /// Bytes of the layout.
        bytes: &'c [u8],
        /// Real size of a trit.
        unit: f32,
    },
    /// Two-bit codes as Hugging Face packs them.
    Quarters {
        /// Bytes of the layout.
        bytes: &'c [u8],
        /// Real size of a trit.
        unit: f32,
    },
    /// Master weights `(rows, cols)`, quantised when loaded.
    Master {
        /// Little-endian floats.
        bytes: &'c [u8],
        /// Their type.
        float: FloatType,
    },
}

/// A ternary matrix in layout `rows128`, borrowed where the checkpoint already holds that.
#[derive(Debug, Clone)]
pub struct Rows128Matrix<'c> {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Bytes of the layout.
    pub bytes: Cow<'c, [u8]>,
    /// Real size of a trit.
    pub unit: f32,
}

impl Rows128Matrix<'_> {
    /// The codes as a typed view.
    ///
    /// # Panics
    ///
    /// Never: the length was checked when the matrix was made.
    #[must_use]
    pub fn view(&self) -> PackedTernary<'_, Rows128> {
        PackedTernary::new(&self.bytes, self.rows, self.cols).expect("checked by rows128()")
    }
}

/// A ternary matrix in layout `base3`, borrowed from the checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Base3Matrix<'c> {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Bytes of the layout.
    pub bytes: &'c [u8],
    /// Real size of a trit.
    pub unit: f32,
}

impl<'c> Base3Matrix<'c> {
    /// The digits as a typed view.
    ///
    /// # Panics
    ///
    /// Never: the length was checked when the matrix was made.
    #[must_use]
    pub fn view(&self) -> PackedBase3<'c> {
        PackedBase3::new(self.bytes, self.rows, self.cols).expect("checked by base3()")
    }
}

impl<'c> TernaryMatrix<'c> {
    /// Bytes of the stored weights.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        match &self.codes {
            Codes::Rows128 { bytes, .. }
            | Codes::Base3 { bytes, .. }
            | Codes::Quarters { bytes, .. }
            | Codes::Master { bytes, .. } => bytes.len(),
        }
    }

    /// The matrix where it is stored, if that is in layout `base3`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Code`] for bytes that do not fit the shape.
    pub fn base3(&self) -> Result<Option<Base3Matrix<'c>>, ModelError> {
        let &Self { rows, cols, .. } = self;
        let Codes::Base3 { bytes, unit } = self.codes else { return Ok(None) };
        PackedBase3::new(bytes, rows, cols).map_err(|source| self.damaged(source))?;
        Ok(Some(Base3Matrix { rows, cols, bytes, unit }))
    }

    /// The bytes of `layout`, and the real size of a trit.
    ///
    /// # Errors
    ///
    /// As [`rows128`](Self::rows128).
    pub fn packed(&self, layout: WeightLayout) -> Result<(Cow<'c, [u8]>, f32), ModelError> {
        let codes = self.rows128()?;
        Ok(match layout {
            WeightLayout::Rows128 => (codes.bytes, codes.unit),
            WeightLayout::Base3 => {
                let mut bytes = vec![0; self.rows * Base3::row_bytes(self.cols)];
                PackedBase3::pack(codes.view(), &mut bytes)
                    .map_err(|source| self.damaged(source))?;
                (Cow::Owned(bytes), codes.unit)
            }
        })
    }

    fn damaged(&self, source: LayoutError) -> ModelError {
        ModelError::Code { tensor: self.name.clone(), source }
    }

    /// The matrix in layout `rows128`: borrowed, repacked, unpacked or quantised.
    ///
    /// # Errors
    ///
    /// [`ModelError::Code`] for a code that is no trit and [`ModelError::Number`] for a master
    /// weight that is not finite.
    pub fn rows128(&self) -> Result<Rows128Matrix<'c>, ModelError> {
        let code_error = |source| self.damaged(source);
        let &Self { rows, cols, .. } = self;
        let mut packed = Vec::new();
        let (bytes, unit) = match self.codes {
            Codes::Rows128 { bytes, unit } => {
                let view = PackedTernary::<Rows128>::new(bytes, rows, cols).map_err(code_error)?;
                view.check_codes().map_err(code_error)?;
                (Cow::Borrowed(bytes), unit)
            }
            Codes::Base3 { bytes, unit } => {
                let view = PackedBase3::new(bytes, rows, cols).map_err(code_error)?;
                packed.resize(rows * Rows128::row_bytes(cols), 0);
                Simd::detect().unpack_base3(view, &mut packed).map_err(code_error)?;
                (Cow::Owned(packed), unit)
            }
            Codes::Quarters { bytes, unit } => {
                let view = PackedTernary::<Quarters>::new(bytes, rows, cols).map_err(code_error)?;
                packed.resize(rows * Rows128::row_bytes(cols), 0);
                repack::<Quarters, Rows128>(view, &mut packed).map_err(code_error)?;
                (Cow::Owned(packed), unit)
            }
            Codes::Master { bytes, float } => {
                packed.resize(rows * Rows128::row_bytes(cols), 0);
                let unit = self.quantize_master(bytes, float, &mut packed)?;
                (Cow::Owned(packed), unit)
            }
        };
        Ok(Rows128Matrix { rows, cols, bytes, unit })
    }

    /// Quantises master weights by their mean magnitude and returns the unit.
    ///
    /// `trit = clamp(round(w · s), −1, 1)` half to even, `s = 1 / max(mean |w|, 1e-5)`, unit `1 /
    /// s` (transformers 5.23.0 `integrations/bitnet.py`, `WeightQuant`). The mean is summed in
    /// `f64`.
    ///
    /// Weights that already are ternary, that is zero or one magnitude `c`, keep their signs and
    /// take `c` as unit: their mean would be `c` times the density.
    fn quantize_master(
        &self,
        bytes: &[u8],
        float: FloatType,
        packed: &mut [u8],
    ) -> Result<f32, ModelError> {
        let mut row = vec![0.0; self.cols];
        let row_bytes = self.cols * float.bytes();
        let mut sum = 0.0;
        let mut magnitude = 0.0_f32;
        let mut ternary = true;
        for bytes in bytes.chunks_exact(row_bytes) {
            float.decode(bytes, &mut row);
            for &weight in &row {
                let size = weight.abs();
                sum += f64::from(size);
                if size != 0.0 {
                    ternary &= magnitude == 0.0 || size == magnitude;
                    magnitude = size;
                }
            }
        }
        if !sum.is_finite() {
            #[allow(clippy::cast_possible_truncation, reason = "only shown")]
            let got = sum as f32;
            let (tensor, wanted) = (self.name.clone(), "finite numbers");
            return Err(ModelError::Number { tensor, got, wanted });
        }
        let ternary = ternary && magnitude >= MEAN_MIN;

        #[allow(clippy::cast_precision_loss, reason = "fewer than 2^40 weights")]
        let mean = sum / (self.rows * self.cols) as f64;
        #[allow(clippy::cast_possible_truncation, reason = "the unit is a single")]
        let factor = if ternary { 1.0 / magnitude } else { 1.0 / (mean as f32).max(MEAN_MIN) };
        let mut decoded = usize::MAX;
        let trit = |r: usize, c: usize| {
            if r != decoded {
                float.decode(&bytes[r * row_bytes..(r + 1) * row_bytes], &mut row);
                decoded = r;
            }
            // Half to even, then clamped to -1..=1: a half rounds to zero, everything beyond to
            // one.
            let x = row[c] * factor;
            i8::from(x > 0.5) - i8::from(x < -0.5)
        };
        pack::<Rows128>(self.rows, self.cols, trit, packed)
            .map_err(|source| self.damaged(source))?;
        Ok(if ternary { magnitude } else { 1.0 / factor })
    }
}
