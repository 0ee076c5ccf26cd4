//! Events, values of attributes, the channel log and the quarantine, page by page.

use std::sync::Arc;

use backtide_model::{ChannelName, ElementName};
use backtide_store::{AttributeRange, EventRange, StoredAttribute, StoredEvent};
use datafusion::common::ScalarValue;

use super::{
    super::{Sources, error::unreadable, history, wanted::Wanted},
    BATCH_ROWS, Is, Row, Slabs, long, text, text_or_none, time,
};
use crate::{
    channel_log::{self, Record, What},
    quarantine::{self, Page},
    registry::Product,
};

pub(super) const EVENTS: &[(&str, Is)] = &[
    ("time", Is::Time),
    ("product", Is::Text),
    ("device", Is::Text),
    ("event", Is::Text),
    ("output", Is::Text),
    ("channel", Is::Text),
    ("arrived", Is::Time),
    ("sequence", Is::Long),
];

pub(super) const ATTRIBUTES: &[(&str, Is)] = &[
    ("product", Is::Text),
    ("device", Is::Text),
    ("attribute", Is::Text),
    ("value", Is::Text),
    ("current", Is::Bool),
    ("channel", Is::Text),
    ("arrived", Is::Time),
    ("confirmed", Is::Time),
    ("sequence", Is::Long),
];

pub(super) const CHANNEL_LOG: &[(&str, Is)] = &[
    ("id", Is::Long),
    ("time", Is::Time),
    ("channel", Is::Text),
    ("client", Is::Text),
    ("kind", Is::Text),
    ("topic", Is::Text),
    ("bytes", Is::Long),
    ("items", Is::Long),
    ("code", Is::Int),
    ("ms", Is::Double),
    ("receipt", Is::Text),
    ("device", Is::Text),
    ("point", Is::Text),
    ("message", Is::Text),
];

pub(super) const QUARANTINE: &[(&str, Is)] = &[
    ("id", Is::Text),
    ("time", Is::Time),
    ("channel", Is::Text),
    ("client", Is::Text),
    ("topic", Is::Text),
    ("product", Is::Text),
    ("code", Is::Int),
    ("reason", Is::Text),
    ("device", Is::Text),
    ("point", Is::Text),
    ("rejected", Is::Long),
    ("bytes", Is::Long),
    ("cause", Is::Long),
    ("attempts", Is::Long),
    ("last_attempt", Is::Time),
];

/// The products that are wanted.
fn products(sources: &Sources, wanted: &Wanted) -> Vec<Arc<Product>> {
    let snapshot = sources.registry.snapshot();
    let products = snapshot.products_after(None);
    let wants = |product: &&Arc<Product>| wanted.wants("product", product.name.as_ref());
    products.filter(wants).cloned().collect()
}

/// The names of elements that are wanted, as the store takes them; `None`: none can be.
fn elements(wanted: &Wanted, column: &str) -> Option<Vec<ElementName>> {
    let Some(names) = wanted.names(column) else {
        return Some(Vec::new());
    };
    let names = names.iter().filter_map(|name| ElementName::new(name).ok());
    let names: Vec<_> = names.collect();
    (!names.is_empty()).then_some(names)
}

fn none() -> Slabs {
    Box::new(std::iter::empty())
}

fn failed(error: impl ToString) -> Slabs {
    Box::new(std::iter::once(Err(unreadable(error))))
}

pub(super) fn events(sources: &Sources, wanted: &Wanted) -> Slabs {
    let (Some(devices), Some(events)) = (history::devices(wanted), elements(wanted, "event"))
    else {
        return none();
    };
    let (store, products) = (sources.store.clone(), products(sources, wanted));
    let (from_ms, to_ms) = (wanted.from_ms, wanted.to_ms);
    let slabs = products.into_iter().flat_map(move |product| -> Slabs {
        let range = EventRange {
            product: product.key.clone(),
            devices: devices.clone(),
            events: events.clone(),
            from_ms,
            to_ms,
            after: None,
            rows_max: usize::MAX,
        };
        match store.events(&range) {
            Err(error) => failed(error),
            Ok(slabs) => Box::new(slabs.map(move |slab| {
                let slab = slab.map_err(unreadable)?;
                Ok(slab
                    .iter()
                    .map(|event| event_row(&product, event))
                    .collect())
            })),
        }
    });
    Box::new(slabs)
}

