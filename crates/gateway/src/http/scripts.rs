//! `/api/v1/scripts`: data parsing scripts, their draft, their versions, and test runs.

mod samples;
mod trial;

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use similar::TextDiff;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals, apply,
    objects::{self, ListParams, Page},
    problem::Params,
};
use crate::{
    clock::iso,
    redrive::Cure,
    registry::{Kind, Script, ScriptFile, ScriptVersion},
    script::State as Doing,
};
pub(super) use trial::trials;

/// Lines around a change in a diff.
const DIFF_CONTEXT_LINES: usize = 3;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, delete))
        .routes(routes!(status))
        .routes(routes!(show_draft, save_draft, drop_draft))
        .routes(routes!(trial::test))
        .routes(routes!(samples::list))
        .routes(routes!(samples::show, samples::keep, samples::drop_one))
        .routes(routes!(publish))
        .routes(routes!(roll_back))
        .routes(routes!(versions))
        .routes(routes!(show_version))
        .routes(routes!(diff))
}

/// List scripts
#[utoipa::path(get, path = "/api/v1/scripts", tag = "objects", operation_id = "list_scripts",
    params(ListParams),
    responses((status = 200, description = "A page of scripts", body = ref("#/components/schemas/ScriptPage")), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page>, Problem> {
    let after = params.after_name(Kind::Script, &["product"])?;
    let snapshot = api.registry.snapshot();
    let scripts = snapshot
        .scripts_after(after.as_deref())
        .filter(|script| {
            params
                .product
                .as_ref()
                .is_none_or(|product| script.product.as_str() == product)
        })
        .filter_map(|script| Some((script.name.as_str(), &script.shown()?.file)));
    objects::page_of(&params, Kind::Script, scripts)
}

/// Show a script: the version that runs, or the draft where none was published
#[utoipa::path(get, path = "/api/v1/scripts/{name}", tag = "objects", operation_id = "get_script",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The script, as apply takes it", body = ref("#/components/schemas/Script")), Refusals))]
async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let script = found(&api, &name)?;
    let version = objects::declared(script.shown(), Kind::Script, &name)?;
    Ok(objects::one(Kind::Script, &name, &version.file))
}

/// Delete a script with its draft, all its versions and its samples
#[utoipa::path(delete, path = "/api/v1/scripts/{name}", tag = "objects", operation_id = "delete_script",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "Deleted"), Refusals))]
async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    objects::delete(api, Kind::Script, name, None).await
}

/// How a script is doing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ScriptStatus)]
struct Status {
    name: String,
    product: String,
    /// The version that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<u32>,
    /// When the draft was saved, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    draft: Option<String>,
    versions: usize,
    /// Of the version that runs: calls, failures, kills, pauses and CPU time since it went live or
    /// the gateway started, and whether it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    running: Option<Doing>,
}

/// The version that runs now, and what that cures.
#[derive(Debug, Serialize, ToSchema)]
struct Published {
    #[serde(flatten)]
    state: Status,
    /// Quarantined messages that would be stored now, by cause: what `/quarantine/cures` says of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    cures: Vec<Cure>,
}

/// Show how a script is doing: its versions, what its calls came to, whether it is paused
#[utoipa::path(get, path = "/api/v1/scripts/{name}/status", tag = "scripts", operation_id = "script_status",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "Its state", body = Status), Refusals))]
async fn status(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Status>, Problem> {
    Ok(Json(state_of(&*found(&api, &name)?)))
}

fn state_of(script: &Script) -> Status {
    Status {
        name: script.name.to_string(),
        product: script.product.to_string(),
        live: script.live.as_ref().and_then(|live| live.number),
        draft: script.draft.as_ref().map(|draft| iso(draft.created_ms)),
        versions: script.versions.len(),
        running: script.live.as_ref().map(|live| live.program.state()),
    }
}

/// Show the draft of a script
#[utoipa::path(get, path = "/api/v1/scripts/{name}/draft", tag = "scripts", operation_id = "get_script_draft",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The draft, as apply takes it", body = ref("#/components/schemas/Script")), Refusals))]
async fn show_draft(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let script = found(&api, &name)?;
    let draft = draft_of(&script)?;
    Ok(objects::one(Kind::Script, &name, &draft.file))
}

/// Save the draft of a script; nothing that runs changes
#[utoipa::path(put, path = "/api/v1/scripts/{name}/draft", tag = "scripts", operation_id = "save_script_draft",
    params(("name" = String, Path, description = "Its name")),
    request_body(description = "The script without kind and name", content((Object = "application/json"))),
    responses((status = 200, description = "Saved", body = Status), Refusals))]
