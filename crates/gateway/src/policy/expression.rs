//! Expressions over the points of one row, in CEL. An expression cannot loop, and knows nothing but
//! the row: it ends soon, and gives the same for the same row.

use std::sync::{Arc, LazyLock};

use backtide_model::{Cell, DataType, ElementName, Storage};
use cel::{
    Context, Env, ExecutionError, Program, Value,
    common::ast::{EntryExpr, Expr, IdedExpr},
};

use crate::limits::EXPRESSION_CHARS_MAX;

static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    program: Program,
    /// The points that it reads.
    pub(super) inputs: Vec<ElementName>,
}

/// A result: `None` where the expression says null.
pub(super) type Computed = Result<Option<Cell>, String>;

impl Expression {
    /// # Errors
    /// What is wrong with the text.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        let chars = text.chars().count();
        if chars > EXPRESSION_CHARS_MAX {
            return Err(format!(
                "the expression has {chars} characters, at most {EXPRESSION_CHARS_MAX} are taken"
            ));
        }
        let program = Program::compile(text).map_err(|error| format!("{error}"))?;
        if loops(program.expression()) {
            return Err(
                "all, exists, map and filter go through lists, and a row has none".to_owned(),
            );
        }
        let mut inputs = Vec::new();
        for name in program.references().variables() {
            let point = ElementName::new(name).map_err(|error| error.to_string())?;
            inputs.push(point);
        }
        inputs.sort();
        if inputs.is_empty() {
            return Err("the expression reads no point of the row".to_owned());
        }
        Ok(Self { program, inputs })
    }

    /// The value of `result` for a row; `inputs` are given in the order of [`Self::inputs`].
    pub(super) fn compute<'c>(
        &self,
        inputs: impl Iterator<Item = &'c Cell>,
        result: &DataType,
    ) -> Computed {
        let outcome = self.run(inputs.map(value_of));
        outcome
            .map_err(|error| error.to_string())
            .and_then(|value| cell_of(value, result))
    }

    /// Tries it on values of the types that its inputs have, so that a wrong type is found when the
    /// policy is applied, not when a message comes.
    ///
    /// # Errors
    /// What is wrong whatever the values are.
    pub(super) fn try_types<'t>(
        &self,
        types: impl Iterator<Item = &'t DataType>,
        result: &DataType,
    ) -> Result<(), String> {
        match self.run(types.map(sample)) {
            Ok(value) if fits(&value, result.storage()) => Ok(()),
            Ok(value) => Err(format!(
                "the expression gives a {}, and the point is {}",
                value.type_of(),
                result.word()
            )),
            Err(error) if is_of_values(&error) => Ok(()),
            Err(error) => Err(format!(
                "{error}; int points are ints and double points doubles: write 2.0 beside a \
                 double, double(n) for an int n"
            )),
        }
    }

    fn run(&self, values: impl Iterator<Item = Value>) -> Result<Value, ExecutionError> {
        let mut context = Context::with_env(Arc::clone(&STANDARD));
        for (name, value) in self.inputs.iter().zip(values) {
            context.add_variable_from_value(name.as_str(), value);
        }
        self.program.execute(&context)
    }
}

/// Whether a value is of the kind that a storage holds; its size is looked at for each row.
fn fits(value: &Value, storage: Storage) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) => storage == Storage::Bool,
        Value::Int(_) | Value::UInt(_) => !matches!(storage, Storage::Bool | Storage::Text),
        Value::Float(_) => matches!(storage, Storage::Float | Storage::Double),
        Value::String(_) => storage == Storage::Text,
        _ => false,
    }
}

/// Errors that other values would not have.
fn is_of_values(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::DivisionByZero(_)
            | ExecutionError::RemainderByZero(_)
            | ExecutionError::Overflow(..)
            | ExecutionError::IndexOutOfBounds(_)
            | ExecutionError::FunctionError { .. }
    )
}

fn value_of(cell: &Cell) -> Value {
    match cell {
        Cell::Bool(value) => Value::Bool(*value),
        Cell::Int(value) => Value::Int(i64::from(*value)),
        Cell::Long(value) => Value::Int(*value),
        Cell::Float(value) => Value::Float(f64::from(*value)),
        Cell::Double(value) => Value::Float(*value),
        Cell::Text(value) => Value::String(Arc::new(value.as_ref().to_owned())),
    }
}

fn sample(data_type: &DataType) -> Value {
    match data_type.storage() {
        Storage::Bool => Value::Bool(true),
        Storage::Int | Storage::Long => Value::Int(1),
        Storage::Float | Storage::Double => Value::Float(1.0),
        Storage::Text => Value::String(Arc::new(String::new())),
    }
}

