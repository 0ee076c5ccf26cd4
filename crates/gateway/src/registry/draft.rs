//! A change in the making: a copy of the snapshot that declarations are put into, and the records
//! that make it last. Dropped on any fault; nobody else ever sees it.

use std::{collections::HashMap, sync::Arc};

use backtide_model::{AssetId, ChannelName, DeviceKey, Model, ObjectName, ProductKey};
use serde::Serialize;

use super::{
    AccessKey, Archive, Channel, Declared, Device, ENABLED_CHANNELS_MAX, Effect, Kind, Product,
    Rule, StoredTypes, Subscription,
    access_key::{self, AccessKeyFile, Credential},
    archive::{self, ArchiveFile, ArchiveState},
    channel::{self, ChannelFile, Login},
    device::{self, DeviceFile},
    model::DeclaredModel,
    policy::{self, Policy, PolicyFile, SaidRecord},
    product::ProductFile,
    records::{Change, Collection, Record, RecordKey},
    rule::{self, RuleFile, RuleState},
    script::{Script, ScriptFile, ScriptVersion, ScriptVersionRecord},
    snapshot::{AssetOwner, Snapshot},
    subscription::{self, Begin, StateRecord, SubscriptionFile},
};
use crate::{
    limits::{self, SCRIPT_VERSIONS_MAX},
    secrets::{self, Seal},
};

/// Whether declarations come from outside or out of our own database, where they were checked when
/// they came in, by the rules of that day.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Declared,
    Kept,
}

pub(super) struct Draft<'r> {
    pub(super) snapshot: Snapshot,
    pub(super) changes: Vec<Change>,
    /// Of channels that are being loaded.
    pub(super) logins: HashMap<String, Login>,
    /// Of access keys that are being loaded.
    pub(super) credentials: HashMap<String, Credential>,
    /// Of subscriptions that are being loaded.
    pub(super) states: HashMap<String, StateRecord>,
    /// Something that policies are compiled from is another.
    pub(super) has_stale_policies: bool,
    /// Of rules that are being loaded.
    pub(super) rule_states: HashMap<String, RuleState>,
    /// Of archives that are being loaded.
    pub(super) archive_states: HashMap<String, ArchiveState>,
    trust: Trust,
    now_ms: i64,
    seal: &'r Seal,
    stored: &'r dyn StoredTypes,
}

impl<'r> Draft<'r> {
    pub(super) fn new(
        snapshot: Snapshot,
        trust: Trust,
        now_ms: i64,
        seal: &'r Seal,
        stored: &'r dyn StoredTypes,
    ) -> Self {
        Self {
            snapshot,
            changes: Vec::new(),
            logins: HashMap::new(),
            credentials: HashMap::new(),
            states: HashMap::new(),
            has_stale_policies: false,
            rule_states: HashMap::new(),
            archive_states: HashMap::new(),
            trust,
            now_ms,
            seal,
            stored,
        }
    }

    /// Puts a declaration in. What it refers to stands in the draft already.
    pub(super) fn put(&mut self, declared: Declared) -> Result<Effect, String> {
        match declared {
            Declared::Model(name, model) => self.put_model(name, *model),
            Declared::Product(name, file) => self.put_product(name, file),
            Declared::Device(name, file) => self.put_device(name, file),
            Declared::Channel(name, file) => self.put_channel(name, file),
            Declared::Script(name, file) => self.put_script(&name, *file),
            Declared::AccessKey(name, file) => self.put_access_key(name, file),
            Declared::Subscription(name, file) => self.put_subscription(name, *file),
            Declared::Policy(name, file) => self.put_policy(&name, &file),
            Declared::Rule(name, file) => self.put_rule(name, *file),
            Declared::Archive(name, file) => self.put_archive(name, *file),
        }
    }

    fn put_model(&mut self, name: ObjectName, model: Model) -> Result<Effect, String> {
        let before = self.snapshot.models.get(&name);
        if before.is_some_and(|before| *before.model == model) {
            return Ok(Effect::Unchanged);
        }
        let effect = Effect::of(before.is_some());
        self.has_stale_policies = true;
        let model = Arc::new(model);
        for product in self
            .snapshot
            .products
            .values_mut()
            .filter(|p| p.model_name == name)
        {
            if self.trust == Trust::Declared {
                check_stored(self.stored, &product.name, &product.key, &model)?;
            }
            Arc::make_mut(product).model = Arc::clone(&model);
        }
        self.keep(Kind::Model, "", name.as_str(), &*model);
        self.snapshot
            .models
            .insert(name.clone(), DeclaredModel { name, model });
        Ok(effect)
    }

