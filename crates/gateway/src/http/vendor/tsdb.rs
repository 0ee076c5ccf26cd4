//! `/tsdb-service`: history as the vendor's API reads it. What is stored is returned, with or without
//! a storage policy (`decisions.md` §6); the limits are the vendor's.
//!
//! An answer is held whole before it leaves, so it has bounds: records and series by the vendor's limits,
//! bytes by one of ours, and as many at once as there are threads that answer.

mod filter;
mod question;
mod reads;

use backtide_model::{Cell, NO_QUALITY, Signal};
use serde_json::{Value, json};

use self::{
    filter::{Filter, status_text},
    question::{
        Question, Takes, is_descending, missing, page_size, refuse_interpolation, too_many,
    },
    reads::{Changes, Minutes, Pages, minute_values},
};
use super::{
    answer::{Data, Refusal},
    call::{Call, Params},
    fold::{self, Folded, Grid, Logic},
    items::Items,
    moments::Span,
};
use crate::{http::Api, limits, query};

const INTERVAL_MINUTES_MAX: u16 = 1_440;
const POINTS: &[&str] = &["pointIds", "measurepoints"];
const LOGIC: &[&str] = &["pointIdsWithLogic", "measurepointsWithLogic"];

pub(super) fn raw(api: &Api, call: &Call) -> Result<Data, Refusal> {
    range(api, call, Takes::Any)
}

pub(super) fn ai(api: &Api, call: &Call) -> Result<Data, Refusal> {
    range(api, call, Takes::Signal(Signal::Analogue))
}

pub(super) fn generic(api: &Api, call: &Call) -> Result<Data, Refusal> {
    range(api, call, Takes::Signal(Signal::Generic))
}

/// Values of points that no model declares.
pub(super) fn unformatted(api: &Api, call: &Call) -> Result<Data, Refusal> {
    range(api, call, Takes::Undeclared)
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
                items.push(&of, reading.time_ms, &reading.cell, reading.quality)?;
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
                items.push(&of, reading.time_ms, &reading.cell, reading.quality)?;
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
                items.push(&of, time_ms, &Cell::Double(value), NO_QUALITY)?;
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
            items.push(&of, last_ms, &Cell::Double(counted), NO_QUALITY)?;
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
                items.push(&of, latest.time_ms, &latest.cell, latest.quality)?;
            }
        }
    }
    Ok(Data {
        data: items.finish(),
        ..Data::default()
    })
}
