//! [`Random`]: the bits that random weights are made of, fast and the same everywhere.

use tercet_core::simd::Simd;

/// Generators side by side, one per lane of a vector register.
const LANES: usize = 8;
/// Words that every step gives.
type Words = [u64; LANES];

/// Eight interleaved xoshiro256++ generators.
///
/// The state is the BLAKE3 output (as XOF) of the seed, eight bytes little-endian, and a name, so
/// each tensor has a stream of its own and can be made alone. Not for secrets, and not for
/// sampling: that is [`Sampler`](crate::sampler::Sampler)'s ChaCha.
///
/// Source: Blackman and Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47
/// (2021); <https://prng.di.unimi.it/xoshiro256plusplus.c>.
#[derive(Debug, Clone)]
pub(super) struct Random {
    state: [Words; 4],
}

impl Random {
    /// The stream of `name` under `seed`.
    pub(super) fn new(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        let mut bytes = [0; 4 * LANES * 8];
        hasher.finalize_xof().fill(&mut bytes);
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let state =
            core::array::from_fn(|_| core::array::from_fn(|_| words.next().unwrap_or_default()));
        Self { state }
    }

    #[inline(always)]
    fn words(&mut self) -> Words {
        let [a, b, c, d] = &mut self.state;
        core::array::from_fn(|lane| {
            let (a, b, c, d) = (&mut a[lane], &mut b[lane], &mut c[lane], &mut d[lane]);
            let word = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
            let shifted = *b << 17;
            *c ^= *a;
            *d ^= *b;
            *b ^= *c;
            *a ^= *d;
            *c ^= shifted;
            *d = d.rotate_left(45);
            word
        })
    }

    /// Bytes of one step of [`Self::codes`] and [`Self::floats`].
    pub(super) const STEP: usize = 16 * LANES;

    /// Fills `out` with two-bit codes, four a byte: 1 (a trit of zero) with probability 21/64, 0
    /// and 2 (minus and plus one) with 43/128 each.
    ///
    /// The stream moves in steps of [`Self::STEP`] bytes; what a last, shorter step leaves over is
    /// dropped.
    pub(super) fn codes(&mut self, out: &mut [u8]) {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        self.steps(out, |random| {
            // 21/64 is 0.010101 in binary: from the last digit, a 1 is an OR and a 0 an AND.
            let mut zero = random.words();
            for or in [false, true, false, true, false] {
                let bits = random.words();
                for (zero, bits) in zero.iter_mut().zip(bits) {
                    *zero = if or { *zero | bits } else { *zero & bits };
                }
            }
            let plus = random.words();
            let code = |zero: u64, plus: u64| zero & EVEN | (plus & !zero & EVEN) << 1;
            core::array::from_fn(|half| {
                core::array::from_fn(|lane| code(zero[lane] >> half, plus[lane] >> half))
            })
        });
    }

    /// Fills `out` with half-width floats, little-endian: `bits` is the pattern of a power of two,
    /// `random_bits` the mantissa and, where wanted, the sign; magnitudes are uniform from that
    /// power to the next.
    ///
    /// Steps as [`Self::codes`].
    pub(super) fn floats(&mut self, bits: u16, random_bits: u16, out: &mut [u8]) {
        let every = |half: u16| u64::from(half) * 0x0001_0001_0001_0001;
        let (bits, mask) = (every(bits), every(random_bits));
        self.steps(out, |random| {
            core::array::from_fn(|_| random.words().map(|word| word & mask | bits))
        });
    }

    #[inline(always)]
    fn steps(&mut self, out: &mut [u8], step: impl Fn(&mut Self) -> [Words; 2]) {
        let mut write = |out: &mut [u8]| {
            for (out, word) in out.chunks_mut(8).zip(step(self).as_flattened()) {
                out.copy_from_slice(&word.to_le_bytes()[..out.len()]);
            }
        };
        let (steps, rest) = out.as_chunks_mut::<{ Self::STEP }>();
        Simd::detect().vectorize(
            #[inline(always)]
            || steps.iter_mut().for_each(|out| write(out)),
        );
        if !rest.is_empty() {
            write(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_the_published_generator() {
        // xoshiro256plusplus.c with state 1, 2, 3, 4: known from rand_xoshiro's own test.
        let mut random = Random { state: [1, 2, 3, 4].map(|word| [word; LANES]) };
        let expected = [41943041, 58720359, 3588806011781223, 3591011842654386];
        for word in expected {
            assert_eq!(random.words(), [word; LANES]);
        }
    }

    #[test]
    fn a_third_of_the_codes_is_zero_and_none_is_no_trit() {
        let mut bytes = vec![0; 1 << 20];
        Random::new(1, "a").codes(&mut bytes);
        let mut counts = [0_usize; 4];
        for byte in bytes {
            (0..4).for_each(|place| counts[usize::from(byte >> (2 * place) & 3)] += 1);
        }
        let share = counts.map(|count| count as f64 / (4 << 20) as f64);
        assert_eq!(counts[3], 0);
        assert!((share[1] - 21.0 / 64.0).abs() < 1e-3, "{share:?}");
        assert!((share[0] - share[2]).abs() < 1e-3, "{share:?}");
    }

    #[test]
    fn floats_have_the_power_and_both_signs() {
        let mut bytes = vec![0; 4099 * 2];
        // bf16: 2^-5, sign and seven bits of mantissa.
        Random::new(1, "a").floats(0x3D00, 0x807F, &mut bytes);
        let values: Vec<f32> = (bytes.as_chunks::<2>().0.iter())
            .map(|half| half::bf16::from_le_bytes(*half).to_f32())
            .collect();
        assert!(values.iter().all(|x| (0.03125..0.0625).contains(&x.abs())));
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.003, "{mean}");
    }

    #[test]
    fn names_and_seeds_have_streams_of_their_own() {
        let bytes = |seed, name| {
            let mut bytes = [0; 64];
            Random::new(seed, name).codes(&mut bytes);
            bytes
        };
        assert_eq!(bytes(1, "a"), bytes(1, "a"));
        assert_ne!(bytes(1, "a"), bytes(1, "b"));
        assert_ne!(bytes(1, "a"), bytes(2, "a"));
    }
}
