//! The steps of all policies that apply to a channel, compiled, and what they do to a row.
//!
//! Every name that a step mentions has a slot. A row's values are found by slot once, then the steps
//! go over the slots: a row without any of the names costs one comparison for each of its values.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use backtide_model::{
    Cell, ConflictPolicy, DataType, ElementName, Measurepoint, Model, NO_QUALITY, ObjectName,
    Objection, PointValue, Process, Processed,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Otherwise, StepFile, expression::Expression, unit};

/// Names up to which comparing is quicker than hashing.
const COMPARED_MAX: usize = 8;

/// The steps of one policy, as part of a chain.
#[derive(Clone, Copy)]
pub struct Part<'p> {
    pub policy: &'p ObjectName,
    pub steps: &'p [StepFile],
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

#[derive(Debug, Default)]
struct Slots {
    names: Vec<ElementName>,
    /// Empty where there are few names.
    by_name: HashMap<ElementName, usize>,
}

impl Slots {
    fn of(&mut self, name: &ElementName) -> usize {
        match self.names.iter().position(|known| known == name) {
            Some(slot) => slot,
            None => {
                self.names.push(name.clone());
                self.names.len() - 1
            }
        }
    }

    fn close(&mut self) {
        if self.names.len() > COMPARED_MAX {
            self.by_name = self.names.iter().cloned().zip(0..).collect();
        }
    }

    fn find(&self, name: &ElementName) -> Option<usize> {
        if self.by_name.is_empty() {
            self.names.iter().position(|known| known == name)
        } else {
            self.by_name.get(name).copied()
        }
    }
}

#[derive(Debug)]
struct CompiledStep {
    policy: ObjectName,
    step: usize,
    slot: usize,
    action: Action,
    does: String,
}

#[derive(Debug)]
enum Action {
    Linear {
        factor: f64,
        offset: f64,
    },
    Clamp {
        min: f64,
        max: f64,
    },
    Range {
        min: f64,
        max: f64,
        otherwise: Outside,
    },
    /// The step's slot is what is moved.
    Move {
        to: usize,
        target: Arc<Target>,
        keeps: bool,
    },
    /// The step's slot is what is computed.
    Compute {
        target: Arc<Target>,
        inputs: Vec<usize>,
        expression: Box<Expression>,
    },
}

/// A point that a value is put into.
#[derive(Debug)]
struct Target {
    point: ElementName,
    data_type: DataType,
    has_quality: bool,
    conflict: ConflictPolicy,
}

#[derive(Debug, Clone, Copy)]
enum Outside {
    Flag(u8),
    Drop,
    Refuse,
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
        let mut compiler = Compiler {
            model,
            conflict,
            aliases: aliases(parts, model),
            slots: Slots::default(),
        };
        let mut steps = Vec::new();
        for part in parts {
            for (step, file) in (1..).zip(part.steps) {
                let fault = |message| StepFault {
                    policy: part.policy.clone(),
                    step,
                    message,
                };
                for point in &file.points {
                    let Some(declared) = compiler.point(point) else {
                        continue;
                    };
                    seen(part.policy, step, point);
                    let (action, does) = compiler.action(file, point, &declared).map_err(fault)?;
                    steps.push(CompiledStep {
                        policy: part.policy.clone(),
                        step,
                        slot: compiler.slots.of(point),
                        action,
                        does,
                    });
                }
            }
        }
        let Compiler {
            aliases, mut slots, ..
        } = compiler;
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

