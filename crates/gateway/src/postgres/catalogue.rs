//! What clients ask of the catalogue, made simpler before it is planned, without another answer.
//!
//! Drivers describe tables by joining some ten tables of `pg_catalog` in ways that DataFusion does not
//! plan. Nearly all of it is about what there never is here: indexes, constraints, defaults, sequences,
//! enumerations. A select over one of those has no rows, whatever else it says, so that nothing of it
//! has to be planned: it is answered with its columns and no rows, as a value with NULL.

mod values;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SetExpr, SetOperator, Statement, TableFactor, TableWithJoins, Value, VisitMut, VisitorMut,
};

use crate::sql::is_added;
use values::{null, simple, value};

const PG_CATALOG: &str = "pg_catalog";
/// Who asks the catalogue says one of these.
const MENTIONS: &[&str] = &[
    "pg_",
    "to_reg",
    "txid_",
    "inet_",
    "_privilege",
    "_description",
];

/// Tables of the catalogue that have no row about anything here.
const NOTHING_OF: &[&str] = &[
    "pg_attrdef",
    "pg_constraint",
    "pg_cursors",
    "pg_enum",
    "pg_event_trigger",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_foreign_table",
    "pg_index",
    "pg_inherits",
    "pg_matviews",
    "pg_partitioned_table",
    "pg_policy",
    "pg_prepared_statements",
    "pg_publication",
    "pg_publication_rel",
    "pg_sequence",
    "pg_sequences",
    "pg_statistic_ext",
    "pg_trigger",
    "pg_user_mapping",
];
/// With these a select without groups has a row, whatever it is over.
const AGGREGATES: &[&str] = &[
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "every",
    "json_agg",
    "max",
    "min",
    "string_agg",
    "sum",
];

/// Makes a statement simpler; whether it did.
pub(super) fn simplify(statement: &mut Statement) -> bool {
    // Who does not ask the catalogue is left alone.
    if !matches!(statement, Statement::Query(_)) {
        return false;
    }
    let text = statement.to_string();
    if !MENTIONS.iter().any(|mention| text.contains(mention)) {
        return false;
    }
    let mut simplifier = Simplifier { did: false };
    let walked: ControlFlow<()> = statement.visit(&mut simplifier);
    walked.is_continue() && simplifier.did
}

struct Simplifier {
    did: bool,
}

