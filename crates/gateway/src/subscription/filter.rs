//! Which rows and events of the log a subscription takes, and how they are written.

use std::collections::HashSet;

use backtide_model::{AssetId, ElementName, ObjectName};
use backtide_store::{Followed, PartKind, Wanted};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{
    message::{self, Body, Heading},
    registry::{Contents, Snapshot, Subscription},
};

/// A message to be, without its offset.
pub(super) struct Draft {
    pub(super) partition: usize,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
}

/// What a subscription takes, as its file and everything else stood at one moment.
pub(super) struct Filter<'s> {
    snapshot: &'s Snapshot,
    organization: &'s ObjectName,
    partitions: usize,
    contents: Contents,
    /// Empty: all of them.
    models: HashSet<&'s ObjectName>,
    /// Points or events. Empty: all of them.
    elements: HashSet<&'s str>,
    /// `None`: all of them.
    assets: Option<HashSet<&'s AssetId>>,
}

impl<'s> Filter<'s> {
    pub(super) fn new(
        subscription: &'s Subscription,
        snapshot: &'s Snapshot,
        organization: &'s ObjectName,
    ) -> Self {
        let file = &subscription.file;
        Self {
            snapshot,
            organization,
            partitions: usize::from(file.partitions),
            contents: file.contents,
            models: file.models.iter().collect(),
            elements: file.elements().map(ElementName::as_str).collect(),
            assets: subscription.assets(snapshot).map(Iterator::collect),
        }
    }

    /// Which commits can make any.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            kind: match self.contents {
                Contents::Points => PartKind::Points,
                Contents::Events => PartKind::Events,
            },
            topic_begins: "",
        }
    }

    /// The messages that a commit makes, in order.
    pub(super) fn take(&self, followed: &Followed, mut tell: impl FnMut(Draft)) {
        let commit = &followed.commit;
        let heading = Heading::new(self.organization, self.snapshot, &commit.product);
        if !self.has_model(&heading) {
            return;
        }
        for mut row in message::rows(&heading, self.snapshot, commit) {
            let has_asset = |assets: &HashSet<_>| assets.contains(&row.asset_id);
            if !self.assets.as_ref().is_none_or(has_asset) || !self.keeps(&mut row.body) {
                continue;
            }
            let mut text = Vec::with_capacity(512);
            row.write(&heading, &mut text);
            tell(Draft {
                partition: partition_of(&row.asset_id, self.partitions),
                key: Bytes::copy_from_slice(row.asset_id.as_str().as_bytes()),
                value: text.into(),
            });
        }
    }

    /// Takes away what is not subscribed to. False where nothing is left.
    fn keeps(&self, body: &mut Body<'_>) -> bool {
        let has = |element: &str| self.elements.is_empty() || self.elements.contains(element);
        match (self.contents, body) {
            (Contents::Points, Body::Points(values)) => {
                values.retain(|value| has(&value.point));
                !values.is_empty()
            }
            (Contents::Events, Body::Event { event, .. }) => has(event),
            (Contents::Points, Body::Event { .. })
            | (Contents::Events, Body::Points(_))
            | (_, Body::Attributes(_)) => false,
        }
    }

    fn has_model(&self, heading: &Heading) -> bool {
        let product = heading.product();
        self.models.is_empty()
            || product.is_some_and(|product| self.models.contains(&product.model_name))
    }
}

/// Where the messages of an asset go, for ever: the first eight bytes of the SHA-256 of its id as a
/// big-endian number, modulo the partitions.
fn partition_of(asset: &AssetId, partitions: usize) -> usize {
    let digest = Sha256::digest(asset.as_str());
    let (head, _) = digest
        .split_first_chunk::<8>()
        .expect("a digest has 32 bytes");
    let partition = u64::from_be_bytes(*head) % partitions as u64;
    usize::try_from(partition).expect("below the number of partitions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_keeps_its_partition_over_versions() {
        let partition = |asset| partition_of(&AssetId::new(asset).unwrap(), 2);
        // Part of the format: messages of an asset would change places.
        assert_eq!(
            ["R80711", "R80721", "R80736", "R80790"].map(partition),
            [0, 0, 0, 0]
        );
    }
}
