//! What happens to a statement before the library plans and runs it: what does not only read is refused,
//! and what the library would not plan is planned.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    common::{DFSchema, ParamValues},
    execution::context::SessionContext,
    logical_expr::{EmptyRelation, LogicalPlan},
    sql::{
        parser,
        sqlparser::ast::{Query, Statement},
    },
};
use datafusion_postgres::{
    QueryHook,
    hooks::HookClient,
    pgwire::{
        api::{ClientInfo, results::Response},
        error::{PgWireError, PgWireResult},
    },
};

use super::{catalogue::simplify, cursor::Asked, fault, login::Login, settings::is_of_session};
use crate::sql::check_statement;

/// The plan of a statement.
pub(super) async fn planned(
    context: &SessionContext,
    statement: Statement,
) -> PgWireResult<LogicalPlan> {
    let statement = parser::Statement::Statement(Box::new(statement));
    let plan = context.state().statement_to_plan(statement).await;
    plan.map_err(|error| fault::of_sql(&error.into()))
}

/// The plan of a query inside another statement.
pub(super) async fn planned_query(
    context: &SessionContext,
    query: &Query,
) -> PgWireResult<LogicalPlan> {
    let mut statement = Statement::Query(Box::new(query.clone()));
    simplify(&mut statement);
    planned(context, statement).await
}

/// What answers statements itself. As text or prepared, a statement has one answer; the library asks
/// for it in other calls, which [`Hook`] has.
#[async_trait]
pub(super) trait Answers: Send + Sync {
    /// What is answered; `None`: it is not for this one.
    async fn answer(
        &self,
        statement: &Statement,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>>;

    /// The plan of a prepared statement that will be answered here: it tells its columns.
    fn plan(&self, statement: &Statement) -> Option<PgWireResult<LogicalPlan>>;
}

/// The library's hook of what answers statements itself.
pub(super) struct Hook<A>(pub(super) A);

#[async_trait]
impl<A: Answers> QueryHook for Hook<A> {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.0.answer(statement, client).await
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        self.0.plan(statement)
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.0.answer(statement, client).await
    }
}

/// Refuses what does not only read, and whoever's login no longer holds.
pub(super) struct ReadOnly(pub(super) Arc<Login>);

impl ReadOnly {
    fn refusal(&self, statement: &Statement) -> Option<PgWireError> {
        if let Err(error) = self.0.caller() {
            return Some(error);
        }
        // A cursor's query is checked as every plan is.
        let is_of_savepoint = matches!(
            statement,
            Statement::Savepoint { .. } | Statement::ReleaseSavepoint { .. }
        );
        if is_of_savepoint || is_of_session(statement) || Asked::of(statement).is_some() {
            return None;
        }
        check_statement(statement)
            .err()
            .map(|error| fault::of_sql(&error))
    }
}

/// The plan of a statement that has no rows to plan.
pub(super) fn nothing() -> LogicalPlan {
    LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: false,
        schema: Arc::new(DFSchema::empty()),
    })
}

#[async_trait]
impl Answers for ReadOnly {
    async fn answer(
        &self,
        statement: &Statement,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.refusal(statement).map(Err)
    }

    fn plan(&self, statement: &Statement) -> Option<PgWireResult<LogicalPlan>> {
        self.refusal(statement).map(Err)
    }
}

/// Plans what the library would not: a cursor's query, and questions to the catalogue made simpler.
pub(super) struct Planned;

#[async_trait]
impl QueryHook for Planned {
    async fn handle_simple_query(
        &self,
        _: &Statement,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        None
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        context: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        match Asked::of(statement) {
            Some(Asked::Declare(_, query)) => Some(planned_query(context, query).await),
            Some(Asked::Fetch(..) | Asked::Move(..) | Asked::Close(_)) => Some(Ok(nothing())),
            None => {
                let mut simple = statement.clone();
                match simplify(&mut simple) {
                    true => Some(planned(context, simple).await),
                    false => None,
                }
            }
        }
    }

    async fn handle_extended_query(
        &self,
        _: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        None
    }
}
