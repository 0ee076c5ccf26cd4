//! Drives what is in quarantine back into the pipeline: dry runs, jobs, and what a change cures.
//!
//! A job is a selection of entries, taken in the order in which they arrived. One runs at a time,
//! no faster than it is allowed to, and step by step: read entries, commit them again, note how far
//! it is. A crash between commit and note means that a step is done twice; the second time its
//! entries are gone from the quarantine, or refused once more. Nothing is ever removed here: an
//! entry leaves when the log says that it is stored.

mod cures;
mod ledger;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use backtide_model::{ChannelName, Code, Compression};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use crate::ingest::{Again, Reason, Verdict};
pub use cures::{Cure, Declared};
pub use ledger::{Counts, Job, State};

use crate::{
    channel_log::{Entry as LogEntry, What},
    ingest::{Ingest, NotTaken},
    limits::{REDRIVE_JOBS_MAX, REDRIVE_MESSAGES_PER_S},
    pool::{Pool, PoolError},
    quarantine::{Entry, Filter, Page, Payload, Quarantine, QuarantineError},
    recorder::Recording,
};
use ledger::Ledger;

/// Entries of a step at most; fewer where the rate says so.
const STEP_ENTRIES: u32 = 64;
/// Steps of a second, where the rate allows for more than one entry in each.
const STEPS_PER_S: u32 = 10;
/// How long to wait before a step that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a re-drive cannot be begun, or looked at.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    #[error("re-drive: {0}")]
    File(#[from] rusqlite::Error),
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("{0} re-drives are waiting or running; wait for one to end, or cancel one")]
    TooMany(u64),
    #[error("no entry of the quarantine fits the selection")]
    NothingFits,
}

/// The way from quarantine back to the store. Share it in an `Arc`.
pub struct Redriver {
    ingest: Arc<Ingest>,
    quarantine: Arc<Quarantine>,
    ledger: Mutex<Ledger>,
    pool: Pool,
    /// A job was begun or cancelled.
    news: Notify,
}

