//! Lists what was overwritten by something different.

use backtide_model::{Cell, DeviceKey, ElementName, ProductKey};
use rusqlite::{Connection, Row, ToSql};

use super::manifest::{point, product, sides, signed, unreadable, unsigned};
use crate::{ReadError, Sequence};

/// Which conflicts to list. `None` and empty: no condition.
#[derive(Debug, Clone, Default)]
pub struct ConflictFilter {
    pub product: Option<ProductKey>,
    pub device: Option<DeviceKey>,
    pub point: Option<ElementName>,
    /// Event time, milliseconds since 1970 UTC, inclusive.
    pub from_ms: Option<i64>,
    /// Exclusive.
    pub to_ms: Option<i64>,
    /// Only those of which the later commit is after this one.
    pub after_sequence: Option<Sequence>,
    /// Only those of which the later commit is one of these.
    pub later: Option<Vec<Sequence>>,
    /// Resume after [`ConflictPage::next`].
    pub after: Option<i64>,
    pub limit: usize,
}

/// One side of a conflict.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    pub sequence: Sequence,
    pub cell: Cell,
    /// 0–9, or [`backtide_model::NO_QUALITY`].
    pub quality: u8,
}

/// Two different values at one identity, and which of them stayed.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    pub product: ProductKey,
    pub device: DeviceKey,
    /// Event time, milliseconds since 1970 UTC.
    pub time_ms: i64,
    pub point: ElementName,
    pub loser: Side,
    pub winner: Side,
}

/// A page of conflicts in the order in which they were found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConflictPage {
    pub conflicts: Vec<Conflict>,
    /// How many there are in all, before `after` and `limit`.
    pub total: u64,
    /// Where the next page begins; `None` at the end.
    pub next: Option<i64>,
}

/// The conflicts of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictRow {
    pub product: ProductKey,
    pub device: DeviceKey,
    pub time_ms: i64,
    /// How many conflicts the row has.
    pub conflicts: u64,
    /// How many of its points have any.
    pub points: u64,
}

/// A page of rows with conflicts, by product, device and time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConflictRows {
    pub rows: Vec<ConflictRow>,
    /// How many rows there are in all.
    pub total: u64,
    /// The number of rows to pass as `after` for the next page; `None` at the end.
    pub next: Option<i64>,
}

const FROM: &str = "FROM conflict c JOIN product p ON p.id = c.product
   JOIN point o ON o.id = c.point
   WHERE c.pass <= (SELECT value FROM about WHERE key = 'passes')";

pub(super) fn page(db: &Connection, filter: &ConflictFilter) -> Result<ConflictPage, ReadError> {
    let (conditions, mut values) = conditions(filter);
    let from = format!("{FROM}{conditions}");
    let total = if values.is_empty() {
        // Counted as they were found: a large table is not walked for each page.
        count(
            db,
            "SELECT value FROM about WHERE key = 'conflicts'",
            &values,
        )?
    } else {
        count(db, &format!("SELECT count(*) {from}"), &values)?
    };
    values.push(Box::new(filter.after.unwrap_or(0)));
    values.push(Box::new(limit(filter)));
    let mut select = db.prepare(&format!(
        "SELECT c.id, p.key, c.device, c.time, o.name, c.loser_sequence, c.winner_sequence, c.cells
         {from} AND c.id > ? ORDER BY c.id LIMIT ?"
    ))?;
    let rows = select.query_map(parameters(&values).as_slice(), read)?;
    let found = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let next = (found.len() == filter.limit)
        .then(|| found.last().map(|(id, _)| *id))
        .flatten();
    let conflicts = found.into_iter().map(|(_, conflict)| conflict).collect();
    Ok(ConflictPage {
        conflicts,
        total,
        next,
    })
}

