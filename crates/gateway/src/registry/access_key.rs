//! Access keys: what an application is known by. The key names it on the wire, its secret signs; a
//! key reads the subscriptions that name it, and what else it may do are its rights.

use std::collections::BTreeSet;

use backtide_model::{ChannelName, ObjectName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    channel::{Previous, PreviousRecord, Secret, SecretRecord},
    sealed,
};
use crate::secrets::{Seal, SecretError};

/// What an application may do through the vendor-compatible API.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Read history, models, products and devices.
    Query,
    /// Declare, change and delete models, products and devices; read them.
    Manage,
    /// Post points, events and attributes.
    Integrate,
}

impl Right {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Manage => "manage",
            Self::Integrate => "integrate",
        }
    }
}

/// An access key in an object file. Its secret is not: it has verbs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AccessKeyFile {
    /// Names the application on the wire; generated when absent, never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(
        pattern = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
    ))]
    pub key: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What its application may do through the vendor-compatible API; nothing unless given.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub rights: BTreeSet<Right>,
    /// The channels that what it posts may go through; any unless given.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(with = "BTreeSet<String>")]
    pub channels: BTreeSet<ChannelName>,
}

/// Checks what can be said of an access key by itself.
pub(super) fn check(file: &AccessKeyFile) -> Result<(), String> {
    match &file.key {
        // One vendor SDK takes the groups of both apart.
        Some(key) if key.len() != 36 || uuid::Uuid::try_parse(key).is_err() => Err(format!(
            "key {key:?} is no GUID; leave it out and one is generated"
        )),
        Some(_) | None => Ok(()),
    }
}

/// An access key with what a login needs.
#[derive(Debug, Clone)]
pub struct AccessKey {
    pub name: ObjectName,
    /// GUID-shaped.
    pub key: Box<str>,
    pub description: Option<String>,
    pub rights: BTreeSet<Right>,
    pub channels: BTreeSet<ChannelName>,
    pub created_ms: i64,
    /// Secrets made so far: the next one's id is greater than any before it.
    pub(super) issued: u64,
    /// `None`: revoked.
    pub(super) secret: Option<Secret>,
    pub(super) previous: Option<Previous>,
}

impl AccessKey {
    /// As it stands in an object file, with what was generated.
    pub fn file(&self) -> AccessKeyFile {
        AccessKeyFile {
            key: Some(self.key.clone()),
            description: self.description.clone(),
            rights: self.rights.clone(),
            channels: self.channels.clone(),
        }
    }

    pub fn has(&self, right: Right) -> bool {
        self.rights.contains(&right)
    }

    /// A new secret; the one before stays valid until then.
    pub(super) fn rotate(&mut self, valid_until_ms: i64) {
        self.issued += 1;
        let new = Secret::new(self.issued);
        self.previous = self.secret.replace(new).map(|secret| Previous {
            secret,
            valid_until_ms,
        });
    }

    /// No secret any more.
    pub(super) fn revoke(&mut self) {
        self.secret = None;
        self.previous = None;
    }

    /// The secrets that sign at this moment: the own one, and after a rotation the one before until
    /// its overlap ends. None where it is revoked.
    pub fn secrets(&self, now_ms: i64) -> impl Iterator<Item = &Secret> {
        let previous = self
            .previous
            .as_ref()
            .filter(|old| now_ms < old.valid_until_ms);
        self.secret.iter().chain(previous.map(|old| &old.secret))
    }

    /// The secret that new clients sign with; none where it is revoked.
    pub fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// Until when the secret before the last rotation signs, if it does at this moment.
    pub fn previous_valid_until_ms(&self, now_ms: i64) -> Option<i64> {
        self.previous
            .as_ref()
            .map(|old| old.valid_until_ms)
            .filter(|until| now_ms < *until)
    }

    /// What a file does not say, as it is kept.
    pub(super) fn credential_record(&self, seal: &Seal) -> String {
        let owner = owner(self.name.as_str());
        let record = CredentialRecord {
            created_ms: self.created_ms,
            issued: self.issued,
            secret: self
                .secret
                .as_ref()
                .map(|secret| secret.record(&owner, seal)),
            previous: self.previous.as_ref().map(|old| old.record(&owner, seal)),
        };
        serde_json::to_string(&record).expect("numbers and texts are JSON")
    }
}

/// A channel of the same name must not open what is sealed for an access key.
fn owner(name: &str) -> String {
    format!("access-key/{name}")
}

/// What a file does not say about an access key.
pub(super) struct Credential {
    pub(super) created_ms: i64,
    pub(super) issued: u64,
    pub(super) secret: Option<Secret>,
    pub(super) previous: Option<Previous>,
}

/// [`Credential`] at rest, secrets sealed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CredentialRecord {
    created_ms: i64,
    issued: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<SecretRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<PreviousRecord>,
}

impl Credential {
    pub(super) fn new(now_ms: i64) -> Self {
        Self {
            created_ms: now_ms,
            issued: 1,
            secret: Some(Secret::new(1)),
            previous: None,
        }
    }

    pub(super) fn of(key: &AccessKey) -> Self {
        Self {
            created_ms: key.created_ms,
            issued: key.issued,
            secret: key.secret.clone(),
            previous: key.previous.clone(),
        }
    }

    pub(super) fn from_record(name: &str, record: &str, seal: &Seal) -> Result<Self, SecretError> {
        let owner = owner(name);
        let record: CredentialRecord = sealed::read(&owner, record)?;
        let secret = record
            .secret
            .map(|secret| Secret::opened(&secret, &owner, seal));
        let previous = record
            .previous
            .map(|old| Previous::opened(&old, &owner, seal));
        Ok(Self {
            created_ms: record.created_ms,
            issued: record.issued,
            secret: secret.transpose()?,
            previous: previous.transpose()?,
        })
    }
}
