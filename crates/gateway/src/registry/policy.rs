//! Policies: what is done to values on their way in, and to which.
//!
//! Every change of a policy makes a revision of all of them, and what each said then is kept: a value
//! names the revision that it was processed by, so what was done to it can be told for ever.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    sync::{Arc, OnceLock},
};

use backtide_model::{ChannelName, ConflictPolicy, ElementName, Model, ObjectName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Channel, DeclaredModel, Product, Snapshot,
    storage::{ProductStorage, StorageRules},
};
use crate::{
    limits,
    policy::{Chain, Part, Programs, ReductionFile, RollupFile, StepFile, check_derived},
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
    /// What is kept. Without any such policy: everything, for ever. Each point of a product has one
    /// rule at most.
    #[serde(default, skip_serializing_if = "StorageRules::is_empty")]
    pub storage: StorageRules,
    /// Rollups: windows of points, kept folded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analysis: Vec<RollupFile>,
    /// What is worked out after values are stored, in the order of their times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_commit: Vec<ReductionFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(order: &i32) -> bool {
    *order == 0
}

/// A policy.
#[derive(Debug)]
pub struct Policy {
    pub name: ObjectName,
    pub file: PolicyFile,
    /// The revision of all policies that brought it as it is.
    pub revision: u32,
    programs: OnceLock<Programs>,
}

impl Policy {
    pub(super) fn new(name: ObjectName, file: PolicyFile, revision: u32) -> Self {
        Self {
            name,
            file,
            revision,
            programs: OnceLock::new(),
        }
    }

    /// The programs of its steps, the same for as long as it says the same.
    fn programs(&self) -> &Programs {
        self.programs
            .get_or_init(|| Programs::new(&self.name, self.revision, &self.file.processing))
    }
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
    /// The storage rules of the products that have any.
    pub(super) storage: HashMap<ObjectName, Arc<ProductStorage>>,
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
    if file.processing.is_empty() && file.storage.is_empty() && !has_derived {
        let why = "it says nothing: give it processing, a list of steps, storage, analysis, a list of \
                   rollups, or afterCommit, a list of reductions";
        return Err(why.to_owned());
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
    let about = models(file, snapshot);
    let about: Vec<_> = about
        .iter()
        .map(|model| (&model.name, &*model.model))
        .collect();
    file.storage.check(file, &about)?;
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
    let models: Vec<&Model> = models.iter().map(|model| &*model.model).collect();
    check_derived(&file.analysis, &file.after_commit, &models)
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
    let programs = Programs::new(name, 1, &file.processing);
    for model in models(file, snapshot) {
        let model = &model.model;
        let part = Part {
            policy: name,
            steps: &file.processing,
            programs: &programs,
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
fn models<'s>(file: &PolicyFile, snapshot: &'s Snapshot) -> Vec<&'s DeclaredModel> {
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
            programs: policy.programs(),
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

/// A policy by itself, compiled for each model that it is about.
pub fn chains_of(policy: &Policy, snapshot: &Snapshot) -> Vec<Chain> {
    let part = Part {
        policy: &policy.name,
        steps: &policy.file.processing,
        programs: policy.programs(),
    };
    let models = models(&policy.file, snapshot).into_iter();
    let chains = models.filter_map(|model| {
        let conflict = ConflictPolicy::default();
        let seen = |_: &ObjectName, _: usize, _: &ElementName| {};
        // One that makes no sense was refused.
        Chain::compile(&[part], &model.model, conflict, NonZeroU32::MIN, seen).ok()?
    });
    chains.collect()
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
        let mut storage = HashMap::new();
        for product in self.products.values() {
            if let Some(rules) = ProductStorage::of(product, &policies)? {
                storage.insert(product.name.clone(), Arc::new(rules));
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
