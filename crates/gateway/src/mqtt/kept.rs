//! Sessions over a restart: `sessions.db`, an SQLite file written by a thread of its own.
//!
//! Subscriptions are written before they are acknowledged; the rest of a changed session lazily,
//! within `session_save_ms` and at a clean end. A crash loses what changed since: replies that wait.
//! Power loss may lose the last second. QoS 2 packet ids are written at a clean end only, and the file
//! forgets them when it is read: a set that is not exact would take a new message for one that came
//! before, and lose it (docs/adr/0006). The file may be
//! deleted while the server is down; then clients find no session present and subscribe again.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU16,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread::JoinHandle,
    time::Duration,
};

use backtide_model::ChannelName;
use rusqlite::{Connection, Transaction, params};
use tokio::sync::oneshot;

use super::{
    Qos,
    session::{Sent, Session, Subscription, Waiting, own_reply},
};
use crate::sqlite::{self, Sync};

/// Connections that wait for a write at one time.
const WAITERS_MAX: usize = 1_024;

/// The layout below. Another layout is refused rather than guessed at.
const LAYOUT: i32 = 1;

const SCHEMA: &str = "
CREATE TABLE session (
    channel TEXT NOT NULL, client_id TEXT NOT NULL,
    expiry_s INTEGER NOT NULL,      -- outlives its connection by so long
    away_since_ms INTEGER,          -- wall time; NULL while connected
    has_published INTEGER NOT NULL,
    received BLOB NOT NULL,         -- QoS 2 packet ids after a clean end, two bytes each, big-endian
    PRIMARY KEY (channel, client_id)
) WITHOUT ROWID;
CREATE TABLE subscription (
    channel TEXT NOT NULL, client_id TEXT NOT NULL, filter TEXT NOT NULL,
    qos INTEGER NOT NULL, tag INTEGER,
    PRIMARY KEY (channel, client_id, filter)
) WITHOUT ROWID;
CREATE TABLE reply (
    channel TEXT NOT NULL, client_id TEXT NOT NULL, position INTEGER NOT NULL,
    packet_id INTEGER,              -- sent and not acknowledged
    topic TEXT NOT NULL, payload BLOB NOT NULL, since_ms INTEGER NOT NULL,
    PRIMARY KEY (channel, client_id, position)
) WITHOUT ROWID;
";

/// Why sessions cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("{path}: {source}")]
    File {
        path: String,
        source: rusqlite::Error,
    },
    #[error("{path} has layout {found}, this version reads {LAYOUT}: move the file away")]
    Layout { path: String, found: i32 },
    #[error("the thread that keeps sessions cannot start: {0}")]
    Thread(#[from] std::io::Error),
}

/// One session as it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) channel: ChannelName,
    pub(super) client_id: Arc<str>,
    pub(super) expiry_s: u32,
    pub(super) away_since_ms: Option<i64>,
    pub(super) has_published: bool,
    pub(super) session: Session,
}

/// What the thread is to write: the session as it is now, or that it is over.
pub(super) enum Change {
    Save(Box<Snapshot>),
    Forget {
        channel: ChannelName,
        client_id: Arc<str>,
    },
}

impl Change {
    /// The session that it is about.
    fn of(&self) -> (ChannelName, Arc<str>) {
        match self {
            Self::Save(snapshot) => (snapshot.channel.clone(), Arc::clone(&snapshot.client_id)),
            Self::Forget { channel, client_id } => (channel.clone(), Arc::clone(client_id)),
        }
    }
}

/// A copy of a session, made under its lock and written outside it.
pub(super) struct Snapshot {
    pub(super) channel: ChannelName,
    pub(super) client_id: Arc<str>,
    pub(super) expiry_s: u32,
    pub(super) away_since_ms: Option<i64>,
    pub(super) has_published: bool,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) unacked: Vec<Sent>,
    pub(super) received: Vec<NonZeroU16>,
}

/// The file, before its thread runs.
pub(super) struct File {
    path: String,
    connection: Connection,
}

/// The thread that writes. Ends, after a last round, when it is told to.
pub(super) struct Keeper {
    /// Who waits for everything changed so far to be written. Dropped: the thread ends.
    waiters: SyncSender<oneshot::Sender<()>>,
    thread: JoinHandle<()>,
}