impl VisitorMut for Simplifier {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut named: Vec<String> = Vec::new();
        for item in &mut select.projection {
            // It keeps its name.
            if let SelectItem::UnnamedExpr(expr) = item
                && let Some(simple) = simple(expr).or_else(|| value(expr))
            {
                let mut name = name_of(expr);
                while named.contains(&name) {
                    name.push('_');
                }
                named.push(name.clone());
                *item = SelectItem::ExprWithAlias {
                    alias: Ident::with_quote('"', name),
                    expr: simple,
                };
                self.did = true;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        // The library's own are found without their schema already.
        if let [ObjectNamePart::Identifier(name)] = relation.0.as_slice()
            && is_added(&name.value)
        {
            let schema = ObjectNamePart::Identifier(Ident::new(PG_CATALOG));
            relation.0.insert(0, schema);
            self.did = true;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(simple) = simple(expr) {
            *expr = simple;
            self.did = true;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if select_has_nothing(select) && !select.from.is_empty() {
            empty(select);
            self.did = true;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // What it would be sorted by is not there any more.
        if let SetExpr::Select(select) = &*query.body
            && select_has_nothing(select)
        {
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }
}

// --- selects ---

fn has_nothing(query: &Query) -> bool {
    set_has_nothing(&query.body)
}

fn set_has_nothing(set: &SetExpr) -> bool {
    match set {
        SetExpr::Select(select) => select_has_nothing(select),
        SetExpr::Query(query) => has_nothing(query),
        SetExpr::SetOperation {
            left, op, right, ..
        } => {
            let (left, right) = (set_has_nothing(left), set_has_nothing(right));
            match op {
                SetOperator::Union => left && right,
                SetOperator::Intersect => left || right,
                _ => left,
            }
        }
        _ => false,
    }
}

fn select_has_nothing(select: &Select) -> bool {
    if select.from.is_empty() {
        let is_false =
            |expr: &Expr| matches!(expr, Expr::Value(v) if v.value == Value::Boolean(false));
        return select.selection.as_ref().is_some_and(is_false) && !is_one_row(select);
    }
    let is_named = |item: &SelectItem| {
        matches!(
            item,
            SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }
        )
    };
    select
        .from
        .iter()
        .any(|from| joined_has_nothing(from, NOTHING_OF))
        && select.projection.iter().all(is_named)
        && !is_one_row(select)
}

/// Whether it has a row whatever it is over.
fn is_one_row(select: &Select) -> bool {
    let has_groups = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(groups, _) => !groups.is_empty(),
    };
    let text = |item: &SelectItem| item.to_string().to_lowercase();
    let has_aggregate = |item: &SelectItem| {
        let text = text(item);
        AGGREGATES
            .iter()
            .any(|name| text.contains(&format!("{name}(")))
    };
    !has_groups && select.projection.iter().any(has_aggregate)
}

fn joined_has_nothing(from: &TableWithJoins, names: &[&str]) -> bool {
    let mut nothing = factor_has_nothing(&from.relation, names);
    for join in &from.joins {
        let other = factor_has_nothing(&join.relation, names);
        nothing = match &join.join_operator {
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => {
                nothing || other
            }
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => other,
            JoinOperator::FullOuter(_) => nothing && other,
            // LEFT, and what nobody's catalogue queries have.
            _ => nothing,
        };
    }
    nothing
}

fn factor_has_nothing(factor: &TableFactor, names: &[&str]) -> bool {
    match factor {
        TableFactor::Table {
            name, args: None, ..
        } => is_of_catalogue(name, names),
        TableFactor::Derived { subquery, .. } => has_nothing(subquery),
        TableFactor::NestedJoin {
            table_with_joins, ..
        } => joined_has_nothing(table_with_joins, names),
        _ => false,
    }
}

fn is_of_catalogue(name: &ObjectName, names: &[&str]) -> bool {
    let parts: Vec<&str> = name
        .0
        .iter()
        .filter_map(|part| part.as_ident().map(|ident| ident.value.as_str()))
        .collect();
    match parts.as_slice() {
        [table] | [PG_CATALOG, table] => names.contains(table),
        _ => false,
    }
}

/// The same columns, without rows.
fn empty(select: &mut Select) {
    let mut names: Vec<String> = Vec::new();
    for item in &select.projection {
        let mut name = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
            SelectItem::UnnamedExpr(expr) => name_of(expr),
            _ => String::new(),
        };
        while names.contains(&name) {
            name.push('_');
        }
        names.push(name);
    }
    let columns = names.into_iter().map(|name| SelectItem::ExprWithAlias {
        expr: null(),
        alias: Ident::with_quote('"', name),
    });
    select.projection = columns.collect();
    select.distinct = None;
    select.from.clear();
    select.selection = Some(Expr::value(Value::Boolean(false)));
    select.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
    select.having = None;
}

/// What PostgreSQL calls a column without an alias.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => name.value.clone(),
        Expr::CompoundIdentifier(names) => names.last().map_or_else(unnamed, |n| n.value.clone()),
        Expr::Function(function) => {
            values::last(&function.name).map_or_else(unnamed, str::to_owned)
        }
        Expr::Cast { expr, .. } | Expr::Nested(expr) => name_of(expr),
        _ => unnamed(),
    }
}

