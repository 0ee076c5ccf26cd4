//! The thread of a rule: log in, records out, place kept.
//!
//! A step makes one stretch and delivers it; what fails is tried again, the same stretch, after a
//! pause that doubles. The order of a step: make, deliver, then write place and dead letters in one
//! transaction, then let the log go. A crash in between delivers again, and loses nothing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use backtide_model::ObjectName;
use backtide_store::{FollowError, Followed, ReadError, Sequence, Store};
use tokio::runtime::Handle;

use super::{
    Destinations,
    desk::Desk,
    drawer::{self, DeadCause, DeadLetter, Drawer, DrawerError, Letter, Place, Replay},
    plan::{Failed, Made, Plan, Press, Source},
    replay,
    transform::transform,
};
use crate::{
    clock::Clock,
    limits, message,
    registry::{Destination, Registry, Rule},
    script::{Detail, Scripts},
    sink::{Poison, Record, Sink, SinkError, Stretch},
};

/// How often old letters are looked for, and figures are taken.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// How often the log is let go behind the place.
const LET_GO_EVERY: Duration = Duration::from_secs(1);
/// How long more is waited for once something is there.
const GATHER: Duration = Duration::from_millis(20);
const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// The watermark: a warning when so much of the bound of dead letters is in use.
const WARN_PERCENT: u64 = 80;
/// Bytes that a rule makes of one commit at most: more cannot be delivered in one piece.
const COMMIT_BYTES_MAX: usize = 64 << 20;

/// The name under which the store keeps the log for a rule.
pub(super) fn cursor(uid: &str) -> String {
    format!("{}{uid}", super::CURSOR_PREFIX)
}

/// What the thread works with.
pub(super) struct Runner {
    pub(super) name: ObjectName,
    pub(super) uid: Box<str>,
    pub(super) desk: Arc<Desk>,
    pub(super) drawer: Drawer,
    pub(super) store: Store,
    pub(super) registry: Arc<Registry>,
    pub(super) scripts: Arc<Scripts>,
    pub(super) destinations: Arc<dyn Destinations>,
    pub(super) organization: ObjectName,
    pub(super) clock: Clock,
    pub(super) runtime: Handle,
    pub(super) limits: limits::Rules,
    pub(super) work: Work,
}

/// What changes from step to step.
#[derive(Default)]
pub(super) struct Work {
    place: Place,
    replay: Option<Replay>,
    plan: Option<Plan>,
    sink: Option<Open>,
    press: Press,
    /// Commits that were read and are not made yet.
    page: VecDeque<Followed>,
    /// A stretch that is to be delivered.
    pending: Option<Pending>,
    /// Of one that was delivered, and is not written down.
    note: Option<Note>,
    pause_ms: u64,
    saved: Place,
    saved_at: Option<Instant>,
    let_go_at: Option<Instant>,
    /// Up to where the log was let go.
    let_go_of: Option<u64>,
    tidied_at: Option<Instant>,
    is_warned: bool,
}

/// A sink, and what it was made for.
struct Open {
    rule: Arc<Rule>,
    sink: Arc<dyn Sink>,
}

/// Why a step of work came to nothing.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Fenced(String),
    #[error(transparent)]
    Drawer(#[from] DrawerError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It was told to end while something was under way.
    #[error("interrupted")]
    Interrupted,
}

impl From<SinkError> for StepError {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Unavailable(reason) => Self::Unavailable(reason),
            fenced @ SinkError::Fenced(_) => Self::Fenced(fenced.to_string()),
            // A stretch without those is delivered before this is asked.
            SinkError::Refused(poison) => {
                Self::Unavailable(format!("{} records will never be taken", poison.len()))
            }
        }
    }
}

/// What a look at the log found.
enum Next {
    Commits,
    /// Only what is not for this rule: its place moved.
    Passed,
    End,
}

/// A stretch under way.
struct Pending {
    stretch: Stretch,
    sources: Vec<Source>,
    /// Of what could not be made.
    letters: Vec<Letter>,
    /// What the records are made of: inputs of poison are looked up there.
    followed: Vec<Followed>,
    kind: PendingKind,
}

enum PendingKind {
    Live,
    /// Then the replay stands here; `None`: it is done.
    Replay(Option<Replay>),
    /// Letters that are driven again, and which of them each record is made of.
    Redrive {
        letters: Vec<DeadLetter>,
        of_record: Vec<usize>,
        failed: Vec<(i64, Letter)>,
    },
}

/// What is to be written down of a stretch that was delivered. Until it is, nothing else is done;
/// where that fails it alone is tried again, so that nothing goes out twice and no letter is lost.
struct Note {
    delivered: usize,
    letters: Vec<Letter>,
    kind: NoteKind,
}

enum NoteKind {
    Live {
        reached: u64,
        is_own: bool,
        arrived_ms: Option<i64>,
    },
    Replay(Option<Replay>),
    /// Letters that leave, and those that stay with another reason.
    Redrive {
        gone: Vec<i64>,
        failed: Vec<(i64, Letter)>,
    },
}

