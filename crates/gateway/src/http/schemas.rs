//! The JSON Schema of each kind: the contract of object files.

use std::sync::Arc;

use axum::{Json, extract::Path, http::header, response::IntoResponse};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem, Refusals};
use crate::registry::{Kind, schema};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// The JSON Schema of a kind
#[utoipa::path(get, path = "/api/v1/schemas/{kind}", tag = "objects",
    params(("kind" = String, Path, description = "model, product, device, channel or script")),
    responses((status = 200, description = "JSON Schema 2020-12", body = Object,
        content_type = "application/schema+json"), Refusals))]
async fn show(Path(word): Path<String>) -> Result<impl IntoResponse, Problem> {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| [kind.word(), kind.singular(), kind.plural()].contains(&word.as_str()))
        .ok_or_else(|| {
            let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.singular()).collect();
            Problem::not_found(format!("kind {word} is unknown"))
                .at("kind")
                .fix(format!("known are {}", known.join(", ")))
        })?;
    Ok((
        [(header::CONTENT_TYPE, "application/schema+json")],
        Json(schema(kind)),
    ))
}