    fn put_product(&mut self, name: ObjectName, file: ProductFile) -> Result<Effect, String> {
        let model = self.snapshot.models.get(&file.model).ok_or_else(|| {
            format!(
                "model {} is not declared; declare it in the same or an earlier file",
                file.model
            )
        })?;
        let model = Arc::clone(&model.model);
        let before = self.snapshot.products.get(&name).cloned();
        let key = match (file.key, &before) {
            (Some(key), _) => key,
            (None, Some(before)) => before.key.clone(),
            (None, None) => self.free_product_key(),
        };
        if let Some(owner) = self.snapshot.keys.get(&key)
            && *owner != name
        {
            return Err(format!("key {key} belongs to product {owner} already"));
        }
        if let Some(before) = &before
            && before.key != key
        {
            if !before.devices.is_empty() || !before.channels.is_empty() {
                return Err(format!(
                    "key {} cannot change to {key}: the product has {} devices and {} channels",
                    before.key,
                    before.devices.len(),
                    before.channels.len()
                ));
            }
            self.snapshot.keys.remove(&before.key);
        }
        if self.trust == Trust::Declared {
            check_stored(self.stored, &name, &key, &model)?;
        }
        let product = Product {
            key,
            model_name: file.model,
            model,
            format: file.format,
            description: file.description,
            devices: before
                .as_ref()
                .map(|p| Arc::clone(&p.devices))
                .unwrap_or_default(),
            channels: before
                .as_ref()
                .map(|p| p.channels.clone())
                .unwrap_or_default(),
            script: before.as_ref().and_then(|p| p.script.clone()),
            name,
        };
        if let Some(script) = &product.script
            && product.is_json()
        {
            return Err(format!(
                "format json has no use for script {}; delete that first",
                script.name
            ));
        }
        if before
            .as_ref()
            .is_some_and(|before| before.file() == product.file())
        {
            return Ok(Effect::Unchanged);
        }
        self.has_stale_policies = true;
        self.keep(Kind::Product, "", product.name.as_str(), &product.file());
        self.snapshot
            .keys
            .insert(product.key.clone(), product.name.clone());
        self.snapshot
            .products
            .insert(product.name.clone(), Arc::new(product));
        Ok(Effect::of(before.is_some()))
    }

    fn free_product_key(&self) -> ProductKey {
        loop {
            let key = ProductKey::new(&secrets::random_alphanumeric(8))
                .expect("letters and digits are a key");
            if !self.snapshot.keys.contains_key(&key) {
                return key;
            }
        }
    }

    fn put_device(&mut self, name: ObjectName, file: DeviceFile) -> Result<Effect, String> {
        let Some(product) = self.snapshot.products.get(&file.product) else {
            return Err(format!("product {} is not declared", file.product));
        };
        if self.trust == Trust::Declared {
            device::check(&file, &product.model)?;
        }
        let before = product.devices.named(name.as_str()).cloned();
        let key = match (file.key, &before) {
            (Some(key), _) => key,
            (None, Some(before)) => before.key.clone(),
            (None, None) => DeviceKey::new(name.as_str()).map_err(|error| {
                format!("its name cannot serve as its key ({error}); give a key")
            })?,
        };
        if let Some(other) = product.devices.get(key.as_str())
            && other.name != name
        {
            return Err(format!(
                "key {key} belongs to device {} already",
                other.name
            ));
        }
        if let Some(before) = &before
            && before.key != key
        {
            return Err(format!(
                "key {} cannot change to {key}: its history is kept under its key",
                before.key
            ));
        }
        let owner = AssetOwner {
            product_key: product.key.clone(),
            device_key: key.clone(),
        };
        let asset_id = self.asset_id(file.asset_id, before.as_deref(), &owner)?;
        let device = Device {
            name,
            product: product.name.clone(),
            key,
            asset_id,
            timezone: file.timezone,
            attributes: file.attributes,
        };
        if before.as_deref() == Some(&device) {
            return Ok(Effect::Unchanged);
        }
        self.keep(
            Kind::Device,
            device.product.as_str(),
            device.name.as_str(),
            &device.file(),
        );
        let assets = Arc::make_mut(&mut self.snapshot.assets);
        if assets.retired.remove(&owner).is_some() {
            self.changes.push(Change::Remove(retired_key(&owner)));
        }
        assets.owners.insert(device.asset_id.clone(), owner);
        let product = product_mut(&mut self.snapshot, &device.product);
        Arc::make_mut(&mut product.devices).put(&Arc::new(device));
        Ok(Effect::of(before.is_some()))
    }

