//! Models as they are declared. The thing model itself is `backtide_model::Model`.

use std::{collections::BTreeMap, sync::Arc};

use backtide_model::{ElementFile, Level, Model, ObjectName};
use schemars::JsonSchema;

/// A declared model.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclaredModel {
    pub name: ObjectName,
    pub model: Arc<Model>,
}

/// The shape of a model in an object file, for the schema that is served. A test holds it against
/// what is read.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct ModelFile {
    /// Points that the model does not declare are stored too, as JSON text.
    #[schemars(default)]
    passthrough: bool,
    description: Option<String>,
    /// By identifier.
    #[schemars(default)]
    measurepoints: BTreeMap<String, ElementFile>,
    /// By identifier.
    #[schemars(default)]
    events: BTreeMap<String, EventFile>,
    /// By identifier.
    #[schemars(default)]
    attributes: BTreeMap<String, ElementFile>,
}

/// An event: `{ level: warn, output: { code: { type: int } } }`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct EventFile {
    #[schemars(default)]
    level: Level,
    description: Option<String>,
    #[schemars(default)]
    output: BTreeMap<String, ElementFile>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields that serde expects, as it lists them when it meets another.
    fn expected<T: serde::de::DeserializeOwned>() -> Vec<String> {
        let error = serde_json::from_str::<T>("{\"?\":0}")
            .err()
            .unwrap()
            .to_string();
        let list = error.split("expected ").nth(1).unwrap();
        let mut fields: Vec<String> = list
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        fields.sort();
        fields
    }

    fn described<T: JsonSchema>() -> Vec<String> {
        let schema = schemars::schema_for!(T);
        schema
            .get("properties")
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    }

    #[test]
    fn the_schema_of_a_model_names_the_fields_that_are_read() {
        let sorted = |mut fields: Vec<String>| {
            fields.sort();
            fields
        };
        assert_eq!(sorted(described::<ModelFile>()), expected::<Model>());
        assert_eq!(
            sorted(described::<EventFile>()),
            expected::<backtide_model::Event>()
        );
    }
}
