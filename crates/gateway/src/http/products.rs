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
    objects::{self, ListParams, Page, Position},
    problem::Params,
};
use crate::registry::{Kind, written};

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
    params.only(Kind::Product, &["model", "key"])?;
    let snapshot = api.registry.snapshot();
    let after = params.after()?;
    let products = snapshot
        .products_after(after.as_ref().map(|Position(_, name)| name.as_str()))
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
    objects::page(
        &params,
        products.map(|product| {
            let position = Position(String::new(), product.name.to_string());
            (position, || {
                written(Kind::Product, product.name.as_str(), &product.file())
            })
        }),
    )
}

/// Show a product
#[utoipa::path(get, path = "/api/v1/products/{name}", tag = "objects", operation_id = "get_product",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The product, as apply takes it", body = ref("#/components/schemas/Product")), Refusals))]
async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let snapshot = api.registry.current();
    let product = snapshot
        .product(&name)
        .ok_or_else(|| objects::not_found(Kind::Product, &name))?;
    Ok(objects::one(written(Kind::Product, &name, &product.file())))
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
