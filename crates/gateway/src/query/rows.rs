//! Slabs of the store as text: NDJSON, CSV, or the items of a JSON page.
//!
//! Columns are looked up once a slab, so that a row costs what its cells cost.

use std::borrow::Cow;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, UInt8Array,
    cast::AsArray,
    types::{Float32Type, Float64Type, Int32Type, Int64Type, UInt8Type},
};
use arrow_schema::DataType;
use backtide_model::Cell;

use super::{
    OutColumn,
    columns::{DEVICE, TIME},
};
use crate::clock;

const QUALITY_ENDING: &str = ".quality";
const DAY_MS: i64 = 24 * 3600 * 1000;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowForm {
    Ndjson,
    Csv,
    /// Objects between commas.
    JsonItems,
}

/// Why a slab cannot be written: the store broke its contract.
#[derive(Debug, thiserror::Error)]
#[error("column {column} of the store has type {found}")]
pub struct RowError {
    column: String,
    found: String,
}

impl RowError {
    pub(super) fn of(column: &str, array: Option<&ArrayRef>) -> Self {
        Self {
            column: column.to_owned(),
            found: array.map_or("none".to_owned(), |array| array.data_type().to_string()),
        }
    }
}

/// Writes the rows of one answer.
pub struct RowWriter {
    form: RowForm,
    with_quality: bool,
    points: Vec<Point>,
    rows: usize,
    calendar: Calendar,
}

struct Point {
    column: OutColumn,
    /// `,"P_avg":`
    key: Vec<u8>,
}

impl RowWriter {
    pub fn new(form: RowForm, columns: Vec<OutColumn>, with_quality: bool) -> Self {
        let points = columns.into_iter().map(|column| Point {
            key: format!(",\"{}\":", column.name).into_bytes(),
            column,
        });
        Self {
            form,
            with_quality,
            points: points.collect(),
            rows: 0,
            calendar: Calendar::default(),
        }
    }

    /// How many rows were written.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What comes before the first row.
    pub fn begin(&self, out: &mut Vec<u8>) {
        if self.form != RowForm::Csv {
            return;
        }
        out.extend_from_slice(b"deviceKey,time");
        for point in &self.points {
            out.push(b',');
            out.extend_from_slice(point.column.name.as_bytes());
            if self.with_quality {
                out.push(b',');
                out.extend_from_slice(point.column.name.as_bytes());
                out.extend_from_slice(QUALITY_ENDING.as_bytes());
            }
        }
        out.push(b'\n');
    }

    /// Appends the rows of a slab.
    ///
    /// # Errors
    /// [`RowError`]; nothing useful was written.
    pub fn write(&mut self, out: &mut Vec<u8>, slab: &RecordBatch) -> Result<(), RowError> {
        let slab = Slab::new(slab, &self.points)?;
        for row in 0..slab.times.len() {
            let (device, time_ms) = (slab.devices.value(row), slab.times.value(row));
            match self.form {
                RowForm::Csv => {
                    out.extend_from_slice(device.as_bytes());
                    out.push(b',');
                    self.calendar.write(out, time_ms);
                    self.write_csv_cells(out, &slab, row);
                    out.push(b'\n');
                }
                RowForm::Ndjson | RowForm::JsonItems => {
                    if self.form == RowForm::JsonItems && self.rows + row > 0 {
                        out.push(b',');
                    }
                    // Device keys have no characters that JSON escapes.
                    out.extend_from_slice(b"{\"deviceKey\":\"");
                    out.extend_from_slice(device.as_bytes());
                    out.extend_from_slice(b"\",\"time\":");
                    out.extend_from_slice(itoa::Buffer::new().format(time_ms).as_bytes());
                    self.write_json_cells(out, &slab, row);
                    out.push(b'}');
                    if self.form == RowForm::Ndjson {
                        out.push(b'\n');
                    }
                }
            }
        }
        self.rows += slab.times.len();
        Ok(())
    }

