//! What happened in each window of time: the values of points folded to a few numbers, in one pass
//! over the rows of the store and in memory that does not grow with them.
//!
//! ```text
//! Plan ─▶ Fold::new ─▶ add(slab), add(slab) … finish ─▶ batches of rows: _device, _time, <point>.<function>
//! ```
//!
//! Rows come by device, then time, as the store reads them cheapest. A row of the answer is one
//! window of one device, at the time with which the window begins. Only one window is open at a
//! time: what is held is a tally for each point, and a batch of rows.
//!
//! **What a window has.** Values at its times and within `from_ms` and `to_ms`, the end excluded. Windows lie
//! where the interval puts them, so the first and the last may be cut by the range.
//!
//! **What holds.** For means over time and durations a value holds until the next one, for `hold_ms` at most,
//! and into windows that have no value of their own. Values from before `from_ms` count for that: whoever
//! reads begins at [`Plan::read_from_ms`]. An increase is that from the value before to this one, in the
//! window of this one.
//!
//! **What is written.** Windows with a value or something that holds; with a [`Fill`] all from `from_ms`
//! (else the device's first) to `to_ms` (else its last). Devices without any value have no rows.

mod function;
mod table;
mod tally;
mod windows;

use std::{collections::VecDeque, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Int64Array, RecordBatch, StringArray, cast::AsArray, types::Int64Type,
};
use arrow_schema::DataType;
use backtide_model::Storage;
use backtide_store::value_column;

pub use self::{
    function::Function,
    windows::{Interval, IntervalError, Window, Windows, elapsed},
};
use self::{
    table::Table,
    tally::{Reach, Span, Tally},
};
use super::{AskedPoint, DEVICE, OutColumn, RowError, TIME};
use crate::limits::{AGGREGATE_STATES_MAX, AGGREGATE_WAITING_MAX, AGGREGATE_WINDOWS_MAX};

/// Rows of a batch, where many are wanted.
pub const BATCH_ROWS: usize = 4_096;

/// What stands where a window has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fill {
    /// Windows without any result are left out.
    #[default]
    None,
    /// Nothing; but every window has a row.
    Null,
    /// The result of the window before that has one.
    Previous,
    /// A point on the line between the results before and after; numbers only.
    Linear,
}

/// What is to be computed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Each with its functions, in the order of the columns.
    pub points: Vec<(AskedPoint, Vec<Function>)>,
    pub windows: Windows,
    /// Milliseconds since 1970, inclusive; `None`: from the first value.
    pub from_ms: Option<i64>,
    /// Exclusive; `None`: through the last value.
    pub to_ms: Option<i64>,
    pub fill: Fill,
    /// How long a value holds at most.
    pub hold_ms: i64,
    /// How far before `from_ms` a value is looked for that still holds.
    pub lookback_ms: i64,
    /// An increase is counted from a value that is no older than this: then no window depends on what is
    /// further away, wherever a read begins.
    pub increase_ms: i64,
    /// A span without values is a gap if it is longer.
    pub gap_ms: Option<i64>,
    /// These devices have a row even without any value; sorted.
    pub devices: Vec<Arc<str>>,
    /// Rows that are handed over together: [`BATCH_ROWS`], or what is wanted in all.
    pub batch_rows: usize,
    /// The row after which the answer goes on: device and time.
    pub after: Option<(Arc<str>, i64)>,
}

/// Why a fold gives up.
#[derive(Debug, thiserror::Error)]
pub enum AggregateError {
    #[error(
        "more than {AGGREGATE_STATES_MAX} different values in one window; durations are for states"
    )]
    States,
    #[error(
        "more than {AGGREGATE_WAITING_MAX} results wait for the value that ends their gap; ask for fewer \
         points, a longer interval, or another fill"
    )]
    Waiting,
    /// The store breaks its contract.
    #[error("a column of the store has another type than its point")]
    Type,
    #[error(
        "more than {AGGREGATE_WINDOWS_MAX} windows of device {0} have no value; ask for a longer interval, \
         name from and to, or do without fill"
    )]
    Windows(Arc<str>),
    #[error(transparent)]
    Row(#[from] RowError),
}

impl Plan {
    /// Of all there is: without bounds or fill, each value holding until the next.
    pub fn new(points: Vec<(AskedPoint, Vec<Function>)>, windows: Windows) -> Self {
        Self {
            points,
            windows,
            from_ms: None,
            to_ms: None,
            fill: Fill::None,
            hold_ms: i64::MAX,
            lookback_ms: 0,
            increase_ms: i64::MAX,
            gap_ms: None,
            devices: Vec::new(),
            batch_rows: BATCH_ROWS,
            after: None,
        }
    }

