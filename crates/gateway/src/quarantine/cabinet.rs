//! The quarantine's file: SQLite, entries beside their bytes, and the place in the log.
//!
//! WAL with `synchronous=FULL`: a commit here is durable, so that the log may be trimmed behind it.
//! The follower writes what the log says, a discard removes what a person says; each takes the
//! file for itself from the first statement on, so neither meets the other half-way.

mod causes;
mod schema;

use std::{collections::BTreeMap, path::Path};

use backtide_store::Sequence;
use rusqlite::{
    Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params, types::Value,
};

use super::{Cause, Entry, Filter, Id, Item, Page, Payload, QuarantineError};
use crate::sqlite::{self, Sync};
use causes::Subject;

const COLUMNS: &str = "sequence, part, time_ms, channel, client, topic, product, code, \
                       payload_bytes, payload_sha256, is_truncated, items, more, \
                       cause, attempts, tried_ms";
/// Entries that a step of pruning or discarding removes at most.
const REMOVE_STEP: usize = 256;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// What the log says of an entry.
pub(super) enum Change<'a> {
    /// A message was refused.
    Refused(Entry, &'a [u8]),
    /// A re-drive was refused, of all of it or of a part: the entry stays with its new reasons and
    /// bytes.
    RefusedAgain(Entry, &'a [u8]),
    /// A re-drive stored all of it.
    Stored(Id),
}

/// Ways out of the quarantine, as [`Cabinet::departed`] counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Stored,
    Discarded,
    Aged,
    Dropped,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Discarded => "discarded",
            Self::Aged => "aged",
            Self::Dropped => "dropped",
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
        let mut connection = sqlite::open(path, Sync::Full)?;
        schema::prepare(&mut connection)?;
        Ok(Self { connection, bounds })
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
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
        let transaction = writing(&mut self.connection)?;
        let unknown: Vec<Id> = transaction
            .prepare("SELECT sequence, part FROM entry WHERE sequence > ?1")?
            .query_map([signed(durable)], id)?
            .collect::<Result<_, _>>()?;
        for id in &unknown {
            remove(&transaction, *id)?;
        }
        transaction.execute("UPDATE place SET sequence = ?1", [signed(durable)])?;
        transaction.commit()?;
        tracing::error!(
            entries = unknown.len(),
            store = durable.0,
            quarantine = cursor.0,
            "the store ends before the quarantine: entries of commits it does not have are removed"
        );
        Ok(())
    }

    /// Writes what the log says, in its order, and moves on to `cursor`, all or nothing.
    pub(super) fn write(
        &mut self,
        changes: &[Change<'_>],
        cursor: Sequence,
    ) -> Result<(), QuarantineError> {
        let transaction = writing(&mut self.connection)?;
        for change in changes {
            match change {
                Change::Refused(entry, bytes) => insert(&transaction, entry, bytes)?,
                Change::RefusedAgain(entry, bytes) => update(&transaction, entry, bytes)?,
                Change::Stored(id) => {
                    if remove(&transaction, *id)?.is_some() {
                        depart(&transaction, Way::Stored, 1)?;
                    }
                }
            }
        }
        transaction.execute("UPDATE place SET sequence = ?1", [signed(cursor)])?;
        transaction.commit()?;
        Ok(())
    }

    pub(super) fn list(&self, filter: &Filter, page: Page) -> Result<Vec<Entry>, QuarantineError> {
        let (wheres, mut values) = clauses(filter, page);
        values.push(Value::Integer(
            i64::try_from(page.limit).unwrap_or(i64::MAX),
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

    /// How many entries fit, and the last of them.
    pub(super) fn count(&self, filter: &Filter) -> Result<(u64, Option<Id>), QuarantineError> {
        let (wheres, values) = clauses(filter, Page::first(0));
        // Beside MAX over both, SQLite cannot name the row: the order of the key does.
        let sql = format!("SELECT COUNT(*) FROM entry {wheres}");
        let entries: i64 =
            self.connection
                .query_row(&sql, rusqlite::params_from_iter(values.clone()), |row| {
                    row.get(0)
                })?;
        let sql = format!(
            "SELECT sequence, part FROM entry {wheres} ORDER BY sequence DESC, part DESC LIMIT 1"
        );
        let last = self
            .connection
            .query_row(&sql, rusqlite::params_from_iter(values), id)
            .optional()?;
        Ok((u64::try_from(entries).unwrap_or(0), last))
    }

    pub(super) fn causes(
        &self,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<Cause>, QuarantineError> {
        causes::list(&self.connection, filter, limit)
    }

    pub(super) fn show(&self, wanted: Id) -> Result<Option<(Entry, Payload)>, QuarantineError> {
        let sql = format!("SELECT {COLUMNS} FROM entry WHERE sequence = ?1 AND part = ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![wanted.sequence, wanted.part])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let entry = entry(row)?;
        // A re-drive may have taken it away since.
        let bytes = self
            .connection
            .prepare_cached("SELECT bytes FROM payload WHERE sequence = ?1 AND part = ?2")?
            .query_row(params![wanted.sequence, wanted.part], |row| row.get(0))
            .optional()?;
        Ok(bytes.map(|bytes| (entry, Payload(bytes))))
    }

    /// Removes entries that fit, at most a step of them; how many of each channel.
    pub(super) fn discard(
        &mut self,
        filter: &Filter,
        page: Page,
    ) -> Result<BTreeMap<String, u64>, QuarantineError> {
        let page = Page {
            limit: page.limit.min(REMOVE_STEP),
            ..page
        };
        let (wheres, mut values) = clauses(filter, page);
        values.push(Value::Integer(
            i64::try_from(page.limit).unwrap_or(i64::MAX),
        ));
        let transaction = writing(&mut self.connection)?;
        let sql =
            format!("SELECT sequence, part FROM entry {wheres} ORDER BY sequence, part LIMIT ?");
        let ids: Vec<Id> = transaction
            .prepare(&sql)?
            .query_map(rusqlite::params_from_iter(values), id)?
            .collect::<Result<_, _>>()?;
        let mut channels = BTreeMap::new();
        for id in &ids {
            if let Some(channel) = remove(&transaction, *id)? {
                *channels.entry(channel).or_insert(0) += 1;
            }
        }
        depart(&transaction, Way::Discarded, ids.len())?;
        transaction.commit()?;
        Ok(channels)
    }

    /// Removes what is too old by `now_ms`, and the oldest where that is allowed and needed.
    pub(super) fn prune(&mut self, now_ms: i64) -> Result<Pruned, QuarantineError> {
        let mut pruned = Pruned::default();
        loop {
            let before_ms = now_ms.saturating_sub(self.bounds.age_ms_max);
            let removed = self.remove_oldest(REMOVE_STEP, before_ms, Way::Aged)?;
            pruned.aged += removed;
            if removed == 0 {
                break;
            }
        }
        while self.bounds.when_full == WhenFull::DropOldest && self.is_over()? {
            // One at a time, so that dropping for room takes no more than is needed.
            let removed = self.remove_oldest(1, i64::MAX, Way::Dropped)?;
            pruned.dropped += removed;
            if removed == 0 {
                break;
            }
        }
        Ok(pruned)
    }

    fn remove_oldest(
        &mut self,
        step: usize,
        before_ms: i64,
        way: Way,
    ) -> Result<u64, QuarantineError> {
        let transaction = writing(&mut self.connection)?;
        let oldest: Vec<Id> = transaction
            .prepare_cached(
                "SELECT sequence, part FROM
                    (SELECT sequence, part, time_ms FROM entry ORDER BY sequence, part LIMIT ?1)
                 WHERE time_ms < ?2",
            )?
            .query_map(params![as_i64(step), before_ms], id)?
            .collect::<Result<_, _>>()?;
        for id in &oldest {
            remove(&transaction, *id)?;
        }
        depart(&transaction, way, oldest.len())?;
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

    /// Entries in it, counted by their causes; and when the oldest arrived.
    pub(super) fn size(&self) -> Result<(u64, Option<i64>), QuarantineError> {
        let entries: i64 =
            self.connection
                .query_row("SELECT IFNULL(SUM(entries), 0) FROM cause", [], |row| {
                    row.get(0)
                })?;
        let oldest = self
            .connection
            .query_row(
                "SELECT time_ms FROM entry ORDER BY sequence, part LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional()?;
        Ok((u64::try_from(entries).unwrap_or(0), oldest))
    }

    /// How many entries ever left that way.
    pub(super) fn departed(&self, way: Way) -> Result<u64, QuarantineError> {
        let entries: Option<i64> = self
            .connection
            .query_row(
                "SELECT entries FROM departed WHERE way = ?1",
                [way.name()],
                |row| row.get(0),
            )
            .optional()?;
        Ok(u64::try_from(entries.unwrap_or(0)).unwrap_or(0))
    }
}

/// A transaction that has the file to itself from its beginning.
fn writing(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn insert(
    transaction: &Transaction<'_>,
    entry: &Entry,
    bytes: &[u8],
) -> Result<(), QuarantineError> {
    let cause = causes::join(transaction, &subject(entry, &entry.channel, &entry.product))?;
    transaction
        .prepare_cached(&format!(
            "INSERT INTO entry ({COLUMNS}, device, point, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 0, NULL, ?15, ?16,
                     ?17)"
        ))?
        .execute(params![
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
            items_text(entry),
            entry.more,
            cause,
            entry.device(),
            entry.point(),
            entry.reason(),
        ])?;
    transaction
        .prepare_cached("INSERT INTO payload VALUES (?1, ?2, ?3)")?
        .execute(params![entry.id.sequence, entry.id.part, bytes])?;
    Ok(())
}

/// The entry that was tried again keeps its name, its arrival and its digest. One that was removed
/// meanwhile stays removed.
fn update(
    transaction: &Transaction<'_>,
    entry: &Entry,
    bytes: &[u8],
) -> Result<(), QuarantineError> {
    let key = params![entry.id.sequence, entry.id.part];
    let before: Option<(i64, String, String)> = transaction
        .prepare_cached(
            "SELECT cause, channel, product FROM entry WHERE sequence = ?1 AND part = ?2",
        )?
        .query_row(key, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((before, channel, product)) = before else {
        return Ok(());
    };
    let cause = causes::join(transaction, &subject(entry, &channel, &product))?;
    causes::leave(transaction, before, 1)?;
    transaction
        .prepare_cached(
            "UPDATE entry SET code = ?3, items = ?4, more = ?5, device = ?6, point = ?7,
                reason = ?8, cause = ?9, attempts = attempts + 1, tried_ms = ?10
             WHERE sequence = ?1 AND part = ?2",
        )?
        .execute(params![
            entry.id.sequence,
            entry.id.part,
            entry.code,
            items_text(entry),
            entry.more,
            entry.device(),
            entry.point(),
            entry.reason(),
            cause,
            entry.tried_ms,
        ])?;
    transaction
        .prepare_cached(
            "UPDATE payload SET bytes = ?3 WHERE sequence = ?1 AND part = ?2 AND bytes IS NOT ?3",
        )?
        .execute(params![entry.id.sequence, entry.id.part, bytes])?;
    Ok(())
}

/// Removes an entry with its bytes; the channel it came by, or `None` where there was none.
fn remove(transaction: &Transaction<'_>, id: Id) -> rusqlite::Result<Option<String>> {
    let key = params![id.sequence, id.part];
    let removed: Option<(i64, String)> = transaction
        .prepare_cached(
            "DELETE FROM entry WHERE sequence = ?1 AND part = ?2 RETURNING cause, channel",
        )?
        .query_row(key, |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((cause, channel)) = removed else {
        return Ok(None);
    };
    transaction
        .prepare_cached("DELETE FROM payload WHERE sequence = ?1 AND part = ?2")?
        .execute(params![id.sequence, id.part])?;
    causes::leave(transaction, cause, 1)?;
    Ok(Some(channel))
}

fn depart(transaction: &Transaction<'_>, way: Way, entries: usize) -> rusqlite::Result<()> {
    if entries == 0 {
        return Ok(());
    }
    transaction
        .prepare_cached(
            "INSERT INTO departed VALUES (?1, ?2)
             ON CONFLICT (way) DO UPDATE SET entries = entries + ?2",
        )?
        .execute(params![way.name(), as_i64(entries)])?;
    Ok(())
}

fn subject<'a>(entry: &'a Entry, channel: &'a str, product: &'a str) -> Subject<'a> {
    Subject {
        channel,
        product,
        code: entry.code,
        device: entry.device(),
        point: entry.point(),
    }
}

fn items_text(entry: &Entry) -> String {
    serde_json::to_string(&entry.items).expect("items are text and numbers")
}

fn clauses(filter: &Filter, page: Page) -> (String, Vec<Value>) {
    const ITEM: &str =
        "EXISTS (SELECT 1 FROM json_each(items) WHERE json_extract(value, '$.deviceKey') = ?)";
    const POINT: &str =
        "EXISTS (SELECT 1 FROM json_each(items) WHERE json_extract(value, '$.point') = ?)";
    let mut wheres: Vec<String> = Vec::new();
    let mut values = Vec::new();
    let mut add = |condition: &str, its: &[Value]| {
        wheres.push(condition.to_owned());
        values.extend_from_slice(its);
    };
    let key = |id: Id| [Value::Integer(id.sequence), Value::Integer(id.part)];
    if let Some(after) = page.after {
        add("(sequence, part) > (?, ?)", &key(after));
    }
    if let Some(upto) = page.upto {
        add("(sequence, part) <= (?, ?)", &key(upto));
    }
    if !filter.ids.is_empty() {
        let places = vec!["(?, ?)"; filter.ids.len()].join(", ");
        let ids: Vec<Value> = filter.ids.iter().copied().flat_map(key).collect();
        add(&format!("(sequence, part) IN (VALUES {places})"), &ids);
    }
    if let Some(cause) = filter.cause {
        add("cause = ?", &[Value::Integer(cause)]);
    }
    let texts = [
        ("channel = ?", &filter.channel),
        ("client = ?", &filter.client_id),
        (ITEM, &filter.device),
        (POINT, &filter.point),
    ];
    for (condition, text) in texts {
        if let Some(text) = text {
            add(condition, &[Value::Text(text.clone())]);
        }
    }
    if let Some(code) = filter.code {
        add("code = ?", &[Value::Integer(code.into())]);
    }
    if let Some(from_ms) = filter.from_ms {
        add("time_ms >= ?", &[Value::Integer(from_ms)]);
    }
    if let Some(to_ms) = filter.to_ms {
        add("time_ms < ?", &[Value::Integer(to_ms)]);
    }
    if wheres.is_empty() {
        return (String::new(), values);
    }
    (format!("WHERE {}", wheres.join(" AND ")), values)
}

fn id(row: &Row<'_>) -> rusqlite::Result<Id> {
    Ok(Id {
        sequence: row.get(0)?,
        part: row.get(1)?,
    })
}

fn entry(row: &Row<'_>) -> Result<Entry, QuarantineError> {
    let id = id(row)?;
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
        cause: row.get(13)?,
        attempts: row.get(14)?,
        tried_ms: row.get(15)?,
    })
}

fn signed(sequence: Sequence) -> i64 {
    i64::try_from(sequence.0).expect("there are fewer than 2^63 commits")
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
