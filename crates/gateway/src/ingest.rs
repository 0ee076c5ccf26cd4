//! From a burst of messages to their answers: judge, commit, reply.
//!
//! It must never answer before the store has made the outcome durable, and never let a message go
//! that is neither stored nor in quarantine. It knows no door: MQTT today, others later.

mod budget;
mod judge;
mod payload;
mod quota;
mod raw;
mod redrive;
mod reply;
mod steps;
mod verdicts;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backtide_model::{ChannelName, Code, Compression};
use backtide_store::{CommitError, Committed, Store};
use tokio::time::timeout_at;

pub use budget::{Alarm, Budgets};
pub use judge::{Sender, Uplink};
pub use payload::{Oversize, Payload, Unreadable};
pub use quota::{Gate, Shares};
pub use raw::{Decoded, Misread};
pub use redrive::{Again, Reason, Verdict};

use crate::{
    channel_log::{Entry, Log, What},
    clock::Clock,
    limits::INFLATED_MESSAGES_MAX,
    quarantine::Quarantine,
    recorder::{Account, Recorder, Step},
    registry::{Product, Quotas, Registry, Snapshot},
    script::Scripts,
    store::{Submitted, Way},
};
use judge::Judged;
use quota::{Cost, QUOTA_HOLD};
use reply::Reply;
use verdicts::Slice;

/// How often a held burst looks whether it may go on.
const HOLD_LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long after its arrival a burst is held before its connection is closed without acknowledging it.
const HOLD: Duration = Duration::from_secs(5);
/// What is handed to the store at once, roughly; far below what it takes at once.
const SUBMISSION_BYTES: usize = 4 << 20;

/// The stages that every message passes, whatever door it came by.
pub struct Ingest {
    pub registry: Arc<Registry>,
    pub store: Store,
    pub way: Arc<Way>,
    pub quarantine: Arc<Quarantine>,
    pub log: Arc<Log>,
    pub scripts: Arc<Scripts>,
    pub budgets: Budgets,
    pub recorder: Arc<Recorder>,
    pub clock: Clock,
    /// What channels with quotas have left.
    pub shares: Shares,
}

/// What became of a message. It is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub code: Code,
    pub reply_topic: String,
    pub reply: bytes::Bytes,
}

/// Why a burst has no outcome: nothing of it may be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    #[error("channel {0} is no longer there")]
    ChannelGone(ChannelName),
    #[error("channel {channel} is held, {reason}; resume it")]
    Held {
        channel: ChannelName,
        reason: String,
    },
    #[error("the quarantine is full, and some of it would have to go there; enlarge it")]
    QuarantineFull,
    #[error("the client went away while its quota made it wait")]
    ClientGone,
    #[error("{0}")]
    NoScriptWorker(String),
    #[error(transparent)]
    Store(#[from] CommitError),
}

impl Ingest {
    /// Takes a burst of one connection in order. Resolves when the outcome of each message is
    /// durable. The gate is taken before the first await, and given back once the burst is
    /// submitted: the bursts of a connection are decoded and submitted in their order.
    ///
    /// A burst that may inflate goes slice by slice, so that no more than a slice of it is in memory
    /// inflated and not yet counted by the way to the store.
    pub async fn take(
        &self,
        channel: &ChannelName,
        sender: &Sender,
        gate: &Gate,
        burst: Vec<Uplink>,
    ) -> Result<Vec<Outcome>, NotTaken> {
        let (arrived_ms, began) = (self.clock.now_ms(), Instant::now());
        let turn = gate.turn.lock().await;
        let snapshot = self.registry.snapshot();
        let product = product_of(&snapshot, channel)?;
        let quotas = snapshot.channel(channel).and_then(|channel| channel.quotas);
        let (mut judged, mut submitted) = (Vec::with_capacity(burst.len()), Vec::new());
        let mut handed_over = began;
        for slice in burst.chunks(slice_messages(sender.compression, burst.len())) {
            let decoded = self
                .decode_burst(product, sender.compression, slice, arrived_ms)
                .await?;
            let slice_of = Slice {
                snapshot: &snapshot,
                channel,
                sender,
                uplinks: slice,
                decoded: &decoded,
                arrived_ms,
                now_ms: arrived_ms,
            };
            let mut those = self.verdicts(slice_of).await?;
            self.released(channel, began + HOLD).await?;
            if let Some(quotas) = quotas {
                self.pay(quotas, gate, slice, &mut those, began.into())
                    .await?;
            }
            handed_over = Instant::now();
            submitted.extend(self.hand_over(&mut those, began + HOLD).await?);
            judged.extend(those);
        }
        drop(turn);
        let proofs = self.settle(&mut judged, submitted).await?;
        let raw_replies = self.encode_replies(product, &judged, &proofs).await;
        let took_ms = began.elapsed().as_secs_f64() * 1_000.0;
        self.spend(channel, &judged);
        count(channel, &judged);
        let commit_ms = handed_over.elapsed().as_secs_f64() * 1_000.0;
        let is_recorded = self.recorder.is_on(channel, arrived_ms);
        let answered = judged.iter().zip(&proofs).zip(raw_replies);
        let outcomes = answered.map(|((judged, proof), raw_reply)| {
            self.note(judged, proof, took_ms);
            let reply = judged.reply(proof);
            if is_recorded && self.recorder.takes(channel) {
                let account = account(judged, proof, &reply, commit_ms, took_ms);
                self.recorder.record(judged.recording(sender, account));
            }
            let bytes = raw_reply.map_or(reply.payload, Vec::from);
            Outcome {
                code: judged.code(),
                reply_topic: reply.topic,
                reply: payload::packed(bytes, sender.compression),
            }
        });
        Ok(outcomes.collect())
    }

