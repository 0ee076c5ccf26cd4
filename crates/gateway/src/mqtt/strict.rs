//! What the codec lets pass and the standard does not. Pure: looks at the bytes of one whole
//! packet, before the codec makes values of them, and names the fault with its reason code. PUBLISH,
//! the one packet that matters for speed, is read here and nowhere else: the codec would read it a
//! second time, and refuses a message expiry of 0.
//!
//! References are to MQTT 5.0 (OASIS, 2019) unless they say 3.1.1.

use std::{num::NonZeroU16, str};

use super::{Fault, Reason, Version, filter};
use crate::limits;

/// The packet types of §2.1.2, as the high half of the first byte.
pub(super) mod kind {
    pub(in crate::mqtt) const CONNECT: u8 = 1;
    pub(in crate::mqtt) const CONNACK: u8 = 2;
    pub(in crate::mqtt) const PUBLISH: u8 = 3;
    pub(in crate::mqtt) const PUBACK: u8 = 4;
    pub(in crate::mqtt) const PUBREC: u8 = 5;
    pub(in crate::mqtt) const PUBREL: u8 = 6;
    pub(in crate::mqtt) const PUBCOMP: u8 = 7;
    pub(in crate::mqtt) const SUBSCRIBE: u8 = 8;
    pub(in crate::mqtt) const SUBACK: u8 = 9;
    pub(in crate::mqtt) const UNSUBSCRIBE: u8 = 10;
    pub(in crate::mqtt) const UNSUBACK: u8 = 11;
    pub(in crate::mqtt) const PINGRESP: u8 = 13;
    pub(in crate::mqtt) const DISCONNECT: u8 = 14;
    pub(in crate::mqtt) const AUTH: u8 = 15;
}

/// Why a CONNECT is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotConnect {
    /// Not MQTT at all: there is nobody to answer.
    Foreign,
    UnsupportedLevel,
    /// 3.1.1 §3.1.3.1: an empty client id needs a clean session.
    EmptyClientId,
    Fault(Version, Fault),
}

/// Checks the first packet's fixed header byte; its body follows in [`connect`].
pub(super) fn is_connect(first: u8) -> bool {
    first == kind::CONNECT << 4
}

/// Checks a CONNECT and tells its version.
pub(super) fn connect(body: &[u8], limits: &limits::Mqtt) -> Result<Version, NotConnect> {
    let mut at = Walk { rest: body };
    let name = at.binary().map_err(|_| NotConnect::Foreign)?;
    let level = at.byte().map_err(|_| NotConnect::Foreign)?;
    let version = match (name, level) {
        (b"MQTT", 4) | (b"MQIsdp", 3) => Version::V3,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT" | b"MQIsdp", _) => return Err(NotConnect::UnsupportedLevel),
        _ => return Err(NotConnect::Foreign),
    };
    connect_rest(&mut at, version, limits).map_err(|error| match error {
        ConnectFault::EmptyClientId => NotConnect::EmptyClientId,
        ConnectFault::Fault(fault) => NotConnect::Fault(version, fault),
    })?;
    Ok(version)
}

enum ConnectFault {
    EmptyClientId,
    Fault(Fault),
}

