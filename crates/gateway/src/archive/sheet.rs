//! Rows of the store as one file: Parquet or CSV, wide or long.

use arrow_array::{
    Array, BooleanArray, RecordBatch,
    cast::AsArray,
    types::{Int64Type, UInt64Type},
};
use arrow_select::filter::filter_record_batch;

use super::{
    ArchiveError,
    records::{attribute_columns, event_columns},
};
use crate::{
    query::{AskedPoint, FileRows, Long, OutColumn, RowForm, RowWriter},
    registry::{ArchiveFile, ArchiveForm, ArchiveFormat, ArchiveOf},
};

/// What is known of the rows that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) rows: u64,
    pub(super) first_time: i64,
    pub(super) last_time: i64,
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
}

/// Writes slabs; what is written is taken out as it comes.
pub(super) struct Sheet {
    writer: Writer,
    long: Option<Long>,
    span: Option<Span>,
}

enum Writer {
    Parquet(Box<FileRows>),
    Csv(RowWriter, Vec<u8>),
}

impl Sheet {
    /// A file of these points, each with its quality; or of events or attributes.
    pub(super) fn new(file: &ArchiveFile, points: &[AskedPoint]) -> Result<Self, ArchiveError> {
        let columns = match file.of {
            ArchiveOf::Points => OutColumn::of(points),
            ArchiveOf::Events => event_columns(),
            ArchiveOf::Attributes => attribute_columns(),
        };
        let long = (file.form == ArchiveForm::Long).then(|| Long::of_points(&columns, true));
        let with_quality = long.is_none() && file.of == ArchiveOf::Points;
        let columns = long.as_ref().map_or(columns, Long::columns);
        let writer = match file.format {
            ArchiveFormat::Parquet => {
                Writer::Parquet(Box::new(FileRows::parquet(&columns, with_quality)?))
            }
            ArchiveFormat::Csv => {
                let writer = RowWriter::new(RowForm::Csv, columns, with_quality);
                let mut head = Vec::new();
                writer.begin(&mut head);
                Writer::Csv(writer, head)
            }
        };
        Ok(Self {
            writer,
            long,
            span: None,
        })
    }

    pub(super) fn write(&mut self, slab: &RecordBatch) -> Result<(), ArchiveError> {
        if slab.num_rows() == 0 {
            return Ok(());
        }
        let turned = match &self.long {
            Some(long) => long.apply(slab)?,
            None => slab.clone(),
        };
        match &mut self.writer {
            Writer::Parquet(file) => file.write(&turned)?,
            Writer::Csv(writer, text) => writer.write(text, &turned)?,
        }
        self.count(slab, turned.num_rows())
    }

    fn count(&mut self, slab: &RecordBatch, rows: usize) -> Result<(), ArchiveError> {
        let times = column(slab, "_time")?.as_primitive::<Int64Type>().values();
        let sequences = sequences(slab)?;
        let (Some(first_time), Some(last_time)) = (times.iter().min(), times.iter().max()) else {
            return Ok(());
        };
        let (Some(first), Some(last)) = (sequences.iter().min(), sequences.iter().max()) else {
            return Ok(());
        };
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        let span = self.span.get_or_insert(Span {
            rows: 0,
            first_time: *first_time,
            last_time: *last_time,
            first_sequence: *first,
            last_sequence: *last,
        });
        span.rows += rows;
        span.first_time = span.first_time.min(*first_time);
        span.last_time = span.last_time.max(*last_time);
        span.first_sequence = span.first_sequence.min(*first);
        span.last_sequence = span.last_sequence.max(*last);
        Ok(())
    }

    /// What was written since it was last taken.
    pub(super) fn take(&mut self) -> Vec<u8> {
        match &mut self.writer {
            Writer::Parquet(file) => file.take(),
            Writer::Csv(_, text) => std::mem::take(text),
        }
    }

    /// The rest of the file, and what its rows are; `None` where there are none.
    pub(super) fn finish(self) -> Result<(Vec<u8>, Option<Span>), ArchiveError> {
        let rest = match self.writer {
            Writer::Parquet(file) => file.finish()?,
            Writer::Csv(_, text) => text,
        };
        Ok((rest, self.span))
    }
}

/// The rows of which a value has a place behind `since` in the order of commits.
pub(super) fn behind(slab: &RecordBatch, since: u64) -> Result<RecordBatch, ArchiveError> {
    let sequences = sequences(slab)?.iter();
    let kept: BooleanArray = sequences.map(|sequence| Some(*sequence > since)).collect();
    filter_record_batch(slab, &kept).map_err(|error| ArchiveError::Shape(error.to_string()))
}

fn sequences(slab: &RecordBatch) -> Result<&[u64], ArchiveError> {
    Ok(column(slab, "_sequence")?
        .as_primitive::<UInt64Type>()
        .values())
}

fn column<'s>(slab: &'s RecordBatch, name: &str) -> Result<&'s dyn Array, ArchiveError> {
    let found = slab.column_by_name(name).map(|array| array.as_ref());
    found.ok_or_else(|| ArchiveError::Shape(format!("the store gives no column {name}")))
}

/// The time of the first row.
pub(super) fn first_time(slab: &RecordBatch) -> Result<i64, ArchiveError> {
    let times = column(slab, "_time")?.as_primitive::<Int64Type>().values();
    let first = times.first().copied();
    first.ok_or_else(|| ArchiveError::Shape("a slab of the store is empty".to_owned()))
}
