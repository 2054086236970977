//! Numbers with units, short enough for a panel.

use core::time::Duration;

/// A number with about three digits.
fn digits(number: f64) -> String {
    // By what is shown: 9.999 is 10.0 and not 10.00.
    match number.abs() {
        small if small < 9.995 => format!("{number:.2}"),
        small if small < 99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

/// A time: `85 us`, `4.25 ms`, `312 ms`, `3.2 s`, `12 min`, `3 h`.
pub(super) fn time(time: Duration, ascii: bool) -> String {
    millis(time.as_secs_f64() * 1e3, ascii)
}

/// As [`time`], of milliseconds.
pub(super) fn millis(ms: f64, ascii: bool) -> String {
    let seconds = ms / 1e3;
    if ms < 0.1 {
        format!("{:.0} {}", ms * 1e3, if ascii { "us" } else { "µs" })
    } else if ms < 999.5 {
        format!("{} ms", digits(ms))
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else if seconds < 3570.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.0} h", seconds / 3600.0)
    }
}

/// Tokens per second, without the unit.
pub(super) fn rate(rate: f64) -> String {
    digits(rate)
}

/// Bytes in units of 1024: `12 KiB`, `4.25 MiB`, `312 MiB`, `1.20 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
    let mut number = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for larger in ["MiB", "GiB", "TiB", "PiB", "EiB"] {
        if number < 1023.5 {
            break;
        }
        number /= 1024.0;
        unit = larger;
    }
    if unit == "KiB" { format!("{number:.0} KiB") } else { format!("{} {unit}", digits(number)) }
}

/// A share of 1 in percent: `15 %`. What is not quite all is at most 99 %.
pub(super) fn percent(share: f64) -> String {
    let percent = (share * 100.0).clamp(0.0, 9999.0);
    let shown = if share < 1.0 { percent.min(99.0) } else { percent };
    format!("{shown:.0} %")
}

/// `done` of `total` as a share of 1; 0 of nothing is all.
#[allow(clippy::cast_precision_loss, reason = "shown in whole percent")]
pub(super) fn share(done: u64, total: u64) -> f64 {
    if total == 0 { 1.0 } else { done as f64 / total as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let times = [0.0, 0.085, 0.1, 4.254, 9.996, 42.13, 312.4, 999.6, 61_000.0, 1.2e7];
        assert_eq!(
            times.map(|ms| millis(ms, true)),
            [
                "0 us", "85 us", "0.10 ms", "4.25 ms", "10.0 ms", "42.1 ms", "312 ms", "1.0 s",
                "1 min", "3 h"
            ]
        );
        assert_eq!(time(Duration::from_micros(7), false), "7 µs");
        let sizes = [0, 12 << 10, (1 << 20) - 1, 4456448, 312 << 20, 1288490188, 140 << 30];
        assert_eq!(
            sizes.map(bytes),
            ["0 KiB", "12 KiB", "1.00 MiB", "4.25 MiB", "312 MiB", "1.20 GiB", "140 GiB"]
        );
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(
            [0.0, 0.154, 0.999, 1.0, f64::NAN].map(percent)[..4],
            ["0 %", "15 %", "99 %", "100 %"]
        );
    }
}
