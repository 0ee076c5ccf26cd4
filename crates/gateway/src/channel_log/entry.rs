//! One line of the channel log: how it is noted, stored and shown.

use std::sync::Arc;

use backtide_model::ChannelName;
use serde::{Deserialize, Serialize};

/// Something that happened on a channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Wall time, milliseconds since 1970 UTC.
    #[serde(rename = "time")]
    pub time_ms: i64,
    pub channel: ChannelName,
    /// The MQTT client id; empty where it is not known.
    #[serde(rename = "clientId")]
    pub client: Arc<str>,
    #[serde(flatten)]
    pub what: What,
}

/// What happened. The names of variants and fields are those of the API and of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum What {
    Connect {
        remote: Box<str>,
        /// `3.1.1` or `5.0`.
        protocol: Box<str>,
    },
    Disconnect {
        /// Free text, never empty.
        reason: Box<str>,
    },
    /// A message that was answered.
    Transmission {
        topic: Arc<str>,
        bytes: u64,
        /// Entries of `params`.
        items: u64,
        /// Values that a policy dropped.
        #[serde(default, skip_serializing_if = "is_zero")]
        reduced: u64,
        code: u16,
        /// From the last byte's arrival to the answer.
        ms: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<Box<str>>,
    },
    Error {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic: Option<Arc<str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        message: Box<str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device_key: Option<Box<str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        point: Option<Box<str>>,
    },
    /// Something that a person or the gateway itself did to the channel or to what came by it.
    Audit { message: Box<str> },
    /// Entries that the log had no room to take.
    Dropped { entries: u64, message: Box<str> },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl What {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connect { .. } => Kind::Connect,
            Self::Disconnect { .. } => Kind::Disconnect,
            Self::Transmission { .. } => Kind::Transmission,
            Self::Error { .. } => Kind::Error,
            Self::Audit { .. } => Kind::Audit,
            Self::Dropped { .. } => Kind::Dropped,
        }
    }

    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Transmission { code, .. } => Some(*code),
            Self::Error { code, .. } => *code,
            Self::Connect { .. }
            | Self::Disconnect { .. }
            | Self::Audit { .. }
            | Self::Dropped { .. } => None,
        }
    }
}

/// What a reader can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Connect,
    Disconnect,
    Transmission,
    Error,
    Audit,
    Dropped,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Connect,
        Self::Disconnect,
        Self::Transmission,
        Self::Error,
        Self::Audit,
        Self::Dropped,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::Transmission => "transmission",
            Self::Error => "error",
            Self::Audit => "audit",
            Self::Dropped => "dropped",
        }
    }

    /// The kinds behind a word of a filter; `connection` means both of its ends.
    pub fn parse(word: &str) -> Option<Vec<Self>> {
        if word == "connection" {
            return Some(vec![Self::Connect, Self::Disconnect]);
        }
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == word)
            .map(|kind| vec![kind])
    }
}

/// An entry with its place in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Ascending, never used twice.
    pub id: i64,
    #[serde(flatten)]
    pub entry: Entry,
}
