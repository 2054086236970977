//! The time of day, for templates that print the date.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A point in time as a calendar and a clock show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Clock {
    year: i64,
    /// 0..12
    month: u8,
    /// 1..=31
    day: u8,
    /// 0 is Sunday.
    weekday: u8,
    /// 1..=366
    day_of_year: u16,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Clock {
    /// Now, in Coordinated Universal Time: `strftime_now` of `transformers` takes the local time
    /// zone, of which the standard library knows nothing.
    pub(super) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix(i64::try_from(since.as_secs()).unwrap_or_default())
    }

    /// Days to a date: Howard Hinnant, "chrono-compatible low-level date algorithms",
    /// `civil_from_days`.
    pub(super) fn from_unix(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let in_day = seconds.rem_euclid(86_400);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * from_march + 2) / 153;
        let day = from_march - (153 * shifted_month + 2) / 5 + 1;
        let month = (shifted_month + 2) % 12;
        let year = year_of_era + era * 400 + i64::from(month < 2);
        let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let before_march = 59 + i64::from(is_leap);
        let day_of_year = if month >= 2 { from_march + before_march + 1 } else { from_march - 305 };
        let small = |number: i64| u8::try_from(number).unwrap_or_default();
        Self {
            year,
            month: small(month),
            day: small(day),
            weekday: small((days + 4).rem_euclid(7)),
            day_of_year: u16::try_from(day_of_year).unwrap_or_default(),
            hour: small(in_day / 3_600),
            minute: small(in_day / 60 % 60),
            second: small(in_day % 60),
        }
    }

    /// `strftime` in the C locale; the letter of a directive that is not supported is the error.
    pub(super) fn format(&self, format: &str) -> Result<String, char> {
        let mut out = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                out.push(letter);
                continue;
            }
            let directive = letters.next().ok_or('%')?;
            let hour12 = (self.hour + 11) % 12 + 1;
            let month = MONTHS.get(usize::from(self.month)).copied().unwrap_or_default();
            let weekday = DAYS.get(usize::from(self.weekday)).copied().unwrap_or_default();
            out.push_str(&match directive {
                'Y' => self.year.to_string(),
                'y' => format!("{:02}", self.year.rem_euclid(100)),
                'm' => format!("{:02}", self.month + 1),
                'd' => format!("{:02}", self.day),
                'e' => format!("{:2}", self.day),
                'j' => format!("{:03}", self.day_of_year),
                'B' => month.to_owned(),
                'b' | 'h' => month.chars().take(3).collect(),
                'A' => weekday.to_owned(),
                'a' => weekday.chars().take(3).collect(),
                'w' => self.weekday.to_string(),
                'H' => format!("{:02}", self.hour),
                'I' => format!("{hour12:02}"),
                'M' => format!("{:02}", self.minute),
                'S' => format!("{:02}", self.second),
                'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
                'F' => format!("{}-{:02}-{:02}", self.year, self.month + 1, self.day),
                'T' => format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
                '%' => "%".to_owned(),
                other => return Err(other),
            });
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_python() {
        // datetime.fromtimestamp(n, timezone.utc).strftime("%F %T %A %j %e %b %p %I")
        let cases = [
            (0, "1970-01-01 00:00:00 Thursday 001  1 Jan AM 12"),
            (951_782_400, "2000-02-29 00:00:00 Tuesday 060 29 Feb AM 12"),
            (1_704_067_199, "2023-12-31 23:59:59 Sunday 365 31 Dec PM 11"),
            (1_735_646_400, "2024-12-31 12:00:00 Tuesday 366 31 Dec PM 12"),
            (1_709_251_200, "2024-03-01 00:00:00 Friday 061  1 Mar AM 12"),
        ];
        for (seconds, text) in cases {
            let clock = Clock::from_unix(seconds);
            assert_eq!(clock.format("%F %T %A %j %e %b %p %I").as_deref(), Ok(text));
        }
        assert_eq!(Clock::from_unix(0).format("%Q"), Err('Q'));
    }
}
