//! The quarantine's file: SQLite, entries beside their bytes, and the place in the log.
//!
//! WAL with `synchronous=FULL`: a commit here is durable, so that the log may be trimmed behind it.

use std::path::Path;

use backtide_store::Sequence;
use rusqlite::{Connection, Row, params, types::Value};

use super::{Cause, Entry, Id, Item, Payload, QuarantineError};
use crate::sqlite::{self, Sync};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS place (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        sequence INTEGER NOT NULL
    );
    INSERT OR IGNORE INTO place VALUES (1, 0);
    CREATE TABLE IF NOT EXISTS entry (
        sequence INTEGER NOT NULL,
        part INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        channel TEXT NOT NULL,
        client TEXT NOT NULL,
        topic TEXT NOT NULL,
        product TEXT NOT NULL,
        code INTEGER NOT NULL,
        payload_bytes INTEGER NOT NULL,
        payload_sha256 BLOB NOT NULL,
        is_truncated INTEGER NOT NULL,
        items TEXT NOT NULL,
        more INTEGER NOT NULL,
        device TEXT,
        point TEXT,
        reason TEXT NOT NULL,
        PRIMARY KEY (sequence, part)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS entry_channel ON entry (channel, sequence, part);
    CREATE TABLE IF NOT EXISTS payload (
        sequence INTEGER NOT NULL,
        part INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        PRIMARY KEY (sequence, part)
    );
";

const COLUMNS: &str = "sequence, part, time_ms, channel, client, topic, product, code, \
                       payload_bytes, payload_sha256, is_truncated, items, more";
/// Entries that a step of pruning removes at most.
const PRUNE_STEP: u32 = 256;

/// What happens when the quarantine has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// The doors hold until there is room again.
    #[default]
    Hold,
    /// The oldest entries are removed, counted and logged.
    DropOldest,
}

/// How much the quarantine keeps.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Entries that arrived longer before the newest commit are removed.
    pub age_ms_max: i64,
    /// Bytes in use in the file.
    pub bytes_max: u64,
    pub when_full: WhenFull,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            age_ms_max: 90 * 24 * 3600 * 1000,
            bytes_max: 1 << 30,
            when_full: WhenFull::default(),
        }
    }
}

/// What a reader asks for; an empty field asks for everything.
#[derive(Debug, Clone)]
pub struct Filter {
    pub channel: Option<String>,
    pub code: Option<u16>,
    /// Any of the refused items is about this device.
    pub device: Option<String>,
    /// Only entries behind this one.
    pub after: Option<Id>,
    pub limit: usize,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            channel: None,
            code: None,
            device: None,
            after: None,
            limit: 1_000,
        }
    }
}

/// What a turn of pruning took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pruned {
    pub aged: u64,
    pub dropped: u64,
}

/// One connection to the file.
pub(super) struct Cabinet {
    connection: Connection,
    bounds: Bounds,
}

