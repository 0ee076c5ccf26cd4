//! The verdict on one message: a pure function of the message and what is declared.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use backtide_model::{
    ChannelName, Checked, Code, Compression, ConflictPolicy, Content, DeviceKey, Envelope, Fault,
    Kind, MessageId, Mode, Model, Oldest, Process, ProductKey, Rejection, Rules, TimeRule, Topic,
    check, open,
};
use backtide_store::{
    Commit, CommitError, Committed, Origin, Part, Redrive, Refused, RefusedItem, Store,
};
use bytes::Bytes;

use super::{
    payload::{InflateError, Oversize, Payload, plain, sha256},
    raw::{Decoded, Misread},
    reply::{Reply, Taken},
};
use crate::{
    limits::PAYLOAD_BYTES_MAX,
    policy::Pass,
    recorder::{Account, Message},
};

/// What a message is judged by: its channel and product as declared at this moment.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s> {
    pub(super) channel: &'s ChannelName,
    pub(super) product: &'s ProductKey,
    pub(super) model: &'s Model,
    /// The product's messages are JSON; else raw bytes for its script.
    pub(super) is_json: bool,
    pub(super) mode: Mode,
    /// An item without a time gets that of its arrival.
    pub(super) stamps_arrival: bool,
    pub(super) conflict: ConflictPolicy,
    /// What is too old to be stored.
    pub(super) oldest: Option<&'s Oldest>,
    /// What is done to values that fit the model.
    pub(super) policies: Option<&'s Pass<'s>>,
    /// Looks a device of the product up by its key.
    pub(super) find_device: &'s (dyn Fn(&str) -> Option<&'s DeviceKey> + Sync),
}

/// A message as it arrived.
#[derive(Debug, Clone)]
pub struct Uplink {
    pub topic: String,
    pub payload: Payload,
    /// Of a QoS 2 publish.
    pub packet_id: Option<NonZeroU16>,
    /// Its client keeps it until it is acknowledged: QoS 1 and 2.
    pub is_kept_by_client: bool,
    /// Of a message that was made of the rows of a file, the row that each item is, from 1. It is
    /// judged item by item, whatever the channel's mode: nobody chose which rows come together.
    pub rows: Option<Arc<[u64]>>,
}

/// Who sent it.
#[derive(Debug, Clone)]
pub struct Sender {
    pub client: Arc<str>,
    pub compression: Compression,
}

/// A message with its verdict, waiting to be made durable.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) origin: Origin,
    product: ProductKey,
    /// The refusal that this tries again.
    pub(super) redrive: Option<Redrive>,
    /// Moved out by [`Judged::commit`].
    content: Content,
    /// What goes to quarantine, if anything does.
    pub(super) refused: Option<Refused>,
    /// The payload as it arrived, or the beginning of one over the limit.
    payload: Bytes,
    /// What the payload is packed in.
    compression: Compression,
    pub(super) payload_bytes: u64,
    /// Items of the message, and those of them that are stored.
    pub(super) items: u32,
    pub(super) items_stored: u32,
    /// Values that are stored.
    pub(super) values: usize,
    /// Values that were not, because a policy says so.
    pub(super) reduced: u32,
    /// A script decoded it, or should have: its reply goes through that script too.
    pub(super) is_raw: bool,
    /// What that script made of it.
    pub(super) decoded: Option<Bytes>,
    /// How long the verdict took.
    pub(super) judge_time: Duration,
}

/// Why a whole message is refused.
struct Refusal {
    /// JSON text.
    id: String,
    code: Code,
    message: String,
    /// The version of the script that is to blame.
    script: Option<u32>,
}

/// Judges a message: may it be said here, what does it say, does it fit the model. `decoded` is what
/// the product's script made of a raw one.
pub(super) fn judge(
    scope: &Scope<'_>,
    sender: &Sender,
    uplink: &Uplink,
    decoded: Option<&Decoded>,
    arrived_ms: i64,
) -> Judged {
    let mode = match &uplink.rows {
        Some(_) => Mode::Lenient,
        None => scope.mode,
    };
    let scope = &Scope { mode, ..*scope };
    let mut judged = verdict(scope, sender, uplink, decoded, arrived_ms);
    if let (Some(rows), Some(refused)) = (&uplink.rows, &mut judged.refused) {
        name_rows(rows, refused);
    }
    Judged {
        is_raw: decoded.is_some(),
        compression: sender.compression,
        decoded: decoded.and_then(|decoded| decoded.as_ref().ok().cloned()),
        ..judged
    }
}

