//! What a replay reads where the log no longer holds it: stored history.
//!
//! Segments keep what stands, not what came: a value that was overwritten is not there, and rows
//! come by device and time, not by commit. So each row becomes a commit of its own, under the
//! receipt of the commit that it was stored by.

use std::collections::{BTreeSet, HashMap};

use arrow_array::{
    Array, RecordBatch,
    cast::AsArray,
    types::{Float32Type, Float64Type, Int32Type, Int64Type, UInt8Type, UInt64Type},
};
use arrow_schema::DataType;
use backtide_model::{
    AttributeValue, BatchBuilder, Cell, ChannelName, ConflictPolicy, DeviceKey, ElementName,
    NO_QUALITY, Occurrence, ProductKey,
};
use backtide_store::{
    AttributePlace, AttributeRange, Commit, EventPlace, EventRange, Followed, Order, Origin, Part,
    Range, ReadError, Sequence, Store,
};
use serde::{Deserialize, Serialize};

use super::{drawer::Shelf, plan::Plan};
use crate::registry::RowKind;

/// Rows that are looked through at once.
const PAGE_ROWS: usize = 5_000;

/// A piece of stored history, as commits of one row each, and how far it is then.
pub(super) struct Page {
    pub(super) followed: Vec<Followed>,
    pub(super) shelf: Shelf,
}

/// A row with where it came from.
struct Row {
    sequence: Sequence,
    part: Part,
}

/// The next piece of what `from` up to the shelf's last commit stored.
///
/// # Errors
/// The store cannot be read.
pub(super) fn page(
    store: &Store,
    plan: &Plan,
    from: u64,
    shelf: &Shelf,
) -> Result<Page, ReadError> {
    let done = |shelf: &Shelf| Shelf {
        is_done: true,
        after: None,
        ..shelf.clone()
    };
    let mut products = plan.snapshot.products_after(shelf.product.as_deref());
    let Some(product) =
        products.find(|product| plan.matcher().has_product(&plan.heading(&product.key)))
    else {
        return Ok(Page {
            followed: Vec::new(),
            shelf: done(shelf),
        });
    };
    let read = match plan.matcher().contents() {
        RowKind::Points => points(store, plan, &product.key, shelf)?,
        RowKind::Events => events(store, plan, &product.key, shelf)?,
        RowKind::Attributes => attributes(store, &product.key, shelf)?,
    };
    let wanted = from..=shelf.last;
    let rows: Vec<Row> = read
        .rows
        .into_iter()
        .filter(|row| wanted.contains(&row.sequence.0))
        .collect();
    let shelf = match read.after {
        Some(after) => Shelf {
            after: Some(after),
            ..shelf.clone()
        },
        None => Shelf {
            product: Some(product.name.to_string()),
            after: None,
            ..shelf.clone()
        },
    };
    let followed = commits(store, &product.key, rows)?;
    Ok(Page { followed, shelf })
}

/// Rows of one read, and where to go on; nowhere at the product's end.
struct Read {
    rows: Vec<Row>,
    after: Option<serde_json::Value>,
}

/// Whether a page was full, and so is not the last.
fn after<T: Serialize>(read: usize, last: Option<T>) -> Option<serde_json::Value> {
    let last = last.filter(|_| read >= PAGE_ROWS)?;
    Some(serde_json::to_value(last).expect("names and numbers are JSON"))
}

fn resumed<T: for<'de> Deserialize<'de>>(shelf: &Shelf) -> Option<T> {
    // A place that does not read begins the product again: nothing is left out.
    serde_json::from_value(shelf.after.clone()?).ok()
}

fn points(
    store: &Store,
    plan: &Plan,
    product: &ProductKey,
    shelf: &Shelf,
) -> Result<Read, ReadError> {
    let (from_ms, to_ms) = plan.matcher().span();
    let slabs = store.read(&Range {
        product: product.clone(),
        devices: Vec::new(),
        points: Vec::new(),
        from_ms,
        to_ms,
        order: Order::DeviceTime,
        after: resumed(shelf),
        rows_max: PAGE_ROWS,
    })?;
    let (mut rows, mut last) = (Vec::new(), None);
    for slab in slabs {
        let slab = slab?;
        last = take_slab(&slab, &mut rows).or(last);
    }
    Ok(Read {
        after: after(rows.len(), last),
        rows,
    })
}

