//! [`Histogram`]: durations in buckets whose borders stay where they are.

use core::time::Duration;

use super::times::Times;

/// Widths of buckets, as parts of an octave; the first one that is coarse enough is taken.
const OCTAVES: [f64; 8] = [0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0];
/// Where the first border is: 1 µs.
const ORIGIN: f64 = 1e-6;

/// Counts of durations in buckets of equal ratio: of the kth one the borders are
/// `1 µs · 2^(k·octaves)` and that times `2^octaves`, so that new durations change counts and no
/// borders.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Ratio of the borders of a bucket, as a power of two.
    pub octaves: f64,
    /// Lower border of the first bucket.
    pub low: Duration,
    /// Upper border of the last bucket.
    pub high: Duration,
    /// Durations in each bucket; the first and the last are not 0.
    pub counts: Vec<usize>,
    /// Number of the first bucket.
    first: i32,
}

impl Histogram {
    /// At most `buckets_max` buckets (at least 1) over all of `times`; `None` when there are none.
    #[must_use]
    pub fn new(times: &Times, buckets_max: usize) -> Option<Self> {
        let (min, max) = times.range()?;
        let fits = |octaves: &f64| {
            let (first, last) = (bucket(min, *octaves), bucket(max, *octaves));
            usize::try_from(last - first).is_ok_and(|more| more < buckets_max)
        };
        // From 1 µs to 584 years are 64 octaves: if the coarsest do not fit, all go into one.
        let Some(octaves) = OCTAVES.into_iter().find(fits) else {
            return Some(Self {
                octaves: 64.0,
                low: min,
                high: max,
                counts: vec![times.len()],
                first: 0,
            });
        };
        let (first, last) = (bucket(min, octaves), bucket(max, octaves));
        let mut below = 0;
        let mut counts = Vec::new();
        for index in first..=last {
            // Whatever rounding does to borders: nothing is left out at the ends.
            let up_to =
                if index == last { times.len() } else { times.up_to(border(index, octaves)) };
            counts.push(up_to - below);
            below = up_to;
        }
        Some(Self {
            octaves,
            low: border(first - 1, octaves),
            high: border(last, octaves),
            counts,
            first,
        })
    }

    /// The bucket that holds `time`; that at the nearer end where none does.
    #[must_use]
    pub fn place(&self, time: Duration) -> usize {
        let places = bucket(time, self.octaves) - self.first;
        usize::try_from(places).unwrap_or(0).min(self.counts.len() - 1)
    }
}

/// The number of the bucket of `time`: those up to 1 µs have number 0.
#[allow(clippy::cast_possible_truncation, reason = "at most 64 octaves of 16 parts")]
fn bucket(time: Duration, octaves: f64) -> i32 {
    // A border belongs to the bucket below it: the ratio is rounded, so try its neighbours.
    let place = ((time.as_secs_f64() / ORIGIN).log2() / octaves).ceil().max(0.0) as i32;
    if place > 0 && time <= border(place - 1, octaves) {
        place - 1
    } else if time > border(place, octaves) {
        place + 1
    } else {
        place
    }
}

/// Upper border of bucket `index`; nothing below number 0.
fn border(index: i32, octaves: f64) -> Duration {
    if index < 0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(ORIGIN * (f64::from(index) * octaves).exp2())
        .unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(micros: &[u64]) -> Times {
        let mut times = Times::default();
        micros.iter().for_each(|us| times.push(Duration::from_micros(*us)));
        times
    }

    #[test]
    fn a_canned_sample_has_these_buckets() {
        // 1 << n µs are borders: they stand in the bucket below.
        let all = times(&[1000, 1024, 1025, 2048, 4000, 4096, 8192]);
        let coarse = Histogram::new(&all, 4).unwrap();
        assert_eq!((coarse.octaves, &coarse.counts[..]), (1.0, &[2, 2, 2, 1][..]));
        assert_eq!(coarse.low, Duration::from_micros(512));
        assert_eq!(coarse.high, Duration::from_micros(8192));
        let place = |us| coarse.place(Duration::from_micros(us));
        assert_eq!(
            [place(1), place(1024), place(1025), place(8192), place(99_999)],
            [0, 0, 1, 3, 3]
        );
        let fine = Histogram::new(&all, 12).unwrap();
        assert_eq!(fine.octaves, 0.5);
        assert_eq!(fine.counts.iter().sum::<usize>(), 7);
    }

    #[test]
    fn any_times_fit_into_any_number_of_buckets() {
        assert_eq!(Histogram::new(&times(&[]), 8), None);
        let mut wide = times(&[0, 1, 50, 51, 70_000_000]);
        wide.push(Duration::MAX);
        for all in [wide, times(&[5]), times(&[0]), times(&[1; 40])] {
            for most in 1..40 {
                let histogram = Histogram::new(&all, most).unwrap();
                let counts = &histogram.counts;
                assert!((1..=most).contains(&counts.len()), "{histogram:?}");
                assert_eq!(counts.iter().sum::<usize>(), all.len());
                assert!(counts[0] > 0 && *counts.last().unwrap() > 0, "{histogram:?}");
                let (min, max) = all.range().unwrap();
                assert!(histogram.low <= min && max <= histogram.high, "{histogram:?}");
                assert_eq!((histogram.place(min), histogram.place(max)), (0, counts.len() - 1));
            }
        }
    }
}
