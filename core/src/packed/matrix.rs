//! Borrowed codes whose length fits their shape.

use core::{fmt, marker::PhantomData};

use super::{Layout, LayoutError};

/// A ternary matrix `(rows, cols)` in borrowed bytes of layout `L`.
///
/// Rows are output features, columns input features. [`new`](Self::new) is the only door, so the
/// length always fits the shape. Whether every code is a trit is another question, which costs a
/// pass over the bytes: [`check_codes`](Self::check_codes). Kernels stay defined either way (an
/// invalid code counts as `code − ZERO_CODE`, which is not a trit), so a broken file cannot do more
/// than give wrong numbers.
#[derive(Clone, Copy)]
pub struct PackedTernary<'a, L> {
    codes: &'a [u8], // L::bytes(rows, cols) long
    rows: usize,
    cols: usize,
    layout: PhantomData<L>,
}

impl<'a, L: Layout> PackedTernary<'a, L> {
    /// Views `codes` as a `(rows, cols)` matrix. Reads no code and copies nothing.
    ///
    /// # Errors
    ///
    /// What [`Layout::bytes`] says of the shape, and [`LayoutError::Length`] unless `codes` has
    /// exactly that length.
    pub fn new(codes: &'a [u8], rows: usize, cols: usize) -> Result<Self, LayoutError> {
        check_length::<L>(codes.len(), rows, cols)?;
        Ok(Self::cut(codes, rows, cols))
    }

    /// A part of a checked matrix; the caller has cut `codes` to fit.
    pub(super) fn cut(codes: &'a [u8], rows: usize, cols: usize) -> Self {
        debug_assert_eq!(L::bytes(rows, cols), Ok(codes.len()), "the cut does not fit its shape");
        Self { codes, rows, cols, layout: PhantomData }
    }

    /// Rows: output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: input features. At most [`COLS_MAX`](crate::COLS_MAX).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All bytes, padding and tail included.
    pub fn codes(&self) -> &'a [u8] {
        self.codes
    }

    /// The two bits at `(row, col)`, 0..=3, whether they stand for a trit or not.
    ///
    /// # Panics
    ///
    /// When `(row, col)` lies outside the matrix.
    pub fn code(&self, row: usize, col: usize) -> u8 {
        assert!(
            row < self.rows && col < self.cols,
            "element ({row}, {col}) of a {} x {} matrix",
            self.rows,
            self.cols
        );
        self.code_or_padding(row, col)
    }

    /// The trit at `(row, col)`; `None` for a code that is no trit.
    ///
    /// # Panics
    ///
    /// When `(row, col)` lies outside the matrix.
    pub fn trit(&self, row: usize, col: usize) -> Option<i8> {
        let trit = self.code(row, col) as i8 - L::ZERO_CODE as i8; // both at most 3
        matches!(trit, -1..=1).then_some(trit)
    }

    /// Checks that every code is a trit and that padding that counts holds the code of zero.
    ///
    /// Reads all bytes once, eight at a time. To be called once where bytes come in from the world.
    /// The places of [`Quarters`](super::Quarters) that belong to no row and the tail of
    /// [`I2s`](super::I2s) are not looked at.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Code`] with the first invalid code in row-major order.
    pub fn check_codes(&self) -> Result<(), LayoutError> {
        let padded_cols = L::padded_cols(self.cols);
        let code_bytes = &self.codes[..self.codes.len() - L::TAIL];
        // The quick look cannot tell padding from codes, so its "no" only says where to look
        // closer.
        let first = if all_trits::<L>(code_bytes) { self.cols } else { 0 };
        if first == padded_cols {
            return Ok(());
        }
        for row in 0..self.rows {
            for col in first..padded_cols {
                let code = self.code_or_padding(row, col);
                let valid = if col < self.cols {
                    code.abs_diff(L::ZERO_CODE) <= 1
                } else {
                    code == L::ZERO_CODE
                };
                if !valid {
                    return Err(LayoutError::Code { row, col, code });
                }
            }
        }
        Ok(())
    }

    fn code_or_padding(&self, row: usize, col: usize) -> u8 {
        let place = L::place(self.rows, self.cols, row, col);
        self.codes[place.byte] >> place.shift & 3
    }
}

impl<L: Layout> fmt::Debug for PackedTernary<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The shape, not a hundred megabytes of codes.
        f.debug_struct("PackedTernary")
            .field("layout", &L::NAME)
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .field("bytes", &self.codes.len())
            .finish()
    }
}

/// That `got` bytes are what `(rows, cols)` needs in `L`.
pub(super) fn check_length<L: Layout>(
    got: usize,
    rows: usize,
    cols: usize,
) -> Result<(), LayoutError> {
    let expected = L::bytes(rows, cols)?;
    if got == expected { Ok(()) } else { Err(LayoutError::Length { expected, got }) }
}

/// Whether all codes of all bytes stand for trits.
fn all_trits<L: Layout>(bytes: &[u8]) -> bool {
    // Codes ZERO−1, ZERO, ZERO+1 are trits. The one code left is 3 for ZERO = 1 and 0 for ZERO = 2:
    // two ones, or two ones after a complement.
    const { assert!(L::ZERO_CODE == 1 || L::ZERO_CODE == 2, "no other zero code is in use") };
    let complement = if L::ZERO_CODE == 2 { u64::MAX } else { 0 };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [L::ZERO_CODE * 0b01_01_01_01; 8];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().chain([&last]).fold(0, |found, word| {
        let word = u64::from_le_bytes(*word) ^ complement;
        found | word & word >> 1 & 0x5555_5555_5555_5555
    }) == 0
}