    /// The asset id of a device: for ever the same.
    fn asset_id(
        &self,
        given: Option<AssetId>,
        before: Option<&Device>,
        owner: &AssetOwner,
    ) -> Result<AssetId, String> {
        let assets = &self.snapshot.assets;
        let known = before
            .map(|device| &device.asset_id)
            .or_else(|| assets.retired.get(owner));
        match (given, known) {
            (None, Some(known)) => Ok(known.clone()),
            (Some(given), Some(known)) if given == *known => Ok(given),
            (Some(given), Some(known)) => Err(format!(
                "assetId {known} cannot change to {given}: its history is known by it"
            )),
            (Some(given), None) => match assets.owners.get(&given) {
                Some(other) => Err(format!(
                    "assetId {given} was given to device {} of product key {} already",
                    other.device_key, other.product_key
                )),
                None => Ok(given),
            },
            // 22 of 62: as hard to meet twice as a UUID.
            (None, None) => Ok(AssetId::new(&secrets::random_alphanumeric(22))
                .expect("letters and digits are an asset id")),
        }
    }

    fn put_channel(&mut self, name: ChannelName, file: ChannelFile) -> Result<Effect, String> {
        channel::check(&file)?;
        let Some(product) = self.snapshot.products.get(&file.product) else {
            return Err(format!("product {} is not declared", file.product));
        };
        let before = self.snapshot.channels.get(&name).cloned();
        if let Some(before) = &before
            && before.product != file.product
        {
            return Err(format!(
                "it belongs to product {} and stays there; declare a channel of another name",
                before.product
            ));
        }
        if before.as_ref().is_some_and(|before| before.file() == file) {
            return Ok(Effect::Unchanged);
        }
        if before.is_none() && self.trust == Trust::Declared {
            check_room(product)?;
        }
        let product_key = product.key.clone();
        let kept = match &before {
            Some(before) => Some(Login::of(before)),
            None => self.logins.remove(name.as_str()),
        };
        let is_new = kept.is_none();
        let login = kept.unwrap_or_else(|| Login::new(self.now_ms));
        self.keep(Kind::Channel, "", name.as_str(), &file);
        let channel = Channel {
            name,
            product: file.product,
            product_key,
            mode: file.mode,
            stamp_arrival: file.stamp_arrival,
            conflict: file.conflict,
            connections_max: file.connections_max,
            client_certificate: file.client_certificate,
            quotas: file.quotas,
            refuse: file.refuse,
            error_budget: file.error_budget,
            description: file.description,
            paused: login.paused,
            held: login.held,
            created_ms: login.created_ms,
            secret: login.secret,
            previous: login.previous,
        };
        if is_new {
            self.keep_login(&channel);
        }
        self.set_channel(channel);
        Ok(Effect::of(before.is_some()))
    }

    /// Changes what `apply` does not say about a channel.
    pub(super) fn relogin(
        &mut self,
        name: &ChannelName,
        change: impl FnOnce(&mut Channel),
    ) -> Result<(), String> {
        let before = &self.snapshot.channels[name];
        let mut channel = Channel::clone(before);
        change(&mut channel);
        if before.paused && !channel.paused {
            check_room(&self.snapshot.products[&channel.product])?;
        }
        self.keep_login(&channel);
        self.set_channel(channel);
        Ok(())
    }

    fn set_channel(&mut self, channel: Channel) {
        self.has_stale_policies = true;
        let channel = Arc::new(channel);
        let product = product_mut(&mut self.snapshot, &channel.product);
        match product
            .channels
            .binary_search_by(|other| other.name.cmp(&channel.name))
        {
            Ok(at) => product.channels[at] = Arc::clone(&channel),
            Err(at) => product.channels.insert(at, Arc::clone(&channel)),
        }
        self.snapshot.channels.insert(channel.name.clone(), channel);
    }

