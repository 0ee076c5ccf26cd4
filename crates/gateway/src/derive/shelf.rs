//! The file of everything derived: rows, dirty spans, the place in the log, the change feed.
//!
//! One writer, the engine's thread. Its marks and its place in the log are written in one transaction;
//! rows and the changes that tell of them in another, before it. A process that ends in between computes
//! some windows again, and loses none: what a mark stood for is done before the mark goes.
//!
//! `synchronous=NORMAL`: power loss may take the last transactions, all of them or none. So the log
//! is let go only behind a place that a checkpoint has made durable ([`Shelf::sync`]).

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{chunk::ChunkError, marks::Span, series::MadeOf};
use crate::sqlite::{self, Sync};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS place (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        reached INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS published (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        sequence INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS series (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        product TEXT NOT NULL,
        print TEXT NOT NULL,
        is_doomed INTEGER NOT NULL DEFAULT 0,
        -- The device up to which stored history was marked; NULL: all of it.
        backfill TEXT
    );
    -- The points that a series is made of, and what is computed of each.
    CREATE TABLE IF NOT EXISTS made_of (
        series INTEGER PRIMARY KEY,
        points TEXT NOT NULL
    );
    CREATE UNIQUE INDEX IF NOT EXISTS series_name ON series (name, product) WHERE is_doomed = 0;
    CREATE TABLE IF NOT EXISTS mark (
        series INTEGER NOT NULL,
        device TEXT NOT NULL,
        from_ms INTEGER NOT NULL,
        to_ms INTEGER NOT NULL,
        PRIMARY KEY (series, device, from_ms)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS chunk (
        series INTEGER NOT NULL,
        device TEXT NOT NULL,
        number INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (series, device, number)
    );
    CREATE TABLE IF NOT EXISTS change (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        product TEXT NOT NULL,
        device TEXT NOT NULL,
        from_ms INTEGER NOT NULL,
        to_ms INTEGER NOT NULL,
        time_ms INTEGER NOT NULL
    );
";
/// Chunks of a series that is no more that one step removes.
const REMOVE_STEP: i64 = 500;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    #[error("derived.db: {0}")]
    File(#[from] rusqlite::Error),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

/// A series as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) id: i64,
    /// Stored history is marked up to this device; `None`: all of it.
    pub(super) backfill: Option<String>,
    /// The points that its rows are made of.
    pub(super) made_of: MadeOf,
}

/// Rows of a device in a span of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) device: String,
    pub(super) number: i64,
    pub(super) body: Vec<u8>,
}

/// A range in which something was computed anew, and is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Grows; 0 until it is kept.
    pub sequence: u64,
    /// Of the rollup or reduction.
    pub name: String,
    /// The product's key.
    pub product: String,
    pub device: String,
    /// Milliseconds since 1970, the ends of windows; the second exclusive.
    pub from_ms: i64,
    pub to_ms: i64,
    /// When it was computed.
    pub time_ms: i64,
}

/// What of the change feed is asked for; empty texts are not asked for.
#[derive(Debug, Clone, Default)]
pub struct ChangesAsked {
    pub after: u64,
    pub name: Option<String>,
    pub product: Option<String>,
    pub device: Option<String>,
    /// Only what reaches into the time from here, inclusive, to there, exclusive.
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    pub limit: usize,
    /// The last ones in place of the first.
    pub tail: bool,
}

/// The dirty spans of one device, to be written down.
pub(super) struct Marked {
    pub(super) series: i64,
    pub(super) device: Box<str>,
    pub(super) spans: Vec<Span>,
}

pub(super) struct Shelf {
    connection: Connection,
}

impl Shelf {
    pub(super) fn open(path: &Path) -> Result<Self, ShelfError> {
        let connection = sqlite::open(path, Sync::Normal)?;
        connection.execute_batch(TABLES)?;
        Ok(Self { connection })
    }

    // --- the place ---

    /// The last commit that was looked at; `None` in a new file.
    pub(super) fn reached(&self) -> Result<Option<u64>, ShelfError> {
        let sql = "SELECT reached FROM place";
        let reached = self.connection.query_row(sql, [], |row| row.get(0));
        Ok(reached.optional()?.map(unsigned))
    }

    /// Writes down the place, how far stored history is marked, and the dirty spans of some devices.
    pub(super) fn save(
        &mut self,
        reached: u64,
        backfills: &[(i64, Option<String>)],
        marked: &[Marked],
    ) -> Result<(), ShelfError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute(
            "INSERT OR REPLACE INTO place (one, reached) VALUES (1, ?1)",
            [signed(reached)],
        )?;
        for (series, backfill) in backfills {
            transaction.execute(
                "UPDATE series SET backfill = ?2 WHERE id = ?1",
                params![series, backfill],
            )?;
        }
        {
            let mut delete =
                transaction.prepare_cached("DELETE FROM mark WHERE series = ?1 AND device = ?2")?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO mark (series, device, from_ms, to_ms) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for one in marked {
                delete.execute(params![one.series, one.device])?;
                for span in &one.spans {
                    insert.execute(params![one.series, one.device, span.from_ms, span.to_ms])?;
                }
            }
        }
        Ok(transaction.commit()?)
    }

    /// Makes what was written survive power loss. False where a reader is in the way: try later.
    pub(super) fn sync(&self) -> Result<bool, ShelfError> {
        let sql = "PRAGMA wal_checkpoint(FULL)";
        let busy: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
        Ok(busy == 0)
    }

    /// Every mark, as it was written down.
    pub(super) fn marks(&self, mut each: impl FnMut(i64, &str, Span)) -> Result<(), ShelfError> {
        let mut select = self
            .connection
            .prepare("SELECT series, device, from_ms, to_ms FROM mark")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let device = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            let span = Span {
                from_ms: row.get(2)?,
                to_ms: row.get(3)?,
            };
            each(row.get(0)?, device, span);
        }
        Ok(())
    }

    // --- series ---

    /// Those that are kept, with their name, product and what they say.
    pub(super) fn series(&self) -> Result<Vec<(String, String, String, Kept)>, ShelfError> {
        let mut select = self.connection.prepare_cached(
            "SELECT name, product, print, id, backfill, points FROM series
             LEFT JOIN made_of ON made_of.series = series.id WHERE is_doomed = 0",
        )?;
        let series = select.query_map([], |row| {
            let kept = Kept {
                id: row.get(3)?,
                backfill: row.get(4)?,
                made_of: MadeOf::read(&row.get::<_, Option<String>>(5)?.unwrap_or_default()),
            };
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, kept))
        })?;
        Ok(series.collect::<Result<_, _>>()?)
    }

    /// Forgets some series and begins others; the rows of those that are forgotten go later.
    pub(super) fn agree(
        &mut self,
        gone: &[i64],
        new: &[(&str, &str, &str)],
    ) -> Result<(), ShelfError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for id in gone {
            transaction.execute("UPDATE series SET is_doomed = 1 WHERE id = ?1", [id])?;
            transaction.execute("DELETE FROM mark WHERE series = ?1", [id])?;
        }
        for (name, product, print) in new {
            transaction.execute(
                "INSERT INTO series (name, product, print, backfill) VALUES (?1, ?2, ?3, '')",
                [name, product, print],
            )?;
        }
        Ok(transaction.commit()?)
    }

    /// Notes what a series is made of from now on; `anew`: all that is stored is to be marked.
    pub(super) fn make_of(
        &mut self,
        id: i64,
        made_of: &MadeOf,
        anew: bool,
    ) -> Result<(), ShelfError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute(
            "INSERT OR REPLACE INTO made_of (series, points) VALUES (?1, ?2)",
            params![id, made_of.text()],
        )?;
        if anew {
            transaction.execute("UPDATE series SET backfill = '' WHERE id = ?1", [id])?;
        }
        Ok(transaction.commit()?)
    }

    /// Removes a step of what is kept of series that are no more; whether there is more.
    pub(super) fn sweep(&mut self) -> Result<bool, ShelfError> {
        let sql = "SELECT id FROM series WHERE is_doomed = 1 LIMIT 1";
        let doomed: Option<i64> = self
            .connection
            .query_row(sql, [], |row| row.get(0))
            .optional()?;
        let Some(id) = doomed else {
            return Ok(false);
        };
        let removed = self.connection.execute(
            "DELETE FROM chunk WHERE rowid IN (SELECT rowid FROM chunk WHERE series = ?1 LIMIT ?2)",
            [id, REMOVE_STEP],
        )?;
        if removed == 0 {
            for sql in [
                "DELETE FROM made_of WHERE series = ?1",
                "DELETE FROM series WHERE id = ?1",
            ] {
                self.connection.execute(sql, [id])?;
            }
        }
        Ok(true)
    }

    // --- rows ---

    pub(super) fn chunk(
        &self,
        series: i64,
        device: &str,
        number: i64,
    ) -> Result<Option<Vec<u8>>, ShelfError> {
        let mut select = self.connection.prepare_cached(
            "SELECT body FROM chunk WHERE series = ?1 AND device = ?2 AND number = ?3",
        )?;
        let body = select.query_row(params![series, device, number], |row| row.get(0));
        Ok(body.optional()?)
    }

    /// Keeps chunks, and tells of what changed; the oldest changes go.
    pub(super) fn put(
        &mut self,
        series: i64,
        chunks: &[Chunk],
        changes: &[Change],
        changes_max: u64,
    ) -> Result<(), ShelfError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT INTO chunk (series, device, number, body) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (series, device, number) DO UPDATE SET body = excluded.body",
            )?;
            for chunk in chunks {
                put.execute(params![series, chunk.device, chunk.number, chunk.body])?;
            }
            let mut tell = transaction.prepare_cached(
                "INSERT INTO change (name, product, device, from_ms, to_ms, time_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for change in changes {
                tell.execute(params![
                    change.name,
                    change.product,
                    change.device,
                    change.from_ms,
                    change.to_ms,
                    change.time_ms
                ])?;
            }
        }
        if !changes.is_empty() {
            transaction.execute(
                "DELETE FROM change WHERE sequence <= (SELECT max(sequence) FROM change) - ?1",
                [signed(changes_max)],
            )?;
        }
        Ok(transaction.commit()?)
    }

    /// Chunks of a series behind a place, by device, then time; `device` alone, or all.
    pub(super) fn page(
        &self,
        series: i64,
        device: Option<&str>,
        (after_device, after_number): (&str, i64),
        numbers: (i64, i64),
        limit: usize,
    ) -> Result<Vec<Chunk>, ShelfError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Chunk {
                device: row.get(0)?,
                number: row.get(1)?,
                body: row.get(2)?,
            })
        };
        let (first, last) = numbers;
        let chunks = match device {
            Some(device) => {
                let mut select = self.connection.prepare_cached(
                    "SELECT device, number, body FROM chunk
                     WHERE series = ?1 AND device = ?2 AND number > ?3 AND number BETWEEN ?4 AND ?5
                     ORDER BY number LIMIT ?6",
                )?;
                let chunks = select.query_map(
                    params![series, device, after_number, first, last, limit],
                    read,
                )?;
                chunks.collect::<Result<Vec<_>, _>>()?
            }
            None => {
                let mut select = self.connection.prepare_cached(
                    "SELECT device, number, body FROM chunk
                     WHERE series = ?1 AND (device, number) > (?2, ?3) AND number BETWEEN ?4 AND ?5
                     ORDER BY device, number LIMIT ?6",
                )?;
                let chunks = select.query_map(
                    params![series, after_device, after_number, first, last, limit],
                    read,
                )?;
                chunks.collect::<Result<Vec<_>, _>>()?
            }
        };
        Ok(chunks)
    }

    // --- the change feed ---

    /// Changes behind `asked.after`, in the order in which they were computed.
    pub(super) fn changes(&self, asked: &ChangesAsked) -> Result<Vec<Change>, ShelfError> {
        let order = if asked.tail { "DESC" } else { "ASC" };
        let mut select = self.connection.prepare_cached(&format!(
            "SELECT sequence, name, product, device, from_ms, to_ms, time_ms FROM change
             WHERE sequence > ?1 AND (?2 IS NULL OR name = ?2) AND (?3 IS NULL OR product = ?3)
                 AND (?4 IS NULL OR device = ?4) AND (?5 IS NULL OR to_ms > ?5)
                 AND (?6 IS NULL OR from_ms < ?6)
             ORDER BY sequence {order} LIMIT ?7"
        ))?;
        let limit = i64::try_from(asked.limit).unwrap_or(i64::MAX);
        let params = params![
            signed(asked.after),
            asked.name,
            asked.product,
            asked.device,
            asked.from_ms,
            asked.to_ms,
            limit
        ];
        let changes = select.query_map(params, |row| {
            Ok(Change {
                sequence: unsigned(row.get(0)?),
                name: row.get(1)?,
                product: row.get(2)?,
                device: row.get(3)?,
                from_ms: row.get(4)?,
                to_ms: row.get(5)?,
                time_ms: row.get(6)?,
            })
        })?;
        let mut changes = changes.collect::<Result<Vec<_>, _>>()?;
        if asked.tail {
            changes.reverse();
        }
        Ok(changes)
    }

    /// The first change that is kept, and the last there was; zeros where there was none.
    pub(super) fn extent(&self) -> Result<(u64, u64), ShelfError> {
        let first = self.connection.query_row(
            "SELECT ifnull(min(sequence), 0) FROM change",
            [],
            |row| row.get(0),
        )?;
        let last = self.connection.query_row(
            "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'change'), 0)",
            [],
            |row| row.get(0),
        )?;
        Ok((unsigned(first), unsigned(last)))
    }

    /// The last change that was published.
    pub(super) fn published(&self) -> Result<u64, ShelfError> {
        let sql = "SELECT sequence FROM published";
        let sequence = self.connection.query_row(sql, [], |row| row.get(0));
        Ok(unsigned(sequence.optional()?.unwrap_or(0)))
    }

    pub(super) fn set_published(&self, sequence: u64) -> Result<(), ShelfError> {
        self.connection.execute(
            "INSERT OR REPLACE INTO published (one, sequence) VALUES (1, ?1)",
            [signed(sequence)],
        )?;
        Ok(())
    }

    pub(super) fn bytes_used(&self) -> Result<u64, ShelfError> {
        Ok(sqlite::bytes_used(&self.connection)?)
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
