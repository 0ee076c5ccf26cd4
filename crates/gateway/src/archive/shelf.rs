//! What archives know: which days were touched, up to where the log was looked through, and which
//! files stand where. One small file; every step of a run is one transaction.

mod agree;
mod redriven;

use std::{collections::HashMap, path::Path};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::ArchiveError;
use crate::{
    registry::ArchiveOf,
    sqlite::{self, Sync},
};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS place (id INTEGER PRIMARY KEY CHECK (id = 0), sequence INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS touched (
        product TEXT NOT NULL, day INTEGER NOT NULL, sequence INTEGER NOT NULL,
        PRIMARY KEY (product, day)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS swept (product TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS touched_events (
        product TEXT NOT NULL, day INTEGER NOT NULL, sequence INTEGER NOT NULL,
        PRIMARY KEY (product, day)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS swept_events (product TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS touched_attributes (
        product TEXT NOT NULL, day INTEGER NOT NULL, sequence INTEGER NOT NULL,
        PRIMARY KEY (product, day)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS swept_attributes (product TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS done (
        archive TEXT NOT NULL, product TEXT NOT NULL, day INTEGER NOT NULL, through INTEGER NOT NULL,
        PRIMARY KEY (archive, product, day)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS file (
        archive TEXT NOT NULL, product TEXT NOT NULL, day INTEGER NOT NULL, path TEXT NOT NULL,
        point TEXT, part INTEGER NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL,
        sha256 TEXT NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
        first_sequence INTEGER NOT NULL, last_sequence INTEGER NOT NULL,
        PRIMARY KEY (archive, product, day, path)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS run (
        archive TEXT PRIMARY KEY, state TEXT NOT NULL, began_ms INTEGER NOT NULL, ended_ms INTEGER,
        days INTEGER NOT NULL, files INTEGER NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL,
        error TEXT, manifest_due INTEGER NOT NULL
    ) WITHOUT ROWID;
";

/// Where it is kept of a kind which days were touched, which products were swept, and what was driven again.
struct Tables {
    touched: &'static str,
    swept: &'static str,
    redriven: &'static str,
}

fn tables(of: ArchiveOf) -> Tables {
    let (touched, swept, redriven) = match of {
        ArchiveOf::Points => ("touched", "swept", "redriven"),
        ArchiveOf::Events => ("touched_events", "swept_events", "redriven_events"),
        ArchiveOf::Attributes => (
            "touched_attributes",
            "swept_attributes",
            "redriven_attributes",
        ),
    };
    Tables {
        touched,
        swept,
        redriven,
    }
}

/// A day of a product that commits touched.
pub(super) struct Touched {
    pub(super) product: String,
    pub(super) day: i64,
    /// The last of them.
    pub(super) sequence: u64,
    /// The first place in the order of commits that those took which drive again; 0: it may be any.
    pub(super) lowest: Option<u64>,
}

/// A day of a product, counted from 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DueDay {
    pub(super) day: i64,
    /// Up to which commit it was written, if it was.
    pub(super) through: Option<u64>,
    /// Its files may have what the store lost when a backup was put back: they stay.
    pub(super) is_ahead: bool,
}

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ArchiveFile)]
pub struct FileRecord {
    pub(super) path: String,
    /// The product's key.
    pub(super) product: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) point: Option<String>,
    /// The day of its events, UTC.
    #[serde(serialize_with = "as_date", rename = "date")]
    #[schema(value_type = String)]
    pub(super) day: i64,
    pub(super) part: u32,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    /// Event times of its rows, milliseconds since 1970, both inclusive.
    pub(super) first_time: i64,
    pub(super) last_time: i64,
    /// Commits of its rows, both inclusive.
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
}

impl FileRecord {
    /// Its place in the order of files.
    pub fn key(&self) -> (String, i64, String) {
        (self.product.clone(), self.day, self.path.clone())
    }
}

/// Which files of an archive are asked for.
#[derive(Debug, Clone, Default)]
pub struct FilesAsked {
    /// Those behind this one, by [`FileRecord::key`].
    pub after: (String, i64, String),
    /// Of this key only.
    pub product: Option<String>,
    /// Of this day only, counted from 1970-01-01 UTC.
    pub day: Option<i64>,
    pub limit: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn as_date<S: serde::Serializer>(day: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&super::date(*day))
}

/// How a run of an archive ended, or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ArchiveRun)]
pub struct RunRecord {
    /// running, complete, failed, or interrupted: then it goes on when the gateway starts.
    pub state: String,
    /// Milliseconds since 1970.
    pub began: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<i64>,
    /// Days of products that were written.
    pub days: u64,
    pub files: u64,
    pub rows: u64,
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Files were written that the manifest does not list yet.
    #[serde(skip)]
    pub(super) manifest_due: bool,
}

pub(super) const RUNNING: &str = "running";
pub(super) const COMPLETE: &str = "complete";
pub(super) const FAILED: &str = "failed";
pub(super) const INTERRUPTED: &str = "interrupted";

pub(super) struct Shelf {
    connection: Connection,
    /// How often what is known of a kind was forgotten since the file was opened.
    forgotten: HashMap<ArchiveOf, u64>,
}

/// What every step may fail with.
type ShelfResult<T> = Result<T, ArchiveError>;

impl Shelf {
    pub(super) fn open(path: &Path) -> ShelfResult<Self> {
        // Power loss may take the last steps: the days are written again, into the same files.
        let mut connection = sqlite::open(path, Sync::Normal)?;
        connection.execute_batch(SCHEMA)?;
        connection.execute_batch(agree::SCHEMA)?;
        redriven::prepare(&mut connection)?;
        connection.execute(
            "UPDATE run SET state = ?1 WHERE state = ?2",
            params![INTERRUPTED, RUNNING],
        )?;
        Ok(Self {
            connection,
            forgotten: HashMap::new(),
        })
    }

    /// Up to where the log was looked through.
    pub(super) fn place(&self) -> ShelfResult<Option<u64>> {
        let found = self
            .connection
            .query_row("SELECT sequence FROM place", [], |row| row.get(0));
        Ok(found.optional()?.map(unsigned))
    }

    /// Begins at a place: nothing is known of what came before, so every product is swept again.
    pub(super) fn begin_at(&mut self, sequence: u64) -> ShelfResult<()> {
        let transaction = self.connection.transaction()?;
        for of in ArchiveOf::ALL {
            forget_swept(&transaction, of)?;
            *self.forgotten.entry(of).or_default() += 1;
        }
        put_place(&transaction, sequence)?;
        Ok(transaction.commit()?)
    }

    /// Nothing is followed any more.
    pub(super) fn end(&mut self) -> ShelfResult<()> {
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM place", [])?;
        for of in ArchiveOf::ALL {
            forget(&transaction, of)?;
            *self.forgotten.entry(of).or_default() += 1;
        }
        Ok(transaction.commit()?)
    }

    /// Days of a kind that were there before the log was followed.
    pub(super) fn touch(&mut self, of: ArchiveOf, days: &[Touched]) -> ShelfResult<()> {
        let transaction = self.connection.transaction()?;
        put_touched(&transaction, of, days)?;
        Ok(transaction.commit()?)
    }

    /// The log was looked through up to a place: which days of which kinds it touched. What is known of
    /// other kinds is forgotten, so that they are swept when they are wanted.
    pub(super) fn followed(
        &mut self,
        touched: &[(ArchiveOf, Vec<Touched>)],
        place: u64,
    ) -> ShelfResult<()> {
        let transaction = self.connection.transaction()?;
        for of in ArchiveOf::ALL {
            match touched.iter().find(|(kind, _)| *kind == of) {
                Some((_, days)) => put_touched(&transaction, of, days)?,
                None => {
                    forget(&transaction, of)?;
                    *self.forgotten.entry(of).or_default() += 1;
                }
            }
        }
        put_place(&transaction, place)?;
        Ok(transaction.commit()?)
    }

    pub(super) fn is_swept(&self, of: ArchiveOf, product: &str) -> ShelfResult<bool> {
        let sql = format!("SELECT 1 FROM {} WHERE product = ?1", tables(of).swept);
        let found = self.connection.query_row(&sql, [product], |_| Ok(()));
        Ok(found.optional()?.is_some())
    }

    /// How often what is known of a kind was forgotten: to be asked before a sweep.
    pub(super) fn forgotten(&self, of: ArchiveOf) -> u64 {
        self.forgotten.get(&of).copied().unwrap_or(0)
    }

    /// Notes that a product was swept, by a sweep before which [`Shelf::forgotten`] was that. False where
    /// what it noted was forgotten since.
    pub(super) fn set_swept(
        &self,
        of: ArchiveOf,
        product: &str,
        forgotten: u64,
    ) -> ShelfResult<bool> {
        if self.forgotten(of) != forgotten {
            return Ok(false);
        }
        let sql = format!(
            "INSERT OR IGNORE INTO {} (product) VALUES (?1)",
            tables(of).swept
        );
        self.connection.execute(&sql, [product])?;
        Ok(true)
    }

    /// Days of a product that an archive has to write, the first ones behind `after`.
    pub(super) fn due(
        &self,
        of: ArchiveOf,
        archive: &str,
        product: &str,
        after: i64,
        limit: usize,
    ) -> ShelfResult<Vec<DueDay>> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT t.day, d.through, a.day IS NOT NULL FROM {} t
             LEFT JOIN done d ON d.archive = ?1 AND d.product = t.product AND d.day = t.day
             LEFT JOIN ahead a ON a.archive = ?1 AND a.product = t.product AND a.day = t.day
             WHERE t.product = ?2 AND t.day > ?3 AND (d.through IS NULL OR t.sequence > d.through)
             ORDER BY t.day LIMIT ?4",
            tables(of).touched
        ))?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![archive, product, after, limit], |row| {
            Ok(DueDay {
                day: row.get(0)?,
                through: row.get::<_, Option<i64>>(1)?.map(unsigned),
                is_ahead: row.get(2)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn due_count(
        &self,
        of: ArchiveOf,
        archive: &str,
        product: &str,
    ) -> ShelfResult<u64> {
        let sql = format!(
            "SELECT COUNT(*) FROM {} t
             LEFT JOIN done d ON d.archive = ?1 AND d.product = t.product AND d.day = t.day
             WHERE t.product = ?2 AND (d.through IS NULL OR t.sequence > d.through)",
            tables(of).touched
        );
        let count = self
            .connection
            .query_row(&sql, params![archive, product], |row| row.get(0))?;
        Ok(unsigned(count))
    }

    pub(super) fn files_of_day(
        &self,
        archive: &str,
        product: &str,
        day: i64,
    ) -> ShelfResult<Vec<FileRecord>> {
        self.files(
            archive,
            (product, day, ""),
            usize::MAX,
            "AND product = ?2 AND day = ?3",
        )
    }

    /// Files in the order of product, day and path, those behind `after`.
    pub(super) fn files_after(
        &self,
        archive: &str,
        after: (&str, i64, &str),
        limit: usize,
    ) -> ShelfResult<Vec<FileRecord>> {
        self.files(
            archive,
            after,
            limit,
            "AND (product, day, path) > (?2, ?3, ?4)",
        )
    }

    /// Some of them, for somebody to look at; the key is that of [`Shelf::files_after`].
    pub(super) fn listed(&self, archive: &str, asked: &FilesAsked) -> ShelfResult<Vec<FileRecord>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT path, product, point, day, part, rows, bytes, sha256, first_ms, last_ms,
                    first_sequence, last_sequence
             FROM file WHERE archive = ?1 AND (product, day, path) > (?2, ?3, ?4)
                 AND (?5 IS NULL OR product = ?5) AND (?6 IS NULL OR day = ?6)
             ORDER BY product, day, path LIMIT ?7",
        )?;
        let (product, day, path) = &asked.after;
        let limit = i64::try_from(asked.limit).unwrap_or(i64::MAX);
        let params = params![archive, product, day, path, asked.product, asked.day, limit];
        let rows = statement.query_map(params, file)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn files(
        &self,
        archive: &str,
        key: (&str, i64, &str),
        limit: usize,
        condition: &str,
    ) -> ShelfResult<Vec<FileRecord>> {
        let sql = format!(
            "SELECT path, product, point, day, part, rows, bytes, sha256, first_ms, last_ms,
                    first_sequence, last_sequence
             FROM file WHERE archive = ?1 {condition} AND ?4 IS NOT NULL
             ORDER BY product, day, path LIMIT ?5"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let (product, day, path) = key;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![archive, product, day, path, limit], file)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A day is written up to `through`.
    pub(super) fn written(
        &mut self,
        of: ArchiveOf,
        archive: &str,
        (product, day, through): (&str, i64, u64),
        files: &[FileRecord],
        run: &RunRecord,
    ) -> ShelfResult<()> {
        let transaction = self.connection.transaction()?;
        for file in files {
            transaction.execute(
                "INSERT OR REPLACE INTO file (archive, product, day, path, point, part, rows, bytes, sha256,
                                              first_ms, last_ms, first_sequence, last_sequence)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
                params![
                    archive, product, day, file.path, file.point, file.part, signed(file.rows),
                    signed(file.bytes), file.sha256, file.first_time, file.last_time,
                    signed(file.first_sequence), signed(file.last_sequence),
                ],
            )?;
        }
        transaction.execute(
            "INSERT OR REPLACE INTO done (archive, product, day, through) VALUES (?1, ?2, ?3, ?4)",
            params![archive, product, day, signed(through)],
        )?;
        redriven::settle(&transaction, of, product, day)?;
        put_run(&transaction, archive, run)?;
        Ok(transaction.commit()?)
    }

    pub(super) fn run(&self, archive: &str) -> ShelfResult<Option<RunRecord>> {
        let found = self.connection.query_row(
            "SELECT state, began_ms, ended_ms, days, files, rows, bytes, error, manifest_due
             FROM run WHERE archive = ?1",
            [archive],
            |row| {
                Ok(RunRecord {
                    state: row.get(0)?,
                    began: row.get(1)?,
                    ended: row.get(2)?,
                    days: unsigned(row.get(3)?),
                    files: unsigned(row.get(4)?),
                    rows: unsigned(row.get(5)?),
                    bytes: unsigned(row.get(6)?),
                    error: row.get(7)?,
                    manifest_due: row.get(8)?,
                })
            },
        );
        Ok(found.optional()?)
    }

    pub(super) fn set_run(&self, archive: &str, run: &RunRecord) -> ShelfResult<()> {
        put_run(&self.connection, archive, run)
    }

    /// How many files an archive has, their rows and bytes.
    pub(super) fn totals(&self, archive: &str) -> ShelfResult<(u64, u64, u64)> {
        Ok(self.connection.query_row(
            "SELECT COUNT(*), COALESCE(SUM(rows), 0), COALESCE(SUM(bytes), 0) FROM file WHERE archive = ?1",
            [archive],
            |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?), unsigned(row.get(2)?))),
        )?)
    }

    /// Forgets all archives but these. What they wrote stays where it is.
    pub(super) fn keep_only(&mut self, archives: &[&str]) -> ShelfResult<()> {
        let transaction = self.connection.transaction()?;
        let known: Vec<String> = {
            let mut statement = transaction
                .prepare("SELECT archive FROM run UNION SELECT DISTINCT archive FROM done")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        };
        for archive in known
            .iter()
            .filter(|known| !archives.contains(&known.as_str()))
        {
            for table in ["run", "done", "file", "ahead"] {
                transaction.execute(
                    &format!("DELETE FROM {table} WHERE archive = ?1"),
                    [archive],
                )?;
            }
        }
        Ok(transaction.commit()?)
    }
}

fn put_touched(connection: &Connection, of: ArchiveOf, days: &[Touched]) -> ShelfResult<()> {
    let mut statement = connection.prepare_cached(&format!(
        "INSERT INTO {} (product, day, sequence) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET sequence = MAX(sequence, excluded.sequence)",
        tables(of).touched
    ))?;
    for touched in days {
        let sequence = signed(touched.sequence);
        statement.execute(params![touched.product, touched.day, sequence])?;
    }
    redriven::put(connection, of, days)
}

/// Forgets what is known of a kind.
fn forget(connection: &Connection, of: ArchiveOf) -> ShelfResult<()> {
    let tables = tables(of);
    connection.execute(&format!("DELETE FROM {}", tables.touched), [])?;
    connection.execute(&format!("DELETE FROM {}", tables.redriven), [])?;
    forget_swept(connection, of)
}

/// Forgets which products were swept for a kind: they are swept again.
fn forget_swept(connection: &Connection, of: ArchiveOf) -> ShelfResult<()> {
    connection.execute(&format!("DELETE FROM {}", tables(of).swept), [])?;
    Ok(())
}

fn put_place(connection: &Connection, sequence: u64) -> ShelfResult<()> {
    connection.execute(
        "INSERT INTO place (id, sequence) VALUES (0, ?1) ON CONFLICT DO UPDATE SET sequence = excluded.sequence",
        [signed(sequence)],
    )?;
    Ok(())
}

fn put_run(connection: &Connection, archive: &str, run: &RunRecord) -> ShelfResult<()> {
    connection.execute(
        "INSERT OR REPLACE INTO run (archive, state, began_ms, ended_ms, days, files, rows, bytes, error, manifest_due)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            archive, run.state, run.began, run.ended, signed(run.days), signed(run.files),
            signed(run.rows), signed(run.bytes), run.error, run.manifest_due
        ],
    )?;
    Ok(())
}

fn file(row: &Row<'_>) -> rusqlite::Result<FileRecord> {
    Ok(FileRecord {
        path: row.get(0)?,
        product: row.get(1)?,
        point: row.get(2)?,
        day: row.get(3)?,
        part: row.get(4)?,
        rows: unsigned(row.get(5)?),
        bytes: unsigned(row.get(6)?),
        sha256: row.get(7)?,
        first_time: row.get(8)?,
        last_time: row.get(9)?,
        first_sequence: unsigned(row.get(10)?),
        last_sequence: unsigned(row.get(11)?),
    })
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