impl File {
    pub(super) fn open(path: &Path) -> Result<Self, KeptError> {
        let name = path.display().to_string();
        let failed = |source| KeptError::File {
            path: name.clone(),
            source,
        };
        // Lazy on purpose: what a power cut takes of this file costs no data, see the top.
        let connection = sqlite::open(path, Sync::Normal).map_err(failed)?;
        let found: i32 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(failed)?;
        match found {
            LAYOUT => {}
            0 => {
                connection.execute_batch(SCHEMA).map_err(failed)?;
                connection
                    .pragma_update(None, "user_version", LAYOUT)
                    .map_err(failed)?;
            }
            found => return Err(KeptError::Layout { path: name, found }),
        }
        Ok(Self {
            path: name,
            connection,
        })
    }

    /// All sessions. Rows that no longer make sense are left out: they cost replies, not data. From
    /// here on the file holds no QoS 2 packet ids: they change, and it would not know.
    pub(super) fn load(&self) -> Result<Vec<Kept>, KeptError> {
        let loaded = self.load_rows().and_then(|kept| {
            // Not lazily: a power cut must not bring them back.
            self.connection.execute_batch(
                "PRAGMA synchronous = FULL;
                 UPDATE session SET received = x'';
                 PRAGMA synchronous = NORMAL;",
            )?;
            Ok(kept)
        });
        loaded.map_err(|source| KeptError::File {
            path: self.path.clone(),
            source,
        })
    }

    fn load_rows(&self) -> rusqlite::Result<Vec<Kept>> {
        let mut select = self.connection.prepare(
            "SELECT channel, client_id, expiry_s, away_since_ms, has_published, received
             FROM session",
        )?;
        let mut rows = select.query([])?;
        let mut kept = Vec::new();
        while let Some(row) = rows.next()? {
            let (channel, client_id): (String, String) = (row.get(0)?, row.get(1)?);
            let Ok(name) = ChannelName::new(&channel) else {
                continue;
            };
            let received: Vec<u8> = row.get(5)?;
            let received = received
                .chunks_exact(2)
                .filter_map(|id| NonZeroU16::new(u16::from_be_bytes([id[0], id[1]])))
                .collect();
            let subscriptions = self.subscriptions(&channel, &client_id)?;
            let (waiting, unacked) = self.replies(&channel, &client_id)?;
            kept.push(Kept {
                channel: name,
                client_id: client_id.into(),
                expiry_s: row.get(2)?,
                away_since_ms: row.get(3)?,
                has_published: row.get(4)?,
                session: Session::restored(subscriptions, waiting, unacked, received),
            });
        }
        Ok(kept)
    }

    fn subscriptions(&self, channel: &str, client: &str) -> rusqlite::Result<Vec<Subscription>> {
        let mut select = self.connection.prepare_cached(
            "SELECT filter, qos, tag FROM subscription WHERE channel = ?1 AND client_id = ?2",
        )?;
        let rows = select.query_map(params![channel, client], |row| {
            let qos: u8 = row.get(1)?;
            let qos = if qos == 0 {
                Qos::AtMostOnce
            } else {
                Qos::AtLeastOnce
            };
            Ok(Subscription {
                filter: row.get(0)?,
                qos,
                tag: row.get(2)?,
            })
        })?;
        rows.collect()
    }

    fn replies(
        &self,
        channel: &str,
        client: &str,
    ) -> rusqlite::Result<(VecDeque<Waiting>, VecDeque<Sent>)> {
        let mut select = self.connection.prepare_cached(
            "SELECT packet_id, topic, payload, since_ms FROM reply
             WHERE channel = ?1 AND client_id = ?2 ORDER BY position",
        )?;
        let mut rows = select.query(params![channel, client])?;
        let (mut waiting, mut unacked) = (VecDeque::new(), VecDeque::new());
        while let Some(row) = rows.next()? {
            let id: Option<u16> = row.get(0)?;
            let (topic, payload): (String, Vec<u8>) = (row.get(1)?, row.get(2)?);
            let reply = Waiting {
                reply: own_reply(&topic, &payload),
                qos: Qos::AtLeastOnce,
                tags: Vec::new(),
                since_ms: row.get(3)?,
            };
            match id.and_then(NonZeroU16::new) {
                Some(id) => unacked.push_back(Sent { id, waiting: reply }),
                None => waiting.push_back(reply),
            }
        }
        Ok((waiting, unacked))
    }