    fn put_access_key(&mut self, name: ObjectName, file: AccessKeyFile) -> Result<Effect, String> {
        access_key::check(&file)?;
        if let Some(channel) = file
            .channels
            .iter()
            .find(|name| self.snapshot.channel(name.as_str()).is_none())
        {
            return Err(format!("channel {channel} is not declared"));
        }
        let before = self.snapshot.access_keys.get(&name).cloned();
        let key = match (file.key, &before) {
            (Some(given), Some(before)) if given != before.key => {
                return Err(format!(
                    "key {} cannot change to {given}: applications log in with it",
                    before.key
                ));
            }
            (_, Some(before)) => before.key.clone(),
            (Some(given), None) => given,
            (None, None) => secrets::guid().into(),
        };
        let others = self.snapshot.access_keys.values();
        if let Some(other) = others
            .filter(|other| other.name != name)
            .find(|other| other.key == key)
        {
            return Err(format!("key {key} belongs to access key {}", other.name));
        }
        let kept = match &before {
            Some(before) => Some(Credential::of(before)),
            None => self.credentials.remove(name.as_str()),
        };
        let is_new = kept.is_none();
        let credential = kept.unwrap_or_else(|| Credential::new(self.now_ms));
        let key = AccessKey {
            name,
            key,
            description: file.description,
            rights: file.rights,
            channels: file.channels,
            created_ms: credential.created_ms,
            issued: credential.issued,
            secret: credential.secret,
            previous: credential.previous,
        };
        if before
            .as_ref()
            .is_some_and(|before| before.file() == key.file())
        {
            return Ok(Effect::Unchanged);
        }
        self.keep(Kind::AccessKey, "", key.name.as_str(), &key.file());
        if is_new {
            self.keep_credential(&key);
        }
        self.snapshot
            .access_keys
            .insert(key.name.clone(), Arc::new(key));
        Ok(Effect::of(before.is_some()))
    }

    /// Changes what `apply` does not say about an access key.
    pub(super) fn reissue(&mut self, name: &ObjectName, change: impl FnOnce(&mut AccessKey)) {
        let mut key = AccessKey::clone(&self.snapshot.access_keys[name]);
        change(&mut key);
        self.keep_credential(&key);
        self.snapshot
            .access_keys
            .insert(key.name.clone(), Arc::new(key));
    }

    fn put_subscription(
        &mut self,
        name: ObjectName,
        file: SubscriptionFile,
    ) -> Result<Effect, String> {
        let before = self.snapshot.subscriptions.get(&name).cloned();
        if before.as_ref().is_some_and(|before| before.file == file) {
            return Ok(Effect::Unchanged);
        }
        if self.trust == Trust::Declared {
            self.check_subscription(&file, before.as_deref())?;
        }
        let kept = match &before {
            Some(before) => Some(before.state()),
            None => self.states.remove(name.as_str()),
        };
        let is_new = kept.is_none();
        let state = kept.unwrap_or_else(|| StateRecord {
            uid: secrets::random_alphanumeric(16).into(),
            created_ms: self.now_ms,
            since: match file.begin {
                Begin::Now => self.stored.committed(),
                Begin::Oldest => 0,
            },
            stopped: false,
        });
        self.keep(Kind::Subscription, "", name.as_str(), &file);
        let subscription = Subscription::new(name, file, state);
        if is_new {
            self.keep_state(&subscription);
        }
        let name = subscription.name.clone();
        self.snapshot
            .subscriptions
            .insert(name, Arc::new(subscription));
        Ok(Effect::of(before.is_some()))
    }

    fn check_subscription(
        &self,
        file: &SubscriptionFile,
        before: Option<&Subscription>,
    ) -> Result<(), String> {
        if self.snapshot.access_key(&file.access_key).is_none() {
            return Err(format!("access key {} is not declared", file.access_key));
        }
        subscription::check(file, &self.snapshot)?;
        match before {
            Some(before) => subscription::check_change(&before.file, file),
            None if self.snapshot.subscriptions.len() < limits::SUBSCRIPTIONS_MAX => Ok(()),
            None => Err(format!(
                "there are {} subscriptions, the most there may be; delete one",
                limits::SUBSCRIPTIONS_MAX
            )),
        }
    }

    /// Changes what `apply` does not say about a subscription.
    pub(super) fn set_stopped(&mut self, name: &ObjectName, stopped: bool) {
        let mut subscription = Subscription::clone(&self.snapshot.subscriptions[name]);
        subscription.stopped = stopped;
        self.keep_state(&subscription);
        let name = name.clone();
        self.snapshot
            .subscriptions
            .insert(name, Arc::new(subscription));
    }

    fn put_policy(&mut self, name: &ObjectName, file: &PolicyFile) -> Result<Effect, String> {
        let before = self.snapshot.policies.live.get(name);
        if before.is_some_and(|before| before.file == *file) {
            return Ok(Effect::Unchanged);
        }
        let was_there = before.is_some();
        if self.trust == Trust::Declared {
            policy::check(name, file, &self.snapshot)?;
            let policies = self.snapshot.policies.live.len();
            if !was_there && policies >= limits::POLICIES_MAX {
                return Err(format!(
                    "there are {policies} policies, the most there may be; delete one"
                ));
            }
        }
        let record = SaidRecord {
            file: Some(file.clone()),
        };
        self.keep(Kind::Policy, "", name.as_str(), file);
        self.say(name, &record)?;
        Ok(Effect::of(was_there))
    }

