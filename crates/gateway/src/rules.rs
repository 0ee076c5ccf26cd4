//! Rules: each follows the committed log with a cursor of its own, makes records of what it takes,
//! and delivers them to its destination.
//!
//! ```text
//! log ─▶ runner: matcher ─▶ maker ─▶ script ─▶ sink (Kafka, webhook, calculated stream)
//!          │ place, dead letters: a file                  └ poison ─▶ dead letters ─▶ re-drive
//!          └ replay: the log again, or stored history
//! ```
//!
//! [`Rules`] runs a thread for every rule that is declared, not stopped, and has somewhere to go. A
//! destination that fails delays its own rule. Nothing here is on a message's way to its reply.

mod desk;
mod destinations;
mod drawer;
mod maker;
mod matcher;
mod plan;
mod replay;
mod runner;
#[cfg(test)]
mod tests;
mod transform;
mod trial;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use backtide_model::ObjectName;
use backtide_store::{ReadError, Sequence, Store};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub use desk::{ReplayStanding, Standing, Trouble};
pub use destinations::OfGateway;
pub use drawer::{DeadCause, DeadLetter, DrawerError, Letters};
pub use trial::{Sample, Trial, TrialError, TrialRecord, TrialRow};

use crate::{
    clock::Clock,
    limits,
    pool::Pool,
    registry::{Registry, Rule},
    script::Scripts,
    sink::Sink,
    sqlite,
};
use desk::Desk;
use drawer::{Drawer, Place, Replay, Shelf};
use runner::{Runner, cursor};

/// Cursors of rules begin so: the store lets them go beyond its hard limit.
pub const CURSOR_PREFIX: &str = "rule/";
/// How long a rule whose log was trimmed under it is warned of.
const WARN_SKIPPED_MS: i64 = 24 * 3_600 * 1_000;

/// Where rules go: makes the sink of a rule.
pub trait Destinations: Send + Sync {
    /// # Errors
    /// Why there is none, and how to mend it: the rule is idle until then.
    fn sink(&self, rule: &Rule) -> Result<Arc<dyn Sink>, String>;

    /// Whether [`Self::sink`] would have one; quick, opens nothing.
    ///
    /// # Errors
    /// As [`Self::sink`].
    fn check(&self, rule: &Rule) -> Result<(), String>;
}

/// Why rules do not run.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error("rules in {}: {error}", dir.display())]
    Dir { dir: PathBuf, error: io::Error },
}

/// Why something asked of a rule was not done.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("rule {0} does not run")]
    NotRunning(String),
    #[error("nothing was committed between these moments")]
    NothingToReplay,
    #[error(transparent)]
    Drawer(#[from] DrawerError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What all rules work with.
#[derive(Clone)]
pub struct Setting {
    pub registry: Arc<Registry>,
    pub store: Store,
    pub scripts: Arc<Scripts>,
    pub destinations: Arc<dyn Destinations>,
    pub organization: ObjectName,
    pub clock: Clock,
    /// Runs what blocks: the opening and ending of rules.
    pub pool: Pool,
    /// Runs what sinks do.
    pub runtime: Handle,
    pub limits: limits::Rules,
}

/// Every rule.
pub struct Rules {
    dir: PathBuf,
    setting: Setting,
    /// Held while rules are started and ended, so that each is started once.
    running: Mutex<HashMap<Box<str>, Running>>,
    /// Why a rule that is declared and not stopped does not run, by its uid.
    failed: Mutex<HashMap<Box<str>, String>>,
}

struct Running {
    rule: Arc<Rule>,
    desk: Arc<Desk>,
    thread: thread::JoinHandle<()>,
}

/// What a rule does at the moment.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    Running(Box<Standing>),
    Stopped,
    /// It has nowhere to go, and keeps no log.
    Idle(String),
    /// Its file cannot be used.
    Failed(String),
}

impl Rules {
    /// Starts what is declared; files are under `dir`. A rule whose file cannot be used is told of
    /// in the log and does not run.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn open(dir: &Path, setting: Setting) -> Result<Arc<Self>, RulesError> {
        let failed = |error| RulesError::Dir {
            dir: dir.to_owned(),
            error,
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let rules = Self {
            dir: dir.to_owned(),
            setting,
            running: Mutex::default(),
            failed: Mutex::default(),
        };
        rules.forget_orphans().map_err(failed)?;
        rules.agree();
        Ok(Arc::new(rules))
    }

