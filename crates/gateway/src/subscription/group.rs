//! A consumer group: who reads which partition, how far, and what is committed. Pure.
//!
//! Partitions stay with their members as far as an even share allows. Whoever gets a partition
//! begins at what was committed of it: what was delivered and not committed is delivered again.

/// Names a member among all of a subscription.
pub(super) type MemberId = u64;

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    /// In the order in which they came.
    members: Vec<MemberId>,
    shares: Vec<Share>,
    /// The partition served last: the next pull of a member looks behind it first.
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
    /// Grows whenever the owner or the position changes other than by delivery.
    epoch: u64,
    /// What is on disk of `committed`.
    saved: Option<u64>,
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
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken,
    /// As far or farther was committed before.
    Behind,
    /// Nobody was given all that it says: taken, it would skip messages.
    Undelivered,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) owner: Option<MemberId>,
    /// What is on disk: where it begins again whatever happens.
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
            saved: *committed,
            position: committed.unwrap_or(0),
            delivered: committed.unwrap_or(0),
            ..Share::default()
        });
        Self {
            members: Vec::new(),
            shares: shares.collect(),
            served: 0,
        }
    }

    pub(super) fn join(&mut self, member: MemberId) {
        self.members.push(member);
        self.share_out();
    }

    pub(super) fn leave(&mut self, member: MemberId) {
        self.members.retain(|other| *other != member);
        for share in &mut self.shares {
            if share.owner == Some(member) {
                share.hand_to(None);
            }
        }
        self.share_out();
    }

    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// Forgetting it would lose nothing.
    pub(super) fn is_void(&self) -> bool {
        self.members.is_empty() && self.shares.iter().all(|share| share.committed.is_none())
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = MemberId> {
        self.shares.iter().filter_map(|share| share.owner)
    }

    pub(super) fn owner(&self, partition: usize) -> Option<MemberId> {
        self.shares[partition].owner
    }

    /// Gives every partition to a member, to all the same number but for one; moves none that can
    /// stay.
    fn share_out(&mut self) {
        if self.members.is_empty() {
            return;
        }
        for at in 0..self.shares.len() {
            if self.shares[at].owner.is_none() {
                let (least, _) = self.extremes();
                self.shares[at].hand_to(Some(least));
            }
        }
        loop {
            let (least, most) = self.extremes();
            if self.held(most) <= self.held(least) + 1 {
                return;
            }
            let share = self.shares.iter_mut().find(|s| s.owner == Some(most));
            share
                .expect("who holds the most holds one")
                .hand_to(Some(least));
        }
    }

    /// The members that hold the fewest and the most partitions, the first of each.
    fn extremes(&self) -> (MemberId, MemberId) {
        let members = || self.members.iter().copied();
        let least = members().min_by_key(|member| self.held(*member));
        let most = members().rev().max_by_key(|member| self.held(*member));
        let someone = "a group is shared out among its members";
        (least.expect(someone), most.expect(someone))
    }

    fn held(&self, member: MemberId) -> usize {
        self.owners().filter(|owner| *owner == member).count()
    }

    /// Something to deliver to a member. Where the oldest messages are gone, it begins behind them;
    /// how many they were is told once.
    pub(super) fn claim(&mut self, member: MemberId, extents: &[Extent]) -> (Option<Claim>, u64) {
        let count = self.shares.len();
        let mut expired = 0;
        for turn in 1..=count {
            let partition = (self.served + turn) % count;
            let (share, extent) = (&mut self.shares[partition], extents[partition]);
            if share.owner != Some(member) {
                continue;
            }
            if share.position < extent.oldest {
                // From before its first commit a group misses nothing: it begins at the oldest.
                if share.committed.is_some() {
                    expired += extent.oldest - share.position;
                }
                share.position = extent.oldest;
                share.delivered = share.delivered.max(extent.oldest);
            }
            if share.position < extent.next {
                self.served = partition;
                let claim = Claim {
                    partition,
                    from: share.position,
                    epoch: share.epoch,
                };
                return (Some(claim), expired);
            }
        }
        (None, expired)
    }

    /// Takes note that everything before `next` goes to the owner. False where the claim has lapsed:
    /// then it must not be delivered.
    pub(super) fn deliver(&mut self, claim: Claim, next: u64) -> bool {
        let share = &mut self.shares[claim.partition];
        if share.epoch != claim.epoch || share.position != claim.from {
            return false;
        }
        share.position = next;
        share.delivered = share.delivered.max(next);
        true
    }

    pub(super) fn commit(&mut self, partition: usize, offset: u64) -> Outcome {
        let Some(share) = self.shares.get_mut(partition) else {
            return Outcome::Undelivered;
        };
        if offset > share.delivered {
            return Outcome::Undelivered;
        }
        if share.committed.is_some_and(|committed| offset <= committed) {
            return Outcome::Behind;
        }
        share.committed = Some(offset);
        Outcome::Taken
    }

    /// Lets the group read on at `offset`.
    pub(super) fn seek(&mut self, partition: usize, offset: u64) {
        let share = &mut self.shares[partition];
        share.committed = Some(offset);
        share.position = offset;
        // What was delivered before must not be committed now: it would undo the seek.
        share.delivered = offset;
        share.epoch += 1;
    }

    /// Takes an offset that is committed, and kept, elsewhere; what is being read goes on from there
    /// only if it is another one.
    pub(super) fn recommit(&mut self, partition: usize, offset: u64) {
        let share = &mut self.shares[partition];
        if share.committed == share.saved && share.committed != Some(offset) {
            self.seek(partition, offset);
        }
        self.saved(partition, offset);
    }

    /// The commits that are not on disk, by partition.
    pub(super) fn unsaved(&self) -> impl Iterator<Item = (usize, u64)> {
        let shares = self.shares.iter().enumerate();
        shares.filter_map(|(partition, share)| {
            let committed = share.committed?;
            (share.saved != Some(committed)).then_some((partition, committed))
        })
    }

    pub(super) fn saved(&mut self, partition: usize, committed: u64) {
        self.shares[partition].saved = Some(committed);
    }

    pub(super) fn progress(&self, partition: usize, extent: Extent) -> Progress {
        let share = &self.shares[partition];
        let begins = share.committed.unwrap_or(0).max(extent.oldest);
        Progress {
            owner: share.owner,
            committed: share.saved,
            position: share.position.max(extent.oldest),
            lag: extent.next.saturating_sub(begins),
        }
    }
}

