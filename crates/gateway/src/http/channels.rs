//! `/api/v1/channels`, and the verbs of a channel.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
    response::Response,
};
use backtide_model::Mode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    objects::{self, ListParams, Page},
    problem::Params,
};
use crate::{
    channel_log::{Entry, What},
    clock::iso,
    registry::{Channel, Kind},
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, delete))
        .routes(routes!(connection))
        .routes(routes!(rotate))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

/// List channels
#[utoipa::path(get, path = "/api/v1/channels", tag = "objects", operation_id = "list_channels",
    params(ListParams),
    responses((status = 200, description = "A page of channels", body = ref("#/components/schemas/ChannelPage")), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page>, Problem> {
    let after = params.after_name(Kind::Channel, &["product"])?;
    let snapshot = api.registry.snapshot();
    let channels = snapshot.channels_after(after.as_deref()).filter(|channel| {
        params
            .product
            .as_ref()
            .is_none_or(|p| channel.product.as_str() == p)
    });
    let channels = channels.map(|channel| (channel.name.as_str(), channel.file()));
    objects::page_of(&params, Kind::Channel, channels)
}

/// Show a channel
#[utoipa::path(get, path = "/api/v1/channels/{name}", tag = "objects", operation_id = "get_channel",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The channel, as apply takes it", body = ref("#/components/schemas/Channel")), Refusals))]
async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let snapshot = api.registry.current();
    let channel = objects::declared(snapshot.channel(&name), Kind::Channel, &name)?;
    Ok(objects::one(Kind::Channel, &name, &channel.file()))
}

/// Delete a channel that nothing uses
#[utoipa::path(delete, path = "/api/v1/channels/{name}", tag = "objects", operation_id = "delete_channel",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "Deleted"),
        (status = 409, description = "Something uses it", body = ref("#/components/schemas/Problem"), content_type = "application/problem+json"), Refusals))]
async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    objects::delete(api, Kind::Channel, name, None).await
}

/// What logs a client in to a channel. Holds the secret: kept out of logs and caches.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Connection {
    name: String,
    product: String,
    #[schema(value_type = String, example = "strict")]
    mode: Mode,
    paused: bool,
    /// Why nothing of it is taken, where that is so; `resume` ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    broker_url: String,
    /// The same over TLS, if that door is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    broker_tls_url: Option<String>,
    client_id: String,
    username: String,
    password: String,
    product_key: String,
    /// For SDKs that sign for themselves.
    secret: String,
    /// Until when the secret before the last rotation logs in too.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_secret_valid_until: Option<String>,
}

/// Whether a channel lets clients in.
#[derive(Debug, Serialize, ToSchema)]
struct ChannelState {
    name: String,
    paused: bool,
    /// Why nothing of it is taken, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
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

/// Show what logs a client in: four strings that paste into any MQTT client, and the secret
#[utoipa::path(get, path = "/api/v1/channels/{name}/connection", tag = "channels",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The connection strings", body = Connection), Refusals))]
async fn connection(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Uncached<Connection>, Problem> {
    let answer = {
        let snapshot = api.registry.current();
        let channel = objects::declared(snapshot.channel(&name), Kind::Channel, &name)?;
        shown(&api, channel)
    };
    // Before the answer: nobody sees a secret without leaving a trace.
    let access = Arc::clone(&api.access);
    let note = move || access.note_current("channel secret shown", &name, None, None);
    api.pool.run(note).await?;
    Ok(answer)
}

/// Make a new secret; the old one stays valid for the overlap
#[utoipa::path(post, path = "/api/v1/channels/{name}/rotate", tag = "channels",
    params(("name" = String, Path, description = "Its name"), RotateParams),
    responses((status = 200, description = "The new connection strings", body = Connection), Refusals))]
async fn rotate(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(params): Params<RotateParams>,
) -> Result<Uncached<Connection>, Problem> {
    let registry = Arc::clone(&api.registry);
    let overlap_ms = i64::from(params.overlap_seconds) * 1_000;
    let channel = api
        .pool
        .run(move || registry.rotate(&name, overlap_ms))
        .await??;
    tracing::info!(target: "audit", channel = %channel.name, overlap_ms, "the secret was rotated");
    Ok(shown(&api, &channel))
}

/// Disconnect the channel's clients and refuse new ones
#[utoipa::path(post, path = "/api/v1/channels/{name}/pause", tag = "channels",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It is paused", body = ChannelState), Refusals))]
async fn pause(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<ChannelState>, Problem> {
    set_paused(&api, name, true).await
}

/// Let the channel's clients in again, and end a hold
#[utoipa::path(post, path = "/api/v1/channels/{name}/resume", tag = "channels",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It is open", body = ChannelState), Refusals))]
async fn resume(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<ChannelState>, Problem> {
    set_paused(&api, name, false).await
}

async fn set_paused(api: &Api, name: String, paused: bool) -> Result<Json<ChannelState>, Problem> {
    let registry = Arc::clone(&api.registry);
    let channel = api
        .pool
        .run(move || registry.set_paused(&name, paused))
        .await??;
    let verb = if paused { "paused" } else { "resumed" };
    tracing::info!(target: "audit", channel = %channel.name, "the channel was {verb}");
    api.log.note(Entry {
        time_ms: api.clock.now_ms(),
        channel: channel.name.clone(),
        client: "".into(),
        what: What::Audit {
            message: format!("the channel was {verb}").into(),
        },
    });
    Ok(Json(ChannelState {
        name: channel.name.to_string(),
        paused: channel.paused,
        held: held(&channel),
    }))
}

fn held(channel: &Channel) -> Option<String> {
    channel.held.as_ref().map(|held| held.reason.clone())
}

fn shown(api: &Api, channel: &Channel) -> Uncached<Connection> {
    let strings = channel.connection_strings();
    let connection = Connection {
        name: channel.name.to_string(),
        product: channel.product.to_string(),
        mode: channel.mode,
        paused: channel.paused,
        held: held(channel),
        broker_url: api.broker_url.clone(),
        broker_tls_url: api.broker_tls_url.clone(),
        client_id: strings.client_id,
        username: strings.user_name,
        password: strings.password,
        product_key: channel.product_key.to_string(),
        secret: channel.secret().text().to_owned(),
        previous_secret_valid_until: channel.previous_valid_until_ms(api.clock.now_ms()).map(iso),
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(connection))
}
