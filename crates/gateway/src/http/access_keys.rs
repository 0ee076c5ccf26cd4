//! `/api/v1/access-keys`, and the verbs of an access key.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    objects::{self, ListParams, Page},
    problem::Params,
};
use crate::{
    clock::iso,
    registry::{AccessKey, Kind, Secret},
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, delete))
        .routes(routes!(credential))
        .routes(routes!(rotate))
        .routes(routes!(revoke))
}

/// List access keys
#[utoipa::path(get, path = "/api/v1/access-keys", tag = "objects", operation_id = "list_access_keys",
    params(ListParams),
    responses((status = 200, description = "A page of access keys, without secrets", body = ref("#/components/schemas/AccessKeyPage")), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page>, Problem> {
    let after = params.after_name(Kind::AccessKey, &[])?;
    let snapshot = api.registry.snapshot();
    let keys = snapshot.access_keys_after(after.as_deref());
    let keys = keys.map(|key| (key.name.as_str(), key.file()));
    objects::page_of(&params, Kind::AccessKey, keys)
}

/// Show an access key, without its secret
#[utoipa::path(get, path = "/api/v1/access-keys/{name}", tag = "objects", operation_id = "get_access_key",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The access key, as apply takes it", body = ref("#/components/schemas/AccessKey")), Refusals))]
async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let snapshot = api.registry.current();
    let key = objects::declared(snapshot.access_key(&name), Kind::AccessKey, &name)?;
    Ok(objects::one(Kind::AccessKey, &name, &key.file()))
}

/// Delete an access key that nothing uses
#[utoipa::path(delete, path = "/api/v1/access-keys/{name}", tag = "objects", operation_id = "delete_access_key",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "Deleted"),
        (status = 409, description = "Something uses it", body = ref("#/components/schemas/Problem"), content_type = "application/problem+json"), Refusals))]
async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    objects::delete(api, Kind::AccessKey, name, None).await
}

/// What an application signs with. Holds the secret: kept out of logs and caches.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Credential {
    name: String,
    access_key: String,
    /// Absent where it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_secret: Option<String>,
    revoked: bool,
    /// Until when the secret before the last rotation signs too.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_secret_valid_until: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct RotateParams {
    /// How long the old secret stays valid; a day unless given.
    #[serde(default = "a_day")]
    #[param(default = 86400)]
    overlap_seconds: u32,
}

const fn a_day() -> u32 {
    86_400
}

type Uncached<T> = ([(HeaderName, &'static str); 1], Json<T>);

/// Show what an application signs with: the access key and its secret
#[utoipa::path(get, path = "/api/v1/access-keys/{name}/credential", tag = "access keys",
    operation_id = "access_key_credential", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "Key and secret", body = Credential), Refusals))]
async fn credential(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Uncached<Credential>, Problem> {
    let answer = {
        let snapshot = api.registry.current();
        let key = objects::declared(snapshot.access_key(&name), Kind::AccessKey, &name)?;
        shown(&api, key)
    };
    // Before the answer: nobody sees a secret without leaving a trace.
    let access = Arc::clone(&api.access);
    let note = move || access.note_current("access key secret shown", &name, None, None);
    api.pool.run(note).await?;
    Ok(answer)
}

/// Make a new secret; the old one stays valid for the overlap
#[utoipa::path(post, path = "/api/v1/access-keys/{name}/rotate", tag = "access keys",
    operation_id = "rotate_access_key", params(("name" = String, Path, description = "Its name"), RotateParams),
    responses((status = 200, description = "The new secret", body = Credential), Refusals))]
async fn rotate(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(params): Params<RotateParams>,
) -> Result<Uncached<Credential>, Problem> {
    let registry = Arc::clone(&api.registry);
    let overlap_ms = i64::from(params.overlap_seconds) * 1_000;
    let key = api
        .pool
        .run(move || registry.rotate_access_key(&name, overlap_ms))
        .await??;
    tracing::info!(target: "audit", access_key = %key.name, overlap_ms, "the secret was rotated");
    Ok(shown(&api, &key))
}

/// Take every secret away: sessions end, nobody logs in until the key is rotated
#[utoipa::path(post, path = "/api/v1/access-keys/{name}/revoke", tag = "access keys",
    operation_id = "revoke_access_key", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It is revoked", body = Credential), Refusals))]
async fn revoke(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Uncached<Credential>, Problem> {
    let registry = Arc::clone(&api.registry);
    let key = api
        .pool
        .run(move || registry.revoke_access_key(&name))
        .await??;
    tracing::info!(target: "audit", access_key = %key.name, "the access key was revoked");
    Ok(shown(&api, &key))
}

fn shown(api: &Api, key: &AccessKey) -> Uncached<Credential> {
    let secret = key.secret().map(Secret::text);
    let credential = Credential {
        name: key.name.to_string(),
        access_key: key.key.to_string(),
        access_secret: secret.map(ToOwned::to_owned),
        revoked: secret.is_none(),
        previous_secret_valid_until: key.previous_valid_until_ms(api.clock.now_ms()).map(iso),
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(credential))
}
