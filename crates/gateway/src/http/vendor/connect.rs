//! What the resources of the connection service have in common, and the latest values of a device.

use std::sync::Arc;

use backtide_model::{ElementName, ObjectName};
use serde_json::{Map, Value, json};

use super::{
    answer::{Data, NOT_FOUND, Refusal, raw},
    call::Call,
};
use crate::{
    http::Api,
    query,
    registry::{Declared, Device, Document, Place, Product, Run, Snapshot},
};

/// A text in several languages, of which one is known.
pub(super) fn named(text: &str) -> Value {
    json!({ "defaultValue": text, "i18nValue": {} })
}

/// The default of a text in several languages, or a plain text.
pub(super) fn default_of(value: Option<&Value>) -> Option<&str> {
    let value = value?;
    value
        .as_str()
        .or_else(|| value.get("defaultValue")?.as_str())
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

/// A text as the name of an object: other characters become hyphens.
pub(super) fn object_name(text: &str) -> Option<ObjectName> {
    let allowed = |c: char| {
        if c.is_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = text.chars().take(64).map(allowed).collect();
    ObjectName::new(&name).ok()
}

/// Declares one object.
pub(super) fn apply(api: &Api, declared: Declared) -> Result<(), Refusal> {
    let place = Place {
        document: 1,
        line: 1,
    };
    api.registry
        .apply(vec![Document { place, declared }], Run::Commit)?;
    Ok(())
}

pub(super) fn product<'s>(snapshot: &'s Snapshot, key: &str) -> Result<&'s Arc<Product>, Refusal> {
    snapshot
        .product_by_key(key)
        .ok_or_else(|| Refusal::new(NOT_FOUND, format!("product {key} is not declared")))
}

/// The device that `assetId`, or `productKey` and `deviceKey`, name.
pub(super) fn device<'s>(
    snapshot: &'s Snapshot,
    call: &Call,
) -> Result<(&'s Arc<Product>, &'s Arc<Device>), Refusal> {
    if let Some(id) = call.params.get("assetId") {
        return snapshot
            .asset(id)
            .ok_or_else(|| Refusal::new(NOT_FOUND, format!("asset {id} is not declared")));
    }
    let (Some(product_key), Some(key)) =
        (call.params.get("productKey"), call.params.get("deviceKey"))
    else {
        return Err(Refusal::bad(
            "name a device by assetId, or by productKey and deviceKey",
        ));
    };
    let product = product(snapshot, product_key)?;
    let device = product.devices.get(key).ok_or_else(|| {
        Refusal::new(
            NOT_FOUND,
            format!("device {key} is not declared under product {product_key}"),
        )
    })?;
    Ok((product, device))
}

/// A JSON object of a body.
pub(super) fn object(json: &Value) -> Result<&Map<String, Value>, Refusal> {
    json.as_object()
        .ok_or_else(|| Refusal::bad("the body is no JSON object"))
}

/// The latest values of one device: what came through the gateway is history, and counts.
pub(super) fn query_latest(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    let (product, device) = device(&snapshot, call)?;
    let names = call
        .params
        .either(&["measurepointIds", "pointIds", "measurepoints"])?;
    let mut points = Vec::new();
    for name in super::call::Params::list(names) {
        let name = ElementName::new(name).map_err(|error| Refusal::parameter(error.to_string()))?;
        if !product.model.passthrough && !product.model.measurepoints.contains_key(&name) {
            let model = &product.model_name;
            return Err(Refusal::parameter(format!(
                "point {name} is not in model {model}"
            )));
        }
        points.push(name);
    }
    // An empty list would ask for every point.
    if points.is_empty() {
        return Err(Refusal::parameter("measurepointIds names no point"));
    }
    let devices = [device.key.clone()];
    let found = api.store.latest(&product.key, &devices, &points);
    let items: Vec<_> = found
        .iter()
        .map(|latest| {
            let mut text = Vec::new();
            query::write_cell(
                &mut text,
                &latest.cell,
                query::is_json(product, &latest.point),
            );
            let value = raw(String::from_utf8(text).unwrap_or_else(|_| "null".to_owned()));
            Latest {
                id: latest.point.as_str(),
                time: latest.time_ms,
                value,
            }
        })
        .collect();
    Ok(Data::of(&items))
}

#[derive(serde::Serialize)]
struct Latest<'a> {
    id: &'a str,
    time: i64,
    value: Box<serde_json::value::RawValue>,
}
