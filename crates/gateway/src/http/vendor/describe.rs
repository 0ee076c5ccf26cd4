//! The description of the vendor-compatible API (OpenAPI 3.1), made of what is served.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Operation, Style};

/// Parameters of the query that say who calls in the 2018 way.
const SIGNED: [&str; 3] = ["accessKey", "requestTimestamp", "sign"];
/// The parts of multipart bodies.
const PARTS: [&str; 2] = ["enos-message", "data"];

pub(super) fn document(operations: impl Iterator<Item = &'static Operation>) -> Value {
    let mut paths: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        paths.entry(operation.path).or_default().push(operation);
    }
    let paths: Map<String, Value> = paths
        .into_iter()
        .map(|(path, operations)| (path.to_owned(), path_item(path, &operations)))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Backtide, vendor-compatible API",
            "description": "What scripts and SDKs written for EnOS call, after changing the host. Operations \
                that a path has in common are told apart by action. GET and POST are both taken; parameters \
                may stand in the query or in the body.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "apiKey", "in": "header", "name": "apim-accesstoken",
                    "description": "A token of /apim-token-service, alone or with apim-signature and \
                        apim-timestamp; or what enos-poseidon encrypts" },
                "sha1": { "type": "apiKey", "in": "query", "name": "sign",
                    "description": "With accessKey and requestTimestamp" },
            },
            "schemas": {
                "Code": envelope("code", json!({ "requestId": { "type": "string" } })),
                "Status": envelope("status", json!({ "requestId": { "type": "string" } })),
                "Token": envelope("status", json!({ "business": { "type": "string" } })),
            },
        },
    })
}

fn envelope(code: &str, more: Value) -> Value {
    let mut members = json!({
        code: { "type": "integer", "description": "0, or why it is refused" },
        "msg": { "type": "string" },
        "submsg": { "type": ["string", "null"] },
        "data": {},
        "pagination": { "type": "object" },
    });
    if let (Some(members), Value::Object(more)) = (members.as_object_mut(), more) {
        members.extend(more);
    }
    json!({ "type": "object", "required": [code, "msg", "data"], "properties": members })
}

fn path_item(path: &str, operations: &[&Operation]) -> Value {
    json!({ "get": described(path, operations, false), "post": described(path, operations, true) })
}

fn described(path: &str, operations: &[&Operation], is_post: bool) -> Value {
    let first = operations[0];
    let style = match first.style {
        Style::Code => "Code",
        Style::Status => "Status",
        Style::Token => "Token",
    };
    let summary = match operations {
        [only] => only.summary.to_owned(),
        several => several
            .iter()
            .filter_map(|one| Some(format!("{}: {}", one.action?, one.summary)))
            .collect::<Vec<_>>()
            .join(". "),
    };
    let id: String = path
        .chars()
        .filter(|c| !"{}".contains(*c))
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let method = if is_post { "post" } else { "get" };
    let answer = json!({ "description": "The answer; its code says whether it is a refusal",
        "content": { "application/json": { "schema": { "$ref": format!("#/components/schemas/{style}") } } } });
    let mut described = json!({
        "operationId": format!("{method}{id}"),
        "tags": [path.split('/').nth(1).unwrap_or_default()],
        "summary": summary,
        "parameters": parameters(path, operations),
        "responses": { "200": answer, "default": answer },
    });
    if first.rights.is_empty() {
        described["security"] = json!([]);
    } else {
        described["security"] = json!([{ "token": [] }, { "sha1": [] }]);
    }
    if is_post {
        described["requestBody"] = body(operations);
    }
    described
}

/// Names of parameters, without their mark.
fn names(operations: &[&Operation]) -> BTreeSet<&'static str> {
    let all = operations.iter().flat_map(|operation| operation.params);
    all.flat_map(|names| names.iter())
        .map(|name| name.trim_end_matches('*'))
        .collect()
}

fn parameters(path: &str, operations: &[&Operation]) -> Vec<Value> {
    let mut parameters = Vec::new();
    let actions: Vec<_> = operations
        .iter()
        .filter_map(|operation| operation.action)
        .collect();
    if !actions.is_empty() {
        parameters.push(json!({ "name": "action", "in": "query", "required": true,
            "schema": { "type": "string", "enum": actions } }));
    }
    for part in path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    {
        parameters.push(
            json!({ "name": part, "in": "path", "required": true, "schema": { "type": "string" } }),
        );
    }
    for name in names(operations)
        .into_iter()
        .filter(|name| !PARTS.contains(name))
    {
        parameters.push(json!({ "name": name, "in": "query", "required": false, "schema": { "type": "string" } }));
    }
    if !operations[0].rights.is_empty() {
        for name in SIGNED.into_iter().filter(|name| *name != "sign") {
            parameters.push(json!({ "name": name, "in": "query", "required": false, "schema": { "type": "string" } }));
        }
        for name in ["apim-signature", "apim-timestamp"] {
            parameters.push(json!({ "name": name, "in": "header", "required": false, "schema": { "type": "string" } }));
        }
    }
    parameters
}

fn body(operations: &[&Operation]) -> Value {
    let names = names(operations);
    if let Some(part) = PARTS.into_iter().find(|part| names.contains(part)) {
        let schema = json!({ "type": "object", "required": [part],
            "properties": { part: { "type": "string", "description": "The message, leniently read JSON" } } });
        return json!({ "required": true, "content": { "multipart/form-data": { "schema": schema } } });
    }
    let properties: Map<String, Value> = names
        .into_iter()
        .map(|name| (name.to_owned(), json!({})))
        .collect();
    let schema = json!({ "type": "object", "properties": properties });
    json!({ "required": false, "content": { "application/json": { "schema": schema } } })
}
