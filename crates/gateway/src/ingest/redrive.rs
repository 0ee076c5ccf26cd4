//! The way back into the pipeline: what was refused, or recorded, is judged and committed again by
//! the very functions that took it first.
//!
//! A re-driven message is no new one: it takes the place of its first arrival in the order of
//! commits, and the log says which refusal it tries again. So the quarantine learns from the log
//! alone that an entry is stored, and a re-drive that a crash cut off may simply be done again.

use std::{collections::BTreeMap, sync::Arc};

use backtide_model::{ChannelName, Code, Compression};
use backtide_store::{Redrive, RefusedItem};
use bytes::Bytes;
use serde::Serialize;

use super::{
    Ingest, NotTaken, Payload, Sender, Uplink, judge::Judged, product_of, steps::steps,
    verdicts::Slice,
};
use crate::recorder::Step;

/// A message to be judged again.
#[derive(Debug, Clone)]
pub struct Again {
    pub channel: ChannelName,
    pub client: Arc<str>,
    pub topic: String,
    pub payload: Bytes,
    /// What the payload is packed in. A quarantine keeps plain bytes.
    pub compression: Compression,
    /// When it arrived first, milliseconds since 1970 UTC.
    pub arrived_ms: i64,
}

/// What became of a message that was judged again, or what would.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub code: Code,
    pub items: u32,
    /// Items that are stored.
    pub stored: u32,
    pub values: usize,
    /// Values that a policy drops.
    #[serde(skip_serializing_if = "is_zero")]
    pub reduced: u32,
    /// Why the rest is refused; capped.
    pub rejected: Vec<Reason>,
    /// Reasons beyond these.
    pub more: u32,
    /// The stages that it passed, up to the one that refused it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// Why something is refused, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_key: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point: Option<Box<str>>,
    pub code: Code,
    pub message: Box<str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Verdict {
    fn of(judged: &Judged) -> Self {
        let refused = judged.refused.as_ref();
        Self {
            code: judged.code(),
            items: judged.items,
            stored: judged.items_stored,
            values: judged.values,
            reduced: judged.reduced,
            rejected: refused
                .map(|refused| refused.items.iter().map(reason).collect())
                .unwrap_or_default(),
            more: refused.map_or(0, |refused| refused.more),
            steps: Vec::new(),
        }
    }
}

fn reason(item: &RefusedItem) -> Reason {
    Reason {
        index: item.index,
        device_key: item.device.clone(),
        point: item.point.clone(),
        code: item.code,
        message: item.message.clone(),
    }
}

impl Ingest {
    /// What the current model and script would make of a message. Nothing changes.
    ///
    /// # Errors
    /// [`NotTaken::ChannelGone`], [`NotTaken::NoScriptWorker`].
    pub async fn dry_run(&self, again: &Again) -> Result<Verdict, NotTaken> {
        let mut judged = self.judge_again(again).await?;
        if let Some(clash) = judged.clash(&self.store) {
            judged.refuse(Code::ModelMismatch, clash.to_string());
        }
        Ok(Verdict {
            steps: steps(&judged),
            ..Verdict::of(&judged)
        })
    }

    /// Commits messages again, in order. Resolves when each outcome is durable.
    ///
    /// # Errors
    /// [`NotTaken`]: then any of them may be committed or not, and may all be tried again. A
    /// message whose channel is gone has an error of its own and is not tried.
    pub async fn redrive(
        &self,
        burst: &[(Redrive, Again)],
    ) -> Result<Vec<Result<Verdict, NotTaken>>, NotTaken> {
        let mut verdicts: Vec<Option<Result<Verdict, NotTaken>>> = Vec::with_capacity(burst.len());
        let mut judged = Vec::with_capacity(burst.len());
        for (redrive, again) in burst {
            match self.judge_again(again).await {
                Ok(one) => {
                    judged.push(one.redriven(*redrive));
                    verdicts.push(None);
                }
                Err(gone @ NotTaken::ChannelGone(_)) => verdicts.push(Some(Err(gone))),
                Err(error) => return Err(error),
            }
        }
        let submitted = self.submit(&mut judged).await?;
        // Every entry is in the quarantine already: it needs no more room there.
        self.settle(&mut judged, submitted).await?;
        count(&judged);
        let mut judged = judged.iter();
        let verdicts = verdicts.into_iter().map(|verdict| {
            let settled = || {
                Ok(Verdict::of(
                    judged.next().expect("what is not gone was judged"),
                ))
            };
            verdict.unwrap_or_else(settled)
        });
        Ok(verdicts.collect())
    }

    async fn judge_again(&self, again: &Again) -> Result<Judged, NotTaken> {
        let sender = Sender {
            client: Arc::clone(&again.client),
            compression: again.compression,
        };
        let uplink = Uplink {
            topic: again.topic.clone(),
            payload: Payload::Whole(again.payload.clone()),
            packet_id: None,
            is_kept_by_client: false,
            rows: None,
        };
        let snapshot = self.registry.snapshot();
        let burst = [uplink];
        let product = product_of(&snapshot, &again.channel)?;
        let decoded = self
            .decode_burst(product, again.compression, &burst, again.arrived_ms)
            .await?;
        let slice = Slice {
            snapshot: &snapshot,
            channel: &again.channel,
            sender: &sender,
            uplinks: &burst,
            decoded: &decoded,
            arrived_ms: again.arrived_ms,
            now_ms: self.clock.now_ms(),
        };
        let mut judged = self.verdicts(slice).await?;
        Ok(judged.pop().expect("one message has one verdict"))
    }
}

fn count(judged: &[Judged]) {
    let mut counts: BTreeMap<(&ChannelName, Code), (u64, u64)> = BTreeMap::new();
    for judged in judged {
        let key = (&judged.origin.channel, judged.code());
        let (messages, items) = counts.entry(key).or_default();
        *messages += 1;
        *items += u64::from(judged.items_stored);
    }
    for ((channel, code), (messages, items)) in counts {
        let channel = channel.to_string();
        metrics::counter!("backtide_redriven_messages_total",
            "channel" => channel.clone(), "code" => code.to_string())
        .increment(messages);
        metrics::counter!("backtide_items_stored_total", "channel" => channel).increment(items);
    }
}
