//! What is derived from the values of one product: compiled from the policies that are declared.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use backtide_model::{ElementName, ObjectName, Storage};
use jiff::tz::TimeZone;

use super::chunk::FORMAT;
use crate::{
    policy::{Keep, Pace, ReductionFile, RollupFile, is_number, points_of},
    query::{
        AskedPoint, OutColumn,
        aggregate::{Fill, Function, Plan, Windows},
        asked_point,
    },
    registry::{Policy, Product, Snapshot},
};

/// Rows of a chunk, about: so many windows.
const CHUNK_WINDOWS: i64 = 256;

/// A rollup, or a reduction, of one product.
#[derive(Debug)]
pub struct Series {
    pub name: ObjectName,
    pub policy: ObjectName,
    pub product: Arc<Product>,
    /// As its policy has it, for people.
    pub interval: String,
    pub zone: Option<String>,
    /// What is computed together: a change of a value concerns its window, and what is within
    /// [`Self::reach_ms`] behind it.
    pub windows: Windows,
    pub chunk_ms: i64,
    pub reach_ms: i64,
    pub pace: Pace,
    pub work: Work,
    /// What it says, as text: whoever says something else is computed anew.
    pub print: String,
    /// What it is made of: where a point is new, or another, what is stored of it is computed too.
    pub made_of: MadeOf,
}

/// The points of a series with what is computed of each; a line of text each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MadeOf(BTreeMap<String, String>);

impl MadeOf {
    fn new(work: &Work) -> Self {
        let line = |point: &AskedPoint, functions: &[Function]| {
            let words: Vec<&str> = functions.iter().map(|function| function.word()).collect();
            let of = format!("{:?} {}", point.storage, words.join(","));
            (point.name.to_string(), of)
        };
        Self(match work {
            Work::Rollup { points, .. } => points.iter().map(|(p, f)| line(p, f)).collect(),
            Work::Reduction { points, .. } => points.iter().map(|p| line(p, &[])).collect(),
        })
    }

    /// As [`Self::text`] writes it; an empty text is of nothing.
    pub(super) fn read(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        Self(
            lines
                .map(|(name, of)| (name.to_owned(), of.to_owned()))
                .collect(),
        )
    }

    pub(super) fn text(&self) -> String {
        let lines = self.0.iter().map(|(name, of)| format!("{name}\t{of}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The points that `before` does not have, or not so.
    pub fn beyond<'s>(&'s self, before: &'s Self) -> impl Iterator<Item = &'s str> {
        let new = self
            .0
            .iter()
            .filter(|(name, of)| before.0.get(*name) != Some(of));
        new.map(|(name, _)| name.as_str())
    }
}

/// What is computed.
#[derive(Debug)]
pub enum Work {
    Rollup {
        points: Vec<(AskedPoint, Vec<Function>)>,
        hold_ms: i64,
        lookback_ms: i64,
    },
    Reduction {
        points: Vec<AskedPoint>,
        rate_per_ms: Option<f64>,
        keep: Keep,
    },
}

impl Work {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Rollup { .. } => "rollup",
            Self::Reduction { .. } => "reduction",
        }
    }
}

impl Series {
    /// Everything that is declared, in the order of policies, then of products. What no longer makes
    /// sense for a product is left out: the registry refused it.
    pub fn all(snapshot: &Snapshot) -> Vec<Self> {
        let mut all = Vec::new();
        for policy in snapshot.policies_after(None) {
            if policy.file.analysis.is_empty() && policy.file.after_commit.is_empty() {
                continue;
            }
            for product in snapshot.products_after(None) {
                if !policy.file.is_about(product) {
                    continue;
                }
                let rollups = policy.file.analysis.iter();
                all.extend(rollups.filter_map(|file| Self::rollup(policy, file, product)));
                let reductions = policy.file.after_commit.iter();
                all.extend(reductions.filter_map(|file| Self::reduction(policy, file, product)));
            }
        }
        all
    }

    fn rollup(policy: &Policy, file: &RollupFile, product: &Arc<Product>) -> Option<Self> {
        let plan = file.plan().ok()?;
        let mut points = Vec::new();
        for (name, data_type) in points_of(&file.points, &product.model) {
            let point = asked_point(name, data_type.as_ref());
            let takes = |function: &&Function| function.takes(point.storage);
            let functions: Vec<Function> = plan.functions.iter().filter(takes).copied().collect();
            // Nobody named it, and it has nothing but a count.
            let is_idle = file.points.is_empty() && functions.len() < plan.functions.len().min(2);
            if !is_idle {
                points.push((point, functions));
            }
        }
        if points.is_empty() {
            return None;
        }
        let has = |wanted: &[Function]| {
            let mut functions = points.iter().flat_map(|(_, functions)| functions);
            functions.any(|function| wanted.contains(function))
        };
        let holds = has(&[Function::Twa, Function::Durations]);
        let grows = has(&[Function::Increase]);
        let reach_ms = i64::max(
            if holds { plan.hold_ms } else { 0 },
            if grows { plan.lookback_ms } else { 0 },
        );
        let work = Work::Rollup {
            points,
            hold_ms: plan.hold_ms,
            lookback_ms: plan.lookback_ms,
        };
        Some(Self {
            name: file.rollup.clone(),
            policy: policy.name.clone(),
            product: Arc::clone(product),
            interval: file.interval.clone(),
            zone: file.time_zone.clone(),
            windows: Windows::new(plan.interval, plan.zone),
            chunk_ms: CHUNK_WINDOWS * plan.interval.about_ms(),
            reach_ms,
            pace: plan.pace,
            made_of: MadeOf::new(&work),
            work,
            print: print_of(&RollupFile {
                quiet: None,
                within: None,
                ..file.clone()
            }),
        })
    }

