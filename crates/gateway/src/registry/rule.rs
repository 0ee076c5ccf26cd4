//! Rules: what of the committed log goes on, what becomes of it, and where it goes.

mod check;

use std::collections::BTreeMap;

use backtide_model::{AssetId, ChannelName, ElementName, ObjectName};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    Snapshot,
    sealed::{self, Sealed},
    subscription::{Begin, asset_of},
};
use crate::{
    limits::RULE_STEPS_MAX,
    secrets::{Seal, SecretError},
};

pub(super) use check::{check, check_loops};

/// A rule in an object file. Whether it is stopped, and its secret, are not in the file: those have
/// verbs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RuleFile {
    /// What it listens to; all points unless given.
    #[serde(default)]
    pub from: Listen,
    /// What it makes of a row, step by step; the row itself when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = RULE_STEPS_MAX))]
    pub make: Vec<Step>,
    /// Where it goes.
    pub to: Destination,
    /// now: what is stored from its creation on. oldest: what the log still holds as well.
    #[serde(default, skip_serializing_if = "is_now")]
    pub begin: Begin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Which rows of the log a rule takes. What is empty or absent excludes nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Listen {
    #[serde(default, rename = "type")]
    pub contents: RowKind,
    /// Names of channels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub channels: Vec<ChannelName>,
    /// Names of products.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub products: Vec<ObjectName>,
    /// Names of models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub models: Vec<ObjectName>,
    /// Devices, each as PRODUCT/NAME or by its asset id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Box<str>>,
    /// Measure points: the others of a row are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub points: Vec<ElementName>,
    /// Events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub events: Vec<ElementName>,
    /// Attributes: the others of a message are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub attributes: Vec<ElementName>,
    /// Values of points by their quality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<QualityRange>,
    /// Rows by their event time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<TimeRange>,
    /// Comparisons that must all hold, by the name of the value: a point, a member of an event's
    /// output, an attribute. A row without the value is not taken.
    #[serde(default, rename = "where", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Comparison>")]
    pub conditions: BTreeMap<ElementName, Comparison>,
    /// Rows that rules wrote back: they are for rules that ask for them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub calculated: Calculated,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_now(begin: &Begin) -> bool {
    *begin == Begin::Now
}

/// What the rows tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    #[default]
    Points,
    Events,
    Attributes,
}

impl RowKind {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Points => "points",
            Self::Events => "events",
            Self::Attributes => "attributes",
        }
    }
}

/// Whether rows that rules wrote back are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Calculated {
    #[default]
    Exclude,
    Include,
    Only,
}

/// Qualities that are taken, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct QualityRange {
    #[serde(default)]
    #[schemars(range(max = 9))]
    pub min: u8,
    #[serde(default = "nine")]
    #[schemars(range(max = 9))]
    pub max: u8,
    /// Values without a quality are taken too, unless this is true.
    #[serde(default, skip_serializing_if = "is_default")]
    pub required: bool,
}

const fn nine() -> u8 {
    9
}

/// Event times that are taken: ISO-8601 with an offset, or epoch milliseconds as text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TimeRange {
    /// Included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Excluded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What a value is held against; several hold together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Comparison {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<Constant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<Constant>,
}

/// A value in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Constant {
    Bool(bool),
    Number(f64),
    Text(String),
}

/// One step of making. Names are those of points, of members of an event's output, or of
/// attributes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Leaves out all other values.
    #[schemars(with = "Vec<String>")]
    Select(Vec<ElementName>),
    /// Old name: new name.
    #[schemars(with = "BTreeMap<String, String>")]
    Rename(BTreeMap<ElementName, ElementName>),
    /// Name: factor and offset.
    #[schemars(with = "BTreeMap<String, Scale>")]
    Scale(BTreeMap<ElementName, Scale>),
    /// New name: an expression (CEL) over the values of the row.
    #[schemars(with = "BTreeMap<String, String>")]
    Set(BTreeMap<ElementName, String>),
    /// Drops the row unless the expression holds.
    Keep(String),
    /// JavaScript with `function transform(message)`, which returns the message to publish, an
    /// array of them, or null for none. The last step.
    Script(String),
}

