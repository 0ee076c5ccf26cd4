//! Policies: what is done to values on their way in, and to which.
//!
//! Every change of a policy makes a revision of all of them, and what each said then is kept: a value
//! names the revision that it was processed by, so what was done to it can be told for ever.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    sync::Arc,
};

use backtide_model::{ChannelName, ConflictPolicy, ElementName, Model, ObjectName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Channel, Product, Snapshot};
use crate::{
    limits,
    policy::{Chain, Part, ReductionFile, RollupFile, StepFile, check_derived},
};

/// A policy in an object file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PolicyFile {
    /// Policies act in ascending order, those of the same in the order of their names.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub order: i32,
    /// Names of models; those of all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub models: Vec<ObjectName>,
    /// Names of products; those of all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub products: Vec<ObjectName>,
    /// Names of channels; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub channels: Vec<ChannelName>,
    /// What is done to the values of a message before they are stored, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processing: Vec<StepFile>,
    /// How long values are kept. Without any such policy: for ever. A product has one at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageRule>,
    /// Rollups: windows of points, kept folded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analysis: Vec<RollupFile>,
    /// What is worked out after values are stored, in the order of their times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_commit: Vec<ReductionFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// How long the values of points are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StorageRule {
    #[schemars(range(min = 1, max = 36500))]
    pub keep_days: u32,
    #[serde(default, skip_serializing_if = "is_event")]
    pub by: KeptBy,
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

impl KeptBy {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Import => "import",
        }
    }
}

impl StorageRule {
    /// What is older than this is not kept, milliseconds since 1970 UTC.
    pub fn oldest_ms(self, now_ms: i64) -> i64 {
        const DAY_MS: i64 = 24 * 3_600 * 1_000;
        now_ms.saturating_sub(i64::from(self.keep_days) * DAY_MS)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_event(by: &KeptBy) -> bool {
    *by == KeptBy::Event
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(order: &i32) -> bool {
    *order == 0
}

/// A policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub name: ObjectName,
    pub file: PolicyFile,
    /// The revision of all policies that brought it as it is.
    pub revision: u32,
}

/// What a policy said from a revision on; `None` where it was deleted.
pub(super) type Said = (u32, Option<Arc<Policy>>);

/// Every policy as it is and as it was, and what comes of them.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// Grows by one with every change of a policy.
    pub(super) revision: u32,
    pub(super) live: BTreeMap<ObjectName, Arc<Policy>>,
    /// Of each name, in order of revision.
    pub(super) history: BTreeMap<ObjectName, Vec<Said>>,
    /// Of the channels that any policy concerns.
    pub(super) chains: HashMap<ChannelName, Arc<Chain>>,
    /// The storage policy of the products that have one.
    pub(super) storage: HashMap<ObjectName, Arc<Policy>>,
}

impl Policies {
    /// Grows by one with every change of a policy.
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// Those that were in force at a revision, in the order in which they act.
    pub fn at(&self, revision: u32) -> Vec<Arc<Policy>> {
        let said = self.history.values().filter_map(|history| {
            let (_, said) = history.iter().rev().find(|(from, _)| *from <= revision)?;
            said.clone()
        });
        in_order(said.collect())
    }

    pub(super) fn in_order(&self) -> Vec<Arc<Policy>> {
        in_order(self.live.values().cloned().collect())
    }
}

fn in_order(mut policies: Vec<Arc<Policy>>) -> Vec<Arc<Policy>> {
    // Stable: by name before.
    policies.sort_by_key(|policy| policy.file.order);
    policies
}

impl PolicyFile {
    /// Whether it is about devices of this product.
    pub fn is_about(&self, product: &Product) -> bool {
        is_among(&self.models, &product.model_name) && is_among(&self.products, &product.name)
    }

