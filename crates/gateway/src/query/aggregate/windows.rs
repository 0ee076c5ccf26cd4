//! Windows of time: how an interval cuts it up.
//!
//! Intervals of hours and less are elapsed time, counted from the midnight with which 2000 began in
//! the zone (the offsets of 1970 are no longer those of many): they are always as long as they say. Days, weeks, months and years are those of the zone's calendar:
//! a day is 23 or 25 hours long where clocks change. Weeks begin on Monday.

use jiff::{
    Timestamp,
    civil::{Date, date},
    tz::TimeZone,
};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// 1970-01-01 was a Thursday.
const MONDAY: i64 = -3;
/// 2000-01-01, in days since 1970.
const YEAR_2000: i64 = 10_957;
/// A thousand years: longer windows than there is time.
const LONGEST_MS: i64 = 366_000 * DAY_MS;

/// How long a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// Elapsed time.
    Elapsed {
        ms: i64,
    },
    /// Days of the calendar.
    Days(i64),
    Weeks(i64),
    /// A year is twelve of them.
    Months(i64),
}

/// Why a text is no interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}; write {examples}")]
pub struct IntervalError {
    what: &'static str,
    text: String,
    examples: &'static str,
}

impl Interval {
    /// `10m`, `1h`, `1d`, `1mo`.
    ///
    /// # Errors
    /// The text is none, or longer than a thousand years.
    pub fn parse(text: &str) -> Result<Self, IntervalError> {
        let wrong = || IntervalError {
            what: "interval",
            text: text.chars().take(30).collect(),
            examples: "a number and ms, s, m, h, d, w, mo or y, such as 10m, 1h, 1d, 1mo",
        };
        let (count, unit) = number(text).ok_or_else(wrong)?;
        let fits = |each_ms: i64| {
            count
                .checked_mul(each_ms)
                .filter(|ms| (1..=LONGEST_MS).contains(ms))
                .ok_or_else(wrong)
        };
        Ok(match unit {
            "ms" => Self::Elapsed { ms: fits(1)? },
            "s" => Self::Elapsed { ms: fits(1_000)? },
            "m" => Self::Elapsed { ms: fits(60_000)? },
            "h" => Self::Elapsed {
                ms: fits(3_600_000)?,
            },
            "d" => fits(DAY_MS).map(|_| Self::Days(count))?,
            "w" => fits(7 * DAY_MS).map(|_| Self::Weeks(count))?,
            "mo" => fits(28 * DAY_MS).map(|_| Self::Months(count))?,
            "y" => fits(366 * DAY_MS).map(|_| Self::Months(12 * count))?,
            _ => return Err(wrong()),
        })
    }

    /// No window is shorter, but where a clock change takes a part of it.
    pub fn about_ms(self) -> i64 {
        match self {
            Self::Elapsed { ms } => ms,
            Self::Days(days) => days * DAY_MS,
            Self::Weeks(weeks) => weeks * 7 * DAY_MS,
            Self::Months(months) => months * 28 * DAY_MS,
        }
    }
}

/// A span of elapsed time in milliseconds, such as `90s` or `2d`; a day is 24 hours.
///
/// # Errors
/// The text is none.
pub fn elapsed(text: &str) -> Result<i64, IntervalError> {
    let wrong = || IntervalError {
        what: "span of time",
        text: text.chars().take(30).collect(),
        examples: "a number and ms, s, m, h or d, such as 90s, 1h, 2d",
    };
    let (count, unit) = number(text).ok_or_else(wrong)?;
    let each_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => DAY_MS,
        _ => return Err(wrong()),
    };
    let ms = count.checked_mul(each_ms);
    ms.filter(|ms| (0..=LONGEST_MS).contains(ms))
        .ok_or_else(wrong)
}

fn number(text: &str) -> Option<(i64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at_checked(digits)?;
    Some((count.parse().ok()?, unit))
}

/// From `start_ms` (inclusive) to `end_ms` (exclusive), milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub start_ms: i64,
    pub end_ms: i64,
}

impl Window {
    pub fn length_ms(self) -> i64 {
        self.end_ms.saturating_sub(self.start_ms)
    }
}

/// All of time, cut up: every moment is in exactly one window, and no window is empty.
#[derive(Debug, Clone)]
pub enum Windows {
    /// One window.
    Whole,
    Elapsed {
        ms: i64,
        anchor_ms: i64,
    },
    /// So many days each, of the zone's calendar.
    Days {
        days: i64,
        anchor: i64,
        zone: TimeZone,
    },
    Months {
        months: i64,
        zone: TimeZone,
    },
}