    /// The columns of the answer after device and time, in order.
    pub fn columns(&self) -> Vec<OutColumn> {
        let of_point = |(point, functions): &(AskedPoint, Vec<Function>)| {
            let column = |function: &Function| {
                let name = format!("{}.{function}", point.name);
                let is_value = matches!(function, Function::First | Function::Last);
                OutColumn {
                    storage: self.storage(*function, point.storage),
                    source: name.clone(),
                    quality: None,
                    is_json: function.is_json() || (is_value && point.is_json),
                    is_time: function.is_time(),
                    name,
                }
            };
            functions.iter().map(column).collect::<Vec<_>>()
        };
        self.points.iter().flat_map(of_point).collect()
    }

    /// Between two values of a line there are others than whole ones.
    fn storage(&self, function: Function, of: Storage) -> Storage {
        match function.storage(of) {
            Storage::Int | Storage::Long | Storage::Float
                if self.fill == Fill::Linear && function.is_filled() =>
            {
                Storage::Double
            }
            storage => storage,
        }
    }

    /// Where a read has to begin so that what holds at `from_ms` is known.
    pub fn read_from_ms(&self) -> Option<i64> {
        let looks_back = self.looks_back();
        self.from_ms.map(|from_ms| match looks_back {
            true => from_ms.saturating_sub(self.lookback_ms),
            false => from_ms,
        })
    }

    /// Whether a window may depend on values before it.
    pub fn looks_back(&self) -> bool {
        let functions = self.points.iter().flat_map(|(_, functions)| functions);
        functions.into_iter().any(|function| function.looks_back())
    }

    /// The row of the store after which a read goes on. Where rows depend on what is before them, a
    /// device is read from its beginning, and what a former page had is not written again.
    pub fn read_after(&self) -> Option<(Arc<str>, i64)> {
        let depends = self.looks_back() || self.fill != Fill::None;
        self.after.clone().map(|(device, time_ms)| match depends {
            true => (device, i64::MIN),
            false => (device, self.windows.at(time_ms).end_ms.saturating_sub(1)),
        })
    }
}

/// A fold under way.
#[derive(Debug)]
pub struct Fold {
    windows: Windows,
    from_ms: i64,
    /// `None`: through the last row of each device.
    to_ms: Option<i64>,
    has_from: bool,
    is_filled: bool,
    points: Vec<Point>,
    table: Table,
    /// The device whose rows come.
    device: Option<Arc<str>>,
    /// Devices that will have rows and had none so far.
    unseen: VecDeque<Arc<str>>,
    open: Option<Open>,
    /// Of the device's rows.
    last_ms: i64,
    /// Its windows without values, in a fill.
    empty: i64,
}

#[derive(Debug)]
struct Point {
    column: String,
    functions: Vec<Function>,
    tally: Tally,
}

/// The window that is open.
#[derive(Debug, Clone, Copy)]
struct Open {
    window: Window,
    /// The row's time.
    time_ms: i64,
}

impl Fold {
    pub fn new(plan: &Plan) -> Self {
        let point = |(point, functions): &(AskedPoint, Vec<Function>)| Point {
            column: value_column(&point.name),
            functions: functions.clone(),
            tally: Tally::new(
                point.storage,
                functions,
                Reach {
                    hold_ms: plan.hold_ms,
                    increase_ms: plan.increase_ms,
                },
                plan.gap_ms,
            ),
        };
        let functions = plan.points.iter().flat_map(|(point, functions)| {
            let is_text = |function: &Function| {
                matches!(
                    function.storage(point.storage),
                    Storage::Text | Storage::Bool
                )
            };
            functions.iter().map(move |f| (*f, is_text(f)))
        });
        let is_filled: Vec<bool> = functions
            .map(|(function, is_text)| {
                function.is_filled() && !(is_text && plan.fill == Fill::Linear)
            })
            .collect();
        Self {
            windows: plan.windows.clone(),
            from_ms: plan.from_ms.unwrap_or(i64::MIN),
            to_ms: plan.to_ms,
            has_from: plan.from_ms.is_some(),
            is_filled: plan.fill != Fill::None,
            points: plan.points.iter().map(point).collect(),
            table: Table::new(plan, &plan.columns(), &is_filled),
            device: None,
            // Those before the page had theirs.
            unseen: match &plan.after {
                None => plan.devices.clone().into(),
                Some((device, _)) => {
                    let left = plan.devices.iter().filter(|of| *of >= device);
                    left.cloned().collect()
                }
            },
            open: None,
            last_ms: i64::MIN,
            empty: 0,
        }
    }

