//! The published message: one JSON object for each row of a device, the same text whether it goes
//! to Kafka, to a webhook or to a subscriber (`decisions.md` §6).
//!
//! A followed commit becomes [`Row`]s, in order of commit; a row writes itself as JSON. Its key is
//! the asset id, so that the rows of a device stay in order wherever keys keep order. Pure: it
//! knows no log, no topic and no clock.

use std::{borrow::Cow, sync::Arc};

use backtide_model::{AssetId, Batch, DeviceKey, ElementName, NO_QUALITY, ObjectName, Values};
use backtide_store::{Commit, Part};
use serde_json::value::RawValue;

use crate::{
    query,
    registry::{Product, Snapshot},
};

/// The version of the message's schema, in the header [`header::SCHEMA`].
pub const SCHEMA_VERSION: &str = "1";
/// The JSON Schema of the message, 2020-12.
pub const SCHEMA: &str = include_str!("message/schema.json");

/// Names of the headers that go with a message where the destination has headers.
pub mod header {
    /// The channel that the commit came by.
    pub const CHANNEL: &str = "backtide-channel";
    /// The receipt of the commit; with [`SEQUENCE`] it names a row for ever.
    pub const RECEIPT: &str = "backtide-receipt";
    /// The row's place in its commit, from 0. Published again, a row has the same receipt and
    /// sequence: drop what you have seen.
    pub const SEQUENCE: &str = "backtide-sequence";
    /// [`super::SCHEMA_VERSION`].
    pub const SCHEMA: &str = "backtide-schema";
}

/// What all rows of a commit have in common.
#[derive(Debug, Clone)]
pub struct Heading {
    pub organization: ObjectName,
    /// `None`: the product was deleted since.
    product: Option<Arc<Product>>,
    product_key: String,
}

/// One row of a device as it is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// Its place in the commit, from 0: the same however often the commit is read.
    pub sequence: u64,
    /// The key of the message.
    pub asset_id: AssetId,
    pub device_key: DeviceKey,
    /// Event time, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// Not empty.
    pub values: Vec<PointValue<'a>>,
}

/// The value of one point in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct PointValue<'a> {
    pub point: Cow<'a, str>,
    pub value: Value<'a>,
    /// 0–9.
    pub quality: Option<u8>,
}

/// A value as it is published.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    Bool(bool),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    Text(Cow<'a, str>),
    /// JSON text: of a struct, an array, a map, or a point that the model does not declare.
    Json(Cow<'a, str>),
}

impl Heading {
    pub fn new(organization: &ObjectName, snapshot: &Snapshot, commit: &Commit) -> Self {
        Self {
            organization: organization.clone(),
            product: snapshot.product_by_key(&commit.product).cloned(),
            product_key: commit.product.to_string(),
        }
    }

    /// The product as it is declared now; `None` where it was deleted since.
    pub fn product(&self) -> Option<&Arc<Product>> {
        self.product.as_ref()
    }

    /// The model's name; empty where the product was deleted since.
    pub fn model_id(&self) -> &str {
        self.product
            .as_ref()
            .map_or("", |product| product.model_name.as_str())
    }

    pub fn product_key(&self) -> &str {
        &self.product_key
    }

    fn is_json(&self, point: &ElementName) -> bool {
        self.product
            .as_ref()
            .is_some_and(|product| query::is_json(product, point))
    }
}

/// The rows of a commit, in order; rows without values are left out, yet counted.
pub fn rows<'a>(
    heading: &'a Heading,
    snapshot: &'a Snapshot,
    commit: &'a Commit,
) -> impl Iterator<Item = Row<'a>> {
    let mut next = 0;
    commit.parts.iter().flat_map(move |part| match part {
        Part::Points(batch) => {
            let first = next;
            next += batch.rows() as u64;
            Some(rows_of(batch, first, heading, snapshot, commit))
                .into_iter()
                .flatten()
        }
        Part::Events(_) | Part::Attributes(_) | Part::Refused(_) => None.into_iter().flatten(),
    })
}

fn rows_of<'a>(
    batch: &'a Batch,
    first: u64,
    heading: &Heading,
    snapshot: &Snapshot,
    commit: &Commit,
) -> impl Iterator<Item = Row<'a>> + use<'a> {
    let assets: Vec<AssetId> = batch
        .devices
        .iter()
        .map(|device| asset(snapshot, commit, device))
        .collect();
    let is_json: Vec<bool> = batch
        .columns
        .iter()
        .map(|column| heading.is_json(&column.point))
        .collect();
    let cells = Cells::of(batch);
    (0..batch.rows()).filter_map(move |row| {
        let values: Vec<_> = cells
            .of_row(row)
            .iter()
            .map(|cell| {
                let column = &batch.columns[cell.column as usize];
                let index = cell.index as usize;
                PointValue {
                    point: Cow::Borrowed(column.point.as_str()),
                    value: value(&column.values, index, is_json[cell.column as usize]),
                    quality: Some(column.quality_of(index)).filter(|q| *q != NO_QUALITY),
                }
            })
            .collect();
        let device = batch.row_device[row] as usize;
        (!values.is_empty()).then(|| Row {
            sequence: first + row as u64,
            asset_id: assets[device].clone(),
            device_key: batch.devices[device].clone(),
            time_ms: batch.row_time[row],
            values,
        })
    })
}