impl Windows {
    pub fn new(interval: Interval, zone: TimeZone) -> Self {
        match interval {
            Interval::Elapsed { ms } => Self::Elapsed {
                ms,
                anchor_ms: midnight_ms(YEAR_2000, &zone),
            },
            Interval::Days(days) => Self::Days {
                days,
                anchor: 0,
                zone,
            },
            Interval::Weeks(weeks) => Self::Days {
                days: 7 * weeks,
                anchor: MONDAY,
                zone,
            },
            Interval::Months(months) => Self::Months { months, zone },
        }
    }

    /// The window that has a moment.
    pub fn at(&self, time_ms: i64) -> Window {
        match self {
            Self::Whole => Window {
                start_ms: i64::MIN,
                end_ms: i64::MAX,
            },
            Self::Elapsed { ms, anchor_ms } => {
                let since = time_ms.saturating_sub(*anchor_ms);
                let start_ms = anchor_ms.saturating_add(since.div_euclid(*ms).saturating_mul(*ms));
                Window {
                    start_ms,
                    end_ms: start_ms.saturating_add(*ms),
                }
            }
            Self::Days { days, anchor, zone } => {
                let day = local_ms(time_ms, zone).div_euclid(DAY_MS);
                let begin = |number: i64| midnight_ms(anchor + number * days, zone);
                around(time_ms, (day - anchor).div_euclid(*days), begin)
            }
            Self::Months { months, zone } => {
                let local = date_of(local_ms(time_ms, zone).div_euclid(DAY_MS));
                let month = 12 * i64::from(local.year()) + i64::from(local.month()) - 1;
                let begin = |number: i64| {
                    let month = number * months;
                    let year = i16::try_from(month.div_euclid(12)).unwrap_or(9_999);
                    let month = i8::try_from(month.rem_euclid(12) + 1).unwrap_or(12);
                    let first = Date::new(year.clamp(-9_998, 9_998), month, 1);
                    begin_of(first.unwrap_or(Date::MAX), zone)
                };
                around(time_ms, month.div_euclid(*months), begin)
            }
        }
    }
}

/// The window that has a moment, which `number` is close to. Clock changes may move the beginning
/// of a day, and a day that a zone left out begins and ends at once.
fn around(time_ms: i64, mut number: i64, begin: impl Fn(i64) -> i64) -> Window {
    while begin(number) > time_ms {
        number -= 1;
    }
    loop {
        let end_ms = begin(number + 1);
        if end_ms > time_ms {
            return Window {
                start_ms: begin(number),
                end_ms,
            };
        }
        number += 1;
    }
}