impl From<Fault> for ConnectFault {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

fn connect_rest(
    at: &mut Walk<'_>,
    version: Version,
    limits: &limits::Mqtt,
) -> Result<(), ConnectFault> {
    const CLEAN: u8 = 0x02;
    const WILL: u8 = 0x04;
    const WILL_QOS: u8 = 0x18;
    const WILL_RETAIN: u8 = 0x20;
    const PASSWORD: u8 = 0x40;
    const USERNAME: u8 = 0x80;

    let flags = at.byte()?;
    if flags & 0x01 != 0 {
        return Err(Fault::malformed("a reserved flag of CONNECT is set").into());
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 || flags & WILL_QOS == WILL_QOS {
        return Err(Fault::malformed("the will flags of CONNECT contradict each other").into());
    }
    if version == Version::V3 && flags & PASSWORD != 0 && flags & USERNAME == 0 {
        return Err(Fault::malformed("a password without a user name").into());
    }
    at.u16()?;
    if version == Version::V5 {
        at.properties(In::Connect, limits)?;
    }
    let client_id = at.text()?;
    if version == Version::V3 && client_id.is_empty() && flags & CLEAN == 0 {
        return Err(ConnectFault::EmptyClientId);
    }
    if flags & WILL != 0 {
        if version == Version::V5 {
            at.properties(In::Will, limits)?;
        }
        at.topic()?;
        at.binary()?;
    }
    if flags & USERNAME != 0 {
        at.text()?;
    }
    if flags & PASSWORD != 0 {
        at.binary()?;
    }
    Ok(at.end()?)
}

/// Checks a packet other than CONNECT; `first` is the first byte of its fixed header. Of a PUBLISH
/// the payload may be missing.
pub(super) fn check(
    first: u8,
    body: &[u8],
    version: Version,
    limits: &limits::Mqtt,
) -> Result<(), Fault> {
    let at = &mut Walk { rest: body };
    if first >> 4 == kind::PUBLISH {
        return publish(first, body, version, limits).map(|_| ());
    }
    let flags = match first >> 4 {
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 0x02,
        _ => 0,
    };
    if first & 0x0F != flags {
        return Err(Fault::malformed(
            "the reserved flags of the fixed header are wrong",
        ));
    }
    match first >> 4 {
        kind::PUBACK | kind::PUBREC | kind::PUBREL | kind::PUBCOMP => {
            ack(at, first >> 4, version, limits)
        }
        kind::SUBSCRIBE | kind::UNSUBSCRIBE => filters(at, first >> 4, version, limits),
        kind::DISCONNECT if version == Version::V5 && !body.is_empty() => {
            // Any reason code ends the connection, so none is worth refusing.
            at.byte()?;
            if !at.rest.is_empty() {
                at.properties(In::Disconnect, limits)?;
            }
            at.end()
        }
        // PINGREQ, and DISCONNECT of 3.1.1, have no body.
        _ => at.end(),
    }
}

/// Checks that a client may send such a packet after its CONNECT: what follows is not waited for.
pub(super) fn may_begin(first: u8) -> Result<(), Fault> {
    match first >> 4 {
        0 => Err(Fault::protocol("a packet of no type")),
        kind::CONNECT => Err(Fault::protocol("a second CONNECT")),
        kind::AUTH => Err(Fault::protocol("AUTH without an authentication method")),
        kind::CONNACK | kind::SUBACK | kind::UNSUBACK | kind::PINGRESP => {
            Err(Fault::protocol("a packet that only a server sends"))
        }
        _ => Ok(()),
    }
}

/// The variable header of a PUBLISH, read and checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PublishHead {
    /// The topic's bytes are at `2..2 + topic_len`.
    pub(super) topic_len: usize,
    pub(super) packet_id: Option<NonZeroU16>,
    pub(super) topic_alias: Option<u16>,
    /// The payload follows.
    pub(super) len: usize,
}

/// Reads and checks the variable header of a PUBLISH; `start` need not hold the payload. `None`
/// where not even the header is whole.
pub(super) fn publish_head(
    first: u8,
    start: &[u8],
    version: Version,
    limits: &limits::Mqtt,
) -> Result<Option<PublishHead>, Fault> {
    let mut at = Walk { rest: start };
    let is_whole = (|| {
        at.binary()?;
        at.take(if first & 0x06 == 0 { 0 } else { 2 })?;
        if version == Version::V5 {
            let len = at.varint()?;
            at.take(len)?;
        }
        Ok::<(), Fault>(())
    })();
    match is_whole {
        Ok(()) => publish(first, start, version, limits).map(Some),
        Err(_) => Ok(None),
    }
}

/// The same, of a packet that is whole.
pub(super) fn publish(
    first: u8,
    body: &[u8],
    version: Version,
    limits: &limits::Mqtt,
) -> Result<PublishHead, Fault> {
    let at = &mut Walk { rest: body };
    let qos = first >> 1 & 0x03;
    if qos == 3 {
        return Err(Fault::malformed("QoS 3"));
    }
    if qos == 0 && first & 0x08 != 0 {
        return Err(Fault::malformed("DUP with QoS 0"));
    }
    let topic = at.text()?;
    if topic.contains(['+', '#']) {
        return Err(Fault::malformed("a wildcard in the topic of a PUBLISH"));
    }
    let packet_id = if qos > 0 { Some(at.packet_id()?) } else { None };
    let topic_alias = match version {
        Version::V3 => None,
        Version::V5 => at.properties(In::Publish, limits)?.topic_alias,
    };
    if topic.is_empty() && topic_alias.is_none() {
        return Err(Fault::protocol("an empty topic"));
    }
    let len = body.len() - at.rest.len();
    if len > limits.publish_header_bytes_max {
        return Err(Fault {
            reason: Reason::PACKET_TOO_LARGE,
            why: "topic and properties of a PUBLISH are too large",
        });
    }
    Ok(PublishHead {
        topic_len: topic.len(),
        packet_id,
        topic_alias,
        len,
    })
}

fn ack(at: &mut Walk<'_>, kind: u8, version: Version, limits: &limits::Mqtt) -> Result<(), Fault> {
    at.packet_id()?;
    if version == Version::V5 && !at.rest.is_empty() {
        let reason = at.byte()?;
        let known = match kind {
            kind::PUBACK | kind::PUBREC => {
                matches!(
                    reason,
                    0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
                )
            }
            _ => matches!(reason, 0 | 0x92),
        };
        if !known {
            return Err(Fault::protocol("an unknown reason code"));
        }
        if !at.rest.is_empty() {
            at.properties(In::Ack, limits)?;
        }
    }
    at.end()
}

fn filters(
    at: &mut Walk<'_>,
    kind: u8,
    version: Version,
    limits: &limits::Mqtt,
) -> Result<(), Fault> {
    at.packet_id()?;
    if version == Version::V5 {
        at.properties(
            if kind == kind::SUBSCRIBE {
                In::Subscribe
            } else {
                In::Unsubscribe
            },
            limits,
        )?;
    }
    if at.rest.is_empty() {
        return Err(Fault::malformed("no topic filter"));
    }
    while !at.rest.is_empty() {
        let filter = at.text()?;
        if !filter::is_well_formed(filter) {
            return Err(Fault::malformed("a malformed topic filter"));
        }
        if kind == kind::UNSUBSCRIBE {
            continue;
        }
        let options = at.byte()?;
        let reserved = if version == Version::V3 { 0xFC } else { 0xC0 };
        if options & reserved != 0 || options & 0x03 == 3 || options & 0x30 == 0x30 {
            return Err(Fault::malformed("wrong subscription options"));
        }
        if version == Version::V5
            && let Some(shared) = filter.strip_prefix("$share/")
        {
            shared_filter(shared, options)?;
        }
    }
    Ok(())
}

/// §4.8.2: `$share/{name}/{filter}`, never with No Local. Refused later all the same, by SUBACK.
fn shared_filter(shared: &str, options: u8) -> Result<(), Fault> {
    let named = shared.split_once('/').is_some_and(|(name, filter)| {
        !name.is_empty() && !name.contains(['+', '#']) && !filter.is_empty()
    });
    if !named {
        return Err(Fault::protocol(
            "a shared subscription without a name or filter",
        ));
    }
    if options & 0x04 != 0 {
        return Err(Fault::protocol("a shared subscription with No Local"));
    }
    Ok(())
}

/// Where properties stand: §2.2.2.2 says which may stand where.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Connect,
    Will,
    Publish,
    Ack,
    Subscribe,
    Unsubscribe,
    Disconnect,
}

