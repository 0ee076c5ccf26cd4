//! The JSON Schema of each kind: the contract of object files.

use std::sync::Arc;

use axum::{Json, extract::Path, http::header, response::IntoResponse};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, Problem, Refusals};
use crate::{
    derive, message,
    registry::{Kind, schema},
};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// The JSON Schema of a kind, of the message that rules and subscriptions publish, or of a change that the change feed does
#[utoipa::path(get, path = "/api/v1/schemas/{kind}", tag = "objects",
    params(("kind" = String, Path, description = "A kind such as model or rule, message, or change")),
    responses((status = 200, description = "JSON Schema 2020-12", body = Object,
        content_type = "application/schema+json"), Refusals))]
async fn show(Path(word): Path<String>) -> Result<impl IntoResponse, Problem> {
    let content_type = [(header::CONTENT_TYPE, "application/schema+json")];
    if word == "message" {
        let schema = serde_json::from_str(message::SCHEMA).expect("the schema is JSON");
        return Ok((content_type, Json(schema)));
    }
    if word == "change" {
        let schema = serde_json::from_str(derive::SCHEMA).expect("the schema is JSON");
        return Ok((content_type, Json(schema)));
    }
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| [kind.word(), kind.singular(), kind.plural()].contains(&word.as_str()))
        .ok_or_else(|| {
            let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.singular()).collect();
            Problem::not_found(format!("kind {word} is unknown"))
                .at("kind")
                .fix(format!("known are {}, message, change", known.join(", ")))
        })?;
    Ok((content_type, Json(schema(kind))))
}
