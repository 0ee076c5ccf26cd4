//! The file of a rule: its place in the log, what it counted, its replay, its dead letters.
//!
//! WAL with `synchronous=FULL`: what is written is durable, so that the log may be let go behind it.
//! The runner writes; the API reads, marks letters and removes them, each with a connection of its
//! own.

use std::path::Path;

use backtide_store::Sequence;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::plan::Source;
use crate::sqlite::{self, Sync};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS place (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        body TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS replay (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        body TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS letter (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time_ms INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        row INTEGER,
        channel TEXT NOT NULL,
        asset TEXT NOT NULL,
        cause TEXT NOT NULL,
        reason TEXT NOT NULL,
        revision INTEGER NOT NULL,
        line INTEGER,
        column_ INTEGER,
        attempts INTEGER NOT NULL,
        waits INTEGER NOT NULL,
        input TEXT NOT NULL,
        made TEXT
    );
    CREATE INDEX IF NOT EXISTS letter_source ON letter (sequence);
    CREATE INDEX IF NOT EXISTS letter_waits ON letter (id) WHERE waits = 1;
";
/// Letters that a step of pruning removes at most.
const REMOVE_STEP: i64 = 256;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("rule file: {0}")]
pub struct DrawerError(String);

impl From<rusqlite::Error> for DrawerError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

/// Where a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Place {
    /// It has dealt with everything up to here.
    pub(super) reached: u64,
    /// Commits that the log no longer held when it came to them.
    pub(super) skipped: u64,
    /// When that was last.
    pub(super) skipped_ms: i64,
    /// Records that arrived at the destination, repeats included.
    pub(super) published: u64,
    /// Dead letters that made room for newer ones, or were too old.
    pub(super) dropped: u64,
    /// The destination kept no cursor when it was here last: what it says of older ones is old.
    #[serde(default)]
    pub(super) is_own: bool,
}

/// What is published again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Replay {
    /// The first commit of it, and the last.
    pub(super) from: u64,
    pub(super) until: u64,
    /// The last commit that was published again out of the log; below `from` before the first.
    pub(super) reached: u64,
    /// How far it is in stored history, which comes first.
    pub(super) shelf: Shelf,
    pub(super) published: u64,
}

/// A place in stored history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shelf {
    /// Stored history up to here is asked for, since the log begins behind; 0: none of it.
    pub(super) last: u64,
    /// Products that are done with, in the order of their names.
    pub(super) product: Option<String>,
    /// The row that was published last in the next one, as its kind of rows has it.
    pub(super) after: Option<serde_json::Value>,
    pub(super) is_done: bool,
}

/// Why a row or a record is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeadCause {
    /// A step could not be computed.
    Make,
    /// The script failed.
    Script,
    /// The destination will never take it.
    Refused,
}

impl DeadCause {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Script => "script",
            Self::Refused => "refused",
        }
    }
}

/// A letter to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) source: Source,
    pub(super) channel: String,
    pub(super) asset: String,
    pub(super) cause: DeadCause,
    pub(super) reason: String,
    pub(super) revision: u32,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
    pub(super) input: String,
    pub(super) made: Option<String>,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    pub id: i64,
    /// When it was put aside last, milliseconds since 1970.
    pub time: i64,
    /// The position of its commit, and its row there where that is known.
    #[serde(skip)]
    pub commit: u64,
    /// Names the commit.
    pub receipt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    pub channel: String,
    pub asset_id: String,
    /// make, script or refused.
    pub cause: String,
    pub reason: String,
    /// The version of the rule, which is that of its script.
    pub version: u32,
    /// Where in the script it is, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// How often it was driven again.
    pub attempts: u32,
    /// It is about to be driven again.
    pub waits: bool,
    /// The message as it was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<serde_json::Value>,
    /// What the rule made of it, where it came so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made: Option<serde_json::Value>,
    #[serde(skip)]
    pub input: String,
}

/// Which letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letters {
    All,
    Ids(Vec<i64>),
}

/// How many letters there are, how much they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size {
    pub(super) letters: u64,
    pub(super) waiting: u64,
    pub(super) bytes: u64,
}