impl Runner {
    /// Works until it is told to end.
    pub(super) fn run(mut self) {
        let watch = self.store.watch({
            let desk = Arc::clone(&self.desk);
            Box::new(move |_| desk.news.notify_one())
        });
        self.work.place = self.desk.place();
        self.work.saved = self.work.place;
        self.work.replay = self.drawer.replay().unwrap_or_default();
        while !self.desk.end.is_cancelled() {
            match self.step() {
                Ok(true) => self.work.pause_ms = 0,
                Ok(false) => self.idle(),
                Err(StepError::Interrupted) => {}
                Err(error) => self.trouble(&error),
            }
        }
        drop(watch);
        let settled = self.settle().and_then(|()| self.save());
        if let Err(error) = settled.and_then(|()| self.let_go()) {
            tracing::warn!(rule = %self.name, %error, "the last place was not written down");
        }
    }

    /// Does one thing. False where there is nothing to do.
    fn step(&mut self) -> Result<bool, StepError> {
        if self.work.note.is_some() {
            // Before the rule may become another: it was made and delivered as the rule was.
            self.settle()?;
            return Ok(true);
        }
        self.refresh()?;
        self.tidy()?;
        if self.work.pending.is_some() {
            self.deliver()?;
            return Ok(true);
        }
        // Where some was refused, the rest is pending: it comes before anything else is made.
        let has_redriven = self.redrive()?;
        if self.work.pending.is_some() {
            return Ok(true);
        }
        let has_replayed = self.replay()?;
        if self.work.pending.is_some() {
            return Ok(true);
        }
        let has_followed = self.follow()?;
        Ok(has_redriven || has_replayed || has_followed)
    }

    fn idle(&mut self) {
        let patience = match self.write_in_time() {
            Ok(true) => TIDY_EVERY,
            Ok(false) => Duration::from_millis(self.limits.save_ms),
            Err(error) => return self.trouble(&error),
        };
        self.desk.wait(&self.runtime, patience);
        // Many commits become one stretch, and one look at the log.
        self.desk.rest(&self.runtime, GATHER);
    }

    /// Tells of it once, and waits.
    fn trouble(&mut self, error: &StepError) {
        let is_fenced = matches!(error, StepError::Fenced(_));
        let (reason, now_ms) = (error.to_string(), self.clock.now_ms());
        if self.desk.fail(&reason, is_fenced, now_ms) {
            tracing::warn!(rule = %self.name, reason, "a rule cannot deliver and tries again");
        }
        metrics::counter!("backtide_rule_failures_total", "rule" => self.name.to_string())
            .increment(1);
        if is_fenced {
            tracing::error!(rule = %self.name, reason, "the rule stands still until it is started again");
            self.wait_for_another_rule();
            self.work.sink = None;
            return;
        }
        let limits = &self.limits;
        let pause_ms = (self.work.pause_ms * 2).clamp(limits.pause_ms, limits.pause_ms_max);
        self.work.pause_ms = pause_ms;
        self.desk
            .rest(&self.runtime, Duration::from_millis(pause_ms));
    }

    /// Waits until the rule is another. A nudge alone may be an old one, and trying again would fence
    /// the other instance.
    fn wait_for_another_rule(&self) {
        let now = self.work.plan.as_ref().map(|plan| Arc::clone(&plan.rule));
        let is_same = || self.registry.current().rule(&self.name).cloned() == now;
        self.runtime.block_on(async {
            while is_same() {
                tokio::select! {
                    () = self.desk.end.cancelled() => return,
                    () = self.desk.nudge.notified() => {}
                }
            }
        });
    }

    /// The rule and everything else as they are declared now, compiled; the way to its destination.
    fn refresh(&mut self) -> Result<(), StepError> {
        let snapshot = self.registry.snapshot();
        let is_current = self
            .work
            .plan
            .as_ref()
            .is_some_and(|plan| plan.snapshot.version == snapshot.version);
        if !is_current {
            let declared = snapshot
                .rule(&self.name)
                .filter(|rule| rule.uid == self.uid);
            let Some(rule) = declared.cloned() else {
                // It was deleted: this thread is about to end.
                return Err(StepError::Unavailable(
                    "the rule is not declared any more".to_owned(),
                ));
            };
            let before = self.work.plan.as_ref().map(|plan| Arc::clone(&plan.rule));
            if before.is_some_and(|before| before != rule) {
                self.forget_pending();
            }
            let mut plan =
                Plan::new(&rule, &snapshot, &self.organization).map_err(StepError::Unavailable)?;
            // A script that stays the same keeps its breaker and its place among the workers.
            if let Some(last) = self.work.plan.take()
                && last.rule.revision == plan.rule.revision
            {
                plan.program = last.program;
            }
            self.work.plan = Some(plan);
        }
        self.open_sink()
    }

    /// What was read and made and is not delivered is read and made anew: the rule as it was passed
    /// over commits in between that the rule as it is may want. Whether some of it arrived is asked
    /// of the destination again.
    fn forget_pending(&mut self) {
        self.work.page.clear();
        let is_live = |pending: &mut Pending| matches!(pending.kind, PendingKind::Live);
        if self.work.pending.take_if(is_live).is_some() {
            self.work.sink = None;
        }
    }

