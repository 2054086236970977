//! Float loops with one order of operations, so that every SIMD level gives the same bits.
//!
//! Each function is plain Rust with explicit lanes, to be inlined into
//! [`Simd::vectorize`](tercet_core::simd::Simd::vectorize). Rust never contracts a product and a
//! sum into one rounding, so widening the registers changes the speed and nothing else.

/// The greatest of 32 numbers, NaN ignored and `-inf` for nothing else; the order does not matter.
#[inline(always)]
pub(crate) fn peak(x: &[f32; 32]) -> f32 {
    // Not `f32::max`: whether either side is NaN takes it three instructions, none of which the
    // compiler makes a vector of. A comparison with NaN keeps what is there, which never is.
    let greater = |peak: f32, x: f32| if x > peak { x } else { peak };
    let mut peaks = [f32::NEG_INFINITY; 16];
    for half in x.as_chunks::<16>().0 {
        for (peak, x) in peaks.iter_mut().zip(half) {
            *peak = greater(*peak, *x);
        }
    }
    let x: [f32; 8] = core::array::from_fn(|i| greater(peaks[i], peaks[i + 8]));
    let x: [f32; 4] = core::array::from_fn(|i| greater(x[i], x[i + 4]));
    greater(greater(x[0], x[2]), greater(x[1], x[3]))
}

/// `Σ x[i]` of 32 numbers: the upper half onto the lower half until one is left, which is how
/// vectors are folded.
#[inline(always)]
pub(crate) fn fold(x: &[f32; 32]) -> f32 {
    let x: [f32; 16] = core::array::from_fn(|i| x[i] + x[i + 16]);
    let x: [f32; 8] = core::array::from_fn(|i| x[i] + x[i + 8]);
    let x: [f32; 4] = core::array::from_fn(|i| x[i] + x[i + 4]);
    (x[0] + x[2]) + (x[1] + x[3])
}

/// Leaves of one subtree of [`sum`].
const SUBTREE: usize = 64;

/// `Σ x[i]²` in the order of [`sum`].
#[inline(always)]
pub(crate) fn sum_of_squares(x: &[f32]) -> f32 {
    tree(
        x,
        #[inline(always)]
        |x| x * x,
    )
}

/// `Σ x[i]` as a binary tree over the index, padded with zeros to a power of two: every node is the
/// sum of its two neighbours.
///
/// This is Tercet's canonical order on every device: any aligned power-of-two stretch of the row
/// has a partial sum of its own, so a kernel may let each block of rows contribute its part.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    tree(
        x,
        #[inline(always)]
        |x| x,
    )
}

/// The tree of [`sum`] over `leaf(x[i])`.
#[inline(always)]
fn tree(x: &[f32], leaf: impl Fn(f32) -> f32) -> f32 {
    // Sums of complete subtrees, largest first, like the digits of a binary counter.
    // 64 levels hold more elements than there is memory.
    let mut stack = [0.0_f32; usize::BITS as usize];
    let mut depth = 0;
    for (count, chunk) in x.chunks(SUBTREE).enumerate() {
        let mut leaves = [0.0_f32; SUBTREE];
        for (place, x) in leaves.iter_mut().zip(chunk) {
            *place = leaf(*x);
        }
        let mut width = SUBTREE / 2;
        while width > 0 {
            for pair in 0..width {
                leaves[pair] = leaves[2 * pair] + leaves[2 * pair + 1];
            }
            width /= 2;
        }
        let mut sum = leaves[0];
        for _ in 0..(count + 1).trailing_zeros() {
            depth -= 1;
            sum += stack[depth];
        }
        stack[depth] = sum;
        depth += 1;
    }
    // What is missing on the right of an incomplete tree is zero, and adding zero changes nothing.
    stack[..depth].iter().rev().copied().reduce(|right, left| left + right).unwrap_or(0.0)
}

/// `e^x` within 2 units in the last place for `x` in `-87.3..=88.7`; 0 below, `inf` above, NaN for
/// NaN. Same bits everywhere, unlike the system's.
///
/// Cody and Waite's reduction to `|r| <= ln 2 / 2` and the polynomial of Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to a whole number, half to even
    const LN2_HIGH: f32 = 355.0 / 512.0; // few bits: its product with n is exact for |n| < 2^14
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.336_54, 88.722_83);
    let rounded = clamped * core::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let e = (p * r * r + r) + 1.0;
    // The same whole number as an integer: the lowest bits of the sum, without a conversion whose
    // corner cases keep the loop from being vectorised. NaN gives some integer and stays NaN below.
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
    // 2^n in two steps: n reaches 128, the exponent of a single only 127.
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23).cast_unsigned());
    let result = e * power(half) * power(n.wrapping_sub(half));
    let result = if x < -87.336_54 { 0.0 } else { result };
    let result = if x > 88.722_83 { f32::INFINITY } else { result };
    if x.is_nan() { x } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tercet_core::simd::Simd;

    fn numbers(count: usize) -> Vec<f32> {
        let mut state = 0x9E37_79B9_u32;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// The definition: pad to a power of two, halve until one is left.
    fn padded_tree(x: &[f32]) -> f32 {
        let mut level: Vec<f32> = x.iter().map(|x| x * x).collect();
        level.resize(x.len().next_power_of_two(), 0.0);
        while level.len() > 1 {
            level = level.chunks(2).map(|pair| pair[0] + pair[1]).collect();
        }
        level[0]
    }

    #[test]
    fn sum_of_squares_is_the_padded_tree() {
        let x = numbers(9000);
        for length in (1..700).chain([1408, 2560, 3200, 5460, 6912, 8640, 9000]) {
            assert_eq!(sum_of_squares(&x[..length]), padded_tree(&x[..length]), "{length}");
        }
        assert_eq!(sum_of_squares(&[]), 0.0);
    }

    #[test]
    fn peak_ignores_what_is_no_number() {
        for place in 0..32 {
            let mut x = [f32::NAN; 32];
            assert_eq!(peak(&x), f32::NEG_INFINITY);
            x[place] = -1.5;
            assert_eq!(peak(&x), -1.5);
            x[31 - place] = 2.0;
            assert_eq!(peak(&x), 2.0);
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let a = numbers(1000);
        for length in [1, 31, 32, 33, 100, 255, 1000] {
            let a = &a[..length];
            let expected = (sum_of_squares(a), exp(a[length - 1] * 40.0));
            for simd in Simd::available() {
                let got = simd.vectorize(
                    #[inline(always)]
                    || (sum_of_squares(a), exp(a[length - 1] * 40.0)),
                );
                assert_eq!(got, expected, "{length} {}", simd.name());
            }
        }
    }

    #[test]
    fn exp_is_within_two_units() {
        let mut worst = 0.0_f64;
        for step in -873_000..=887_000 {
            let x = step as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::EPSILON) * exact / 2.0;
            worst = worst.max((f64::from(exp(x)) - exact).abs() / unit);
        }
        assert!(worst < 4.0, "{worst} half units");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e4), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(1e4), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }
}
