//! The chronicle: every event, and every attribute value with the time it was in force. One SQLite
//! database, `chronicle.db` (`docs/adr/0003-events-and-attributes-in-sqlite.md`).
//!
//! ```text
//! chapter of a memtable ─▶ one transaction, before the manifest's ─▶ reads, with the memtable on top
//! ```
//!
//! It must never need to know what it already holds: a flush that is tried again, by the same
//! process or after a crash, writes the same rows, and they stand once.

mod attributes;
mod events;
mod expire;
mod history;

use std::{collections::HashMap, path::Path};

use backtide_model::{ChannelName, DeviceKey, ProductKey};
use parking_lot::Mutex;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};

pub use self::{
    attributes::{AttributePlace, AttributeRange, StoredAttribute},
    events::{EventPlace, EventRange, StoredEvent},
    expire::ExpirableRecords,
};
use super::{
    fault::{FlushError, OpenError},
    manifest::{signed, unreadable, unsigned},
};
use crate::{ReadError, Sequence, memtable::Chapter};

const FORMAT: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE about (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE device (
  id INTEGER PRIMARY KEY, product TEXT NOT NULL, key TEXT NOT NULL, UNIQUE (product, key)
) STRICT;
CREATE TABLE channel (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE event (
  device INTEGER NOT NULL,
  time INTEGER NOT NULL,
  event TEXT NOT NULL,
  digest BLOB NOT NULL,
  output TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  channel INTEGER NOT NULL,
  arrived INTEGER NOT NULL,
  PRIMARY KEY (device, time, event, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE attribute (
  device INTEGER NOT NULL,
  attribute TEXT NOT NULL,
  first_order INTEGER NOT NULL,
  first_sequence INTEGER NOT NULL,
  first_item INTEGER NOT NULL,
  first_channel INTEGER NOT NULL,
  first_arrived INTEGER NOT NULL,
  last_order INTEGER NOT NULL,
  last_sequence INTEGER NOT NULL,
  last_item INTEGER NOT NULL,
  last_channel INTEGER NOT NULL,
  last_arrived INTEGER NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (device, attribute, first_order, first_sequence, first_item)
) STRICT, WITHOUT ROWID;
INSERT INTO about VALUES ('flushed', 0), ('events', 0), ('event_duplicates', 0), ('attribute_values', 0);
";

/// Events mostly arrive in stretches: this much of the tree is hot while they do.
const CACHE_KIB: i64 = 16 << 10;
/// What the write-ahead log is cut back to after a flush.
const LOG_BYTES_MAX: i64 = 64 << 20;

/// Two connections: one writes, one reads, so that no reader delays a flush.
pub(crate) struct Chronicle {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

/// What a chronicle holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChronicleStats {
    pub events: u64,
    /// Events that came again with the same device, time and output.
    pub event_duplicates: u64,
    /// Attribute values, earlier ones included.
    pub attribute_values: u64,
}

impl Chronicle {
    /// Makes an empty one, or opens one that a crash kept from being named by the manifest.
    pub(super) fn create(dir: &Path) -> Result<Self, OpenError> {
        let mut writer = connect(dir, OpenFlags::default())?;
        let made = change(&mut writer, |db| {
            let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if found == 0 {
                db.execute_batch(SCHEMA)?;
                db.pragma_update(None, "user_version", FORMAT)?;
            }
            Ok(())
        });
        made.map_err(|error| unopened(&error))?;
        drop(writer);
        Self::open(dir, Sequence(0))
    }

    /// Opens the chronicle of a store whose journal may have let go of what it got up to the commit
    /// `must_have`.
    pub(super) fn open(dir: &Path, must_have: Sequence) -> Result<Self, OpenError> {
        let writer = connect(dir, OpenFlags::default() & !OpenFlags::SQLITE_OPEN_CREATE)?;
        let found: i64 = writer
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|error| unopened(&error))?;
        if found != FORMAT {
            return Err(OpenError::Chronicle(format!(
                "it has format {found}, this version reads {FORMAT}"
            )));
        }
        let has = about(&writer, "flushed").map_err(|error| unopened(&error))?;
        if has < must_have.0 {
            return Err(OpenError::Chronicle(format!(
                "it ends at commit {has}, but was written up to commit {}: restore it from a backup \
                 of the same time as the manifest",
                must_have.0
            )));
        }
        let reader = connect(dir, OpenFlags::default() & !OpenFlags::SQLITE_OPEN_CREATE)?;
        reader
            .pragma_update(None, "query_only", true)
            .map_err(|error| unopened(&error))?;
        Ok(Self {
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
        })
    }

    /// Writes a chapter: durable when it returns.
    ///
    /// # Errors
    /// Nothing of it is written then; it may be tried again.
    /// An event that stands but arrived before `arrived_ms` is no longer kept: one that comes again
    /// takes its place.
    pub(super) fn flush(
        &self,
        chapter: &Chapter,
        through: Sequence,
        arrived_ms: &dyn Fn(&ProductKey) -> i64,
    ) -> Result<(), FlushError> {
        let flushed = change(&mut self.writer.lock(), |db| {
            let mut ids = Ids::default();
            events::write(db, &mut ids, &chapter.events, arrived_ms)?;
            attributes::write(db, &mut ids, &chapter.attributes)?;
            let sql = "UPDATE about SET value = max(value, ?1) WHERE key = 'flushed'";
            db.execute(sql, [signed(through.0)]).map(drop)
        });
        flushed.map_err(|error| unwritten(&error))
    }

    pub(crate) fn stats(&self) -> Result<ChronicleStats, ReadError> {
        self.read(|db| {
            Ok(ChronicleStats {
                events: about(db, "events")?,
                event_duplicates: about(db, "event_duplicates")?,
                attribute_values: about(db, "attribute_values")?,
            })
        })
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        read(&self.reader.lock()).map_err(|error| ReadError::Chronicle(error.to_string()))
    }

    /// Devices of a product that it knows, in order of their keys; empty `wanted`: all of them.
    fn devices(
        &self,
        product: &ProductKey,
        wanted: &[DeviceKey],
    ) -> Result<Vec<(DeviceKey, i64)>, ReadError> {
        self.read(|db| {
            let device =
                |row: &rusqlite::Row<'_>| Ok((key(&row.get::<_, String>(0)?)?, row.get(1)?));
            if wanted.is_empty() {
                let sql = "SELECT key, id FROM device WHERE product = ?1 ORDER BY key";
                let mut select = db.prepare_cached(sql)?;
                return select.query_map([product.as_str()], device)?.collect();
            }
            let sql = "SELECT key, id FROM device WHERE product = ?1 AND key = ?2";
            let mut select = db.prepare_cached(sql)?;
            let mut found = Vec::new();
            for wanted in wanted {
                let names = params![product.as_str(), wanted.as_str()];
                found.extend(select.query_row(names, device).optional()?);
            }
            found.sort();
            found.dedup();
            Ok(found)
        })
    }
}

const FILE: &str = "chronicle.db";

fn connect(dir: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    let connected = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(dir.join(FILE), flags)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A transaction is on disk when it returns: the journal lets go of what it holds.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)?;
        Ok(connection)
    };
    connected().map_err(|error| unopened(&error))
}

fn change(
    connection: &mut Connection,
    change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    change(&transaction)?;
    transaction.commit()
}

fn unwritten(error: &rusqlite::Error) -> FlushError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => FlushError::DiskFull {
            file: FILE.to_owned(),
        },
        _ => FlushError::Chronicle(error.to_string()),
    }
}

