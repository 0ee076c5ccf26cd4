//! `/api/v1/quarantine`: what was refused, why, and its bytes; and the ways out of it.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use backtide_model::ChannelName;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    problem::{Body, Params, limit},
    stream::{self, Ended},
    trace::DryRun,
};
use crate::{
    channel_log::{Entry as LogEntry, What},
    limits::SELECTION_IDS_MAX,
    quarantine::{
        Cause, Entry, Filter, Id, Page as Window, Quarantine, QuarantineError, Shown, WhenFull,
    },
    query,
    redrive::{Counts, Cure, Job, Outcome, RedriveError},
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// Entries that an export or a dry run reads at once.
const STEP: usize = 100;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(status))
        .routes(routes!(causes))
        .routes(routes!(cures))
        .routes(routes!(export))
        .routes(routes!(discard))
        .routes(routes!(dry_run))
        .routes(routes!(jobs, begin))
        .routes(routes!(job))
        .routes(routes!(cancel))
        .routes(routes!(show))
        .routes(routes!(run))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct QuarantineParams {
    /// Only what was refused for this cause.
    cause: Option<i64>,
    /// Only what came by this channel.
    channel: Option<String>,
    /// Only what this client sent, such as `import:7`.
    client_id: Option<String>,
    /// Only what was refused with this code first.
    code: Option<u16>,
    /// Only what has a refused item of this device.
    device: Option<String>,
    /// Only what has a refused item about this point.
    point: Option<String>,
    /// Arrived at this time or later: ISO time or milliseconds since 1970.
    from: Option<String>,
    /// Arrived before this time.
    to: Option<String>,
    /// Entries in a page: 1 to 1000, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

impl QuarantineParams {
    fn filter(&self) -> Result<Filter, Problem> {
        Ok(Filter {
            ids: Vec::new(),
            cause: self.cause,
            channel: self.channel.clone(),
            client_id: self.client_id.clone(),
            code: self.code,
            device: self.device.clone(),
            point: self.point.clone(),
            from_ms: moment("from", self.from.as_deref())?,
            to_ms: moment("to", self.to.as_deref())?,
        })
    }

    fn window(&self) -> Result<Window, Problem> {
        let wrong = || Problem::bad_request("cursor", "the cursor is none of ours");
        let after = self
            .cursor
            .as_ref()
            .map(|text| Id::parse(text).ok_or_else(wrong));
        Ok(Window {
            after: after.transpose()?,
            ..Window::first(limit(self.limit, LIMIT_DEFAULT, LIMIT_MAX)?)
        })
    }

    /// Of a list that is not paged.
    fn unpaged(&self, what: &str) -> Result<(Filter, usize), Problem> {
        if self.cursor.is_some() {
            let detail = format!("{what} are not paged; raise limit");
            return Err(Problem::bad_request("cursor", detail));
        }
        Ok((self.filter()?, limit(self.limit, LIMIT_DEFAULT, LIMIT_MAX)?))
    }
}

fn moment(place: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let read = text.map(query::moment).transpose();
    read.map_err(|error| Problem::bad_request(place, error.to_string()))
}

/// Which entries are meant: every condition that is there must hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[derive(Default)]
struct Selection {
    /// Every entry there is; without it, at least one condition is needed.
    all: bool,
    /// Only these; at most 1000.
    ids: Vec<String>,
    /// Only what was refused for this cause.
    cause: Option<i64>,
    channel: Option<String>,
    /// The client that sent it, such as `import:7`.
    client_id: Option<String>,
    /// The code of the first reason.
    code: Option<u16>,
    /// Any of the refused items is about this device.
    device: Option<String>,
    /// Any of the refused items is about this point.
    point: Option<String>,
    /// Arrived at this time or later: ISO time or milliseconds since 1970.
    from: Option<String>,
    /// Arrived before this time.
    to: Option<String>,
}

impl Selection {
    fn filter(self) -> Result<Filter, Problem> {
        if self.ids.len() > SELECTION_IDS_MAX {
            let detail = format!("at most {SELECTION_IDS_MAX} ids are taken at once");
            return Err(Problem::bad_request("ids", detail).fix("select by cause or channel"));
        }
        let id = |text: &String| {
            Id::parse(text)
                .ok_or_else(|| Problem::bad_request("ids", format!("{text:?} is no entry's id")))
        };
        let filter = Filter {
            ids: self.ids.iter().map(id).collect::<Result<_, _>>()?,
            cause: self.cause,
            channel: self.channel,
            client_id: self.client_id,
            code: self.code,
            device: self.device,
            point: self.point,
            from_ms: moment("from", self.from.as_deref())?,
            to_ms: moment("to", self.to.as_deref())?,
        };
        match (filter.is_all(), self.all) {
            (true, false) => Err(Problem::bad_request("selection", "nothing is selected")
                .fix("give a condition, such as cause or channel, or all: true")),
            (false, true) => Err(Problem::bad_request(
                "all",
                "all is given together with a condition; leave one of them out",
            )),
            _ => Ok(filter),
        }
    }
}

#[derive(Debug, Serialize)]
struct Page<T> {
    items: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Id>,
    /// Commits that are answered but not yet looked through for refusals.
    behind: u64,
}

/// List refused messages, oldest first
#[utoipa::path(get, path = "/api/v1/quarantine", tag = "quarantine", operation_id = "list_quarantine",
    params(QuarantineParams),
    responses((status = 200, description = "A page of entries without their bytes", body = serde_json::Value), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Params(params): Params<QuarantineParams>,
) -> Result<Json<Page<Entry>>, Problem> {
    let (filter, window) = (params.filter()?, params.window()?);
    let quarantine = Arc::clone(&api.quarantine);
    let listing = api
        .pool
        .run(move || quarantine.list(&filter, window))
        .await??;
    let next = listing.found.last().map(|entry| entry.id);
    let next = next.filter(|_| listing.found.len() == window.limit);
    Ok(Json(Page {
        items: listing.found,
        next,
        behind: listing.behind,
    }))
}

/// How full the quarantine is, and how many entries left it which way since it was made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = QuarantineStatus)]
struct Status {
    entries: u64,
    bytes: u64,
    bytes_max: u64,
    /// Of the bytes it may hold. From 80 on a warning is in the gateway's log.
    percent: u64,
    /// Messages that would have to go there are held.
    full: bool,
    /// hold or drop-oldest.
    #[schema(value_type = String)]
    when_full: &'static str,
    age_days_max: i64,
    /// Arrival of the oldest entry, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<i64>,
    /// Entries that left because a re-drive stored them, a person discarded them, they were too
    /// old, or they made room for new ones.
    stored: u64,
    discarded: u64,
    aged: u64,
    dropped: u64,
}

/// How full the quarantine is
#[utoipa::path(get, path = "/api/v1/quarantine/status", tag = "quarantine", operation_id = "quarantine_status",
    responses((status = 200, description = "Entries, bytes and bounds", body = Status), Refusals))]
