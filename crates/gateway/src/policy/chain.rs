//! The steps of all policies that apply to a channel, compiled, and their way over a row.
//!
//! Every name that a step mentions has a slot. A row's values are found by slot once, then the steps
//! go over the slots: a row without any of the names costs one comparison for each of its values. What
//! each kind of step does stands in its own file below [`step`](super::step).

use std::{collections::HashMap, num::NonZeroU32};

use backtide_model::{
    ConflictPolicy, ElementName, Measurepoint, Model, ObjectName, Objection, PointValue, Processed,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Programs, StepFile, Trial,
    answers::Ask,
    slots::{Row, Slots},
    step::{Acted, Action, Given, Ground, script::Script},
};
use crate::limits::POLICY_SCRIPTS_MAX;

/// The steps of one policy, as part of a chain.
#[derive(Clone, Copy)]
pub struct Part<'p> {
    pub policy: &'p ObjectName,
    pub steps: &'p [StepFile],
    /// Those of the steps with a script.
    pub programs: &'p Programs,
}

/// What is wrong with a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFault {
    pub policy: ObjectName,
    /// From 1.
    pub step: usize,
    pub message: String,
}

impl std::fmt::Display for StepFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step {}: {}", self.step, self.message)
    }
}

/// A step as people read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PolicyStep)]
pub struct Step {
    #[schema(value_type = String)]
    pub policy: ObjectName,
    /// Its place in the policy, from 1.
    pub step: usize,
    #[schema(value_type = String)]
    pub point: ElementName,
    /// Such as `× 0.001 + 0 (unit W to kW)`.
    pub does: String,
    /// The source, where it is a script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
}

/// Policies compiled for the rows of one channel.
#[derive(Debug)]
pub struct Chain {
    /// Of all policies, when this was compiled.
    revision: NonZeroU32,
    slots: Slots,
    steps: Vec<CompiledStep>,
    /// Names that the model does not declare, with the points that they are read as.
    aliases: HashMap<ElementName, Measurepoint>,
}

#[derive(Debug)]
struct CompiledStep {
    policy: ObjectName,
    step: usize,
    /// The name that is blamed where it refuses a row.
    point: usize,
    action: Action,
    does: String,
}

impl Chain {
    /// Compiles the steps of `parts`, in order, for rows of `model` on a channel that decides conflicts
    /// by `conflict`; `None` where no step concerns the model. A point that the model does not have is
    /// passed over: `seen` is told of those that it has.
    ///
    /// # Errors
    /// The first step that makes no sense for this model.
    pub fn compile(
        parts: &[Part<'_>],
        model: &Model,
        conflict: ConflictPolicy,
        revision: NonZeroU32,
        mut seen: impl FnMut(&ObjectName, usize, &ElementName),
    ) -> Result<Option<Self>, StepFault> {
        let mut ground = Ground {
            model,
            conflict,
            aliases: aliases(parts, model),
            slots: Slots::default(),
        };
        let mut steps = Vec::new();
        for part in parts {
            for (step, file) in (1..).zip(part.steps) {
                let mut seen = |point: &ElementName| seen(part.policy, step, point);
                let compiled = compile_step(part, step, file, &mut ground, &mut seen);
                steps.extend(compiled.map_err(|message| StepFault {
                    policy: part.policy.clone(),
                    step,
                    message,
                })?);
            }
        }
        let scripts = steps.iter().filter_map(CompiledStep::script).count();
        if let Some(last) = steps.last()
            && scripts > POLICY_SCRIPTS_MAX
        {
            return Err(StepFault {
                policy: last.policy.clone(),
                step: last.step,
                message: format!(
                    "{scripts} scripts would act on a row, at most {POLICY_SCRIPTS_MAX} may: put \
                     several into one"
                ),
            });
        }
        let Ground {
            aliases, mut slots, ..
        } = ground;
        slots.close();
        Ok((!steps.is_empty()).then_some(Self {
            revision,
            slots,
            steps,
            aliases,
        }))
    }

    /// Of all policies, when this was compiled.
    pub fn revision(&self) -> NonZeroU32 {
        self.revision
    }

    /// The point that a name the model does not declare is read as, where a policy renames it.
    pub(super) fn alias(&self, name: &str) -> Option<(&ElementName, &Measurepoint)> {
        self.aliases.get_key_value(name)
    }

    /// Acts on a row, step after step. Where a script is to be asked first, what the row holds afterwards
    /// is of no use: it is to come again.
    pub(super) fn act(
        &self,
        values: &mut Vec<PointValue>,
        ask: Ask<'_>,
    ) -> Result<Processed, Vec<Objection>> {
        let Some(mut row) = Row::new(&self.slots, values) else {
            return Ok(Processed::default());
        };
        let mut objections = Vec::new();
        for step in &self.steps {
            match step.action.act(&mut row, &self.slots, ask) {
                Ok(Acted::Done) => {}
                Ok(Acted::Waits) => break,
                Err(why) => {
                    objections.push(Objection {
                        point: self.slots.name(step.point).clone(),
                        message: format!("policy {}, step {}: {why}", step.policy, step.step),
                    });
                    // What it says of the value is enough said of it.
                    row.forget(step.point);
                }
            }
        }
        let reduced = row.end();
        match objections.is_empty() {
            true => Ok(Processed {
                is_touched: true,
                reduced,
            }),
            false => Err(objections),
        }
    }

    /// The steps that had or will have a part in the values of a point, in order.
    pub fn steps_of(&self, point: &ElementName) -> Vec<Step> {
        let Some(slot) = self.slots.find(point) else {
            return Vec::new();
        };
        // Backwards: a value may have had another name before. What is moved away has no part in what
        // stays; a copy leaves its source alone.
        let mut names = vec![slot];
        let mut found = Vec::new();
        for step in self.steps.iter().rev() {
            let made = step.action.makes();
            let Some(slot) = made.into_iter().find(|slot| names.contains(slot)) else {
                continue;
            };
            names.extend(step.action.comes_from());
            found.push(self.told(step, step.action.comes_from().unwrap_or(slot)));
        }
        found.reverse();
        found
    }

    /// Every step with a point of the model, in order.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
        self.steps.iter().map(|step| self.told(step, step.point))
    }