pub(super) fn rows(db: &Connection, filter: &ConflictFilter) -> Result<ConflictRows, ReadError> {
    let (conditions, mut values) = conditions(filter);
    let grouped = format!("{FROM}{conditions} GROUP BY c.product, c.device, c.time");
    let total = count(
        db,
        &format!("SELECT count(*) FROM (SELECT 1 {grouped})"),
        &values,
    )?;
    let skipped = filter.after.unwrap_or(0);
    values.push(Box::new(limit(filter)));
    values.push(Box::new(skipped));
    let mut select = db.prepare(&format!(
        "SELECT p.key, c.device, c.time, count(*), count(DISTINCT c.point) {grouped}
         ORDER BY p.key, c.device, c.time LIMIT ? OFFSET ?"
    ))?;
    let rows = select.query_map(parameters(&values).as_slice(), |row| {
        Ok(ConflictRow {
            product: product(&row.get::<_, String>(0)?)?,
            device: device(&row.get::<_, String>(1)?)?,
            time_ms: row.get(2)?,
            conflicts: unsigned(row.get(3)?),
            points: unsigned(row.get(4)?),
        })
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let end = skipped.saturating_add_unsigned(rows.len() as u64);
    Ok(ConflictRows {
        next: (unsigned(end) < total).then_some(end),
        rows,
        total,
    })
}

type Values = Vec<Box<dyn ToSql>>;

fn conditions(filter: &ConflictFilter) -> (String, Values) {
    let mut sql = String::new();
    let mut values: Values = Vec::new();
    let mut add = |condition: &str, value: Box<dyn ToSql>| {
        sql.push_str(" AND ");
        sql.push_str(condition);
        values.push(value);
    };
    if let Some(product) = &filter.product {
        add("p.key = ?", Box::new(product.to_string()));
    }
    if let Some(device) = &filter.device {
        add("c.device = ?", Box::new(device.to_string()));
    }
    if let Some(point) = &filter.point {
        add("o.name = ?", Box::new(point.to_string()));
    }
    if let Some(from_ms) = filter.from_ms {
        add("c.time >= ?", Box::new(from_ms));
    }
    if let Some(to_ms) = filter.to_ms {
        add("c.time < ?", Box::new(to_ms));
    }
    if let Some(sequence) = filter.after_sequence {
        add(
            "max(c.loser_sequence, c.winner_sequence) > ?",
            Box::new(signed(sequence.0)),
        );
    }
    if let Some(sequences) = &filter.later {
        // As one parameter: there may be more than a statement takes.
        let numbers: Vec<String> = sequences.iter().map(|s| s.0.to_string()).collect();
        add(
            "max(c.loser_sequence, c.winner_sequence) IN (SELECT value FROM json_each(?))",
            Box::new(format!("[{}]", numbers.join(","))),
        );
    }
    (sql, values)
}

/// Commits of which some values were other than what stood there, in order, and how many.
pub(super) fn differences(
    db: &Connection,
    after: Sequence,
    through: Sequence,
    limit: usize,
) -> rusqlite::Result<Vec<(Sequence, u64)>> {
    let mut select = db.prepare_cached(
        "SELECT max(loser_sequence, winner_sequence) AS later, count(*) FROM conflict
         WHERE max(loser_sequence, winner_sequence) > ?1
           AND max(loser_sequence, winner_sequence) <= ?2
           AND pass <= (SELECT value FROM about WHERE key = 'passes')
         GROUP BY max(loser_sequence, winner_sequence) ORDER BY later LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let bounds = (signed(after.0), signed(through.0), limit);
    let rows = select.query_map(bounds, |row| {
        Ok((Sequence(unsigned(row.get(0)?)), unsigned(row.get(1)?)))
    })?;
    rows.collect()
}

fn limit(filter: &ConflictFilter) -> i64 {
    i64::try_from(filter.limit).unwrap_or(i64::MAX)
}

fn parameters(values: &Values) -> Vec<&dyn ToSql> {
    values.iter().map(AsRef::as_ref).collect()
}

fn count(db: &Connection, sql: &str, values: &Values) -> rusqlite::Result<u64> {
    db.query_row(sql, parameters(values).as_slice(), |row| row.get(0))
        .map(unsigned)
}

fn read(row: &Row<'_>) -> rusqlite::Result<(i64, Conflict)> {
    let cells: Vec<u8> = row.get(7)?;
    let [loser, winner] = sides(&cells).map_err(|error| unreadable(Box::new(error)))?;
    let side = |sequence: i64, (quality, cell): (u8, Cell)| Side {
        sequence: Sequence(unsigned(sequence)),
        cell,
        quality,
    };
    let conflict = Conflict {
        product: product(&row.get::<_, String>(1)?)?,
        device: device(&row.get::<_, String>(2)?)?,
        time_ms: row.get(3)?,
        point: point(&row.get::<_, String>(4)?)?,
        loser: side(row.get(5)?, loser),
        winner: side(row.get(6)?, winner),
    };
    Ok((row.get(0)?, conflict))
}

fn device(key: &str) -> rusqlite::Result<DeviceKey> {
    DeviceKey::new(key).map_err(|error| unreadable(Box::new(error)))
}
