//! `/api/v1/imports`: files of history, uploaded into a channel.

use std::{path::Path as FilePath, sync::Arc};

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    problem::{Params, limit},
};
use crate::{
    access::Caller,
    files::{
        mapping::Mapping,
        source::{Form, Kind, Packing},
    },
    imports::{Asked, Import, ImportError, State as ImportState},
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list, upload))
        .routes(routes!(show))
        .routes(routes!(cancel))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct UploadParams {
    /// The channel that the rows come in by.
    channel: String,
    /// What the file is called, such as `2014.csv.zst`. Its ending says what it is; without one,
    /// `Content-Type` and `Content-Encoding` do.
    #[serde(default)]
    file: Option<String>,
    /// Column that holds the device key; `deviceKey` unless given.
    #[serde(default)]
    device_column: Option<String>,
    /// Device key of every row, for a file of one device.
    #[serde(default)]
    device: Option<String>,
    /// Column that holds the time; `time` unless given.
    #[serde(default)]
    time_column: Option<String>,
    /// Where times without an offset are local, such as Europe/Paris.
    #[serde(default)]
    timezone: Option<String>,
    /// A row for each point, in columns `point`, `value` and `quality`.
    #[serde(default)]
    long: bool,
    /// What the rows are: with `events` in columns `event` and `output`, with `attributes` in `attribute` and
    /// `value`, as their exports have them.
    #[serde(default)]
    #[param(inline)]
    of: Of,
    /// Another column for the point's name; makes the file a long one.
    #[serde(default)]
    point_column: Option<String>,
    #[serde(default)]
    value_column: Option<String>,
    #[serde(default)]
    quality_column: Option<String>,
    /// Columns that are points of other names: `power=P_avg,wind=Ws_avg`.
    #[serde(default)]
    map: Option<String>,
    /// Columns that are left out, separated by commas.
    #[serde(default)]
    drop: Option<String>,
    /// Texts that are as good as an empty cell, separated by commas.
    #[serde(default)]
    absent: Option<String>,
    /// All of that as the text of a mapping file; parameters win over it.
    #[serde(default)]
    mapping: Option<String>,
    /// Rows at the beginning that are left out: `rows.answered` of an import that was interrupted.
    #[serde(default)]
    skip_rows: u64,
}

/// What the rows of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Of {
    #[default]
    Points,
    Events,
    Attributes,
}

impl UploadParams {
    fn mapping(&self) -> Result<Mapping, Problem> {
        let mut map = Vec::new();
        for pair in listed(self.map.as_deref()) {
            let (column, point) = pair.split_once('=').ok_or_else(|| {
                Problem::bad_request("map", "write COLUMN=POINT, with commas between")
            })?;
            map.push((column.to_owned(), point.to_owned()));
        }
        if self.device.is_some() && self.device_column.is_some() {
            let detail = "a file has a column for its devices, or is of one device";
            return Err(Problem::bad_request("device, deviceColumn", detail));
        }
        let given = Mapping {
            device_column: self.device_column.clone(),
            device: self.device.clone(),
            time_column: self.time_column.clone(),
            timezone: self.timezone.clone(),
            long: self.long,
            events: self.of == Of::Events,
            attributes: self.of == Of::Attributes,
            point_column: self.point_column.clone(),
            value_column: self.value_column.clone(),
            quality_column: self.quality_column.clone(),
            map,
            drop: listed(self.drop.as_deref()).collect(),
            absent: listed(self.absent.as_deref()).collect(),
            mapping: None,
        };
        let is_of_points = self.long || self.quality_column.is_some();
        if is_of_points && self.of != Of::Points {
            let detail = "events and attributes have a row each already, and no quality";
            return Err(Problem::bad_request("of", detail).fix("leave out long and qualityColumn"));
        }
        match &self.mapping {
            None => Ok(given),
            Some(text) => Mapping::from_text(text)
                .map(|file| given.over(file))
                .map_err(|reason| Problem::bad_request("mapping", reason)),
        }
    }
}

fn listed(text: Option<&str>) -> impl Iterator<Item = String> {
    let parts = text.unwrap_or_default().split(',');
    parts.filter(|part| !part.is_empty()).map(str::to_owned)
}

/// What the file is: its ending wins, as it survives every tool.
fn kind(file: Option<&str>, headers: &HeaderMap) -> Result<Kind, Problem> {
    if let Some(file) = file {
        return Kind::of(FilePath::new(file))
            .map_err(|error| Problem::bad_request("file", error.to_string()));
    }
    let text = |name| {
        let value: Option<&HeaderValue> = headers.get(name);
        let value = value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        value
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_lowercase()
    };
    let unknown = |place: &str, found: &str| {
        let detail = format!("{place} {found:?} does not say what the file is");
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
            .at(place)
            .fix(
                "name the file (file=2014.csv.zst), or send Content-Type text/csv, application/x-ndjson or \
                 application/vnd.apache.parquet, and Content-Encoding gzip or zstd if it is packed",
            )
    };
    let (written, packed) = (text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING));
    let form = match written.as_str() {
        "text/csv" | "text/tab-separated-values" => Form::Csv,
        "application/x-ndjson" | "application/jsonl" => Form::Ndjson,
        "application/vnd.apache.parquet" => Form::Parquet,
        other => return Err(unknown("Content-Type", other)),
    };
    let packing = match packed.as_str() {
        "" | "identity" => Packing::None,
        "gzip" if form != Form::Parquet => Packing::Gzip,
        "zstd" if form != Form::Parquet => Packing::Zstd,
        other => return Err(unknown("Content-Encoding", other)),
    };
    Ok(Kind { form, packing })
}

