//! `/tsdb-service`: history as the vendor's API reads it. What is stored is returned, with or without
//! a storage policy (`decisions.md` §6); the limits are the vendor's.

use std::{collections::VecDeque, sync::Arc};

use arrow_array::RecordBatch;
use backtide_model::{Cell, ElementName, NO_QUALITY, Signal, Storage};
use backtide_store::{Order, Range, Thinning, View};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{
    answer::{Data, Refusal, TOO_LARGE},
    call::{Call, Params},
    fold::{self, Folded, Grid, Logic},
    items::{Items, Of},
    moments::{LocalTime, Span, zone_of},
};
use crate::{
    http::Api,
    limits,
    query::{self, Reading},
    registry::{Device, Product, Snapshot},
};

const PAGE_SIZE_DEFAULT: usize = 1_000;
const INTERVAL_MINUTES_MAX: u16 = 1_440;
/// How far back the state at the beginning of a range is looked for.
const STATE_BEFORE_MS: i64 = 30 * 24 * 3_600 * 1_000;
const POINTS: &[&str] = &["pointIds", "measurepoints"];
const LOGIC: &[&str] = &["pointIdsWithLogic", "measurepointsWithLogic"];

/// Which points an operation takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Any,
    /// Those of this signal, and those that declare none; numbers where they are folded.
    Signal(Signal),
}

/// A device that is asked about, and which of the points it has.
struct Asset {
    product: Arc<Product>,
    device: Arc<Device>,
    zone: TimeZone,
    points: Vec<ElementName>,
}

/// What every question has in common.
struct Question {
    assets: Vec<Asset>,
    local: LocalTime,
}

pub(super) fn raw(api: &Api, call: &Call) -> Result<Data, Refusal> {
    range(api, call, Takes::Any)
}

pub(super) fn ai(api: &Api, call: &Call) -> Result<Data, Refusal> {
    range(api, call, Takes::Signal(Signal::Analogue))
}

pub(super) fn generic(api: &Api, call: &Call) -> Result<Data, Refusal> {
    range(api, call, Takes::Signal(Signal::Generic))
}

/// Values of a range as they are stored.
fn range(api: &Api, call: &Call, takes: Takes) -> Result<Data, Refusal> {
    refuse_interpolation(&call.params)?;
    let question = Question::of(api, call, call.params.either(POINTS)?, takes)?;
    let (page, descending) = (page_size(call, &question)?, is_descending(&call.params)?);
    let with_quality = call.params.is_set("withQuality", false)?;
    let span = Span::of(&call.params)?;
    let mut items = Items::new(call.style, question.local, with_quality);
    for asset in &question.assets {
        let (from_ms, to_ms) = span.at(&asset.zone)?;
        let pages = Pages::new(asset, page, descending);
        for (point, readings) in pages.read(api, asset, from_ms, to_ms)? {
            let of = asset.of(point.as_str(), &point);
            for reading in readings {
                items.push(&of, reading.time_ms, &reading.cell, reading.quality);
            }
        }
    }
    Ok(Data {
        data: items.finish(),
        ..Data::default()
    })
}

/// Changes of digital points, with the state at the beginning.
pub(super) fn di(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let takes = Takes::Signal(Signal::Digital);
    let question = Question::of(api, call, call.params.either(POINTS)?, takes)?;
    let page = page_size(call, &question)?;
    let with_quality = call.params.is_set("withQuality", false)?;
    let from_before = call.params.is_set("autoInterpolate", true)?;
    let span = Span::of(&call.params)?;
    let mut items = Items::new(call.style, question.local, with_quality);
    for asset in &question.assets {
        let (from_ms, to_ms) = span.at(&asset.zone)?;
        for point in &asset.points {
            let of = asset.of(point.as_str(), point);
            let changes = Changes::read(api, asset, point, (from_ms, to_ms), page)?;
            for reading in changes.told(from_ms, from_before).take(page) {
                items.push(&of, reading.time_ms, &reading.cell, reading.quality);
            }
        }
    }
    Ok(Data {
        data: items.finish(),
        ..Data::default()
    })
}

