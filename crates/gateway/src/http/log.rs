//! `/api/v1/channels/{name}/log`: what happened on a channel.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use backtide_model::ChannelName;
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::timeout};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals, objects,
    problem::{Params, limit},
};
use crate::{
    channel_log::{Filter, Kind, LogError, Record},
    query, registry,
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;
/// A follower without news gets an empty line this often, so that one that is gone is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(log))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct LogParams {
    /// Kinds, separated by commas: connect, disconnect (connection: both), transmission, error, audit, dropped.
    #[serde(default)]
    kind: String,
    /// Only entries with this return code.
    code: Option<u16>,
    /// Only entries that contain this text, in any case.
    text: Option<String>,
    /// ISO time or milliseconds since 1970, inclusive.
    from: Option<String>,
    /// Exclusive.
    to: Option<String>,
    /// Entries in a page: 1 to 10000, 100 unless given.
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<i64>,
    /// The last entries instead of the first.
    #[serde(default)]
    tail: bool,
    /// Stream what is there and what comes, an object a line, until the client leaves.
    #[serde(default)]
    follow: bool,
}

#[derive(Debug, Serialize)]
struct Page {
    items: Vec<Record>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List what happened on a channel, oldest first
#[utoipa::path(get, path = "/api/v1/channels/{name}/log", tag = "channels", operation_id = "channel_log",
    params(("name" = String, Path, description = "The channel's name"), LogParams),
    responses(
        (status = 200, description = "A page of entries; with follow a stream of them",
            content((serde_json::Value = "application/json"), (String = "application/x-ndjson"))),
        Refusals))]
async fn log(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(params): Params<LogParams>,
) -> Result<Response, Problem> {
    let filter = filter(&api, &name, &params)?;
    if params.follow {
        return Ok(follow(api, filter));
    }
    let limit = filter.limit;
    let items = list(&api, filter).await?;
    let next = items
        .last()
        .filter(|_| items.len() == limit && !params.tail);
    let next = next.map(|record| record.id.to_string());
    Ok(Json(Page { items, next }).into_response())
}

fn filter(api: &Api, name: &str, params: &LogParams) -> Result<Filter, Problem> {
    let absent = || objects::not_found(registry::Kind::Channel, name);
    let channel = ChannelName::new(name).map_err(|_| absent())?;
    if api.registry.snapshot().channel(name).is_none() {
        return Err(absent());
    }
    let limit = limit(params.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let mut kinds = Vec::new();
    for word in params.kind.split(',').filter(|word| !word.is_empty()) {
        kinds.extend(Kind::parse(word).ok_or_else(|| {
            Problem::bad_request("kind", format!("{word:?} is no kind of entry"))
                .fix("use connection, connect, disconnect, transmission, error, audit or dropped")
        })?);
    }
    let moment = |place: &str, text: &Option<String>| {
        let read = text.as_deref().map(query::moment).transpose();
        read.map_err(|error| Problem::bad_request(place, error.to_string()))
    };
    Ok(Filter {
        channel: Some(channel),
        kinds,
        code: params.code,
        text: params.text.clone(),
        from_ms: moment("from", &params.from)?,
        to_ms: moment("to", &params.to)?,
        after: params.cursor.unwrap_or(0),
        limit,
        tail: params.tail,
    })
}

async fn list(api: &Api, filter: Filter) -> Result<Vec<Record>, Problem> {
    let log = Arc::clone(&api.log);
    Ok(api.pool.run(move || log.list(&filter)).await??)
}

/// A follower of the log.
struct Follower {
    api: Arc<Api>,
    filter: Filter,
    newest: watch::Receiver<i64>,
    /// Listed and not yet sent.
    ready: VecDeque<Record>,
}

fn follow(api: Arc<Api>, filter: Filter) -> Response {
    let newest = api.log.newest();
    let follower = Follower {
        api,
        filter,
        newest,
        ready: VecDeque::new(),
    };
    let lines = stream::unfold(follower, async |mut follower| {
        let line = follower.line().await?;
        Some((Ok::<_, Infallible>(line), follower))
    });
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

impl Follower {
    /// The next lines; `None` when the gateway closes or cannot read its log.
    async fn line(&mut self) -> Option<Bytes> {
        loop {
            if !self.ready.is_empty() {
                let mut lines = Vec::new();
                for record in self.ready.drain(..) {
                    serde_json::to_writer(&mut lines, &record).expect("a record is JSON");
                    lines.push(b'\n');
                }
                return Some(lines.into());
            }
            // Before listing: what is written meanwhile wakes the next wait at once.
            self.newest.mark_unchanged();
            let records = list(&self.api, self.filter.clone()).await.ok()?;
            if let Some(last) = records.last() {
                self.filter.after = last.id;
                // Only the first listing may be of the end of the log.
                self.filter.tail = false;
                self.ready = records.into();
                continue;
            }
            let closing = self.api.closing.clone();
            tokio::select! {
                news = timeout(HEARTBEAT, self.newest.changed()) => match news {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => return Some(Bytes::from_static(b"\n")),
                },
                () = closing.cancelled() => return None,
            }
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        tracing::error!(%error, "the channel log cannot be read");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "log",
            "the channel log cannot be read",
        )
        .fix("look at the gateway's log and at the disk it reads from")
    }
}