/// value × factor + offset.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Scale {
    #[serde(default = "one")]
    pub factor: f64,
    #[serde(default)]
    pub offset: f64,
}

const fn one() -> f64 {
    1.0
}

/// Where the records of a rule go. Texts may have places in braces: org, rule, channel, productKey,
/// modelId, assetId, deviceKey, event, time, receipt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Destination {
    Kafka(KafkaFile),
    Webhook(WebhookFile),
    Calculated(CalculatedFile),
}

/// A topic of the Kafka cluster that the gateway's configuration names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KafkaFile {
    /// Such as `MEASURE_POINT_ORIGIN_OFFLINE_{org}`.
    pub topic: String,
    /// Records of a key stay in order.
    #[serde(default = "asset_id", skip_serializing_if = "is_asset_id")]
    pub key: String,
    /// Beside the gateway's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub guarantee: Guarantee,
}

fn asset_id() -> String {
    "{assetId}".to_owned()
}

fn is_asset_id(text: &str) -> bool {
    text == "{assetId}"
}

/// What a rule promises of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// All of them; after a crash some again, under the same receipt and sequence.
    #[default]
    AtLeastOnce,
    /// All of them, and each once for readers of committed records.
    ExactlyOnce,
}

/// A POST for each batch of records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WebhookFile {
    /// `http://` or `https://`; without user name, password or fragment.
    pub url: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub format: BatchFormat,
    /// Sent with every request; `${secret}` stands for the rule's secret, which
    /// `backtide rule secret` sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Records in one request.
    #[serde(
        default = "webhook_records",
        skip_serializing_if = "is_webhook_records"
    )]
    #[schemars(range(min = 1, max = 10_000))]
    pub records_max: usize,
    /// From the request to the whole answer.
    #[serde(
        default = "webhook_seconds",
        skip_serializing_if = "is_webhook_seconds"
    )]
    #[schemars(range(min = 1, max = 300))]
    pub timeout_s: u64,
}

const fn webhook_records() -> usize {
    500
}

fn is_webhook_records(records: &usize) -> bool {
    *records == webhook_records()
}

const fn webhook_seconds() -> u64 {
    30
}

fn is_webhook_seconds(seconds: &u64) -> bool {
    *seconds == webhook_seconds()
}

/// How the records of a request stand in its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchFormat {
    /// A line for each.
    #[default]
    Ndjson,
    /// An array.
    Json,
    /// A line for each: an object with its key, its headers and the message as value.
    Records,
}

/// Stored again, as calculated points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CalculatedFile {
    /// The points that are written back, which the models declare; the others are not.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub points: Vec<ElementName>,
}

impl RuleFile {
    /// The rules that there are at the first start.
    pub(super) fn defaults() -> [(&'static str, Self); 4] {
        let rule = |contents, calculated, topic: &str, description: &str| Self {
            from: Listen {
                contents,
                calculated,
                ..Listen::default()
            },
            make: Vec::new(),
            to: Destination::Kafka(KafkaFile {
                topic: topic.to_owned(),
                key: asset_id(),
                headers: BTreeMap::new(),
                guarantee: Guarantee::default(),
            }),
            begin: Begin::Oldest,
            description: Some(description.to_owned()),
        };
        let (origin, only) = (Calculated::Exclude, Calculated::Only);
        [
            (
                "default-points",
                rule(
                    RowKind::Points,
                    origin,
                    "MEASURE_POINT_ORIGIN_OFFLINE_{org}",
                    "points as they were stored",
                ),
            ),
            (
                "default-events",
                rule(
                    RowKind::Events,
                    origin,
                    "EVENT_ORIGIN_OFFLINE_{org}",
                    "events as they were stored",
                ),
            ),
            (
                "default-attributes",
                rule(
                    RowKind::Attributes,
                    origin,
                    "ATTRIBUTE_ORIGIN_OFFLINE_{org}",
                    "attributes as they were stored",
                ),
            ),
            (
                "default-calculated",
                rule(
                    RowKind::Points,
                    only,
                    "MEASURE_POINT_CAL_OFFLINE_{org}",
                    "points that rules wrote back",
                ),
            ),
        ]
    }

    /// The script that is its last step.
    pub fn script(&self) -> Option<&str> {
        match self.make.last()? {
            Step::Script(source) => Some(source),
            _ => None,
        }
    }

    /// The elements that it names of its kind of rows; all of them when empty.
    pub fn elements(&self) -> &[ElementName] {
        match self.from.contents {
            RowKind::Points => &self.from.points,
            RowKind::Events => &self.from.events,
            RowKind::Attributes => &self.from.attributes,
        }
    }
}

impl Destination {
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "kafka",
            Self::Webhook(_) => "webhook",
            Self::Calculated(_) => "calculated",
        }
    }
}

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    pub name: ObjectName,
    pub file: RuleFile,
    /// Unlike that of any other, before or after it: names its files and its cursor.
    pub uid: Box<str>,
    pub created_ms: i64,
    /// The last commit that was made before it, which is therefore not in it.
    pub since: u64,
    /// Follows the log no more.
    pub stopped: bool,
    /// Grows by one with every change of its file: the version of its script.
    pub revision: u32,
    /// What `${secret}` stands for.
    pub secret: Option<SecretString>,
}