async fn save_draft(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Status>, Problem> {
    let file: ScriptFile = read(&body?)?;
    let registry = Arc::clone(&api.registry);
    let script = api
        .pool
        .run(move || registry.draft_script(&name, file))
        .await??;
    Ok(Json(state_of(&script)))
}

/// Delete the draft of a script; a script that has no version goes with it
#[utoipa::path(delete, path = "/api/v1/scripts/{name}/draft", tag = "scripts", operation_id = "delete_script_draft",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "Deleted"), Refusals))]
async fn drop_draft(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let registry = Arc::clone(&api.registry);
    api.pool
        .run(move || registry.drop_script_draft(&name))
        .await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Publish the draft: it becomes a version that never changes and runs at once
#[utoipa::path(post, path = "/api/v1/scripts/{name}/publish", tag = "scripts", operation_id = "publish_script",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It runs", body = Published),
        (status = 422, description = "It does not compile, or a golden test fails", body = ref("#/components/schemas/Problem"), content_type = "application/problem+json"), Refusals))]
async fn publish(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Published>, Problem> {
    let script = found(&api, &name)?;
    let draft = Arc::clone(draft_of(&script)?);
    api.scripts
        .trial(&draft.program, &draft.file.golden)
        .await
        .map_err(|failure| Problem::of_script(&name, &failure))?;
    let registry = Arc::clone(&api.registry);
    let script = api
        .pool
        .run(move || registry.publish_script(&name, &draft))
        .await??;
    let state = state_of(&script);
    tracing::info!(target: "audit", script = %script.name, version = state.live, "a script was published");
    published(&api, script).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RollBackParams {
    /// The version that is to run; the one before the one that runs unless given.
    to: Option<u32>,
}

/// Let an earlier version run again
#[utoipa::path(post, path = "/api/v1/scripts/{name}/rollback", tag = "scripts", operation_id = "roll_back_script",
    params(("name" = String, Path, description = "Its name"), RollBackParams),
    responses((status = 200, description = "It runs", body = Published), Refusals))]
async fn roll_back(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(params): Params<RollBackParams>,
) -> Result<Json<Published>, Problem> {
    let script = found(&api, &name)?;
    let to = match params.to {
        Some(to) => to,
        None => before_live(&script)?,
    };
    let registry = Arc::clone(&api.registry);
    let script = api
        .pool
        .run(move || registry.roll_back_script(&name, to))
        .await??;
    tracing::info!(target: "audit", script = %script.name, version = to, "a script was rolled back");
    published(&api, script).await
}

async fn published(api: &Arc<Api>, script: Arc<Script>) -> Result<Json<Published>, Problem> {
    let state = state_of(&script);
    let of = Arc::clone(api);
    let cures = api
        .pool
        .run(move || apply::cures_of_script(&of, &script))
        .await?;
    Ok(Json(Published { state, cures }))
}

fn before_live(script: &Script) -> Result<u32, Problem> {
    let live = script.live.as_ref().and_then(|live| live.number);
    script
        .versions
        .iter()
        .rev()
        .filter_map(|version| version.number)
        .find(|number| live.is_some_and(|live| *number < live))
        .ok_or_else(|| {
            let detail = format!("script {} has no version before the live one", script.name);
            Problem::new(StatusCode::CONFLICT, "conflict", detail)
                .fix("name a version with `to` (--to N)")
        })
}

/// A version of a script.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ScriptVersion)]
struct Version {
    version: u32,
    /// When it was published.
    published: String,
    /// It runs.
    live: bool,
    source_bytes: usize,
    golden: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScriptVersions)]
struct Versions {
    items: Vec<Version>,
}

