//! What is kept, as the API tells it, and what a change of it would take: counted by reading, or bounded
//! without.

use std::collections::BTreeMap;

use backtide_model::ElementName;
use backtide_store::Keep;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{Api, Problem},
    limits::{PREVIEW_DEVICES_MAX, PREVIEW_POINTS_MAX},
    registry::{Product, ProductStorage, RuleInForce, Snapshot, StorageRule},
    retention,
};

/// What of values is kept.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kept {
    policy: String,
    /// Which of the policy's storage rules, from 1.
    rule: usize,
    /// For ever where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_days: Option<u32>,
    /// event or import.
    by: &'static str,
    /// Kept from here on, milliseconds since 1970: the time of a value, or of the arrival of its
    /// message.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<i64>,
    /// raw, minute or both.
    keep: &'static str,
    /// With both: by the minute only before this, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_from: Option<i64>,
    change_only: bool,
    /// All of it in words.
    does: String,
}

impl Kept {
    pub(super) fn of(in_force: &RuleInForce, now_ms: i64) -> Self {
        let rule = in_force.rule();
        Self {
            policy: in_force.policy.name.to_string(),
            rule: in_force.at + 1,
            keep_days: rule.keep_days,
            by: rule.by.word(),
            from: rule.oldest_ms(now_ms),
            keep: rule.keep.word(),
            raw_from: rule.raw_oldest_ms(now_ms),
            change_only: rule.change_only,
            does: rule.in_words(),
        }
    }
}

/// What a change of storage would do to a product.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Expiring {
    product: String,
    /// Of points that no rule names.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Kept>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Kept>,
    /// Points of which something else would be kept.
    points: Vec<PointExpiring>,
    /// Further ones, beyond those shown.
    more_points: usize,
    /// Values that are read now and would not be any more; absent where they were not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<u64>,
    /// No more than so many, reckoned without reading.
    values_max: u64,
    /// Rows with any of them at most, of those in segments.
    rows: u64,
    rows_in_all: u64,
    /// Devices that would lose values.
    devices: Vec<DeviceExpiring>,
    /// Further ones, beyond those shown.
    more_devices: u64,
    /// Events that would go.
    events: u64,
    /// Earlier attribute values that would go.
    attribute_values: u64,
    /// Segments that would go whole, and their size. The rest goes value by value, later.
    segments: u64,
    bytes: u64,
}

/// What a change of storage would do to a point.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PointExpiring {
    point: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Kept>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Kept>,
    /// Values that would go; absent where they were not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<u64>,
}

/// What a device would lose.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DeviceExpiring {
    device_key: String,
    /// Values, by point.
    values: BTreeMap<String, u64>,
}

/// What of the products would go that a change is about.
pub(super) fn expiring(
    api: &Api,
    before: &Snapshot,
    after: &Snapshot,
    is_quick: bool,
) -> Result<Vec<Expiring>, Problem> {
    let mut all = Vec::new();
    for product in after.products_after(None) {
        let (was, is) = (before.storage(&product.name), after.storage(&product.name));
        let (was, is) = (was.map(AsRef::as_ref), is.map(AsRef::as_ref));
        let points = changed(api, product, was, is);
        let records = |storage: Option<&ProductStorage>| {
            let rule = |rule: Option<&RuleInForce>| rule.map(|rule| rule.rule().clone());
            let of = |storage: &ProductStorage| {
                (
                    rule(storage.events.as_ref()),
                    rule(storage.attributes.as_ref()),
                )
            };
            storage.map(of).unwrap_or_default()
        };
        let has_records = records(was) != records(is);
        if points.is_empty() && !has_records {
            continue;
        }
        all.push(of_product(
            api,
            product,
            (was, is),
            &points,
            has_records,
            is_quick,
        )?);
    }
    Ok(all)
}

fn rule_of<'s>(
    storage: Option<&'s ProductStorage>,
    point: &ElementName,
) -> Option<&'s StorageRule> {
    storage?.point(point).map(RuleInForce::rule)
}

