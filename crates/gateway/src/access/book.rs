//! `access.db`: users, sessions, tokens as JSON records; the audit trail as rows.

use std::path::Path;

use rusqlite::{Connection, params, types::Value};
use serde::{Serialize, de::DeserializeOwned};

use super::{AccessError, ApiToken, Deed, Session, Trail, TrailFilter, User, roster::Roster};
use crate::sqlite::{self, Sync};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS record (
        kind TEXT NOT NULL,
        key  TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (kind, key)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS deed (
        id      INTEGER PRIMARY KEY AUTOINCREMENT,
        time    INTEGER NOT NULL,
        author  TEXT NOT NULL,
        via     TEXT NOT NULL,
        address TEXT,
        action  TEXT NOT NULL,
        object  TEXT NOT NULL,
        before  TEXT,
        after   TEXT
    );
";
/// Deeds that are kept; beyond, the oldest go.
const DEEDS_MAX: i64 = 1_000_000;
/// How many deeds are noted between two looks at how many there are.
const PRUNE_EVERY: usize = 1_024;

const USER: &str = "user";
const SESSION: &str = "session";
const TOKEN: &str = "token";

pub(super) struct Book {
    connection: Connection,
    since_pruned: usize,
}

impl Book {
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        // Who may do what is durable when it is answered.
        let connection = sqlite::open(path, Sync::Full)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self {
            connection,
            since_pruned: PRUNE_EVERY,
        })
    }

    pub(super) fn roster(&self) -> Result<Roster, AccessError> {
        let users = self.records::<User>(USER)?;
        Ok(Roster {
            users: users
                .into_iter()
                .map(|(_, user)| (user.name.clone(), user))
                .collect(),
            sessions: self.records::<Session>(SESSION)?.into_iter().collect(),
            tokens: self.records::<ApiToken>(TOKEN)?.into_iter().collect(),
        })
    }

    fn records<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<(String, T)>, AccessError> {
        let sql = "SELECT key, body FROM record WHERE kind = ?1";
        let mut select = self.connection.prepare(sql)?;
        let mut rows = select.query([kind])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let (key, body): (String, String) = (row.get(0)?, row.get(1)?);
            let record = serde_json::from_str(&body).map_err(|error| AccessError::Damaged {
                object: format!("a {kind}"),
                reason: error.to_string(),
            })?;
            records.push((key, record));
        }
        Ok(records)
    }

    pub(super) fn put_user(&mut self, user: &User) -> rusqlite::Result<()> {
        self.put(USER, &user.name, user)
    }

    pub(super) fn put_session(&mut self, key: &str, session: &Session) -> rusqlite::Result<()> {
        self.put(SESSION, key, session)
    }

    pub(super) fn put_token(&mut self, key: &str, token: &ApiToken) -> rusqlite::Result<()> {
        self.put(TOKEN, key, token)
    }

    pub(super) fn remove_user(&mut self, name: &str) -> rusqlite::Result<()> {
        self.remove(USER, name)
    }

    pub(super) fn remove_token(&mut self, key: &str) -> rusqlite::Result<()> {
        self.remove(TOKEN, key)
    }

    pub(super) fn remove_sessions(&mut self, keys: &[String]) -> rusqlite::Result<()> {
        keys.iter().try_for_each(|key| self.remove(SESSION, key))
    }

    fn put(&self, kind: &str, key: &str, record: &impl Serialize) -> rusqlite::Result<()> {
        let body = serde_json::to_string(record).expect("texts and numbers are JSON");
        let sql = "INSERT INTO record (kind, key, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body";
        self.connection.execute(sql, params![kind, key, body])?;
        Ok(())
    }

    fn remove(&self, kind: &str, key: &str) -> rusqlite::Result<()> {
        let sql = "DELETE FROM record WHERE kind = ?1 AND key = ?2";
        self.connection.execute(sql, [kind, key])?;
        Ok(())
    }

    /// Writes deeds in one transaction.
    pub(super) fn note(&mut self, deeds: &[Deed]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO deed (time, author, via, address, action, object, before, after)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            for deed in deeds {
                insert.execute(params![
                    deed.time,
                    deed.author,
                    deed.via,
                    deed.address,
                    deed.action,
                    deed.object,
                    deed.before,
                    deed.after,
                ])?;
            }
        }
        transaction.commit()?;
        self.since_pruned += deeds.len();
        if self.since_pruned >= PRUNE_EVERY {
            self.since_pruned = 0;
            let sql = "DELETE FROM deed WHERE id <= (SELECT MAX(id) FROM deed) - ?1";
            self.connection.execute(sql, [DEEDS_MAX])?;
        }
        Ok(())
    }

    /// The last deeds first.
    pub(super) fn trail(&self, filter: &TrailFilter) -> rusqlite::Result<Trail> {
        let (sql, values) = select(filter);
        let mut select = self.connection.prepare_cached(&sql)?;
        let deeds = select.query_map(rusqlite::params_from_iter(values), |row| {
            Ok(Deed {
                id: row.get(0)?,
                time: row.get(1)?,
                author: row.get(2)?,
                via: row.get(3)?,
                address: row.get(4)?,
                action: row.get(5)?,
                object: row.get(6)?,
                before: row.get(7)?,
                after: row.get(8)?,
            })
        })?;
        let deeds: Vec<Deed> = deeds.collect::<Result<_, _>>()?;
        let next = deeds
            .last()
            .filter(|_| deeds.len() == filter.limit)
            .map(|deed| deed.id);
        Ok(Trail { deeds, next })
    }
}

fn select(filter: &TrailFilter) -> (String, Vec<Value>) {
    let mut wheres = vec!["id < ?"];
    let mut values = vec![Value::Integer(filter.before.unwrap_or(i64::MAX))];
    let mut demand = |clause, value| {
        wheres.push(clause);
        values.push(value);
    };
    if let Some(author) = &filter.author {
        demand("author = ?", Value::Text(author.clone()));
    }
    if let Some(action) = &filter.action {
        demand("action = ?", Value::Text(action.clone()));
    }
    if let Some(text) = &filter.text {
        let clause = "instr(lower(author || ' ' || action || ' ' || object), lower(?)) > 0";
        demand(clause, Value::Text(text.clone()));
    }
    if let Some(from_ms) = filter.from_ms {
        demand("time >= ?", Value::Integer(from_ms));
    }
    if let Some(to_ms) = filter.to_ms {
        demand("time < ?", Value::Integer(to_ms));
    }
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let sql = format!(
        "SELECT id, time, author, via, address, action, object, before, after FROM deed
         WHERE {} ORDER BY id DESC LIMIT {limit}",
        wheres.join(" AND ")
    );
    (sql, values)
}
