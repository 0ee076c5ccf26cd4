//! Records in SQLite: `registry.db` in the data directory.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::records::{Change, Collection, Record, RecordKey, Records, RecordsError};
use crate::sqlite::{self, Sync};

/// `PRAGMA user_version` of the databases that this code reads.
const FORMAT: i64 = 1;

/// `registry.db`.
pub struct Sqlite {
    connection: Connection,
    database: String,
}

impl Sqlite {
    /// Opens the database, or makes it.
    ///
    /// # Errors
    /// [`RecordsError`]: not a database, of another format, or not writable.
    pub fn open(path: &Path) -> Result<Self, RecordsError> {
        let database = path.display().to_string();
        let open = || {
            // A declaration is durable when it is answered.
            let connection = sqlite::open(path, Sync::Full)?;
            let found: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
            if found == 0 {
                connection.execute_batch(&format!(
                    "BEGIN;
                     CREATE TABLE record (
                         collection TEXT NOT NULL,
                         owner      TEXT NOT NULL,
                         name       TEXT NOT NULL,
                         body       TEXT NOT NULL,
                         PRIMARY KEY (collection, owner, name)
                     ) WITHOUT ROWID;
                     PRAGMA user_version = {FORMAT};
                     COMMIT;"
                ))?;
            }
            Ok((connection, found))
        };
        let (connection, found) = open().map_err(|error| failed(&database, &error))?;
        if found != 0 && found != FORMAT {
            return Err(RecordsError::Format {
                database,
                found,
                expected: FORMAT,
            });
        }
        Ok(Self {
            connection,
            database,
        })
    }

    fn change(&mut self, changes: &[Change]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut put = transaction.prepare(
                "INSERT INTO record (collection, owner, name, body) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (collection, owner, name) DO UPDATE SET body = excluded.body",
            )?;
            let mut remove = transaction
                .prepare("DELETE FROM record WHERE collection = ?1 AND owner = ?2 AND name = ?3")?;
            for change in changes {
                match change {
                    Change::Put(Record { key, body }) => {
                        put.execute(params![key.collection.word(), key.owner, key.name, body])?;
                    }
                    Change::Remove(key) => {
                        remove.execute(params![key.collection.word(), key.owner, key.name])?;
                    }
                }
            }
        }
        transaction.commit()
    }

    fn all(&self) -> rusqlite::Result<Vec<Record>> {
        let mut records = Vec::new();
        for collection in Collection::ALL {
            let mut select = self
                .connection
                .prepare("SELECT owner, name, body FROM record WHERE collection = ?1")?;
            let rows = select.query_map([collection.word()], |row| {
                let key = RecordKey {
                    collection,
                    owner: row.get(0)?,
                    name: row.get(1)?,
                };
                Ok(Record {
                    key,
                    body: row.get(2)?,
                })
            })?;
            for row in rows {
                records.push(row?);
            }
        }
        Ok(records)
    }
}

impl Records for Sqlite {
    fn load(&mut self) -> Result<Vec<Record>, RecordsError> {
        self.all().map_err(|error| failed(&self.database, &error))
    }

    fn body(&mut self, key: &RecordKey) -> Result<Option<String>, RecordsError> {
        let read = || {
            let mut select = self.connection.prepare_cached(
                "SELECT body FROM record WHERE collection = ?1 AND owner = ?2 AND name = ?3",
            )?;
            select
                .query_row(params![key.collection.word(), key.owner, key.name], |row| {
                    row.get(0)
                })
                .optional()
        };
        read().map_err(|error| failed(&self.database, &error))
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), RecordsError> {
        self.change(changes)
            .map_err(|error| failed(&self.database, &error))
    }
}

fn failed(database: &str, error: &rusqlite::Error) -> RecordsError {
    RecordsError::Failed {
        database: database.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, body: &str) -> Record {
        let key = RecordKey {
            collection: Collection::Device,
            owner: "farm".into(),
            name: name.into(),
        };
        Record {
            key,
            body: body.into(),
        }
    }

    #[test]
    fn records_are_there_after_a_restart_and_the_last_body_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry.db");
        let (a, b) = (record("a", "1"), record("b", "1"));
        let mut records = Sqlite::open(&path).unwrap();
        records
            .commit(&[
                Change::Put(a.clone()),
                Change::Put(b),
                Change::Put(record("b", "2")),
            ])
            .unwrap();
        records.commit(&[Change::Remove(a.key)]).unwrap();
        drop(records);
        assert_eq!(
            Sqlite::open(&path).unwrap().load().unwrap(),
            [record("b", "2")]
        );
    }

    #[test]
    fn a_database_of_a_later_format_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry.db");
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 9)
            .unwrap();
        let error = Sqlite::open(&path).err().unwrap();
        assert!(
            error
                .to_string()
                .contains("has format 9, this gateway reads 1"),
            "{error}"
        );
    }
}
