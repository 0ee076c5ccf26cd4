//! What of some messages was there already, and what was other than what stood there. A commit never
//! reads old data: the store compares afterwards, within a minute of quiet.

use std::collections::HashSet;

use backtide_model::ChannelName;
use backtide_store::{Lineage, Origin, ReadError, Sequence, Store};

/// Commits that are looked up together.
const WINDOW: u64 = 4_096;

/// Whose messages. What is not given does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whose {
    pub channel: Option<ChannelName>,
    /// The client id, whole.
    pub client: Option<String>,
    /// What the `id` of the request begins with.
    pub messages: Option<String>,
}

/// Commits behind one up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub after: Sequence,
    pub through: Sequence,
}

/// What was found of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Comparison {
    /// Messages of which something was committed; one that was sent twice is two.
    pub messages: u64,
    /// Those of which policies processed the values: what they stored is not what they said.
    pub processed: u64,
    /// Values that were there already.
    pub repeated: u64,
    /// Values that were other than what stood there.
    pub conflicts: u64,
    /// All is compared: there will not be more.
    pub is_complete: bool,
}

impl Whose {
    fn sent(&self, origin: &Origin) -> bool {
        let id = || {
            origin
                .message_id
                .strip_prefix('"')
                .unwrap_or(&origin.message_id)
        };
        self.channel
            .as_ref()
            .is_none_or(|channel| *channel == origin.channel)
            && self
                .client
                .as_ref()
                .is_none_or(|client| **client == *origin.client)
            && self
                .messages
                .as_ref()
                .is_none_or(|begin| id().starts_with(begin.as_str()))
    }
}

/// Counts what messages brought again, and what they brought that is other than what stood there. Blocks.
///
/// It reads the origin of every commit of the stretch: the store keeps them by sequence, in chunks that do
/// not say whose they are, and every message counts, not only one of which something differs.
///
/// # Errors
/// The store cannot be read.
pub fn compare(store: &Store, whose: &Whose, stretch: Stretch) -> Result<Comparison, ReadError> {
    // Asked before the counting: what is said to be complete then is.
    let mut found = Comparison {
        is_complete: store.compared() >= stretch.through,
        ..Comparison::default()
    };
    let mut after = stretch.after;
    while after < stretch.through {
        let through = Sequence(after.0.saturating_add(WINDOW)).min(stretch.through);
        let sequences: Vec<Sequence> = (after.0 + 1..=through.0).map(Sequence).collect();
        let own = |lineage: &Lineage| whose.sent(&lineage.origin);
        let lineages: Vec<Lineage> = store.origins(&sequences)?.into_iter().filter(own).collect();
        if !lineages.is_empty() {
            let own: HashSet<Sequence> = lineages.iter().map(|lineage| lineage.sequence).collect();
            let of_own = |counts: Vec<(Sequence, u64)>| -> u64 {
                let own = counts.iter().filter(|(sequence, _)| own.contains(sequence));
                own.map(|(_, values)| values).sum()
            };
            let processed = lineages.iter().filter(|l| l.origin.policies.is_some());
            found.messages += count(lineages.len());
            found.processed += count(processed.count());
            found.repeated += of_own(store.repeats(after, through, usize::MAX)?);
            found.conflicts += of_own(store.differences(after, through, usize::MAX)?);
        }
        after = through;
    }
    Ok(found)
}

/// The commits of messages of which some values were other than what stood there. Blocks.
///
/// # Errors
/// The store cannot be read.
pub fn differing(
    store: &Store,
    whose: &Whose,
    stretch: Stretch,
) -> Result<Vec<Sequence>, ReadError> {
    let (mut after, mut own) = (stretch.after, Vec::new());
    let limit = usize::try_from(WINDOW).unwrap_or(usize::MAX);
    loop {
        let found = store.differences(after, stretch.through, limit)?;
        let Some((last, _)) = found.last() else {
            return Ok(own);
        };
        after = *last;
        let sequences: Vec<Sequence> = found.iter().map(|(sequence, _)| *sequence).collect();
        let lineages = store.origins(&sequences)?.into_iter();
        let sent = lineages.filter(|lineage| whose.sent(&lineage.origin));
        own.extend(sent.map(|lineage| lineage.sequence));
    }
}

fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_known_by_channel_client_and_the_beginning_of_their_id() {
        let origin = Origin {
            channel: ChannelName::new("scada").unwrap(),
            client: "PK|securemode=4|".into(),
            topic: "/sys/PK/integration/measurepoint/post".into(),
            message_id: "\"5f3a-0-1\"".into(),
            packet_id: None,
            policies: None,
            arrived_ms: 0,
        };
        let whose = |channel: Option<&str>, client: Option<&str>, messages: Option<&str>| Whose {
            channel: channel.map(|name| ChannelName::new(name).unwrap()),
            client: client.map(str::to_owned),
            messages: messages.map(str::to_owned),
        };
        assert!(whose(None, None, None).sent(&origin));
        assert!(whose(Some("scada"), Some("PK|securemode=4|"), Some("5f3a-")).sent(&origin));
        assert!(!whose(Some("scad"), None, None).sent(&origin));
        assert!(!whose(None, Some("PK"), None).sent(&origin));
        assert!(!whose(None, None, Some("5f3b-")).sent(&origin));
        let number = Origin {
            message_id: "17".into(),
            ..origin
        };
        assert!(whose(None, None, Some("1")).sent(&number));
    }
}
