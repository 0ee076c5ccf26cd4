//! Cursors: a query whose rows a client fetches some at a time (`DECLARE`, `FETCH`,
//! `MOVE`, `CLOSE`).
//!
//! The rows come from one read, which stands still between two fetches; nothing is kept. A cursor counts
//! as a query of its caller until it is closed: by its client, by the end of its transaction unless it
//! was declared `WITH HOLD`, or by being left alone too long.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use datafusion::sql::sqlparser::ast::{
    CloseCursor, Declare, DeclareType, FetchDirection, Query, Statement, Value, ValueWithSpan,
};
use datafusion_postgres::{
    arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch},
    pgwire::{
        api::{
            portal::Format,
            results::{QueryResponse, Response, Tag},
        },
        error::{PgWireError, PgWireResult},
        types::format::FormatOptions,
    },
};
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    fault,
    session::{Answer, TOO_MANY_ROWS},
};
use crate::{
    limits::{SQL_CURSOR_IDLE_S, SQL_CURSORS_MAX},
    sql::{RecordBatch, SchemaRef, SqlError},
};

const IDLE: Duration = Duration::from_secs(SQL_CURSOR_IDLE_S);

/// What is asked of a cursor.
pub(super) enum Asked<'s> {
    Declare(&'s Declare, &'s Query),
    Fetch(&'s str, &'s FetchDirection),
    /// As a fetch whose rows nobody sees.
    Move(&'s str, &'s FetchDirection),
    Close(&'s CloseCursor),
}

impl<'s> Asked<'s> {
    /// `None`: the statement is about something else, or not to be had.
    pub(super) fn of(statement: &'s Statement) -> Option<Self> {
        match statement {
            Statement::Declare { stmts } => match stmts.as_slice() {
                [one] if one.declare_type == Some(DeclareType::Cursor) => {
                    Some(Self::Declare(one, one.for_query.as_deref()?))
                }
                _ => None,
            },
            Statement::Fetch {
                name,
                direction,
                into,
                ..
            } => match into {
                None => Some(Self::Fetch(&name.value, direction)),
                Some(nothing) if nothing.0.is_empty() => Some(Self::Move(&name.value, direction)),
                Some(_) => None,
            },
            Statement::Close { cursor } => Some(Self::Close(cursor)),
            _ => None,
        }
    }
}

/// How a cursor is declared.
pub(super) struct Declared {
    pub(super) name: String,
    /// It outlives its transaction.
    is_held: bool,
}

impl Declared {
    /// # Errors
    /// It has no name, or nothing to stand in.
    pub(super) fn of(declare: &Declare, is_in_transaction: bool) -> PgWireResult<Self> {
        let Some(name) = declare.names.first() else {
            return Err(refusal("42601", "a cursor has a name", "name it"));
        };
        let is_held = declare.hold == Some(true);
        if !is_held && !is_in_transaction {
            return Err(refusal(
                "25P01",
                "a cursor ends with its transaction, and there is none",
                "BEGIN first, or declare it WITH HOLD",
            ));
        }
        Ok(Self {
            name: name.value.clone(),
            is_held,
        })
    }
}

/// How rows are taken.
pub(super) struct Taking<'f> {
    pub(super) format: &'f Format,
    pub(super) options: FormatOptions,
    /// Rows that may be in memory together.
    pub(super) at_once_max: usize,
    pub(super) cancelled: CancellationToken,
}

/// The cursors of a connection.
#[derive(Default)]
pub(super) struct Cursors(Arc<Mutex<HashMap<String, Kept>>>);

struct Kept {
    cursor: Arc<tokio::sync::Mutex<Cursor>>,
    is_held: bool,
    used: Instant,
}

/// Rows that are still to come.
struct Cursor {
    schema: SchemaRef,
    answer: Option<Answer>,
    /// Of a batch what was not fetched.
    rest: Option<RecordBatch>,
}