    /// Runs what is declared from here on, and nothing else, until it is told to end.
    pub async fn keep(self: Arc<Self>, closing: CancellationToken) {
        let mut changes = self.setting.registry.changes(closing);
        while changes.next().await {
            self.agree_soon().await;
        }
    }

    /// Sees to it that what was declared a moment ago runs.
    pub async fn agree_soon(self: &Arc<Self>) {
        let rules = Arc::clone(self);
        if let Err(error) = self.setting.pool.run(move || rules.agree()).await {
            tracing::error!(%error, "rules are not as they are declared");
        }
    }

    /// What a rule does.
    pub fn phase(&self, rule: &Rule) -> Phase {
        if rule.stopped {
            return Phase::Stopped;
        }
        if let Some(running) = self.running.lock().get(&rule.uid) {
            let durable = self.setting.store.durable().0;
            let standing = running.desk.standing(durable, self.setting.clock.now_ms());
            return Phase::Running(Box::new(standing));
        }
        match self.setting.destinations.check(rule) {
            Err(why) => Phase::Idle(why),
            Ok(()) => {
                let failed = self.failed.lock().get(&rule.uid).cloned();
                Phase::Failed(failed.unwrap_or_else(|| "it is about to start".to_owned()))
            }
        }
    }

    /// How a rule that does not run stood when it did.
    pub fn place(&self, rule: &Rule) -> Option<(u64, u64)> {
        let path = self.path(&rule.uid);
        if !path.exists() {
            return None;
        }
        let place = Drawer::open(&path)
            .and_then(|drawer| drawer.place())
            .ok()??;
        Some((place.reached, place.skipped))
    }

    /// Dead letters of a rule behind `after`, the oldest first. Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn letters(
        &self,
        rule: &Rule,
        after: i64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DrawerError> {
        let letters = match self.drawer(rule)? {
            Some(drawer) => drawer.list(after, limit)?,
            None => Vec::new(),
        };
        Ok(letters
            .into_iter()
            .map(|letter| self.with_receipt(letter))
            .collect())
    }

