//! Sample payloads of a script: a library for test runs and golden tests.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, Problem, found, read};
use crate::{clock::iso, http::Refusals, registry::Sample, script::Input};

/// A sample to keep.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = ScriptSampleFile)]
pub(in crate::http) struct File {
    payload: Input,
    #[serde(default)]
    description: Option<String>,
}

/// A sample payload.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ScriptSample)]
pub(in crate::http) struct Shown {
    name: String,
    /// Bytes of the payload.
    bytes: usize,
    /// When it was saved.
    saved: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// As it was saved; lists leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Input>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScriptSamples)]
pub(in crate::http) struct Samples {
    items: Vec<Shown>,
}

fn shown(name: &str, sample: &Sample, payload: Option<Input>) -> Shown {
    Shown {
        name: name.to_owned(),
        bytes: sample.bytes,
        saved: iso(sample.saved_ms),
        description: sample.description.clone(),
        payload,
    }
}

/// List the sample payloads of a script, by name
#[utoipa::path(get, path = "/api/v1/scripts/{name}/samples", tag = "scripts", operation_id = "list_script_samples",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "Its samples, without their bytes", body = Samples), Refusals))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Samples>, Problem> {
    let script = found(&api, &name)?;
    let samples = script.samples.iter();
    let items = samples
        .map(|(name, sample)| shown(name, sample, None))
        .collect();
    Ok(Json(Samples { items }))
}

/// Show a sample payload of a script
#[utoipa::path(get, path = "/api/v1/scripts/{name}/samples/{sample}", tag = "scripts", operation_id = "get_script_sample",
    params(("name" = String, Path, description = "The script's name"), ("sample" = String, Path, description = "The sample's name")),
    responses((status = 200, description = "The sample", body = Shown), Refusals))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Path((name, sample)): Path<(String, String)>,
) -> Result<Json<Shown>, Problem> {
    let script = found(&api, &name)?;
    let kept = script.samples.get(&sample);
    let kept = kept.ok_or_else(|| absent(&name, &sample))?;
    Ok(Json(shown(&sample, kept, Some(kept.payload.clone()))))
}

/// Keep a sample payload with a script; one of the same name is replaced
#[utoipa::path(put, path = "/api/v1/scripts/{name}/samples/{sample}", tag = "scripts", operation_id = "keep_script_sample",
    params(("name" = String, Path, description = "The script's name"), ("sample" = String, Path, description = "The sample's name: 1 to 100 characters")),
    request_body(content((File = "application/json"))),
    responses((status = 200, description = "Kept", body = Shown), Refusals))]
pub(super) async fn keep(
    State(api): State<Arc<Api>>,
    Path((name, sample)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Shown>, Problem> {
    let File {
        payload,
        description,
    } = read(&body?)?;
    let kept = Sample::new(&sample, payload, description, api.clock.now_ms())
        .map_err(|(place, detail)| Problem::bad_request(place, detail))?;
    let answer = shown(&sample, &kept, None);
    let registry = Arc::clone(&api.registry);
    api.pool
        .run(move || registry.keep_sample(&name, &sample, kept))
        .await??;
    Ok(Json(answer))
}

/// Delete a sample payload of a script
#[utoipa::path(delete, path = "/api/v1/scripts/{name}/samples/{sample}", tag = "scripts", operation_id = "delete_script_sample",
    params(("name" = String, Path, description = "The script's name"), ("sample" = String, Path, description = "The sample's name")),
    responses((status = 204, description = "Deleted"), Refusals))]
pub(super) async fn drop_one(
    State(api): State<Arc<Api>>,
    Path((name, sample)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    if !found(&api, &name)?.samples.contains_key(&sample) {
        return Err(absent(&name, &sample));
    }
    let registry = Arc::clone(&api.registry);
    api.pool
        .run(move || registry.drop_sample(&name, &sample))
        .await??;
    Ok(StatusCode::NO_CONTENT)
}

fn absent(name: &str, sample: &str) -> Problem {
    Problem::not_found(format!("script {name} has no sample {sample}"))
        .fix("list its samples: GET /api/v1/scripts/{name}/samples")
}