/// Says in each reason which row of its file it is about.
fn name_rows(rows: &[u64], refused: &mut Refused) {
    for item in &mut refused.items {
        let place = item
            .index
            .map_or(Some(0), |index| usize::try_from(index).ok());
        if let Some(row) = place.and_then(|place| rows.get(place)) {
            item.message = format!("row {row}: {}", item.message).into();
        }
    }
}

fn verdict(
    scope: &Scope<'_>,
    sender: &Sender,
    uplink: &Uplink,
    decoded: Option<&Decoded>,
    arrived_ms: i64,
) -> Judged {
    let origin = |id: &str| Origin {
        channel: scope.channel.clone(),
        client: sender.client.clone(),
        topic: uplink.topic.as_str().into(),
        message_id: id.into(),
        packet_id: uplink.packet_id,
        policies: None,
        arrived_ms,
    };
    let payload = match &uplink.payload {
        Payload::Whole(payload) => payload,
        Payload::Oversize(oversize) => {
            return refuse_oversize(scope, origin(MessageId::ABSENT.as_json()), oversize);
        }
        Payload::Unreadable(unreadable) => {
            let refusal = Refusal {
                id: absent(),
                code: unreadable.code,
                message: unreadable.reason.clone(),
                script: None,
            };
            return refuse_whole(scope, origin, &unreadable.raw, &unreadable.raw, refusal);
        }
    };
    let plain = match plain(payload, sender.compression, PAYLOAD_BYTES_MAX) {
        Ok(plain) => plain,
        Err(error) => {
            return refuse_whole(scope, origin, payload, payload, inflate_refusal(error));
        }
    };
    match read(scope, &uplink.topic, &plain, decoded, arrived_ms) {
        Ok((envelope, checked)) => settle(
            scope,
            origin(envelope.id.as_json()),
            payload,
            Source {
                plain: &plain,
                is_raw: decoded.is_some(),
            },
            envelope,
            checked,
        ),
        Err(refusal) => refuse_whole(scope, origin, payload, &plain, refusal),
    }
}

/// Authorize, decode, check: each step takes what the one before it made.
fn read<'p>(
    scope: &Scope<'_>,
    topic: &str,
    plain: &'p [u8],
    decoded: Option<&'p Decoded>,
    arrived_ms: i64,
) -> Result<(Envelope<'p>, Checked), Refusal> {
    let kind = authorize(scope, topic)?;
    let envelope = decode(scope, kind, plain, decoded)?;
    Ok((envelope, check_items(scope, &envelope, arrived_ms)))
}

/// May a client of this channel say this here (`decisions.md` §3)?
fn authorize(scope: &Scope<'_>, topic: &str) -> Result<Kind, Refusal> {
    let denied = |message| Refusal {
        id: absent(),
        code: Code::NoPermission,
        message,
        script: None,
    };
    let topic = Topic::parse(topic).map_err(|error| denied(error.to_string()))?;
    if topic.product != *scope.product {
        return Err(denied(format!(
            "channel {} may publish for product {} only",
            scope.channel, scope.product
        )));
    }
    Ok(topic.kind)
}

