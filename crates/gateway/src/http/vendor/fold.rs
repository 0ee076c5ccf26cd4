//! What becomes of values over intervals: functions of minute values, and increments of counters. Pure;
//! one interval is open at a time, and what fails on the way is told where it happens.
//!
//! The windows are the vendor's: they begin at each local midnight and are cut by the next, and what they
//! have are minutes. Those of `query::aggregate` are elapsed time or days of the calendar, over all values.

use std::collections::HashSet;

use jiff::{Timestamp, tz::TimeZone};

use super::{answer::Refusal, call::Params};

const MINUTE_MS: i64 = 60_000;

/// A function over the values of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Function {
    Count,
    Avg,
    Sum,
    Max,
    Min,
    First,
    Last,
}

/// What is asked of a point: `avg(P_avg)`, or its bare name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logic<'a> {
    pub(super) function: Option<Function>,
    pub(super) point: &'a str,
    /// As it was asked for: the key of its items.
    pub(super) text: &'a str,
}

impl<'a> Logic<'a> {
    /// Reads several, separated by commas; of a function that is asked of a point again, the first.
    pub(super) fn list(text: &'a str, is_folded: bool) -> Result<Vec<Self>, Refusal> {
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        for text in Params::list(text) {
            let logic = Self::read(text, is_folded)?;
            if seen.insert((logic.function, logic.point)) {
                all.push(logic);
            }
        }
        Ok(all)
    }

    /// Reads one; a function is due where values are folded, and only there.
    fn read(text: &'a str, is_folded: bool) -> Result<Self, Refusal> {
        let Some((word, rest)) = text.split_once('(') else {
            if is_folded {
                return Err(Refusal::parameter(format!(
                    "{text} has no function; with an interval write one such as avg({text})"
                )));
            }
            let (function, point) = (None, text);
            return Ok(Self {
                function,
                point,
                text,
            });
        };
        let unknown = || {
            Refusal::parameter(format!(
                "{text} is no function of a point; known are count, avg, sum, max, min, first, last"
            ))
        };
        let point = rest.strip_suffix(')').ok_or_else(unknown)?.trim();
        let function = match word.trim().to_ascii_lowercase().as_str() {
            "count" | "cnt" => Function::Count,
            "avg" => Function::Avg,
            "sum" => Function::Sum,
            "max" => Function::Max,
            "min" => Function::Min,
            "first" => Function::First,
            "last" => Function::Last,
            _ => return Err(unknown()),
        };
        if !is_folded {
            return Err(Refusal::parameter(format!(
                "{text}: interval 0 folds nothing; name the point alone, or give an interval"
            )));
        }
        let function = Some(function);
        Ok(Self {
            function,
            point,
            text,
        })
    }
}

/// Values of an interval, folded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folded {
    count: u32,
    sum: f64,
    max: f64,
    min: f64,
    first: f64,
    last: f64,
}

impl Folded {
    fn one(value: f64) -> Self {
        Self {
            count: 1,
            sum: value,
            max: value,
            min: value,
            first: value,
            last: value,
        }
    }

    /// Takes a value that is later than all before.
    fn take(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.max = self.max.max(value);
        self.min = self.min.min(value);
        self.last = value;
    }

    pub(super) fn of(&self, function: Function) -> f64 {
        match function {
            Function::Count => f64::from(self.count),
            Function::Avg => self.sum / f64::from(self.count),
            Function::Sum => self.sum,
            Function::Max => self.max,
            Function::Min => self.min,
            Function::First => self.first,
            Function::Last => self.last,
        }
    }
}

/// Where intervals begin: at local midnight, and from there every so many minutes.
pub(super) struct Grid<'z> {
    zone: &'z TimeZone,
    step_ms: i64,
    /// Local midnight and the one after it, of the time that was asked for last.
    day: (i64, i64),
}

