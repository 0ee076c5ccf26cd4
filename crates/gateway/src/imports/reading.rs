//! From bytes to messages, on a thread of its own.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::Path,
    sync::Arc,
};

use backtide_model::Code;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Asked, pieces::Pieces};
use crate::{
    files::{
        mapping::Points,
        message::Builder,
        source::{Form, Item, Row, Source, SourceError},
    },
    ingest::{Payload, Unreadable},
    limits::{IMPORT_MESSAGE_ROWS_MAX, IMPORT_SPOOL_RESERVE_BYTES, PAYLOAD_BYTES_MAX},
};

/// Rows at the beginning that may be unreadable before the mapping is taken for wrong.
const HOPELESS_ROWS: usize = 100;
const COPY_BYTES: usize = 256 << 10;

/// A message that is made of rows.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) payload: Payload,
    /// The rows of its items, from 1.
    pub(super) rows: Arc<[u64]>,
    pub(super) values: u64,
}

/// Where files that are read out of order wait.
pub(super) struct Spool<'s> {
    pub(super) dir: &'s Path,
    /// What is free of its disk.
    pub(super) free_bytes: &'s dyn Fn() -> u64,
}

/// What the reader tells.
#[derive(Debug)]
pub(super) enum Step {
    Made(Made),
    /// A row without any value.
    Empty,
}

/// Reads the file to its end and hands on what it makes of it, in the order of the rows.
///
/// # Errors
/// The file cannot be read on; what was handed on stays good.
pub(super) fn read(
    asked: &Asked,
    points: &Points,
    pieces: Pieces,
    spool: &Spool<'_>,
    run: &str,
    give: &mpsc::Sender<Step>,
) -> Result<(), SourceError> {
    let mut source = match asked.kind.form {
        Form::Parquet => Source::parquet(spooled(pieces, spool)?, &asked.mapping, points)?,
        Form::Csv | Form::Ndjson => {
            Source::text(Box::new(pieces), 0, asked.kind, &asked.mapping, points)?
        }
    };
    let builder = Builder::new(run, 0, IMPORT_MESSAGE_ROWS_MAX)
        .of(source.items)
        .naming_rows();
    let mut maker = Maker {
        builder,
        give,
        hopeless: Some(Vec::new()),
    };
    let mut item = Item::default();
    for row in 1_u64.. {
        let outcome = match source.rows.next(&mut item) {
            Ok(Some(outcome)) => outcome,
            Ok(None) => break,
            Err(error) => {
                // What was read before is as good as it would be in a whole file.
                drop(maker.flush());
                return Err(error);
            }
        };
        if row <= asked.skip_rows {
            continue;
        }
        if !maker.take(row, outcome, &mut item)? {
            return Ok(());
        }
    }
    maker.finish()
}

/// Nobody takes what is made: the import has ended.
struct Gone;

struct Maker<'g> {
    builder: Builder,
    give: &'g mpsc::Sender<Step>,
    /// Rows that cannot be read, until one can: were there none, it would be the mapping that is wrong.
    hopeless: Option<Vec<(u64, Made)>>,
}

impl Maker<'_> {
    /// Takes a row; false once nobody wants any more.
    fn take(&mut self, row: u64, outcome: Row, item: &mut Item) -> Result<bool, SourceError> {
        let taken = match outcome {
            Row::Empty => self.send(Step::Empty),
            Row::Unreadable(reason) => {
                let made = unreadable(row, &item.raw, Code::Malformed, reason);
                match &mut self.hopeless {
                    None => self.flush().and_then(|()| self.send(Step::Made(made))),
                    Some(rows) if rows.len() < HOPELESS_ROWS => {
                        rows.push((row, made));
                        Ok(())
                    }
                    Some(rows) => return Err(hopeless(rows)),
                }
            }
            Row::Full => self.full(row, item),
        };
        Ok(taken.is_ok())
    }

    fn full(&mut self, row: u64, item: &Item) -> Result<(), Gone> {
        for (_, made) in self.hopeless.take().into_iter().flatten() {
            self.send(Step::Made(made))?;
        }
        if item.json.len() > PAYLOAD_BYTES_MAX - 1_024 {
            self.flush()?;
            let reason = format!(
                "the row has {} bytes as a message, at most {PAYLOAD_BYTES_MAX} are taken",
                item.json.len()
            );
            let made = unreadable(row, &item.json, Code::TooLarge, reason);
            return self.send(Step::Made(made));
        }
        if self.builder.is_full(item) {
            self.flush()?;
        }
        // Builders count from 0.
        self.builder.add(row - 1, item);
        Ok(())
    }

    /// What was read before goes first: counts say up to which row all is answered.
    fn flush(&mut self) -> Result<(), Gone> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let message = self.builder.build();
        let rows = message.rows.iter().map(|row| row + 1);
        self.send(Step::Made(Made {
            payload: Payload::Whole(message.payload),
            rows: rows.collect(),
            values: message.values,
        }))
    }

    fn send(&self, step: Step) -> Result<(), Gone> {
        self.give.blocking_send(step).map_err(|_| Gone)
    }

    fn finish(mut self) -> Result<(), SourceError> {
        match self.hopeless.take() {
            Some(rows) if !rows.is_empty() => Err(hopeless(&rows)),
            Some(_) | None => {
                // Whoever has ended the import knows why.
                drop(self.flush());
                Ok(())
            }
        }
    }
}

fn unreadable(row: u64, raw: &[u8], code: Code, reason: String) -> Made {
    let kept = raw.len().min(PAYLOAD_BYTES_MAX);
    Made {
        payload: Payload::Unreadable(Unreadable {
            raw: Bytes::copy_from_slice(&raw[..kept]),
            code,
            reason,
        }),
        rows: [row].into(),
        values: 0,
    }
}

fn hopeless(rows: &[(u64, Made)]) -> SourceError {
    let first = rows.first().map_or_else(String::new, |(row, made)| {
        let reason = match &made.payload {
            Payload::Unreadable(unreadable) => unreadable.reason.as_str(),
            Payload::Whole(_) | Payload::Oversize(_) => "",
        };
        format!("row {row}: {reason}")
    });
    SourceError::Usage(format!(
        "none of the first {} rows can be read ({first}); look at the mapping",
        rows.len()
    ))
}

/// A file that is read out of order is whole on disk first. It has no name there: it is gone with
/// whoever reads it.
fn spooled(mut pieces: Pieces, spool: &Spool<'_>) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(spool.dir)?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = pieces.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        if (spool.free_bytes)() < IMPORT_SPOOL_RESERVE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no room on disk to keep the file while it is read; make room, or send it as CSV",
            ));
        }
        file.write_all(&buffer[..count])?;
    }
    file.rewind()?;
    Ok(file)
}
