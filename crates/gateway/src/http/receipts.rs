//! `/api/v1/receipts/{receipt}`: which message a receipt was given for.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use backtide_store::{Origin, Sequence, Store};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem, Refusals};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(receipt))
}

/// A message that was answered.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Message {
    receipt: String,
    sequence: u64,
    channel: String,
    client_id: String,
    topic: String,
    /// The `id` of the request, as JSON text.
    message_id: String,
    /// When it arrived, milliseconds since 1970.
    time: i64,
}

/// Show which message a receipt was given for
#[utoipa::path(get, path = "/api/v1/receipts/{receipt}", tag = "history", operation_id = "show_receipt",
    params(("receipt" = String, Path, description = "As a reply, the channel log or a conflict names it")),
    responses((status = 200, description = "The message", body = Message), Refusals))]
async fn receipt(
    State(api): State<Arc<Api>>,
    Path(receipt): Path<String>,
) -> Result<Json<Message>, Problem> {
    let absent = || {
        Problem::not_found(format!(
            "{receipt} is no receipt of this gateway, or an old one"
        ))
    };
    let sequence = api.store.find_receipt(&receipt).ok_or_else(absent)?;
    let store = api.store.clone();
    let origin = api
        .pool
        .run(move || origin(&store, sequence))
        .await??
        .ok_or_else(absent)?;
    Ok(Json(Message {
        receipt,
        sequence: sequence.0,
        channel: origin.channel.to_string(),
        client_id: origin.client.to_string(),
        topic: origin.topic.to_string(),
        message_id: origin.message_id.into(),
        time: origin.arrived_ms,
    }))
}

fn origin(store: &Store, sequence: Sequence) -> Result<Option<Origin>, Problem> {
    let found = store.origins(&[sequence])?.pop();
    Ok(found.map(|found| found.origin))
}
