//! The settings that clients of PostgreSQL look at, and what they are here. One list for `SHOW`,
//! `current_setting()` and `pg_catalog.pg_settings`.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, BooleanArray, Int32Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema},
    },
    catalog::TableProvider,
    common::Result,
    datasource::MemTable,
    logical_expr::{
        ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, TypeSignature, Volatility,
    },
};

/// A setting.
pub struct Setting {
    pub name: &'static str,
    /// What it is unless a session sets it.
    pub value: &'static str,
    /// Whether a session may set it.
    pub is_settable: bool,
    pub description: &'static str,
}

const fn fixed(name: &'static str, value: &'static str, description: &'static str) -> Setting {
    Setting {
        name,
        value,
        is_settable: false,
        description,
    }
}

const fn settable(name: &'static str, value: &'static str, description: &'static str) -> Setting {
    Setting {
        name,
        value,
        is_settable: true,
        description,
    }
}

/// All of them, by name.
pub const SETTINGS: &[Setting] = &[
    settable("application_name", "", "What the client calls itself"),
    fixed("block_size", "8192", "Size of a block, bytes"),
    settable("bytea_output", "hex", "How bytes are written as text"),
    settable("client_encoding", "UTF8", "Always UTF-8"),
    settable("client_min_messages", "notice", "Kept, without effect"),
    settable("DateStyle", "ISO, MDY", "How times are written as text"),
    fixed("default_tablespace", "", "There are none"),
    settable(
        "default_transaction_isolation",
        "read committed",
        "Each statement sees what is stored when it begins",
    ),
    settable(
        "default_transaction_read_only",
        "on",
        "SQL only reads, whatever a session sets",
    ),
    settable("escape_string_warning", "on", "Kept, without effect"),
    settable("extra_float_digits", "1", "Kept, without effect"),
    settable(
        "idle_in_transaction_session_timeout",
        "0",
        "Kept, without effect",
    ),
    fixed(
        "in_hot_standby",
        "off",
        "Whether this follows another server",
    ),
    fixed("integer_datetimes", "on", "Times are whole microseconds"),
    settable("IntervalStyle", "postgres", "How spans are written as text"),
    settable("jit", "off", "Kept, without effect"),
    fixed("lc_collate", "C", "Texts are ordered by their bytes"),
    fixed("lc_ctype", "C", "Texts are UTF-8"),
    settable(
        "lock_timeout",
        "0",
        "Kept, without effect: nothing is locked",
    ),
    fixed("max_identifier_length", "63", "Bytes of a name"),
    fixed("max_index_keys", "32", "There are no indexes"),
    settable("row_security", "on", "Kept, without effect"),
    settable("search_path", "public", "Kept: tables are in public"),
    fixed("server_encoding", "UTF8", "Always UTF-8"),
    fixed("server_version", "16.6", "What this is compatible with"),
    fixed("server_version_num", "160006", "The same as a number"),
    fixed("is_superuser", "off", "SQL only reads"),
    settable(
        "standard_conforming_strings",
        "on",
        "Backslashes in texts are backslashes",
    ),
    settable(
        "statement_timeout",
        "0",
        "How long a query may take; 0 leaves it to sql.query_s",
    ),
    settable("TimeZone", "UTC", "Kept: times are answered in UTC"),
    settable(
        "transaction_isolation",
        "read committed",
        "Each statement sees what is stored when it begins",
    ),
    settable("transaction_deferrable", "off", "Kept, without effect"),
    settable(
        "transaction_read_only",
        "on",
        "SQL only reads, whatever a session sets",
    ),
];

/// The setting of a name, whatever its letters.
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS
        .iter()
        .find(|setting| setting.name.eq_ignore_ascii_case(name))
}

/// `current_setting(name)` and `current_setting(name, missing_ok)`: as the server has them.
pub(super) fn current_setting() -> ScalarUDF {
    let settings = move |asked: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(asked)?;
        let names = arrays[0].as_string::<i32>();
        let value = |name: &str| setting(name).map(|setting| setting.value);
        let found: StringArray = names.iter().map(|name| name.and_then(value)).collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    };
    // The second says that a name may be missing, which it may anyway.
    let asked = TypeSignature::OneOf(vec![
        TypeSignature::Exact(vec![DataType::Utf8]),
        TypeSignature::Exact(vec![DataType::Utf8, DataType::Boolean]),
    ]);
    ScalarUDF::from(SimpleScalarUDF::new_with_signature(
        "current_setting",
        Signature::new(asked, Volatility::Stable),
        DataType::Utf8,
        Arc::new(settings),
    ))
}

/// `pg_settings`, with PostgreSQL's columns.
pub(super) fn table() -> Result<Arc<dyn TableProvider>> {
    let all = || SETTINGS.iter();
    let text = |of: fn(&Setting) -> Option<&'static str>| -> ArrayRef {
        Arc::new(all().map(of).collect::<StringArray>())
    };
    let is_timeout = |setting: &Setting| setting.name.ends_with("timeout");
    let kind = move |setting: &Setting| match setting.value {
        "on" | "off" => "bool",
        _ if is_timeout(setting) || setting.value.parse::<u32>().is_ok() => "integer",
        _ => "string",
    };
    let lines: Int32Array = all().map(|_| None::<i32>).collect();
    let pending: BooleanArray = all().map(|_| Some(false)).collect();
    let kinds: StringArray = all().map(|setting| Some(kind(setting))).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("name", text(|setting| Some(setting.name))),
        ("setting", text(|setting| Some(setting.value))),
        (
            "unit",
            text(|setting| setting.name.ends_with("timeout").then_some("ms")),
        ),
        ("category", text(|_| Some("Backtide"))),
        ("short_desc", text(|setting| Some(setting.description))),
        ("extra_desc", text(|_| None)),
        (
            "context",
            text(|setting| {
                Some(match setting.is_settable {
                    true => "user",
                    false => "internal",
                })
            }),
        ),
        ("vartype", Arc::new(kinds)),
        ("source", text(|_| Some("default"))),
        ("min_val", text(|_| None)),
        ("max_val", text(|_| None)),
        ("enumvals", text(|_| None)),
        ("boot_val", text(|setting| Some(setting.value))),
        ("reset_val", text(|setting| Some(setting.value))),
        ("sourcefile", text(|_| None)),
        ("sourceline", Arc::new(lines)),
        ("pending_restart", Arc::new(pending)),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_found_whatever_its_letters() {
        assert_eq!(setting("TIMEZONE").unwrap().value, "UTC");
        assert_eq!(setting("datestyle").unwrap().name, "DateStyle");
        assert!(setting("work_mem").is_none());
    }
}