/// How a property's value is laid out.
enum Value {
    Bool,
    U16,
    U32,
    Varint,
    Binary,
    Text,
    Pair,
}

/// The properties of §2.2.2.2: layout, and where a client may send it.
fn property(id: usize) -> Option<(Value, &'static [In])> {
    use In::{Ack, Connect, Disconnect, Publish, Subscribe, Unsubscribe, Will};
    Some(match id {
        0x01 => (Value::Bool, &[Publish, Will]),
        0x02 => (Value::U32, &[Publish, Will]),
        0x03 | 0x08 => (Value::Text, &[Publish, Will]),
        0x09 => (Value::Binary, &[Publish, Will]),
        // In a client's PUBLISH it is without meaning, and harmless.
        0x0B => (Value::Varint, &[Subscribe, Publish]),
        0x11 => (Value::U32, &[Connect, Disconnect]),
        0x15 => (Value::Text, &[Connect]),
        0x16 => (Value::Binary, &[Connect]),
        0x17 | 0x19 => (Value::Bool, &[Connect]),
        0x18 => (Value::U32, &[Will]),
        0x1F => (Value::Text, &[Ack, Disconnect]),
        0x21 | 0x22 => (Value::U16, &[Connect]),
        0x23 => (Value::U16, &[Publish]),
        0x26 => (
            Value::Pair,
            &[
                Connect,
                Will,
                Publish,
                Ack,
                Subscribe,
                Unsubscribe,
                Disconnect,
            ],
        ),
        0x27 => (Value::U32, &[Connect]),
        // Only a server sends these.
        0x12 | 0x1A | 0x1C => (Value::Text, &[]),
        0x13 => (Value::U16, &[]),
        0x24 | 0x25 | 0x28 | 0x29 | 0x2A => (Value::Bool, &[]),
        _ => return None,
    })
}