fn event_row(product: &Product, event: &StoredEvent) -> Row {
    vec![
        time(Some(event.place.time_ms)),
        text(&product.name),
        text(&event.place.device),
        text(&event.place.event),
        text(&event.output),
        text(&event.channel),
        time(Some(event.arrived_ms)),
        long(event.sequence.0),
    ]
}

pub(super) fn attributes(sources: &Sources, wanted: &Wanted) -> Slabs {
    let devices = history::devices(wanted);
    let (Some(devices), Some(attributes)) = (devices, elements(wanted, "attribute")) else {
        return none();
    };
    let (store, products) = (sources.store.clone(), products(sources, wanted));
    let slabs = products.into_iter().flat_map(move |product| -> Slabs {
        let range = AttributeRange {
            product: product.key.clone(),
            devices: devices.clone(),
            attributes: attributes.clone(),
            history: true,
            after: None,
            rows_max: usize::MAX,
        };
        match store.attributes(&range) {
            Err(error) => failed(error),
            Ok(slabs) => Box::new(slabs.map(move |slab| {
                let slab = slab.map_err(unreadable)?;
                let next = slab.iter().skip(1).map(Some).chain([None]);
                // The values of a device are never parted: the last of its kind is the current one.
                let rows = slab.iter().zip(next).map(|(value, next)| {
                    let is_same = |next: &StoredAttribute| {
                        next.place.device == value.place.device
                            && next.place.attribute == value.place.attribute
                    };
                    attribute_row(&product, value, !next.is_some_and(is_same))
                });
                Ok(rows.collect())
            })),
        }
    });
    Box::new(slabs)
}

fn attribute_row(product: &Product, value: &StoredAttribute, is_current: bool) -> Row {
    vec![
        text(&product.name),
        text(&value.place.device),
        text(&value.place.attribute),
        text(&value.value),
        ScalarValue::Boolean(Some(is_current)),
        text(&value.channel),
        time(Some(value.arrived_ms)),
        time(Some(value.confirmed_ms)),
        long(value.place.sequence.0),
    ]
}

/// Of a list of channels each; `None` alone where all are wanted.
fn channels(wanted: &Wanted) -> Vec<Option<String>> {
    match wanted.names("channel") {
        None => vec![None],
        Some(names) => names.iter().cloned().map(Some).collect(),
    }
}

pub(super) fn channel_log(sources: &Sources, wanted: &Wanted) -> Slabs {
    let log = Arc::clone(&sources.log);
    let (from_ms, to_ms) = bounds(wanted);
    let known = |name: Option<String>| match name {
        None => Some(None),
        Some(name) => ChannelName::new(&name).ok().map(Some),
    };
    let channels: Vec<_> = channels(wanted).into_iter().filter_map(known).collect();
    let slabs = channels.into_iter().flat_map(move |channel| {
        let mut filter = channel_log::Filter {
            channel,
            from_ms,
            to_ms,
            limit: BATCH_ROWS,
            ..channel_log::Filter::default()
        };
        let log = Arc::clone(&log);
        std::iter::from_fn(move || {
            let page = match log.list(&filter) {
                Ok(page) => page,
                Err(error) => return Some(Err(unreadable(error))),
            };
            filter.after = page.last()?.id;
            Some(Ok(page.iter().map(log_row).collect()))
        })
    });
    Box::new(until_failure(slabs))
}

fn bounds(wanted: &Wanted) -> (Option<i64>, Option<i64>) {
    let (from_ms, to_ms) = (wanted.from_ms, wanted.to_ms);
    (
        (from_ms != i64::MIN).then_some(from_ms),
        (to_ms != i64::MAX).then_some(to_ms),
    )
}

