//! Bytes to packets: framing, the strict step, the codec, and the drain of payloads over the
//! limit. The only file that knows the codec. Pure: it is fed buffers.

use std::{num::NonZeroU16, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::{types, v3, v5};
use sha2::{Digest, Sha256};
use tokio_util::codec::Decoder as _;

use super::{
    Fault, Payload, Publish, Qos, Reason, Version,
    strict::{self, NotConnect, Varint, kind},
};
use crate::limits;

/// What a client says. Only the fields that the door acts on.
#[derive(Debug)]
pub(super) enum Packet {
    Publish(Publish),
    PubAck(NonZeroU16),
    PubRec {
        id: NonZeroU16,
        failed: bool,
    },
    PubRel(NonZeroU16),
    PubComp(NonZeroU16),
    Subscribe {
        id: NonZeroU16,
        tag: Option<u32>,
        filters: Vec<(ByteString, Qos)>,
    },
    Unsubscribe {
        id: NonZeroU16,
        filters: Vec<ByteString>,
    },
    Ping,
    Disconnect {
        session_expiry_s: Option<u32>,
    },
}

/// A CONNECT. No `Debug`: it holds the password.
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: ByteString,
    pub(crate) username: Option<ByteString>,
    pub(crate) password: Option<Bytes>,
    pub(crate) clean: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) will_topic: Option<ByteString>,
    /// 5.0 only; `None` where it is absent.
    pub(crate) session_expiry_s: u32,
    /// QoS 1 replies that may be unacknowledged at once.
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) has_auth_method: bool,
}

/// Reads the CONNECT at the start of the buffer, or says that more bytes are needed.
pub(crate) fn connect(
    buffer: &mut BytesMut,
    limits: &limits::Mqtt,
) -> Result<Option<Connect>, NotConnect> {
    let Some(&first) = buffer.first() else {
        return Ok(None);
    };
    if !strict::is_connect(first) {
        return Err(NotConnect::Foreign);
    }
    let (len, header_len) = match strict::varint(&buffer[1..]) {
        Varint::Short => return Ok(None),
        Varint::Wrong => return Err(NotConnect::Foreign),
        Varint::Whole { value, len } => (value, 1 + len),
    };
    if len + header_len > limits.connect_bytes_max {
        return Err(too_large(&buffer[header_len..]));
    }
    let Some(body) = buffer.get(header_len..header_len + len) else {
        return Ok(None);
    };
    let version = strict::connect(body, limits)?;
    // A copy: the password shall not stay alive in a buffer that is read into again.
    let mut packet = BytesMut::from(&buffer[..header_len + len]);
    buffer.advance(header_len + len);
    let wrong = || NotConnect::Fault(version, Fault::malformed("a malformed CONNECT"));
    match version {
        Version::V3 => match v3::Codec::default().decode(&mut packet) {
            Ok(Some((v3::Packet::Connect(connect), _))) => Ok(Some(from_v3(*connect))),
            _ => Err(wrong()),
        },
        Version::V5 => match v5::Codec::default().decode(&mut packet) {
            Ok(Some((v5::Packet::Connect(connect), _))) => Ok(Some(from_v5(*connect))),
            _ => Err(wrong()),
        },
    }
}

/// Tells the version of a CONNECT that is too large, as far as its first bytes are here.
fn too_large(body: &[u8]) -> NotConnect {
    let fault = Fault {
        reason: Reason::PACKET_TOO_LARGE,
        why: "the CONNECT is too large",
    };
    match body {
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => NotConnect::Fault(Version::V5, fault),
        _ => NotConnect::Fault(Version::V3, fault),
    }
}

fn from_v3(connect: v3::Connect) -> Connect {
    Connect {
        version: Version::V3,
        client_id: connect.client_id,
        username: connect.username,
        password: connect.password,
        clean: connect.clean_session,
        keep_alive_s: connect.keep_alive,
        will_topic: connect.last_will.map(|will| will.topic),
        session_expiry_s: if connect.clean_session { 0 } else { u32::MAX },
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        has_auth_method: false,
    }
}

fn from_v5(connect: v5::Connect) -> Connect {
    Connect {
        version: Version::V5,
        client_id: connect.client_id,
        username: connect.username,
        password: connect.password,
        clean: connect.clean_start,
        keep_alive_s: connect.keep_alive,
        will_topic: connect.last_will.map(|will| will.topic),
        session_expiry_s: connect.session_expiry_interval_secs,
        receive_max: connect.receive_max.map_or(u16::MAX, NonZeroU16::get),
        packet_bytes_max: connect.max_packet_size.map_or(u32::MAX, |max| max.get()),
        has_auth_method: connect.auth_method.is_some(),
    }
}

