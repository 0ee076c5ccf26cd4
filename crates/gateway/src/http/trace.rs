//! `/api/v1/channels/{name}/trace`: the flight recorder of a channel, and dry runs of what it holds.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use backtide_model::ChannelName;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals, objects,
    problem::{Body, Params, limit},
};
use crate::{
    channel_log::{Entry, What},
    recorder::{Page as Window, RecorderError, Recording, Window as Recorded},
    redrive::{Outcome, Verdict},
    registry::Kind,
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// The longest window that ends: 30 days.
const SECONDS_MAX: u32 = 30 * 86_400;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(state, start, stop))
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(run))
}

/// What of a channel is recorded.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TraceState {
    recording: bool,
    /// The share of messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<f64>,
    /// Milliseconds since 1970; absent where it does not end.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
    /// Messages of all channels that the recorder had no room to take, since the start.
    dropped: u64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct TraceOrder {
    /// For how long; not given: until it is stopped. At most 30 days.
    #[schema(minimum = 1, maximum = 2_592_000)]
    seconds: Option<u32>,
    /// The share of messages that is recorded: above 0, at most 1.
    sample: f64,
}

impl Default for TraceOrder {
    fn default() -> Self {
        Self {
            seconds: None,
            sample: 1.0,
        }
    }
}

fn channel(api: &Api, name: &str) -> Result<ChannelName, Problem> {
    let snapshot = api.registry.current();
    let channel = snapshot.channel(name);
    channel
        .map(|channel| channel.name.clone())
        .ok_or_else(|| objects::not_found(Kind::Channel, name))
}

fn state_of(api: &Api, channel: &ChannelName) -> TraceState {
    let window = api
        .recorder
        .window(channel)
        .filter(|_| api.recorder.is_on(channel, api.clock.now_ms()));
    TraceState {
        recording: window.is_some(),
        sample: window.map(|window| window.sample),
        until: window.and_then(|window| window.until),
        dropped: api.recorder.dropped(),
    }
}

/// Whether a channel is recorded
#[utoipa::path(get, path = "/api/v1/channels/{name}/trace", tag = "channels", operation_id = "get_trace",
    params(("name" = String, Path, description = "The channel's name")),
    responses((status = 200, description = "The window that is open, if one is", body = TraceState), Refusals))]
async fn state(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<TraceState>, Problem> {
    let channel = channel(&api, &name)?;
    Ok(Json(state_of(&api, &channel)))
}

/// Record a channel: for a time or always, every message or a sample
#[utoipa::path(put, path = "/api/v1/channels/{name}/trace", tag = "channels", operation_id = "start_trace",
    params(("name" = String, Path, description = "The channel's name")),
    request_body = TraceOrder,
    responses((status = 200, description = "The window that is open now", body = TraceState), Refusals))]
async fn start(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Body(order): Body<TraceOrder>,
) -> Result<Json<TraceState>, Problem> {
    let channel = channel(&api, &name)?;
    if !(order.sample > 0.0 && order.sample <= 1.0) {
        let detail = format!("{} is no share; give more than 0, at most 1", order.sample);
        return Err(Problem::bad_request("sample", detail));
    }
    if order.seconds.is_some_and(|s| s == 0 || s > SECONDS_MAX) {
        let detail = format!("give 1 to {SECONDS_MAX}, or leave it out to record until stopped");
        return Err(Problem::bad_request("seconds", detail));
    }
    let until = order
        .seconds
        .map(|seconds| api.clock.now_ms() + i64::from(seconds) * 1_000);
    let window = Recorded {
        until,
        sample: order.sample,
    };
    let (recorder, of) = (Arc::clone(&api.recorder), channel.clone());
    api.pool.run(move || recorder.start(&of, window)).await??;
    let words = match order.seconds {
        Some(seconds) => format!("for {seconds} s"),
        None => "until it is stopped".to_owned(),
    };
    let message = format!(
        "the flight recorder takes {} of all messages, {words}",
        order.sample
    );
    audit(&api, &channel, message);
    Ok(Json(state_of(&api, &channel)))
}

/// Stop recording; what is recorded stays until it is too old
#[utoipa::path(delete, path = "/api/v1/channels/{name}/trace", tag = "channels", operation_id = "stop_trace",
    params(("name" = String, Path, description = "The channel's name")),
    responses((status = 204, description = "Nothing is recorded any more"), Refusals))]
async fn stop(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let channel = channel(&api, &name)?;
    let (recorder, of) = (Arc::clone(&api.recorder), channel.clone());
    api.pool.run(move || recorder.stop(&of)).await??;
    audit(&api, &channel, "the flight recorder is stopped".to_owned());
    Ok(StatusCode::NO_CONTENT)
}