    fn reduction(policy: &Policy, file: &ReductionFile, product: &Arc<Product>) -> Option<Self> {
        let plan = file.plan().ok()?;
        let points = points_of(&file.points, &product.model);
        let points: Vec<AskedPoint> = points
            .into_iter()
            .map(|(name, data_type)| asked_point(name, data_type.as_ref()))
            .filter(|point| is_number(point.storage))
            .collect();
        if points.is_empty() {
            return None;
        }
        let restart_ms = plan.restart.about_ms();
        let work = Work::Reduction {
            points,
            rate_per_ms: plan.rate_per_ms,
            keep: plan.keep,
        };
        Some(Self {
            name: file.reduction.clone(),
            policy: policy.name.clone(),
            product: Arc::clone(product),
            interval: file.restart.clone().unwrap_or_else(|| "1d".to_owned()),
            zone: None,
            windows: Windows::new(plan.restart, TimeZone::UTC),
            chunk_ms: restart_ms,
            // The first value of the next window is compared with the last of this one.
            reach_ms: if plan.rate_per_ms.is_some() {
                restart_ms
            } else {
                0
            },
            pace: plan.pace,
            made_of: MadeOf::new(&work),
            work,
            print: print_of(&ReductionFile {
                quiet: None,
                within: None,
                ..file.clone()
            }),
        })
    }

    /// The points that it is made of.
    pub fn points(&self) -> Vec<&AskedPoint> {
        match &self.work {
            Work::Rollup { points, .. } => points.iter().map(|(point, _)| point).collect(),
            Work::Reduction { points, .. } => points.iter().collect(),
        }
    }

    /// Their names, to be looked up.
    pub fn names(&self) -> HashSet<ElementName> {
        let points = self.points().into_iter();
        points.map(|point| point.name.clone()).collect()
    }

    /// Of a rollup: what is to be folded between two moments, both ends of windows.
    pub fn plan(&self, from_ms: i64, to_ms: i64) -> Option<Plan> {
        let Work::Rollup {
            points,
            hold_ms,
            lookback_ms,
        } = &self.work
        else {
            return None;
        };
        Some(Plan {
            from_ms: Some(from_ms),
            to_ms: Some(to_ms),
            fill: Fill::None,
            hold_ms: *hold_ms,
            lookback_ms: self.reach_ms,
            increase_ms: *lookback_ms,
            ..Plan::new(points.clone(), self.windows.clone())
        })
    }

    /// The columns that its rows have after device and time.
    pub fn columns(&self) -> Vec<OutColumn> {
        match &self.work {
            Work::Rollup { points, .. } => {
                Plan::new(points.clone(), self.windows.clone()).columns()
            }
            Work::Reduction { points, .. } => points.iter().map(mark_column).collect(),
        }
    }

    /// How rows are kept: their time, then [`Self::columns`].
    pub fn schema(&self) -> SchemaRef {
        let mut fields = vec![Field::new(super::TIME, DataType::Int64, false)];
        let columns = self.columns();
        fields.extend(
            columns
                .iter()
                .map(|column| Field::new(&column.source, column.data_type(), true)),
        );
        Arc::new(Schema::new(fields))
    }

    /// The chunk that has a moment.
    pub fn chunk_at(&self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.chunk_ms)
    }

    /// The end of what a change before `to_ms`, the end of a window, may reach into.
    pub fn reached_until(&self, to_ms: i64) -> i64 {
        match self.reach_ms {
            0 => to_ms,
            reach_ms => {
                let last_ms = to_ms.saturating_sub(1).saturating_add(reach_ms);
                self.windows.at(last_ms).end_ms
            }
        }
    }
}

/// What a reduction says of a point's value: [`super::reduce::KEPT`] and [`super::reduce::FAST`].
fn mark_column(point: &AskedPoint) -> OutColumn {
    let name = format!("{}.marks", point.name);
    OutColumn {
        source: name.clone(),
        name,
        quality: None,
        storage: Storage::Int,
        is_json: false,
        is_time: false,
    }
}

fn print_of(file: &impl serde::Serialize) -> String {
    let file = serde_json::to_string(file).expect("a file that was read writes");
    format!("{FORMAT} {file}")
}
