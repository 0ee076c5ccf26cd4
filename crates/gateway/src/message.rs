//! The published message: one JSON object for each row of a device, the same text whether it goes
//! to Kafka, to a webhook or to a subscriber (`decisions.md` §6).
//!
//! A followed commit becomes [`Row`]s, in order of commit; a row writes itself as JSON. Its key is
//! the asset id, so that the rows of a device stay in order wherever keys keep order. Pure: it
//! knows no log, no topic and no clock.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use backtide_model::{
    AssetId, AttributeValue, Batch, DeviceKey, ElementName, NO_QUALITY, ObjectName, Occurrence,
    ProductKey, Values,
};
use backtide_store::{Commit, Part};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
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
    /// `segments`: published again out of stored history, where the log no longer held the commit.
    /// Such a row has no [`SEQUENCE`].
    pub const REPLAY: &str = "backtide-replay";
}

/// What a rule writes back has a topic that begins so and ends with the rule's name. Nothing that a
/// client sends is stored under such a topic.
pub const CALCULATED_TOPIC: &str = "$calculated/";

/// Whether a rule made these rows of others.
pub fn is_calculated(commit: &Commit) -> bool {
    commit.origin.topic.starts_with(CALCULATED_TOPIC)
}

/// What all rows of a commit have in common.
#[derive(Debug, Clone)]
pub struct Heading {
    pub organization: ObjectName,
    /// `None`: the product was deleted since.
    product: Option<Arc<Product>>,
    product_key: ProductKey,
}

/// One row of a device as it is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// Its place in the commit, from 0: the same however often the commit is read.
    pub sequence: u64,
    /// The key of the message.
    pub asset_id: AssetId,
    pub device_key: DeviceKey,
    /// Event time, milliseconds since 1970 UTC; of attributes the time of their arrival.
    pub time_ms: i64,
    pub body: Body<'a>,
}

/// What a row tells of its device.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'a> {
    /// Not empty.
    Points(Vec<PointValue<'a>>),
    /// Something that happened; the output is a JSON object.
    Event {
        event: Cow<'a, str>,
        output: Cow<'a, str>,
    },
    /// Names and values, as JSON text; not empty.
    Attributes(Vec<(Cow<'a, str>, Cow<'a, str>)>),
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

impl<'a> Body<'a> {
    /// Its values by their names: points, the members of an event's output, attributes. Members that
    /// are null are left out.
    ///
    /// # Errors
    /// A text that is no JSON: of a model that changed since.
    pub fn values(&self) -> Result<Vec<PointValue<'a>>, String> {
        match self {
            Self::Points(values) => Ok(values.clone()),
            Self::Event { output, .. } => {
                let Members(members) =
                    serde_json::from_str(output).map_err(|error| error.to_string())?;
                let values = members.into_iter().filter(|(_, json)| json.get() != "null");
                let owned = |(name, json): (Cow<'_, str>, &RawValue)| {
                    Ok(PointValue {
                        point: Cow::Owned(name.into_owned()),
                        value: value_of(json.get())?,
                        quality: None,
                    })
                };
                values.map(owned).collect()
            }
            Self::Attributes(values) => {
                let values = values.iter().filter(|(_, json)| json != "null");
                let read = |(name, json): &(Cow<'a, str>, Cow<'a, str>)| {
                    Ok(PointValue {
                        point: name.clone(),
                        value: value_of(json)?,
                        quality: None,
                    })
                };
                values.map(read).collect()
            }
        }
    }

    /// The same with other values.
    #[must_use]
    pub fn with_values(self, values: Vec<PointValue<'a>>) -> Self {
        match self {
            Self::Points(_) => Self::Points(values),
            Self::Event { event, .. } => {
                let mut output = Vec::new();
                object(&mut output, values.iter().map(|v| (&v.point, &v.value)));
                let output = String::from_utf8(output).expect("what was written is text");
                Self::Event {
                    event,
                    output: output.into(),
                }
            }
            Self::Attributes(_) => {
                let pair = |value: PointValue<'a>| (value.point, Cow::Owned(value.value.json()));
                Self::Attributes(values.into_iter().map(pair).collect())
            }
        }
    }
}

