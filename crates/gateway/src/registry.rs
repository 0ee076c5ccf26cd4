//! What has been declared: models, products, devices, channels, policies …
//!
//! Writers are one at a time: read the documents, put them into a draft, commit its records in one
//! transaction, then show the draft to readers. Readers hold a [`Snapshot`]: no lock and no
//! database stands on a message's path. A new kind is a file here, a line in each `match` on
//! [`Kind`] that the compiler points out.

mod access_key;
mod archive;
mod budget;
mod channel;
mod device;
mod document;
mod draft;
mod kind;
mod model;
mod policy;
#[cfg(test)]
mod policy_tests;
mod product;
pub mod records;
mod rule;
mod sample;
mod schema;
mod script;
mod snapshot;
mod sqlite;
mod storage;
mod subscription;
#[cfg(test)]
mod tests;
pub mod thing_model;

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
};

use arc_swap::{ArcSwap, Guard};
use backtide_model::{ChannelName, ElementName, ProductKey, Storage};
use parking_lot::Mutex;
use secrecy::SecretString;
use serde::Serialize;
use tokio::sync::watch;

pub use access_key::{AccessKey, Right};
pub use archive::{
    Archive, ArchiveFile, ArchiveForm, ArchiveFormat, ArchiveOf, Day, PlaceFile, S3File, Schedule,
    ScheduleFile,
};
pub use budget::ErrorBudget;
pub use channel::{CertificateRule, Channel, Held, Quotas, Rates, RecentQuota, Secret};
pub use device::{Attributes, Device, DeviceFile};
pub use document::{Declared, Document, Fault, Form, Place, read};
pub use kind::Kind;
pub use model::DeclaredModel;
pub use policy::{Policies, Policy, PolicyFile, chain, chains_of};
pub use product::{Format, Product, ProductFile};
pub use rule::{
    BatchFormat, Calculated, Comparison, Constant, Destination, Guarantee, KafkaFile, Listen,
    QualityRange, RowKind, Rule, RuleFile, Scale, Step, WebhookFile,
};
pub use sample::Sample;
pub use schema::{object_schemas, schema};
pub use script::{Script, ScriptFile, ScriptVersion};
pub use snapshot::{AssetOwner, Devices, Snapshot};
pub use sqlite::Sqlite;
pub use storage::{
    Compression, Density, KeptBy, Of, ProductStorage, RuleInForce, StorageRule, StorageRules,
};
pub use subscription::{Contents, Subscription};

use crate::{
    clock::Clock,
    secrets::{Seal, SecretError},
};
use access_key::Credential;
use archive::ArchiveState;
use channel::{Login, Previous};
use draft::{Draft, Trust};
use records::{Change, Collection, Records, RecordsError};
use rule::RuleState;
use script::Scripts;

/// Enabled channels of one product (`decisions.md` §2).
pub const ENABLED_CHANNELS_MAX: usize = 64;
/// Faults and users named in one refusal; the rest is counted.
pub const NAMED_MAX: usize = 100;

/// What points are stored as; the store answers.
pub trait StoredTypes: Send + Sync {
    /// The storage of a point of which values are stored.
    fn stored_as(&self, product: &ProductKey, point: &ElementName) -> Option<Storage>;

    /// The position of the last commit: what is committed later has a greater one.
    fn committed(&self) -> u64 {
        0
    }

    /// The position of the last commit that the log no longer holds.
    fn trimmed(&self) -> u64 {
        0
    }
}

/// What became of a declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    Created,
    Changed,
    Unchanged,
}

impl Effect {
    const fn of(was_there: bool) -> Self {
        if was_there {
            Self::Changed
        } else {
            Self::Created
        }
    }
}

/// Whether to do it, or only to say what would be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    Commit,
    Dry,
}

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub kind: Kind,
    pub name: String,
    pub effect: Effect,
}

