//! Slabs as batches of a table with a schema of its own, as Parquet files and Arrow streams have it:
//! `deviceKey`, `time` (milliseconds, UTC), then the columns, with their qualities where asked for.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, RecordBatch, TimestampMillisecondArray, cast::AsArray, new_null_array,
    types::Int64Type,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use backtide_model::Storage;

use super::{
    OutColumn,
    columns::{DEVICE, TIME},
};

/// What a table looks like, and where its columns come from.
pub(super) struct Shape {
    pub(super) schema: SchemaRef,
    /// The slab's column for each of the table's, and whether it is a moment.
    sources: Vec<(String, bool)>,
}

impl Shape {
    pub(super) fn new(columns: &[OutColumn], with_quality: bool) -> Self {
        let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let mut fields = vec![
            Field::new("deviceKey", DataType::Utf8, false),
            Field::new("time", utc.clone(), false),
        ];
        let mut sources = vec![(DEVICE.to_owned(), false), (TIME.to_owned(), true)];
        for column in columns {
            let data_type = match column.is_time {
                true => utc.clone(),
                false => data_type(column.storage),
            };
            fields.push(Field::new(&column.name, data_type, true));
            sources.push((column.source.clone(), column.is_time));
            if let Some(quality) = column.quality.as_ref().filter(|_| with_quality) {
                let name = format!("{}.quality", column.name);
                fields.push(Field::new(name, DataType::UInt8, true));
                sources.push((quality.clone(), false));
            }
        }
        Self {
            schema: Arc::new(Schema::new(fields)),
            sources,
        }
    }

    /// # Errors
    /// The slab has a column of another type.
    pub(super) fn batch(&self, slab: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let rows = slab.num_rows();
        let fields = self.schema.fields().iter().zip(&self.sources);
        let columns = fields.map(|(field, (source, is_time))| {
            let found = slab.column_by_name(source);
            let found = match is_time {
                true => found.and_then(time),
                false => found.cloned(),
            };
            // Where no value was ever stored the column has no type of its own.
            found
                .filter(|array| !matches!(array.data_type(), DataType::Null))
                .unwrap_or_else(|| new_null_array(field.data_type(), rows))
        });
        RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())
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
