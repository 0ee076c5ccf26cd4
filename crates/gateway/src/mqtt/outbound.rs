//! What the door says: every packet that a server sends, in bytes. Pure. Short forms throughout:
//! a success is the same bytes in both versions.

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};

use super::{Qos, Reason, Version, strict::kind};

/// The values of an accepting CONNACK of 5.0.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) session_present: bool,
    /// Set where the server's word differs from the client's wish.
    pub(super) session_expiry_s: Option<u32>,
    pub(super) keep_alive_s: Option<u16>,
    pub(super) assigned_client_id: Option<String>,
    pub(super) receive_max: u16,
    pub(super) packet_bytes_max: u32,
    pub(super) topic_alias_max: u16,
}

/// Writes nothing where the client's maximum packet size does not even allow this.
pub(super) fn accepted(
    out: &mut BytesMut,
    version: Version,
    accepted: &Accepted,
    packet_bytes_max: u32,
) {
    let present = u8::from(accepted.session_present);
    if version == Version::V3 {
        out.put_slice(&[kind::CONNACK << 4, 2, present, 0]);
        return;
    }
    let mut properties = BytesMut::with_capacity(64);
    if let Some(seconds) = accepted.session_expiry_s {
        properties.put_u8(0x11);
        properties.put_u32(seconds);
    }
    if let Some(id) = &accepted.assigned_client_id {
        properties.put_u8(0x12);
        put_text(&mut properties, id);
    }
    if let Some(seconds) = accepted.keep_alive_s {
        properties.put_u8(0x13);
        properties.put_u16(seconds);
    }
    properties.put_u8(0x21);
    properties.put_u16(accepted.receive_max);
    properties.put_u8(0x22);
    properties.put_u16(accepted.topic_alias_max);
    properties.put_u8(0x27);
    properties.put_u32(accepted.packet_bytes_max);
    // Shared subscriptions are not available. Retained publishes are taken, so that is not denied.
    properties.put_slice(&[0x2A, 0]);
    let start = out.len();
    packet(out, kind::CONNACK << 4, &[&[present, 0]], &properties, &[]);
    if !fits(out.len() - start, packet_bytes_max) {
        out.truncate(start);
    }
}

/// A refusing CONNACK. `code_v3` is that of 3.1.1 §3.2.2.3.
pub(super) fn refused(
    out: &mut BytesMut,
    version: Version,
    code_v3: u8,
    reason: Reason,
    why: &str,
    packet_bytes_max: u32,
) {
    match version {
        Version::V3 => out.put_slice(&[kind::CONNACK << 4, 2, 0, code_v3]),
        Version::V5 => {
            with_reason_string(
                out,
                kind::CONNACK << 4,
                &[0, reason.0],
                why,
                packet_bytes_max,
            );
        }
    }
}

/// DISCONNECT from the server: 5.0 only.
pub(super) fn disconnect(out: &mut BytesMut, reason: Reason, why: &str, packet_bytes_max: u32) {
    with_reason_string(
        out,
        kind::DISCONNECT << 4,
        &[reason.0],
        why,
        packet_bytes_max,
    );
}

/// The reason string is left out where the client's maximum packet size does not allow it
/// (MQTT-3.2.2-19, MQTT-3.14.2-3), and the packet where even that does not fit (MQTT-3.1.2-24).
fn with_reason_string(
    out: &mut BytesMut,
    first: u8,
    head: &[u8],
    why: &str,
    packet_bytes_max: u32,
) {
    let mut properties = BytesMut::with_capacity(why.len() + 3);
    properties.put_u8(0x1F);
    put_text(&mut properties, why);
    let start = out.len();
    packet(out, first, &[head], &properties, &[]);
    if fits(out.len() - start, packet_bytes_max) {
        return;
    }
    out.truncate(start);
    packet(out, first, &[head], &[], &[]);
    if !fits(out.len() - start, packet_bytes_max) {
        out.truncate(start);
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(super) fn ack(out: &mut BytesMut, kind: u8, id: NonZeroU16, reason: Reason, version: Version) {
    let flags = if kind == kind::PUBREL { 0x02 } else { 0 };
    let [high, low] = id.get().to_be_bytes();
    if reason == Reason::SUCCESS || version == Version::V3 {
        out.put_slice(&[kind << 4 | flags, 2, high, low]);
    } else {
        out.put_slice(&[kind << 4 | flags, 3, high, low, reason.0]);
    }
}

/// SUBACK or UNSUBACK: one code per filter; UNSUBACK of 3.1.1 has none.
pub(super) fn filters_ack(
    out: &mut BytesMut,
    kind: u8,
    id: NonZeroU16,
    codes: &[u8],
    version: Version,
) {
    let id = id.get().to_be_bytes();
    match version {
        Version::V3 => {
            let codes = if kind == kind::UNSUBACK { &[] } else { codes };
            put_head(out, kind << 4, id.len() + codes.len());
            out.put_slice(&id);
            out.put_slice(codes);
        }
        Version::V5 => packet(out, kind << 4, &[&id], &[], codes),
    }
}

pub(super) fn pong(out: &mut BytesMut) {
    out.put_slice(&[kind::PINGRESP << 4, 0]);
}

/// A reply on its way to a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    /// Set for QoS 1.
    pub(super) packet_id: Option<NonZeroU16>,
    pub(super) dup: bool,
    /// The subscription identifiers of 5.0 that it matches.
    pub(super) tags: &'a [u32],
}

impl Delivery<'_> {
    pub(super) fn qos(&self) -> Qos {
        if self.packet_id.is_some() {
            Qos::AtLeastOnce
        } else {
            Qos::AtMostOnce
        }
    }
}