    fn open_sink(&mut self) -> Result<(), StepError> {
        let rule = Arc::clone(&self.plan().rule);
        if let Some(open) = &self.work.sink
            && open.rule.file.to == rule.file.to
            && same_secret(&open.rule, &rule)
        {
            return Ok(());
        }
        self.work.sink = None;
        let sink = self
            .destinations
            .sink(&rule)
            .map_err(StepError::Unavailable)?;
        let reached = self.outside(|| sink.reached())??;
        self.begin_at(reached)?;
        self.work.sink = Some(Open { rule, sink });
        Ok(())
    }

    /// Goes to where the destination says that it is.
    fn begin_at(&mut self, reached: Option<Sequence>) -> Result<(), StepError> {
        let Some(Sequence(kept)) = reached else {
            return Ok(());
        };
        let durable = self.store.durable().0;
        let place = self.work.place.reached;
        if kept > durable {
            tracing::error!(
                rule = %self.name, store = durable, destination = kept,
                "the store is older than what the destination has: what is committed from here on \
                 follows what it holds"
            );
        }
        let kept = kept.min(durable);
        if kept > place {
            // It was delivered, and the crash came before the place was written. What could not be
            // made of it is made not again but still told of.
            self.tell_failures(place, kept)?;
        } else if kept < place && self.work.place.is_own {
            // The rule kept its place itself since.
            return Ok(());
        }
        self.work.page.clear();
        self.work
            .pending
            .take_if(|pending| matches!(pending.kind, PendingKind::Live));
        if let Some(pending) = &mut self.work.pending {
            pending.stretch.reached = Sequence(kept);
        }
        self.work.place.reached = kept;
        self.save()
    }

