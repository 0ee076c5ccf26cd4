//! What was imported and how far it came: a small file of its own. Counts are written after the
//! commit that they count, so they may be behind after a crash, and never ahead.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::ImportError;
use crate::{
    limits::IMPORTS_KEPT_MAX,
    sqlite::{self, Sync},
};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS import (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        channel TEXT NOT NULL,
        file TEXT NOT NULL,
        by TEXT NOT NULL,
        state TEXT NOT NULL,
        error TEXT,
        began_ms INTEGER NOT NULL,
        ended_ms INTEGER,
        answered INTEGER NOT NULL DEFAULT 0,
        stored INTEGER NOT NULL DEFAULT 0,
        rejected INTEGER NOT NULL DEFAULT 0,
        empty INTEGER NOT NULL DEFAULT 0,
        sent INTEGER NOT NULL DEFAULT 0,
        messages INTEGER NOT NULL DEFAULT 0
    );
    -- Between which commits those of an import are; without an end while it runs.
    CREATE TABLE IF NOT EXISTS span (
        id INTEGER PRIMARY KEY, after_sequence INTEGER NOT NULL, through_sequence INTEGER
    );
";
const COLUMNS: &str = "id, channel, file, by, state, error, began_ms, ended_ms, answered, stored, \
                       rejected, empty, sent, messages";

/// Where an import is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ImportState)]
pub enum State {
    Running,
    /// The whole file was read, and every row of it is stored or in quarantine.
    Complete,
    /// Its client or the gateway went away before its end: send the file again.
    Interrupted,
    /// It cannot be read on; `error` says why.
    Failed,
}

impl State {
    const ALL: [Self; 4] = [
        Self::Running,
        Self::Complete,
        Self::Interrupted,
        Self::Failed,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }
}

/// What became of the rows of a file. They are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ImportRows)]
pub struct Counts {
    /// Rows from the beginning of the file that are all answered: an interrupted import goes on with
    /// `skipRows` of this.
    pub answered: u64,
    /// Rows that are stored, those that were stored before included: `repeated` says how many of their
    /// values those are.
    pub stored: u64,
    /// Rows in quarantine, each with its number and the reason.
    pub rejected: u64,
    /// Rows without any value.
    pub empty: u64,
    /// Values of the rows that were sent to be stored.
    pub values: u64,
    pub messages: u64,
}

/// A file that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    pub id: i64,
    pub channel: String,
    pub file: String,
    /// Who uploaded it.
    pub by: String,
    /// What the channel's log and the quarantine name as its client.
    pub client_id: String,
    pub state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Milliseconds since 1970.
    pub began: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<i64>,
    pub rows: Counts,
    /// Of one import that is shown, if it is of points and it is known between which commits its own are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeated: Option<Compared>,
    /// Likewise. `GET /api/v1/conflicts?import=` lists them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflicts: Option<Compared>,
}

/// Values of an import that were there already and are stored once, or that were other than what stood
/// there, which may be of the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ImportCompared)]
pub struct Compared {
    pub values: u64,
    /// All that it brought is compared with what was there. Until then there may be more: the store compares
    /// after the commit, within a minute of quiet.
    pub complete: bool,
}

/// Commits behind one up to another, or up to the last there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) after: u64,
    pub(super) through: Option<u64>,
}

/// The client id of an import.
fn client_of(id: i64) -> String {
    format!("import:{id}")
}

pub(super) struct Shelf(Connection);

