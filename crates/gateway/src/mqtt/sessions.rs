//! All sessions of the process, by channel and client id: who owns each now, and who a reply is
//! for.
//!
//! A reply goes to the publisher's own session if that has subscribed to it. Only otherwise does it
//! go to others: to the sessions of the channel that match **and have never published** (one client
//! sends, another listens). A session that publishes never hears the replies to another's requests:
//! the vendor's SDKs match replies by topic and a small number, so that one would take its
//! neighbour's success for its own, and "a reply means stored" would be a lie.
//!
//! Locks, in this order: a room's sessions, one session's state, the room's listeners; never two
//! sessions' states at once.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use backtide_model::ChannelName;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Dropped, Reply, WallClock,
    kept::{Change, File, Keeper, KeptError, Snapshot},
    session::{Offered, Session},
};
use crate::limits;

/// The registry.
pub(super) struct Sessions {
    rooms: Mutex<HashMap<ChannelName, Arc<Room>>>,
    limits: Arc<limits::Mqtt>,
    clock: WallClock,
    /// Of the replies of all sessions.
    reply_bytes: AtomicUsize,
    /// Changed since the keeper last asked; `None` when sessions are not kept.
    changed: Option<Mutex<Vec<Arc<Entry>>>>,
    keeper: Mutex<Option<Keeper>>,
}

/// The sessions of one channel.
#[derive(Default)]
struct Room {
    sessions: Mutex<HashMap<Arc<str>, Arc<Entry>>>,
    /// Sessions with subscriptions that have never published.
    listeners: Mutex<Vec<Arc<Entry>>>,
    connections: AtomicUsize,
}

/// One session, and who owns it now.
struct Entry {
    channel: ChannelName,
    client_id: Arc<str>,
    state: Mutex<State>,
    /// Something waits for the connection that owns it.
    wake: Notify,
    is_changed: AtomicBool,
}

#[derive(Default)]
struct State {
    session: Session,
    owner: Option<Owner>,
    expiry_s: u32,
    away_since_ms: i64,
    has_published: bool,
    /// It is in its room no more. A connection may still hold it.
    is_over: bool,
    /// How many sessions of the client came before this one.
    generation: u64,
}

struct Owner {
    connection: u64,
    taken_over: CancellationToken,
}

/// A connection's hold on its session. Dropping it leaves the session.
pub(super) struct Attached {
    sessions: Arc<Sessions>,
    room: Arc<Room>,
    entry: Arc<Entry>,
    connection: u64,
    /// Cancelled when another connection has taken the session over.
    pub(super) taken_over: CancellationToken,
    pub(super) session_present: bool,
    generation: u64,
}

/// Delivers replies for a connection, also after it has gone.
#[derive(Clone)]
pub(super) struct Router {
    sessions: Arc<Sessions>,
    room: Arc<Room>,
    entry: Arc<Entry>,
    /// A client that began anew counts its messages anew: it would take a reply to the session before
    /// for one to its own.
    generation: u64,
}

/// The channel has as many connections as it may.
#[derive(Debug)]
pub(super) struct RoomFull;

/// What a CONNECT asks of its session.
pub(super) struct Wish {
    pub(super) client_id: Arc<str>,
    pub(super) clean: bool,
    pub(super) expiry_s: u32,
    pub(super) connection: u64,
    /// Connections that the channel may have, this one included.
    pub(super) connections_max: usize,
}