/// The points of which something else would be kept.
fn changed(
    api: &Api,
    product: &Product,
    was: Option<&ProductStorage>,
    is: Option<&ProductStorage>,
) -> Vec<ElementName> {
    let mut points: Vec<ElementName> = product.model.measurepoints.keys().cloned().collect();
    // Those that a model lets pass, and those that it had before.
    points.extend(api.store.points(&product.key));
    points.sort_unstable();
    points.dedup();
    points.retain(|point| {
        let said = |storage| {
            rule_of(storage, point).map(|rule| {
                let StorageRule {
                    keep,
                    change_only,
                    keep_days,
                    raw_days,
                    by,
                    ..
                } = rule;
                (*keep, *change_only, *keep_days, *raw_days, *by)
            })
        };
        said(was) != said(is)
    });
    points
}

fn of_product(
    api: &Api,
    product: &Product,
    (was, is): (Option<&ProductStorage>, Option<&ProductStorage>),
    points: &[ElementName],
    has_records: bool,
    is_quick: bool,
) -> Result<Expiring, Problem> {
    let now_ms = api.clock.now_ms();
    let keep = match is {
        Some(storage) => retention::keep(&api.store, storage, now_ms)?,
        None => Keep::default(),
    };
    let reckoned = api.store.expirable(&product.key, points, &keep);
    let counted = match is_quick {
        true => None,
        false => Some(Counted::of(api, product, points, &keep)?),
    };
    let records = match has_records {
        true => api.store.going_records(&product.key, &keep)?,
        false => backtide_store::ExpirableRecords::default(),
    };
    let kept = |storage: Option<&ProductStorage>, point: &ElementName| {
        Some(Kept::of(storage?.point(point)?, now_ms))
    };
    let shown = points.iter().enumerate().take(PREVIEW_POINTS_MAX);
    let shown = shown.map(|(at, point)| PointExpiring {
        point: point.to_string(),
        before: kept(was, point),
        after: kept(is, point),
        values: counted.as_ref().map(|counted| counted.by_point[at]),
    });
    let values = counted
        .as_ref()
        .map(|counted| counted.by_point.iter().sum());
    let more_devices = counted.as_ref().map_or(0, |counted| counted.more_devices);
    let rest = |storage: Option<&ProductStorage>| {
        let rest = storage?.rest.as_ref()?;
        Some(Kept::of(rest, now_ms))
    };
    Ok(Expiring {
        product: product.name.to_string(),
        before: rest(was),
        after: rest(is),
        points: shown.collect(),
        more_points: points.len().saturating_sub(PREVIEW_POINTS_MAX),
        values,
        // What is in memory only is no segment's.
        values_max: reckoned.values_max.max(values.unwrap_or(0)),
        rows: reckoned.rows_max,
        rows_in_all: reckoned.rows_in_all,
        devices: counted.map(|counted| counted.devices).unwrap_or_default(),
        more_devices,
        events: records.events,
        attribute_values: records.attribute_values,
        segments: reckoned.segments,
        bytes: reckoned.bytes,
    })
}

/// Values that would go, counted by reading.
struct Counted {
    by_point: Vec<u64>,
    devices: Vec<DeviceExpiring>,
    more_devices: u64,
}

impl Counted {
    fn of(
        api: &Api,
        product: &Product,
        points: &[ElementName],
        keep: &Keep,
    ) -> Result<Self, Problem> {
        let mut counted = Self {
            by_point: vec![0; points.len()],
            devices: Vec::new(),
            more_devices: 0,
        };
        for going in api.store.going(&product.key, points, keep)? {
            let going = going?;
            for (all, values) in counted.by_point.iter_mut().zip(&going.values) {
                *all += values;
            }
            if counted.devices.len() == PREVIEW_DEVICES_MAX {
                counted.more_devices += 1;
                continue;
            }
            let values = points.iter().zip(&going.values);
            let values = values.filter(|(_, values)| **values > 0);
            counted.devices.push(DeviceExpiring {
                device_key: going.device.to_string(),
                values: values
                    .map(|(point, values)| (point.to_string(), *values))
                    .collect(),
            });
        }
        Ok(counted)
    }
}
