//! What is asked for, with every name checked against the registry.

use std::{collections::HashSet, sync::Arc};

use backtide_model::{DataType, DeviceKey, ElementName, NameError, Storage};
use backtide_store::{Order, Range};
use jiff::tz::TimeZone;

use super::{
    Cursor, TimeError,
    time::{span, zone},
};
use crate::registry::{Product, Snapshot};

/// A question as it arrives. Lists are separated by commas; an empty one asks for all.
#[derive(Debug, Clone, Default)]
pub struct Asked<'a> {
    pub product: Option<&'a str>,
    pub devices: &'a str,
    /// Points, events or attributes.
    pub names: &'a str,
    /// ISO or milliseconds; inclusive.
    pub from: Option<&'a str>,
    /// Exclusive.
    pub to: Option<&'a str>,
    /// Where times without an offset are local: an IANA name.
    pub timezone: Option<&'a str>,
    pub cursor: Option<&'a str>,
}

/// A point that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedPoint {
    pub name: ElementName,
    pub storage: Storage,
    /// Its text is JSON: a struct, an array, a map, or a point that the model does not declare.
    pub is_json: bool,
}

/// A question that makes sense.
#[derive(Debug, Clone)]
pub struct Question {
    pub product: Arc<Product>,
    pub devices: Vec<DeviceKey>,
    pub points: Vec<AskedPoint>,
    /// `None`: not bounded.
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    /// As named; UTC unless it is.
    pub zone: TimeZone,
    pub after: Option<Cursor>,
}

/// Why a question makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    #[error("product {0} is not declared")]
    UnknownProduct(String),
    #[error("device {device} is not declared{}", of(product.as_deref()))]
    UnknownDevice {
        device: String,
        product: Option<String>,
    },
    #[error("{what} {name} is not declared in model {model} of product {product}")]
    UnknownElement {
        /// point, event or attribute.
        what: &'static str,
        name: String,
        model: String,
        product: String,
    },
    #[error("device {device} is declared for several products: {}; name one", products.join(", "))]
    Ambiguous {
        device: String,
        products: Vec<String>,
    },
    #[error("name a product or a device; there are {products} products")]
    NoProduct { products: usize },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Time(#[from] TimeError),
    #[error("the cursor is none of this gateway's; ask again from the beginning")]
    Cursor,
}

fn of(product: Option<&str>) -> String {
    product
        .map(|product| format!(" for product {product}"))
        .unwrap_or_default()
}

impl Question {
    /// # Errors
    /// A [`QuestionError`] that names what is wrong.
    pub fn new(asked: &Asked<'_>, registry: &Snapshot) -> Result<Self, QuestionError> {
        let Subject { product, devices } = subject(asked, registry)?;
        let is_declared = |name: &ElementName| product.model.measurepoints.contains_key(name);
        let points = match names(&product, "point", asked.names, is_declared)? {
            none if none.is_empty() => declared(&product),
            named => named
                .into_iter()
                .map(|name| named_point(&product, name))
                .collect(),
        };
        let zone = asked.timezone.map(zone).transpose()?;
        let (from_ms, to_ms) = span(asked.from, asked.to, zone.as_ref())?;
        let cursor = |text| Cursor::decode(text).ok_or(QuestionError::Cursor);
        Ok(Self {
            devices,
            points,
            from_ms,
            to_ms,
            zone: zone.unwrap_or(TimeZone::UTC),
            after: asked.cursor.map(cursor).transpose()?,
            product,
        })
    }

    /// What to ask of the store, in the order of time.
    pub fn range(&self, rows_max: usize) -> Range {
        Range {
            product: self.product.key.clone(),
            devices: self.devices.clone(),
            points: self.points.iter().map(|point| point.name.clone()).collect(),
            from_ms: self.from_ms.unwrap_or(i64::MIN),
            to_ms: self.to_ms.unwrap_or(i64::MAX),
            order: Order::TimeDevice,
            after: self
                .after
                .as_ref()
                .map(|cursor| (cursor.device.clone(), cursor.time_ms)),
            rows_max,
        }
    }
}

