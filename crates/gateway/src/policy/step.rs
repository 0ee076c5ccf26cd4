//! One step of a policy: what it is compiled against, and the kinds that there are.
//!
//! A kind compiles what the file says of it for one point (a script: for its points together), says
//! in words what it does, and acts on a row.

mod clamp;
mod compute;
mod linear;
mod moving;
mod range;
pub(super) mod script;

use std::{collections::HashMap, sync::Arc};

use backtide_model::{ConflictPolicy, DataType, ElementName, Measurepoint, Model};

use super::{
    Bounds, RangeStep, ScaleStep, ScriptStep, StepFile, UnitStep,
    answers::Ask,
    slots::{Row, Slots},
};
use clamp::Clamp;
use compute::Compute;
use linear::Linear;
use moving::Move;
use range::Range;
use script::Script;

/// What a step does to a row.
#[derive(Debug)]
pub(super) enum Action {
    Linear(Linear),
    Clamp(Clamp),
    Range(Range),
    Move(Move),
    Compute(Compute),
    Script(Script),
}

/// An action and what it does in words.
pub(super) type Made<A = Action> = Result<(A, String), String>;

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acted {
    Done,
    /// The row waits for what a script says of it.
    Waits,
}

impl Action {
    /// Compiles a step for one of its points; a script is none of these.
    ///
    /// # Errors
    /// What makes no sense.
    pub(super) fn of_point(
        given: &Given<'_>,
        name: &ElementName,
        point: &Measurepoint,
        ground: &mut Ground<'_>,
    ) -> Made {
        let slot = ground.slots.of(name);
        match given {
            Given::Scale(scale) => {
                is_number(name, point)?;
                made(Self::Linear, Linear::scale(slot, **scale))
            }
            Given::Unit(unit) => {
                is_number(name, point)?;
                made(Self::Linear, Linear::unit(slot, unit))
            }
            Given::Clamp(bounds) => {
                is_number(name, point)?;
                made(Self::Clamp, Clamp::new(slot, **bounds))
            }
            Given::Range(range) => {
                is_number(name, point)?;
                made(Self::Range, Range::new(slot, range, name, point))
            }
            Given::Rename(to) => made(Self::Move, Move::rename(slot, name, point, to, ground)),
            Given::Copy(to) => made(Self::Move, Move::copy(slot, name, point, to, ground)),
            Given::Expression(text) => made(Self::Compute, Compute::new(slot, name, text, ground)),
            Given::Script(_) => Err("a script acts on all its points together".to_owned()),
        }
    }

    /// Acts on a row.
    ///
    /// # Errors
    /// Why the row is refused.
    pub(super) fn act(
        &self,
        row: &mut Row<'_>,
        slots: &Slots,
        ask: Ask<'_>,
    ) -> Result<Acted, String> {
        let done = match self {
            Self::Linear(linear) => linear.act(row),
            Self::Clamp(clamp) => clamp.act(row),
            Self::Range(range) => range.act(row),
            Self::Move(moving) => moving.act(row, slots),
            Self::Compute(compute) => compute.act(row),
            Self::Script(script) => return script.act(row, ask),
        };
        done.map(|()| Acted::Done)
    }

    /// The slots whose values it makes what they are.
    pub(super) fn makes(&self) -> Vec<usize> {
        match self {
            Self::Linear(linear) => vec![linear.slot],
            Self::Clamp(clamp) => vec![clamp.slot],
            Self::Range(range) => vec![range.slot],
            Self::Move(moving) => vec![moving.to],
            Self::Compute(compute) => vec![compute.slot],
            Self::Script(script) => script.makes().collect(),
        }
    }

    /// Of a step that moves a value: the slot it comes from.
    pub(super) fn comes_from(&self) -> Option<usize> {
        match self {
            Self::Move(moving) => Some(moving.from),
            Self::Linear(_)
            | Self::Clamp(_)
            | Self::Range(_)
            | Self::Compute(_)
            | Self::Script(_) => None,
        }
    }
}

fn made<A>(action: impl Fn(A) -> Action, one: Made<A>) -> Made {
    one.map(|(one, does)| (action(one), does))
}

