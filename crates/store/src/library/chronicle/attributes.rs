//! Attributes: the value of the greatest order is in force, earlier ones stay in a history.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
};

use backtide_model::{AttributeValue, ChannelName, DeviceKey, ElementName, ProductKey};
use rusqlite::{Connection, Row, Transaction, params};

use super::{
    Chronicle, Ids, add, channel,
    history::{Moment, Position, Stretch, say},
};
use crate::{
    ReadError, Sequence,
    library::{
        keep::RecordKeep,
        manifest::{point, signed, unsigned},
    },
    memtable::Told,
};

/// Rows of a slab, roughly: the values of one device are never parted.
const SLAB_ROWS: usize = 1_024;

/// Attribute values of one product.
#[derive(Debug, Clone)]
pub struct AttributeRange {
    pub product: ProductKey,
    /// Empty: every device.
    pub devices: Vec<DeviceKey>,
    /// Empty: every attribute.
    pub attributes: Vec<ElementName>,
    /// The earlier values too, oldest first.
    pub history: bool,
    /// Resume strictly after this value.
    pub after: Option<AttributePlace>,
    pub rows_max: usize,
}

/// Where a value stands in the order of a read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttributePlace {
    pub device: DeviceKey,
    pub attribute: ElementName,
    /// What decides which value is the later one: the sequence of its commit, or where it was driven
    /// again from quarantine, of its first arrival.
    pub order: Sequence,
    pub sequence: Sequence,
    /// Which of the values of its commit it is.
    pub item: u32,
}

/// An attribute value with where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAttribute {
    pub place: AttributePlace,
    /// Canonical JSON.
    pub value: Box<str>,
    pub channel: ChannelName,
    /// When it arrived first.
    pub arrived_ms: i64,
    /// When it arrived last, before another value did.
    pub confirmed_ms: i64,
}

/// A value that is in memory.
struct Saying {
    told: Arc<Told<AttributeValue>>,
    item: u32,
}

impl Saying {
    fn all(told: &Arc<Told<AttributeValue>>) -> impl Iterator<Item = (&AttributeValue, Self)> {
        let saying = |item| Self {
            told: Arc::clone(told),
            item,
        };
        told.items.iter().zip((0_u32..).map(saying))
    }

    fn value(&self) -> &str {
        &self.told.items[self.item as usize].value
    }

    fn moment(&self) -> Moment {
        Moment {
            position: Position {
                order: self.told.order,
                sequence: self.told.sequence,
                item: self.item,
            },
            channel: self.told.origin.channel.clone(),
            arrived_ms: self.told.origin.arrived_ms,
        }
    }
}

/// Takes what was told into the histories.
pub(super) fn write<'a>(
    db: &Transaction<'_>,
    ids: &mut Ids<'a>,
    told: &'a [Arc<Told<AttributeValue>>],
) -> rusqlite::Result<()> {
    let mut grouped: BTreeMap<(i64, &ElementName), Vec<Saying>> = BTreeMap::new();
    for told in told {
        ids.channel(db, &told.origin.channel)?;
        for (value, saying) in Saying::all(told) {
            let device = ids.device(db, &told.product, &value.device)?;
            let of_attribute = grouped.entry((device, &value.attribute)).or_default();
            of_attribute.push(saying);
        }
    }
    let mut added = 0;
    for ((device, attribute), sayings) in grouped {
        let moments = sayings.iter().map(|saying| saying.moment().position);
        let Some(earliest) = moments.min() else {
            continue;
        };
        let before = stretches_from(db, device, attribute, earliest)?;
        let mut after = before.clone();
        for saying in sayings {
            say(&mut after, saying.moment(), saying.value());
        }
        for gone in before.iter().filter(|stretch| !after.contains(stretch)) {
            remove(db, device, attribute, gone)?;
            added -= 1;
        }
        for new in after.iter().filter(|stretch| !before.contains(stretch)) {
            insert(db, device, attribute, new)?;
            added += 1;
        }
    }
    add(db, "attribute_values", added)
}

fn remove(
    db: &Transaction<'_>,
    device: i64,
    attribute: &ElementName,
    stretch: &Stretch,
) -> rusqlite::Result<()> {
    let sql = "DELETE FROM attribute WHERE device = ?1 AND attribute = ?2
               AND (first_order, first_sequence, first_item) = (?3, ?4, ?5)";
    let Position {
        order,
        sequence,
        item,
    } = stretch.first.position;
    let place = params![
        device,
        attribute.as_str(),
        signed(order.0),
        signed(sequence.0),
        item
    ];
    db.prepare_cached(sql)?.execute(place).map(drop)
}

