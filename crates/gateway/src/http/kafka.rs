//! `/api/v1/kafka/check`: what is wrong with the Kafka cluster that is configured.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem, Refusals, problem::Params};
use crate::kafka::check::Report;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(check))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CheckParams {
    /// Topics to look at, separated by commas, beside those that rules and the change feed publish to by default
    topics: Option<String>,
}

/// Check the Kafka cluster that is configured: address, certificate, credential, topics
#[utoipa::path(get, path = "/api/v1/kafka/check", tag = "kafka", params(CheckParams),
    responses((status = 200, description = "What was found", body = Report), Refusals))]
async fn check(
    State(api): State<Arc<Api>>,
    Params(params): Params<CheckParams>,
) -> Result<Json<Report>, Problem> {
    let Some(cluster) = api.kafka.clone() else {
        return Err(
            Problem::new(StatusCode::NOT_FOUND, "no-kafka", "no Kafka is configured")
                .fix("set kafka.bootstrap_servers in the configuration, then start again"),
        );
    };
    let mut topics = cluster.default_topics();
    let named = params.topics.iter().flat_map(|topics| topics.split(','));
    topics.extend(named.map(|topic| topic.trim().to_owned()));
    // It may take half a minute: on the pool for long answers.
    Ok(Json(api.streams.run(move || cluster.check(&topics)).await?))
}
