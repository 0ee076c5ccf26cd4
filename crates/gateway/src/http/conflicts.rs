//! `/api/v1/conflicts`: values that were overwritten by different ones.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use backtide_model::{DeviceKey, ElementName, NO_QUALITY};
use backtide_store::{Conflict, ConflictFilter, ConflictSide, Origin, ReadError, Sequence, Store};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    comparison::{stretch, whose},
    problem::{Params, limit},
};
use crate::{
    compared::{Stretch, Whose, differing},
    query::{self, product_of},
    registry::Snapshot,
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(conflicts))
}

/// How conflicts are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum By {
    /// Each changed value.
    #[default]
    Value,
    /// Rows with changed values, counted.
    Row,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct ConflictParams {
    /// Name or key of the product; all unless given.
    product: Option<String>,
    /// Only those of this device key.
    device: Option<String>,
    /// Only those of this point.
    points: Option<String>,
    /// ISO time or milliseconds since 1970, inclusive: the time of the value.
    from: Option<String>,
    /// Exclusive.
    to: Option<String>,
    /// Only those that this import brought: its value came later.
    import: Option<i64>,
    /// Only those of which the later value came by a message of this channel.
    channel: Option<String>,
    /// Likewise, of this client id.
    client: Option<String>,
    /// Likewise, of a message whose `id` begins with this: `backtide send` says its own.
    messages: Option<String>,
    /// Only those of which the later value was committed behind this sequence.
    after: Option<u64>,
    /// And up to this one.
    through: Option<u64>,
    #[serde(default)]
    #[param(inline)]
    by: By,
    /// Conflicts in a page: 1 to 10000, 100 unless given.
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Page<T> {
    items: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// How many there are on all pages.
    total: u64,
    /// Everything answered is classified; else more may be found within a minute of quiet.
    complete: bool,
}

/// A value that is another now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    product_key: String,
    device_key: String,
    point: String,
    time: i64,
    overwritten: Box<RawValue>,
    kept: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overwritten_quality: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_quality: Option<u8>,
    overwritten_receipt: String,
    kept_receipt: String,
    overwritten_sequence: u64,
    kept_sequence: u64,
    /// The channels that the two values came by.
    #[serde(skip_serializing_if = "Option::is_none")]
    overwritten_channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_channel: Option<String>,
}

/// A row with values that are others now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    product_key: String,
    device_key: String,
    time: i64,
    conflicts: u64,
    points: u64,
}

/// List values that were overwritten by different ones, in the order in which they were found
#[utoipa::path(get, path = "/api/v1/conflicts", tag = "history", operation_id = "list_conflicts",
    params(ConflictParams),
    responses((status = 200, description = "A page of conflicts: both values, both receipts", body = serde_json::Value), Refusals))]
async fn conflicts(
    State(api): State<Arc<Api>>,
    Params(params): Params<ConflictParams>,
) -> Result<Response, Problem> {
    let snapshot = api.registry.current();
    let mut filter = filter(&params, &snapshot)?;
    let store = api.store.clone();
    let later = later(&api, &params).await?;
    let narrow = move |store: &Store, filter: &mut ConflictFilter| -> Result<(), Problem> {
        if let Some((whose, stretch)) = later {
            filter.later = Some(differing(store, &whose, stretch)?);
        }
        Ok(())
    };
    Ok(match params.by {
        By::Value => {
            let page = move || {
                narrow(&store, &mut filter)?;
                changes(&store, &filter, &snapshot)
            };
            Json(api.pool.run(page).await??).into_response()
        }
        By::Row => {
            let page = move || {
                narrow(&store, &mut filter)?;
                rows(&store, &filter)
            };
            Json(api.pool.run(page).await??).into_response()
        }
    })
}

/// Whose messages brought the later values, where that is asked.
async fn later(api: &Api, params: &ConflictParams) -> Result<Option<(Whose, Stretch)>, Problem> {
    let ConflictParams {
        import,
        channel,
        client,
        messages,
        after,
        through,
        ..
    } = params;
    let whose = whose(channel.as_deref(), client.clone(), messages.clone())?;
    let is_bounded = after.is_some() || through.is_some();
    let Some(id) = *import else {
        let is_asked = is_bounded || whose != Whose::default();
        return Ok(is_asked.then(|| (whose, stretch(&api.store, after.unwrap_or(0), *through))));
    };
    if is_bounded || whose != Whose::default() {
        let detail = "an import is of one channel, one client and some commits already";
        return Err(Problem::bad_request("import", detail).fix("ask for the import alone"));
    }
    let imports = Arc::clone(&api.imports);
    let found = api.pool.run(move || imports.commits(id)).await??;
    let absent = || Problem::not_found(format!("there is no import {id} of points")).at("import");
    found.map(Some).ok_or_else(absent)
}

