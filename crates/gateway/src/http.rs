//! The HTTP door: every route on this page.
//!
//! Handlers read snapshots on the spot and hand everything that blocks to the pool. What goes wrong
//! leaves as problem+json, through [`problem::Problem`] alone. Under `/api/v1` nothing answers
//! but to whom [`guard`] lets pass.

#![expect(
    unused_qualifications,
    reason = "what utoipa's attributes expand to has them"
)]

mod access;
mod access_keys;
mod aggregates;
mod apply;
mod archives;
mod attributes;
mod changes;
mod channels;
mod comparison;
mod conflicts;
mod console;
mod devices;
mod events;
mod extremes;
mod folds;
mod guard;
mod health;
mod imports;
mod kafka;
mod latest;
mod lineage;
mod lines;
mod listener;
mod live;
mod log;
mod models;
mod objects;
mod openapi;
mod points;
mod policies;
mod problem;
mod products;
mod quarantine;
mod receipts;
mod reduced;
mod rollups;
mod rules;
mod schemas;
mod scripts;
mod sql;
mod store;
mod stream;
mod subscriptions;
mod tables;
mod trace;
mod vendor;
mod websocket;

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, middleware, routing::get};
use backtide_model::ObjectName;
use backtide_store::Store;
use tokio::{net::TcpListener, time::Duration};
use tokio_util::sync::CancellationToken;
use tower_http::timeout::RequestBodyTimeoutLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

pub use health::Readiness;
pub use live::{Live, beat};
pub use problem::{Problem, Refusals};
pub use vendor::{Integrate, Posted, Verdict};
pub use websocket::{Attend, Stream};

pub use crate::seats::Seats;
use crate::{
    access::Access, application::Applications, archive::Archives, channel_log::Log, clock::Clock,
    derive::Derived, growth::Growth, imports::Imports, kafka::Cluster, limits, pool::Pool,
    quarantine::Quarantine, recorder::Recorder, redrive::Redriver, registry::Registry,
    rules::Rules, script::Scripts, subscription::Subscriptions,
};

/// Bytes of a request's body: a file of 100 000 devices is 10 MB.
const BODY_BYTES_MAX: usize = 64 << 20;

/// What the handlers work with.
pub struct Api {
    pub registry: Arc<Registry>,
    pub store: Store,
    pub quarantine: Arc<Quarantine>,
    pub redriver: Arc<Redriver>,
    pub recorder: Arc<Recorder>,
    pub log: Arc<Log>,
    pub scripts: Arc<Scripts>,
    pub subscriptions: Arc<Subscriptions>,
    /// The Kafka cluster, if one is configured.
    pub kafka: Option<Cluster>,
    pub rules: Arc<Rules>,
    /// Rollups, reductions and the change feed.
    pub derived: Arc<Derived>,
    #[cfg(feature = "sql")]
    pub sql: Arc<crate::sql::Engine>,
    /// Runs what blocks: writes of the registry, reads of the store.
    pub pool: Pool,
    /// Makes answers of any length; a slow client keeps a thread of it.
    pub streams: Pool,
    /// Reads of history that are under way.
    pub reads: Seats,
    /// Cancelled to close the door: answers without an end then end.
    pub closing: CancellationToken,
    pub clock: Clock,
    pub access: Arc<Access>,
    /// Who calls the vendor-compatible API.
    pub applications: Arc<Applications>,
    /// What answers of the vendor-compatible API name.
    pub organization: ObjectName,
    /// Takes what is posted over HTTP into the house.
    pub integrate: Integrate,
    pub imports: Arc<Imports>,
    pub archives: Arc<Archives>,
    /// What browsers are told as it happens.
    pub live: Live,
    /// How fast the data directory grows.
    pub growth: Arc<Growth>,
    /// Where devices connect, such as `tcp://127.0.0.1:11883`.
    pub broker_url: String,
    /// The same over TLS, such as `ssl://127.0.0.1:18883`, if that door is open.
    pub broker_tls_url: Option<String>,
    /// Of the door where clients read subscriptions.
    pub subscribe_port: u16,
    /// Serves MQTT over a WebSocket.
    pub mqtt: Attend,
    /// The metrics as Prometheus text.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether the gateway can take messages, and if not, why.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
}

/// Every route, with what the API description says of it.
fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(openapi::Description::openapi())
        .merge(access::routes())
        .merge(live::routes())
        .merge(apply::routes())
        .merge(models::routes())
        .merge(products::routes())
        .merge(devices::routes())
        .merge(channels::routes())
        .merge(log::routes())
        .merge(trace::routes())
        .merge(points::routes())
        .merge(aggregates::routes())
        .merge(extremes::routes())
        .merge(rollups::routes())
        .merge(reduced::routes())
        .merge(changes::routes())
        .merge(sql::routes())
        .merge(lineage::routes())
        .merge(latest::routes())
        .merge(events::routes())
        .merge(attributes::routes())
        .merge(conflicts::routes())
        .merge(comparison::routes())
        .merge(receipts::routes())
        .merge(imports::routes())
        .merge(quarantine::routes())
        .merge(store::routes())
        .merge(schemas::routes())
        .merge(scripts::routes())
        .merge(access_keys::routes())
        .routes(utoipa_axum::routes!(vendor::public_key))
        .merge(subscriptions::routes())
        .merge(policies::routes())
        .merge(kafka::routes())
        .merge(rules::routes())
        .merge(archives::routes())
        .merge(health::routes())
}

/// The whole door as a service.
pub fn router(api: Arc<Api>) -> Router {
    let (router, description) = routes().split_for_parts();
    let description = openapi::complete(&description);
    router
        .route(
            "/api/openapi.json",
            get(async move || openapi::serve(&description)),
        )
        .merge(vendor::routes())
        .route("/mqtt", get(websocket::upgrade))
        .fallback(console::serve)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(RequestBodyTimeoutLayer::new(Duration::from_secs(
            limits::Http::default().body_s,
        )))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&api),
            guard::guard,
        ))
        .with_state(api)
}

/// The API description, complete.
pub fn description() -> serde_json::Value {
    let (_, description) = routes().split_for_parts();
    openapi::complete(&description)
}

/// Serves until `api.closing` is cancelled, then finishes the requests that are under way.
pub async fn serve(listener: TcpListener, api: Arc<Api>) {
    let closing = api.closing.clone();
    listener::serve(listener, router(api), limits::Http::default(), closing).await;
}

#[cfg(test)]
mod aggregates_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod imports_tests;
#[cfg(test)]
mod samples_tests;
#[cfg(test)]
pub(crate) mod tests;
