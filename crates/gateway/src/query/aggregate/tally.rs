//! The values of one point in the window that is open, and what it needs of those before.
//!
//! Values come as runs of neighbours in the order of time, so that the loops here are over plain
//! slices; what was not asked for is not computed.

use std::collections::BTreeMap;

use arrow_array::{
    Array, ArrayRef, StringArray,
    cast::AsArray,
    types::{Float32Type, Float64Type, Int32Type, Int64Type},
};
use arrow_schema::DataType;
use backtide_model::{Cell, Storage};

use super::{AggregateError, Function};
use crate::limits::{AGGREGATE_STATES_MAX, COVERAGE_GAPS_MAX};

/// The span that is being looked at: times before `start_ms` or from `end_ms` on don't count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
}

/// How long a value counts for what comes after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// For means over time and durations.
    pub(super) hold_ms: i64,
    /// For increases.
    pub(super) increase_ms: i64,
}

/// What of a value is asked for.
#[derive(Debug, Clone, Copy)]
struct Wants {
    sum: bool,
    extremes: bool,
    spread: bool,
    twa: bool,
    durations: bool,
    increase: bool,
}

impl Wants {
    fn of(functions: &[Function]) -> Self {
        let any = |wanted: &[Function]| functions.iter().any(|one| wanted.contains(one));
        Self {
            sum: any(&[Function::Sum, Function::Avg]),
            extremes: any(&[Function::Min, Function::Max]),
            spread: any(&[Function::Stddev]),
            twa: any(&[Function::Twa]),
            durations: any(&[Function::Durations]),
            increase: any(&[Function::Increase]),
        }
    }

    fn looks_back(self) -> bool {
        self.twa || self.durations || self.increase
    }
}

/// A sum that keeps what rounding would lose (Neumaier).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Careful {
    sum: f64,
    lost: f64,
}

impl Careful {
    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() {
            (self.sum - sum) + value
        } else {
            (value - sum) + self.sum
        };
        self.sum = sum;
    }

    fn total(self) -> f64 {
        let total = self.sum + self.lost;
        if total.is_nan() { self.sum } else { total }
    }
}

/// A type of number that is stored.
pub(super) trait Number: Copy + PartialOrd + std::fmt::Debug {
    type Sum: Copy + Default + std::fmt::Debug;

    fn double(self) -> f64;
    fn add(sum: &mut Self::Sum, value: Self);
    fn total(sum: Self::Sum) -> f64;
    /// The sum as its column has it.
    fn sum_cell(sum: Self::Sum) -> Cell;
    fn cell(self) -> Cell;
    /// How it is called among states.
    fn write_name(self, out: &mut Vec<u8>);
}

macro_rules! whole {
    ($type:ty, $cell:ident, $double:expr, $write:expr) => {
        impl Number for $type {
            type Sum = i128;

            fn double(self) -> f64 {
                $double(self)
            }

            fn add(sum: &mut i128, value: Self) {
                *sum += i128::from(value);
            }

            fn total(sum: i128) -> f64 {
                sum as f64
            }

            fn sum_cell(sum: i128) -> Cell {
                whole_sum(stringify!($cell), sum)
            }

            fn cell(self) -> Cell {
                Cell::$cell(self)
            }

            fn write_name(self, out: &mut Vec<u8>) {
                $write(self, out);
            }
        }
    };
}

/// Sums of long numbers come as doubles, for they may not fit.
fn whole_sum(storage: &str, sum: i128) -> Cell {
    match i64::try_from(sum) {
        Ok(sum) if storage != "Long" => Cell::Long(sum),
        _ => Cell::Double(sum as f64),
    }
}

fn itoa(value: impl ::itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(::itoa::Buffer::new().format(value).as_bytes());
}

