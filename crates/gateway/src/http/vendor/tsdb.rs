//! `/tsdb-service`: history as the vendor's API reads it. What is stored is returned, with or without
//! a storage policy (`decisions.md` §6); the limits are the vendor's.
//!
//! Every operation goes the same way: parameters, which are refused before anything has left; then its
//! items, written as they are read, in memory that does not grow with them.

mod filter;
mod history;
mod pages;
mod question;

use std::collections::HashMap;

use backtide_model::{Cell, ElementName, Signal};
use serde_json::{Value, json};

use self::{
    filter::{Filter, status_text},
    history::History,
    pages::Page,
    question::{
        Asset, Question, Sorted, Takes, missing, page_size, refuse_interpolation, too_many,
    },
};
use super::{
    answer::{Refusal, TOO_LARGE},
    call::{Call, Params},
    fold::{self, Grid, Logic},
    items::{Ended, Opening},
    states::{Durations, Lasted},
};
use crate::{http::Api, limits, query};

const INTERVAL_MINUTES_MAX: u16 = 1_440;
const POINTS: &[&str] = &["pointIds", "measurepoints"];
const LOGIC: &[&str] = &["pointIdsWithLogic", "measurepointsWithLogic"];
/// Points of a device whose latest values, which may be long texts, are held at a time.
const LATEST_AT_ONCE: usize = 16;

pub(super) fn raw(api: &Api, call: &Call, opening: Opening<'_>) -> Result<(), Ended> {
    range(api, call, opening, Takes::Any)
}

pub(super) fn ai(api: &Api, call: &Call, opening: Opening<'_>) -> Result<(), Ended> {
    range(api, call, opening, Takes::Signal(Signal::Analogue))
}

pub(super) fn generic(api: &Api, call: &Call, opening: Opening<'_>) -> Result<(), Ended> {
    range(api, call, opening, Takes::Signal(Signal::Generic))
}

/// Values of points that no model declares.
pub(super) fn unformatted(api: &Api, call: &Call, opening: Opening<'_>) -> Result<(), Ended> {
    range(api, call, opening, Takes::Undeclared)
}

/// Values of a range as they are stored.
fn range(api: &Api, call: &Call, opening: Opening<'_>, takes: Takes) -> Result<(), Ended> {
    refuse_interpolation(&call.params)?;
    let question = Question::of(api, call, call.params.either(POINTS)?, takes)?;
    let page = Page {
        size: page_size(call, &question)?,
        sorted: Sorted::of(&call.params)?,
    };
    let with_quality = call.params.is_set("withQuality", false)?;
    let spans = question.spans(&call.params)?;
    let history = History::of(api, &opening);
    let mut items = opening.items(question.form.with_quality(with_quality));
    for (asset, span) in question.assets.iter().zip(spans) {
        page.read(&history, asset, span, &mut |point, reading| {
            let of = asset.of(point.as_str(), point);
            items.push(&of, reading.time_ms, &reading.cell, reading.quality)
        })?;
    }
    items.finish()
}

/// Changes of digital points, with the state at the beginning.
pub(super) fn di(api: &Api, call: &Call, opening: Opening<'_>) -> Result<(), Ended> {
    let takes = Takes::Signal(Signal::Digital);
    let question = Question::of(api, call, call.params.either(POINTS)?, takes)?;
    let page = page_size(call, &question)?;
    if Sorted::of(&call.params)? == Sorted::LatestFirst {
        return Err(Refusal::parameter(
            "orderBy timestamp desc is not answered here: changes come in the order of time",
        )
        .into());
    }
    let with_quality = call.params.is_set("withQuality", false)?;
    let from_before = call.params.is_set("autoInterpolate", true)?;
    let spans = question.spans(&call.params)?;
    let history = History::of(api, &opening);
    let mut items = opening.items(question.form.with_quality(with_quality));
    for (asset, span) in question.assets.iter().zip(spans) {
        for point in &asset.points {
            let of = asset.of(point.as_str(), point);
            let changes = history.changes(asset, point, span, from_before)?;
            for reading in changes.take(page) {
                let reading = reading?;
                items.push(&of, reading.time_ms, &reading.cell, reading.quality)?;
            }
        }
    }
    items.finish()
}