fn cell_of(value: Value, result: &DataType) -> Computed {
    let json = match value {
        Value::Null => return Ok(None),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        Value::Float(value) if !value.is_finite() => {
            return Err(format!("the expression gives {value}, which is no value"));
        }
        Value::Float(value) if matches!(result, DataType::Double) => {
            return Ok(Some(Cell::Double(value)));
        }
        Value::Float(value) => serde_json::Number::from_f64(value)
            .map_or_else(String::new, |number| number.to_string()),
        Value::String(text) => serde_json::to_string(text.as_str()).unwrap_or_default(),
        other => {
            return Err(format!(
                "the expression gives what is a {}, and the point is {}",
                other.type_of(),
                result.word()
            ));
        }
    };
    let read = result.read(&json);
    read.map(Some).map_err(|why| {
        format!(
            "the expression gives {json}: {why}; the point is {}",
            result.word()
        )
    })
}

/// Whether it has a macro that goes through a list.
fn loops(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Comprehension(_) => true,
        Expr::Call(call) => {
            call.target.as_deref().is_some_and(loops) || call.args.iter().any(loops)
        }
        Expr::List(list) => list.elements.iter().any(loops),
        Expr::Select(select) => loops(&select.operand),
        Expr::Map(map) => map.entries.iter().any(|entry| entry_loops(&entry.expr)),
        Expr::Struct(made) => made.entries.iter().any(|entry| entry_loops(&entry.expr)),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => false,
    }
}

fn entry_loops(entry: &EntryExpr) -> bool {
    match entry {
        EntryExpr::StructField(field) => loops(&field.value),
        EntryExpr::MapEntry(entry) => loops(&entry.key) || loops(&entry.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compute(text: &str, inputs: &[Cell], result: &DataType) -> Computed {
        let expression = Expression::compile(text).unwrap();
        expression.compute(inputs.iter(), result)
    }

    #[test]
    fn an_expression_computes_from_the_points_of_the_row() {
        let double = DataType::Double;
        let of = |text, inputs: &[Cell]| compute(text, inputs, &double).unwrap();
        assert_eq!(
            of("P / 2.0 + Q", &[Cell::Double(3.0), Cell::Float(0.5)]),
            Some(Cell::Double(2.0))
        );
        assert_eq!(
            of("P < 0.0 ? 0.0 : P", &[Cell::Double(-0.1)]),
            Some(Cell::Double(0.0))
        );
        assert_eq!(
            of("double(n) * 0.1", &[Cell::Int(12)]),
            Some(Cell::Double(1.2000000000000002))
        );
        assert_eq!(of("P > 100.0 ? null : P", &[Cell::Double(101.0)]), None);
    }

    #[test]
    fn a_result_is_held_against_the_type_of_the_point() {
        let int = DataType::Int;
        assert_eq!(
            compute("n + 1", &[Cell::Int(2)], &int),
            Ok(Some(Cell::Int(3)))
        );
        assert!(compute("n + 1", &[Cell::Long(1 << 40)], &int).is_err());
        assert!(compute("x * 0.5", &[Cell::Double(1.0)], &int).is_err());
        assert!(compute("1.0 / x", &[Cell::Double(0.0)], &DataType::Double).is_err());
        let stop = DataType::String { bytes_max: 8 };
        assert_eq!(
            compute("n > 3 ? 'high' : 'low'", &[Cell::Int(9)], &stop),
            Ok(Some(Cell::Text("high".into())))
        );
    }

    #[test]
    fn what_can_never_work_is_found_before_a_message_comes() {
        let why = |text: &str| Expression::compile(text).unwrap_err();
        assert!(why("[1, 2].all(x, x > P)").contains("lists"));
        assert!(why("1.0 + 2.0").contains("no point"));
        assert!(!why("P +").is_empty());
        assert!(why(&format!("P{}", " ".repeat(2_000))).contains("characters"));
        let types = |text: &str, inputs: &[DataType], result| {
            let expression = Expression::compile(text).unwrap();
            expression.try_types(inputs.iter(), &result)
        };
        let mixed = types("P * 2", &[DataType::Double], DataType::Double).unwrap_err();
        assert!(mixed.contains("write 2.0"), "{mixed}");
        assert!(types("P > 1.0", &[DataType::Double], DataType::Double).is_err());
        assert!(types("nosuch(P)", &[DataType::Double], DataType::Double).is_err());
        assert_eq!(types("10 / n", &[DataType::Int], DataType::Int), Ok(()));
    }
}
