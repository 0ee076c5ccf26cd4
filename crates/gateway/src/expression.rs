//! Expressions of rules and policies, in CEL: arithmetic, comparisons and texts over the values of one row.
//!
//! Two things are made simpler than the language has them. Every number is a 64-bit float, so that
//! `P_avg * 2` means what it says; and a name that the row has no value for makes the whole
//! expression absent, not wrong. Pure: no clock, no input but the row, and no loop without an end.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    fmt,
};

use cel::{
    Context, ExecutionError, Value as Result_,
    common::{
        ast::{EntryExpr, Expr, IdedExpr, LiteralValue},
        types::{CelBool, CelDouble, CelMap, CelMapKey, CelString},
        value::{CowVal, Val},
    },
    context::VariableResolver,
    parser::Parser,
};

use crate::{limits::EXPRESSION_BYTES_MAX, message::Value};

/// What every expression may name beside the values of its row.
pub const OWN_NAMES: [&str; 8] = [
    "assetId",
    "deviceKey",
    "productKey",
    "modelId",
    "channel",
    "event",
    "time",
    "values",
];

/// An expression, parsed once.
pub struct Expression {
    source: Box<str>,
    parsed: IdedExpr,
    /// The values that it cannot do without.
    names: Vec<Box<str>>,
    reads_by_text: bool,
    context: Context<'static, 'static>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

/// Why an expression has no result that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expression {expression}: {reason}")]
pub struct ExpressionError {
    pub expression: String,
    pub reason: String,
}

/// What names stand for.
pub trait Names: Send + Sync {
    /// A value of the row, or one of [`OWN_NAMES`].
    fn value(&self, name: &str) -> Option<Value<'_>>;
    /// All values of the row: `values["a-b"]` names those that are no identifier.
    fn each(&self) -> Vec<(&str, Value<'_>)>;
}

impl Expression {
    /// # Errors
    /// Where it is no expression.
    pub fn new(source: &str) -> Result<Self, ExpressionError> {
        let wrong = |reason: String| ExpressionError {
            expression: source.chars().take(200).collect(),
            reason,
        };
        if source.len() > EXPRESSION_BYTES_MAX {
            return Err(wrong(format!(
                "it has {} bytes, at most {EXPRESSION_BYTES_MAX} are taken",
                source.len()
            )));
        }
        let parsed = Parser::new().parse(source);
        let mut parsed = parsed.map_err(|error| wrong(one_line(&error.to_string())))?;
        let references = parsed.references();
        if let Some(unknown) = references.functions().into_iter().find(|f| !is_known(f)) {
            let known = FUNCTIONS.join(", ");
            return Err(wrong(format!(
                "function {unknown} is unknown; there are {known}"
            )));
        }
        if has_loop(&parsed) {
            return Err(wrong(
                "all, exists, map and filter are loops, and it has none; write a script".to_owned(),
            ));
        }
        let mut names: BTreeSet<&str> = references.variables().into_iter().collect();
        let reads_by_text = names.remove("values");
        let names = names.into_iter().map(Into::into).collect();
        as_doubles(&mut parsed);
        Ok(Self {
            source: source.into(),
            parsed,
            names,
            reads_by_text,
            context: context(),
        })
    }

    /// The names of values and of [`OWN_NAMES`] that it needs; not those in `values["…"]`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// Whether it reads `values["…"]`.
    pub const fn reads_by_text(&self) -> bool {
        self.reads_by_text
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its value for a row. `None`: the row lacks what it needs, or it says `null`.
    ///
    /// # Errors
    /// It cannot be computed, or is no number that JSON knows.
    pub fn value(&self, names: &dyn Names) -> Result<Option<Value<'static>>, ExpressionError> {
        if self.names().any(|name| names.value(name).is_none()) {
            return Ok(None);
        }
        let resolver = Resolver(names);
        let context: &Context<'_, '_> = &self.context;
        let mut scope = context.new_inner_scope();
        scope.set_variable_resolver(&resolver);
        match scope.resolve(&self.parsed) {
            Ok(value) => self.read(value),
            // `values["x"]` of a row without x.
            Err(ExecutionError::NoSuchKey(_)) => Ok(None),
            Err(error) => Err(self.wrong(one_line(&error.to_string()))),
        }
    }

