//! What a client asks once it is in: statements as text, or prepared ones with parameters.

mod cursors;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::DataType, common::ParamValues, execution::context::SessionContext,
    logical_expr::LogicalPlan, sql::sqlparser::ast::Statement,
};
use datafusion_postgres::pgwire::api::DEFAULT_NAME;
use datafusion_postgres::pgwire::api::store::{Entry, PortalStore};
use datafusion_postgres::{
    DfSessionService, QueryHook,
    arrow_pg::datatypes::{
        arrow_schema_to_pg_fields, df::deserialize_parameters_with_server_types, encode_recordbatch,
    },
    datafusion_pg_catalog::sql::PostgresCompatibilityParser,
    hooks::set_show::SetShowHook,
    pgwire::{
        api::{
            ClientInfo, ClientPortalStore, ErrorHandler, PgWireServerHandlers, Type,
            auth::StartupHandler,
            cancel::CancelHandler,
            portal::{Format, Portal},
            query::{ExtendedQueryHandler, SimpleQueryHandler},
            results::{DescribePortalResponse, DescribeStatementResponse, QueryResponse, Response},
            stmt::{QueryParser, StoredStatement},
        },
        error::{PgWireError, PgWireResult},
        messages::{
            PgWireBackendMessage, extendedquery::Execute, response::TransactionStatus,
            simplequery::Query,
        },
        types::format::FormatOptions,
    },
};
use futures::{Sink, StreamExt as _, stream};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{
    cancel::{Cancels, gone},
    catalogue::simplify,
    cursor::{Asked, Cursors},
    fault::{self, Faults},
    hooks::{Hook, Planned, ReadOnly, planned},
    login::Login,
    settings::{Settings, statement_timeout},
    statements::{Statements, statements},
    transactions::{Transactions, ends, mends},
};
use crate::{
    limits::SQL_ROWS_AT_ONCE_MAX as ROWS_AT_ONCE_MAX,
    sql::{Engine, Rows, SqlError},
};
use cursors::OfCursor;

pub(super) const TOO_MANY_ROWS: &str = "a prepared statement gives its rows at once, and these are more than a \
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
    texts: Arc<PostgresCompatibilityParser>,
    parser: Arc<Statements>,
    settings: Settings,
    cursors: Cursors,
}

impl Session {
    fn new(engine: Arc<Engine>, login: Arc<Login>, watched: TcpStream) -> Result<Self, SqlError> {
        let context = engine.session()?;
        let settings = Settings::default();
        let hooks: Vec<Arc<dyn QueryHook>> = vec![
            Arc::new(Hook(ReadOnly(Arc::clone(&login)))),
            Arc::new(Hook(Transactions)),
            Arc::new(Hook(settings.clone())),
            Arc::new(Planned),
            Arc::new(SetShowHook),
        ];
        let texts = Arc::new(PostgresCompatibilityParser::new());
        let service = DfSessionService::new_with_hooks(Arc::clone(&context), hooks.clone());
        Ok(Self {
            engine,
            login,
            watched: Arc::new(watched),
            context,
            hooks,
            parser: Arc::new(Statements::new(Arc::clone(&texts), service.query_parser())),
            texts,
            settings,
            cursors: Cursors::default(),
        })
    }

