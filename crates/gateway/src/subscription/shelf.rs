//! The file of one subscription: its messages in compressed blocks, the offsets that its groups
//! committed, and its place in the log, all in one SQLite database, changed together.
//!
//! Each block is a run of consecutive offsets of one partition. What a follower adds and its place
//! in the log are one transaction: whatever ends the process, every message is there once, under
//! the offset it was given. WAL with `synchronous=NORMAL`: a power loss may take the last
//! transactions, never a part of one; what is gone is then made again out of the log, which is
//! kept behind [`Shelf::sync`] only.

use std::path::Path;

use backtide_store::Sequence;
use bytes::Bytes;
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    group::Extent,
    source::{Message, PullSize},
};
use crate::sqlite::{self, Sync};

/// `PRAGMA user_version` of the files that this code reads.
const FORMAT: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE place (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        sequence INTEGER NOT NULL,
        skipped INTEGER NOT NULL,
        dropped INTEGER NOT NULL
    );
    CREATE TABLE partition (
        partition INTEGER PRIMARY KEY,
        next INTEGER NOT NULL
    );
    CREATE TABLE block (
        id INTEGER PRIMARY KEY,
        partition INTEGER NOT NULL,
        first INTEGER NOT NULL,
        count INTEGER NOT NULL,
        newest_ms INTEGER NOT NULL,
        text_bytes INTEGER NOT NULL,
        body BLOB NOT NULL
    );
    CREATE UNIQUE INDEX block_offset ON block (partition, first);
    CREATE TABLE committed (
        name TEXT NOT NULL,
        partition INTEGER NOT NULL,
        next INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        PRIMARY KEY (name, partition)
    ) WITHOUT ROWID;
";
/// A quick level: the text of neighbours is much alike.
const LEVEL: i32 = 1;
/// Blocks that one step of pruning takes away at most.
const PRUNE_STEP: i64 = 256;

/// Why a subscription's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShelfError {
    #[error("{0}")]
    File(#[from] rusqlite::Error),
    #[error("has format {found}, this gateway reads {FORMAT}")]
    Format { found: i64 },
    #[error("has {found} partitions, {declared} are declared")]
    Partitions { found: usize, declared: usize },
    #[error("the block at offset {first} of partition {partition} is damaged: {reason}")]
    Block {
        partition: usize,
        first: i64,
        reason: String,
    },
}

/// One connection to the file.
pub(super) struct Shelf {
    connection: Connection,
}

/// Where a subscription is in the log, and what it could not take from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// Everything up to here is looked through.
    pub(super) reached: Sequence,
    /// Commits that the log no longer held.
    pub(super) skipped: u64,
    /// Messages that made room for newer ones before their time.
    pub(super) dropped: u64,
}

impl Place {
    /// The log no longer holds what comes next: goes on at what it holds.
    pub(super) fn skip_to(self, oldest: Sequence, subscription: &str) -> Self {
        tracing::error!(
            subscription,
            from = self.reached.0 + 1,
            to = oldest.0 - 1,
            "the log was trimmed before the subscription saw it: what was in these commits is \
             missing"
        );
        Self {
            reached: Sequence(oldest.0 - 1),
            skipped: self.skipped + (oldest.0 - 1 - self.reached.0),
            ..self
        }
    }
}

/// Consecutive messages of one partition, compressed.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) partition: usize,
    pub(super) first: u64,
    pub(super) count: u64,
    newest_ms: i64,
    text_bytes: usize,
    body: Vec<u8>,
}

/// The messages of a block before they are compressed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Records {
    #[prost(message, repeated, tag = "1")]
    pub(super) records: Vec<Record>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    #[prost(int64, required, tag = "1")]
    pub(super) time_ms: i64,
    #[prost(bytes = "bytes", required, tag = "2")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", required, tag = "3")]
    pub(super) value: Bytes,
}

impl Block {
    pub(super) fn new(partition: usize, first: u64, records: &Records) -> Self {
        let text = records.encode_to_vec();
        let newest_ms = records.records.last().map_or(0, |record| record.time_ms);
        Self {
            partition,
            first,
            count: records.records.len() as u64,
            newest_ms,
            text_bytes: text.len(),
            body: zstd::bulk::compress(&text, LEVEL).expect("a vector takes every write"),
        }
    }
}

/// The offset that a group committed in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) group: String,
    pub(super) partition: usize,
    pub(super) next: u64,
}

/// What pruning took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pruned {
    pub(super) messages: u64,
    pub(super) blocks: usize,
}