/// What the checks after the properties need to know of them.
#[derive(Default)]
struct Seen {
    topic_alias: Option<u16>,
}

/// Walks over the bytes of a packet; running out of them is a malformed packet.
struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Fault::malformed("the packet is too short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        self.take(2)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    fn varint(&mut self) -> Result<usize, Fault> {
        match varint(self.rest) {
            Varint::Whole { value, len } => self.take(len).map(|_| value),
            Varint::Short | Varint::Wrong => Err(Fault::malformed("a malformed variable integer")),
        }
    }

    fn packet_id(&mut self) -> Result<NonZeroU16, Fault> {
        NonZeroU16::new(self.u16()?).ok_or(Fault::protocol("packet id 0"))
    }

    fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    fn text(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.binary()?;
        let text =
            str::from_utf8(bytes).map_err(|_| Fault::malformed("a string that is not UTF-8"))?;
        if is_printable(text) {
            Ok(text)
        } else {
            Err(Fault::malformed("a string with a control character"))
        }
    }

    fn topic(&mut self) -> Result<(), Fault> {
        let topic = self.text()?;
        if topic.is_empty() || topic.contains(['+', '#']) {
            return Err(Fault::malformed("a will topic that is none"));
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Fault::malformed("bytes after the end of the packet"))
        }
    }

    fn properties(&mut self, place: In, limits: &limits::Mqtt) -> Result<Seen, Fault> {
        let len = self.varint()?;
        let mut at = Walk {
            rest: self.take(len)?,
        };
        let mut seen = Seen::default();
        let mut ids = 0_u64;
        let mut pairs = 0;
        while !at.rest.is_empty() {
            let id = at.varint()?;
            let (value, places) = property(id).ok_or(Fault::malformed("an unknown property"))?;
            let start = at.rest;
            at.value(id, &value)?;
            if let (0x23, [high, low, ..]) = (id, start) {
                seen.topic_alias = Some(u16::from_be_bytes([*high, *low]));
            }
            if !places.contains(&place) {
                return Err(Fault::malformed(
                    "a property that may not stand in this packet",
                ));
            }
            if matches!(value, Value::Pair) {
                pairs += 1;
            } else if ids & 1 << id != 0 {
                return Err(Fault::protocol("a property that stands twice"));
            }
            ids |= 1 << id;
        }
        if pairs > limits.user_properties_max {
            return Err(Fault {
                reason: Reason::QUOTA,
                why: "too many user properties",
            });
        }
        if ids & (1 << 0x15 | 1 << 0x16) == 1 << 0x16 {
            return Err(Fault::protocol("authentication data without a method"));
        }
        Ok(seen)
    }

    fn value(&mut self, id: usize, value: &Value) -> Result<(), Fault> {
        match value {
            Value::Bool if self.byte()? > 1 => Err(Fault::protocol("a flag that is not 0 or 1")),
            Value::Bool => Ok(()),
            Value::U16 => match (id, self.u16()?) {
                (0x21, 0) => Err(Fault::protocol("receive maximum 0")),
                (0x23, 0) => Err(Fault {
                    reason: Reason::TOPIC_ALIAS_INVALID,
                    why: "topic alias 0",
                }),
                _ => Ok(()),
            },
            Value::U32 if self.u32()? == 0 && id == 0x27 => {
                Err(Fault::protocol("maximum packet size 0"))
            }
            Value::U32 => Ok(()),
            Value::Varint if self.varint()? == 0 => {
                Err(Fault::protocol("subscription identifier 0"))
            }
            Value::Varint => Ok(()),
            Value::Binary => self.binary().map(|_| ()),
            Value::Text if id == 0x08 => match self.text()? {
                "" => Err(Fault::protocol("an empty response topic")),
                topic if topic.contains(['+', '#']) => {
                    Err(Fault::protocol("a wildcard in a response topic"))
                }
                _ => Ok(()),
            },
            Value::Text => self.text().map(|_| ()),
            Value::Pair => self.text().and_then(|_| self.text()).map(|_| ()),
        }
    }
}