    fn write_json_cells(&self, out: &mut Vec<u8>, slab: &Slab<'_>, row: usize) {
        for (point, column) in self.points.iter().zip(&slab.columns) {
            if !column.values.is_present(row) {
                continue;
            }
            out.extend_from_slice(&point.key);
            let quality = if self.with_quality {
                column.quality_of(row)
            } else {
                None
            };
            let Some(quality) = quality else {
                column.values.write_json(out, row, point.column.is_json);
                continue;
            };
            out.extend_from_slice(b"{\"value\":");
            column.values.write_json(out, row, point.column.is_json);
            out.extend_from_slice(b",\"quality\":");
            out.extend_from_slice(itoa::Buffer::new().format(quality).as_bytes());
            out.push(b'}');
        }
    }

    fn write_csv_cells(&mut self, out: &mut Vec<u8>, slab: &Slab<'_>, row: usize) {
        for (point, column) in self.points.iter().zip(&slab.columns) {
            out.push(b',');
            match &column.values {
                Values::Long(array) if point.column.is_time && array.is_valid(row) => {
                    self.calendar.write(out, array.value(row));
                }
                values if values.is_present(row) => {
                    values.write_csv(out, row, point.column.is_json);
                }
                _ => {}
            }
            if self.with_quality {
                out.push(b',');
                if let Some(quality) = column.quality_of(row) {
                    out.extend_from_slice(itoa::Buffer::new().format(quality).as_bytes());
                }
            }
        }
    }
}

/// The columns of a slab, looked up and typed.
struct Slab<'a> {
    devices: &'a StringArray,
    times: &'a Int64Array,
    columns: Vec<Column<'a>>,
}

struct Column<'a> {
    values: Values<'a>,
    quality: Option<&'a UInt8Array>,
}