impl<'z> Grid<'z> {
    pub(super) fn new(zone: &'z TimeZone, minutes: u16) -> Self {
        Self {
            zone,
            step_ms: i64::from(minutes.max(1)) * MINUTE_MS,
            day: (0, 0),
        }
    }

    /// The beginning of the interval that holds a time.
    pub(super) fn begin(&mut self, time_ms: i64) -> i64 {
        if !(self.day.0..self.day.1).contains(&time_ms) {
            self.day = self.day_of(time_ms);
        }
        let midnight = self.day.0;
        midnight + (time_ms - midnight).div_euclid(self.step_ms) * self.step_ms
    }

    fn day_of(&self, time_ms: i64) -> (i64, i64) {
        let day = || {
            let time = Timestamp::from_millisecond(time_ms)
                .ok()?
                .to_zoned_datetime(self.zone.clone());
            let begin = time.start_of_day().ok()?;
            let end = begin.tomorrow().ok()?.start_of_day().ok()?;
            Some((
                begin.timestamp().as_millisecond(),
                end.timestamp().as_millisecond(),
            ))
        };
        day().unwrap_or((time_ms, time_ms + 1))
    }
}

/// The last local midnight before or at a time.
pub(super) fn midnight(zone: &TimeZone, time_ms: i64) -> i64 {
    Grid::new(zone, 1).day_of(time_ms).0
}

/// The last value of each minute, at its beginning.
pub(super) fn by_minute<E>(
    values: impl Iterator<Item = Result<(i64, f64), E>>,
) -> impl Iterator<Item = Result<(i64, f64), E>> {
    let minute = |time_ms: i64| time_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
    groups(values, minute, |value| value, |last, value| *last = value)
}

/// Folds values by the interval that they are in.
pub(super) fn folded<E>(
    values: impl Iterator<Item = Result<(i64, f64), E>>,
    mut grid: Grid<'_>,
) -> impl Iterator<Item = Result<(i64, Folded), E>> {
    let begin = move |time_ms| grid.begin(time_ms);
    groups(values, begin, Folded::one, Folded::take)
}

/// Folds neighbours that `begin` at the same time; values come in the order of time.
fn groups<T, E>(
    values: impl Iterator<Item = Result<(i64, f64), E>>,
    mut begin: impl FnMut(i64) -> i64,
    one: impl Fn(f64) -> T,
    take: impl Fn(&mut T, f64),
) -> impl Iterator<Item = Result<(i64, T), E>> {
    let mut values = values.peekable();
    std::iter::from_fn(move || {
        let (time_ms, value) = match values.next()? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let (at, mut group) = (begin(time_ms), one(value));
        let mut is_in = |next: &Result<(i64, f64), E>| matches!(next, Ok((time_ms, _)) if begin(*time_ms) == at);
        while let Some(Ok((_, value))) = values.next_if(&mut is_in) {
            take(&mut group, value);
        }
        Some(Ok((at, group)))
    })
}

