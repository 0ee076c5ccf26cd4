//! `/api/v1/models`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, Problem, Refusals,
    objects::{self, ListParams, Page},
    problem::Params,
};
use crate::registry::Kind;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, delete))
}

/// List models
#[utoipa::path(get, path = "/api/v1/models", tag = "objects", operation_id = "list_models",
    params(ListParams),
    responses((status = 200, description = "A page of models", body = ref("#/components/schemas/ModelPage")), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page>, Problem> {
    let after = params.after_name(Kind::Model, &[])?;
    let snapshot = api.registry.snapshot();
    let models = snapshot.models_after(after.as_deref());
    let models = models.map(|declared| (declared.name.as_str(), &*declared.model));
    objects::page_of(&params, Kind::Model, models)
}

/// Show a model
#[utoipa::path(get, path = "/api/v1/models/{name}", tag = "objects", operation_id = "get_model",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The model, as apply takes it", body = ref("#/components/schemas/Model")), Refusals))]
async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let snapshot = api.registry.current();
    let declared = objects::declared(snapshot.model(&name), Kind::Model, &name)?;
    Ok(objects::one(Kind::Model, &name, &*declared.model))
}

/// Delete a model that nothing uses
#[utoipa::path(delete, path = "/api/v1/models/{name}", tag = "objects", operation_id = "delete_model",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "Deleted"),
        (status = 409, description = "Something uses it", body = ref("#/components/schemas/Problem"), content_type = "application/problem+json"), Refusals))]
async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    objects::delete(api, Kind::Model, name, None).await
}
