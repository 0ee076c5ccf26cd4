//! Events: each identity once, the first that was committed (`decisions.md` §5).

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashSet, VecDeque},
    iter::{Map, Peekable},
    sync::Arc,
    vec,
};

use backtide_model::{ChannelName, DeviceKey, ElementName, Occurrence, ProductKey};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use sha2::{Digest, Sha256};

use super::{Chronicle, Ids, add, channel};
use crate::{
    ReadError, Sequence,
    library::{
        keep::RecordKeep,
        manifest::{point, signed, unreadable, unsigned},
    },
    memtable::Told,
};

/// Rows of a slab.
const SLAB_ROWS: usize = 1_024;
/// Rows that all devices of a range together have in memory, roughly.
const READ_ROWS: usize = 1 << 16;
/// Rows of one device in memory at least: each fill costs a search of the tree.
const LANE_ROWS_MIN: usize = 4;

/// Events of one product.
#[derive(Debug, Clone)]
pub struct EventRange {
    pub product: ProductKey,
    /// Empty: every device.
    pub devices: Vec<DeviceKey>,
    /// Empty: every event.
    pub events: Vec<ElementName>,
    /// Milliseconds since 1970 UTC, inclusive.
    pub from_ms: i64,
    /// Exclusive.
    pub to_ms: i64,
    /// Resume strictly after this event.
    pub after: Option<EventPlace>,
    pub rows_max: usize,
}

impl EventRange {
    /// The range without what is not kept.
    fn kept(&self, keep: RecordKeep) -> Self {
        Self {
            from_ms: self.from_ms.max(keep.time_ms),
            ..self.clone()
        }
    }
}

/// An event's identity, which is its place in the order of a read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventPlace {
    pub time_ms: i64,
    pub device: DeviceKey,
    pub event: ElementName,
    /// Of its output: the first half of its SHA-256.
    pub digest: [u8; 16],
}

/// An event with where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    pub place: EventPlace,
    /// Canonical JSON.
    pub output: Box<str>,
    pub sequence: Sequence,
    pub channel: ChannelName,
    pub arrived_ms: i64,
}

fn digest(output: &str) -> [u8; 16] {
    let whole: [u8; 32] = Sha256::digest(output).into();
    let (half, _) = whole.split_first_chunk().expect("32 bytes have a half");
    *half
}

/// An event that is in memory only.
#[derive(Clone)]
struct Mention {
    told: Arc<Told<Occurrence>>,
    at: usize,
}

impl Mention {
    fn all(told: &Arc<Told<Occurrence>>) -> impl Iterator<Item = Self> + '_ {
        (0..told.items.len()).map(|at| Self {
            told: Arc::clone(told),
            at,
        })
    }

    fn occurrence(&self) -> &Occurrence {
        &self.told.items[self.at]
    }

    fn place(&self) -> EventPlace {
        let Occurrence {
            device,
            time_ms,
            event,
            output,
        } = self.occurrence();
        EventPlace {
            time_ms: *time_ms,
            device: device.clone(),
            event: event.clone(),
            digest: digest(output),
        }
    }

    fn stored(self) -> StoredEvent {
        StoredEvent {
            place: self.place(),
            output: self.occurrence().output.clone(),
            sequence: self.told.sequence,
            channel: self.told.origin.channel.clone(),
            arrived_ms: self.told.origin.arrived_ms,
        }
    }

    /// As [`EventPlace`] is ordered; digests are made for ties alone.
    fn order(&self, other: &Self) -> Ordering {
        let (a, b) = (self.occurrence(), other.occurrence());
        (a.time_ms, &a.device, &a.event)
            .cmp(&(b.time_ms, &b.device, &b.event))
            .then_with(|| match a.output == b.output {
                true => Ordering::Equal,
                false => digest(&a.output).cmp(&digest(&b.output)),
            })
    }
}

