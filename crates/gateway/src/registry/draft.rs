//! A change in the making: a copy of the snapshot that declarations are put into, and the records
//! that make it last. Dropped on any fault; nobody else ever sees it.

mod channels;
mod followers;
mod policies;
mod products;
mod scripts;

use std::{collections::HashMap, sync::Arc};

use backtide_model::ObjectName;
use serde::Serialize;

use super::{
    Declared, Effect, Kind, Product, StoredTypes,
    access_key::Credential,
    archive::ArchiveState,
    channel::Login,
    records::{Change, Collection, Record, RecordKey},
    rule::RuleState,
    snapshot::Snapshot,
    subscription::StateRecord,
};
use crate::secrets::Seal;

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

    fn keep<T: Serialize>(&mut self, kind: Kind, owner: &str, name: &str, file: &T) {
        // What is loaded stands in the database already.
        if self.trust == Trust::Declared {
            let body = super::written(kind, name, file);
            let key = record_key(kind.collection(), owner, name);
            self.changes.push(Change::Put(Record { key, body }));
        }
    }

    /// What an object's file does not say.
    fn keep_beside(&mut self, collection: Collection, name: &str, body: String) {
        if self.trust == Trust::Declared {
            let key = record_key(collection, "", name);
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
