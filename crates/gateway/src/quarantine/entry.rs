//! A refused message as it is listed, shown and exported.

use std::fmt;

use backtide_store::{Followed, Redrive, Refused, Sequence};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};

/// Names an entry: the sequence of its commit, and the part of it where that has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub(super) sequence: i64,
    pub(super) part: i64,
}

impl Id {
    pub fn parse(text: &str) -> Option<Self> {
        let (sequence, part) = text.split_once('.').unwrap_or((text, "0"));
        Some(Self {
            sequence: sequence.parse().ok()?,
            part: part.parse().ok()?,
        })
    }

    pub(super) fn again(redrive: Redrive) -> Option<Self> {
        Some(Self {
            sequence: i64::try_from(redrive.order.0).ok()?,
            part: i64::from(redrive.part),
        })
    }

    /// A try of the refusal in the log that the entry stands for; `None` where no commit can have
    /// this id.
    pub fn redrive(self, tried_ms: i64) -> Option<Redrive> {
        Some(Redrive {
            order: Sequence(u64::try_from(self.sequence).ok()?),
            part: u32::try_from(self.part).ok()?,
            tried_ms,
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            0 => write!(f, "{}", self.sequence),
            part => write!(f, "{}.{part}", self.sequence),
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is no entry's id")))
    }
}

/// One reason, with its subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Place in `params`; absent where the whole message is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_key: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<Box<str>>,
    /// The version of the script that could not decode the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_version: Option<u32>,
    pub code: u16,
    pub message: Box<str>,
}

/// A refused message, or the refused items of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: Id,
    /// Wall time of arrival, milliseconds since 1970 UTC.
    pub time_ms: i64,
    pub channel: String,
    pub client: String,
    pub topic: String,
    pub product: String,
    pub code: u16,
    /// Of the message as it arrived.
    pub payload_bytes: u64,
    pub payload_sha256: Vec<u8>,
    /// The payload was over the limit: only its beginning is kept.
    pub is_truncated: bool,
    pub items: Vec<Item>,
    /// Refusals beyond `items`, which is capped.
    pub more: u32,
    /// Its cause, see [`Cause::id`]; 0 until it is written down.
    pub cause: i64,
    /// How often it was tried again, and when last.
    pub attempts: u32,
    pub tried_ms: Option<i64>,
}

/// The code of a payload over the limit.
const TOO_LARGE: u16 = backtide_model::Code::TooLarge.number();

impl Entry {
    pub(super) fn new(id: Id, followed: &Followed, refused: &Refused) -> Self {
        let origin = &followed.commit.origin;
        let items = refused.items.iter().map(|item| Item {
            index: item.index,
            device_key: item.device.clone(),
            point: item.point.clone(),
            script_version: item.script_version,
            code: item.code.number(),
            message: item.message.clone(),
        });
        Self {
            id,
            time_ms: origin.arrived_ms,
            channel: origin.channel.to_string(),
            client: origin.client.to_string(),
            topic: origin.topic.to_string(),
            product: followed.commit.product.to_string(),
            code: refused.code.number(),
            payload_bytes: refused.payload_bytes,
            payload_sha256: refused.payload_sha256.to_vec(),
            is_truncated: refused.code.number() == TOO_LARGE,
            items: items.collect(),
            more: refused.more,
            cause: 0,
            attempts: 0,
            tried_ms: None,
        }
    }

    /// The device that the first reason is about.
    pub fn device(&self) -> Option<&str> {
        self.items.first()?.device_key.as_deref()
    }

    /// The point that the first reason is about.
    pub fn point(&self) -> Option<&str> {
        self.items.first()?.point.as_deref()
    }

    /// Why it was refused: its first reason.
    pub fn reason(&self) -> &str {
        self.items.first().map_or("", |item| &item.message)
    }

    fn members<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("time", &self.time_ms)?;
        map.serialize_entry("channel", &self.channel)?;
        map.serialize_entry("clientId", &self.client)?;
        map.serialize_entry("topic", &self.topic)?;
        map.serialize_entry("productKey", &self.product)?;
        map.serialize_entry("bytes", &self.payload_bytes)?;
        map.serialize_entry("sha256", &hex::encode(&self.payload_sha256))?;
        map.serialize_entry("truncated", &self.is_truncated)?;
        map.serialize_entry("code", &self.code)?;
        map.serialize_entry("reason", self.reason())?;
        map.serialize_entry("subject", &Subject(self.items.first()))?;
        map.serialize_entry("rejected", &self.items)?;
        map.serialize_entry("more", &self.more)?;
        map.serialize_entry("cause", &self.cause)?;
        map.serialize_entry("attempts", &self.attempts)?;
        match self.tried_ms {
            Some(tried_ms) => map.serialize_entry("lastAttempt", &tried_ms),
            None => Ok(()),
        }
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.members(&mut map)?;
        map.end()
    }
}

/// What the first reason is about; nothing where it is the message itself.
struct Subject<'a>(Option<&'a Item>);

impl Serialize for Subject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(item) = self.0 {
            if let Some(index) = item.index {
                map.serialize_entry("index", &index)?;
            }
            if let Some(device_key) = &item.device_key {
                map.serialize_entry("deviceKey", device_key)?;
            }
            if let Some(point) = &item.point {
                map.serialize_entry("point", point)?;
            }
            if let Some(version) = item.script_version {
                map.serialize_entry("scriptVersion", &version)?;
            }
        }
        map.end()
    }
}

/// The bytes that were refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

/// An entry with its bytes: as text where they are UTF-8, and as base64 always.
pub struct Shown<'a>(pub &'a Entry, pub &'a Payload);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(entry, Payload(bytes)) = self;
        let mut map = serializer.serialize_map(None)?;
        entry.members(&mut map)?;
        if let Ok(text) = std::str::from_utf8(bytes) {
            map.serialize_entry("payload", text)?;
        }
        map.serialize_entry("payloadBase64", &BASE64_STANDARD.encode(bytes))?;
        map.end()
    }
}

/// Entries that were refused for the same code and subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// Names it; a cause that has no entries for a while comes back under another number.
    pub id: i64,
    pub channel: String,
    pub product_key: String,
    pub code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    pub entries: u64,
    /// Wall times of the first and the last of them.
    pub first: i64,
    pub last: i64,
    /// The latest entry, and its reason.
    pub example: Id,
    pub reason: String,
}
