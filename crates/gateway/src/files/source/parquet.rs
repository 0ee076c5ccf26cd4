//! Parquet: a column for the device, one for the time, one for each point; or long.

use std::{fmt::Write as _, fs::File};

use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray, types};
use arrow_schema::{DataType, TimeUnit};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use super::{Item, Meter, Row, Rows, Source, SourceError, csv::line};
use crate::files::{
    mapping::{Cells as CellsAt, Mapping, Points},
    moment::{Clockwork, MomentError, Notes},
    render::{Cells, Renderer},
};

pub(super) struct Parquet {
    batches: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    row: usize,
    renderer: Renderer,
    meter: Meter,
}

/// A row of a batch.
struct BatchRow<'b> {
    batch: &'b RecordBatch,
    row: usize,
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
        let renderer = Renderer::new(mapping, &header, points, clock)?;
        let layout = renderer.layout();
        let values: Vec<usize> = match &layout.cells {
            CellsAt::Wide(points) => points
                .iter()
                .flat_map(|point| [Some(point.column), point.quality])
                .flatten()
                .collect(),
            CellsAt::Long {
                point,
                value,
                quality,
            } => [Some(*point), Some(*value), *quality]
                .into_iter()
                .flatten()
                .collect(),
        };
        for column in values.into_iter().chain(layout.time) {
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
            renderer,
            meter: meter.clone(),
        };
        Ok(Source {
            items: mapping.items(),
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
        let cells = BatchRow { batch: &batch, row };
        let outcome = self.renderer.row(&cells, item)?;
        if matches!(outcome, Row::Unreadable(_)) {
            item.raw = cells.line();
        }
        Ok(Some(outcome))
    }

    fn notes(&self) -> Notes {
        self.renderer.clock.notes
    }
}

impl BatchRow<'_> {
    /// The row as CSV.
    fn line(&self) -> Vec<u8> {
        let mut record = csv::ByteRecord::new();
        for column in self.batch.columns() {
            let mut text = String::new();
            cell(&mut text, column, self.row);
            record.push_field(text.as_bytes());
        }
        line(&record)
    }
}

impl Cells for BatchRow<'_> {
    const TELLS_EMPTY: bool = true;

    fn cell<'c>(
        &'c self,
        column: usize,
        text: &'c mut String,
    ) -> Result<Option<&'c str>, &'static str> {
        let is_present = cell(text, self.batch.column(column), self.row);
        Ok(is_present.then_some(text.as_str()))
    }

    fn time_ms(&self, column: usize, clock: &mut Clockwork) -> Result<i64, MomentError> {
        time(self.batch.column(column), self.row, clock)
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
    use crate::files::moment::zone;

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
