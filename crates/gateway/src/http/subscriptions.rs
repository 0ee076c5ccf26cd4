//! `/api/v1/subscriptions`, how they stand, and their verbs.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
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
    query,
    registry::{Kind, Registry, Subscription},
    subscription::{Sought, SourceError, Standing},
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, delete))
        .routes(routes!(statuses))
        .routes(routes!(status))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(replay))
}

/// List subscriptions
#[utoipa::path(get, path = "/api/v1/subscriptions", tag = "objects", operation_id = "list_subscriptions",
    params(ListParams),
    responses((status = 200, description = "A page of subscriptions", body = ref("#/components/schemas/SubscriptionPage")), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page>, Problem> {
    let after = params.after_name(Kind::Subscription, &[])?;
    let snapshot = api.registry.snapshot();
    let found = snapshot.subscriptions_after(after.as_deref());
    let found = found.map(|subscription| (subscription.name.as_str(), &subscription.file));
    objects::page_of(&params, Kind::Subscription, found)
}

/// Show a subscription
#[utoipa::path(get, path = "/api/v1/subscriptions/{name}", tag = "objects", operation_id = "get_subscription",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The subscription, as apply takes it", body = ref("#/components/schemas/Subscription")), Refusals))]
async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let subscription = declared(&api, &name)?;
    Ok(objects::one(Kind::Subscription, &name, &subscription.file))
}

/// Delete a subscription and its messages
#[utoipa::path(delete, path = "/api/v1/subscriptions/{name}", tag = "objects", operation_id = "delete_subscription",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "Deleted"), Refusals))]
async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    objects::delete(api, Kind::Subscription, name, None).await
}

/// How a subscription stands: what it holds, who reads it and how far.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SubscriptionStatus)]
struct Status {
    /// What clients give as the subscription's id.
    name: String,
    #[serde(rename = "type")]
    contents: &'static str,
    access_key: String,
    /// running, stopped, or failed: then the log of the gateway says why.
    state: &'static str,
    /// Of the gateway's door where clients read.
    port: u16,
    /// Absent where it does not run.
    #[serde(flatten)]
    standing: Option<Standing>,
}

#[derive(Serialize, ToSchema)]
struct Statuses {
    items: Vec<Status>,
}

/// How all subscriptions stand
#[utoipa::path(get, path = "/api/v1/subscription-status", tag = "subscriptions",
    responses((status = 200, description = "In the order of their names", body = Statuses), Refusals))]
async fn statuses(State(api): State<Arc<Api>>) -> Json<Statuses> {
    let snapshot = api.registry.snapshot();
    let items = snapshot.subscriptions_after(None);
    Json(Statuses {
        items: items
            .map(|subscription| stands(&api, subscription))
            .collect(),
    })
}

/// How a subscription stands: rate, partitions, groups, offsets, lag
#[utoipa::path(get, path = "/api/v1/subscriptions/{name}/status", tag = "subscriptions",
    operation_id = "subscription_status", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "How it stands", body = Status), Refusals))]
async fn status(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Status>, Problem> {
    Ok(Json(stands(&api, &*declared(&api, &name)?)))
}

/// Let a stopped subscription follow the log again, from where it was
#[utoipa::path(post, path = "/api/v1/subscriptions/{name}/start", tag = "subscriptions",
    operation_id = "start_subscription", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It runs", body = Status), Refusals))]
async fn start(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Status>, Problem> {
    set_stopped(&api, name, false).await
}

/// Let nobody in, and hold the log no longer
#[utoipa::path(post, path = "/api/v1/subscriptions/{name}/stop", tag = "subscriptions",
    operation_id = "stop_subscription", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "It is stopped", body = Status), Refusals))]
async fn stop(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Status>, Problem> {
    set_stopped(&api, name, true).await
}

async fn set_stopped(api: &Api, name: String, stopped: bool) -> Result<Json<Status>, Problem> {
    let change = move |registry: &Registry| registry.set_stopped(&name, stopped);
    let changed = objects::change(api, change).await?;
    tracing::info!(target: "audit", subscription = %changed.name, stopped, "the subscription was switched");
    if !stopped {
        // Whoever asks next finds it running.
        api.subscriptions.source(&changed).await;
    }
    Ok(Json(stands(api, &changed)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReplayParams {
    /// ISO-8601 with an offset, or epoch milliseconds: when messages came to the subscription.
    from: String,
    /// Only this consumer group; all of them unless given.
    group: Option<String>,
}

/// Where the groups read on.
#[derive(Serialize, ToSchema)]
struct Replayed {
    offsets: Vec<Sought>,
}

/// Let consumer groups read again what came since a moment
#[utoipa::path(post, path = "/api/v1/subscriptions/{name}/replay", tag = "subscriptions",
    operation_id = "replay_subscription", params(("name" = String, Path, description = "Its name"), ReplayParams),
    responses((status = 200, description = "Where each group reads on", body = Replayed), Refusals))]
async fn replay(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(params): Params<ReplayParams>,
) -> Result<Json<Replayed>, Problem> {
    let from_ms = query::moment(&params.from)
        .map_err(|error| Problem::bad_request("from", error.to_string()))?;
    let subscription = declared(&api, &name)?;
    let stopped = || {
        Problem::new(
            StatusCode::CONFLICT,
            "stopped",
            format!("subscription {name} does not run"),
        )
        .fix("start it first")
    };
    let source = api
        .subscriptions
        .source(&subscription)
        .await
        .ok_or_else(stopped)?;
    let sought = api
        .pool
        .run(move || source.seek(params.group.as_deref(), from_ms))
        .await?;
    let offsets = sought.map_err(|error| match error {
        SourceError::NoGroup(_) => Problem::not_found(error.to_string()),
        SourceError::Ended => stopped(),
        SourceError::TooManyGroups { .. }
        | SourceError::GroupName { .. }
        | SourceError::Failed(_) => {
            tracing::error!(%error, subscription = name, "a replay failed");
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "subscription",
                error.to_string(),
            )
        }
    })?;
    tracing::info!(target: "audit", subscription = name, from = params.from, "messages are delivered again");
    Ok(Json(Replayed { offsets }))
}

fn declared(api: &Api, name: &str) -> Result<Arc<Subscription>, Problem> {
    let found = api.registry.current().subscription(name).cloned();
    objects::declared(found, Kind::Subscription, name)
}

fn stands(api: &Api, subscription: &Subscription) -> Status {
    let running = api.subscriptions.running(&subscription.uid);
    Status {
        name: subscription.name.to_string(),
        contents: subscription.file.contents.word(),
        access_key: subscription.file.access_key.to_string(),
        state: match (&running, subscription.stopped) {
            (_, true) => "stopped",
            (Some(_), false) => "running",
            (None, false) => "failed",
        },
        port: api.subscribe_port,
        standing: running.map(|source| source.standing()),
    }
}