    /// Hands messages to the store, once the quarantine has room for what is refused of them.
    async fn hand_over(
        &self,
        judged: &mut [Judged],
        hold_until: Instant,
    ) -> Result<Vec<Submitted>, NotTaken> {
        if judged.iter().any(|judged| judged.refused.is_some()) {
            self.quarantine_room(hold_until).await?;
        }
        Ok(self.submit(judged).await?)
    }

    /// Waits until all of what was submitted is durable: what the store will not take as data it
    /// takes as refused.
    async fn settle(
        &self,
        judged: &mut [Judged],
        submitted: Vec<Submitted>,
    ) -> Result<Vec<Committed>, NotTaken> {
        let mut results = Vec::with_capacity(judged.len());
        for submission in submitted {
            results.extend(submission.results().await?);
        }
        let mut proofs = Vec::with_capacity(judged.len());
        for (judged, result) in judged.iter_mut().zip(results) {
            let proof = match result {
                Ok(proof) => proof,
                Err(error @ CommitError::StorageChanged { .. }) => {
                    judged.refuse(Code::ModelMismatch, error.to_string());
                    self.commit_one(judged).await?
                }
                Err(error) => return Err(error.into()),
            };
            proofs.push(proof);
        }
        Ok(proofs)
    }

    /// Waits until the channel's quotas allow each message. What is not the client's any more waits
    /// for so long only, and is refused then.
    async fn pay(
        &self,
        quotas: Quotas,
        gate: &Gate,
        burst: &[Uplink],
        judged: &mut [Judged],
        began: tokio::time::Instant,
    ) -> Result<(), NotTaken> {
        for (uplink, judged) in burst.iter().zip(judged) {
            let channel = &judged.origin.channel;
            let oldest_ms = judged.oldest_ms();
            let oldest_ago_ms = oldest_ms.map(|oldest| judged.origin.arrived_ms - oldest);
            let share = self.shares.of(channel, quotas, oldest_ago_ms);
            let paid = share.pay(Cost {
                points: u64::try_from(judged.values).unwrap_or(u64::MAX),
                bytes: judged.payload_bytes,
            });
            let has_waited = if uplink.is_kept_by_client {
                tokio::select! {
                    biased;
                    has_waited = paid => has_waited,
                    () = gate.left() => return Err(NotTaken::ClientGone),
                }
            } else if let Ok(has_waited) = timeout_at(began + QUOTA_HOLD, paid).await {
                has_waited
            } else {
                // What is refused already keeps its reason.
                if judged.items_stored > 0 {
                    judged.refuse(Code::Throttled, over_quota());
                }
                continue;
            };
            if has_waited {
                let channel = judged.origin.channel.to_string();
                metrics::counter!("backtide_quota_waits_total", "channel" => channel).increment(1);
            }
        }
        Ok(())
    }

    /// Hands messages to the store, in order, in as many submissions as their weight asks for: a
    /// burst that the store could never take would be sent again for ever.
    async fn submit(&self, judged: &mut [Judged]) -> Result<Vec<Submitted>, CommitError> {
        let mut submissions = Vec::new();
        let mut commits = Vec::new();
        let mut bytes = 0;
        for judged in judged {
            let commit = judged.commit();
            bytes += commit.weight_bytes();
            commits.push(commit);
            if bytes >= SUBMISSION_BYTES {
                let full = std::mem::take(&mut commits);
                submissions.push(self.way.submit(full).await?);
                bytes = 0;
            }
        }
        if !commits.is_empty() {
            submissions.push(self.way.submit(commits).await?);
        }
        Ok(submissions)
    }