    /// Takes in rows that follow those before by device, then time; columns as the store has them.
    /// Gives batches of `_device`, `_time` and [`Plan::columns`] to `emit`.
    ///
    /// # Errors
    /// [`AggregateError`], and those of `emit`.
    pub fn add<E: From<AggregateError>>(
        &mut self,
        slab: &RecordBatch,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let (devices, times) = keys(slab).map_err(AggregateError::Row)?;
        let of_point = |point: &Point| {
            let array = slab.column_by_name(&point.column);
            array.filter(|array| !matches!(array.data_type(), DataType::Null))
        };
        let columns: Vec<Option<&ArrayRef>> = self.points.iter().map(of_point).collect();
        let mut row = 0;
        while row < times.len() {
            let device = devices.value(row);
            let end = gallop(row, times.len(), |at| devices.value(at) == device);
            if self.device.as_deref() != Some(device) {
                self.end_device(emit)?;
                self.begin_device(device, emit)?;
            }
            self.add_rows(&columns, times, (row, end), emit)?;
            row = end;
        }
        Ok(())
    }

    /// No rows follow.
    ///
    /// # Errors
    /// As [`Fold::add`].
    pub fn finish<E: From<AggregateError>>(
        mut self,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        self.end_device(emit)?;
        while let Some(device) = self.unseen.pop_front() {
            self.pass_device(device, emit)?;
        }
        self.table.hand_over(true, emit)
    }

    fn begin_device<E: From<AggregateError>>(
        &mut self,
        device: &str,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        while self
            .unseen
            .front()
            .is_some_and(|unseen| **unseen <= *device)
        {
            let unseen = self.unseen.pop_front();
            if let Some(unseen) = unseen.filter(|unseen| **unseen < *device) {
                self.pass_device(unseen, emit)?;
            }
        }
        self.device = Some(device.into());
        self.empty = 0;
        Ok(())
    }

    /// Writes the rows of a device without any value.
    fn pass_device<E: From<AggregateError>>(
        &mut self,
        device: Arc<str>,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        self.device = Some(device);
        self.empty = 0;
        match (&self.windows, self.to_ms) {
            (Windows::Whole, _) => {
                // Nothing can be stored from before 1970.
                self.begin(self.windows.at(0), 0);
                self.close(emit)?;
            }
            (_, Some(to_ms)) if self.has_from => self.fill_up(self.from_ms, to_ms, emit)?,
            // Nobody says where its windows would begin and end.
            _ => {}
        }
        self.device = None;
        self.table.end_device();
        self.table.hand_over(false, emit)
    }

    /// Rows of one device.
    fn add_rows<E: From<AggregateError>>(
        &mut self,
        columns: &[Option<&ArrayRef>],
        times: &Int64Array,
        (mut row, end): (usize, usize),
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let times = times.values();
        let from_ms = self.from_ms;
        let first = gallop(row, end, |at| times[at] < from_ms);
        if first > row {
            for (point, column) in self.points.iter_mut().zip(columns) {
                if let Some(column) = column {
                    point.tally.prime(column, (row, first), times);
                }
            }
        }
        row = first;
        while row < end {
            self.go_to(times[row], emit)?;
            let (span, end_ms) = (self.span(), self.open.map_or(i64::MAX, |o| o.window.end_ms));
            let stop = gallop(row, end, |at| times[at] < end_ms);
            for (point, column) in self.points.iter_mut().zip(columns) {
                if let Some(column) = column {
                    point.tally.add(column, (row, stop), times, span)?;
                }
            }
            row = stop;
            self.last_ms = times[row - 1];
        }
        Ok(())
    }

    /// Opens the window of a moment, and ends those before it.
    fn go_to<E: From<AggregateError>>(
        &mut self,
        time_ms: i64,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.open.is_some_and(|open| time_ms < open.window.end_ms) {
            return Ok(());
        }
        match self.open {
            Some(open) => {
                self.close(emit)?;
                self.pass(open.window.end_ms, time_ms, emit)?;
            }
            None if self.has_from => self.pass(self.from_ms, time_ms, emit)?,
            None => {}
        }
        self.begin(self.windows.at(time_ms), time_ms);
        Ok(())
    }

    /// Ends the windows without values from a moment on, up to that of another.
    fn pass<E: From<AggregateError>>(
        &mut self,
        mut begin_ms: i64,
        time_ms: i64,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        while begin_ms < time_ms && (self.is_filled || self.holds(begin_ms)) {
            let window = self.windows.at(begin_ms);
            if time_ms < window.end_ms {
                return Ok(());
            }
            self.begin(window, begin_ms);
            self.close(emit)?;
            begin_ms = window.end_ms;
        }
        Ok(())
    }