/// An object that uses another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub kind: Kind,
    pub name: String,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The documents, or what they would change, are wrong. At most [`NAMED_MAX`] faults, in file
    /// order, and how many more.
    #[error("{} of the documents cannot be applied; nothing was changed", faults.len() + more)]
    Faults { faults: Vec<Fault>, more: usize },
    #[error("{kind} {name} is not declared")]
    NotFound { kind: Kind, name: String },
    #[error("device {name} is declared for several products: {}; name one", products.join(", "))]
    Ambiguous { name: String, products: Vec<String> },
    /// At most [`NAMED_MAX`] users, and how many more.
    #[error("{kind} {name} is used by {}", listed(users, *more))]
    InUse {
        kind: Kind,
        name: String,
        users: Vec<User>,
        more: usize,
    },
    #[error("{0}")]
    Conflict(String),
    #[error(transparent)]
    Records(#[from] RecordsError),
}

fn listed(users: &[User], more: usize) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = users.iter().take(SHOWN).map(User::to_string).collect();
    match users.len().saturating_sub(SHOWN) + more {
        0 => shown.join(", "),
        rest => format!("{} and {rest} more", shown.join(", ")),
    }
}

/// Why the registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Records(#[from] RecordsError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("registry record {object} is damaged: {reason}")]
    Damaged { object: String, reason: String },
}

/// A record of the registry that is another now. Texts are JSON; channel secrets in them are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altered {
    /// The collection, such as `device` or `login`.
    pub kind: &'static str,
    /// Its owner, where it has one, a slash, and its name.
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Records of one change that are told with what they were; the rest is counted.
const ALTERED_MAX: usize = 1_000;

/// Is told of every change after it was committed, in order: its records, and how many more.
pub type Witness = Box<dyn Fn(Vec<Altered>, usize) + Send + Sync>;

/// Everything declared.
pub struct Registry {
    /// Held through every change, so that changes are one at a time.
    records: Mutex<Box<dyn Records>>,
    snapshot: ArcSwap<Snapshot>,
    version: watch::Sender<u64>,
    seal: Seal,
    stored: Arc<dyn StoredTypes>,
    clock: Clock,
    witness: OnceLock<Witness>,
}