impl Sessions {
    /// Opens the registry, with the sessions that were kept in the file, if there is to be one.
    pub(super) fn open(
        limits: Arc<limits::Mqtt>,
        clock: WallClock,
        path: Option<&Path>,
    ) -> Result<Arc<Self>, KeptError> {
        let every = Duration::from_millis(limits.session_save_ms);
        let sessions = Arc::new(Self {
            rooms: Mutex::default(),
            limits,
            clock,
            reply_bytes: AtomicUsize::new(0),
            changed: path.map(|_| Mutex::default()),
            keeper: Mutex::default(),
        });
        if let Some(path) = path {
            let file = File::open(path)?;
            for kept in file.load()? {
                sessions.restore(kept);
            }
            let changes = {
                let sessions = Arc::downgrade(&sessions);
                move || {
                    sessions
                        .upgrade()
                        .map(|sessions| sessions.changes())
                        .unwrap_or_default()
                }
            };
            *sessions.keeper.lock() = Some(file.keep(every, changes)?);
        }
        Ok(sessions)
    }

    fn restore(&self, kept: super::kept::Kept) {
        let room = self.room(&kept.channel);
        self.reply_bytes
            .fetch_add(kept.session.reply_bytes(), Ordering::Relaxed);
        let entry = Arc::new(Entry {
            channel: kept.channel,
            client_id: Arc::clone(&kept.client_id),
            state: Mutex::new(State {
                session: kept.session,
                expiry_s: kept.expiry_s,
                // It was connected when the process ended: it is away from now on.
                away_since_ms: kept.away_since_ms.unwrap_or_else(self.clock),
                has_published: kept.has_published,
                ..State::default()
            }),
            wake: Notify::new(),
            is_changed: AtomicBool::new(false),
        });
        relist(&room, &entry, &entry.state.lock());
        room.sessions.lock().insert(kept.client_id, entry);
    }

    /// Attaches a connection to its session: its own from before, or a new one. Whoever owned it
    /// until now is told to go.
    pub(super) fn enter(
        self: &Arc<Self>,
        channel: &ChannelName,
        wish: &Wish,
    ) -> Result<Attached, RoomFull> {
        let room = self.room(channel);
        let mut sessions = room.sessions.lock();
        // A connection that takes its session over replaces one: it needs no further place.
        let replaces = sessions
            .get(&wish.client_id)
            .is_some_and(|entry| entry.state.lock().owner.is_some());
        let connections = room.connections.load(Ordering::Relaxed);
        if connections >= wish.connections_max && !replaces {
            return Err(RoomFull);
        }
        // Only ever raised with the sessions locked, so that two cannot pass for the last place.
        room.connections.fetch_add(1, Ordering::Relaxed);
        let taken_over = CancellationToken::new();
        let owner = Owner {
            connection: wish.connection,
            taken_over: taken_over.clone(),
        };
        let entry = sessions
            .entry(Arc::clone(&wish.client_id))
            .or_insert_with(|| Arc::new(Entry::new(channel.clone(), Arc::clone(&wish.client_id))));
        let entry = Arc::clone(entry);
        let now_ms = (self.clock)();
        let (session_present, generation) = self.change(&entry, |state| {
            let was_there = state.expiry_s > 0 && !state.is_expired(now_ms);
            if let Some(before) = state.owner.replace(owner) {
                before.taken_over.cancel();
            }
            let session_present = was_there && !wish.clean;
            if session_present {
                state.session.resume();
            } else {
                state.session = Session::default();
                state.has_published = false;
                state.generation += 1;
            }
            state.expiry_s = wish.expiry_s.min(self.limits.session_expiry_s_max);
            state.is_over = false;
            relist(&room, &entry, state);
            (session_present, state.generation)
        });
        // Held until here, so that nobody ends the session between the look-up and the change.
        drop(sessions);
        Ok(Attached {
            sessions: Arc::clone(self),
            room,
            entry,
            connection: wish.connection,
            taken_over,
            session_present,
            generation,
        })
    }