impl Shelf {
    /// Opens the file, or makes it with so many partitions and its place behind `since`.
    pub(super) fn open(path: &Path, partitions: u16, since: Sequence) -> Result<Self, ShelfError> {
        let mut connection = sqlite::open(path, Sync::Normal)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
        if found == 0 {
            let transaction = connection.transaction()?;
            transaction.execute_batch(SCHEMA)?;
            transaction.execute("INSERT INTO place VALUES (1, ?1, 0, 0)", [signed(since.0)])?;
            for partition in 0..partitions {
                transaction.execute("INSERT INTO partition VALUES (?1, 0)", [partition])?;
            }
            transaction.pragma_update(None, "user_version", FORMAT)?;
            transaction.commit()?;
        } else if found != FORMAT {
            return Err(ShelfError::Format { found });
        }
        let shelf = Self { connection };
        let found = shelf.extents()?.len();
        let declared = usize::from(partitions);
        if found != declared {
            return Err(ShelfError::Partitions { found, declared });
        }
        Ok(shelf)
    }

    pub(super) fn place(&self) -> Result<Place, ShelfError> {
        let sql = "SELECT sequence, skipped, dropped FROM place";
        let place = self.connection.query_row(sql, [], |row| {
            Ok(Place {
                reached: Sequence(unsigned(row.get(0)?)),
                skipped: unsigned(row.get(1)?),
                dropped: unsigned(row.get(2)?),
            })
        })?;
        Ok(place)
    }

