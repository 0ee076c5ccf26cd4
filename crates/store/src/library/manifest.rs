//! The manifest: which segments are live, and everything small that must change together with
//! them. One SQLite database, `manifest.db`.
//!
//! WAL with `synchronous=FULL`: a transaction is on disk when it returns. With `NORMAL` a power
//! loss may take the last ones back, and after a flush the journal lets go of what they hold.

use std::{collections::HashSet, path::Path};

use backtide_model::{ElementName, ProductKey, Storage};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{
    chains::Chains,
    classify::Repeats,
    classify::Verdicts,
    codec::{Sink, Source},
    fault::{FlushError, OpenError},
    floor::named_floors,
    index::DeviceIndex,
    keep::Keep,
    latest::Saved,
    origins::Chunk,
    segment::Card,
};
use crate::Sequence;

const FORMAT: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE about (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE product (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE point (
  id INTEGER PRIMARY KEY,
  product INTEGER NOT NULL REFERENCES product,
  name TEXT NOT NULL,
  storage TEXT NOT NULL,
  UNIQUE (product, name)
) STRICT;
CREATE TABLE segment (
  id INTEGER PRIMARY KEY,
  product INTEGER NOT NULL REFERENCES product,
  sequence_min INTEGER NOT NULL,
  sequence_max INTEGER NOT NULL,
  cells INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  is_classified INTEGER NOT NULL,
  is_merged INTEGER NOT NULL,
  devices BLOB NOT NULL,
  checksums BLOB NOT NULL,
  chains BLOB
) STRICT;
CREATE TABLE origin (
  first INTEGER PRIMARY KEY, last INTEGER NOT NULL, chunk BLOB NOT NULL
) STRICT;
CREATE TABLE latest (
  product INTEGER NOT NULL, device TEXT NOT NULL, cells BLOB NOT NULL,
  PRIMARY KEY (product, device)
) STRICT, WITHOUT ROWID;
CREATE TABLE conflict (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  pass INTEGER NOT NULL,
  product INTEGER NOT NULL,
  device TEXT NOT NULL,
  time INTEGER NOT NULL,
  point INTEGER NOT NULL,
  loser_sequence INTEGER NOT NULL,
  winner_sequence INTEGER NOT NULL,
  cells BLOB NOT NULL
) STRICT;
CREATE INDEX conflict_row ON conflict (product, device, time);
CREATE TABLE cursor (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// Of each commit how many of its values were there already, which stores of before have not; and the
/// way to the conflicts that a commit brought.
const REPEATS: &str = "
CREATE TABLE IF NOT EXISTS repeat (sequence INTEGER PRIMARY KEY, cells INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS conflict_later ON conflict (max(loser_sequence, winner_sequence));
";

/// Two connections: one writes, one lists, so that a long listing never delays a flush.
pub(super) struct Manifest {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

/// What a flush makes live, in one transaction.
pub(super) struct Flushed<'a> {
    pub(super) through: Sequence,
    /// The chronicle got something too, beforehand.
    pub(super) has_chapter: bool,
    pub(super) segments: &'a [(Card, Chains)],
    pub(super) origins: &'a [Chunk],
    pub(super) points: &'a [(ProductKey, ElementName, Storage)],
    pub(super) latest: &'a [Saved],
    /// Versions that were duplicates whatever stood before them.
    pub(super) duplicates: &'a Repeats,
    /// The first commit that refused something.
    pub(super) first_refusal: Option<u64>,
}

impl Manifest {
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("manifest.db");
        let mut writer = Connection::open(&path)?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match found {
            FORMAT => {}
            0 => create(&transaction)?,
            found => {
                return Err(OpenError::Format {
                    found,
                    known: FORMAT,
                });
            }
        }
        transaction.execute_batch(REPEATS)?;
        // A pass that did not end left conflicts that nobody may see.
        transaction.execute(
            "DELETE FROM conflict WHERE pass > (SELECT value FROM about WHERE key = 'passes')",
            [],
        )?;
        transaction.commit()?;
        let reader = Connection::open(&path)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(Self {
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
        })
    }

    /// Runs queries that change nothing.
    pub(super) fn list<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        query(&self.reader.lock())
    }

    pub(super) fn repeats(
        &self,
        after: Sequence,
        through: Sequence,
        limit: usize,
    ) -> rusqlite::Result<Vec<(Sequence, u64)>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.list(|db| {
            let mut select = db.prepare_cached(
                "SELECT sequence, cells FROM repeat WHERE sequence > ?1 AND sequence <= ?2
                 ORDER BY sequence LIMIT ?3",
            )?;
            let rows = select
                .query_map(params![signed(after.0), signed(through.0), limit], |row| {
                    Ok((Sequence(unsigned(row.get(0)?)), unsigned(row.get(1)?)))
                })?;
            rows.collect()
        })
    }

    pub(super) fn about(&self, key: &str) -> rusqlite::Result<i64> {
        let sql = "SELECT value FROM about WHERE key = ?1";
        self.list(|db| db.query_row(sql, [key], |row| row.get(0)))
    }

    /// The first commit that refused something; `None` where none did.
    pub(super) fn first_refusal(&self) -> rusqlite::Result<Option<u64>> {
        let sql = "SELECT value FROM about WHERE key = 'first_refusal'";
        self.list(|db| {
            db.query_row(sql, [], |row| row.get(0).map(unsigned))
                .optional()
        })
    }

    pub(super) fn segments(&self) -> Result<Vec<Card>, OpenError> {
        let rows = self.list(|db| {
            let mut select = db.prepare(
                "SELECT s.id, p.key, sequence_min, sequence_max, cells, bytes, is_classified,
                        is_merged, devices, checksums
                 FROM segment s JOIN product p ON p.id = s.product ORDER BY s.id",
            )?;
            let rows = select.query_map([], |row| {
                let card = Card {
                    id: unsigned(row.get(0)?),
                    product: product(&row.get::<_, String>(1)?)?,
                    sequence_min: unsigned(row.get(2)?),
                    sequence_max: unsigned(row.get(3)?),
                    cells: unsigned(row.get(4)?),
                    bytes: unsigned(row.get(5)?),
                    is_classified: row.get(6)?,
                    is_merged: row.get(7)?,
                    index: DeviceIndex::default().into(),
                    checksums: [].into(),
                };
                Ok((card, row.get::<_, Vec<u8>>(8)?, row.get::<_, Vec<u8>>(9)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let decode = |(card, devices, checksums): (Card, Vec<u8>, Vec<u8>)| {
            let checksums = checksums.chunks_exact(4);
            let checksum = |bytes: &[u8]| {
                u32::from_le_bytes(bytes.try_into().expect("chunks of four bytes have four"))
            };
            Ok(Card {
                index: DeviceIndex::unpack(&devices)?.into(),
                checksums: checksums.map(checksum).collect(),
                ..card
            })
        };
        rows.into_iter().map(decode).collect()
    }

    pub(super) fn points(&self) -> rusqlite::Result<Vec<(ProductKey, ElementName, Storage)>> {
        self.list(|db| {
            let mut select = db.prepare(
                "SELECT p.key, o.name, o.storage FROM point o JOIN product p ON p.id = o.product",
            )?;
            let rows = select.query_map([], |row| {
                let product = product(&row.get::<_, String>(0)?)?;
                let point = point(&row.get::<_, String>(1)?)?;
                Ok((product, point, storage_of(&row.get::<_, String>(2)?)?))
            })?;
            rows.collect()
        })
    }

    pub(super) fn latest(&self) -> rusqlite::Result<Vec<(ProductKey, String, Vec<u8>)>> {
        self.list(|db| {
            let mut select = db.prepare(
                "SELECT p.key, device, cells FROM latest l JOIN product p ON p.id = l.product",
            )?;
            let rows = select.query_map([], |row| {
                Ok((
                    product(&row.get::<_, String>(0)?)?,
                    row.get(1)?,
                    row.get(2)?,
                ))
            })?;
            rows.collect()
        })
    }

    pub(super) fn chains(&self, segment: u64) -> Result<Chains, FlushError> {
        let sql = "SELECT chains FROM segment WHERE id = ?1";
        let blob: Option<Vec<u8>> =
            self.list(|db| db.query_row(sql, [signed(segment)], |row| row.get(0)))?;
        blob.map_or_else(|| Ok(Chains::default()), |blob| Ok(Chains::unpack(&blob)?))
    }

    /// The first chunk of origins with a sequence from `from` on.
    pub(super) fn origins_from(&self, from: Sequence) -> rusqlite::Result<Option<Vec<u8>>> {
        let sql = "SELECT chunk FROM origin WHERE first >= coalesce(
                     (SELECT max(first) FROM origin WHERE first <= ?1), 0) AND last >= ?1
                   ORDER BY first LIMIT 1";
        self.list(|db| {
            db.query_row(sql, [signed(from.0)], |row| row.get(0))
                .optional()
        })
    }

    /// The chunk of origins that a sequence is in.
    pub(super) fn origins(&self, sequence: Sequence) -> rusqlite::Result<Option<Vec<u8>>> {
        let sql = "SELECT chunk FROM origin WHERE first <= ?1 AND last >= ?1
                   ORDER BY first DESC LIMIT 1";
        self.list(|db| {
            db.query_row(sql, [signed(sequence.0)], |row| row.get(0))
                .optional()
        })
    }

    pub(super) fn cursors(&self) -> rusqlite::Result<Vec<(String, Sequence)>> {
        self.list(|db| {
            let mut select = db.prepare("SELECT name, sequence FROM cursor ORDER BY name")?;
            let rows =
                select.query_map([], |row| Ok((row.get(0)?, Sequence(unsigned(row.get(1)?)))))?;
            rows.collect()
        })
    }

    pub(super) fn set_cursor(&self, name: &str, sequence: Sequence) -> rusqlite::Result<()> {
        let sql = "INSERT INTO cursor VALUES (?1, ?2)
                   ON CONFLICT (name) DO UPDATE SET sequence = excluded.sequence";
        self.writer
            .lock()
            .execute(sql, params![name, signed(sequence.0)])?;
        Ok(())
    }

    pub(super) fn drop_cursor(&self, name: &str) -> rusqlite::Result<()> {
        self.writer
            .lock()
            .execute("DELETE FROM cursor WHERE name = ?1", [name])?;
        Ok(())
    }

    /// The last commit that the chronicle must hold; `None` before there was one.
    pub(super) fn chronicle(&self) -> rusqlite::Result<Option<Sequence>> {
        let sql = "SELECT value FROM about WHERE key = 'chronicle'";
        let found: Option<i64> =
            self.list(|db| db.query_row(sql, [], |row| row.get(0)).optional())?;
        Ok(found.map(|found| Sequence(unsigned(found))))
    }

    /// From now on there is a chronicle.
    pub(super) fn know_chronicle(&self) -> rusqlite::Result<()> {
        let sql = "INSERT INTO about VALUES ('chronicle', 0)";
        self.writer.lock().execute(sql, []).map(drop)
    }

    pub(super) fn know_product(&self, product: &ProductKey) -> Result<(), FlushError> {
        self.change(|db| product_id(db, product).map(drop))
    }

    pub(super) fn products(&self) -> rusqlite::Result<Vec<ProductKey>> {
        self.list(|db| {
            let mut select = db.prepare("SELECT key FROM product")?;
            let rows = select.query_map([], |row| product(&row.get::<_, String>(0)?))?;
            rows.collect()
        })
    }

    /// Makes a flush live.
    pub(super) fn flushed(&self, flushed: &Flushed<'_>) -> Result<(), FlushError> {
        self.change(|db| {
            for (product, point, storage) in flushed.points {
                let product = product_id(db, product)?;
                db.prepare_cached("INSERT OR IGNORE INTO point VALUES (NULL, ?1, ?2, ?3)")?
                    .execute(params![product, point.as_str(), storage_name(*storage)])?;
            }
            for (card, chains) in flushed.segments {
                insert_segment(db, card, chains)?;
            }
            for chunk in flushed.origins {
                db.prepare_cached("INSERT OR REPLACE INTO origin VALUES (?1, ?2, ?3)")?
                    .execute(params![
                        signed(chunk.first.0),
                        signed(chunk.last.0),
                        chunk.bytes
                    ])?;
            }
            for saved in flushed.latest {
                let product = product_id(db, &saved.product)?;
                db.prepare_cached("INSERT OR REPLACE INTO latest VALUES (?1, ?2, ?3)")?
                    .execute(params![product, saved.device.as_str(), saved.cells])?;
            }
            add_repeats(db, flushed.duplicates)?;
            if let Some(first) = flushed.first_refusal {
                let sql = "INSERT OR REPLACE INTO about VALUES ('first_refusal', ?1)";
                db.execute(sql, [signed(first)])?;
            }
            let through = |key| {
                let sql = "UPDATE about SET value = ?2 WHERE key = ?1";
                db.execute(sql, params![key, signed(flushed.through.0)])
            };
            if flushed.has_chapter {
                through("chronicle")?;
            }
            through("flushed")?;
            Ok(())
        })
    }

    /// Replaces the inputs of a merge by its outputs.
    pub(super) fn merged(&self, inputs: &HashSet<u64>, outputs: &[Card]) -> Result<(), FlushError> {
        self.change(|db| {
            for id in inputs {
                db.execute("DELETE FROM segment WHERE id = ?1", [signed(*id)])?;
            }
            outputs
                .iter()
                .try_for_each(|card| insert_segment(db, card, &Chains::default()))
        })
    }

    /// Lets go of segments of a product, and of conflicts below the floors of its points.
    pub(super) fn expired(
        &self,
        product: &ProductKey,
        keep: &Keep,
        segments: &[u64],
    ) -> Result<(), FlushError> {
        self.change(|db| {
            for id in segments {
                db.execute("DELETE FROM segment WHERE id = ?1", [signed(*id)])?;
            }
            // Of a pass that has not ended nothing is listed yet, nor counted.
            let sql = "WITH named AS (
                   SELECT key AS point, value ->> 0 AS time, value ->> 1 AS sequence FROM json_each(?4)
                 ), floor AS (
                   SELECT o.id, coalesce(n.time, ?2) AS time, coalesce(n.sequence, ?3) AS sequence
                   FROM point o LEFT JOIN named n ON n.point = o.name
                   WHERE o.product = (SELECT id FROM product WHERE key = ?1)
                 )
                 DELETE FROM conflict WHERE id IN (
                   SELECT c.id FROM conflict c JOIN floor f ON f.id = c.point
                   WHERE c.product = (SELECT id FROM product WHERE key = ?1)
                     AND (c.time < f.time OR c.winner_sequence < f.sequence)
                     AND c.pass <= (SELECT value FROM about WHERE key = 'passes'))";
            let rest = keep.rest.floor();
            let gone = db.execute(
                sql,
                params![
                    product.as_str(),
                    rest.time_ms,
                    signed(rest.sequence.0),
                    named_floors(keep),
                ],
            )?;
            let sql = "UPDATE about SET value = value - ?1 WHERE key = 'conflicts'";
            db.execute(sql, [i64::try_from(gone).unwrap_or(i64::MAX)])?;
            Ok(())
        })
    }

    /// Puts down conflicts of a pass that has not ended: nobody sees them yet.
    pub(super) fn note_conflicts(
        &self,
        pass: i64,
        product: &ProductKey,
        verdicts: &Verdicts,
    ) -> Result<(), FlushError> {
        self.change(|db| {
            let product = product_id(db, product)?;
            for conflict in &verdicts.conflicts {
                let point: i64 = db
                    .prepare_cached("SELECT id FROM point WHERE product = ?1 AND name = ?2")?
                    .query_row(params![product, conflict.point.as_str()], |row| row.get(0))?;
                let mut cells = Sink::default();
                for version in [&conflict.loser, &conflict.winner] {
                    cells.byte(version.quality);
                    cells.cell(&version.cell);
                }
                db.prepare_cached(
                    "INSERT INTO conflict VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    pass,
                    product,
                    conflict.device.as_str(),
                    conflict.time_ms,
                    point,
                    signed(conflict.loser.sequence),
                    signed(conflict.winner.sequence),
                    cells.plain(),
                ])?;
            }
            Ok(())
        })
    }

    /// Ends a pass: its conflicts are listed from now on, and the segments are classified.
    pub(super) fn classified(
        &self,
        pass: i64,
        segments: &HashSet<u64>,
        conflicts: u64,
        duplicates: &Repeats,
    ) -> Result<(), FlushError> {
        self.change(|db| {
            for id in segments {
                db.execute(
                    "UPDATE segment SET is_classified = 1, chains = NULL WHERE id = ?1",
                    [signed(*id)],
                )?;
            }
            add(db, "conflicts", conflicts)?;
            add_repeats(db, duplicates)?;
            db.execute("UPDATE about SET value = ?1 WHERE key = 'passes'", [pass])?;
            Ok(())
        })
    }

    /// Takes back what a failed pass put down.
    pub(super) fn forget_pass(&self, pass: i64) -> Result<(), FlushError> {
        self.writer
            .lock()
            .execute("DELETE FROM conflict WHERE pass = ?1", [pass])?;
        Ok(())
    }

    fn change(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), FlushError> {
        let mut writer = self.writer.lock();
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        change(&transaction)?;
        Ok(transaction.commit()?)
    }
}

fn create(db: &Transaction<'_>) -> Result<(), OpenError> {
    db.execute_batch(SCHEMA)?;
    db.execute_batch(
        "INSERT INTO about VALUES ('flushed', 0), ('conflicts', 0), ('duplicates', 0), ('passes', 0),
           ('store_id', abs(random() % 4294967296));",
    )?;
    db.pragma_update(None, "user_version", FORMAT)?;
    Ok(())
}

fn add(db: &Transaction<'_>, key: &str, by: u64) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE about SET value = value + ?2 WHERE key = ?1",
        params![key, signed(by)],
    )?;
    Ok(())
}

/// Counts values that were there already, of all commits and of each.
fn add_repeats(db: &Transaction<'_>, repeats: &Repeats) -> rusqlite::Result<()> {
    add(db, "duplicates", repeats.values().sum())?;
    let mut insert = db.prepare_cached(
        "INSERT INTO repeat (sequence, cells) VALUES (?1, ?2)
         ON CONFLICT (sequence) DO UPDATE SET cells = cells + excluded.cells",
    )?;
    for (sequence, cells) in repeats {
        insert.execute(params![signed(*sequence), signed(*cells)])?;
    }
    Ok(())
}

fn insert_segment(db: &Transaction<'_>, card: &Card, chains: &Chains) -> rusqlite::Result<()> {
    let product = product_id(db, &card.product)?;
    let checksums: Vec<u8> = card
        .checksums
        .iter()
        .flat_map(|sum| sum.to_le_bytes())
        .collect();
    db.execute(
        "INSERT INTO segment VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            signed(card.id),
            product,
            signed(card.sequence_min),
            signed(card.sequence_max),
            signed(card.cells),
            signed(card.bytes),
            card.is_classified,
            card.is_merged,
            card.index.pack(),
            checksums,
            (!chains.is_empty()).then(|| chains.pack()),
        ],
    )?;
    Ok(())
}

fn product_id(db: &Transaction<'_>, product: &ProductKey) -> rusqlite::Result<i64> {
    db.prepare_cached("INSERT OR IGNORE INTO product VALUES (NULL, ?1)")?
        .execute([product.as_str()])?;
    db.prepare_cached("SELECT id FROM product WHERE key = ?1")?
        .query_row([product.as_str()], |row| row.get(0))
}

/// The two sides of a conflict as [`Manifest::note_conflicts`] wrote them: quality and value.
pub(super) type Sides = [(u8, backtide_model::Cell); 2];

pub(super) fn sides(blob: &[u8]) -> Result<Sides, super::codec::Damaged> {
    let mut source = Source::new(blob);
    let mut side = || Ok((source.byte()?, source.cell()?));
    Ok([side()?, side()?])
}

/// SQLite's integers are signed; ours count things and stay below 2^63.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).expect("sequences and sizes stay below 2^63")
}

pub(super) fn unsigned(value: i64) -> u64 {
    value.unsigned_abs()
}

pub(super) fn product(key: &str) -> rusqlite::Result<ProductKey> {
    ProductKey::new(key).map_err(|error| unreadable(Box::new(error)))
}

pub(super) fn point(name: &str) -> rusqlite::Result<ElementName> {
    ElementName::new(name).map_err(|error| unreadable(Box::new(error)))
}

pub(super) fn unreadable(error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error)
}

const STORAGES: [(Storage, &str); 6] = [
    (Storage::Bool, "bool"),
    (Storage::Int, "int"),
    (Storage::Long, "long"),
    (Storage::Float, "float"),
    (Storage::Double, "double"),
    (Storage::Text, "text"),
];

fn storage_name(storage: Storage) -> &'static str {
    let known = STORAGES.iter().find(|(known, _)| *known == storage);
    known.expect("every storage has a name").1
}

fn storage_of(name: &str) -> rusqlite::Result<Storage> {
    let known = STORAGES.iter().find(|(_, known)| *known == name);
    known
        .map(|(storage, _)| *storage)
        .ok_or_else(|| unreadable(format!("storage {name}").into()))
}
