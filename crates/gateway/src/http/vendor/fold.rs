//! What becomes of values over intervals: functions of minute values, increments of counters,
//! durations of states. Pure.

use jiff::{Timestamp, tz::TimeZone};

use super::answer::Refusal;

const MINUTE_MS: i64 = 60_000;

/// A function over the values of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Reads one; a function is due where values are folded, and only there.
    pub(super) fn read(text: &'a str, is_folded: bool) -> Result<Self, Refusal> {
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
    pub(super) fn one(value: f64) -> Self {
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
    pub(super) fn take(&mut self, value: f64) {
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

/// The last value of each minute, at its beginning; values come in the order of time.
pub(super) fn by_minute(values: impl Iterator<Item = (i64, f64)>) -> Vec<(i64, f64)> {
    let mut minutes: Vec<(i64, f64)> = Vec::new();
    for (time_ms, value) in values {
        let minute = time_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
        match minutes.last_mut() {
            Some(last) if last.0 == minute => last.1 = value,
            _ => minutes.push((minute, value)),
        }
    }
    minutes
}

/// What a counter counted from each minute to the next, at the later one. A reading below the one
/// before it is that of a counter that began anew at zero.
pub(super) fn increments(minutes: &[(i64, f64)]) -> impl Iterator<Item = (i64, f64)> {
    minutes.windows(2).map(|pair| {
        let ((_, before), (time_ms, reading)) = (pair[0], pair[1]);
        let counted = if reading >= before {
            reading - before
        } else {
            reading
        };
        (time_ms, counted)
    })
}

/// Folds values, which come in the order of time, by the interval that they are in.
pub(super) fn folded(
    values: impl Iterator<Item = (i64, f64)>,
    grid: &mut Grid<'_>,
) -> Vec<(i64, Folded)> {
    let mut intervals: Vec<(i64, Folded)> = Vec::new();
    for (time_ms, value) in values {
        let begin = grid.begin(time_ms);
        match intervals.last_mut() {
            Some((last, folded)) if *last == begin => folded.take(value),
            _ => intervals.push((begin, Folded::one(value))),
        }
    }
    intervals
}

/// How long each state lasted, in the order in which they were met: from each change to the next,
/// and to the end. Before the first nothing is known (`None`).
pub(super) fn durations<T: PartialEq + Clone>(
    changes: &[(i64, T)],
    from_ms: i64,
    to_ms: i64,
) -> Vec<(Option<T>, i64)> {
    let mut lasted: Vec<(Option<T>, i64)> = Vec::new();
    let mut add = |state: Option<T>, ms: i64| {
        if ms <= 0 {
            return;
        }
        match lasted.iter_mut().find(|(known, _)| *known == state) {
            Some((_, total)) => *total += ms,
            None => lasted.push((state, ms)),
        }
    };
    let known_from = changes.first().map_or(to_ms, |(time_ms, _)| *time_ms);
    add(None, known_from.min(to_ms) - from_ms);
    for (at, (time_ms, state)) in changes.iter().enumerate() {
        let until = changes.get(at + 1).map_or(to_ms, |(next, _)| *next);
        add(
            Some(state.clone()),
            until.min(to_ms) - (*time_ms).max(from_ms),
        );
    }
    lasted
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
    fn the_last_value_of_a_minute_stands_for_it() {
        let values = [(0, 1.0), (59_999, 2.0), (60_000, 3.0), (200_000, 4.0)];
        let minutes = by_minute(values.into_iter());
        assert_eq!(minutes, [(0, 2.0), (60_000, 3.0), (180_000, 4.0)]);
    }

    #[test]
    fn a_counter_that_falls_began_anew() {
        let minutes = [(0, 10.0), (60_000, 12.0), (120_000, 1.0), (180_000, 1.5)];
        let counted: Vec<_> = increments(&minutes).map(|(_, value)| value).collect();
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
        let mut grid = Grid::new(&zone, 2);
        let values = [(0, 1.0), (60_000, 5.0), (120_000, 3.0)];
        let intervals = folded(values.into_iter(), &mut grid);
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

    #[test]
    fn durations_add_up_to_the_range() {
        let changes = [(10, "on"), (30, "off"), (40, "on")];
        assert_eq!(
            durations(&changes, 0, 100),
            [(None, 10), (Some("on"), 80), (Some("off"), 10)]
        );
        // The state at the beginning is known from before it.
        assert_eq!(durations(&[(-5, "on")], 0, 100), [(Some("on"), 100)]);
        assert_eq!(durations::<&str>(&[], 0, 100), [(None, 100)]);
    }
}
