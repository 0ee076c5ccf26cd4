//! Holds a script whose calls hang, for a while: a pure state machine.
//!
//! Slow is not broken: only what ran into a limit counts. A held script's messages are refused into
//! quarantine, unlike those of every other script.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{Cause, Done};
use crate::limits::{
    SCRIPT_BREAKER_CPU_PERCENT, SCRIPT_BREAKER_KILLS, SCRIPT_BREAKER_WINDOW_S, SCRIPT_PAUSE_S,
};

const WINDOW: Duration = Duration::from_secs(SCRIPT_BREAKER_WINDOW_S);

/// Looks at every outcome of one script.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Calls over a limit within the window: when, their CPU time, whether the worker was killed.
    over: VecDeque<(Instant, u64, bool)>,
    held: Option<(Instant, String)>,
    /// Once a pause has ended: it was said.
    figures: Figures,
    latest_us: Latest,
}

/// What a script's calls came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    pub calls: u64,
    pub failures: u64,
    pub kills: u64,
    pub pauses: u64,
    pub cpu_us: u64,
    /// Of the latest calls.
    pub cpu_p99_us: u32,
}

/// Why a script is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    pub reason: String,
    /// Until it is tried again.
    pub seconds: u64,
}

/// What a call changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Held(String),
    Nothing,
}

impl Breaker {
    /// The pause that holds at `now`; ends one that is over.
    pub(super) fn paused(&self, now: Instant) -> Option<Pause> {
        let (until, reason) = self.held.as_ref()?;
        let left = until.checked_duration_since(now)?;
        Some(Pause {
            reason: reason.clone(),
            seconds: left.as_secs() + 1,
        })
    }

    /// Ends a pause whose time is over; true once.
    pub(super) fn resume(&mut self, now: Instant) -> bool {
        match self.held.take_if(|(until, _)| now >= *until) {
            Some(_) => {
                self.over.clear();
                true
            }
            None => false,
        }
    }

    /// Notes an outcome. `workers` run side by side.
    pub(super) fn note(&mut self, done: &Done, workers: usize, now: Instant) -> Change {
        self.figures.calls += 1;
        self.figures.cpu_us += u64::from(done.cpu_us);
        self.latest_us.push(done.cpu_us);
        let Err(failure) = &done.outcome else {
            return Change::Nothing;
        };
        self.figures.failures += 1;
        let is_kill = matches!(failure.cause, Cause::Killed | Cause::Crashed);
        self.figures.kills += u64::from(is_kill);
        if !failure.cause.is_over_limit() {
            return Change::Nothing;
        }
        self.over.push_back((now, u64::from(done.cpu_us), is_kill));
        while self
            .over
            .front()
            .is_some_and(|(at, ..)| now.duration_since(*at) > WINDOW)
        {
            self.over.pop_front();
        }
        if self.held.is_some() {
            return Change::Nothing;
        }
        let Some(reason) = self.too_much(workers) else {
            return Change::Nothing;
        };
        self.held = Some((now + Duration::from_secs(SCRIPT_PAUSE_S), reason.clone()));
        self.figures.pauses += 1;
        Change::Held(reason)
    }

    fn too_much(&self, workers: usize) -> Option<String> {
        let kills = self.over.iter().filter(|(_, _, is_kill)| *is_kill).count();
        if kills >= SCRIPT_BREAKER_KILLS {
            return Some(format!(
                "{kills} of its calls had to be killed within {SCRIPT_BREAKER_WINDOW_S} s"
            ));
        }
        let cpu_us: u64 = self.over.iter().map(|(_, cpu_us, _)| cpu_us).sum();
        let capacity_us = SCRIPT_BREAKER_WINDOW_S * 1_000_000 * workers as u64;
        (cpu_us * 100 >= capacity_us * SCRIPT_BREAKER_CPU_PERCENT).then(|| {
            format!(
                "its calls that ran into a limit took {} ms of CPU within \
                 {SCRIPT_BREAKER_WINDOW_S} s",
                cpu_us / 1_000
            )
        })
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            cpu_p99_us: self.latest_us.p99(),
            ..self.figures
        }
    }
}

/// CPU times of the latest calls.
#[derive(Debug, Default)]
struct Latest(VecDeque<u32>);

impl Latest {
    const KEPT: usize = 1_000;

    fn push(&mut self, cpu_us: u32) {
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(cpu_us);
    }

    fn p99(&self) -> u32 {
        let mut sorted: Vec<u32> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let at = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
        sorted.get(at).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Failure;
    use super::*;

    fn done(cause: Option<Cause>, cpu_us: u32) -> Done {
        Done {
            outcome: match cause {
                None => Ok(bytes::Bytes::new()),
                Some(cause) => Err(Failure::new(cause, "x")),
            },
            cpu_us,
            console: Box::default(),
            heap_bytes: 0,
        }
    }

    #[test]
    fn kills_hold_a_script_and_time_lets_it_go() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        for _ in 1..SCRIPT_BREAKER_KILLS {
            assert_eq!(
                breaker.note(&done(Some(Cause::Killed), 100_000), 2, start),
                Change::Nothing
            );
        }
        let last = breaker.note(&done(Some(Cause::Killed), 100_000), 2, start);
        assert!(matches!(last, Change::Held(_)));
        assert!(breaker.paused(start).is_some());
        assert!(!breaker.resume(start));
        let after = start + Duration::from_secs(SCRIPT_PAUSE_S);
        assert!(breaker.resume(after) && !breaker.resume(after));
        assert!(breaker.paused(after).is_none());
        let again = breaker.note(&done(Some(Cause::Killed), 100_000), 2, after);
        assert_eq!(again, Change::Nothing);
        assert_eq!(
            (breaker.figures().kills, breaker.figures().pauses),
            (SCRIPT_BREAKER_KILLS as u64 + 1, 1)
        );
    }

    #[test]
    fn slow_calls_and_errors_hold_nothing_but_wasted_time_does() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        for _ in 0..10_000 {
            assert_eq!(breaker.note(&done(None, 19_000), 1, start), Change::Nothing);
            let threw = breaker.note(&done(Some(Cause::Threw), 19_000), 1, start);
            assert_eq!(threw, Change::Nothing);
        }
        let held = (0..1_000).find(|_| {
            let change = breaker.note(&done(Some(Cause::Time), 20_000), 1, start);
            matches!(change, Change::Held(_))
        });
        assert_eq!(held, Some(124), "a quarter of ten seconds is 125 calls");
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        for second in 0..100 {
            let now = start + Duration::from_secs(second * 3);
            assert_eq!(
                breaker.note(&done(Some(Cause::Killed), 100_000), 2, now),
                Change::Nothing
            );
        }
    }
}
