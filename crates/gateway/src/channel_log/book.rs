//! The channel log's file: SQLite, bounded by age and size, the oldest leaves first.

use std::{io, path::Path, sync::Arc};

use backtide_model::ChannelName;
use rusqlite::{Connection, OptionalExtension, params, types::Value};

use super::{Batch, Entry, Kind, Record, What};
use crate::sqlite::{self, Sync};

/// How many entries a step of pruning removes at most, so that no step is long.
const PRUNE_STEP: u32 = 4_096;
/// The file is measured after this many entries.
const MEASURE_EVERY: usize = 8_192;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS entry (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time_ms INTEGER NOT NULL,
        channel TEXT NOT NULL,
        client TEXT NOT NULL,
        kind TEXT NOT NULL,
        code INTEGER,
        what TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS entry_channel ON entry (channel, id);
";

/// How much the log keeps.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Counted back from the newest entry.
    pub age_ms_max: i64,
    /// Bytes in use in the file.
    pub bytes_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            age_ms_max: 14 * 24 * 3600 * 1000,
            bytes_max: 1 << 30,
        }
    }
}

/// What a reader asks for; an empty field asks for everything.
#[derive(Debug, Clone)]
pub struct Filter {
    pub channel: Option<ChannelName>,
    pub kinds: Vec<Kind>,
    pub code: Option<u16>,
    /// Occurs in the client id or in the entry's text, in any case.
    pub text: Option<String>,
    /// Wall time, inclusive.
    pub from_ms: Option<i64>,
    /// Exclusive.
    pub to_ms: Option<i64>,
    /// Only entries with a greater id.
    pub after: i64,
    pub limit: usize,
    /// Of all that fit, the last `limit` instead of the first.
    pub tail: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            channel: None,
            kinds: Vec::new(),
            code: None,
            text: None,
            from_ms: None,
            to_ms: None,
            after: 0,
            limit: 1_000,
            tail: false,
        }
    }
}

/// Why the log cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("channel log: {0}")]
    File(#[from] rusqlite::Error),
    #[error("channel log: entry {id} cannot be read: {reason}")]
    Entry { id: i64, reason: String },
    #[error("the channel log's writer cannot start: {0}")]
    Thread(io::Error),
}

/// One connection to the file.
pub(super) struct Book {
    connection: Connection,
    bounds: Bounds,
    since_measured: usize,
}

