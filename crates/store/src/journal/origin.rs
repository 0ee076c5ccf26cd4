//! Where a commit came from, as bytes.

use std::{num::NonZeroU16, sync::Arc};

use backtide_model::ChannelName;

use super::wire::{DecodeError, Reader, put_signed, put_str, put_varint};
use crate::Origin;

pub(super) fn encode(origin: &Origin, out: &mut Vec<u8>) {
    put_str(out, origin.channel.as_str());
    put_str(out, &origin.client);
    put_str(out, &origin.topic);
    put_str(out, &origin.message_id);
    put_varint(out, origin.packet_id.map_or(0, |id| u64::from(id.get())));
    put_signed(out, origin.arrived_ms);
}

pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Origin, DecodeError> {
    Ok(Origin {
        channel: ChannelName::new(reader.str("the channel")?)?,
        client: Arc::from(reader.str("the client")?),
        topic: Arc::from(reader.str("the topic")?),
        message_id: Box::from(reader.str("the message id")?),
        packet_id: NonZeroU16::new(reader.number("the packet id")?),
        arrived_ms: reader.signed("the arrival time")?,
    })
}

/// The arrival time alone.
pub(super) fn skim(reader: &mut Reader<'_>) -> Result<i64, DecodeError> {
    for what in ["the channel", "the client", "the topic", "the message id"] {
        reader.bytes(what)?;
    }
    reader.varint("the packet id")?;
    reader.signed("the arrival time")
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
            any::<i64>(),
        )
            .prop_map(
                |(channel, client, topic, message_id, packet_id, arrived_ms)| Origin {
                    channel: ChannelName::new(&channel).unwrap(),
                    client: client.into(),
                    topic: topic.into(),
                    message_id: message_id.into(),
                    packet_id: NonZeroU16::new(packet_id),
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
}
