//! The JSON Schema of each kind: the contract of its object file.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    Kind, access_key::AccessKeyFile, archive::ArchiveFile, channel::ChannelFile,
    device::DeviceFile, model::ModelFile, policy::PolicyFile, product::ProductFile, rule::RuleFile,
    script::ScriptFile, subscription::SubscriptionFile,
};

/// The schema of an object of this kind (JSON Schema 2020-12), complete by itself.
pub fn schema(kind: Kind) -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = object(kind, &mut generator);
    let definitions = generator.take_definitions(true);
    if let Value::Object(members) = &mut schema {
        members.insert(
            "$schema".into(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        if !definitions.is_empty() {
            members.insert("$defs".into(), Value::Object(definitions));
        }
    }
    schema
}

/// The schemas of all kinds, by the kind's word, with what they refer to: members of
/// `components.schemas` of an API description.
pub fn object_schemas() -> Map<String, Value> {
    let mut generator = SchemaSettings::openapi3()
        .with(|settings| settings.meta_schema = None)
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut schemas: Map<String, Value> = Kind::ALL
        .into_iter()
        .map(|kind| (kind.word().to_owned(), object(kind, &mut generator)))
        .collect();
    schemas.extend(generator.take_definitions(true));
    schemas
}

fn object(kind: Kind, generator: &mut SchemaGenerator) -> Value {
    match kind {
        Kind::Model => with_header::<ModelFile>(kind, generator),
        Kind::Product => with_header::<ProductFile>(kind, generator),
        Kind::Device => with_header::<DeviceFile>(kind, generator),
        Kind::Channel => with_header::<ChannelFile>(kind, generator),
        Kind::Script => with_header::<ScriptFile>(kind, generator),
        Kind::AccessKey => with_header::<AccessKeyFile>(kind, generator),
        Kind::Subscription => with_header::<SubscriptionFile>(kind, generator),
        Kind::Policy => with_header::<PolicyFile>(kind, generator),
        Kind::Rule => with_header::<RuleFile>(kind, generator),
        Kind::Archive => with_header::<ArchiveFile>(kind, generator),
    }
}

/// The file of a kind, and `kind` and `name` before it.
fn with_header<T: JsonSchema>(kind: Kind, generator: &mut SchemaGenerator) -> Value {
    let mut schema = T::json_schema(generator).to_value();
    let members = schema
        .as_object_mut()
        .expect("the file of a kind is an object");
    let mut properties = Map::new();
    properties.insert("kind".into(), json!({ "const": kind.word() }));
    properties.insert(
        "name".into(),
        json!({
            "type": "string", "minLength": 1, "maxLength": 64,
            "description": "Letters of any script, digits, - _ ."
        }),
    );
    if let Some(Value::Object(own)) = members.remove("properties") {
        properties.extend(own);
    }
    let mut required = vec![json!("kind"), json!("name")];
    if let Some(Value::Array(own)) = members.remove("required") {
        required.extend(own);
    }
    members.insert("title".into(), json!(kind.word()));
    members.insert("properties".into(), Value::Object(properties));
    members.insert("required".into(), Value::Array(required));
    members.insert("additionalProperties".into(), json!(false));
    schema
}