    pub(super) fn remove_policy(&mut self, name: &ObjectName) -> Result<(), String> {
        self.forget(Collection::Policy, "", name.as_str());
        self.say(name, &SaidRecord { file: None })
    }

    /// A policy says something else from a new revision on. What it says is loaded by [`Self::said`].
    fn say(&mut self, name: &ObjectName, record: &SaidRecord) -> Result<(), String> {
        if self.trust == Trust::Kept {
            return Ok(());
        }
        let revision = self.snapshot.policies.revision + 1;
        if revision > limits::POLICY_REVISIONS_MAX {
            return Err(format!(
                "policies were changed {} times, the most there may be",
                limits::POLICY_REVISIONS_MAX
            ));
        }
        let body = serde_json::to_string(record).expect("a file that was read writes");
        let key = record_key(
            Collection::PolicyRevision,
            name.as_str(),
            &revision.to_string(),
        );
        self.changes.push(Change::Put(Record { key, body }));
        self.said(name.clone(), revision, record.file.clone());
        Ok(())
    }

    /// What a policy says from a revision on; in order of revision.
    pub(super) fn said(&mut self, name: ObjectName, revision: u32, file: Option<PolicyFile>) {
        self.has_stale_policies = true;
        let policies = Arc::make_mut(&mut self.snapshot.policies);
        policies.revision = policies.revision.max(revision);
        let said = file.map(|file| Arc::new(Policy::new(name.clone(), file, revision)));
        match &said {
            Some(policy) => policies.live.insert(name.clone(), Arc::clone(policy)),
            None => policies.live.remove(&name),
        };
        policies
            .history
            .entry(name)
            .or_default()
            .push((revision, said));
    }

    /// Compiles the policies anew where something that they are made from was changed.
    pub(super) fn settle_policies(&mut self) -> Result<(), String> {
        if !std::mem::take(&mut self.has_stale_policies) {
            return Ok(());
        }
        self.snapshot.settle_policies(self.trust == Trust::Declared)
    }

    fn put_rule(&mut self, name: ObjectName, file: RuleFile) -> Result<Effect, String> {
        let before = self.snapshot.rules.get(&name).cloned();
        if before.as_ref().is_some_and(|before| before.file == file) {
            return Ok(Effect::Unchanged);
        }
        if self.trust == Trust::Declared {
            rule::check(&name, &file, &self.snapshot)?;
            if before.is_none() && self.snapshot.rules.len() >= limits::RULES_MAX {
                return Err(format!(
                    "there are {} rules, the most there may be; delete one",
                    limits::RULES_MAX
                ));
            }
        }
        let kept = match &before {
            Some(before) => Some(RuleState::of(before)),
            None => self.rule_states.remove(name.as_str()),
        };
        let is_loaded = self.trust == Trust::Kept;
        let mut state = kept.unwrap_or_else(|| RuleState {
            uid: secrets::random_alphanumeric(16).into(),
            created_ms: self.now_ms,
            since: match file.begin {
                Begin::Now => self.stored.committed(),
                Begin::Oldest => self.stored.trimmed(),
            },
            stopped: false,
            revision: 0,
            secret: None,
        });
        if !is_loaded {
            state.revision += 1;
        }
        self.keep(Kind::Rule, "", name.as_str(), &file);
        let rule = state.with(name, file);
        self.set_rule(rule);
        if !is_loaded {
            rule::check_loops(
                self.snapshot.rules.values().map(Arc::as_ref),
                &self.snapshot,
            )?;
        }
        Ok(Effect::of(before.is_some()))
    }

    /// Changes what `apply` does not say about a rule.
    pub(super) fn change_rule(&mut self, name: &ObjectName, change: impl FnOnce(&mut Rule)) {
        let mut rule = Rule::clone(&self.snapshot.rules[name]);
        change(&mut rule);
        self.set_rule(rule);
    }

    fn set_rule(&mut self, rule: Rule) {
        if self.trust == Trust::Declared {
            let body = rule.state_record(self.seal);
            self.keep_beside(Collection::RuleState, &rule.name, body);
        }
        self.snapshot
            .rules
            .insert(rule.name.clone(), Arc::new(rule));
    }