/// PUBLISH. Says whether it fits the client's maximum packet size; otherwise nothing is written.
#[must_use]
pub(super) fn publish(
    out: &mut BytesMut,
    delivery: Delivery<'_>,
    version: Version,
    packet_bytes_max: u32,
) -> bool {
    let Ok(topic_len) = u16::try_from(delivery.topic.len()) else {
        return false;
    };
    let mut properties = BytesMut::new();
    if version == Version::V5 {
        for tag in delivery.tags {
            properties.put_u8(0x0B);
            put_varint(&mut properties, usize::try_from(*tag).unwrap_or(usize::MAX));
        }
    }
    let mut len = 2 + delivery.topic.len() + delivery.payload.len();
    len += if delivery.packet_id.is_some() { 2 } else { 0 };
    if version == Version::V5 {
        len += varint_len(properties.len()) + properties.len();
    }
    if len > VARINT_MAX || !fits(1 + varint_len(len) + len, packet_bytes_max) {
        return false;
    }
    let dup = if delivery.dup { 0x08 } else { 0 };
    let qos = if delivery.qos() == Qos::AtLeastOnce {
        0x02
    } else {
        0
    };
    put_head(out, kind::PUBLISH << 4 | dup | qos, len);
    out.put_u16(topic_len);
    out.put_slice(delivery.topic.as_bytes());
    if let Some(id) = delivery.packet_id {
        out.put_u16(id.get());
    }
    if version == Version::V5 {
        put_varint(out, properties.len());
        out.put_slice(&properties);
    }
    out.put_slice(delivery.payload);
    true
}

/// The largest variable byte integer, and so the largest packet body.
const VARINT_MAX: usize = 268_435_455;

/// A packet of 5.0: head, properties with their length, tail.
fn packet(out: &mut BytesMut, first: u8, head: &[&[u8]], properties: &[u8], tail: &[u8]) {
    let head_len: usize = head.iter().map(|part| part.len()).sum();
    put_head(
        out,
        first,
        head_len + varint_len(properties.len()) + properties.len() + tail.len(),
    );
    for part in head {
        out.put_slice(part);
    }
    put_varint(out, properties.len());
    out.put_slice(properties);
    out.put_slice(tail);
}

fn put_head(out: &mut BytesMut, first: u8, len: usize) {
    out.put_u8(first);
    put_varint(out, len);
}

fn put_text(out: &mut BytesMut, text: &str) {
    let len = u16::try_from(text.len()).expect("the door's own texts are short");
    out.put_u16(len);
    out.put_slice(text.as_bytes());
}

/// Writes a variable byte integer; callers stay below [`VARINT_MAX`].
pub(super) fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn fits(len: usize, packet_bytes_max: u32) -> bool {
    u32::try_from(len).is_ok_and(|len| len <= packet_bytes_max)
}

#[cfg(test)]
mod tests {
    use rmqtt_codec::{v3, v5};
    use tokio_util::codec::Decoder as _;

    use super::*;

    const ID: NonZeroU16 = NonZeroU16::new(0x1234).unwrap();