fn insert(
    db: &Transaction<'_>,
    device: i64,
    attribute: &ElementName,
    stretch: &Stretch,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO attribute VALUES (?1, ?2,
                 ?3, ?4, ?5, (SELECT id FROM channel WHERE name = ?6), ?7,
                 ?8, ?9, ?10, (SELECT id FROM channel WHERE name = ?11), ?12, ?13)";
    let Stretch { first, last, value } = stretch;
    db.prepare_cached(sql)?.execute(params![
        device,
        attribute.as_str(),
        signed(first.position.order.0),
        signed(first.position.sequence.0),
        first.position.item,
        first.channel.as_str(),
        first.arrived_ms,
        signed(last.position.order.0),
        signed(last.position.sequence.0),
        last.position.item,
        last.channel.as_str(),
        last.arrived_ms,
        value,
    ])?;
    Ok(())
}

const COLUMNS: &str = "a.first_order, a.first_sequence, a.first_item, f.name, a.first_arrived,
    a.last_order, a.last_sequence, a.last_item, l.name, a.last_arrived, a.value
  FROM attribute a JOIN channel f ON f.id = a.first_channel JOIN channel l ON l.id = a.last_channel";

/// The stretch that `from` falls in or follows, and those after it.
fn stretches_from(
    db: &Connection,
    device: i64,
    attribute: &ElementName,
    from: Position,
) -> rusqlite::Result<Vec<Stretch>> {
    let position = "(a.first_order, a.first_sequence, a.first_item)";
    let of_attribute = "a.device = ?1 AND a.attribute = ?2";
    let place = params![
        device,
        attribute.as_str(),
        signed(from.order.0),
        signed(from.sequence.0),
        from.item
    ];
    let before = format!(
        "SELECT {COLUMNS} WHERE {of_attribute} AND {position} <= (?3, ?4, ?5)
         ORDER BY a.first_order DESC, a.first_sequence DESC, a.first_item DESC LIMIT 1"
    );
    let after = format!(
        "SELECT {COLUMNS} WHERE {of_attribute} AND {position} > (?3, ?4, ?5)
         ORDER BY a.first_order, a.first_sequence, a.first_item"
    );
    let mut found = Vec::new();
    for sql in [before, after] {
        let mut select = db.prepare_cached(&sql)?;
        for stretch in select.query_map(place, stretch)? {
            found.push(stretch?);
        }
    }
    Ok(found)
}

fn stretch(row: &Row<'_>) -> rusqlite::Result<Stretch> {
    Ok(Stretch {
        first: moment(row, 0)?,
        last: moment(row, 5)?,
        value: row.get::<_, String>(10)?.into(),
    })
}

fn moment(row: &Row<'_>, from: usize) -> rusqlite::Result<Moment> {
    Ok(Moment {
        position: Position {
            order: Sequence(unsigned(row.get(from)?)),
            sequence: Sequence(unsigned(row.get(from + 1)?)),
            item: row.get(from + 2)?,
        },
        channel: channel(&row.get::<_, String>(from + 3)?)?,
        arrived_ms: row.get(from + 4)?,
    })
}

impl Chronicle {
    /// Attribute values of a range: those written, with what `told` adds.
    pub(crate) fn attributes(
        self: &Arc<Self>,
        told: &[Arc<Told<AttributeValue>>],
        range: &AttributeRange,
        keep: RecordKeep,
    ) -> Result<impl Iterator<Item = Result<Vec<StoredAttribute>, ReadError>> + use<>, ReadError>
    {
        let mut told_of: BTreeMap<DeviceKey, Vec<(ElementName, Saying)>> = BTreeMap::new();
        let wanted: HashSet<&DeviceKey> = range.devices.iter().collect();
        for (value, saying) in told.iter().flat_map(Saying::all) {
            let AttributeValue {
                device, attribute, ..
            } = value;
            let is_wanted = (wanted.is_empty() || wanted.contains(device))
                && (range.attributes.is_empty() || range.attributes.contains(attribute));
            if is_wanted {
                let of_device = told_of.entry(device.clone()).or_default();
                of_device.push((attribute.clone(), saying));
            }
        }
        let written = self.devices(&range.product, &range.devices)?;
        let mut devices: BTreeMap<DeviceKey, Option<i64>> = told_of
            .keys()
            .map(|device| (device.clone(), None))
            .collect();
        devices.extend(written.into_iter().map(|(device, id)| (device, Some(id))));
        if let Some(after) = &range.after {
            devices = devices.split_off(&after.device);
        }
        Ok(Reading {
            chronicle: Arc::clone(self),
            told: told_of,
            devices: devices.into_iter().collect(),
            left: range.rows_max,
            arrived_ms: keep.arrived_ms,
            range: range.clone(),
        })
    }
}