    /// Makes the default rules, once in the life of a registry.
    pub(super) fn make_rules(&mut self) -> Result<(), String> {
        for (name, file) in RuleFile::defaults() {
            let name = ObjectName::new(name).expect("letters and dashes are a name");
            // Somebody was quicker, in a version of their own.
            if self.snapshot.rules.contains_key(&name) {
                continue;
            }
            self.put_rule(name, file)?;
        }
        self.snapshot.has_made_rules = true;
        let key = record_key(Collection::Made, "", "default-rules");
        let body = "{}".to_owned();
        self.changes.push(Change::Put(Record { key, body }));
        Ok(())
    }

    fn put_archive(&mut self, name: ObjectName, file: ArchiveFile) -> Result<Effect, String> {
        let before = self.snapshot.archives.get(&name).cloned();
        if before.as_ref().is_some_and(|before| before.file == file) {
            return Ok(Effect::Unchanged);
        }
        if self.trust == Trust::Declared {
            archive::check(&file, &self.snapshot)?;
            match &before {
                Some(before) => archive::check_change(&before.file, &file)?,
                None if self.snapshot.archives.len() < limits::ARCHIVES_MAX => {}
                None => {
                    return Err(format!(
                        "there are {} archives, the most there may be; delete one",
                        limits::ARCHIVES_MAX
                    ));
                }
            }
        }
        let kept = match &before {
            Some(before) => Some(ArchiveState::of(before)),
            None => self.archive_states.remove(name.as_str()),
        };
        let state = kept.unwrap_or_else(|| ArchiveState {
            uid: secrets::random_alphanumeric(16).into(),
            created_ms: self.now_ms,
            stopped: false,
            secret: None,
        });
        self.keep(Kind::Archive, "", name.as_str(), &file);
        self.set_archive(state.with(name, file));
        Ok(Effect::of(before.is_some()))
    }

    /// Changes what `apply` does not say about an archive.
    pub(super) fn change_archive(&mut self, name: &ObjectName, change: impl FnOnce(&mut Archive)) {
        let mut archive = Archive::clone(&self.snapshot.archives[name]);
        change(&mut archive);
        self.set_archive(archive);
    }

    fn set_archive(&mut self, archive: Archive) {
        if self.trust == Trust::Declared {
            let body = archive.state_record(self.seal);
            self.keep_beside(Collection::ArchiveState, &archive.name, body);
        }
        self.snapshot
            .archives
            .insert(archive.name.clone(), Arc::new(archive));
    }

    pub(super) fn remove_archive(&mut self, name: &ObjectName) {
        self.snapshot.archives.remove(name);
        self.forget(Collection::Archive, "", name.as_str());
        self.forget(Collection::ArchiveState, "", name.as_str());
    }

    pub(super) fn remove_rule(&mut self, name: &ObjectName) {
        self.snapshot.rules.remove(name);
        self.forget(Collection::Rule, "", name.as_str());
        self.forget(Collection::RuleState, "", name.as_str());
    }

    pub(super) fn remove_access_key(&mut self, name: &ObjectName) {
        self.snapshot.access_keys.remove(name);
        self.forget(Collection::AccessKey, "", name.as_str());
        self.forget(Collection::Credential, "", name.as_str());
    }

    pub(super) fn remove_subscription(&mut self, name: &ObjectName) {
        self.snapshot.subscriptions.remove(name);
        self.forget(Collection::Subscription, "", name.as_str());
        self.forget(Collection::SubscriptionState, "", name.as_str());
    }

    pub(super) fn remove_model(&mut self, name: &ObjectName) {
        self.snapshot.models.remove(name);
        self.forget(Collection::Model, "", name.as_str());
    }

    pub(super) fn remove_product(&mut self, product: &Product) {
        self.snapshot.products.remove(&product.name);
        self.snapshot.keys.remove(&product.key);
        self.forget(Collection::Product, "", product.name.as_str());
    }

    /// Its asset id stays taken: the history is still there.
    pub(super) fn remove_device(&mut self, product: &Product, device: &Device) {
        let owner = AssetOwner {
            product_key: product.key.clone(),
            device_key: device.key.clone(),
        };
        self.forget(
            Collection::Device,
            product.name.as_str(),
            device.name.as_str(),
        );
        self.changes.push(Change::Put(Record {
            key: retired_key(&owner),
            body: serde_json::to_string(&device.asset_id).expect("a text is JSON"),
        }));
        let assets = Arc::make_mut(&mut self.snapshot.assets);
        assets.retired.insert(owner, device.asset_id.clone());
        let product = product_mut(&mut self.snapshot, &product.name);
        Arc::make_mut(&mut product.devices).remove(device);
    }