/// How long digital points had which state.
pub(super) fn di_duration(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let takes = Takes::Signal(Signal::Digital);
    let question = Question::of(api, call, call.params.either(POINTS)?, takes)?;
    let series = question.series();
    if series > limits::VENDOR_DURATION_SERIES_MAX {
        return Err(too_many(series, limits::VENDOR_DURATION_SERIES_MAX));
    }
    let with_unknown = call.params.is_set("ifWithUnknown", true)?;
    let wanted = call.params.get("status").map(Params::list);
    let span = Span::of(&call.params)?;
    let now_ms = api.clock.now_ms();
    let mut items = Vec::new();
    for asset in &question.assets {
        let (from_ms, to_ms) = span.at(&asset.zone)?;
        // What is to come is not known yet.
        let to_ms = to_ms.min(now_ms).max(from_ms);
        for point in &asset.points {
            let range = (from_ms, to_ms);
            let changes = Changes::read(api, asset, point, range, limits::VENDOR_RECORDS_MAX)?;
            let to_ms = changes.ended_ms.unwrap_or(to_ms);
            let is_json = query::is_json(&asset.product, point);
            let told: Vec<(i64, String)> = changes
                .told(from_ms, true)
                .map(|reading| (reading.time_ms, status_text(&reading.cell, is_json)))
                .collect();
            let durations: Vec<Value> = fold::durations(&told, from_ms, to_ms)
                .into_iter()
                .filter(|(state, _)| state.is_some() || with_unknown)
                .map(|(state, ms)| (state.unwrap_or_else(|| "Unknown".to_owned()), ms))
                .filter(|(state, _)| {
                    wanted
                        .as_ref()
                        .is_none_or(|wanted| wanted.contains(&state.as_str()))
                })
                .map(|(state, ms)| json!({ "status": state, "duration": ms }))
                .collect();
            items.push(json!({
                "assetId": asset.device.asset_id,
                "pointId": point,
                "scanEndTimestamp": to_ms,
                "durations": durations,
            }));
        }
    }
    Ok(Data::of(&json!({ "items": items })))
}

/// Minute values of analogue points, or functions over intervals of them.
pub(super) fn ai_normalized(api: &Api, call: &Call) -> Result<Data, Refusal> {
    folded(api, call, Signal::Analogue, |minutes| minutes)
}

/// What counters counted, by the minute or as functions over intervals.
pub(super) fn electric_power(api: &Api, call: &Call) -> Result<Data, Refusal> {
    folded(api, call, Signal::Pulse, |minutes| {
        fold::increments(&minutes).collect()
    })
}

type Minutes = Vec<(i64, f64)>;

fn folded(
    api: &Api,
    call: &Call,
    signal: Signal,
    made: fn(Minutes) -> Minutes,
) -> Result<Data, Refusal> {
    let minutes: u16 = call
        .params
        .number("interval")?
        .ok_or_else(|| missing("interval"))?;
    if minutes > INTERVAL_MINUTES_MAX {
        return Err(Refusal::parameter(format!(
            "interval {minutes} is over {INTERVAL_MINUTES_MAX} minutes"
        )));
    }
    let asked = call.params.either(LOGIC)?;
    let logic: Vec<Logic<'_>> = Params::list(asked)
        .into_iter()
        .map(|text| Logic::read(text, minutes > 0))
        .collect::<Result<_, _>>()?;
    let points: Vec<&str> = logic.iter().map(|logic| logic.point).collect();
    let question = Question::of(api, call, &points.join(","), Takes::Signal(signal))?;
    question.refuse_other_than_numbers()?;
    let page = page_size(call, &question)?;
    let span = Span::of(&call.params)?;
    let mut items = Items::new(call.style, question.local, false);
    for asset in &question.assets {
        let (from_ms, to_ms) = span.at(&asset.zone)?;
        for logic in &logic {
            let Some(point) = asset
                .points
                .iter()
                .find(|point| point.as_str() == logic.point)
            else {
                continue;
            };
            let of = asset.of(logic.text, point);
            let values = made(minute_values(api, asset, point, from_ms, to_ms)?);
            let told = told_of(values, logic, &mut Grid::new(&asset.zone, minutes));
            for (time_ms, value) in told.into_iter().take(page) {
                items.push(&of, time_ms, &Cell::Double(value), NO_QUALITY);
            }
        }
    }
    Ok(Data {
        data: items.finish(),
        ..Data::default()
    })
}

