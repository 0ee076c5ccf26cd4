//! What a client asks once it is in: statements as text, or prepared ones with parameters.

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, ParamValues},
    execution::context::SessionContext,
    logical_expr::{EmptyRelation, LogicalPlan},
    sql::{parser, sqlparser::ast::Statement},
};
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::{
    DfSessionService, Parser, QueryHook,
    arrow_pg::datatypes::{
        arrow_schema_to_pg_fields, df::deserialize_parameters_with_server_types, encode_recordbatch,
    },
    datafusion_pg_catalog::sql::PostgresCompatibilityParser,
    hooks::{HookClient, set_show::SetShowHook, transactions::TransactionStatementHook},
    pgwire::{
        api::{
            ClientInfo, ClientPortalStore, ErrorHandler, PgWireServerHandlers, Type,
            auth::StartupHandler,
            cancel::CancelHandler,
            portal::{Format, Portal},
            query::{ExtendedQueryHandler, SimpleQueryHandler},
            results::{QueryResponse, Response, Tag},
            stmt::QueryParser,
        },
        error::{PgWireError, PgWireResult},
        messages::PgWireBackendMessage,
        types::format::FormatOptions,
    },
};
use futures::{Sink, StreamExt as _, stream};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{
    cancel::{Cancels, gone},
    fault::{self, Faults},
    login::Login,
};
use crate::{
    limits::SQL_ROWS_AT_ONCE_MAX as ROWS_AT_ONCE_MAX,
    sql::{Engine, Rows, SqlError, check_statement},
};

/// Where datafusion-postgres notes `SET statement_timeout`, milliseconds.
const STATEMENT_TIMEOUT: &str = "statement_timeout_ms";

const TOO_MANY_ROWS: &str = "a prepared statement gives its rows at once, and these are more than a \
    million; set a fetch size, or ask over HTTP";

/// Everything that one connection is served by.
pub(super) struct Handlers {
    session: Arc<Session>,
    login: Arc<Login>,
    cancels: Arc<Cancels>,
}

impl Handlers {
    /// # Errors
    /// SQL cannot begin.
    pub(super) fn new(
        engine: Arc<Engine>,
        login: Login,
        watched: TcpStream,
    ) -> Result<Self, SqlError> {
        let login = Arc::new(login);
        let session = Session::new(engine, Arc::clone(&login), watched)?;
        Ok(Self {
            cancels: login.cancels(),
            session: Arc::new(session),
            login,
        })
    }
}

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::clone(&self.session)
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::clone(&self.session)
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::clone(&self.login)
    }

    fn error_handler(&self) -> Arc<impl ErrorHandler> {
        Arc::new(Faults)
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::clone(&self.cancels)
    }
}

/// The statements of one connection.
struct Session {
    engine: Arc<Engine>,
    login: Arc<Login>,
    watched: Arc<TcpStream>,
    context: Arc<SessionContext>,
    /// Before anything is planned: what is refused, and what is no query.
    hooks: Vec<Arc<dyn QueryHook>>,
    texts: PostgresCompatibilityParser,
    parser: Arc<Parser>,
}

impl Session {
    fn new(engine: Arc<Engine>, login: Arc<Login>, watched: TcpStream) -> Result<Self, SqlError> {
        let context = engine.session()?;
        let hooks: Vec<Arc<dyn QueryHook>> = vec![
            Arc::new(ReadOnly(Arc::clone(&login))),
            Arc::new(SetShowHook),
            Arc::new(TransactionStatementHook),
        ];
        let service = DfSessionService::new_with_hooks(Arc::clone(&context), hooks.clone());
        Ok(Self {
            engine,
            login,
            watched: Arc::new(watched),
            context,
            hooks,
            texts: PostgresCompatibilityParser::new(),
            parser: service.query_parser(),
        })
    }

    /// Runs a plan; its rows end with the query's token.
    async fn run(
        &self,
        plan: LogicalPlan,
        format: &Format,
        client: &(dyn ClientInfo + Send + Sync),
        rows_max: usize,
    ) -> PgWireResult<Response> {
        let caller = self.login.caller()?;
        let timeout = client.metadata().get(STATEMENT_TIMEOUT);
        let timeout = timeout.and_then(|ms| ms.parse().ok());
        let timeout = timeout.map(Duration::from_millis);
        let cancelled = self.login.current.begin();
        let begun = self.engine.run(&caller.name, &self.context, plan, timeout);
        let rows = tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(SqlError::Cancelled),
            () = gone(&self.watched) => Err(SqlError::Cancelled),
            rows = Box::pin(begun) => rows,
        };
        let rows = rows.map_err(|error| fault::of_sql(&error))?;
        let options = Arc::new(FormatOptions::from_client_metadata(client.metadata()));
        let fields = arrow_schema_to_pg_fields(&rows.schema(), format, Some(options))?;
        let fields = Arc::new(fields);
        let answer = Answer {
            rows,
            rows_left: rows_max,
            cancelled,
            watched: Arc::clone(&self.watched),
        };
        let encoded = Arc::clone(&fields);
        let batches = stream::unfold(answer, Answer::next);
        let rows = batches.flat_map(move |batch| {
            let rows: Box<dyn Iterator<Item = _> + Send> = match batch {
                Ok(batch) => encode_recordbatch(Arc::clone(&encoded), batch),
                Err(error) => Box::new(std::iter::once(Err(fault::of_sql(&error)))),
            };
            stream::iter(rows)
        });
        Ok(Response::Query(QueryResponse::new(fields, rows)))
    }
}

