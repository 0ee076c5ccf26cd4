//! Which entries are meant: what listings, discards and re-drives are asked for.

use serde::{Deserialize, Serialize};

use super::Id;

/// Which entries are meant; an empty field means all. Every condition that is there must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Filter {
    /// Only these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<Id>,
    /// Only what was refused for this cause, see [`super::Cause::id`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The client that sent it, such as `import:7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The code of the first reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Any of the refused items is about this device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Any of the refused items is about this point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// Wall time of arrival, milliseconds since 1970 UTC, inclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_ms: Option<i64>,
    /// Exclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_ms: Option<i64>,
}

impl Filter {
    /// Whether it means everything there is.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// Which of the entries that fit are listed, in order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only entries behind this one.
    pub after: Option<Id>,
    /// Only entries up to this one, itself included.
    pub upto: Option<Id>,
    pub limit: usize,
}

impl Page {
    pub fn first(limit: usize) -> Self {
        Self {
            after: None,
            upto: None,
            limit,
        }
    }
}