    /// Ends the sessions that have expired and drops the replies that have waited too long.
    pub(super) fn sweep(&self) {
        let now_ms = (self.clock)();
        let age_ms = i64::try_from(self.limits.waiting_reply_age_s * 1_000).unwrap_or(i64::MAX);
        let mut rooms = self.rooms.lock().clone();
        for (channel, room) in rooms.drain() {
            let entries: Vec<_> = room.sessions.lock().values().cloned().collect();
            for entry in entries {
                let is_expired = self.change(&entry, |state| {
                    if state.owner.is_none() {
                        let old = state.session.expire(now_ms.saturating_sub(age_ms));
                        for reply in old {
                            drop_for_absent(&entry, &reply.topic, Dropped::TooOld);
                        }
                    }
                    state.is_expired(now_ms)
                });
                if is_expired {
                    self.end(&room, &entry);
                }
            }
            drop(room);
            self.rooms.lock().retain(|name, room| {
                *name != channel || Arc::strong_count(room) > 1 || !room.sessions.lock().is_empty()
            });
        }
    }

    /// Writes what is to be kept. Blocks for a moment.
    pub(super) fn close(&self) {
        let rooms: Vec<_> = self.rooms.lock().values().cloned().collect();
        for room in rooms {
            let entries: Vec<_> = room.sessions.lock().values().cloned().collect();
            for entry in entries {
                // As changed: now, and only now, the packet ids are kept that it has received.
                self.change(&entry, |_| ());
            }
        }
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper {
            keeper.stop();
        }
    }

    fn room(&self, channel: &ChannelName) -> Arc<Room> {
        Arc::clone(self.rooms.lock().entry(channel.clone()).or_default())
    }

    /// The only way to a session's state: keeps the account of bytes, and marks it for the keeper.
    fn change<R>(&self, entry: &Arc<Entry>, work: impl FnOnce(&mut State) -> R) -> R {
        let mut state = entry.state.lock();
        let before = state.session.reply_bytes();
        let result = work(&mut state);
        let after = state.session.reply_bytes();
        let is_kept = state.expiry_s > 0 || state.is_over;
        drop(state);
        self.reply_bytes.fetch_add(after, Ordering::Relaxed);
        self.reply_bytes.fetch_sub(before, Ordering::Relaxed);
        if let Some(changed) = &self.changed
            && is_kept
            && !entry.is_changed.swap(true, Ordering::AcqRel)
        {
            changed.lock().push(Arc::clone(entry));
        }
        result
    }

    /// For the keeper: each session that changed, once.
    fn changes(&self) -> Vec<Change> {
        let Some(changed) = &self.changed else {
            return Vec::new();
        };
        let entries = std::mem::take(&mut *changed.lock());
        entries.iter().map(|entry| entry.kept()).collect()
    }

    fn leave(&self, room: &Room, entry: &Arc<Entry>, connection: u64) {
        room.connections.fetch_sub(1, Ordering::Relaxed);
        let now_ms = (self.clock)();
        let is_over = self.change(entry, |state| {
            if state
                .owner
                .as_ref()
                .is_none_or(|owner| owner.connection != connection)
            {
                return false;
            }
            state.owner = None;
            state.away_since_ms = now_ms;
            for reply in state.session.leave() {
                drop_for_absent(entry, &reply.topic, Dropped::Away);
            }
            state.expiry_s == 0
        });
        if is_over {
            self.end(room, entry);
        } else {
            self.bound_away(room);
        }
    }

    /// Ends a session that nobody owns.
    fn end(&self, room: &Room, entry: &Arc<Entry>) {
        let mut sessions = room.sessions.lock();
        let is_over = self.change(entry, |state| {
            if state.owner.is_some() {
                return false;
            }
            state.is_over = true;
            state.session.end();
            relist(room, entry, state);
            true
        });
        if is_over
            && sessions
                .get(&entry.client_id)
                .is_some_and(|known| Arc::ptr_eq(known, entry))
        {
            sessions.remove(&entry.client_id);
        }
    }