fn audit(api: &Api, channel: &ChannelName, message: String) {
    tracing::info!(target: "audit", %channel, "{message}");
    api.log.note(Entry {
        time_ms: api.clock.now_ms(),
        channel: channel.clone(),
        client: "".into(),
        what: What::Audit {
            message: message.into(),
        },
    });
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct TraceParams {
    /// Only messages that were answered with this code.
    code: Option<u16>,
    /// Recordings in a page: 1 to 1000, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<i64>,
    /// The last recordings instead of the first.
    #[serde(default)]
    tail: bool,
}

#[derive(Debug, Serialize)]
struct Page {
    items: Vec<Recording>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List recorded messages, oldest first: payload (its first KiB), stages, verdict, reply, timings
#[utoipa::path(get, path = "/api/v1/channels/{name}/trace/messages", tag = "channels", operation_id = "list_trace",
    params(("name" = String, Path, description = "The channel's name"), TraceParams),
    responses((status = 200, description = "A page of recordings", body = serde_json::Value), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(params): Params<TraceParams>,
) -> Result<Json<Page>, Problem> {
    let channel = channel(&api, &name)?;
    let window = Window {
        after: params.cursor.unwrap_or(0),
        code: params.code,
        limit: limit(params.limit, LIMIT_DEFAULT, LIMIT_MAX)?,
        tail: params.tail,
    };
    let recorder = Arc::clone(&api.recorder);
    let items = api
        .pool
        .run(move || recorder.list(&channel, window))
        .await??;
    let next = items
        .last()
        .filter(|_| items.len() == window.limit && !params.tail);
    let next = next.map(|recording| recording.id.to_string());
    Ok(Json(Page { items, next }))
}

async fn recording(api: &Arc<Api>, channel: &ChannelName, id: &str) -> Result<Recording, Problem> {
    let absent = || Problem::not_found(format!("channel {channel} has no recording {id}"));
    let wanted: i64 = id.parse().map_err(|_| absent())?;
    let (recorder, of) = (Arc::clone(&api.recorder), channel.clone());
    let found = api.pool.run(move || recorder.show(&of, wanted)).await??;
    found.ok_or_else(absent)
}

/// Show a recorded message with the whole of its payload
#[utoipa::path(get, path = "/api/v1/channels/{name}/trace/messages/{id}", tag = "channels", operation_id = "show_trace",
    params(("name" = String, Path, description = "The channel's name"), ("id" = i64, Path, description = "Its id")),
    responses((status = 200, description = "The recording", body = serde_json::Value), Refusals))]
async fn show(
    State(api): State<Arc<Api>>,
    Path((name, id)): Path<(String, String)>,
) -> Result<Json<Recording>, Problem> {
    let channel = channel(&api, &name)?;
    recording(&api, &channel, &id).await.map(Json)
}

/// What the current model and script make of a message. Nothing was stored.
#[derive(Debug, Serialize)]
pub(super) struct DryRun {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    /// Why it cannot be tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

impl From<Outcome> for DryRun {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Judged(verdict) => Self {
                verdict: Some(verdict),
                skipped: None,
            },
            Outcome::Skipped { reason } => Self {
                verdict: None,
                skipped: Some(reason),
            },
        }
    }
}

/// Run a recorded message again, dry: what the current model and script make of it
#[utoipa::path(post, path = "/api/v1/channels/{name}/trace/messages/{id}/run", tag = "channels", operation_id = "run_trace",
    params(("name" = String, Path, description = "The channel's name"), ("id" = i64, Path, description = "Its id")),
    responses((status = 200, description = "Stages and verdict; nothing is stored", body = serde_json::Value), Refusals))]
async fn run(
    State(api): State<Arc<Api>>,
    Path((name, id)): Path<(String, String)>,
) -> Result<Json<DryRun>, Problem> {
    let channel = channel(&api, &name)?;
    let recording = recording(&api, &channel, &id).await?;
    let redriver = Arc::clone(&api.redriver);
    let run = move || redriver.dry_run_recording(&channel, &recording);
    Ok(Json(api.pool.run(run).await?.into()))
}

impl From<RecorderError> for Problem {
    fn from(error: RecorderError) -> Self {
        tracing::error!(%error, "the flight recorder cannot be read or written");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "recorder",
            "the flight recorder cannot be read or written",
        )
        .fix("look at the gateway's log and at the disk it writes to")
    }
}