impl Rule {
    /// The assets it is about: `None` for all. Devices that were deleted since are left out.
    pub fn assets<'s>(
        &'s self,
        snapshot: &'s Snapshot,
    ) -> Option<impl Iterator<Item = &'s AssetId>> {
        let devices = &self.file.from.devices;
        (!devices.is_empty()).then(|| {
            let assets = devices.iter();
            assets.filter_map(|device| asset_of(device, snapshot))
        })
    }

    /// A rule to be tried: it is nobody's.
    pub fn untried(name: ObjectName, file: RuleFile) -> Self {
        Self {
            name,
            file,
            uid: "untried".into(),
            created_ms: 0,
            since: 0,
            stopped: true,
            revision: 0,
            secret: None,
        }
    }

    pub(super) fn state_record(&self, seal: &Seal) -> String {
        let owner = owner(self.name.as_str());
        let record = RuleRecord {
            uid: self.uid.clone(),
            created_ms: self.created_ms,
            since: self.since,
            stopped: self.stopped,
            revision: self.revision,
            secret: Sealed::new(&owner, self.secret.as_ref(), seal),
        };
        serde_json::to_string(&record).expect("numbers and texts are JSON")
    }
}

/// Secrets are no part of what two rules have in common.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.revision == other.revision
            && self.stopped == other.stopped
            && self.file == other.file
            && sealed::is_same(self.secret.as_ref(), other.secret.as_ref())
    }
}

fn owner(name: &str) -> String {
    format!("rule/{name}")
}

/// What a file does not say about a rule.
#[derive(Debug, Clone)]
pub(super) struct RuleState {
    pub(super) uid: Box<str>,
    pub(super) created_ms: i64,
    pub(super) since: u64,
    pub(super) stopped: bool,
    pub(super) revision: u32,
    pub(super) secret: Option<SecretString>,
}

/// [`RuleState`] at rest, the secret sealed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleRecord {
    uid: Box<str>,
    created_ms: i64,
    since: u64,
    stopped: bool,
    revision: u32,
    #[serde(default, skip_serializing_if = "Sealed::is_none")]
    secret: Sealed,
}

impl RuleState {
    pub(super) fn of(rule: &Rule) -> Self {
        Self {
            uid: rule.uid.clone(),
            created_ms: rule.created_ms,
            since: rule.since,
            stopped: rule.stopped,
            revision: rule.revision,
            secret: rule.secret.clone(),
        }
    }

    pub(super) fn with(self, name: ObjectName, file: RuleFile) -> Rule {
        Rule {
            name,
            file,
            uid: self.uid,
            created_ms: self.created_ms,
            since: self.since,
            stopped: self.stopped,
            revision: self.revision,
            secret: self.secret,
        }
    }

    pub(super) fn from_record(name: &str, record: &str, seal: &Seal) -> Result<Self, SecretError> {
        let owner = owner(name);
        let record: RuleRecord = sealed::read(&owner, record)?;
        Ok(Self {
            uid: record.uid,
            created_ms: record.created_ms,
            since: record.since,
            stopped: record.stopped,
            revision: record.revision,
            secret: record.secret.open(&owner, seal)?,
        })
    }
}
