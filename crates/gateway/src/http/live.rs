//! What happens now: the figures of the overview, what each channel does, and a stream of both as
//! server-sent events.
//!
//! Figures are made once a second for all browsers, and only while one listens. A stream holds no
//! queue: it tells the newest figures when the browser's socket has room, so a slow browser misses
//! some and costs nothing.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use backtide_model::{ChannelName, Mode};
use futures::stream;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals, objects,
    problem::{Params, limit},
};
use crate::{
    access::Caller,
    channel_log::{Doing, Entry},
    growth::Outlook,
    limits::{LIVE_STREAMS_MAX, LIVE_STREAMS_PER_CALLER_MAX},
    registry::{Channel, Kind},
    seats::{Seat, Seats},
};

const BEAT: Duration = Duration::from_secs(1);
/// Rates are those of the last so many beats.
const RATE_BEATS: usize = 10;
/// A browser without news gets a comment this often, so that one that is gone is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// Channels and errors that the overview names.
const NAMED: usize = 5;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(overview))
        .routes(routes!(activity))
        .routes(routes!(listen))
}

/// What browsers are told as it happens.
pub struct Live {
    /// The overview as JSON text; empty before somebody listens.
    latest: watch::Sender<Arc<str>>,
    /// When, messages and values so far.
    samples: Mutex<VecDeque<(Instant, u64, u64)>>,
    /// Open streams by caller.
    seats: Seats,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            latest: watch::Sender::new("".into()),
            samples: Mutex::default(),
            seats: Seats::new(LIVE_STREAMS_MAX, LIVE_STREAMS_PER_CALLER_MAX),
        }
    }
}

impl Live {
    fn sample(&self, total: &Doing) {
        let mut samples = self.samples.lock();
        if samples.len() > RATE_BEATS {
            samples.pop_front();
        }
        samples.push_back((Instant::now(), total.messages, total.values));
    }

    /// Messages and values a second.
    fn rates(&self) -> (f64, f64) {
        let samples = self.samples.lock();
        let (Some(first), Some(last)) = (samples.front(), samples.back()) else {
            return (0.0, 0.0);
        };
        let seconds = last.0.duration_since(first.0).as_secs_f64();
        if seconds <= 0.0 {
            return (0.0, 0.0);
        }
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        (rate(last.1, first.1), rate(last.2, first.2))
    }

    fn seat(&self, caller: &str) -> Result<Seat, Problem> {
        self.seats.take(caller).map_err(|own| {
            let detail = format!("{caller} has {own} streams open; no more can be opened now");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
                .fix("close other tabs of the console, or ask /api/v1/overview now and then")
        })
    }
}

/// Makes the figures, until the door closes.
pub async fn beat(api: Arc<Api>) {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = api.closing.cancelled() => return,
            _ = beats.tick() => {}
        }
        api.live.sample(&api.log.activity.total());
        if api.live.latest.receiver_count() == 0 {
            continue;
        }
        match figures(&api).await {
            Ok(overview) => {
                let text = serde_json::to_string(&overview).expect("figures are JSON");
                api.live.latest.send_replace(text.into());
            }
            // The next beat tries again.
            Err(problem) => tracing::debug!(?problem, "no figures of the overview"),
        }
    }
}

/// How the gateway does at the moment. Counts of messages and values begin with the gateway.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Overview {
    /// Milliseconds since 1970.
    time: i64,
    /// Messages are taken; if not, `reasons` say why.
    ready: bool,
    reasons: Vec<String>,
    /// What somebody should look after, although messages are taken.
    warnings: Vec<String>,
    models: usize,
    products: usize,
    devices: usize,
    channels: States,
    messages_per_second: f64,
    values_per_second: f64,
    messages: u64,
    /// Messages whose code was not 200.
    refused: u64,
    values: u64,
    quarantine: Filling,
    store: Holding,
    /// Where the store is; absent where that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_free_bytes: Option<u64>,
    /// How fast the data directory grows, and how long the disk lasts at that rate.
    growth: Outlook,
    /// Channels that refused most in the last 24 hours.
    failing: Vec<ChannelActivity>,
    /// The last errors of all channels, as the channel log has them.
    #[schema(value_type = Vec<Object>)]
    last_errors: Vec<Entry>,
}

