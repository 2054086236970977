//! Five trits a byte: 1.6 bits a weight.

use core::{fmt, ops::Range};

use super::{COLS_MAX, Layout, LayoutError, PackedTernary, Rows128, pack};

/// Rows padded to whole blocks of 320 columns, 64 bytes of five base-3 digits each.
///
/// Byte `j` of a block holds columns `j`, `64 + j`, `128 + j`, `192 + j` and `256 + j`, the first
/// as the most significant of five digits; `digit = trit + 1`. A byte is the number
/// `v = Σ digit_n · 3^(4 − n)` as a fraction of 1 in 256ths, rounded up: `q = ⌈256 · v / 243⌉`. So
/// tripling a byte pushes its first digit out at the top, `digit = 3·q >> 8`, and leaves the
/// fraction of the other four, `q ← 3·q mod 256`: decoding needs neither a division nor a table.
///
/// Every byte stands for five trits, so nothing that can stand in a buffer is invalid; 13 of the
/// 256 bytes say what another says. Padding is written as trit 0, and a byte of five zeros is
/// 0x80.
///
/// Not a [`Layout`], whose codes are two bits at a place of their own. For products with one row of
/// values, where the time goes into reading weights; see [`Simd::gemv_base3`](crate::Simd).
///
/// Source: the bytes of GGUF's `TQ1_0` (ggml, `quantize_row_tq1_0_ref`), in blocks of our own that
/// hold neither units nor bytes of four trits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base3;

impl Base3 {
    /// Stable name, written into files. Never changes its meaning.
    pub const NAME: &'static str = "base3";

    /// Columns of one block.
    pub const BLOCK_COLS: usize = 320;

    /// Bytes of one block.
    pub const BLOCK_BYTES: usize = 64;

    /// `cols` rounded up to whole blocks; how many values a kernel reads of a row of activations.
    ///
    /// Does not overflow for `cols ≤ COLS_MAX`, which every [`PackedBase3`] keeps.
    pub const fn padded_cols(cols: usize) -> usize {
        cols.next_multiple_of(Self::BLOCK_COLS)
    }

    /// Bytes of one row of `cols` columns.
    pub const fn row_bytes(cols: usize) -> usize {
        cols.div_ceil(Self::BLOCK_COLS) * Self::BLOCK_BYTES
    }

    /// Exact length in bytes of a `(rows, cols)` matrix. Zero rows or columns are allowed.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Overflow`] when the length exceeds `usize` or `cols` exceeds [`COLS_MAX`].
    pub fn bytes(rows: usize, cols: usize) -> Result<usize, LayoutError> {
        let overflow = LayoutError::Overflow { rows, cols };
        if cols > COLS_MAX || rows.checked_mul(cols).is_none() {
            return Err(overflow);
        }
        rows.checked_mul(Self::row_bytes(cols)).ok_or(overflow)
    }
}

/// The byte of five digits, each 0..=2, the first the most significant.
const fn byte_of(digits: [u8; 5]) -> u8 {
    let [a, b, c, d, e] = digits;
    let v = (((a as u16 * 3 + b as u16) * 3 + c as u16) * 3 + d as u16) * 3 + e as u16;
    (v * 256).div_ceil(243) as u8 // v ≤ 242: at most 255, and 242 · 256 < 2¹⁶
}

/// Digit `n` of a byte, 0..=2.
const fn digit_of(byte: u8, n: usize) -> u8 {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let fraction = byte.wrapping_mul(POWERS[n]);
    ((fraction as u16 * 3) >> 8) as u8
}

/// A ternary matrix `(rows, cols)` in borrowed bytes of [`Base3`].
///
/// Rows are output features, columns input features. [`new`](Self::new) and
/// [`pack`](Self::pack) are the only doors, so the length always fits the shape, and any bytes of
/// that length are a matrix.
#[derive(Clone, Copy)]
pub struct PackedBase3<'a> {
    bytes: &'a [u8], // Base3::bytes(rows, cols) long
    rows: usize,
    cols: usize,
}

impl<'a> PackedBase3<'a> {
    /// Views `bytes` as a `(rows, cols)` matrix. Reads no byte and copies nothing.
    ///
    /// # Errors
    ///
    /// What [`Base3::bytes`] says of the shape, and [`LayoutError::Length`] unless `bytes` has
    /// exactly that length.
    pub fn new(bytes: &'a [u8], rows: usize, cols: usize) -> Result<Self, LayoutError> {
        check_length(bytes.len(), rows, cols)?;
        Ok(Self { bytes, rows, cols })
    }

    /// Writes the matrix `from`, of any layout, into `out`, and views it.
    ///
    /// From [`Rows128`] block by block, which is how weights are repacked while they are loaded.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Code`] when `from` holds an invalid code, and what [`new`](Self::new) says of
    /// shape and length; `out` is then untouched.
    pub fn pack<L: Layout>(
        from: PackedTernary<'_, L>,
        out: &'a mut [u8],
    ) -> Result<Self, LayoutError> {
        let (rows, cols) = (from.rows(), from.cols());
        check_length(out.len(), rows, cols)?;
        from.check_codes()?;
        if cols > 0 {
            let row_bytes = Base3::row_bytes(cols);
            for (row, out) in out.chunks_exact_mut(row_bytes).enumerate() {
                pack_row(from, row, out);
            }
        }
        Ok(Self { bytes: out, rows, cols })
    }

