//! The seam between rules and destinations: a stretch of the log, as records, is delivered or told
//! of as refused.
//!
//! Rules follow the committed log and make [`Stretch`]es; a [`Sink`] knows one destination and
//! nothing of rules, logs or cursors but the one that it may be asked to keep. Retry, pause and
//! dead letters stand above it, once.

pub mod calculated;
pub mod kafka;
pub mod webhook;

use std::{borrow::Cow, sync::Arc};

use backtide_store::Sequence;
use bytes::Bytes;
use futures::future::BoxFuture;

/// One record for a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where to at the destination: a Kafka topic, the address of a webhook.
    pub address: Arc<str>,
    /// Records of a key keep their order.
    pub key: Bytes,
    /// The message's text (`decisions.md` §6), UTF-8, or what a rule made of it.
    pub value: Bytes,
    /// As `message::header` names them, and those of the rule.
    pub headers: Vec<(Cow<'static, str>, Bytes)>,
}

/// What a stretch of the log became. Perhaps without records: then only the cursor moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// In order of commit.
    pub records: Vec<Record>,
    /// The last commit of the stretch: where to go on once it is delivered.
    pub reached: Sequence,
}

/// A record that the destination will never take: too large, refused by policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    /// Its place in [`Stretch::records`].
    pub index: usize,
    /// What the destination said, and how to mend it.
    pub reason: String,
}

/// Why nothing can be said to be delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It cannot be reached, or takes nothing now: to be tried again, whole.
    #[error("{0}")]
    Unavailable(String),
    /// Exactly once, and some records will never be taken: nothing was delivered. They are to be set
    /// aside durably, then the stretch is to be delivered again without them, to the same `reached`.
    /// (A cursor that moved with the rest would lose them if we ended before they are set aside.)
    #[error("{} records will never be taken", .0.len())]
    Refused(Vec<Poison>),
    /// Another instance has taken over under the same name: trying again would harm it.
    #[error("another instance publishes for this rule: {0}")]
    Fenced(String),
}

/// One destination of one rule.
pub trait Sink: Send + Sync {
    /// The cursor that the destination keeps, where it keeps it in one piece with the records
    /// (exactly once). `None`: the rule keeps its cursor itself. Asked once, before the first
    /// stretch; fences an older instance. Asked again where a delivery was given up: whether it
    /// arrived is not known then.
    ///
    /// # Errors
    /// [`SinkError`].
    fn reached(&self) -> BoxFuture<'_, Result<Option<Sequence>, SinkError>>;

    /// Delivers a stretch; all records but the poison returned are safe at the destination then, and
    /// so is its cursor, where it keeps one. One stretch at a time. After [`SinkError::Unavailable`]
    /// the same stretch comes again. Poison is returned only by a sink that keeps no cursor.
    ///
    /// # Errors
    /// [`SinkError`]: some of it may have arrived.
    fn deliver<'a>(&'a self, stretch: &'a Stretch)
    -> BoxFuture<'a, Result<Vec<Poison>, SinkError>>;
}