    /// Starts the thread; it ends when its [`Keeper`] lets go of the channel. `changes` gives what
    /// changed since it was last asked, each session once.
    pub(super) fn keep(
        mut self,
        every: Duration,
        changes: impl Fn() -> Vec<Change> + Send + 'static,
    ) -> Result<Keeper, KeptError> {
        let (waiters, waiting) = mpsc::sync_channel::<oneshot::Sender<()>>(WAITERS_MAX);
        let run = move || {
            // The last change of each session that the file does not have: it stays when a write fails.
            let mut unwritten = HashMap::new();
            loop {
                let first = waiting.recv_timeout(every);
                let is_last = matches!(first, Err(RecvTimeoutError::Disconnected));
                // Before the changes are taken: whoever waits has changed its session already.
                let round: Vec<_> = first.into_iter().chain(waiting.try_iter()).collect();
                unwritten.extend(changes().into_iter().map(|change| (change.of(), change)));
                match self.write(unwritten.values(), is_last) {
                    Ok(()) => unwritten.clear(),
                    Err(error) => {
                        let sessions = unwritten.len();
                        tracing::error!(path = self.path, sessions, %error, "sessions are not kept yet");
                    }
                }
                for waiter in round {
                    if waiter.send(()).is_err() {
                        tracing::trace!("a connection that waited for its session is gone");
                    }
                }
                if is_last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("mqtt-sessions".to_owned())
            .spawn(run)?;
        Ok(Keeper { waiters, thread })
    }

    /// Writes changes; the QoS 2 packet ids of these sessions too, when no more will follow.
    fn write<'c>(
        &mut self,
        changes: impl IntoIterator<Item = &'c Change>,
        is_last: bool,
    ) -> rusqlite::Result<()> {
        let mut changes = changes.into_iter().peekable();
        if changes.peek().is_none() {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        for change in changes {
            match change {
                Change::Save(snapshot) => save(&transaction, snapshot, is_last)?,
                Change::Forget { channel, client_id } => {
                    forget(&transaction, channel.as_str(), client_id)?;
                }
            }
        }
        transaction.commit()
    }
}

impl Keeper {
    /// Resolves when everything changed so far is written; at once when too many wait.
    pub(super) fn written(&self) -> oneshot::Receiver<()> {
        let (done, written) = oneshot::channel();
        // Not sent, it is dropped, and the receiver resolves.
        drop(self.waiters.try_send(done));
        written
    }

    /// Writes what is left and ends. Blocks for one transaction.
    pub(super) fn stop(self) {
        drop(self.waiters);
        if self.thread.join().is_err() {
            tracing::error!("the thread that keeps sessions panicked");
        }
    }
}

fn forget(transaction: &Transaction<'_>, channel: &str, client: &str) -> rusqlite::Result<()> {
    for table in ["session", "subscription", "reply"] {
        transaction
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE channel = ?1 AND client_id = ?2"
            ))?
            .execute(params![channel, client])?;
    }
    Ok(())
}