impl Registry {
    /// Opens `registry.db` and `secret.key` in the data directory, or makes them.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        data_dir: &Path,
        stored: Arc<dyn StoredTypes>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let seal = Seal::open(data_dir)?;
        let records = Sqlite::open(&data_dir.join("registry.db"))?;
        Self::load(Box::new(records), seal, stored, clock)
    }

    /// Reads all that `records` hold.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn load(
        mut records: Box<dyn Records>,
        seal: Seal,
        stored: Arc<dyn StoredTypes>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let snapshot = loaded(&mut *records, &seal, &*stored, clock.now_ms())?;
        Ok(Self {
            records: Mutex::new(records),
            version: watch::Sender::new(snapshot.version),
            snapshot: ArcSwap::from_pointee(snapshot),
            seal,
            stored,
            clock,
            witness: OnceLock::new(),
        })
    }

    /// Tells `witness` of every change from here on; the first one stays.
    pub fn set_witness(&self, witness: Witness) {
        if self.witness.set(witness).is_err() {
            tracing::error!("the registry has a witness already");
        }
    }

    /// What is declared now, to be held for as long as one message takes.
    pub fn current(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// What is declared now, to be held for as long as you like.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Tells of every change by the snapshot's version; changes in quick succession may be told as
    /// one.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Declares all documents, or none. Blocks on the disk.
    ///
    /// # Errors
    /// [`Refused`]; then nothing has changed.
    pub fn apply(&self, documents: Vec<Document>, run: Run) -> Result<Vec<Applied>, Refused> {
        let mut applied = Vec::new();
        self.change(run, |draft| {
            applied = put_all(draft, documents)?;
            Ok(())
        })?;
        Ok(applied)
    }

    /// What is declared now, and what would be with these documents. Nothing changes.
    ///
    /// # Errors
    /// [`Refused`], as [`Self::apply`] would.
    pub fn preview(&self, documents: Vec<Document>) -> Result<(Snapshot, Snapshot), Refused> {
        let mut preview = None;
        self.change(Run::Dry, |draft| {
            let before = draft.snapshot.clone();
            put_all(draft, documents)?;
            draft.settle_policies().map_err(Refused::Conflict)?;
            preview = Some((before, draft.snapshot.clone()));
            Ok(())
        })?;
        Ok(preview.expect("a change that was drawn has a draft"))
    }

    /// Deletes a declaration that nothing uses. `product` tells devices of one name apart.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn delete(&self, kind: Kind, name: &str, product: Option<&str>) -> Result<(), Refused> {
        self.change(Run::Commit, |draft| {
            let snapshot = draft.snapshot.clone();
            let not_found = || Refused::NotFound {
                kind,
                name: name.to_owned(),
            };
            let unused = |users: Vec<User>| match users.len() {
                0 => Ok(()),
                len => Err(Refused::InUse {
                    kind,
                    name: name.to_owned(),
                    users: users.into_iter().take(NAMED_MAX).collect(),
                    more: len.saturating_sub(NAMED_MAX),
                }),
            };
            match kind {
                Kind::Model => {
                    let model = snapshot.model(name).ok_or_else(not_found)?;
                    unused(users_of_model(&snapshot, name))?;
                    draft.remove_model(&model.name);
                }
                Kind::Product => {
                    let product = snapshot.product(name).ok_or_else(not_found)?;
                    let listens = |rule: &Rule| rule.file.from.products.contains(&product.name);
                    let users = users_of_product(&snapshot, product).into_iter();
                    let archived = archives_of_product(&snapshot, product);
                    let users = users.chain(rules(&snapshot, listens)).chain(archived);
                    unused(users.collect())?;
                    draft.remove_product(product);
                }
                Kind::Device => {
                    let (product, device) = device_named(&snapshot, name, product)?;
                    draft.remove_device(product, device);
                }
                Kind::Channel => {
                    let channel = snapshot.channel(name).ok_or_else(not_found)?;
                    let listens = |rule: &Rule| rule.file.from.channels.contains(&channel.name);
                    let is_about = |file: &PolicyFile| file.channels.contains(&channel.name);
                    let users = rules(&snapshot, listens)
                        .chain(users_of_channel(&snapshot, name))
                        .chain(policies(&snapshot, is_about));
                    unused(users.collect())?;
                    draft.remove_channel(channel);
                }
                Kind::Script => {
                    draft.remove_script(snapshot.script(name).ok_or_else(not_found)?);
                }
                Kind::AccessKey => {
                    let key = snapshot.access_key(name).ok_or_else(not_found)?;
                    unused(users_of_access_key(&snapshot, name))?;
                    draft.remove_access_key(&key.name);
                }
                Kind::Subscription => {
                    let subscription = snapshot.subscription(name).ok_or_else(not_found)?;
                    draft.remove_subscription(&subscription.name);
                }
                Kind::Policy => {
                    let policy = snapshot.policy(name).ok_or_else(not_found)?;
                    draft
                        .remove_policy(&policy.name)
                        .map_err(Refused::Conflict)?;
                }
                Kind::Rule => {
                    let rule = snapshot.rule(name).ok_or_else(not_found)?;
                    draft.remove_rule(&rule.name);
                }
                Kind::Archive => {
                    let archive = snapshot.archive(name).ok_or_else(not_found)?;
                    draft.remove_archive(&archive.name);
                }
            }
            Ok(())
        })
    }

    /// Gives a channel a new secret; the one before stays valid for `overlap_ms`.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn rotate(&self, name: &str, overlap_ms: i64) -> Result<Arc<Channel>, Refused> {
        let valid_until_ms = self.clock.now_ms().saturating_add(overlap_ms);
        self.relogin(name, |channel| {
            let new = Secret::new(channel.secret.id + 1);
            let secret = std::mem::replace(&mut channel.secret, new);
            channel.previous = Some(Previous {
                secret,
                valid_until_ms,
            });
        })
    }

    /// Shuts a channel, or opens it again; an open one is not held either.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_paused(&self, name: &str, paused: bool) -> Result<Arc<Channel>, Refused> {
        self.relogin(name, |channel| {
            channel.paused = paused;
            if !paused {
                channel.held = None;
            }
        })
    }

    /// Takes nothing of a channel until it is opened again.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn hold(&self, name: &str, reason: &str) -> Result<Arc<Channel>, Refused> {
        let since = self.clock.now_ms();
        self.relogin(name, |channel| {
            channel.held.get_or_insert_with(|| Held {
                since,
                reason: reason.to_owned(),
            });
        })
    }

    /// Saves the draft of a script; an earlier draft is replaced.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn draft_script(&self, name: &str, file: ScriptFile) -> Result<Arc<Script>, Refused> {
        let name = backtide_model::ObjectName::new(name)
            .map_err(|error| Refused::Conflict(error.to_string()))?;
        self.change(Run::Commit, |draft| {
            draft
                .put_script_draft(&name, file)
                .map_err(Refused::Conflict)
        })?;
        self.script(name.as_str())
    }

    /// Deletes the draft of a script.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn drop_script_draft(&self, name: &str) -> Result<(), Refused> {
        let script = self.script(name)?;
        if script.draft.is_none() {
            return Err(Refused::Conflict(format!("script {name} has no draft")));
        }
        self.change_script(name, |draft, script| {
            draft.remove_script_draft(script);
            Ok(())
        })
    }

    /// Makes the draft of a script a version, and that the one that runs. `tried` is the draft that
    /// passed its trial: another one is refused.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn publish_script(
        &self,
        name: &str,
        tried: &Arc<ScriptVersion>,
    ) -> Result<Arc<Script>, Refused> {
        self.change_script(name, |draft, script| {
            let is_same = script
                .draft
                .as_ref()
                .is_some_and(|now| Arc::ptr_eq(now, tried));
            if !is_same {
                return Err("the draft was changed meanwhile; publish again".to_owned());
            }
            draft.publish_script(script)
        })?;
        self.script(name)
    }

    /// Makes another version of a script the one that runs.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn roll_back_script(&self, name: &str, number: u32) -> Result<Arc<Script>, Refused> {
        self.change_script(name, |draft, script| draft.roll_back_script(script, number))?;
        self.script(name)
    }

    /// Keeps a sample payload with a script, in the place of one of the same name.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn keep_sample(
        &self,
        script: &str,
        name: &str,
        sample: Sample,
    ) -> Result<Arc<Script>, Refused> {
        self.change_script(script, |draft, script| {
            draft.put_sample(script, name, sample)
        })?;
        self.script(script)
    }

    /// Deletes a sample payload of a script.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn drop_sample(&self, script: &str, name: &str) -> Result<(), Refused> {
        self.change_script(script, |draft, script| draft.remove_sample(script, name))
    }

    fn script(&self, name: &str) -> Result<Arc<Script>, Refused> {
        self.current()
            .script(name)
            .cloned()
            .ok_or_else(|| Refused::NotFound {
                kind: Kind::Script,
                name: name.to_owned(),
            })
    }

    fn change_script(
        &self,
        name: &str,
        change: impl FnOnce(&mut Draft<'_>, &Script) -> Result<(), String>,
    ) -> Result<(), Refused> {
        self.change(Run::Commit, |draft| {
            let script = draft.snapshot.script(name).cloned();
            let script = script.ok_or_else(|| Refused::NotFound {
                kind: Kind::Script,
                name: name.to_owned(),
            })?;
            change(draft, &script).map_err(Refused::Conflict)
        })
    }

    fn relogin(
        &self,
        name: &str,
        change: impl FnOnce(&mut Channel),
    ) -> Result<Arc<Channel>, Refused> {
        let not_found = || Refused::NotFound {
            kind: Kind::Channel,
            name: name.to_owned(),
        };
        self.change(Run::Commit, |draft| {
            let name = ChannelName::new(name).map_err(|_| not_found())?;
            draft.snapshot.channel(&name).ok_or_else(not_found)?;
            draft.relogin(&name, change).map_err(Refused::Conflict)
        })?;
        self.current().channel(name).cloned().ok_or_else(not_found)
    }

    /// Gives an access key a new secret; the one before stays valid for `overlap_ms`. One that was
    /// revoked signs again, with the new secret alone.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn rotate_access_key(
        &self,
        name: &str,
        overlap_ms: i64,
    ) -> Result<Arc<AccessKey>, Refused> {
        let valid_until_ms = self.clock.now_ms().saturating_add(overlap_ms);
        self.reissue(name, |key| key.rotate(valid_until_ms))
    }

    /// Takes every secret of an access key away, for good.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn revoke_access_key(&self, name: &str) -> Result<Arc<AccessKey>, Refused> {
        self.reissue(name, AccessKey::revoke)
    }

    fn reissue(
        &self,
        name: &str,
        change: impl FnOnce(&mut AccessKey),
    ) -> Result<Arc<AccessKey>, Refused> {
        let not_found = || Refused::NotFound {
            kind: Kind::AccessKey,
            name: name.to_owned(),
        };
        self.change(Run::Commit, |draft| {
            let key = draft.snapshot.access_key(name).ok_or_else(not_found)?;
            let name = key.name.clone();
            draft.reissue(&name, change);
            Ok(())
        })?;
        self.current()
            .access_key(name)
            .cloned()
            .ok_or_else(not_found)
    }

    /// Stops a subscription, or starts it again.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_stopped(&self, name: &str, stopped: bool) -> Result<Arc<Subscription>, Refused> {
        let not_found = || Refused::NotFound {
            kind: Kind::Subscription,
            name: name.to_owned(),
        };
        self.change(Run::Commit, |draft| {
            let subscription = draft.snapshot.subscription(name).ok_or_else(not_found)?;
            let name = subscription.name.clone();
            draft.set_stopped(&name, stopped);
            Ok(())
        })?;
        self.current()
            .subscription(name)
            .cloned()
            .ok_or_else(not_found)
    }

    /// Makes the default rules, unless that was done before: what was deleted since stays so.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn make_default_rules(&self) -> Result<(), Refused> {
        if self.current().has_made_rules {
            return Ok(());
        }
        self.change(Run::Commit, |draft| {
            draft.make_rules().map_err(Refused::Conflict)
        })
    }

    /// Stops a rule, or starts it again.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_rule_stopped(&self, name: &str, stopped: bool) -> Result<Arc<Rule>, Refused> {
        self.change_rule(name, |rule| rule.stopped = stopped)
    }

    /// Sets what `${secret}` stands for in a rule, or takes it away.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_rule_secret(
        &self,
        name: &str,
        secret: Option<SecretString>,
    ) -> Result<Arc<Rule>, Refused> {
        self.change_rule(name, |rule| rule.secret = secret)
    }

    /// Lets an archive run by itself no more, or again.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_archive_stopped(&self, name: &str, stopped: bool) -> Result<Arc<Archive>, Refused> {
        self.change_archive(name, |archive| archive.stopped = stopped)
    }

    /// Sets the secret of an archive's S3 access key, or takes it away.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_archive_secret(
        &self,
        name: &str,
        secret: Option<SecretString>,
    ) -> Result<Arc<Archive>, Refused> {
        self.change_archive(name, |archive| archive.secret = secret)
    }

    fn change_archive(
        &self,
        name: &str,
        change: impl FnOnce(&mut Archive),
    ) -> Result<Arc<Archive>, Refused> {
        let not_found = || Refused::NotFound {
            kind: Kind::Archive,
            name: name.to_owned(),
        };
        self.change(Run::Commit, |draft| {
            let archive = draft.snapshot.archive(name).ok_or_else(not_found)?;
            let name = archive.name.clone();
            draft.change_archive(&name, change);
            Ok(())
        })?;
        self.current().archive(name).cloned().ok_or_else(not_found)
    }

    fn change_rule(
        &self,
        name: &str,
        change: impl FnOnce(&mut Rule),
    ) -> Result<Arc<Rule>, Refused> {
        let not_found = || Refused::NotFound {
            kind: Kind::Rule,
            name: name.to_owned(),
        };
        self.change(Run::Commit, |draft| {
            let name = draft
                .snapshot
                .rule(name)
                .ok_or_else(not_found)?
                .name
                .clone();
            draft.change_rule(&name, change);
            Ok(())
        })?;
        self.current().rule(name).cloned().ok_or_else(not_found)
    }

    /// The one way to change anything: draft, records, then readers.
    fn change(
        &self,
        run: Run,
        draw: impl FnOnce(&mut Draft<'_>) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let mut records = self.records.lock();
        let before = Snapshot::clone(&self.current());
        let now_ms = self.clock.now_ms();
        let mut draft = Draft::new(before, Trust::Declared, now_ms, &self.seal, &*self.stored);
        draw(&mut draft)?;
        draft.settle_policies().map_err(Refused::Conflict)?;
        if run == Run::Dry || draft.changes.is_empty() {
            return Ok(());
        }
        let altered = match self.witness.get() {
            Some(_) => altered(&mut **records, &draft.changes)?,
            None => Vec::new(),
        };
        let more = draft.changes.len().saturating_sub(ALTERED_MAX);
        records.commit(&draft.changes)?;
        let mut snapshot = draft.snapshot;
        snapshot.version += 1;
        let version = snapshot.version;
        self.snapshot.store(Arc::new(snapshot));
        // After the store: who is told of a version sees it.
        self.version.send_replace(version);
        // Still under the lock: the witness hears of changes in their order.
        if let Some(witness) = self.witness.get() {
            witness(altered, more);
        }
        Ok(())
    }
}

