//! Devices of the connection service.

use backtide_model::{DeviceKey, ElementName, ObjectName};
use serde_json::{Map, Value, json};

use super::{
    answer::{BAD_REQUEST, CONFLICT, Data, Refusal},
    call::Call,
    connect::{apply, default_of, device, named, object, object_name, product},
    moments::{zone_name, zone_text},
    search,
};
use crate::{
    http::Api,
    limits,
    registry::{Attributes, Declared, Device, DeviceFile, Kind, Product, Snapshot},
    secrets,
};

/// Letters and digits of a key that is generated.
const KEY_CHARS: usize = 10;
/// What is taken of others and not kept.
const NOT_KEPT: [&str; 3] = ["deviceDesc", "deviceTags", "mirrorSource"];

fn view(api: &Api, product: &Product, device: &Device) -> Map<String, Value> {
    let view = json!({
        "orgId": api.organization,
        "assetId": device.asset_id,
        "modelId": product.model_name,
        "modelIdPath": format!("/{}", product.model_name),
        "productKey": product.key,
        "productName": named(product.name.as_str()),
        "productType": "Device",
        "dataFormat": if product.is_json() { "Json" } else { "Custom" },
        "deviceKey": device.key,
        "deviceName": named(device.name.as_str()),
        "deviceDesc": "",
        "timezone": zone_text(device.timezone.as_deref()),
        "deviceAttributes": device.attributes,
        "deviceTags": {},
    });
    let Value::Object(view) = view else {
        return Map::new();
    };
    view
}

pub(super) fn get(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    let (product, device) = device(&snapshot, call)?;
    Ok(Data::of(&view(api, product, device)))
}

pub(super) fn search(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    let devices = snapshot.devices_after(None).filter_map(|device| {
        let product = snapshot.product(device.product.as_str())?;
        Some(move || view(api, product, device))
    });
    search::page(&call.json, devices)
}

pub(super) fn create(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let body = object(&call.json)?;
    let made = create_one(api, body)?;
    Ok(Data::of(&made).noting(not_kept(body)))
}

/// Declares many, each by itself: one that is refused hinders no other.
pub(super) fn batch_create(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let list = call.json.get("deviceList").and_then(Value::as_array);
    let list = list.ok_or_else(|| Refusal::bad("deviceList is missing: an array of devices"))?;
    if list.len() > limits::VENDOR_BATCH_DEVICES_MAX {
        let most = limits::VENDOR_BATCH_DEVICES_MAX;
        return Err(Refusal::bad(format!(
            "deviceList has {} devices, at most {most} are taken",
            list.len()
        )));
    }
    let mut code = 0;
    let mut made = Vec::new();
    for (at, one) in list.iter().enumerate() {
        made.push(match object(one).and_then(|body| create_one(api, body)) {
            Ok(data) => json!({ "code": 0, "msg": "OK", "data": data }),
            Err(refusal) => {
                code = BAD_REQUEST;
                let msg = format!("deviceList[{at}]: {}", refusal.message);
                json!({ "code": refusal.code, "msg": msg, "data": null })
            }
        });
    }
    if code == 0 {
        return Ok(Data::of(&made));
    }
    let refused = made.iter().filter(|one| one["code"] != 0).count();
    let mut refusal = Refusal::new(
        code,
        format!("{refused} of {} devices are not declared", list.len()),
    );
    refusal.data = Some(Value::Array(made).to_string());
    Err(refusal)
}