fn decode<'p>(
    scope: &Scope<'_>,
    kind: Kind,
    plain: &'p [u8],
    decoded: Option<&'p Decoded>,
) -> Result<Envelope<'p>, Refusal> {
    let undecodable = |message: &str| Refusal {
        id: absent(),
        code: Code::Undecodable,
        message: message.to_owned(),
        script: None,
    };
    let text = match kind {
        // Zero bytes are named as such before the format is looked at (mqtt-channel.md §4.2).
        _ if plain.is_empty() => plain,
        Kind::Raw if scope.is_json => {
            return Err(undecodable(
                "the product's format is json; publish envelopes, not raw data",
            ));
        }
        Kind::Raw => match decoded {
            Some(Ok(text)) => text,
            Some(Err(Misread { message, version })) => {
                return Err(Refusal {
                    script: Some(*version),
                    ..undecodable(message)
                });
            }
            None => {
                return Err(undecodable(
                    "script invocation error: the product has no data parsing script that is \
                     published",
                ));
            }
        },
        _ if !scope.is_json => {
            return Err(undecodable(
                "the product's format is custom; publish raw data",
            ));
        }
        Kind::Points | Kind::Events | Kind::Attributes => plain,
    };
    open(text, kind, scope.mode).map_err(|fault: Fault<'_>| Refusal {
        id: fault.id.as_json().to_owned(),
        code: fault.code,
        message: fault.message,
        script: None,
    })
}

fn check_items(scope: &Scope<'_>, envelope: &Envelope<'_>, arrived_ms: i64) -> Checked {
    let time = match scope.stamps_arrival {
        true => TimeRule::Arrival { now_ms: arrived_ms },
        false => TimeRule::Required,
    };
    let rules = Rules {
        model: scope.model,
        mode: scope.mode,
        time,
        conflict: scope.conflict,
        oldest: scope.oldest,
        policies: scope.policies.map(|pass| pass as &dyn Process),
    };
    check(envelope.items, envelope.params, &rules, scope.find_device)
}

fn absent() -> String {
    MessageId::ABSENT.as_json().to_owned()
}

fn inflate_refusal(error: InflateError) -> Refusal {
    let (code, message) = match error {
        InflateError::NotGzip(why) => (
            Code::Undecodable,
            format!("the client id announces compress=GZIP, but the payload is not: {why}"),
        ),
        InflateError::TooLarge => (
            Code::TooLarge,
            format!("the payload inflates to more than {PAYLOAD_BYTES_MAX} bytes"),
        ),
    };
    Refusal {
        id: absent(),
        code,
        message,
        script: None,
    }
}

/// What a checked message was read from.
#[derive(Clone, Copy)]
struct Source<'p> {
    plain: &'p [u8],
    is_raw: bool,
}

/// What is stored and what goes to quarantine of a message whose items were checked.
fn settle(
    scope: &Scope<'_>,
    origin: Origin,
    payload: &Bytes,
    source: Source<'_>,
    envelope: Envelope<'_>,
    checked: Checked,
) -> Judged {
    let code = checked.code();
    let values = checked.content.values();
    let refused = (code != Code::Ok).then(|| {
        let raw = match scope.mode {
            Mode::Strict => source.plain.into(),
            // A later script may read them otherwise: raw bytes stay whole.
            Mode::Lenient if source.is_raw => source.plain.into(),
            Mode::Lenient => bad_items_alone(&envelope, &checked.refused_params),
        };
        Refused {
            code,
            raw,
            payload_bytes: bytes_u64(payload),
            payload_sha256: sha256(payload),
            items: checked.rejections.into_iter().map(refused_item).collect(),
            more: checked.more,
        }
    });
    let items_stored = match (scope.mode, code) {
        (Mode::Strict, Code::Ok) | (Mode::Lenient, _) => checked.items_good,
        (Mode::Strict, _) => 0,
    };
    let processed = checked.processed;
    let policies = scope.policies.filter(|_| processed.is_touched);
    Judged {
        origin: Origin {
            policies: policies.map(|pass| pass.chain().revision()),
            ..origin
        },
        product: scope.product.clone(),
        redrive: None,
        content: checked.content,
        refused,
        payload: payload.clone(),
        payload_bytes: bytes_u64(payload),
        items: checked.items,
        items_stored,
        values,
        reduced: processed.reduced,
        is_raw: false,
        compression: Compression::None,
        decoded: None,
        judge_time: Duration::ZERO,
    }
}

/// An envelope with the refused items, so that a re-drive sends only those.
fn bad_items_alone(envelope: &Envelope<'_>, params: &str) -> Box<[u8]> {
    let (id, method) = (envelope.id.as_json(), envelope.items.method());
    format!("{{\"id\":{id},\"version\":\"1.0\",\"method\":\"{method}\",\"params\":{params}}}")
        .into_bytes()
        .into()
}

