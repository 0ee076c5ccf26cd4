//! Rows of SQL as the body of an answer, made on SQL's own threads as the client takes them.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::stream::{self, StreamExt};
use tokio::{sync::mpsc, time::timeout};

use super::{
    super::{Api, Problem, problem::limit, stream::CHUNK_BYTES, tables::Format},
    SqlQuery,
};
use crate::{
    access::Caller,
    sql::{Encoder, Engine, Form, SqlError},
};

/// Pieces that wait for the client.
const WAITING_MAX: usize = 4;
/// A client that takes nothing for so long is given up.
const TAKE_WITHIN: Duration = Duration::from_secs(60);
/// When a caller with too many queries under way may try again.
const RETRY_AFTER_S: u64 = 5;

type Pieces = mpsc::Sender<Result<Bytes, Problem>>;

pub(super) async fn answered(
    api: &Api,
    caller: Caller,
    asked: SqlQuery,
) -> Result<Response, Problem> {
    if asked.limit.is_some() {
        limit(asked.limit, 1, usize::MAX)?;
    }
    let (form, content_type) = match asked.format {
        Format::Json => (Form::Json, "application/json"),
        Format::Ndjson => (Form::Ndjson, "application/x-ndjson"),
        Format::Csv => (Form::Csv, "text/csv; charset=utf-8"),
        Format::Parquet => (Form::Parquet, "application/vnd.apache.parquet"),
        Format::Arrow => (Form::Arrow, "application/vnd.apache.arrow.stream"),
    };
    let (pieces, mut made) = mpsc::channel(WAITING_MAX);
    let engine = Arc::clone(&api.sql);
    api.sql.runtime()?.spawn(async move {
        let made = make(&engine, &caller, &asked, form, &pieces);
        let made = tokio::select! {
            biased;
            // Nobody waits for it: dropping the query ends it.
            () = pieces.closed() => return,
            made = made => made,
        };
        if let Err(problem) = made {
            // A client that is gone hears nothing.
            drop(pieces.send(Err(problem)).await);
        }
    });
    // A problem before the first piece is answered as such; a later one breaks the body off.
    let first = made.recv().await.transpose()?;
    let rest = stream::unfold(made, async |mut made| {
        let piece = made.recv().await?;
        let piece = piece.map_err(|_| io::Error::other("the answer is incomplete"));
        Some((piece, made))
    });
    let body = Body::from_stream(stream::iter(first.map(Ok)).chain(rest));
    Ok(([(header::CONTENT_TYPE, content_type)], body).into_response())
}

async fn make(
    engine: &Engine,
    caller: &Caller,
    asked: &SqlQuery,
    form: Form,
    pieces: &Pieces,
) -> Result<(), Problem> {
    let mut rows = engine.ask(&caller.name, &asked.sql).await?;
    let rows_max = asked.limit.unwrap_or(usize::MAX);
    let mut encoder = Encoder::new(form, &rows.schema(), rows_max)?;
    let mut chunk = Vec::new();
    while !encoder.is_full() {
        let Some(batch) = rows.next().await else {
            break;
        };
        encoder.write(&batch?)?;
        chunk.append(&mut encoder.take());
        if chunk.len() >= CHUNK_BYTES {
            send(pieces, &mut chunk).await?;
        }
    }
    chunk.append(&mut encoder.finish()?);
    send(pieces, &mut chunk).await
}

/// An error where the client does not take it: an answer that is not whole must not end as if it were.
async fn send(pieces: &Pieces, chunk: &mut Vec<u8>) -> Result<(), Problem> {
    let piece = Bytes::from(std::mem::take(chunk));
    match timeout(TAKE_WITHIN, pieces.send(Ok(piece))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "not-taken",
            "the client took nothing for a minute",
        )),
    }
}

impl From<SqlError> for Problem {
    fn from(error: SqlError) -> Self {
        let status = match &error {
            SqlError::Syntax(_)
            | SqlError::Plan(_)
            | SqlError::Writes(_)
            | SqlError::Statements(_)
            | SqlError::Long { .. } => StatusCode::BAD_REQUEST,
            SqlError::Time(_) | SqlError::Memory(_) => StatusCode::UNPROCESSABLE_ENTITY,
            SqlError::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            SqlError::Cancelled | SqlError::Closing => StatusCode::SERVICE_UNAVAILABLE,
            SqlError::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let problem = Self::new(status, error.word(), error.to_string())
            .at("sql")
            .fix(error.fix());
        match error {
            SqlError::TooMany { .. } => problem.retry_after(RETRY_AFTER_S),
            _ => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_a_client_does_not_take_is_an_error() {
        let (pieces, mut made) = mpsc::channel(1);
        assert!(send(&pieces, &mut b"1".to_vec()).await.is_ok());
        assert!(send(&pieces, &mut b"2".to_vec()).await.is_err());
        assert_eq!(made.recv().await.unwrap().unwrap(), b"1"[..]);
    }
}
