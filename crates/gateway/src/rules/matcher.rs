//! Which rows of a commit a rule takes. Compiled once for a snapshot of the registry; pure.

use std::collections::HashSet;

use backtide_model::{AssetId, ElementName, ProductKey};
use backtide_store::{Commit, PartKind, Wanted};

use crate::{
    message::{self, Body, Heading, PointValue, Row, Value},
    query,
    registry::{Calculated, Comparison, Constant, QualityRange, RowKind, Rule, Snapshot},
};

/// What a rule listens to, ready to be asked.
pub(super) struct Matcher {
    contents: RowKind,
    calculated: Calculated,
    /// Empty: all of them. The same below.
    channels: HashSet<Box<str>>,
    products: HashSet<ProductKey>,
    models: HashSet<Box<str>>,
    assets: Option<HashSet<AssetId>>,
    elements: HashSet<Box<str>>,
    quality: Option<QualityRange>,
    from_ms: i64,
    to_ms: i64,
    conditions: Vec<(Box<str>, Comparison)>,
}

impl Matcher {
    pub(super) fn new(rule: &Rule, snapshot: &Snapshot) -> Self {
        let from = &rule.file.from;
        let moment = |text: Option<&String>, otherwise| {
            // Checked when it was declared.
            text.and_then(|text| query::moment(text).ok())
                .unwrap_or(otherwise)
        };
        let time = from.time.as_ref();
        let words = |words: Vec<&str>| words.into_iter().map(Into::into).collect();
        // A product that was deleted since excludes nothing else: its key is in no commit any more.
        let product = |name| Some(snapshot.product(name)?.key.clone());
        let mut products: HashSet<ProductKey> = from.products.iter().filter_map(product).collect();
        if products.is_empty() && !from.products.is_empty() {
            products.extend(ProductKey::new("-"));
        }
        Self {
            contents: from.contents,
            calculated: from.calculated,
            channels: words(from.channels.iter().map(AsRef::as_ref).collect()),
            products,
            models: words(from.models.iter().map(AsRef::as_ref).collect()),
            assets: rule
                .assets(snapshot)
                .map(|assets| assets.cloned().collect()),
            elements: words(
                rule.file
                    .elements()
                    .iter()
                    .map(ElementName::as_str)
                    .collect(),
            ),
            quality: from.quality,
            from_ms: moment(time.and_then(|time| time.from.as_ref()), i64::MIN),
            to_ms: moment(time.and_then(|time| time.to.as_ref()), i64::MAX),
            conditions: from
                .conditions
                .iter()
                .map(|(name, comparison)| (name.as_str().into(), comparison.clone()))
                .collect(),
        }
    }

    pub(super) fn contents(&self) -> RowKind {
        self.contents
    }

    /// Commits that may hold what it takes.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            kind: match self.contents {
                RowKind::Points => PartKind::Points,
                RowKind::Events => PartKind::Events,
                RowKind::Attributes => PartKind::Attributes,
            },
            topic_begins: match self.calculated {
                Calculated::Only => message::CALCULATED_TOPIC,
                Calculated::Include | Calculated::Exclude => "",
            },
        }
    }

    /// Event times that it takes: the first, and the first behind.
    pub(super) fn span(&self) -> (i64, i64) {
        (self.from_ms, self.to_ms)
    }

    /// Whether rows of a commit may be taken at all.
    pub(super) fn has_commit(&self, commit: &Commit) -> bool {
        let is_wanted = match self.calculated {
            Calculated::Include => true,
            Calculated::Exclude => !message::is_calculated(commit),
            Calculated::Only => message::is_calculated(commit),
        };
        let channel = commit.origin.channel.as_str();
        is_wanted && (self.channels.is_empty() || self.channels.contains(channel))
    }

    pub(super) fn has_product(&self, heading: &Heading) -> bool {
        (self.products.is_empty() || self.products.contains(heading.product_key()))
            && (self.models.is_empty() || self.models.contains(heading.model_id()))
    }

    /// Whether a row is taken; leaves out what of it is not.
    ///
    /// # Errors
    /// A text of it is no JSON.
    pub(super) fn takes(&self, row: &mut Row<'_>) -> Result<bool, String> {
        let is_in_time = self.from_ms <= row.time_ms && row.time_ms < self.to_ms;
        let has_asset = |assets: &HashSet<_>| assets.contains(&row.asset_id);
        if !is_in_time || !self.assets.as_ref().is_none_or(has_asset) {
            return Ok(false);
        }
        let has = |name: &str| self.elements.is_empty() || self.elements.contains(name);
        match (self.contents, &mut row.body) {
            (RowKind::Points, Body::Points(values)) => {
                if let Some(quality) = &self.quality {
                    values.retain(|value| is_in(quality, value.quality));
                }
                if !self.holds(values) {
                    return Ok(false);
                }
                if !self.elements.is_empty() {
                    values.retain(|value| has(&value.point));
                }
                Ok(!values.is_empty())
            }
            (RowKind::Events, Body::Event { event, .. }) if has(event) => {
                Ok(self.conditions.is_empty() || self.holds(&row.body.values()?))
            }
            (RowKind::Attributes, body @ Body::Attributes(_)) => {
                if !self.conditions.is_empty() && !self.holds(&body.values()?) {
                    return Ok(false);
                }
                let Body::Attributes(values) = body else {
                    return Ok(false);
                };
                values.retain(|(name, _)| has(name));
                Ok(!values.is_empty())
            }
            (RowKind::Points | RowKind::Events | RowKind::Attributes, _) => Ok(false),
        }
    }

    fn holds(&self, values: &[PointValue<'_>]) -> bool {
        self.conditions.iter().all(|(name, comparison)| {
            let value = values.iter().find(|value| value.point == **name);
            value.is_some_and(|value| compares(comparison, &value.value))
        })
    }
}

fn is_in(range: &QualityRange, quality: Option<u8>) -> bool {
    match quality {
        Some(quality) => range.min <= quality && quality <= range.max,
        None => !range.required,
    }
}

/// Whether all that is compared holds. A text is no number, and neither is above the other.
fn compares(comparison: &Comparison, value: &Value<'_>) -> bool {
    let number = number(value);
    let against = |bound: Option<f64>, holds: fn(f64, f64) -> bool| {
        bound.is_none_or(|bound| number.is_some_and(|number| holds(number, bound)))
    };
    against(comparison.above, |number, bound| number > bound)
        && against(comparison.at_least, |number, bound| number >= bound)
        && against(comparison.below, |number, bound| number < bound)
        && against(comparison.at_most, |number, bound| number <= bound)
        && comparison
            .equals
            .as_ref()
            .is_none_or(|constant| equals(constant, value))
        && comparison
            .not
            .as_ref()
            .is_none_or(|constant| !equals(constant, value))
}

#[expect(clippy::float_cmp, reason = "equal is what is asked for")]
fn equals(constant: &Constant, value: &Value<'_>) -> bool {
    match (constant, value) {
        (Constant::Bool(constant), Value::Bool(value)) => constant == value,
        (Constant::Text(constant), Value::Text(value)) => *constant == *value,
        (Constant::Number(constant), value) => number(value).is_some_and(|n| n == *constant),
        (Constant::Bool(_) | Constant::Text(_), _) => false,
    }
}

/// A value as a number, if it is one.
pub(super) fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(f64::from(*value)),
        Value::Long(value) => Some(*value as f64),
        Value::Float(value) => Some(f64::from(*value)),
        Value::Double(value) => Some(*value),
        Value::Bool(_) | Value::Text(_) | Value::Json(_) => None,
    }
}