async fn status(State(api): State<Arc<Api>>) -> Result<Json<Status>, Problem> {
    let quarantine = Arc::clone(&api.quarantine);
    let status = api.pool.run(move || quarantine.status()).await??;
    let bounds = status.bounds;
    Ok(Json(Status {
        entries: status.entries,
        bytes: status.bytes,
        bytes_max: bounds.bytes_max,
        percent: status.bytes.saturating_mul(100) / bounds.bytes_max.max(1),
        full: status.is_full,
        when_full: match bounds.when_full {
            WhenFull::Hold => "hold",
            WhenFull::DropOldest => "drop-oldest",
        },
        age_days_max: bounds.age_ms_max / 86_400_000,
        oldest: status.oldest_ms,
        stored: status.stored,
        discarded: status.discarded,
        aged: status.aged,
        dropped: status.dropped,
    }))
}

/// Count refused messages by channel, code and subject, the most frequent first
#[utoipa::path(get, path = "/api/v1/quarantine/causes", tag = "quarantine", operation_id = "quarantine_causes",
    params(QuarantineParams),
    responses((status = 200, description = "Causes, each with an example", body = serde_json::Value), Refusals))]
async fn causes(
    State(api): State<Arc<Api>>,
    Params(params): Params<QuarantineParams>,
) -> Result<Json<Page<Cause>>, Problem> {
    let (filter, limit) = params.unpaged("causes")?;
    let quarantine = Arc::clone(&api.quarantine);
    let listing = api
        .pool
        .run(move || quarantine.causes(&filter, limit))
        .await??;
    Ok(Json(Page {
        items: listing.found,
        next: None,
        behind: listing.behind,
    }))
}

#[derive(Debug, Serialize)]
struct Cures {
    items: Vec<Cure>,
}

