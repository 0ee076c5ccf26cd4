//! `information_schema` as PostgreSQL has it: DataFusion's, with columns described in PostgreSQL's words,
//! and what clients look for beside it, empty.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{ArrayRef, Int32Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema},
    },
    catalog::{
        CatalogProviderList, SchemaProvider, TableProvider,
        information_schema::{INFORMATION_SCHEMA, InformationSchemaProvider},
    },
    common::Result,
    datasource::MemTable,
};
use datafusion_postgres::{arrow_pg::datatypes::into_pg_type, pgwire::api::Type};

use super::pg_tables::{Columns, empty};

const COLUMNS: &str = "columns";
/// Rights on tables: all, and those of roles.
const PRIVILEGES: Columns = &[
    "grantor",
    "grantee",
    "table_catalog",
    "table_schema",
    "table_name",
    "privilege_type",
    "is_grantable",
    "with_hierarchy",
];

/// Nothing is ever in them.
const EMPTY: &[(&str, Columns)] = &[
    (
        "applicable_roles",
        &["grantee", "role_name", "is_grantable"],
    ),
    (
        "check_constraints",
        &[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "check_clause",
        ],
    ),
    (
        "column_privileges",
        &[
            "grantor",
            "grantee",
            "table_catalog",
            "table_schema",
            "table_name",
            "column_name",
            "privilege_type",
            "is_grantable",
        ],
    ),
    (
        "constraint_column_usage",
        &[
            "table_catalog",
            "table_schema",
            "table_name",
            "column_name",
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
        ],
    ),
    ("enabled_roles", &["role_name"]),
    (
        "key_column_usage",
        &[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "table_catalog",
            "table_schema",
            "table_name",
            "column_name",
            "ordinal_position:int4",
            "position_in_unique_constraint:int4",
        ],
    ),
    (
        "referential_constraints",
        &[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "unique_constraint_catalog",
            "unique_constraint_schema",
            "unique_constraint_name",
            "match_option",
            "update_rule",
            "delete_rule",
        ],
    ),
    ("role_table_grants", PRIVILEGES),
    (
        "routine_privileges",
        &[
            "grantor",
            "grantee",
            "specific_catalog",
            "specific_schema",
            "specific_name",
            "routine_catalog",
            "routine_schema",
            "routine_name",
            "privilege_type",
            "is_grantable",
        ],
    ),
    (
        "sequences",
        &[
            "sequence_catalog",
            "sequence_schema",
            "sequence_name",
            "data_type",
            "start_value",
            "minimum_value",
            "maximum_value",
            "increment",
            "cycle_option",
        ],
    ),
    (
        "table_constraints",
        &[
            "constraint_catalog",
            "constraint_schema",
            "constraint_name",
            "table_catalog",
            "table_schema",
            "table_name",
            "constraint_type",
            "is_deferrable",
            "initially_deferred",
            "enforced",
        ],
    ),
    ("table_privileges", PRIVILEGES),
    (
        "triggers",
        &[
            "trigger_catalog",
            "trigger_schema",
            "trigger_name",
            "event_manipulation",
            "event_object_catalog",
            "event_object_schema",
            "event_object_table",
            "action_statement",
            "action_orientation",
            "action_timing",
        ],
    ),
];

/// The schema. It knows the catalogs, which know it.
pub(super) struct Information(Weak<dyn CatalogProviderList>);

impl Information {
    pub(super) fn new(catalogs: &Arc<dyn CatalogProviderList>) -> Self {
        Self(Arc::downgrade(catalogs))
    }

    fn library(&self) -> Option<InformationSchemaProvider> {
        self.0.upgrade().map(InformationSchemaProvider::new)
    }
}

impl fmt::Debug for Information {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Information")
    }
}

#[async_trait]
impl SchemaProvider for Information {
    /// Not told: what lists tables takes each for one that needs no schema before its name.
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some((_, columns)) = EMPTY.iter().find(|(empty, _)| *empty == name) {
            return empty(columns).map(Some);
        }
        match (self.library(), self.0.upgrade()) {
            (Some(_), Some(catalogs)) if name == COLUMNS => {
                columns(catalogs.as_ref()).await.map(Some)
            }
            (Some(library), _) => library.table(name).await,
            _ => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        let is_empty = EMPTY.iter().any(|(empty, _)| *empty == name);
        is_empty
            || self
                .library()
                .is_some_and(|library| library.table_exist(name))
    }
}

