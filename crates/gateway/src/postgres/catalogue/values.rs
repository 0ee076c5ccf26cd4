//! Values in questions to the catalogue, as what they are here.

use datafusion::sql::sqlparser::{
    ast::{
        BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
        ObjectName, Query, SelectItem, SetExpr, TableWithJoins, Value,
    },
    dialect::PostgreSqlDialect,
    parser::Parser,
};

use super::{has_nothing, is_one_row, joined_has_nothing};

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
        Expr::Subquery(query) => of_one_oid(query),
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
        Expr::BinaryOp {
            left,
            op: BinaryOperator::Eq,
            right,
        } => named_function(left, right),
        Expr::Cast {
            kind,
            expr,
            data_type: DataType::Custom(name, _),
            array,
            format,
        } if last(name) == Some("name") => Some(Expr::Cast {
            kind: kind.clone(),
            expr: expr.clone(),
            data_type: DataType::Text,
            array: *array,
            format: format.clone(),
        }),
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

/// A value as such, so that it can have a name of its own.
pub(super) fn value(expr: &Expr) -> Option<Expr> {
    matches!(expr, Expr::Value(_)).then(|| expr.clone())
}

/// `typinput = 'array_in'::regproc`: functions are known by their names here, not by an oid.
fn named_function(left: &Expr, right: &Expr) -> Option<Expr> {
    let column = match left {
        Expr::Identifier(name) => name,
        Expr::CompoundIdentifier(names) => names.last()?,
        _ => return None,
    };
    let Expr::Subquery(query) = right else {
        return None;
    };
    let text = query.to_string();
    if !NAMED_FUNCTIONS.contains(&column.value.as_str()) || !text.contains("pg_proc") {
        return None;
    }
    let name = text.split('\'').nth(1)?;
    let name = name.rsplit('.').next()?;
    parsed(&format!("{left} = '{name}'"))
}

/// One value of the row that has an oid: said in a way that is planned, whatever it is joined to.
fn of_one_oid(query: &Query) -> Option<Expr> {
    let SetExpr::Select(select) = &*query.body else {
        return None;
    };
    let by_oid = |part: &Expr| {
        let Expr::BinaryOp {
            left,
            op: BinaryOperator::Eq,
            ..
        } = part
        else {
            return false;
        };
        match &**left {
            Expr::Identifier(name) => name.value == "oid",
            Expr::CompoundIdentifier(names) => names.last().is_some_and(|name| name.value == "oid"),
            _ => false,
        }
    };
    let [SelectItem::UnnamedExpr(of)] = select.projection.as_slice() else {
        return None;
    };
    let is_alone = select.from.len() == 1 && select.from.iter().all(|from| from.joins.is_empty());
    if !is_alone || is_one_row(select) || !select.selection.as_ref().is_some_and(by_oid) {
        return None;
    }
    let least = parsed(&format!("min({of})"))?;
    let mut query = query.clone();
    query.limit_clause = None;
    query.order_by = None;
    if let SetExpr::Select(select) = &mut *query.body {
        select.projection = vec![SelectItem::UnnamedExpr(least)];
    }
    Some(Expr::Subquery(Box::new(query)))
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

/// Columns of functions: their names.
const NAMED_FUNCTIONS: &[&str] = &[
    "typinput",
    "typoutput",
    "typreceive",
    "typsend",
    "amhandler",
];
/// They want an int4, and clients write numbers without a type.
const OF_INT4: &[&str] = &["pg_relation_size", "pg_total_relation_size"];

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
        _ if OF_INT4.contains(&name) => of_int4(function, name),
        _ if TRUE.contains(&name) => boolean(true),
        _ if FALSE.contains(&name) => boolean(false),
        _ if NULL.contains(&name) => Some(null()),
        _ => None,
    }
}

fn only_argument(function: &Function) -> Option<&Expr> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(only))] => Some(only),
        _ => None,
    }
}

fn of_int4(function: &Function, name: &str) -> Option<Expr> {
    let argument = only_argument(function)?;
    parsed(&format!("{name}(CAST({argument} AS int))"))
}

/// The oid of what has a name, NULL where nothing has.
fn looked_up(function: &Function, column: &str, table: &str) -> Option<Expr> {
    let name = only_argument(function)?;
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