fn save(transaction: &Transaction<'_>, snapshot: &Snapshot, is_last: bool) -> rusqlite::Result<()> {
    let (channel, client) = (snapshot.channel.as_str(), &*snapshot.client_id);
    forget(transaction, channel, client)?;
    let received: Vec<u8> = snapshot
        .received
        .iter()
        .filter(|_| is_last)
        .flat_map(|id| id.get().to_be_bytes())
        .collect();
    transaction
        .prepare_cached("INSERT INTO session VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            channel,
            client,
            snapshot.expiry_s,
            snapshot.away_since_ms,
            snapshot.has_published,
            received
        ])?;
    let mut insert =
        transaction.prepare_cached("INSERT INTO subscription VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for known in &snapshot.subscriptions {
        insert.execute(params![
            channel,
            client,
            known.filter,
            known.qos as u8,
            known.tag
        ])?;
    }
    let unacked = snapshot
        .unacked
        .iter()
        .map(|sent| (Some(sent.id.get()), &sent.waiting));
    // QoS 0 replies are for a connected client only.
    let waiting = snapshot
        .waiting
        .iter()
        .filter(|waiting| waiting.qos > Qos::AtMostOnce);
    let mut insert =
        transaction.prepare_cached("INSERT INTO reply VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for (position, (id, waiting)) in unacked
        .chain(waiting.map(|reply| (None, reply)))
        .enumerate()
    {
        insert.execute(params![
            channel,
            client,
            i64::try_from(position).unwrap_or(i64::MAX),
            id,
            &*waiting.reply.topic,
            &waiting.reply.payload[..],
            waiting.since_ms
        ])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    fn snapshot(session: &Session) -> Change {
        Change::Save(Box::new(Snapshot {
            channel: ChannelName::new("history").unwrap(),
            client_id: "client".into(),
            expiry_s: 60,
            away_since_ms: Some(7),
            has_published: true,
            subscriptions: session.subscriptions.clone(),
            waiting: session.waiting.iter().cloned().collect(),
            unacked: session.unacked.iter().cloned().collect(),
            received: session.received.iter().copied().collect(),
        }))
    }

    #[test]
    fn a_session_comes_back_as_it_was_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.db");
        let limits = limits::Mqtt::default();
        let mut session = Session::default();
        session
            .subscribe("sys/PK/#", Qos::AtLeastOnce, Some(9), &limits)
            .unwrap();
        for text in ["a", "b"] {
            let reply = own_reply("sys/PK/integration/event/post_reply", text.as_bytes());
            session.offer(&reply, 5, true, &limits);
        }
        session.next(1).unwrap();
        session.received(NonZeroU16::new(300).unwrap(), &limits);

        File::open(&path)
            .unwrap()
            .write(&[snapshot(&session)], true)
            .unwrap();
        let kept = File::open(&path).unwrap().load().unwrap().remove(0);
        assert_eq!(kept.session.subscriptions, session.subscriptions);
        assert_eq!(kept.session.received, session.received);
        assert_eq!(kept.session.unacked[0].id, session.unacked[0].id);
        assert_eq!(kept.session.waiting[0].reply, session.waiting[0].reply);
        assert_eq!(kept.session.reply_bytes(), session.reply_bytes());
        assert_eq!((kept.expiry_s, kept.away_since_ms), (60, Some(7)));

        let forget = Change::Forget {
            channel: kept.channel,
            client_id: Arc::clone(&kept.client_id),
        };
        let mut file = File::open(&path).unwrap();
        let again = file.load().unwrap().remove(0);
        assert!(again.session.received.is_empty(), "read once");
        file.write(&[snapshot(&session)], false).unwrap();
        let again = file.load().unwrap().remove(0);
        assert!(again.session.received.is_empty(), "more may follow");
        file.write(&[forget], false).unwrap();
        assert!(file.load().unwrap().is_empty());
    }

    #[test]
    fn another_layout_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.db");
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(matches!(
            File::open(&path),
            Err(KeptError::Layout { found: 99, .. })
        ));
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_later_though_nothing_changed_since() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.db");
        let file = File::open(&path).unwrap();
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch(
                "CREATE TRIGGER full BEFORE INSERT ON session BEGIN SELECT RAISE(ABORT, 'full'); END",
            )
            .unwrap();
        let once = parking_lot::Mutex::new(vec![snapshot(&Session::default())]);
        let keeper = file
            .keep(Duration::from_secs(3_600), move || {
                std::mem::take(&mut *once.lock())
            })
            .unwrap();
        let kept = || {
            let count = "SELECT count(*) FROM session";
            let rows = other.query_row(count, [], |row| row.get::<_, i64>(0));
            rows.unwrap()
        };
        keeper.written().await.unwrap();
        assert_eq!(kept(), 0);
        other.execute_batch("DROP TRIGGER full").unwrap();
        keeper.written().await.unwrap();
        assert_eq!(kept(), 1);
        keeper.stop();
    }

    #[test]
    fn a_stopped_keeper_has_written_everything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.db");
        let file = File::open(&path).unwrap();
        let change = || vec![snapshot(&Session::default())];
        file.keep(Duration::from_secs(3_600), change)
            .unwrap()
            .stop();
        let sessions = Connection::open(&path)
            .unwrap()
            .query_row("SELECT count(*) FROM session", [], |row| {
                row.get::<_, i64>(0)
            })
            .unwrap();
        assert_eq!(sessions, 1);
    }
}
