//! A session's settings: `SET`, `SHOW`, `RESET`, `DISCARD` and what else drivers send to begin anew.
//!
//! What a session sets is kept with its connection, and `SHOW` answers it; of the settings only
//! `statement_timeout` and those about how values are written change anything. `SET LOCAL` holds until
//! its transaction ends.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::{DataType, Field, Schema},
    common::{ParamValues, ToDFSchema as _},
    execution::context::SessionContext,
    logical_expr::{EmptyRelation, LogicalPlan},
    sql::sqlparser::ast::{
        ContextModifier, DiscardObject, Expr, Ident, Reset, Set, Statement, Value,
    },
};
use datafusion_postgres::pgwire::api::store::PortalStore as _;
use datafusion_postgres::{
    QueryHook,
    hooks::HookClient,
    pgwire::{
        api::{
            ClientInfo, Type,
            results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag},
        },
        error::{PgWireError, PgWireResult},
        messages::{PgWireBackendMessage, response::TransactionStatus, startup::ParameterStatus},
    },
};
use futures::stream;
use parking_lot::Mutex;

use super::{fault, hooks::nothing};
use crate::{
    limits::SQL_SETTINGS_MAX,
    sql::{SETTINGS, setting},
};

const STATEMENT_TIMEOUT: &str = "statement_timeout";
/// Whatever is set, it is this.
const READ_ONLY: &[&str] = &["transaction_read_only", "default_transaction_read_only"];
/// Those that PostgreSQL tells its clients of when they change.
const TOLD: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
];
const UTF8: &[&str] = &["UTF8", "UTF-8", "UNICODE"];

/// Whether a statement is about the session alone, so that it changes nothing.
pub(super) fn is_of_session(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Reset(_)
            | Statement::Discard { .. }
            | Statement::Deallocate { .. }
            | Statement::UNLISTEN { .. }
    )
}

/// Whether a statement gives up all that the session has, its cursors too.
pub(super) fn discards_all(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Discard {
            object_type: DiscardObject::ALL
        }
    )
}

/// The time limit that a session has set itself.
pub(super) fn statement_timeout(client: &(dyn ClientInfo + Send + Sync)) -> Option<Duration> {
    let set = client.metadata().get(STATEMENT_TIMEOUT)?;
    span(set).filter(|span| !span.is_zero())
}

/// Settings as a client names them when it connects, in `options` too (`-c name=value`), under the
/// names that sessions keep them by.
///
/// # Errors
/// One of them cannot be had.
pub(super) fn at_startup<C: ClientInfo>(client: &mut C) -> PgWireResult<()> {
    let asked = client.metadata().clone();
    let options = asked.get("options").map(String::as_str).unwrap_or_default();
    let mut words = options.split_whitespace();
    let mut named: Vec<(String, String)> = Vec::new();
    while let Some(word) = words.next() {
        let pair = match word.strip_prefix("-c") {
            Some("") => words.next(),
            Some(pair) => Some(pair),
            None => word.strip_prefix("--"),
        };
        if let Some((name, value)) = pair.and_then(|pair| pair.split_once('=')) {
            named.push((name.to_owned(), value.to_owned()));
        }
    }
    for (name, value) in asked.into_iter().chain(named) {
        if setting(&name).is_some() {
            keep(client.metadata_mut(), &name, &value)?;
        }
    }
    Ok(())
}

/// Keeps what is set, under its name in small letters. Settings that PostgreSQL would know and this
/// server has no use for are taken and not kept; names with a dot are the client's own.
fn keep(kept: &mut HashMap<String, String>, name: &str, value: &str) -> PgWireResult<()> {
    let invalid = |hint: &str| {
        let message = format!("invalid value for {name}: \"{value}\"");
        Err(fault::of("ERROR", "22023", &message, hint))
    };
    if setting(name).is_some_and(|setting| !setting.is_settable) {
        let message = format!("{name} cannot be changed");
        return Err(fault::of("ERROR", "55P02", &message, "leave it as it is"));
    }
    if name.eq_ignore_ascii_case(STATEMENT_TIMEOUT) && span(value).is_none() {
        return invalid("give milliseconds, or a number with us, ms, s, min, h or d");
    }
    let is_utf8 = UTF8.iter().any(|utf8| value.eq_ignore_ascii_case(utf8));
    if name.eq_ignore_ascii_case("client_encoding") && !is_utf8 {
        return invalid("texts are UTF-8 here: set it to UTF8");
    }
    let name = name.to_lowercase();
    let is_own = name.contains('.');
    if is_own && !kept.contains_key(&name) && kept.len() >= SQL_SETTINGS_MAX {
        let message = format!("{SQL_SETTINGS_MAX} settings are kept already");
        return Err(fault::of(
            "ERROR",
            "53400",
            &message,
            "reset those that are not needed: RESET ALL",
        ));
    }
    let is_known = setting(&name).is_some() && !READ_ONLY.contains(&name.as_str());
    if is_known || is_own {
        kept.insert(name, value.to_owned());
    }
    Ok(())
}