impl Cursors {
    /// Whether there is a cursor of this name, and room for one more.
    ///
    /// # Errors
    /// There is one already, or there are too many.
    pub(super) fn check(&self, declared: &Declared) -> PgWireResult<()> {
        let kept = self.0.lock();
        if kept.contains_key(&declared.name) {
            let message = format!("cursor \"{}\" exists already", declared.name);
            return Err(refusal(
                "42P03",
                &message,
                "close it first, or take another name",
            ));
        }
        if kept.len() >= SQL_CURSORS_MAX {
            let message = format!("{SQL_CURSORS_MAX} cursors are open on this connection");
            return Err(refusal("53400", &message, "close one first"));
        }
        Ok(())
    }

    pub(super) fn add(&self, declared: Declared, schema: SchemaRef, answer: Answer) -> Response {
        let cursor = Cursor {
            schema,
            answer: Some(answer),
            rest: None,
        };
        let kept = Kept {
            cursor: Arc::new(tokio::sync::Mutex::new(cursor)),
            is_held: declared.is_held,
            used: Instant::now(),
        };
        let watched = (Arc::downgrade(&self.0), Arc::downgrade(&kept.cursor));
        self.0.lock().insert(declared.name.clone(), kept);
        tokio::spawn(close_when_left(watched.0, watched.1, declared.name));
        Response::Execution(Tag::new("DECLARE CURSOR"))
    }

    /// The schema of a cursor's rows.
    ///
    /// # Errors
    /// There is no such cursor.
    pub(super) async fn schema(&self, name: &str) -> PgWireResult<SchemaRef> {
        let cursor = self.find(name)?;
        let cursor = cursor.lock().await;
        Ok(Arc::clone(&cursor.schema))
    }

    fn find(&self, name: &str) -> PgWireResult<Arc<tokio::sync::Mutex<Cursor>>> {
        let mut kept = self.0.lock();
        let found = kept.get_mut(name).map(|kept| {
            kept.used = Instant::now();
            Arc::clone(&kept.cursor)
        });
        found.ok_or_else(|| unknown(name))
    }

    /// The next rows, encoded as they are taken.
    ///
    /// # Errors
    /// There is no such cursor, or it is asked to go back.
    pub(super) async fn fetch(
        &self,
        name: &str,
        direction: &FetchDirection,
        taking: Taking<'_>,
    ) -> PgWireResult<Response> {
        let rows_max = forward(direction)?;
        let mut cursor = self.find(name)?.lock_owned().await;
        if let Some(answer) = &mut cursor.answer {
            answer.cancelled = taking.cancelled;
        }
        let (format, options) = (taking.format, Some(Arc::new(taking.options)));
        let fields = Arc::new(arrow_schema_to_pg_fields(&cursor.schema, format, options)?);
        let encoded = Arc::clone(&fields);
        let begun = (cursor, rows_max, taking.at_once_max);
        let batches = stream::unfold(begun, async |(mut cursor, rows_left, room)| {
            let batch = cursor.next(rows_left.min(room.saturating_add(1))).await?;
            let rows = batch.as_ref().map_or(0, RecordBatch::num_rows);
            Some(match room.checked_sub(rows) {
                Some(room) => {
                    let rows_left = if batch.is_ok() { rows_left - rows } else { 0 };
                    (batch, (cursor, rows_left, room))
                }
                None => (
                    Err(SqlError::Memory(TOO_MANY_ROWS.to_owned())),
                    (cursor, 0, 0),
                ),
            })
        });
        let rows = batches.flat_map(move |batch| {
            let rows: Box<dyn Iterator<Item = _> + Send> = match batch {
                Ok(batch) => encode_recordbatch(Arc::clone(&encoded), batch),
                Err(error) => Box::new(std::iter::once(Err(fault::of_sql(&error)))),
            };
            stream::iter(rows)
        });
        let mut response = QueryResponse::new(fields, rows);
        response.set_command_tag("FETCH");
        Ok(Response::Query(response))
    }

    /// Goes on without the rows; says how many they were.
    ///
    /// # Errors
    /// There is no such cursor, it is asked to go back, or its query fails.
    pub(super) async fn pass(
        &self,
        name: &str,
        direction: &FetchDirection,
        cancelled: CancellationToken,
    ) -> PgWireResult<Response> {
        let mut rows_left = forward(direction)?;
        let mut cursor = self.find(name)?.lock_owned().await;
        if let Some(answer) = &mut cursor.answer {
            answer.cancelled = cancelled;
        }
        let mut passed = 0;
        while let Some(batch) = cursor.next(rows_left).await {
            let rows = batch.map_err(|error| fault::of_sql(&error))?.num_rows();
            rows_left -= rows;
            passed += rows;
        }
        Ok(Response::Execution(Tag::new("MOVE").with_rows(passed)))
    }

