//! Comparisons of `latest/filter`. Pure.

use backtide_model::Cell;

use super::super::{answer::Refusal, call::Params};
use crate::query;

/// A state, or another value, as text.
pub(super) fn status_text(cell: &Cell, is_json: bool) -> String {
    match cell {
        Cell::Text(text) => text.to_string(),
        other => {
            let mut text = Vec::new();
            query::write_cell(&mut text, other, is_json);
            String::from_utf8_lossy(&text).into_owned()
        }
    }
}

/// A comparison of `latest/filter`.
#[derive(Debug)]
pub(super) enum Filter {
    Compare(Compare, Operand),
    Between(Operand, Operand),
    In(Vec<Operand>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Compare {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

#[derive(Debug)]
pub(super) enum Operand {
    Number(f64),
    Text(String),
}

impl Operand {
    fn read(text: &str) -> Self {
        text.parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .map_or_else(|| Self::Text(text.to_owned()), Self::Number)
    }

    /// How a value stands to it; a number and a text do not compare.
    fn order(&self, cell: &Cell, is_json: bool) -> Option<std::cmp::Ordering> {
        match (self, query::number(cell)) {
            (Self::Number(own), Some(number)) => number.partial_cmp(own),
            (Self::Text(_), Some(_)) => None,
            (own, None) => {
                let own = match own {
                    Self::Text(text) => text.clone(),
                    Self::Number(number) => number.to_string(),
                };
                Some(status_text(cell, is_json).cmp(&own))
            }
        }
    }
}

impl Filter {
    pub(super) fn read(operator: &str, values: &str) -> Result<Self, Refusal> {
        let operands: Vec<_> = Params::list(values)
            .into_iter()
            .map(Operand::read)
            .collect();
        let compare = match operator.to_ascii_lowercase().as_str() {
            "in" => return Ok(Self::In(operands)),
            "between" => {
                let mut operands = operands.into_iter();
                return match (operands.next(), operands.next(), operands.next()) {
                    (Some(from), Some(to), None) => Ok(Self::Between(from, to)),
                    _ => Err(Refusal::parameter(
                        "between takes two values, separated by a comma",
                    )),
                };
            }
            "eq" => Compare::Eq,
            "nq" | "ne" => Compare::Ne,
            "gt" => Compare::Gt,
            "ge" => Compare::Ge,
            "lt" => Compare::Lt,
            "le" => Compare::Le,
            other => {
                return Err(Refusal::parameter(format!(
                    "operator {other:?} is unknown; known are eq, nq, gt, ge, lt, le, between, in"
                )));
            }
        };
        let mut operands = operands.into_iter();
        match (operands.next(), operands.next()) {
            (Some(operand), None) => Ok(Self::Compare(compare, operand)),
            _ => Err(Refusal::parameter(format!("{operator} takes one value"))),
        }
    }

    pub(super) fn takes(&self, cell: &Cell, is_json: bool) -> bool {
        use std::cmp::Ordering;
        let order = |operand: &Operand| operand.order(cell, is_json);
        match self {
            Self::Compare(compare, operand) => order(operand).is_some_and(|order| match compare {
                Compare::Eq => order.is_eq(),
                Compare::Ne => order.is_ne(),
                Compare::Gt => order.is_gt(),
                Compare::Ge => order.is_ge(),
                Compare::Lt => order.is_lt(),
                Compare::Le => order.is_le(),
            }),
            Self::Between(from, to) => {
                order(from).is_some_and(Ordering::is_ge) && order(to).is_some_and(Ordering::is_le)
            }
            Self::In(operands) => operands
                .iter()
                .any(|operand| order(operand).is_some_and(Ordering::is_eq)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_compare_as_numbers_and_as_text() {
        let takes = |operator: &str, values: &str, cell: Cell| {
            Filter::read(operator, values).unwrap().takes(&cell, false)
        };
        for (operator, values, expected) in [
            ("eq", "5", true),
            ("NQ", "5", false),
            ("gt", "4.9", true),
            ("ge", "5", true),
            ("lt", "5", false),
            ("le", "5", true),
            ("between", "1,5", true),
            ("between", "6, 7", false),
            ("in", "1,5,9", true),
            ("eq", "x", false),
        ] {
            assert_eq!(
                takes(operator, values, Cell::Int(5)),
                expected,
                "{operator} {values}"
            );
        }
        assert!(takes("eq", "on", Cell::Text("on".into())));
        for (operator, values) in [("like", "1"), ("eq", "1,2"), ("between", "1"), ("eq", "")] {
            assert_eq!(Filter::read(operator, values).unwrap_err().code, 702);
        }
    }
}
