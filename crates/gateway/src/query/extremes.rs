//! A series of any length as one that a chart can draw: for each bucket of time the first, the
//! least, the greatest and the last value, with their own times. A line through them looks like the
//! line through all, and no peak is lost.
//!
//! Nobody has to know the range before: buckets begin a millisecond wide, and whenever there are too
//! many, each two become one.

use std::collections::HashMap;

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    cast::AsArray,
    types::{Float32Type, Float64Type, Int32Type, Int64Type, UInt8Type},
};
use arrow_schema::DataType;

use super::{
    AskedPoint, OutColumn, RowError,
    columns::{DEVICE, TIME},
};

/// A value with its time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    pub time_ms: i64,
    pub value: f64,
    pub quality: Option<u8>,
}

/// What a bucket keeps; readings come in the order of time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Time divided by the width, rounded down.
    number: i64,
    first: Reading,
    least: Reading,
    greatest: Reading,
    last: Reading,
}

impl Bucket {
    fn of(number: i64, reading: Reading) -> Self {
        Self {
            number,
            first: reading,
            least: reading,
            greatest: reading,
            last: reading,
        }
    }

    /// Takes in a later one.
    fn join(&mut self, later: &Self) {
        if later.least.value < self.least.value {
            self.least = later.least;
        }
        if later.greatest.value > self.greatest.value {
            self.greatest = later.greatest;
        }
        self.last = later.last;
    }

    fn readings(&self) -> impl Iterator<Item = Reading> {
        let (a, b) = if self.least.time_ms <= self.greatest.time_ms {
            (self.least, self.greatest)
        } else {
            (self.greatest, self.least)
        };
        let mut before = None;
        [self.first, a, b, self.last]
            .into_iter()
            .filter(move |reading| before.replace(reading.time_ms) != Some(reading.time_ms))
    }
}

/// One point of one device.
#[derive(Debug)]
pub struct Series {
    width_ms: i64,
    buckets: Vec<Bucket>,
    count: u64,
}

impl Series {
    fn new() -> Self {
        Self {
            width_ms: 1,
            buckets: Vec::new(),
            count: 0,
        }
    }

    fn add(&mut self, reading: Reading, buckets_max: usize) {
        self.count += 1;
        let bucket = Bucket::of(reading.time_ms.div_euclid(self.width_ms), reading);
        match self.buckets.last_mut() {
            Some(last) if last.number == bucket.number => last.join(&bucket),
            _ => self.buckets.push(bucket),
        }
        while self.buckets.len() > buckets_max {
            self.widen();
        }
    }

    fn widen(&mut self) {
        self.width_ms *= 2;
        for bucket in &mut self.buckets {
            bucket.number = bucket.number.div_euclid(2);
        }
        self.buckets.dedup_by(|later, earlier| {
            let is_same = later.number == earlier.number;
            if is_same {
                earlier.join(later);
            }
            is_same
        });
    }

    /// Values that were read.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How much time a bucket covers.
    pub fn width_ms(&self) -> i64 {
        self.width_ms
    }

    /// What is kept, in the order of time.
    pub fn readings(&self) -> impl Iterator<Item = Reading> {
        self.buckets.iter().flat_map(Bucket::readings)
    }
}

/// Too many series were asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} series fit; name devices and points")]
pub struct TooManySeries(pub usize);

/// Series in the making, by device and point.
pub struct Extremes {
    buckets_max: usize,
    series_max: usize,
    points: Vec<OutColumn>,
    /// For each device, where the series of each point is.
    places: HashMap<Box<str>, Vec<Option<usize>>>,
    /// With the device and the point's number.
    series: Vec<(Box<str>, usize, Series)>,
    rows: u64,
}

impl Extremes {
    pub fn new(points: &[AskedPoint], buckets_max: usize, series_max: usize) -> Self {
        Self {
            buckets_max,
            series_max,
            points: OutColumn::of(points),
            places: HashMap::new(),
            series: Vec::new(),
            rows: 0,
        }
    }

    /// Takes in the rows of a slab, which follow those before in time.
    ///
    /// # Errors
    /// The store breaks its contract.
    pub fn add(&mut self, slab: &RecordBatch) -> Result<Result<(), TooManySeries>, RowError> {
        let wrong = |column: &str| RowError::of(column, slab.column_by_name(column));
        let devices = slab
            .column_by_name(DEVICE)
            .and_then(|array| array.as_string_opt::<i32>())
            .ok_or_else(|| wrong(DEVICE))?;
        let times = slab
            .column_by_name(TIME)
            .and_then(|array| array.as_primitive_opt::<Int64Type>())
            .ok_or_else(|| wrong(TIME))?;
        for at in 0..self.points.len() {
            let point = &self.points[at];
            let Some(numbers) = slab.column_by_name(&point.source).and_then(Numbers::of) else {
                continue;
            };
            let quality = point
                .quality
                .as_ref()
                .and_then(|name| slab.column_by_name(name));
            let quality = quality.and_then(|array| array.as_primitive_opt::<UInt8Type>());
            // Rows of one device often follow each other: it is looked up when it changes.
            let mut here: Option<(&str, usize)> = None;
            for row in 0..slab.num_rows() {
                let Some(value) = numbers.value(row) else {
                    continue;
                };
                let device = devices.value(row);
                let place = match here {
                    Some((same, place)) if same == device => place,
                    _ => match self.place(device, at) {
                        Ok(place) => place,
                        Err(many) => return Ok(Err(many)),
                    },
                };
                here = Some((device, place));
                let quality = quality.filter(|quality| quality.is_valid(row));
                let reading = Reading {
                    time_ms: times.value(row),
                    value,
                    quality: quality.map(|quality| quality.value(row)),
                };
                self.series[place].2.add(reading, self.buckets_max);
            }
        }
        self.rows += u64::try_from(slab.num_rows()).unwrap_or(u64::MAX);
        Ok(Ok(()))
    }

