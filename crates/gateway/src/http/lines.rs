//! Answers made of lines: pages of objects, or a stream.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use backtide_store::{ReadError, Sequence, Store};

use super::{
    Api, Problem,
    problem::limit,
    stream::{self, CHUNK_BYTES, Ended, Outlet},
    tables::{self, Format},
};
use crate::{
    access::Caller,
    query::{
        FileError, FileRows, Line, LineWriter, OutColumn, RowForm, came_columns, slab_of_lines,
    },
};

const LIMIT_DEFAULT: usize = 1_000;
const LIMIT_MAX: usize = 10_000;

/// Answers with the lines that `read` finds, at most as many as it is told.
pub(super) async fn answer<L, S>(
    api: &Api,
    caller: &Caller,
    format: Format,
    rows: Option<usize>,
    read: impl FnOnce(&Store, usize) -> Result<S, ReadError> + Send + 'static,
) -> Result<Response, Problem>
where
    L: Line,
    S: Iterator<Item = Result<Vec<L>, ReadError>>,
{
    let (store, seat) = (api.store.clone(), tables::seat(api, caller)?);
    let (to, content_type) = match format {
        Format::Json => {
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
        Format::Ndjson => (To::Text(RowForm::Ndjson), "application/x-ndjson"),
        Format::Csv => (To::Text(RowForm::Csv), "text/csv; charset=utf-8"),
        Format::Parquet => {
            let file = FileRows::parquet_of_records(&columns::<L>())?;
            (To::File(Box::new(file)), "application/vnd.apache.parquet")
        }
        Format::Arrow => {
            let file = FileRows::arrow_of_records(&columns::<L>())?;
            (
                To::File(Box::new(file)),
                "application/vnd.apache.arrow.stream",
            )
        }
    };
    stream::answer(&api.streams, content_type, "lines", move |outlet| {
        let _seat = seat;
        let slabs = read(&store, rows.unwrap_or(usize::MAX)).map_err(Problem::from)?;
        match to {
            To::Text(form) => lines(&store, form, slabs, outlet),
            To::File(file) => file_of(&store, *file, slabs, outlet),
        }
    })
    .await
}

/// What lines are written to.
enum To {
    Text(RowForm),
    File(Box<FileRows>),
}

fn columns<L: Line>() -> Vec<OutColumn> {
    L::columns().into_iter().chain(came_columns()).collect()
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

fn file_of<L: Line>(
    store: &Store,
    mut file: FileRows,
    slabs: impl Iterator<Item = Result<Vec<L>, ReadError>>,
    outlet: &Outlet,
) -> Result<(), Ended> {
    let failed = |error: FileError| Problem::from(error);
    for slab in slabs {
        let lines = slab.map_err(Problem::from)?;
        let slab = slab_of_lines(&lines, receipts(store)).map_err(FileError::from);
        file.write(&slab.map_err(failed)?).map_err(failed)?;
        let mut chunk = file.take();
        match chunk.is_empty() {
            // A group of rows goes out once it is full; meanwhile somebody may have left.
            true if outlet.is_gone() => return Err(Ended::Gone),
            true => {}
            false => outlet.send(&mut chunk)?,
        }
    }
    Ok(outlet.send(&mut file.finish().map_err(failed)?)?)
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