/// A variable byte integer, §1.5.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Varint {
    Whole {
        value: usize,
        len: usize,
    },
    /// Not all of it is here.
    Short,
    /// Longer than four bytes, or than it needs to be (MQTT-1.5.5-1).
    Wrong,
}

pub(super) fn varint(bytes: &[u8]) -> Varint {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return match (byte, at) {
                (0, 1..) => Varint::Wrong,
                _ => Varint::Whole { value, len: at + 1 },
            };
        }
    }
    if bytes.len() < 4 {
        Varint::Short
    } else {
        Varint::Wrong
    }
}

/// §1.5.4: no NUL, and none of what a server may refuse: control characters and non-characters.
fn is_printable(text: &str) -> bool {
    let plain = text.bytes().all(|byte| matches!(byte, 0x20..0x7F));
    plain
        || text.chars().all(|c| {
            let code = u32::from(c);
            !c.is_control() && code & 0xFFFE != 0xFFFE && !(0xFDD0..=0xFDEF).contains(&code)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(version: Version, packet: &[u8]) -> Option<u8> {
        may_begin(packet[0])
            .and_then(|()| check(packet[0], &packet[2..], version, &limits::Mqtt::default()))
            .err()
            .map(|fault| fault.code())
    }

    #[test]
    fn each_gap_of_the_codec_has_its_reason_code() {
        use Version::{V3, V5};
        for (version, packet, expected) in [
            (V3, &b"\x30\x03\x00\x01a"[..], None),
            (V3, b"\x30\x03\x00\x01\0", Some(0x81)),
            (V3, b"\x30\x04\x00\x02a\x01", Some(0x81)),
            (V3, b"\x30\x04\x00\x02a#", Some(0x81)),
            (V3, b"\x38\x03\x00\x01a", Some(0x81)),
            (V3, b"\x36\x05\x00\x01a\x00\x01", Some(0x81)),
            (V3, b"\x32\x05\x00\x01a\x00\x00", Some(0x82)),
            (V5, b"\x30\x07\x00\x01a\x03\x23\x00\x00", Some(0x94)),
            (V5, b"\x30\x06\x00\x01a\x02\x01\x02", Some(0x82)),
            (V5, b"\x30\x08\x00\x01a\x04\x01\x01\x01\x01", Some(0x82)),
            (V5, b"\x30\x03\x00\x00\x00", Some(0x82)),
            (V5, b"\x30\x06\x00\x01a\x02\x24\x01", Some(0x81)),
            (V3, b"\x82\x06\x00\x01\x00\x01a\x04", Some(0x81)),
            (V3, b"\x82\x08\x00\x01\x00\x03a/#\x01", None),
            (V3, b"\x82\x08\x00\x01\x00\x03#/a\x01", Some(0x81)),
            (V5, b"\x82\x07\x00\x01\x00\x00\x01a\x40", Some(0x81)),
            (V5, b"\x82\x03\x00\x01\x00", Some(0x81)),
            (
                V5,
                b"\x82\x10\x00\x01\x00\x00\x0a$share/p/p\x04",
                Some(0x82),
            ),
            (V3, b"\x80\x06\x00\x01\x00\x01a\x00", Some(0x81)),
            (V3, b"\xC0\x00", None),
            (V3, b"\xC0\x01\x00", Some(0x81)),
            (V3, b"\xE0\x01\x00", Some(0x81)),
            (V5, b"\xE0\x01\x04", None),
            (V5, b"\x40\x04\x00\x01\xFF\x00", Some(0x82)),
            (V5, b"\x40\x04\x00\x01\x00\x01", Some(0x81)),
            (V5, b"\xF0\x00", Some(0x82)),
            (V5, b"\x20\x02\x00\x00", Some(0x82)),
            (V5, b"\x10\x00", Some(0x82)),
        ] {
            assert_eq!(
                fault(version, packet),
                expected,
                "{version:?} {packet:02x?}"
            );
        }
    }

    #[test]
    fn a_connect_says_its_version_or_what_is_wrong() {
        let limits = limits::Mqtt::default();
        let parse = |body: &[u8]| connect(body, &limits);
        assert_eq!(parse(b"\0\x04MQTT\x04\x02\0\x0a\0\x01p"), Ok(Version::V3));
        assert_eq!(parse(b"\0\x06MQIsdp\x03\x02\0\x0a\0\x01p"), Ok(Version::V3));
        assert_eq!(parse(b"\0\x04MQTT\x05\x02\0\x0a\0\0\x01p"), Ok(Version::V5));
        assert_eq!(
            parse(b"\0\x04MQTT\x06\x02\0\x0a\0\x01p"),
            Err(NotConnect::UnsupportedLevel)
        );
        assert_eq!(parse(b"\0\x04HTTP\x04"), Err(NotConnect::Foreign));
        assert_eq!(
            parse(b"\0\x04MQTT\x04\x00\0\x0a\0\x00"),
            Err(NotConnect::EmptyClientId)
        );
        for (wrong, body) in [
            ("bytes after", &b"\0\x04MQTT\x04\x02\0\x0a\0\x01p\0"[..]),
            (
                "password without user",
                b"\0\x04MQTT\x04\x42\0\x0a\0\x01p\0\x01p",
            ),
            ("reserved flag", b"\0\x04MQTT\x04\x03\0\x0a\0\x01p"),
            ("will QoS without will", b"\0\x04MQTT\x04\x0A\0\x0a\0\x01p"),
            ("NUL in the client id", b"\0\x04MQTT\x04\x02\0\x0a\0\x01\0"),
        ] {
            assert!(
                matches!(parse(body), Err(NotConnect::Fault(Version::V3, _))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_variable_integer_is_as_short_as_it_can_be() {
        assert_eq!(varint(&[0x7F]), Varint::Whole { value: 127, len: 1 });
        assert_eq!(varint(&[0x80, 0x01]), Varint::Whole { value: 128, len: 2 });
        assert_eq!(varint(&[0x80]), Varint::Short);
        assert_eq!(varint(&[0x80, 0x00]), Varint::Wrong);
        assert_eq!(varint(&[0xFF; 4]), Varint::Wrong);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_check_panic(
            first: u8, body in prop::collection::vec(any::<u8>(), 0..64), v5: bool,
        ) {
            let version = if v5 { Version::V5 } else { Version::V3 };
            let limits = limits::Mqtt::default();
            let _checked = check(first, &body, version, &limits);
            let _connect = connect(&body, &limits);
            let _head = publish_head(first, &body, version, &limits);
        }
    }
}
