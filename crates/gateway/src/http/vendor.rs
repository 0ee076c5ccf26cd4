//! The vendor-compatible API: scripts and SDKs written for EnOS work after changing the host
//! (`data-plane.md` §3, §5). Every operation on one page, [`OPERATIONS`]: what is served is what is
//! described at `/api/vendor-openapi.json`.
//!
//! A request passes the same stages whatever it asks: who is it, its body, may it, what is asked.
//! Answers of every operation are HTTP 200 with a code inside, as the vendor's clients read it; who
//! is not admitted gets 401, 403 or 429 with the same body.

mod answer;
mod call;
mod connect;
mod describe;
mod devices;
mod fold;
mod integration;
mod items;
mod lenient;
mod moments;
mod products;
mod search;
mod states;
mod thing_models;
mod tokens;
mod tsdb;
mod tsdb_policy;

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::Response,
    routing::{MethodRouter, any, get},
};
use serde::Serialize;
use utoipa::ToSchema;

pub use integration::{Integrate, Posted, Verdict};

use super::{
    Api, Problem, Refusals, guard,
    stream::{self, Outlet},
};
use crate::{
    author::{Author, Via},
    registry::Right,
    seats::Seat,
};
use answer::{Data, JSON, NO_STORE, Refusal, Style};
use call::{Call, Envelope};
use items::{Ended, Opening};

/// Reads of what is declared need either of these.
const READ: &[Right] = &[Right::Query, Right::Manage];
const QUERY: &[Right] = &[Right::Query];
const MANAGE: &[Right] = &[Right::Manage];
const INTEGRATE: &[Right] = &[Right::Integrate];

type Answering = Pin<Box<dyn Future<Output = Result<Data, Refusal>> + Send>>;