impl Book {
    pub(super) fn open(path: &Path, bounds: Bounds) -> Result<Self, LogError> {
        // See the head of `channel_log.rs`.
        let connection = sqlite::open_with_large_pages(path, Sync::Normal)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self {
            connection,
            bounds,
            since_measured: MEASURE_EVERY,
        })
    }

    /// The greatest id ever given; 0 in a new log.
    pub(super) fn newest(&self) -> Result<i64, LogError> {
        let newest =
            self.connection
                .query_row("SELECT COALESCE(MAX(id), 0) FROM entry", [], |r| r.get(0))?;
        Ok(newest)
    }

    /// Writes a batch in one transaction and returns its last id.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<i64, LogError> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO entry (time_ms, channel, client, kind, code, what)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            let last_ms = batch.entries.last().map_or(0, |entry| entry.time_ms);
            let dropped: Vec<_> = batch
                .dropped
                .iter()
                .map(|(channel, entries)| Entry {
                    time_ms: last_ms,
                    channel: channel.clone(),
                    client: "".into(),
                    what: What::Dropped {
                        entries: *entries,
                        message: format!(
                            "{entries} entries were dropped: the log could not keep up"
                        )
                        .into(),
                    },
                })
                .collect();
            for entry in batch.entries.iter().chain(&dropped) {
                let what = serde_json::to_string(&entry.what)
                    .expect("an entry has text keys and plain values");
                insert.execute(params![
                    entry.time_ms,
                    entry.channel.as_str(),
                    &*entry.client,
                    entry.what.kind().name(),
                    entry.what.code(),
                    what,
                ])?;
            }
        }
        let newest = transaction.last_insert_rowid();
        transaction.commit()?;
        self.since_measured += batch.entries.len();
        Ok(newest)
    }

    pub(super) fn list(&self, filter: &Filter) -> Result<Vec<Record>, LogError> {
        let (sql, values) = select(filter);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let unreadable = |reason: String| LogError::Entry { id, reason };
            let channel: String = row.get(2)?;
            let client: String = row.get(3)?;
            let what: String = row.get(4)?;
            records.push(Record {
                id,
                entry: Entry {
                    time_ms: row.get(1)?,
                    channel: ChannelName::new(&channel).map_err(|e| unreadable(e.to_string()))?,
                    client: Arc::from(client),
                    what: serde_json::from_str(&what).map_err(|e| unreadable(e.to_string()))?,
                },
            });
        }
        if filter.tail {
            records.reverse();
        }
        Ok(records)
    }

    /// Removes what is too old, and the oldest while the file is too large. A step at a time.
    pub(super) fn prune(&mut self) -> Result<(), LogError> {
        if self.since_measured < MEASURE_EVERY {
            return Ok(());
        }
        self.since_measured = 0;
        while self.remove_oldest(true)? > 0 {}
        while sqlite::bytes_used(&self.connection)? > self.bounds.bytes_max
            && self.remove_oldest(false)? > 0
        {}
        Ok(())
    }

    fn remove_oldest(&self, only_aged: bool) -> Result<usize, LogError> {
        let before_ms = if only_aged {
            self.newest_ms()? - self.bounds.age_ms_max
        } else {
            i64::MAX
        };
        let removed = self.connection.execute(
            "DELETE FROM entry WHERE time_ms < ?1
             AND id IN (SELECT id FROM entry ORDER BY id LIMIT ?2)",
            params![before_ms, PRUNE_STEP],
        )?;
        Ok(removed)
    }

    fn newest_ms(&self) -> Result<i64, LogError> {
        let sql = "SELECT time_ms FROM entry ORDER BY id DESC LIMIT 1";
        let newest = self
            .connection
            .query_row(sql, [], |row| row.get(0))
            .optional()?;
        Ok(newest.unwrap_or(0))
    }
}

