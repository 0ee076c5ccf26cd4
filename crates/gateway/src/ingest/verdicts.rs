//! Verdicts on a slice of a burst: judged in passes, and between them scripts of policies are asked.
//!
//! Judging waits for nobody. A message of which a script has to say something first is judged again
//! once it has been said; all others are done in the first pass.

use std::time::Instant;

use backtide_model::{ChannelName, Oldest};

use super::{
    Decoded, Ingest, NotTaken, Sender, Uplink,
    judge::{Judged, Scope, judge},
    product_of,
};
use crate::{
    policy::{Answers, Pass, Question},
    registry::{Product, Snapshot},
    retention,
    script::{Cause, Failure, SaidOfRow},
};

/// Messages of one sender, and what they are judged by.
#[derive(Clone, Copy)]
pub(super) struct Slice<'s> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) channel: &'s ChannelName,
    pub(super) sender: &'s Sender,
    pub(super) uplinks: &'s [Uplink],
    /// What scripts of the product made of them, where one was asked.
    pub(super) decoded: &'s [Option<Decoded>],
    pub(super) arrived_ms: i64,
    /// A re-driven message arrived long ago.
    pub(super) now_ms: i64,
}

impl Ingest {
    /// The verdict on each message, in order.
    ///
    /// # Errors
    /// [`NotTaken::ChannelGone`]; [`NotTaken::NoScriptWorker`]: nothing can be said of a message.
    pub(super) async fn verdicts(&self, slice: Slice<'_>) -> Result<Vec<Judged>, NotTaken> {
        let mut judged: Vec<Option<Judged>> = Vec::new();
        judged.resize_with(slice.uplinks.len(), || None);
        let mut answers = Answers::default();
        loop {
            let questions = slice.pass(&answers, &mut judged)?;
            if questions.is_empty() {
                return Ok(judged.into_iter().flatten().collect());
            }
            for question in &questions {
                let said = self.ask(question).await?;
                answers.put(question, said);
            }
        }
    }

    async fn ask(&self, question: &Question) -> Result<Vec<SaidOfRow>, NotTaken> {
        let rows: Vec<&str> = question.rows.iter().map(AsRef::as_ref).collect();
        let said = self.scripts.rows(&question.program, &rows).await;
        let unavailable = said.iter().find_map(|said| match said {
            Err(Failure { cause, message, .. }) if *cause == Cause::Unavailable => Some(message),
            Ok(_) | Err(_) => None,
        });
        match unavailable {
            Some(message) => Err(NotTaken::NoScriptWorker(message.clone())),
            None => Ok(said),
        }
    }
}

impl Slice<'_> {
    /// Judges what has no verdict yet. Returns what is to be answered before the rest has one.
    fn pass(
        &self,
        answers: &Answers,
        judged: &mut [Option<Judged>],
    ) -> Result<Vec<Question>, NotTaken> {
        let snapshot = self.snapshot;
        let product = product_of(snapshot, self.channel)?;
        let channel = snapshot
            .channel(self.channel)
            .ok_or_else(|| NotTaken::ChannelGone(self.channel.clone()))?;
        let oldest = oldest(snapshot, product, self.arrived_ms, self.now_ms);
        let chain = snapshot.chain(&channel.name);
        let pass = chain.map(|chain| Pass::new(chain, answers));
        let scope = Scope {
            channel: &channel.name,
            product: &product.key,
            model: &product.model,
            is_json: product.is_json(),
            mode: channel.mode,
            stamps_arrival: channel.stamp_arrival,
            conflict: channel.conflict,
            oldest: oldest.as_ref(),
            policies: pass.as_ref(),
            find_device: &|key| product.find_device(key),
        };
        let waiting = || pass.as_ref().map_or(0, Pass::waiting);
        let messages = self.uplinks.iter().zip(self.decoded).zip(judged);
        for ((uplink, decoded), verdict) in messages.filter(|(_, verdict)| verdict.is_none()) {
            let (began, before) = (Instant::now(), waiting());
            let one = judge(
                &scope,
                self.sender,
                uplink,
                decoded.as_ref(),
                self.arrived_ms,
            );
            if waiting() == before {
                *verdict = Some(one.in_time(began.elapsed()));
            }
        }
        Ok(pass.map_or_else(Vec::new, Pass::questions))
    }
}

/// What is too old to be stored: a re-driven message may have grown so since it arrived.
fn oldest(snapshot: &Snapshot, product: &Product, arrived_ms: i64, now_ms: i64) -> Option<Oldest> {
    let storage = snapshot.storage(&product.name)?;
    Some(retention::oldest(storage, arrived_ms, now_ms))
}
