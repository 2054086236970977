//! Numbers about samples, and what is odd about them. Pure.

/// A sample this many deviations away is an outlier. hyperfine's threshold: 1.4826 turns the median
/// absolute deviation into a standard deviation, and ten of those are allowed
/// (hyperfine, `src/outlier_detection.rs`).
const OUTLIER_Z: f64 = 14.826;
/// And it is at least this share of the median away: samples that agree to a thousandth have no
/// outliers worth a word.
const OUTLIER_SHARE: f64 = 0.02;
/// Fewer samples than this have no outliers.
const OUTLIER_SAMPLES: usize = 3;
/// A standard deviation above this share of the mean is called noise.
const NOISE_SHARE: f64 = 0.05;

/// What a list of samples comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the sample (divided by n − 1); 0 for one.
    pub stddev: f64,
    /// Middle, or the mean of the two in the middle.
    pub median: f64,
    /// Median absolute deviation from the median.
    pub mad: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// Sums up `samples`; `None` when there are none.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 samples")]
pub fn summary(samples: &[f64]) -> Option<Summary> {
    let sorted = sorted(samples);
    let (&min, &max) = (sorted.first()?, sorted.last()?);
    let count = sorted.len() as f64;
    let mean = samples.iter().sum::<f64>() / count;
    let squares: f64 = samples.iter().map(|x| (x - mean) * (x - mean)).sum();
    let stddev = if sorted.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
    let median = quantile(sorted.len(), 0.5, |place| sorted[place]);
    let deviations: Vec<f64> = samples.iter().map(|x| (x - median).abs()).collect();
    let deviations = self::sorted(&deviations);
    let mad = quantile(deviations.len(), 0.5, |place| deviations[place]);
    Some(Summary { mean, stddev, median, mad, min, max })
}

/// Mean and percentiles, as vLLM reports latencies.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[allow(missing_docs, reason = "they are what they are called")]
pub struct Percentiles {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The `share`-th quantile of `count` samples, of which `at` gives the nth in ascending order;
/// linear between the two nearest, as numpy does by default. `count` is not 0.
#[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 samples")]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
pub(super) fn quantile(count: usize, share: f64, at: impl Fn(usize) -> f64) -> f64 {
    let place = share * (count - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(count - 1);
    at(below) + (at(above) - at(below)) * (place - below as f64)
}

/// What is odd about the times of a test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Oddity {
    /// The first run took this many times the median.
    SlowFirstRun(f64),
    /// This many runs are far from the rest.
    Outliers(usize),
    /// The standard deviation is this share of the mean.
    Noise(f64),
}

/// Looks at times in the order in which they were taken.
#[must_use]
pub fn oddities(samples: &[f64]) -> Vec<Oddity> {
    let Some(summary) = summary(samples) else { return Vec::new() };
    let Summary { mean, stddev, median, mad, .. } = summary;
    let is_far = |x: &&f64| {
        let away = (*x - median).abs();
        away > OUTLIER_Z * mad && away > OUTLIER_SHARE * median
    };
    let far =
        if samples.len() < OUTLIER_SAMPLES { 0 } else { samples.iter().filter(is_far).count() };
    let mut found = Vec::new();
    if far > 0 && samples.first().filter(is_far).is_some_and(|first| *first > median) {
        found.push(Oddity::SlowFirstRun(samples[0] / median));
    } else if far > 0 {
        found.push(Oddity::Outliers(far));
    }
    if stddev > NOISE_SHARE * mean {
        found.push(Oddity::Noise(stddev / mean));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn a_canned_sample_has_the_textbook_numbers() {
        let all = summary(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert!(close(all.mean, 5.0) && close(all.stddev, (32.0_f64 / 7.0).sqrt()));
        assert!(close(all.median, 4.5) && close(all.mad, 0.5));
        assert!(close(all.min, 2.0) && close(all.max, 9.0));
        let one = summary(&[3.0]).unwrap();
        assert!(close(one.mean, 3.0) && close(one.stddev, 0.0) && close(one.mad, 0.0));
        assert_eq!(summary(&[]), None);
    }

    #[test]
    fn odd_runs_are_told() {
        assert_eq!(oddities(&[1.0, 1.001, 0.999, 1.0005, 1.0]), []);
        let slow = oddities(&[2.0, 1.001, 0.999, 1.0005, 1.0]);
        assert!(matches!(slow[..], [Oddity::SlowFirstRun(times), Oddity::Noise(_)]
            if (times - 2.0).abs() < 0.01));
        let late = oddities(&[1.0, 1.001, 0.999, 1.5, 1.0]);
        assert!(matches!(late[..], [Oddity::Outliers(1), Oddity::Noise(_)]));
        // A fast first run is an outlier, not a slow start.
        let fast = oddities(&[0.5, 1.001, 0.999, 1.0005, 1.0]);
        assert!(matches!(fast[..], [Oddity::Outliers(1), Oddity::Noise(_)]));
        // Far by deviations, near by share.
        assert_eq!(oddities(&[1.0, 1.0, 1.0, 1.01, 1.0]), []);
        assert_eq!(oddities(&[1.0, 3.0]).len(), 1);
        assert_eq!(oddities(&[1.0]), []);
    }
}
