//! Rows of an answer as bytes, piece by piece: JSON, NDJSON, CSV, Arrow's stream, Parquet.

use std::{
    io::{self, Write},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::RecordBatch,
        csv,
        datatypes::{Schema, SchemaRef},
        error::ArrowError,
        ipc::writer::StreamWriter,
        json::{
            WriterBuilder,
            writer::{JsonArray, LineDelimited, Writer},
        },
    },
    common::DataFusionError,
    parquet::{
        arrow::ArrowWriter,
        basic::{Compression, ZstdLevel},
        file::properties::WriterProperties,
    },
};
use parking_lot::Mutex;

use super::SqlError;

/// Rows of a row group of Parquet: what is in memory until it is written.
const GROUP_ROWS: usize = 64 << 10;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `{"columns":[…],"items":[…]}`
    Json,
    /// An object a line.
    Ndjson,
    Csv,
    /// Arrow's IPC stream.
    Arrow,
    Parquet,
}

/// Writes the rows of one answer.
pub struct Encoder {
    writer: Wrapped,
    made: Made,
    rows_left: usize,
}

enum Wrapped {
    Json(Writer<Made, JsonArray>),
    Ndjson(Writer<Made, LineDelimited>),
    Csv(Box<csv::Writer<Made>>),
    Arrow(Box<StreamWriter<Made>>),
    Parquet(Box<ArrowWriter<Made>>),
}

impl Encoder {
    /// # Errors
    /// A column is of a type that the form cannot hold.
    pub fn new(form: Form, schema: &SchemaRef, rows_max: usize) -> Result<Self, SqlError> {
        let mut made = Made::default();
        let json = || WriterBuilder::new().with_explicit_nulls(true);
        let writer = match form {
            Form::Json => {
                made.write_all(columns(schema).as_bytes())
                    .expect("memory takes every write");
                Wrapped::Json(json().build(made.clone()))
            }
            Form::Ndjson => Wrapped::Ndjson(json().build(made.clone())),
            Form::Csv => {
                let mut csv = csv::WriterBuilder::new()
                    .with_header(true)
                    .build(made.clone());
                // The header stands there without rows too.
                csv.write(&RecordBatch::new_empty(Arc::clone(schema)))
                    .map_err(failed)?;
                Wrapped::Csv(Box::new(csv))
            }
            Form::Arrow => {
                let stream = StreamWriter::try_new(made.clone(), schema).map_err(failed)?;
                Wrapped::Arrow(Box::new(stream))
            }
            Form::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(GROUP_ROWS))
                    .build();
                let file = ArrowWriter::try_new(made.clone(), Arc::clone(schema), Some(properties));
                Wrapped::Parquet(Box::new(file.map_err(DataFusionError::from)?))
            }
        };
        Ok(Self {
            writer,
            made,
            rows_left: rows_max,
        })
    }

    /// Whether no more rows are taken.
    pub fn is_full(&self) -> bool {
        self.rows_left == 0
    }

    /// Writes a batch, as far as it is wanted.
    ///
    /// # Errors
    /// A value that the form cannot hold.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        let rows = batch.num_rows().min(self.rows_left);
        self.rows_left -= rows;
        let batch = &batch.slice(0, rows);
        match &mut self.writer {
            Wrapped::Json(writer) => writer.write(batch).map_err(failed),
            Wrapped::Ndjson(writer) => writer.write(batch).map_err(failed),
            Wrapped::Csv(writer) => writer.write(batch).map_err(failed),
            Wrapped::Arrow(writer) => writer.write(batch).map_err(failed),
            Wrapped::Parquet(writer) => Ok(writer.write(batch).map_err(DataFusionError::from)?),
        }
    }

    /// What was written and not yet taken.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut *self.made.0.lock())
    }

    /// What comes after the last row.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    pub fn finish(mut self) -> Result<Vec<u8>, SqlError> {
        match &mut self.writer {
            Wrapped::Json(writer) => {
                writer.finish().map_err(failed)?;
                self.made.write_all(b"}").expect("memory takes every write");
            }
            Wrapped::Ndjson(writer) => writer.finish().map_err(failed)?,
            Wrapped::Csv(_) => {}
            Wrapped::Arrow(writer) => writer.finish().map_err(failed)?,
            Wrapped::Parquet(writer) => {
                writer.finish().map_err(DataFusionError::from)?;
            }
        }
        Ok(self.take())
    }
}

