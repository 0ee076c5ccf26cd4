//! Products, devices and channels, as the registry has them; rollups and reductions, and how they stand.

use datafusion::common::ScalarValue;

use super::{
    super::{Sources, catalog::computed_tables, wanted::Wanted},
    BATCH_ROWS, Is, Row, Slabs, long, text, text_or_none, time,
};
use crate::registry::{Device, Product};

pub(super) const PRODUCTS: &[(&str, Is)] = &[
    ("product", Is::Text),
    ("key", Is::Text),
    ("model", Is::Text),
    ("format", Is::Text),
    ("devices", Is::Long),
    ("description", Is::Text),
];

pub(super) const DEVICES: &[(&str, Is)] = &[
    ("product", Is::Text),
    ("device", Is::Text),
    ("name", Is::Text),
    ("asset_id", Is::Text),
    ("timezone", Is::Text),
    ("attributes", Is::Text),
];

pub(super) const CHANNELS: &[(&str, Is)] = &[
    ("channel", Is::Text),
    ("product", Is::Text),
    ("mode", Is::Text),
    ("paused", Is::Bool),
    ("held", Is::Text),
    ("created", Is::Time),
    ("description", Is::Text),
];

pub(super) const ROLLUPS: &[(&str, Is)] = &[
    ("rollup", Is::Text),
    ("kind", Is::Text),
    ("product", Is::Text),
    ("table_name", Is::Text),
    ("policy", Is::Text),
    ("interval", Is::Text),
    ("timezone", Is::Text),
    ("state", Is::Text),
    ("dirty_spans", Is::Long),
    ("computed", Is::Time),
];

pub(super) fn products(sources: &Sources) -> Slabs {
    let snapshot = sources.registry.snapshot();
    let row = |product: &std::sync::Arc<Product>| {
        let format = if product.is_json() { "json" } else { "custom" };
        vec![
            text(&product.name),
            text(&product.key),
            text(&product.model_name),
            text(format),
            long(product.devices.len()),
            text_or_none(product.description.as_ref()),
        ]
    };
    once(snapshot.products_after(None).map(row).collect())
}

/// A slab of each product's devices after the other.
pub(super) fn devices(sources: &Sources, wanted: &Wanted) -> Slabs {
    let snapshot = sources.registry.snapshot();
    let products = snapshot.products_after(None);
    let products = products.filter(|product| wanted.wants("product", product.name.as_ref()));
    let products: Vec<_> = products.cloned().collect();
    let slabs = products.into_iter().flat_map(|product| {
        let mut after: Option<String> = None;
        std::iter::from_fn(move || {
            let devices = product.devices.after(after.as_deref()).take(BATCH_ROWS);
            let devices: Vec<_> = devices.cloned().collect();
            after = Some(devices.last()?.name.to_string());
            Some(Ok(devices
                .iter()
                .map(|device| device_row(device))
                .collect()))
        })
    });
    Box::new(slabs)
}

fn device_row(device: &Device) -> Row {
    let attributes = serde_json::to_string(&device.attributes);
    vec![
        text(&device.product),
        text(&device.key),
        text(&device.name),
        text(&device.asset_id),
        text_or_none(device.timezone.as_ref()),
        text(attributes.expect("attributes are JSON")),
    ]
}

pub(super) fn channels(sources: &Sources) -> Slabs {
    let snapshot = sources.registry.snapshot();
    let rows = snapshot.channels_after(None).map(|channel| {
        let mode = serde_json::to_value(channel.mode).expect("a mode is a word");
        vec![
            text(&channel.name),
            text(&channel.product),
            text_or_none(mode.as_str()),
            ScalarValue::Boolean(Some(channel.paused)),
            text_or_none(channel.held.as_ref().map(|held| &held.reason)),
            time(Some(channel.created_ms)),
            text_or_none(channel.description.as_ref()),
        ]
    });
    once(rows.collect())
}

pub(super) fn rollups(sources: &Sources) -> Slabs {
    let lag = sources.derived.lag();
    let tables = computed_tables(sources, &sources.registry.snapshot()).into_iter();
    let rows = tables.map(|table| {
        let (series, standing) = (table.series, sources.derived.standing(table.id));
        vec![
            text(&series.name),
            text(series.work.kind()),
            text(&series.product.name),
            text(&table.name),
            text(&series.policy),
            text(&series.interval),
            text_or_none(series.zone.as_ref()),
            text(standing.state(lag)),
            long(standing.dirty_spans),
            time(standing.computed_ms),
        ]
    });
    once(rows.collect())
}

fn once(rows: Vec<Row>) -> Slabs {
    Box::new(std::iter::once(Ok(rows)))
}
