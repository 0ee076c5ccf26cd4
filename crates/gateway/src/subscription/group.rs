//! A consumer group: who reads which partition, how far, and what is committed. Pure.
//!
//! Partitions stay with their members as far as an even share allows. Whoever gets a partition
//! begins at what was committed of it: what was delivered and not committed is delivered again.

use std::sync::Arc;

use tokio::sync::Notify;

/// Names a member among all of a subscription.
pub(super) type MemberId = u64;

/// A group.
pub(super) struct Group {
    /// In the order in which they came.
    members: Vec<Seat>,
    shares: Vec<Share>,
}

/// A member and how it is told that there is something for it.
struct Seat {
    member: MemberId,
    bell: Arc<Notify>,
    /// The partition it was served from last; the next pull begins behind it.
    served: usize,
}

/// A partition as the group sees it.
#[derive(Debug, Clone, Default)]
struct Share {
    owner: Option<MemberId>,
    /// Where the group begins next time; `None` before its first commit.
    committed: Option<u64>,
    /// What the owner gets next.
    position: u64,
    /// Everything before was delivered to some member since the start or the last seek.
    delivered: u64,
    /// Grows when the owner or the position changes but by delivery.
    epoch: u64,
    is_saved: bool,
}

/// What a partition holds: `oldest..next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extent {
    pub(super) oldest: u64,
    pub(super) next: u64,
}

/// The right to deliver from a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) partition: usize,
    pub(super) from: u64,
    epoch: u64,
    /// Messages between the position and the oldest kept one: they are gone.
    pub(super) expired: u64,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken,
    /// Nothing new.
    Behind,
    /// Nobody was given what it says: taken, it would skip messages.
    Undelivered,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) owner: Option<MemberId>,
    pub(super) committed: Option<u64>,
    pub(super) position: u64,
    /// Messages that are kept and not committed.
    pub(super) lag: u64,
}

impl Group {
    /// A group with nobody in it; `committed` has an entry for each partition.
    pub(super) fn new(committed: &[Option<u64>]) -> Self {
        let shares = committed.iter().map(|committed| Share {
            committed: *committed,
            position: committed.unwrap_or(0),
            delivered: committed.unwrap_or(0),
            is_saved: true,
            ..Share::default()
        });
        Self {
            members: Vec::new(),
            shares: shares.collect(),
        }
    }

    pub(super) fn join(&mut self, member: MemberId, bell: Arc<Notify>) {
        self.members.push(Seat {
            member,
            bell,
            served: 0,
        });
        self.share_out();
    }

    pub(super) fn leave(&mut self, member: MemberId) {
        self.members.retain(|seat| seat.member != member);
        self.share_out();
    }

    /// Nothing would be lost by forgetting it.
    pub(super) fn is_void(&self) -> bool {
        self.members.is_empty() && self.shares.iter().all(|share| share.committed.is_none())
    }

    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// Gives every partition to a member, to all the same number but for one, moving as few as
    /// can be.
    fn share_out(&mut self) {
        let count = self.members.len();
        let Some(least) = self.shares.len().checked_div(count) else {
            for share in &mut self.shares {
                share.hand_to(None);
            }
            return;
        };
        let mut larger = self.shares.len() % count;
        let mut room: Vec<(MemberId, usize)> = Vec::with_capacity(count);
        for Seat { member, .. } in &self.members {
            let held = |share: &&mut Share| share.owner == Some(*member);
            let holds = self.shares.iter_mut().filter(held).count();
            let mut may_hold = least;
            if holds > least && larger > 0 {
                larger -= 1;
                may_hold += 1;
            }
            for share in self.shares.iter_mut().filter(held).skip(may_hold) {
                share.hand_to(None);
            }
            room.push((*member, may_hold.saturating_sub(holds)));
        }
        // Who may hold one more is whoever came first.
        for (_, room) in &mut room {
            if larger > 0 && *room > 0 || larger > 0 && least == 0 && *room == 0 {
                larger -= 1;
                *room += 1;
            }
        }
        let present: Vec<_> = self.members.iter().map(|seat| seat.member).collect();
        let free = self
            .shares
            .iter_mut()
            .filter(|share| share.owner.is_none_or(|owner| !present.contains(&owner)));
        let mut takers = room
            .into_iter()
            .flat_map(|(member, room)| std::iter::repeat_n(member, room));
        for share in free {
            share.hand_to(takers.next());
        }
        for seat in &self.members {
            seat.bell.notify_one();
        }
    }
}