    /// Declares what runs from now on: a version of its own, unless it is what runs already.
    fn put_script(&mut self, name: &ObjectName, file: ScriptFile) -> Result<Effect, String> {
        let mut script = self.script_for(name, &file.product)?;
        if script.live.as_ref().is_some_and(|live| live.file == file) {
            return Ok(Effect::Unchanged);
        }
        let was_there = script.live.is_some();
        self.add_version(&mut script, file)?;
        self.set_script(script);
        Ok(Effect::of(was_there))
    }

    /// Saves what may run one day.
    pub(super) fn put_script_draft(
        &mut self,
        name: &ObjectName,
        file: ScriptFile,
    ) -> Result<(), String> {
        let mut script = self.script_for(name, &file.product)?;
        let record = ScriptVersionRecord {
            created_ms: self.now_ms,
            file,
        };
        self.keep_script(Collection::ScriptDraft, "", name.as_str(), &record);
        let draft = ScriptVersion::new(name, None, record)?;
        script.draft = Some(Arc::new(draft));
        self.set_script(script);
        Ok(())
    }

    /// Deletes a draft; a script that has nothing else goes with it.
    pub(super) fn remove_script_draft(&mut self, script: &Script) {
        self.forget(Collection::ScriptDraft, "", script.name.as_str());
        let script = Script {
            draft: None,
            ..script.clone()
        };
        match script.versions.is_empty() {
            true => self.remove_script(&script),
            false => self.set_script(script),
        }
    }

    /// Makes a draft the version that runs.
    pub(super) fn publish_script(&mut self, script: &Script) -> Result<(), String> {
        let mut script = script.clone();
        let Some(draft) = script.draft.take() else {
            return Err(format!("script {} has no draft", script.name));
        };
        self.forget(Collection::ScriptDraft, "", script.name.as_str());
        self.add_version(&mut script, draft.file.clone())?;
        self.set_script(script);
        Ok(())
    }

    /// Makes an earlier version the one that runs.
    pub(super) fn roll_back_script(&mut self, script: &Script, number: u32) -> Result<(), String> {
        let Some(version) = script.version(number) else {
            return Err(format!("script {} has no version {number}", script.name));
        };
        let live = Some(Arc::clone(version));
        self.set_script(Script {
            live,
            ..script.clone()
        });
        Ok(())
    }

    /// The script of this name, which may be new; a product has one.
    fn script_for(&self, name: &ObjectName, product: &ObjectName) -> Result<Script, String> {
        let owner = self
            .snapshot
            .products
            .get(product)
            .ok_or_else(|| format!("product {product} is not declared"))?;
        if owner.is_json() {
            return Err(format!(
                "product {product} has format json; declare it with format: custom"
            ));
        }
        if let Some(other) = &owner.script
            && other.name != *name
        {
            return Err(format!(
                "product {product} has script {} already; a product has one",
                other.name
            ));
        }
        match self.snapshot.scripts.get(name) {
            Some(script) if script.product != *product => Err(format!(
                "it belongs to product {} and stays there; declare a script of another name",
                script.product
            )),
            Some(script) => Ok(Script::clone(script)),
            None => Ok(Script::new(name.clone(), product.clone())),
        }
    }

    fn add_version(&mut self, script: &mut Script, file: ScriptFile) -> Result<(), String> {
        if script.versions.len() >= SCRIPT_VERSIONS_MAX {
            return Err(format!(
                "script {} has {SCRIPT_VERSIONS_MAX} versions, the most it may have",
                script.name
            ));
        }
        let number = script.next_number();
        let record = ScriptVersionRecord {
            created_ms: self.now_ms,
            file,
        };
        self.keep_script(
            Collection::ScriptVersion,
            script.name.as_str(),
            &number.to_string(),
            &record,
        );
        let version = Arc::new(ScriptVersion::new(&script.name, Some(number), record)?);
        script.versions.push(Arc::clone(&version));
        script.live = Some(version);
        Ok(())
    }

    /// Puts a whole script in, as it is loaded or after a change.
    pub(super) fn set_script(&mut self, script: Script) {
        self.keep_script(
            Collection::Script,
            "",
            script.name.as_str(),
            &script.record(),
        );
        let script = Arc::new(script);
        product_mut(&mut self.snapshot, &script.product).script = Some(Arc::clone(&script));
        self.snapshot.scripts.insert(script.name.clone(), script);
    }

