//! The API description (OpenAPI 3.1): what the handlers say, and the schemas of the kinds.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{guard, problem::Details};
use crate::registry::{Kind, object_schemas};

/// What the whole API has in common.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Backtide",
        description = "A self-hosted gateway for historical device data. Every refusal is problem+json."
    ),
    components(schemas(Details)),
    security(("bearer" = []), ("session" = [])),
    modifiers(&Ways)
)]
pub(super) struct Description;

/// How a caller shows who they are.
struct Ways;

impl Modify for Ways {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "The text of admin.token in the data directory, or an API token",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
        let cookie = ApiKeyValue::with_description(
            guard::COOKIE,
            "What signing in sets. Every change shows csrf of /api/v1/access/me as X-CSRF-Token too",
        );
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// Adds the schemas of the kinds, which their own types know better than the handlers.
pub(super) fn complete(document: &Document) -> Value {
    let mut document = serde_json::to_value(document).expect("a description is JSON");
    let mut schemas = object_schemas();
    for kind in Kind::ALL {
        let item = format!("#/components/schemas/{}", kind.word());
        schemas.insert(format!("{}Page", kind.word()), page_of(&item));
    }
    document["components"]["schemas"]
        .as_object_mut()
        .expect("Problem is among the schemas")
        .append(&mut schemas);
    document
}

fn page_of(item: &str) -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": { "type": "array", "items": { "$ref": item } },
            "next": {
                "type": "string",
                "description": "The cursor of the page after this; absent on the last"
            }
        }
    })
}

pub(super) fn serve(document: &Value) -> Response {
    Json(document).into_response()
}