/// Writes what is not there yet.
pub(super) fn write<'a>(
    db: &Transaction<'_>,
    ids: &mut Ids<'a>,
    told: &'a [Arc<Told<Occurrence>>],
    arrived_ms: &dyn Fn(&ProductKey) -> i64,
) -> rusqlite::Result<()> {
    let mut rows = Vec::new();
    for told in told {
        let channel = ids.channel(db, &told.origin.channel)?;
        for occurrence in &told.items {
            let device = ids.device(db, &told.product, &occurrence.device)?;
            rows.push((
                device,
                occurrence,
                digest(&occurrence.output),
                channel,
                told,
            ));
        }
    }
    let key = |row: &(i64, &'a Occurrence, [u8; 16], i64, &Arc<Told<Occurrence>>)| {
        (row.0, row.1.time_ms, row.1.event.as_str(), row.2)
    };
    // In the order of the tree; of equal ones the first committed comes first and stays.
    rows.sort_by(|a, b| key(a).cmp(&key(b)));
    let (mut events, mut duplicates) = (0, 0);
    let mut insert =
        db.prepare_cached("INSERT OR IGNORE INTO event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    let mut expire = db.prepare_cached(
        "DELETE FROM event
         WHERE device = ?1 AND time = ?2 AND event = ?3 AND digest = ?4 AND arrived < ?5",
    )?;
    // Where events are kept by when they arrived, one that comes again counts from then.
    let mut confirm = db.prepare_cached(
        "UPDATE event SET arrived = ?5
         WHERE device = ?1 AND time = ?2 AND event = ?3 AND digest = ?4 AND arrived < ?5",
    )?;
    for same in rows.chunk_by(|a, b| key(a) == key(b)) {
        let (device, occurrence, digest, channel, told) = &same[0];
        let sequence = signed(told.sequence.0);
        let oldest_ms = arrived_ms(&told.product);
        if oldest_ms > i64::MIN && told.origin.arrived_ms >= oldest_ms {
            let place = params![
                device,
                occurrence.time_ms,
                occurrence.event.as_str(),
                digest,
                oldest_ms
            ];
            events -= i64::try_from(expire.execute(place)?).unwrap_or(i64::MAX);
        }
        let is_new = insert.execute(params![
            device,
            occurrence.time_ms,
            occurrence.event.as_str(),
            digest,
            occurrence.output,
            sequence,
            channel,
            told.origin.arrived_ms,
        ])? == 1;
        if oldest_ms > i64::MIN && (!is_new || same.len() > 1) {
            let last_ms = same.iter().map(|row| row.4.origin.arrived_ms).max();
            confirm.execute(params![
                device,
                occurrence.time_ms,
                occurrence.event.as_str(),
                digest,
                last_ms
            ])?;
        }
        let again = i64::try_from(same.len() - 1).unwrap_or(i64::MAX);
        if is_new {
            events += 1;
            duplicates += again;
        } else if standing(db, *device, occurrence, digest)? != Some(sequence) {
            duplicates += 1 + again;
        }
        // Else this flush was written before: it counted then.
    }
    add(db, "events", events)?;
    add(db, "event_duplicates", duplicates)
}

/// The commit of the event that stands.
fn standing(
    db: &Transaction<'_>,
    device: i64,
    occurrence: &Occurrence,
    digest: &[u8; 16],
) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT sequence FROM event
               WHERE device = ?1 AND time = ?2 AND event = ?3 AND digest = ?4";
    let place = params![
        device,
        occurrence.time_ms,
        occurrence.event.as_str(),
        digest
    ];
    db.prepare_cached(sql)?
        .query_row(place, |row| row.get(0))
        .optional()
}

