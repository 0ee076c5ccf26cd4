//! Whether the gateway lives, whether it takes messages, what it counts.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Api;

/// Whether the gateway takes messages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct Readiness {
    pub ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// What somebody should look after, although messages are taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Readiness {
    /// Ready where there is no reason against it.
    pub fn unless(reasons: Vec<String>) -> Self {
        Self {
            ready: reasons.is_empty(),
            reasons,
            warnings: Vec::new(),
        }
    }

    #[must_use]
    pub fn with(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }
}

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(alive))
        .routes(routes!(ready))
        .routes(routes!(metrics))
}

/// Whether the gateway runs
#[utoipa::path(get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "It runs", body = String)))]
async fn alive() -> &'static str {
    "ok\n"
}

/// Whether the gateway takes messages
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, description = "It takes messages", body = Readiness),
    (status = 503, description = "It refuses, and why", body = Readiness)))]
async fn ready(State(api): State<Arc<Api>>) -> Response {
    let readiness = (api.readiness)();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness)).into_response()
}

/// What the gateway counts, for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "health", security(()),
    responses((status = 200, description = "Prometheus text", body = String)))]
async fn metrics(State(api): State<Arc<Api>>) -> Response {
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        (api.metrics)(),
    )
        .into_response()
}
