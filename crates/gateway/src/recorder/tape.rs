//! The flight recorder's file: SQLite, bounded by age and size, the oldest leaves first.

use std::path::Path;

use backtide_model::{ChannelName, Compression};
use base64::{Engine, prelude::BASE64_STANDARD};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Account, Message, RecorderError, Window};
use crate::sqlite::{self, Sync};

/// Recordings that a step of pruning removes at most.
const PRUNE_STEP: u32 = 64;
/// Bytes of a payload that a listing shows.
const HEAD_BYTES: u32 = 1_024;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time_ms INTEGER NOT NULL,
        channel TEXT NOT NULL,
        client TEXT NOT NULL,
        topic TEXT NOT NULL,
        payload_bytes INTEGER NOT NULL,
        is_gzip INTEGER NOT NULL,
        code INTEGER NOT NULL,
        account TEXT NOT NULL,
        payload BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS message_channel ON message (channel, id);
    CREATE TABLE IF NOT EXISTS recorded (
        channel TEXT PRIMARY KEY,
        until_ms INTEGER,
        sample REAL NOT NULL
    ) WITHOUT ROWID;
";

/// How much the recorder keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Counted back from the newest recording.
    pub age_ms_max: i64,
    /// Bytes in use in the file.
    pub bytes_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            age_ms_max: 7 * 24 * 3600 * 1000,
            bytes_max: 256 << 20,
        }
    }
}

/// Which recordings are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only recordings with a greater id.
    pub after: i64,
    /// Only this code.
    pub code: Option<u16>,
    pub limit: usize,
    /// The last `limit` instead of the first.
    pub tail: bool,
}

impl Page {
    pub fn first(limit: usize) -> Self {
        Self {
            after: 0,
            code: None,
            limit,
            tail: false,
        }
    }
}

/// A recorded message.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// Ascending, never used twice.
    pub id: i64,
    /// Arrival, milliseconds since 1970 UTC.
    pub time: i64,
    pub client: String,
    pub topic: String,
    /// The payload, or its beginning.
    pub payload: Vec<u8>,
    pub payload_bytes: u64,
    pub compression: Compression,
    pub code: u16,
    pub account: Account,
}

impl Recording {
    /// Whether all of the payload is here.
    pub fn is_whole(&self) -> bool {
        u64::try_from(self.payload.len()) == Ok(self.payload_bytes)
    }
}

impl Serialize for Recording {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("time", &self.time)?;
        map.serialize_entry("clientId", &self.client)?;
        map.serialize_entry("topic", &self.topic)?;
        map.serialize_entry("code", &self.code)?;
        map.serialize_entry("bytes", &self.payload_bytes)?;
        map.serialize_entry("whole", &self.is_whole())?;
        let gzip = self.compression == Compression::Gzip;
        map.serialize_entry("gzip", &gzip)?;
        map.serialize_entry("payloadHex", &hex::encode(&self.payload))?;
        map.serialize_entry("payloadBase64", &BASE64_STANDARD.encode(&self.payload))?;
        if let Some(text) = text_of(&self.payload) {
            map.serialize_entry("payload", text)?;
        }
        let Account {
            steps,
            reply,
            receipt,
            judge_ms,
            commit_ms,
            total_ms,
        } = &self.account;
        map.serialize_entry("steps", steps)?;
        map.serialize_entry("reply", reply)?;
        map.serialize_entry("receipt", receipt)?;
        map.serialize_entry("judgeMs", judge_ms)?;
        map.serialize_entry("commitMs", commit_ms)?;
        map.serialize_entry("totalMs", total_ms)?;
        map.end()
    }
}

/// As text where it is UTF-8; of a beginning that ends inside a character, what is before it.
fn text_of(bytes: &[u8]) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()
        }
        Err(_) => None,
    }
}

/// One connection to the file.
pub(super) struct Tape {
    connection: Connection,
    bounds: Bounds,
}

