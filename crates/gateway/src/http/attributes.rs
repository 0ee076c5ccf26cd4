//! `/api/v1/attributes`: the values that attributes of devices have and had.

use std::sync::Arc;

use axum::{Extension, extract::State, response::Response};
use backtide_store::AttributeRange;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem, Refusals, lines, problem::Params, tables::Format};
use crate::{
    access::Caller,
    query::{Asked, attributes_asked},
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(attributes))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct AttributeParams {
    /// Name or key of the product; may be left out where the device is unambiguous.
    product: Option<String>,
    /// Device keys, separated by commas; all unless given.
    #[serde(default)]
    device: String,
    /// Attributes, separated by commas; all unless given.
    #[serde(default)]
    attribute: String,
    /// The earlier values too, oldest first.
    #[serde(default)]
    history: bool,
    /// Values at most. JSON: 1 to 10000, 1000 unless given. Streams: all unless given.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// Read attribute values as they were reported, by device and attribute
#[utoipa::path(get, path = "/api/v1/attributes", tag = "history",
    params(AttributeParams),
    responses(
        (status = 200, description = "deviceKey, attribute, value, and the channel, the arrival and the receipt it came with; confirmed is when the same value arrived last",
            content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        Refusals))]
async fn attributes(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<AttributeParams>,
) -> Result<Response, Problem> {
    let asked = Asked {
        product: params.product.as_deref(),
        devices: &params.device,
        names: &params.attribute,
        cursor: params.cursor.as_deref(),
        ..Asked::default()
    };
    let range = attributes_asked(&asked, params.history, &api.registry.snapshot())?;
    lines::answer(
        &api,
        &caller,
        params.format,
        params.limit,
        move |store, rows_max| store.attributes(&AttributeRange { rows_max, ..range }),
    )
    .await
}
