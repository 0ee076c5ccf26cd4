//! `script`: JavaScript over the points of a row.
//!
//! It is run elsewhere, by a worker process, many rows at a time. Here stands what it is asked and what
//! is made of what it says ([`super::super::answers`]).

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use backtide_model::{Cell, DataType, ElementName, ObjectName, Storage};
use sha2::{Digest, Sha256};

use super::{
    super::{
        ScriptStep, StepFile,
        answers::{Answer, Ask},
        number::number,
        slots::Row,
    },
    Acted, Ground, Made, Target,
};
use crate::{
    limits,
    script::{Failure, Output, PlainValue, Program, Rows, SaidOfRow},
};

/// Numbers that a script is tried on.
const SAMPLES: [i32; 4] = [1, 7, -3, 0];

/// The programs of a policy's steps: made once, so that workers keep them loaded whatever else is
/// declared.
#[derive(Debug, Default)]
pub struct Programs(BTreeMap<usize, Result<Arc<Program>, String>>);

impl Programs {
    /// Those of the steps of a policy, as a revision of all policies brought them.
    pub fn new(policy: &ObjectName, revision: u32, steps: &[StepFile]) -> Self {
        let scripts = (1..).zip(steps).filter_map(|(step, file)| {
            let script = file.script.as_ref()?;
            Some((step, program(policy, revision, step, file, script)))
        });
        Self(scripts.collect())
    }

    /// The program of a step, from 1.
    pub(in crate::policy) fn of(&self, step: usize) -> Result<Arc<Program>, String> {
        let program = self.0.get(&step).cloned();
        program.unwrap_or_else(|| Err("it has no program".to_owned()))
    }
}

fn program(
    policy: &ObjectName,
    revision: u32,
    step: usize,
    file: &StepFile,
    script: &ScriptStep,
) -> Result<Arc<Program>, String> {
    let names = |names: &[ElementName]| names.iter().map(|name| name.as_str().into()).collect();
    let rows = Rows {
        reads: names(&script.reads),
        points: names(&file.points),
    };
    let name = format!("policy {policy} step {step}");
    let program = Program::over_rows(&name, revision, script.source.as_str().into(), rows);
    program
        .map(Arc::new)
        .map_err(|why| format!("script: {why}"))
}

#[derive(Debug)]
pub(in crate::policy) struct Script {
    program: Arc<Program>,
    /// What it reads, in order.
    inputs: Vec<usize>,
    types: Vec<DataType>,
    /// Its points, in order; `None` for those that the model does not have.
    targets: Vec<Option<(usize, Arc<Target>)>>,
}

impl Script {
    pub(in crate::policy) fn new(
        points: &[ElementName],
        step: &ScriptStep,
        program: Arc<Program>,
        ground: &mut Ground<'_>,
    ) -> Made<Self> {
        check(points, step)?;
        let (inputs, types) = ground.inputs(&step.reads)?;
        let mut targets = Vec::with_capacity(points.len());
        for point in points {
            targets.push(match ground.point(point) {
                Some(_) => Some((ground.slots.of(point), ground.target(point)?)),
                None => None,
            });
        }
        let reads: Vec<&str> = step.reads.iter().map(ElementName::as_str).collect();
        let digest = Sha256::digest(step.source.as_bytes());
        let mut does = format!(
            "= transform({}) of script {}",
            reads.join(", "),
            hex::encode(&digest[..4])
        );
        if let Some(Err(not_plain)) = program.plain() {
            write!(does, ", by an engine for {not_plain}").expect("a text takes all");
        }
        let script = Self {
            program,
            inputs,
            types,
            targets,
        };
        Ok((script, does))
    }

    pub(in crate::policy) fn makes(&self) -> impl Iterator<Item = usize> {
        self.targets.iter().flatten().map(|(slot, _)| *slot)
    }

    pub(in crate::policy) fn source(&self) -> &str {
        &self.program.source
    }

    pub(super) fn act(&self, row: &mut Row<'_>, ask: Ask<'_>) -> Result<Acted, String> {
        // A row that lacks an input is none of its business.
        let Some(cells) = row.cells(&self.inputs) else {
            return Ok(Acted::Done);
        };
        if let Some(Ok(plain)) = self.program.plain() {
            let values = cells.iter().zip(&self.types);
            let said = plain.say(values.map(|(cell, of)| plain_value(cell, of)));
            if let Some(outputs) = said {
                return self.put(row, &outputs);
            }
        }
        let input = input(cells.into_iter().zip(&self.types));
        match ask.ask(&self.program, &input) {
            Answer::Open => Ok(Acted::Waits),
            Answer::Said(Ok(outputs)) => self.put(row, outputs),
            Answer::Said(Err(failure)) => Err(failure.to_string()),
        }
    }

    fn put(&self, row: &mut Row<'_>, outputs: &[Output]) -> Result<Acted, String> {
        for (output, target) in outputs.iter().zip(&self.targets) {
            let Some((slot, target)) = target else {
                continue;
            };
            match output {
                Output::Kept => {}
                Output::Dropped => row.drop_value(*slot),
                Output::Number(number) => row.put(*slot, target, cell_of_number(*number, target)?),
                Output::Value(json) => row.put(*slot, target, cell_of(json, target)?),
            }
        }
        Ok(Acted::Done)
    }

    /// Rows to try it on, of the types that it reads.
    pub(in crate::policy) fn samples(&self) -> Vec<Box<str>> {
        let row = |number| {
            let cells: Vec<Cell> = self.types.iter().map(|of| sample(of, number)).collect();
            input(cells.iter().zip(&self.types))
        };
        SAMPLES.into_iter().map(row).collect()
    }

