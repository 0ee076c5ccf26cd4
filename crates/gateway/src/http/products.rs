//! `/api/v1/products`.

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

/// List products
#[utoipa::path(get, path = "/api/v1/products", tag = "objects", operation_id = "list_products",
    params(ListParams),
    responses((status = 200, description = "A page of products", body = ref("#/components/schemas/ProductPage")), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page>, Problem> {
    let after = params.after_name(Kind::Product, &["model", "key"])?;
    let snapshot = api.registry.snapshot();
    let products = snapshot
        .products_after(after.as_deref())
        .filter(|product| {
            params
                .model
                .as_ref()
                .is_none_or(|m| product.model_name.as_str() == m)
        })
        .filter(|product| {
            params
                .key
                .as_ref()
                .is_none_or(|key| product.key.as_str() == key)
        });
    let products = products.map(|product| (product.name.as_str(), product.file()));
    objects::page_of(&params, Kind::Product, products)
}

/// Show a product
#[utoipa::path(get, path = "/api/v1/products/{name}", tag = "objects", operation_id = "get_product",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The product, as apply takes it", body = ref("#/components/schemas/Product")), Refusals))]
async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let snapshot = api.registry.current();
    let product = objects::declared(snapshot.product(&name), Kind::Product, &name)?;
    Ok(objects::one(Kind::Product, &name, &product.file()))
}

/// Delete a product that nothing uses
#[utoipa::path(delete, path = "/api/v1/products/{name}", tag = "objects", operation_id = "delete_product",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "Deleted"),
        (status = 409, description = "Something uses it", body = ref("#/components/schemas/Problem"), content_type = "application/problem+json"), Refusals))]
async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    objects::delete(api, Kind::Product, name, None).await
}
