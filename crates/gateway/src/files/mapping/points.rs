//! The points that the channel's product knows, and how their values are written.

use std::collections::HashMap;

use backtide_model::Items;

use super::super::value::Form;

/// The points that the channel's product knows.
#[derive(Debug, Clone)]
pub enum Points {
    Declared {
        model: String,
        forms: HashMap<String, Form>,
        passthrough: bool,
    },
    /// There is no registry to ask.
    Unknown,
    /// Every value is JSON: outputs of events.
    Json,
}

impl Points {
    /// How a point's values are written.
    ///
    /// # Errors
    /// The model has no such point: sending it would have every row refused.
    pub fn form(&self, point: &str, column: &str) -> Result<Form, String> {
        let (model, forms, passthrough) = match self {
            Self::Unknown => return Ok(Form::Guess),
            Self::Json => return Ok(Form::Json),
            Self::Declared {
                model,
                forms,
                passthrough,
            } => (model, forms, passthrough),
        };
        match forms.get(point) {
            Some(form) => Ok(*form),
            None if *passthrough => Ok(Form::Guess),
            None => Err(format!(
                "column {column:?}: model {model} has no point {point:?}; \
                 rename it with --map {column:?}=POINT or leave it out with --drop {column:?}"
            )),
        }
    }

    /// Of what a model declares: points, events or attributes.
    pub fn of(items: Items, declared: Self) -> Self {
        match items {
            Items::Points | Items::Attributes => declared,
            Items::Events => Self::Json,
        }
    }

    pub(super) fn declares(&self, point: &str) -> bool {
        matches!(self, Self::Declared { forms, .. } if forms.contains_key(point))
    }
}
