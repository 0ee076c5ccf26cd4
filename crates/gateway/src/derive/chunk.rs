//! Rows as they are kept: so many windows of one device together, a batch of Arrow under a checksum.

use std::{io::Read, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Int64Array, RecordBatch, cast::AsArray, new_null_array, types::Int64Type,
};
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::interleave::interleave;
use lz4_flex::frame::{FrameDecoder, FrameEncoder, FrameInfo};

use super::TIME;

/// How chunks are laid down: what was laid down otherwise is computed anew.
pub(super) const FORMAT: &str = "arrow.lz4";

/// Why rows cannot be read or kept.
#[derive(Debug, thiserror::Error)]
#[error("rows of a rollup: {0}")]
pub struct ChunkError(String);

impl From<ArrowError> for ChunkError {
    fn from(error: ArrowError) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for ChunkError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Quick rather than small: it is paid for with every value that comes late.
pub(super) fn encode(rows: &RecordBatch) -> Result<Vec<u8>, ChunkError> {
    let about = FrameInfo::new().content_checksum(true);
    let packed = FrameEncoder::with_frame_info(about, Vec::new());
    let mut writer = StreamWriter::try_new(packed, &rows.schema())?;
    writer.write(rows)?;
    let packed = writer.into_inner()?.finish();
    packed.map_err(|error| ChunkError(error.to_string()))
}

pub(super) fn decode(body: &[u8]) -> Result<RecordBatch, ChunkError> {
    // To its end: there is the checksum.
    let mut plain = Vec::new();
    FrameDecoder::new(body).read_to_end(&mut plain)?;
    let mut reader = StreamReader::try_new(plain.as_slice(), None)?;
    let rows = reader.next();
    rows.ok_or_else(|| ChunkError("a chunk has no rows".to_owned()))?
        .map_err(Into::into)
}

/// The times of rows.
pub(super) fn times(rows: &RecordBatch) -> Result<&Int64Array, ChunkError> {
    let column = rows.column_by_name(TIME);
    column
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| ChunkError("they have no times".to_owned()))
}

/// Rows with the columns of a schema: those that they don't have, or have as another type, are empty.
pub(super) fn fit(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ChunkError> {
    let column = |field: &Arc<arrow_schema::Field>| {
        let found = rows.column_by_name(field.name());
        found
            .filter(|column| column.data_type() == field.data_type())
            .cloned()
            .unwrap_or_else(|| new_null_array(field.data_type(), rows.num_rows()))
    };
    let columns: Vec<ArrayRef> = schema.fields().iter().map(column).collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Both by time, where both have a row the new one, but where `stays` says of the old row and the new
/// one that the old stays.
pub(super) fn merge(
    old: &RecordBatch,
    new: &RecordBatch,
    stays: impl Fn(usize, usize) -> bool,
) -> Result<RecordBatch, ChunkError> {
    let (old_times, new_times) = (times(old)?.values(), times(new)?.values());
    let (mut at, mut picks) = (0, Vec::with_capacity(old_times.len() + new_times.len()));
    for (row, time_ms) in new_times.iter().enumerate() {
        while at < old_times.len() && old_times[at] < *time_ms {
            picks.push((0, at));
            at += 1;
        }
        let has_old = old_times.get(at) == Some(time_ms);
        picks.push(match has_old && stays(at, row) {
            true => (0, at),
            false => (1, row),
        });
        at += usize::from(has_old);
    }
    picks.extend((at..old_times.len()).map(|at| (0, at)));
    let columns = old.columns().iter().zip(new.columns());
    let columns: Result<Vec<ArrayRef>, ArrowError> = columns
        .map(|(old, new)| interleave(&[&**old, &**new], &picks))
        .collect();
    Ok(RecordBatch::try_new(old.schema(), columns?)?)
}

#[cfg(test)]
mod tests {
    use arrow_array::Float64Array;
    use arrow_schema::{DataType, Field, Schema};

    use super::*;

    fn rows(rows: &[(i64, Option<f64>)]) -> RecordBatch {
        let fields = vec![
            Field::new(TIME, DataType::Int64, false),
            Field::new("p.avg", DataType::Float64, true),
        ];
        let times = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
        let values = Float64Array::from_iter(rows.iter().map(|row| row.1));
        RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            vec![Arc::new(times), Arc::new(values)],
        )
        .unwrap()
    }

    #[test]
    fn rows_read_back_and_damage_is_told() {
        let rows = rows(&[(1, Some(0.5)), (2, None)]);
        let mut body = encode(&rows).unwrap();
        assert_eq!(decode(&body).unwrap(), rows);
        for at in (0..body.len()).step_by(7) {
            body[at] ^= 0x10;
            assert!(decode(&body).map_or(true, |read| read == rows), "byte {at}");
            body[at] ^= 0x10;
        }
    }

    #[test]
    fn new_rows_replace_old_ones_unless_those_stay() {
        let old = rows(&[(1, Some(1.0)), (3, Some(3.0)), (5, Some(5.0))]);
        let new = rows(&[(0, Some(-1.0)), (3, None), (5, Some(-5.0)), (7, Some(-7.0))]);
        let merged = merge(&old, &new, |old, _| old == 2).unwrap();
        let expected = rows(&[
            (0, Some(-1.0)),
            (1, Some(1.0)),
            (3, None),
            (5, Some(5.0)),
            (7, Some(-7.0)),
        ]);
        assert_eq!(merged, expected);
    }

    #[test]
    fn columns_that_rows_lack_are_empty() {
        let schema = Arc::new(Schema::new(vec![
            Field::new(TIME, DataType::Int64, false),
            Field::new("q.avg", DataType::Float64, true),
        ]));
        let fitted = fit(&rows(&[(1, Some(0.5))]), &schema).unwrap();
        assert_eq!(fitted.column(1).null_count(), 1);
    }
}
