//! `/api/v1/points`: history by product, device, point and time.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use backtide_store::{Range, ReadError, Store};
use parquet::errors::ParquetError;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    problem::{Params, limit},
    stream::{self, CHUNK_BYTES, Ended, Outlet},
};
use crate::query::{Asked, ParquetRows, Question, QuestionError, RowError, RowForm, RowWriter};

const LIMIT_DEFAULT: usize = 1_000;
const LIMIT_MAX: usize = 10_000;
/// Slabs that are read before they are written.
const SLABS_AHEAD: usize = 2;
/// Rows that are written between two looks at the chunk's size.
const STRIDE_ROWS: usize = 1_024;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(points))
}

/// How rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// Pages of objects.
    #[default]
    Json,
    /// An object a line, streamed.
    Ndjson,
    /// A row a line, streamed, with a header.
    Csv,
    /// A file, streamed.
    Parquet,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct PointParams {
    /// Name or key of the product; may be left out where the device is unambiguous.
    product: Option<String>,
    /// Device keys, separated by commas; all unless given.
    #[serde(default)]
    device: String,
    /// Points, separated by commas; all that the model declares unless given.
    #[serde(default)]
    points: String,
    /// ISO time or milliseconds since 1970, inclusive.
    from: Option<String>,
    /// Exclusive.
    to: Option<String>,
    /// Rows at most. JSON: 1 to 10000, 1000 unless given. Streams: all unless given.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
    #[serde(default)]
    #[param(inline)]
    format: Format,
    /// Values that have a quality come as `{"value":…,"quality":…}`; in CSV as a further column.
    #[serde(default)]
    quality: bool,
}

/// Read points, in the order of time
#[utoipa::path(get, path = "/api/v1/points", tag = "history",
    params(PointParams),
    responses(
        (status = 200, description = "Wide rows: deviceKey, time in milliseconds, and each point that the row has",
            content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"))),
        Refusals))]
async fn points(
    State(api): State<Arc<Api>>,
    Params(params): Params<PointParams>,
) -> Result<Response, Problem> {
    let asked = Asked {
        product: params.product.as_deref(),
        devices: &params.device,
        names: &params.points,
        from: params.from.as_deref(),
        to: params.to.as_deref(),
        cursor: params.cursor.as_deref(),
    };
    let question = Question::new(&asked, &api.registry.snapshot())?;
    let range = question.range(params.limit.unwrap_or(usize::MAX));
    let store = api.store.clone();
    let (form, content_type, format) = match params.format {
        Format::Json => return page(&api, &question, &params).await,
        Format::Ndjson => (RowForm::Ndjson, "application/x-ndjson", "ndjson"),
        Format::Csv => (RowForm::Csv, "text/csv; charset=utf-8", "csv"),
        Format::Parquet => {
            let file = ParquetRows::new(&question.points, params.quality)?;
            return stream::answer(
                &api.streams,
                "application/vnd.apache.parquet",
                "parquet",
                move |outlet| parquet_file(&store, &range, file, outlet),
            )
            .await;
        }
    };
    let writer = RowWriter::new(form, &question.points, params.quality);
    stream::answer(&api.streams, content_type, format, move |outlet| {
        rows(&store, &range, writer, outlet)
    })
    .await
}

/// Streams the rows of a range.
fn rows(store: &Store, range: &Range, mut writer: RowWriter, outlet: &Outlet) -> Result<(), Ended> {
    let mut chunk = Vec::with_capacity(2 * CHUNK_BYTES);
    writer.begin(&mut chunk);
    read_ahead(store, range, |slab| {
        for begin in (0..slab.num_rows()).step_by(STRIDE_ROWS) {
            let stride = slab.slice(begin, STRIDE_ROWS.min(slab.num_rows() - begin));
            writer.write(&mut chunk, &stride).map_err(Problem::from)?;
            outlet.send_full(&mut chunk)?;
        }
        Ok(())
    })?;
    Ok(outlet.send(&mut chunk)?)
}

/// Reads on a thread of its own while `write` works on what was read: on two cores an answer comes in
/// little more time than the slower of the two takes.
fn read_ahead(
    store: &Store,
    range: &Range,
    mut write: impl FnMut(&RecordBatch) -> Result<(), Ended>,
) -> Result<(), Ended> {
    let (give, slabs) = mpsc::sync_channel(SLABS_AHEAD);
    thread::scope(|scope| {
        // Moved in: it is gone before the reader is waited for, which then gives up.
        let slabs = slabs;
        let read = move || match store.read(range) {
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

/// Streams the rows of a range as one file.
fn parquet_file(
    store: &Store,
    range: &Range,
    mut file: ParquetRows,
    outlet: &Outlet,
) -> Result<(), Ended> {
    read_ahead(store, range, |slab| {
        file.write(slab).map_err(Problem::from)?;
        let mut written = file.take();
        if !written.is_empty() {
            outlet.send(&mut written)?;
        }
        Ok(())
    })?;
    Ok(outlet.send(&mut file.finish().map_err(Problem::from)?)?)
}

async fn page(api: &Api, question: &Question, params: &PointParams) -> Result<Response, Problem> {
    let began = Instant::now();
    let limit = limit(params.limit, LIMIT_DEFAULT, LIMIT_MAX).map_err(|problem| {
        problem.fix("page with cursor, or ask for format=ndjson, which streams")
    })?;
    let range = question.range(limit);
    let mut writer = RowWriter::new(RowForm::JsonItems, &question.points, params.quality);
    let store = api.store.clone();
    let body = api.pool.run(move || -> Result<Vec<u8>, Problem> {
        let mut body = b"{\"items\":[".to_vec();
        for slab in store.read(&range)? {
            writer.write(&mut body, &slab?)?;
        }
        body.push(b']');
        // A full page may be the last: then the next is empty.
        if let Some(cursor) = writer.cursor().filter(|_| writer.rows() >= limit) {
            body.extend_from_slice(format!(",\"next\":\"{}\"", cursor.encode()).as_bytes());
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

impl From<QuestionError> for Problem {
    fn from(error: QuestionError) -> Self {
        let detail = error.to_string();
        match error {
            QuestionError::UnknownProduct(_) => Self::not_found(detail).at("product"),
            QuestionError::UnknownDevice { .. } => Self::not_found(detail).at("device"),
            QuestionError::UnknownElement { what: "point", .. } => {
                Self::not_found(detail).at("points")
            }
            QuestionError::UnknownElement { what, .. } => Self::not_found(detail).at(what),
            QuestionError::Ambiguous { .. } => {
                Self::new(StatusCode::CONFLICT, "ambiguous", detail).at("product")
            }
            QuestionError::NoProduct { .. } => Self::bad_request("product", detail),
            QuestionError::Name(_) => Self::bad_request("points", detail),
            QuestionError::Time(_) => Self::bad_request("from, to", detail),
            QuestionError::Cursor => Self::bad_request("cursor", detail),
        }
    }
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

impl From<ParquetError> for Problem {
    fn from(error: ParquetError) -> Self {
        tracing::error!(%error, "a Parquet file cannot be written");
        unreadable()
    }
}

fn unreadable() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "store",
        "the store cannot be read",
    )
    .fix("look at the gateway's log and at the disk it reads from")
}
