//! The seam of a subscription: where its messages come from and who keeps its groups.
//!
//! [`super::topic::Topic`] keeps both here, out of the committed log. Kafka would keep both itself:
//! a member is then a consumer of a real consumer group.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::Standing;

/// One message of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub partition: u16,
    /// 0, 1, 2, … in its partition, for ever.
    pub offset: u64,
    /// When it came to the subscription: milliseconds since 1970 UTC, never less than the one
    /// before it.
    pub time_ms: i64,
    /// The asset id, UTF-8.
    pub key: Bytes,
    /// The message's text (`decisions.md` §6), UTF-8.
    pub value: Bytes,
}

/// How much one pull gives at most; one message is given whatever its size.
#[derive(Debug, Clone, Copy)]
pub struct PullSize {
    pub bytes_max: usize,
    pub messages_max: usize,
}

/// Where a group reads on after a replay.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sought {
    pub group: String,
    pub partition: u16,
    /// The first message that is delivered again.
    pub offset: u64,
}

/// Why a subscription cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("the subscription was stopped or deleted")]
    Ended,
    #[error("the subscription has {groups_max} consumer groups, the most it may have")]
    TooManyGroups { groups_max: usize },
    #[error("the consumer group's name is longer than {bytes_max} bytes")]
    GroupName { bytes_max: usize },
    #[error("consumer group {0} is not known")]
    NoGroup(String),
    #[error("messages cannot be read: {0}")]
    Failed(String),
}

/// The messages of one subscription.
pub trait Source: Send + Sync {
    /// Makes somebody a member of a group, made with its first member. Dropping the member leaves.
    ///
    /// # Errors
    /// [`SourceError`].
    fn join(&self, group: &str) -> Result<Box<dyn Member>, SourceError>;

    /// Lets `group`, or all groups, read on at the first message at or behind `time_ms`. Blocks.
    ///
    /// # Errors
    /// [`SourceError`].
    fn seek(&self, group: Option<&str>, time_ms: i64) -> Result<Vec<Sought>, SourceError>;

    /// What it holds and how far its groups are.
    fn standing(&self) -> Standing;
}

/// One consumer of a group: gets the messages of the partitions that are its own at the moment.
pub trait Member: Send + Sync {
    /// Waits for messages. One pull at a time; dropping the future loses none.
    ///
    /// # Errors
    /// [`SourceError`].
    fn pull(&self, size: PullSize) -> BoxFuture<'_, Result<Vec<Message>, SourceError>>;

    /// Says that the group will begin at `offset` next time. One that was not delivered, or is
    /// behind what was said before, changes nothing.
    fn commit(&self, partition: u16, offset: u64);
}
