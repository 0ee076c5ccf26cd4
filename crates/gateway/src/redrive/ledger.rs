//! What was asked to be re-driven and how far that is: a small file of its own, so that a job goes
//! on where it was after a crash. Losing its last step only means doing that step again.

use std::path::Path;

use backtide_model::Code;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::{Outcome, RedriveError};
use crate::{
    quarantine::{Filter, Id},
    sqlite::{self, Sync},
};

/// Jobs that have ended and are still listed.
const ENDED_KEPT: u32 = 100;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS job (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        filter TEXT NOT NULL,
        rate INTEGER NOT NULL,
        began_ms INTEGER NOT NULL,
        ended_ms INTEGER,
        state TEXT NOT NULL,
        error TEXT,
        upto TEXT NOT NULL,
        at TEXT,
        entries INTEGER NOT NULL,
        stored INTEGER NOT NULL DEFAULT 0,
        partly INTEGER NOT NULL DEFAULT 0,
        refused INTEGER NOT NULL DEFAULT 0,
        skipped INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX IF NOT EXISTS job_state ON job (state, id);
";
const COLUMNS: &str = "id, filter, rate, began_ms, ended_ms, state, error, upto, at, entries, \
                       stored, partly, refused, skipped";

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits for its turn, or runs.
    Running,
    Done,
    Cancelled,
}

impl State {
    const ALL: [Self; 3] = [Self::Running, Self::Done, Self::Cancelled];

    fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What became of the entries of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Stored whole: they left the quarantine.
    pub stored: u64,
    /// Some items are stored; the others stay, with their reasons.
    pub partly: u64,
    /// Refused again: they stay, with the new reason.
    pub refused: u64,
    /// Not tried: only the beginning of the payload is kept, or the channel is gone.
    pub skipped: u64,
}

impl Counts {
    pub(crate) fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Skipped { .. } => self.skipped += 1,
            Outcome::Judged(verdict) if verdict.code == Code::Ok => self.stored += 1,
            Outcome::Judged(verdict) if verdict.stored > 0 => self.partly += 1,
            Outcome::Judged(_) => self.refused += 1,
        }
    }

    pub fn tried(&self) -> u64 {
        self.stored + self.partly + self.refused + self.skipped
    }
}

/// Entries that are re-driven together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    pub id: i64,
    pub selection: Filter,
    /// Messages a second at most.
    pub messages_per_second: u32,
    /// Wall times, milliseconds since 1970 UTC.
    pub began: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<i64>,
    pub state: State,
    /// What holds it up at this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Entries there were when it began.
    pub entries: u64,
    #[serde(flatten)]
    pub counts: Counts,
    /// The last entry it means, and the last that is done.
    #[serde(skip)]
    pub(super) upto: Id,
    #[serde(skip)]
    pub(super) at: Option<Id>,
}

pub(super) struct Ledger(Connection);

impl Ledger {
    pub(super) fn open(path: &Path) -> Result<Self, RedriveError> {
        let connection = sqlite::open(path, Sync::Normal)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(connection))
    }

    pub(super) fn add(
        &self,
        selection: &Filter,
        rate: u32,
        entries: u64,
        upto: Id,
        now_ms: i64,
    ) -> Result<i64, RedriveError> {
        let filter = serde_json::to_string(selection).expect("a filter is text and numbers");
        self.0.execute(
            "INSERT INTO job (filter, rate, began_ms, state, upto, entries)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                filter,
                rate,
                now_ms,
                State::Running.name(),
                upto.to_string(),
                signed(entries),
            ],
        )?;
        Ok(self.0.last_insert_rowid())
    }

    pub(super) fn job(&self, id: i64) -> Result<Option<Job>, RedriveError> {
        let sql = format!("SELECT {COLUMNS} FROM job WHERE id = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        Ok(statement.query_row([id], job).optional()?)
    }

    /// The newest first.
    pub(super) fn jobs(&self) -> Result<Vec<Job>, RedriveError> {
        let sql = format!("SELECT {COLUMNS} FROM job ORDER BY id DESC");
        let mut statement = self.0.prepare_cached(&sql)?;
        let jobs = statement.query_map([], job)?;
        Ok(jobs.collect::<Result<_, _>>()?)
    }

    /// The one whose turn it is.
    pub(super) fn first_running(&self) -> Result<Option<Job>, RedriveError> {
        let sql = format!("SELECT {COLUMNS} FROM job WHERE state = 'running' ORDER BY id LIMIT 1");
        let mut statement = self.0.prepare_cached(&sql)?;
        Ok(statement.query_row([], job).optional()?)
    }

    pub(super) fn running(&self) -> Result<u64, RedriveError> {
        let count: i64 = self.0.query_row(
            "SELECT COUNT(*) FROM job WHERE state = 'running'",
            [],
            |r| r.get(0),
        )?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// A step of a job is done: entries up to `at`.
    pub(super) fn advance(&self, job: &Job, at: Id, counts: Counts) -> Result<(), RedriveError> {
        self.0
            .prepare_cached(
                "UPDATE job SET at = ?2, stored = ?3, partly = ?4, refused = ?5, skipped = ?6,
                    error = NULL WHERE id = ?1",
            )?
            .execute(params![
                job.id,
                at.to_string(),
                signed(counts.stored),
                signed(counts.partly),
                signed(counts.refused),
                signed(counts.skipped),
            ])?;
        Ok(())
    }

    pub(super) fn held_up(&self, id: i64, error: &str) -> Result<(), RedriveError> {
        self.0.execute(
            "UPDATE job SET error = ?2 WHERE id = ?1",
            params![id, error],
        )?;
        Ok(())
    }

    /// Ends a running job; `None` where there is none.
    pub(super) fn end(&self, id: i64, state: State, now_ms: i64) -> Result<bool, RedriveError> {
        let ended = self.0.execute(
            "UPDATE job SET state = ?2, ended_ms = ?3, error = NULL
             WHERE id = ?1 AND state = 'running'",
            params![id, state.name(), now_ms],
        )?;
        self.0.execute(
            "DELETE FROM job WHERE id IN
                (SELECT id FROM job WHERE state <> 'running' ORDER BY id DESC LIMIT -1 OFFSET ?1)",
            [ENDED_KEPT],
        )?;
        Ok(ended > 0)
    }
}

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let filter: String = row.get(1)?;
    let state: String = row.get(5)?;
    let upto: String = row.get(7)?;
    let at: Option<String> = row.get(8)?;
    let damaged = |what: &str| {
        rusqlite::Error::ToSqlConversionFailure(format!("{what} of a job is damaged").into())
    };
    let count = |at: usize| -> rusqlite::Result<u64> {
        row.get::<_, i64>(at)
            .map(|count| u64::try_from(count).unwrap_or(0))
    };
    let known = State::ALL.into_iter().find(|known| known.name() == state);
    Ok(Job {
        id: row.get(0)?,
        selection: serde_json::from_str(&filter).map_err(|_| damaged("the selection"))?,
        messages_per_second: row.get(2)?,
        began: row.get(3)?,
        ended: row.get(4)?,
        state: known.ok_or_else(|| damaged("the state"))?,
        error: row.get(6)?,
        upto: Id::parse(&upto).ok_or_else(|| damaged("the end"))?,
        at: at.as_deref().and_then(Id::parse),
        entries: count(9)?,
        counts: Counts {
            stored: count(10)?,
            partly: count(11)?,
            refused: count(12)?,
            skipped: count(13)?,
        },
    })
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