fn bool_name(value: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

whole!(bool, Bool, |value| f64::from(u8::from(value)), bool_name);
whole!(i32, Int, f64::from, itoa);
whole!(i64, Long, |value| value as f64, itoa);

macro_rules! broken {
    ($type:ty, $cell:ident) => {
        impl Number for $type {
            type Sum = Careful;

            fn double(self) -> f64 {
                f64::from(self)
            }

            fn add(sum: &mut Careful, value: Self) {
                sum.add(f64::from(value));
            }

            fn total(sum: Careful) -> f64 {
                sum.total()
            }

            fn sum_cell(sum: Careful) -> Cell {
                Cell::Double(sum.total())
            }

            fn cell(self) -> Cell {
                Cell::$cell(self)
            }

            fn write_name(self, out: &mut Vec<u8>) {
                out.extend_from_slice(zmij::Buffer::new().format(self).as_bytes());
            }
        }
    };
}

broken!(f32, Float);
broken!(f64, Double);

/// How long each state held, milliseconds, by its name.
type Durations = BTreeMap<Box<[u8]>, i64>;

fn spend(durations: &mut Durations, name: &[u8], ms: i64) -> Result<(), AggregateError> {
    if let Some(spent) = durations.get_mut(name) {
        *spent += ms;
        return Ok(());
    }
    if durations.len() == AGGREGATE_STATES_MAX {
        return Err(AggregateError::States);
    }
    durations.insert(name.into(), ms);
    Ok(())
}

fn durations_cell(durations: &Durations) -> Option<Cell> {
    if durations.is_empty() {
        return None;
    }
    let named = durations.iter();
    let named = named.map(|(name, ms)| (String::from_utf8_lossy(name), *ms));
    let named: serde_json::Map<_, _> = named
        .map(|(name, ms)| (name.into_owned(), ms.into()))
        .collect();
    let text = serde_json::to_string(&named).expect("names and numbers are JSON");
    Some(Cell::Text(text.into()))
}

/// What a time-weighted mean is made of.
#[derive(Debug, Clone, Copy, Default)]
struct Area {
    sum: Careful,
    ms: i64,
}

/// What holds since when.
#[derive(Debug, Clone, Copy)]
struct Held<V> {
    since_ms: i64,
    value: V,
}

impl<V> Held<V> {
    /// How long it holds from `start_ms` until `end_ms`, at most for `hold_ms` in all.
    fn ms(&self, start_ms: i64, end_ms: i64, hold_ms: i64) -> i64 {
        let end_ms = end_ms.min(self.since_ms.saturating_add(hold_ms));
        end_ms.saturating_sub(self.since_ms.max(start_ms)).max(0)
    }
}

/// Numbers of one point.
#[derive(Debug)]
pub(super) struct Numbers<T: Number> {
    wants: Wants,
    hold_ms: i64,
    increase_ms: i64,
    count: i64,
    sum: T::Sum,
    least: Option<T>,
    greatest: Option<T>,
    first: Option<T>,
    last: Option<T>,
    /// Of Welford's method: mean and the sum of squared distances from it.
    mean: f64,
    squares: f64,
    area: Area,
    durations: Durations,
    increase: Option<Careful>,
    /// Stays when a window closes.
    held: Option<Held<T>>,
}

impl<T: Number> Numbers<T> {
    fn new(functions: &[Function], reach: Reach) -> Self {
        Self {
            wants: Wants::of(functions),
            hold_ms: reach.hold_ms,
            increase_ms: reach.increase_ms,
            count: 0,
            sum: T::Sum::default(),
            least: None,
            greatest: None,
            first: None,
            last: None,
            mean: 0.0,
            squares: 0.0,
            area: Area::default(),
            durations: Durations::new(),
            increase: None,
            held: None,
        }
    }

    /// Neighbours in the order of time, all in the open window.
    fn add(&mut self, values: &[T], times: &[i64], span: Span) -> Result<(), AggregateError> {
        let (Some(first), Some(last)) = (values.first(), values.last()) else {
            return Ok(());
        };
        self.first.get_or_insert(*first);
        self.last = Some(*last);
        if self.wants.sum {
            for value in values {
                T::add(&mut self.sum, *value);
            }
        }
        if self.wants.extremes {
            let (mut least, mut greatest) = (
                self.least.unwrap_or(*first),
                self.greatest.unwrap_or(*first),
            );
            for value in values {
                least = if *value < least { *value } else { least };
                greatest = if *value > greatest { *value } else { greatest };
            }
            (self.least, self.greatest) = (Some(least), Some(greatest));
        }
        if self.wants.spread {
            let mut count = self.count as f64;
            for value in values {
                count += 1.0;
                let distance = value.double() - self.mean;
                self.mean += distance / count;
                self.squares += distance * (value.double() - self.mean);
            }
        }
        if self.wants.looks_back() {
            for (value, time_ms) in values.iter().zip(times) {
                self.step(*value, *time_ms, span)?;
            }
        }
        self.count += i64::try_from(values.len()).unwrap_or(i64::MAX);
        Ok(())
    }

    fn step(&mut self, value: T, time_ms: i64, span: Span) -> Result<(), AggregateError> {
        self.spend(span.start_ms, time_ms)?;
        if self.wants.increase
            && let Some(held) = self.held
            && time_ms.saturating_sub(held.since_ms) <= self.increase_ms
        {
            let (before, now) = (held.value.double(), value.double());
            let grew = if now < before { now } else { now - before };
            self.increase.get_or_insert_default().add(grew);
        }
        self.held = Some(Held {
            since_ms: time_ms,
            value,
        });
        Ok(())
    }

    /// Counts the time for which the held value holds.
    fn spend(&mut self, start_ms: i64, end_ms: i64) -> Result<(), AggregateError> {
        let Some(held) = self.held else {
            return Ok(());
        };
        let ms = held.ms(start_ms, end_ms, self.hold_ms);
        if ms == 0 {
            return Ok(());
        }
        if self.wants.twa {
            self.area.sum.add(held.value.double() * ms as f64);
            self.area.ms += ms;
        }
        if self.wants.durations {
            let mut name = Vec::with_capacity(24);
            held.value.write_name(&mut name);
            spend(&mut self.durations, &name, ms)?;
        }
        Ok(())
    }

    fn prime(&mut self, value: T, time_ms: i64) {
        self.held = Some(Held {
            since_ms: time_ms,
            value,
        });
    }

    fn result(&self, function: Function) -> Option<Cell> {
        let count = self.count as f64;
        match function {
            Function::Sum => (self.count > 0).then(|| T::sum_cell(self.sum)),
            Function::Avg => (self.count > 0).then(|| Cell::Double(T::total(self.sum) / count)),
            Function::Min => self.least.map(T::cell),
            Function::Max => self.greatest.map(T::cell),
            Function::First => self.first.map(T::cell),
            Function::Last => self.last.map(T::cell),
            Function::Stddev => (self.count > 1)
                .then(|| Cell::Double((self.squares.max(0.0) / (count - 1.0)).sqrt())),
            Function::Twa => (self.area.ms > 0)
                .then(|| Cell::Double(self.area.sum.total() / self.area.ms as f64)),
            Function::Durations => durations_cell(&self.durations),
            Function::Increase => self.increase.map(|grew| Cell::Double(grew.total())),
            // Told of whatever values there are.
            Function::Count
            | Function::FirstTime
            | Function::LastTime
            | Function::Gaps
            | Function::LongestGap
            | Function::GapList => None,
        }
    }

    fn begin(&mut self) {
        self.count = 0;
        self.sum = T::Sum::default();
        (self.least, self.greatest, self.first, self.last) = (None, None, None, None);
        (self.mean, self.squares, self.area) = (0.0, 0.0, Area::default());
        self.durations.clear();
        self.increase = None;
    }
}

/// Texts of one point.
#[derive(Debug)]
pub(super) struct Texts {
    wants: Wants,
    hold_ms: i64,
    first: Option<Box<str>>,
    last: Option<Box<str>>,
    durations: Durations,
    held: Option<Held<Box<str>>>,
}

impl Texts {
    fn new(functions: &[Function], hold_ms: i64) -> Self {
        Self {
            wants: Wants::of(functions),
            hold_ms,
            first: None,
            last: None,
            durations: Durations::new(),
            held: None,
        }
    }

    fn add(
        &mut self,
        array: &StringArray,
        from: usize,
        to: usize,
        times: &[i64],
        span: Span,
    ) -> Result<(), AggregateError> {
        if from == to {
            return Ok(());
        }
        self.first.get_or_insert_with(|| array.value(from).into());
        self.last = Some(array.value(to - 1).into());
        if self.wants.durations {
            for (row, time_ms) in (from..to).zip(times) {
                self.spend(span.start_ms, *time_ms)?;
                self.prime(array.value(row), *time_ms);
            }
        }
        Ok(())
    }

    fn spend(&mut self, start_ms: i64, end_ms: i64) -> Result<(), AggregateError> {
        let Some(held) = self.held.as_ref().filter(|_| self.wants.durations) else {
            return Ok(());
        };
        match held.ms(start_ms, end_ms, self.hold_ms) {
            0 => Ok(()),
            ms => spend(&mut self.durations, held.value.as_bytes(), ms),
        }
    }

    fn prime(&mut self, value: &str, time_ms: i64) {
        match &mut self.held {
            Some(held) if &*held.value == value => held.since_ms = time_ms,
            held => {
                *held = Some(Held {
                    since_ms: time_ms,
                    value: value.into(),
                });
            }
        }
    }

    fn result(&self, function: Function) -> Option<Cell> {
        match function {
            Function::First => self.first.clone().map(Cell::Text),
            Function::Last => self.last.clone().map(Cell::Text),
            Function::Durations => durations_cell(&self.durations),
            // Texts are refused for these, or it is told of whatever values there are.
            Function::Count
            | Function::FirstTime
            | Function::LastTime
            | Function::Gaps
            | Function::LongestGap
            | Function::GapList
            | Function::Sum
            | Function::Min
            | Function::Max
            | Function::Avg
            | Function::Twa
            | Function::Increase
            | Function::Stddev => None,
        }
    }

    fn begin(&mut self) {
        (self.first, self.last) = (None, None);
        self.durations.clear();
    }
}

/// When values came, whatever they are.
#[derive(Debug, Default)]
struct Seen {
    count: i64,
    first_ms: Option<i64>,
    last_ms: Option<i64>,
    /// A span without values that is longer is a gap; `None`: nobody asks.
    gap_ms: Option<i64>,
    /// The end of what was looked at.
    until_ms: Option<i64>,
    gaps: i64,
    longest_ms: i64,
    /// The first ones.
    list: Vec<(i64, i64)>,
}

impl Seen {
    fn add(&mut self, times: &[i64]) {
        let (Some(first), Some(last)) = (times.first(), times.last()) else {
            return;
        };
        self.count += i64::try_from(times.len()).unwrap_or(i64::MAX);
        self.first_ms.get_or_insert(*first);
        self.last_ms = Some(*last);
        if self.gap_ms.is_some() {
            for time_ms in times {
                self.look(*time_ms);
            }
        }
    }

    /// There is a value, or an end of the range.
    fn look(&mut self, time_ms: i64) {
        let (Some(gap_ms), Some(before_ms)) = (self.gap_ms, self.until_ms.replace(time_ms)) else {
            return;
        };
        let length_ms = time_ms.saturating_sub(before_ms);
        if length_ms > gap_ms {
            self.gaps += 1;
            self.longest_ms = self.longest_ms.max(length_ms);
            if self.list.len() < COVERAGE_GAPS_MAX {
                self.list.push((before_ms, time_ms));
            }
        }
    }

    fn begin(&mut self) {
        let gap_ms = self.gap_ms;
        *self = Self {
            gap_ms,
            ..Self::default()
        };
    }

    fn result(&self, function: Function) -> Option<Cell> {
        match function {
            Function::Count => Some(Cell::Long(self.count)),
            Function::FirstTime => self.first_ms.map(Cell::Long),
            Function::LastTime => self.last_ms.map(Cell::Long),
            Function::Gaps => Some(Cell::Long(self.gaps)),
            Function::LongestGap => Some(Cell::Long(self.longest_ms)),
            Function::GapList => {
                let gap = |(from_ms, to_ms): &(i64, i64)| serde_json::json!({ "from": from_ms, "to": to_ms });
                let gaps: Vec<_> = self.list.iter().map(gap).collect();
                let text = serde_json::to_string(&gaps).expect("numbers are JSON");
                Some(Cell::Text(text.into()))
            }
            _ => None,
        }
    }
}

/// The values of one point.
#[derive(Debug)]
pub(super) struct Tally {
    seen: Seen,
    kind: Kind,
}

/// By their type.
#[derive(Debug)]
enum Kind {
    Bool(Numbers<bool>),
    Int(Numbers<i32>),
    Long(Numbers<i64>),
    Float(Numbers<f32>),
    Double(Numbers<f64>),
    Text(Texts),
}

/// Calls the same on whichever it is.
macro_rules! each {
    ($tally:expr, $one:ident => $call:expr) => {
        match $tally {
            Kind::Bool($one) => $call,
            Kind::Int($one) => $call,
            Kind::Long($one) => $call,
            Kind::Float($one) => $call,
            Kind::Double($one) => $call,
            Kind::Text($one) => $call,
        }
    };
}

impl Tally {
    /// `gap_ms`: how long a span without values is when it is a gap.
    pub(super) fn new(
        storage: Storage,
        functions: &[Function],
        reach: Reach,
        gap_ms: Option<i64>,
    ) -> Self {
        let kind = match storage {
            Storage::Bool => Kind::Bool(Numbers::new(functions, reach)),
            Storage::Int => Kind::Int(Numbers::new(functions, reach)),
            Storage::Long => Kind::Long(Numbers::new(functions, reach)),
            Storage::Float => Kind::Float(Numbers::new(functions, reach)),
            Storage::Double => Kind::Double(Numbers::new(functions, reach)),
            Storage::Text => Kind::Text(Texts::new(functions, reach.hold_ms)),
        };
        let seen = Seen {
            gap_ms,
            ..Seen::default()
        };
        Self { seen, kind }
    }

    /// Adds the rows `from..to` of a column, all of the open window.
    pub(super) fn add(
        &mut self,
        column: &ArrayRef,
        (from, to): (usize, usize),
        times: &[i64],
        span: Span,
    ) -> Result<(), AggregateError> {
        let Self { seen, kind } = self;
        runs(column, from, to, |from, to| {
            let times = &times[from..to];
            seen.add(times);
            macro_rules! primitive {
                ($numbers:expr, $type:ty) => {
                    $numbers.add(
                        &column.as_primitive::<$type>().values()[from..to],
                        times,
                        span,
                    )
                };
            }
            match (&mut *kind, column.data_type()) {
                (Kind::Int(numbers), DataType::Int32) => primitive!(numbers, Int32Type),
                (Kind::Long(numbers), DataType::Int64) => primitive!(numbers, Int64Type),
                (Kind::Float(numbers), DataType::Float32) => primitive!(numbers, Float32Type),
                (Kind::Double(numbers), DataType::Float64) => primitive!(numbers, Float64Type),
                (Kind::Bool(numbers), DataType::Boolean) => {
                    let values = column.as_boolean().values();
                    for (row, time_ms) in (from..to).zip(times) {
                        numbers.add(&[values.value(row)], &[*time_ms], span)?;
                    }
                    Ok(())
                }
                (Kind::Text(texts), DataType::Utf8) => {
                    texts.add(column.as_string(), from, to, times, span)
                }
                _ => Err(AggregateError::Type),
            }
        })
    }

    /// Takes note of the last value of the rows `from..to`, which come before all windows.
    pub(super) fn prime(&mut self, column: &ArrayRef, (from, to): (usize, usize), times: &[i64]) {
        let Some(row) = (from..to).rev().find(|row| column.is_valid(*row)) else {
            return;
        };
        let time_ms = times[row];
        match (&mut self.kind, column.data_type()) {
            (Kind::Bool(n), DataType::Boolean) => n.prime(column.as_boolean().value(row), time_ms),
            (Kind::Int(n), DataType::Int32) => {
                n.prime(column.as_primitive::<Int32Type>().value(row), time_ms);
            }
            (Kind::Long(n), DataType::Int64) => {
                n.prime(column.as_primitive::<Int64Type>().value(row), time_ms);
            }
            (Kind::Float(n), DataType::Float32) => {
                n.prime(column.as_primitive::<Float32Type>().value(row), time_ms);
            }
            (Kind::Double(n), DataType::Float64) => {
                n.prime(column.as_primitive::<Float64Type>().value(row), time_ms);
            }
            (Kind::Text(texts), DataType::Utf8) => {
                texts.prime(column.as_string::<i32>().value(row), time_ms);
            }
            // Refused where it is added.
            _ => {}
        }
    }

    /// Begins another window; what holds goes on.
    pub(super) fn begin(&mut self, span: Span) {
        self.seen.begin();
        self.seen.until_ms = (span.start_ms != i64::MIN).then_some(span.start_ms);
        each!(&mut self.kind, one => one.begin());
    }

    /// Nothing holds any more: another device follows.
    pub(super) fn forget(&mut self) {
        each!(&mut self.kind, one => one.held = None);
    }

    /// Counts what holds until the end of the open window.
    pub(super) fn end(&mut self, span: Span) -> Result<(), AggregateError> {
        if span.end_ms != i64::MAX {
            self.seen.look(span.end_ms);
        }
        each!(&mut self.kind, one => one.spend(span.start_ms, span.end_ms))
    }

    /// Whether a value from before still counts at `time_ms` and later.
    pub(super) fn holds(&self, time_ms: i64) -> bool {
        each!(&self.kind, one => {
            (one.wants.twa || one.wants.durations)
                && one.held.as_ref().is_some_and(|held| held.ms(time_ms, i64::MAX, one.hold_ms) > 0)
        })
    }

    pub(super) fn count(&self) -> i64 {
        self.seen.count
    }

    /// Of the open window, which has ended.
    pub(super) fn result(&self, function: Function) -> Option<Cell> {
        match self.seen.result(function) {
            None => each!(&self.kind, one => one.result(function)),
            found => found,
        }
    }
}

/// Calls `each` with the longest runs of rows that have a value.
fn runs(
    column: &ArrayRef,
    from: usize,
    to: usize,
    mut each: impl FnMut(usize, usize) -> Result<(), AggregateError>,
) -> Result<(), AggregateError> {
    let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) else {
        return each(from, to);
    };
    let mut row = from;
    while row < to {
        if nulls.is_null(row) {
            row += 1;
            continue;
        }
        let begin = row;
        while row < to && nulls.is_valid(row) {
            row += 1;
        }
        each(begin, row)?;
    }
    Ok(())
}
