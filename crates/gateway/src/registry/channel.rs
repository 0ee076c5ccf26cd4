//! Channels: how history comes in for a product, and who may bring it.

mod certificate;
mod quotas;

use backtide_model::{
    ChannelName, ConflictPolicy, ConnectionStrings, Mode, ObjectName, ProductKey, SignMethod,
};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

pub use certificate::CertificateRule;
pub use quotas::{Quotas, Rates, RecentQuota};

use super::{
    budget::{self, ErrorBudget},
    sealed,
};
use crate::secrets::{self, Seal, SecretError};

/// A channel in an object file. Secrets and whether it is paused are not: they have verbs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ChannelFile {
    /// The name of its product; a channel stays with it.
    #[schemars(with = "String", length(min = 1, max = 64))]
    pub product: ObjectName,
    /// strict: one bad item refuses its message. lenient: the good items are stored.
    #[serde(default)]
    #[schemars(with = "ModeFile")]
    pub mode: Mode,
    /// Items without a time get the time of their arrival.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stamp_arrival: bool,
    /// Which of two different values at one device, point and time stays.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(with = "ConflictFile")]
    pub conflict: ConflictPolicy,
    /// Connections at one time; the gateway's own limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub connections_max: Option<u32>,
    /// Sign methods that a login may not use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<SignMethodFile>")]
    pub refuse: Vec<SignMethod>,
    /// How much may be refused before an alarm is raised, or the channel is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_budget: Option<ErrorBudget>,
    /// Which client certificate a login has to show; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<CertificateRule>,
    /// How much it may bring in a second; as much as the gateway takes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quotas: Option<Quotas>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(JsonSchema, Default)]
#[schemars(rename_all = "lowercase")]
#[schemars(rename = "Mode")]
#[expect(dead_code, reason = "only its schema is used")]
enum ModeFile {
    #[default]
    Strict,
    Lenient,
}

#[derive(JsonSchema, Default)]
#[schemars(rename_all = "kebab-case")]
#[schemars(rename = "ConflictPolicy")]
#[expect(dead_code, reason = "only its schema is used")]
enum ConflictFile {
    #[default]
    KeepLast,
    KeepFirst,
    HigherQuality,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[schemars(rename = "RefusableSignMethod")]
#[expect(dead_code, reason = "only its schema is used")]
enum SignMethodFile {
    Sha1,
    Md5,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Checks what can be said of a channel by itself.
pub(super) fn check(file: &ChannelFile) -> Result<(), String> {
    if file.refuse.contains(&SignMethod::Sha256) {
        // The strings that `channel show` prints use it.
        return Err("refuse: sha256 cannot be refused, the channel's own strings use it".into());
    }
    if file.connections_max == Some(0) {
        return Err("connectionsMax: 0 lets nobody in; pause the channel instead".into());
    }
    if let Some(rule) = &file.client_certificate {
        rule.check()?;
    }
    file.error_budget.as_ref().map_or(Ok(()), budget::check)
}

/// A channel with what a login and a message on it need.
#[derive(Debug, Clone)]
pub struct Channel {
    pub name: ChannelName,
    /// The name of its product.
    pub product: ObjectName,
    pub product_key: ProductKey,
    pub mode: Mode,
    /// Items without a time get the time of their arrival.
    pub stamp_arrival: bool,
    pub conflict: ConflictPolicy,
    pub connections_max: Option<u32>,
    /// Sign methods that a login may not use.
    pub refuse: Vec<SignMethod>,
    pub error_budget: Option<ErrorBudget>,
    pub client_certificate: Option<CertificateRule>,
    pub quotas: Option<Quotas>,
    pub description: Option<String>,
    /// Lets nobody in.
    pub paused: bool,
    /// Takes nothing of whoever is in.
    pub held: Option<Held>,
    /// When it was made; part of its connection strings.
    pub created_ms: i64,
    pub(super) secret: Secret,
    pub(super) previous: Option<Previous>,
}

impl Channel {
    /// As it stands in an object file.
    pub fn file(&self) -> ChannelFile {
        ChannelFile {
            product: self.product.clone(),
            mode: self.mode,
            stamp_arrival: self.stamp_arrival,
            conflict: self.conflict,
            connections_max: self.connections_max,
            refuse: self.refuse.clone(),
            error_budget: self.error_budget,
            client_certificate: self.client_certificate.clone(),
            quotas: self.quotas,
            description: self.description.clone(),
        }
    }

    /// The secrets that log a client in at this moment: the own one, and after a rotation the one
    /// before until its overlap ends.
    pub fn secrets(&self, now_ms: i64) -> impl Iterator<Item = &Secret> {
        let previous = self
            .previous
            .as_ref()
            .filter(|old| now_ms < old.valid_until_ms);
        std::iter::once(&self.secret).chain(previous.map(|old| &old.secret))
    }

