//! How much of the machine upkeep takes while messages come: a share of what all others use, and a little
//! more so that a trickle is not waited for. At rest it takes what it needs.
//!
//! A load that shuffles all of history makes every window dirty again and again. Computed as fast as
//! it can be, each would be computed many times over, for nobody.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// One part in so many of the CPU that others use.
const OF_OTHERS: u32 = 8;
/// And one part in so many of the time.
const OF_TIME: u32 = 100;
/// What is saved up at most.
const SAVED_MAX: Duration = Duration::from_secs(1);
/// Without a commit for so long, nothing comes.
const REST: Duration = Duration::from_secs(1);

/// CPU that was used so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    /// By this thread.
    own: Duration,
    /// By the whole process.
    all: Duration,
}

impl Used {
    fn now() -> Self {
        let read = |clock| {
            let time = clock_gettime(clock);
            let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
            Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanoseconds)
        };
        Self {
            own: read(ClockId::ThreadCPUTime),
            all: read(ClockId::ProcessCPUTime),
        }
    }
}

/// The account of the thread that keeps what is derived.
#[derive(Debug)]
pub(super) struct Share {
    used: Used,
    at: Instant,
    /// What may be used.
    saved: Duration,
    /// What was used beyond it.
    owed: Duration,
    /// When a commit was seen last.
    commit_at: Option<Instant>,
}

impl Share {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            used: Used::now(),
            at: now,
            saved: SAVED_MAX,
            owed: Duration::ZERO,
            commit_at: None,
        }
    }

    /// A commit came.
    pub(super) fn note_commit(&mut self, now: Instant) {
        self.commit_at = Some(now);
    }

    /// Whether something may be computed now.
    pub(super) fn is_left(&mut self) -> bool {
        self.settle(Used::now(), Instant::now())
    }

    fn settle(&mut self, used: Used, now: Instant) -> bool {
        let own = used.own.saturating_sub(self.used.own);
        let others = used.all.saturating_sub(self.used.all).saturating_sub(own);
        let earned = others / OF_OTHERS + now.saturating_duration_since(self.at) / OF_TIME;
        (self.used, self.at) = (used, now);
        let (have, spent) = (self.saved + earned, self.owed + own);
        self.saved = have.saturating_sub(spent).min(SAVED_MAX);
        self.owed = spent.saturating_sub(have);
        let is_busy = self
            .commit_at
            .is_some_and(|at| now.saturating_duration_since(at) < REST);
        if !is_busy {
            self.owed = Duration::ZERO;
        }
        !is_busy || self.owed.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn used(own: u32, all: u32) -> Used {
        Used {
            own: own * MS,
            all: all * MS,
        }
    }

    #[test]
    fn while_commits_come_upkeep_has_its_share_and_no_more() {
        let began = Instant::now();
        let mut share = Share::new(began);
        let (mut own, mut all, mut time) = (0, 0, 0);
        for _ in 0..10_000 {
            share.note_commit(began + time * MS);
            time += 10;
            all += 8;
            if share.settle(used(own, all), began + time * MS) {
                own += 5;
                all += 5;
            }
        }
        // An eighth of 80 s and a hundredth of 100 s; a second that was saved, and a step more.
        let allowed = 80_000 / 8 + 1_000;
        assert!((allowed - 100..=allowed + 1_005).contains(&own), "{own}");
    }

    #[test]
    fn at_rest_it_takes_what_it_needs() {
        let began = Instant::now();
        let mut share = Share::new(began);
        share.note_commit(began);
        assert!(!share.settle(used(5_000, 5_000), began + 10 * MS));
        assert!(share.settle(used(5_000, 5_000), began + 1_010 * MS));
        assert!(share.settle(used(9_000, 9_000), began + 6_000 * MS));
        // And owes nothing for that.
        share.note_commit(began + 6_000 * MS);
        assert!(share.settle(used(9_000, 9_000), began + 6_001 * MS));
    }

    #[test]
    fn a_trickle_is_not_waited_for() {
        let began = Instant::now();
        let mut share = Share::new(began);
        share.note_commit(began);
        assert!(!share.settle(used(1_050, 1_050), began));
        share.note_commit(began + 5_000 * MS);
        assert!(share.settle(used(1_050, 1_050), began + 5_000 * MS));
    }

    #[test]
    fn the_clocks_of_the_thread_and_the_process_run() {
        let before = Used::now();
        while Used::now().own <= before.own {}
        assert!(Used::now().all > before.all);
    }
}
