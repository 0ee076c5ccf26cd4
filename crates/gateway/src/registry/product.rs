//! Products: devices of one model that report in one format.

use std::sync::Arc;

use backtide_model::{DeviceKey, Model, ObjectName, ProductKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Channel, Script, ScriptVersion, snapshot::Devices};

/// How the devices of a product report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Json,
    /// Raw bytes, parsed by the product's script.
    Custom,
}

/// A product in an object file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ProductFile {
    /// Names the product on the wire; generated when absent, never changed while in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^[A-Za-z0-9_.:-]{1,64}$"))]
    pub key: Option<ProductKey>,
    /// The name of its model.
    #[schemars(with = "String", length(min = 1, max = 64))]
    pub model: ObjectName,
    /// json, or custom: raw bytes, parsed by the script.
    #[serde(default)]
    pub format: Format,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A product with everything that a message for it needs.
#[derive(Debug, Clone)]
pub struct Product {
    pub name: ObjectName,
    pub key: ProductKey,
    pub model_name: ObjectName,
    pub model: Arc<Model>,
    pub format: Format,
    pub description: Option<String>,
    pub devices: Arc<Devices>,
    /// Of any state, in the order of their names.
    pub channels: Vec<Arc<Channel>>,
    pub script: Option<Arc<Script>>,
}

impl Product {
    /// As it stands in an object file, with what was generated.
    pub fn file(&self) -> ProductFile {
        ProductFile {
            key: Some(self.key.clone()),
            model: self.model_name.clone(),
            format: self.format,
            description: self.description.clone(),
        }
    }

    /// Whether its devices report in JSON, not in bytes that a script reads.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// The script that reads its raw data, where a version runs.
    pub fn live_script(&self) -> Option<&Arc<ScriptVersion>> {
        self.script.as_ref()?.live.as_ref()
    }

    /// The key of the device, where it is declared; what a message asks for each of its items.
    pub fn find_device(&self, key: &str) -> Option<&DeviceKey> {
        self.devices.get(key).map(|device| &device.key)
    }

    /// The channels that let clients in: at most [`super::ENABLED_CHANNELS_MAX`].
    pub fn enabled_channels(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.channels.iter().filter(|channel| !channel.paused)
    }
}
