//! What is derived from values after they are stored: rollups and reductions, as they stand in an
//! object file, and what of them makes sense.

use std::collections::BTreeSet;

use backtide_model::{DataType, ElementName, Model, ObjectName, Storage};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    limits,
    query::aggregate::{Function, Interval, elapsed},
};

/// How long a value holds in a rollup that does not say.
const HOLD: &str = "1h";
/// How long a window is left alone after a value, and how long at most, where nothing is said.
const QUIET: &str = "5s";
const WITHIN: &str = "1m";
/// Where a reduction begins anew unless it says.
const RESTART: &str = "1d";

/// Windows of points, kept folded: what an aggregate would answer, without reading what it was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RollupFile {
    /// Its name, by which it is read; no other policy has a rollup or reduction of that name.
    #[schemars(with = "String", length(min = 1, max = 64))]
    pub rollup: ObjectName,
    /// Points, by identifier; all that take one of the functions when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub points: Vec<ElementName>,
    /// How long a window is: 1m to 1mo, such as 10m, 1h, 1d, 1w.
    pub interval: String,
    /// The zone whose days, weeks and months they are; UTC unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// count, sum, min, max, avg, first, last, twa, durations, increase, stddev, firstTime, lastTime; count is
    /// always kept.
    #[schemars(length(min = 1))]
    pub functions: Vec<String>,
    /// For twa and durations: how long a value holds at most; 1h unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// For increase: how old the value before may be; `hold` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookback: Option<String>,
    /// A window is computed once no value has come for so long; 5s unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<String>,
    /// But at least so soon after a value, even if more keep coming; 1m unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

/// Values of points looked at in the order of their times, after they are stored: which stand out, and
/// which say nothing that their neighbours do not say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ReductionFile {
    /// Its name, by which it is read; no other policy has a rollup or reduction of that name.
    #[schemars(with = "String", length(min = 1, max = 64))]
    pub reduction: ObjectName,
    /// Points with numbers, by identifier.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub points: Vec<ElementName>,
    /// Flags values that are too far from the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_of_change: Option<RateStep>,
    /// Keeps a value only if it is further from the last kept one than the deviation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_band: Option<DeviationStep>,
    /// Keeps values so that the lines between them pass all others within the deviation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swinging_door: Option<DeviationStep>,
    /// The reduction begins anew with every window of this length (UTC), and keeps its first and last
    /// value; 1d unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// As for a rollup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<String>,
    /// As for a rollup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

/// How fast a value may change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateOfChange")]
pub struct RateStep {
    /// The greatest change in `per`, up or down.
    pub most: f64,
    /// A span of time, such as 1s or 1m.
    pub per: String,
}

/// How far a value may be off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Deviation")]
pub struct DeviationStep {
    /// In the unit of the point.
    pub deviation: f64,
}

/// A rollup that makes sense, before it is about a product.
#[derive(Debug, Clone)]
pub struct RollupPlan {
    pub interval: Interval,
    pub zone: TimeZone,
    /// Count first, then those that were named.
    pub functions: Vec<Function>,
    pub hold_ms: i64,
    pub lookback_ms: i64,
    pub pace: Pace,
}

/// When a window is computed after a value came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub quiet_ms: i64,
    pub within_ms: i64,
}

/// A reduction that makes sense.
#[derive(Debug, Clone, PartialEq)]
pub struct ReductionPlan {
    /// The greatest change a millisecond.
    pub rate_per_ms: Option<f64>,
    pub keep: Keep,
    pub restart: Interval,
    pub pace: Pace,
}

/// Which values a reduction keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keep {
    All,
    DeadBand(f64),
    SwingingDoor(f64),
}

fn span(place: &str, given: Option<&str>, default: &str) -> Result<i64, String> {
    elapsed(given.unwrap_or(default)).map_err(|error| format!("{place}: {error}"))
}

