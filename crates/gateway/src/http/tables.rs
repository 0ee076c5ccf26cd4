//! Answers made of rows, whoever makes them: pages of objects, or a stream in any format.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use backtide_store::{Range, ReadError, Store, View};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{
    Api, Problem,
    problem::limit,
    stream::{self, CHUNK_BYTES, Ended, Outlet},
};
use crate::{
    access::Caller,
    query::{Cursor, FileError, FileRows, Long, OutColumn, RowError, RowForm, RowWriter},
    seats::Seat,
};

pub(super) const LIMIT_DEFAULT: usize = 1_000;
const LIMIT_MAX: usize = 10_000;
/// Slabs that are read before they are written.
const SLABS_AHEAD: usize = 2;
/// Rows that are written between two looks at the chunk's size.
const STRIDE_ROWS: usize = 1_024;
/// When a caller with too many answers under way may try again.
const RETRY_AFTER_S: u64 = 5;

/// How rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// Pages of objects.
    #[default]
    Json,
    /// An object a line, streamed.
    Ndjson,
    /// A row a line, streamed, with a header.
    Csv,
    /// A file, streamed.
    Parquet,
    /// Arrow's IPC stream.
    Arrow,
}

/// What an answer looks like.
pub(super) struct Answer {
    pub(super) format: Format,
    pub(super) columns: Vec<OutColumn>,
    pub(super) with_quality: bool,
    /// Rows at most; a page has its own bounds.
    pub(super) limit: Option<usize>,
    /// Turns rows into one for each point; `limit` and cursors count those before.
    pub(super) long: Option<Long>,
    /// A page of it is made in no time: it does not wait behind long answers.
    pub(super) is_short: bool,
    /// How the place behind a row is written for `cursor`.
    pub(super) cursor: fn(&Cursor) -> String,
}

/// Takes the rows of an answer from whoever makes them.
pub(super) struct Taker<'a> {
    take: &'a mut dyn FnMut(&RecordBatch) -> Result<(), Ended>,
    is_gone: &'a dyn Fn() -> bool,
}

impl Taker<'_> {
    /// # Errors
    /// [`Ended`]: no more are taken.
    pub(super) fn take(&mut self, batch: &RecordBatch) -> Result<(), Ended> {
        (self.take)(batch)
    }

    /// Ends work for a client that is gone; to be asked while nothing is made for it.
    ///
    /// # Errors
    /// [`Ended::Gone`].
    pub(super) fn check(&self) -> Result<(), Ended> {
        match (self.is_gone)() {
            true => Err(Ended::Gone),
            false => Ok(()),
        }
    }
}

/// The right of a caller to one more answer of any length.
///
/// # Errors
/// It has too many under way: 429.
pub(super) fn seat(api: &Api, caller: &Caller) -> Result<Seat, Problem> {
    api.reads.take(&caller.name).map_err(|own| {
        let detail = format!("{} has {own} reads of history under way", caller.name);
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many", detail)
            .fix("wait for one to end, or ask for several devices and points at once")
            .retry_after(RETRY_AFTER_S)
    })
}