    /// Whether it holds for a row; not where the row lacks what it needs.
    ///
    /// # Errors
    /// It cannot be computed, or is neither true nor false.
    pub fn holds(&self, names: &dyn Names) -> Result<bool, ExpressionError> {
        match self.value(names)? {
            None => Ok(false),
            Some(Value::Bool(holds)) => Ok(holds),
            Some(other) => Err(self.wrong(format!(
                "its value is {}, neither true nor false",
                other.json()
            ))),
        }
    }

    fn read(&self, value: Result_) -> Result<Option<Value<'static>>, ExpressionError> {
        Ok(Some(match value {
            Result_::Null => return Ok(None),
            Result_::Bool(value) => Value::Bool(value),
            Result_::Int(value) => Value::Long(value),
            Result_::UInt(value) => Value::Double(value as f64),
            Result_::Float(value) if value.is_finite() => Value::Double(value),
            Result_::Float(value) => {
                return Err(self.wrong(format!("its value is {value}, which JSON does not know")));
            }
            Result_::String(text) => Value::Text(Cow::Owned(text.as_str().to_owned())),
            other => {
                return Err(self.wrong(format!(
                    "its value is a {}, not a number, a text, true or false",
                    other.type_of()
                )));
            }
        }))
    }

    fn wrong(&self, reason: String) -> ExpressionError {
        ExpressionError {
            expression: self.source.to_string(),
            reason,
        }
    }
}

struct Resolver<'n>(&'n dyn Names);

impl VariableResolver for Resolver<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if name == "values" {
            let values = self.0.each().into_iter();
            let values = values.map(|(name, value)| (CelMapKey::from(name), boxed(value)));
            let values: HashMap<CelMapKey<'b>, Box<dyn Val + 'b>> = values.collect();
            return Some(CowVal::owned(CelMap::from(values)));
        }
        self.0.value(name).map(|value| CowVal::Owned(boxed(value)))
    }
}

fn boxed<'v>(value: Value<'v>) -> Box<dyn Val + 'v> {
    match value {
        Value::Bool(value) => Box::new(CelBool::from(value)),
        Value::Int(value) => Box::new(CelDouble::from(f64::from(value))),
        Value::Long(value) => Box::new(CelDouble::from(value as f64)),
        Value::Float(value) => Box::new(CelDouble::from(f64::from(value))),
        Value::Double(value) => Box::new(CelDouble::from(value)),
        Value::Text(text) | Value::Json(text) => Box::new(CelString::from(text)),
    }
}

/// Functions beside the operators.
const FUNCTIONS: [&str; 18] = [
    "has",
    "size",
    "double",
    "string",
    "contains",
    "startsWith",
    "endsWith",
    "abs",
    "min",
    "max",
    "pow",
    "sqrt",
    "exp",
    "ln",
    "floor",
    "ceil",
    "round",
    "bool",
];

/// Operators have names such as `_+_`, `!_`, `_?_:_`.
fn is_known(function: &str) -> bool {
    FUNCTIONS.contains(&function) || function.contains('_') || function.starts_with(['@', '!', '-'])
}

fn context() -> Context<'static, 'static> {
    let mut context = Context::default();
    let added = [
        context.add_function("abs", f64::abs),
        context.add_function("min", f64::min),
        context.add_function("max", f64::max),
        context.add_function("pow", f64::powf),
        context.add_function("sqrt", f64::sqrt),
        context.add_function("exp", f64::exp),
        context.add_function("ln", f64::ln),
        context.add_function("floor", f64::floor),
        context.add_function("ceil", f64::ceil),
        context.add_function("round", f64::round),
    ];
    for outcome in added {
        // The language has one of that name already.
        if let Err(error) = outcome {
            tracing::debug!(%error, "a function of expressions");
        }
    }
    context
}

fn has_loop(of: &IdedExpr) -> bool {
    match &of.expr {
        Expr::Comprehension(_) => true,
        _ => parts(of).into_iter().any(has_loop),
    }
}

