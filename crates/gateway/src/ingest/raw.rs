//! Raw messages: decoded by the product's script before they are judged, answered through its
//! encoder once they are durable (`mqtt-channel.md` §5).

use std::sync::Arc;

use backtide_model::{Compression, Kind, MessageId, Topic};
use backtide_store::Committed;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::{Ingest, NotTaken, Payload, Uplink, judge::Judged, payload::plain};
use crate::{
    channel_log::{Entry, What},
    limits::PAYLOAD_BYTES_MAX,
    registry::{Product, ScriptVersion},
    script::{Call, Cause, Detail, Operation},
};

/// What the script of a product made of raw bytes: the text of an envelope.
pub type Decoded = Result<Bytes, Misread>;

/// Why a script made nothing of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misread {
    /// Names the script, its version, line and column.
    pub message: String,
    pub version: u32,
}

impl Ingest {
    /// What the product's script, as it is now, makes of raw bytes that arrived at given times
    /// (milliseconds since 1970 UTC). `None` where the product has no published script.
    ///
    /// # Errors
    /// [`NotTaken::NoScriptWorker`]: nothing was tried.
    pub async fn decode_raw(
        &self,
        product: &Product,
        messages: Vec<(Bytes, i64)>,
    ) -> Result<Option<Vec<Decoded>>, NotTaken> {
        let Some(script) = product.live_script() else {
            return Ok(None);
        };
        let calls = messages.into_iter().map(|(input, time_ms)| Call {
            operation: Operation::Decode,
            input,
            time_ms,
        });
        let done = self
            .scripts
            .run(&script.program, calls.collect(), Detail::Outcome)
            .await;
        let mut decoded = Vec::with_capacity(done.len());
        for done in done {
            decoded.push(match done.outcome {
                Ok(text) => Ok(text),
                Err(failure) if failure.cause == Cause::Unavailable => {
                    return Err(NotTaken::NoScriptWorker(failure.message));
                }
                Err(failure) => Err(Misread {
                    message: format!(
                        "script invocation error: {}, {failure}",
                        script.program.label()
                    ),
                    version: script.number.unwrap_or_default(),
                }),
            });
        }
        Ok(Some(decoded))
    }

    /// What the script makes of the raw messages of a burst; `None` for all others.
    pub(super) async fn decode_burst(
        &self,
        product: &Product,
        compression: Compression,
        burst: &[Uplink],
        arrived_ms: i64,
    ) -> Result<Vec<Option<Decoded>>, NotTaken> {
        let mut all: Vec<Option<Decoded>> = vec![None; burst.len()];
        if product.is_json() || product.live_script().is_none() {
            return Ok(all);
        }
        let (mut places, mut messages) = (Vec::new(), Vec::new());
        for (place, uplink) in burst.iter().enumerate() {
            if let Some(bytes) = raw_bytes(product, compression, uplink) {
                places.push(place);
                messages.push((bytes, arrived_ms));
            }
        }
        if messages.is_empty() {
            return Ok(all);
        }
        let decoded = self.decode_raw(product, messages).await?;
        for (place, decoded) in places.into_iter().zip(decoded.into_iter().flatten()) {
            all[place] = Some(decoded);
        }
        Ok(all)
    }

    /// The replies to raw messages as the script writes them; `None` where JSON text is sent.
    pub(super) async fn encode_replies(
        &self,
        product: &Product,
        judged: &[Judged],
        proofs: &[Committed],
    ) -> Vec<Option<Bytes>> {
        let mut replies = vec![None; judged.len()];
        let Some(script) = product
            .live_script()
            .filter(|script| script.program.encodes_replies())
        else {
            return replies;
        };
        let places: Vec<usize> = (0..judged.len().min(proofs.len()))
            .filter(|place| judged[*place].is_raw)
            .collect();
        if places.is_empty() {
            return replies;
        }
        let calls = places.iter().map(|place| Call {
            operation: Operation::Encode,
            input: reply_text(&judged[*place]).into(),
            time_ms: judged[*place].origin.arrived_ms,
        });
        let done = self
            .scripts
            .run(&script.program, calls.collect(), Detail::Outcome)
            .await;
        for (place, done) in places.into_iter().zip(done) {
            match done.outcome {
                Ok(bytes) => replies[place] = Some(bytes),
                Err(failure) if failure.cause == Cause::Missing => {}
                Err(failure) => self.note_unwritten(&judged[place], script, &failure.to_string()),
            }
        }
        replies
    }

    fn note_unwritten(&self, judged: &Judged, script: &Arc<ScriptVersion>, why: &str) {
        let origin = &judged.origin;
        self.log.note(Entry {
            time_ms: origin.arrived_ms,
            channel: origin.channel.clone(),
            client: origin.client.clone(),
            what: What::Error {
                topic: Some(origin.topic.clone()),
                code: None,
                message: format!(
                    "script invocation error: {}, {why}; the reply was sent as JSON",
                    script.program.label()
                )
                .into(),
                device_key: None,
                point: None,
            },
        });
    }
}

/// The bytes for the script, where it is asked at all: what is refused without it is left to the
/// judge.
fn raw_bytes(product: &Product, compression: Compression, uplink: &Uplink) -> Option<Bytes> {
    let Payload::Whole(payload) = &uplink.payload else {
        return None;
    };
    let topic = Topic::parse(&uplink.topic).ok()?;
    if topic.kind != Kind::Raw || topic.product != product.key || payload.is_empty() {
        return None;
    }
    let plain = plain(payload, compression, PAYLOAD_BYTES_MAX).ok()?;
    (!plain.is_empty()).then_some(plain)
}

/// What an encoder is given: `{"id":20,"code":200,"data":""}`. An id of digits is given as a
/// number, as the documented scripts write it; `data` is a text, which they leave out.
fn reply_text(judged: &Judged) -> Vec<u8> {
    let id = judged.origin.message_id.as_ref();
    let digits = id.trim_matches('"');
    let is_number = digits
        .parse::<u64>()
        .is_ok_and(|number| number < 1 << 53 && number.to_string() == digits);
    let id = match (is_number, serde_json::from_str::<&RawValue>(id)) {
        (true, _) => digits,
        (false, Ok(_)) => id,
        (false, Err(_)) => MessageId::ABSENT.as_json(),
    };
    format!("{{\"id\":{id},\"code\":{},\"data\":\"\"}}", judged.code()).into_bytes()
}
