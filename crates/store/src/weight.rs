//! How much memory a commit takes: what every bound in bytes counts.
//!
//! Never less than the bytes of its record in the journal.

use backtide_model::{AttributeValue, Batch, Column, Occurrence, Presence, Values};

use crate::{Commit, Origin, Part, Refused};

/// The record around all parts: allocation, handles, counts.
const COMMIT_BYTES: usize = 256;
/// A name or text: its pointer and length, the allocation's own cost, its length in a record.
const TEXT_BYTES: usize = 48;

pub(crate) fn commit(commit: &Commit) -> usize {
    let parts: usize = commit.parts.iter().map(part).sum();
    COMMIT_BYTES + origin(&commit.origin) + commit.product.as_str().len() + parts
}

fn part(part: &Part) -> usize {
    match part {
        Part::Points(points) => batch(points),
        Part::Events(occurrences) => COMMIT_BYTES + events(occurrences),
        Part::Attributes(values) => COMMIT_BYTES + attributes(values),
        Part::Refused(refusal) => refused(refusal),
    }
}

/// Names are shared in memory and written once; counted for each, since a recovered commit has
/// names of its own.
pub(crate) fn events(occurrences: &[Occurrence]) -> usize {
    let weight = |o: &Occurrence| {
        let texts = [o.device.as_str(), o.event.as_str(), &o.output];
        size_of::<Occurrence>()
            + texts
                .iter()
                .map(|text| TEXT_BYTES + text.len())
                .sum::<usize>()
    };
    occurrences.iter().map(weight).sum()
}

pub(crate) fn attributes(values: &[AttributeValue]) -> usize {
    let weight = |v: &AttributeValue| {
        let texts = [v.device.as_str(), v.attribute.as_str(), &v.value];
        size_of::<AttributeValue>()
            + texts
                .iter()
                .map(|text| TEXT_BYTES + text.len())
                .sum::<usize>()
    };
    values.iter().map(weight).sum()
}

pub(crate) fn origin(origin: &Origin) -> usize {
    let texts = [
        origin.channel.as_str(),
        &origin.client,
        &origin.topic,
        &origin.message_id,
    ];
    texts.iter().map(|text| TEXT_BYTES + text.len()).sum()
}

pub(crate) fn batch(batch: &Batch) -> usize {
    let devices: usize = batch
        .devices
        .iter()
        .map(|device| TEXT_BYTES + device.as_str().len())
        .sum();
    let columns: usize = batch.columns.iter().map(column).sum();
    // A time is up to ten bytes in a record, two more than in memory.
    COMMIT_BYTES
        + devices
        + batch.row_device.capacity() * 5
        + batch.row_time.capacity() * 10
        + columns
}

fn column(column: &Column) -> usize {
    let rows = match &column.presence {
        Presence::All => 0,
        Presence::Some(rows) => rows.capacity() * 5,
    };
    let quality = column.quality.as_ref().map_or(0, Vec::capacity);
    COMMIT_BYTES + column.point.as_str().len() + rows + quality + values(&column.values)
}

fn values(values: &Values) -> usize {
    match values {
        Values::Bool(values) => values.capacity(),
        Values::Int(values) => values.capacity() * 4,
        Values::Long(values) => values.capacity() * 8,
        Values::Float(values) => values.capacity() * 4,
        Values::Double(values) => values.capacity() * 8,
        Values::Text(values) => values.iter().map(|value| TEXT_BYTES + value.len()).sum(),
    }
}

fn refused(refused: &Refused) -> usize {
    let items: usize = refused
        .items
        .iter()
        .map(|item| {
            let subject = item.device.as_ref().map_or(0, |device| device.len())
                + item.point.as_ref().map_or(0, |point| point.len());
            2 * TEXT_BYTES + subject + TEXT_BYTES + item.message.len()
        })
        .sum();
    COMMIT_BYTES + refused.raw.len() + items
}