fn unnamed() -> String {
    "?column?".to_owned()
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};

    use super::*;

    fn simplified(sql: &str) -> String {
        let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
        let mut statement = statements.remove(0);
        simplify(&mut statement);
        statement.to_string()
    }

    #[test]
    fn a_select_over_what_is_never_there_keeps_its_columns_and_has_no_rows() {
        for (sql, simple) in [
            (
                "SELECT i.indrelid, c.relname AS name FROM pg_catalog.pg_index i JOIN pg_class c ON c.oid = i.indexrelid ORDER BY 1",
                r#"SELECT NULL AS "indrelid", NULL AS "name" WHERE false"#,
            ),
            (
                "SELECT a.x, max(a.y) FROM (SELECT unnest(indkey) AS x, 1 AS y FROM pg_index) AS a GROUP BY a.x",
                r#"SELECT NULL AS "x", NULL AS "max" WHERE false"#,
            ),
            (
                "SELECT 1 AS a FROM pg_index UNION SELECT 2 FROM pg_class",
                r#"SELECT NULL AS "a" WHERE false UNION SELECT 2 AS "?column?" FROM pg_class"#,
            ),
        ] {
            assert_eq!(simplified(sql), simple);
        }
    }

    #[test]
    fn a_select_that_has_rows_all_the_same_is_left_alone() {
        for sql in [
            "SELECT count(*) FROM pg_index",
            "SELECT * FROM pg_index",
            "SELECT c.relname FROM pg_class AS c LEFT JOIN pg_index AS i ON i.indrelid = c.oid",
            "SELECT pg_index FROM public.pg_index",
            "SELECT relname FROM pg_class ORDER BY 1",
        ] {
            assert_eq!(simplified(sql), sql);
        }
    }

    #[test]
    fn values_of_what_is_never_there_are_null_or_false() {
        let sql = "SELECT CASE WHEN a.d THEN (SELECT adbin FROM pg_attrdef WHERE adrelid = a.o) ELSE NULL END AS def, \
                   EXISTS (SELECT 1 FROM pg_trigger) AS e FROM pg_attribute AS a WHERE a.o IN (SELECT conrelid FROM pg_constraint)";
        assert_eq!(
            simplified(sql),
            "SELECT NULL AS def, false AS e FROM pg_attribute AS a WHERE false"
        );
    }

    #[test]
    fn a_column_that_the_catalogue_does_not_have_is_null_under_its_name() {
        assert_eq!(
            simplified("SELECT pg_catalog.pg_class.reloptions, relname FROM pg_catalog.pg_class"),
            r#"SELECT NULL AS "reloptions", relname FROM pg_catalog.pg_class"#
        );
    }

    #[test]
    fn tables_of_ours_are_found_without_their_schema() {
        assert_eq!(
            simplified("SELECT l.pid FROM pg_locks AS l"),
            "SELECT l.pid FROM pg_catalog.pg_locks AS l"
        );
        let already = "SELECT pid FROM pg_catalog.pg_stat_activity";
        assert_eq!(simplified(already), already);
    }

    #[test]
    fn functions_of_one_answer_keep_their_name() {
        assert_eq!(
            simplified("SELECT pg_get_ruledef(1), pg_get_ruledef(2), pg_is_in_recovery()"),
            r#"SELECT NULL AS "pg_get_ruledef", NULL AS "pg_get_ruledef_", false AS "pg_is_in_recovery""#
        );
    }

    #[test]
    fn values_without_a_name_have_one_each() {
        assert_eq!(
            simplified("SELECT oid, NULL, NULL FROM pg_proc"),
            r#"SELECT oid, NULL AS "?column?", NULL AS "?column?_" FROM pg_proc"#
        );
    }

    #[test]
    fn functions_are_known_by_their_names() {
        assert_eq!(
            simplified(
                "SELECT t.oid FROM pg_type AS t WHERE t.typinput = (SELECT oid FROM pg_catalog.pg_proc WHERE proname = 'array_in')"
            ),
            "SELECT t.oid FROM pg_type AS t WHERE t.typinput = 'array_in'"
        );
        assert_eq!(
            simplified("SELECT rulename <> '_RETURN'::name AS a FROM pg_rewrite AS r"),
            "SELECT rulename <> '_RETURN'::TEXT AS a FROM pg_rewrite AS r"
        );
    }

    #[test]
    fn one_value_of_the_row_of_an_oid_is_planned_whatever_it_is_joined_to() {
        assert_eq!(
            simplified(
                "SELECT (SELECT typname FROM pg_type WHERE oid = t.typbasetype LIMIT 1) AS a FROM pg_type AS t"
            ),
            "SELECT (SELECT min(typname) FROM pg_type WHERE oid = t.typbasetype) AS a FROM pg_type AS t"
        );
        let counted =
            "SELECT (SELECT count(*) FROM pg_type WHERE oid = t.oid) AS a FROM pg_type AS t";
        assert_eq!(simplified(counted), counted);
    }

    #[test]
    fn types_are_looked_up_and_escapes_are_backslashes() {
        assert_eq!(
            simplified("SELECT oid FROM pg_type WHERE oid = to_regtype('hstore')"),
            "SELECT oid FROM pg_type WHERE oid = (SELECT min(oid) FROM pg_catalog.pg_type WHERE typname = 'hstore')"
        );
        let sql = "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg/_%' ESCAPE '/'";
        assert!(
            simplified(sql).contains(r"'/', '\')"),
            "{}",
            simplified(sql)
        );
    }
}