impl Shelf {
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        let connection = sqlite::open(path, Sync::Normal)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(connection))
    }

    /// Ends what an earlier process began.
    pub(super) fn interrupt_all(&self, now_ms: i64) -> Result<usize, ImportError> {
        Ok(self.0.execute(
            "UPDATE import SET state = ?1, ended_ms = ?2, error = ?3 WHERE state = ?4",
            params![
                State::Interrupted.word(),
                now_ms,
                "the gateway ended; send the file again",
                State::Running.word()
            ],
        )?)
    }

    /// Begins an import, behind a commit where its values are compared.
    pub(super) fn add(
        &self,
        (channel, file, by): (&str, &str, &str),
        after: Option<u64>,
        now_ms: i64,
    ) -> Result<Import, ImportError> {
        self.0.execute(
            "INSERT INTO import (channel, file, by, state, began_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![channel, file, by, State::Running.word(), now_ms],
        )?;
        let id = self.0.last_insert_rowid();
        if let Some(after) = after {
            self.0.execute(
                "INSERT INTO span (id, after_sequence) VALUES (?1, ?2)",
                params![id, signed(after)],
            )?;
        }
        // The oldest go, but for those that run.
        self.0.execute(
            "DELETE FROM import WHERE id <= ?1 AND state <> ?2",
            params![id - i64::from(IMPORTS_KEPT_MAX), State::Running.word()],
        )?;
        self.0.execute(
            "DELETE FROM span WHERE id NOT IN (SELECT id FROM import)",
            [],
        )?;
        Ok(Import {
            id,
            channel: channel.to_owned(),
            file: file.to_owned(),
            by: by.to_owned(),
            client_id: client_of(id),
            state: State::Running,
            error: None,
            began: now_ms,
            ended: None,
            rows: Counts::default(),
            repeated: None,
            conflicts: None,
        })
    }

    pub(super) fn save(&self, import: &Import) -> Result<(), ImportError> {
        let rows = &import.rows;
        self.0.execute(
            "UPDATE import SET state = ?2, error = ?3, ended_ms = ?4, answered = ?5, stored = ?6,
                               rejected = ?7, empty = ?8, sent = ?9, messages = ?10
             WHERE id = ?1",
            params![
                import.id,
                import.state.word(),
                import.error,
                import.ended,
                signed(rows.answered),
                signed(rows.stored),
                signed(rows.rejected),
                signed(rows.empty),
                signed(rows.values),
                signed(rows.messages),
            ],
        )?;
        Ok(())
    }

    /// The commits of an import are before this one, or it.
    pub(super) fn end(&self, id: i64, through: u64) -> Result<(), ImportError> {
        self.0.execute(
            "UPDATE span SET through_sequence = ?2 WHERE id = ?1",
            params![id, signed(through)],
        )?;
        Ok(())
    }

    /// `None`: it is one of events or attributes, or of before spans were kept.
    pub(super) fn span(&self, id: i64) -> Result<Option<Span>, ImportError> {
        let sql = "SELECT after_sequence, through_sequence FROM span WHERE id = ?1";
        let unsigned = |n: i64| u64::try_from(n).unwrap_or(0);
        let span = self.0.query_row(sql, [id], |row| {
            Ok(Span {
                after: unsigned(row.get(0)?),
                through: row.get::<_, Option<i64>>(1)?.map(unsigned),
            })
        });
        Ok(span.optional()?)
    }

    pub(super) fn get(&self, id: i64) -> Result<Option<Import>, ImportError> {
        let sql = format!("SELECT {COLUMNS} FROM import WHERE id = ?1");
        let mut statement = self.0.prepare_cached(&sql)?;
        Ok(statement.query_row([id], import).optional()?)
    }

    pub(super) fn list(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Import>, ImportError> {
        let sql = format!("SELECT {COLUMNS} FROM import WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
        let mut statement = self.0.prepare_cached(&sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map([before.unwrap_or(i64::MAX), limit], import)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn import(row: &Row<'_>) -> rusqlite::Result<Import> {
    let id = row.get(0)?;
    let word: String = row.get(4)?;
    let state = State::ALL.into_iter().find(|state| state.word() == word);
    let count = |column| {
        row.get::<_, i64>(column)
            .map(|n| u64::try_from(n).unwrap_or(0))
    };
    Ok(Import {
        id,
        channel: row.get(1)?,
        file: row.get(2)?,
        by: row.get(3)?,
        client_id: client_of(id),
        state: state.unwrap_or(State::Failed),
        error: row.get(5)?,
        began: row.get(6)?,
        ended: row.get(7)?,
        rows: Counts {
            answered: count(8)?,
            stored: count(9)?,
            rejected: count(10)?,
            empty: count(11)?,
            values: count(12)?,
            messages: count(13)?,
        },
        repeated: None,
        conflicts: None,
    })
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
