//! `/api/v1/store`: what the store holds, and merging it on demand.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use backtide_store::{CompactError, ReadError, Store};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem, Refusals};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(figures))
        .routes(routes!(compact))
}

/// What the store holds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Figures {
    /// The sequence of the newest commit.
    durable: u64,
    /// Commits up to this sequence are in segments.
    flushed: u64,
    /// The oldest commit that the committed log can still be followed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_from: Option<u64>,
    log_bytes: u64,
    memtable_bytes: usize,
    segments: u64,
    segment_bytes: u64,
    rows: u64,
    values: u64,
    /// Values that came again, equal to what was stored.
    duplicates: u64,
    /// Values that were overwritten by different ones.
    conflicts: u64,
    events: u64,
    /// Events that came again with the same output.
    event_duplicates: u64,
    /// Values of attributes, earlier ones included.
    attribute_values: u64,
    /// Duplicates and conflicts are counted up to the newest commit.
    classified: bool,
    /// The most segments that a read of everything of one product joins.
    overlapping_segments_max: u64,
}

impl Figures {
    fn of(store: &Store) -> Result<Self, ReadError> {
        let (stats, segments) = (store.stats(), store.segment_stats()?);
        let chronicle = store.chronicle_stats()?;
        Ok(Self {
            durable: stats.durable.0,
            flushed: stats.flushed.0,
            log_from: stats.oldest.map(|oldest| oldest.0),
            log_bytes: stats.log_bytes,
            memtable_bytes: stats.memtable.bytes,
            segments: segments.segments,
            segment_bytes: segments.bytes,
            rows: segments.rows,
            values: segments.cells,
            duplicates: segments.duplicates,
            conflicts: segments.conflicts,
            events: chronicle.events,
            event_duplicates: chronicle.event_duplicates,
            attribute_values: chronicle.attribute_values,
            classified: stats.flushed == stats.durable && segments.unclassified_segments == 0,
            overlapping_segments_max: segments.overlapping_segments_max,
        })
    }
}

/// Show what the store holds
#[utoipa::path(get, path = "/api/v1/store", tag = "store",
    responses((status = 200, description = "Its figures", body = Figures), Refusals))]
async fn figures(State(api): State<Arc<Api>>) -> Result<Json<Figures>, Problem> {
    let store = api.store.clone();
    Ok(Json(api.pool.run(move || Figures::of(&store)).await??))
}

/// Flush, classify and merge everything committed before the call
#[utoipa::path(post, path = "/api/v1/store/compact", tag = "store",
    responses((status = 200, description = "Done; its figures afterwards", body = Figures), Refusals))]
async fn compact(State(api): State<Arc<Api>>) -> Result<Json<Figures>, Problem> {
    let store = api.store.clone();
    let figures = move || -> Result<Figures, Problem> {
        store.compact().map_err(|error| unavailable(&error))?;
        Ok(Figures::of(&store)?)
    };
    // It may take minutes: on the pool for long answers, so that short ones are not held up.
    Ok(Json(api.streams.run(figures).await??))
}

fn unavailable(error: &CompactError) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "store-unavailable",
        error.to_string(),
    )
    .fix("see /readyz, then try again")
}
