//! Values in questions to the catalogue, as what they are here.

use datafusion::sql::sqlparser::{
    ast::{
        Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Query,
        SetExpr, TableWithJoins, Value,
    },
    dialect::PostgreSqlDialect,
    parser::Parser,
};

use super::{has_nothing, joined_has_nothing};

/// Nothing here has a collation of its own: as values these are NULL. They can be listed.
const NOTHING_AS_VALUE: &[&str] = &["pg_collation"];
/// Columns that tables of the catalogue do not have here: NULL.
const ABSENT_COLUMNS: &[(&str, &str)] = &[("pg_class", "reloptions")];
pub(super) fn null() -> Expr {
    Expr::value(Value::Null)
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if value.value == Value::Null)
}

fn is_absent(expr: &Expr) -> bool {
    let Expr::CompoundIdentifier(names) = expr else {
        return false;
    };
    let [.., table, column] = names.as_slice() else {
        return false;
    };
    ABSENT_COLUMNS.contains(&(table.value.as_str(), column.value.as_str()))
}

/// An expression that says the same, where it can be told.
pub(super) fn simple(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::CompoundIdentifier(_) if is_absent(expr) => Some(null()),
        Expr::Subquery(query) if is_nothing_as_value(query) => Some(null()),
        Expr::Exists { subquery, negated } if has_nothing(subquery) => {
            Some(Expr::value(Value::Boolean(*negated)))
        }
        Expr::InSubquery {
            subquery, negated, ..
        } if has_nothing(subquery) => Some(Expr::value(Value::Boolean(*negated))),
        Expr::Case {
            conditions,
            else_result,
            ..
        } => {
            let otherwise = else_result.as_ref().is_none_or(|expr| is_null(expr));
            let all = otherwise && conditions.iter().all(|when| is_null(&when.result));
            all.then(null)
        }
        Expr::Function(function) => call(function),
        Expr::Like {
            escape_char: Some(escape),
            negated,
            any,
            expr,
            pattern,
        } => {
            let escape = match &escape.value {
                Value::SingleQuotedString(escape) if escape != "\\" => escape,
                _ => return None,
            };
            Some(Expr::Like {
                negated: *negated,
                any: *any,
                expr: expr.clone(),
                pattern: Box::new(escaped_by_backslash(pattern, escape)?),
                escape_char: None,
            })
        }
        _ => None,
    }
}

fn is_nothing_as_value(query: &Query) -> bool {
    let of_value = |from: &TableWithJoins| joined_has_nothing(from, NOTHING_AS_VALUE);
    let is_of_value = match &*query.body {
        SetExpr::Select(select) => select.from.iter().any(of_value),
        _ => false,
    };
    is_of_value || has_nothing(query)
}

pub(super) fn last(name: &ObjectName) -> Option<&str> {
    let ident = name.0.last()?.as_ident()?;
    Some(ident.value.as_str())
}

/// They are true of everything here.
const TRUE: &[&str] = &[
    "has_column_privilege",
    "has_foreign_data_wrapper_privilege",
    "has_function_privilege",
    "has_language_privilege",
    "has_sequence_privilege",
    "has_server_privilege",
    "has_tablespace_privilege",
    "has_type_privilege",
    "pg_collation_is_visible",
    "pg_conversion_is_visible",
    "pg_function_is_visible",
    "pg_has_role",
    "pg_opclass_is_visible",
    "pg_operator_is_visible",
    "pg_opfamily_is_visible",
    "pg_type_is_visible",
];
/// They are false.
const FALSE: &[&str] = &["pg_is_in_recovery", "pg_is_other_temp_schema"];
/// They are about what there never is.
const NULL: &[&str] = &[
    "col_description",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "obj_description",
    "pg_advisory_unlock_all",
    "pg_conf_load_time",
    "pg_database_size",
    "pg_get_function_arg_default",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_functiondef",
    "pg_get_indexdef",
    "pg_get_ruledef",
    "pg_get_serial_sequence",
    "pg_get_triggerdef",
    "pg_get_viewdef",
    "pg_indexes_size",
    "pg_my_temp_schema",
    "pg_postmaster_start_time",
    "pg_size_pretty",
    "pg_table_size",
    "pg_tablespace_location",
    "pg_tablespace_size",
    "shobj_description",
    "txid_current",
    "txid_current_if_assigned",
];

/// Functions that have one answer here, or are a look into the catalogue.
fn call(function: &Function) -> Option<Expr> {
    let name = last(&function.name)?.to_lowercase();
    let name = name.as_str();
    let boolean = |value| Some(Expr::value(Value::Boolean(value)));
    match name {
        "to_regtype" => looked_up(function, "typname", "pg_type"),
        "to_regclass" => looked_up(function, "relname", "pg_class"),
        _ if TRUE.contains(&name) => boolean(true),
        _ if FALSE.contains(&name) => boolean(false),
        _ if NULL.contains(&name) => Some(null()),
        _ => None,
    }
}

/// The oid of what has a name, NULL where nothing has.
fn looked_up(function: &Function, column: &str, table: &str) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(name))] = list.args.as_slice() else {
        return None;
    };
    parsed(&format!(
        "(SELECT min(oid) FROM pg_catalog.{table} WHERE {column} = {name})"
    ))
}

/// A pattern whose escapes are backslashes, the only ones that are understood.
fn escaped_by_backslash(pattern: &Expr, escape: &str) -> Option<Expr> {
    let mut letters = escape.chars();
    let (letter, None) = (letters.next()?, letters.next()) else {
        return None;
    };
    let letter = if letter == '\'' {
        "''".to_owned()
    } else {
        letter.to_string()
    };
    // Escaped escapes stand aside while the others become backslashes.
    parsed(&format!(
        "replace(replace(replace(replace({pattern}, '\\', '\\\\'), '{letter}{letter}', '\u{1}'), \
         '{letter}', '\\'), '\u{1}', '{letter}')"
    ))
}

fn parsed(text: &str) -> Option<Expr> {
    let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(text);
    parser.ok()?.parse_expr().ok()
}