impl Share {
    fn hand_to(&mut self, owner: Option<MemberId>) {
        self.owner = owner;
        self.position = self.committed.unwrap_or(0);
        self.epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn group(partitions: usize) -> Group {
        Group::new(&vec![None; partitions])
    }

    fn holds(next: u64) -> Extent {
        Extent { oldest: 0, next }
    }

    fn owners(group: &Group) -> Vec<MemberId> {
        group.owners().collect()
    }

    #[test]
    fn a_third_member_of_two_partitions_waits_and_takes_over_what_is_left_behind() {
        let mut group = group(2);
        group.join(1);
        assert_eq!(owners(&group), [1, 1]);
        group.join(2);
        assert_eq!(owners(&group), [2, 1]);
        group.join(3);
        assert_eq!(owners(&group), [2, 1]);
        assert_eq!(group.claim(3, &[holds(9), holds(9)]).0, None);
        group.leave(2);
        assert_eq!(owners(&group), [3, 1], "what 1 holds stays with it");
        group.leave(1);
        group.leave(3);
        assert_eq!(owners(&group).len(), 0);
    }

    #[test]
    fn what_was_delivered_and_not_committed_goes_to_the_next_owner() {
        let mut group = group(1);
        let extents = [holds(100)];
        group.join(1);
        let claim = group.claim(1, &extents).0.unwrap();
        assert!(group.deliver(claim, 60));
        assert_eq!(group.commit(0, 40), Outcome::Taken);
        group.leave(1);
        group.join(2);
        assert_eq!(group.claim(2, &extents).0.unwrap().from, 40);
        assert_eq!(
            group.commit(0, 60),
            Outcome::Taken,
            "the one that left had it"
        );
    }

    #[test]
    fn a_commit_beyond_what_was_delivered_would_skip_and_is_not_taken() {
        let mut group = group(1);
        group.join(1);
        let claim = group.claim(1, &[holds(100)]).0.unwrap();
        group.deliver(claim, 10);
        assert_eq!(group.commit(0, 11), Outcome::Undelivered);
        assert_eq!(group.commit(0, 10), Outcome::Taken);
        assert_eq!(group.commit(0, 9), Outcome::Behind);
        assert_eq!(group.commit(7, 0), Outcome::Undelivered);
        assert_eq!(group.progress(0, holds(100)).lag, 90);
    }

    #[test]
    fn a_claim_lapses_when_the_partition_moves_or_the_group_seeks() {
        let mut group = group(1);
        let extents = [holds(100)];
        group.join(1);
        let claim = group.claim(1, &extents).0.unwrap();
        group.seek(0, 0);
        assert!(!group.deliver(claim, 10));
        let claim = group.claim(1, &extents).0.unwrap();
        group.leave(1);
        group.join(2);
        assert!(!group.deliver(claim, 10));
    }

    #[test]
    fn a_late_commit_does_not_undo_a_seek() {
        let mut group = group(1);
        group.join(1);
        let claim = group.claim(1, &[holds(100)]).0.unwrap();
        group.deliver(claim, 100);
        group.seek(0, 5);
        assert_eq!(group.commit(0, 100), Outcome::Undelivered);
        assert_eq!(group.claim(1, &[holds(100)]).0.unwrap().from, 5);
    }

    #[test]
    fn a_group_behind_what_is_kept_begins_at_the_oldest_and_says_what_it_missed() {
        let extents = [Extent {
            oldest: 50,
            next: 60,
        }];
        let mut late = Group::new(&[Some(20)]);
        late.join(1);
        let (claim, expired) = late.claim(1, &extents);
        assert_eq!((claim.unwrap().from, expired), (50, 30));
        assert_eq!(late.claim(1, &extents).1, 0, "told once");
        let mut new = group(1);
        new.join(1);
        let (claim, expired) = new.claim(1, &extents);
        assert_eq!((claim.unwrap().from, expired), (50, 0));
    }

    #[test]
    fn partitions_of_one_member_are_served_in_turn() {
        let mut group = group(2);
        group.join(1);
        let extents = [holds(100), holds(100)];
        let served: Vec<_> = (1..=4)
            .map(|n| {
                let claim = group.claim(1, &extents).0.unwrap();
                assert!(group.deliver(claim, claim.from + n));
                claim.partition
            })
            .collect();
        assert_eq!(served, [1, 0, 1, 0]);
    }

    proptest! {
        #[test]
        fn every_partition_has_an_owner_and_none_holds_two_more_than_another(
            partitions in 1..20_usize,
            steps in vec((any::<bool>(), 0..6_u64), 1..40),
        ) {
            let mut group = group(partitions);
            let mut present = HashSet::new();
            for (joins, member) in steps {
                let before: Vec<_> = group.shares.iter().map(|share| share.owner).collect();
                if joins && present.insert(member) {
                    group.join(member);
                } else if !joins && present.remove(&member) {
                    group.leave(member);
                } else {
                    continue;
                }
                let held: Vec<_> = present.iter().map(|member| group.held(*member)).collect();
                if let (Some(least), Some(most)) = (held.iter().min(), held.iter().max()) {
                    prop_assert!(most - least <= 1);
                    prop_assert_eq!(held.iter().sum::<usize>(), partitions);
                }
                let moved = before
                    .iter()
                    .zip(&group.shares)
                    .filter(|(before, share)| **before != share.owner)
                    .count();
                let share_of_one = partitions.div_ceil(present.len().max(1));
                prop_assert!(moved <= share_of_one.max(partitions.div_ceil(present.len() + 1)));
            }
        }
    }
}