    /// Whether it is about what comes by a channel of this product.
    pub fn is_about_channel(&self, channel: &Channel, product: &Product) -> bool {
        self.is_about(product) && is_among(&self.channels, &channel.name)
    }
}

fn is_among<T: PartialEq>(named: &[T], one: &T) -> bool {
    named.is_empty() || named.contains(one)
}

/// Checks a policy against what else is declared.
pub(super) fn check(
    name: &ObjectName,
    file: &PolicyFile,
    snapshot: &Snapshot,
) -> Result<(), String> {
    let has_derived = !(file.analysis.is_empty() && file.after_commit.is_empty());
    if file.processing.is_empty() && file.storage.is_none() && !has_derived {
        let why = "it says nothing: give it processing, a list of steps, storage, analysis, a list of \
                   rollups, or afterCommit, a list of reductions";
        return Err(why.to_owned());
    }
    if let Some(storage) = file.storage {
        check_storage(storage, file)?;
    }
    check_size(file)?;
    for model in &file.models {
        snapshot
            .model(model.as_str())
            .ok_or_else(|| format!("model {model} is not declared"))?;
    }
    for product in &file.products {
        snapshot
            .product(product)
            .ok_or_else(|| format!("product {product} is not declared"))?;
    }
    for channel in &file.channels {
        let found = snapshot
            .channel(channel)
            .ok_or_else(|| format!("channel {channel} is not declared"))?;
        let product = snapshot.product(&found.product);
        if !product.is_some_and(|product| file.is_about(product)) {
            return Err(format!(
                "channel {channel} belongs to product {}, which models and products leave out",
                found.product
            ));
        }
    }
    if has_derived {
        check_analysis(file, snapshot)?;
    }
    check_steps(name, file, snapshot)
}

fn check_analysis(file: &PolicyFile, snapshot: &Snapshot) -> Result<(), String> {
    if !file.channels.is_empty() {
        let why = "analysis and afterCommit are about what is stored, whatever channel it came by: a \
                   policy with them names no channels";
        return Err(why.to_owned());
    }
    let models = models(file, snapshot);
    let models = models.iter().map(|model| &***model);
    check_derived(&file.analysis, &file.after_commit, models)
}

/// The names of what a policy derives.
fn derived(file: &PolicyFile) -> impl Iterator<Item = &ObjectName> {
    let rollups = file.analysis.iter().map(|rollup| &rollup.rollup);
    rollups.chain(
        file.after_commit
            .iter()
            .map(|reduction| &reduction.reduction),
    )
}

/// No two policies derive something of one name.
fn check_derived_names(policies: &[Arc<Policy>]) -> Result<(), String> {
    let mut names: HashMap<&ObjectName, &ObjectName> = HashMap::new();
    for policy in policies {
        for name in derived(&policy.file) {
            if let Some(other) = names.insert(name, &policy.name) {
                return Err(format!(
                    "policies {other} and {} would both have a rollup or reduction {name}; give one \
                     another name",
                    policy.name
                ));
            }
        }
    }
    match names.len() > limits::DERIVED_MAX {
        true => Err(format!(
            "there would be {} rollups and reductions, the most is {}",
            names.len(),
            limits::DERIVED_MAX
        )),
        false => Ok(()),
    }
}

fn check_storage(storage: StorageRule, file: &PolicyFile) -> Result<(), String> {
    let days = storage.keep_days;
    if days == 0 || days > limits::KEEP_DAYS_MAX {
        return Err(format!(
            "storage: keepDays {days} is not between 1 and {}",
            limits::KEEP_DAYS_MAX
        ));
    }
    if !file.channels.is_empty() {
        let why = "storage is for whole products: a policy with storage names no channels";
        return Err(why.to_owned());
    }
    Ok(())
}

fn check_size(file: &PolicyFile) -> Result<(), String> {
    let steps = file.processing.len();
    if steps > limits::POLICY_STEPS_MAX {
        return Err(format!(
            "processing has {steps} steps, at most {} are taken",
            limits::POLICY_STEPS_MAX
        ));
    }
    for (step, file) in (1..).zip(&file.processing) {
        let points = file.points.len();
        if points == 0 {
            return Err(format!(
                "step {step}: points is empty; name the points that it acts on"
            ));
        }
        if points > limits::POLICY_POINTS_MAX {
            return Err(format!(
                "step {step}: points has {points} names, at most {} are taken",
                limits::POLICY_POINTS_MAX
            ));
        }
    }
    Ok(())
}

/// Every step makes sense for each model that has its points, and some model has each of them.
fn check_steps(name: &ObjectName, file: &PolicyFile, snapshot: &Snapshot) -> Result<(), String> {
    let mut seen: BTreeSet<(usize, ElementName)> = BTreeSet::new();
    for model in models(file, snapshot) {
        let part = Part {
            policy: name,
            steps: &file.processing,
        };
        let note = |_: &ObjectName, step: usize, point: &ElementName| {
            seen.insert((step, point.clone()));
        };
        let conflict = ConflictPolicy::default();
        Chain::compile(&[part], model, conflict, NonZeroU32::MIN, note)
            .map_err(|fault| fault.to_string())?;
    }
    for (step, file) in (1..).zip(&file.processing) {
        for point in &file.points {
            if !seen.contains(&(step, point.clone())) {
                return Err(format!(
                    "step {step}: {point} is in none of the models that the policy is about, nor \
                     does it become a point of one"
                ));
            }
        }
    }
    Ok(())
}

/// The models whose points a policy may act on.
fn models<'s>(file: &PolicyFile, snapshot: &'s Snapshot) -> Vec<&'s Arc<Model>> {
    let of_channel = |product: &Product| {
        file.channels.is_empty()
            || product
                .channels
                .iter()
                .any(|c| file.channels.contains(&c.name))
    };
    let is_narrow = !file.products.is_empty() || !file.channels.is_empty();
    let used: BTreeSet<&ObjectName> = snapshot
        .products_after(None)
        .filter(|product| file.is_about(product) && of_channel(product))
        .map(|product| &product.model_name)
        .collect();
    let declared = snapshot.models_after(None);
    declared
        .filter(|model| match is_narrow {
            true => used.contains(&model.name),
            // A model may be declared before its products are.
            false => is_among(&file.models, &model.name),
        })
        .map(|model| &model.model)
        .collect()
}