fn pace(quiet: Option<&str>, within: Option<&str>) -> Result<Pace, String> {
    let quiet_ms = span("quiet", quiet, QUIET)?;
    let within_ms = span("within", within, WITHIN)?;
    if quiet_ms > limits::ANALYSIS_WAIT_MS_MAX || within_ms > limits::ANALYSIS_WAIT_MS_MAX {
        return Err("quiet and within are at most 1d".to_owned());
    }
    if within_ms < quiet_ms {
        return Err(
            "within is shorter than quiet: a window would be computed before it is quiet"
                .to_owned(),
        );
    }
    Ok(Pace {
        quiet_ms,
        within_ms,
    })
}

impl RollupFile {
    /// What it says, understood.
    ///
    /// # Errors
    /// What makes no sense, and what would.
    pub fn plan(&self) -> Result<RollupPlan, String> {
        let interval = Interval::parse(&self.interval).map_err(|e| format!("interval: {e}"))?;
        let about_ms = interval.about_ms();
        if !(limits::ROLLUP_MS_MIN..=limits::ROLLUP_MS_MAX).contains(&about_ms) {
            return Err(format!(
                "interval: {} is not between 1m and 1mo",
                self.interval
            ));
        }
        let zone = match &self.time_zone {
            None => TimeZone::UTC,
            Some(name) => crate::query::zone(name).map_err(|e| format!("timeZone: {e}"))?,
        };
        let mut functions = vec![Function::Count];
        if self.functions.is_empty() {
            return Err("functions is empty; name some, such as [avg, max]".to_owned());
        }
        for word in &self.functions {
            let function = Function::parse(word).ok_or_else(|| {
                let known = Function::ALL.map(Function::word);
                format!("functions: {word} is none; there are {}", known.join(", "))
            })?;
            if !functions.contains(&function) {
                functions.push(function);
            }
        }
        if functions.contains(&Function::Durations) && self.points.is_empty() {
            return Err("durations are for states: name the points that are".to_owned());
        }
        let hold_ms = span("hold", self.hold.as_deref(), HOLD)?;
        let lookback_ms = span(
            "lookback",
            self.lookback.as_deref(),
            self.hold.as_deref().unwrap_or(HOLD),
        )?;
        if hold_ms.max(lookback_ms) > limits::ROLLUP_REACH_MS_MAX {
            return Err("hold and lookback are at most 366d".to_owned());
        }
        Ok(RollupPlan {
            interval,
            zone,
            functions,
            hold_ms,
            lookback_ms,
            pace: pace(self.quiet.as_deref(), self.within.as_deref())?,
        })
    }
}

impl ReductionFile {
    /// What it says, understood.
    ///
    /// # Errors
    /// What makes no sense, and what would.
    pub fn plan(&self) -> Result<ReductionPlan, String> {
        let deviation =
            |step: DeviationStep| match step.deviation.is_finite() && step.deviation >= 0.0 {
                true => Ok(step.deviation),
                false => Err("deviation is no number of 0 or more".to_owned()),
            };
        let keep = match (self.dead_band, self.swinging_door) {
            (Some(_), Some(_)) => {
                return Err("it has deadBand and swingingDoor: a reduction has one".to_owned());
            }
            (Some(step), None) => Keep::DeadBand(deviation(step)?),
            (None, Some(step)) => Keep::SwingingDoor(deviation(step)?),
            (None, None) => Keep::All,
        };
        let rate_per_ms = match &self.rate_of_change {
            None => None,
            Some(RateStep { most, per }) => {
                let per_ms = span("rateOfChange: per", Some(per), "1s")?;
                if !(most.is_finite() && *most >= 0.0) || per_ms == 0 {
                    return Err(
                        "rateOfChange: most is no number of 0 or more, or per is nothing"
                            .to_owned(),
                    );
                }
                Some(most / per_ms as f64)
            }
        };
        if rate_per_ms.is_none() && keep == Keep::All {
            return Err(
                "it says nothing: give it rateOfChange, deadBand or swingingDoor".to_owned(),
            );
        }
        let restart = self.restart.as_deref().unwrap_or(RESTART);
        let restart = Interval::parse(restart).map_err(|error| format!("restart: {error}"))?;
        if !(limits::ROLLUP_MS_MIN..=limits::RESTART_MS_MAX).contains(&restart.about_ms()) {
            return Err("restart is not between 1m and 1d".to_owned());
        }
        Ok(ReductionPlan {
            rate_per_ms,
            keep,
            restart,
            pace: pace(self.quiet.as_deref(), self.within.as_deref())?,
        })
    }
}

