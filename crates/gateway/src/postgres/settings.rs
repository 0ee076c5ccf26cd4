//! A session's settings: `SET`, `SHOW`, `RESET`, `DISCARD` and what else drivers send to begin anew.
//!
//! What a session sets is kept with its connection, and `SHOW` answers it; of the settings only
//! `statement_timeout` and those about how values are written change anything. `SET LOCAL` holds until
//! its transaction ends.

mod kept;
mod show;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    logical_expr::LogicalPlan,
    sql::sqlparser::ast::{ContextModifier, DiscardObject, Expr, Reset, Set, Statement, Value},
};
use datafusion_postgres::pgwire::api::store::PortalStore as _;
use datafusion_postgres::{
    hooks::HookClient,
    pgwire::{
        api::{
            ClientInfo,
            results::{Response, Tag},
        },
        error::PgWireResult,
        messages::{PgWireBackendMessage, response::TransactionStatus, startup::ParameterStatus},
    },
};
use parking_lot::Mutex;

pub(super) use self::kept::{at_startup, statement_timeout};
use self::kept::{forget, keep, value_of};
use super::{
    fault,
    hooks::{Answers, nothing},
};

/// Those that PostgreSQL tells its clients of when they change.
const TOLD: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
];

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

/// Answers what is said of settings, and of the session as a whole.
#[derive(Clone, Default)]
pub(super) struct Settings {
    /// What was before `SET LOCAL`.
    before: Arc<Mutex<HashMap<String, Option<String>>>>,
}

#[async_trait]
impl Answers for Settings {
    async fn answer(
        &self,
        statement: &Statement,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        match statement {
            Statement::Set(set) => Some(self.set(set, client).await),
            Statement::ShowVariable { variable } => Some(show::show(variable, client)),
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

    fn plan(&self, statement: &Statement) -> Option<PgWireResult<LogicalPlan>> {
        let plan = match statement {
            Statement::ShowVariable { variable } => show::plan(variable),
            Statement::Set(_) => Some(nothing()),
            other => is_of_session(other).then(nothing),
        };
        plan.map(Ok)
    }
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

async fn reset_to_default(reset: &Reset, client: &mut dyn HookClient) -> PgWireResult<Response> {
    match reset {
        Reset::ALL => forget(client.metadata_mut()),
        Reset::ConfigurationParameter(name) => {
            let name = name.to_string().replace('"', "");
            client.metadata_mut().remove(&name.to_lowercase());
            tell(&name, client).await?;
        }
    }
    done("RESET")
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
        forget(client.metadata_mut());
    }
    done(&format!("DISCARD {what}"))
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