/// Puts all documents into a draft, or tells every fault.
fn put_all(draft: &mut Draft<'_>, documents: Vec<Document>) -> Result<Vec<Applied>, Refused> {
    let mut faults = repeated(&documents);
    let mut applied: Vec<Option<Applied>> = vec![None; documents.len()];
    let mut order: Vec<(usize, Document)> = documents.into_iter().enumerate().collect();
    // Stable: what is referred to comes first, else the order of the files.
    order.sort_by_key(|(_, document)| document.declared.kind());
    for (at, Document { place, declared }) in order {
        let (kind, object) = (declared.kind(), declared.object());
        let name = declared.name().to_owned();
        match draft.put(declared) {
            Ok(effect) => applied[at] = Some(Applied { kind, name, effect }),
            Err(message) => faults.push(Fault {
                place,
                object: Some(object),
                message,
            }),
        }
    }
    match faults.is_empty() {
        true => Ok(applied.into_iter().flatten().collect()),
        false => Err(refused(faults)),
    }
}

/// What changes about to be committed make of the records that are there.
fn altered(records: &mut dyn Records, changes: &[Change]) -> Result<Vec<Altered>, RecordsError> {
    let mut altered = Vec::new();
    for change in changes.iter().take(ALTERED_MAX) {
        let (key, after) = match change {
            Change::Put(record) => (&record.key, Some(record.body.clone())),
            Change::Remove(key) => (key, None),
        };
        let before = records.body(key)?;
        if before == after || !key.collection.is_told() {
            continue;
        }
        let name = match key.owner.as_str() {
            "" => key.name.clone(),
            owner => format!("{owner}/{}", key.name),
        };
        altered.push(Altered {
            kind: key.collection.word(),
            name,
            before,
            after,
        });
    }
    Ok(altered)
}