/// Checks rollups and reductions against the models that their policy is about.
///
/// # Errors
/// Which makes no sense, and why.
pub fn check_derived(
    rollups: &[RollupFile],
    reductions: &[ReductionFile],
    models: &[&Model],
) -> Result<(), String> {
    let count = rollups.len() + reductions.len();
    if count > limits::POLICY_DERIVED_MAX {
        return Err(format!(
            "it has {count} rollups and reductions, at most {} are taken",
            limits::POLICY_DERIVED_MAX
        ));
    }
    let mut names = BTreeSet::new();
    for rollup in rollups {
        let of = |why: String| format!("rollup {}: {why}", rollup.rollup);
        if !names.insert(&rollup.rollup) {
            return Err(of("the name stands twice".to_owned()));
        }
        let functions = rollup.plan().map_err(of)?.functions;
        check_points(&rollup.points, models, |storage| {
            check_functions(&functions, storage)
        })
        .map_err(of)?;
    }
    for reduction in reductions {
        let of = |why: String| format!("reduction {}: {why}", reduction.reduction);
        if !names.insert(&reduction.reduction) {
            return Err(of("the name stands twice".to_owned()));
        }
        reduction.plan().map_err(of)?;
        if reduction.points.is_empty() {
            return Err(of(
                "points is empty; name the points that it is about".to_owned()
            ));
        }
        check_points(&reduction.points, models, |storage| {
            match is_number(storage) {
                true => Ok(()),
                false => Err("it has no numbers".to_owned()),
            }
        })
        .map_err(of)?;
    }
    Ok(())
}

/// Some model has each of them, and in every model that has one it makes sense.
fn check_points(
    points: &[ElementName],
    models: &[&Model],
    makes_sense: impl Fn(Storage) -> Result<(), String>,
) -> Result<(), String> {
    if points.len() > limits::POLICY_POINTS_MAX {
        return Err(format!(
            "points has {} names, at most {} are taken",
            points.len(),
            limits::POLICY_POINTS_MAX
        ));
    }
    for point in points {
        let mut is_known = false;
        for model in models {
            let declared = model.measurepoints.get(point);
            is_known |= declared.is_some() || model.passthrough;
            if let Some(declared) = declared {
                makes_sense(declared.data_type.storage())
                    .map_err(|why| format!("point {point}: {why}"))?;
            }
        }
        if !is_known {
            return Err(format!(
                "point {point} is in none of the models that the policy is about"
            ));
        }
    }
    Ok(())
}

fn check_functions(functions: &[Function], storage: Storage) -> Result<(), String> {
    if let Some(refused) = functions.iter().find(|function| !function.takes(storage)) {
        return Err(format!(
            "{refused} is of numbers, and its values are text; texts have count, first, last, durations"
        ));
    }
    let is_state = !matches!(storage, Storage::Float | Storage::Double);
    match functions.contains(&Function::Durations) && !is_state {
        true => Err("durations are of states: bool, int, long, enum or string".to_owned()),
        false => Ok(()),
    }
}

/// Whether values stored so can be reduced.
pub fn is_number(storage: Storage) -> bool {
    match storage {
        Storage::Int | Storage::Long | Storage::Float | Storage::Double => true,
        Storage::Bool | Storage::Text => false,
    }
}

/// The points of a model that a list is about: those that it names, or all.
pub fn points_of(named: &[ElementName], model: &Model) -> Vec<(ElementName, Option<DataType>)> {
    let declared = model.measurepoints.iter();
    match named.is_empty() {
        true => declared
            .map(|(name, point)| (name.clone(), Some(point.data_type.clone())))
            .collect(),
        false => {
            let is_there =
                |name: &&ElementName| model.passthrough || model.measurepoints.contains_key(*name);
            let data_type = |name: &ElementName| {
                let point = model.measurepoints.get(name);
                point.map(|point| point.data_type.clone())
            };
            let named = named.iter().filter(is_there);
            named.map(|name| (name.clone(), data_type(name))).collect()
        }
    }
}
