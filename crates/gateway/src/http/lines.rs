//! Answers made of lines: pages of objects, or a stream.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use backtide_store::{ReadError, Sequence, Store};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Api, Problem,
    problem::limit,
    stream::{self, CHUNK_BYTES, Ended, Outlet},
    tables,
};
use crate::{
    access::Caller,
    query::{Line, LineWriter, RowForm},
};

const LIMIT_DEFAULT: usize = 1_000;
const LIMIT_MAX: usize = 10_000;

/// How lines come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LineFormat {
    /// Pages of objects.
    #[default]
    Json,
    /// An object a line, streamed.
    Ndjson,
    /// A row a line, streamed, with a header.
    Csv,
}

/// Answers with the lines that `read` finds, at most as many as it is told.
pub(super) async fn answer<L, S>(
    api: &Api,
    caller: &Caller,
    format: LineFormat,
    rows: Option<usize>,
    read: impl FnOnce(&Store, usize) -> Result<S, ReadError> + Send + 'static,
) -> Result<Response, Problem>
where
    L: Line,
    S: Iterator<Item = Result<Vec<L>, ReadError>>,
{
    let (store, seat) = (api.store.clone(), tables::seat(api, caller)?);
    let (form, content_type) = match format {
        LineFormat::Json => {
            let rows_max = limit(rows, LIMIT_DEFAULT, LIMIT_MAX).map_err(|problem| {
                problem.fix("page with cursor, or ask for format=ndjson, which streams")
            })?;
            let page = move || {
                let _seat = seat;
                page(&store, rows_max, read)
            };
            let body = api.pool.run(page).await??;
            return Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response());
        }
        LineFormat::Ndjson => (RowForm::Ndjson, "application/x-ndjson"),
        LineFormat::Csv => (RowForm::Csv, "text/csv; charset=utf-8"),
    };
    stream::answer(&api.streams, content_type, "lines", move |outlet| {
        let _seat = seat;
        let slabs = read(&store, rows.unwrap_or(usize::MAX)).map_err(Problem::from)?;
        lines(&store, form, slabs, outlet)
    })
    .await
}

fn receipts(store: &Store) -> impl Fn(Sequence) -> String {
    |sequence| store.receipt(sequence).to_string()
}

fn lines<L: Line>(
    store: &Store,
    form: RowForm,
    slabs: impl Iterator<Item = Result<Vec<L>, ReadError>>,
    outlet: &Outlet,
) -> Result<(), Ended> {
    let mut writer = LineWriter::new(form, receipts(store));
    let mut chunk = Vec::with_capacity(2 * CHUNK_BYTES);
    writer.begin::<L>(&mut chunk);
    for slab in slabs {
        writer.write(&mut chunk, &slab.map_err(Problem::from)?);
        outlet.send_full(&mut chunk)?;
    }
    Ok(outlet.send(&mut chunk)?)
}

fn page<L, S>(
    store: &Store,
    rows_max: usize,
    read: impl FnOnce(&Store, usize) -> Result<S, ReadError>,
) -> Result<Vec<u8>, Problem>
where
    L: Line,
    S: Iterator<Item = Result<Vec<L>, ReadError>>,
{
    let mut writer = LineWriter::new(RowForm::JsonItems, receipts(store));
    let mut body = b"{\"items\":[".to_vec();
    for slab in read(store, rows_max)? {
        writer.write(&mut body, &slab?);
    }
    body.push(b']');
    // A full page may be the last: then the next is empty.
    if let Some(cursor) = writer.cursor().filter(|_| writer.lines() >= rows_max) {
        body.extend_from_slice(format!(",\"next\":\"{cursor}\"").as_bytes());
    }
    body.push(b'}');
    Ok(body)
}
