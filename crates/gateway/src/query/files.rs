//! Slabs of the store as one file: Parquet, or a stream of Arrow.

use std::{
    io::{self, Write},
    mem,
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;
use parking_lot::Mutex;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};

use super::{OutColumn, shape::Shape};

/// Rows of a group: what is held in memory before it is written.
const GROUP_ROWS: usize = 64 << 10;

/// A file is not written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Writes the rows of one answer. What is written is taken out as it comes.
pub struct FileRows {
    writer: Writer,
    sink: Sink,
    shape: Shape,
}

enum Writer {
    Parquet(Box<ArrowWriter<Sink>>),
    Arrow(Box<StreamWriter<Sink>>),
}

impl FileRows {
    /// A Parquet file, in groups of rows.
    ///
    /// # Errors
    /// The writer's.
    pub fn parquet(columns: &[OutColumn], with_quality: bool) -> Result<Self, FileError> {
        Self::parquet_of(Shape::new(columns, with_quality))
    }

    /// The same of records, which have these columns and no others.
    ///
    /// # Errors
    /// The writer's.
    pub fn parquet_of_records(columns: &[OutColumn]) -> Result<Self, FileError> {
        Self::parquet_of(Shape::of_records(columns))
    }

    fn parquet_of(shape: Shape) -> Result<Self, FileError> {
        let sink = Sink::default();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        let schema = Arc::clone(&shape.schema);
        let writer = ArrowWriter::try_new(sink.clone(), schema, Some(properties))?;
        Ok(Self {
            writer: Writer::Parquet(Box::new(writer)),
            sink,
            shape,
        })
    }

    /// The IPC streaming format of Arrow, a batch a slab.
    ///
    /// # Errors
    /// The writer's.
    pub fn arrow(columns: &[OutColumn], with_quality: bool) -> Result<Self, FileError> {
        Self::arrow_of(Shape::new(columns, with_quality))
    }

    /// The same of records, which have these columns and no others.
    ///
    /// # Errors
    /// The writer's.
    pub fn arrow_of_records(columns: &[OutColumn]) -> Result<Self, FileError> {
        Self::arrow_of(Shape::of_records(columns))
    }

    fn arrow_of(shape: Shape) -> Result<Self, FileError> {
        let sink = Sink::default();
        Ok(Self {
            writer: Writer::Arrow(Box::new(StreamWriter::try_new(
                sink.clone(),
                &shape.schema,
            )?)),
            sink,
            shape,
        })
    }

    /// Adds a slab.
    ///
    /// # Errors
    /// The writer's, or the slab has a column of another type.
    pub fn write(&mut self, slab: &RecordBatch) -> Result<(), FileError> {
        let batch = self.shape.batch(slab)?;
        match &mut self.writer {
            Writer::Parquet(writer) => writer.write(&batch)?,
            Writer::Arrow(writer) => writer.write(&batch)?,
        }
        Ok(())
    }

    /// What was written since it was last taken.
    pub fn take(&self) -> Vec<u8> {
        mem::take(&mut *self.sink.bytes.lock())
    }

    /// Ends the file and gives the rest of it.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(self) -> Result<Vec<u8>, FileError> {
        match self.writer {
            Writer::Parquet(writer) => {
                writer.close()?;
            }
            Writer::Arrow(mut writer) => writer.finish()?,
        }
        Ok(mem::take(&mut *self.sink.bytes.lock()))
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
