//! How much a channel may bring in a second.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much a channel may bring in a second. Who brings more is slowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Quotas {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<NonZeroU32>,
    /// Values that are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points_per_second: Option<NonZeroU32>,
    /// Bytes of payload, as they arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU32>,
    /// A share of its own for recent data, so that a backlog does not hold it up. The numbers above
    /// are then those of the backlog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent: Option<RecentQuota>,
}

/// The share of messages whose values are all recent. Without a number they are never slowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RecentQuota {
    /// How old, at their arrival, recent values are at most.
    pub within_seconds: NonZeroU32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points_per_second: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU32>,
}

/// What one share allows in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    pub messages: Option<NonZeroU32>,
    pub points: Option<NonZeroU32>,
    pub bytes: Option<NonZeroU32>,
}

impl Quotas {
    pub fn rates(&self) -> Rates {
        Rates {
            messages: self.messages_per_second,
            points: self.points_per_second,
            bytes: self.bytes_per_second,
        }
    }
}

impl RecentQuota {
    pub fn rates(&self) -> Rates {
        Rates {
            messages: self.messages_per_second,
            points: self.points_per_second,
            bytes: self.bytes_per_second,
        }
    }
}
