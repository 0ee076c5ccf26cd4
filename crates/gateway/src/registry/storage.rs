//! Storage rules: what of points, events and attributes is kept, for how long and how dense.
//!
//! A rule that names a point beats one that names none. Two rules of the same kind for the same point
//! of a product are refused: which of them wins is for a person to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use backtide_model::{ElementName, Model, ObjectName};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Policy, PolicyFile, Product, Snapshot};
use crate::{limits, query::aggregate::elapsed};

/// When a day is quiet, unless a rule says so.
const QUIET_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// What of some points, or of events or attributes, is kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StorageRule {
    /// Of these models among the policy's; of all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub models: Vec<ObjectName>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "is_points")]
    pub of: Of,
    /// The points; when empty, those that no other rule names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub points: Vec<ElementName>,
    /// Which values are kept.
    #[serde(default, skip_serializing_if = "is_raw")]
    pub keep: Density,
    /// Only values that differ from the one before, and the first of each UTC day.
    #[serde(default, skip_serializing_if = "is_false")]
    pub change_only: bool,
    /// With `changeOnly`: a day of a device is thinned once nothing of it arrived for so long; 1h unless given. What
    /// comes later finds only the ends of stretches of equal values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<String>,
    /// For how long; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36500))]
    pub keep_days: Option<u32>,
    /// With `keep: both`, for how long every value is kept; beyond, the last of each minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36500))]
    pub raw_days: Option<u32>,
    #[serde(default, skip_serializing_if = "is_event")]
    pub by: KeptBy,
    /// Dead-band and swinging-door parameters as the vendor's policy API saved them, by point. They
    /// are given back by it, and not acted on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Compression>")]
    pub compression: BTreeMap<ElementName, Compression>,
}

/// What a storage rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "StorageOf")]
pub enum Of {
    #[default]
    Points,
    /// All events of the models.
    Events,
    /// Earlier values of attributes; those in force are always kept.
    Attributes,
}

/// Which values of a point are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "StorageDensity")]
pub enum Density {
    /// Every one.
    #[default]
    Raw,
    /// The last of each minute, by the time of the value.
    Minute,
    /// Every one, for `rawDays` where it is given, and the last of each minute from then on.
    Both,
}

/// What the age of a value counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeptBy {
    /// The time of the value.
    #[default]
    Event,
    /// The arrival of the message that it came with.
    Import,
}

/// Parameters of compression of a point.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    /// Swinging door: compdev, compmax, compmin.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sdt: BTreeMap<String, f64>,
    /// Dead band: excdev, excmax, excmin.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub db: BTreeMap<String, f64>,
}

impl KeptBy {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Import => "import",
        }
    }
}

impl Of {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Points => "points",
            Self::Events => "events",
            Self::Attributes => "attributes",
        }
    }
}

impl Density {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Minute => "minute",
            Self::Both => "both",
        }
    }
}

/// What is older than so many days is not kept, milliseconds since 1970 UTC.
fn before(days: u32, now_ms: i64) -> i64 {
    now_ms.saturating_sub(i64::from(days) * DAY_MS)
}

impl StorageRule {
    /// What is older than this is not kept.
    pub fn oldest_ms(&self, now_ms: i64) -> Option<i64> {
        self.keep_days.map(|days| before(days, now_ms))
    }

    /// What is older than this is kept by the minute alone.
    pub fn raw_oldest_ms(&self, now_ms: i64) -> Option<i64> {
        self.raw_days.map(|days| before(days, now_ms))
    }

    /// How long nothing of a day must have arrived before it is thinned to its changes.
    pub fn quiet_ms(&self) -> i64 {
        let given = self.quiet.as_deref().and_then(|quiet| elapsed(quiet).ok());
        given.unwrap_or(QUIET_MS)
    }

    /// How it says what is kept: `365 days by event time, the last of each minute`.
    pub fn in_words(&self) -> String {
        let mut words = match self.keep_days {
            Some(days) => format!("{days} days by {} time", self.by.word()),
            None => "for ever".to_owned(),
        };
        match (self.keep, self.raw_days) {
            (Density::Raw, _) => {}
            (Density::Minute, _) => words.push_str(", the last of each minute"),
            (Density::Both, Some(days)) => {
                words.push_str(&format!(", beyond {days} days the last of each minute"));
            }
            (Density::Both, None) => words.push_str(", raw and by the minute"),
        }
        if self.change_only {
            words.push_str(", changes only");
        }
        if let Some(quiet) = &self.quiet {
            words.push_str(&format!(" once {quiet} quiet"));
        }
        words
    }

