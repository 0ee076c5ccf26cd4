//! What a session does about cursors, and what columns its statements answer.

use std::sync::Arc;

use datafusion::{
    logical_expr::LogicalPlan,
    sql::sqlparser::ast::{CloseCursor, Statement},
};
use datafusion_postgres::pgwire::api::store::PortalStore as _;
use datafusion_postgres::{
    arrow_pg::datatypes::arrow_schema_to_pg_fields,
    hooks::HookClient,
    pgwire::{
        api::{
            portal::{Format, Portal},
            results::{FieldInfo, Response, Tag},
            stmt::{QueryParser as _, StoredStatement},
        },
        error::PgWireResult,
        messages::response::TransactionStatus,
        types::format::FormatOptions,
    },
};

use super::{
    super::{
        cursor::{Asked, Declared, Taking},
        hooks::planned_query,
        settings::discards_all,
        transactions::ends,
    },
    Answer, Parsed, Session,
};

/// What a statement about a cursor comes with.
pub(super) struct OfCursor<'a> {
    /// Of a query that is declared, where it is planned already.
    pub(super) plan: Option<LogicalPlan>,
    pub(super) is_in_transaction: bool,
    pub(super) format: &'a Format,
    pub(super) at_once_max: usize,
}

impl Session {
    /// The columns that a statement answers.
    pub(super) async fn columns(
        &self,
        statement: &Parsed,
        format: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        let asked = statement.1.as_ref().map(|(statement, _)| statement);
        match asked.and_then(Asked::of) {
            // Its columns are those of its rows, which come with FETCH.
            Some(Asked::Declare(..) | Asked::Move(..) | Asked::Close(_)) => Ok(Vec::new()),
            Some(Asked::Fetch(name, _)) => {
                let schema = self.cursors.schema(name).await?;
                arrow_schema_to_pg_fields(&schema, format.unwrap_or(&Format::UnifiedText), None)
            }
            None => self.parser.get_result_schema(statement, format),
        }
    }

    /// Answers a statement about a cursor.
    pub(super) async fn cursor(
        &self,
        client: &mut impl HookClient,
        asked: Asked<'_>,
        of: OfCursor<'_>,
    ) -> PgWireResult<Response> {
        match asked {
            Asked::Declare(declare, query) => {
                let declared = Declared::of(declare, of.is_in_transaction)?;
                self.cursors.check(&declared)?;
                let plan = match of.plan {
                    Some(plan) => plan,
                    None => planned_query(&self.context, query).await?,
                };
                let described = (Statement::Query(Box::new(query.clone())), plan.clone());
                let (rows, cancelled) = self.begin(plan, client).await?;
                let rows = rows.patient();
                // Clients describe a cursor by its name before they fetch.
                let text = query.to_string();
                let name = declared.name.clone();
                let stored = StoredStatement::new(name.clone(), (text, Some(described)), vec![]);
                let portal = Portal::new_cursor(name, Arc::new(stored));
                HookClient::portal_store(client).put_portal(Arc::new(portal));
                let schema = rows.schema();
                let answer = Answer {
                    rows,
                    rows_left: usize::MAX,
                    cancelled,
                    watched: Arc::clone(&self.watched),
                };
                Ok(self.cursors.add(declared, schema, answer))
            }
            Asked::Fetch(name, direction) => {
                let taking = Taking {
                    format: of.format,
                    options: FormatOptions::from_client_metadata(client.metadata()),
                    at_once_max: of.at_once_max,
                    cancelled: self.login.current.begin(),
                };
                self.cursors.fetch(name, direction, taking).await
            }
            Asked::Move(name, direction) => {
                let cancelled = self.login.current.begin();
                self.cursors.pass(name, direction, cancelled).await
            }
            Asked::Close(which) => {
                for name in self.cursors.close(which)? {
                    HookClient::portal_store(client).rm_portal(&name);
                }
                Ok(Response::Execution(Tag::new("CLOSE CURSOR")))
            }
        }
    }

    /// What a statement ends beside what it says: its transaction, or all that the session has.
    pub(super) fn end_by(&self, statement: &Statement, client: &mut impl HookClient) {
        if ends(statement) {
            self.end_transaction(client);
        }
        let is_idle = client.transaction_status() == TransactionStatus::Idle;
        if discards_all(statement) && is_idle {
            for name in self.cursors.close(&CloseCursor::All).unwrap_or_default() {
                HookClient::portal_store(client).rm_portal(&name);
            }
        }
    }

    fn end_transaction(&self, client: &mut impl HookClient) {
        self.settings.end_transaction(client);
        for name in self.cursors.end_transaction() {
            HookClient::portal_store(client).rm_portal(&name);
        }
    }
}
