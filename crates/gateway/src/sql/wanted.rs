//! Which rows of a table a query wants: its conditions on time and on names, as bounds of a read.
//!
//! A condition is taken whole or not at all. What is taken, DataFusion does not check again, so that a
//! limit reaches the store; what is not, it applies itself.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Expr, Operator, expr::InList},
};

/// The column of time of every table that has one.
pub(super) const TIME: &str = "time";

/// What is wanted of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Milliseconds since 1970, inclusive.
    pub(super) from_ms: i64,
    /// Exclusive.
    pub(super) to_ms: i64,
    /// Of columns with names: those that are wanted. A column that is not here: all.
    names: BTreeMap<String, BTreeSet<String>>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            from_ms: i64::MIN,
            to_ms: i64::MAX,
            names: BTreeMap::new(),
        }
    }
}

/// What a condition says, where it can be taken.
enum Condition {
    From(i64),
    To(i64),
    Name(String, BTreeSet<String>),
    Both(Box<Condition>, Box<Condition>),
}

impl Wanted {
    /// All conditions that can be taken; `named` are the columns of names, and `has_time` says that
    /// there is a time.
    pub(super) fn of(filters: &[Expr], named: &[&str], has_time: bool) -> Self {
        let mut wanted = Self::default();
        for condition in filters.iter().filter_map(|f| condition(f, named, has_time)) {
            wanted.narrow(condition);
        }
        wanted
    }

    /// Whether a condition is taken.
    pub(super) fn takes(filter: &Expr, named: &[&str], has_time: bool) -> bool {
        condition(filter, named, has_time).is_some()
    }

    /// The names wanted of a column; `None`: all.
    pub(super) fn names(&self, column: &str) -> Option<&BTreeSet<String>> {
        self.names.get(column)
    }

    /// Whether a name of a column is wanted.
    pub(super) fn wants(&self, column: &str, name: &str) -> bool {
        self.names(column).is_none_or(|names| names.contains(name))
    }

    /// Whether no row can fit.
    pub(super) fn is_nothing(&self) -> bool {
        self.from_ms >= self.to_ms || self.names.values().any(BTreeSet::is_empty)
    }

    fn narrow(&mut self, condition: Condition) {
        match condition {
            Condition::From(from_ms) => self.from_ms = self.from_ms.max(from_ms),
            Condition::To(to_ms) => self.to_ms = self.to_ms.min(to_ms),
            Condition::Name(column, names) => {
                let narrowed = match self.names.get(&column) {
                    Some(known) => known.intersection(&names).cloned().collect(),
                    None => names,
                };
                self.names.insert(column, narrowed);
            }
            Condition::Both(one, other) => {
                self.narrow(*one);
                self.narrow(*other);
            }
        }
    }
}

fn condition(filter: &Expr, named: &[&str], has_time: bool) -> Option<Condition> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => Some(Condition::Both(
                Box::new(condition(left, named, has_time)?),
                Box::new(condition(right, named, has_time)?),
            )),
            Operator::Or => either(left, right, named, has_time),
            op => comparison(left, *op, right, named, has_time)
                .or_else(|| comparison(right, op.swap()?, left, named, has_time)),
        },
        Expr::Between(between) if !between.negated => {
            let (low, high) = (&between.low, &between.high);
            Some(Condition::Both(
                Box::new(comparison(
                    &between.expr,
                    Operator::GtEq,
                    low,
                    named,
                    has_time,
                )?),
                Box::new(comparison(
                    &between.expr,
                    Operator::LtEq,
                    high,
                    named,
                    has_time,
                )?),
            ))
        }
        Expr::InList(InList {
            expr,
            list,
            negated: false,
        }) => {
            let column = column(expr, named)?;
            let names = list.iter().map(text).collect::<Option<_>>()?;
            Some(Condition::Name(column, names))
        }
        _ => None,
    }
}

/// `device = 'a' OR device = 'b'`, which DataFusion makes of a short list.
fn either(left: &Expr, right: &Expr, named: &[&str], has_time: bool) -> Option<Condition> {
    match (
        condition(left, named, has_time)?,
        condition(right, named, has_time)?,
    ) {
        (Condition::Name(column, mut names), Condition::Name(other, more)) if column == other => {
            names.extend(more);
            Some(Condition::Name(column, names))
        }
        _ => None,
    }
}

/// `left op right`, where left is a column and right a value.
fn comparison(
    left: &Expr,
    op: Operator,
    right: &Expr,
    named: &[&str],
    has_time: bool,
) -> Option<Condition> {
    if op == Operator::Eq
        && let (Some(column), Some(name)) = (column(left, named), text(right))
    {
        return Some(Condition::Name(column, BTreeSet::from([name])));
    }
    if !has_time || !is_time(left) {
        return None;
    }
    let moment = Moment::of(right)?;
    match op {
        Operator::GtEq => Some(Condition::From(moment.first_at_or_after()?)),
        Operator::Gt => Some(Condition::From(moment.first_after()?)),
        Operator::Lt => Some(Condition::To(moment.first_at_or_after()?)),
        Operator::LtEq => Some(Condition::To(moment.first_after()?)),
        Operator::Eq => Some(Condition::Both(
            Box::new(Condition::From(moment.first_at_or_after()?)),
            Box::new(Condition::To(moment.first_after()?)),
        )),
        _ => None,
    }
}