fn filter(params: &ConflictParams, snapshot: &Snapshot) -> Result<ConflictFilter, Problem> {
    let limit = limit(params.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let named = params.product.as_deref();
    let product = named
        .map(|name| product_of(snapshot, Some(name), None))
        .transpose()?;
    let device = params.device.as_deref().map(DeviceKey::new).transpose();
    let point = params.points.as_deref().map(ElementName::new).transpose();
    let moment = |place: &str, text: &Option<String>| {
        let read = text.as_deref().map(query::moment).transpose();
        read.map_err(|error| Problem::bad_request(place, error.to_string()))
    };
    Ok(ConflictFilter {
        product: product.map(|product| product.key.clone()),
        device: device.map_err(|error| Problem::bad_request("device", error.to_string()))?,
        point: point.map_err(|error| Problem::bad_request("points", error.to_string()))?,
        from_ms: moment("from", &params.from)?,
        to_ms: moment("to", &params.to)?,
        after: params.cursor,
        limit,
        ..ConflictFilter::default()
    })
}

/// Whether everything answered is looked through for conflicts. Asked before the listing: what is
/// said to be complete then is.
fn is_complete(store: &Store) -> Result<bool, ReadError> {
    let is_flushed = store.stats().memtable.commits == 0;
    Ok(is_flushed && store.segment_stats()?.unclassified_segments == 0)
}

fn changes(
    store: &Store,
    filter: &ConflictFilter,
    snapshot: &Snapshot,
) -> Result<Page<Change>, Problem> {
    let complete = is_complete(store)?;
    let page = store.conflicts(filter)?;
    let mut sequences: Vec<_> = page
        .conflicts
        .iter()
        .flat_map(|conflict| [conflict.loser.sequence, conflict.winner.sequence])
        .collect();
    sequences.sort_unstable();
    sequences.dedup();
    let origins = store.origins(&sequences)?;
    let origins = origins
        .into_iter()
        .map(|found| (found.sequence, found.origin))
        .collect();
    let change = |conflict| change(conflict, store, snapshot, &origins);
    Ok(Page {
        items: page.conflicts.iter().map(change).collect(),
        next: page.next.map(|next| next.to_string()),
        total: page.total,
        complete,
    })
}

fn change(
    conflict: &Conflict,
    store: &Store,
    snapshot: &Snapshot,
    origins: &HashMap<Sequence, Origin>,
) -> Change {
    let is_json = snapshot
        .product_by_key(&conflict.product)
        .is_none_or(|product| query::is_json(product, &conflict.point));
    let value = |side: &ConflictSide| {
        let mut text = Vec::new();
        query::write_cell(&mut text, &side.cell, is_json);
        // A text that is no JSON although the model says so now was stored under an older model.
        let text = String::from_utf8(text).unwrap_or_default();
        RawValue::from_string(text.clone()).unwrap_or_else(|_| {
            let quoted = serde_json::to_string(&text).expect("a text is JSON");
            RawValue::from_string(quoted).expect("a quoted text is JSON")
        })
    };
    let quality = |side: &ConflictSide| (side.quality != NO_QUALITY).then_some(side.quality);
    let channel = |side: &ConflictSide| {
        origins
            .get(&side.sequence)
            .map(|origin| origin.channel.to_string())
    };
    let Conflict { loser, winner, .. } = conflict;
    Change {
        product_key: conflict.product.to_string(),
        device_key: conflict.device.to_string(),
        point: conflict.point.to_string(),
        time: conflict.time_ms,
        overwritten: value(loser),
        kept: value(winner),
        overwritten_quality: quality(loser),
        kept_quality: quality(winner),
        overwritten_receipt: store.receipt(loser.sequence).to_string(),
        kept_receipt: store.receipt(winner.sequence).to_string(),
        overwritten_sequence: loser.sequence.0,
        kept_sequence: winner.sequence.0,
        overwritten_channel: channel(loser),
        kept_channel: channel(winner),
    }
}

fn rows(store: &Store, filter: &ConflictFilter) -> Result<Page<Row>, Problem> {
    let complete = is_complete(store)?;
    let page = store.conflict_rows(filter)?;
    let rows = page.rows.into_iter().map(|row| Row {
        product_key: row.product.to_string(),
        device_key: row.device.to_string(),
        time: row.time_ms,
        conflicts: row.conflicts,
        points: row.points,
    });
    Ok(Page {
        items: rows.collect(),
        next: page.next.map(|next| next.to_string()),
        total: page.total,
        complete,
    })
}