/// What a re-drive would cure now, and what the other causes need; entries are tried, nothing changes
#[utoipa::path(get, path = "/api/v1/quarantine/cures", tag = "quarantine", operation_id = "quarantine_cures",
    params(QuarantineParams),
    responses((status = 200, description = "Causes as /causes has them, with wouldCure, tried and advice", body = serde_json::Value), Refusals))]
async fn cures(
    State(api): State<Arc<Api>>,
    Params(params): Params<QuarantineParams>,
) -> Result<Json<Cures>, Problem> {
    let (filter, limit) = params.unpaged("cures")?;
    let redriver = Arc::clone(&api.redriver);
    let items = api
        .pool
        .run(move || redriver.cures(&filter, limit))
        .await??;
    Ok(Json(Cures { items }))
}

/// Show a refused message with its bytes
#[utoipa::path(get, path = "/api/v1/quarantine/{id}", tag = "quarantine", operation_id = "show_quarantine",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The entry, its payload as base64, and as text where it is UTF-8", body = serde_json::Value), Refusals))]
async fn show(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<serde_json::Value>, Problem> {
    let absent = || Problem::not_found(format!("quarantine has no entry {id}"));
    let wanted = Id::parse(&id).ok_or_else(absent)?;
    let quarantine = Arc::clone(&api.quarantine);
    let found = api.pool.run(move || quarantine.show(wanted)).await??;
    let (entry, payload) = found.ok_or_else(absent)?;
    Ok(Json(
        serde_json::to_value(Shown(&entry, &payload)).expect("an entry is JSON"),
    ))
}

/// Run a refused message again, dry: what the current model and script make of it
#[utoipa::path(post, path = "/api/v1/quarantine/{id}/run", tag = "quarantine", operation_id = "run_quarantine",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "Stages and verdict; nothing is stored", body = serde_json::Value), Refusals))]
async fn run(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<DryRun>, Problem> {
    let absent = || Problem::not_found(format!("quarantine has no entry {id}"));
    let wanted = Id::parse(&id).ok_or_else(absent)?;
    let (quarantine, redriver) = (Arc::clone(&api.quarantine), Arc::clone(&api.redriver));
    let run = move || -> Result<Option<Outcome>, QuarantineError> {
        let found = quarantine.show(wanted)?;
        Ok(found.map(|(entry, payload)| redriver.dry_run(&entry, &payload)))
    };
    let outcome = api.pool.run(run).await??.ok_or_else(absent)?;
    Ok(Json(outcome.into()))
}

/// Export refused messages with their bytes, one a line
#[utoipa::path(get, path = "/api/v1/quarantine/export", tag = "quarantine", operation_id = "export_quarantine",
    params(QuarantineParams),
    responses((status = 200, description = "Entries as show has them", body = String, content_type = "application/x-ndjson"), Refusals))]
async fn export(
    State(api): State<Arc<Api>>,
    Params(params): Params<QuarantineParams>,
) -> Result<Response, Problem> {
    let entries_max = params.limit.unwrap_or(usize::MAX);
    let params = QuarantineParams {
        limit: None,
        ..params
    };
    let (filter, window) = (params.filter()?, params.window()?);
    let quarantine = Arc::clone(&api.quarantine);
    stream::answer(
        &api.streams,
        "application/x-ndjson",
        "ndjson",
        move |outlet| {
            let mut chunk = Vec::new();
            each(
                &quarantine,
                &filter,
                window,
                entries_max,
                |entry, payload| {
                    line(&mut chunk, &Shown(entry, payload));
                    outlet.send_full(&mut chunk)
                },
            )?;
            Ok(outlet.send(&mut chunk)?)
        },
    )
    .await
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DiscardOrder {
    selection: Selection,
    /// Must be true: what is discarded is gone for good.
    #[serde(default)]
    confirm: bool,
}

/// What was removed.
#[derive(Debug, Serialize, ToSchema)]
struct Discarded {
    discarded: u64,
    /// How many of each channel.
    channels: BTreeMap<String, u64>,
}

/// Remove refused messages for good; the channels' logs say so
#[utoipa::path(post, path = "/api/v1/quarantine/discard", tag = "quarantine", operation_id = "discard_quarantine",
    request_body = DiscardOrder,
    responses((status = 200, description = "How many are gone", body = Discarded), Refusals))]