fn refused_item(rejection: Rejection) -> RefusedItem {
    RefusedItem {
        index: Some(rejection.index),
        device: rejection.device,
        point: rejection.point,
        script_version: None,
        code: rejection.code,
        message: rejection.message.into(),
    }
}

fn refuse_whole(
    scope: &Scope<'_>,
    origin: impl Fn(&str) -> Origin,
    payload: &Bytes,
    raw: &[u8],
    refusal: Refusal,
) -> Judged {
    let refused = Refused {
        code: refusal.code,
        raw: raw.into(),
        payload_bytes: bytes_u64(payload),
        payload_sha256: sha256(payload),
        items: vec![RefusedItem {
            script_version: refusal.script,
            ..whole_item(refusal.code, refusal.message)
        }],
        more: 0,
    };
    refused_message(scope, origin(&refusal.id), payload, refused)
}

fn refuse_oversize(scope: &Scope<'_>, origin: Origin, oversize: &Oversize) -> Judged {
    let message = format!(
        "the payload has {} bytes, at most {PAYLOAD_BYTES_MAX} are taken; send it in parts",
        oversize.bytes
    );
    let refused = Refused {
        code: Code::TooLarge,
        raw: oversize.head.as_ref().into(),
        payload_bytes: oversize.bytes,
        payload_sha256: oversize.sha256,
        items: vec![whole_item(Code::TooLarge, message)],
        more: 0,
    };
    refused_message(scope, origin, &oversize.head, refused)
}

fn refused_message(scope: &Scope<'_>, origin: Origin, payload: &Bytes, refused: Refused) -> Judged {
    Judged {
        payload: payload.clone(),
        payload_bytes: refused.payload_bytes,
        origin,
        product: scope.product.clone(),
        redrive: None,
        content: Content::default(),
        refused: Some(refused),
        items: 0,
        items_stored: 0,
        values: 0,
        reduced: 0,
        is_raw: false,
        compression: Compression::None,
        decoded: None,
        judge_time: Duration::ZERO,
    }
}

fn whole_item(code: Code, message: String) -> RefusedItem {
    RefusedItem {
        index: None,
        device: None,
        point: None,
        script_version: None,
        code,
        message: message.into(),
    }
}

