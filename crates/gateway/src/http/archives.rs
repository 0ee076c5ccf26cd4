//! `/api/v1/archives`, how they stand, and their verbs.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    objects::{self, ListParams, Page},
    problem::{Body, Params, limit},
};
use crate::{
    archive::{ArchiveError, DAY_MS, FileRecord, FilesAsked, Planned, Standing},
    limits::ARCHIVE_SECRET_BYTES_MAX,
    query,
    registry::{Archive, Kind, Registry},
};

const FILES_DEFAULT: usize = 100;
const FILES_MAX: usize = 1_000;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, delete))
        .routes(routes!(statuses))
        .routes(routes!(status))
        .routes(routes!(run))
        .routes(routes!(dry_run))
        .routes(routes!(files))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(secret))
}

/// List archives
#[utoipa::path(get, path = "/api/v1/archives", tag = "objects", operation_id = "list_archives",
    params(ListParams),
    responses((status = 200, description = "A page of archives", body = ref("#/components/schemas/ArchivePage")), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page>, Problem> {
    let after = params.after_name(Kind::Archive, &[])?;
    let snapshot = api.registry.snapshot();
    let found = snapshot.archives_after(after.as_deref());
    let found = found.map(|archive| (archive.name.as_str(), &archive.file));
    objects::page_of(&params, Kind::Archive, found)
}

/// Show an archive
#[utoipa::path(get, path = "/api/v1/archives/{name}", tag = "objects", operation_id = "get_archive",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The archive, as apply takes it", body = ref("#/components/schemas/Archive")), Refusals))]
async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let archive = declared(&api, &name)?;
    Ok(objects::one(Kind::Archive, &name, &archive.file))
}

/// Delete an archive; the files that it wrote stay
#[utoipa::path(delete, path = "/api/v1/archives/{name}", tag = "objects", operation_id = "delete_archive",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "Deleted"), Refusals))]
async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    objects::delete(api, Kind::Archive, name, None).await
}

/// How an archive stands: its last run and the next, its files, what is due.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ArchiveStatus)]
struct Status {
    name: String,
    /// running, stopped, idle, or failed: then lastRun says why.
    state: &'static str,
    /// The secret of its S3 access key is set.
    has_secret: bool,
    #[serde(flatten)]
    standing: Standing,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ArchiveStatuses)]
struct Statuses {
    items: Vec<Status>,
}

/// How all archives stand
#[utoipa::path(get, path = "/api/v1/archive-status", tag = "archives", operation_id = "archive_statuses",
    responses((status = 200, description = "In the order of their names", body = Statuses), Refusals))]
async fn statuses(State(api): State<Arc<Api>>) -> Result<Json<Statuses>, Problem> {
    let snapshot = api.registry.snapshot();
    let mut items = Vec::new();
    for archive in snapshot.archives_after(None) {
        items.push(stands(&api, archive).await?);
    }
    Ok(Json(Statuses { items }))
}