async fn discard(
    State(api): State<Arc<Api>>,
    Body(order): Body<DiscardOrder>,
) -> Result<Json<Discarded>, Problem> {
    if !order.confirm {
        return Err(Problem::bad_request(
            "confirm",
            "what is discarded is gone for good, and confirm is not true",
        )
        .fix("export what may still be needed, then send confirm: true"));
    }
    let filter = order.selection.filter()?;
    let said = serde_json::to_string(&filter).expect("a filter is text and numbers");
    let quarantine = Arc::clone(&api.quarantine);
    let channels = api.pool.run(move || quarantine.discard(&filter)).await??;
    let discarded = channels.values().sum();
    tracing::info!(target: "audit", discarded, selection = said, "quarantine entries were discarded");
    for (channel, entries) in &channels {
        if let Ok(channel) = ChannelName::new(channel) {
            let message = format!("{entries} messages were discarded from quarantine: {said}");
            audit(&api, channel, message);
        }
    }
    Ok(Json(Discarded {
        discarded,
        channels,
    }))
}

fn audit(api: &Api, channel: ChannelName, message: String) {
    api.log.note(LogEntry {
        time_ms: api.clock.now_ms(),
        channel,
        client: "".into(),
        what: What::Audit {
            message: message.into(),
        },
    });
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DryRunOrder {
    selection: Selection,
}

/// A line for each entry: what it was refused with, and what it would be now.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tried<'a> {
    id: Id,
    channel: &'a str,
    code_before: u16,
    #[serde(flatten)]
    outcome: OutcomeLine<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OutcomeLine<'a> {
    Judged(&'a crate::redrive::Verdict),
    Skipped { skipped: &'a str },
}

/// The last line.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    entries: u64,
    #[serde(flatten)]
    counts: Counts,
    /// Entries by the code they would get now.
    by_code: BTreeMap<String, u64>,
}

/// Say what a re-drive would bring, entry by entry; nothing changes
#[utoipa::path(post, path = "/api/v1/quarantine/dry-run", tag = "quarantine", operation_id = "dry_run_quarantine",
    request_body = DryRunOrder,
    responses((status = 200, description = "A verdict a line, and a summary at the end: {\"summary\": …}", body = String, content_type = "application/x-ndjson"), Refusals))]
async fn dry_run(
    State(api): State<Arc<Api>>,
    Body(order): Body<DryRunOrder>,
) -> Result<Response, Problem> {
    let filter = order.selection.filter()?;
    let (quarantine, redriver) = (Arc::clone(&api.quarantine), Arc::clone(&api.redriver));
    stream::answer(
        &api.streams,
        "application/x-ndjson",
        "ndjson",
        move |outlet| {
            let (mut chunk, mut summary) = (Vec::new(), Summary::default());
            let first = Window::first(STEP);
            each(&quarantine, &filter, first, usize::MAX, |entry, payload| {
                let outcome = redriver.dry_run(entry, payload);
                summary.count(&outcome);
                line(&mut chunk, &tried(entry, &outcome));
                outlet.send_full(&mut chunk)
            })?;
            line(&mut chunk, &serde_json::json!({ "summary": summary }));
            Ok(outlet.send(&mut chunk)?)
        },
    )
    .await
}

fn tried<'a>(entry: &'a Entry, outcome: &'a Outcome) -> Tried<'a> {
    Tried {
        id: entry.id,
        channel: &entry.channel,
        code_before: entry.code,
        outcome: match outcome {
            Outcome::Judged(verdict) => OutcomeLine::Judged(verdict),
            Outcome::Skipped { reason } => OutcomeLine::Skipped { skipped: reason },
        },
    }
}

impl Summary {
    fn count(&mut self, outcome: &Outcome) {
        self.entries += 1;
        self.counts.count(outcome);
        if let Outcome::Judged(verdict) = outcome {
            *self.by_code.entry(verdict.code.to_string()).or_default() += 1;
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RedriveOrder {
    selection: Selection,
    /// Messages a second at most; 1000 unless given.
    #[schema(minimum = 1)]
    messages_per_second: Option<u32>,
}

/// Begin to drive refused messages through the pipeline again
#[utoipa::path(post, path = "/api/v1/quarantine/redrives", tag = "quarantine", operation_id = "begin_redrive",
    request_body = RedriveOrder,
    responses((status = 202, description = "The job; ask for it again to see how far it is", body = serde_json::Value), Refusals))]
async fn begin(
    State(api): State<Arc<Api>>,
    Body(order): Body<RedriveOrder>,
) -> Result<(StatusCode, Json<Job>), Problem> {
    if order.messages_per_second == Some(0) {
        return Err(Problem::bad_request(
            "messagesPerSecond",
            "a re-drive of 0 messages a second never ends",
        ));
    }
    let filter = order.selection.filter()?;
    let redriver = Arc::clone(&api.redriver);
    let begin = move || redriver.begin(&filter, order.messages_per_second);
    let job = api.pool.run(begin).await??;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

#[derive(Debug, Serialize)]
struct Jobs {
    items: Vec<Job>,
}

/// List re-drives, the newest first
#[utoipa::path(get, path = "/api/v1/quarantine/redrives", tag = "quarantine", operation_id = "list_redrives",
    responses((status = 200, description = "Those that run or wait, and the last hundred that ended", body = serde_json::Value), Refusals))]
