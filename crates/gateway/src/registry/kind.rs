//! The kinds of declared objects.

use std::fmt;

use super::records::Collection;

/// A kind of declared object, in the order in which they build on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    #[value(alias = "models", alias = "Model")]
    Model,
    #[value(alias = "products", alias = "Product")]
    Product,
    #[value(alias = "devices", alias = "Device")]
    Device,
    #[value(alias = "channels", alias = "Channel")]
    Channel,
    #[value(alias = "scripts", alias = "Script")]
    Script,
    #[value(alias = "access-keys", alias = "AccessKey")]
    AccessKey,
    #[value(alias = "subscriptions", alias = "Subscription")]
    Subscription,
    #[value(alias = "policies", alias = "Policy")]
    Policy,
    #[value(alias = "rules", alias = "Rule")]
    Rule,
    #[value(alias = "archives", alias = "Archive")]
    Archive,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::Model,
        Self::Product,
        Self::Device,
        Self::Channel,
        Self::Script,
        Self::AccessKey,
        Self::Subscription,
        Self::Policy,
        Self::Rule,
        Self::Archive,
    ];

    /// The word of `kind:` in an object file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Model => "Model",
            Self::Product => "Product",
            Self::Device => "Device",
            Self::Channel => "Channel",
            Self::Script => "Script",
            Self::AccessKey => "AccessKey",
            Self::Subscription => "Subscription",
            Self::Policy => "Policy",
            Self::Rule => "Rule",
            Self::Archive => "Archive",
        }
    }

    /// The kind in lower case, as messages and records name it.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Product => "product",
            Self::Device => "device",
            Self::Channel => "channel",
            Self::Script => "script",
            Self::AccessKey => "access key",
            Self::Subscription => "subscription",
            Self::Policy => "policy",
            Self::Rule => "rule",
            Self::Archive => "archive",
        }
    }

    /// The resource under `/api/v1`.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Product => "products",
            Self::Device => "devices",
            Self::Channel => "channels",
            Self::Script => "scripts",
            Self::AccessKey => "access-keys",
            Self::Subscription => "subscriptions",
            Self::Policy => "policies",
            Self::Rule => "rules",
            Self::Archive => "archives",
        }
    }

    pub(super) const fn collection(self) -> Collection {
        match self {
            Self::Model => Collection::Model,
            Self::Product => Collection::Product,
            Self::Device => Collection::Device,
            Self::Channel => Collection::Channel,
            Self::Script => Collection::Script,
            Self::AccessKey => Collection::AccessKey,
            Self::Subscription => Collection::Subscription,
            Self::Policy => Collection::Policy,
            Self::Rule => Collection::Rule,
            Self::Archive => Collection::Archive,
        }
    }

    /// The members that a table of this kind shows.
    pub const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Model => &["name", "description"],
            Self::Product => &["name", "key", "model", "format"],
            Self::Device => &["name", "product", "key", "assetId", "timezone"],
            Self::Channel => &["name", "product", "mode", "description"],
            Self::Script => &["name", "product", "dialect", "description"],
            Self::AccessKey => &["name", "key", "description"],
            Self::Subscription => &["name", "type", "accessKey", "partitions", "retentionHours"],
            Self::Policy => &["name", "order", "models", "products", "channels"],
            Self::Rule => &["name", "description"],
            Self::Archive => &["name", "products", "format", "form", "description"],
        }
    }

    /// Reads the word of `kind:`.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.singular())
    }
}
