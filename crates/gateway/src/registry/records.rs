//! How the registry is kept: records in collections, changed in transactions. The seam behind which
//! another database can stand; SQLite is in [`super::sqlite`].

/// What a record is about. The names are part of the database's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Collection {
    Model,
    Product,
    Device,
    Channel,
    /// What is not declared about a channel; secrets are sealed.
    Login,
    /// The asset id of a deleted device.
    RetiredAsset,
    /// Whose script it is, and which version runs.
    Script,
    /// Owned by its script, named by its number.
    ScriptVersion,
    ScriptDraft,
    /// Owned by its script.
    ScriptSample,
    AccessKey,
    /// What is not declared about an access key; secrets are sealed.
    Credential,
    Subscription,
    /// What is not declared about a subscription.
    SubscriptionState,
    Policy,
    /// Owned by its policy, named by the revision from which on it said this.
    PolicyRevision,
    Rule,
    /// What is not declared about a rule; secrets are sealed.
    RuleState,
    Archive,
    /// What is not declared about an archive; secrets are sealed.
    ArchiveState,
    /// What the gateway made by itself, once: deleted, it stays so.
    Made,
}

impl Collection {
    pub const ALL: [Self; 21] = [
        Self::Model,
        Self::Product,
        Self::Device,
        Self::Channel,
        Self::Login,
        Self::RetiredAsset,
        Self::Script,
        Self::ScriptVersion,
        Self::ScriptDraft,
        Self::ScriptSample,
        Self::AccessKey,
        Self::Credential,
        Self::Subscription,
        Self::SubscriptionState,
        Self::Policy,
        Self::PolicyRevision,
        Self::Rule,
        Self::RuleState,
        Self::Archive,
        Self::ArchiveState,
        Self::Made,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Product => "product",
            Self::Device => "device",
            Self::Channel => "channel",
            Self::Login => "login",
            Self::RetiredAsset => "retired-asset",
            Self::Script => "script",
            Self::ScriptVersion => "script-version",
            Self::ScriptDraft => "script-draft",
            Self::ScriptSample => "script-sample",
            Self::AccessKey => "access-key",
            Self::Credential => "credential",
            Self::Subscription => "subscription",
            Self::SubscriptionState => "subscription-state",
            Self::Policy => "policy",
            Self::PolicyRevision => "policy-revision",
            Self::Rule => "rule",
            Self::RuleState => "rule-state",
            Self::Archive => "archive",
            Self::ArchiveState => "archive-state",
            Self::Made => "made",
        }
    }

    /// Whether a change of it is somebody's: these only follow from another record's.
    pub const fn is_told(self) -> bool {
        !matches!(self, Self::Made | Self::PolicyRevision)
    }
}

/// Names a record: `owner` is the product of a device, the script of a version or sample, the policy of a
/// revision, else empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordKey {
    pub collection: Collection,
    pub owner: String,
    pub name: String,
}

/// A record; `body` is JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: RecordKey,
    pub body: String,
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds the record, or replaces it.
    Put(Record),
    Remove(RecordKey),
}

/// Why records could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    #[error("registry database {database}: {reason}")]
    Failed { database: String, reason: String },
    #[error("registry database {database} has format {found}, this gateway reads {expected}")]
    Format {
        database: String,
        found: i64,
        expected: i64,
    },
}

/// A database of records. One caller at a time; nobody else writes.
pub trait Records: Send {
    /// Every record.
    ///
    /// # Errors
    /// [`RecordsError`].
    fn load(&mut self) -> Result<Vec<Record>, RecordsError>;

    /// The body of a record, if there is such a one.
    ///
    /// # Errors
    /// [`RecordsError`].
    fn body(&mut self, key: &RecordKey) -> Result<Option<String>, RecordsError>;

    /// Makes all changes in one transaction, in order, durable when it returns.
    ///
    /// # Errors
    /// [`RecordsError`]: then none of them is made.
    fn commit(&mut self, changes: &[Change]) -> Result<(), RecordsError>;
}