/// Rows on their way to a client that may leave.
struct Answer {
    rows: Rows,
    rows_left: usize,
    cancelled: CancellationToken,
    watched: Arc<TcpStream>,
}

impl Answer {
    async fn next(mut self) -> Option<(Result<crate::sql::RecordBatch, SqlError>, Self)> {
        let next = tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Some(Err(SqlError::Cancelled)),
            next = self.rows.next() => next,
            () = gone(&self.watched) => Some(Err(SqlError::Cancelled)),
        };
        let next = next?.and_then(|batch| match self.rows_left.checked_sub(batch.num_rows()) {
            Some(rows_left) => {
                self.rows_left = rows_left;
                Ok(batch)
            }
            None => Err(SqlError::Memory(TOO_MANY_ROWS.to_owned())),
        });
        Some((next, self))
    }
}

#[async_trait]
impl SimpleQueryHandler for Session {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = self
            .texts
            .parse(query)
            .map_err(|error| fault::of_sql(&SqlError::Syntax(error.to_string())))?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        let mut responses = Vec::with_capacity(statements.len());
        'statements: for statement in statements {
            for hook in &self.hooks {
                let said = hook
                    .handle_simple_query(&statement, &self.context, client)
                    .await;
                if let Some(said) = said {
                    responses.push(said?);
                    continue 'statements;
                }
            }
            let statement = parser::Statement::Statement(Box::new(statement));
            let plan = self.context.state().statement_to_plan(statement).await;
            let plan = plan.map_err(|error| fault::of_sql(&error.into()))?;
            responses.push(
                self.run(plan, &Format::UnifiedText, client, usize::MAX)
                    .await?,
            );
        }
        Ok(responses)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Session {
    type Statement = (String, Option<(Statement, LogicalPlan)>);
    type QueryParser = Parser;

    fn query_parser(&self) -> Arc<Parser> {
        Arc::clone(&self.parser)
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Self::Statement>,
        max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let (_, Some((statement, plan))) = &portal.statement.statement else {
            return Ok(Response::EmptyQuery);
        };
        let values = self.parameters(portal, plan)?;
        for hook in &self.hooks {
            let said = hook
                .handle_extended_query(statement, plan, &values, &self.context, client)
                .await;
            if let Some(said) = said {
                return said;
            }
        }
        let plan = plan.clone().replace_params_with_values(&values);
        let plan = plan.map_err(|error| fault::of_sql(&error.into()))?;
        // What is asked for at once, pgwire holds at once.
        let rows_max = if max_rows == 0 {
            ROWS_AT_ONCE_MAX
        } else {
            usize::MAX
        };
        self.run(plan, &portal.result_column_format, client, rows_max)
            .await
    }
}

impl Session {
    /// The values of `$1`, `$2` and so on, as the plan needs them.
    fn parameters(
        &self,
        portal: &Portal<(String, Option<(Statement, LogicalPlan)>)>,
        plan: &LogicalPlan,
    ) -> PgWireResult<ParamValues> {
        let types = plan.get_parameter_types();
        let types = types.map_err(|error| fault::of_sql(&error.into()))?;
        let mut types: Vec<(String, Option<DataType>)> = types.into_iter().collect();
        let number = |name: &str| name.trim_start_matches('$').parse().unwrap_or(u32::MAX);
        types.sort_by_key(|(name, _)| number(name));
        let inferred: Vec<Option<&DataType>> = types.iter().map(|(_, t)| t.as_ref()).collect();
        let told = self
            .parser
            .get_parameter_types(&portal.statement.statement)?;
        let told: Vec<Option<&Type>> = told.iter().map(Some).collect();
        deserialize_parameters_with_server_types(portal, &inferred, &told)
    }
}

/// Refuses what does not only read, and whoever's login no longer holds.
#[derive(Clone)]
struct ReadOnly(Arc<Login>);

impl ReadOnly {
    fn refusal(&self, statement: &Statement) -> Option<PgWireError> {
        if let Err(error) = self.0.caller() {
            return Some(error);
        }
        if savepoint(statement).is_some() {
            return None;
        }
        check_statement(statement)
            .err()
            .map(|error| fault::of_sql(&error))
    }

    fn said(&self, statement: &Statement) -> Option<PgWireResult<Response>> {
        match self.refusal(statement) {
            Some(error) => Some(Err(error)),
            None => savepoint(statement).map(|tag| Ok(Response::Execution(Tag::new(tag)))),
        }
    }
}

/// Drivers nest transactions by savepoints. Nothing was changed, so that there is nothing to keep.
fn savepoint(statement: &Statement) -> Option<&'static str> {
    match statement {
        Statement::Savepoint { .. } => Some("SAVEPOINT"),
        Statement::ReleaseSavepoint { .. } => Some("RELEASE"),
        _ => None,
    }
}

fn nothing() -> LogicalPlan {
    LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: false,
        schema: Arc::new(DFSchema::empty()),
    })
}

#[async_trait]
impl QueryHook for ReadOnly {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.said(statement)
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        self.said(statement).map(|said| said.map(|_| nothing()))
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.said(statement)
    }
}