/// List the versions of a script, the latest first
#[utoipa::path(get, path = "/api/v1/scripts/{name}/versions", tag = "scripts", operation_id = "list_script_versions",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "Its versions", body = Versions), Refusals))]
async fn versions(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Versions>, Problem> {
    let script = found(&api, &name)?;
    let live = script.live.as_ref().and_then(|live| live.number);
    let items = script.versions.iter().rev().filter_map(|version| {
        Some(Version {
            version: version.number?,
            published: iso(version.created_ms),
            live: version.number == live,
            source_bytes: version.file.source.len(),
            golden: version.file.golden.len(),
            description: version.file.description.clone(),
        })
    });
    let items = items.collect();
    Ok(Json(Versions { items }))
}

/// Show a version of a script
#[utoipa::path(get, path = "/api/v1/scripts/{name}/versions/{version}", tag = "scripts", operation_id = "get_script_version",
    params(("name" = String, Path, description = "Its name"), ("version" = u32, Path, description = "Its number")),
    responses((status = 200, description = "The version, as apply takes it", body = ref("#/components/schemas/Script")), Refusals))]
async fn show_version(
    State(api): State<Arc<Api>>,
    Path((name, version)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let script = found(&api, &name)?;
    let version = version_of(&script, &version)?;
    Ok(objects::one(Kind::Script, &name, &version.file))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DiffParams {
    /// A version, `live` or `draft`; the live one unless given.
    from: Option<String>,
    /// A version, `live` or `draft`; the draft unless given, or the latest version without one.
    to: Option<String>,
}

/// How two sources differ.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScriptDiff)]
struct Diff {
    from: String,
    to: String,
    /// A unified diff; empty where they are the same.
    diff: String,
}

/// Compare the sources of two versions
#[utoipa::path(get, path = "/api/v1/scripts/{name}/diff", tag = "scripts", operation_id = "diff_script",
    params(("name" = String, Path, description = "Its name"), DiffParams),
    responses((status = 200, description = "How they differ", body = Diff), Refusals))]
async fn diff(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(params): Params<DiffParams>,
) -> Result<Json<Diff>, Problem> {
    let script = found(&api, &name)?;
    let to = match (&params.to, &script.draft) {
        (Some(to), _) => version_of(&script, to)?,
        (None, Some(draft)) => draft,
        (None, None) => script
            .versions
            .last()
            .ok_or_else(|| Problem::not_found(format!("script {name} has no version")))?,
    };
    let from = version_of(&script, params.from.as_deref().unwrap_or("live"))?;
    let (from_label, to_label) = (from.program.label(), to.program.label());
    let diff = TextDiff::from_lines(from.file.source.as_str(), to.file.source.as_str())
        .unified_diff()
        .context_radius(DIFF_CONTEXT_LINES)
        .header(&from_label, &to_label)
        .to_string();
    Ok(Json(Diff {
        from: from_label,
        to: to_label,
        diff,
    }))
}

fn found(api: &Api, name: &str) -> Result<Arc<Script>, Problem> {
    let script = api.registry.current().script(name).cloned();
    objects::declared(script, Kind::Script, name)
}

fn draft_of(script: &Script) -> Result<&Arc<ScriptVersion>, Problem> {
    script.draft.as_ref().ok_or_else(|| {
        Problem::not_found(format!("script {} has no draft", script.name))
            .fix("save one: backtide script draft")
    })
}

/// A version by its number, `live` or `draft`.
fn version_of<'s>(script: &'s Script, word: &str) -> Result<&'s Arc<ScriptVersion>, Problem> {
    let found = match word {
        "draft" => return draft_of(script),
        "live" => script.live.as_ref(),
        number => {
            let number = number.parse().map_err(|_| {
                Problem::bad_request(
                    "version",
                    format!("{number:?} is no version, live or draft"),
                )
            })?;
            script.version(number)
        }
    };
    found.ok_or_else(|| Problem::not_found(format!("script {} has no version {word}", script.name)))
}

/// A body that is JSON.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request("body", error.to_string()))
}

/// JSON text as a value.
fn as_value(text: &[u8]) -> Option<Value> {
    serde_json::from_slice(text).ok()
}