fn asset(snapshot: &Snapshot, commit: &Commit, device: &DeviceKey) -> AssetId {
    let known = snapshot.asset_of(&commit.product, device).cloned();
    // Asset ids outlive their devices: only where the registry was lost is there none.
    known.unwrap_or_else(|| {
        AssetId::new(device.as_str()).expect("a device key has the form of an asset id")
    })
}

fn value(values: &Values, index: usize, is_json: bool) -> Value<'_> {
    match values {
        Values::Bool(v) => Value::Bool(v[index]),
        Values::Int(v) => Value::Int(v[index]),
        Values::Long(v) => Value::Long(v[index]),
        Values::Float(v) => Value::Float(v[index]),
        Values::Double(v) => Value::Double(v[index]),
        Values::Text(v) if is_json => Value::Json(Cow::Borrowed(&v[index])),
        Values::Text(v) => Value::Text(Cow::Borrowed(&v[index])),
    }
}

/// The cells of a batch by row: columns are sparse, and looking into each for every row would cost
/// rows × points.
struct Cells {
    /// Where the cells of a row begin; one more at the end.
    starts: Vec<u32>,
    cells: Vec<CellAt>,
}

#[derive(Clone, Copy, Default)]
struct CellAt {
    column: u32,
    index: u32,
}

impl Cells {
    fn of(batch: &Batch) -> Self {
        let mut starts = vec![0_u32; batch.rows() + 1];
        for column in &batch.columns {
            for index in 0..column.values.len() {
                starts[column.row_of(index) + 1] += 1;
            }
        }
        for row in 1..starts.len() {
            starts[row] += starts[row - 1];
        }
        let mut next = starts.clone();
        let mut cells = vec![CellAt::default(); batch.cells()];
        for (at, column) in (0..).zip(&batch.columns) {
            for index in 0..column.values.len() {
                let place = &mut next[column.row_of(index)];
                cells[*place as usize] = CellAt {
                    column: at,
                    index: u32::try_from(index).expect("a column has no more values than rows"),
                };
                *place += 1;
            }
        }
        Self { starts, cells }
    }

    fn of_row(&self, row: usize) -> &[CellAt] {
        &self.cells[self.starts[row] as usize..self.starts[row + 1] as usize]
    }
}

impl Row<'_> {
    /// Appends the message as JSON text without blanks.
    pub fn write(&self, heading: &Heading, out: &mut Vec<u8>) {
        let model = heading.model_id();
        out.extend_from_slice(b"{\"orgId\":");
        quote(out, heading.organization.as_str());
        out.extend_from_slice(b",\"modelId\":");
        quote(out, model);
        out.extend_from_slice(b",\"modelIdPath\":");
        quote(out, &format!("/{model}"));
        out.extend_from_slice(b",\"assetId\":");
        quote(out, self.asset_id.as_str());
        out.extend_from_slice(b",\"productKey\":");
        quote(out, &heading.product_key);
        out.extend_from_slice(b",\"deviceKey\":");
        quote(out, self.device_key.as_str());
        out.extend_from_slice(b",\"time\":");
        integer(out, self.time_ms);
        out.extend_from_slice(b",\"channel\":\"OFFLINE\",\"payload\":[{\"assetId\":");
        quote(out, self.asset_id.as_str());
        out.extend_from_slice(b",\"time\":");
        integer(out, self.time_ms);
        out.extend_from_slice(b",\"measurepoints\":");
        let begins = out.len();
        object(out, self.values.iter().map(|v| (&v.point, &v.value)));
        let points = out[begins..].to_vec();
        out.extend_from_slice(b",\"points\":");
        quote(
            out,
            std::str::from_utf8(&points).expect("what was written is text"),
        );
        out.extend_from_slice(b"}]");
        if self.values.iter().any(|value| value.quality.is_some()) {
            out.extend_from_slice(b",\"dq\":");
            let qualities = self.values.iter().filter_map(|value| {
                let quality = Value::Int(value.quality?.into());
                Some((&value.point, quality))
            });
            object(out, qualities);
        }
        out.push(b'}');
    }

    /// The message as text.
    pub fn text(&self, heading: &Heading) -> String {
        let mut out = Vec::with_capacity(512);
        self.write(heading, &mut out);
        String::from_utf8(out).expect("what was written is text")
    }
}

impl Value<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Int(value) => integer(out, *value),
            Self::Long(value) => integer(out, *value),
            // The shortest text that reads back the same.
            Self::Float(value) => {
                out.extend_from_slice(zmij::Buffer::new().format(*value).as_bytes());
            }
            Self::Double(value) => {
                out.extend_from_slice(zmij::Buffer::new().format(*value).as_bytes());
            }
            Self::Text(text) => quote(out, text),
            // A model that changed since may call text JSON that is none.
            Self::Json(text) if serde_json::from_str::<&RawValue>(text).is_err() => {
                quote(out, text);
            }
            Self::Json(text) => out.extend_from_slice(text.as_bytes()),
        }
    }
}

fn object<'v, V: std::borrow::Borrow<Value<'v>>>(
    out: &mut Vec<u8>,
    members: impl Iterator<Item = (impl AsRef<str>, V)>,
) {
    let mut separator = b'{';
    for (name, value) in members {
        out.push(separator);
        quote(out, name.as_ref());
        out.push(b':');
        value.borrow().write(out);
        separator = b',';
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn quote(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes every write");
}

#[cfg(test)]
mod tests;