    /// Keeps a channel from filling the process with sessions of clients that never come back: the
    /// one that has been away longest goes first.
    fn bound_away(&self, room: &Room) {
        let entries: Vec<_> = {
            let sessions = room.sessions.lock();
            if sessions.len() <= self.limits.sessions_per_channel_max {
                return;
            }
            sessions.values().cloned().collect()
        };
        let longest = entries
            .iter()
            .filter_map(|entry| {
                let state = entry.state.lock();
                state
                    .owner
                    .is_none()
                    .then(|| (state.away_since_ms, Arc::clone(entry)))
            })
            .min_by_key(|(since_ms, _)| *since_ms);
        if let Some((_, entry)) = longest {
            self.end(room, &entry);
        }
    }
}

impl Attached {
    /// Works on the session, unless another connection owns it by now.
    pub(super) fn session<R>(&self, work: impl FnOnce(&mut Session) -> R) -> Option<R> {
        self.state(|state| work(&mut state.session))
    }

    /// Works on all that is known of the session, unless another connection owns it by now.
    fn state<R>(&self, work: impl FnOnce(&mut State) -> R) -> Option<R> {
        self.sessions.change(&self.entry, |state| {
            let is_owner = state
                .owner
                .as_ref()
                .is_some_and(|owner| owner.connection == self.connection);
            is_owner.then(|| work(state))
        })
    }

    /// Works on the subscriptions: who listens may change.
    pub(super) fn subscriptions<R>(&self, work: impl FnOnce(&mut Session) -> R) -> Option<R> {
        let result = self.session(work);
        relist(&self.room, &self.entry, &self.entry.state.lock());
        result
    }

    /// Resolves when the session as it is now would outlive the process, if it is one that should.
    pub(super) async fn kept(&self) {
        let is_kept = self.entry.state.lock().expiry_s > 0;
        let written = match &*self.sessions.keeper.lock() {
            Some(keeper) if is_kept => keeper.written(),
            _ => return,
        };
        // An error means that nobody writes any more: the door is closing.
        drop(written.await);
    }

    /// The client publishes: from now on it hears the replies to its own requests only.
    pub(super) fn publishes(&self) {
        self.state(|state| {
            state.has_published = true;
            relist(&self.room, &self.entry, state);
        });
    }

    /// DISCONNECT of 5.0 may change how long the session lasts (§3.14.2.2.2). Says whether it may
    /// do so: a session that was to end with its connection cannot be made to stay.
    pub(super) fn set_expiry(&self, expiry_s: u32) -> bool {
        let may = self.state(|state| {
            if state.expiry_s == 0 && expiry_s > 0 {
                return false;
            }
            state.expiry_s = expiry_s.min(self.sessions.limits.session_expiry_s_max);
            true
        });
        // The session of another connection is none of its business.
        may.unwrap_or(true)
    }

    /// Resolves when a reply may be waiting.
    pub(super) async fn woken(&self) {
        self.entry.wake.notified().await;
    }

    pub(super) fn router(&self) -> Router {
        Router {
            sessions: Arc::clone(&self.sessions),
            room: Arc::clone(&self.room),
            entry: Arc::clone(&self.entry),
            generation: self.generation,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.sessions
            .leave(&self.room, &self.entry, self.connection);
    }
}

impl Router {
    /// Delivers the replies of one burst. Calls `dropped` for each that its client will not get.
    /// Returns how many wait for a client now.
    pub(super) fn route<'a>(
        &self,
        replies: impl Iterator<Item = &'a Reply>,
        mut dropped: impl FnMut(&'a Reply, Dropped),
    ) -> u64 {
        let now_ms = (self.sessions.clock)();
        let mut others = Vec::new();
        let mut waiting = 0;
        self.sessions.change(&self.entry, |state| {
            if state.generation != self.generation {
                others.extend(replies);
                return;
            }
            for reply in replies {
                match state.offer(reply, now_ms, &self.sessions) {
                    Offered::Waits => waiting += 1,
                    Offered::NoSubscription => others.push(reply),
                    Offered::Dropped(reason) => dropped(reply, reason),
                }
            }
        });
        if waiting > 0 {
            self.entry.wake.notify_one();
        }
        if others.is_empty() {
            return waiting;
        }
        let listeners = self.room.listeners.lock().clone();
        // Its own entry was asked; what is there now may be another session.
        let is_other = |listener: &Arc<Entry>| !Arc::ptr_eq(listener, &self.entry);
        for listener in listeners.into_iter().filter(is_other) {
            let before = waiting;
            self.sessions.change(&listener, |state| {
                for reply in &others {
                    match state.offer(reply, now_ms, &self.sessions) {
                        Offered::Waits => waiting += 1,
                        Offered::NoSubscription => {}
                        Offered::Dropped(reason) => dropped(reply, reason),
                    }
                }
            });
            if waiting > before {
                listener.wake.notify_one();
            }
        }
        waiting
    }
}

impl Entry {
    fn new(channel: ChannelName, client_id: Arc<str>) -> Self {
        Self {
            channel,
            client_id,
            state: Mutex::default(),
            wake: Notify::new(),
            is_changed: AtomicBool::new(false),
        }
    }