impl Cabinet {
    pub(super) fn open(path: &Path, bounds: Bounds) -> Result<Self, QuarantineError> {
        // See the head of this file.
        let connection = sqlite::open(path, Sync::Full)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection, bounds })
    }

    /// Everything up to here is looked through.
    pub(super) fn cursor(&self) -> Result<Sequence, QuarantineError> {
        let at: i64 = self
            .connection
            .query_row("SELECT sequence FROM place", [], |r| r.get(0))?;
        Ok(Sequence(u64::try_from(at).unwrap_or(0)))
    }

    /// Forgets what the store does not know of: its files were replaced by older ones.
    pub(super) fn agree_with(&mut self, durable: Sequence) -> Result<(), QuarantineError> {
        let cursor = self.cursor()?;
        if cursor <= durable {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        let behind = [signed(durable)];
        let entries = transaction.execute("DELETE FROM entry WHERE sequence > ?1", behind)?;
        transaction.execute("DELETE FROM payload WHERE sequence > ?1", behind)?;
        transaction.execute("UPDATE place SET sequence = ?1", behind)?;
        transaction.commit()?;
        tracing::error!(
            entries,
            store = durable.0,
            quarantine = cursor.0,
            "the store ends before the quarantine: entries of commits it does not have are removed"
        );
        Ok(())
    }

    /// Writes entries with their bytes and moves on to `cursor`, all or nothing.
    pub(super) fn write(
        &mut self,
        entries: &[(Entry, &[u8])],
        cursor: Sequence,
    ) -> Result<(), QuarantineError> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(&format!(
                "INSERT INTO entry ({COLUMNS}, device, point, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
            ))?;
            let mut keep = transaction.prepare_cached("INSERT INTO payload VALUES (?1, ?2, ?3)")?;
            for (entry, bytes) in entries {
                let first = entry.items.first();
                let items =
                    serde_json::to_string(&entry.items).expect("items are text and numbers");
                insert.execute(params![
                    entry.id.sequence,
                    entry.id.part,
                    entry.time_ms,
                    entry.channel,
                    entry.client,
                    entry.topic,
                    entry.product,
                    entry.code,
                    i64::try_from(entry.payload_bytes).unwrap_or(i64::MAX),
                    entry.payload_sha256,
                    entry.is_truncated,
                    items,
                    entry.more,
                    first.and_then(|item| item.device_key.as_deref()),
                    first.and_then(|item| item.point.as_deref()),
                    entry.reason(),
                ])?;
                keep.execute(params![entry.id.sequence, entry.id.part, bytes])?;
            }
        }
        transaction.execute("UPDATE place SET sequence = ?1", [signed(cursor)])?;
        transaction.commit()?;
        Ok(())
    }

    pub(super) fn list(&self, filter: &Filter) -> Result<Vec<Entry>, QuarantineError> {
        let (wheres, mut values) = clauses(filter);
        values.push(Value::Integer(
            i64::try_from(filter.limit).unwrap_or(i64::MAX),
        ));
        let sql = format!("SELECT {COLUMNS} FROM entry {wheres} ORDER BY sequence, part LIMIT ?");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            entries.push(entry(row)?);
        }
        Ok(entries)
    }

    pub(super) fn causes(&self, filter: &Filter) -> Result<Vec<Cause>, QuarantineError> {
        let (wheres, mut values) = clauses(filter);
        values.push(Value::Integer(
            i64::try_from(filter.limit).unwrap_or(i64::MAX),
        ));
        // Beside MAX(sequence), SQLite takes part and reason from the row that has it.
        let sql = format!(
            "SELECT channel, product, code, device, point, COUNT(*), MIN(time_ms), MAX(time_ms), \
                    MAX(sequence), part, reason \
             FROM entry {wheres} GROUP BY channel, product, code, device, point \
             ORDER BY COUNT(*) DESC, MAX(sequence) DESC LIMIT ?"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let causes = statement.query_map(rusqlite::params_from_iter(values), |row| {
            let entries: i64 = row.get(5)?;
            Ok(Cause {
                channel: row.get(0)?,
                product_key: row.get(1)?,
                code: row.get(2)?,
                device_key: row.get(3)?,
                point: row.get(4)?,
                entries: u64::try_from(entries).unwrap_or(0),
                first: row.get(6)?,
                last: row.get(7)?,
                example: Id {
                    sequence: row.get(8)?,
                    part: row.get(9)?,
                },
                reason: row.get(10)?,
            })
        })?;
        Ok(causes.collect::<Result<_, _>>()?)
    }

    pub(super) fn show(&self, id: Id) -> Result<Option<(Entry, Payload)>, QuarantineError> {
        let sql = format!("SELECT {COLUMNS} FROM entry WHERE sequence = ?1 AND part = ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![id.sequence, id.part])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let entry = entry(row)?;
        let bytes = self.connection.query_row(
            "SELECT bytes FROM payload WHERE sequence = ?1 AND part = ?2",
            params![id.sequence, id.part],
            |row| row.get(0),
        )?;
        Ok(Some((entry, Payload(bytes))))
    }

    /// Removes what is too old by `now_ms`, and the oldest where that is allowed and needed.
    pub(super) fn prune(&mut self, now_ms: i64) -> Result<Pruned, QuarantineError> {
        let mut pruned = Pruned::default();
        loop {
            let removed = self.remove_oldest(now_ms.saturating_sub(self.bounds.age_ms_max))?;
            pruned.aged += removed;
            if removed == 0 {
                break;
            }
        }
        while self.bounds.when_full == WhenFull::DropOldest && self.is_over()? {
            let removed = self.remove_oldest(i64::MAX)?;
            pruned.dropped += removed;
            if removed == 0 {
                break;
            }
        }
        Ok(pruned)
    }

    fn remove_oldest(&mut self, before_ms: i64) -> Result<u64, QuarantineError> {
        // A step is small, so that dropping for room takes no more than is needed.
        let step = if before_ms == i64::MAX { 1 } else { PRUNE_STEP };
        let transaction = self.connection.transaction()?;
        let oldest: Vec<(i64, i64)> = transaction
            .prepare_cached(
                "SELECT sequence, part FROM
                    (SELECT sequence, part, time_ms FROM entry ORDER BY sequence, part LIMIT ?1)
                 WHERE time_ms < ?2",
            )?
            .query_map(params![step, before_ms], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        for (sequence, part) in &oldest {
            for table in ["entry", "payload"] {
                transaction
                    .prepare_cached(&format!(
                        "DELETE FROM {table} WHERE sequence = ?1 AND part = ?2"
                    ))?
                    .execute([sequence, part])?;
            }
        }
        transaction.commit()?;
        Ok(u64::try_from(oldest.len()).expect("a usize fits 64 bits"))
    }

    /// Whether the doors must hold.
    pub(super) fn is_full(&self) -> Result<bool, QuarantineError> {
        Ok(self.bounds.when_full == WhenFull::Hold && self.is_over()?)
    }

    fn is_over(&self) -> Result<bool, QuarantineError> {
        Ok(self.bytes_used()? > self.bounds.bytes_max)
    }

    pub(super) fn bytes_used(&self) -> Result<u64, QuarantineError> {
        Ok(sqlite::bytes_used(&self.connection)?)
    }
}

fn clauses(filter: &Filter) -> (String, Vec<Value>) {
    let after = filter.after.unwrap_or(Id {
        sequence: -1,
        part: 0,
    });
    let mut wheres = vec!["(sequence, part) > (?, ?)"];
    let mut values = vec![Value::Integer(after.sequence), Value::Integer(after.part)];
    if let Some(channel) = &filter.channel {
        wheres.push("channel = ?");
        values.push(Value::Text(channel.clone()));
    }
    if let Some(code) = filter.code {
        wheres.push("code = ?");
        values.push(Value::Integer(code.into()));
    }
    if let Some(device) = &filter.device {
        wheres.push(
            "EXISTS (SELECT 1 FROM json_each(items) WHERE json_extract(value, '$.deviceKey') = ?)",
        );
        values.push(Value::Text(device.clone()));
    }
    (format!("WHERE {}", wheres.join(" AND ")), values)
}

fn entry(row: &Row<'_>) -> Result<Entry, QuarantineError> {
    let id = Id {
        sequence: row.get(0)?,
        part: row.get(1)?,
    };
    let items: String = row.get(11)?;
    let items: Vec<Item> =
        serde_json::from_str(&items).map_err(|error| QuarantineError::Entry {
            id,
            reason: error.to_string(),
        })?;
    let payload_bytes: i64 = row.get(8)?;
    Ok(Entry {
        id,
        time_ms: row.get(2)?,
        channel: row.get(3)?,
        client: row.get(4)?,
        topic: row.get(5)?,
        product: row.get(6)?,
        code: row.get(7)?,
        payload_bytes: u64::try_from(payload_bytes).unwrap_or(0),
        payload_sha256: row.get(9)?,
        is_truncated: row.get(10)?,
        items,
        more: row.get(12)?,
    })
}

fn signed(sequence: Sequence) -> i64 {
    i64::try_from(sequence.0).expect("there are fewer than 2^63 commits")
}