    /// Closes one or all; the names of those that were open.
    ///
    /// # Errors
    /// There is no such cursor.
    pub(super) fn close(&self, which: &CloseCursor) -> PgWireResult<Vec<String>> {
        let mut kept = self.0.lock();
        match which {
            CloseCursor::All => Ok(kept.drain().map(|(name, _)| name).collect()),
            CloseCursor::Specific { name } => match kept.remove(&name.value) {
                Some(_) => Ok(vec![name.value.clone()]),
                None => Err(unknown(&name.value)),
            },
        }
    }

    /// Closes those that end with their transaction; their names.
    pub(super) fn end_transaction(&self) -> Vec<String> {
        let mut kept = self.0.lock();
        let ended = kept.extract_if(|_, kept| !kept.is_held);
        ended.map(|(name, _)| name).collect()
    }
}

/// Closes a cursor that nobody fetches from.
async fn close_when_left(
    cursors: Weak<Mutex<HashMap<String, Kept>>>,
    cursor: Weak<tokio::sync::Mutex<Cursor>>,
    name: String,
) {
    let mut until = Instant::now() + IDLE;
    loop {
        sleep_until(until).await;
        let Some(cursors) = cursors.upgrade() else {
            return;
        };
        let mut kept = cursors.lock();
        let used = kept
            .get(&name)
            .filter(|kept| Weak::ptr_eq(&Arc::downgrade(&kept.cursor), &cursor));
        match used.map(|kept| kept.used + IDLE) {
            None => return,
            Some(next) if next > Instant::now() => until = next,
            Some(_) => {
                kept.remove(&name);
                tracing::info!(cursor = name, "a cursor that nobody fetches from is closed");
                return;
            }
        }
    }
}

impl Cursor {
    /// Some rows, `rows_max` at most; `None` at the end, and where none is wanted.
    async fn next(&mut self, rows_max: usize) -> Option<Result<RecordBatch, SqlError>> {
        if rows_max == 0 {
            return None;
        }
        let batch = match self.rest.take() {
            Some(batch) => batch,
            None => loop {
                let (next, answer) = self.answer.take()?.next().await?;
                match next {
                    Ok(batch) if batch.num_rows() == 0 => self.answer = Some(answer),
                    Ok(batch) => {
                        self.answer = Some(answer);
                        break batch;
                    }
                    // It is over: what comes behind an error is nothing.
                    Err(error) => return Some(Err(error)),
                }
            },
        };
        let taken = batch.num_rows().min(rows_max);
        if taken < batch.num_rows() {
            self.rest = Some(batch.slice(taken, batch.num_rows() - taken));
        }
        Some(Ok(batch.slice(0, taken)))
    }
}

/// How many rows a fetch wants.
fn forward(direction: &FetchDirection) -> PgWireResult<usize> {
    match direction {
        FetchDirection::Next | FetchDirection::Forward { limit: None } => Ok(1),
        FetchDirection::Count { limit } | FetchDirection::Forward { limit: Some(limit) } => {
            count(limit).ok_or_else(back)
        }
        FetchDirection::All | FetchDirection::ForwardAll => Ok(usize::MAX),
        _ => Err(back()),
    }
}

fn count(limit: &ValueWithSpan) -> Option<usize> {
    match &limit.value {
        Value::Number(number, _) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn back() -> PgWireError {
    refusal(
        "55000",
        "a cursor goes forward only",
        "declare it again to begin anew; FETCH and MOVE take NEXT, a number, FORWARD or ALL",
    )
}

fn unknown(name: &str) -> PgWireError {
    refusal(
        "34000",
        &format!("cursor \"{name}\" does not exist"),
        "declare it; it ends with its transaction, and when nobody fetches from it for minutes",
    )
}

fn refusal(state: &str, message: &str, hint: &str) -> PgWireError {
    fault::of("ERROR", state, message, hint)
}