impl Chronicle {
    /// Events of a range: those written, and those of `told` that may not be yet.
    pub(crate) fn events(
        self: &Arc<Self>,
        told: &[Arc<Told<Occurrence>>],
        range: &EventRange,
        keep: RecordKeep,
    ) -> Result<impl Iterator<Item = Result<Vec<StoredEvent>, ReadError>> + use<>, ReadError> {
        let range = &range.kept(keep);
        let devices = self.devices(&range.product, &range.devices)?;
        // Of a short page little more than what it needs.
        let lane_rows = range.rows_max.saturating_mul(4).min(READ_ROWS) / devices.len().max(1);
        let events = match range.events.as_slice() {
            [] => None,
            events => Some(serde_json::to_string(events).expect("names are JSON")),
        };
        let mut reading = Reading {
            chronicle: Arc::clone(self),
            lanes: Vec::with_capacity(devices.len()),
            next: BinaryHeap::with_capacity(devices.len()),
            told: mentions(told, range, keep)
                .into_iter()
                .map(Mention::stored as fn(_) -> _)
                .peekable(),
            lane_rows: lane_rows.clamp(LANE_ROWS_MIN, SLAB_ROWS),
            left: range.rows_max,
            to_ms: range.to_ms,
            arrived_ms: keep.arrived_ms,
            events,
        };
        for (device, id) in devices {
            let lane = Lane::new(device, id, range);
            reading.lanes.push(lane);
            reading.refill(reading.lanes.len() - 1)?;
        }
        Ok(reading)
    }
}

/// What is in memory of a range, in order, each once.
fn mentions(told: &[Arc<Told<Occurrence>>], range: &EventRange, keep: RecordKeep) -> Vec<Mention> {
    let devices: HashSet<&DeviceKey> = range.devices.iter().collect();
    let is_in = |mention: &Mention| {
        let Occurrence {
            device,
            time_ms,
            event,
            ..
        } = mention.occurrence();
        (range.from_ms..range.to_ms).contains(time_ms)
            && mention.told.origin.arrived_ms >= keep.arrived_ms
            && (devices.is_empty() || devices.contains(device))
            && (range.events.is_empty() || range.events.contains(event))
            && range
                .after
                .as_ref()
                .is_none_or(|after| *time_ms >= after.time_ms && mention.place() > *after)
    };
    let mut mentions: Vec<Mention> = told.iter().flat_map(Mention::all).filter(is_in).collect();
    mentions.sort_by(Mention::order);
    mentions.dedup_by(|later, first| later.order(first) == Ordering::Equal);
    mentions
}

type Mentions = Peekable<Map<vec::IntoIter<Mention>, fn(Mention) -> StoredEvent>>;

/// A read under way: a lane for each device, joined by time. Between two fills nothing is locked.
struct Reading {
    chronicle: Arc<Chronicle>,
    lanes: Vec<Lane>,
    /// The front row of each lane that has one: its time and device, and which lane.
    next: BinaryHeap<Reverse<(i64, DeviceKey, usize)>>,
    told: Mentions,
    lane_rows: usize,
    left: usize,
    to_ms: i64,
    /// What arrived earlier is not kept.
    arrived_ms: i64,
    /// A JSON array, where not every event is wanted.
    events: Option<String>,
}

/// The events of one device, some rows ahead.
struct Lane {
    device: DeviceKey,
    id: i64,
    rows: VecDeque<StoredEvent>,
    /// Read behind this: time, event, digest.
    behind: (i64, String, Vec<u8>),
    is_through: bool,
}

impl Lane {
    fn new(device: DeviceKey, id: i64, range: &EventRange) -> Self {
        // An empty name comes before every event of its time.
        let start = |time_ms| (time_ms, String::new(), Vec::new());
        let behind = match &range.after {
            Some(after) if after.time_ms >= range.from_ms => match device.cmp(&after.device) {
                Ordering::Less => start(after.time_ms.saturating_add(1)),
                Ordering::Equal => (
                    after.time_ms,
                    after.event.to_string(),
                    after.digest.to_vec(),
                ),
                Ordering::Greater => start(after.time_ms),
            },
            _ => start(range.from_ms),
        };
        Self {
            device,
            id,
            rows: VecDeque::new(),
            behind,
            is_through: false,
        }
    }
}