/// A span of time as PostgreSQL writes it; milliseconds where there is no unit.
fn span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let micros = match unit.trim() {
        "us" => 1,
        "" | "ms" => 1_000,
        "s" => 1_000_000,
        "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    number.checked_mul(micros).map(Duration::from_micros)
}

/// Answers what is said of settings, and of the session as a whole.
#[derive(Default)]
pub(super) struct Settings {
    /// What was before `SET LOCAL`.
    before: Mutex<HashMap<String, Option<String>>>,
}

impl Settings {
    /// What was set for the transaction alone holds no longer.
    pub(super) fn end_transaction(&self, client: &mut (impl ClientInfo + ?Sized)) {
        for (name, value) in self.before.lock().drain() {
            match value {
                Some(value) => client.metadata_mut().insert(name, value),
                None => client.metadata_mut().remove(&name),
            };
        }
    }

    async fn said(
        &self,
        statement: &Statement,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        match statement {
            Statement::Set(set) => Some(self.set(set, client).await),
            Statement::ShowVariable { variable } => Some(show(variable, client)),
            Statement::Reset(reset) => Some(reset_to_default(&reset.reset, client).await),
            Statement::Discard { object_type } => Some(discard(object_type, client)),
            Statement::Deallocate { name, .. } => {
                client.portal_store().rm_statement(&name.value);
                Some(done("DEALLOCATE"))
            }
            Statement::UNLISTEN { .. } => Some(done("UNLISTEN")),
            _ => None,
        }
    }

    async fn set(&self, set: &Set, client: &mut dyn HookClient) -> PgWireResult<Response> {
        match set {
            Set::SingleAssignment {
                scope,
                variable,
                values,
                ..
            } => {
                let name = variable.to_string().replace('"', "");
                let values: Vec<String> = values.iter().map(text).collect();
                let is_local = *scope == Some(ContextModifier::Local);
                self.set_one(&name, &values.join(", "), is_local, client)
                    .await
            }
            Set::SetTimeZone { local, value } => {
                self.set_one("TimeZone", &text(value), *local, client).await
            }
            Set::SetNames { charset_name, .. } => {
                self.set_one("client_encoding", &charset_name.value, false, client)
                    .await
            }
            // Of transactions and roles: a session reads, with the rights of its login.
            _ => done("SET"),
        }
    }

    async fn set_one(
        &self,
        name: &str,
        value: &str,
        is_local: bool,
        client: &mut dyn HookClient,
    ) -> PgWireResult<Response> {
        if is_local {
            // Without a transaction it has no effect.
            if client.transaction_status() == TransactionStatus::Idle {
                return done("SET");
            }
            let key = name.to_lowercase();
            let before = client.metadata().get(&key).cloned();
            self.before.lock().entry(key).or_insert(before);
        }
        if value.eq_ignore_ascii_case("default") {
            client.metadata_mut().remove(&name.to_lowercase());
        } else {
            keep(client.metadata_mut(), name, value)?;
        }
        tell(name, client).await?;
        done("SET")
    }
}

fn done(tag: &str) -> PgWireResult<Response> {
    Ok(Response::Execution(Tag::new(tag)))
}

/// A value as it is meant, not as it is written.
fn text(value: &Expr) -> String {
    match value {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.clone(),
            Value::Boolean(is_on) => if *is_on { "on" } else { "off" }.to_owned(),
            value => value.clone().into_string().unwrap_or_default(),
        },
        Expr::Identifier(name) => name.value.clone(),
        other => other.to_string(),
    }
}

/// Tells the client of a setting that it follows.
async fn tell(name: &str, client: &mut dyn HookClient) -> PgWireResult<()> {
    let Some(told) = TOLD.iter().find(|told| told.eq_ignore_ascii_case(name)) else {
        return Ok(());
    };
    let value = value_of(told, client).unwrap_or_default();
    let status = ParameterStatus::new((*told).to_owned(), value);
    client
        .send_message(PgWireBackendMessage::ParameterStatus(status))
        .await
}