    fn check(&self) -> Result<(), String> {
        for (name, days) in [("keepDays", self.keep_days), ("rawDays", self.raw_days)] {
            let most = limits::KEEP_DAYS_MAX;
            if days.is_some_and(|days| days == 0 || days > most) {
                let days = days.unwrap_or_default();
                return Err(format!("{name} {days} is not between 1 and {most}"));
            }
        }
        if self.points.len() > limits::POLICY_POINTS_MAX {
            return Err(format!(
                "points has {} names, at most {} are taken",
                self.points.len(),
                limits::POLICY_POINTS_MAX
            ));
        }
        let is_plain = self.keep == Density::Raw && !self.change_only && self.quiet.is_none();
        if self.of != Of::Points && !(is_plain && self.points.is_empty() && self.raw_days.is_none())
        {
            return Err(format!(
                "points, keep, changeOnly, quiet and rawDays are for points; a rule of {} has keepDays and by",
                self.of.word()
            ));
        }
        if is_plain && self.keep_days.is_none() && self.points.is_empty() {
            return Err("it says nothing: give it keepDays, keep or changeOnly".to_owned());
        }
        if self.change_only && self.keep != Density::Raw {
            return Err("changeOnly and keep exclude each other; leave one out".to_owned());
        }
        self.check_quiet()?;
        if self.change_only && self.by == KeptBy::Import && self.keep_days.is_some() {
            return Err(
                "changeOnly cannot count by import: a value that is kept because it came first \
                 would go before those that it stands for; use by: event"
                    .to_owned(),
            );
        }
        if self.raw_days.is_some() && (self.keep != Density::Both || self.by == KeptBy::Import) {
            return Err("rawDays is for keep: both, by event".to_owned());
        }
        match (self.raw_days, self.keep_days) {
            (Some(raw), Some(all)) if raw >= all => Err(format!(
                "rawDays {raw} is not below keepDays {all}: nothing would be kept by the minute"
            )),
            _ => Ok(()),
        }
    }

    fn check_quiet(&self) -> Result<(), String> {
        let Some(quiet) = &self.quiet else {
            return Ok(());
        };
        if !self.change_only {
            return Err("quiet is for changeOnly: other thinning does not wait".to_owned());
        }
        let ms = elapsed(quiet).map_err(|error| format!("quiet: {error}"))?;
        match (limits::CHANGES_QUIET_MS_MIN..=limits::CHANGES_QUIET_MS_MAX).contains(&ms) {
            true => Ok(()),
            false => Err(format!("quiet: {quiet} is not between 1m and 366d")),
        }
    }

