//! Values that were driven again have the place in the order of commits of the one that refused them
//! first. That may lie behind what a day was written up to: which place it is at least is noted with
//! the day, so that a further part has them.

use rusqlite::{Connection, OptionalExtension, params};

use super::{DueDay, Shelf, ShelfResult, Touched, signed, tables, unsigned};
use crate::registry::ArchiveOf;

/// `sequence`: the last commit that drove again; `lowest`: the first place that one of them took.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS redriven (
        product TEXT NOT NULL, day INTEGER NOT NULL, sequence INTEGER NOT NULL, lowest INTEGER NOT NULL,
        PRIMARY KEY (product, day)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS redriven_events (
        product TEXT NOT NULL, day INTEGER NOT NULL, sequence INTEGER NOT NULL, lowest INTEGER NOT NULL,
        PRIMARY KEY (product, day)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS redriven_attributes (
        product TEXT NOT NULL, day INTEGER NOT NULL, sequence INTEGER NOT NULL, lowest INTEGER NOT NULL,
        PRIMARY KEY (product, day)
    ) WITHOUT ROWID;
";

/// Makes the tables. A file of before does not say what touched its days: it may have been anything.
pub(super) fn prepare(connection: &mut Connection) -> ShelfResult<()> {
    let transaction = connection.transaction()?;
    let sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'redriven'";
    let found = transaction.query_row(sql, [], |_| Ok(())).optional()?;
    transaction.execute_batch(SCHEMA)?;
    if found.is_none() {
        for of in ArchiveOf::ALL {
            let tables = tables(of);
            let sql = format!(
                "INSERT INTO {} (product, day, sequence, lowest)
                 SELECT product, day, sequence, 0 FROM {} t WHERE EXISTS (
                     SELECT 1 FROM done d
                     WHERE d.product = t.product AND d.day = t.day AND d.through < t.sequence)",
                tables.redriven, tables.touched
            );
            transaction.execute(&sql, [])?;
        }
    }
    Ok(transaction.commit()?)
}

pub(super) fn put(connection: &Connection, of: ArchiveOf, days: &[Touched]) -> ShelfResult<()> {
    let mut statement = connection.prepare_cached(&format!(
        "INSERT INTO {} (product, day, sequence, lowest) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET sequence = MAX(sequence, excluded.sequence),
                                   lowest = MIN(lowest, excluded.lowest)",
        tables(of).redriven
    ))?;
    for touched in days {
        let Some(lowest) = touched.lowest else {
            continue;
        };
        let (product, sequence) = (&touched.product, signed(touched.sequence));
        statement.execute(params![product, touched.day, sequence, signed(lowest)])?;
    }
    Ok(())
}

/// Forgets it of a day, once every archive that wrote the day has it.
pub(super) fn settle(
    connection: &Connection,
    of: ArchiveOf,
    product: &str,
    day: i64,
) -> ShelfResult<()> {
    let sql = format!(
        "DELETE FROM {} WHERE product = ?1 AND day = ?2 AND sequence <= (
             SELECT MIN(through) FROM done WHERE product = ?1 AND day = ?2)",
        tables(of).redriven
    );
    connection.execute(&sql, params![product, day])?;
    Ok(())
}

impl Shelf {
    /// Up to where a day is written that is written now, and, where it was before, the commit behind
    /// which its new rows are. Both in one look: what is driven again later is behind the first.
    pub(in super::super) fn bounds(
        &self,
        of: ArchiveOf,
        product: &str,
        due: &DueDay,
    ) -> ShelfResult<(u64, Option<u64>)> {
        let place = self.place()?.unwrap_or(0);
        let Some(through) = due.through else {
            return Ok((place, None));
        };
        let sql = format!(
            "SELECT lowest FROM {} WHERE product = ?1 AND day = ?2 AND sequence > ?3",
            tables(of).redriven
        );
        let key = params![product, due.day, signed(through)];
        let lowest = self.connection.query_row(&sql, key, |row| row.get(0));
        let lowest = lowest.optional()?.map(unsigned);
        let since = lowest.map_or(through, |lowest| through.min(lowest.saturating_sub(1)));
        Ok((place, Some(since)))
    }
}