    /// The secret that new connection strings are made of.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Until when the secret before the last rotation logs in, if it does at this moment.
    pub fn previous_valid_until_ms(&self, now_ms: i64) -> Option<i64> {
        self.previous
            .as_ref()
            .map(|old| old.valid_until_ms)
            .filter(|until| now_ms < *until)
    }

    /// What pastes into an MQTT client.
    pub fn connection_strings(&self) -> ConnectionStrings {
        ConnectionStrings::new(&self.product_key, self.secret.text(), self.created_ms)
    }

    /// What a file does not say, as it is kept.
    pub(super) fn login_record(&self, seal: &Seal) -> String {
        let owner = self.name.as_str();
        let record = LoginRecord {
            created_ms: self.created_ms,
            paused: self.paused,
            held: self.held.clone(),
            secret: self.secret.record(owner, seal),
            previous: self.previous.as_ref().map(|old| old.record(owner, seal)),
        };
        serde_json::to_string(&record).expect("numbers and texts are JSON")
    }
}

/// Why nothing of a channel is taken until it is resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Milliseconds since 1970 UTC.
    pub since: i64,
    pub reason: String,
}

/// What signs a login.
#[derive(Debug, Clone)]
pub struct Secret {
    /// Unlike any other of the channel's, now or later.
    pub id: u64,
    text: SecretString,
}

impl Secret {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            text: secrets::channel_secret(),
        }
    }

    /// The secret itself: for the digest, and for administrators who ask.
    pub fn text(&self) -> &str {
        self.text.expose_secret()
    }

    pub(super) fn record(&self, owner: &str, seal: &Seal) -> SecretRecord {
        SecretRecord {
            id: self.id,
            sealed: seal.seal(owner, &self.text),
        }
    }

    pub(super) fn opened(
        record: &SecretRecord,
        owner: &str,
        seal: &Seal,
    ) -> Result<Self, SecretError> {
        let text = seal.unseal(owner, &record.sealed)?;
        Ok(Self {
            id: record.id,
            text,
        })
    }
}

/// The secret before the last rotation.
#[derive(Debug, Clone)]
pub(super) struct Previous {
    pub(super) secret: Secret,
    pub(super) valid_until_ms: i64,
}

impl Previous {
    pub(super) fn record(&self, owner: &str, seal: &Seal) -> PreviousRecord {
        PreviousRecord {
            secret: self.secret.record(owner, seal),
            valid_until_ms: self.valid_until_ms,
        }
    }

    pub(super) fn opened(
        record: &PreviousRecord,
        owner: &str,
        seal: &Seal,
    ) -> Result<Self, SecretError> {
        Ok(Self {
            secret: Secret::opened(&record.secret, owner, seal)?,
            valid_until_ms: record.valid_until_ms,
        })
    }
}

/// What a file does not say about a channel.
pub(super) struct Login {
    pub(super) created_ms: i64,
    pub(super) paused: bool,
    pub(super) held: Option<Held>,
    pub(super) secret: Secret,
    pub(super) previous: Option<Previous>,
}

/// [`Login`] at rest, secrets sealed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoginRecord {
    created_ms: i64,
    paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<Held>,
    secret: SecretRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<PreviousRecord>,
}

/// A secret at rest, sealed for its owner.
#[derive(Serialize, Deserialize)]
pub(super) struct SecretRecord {
    id: u64,
    sealed: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PreviousRecord {
    secret: SecretRecord,
    valid_until_ms: i64,
}

impl Login {
    pub(super) fn new(now_ms: i64) -> Self {
        Self {
            created_ms: now_ms,
            paused: false,
            held: None,
            secret: Secret::new(1),
            previous: None,
        }
    }

    pub(super) fn of(channel: &Channel) -> Self {
        Self {
            created_ms: channel.created_ms,
            paused: channel.paused,
            held: channel.held.clone(),
            secret: channel.secret.clone(),
            previous: channel.previous.clone(),
        }
    }

    pub(super) fn from_record(
        channel: &str,
        record: &str,
        seal: &Seal,
    ) -> Result<Self, SecretError> {
        let record: LoginRecord = sealed::read(channel, record)?;
        let previous = record
            .previous
            .map(|old| Previous::opened(&old, channel, seal));
        Ok(Self {
            created_ms: record.created_ms,
            paused: record.paused,
            held: record.held,
            secret: Secret::opened(&record.secret, channel, seal)?,
            previous: previous.transpose()?,
        })
    }
}
