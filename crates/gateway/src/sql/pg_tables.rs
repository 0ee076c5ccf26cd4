//! Tables of `pg_catalog` that clients look at and the library does not have: those about sessions,
//! locks, extensions and rules are empty, each with PostgreSQL's columns.

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::{DataType, Field, Schema, TimeUnit},
    catalog::{SchemaProvider, TableProvider},
    common::{Result, ScalarValue},
    datasource::{MemTable, ViewTable, provider_as_source},
    logical_expr::{Expr, LogicalPlanBuilder, ident, lit},
};

use super::settings;

/// Columns: `name` is a text, `name:oid`, `name:int8` and so on are not.
pub(super) type Columns = &'static [&'static str];

/// Of `pg_user`, and of `pg_shadow` under it.
const USERS: Columns = &[
    "usename",
    "usesysid:oid",
    "usecreatedb:bool",
    "usesuper:bool",
    "userepl:bool",
    "usebypassrls:bool",
    "passwd",
    "valuntil:time",
    "useconfig",
];
/// How often indexes are read: all, and those of users.
const INDEX_READS: Columns = &[
    "relid:oid",
    "indexrelid:oid",
    "schemaname",
    "relname",
    "indexrelname",
    "idx_scan:int8",
    "last_idx_scan:time",
    "idx_tup_read:int8",
    "idx_tup_fetch:int8",
];

/// Nothing is ever in them.
const EMPTY: &[(&str, Columns)] = &[
    (
        "pg_available_extensions",
        &["name", "default_version", "installed_version", "comment"],
    ),
    (
        "pg_available_extension_versions",
        &[
            "name",
            "version",
            "installed:bool",
            "superuser:bool",
            "schema",
            "comment",
        ],
    ),
    (
        "pg_cursors",
        &[
            "name",
            "statement",
            "is_holdable:bool",
            "is_binary:bool",
            "is_scrollable:bool",
            "creation_time:time",
        ],
    ),
    ("pg_group", &["groname", "grosysid:oid", "grolist"]),
    (
        "pg_indexes",
        &[
            "schemaname",
            "tablename",
            "indexname",
            "tablespace",
            "indexdef",
        ],
    ),
    (
        "pg_locks",
        &[
            "locktype",
            "database:oid",
            "relation:oid",
            "page:int4",
            "tuple:int2",
            "virtualxid",
            "transactionid:int8",
            "classid:oid",
            "objid:oid",
            "objsubid:int2",
            "virtualtransaction",
            "pid:int4",
            "mode",
            "granted:bool",
            "fastpath:bool",
            "waitstart:time",
        ],
    ),
    (
        "pg_policies",
        &[
            "schemaname",
            "tablename",
            "policyname",
            "permissive",
            "roles",
            "cmd",
            "qual",
            "with_check",
        ],
    ),
    (
        "pg_prepared_statements",
        &[
            "name",
            "statement",
            "prepare_time:time",
            "parameter_types",
            "from_sql:bool",
        ],
    ),
    (
        "pg_prepared_xacts",
        &[
            "transaction:int8",
            "gid",
            "prepared:time",
            "owner",
            "database",
        ],
    ),
    (
        "pg_publication_tables",
        &[
            "pubname",
            "schemaname",
            "tablename",
            "attnames",
            "rowfilter",
        ],
    ),
    (
        "pg_rules",
        &["schemaname", "tablename", "rulename", "definition"],
    ),
    (
        "pg_seclabels",
        &[
            "objoid:oid",
            "classoid:oid",
            "objsubid:int4",
            "objtype",
            "objnamespace:oid",
            "objname",
            "provider",
            "label",
        ],
    ),
    (
        "pg_sequences",
        &[
            "schemaname",
            "sequencename",
            "sequenceowner",
            "data_type",
            "start_value:int8",
            "min_value:int8",
            "max_value:int8",
            "increment_by:int8",
            "cycle:bool",
            "cache_size:int8",
            "last_value:int8",
        ],
    ),
    ("pg_shadow", USERS),
    (
        "pg_stat_activity",
        &[
            "datid:oid",
            "datname",
            "pid:int4",
            "leader_pid:int4",
            "usesysid:oid",
            "usename",
            "application_name",
            "client_addr",
            "client_hostname",
            "client_port:int4",
            "backend_start:time",
            "xact_start:time",
            "query_start:time",
            "state_change:time",
            "wait_event_type",
            "wait_event",
            "state",
            "backend_xid:int8",
            "backend_xmin:int8",
            "query_id:int8",
            "query",
            "backend_type",
        ],
    ),
    ("pg_stat_all_indexes", INDEX_READS),
    (
        "pg_stat_database",
        &[
            "datid:oid",
            "datname",
            "numbackends:int4",
            "xact_commit:int8",
            "xact_rollback:int8",
            "blks_read:int8",
            "blks_hit:int8",
            "tup_returned:int8",
            "tup_fetched:int8",
            "tup_inserted:int8",
            "tup_updated:int8",
            "tup_deleted:int8",
            "conflicts:int8",
            "temp_files:int8",
            "temp_bytes:int8",
            "deadlocks:int8",
            "sessions:int8",
            "stats_reset:time",
        ],
    ),
    ("pg_stat_user_indexes", INDEX_READS),
    (
        "pg_stats",
        &[
            "schemaname",
            "tablename",
            "attname",
            "inherited:bool",
            "null_frac:float4",
            "avg_width:int4",
            "n_distinct:float4",
            "correlation:float4",
        ],
    ),
    ("pg_user", USERS),
    (
        "pg_user_mappings",
        &[
            "umid:oid",
            "srvid:oid",
            "srvname",
            "umuser:oid",
            "usename",
            "umoptions",
        ],
    ),
];