/// Points of a range, as commits of one row each.
///
/// # Errors
/// The store cannot be read.
pub(super) fn of_range(store: &Store, range: &Range) -> Result<Vec<Followed>, ReadError> {
    let mut rows = Vec::new();
    for slab in store.read(range)? {
        take_slab(&slab?, &mut rows);
    }
    commits(store, &range.product, rows)
}

/// Adds the rows of a slab; the place of the last.
fn take_slab(slab: &RecordBatch, rows: &mut Vec<Row>) -> Option<(DeviceKey, i64)> {
    let column = |name: &str| slab.column_by_name(name);
    let devices = column("_device")?.as_string_opt::<i32>()?;
    let times = column("_time")?.as_primitive_opt::<Int64Type>()?;
    let sequences = column("_sequence")?.as_primitive_opt::<UInt64Type>()?;
    let schema = slab.schema();
    let points: Vec<_> = schema
        .fields()
        .iter()
        .zip(slab.columns())
        .filter(|(field, _)| !field.name().starts_with('_') && !field.name().ends_with(".quality"))
        .filter_map(|(field, values)| {
            let name = ElementName::new(field.name()).ok()?;
            let quality = column(&format!("{}.quality", field.name()));
            Some((
                name,
                values,
                quality.and_then(|q| q.as_primitive_opt::<UInt8Type>()),
            ))
        })
        .collect();
    let mut last = None;
    for row in 0..slab.num_rows() {
        let device = DeviceKey::new(devices.value(row)).ok()?;
        let mut builder = BatchBuilder::new();
        builder.row(&device, times.value(row));
        for (name, values, quality) in &points {
            let Some(cell) = cell(values.as_ref(), row) else {
                continue;
            };
            let quality = quality.filter(|quality| quality.is_valid(row));
            let quality = quality.map_or(NO_QUALITY, |quality| quality.value(row));
            builder.cell(name, ConflictPolicy::KeepLast, cell, quality);
        }
        rows.push(Row {
            sequence: Sequence(sequences.value(row)),
            part: Part::Points(builder.build()),
        });
        last = Some((device, times.value(row)));
    }
    last
}

fn cell(values: &dyn Array, row: usize) -> Option<Cell> {
    if values.is_null(row) {
        return None;
    }
    Some(match values.data_type() {
        DataType::Boolean => Cell::Bool(values.as_boolean_opt()?.value(row)),
        DataType::Int32 => Cell::Int(values.as_primitive_opt::<Int32Type>()?.value(row)),
        DataType::Int64 => Cell::Long(values.as_primitive_opt::<Int64Type>()?.value(row)),
        DataType::Float32 => Cell::Float(values.as_primitive_opt::<Float32Type>()?.value(row)),
        DataType::Float64 => Cell::Double(values.as_primitive_opt::<Float64Type>()?.value(row)),
        _ => Cell::Text(values.as_string_opt::<i32>()?.value(row).into()),
    })
}

fn events(
    store: &Store,
    plan: &Plan,
    product: &ProductKey,
    shelf: &Shelf,
) -> Result<Read, ReadError> {
    let (from_ms, to_ms) = plan.matcher().span();
    let resumed: Option<(i64, DeviceKey, ElementName, [u8; 16])> = resumed(shelf);
    let slabs = store.events(&EventRange {
        product: product.clone(),
        devices: Vec::new(),
        events: Vec::new(),
        from_ms,
        to_ms,
        after: resumed.map(|(time_ms, device, event, digest)| EventPlace {
            time_ms,
            device,
            event,
            digest,
        }),
        rows_max: PAGE_ROWS,
    })?;
    let (mut rows, mut last) = (Vec::new(), None);
    for slab in slabs {
        for event in slab? {
            let place = event.place;
            rows.push(Row {
                sequence: event.sequence,
                part: Part::Events(vec![Occurrence {
                    device: place.device.clone(),
                    time_ms: place.time_ms,
                    event: place.event.clone(),
                    output: event.output,
                }]),
            });
            last = Some((place.time_ms, place.device, place.event, place.digest));
        }
    }
    Ok(Read {
        after: after(rows.len(), last),
        rows,
    })
}