/// What a question is about.
pub(super) struct Subject {
    pub(super) product: Arc<Product>,
    /// Empty: all of them.
    pub(super) devices: Vec<DeviceKey>,
}

pub(super) fn subject(asked: &Asked<'_>, registry: &Snapshot) -> Result<Subject, QuestionError> {
    let devices = list(asked.devices);
    let product = product_of(registry, asked.product, devices.first().copied())?;
    let devices = devices
        .into_iter()
        .map(|key| match product.devices.get(key) {
            Some(device) => Ok(device.key.clone()),
            None => Err(QuestionError::UnknownDevice {
                device: key.to_owned(),
                product: Some(product.name.to_string()),
            }),
        })
        .collect::<Result<_, _>>()?;
    Ok(Subject { product, devices })
}

/// The product that is named, by name or key; or the only one that has the device; or the only one.
///
/// # Errors
/// There is none, or several.
pub fn product_of(
    registry: &Snapshot,
    named: Option<&str>,
    device: Option<&str>,
) -> Result<Arc<Product>, QuestionError> {
    if let Some(name) = named {
        let product = registry
            .product(name)
            .or_else(|| registry.product_by_key(name));
        return product
            .cloned()
            .ok_or_else(|| QuestionError::UnknownProduct(name.to_owned()));
    }
    let Some(key) = device else {
        let mut products = registry.products_after(None);
        return match (products.next(), products.count()) {
            (Some(only), 0) => Ok(only.clone()),
            (first, more) => Err(QuestionError::NoProduct {
                products: more + usize::from(first.is_some()),
            }),
        };
    };
    let mut owners: Vec<_> = registry
        .devices_of_key(key)
        .map(|(product, _)| product)
        .collect();
    match (owners.pop(), owners.is_empty()) {
        (Some(only), true) => Ok(only.clone()),
        (None, _) => Err(QuestionError::UnknownDevice {
            device: key.to_owned(),
            product: None,
        }),
        (Some(last), false) => {
            owners.push(last);
            Err(QuestionError::Ambiguous {
                device: key.to_owned(),
                products: owners
                    .iter()
                    .map(|product| product.name.to_string())
                    .collect(),
            })
        }
    }
}

fn declared(product: &Product) -> Vec<AskedPoint> {
    let points = product.model.measurepoints.iter();
    points
        .map(|(name, point)| asked_point(name.clone(), Some(&point.data_type)))
        .collect()
}

/// The elements that `text` lists, each once: declared ones, or any where the model lets them pass.
pub(super) fn names(
    product: &Product,
    what: &'static str,
    text: &str,
    is_declared: impl Fn(&ElementName) -> bool,
) -> Result<Vec<ElementName>, QuestionError> {
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    for text in list(text) {
        let name = ElementName::new(text)?;
        if !product.model.passthrough && !is_declared(&name) {
            return Err(QuestionError::UnknownElement {
                what,
                name: text.to_owned(),
                model: product.model_name.to_string(),
                product: product.name.to_string(),
            });
        }
        if seen.insert(name.clone()) {
            names.push(name);
        }
    }
    Ok(names)
}

fn named_point(product: &Product, name: ElementName) -> AskedPoint {
    let declared = product.model.measurepoints.get(&name);
    let data_type = declared.map(|point| &point.data_type);
    asked_point(name, data_type)
}

pub fn asked_point(name: ElementName, declared: Option<&DataType>) -> AskedPoint {
    let storage = declared.map_or(Storage::Text, DataType::storage);
    AskedPoint {
        name,
        storage,
        is_json: is_json_type(declared),
    }
}

/// Whether the stored text of a point is JSON.
pub fn is_json(product: &Product, point: &ElementName) -> bool {
    is_json_type(
        product
            .model
            .measurepoints
            .get(point)
            .map(|point| &point.data_type),
    )
}

fn is_json_type(declared: Option<&DataType>) -> bool {
    matches!(
        declared,
        None | Some(DataType::Struct(_) | DataType::Array { .. } | DataType::Map)
    )
}

fn list(text: &str) -> Vec<&str> {
    text.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect()
}