    /// Waits while the channel is held, no longer than a full quarantine would make it.
    async fn released(&self, channel: &ChannelName, until: Instant) -> Result<(), NotTaken> {
        let held = || {
            let snapshot = self.registry.current();
            Some(snapshot.channel(channel)?.held.as_ref()?.reason.clone())
        };
        while let Some(reason) = held() {
            if Instant::now() >= until {
                let channel = channel.clone();
                return Err(NotTaken::Held { channel, reason });
            }
            tokio::time::sleep(HOLD_LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Takes refusals off the channel's error budget, where it has one.
    fn spend(&self, channel: &ChannelName, judged: &[Judged]) {
        let snapshot = self.registry.current();
        let declared = snapshot.channel(channel);
        if let Some(budget) = declared.and_then(|channel| channel.error_budget) {
            let refused = judged.iter().filter(|judged| judged.refused.is_some());
            let (messages, refused) = (judged.len(), refused.count());
            let as_u64 = |count| u64::try_from(count).unwrap_or(u64::MAX);
            self.budgets
                .count(channel, budget, as_u64(messages), as_u64(refused));
        }
    }

    /// Waits while the quarantine is full: the channel holds, its clients keep their messages. Not
    /// for ever, since whoever waits holds a burst in memory; the client comes again.
    async fn quarantine_room(&self, until: Instant) -> Result<(), NotTaken> {
        while self.quarantine.is_full() {
            if Instant::now() >= until {
                return Err(NotTaken::QuarantineFull);
            }
            tokio::time::sleep(HOLD_LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn commit_one(&self, judged: &mut Judged) -> Result<Committed, NotTaken> {
        let submitted = self.way.submit(vec![judged.commit()]).await?;
        let proof = submitted
            .results()
            .await?
            .pop()
            .ok_or(CommitError::Closing)?;
        Ok(proof?)
    }

    /// Tells the log and the counters of the channel.
    fn note(&self, judged: &Judged, proof: &Committed, took_ms: f64) {
        let origin = &judged.origin;
        let entry = |what| Entry {
            time_ms: origin.arrived_ms,
            channel: origin.channel.clone(),
            client: origin.client.clone(),
            what,
        };
        let code = judged.code();
        self.log.note(entry(What::Transmission {
            topic: origin.topic.clone(),
            bytes: judged.payload_bytes,
            items: u64::from(judged.items),
            reduced: u64::from(judged.reduced),
            code: code.number(),
            ms: took_ms,
            receipt: Some(proof.receipt().to_string().into()),
        }));
        if let Some(first) = judged
            .refused
            .as_ref()
            .and_then(|refused| refused.items.first())
        {
            self.log.note(entry(What::Error {
                topic: Some(origin.topic.clone()),
                code: Some(code.number()),
                message: first.message.clone(),
                device_key: first.device.clone(),
                point: first.point.clone(),
            }));
        }
        let values = u64::try_from(judged.values).unwrap_or(u64::MAX);
        self.log.activity.stored(&origin.channel, values);
    }
}

fn over_quota() -> String {
    let hold_s = QUOTA_HOLD.as_secs();
    format!(
        "the channel is over its quota, and a QoS 0 message is held for {hold_s} s only; send more \
         slowly or with QoS 1, or raise the quota and re-drive it"
    )
}

/// How many messages of a burst are decoded and judged before they are handed to the store.
fn slice_messages(compression: Compression, burst_messages: usize) -> usize {
    match compression {
        Compression::None => burst_messages.max(1),
        Compression::Gzip => INFLATED_MESSAGES_MAX,
    }
}

/// The product that a channel is for.
fn product_of<'s>(snapshot: &'s Snapshot, channel: &ChannelName) -> Result<&'s Product, NotTaken> {
    snapshot
        .channel(channel)
        .and_then(|channel| snapshot.product(&channel.product))
        .map(Arc::as_ref)
        .ok_or_else(|| NotTaken::ChannelGone(channel.clone()))
}

/// What the flight recorder says of a message.
fn account(
    judged: &Judged,
    proof: &Committed,
    reply: &Reply,
    commit_ms: f64,
    total_ms: f64,
) -> Account {
    let mut steps = steps::steps(judged);
    steps.push(Step {
        stage: "commit".to_owned(),
        ok: true,
        detail: match (judged.refused.is_some(), judged.items_stored) {
            (false, _) => "stored".to_owned(),
            (true, 0) => "in quarantine".to_owned(),
            (true, stored) => format!("{stored} items stored, the others in quarantine"),
        },
        made: None,
    });
    Account {
        steps,
        reply: String::from_utf8_lossy(&reply.payload).into_owned(),
        receipt: proof.receipt().to_string(),
        judge_ms: judged.judge_time.as_secs_f64() * 1_000.0,
        commit_ms,
        total_ms,
    }
}

/// Tells the counters of a channel what became of a burst: once for all, since a counter costs more
/// than a small message's check.
fn count(channel: &ChannelName, burst: &[Judged]) {
    let mut codes: Vec<(Code, u64)> = Vec::new();
    let (mut stored, mut refused, mut reduced, mut values) = (0, 0, 0, 0);
    for judged in burst {
        let code = judged.code();
        match codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => codes.push((code, 1)),
        }
        stored += u64::from(judged.items_stored);
        refused += u64::from(judged.items - judged.items_stored);
        reduced += u64::from(judged.reduced);
        values += u64::try_from(judged.values).unwrap_or(u64::MAX);
    }
    let channel = channel.to_string();
    for (code, messages) in codes {
        metrics::counter!("backtide_messages_total", "channel" => channel.clone(), "code" => code.to_string())
            .increment(messages);
    }
    metrics::counter!("backtide_items_stored_total", "channel" => channel.clone())
        .increment(stored);
    metrics::counter!("backtide_items_refused_total", "channel" => channel.clone())
        .increment(refused);
    if reduced > 0 {
        metrics::counter!("backtide_values_reduced_total", "channel" => channel.clone())
            .increment(reduced);
    }
    metrics::counter!("backtide_values_stored_total", "channel" => channel).increment(values);
}