impl Reading {
    fn slab(&mut self) -> Result<Vec<StoredEvent>, ReadError> {
        let rows_max = self.left.min(SLAB_ROWS);
        let mut slab = Vec::with_capacity(rows_max);
        while slab.len() < rows_max {
            let Some(event) = self.event()? else { break };
            slab.push(event);
        }
        self.left -= slab.len();
        Ok(slab)
    }

    /// The next event of lanes and memory. What was flushed meanwhile stands in both.
    fn event(&mut self) -> Result<Option<StoredEvent>, ReadError> {
        let front = self.next.peek().map(|Reverse((_, _, lane))| *lane);
        let written = front.and_then(|lane| self.lanes[lane].rows.front());
        let order = match (written, self.told.peek()) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(written), Some(told)) => written.place.cmp(&told.place),
        };
        if order == Ordering::Greater {
            return Ok(self.told.next());
        }
        if order == Ordering::Equal {
            self.told.next();
        }
        let Some(Reverse((_, _, lane))) = self.next.pop() else {
            return Ok(None);
        };
        let event = self.lanes[lane].rows.pop_front();
        self.refill(lane)?;
        Ok(event)
    }

    /// Puts the lane back in line, unless it is through.
    fn refill(&mut self, at: usize) -> Result<(), ReadError> {
        let lane = &mut self.lanes[at];
        if lane.rows.is_empty() && !lane.is_through {
            let rows = self.chronicle.read(|db| {
                let wanted = (self.to_ms, self.arrived_ms, self.events.as_deref());
                lane_rows(db, lane, wanted, self.lane_rows)
            })?;
            lane.is_through = rows.len() < self.lane_rows;
            if let Some(EventPlace {
                time_ms,
                event,
                digest,
                ..
            }) = rows.back().map(|row| &row.place)
            {
                lane.behind = (*time_ms, event.to_string(), digest.to_vec());
            }
            lane.rows = rows;
        }
        if let Some(front) = lane.rows.front() {
            let time_ms = front.place.time_ms;
            self.next.push(Reverse((time_ms, lane.device.clone(), at)));
        }
        Ok(())
    }
}

impl Iterator for Reading {
    type Item = Result<Vec<StoredEvent>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.slab()
            .map(|slab| Some(slab).filter(|slab| !slab.is_empty()))
            .transpose()
    }
}

fn lane_rows(
    db: &Connection,
    lane: &Lane,
    (to_ms, arrived_ms, events): (i64, i64, Option<&str>),
    rows_max: usize,
) -> rusqlite::Result<VecDeque<StoredEvent>> {
    let sql = "SELECT e.time, e.event, e.digest, e.output, e.sequence, c.name, e.arrived
               FROM event e JOIN channel c ON c.id = e.channel
               WHERE e.device = ?1 AND (e.time, e.event, e.digest) > (?2, ?3, ?4) AND e.time < ?5
                 AND e.arrived >= ?8
                 AND (?6 IS NULL OR e.event IN (SELECT value FROM json_each(?6)))
               ORDER BY e.time, e.event, e.digest LIMIT ?7";
    let mut select = db.prepare_cached(sql)?;
    let (time_ms, event, digest) = &lane.behind;
    let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let asked = params![
        lane.id, time_ms, event, digest, to_ms, events, limit, arrived_ms
    ];
    let rows = select.query_map(asked, |row| stored(row, &lane.device))?;
    rows.collect()
}

fn stored(row: &Row<'_>, device: &DeviceKey) -> rusqlite::Result<StoredEvent> {
    let wrong = |_| unreadable("a digest has not 16 bytes".into());
    Ok(StoredEvent {
        place: EventPlace {
            time_ms: row.get(0)?,
            device: device.clone(),
            event: point(&row.get::<_, String>(1)?)?,
            digest: row.get::<_, Vec<u8>>(2)?.try_into().map_err(wrong)?,
        },
        output: row.get::<_, String>(3)?.into(),
        sequence: Sequence(unsigned(row.get(4)?)),
        channel: channel(&row.get::<_, String>(5)?)?,
        arrived_ms: row.get(6)?,
    })
}