/// A page that cannot be read is the last: what asks again would fail for ever.
fn until_failure(
    slabs: impl Iterator<Item = datafusion::common::Result<Vec<Row>>>,
) -> impl Iterator<Item = datafusion::common::Result<Vec<Row>>> {
    let mut has_failed = false;
    slabs.take_while(move |slab| !std::mem::replace(&mut has_failed, slab.is_err()))
}

fn log_row(record: &Record) -> Row {
    let entry = &record.entry;
    let mut row = vec![
        long(record.id),
        time(Some(entry.time_ms)),
        text(&entry.channel),
        text(&entry.client),
        text(entry.what.kind().name()),
    ];
    let code = ScalarValue::Int32(entry.what.code().map(i32::from));
    let none = || ScalarValue::Utf8(None);
    let (topic, counts, tail) = match &entry.what {
        What::Transmission {
            topic,
            bytes,
            items,
            ms,
            receipt,
            ..
        } => (
            text(topic),
            [long(*bytes), long(*items)],
            [
                ScalarValue::Float64(Some(*ms)),
                text_or_none(receipt.as_ref()),
                none(),
                none(),
                none(),
            ],
        ),
        What::Error {
            topic,
            message,
            device_key,
            point,
            ..
        } => (
            text_or_none(topic.as_ref()),
            no_counts(),
            [
                ScalarValue::Float64(None),
                none(),
                text_or_none(device_key.as_ref()),
                text_or_none(point.as_ref()),
                text(message),
            ],
        ),
        What::Connect { remote, protocol } => said(&format!("MQTT {protocol} from {remote}")),
        What::Disconnect { reason } => said(reason),
        What::Audit { message } | What::Dropped { message, .. } => said(message),
    };
    row.push(topic);
    row.extend(counts);
    row.push(code);
    row.extend(tail);
    row
}

fn no_counts() -> [ScalarValue; 2] {
    [ScalarValue::Int64(None), ScalarValue::Int64(None)]
}

/// An entry that is a text.
fn said(message: &str) -> (ScalarValue, [ScalarValue; 2], [ScalarValue; 5]) {
    let none = || ScalarValue::Utf8(None);
    let tail = [
        ScalarValue::Float64(None),
        none(),
        none(),
        none(),
        text(message),
    ];
    (none(), no_counts(), tail)
}

pub(super) fn quarantine(sources: &Sources, wanted: &Wanted) -> Slabs {
    let (from_ms, to_ms) = bounds(wanted);
    let sources = sources.clone();
    let slabs = channels(wanted).into_iter().flat_map(move |channel| {
        let filter = quarantine::Filter {
            channel,
            from_ms,
            to_ms,
            ..quarantine::Filter::default()
        };
        let (mut page, sources) = (Page::first(BATCH_ROWS), sources.clone());
        std::iter::from_fn(move || {
            let listing = match sources.quarantine.list(&filter, page) {
                Ok(listing) => listing,
                Err(error) => return Some(Err(unreadable(error))),
            };
            page.after = Some(listing.found.last()?.id);
            let rows = listing.found.iter().map(|e| quarantine_row(&sources, e));
            Some(Ok(rows.collect()))
        })
    });
    Box::new(until_failure(slabs))
}

fn quarantine_row(sources: &Sources, entry: &quarantine::Entry) -> Row {
    // An entry has the product's key; the other tables have its name.
    let snapshot = sources.registry.current();
    let product = snapshot.product_by_key(&entry.product);
    let product = product.map_or(entry.product.as_str(), |product| product.name.as_ref());
    let rejected = u64::from(entry.more) + entry.items.len() as u64;
    vec![
        text(entry.id.to_string()),
        time(Some(entry.time_ms)),
        text(&entry.channel),
        text(&entry.client),
        text(&entry.topic),
        text(product),
        ScalarValue::Int32(Some(i32::from(entry.code))),
        text(entry.reason()),
        text_or_none(entry.device()),
        text_or_none(entry.point()),
        long(rejected),
        long(entry.payload_bytes),
        long(entry.cause),
        long(entry.attempts),
        time(entry.tried_ms),
    ]
}
