//! Writing a layout, and going from one to another.

use super::{
    I2s, Layout, LayoutError, Mma16x128, PackedTernary, Quarters, Rows128, matrix::check_length,
    sealed::Sealed,
};

/// Writes `trit(row, col)` of a `(rows, cols)` matrix into `out` in layout `L`.
///
/// Calls `trit` once for every element, row after row. All of `out` is written: padding as the
/// layout says, and a unit of 1 behind [`I2s`].
///
/// # Errors
///
/// What [`Layout::bytes`] says of the shape, and [`LayoutError::Length`] unless `out` has exactly
/// that length; `out` is then untouched.
///
/// # Panics
///
/// When `trit` returns anything but −1, 0 or 1.
pub fn pack<L: Layout>(
    rows: usize,
    cols: usize,
    mut trit: impl FnMut(usize, usize) -> i8,
    out: &mut [u8],
) -> Result<(), LayoutError> {
    check_length::<L>(out.len(), rows, cols)?;
    clear::<L>(out);
    if cols == 0 {
        return Ok(()); // `rows` may be any number here
    }
    for row in 0..rows {
        for col in 0..cols {
            let trit = trit(row, col);
            assert!(matches!(trit, -1..=1), "{trit} at ({row}, {col}) is not a trit");
            let code = (L::ZERO_CODE as i8 + trit) as u8; // 0..=3, as ZERO_CODE is 1 or 2
            let place = L::place(rows, cols, row, col);
            let byte = &mut out[place.byte];
            *byte = *byte & !(3 << place.shift) | code << place.shift;
        }
    }
    Ok(())
}

/// Writes the matrix `from` into `out` in layout `B`.
///
/// Defined as [`pack`] of `from`'s trits. [`Quarters`] to [`Rows128`] and back, [`Rows128`] to
/// [`Mma16x128`], and between [`I2s`] and [`Rows128`] where their bytes are equal, take a way that
/// handles whole bytes. The unit
/// behind an [`I2s`] source is not carried over: it belongs to the caller ([`I2s::unit`]).
///
/// # Errors
///
/// [`LayoutError::Code`] when `from` holds an invalid code
/// ([`check_codes`](PackedTernary::check_codes)), and what [`pack`] says of shape and length; `out`
/// is then untouched.
pub fn repack<A: Layout, B: Layout>(
    from: PackedTernary<'_, A>,
    out: &mut [u8],
) -> Result<(), LayoutError> {
    let (rows, cols) = (from.rows(), from.cols());
    check_length::<B>(out.len(), rows, cols)?;
    from.check_codes()?;
    match (A::NAME, B::NAME) {
        (Quarters::NAME, Rows128::NAME) => {
            quarters_to_rows(from.codes(), rows, cols, out);
            Ok(())
        }
        (Rows128::NAME, Quarters::NAME) => {
            rows_to_quarters(from.codes(), rows, cols, out);
            Ok(())
        }
        (Rows128::NAME, Mma16x128::NAME) => {
            clear::<B>(out);
            let codes = from.codes();
            Mma16x128::place_rows(PackedTernary::cut(codes, rows, cols), 0, out);
            Ok(())
        }
        // Where no row needs padding the two layouts agree in all code bytes.
        (I2s::NAME, Rows128::NAME) | (Rows128::NAME, I2s::NAME)
            if cols.is_multiple_of(Rows128::BLOCK_COLS) =>
        {
            clear::<B>(out);
            let code_bytes = rows * Rows128::row_bytes(cols);
            out[..code_bytes].copy_from_slice(&from.codes()[..code_bytes]);
            Ok(())
        }
        _ => repack_each::<A, B>(from, out),
    }
}

/// `repack` as it is defined, element by element; the codes have been checked.
pub(crate) fn repack_each<A: Layout, B: Layout>(
    from: PackedTernary<'_, A>,
    out: &mut [u8],
) -> Result<(), LayoutError> {
    let trit = |row, col| from.trit(row, col).expect("all codes have been checked");
    pack::<B>(from.rows(), from.cols(), trit, out)
}

/// Writes what stands in `L` where no trit has been written.
fn clear<L: Layout>(out: &mut [u8]) {
    let (codes, tail) = out.split_at_mut(out.len() - L::TAIL);
    codes.fill(L::EMPTY);
    tail.fill(0);
    if L::NAME == I2s::NAME {
        I2s::set_unit(out, 1.0);
    }
}

/// Codes of one block of 128 columns: four rows a byte in, four columns a byte out.
///
/// `by_col[c]` holds column `c` of rows 0..4, lowest bits first; result `[r][j]` holds columns
/// `j, 32 + j, 64 + j, 96 + j` of row `r`, highest bits first. A 4 x 4 transposition of codes.
fn cols_to_rows(by_col: &[u8; 128]) -> [[u8; 32]; 4] {
    let mut by_row = [[0; 32]; 4];
    for (row, bytes) in by_row.iter_mut().enumerate() {
        for (j, byte) in bytes.iter_mut().enumerate() {
            let code = |group: usize| by_col[32 * group + j] >> (2 * row) & 3;
            *byte = code(0) << 6 | code(1) << 4 | code(2) << 2 | code(3);
        }
    }
    by_row
}

/// The inverse of `cols_to_rows`.
fn rows_to_cols(by_row: &[[u8; 32]; 4]) -> [u8; 128] {
    let mut by_col = [0; 128];
    for (group, bytes) in by_col.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (j, byte) in bytes.iter_mut().enumerate() {
            let code = |row: usize| by_row[row][j] >> (6 - 2 * group) & 3;
            *byte = code(0) | code(1) << 2 | code(2) << 4 | code(3) << 6;
        }
    }
    by_col
}

/// `from` and `out` hold a `(rows, cols)` matrix as `Quarters` and as `Rows128`.
fn quarters_to_rows(from: &[u8], rows: usize, cols: usize, out: &mut [u8]) {
    if cols == 0 {
        return;
    }
    let quarter = rows.div_ceil(4);
    let row_bytes = Rows128::row_bytes(cols);
    for (packed_row, from) in from.chunks_exact(cols).enumerate() {
        for (block, from) in from.chunks(Rows128::BLOCK_COLS).enumerate() {
            let mut by_col = [Rows128::EMPTY; Rows128::BLOCK_COLS];
            by_col[..from.len()].copy_from_slice(from);
            for (i, bytes) in cols_to_rows(&by_col).iter().enumerate() {
                let row = packed_row + i * quarter;
                if row < rows {
                    out[row * row_bytes + block * 32..][..32].copy_from_slice(bytes);
                }
            }
        }
    }
}

/// The inverse of `quarters_to_rows`; places that belong to no row become code 0.
fn rows_to_quarters(from: &[u8], rows: usize, cols: usize, out: &mut [u8]) {
    if cols == 0 {
        return;
    }
    let quarter = rows.div_ceil(4);
    let row_bytes = Rows128::row_bytes(cols);
    for (packed_row, out) in out.chunks_exact_mut(cols).enumerate() {
        for (block, out) in out.chunks_mut(Rows128::BLOCK_COLS).enumerate() {
            let mut by_row = [[0; 32]; 4];
            for (i, bytes) in by_row.iter_mut().enumerate() {
                let row = packed_row + i * quarter;
                if row < rows {
                    bytes.copy_from_slice(&from[row * row_bytes + block * 32..][..32]);
                }
            }
            out.copy_from_slice(&rows_to_cols(&by_row)[..out.len()]);
        }
    }
}
