//! `/api/v1/devices`.

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
    objects::{self, ListParams, OfProduct, Page, Position},
    problem::Params,
};
use crate::registry::{Device, Kind, device_named, written};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, delete))
}

/// List devices
#[utoipa::path(get, path = "/api/v1/devices", tag = "objects", operation_id = "list_devices",
    params(ListParams),
    responses((status = 200, description = "A page of devices", body = ref("#/components/schemas/DevicePage")), Refusals))]
async fn list(
    State(api): State<Arc<Api>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page>, Problem> {
    params.only(Kind::Device, &["product", "key", "assetId"])?;
    let snapshot = api.registry.snapshot();
    let after = params.after()?;
    let after = after
        .as_ref()
        .map(|Position(product, name)| (product.as_str(), name.as_str()));
    // Keys are looked up, not searched for: people page through lists, programs ask for keys.
    let devices: Box<dyn Iterator<Item = &Arc<Device>>> = match (&params.key, &params.asset_id) {
        (_, Some(id)) => Box::new(snapshot.asset(id).into_iter().map(|(_, device)| device)),
        (Some(key), None) => Box::new(snapshot.devices_of_key(key).map(|(_, device)| device)),
        (None, None) => match &params.product {
            Some(product) => {
                let name = after.filter(|(of, _)| of == product).map(|(_, name)| name);
                let product = snapshot.product(product).into_iter();
                Box::new(product.flat_map(move |product| product.devices.after(name)))
            }
            None => Box::new(snapshot.devices_after(after)),
        },
    };
    let devices = devices
        .filter(|device| {
            after.is_none_or(|at| (device.product.as_str(), device.name.as_str()) > at)
        })
        .filter(|device| {
            params
                .product
                .as_ref()
                .is_none_or(|p| device.product.as_str() == p)
        })
        .filter(|device| {
            params
                .key
                .as_ref()
                .is_none_or(|key| device.key.as_str() == key)
        });
    objects::page(
        &params,
        devices.map(|device| {
            let position = Position(device.product.to_string(), device.name.to_string());
            (position, || {
                written(Kind::Device, device.name.as_str(), &device.file())
            })
        }),
    )
}

/// Show a device
#[utoipa::path(get, path = "/api/v1/devices/{name}", tag = "objects", operation_id = "get_device",
    params(("name" = String, Path, description = "Its name"), OfProduct),
    responses((status = 200, description = "The device, as apply takes it", body = ref("#/components/schemas/Device")), Refusals))]
async fn show(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(params): Params<OfProduct>,
) -> Result<Response, Problem> {
    let snapshot = api.registry.current();
    let (_, device) = device_named(&snapshot, &name, params.product.as_deref())?;
    Ok(objects::one(Kind::Device, &name, &device.file()))
}

/// Delete a device that nothing uses
#[utoipa::path(delete, path = "/api/v1/devices/{name}", tag = "objects", operation_id = "delete_device",
    params(("name" = String, Path, description = "Its name"), OfProduct),
    responses((status = 204, description = "Deleted"),
        (status = 409, description = "Something uses it", body = ref("#/components/schemas/Problem"), content_type = "application/problem+json"), Refusals))]
async fn delete(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Params(params): Params<OfProduct>,
) -> Result<StatusCode, Problem> {
    objects::delete(api, Kind::Device, name, params.product).await
}