fn attributes(store: &Store, product: &ProductKey, shelf: &Shelf) -> Result<Read, ReadError> {
    let resumed: Option<(DeviceKey, ElementName, u64, u64, u32)> = resumed(shelf);
    let slabs = store.attributes(&AttributeRange {
        product: product.clone(),
        devices: Vec::new(),
        attributes: Vec::new(),
        history: true,
        after: resumed.map(
            |(device, attribute, order, sequence, item)| AttributePlace {
                device,
                attribute,
                order: Sequence(order),
                sequence: Sequence(sequence),
                item,
            },
        ),
        rows_max: PAGE_ROWS,
    })?;
    let (mut rows, mut last) = (Vec::new(), None);
    for slab in slabs {
        for value in slab? {
            let place = value.place;
            rows.push(Row {
                sequence: place.sequence,
                part: Part::Attributes(vec![AttributeValue {
                    device: place.device.clone(),
                    attribute: place.attribute.clone(),
                    value: value.value,
                }]),
            });
            let (order, sequence) = (place.order.0, place.sequence.0);
            last = Some((place.device, place.attribute, order, sequence, place.item));
        }
    }
    Ok(Read {
        after: after(rows.len(), last),
        rows,
    })
}

fn commits(
    store: &Store,
    product: &ProductKey,
    rows: Vec<Row>,
) -> Result<Vec<Followed>, ReadError> {
    let sequences: BTreeSet<Sequence> = rows.iter().map(|row| row.sequence).collect();
    let sequences: Vec<Sequence> = sequences.into_iter().collect();
    let origins: HashMap<Sequence, Origin> = store
        .origins(&sequences)?
        .into_iter()
        .map(|lineage| (lineage.sequence, lineage.origin))
        .collect();
    let commits = rows.into_iter().map(|row| Followed {
        sequence: row.sequence,
        commit: Commit {
            origin: origins.get(&row.sequence).cloned().unwrap_or_else(nowhere),
            product: product.clone(),
            parts: vec![row.part],
            redrive: None,
        },
    });
    Ok(commits.collect())
}

/// Of a commit whose origin is not kept.
fn nowhere() -> Origin {
    Origin {
        channel: ChannelName::new("unknown").expect("seven letters are a name"),
        client: "".into(),
        topic: "".into(),
        message_id: "".into(),
        packet_id: None,
        policies: None,
        arrived_ms: 0,
    }
}

/// Commits whose origins are looked at together.
const LOOK: u64 = 4_096;

/// The first commit that arrived at or after `time_ms`; one behind the last where there is none.
/// Origins are looked through in order: what was driven again arrived earlier than its neighbours.
///
/// # Errors
/// The store cannot be read.
pub(super) fn first_since(store: &Store, time_ms: i64) -> Result<u64, ReadError> {
    let durable = store.durable().0;
    let mut next = 1;
    while next <= durable {
        let until = durable.min(next + LOOK - 1);
        let sequences: Vec<Sequence> = (next..=until).map(Sequence).collect();
        let origins = store.origins(&sequences)?;
        let found = origins
            .iter()
            .find(|lineage| lineage.origin.arrived_ms >= time_ms);
        if let Some(lineage) = found {
            return Ok(lineage.sequence.0);
        }
        next = until + 1;
    }
    Ok(durable + 1)
}

/// The last commit that arrived before `time_ms`; 0 where there is none.
///
/// # Errors
/// The store cannot be read.
pub(super) fn last_before(store: &Store, time_ms: i64) -> Result<u64, ReadError> {
    let mut until = store.durable().0;
    while until > 0 {
        let first = until.saturating_sub(LOOK - 1).max(1);
        let sequences: Vec<Sequence> = (first..=until).map(Sequence).collect();
        let origins = store.origins(&sequences)?;
        let found = origins
            .iter()
            .rev()
            .find(|lineage| lineage.origin.arrived_ms < time_ms);
        if let Some(lineage) = found {
            return Ok(lineage.sequence.0);
        }
        until = first - 1;
    }
    Ok(0)
}