/// Turns the bytes of one connection, after its CONNECT, into packets.
pub(super) struct Decoder {
    codec: Codec,
    limits: Arc<limits::Mqtt>,
    drain: Option<Drain>,
    /// Topics by alias, from 1 (§3.3.2.3.4).
    aliases: Vec<ByteString>,
}

enum Codec {
    V3(v3::Codec),
    V5(v5::Codec),
}

/// A PUBLISH whose payload is over the limit, on its way through.
struct Drain {
    publish: Publish,
    bytes: u64,
    left: usize,
    sha256: Sha256,
    head: Vec<u8>,
}

/// What a look at the buffer gave.
#[derive(Debug)]
pub(super) enum Next {
    Packet(Packet),
    /// Nothing whole is left; so many more bytes would be, or would tell more.
    More(usize),
}

impl Decoder {
    pub(super) fn new(version: Version, limits: Arc<limits::Mqtt>) -> Self {
        let codec = match version {
            Version::V3 => Codec::V3(v3::Codec::default()),
            Version::V5 => Codec::V5(v5::Codec::default()),
        };
        Self {
            codec,
            limits,
            drain: None,
            aliases: Vec::new(),
        }
    }

    /// Takes the next packet from the start of the buffer. At least 8 bytes of the buffer's
    /// capacity must be free, or else the codec allocates where nobody counts.
    ///
    /// # Errors
    /// The [`Fault`] of the client; the connection cannot go on.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Next, Fault> {
        if self.drain.is_some() {
            return Ok(self.drain(buffer));
        }
        let Some(&first) = buffer.first() else {
            return Ok(Next::More(1));
        };
        strict::may_begin(first)?;
        let (len, header_len) = match strict::varint(&buffer[1..]) {
            Varint::Short => return Ok(Next::More(1)),
            Varint::Wrong => return Err(Fault::malformed("a malformed remaining length")),
            Varint::Whole { value, len } => (value, 1 + len),
        };
        if first >> 4 == kind::PUBLISH {
            return self.publish(first, header_len, len, buffer);
        }
        if len > self.limits.control_packet_bytes_max {
            return Err(Fault {
                reason: Reason::PACKET_TOO_LARGE,
                why: "the packet is too large for its type",
            });
        }
        let Some(body) = buffer.get(header_len..header_len + len) else {
            return Ok(Next::More(header_len + len - buffer.len()));
        };
        strict::check(first, body, self.version(), &self.limits)?;
        match self.decode(buffer) {
            Some(packet) => Ok(Next::Packet(packet)),
            // The codec knows only the reason codes that it would send; any of them is a goodbye.
            None if first >> 4 == kind::DISCONNECT => Ok(Next::Packet(Packet::Disconnect {
                session_expiry_s: None,
            })),
            None => Err(Fault::malformed("a malformed packet")),
        }
    }

    /// Whether a payload over the limit is on its way: its bytes are let go as they come.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    fn version(&self) -> Version {
        match self.codec {
            Codec::V3(_) => Version::V3,
            Codec::V5(_) => Version::V5,
        }
    }

    /// The PUBLISH at the start of the buffer: whole, or drained where its payload is over the
    /// limit. Which of them shows with its head, so nothing is buffered in vain.
    fn publish(
        &mut self,
        first: u8,
        fixed_len: usize,
        len: usize,
        buffer: &mut BytesMut,
    ) -> Result<Next, Fault> {
        let limits = Arc::clone(&self.limits);
        let whole = fixed_len + len;
        if buffer.len() < whole && len <= limits.payload_bytes_max {
            return Ok(Next::More(whole - buffer.len()));
        }
        let start = buffer.get(fixed_len..).unwrap_or_default();
        let start = start.get(..len).unwrap_or(start);
        let head = strict::publish_head(first, start, self.version(), &limits)?;
        let Some(head) = head else {
            return Err(match start.len() {
                all if all == len => Fault::malformed("the packet is too short"),
                some if some > limits.publish_header_bytes_max => Fault {
                    reason: Reason::PACKET_TOO_LARGE,
                    why: "topic and properties of a PUBLISH are too large",
                },
                _ => return Ok(Next::More(1)),
            });
        };
        if len - head.len > limits.payload_bytes_max {
            return self.begin_drain(first, fixed_len, len, &head, buffer);
        }
        if buffer.len() < whole {
            return Ok(Next::More(whole - buffer.len()));
        }
        let mut body = buffer.split_to(whole).freeze();
        body.advance(fixed_len);
        self.published(first, &head, &body)
            .map(|publish| Next::Packet(Packet::Publish(publish)))
    }

    fn begin_drain(
        &mut self,
        first: u8,
        fixed_len: usize,
        len: usize,
        head: &strict::PublishHead,
        buffer: &mut BytesMut,
    ) -> Result<Next, Fault> {
        // A copy: the bytes pass, and the topic stays.
        let alone = Bytes::copy_from_slice(&buffer[fixed_len..fixed_len + head.len]);
        let publish = self.published(first, head, &alone)?;
        buffer.advance(fixed_len + head.len);
        let left = len - head.len;
        self.drain = Some(Drain {
            publish,
            bytes: left as u64,
            left,
            sha256: Sha256::new(),
            head: Vec::with_capacity(self.limits.oversize_head_bytes),
        });
        Ok(self.drain(buffer))
    }

    /// Makes the value of a checked PUBLISH; its payload is what follows the head.
    fn published(
        &mut self,
        first: u8,
        head: &strict::PublishHead,
        body: &Bytes,
    ) -> Result<Publish, Fault> {
        let topic = ByteString::try_from(body.slice(2..2 + head.topic_len))
            .map_err(|_| Fault::malformed("a topic that is not UTF-8"))?;
        let topic = match head.topic_alias {
            Some(alias) => self.resolve_alias(alias, topic)?,
            None => topic,
        };
        Ok(Publish {
            topic,
            payload: Payload::Whole(body.slice(head.len..)),
            qos: match first >> 1 & 0x03 {
                0 => Qos::AtMostOnce,
                1 => Qos::AtLeastOnce,
                _ => Qos::ExactlyOnce,
            },
            packet_id: head.packet_id,
            retain: first & 0x01 != 0,
            dup: first & 0x08 != 0,
        })
    }

    fn drain(&mut self, buffer: &mut BytesMut) -> Next {
        let Some(drain) = &mut self.drain else {
            return Next::More(1);
        };
        let now = drain.left.min(buffer.len());
        let passing = &buffer[..now];
        drain.sha256.update(passing);
        let head_left = self.limits.oversize_head_bytes - drain.head.len();
        drain.head.extend_from_slice(&passing[..head_left.min(now)]);
        drain.left -= now;
        buffer.advance(now);
        if drain.left > 0 {
            return Next::More(1);
        }
        match self.drain.take() {
            Some(drain) => Next::Packet(Packet::Publish(Publish {
                payload: Payload::Oversize {
                    bytes: drain.bytes,
                    sha256: drain.sha256.finalize().into(),
                    head: drain.head.into(),
                },
                ..drain.publish
            })),
            None => Next::More(1),
        }
    }

    fn decode(&mut self, buffer: &mut BytesMut) -> Option<Packet> {
        match &mut self.codec {
            Codec::V3(codec) => codec
                .decode(buffer)
                .ok()?
                .and_then(|(packet, _)| packet_v3(packet)),
            Codec::V5(codec) => codec
                .decode(buffer)
                .ok()?
                .and_then(|(packet, _)| packet_v5(packet)),
        }
    }

    fn resolve_alias(&mut self, alias: u16, topic: ByteString) -> Result<ByteString, Fault> {
        if alias > self.limits.topic_alias_max {
            return Err(Fault {
                reason: Reason::TOPIC_ALIAS_INVALID,
                why: "a topic alias above the maximum",
            });
        }
        // The strict step has refused 0.
        let slot = usize::from(alias) - 1;
        if topic.is_empty() {
            return match self.aliases.get(slot) {
                Some(known) if !known.is_empty() => Ok(known.clone()),
                _ => Err(Fault::protocol("a topic alias that stands for nothing")),
            };
        }
        if self.aliases.len() <= slot {
            self.aliases.resize(slot + 1, ByteString::new());
        }
        // A copy: a slice would keep its whole buffer alive for as long as the connection.
        self.aliases[slot] = ByteString::from(&*topic);
        Ok(topic)
    }
}