    /// What each partition holds.
    pub(super) fn extents(&self) -> Result<Vec<Extent>, ShelfError> {
        let mut select = self.connection.prepare_cached(
            "SELECT COALESCE((SELECT min(first) FROM block b WHERE b.partition = p.partition), next),
                    next
             FROM partition p ORDER BY partition",
        )?;
        let rows = select.query_map([], |row| {
            Ok(Extent {
                oldest: unsigned(row.get(0)?),
                next: unsigned(row.get(1)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn committed(&self) -> Result<Vec<Committed>, ShelfError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT name, partition, next FROM committed")?;
        let rows = select.query_map([], |row| {
            Ok(Committed {
                group: row.get(0)?,
                partition: index(row.get(1)?),
                next: unsigned(row.get(2)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// When the newest message came; 0 where there is none.
    pub(super) fn newest_ms(&self) -> Result<i64, ShelfError> {
        let sql = "SELECT COALESCE(max(newest_ms), 0) FROM block WHERE id IN
                   (SELECT max(id) FROM block GROUP BY partition)";
        Ok(self.connection.query_row(sql, [], |row| row.get(0))?)
    }

    /// Adds blocks and what was committed, and says how far the log is looked through: all of it
    /// or nothing.
    pub(super) fn write(
        &mut self,
        place: Place,
        blocks: &[Block],
        committed: &[Committed],
        now_ms: i64,
    ) -> Result<(), ShelfError> {
        let transaction = self.connection.transaction()?;
        {
            let mut add = transaction.prepare_cached(
                "INSERT INTO block (partition, first, count, newest_ms, text_bytes, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            let mut extend = transaction
                .prepare_cached("UPDATE partition SET next = ?2 WHERE partition = ?1")?;
            for block in blocks {
                add.execute(params![
                    signed(block.partition as u64),
                    signed(block.first),
                    signed(block.count),
                    block.newest_ms,
                    signed(block.text_bytes as u64),
                    block.body,
                ])?;
                let next = block.first + block.count;
                extend.execute([block.partition as u64, next].map(signed))?;
            }
            let mut commit = transaction
                .prepare_cached("INSERT OR REPLACE INTO committed VALUES (?1, ?2, ?3, ?4)")?;
            for Committed {
                group,
                partition,
                next,
            } in committed
            {
                let partition = signed(*partition as u64);
                commit.execute(params![group, partition, signed(*next), now_ms])?;
            }
            transaction.execute(
                "UPDATE place SET sequence = ?1, skipped = ?2, dropped = ?3",
                [place.reached.0, place.skipped, place.dropped].map(signed),
            )?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Makes what was written survive power loss. False where a reader is in the way: try later.
    pub(super) fn sync(&self) -> Result<bool, ShelfError> {
        let sql = "PRAGMA wal_checkpoint(FULL)";
        let busy: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
        Ok(busy == 0)
    }

    /// The messages of a partition from `from` on, in order; at least one, if there is one.
    pub(super) fn read(
        &self,
        partition: usize,
        from: u64,
        size: PullSize,
    ) -> Result<Vec<Message>, ShelfError> {
        let mut select = self.connection.prepare_cached(
            "SELECT first, text_bytes, body FROM block WHERE partition = ?1 AND first >= COALESCE(
                 (SELECT max(first) FROM block WHERE partition = ?1 AND first <= ?2), ?2)
             ORDER BY first",
        )?;
        let mut rows = select.query([partition as u64, from].map(signed))?;
        let mut page = Page::new(size);
        while let Some(row) = rows.next()? {
            let first: i64 = row.get(0)?;
            let body = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            let records = opened(index(row.get(1)?), body).map_err(|reason| ShelfError::Block {
                partition,
                first,
                reason,
            })?;
            for (record, offset) in records.records.into_iter().zip(unsigned(first)..) {
                if offset < from {
                    continue;
                }
                if !page.push(partition, offset, record) {
                    return Ok(page.messages);
                }
            }
        }
        Ok(page.messages)
    }

    /// The first message of a partition that came at or after `time_ms`; the next one to come where
    /// there is none.
    pub(super) fn offset_at(&self, partition: usize, time_ms: i64) -> Result<u64, ShelfError> {
        let sql = "SELECT first, text_bytes, body FROM block
                   WHERE partition = ?1 AND newest_ms >= ?2 ORDER BY first LIMIT 1";
        let of = [signed(partition as u64), time_ms];
        let found = self.connection.query_row(sql, of, |row| {
            let records = opened(index(row.get(1)?), row.get_ref(2)?.as_blob()?);
            Ok((row.get::<_, i64>(0)?, records))
        });
        let Some((first, records)) = found.optional()? else {
            return Ok(self.extents()?[partition].next);
        };
        let records = records.map_err(|reason| ShelfError::Block {
            partition,
            first,
            reason,
        })?;
        let before = records
            .records
            .iter()
            .take_while(|record| record.time_ms < time_ms);
        Ok(unsigned(first) + before.count() as u64)
    }

    /// Takes away blocks whose newest message came before `until_ms`, oldest first; a bounded number
    /// of them.
    pub(super) fn prune(&mut self, until_ms: i64) -> Result<Pruned, ShelfError> {
        let transaction = self.connection.transaction()?;
        let mut pruned = Pruned::default();
        {
            // Times do not fall from block to block: nothing behind the first that stays is looked at.
            let mut select = transaction.prepare_cached(
                "SELECT id, count FROM block WHERE id < COALESCE(
                     (SELECT id FROM block WHERE newest_ms >= ?1 ORDER BY id LIMIT 1), ?2)
                 ORDER BY id LIMIT ?3",
            )?;
            let rows = select.query_map([until_ms, i64::MAX, PRUNE_STEP], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })?;
            let mut delete = transaction.prepare_cached("DELETE FROM block WHERE id = ?1")?;
            for row in rows {
                let (id, count) = row?;
                delete.execute([id])?;
                pruned.messages += unsigned(count);
                pruned.blocks += 1;
            }
        }
        transaction.commit()?;
        Ok(pruned)
    }

    /// Forgets groups that committed nothing since `until_ms`, but those in `present`.
    pub(super) fn forget_groups(
        &self,
        until_ms: i64,
        present: &[String],
    ) -> Result<Vec<String>, ShelfError> {
        let sql = "SELECT name FROM committed GROUP BY name HAVING max(time_ms) < ?1";
        let mut select = self.connection.prepare_cached(sql)?;
        let names = select.query_map([until_ms], |row| row.get(0))?;
        let mut forgotten: Vec<String> = names.collect::<Result<_, _>>()?;
        forgotten.retain(|name| !present.contains(name));
        for name in &forgotten {
            let sql = "DELETE FROM committed WHERE name = ?1";
            self.connection.execute(sql, [name])?;
        }
        Ok(forgotten)
    }

    /// Bytes in use in the file.
    pub(super) fn bytes_used(&self) -> Result<u64, ShelfError> {
        Ok(sqlite::bytes_used(&self.connection)?)
    }
}

/// Messages up to a size.
struct Page {
    messages: Vec<Message>,
    bytes: usize,
    size: PullSize,
}

impl Page {
    fn new(size: PullSize) -> Self {
        Self {
            messages: Vec::new(),
            bytes: 0,
            size,
        }
    }

    /// False where it is full, and the message not in it.
    fn push(&mut self, partition: usize, offset: u64, record: Record) -> bool {
        self.bytes += record.key.len() + record.value.len();
        let is_full =
            self.bytes > self.size.bytes_max || self.messages.len() >= self.size.messages_max;
        if is_full && !self.messages.is_empty() {
            return false;
        }
        self.messages.push(Message {
            partition: u16::try_from(partition).expect("there are few partitions"),
            offset,
            time_ms: record.time_ms,
            key: record.key,
            value: record.value,
        });
        true
    }
}

fn opened(text_bytes: usize, body: &[u8]) -> Result<Records, String> {
    let text = zstd::bulk::decompress(body, text_bytes).map_err(|error| error.to_string())?;
    Records::decode(Bytes::from(text)).map_err(|error| error.to_string())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("there are fewer than 2^63 of anything")
}

fn index(number: i64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
