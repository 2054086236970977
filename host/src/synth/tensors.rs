//! [`Tensor`]: one tensor of a preset, and how its numbers are made.

use half::bf16;
use tercet_core::packed::{
    Base3, Layout, LayoutError, PackedBase3, PackedTernary, Quarters, Rows128, repack,
};

use super::random::Random;
use crate::error::Error;
use crate::floats::FloatType;
use crate::model::ModelError;

/// Exponent of the magnitude of embeddings and biases: `2^-5` to `2^-4`, so that logits are a few
/// units.
const TABLE_EXPONENT: i32 = -5;
/// Exponent of norm weights: a half to one, positive.
const NORM_EXPONENT: i32 = -1;
/// Share of trits that are not zero, as [`Random::codes`] makes them.
const DENSITY: f64 = 43.0 / 64.0;

/// Takes the next bytes of a tensor.
pub(super) type Take<'t> = &'t mut dyn FnMut(&[u8]) -> Result<(), Error>;

/// What a tensor is for, which says what its numbers look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A ternary linear.
    Ternary,
    /// A linear of floats.
    Float,
    /// An embedding or the head.
    Table,
    /// Weights of a norm.
    Norm,
    /// What a linear or a norm adds.
    Bias,
}

/// A tensor to be made.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    /// Name in a Hugging Face checkpoint.
    pub(super) name: String,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) role: Role,
}

impl Tensor {
    /// Real size of a trit: the power of two nearest to `1 / √(non-zero trits of a row)`, so that
    /// an input of variance one gives an output of variance near one, and so that every format
    /// (singles, bfloat16, one over it) holds it exactly.
    pub(super) fn unit(&self) -> f32 {
        #[allow(clippy::cast_precision_loss, reason = "fewer than 2^17 columns")]
        let exponent = -(DENSITY * self.cols as f64).log2() / 2.0;
        #[allow(clippy::cast_possible_truncation, reason = "between -9 and 0")]
        let unit = exponent.round().exp2() as f32;
        unit
    }

    /// Exponent of the magnitudes of a float linear: as [`Self::unit`], for numbers that are
    /// uniform from one power of two to the next (their mean square is 7/3 of the lower one's).
    fn float_exponent(&self) -> i32 {
        #[allow(clippy::cast_precision_loss, reason = "fewer than 2^17 columns")]
        let exponent = -(self.cols as f64 * 7.0 / 3.0).log2() / 2.0;
        #[allow(clippy::cast_possible_truncation, reason = "between -10 and 0")]
        let exponent = exponent.round() as i32;
        exponent
    }

    /// Elements of the tensor's shape in files.
    pub(super) fn shape(&self) -> Vec<usize> {
        match self.role {
            Role::Norm | Role::Bias => vec![self.cols],
            Role::Ternary | Role::Float | Role::Table => vec![self.rows, self.cols],
        }
    }

    /// Makes the codes of a ternary tensor in layout `rows128`, whole rows at a time.
    pub(super) fn codes(&self, seed: u64, take: Take<'_>) -> Result<(), Error> {
        let row_bytes = Rows128::row_bytes(self.cols);
        // Four rows are whole steps of the generator, so the pieces do not show in the numbers.
        let piece_rows = (PIECE_BYTES / row_bytes).next_multiple_of(4);
        let mut random = Random::new(seed, &self.name);
        let mut piece = vec![0; piece_rows * row_bytes];
        let padding = Padding::of(self.cols);
        let mut first = 0;
        while first < self.rows {
            let rows = piece_rows.min(self.rows - first);
            let piece = &mut piece[..rows * row_bytes];
            random.codes(piece);
            padding.clear(piece);
            take(piece)?;
            first += rows;
        }
        Ok(())
    }

    /// The same trits in layout `base3`.
    pub(super) fn base3(&self, seed: u64, take: Take<'_>) -> Result<(), Error> {
        let mut bytes = Vec::new();
        self.codes(seed, &mut |piece| {
            let rows = piece.len() / Rows128::row_bytes(self.cols);
            bytes.resize(rows * Base3::row_bytes(self.cols), 0);
            let view = PackedTernary::<Rows128>::new(piece, rows, self.cols);
            let packed = view.and_then(|view| PackedBase3::pack(view, &mut bytes));
            packed.map_err(|source| self.damaged(source))?;
            take(&bytes)
        })
    }

    fn damaged(&self, source: LayoutError) -> ModelError {
        ModelError::Code { tensor: self.name.clone(), source }
    }