/// The device of this name, of this product where one is named.
///
/// # Errors
/// [`Refused::NotFound`], or [`Refused::Ambiguous`] where several products have one.
pub fn device_named<'s>(
    snapshot: &'s Snapshot,
    name: &str,
    product: Option<&str>,
) -> Result<(&'s Arc<Product>, &'s Arc<Device>), Refused> {
    let mut found = snapshot
        .devices_named(name)
        .filter(|(owner, _)| product.is_none_or(|product| owner.name.as_str() == product));
    match (found.next(), found.next()) {
        (None, _) => Err(Refused::NotFound {
            kind: Kind::Device,
            name: name.to_owned(),
        }),
        (Some(device), None) => Ok(device),
        (Some(_), Some(_)) => Err(Refused::Ambiguous {
            name: name.to_owned(),
            products: snapshot
                .devices_named(name)
                .map(|(p, _)| p.name.to_string())
                .collect(),
        }),
    }
}

/// An object as `apply` takes it, as JSON text: kind, name, then what its kind's file says.
pub fn written<T: Serialize>(kind: Kind, name: &str, file: &T) -> String {
    #[derive(Serialize)]
    struct Object<'f, T> {
        kind: &'static str,
        name: &'f str,
        #[serde(flatten)]
        file: &'f T,
    }
    serde_json::to_string(&Object {
        kind: kind.word(),
        name,
        file,
    })
    .expect("a file that was read from text writes as text")
}