    pub(super) fn remove_script(&mut self, script: &Script) {
        self.snapshot.scripts.remove(&script.name);
        product_mut(&mut self.snapshot, &script.product).script = None;
        self.forget(Collection::Script, "", script.name.as_str());
        self.forget(Collection::ScriptDraft, "", script.name.as_str());
        for version in &script.versions {
            let number = version.number.unwrap_or_default().to_string();
            self.forget(Collection::ScriptVersion, script.name.as_str(), &number);
        }
        for sample in script.samples.keys() {
            self.forget(Collection::ScriptSample, script.name.as_str(), sample);
        }
    }

    pub(super) fn keep_script<T: Serialize>(
        &mut self,
        collection: Collection,
        owner: &str,
        name: &str,
        record: &T,
    ) {
        if self.trust == Trust::Declared {
            let body = serde_json::to_string(record).expect("a file that was read writes");
            let key = record_key(collection, owner, name);
            self.changes.push(Change::Put(Record { key, body }));
        }
    }

    pub(super) fn remove_channel(&mut self, channel: &Channel) {
        self.has_stale_policies = true;
        self.snapshot.channels.remove(&channel.name);
        let product = product_mut(&mut self.snapshot, &channel.product);
        product.channels.retain(|other| other.name != channel.name);
        self.forget(Collection::Channel, "", channel.name.as_str());
        self.forget(Collection::Login, "", channel.name.as_str());
    }

    fn keep<T: Serialize>(&mut self, kind: Kind, owner: &str, name: &str, file: &T) {
        // What is loaded stands in the database already.
        if self.trust == Trust::Declared {
            let body = super::written(kind, name, file);
            let key = record_key(kind.collection(), owner, name);
            self.changes.push(Change::Put(Record { key, body }));
        }
    }

    fn keep_login(&mut self, channel: &Channel) {
        if self.trust == Trust::Declared {
            let body = channel.login_record(self.seal);
            let key = record_key(Collection::Login, "", channel.name.as_str());
            self.changes.push(Change::Put(Record { key, body }));
        }
    }

    fn keep_credential(&mut self, key: &AccessKey) {
        let body = key.credential_record(self.seal);
        self.keep_beside(Collection::Credential, &key.name, body);
    }

    fn keep_state(&mut self, subscription: &Subscription) {
        let body = subscription.state_record();
        self.keep_beside(Collection::SubscriptionState, &subscription.name, body);
    }

    fn keep_beside(&mut self, collection: Collection, name: &ObjectName, body: String) {
        if self.trust == Trust::Declared {
            let key = record_key(collection, "", name.as_str());
            self.changes.push(Change::Put(Record { key, body }));
        }
    }

    pub(super) fn forget(&mut self, collection: Collection, owner: &str, name: &str) {
        self.changes
            .push(Change::Remove(record_key(collection, owner, name)));
    }
}

/// The product to change. Copies its maps once per draft: after that they are the draft's own.
fn product_mut<'s>(snapshot: &'s mut Snapshot, name: &ObjectName) -> &'s mut Product {
    let product = snapshot
        .products
        .get_mut(name)
        .expect("the product was looked up before");
    Arc::make_mut(product)
}

fn record_key(collection: Collection, owner: &str, name: &str) -> RecordKey {
    RecordKey {
        collection,
        owner: owner.to_owned(),
        name: name.to_owned(),
    }
}

fn retired_key(owner: &AssetOwner) -> RecordKey {
    record_key(
        Collection::RetiredAsset,
        owner.product_key.as_str(),
        owner.device_key.as_str(),
    )
}

/// A point keeps the type that its values are stored as.
fn check_stored(
    stored: &dyn StoredTypes,
    product: &ObjectName,
    key: &ProductKey,
    model: &Model,
) -> Result<(), String> {
    for (name, point) in &model.measurepoints {
        match stored.stored_as(key, name) {
            Some(before) if before != point.data_type.storage() => {
                return Err(format!(
                    "point {name} of product {product} has values stored as {}, {} would be stored \
                     as {}; declare a point of another name",
                    word(before),
                    point.data_type.word(),
                    word(point.data_type.storage()),
                ));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

fn word(storage: backtide_model::Storage) -> String {
    format!("{storage:?}").to_lowercase()
}

/// The login check tries every enabled channel of a product, so there are few of them.
fn check_room(product: &Product) -> Result<(), String> {
    if product.enabled_channels().count() < ENABLED_CHANNELS_MAX {
        return Ok(());
    }
    Err(format!(
        "product {} has {ENABLED_CHANNELS_MAX} enabled channels, the most it may have; pause or \
         delete one",
        product.name
    ))
}