fn unopened(error: &rusqlite::Error) -> OpenError {
    OpenError::Chronicle(format!(
        "{error}; restore it from a backup of the same time as the manifest"
    ))
}

fn about(db: &Connection, key: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT value FROM about WHERE key = ?1";
    db.query_row(sql, [key], |row| row.get(0)).map(unsigned)
}

fn add(db: &Transaction<'_>, key: &str, by: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE about SET value = value + ?2 WHERE key = ?1";
    db.execute(sql, params![key, by]).map(drop)
}

/// Numbers of devices and channels, looked up once a flush.
#[derive(Default)]
struct Ids<'a> {
    devices: HashMap<(&'a ProductKey, &'a DeviceKey), i64>,
    channels: HashMap<&'a ChannelName, i64>,
}

impl<'a> Ids<'a> {
    fn device(
        &mut self,
        db: &Transaction<'_>,
        product: &'a ProductKey,
        device: &'a DeviceKey,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.devices.get(&(product, device)) {
            return Ok(*id);
        }
        let names = params![product.as_str(), device.as_str()];
        db.prepare_cached("INSERT OR IGNORE INTO device VALUES (NULL, ?1, ?2)")?
            .execute(names)?;
        let id = db
            .prepare_cached("SELECT id FROM device WHERE product = ?1 AND key = ?2")?
            .query_row(names, |row| row.get(0))?;
        self.devices.insert((product, device), id);
        Ok(id)
    }

    fn channel(&mut self, db: &Transaction<'_>, name: &'a ChannelName) -> rusqlite::Result<i64> {
        if let Some(id) = self.channels.get(name) {
            return Ok(*id);
        }
        db.prepare_cached("INSERT OR IGNORE INTO channel VALUES (NULL, ?1)")?
            .execute([name.as_str()])?;
        let id = db
            .prepare_cached("SELECT id FROM channel WHERE name = ?1")?
            .query_row([name.as_str()], |row| row.get(0))?;
        self.channels.insert(name, id);
        Ok(id)
    }
}

fn key(text: &str) -> rusqlite::Result<DeviceKey> {
    DeviceKey::new(text).map_err(|error| unreadable(Box::new(error)))
}

fn channel(text: &str) -> rusqlite::Result<ChannelName> {
    ChannelName::new(text).map_err(|error| unreadable(Box::new(error)))
}