/// The last year of the calendar has no windows of its own: times end in 2100.
fn clamped(time_ms: i64) -> Timestamp {
    let time_ms = time_ms.clamp(-100_000 * DAY_MS, 1_000_000 * DAY_MS);
    Timestamp::from_millisecond(time_ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What a clock on the wall shows, as milliseconds since it showed 1970.
fn local_ms(time_ms: i64, zone: &TimeZone) -> i64 {
    let time = clamped(time_ms);
    time.as_millisecond() + 1_000 * i64::from(zone.to_offset(time).seconds())
}

fn date_of(day: i64) -> Date {
    let span = jiff::Span::new().try_days(day).unwrap_or_default();
    let epoch = date(1970, 1, 1);
    epoch.checked_add(span).unwrap_or(Date::MAX)
}

fn midnight_ms(day: i64, zone: &TimeZone) -> i64 {
    begin_of(date_of(day), zone)
}

/// When a day begins; where its midnight is left out, at the first moment after.
fn begin_of(day: Date, zone: &TimeZone) -> i64 {
    let midnight = zone.to_ambiguous_timestamp(day.at(0, 0, 0, 0));
    midnight
        .compatible()
        .map_or(i64::MAX, Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::query::moment;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn window(interval: &str, zone_name: &str, time: &str) -> (String, String) {
        let windows = Windows::new(Interval::parse(interval).unwrap(), zone(zone_name));
        let Window { start_ms, end_ms } = windows.at(moment(time).unwrap());
        (crate::clock::iso(start_ms), crate::clock::iso(end_ms))
    }

    #[test]
    fn a_window_of_the_calendar_is_as_long_as_the_calendar_says() {
        for (interval, zone, time, start, end) in [
            (
                "10m",
                "UTC",
                "2014-03-30T01:09:59.999Z",
                "2014-03-30T01:00:00.000Z",
                "2014-03-30T01:10:00.000Z",
            ),
            (
                "1h",
                "Asia/Kolkata",
                "2014-03-30T01:09:00Z",
                "2014-03-30T00:30:00.000Z",
                "2014-03-30T01:30:00.000Z",
            ),
            // Half an hour off in 1970, and an hour.
            (
                "1h",
                "Asia/Singapore",
                "2014-03-30T01:09:00Z",
                "2014-03-30T01:00:00.000Z",
                "2014-03-30T02:00:00.000Z",
            ),
            (
                "6h",
                "Europe/London",
                "2014-01-01T01:09:00Z",
                "2014-01-01T00:00:00.000Z",
                "2014-01-01T06:00:00.000Z",
            ),
            // Clocks go forward at 02:00: 23 hours.
            (
                "1d",
                "Europe/Paris",
                "2014-03-30T05:00:00Z",
                "2014-03-29T23:00:00.000Z",
                "2014-03-30T22:00:00.000Z",
            ),
            // And back at 03:00: 25 hours.
            (
                "1d",
                "Europe/Paris",
                "2014-10-26T05:00:00Z",
                "2014-10-25T22:00:00.000Z",
                "2014-10-26T23:00:00.000Z",
            ),
            (
                "1w",
                "UTC",
                "2014-03-30T05:00:00Z",
                "2014-03-24T00:00:00.000Z",
                "2014-03-31T00:00:00.000Z",
            ),
            (
                "1mo",
                "Europe/Paris",
                "2014-03-30T05:00:00Z",
                "2014-02-28T23:00:00.000Z",
                "2014-03-31T22:00:00.000Z",
            ),
            (
                "3mo",
                "UTC",
                "2014-03-30T05:00:00Z",
                "2014-01-01T00:00:00.000Z",
                "2014-04-01T00:00:00.000Z",
            ),
            (
                "1y",
                "America/New_York",
                "2014-03-30T05:00:00Z",
                "2014-01-01T05:00:00.000Z",
                "2015-01-01T05:00:00.000Z",
            ),
            // Midnight is left out: the day begins at one o'clock.
            (
                "1d",
                "America/Sao_Paulo",
                "2017-10-15T05:00:00Z",
                "2017-10-15T03:00:00.000Z",
                "2017-10-16T02:00:00.000Z",
            ),
            // Samoa left out the 30th.
            (
                "1d",
                "Pacific/Apia",
                "2011-12-30T09:59:00Z",
                "2011-12-29T10:00:00.000Z",
                "2011-12-30T10:00:00.000Z",
            ),
            (
                "1d",
                "Pacific/Apia",
                "2011-12-30T10:00:00Z",
                "2011-12-30T10:00:00.000Z",
                "2011-12-31T10:00:00.000Z",
            ),
        ] {
            let expected = (start.to_owned(), end.to_owned());
            assert_eq!(
                window(interval, zone, time),
                expected,
                "{interval} {zone} {time}"
            );
        }
    }

    #[test]
    fn what_is_no_interval_says_what_is() {
        for text in [
            "",
            "h",
            "0h",
            "1",
            "-1h",
            "1 h",
            "1M",
            "9999999999999y",
            "1000000d",
            "¼h",
        ] {
            let error = Interval::parse(text).unwrap_err().to_string();
            assert!(
                error.contains("such as 10m, 1h, 1d, 1mo"),
                "{text}: {error}"
            );
        }
        assert_eq!(elapsed("90s"), Ok(90_000));
        assert!(elapsed("1mo").unwrap_err().to_string().contains("2d"));
    }

    proptest! {
        #[test]
        fn windows_follow_each_other_without_gap_or_overlap(
            zone_name in prop::sample::select(vec![
                "UTC", "Europe/Paris", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia",
                "America/Havana", "Asia/Kathmandu", "Asia/Gaza",
            ]),
            interval in prop::sample::select(vec!["7m", "1h", "6h", "1d", "2d", "1w", "1mo", "5mo", "1y"]),
            time_ms in 0_i64..4_102_444_800_000,
        ) {
            let windows = Windows::new(Interval::parse(interval).unwrap(), zone(zone_name));
            let window = windows.at(time_ms);
            prop_assert!(window.start_ms <= time_ms && time_ms < window.end_ms);
            prop_assert_eq!(windows.at(window.start_ms), window);
            prop_assert_eq!(windows.at(window.end_ms - 1), window);
            prop_assert_eq!(windows.at(window.end_ms).start_ms, window.end_ms);
            prop_assert_eq!(windows.at(window.start_ms - 1).end_ms, window.start_ms);
        }
    }
}