fn told_of(values: Minutes, logic: &Logic<'_>, grid: &mut Grid<'_>) -> Minutes {
    let Some(function) = logic.function else {
        return values;
    };
    let told = |(time_ms, folded): (i64, Folded)| (time_ms, folded.of(function));
    fold::folded(values.into_iter(), grid)
        .into_iter()
        .map(told)
        .collect()
}

/// What counters counted since local midnight.
pub(super) fn current_day(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let takes = Takes::Signal(Signal::Pulse);
    let question = Question::of(api, call, call.params.either(POINTS)?, takes)?;
    question.refuse_other_than_numbers()?;
    let mut items = Items::new(call.style, question.local, false);
    let now_ms = api.clock.now_ms();
    for asset in &question.assets {
        let midnight_ms = fold::midnight(&asset.zone, now_ms);
        for point in &asset.points {
            let minutes = minute_values(api, asset, point, midnight_ms, now_ms.saturating_add(1))?;
            let Some((last_ms, _)) = minutes.last().copied() else {
                continue;
            };
            let counted = fold::increments(&minutes).map(|(_, value)| value).sum();
            let of = asset.of(point.as_str(), point);
            items.push(&of, last_ms, &Cell::Double(counted), NO_QUALITY);
        }
    }
    Ok(Data {
        data: items.finish(),
        ..Data::default()
    })
}

/// The values with the greatest event time.
pub(super) fn latest(api: &Api, call: &Call) -> Result<Data, Refusal> {
    latest_that(api, call, call.params.either(POINTS)?, |_, _| true)
}

/// Latest values that compare.
pub(super) fn latest_filter(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let point = call
        .params
        .either(&["pointId", "measurepoint", "pointIds", "measurepoints"])?;
    if point.contains(',') {
        return Err(Refusal::parameter("pointId names one point"));
    }
    let operator = call.params.required("operator")?;
    let filter = Filter::read(operator, call.params.required("valueFilter")?)?;
    latest_that(api, call, point, |cell, is_json| {
        filter.takes(cell, is_json)
    })
}

fn latest_that(
    api: &Api,
    call: &Call,
    points: &str,
    takes: impl Fn(&Cell, bool) -> bool,
) -> Result<Data, Refusal> {
    let question = Question::of(api, call, points, Takes::Any)?;
    let window: Option<u32> = call.params.number("timeWindow")?;
    let since_ms = window.map(|minutes| api.clock.now_ms() - i64::from(minutes) * 60_000);
    let mut items = Items::new(call.style, question.local, false);
    for asset in &question.assets {
        let devices = [asset.device.key.clone()];
        let mut found = api
            .store
            .latest(&asset.product.key, &devices, &asset.points);
        found.retain(|latest| since_ms.is_none_or(|since| latest.time_ms >= since));
        for point in &asset.points {
            let of = asset.of(point.as_str(), point);
            let latest = found.iter().filter(|latest| latest.point == *point);
            for latest in latest.filter(|latest| takes(&latest.cell, of.is_json)) {
                items.push(&of, latest.time_ms, &latest.cell, latest.quality);
            }
        }
    }
    Ok(Data {
        data: items.finish(),
        ..Data::default()
    })
}