/// Channels by state.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ChannelStates)]
struct States {
    open: usize,
    paused: usize,
    held: usize,
    /// Clients that are connected.
    clients: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = QuarantineFilling)]
struct Filling {
    entries: u64,
    bytes: u64,
    bytes_max: u64,
    full: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StoreHolding)]
struct Holding {
    rows: u64,
    values: u64,
    segment_bytes: u64,
    log_bytes: u64,
    duplicates: u64,
    conflicts: u64,
}

/// A channel and what it does.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ChannelActivity {
    name: String,
    product: String,
    #[schema(value_type = String, example = "strict")]
    mode: Mode,
    /// open, paused or held.
    state: &'static str,
    /// Why it is held, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(flatten)]
    doing: Doing,
}

impl ChannelActivity {
    fn of(api: &Api, channel: &Channel) -> Self {
        Self {
            name: channel.name.to_string(),
            product: channel.product.to_string(),
            mode: channel.mode,
            state: state_of(channel),
            held: channel.held.as_ref().map(|held| held.reason.clone()),
            description: channel.description.clone(),
            doing: api.log.activity.doing(&channel.name),
        }
    }

    fn refused_lately(&self) -> u64 {
        self.doing.hours.iter().map(|hour| hour.refused).sum()
    }
}

fn state_of(channel: &Channel) -> &'static str {
    match (channel.paused, channel.held.is_some()) {
        (true, _) => "paused",
        (false, true) => "held",
        (false, false) => "open",
    }
}

async fn figures(api: &Arc<Api>) -> Result<Overview, Problem> {
    let of = Arc::clone(api);
    api.pool.run(move || reckoned(&of)).await?
}

fn reckoned(api: &Api) -> Result<Overview, Problem> {
    let snapshot = api.registry.snapshot();
    let total = api.log.activity.total();
    let mut channels = States {
        clients: total.clients,
        ..States::default()
    };
    let mut failing = Vec::new();
    for channel in snapshot.channels_after(None) {
        match state_of(channel) {
            "paused" => channels.paused += 1,
            "held" => channels.held += 1,
            _ => channels.open += 1,
        }
        let activity = ChannelActivity::of(api, channel);
        if activity.refused_lately() > 0 {
            failing.push(activity);
        }
    }
    failing.sort_by_key(|activity| std::cmp::Reverse(activity.refused_lately()));
    failing.truncate(NAMED);
    let mut last_errors = api.log.activity.last_errors();
    last_errors.truncate(NAMED);
    let quarantine = api.quarantine.status()?;
    let (stats, segments) = (api.store.stats(), api.store.segment_stats()?);
    let readiness = (api.readiness)();
    let (messages_per_second, values_per_second) = api.live.rates();
    Ok(Overview {
        time: api.clock.now_ms(),
        ready: readiness.ready,
        reasons: readiness.reasons,
        warnings: readiness.warnings,
        models: snapshot.models_after(None).count(),
        products: snapshot.products_after(None).count(),
        devices: snapshot.devices_len(),
        channels,
        messages_per_second,
        values_per_second,
        messages: total.messages,
        refused: total.refused,
        values: total.values,
        quarantine: Filling {
            entries: quarantine.entries,
            bytes: quarantine.bytes,
            bytes_max: quarantine.bounds.bytes_max,
            full: quarantine.is_full,
        },
        store: Holding {
            rows: segments.rows,
            values: segments.cells,
            segment_bytes: segments.bytes,
            log_bytes: stats.log_bytes,
            duplicates: segments.duplicates,
            conflicts: segments.conflicts,
        },
        growth: api.growth.outlook(api.store.disk_free_bytes()),
        disk_free_bytes: Some(api.store.disk_free_bytes()).filter(|bytes| *bytes != u64::MAX),
        failing,
        last_errors,
    })
}

/// Show how the gateway does at the moment
#[utoipa::path(get, path = "/api/v1/overview", tag = "live",
    responses((status = 200, description = "Its figures", body = Overview), Refusals))]
