//! Wide Parquet: a column for the device, one for the time, one for each point.

use std::{fmt::Write as _, fs::File};

use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray, types};
use arrow_schema::{DataType, TimeUnit};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use super::{Item, Meter, Row, Rows, Source, SourceError, spoiled};
use crate::cli::send::{
    mapping::{DeviceAt, Layout, Mapping, Points},
    moment::{Clockwork, MomentError, Notes},
    value,
};

pub(super) struct Parquet {
    batches: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    row: usize,
    mapping: Mapping,
    layout: Layout,
    clock: Clockwork,
    meter: Meter,
    /// The text of a cell, used again.
    text: String,
}

impl Parquet {
    pub(super) fn open(
        file: File,
        mapping: &Mapping,
        points: &Points,
        clock: Clockwork,
    ) -> Result<Source, SourceError> {
        // Without the writer's own schema strings are plain strings, whatever it used in memory.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
            .map_err(|error| SourceError::Usage(format!("no Parquet file: {error}")))?;
        let schema = builder.schema().clone();
        let header: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let layout = Layout::new(mapping, &header, points).map_err(SourceError::Usage)?;
        let values = layout
            .points
            .iter()
            .flat_map(|p| [Some(p.column), p.quality])
            .flatten();
        for column in values.chain([layout.time]) {
            let field = schema.field(column);
            if !is_known(field.data_type()) {
                return Err(SourceError::Usage(format!(
                    "column {:?} has type {}, which cannot be sent; leave it out with --drop",
                    field.name(),
                    field.data_type()
                )));
            }
        }
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let meter = Meter {
            total: rows,
            ..Meter::default()
        };
        let batches = builder.with_batch_size(8_192).build().map_err(unreadable)?;
        let rows = Self {
            batches,
            batch: None,
            row: 0,
            mapping: mapping.clone(),
            layout,
            clock,
            meter: meter.clone(),
            text: String::new(),
        };
        Ok(Source {
            rows: Box::new(rows),
            meter,
        })
    }

    /// The batch that holds the next row.
    fn fill(&mut self) -> Result<Option<RecordBatch>, SourceError> {
        loop {
            if let Some(batch) = &self.batch
                && self.row < batch.num_rows()
            {
                return Ok(Some(batch.clone()));
            }
            self.row = 0;
            self.batch = self.batches.next().transpose().map_err(unreadable)?;
            if self.batch.is_none() {
                return Ok(None);
            }
        }
    }
}

impl Rows for Parquet {
    fn next(&mut self, item: &mut Item) -> Result<Option<Row>, SourceError> {
        let Some(batch) = self.fill()? else {
            return Ok(None);
        };
        let row = self.row;
        self.row += 1;
        self.meter.add(1);
        let device = match &self.layout.device {
            DeviceAt::Fixed(key) => key.clone(),
            DeviceAt::Column(column) => {
                self.text.clear();
                if !cell(&mut self.text, batch.column(*column), row) {
                    return Ok(Some(Row::Unreadable("the device key is empty".to_owned())));
                }
                self.text.trim().to_owned()
            }
        };
        let time_ms = match time(batch.column(self.layout.time), row, &mut self.clock) {
            Ok(time_ms) => time_ms,
            Err(error) => return spoiled(&error),
        };
        item.begin(&device, time_ms);
        for point in &self.layout.points {
            self.text.clear();
            let present = cell(&mut self.text, batch.column(point.column), row);
            if !present || self.mapping.is_absent(&self.text) {
                continue;
            }
            let mut quality = String::new();
            let has_quality = point
                .quality
                .is_some_and(|column| cell(&mut quality, batch.column(column), row));
            let text = &self.text;
            item.value(&point.key, |out| {
                if !has_quality {
                    return value::write(out, point.form, text);
                }
                out.extend_from_slice(b"{\"value\":");
                value::write(out, point.form, text);
                out.extend_from_slice(b",\"quality\":");
                value::write(out, value::Form::Number, &quality);
                out.push(b'}');
            });
        }
        Ok(Some(item.end()))
    }

    fn notes(&self) -> Notes {
        self.clock.notes
    }
}

fn is_known(data_type: &DataType) -> bool {
    use DataType as T;
    matches!(
        data_type,
        T::Boolean
            | T::Int8
            | T::Int16
            | T::Int32
            | T::Int64
            | T::UInt8
            | T::UInt16
            | T::UInt32
            | T::UInt64
            | T::Float32
            | T::Float64
            | T::Utf8
            | T::LargeUtf8
            | T::Utf8View
            | T::Decimal128(..)
            | T::Timestamp(..)
    )
}

