//! `/api/v1/quarantine`: what was refused, why, and its bytes.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    problem::{Params, limit},
    stream::{self, Ended},
};
use crate::quarantine::{Cause, Entry, Filter, Id, Quarantine, QuarantineError, Shown};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// Entries that an export reads at once.
const EXPORT_STEP: usize = 100;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(causes))
        .routes(routes!(export))
        .routes(routes!(show))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct QuarantineParams {
    /// Only what came by this channel.
    channel: Option<String>,
    /// Only what was refused with this code first.
    code: Option<u16>,
    /// Only what has a refused item of this device.
    device: Option<String>,
    /// Entries in a page: 1 to 1000, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

impl QuarantineParams {
    fn filter(self) -> Result<Filter, Problem> {
        let limit = limit(self.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
        let after = self.cursor.map(|text| {
            let wrong = || Problem::bad_request("cursor", "the cursor is none of ours");
            Id::parse(&text).ok_or_else(wrong)
        });
        Ok(Filter {
            channel: self.channel,
            code: self.code,
            device: self.device,
            after: after.transpose()?,
            limit,
        })
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
    let filter = params.filter()?;
    let limit = filter.limit;
    let quarantine = Arc::clone(&api.quarantine);
    let listing = api.pool.run(move || quarantine.list(&filter)).await??;
    let next = listing.found.last().map(|entry| entry.id);
    let next = next.filter(|_| listing.found.len() == limit);
    Ok(Json(Page {
        items: listing.found,
        next,
        behind: listing.behind,
    }))
}

/// Count refused messages by code and subject, the most frequent first
#[utoipa::path(get, path = "/api/v1/quarantine/causes", tag = "quarantine", operation_id = "quarantine_causes",
    params(QuarantineParams),
    responses((status = 200, description = "Causes, each with an example", body = serde_json::Value), Refusals))]
async fn causes(
    State(api): State<Arc<Api>>,
    Params(params): Params<QuarantineParams>,
) -> Result<Json<Page<Cause>>, Problem> {
    if params.cursor.is_some() {
        return Err(Problem::bad_request(
            "cursor",
            "causes are not paged; raise limit",
        ));
    }
    let filter = params.filter()?;
    let quarantine = Arc::clone(&api.quarantine);
    let listing = api.pool.run(move || quarantine.causes(&filter)).await??;
    Ok(Json(Page {
        items: listing.found,
        next: None,
        behind: listing.behind,
    }))
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

/// Export refused messages with their bytes, one a line
#[utoipa::path(get, path = "/api/v1/quarantine/export", tag = "quarantine", operation_id = "export_quarantine",
    params(QuarantineParams),
    responses((status = 200, description = "Entries as show has them", body = String, content_type = "application/x-ndjson"), Refusals))]
async fn export(
    State(api): State<Arc<Api>>,
    Params(params): Params<QuarantineParams>,
) -> Result<Response, Problem> {
    let entries_max = params.limit.unwrap_or(usize::MAX);
    let filter = QuarantineParams {
        limit: None,
        ..params
    }
    .filter()?;
    let quarantine = Arc::clone(&api.quarantine);
    stream::answer(&api.streams, "application/x-ndjson", move |outlet| {
        write_all(&quarantine, filter, entries_max, outlet)
    })
    .await
}

fn write_all(
    quarantine: &Quarantine,
    mut filter: Filter,
    entries_max: usize,
    outlet: &stream::Outlet,
) -> Result<(), Ended> {
    let mut chunk = Vec::new();
    let mut left = entries_max;
    while left > 0 {
        filter.limit = EXPORT_STEP.min(left);
        let entries = quarantine.list(&filter).map_err(Problem::from)?.found;
        let Some(last) = entries.last() else { break };
        filter.after = Some(last.id);
        left -= entries.len();
        for entry in &entries {
            // One that was removed meanwhile is not exported.
            let shown = quarantine.show(entry.id).map_err(Problem::from)?;
            if let Some((entry, payload)) = shown {
                serde_json::to_writer(&mut chunk, &Shown(&entry, &payload))
                    .expect("an entry is JSON");
                chunk.push(b'\n');
                outlet.send_full(&mut chunk)?;
            }
        }
    }
    Ok(outlet.send(&mut chunk)?)
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
