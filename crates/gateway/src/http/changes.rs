//! `/api/v1/changes`: in which ranges of time derived rows became others, so that others can compute
//! theirs again.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    problem::{Params, limit},
};
use crate::{
    derive::{self, ChangesAsked},
    limits::CHANGES_PAGE_MAX,
    query,
};

const LIMIT_DEFAULT: usize = 1_000;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(changes))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ChangeParams {
    /// Changes behind this sequence; 0 unless given. `next` of the answer before goes on.
    #[serde(default)]
    after: u64,
    /// Of this rollup or reduction only.
    rollup: Option<String>,
    /// Name or key of a product.
    product: Option<String>,
    /// A device key.
    device: Option<String>,
    /// Only changes of history from here on: milliseconds since 1970, or ISO time with an offset.
    from: Option<String>,
    /// And before.
    to: Option<String>,
    /// Changes at most: 1 to 10000, 1000 unless given.
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<usize>,
    /// The last changes instead of the first; `next` goes on behind them.
    #[serde(default)]
    tail: bool,
}

/// A range of time in which a rollup or reduction is another than before.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = HistoryChange)]
struct Change {
    /// Grows with every change.
    sequence: u64,
    rollup: String,
    product_key: String,
    device_key: String,
    /// What it is made of; empty where it is no longer declared.
    points: Vec<String>,
    /// The begin of the first window, milliseconds since 1970.
    from: i64,
    /// The end of the last one, exclusive.
    to: i64,
    /// When it was computed.
    time: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HistoryChanges)]
struct Changes {
    items: Vec<Change>,
    /// Where to go on, as `after`: also when nothing came yet.
    next: u64,
}

/// Follow what was computed anew, in the order in which it was
#[utoipa::path(get, path = "/api/v1/changes", tag = "history", operation_id = "list_changes",
    params(ChangeParams),
    responses((status = 200, description = "Changes behind `after`; a crash may tell one again, under a new sequence", body = Changes), Refusals))]
async fn changes(
    State(api): State<Arc<Api>>,
    Params(params): Params<ChangeParams>,
) -> Result<Json<Changes>, Problem> {
    let limit = limit(params.limit, LIMIT_DEFAULT, CHANGES_PAGE_MAX)?;
    let product = params.product.as_deref();
    let product =
        product.map(|named| query::product_of(&api.registry.snapshot(), Some(named), None));
    let moment = |place: &str, text: &Option<String>| {
        let read = text.as_deref().map(query::moment).transpose();
        read.map_err(|error| Problem::bad_request(place, error.to_string()))
    };
    let asked = ChangesAsked {
        after: params.after,
        name: params.rollup,
        product: product.transpose()?.map(|product| product.key.to_string()),
        device: params.device,
        from_ms: moment("from", &params.from)?,
        to_ms: moment("to", &params.to)?,
        limit,
        tail: params.tail,
    };
    let derived = Arc::clone(&api.derived);
    let (found, (first, last)) = api
        .pool
        .run(move || -> Result<_, Problem> {
            // Asked before: what comes in between is on the next page.
            let extent = derived.extent()?;
            Ok((derived.changes(&asked)?, extent))
        })
        .await??;
    if params.after + 1 < first && params.after > 0 || params.after > last {
        let detail = format!(
            "changes behind {} are not kept: the first is {first}, the last {last}",
            params.after
        );
        return Err(Problem::new(StatusCode::GONE, "trimmed", detail)
            .at("after")
            .fix("compute everything again, and go on from the last"));
    }
    // Of the last ones none is left out behind.
    let is_full = found.len() >= limit && !params.tail;
    let next = match found.last() {
        Some(change) if is_full => change.sequence,
        Some(change) => change.sequence.max(last),
        None => last.max(params.after),
    };
    let series = api.derived.series();
    let points = |change: &derive::Change| {
        let mut series = series.iter();
        let found = series.find(|(_, series)| {
            series.name.as_str() == change.name && series.product.key.as_str() == change.product
        });
        let points = found.map(|(_, series)| series.points());
        let points = points.into_iter().flatten();
        points.map(|point| point.name.to_string()).collect()
    };
    let items = found.into_iter().map(|change| Change {
        points: points(&change),
        sequence: change.sequence,
        rollup: change.name,
        product_key: change.product,
        device_key: change.device,
        from: change.from_ms,
        to: change.to_ms,
        time: change.time_ms,
    });
    Ok(Json(Changes {
        items: items.collect(),
        next,
    }))
}