    fn is_about(&self, model: &ObjectName) -> bool {
        self.models.is_empty() || self.models.contains(model)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_points(of: &Of) -> bool {
    *of == Of::Points
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_raw(keep: &Density) -> bool {
    *keep == Density::Raw
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_event(by: &KeptBy) -> bool {
    *by == KeptBy::Event
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// The rules of a policy: a list, or one alone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StorageRules(pub Vec<StorageRule>);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "StorageRules")]
enum OneOrMany {
    One(Box<StorageRule>),
    Many(Vec<StorageRule>),
}

impl Serialize for StorageRules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for StorageRules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rules;
        impl<'de> serde::de::Visitor<'de> for Rules {
            type Value = StorageRules;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a storage rule, or a list of them")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                seq: A,
            ) -> Result<Self::Value, A::Error> {
                let list = serde::de::value::SeqAccessDeserializer::new(seq);
                Vec::deserialize(list).map(StorageRules)
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<Self::Value, A::Error> {
                let one = serde::de::value::MapAccessDeserializer::new(map);
                StorageRule::deserialize(one).map(|rule| StorageRules(vec![rule]))
            }
        }
        // Not untagged: a fault is told with its place.
        deserializer.deserialize_any(Rules)
    }
}

impl JsonSchema for StorageRules {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        OneOrMany::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        OneOrMany::json_schema(generator)
    }
}

impl StorageRules {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks the rules of a policy against the models that it is about.
    pub(super) fn check(
        &self,
        file: &PolicyFile,
        models: &[(&ObjectName, &Model)],
    ) -> Result<(), String> {
        if self.is_empty() {
            return Ok(());
        }
        if self.0.len() > limits::STORAGE_RULES_MAX {
            return Err(format!(
                "storage has {} rules, at most {} are taken",
                self.0.len(),
                limits::STORAGE_RULES_MAX
            ));
        }
        if !file.channels.is_empty() {
            let why = "storage is for whole products: a policy with storage names no channels";
            return Err(why.to_owned());
        }
        for (at, rule) in (1..).zip(&self.0) {
            let place = |why| format!("storage rule {at}: {why}");
            rule.check().map_err(place)?;
            let about: Vec<_> = models
                .iter()
                .filter(|(name, _)| rule.is_about(name))
                .collect();
            if let Some(model) = rule
                .models
                .iter()
                .find(|name| about.iter().all(|(of, _)| of != name))
            {
                return Err(place(format!("model {model} is none of the policy's")));
            }
            let is_known = |point: &&ElementName| {
                about
                    .iter()
                    .any(|(_, model)| model.passthrough || model.measurepoints.contains_key(*point))
            };
            if let Some(point) = rule.points.iter().find(|point| !is_known(point)) {
                return Err(place(format!(
                    "{point} is in none of the models that it is about"
                )));
            }
            if let Some(point) = rule
                .compression
                .keys()
                .find(|point| !rule.points.contains(point))
            {
                return Err(place(format!("compression: {point} is none of its points")));
            }
        }
        Ok(())
    }
}

/// A rule in force: of which policy, and which of its rules, from 0.
#[derive(Debug, Clone)]
pub struct RuleInForce {
    pub policy: Arc<Policy>,
    pub at: usize,
}

impl RuleInForce {
    pub fn rule(&self) -> &StorageRule {
        &self.policy.file.storage.0[self.at]
    }
}

/// The rules of a product.
#[derive(Debug, Clone, Default)]
pub struct ProductStorage {
    /// Of points that no rule names.
    pub rest: Option<RuleInForce>,
    pub points: BTreeMap<ElementName, RuleInForce>,
    pub events: Option<RuleInForce>,
    pub attributes: Option<RuleInForce>,
}

impl ProductStorage {
    /// The rules of policies, in order, that are about a product; `None` where there is none.
    ///
    /// # Errors
    /// Two of them say something of the same.
    pub(super) fn of(product: &Product, policies: &[Arc<Policy>]) -> Result<Option<Self>, String> {
        let mut found = Self::default();
        let mut is_any = false;
        for policy in policies
            .iter()
            .filter(|policy| policy.file.is_about(product))
        {
            for (at, rule) in policy.file.storage.0.iter().enumerate() {
                if !rule.is_about(&product.model_name) {
                    continue;
                }
                is_any = true;
                let in_force = RuleInForce {
                    policy: Arc::clone(policy),
                    at,
                };
                found.add(product, rule, &in_force)?;
            }
        }
        Ok(is_any.then_some(found))
    }

    fn add(
        &mut self,
        product: &Product,
        rule: &StorageRule,
        in_force: &RuleInForce,
    ) -> Result<(), String> {
        let twice = |what: &str, other: &RuleInForce| {
            let (a, b) = (&other.policy.name, &in_force.policy.name);
            format!(
                "product {} would have two storage policies, {a} and {b}, for {what}; it has one for each \
                 point, and one for those that no rule names",
                product.name
            )
        };
        let slot = match rule.of {
            Of::Points if !rule.points.is_empty() => {
                for point in rule.points.iter().collect::<BTreeSet<_>>() {
                    if let Some(other) = self.points.insert(point.clone(), in_force.clone()) {
                        return Err(twice(point.as_str(), &other));
                    }
                }
                return Ok(());
            }
            Of::Points => &mut self.rest,
            Of::Events => &mut self.events,
            Of::Attributes => &mut self.attributes,
        };
        match slot.replace(in_force.clone()) {
            Some(other) => Err(twice(rule.of.word(), &other)),
            None => Ok(()),
        }
    }

    /// The rule of a point.
    pub fn point(&self, point: &ElementName) -> Option<&RuleInForce> {
        self.points.get(point).or(self.rest.as_ref())
    }
}

impl Snapshot {
    /// What is kept of a product, where any policy says so.
    pub fn storage(&self, product: impl AsRef<str>) -> Option<&Arc<ProductStorage>> {
        self.policies().storage.get(product.as_ref())
    }
}
