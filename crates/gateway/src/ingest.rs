//! From a burst of messages to their answers: judge, commit, reply.
//!
//! It must never answer before the store has made the outcome durable, and never let a message go
//! that is neither stored nor in quarantine. It knows no door: MQTT today, others later.

mod judge;
mod payload;
mod redrive;
mod reply;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backtide_model::{ChannelName, Code};
use backtide_store::{CommitError, Committed, Store};
use tokio::sync::Mutex;

pub use judge::{Sender, Uplink};
pub use payload::{Oversize, Payload};
pub use redrive::{Again, Reason, Verdict};

use crate::{
    channel_log::{Entry, Log, What},
    clock::Clock,
    quarantine::Quarantine,
    registry::{Registry, Snapshot},
    store::{Submitted, submit},
};
use judge::{Judged, Scope, judge};

/// How often a held burst looks whether the quarantine has room again.
const QUARANTINE_LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long after its arrival a burst is held before its connection is closed without acknowledging it.
const QUARANTINE_HOLD: Duration = Duration::from_secs(5);
/// What is handed to the store at once, roughly; far below what it takes at once.
const SUBMISSION_BYTES: usize = 4 << 20;

/// The stages that every message passes, whatever door it came by.
pub struct Ingest {
    pub registry: Arc<Registry>,
    pub store: Store,
    pub quarantine: Arc<Quarantine>,
    pub log: Arc<Log>,
    pub clock: Clock,
}

/// Bursts of one connection are submitted one after the other: its gate is taken in order.
pub type Gate = Mutex<()>;

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
    #[error("the quarantine is full, and some of it would have to go there; enlarge it")]
    QuarantineFull,
    #[error(transparent)]
    Store(#[from] CommitError),
}

impl Ingest {
    /// Takes a burst of one connection in order. Resolves when the outcome of each message is
    /// durable; the burst is submitted before the first await unless the quarantine is full.
    pub async fn take(
        &self,
        channel: &ChannelName,
        sender: &Sender,
        gate: &Gate,
        burst: Vec<Uplink>,
    ) -> Result<Vec<Outcome>, NotTaken> {
        let (arrived_ms, began) = (self.clock.now_ms(), Instant::now());
        let judged = judge_burst(
            &self.registry.snapshot(),
            channel,
            sender,
            &burst,
            arrived_ms,
        )?;
        let (judged, proofs) = self.commit(judged, gate, began + QUARANTINE_HOLD).await?;
        let took_ms = began.elapsed().as_secs_f64() * 1_000.0;
        let outcomes = judged.iter().zip(&proofs).map(|(judged, proof)| {
            self.note(judged, proof, took_ms);
            let reply = judged.reply(proof);
            Outcome {
                code: judged.code(),
                reply_topic: reply.topic,
                reply: payload::packed(reply.payload, sender.compression),
            }
        });
        Ok(outcomes.collect())
    }

    /// Makes every message of a burst durable.
    async fn commit(
        &self,
        mut judged: Vec<Judged>,
        gate: &Gate,
        hold_until: Instant,
    ) -> Result<(Vec<Judged>, Vec<Committed>), NotTaken> {
        let turn = gate.lock().await;
        if judged.iter().any(|judged| judged.refused.is_some()) {
            self.quarantine_room(hold_until).await?;
        }
        let submitted = self.submit(&mut judged)?;
        drop(turn);
        let proofs = self.settle(&mut judged, submitted).await?;
        Ok((judged, proofs))
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

    /// Hands a burst to the store, in order, in as many submissions as its weight asks for: a burst
    /// that the store could never take would be sent again for ever.
    fn submit(&self, judged: &mut [Judged]) -> Result<Vec<Submitted>, CommitError> {
        let mut submissions = Vec::new();
        let mut commits = Vec::new();
        let mut bytes = 0;
        for judged in judged {
            bytes += judged.weight_bytes();
            commits.push(judged.commit());
            if bytes >= SUBMISSION_BYTES {
                let full = std::mem::take(&mut commits);
                submissions.push(submit(&self.store, full)?);
                bytes = 0;
            }
        }
        if !commits.is_empty() {
            submissions.push(submit(&self.store, commits)?);
        }
        Ok(submissions)
    }

    /// Waits while the quarantine is full: the channel holds, its clients keep their messages. Not
    /// for ever, since whoever waits holds a burst in memory; the client comes again.
    async fn quarantine_room(&self, until: Instant) -> Result<(), NotTaken> {
        while self.quarantine.is_full() {
            if Instant::now() >= until {
                return Err(NotTaken::QuarantineFull);
            }
            tokio::time::sleep(QUARANTINE_LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn commit_one(&self, judged: &mut Judged) -> Result<Committed, NotTaken> {
        let submitted = submit(&self.store, vec![judged.commit()])?;
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
        count(judged, code);
    }
}

fn judge_burst(
    snapshot: &Snapshot,
    channel: &ChannelName,
    sender: &Sender,
    burst: &[Uplink],
    arrived_ms: i64,
) -> Result<Vec<Judged>, NotTaken> {
    let gone = || NotTaken::ChannelGone(channel.clone());
    let channel = snapshot.channel(channel).ok_or_else(gone)?;
    let product = snapshot.product(&channel.product).ok_or_else(gone)?;
    let scope = Scope {
        channel: &channel.name,
        product: &product.key,
        model: &product.model,
        is_json: product.is_json(),
        mode: channel.mode,
        stamps_arrival: channel.stamp_arrival,
        conflict: channel.conflict,
        find_device: &|key| product.find_device(key),
    };
    Ok(burst
        .iter()
        .map(|uplink| judge(&scope, sender, uplink, arrived_ms))
        .collect())
}

fn count(judged: &Judged, code: Code) {
    let channel = judged.origin.channel.to_string();
    let items = u64::from(judged.items);
    let stored = u64::from(judged.items_stored);
    metrics::counter!("backtide_messages_total", "channel" => channel.clone(), "code" => code.to_string())
        .increment(1);
    metrics::counter!("backtide_items_stored_total", "channel" => channel.clone())
        .increment(stored);
    metrics::counter!("backtide_items_refused_total", "channel" => channel.clone())
        .increment(items - stored);
    metrics::counter!("backtide_values_stored_total", "channel" => channel)
        .increment(u64::try_from(judged.values).unwrap_or(u64::MAX));
}
