//! What a subscription holds and how far its groups are, for people and metrics.

use serde::Serialize;
use utoipa::ToSchema;

/// A running subscription.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Messages a second that came to it in the last minute.
    pub rate: f64,
    /// Commits that were answered and are not looked through yet.
    pub behind: u64,
    /// Commits that the log no longer held when it came to them: what was in them is missing.
    pub skipped_commits: u64,
    /// Messages that made room for newer ones before their retention ended.
    pub dropped_messages: u64,
    /// Disk in use.
    pub bytes: u64,
    pub partitions: Vec<PartitionStanding>,
    pub groups: Vec<GroupStanding>,
}

/// What a partition holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStanding {
    pub partition: usize,
    /// The oldest message that is kept.
    pub oldest: u64,
    /// The offset of the next message to come.
    pub next: u64,
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupStanding {
    pub group: String,
    /// Clients in it at the moment.
    pub members: usize,
    /// Messages that are kept and not committed.
    pub lag: u64,
    /// Messages a second that were delivered in the last minute.
    pub rate: f64,
    pub offsets: Vec<OffsetStanding>,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OffsetStanding {
    pub partition: usize,
    /// Where it begins next time; absent before its first commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed: Option<u64>,
    /// What is delivered next.
    pub position: u64,
    pub lag: u64,
    /// Which member has the partition; absent where nobody is in the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<u64>,
}
