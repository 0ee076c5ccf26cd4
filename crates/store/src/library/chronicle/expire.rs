//! Retention of events and of attributes' history: what is no longer kept goes, some devices at a time.

use backtide_model::{ElementName, ProductKey};
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Chronicle, add, attributes::attributes_of, change, unwritten};
use crate::{
    ReadError,
    library::{
        fault::FlushError,
        keep::{Keep, RecordKeep},
        manifest::unsigned,
    },
};

/// Rows that go in one transaction at most, about: a flush waits no longer than for these.
const ROWS_MAX: usize = 4_096;

/// Events and attribute values that a keep would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExpirableRecords {
    pub events: u64,
    /// Of histories: the value in force stays.
    pub attribute_values: u64,
}

impl Chronicle {
    /// Lets go of some of what a product no longer keeps; whether there may be more.
    ///
    /// # Errors
    /// Nothing has gone.
    pub(in crate::library) fn expire(
        &self,
        product: &ProductKey,
        keep: &Keep,
    ) -> Result<bool, FlushError> {
        if keep.events == RecordKeep::ALL && keep.attributes == RecordKeep::ALL {
            return Ok(false);
        }
        let devices = self
            .devices(product, &[])
            .map_err(|error| FlushError::Chronicle(error.to_string()))?;
        let mut left = ROWS_MAX;
        for devices in devices.chunks(64) {
            let gone = change(&mut self.writer.lock(), |db| {
                let (mut events, mut values) = (0, 0);
                for (_, device) in devices {
                    if keep.events != RecordKeep::ALL && left > 0 {
                        let some = expire_events(db, *device, keep.events, left)?;
                        (events, left) = (events + some, left.saturating_sub(some));
                    }
                    if keep.attributes != RecordKeep::ALL && left > 0 {
                        let some = expire_attributes(db, *device, keep.attributes)?;
                        (values, left) = (values + some, left.saturating_sub(some));
                    }
                }
                let minus = |rows: usize| -i64::try_from(rows).unwrap_or(i64::MAX);
                if events > 0 {
                    add(db, "events", minus(events))?;
                }
                if values > 0 {
                    add(db, "attribute_values", minus(values))?;
                }
                Ok(())
            });
            gone.map_err(|error| unwritten(&error))?;
            if left == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a keep would take of what is written.
    ///
    /// # Errors
    /// The chronicle cannot be read.
    pub(crate) fn expirable(
        &self,
        product: &ProductKey,
        keep: &Keep,
    ) -> Result<ExpirableRecords, ReadError> {
        let mut all = ExpirableRecords::default();
        for (_, device) in self.devices(product, &[])? {
            all.events += self.read(|db| {
                let sql =
                    "SELECT count(*) FROM event WHERE device = ?1 AND (time < ?2 OR arrived < ?3)";
                let asked = params![device, keep.events.time_ms, keep.events.arrived_ms];
                db.prepare_cached(sql)?
                    .query_row(asked, |row| row.get(0))
                    .map(unsigned)
            })?;
            all.attribute_values += self.read(|db| {
                let sql = "SELECT count(*) FROM attribute AS a
                           WHERE device = ?1 AND last_arrived < ?2 AND EXISTS (
                             SELECT 1 FROM attribute AS later
                             WHERE later.device = a.device AND later.attribute = a.attribute
                               AND (later.first_order, later.first_sequence, later.first_item)
                                 > (a.first_order, a.first_sequence, a.first_item))";
                db.prepare_cached(sql)?
                    .query_row(params![device, keep.attributes.arrived_ms], |row| {
                        row.get(0)
                    })
                    .map(unsigned)
            })?;
        }
        Ok(all)
    }
}

fn expire_events(
    db: &Transaction<'_>,
    device: i64,
    keep: RecordKeep,
    rows_max: usize,
) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM event WHERE (device, time, event, digest) IN (
                 SELECT device, time, event, digest FROM event
                 WHERE device = ?1 AND (time < ?2 OR arrived < ?3) LIMIT ?4)";
    let by_time = "DELETE FROM event WHERE (device, time, event, digest) IN (
                 SELECT device, time, event, digest FROM event
                 WHERE device = ?1 AND time < ?2 LIMIT ?3)";
    let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
    // The tree is ordered by time: by arrival every event of the device is looked at.
    match keep.arrived_ms {
        i64::MIN => db
            .prepare_cached(by_time)?
            .execute(params![device, keep.time_ms, limit]),
        arrived_ms => {
            db.prepare_cached(sql)?
                .execute(params![device, keep.time_ms, arrived_ms, limit])
        }
    }
}

/// All but the value in force of each attribute.
fn expire_attributes(
    db: &Transaction<'_>,
    device: i64,
    keep: RecordKeep,
) -> rusqlite::Result<usize> {
    let mut gone = 0;
    for attribute in attributes_of(db, device)? {
        gone += expire_history(db, device, &attribute, keep)?;
    }
    Ok(gone)
}

fn expire_history(
    db: &Transaction<'_>,
    device: i64,
    attribute: &ElementName,
    keep: RecordKeep,
) -> rusqlite::Result<usize> {
    let sql = "SELECT first_order, first_sequence, first_item FROM attribute
               WHERE device = ?1 AND attribute = ?2
               ORDER BY first_order DESC, first_sequence DESC, first_item DESC LIMIT 1";
    let in_force: Option<(i64, i64, i64)> = db
        .prepare_cached(sql)?
        .query_row(params![device, attribute.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((order, sequence, item)) = in_force else {
        return Ok(0);
    };
    let sql = "DELETE FROM attribute WHERE device = ?1 AND attribute = ?2 AND last_arrived < ?3
                 AND (first_order, first_sequence, first_item) < (?4, ?5, ?6)";
    db.prepare_cached(sql)?.execute(params![
        device,
        attribute.as_str(),
        keep.arrived_ms,
        order,
        sequence,
        item
    ])
}
