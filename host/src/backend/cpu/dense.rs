//! One stored row of floats times several rows of activations.

use crate::floats::FloatType;
use crate::math;

/// Rows at a time: a stored row is decoded once for all of them.
const BATCH: usize = 8;

/// `out[b] = dot(weights, rows[b])` for stored weights `(cols,)` and `rows`, `(out.len(), stride)`,
/// of which the first `cols` elements count.
#[inline(always)]
pub(super) fn multiply_row(
    float: FloatType,
    weights: &[u8],
    rows: &[f32],
    stride: usize,
    out: &mut [f32],
) {
    for (out, rows) in out.chunks_mut(BATCH).zip(rows.chunks(BATCH * stride)) {
        let mut lanes = [[0.0; math::DOT_LANES]; BATCH];
        let mut first = 0;
        for weights in weights.chunks(math::DOT_STRETCH * float.bytes()) {
            // The last stretch is padded with zeros, as `dot` pads.
            let mut decoded = [0.0; math::DOT_STRETCH];
            let count = weights.len() / float.bytes();
            float.decode(weights, &mut decoded[..count]);
            for (lanes, row) in lanes.iter_mut().zip(rows.chunks(stride)) {
                let row = &row[first..first + count];
                match row.first_chunk() {
                    Some(row) => math::add_products(&decoded, row, lanes),
                    None => {
                        let mut padded = [0.0; math::DOT_STRETCH];
                        padded[..count].copy_from_slice(row);
                        math::add_products(&decoded, &padded, lanes);
                    }
                }
            }
            first += count;
        }
        for (out, lanes) in out.iter_mut().zip(&lanes) {
            *out = math::fold(lanes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_row_is_multiplied_as_dot_multiplies() {
        let number = |i: usize| (i as f32 * 0.37).sin();
        for cols in [1, 100, 128, 130, 512] {
            let weights: Vec<f32> = (0..cols).map(number).collect();
            let bytes: Vec<u8> = weights.iter().flat_map(|x| x.to_le_bytes()).collect();
            for batch in [1, 7, 8, 9, 20] {
                let stride = cols + batch % 3;
                let rows: Vec<f32> = (0..batch * stride).map(|i| number(i + 9)).collect();
                let mut out = vec![f32::NAN; batch];
                multiply_row(FloatType::F32, &bytes, &rows, stride, &mut out);
                for (out, row) in out.iter().zip(rows.chunks_exact(stride)) {
                    assert_eq!(*out, math::dot(&weights, &row[..cols]), "{cols} {batch}");
                }
            }
        }
    }
}