enum Values<'a> {
    /// No row has the point.
    None,
    Bool(&'a BooleanArray),
    Int(&'a Int32Array),
    Long(&'a Int64Array),
    Float(&'a Float32Array),
    Double(&'a Float64Array),
    Text(&'a StringArray),
}

impl<'a> Slab<'a> {
    fn new(slab: &'a RecordBatch, points: &[Point]) -> Result<Self, RowError> {
        let wrong = RowError::of;
        let (devices, times) = (slab.column_by_name(DEVICE), slab.column_by_name(TIME));
        let columns = points.iter().map(|point| {
            let OutColumn {
                source, quality, ..
            } = &point.column;
            let array = slab.column_by_name(source);
            let quality = quality.as_ref().and_then(|name| slab.column_by_name(name));
            Ok(Column {
                values: Values::of(array).ok_or_else(|| wrong(source, array))?,
                quality: quality.and_then(|array| array.as_primitive_opt::<UInt8Type>()),
            })
        });
        Ok(Self {
            devices: devices
                .and_then(|array| array.as_string_opt())
                .ok_or_else(|| wrong(DEVICE, devices))?,
            times: times
                .and_then(|array| array.as_primitive_opt::<Int64Type>())
                .ok_or_else(|| wrong(TIME, times))?,
            columns: columns.collect::<Result<_, _>>()?,
        })
    }
}

impl Column<'_> {
    fn quality_of(&self, row: usize) -> Option<u8> {
        self.quality
            .filter(|quality| quality.is_valid(row))
            .map(|quality| quality.value(row))
    }
}

impl<'a> Values<'a> {
    /// `None`: a type that the store does not have.
    fn of(array: Option<&'a ArrayRef>) -> Option<Self> {
        let Some(array) = array else {
            return Some(Self::None);
        };
        Some(match array.data_type() {
            DataType::Null => Self::None,
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Int32 => Self::Int(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Self::Long(array.as_primitive::<Int64Type>()),
            DataType::Float32 => Self::Float(array.as_primitive::<Float32Type>()),
            DataType::Float64 => Self::Double(array.as_primitive::<Float64Type>()),
            DataType::Utf8 => Self::Text(array.as_string()),
            _ => return None,
        })
    }

    fn is_present(&self, row: usize) -> bool {
        match self {
            Self::None => false,
            Self::Bool(array) => array.is_valid(row),
            Self::Int(array) => array.is_valid(row),
            Self::Long(array) => array.is_valid(row),
            Self::Float(array) => array.is_valid(row),
            Self::Double(array) => array.is_valid(row),
            Self::Text(array) => array.is_valid(row),
        }
    }

    fn write_json(&self, out: &mut Vec<u8>, row: usize, is_json: bool) {
        match self {
            Self::Text(array) if !is_json => quote(out, array.value(row)),
            _ => self.write_plain(out, row),
        }
    }

    fn write_csv(&self, out: &mut Vec<u8>, row: usize, is_json: bool) {
        match self {
            Self::Text(array) if is_json => csv_text(out, &plain(array.value(row))),
            Self::Text(array) => csv_text(out, array.value(row)),
            _ => self.write_plain(out, row),
        }
    }

    fn write_plain(&self, out: &mut Vec<u8>, row: usize) {
        match self {
            Self::None => {}
            Self::Bool(array) => write_bool(out, array.value(row)),
            Self::Int(array) => {
                out.extend_from_slice(itoa::Buffer::new().format(array.value(row)).as_bytes());
            }
            Self::Long(array) => {
                out.extend_from_slice(itoa::Buffer::new().format(array.value(row)).as_bytes());
            }
            // The shortest text that reads back the same.
            Self::Float(array) => {
                out.extend_from_slice(zmij::Buffer::new().format(array.value(row)).as_bytes());
            }
            Self::Double(array) => {
                out.extend_from_slice(zmij::Buffer::new().format(array.value(row)).as_bytes());
            }
            Self::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
        }
    }
}

/// A single value as JSON, as rows write it.
pub fn write_cell(out: &mut Vec<u8>, cell: &Cell, is_json: bool) {
    match cell {
        Cell::Bool(value) => write_bool(out, *value),
        Cell::Int(value) => out.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
        Cell::Long(value) => out.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
        Cell::Float(value) => out.extend_from_slice(zmij::Buffer::new().format(*value).as_bytes()),
        Cell::Double(value) => out.extend_from_slice(zmij::Buffer::new().format(*value).as_bytes()),
        Cell::Text(text) if is_json => out.extend_from_slice(text.as_bytes()),
        Cell::Text(text) => quote(out, text),
    }
}

fn write_bool(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// A cell of CSV, quoted where it has to be.
pub(super) fn csv_text(out: &mut Vec<u8>, text: &str) {
    if !text.contains([',', '"', '\n', '\r']) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

/// JSON as a cell says it: a text without its quotes, anything else as it is.
pub(super) fn plain(json: &str) -> Cow<'_, str> {
    match json.starts_with('"') {
        true => serde_json::from_str::<String>(json).map_or(Cow::Borrowed(json), Cow::Owned),
        false => Cow::Borrowed(json),
    }
}

/// A text as JSON.
pub(super) fn quote(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes every write");
}

/// Writes ISO times; rows of one day share the date.
#[derive(Default)]
struct Calendar {
    day: i64,
    /// `2014-01-01T` of that day; empty before the first.
    date: String,
}

impl Calendar {
    fn write(&mut self, out: &mut Vec<u8>, time_ms: i64) {
        let day = time_ms.div_euclid(DAY_MS);
        if self.date.is_empty() || day != self.day {
            let midnight = clock::iso(day.saturating_mul(DAY_MS));
            match midnight.split_once('T') {
                Some((date, _)) => self.date = format!("{date}T"),
                // Beyond the calendar a time is its number.
                None => return out.extend_from_slice(clock::iso(time_ms).as_bytes()),
            }
            self.day = day;
        }
        out.extend_from_slice(self.date.as_bytes());
        let of_day = time_ms.rem_euclid(DAY_MS);
        let mut digits = *b"00:00:00.000Z";
        let mut put = |at: usize, count: usize, mut value: i64| {
            for place in (at..at + count).rev() {
                digits[place] = b'0' + u8::try_from(value % 10).expect("a digit is below ten");
                value /= 10;
            }
        };
        put(0, 2, of_day / 3_600_000);
        put(3, 2, of_day / 60_000 % 60);
        put(6, 2, of_day / 1000 % 60);
        put(9, 3, of_day % 1000);
        out.extend_from_slice(&digits);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::NullArray;
    use backtide_model::{ElementName, Storage};
    use proptest::prelude::*;

    use super::*;
    use crate::query::{AskedPoint, Cursor};

    fn slab() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            (
                "_device",
                Arc::new(StringArray::from(vec!["R80711", "R80721"])),
            ),
            (
                "_time",
                Arc::new(Int64Array::from(vec![1_388_534_400_000, 1_388_535_000_500])),
            ),
            (
                "P_avg",
                Arc::new(Float64Array::from(vec![Some(642.780_03), None])),
            ),
            ("f", Arc::new(Float32Array::from(vec![0.1_f32, 1e30]))),
            ("f.quality", Arc::new(UInt8Array::from(vec![Some(9), None]))),
            ("on", Arc::new(BooleanArray::from(vec![true, false]))),
            ("label", Arc::new(StringArray::from(vec!["a\"b,c", "x"]))),
            (
                "pos",
                Arc::new(StringArray::from(vec![Some(r#"{"x":1}"#), None])),
            ),
            ("never", Arc::new(NullArray::new(2))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
            .unwrap()
    }

    fn points(names: &[&str]) -> Vec<OutColumn> {
        let point = |name: &&str| AskedPoint {
            name: ElementName::new(name).unwrap(),
            storage: Storage::Double,
            is_json: *name == "pos",
        };
        OutColumn::of(&names.iter().map(point).collect::<Vec<_>>())
    }

    fn written(form: RowForm, names: &[&str], with_quality: bool) -> String {
        let mut writer = RowWriter::new(form, points(names), with_quality);
        let mut out = Vec::new();
        writer.begin(&mut out);
        writer.write(&mut out, &slab()).unwrap();
        assert_eq!(writer.rows(), 2);
        assert_eq!(Cursor::behind(&slab()).unwrap().device.as_str(), "R80721");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn absent_points_are_left_out_of_ndjson() {
        assert_eq!(
            written(
                RowForm::Ndjson,
                &["P_avg", "on", "label", "pos", "never", "unheard"],
                false
            ),
            concat!(
                r#"{"deviceKey":"R80711","time":1388534400000,"P_avg":642.78003,"on":true,"label":"a\"b,c","pos":{"x":1}}"#,
                "\n",
                r#"{"deviceKey":"R80721","time":1388535000500,"on":false,"label":"x"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn absent_points_are_empty_cells_of_csv() {
        assert_eq!(
            written(RowForm::Csv, &["P_avg", "label", "pos"], false),
            "deviceKey,time,P_avg,label,pos\n\
             R80711,2014-01-01T00:00:00.000Z,642.78003,\"a\"\"b,c\",\"{\"\"x\"\":1}\"\n\
             R80721,2014-01-01T00:10:00.500Z,,x,\n"
        );
    }

    #[test]
    fn qualities_come_where_they_are_asked_for() {
        assert_eq!(
            written(RowForm::JsonItems, &["f"], true),
            concat!(
                r#"{"deviceKey":"R80711","time":1388534400000,"f":{"value":0.1,"quality":9}},"#,
                r#"{"deviceKey":"R80721","time":1388535000500,"f":1e+30}"#
            )
        );
        assert_eq!(
            written(RowForm::Csv, &["f"], true).lines().nth(1),
            Some("R80711,2014-01-01T00:00:00.000Z,0.1,9")
        );
        assert!(!written(RowForm::Ndjson, &["f"], false).contains("quality"));
    }

    proptest! {
        #[test]
        fn every_double_reads_back_the_same(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let mut out = Vec::new();
            write_cell(&mut out, &Cell::Double(value), false);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
            prop_assert_eq!(serde_json::from_str::<f64>(&text).unwrap(), value);
        }

        #[test]
        fn the_calendar_agrees_with_the_clock(time_ms in -62_135_596_800_000_i64..253_402_300_799_999) {
            let mut out = Vec::new();
            Calendar::default().write(&mut out, time_ms);
            prop_assert_eq!(String::from_utf8(out).unwrap(), clock::iso(time_ms));
        }
    }
}