/// Appends the text of a cell; false where it is null.
fn cell(out: &mut String, column: &ArrayRef, row: usize) -> bool {
    use DataType as T;
    if column.is_null(row) {
        return false;
    }
    macro_rules! number {
        ($type:ty) => {
            write!(out, "{}", column.as_primitive::<$type>().value(row))
                .expect("a string takes every write")
        };
    }
    match column.data_type() {
        T::Boolean => out.push_str(if column.as_boolean().value(row) {
            "true"
        } else {
            "false"
        }),
        T::Int8 => number!(types::Int8Type),
        T::Int16 => number!(types::Int16Type),
        T::Int32 => number!(types::Int32Type),
        T::Int64 => number!(types::Int64Type),
        T::UInt8 => number!(types::UInt8Type),
        T::UInt16 => number!(types::UInt16Type),
        T::UInt32 => number!(types::UInt32Type),
        T::UInt64 => number!(types::UInt64Type),
        T::Float32 => out.push_str(
            zmij::Buffer::new().format(column.as_primitive::<types::Float32Type>().value(row)),
        ),
        T::Float64 => out.push_str(
            zmij::Buffer::new().format(column.as_primitive::<types::Float64Type>().value(row)),
        ),
        T::Utf8 => out.push_str(column.as_string::<i32>().value(row)),
        T::LargeUtf8 => out.push_str(column.as_string::<i64>().value(row)),
        T::Utf8View => out.push_str(column.as_string_view().value(row)),
        T::Decimal128(..) => {
            out.push_str(
                &column
                    .as_primitive::<types::Decimal128Type>()
                    .value_as_string(row),
            );
        }
        T::Timestamp(..) => match moment(column, row) {
            Some(moment) => {
                write!(out, "{}", moment.as_millisecond()).expect("a string takes every write")
            }
            None => return false,
        },
        _ => return false,
    }
    true
}

/// The time of a row in milliseconds.
fn time(column: &ArrayRef, row: usize, clock: &mut Clockwork) -> Result<i64, MomentError> {
    let unreadable = |text: &str| MomentError::Unreadable(text.to_owned());
    let DataType::Timestamp(_, zone) = column.data_type() else {
        let mut text = String::new();
        return if cell(&mut text, column, row) {
            clock.read(&text)
        } else {
            Err(unreadable(""))
        };
    };
    let moment = moment(column, row).ok_or_else(|| unreadable("timestamp"))?;
    if zone.is_some() {
        return Ok(clock.whole_ms(moment));
    }
    // A timestamp that is not adjusted to UTC shows what a wall clock showed.
    let local: DateTime = TimeZone::UTC.to_datetime(moment);
    clock
        .read_local(local)
        .ok_or_else(|| MomentError::Local(local.to_string()))
}

fn moment(column: &ArrayRef, row: usize) -> Option<Timestamp> {
    if column.is_null(row) {
        return None;
    }
    let DataType::Timestamp(unit, _) = column.data_type() else {
        return None;
    };
    match unit {
        TimeUnit::Second => Timestamp::from_second(
            column
                .as_primitive::<types::TimestampSecondType>()
                .value(row),
        ),
        TimeUnit::Millisecond => Timestamp::from_millisecond(
            column
                .as_primitive::<types::TimestampMillisecondType>()
                .value(row),
        ),
        TimeUnit::Microsecond => Timestamp::from_microsecond(
            column
                .as_primitive::<types::TimestampMicrosecondType>()
                .value(row),
        ),
        TimeUnit::Nanosecond => Timestamp::from_nanosecond(
            column
                .as_primitive::<types::TimestampNanosecondType>()
                .value(row)
                .into(),
        ),
    }
    .ok()
}

fn unreadable(error: impl std::fmt::Display) -> SourceError {
    SourceError::Io(std::io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Float64Array, StringArray, TimestampMicrosecondArray};
    use parquet::arrow::ArrowWriter;

    use super::{super::tests::*, *};
    use crate::cli::send::moment::zone;

    fn read(utc: bool, zone_name: Option<&str>) -> Result<Vec<String>, SourceError> {
        let times =
            TimestampMicrosecondArray::from(vec![1_404_216_000_000_000, 1_404_216_600_000_000]);
        let times = if utc {
            times.with_timezone("UTC")
        } else {
            times
        };
        let batch = RecordBatch::try_from_iter([
            (
                "deviceKey",
                Arc::new(StringArray::from(vec!["R1", "R2"])) as ArrayRef,
            ),
            ("time", Arc::new(times)),
            (
                "P_avg",
                Arc::new(Float64Array::from(vec![Some(7.119_999_900_000_001), None])),
            ),
        ])
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let mut writer =
            ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let clock = Clockwork::new(zone_name.map(|name| zone(name).unwrap()));
        let file = File::open(&path).unwrap();
        let mut source = Parquet::open(file, &Mapping::default(), &points(), clock)?;
        read_all(source.rows.as_mut())
    }

    #[test]
    fn moments_and_doubles_come_through_exactly() {
        assert_eq!(
            read(true, None).unwrap(),
            [
                r#"{"deviceKey":"R1","time":1404216000000,"measurepoints":{"P_avg":7.119999900000001}}"#,
                "-"
            ]
        );
    }

    #[test]
    fn timestamps_without_utc_are_local() {
        assert!(
            read(false, None)
                .unwrap_err()
                .to_string()
                .contains("--timezone")
        );
        let rows = read(false, Some("Europe/Paris")).unwrap();
        assert!(rows[0].contains("1404208800000"), "{}", rows[0]);
    }
}