fn failed(error: ArrowError) -> SqlError {
    SqlError::from(DataFusionError::from(error))
}

/// The beginning of a JSON answer: what columns there are, by the names of PostgreSQL's types.
fn columns(schema: &Schema) -> String {
    let columns = schema.fields().iter().map(|field| {
        let pg_type = datafusion_postgres::arrow_pg::datatypes::into_pg_type(field.data_type());
        let name = pg_type.map_or_else(|_| field.data_type().to_string(), |t| t.name().to_owned());
        serde_json::json!({ "name": field.name(), "type": name })
    });
    let columns: Vec<_> = columns.collect();
    format!(
        "{{\"columns\":{},\"items\":",
        serde_json::Value::from(columns)
    )
}

/// Bytes that a writer made and nobody took yet.
#[derive(Debug, Clone, Default)]
struct Made(Arc<Mutex<Vec<u8>>>);

impl Write for Made {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{
        array::{ArrayRef, Float64Array, StringArray, TimestampMillisecondArray},
        ipc::reader::StreamReader,
    };

    use super::*;

    fn batch() -> RecordBatch {
        let times = TimestampMillisecondArray::from(vec![1_388_534_400_000, 1_388_535_000_500]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("time", Arc::new(times.with_timezone("+00:00"))),
            (
                "device",
                Arc::new(StringArray::from(vec!["R80711", "a\"b,c"])),
            ),
            (
                "P_avg",
                Arc::new(Float64Array::from(vec![Some(642.780_03), None])),
            ),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
            .unwrap()
    }

    fn written(form: Form, batches: usize, rows_max: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(form, &batch().schema(), rows_max).unwrap();
        let mut out = Vec::new();
        for _ in 0..batches {
            encoder.write(&batch()).unwrap();
            out.extend(encoder.take());
        }
        out.extend(encoder.finish().unwrap());
        out
    }

    #[test]
    fn json_names_the_columns_and_has_nulls() {
        let json: serde_json::Value = serde_json::from_slice(&written(Form::Json, 2, 3)).unwrap();
        assert_eq!(
            json["columns"][0],
            serde_json::json!({"name": "time", "type": "timestamptz"})
        );
        assert_eq!(json["columns"][2]["type"], "float8");
        let items = json["items"].as_array().unwrap();
        assert_eq!(items.len(), 3);
        assert_eq!(
            items[1],
            serde_json::json!({"time": "2014-01-01T00:10:00.500Z", "device": "a\"b,c", "P_avg": null})
        );
        let none: serde_json::Value = serde_json::from_slice(&written(Form::Json, 0, 9)).unwrap();
        assert_eq!(none["items"], serde_json::json!([]));
    }

    #[test]
    fn csv_and_ndjson_are_a_row_a_line_and_csv_has_a_header_without_rows_too() {
        assert_eq!(
            String::from_utf8(written(Form::Csv, 1, usize::MAX)).unwrap(),
            "time,device,P_avg\n2014-01-01T00:00:00Z,R80711,642.78003\n2014-01-01T00:10:00.500Z,\"a\"\"b,c\",\n"
        );
        assert_eq!(written(Form::Csv, 0, 9), b"time,device,P_avg\n");
        assert_eq!(
            String::from_utf8(written(Form::Ndjson, 1, 1)).unwrap(),
            "{\"time\":\"2014-01-01T00:00:00Z\",\"device\":\"R80711\",\"P_avg\":642.78003}\n"
        );
    }

    #[test]
    fn an_arrow_stream_reads_back() {
        let bytes = written(Form::Arrow, 2, usize::MAX);
        let reader = StreamReader::try_new(bytes.as_slice(), None).unwrap();
        let batches: Vec<_> = reader.map(Result::unwrap).collect();
        assert_eq!(batches, [batch(), batch()]);
    }
}