    /// The steps that had or will have a part in the values of a point, in order.
    pub fn steps_of(&self, point: &ElementName) -> Vec<Step> {
        let Some(slot) = self.slots.find(point) else {
            return Vec::new();
        };
        // Backwards: a value may have had another name before.
        let mut names = vec![slot];
        let mut found = Vec::new();
        for step in self.steps.iter().rev() {
            let arrives = match &step.action {
                Action::Move { to, .. } if names.contains(to) => {
                    names.push(step.slot);
                    true
                }
                // What is moved away has no part in what stays; a copy leaves its source alone.
                Action::Move { .. } => false,
                Action::Linear { .. }
                | Action::Clamp { .. }
                | Action::Range { .. }
                | Action::Compute { .. } => names.contains(&step.slot),
            };
            if arrives {
                found.push(Step {
                    policy: step.policy.clone(),
                    step: step.step,
                    point: self.slots.names[step.slot].clone(),
                    does: step.does.clone(),
                });
            }
        }
        found.reverse();
        found
    }

    /// Every step with a point of the model, in order.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
        self.steps.iter().map(|step| Step {
            policy: step.policy.clone(),
            step: step.step,
            point: self.slots.names[step.slot].clone(),
            does: step.does.clone(),
        })
    }
}

impl Process for Chain {
    fn alias(&self, name: &str) -> Option<(&ElementName, &Measurepoint)> {
        self.aliases.get_key_value(name)
    }

    fn row(&self, values: &mut Vec<PointValue>) -> Result<Processed, Vec<Objection>> {
        let Some(mut row) = Row::new(&self.slots, values) else {
            return Ok(Processed::default());
        };
        let mut objections = Vec::new();
        for step in &self.steps {
            if let Err(why) = step.act(&mut row, &self.slots) {
                objections.push(Objection {
                    point: self.slots.names[step.slot].clone(),
                    message: format!("policy {}, step {}: {why}", step.policy, step.step),
                });
                // What it says of the value is enough said of it.
                row.at[step.slot] = None;
            }
        }
        let reduced = row.reduced;
        row.end();
        match objections.is_empty() {
            true => Ok(Processed {
                is_touched: true,
                reduced,
            }),
            false => Err(objections),
        }
    }
}

/// A row in the works.
struct Row<'r> {
    values: &'r mut Vec<PointValue>,
    /// Where the value of each slot is.
    at: Vec<Option<usize>>,
    /// Values to be taken out at the end, so that places stay.
    gone: Vec<usize>,
    reduced: u32,
}

impl<'r> Row<'r> {
    /// `None` where it has none of the names.
    fn new(slots: &Slots, values: &'r mut Vec<PointValue>) -> Option<Self> {
        let mut at: Vec<Option<usize>> = Vec::new();
        let mut gone = Vec::new();
        for (place, value) in values.iter().enumerate() {
            let Some(slot) = slots.find(&value.point) else {
                continue;
            };
            if at.is_empty() {
                at = vec![None; slots.names.len()];
            }
            // The same point twice: the last one counts.
            gone.extend(at[slot].replace(place));
        }
        (!at.is_empty()).then_some(Self {
            values,
            at,
            gone,
            reduced: 0,
        })
    }

    fn value(&mut self, slot: usize) -> Option<&mut PointValue> {
        let place = self.at[slot]?;
        self.values.get_mut(place)
    }

    fn drop_value(&mut self, slot: usize) {
        if let Some(place) = self.at[slot].take() {
            self.gone.push(place);
            self.reduced += 1;
        }
    }

    fn end(mut self) {
        self.gone.sort_unstable();
        for place in self.gone.into_iter().rev() {
            self.values.swap_remove(place);
        }
    }
}