const SETTINGS: &str = "pg_settings";
/// Columns that the library's tables lack; NULL in every row.
const LACKING: &[(&str, &[&str])] = &[
    (
        "pg_attribute",
        &["attacl", "attoptions", "attfdwoptions", "attmissingval"],
    ),
    ("pg_class", &["relacl", "reloptions"]),
    ("pg_database", &["datacl"]),
    ("pg_namespace", &["nspacl"]),
];
/// It names functions where PostgreSQL has their oids. There are none of our own.
const AGGREGATES: (&str, &str) = ("pg_aggregate", "aggfnoid");

/// Whether a table of this name is added to the library's.
pub fn is_added(name: &str) -> bool {
    EMPTY.iter().any(|(empty, _)| *empty == name)
}

/// The library's tables and ours.
pub(super) struct PgTables {
    library: Arc<dyn SchemaProvider>,
    ours: HashMap<&'static str, Arc<dyn TableProvider>>,
}

impl PgTables {
    /// # Errors
    /// A table cannot be made.
    pub(super) fn new(library: Arc<dyn SchemaProvider>) -> Result<Self> {
        let mut ours: HashMap<&'static str, Arc<dyn TableProvider>> = HashMap::new();
        for (name, columns) in EMPTY {
            ours.insert(name, empty(columns)?);
        }
        ours.insert(SETTINGS, settings::table()?);
        Ok(Self { library, ours })
    }
}

/// A table of the library's with what it lacks.
fn completed(name: &str, table: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let schema = table.schema();
    if name == AGGREGATES.0 {
        let oid = |field: &Arc<Field>| match field.name() == AGGREGATES.1 {
            true => Arc::new(Field::new(AGGREGATES.1, DataType::Int32, true)),
            false => Arc::clone(field),
        };
        let fields: Vec<Arc<Field>> = schema.fields().iter().map(oid).collect();
        let schema = Arc::new(Schema::new(fields));
        return Ok(Arc::new(MemTable::try_new(schema, vec![Vec::new()])?));
    }
    let Some((_, lacking)) = LACKING.iter().find(|(lacks, _)| *lacks == name) else {
        return Ok(table);
    };
    let there = schema.fields().iter().map(|field| ident(field.name()));
    let added = lacking
        .iter()
        .filter(|column| schema.field_with_name(column).is_err())
        .map(|column| lit(ScalarValue::Utf8(None)).alias(*column));
    let columns: Vec<Expr> = there.chain(added).collect();
    let plan = LogicalPlanBuilder::scan(name, provider_as_source(table), None)?
        .project(columns)?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// A table of these columns, without rows.
pub(super) fn empty(columns: Columns) -> Result<Arc<dyn TableProvider>> {
    let fields: Vec<Field> = columns.iter().map(|column| field(column)).collect();
    let schema = Arc::new(Schema::new(fields));
    Ok(Arc::new(MemTable::try_new(schema, vec![Vec::new()])?))
}

fn field(column: &str) -> Field {
    let (name, kind) = column.split_once(':').unwrap_or((column, "text"));
    let kind = match kind {
        "oid" | "int4" => DataType::Int32,
        "int2" => DataType::Int16,
        "int8" => DataType::Int64,
        "bool" => DataType::Boolean,
        "float4" => DataType::Float32,
        "time" => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        _ => DataType::Utf8,
    };
    Field::new(name, kind, true)
}

impl fmt::Debug for PgTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PgTables")
    }
}

#[async_trait]
impl SchemaProvider for PgTables {
    fn table_names(&self) -> Vec<String> {
        let mut names = self.library.table_names();
        let added = self.ours.keys().map(|name| (*name).to_owned());
        let added: Vec<String> = added.filter(|name| !names.contains(name)).collect();
        names.extend(added);
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.ours.get(name) {
            Some(table) => Ok(Some(Arc::clone(table))),
            None => match self.library.table(name).await? {
                Some(table) => completed(name, table).map(Some),
                None => Ok(None),
            },
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.ours.contains_key(name) || self.library.table_exist(name)
    }
}