    fn kept(&self) -> Change {
        // Before the look: a change after it marks the session again.
        self.is_changed.store(false, Ordering::Release);
        let state = self.state.lock();
        let channel = self.channel.clone();
        let client_id = Arc::clone(&self.client_id);
        if state.is_over || state.expiry_s == 0 {
            return Change::Forget { channel, client_id };
        }
        let Session {
            subscriptions,
            waiting,
            unacked,
            received,
            ..
        } = &state.session;
        Change::Save(Box::new(Snapshot {
            channel,
            client_id,
            expiry_s: state.expiry_s,
            away_since_ms: state.owner.is_none().then_some(state.away_since_ms),
            has_published: state.has_published,
            subscriptions: subscriptions.clone(),
            waiting: waiting.iter().cloned().collect(),
            unacked: unacked.iter().cloned().collect(),
            received: received.iter().copied().collect(),
        }))
    }
}

impl State {
    fn offer(&mut self, reply: &Reply, now_ms: i64, sessions: &Sessions) -> Offered {
        if !self.session.is_subscribed(&reply.topic) {
            return Offered::NoSubscription;
        }
        if self.is_over {
            return Offered::Dropped(Dropped::SessionOver);
        }
        let total = sessions.reply_bytes.load(Ordering::Relaxed) + reply.payload.len();
        if total > sessions.limits.waiting_reply_bytes_total_max {
            return Offered::Dropped(Dropped::Full);
        }
        self.session
            .offer(reply, now_ms, self.owner.is_some(), &sessions.limits)
    }

    fn is_expired(&self, now_ms: i64) -> bool {
        let away_ms = now_ms.saturating_sub(self.away_since_ms);
        self.owner.is_none() && away_ms >= i64::from(self.expiry_s) * 1_000
    }
}

/// Puts the session among its room's listeners, or takes it out.
fn relist(room: &Room, entry: &Arc<Entry>, state: &State) {
    let listens = !state.is_over && !state.has_published && state.session.has_subscriptions();
    let mut listeners = room.listeners.lock();
    let at = listeners.iter().position(|known| Arc::ptr_eq(known, entry));
    match (listens, at) {
        (true, None) => listeners.push(Arc::clone(entry)),
        (false, Some(at)) => {
            listeners.swap_remove(at);
        }
        (true, Some(_)) | (false, None) => {}
    }
}

/// A reply is dropped while no connection is there to tell the channel's log.
fn drop_for_absent(entry: &Entry, topic: &str, reason: Dropped) {
    let channel = entry.channel.as_str();
    tracing::debug!(channel, client = &*entry.client_id, topic, %reason, "a reply is dropped");
    metrics::counter!("backtide_mqtt_replies_dropped_total", "channel" => channel.to_owned())
        .increment(1);
}