    pub(in crate::policy) fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Whether what it says of its samples can be right: of one at least. A script that throws an error
    /// of its own is believed: no sample may be to its liking.
    ///
    /// # Errors
    /// What is wrong whatever the values are.
    pub(in crate::policy) fn check_said(&self, said: &[SaidOfRow]) -> Result<(), String> {
        let mut wrong = Ok(());
        for of_row in said {
            match of_row {
                Ok(outputs) => match self.check_outputs(outputs) {
                    Ok(()) => return Ok(()),
                    Err(why) => wrong = Err(why),
                },
                Err(failure) if is_deliberate(failure) => return Ok(()),
                Err(failure) => wrong = Err(format!("script: {failure}")),
            }
        }
        wrong
    }

    fn check_outputs(&self, outputs: &[Output]) -> Result<(), String> {
        for (output, target) in outputs.iter().zip(&self.targets) {
            match (output, target) {
                (Output::Value(json), Some((_, target))) => drop(cell_of(json, target)?),
                (Output::Number(number), Some((_, target))) => {
                    drop(cell_of_number(*number, target)?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// It threw, and not by mistake.
fn is_deliberate(failure: &Failure) -> bool {
    let is_mistake = [
        "TypeError",
        "ReferenceError",
        "SyntaxError",
        "InternalError",
    ]
    .iter()
    .any(|name| failure.message.starts_with(name));
    failure.cause == crate::script::Cause::Threw && !is_mistake
}

fn check(points: &[ElementName], step: &ScriptStep) -> Result<(), String> {
    if step.reads.is_empty() {
        return Err("script: reads is empty; name the points that transform is given".to_owned());
    }
    let reads = step.reads.len();
    if reads > limits::POLICY_POINTS_MAX {
        return Err(format!(
            "script: reads has {reads} names, at most {} are taken",
            limits::POLICY_POINTS_MAX
        ));
    }
    for names in [points, &step.reads] {
        let mut sorted: Vec<&ElementName> = names.iter().collect();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("script: {} is named twice", pair[0]));
        }
    }
    Ok(())
}

/// What a script is given of a row: a JSON array of the values that it reads.
fn input<'c>(cells: impl Iterator<Item = (&'c Cell, &'c DataType)>) -> Box<str> {
    let mut text = String::from("[");
    for (cell, data_type) in cells {
        if text.len() > 1 {
            text.push(',');
        }
        put(&mut text, cell, data_type);
    }
    text.push(']');
    text.into()
}

/// The same for one that needs no engine.
fn plain_value<'c>(cell: &'c Cell, data_type: &DataType) -> PlainValue<'c> {
    match cell {
        Cell::Bool(value) => PlainValue::Bool(*value),
        Cell::Text(_) if is_json(data_type) => PlainValue::Opaque,
        Cell::Text(value) => PlainValue::Text(value),
        Cell::Int(_) | Cell::Long(_) | Cell::Float(_) | Cell::Double(_) => {
            PlainValue::Number(number(cell))
        }
    }
}

/// Whether its text is JSON.
fn is_json(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Struct(_) | DataType::Array { .. } | DataType::Map
    )
}

fn put(text: &mut String, cell: &Cell, data_type: &DataType) {
    let written = match cell {
        Cell::Bool(value) => write!(text, "{value}"),
        Cell::Int(value) => write!(text, "{value}"),
        Cell::Long(value) => write!(text, "{value}"),
        Cell::Float(value) => write!(text, "{:?}", f64::from(*value)),
        // `1e300`, not three hundred zeros.
        Cell::Double(value) => write!(text, "{value:?}"),
        Cell::Text(value) if is_json(data_type) => write!(text, "{value}"),
        Cell::Text(value) => write!(text, "{}", serde_json::Value::from(&**value)),
    };
    written.expect("a text takes all that is written to it");
}

fn sample(of: &DataType, number: i32) -> Cell {
    match of.storage() {
        Storage::Bool => Cell::Bool(number > 0),
        Storage::Int => Cell::Int(number),
        Storage::Long => Cell::Long(number.into()),
        #[expect(clippy::cast_precision_loss, reason = "a sample has one digit")]
        Storage::Float => Cell::Float(number as f32),
        Storage::Double => Cell::Double(number.into()),
        Storage::Text => Cell::Text(match of {
            DataType::Array { .. } => "[]".into(),
            DataType::Struct(_) | DataType::Map => "{}".into(),
            _ => "".into(),
        }),
    }
}

/// A result in the type of its point; whole numbers are the nearest ones.
fn cell_of(json: &str, target: &Target) -> Result<Cell, String> {
    let is_whole = matches!(target.data_type.storage(), Storage::Int | Storage::Long);
    let rounded = match json.parse::<f64>() {
        Ok(number) if is_whole && number.fract() != 0.0 => Some(format!("{:.0}", number.round())),
        Ok(_) | Err(_) => None,
    };
    let read = target.data_type.read(rounded.as_deref().unwrap_or(json));
    read.map_err(|why| {
        format!(
            "the script gives {} the value {}: {why}; the point is {}",
            target.point,
            shown(json),
            target.data_type.word()
        )
    })
}

fn cell_of_number(number: f64, target: &Target) -> Result<Cell, String> {
    match target.data_type {
        // Written as text it would have lost its sign if it is zero.
        DataType::Double => Ok(Cell::Double(number + 0.0)),
        _ => cell_of(dragonbox_ecma::Buffer::new().format(number), target),
    }
}

/// A value as far as it is shown.
fn shown(json: &str) -> String {
    const SHOWN: usize = 80;
    match json.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", json.get(..end).unwrap_or_default()),
        None => json.to_owned(),
    }
}
