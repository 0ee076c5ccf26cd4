//! What a rule makes of a row: its steps but the script, compiled once. Pure.

use std::{borrow::Cow, collections::HashMap};

use backtide_model::ElementName;

use super::matcher::number;
use crate::{
    expression::{Expression, Names},
    message::{Body, Heading, PointValue, Row, Value},
    registry::{Rule, Scale, Step},
};

/// The steps of a rule.
pub(super) struct Maker {
    steps: Vec<Compiled>,
}

enum Compiled {
    Select(Vec<Box<str>>),
    Rename(HashMap<Box<str>, ElementName>),
    Scale(HashMap<Box<str>, Scale>),
    Set(Vec<(ElementName, Expression)>),
    Keep(Expression),
}

impl Maker {
    /// # Errors
    /// An expression that was taken by another version of the gateway.
    pub(super) fn new(rule: &Rule) -> Result<Self, String> {
        let compiled = rule
            .file
            .make
            .iter()
            .filter_map(|step| compiled(step).transpose());
        Ok(Self {
            steps: compiled.collect::<Result<_, String>>()?,
        })
    }

    /// Makes of a row what the rule wants. False where nothing of it is left.
    ///
    /// # Errors
    /// A value that cannot be computed.
    pub(super) fn make<'a>(
        &'a self,
        row: &mut Row<'a>,
        heading: &Heading,
        channel: &str,
    ) -> Result<bool, String> {
        if self.steps.is_empty() {
            return Ok(true);
        }
        let mut values = match &mut row.body {
            Body::Points(values) => std::mem::take(values),
            body => body.values()?,
        };
        for step in &self.steps {
            let is_kept = match step {
                Compiled::Select(names) => {
                    values.retain(|value| names.iter().any(|name| **name == *value.point));
                    true
                }
                Compiled::Rename(names) => {
                    rename(&mut values, names);
                    true
                }
                Compiled::Scale(scales) => {
                    scale(&mut values, scales)?;
                    true
                }
                Compiled::Set(expressions) => {
                    for (name, expression) in expressions {
                        let named = RowNames {
                            values: &values,
                            row,
                            heading,
                            channel,
                        };
                        let made = expression
                            .value(&named)
                            .map_err(|error| error.to_string())?;
                        if let Some(value) = made {
                            set(&mut values, name.as_str(), value);
                        }
                    }
                    true
                }
                Compiled::Keep(expression) => {
                    let named = RowNames {
                        values: &values,
                        row,
                        heading,
                        channel,
                    };
                    expression
                        .holds(&named)
                        .map_err(|error| error.to_string())?
                }
            };
            // An event without output is still one.
            let is_event = matches!(row.body, Body::Event { .. });
            if !is_kept || (values.is_empty() && !is_event) {
                return Ok(false);
            }
        }
        let body = std::mem::replace(&mut row.body, Body::Points(Vec::new()));
        row.body = body.with_values(values);
        Ok(true)
    }
}

/// `None`: the script, which comes after all others and runs elsewhere.
fn compiled(step: &Step) -> Result<Option<Compiled>, String> {
    let expression = |source: &str| Expression::new(source).map_err(|error| error.to_string());
    Ok(Some(match step {
        Step::Select(names) => {
            Compiled::Select(names.iter().map(|name| name.as_str().into()).collect())
        }
        Step::Rename(names) => {
            let pair =
                |(old, new): (&ElementName, &ElementName)| (old.as_str().into(), new.clone());
            Compiled::Rename(names.iter().map(pair).collect())
        }
        Step::Scale(scales) => {
            let pair = |(name, scale): (&ElementName, &Scale)| (name.as_str().into(), *scale);
            Compiled::Scale(scales.iter().map(pair).collect())
        }
        Step::Set(made) => {
            let pair = |(name, source): (&ElementName, &String)| {
                Ok::<_, String>((name.clone(), expression(source)?))
            };
            Compiled::Set(made.iter().map(pair).collect::<Result<_, _>>()?)
        }
        Step::Keep(source) => Compiled::Keep(expression(source)?),
        Step::Script(_) => return Ok(None),
    }))
}

