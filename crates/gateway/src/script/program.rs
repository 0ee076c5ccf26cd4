//! A script as it is run: one immutable text with the way to call it, and how it is doing.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::{
    Dialect, Functions, Mapping, NotPlain, Plain, Rows,
    breaker::{Breaker, Figures},
    dialect,
};
use crate::limits::{SCRIPT_CALLS_WAITING_MAX, SCRIPT_SOURCE_BYTES_MAX};

/// One version of a script, or a draft of one. Shared by everyone who calls it.
#[derive(Debug)]
pub struct Program {
    /// Unlike any other's of this process.
    pub(super) id: u64,
    /// Of the script.
    pub name: Box<str>,
    /// Absent of a draft.
    pub version: Option<u32>,
    pub source: Arc<str>,
    pub dialect: Dialect,
    pub mapping: Option<Mapping>,
    /// Of one over rows.
    pub rows: Option<Rows>,
    /// The same, where no engine is needed; or where it is.
    plain: Option<Result<Plain, NotPlain>>,
    /// The source is run once, not before every call.
    pub keep_state: bool,
    /// Replies are to go through its encoder, should it have one.
    writes_replies: bool,
    /// What it has, once a worker has loaded it.
    pub(super) functions: OnceLock<Functions>,
    pub(super) breaker: Mutex<Breaker>,
    /// A permit for each call that waits.
    pub(super) room: Arc<Semaphore>,
}

/// How a program is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    #[serde(flatten)]
    pub figures: Figures,
    /// Why the breaker holds it, and for how many seconds more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<super::breaker::Pause>,
}

impl Program {
    /// # Errors
    /// What is wrong with the source's size or the mapping; the source itself is not looked at.
    pub fn new(
        name: &str,
        version: Option<u32>,
        source: Arc<str>,
        (dialect, mapping): (Dialect, Option<Mapping>),
        keep_state: bool,
    ) -> Result<Self, String> {
        if dialect == Dialect::Transform {
            return Err("dialect transform is that of rules; write it in a rule".to_owned());
        }
        dialect::check(dialect, mapping.as_ref())?;
        Self::of((name, version), source, (dialect, mapping), keep_state)
    }

    /// The transform of a rule.
    ///
    /// # Errors
    /// What is wrong with the source's size.
    pub fn transform(name: &str, version: Option<u32>, source: Arc<str>) -> Result<Self, String> {
        Self::of((name, version), source, (Dialect::Transform, None), false)
    }

    /// A step of a policy: a pure function of what it reads of a row.
    ///
    /// # Errors
    /// What is wrong with the source's size.
    pub fn over_rows(
        name: &str,
        revision: u32,
        source: Arc<str>,
        rows: Rows,
    ) -> Result<Self, String> {
        let of = (Dialect::Transform, None);
        let program = Self::of((name, Some(revision)), source, of, false)?;
        Ok(Self {
            plain: Some(Plain::compile(&program.source, &rows)),
            rows: Some(rows),
            ..program
        })
    }

    fn of(
        (name, version): (&str, Option<u32>),
        source: Arc<str>,
        (dialect, mapping): (Dialect, Option<Mapping>),
        keep_state: bool,
    ) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if source.trim().is_empty() {
            return Err("the source is empty".to_owned());
        }
        if source.len() > SCRIPT_SOURCE_BYTES_MAX {
            return Err(format!(
                "the source has {} bytes, at most {SCRIPT_SOURCE_BYTES_MAX} are taken",
                source.len()
            ));
        }
        if source.contains('\0') {
            return Err("the source holds a zero byte".to_owned());
        }
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            version,
            source,
            dialect,
            writes_replies: dialect.encodes_replies(mapping.as_ref()),
            mapping,
            rows: None,
            plain: None,
            keep_state,
            functions: OnceLock::new(),
            breaker: Mutex::default(),
            room: Arc::new(Semaphore::new(SCRIPT_CALLS_WAITING_MAX)),
        })
    }

    /// What can say it without an engine; or where it takes one. `None` of what is not over rows.
    pub fn plain(&self) -> Option<&Result<Plain, NotPlain>> {
        self.plain.as_ref()
    }

    /// Unlike any other's of this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// `wind-frames@3`, or `wind-frames (draft)`.
    pub fn label(&self) -> String {
        match self.version {
            Some(version) => format!("{}@{version}", self.name),
            None => format!("{} (draft)", self.name),
        }
    }

    /// Whether replies go through its encoder, as far as it is known.
    pub fn encodes_replies(&self) -> bool {
        self.writes_replies && self.functions.get().is_none_or(|has| has.encodes)
    }

    /// How it is doing since it was published or this process started.
    pub fn state(&self) -> State {
        let breaker = self.breaker.lock();
        State {
            figures: breaker.figures(),
            paused: breaker.paused(std::time::Instant::now()),
        }
    }
}