/// How long digital points had which state. All of it is computed before anything leaves: what has too
/// many states is refused.
pub(super) fn di_duration(api: &Api, call: &Call, opening: Opening<'_>) -> Result<(), Ended> {
    let takes = Takes::Signal(Signal::Digital);
    let question = Question::of(api, call, call.params.either(POINTS)?, takes)?;
    let series = question.series();
    if series > limits::VENDOR_DURATION_SERIES_MAX {
        return Err(too_many(series, limits::VENDOR_DURATION_SERIES_MAX).into());
    }
    let with_unknown = call.params.is_set("ifWithUnknown", true)?;
    let wanted = call.params.get("status").map(Params::list);
    let is_wanted = |state: &Option<String>| match state {
        None if !with_unknown => false,
        state => wanted
            .as_ref()
            .is_none_or(|wanted| wanted.contains(&state_word(state))),
    };
    let spans = question.spans(&call.params)?;
    let history = History::of(api, &opening);
    let now_ms = api.clock.now_ms();
    let mut told = Vec::new();
    for (asset, (from_ms, to_ms)) in question.assets.iter().zip(spans) {
        // What is to come is not known yet.
        let span = (from_ms, to_ms.min(now_ms).max(from_ms));
        for point in &asset.points {
            let (lasted, end_ms) = durations(&history, asset, point, span)?;
            let durations: Vec<Value> = lasted
                .iter()
                .filter(|(state, _)| is_wanted(state))
                .map(|(state, ms)| json!({ "status": state_word(state), "duration": ms }))
                .collect();
            told.push(json!({
                "assetId": asset.device.asset_id,
                "pointId": point,
                "scanEndTimestamp": end_ms,
                "durations": durations,
            }));
        }
    }
    let mut items = opening.items(question.form);
    told.iter().try_for_each(|item| items.push_json(item))?;
    items.finish()
}

fn state_word(state: &Option<String>) -> &str {
    state.as_deref().unwrap_or("Unknown")
}

/// How long each state lasted, and where the scan ended: at the end of the span, unless it gave up.
fn durations(
    history: &History<'_>,
    asset: &Asset,
    point: &ElementName,
    span: (i64, i64),
) -> Result<(Lasted, i64), Ended> {
    let too_many = |_| {
        Refusal::new(
            TOO_LARGE,
            format!(
                "point {point} has more than {} values in the range, which are no states then; ask /raw",
                limits::AGGREGATE_STATES_MAX
            ),
        )
    };
    let is_json = query::is_json(&asset.product, point);
    let (mut durations, mut end_ms) = (Durations::from(span.0), span.1);
    let changes = history.changes(asset, point, span, true)?;
    for (number, change) in changes.enumerate() {
        let change = change?;
        if number >= limits::VENDOR_RECORDS_MAX {
            end_ms = change.time_ms;
            break;
        }
        let state = status_text(&change.cell, is_json);
        durations.change(change.time_ms, state).map_err(too_many)?;
    }
    Ok((durations.end(end_ms).map_err(too_many)?, end_ms))
}

/// Minute values of analogue points, or functions over intervals of them.
pub(super) fn ai_normalized(api: &Api, call: &Call, opening: Opening<'_>) -> Result<(), Ended> {
    folded(api, call, opening, Signal::Analogue)
}

/// What counters counted, by the minute or as functions over intervals.
pub(super) fn electric_power(api: &Api, call: &Call, opening: Opening<'_>) -> Result<(), Ended> {
    folded(api, call, opening, Signal::Pulse)
}

fn folded(api: &Api, call: &Call, opening: Opening<'_>, signal: Signal) -> Result<(), Ended> {
    let interval = interval_minutes(&call.params)?;
    let logic = Logic::list(call.params.either(LOGIC)?, interval > 0)?;
    let points: Vec<&str> = logic.iter().map(|logic| logic.point).collect();
    let question = Question::of(api, call, &points.join(","), Takes::Signal(signal))?;
    question.refuse_other_than_numbers()?;
    let page = page_size(call, &question)?;
    let spans = question.spans(&call.params)?;
    let history = History::of(api, &opening);
    let mut items = opening.items(question.form);
    for (asset, span) in question.assets.iter().zip(spans) {
        for logic in &logic {
            let is_asked = |point: &&ElementName| point.as_str() == logic.point;
            let Some(point) = asset.points.iter().find(is_asked) else {
                continue;
            };
            let of = asset.of(logic.text, point);
            let minutes = history.minutes(asset, point, span)?;
            let values: Values<'_> = match signal {
                Signal::Pulse => Box::new(fold::increments(minutes)),
                _ => Box::new(minutes),
            };
            let told = told(values, logic, Grid::new(&asset.zone, interval));
            for value in told.take(page) {
                items.push_number(&of, value?)?;
            }
        }
    }
    items.finish()
}