impl Question {
    fn of(api: &Api, call: &Call, points: &str, takes: Takes) -> Result<Self, Refusal> {
        if let Some(format) = call
            .params
            .get("itemFormat")
            .filter(|format| *format != "0")
        {
            return Err(Refusal::parameter(format!(
                "itemFormat {format} is not answered; only 0 is"
            )));
        }
        let local = LocalTime::of(call)?;
        let ids = Params::list(call.params.required("assetIds")?);
        let points = distinct(Params::list(points));
        let series = ids.len().saturating_mul(points.len());
        if series > limits::VENDOR_SERIES_MAX {
            return Err(too_many(series, limits::VENDOR_SERIES_MAX));
        }
        let names: Vec<ElementName> = points
            .iter()
            .map(|point| {
                ElementName::new(point).map_err(|error| Refusal::parameter(error.to_string()))
            })
            .collect::<Result<_, _>>()?;
        let snapshot = api.registry.snapshot();
        let model = call.params.get("modelId");
        let assets: Vec<Asset> = distinct(ids)
            .into_iter()
            .map(|id| asset(&snapshot, id, model, &names, takes))
            .collect::<Result<_, _>>()?;
        let unknown = names
            .iter()
            .find(|name| !assets.iter().any(|asset| asset.points.contains(name)));
        match unknown {
            Some(name) => Err(unknown_point(&assets, name, takes)),
            None => Ok(Self { assets, local }),
        }
    }

    fn series(&self) -> usize {
        self.assets.iter().map(|asset| asset.points.len()).sum()
    }

    fn refuse_other_than_numbers(&self) -> Result<(), Refusal> {
        for asset in &self.assets {
            let other = asset.points.iter().find(|point| {
                let declared = asset.product.model.measurepoints.get(*point);
                declared.is_some_and(|point| {
                    matches!(point.data_type.storage(), Storage::Text | Storage::Bool)
                })
            });
            if let Some(point) = other {
                return Err(Refusal::parameter(format!("point {point} is no number")));
            }
        }
        Ok(())
    }
}

fn asset(
    snapshot: &Snapshot,
    id: &str,
    model: Option<&str>,
    names: &[ElementName],
    takes: Takes,
) -> Result<Asset, Refusal> {
    let (product, device) = snapshot
        .asset(id)
        .ok_or_else(|| Refusal::parameter(format!("asset {id} is not declared")))?;
    if let Some(model) = model.filter(|model| product.model_name.as_str() != *model) {
        return Err(Refusal::parameter(format!(
            "asset {id} is of model {}, not of {model}",
            product.model_name
        )));
    }
    let has = |name: &&ElementName| match product.model.measurepoints.get(*name) {
        None => product.model.passthrough,
        Some(point) => match (takes, point.signal) {
            (Takes::Signal(due), Some(signal)) => signal == due,
            (Takes::Signal(_), None) | (Takes::Any, _) => true,
        },
    };
    Ok(Asset {
        zone: zone_of(device),
        points: names.iter().filter(has).cloned().collect(),
        product: Arc::clone(product),
        device: Arc::clone(device),
    })
}

fn unknown_point(assets: &[Asset], name: &ElementName, takes: Takes) -> Refusal {
    let declared = assets
        .iter()
        .find_map(|asset| asset.product.model.measurepoints.get(name));
    match (declared.and_then(|point| point.signal), takes) {
        (Some(signal), Takes::Signal(due)) => Refusal::parameter(format!(
            "point {name} is of signal type {}, and this reads {}; ask /raw, which reads any",
            signal_word(signal),
            signal_word(due)
        )),
        _ => Refusal::parameter(format!(
            "point {name} is in the model of none of the assets"
        )),
    }
}

const fn signal_word(signal: Signal) -> &'static str {
    match signal {
        Signal::Analogue => "AI",
        Signal::Digital => "DI",
        Signal::Pulse => "PI",
        Signal::Generic => "Generic",
    }
}

fn distinct(texts: Vec<&str>) -> Vec<&str> {
    let mut seen = std::collections::HashSet::new();
    texts
        .into_iter()
        .filter(|text| seen.insert(*text))
        .collect()
}

fn too_many(series: usize, most: usize) -> Refusal {
    Refusal::parameter(format!(
        "assets times points are {series}, at most {most} are answered; ask for fewer at a time"
    ))
}

fn missing(name: &str) -> Refusal {
    Refusal::parameter(format!("{name} is missing"))
}

