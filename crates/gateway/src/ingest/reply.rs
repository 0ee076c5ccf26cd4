//! The only builder of replies (`mqtt-channel.md` §3.1, `decisions.md` §4).
//!
//! A reply takes the store's proof: for what is stored and for what is refused alike, since a
//! refusal is answered only once it is durably in quarantine.

use backtide_model::{Code, MessageId, Topic};
use backtide_store::{Committed, Refused, RefusedItem};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::limits::{REPLY_MESSAGE_CHARS_MAX, REPLY_REJECTED_MAX};

/// A reply, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) topic: String,
    /// JSON.
    pub(super) payload: Vec<u8>,
}

/// What became of the part of a message that is not refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Items that are stored.
    pub(super) stored: u32,
    /// Values of them that a policy dropped.
    pub(super) reduced: u32,
}

#[derive(Serialize)]
struct Body<'a> {
    id: &'a RawValue,
    code: Code,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    data: Data<'a>,
}

#[derive(Serialize, Default)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<u32>,
    /// Values that a policy dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    reduced: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<RejectedItem<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RejectedItem<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    point: Option<&'a str>,
    code: Code,
    message: String,
}

impl Reply {
    /// Everything is stored, but for `reduced` values that a policy dropped.
    pub(super) fn accepted(request_topic: &str, id: &str, reduced: u32, proof: &Committed) -> Self {
        let data = match reduced {
            0 => Data::default(),
            _ => Data {
                reduced: Some(reduced),
                receipt: Some(proof.receipt().to_string()),
                ..Data::default()
            },
        };
        Self::new(request_topic, id, Code::Ok, None, data)
    }

    /// Something is refused and in quarantine; the rest is taken.
    pub(super) fn refused(
        request_topic: &str,
        id: &str,
        taken: Taken,
        refused: &Refused,
        proof: &Committed,
    ) -> Self {
        let shown = refused.items.iter().take(REPLY_REJECTED_MAX);
        let hidden = refused.items.len().saturating_sub(REPLY_REJECTED_MAX);
        let data = Data {
            stored: Some(taken.stored),
            reduced: Some(taken.reduced).filter(|reduced| *reduced > 0),
            rejected: shown.map(rejected_item).collect(),
            more: Some(u64::from(refused.more) + u64::try_from(hidden).unwrap_or(u64::MAX)),
            receipt: Some(proof.receipt().to_string()),
        };
        let first = refused
            .items
            .first()
            .map_or("", |item| item.message.as_ref());
        Self::new(request_topic, id, refused.code, Some(clipped(first)), data)
    }

    fn new(
        request_topic: &str,
        id: &str,
        code: Code,
        message: Option<String>,
        data: Data<'_>,
    ) -> Self {
        let absent = || {
            RawValue::from_string(MessageId::ABSENT.as_json().to_owned())
                .expect("an empty string is JSON")
        };
        let id = RawValue::from_string(id.to_owned()).unwrap_or_else(|_| absent());
        let body = Body {
            id: &id,
            code,
            message,
            data,
        };
        Self {
            topic: Topic::reply(request_topic),
            payload: serde_json::to_vec(&body).expect("a reply has only string keys"),
        }
    }
}

fn rejected_item(item: &RefusedItem) -> RejectedItem<'_> {
    RejectedItem {
        index: item.index,
        device_key: item.device.as_deref(),
        point: item.point.as_deref(),
        code: item.code,
        message: clipped(&item.message),
    }
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(REPLY_MESSAGE_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