/// A read under way, a device at a time. Between two of them nothing is locked.
struct Reading {
    chronicle: Arc<Chronicle>,
    range: AttributeRange,
    /// What is in memory of each device, in order of commit.
    told: BTreeMap<DeviceKey, Vec<(ElementName, Saying)>>,
    /// Those still to be read, with their numbers where they are written.
    devices: VecDeque<(DeviceKey, Option<i64>)>,
    left: usize,
    /// What was said last before, and is in force no longer, is not kept.
    arrived_ms: i64,
}

impl Reading {
    fn slab(&mut self) -> Result<Vec<StoredAttribute>, ReadError> {
        let mut slab = Vec::new();
        while slab.len() < self.left.min(SLAB_ROWS) {
            let Some((device, id)) = self.devices.pop_front() else {
                break;
            };
            slab.extend(self.of_device(&device, id)?);
        }
        slab.truncate(self.left);
        self.left -= slab.len();
        Ok(slab)
    }

    fn of_device(
        &mut self,
        device: &DeviceKey,
        id: Option<i64>,
    ) -> Result<Vec<StoredAttribute>, ReadError> {
        let mut histories = match id {
            None => BTreeMap::new(),
            Some(id) => self.chronicle.read(|db| self.written(db, id))?,
        };
        for (attribute, saying) in self.told.remove(device).into_iter().flatten() {
            let history = histories.entry(attribute).or_default();
            say(history, saying.moment(), saying.value());
        }
        let mut found = Vec::new();
        for (attribute, mut history) in histories {
            if !self.range.history {
                history.drain(..history.len().saturating_sub(1));
            }
            let in_force = history.len().saturating_sub(1);
            let mut at = 0..;
            history.retain(|stretch| {
                at.next() == Some(in_force) || stretch.last.arrived_ms >= self.arrived_ms
            });
            let stored = history.into_iter().map(|s| stored(device, &attribute, s));
            found.extend(stored.filter(|stored| self.is_behind(&stored.place)));
        }
        Ok(found)
    }

    /// Behind the place to resume after. A value in force may have changed since: it was given.
    fn is_behind(&self, place: &AttributePlace) -> bool {
        let Some(after) = &self.range.after else {
            return true;
        };
        match self.range.history {
            true => place > after,
            false => (&place.device, &place.attribute) > (&after.device, &after.attribute),
        }
    }

    /// What is written of a device. Without history the last two stretches of an attribute are
    /// enough: what memory holds of the past can change no more than where the last one begins.
    fn written(
        &self,
        db: &Connection,
        device: i64,
    ) -> rusqlite::Result<BTreeMap<ElementName, Vec<Stretch>>> {
        let stretches_max = match self.range.history {
            true => i64::MAX,
            false => 2,
        };
        let sql = format!(
            "SELECT {COLUMNS} WHERE a.device = ?1 AND a.attribute = ?2
             ORDER BY a.first_order DESC, a.first_sequence DESC, a.first_item DESC LIMIT ?3"
        );
        let mut select = db.prepare_cached(&sql)?;
        let attributes = match self.range.attributes.as_slice() {
            [] => attributes_of(db, device)?,
            wanted => wanted.to_vec(),
        };
        let mut histories = BTreeMap::new();
        for attribute in attributes {
            let asked = params![device, attribute.as_str(), stretches_max];
            let rows = select.query_map(asked, stretch)?;
            let mut stretches: Vec<Stretch> = rows.collect::<rusqlite::Result<_>>()?;
            stretches.reverse();
            if !stretches.is_empty() {
                histories.insert(attribute, stretches);
            }
        }
        Ok(histories)
    }
}

/// The attributes that anything is written of: from one to the next, past their histories.
pub(super) fn attributes_of(db: &Connection, device: i64) -> rusqlite::Result<Vec<ElementName>> {
    let sql = "SELECT min(attribute) FROM attribute WHERE device = ?1 AND attribute > ?2";
    let mut select = db.prepare_cached(sql)?;
    let mut found: Vec<ElementName> = Vec::new();
    loop {
        let last = found.last().map_or("", ElementName::as_str);
        let next: Option<String> = select.query_row(params![device, last], |row| row.get(0))?;
        let Some(next) = next else { return Ok(found) };
        found.push(point(&next)?);
    }
}

impl Iterator for Reading {
    type Item = Result<Vec<StoredAttribute>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.slab()
            .map(|slab| Some(slab).filter(|slab| !slab.is_empty()))
            .transpose()
    }
}

fn stored(device: &DeviceKey, attribute: &ElementName, stretch: Stretch) -> StoredAttribute {
    let Stretch { first, last, value } = stretch;
    StoredAttribute {
        place: AttributePlace {
            device: device.clone(),
            attribute: attribute.clone(),
            order: first.position.order,
            sequence: first.position.sequence,
            item: first.position.item,
        },
        value,
        channel: first.channel,
        arrived_ms: first.arrived_ms,
        confirmed_ms: last.arrived_ms,
    }
}