    /// Begins to run a plan; its rows end with the query's token.
    async fn begin(
        &self,
        plan: LogicalPlan,
        client: &(dyn ClientInfo + Send + Sync),
    ) -> PgWireResult<(Rows, CancellationToken)> {
        let caller = self.login.caller()?;
        let timeout = statement_timeout(client);
        let cancelled = self.login.current.begin();
        let begun = self.engine.run(&caller.name, &self.context, plan, timeout);
        let rows = tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(SqlError::Cancelled),
            () = gone(&self.watched) => Err(SqlError::Cancelled),
            rows = Box::pin(begun) => rows,
        };
        Ok((rows.map_err(|error| fault::of_sql(&error))?, cancelled))
    }

    /// Runs a plan.
    async fn run(
        &self,
        plan: LogicalPlan,
        format: &Format,
        client: &(dyn ClientInfo + Send + Sync),
        rows_max: usize,
    ) -> PgWireResult<Response> {
        let (rows, cancelled) = self.begin(plan, client).await?;
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
pub(super) struct Answer {
    rows: Rows,
    rows_left: usize,
    pub(super) cancelled: CancellationToken,
    watched: Arc<TcpStream>,
}

impl Answer {
    pub(super) async fn next(
        mut self,
    ) -> Option<(Result<crate::sql::RecordBatch, SqlError>, Self)> {
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
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if client.transaction_status() == TransactionStatus::Error
            && let Ok(said) = self.parsed(&query.query)
            && said.first().is_some_and(mends)
        {
            client.set_transaction_status(TransactionStatus::Transaction);
        }
        self._on_query(client, query).await
    }

    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = self.parsed(query)?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        let mut responses = Vec::with_capacity(statements.len());
        let mut is_in_transaction = client.transaction_status() == TransactionStatus::Transaction;
        'statements: for mut statement in statements {
            self.end_by(&statement, client);
            if matches!(statement, Statement::StartTransaction { .. }) {
                is_in_transaction = true;
            }
            is_in_transaction &= !ends(&statement);
            for hook in &self.hooks {
                let said = hook
                    .handle_simple_query(&statement, &self.context, client)
                    .await;
                if let Some(said) = said {
                    responses.push(said?);
                    continue 'statements;
                }
            }
            if let Some(asked) = Asked::of(&statement) {
                let of_cursor = OfCursor {
                    plan: None,
                    is_in_transaction,
                    format: &Format::UnifiedText,
                    at_once_max: usize::MAX,
                };
                responses.push(self.cursor(client, asked, of_cursor).await?);
                continue;
            }
            simplify(&mut statement);
            let plan = planned(&self.context, statement).await?;
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
    type Statement = Parsed;
    type QueryParser = Statements;

    fn query_parser(&self) -> Arc<Statements> {
        Arc::clone(&self.parser)
    }

    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        if client.transaction_status() == TransactionStatus::Error
            && let Some(Entry::Value(portal)) = client.portal_store().get_portal(name)
            && let (_, Some((statement, _))) = &portal.statement.statement
            && mends(statement)
        {
            client.set_transaction_status(TransactionStatus::Transaction);
        }
        self._on_execute(client, message).await
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
        self.end_by(statement, client);
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
        if let Some(asked) = Asked::of(statement) {
            let of_cursor = OfCursor {
                plan: Some(plan),
                is_in_transaction: client.transaction_status() == TransactionStatus::Transaction,
                format: &portal.result_column_format,
                at_once_max: rows_max,
            };
            return self.cursor(client, asked, of_cursor).await;
        }
        self.run(plan, &portal.result_column_format, client, rows_max)
            .await
    }

    async fn do_describe_statement<C>(
        &self,
        _: &mut C,
        target: &StoredStatement<Self::Statement>,
    ) -> PgWireResult<DescribeStatementResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut types = self.parser.get_parameter_types(&target.statement)?;
        // What the client has said of its parameters it is not told otherwise.
        for (told, said) in types.iter_mut().zip(&target.parameter_types) {
            if let Some(said) = said.as_ref().filter(|said| **said != Type::UNKNOWN) {
                *told = said.clone();
            }
        }
        let columns = self.columns(&target.statement, None).await?;
        Ok(DescribeStatementResponse::new(types, columns))
    }

    async fn do_describe_portal<C>(
        &self,
        _: &mut C,
        target: &Portal<Self::Statement>,
    ) -> PgWireResult<DescribePortalResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let format = Some(&target.result_column_format);
        let columns = self.columns(&target.statement.statement, format).await?;
        Ok(DescribePortalResponse::new(columns))
    }
}

/// A statement as the library keeps it: its text, and what it is.
pub(super) type Parsed = (String, Option<(Statement, LogicalPlan)>);

impl Session {
    fn parsed(&self, text: &str) -> PgWireResult<Vec<Statement>> {
        statements(&self.texts, text)
            .map_err(|error| fault::of_sql(&SqlError::Syntax(error.to_string())))
    }

    /// The values of `$1`, `$2` and so on, as the plan needs them.
    fn parameters(&self, portal: &Portal<Parsed>, plan: &LogicalPlan) -> PgWireResult<ParamValues> {
        let types = plan.get_parameter_types();
        let types = types.map_err(|error| fault::of_sql(&error.into()))?;
        let mut types: Vec<(String, Option<DataType>)> = types.into_iter().collect();
        let number = |name: &str| name.trim_start_matches('$').parse().unwrap_or(usize::MAX);
        types.sort_by_key(|(name, _)| number(name));
        let told = self
            .parser
            .get_parameter_types(&portal.statement.statement)?;
        // A plan may do without some of the parameters that it is given.
        let mut inferred_of: Vec<Option<&DataType>> = vec![None; portal.parameter_len()];
        let mut told_of: Vec<Option<&Type>> = inferred_of.iter().map(|_| None).collect();
        for ((name, inferred), told) in types.iter().zip(&told) {
            let Some(at) = number(name).checked_sub(1) else {
                continue;
            };
            if let (Some(of), Some(by)) = (inferred_of.get_mut(at), told_of.get_mut(at)) {
                (*of, *by) = (inferred.as_ref(), Some(told));
            }
        }
        deserialize_parameters_with_server_types(portal, &inferred_of, &told_of)
    }
}