/// Times and numbers, in the order of time.
type Values<'v> = Box<dyn Iterator<Item = Result<(i64, f64), Ended>> + 'v>;

fn told<'v>(values: Values<'v>, logic: &Logic<'_>, grid: Grid<'v>) -> Values<'v> {
    let Some(function) = logic.function else {
        return values;
    };
    Box::new(
        fold::folded(values, grid).map(move |interval| {
            interval.map(|(begin_ms, folded)| (begin_ms, folded.of(function)))
        }),
    )
}

fn interval_minutes(params: &Params) -> Result<u16, Refusal> {
    let minutes: u16 = params
        .number("interval")?
        .ok_or_else(|| missing("interval"))?;
    if minutes > INTERVAL_MINUTES_MAX {
        return Err(Refusal::parameter(format!(
            "interval {minutes} is over {INTERVAL_MINUTES_MAX} minutes"
        )));
    }
    Ok(minutes)
}

/// What counters counted since local midnight.
pub(super) fn current_day(api: &Api, call: &Call, opening: Opening<'_>) -> Result<(), Ended> {
    let takes = Takes::Signal(Signal::Pulse);
    let question = Question::of(api, call, call.params.either(POINTS)?, takes)?;
    question.refuse_other_than_numbers()?;
    let history = History::of(api, &opening);
    let mut items = opening.items(question.form);
    let now_ms = api.clock.now_ms();
    for asset in &question.assets {
        let span = (
            fold::midnight(&asset.zone, now_ms),
            now_ms.saturating_add(1),
        );
        for point in &asset.points {
            let mut last_ms = None;
            let minutes = history.minutes(asset, point, span)?.inspect(|minute| {
                last_ms = minute
                    .as_ref()
                    .map(|(time_ms, _)| *time_ms)
                    .ok()
                    .or(last_ms);
            });
            let counted: f64 = fold::increments(minutes)
                .map(|counted| counted.map(|(_, value)| value))
                .sum::<Result<_, _>>()?;
            if let Some(last_ms) = last_ms {
                items.push_number(&asset.of(point.as_str(), point), (last_ms, counted))?;
            }
        }
    }
    items.finish()
}

/// The values with the greatest event time.
pub(super) fn latest(api: &Api, call: &Call, opening: Opening<'_>) -> Result<(), Ended> {
    let points = call.params.either(POINTS)?;
    latest_that(api, call, opening, points, |_, _| true)
}

/// Latest values that compare.
pub(super) fn latest_filter(api: &Api, call: &Call, opening: Opening<'_>) -> Result<(), Ended> {
    let point = call
        .params
        .either(&["pointId", "measurepoint", "pointIds", "measurepoints"])?;
    if point.contains(',') {
        return Err(Refusal::parameter("pointId names one point").into());
    }
    let operator = call.params.required("operator")?;
    let filter = Filter::read(operator, call.params.required("valueFilter")?)?;
    latest_that(api, call, opening, point, |cell, is_json| {
        filter.takes(cell, is_json)
    })
}

fn latest_that(
    api: &Api,
    call: &Call,
    opening: Opening<'_>,
    points: &str,
    takes: impl Fn(&Cell, bool) -> bool,
) -> Result<(), Ended> {
    let question = Question::of(api, call, points, Takes::Any)?;
    let window: Option<u32> = call.params.number("timeWindow")?;
    let since_ms = window.map_or(i64::MIN, |minutes| {
        api.clock.now_ms() - i64::from(minutes) * 60_000
    });
    let mut items = opening.items(question.form);
    for asset in &question.assets {
        let device = std::slice::from_ref(&asset.device.key);
        for points in asset.points.chunks(LATEST_AT_ONCE) {
            let found = api.store.latest(&asset.product.key, device, points);
            let found: HashMap<_, _> = found.iter().map(|latest| (&latest.point, latest)).collect();
            for point in points {
                let of = asset.of(point.as_str(), point);
                let latest = found
                    .get(point)
                    .filter(|latest| latest.time_ms >= since_ms && takes(&latest.cell, of.is_json));
                if let Some(latest) = latest {
                    items.push(&of, latest.time_ms, &latest.cell, latest.quality)?;
                }
            }
        }
    }
    items.finish()
}