fn bytes_u64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl Judged {
    pub(super) fn code(&self) -> Code {
        self.refused
            .as_ref()
            .map_or(Code::Ok, |refused| refused.code)
    }

    /// The oldest time of what it stores.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        match &self.content {
            Content::Points(batch) => batch.row_time.iter().min().copied(),
            Content::Events(occurrences) => occurrences.iter().map(|one| one.time_ms).min(),
            // Attributes have no time: they are of now.
            Content::Attributes(_) => None,
        }
    }

    /// What is to be made durable. The content is moved out, and the raw bytes of a refusal: a message
    /// is committed once, and its reply needs the reasons alone.
    pub(super) fn commit(&mut self) -> Commit {
        let content = std::mem::take(&mut self.content);
        let stored = (!content.is_empty()).then_some(match content {
            Content::Points(batch) => Part::Points(batch),
            Content::Events(occurrences) => Part::Events(occurrences),
            Content::Attributes(values) => Part::Attributes(values),
        });
        let refused = self.refused.as_mut().map(|refused| {
            let raw = std::mem::take(&mut refused.raw);
            Part::Refused(Refused {
                raw,
                ..refused.clone()
            })
        });
        Commit {
            origin: self.origin.clone(),
            product: self.product.clone(),
            parts: stored.into_iter().chain(refused).collect(),
            redrive: self.redrive,
        }
    }

    pub(super) fn in_time(mut self, judge_time: Duration) -> Self {
        self.judge_time = judge_time;
        self
    }

    /// What the flight recorder keeps of it. The payload is copied: the bytes it stands in are many
    /// times its own.
    pub(super) fn recording(&self, sender: &Sender, account: Account) -> Message {
        Message {
            time_ms: self.origin.arrived_ms,
            channel: self.origin.channel.clone(),
            client: Arc::clone(&self.origin.client),
            topic: Arc::clone(&self.origin.topic),
            payload: Bytes::copy_from_slice(&self.payload),
            payload_bytes: self.payload_bytes,
            compression: sender.compression,
            code: self.code().number(),
            account,
        }
    }

    /// The same message, as a further try of what was refused before.
    pub(super) fn redriven(mut self, redrive: Redrive) -> Self {
        self.redrive = Some(redrive);
        self
    }

    /// Why the store would not take it: a point is stored as another type.
    pub(super) fn clash(&self, store: &Store) -> Option<CommitError> {
        let Content::Points(batch) = &self.content else {
            return None;
        };
        batch.columns.iter().find_map(|column| {
            let given = column.values.storage();
            let stored = store.storage_of(&self.product, &column.point)?;
            (stored != given).then(|| CommitError::StorageChanged {
                product: self.product.clone(),
                point: column.point.as_str().into(),
                stored,
                given,
            })
        })
    }

    /// The same message with nothing stored of it, for a reason that its content does not have.
    pub(super) fn refuse(&mut self, code: Code, message: String) {
        // A quarantine keeps plain bytes. It was inflated before, so it is again.
        let raw = plain(&self.payload, self.compression, PAYLOAD_BYTES_MAX);
        let raw = raw.unwrap_or_else(|_| self.payload.clone());
        self.refused = Some(Refused {
            code,
            raw: raw.as_ref().into(),
            payload_sha256: sha256(&self.payload),
            payload_bytes: self.payload_bytes,
            items: vec![whole_item(code, message)],
            more: 0,
        });
        self.content = Content::default();
        self.items_stored = 0;
        self.values = 0;
        self.reduced = 0;
        self.origin.policies = None;
    }

    fn taken(&self) -> Taken {
        Taken {
            stored: self.items_stored,
            reduced: self.reduced,
        }
    }

    /// The answer, once the store has proved what it says.
    pub(super) fn reply(&self, proof: &Committed) -> Reply {
        let Origin {
            topic, message_id, ..
        } = &self.origin;
        match &self.refused {
            None => Reply::accepted(topic, message_id, self.reduced, proof),
            Some(refused) => Reply::refused(topic, message_id, self.taken(), refused, proof),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use backtide_model::Items;
    use serde_json::json;

    use super::*;
    use crate::ingest::payload::{Unreadable, packed};

    const POST: &str = "sys/PK/integration/measurepoint/post";

    /// Judges `payload` on `topic` by a small model; devices a and b are registered.
    fn judged(mode: Mode, is_json: bool, topic: &str, payload: &str) -> Judged {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        judged_of(Compression::None, mode, is_json, topic, payload)
    }

    fn judged_of(
        compression: Compression,
        mode: Mode,
        is_json: bool,
        topic: &str,
        payload: Bytes,
    ) -> Judged {
        let payload = Payload::Whole(payload);
        judged_uplink(compression, mode, is_json, &uplink(topic, payload, None))
    }

    fn judged_as(mode: Mode, payload: Payload, rows: Option<Arc<[u64]>>) -> Judged {
        judged_uplink(Compression::None, mode, true, &uplink(POST, payload, rows))
    }

    fn uplink(topic: &str, payload: Payload, rows: Option<Arc<[u64]>>) -> Uplink {
        Uplink {
            is_kept_by_client: true,
            topic: topic.to_owned(),
            payload,
            packet_id: None,
            rows,
        }
    }

    fn judged_uplink(
        compression: Compression,
        mode: Mode,
        is_json: bool,
        uplink: &Uplink,
    ) -> Judged {
        let devices: BTreeSet<DeviceKey> = ["a", "b"]
            .into_iter()
            .map(|key| DeviceKey::new(key).unwrap())
            .collect();
        let model = json!({
            "measurepoints": { "P": { "type": "double" } },
            "events": { "leak": { "output": { "litres": { "type": "double" } } } },
            "attributes": { "serial": { "type": "string" } },
        });
        let scope = Scope {
            channel: &ChannelName::new("history").unwrap(),
            product: &ProductKey::new("PK").unwrap(),
            model: &serde_json::from_value(model).unwrap(),
            is_json,
            mode,
            stamps_arrival: false,
            conflict: ConflictPolicy::KeepLast,
            oldest: None,
            policies: None,
            find_device: &|key| devices.get(key),
        };
        let sender = Sender {
            client: "client".into(),
            compression,
        };
        judge(&scope, &sender, uplink, None, 5)
    }

    #[test]
    fn rows_of_a_file_are_judged_one_by_one_and_named() {
        let payload = post(
            r#"[{"row":5,"deviceKey":"a","time":1,"measurepoints":{"P":1}},
                {"row":9,"deviceKey":"c","time":1,"measurepoints":{"P":1}}]"#,
        );
        let rows: Arc<[u64]> = [5, 9].into();
        let file = judged_as(
            Mode::Strict,
            Payload::Whole(payload.into()),
            Some(Arc::clone(&rows)),
        );
        assert_eq!((file.code(), file.items_stored), (Code::UnknownDevice, 1));
        let refused = file.refused.unwrap();
        assert!(
            refused.items[0].message.starts_with("row 9: "),
            "{:?}",
            refused.items
        );
        assert!(String::from_utf8_lossy(&refused.raw).contains(r#""row":9"#));
        assert!(!String::from_utf8_lossy(&refused.raw).contains(r#""row":5"#));
        let unreadable = Unreadable {
            raw: Bytes::from_static(b"a,noon,1"),
            code: Code::Malformed,
            reason: "\"noon\" is no time".to_owned(),
        };
        let kept = judged_as(Mode::Strict, Payload::Unreadable(unreadable), Some(rows));
        let refused = kept.refused.unwrap();
        assert_eq!(
            (refused.code, refused.raw.as_ref()),
            (Code::Malformed, &b"a,noon,1"[..])
        );
        assert_eq!(
            refused.items[0].message.as_ref(),
            "row 5: \"noon\" is no time"
        );
    }

    fn post(params: &str) -> String {
        post_of(Items::Points, params)
    }

    fn post_of(items: Items, params: &str) -> String {
        let method = items.method();
        format!(r#"{{"id":"7","version":"1.0","method":"{method}","params":{params}}}"#)
    }

    #[test]
    fn a_good_message_is_stored_whole() {
        let payload = post(r#"[{"deviceKey":"a","time":1,"measurepoints":{"P":1}}]"#);
        let mut judged = judged(Mode::Strict, true, POST, &payload);
        assert_eq!(
            (judged.code(), judged.items, judged.items_stored),
            (Code::Ok, 1, 1)
        );
        assert!(matches!(
            judged.commit().parts.as_slice(),
            [Part::Points(_)]
        ));
        assert_eq!(judged.origin.message_id.as_ref(), "\"7\"");
    }

    #[test]
    fn an_empty_message_is_fine_and_stores_nothing() {
        let mut judged = judged(Mode::Strict, true, POST, &post("[]"));
        assert_eq!((judged.code(), judged.commit().parts.len()), (Code::Ok, 0));
    }

    #[test]
    fn strict_quarantines_the_payload_and_lenient_the_bad_items_alone() {
        let payload = post(
            r#"[{"deviceKey":"a","time":1,"measurepoints":{"P":1}},{"deviceKey":"c","time":1}]"#,
        );
        let strict = judged(Mode::Strict, true, POST, &payload);
        assert_eq!(
            (strict.code(), strict.items_stored),
            (Code::UnknownDevice, 0)
        );
        assert_eq!(
            strict.refused.as_ref().unwrap().raw.as_ref(),
            payload.as_bytes()
        );
        let mut lenient = judged(Mode::Lenient, true, POST, &payload);
        assert_eq!(
            (lenient.code(), lenient.items_stored),
            (Code::UnknownDevice, 1)
        );
        let alone = post(r#"[{"deviceKey":"c","time":1}]"#);
        assert_eq!(
            lenient.refused.as_ref().unwrap().raw.as_ref(),
            alone.as_bytes()
        );
        let parts = lenient.commit().parts;
        let [Part::Points(_), Part::Refused(kept)] = parts.as_slice() else {
            unreachable!("{parts:?}")
        };
        assert_eq!(kept.raw.as_ref(), alone.as_bytes());
        assert_eq!(
            lenient.refused.as_ref().unwrap().payload_sha256,
            sha256(payload.as_bytes())
        );
    }

    #[test]
    fn events_and_attributes_are_stored_as_parts_of_their_own() {
        let event = post_of(
            Items::Events,
            r#"[{"deviceKey":"a","time":1,"events":{"leak":{"litres":4}}}]"#,
        );
        let attribute = post_of(
            Items::Attributes,
            r#"[{"deviceKey":"a","attributes":{"serial":"A-1"}}]"#,
        );
        let parts = |path: &str, payload: &str| {
            let topic = format!("sys/PK/integration/{path}");
            let mut judged = judged(Mode::Strict, true, &topic, payload);
            assert_eq!((judged.code(), judged.values), (Code::Ok, 1), "{path}");
            judged.commit().parts
        };
        assert!(matches!(
            parts("event/post", &event).as_slice(),
            [Part::Events(_)]
        ));
        for path in ["attribute/post", "attributes/post"] {
            let parts = parts(path, &attribute);
            assert!(matches!(parts.as_slice(), [Part::Attributes(_)]));
        }
    }

    #[test]
    fn bad_items_are_kept_alone_under_the_method_of_their_kind() {
        let bad = r#"[{"deviceKey":"a","attributes":{"x":1}}]"#;
        let payload = post_of(
            Items::Attributes,
            r#"[{"deviceKey":"b","attributes":{"serial":"B"}},{"deviceKey":"a","attributes":{"x":1}}]"#,
        );
        let topic = "sys/PK/integration/attribute/post";
        let judged = judged(Mode::Lenient, true, topic, &payload);
        assert_eq!(
            (judged.code(), judged.items_stored),
            (Code::ModelMismatch, 1)
        );
        assert_eq!(
            judged.refused.as_ref().unwrap().raw.as_ref(),
            post_of(Items::Attributes, bad).as_bytes()
        );
    }

    #[test]
    fn a_client_may_publish_for_its_own_product_only() {
        for topic in [
            "sys/OTHER/integration/measurepoint/post",
            "a/b",
            "sys/PK/x/y/z",
        ] {
            let judged = judged(Mode::Strict, true, topic, &post("[]"));
            assert_eq!(judged.code(), Code::NoPermission, "{topic}");
        }
    }

    #[test]
    fn the_format_of_the_product_decides_between_json_and_raw() {
        let raw = "/sys/PK/integration/model/up_raw";
        assert_eq!(
            judged(Mode::Strict, true, raw, "x").code(),
            Code::Undecodable
        );
        assert_eq!(
            judged(Mode::Strict, false, raw, "x").code(),
            Code::Undecodable
        );
        assert_eq!(
            judged(Mode::Strict, false, POST, &post("[]")).code(),
            Code::Undecodable
        );
        assert_eq!(judged(Mode::Strict, false, raw, "").code(), Code::Empty);
    }

    #[test]
    fn what_the_store_refuses_keeps_its_bytes() {
        let payload = post(r#"[{"deviceKey":"a","time":1,"measurepoints":{"P":1}}]"#);
        let mut judged = judged(Mode::Strict, true, POST, &payload);
        judged.refuse(Code::ModelMismatch, "P is stored as int".to_owned());
        assert_eq!(
            (judged.code(), judged.items_stored),
            (Code::ModelMismatch, 0)
        );
        assert_eq!(
            judged.refused.as_ref().unwrap().raw.as_ref(),
            payload.as_bytes()
        );
    }

    #[test]
    fn what_the_store_refuses_of_a_compressed_session_is_kept_plain() {
        let payload = post(r#"[{"deviceKey":"a","time":1,"measurepoints":{"P":1}}]"#);
        let arrived = packed(payload.clone().into_bytes(), Compression::Gzip);
        let gzip = Compression::Gzip;
        let mut judged = judged_of(gzip, Mode::Strict, true, POST, arrived.clone());
        assert_eq!(judged.code(), Code::Ok);
        judged.refuse(Code::ModelMismatch, "P is stored as int".to_owned());
        let refused = judged.refused.unwrap();
        assert_eq!(refused.raw.as_ref(), payload.as_bytes());
        assert_eq!(refused.payload_sha256, sha256(&arrived));
    }
}
