//! Rows of SQL as the body of an answer, made on SQL's own threads as the client takes them.

use std::sync::Arc;

use axum::{
    body::Bytes,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::{
    super::{
        Api, Problem,
        problem::limit,
        stream::{CHUNK_BYTES, Ended, Gone, Made, WAITING_MAX, body, give},
        tables::Format,
    },
    SqlQuery,
};
use crate::{
    access::Caller,
    sql::{Encoder, Engine, Form, SqlError},
};

/// When a caller with too many queries under way may try again.
const RETRY_AFTER_S: u64 = 5;

type Pieces = mpsc::Sender<Made<Problem>>;

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
    let (pieces, pieces_made) = mpsc::channel(WAITING_MAX);
    let engine = Arc::clone(&api.sql);
    api.sql.runtime()?.spawn(async move {
        let made = make(&engine, &caller, &asked, form, &pieces);
        let made = tokio::select! {
            biased;
            // Nobody waits for it: dropping the query ends it.
            () = pieces.closed() => return,
            made = made => made,
        };
        if let Err(ended) = made
            && let Some(broken) = ended.broken()
        {
            // A client that is gone hears nothing.
            drop(pieces.send(Err(broken)).await);
        }
    });
    let body = body(pieces_made).await?;
    Ok(([(header::CONTENT_TYPE, content_type)], body).into_response())
}

async fn make(
    engine: &Engine,
    caller: &Caller,
    asked: &SqlQuery,
    form: Form,
    pieces: &Pieces,
) -> Result<(), Ended> {
    let rows = engine.ask(&caller.name, &asked.sql).await;
    let mut rows = rows.map_err(Problem::from)?;
    let rows_max = asked.limit.unwrap_or(usize::MAX);
    let encoder = Encoder::new(form, &rows.schema(), rows_max);
    let mut encoder = encoder.map_err(Problem::from)?;
    let mut chunk = Vec::new();
    while !encoder.is_full() {
        let Some(batch) = rows.next().await else {
            break;
        };
        let batch = batch.map_err(Problem::from)?;
        encoder.write(&batch).map_err(Problem::from)?;
        chunk.append(&mut encoder.take());
        if chunk.len() >= CHUNK_BYTES {
            send(pieces, &mut chunk).await?;
        }
    }
    chunk.append(&mut encoder.finish().map_err(Problem::from)?);
    Ok(send(pieces, &mut chunk).await?)
}

async fn send(pieces: &Pieces, chunk: &mut Vec<u8>) -> Result<(), Gone> {
    let piece = Bytes::from(std::mem::take(chunk));
    give(pieces, Ok(Frame::data(piece))).await
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
        let Some(Ok(piece)) = made.recv().await else {
            panic!("the first was taken");
        };
        assert_eq!(piece.into_data().unwrap(), b"1"[..]);
    }
}