/// The one thing that a step's file says.
pub(super) enum Given<'f> {
    Scale(&'f ScaleStep),
    Unit(&'f UnitStep),
    Clamp(&'f Bounds),
    Range(&'f RangeStep),
    Rename(&'f ElementName),
    Copy(&'f ElementName),
    Expression(&'f str),
    Script(&'f ScriptStep),
}

impl<'f> Given<'f> {
    /// # Errors
    /// It says nothing, or more than one thing.
    pub(super) fn of(file: &'f StepFile) -> Result<Self, String> {
        let StepFile {
            points,
            scale,
            unit,
            clamp,
            range,
            rename,
            copy,
            expression,
            script,
        } = file;
        let said = [
            scale.as_ref().map(|scale| ("scale", Self::Scale(scale))),
            unit.as_ref().map(|unit| ("unit", Self::Unit(unit))),
            clamp.as_ref().map(|bounds| ("clamp", Self::Clamp(bounds))),
            range.as_ref().map(|range| ("range", Self::Range(range))),
            rename.as_ref().map(|to| ("rename", Self::Rename(to))),
            copy.as_ref().map(|to| ("copy", Self::Copy(to))),
            expression
                .as_ref()
                .map(|text| ("expression", Self::Expression(text))),
            script.as_ref().map(|step| ("script", Self::Script(step))),
        ];
        let mut said: Vec<(&str, Self)> = said.into_iter().flatten().collect();
        if points.is_empty() {
            return Err("points is empty; name the points that it acts on".to_owned());
        }
        let words: Vec<&str> = said.iter().map(|(word, _)| *word).collect();
        let (Some((word, given)), true) = (said.pop(), words.len() == 1) else {
            let what = match words.as_slice() {
                [] => "nothing to do".to_owned(),
                several => format!("{} at once", several.join(" and ")),
            };
            return Err(format!(
                "it says {what}; a step is one of scale, unit, clamp, range, rename, copy, \
                 expression and script"
            ));
        };
        let is_of_one = matches!(given, Self::Rename(_) | Self::Copy(_) | Self::Expression(_));
        match is_of_one && points.len() > 1 {
            true => Err(format!(
                "{word} acts on one point, and points has {}",
                points.len()
            )),
            false => Ok(given),
        }
    }
}

/// What steps are compiled against.
pub(super) struct Ground<'c> {
    pub(super) model: &'c Model,
    /// How the channel decides conflicts.
    pub(super) conflict: ConflictPolicy,
    /// Names that the model does not declare, with the points that they are read as.
    pub(super) aliases: HashMap<ElementName, Measurepoint>,
    pub(super) slots: Slots,
}

/// A point that a value is put into.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) point: ElementName,
    pub(super) data_type: DataType,
    pub(super) has_quality: bool,
    pub(super) conflict: ConflictPolicy,
}

impl Ground<'_> {
    pub(super) fn point(&self, name: &ElementName) -> Option<Measurepoint> {
        let declared = self.model.measurepoints.get(name);
        declared.or_else(|| self.aliases.get(name)).cloned()
    }

    /// # Errors
    /// The model has no such point.
    pub(super) fn target(&self, name: &ElementName) -> Result<Arc<Target>, String> {
        let point = self
            .point(name)
            .ok_or_else(|| format!("point {name} is not in the model; declare it"))?;
        Ok(Arc::new(Target {
            point: name.clone(),
            conflict: point.conflict_in(self.conflict),
            has_quality: point.quality,
            data_type: point.data_type,
        }))
    }

    /// The slots and the types of points that are read.
    ///
    /// # Errors
    /// The model has no such point.
    pub(super) fn inputs(
        &mut self,
        names: &[ElementName],
    ) -> Result<(Vec<usize>, Vec<DataType>), String> {
        let mut types = Vec::with_capacity(names.len());
        for name in names {
            let point = self
                .point(name)
                .ok_or_else(|| format!("{name} is no point of the model"))?;
            types.push(point.data_type);
        }
        Ok((
            names.iter().map(|name| self.slots.of(name)).collect(),
            types,
        ))
    }
}

fn is_number(name: &ElementName, point: &Measurepoint) -> Result<(), String> {
    match point.data_type.may_have_quality() {
        true => Ok(()),
        false => Err(format!(
            "point {name} is {}, not a number",
            point.data_type.word()
        )),
    }
}