/// How an archive stands
#[utoipa::path(get, path = "/api/v1/archives/{name}/status", tag = "archives", operation_id = "archive_status",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "How it stands", body = Status), Refusals))]
async fn status(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Status>, Problem> {
    Ok(Json(stands(&api, &declared(&api, &name)?).await?))
}

/// Run an archive now: write every day that changed since it was written
#[utoipa::path(post, path = "/api/v1/archives/{name}/runs", tag = "archives", operation_id = "run_archive",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 202, description = "It runs, or will when another one has ended", body = Status), Refusals))]
async fn run(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Status>), Problem> {
    let archive = declared(&api, &name)?;
    api.archives.run_now(&archive);
    tracing::info!(target: "audit", archive = name, "a run of the archive was asked for");
    Ok((StatusCode::ACCEPTED, Json(stands(&api, &archive).await?)))
}

/// What a run would write.
#[derive(Serialize, ToSchema)]
#[schema(as = ArchivePlan)]
struct Plan {
    /// Days of products.
    days: u64,
    /// The first of them, 1000 at most.
    items: Vec<Planned>,
}

/// Say what a run would write now, and write nothing
#[utoipa::path(post, path = "/api/v1/archives/{name}/dry-run", tag = "archives", operation_id = "dry_run_archive",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The days that are due", body = Plan), Refusals))]
async fn dry_run(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Plan>, Problem> {
    let (archives, archive) = (Arc::clone(&api.archives), declared(&api, &name)?);
    let (days, items) = api.streams.run(move || archives.plan(&archive)).await??;
    Ok(Json(Plan { days, items }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FileParams {
    /// Name or key of a product: only files of it.
    product: Option<String>,
    /// Only files of this day, such as 2014-03-30.
    date: Option<String>,
    /// Files in a page: 1 to 1000, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ArchiveFiles)]
struct Files {
    items: Vec<FileRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List the files that an archive has written, by product, day and path: what its manifest lists
#[utoipa::path(get, path = "/api/v1/archives/{name}/files", tag = "archives", operation_id = "archive_files",
    params(("name" = String, Path, description = "Its name"), FileParams),
    responses((status = 200, description = "A page of files", body = Files), Refusals))]
async fn files(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(params): Params<FileParams>,
) -> Result<Json<Files>, Problem> {
    let archive = declared(&api, &name)?;
    let asked = FilesAsked {
        after: match &params.cursor {
            None => (String::new(), i64::MIN, String::new()),
            Some(cursor) => serde_json::from_str(cursor)
                .map_err(|_| Problem::bad_request("cursor", "the cursor is none of ours"))?,
        },
        product: params.product.map(|named| key_of(&api, named)),
        day: params.date.as_deref().map(day).transpose()?,
        limit: limit(params.limit, FILES_DEFAULT, FILES_MAX)?,
    };
    let (archives, page) = (Arc::clone(&api.archives), asked.limit);
    let items = api
        .pool
        .run(move || archives.files(&archive, &asked))
        .await??;
    let next = match items.last().filter(|_| items.len() == page) {
        None => None,
        Some(last) => serde_json::to_string(&last.key()).ok(),
    };
    Ok(Json(Files { items, next }))
}

/// The key of a product; an archive keeps files of products that are gone under theirs.
fn key_of(api: &Api, named: String) -> String {
    let found = query::product_of(&api.registry.snapshot(), Some(&named), None);
    found.map_or(named, |product| product.key.to_string())
}

/// A day, counted from 1970-01-01 UTC.
fn day(date: &str) -> Result<i64, Problem> {
    let midnight = query::moment(&format!("{date}T00:00:00Z"));
    midnight
        .map(|ms| ms.div_euclid(DAY_MS))
        .map_err(|_| Problem::bad_request("date", "write a day such as 2014-03-30"))
}

/// Let a stopped archive run by its schedule again
#[utoipa::path(post, path = "/api/v1/archives/{name}/start", tag = "archives", operation_id = "start_archive",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It runs by its schedule", body = Status), Refusals))]
async fn start(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Status>, Problem> {
    set_stopped(&api, name, false).await
}

/// Let an archive run no more by its schedule
#[utoipa::path(post, path = "/api/v1/archives/{name}/stop", tag = "archives", operation_id = "stop_archive",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It runs when it is told to", body = Status), Refusals))]
async fn stop(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Status>, Problem> {
    set_stopped(&api, name, true).await
}

async fn set_stopped(api: &Api, name: String, stopped: bool) -> Result<Json<Status>, Problem> {
    let change = move |registry: &Registry| registry.set_archive_stopped(&name, stopped);
    let changed = objects::change(api, change).await?;
    tracing::info!(target: "audit", archive = %changed.name, stopped, "the archive was switched");
    Ok(Json(stands(api, &changed).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ArchiveSecret)]
struct Given {
    /// The secret of the archive's S3 access key; null takes it away.
    secret: Option<String>,
}

/// Set the secret of an archive's S3 access key
#[utoipa::path(post, path = "/api/v1/archives/{name}/secret", tag = "archives", operation_id = "set_archive_secret",
    params(("name" = String, Path, description = "Its name")), request_body = Given,
    responses((status = 200, description = "It is set, sealed, and never shown", body = Status), Refusals))]
async fn secret(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Body(given): Body<Given>,
) -> Result<Json<Status>, Problem> {
    let bytes = given.secret.as_ref().map_or(1, String::len);
    if bytes == 0 || bytes > ARCHIVE_SECRET_BYTES_MAX {
        let detail = format!("a secret has 1 to {ARCHIVE_SECRET_BYTES_MAX} bytes");
        return Err(Problem::bad_request("secret", detail));
    }
    let secret = given.secret.map(SecretString::from);
    let change = move |registry: &Registry| registry.set_archive_secret(&name, secret);
    let changed = objects::change(&api, change).await?;
    tracing::info!(target: "audit", archive = %changed.name, "the archive's secret was set");
    Ok(Json(stands(&api, &changed).await?))
}

fn declared(api: &Api, name: &str) -> Result<Arc<Archive>, Problem> {
    let found = api.registry.current().archive(name).cloned();
    objects::declared(found, Kind::Archive, name)
}

async fn stands(api: &Api, archive: &Arc<Archive>) -> Result<Status, Problem> {
    // First: a run that is no more when this is asked has left its record.
    let is_running = api.archives.is_running(archive);
    let (archives, of) = (Arc::clone(&api.archives), Arc::clone(archive));
    let mut standing = api.pool.run(move || archives.standing(&of)).await??;
    if is_running {
        standing.next_run = None;
    }
    let has_failed = standing
        .last_run
        .as_ref()
        .is_some_and(|run| run.error.is_some());
    Ok(Status {
        name: archive.name.to_string(),
        state: match (is_running, archive.stopped, has_failed) {
            (true, ..) => "running",
            (false, _, true) => "failed",
            (false, true, false) => "stopped",
            (false, false, false) => "idle",
        },
        has_secret: archive.secret.is_some(),
        standing,
    })
}

impl From<ArchiveError> for Problem {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Pool(error) => error.into(),
            error => {
                tracing::error!(%error, "archives cannot be read");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "archives",
                    error.to_string(),
                )
            }
        }
    }
}