fn users_of_model(snapshot: &Snapshot, name: &str) -> Vec<User> {
    let products = snapshot
        .products_after(None)
        .filter(|product| product.model_name.as_str() == name)
        .map(|product| User {
            kind: Kind::Product,
            name: product.name.to_string(),
        });
    let has_it = |s: &Subscription| s.file.models.iter().any(|model| model.as_str() == name);
    let listens = |rule: &Rule| {
        rule.file
            .from
            .models
            .iter()
            .any(|model| model.as_str() == name)
    };
    let is_about = |file: &PolicyFile| file.models.iter().any(|model| model.as_str() == name);
    products
        .chain(subscriptions(snapshot, has_it))
        .chain(rules(snapshot, listens))
        .chain(policies(snapshot, is_about))
        .collect()
}

fn policies(snapshot: &Snapshot, that: impl Fn(&PolicyFile) -> bool) -> impl Iterator<Item = User> {
    let all = snapshot.policies_after(None);
    all.filter(move |policy| that(&policy.file))
        .map(|policy| User {
            kind: Kind::Policy,
            name: policy.name.to_string(),
        })
}

fn rules(snapshot: &Snapshot, that: impl Fn(&Rule) -> bool) -> impl Iterator<Item = User> {
    let all = snapshot.rules_after(None);
    all.filter(move |rule| that(rule)).map(|rule| User {
        kind: Kind::Rule,
        name: rule.name.to_string(),
    })
}

