//! What has been declared: models, products, devices, channels, policies …
//!
//! Writers are one at a time: read the documents, put them into a draft, commit its records in one
//! transaction, then show the draft to readers. Readers hold a [`Snapshot`]: no lock and no
//! database stands on a message's path. A new kind is a file here, a line in each `match` on
//! [`Kind`] that the compiler points out. What `apply` does not say of an object is in `verbs.rs`.

mod access_key;
mod archive;
mod budget;
mod changes;
mod channel;
mod deletion;
mod device;
mod document;
mod draft;
mod kind;
mod loaded;
mod model;
mod policy;
#[cfg(test)]
mod policy_tests;
mod product;
pub mod records;
mod refused;
mod rule;
mod sample;
mod schema;
mod script;
mod sealed;
mod snapshot;
mod sqlite;
mod storage;
mod subscription;
#[cfg(test)]
mod tests;
pub mod thing_model;
mod verbs;
mod witness;

use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
    sync::{Arc, OnceLock},
};

use arc_swap::{ArcSwap, Guard};
use backtide_model::{ElementName, ProductKey, Storage};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use access_key::{AccessKey, Right};
pub use archive::{
    Archive, ArchiveFile, ArchiveForm, ArchiveFormat, ArchiveOf, Day, PlaceFile, S3File, Schedule,
    ScheduleFile,
};
pub use budget::ErrorBudget;
pub use changes::Changes;
pub use channel::{CertificateRule, Channel, Held, Quotas, Rates, RecentQuota, Secret};
pub use device::{Attributes, Device, DeviceFile};
pub use document::{Declared, Document, Fault, Form, Place, read};
pub use kind::Kind;
pub use model::DeclaredModel;
pub use policy::{Policies, Policy, PolicyFile, chain, chains_of};
pub use product::{Format, Product, ProductFile};
pub use refused::{NAMED_MAX, OpenError, Refused, User, refused};
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
pub use witness::{Altered, Witness};

use crate::{clock::Clock, secrets::Seal};
use draft::{Draft, Trust};
use loaded::loaded;
use records::Records;
use witness::{ALTERED_MAX, altered};

/// Enabled channels of one product (`decisions.md` §2).
pub const ENABLED_CHANNELS_MAX: usize = 64;

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

    /// Tells of every change from here on, until `closing`.
    pub fn changes(&self, closing: CancellationToken) -> Changes {
        Changes {
            version: self.version.subscribe(),
            closing,
        }
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
        (None, _) => Err(Refused::not_found(Kind::Device, name)),
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