async fn jobs(State(api): State<Arc<Api>>) -> Result<Json<Jobs>, Problem> {
    let redriver = Arc::clone(&api.redriver);
    let items = api.pool.run(move || redriver.jobs()).await??;
    Ok(Json(Jobs { items }))
}

/// Show how far a re-drive is
#[utoipa::path(get, path = "/api/v1/quarantine/redrives/{id}", tag = "quarantine", operation_id = "get_redrive",
    params(("id" = i64, Path, description = "Its id")),
    responses((status = 200, description = "The job: entries, and how many are stored, partly stored, refused again, skipped", body = serde_json::Value), Refusals))]
async fn job(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Job>, Problem> {
    let wanted = job_id(&id)?;
    let redriver = Arc::clone(&api.redriver);
    let job = api.pool.run(move || redriver.job(wanted)).await??;
    job.map(Json).ok_or_else(|| no_job(&id))
}

/// End a re-drive after the step it is in; what is stored stays stored
#[utoipa::path(post, path = "/api/v1/quarantine/redrives/{id}/cancel", tag = "quarantine", operation_id = "cancel_redrive",
    params(("id" = i64, Path, description = "Its id")),
    responses((status = 200, description = "The job", body = serde_json::Value), Refusals))]
async fn cancel(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Job>, Problem> {
    let wanted = job_id(&id)?;
    let redriver = Arc::clone(&api.redriver);
    let job = api.pool.run(move || redriver.cancel(wanted)).await??;
    job.map(Json).ok_or_else(|| no_job(&id))
}

fn job_id(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| no_job(text))
}

fn no_job(id: &str) -> Problem {
    Problem::not_found(format!("there is no re-drive {id}"))
}

/// Entries that fit, with their bytes, one after the other.
fn each<E: Into<Ended>>(
    quarantine: &Quarantine,
    filter: &Filter,
    window: Window,
    entries_max: usize,
    mut take: impl FnMut(&Entry, &crate::quarantine::Payload) -> Result<(), E>,
) -> Result<(), Ended> {
    let (mut window, mut left) = (window, entries_max);
    while left > 0 {
        window.limit = STEP.min(left);
        let entries = quarantine
            .list(filter, window)
            .map_err(Problem::from)?
            .found;
        let Some(last) = entries.last() else { break };
        window.after = Some(last.id);
        left -= entries.len();
        for entry in &entries {
            // One that left meanwhile is passed over.
            let shown = quarantine.show(entry.id).map_err(Problem::from)?;
            if let Some((entry, payload)) = shown {
                take(&entry, &payload).map_err(Into::into)?;
            }
        }
    }
    Ok(())
}

fn line(chunk: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *chunk, value).expect("an entry is JSON");
    chunk.push(b'\n');
}

impl From<QuarantineError> for Problem {
    fn from(error: QuarantineError) -> Self {
        tracing::error!(%error, "the quarantine cannot be read");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "quarantine",
            "the quarantine cannot be read",
        )
        .fix("look at the gateway's log and at the disk it reads from")
    }
}

impl From<RedriveError> for Problem {
    fn from(error: RedriveError) -> Self {
        match error {
            RedriveError::Quarantine(error) => error.into(),
            RedriveError::Pool(error) => error.into(),
            RedriveError::NothingFits => Self::not_found(error.to_string()),
            RedriveError::TooMany(_) => {
                Self::new(StatusCode::CONFLICT, "conflict", error.to_string())
            }
            RedriveError::File(_) => {
                tracing::error!(%error, "the jobs of re-drives cannot be read or written");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "redrive",
                    "the jobs of re-drives cannot be read or written",
                )
                .fix("look at the gateway's log and at the disk it writes to")
            }
        }
    }
}
