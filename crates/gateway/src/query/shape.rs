//! Slabs as batches of a table with a schema of its own, as Parquet files and Arrow streams have it:
//! `deviceKey`, `time` (milliseconds, UTC), then the columns, with their qualities where asked for.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray, cast::AsArray,
    new_null_array, types::Int64Type,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use backtide_model::Storage;

use super::{
    OutColumn,
    columns::{DEVICE, TIME},
    rows::plain,
};

/// What a column of a slab holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Moments,
    /// Texts that are JSON.
    Json,
    Values,
}

impl Holds {
    fn of(column: &OutColumn) -> Self {
        match (column.is_time, column.is_json) {
            (true, _) => Self::Moments,
            (false, true) => Self::Json,
            (false, false) => Self::Values,
        }
    }
}

/// What a table looks like, and where its columns come from.
pub(super) struct Shape {
    pub(super) schema: SchemaRef,
    /// The slab's column for each of the table's, and what it holds.
    sources: Vec<(String, Holds)>,
}

impl Shape {
    pub(super) fn new(columns: &[OutColumn], with_quality: bool) -> Self {
        let utc = moments();
        let mut fields = vec![
            Field::new("deviceKey", DataType::Utf8, false),
            Field::new("time", utc.clone(), false),
        ];
        let mut sources = vec![
            (DEVICE.to_owned(), Holds::Values),
            (TIME.to_owned(), Holds::Moments),
        ];
        for column in columns {
            let data_type = match column.is_time {
                true => utc.clone(),
                false => data_type(column.storage),
            };
            fields.push(Field::new(&column.name, data_type, true));
            sources.push((column.source.clone(), Holds::of(column)));
            if let Some(quality) = column.quality.as_ref().filter(|_| with_quality) {
                let name = format!("{}.quality", column.name);
                fields.push(Field::new(name, DataType::UInt8, true));
                sources.push((quality.clone(), Holds::Values));
            }
        }
        Self {
            schema: Arc::new(Schema::new(fields)),
            sources,
        }
    }

    /// A table of these columns and no others, which have something in each row.
    pub(super) fn of_records(columns: &[OutColumn]) -> Self {
        let field = |column: &OutColumn| {
            let data_type = match column.is_time {
                true => moments(),
                false => data_type(column.storage),
            };
            Field::new(&column.name, data_type, false)
        };
        let fields: Vec<Field> = columns.iter().map(field).collect();
        let source = |column: &OutColumn| (column.source.clone(), Holds::of(column));
        Self {
            schema: Arc::new(Schema::new(fields)),
            sources: columns.iter().map(source).collect(),
        }
    }

    /// # Errors
    /// The slab has a column of another type.
    pub(super) fn batch(&self, slab: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let rows = slab.num_rows();
        let fields = self.schema.fields().iter().zip(&self.sources);
        let columns = fields.map(|(field, (source, holds))| {
            let found = slab.column_by_name(source);
            let found = match holds {
                Holds::Moments => found.and_then(time),
                Holds::Json => found.map(without_quotes),
                Holds::Values => found.cloned(),
            };
            // Where no value was ever stored the column has no type of its own.
            found
                .filter(|array| !matches!(array.data_type(), DataType::Null))
                .unwrap_or_else(|| new_null_array(field.data_type(), rows))
        });
        RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())
    }
}

fn moments() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// A text of JSON stands without its quotes, as in CSV.
fn without_quotes(array: &ArrayRef) -> ArrayRef {
    match array.as_string_opt::<i32>() {
        Some(texts) if texts.iter().flatten().any(|text| text.starts_with('"')) => {
            let texts = texts.iter().map(|text| text.map(plain));
            Arc::new(texts.collect::<StringArray>())
        }
        _ => Arc::clone(array),
    }
}

fn time(array: &ArrayRef) -> Option<ArrayRef> {
    let times = array.as_primitive_opt::<Int64Type>()?;
    let times: TimestampMillisecondArray = times.reinterpret_cast();
    Some(Arc::new(times.with_timezone("UTC")))
}

/// How a column of this storage is typed in slabs and tables.
pub(super) fn data_type(storage: Storage) -> DataType {
    match storage {
        Storage::Bool => DataType::Boolean,
        Storage::Int => DataType::Int32,
        Storage::Long => DataType::Int64,
        Storage::Float => DataType::Float32,
        Storage::Double => DataType::Float64,
        Storage::Text => DataType::Utf8,
    }
}
