//! Where each commit came from: a few bytes a message, in chunks of consecutive commits.

use std::{collections::HashMap, sync::Arc};

use backtide_model::ChannelName;

use super::codec::{Damaged, Sink, Source, unpack};
use crate::{Origin, Sequence, journal};

/// Commits of a chunk at most: what one look-up decodes.
const CHUNK_COMMITS: usize = 4_096;

/// Where a commit came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    pub sequence: Sequence,
    pub origin: Origin,
}

/// Origins of consecutive commits, encoded. Names are written once per chunk.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) first: Sequence,
    pub(super) last: Sequence,
    pub(super) bytes: Vec<u8>,
}

/// `origins` in order of sequence.
pub(super) fn pack(origins: &[(Sequence, Arc<Origin>)]) -> Vec<Chunk> {
    origins
        .chunks(CHUNK_COMMITS)
        .filter_map(pack_chunk)
        .collect()
}

fn pack_chunk(origins: &[(Sequence, Arc<Origin>)]) -> Option<Chunk> {
    let (first, last) = (origins.first()?.0, origins.last()?.0);
    let mut names = Names::default();
    let mut rows = Sink::default();
    let (mut sequence_before, mut arrived_before) = (0, 0);
    for (sequence, origin) in origins {
        rows.unsigned(sequence.0.wrapping_sub(sequence_before));
        rows.signed(origin.arrived_ms.wrapping_sub(arrived_before));
        rows.count(names.number(origin.channel.as_str()));
        rows.count(names.number(&origin.client));
        rows.count(names.number(&origin.topic));
        rows.text(&origin.message_id);
        rows.unsigned(journal::marks(origin));
        (sequence_before, arrived_before) = (sequence.0, origin.arrived_ms);
    }
    let mut sink = Sink::default();
    sink.count(names.in_order.len());
    names.in_order.iter().for_each(|name| sink.text(name));
    sink.count(origins.len());
    sink.bytes(&rows.plain());
    Some(Chunk {
        first,
        last,
        bytes: sink.pack(),
    })
}

#[derive(Default)]
struct Names<'a> {
    numbers: HashMap<&'a str, usize>,
    in_order: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn number(&mut self, name: &'a str) -> usize {
        *self.numbers.entry(name).or_insert_with(|| {
            self.in_order.push(name);
            self.in_order.len() - 1
        })
    }
}

pub(super) fn read(chunk: &[u8]) -> Result<Vec<Lineage>, Damaged> {
    let bytes = unpack(chunk)?;
    let mut source = Source::new(&bytes);
    let mut names: Vec<Arc<str>> = Vec::new();
    for _ in 0..source.count()? {
        names.push(source.text()?.into());
    }
    let mut lineages = Vec::new();
    let commits = source.count()?;
    let mut source = Source::new(source.bytes()?);
    let name = |at: usize| names.get(at).cloned().ok_or(Damaged { at: 0 });
    let (mut sequence, mut arrived_ms) = (0_u64, 0_i64);
    for _ in 0..commits {
        sequence = sequence.wrapping_add(source.unsigned()?);
        arrived_ms = arrived_ms.wrapping_add(source.signed()?);
        let channel = name(source.count()?)?;
        let (client, topic) = (name(source.count()?)?, name(source.count()?)?);
        let message_id = source.text()?.into();
        let (packet_id, policies) = journal::unmark(source.unsigned()?).ok_or(Damaged { at: 0 })?;
        let origin = Origin {
            channel: ChannelName::new(&channel).map_err(|_| Damaged { at: 0 })?,
            client,
            topic,
            message_id,
            packet_id,
            policies,
            arrived_ms,
        };
        lineages.push(Lineage {
            sequence: Sequence(sequence),
            origin,
        });
    }
    Ok(lineages)
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroU32};

    use super::*;

    #[test]
    fn origins_read_back_and_cost_a_few_bytes_each() {
        let origins: Vec<_> = (1..=10_000_u64)
            .map(|n| {
                let origin = Origin {
                    channel: ChannelName::new("scada").unwrap(),
                    client: "gateway-1".into(),
                    topic: "/sys/pk/dk/thing/measurepoint/post".into(),
                    message_id: format!("{n}").into(),
                    packet_id: NonZeroU16::new(u16::try_from(n % 7).unwrap()),
                    policies: NonZeroU32::new(u32::try_from(n % 3).unwrap()),
                    arrived_ms: 1_700_000_000_000 + i64::try_from(n * 3).unwrap(),
                };
                (Sequence(n), Arc::new(origin))
            })
            .collect();
        let chunks = pack(&origins);
        let bytes: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        assert!(bytes < 13 * origins.len(), "{bytes} bytes");
        let read: Vec<_> = chunks
            .iter()
            .flat_map(|c| read(&c.bytes).unwrap())
            .collect();
        assert_eq!(read.len(), origins.len());
        for (lineage, (sequence, origin)) in read.iter().zip(&origins) {
            assert_eq!(
                (lineage.sequence, &lineage.origin),
                (*sequence, origin.as_ref())
            );
        }
    }
}