/// For fuzzing: feeds bytes, cut in two where the first says, to a CONNECT and to both versions.
/// The door's own limits apply, made small so that drains happen.
#[doc(hidden)]
pub fn decode_anything(bytes: &[u8]) {
    let limits = Arc::new(limits::Mqtt {
        payload_bytes_max: 64,
        publish_header_bytes_max: 48,
        ..limits::Mqtt::default()
    });
    drop(connect(&mut BytesMut::from(bytes), &limits));
    let cut = usize::from(bytes.first().copied().unwrap_or(0)).min(bytes.len());
    let (first, second) = bytes.split_at(cut);
    for version in [Version::V3, Version::V5] {
        let mut decoder = Decoder::new(version, Arc::clone(&limits));
        let mut buffer = BytesMut::with_capacity(bytes.len() + 64);
        for part in [first, second] {
            buffer.extend_from_slice(part);
            loop {
                match decoder.next(&mut buffer) {
                    Ok(Next::Packet(_)) => {}
                    Ok(Next::More(wanted)) => {
                        assert!(wanted > 0, "nothing is wanted and nothing comes");
                        break;
                    }
                    Err(_) => return,
                }
            }
        }
    }
}

fn packet_v3(packet: v3::Packet) -> Option<Packet> {
    Some(match packet {
        v3::Packet::PublishAck { packet_id } => Packet::PubAck(packet_id),
        v3::Packet::PublishReceived { packet_id } => Packet::PubRec {
            id: packet_id,
            failed: false,
        },
        v3::Packet::PublishRelease { packet_id } => Packet::PubRel(packet_id),
        v3::Packet::PublishComplete { packet_id } => Packet::PubComp(packet_id),
        v3::Packet::Subscribe {
            packet_id,
            topic_filters,
        } => Packet::Subscribe {
            id: packet_id,
            tag: None,
            filters: topic_filters
                .into_iter()
                .map(|(filter, qos)| (filter, qos.into()))
                .collect(),
        },
        v3::Packet::Unsubscribe {
            packet_id,
            topic_filters,
        } => Packet::Unsubscribe {
            id: packet_id,
            filters: topic_filters,
        },
        v3::Packet::PingRequest => Packet::Ping,
        v3::Packet::Disconnect => Packet::Disconnect {
            session_expiry_s: None,
        },
        v3::Packet::Publish(_)
        | v3::Packet::Connect(_)
        | v3::Packet::ConnectAck(_)
        | v3::Packet::SubscribeAck { .. }
        | v3::Packet::UnsubscribeAck { .. }
        | v3::Packet::PingResponse => return None,
    })
}