    /// Writes the matrix into `out` in layout `L`.
    ///
    /// # Errors
    ///
    /// Those of [`pack`](super::pack()).
    pub fn unpack<L: Layout>(self, out: &mut [u8]) -> Result<(), LayoutError> {
        pack::<L>(self.rows, self.cols, |row, col| self.trit(row, col), out)
    }

    /// Rows: output features.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Columns: input features. At most [`COLS_MAX`].
    pub fn cols(self) -> usize {
        self.cols
    }

    /// All bytes, padding included.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The trit at `(row, col)`.
    ///
    /// # Panics
    ///
    /// When `(row, col)` lies outside the matrix.
    pub fn trit(self, row: usize, col: usize) -> i8 {
        let (rows, cols) = (self.rows, self.cols);
        assert!(row < rows && col < cols, "element ({row}, {col}) of a {rows} x {cols} matrix");
        let (block, col) = (col / Base3::BLOCK_COLS, col % Base3::BLOCK_COLS);
        let byte = self.row_blocks(row)[block][col % Base3::BLOCK_BYTES];
        digit_of(byte, col / Base3::BLOCK_BYTES) as i8 - 1 // 0..=2
    }

    /// The rows `rows` as a matrix `(rows.len(), cols)` of its own; how work is split over threads.
    ///
    /// # Panics
    ///
    /// When the range does not lie in `0..self.rows()`.
    pub fn row_range(self, rows: Range<usize>) -> Self {
        assert!(
            rows.start <= rows.end && rows.end <= self.rows,
            "rows {rows:?} of a matrix with {} rows",
            self.rows
        );
        let row_bytes = Base3::row_bytes(self.cols);
        let bytes = &self.bytes[rows.start * row_bytes..rows.end * row_bytes];
        Self { bytes, rows: rows.len(), cols: self.cols }
    }

    /// The bytes of one row: `⌈cols / 320⌉` blocks of 64.
    ///
    /// # Panics
    ///
    /// When `row` is not below `self.rows()`.
    pub fn row_blocks(self, row: usize) -> &'a [[u8; Base3::BLOCK_BYTES]] {
        assert!(row < self.rows, "row {row} of a matrix with {} rows", self.rows);
        let row_bytes = Base3::row_bytes(self.cols);
        self.bytes[row * row_bytes..][..row_bytes].as_chunks().0
    }
}

impl fmt::Debug for PackedBase3<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The shape, not a hundred megabytes of digits.
        f.debug_struct("PackedBase3")
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// That `got` bytes are what `(rows, cols)` needs.
fn check_length(got: usize, rows: usize, cols: usize) -> Result<(), LayoutError> {
    let expected = Base3::bytes(rows, cols)?;
    if got == expected { Ok(()) } else { Err(LayoutError::Length { expected, got }) }
}

/// Writes row `row` of `from`, whose codes have been checked.
fn pack_row<L: Layout>(from: PackedTernary<'_, L>, row: usize, out: &mut [u8]) {
    let cols = from.cols();
    for (block, out) in out.as_chunks_mut::<{ Base3::BLOCK_BYTES }>().0.iter_mut().enumerate() {
        let first = block * Base3::BLOCK_COLS;
        let mut digits = [1; Base3::BLOCK_COLS]; // padding is trit 0
        let digits_here = &mut digits[..Base3::BLOCK_COLS.min(cols - first)];
        if L::NAME == Rows128::NAME {
            digits_of_rows128(from.codes(), row * Rows128::row_bytes(cols), first, digits_here);
        } else {
            for (col, digit) in digits_here.iter_mut().enumerate() {
                *digit = from.code(row, first + col) - (L::ZERO_CODE - 1); // a trit's code
            }
        }
        let group = |n: usize| &digits[n * Base3::BLOCK_BYTES..][..Base3::BLOCK_BYTES];
        let groups = [group(0), group(1), group(2), group(3), group(4)];
        for (j, byte) in out.iter_mut().enumerate() {
            *byte = byte_of(groups.map(|digits| digits[j]));
        }
    }
}

/// The codes of columns `first..` of the row of [`Rows128`] that begins at byte `at`: stretches of
/// 32 columns stand in 32 neighbouring bytes. `first` is a multiple of 32.
fn digits_of_rows128(codes: &[u8], at: usize, first: usize, digits: &mut [u8]) {
    for (stretch, digits) in digits.chunks_mut(Rows128::BLOCK_BYTES).enumerate() {
        let col = first + stretch * Rows128::BLOCK_BYTES;
        let (block, col) = (col / Rows128::BLOCK_COLS, col % Rows128::BLOCK_COLS);
        let shift = 6 - 2 * (col / Rows128::BLOCK_BYTES);
        let bytes = &codes[at + block * Rows128::BLOCK_BYTES..][..Rows128::BLOCK_BYTES];
        for (digit, byte) in digits.iter_mut().zip(bytes) {
            *digit = byte >> shift & 3;
        }
    }
}