    /// The same codes as Hugging Face packs them; takes the whole tensor at once.
    pub(super) fn quarters(&self, seed: u64, take: Take<'_>) -> Result<(), Error> {
        let mut codes = Vec::with_capacity(self.rows * Rows128::row_bytes(self.cols));
        self.codes(seed, &mut |piece| {
            codes.extend_from_slice(piece);
            Ok(())
        })?;
        let mut packed = vec![0; self.rows.div_ceil(4) * self.cols];
        let view = PackedTernary::new(&codes, self.rows, self.cols);
        view.and_then(|view| repack::<Rows128, Quarters>(view, &mut packed))
            .map_err(|source| self.damaged(source))?;
        take(&packed)
    }

    /// The same trits times their unit, in bfloat16.
    pub(super) fn master(&self, seed: u64, take: Take<'_>) -> Result<(), Error> {
        let unit = bf16::from_f32(self.unit());
        // By code: minus one, zero, one, and the code that is no trit.
        let halves = [-unit, bf16::ZERO, unit, bf16::ZERO].map(bf16::to_le_bytes);
        let mut floats = Vec::new();
        self.codes(seed, &mut |piece| {
            floats.clear();
            for row in piece.chunks_exact(Rows128::row_bytes(self.cols)) {
                let end = floats.len() + 2 * self.cols;
                for block in row.as_chunks::<{ Rows128::BLOCK_BYTES }>().0 {
                    for shift in [6, 4, 2, 0] {
                        let codes = block.iter().map(|byte| byte >> shift & 3);
                        floats.extend(codes.flat_map(|code| halves[usize::from(code)]));
                    }
                }
                floats.truncate(end);
            }
            take(&floats)
        })
    }

    /// Makes the floats of any other tensor.
    pub(super) fn floats(&self, seed: u64, float: FloatType, take: Take<'_>) -> Result<(), Error> {
        let (exponent, sign) = match self.role {
            Role::Norm => (NORM_EXPONENT, 0),
            Role::Table | Role::Bias => (TABLE_EXPONENT, 0x8000),
            Role::Ternary | Role::Float => (self.float_exponent(), 0x8000),
        };
        // The bits of a power of two, and those of the mantissa.
        let (biased, places, mantissa) = match float {
            FloatType::F16 => (exponent + 15, 10, 0x03FF),
            // Of a single, the upper half; the lower one is mantissa.
            FloatType::Bf16 | FloatType::F32 => (exponent + 127, 7, 0x007F),
        };
        let bits = u16::try_from(biased << places).expect("an exponent within the type's range");
        let mut random = Random::new(seed, &self.name);
        let (mut piece, mut lower) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
        let mut singles = Vec::new();
        let mut left = self.rows * self.cols * 2;
        while left > 0 {
            let piece = &mut piece[..PIECE_BYTES.min(left)];
            random.floats(bits, mantissa | sign, piece);
            left -= piece.len();
            if float != FloatType::F32 {
                take(piece)?;
                continue;
            }
            let lower = &mut lower[..piece.len()];
            random.floats(0, u16::MAX, lower);
            let halves = lower.as_chunks::<2>().0.iter().zip(piece.as_chunks::<2>().0);
            singles.clear();
            singles
                .extend(halves.flat_map(|(lower, upper)| [lower[0], lower[1], upper[0], upper[1]]));
            take(&singles)?;
        }
        Ok(())
    }
}

/// Bytes made at a time: they stay in the second cache until they are written.
const PIECE_BYTES: usize = 1 << 18;

/// The bits of a row's last block that belong to no column: they hold the code of zero.
struct Padding {
    row_bytes: usize,
    /// Per byte of the last block: the bits that count.
    keep: [u8; Rows128::BLOCK_BYTES],
}

impl Padding {
    fn of(cols: usize) -> Self {
        let row_bytes = Rows128::row_bytes(cols);
        let padded = Rows128::padded_cols(cols);
        let mut keep = [0xFF; Rows128::BLOCK_BYTES];
        for col in cols..padded {
            let place = Rows128::place(1, padded, 0, col);
            keep[place.byte % Rows128::BLOCK_BYTES] &= !(3 << place.shift);
        }
        Self { row_bytes, keep }
    }

    fn clear(&self, rows: &mut [u8]) {
        const ZEROS: u8 = Rows128::ZERO_CODE * 0b01_01_01_01;
        for row in rows.chunks_exact_mut(self.row_bytes) {
            if let Some(block) = row.last_chunk_mut::<{ Rows128::BLOCK_BYTES }>() {
                for (byte, keep) in block.iter_mut().zip(self.keep) {
                    *byte = *byte & keep | ZEROS & !keep;
                }
            }
        }
    }
}
