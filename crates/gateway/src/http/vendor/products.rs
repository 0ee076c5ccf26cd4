//! Products of the connection service.

use backtide_model::ObjectName;
use serde_json::{Map, Value, json};

use super::{
    answer::{CONFLICT, Data, NOT_FOUND, Refusal},
    call::Call,
    connect::{apply, default_of, named, object, object_name, product},
    search,
};
use crate::{
    http::Api,
    registry::{Declared, Format, Kind, Product, ProductFile},
};

fn view(api: &Api, product: &Product) -> Map<String, Value> {
    let view = json!({
        "orgId": api.organization,
        "productKey": product.key,
        "productName": named(product.name.as_str()),
        "productDesc": product.description.as_deref().unwrap_or_default(),
        "productType": "Device",
        "modelId": product.model_name,
        "modelIdPath": format!("/{}", product.model_name),
        "dataFormat": if product.is_json() { "Json" } else { "Custom" },
        "biDirectionalAuth": false,
        "deviceCount": product.devices.len(),
    });
    let Value::Object(view) = view else {
        return Map::new();
    };
    view
}

pub(super) fn get(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    let product = product(&snapshot, call.params.required("productKey")?)?;
    Ok(Data::of(&view(api, product)))
}

pub(super) fn search(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    let products = snapshot.products_after(None);
    search::page(
        &call.json,
        products.map(|product| move || view(api, product)),
    )
}

/// The list of the 2018 API.
pub(super) fn list(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    let size = call.params.number::<usize>("pageSize")?.unwrap_or(100);
    let number = call.params.number::<usize>("pageNo")?.unwrap_or(1);
    let asked = json!({ "pagination": { "pageNo": number, "pageSize": size } });
    let products = snapshot.products_after(None);
    let page = search::page(&asked, products.map(|product| move || view(api, product)))?;
    let total = snapshot.products_after(None).count();
    let mut data = br#"{"products":"#.to_vec();
    data.extend_from_slice(&page.data);
    data.extend_from_slice(format!(",\"totalCount\":{total}}}").as_bytes());
    Ok(Data {
        data,
        ..Data::default()
    })
}

pub(super) fn create(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let body = object(&call.json)?;
    let model_id = call.params.required("modelId")?;
    let snapshot = api.registry.snapshot();
    let model = snapshot
        .model(model_id)
        .ok_or_else(|| Refusal::new(NOT_FOUND, format!("model {model_id} is not declared")))?;
    let format = match call
        .params
        .get("dataFormat")
        .unwrap_or("Json")
        .to_ascii_lowercase()
        .as_str()
    {
        "json" => Format::Json,
        "custom" => Format::Custom,
        other => {
            return Err(Refusal::bad(format!(
                "dataFormat {other:?} is neither Json nor Custom"
            )));
        }
    };
    if call.params.is_set("biDirectionalAuth", false)? {
        let message =
            "certificates are a rule of channels here: declare clientCertificate on the channel";
        return Err(Refusal::bad(message));
    }
    let name = default_of(body.get("productName"))
        .ok_or_else(|| Refusal::bad("productName is missing"))?;
    let name = free_name(name, |name| snapshot.product(name).is_some())?;
    let file = ProductFile {
        key: None,
        model: model.name.clone(),
        format,
        description: call.params.get("productDesc").map(ToOwned::to_owned),
    };
    apply(api, Declared::Product(name.clone(), file))?;
    let snapshot = api.registry.snapshot();
    let made = snapshot
        .product(name.as_str())
        .map(|product| product.key.clone());
    Ok(Data::of(&made))
}

/// The name as an object's, unless that is taken: what is created must not change another.
fn free_name(name: &str, is_taken: impl Fn(&str) -> bool) -> Result<ObjectName, Refusal> {
    let name =
        object_name(name).ok_or_else(|| Refusal::bad("productName cannot be a name here"))?;
    match is_taken(name.as_str()) {
        false => Ok(name),
        true => Err(Refusal::new(
            CONFLICT,
            format!("product {name} is declared already"),
        )),
    }
}

pub(super) fn update(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    let product = product(&snapshot, call.params.required("productKey")?)?;
    let body = object(&call.json)?;
    let is_patch = call.params.is_set("isPatchUpdate", false)?;
    let mut file = product.file();
    match body.get("productDesc") {
        Some(_) => file.description = default_of(body.get("productDesc")).map(ToOwned::to_owned),
        None if is_patch => {}
        None => file.description = None,
    }
    apply(api, Declared::Product(product.name.clone(), file))?;
    let renamed = default_of(body.get("productName"))
        .and_then(object_name)
        .is_some_and(|name| name != product.name);
    let note = if renamed {
        "a product keeps its name here"
    } else {
        ""
    };
    Ok(Data::null().noting(note))
}

pub(super) fn delete(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    let product = product(&snapshot, call.params.required("productKey")?)?;
    api.registry
        .delete(Kind::Product, product.name.as_str(), None)?;
    Ok(Data::null())
}
