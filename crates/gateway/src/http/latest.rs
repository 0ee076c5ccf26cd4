//! `/api/v1/latest`: the value of each point with the greatest event time.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use backtide_model::{DeviceKey, NO_QUALITY};
use backtide_store::{Latest, Store};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    problem::{Params, limit},
    tables::{self, Answer, Format},
};
use crate::{
    access::Caller,
    query::{self, Asked, Cursor, Long, OutColumn, Question},
    registry::Product,
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(latest))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct LatestParams {
    /// Name or key of the product; may be left out where the device is unambiguous.
    product: Option<String>,
    /// Device keys, separated by commas; all unless given.
    #[serde(default)]
    device: String,
    /// Points, separated by commas; all that the model declares unless given.
    #[serde(default)]
    points: String,
    #[serde(default)]
    #[param(inline)]
    format: Format,
    /// Of JSON: devices in a page: 1 to 1000, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

#[derive(Debug, Serialize)]
struct Page {
    items: Vec<OfDevice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfDevice {
    device_key: String,
    points: BTreeMap<String, Value>,
}

#[derive(Debug, Serialize)]
struct Value {
    time: i64,
    value: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<u8>,
}

/// Show the latest values by event time; history that arrives late never moves them back
#[utoipa::path(get, path = "/api/v1/latest", tag = "history",
    params(LatestParams),
    responses(
        (status = 200, description = "JSON: a page of devices, each with its points. Else a row for each point: deviceKey, time, point, value, quality",
            content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        Refusals))]
async fn latest(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<LatestParams>,
) -> Result<Response, Problem> {
    let limit = limit(params.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let asked = Asked {
        product: params.product.as_deref(),
        devices: &params.device,
        names: &params.points,
        ..Asked::default()
    };
    let question = Question::new(&asked, &api.registry.snapshot())?;
    if params.format != Format::Json {
        return rows(&api, &caller, params.format, question).await;
    }
    let (devices, next) = page_of_devices(&question, params.cursor.as_deref(), limit);
    let store = api.store.clone();
    let items = api.pool.run(move || {
        // An empty list would ask for every device.
        if devices.is_empty() {
            return Vec::new();
        }
        by_device(of(&store, &question, &devices), &question.product)
    });
    let page = Page {
        items: items.await?,
        next,
    };
    Ok(Json(page).into_response())
}

fn of(store: &Store, question: &Question, devices: &[DeviceKey]) -> Vec<Latest> {
    let points: Vec<_> = question
        .points
        .iter()
        .map(|point| point.name.clone())
        .collect();
    store.latest(&question.product.key, devices, &points)
}

/// A row for each point, of all devices that are asked for.
async fn rows(
    api: &Api,
    caller: &Caller,
    format: Format,
    question: Question,
) -> Result<Response, Problem> {
    let long = Long::of_points(&OutColumn::of(&question.points), true);
    let answer = Answer {
        format,
        columns: long.columns(),
        with_quality: false,
        limit: None,
        long: None,
        is_short: false,
        cursor: Cursor::encode,
    };
    let (store, seat) = (api.store.clone(), tables::seat(api, caller)?);
    answer
        .send(api, seat, move |taker| {
            let mut after: Option<String> = None;
            loop {
                taker.check()?;
                let (devices, next) = page_of_devices(&question, after.as_deref(), LIMIT_MAX);
                // An empty list would ask for every device.
                if !devices.is_empty() {
                    let mut found = of(&store, &question, &devices);
                    found.sort_by(|a, b| (&a.device, &a.point).cmp(&(&b.device, &b.point)));
                    taker.take(&long.of_latest(&found).map_err(Problem::from)?)?;
                }
                match next {
                    None => return Ok(()),
                    next => after = next,
                }
            }
        })
        .await
}

/// The devices of this page, and where the next one begins.
fn page_of_devices(
    question: &Question,
    after: Option<&str>,
    limit: usize,
) -> (Vec<DeviceKey>, Option<String>) {
    if !question.devices.is_empty() {
        return (question.devices.clone(), None);
    }
    let page: Vec<_> = question
        .product
        .devices
        .after(after)
        .take(limit + 1)
        .collect();
    let has_next = page.len() > limit;
    let page = page.get(..limit).unwrap_or(&page);
    let next = page
        .last()
        .filter(|_| has_next)
        .map(|device| device.name.to_string());
    (page.iter().map(|device| device.key.clone()).collect(), next)
}

fn by_device(latest: Vec<Latest>, product: &Product) -> Vec<OfDevice> {
    let mut devices: BTreeMap<DeviceKey, BTreeMap<String, Value>> = BTreeMap::new();
    for found in latest {
        let mut text = Vec::new();
        query::write_cell(
            &mut text,
            &found.cell,
            query::is_json(product, &found.point),
        );
        let text = String::from_utf8(text).unwrap_or_default();
        let Ok(value) = RawValue::from_string(text) else {
            tracing::error!(device = %found.device, point = %found.point, "a value is no JSON");
            continue;
        };
        let quality = (found.quality != NO_QUALITY).then_some(found.quality);
        let points = devices.entry(found.device).or_default();
        points.insert(
            found.point.to_string(),
            Value {
                time: found.time_ms,
                value,
                quality,
            },
        );
    }
    let of_device = |(key, points): (DeviceKey, _)| OfDevice {
        device_key: key.to_string(),
        points,
    };
    devices.into_iter().map(of_device).collect()
}
