//! The registry as its records have it, at the start.

use std::sync::Arc;

use backtide_model::{AssetId, DeviceKey, ObjectName, ProductKey};

use super::{
    AssetOwner, Declared, OpenError, Snapshot, StoredTypes,
    access_key::Credential,
    archive::ArchiveState,
    channel::Login,
    document,
    draft::{Draft, Trust},
    policy::SaidRecord,
    records::{Collection, Records},
    rule::RuleState,
    script::Scripts,
};
use crate::secrets::Seal;

/// # Errors
/// [`OpenError`]: a record cannot be read, or what it says makes no sense.
pub(super) fn loaded(
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
                let id: AssetId =
                    serde_json::from_str(&record.body).map_err(|e| damaged(e.to_string()))?;
                let owner = AssetOwner {
                    product_key: ProductKey::new(&record.key.owner)
                        .map_err(|e| damaged(e.to_string()))?,
                    device_key: DeviceKey::new(name).map_err(|e| damaged(e.to_string()))?,
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
                let policy =
                    ObjectName::new(&record.key.owner).map_err(|e| damaged(e.to_string()))?;
                let revision: u32 = name
                    .parse()
                    .map_err(|_| damaged("its name is no number".into()))?;
                let said: SaidRecord =
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