impl CompiledStep {
    fn act(&self, row: &mut Row<'_>, slots: &Slots) -> Result<(), String> {
        if let Action::Compute {
            target,
            inputs,
            expression,
        } = &self.action
        {
            return compute(row, self.slot, target, inputs, expression);
        }
        let Some(value) = row.value(self.slot) else {
            return Ok(());
        };
        match &self.action {
            Action::Linear { factor, offset } => {
                let number = number(&value.cell);
                set(&mut value.cell, number * factor + offset)
            }
            Action::Clamp { min, max } => {
                let number = number(&value.cell);
                match number < *min || number > *max {
                    true => set(&mut value.cell, number.max(*min).min(*max)),
                    false => Ok(()),
                }
            }
            Action::Range {
                min,
                max,
                otherwise,
            } => {
                let number = number(&value.cell);
                if (*min..=*max).contains(&number) {
                    return Ok(());
                }
                match otherwise {
                    Outside::Flag(quality) => value.quality = *quality,
                    Outside::Drop => row.drop_value(self.slot),
                    Outside::Refuse => {
                        return Err(format!("{number} is not {}", between(*min, *max)));
                    }
                }
                Ok(())
            }
            Action::Move { to, target, keeps } => {
                if row.at[*to].is_some() {
                    return Err(format!(
                        "the row has a value of {} already, which {} would replace",
                        target.point, slots.names[self.slot]
                    ));
                }
                move_value(row, self.slot, *to, target, *keeps);
                Ok(())
            }
            Action::Compute { .. } => Ok(()),
        }
    }
}

fn move_value(row: &mut Row<'_>, from: usize, to: usize, target: &Target, keeps: bool) {
    let Some(place) = row.at[from] else { return };
    let moved = &row.values[place];
    let moved = PointValue {
        point: target.point.clone(),
        conflict: target.conflict,
        cell: moved.cell.clone(),
        quality: match target.has_quality {
            true => moved.quality,
            false => NO_QUALITY,
        },
    };
    if keeps {
        row.values.push(moved);
        row.at[to] = Some(row.values.len() - 1);
    } else {
        row.values[place] = moved;
        row.at[to] = row.at[from].take();
    }
}

fn compute(
    row: &mut Row<'_>,
    slot: usize,
    target: &Target,
    inputs: &[usize],
    expression: &Expression,
) -> Result<(), String> {
    let places: Option<Vec<usize>> = inputs.iter().map(|input| row.at[*input]).collect();
    // A row that lacks an input is none of its business.
    let Some(places) = places else { return Ok(()) };
    let cells = places.iter().map(|place| &row.values[*place].cell);
    match (expression.compute(cells, &target.data_type)?, row.at[slot]) {
        (Some(cell), Some(place)) => row.values[place].cell = cell,
        (Some(cell), None) => {
            row.values.push(PointValue {
                point: target.point.clone(),
                conflict: target.conflict,
                cell,
                quality: NO_QUALITY,
            });
            row.at[slot] = Some(row.values.len() - 1);
        }
        (None, _) => row.drop_value(slot),
    }
    Ok(())
}

/// A number; what has a slot for arithmetic was checked to be one.
fn number(cell: &Cell) -> f64 {
    match cell {
        Cell::Int(value) => f64::from(*value),
        #[expect(
            clippy::cast_precision_loss,
            reason = "documented: arithmetic on longs beyond 2^53 is that of doubles"
        )]
        Cell::Long(value) => *value as f64,
        Cell::Float(value) => f64::from(*value),
        Cell::Double(value) => *value,
        Cell::Bool(_) | Cell::Text(_) => f64::NAN,
    }
}

/// Puts a number into a cell of its type: integers are rounded to the nearest.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what would be cut off is refused beforehand, and a float is the nearest one"
)]
fn set(cell: &mut Cell, number: f64) -> Result<(), String> {
    /// 2^63: the first double that is no long.
    const LONG_END: f64 = 9_223_372_036_854_775_808.0;
    let rounded = number.round();
    let unfit = |word: &str| Err(format!("{number} does not fit {word}"));
    match cell {
        Cell::Double(_) if !number.is_finite() => return unfit("a double"),
        Cell::Double(value) => *value = number,
        Cell::Float(_) if !(number as f32).is_finite() => return unfit("a float"),
        Cell::Float(value) => *value = number as f32,
        Cell::Int(_) if !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&rounded) => {
            return unfit("an int");
        }
        Cell::Int(value) => *value = rounded as i32,
        Cell::Long(_) if !(-LONG_END..LONG_END).contains(&rounded) => return unfit("a long"),
        Cell::Long(value) => *value = rounded as i64,
        Cell::Bool(_) | Cell::Text(_) => return Err("it is not a number".to_owned()),
    }
    Ok(())
}

