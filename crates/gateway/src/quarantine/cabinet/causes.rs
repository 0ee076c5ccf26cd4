//! Causes: entries of the same channel, code and subject, counted as they come and go, so that
//! neither listing them nor asking how many a change would cure walks the entries.

use rusqlite::{Connection, Transaction, params, types::Value};

use super::super::{Cause, Filter, Id, QuarantineError};

/// What entries of one cause have in common.
pub(super) struct Subject<'a> {
    pub(super) channel: &'a str,
    pub(super) product: &'a str,
    pub(super) code: u16,
    pub(super) device: Option<&'a str>,
    pub(super) point: Option<&'a str>,
}

/// Counts one entry more; the number of its cause.
pub(super) fn join(transaction: &Transaction<'_>, of: &Subject<'_>) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached(
            "INSERT INTO cause (channel, product, code, device, point, entries)
             VALUES (?1, ?2, ?3, ?4, ?5, 1)
             ON CONFLICT (channel, product, code, device, point)
             DO UPDATE SET entries = entries + 1
             RETURNING id",
        )?
        .query_row(
            params![
                of.channel,
                of.product,
                of.code,
                of.device.unwrap_or_default(),
                of.point.unwrap_or_default(),
            ],
            |row| row.get(0),
        )
}

/// Counts entries less; a cause without any is gone.
pub(super) fn leave(
    transaction: &Transaction<'_>,
    cause: i64,
    entries: i64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE cause SET entries = entries - ?2 WHERE id = ?1")?
        .execute([cause, entries])?;
    transaction
        .prepare_cached("DELETE FROM cause WHERE id = ?1 AND entries <= 0")?
        .execute([cause])?;
    Ok(())
}

/// The most frequent first. Of the filter's conditions those on causes hold: ids and times do not.
pub(super) fn list(
    connection: &Connection,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<Cause>, QuarantineError> {
    let (wheres, mut values) = clauses(filter);
    values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    // The newest entry is the example; the index of causes finds both ends.
    let sql = format!(
        "SELECT cause.id, cause.channel, cause.product, cause.code, cause.device, cause.point, \
                cause.entries, \
                (SELECT time_ms FROM entry WHERE cause = cause.id ORDER BY sequence, part LIMIT 1), \
                newest.time_ms, newest.sequence, newest.part, newest.reason \
         FROM (SELECT * FROM cause {wheres} ORDER BY entries DESC, id LIMIT ?) AS cause \
         JOIN entry AS newest ON (newest.sequence, newest.part) = \
            (SELECT sequence, part FROM entry WHERE cause = cause.id \
             ORDER BY sequence DESC, part DESC LIMIT 1) \
         ORDER BY cause.entries DESC, cause.id"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let present = |text: String| Some(text).filter(|text| !text.is_empty());
    let causes = statement.query_map(rusqlite::params_from_iter(values), |row| {
        let entries: i64 = row.get(6)?;
        Ok(Cause {
            id: row.get(0)?,
            channel: row.get(1)?,
            product_key: row.get(2)?,
            code: row.get(3)?,
            device_key: present(row.get(4)?),
            point: present(row.get(5)?),
            entries: u64::try_from(entries).unwrap_or(0),
            first: row.get(7)?,
            last: row.get(8)?,
            example: Id {
                sequence: row.get(9)?,
                part: row.get(10)?,
            },
            reason: row.get(11)?,
        })
    })?;
    Ok(causes.collect::<Result<_, _>>()?)
}

fn clauses(filter: &Filter) -> (String, Vec<Value>) {
    let mut wheres = vec!["entries > 0"];
    let mut values = Vec::new();
    let texts = [
        ("channel = ?", &filter.channel),
        ("device = ?", &filter.device),
        ("point = ?", &filter.point),
    ];
    for (condition, text) in texts {
        if let Some(text) = text {
            wheres.push(condition);
            values.push(Value::Text(text.clone()));
        }
    }
    if let Some(code) = filter.code {
        wheres.push("code = ?");
        values.push(Value::Integer(code.into()));
    }
    if let Some(cause) = filter.cause {
        wheres.push("id = ?");
        values.push(Value::Integer(cause));
    }
    (format!("WHERE {}", wheres.join(" AND ")), values)
}