/// How an operation is worked.
#[derive(Clone, Copy)]
enum Work {
    /// Reads or changes on a thread that may block.
    Blocking(fn(&Api, &Call) -> Result<Data, Refusal>),
    /// Writes items as it reads them, on a thread that may block.
    Items(fn(&Api, &Call, Opening<'_>) -> Result<(), Ended>),
    /// Waits for others.
    Waiting(fn(Arc<Api>, Call) -> Answering),
}

/// Names of parameters, in the query or the body; `*` behind one that must be given.
type Params = &'static [&'static [&'static str]];

/// One operation of the API.
struct Operation {
    path: &'static str,
    /// The `action` parameter that tells it from others of its path; the first one also answers
    /// where none is given.
    action: Option<&'static str>,
    style: Style,
    /// Any of these is enough; none: it checks its caller itself.
    rights: &'static [Right],
    /// It alters something, and is taken once.
    changes: bool,
    summary: &'static str,
    params: Params,
    work: Work,
}

/// Which points of which assets.
const POINTS: &[&str] = &[
    "orgId",
    "modelId",
    "assetIds*",
    "pointIds*",
    "measurepoints",
];
const SPAN: &[&str] = &["startTime*", "endTime*"];
/// How items are written.
const ITEMS: &[&str] = &[
    "ifWithLocalTime",
    "localTimeAccuracy",
    "localTimeFormat",
    "itemFormat",
];
const RANGE: Params = &[POINTS, SPAN, &["pageSize", "orderBy", "withQuality"], ITEMS];
const CHANGES: Params = &[
    POINTS,
    SPAN,
    &["pageSize", "autoInterpolate", "withQuality"],
    ITEMS,
];
const FUNCTIONS: Params = &[
    &[
        "orgId",
        "modelId",
        "assetIds*",
        "pointIdsWithLogic*",
        "measurepointsWithLogic",
        "interval*",
        "pageSize",
    ],
    SPAN,
    ITEMS,
];
const LATEST: Params = &[POINTS, &["timeWindow"], ITEMS];
const FILTER: Params = &[
    &[
        "orgId",
        "modelId",
        "assetIds*",
        "pointId*",
        "measurepoint",
        "operator*",
        "valueFilter*",
        "timeWindow",
    ],
    ITEMS,
];
const DURATION: Params = &[POINTS, SPAN, &["status", "ifWithUnknown"]];
const DAY: Params = &[POINTS, ITEMS];
const DEVICE: Params = &[&["orgId", "assetId", "productKey", "deviceKey"]];
const SEARCH: Params = &[&["orgId", "expression", "projection", "pagination"]];

/// A time series operation, under both versions.
macro_rules! tsdb {
    ($path:literal, $summary:literal, $params:expr, $work:expr) => {
        [
            Operation {
                path: concat!("/tsdb-service/v2.1", $path),
                action: None,
                style: Style::Code,
                rights: QUERY,
                changes: false,
                summary: $summary,
                params: $params,
                work: Work::Items($work),
            },
            Operation {
                path: concat!("/tsdb-service/v2.0", $path),
                action: None,
                style: Style::Status,
                rights: QUERY,
                changes: false,
                summary: $summary,
                params: $params,
                work: Work::Items($work),
            },
        ]
    };
}

const TSDB: [[Operation; 2]; 12] = [
    tsdb!("/raw", "Read values of any type", RANGE, tsdb::raw),
    tsdb!(
        "/unified-raw",
        "Read values of any type, of points that a model declares and of others",
        RANGE,
        tsdb::raw
    ),
    tsdb!(
        "/unformatted",
        "Read values of points that no model declares",
        RANGE,
        tsdb::unformatted
    ),
    tsdb!("/ai", "Read values of analogue points", RANGE, tsdb::ai),
    tsdb!("/di", "Read changes of digital points", CHANGES, tsdb::di),
    tsdb!(
        "/di/duration",
        "Tell how long digital points had which state",
        DURATION,
        tsdb::di_duration
    ),
    tsdb!(
        "/generic",
        "Read values of generic points",
        RANGE,
        tsdb::generic
    ),
    tsdb!(
        "/ai-normalized",
        "Read minute values of analogue points, or functions over intervals of them",
        FUNCTIONS,
        tsdb::ai_normalized
    ),
    tsdb!(
        "/electric-power",
        "Read what counters counted, a minute or an interval at a time",
        FUNCTIONS,
        tsdb::electric_power
    ),
    tsdb!(
        "/electric-power/current-day",
        "Tell what counters counted since local midnight",
        DAY,
        tsdb::current_day
    ),
    tsdb!(
        "/latest",
        "Read the values with the greatest event time",
        LATEST,
        tsdb::latest
    ),
    tsdb!(
        "/latest/filter",
        "Read latest values that compare",
        FILTER,
        tsdb::latest_filter
    ),
];

/// An operation of the connection or the model service.
const fn service(
    path: &'static str,
    action: &'static str,
    rights: &'static [Right],
    changes: bool,
    summary: &'static str,
    params: Params,
    work: Work,
) -> Operation {
    Operation {
        path,
        action: Some(action),
        style: Style::Code,
        rights,
        changes,
        summary,
        params,
        work,
    }
}

const PRODUCTS: &str = "/connect-service/v2.1/products";
const DEVICES: &str = "/connect-service/v2.1/devices";
const INTEGRATION: &str = "/connect-service/v2.1/integration";
const THING_MODELS: &str = "/model-service/v2.1/thing-models";

/// Storage policies, under both versions.
macro_rules! tsdb_policy {
    ($version:literal, $style:expr) => {
        [
            Operation {
                path: concat!("/tsdb-policy/", $version, "/policies"),
                action: None,
                style: $style,
                rights: READ,
                changes: false,
                summary: "Tell how points are stored",
                params: &[&["orgId", "modelIds*", "measurepoints*"]],
                work: Work::Blocking(tsdb_policy::of_points),
            },
            Operation {
                path: concat!("/tsdb-policy/", $version, "/policies/{policyId}"),
                action: Some("get"),
                style: $style,
                rights: READ,
                changes: false,
                summary: "Show a storage policy",
                params: &[&["orgId"]],
                work: Work::Blocking(tsdb_policy::get),
            },
            Operation {
                path: concat!("/tsdb-policy/", $version, "/policies/{policyId}"),
                action: Some("save"),
                style: $style,
                rights: MANAGE,
                changes: true,
                summary: "Save which points a storage policy is about; what a POST does",
                params: &[&["orgId", "retention", "models*"]],
                work: Work::Blocking(tsdb_policy::save),
            },
        ]
    };
}

const POLICIES: [[Operation; 3]; 2] = [
    tsdb_policy!("v2.1", Style::Code),
    tsdb_policy!("v2.0", Style::Status),
];

const SERVICES: [Operation; 22] = [
    service(
        PRODUCTS,
        "get",
        READ,
        false,
        "Show a product",
        &[&["orgId", "productKey*"]],
        Work::Blocking(products::get),
    ),
    service(
        PRODUCTS,
        "create",
        MANAGE,
        true,
        "Declare a product",
        &[&[
            "orgId",
            "productName",
            "modelId*",
            "dataFormat",
            "productType",
            "productDesc",
            "biDirectionalAuth",
        ]],
        Work::Blocking(products::create),
    ),
    service(
        PRODUCTS,
        "search",
        READ,
        false,
        "Find products",
        SEARCH,
        Work::Blocking(products::search),
    ),
    service(
        PRODUCTS,
        "update",
        MANAGE,
        true,
        "Change a product",
        &[&[
            "orgId",
            "productKey*",
            "isPatchUpdate",
            "productName",
            "productDesc",
        ]],
        Work::Blocking(products::update),
    ),
    service(
        PRODUCTS,
        "delete",
        MANAGE,
        true,
        "Delete a product that nothing uses",
        &[&["orgId", "productKey*"]],
        Work::Blocking(products::delete),
    ),
    service(
        DEVICES,
        "get",
        READ,
        false,
        "Show a device",
        DEVICE,
        Work::Blocking(devices::get),
    ),
    service(
        DEVICES,
        "create",
        MANAGE,
        true,
        "Declare a device",
        &[&[
            "orgId",
            "productKey*",
            "timezone*",
            "deviceName",
            "deviceKey",
            "deviceAttributes",
            "deviceDesc",
            "deviceTags",
        ]],
        Work::Blocking(devices::create),
    ),
    service(
        DEVICES,
        "batchCreate",
        MANAGE,
        true,
        "Declare many devices",
        &[&["orgId", "deviceList*"]],
        Work::Blocking(devices::batch_create),
    ),
    service(
        DEVICES,
        "search",
        READ,
        false,
        "Find devices",
        SEARCH,
        Work::Blocking(devices::search),
    ),
    service(
        DEVICES,
        "update",
        MANAGE,
        true,
        "Change a device",
        &[&[
            "orgId",
            "assetId",
            "productKey",
            "deviceKey",
            "isPatchUpdate",
            "timezone",
            "deviceAttributes",
        ]],
        Work::Blocking(devices::update),
    ),
    service(
        DEVICES,
        "delete",
        MANAGE,
        true,
        "Delete a device; its history stays",
        DEVICE,
        Work::Blocking(devices::delete),
    ),
    service(
        "/connect-service/v2.1/measurepoints",
        "queryLatest",
        QUERY,
        false,
        "Read the latest values of one device",
        &[&[
            "orgId",
            "assetId",
            "productKey",
            "deviceKey",
            "measurepointIds*",
        ]],
        Work::Blocking(connect::query_latest),
    ),
    service(
        INTEGRATION,
        "postMeasurepoint",
        INTEGRATE,
        false,
        "Post points: stored when it answers",
        &[&["orgId", "enos-message*"]],
        Work::Waiting(integration::points),
    ),
    service(
        INTEGRATION,
        "postEvent",
        INTEGRATE,
        false,
        "Post events",
        &[&["orgId", "enos-message*"]],
        Work::Waiting(integration::events),
    ),
    service(
        INTEGRATION,
        "postAttribute",
        INTEGRATE,
        false,
        "Post attributes",
        &[&["orgId", "enos-message*"]],
        Work::Waiting(integration::attributes),
    ),
    service(
        THING_MODELS,
        "get",
        READ,
        false,
        "Show a model",
        &[&["orgId", "modelId*", "scope"]],
        Work::Blocking(thing_models::get),
    ),
    service(
        THING_MODELS,
        "search",
        READ,
        false,
        "Find models",
        SEARCH,
        Work::Blocking(thing_models::search),
    ),
    service(
        THING_MODELS,
        "create",
        MANAGE,
        true,
        "Declare a model, in either shape of the vendor's JSON",
        &[&[
            "orgId",
            "modelId",
            "name",
            "desc",
            "attributes",
            "measurepoints",
            "events",
        ]],
        Work::Blocking(thing_models::create),
    ),
    Operation {
        path: "/apim-token-service/v2.0/token/get",
        action: None,
        style: Style::Token,
        rights: &[],
        changes: false,
        summary: "Get a token: the same one until it expires",
        params: &[&["appKey*", "encryption*", "timestamp*"]],
        work: Work::Blocking(tokens::get),
    },
    Operation {
        path: "/apim-token-service/v2.0/token/refresh",
        action: None,
        style: Style::Token,
        rights: &[],
        changes: false,
        summary: "Get a new token for one that has not expired",
        params: &[&["appKey*", "encryption*", "timestamp*", "accessToken*"]],
        work: Work::Blocking(tokens::refresh),
    },
    Operation {
        path: "/enosapi/connectService/products",
        action: None,
        style: Style::Status,
        rights: READ,
        changes: false,
        summary: "List products (2018 API)",
        params: &[&["orgId", "pageNo", "pageSize"]],
        work: Work::Blocking(products::list),
    },
    Operation {
        path: "/enosapi/connectService/products/{productKey}/devices/measurepoints",
        action: None,
        style: Style::Status,
        rights: INTEGRATE,
        changes: false,
        summary: "Post points of devices of one product (2018 API)",
        params: &[&["orgId", "data*"]],
        work: Work::Waiting(integration::legacy_points),
    },
];

fn operations() -> impl Iterator<Item = &'static Operation> {
    let tsdb = const { &TSDB }.iter().flatten();
    let policies = const { &POLICIES }.iter().flatten();
    tsdb.chain(policies).chain(const { &SERVICES })
}

/// Every path with its operations, and the description.
pub(super) fn routes() -> Router<Arc<Api>> {
    let mut paths: BTreeMap<&'static str, Vec<&'static Operation>> = BTreeMap::new();
    for operation in operations() {
        paths.entry(operation.path).or_default().push(operation);
    }
    let mut router = Router::new();
    for (path, operations) in paths {
        router = router.route(path, served(operations.into()));
    }
    let description = description();
    router.route(
        "/api/vendor-openapi.json",
        get(async move || Json(description)),
    )
}

/// The description of this API, complete.
pub(super) fn description() -> serde_json::Value {
    describe::document(operations())
}

fn served(operations: Arc<[&'static Operation]>) -> MethodRouter<Arc<Api>> {
    any(move |State(api): State<Arc<Api>>, request: Request| {
        let operations = Arc::clone(&operations);
        async move { serve(api, &operations, request).await }
    })
}

async fn serve(api: Arc<Api>, operations: &[&'static Operation], request: Request) -> Response {
    let request_id = crate::secrets::guid();
    let answered = answered(api, operations, request, &request_id).await;
    answered.unwrap_or_else(|refusal| {
        tracing::debug!(request_id, code = refusal.code, "a vendor call is refused");
        operations[0].style.response(&request_id, Err(refusal))
    })
}

async fn answered(
    api: Arc<Api>,
    operations: &[&'static Operation],
    request: Request,
    request_id: &str,
) -> Result<Response, Refusal> {
    let address = guard::address(&request);
    let envelope = Envelope::open(request).await?;
    let operation = envelope.choose(operations)?;
    let call = envelope.admit(&api, operation, address).await?;
    metrics::counter!("backtide_vendor_calls_total", "path" => operation.path).increment(1);
    let name = call.key.as_ref().map_or("", |key| key.name.as_str());
    let author = Author::new(name, Via::AccessKey, address);
    let data = match operation.work {
        Work::Items(work) => return items(api, call, work, request_id).await,
        Work::Blocking(work) => {
            // Long reads: beside the own API's threads, so that neither starves the other.
            let pool = if operation.changes {
                &api.pool
            } else {
                &api.streams
            };
            let pool = pool.clone();
            author.asks(pool.run(move || work(&api, &call))).await??
        }
        Work::Waiting(work) => author.asks(work(api, call)).await?,
    };
    Ok(operation.style.response(request_id, Ok(data)))
}

/// Answers with items that leave as they are read.
async fn items(
    api: Arc<Api>,
    call: Call,
    work: fn(&Api, &Call, Opening<'_>) -> Result<(), Ended>,
    request_id: &str,
) -> Result<Response, Refusal> {
    let pool = api.streams.clone();
    let head = call.style.head(0, "OK", "", request_id, "");
    let write = move |outlet: &Outlet<Refusal>| {
        let opening = Opening {
            outlet,
            head,
            seat: &|| seat(&api, &call),
        };
        work(&api, &call, opening)
    };
    let mut response = stream::answer(&pool, JSON, "vendor", write).await?;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    Ok(response)
}

/// The right of an access key to one more answer that its client can hold up.
fn seat(api: &Api, call: &Call) -> Result<Seat, Refusal> {
    let name = call.key.as_ref().map_or("", |key| key.name.as_str());
    // No user has a name like this.
    api.reads.take(&format!("access-key:{name}")).map_err(|own| {
        Refusal::busy(format!(
            "access key {name} has {own} long answers under way; wait for one to end, or ask for less at a time"
        ))
        .with_status(StatusCode::TOO_MANY_REQUESTS)
    })
}

/// The gateway's own RSA key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PublicKey {
    /// Base64 of the public key's DER, to be assigned to `poseidon.poseidon.pubkey` as bytes.
    public_key: String,
}

/// Show the public key that users of enos-poseidon assign
#[utoipa::path(get, path = "/api/v1/vendor/public-key", tag = "access keys", operation_id = "vendor_public_key",
    responses((status = 200, description = "The key; it is made when it is first asked for", body = PublicKey), Refusals))]
pub(super) async fn public_key(State(api): State<Arc<Api>>) -> Result<Json<PublicKey>, Problem> {
    let applications = Arc::clone(&api.applications);
    let public_key = api.pool.run(move || applications.public_key()).await?;
    let public_key = public_key.map_err(|error| {
        tracing::error!(%error, "the gateway's RSA key cannot be used");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "own-key",
            "the gateway's RSA key cannot be used",
        )
        .fix("look at the gateway's log")
    })?;
    Ok(Json(PublicKey { public_key }))
}

#[cfg(test)]
mod streaming_tests;
#[cfg(test)]
mod tests;
