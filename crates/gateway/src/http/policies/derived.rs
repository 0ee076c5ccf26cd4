//! Rollups and reductions, as the API tells which of them a point has a part in, and what a change would do
//! to them: reckoned from the index of what is stored, nothing is read.

use backtide_model::ElementName;
use backtide_store::{DeviceSpan, Store};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    derive::{Series, Work},
    policy::Keep,
    query::aggregate::Windows,
    registry::{Product, Snapshot},
};

/// A rollup or reduction that reads a point.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DerivedOfPoint {
    name: String,
    /// rollup or reduction.
    #[schema(value_type = String)]
    kind: &'static str,
    policy: String,
    /// Of a rollup how long its windows are, of a reduction after what time it begins anew.
    interval: String,
    /// The zone of the windows; UTC where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    /// Of a rollup: what is computed of the point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    functions: Vec<&'static str>,
    /// All of it in words.
    does: String,
}

impl DerivedOfPoint {
    fn of(series: &Series, point: &ElementName) -> Option<Self> {
        let functions = match &series.work {
            Work::Rollup { points, .. } => {
                let (_, functions) = points.iter().find(|(of, _)| of.name == *point)?;
                functions.iter().map(|function| function.word()).collect()
            }
            Work::Reduction { points, .. } => {
                points.iter().find(|of| of.name == *point)?;
                Vec::new()
            }
        };
        Some(Self {
            name: series.name.to_string(),
            kind: series.work.kind(),
            policy: series.policy.to_string(),
            interval: series.interval.clone(),
            time_zone: series.zone.clone(),
            does: in_words(series, &functions),
            functions,
        })
    }
}

/// Those that read a point of a product, in the order of policies.
pub(super) fn of_point(
    snapshot: &Snapshot,
    product: &Product,
    point: &ElementName,
) -> Vec<DerivedOfPoint> {
    let series = Series::all(snapshot).into_iter();
    let own = series.filter(|series| series.product.name == product.name);
    own.filter_map(|series| DerivedOfPoint::of(&series, point))
        .collect()
}

/// `avg, max for each 1h in Europe/Paris`, or `keeps by a dead band of 0.5, anew each 1d`.
fn in_words(series: &Series, functions: &[&str]) -> String {
    let zone = match &series.zone {
        Some(zone) => format!(" in {zone}"),
        None => String::new(),
    };
    let interval = &series.interval;
    match &series.work {
        Work::Rollup { .. } => format!("{} for each {interval}{zone}", functions.join(", ")),
        Work::Reduction {
            rate_per_ms, keep, ..
        } => {
            let keeps = match keep {
                Keep::All => None,
                Keep::DeadBand(deviation) => Some(format!("keeps by a dead band of {deviation}")),
                Keep::SwingingDoor(deviation) => {
                    Some(format!("keeps by a swinging door of {deviation}"))
                }
            };
            let flags = rate_per_ms
                .map(|rate| format!("flags changes of more than {} a minute", rate * 60_000.0));
            let both: Vec<String> = [keeps, flags].into_iter().flatten().collect();
            format!("{}, anew each {interval}", both.join(" and "))
        }
    }
}

/// What a change would do to a rollup or reduction of one product.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DerivedChange {
    name: String,
    /// rollup or reduction.
    #[schema(value_type = String)]
    kind: &'static str,
    policy: String,
    product: String,
    change: Change,
    /// Of a rollup how long its windows are, of a reduction after what time it begins anew.
    interval: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    points: Vec<String>,
    /// Devices with values that would be looked at; of one that goes, that were.
    devices: usize,
    /// Windows of all of them, no more than so many.
    windows_max: u64,
}

/// Whether it would be there, and be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = DerivedChangeKind)]
pub(super) enum Change {
    /// It is new: computed of all that is stored.
    Appears,
    /// It says something else, or of other points: computed of all that is stored once more.
    Recomputed,
    /// It is no more, and its rows go.
    Goes,
}

/// What of rollups and reductions would be another.
pub(super) fn changes(store: &Store, before: &Snapshot, after: &Snapshot) -> Vec<DerivedChange> {
    let (was, is) = (Series::all(before), Series::all(after));
    let find = |all: &[Series], one: &Series| {
        let same = |other: &&Series| other.name == one.name && other.product.key == one.product.key;
        all.iter().position(|other| same(&other))
    };
    let mut changes = Vec::new();
    for one in &is {
        let change = match find(&was, one).map(|at| &was[at]) {
            None => Some(Change::Appears),
            Some(other) => is_recomputed(store, other, one).then_some(Change::Recomputed),
        };
        changes.extend(change.map(|change| DerivedChange::of(store, one, change)));
    }
    let gone = was.iter().filter(|one| find(&is, one).is_none());
    changes.extend(gone.map(|one| DerivedChange::of(store, one, Change::Goes)));
    changes
}

/// As upkeep decides it.
fn is_recomputed(store: &Store, before: &Series, after: &Series) -> bool {
    let is_stored = |name: &str| {
        let name = ElementName::new(name);
        name.is_ok_and(|name| store.storage_of(&after.product.key, &name).is_some())
    };
    before.print != after.print || after.made_of.beyond(&before.made_of).any(is_stored)
}

impl DerivedChange {
    fn of(store: &Store, series: &Series, change: Change) -> Self {
        let points: Vec<ElementName> = series
            .points()
            .iter()
            .map(|point| point.name.clone())
            .collect();
        let spans = store.spans(&series.product.key, &points);
        Self {
            name: series.name.to_string(),
            kind: series.work.kind(),
            policy: series.policy.to_string(),
            product: series.product.name.to_string(),
            change,
            interval: series.interval.clone(),
            time_zone: series.zone.clone(),
            points: points.iter().map(ElementName::to_string).collect(),
            devices: spans.len(),
            windows_max: spans.values().map(|span| windows_max(series, span)).sum(),
        }
    }
}

/// Windows from the first to the last value of a device, or as many as it has rows.
fn windows_max(series: &Series, span: &DeviceSpan) -> u64 {
    let first = series.windows.at(span.first_ms);
    let last = series.windows.at(span.last_ms);
    let between_ms = last.start_ms.abs_diff(first.start_ms);
    let length_ms = first.length_ms().unsigned_abs();
    let shortest_ms = match &series.windows {
        Windows::Whole | Windows::Elapsed { .. } => length_ms,
        // A day of a clock change and a February are shorter than the one looked at, by no more than this.
        Windows::Days { .. } | Windows::Months { .. } => length_ms * 9 / 10,
    };
    (between_ms.div_ceil(shortest_ms.max(1)) + 1).min(span.rows)
}