/// The chain of a channel under `policies`, which are in order.
///
/// # Errors
/// Which policy makes no sense for it, and why.
pub fn chain(
    policies: &[Arc<Policy>],
    channel: &Channel,
    product: &Product,
    revision: u32,
) -> Result<Option<Chain>, String> {
    let parts: Vec<Part<'_>> = policies
        .iter()
        .filter(|policy| policy.file.is_about_channel(channel, product))
        .map(|policy| Part {
            policy: &policy.name,
            steps: &policy.file.processing,
        })
        .collect();
    let (Some(revision), false) = (NonZeroU32::new(revision), parts.is_empty()) else {
        return Ok(None);
    };
    Chain::compile(
        &parts,
        &product.model,
        channel.conflict,
        revision,
        |_, _, _| {},
    )
    .map_err(|fault| format!("policy {}, {fault}", fault.policy))
}

impl Snapshot {
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    pub fn policy(&self, name: impl AsRef<str>) -> Option<&Arc<Policy>> {
        self.policies.live.get(name.as_ref())
    }

    /// In the order of their names, those after `after`.
    pub fn policies_after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies
            .live
            .range::<str, _>((super::snapshot::beyond(after), std::ops::Bound::Unbounded))
            .map(|(_, policy)| policy)
    }

    /// What is done to what comes by a channel, if anything is.
    pub fn chain(&self, channel: impl AsRef<str>) -> Option<&Arc<Chain>> {
        self.policies.chains.get(channel.as_ref())
    }

    /// How long the values of a product are kept, and by which policy; for ever where there is none.
    pub fn storage(&self, product: impl AsRef<str>) -> Option<(&Arc<Policy>, StorageRule)> {
        let policy = self.policies.storage.get(product.as_ref())?;
        Some((policy, policy.file.storage?))
    }

    /// Holds every policy against what is declared now, and compiles the chains of all channels.
    ///
    /// # Errors
    /// Which policy no longer fits, and why.
    pub(super) fn settle_policies(&mut self, checks: bool) -> Result<(), String> {
        if checks {
            for policy in self.policies.live.values() {
                check(&policy.name, &policy.file, self)
                    .map_err(|why| format!("policy {} would not fit: {why}", policy.name))?;
            }
        }
        let (policies, revision) = (self.policies.in_order(), self.policies.revision);
        check_derived_names(&policies)?;
        let mut chains = HashMap::new();
        for product in self.products.values() {
            for channel in &product.channels {
                if let Some(chain) = chain(&policies, channel, product, revision)? {
                    chains.insert(channel.name.clone(), Arc::new(chain));
                }
            }
        }
        let mut storage: HashMap<ObjectName, Arc<Policy>> = HashMap::new();
        for product in self.products.values() {
            let has_storage = |policy: &&Arc<Policy>| policy.file.storage.is_some();
            for policy in policies.iter().filter(has_storage) {
                if !policy.file.is_about(product) {
                    continue;
                }
                if let Some(other) = storage.insert(product.name.clone(), Arc::clone(policy)) {
                    return Err(format!(
                        "product {} would have two storage policies, {} and {}; a product has one",
                        product.name, other.name, policy.name
                    ));
                }
            }
        }
        let settled = Arc::make_mut(&mut self.policies);
        (settled.chains, settled.storage) = (chains, storage);
        Ok(())
    }
}

/// What a policy said from a revision on, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SaidRecord {
    /// Absent where it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<PolicyFile>,
}