    /// Puts aside what of delivered commits could not be made.
    fn tell_failures(&mut self, from: u64, until: u64) -> Result<(), StepError> {
        let mut at = from;
        while at < until {
            let followed = match self.store.follow(Sequence(at), self.limits.stride_bytes) {
                Ok(followed) => followed,
                Err(FollowError::Trimmed { oldest }) => {
                    at = oldest.0 - 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let followed: Vec<Followed> = followed
                .into_iter()
                .filter(|followed| followed.sequence.0 <= until)
                .collect();
            let Some(last) = followed.last().map(|last| last.sequence.0) else {
                break;
            };
            let (_, letters) = self.make(&followed, true)?;
            // Once the place says that it has come so far, nobody makes them again.
            let place = Place {
                reached: last,
                ..self.work.place
            };
            self.put_down(place, self.work.replay.clone(), &letters)?;
            self.wrote(&letters)?;
            at = last;
        }
        Ok(())
    }

    /// Runs something that takes its time, unless this is to end. That the rule becomes another
    /// breaks nothing off: half a delivery is hard to take back.
    fn outside<'f, T>(
        &self,
        future: impl FnOnce() -> futures::future::BoxFuture<'f, T>,
    ) -> Result<T, StepError> {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.desk.end.cancelled() => Err(StepError::Interrupted),
                outcome = future() => Ok(outcome),
            }
        })
    }

    // --- the log ---

    /// Makes the next stretch of the log and delivers it.
    fn follow(&mut self) -> Result<bool, StepError> {
        if self.work.page.is_empty() {
            match self.read_log()? {
                Next::Commits => {}
                Next::Passed => return Ok(true),
                Next::End => return Ok(false),
            }
        }
        let mut taken = Vec::new();
        // As many commits as fit; what they become is known when it is laid out.
        while let Some(followed) = self.work.page.pop_front() {
            self.lay(&followed, true);
            taken.push(followed);
            let press = &self.work.press;
            if press.len() >= self.limits.records_max || press.bytes() >= self.limits.bytes_max {
                break;
            }
        }
        let (made, letters) = match self.pressed(&taken) {
            Ok(pressed) => pressed,
            Err(error) => {
                for followed in taken.into_iter().rev() {
                    self.work.page.push_front(followed);
                }
                return Err(error);
            }
        };
        let reached = taken
            .last()
            .map_or(self.work.place.reached, |last| last.sequence.0);
        self.put_pending(made, letters, taken, Sequence(reached), PendingKind::Live);
        self.deliver()?;
        Ok(true)
    }

    /// Reads what comes next.
    fn read_log(&mut self) -> Result<Next, StepError> {
        let reached = Sequence(self.work.place.reached);
        let (stride, wanted) = (self.limits.stride_bytes, self.plan().matcher().wanted());
        match self.store.follow_wanted(reached, stride, wanted) {
            Ok(followed) if followed.commits.is_empty() && followed.reached > reached => {
                let (none, kind) = (Vec::new(), PendingKind::Live);
                self.put_pending(none, Vec::new(), Vec::new(), followed.reached, kind);
                self.deliver()?;
                Ok(Next::Passed)
            }
            Ok(followed) if followed.commits.is_empty() => Ok(Next::End),
            Ok(followed) => {
                self.work.page = followed.commits.into();
                Ok(Next::Commits)
            }
            Err(FollowError::Trimmed { oldest }) => {
                self.skip_to(oldest)?;
                Ok(Next::End)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The log no longer holds what comes next.
    fn skip_to(&mut self, oldest: Sequence) -> Result<(), StepError> {
        let place = &mut self.work.place;
        let (from, to) = (place.reached + 1, oldest.0 - 1);
        let skipped = to.saturating_sub(place.reached);
        place.reached = to;
        place.skipped += skipped;
        place.skipped_ms = self.clock.now_ms();
        tracing::error!(
            rule = %self.name, from, to,
            "the log was trimmed before the rule saw it: nothing of these commits was published; \
             `backtide rule replay` publishes what is stored of them"
        );
        metrics::counter!("backtide_rule_skipped_commits_total", "rule" => self.name.to_string())
            .increment(skipped);
        self.write(&[])
    }

    // --- making ---

    fn plan(&self) -> &Plan {
        self.work
            .plan
            .as_ref()
            .expect("it is compiled before anything is made")
    }

    fn lay(&mut self, followed: &Followed, has_rows: bool) {
        let receipt = self.store.receipt(followed.sequence).to_string();
        let plan = self
            .work
            .plan
            .as_ref()
            .expect("it is compiled before anything is made");
        plan.take(followed, &receipt, has_rows, &mut self.work.press);
    }

    /// What the rule makes of commits, and letters of what it could not.
    fn make(
        &mut self,
        followed: &[Followed],
        has_rows: bool,
    ) -> Result<(Vec<Made>, Vec<Letter>), StepError> {
        for commit in followed {
            self.lay(commit, has_rows);
        }
        self.pressed(followed)
    }

    /// What was laid out, through the script where there is one.
    fn pressed(&mut self, followed: &[Followed]) -> Result<(Vec<Made>, Vec<Letter>), StepError> {
        let made = self.work.press.records();
        let failed = std::mem::take(&mut self.work.press.failed);
        let plan = self.plan();
        let mut letters: Vec<Letter> = failed
            .into_iter()
            .map(|failed| letter_of(plan, followed, failed, DeadCause::Make))
            .collect();
        let Some(program) = plan.program.clone() else {
            return Ok((made, letters));
        };
        if made.is_empty() {
            return Ok((made, letters));
        }
        let scripts = Arc::clone(&self.scripts);
        let transformed = self.outside(|| {
            Box::pin(async move { transform(&scripts, &program, made, Detail::Outcome).await })
        })?;
        let transformed = transformed.map_err(StepError::Unavailable)?;
        let plan = self.plan();
        let inputs = Inputs::of(plan, followed, transformed.misfits.iter().map(|m| m.source));
        letters.extend(transformed.misfits.into_iter().map(|misfit| {
            let failed = Failed {
                input: inputs.get(misfit.source),
                source: misfit.source,
                reason: misfit.reason,
                line: misfit.line,
                column: misfit.column,
            };
            letter_of(plan, followed, failed, DeadCause::Script)
        }));
        Ok((transformed.made, letters))
    }

    fn put_pending(
        &mut self,
        made: Vec<Made>,
        mut letters: Vec<Letter>,
        followed: Vec<Followed>,
        reached: Sequence,
        mut kind: PendingKind,
    ) {
        let (mut sources, mut records) = (
            Vec::with_capacity(made.len()),
            Vec::with_capacity(made.len()),
        );
        let (mut of_commit, mut bytes) = (Sequence(0), 0);
        let (mut beyond, mut places): (Vec<Made>, _) = (Vec::new(), BTreeSet::new());
        for (place, made) in made.into_iter().enumerate() {
            if made.source.commit != of_commit {
                (of_commit, bytes) = (made.source.commit, 0);
            }
            bytes += made.record.value.len();
            if bytes > COMMIT_BYTES_MAX {
                beyond.push(made);
                places.insert(place);
                continue;
            }
            sources.push(made.source);
            records.push(made.record);
        }
        let reason = format!(
            "the rule makes more than {} MiB of its commit",
            COMMIT_BYTES_MAX >> 20
        );
        if let PendingKind::Redrive {
            letters,
            of_record,
            failed,
        } = &mut kind
        {
            // They are letters already, and stay.
            let again = places.iter().map(|place| {
                let letter = &letters[of_record[*place]];
                let again = self.again(letter, DeadCause::Make, reason.clone(), None);
                (letter.id, again)
            });
            add_failed(failed, again.collect());
            retain(of_record, &places);
        } else if !beyond.is_empty() {
            let plan = self.plan();
            let inputs = Inputs::of(plan, &followed, beyond.iter().map(|made| made.source));
            letters.extend(beyond.into_iter().map(|made| {
                let failed = Failed {
                    input: inputs.get(made.source),
                    source: made.source,
                    reason: reason.clone(),
                    line: None,
                    column: None,
                };
                letter_of(plan, &followed, failed, DeadCause::Make)
            }));
        }
        self.work.pending = Some(Pending {
            stretch: Stretch { records, reached },
            sources,
            letters,
            followed,
            kind,
        });
    }

    // --- delivery ---

    /// Delivers what is pending, and takes note of it.
    fn deliver(&mut self) -> Result<(), StepError> {
        let (Some(pending), Some(open)) = (&self.work.pending, &self.work.sink) else {
            return Ok(());
        };
        let sink = Arc::clone(&open.sink);
        // A sink that keeps the cursor is told of every stretch, the others of records alone.
        let poison = match pending.stretch.records.is_empty() && !self.keeps_cursor() {
            true => Vec::new(),
            false => match self.outside(|| sink.deliver(&pending.stretch))? {
                Err(SinkError::Refused(poison)) => return self.set_aside(poison),
                outcome => outcome?,
            },
        };
        if let Some(pending) = self.work.pending.take() {
            let note = self.note(pending, poison);
            self.desk.published(note.delivered, self.clock.now_ms());
            metrics::counter!("backtide_rule_published_total", "rule" => self.name.to_string())
                .increment(note.delivered as u64);
            self.work.note = Some(note);
        }
        self.settle()
    }

    /// Nothing of the stretch was delivered: what will never be is put aside first, durably, and
    /// the rest comes next.
    fn set_aside(&mut self, poison: Vec<Poison>) -> Result<(), StepError> {
        let Some(pending) = &self.work.pending else {
            return Ok(());
        };
        let refused: BTreeSet<usize> = poison.iter().map(|poison| poison.index).collect();
        let again = match &pending.kind {
            PendingKind::Redrive { .. } => self.refused_again(pending, poison),
            PendingKind::Live | PendingKind::Replay(_) => {
                let letters = self.refused(pending, poison);
                // The stretch stays whole until they are durable: else it is refused once more.
                self.write(&letters)?;
                Vec::new()
            }
        };
        if let Some(pending) = &mut self.work.pending {
            retain(&mut pending.stretch.records, &refused);
            retain(&mut pending.sources, &refused);
            if let PendingKind::Redrive {
                of_record, failed, ..
            } = &mut pending.kind
            {
                retain(of_record, &refused);
                add_failed(failed, again);
            }
        }
        Ok(())
    }

    /// Letters that are driven again and whose records the destination will never take.
    fn refused_again(&self, pending: &Pending, poison: Vec<Poison>) -> Vec<(i64, Letter)> {
        let PendingKind::Redrive {
            letters, of_record, ..
        } = &pending.kind
        else {
            return Vec::new();
        };
        let again = |poison: Poison| {
            let letter = &letters[of_record[poison.index]];
            let record = &pending.stretch.records[poison.index];
            let again = self.again(letter, DeadCause::Refused, poison.reason, Some(record));
            (letter.id, again)
        };
        poison.into_iter().map(again).collect()
    }

    /// Letters of records that the destination will never take.
    fn refused(&self, pending: &Pending, poison: Vec<Poison>) -> Vec<Letter> {
        let plan = self.plan();
        let sources = poison.iter().map(|poison| pending.sources[poison.index]);
        let inputs = Inputs::of(plan, &pending.followed, sources);
        let letter = |poison: Poison| {
            let source = pending.sources[poison.index];
            let failed = Failed {
                source,
                reason: poison.reason,
                line: None,
                column: None,
                input: inputs.get(source),
            };
            let mut letter = letter_of(plan, &pending.followed, failed, DeadCause::Refused);
            letter.made = Some(text_of(&pending.stretch.records[poison.index]));
            letter
        };
        poison.into_iter().map(letter).collect()
    }

    fn keeps_cursor(&self) -> bool {
        let to = self.work.sink.as_ref().map(|open| &open.rule.file.to);
        matches!(to, Some(Destination::Kafka(kafka))
            if kafka.guarantee == crate::registry::Guarantee::ExactlyOnce)
    }

    /// What is to be written down of a stretch that was delivered, but for its poison.
    fn note(&self, pending: Pending, poison: Vec<Poison>) -> Note {
        let delivered = pending.stretch.records.len().saturating_sub(poison.len());
        let (refused, again) = match &pending.kind {
            PendingKind::Redrive { .. } => (Vec::new(), self.refused_again(&pending, poison)),
            PendingKind::Live | PendingKind::Replay(_) => {
                (self.refused(&pending, poison), Vec::new())
            }
        };
        let mut letters = pending.letters;
        letters.extend(refused);
        let kind = match pending.kind {
            PendingKind::Live => NoteKind::Live {
                reached: pending.stretch.reached.0,
                is_own: !self.keeps_cursor(),
                arrived_ms: pending
                    .followed
                    .last()
                    .map(|last| last.commit.origin.arrived_ms),
            },
            PendingKind::Replay(replay) => NoteKind::Replay(replay.map(|replay| Replay {
                published: replay.published + delivered as u64,
                ..replay
            })),
            PendingKind::Redrive {
                letters,
                mut failed,
                ..
            } => {
                add_failed(&mut failed, again);
                let is_kept = |id: &i64| failed.iter().any(|(kept, _)| kept == id);
                let ids = letters.iter().map(|letter| letter.id);
                NoteKind::Redrive {
                    gone: ids.filter(|id| !is_kept(id)).collect(),
                    failed,
                }
            }
        };
        Note {
            delivered,
            letters,
            kind,
        }
    }

    /// Writes down what was delivered, if that is still to be done.
    fn settle(&mut self) -> Result<(), StepError> {
        let Some(note) = self.work.note.take() else {
            return Ok(());
        };
        if let Err(error) = self.put_note(&note) {
            self.work.note = Some(note);
            return Err(error);
        }
        if let Some(trouble) = self.desk.succeed() {
            let seconds = (self.clock.now_ms() - trouble.since) / 1_000;
            tracing::info!(rule = %self.name, seconds, "the rule delivers again");
        }
        self.desk
            .set_place(self.work.place, self.work.replay.as_ref());
        match note.kind {
            NoteKind::Live { arrived_ms, .. } => {
                if let Some(arrived_ms) = arrived_ms {
                    self.desk.arrived(arrived_ms);
                }
            }
            NoteKind::Replay(Some(_)) => {}
            NoteKind::Replay(None) => tracing::info!(rule = %self.name, "the replay is done"),
            NoteKind::Redrive { gone, failed } => {
                tracing::info!(
                    rule = %self.name, delivered = gone.len(), again = failed.len(),
                    "dead letters were driven again"
                );
                self.desk.set_size(self.drawer.size()?);
                return self.save();
            }
        }
        self.wrote(&note.letters)
    }

    /// Nothing in memory is ahead of the file where this fails.
    fn put_note(&mut self, note: &Note) -> Result<(), StepError> {
        let mut place = self.work.place;
        place.published += note.delivered as u64;
        match &note.kind {
            NoteKind::Live {
                reached, is_own, ..
            } => {
                (place.reached, place.is_own) = (*reached, *is_own);
                if note.letters.is_empty() && !self.is_due() {
                    self.work.place = place;
                    return Ok(());
                }
                self.put_down(place, self.work.replay.clone(), &note.letters)
            }
            NoteKind::Replay(replay) => self.put_down(place, replay.clone(), &note.letters),
            NoteKind::Redrive { gone, failed } => {
                self.drawer.settle(gone, failed, self.clock.now_ms())?;
                self.work.place = place;
                Ok(())
            }
        }
    }

    // --- the place ---

    fn write(&mut self, letters: &[Letter]) -> Result<(), StepError> {
        self.put_down(self.work.place, self.work.replay.clone(), letters)?;
        self.wrote(letters)
    }

    /// Writes a place, a replay and letters, all or nothing; only then the rule stands there.
    fn put_down(
        &mut self,
        place: Place,
        replay: Option<Replay>,
        letters: &[Letter],
    ) -> Result<(), StepError> {
        self.drawer
            .write(place, replay.as_ref(), letters, self.clock.now_ms())?;
        self.desk.set_place(place, replay.as_ref());
        self.work.place = place;
        self.work.replay = replay;
        self.work.saved = place;
        self.work.saved_at = Some(Instant::now());
        for letter in letters {
            metrics::counter!("backtide_rule_dead_letters_total",
                "rule" => self.name.to_string(), "cause" => letter.cause.word())
            .increment(1);
        }
        Ok(())
    }

    /// What follows a write, and may fail without undoing it.
    fn wrote(&mut self, letters: &[Letter]) -> Result<(), StepError> {
        if !letters.is_empty() {
            self.desk.set_size(self.drawer.size()?);
        }
        if self
            .work
            .let_go_at
            .is_none_or(|at| at.elapsed() >= LET_GO_EVERY)
        {
            self.let_go()?;
        }
        Ok(())
    }

    /// Writes the place down where it is another than before.
    fn save(&mut self) -> Result<(), StepError> {
        match self.work.place == self.work.saved && self.work.saved_at.is_some() {
            true => Ok(()),
            false => self.write(&[]),
        }
    }

    /// Writes down what is due: not with every commit. Whether nothing is left for later.
    fn write_in_time(&mut self) -> Result<bool, StepError> {
        if self.is_due() {
            self.save()?;
        }
        let has_let_go = |work: &Work| work.let_go_of == Some(work.saved.reached);
        let is_due = |at: Instant| at.elapsed() >= LET_GO_EVERY;
        if !has_let_go(&self.work) && self.work.let_go_at.is_none_or(is_due) {
            self.let_go()?;
        }
        Ok(self.work.place == self.work.saved && has_let_go(&self.work))
    }

    fn is_due(&self) -> bool {
        let save = Duration::from_millis(self.limits.save_ms);
        self.work.saved_at.is_none_or(|at| at.elapsed() >= save)
    }

    /// Lets the log go behind what was written down.
    fn let_go(&mut self) -> Result<(), StepError> {
        let at = Sequence(self.work.saved.reached);
        self.store.set_cursor(&cursor(&self.uid), at)?;
        self.work.let_go_at = Some(Instant::now());
        self.work.let_go_of = Some(at.0);
        Ok(())
    }

    /// Keeps dead letters in their bounds.
    fn tidy(&mut self) -> Result<(), StepError> {
        if self
            .work
            .tidied_at
            .is_some_and(|at| at.elapsed() < TIDY_EVERY)
        {
            return Ok(());
        }
        self.work.tidied_at = Some(Instant::now());
        let age_ms = i64::from(self.limits.dead_letter_age_days_max) * DAY_MS;
        let bytes_max = self.limits.dead_letter_bytes_max;
        let dropped = self.drawer.prune(self.clock.now_ms() - age_ms, bytes_max)?;
        if dropped > 0 {
            tracing::warn!(
                rule = %self.name, letters = dropped,
                "dead letters were too old, or made room for newer ones"
            );
            self.work.place.dropped += dropped;
            self.write(&[])?;
        }
        let size = self.drawer.size()?;
        self.desk.set_size(size);
        let percent = size.bytes.saturating_mul(100) / bytes_max.max(1);
        if percent >= WARN_PERCENT && !self.work.is_warned {
            tracing::warn!(
                rule = %self.name, bytes = size.bytes,
                "dead letters take {percent} % of their bound; then the oldest go: re-drive or \
                 discard them, or raise rules.dead_letter_bytes_max"
            );
        }
        self.work.is_warned = percent >= WARN_PERCENT;
        Ok(())
    }

    // --- letters again ---

    /// Drives letters again that wait for it.
    fn redrive(&mut self) -> Result<bool, StepError> {
        if !self.desk.has_waiting() {
            return Ok(false);
        }
        let letters = self.drawer.waiting(self.limits.redrive_batch)?;
        self.desk.set_size(self.drawer.size()?);
        if letters.is_empty() {
            return Ok(false);
        }
        let mut failed = Vec::new();
        let (mut made, mut of_made) = (Vec::new(), Vec::new());
        for (place, letter) in letters.iter().enumerate() {
            match self.make_again(letter)? {
                Ok(again) => {
                    if again.is_empty() {
                        tracing::info!(rule = %self.name, letter = letter.id,
                            "a dead letter left: the rule as it is now makes nothing of it");
                        metrics::counter!("backtide_rule_letters_left_out_total",
                            "rule" => self.name.to_string())
                        .increment(1);
                    }
                    of_made.extend(std::iter::repeat_n(place, again.len()));
                    made.extend(again);
                }
                Err((cause, failure)) => {
                    let mut kept = self.again(letter, cause, failure.reason, None);
                    (kept.line, kept.column) = (failure.line, failure.column);
                    failed.push((letter.id, kept));
                }
            }
        }
        let reached = Sequence(self.work.place.reached);
        let kind = PendingKind::Redrive {
            letters,
            of_record: of_made,
            failed,
        };
        self.put_pending(made, Vec::new(), Vec::new(), reached, kind);
        self.deliver()?;
        Ok(true)
    }

    /// What the rule as it is now makes of a letter.
    fn make_again(
        &mut self,
        letter: &DeadLetter,
    ) -> Result<Result<Vec<Made>, (DeadCause, Failed)>, StepError> {
        let source = drawer::source(letter);
        let failed = |reason: String| Failed {
            source,
            reason,
            line: None,
            column: None,
            input: String::new(),
        };
        let (product, row) = match message::read(&letter.input) {
            Ok(read) => read,
            Err(why) => return Ok(Err((DeadCause::Make, failed(why)))),
        };
        let receipt = self.store.receipt(source.commit).to_string();
        let arrived_ms = self.arrived_ms(source.commit)?;
        let plan = self
            .work
            .plan
            .as_ref()
            .expect("it is compiled before anything is made");
        let heading = plan.heading(&product);
        let origin = (
            source,
            receipt.as_str(),
            letter.channel.as_str(),
            arrived_ms,
        );
        plan.take_one(&row, &heading, origin, &mut self.work.press);
        let made = self.work.press.records();
        if let Some(failed) = std::mem::take(&mut self.work.press.failed).pop() {
            return Ok(Err((DeadCause::Make, failed)));
        }
        let Some(program) = plan.program.clone().filter(|_| !made.is_empty()) else {
            return Ok(Ok(made));
        };
        let scripts = Arc::clone(&self.scripts);
        let transformed = self.outside(|| {
            Box::pin(async move { transform(&scripts, &program, made, Detail::Outcome).await })
        })?;
        let mut transformed = transformed.map_err(StepError::Unavailable)?;
        Ok(match transformed.misfits.pop() {
            None => Ok(transformed.made),
            Some(misfit) => Err((
                DeadCause::Script,
                Failed {
                    line: misfit.line,
                    column: misfit.column,
                    ..failed(misfit.reason)
                },
            )),
        })
    }

    fn arrived_ms(&self, commit: Sequence) -> Result<i64, StepError> {
        let origins = self.store.origins(&[commit])?;
        Ok(origins
            .first()
            .map_or(0, |lineage| lineage.origin.arrived_ms))
    }

    fn again(
        &self,
        letter: &DeadLetter,
        cause: DeadCause,
        reason: String,
        made: Option<&Record>,
    ) -> Letter {
        Letter {
            source: drawer::source(letter),
            channel: letter.channel.clone(),
            asset: letter.asset_id.clone(),
            cause,
            reason,
            revision: self.plan().rule.revision,
            line: None,
            column: None,
            input: letter.input.clone(),
            made: made.map(text_of),
        }
    }

    // --- replay ---

    /// Publishes a piece of what is to be published again.
    fn replay(&mut self) -> Result<bool, StepError> {
        if let Some(ordered) = self.desk.take_order() {
            self.work.replay = Some(ordered);
            self.write(&[])?;
        }
        let Some(replay) = self.work.replay.clone() else {
            return Ok(false);
        };
        match replay.shelf.is_done {
            false => self.replay_shelf(&replay)?,
            true => self.replay_log(replay)?,
        }
        Ok(true)
    }

    fn replay_shelf(&mut self, replay: &Replay) -> Result<(), StepError> {
        if replay.shelf.last < replay.from {
            let mut shelf = replay.shelf.clone();
            shelf.is_done = true;
            self.work.replay = Some(Replay {
                shelf,
                ..replay.clone()
            });
            return self.write(&[]);
        }
        let page = replay::page(&self.store, self.plan(), replay.from, &replay.shelf)?;
        let next = Replay {
            shelf: page.shelf,
            ..replay.clone()
        };
        self.replay_page(page.followed, Some(next), false)
    }

    fn replay_log(&mut self, replay: Replay) -> Result<(), StepError> {
        let followed = match self
            .store
            .follow(Sequence(replay.reached), self.limits.stride_bytes)
        {
            Ok(followed) => followed,
            Err(FollowError::Trimmed { oldest }) => {
                // Trimmed since it began: stored history has it.
                tracing::warn!(rule = %self.name, oldest = oldest.0, "the log went on: the replay \
                    reads the rest of what went out of stored history");
                let shelf = drawer::Shelf {
                    last: oldest.0 - 1,
                    ..drawer::Shelf::default()
                };
                let (from, reached) = (replay.reached + 1, oldest.0 - 1);
                self.work.replay = Some(Replay {
                    from,
                    reached,
                    shelf,
                    ..replay
                });
                return self.write(&[]);
            }
            Err(error) => return Err(error.into()),
        };
        let mut followed: Vec<Followed> = followed
            .into_iter()
            .filter(|followed| followed.sequence.0 <= replay.until)
            .collect();
        // A stretch is no larger than those of the log.
        followed.truncate(self.limits.records_max.max(1));
        let reached = followed.last().map_or(replay.until, |last| last.sequence.0);
        let next = (reached < replay.until).then_some(Replay { reached, ..replay });
        self.replay_page(followed, next, true)
    }

    fn replay_page(
        &mut self,
        followed: Vec<Followed>,
        next: Option<Replay>,
        has_rows: bool,
    ) -> Result<(), StepError> {
        let (made, letters) = self.make(&followed, has_rows)?;
        // The cursor of the log stays where it is.
        let reached = Sequence(self.work.place.reached);
        self.put_pending(made, letters, followed, reached, PendingKind::Replay(next));
        self.deliver()
    }
}

/// Of a letter that became several records, one reason is enough.
fn add_failed(failed: &mut Vec<(i64, Letter)>, more: Vec<(i64, Letter)>) {
    for (id, letter) in more {
        if failed.iter().all(|(other, _)| *other != id) {
            failed.push((id, letter));
        }
    }
}

/// Takes the items at `places` out.
fn retain<T>(items: &mut Vec<T>, places: &BTreeSet<usize>) {
    let mut place = 0;
    items.retain(|_| {
        let is_kept = !places.contains(&place);
        place += 1;
        is_kept
    });
}

fn same_secret(one: &Rule, other: &Rule) -> bool {
    use secrecy::ExposeSecret;
    let text = |rule: &Rule| {
        rule.secret
            .as_ref()
            .map(|secret| secret.expose_secret().to_owned())
    };
    text(one) == text(other)
}

/// Messages of rows as they were stored.
struct Inputs(BTreeMap<Source, String>);

impl Inputs {
    fn of(plan: &Plan, followed: &[Followed], sources: impl Iterator<Item = Source>) -> Self {
        let mut wanted: BTreeMap<Sequence, BTreeSet<Source>> = BTreeMap::new();
        for source in sources {
            wanted.entry(source.commit).or_default().insert(source);
        }
        let mut inputs = BTreeMap::new();
        for commit in followed {
            let Some(sources) = wanted.get(&commit.sequence) else {
                continue;
            };
            // Out of stored history a commit is one row, the first.
            let places = sources
                .iter()
                .map(|source| source.row.unwrap_or(0))
                .collect();
            let mut texts = plan.inputs(commit, &places);
            for source in sources {
                if let Some(text) = texts.remove(&source.row.unwrap_or(0)) {
                    inputs.entry(*source).or_insert(text);
                }
            }
        }
        Self(inputs)
    }

    fn get(&self, source: Source) -> String {
        self.0.get(&source).cloned().unwrap_or_default()
    }
}

fn letter_of(plan: &Plan, followed: &[Followed], failed: Failed, cause: DeadCause) -> Letter {
    let commit = followed
        .iter()
        .find(|followed| followed.sequence == failed.source.commit);
    let channel = commit.map(|followed| followed.commit.origin.channel.to_string());
    let asset = message::read(&failed.input).map(|(_, row)| row.asset_id.to_string());
    Letter {
        source: failed.source,
        channel: channel.unwrap_or_default(),
        asset: asset.unwrap_or_default(),
        cause,
        reason: failed.reason,
        revision: plan.rule.revision,
        line: failed.line,
        column: failed.column,
        input: failed.input,
        made: None,
    }
}

fn text_of(record: &Record) -> String {
    String::from_utf8_lossy(&record.value).into_owned()
}