/// Records of one point of one asset, so that all of them stay within the limit.
fn page_size(call: &Call, question: &Question) -> Result<usize, Refusal> {
    let page: usize = call.params.number("pageSize")?.unwrap_or(PAGE_SIZE_DEFAULT);
    if page == 0 {
        return Err(Refusal::parameter("pageSize 0 answers nothing"));
    }
    let series = question.series().max(1);
    let most = limits::VENDOR_RECORDS_MAX / series;
    // Who names no page size is not told of a limit that is not theirs.
    match call.params.get("pageSize") {
        None => Ok(page.min(most)),
        Some(_) if page <= most => Ok(page),
        Some(_) => Err(Refusal::new(
            TOO_LARGE,
            format!(
                "assets times points times pageSize are {}, at most {} are answered; ask for a pageSize \
                 of {most}, and cut the time range",
                series.saturating_mul(page),
                limits::VENDOR_RECORDS_MAX
            ),
        )),
    }
}

fn is_descending(params: &Params) -> Result<bool, Refusal> {
    let Some(order) = params.get("orderBy") else {
        return Ok(false);
    };
    let order = order.to_ascii_lowercase();
    match order.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["timestamp"] | ["timestamp", "asc"] => Ok(false),
        ["timestamp", "desc"] => Ok(true),
        _ => Err(Refusal::parameter(format!(
            "orderBy {order:?} is neither timestamp asc nor timestamp desc"
        ))),
    }
}

/// What changes values is not done silently.
fn refuse_interpolation(params: &Params) -> Result<(), Refusal> {
    for name in ["boundaryType", "interpolation", "interval"] {
        let inside =
            |value: &str| ["inside", "none", "0"].contains(&value.to_ascii_lowercase().as_str());
        if params.get(name).is_some_and(|value| !inside(value)) {
            return Err(Refusal::parameter(format!(
                "{name} is not answered: values are returned as they are stored"
            )));
        }
    }
    Ok(())
}

impl Asset {
    fn of<'a>(&'a self, key: &'a str, point: &ElementName) -> Of<'a> {
        Of {
            asset_id: self.device.asset_id.as_str(),
            zone: &self.zone,
            point: key,
            is_json: query::is_json(&self.product, point),
        }
    }

    fn range(&self, points: &[ElementName], from_ms: i64, to_ms: i64) -> Range {
        Range {
            product: self.product.key.clone(),
            devices: vec![self.device.key.clone()],
            points: points.to_vec(),
            from_ms,
            to_ms,
            order: Order::DeviceTime,
            after: None,
            rows_max: usize::MAX,
        }
    }
}