impl Heading {
    pub fn new(organization: &ObjectName, snapshot: &Snapshot, product_key: &ProductKey) -> Self {
        Self {
            organization: organization.clone(),
            product: snapshot.product_by_key(product_key).cloned(),
            product_key: product_key.clone(),
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

    pub fn product_key(&self) -> &ProductKey {
        &self.product_key
    }

    fn is_json(&self, point: &ElementName) -> bool {
        self.product
            .as_ref()
            .is_some_and(|product| query::is_json(product, point))
    }
}

/// The rows of a commit, in order; rows without values are left out, yet counted. The attributes that
/// a message sets of one device are one row.
pub fn rows<'a>(
    heading: &'a Heading,
    snapshot: &'a Snapshot,
    commit: &'a Commit,
) -> impl Iterator<Item = Row<'a>> {
    let mut next = 0;
    commit.parts.iter().flat_map(move |part| {
        let first = next;
        next += match part {
            Part::Points(batch) => batch.rows(),
            Part::Events(occurrences) => occurrences.len(),
            Part::Attributes(values) => values.len(),
            Part::Refused(_) => 0,
        } as u64;
        let rows: Box<dyn Iterator<Item = Row<'a>> + 'a> = match part {
            Part::Points(batch) => Box::new(rows_of(batch, first, heading, snapshot, commit)),
            Part::Events(occurrences) => Box::new(events(occurrences, first, snapshot, commit)),
            Part::Attributes(values) => Box::new(attributes(values, first, snapshot, commit)),
            Part::Refused(_) => Box::new(std::iter::empty()),
        };
        rows
    })
}

fn events<'a>(
    occurrences: &'a [Occurrence],
    first: u64,
    snapshot: &'a Snapshot,
    commit: &'a Commit,
) -> impl Iterator<Item = Row<'a>> {
    (first..)
        .zip(occurrences)
        .map(|(sequence, occurrence)| Row {
            sequence,
            asset_id: asset(snapshot, commit, &occurrence.device),
            device_key: occurrence.device.clone(),
            time_ms: occurrence.time_ms,
            body: Body::Event {
                event: Cow::Borrowed(occurrence.event.as_str()),
                output: Cow::Borrowed(&occurrence.output),
            },
        })
}

fn attributes<'a>(
    values: &'a [AttributeValue],
    first: u64,
    snapshot: &'a Snapshot,
    commit: &'a Commit,
) -> impl Iterator<Item = Row<'a>> {
    let mut next = first;
    values
        .chunk_by(|a, b| a.device == b.device && a.attribute != b.attribute)
        .map(move |of_device| {
            let sequence = next;
            next += of_device.len() as u64;
            let device = &of_device[0].device;
            let pair = |value: &'a AttributeValue| {
                let name = Cow::Borrowed(value.attribute.as_str());
                (name, Cow::Borrowed(&*value.value))
            };
            Row {
                sequence,
                asset_id: asset(snapshot, commit, device),
                device_key: device.clone(),
                time_ms: commit.origin.arrived_ms,
                body: Body::Attributes(of_device.iter().map(pair).collect()),
            }
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
            body: Body::Points(values),
        })
    })
}

fn asset(snapshot: &Snapshot, commit: &Commit, device: &DeviceKey) -> AssetId {
    let known = snapshot.asset_of(&commit.product, device).cloned();
    // Asset ids outlive their devices: only where the registry was lost is there none.
    known.unwrap_or_else(|| as_asset(device))
}