/// Import a file: rows that go the way of the channel's messages
///
/// The body is the file, of any length; it is read as it comes, no faster than the channel takes it. The
/// answer comes when every row is stored or in quarantine. A file that is sent again doubles nothing.
#[utoipa::path(post, path = "/api/v1/imports", tag = "history", operation_id = "upload_import",
    params(UploadParams),
    request_body(description = "CSV or NDJSON, also packed with gzip or zstd, or Parquet",
        content((String = "text/csv"), (String = "application/x-ndjson"), (Vec<u8> = "application/vnd.apache.parquet"), (Vec<u8> = "application/octet-stream"))),
    responses((status = 201, description = "The whole file was read; look at rows.rejected", body = Import), Refusals))]
async fn upload(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<UploadParams>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let asked = Asked {
        kind: kind(params.file.as_deref(), &headers)?,
        mapping: params.mapping()?,
        channel: params.channel,
        file: params.file.unwrap_or_default(),
        skip_rows: params.skip_rows,
        by: caller.name.to_string(),
    };
    let pieces = body.into_data_stream().map_err(std::io::Error::other);
    let import = api.imports.take(asked, pieces).await?;
    let location = format!("/api/v1/imports/{}", import.id);
    let headers = [(header::LOCATION, location)];
    Ok((StatusCode::CREATED, headers, Json(import)).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ImportListParams {
    /// Imports in a page: 1 to 1000, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Imports {
    items: Vec<Import>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List imports, the newest first
#[utoipa::path(get, path = "/api/v1/imports", tag = "history", operation_id = "list_imports",
    params(ImportListParams),
    responses((status = 200, description = "A page of imports", body = Imports), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Params(params): Params<ImportListParams>,
) -> Result<Json<Imports>, Problem> {
    let limit = limit(params.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let wrong = |_| Problem::bad_request("cursor", "the cursor is none of ours");
    let before = params.cursor.as_deref().map(str::parse::<i64>).transpose();
    let before = before.map_err(wrong)?;
    let imports = Arc::clone(&api.imports);
    let items = api.pool.run(move || imports.list(before, limit)).await??;
    let next = items.last().filter(|_| items.len() == limit);
    Ok(Json(Imports {
        next: next.map(|import| import.id.to_string()),
        items,
    }))
}

/// Show an import: how far it came, and what became of its rows
#[utoipa::path(get, path = "/api/v1/imports/{id}", tag = "history", operation_id = "show_import",
    params(("id" = i64, Path, description = "Its id")),
    responses((status = 200, description = "The import", body = Import), Refusals))]
async fn show(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<Import>, Problem> {
    let absent = || Problem::not_found(format!("there is no import {id}"));
    let number: i64 = id.parse().map_err(|_| absent())?;
    let imports = Arc::clone(&api.imports);
    let found = api.pool.run(move || imports.get(number)).await??;
    found.map(Json).ok_or_else(absent)
}

/// End an import that runs: what is stored stays stored, and the file can be sent again
#[utoipa::path(post, path = "/api/v1/imports/{id}/cancel", tag = "history", operation_id = "cancel_import",
    params(("id" = i64, Path, description = "Its id")),
    responses((status = 202, description = "It ends after the burst that it is at, as interrupted", body = Import), Refusals))]
async fn cancel(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Import>), Problem> {
    let Json(import) = show(State(Arc::clone(&api)), Path(id)).await?;
    if !api.imports.cancel(import.id) {
        let detail = format!("import {} does not run", import.id);
        return Err(Problem::new(StatusCode::CONFLICT, "conflict", detail).at("id"));
    }
    tracing::info!(target: "audit", import = import.id, "the import was told to stop");
    Ok((StatusCode::ACCEPTED, Json(import)))
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        let detail = error.to_string();
        match error {
            ImportError::NoChannel(_) => Self::not_found(detail).at("channel"),
            ImportError::Paused(_) | ImportError::Raw(_) => {
                Self::new(StatusCode::CONFLICT, "conflict", detail).at("channel")
            }
            ImportError::TooMany => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", detail).retry_after(5)
            }
            ImportError::Pool(error) => error.into(),
            ImportError::Read(error) => error.into(),
            ImportError::Ended { import, .. } => ended(&import, &detail),
            ImportError::File(_) | ImportError::Io(_) => {
                tracing::error!(%detail, "an import cannot be written down");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "imports", detail)
            }
        }
    }
}

/// What was stored before stays stored, and says how to go on.
fn ended(import: &Import, reason: &str) -> Problem {
    let (id, rows) = (import.id, &import.rows);
    let detail = format!(
        "{reason}; import {id}: {} rows are stored, {} in quarantine",
        rows.stored, rows.rejected
    );
    let (status, code) = match import.state {
        ImportState::Interrupted => (StatusCode::BAD_REQUEST, "interrupted"),
        ImportState::Failed | ImportState::Running | ImportState::Complete => {
            (StatusCode::UNPROCESSABLE_ENTITY, "import")
        }
    };
    let fix = match rows.answered {
        0 => "correct that and send the file again".to_owned(),
        answered => format!(
            "correct that and send the file again, from its beginning or with skipRows={answered}; what is \
             stored is not doubled"
        ),
    };
    Problem::new(status, code, detail).fix(fix)
}