fn rename<'a>(values: &mut Vec<PointValue<'a>>, names: &'a HashMap<Box<str>, ElementName>) {
    let mut is_renamed = false;
    for value in values.iter_mut() {
        if let Some(name) = names.get(&*value.point) {
            value.point = Cow::Borrowed(name.as_str());
            is_renamed = true;
        }
    }
    if !is_renamed {
        return;
    }
    // A model that takes what it does not declare may have had the new name: the renamed one counts.
    for name in names.values() {
        let named = |value: &PointValue<'_>| value.point == name.as_str();
        if values.iter().filter(|value| named(value)).count() > 1 {
            let kept = values.iter().position(|value| {
                named(value) && matches!(&value.point, Cow::Borrowed(text) if std::ptr::eq(*text, name.as_str()))
            });
            let mut place = 0;
            values.retain(|value| {
                let is_kept = !named(value) || Some(place) == kept;
                place += 1;
                is_kept
            });
        }
    }
}

fn scale(values: &mut [PointValue<'_>], scales: &HashMap<Box<str>, Scale>) -> Result<(), String> {
    for value in values {
        let Some(scale) = scales.get(&*value.point) else {
            continue;
        };
        let name = &value.point;
        let before = number(&value.value)
            .ok_or_else(|| format!("scale: {name} is {}, no number", value.value.json()))?;
        let scaled = before * scale.factor + scale.offset;
        if !scaled.is_finite() {
            return Err(format!(
                "scale: {name} becomes {scaled}, which JSON does not know"
            ));
        }
        value.value = Value::Double(scaled);
    }
    Ok(())
}

fn set<'a>(values: &mut Vec<PointValue<'a>>, name: &'a str, made: Value<'a>) {
    match values.iter_mut().find(|value| value.point == name) {
        Some(value) => value.value = made,
        None => values.push(PointValue {
            point: Cow::Borrowed(name),
            value: made,
            quality: None,
        }),
    }
}

/// What an expression may name.
struct RowNames<'r, 'a> {
    values: &'r [PointValue<'a>],
    row: &'r Row<'a>,
    heading: &'r Heading,
    channel: &'r str,
}

impl Names for RowNames<'_, '_> {
    fn value(&self, name: &str) -> Option<Value<'_>> {
        let own = self.values.iter().find(|value| value.point == name);
        if let Some(value) = own {
            return Some(borrowed(&value.value));
        }
        let text = |text| Some(Value::Text(Cow::Borrowed(text)));
        match name {
            "assetId" => text(self.row.asset_id.as_str()),
            "deviceKey" => text(self.row.device_key.as_str()),
            "productKey" => text(self.heading.product_key().as_str()),
            "modelId" => text(self.heading.model_id()),
            "channel" => text(self.channel),
            "time" => Some(Value::Long(self.row.time_ms)),
            "event" => match &self.row.body {
                Body::Event { event, .. } => text(event),
                Body::Points(_) | Body::Attributes(_) => None,
            },
            _ => None,
        }
    }

    fn each(&self) -> Vec<(&str, Value<'_>)> {
        let values = self.values.iter();
        values
            .map(|value| (&*value.point, borrowed(&value.value)))
            .collect()
    }
}

fn borrowed<'v>(value: &'v Value<'_>) -> Value<'v> {
    match value {
        Value::Bool(value) => Value::Bool(*value),
        Value::Int(value) => Value::Int(*value),
        Value::Long(value) => Value::Long(*value),
        Value::Float(value) => Value::Float(*value),
        Value::Double(value) => Value::Double(*value),
        Value::Text(text) => Value::Text(Cow::Borrowed(text)),
        Value::Json(text) => Value::Json(Cow::Borrowed(text)),
    }
}
