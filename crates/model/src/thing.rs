//! Thing models: what a product's devices may report (`mqtt-channel.md` §7).
//!
//! [`ElementFile`] is how an element stands in an object file; it is lowered once to the types
//! below, so that what reaches the check needs no further looking at.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ConflictPolicy, DataType, ElementName, ItemType, Member,
    types::{ARRAY_ITEMS_MAX, STRING_BYTES_DEFAULT},
};

/// Allowed values of an enum (`mqtt-channel.md` §7.2).
const ENUM_VALUES_MAX: usize = 200;

/// A thing model: the measurement points, events and attributes that devices may report.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Points that the model does not declare are stored too, as JSON text.
    #[serde(default, skip_serializing_if = "is_false")]
    pub passthrough: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measurepoints: BTreeMap<ElementName, Measurepoint>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub events: BTreeMap<ElementName, Event>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<ElementName, Attribute>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A value that a device measures over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ElementFile", into = "ElementFile")]
pub struct Measurepoint {
    pub data_type: DataType,
    /// Values come with a quality 0–9.
    pub quality: bool,
    pub signal: Option<Signal>,
    pub unit: Option<String>,
    /// Overrides the channel's.
    pub conflict: Option<ConflictPolicy>,
    pub description: Option<String>,
}

/// A static value of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ElementFile", into = "ElementFile")]
pub struct Attribute {
    pub data_type: DataType,
    pub unit: Option<String>,
    pub description: Option<String>,
}

/// Something that happens at a device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    #[serde(default)]
    pub level: Level,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub output: BTreeMap<ElementName, Attribute>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    #[default]
    Info,
    Warn,
    Error,
}

/// The signal type of a point: analogue, digital, pulse (counter) or generic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Signal {
    #[serde(rename = "AI")]
    Analogue,
    #[serde(rename = "DI")]
    Digital,
    #[serde(rename = "PI")]
    Pulse,
    Generic,
}

/// An element as it stands in an object file: `{ type: double, unit: kW, signal: AI }`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ElementFile {
    /// int, long, float, double, bool, enum, string, timestamp, date, datetime, struct, array,
    /// map or file.
    #[serde(rename = "type")]
    pub type_word: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub quality: bool,
    /// keep-last, keep-first or higher-quality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub conflict: Option<ConflictPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of an enum: each allowed value with its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<BTreeMap<String, String>>,
    /// Of a string: bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Of an array: int, long, float, double or string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemType>,
    /// Of an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<usize>,
    /// Of a struct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, ElementFile>>")]
    pub members: Option<BTreeMap<ElementName, ElementFile>>,
    /// Of a struct's member.
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
}

impl ElementFile {
    fn data_type(&mut self) -> Result<DataType, String> {
        let data_type = match self.type_word.to_ascii_lowercase().as_str() {
            "int" | "integer" | "int32" => DataType::Int,
            "long" | "int64" => DataType::Long,
            "float" => DataType::Float,
            "double" => DataType::Double,
            "bool" | "boolean" => DataType::Bool,
            "timestamp" => DataType::Timestamp,
            "date" => DataType::Date,
            "datetime" => DataType::DateTime,
            "map" | "object" => DataType::Map,
            "file" => DataType::File,
            "enum" => enum_type(self.values.take())?,
            "string" => DataType::String {
                bytes_max: self.max_length.take().unwrap_or(STRING_BYTES_DEFAULT),
            },
            "array" => DataType::Array {
                items: self
                    .items
                    .take()
                    .ok_or("an array needs items: the type of its elements")?,
                items_max: self.max_items.take().unwrap_or(ARRAY_ITEMS_MAX),
            },
            "struct" => struct_type(self.members.take())?,
            other => {
                return Err(format!(
                    "type {other:?} is unknown; known are int, long, float, double, bool, enum, \
                     string, timestamp, date, datetime, struct, array, map, file"
                ));
            }
        };
        self.refuse("values", self.values.is_some(), data_type.word())?;
        self.refuse("maxLength", self.max_length.is_some(), data_type.word())?;
        self.refuse("items", self.items.is_some(), data_type.word())?;
        self.refuse("maxItems", self.max_items.is_some(), data_type.word())?;
        self.refuse("members", self.members.is_some(), data_type.word())?;
        Ok(data_type)
    }

    fn refuse(&self, field: &str, is_given: bool, owner: &str) -> Result<(), String> {
        if is_given {
            return Err(format!("{field} does not apply to {owner}"));
        }
        Ok(())
    }

    fn of(data_type: &DataType) -> Self {
        let mut file = Self {
            type_word: data_type.word().to_owned(),
            ..Self::default()
        };
        match data_type {
            DataType::EnumInt(values) => {
                file.values = Some(
                    values
                        .iter()
                        .map(|(k, v)| (k.to_string(), v.clone()))
                        .collect(),
                );
            }
            DataType::EnumString(values) => file.values = Some(values.clone()),
            DataType::String { bytes_max } => file.max_length = Some(*bytes_max),
            DataType::Array { items, items_max } => {
                file.items = Some(*items);
                file.max_items = Some(*items_max);
            }
            DataType::Struct(members) => {
                let member_file = |member: &Member| Self {
                    required: member.required,
                    ..Self::of(&member.data_type)
                };
                file.members = Some(
                    members
                        .iter()
                        .map(|(k, m)| (k.clone(), member_file(m)))
                        .collect(),
                );
            }
            DataType::Int
            | DataType::Long
            | DataType::Float
            | DataType::Double
            | DataType::Bool
            | DataType::Timestamp
            | DataType::Date
            | DataType::DateTime
            | DataType::Map
            | DataType::File => {}
        }
        file
    }
}

