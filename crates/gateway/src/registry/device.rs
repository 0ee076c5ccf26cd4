//! Devices: what reports.

use std::collections::BTreeMap;

use backtide_model::{AssetId, DeviceKey, ElementName, Model, ObjectName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Attribute values by identifier, as they were declared.
pub type Attributes = BTreeMap<ElementName, serde_json::Value>;

/// A device in an object file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DeviceFile {
    /// The name of its product.
    #[schemars(with = "String", length(min = 1, max = 64))]
    pub product: ObjectName,
    /// Names the device on the wire, unique in its product; the device's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^[A-Za-z0-9_.:-]{1,64}$"))]
    pub key: Option<DeviceKey>,
    /// An IANA name, such as Europe/Paris.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<Box<str>>,
    /// Names the device everywhere else; generated when absent, unique, never changed or reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^[A-Za-z0-9_.:-]{1,64}$"))]
    pub asset_id: Option<AssetId>,
    /// Values of attributes that its model declares.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub attributes: Attributes,
}

/// A device.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    pub name: ObjectName,
    pub product: ObjectName,
    pub key: DeviceKey,
    pub asset_id: AssetId,
    /// An IANA name that was known when it was declared.
    pub timezone: Option<Box<str>>,
    pub attributes: Attributes,
}

impl Device {
    /// As it stands in an object file, with what was generated.
    pub fn file(&self) -> DeviceFile {
        DeviceFile {
            product: self.product.clone(),
            key: Some(self.key.clone()),
            timezone: self.timezone.clone(),
            asset_id: Some(self.asset_id.clone()),
            attributes: self.attributes.clone(),
        }
    }
}

/// Checks what can be said of a device without knowing the others.
pub(super) fn check(file: &DeviceFile, model: &Model) -> Result<(), String> {
    if let Some(timezone) = &file.timezone
        && jiff::tz::TimeZone::get(timezone).is_err()
    {
        return Err(format!(
            "timezone {timezone:?} is no IANA time zone; write one such as Europe/Paris"
        ));
    }
    for (name, value) in &file.attributes {
        match model.attributes.get(name) {
            Some(attribute) => {
                attribute
                    .data_type
                    .read(&value.to_string())
                    .map_err(|why| format!("attribute {name}: {why}"))?;
            }
            None if model.passthrough => {}
            None => return Err(format!("attribute {name} is not declared by its model")),
        }
    }
    Ok(())
}