    fn holds(&self, time_ms: i64) -> bool {
        self.points.iter().any(|point| point.tally.holds(time_ms))
    }

    fn begin(&mut self, window: Window, first_ms: i64) {
        let time_ms = match window.start_ms {
            // One window for all of time begins where the range does.
            i64::MIN if self.has_from => self.from_ms,
            i64::MIN => first_ms,
            start_ms => start_ms,
        };
        self.open = Some(Open { window, time_ms });
        let span = self.span();
        for point in &mut self.points {
            point.tally.begin(span);
        }
    }

    /// The part of the open window that is in the range.
    fn span(&self) -> Span {
        let open = self.open.map_or((i64::MIN, i64::MAX), |open| {
            (open.window.start_ms, open.window.end_ms)
        });
        Span {
            start_ms: open.0.max(self.from_ms),
            end_ms: open.1.min(self.to_ms.unwrap_or(i64::MAX)),
        }
    }

    /// Ends the open window and writes its row.
    fn close<E: From<AggregateError>>(
        &mut self,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let span = self.span();
        let (Some(open), Some(device)) = (self.open.take(), &self.device) else {
            return Ok(());
        };
        let mut has_result = self.is_filled;
        let has_value = self.points.iter().any(|point| point.tally.count() > 0);
        self.empty += i64::from(!has_value);
        if self.empty > AGGREGATE_WINDOWS_MAX {
            return Err(AggregateError::Windows(Arc::clone(device)).into());
        }
        for point in &mut self.points {
            has_result |= point.tally.count() > 0 || point.tally.holds(span.start_ms);
            point.tally.end(span)?;
        }
        if has_result {
            let results = self.points.iter().flat_map(|point| {
                let results = point.functions.iter();
                results.map(|function| point.tally.result(*function))
            });
            self.table.push(device, open.time_ms, results);
            self.table.hand_over(false, emit)?;
        }
        Ok(())
    }

    fn end_device<E: From<AggregateError>>(
        &mut self,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.device.is_none() {
            return Ok(());
        }
        match (self.open, self.to_ms) {
            (Some(open), Some(to_ms)) => {
                self.close(emit)?;
                self.fill_up(open.window.end_ms, to_ms, emit)?;
            }
            (Some(_), None) => {
                // The range ends with the device's last row.
                self.to_ms = Some(self.last_ms.saturating_add(1));
                let closed = self.close(emit);
                self.to_ms = None;
                closed?;
            }
            // Its rows were all before the range: what holds may reach into it.
            (None, Some(to_ms)) if self.has_from && self.holds(self.from_ms) => {
                self.fill_up(self.from_ms, to_ms, emit)?;
            }
            (None, _) => {}
        }
        for point in &mut self.points {
            point.tally.forget();
        }
        self.device = None;
        self.last_ms = i64::MIN;
        self.table.end_device();
        self.table.hand_over(false, emit)
    }

    /// Ends the windows after the last value, up to the end of the range.
    fn fill_up<E: From<AggregateError>>(
        &mut self,
        mut begin_ms: i64,
        to_ms: i64,
        emit: &mut impl FnMut(&RecordBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        while begin_ms < to_ms && (self.is_filled || self.holds(begin_ms)) {
            let window = self.windows.at(begin_ms);
            self.begin(window, begin_ms);
            self.close(emit)?;
            begin_ms = window.end_ms;
        }
        Ok(())
    }
}

fn keys(slab: &RecordBatch) -> Result<(&StringArray, &Int64Array), RowError> {
    let wrong = |column: &str| RowError::of(column, slab.column_by_name(column));
    let devices = slab.column_by_name(DEVICE);
    let times = slab.column_by_name(TIME);
    Ok((
        devices
            .and_then(|array| array.as_string_opt::<i32>())
            .ok_or_else(|| wrong(DEVICE))?,
        times
            .and_then(|array| array.as_primitive_opt::<Int64Type>())
            .ok_or_else(|| wrong(TIME))?,
    ))
}

/// The first row from `from` on for which `is_before` no more holds: windows are often short and
/// sometimes long, so steps double before the place is searched.
fn gallop(from: usize, to: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut step) = (from, 1);
    while low + step <= to && is_before(low + step - 1) {
        low += step;
        step *= 2;
    }
    let mut high = (low + step - 1).min(to);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests;