fn select(filter: &Filter) -> (String, Vec<Value>) {
    let mut wheres = vec!["id > ?".to_owned()];
    let mut values = vec![Value::Integer(filter.after)];
    let mut demand = |clause: &str, value: Value| {
        wheres.push(clause.to_owned());
        values.push(value);
    };
    if let Some(channel) = &filter.channel {
        demand("channel = ?", Value::Text(channel.as_str().to_owned()));
    }
    if let Some(code) = filter.code {
        demand("code = ?", Value::Integer(code.into()));
    }
    if let Some(from_ms) = filter.from_ms {
        demand("time_ms >= ?", Value::Integer(from_ms));
    }
    if let Some(to_ms) = filter.to_ms {
        demand("time_ms < ?", Value::Integer(to_ms));
    }
    if let Some(text) = &filter.text {
        demand(
            "instr(lower(client || ' ' || what), lower(?)) > 0",
            Value::Text(text.clone()),
        );
    }
    if !filter.kinds.is_empty() {
        let kinds: Vec<_> = filter
            .kinds
            .iter()
            .map(|kind| format!("'{}'", kind.name()))
            .collect();
        wheres.push(format!("kind IN ({})", kinds.join(", ")));
    }
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let direction = if filter.tail { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT id, time_ms, channel, client, what FROM entry WHERE {} ORDER BY id {direction} \
         LIMIT {limit}",
        wheres.join(" AND ")
    );
    (sql, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(time_ms: i64, code: u16, message: &str) -> Entry {
        Entry {
            time_ms,
            channel: ChannelName::new("a").unwrap(),
            client: "Client-7".into(),
            what: What::Error {
                topic: None,
                code: Some(code),
                message: message.into(),
                device_key: Some("R1".into()),
                point: None,
            },
        }
    }

    fn book(bounds: Bounds) -> (tempfile::TempDir, Book) {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(&dir.path().join("log.db"), bounds).unwrap();
        (dir, book)
    }

    fn write(book: &mut Book, entries: Vec<Entry>) {
        book.write(&Batch {
            entries,
            ..Batch::default()
        })
        .unwrap();
    }

    #[test]
    fn filters_narrow_by_kind_code_text_and_time() {
        let (_dir, mut book) = book(Bounds::default());
        write(
            &mut book,
            vec![
                error(10, 1257, "device R1 not found"),
                error(20, 1204, "point P of R1: not a number"),
                Entry {
                    what: What::Disconnect {
                        reason: "link lost".into(),
                    },
                    ..error(30, 0, "")
                },
            ],
        );
        let times = |filter: Filter| -> Vec<i64> {
            book.list(&filter)
                .unwrap()
                .into_iter()
                .map(|r| r.entry.time_ms)
                .collect()
        };
        let all = Filter::default;
        assert_eq!(
            times(Filter {
                kinds: Kind::parse("connection").unwrap(),
                ..all()
            }),
            [30]
        );
        assert_eq!(
            times(Filter {
                code: Some(1204),
                ..all()
            }),
            [20]
        );
        assert_eq!(
            times(Filter {
                text: Some("NOT FOUND".into()),
                ..all()
            }),
            [10]
        );
        assert_eq!(
            times(Filter {
                text: Some("client-7".into()),
                ..all()
            }),
            [10, 20, 30]
        );
        assert_eq!(
            times(Filter {
                from_ms: Some(20),
                to_ms: Some(30),
                ..all()
            }),
            [20]
        );
        assert_eq!(
            times(Filter {
                after: 1,
                limit: 1,
                ..all()
            }),
            [20]
        );
        assert_eq!(
            times(Filter {
                limit: 2,
                tail: true,
                ..all()
            }),
            [20, 30]
        );
    }

    #[test]
    fn entries_older_than_the_bound_leave() {
        let (_dir, mut book) = book(Bounds {
            age_ms_max: 100,
            ..Bounds::default()
        });
        write(
            &mut book,
            vec![error(1, 1204, "old"), error(950, 1204, "fresh")],
        );
        write(&mut book, vec![error(1_000, 1204, "newest")]);
        book.prune().unwrap();
        assert_eq!(book.list(&Filter::default()).unwrap().len(), 2);
    }

    #[test]
    fn the_oldest_leave_when_the_file_is_too_large() {
        let bounds = Bounds {
            bytes_max: 256 << 10,
            ..Bounds::default()
        };
        let (_dir, mut book) = book(bounds);
        let text = "x".repeat(64);
        for round in 0..4 {
            let entries = (0..4_096).map(|_| error(round, 1204, &text)).collect();
            write(&mut book, entries);
        }
        book.since_measured = MEASURE_EVERY;
        book.prune().unwrap();
        assert!(sqlite::bytes_used(&book.connection).unwrap() <= bounds.bytes_max);
        write(&mut book, vec![error(9, 1204, "still taken")]);
        assert_eq!(
            book.list(&Filter {
                tail: true,
                limit: 1,
                ..Filter::default()
            })
            .unwrap()[0]
                .entry
                .time_ms,
            9
        );
    }

    #[test]
    fn dropped_entries_are_told_in_the_log_of_their_channel() {
        let (_dir, mut book) = book(Bounds::default());
        let dropped = [(ChannelName::new("b").unwrap(), 7)].into();
        book.write(&Batch {
            entries: vec![error(5, 1204, "x")],
            dropped,
        })
        .unwrap();
        let of_b = Filter {
            channel: Some(ChannelName::new("b").unwrap()),
            ..Filter::default()
        };
        let records = book.list(&of_b).unwrap();
        assert!(matches!(
            records[0].entry.what,
            What::Dropped { entries: 7, .. }
        ));
    }
}