impl Tape {
    pub(super) fn open(path: &Path, bounds: Bounds) -> Result<Self, RecorderError> {
        // See the head of `recorder.rs`.
        let connection = sqlite::open(path, Sync::Normal)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection, bounds })
    }

    pub(super) fn windows(&self) -> Result<Vec<(ChannelName, Window)>, RecorderError> {
        let mut statement = self
            .connection
            .prepare("SELECT channel, until_ms, sample FROM recorded")?;
        let windows = statement.query_map([], |row| {
            let channel: String = row.get(0)?;
            let window = Window {
                until: row.get(1)?,
                sample: row.get(2)?,
            };
            Ok(ChannelName::new(&channel)
                .ok()
                .map(|channel| (channel, window)))
        })?;
        let windows: Vec<_> = windows.collect::<Result<_, _>>()?;
        Ok(windows.into_iter().flatten().collect())
    }

    pub(super) fn set_window(
        &self,
        channel: &ChannelName,
        window: Option<Window>,
    ) -> Result<(), RecorderError> {
        match window {
            Some(window) => self.connection.execute(
                "INSERT OR REPLACE INTO recorded VALUES (?1, ?2, ?3)",
                params![channel.as_str(), window.until, window.sample],
            )?,
            None => self.connection.execute(
                "DELETE FROM recorded WHERE channel = ?1",
                [channel.as_str()],
            )?,
        };
        Ok(())
    }

    /// Writes messages in one transaction, and removes what there is no room for.
    pub(super) fn write(&mut self, messages: &[Message]) -> Result<(), RecorderError> {
        let Some(newest_ms) = messages.iter().map(|message| message.time_ms).max() else {
            return Ok(());
        };
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO message
                    (time_ms, channel, client, topic, payload_bytes, is_gzip, code, account, payload)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?;
            for message in messages {
                let account = serde_json::to_string(&message.account)
                    .expect("an account is text and numbers");
                insert.execute(params![
                    message.time_ms,
                    message.channel.as_str(),
                    &*message.client,
                    &*message.topic,
                    i64::try_from(message.payload_bytes).unwrap_or(i64::MAX),
                    message.compression == Compression::Gzip,
                    message.code,
                    account,
                    &*message.payload,
                ])?;
            }
        }
        transaction.commit()?;
        self.prune(newest_ms)
    }

    fn prune(&self, newest_ms: i64) -> Result<(), RecorderError> {
        let oldest_ms = newest_ms.saturating_sub(self.bounds.age_ms_max);
        while self.remove_oldest(oldest_ms, PRUNE_STEP)? > 0 {}
        while sqlite::bytes_used(&self.connection)? > self.bounds.bytes_max
            && self.remove_oldest(i64::MAX, 1)? > 0
        {}
        Ok(())
    }

    fn remove_oldest(&self, before_ms: i64, step: u32) -> Result<usize, RecorderError> {
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM message WHERE id IN (SELECT id FROM message ORDER BY id LIMIT ?1)
             AND time_ms < ?2",
        )?;
        Ok(delete.execute(params![step, before_ms])?)
    }

    pub(super) fn list(
        &self,
        channel: &ChannelName,
        page: Page,
    ) -> Result<Vec<Recording>, RecorderError> {
        let order = if page.tail { "DESC" } else { "ASC" };
        let sql = format!(
            "SELECT id, time_ms, client, topic, payload_bytes, is_gzip, code, account,
                    substr(payload, 1, {HEAD_BYTES})
             FROM message WHERE channel = ?1 AND id > ?2 AND (?3 IS NULL OR code = ?3)
             ORDER BY id {order} LIMIT ?4"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![channel.as_str(), page.after, page.code, limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(recording(row)?);
        }
        if page.tail {
            found.reverse();
        }
        Ok(found)
    }

    pub(super) fn show(
        &self,
        channel: &ChannelName,
        id: i64,
    ) -> Result<Option<Recording>, RecorderError> {
        self.connection
            .prepare_cached(
                "SELECT id, time_ms, client, topic, payload_bytes, is_gzip, code, account, payload
                 FROM message WHERE channel = ?1 AND id = ?2",
            )?
            .query_row(params![channel.as_str(), id], |row| Ok(recording(row)))
            .optional()?
            .transpose()
    }
}

fn recording(row: &Row<'_>) -> Result<Recording, RecorderError> {
    let id = row.get(0)?;
    let account: String = row.get(7)?;
    let account = serde_json::from_str(&account).map_err(|error| RecorderError::Recording {
        id,
        reason: error.to_string(),
    })?;
    let payload_bytes: i64 = row.get(4)?;
    let compression = match row.get(5)? {
        true => Compression::Gzip,
        false => Compression::None,
    };
    Ok(Recording {
        id,
        time: row.get(1)?,
        client: row.get(2)?,
        topic: row.get(3)?,
        payload: row.get(8)?,
        payload_bytes: u64::try_from(payload_bytes).unwrap_or(0),
        compression,
        code: row.get(6)?,
        account,
    })
}