/// One connection to the file.
pub(super) struct Drawer {
    connection: Connection,
}

impl Drawer {
    pub(super) fn open(path: &Path) -> Result<Self, DrawerError> {
        let connection = sqlite::open(path, Sync::Full)?;
        connection.execute_batch(TABLES)?;
        Ok(Self { connection })
    }

    pub(super) fn place(&self) -> Result<Option<Place>, DrawerError> {
        self.body("SELECT body FROM place")
    }

    pub(super) fn replay(&self) -> Result<Option<Replay>, DrawerError> {
        self.body("SELECT body FROM replay")
    }

    fn body<T: serde::de::DeserializeOwned>(&self, sql: &str) -> Result<Option<T>, DrawerError> {
        let body: Option<String> = self
            .connection
            .query_row(sql, [], |row| row.get(0))
            .optional()?;
        let read = body.map(|body| serde_json::from_str(&body));
        read.transpose()
            .map_err(|error| DrawerError(error.to_string()))
    }

    /// Writes what a step of work came to, all or nothing.
    pub(super) fn write(
        &mut self,
        place: Place,
        replay: Option<&Replay>,
        letters: &[Letter],
        now_ms: i64,
    ) -> Result<(), DrawerError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for letter in letters {
            transaction
                .prepare_cached(
                    // Put aside again after a crash, or by a replay, it is the same letter.
                    "INSERT INTO letter (time_ms, sequence, row, channel, asset, cause, reason,
                        revision, line, column_, attempts, waits, input, made)
                     SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, 0, ?11, ?12
                     WHERE NOT EXISTS (SELECT 1 FROM letter
                        WHERE sequence = ?2 AND row IS ?3 AND cause = ?6 AND input = ?11
                            AND made IS ?12)",
                )?
                .execute(params![
                    now_ms,
                    signed(letter.source.commit.0),
                    letter.source.row.map(signed),
                    letter.channel,
                    letter.asset,
                    letter.cause.word(),
                    letter.reason,
                    letter.revision,
                    letter.line,
                    letter.column,
                    letter.input,
                    letter.made,
                ])?;
        }
        put(&transaction, "place", Some(&place))?;
        put(&transaction, "replay", replay)?;
        transaction.commit()?;
        Ok(())
    }

    /// Letters that are to be driven again, the oldest first.
    pub(super) fn waiting(&self, limit: usize) -> Result<Vec<DeadLetter>, DrawerError> {
        let sql = format!("SELECT {COLUMNS} FROM letter WHERE waits = 1 ORDER BY id LIMIT ?1");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let letters = statement.query_map([limit], letter)?;
        Ok(letters.collect::<Result<_, _>>()?)
    }

    /// What became of letters that were driven again: gone, or there with a new reason.
    pub(super) fn settle(
        &mut self,
        gone: &[i64],
        again: &[(i64, Letter)],
        now_ms: i64,
    ) -> Result<(), DrawerError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for id in gone {
            transaction
                .prepare_cached("DELETE FROM letter WHERE id = ?1")?
                .execute([id])?;
        }
        for (id, letter) in again {
            transaction
                .prepare_cached(
                    "UPDATE letter SET time_ms = ?2, cause = ?3, reason = ?4, revision = ?5,
                        line = ?6, column_ = ?7, made = ?8, attempts = attempts + 1, waits = 0
                     WHERE id = ?1",
                )?
                .execute(params![
                    id,
                    now_ms,
                    letter.cause.word(),
                    letter.reason,
                    letter.revision,
                    letter.line,
                    letter.column,
                    letter.made,
                ])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Letters behind `after`, the oldest first.
    pub(super) fn list(&self, after: i64, limit: usize) -> Result<Vec<DeadLetter>, DrawerError> {
        let sql = format!("SELECT {COLUMNS} FROM letter WHERE id > ?1 ORDER BY id LIMIT ?2");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let letters = statement.query_map(params![after, limit], letter)?;
        Ok(letters.collect::<Result<_, _>>()?)
    }

    pub(super) fn show(&self, id: i64) -> Result<Option<DeadLetter>, DrawerError> {
        let sql = format!("SELECT {COLUMNS} FROM letter WHERE id = ?1");
        Ok(self.connection.query_row(&sql, [id], letter).optional()?)
    }

    /// Marks letters to be driven again; how many.
    pub(super) fn mark(&mut self, letters: &Letters) -> Result<u64, DrawerError> {
        self.each(letters, "UPDATE letter SET waits = 1")
    }

    /// Removes letters; how many.
    pub(super) fn discard(&mut self, letters: &Letters) -> Result<u64, DrawerError> {
        self.each(letters, "DELETE FROM letter")
    }

    fn each(&mut self, letters: &Letters, sql: &str) -> Result<u64, DrawerError> {
        let changed = match letters {
            Letters::All => self.connection.execute(sql, [])?,
            Letters::Ids(ids) => {
                let transaction = self
                    .connection
                    .transaction_with_behavior(TransactionBehavior::Immediate)?;
                let sql = format!("{sql} WHERE id = ?1");
                let mut changed = 0;
                for id in ids {
                    changed += transaction.prepare_cached(&sql)?.execute([id])?;
                }
                transaction.commit()?;
                changed
            }
        };
        Ok(changed as u64)
    }

    pub(super) fn size(&self) -> Result<Size, DrawerError> {
        let (letters, waiting): (i64, i64) = self.connection.query_row(
            "SELECT COUNT(*), IFNULL(SUM(waits), 0) FROM letter",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        Ok(Size {
            letters: unsigned(letters),
            waiting: unsigned(waiting),
            bytes: sqlite::bytes_used(&self.connection)?,
        })
    }

    /// Removes letters that were put aside before `before_ms`, and the oldest while the file has
    /// more than `bytes_max`; how many.
    pub(super) fn prune(&mut self, before_ms: i64, bytes_max: u64) -> Result<u64, DrawerError> {
        let mut removed = 0;
        loop {
            let step = self.connection.execute(
                "DELETE FROM letter WHERE id IN
                    (SELECT id FROM letter WHERE time_ms < ?1 ORDER BY id LIMIT ?2)",
                params![before_ms, REMOVE_STEP],
            )?;
            removed += step as u64;
            if step == 0 {
                break;
            }
        }
        while sqlite::bytes_used(&self.connection)? > bytes_max {
            let step = self.connection.execute(
                "DELETE FROM letter WHERE id IN (SELECT id FROM letter ORDER BY id LIMIT 16)",
                [],
            )?;
            removed += step as u64;
            if step == 0 {
                break;
            }
        }
        Ok(removed)
    }
}

const COLUMNS: &str = "id, time_ms, sequence, row, channel, asset, cause, reason, revision, line, \
                       column_, attempts, waits, input, made";

fn letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let json =
        |text: String| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
    let input: String = row.get(13)?;
    let made: Option<String> = row.get(14)?;
    Ok(DeadLetter {
        id: row.get(0)?,
        time: row.get(1)?,
        commit: unsigned(row.get(2)?),
        receipt: String::new(),
        sequence: row.get::<_, Option<i64>>(3)?.map(unsigned),
        channel: row.get(4)?,
        asset_id: row.get(5)?,
        cause: row.get(6)?,
        reason: row.get(7)?,
        version: row.get(8)?,
        line: row.get(9)?,
        column: row.get(10)?,
        attempts: row.get(11)?,
        waits: row.get(12)?,
        message: Some(json(input.clone())),
        made: made.map(json),
        input,
    })
}

fn put<T: Serialize>(
    connection: &Connection,
    table: &str,
    body: Option<&T>,
) -> rusqlite::Result<()> {
    match body {
        None => connection.execute(&format!("DELETE FROM {table}"), [])?,
        Some(body) => {
            let body = serde_json::to_string(body).expect("numbers and texts are JSON");
            connection.execute(
                &format!("INSERT OR REPLACE INTO {table} (one, body) VALUES (1, ?1)"),
                [body],
            )?
        }
    };
    Ok(())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A commit that a letter came from.
pub(super) fn source(letter: &DeadLetter) -> Source {
    Source {
        commit: Sequence(letter.commit),
        row: letter.sequence,
    }
}
