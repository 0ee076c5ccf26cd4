//! Expressions over the points of one row: the language of rules ([`crate::expression`]), held
//! against the types of a model.

use std::borrow::Cow;

use backtide_model::{Cell, DataType, ElementName, Storage};

use crate::{
    expression::{self, Names},
    message::Value,
};

/// Numbers that an expression is tried on: one of them divides by zero, or takes a root of what is
/// less, where another does not.
const SAMPLES: [i32; 4] = [1, 7, -3, 0];

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    written: expression::Expression,
    /// The points that it reads.
    pub(super) inputs: Vec<ElementName>,
}

/// A result: `None` where the expression says null.
pub(super) type Computed = Result<Option<Cell>, String>;

impl Expression {
    /// # Errors
    /// What is wrong with the text.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        let written = expression::Expression::new(text).map_err(|error| error.to_string())?;
        if written.reads_by_text() {
            return Err("values[…] is known to rules only: name the points that it reads".into());
        }
        let inputs: Result<Vec<_>, _> = written.names().map(ElementName::new).collect();
        let inputs = inputs.map_err(|error| error.to_string())?;
        if inputs.is_empty() {
            return Err("the expression reads no point of the row".to_owned());
        }
        Ok(Self { written, inputs })
    }

    /// The value of `result` for a row; `inputs` are given in the order of [`Self::inputs`].
    pub(super) fn compute<'c>(
        &self,
        inputs: impl Iterator<Item = &'c Cell>,
        result: &DataType,
    ) -> Computed {
        match self.value(inputs)? {
            Some(value) => cell_of(&value, result).map(Some),
            None => Ok(None),
        }
    }

    /// Tries it on values of the types that its inputs have, so that a wrong type is found when the
    /// policy is applied, not when a message comes.
    ///
    /// # Errors
    /// What is wrong whatever the values are.
    pub(super) fn try_types(&self, types: &[DataType], result: &DataType) -> Result<(), String> {
        let mut wrong = Ok(());
        for number in SAMPLES {
            let row: Vec<Cell> = types.iter().map(|of| sample(of, number)).collect();
            match self.value(row.iter()) {
                Ok(Some(value)) if !fits(&value, result.storage()) => {
                    return Err(format!(
                        "the expression gives {}, and the point is {}",
                        value.json(),
                        result.word()
                    ));
                }
                Ok(_) => return Ok(()),
                Err(why) => wrong = Err(why),
            }
        }
        wrong
    }

    fn value<'c>(
        &self,
        inputs: impl Iterator<Item = &'c Cell>,
    ) -> Result<Option<Value<'static>>, String> {
        let row = Row(self.inputs.iter().zip(inputs).collect());
        self.written.value(&row).map_err(|error| error.to_string())
    }
}

/// What an expression reads of a row.
struct Row<'r>(Vec<(&'r ElementName, &'r Cell)>);

impl Names for Row<'_> {
    fn value(&self, name: &str) -> Option<Value<'_>> {
        let mut inputs = self.0.iter();
        let found = inputs.find(|(input, _)| input.as_str() == name);
        found.map(|(_, cell)| value_of(cell))
    }

    fn each(&self) -> Vec<(&str, Value<'_>)> {
        let inputs = self.0.iter();
        let named = inputs.map(|(input, cell)| (input.as_str(), value_of(cell)));
        named.collect()
    }
}

fn value_of(cell: &Cell) -> Value<'_> {
    match cell {
        Cell::Bool(value) => Value::Bool(*value),
        Cell::Int(value) => Value::Int(*value),
        Cell::Long(value) => Value::Long(*value),
        Cell::Float(value) => Value::Float(*value),
        Cell::Double(value) => Value::Double(*value),
        Cell::Text(value) => Value::Text(Cow::Borrowed(value)),
    }
}

/// Whether a value is of the kind that a storage holds; its size is looked at for each row.
fn fits(value: &Value<'_>, storage: Storage) -> bool {
    match value {
        Value::Bool(_) => storage == Storage::Bool,
        Value::Int(_) | Value::Long(_) | Value::Float(_) | Value::Double(_) => {
            !matches!(storage, Storage::Bool | Storage::Text)
        }
        Value::Text(_) | Value::Json(_) => storage == Storage::Text,
    }
}

fn sample(of: &DataType, number: i32) -> Cell {
    match of.storage() {
        Storage::Bool => Cell::Bool(number > 0),
        Storage::Int => Cell::Int(number),
        Storage::Long => Cell::Long(number.into()),
        #[expect(clippy::cast_precision_loss, reason = "a sample has one digit")]
        Storage::Float => Cell::Float(number as f32),
        Storage::Double => Cell::Double(number.into()),
        Storage::Text => Cell::Text("".into()),
    }
}

/// A result in the type of its point; whole numbers are the nearest ones.
fn cell_of(value: &Value<'_>, result: &DataType) -> Result<Cell, String> {
    let json = match value {
        Value::Double(number) if matches!(result, DataType::Double) => {
            return Ok(Cell::Double(*number));
        }
        Value::Double(number) if matches!(result.storage(), Storage::Int | Storage::Long) => {
            format!("{number:.0}")
        }
        other => other.json(),
    };
    let read = result.read(&json);
    read.map_err(|why| {
        format!(
            "the expression gives {json}: {why}; the point is {}",
            result.word()
        )
    })
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
            of("P / 2 + Q", &[Cell::Double(3.0), Cell::Float(0.5)]),
            Some(Cell::Double(2.0))
        );
        assert_eq!(
            of("P < 0.0 ? 0.0 : P", &[Cell::Double(-0.1)]),
            Some(Cell::Double(0.0))
        );
        assert_eq!(
            of("n * 0.1", &[Cell::Int(12)]),
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
        assert_eq!(
            compute("x * 0.5", &[Cell::Double(3.0)], &int),
            Ok(Some(Cell::Int(2)))
        );
        assert!(compute("n + 1", &[Cell::Long(1 << 40)], &int).is_err());
        assert!(compute("1.0 / x", &[Cell::Double(0.0)], &DataType::Double).is_err());
        let stop = DataType::String { bytes_max: 8 };
        assert_eq!(
            compute("n > 3 ? 'high' : 'low'", &[Cell::Int(9)], &stop),
            Ok(Some(Cell::Text("high".into())))
        );
    }

    #[test]
    fn what_can_never_work_is_found_before_a_message_comes() {
        let why = |text: &str| Expression::compile(text).err().unwrap();
        assert!(why("[1, 2].all(x, x > P)").contains("loops"));
        assert!(why("1.0 + 2.0").contains("no point"));
        assert!(why("values['a-b'] + P").contains("name the points"));
        assert!(why("nosuch(P)").contains("unknown"));
        assert!(!why("P +").is_empty());
        let types = |text: &str, inputs: &[DataType], result| {
            let expression = Expression::compile(text).unwrap();
            expression.try_types(inputs, &result)
        };
        let text = DataType::String { bytes_max: 8 };
        assert!(types("P * 2", &[text], DataType::Double).is_err());
        let kind = types("P > 1", &[DataType::Double], DataType::Double).unwrap_err();
        assert!(kind.contains("the point is double"), "{kind}");
        assert_eq!(
            types("10 / (n - 1)", &[DataType::Int], DataType::Int),
            Ok(())
        );
        assert_eq!(
            types("sqrt(P)", &[DataType::Double], DataType::Double),
            Ok(())
        );
    }
}
