//! What the thread of a rule and everybody else share: how it stands, and what it is asked to do.

use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::{runtime::Handle, sync::Notify};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::drawer::{Place, Replay, Size};
use crate::meter::Meter;

/// How a rule stands.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// It has dealt with every commit up to here.
    pub cursor: u64,
    /// Commits that were answered and are not dealt with yet.
    pub lag: u64,
    /// Arrival of the last commit that it dealt with, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrived: Option<i64>,
    /// Records that arrived at the destination, repeats included; and a second, in the last minute.
    pub published: u64,
    pub rate: f64,
    /// Deliveries that failed since the gateway started.
    pub failures: u64,
    /// Why the last one failed, until one succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Trouble>,
    /// Commits that the log no longer held when the rule came to them: what was in them is missing.
    pub skipped_commits: u64,
    pub dead_letters: u64,
    /// Of them, those that are about to be driven again.
    pub dead_letters_waiting: u64,
    pub dead_letter_bytes: u64,
    /// Dead letters that made room for newer ones or were too old.
    pub dead_letters_dropped: u64,
    /// What is published again at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayStanding>,
}

/// Why a rule does not get on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// When it began, milliseconds since 1970.
    pub since: i64,
    pub reason: String,
    /// Another instance has taken over: this one does not try again.
    pub fenced: bool,
}

/// How far a replay is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayStanding {
    /// The first commit and the last.
    pub from: u64,
    pub until: u64,
    /// `segments` while it reads stored history, then `log`.
    pub source: &'static str,
    /// The last commit that was published again out of the log.
    pub reached: u64,
    pub published: u64,
}

/// The shared state of one rule that runs.
pub(super) struct Desk {
    /// There is something to do.
    pub(super) news: Notify,
    /// Whatever is waited for, look again: the rule is another.
    pub(super) nudge: Notify,
    pub(super) end: CancellationToken,
    state: Mutex<State>,
}

struct State {
    place: Place,
    replay: Option<Replay>,
    size: Size,
    trouble: Option<Trouble>,
    failures: u64,
    arrived_ms: Option<i64>,
    meter: Meter,
    /// A replay that was asked for.
    ordered: Option<Replay>,
}

impl Desk {
    pub(super) fn new(place: Place, replay: Option<Replay>, size: Size) -> Self {
        let state = State {
            place,
            replay,
            size,
            trouble: None,
            failures: 0,
            arrived_ms: None,
            meter: Meter::default(),
            ordered: None,
        };
        Self {
            news: Notify::new(),
            nudge: Notify::new(),
            end: CancellationToken::new(),
            state: Mutex::new(state),
        }
    }

    pub(super) fn place(&self) -> Place {
        self.state.lock().place
    }

    pub(super) fn set_place(&self, place: Place, replay: Option<&Replay>) {
        let mut state = self.state.lock();
        state.place = place;
        state.replay = replay.cloned();
    }

    pub(super) fn set_size(&self, size: Size) {
        self.state.lock().size = size;
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.state.lock().size.waiting > 0
    }

    pub(super) fn arrived(&self, arrived_ms: i64) {
        self.state.lock().arrived_ms = Some(arrived_ms);
    }

    pub(super) fn published(&self, records: usize, now_ms: i64) {
        self.state.lock().meter.add(records, now_ms);
    }

    /// Tells of trouble; whether it is new.
    pub(super) fn fail(&self, reason: &str, fenced: bool, now_ms: i64) -> bool {
        let mut state = self.state.lock();
        state.failures += 1;
        let is_new = state.trouble.is_none();
        let since = state
            .trouble
            .as_ref()
            .map_or(now_ms, |trouble| trouble.since);
        let reason = reason.to_owned();
        state.trouble = Some(Trouble {
            since,
            reason,
            fenced,
        });
        is_new
    }

    /// The trouble that is over now, if there was any.
    pub(super) fn succeed(&self) -> Option<Trouble> {
        self.state.lock().trouble.take()
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.state.lock().trouble.clone()
    }

    pub(super) fn order(&self, replay: Replay) {
        self.state.lock().ordered = Some(replay);
        self.news.notify_one();
    }

    /// The replay that was asked for; from here on it is under way.
    pub(super) fn take_order(&self) -> Option<Replay> {
        let mut state = self.state.lock();
        let ordered = state.ordered.take()?;
        state.replay = Some(ordered.clone());
        Some(ordered)
    }

    pub(super) fn standing(&self, durable: u64, now_ms: i64) -> Standing {
        let state = self.state.lock();
        let place = state.place;
        let replay = state.ordered.as_ref().or(state.replay.as_ref());
        Standing {
            cursor: place.reached,
            lag: durable.saturating_sub(place.reached),
            arrived: state.arrived_ms,
            published: place.published,
            rate: state.meter.rate(now_ms),
            failures: state.failures,
            error: state.trouble.clone(),
            skipped_commits: place.skipped,
            dead_letters: state.size.letters,
            dead_letters_waiting: state.size.waiting,
            dead_letter_bytes: state.size.bytes,
            dead_letters_dropped: place.dropped,
            replay: replay.map(|replay| ReplayStanding {
                from: replay.from,
                until: replay.until,
                source: if replay.shelf.is_done {
                    "log"
                } else {
                    "segments"
                },
                reached: replay.reached,
                published: replay.published,
            }),
        }
    }

    /// Waits for news, at most so long.
    pub(super) fn wait(&self, runtime: &Handle, patience: Duration) {
        runtime.block_on(async {
            tokio::select! {
                () = self.end.cancelled() => {}
                () = self.news.notified() => {}
                () = self.nudge.notified() => {}
                () = tokio::time::sleep(patience) => {}
            }
        });
    }

    /// Waits so long, whatever the news, unless it ends or the rule becomes another.
    pub(super) fn rest(&self, runtime: &Handle, pause: Duration) {
        runtime.block_on(async {
            tokio::select! {
                () = self.end.cancelled() => {}
                () = self.nudge.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        });
    }
}
