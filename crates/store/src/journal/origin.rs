//! Where a commit came from, as bytes.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use backtide_model::ChannelName;

use super::wire::{DecodeError, Reader, put_signed, put_str, put_varint};
use crate::Origin;

pub(super) fn encode(origin: &Origin, out: &mut Vec<u8>) {
    put_str(out, origin.channel.as_str());
    put_str(out, &origin.client);
    put_str(out, &origin.topic);
    put_str(out, &origin.message_id);
    put_varint(out, marks(origin));
    put_signed(out, origin.arrived_ms);
}

pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Origin, DecodeError> {
    let channel = ChannelName::new(reader.str("the channel")?)?;
    let client = Arc::from(reader.str("the client")?);
    let topic = Arc::from(reader.str("the topic")?);
    let message_id = Box::from(reader.str("the message id")?);
    let what = "the packet id and the policies";
    let (packet_id, policies) = unmark(reader.varint(what)?).ok_or(DecodeError::Number { what })?;
    Ok(Origin {
        channel,
        client,
        topic,
        message_id,
        packet_id,
        policies,
        arrived_ms: reader.signed("the arrival time")?,
    })
}

/// Packet id and policies as one number: the id in the lower 16 bits, and above them the revision.
/// Without policies it is the packet id, as it was before there were any.
pub(crate) fn marks(origin: &Origin) -> u64 {
    let packet_id = origin.packet_id.map_or(0, |id| u64::from(id.get()));
    let policies = origin
        .policies
        .map_or(0, |policies| u64::from(policies.get()));
    policies << 16 | packet_id
}

/// What [`marks`] made one number of; `None` where it is too large for that.
pub(crate) fn unmark(marks: u64) -> Option<(Option<NonZeroU16>, Option<NonZeroU32>)> {
    let packet_id = u16::try_from(marks & u64::from(u16::MAX)).ok()?;
    let policies = u32::try_from(marks >> 16).ok()?;
    Some((NonZeroU16::new(packet_id), NonZeroU32::new(policies)))
}

/// The topic and the arrival time alone.
pub(super) fn skim<'r>(reader: &mut Reader<'r>) -> Result<(&'r [u8], i64), DecodeError> {
    reader.bytes("the channel")?;
    reader.bytes("the client")?;
    let topic = reader.bytes("the topic")?;
    reader.bytes("the message id")?;
    reader.varint("the packet id")?;
    Ok((topic, reader.signed("the arrival time")?))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::journal) fn any_origin() -> impl Strategy<Value = Origin> {
        (
            "[a-z0-9-]{1,64}",
            any::<String>(),
            any::<String>(),
            any::<String>(),
            any::<u16>(),
            any::<u32>(),
            any::<i64>(),
        )
            .prop_map(
                |(channel, client, topic, message_id, packet_id, policies, arrived_ms)| Origin {
                    channel: ChannelName::new(&channel).unwrap(),
                    client: client.into(),
                    topic: topic.into(),
                    message_id: message_id.into(),
                    packet_id: NonZeroU16::new(packet_id),
                    policies: NonZeroU32::new(policies),
                    arrived_ms,
                },
            )
    }

    proptest! {
        #[test]
        fn an_origin_reads_back(origin in any_origin()) {
            let mut out = Vec::new();
            encode(&origin, &mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(decode(&mut reader).unwrap(), origin);
            prop_assert!(reader.end("origin").is_ok());
        }
    }
    #[test]
    fn an_origin_of_before_there_were_policies_reads_as_it_did() {
        let mut out = Vec::new();
        for text in ["c", "", "", ""] {
            put_str(&mut out, text);
        }
        put_varint(&mut out, 65_535);
        put_signed(&mut out, 7);
        let read = decode(&mut Reader::new(&out)).unwrap();
        assert_eq!(
            (read.packet_id.map(NonZeroU16::get), read.policies),
            (Some(65_535), None)
        );
        let mut again = Vec::new();
        encode(&read, &mut again);
        assert_eq!(again, out);
    }

    #[test]
    fn a_revision_that_is_none_is_damage() {
        assert_eq!(unmark(1 << 48), None);
    }
}
