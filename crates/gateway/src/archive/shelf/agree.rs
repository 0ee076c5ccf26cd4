//! A store that was put back from a backup ends before what archives noted. Its next commits have
//! numbers that were given before, so no note may stand that is ahead of it: a day would pass for
//! written that is not.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Shelf, ShelfResult, forget_swept, put_place, signed, tables, unsigned};
use crate::registry::ArchiveOf;

/// Files may have what the store lost: such days are never written over. No number of a commit ends it.
pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS ahead (
        archive TEXT NOT NULL, product TEXT NOT NULL, day INTEGER NOT NULL,
        PRIMARY KEY (archive, product, day)
    ) WITHOUT ROWID;
";

/// How far notes were ahead of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Ahead {
    /// The last commit that was noted.
    pub(in super::super) noted: u64,
    /// Days of archives whose files may have what the store lost.
    pub(in super::super) days: usize,
}

impl Shelf {
    /// Forgets what the store, which ends at `durable`, does not know of; `None` where there is nothing.
    /// Every product is swept again, and days that were written ahead are due with all they have.
    pub(in super::super) fn agree_with(&mut self, durable: u64) -> ShelfResult<Option<Ahead>> {
        let place = self.place()?;
        let transaction = self.connection.transaction()?;
        let days = days_ahead(&transaction, durable)?;
        if days.is_empty() && place.is_none_or(|place| place <= durable) {
            return Ok(None);
        }
        let mut noted = place.unwrap_or(0);
        for (archive, product, day) in &days {
            let key = params![archive, product, day];
            noted = noted.max(last_noted(&transaction, key)?);
            transaction.execute("INSERT OR IGNORE INTO ahead VALUES (?1, ?2, ?3)", key)?;
            transaction.execute(
                "UPDATE done SET through = 0 WHERE archive = ?1 AND product = ?2 AND day = ?3",
                key,
            )?;
        }
        for of in ArchiveOf::ALL {
            let tables = tables(of);
            // Else they would be due until the store gets there.
            for table in [tables.touched, tables.redriven] {
                let sql = format!("UPDATE {table} SET sequence = ?1 WHERE sequence > ?1");
                transaction.execute(&sql, [signed(durable)])?;
            }
            forget_swept(&transaction, of)?;
        }
        if let Some(place) = place {
            put_place(&transaction, place.min(durable))?;
        }
        transaction.commit()?;
        Ok(Some(Ahead {
            noted,
            days: days.len(),
        }))
    }
}

/// Days that are noted up to a commit that the store does not have, or whose files have one.
fn days_ahead(connection: &Connection, durable: u64) -> ShelfResult<Vec<(String, String, i64)>> {
    let mut statement = connection.prepare(
        "SELECT archive, product, day FROM done WHERE through > ?1
         UNION
         SELECT archive, product, day FROM file WHERE last_sequence > ?1
             AND (archive, product, day) NOT IN (SELECT archive, product, day FROM ahead)",
    )?;
    let rows = statement.query_map([signed(durable)], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn last_noted(connection: &Connection, key: &[&dyn rusqlite::ToSql]) -> ShelfResult<u64> {
    let found = connection.query_row(
        "SELECT through FROM done WHERE archive = ?1 AND product = ?2 AND day = ?3",
        key,
        |row| row.get(0),
    );
    Ok(found.optional()?.map_or(0, unsigned))
}
