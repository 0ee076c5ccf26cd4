//! SQL over the history, read-only: Apache DataFusion over the store and over what is declared.
//!
//! ```text
//! text ─▶ statement (read-only) ─▶ plan ─▶ bounds of each table (wanted) ─▶ reads of the store ─▶ Rows
//! ```
//!
//! Everything here runs on threads of its own: a heavy query must never delay a message. It has a
//! bounded share of memory, beyond which it goes to disk, a bounded time, and ends when whoever
//! asked is gone.

mod arrow;
mod catalog;
mod computed;
mod encode;
mod error;
mod history;
mod information;
mod pg_tables;
mod points;
mod read_only;
mod records;
mod rows;
mod runs;
mod scan;
mod settings;
#[cfg(test)]
mod tests;
mod truncate;
mod wanted;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use backtide_store::Store;
use datafusion::{
    catalog::{CatalogProvider, MemoryCatalogProvider, information_schema::INFORMATION_SCHEMA},
    common::DataFusionError,
    execution::{
        SessionStateBuilder,
        context::SessionContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::FairSpillPool,
        runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::LogicalPlan,
    prelude::SessionConfig,
    sql::sqlparser::{
        ast::Statement,
        dialect::PostgreSqlDialect,
        parser::{Parser, ParserError},
    },
};
use datafusion_postgres::datafusion_pg_catalog::{
    pg_catalog::{context::EmptyContextProvider, setup_pg_catalog},
    sql::PostgresCompatibilityParser,
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use datafusion::arrow::{array::RecordBatch, datatypes::SchemaRef};
pub use encode::{Encoder, Form};
pub use error::SqlError;
pub use pg_tables::is_added;
pub use read_only::{check_plan, check_statement};
pub use rows::Rows;
pub use settings::{SETTINGS, Setting, setting};

use information::Information;
use pg_tables::PgTables;

use crate::{
    channel_log::Log,
    derive::Derived,
    limits,
    quarantine::Quarantine,
    registry::Registry,
    seats::{Seat, Seats},
};

/// What PostgreSQL's clients see as the database, and where its tables are.
pub const DATABASE: &str = "backtide";
const SCHEMA: &str = "public";
const PG_CATALOG: &str = "pg_catalog";

/// Where the tables come from.
#[derive(Clone)]
pub struct Sources {
    pub registry: Arc<Registry>,
    pub store: Store,
    pub log: Arc<Log>,
    pub quarantine: Arc<Quarantine>,
    pub derived: Arc<Derived>,
}

/// Answers SQL.
pub struct Engine {
    sources: Sources,
    spill: PathBuf,
    /// Every function and table; sessions are copies of it. Made by the first: a gateway that nobody
    /// asks in SQL does without.
    base: OnceLock<SessionContext>,
    parser: PostgresCompatibilityParser,
    limits: limits::Sql,
    queries: Seats,
    closing: CancellationToken,
    /// `None` once it is closed.
    runtime: Option<Runtime>,
}

impl Engine {
    /// Starts the threads that queries run on. What does not fit into memory goes into `spill`,
    /// which is emptied first.
    ///
    /// # Errors
    /// The directory cannot be made, or there is no thread.
    pub fn start(sources: Sources, spill: &Path, limits: limits::Sql) -> io::Result<Self> {
        if spill.exists() {
            fs::remove_dir_all(spill)?;
        }
        fs::create_dir_all(spill)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(limits.threads)
            .thread_name("sql")
            .enable_all()
            .build()?;
        Ok(Self {
            sources,
            spill: spill.to_owned(),
            base: OnceLock::new(),
            parser: PostgresCompatibilityParser::new(),
            queries: Seats::new(limits.queries_max, limits.queries_per_caller_max),
            limits,
            closing: CancellationToken::new(),
            runtime: Some(runtime),
        })
    }

    /// The threads that queries run on; await [`Engine::ask`] and its rows there.
    ///
    /// # Errors
    /// [`SqlError::Closing`].
    pub fn runtime(&self) -> Result<&Handle, SqlError> {
        self.runtime
            .as_ref()
            .map(Runtime::handle)
            .ok_or(SqlError::Closing)
    }

    /// A session of its own: settings made in it are seen by nobody else.
    ///
    /// # Errors
    /// The directory for what does not fit into memory is gone.
    pub fn session(&self) -> Result<Arc<SessionContext>, SqlError> {
        let base = match self.base.get() {
            Some(base) => base,
            None => {
                let made = session(self.sources.clone(), &self.spill, &self.limits)?;
                // Two may be first: they are alike.
                self.base.get_or_init(|| made)
            }
        };
        Ok(Arc::new(SessionContext::new_with_state(base.state())))
    }

    /// Answers one statement that only reads.
    ///
    /// # Errors
    /// [`SqlError`].
    pub async fn ask(&self, caller: &str, text: &str) -> Result<Rows, SqlError> {
        let statement = self.only_statement(text)?;
        check_statement(&statement)?;
        let session = self.session()?;
        let plan = session
            .state()
            .statement_to_plan(datafusion::sql::parser::Statement::Statement(Box::new(
                statement,
            )))
            .await?;
        self.run(caller, &session, plan, None).await
    }

    /// Runs a plan of a session, no longer than `timeout` where that is shorter than the limit.
    ///
    /// # Errors
    /// [`SqlError`].
    pub async fn run(
        &self,
        caller: &str,
        session: &SessionContext,
        plan: LogicalPlan,
        timeout: Option<Duration>,
    ) -> Result<Rows, SqlError> {
        check_plan(&plan)?;
        let seat = self.queries.take(caller).map_err(|own| SqlError::TooMany {
            caller: caller.to_owned(),
            own,
        })?;
        let seat = UnderWay::new(seat);
        let most = Duration::from_secs(self.limits.query_s);
        let most = timeout.map_or(most, |timeout| timeout.min(most));
        let deadline = Instant::now() + most;
        let started = async {
            session
                .execute_logical_plan(plan)
                .await?
                .execute_stream()
                .await
        };
        let stream = timeout_at(deadline, started)
            .await
            .map_err(|_| SqlError::Time(most))??;
        Ok(Rows::new(
            stream,
            deadline,
            most,
            self.closing.clone(),
            seat,
        ))
    }

    fn only_statement(&self, text: &str) -> Result<Statement, SqlError> {
        if text.len() > self.limits.statement_bytes_max {
            return Err(SqlError::Long {
                bytes: text.len(),
                bytes_max: self.limits.statement_bytes_max,
            });
        }
        let mut statements = self
            .parser
            .parse(text)
            .map_err(|error| syntax(text, &error))?;
        match (statements.pop(), statements.len()) {
            (Some(only), 0) => Ok(only),
            (None, _) => Err(SqlError::Statements(0)),
            (Some(_), more) => Err(SqlError::Statements(more + 1)),
        }
    }

    /// Ends what runs.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Cancelled when the engine closes.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.closing.cancel();
        if let Some(runtime) = self.runtime.take() {
            // Whoever drops it may be a task itself, which must not wait.
            runtime.shutdown_background();
        }
    }
}

/// The parser of clients' statements does not say where one is wrong; the plain one does, where it
/// refuses the text too.
fn syntax(text: &str, error: &ParserError) -> SqlError {
    let plain = Parser::parse_sql(&PostgreSqlDialect {}, text).err();
    SqlError::Syntax(plain.as_ref().unwrap_or(error).to_string())
}

/// A query that counts.
struct UnderWay(#[expect(dead_code, reason = "held, to be given back")] Seat);

impl UnderWay {
    fn new(seat: Seat) -> Self {
        metrics::gauge!("backtide_sql_queries").increment(1);
        Self(seat)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        metrics::gauge!("backtide_sql_queries").decrement(1);
    }
}

/// A session with all tables, that sees what is declared at any time.
fn session(
    sources: Sources,
    spill: &Path,
    limits: &limits::Sql,
) -> Result<SessionContext, DataFusionError> {
    let mut config = SessionConfig::new()
        // There is one of our own.
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(DATABASE, SCHEMA)
        .with_target_partitions(limits.threads);
    config.options_mut().execution.time_zone = Some("+00:00".to_owned());
    config.options_mut().sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    let spilled = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![spill.to_owned()]))
        .with_max_temp_directory_size(limits.spill_bytes_max);
    let environment = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory_bytes_max)))
        .with_disk_manager_builder(spilled)
        .build_arc()?;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(environment)
        .with_default_features()
        .with_physical_optimizer_rule(Arc::new(runs::ByDevice));
    let session = SessionContext::new_with_state(state.build());
    let database = MemoryCatalogProvider::new();
    let readers = Arc::new(Semaphore::new(limits.scans_max));
    let tables = catalog::Tables::new(sources, readers);
    database.register_schema(SCHEMA, Arc::new(tables))?;
    session.register_catalog(DATABASE, Arc::new(database));
    setup_pg_catalog(&session, DATABASE, EmptyContextProvider).map_err(|error| *error)?;
    session.register_udf(truncate::truncate());
    session.register_udf(catalog::version());
    session.register_udf(settings::current_setting());
    if let Some(database) = session.catalog(DATABASE)
        && let Some(library) = database.schema(PG_CATALOG)
    {
        database.register_schema(PG_CATALOG, Arc::new(PgTables::new(library)?))?;
        let information = Information::new(session.state_ref().read().catalog_list());
        database.register_schema(INFORMATION_SCHEMA, Arc::new(information))?;
    }
    Ok(session)
}