fn value_of(name: &str, client: &(impl ClientInfo + ?Sized)) -> Option<String> {
    let known = setting(name);
    let kept = known
        .is_none_or(|setting| setting.is_settable)
        .then(|| client.metadata().get(&name.to_lowercase()).cloned())
        .flatten();
    kept.or_else(|| known.map(|setting| setting.value.to_owned()))
}

async fn reset_to_default(reset: &Reset, client: &mut dyn HookClient) -> PgWireResult<Response> {
    match reset {
        Reset::ALL => forget(client),
        Reset::ConfigurationParameter(name) => {
            let name = name.to_string().replace('"', "");
            client.metadata_mut().remove(&name.to_lowercase());
            tell(&name, client).await?;
        }
    }
    done("RESET")
}

/// Every setting is what it is by default.
fn forget(client: &mut dyn HookClient) {
    for setting in SETTINGS {
        client.metadata_mut().remove(&setting.name.to_lowercase());
    }
    client.metadata_mut().retain(|name, _| !name.contains('.'));
}

fn discard(what: &DiscardObject, client: &mut dyn HookClient) -> PgWireResult<Response> {
    if matches!(what, DiscardObject::ALL) {
        if client.transaction_status() != TransactionStatus::Idle {
            return Err(fault::of(
                "ERROR",
                "25001",
                "DISCARD ALL stands outside transactions",
                "COMMIT or ROLLBACK first",
            ));
        }
        forget(client);
    }
    done(&format!("DISCARD {what}"))
}

// --- SHOW ---

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

fn show(variable: &[Ident], client: &dyn HookClient) -> PgWireResult<Response> {
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

/// What a client is told before the statement runs: its columns.
fn described(statement: &Statement) -> Option<LogicalPlan> {
    let name = match statement {
        Statement::ShowVariable { variable } => shown(variable),
        Statement::Set(_) => return Some(nothing()),
        other => return is_of_session(other).then(nothing),
    };
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

#[async_trait]
impl QueryHook for Settings {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.said(statement, client).await
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        described(statement).map(Ok)
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.said(statement, client).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(kept: PgWireResult<()>) -> Option<String> {
        match kept {
            Err(PgWireError::UserError(info)) => Some(info.code),
            _ => None,
        }
    }

    #[test]
    fn spans_have_units_and_are_milliseconds_without() {
        assert_eq!(span("1500"), Some(Duration::from_millis(1500)));
        assert_eq!(span("5s"), Some(Duration::from_secs(5)));
        assert_eq!(span(" 2 min"), Some(Duration::from_secs(120)));
        assert_eq!(span("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(span("soon"), None);
        assert_eq!(span("5 weeks"), None);
        assert_eq!(span("99999999999999999d"), None);
    }

    #[test]
    fn what_is_set_is_kept_and_what_cannot_be_is_told() {
        let mut kept = HashMap::new();
        keep(&mut kept, "DateStyle", "ISO, DMY").unwrap();
        keep(&mut kept, "my.own", "1").unwrap();
        keep(&mut kept, "default_transaction_read_only", "off").unwrap();
        assert_eq!(kept["datestyle"], "ISO, DMY");
        assert_eq!(kept["my.own"], "1");
        assert_eq!(kept.len(), 2);
        assert_eq!(
            code(keep(&mut kept, "server_version", "9")).unwrap(),
            "55P02"
        );
        assert_eq!(
            code(keep(&mut kept, "statement_timeout", "soon")).unwrap(),
            "22023"
        );
        assert_eq!(
            code(keep(&mut kept, "client_encoding", "LATIN1")).unwrap(),
            "22023"
        );
    }

    #[test]
    fn names_of_a_clients_own_are_kept_up_to_a_bound_and_names_of_no_use_are_not() {
        let mut kept = HashMap::new();
        keep(&mut kept, "enable_seqscan", "off").unwrap();
        assert!(kept.is_empty());
        for number in 0..SQL_SETTINGS_MAX {
            keep(&mut kept, &format!("my.{number}"), "1").unwrap();
        }
        keep(&mut kept, "my.0", "2").unwrap();
        assert_eq!(code(keep(&mut kept, "my.more", "1")).unwrap(), "53400");
    }
}