    fn told(&self, step: &CompiledStep, slot: usize) -> Step {
        Step {
            policy: step.policy.clone(),
            step: step.step,
            point: self.slots.name(slot).clone(),
            does: step.does.clone(),
            script: step.script().map(|script| script.source().to_owned()),
        }
    }

    /// The trials that its scripts should pass before they act on anything.
    pub fn trials(&self) -> impl Iterator<Item = Trial<'_>> {
        self.steps
            .iter()
            .filter_map(|step| Some(Trial::new(&step.policy, step.step, step.script()?)))
    }
}

impl CompiledStep {
    fn script(&self) -> Option<&Script> {
        match &self.action {
            Action::Script(script) => Some(script),
            _ => None,
        }
    }
}

/// A step, compiled for each of its points that the model has; a script for all of them together.
fn compile_step(
    part: &Part<'_>,
    step: usize,
    file: &StepFile,
    ground: &mut Ground<'_>,
    seen: &mut dyn FnMut(&ElementName),
) -> Result<Vec<CompiledStep>, String> {
    let mut compiled = Vec::new();
    let mut add = |point: usize, (action, does): (Action, String)| {
        compiled.push(CompiledStep {
            policy: part.policy.clone(),
            step,
            point,
            action,
            does,
        });
    };
    let known = file.points.iter();
    let known = known.filter_map(|point| Some((point, ground.point(point)?)));
    let known: Vec<(&ElementName, Measurepoint)> = known.collect();
    if known.is_empty() {
        return Ok(compiled);
    }
    let given = Given::of(file)?;
    for (point, _) in &known {
        seen(point);
    }
    if let Given::Script(script) = given {
        let program = part.programs.of(step)?;
        let (script, does) = Script::new(&file.points, script, program, ground)?;
        add(ground.slots.of(known[0].0), (Action::Script(script), does));
        return Ok(compiled);
    }
    for (point, declared) in &known {
        let action = Action::of_point(&given, point, declared, ground)?;
        add(ground.slots.of(point), action);
    }
    Ok(compiled)
}

/// The names that policies rename and the model does not declare, each with the point that it is read
/// as. Backwards, since a name may be renamed twice.
fn aliases(parts: &[Part<'_>], model: &Model) -> HashMap<ElementName, Measurepoint> {
    let mut aliases: HashMap<ElementName, Measurepoint> = HashMap::new();
    let steps = parts.iter().flat_map(|part| part.steps);
    for step in steps.rev() {
        let (Some(to), [from]) = (&step.rename, step.points.as_slice()) else {
            continue;
        };
        if model.measurepoints.contains_key(from) {
            continue;
        }
        let target = model.measurepoints.get(to).or_else(|| aliases.get(to));
        if let Some(target) = target.cloned() {
            aliases.insert(from.clone(), target);
        }
    }
    aliases
}