impl Redriver {
    /// Opens or makes the file of jobs. `pool` runs what blocks.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path, ingest: Arc<Ingest>, pool: Pool) -> Result<Self, RedriveError> {
        Ok(Self {
            quarantine: Arc::clone(&ingest.quarantine),
            ingest,
            ledger: Mutex::new(Ledger::open(path)?),
            pool,
            news: Notify::new(),
        })
    }

    /// Begins a job. Blocks: call it from a thread that may.
    ///
    /// # Errors
    /// [`RedriveError`].
    pub fn begin(&self, selection: &Filter, rate: Option<u32>) -> Result<Job, RedriveError> {
        let (entries, upto) = self.quarantine.count(selection)?;
        let upto = upto.ok_or(RedriveError::NothingFits)?;
        let rate = rate.unwrap_or(REDRIVE_MESSAGES_PER_S).max(1);
        let job = {
            let ledger = self.ledger.lock();
            let running = ledger.running()?;
            if running >= REDRIVE_JOBS_MAX {
                return Err(RedriveError::TooMany(running));
            }
            let now_ms = self.ingest.clock.now_ms();
            let id = ledger.add(selection, rate, entries, upto, now_ms)?;
            ledger.job(id)?.expect("it was added under the lock")
        };
        tracing::info!(target: "audit", job = job.id, entries, rate, "a re-drive was begun");
        self.news.notify_one();
        Ok(job)
    }

    /// Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn jobs(&self) -> Result<Vec<Job>, RedriveError> {
        self.ledger.lock().jobs()
    }

    /// Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn job(&self, id: i64) -> Result<Option<Job>, RedriveError> {
        self.ledger.lock().job(id)
    }

    /// Ends a job after the step that it is in; one that has ended stays as it is. Blocks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn cancel(&self, id: i64) -> Result<Option<Job>, RedriveError> {
        let ledger = self.ledger.lock();
        if ledger.end(id, State::Cancelled, self.ingest.clock.now_ms())? {
            tracing::info!(target: "audit", job = id, "a re-drive was cancelled");
        }
        self.news.notify_one();
        ledger.job(id)
    }

    /// What the current model and script would make of an entry. Nothing changes. Blocks.
    pub fn dry_run(&self, entry: &Entry, payload: &Payload) -> Outcome {
        match again(entry, payload) {
            Err(skipped) => skipped,
            Ok(again) => outcome(self.dry_run_message(&again)),
        }
    }

    /// The same of a recorded message of a channel. Blocks.
    pub fn dry_run_recording(&self, channel: &ChannelName, recording: &Recording) -> Outcome {
        if !recording.is_whole() {
            return skipped_for("only the beginning of the payload is kept");
        }
        outcome(self.dry_run_message(&Again {
            channel: channel.clone(),
            client: recording.client.as_str().into(),
            topic: recording.topic.clone(),
            payload: Bytes::copy_from_slice(&recording.payload),
            compression: recording.compression,
            arrived_ms: recording.time,
        }))
    }

    fn dry_run_message(&self, again: &Again) -> Result<Verdict, NotTaken> {
        futures::executor::block_on(self.ingest.dry_run(again))
    }

    /// Runs jobs until `closing`. A job that is cut off goes on at the next start.
    pub async fn run(self: Arc<Self>, closing: CancellationToken) {
        loop {
            let turn = async {
                match self
                    .blocking(|this| this.ledger.lock().first_running())
                    .await
                {
                    Ok(Some(job)) => self.run_job(job).await,
                    Ok(None) => self.news.notified().await,
                    Err(error) => {
                        tracing::error!(%error, "the jobs of re-drives cannot be read");
                        sleep(PAUSE).await;
                    }
                }
            };
            // Dropping a step takes back nothing that was submitted: it is done again, see above.
            tokio::select! {
                () = closing.cancelled() => return,
                () = turn => {}
            }
        }
    }

    /// Until the job ends, in whatever way.
    async fn run_job(self: &Arc<Self>, mut job: Job) {
        let rate = job.messages_per_second.max(1);
        let entries_max = (rate / STEPS_PER_S).clamp(1, STEP_ENTRIES);
        let mut due = Instant::now();
        let mut channels: BTreeMap<String, Counts> = BTreeMap::new();
        loop {
            sleep_until(due).await;
            let step = self.step(&job, entries_max, &mut channels).await;
            let now_ms = self.ingest.clock.now_ms();
            match step {
                Ok(Some(stepped)) => {
                    let entries = stepped.counts.tried() - job.counts.tried();
                    job = stepped;
                    let pause = Duration::from_secs(entries) / rate;
                    // A slow step earns no burst afterwards.
                    due = (due + pause).max(Instant::now());
                }
                Ok(None) => {
                    let id = job.id;
                    let ended = move |this: &Self| this.ledger.lock().end(id, State::Done, now_ms);
                    match self.blocking(ended).await {
                        Ok(_) => self.tell(&job, &channels),
                        Err(error) => tracing::error!(%error, "the end of a re-drive is not noted"),
                    }
                    return;
                }
                Err(error) => {
                    tracing::warn!(job = job.id, %error, "a step of a re-drive failed; it is tried again");
                    let id = job.id;
                    let text = error.to_string();
                    let noted = self.blocking(move |this| this.ledger.lock().held_up(id, &text));
                    if let Err(error) = noted.await {
                        tracing::error!(%error, "a re-drive's trouble is not noted");
                    }
                    due = Instant::now() + PAUSE;
                }
            }
            let id = job.id;
            match self.blocking(move |this| this.ledger.lock().job(id)).await {
                Ok(Some(now)) if now.state == State::Running => {}
                Ok(_) => return self.tell(&job, &channels),
                Err(error) => tracing::error!(%error, "the jobs of re-drives cannot be read"),
            }
        }
    }

    /// Does the next entries of a job; `None` where there are no more.
    async fn step(
        self: &Arc<Self>,
        job: &Job,
        entries_max: u32,
        channels: &mut BTreeMap<String, Counts>,
    ) -> Result<Option<Job>, StepError> {
        let page = Page {
            after: job.at,
            upto: Some(job.upto),
            limit: usize::try_from(entries_max).unwrap_or(1),
        };
        let selection = job.selection.clone();
        let found = self
            .blocking(move |this| this.with_bytes(&selection, page))
            .await?;
        let Some(at) = found.last else {
            return Ok(None);
        };
        let mut counts = job.counts;
        let mut count = |channel: &str, outcome: &Outcome| {
            counts.count(outcome);
            channels
                .entry(channel.to_owned())
                .or_default()
                .count(outcome);
        };
        let now_ms = self.ingest.clock.now_ms();
        let mut burst = Vec::with_capacity(found.entries.len());
        let mut names = Vec::with_capacity(found.entries.len());
        for (entry, payload) in &found.entries {
            match (again(entry, payload), entry.id.redrive(now_ms)) {
                (Ok(again), Some(redrive)) => {
                    burst.push((redrive, again));
                    names.push(entry.channel.as_str());
                }
                (Err(skipped), _) => count(&entry.channel, &skipped),
                (Ok(_), None) => count(&entry.channel, &skipped_for("its id is of no commit")),
            }
        }
        let verdicts = self.ingest.redrive(&burst).await?;
        for (channel, verdict) in names.into_iter().zip(verdicts) {
            count(channel, &outcome(verdict));
        }
        let mut stepped = job.clone();
        stepped.at = Some(at);
        stepped.counts = counts;
        let noted = stepped.clone();
        self.blocking(move |this| this.ledger.lock().advance(&noted, at, counts))
            .await?;
        Ok(Some(stepped))
    }

    /// Entries with their bytes, and the last of the page, whether its bytes are still there or not.
    fn with_bytes(&self, selection: &Filter, page: Page) -> Result<Found, RedriveError> {
        let listed = self.quarantine.list(selection, page)?.found;
        let last = listed.last().map(|entry| entry.id);
        let mut entries = Vec::with_capacity(listed.len());
        for entry in listed {
            entries.extend(self.quarantine.show(entry.id)?);
        }
        Ok(Found { entries, last })
    }

    /// A line in the log of each channel: what became of its messages.
    fn tell(&self, job: &Job, channels: &BTreeMap<String, Counts>) {
        for (channel, counts) in channels {
            let Ok(channel) = ChannelName::new(channel) else {
                continue;
            };
            let message = format!(
                "re-drive {}: {} messages stored, {} stored in part, {} refused again, {} not tried",
                job.id, counts.stored, counts.partly, counts.refused, counts.skipped
            );
            self.ingest.log.note(LogEntry {
                time_ms: self.ingest.clock.now_ms(),
                channel,
                client: "".into(),
                what: What::Audit {
                    message: message.into(),
                },
            });
        }
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, RedriveError> + Send + 'static,
    ) -> Result<T, RedriveError> {
        let this = Arc::clone(self);
        self.pool.run(move || work(&this)).await?
    }
}