/// An enum is of numbers where all its values are (`mqtt-channel.md` §7.2).
fn enum_type(values: Option<BTreeMap<String, String>>) -> Result<DataType, String> {
    let values = values.filter(|values| !values.is_empty());
    let values = values.ok_or("an enum needs values: { \"0\": text, … }")?;
    if values.len() > ENUM_VALUES_MAX {
        return Err(format!("an enum has at most {ENUM_VALUES_MAX} values"));
    }
    let numbers: Option<BTreeMap<i32, String>> = values
        .iter()
        .map(|(value, text)| value.parse().ok().map(|value| (value, text.clone())))
        .collect();
    // "07" and "7" would fall together as numbers.
    Ok(
        match numbers.filter(|numbers| numbers.len() == values.len()) {
            Some(numbers) => DataType::EnumInt(numbers),
            None => DataType::EnumString(values),
        },
    )
}

fn struct_type(members: Option<BTreeMap<ElementName, ElementFile>>) -> Result<DataType, String> {
    let files = members
        .filter(|members| !members.is_empty())
        .ok_or("a struct needs members")?;
    let mut members = BTreeMap::new();
    for (name, mut file) in files {
        let data_type = file
            .data_type()
            .map_err(|why| format!("member {name}: {why}"))?;
        if matches!(data_type, DataType::Struct(_)) {
            return Err(format!("member {name}: structs do not nest"));
        }
        members.insert(
            name,
            Member {
                data_type,
                required: file.required,
            },
        );
    }
    Ok(DataType::Struct(members))
}

impl TryFrom<ElementFile> for Measurepoint {
    type Error = String;

    fn try_from(mut file: ElementFile) -> Result<Self, String> {
        let data_type = file.data_type()?;
        file.refuse("required", file.required, "a measurement point")?;
        if file.quality && !data_type.may_have_quality() {
            return Err(format!(
                "quality applies to int, long, float and double, not to {}",
                data_type.word()
            ));
        }
        if file.conflict == Some(ConflictPolicy::HigherQuality) && !file.quality {
            return Err("conflict: higher-quality needs quality: true".to_owned());
        }
        Ok(Self {
            data_type,
            quality: file.quality,
            signal: file.signal,
            unit: file.unit,
            conflict: file.conflict,
            description: file.description,
        })
    }
}

impl From<Measurepoint> for ElementFile {
    fn from(point: Measurepoint) -> Self {
        Self {
            quality: point.quality,
            signal: point.signal,
            unit: point.unit,
            conflict: point.conflict,
            description: point.description,
            ..Self::of(&point.data_type)
        }
    }
}

impl TryFrom<ElementFile> for Attribute {
    type Error = String;

    fn try_from(mut file: ElementFile) -> Result<Self, String> {
        let data_type = file.data_type()?;
        file.refuse("required", file.required, "an attribute or output")?;
        file.refuse("quality", file.quality, "an attribute or output")?;
        file.refuse("signal", file.signal.is_some(), "an attribute or output")?;
        file.refuse(
            "conflict",
            file.conflict.is_some(),
            "an attribute or output",
        )?;
        Ok(Self {
            data_type,
            unit: file.unit,
            description: file.description,
        })
    }
}

impl From<Attribute> for ElementFile {
    fn from(attribute: Attribute) -> Self {
        Self {
            unit: attribute.unit,
            description: attribute.description,
            ..Self::of(&attribute.data_type)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_model_reads_back_as_it_was_declared() {
        let declared = json!({
            "passthrough": true,
            "measurepoints": {
                "P_avg": { "type": "double", "unit": "kW", "signal": "AI" },
                "Ws_avg": { "type": "double", "quality": true, "conflict": "higher-quality" },
                "mode": { "type": "enum", "values": { "AUTO": "automatic", "1": "manual" } },
                "state": { "type": "enum", "values": { "0": "stopped", "1": "running" } },
                "pos": { "type": "struct", "members": { "x": { "type": "int", "required": true } } },
                "phases": { "type": "array", "items": "double", "maxItems": 3 },
            },
            "events": { "alarm": { "level": "warn", "output": { "code": { "type": "int" } } } },
            "attributes": { "serial": { "type": "string", "maxLength": 20 } },
        });
        let model: Model = serde_json::from_value(declared.clone()).unwrap();
        assert!(matches!(
            model.measurepoints.get("state").unwrap().data_type,
            DataType::EnumInt(_)
        ));
        assert!(matches!(
            model.measurepoints.get("mode").unwrap().data_type,
            DataType::EnumString(_)
        ));
        assert_eq!(serde_json::to_value(&model).unwrap(), declared);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_reason() {
        for (element, reason) in [
            (json!({ "type": "dubble" }), "is unknown; known are"),
            (
                json!({ "type": "string", "quality": true }),
                "quality applies to",
            ),
            (
                json!({ "type": "int", "maxLength": 4 }),
                "maxLength does not apply to int",
            ),
            (json!({ "type": "array" }), "needs items"),
            (json!({ "type": "enum" }), "needs values"),
            (
                json!({ "type": "int", "unitt": "kW" }),
                "unknown field `unitt`",
            ),
            (
                json!({ "type": "int", "conflict": "higher-quality" }),
                "needs quality: true",
            ),
        ] {
            let error = serde_json::from_value::<Measurepoint>(element)
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