    /// One dead letter. Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn letter(&self, rule: &Rule, id: i64) -> Result<Option<DeadLetter>, DrawerError> {
        let letter = match self.drawer(rule)? {
            Some(drawer) => drawer.show(id)?,
            None => None,
        };
        Ok(letter.map(|letter| self.with_receipt(letter)))
    }

    /// Drives dead letters again, through the rule as it is now; how many will be. Blocks.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn redrive(&self, rule: &Rule, letters: &Letters) -> Result<u64, AskError> {
        let desk = self.desk(rule)?;
        let Some(mut drawer) = self.drawer(rule)? else {
            return Ok(0);
        };
        let marked = drawer.mark(letters)?;
        desk.set_size(drawer.size()?);
        desk.news.notify_one();
        Ok(marked)
    }

    /// Removes dead letters for good; how many. Blocks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn discard(&self, rule: &Rule, letters: &Letters) -> Result<u64, DrawerError> {
        let Some(mut drawer) = self.drawer(rule)? else {
            return Ok(0);
        };
        let discarded = drawer.discard(letters)?;
        if let Ok(desk) = self.desk(rule) {
            desk.set_size(drawer.size()?);
        }
        Ok(discarded)
    }

    /// Publishes again what arrived between two moments, beside what is new; the first commit of it
    /// and the last. A replay that is under way is replaced. Blocks.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn replay(
        &self,
        rule: &Rule,
        from_ms: i64,
        to_ms: Option<i64>,
    ) -> Result<(u64, u64), AskError> {
        let desk = self.desk(rule)?;
        let store = &self.setting.store;
        let from = replay::first_since(store, from_ms)?;
        // What it has not come to yet is published anyway.
        let reached = desk.place().reached;
        let until = match to_ms {
            Some(to_ms) => replay::last_before(store, to_ms)?.min(reached),
            None => reached,
        };
        if from > until {
            return Err(AskError::NothingToReplay);
        }
        let oldest = store.stats().oldest.map_or(u64::MAX, |oldest| oldest.0);
        // Where the log begins in between, stored history has what came before.
        let from_log = from.max(oldest.min(until + 1));
        let last = from_log - 1;
        desk.order(Replay {
            from,
            until,
            reached: from_log - 1,
            shelf: Shelf {
                last,
                is_done: last < from,
                ..Shelf::default()
            },
            published: 0,
        });
        Ok((from, until))
    }

    /// What somebody should look after.
    pub fn warnings(&self) -> Vec<String> {
        let now_ms = self.setting.clock.now_ms();
        let mut warnings = Vec::new();
        for running in self.running.lock().values() {
            let name = &running.rule.name;
            if let Some(trouble) = running.desk.trouble() {
                let since = crate::clock::iso(trouble.since);
                warnings.push(format!(
                    "rule {name} delivers nothing since {since}: {}",
                    trouble.reason
                ));
            }
            let place = running.desk.place();
            if place.skipped > 0 && now_ms - place.skipped_ms < WARN_SKIPPED_MS {
                warnings.push(format!(
                    "rule {name} skipped {} commits that the log no longer held",
                    place.skipped
                ));
            }
        }
        for (uid, why) in &*self.failed.lock() {
            warnings.push(format!("a rule does not run ({uid}): {why}"));
        }
        warnings.sort();
        warnings
    }

    /// Sets the gauges of every rule that runs.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub fn gauge(&self) {
        let durable = self.setting.store.durable().0;
        let now_ms = self.setting.clock.now_ms();
        for running in self.running.lock().values() {
            let name = || running.rule.name.to_string();
            let standing = running.desk.standing(durable, now_ms);
            metrics::gauge!("backtide_rule_lag_commits", "rule" => name()).set(standing.lag as f64);
            metrics::gauge!("backtide_rule_dead_letters", "rule" => name())
                .set(standing.dead_letters as f64);
            metrics::gauge!("backtide_rule_dead_letter_bytes", "rule" => name())
                .set(standing.dead_letter_bytes as f64);
            metrics::gauge!("backtide_rule_failing", "rule" => name())
                .set(f64::from(u8::from(standing.error.is_some())));
        }
    }

    /// Ends every rule; where each stands is written down.
    pub async fn close(self: &Arc<Self>) {
        let rules = Arc::clone(self);
        // Their threads may wait for what this runtime does: it goes on meanwhile.
        let closed = self.setting.pool.run(move || {
            let mut running = rules.running.lock();
            for running in running.values() {
                running.desk.end.cancel();
            }
            running.drain().for_each(|(_, running)| running.end());
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "rules end with the process");
        }
    }

    fn with_receipt(&self, letter: DeadLetter) -> DeadLetter {
        DeadLetter {
            receipt: self
                .setting
                .store
                .receipt(Sequence(letter.commit))
                .to_string(),
            ..letter
        }
    }

    fn desk(&self, rule: &Rule) -> Result<Arc<Desk>, AskError> {
        let running = self.running.lock();
        let running = running.get(&rule.uid);
        let running = running.ok_or_else(|| AskError::NotRunning(rule.name.to_string()))?;
        Ok(Arc::clone(&running.desk))
    }

    fn drawer(&self, rule: &Rule) -> Result<Option<Drawer>, DrawerError> {
        let path = self.path(&rule.uid);
        // A rule that never ran has none, and asking makes none.
        match path.exists() {
            true => Drawer::open(&path).map(Some),
            false => Ok(None),
        }
    }

    /// Runs what is declared, and nothing else. Blocks.
    fn agree(&self) {
        let mut running = self.running.lock();
        let snapshot = self.setting.registry.snapshot();
        let declared: HashMap<&str, &Arc<Rule>> = snapshot
            .rules_after(None)
            .map(|rule| (&*rule.uid, rule))
            .collect();
        let runs = |uid: &str| {
            let rule = declared.get(uid);
            rule.is_some_and(|rule| !rule.stopped && self.setting.destinations.check(rule).is_ok())
        };
        let ended: Vec<_> = running.keys().filter(|uid| !runs(uid)).cloned().collect();
        for uid in ended {
            if let Some(ended) = running.remove(&uid) {
                ended.end();
            }
            if !declared.contains_key(&*uid) {
                self.forget(&uid);
            }
        }
        self.failed
            .lock()
            .retain(|uid, _| declared.contains_key(&**uid));
        for (&uid, rule) in &declared {
            if let Some(running) = running.get_mut(uid) {
                if running.rule != **rule {
                    running.rule = Arc::clone(rule);
                    running.desk.nudge.notify_one();
                }
                continue;
            }
            if !runs(uid) {
                // A rule that is stopped or has nowhere to go keeps no log.
                self.let_go(uid);
                continue;
            }
            match self.start(rule) {
                Ok(started) => {
                    self.failed.lock().remove(uid);
                    running.insert(uid.into(), started);
                }
                Err(why) => {
                    tracing::error!(rule = %rule.name, why, "a rule does not run");
                    self.failed.lock().insert(uid.into(), why);
                }
            }
        }
    }

    fn start(&self, rule: &Arc<Rule>) -> Result<Running, String> {
        let setting = &self.setting;
        let text = |error: DrawerError| error.to_string();
        let drawer = Drawer::open(&self.path(&rule.uid)).map_err(text)?;
        let mut place = drawer.place().map_err(text)?.unwrap_or(Place {
            reached: rule.since,
            ..Place::default()
        });
        let durable = setting.store.durable().0;
        if place.reached > durable {
            tracing::error!(
                rule = %rule.name, store = durable, rule_at = place.reached,
                "the store is older than the rule: what is committed from here on follows what it \
                 holds"
            );
            place.reached = durable;
        }
        // The log is kept from here on, before the first look at it.
        setting
            .store
            .set_cursor(&cursor(&rule.uid), Sequence(place.reached))
            .map_err(|error| error.to_string())?;
        let size = drawer.size().map_err(text)?;
        let replay = drawer.replay().map_err(text)?;
        let desk = Arc::new(Desk::new(place, replay, size));
        let runner = Runner {
            name: rule.name.clone(),
            uid: rule.uid.clone(),
            desk: Arc::clone(&desk),
            drawer,
            store: setting.store.clone(),
            registry: Arc::clone(&setting.registry),
            scripts: Arc::clone(&setting.scripts),
            destinations: Arc::clone(&setting.destinations),
            organization: setting.organization.clone(),
            clock: setting.clock.clone(),
            runtime: setting.runtime.clone(),
            limits: setting.limits.clone(),
            work: runner::Work::default(),
        };
        let thread = thread::Builder::new()
            .name("rule".to_owned())
            .spawn(move || runner.run());
        Ok(Running {
            rule: Arc::clone(rule),
            desk,
            thread: thread.map_err(|error| error.to_string())?,
        })
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.dir.join(format!("{uid}.db"))
    }

    /// The log is not kept for it any more.
    fn let_go(&self, uid: &str) {
        if let Err(error) = self.setting.store.drop_cursor(&cursor(uid)) {
            tracing::warn!(%error, "the log is kept for a rule that does not run");
        }
    }

    /// It was deleted, and its dead letters with it.
    fn forget(&self, uid: &str) {
        self.let_go(uid);
        sqlite::remove(&self.path(uid));
    }

    /// What was deleted while its files could not be.
    fn forget_orphans(&self) -> io::Result<()> {
        let snapshot = self.setting.registry.snapshot();
        for uid in sqlite::names(&self.dir)? {
            if !snapshot.rules_after(None).any(|rule| *rule.uid == *uid) {
                self.forget(&uid);
            }
        }
        Ok(())
    }
}

impl Drop for Rules {
    /// Nothing is left of it that works on.
    fn drop(&mut self) {
        let running = self.running.get_mut();
        for running in running.values() {
            running.desk.end.cancel();
        }
        running.drain().for_each(|(_, running)| running.end());
    }
}

impl Running {
    fn end(self) {
        self.desk.end.cancel();
        if self.thread.join().is_err() {
            tracing::error!(rule = %self.rule.name, "a rule's thread panicked");
        }
    }
}
