//! Subscriptions: what is kept for applications to pull, and for which of them.

use backtide_model::{AssetId, ElementName, ObjectName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Snapshot;
use crate::limits;

/// A subscription in an object file. Its name is the id that clients give. Whether it is stopped
/// is not in the file: that has verbs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SubscriptionFile {
    /// points: one message for each row of a device. events: one for each event.
    #[serde(default, rename = "type")]
    pub contents: Contents,
    /// The name of the access key that may read it.
    #[schemars(with = "String", length(min = 1, max = 64))]
    pub access_key: ObjectName,
    /// Names of models; of all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub models: Vec<ObjectName>,
    /// Measure points; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub points: Vec<ElementName>,
    /// Events; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub events: Vec<ElementName>,
    /// Devices, each as PRODUCT/NAME or by its asset id; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Box<str>>,
    /// How many consumers of a group read at one time; never changed.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 64))]
    pub partitions: u16,
    /// How long messages are kept.
    #[serde(default = "three_days")]
    #[schemars(range(min = 1, max = 8760))]
    pub retention_hours: u32,
    /// now: what is stored from its creation on. oldest: what the log still holds as well.
    #[serde(default, skip_serializing_if = "is_now")]
    pub begin: Begin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What the messages of a subscription are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "SubscriptionType")]
pub enum Contents {
    #[default]
    Points,
    Events,
}

impl Contents {
    /// `subType` and `category` on the wire.
    pub const fn number(self) -> i32 {
        match self {
            Self::Points => 3,
            Self::Events => 4,
        }
    }

    pub const fn word(self) -> &'static str {
        match self {
            Self::Points => "points",
            Self::Events => "events",
        }
    }
}

/// Where in the log a new subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Begin {
    #[default]
    Now,
    Oldest,
}

const fn two() -> u16 {
    2
}

const fn three_days() -> u32 {
    72
}

fn is_now(begin: &Begin) -> bool {
    *begin == Begin::Now
}

/// Checks a subscription against what else is declared.
pub(super) fn check(file: &SubscriptionFile, snapshot: &Snapshot) -> Result<(), String> {
    let (partitions, hours) = (file.partitions, file.retention_hours);
    if partitions == 0 || partitions > limits::PARTITIONS_MAX {
        return Err(format!(
            "partitions: {partitions} is not between 1 and {}",
            limits::PARTITIONS_MAX
        ));
    }
    if hours == 0 || hours > limits::RETENTION_HOURS_MAX {
        return Err(format!(
            "retentionHours: {hours} is not between 1 and {}",
            limits::RETENTION_HOURS_MAX
        ));
    }
    let wrong = match file.contents {
        Contents::Points => (!file.events.is_empty()).then_some("events"),
        Contents::Events => (!file.points.is_empty()).then_some("points"),
    };
    if let Some(member) = wrong {
        return Err(format!(
            "{member}: a subscription of type {} has none",
            file.contents.word()
        ));
    }
    for model in &file.models {
        if snapshot.model(model.as_str()).is_none() {
            return Err(format!("model {model} is not declared"));
        }
    }
    for device in &file.devices {
        if asset_of(device, snapshot).is_none() {
            return Err(format!(
                "device {device} is not declared; write PRODUCT/NAME or an asset id"
            ));
        }
    }
    match file
        .elements()
        .find(|element| !is_declared(file, element, snapshot))
    {
        Some(element) => Err(format!(
            "{element} is declared by none of its models; see `backtide get models`"
        )),
        None => Ok(()),
    }
}

/// What stays as it was: offsets would mean other messages.
pub(super) fn check_change(
    before: &SubscriptionFile,
    after: &SubscriptionFile,
) -> Result<(), String> {
    if before.contents != after.contents {
        return Err(format!(
            "type {} cannot change to {}; declare a subscription of another name",
            before.contents.word(),
            after.contents.word()
        ));
    }
    if before.partitions != after.partitions {
        return Err(format!(
            "partitions {} cannot change to {}: the order of its messages would; declare a \
             subscription of another name",
            before.partitions, after.partitions
        ));
    }
    Ok(())
}

/// The asset that an entry of `devices` means, if there is one.
pub(super) fn asset_of<'s>(device: &str, snapshot: &'s Snapshot) -> Option<&'s AssetId> {
    let device = match device.split_once('/') {
        Some((product, name)) => snapshot.product(product)?.devices.named(name)?,
        None => snapshot.asset(device)?.1,
    };
    Some(&device.asset_id)
}

impl SubscriptionFile {
    /// The points or the events that it names.
    pub fn elements(&self) -> impl Iterator<Item = &ElementName> {
        self.points.iter().chain(&self.events)
    }
}

/// Whether any model that is subscribed to has the point or event, or may have any.
fn is_declared(file: &SubscriptionFile, element: &ElementName, snapshot: &Snapshot) -> bool {
    snapshot
        .models_after(None)
        .filter(|model| file.models.is_empty() || file.models.contains(&model.name))
        .any(|declared| {
            let model = &declared.model;
            model.passthrough
                || match file.contents {
                    Contents::Points => model.measurepoints.contains_key(element),
                    Contents::Events => model.events.contains_key(element),
                }
        })
}

/// A subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    pub name: ObjectName,
    pub file: SubscriptionFile,
    /// Unlike that of any other, before or after it: names its files.
    pub uid: Box<str>,
    pub created_ms: i64,
    /// The last commit that was made before it, which is therefore not in it.
    pub since: u64,
    /// Follows the log no more, and lets nobody in.
    pub stopped: bool,
}

impl Subscription {
    /// The assets it is about: `None` for all. Devices that were deleted since are left out.
    pub fn assets<'s>(
        &'s self,
        snapshot: &'s Snapshot,
    ) -> Option<impl Iterator<Item = &'s AssetId>> {
        let devices = &self.file.devices;
        (!devices.is_empty()).then(|| {
            let assets = devices.iter();
            assets.filter_map(|device| asset_of(device, snapshot))
        })
    }

    pub(super) fn new(name: ObjectName, file: SubscriptionFile, state: StateRecord) -> Self {
        Self {
            name,
            file,
            uid: state.uid,
            created_ms: state.created_ms,
            since: state.since,
            stopped: state.stopped,
        }
    }

    pub(super) fn state(&self) -> StateRecord {
        StateRecord {
            uid: self.uid.clone(),
            created_ms: self.created_ms,
            since: self.since,
            stopped: self.stopped,
        }
    }

    /// What a file does not say, as it is kept.
    pub(super) fn state_record(&self) -> String {
        serde_json::to_string(&self.state()).expect("numbers and texts are JSON")
    }
}

/// What a file does not say about a subscription.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StateRecord {
    pub(super) uid: Box<str>,
    pub(super) created_ms: i64,
    pub(super) since: u64,
    pub(super) stopped: bool,
}
