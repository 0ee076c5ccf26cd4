//! Steps as they stand in an object file.

use backtide_model::ElementName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::SCRIPT_SOURCE_BYTES_MAX;

/// One step of a policy: the points it acts on, and exactly one thing that is done to them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepFile {
    /// The points that it acts on, by identifier; of rename, copy and expression one. Of script those that
    /// it gives values to.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub points: Vec<ElementName>,
    /// value × factor + offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleStep>,
    /// Converts from one unit to another; units are written in UCUM: kW, m/s, Cel, [degF], m3/h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitStep>,
    /// What is below min becomes min, what is above max becomes max.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clamp: Option<Bounds>,
    /// What is outside is flagged, dropped or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<RangeStep>,
    /// The point that the value is stored as instead. The name in points need not be in the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub rename: Option<ElementName>,
    /// The point that the value, as it is by now, is stored as too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub copy: Option<ElementName>,
    /// The point's value as a CEL expression over the points of the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// Values for the points by a function in JavaScript over the points of the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<ScriptStep>,
}

/// A function over the points of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RowScript")]
pub struct ScriptStep {
    /// The points that it is given, by identifier. A row that lacks one of them is left as it is.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub reads: Vec<ElementName>,
    /// JavaScript with a function `transform(row)`: it returns an object with values for `points`, where null
    /// drops a value and what is not mentioned stays.
    #[schemars(length(min = 1, max = SCRIPT_SOURCE_BYTES_MAX))]
    pub source: String,
}

/// value × factor + offset.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleStep {
    #[serde(default = "one")]
    pub factor: f64,
    #[serde(default)]
    pub offset: f64,
}

const fn one() -> f64 {
    1.0
}

/// The units of a value as it comes and as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "UnitConversion")]
pub struct UnitStep {
    pub from: String,
    pub to: String,
}

/// The least and the greatest value, both included; one may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// Bounds, and what is done to a value outside them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RangeStep {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    pub otherwise: Otherwise,
    /// Of flag: the quality that the value gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9))]
    pub quality: Option<u8>,
}

/// What is done to a value outside the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    /// It is stored with another quality.
    Flag,
    /// It is not stored, and counted in data.reduced of the reply.
    Drop,
    /// Its item is refused with code 1204.
    Quarantine,
}
