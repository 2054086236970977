//! The layout of GGUF's `I2_S` tensors.

use super::{Layout, LayoutError, Place, elements, sealed::Sealed};

/// Flat blocks of 128 values with the unit behind them: GGUF `I2_S` as microsoft/BitNet writes it.
///
/// The matrix is one array of `n = rows·cols` values, row after row. Value `j` of each block of 128
/// sits in byte `j % 32` of 32 bytes, at shift `6 − 2·(j / 32)`; `code = trit + 1`. Behind the
/// `n/4` code bytes stand 32 more, of which the first four are the matrix's unit, a little-endian
/// `f32` to multiply by. `rows·cols` must be a multiple of 128; blocks may straddle rows.
///
/// [`pack`](super::pack) writes unit 1 and 28 zero bytes there; [`set_unit`](Self::set_unit)
/// replaces the unit. Files made by ARM builds since commit 112f853 use another block (64 values,
/// 16 bytes) under the same type number; this is not that layout, and the file does not say.
///
/// Source: microsoft/BitNet 16da220, `src/ggml-bitnet-mad.cpp` and
/// `utils/convert-hf-to-gguf-bitnet.py`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct I2s;

impl I2s {
    /// The unit: the real size of one trit, to multiply by. `codes` is a whole matrix.
    ///
    /// Exactly the bits in the file: NaN, infinity and negative numbers included.
    ///
    /// # Panics
    ///
    /// When `codes` is shorter than the 32 bytes behind the codes.
    pub fn unit(codes: &[u8]) -> f32 {
        let tail = codes.last_chunk::<{ I2s::TAIL }>().expect("an I2_S matrix has 32 tail bytes");
        f32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]])
    }

    /// Writes the unit of the matrix `codes`.
    ///
    /// # Panics
    ///
    /// When `codes` is shorter than the 32 bytes behind the codes.
    pub fn set_unit(codes: &mut [u8], unit: f32) {
        let tail =
            codes.last_chunk_mut::<{ I2s::TAIL }>().expect("an I2_S matrix has 32 tail bytes");
        tail[..4].copy_from_slice(&unit.to_le_bytes());
    }
}

impl Sealed for I2s {
    const EMPTY: u8 = 0b01_01_01_01;
    const TAIL: usize = 32;
}

impl Layout for I2s {
    const NAME: &'static str = "i2s";
    const ZERO_CODE: u8 = 1;

    fn bytes(rows: usize, cols: usize) -> Result<usize, LayoutError> {
        let elements = elements(rows, cols)?;
        if !elements.is_multiple_of(128) {
            let rule = "`rows * cols` must be a multiple of 128";
            return Err(LayoutError::Ragged { rows, cols, layout: Self::NAME, rule });
        }
        // No overflow: a quarter of a usize and 32.
        Ok(elements / 4 + Self::TAIL)
    }

    fn place(_rows: usize, cols: usize, row: usize, col: usize) -> Place {
        let index = row * cols + col;
        place_in_block(index / 128, index % 128)
    }
}

/// Place of value `value < 128` of the `block`-th 32 bytes.
pub(super) fn place_in_block(block: usize, value: usize) -> Place {
    Place { byte: 32 * block + value % 32, shift: 6 - 2 * (value / 32) as u32 }
}