/// A column of a table.
struct Column {
    catalog: String,
    schema: String,
    table: String,
    position: i32,
    field: Field,
    kind: Type,
}

/// Every column of every table but those of this schema.
async fn columns(catalogs: &dyn CatalogProviderList) -> Result<Arc<dyn TableProvider>> {
    let mut all = Vec::new();
    for catalog_name in catalogs.catalog_names() {
        let Some(catalog) = catalogs.catalog(&catalog_name) else {
            continue;
        };
        for schema_name in catalog.schema_names() {
            let schema = catalog.schema(&schema_name);
            let Some(schema) = schema.filter(|_| schema_name != INFORMATION_SCHEMA) else {
                continue;
            };
            for table_name in schema.table_names() {
                // It may be gone by now.
                let Some(table) = schema.table(&table_name).await? else {
                    continue;
                };
                for (position, field) in (1..).zip(table.schema().fields()) {
                    all.push(Column {
                        catalog: catalog_name.clone(),
                        schema: schema_name.clone(),
                        table: table_name.clone(),
                        position,
                        field: field.as_ref().clone(),
                        kind: into_pg_type(field.data_type()).unwrap_or(Type::TEXT),
                    });
                }
            }
        }
    }
    described(&all)
}

type Text = fn(&Column) -> Option<&str>;
type Number = fn(&Column) -> Option<i32>;

fn described(all: &[Column]) -> Result<Arc<dyn TableProvider>> {
    let texts: [(&str, Text); 12] = [
        ("table_catalog", |column| Some(&column.catalog)),
        ("table_schema", |column| Some(&column.schema)),
        ("table_name", |column| Some(&column.table)),
        ("column_name", |column| Some(column.field.name())),
        ("column_default", |_| None),
        ("is_nullable", |column| {
            Some(yes(column.field.is_nullable()))
        }),
        ("data_type", |column| Some(standard(&column.kind))),
        ("udt_catalog", |column| Some(&column.catalog)),
        ("udt_schema", |_| Some("pg_catalog")),
        ("udt_name", |column| Some(column.kind.name())),
        ("is_identity", |_| Some("NO")),
        ("is_updatable", |_| Some("NO")),
    ];
    let numbers: [(&str, Number); 7] = [
        ("ordinal_position", |column| Some(column.position)),
        ("character_maximum_length", |_| None),
        ("character_octet_length", |_| None),
        ("numeric_precision", |column| {
            digits(&column.kind).map(|(bits, _)| bits)
        }),
        ("numeric_precision_radix", |column| {
            digits(&column.kind).map(|_| 2)
        }),
        ("numeric_scale", |column| {
            digits(&column.kind).and_then(|(_, scale)| scale)
        }),
        ("datetime_precision", |column| {
            is_time(column.field.data_type()).then_some(3)
        }),
    ];
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (name, text) in texts {
        fields.push(Field::new(name, DataType::Utf8, true));
        arrays.push(Arc::new(all.iter().map(text).collect::<StringArray>()));
    }
    for (name, number) in numbers {
        fields.push(Field::new(name, DataType::Int32, true));
        arrays.push(Arc::new(all.iter().map(number).collect::<Int32Array>()));
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
}

fn yes(is: bool) -> &'static str {
    if is { "YES" } else { "NO" }
}

/// What the SQL standard calls a type.
fn standard(kind: &Type) -> &str {
    match *kind {
        Type::BOOL => "boolean",
        Type::INT2 => "smallint",
        Type::INT4 => "integer",
        Type::INT8 => "bigint",
        Type::FLOAT4 => "real",
        Type::FLOAT8 => "double precision",
        Type::TIMESTAMP => "timestamp without time zone",
        Type::TIMESTAMPTZ => "timestamp with time zone",
        Type::VARCHAR => "character varying",
        _ if kind.name().starts_with('_') => "ARRAY",
        _ => kind.name(),
    }
}

/// Of a number: its binary digits, and those behind the point where that is certain.
fn digits(kind: &Type) -> Option<(i32, Option<i32>)> {
    match *kind {
        Type::INT2 => Some((16, Some(0))),
        Type::INT4 => Some((32, Some(0))),
        Type::INT8 => Some((64, Some(0))),
        Type::FLOAT4 => Some((24, None)),
        Type::FLOAT8 => Some((53, None)),
        _ => None,
    }
}

fn is_time(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(..))
}