impl Answer {
    /// Answers with the rows that `make` gives to its taker. The seat is free once it has ended.
    pub(super) async fn send(
        self,
        api: &Api,
        seat: Seat,
        make: impl FnOnce(&mut Taker<'_>) -> Result<(), Ended> + Send + 'static,
    ) -> Result<Response, Problem> {
        let quality = self.with_quality;
        let (content_type, format, to) = match self.format {
            Format::Json => return self.page(api, seat, make).await,
            Format::Ndjson => {
                let writer = RowWriter::new(RowForm::Ndjson, self.columns, quality);
                ("application/x-ndjson", "ndjson", To::Text(writer))
            }
            Format::Csv => {
                let writer = RowWriter::new(RowForm::Csv, self.columns, quality);
                ("text/csv; charset=utf-8", "csv", To::Text(writer))
            }
            Format::Parquet => {
                let file = FileRows::parquet(&self.columns, quality)?;
                let content_type = "application/vnd.apache.parquet";
                (content_type, "parquet", To::File(Box::new(file)))
            }
            Format::Arrow => {
                let file = FileRows::arrow(&self.columns, quality)?;
                let content_type = "application/vnd.apache.arrow.stream";
                (content_type, "arrow", To::File(Box::new(file)))
            }
        };
        let (rows_max, long) = (self.limit.unwrap_or(usize::MAX), self.long);
        stream::answer(&api.streams, content_type, format, move |outlet| {
            let _seat = seat;
            to.write(rows_max, long.as_ref(), outlet, make)
        })
        .await
    }

    async fn page(
        self,
        api: &Api,
        seat: Seat,
        make: impl FnOnce(&mut Taker<'_>) -> Result<(), Ended> + Send + 'static,
    ) -> Result<Response, Problem> {
        let began = Instant::now();
        let limit = limit(self.limit, LIMIT_DEFAULT, LIMIT_MAX).map_err(|problem| {
            problem.fix("page with cursor, or ask for format=ndjson, which streams")
        })?;
        let mut writer = RowWriter::new(RowForm::JsonItems, self.columns, self.with_quality);
        let (cursor, long) = (self.cursor, self.long);
        // Whoever asked is gone when this is dropped.
        let gone = CancellationToken::new();
        let _leaving = gone.clone().drop_guard();
        let pool = match self.is_short {
            true => &api.pool,
            false => &api.streams,
        };
        let body = pool.run(move || -> Result<Vec<u8>, Problem> {
            let _seat = seat;
            let mut body = b"{\"items\":[".to_vec();
            let (mut rows, mut last) = (0, None);
            let ended = limited(limit, &|| gone.is_cancelled(), make, |batch| {
                rows += batch.num_rows();
                last = Cursor::behind(batch).or(last.take());
                let batch = turned(long.as_ref(), batch)?;
                Ok(writer.write(&mut body, &batch).map_err(Problem::from)?)
            });
            if let Err(Ended::Problem(problem)) = ended {
                return Err(problem);
            }
            body.push(b']');
            // A full page may be the last: then the next is empty.
            if let Some(last) = last.filter(|_| rows >= limit) {
                body.extend_from_slice(format!(",\"next\":\"{}\"", cursor(&last)).as_bytes());
            }
            body.push(b'}');
            Ok(body)
        });
        let body = body.await??;
        let timing = stream::timing(began, Duration::ZERO, "json");
        let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
        response.headers_mut().insert(stream::SERVER_TIMING, timing);
        Ok(response)
    }
}

/// Gives `write` at most so many rows of what `make` makes.
fn limited(
    mut rows_left: usize,
    is_gone: &dyn Fn() -> bool,
    make: impl FnOnce(&mut Taker<'_>) -> Result<(), Ended>,
    mut write: impl FnMut(&RecordBatch) -> Result<(), Ended>,
) -> Result<(), Ended> {
    let mut take = |batch: &RecordBatch| {
        if batch.num_rows() < rows_left {
            rows_left -= batch.num_rows();
            return write(batch);
        }
        write(&batch.slice(0, rows_left))?;
        rows_left = 0;
        Err(Ended::Full)
    };
    let mut taker = Taker {
        take: &mut take,
        is_gone,
    };
    match make(&mut taker) {
        Err(Ended::Full) => Ok(()),
        ended => ended,
    }
}

fn turned(long: Option<&Long>, batch: &RecordBatch) -> Result<RecordBatch, Problem> {
    match long {
        Some(long) => Ok(long.apply(batch)?),
        None => Ok(batch.clone()),
    }
}

/// Where the rows of a stream go.
enum To {
    Text(RowWriter),
    File(Box<FileRows>),
}

impl To {
    fn write(
        self,
        rows_max: usize,
        long: Option<&Long>,
        outlet: &Outlet,
        make: impl FnOnce(&mut Taker<'_>) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        let is_gone = || outlet.is_gone();
        match self {
            Self::Text(mut writer) => {
                let mut chunk = Vec::with_capacity(2 * CHUNK_BYTES);
                writer.begin(&mut chunk);
                limited(rows_max, &is_gone, make, |batch| {
                    let batch = &turned(long, batch)?;
                    for begin in (0..batch.num_rows()).step_by(STRIDE_ROWS) {
                        let stride = batch.slice(begin, STRIDE_ROWS.min(batch.num_rows() - begin));
                        writer.write(&mut chunk, &stride).map_err(Problem::from)?;
                        outlet.send_full(&mut chunk)?;
                    }
                    Ok(())
                })?;
                Ok(outlet.send(&mut chunk)?)
            }
            Self::File(mut file) => {
                limited(rows_max, &is_gone, make, |batch| {
                    file.write(&turned(long, batch)?).map_err(Problem::from)?;
                    let mut written = file.take();
                    if !written.is_empty() {
                        outlet.send(&mut written)?;
                    }
                    Ok(())
                })?;
                Ok(outlet.send(&mut file.finish().map_err(Problem::from)?)?)
            }
        }
    }
}

/// Reads on a thread of its own while `write` works on what was read: on two cores an answer comes in
/// little more time than the slower of the two takes.
pub(super) fn read_ahead(
    store: &Store,
    range: &Range,
    view: View,
    mut write: impl FnMut(&RecordBatch) -> Result<(), Ended>,
) -> Result<(), Ended> {
    let (give, slabs) = mpsc::sync_channel(SLABS_AHEAD);
    thread::scope(|scope| {
        // Moved in: it is gone before the reader is waited for, which then gives up.
        let slabs = slabs;
        let read = move || match store.values(range, view) {
            Ok(mut all) => while all.next().is_some_and(|slab| give.send(slab).is_ok()) {},
            // Nobody is there to hear of it any more.
            Err(error) => drop(give.send(Err(error))),
        };
        let reader = thread::Builder::new().name("history-read".to_owned());
        reader.spawn_scoped(scope, read).map_err(|error| {
            tracing::error!(%error, "no thread to read with");
            unreadable()
        })?;
        slabs
            .iter()
            .try_for_each(|slab| write(&slab.map_err(Problem::from)?))
    })
}

/// What the store cannot read is told to people on this side only.
impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "the store cannot be read");
        unreadable()
    }
}

impl From<RowError> for Problem {
    fn from(error: RowError) -> Self {
        tracing::error!(%error, "the store answers with something else than its contract");
        unreadable()
    }
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Self {
        tracing::error!(%error, "a file of rows cannot be written");
        unreadable()
    }
}

pub(super) fn unreadable() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "store",
        "the store cannot be read",
    )
    .fix("look at the gateway's log and at the disk it reads from")
}
