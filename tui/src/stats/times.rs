//! [`Times`]: durations of which mean and percentiles are known at any moment.

use core::time::Duration;

use super::samples::{Percentiles, quantile};

/// Durations, kept in order, so that every percentile is exact and costs two look-ups.
///
/// Takes 8 bytes for each. What they come to does not depend on the order in which they came: they
/// are whole nanoseconds, and their sum is exact.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Times {
    /// Nanoseconds, ascending.
    sorted: Vec<u64>,
    /// Their sum.
    total: u128,
}

impl Times {
    /// Takes one more. Moves those that are longer: some microseconds for 100,000.
    pub fn push(&mut self, time: Duration) {
        let nanos = nanos(time);
        let place = self.sorted.partition_point(|other| *other <= nanos);
        self.sorted.insert(place, nanos);
        self.total += u128::from(nanos);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Shortest and longest; `None` when there are none.
    #[must_use]
    pub fn range(&self) -> Option<(Duration, Duration)> {
        let ends = self.sorted.first().zip(self.sorted.last());
        ends.map(|(&min, &max)| (Duration::from_nanos(min), Duration::from_nanos(max)))
    }

    /// Arithmetic mean; `None` when there are none.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (!self.is_empty()).then(|| millis(self.total) / count(self.len()))
    }

    /// How many there are per second of their sum; `None` when they take no time.
    #[must_use]
    pub fn per_second(&self) -> Option<f64> {
        (self.total > 0).then(|| count(self.len()) / (millis(self.total) / 1e3))
    }

    /// The `share`-th quantile in milliseconds, interpolated between neighbours (0.5 is the
    /// median); `None` when there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let at = |place: usize| millis(u128::from(self.sorted[place]));
        (!self.is_empty()).then(|| quantile(self.len(), share, at))
    }

    /// Mean and percentiles in milliseconds; `None` when there are none.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        let at = |share| self.quantile(share);
        Some(Percentiles { mean: self.mean()?, p50: at(0.5)?, p90: at(0.9)?, p99: at(0.99)? })
    }

    /// How many are longer than `limit`.
    #[must_use]
    pub fn longer_than(&self, limit: Duration) -> usize {
        self.len() - self.up_to(limit)
    }

    /// How many are as long as `limit` at most.
    pub(super) fn up_to(&self, limit: Duration) -> usize {
        let limit = nanos(limit);
        self.sorted.partition_point(|time| *time <= limit)
    }
}

/// 584 years are enough.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "shown with few digits")]
fn millis(nanos: u128) -> f64 {
    nanos as f64 / 1e6
}

#[allow(clippy::cast_precision_loss, reason = "fewer than 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(millis: &[u64]) -> Times {
        let mut times = Times::default();
        millis.iter().for_each(|ms| times.push(Duration::from_millis(*ms)));
        times
    }

    fn close(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-9)
    }

    #[test]
    fn percentiles_interpolate_as_numpy_does() {
        // numpy.percentile([1, 2, 3, 4], [50, 90, 99])
        let few = times(&[4, 1, 3, 2]);
        assert!(close(few.quantile(0.5), 2.5) && close(few.quantile(0.9), 3.7));
        assert!(close(few.quantile(0.99), 3.97) && close(few.mean(), 2.5));
        let many: Vec<u64> = (1..=101).rev().collect();
        let many = times(&many).percentiles().unwrap();
        assert!(close(Some(many.p50), 51.0) && close(Some(many.p90), 91.0));
        assert!(close(Some(many.p99), 100.0) && close(Some(many.mean), 51.0));
        assert_eq!(times(&[]).percentiles(), None);
        assert_eq!((times(&[]).range(), times(&[0]).per_second()), (None, None));
    }

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let one = times(&[5, 9, 1, 5, 700, 2]);
        assert_eq!(one, times(&[700, 5, 5, 2, 1, 9]));
        assert_eq!(one.range(), Some((Duration::from_millis(1), Duration::from_millis(700))));
        let longer = |ms| one.longer_than(Duration::from_millis(ms));
        assert_eq!([longer(0), longer(5), longer(9), longer(700)], [6, 2, 1, 0]);
        assert!(close(one.per_second(), 6.0 / 0.722));
    }

    #[test]
    fn the_longest_time_there_is_does_no_harm() {
        let mut times = times(&[1]);
        times.push(Duration::MAX);
        times.push(Duration::MAX);
        assert_eq!(times.range().unwrap().1, Duration::from_nanos(u64::MAX));
        assert!(times.mean().unwrap() > 1e12);
    }
}