    #[test]
    fn the_codec_reads_what_the_door_writes_in_5_0() {
        let mut out = BytesMut::new();
        accepted(
            &mut out,
            Version::V5,
            &Accepted {
                session_present: true,
                session_expiry_s: Some(60),
                keep_alive_s: Some(30),
                assigned_client_id: Some("auto".to_owned()),
                receive_max: 1_000,
                packet_bytes_max: 532_485,
                topic_alias_max: 16,
            },
            u32::MAX,
        );
        refused(
            &mut out,
            Version::V5,
            4,
            Reason::BAD_CREDENTIALS,
            "bad",
            u32::MAX,
        );
        ack(
            &mut out,
            kind::PUBACK,
            ID,
            Reason::NOT_AUTHORIZED,
            Version::V5,
        );
        filters_ack(&mut out, kind::SUBACK, ID, &[1, 0x87], Version::V5);
        disconnect(&mut out, Reason::TAKEN_OVER, "taken over", u32::MAX);
        let delivery = Delivery {
            topic: "sys/PK/x",
            payload: &[7; 200],
            packet_id: Some(ID),
            dup: true,
            tags: &[1, 300],
        };
        assert!(publish(&mut out, delivery, Version::V5, u32::MAX));

        let mut codec = v5::Codec::default();
        let mut read = || codec.decode(&mut out).unwrap().unwrap().0;
        let v5::Packet::ConnectAck(connack) = read() else {
            panic!()
        };
        assert!(connack.session_present && !connack.shared_subscription_available);
        assert_eq!(connack.session_expiry_interval_secs, Some(60));
        assert_eq!(connack.server_keepalive_sec, Some(30));
        assert_eq!(connack.assigned_client_id.as_deref(), Some("auto"));
        assert_eq!(
            (connack.receive_max.get(), connack.topic_alias_max),
            (1_000, 16)
        );
        let v5::Packet::ConnectAck(connack) = read() else {
            panic!()
        };
        assert_eq!(connack.reason_string.as_deref(), Some("bad"));
        let v5::Packet::PublishAck(ack) = read() else {
            panic!()
        };
        assert_eq!(u8::from(ack.reason_code), 0x87);
        let v5::Packet::SubscribeAck(ack) = read() else {
            panic!()
        };
        assert_eq!(ack.status.len(), 2);
        let v5::Packet::Disconnect(disconnect) = read() else {
            panic!()
        };
        assert_eq!(u8::from(disconnect.reason_code), 0x8E);
        let v5::Packet::Publish(publish) = read() else {
            panic!()
        };
        assert!(publish.dup && publish.packet_id == Some(ID) && publish.payload.len() == 200);
        assert_eq!(publish.properties.unwrap().subscription_ids.len(), 2);
        assert!(out.is_empty());
    }

    #[test]
    fn the_codec_reads_what_the_door_writes_in_3_1_1() {
        let mut out = BytesMut::new();
        refused(
            &mut out,
            Version::V3,
            4,
            Reason::BAD_CREDENTIALS,
            "bad",
            u32::MAX,
        );
        ack(
            &mut out,
            kind::PUBACK,
            ID,
            Reason::NOT_AUTHORIZED,
            Version::V3,
        );
        filters_ack(&mut out, kind::SUBACK, ID, &[1, 0x80], Version::V3);
        filters_ack(&mut out, kind::UNSUBACK, ID, &[0], Version::V3);
        pong(&mut out);
        let mut codec = v3::Codec::default();
        for expected in [
            "BadUserName",
            "PublishAck",
            "Failure",
            "UnsubscribeAck",
            "PingResponse",
        ] {
            let packet = codec.decode(&mut out).unwrap().unwrap().0;
            assert!(format!("{packet:?}").contains(expected), "{packet:?}");
        }
        assert!(out.is_empty());
    }

    #[test]
    fn nothing_larger_than_the_client_allows_is_written() {
        let mut out = BytesMut::new();
        disconnect(&mut out, Reason::TAKEN_OVER, "a long reason string", 5);
        assert_eq!(&out[..], &[0xE0, 2, 0x8E, 0]);
        out.clear();
        disconnect(&mut out, Reason::TAKEN_OVER, "a long reason string", 2);
        assert!(out.is_empty());
        let delivery = Delivery {
            topic: "t",
            payload: &[0; 10],
            packet_id: None,
            dup: false,
            tags: &[],
        };
        assert!(!publish(&mut out, delivery, Version::V5, 15));
        assert!(out.is_empty());
        assert!(publish(&mut out, delivery, Version::V5, 16));
        assert_eq!(out.len(), 16);
    }
}