async fn overview(State(api): State<Arc<Api>>) -> Result<Json<Overview>, Problem> {
    figures(&api).await.map(Json)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ActivityParams {
    /// Only channels of this product.
    product: Option<String>,
    /// Only channels whose name contains this.
    name: Option<String>,
    /// Only channels that are open, paused or held.
    state: Option<String>,
    /// Channels in a page: 1 to 1000, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Channels and what they do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ActivityPage)]
struct Page {
    items: Vec<ChannelActivity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List what each channel does: clients, messages, the last 24 hours
#[utoipa::path(get, path = "/api/v1/activity", tag = "live",
    params(ActivityParams),
    responses((status = 200, description = "A page of channels by name", body = Page), Refusals))]
async fn activity(
    State(api): State<Arc<Api>>,
    Params(params): Params<ActivityParams>,
) -> Result<Json<Page>, Problem> {
    let limit = limit(params.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let has = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|w| w == found);
    let snapshot = api.registry.snapshot();
    let channels = snapshot
        .channels_after(params.cursor.as_deref())
        .filter(|channel| has(&params.product, channel.product.as_str()))
        .filter(|channel| has(&params.state, state_of(channel)))
        .filter(|channel| {
            let name = params.name.as_deref().unwrap_or("");
            channel.name.as_str().contains(name)
        });
    let mut items: Vec<_> = channels
        .take(limit + 1)
        .map(|channel| ChannelActivity::of(&api, channel))
        .collect();
    let has_next = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| has_next);
    let next = next.map(|activity| activity.name.clone());
    Ok(Json(Page { items, next }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListenParams {
    /// Tell what this channel does too.
    channel: Option<String>,
}

/// Stream what happens as server-sent events: `overview` every second, `channel` when it changes
#[utoipa::path(get, path = "/api/v1/stream", tag = "live", operation_id = "stream",
    params(ListenParams),
    responses((status = 200, description = "Events until the browser leaves; the data of `overview` is as /overview has it, of `channel` as /activity has one",
        body = String, content_type = "text/event-stream"), Refusals))]
async fn listen(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<ListenParams>,
) -> Result<Response, Problem> {
    let channel = match params.channel {
        Some(name) => {
            let snapshot = api.registry.current();
            let absent = || objects::not_found(Kind::Channel, &name);
            Some(snapshot.channel(&name).ok_or_else(absent)?.name.clone())
        }
        None => None,
    };
    let listener = Listener {
        _seat: api.live.seat(&caller.name)?,
        news: api.live.latest.subscribe(),
        channel,
        told: None,
        api,
    };
    // At once, so that the browser knows that it is connected.
    let hello = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"retry: 1000\n\n"))]);
    let events = stream::unfold(listener, async |mut listener| {
        let event = listener.event().await?;
        Some((Ok(event), listener))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let body = Body::from_stream(stream::StreamExt::chain(hello, events));
    Ok((headers, body).into_response())
}

/// A browser that listens.
struct Listener {
    api: Arc<Api>,
    news: watch::Receiver<Arc<str>>,
    channel: Option<ChannelName>,
    /// What it was told of the channel last.
    told: Option<String>,
    _seat: Seat,
}

impl Listener {
    /// The next events; `None` when the gateway closes.
    async fn event(&mut self) -> Option<Bytes> {
        let closing = self.api.closing.clone();
        tokio::select! {
            () = closing.cancelled() => None,
            news = timeout(HEARTBEAT, self.news.changed()) => match news {
                Ok(Ok(())) => Some(self.told_now()),
                Ok(Err(_)) => None,
                Err(_) => Some(Bytes::from_static(b":\n\n")),
            },
        }
    }

    fn told_now(&mut self) -> Bytes {
        let overview = Arc::clone(&self.news.borrow_and_update());
        let mut text = format!("event: overview\ndata: {overview}\n\n");
        if let Some(channel) = self
            .doing()
            .filter(|doing| self.told.as_ref() != Some(doing))
        {
            text.push_str(&format!("event: channel\ndata: {channel}\n\n"));
            self.told = Some(channel);
        }
        text.into()
    }

    fn doing(&self) -> Option<String> {
        let snapshot = self.api.registry.current();
        let channel = snapshot.channel(self.channel.as_ref()?)?;
        let activity = ChannelActivity::of(&self.api, channel);
        Some(serde_json::to_string(&activity).expect("figures are JSON"))
    }
}