fn archives_of_product(snapshot: &Snapshot, product: &Product) -> impl Iterator<Item = User> {
    let all = snapshot.archives_after(None);
    all.filter(|archive| archive.file.products.contains(&product.name))
        .map(|archive| User {
            kind: Kind::Archive,
            name: archive.name.to_string(),
        })
}

fn users_of_channel(snapshot: &Snapshot, name: &str) -> Vec<User> {
    let keys = snapshot.access_keys_after(None);
    keys.filter(|key| key.channels.iter().any(|channel| channel.as_str() == name))
        .map(|key| User {
            kind: Kind::AccessKey,
            name: key.name.to_string(),
        })
        .collect()
}

fn users_of_access_key(snapshot: &Snapshot, name: &str) -> Vec<User> {
    subscriptions(snapshot, |s| s.file.access_key.as_str() == name).collect()
}

fn subscriptions(
    snapshot: &Snapshot,
    that: impl Fn(&Subscription) -> bool,
) -> impl Iterator<Item = User> {
    let all = snapshot.subscriptions_after(None);
    all.filter(move |subscription| that(subscription))
        .map(|subscription| User {
            kind: Kind::Subscription,
            name: subscription.name.to_string(),
        })
}

fn users_of_product(snapshot: &Snapshot, product: &Product) -> Vec<User> {
    let is_about = |file: &PolicyFile| file.products.contains(&product.name);
    let channels = product.channels.iter().map(|channel| User {
        kind: Kind::Channel,
        name: channel.name.to_string(),
    });
    let devices = product.devices.after(None).map(|device| User {
        kind: Kind::Device,
        name: device.name.to_string(),
    });
    let script = product.script.iter().map(|script| User {
        kind: Kind::Script,
        name: script.name.to_string(),
    });
    channels
        .chain(script)
        .chain(policies(snapshot, is_about))
        .chain(devices)
        .collect()
}

/// An object declared twice in one go: which one counts would be a guess.
fn repeated(documents: &[Document]) -> Vec<Fault> {
    let mut first: HashMap<(Kind, &str, &str), Place> = HashMap::with_capacity(documents.len());
    let mut faults = Vec::new();
    for Document { place, declared } in documents {
        match first.entry((declared.kind(), declared.owner(), declared.name())) {
            Entry::Vacant(entry) => {
                entry.insert(*place);
            }
            Entry::Occupied(entry) => {
                let Place { document, line } = *entry.get();
                faults.push(Fault {
                    place: *place,
                    object: Some(declared.object()),
                    message: format!("is declared before, in document {document}, line {line}"),
                });
            }
        }
    }
    faults
}

