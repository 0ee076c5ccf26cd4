//! The tables of the quarantine's file, and how older files become like new ones.

use rusqlite::{Connection, TransactionBehavior};

/// What this version writes, as `PRAGMA user_version`.
const VERSION: i64 = 1;

/// Version 0, and what every file begins with.
const ORIGINAL: &str = "
    CREATE TABLE IF NOT EXISTS place (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        sequence INTEGER NOT NULL
    );
    INSERT OR IGNORE INTO place VALUES (1, 0);
    CREATE TABLE IF NOT EXISTS entry (
        sequence INTEGER NOT NULL,
        part INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        channel TEXT NOT NULL,
        client TEXT NOT NULL,
        topic TEXT NOT NULL,
        product TEXT NOT NULL,
        code INTEGER NOT NULL,
        payload_bytes INTEGER NOT NULL,
        payload_sha256 BLOB NOT NULL,
        is_truncated INTEGER NOT NULL,
        items TEXT NOT NULL,
        more INTEGER NOT NULL,
        device TEXT,
        point TEXT,
        reason TEXT NOT NULL,
        PRIMARY KEY (sequence, part)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS entry_channel ON entry (channel, sequence, part);
    CREATE TABLE IF NOT EXISTS payload (
        sequence INTEGER NOT NULL,
        part INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        PRIMARY KEY (sequence, part)
    );
";

/// Version 1: causes are counted as entries come and go, attempts are kept, and so is how many
/// entries left in which way. Device and point of a cause are empty where they are absent: a
/// unique index takes two nulls for different.
const CAUSES: &str = "
    CREATE TABLE cause (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        channel TEXT NOT NULL,
        product TEXT NOT NULL,
        code INTEGER NOT NULL,
        device TEXT NOT NULL,
        point TEXT NOT NULL,
        entries INTEGER NOT NULL,
        UNIQUE (channel, product, code, device, point)
    );
    CREATE INDEX cause_entries ON cause (entries DESC, id);
    INSERT INTO cause (channel, product, code, device, point, entries)
        SELECT channel, product, code, IFNULL(device, ''), IFNULL(point, ''), COUNT(*)
        FROM entry GROUP BY 1, 2, 3, 4, 5;
    ALTER TABLE entry ADD COLUMN cause INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE entry ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE entry ADD COLUMN tried_ms INTEGER;
    UPDATE entry SET cause = (
        SELECT id FROM cause
        WHERE cause.channel = entry.channel AND cause.product = entry.product
            AND cause.code = entry.code AND cause.device = IFNULL(entry.device, '')
            AND cause.point = IFNULL(entry.point, ''));
    CREATE INDEX entry_cause ON entry (cause, sequence, part);
    CREATE TABLE departed (
        way TEXT PRIMARY KEY,
        entries INTEGER NOT NULL
    ) WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// Makes the tables, whatever was there before.
pub(super) fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(ORIGINAL)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version < VERSION {
        transaction.execute_batch(CAUSES)?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_first_version_keeps_its_entries_and_learns_their_causes() {
        let mut file = Connection::open_in_memory().unwrap();
        file.execute_batch(ORIGINAL).unwrap();
        for sequence in 1..=3 {
            file.execute(
                "INSERT INTO entry VALUES (?1, 0, 5, 'c', 'client', 't', 'P', 1257, 2, x'00', 0,
                 '[]', 0, ?2, NULL, 'device not found')",
                rusqlite::params![sequence, if sequence == 2 { "b" } else { "a" }],
            )
            .unwrap();
        }
        prepare(&mut file).unwrap();
        prepare(&mut file).unwrap();
        let causes: Vec<(String, i64)> = file
            .prepare(
                "SELECT cause.device, cause.entries FROM entry JOIN cause ON cause.id = entry.cause
                 ORDER BY sequence",
            )
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let wanted = [("a", 2), ("b", 1), ("a", 2)].map(|(device, n)| (device.to_owned(), n));
        assert_eq!(causes, wanted);
    }
}
