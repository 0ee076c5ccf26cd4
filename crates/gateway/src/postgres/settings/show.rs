//! `SHOW`: one setting, or all of them with what they are for.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field, Schema},
    common::ToDFSchema as _,
    logical_expr::{EmptyRelation, LogicalPlan},
    sql::sqlparser::ast::Ident,
};
use datafusion_postgres::{
    hooks::HookClient,
    pgwire::{
        api::{
            Type,
            results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response},
        },
        error::{PgWireError, PgWireResult},
    },
};
use futures::stream;

use super::{super::fault, kept::value_of};
use crate::sql::{SETTINGS, setting};

/// What `SHOW` names, as a setting is called.
fn shown(variable: &[Ident]) -> String {
    let words: Vec<String> = variable
        .iter()
        .map(|word| word.value.to_lowercase())
        .collect();
    match words.join(" ").as_str() {
        "time zone" => "TimeZone".to_owned(),
        "transaction isolation level" => "transaction_isolation".to_owned(),
        _ => {
            let name = words.join(".");
            setting(&name).map_or(name, |setting| setting.name.to_owned())
        }
    }
}

fn is_all(name: &str) -> bool {
    name == "all"
}

fn columns(name: &str) -> Vec<&str> {
    match is_all(name) {
        true => vec!["name", "setting", "description"],
        false => vec![name],
    }
}

pub(super) fn show(variable: &[Ident], client: &dyn HookClient) -> PgWireResult<Response> {
    let name = shown(variable);
    let value = |name: &str| value_of(name, client);
    let rows: Vec<Vec<String>> = match is_all(&name) {
        true => SETTINGS
            .iter()
            .map(|setting| {
                let value = value(setting.name).unwrap_or_default();
                vec![
                    setting.name.to_owned(),
                    value,
                    setting.description.to_owned(),
                ]
            })
            .collect(),
        false => vec![vec![value(&name).ok_or_else(|| unknown(&name))?]],
    };
    let field =
        |name: &str| FieldInfo::new(name.to_owned(), None, None, Type::TEXT, FieldFormat::Text);
    let fields = Arc::new(columns(&name).into_iter().map(field).collect::<Vec<_>>());
    let mut encoder = DataRowEncoder::new(Arc::clone(&fields));
    let mut encoded = Vec::with_capacity(rows.len());
    for row in rows {
        for value in row {
            encoder.encode_field(&Some(value))?;
        }
        encoded.push(Ok(encoder.take_row()));
    }
    let mut response = QueryResponse::new(fields, stream::iter(encoded));
    response.set_command_tag("SHOW");
    Ok(Response::Query(response))
}

fn unknown(name: &str) -> PgWireError {
    let message = format!("there is no setting {name}");
    fault::of("ERROR", "42704", &message, "SHOW ALL lists those there are")
}

/// The plan that tells a client the columns before it runs.
pub(super) fn plan(variable: &[Ident]) -> Option<LogicalPlan> {
    let name = shown(variable);
    let fields: Vec<Field> = columns(&name)
        .into_iter()
        .map(|name| Field::new(name, DataType::Utf8, true))
        .collect();
    let schema = Schema::new(fields).to_dfschema().ok()?;
    Some(LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: false,
        schema: Arc::new(schema),
    }))
}