fn create_one(api: &Api, body: &Map<String, Value>) -> Result<Value, Refusal> {
    let given = |name: &str| {
        let text = body.get(name).and_then(Value::as_str).map(str::trim);
        text.filter(|text| !text.is_empty())
    };
    let missing = |name: &str| Refusal::bad(format!("{name} is missing"));
    let snapshot = api.registry.snapshot();
    let product = product(
        &snapshot,
        given("productKey").ok_or_else(|| missing("productKey"))?,
    )?;
    let key = match given("deviceKey") {
        Some(key) => key.to_owned(),
        None => secrets::random_alphanumeric(KEY_CHARS),
    };
    let key = DeviceKey::new(&key).map_err(|error| Refusal::bad(error.to_string()))?;
    if product.devices.get(key.as_str()).is_some() {
        return Err(Refusal::new(
            CONFLICT,
            format!("device {key} is declared under the product already"),
        ));
    }
    let timezone = zone_name(given("timezone").ok_or_else(|| missing("timezone"))?)?;
    let name = free_name(product, default_of(body.get("deviceName")), &key)?;
    let file = DeviceFile {
        product: product.name.clone(),
        key: Some(key.clone()),
        timezone: Some(timezone.into()),
        asset_id: None,
        attributes: attributes(body.get("deviceAttributes"))?,
    };
    apply(api, Declared::Device(name, file))?;
    let snapshot = api.registry.snapshot();
    let device = made(&snapshot, product.key.as_str(), &key)?;
    Ok(
        json!({ "orgId": api.organization, "assetId": device.asset_id, "productKey": product.key, "deviceKey": key }),
    )
}

fn made<'s>(snapshot: &'s Snapshot, product: &str, key: &DeviceKey) -> Result<&'s Device, Refusal> {
    let product = product_of(snapshot, product)?;
    let device = product.devices.get(key.as_str());
    device
        .map(AsRef::as_ref)
        .ok_or_else(|| Refusal::new(CONFLICT, format!("device {key} was deleted meanwhile")))
}

fn product_of<'s>(snapshot: &'s Snapshot, key: &str) -> Result<&'s Product, Refusal> {
    product(snapshot, key).map(AsRef::as_ref)
}

/// The display name where it can be a name here and nobody has it; else the key.
fn free_name(
    product: &Product,
    told: Option<&str>,
    key: &DeviceKey,
) -> Result<ObjectName, Refusal> {
    let candidates = [told, Some(key.as_str())].into_iter().flatten();
    let mut free = candidates
        .filter_map(object_name)
        .filter(|name| product.devices.named(name.as_str()).is_none());
    free.next().ok_or_else(|| {
        Refusal::new(
            CONFLICT,
            format!("a device of another key is named {key}; give another deviceName"),
        )
    })
}

fn attributes(value: Option<&Value>) -> Result<Attributes, Refusal> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(Attributes::new());
    };
    let members = value
        .as_object()
        .ok_or_else(|| Refusal::bad("deviceAttributes is no object"))?;
    members
        .iter()
        .map(|(name, value)| {
            let name = ElementName::new(name).map_err(|error| Refusal::bad(error.to_string()))?;
            Ok((name, value.clone()))
        })
        .collect()
}

fn not_kept(body: &Map<String, Value>) -> String {
    let empty = [json!(""), json!({}), Value::Null];
    let given = |name: &&str| body.get(*name).is_some_and(|value| !empty.contains(value));
    match NOT_KEPT.into_iter().filter(given).collect::<Vec<_>>() {
        none if none.is_empty() => String::new(),
        names => format!("not kept: {}", names.join(", ")),
    }
}

pub(super) fn update(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    let (_, device) = device(&snapshot, call)?;
    let body = object(&call.json)?;
    let is_patch = call.params.is_set("isPatchUpdate", false)?;
    let mut file = device.file();
    if let Some(timezone) = body.get("timezone").and_then(Value::as_str) {
        // Told and unchanged is not a change of an IANA name to an offset.
        if timezone != zone_text(device.timezone.as_deref()) {
            file.timezone = Some(zone_name(timezone)?.into());
        }
    }
    let given = attributes(body.get("deviceAttributes"))?;
    match (is_patch, body.contains_key("deviceAttributes")) {
        (true, _) => file.attributes.extend(given),
        (false, true) => file.attributes = given,
        (false, false) => {}
    }
    apply(api, Declared::Device(device.name.clone(), file))?;
    let mut note = not_kept(body);
    let renamed = default_of(body.get("deviceName"))
        .and_then(object_name)
        .is_some_and(|name| name != device.name);
    if renamed {
        let more = if note.is_empty() { "" } else { "; " };
        note = format!("{note}{more}a device keeps its name here");
    }
    Ok(Data::null().noting(note))
}

pub(super) fn delete(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    let (product, device) = device(&snapshot, call)?;
    api.registry.delete(
        Kind::Device,
        device.name.as_str(),
        Some(product.name.as_str()),
    )?;
    Ok(Data::null())
}
