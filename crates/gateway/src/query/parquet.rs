//! Slabs of the store as one Parquet file: `deviceKey`, `time` (milliseconds, UTC), the points.

use std::{
    io::{self, Write},
    mem,
    sync::Arc,
};

use arrow_array::{
    Array, ArrayRef, RecordBatch, TimestampMillisecondArray, cast::AsArray, new_null_array,
    types::Int64Type,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use backtide_model::Storage;
use parking_lot::Mutex;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};

use super::AskedPoint;

/// Rows of a group: what is held in memory before it is written.
const GROUP_ROWS: usize = 64 << 10;

/// Writes the rows of one answer. What is written is taken out as it comes.
pub struct ParquetRows {
    writer: ArrowWriter<Sink>,
    sink: Sink,
    schema: SchemaRef,
}

impl ParquetRows {
    /// # Errors
    /// The writer's.
    pub fn new(points: &[AskedPoint], with_quality: bool) -> Result<Self, ParquetError> {
        let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let mut fields = vec![
            Field::new("deviceKey", DataType::Utf8, false),
            Field::new("time", utc, false),
        ];
        for point in points {
            fields.push(Field::new(
                point.name.as_str(),
                data_type(point.storage),
                true,
            ));
            if with_quality {
                fields.push(Field::new(
                    format!("{}.quality", point.name),
                    DataType::UInt8,
                    true,
                ));
            }
        }
        let schema = Arc::new(Schema::new(fields));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        let sink = Sink::default();
        let writer = ArrowWriter::try_new(sink.clone(), Arc::clone(&schema), Some(properties))?;
        Ok(Self {
            writer,
            sink,
            schema,
        })
    }

    /// Adds a slab.
    ///
    /// # Errors
    /// The writer's, or the slab has a column of another type.
    pub fn write(&mut self, slab: &RecordBatch) -> Result<(), ParquetError> {
        let rows = slab.num_rows();
        let columns = self.schema.fields().iter().map(|field| {
            let found = match field.name().as_str() {
                "deviceKey" => slab.column_by_name("_device").cloned(),
                "time" => slab.column_by_name("_time").and_then(time),
                name => slab.column_by_name(name).cloned(),
            };
            // Where no value was ever stored the column has no type of its own.
            found
                .filter(|array| !matches!(array.data_type(), DataType::Null))
                .unwrap_or_else(|| new_null_array(field.data_type(), rows))
        });
        let columns: Vec<_> = columns.collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        self.writer.write(&batch)
    }

    /// What was written since it was last taken.
    pub fn take(&self) -> Vec<u8> {
        mem::take(&mut *self.sink.bytes.lock())
    }

    /// Ends the file and gives the rest of it.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(self) -> Result<Vec<u8>, ParquetError> {
        self.writer.close()?;
        Ok(mem::take(&mut *self.sink.bytes.lock()))
    }
}

fn time(array: &ArrayRef) -> Option<ArrayRef> {
    let times = array.as_primitive_opt::<Int64Type>()?;
    let times: TimestampMillisecondArray = times.reinterpret_cast();
    Some(Arc::new(times.with_timezone("UTC")))
}

fn data_type(storage: Storage) -> DataType {
    match storage {
        Storage::Bool => DataType::Boolean,
        Storage::Int => DataType::Int32,
        Storage::Long => DataType::Int64,
        Storage::Float => DataType::Float32,
        Storage::Double => DataType::Float64,
        Storage::Text => DataType::Utf8,
    }
}

/// Bytes between the writer and whoever sends them.
#[derive(Clone, Default)]
struct Sink {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