fn between(min: f64, max: f64) -> String {
    match (min.is_finite(), max.is_finite()) {
        (true, true) => format!("between {min} and {max}"),
        (true, false) => format!("{min} or above"),
        (false, _) => format!("{max} or below"),
    }
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

struct Compiler<'c> {
    model: &'c Model,
    conflict: ConflictPolicy,
    aliases: HashMap<ElementName, Measurepoint>,
    slots: Slots,
}

impl Compiler<'_> {
    fn point(&self, name: &ElementName) -> Option<Measurepoint> {
        let declared = self.model.measurepoints.get(name);
        declared.or_else(|| self.aliases.get(name)).cloned()
    }

    fn target(&self, name: &ElementName) -> Result<Arc<Target>, String> {
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

    /// What a step does to a point, compiled and in words.
    fn action(
        &mut self,
        file: &StepFile,
        name: &ElementName,
        point: &Measurepoint,
    ) -> Result<(Action, String), String> {
        match only(file)? {
            Verb::Scale(factor, offset) => {
                is_number(name, point)?;
                Ok((Action::Linear { factor, offset }, linear(factor, offset)))
            }
            Verb::Unit(from, to) => {
                is_number(name, point)?;
                let (factor, offset) = unit::linear(from, to)?;
                let does = format!("{} (unit {from} to {to})", linear(factor, offset));
                Ok((Action::Linear { factor, offset }, does))
            }
            Verb::Clamp(min, max) => {
                is_number(name, point)?;
                let does = format!("clamp to {}", between(min, max));
                Ok((Action::Clamp { min, max }, does))
            }
            Verb::Range(min, max, otherwise) => {
                is_number(name, point)?;
                let act = match otherwise {
                    Outside::Flag(quality) if !point.quality => {
                        return Err(format!(
                            "point {name} has no quality to be set to {quality}; declare it with \
                             quality: true"
                        ));
                    }
                    Outside::Flag(quality) => format!("flag with quality {quality}"),
                    Outside::Drop => "drop".to_owned(),
                    Outside::Refuse => "quarantine".to_owned(),
                };
                let does = format!("{act} what is not {}", between(min, max));
                let action = Action::Range {
                    min,
                    max,
                    otherwise,
                };
                Ok((action, does))
            }
            Verb::Move(to, keeps) => {
                let target = self.target(to)?;
                if target.data_type != point.data_type {
                    return Err(format!(
                        "{name} is {} and {to} is {}: only points of one type pass into each other",
                        point.data_type.word(),
                        target.data_type.word()
                    ));
                }
                if to == name {
                    return Err(format!("{name} is {to} already"));
                }
                let verb = if keeps { "copy" } else { "rename" };
                let action = Action::Move {
                    to: self.slots.of(to),
                    target,
                    keeps,
                };
                Ok((action, format!("{verb} to {to}")))
            }
            Verb::Compute(text) => {
                let target = self.target(name)?;
                let expression = Box::new(Expression::compile(text)?);
                let mut types = Vec::new();
                for input in &expression.inputs {
                    let point = self
                        .point(input)
                        .ok_or_else(|| format!("{input} is no point of the model"))?;
                    types.push(point.data_type);
                }
                expression.try_types(&types, &target.data_type)?;
                let inputs = &expression.inputs;
                let inputs = inputs.iter().map(|input| self.slots.of(input)).collect();
                let action = Action::Compute {
                    target,
                    inputs,
                    expression,
                };
                Ok((action, format!("= {text}")))
            }
        }
    }
}