struct Found {
    entries: Vec<(Entry, Payload)>,
    last: Option<crate::quarantine::Id>,
}

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Redrive(#[from] RedriveError),
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
}

/// What became, or would become, of an entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Judged(Verdict),
    /// It cannot be tried.
    Skipped {
        reason: String,
    },
}

impl Outcome {
    /// Whether all of it is stored.
    pub fn is_cured(&self) -> bool {
        matches!(self, Self::Judged(verdict) if verdict.code == Code::Ok)
    }
}

fn outcome(verdict: Result<Verdict, NotTaken>) -> Outcome {
    match verdict {
        Ok(verdict) => Outcome::Judged(verdict),
        Err(error) => skipped_for(&error.to_string()),
    }
}

fn skipped_for(reason: &str) -> Outcome {
    Outcome::Skipped {
        reason: reason.to_owned(),
    }
}

fn again(entry: &Entry, payload: &Payload) -> Result<Again, Outcome> {
    if entry.is_truncated {
        let reason = "only the beginning of the payload is kept: send it again in parts";
        return Err(skipped_for(reason));
    }
    let channel = ChannelName::new(&entry.channel).map_err(|e| skipped_for(&e.to_string()))?;
    Ok(Again {
        channel,
        client: entry.client.as_str().into(),
        topic: entry.topic.clone(),
        payload: Bytes::copy_from_slice(&payload.0),
        compression: Compression::None,
        arrived_ms: entry.time_ms,
    })
}

/// Over what a test has made.
#[cfg(test)]
pub(crate) fn of_test(dir: &Path, ingest: Arc<Ingest>) -> Arc<Redriver> {
    let pool = Pool::start("redrive", 1, 8).unwrap();
    Arc::new(Redriver::open(&dir.join("redrive.db"), ingest, pool).unwrap())
}

#[cfg(test)]
pub(crate) fn ingest_of_test(
    registry: &Arc<crate::registry::Registry>,
    store: &backtide_store::Store,
    quarantine: &Arc<Quarantine>,
    log: &Arc<crate::channel_log::Log>,
    recorder: &Arc<crate::recorder::Recorder>,
    clock: &crate::clock::Clock,
) -> Arc<Ingest> {
    Arc::new(Ingest {
        registry: Arc::clone(registry),
        way: Arc::new(crate::store::Way::to(store.clone())),
        store: store.clone(),
        quarantine: Arc::clone(quarantine),
        log: Arc::clone(log),
        scripts: Arc::new(crate::script::of_test()),
        budgets: crate::ingest::Budgets::new().0,
        recorder: Arc::clone(recorder),
        clock: clock.clone(),
        shares: crate::ingest::Shares::default(),
    })
}