fn packet_v5(packet: v5::Packet) -> Option<Packet> {
    Some(match packet {
        v5::Packet::PublishAck(ack) => Packet::PubAck(ack.packet_id),
        v5::Packet::PublishReceived(ack) => Packet::PubRec {
            id: ack.packet_id,
            failed: u8::from(ack.reason_code) >= 0x80,
        },
        v5::Packet::PublishRelease(ack) => Packet::PubRel(ack.packet_id),
        v5::Packet::PublishComplete(ack) => Packet::PubComp(ack.packet_id),
        v5::Packet::Subscribe(subscribe) => Packet::Subscribe {
            id: subscribe.packet_id,
            tag: subscribe.id.map(|id| id.get()),
            filters: subscribe
                .topic_filters
                .into_iter()
                .map(|(filter, options)| (filter, options.qos.into()))
                .collect(),
        },
        v5::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe {
            id: unsubscribe.packet_id,
            filters: unsubscribe.topic_filters,
        },
        v5::Packet::PingRequest => Packet::Ping,
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect {
            session_expiry_s: disconnect.session_expiry_interval_secs,
        },
        v5::Packet::Publish(_)
        | v5::Packet::Connect(_)
        | v5::Packet::ConnectAck(_)
        | v5::Packet::SubscribeAck(_)
        | v5::Packet::UnsubscribeAck(_)
        | v5::Packet::PingResponse
        | v5::Packet::Auth(_) => return None,
    })
}

impl From<types::QoS> for Qos {
    fn from(qos: types::QoS) -> Self {
        match qos {
            types::QoS::AtMostOnce => Self::AtMostOnce,
            types::QoS::AtLeastOnce => Self::AtLeastOnce,
            types::QoS::ExactlyOnce => Self::ExactlyOnce,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: [&[u8]; 8] = [
        b"\x10\x0E\0\x04MQTT\x05\x02\0\x0a\0\0\x01p",
        b"\x10\x13\0\x04MQTT\x04\xC2\0\x0a\0\x01p\0\x01u\0\x01w",
        b"\x34\x12\0\x05topic\x12\x34\x03\x23\0\x01payloa",
        b"\x82\x0E\0\x01\x07\x26\0\x01p\0\0\x01q\0\x01a\x01",
        b"\xA2\x09\x12\x34\0\0\x01p\0\x01q",
        b"\x40\x04\0\x01\x10\0",
        b"\x62\x02\0\x01",
        b"\xE0\x07\0\x05\x11\0\0\0\x05",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// The same as the fuzz target, from good packets with a few bytes changed or lost.
        #[test]
        fn damaged_packets_make_neither_panic_nor_loop(
            cut: u8,
            order in prop::collection::vec(0..GOOD.len(), 1..6),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            len: prop::sample::Index,
        ) {
            let mut bytes = vec![cut];
            for at in order {
                bytes.extend_from_slice(GOOD[at]);
            }
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(len.index(bytes.len()) + 1);
            decode_anything(&bytes);
            decode_anything(&bytes[1..]);
        }
    }

    #[test]
    fn a_message_expiry_of_0_is_read() {
        let limits = Arc::new(limits::Mqtt::default());
        let mut decoder = Decoder::new(Version::V5, limits);
        let mut buffer = BytesMut::from(&b"\x30\x09\0\x01a\x05\x02\0\0\0\0"[..]);
        let next = decoder.next(&mut buffer);
        assert!(
            matches!(next, Ok(Next::Packet(Packet::Publish(_)))),
            "{next:?}"
        );
    }
}