enum Verb<'f> {
    Scale(f64, f64),
    Unit(&'f str, &'f str),
    Clamp(f64, f64),
    Range(f64, f64, Outside),
    /// The other point, and whether the first stays.
    Move(&'f ElementName, bool),
    Compute(&'f str),
}

/// The one thing that a step does.
fn only(file: &StepFile) -> Result<Verb<'_>, String> {
    let StepFile {
        points,
        scale,
        unit,
        clamp,
        range,
        rename,
        copy,
        expression,
    } = file;
    let mut verbs: Vec<(&str, Result<Verb<'_>, String>)> = Vec::new();
    let mut add = |word, verb| verbs.push((word, verb));
    if let Some(scale) = scale {
        add("scale", scaled(scale.factor, scale.offset));
    }
    if let Some(unit) = unit {
        add("unit", Ok(Verb::Unit(&unit.from, &unit.to)));
    }
    if let Some(bounds) = clamp {
        let verb = bounded(bounds.min, bounds.max).map(|(min, max)| Verb::Clamp(min, max));
        add("clamp", verb);
    }
    if let Some(range) = range {
        let outside = outside(range.otherwise, range.quality);
        let bounds = bounded(range.min, range.max);
        let verb = bounds.and_then(|(min, max)| Ok(Verb::Range(min, max, outside?)));
        add("range", verb);
    }
    if let Some(to) = rename {
        add("rename", Ok(Verb::Move(to, false)));
    }
    if let Some(to) = copy {
        add("copy", Ok(Verb::Move(to, true)));
    }
    if let Some(text) = expression {
        add("expression", Ok(Verb::Compute(text)));
    }
    if points.is_empty() {
        return Err("points is empty; name the points that it acts on".to_owned());
    }
    let given: Vec<&str> = verbs.iter().map(|(word, _)| *word).collect();
    let (Some((word, verb)), true) = (verbs.pop(), given.len() == 1) else {
        let said = match given.as_slice() {
            [] => "nothing to do".to_owned(),
            several => format!("{} at once", several.join(" and ")),
        };
        return Err(format!(
            "it says {said}; a step is one of scale, unit, clamp, range, rename, copy and \
             expression"
        ));
    };
    if matches!(word, "rename" | "copy" | "expression") && points.len() > 1 {
        return Err(format!(
            "{word} acts on one point, and points has {}",
            points.len()
        ));
    }
    verb
}

fn scaled<'f>(factor: f64, offset: f64) -> Result<Verb<'f>, String> {
    match factor.is_finite() && offset.is_finite() && factor != 0.0 {
        true => Ok(Verb::Scale(factor, offset)),
        false => Err(format!(
            "factor {factor} and offset {offset} make no value; factor is not 0"
        )),
    }
}

fn bounded(min: Option<f64>, max: Option<f64>) -> Result<(f64, f64), String> {
    if min.is_none() && max.is_none() {
        return Err("min and max are absent; give one of them".to_owned());
    }
    let bounds = (
        min.unwrap_or(f64::NEG_INFINITY),
        max.unwrap_or(f64::INFINITY),
    );
    match bounds.0 <= bounds.1 {
        true => Ok(bounds),
        false => Err(format!("min {} is not below max {}", bounds.0, bounds.1)),
    }
}

fn outside(otherwise: Otherwise, quality: Option<u8>) -> Result<Outside, String> {
    match (otherwise, quality) {
        (Otherwise::Flag, Some(quality)) if quality <= 9 => Ok(Outside::Flag(quality)),
        (Otherwise::Flag, _) => Err("flag needs a quality of 0 to 9".to_owned()),
        (Otherwise::Drop, None) => Ok(Outside::Drop),
        (Otherwise::Quarantine, None) => Ok(Outside::Refuse),
        (Otherwise::Drop | Otherwise::Quarantine, Some(_)) => {
            Err("quality is for otherwise: flag".to_owned())
        }
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

fn linear(factor: f64, offset: f64) -> String {
    let sign = if offset < 0.0 { '-' } else { '+' };
    format!("× {factor} {sign} {}", offset.abs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn model() -> Model {
        serde_json::from_value(json!({ "measurepoints": {
            "P": { "type": "double" }, "T": { "type": "double", "quality": true },
            "n": { "type": "int" }, "total": { "type": "long" }, "f": { "type": "float" },
            "raw": { "type": "double" }, "Q": { "type": "double" }, "name": { "type": "string" },
        }}))
        .unwrap()
    }

    fn chain(steps: Value) -> Result<Option<Chain>, StepFault> {
        let steps: Vec<StepFile> = serde_json::from_value(steps).unwrap();
        let part = Part {
            policy: &ObjectName::new("p").unwrap(),
            steps: &steps,
        };
        Chain::compile(
            &[part],
            &model(),
            ConflictPolicy::KeepLast,
            NonZeroU32::MIN,
            |_, _, _| {},
        )
    }

    fn value(point: &str, cell: Cell) -> PointValue {
        PointValue {
            point: ElementName::new(point).unwrap(),
            conflict: ConflictPolicy::KeepLast,
            cell,
            quality: NO_QUALITY,
        }
    }

    fn double(point: &str, number: f64) -> PointValue {
        value(point, Cell::Double(number))
    }

    type Shown = Vec<(String, Cell, u8)>;

    /// What the steps make of a row, by point, and how many values they drop.
    fn row(steps: Value, values: &[PointValue]) -> Result<(Shown, u32), Vec<String>> {
        let mut values = values.to_vec();
        let processed = chain(steps).unwrap().unwrap().row(&mut values);
        let processed = processed.map_err(|all| {
            all.into_iter()
                .map(|objection| objection.message)
                .collect::<Vec<_>>()
        })?;
        values.sort_by(|a, b| a.point.cmp(&b.point));
        let shown = values.into_iter();
        let shown = shown.map(|value| (value.point.to_string(), value.cell, value.quality));
        Ok((shown.collect(), processed.reduced))
    }

    fn shown(point: &str, cell: Cell) -> (String, Cell, u8) {
        (point.to_owned(), cell, NO_QUALITY)
    }

    #[test]
    fn steps_act_in_the_declared_order() {
        let steps = json!([
            { "points": ["P", "Q"], "scale": { "factor": 0.5, "offset": 1.0 } },
            { "points": ["P"], "clamp": { "max": 3.0 } },
            { "points": ["P"], "unit": { "from": "kW", "to": "W" } },
        ]);
        let (values, reduced) = row(steps, &[double("P", 10.0), double("Q", 2.0)]).unwrap();
        assert_eq!(
            values,
            [
                shown("P", Cell::Double(3_000.0)),
                shown("Q", Cell::Double(2.0))
            ]
        );
        assert_eq!(reduced, 0);
    }

    #[test]
    fn a_range_flags_drops_or_refuses_what_is_outside() {
        let range = |otherwise: Value| json!([{ "points": ["T"], "range": otherwise }]);
        let flag = range(json!({ "min": -20.0, "max": 60.0, "otherwise": "flag", "quality": 4 }));
        let of = |steps: &Value, number| row(steps.clone(), &[double("T", number)]);
        assert_eq!(
            of(&flag, 60.5).unwrap().0,
            [("T".to_owned(), Cell::Double(60.5), 4)]
        );
        assert_eq!(of(&flag, 60.0).unwrap().0, [shown("T", Cell::Double(60.0))]);
        let drop = range(json!({ "min": 0.0, "otherwise": "drop" }));
        assert_eq!(of(&drop, -1.0).unwrap(), (vec![], 1));
        let refuse = range(json!({ "max": 5.0, "otherwise": "quarantine" }));
        assert_eq!(
            of(&refuse, 6.5).unwrap_err(),
            ["policy p, step 1: 6.5 is not 5 or below"]
        );
    }

    #[test]
    fn names_that_the_model_does_not_have_are_read_as_what_they_become() {
        let steps = json!([
            { "points": ["Power"], "scale": { "factor": 0.001 } },
            { "points": ["Power"], "rename": "P" },
            { "points": ["P"], "copy": "raw" },
            { "points": ["P"], "clamp": { "max": 1.0 } },
        ]);
        let compiled = chain(steps.clone()).unwrap().unwrap();
        assert_eq!(
            compiled.alias("Power").unwrap().1.data_type,
            DataType::Double
        );
        assert!(compiled.alias("Watts").is_none());
        let (values, _) = row(steps, &[double("Power", 2_000.0)]).unwrap();
        assert_eq!(
            values,
            [
                shown("P", Cell::Double(1.0)),
                shown("raw", Cell::Double(2.0))
            ]
        );
        let does = |point: &str| -> Vec<String> {
            let steps = compiled.steps_of(&ElementName::new(point).unwrap());
            steps.into_iter().map(|step| step.does).collect()
        };
        assert_eq!(does("raw"), ["× 0.001 + 0", "rename to P", "copy to raw"]);
        assert_eq!(
            does("P"),
            ["× 0.001 + 0", "rename to P", "clamp to 1 or below"]
        );
        assert!(does("Q").is_empty());
    }

    #[test]
    fn a_renamed_value_never_replaces_another_silently() {
        let steps = json!([{ "points": ["Power"], "rename": "P" }]);
        let both = [double("Power", 1.0), double("P", 2.0)];
        let why = row(steps, &both).unwrap_err();
        assert!(why[0].contains("has a value of P already"), "{why:?}");
    }

    #[test]
    fn an_expression_reads_the_row_and_waits_for_all_it_reads() {
        let steps = json!([{ "points": ["Q"], "expression": "P * 2 + n" }]);
        let with = [double("P", 1.5), value("n", Cell::Int(4))];
        let (values, _) = row(steps.clone(), &with).unwrap();
        assert!(values.contains(&shown("Q", Cell::Double(7.0))));
        let without = row(steps, &[double("P", 1.5)]).unwrap();
        assert_eq!(without.0, [shown("P", Cell::Double(1.5))]);
        let null = json!([{ "points": ["P"], "expression": "P < 0.0 ? null : P" }]);
        assert_eq!(row(null, &[double("P", -1.0)]).unwrap(), (vec![], 1));
    }

    #[test]
    fn integers_are_rounded_and_what_does_not_fit_is_refused() {
        let scale = |point: &str| json!([{ "points": [point], "scale": { "factor": 1e9 } }]);
        let halves = json!([{ "points": ["n"], "scale": { "factor": 0.5 } }]);
        assert_eq!(
            row(halves, &[value("n", Cell::Int(3))]).unwrap().0,
            [shown("n", Cell::Int(2))]
        );
        for (point, cell) in [
            ("n", Cell::Int(3)),
            ("total", Cell::Long(i64::MAX)),
            ("f", Cell::Float(f32::MAX)),
        ] {
            assert!(row(scale(point), &[value(point, cell)]).is_err(), "{point}");
        }
        assert!(row(scale("P"), &[double("P", f64::MAX)]).is_err());
    }

    #[test]
    fn a_point_twice_in_a_row_counts_with_its_last_value() {
        let steps = json!([{ "points": ["P"], "rename": "Q" }]);
        let twice = [double("P", 1.0), double("P", 2.0)];
        assert_eq!(
            row(steps, &twice).unwrap().0,
            [shown("Q", Cell::Double(2.0))]
        );
    }

    #[test]
    fn a_row_without_the_points_is_left_alone() {
        let chain = chain(json!([{ "points": ["P"], "scale": { "factor": 2.0 } }]));
        let mut values = vec![double("Q", 1.0)];
        let processed = chain.unwrap().unwrap().row(&mut values).unwrap();
        assert_eq!(processed, Processed::default());
        assert_eq!(values, [double("Q", 1.0)]);
    }

    #[test]
    fn a_step_that_makes_no_sense_is_refused_with_its_place_and_cure() {
        let why = |step: Value| chain(json!([step])).unwrap_err().to_string();
        for (step, text) in [
            (json!({ "points": ["P"] }), "nothing to do"),
            (json!({ "points": [], "scale": {} }), "points is empty"),
            (
                json!({ "points": ["P"], "scale": {}, "copy": "Q" }),
                "scale and copy at once",
            ),
            (
                json!({ "points": ["P"], "scale": { "factor": 0.0 } }),
                "not 0",
            ),
            (
                json!({ "points": ["name"], "clamp": { "min": 0.0 } }),
                "not a number",
            ),
            (
                json!({ "points": ["P"], "clamp": {} }),
                "min and max are absent",
            ),
            (
                json!({ "points": ["P"], "clamp": { "min": 2.0, "max": 1.0 } }),
                "not below",
            ),
            (
                json!({ "points": ["P"], "range": { "min": 0.0, "otherwise": "flag", "quality": 1 } }),
                "no quality",
            ),
            (
                json!({ "points": ["T"], "range": { "min": 0.0, "otherwise": "flag" } }),
                "0 to 9",
            ),
            (
                json!({ "points": ["P"], "unit": { "from": "kW", "to": "m" } }),
                "different things",
            ),
            (
                json!({ "points": ["P"], "rename": "n" }),
                "only points of one type",
            ),
            (
                json!({ "points": ["P"], "rename": "nosuch" }),
                "not in the model",
            ),
            (
                json!({ "points": ["P", "Q"], "rename": "raw" }),
                "acts on one point",
            ),
            (
                json!({ "points": ["P"], "expression": "P > 2" }),
                "the point is double",
            ),
            (
                json!({ "points": ["P"], "expression": "nosuch * 2.0" }),
                "no point of the model",
            ),
        ] {
            if step["points"].as_array().unwrap().is_empty() {
                // Nothing is compiled for it here; the policy's own check names it.
                continue;
            }
            let found = why(step);
            assert!(found.contains(text), "{text}: {found}");
            assert!(found.starts_with("step 1: "), "{found}");
        }
    }

    proptest! {
        /// The same row gives the same, alone or after others, in any order of its values.
        #[test]
        fn processing_is_a_function_of_the_row(
            numbers in prop::collection::vec((0_usize..3, -1e6..1e6_f64), 1..6),
            rotate: prop::sample::Index,
        ) {
            let steps = json!([
                { "points": ["Power"], "unit": { "from": "[degF]", "to": "Cel" } },
                { "points": ["Power"], "rename": "P" },
                { "points": ["P", "Q"], "range": { "min": -1e5, "max": 1e5, "otherwise": "drop" } },
                { "points": ["T"], "expression": "P > Q ? P : Q" },
                { "points": ["T"], "range": { "max": 10.0, "otherwise": "flag", "quality": 2 } },
            ]);
            let chain = chain(steps).unwrap().unwrap();
            let names = ["Power", "Q", "raw"];
            let mut given: Vec<PointValue> = Vec::new();
            for (name, number) in numbers {
                if given.iter().all(|value| value.point.as_str() != names[name]) {
                    given.push(double(names[name], number));
                }
            }
            let run = |mut values: Vec<PointValue>| {
                let processed = chain.row(&mut values);
                values.sort_by(|a, b| a.point.cmp(&b.point));
                (processed, values)
            };
            let first = run(given.clone());
            let mut turned = given.clone();
            turned.rotate_left(rotate.index(given.len()));
            prop_assert_eq!(&run(turned), &first);
            prop_assert_eq!(&run(given), &first);
        }
    }
}
