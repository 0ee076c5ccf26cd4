//! `/api/v1/events`: what happened, by product, device, event and time.

use std::sync::Arc;

use axum::{Extension, extract::State, response::Response};
use backtide_store::EventRange;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem, Refusals, lines, problem::Params, tables::Format};
use crate::{
    access::Caller,
    query::{Asked, events_asked},
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(events))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct EventParams {
    /// Name or key of the product; may be left out where the device is unambiguous.
    product: Option<String>,
    /// Device keys, separated by commas; all unless given.
    #[serde(default)]
    device: String,
    /// Events, separated by commas; all unless given.
    #[serde(default)]
    event: String,
    /// Milliseconds since 1970, ISO time, or local time in `timezone`; inclusive.
    from: Option<String>,
    /// Exclusive.
    to: Option<String>,
    /// Where times without an offset are local, such as Europe/Paris.
    timezone: Option<String>,
    /// Events at most. JSON: 1 to 10000, 1000 unless given. Streams: all unless given.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// Read events, in the order of time
#[utoipa::path(get, path = "/api/v1/events", tag = "history",
    params(EventParams),
    responses(
        (status = 200, description = "Each event once: deviceKey, time in milliseconds, event, output, and the channel, the arrival and the receipt it came with",
            content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        Refusals))]
async fn events(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<EventParams>,
) -> Result<Response, Problem> {
    let asked = Asked {
        product: params.product.as_deref(),
        devices: &params.device,
        names: &params.event,
        from: params.from.as_deref(),
        to: params.to.as_deref(),
        timezone: params.timezone.as_deref(),
        cursor: params.cursor.as_deref(),
    };
    let range = events_asked(&asked, &api.registry.snapshot())?;
    lines::answer(
        &api,
        &caller,
        params.format,
        params.limit,
        move |store, rows_max| store.events(&EventRange { rows_max, ..range }),
    )
    .await
}