fn as_asset(device: &DeviceKey) -> AssetId {
    AssetId::new(device.as_str()).expect("a device key has the form of an asset id")
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
        quote(out, heading.product_key.as_str());
        out.extend_from_slice(b",\"deviceKey\":");
        quote(out, self.device_key.as_str());
        out.extend_from_slice(b",\"time\":");
        integer(out, self.time_ms);
        out.extend_from_slice(b",\"channel\":\"OFFLINE\",\"payload\":[{\"assetId\":");
        quote(out, self.asset_id.as_str());
        out.extend_from_slice(b",\"time\":");
        integer(out, self.time_ms);
        match &self.body {
            Body::Points(values) => points(out, values),
            Body::Event { event, output } => {
                out.extend_from_slice(b",\"event\":");
                quote(out, event);
                out.extend_from_slice(b",\"output\":");
                out.extend_from_slice(output.as_bytes());
                out.extend_from_slice(b"}]");
            }
            Body::Attributes(values) => {
                out.extend_from_slice(b",\"attributes\":");
                let values = values.iter();
                object(out, values.map(|(n, v)| (n, Value::Json(Cow::Borrowed(v)))));
                out.extend_from_slice(b"}]");
            }
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

/// The rest of the payload's only item, and the qualities.
fn points(out: &mut Vec<u8>, values: &[PointValue<'_>]) {
    out.extend_from_slice(b",\"measurepoints\":");
    let begins = out.len();
    object(out, values.iter().map(|v| (&v.point, &v.value)));
    let points = out[begins..].to_vec();
    out.extend_from_slice(b",\"points\":");
    let points = std::str::from_utf8(&points).expect("what was written is text");
    quote(out, points);
    out.extend_from_slice(b"}]");
    if values.iter().any(|value| value.quality.is_some()) {
        out.extend_from_slice(b",\"dq\":");
        let qualities = values.iter().filter_map(|value| {
            let quality = Value::Int(value.quality?.into());
            Some((&value.point, quality))
        });
        object(out, qualities);
    }
}

impl Value<'_> {
    /// As JSON text.
    pub fn json(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        String::from_utf8(out).expect("what was written is text")
    }

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

/// Reads a message that was written, by hand or by [`Row::write`]. Members that it does not need may
/// be absent.
///
/// # Errors
/// What is wrong with it.
pub fn read(text: &str) -> Result<(ProductKey, Row<'static>), String> {
    let message: Written<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let [item] = message.payload;
    let body = match (item.measurepoints, item.event, item.output, item.attributes) {
        (Some(Members(points)), None, None, None) => {
            let values = points.into_iter().map(|(point, json)| {
                Ok(PointValue {
                    quality: message.dq.get(point.as_ref()).copied(),
                    value: value_of(json.get())?,
                    point: point.into_owned().into(),
                })
            });
            Body::Points(values.collect::<Result<_, String>>()?)
        }
        (None, Some(event), Some(output), None) => Body::Event {
            event: event.into(),
            output: output.get().to_owned().into(),
        },
        (None, None, None, Some(Members(attributes))) => {
            let values = attributes.into_iter();
            let owned = |(name, json): (Cow<'_, str>, &RawValue)| {
                (name.into_owned().into(), json.get().to_owned().into())
            };
            Body::Attributes(values.map(owned).collect())
        }
        _ => {
            return Err(
                "the payload's item has none of measurepoints, event with output, attributes"
                    .into(),
            );
        }
    };
    let row = Row {
        sequence: 0,
        asset_id: message
            .asset_id
            .unwrap_or_else(|| as_asset(&message.device_key)),
        device_key: message.device_key,
        time_ms: message.time,
        body,
    };
    Ok((message.product_key, row))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written<'t> {
    product_key: ProductKey,
    device_key: DeviceKey,
    asset_id: Option<AssetId>,
    time: i64,
    #[serde(borrow)]
    payload: [Item<'t>; 1],
    #[serde(default)]
    dq: BTreeMap<String, u8>,
}

#[derive(Deserialize)]
struct Item<'t> {
    #[serde(borrow)]
    measurepoints: Option<Members<'t>>,
    event: Option<String>,
    #[serde(borrow)]
    output: Option<&'t RawValue>,
    #[serde(borrow)]
    attributes: Option<Members<'t>>,
}

fn value_of(json: &str) -> Result<Value<'static>, String> {
    let parse = |error: serde_json::Error| error.to_string();
    Ok(match json.as_bytes().first() {
        Some(b'"') => Value::Text(serde_json::from_str::<String>(json).map_err(parse)?.into()),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'{' | b'[') => Value::Json(json.to_owned().into()),
        Some(b'n') | None => return Err("null is no value".into()),
        Some(_) => match json.parse() {
            Ok(number) => Value::Long(number),
            Err(_) => Value::Double(serde_json::from_str(json).map_err(parse)?),
        },
    })
}

/// The members of an object in their order, each with its JSON text.
struct Members<'t>(Vec<(Cow<'t, str>, &'t RawValue)>);

impl<'de: 't, 't> Deserialize<'de> for Members<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of points")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    members.push((Cow::Owned(name), value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests;