/// Faults in file order, as many as are worth reading.
pub fn refused(mut faults: Vec<Fault>) -> Refused {
    faults.sort_by_key(|fault| fault.place.document);
    let more = faults.len().saturating_sub(NAMED_MAX);
    faults.truncate(NAMED_MAX);
    Refused::Faults { faults, more }
}

fn loaded(
    records: &mut dyn Records,
    seal: &Seal,
    stored: &dyn StoredTypes,
    now_ms: i64,
) -> Result<Snapshot, OpenError> {
    let mut draft = Draft::new(Snapshot::default(), Trust::Kept, now_ms, seal, stored);
    let mut declared = Vec::new();
    let mut scripts = Scripts::default();
    let mut said_by_policies = Vec::new();
    for record in records.load()? {
        let name = record.key.name.as_str();
        let object = || format!("{} {name}", record.key.collection.word());
        let damaged = |reason: String| OpenError::Damaged {
            object: object(),
            reason,
        };
        match record.key.collection {
            Collection::Login => {
                let login = Login::from_record(name, &record.body, seal)?;
                draft.logins.insert(name.to_owned(), login);
            }
            Collection::RetiredAsset => {
                let id: backtide_model::AssetId =
                    serde_json::from_str(&record.body).map_err(|e| damaged(e.to_string()))?;
                let owner = AssetOwner {
                    product_key: ProductKey::new(&record.key.owner)
                        .map_err(|e| damaged(e.to_string()))?,
                    device_key: backtide_model::DeviceKey::new(name)
                        .map_err(|e| damaged(e.to_string()))?,
                };
                let assets = Arc::make_mut(&mut draft.snapshot.assets);
                assets.owners.insert(id.clone(), owner.clone());
                assets.retired.insert(owner, id);
            }
            Collection::Script
            | Collection::ScriptVersion
            | Collection::ScriptDraft
            | Collection::ScriptSample => {
                scripts.take(&record).map_err(damaged)?;
            }
            Collection::Credential => {
                let credential = Credential::from_record(name, &record.body, seal)?;
                draft.credentials.insert(name.to_owned(), credential);
            }
            Collection::SubscriptionState => {
                let state =
                    serde_json::from_str(&record.body).map_err(|e| damaged(e.to_string()))?;
                draft.states.insert(name.to_owned(), state);
            }
            Collection::PolicyRevision => {
                let policy = backtide_model::ObjectName::new(&record.key.owner)
                    .map_err(|e| damaged(e.to_string()))?;
                let revision: u32 = name
                    .parse()
                    .map_err(|_| damaged("its name is no number".into()))?;
                let said: policy::SaidRecord =
                    serde_json::from_str(&record.body).map_err(|e| damaged(e.to_string()))?;
                said_by_policies.push((revision, policy, said));
            }
            // Its revisions say it too, and what it said before.
            Collection::Policy => {}
            Collection::RuleState => {
                let state = RuleState::from_record(name, &record.body, seal)?;
                draft.rule_states.insert(name.to_owned(), state);
            }
            Collection::ArchiveState => {
                let state = ArchiveState::from_record(name, &record.body, seal)?;
                draft.archive_states.insert(name.to_owned(), state);
            }
            Collection::Made => draft.snapshot.has_made_rules = true,
            Collection::Model
            | Collection::Product
            | Collection::Device
            | Collection::Channel
            | Collection::AccessKey
            | Collection::Subscription
            | Collection::Rule
            | Collection::Archive => {
                declared.push(document::read_json(&record.body).map_err(damaged)?);
            }
        }
    }
    declared.sort_by_key(Declared::kind);
    for declared in declared {
        let object = declared.object();
        draft
            .put(declared)
            .map_err(|reason| OpenError::Damaged { object, reason })?;
    }
    for script in scripts
        .whole()
        .map_err(|(name, reason)| OpenError::Damaged {
            object: format!("script {name}"),
            reason,
        })?
    {
        draft.set_script(script);
    }
    said_by_policies.sort_by_key(|(revision, _, _)| *revision);
    for (revision, policy, said) in said_by_policies {
        draft.said(policy, revision, said.file);
    }
    draft
        .settle_policies()
        .map_err(|reason| OpenError::Damaged {
            object: "policies".to_owned(),
            reason,
        })?;
    Ok(draft.snapshot)
}