/// Reads a range of some points of an asset, a slab at a time, until `take` has enough.
fn read(
    api: &Api,
    asset: &Asset,
    points: &[ElementName],
    (from_ms, to_ms): (i64, i64),
    view: View,
    mut take: impl FnMut(&RecordBatch) -> Result<Enough, Refusal>,
) -> Result<(), Refusal> {
    // An empty list would ask for every point.
    if points.is_empty() {
        return Ok(());
    }
    let slabs = api
        .store
        .view(&asset.range(points, from_ms, to_ms), view)
        .map_err(|error| Refusal::unreadable(&error))?;
    for slab in slabs {
        let slab = slab.map_err(|error| Refusal::unreadable(&error))?;
        if take(&slab)? == Enough::Yes {
            break;
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Enough {
    Yes,
    NotYet,
}

fn readings(slab: &RecordBatch, point: &ElementName) -> Result<Vec<Reading>, Refusal> {
    query::readings(slab, point.as_str()).map_err(|error| Refusal::unreadable(&error))
}

/// A page of each point of an asset, filled in one read.
struct Pages {
    of: Vec<(ElementName, VecDeque<Reading>)>,
    size: usize,
    descending: bool,
}

impl Pages {
    fn new(asset: &Asset, size: usize, descending: bool) -> Self {
        let empty = |point: &ElementName| (point.clone(), VecDeque::new());
        Self {
            of: asset.points.iter().map(empty).collect(),
            size,
            descending,
        }
    }

    fn read(
        mut self,
        api: &Api,
        asset: &Asset,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<(ElementName, VecDeque<Reading>)>, Refusal> {
        let range = (from_ms, to_ms);
        read(api, asset, &asset.points, range, View::Kept, |slab| {
            for (point, page) in &mut self.of {
                if !self.descending && page.len() >= self.size {
                    continue;
                }
                for reading in readings(slab, point)? {
                    match (self.descending, page.len() >= self.size) {
                        (false, true) => break,
                        (false, false) => page.push_back(reading),
                        (true, is_full) => {
                            // The latest come first, and the earliest fall off.
                            page.truncate(self.size - usize::from(is_full));
                            page.push_front(reading);
                        }
                    }
                }
            }
            let is_full = self.of.iter().all(|(_, page)| page.len() >= self.size);
            Ok(if is_full && !self.descending {
                Enough::Yes
            } else {
                Enough::NotYet
            })
        })?;
        Ok(self.of)
    }
}

fn minute_values(
    api: &Api,
    asset: &Asset,
    point: &ElementName,
    from_ms: i64,
    to_ms: i64,
) -> Result<Minutes, Refusal> {
    let mut values: Minutes = Vec::new();
    let points = std::slice::from_ref(point);
    let view = View::Thinned(Thinning::Minute);
    read(api, asset, points, (from_ms, to_ms), view, |slab| {
        let found = readings(slab, point)?;
        let numbers = found
            .iter()
            .filter_map(|reading| Some((reading.time_ms, reading.number()?)));
        let known = values.pop();
        values.extend(fold::by_minute(known.into_iter().chain(numbers)));
        if values.len() > limits::VENDOR_RECORDS_MAX {
            return Err(Refusal::new(
                TOO_LARGE,
                format!(
                    "point {point} has more than {} minutes in the range; cut the time range",
                    limits::VENDOR_RECORDS_MAX
                ),
            ));
        }
        Ok(Enough::NotYet)
    })?;
    Ok(values)
}

/// The changes of a digital point.
struct Changes {
    /// The last one before the range.
    before: Option<Reading>,
    within: Vec<Reading>,
    /// Where the scan gave up, if it did.
    ended_ms: Option<i64>,
}

impl Changes {
    fn read(
        api: &Api,
        asset: &Asset,
        point: &ElementName,
        (from_ms, to_ms): (i64, i64),
        changes_max: usize,
    ) -> Result<Self, Refusal> {
        let mut changes = Self {
            before: None,
            within: Vec::new(),
            ended_ms: None,
        };
        let mut scanned = 0_usize;
        let points = std::slice::from_ref(point);
        let range = (from_ms.saturating_sub(STATE_BEFORE_MS), to_ms);
        let view = View::Thinned(Thinning::Changes);
        read(api, asset, points, range, view, |slab| {
            for reading in readings(slab, point)? {
                if reading.time_ms < from_ms {
                    changes.before = Some(reading);
                    continue;
                }
                scanned += 1;
                if scanned > limits::VENDOR_RECORDS_MAX {
                    changes.ended_ms = Some(reading.time_ms);
                    return Ok(Enough::Yes);
                }
                let last = changes.within.last().or(changes.before.as_ref());
                // A value at the very beginning is told, whatever was before.
                let is_first = reading.time_ms == from_ms;
                if is_first || last.is_none_or(|last| last.cell != reading.cell) {
                    changes.within.push(reading);
                }
            }
            let is_full = changes.within.len() > changes_max;
            Ok(if is_full { Enough::Yes } else { Enough::NotYet })
        })?;
        Ok(changes)
    }

    /// What is told: the state at the beginning, where it is known from before, and each change.
    fn told(self, from_ms: i64, from_before: bool) -> impl Iterator<Item = Reading> {
        let begins_within = self
            .within
            .first()
            .is_some_and(|first| first.time_ms == from_ms);
        let carried = self.before.filter(|_| from_before && !begins_within);
        carried
            .map(|reading| Reading {
                time_ms: from_ms,
                ..reading
            })
            .into_iter()
            .chain(self.within)
    }
}

fn status_text(cell: &Cell, is_json: bool) -> String {
    match cell {
        Cell::Text(text) => text.to_string(),
        other => {
            let mut text = Vec::new();
            query::write_cell(&mut text, other, is_json);
            String::from_utf8_lossy(&text).into_owned()
        }
    }
}

/// A comparison of `latest/filter`.
#[derive(Debug)]
enum Filter {
    Compare(Compare, Operand),
    Between(Operand, Operand),
    In(Vec<Operand>),
}

#[derive(Debug, Clone, Copy)]
enum Compare {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

#[derive(Debug)]
enum Operand {
    Number(f64),
    Text(String),
}

impl Operand {
    fn read(text: &str) -> Self {
        text.parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .map_or_else(|| Self::Text(text.to_owned()), Self::Number)
    }

    /// How a value stands to it; a number and a text do not compare.
    fn order(&self, cell: &Cell, is_json: bool) -> Option<std::cmp::Ordering> {
        match (self, query::number(cell)) {
            (Self::Number(own), Some(number)) => number.partial_cmp(own),
            (Self::Text(_), Some(_)) => None,
            (own, None) => {
                let own = match own {
                    Self::Text(text) => text.clone(),
                    Self::Number(number) => number.to_string(),
                };
                Some(status_text(cell, is_json).cmp(&own))
            }
        }
    }
}

impl Filter {
    fn read(operator: &str, values: &str) -> Result<Self, Refusal> {
        let operands: Vec<_> = Params::list(values)
            .into_iter()
            .map(Operand::read)
            .collect();
        let compare = match operator.to_ascii_lowercase().as_str() {
            "in" => return Ok(Self::In(operands)),
            "between" => {
                let mut operands = operands.into_iter();
                return match (operands.next(), operands.next(), operands.next()) {
                    (Some(from), Some(to), None) => Ok(Self::Between(from, to)),
                    _ => Err(Refusal::parameter(
                        "between takes two values, separated by a comma",
                    )),
                };
            }
            "eq" => Compare::Eq,
            "nq" | "ne" => Compare::Ne,
            "gt" => Compare::Gt,
            "ge" => Compare::Ge,
            "lt" => Compare::Lt,
            "le" => Compare::Le,
            other => {
                return Err(Refusal::parameter(format!(
                    "operator {other:?} is unknown; known are eq, nq, gt, ge, lt, le, between, in"
                )));
            }
        };
        let mut operands = operands.into_iter();
        match (operands.next(), operands.next()) {
            (Some(operand), None) => Ok(Self::Compare(compare, operand)),
            _ => Err(Refusal::parameter(format!("{operator} takes one value"))),
        }
    }

    fn takes(&self, cell: &Cell, is_json: bool) -> bool {
        use std::cmp::Ordering;
        let order = |operand: &Operand| operand.order(cell, is_json);
        match self {
            Self::Compare(compare, operand) => order(operand).is_some_and(|order| match compare {
                Compare::Eq => order.is_eq(),
                Compare::Ne => order.is_ne(),
                Compare::Gt => order.is_gt(),
                Compare::Ge => order.is_ge(),
                Compare::Lt => order.is_lt(),
                Compare::Le => order.is_le(),
            }),
            Self::Between(from, to) => {
                order(from).is_some_and(Ordering::is_ge) && order(to).is_some_and(Ordering::is_le)
            }
            Self::In(operands) => operands
                .iter()
                .any(|operand| order(operand).is_some_and(Ordering::is_eq)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_compare_as_numbers_and_as_text() {
        let takes = |operator: &str, values: &str, cell: Cell| {
            Filter::read(operator, values).unwrap().takes(&cell, false)
        };
        for (operator, values, expected) in [
            ("eq", "5", true),
            ("NQ", "5", false),
            ("gt", "4.9", true),
            ("ge", "5", true),
            ("lt", "5", false),
            ("le", "5", true),
            ("between", "1,5", true),
            ("between", "6, 7", false),
            ("in", "1,5,9", true),
            ("eq", "x", false),
        ] {
            assert_eq!(
                takes(operator, values, Cell::Int(5)),
                expected,
                "{operator} {values}"
            );
        }
        assert!(takes("eq", "on", Cell::Text("on".into())));
        for (operator, values) in [("like", "1"), ("eq", "1,2"), ("between", "1"), ("eq", "")] {
            assert_eq!(Filter::read(operator, values).unwrap_err().code, 702);
        }
    }
}