/// What a counter counted from each minute to the next, at the later one. A reading below the one
/// before it is that of a counter that began anew at zero.
pub(super) fn increments<E>(
    minutes: impl Iterator<Item = Result<(i64, f64), E>>,
) -> impl Iterator<Item = Result<(i64, f64), E>> {
    let mut before = None;
    minutes.filter_map(move |minute| {
        let (time_ms, reading) = match minute {
            Ok(minute) => minute,
            Err(error) => return Some(Err(error)),
        };
        let counted = match before.replace(reading)? {
            before if reading >= before => reading - before,
            _ => reading,
        };
        Some(Ok((time_ms, counted)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_read_where_they_are_due() {
        let logic = Logic::read("AVG( P_avg )", true).unwrap();
        assert_eq!(
            (logic.function, logic.point),
            (Some(Function::Avg), "P_avg")
        );
        assert_eq!(logic.text, "AVG( P_avg )");
        assert_eq!(Logic::read("P", false).unwrap().function, None);
        for (text, is_folded) in [
            ("P", true),
            ("avg(P)", false),
            ("avg(P", true),
            ("mad(P)", true),
        ] {
            assert_eq!(
                Logic::read(text, is_folded).unwrap_err().code,
                702,
                "{text}"
            );
        }
    }

    #[test]
    fn a_function_of_a_point_is_answered_once_however_often_it_is_asked_for() {
        let all = Logic::list("avg(P),max(P), AVG( P ),avg(Q),avg(P)", true).unwrap();
        let texts: Vec<_> = all.iter().map(|logic| logic.text).collect();
        assert_eq!(texts, ["avg(P)", "max(P)", "avg(Q)"]);
    }

    #[test]
    fn the_last_value_of_a_minute_stands_for_it() {
        let values = [(0, 1.0), (59_999, 2.0), (60_000, 3.0), (200_000, 4.0)];
        let minutes: Vec<_> = by_minute(values.into_iter().map(Ok::<_, ()>)).collect();
        let expected = [(0, 2.0), (60_000, 3.0), (180_000, 4.0)];
        assert_eq!(minutes, expected.map(Ok));
    }

    #[test]
    fn an_error_ends_the_interval_before_it_and_is_told() {
        let values = [Ok((0, 1.0)), Ok((1, 2.0)), Err("torn"), Ok((2, 3.0))];
        let told: Vec<_> = by_minute(values.into_iter()).collect();
        assert_eq!(told, [Ok((0, 2.0)), Err("torn"), Ok((0, 3.0))]);
        let told: Vec<_> = increments(values.into_iter()).collect();
        assert_eq!(told, [Ok((1, 1.0)), Err("torn"), Ok((2, 1.0))]);
    }

    #[test]
    fn a_counter_that_falls_began_anew() {
        let minutes = [(0, 10.0), (60_000, 12.0), (120_000, 1.0), (180_000, 1.5)];
        let counted = increments(minutes.into_iter().map(Ok::<_, ()>));
        let counted: Vec<_> = counted.map(|counted| counted.unwrap().1).collect();
        assert_eq!(counted, [2.0, 1.0, 0.5]);
    }

    #[test]
    fn intervals_begin_at_local_midnight_on_days_of_23_and_25_hours_too() {
        let zone = TimeZone::get("Europe/Paris").unwrap();
        let hour = 3_600_000;
        for (midnight_ms, hours) in [
            (1_396_134_000_000_i64, 23), // 2014-03-30
            (1_414_274_400_000, 25),     // 2014-10-26
            (1_388_530_800_000, 24),     // 2014-01-01
        ] {
            let mut grid = Grid::new(&zone, 420);
            assert_eq!(midnight(&zone, midnight_ms + 5 * hour), midnight_ms);
            assert_eq!(grid.begin(midnight_ms), midnight_ms);
            assert_eq!(grid.begin(midnight_ms + 8 * hour), midnight_ms + 7 * hour);
            // The last interval of the day is cut by the next midnight.
            let next = midnight_ms + hours * hour;
            assert_eq!(grid.begin(next), next);
            assert!(grid.begin(next - 1) < next);
        }
    }

    #[test]
    fn what_is_folded_answers_every_function() {
        let zone = TimeZone::UTC;
        let values = [(0, 1.0), (60_000, 5.0), (120_000, 3.0)].map(Ok::<_, ()>);
        let intervals: Vec<_> = folded(values.into_iter(), Grid::new(&zone, 2))
            .map(Result::unwrap)
            .collect();
        assert_eq!(intervals.len(), 2);
        let of = |function| intervals[0].1.of(function);
        assert_eq!(
            [Function::Count, Function::Avg, Function::Sum, Function::Max].map(of),
            [2.0, 3.0, 6.0, 5.0]
        );
        assert_eq!(
            [Function::Min, Function::First, Function::Last].map(of),
            [1.0, 1.0, 5.0]
        );
    }
}