    /// Where the series of a device's point is.
    fn place(&mut self, device: &str, point: usize) -> Result<usize, TooManySeries> {
        if !self.places.contains_key(device) {
            let none = vec![None; self.points.len()];
            self.places.insert(device.into(), none);
        }
        let places = self.places.get_mut(device).expect("it was just put there");
        if let Some(place) = places[point] {
            return Ok(place);
        }
        if self.series.len() == self.series_max {
            return Err(TooManySeries(self.series_max));
        }
        places[point] = Some(self.series.len());
        self.series.push((device.into(), point, Series::new()));
        Ok(self.series.len() - 1)
    }

    /// Rows that were read.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Device, point and what is kept of it, by device, then point as asked.
    pub fn series(&self) -> Vec<(&str, &str, &Series)> {
        let mut order: Vec<_> = self.series.iter().collect();
        order.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let named = order.into_iter();
        named
            .map(|(device, at, series)| (&**device, self.points[*at].name.as_str(), series))
            .collect()
    }
}

/// A column that has numbers.
enum Numbers<'a> {
    Bool(&'a arrow_array::BooleanArray),
    Int(&'a arrow_array::Int32Array),
    Long(&'a arrow_array::Int64Array),
    Float(&'a arrow_array::Float32Array),
    Double(&'a arrow_array::Float64Array),
}

impl<'a> Numbers<'a> {
    /// `None`: texts, or nothing at all.
    fn of(array: &'a ArrayRef) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Int32 => Self::Int(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Self::Long(array.as_primitive::<Int64Type>()),
            DataType::Float32 => Self::Float(array.as_primitive::<Float32Type>()),
            DataType::Float64 => Self::Double(array.as_primitive::<Float64Type>()),
            _ => return None,
        })
    }

    fn value(&self, row: usize) -> Option<f64> {
        match self {
            Self::Bool(array) => array
                .is_valid(row)
                .then(|| f64::from(u8::from(array.value(row)))),
            Self::Int(array) => array.is_valid(row).then(|| f64::from(array.value(row))),
            // A chart has far fewer digits than a double.
            Self::Long(array) => array.is_valid(row).then(|| array.value(row) as f64),
            Self::Float(array) => array.is_valid(row).then(|| f64::from(array.value(row))),
            Self::Double(array) => array.is_valid(row).then(|| array.value(row)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reduced(values: &[f64], buckets_max: usize) -> Series {
        let mut series = Series::new();
        for (at, value) in values.iter().enumerate() {
            let reading = Reading {
                time_ms: 1_000 * i64::try_from(at).unwrap() - 50_000,
                value: *value,
                quality: None,
            };
            series.add(reading, buckets_max);
        }
        series
    }

    #[test]
    fn a_short_series_is_itself() {
        let series = reduced(&[1.0, 3.0, 2.0], 10);
        let values: Vec<f64> = series.readings().map(|reading| reading.value).collect();
        assert_eq!(values, [1.0, 3.0, 2.0]);
    }

    proptest! {
        #[test]
        fn ends_and_extremes_survive_any_reduction(
            values in prop::collection::vec(-1e9..1e9, 1..500),
            buckets_max in 2_usize..40,
        ) {
            let series = reduced(&values, buckets_max);
            let kept: Vec<Reading> = series.readings().collect();
            prop_assert!(kept.len() <= 4 * buckets_max);
            prop_assert!(kept.windows(2).all(|pair| pair[0].time_ms < pair[1].time_ms));
            let of = |fold: fn(f64, f64) -> f64, values: &mut dyn Iterator<Item = f64>| {
                values.reduce(fold)
            };
            let kept_values = || kept.iter().map(|reading| reading.value);
            for fold in [f64::min as fn(f64, f64) -> f64, f64::max] {
                prop_assert_eq!(
                    of(fold, &mut kept_values()),
                    of(fold, &mut values.iter().copied())
                );
            }
            prop_assert_eq!(kept.first().map(|r| r.value), values.first().copied());
            prop_assert_eq!(kept.last().map(|r| r.value), values.last().copied());
            prop_assert_eq!(series.count(), values.len() as u64);
        }
    }
}