/// What stands inside, one level down.
fn parts(of: &IdedExpr) -> Vec<&IdedExpr> {
    match &of.expr {
        Expr::Call(call) => call
            .target
            .iter()
            .map(AsRef::as_ref)
            .chain(&call.args)
            .collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| entry_parts(&entry.expr))
            .collect(),
        Expr::Struct(of) => of
            .entries
            .iter()
            .flat_map(|entry| entry_parts(&entry.expr))
            .collect(),
        Expr::Comprehension(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {
            Vec::new()
        }
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// Makes every whole number a float: the language would not add the two.
fn as_doubles(of: &mut IdedExpr) {
    match &mut of.expr {
        Expr::Literal(literal) => {
            if let LiteralValue::Int(number) = literal {
                *literal = LiteralValue::Double(CelDouble::from(*number.inner() as f64));
            } else if let LiteralValue::UInt(number) = literal {
                *literal = LiteralValue::Double(CelDouble::from(*number.inner() as f64));
            }
        }
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| as_doubles(target));
            call.args.iter_mut().for_each(as_doubles);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(as_doubles),
        Expr::Select(select) => as_doubles(&mut select.operand),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    as_doubles(&mut entry.value);
                }
            }
        }
        Expr::Struct(_) | Expr::Comprehension(_) | Expr::Ident(_) | Expr::Unspecified => {}
    }
}

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(" ").chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(Vec<(&'static str, Value<'static>)>);

    impl Names for Row {
        fn value(&self, name: &str) -> Option<Value<'_>> {
            self.0
                .iter()
                .find(|(own, _)| *own == name)
                .map(|(_, value)| value.clone())
        }

        fn each(&self) -> Vec<(&str, Value<'_>)> {
            self.0
                .iter()
                .map(|(name, value)| (*name, value.clone()))
                .collect()
        }
    }

    fn row() -> Row {
        Row(vec![
            ("P", Value::Double(8.0)),
            ("n", Value::Int(3)),
            ("on", Value::Bool(true)),
            ("label", Value::Text("west-7".into())),
            ("a-b", Value::Long(5)),
        ])
    }

    fn value(source: &str) -> Result<Option<String>, String> {
        let expression = Expression::new(source).map_err(|error| error.to_string())?;
        let value = expression
            .value(&row())
            .map_err(|error| error.to_string())?;
        Ok(value.map(|value| value.json()))
    }

    #[test]
    fn numbers_of_all_kinds_go_together() {
        for (source, expected) in [
            ("P * 2", "16.0"),
            ("n / 2 + 1", "2.5"),
            ("-n + P", "5.0"),
            ("n == 3 && P > 7", "true"),
            ("P > 7.5 ? 'high' : 'low'", "\"high\""),
            ("label.startsWith('west') && on", "true"),
            ("values['a-b'] + 1", "6.0"),
            ("min(P, 2) + max(n, 4) + abs(-1)", "7.0"),
            ("round(pow(P, 0.5) * 100) / 100", "2.83"),
        ] {
            assert_eq!(value(source), Ok(Some(expected.to_owned())), "{source}");
        }
    }

    #[test]
    fn what_the_row_lacks_is_absent_and_not_wrong() {
        for source in [
            "missing + 1",
            "values['missing'] * 2",
            "null",
            "P > 1 ? null : P",
        ] {
            assert_eq!(value(source), Ok(None), "{source}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (source, reason) in [
            ("P +", "P +"),
            ("P * label", "P * label"),
            ("P / 0", "inf"),
            ("shell(P)", "function shell is unknown"),
            ("[1, 2].map(x, x + P)", "loops"),
            ("[P]", "list"),
        ] {
            let error = value(source).unwrap_err();
            assert!(error.contains(reason), "{source}: {error}");
        }
        let long = "1+".repeat(EXPRESSION_BYTES_MAX) + "1";
        assert!(value(&long).unwrap_err().contains("bytes"));
        let expression = Expression::new("P + 1").unwrap();
        assert!(expression.holds(&row()).is_err());
        assert_eq!(expression.names().collect::<Vec<_>>(), ["P"]);
    }
}