fn column(expr: &Expr, named: &[&str]) -> Option<String> {
    match expr {
        Expr::Column(column) if named.contains(&column.name.as_str()) => Some(column.name.clone()),
        _ => None,
    }
}

/// The time itself, or it in another unit or zone: the same moments, in the same order.
fn is_time(expr: &Expr) -> bool {
    use datafusion::arrow::datatypes::{DataType, TimeUnit};
    match expr {
        Expr::Column(column) => column.name == TIME,
        // A coarser unit would round.
        Expr::Cast(cast) => {
            let finer = matches!(
                cast.field.data_type(),
                DataType::Timestamp(
                    TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond,
                    _
                )
            );
            finer && is_time(&cast.expr)
        }
        _ => false,
    }
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::Utf8View(Some(text))
            | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) => Some(text.clone()),
        _ => None,
    }
}

/// A moment as a query says it: so many units since 1970, so many of them a millisecond's part.
struct Moment {
    units: i128,
    /// Units of a millisecond; for seconds `units` are counted in milliseconds already.
    per_ms: i128,
}

impl Moment {
    fn of(expr: &Expr) -> Option<Self> {
        let Expr::Literal(value, _) = expr else {
            return None;
        };
        let (units, per_ms) = match value {
            ScalarValue::TimestampSecond(Some(s), _) => (i128::from(*s) * 1_000, 1),
            ScalarValue::TimestampMillisecond(Some(ms), _) => (i128::from(*ms), 1),
            ScalarValue::TimestampMicrosecond(Some(us), _) => (i128::from(*us), 1_000),
            ScalarValue::TimestampNanosecond(Some(ns), _) => (i128::from(*ns), 1_000_000),
            _ => return None,
        };
        Some(Self { units, per_ms })
    }

    /// The first whole millisecond that is not before it.
    fn first_at_or_after(&self) -> Option<i64> {
        let whole = self.units.div_euclid(self.per_ms);
        let rest = i128::from(self.units.rem_euclid(self.per_ms) > 0);
        i64::try_from(whole + rest).ok()
    }

    /// The first whole millisecond after it.
    fn first_after(&self) -> Option<i64> {
        i64::try_from(self.units.div_euclid(self.per_ms) + 1).ok()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    fn ms(ms: i64) -> Expr {
        lit(ScalarValue::TimestampMillisecond(
            Some(ms),
            Some("UTC".into()),
        ))
    }

    fn us(us: i64) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(
            Some(us),
            Some("+00:00".into()),
        ))
    }

    fn wanted(filters: &[Expr]) -> Wanted {
        Wanted::of(filters, &["device"], true)
    }

    #[test]
    fn bounds_of_time_are_taken_in_any_spelling() {
        for (filter, from_ms, to_ms) in [
            (col("time").gt_eq(ms(10)), 10, i64::MAX),
            (col("time").gt(ms(10)), 11, i64::MAX),
            (col("time").lt(ms(10)), i64::MIN, 10),
            (col("time").lt_eq(ms(10)), i64::MIN, 11),
            (ms(10).lt_eq(col("time")), 10, i64::MAX),
            (col("time").eq(ms(10)), 10, 11),
            (col("time").between(ms(10), ms(20)), 10, 21),
            (
                col("time").gt_eq(ms(10)).and(col("time").lt(ms(20))),
                10,
                20,
            ),
            // Between two milliseconds.
            (col("time").gt_eq(us(10_001)), 11, i64::MAX),
            (col("time").gt(us(10_001)), 11, i64::MAX),
            (col("time").lt_eq(us(10_001)), i64::MIN, 11),
            (col("time").lt(us(-10_001)), i64::MIN, -10),
        ] {
            assert!(Wanted::takes(&filter, &[], true), "{filter}");
            let wanted = wanted(std::slice::from_ref(&filter));
            assert_eq!((wanted.from_ms, wanted.to_ms), (from_ms, to_ms), "{filter}");
        }
        assert!(wanted(&[col("time").eq(us(10_001))]).is_nothing());
    }

    #[test]
    fn names_are_taken_from_equalities_and_lists() {
        let list = col("device").in_list(vec![lit("a"), lit("b")], false);
        let either = col("device").eq(lit("b")).or(lit("c").eq(col("device")));
        let both = wanted(&[list, either]);
        assert_eq!(
            both.names("device"),
            Some(&BTreeSet::from(["b".to_owned()]))
        );
        assert!(both.wants("device", "b") && !both.wants("device", "a"));
        let none = wanted(&[col("device").eq(lit("a")), col("device").eq(lit("b"))]);
        assert!(none.is_nothing());
    }

    #[test]
    fn what_is_taken_in_part_only_is_left_to_datafusion() {
        for filter in [
            col("P_avg").gt(lit(1.0)),
            col("device").eq(lit("a")).or(col("P_avg").gt(lit(1.0))),
            col("device").eq(lit("a")).or(col("time").gt(ms(1))),
            col("device").not_eq(lit("a")),
            col("device").in_list(vec![lit("a")], true),
            col("time").not_between(ms(1), ms(2)),
            col("device").eq(lit("a")).and(col("P_avg").gt(lit(1.0))),
        ] {
            assert!(!Wanted::takes(&filter, &["device"], true), "{filter}");
            assert_eq!(wanted(std::slice::from_ref(&filter)), Wanted::default());
        }
    }
}
