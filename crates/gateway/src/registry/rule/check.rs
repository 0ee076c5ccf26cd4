//! Whether a rule makes sense beside what else is declared, whole, before it is taken.

use std::collections::{BTreeMap, BTreeSet};

use backtide_model::{ElementName, Model, ObjectName};

use super::{
    super::{DeclaredModel, Snapshot, subscription::asset_of},
    Calculated, Comparison, Destination, RowKind, Rule, RuleFile, Step,
};
use crate::{
    expression::{Expression, OWN_NAMES},
    limits::{RULE_HEADERS_MAX, RULE_STEPS_MAX, WEBHOOK_RECORDS_MAX, WEBHOOK_TIMEOUT_S_MAX},
    query,
    script::Program,
    template::Template,
};

/// Checks a rule against what else is declared.
///
/// # Errors
/// What is wrong, where in the file, and how to mend it.
pub(in crate::registry) fn check(
    name: &ObjectName,
    file: &RuleFile,
    snapshot: &Snapshot,
) -> Result<(), String> {
    check_listen(file, snapshot)?;
    let models: Vec<&DeclaredModel> = models_of(file, snapshot).collect();
    check_conditions(file, &known_names(file, &models, false))?;
    let mut names = known_names(file, &models, true);
    if file.make.len() > RULE_STEPS_MAX {
        let steps = file.make.len();
        return Err(format!(
            "make: {steps} steps, at most {RULE_STEPS_MAX} are taken"
        ));
    }
    for (number, step) in file.make.iter().enumerate() {
        let is_last = number + 1 == file.make.len();
        check_step(name, step, is_last, &mut names)
            .map_err(|why| format!("make, step {}: {why}", number + 1))?;
    }
    check_destination(file, &models, &names)
}

fn check_listen(file: &RuleFile, snapshot: &Snapshot) -> Result<(), String> {
    let from = &file.from;
    for channel in &from.channels {
        if snapshot.channel(channel).is_none() {
            return Err(format!("from.channels: channel {channel} is not declared"));
        }
    }
    for product in &from.products {
        if snapshot.product(product).is_none() {
            return Err(format!("from.products: product {product} is not declared"));
        }
    }
    for model in &from.models {
        if snapshot.model(model.as_str()).is_none() {
            return Err(format!("from.models: model {model} is not declared"));
        }
    }
    for device in &from.devices {
        if asset_of(device, snapshot).is_none() {
            return Err(format!(
                "from.devices: device {device} is not declared; write PRODUCT/NAME or an asset id"
            ));
        }
    }
    let others = [
        (RowKind::Points, "points", from.points.is_empty()),
        (RowKind::Events, "events", from.events.is_empty()),
        (
            RowKind::Attributes,
            "attributes",
            from.attributes.is_empty(),
        ),
    ];
    for (kind, member, is_empty) in others {
        if kind != from.contents && !is_empty {
            let word = from.contents.word();
            return Err(format!("from.{member}: a rule of type {word} has none"));
        }
    }
    if from.contents != RowKind::Points && from.calculated != Calculated::Exclude {
        return Err("from.calculated: only points are calculated".to_owned());
    }
    if let Some(quality) = &from.quality {
        if from.contents != RowKind::Points {
            return Err("from.quality: only points have qualities".to_owned());
        }
        if quality.min > quality.max || quality.max > 9 {
            let (min, max) = (quality.min, quality.max);
            return Err(format!(
                "from.quality: {min} to {max} is no range of 0 to 9"
            ));
        }
    }
    if let Some(time) = &from.time {
        let moment = |text: &Option<String>| text.as_deref().map(query::moment).transpose();
        let wrong = |error: query::TimeError| format!("from.time: {error}");
        let (from, to) = (
            moment(&time.from).map_err(wrong)?,
            moment(&time.to).map_err(wrong)?,
        );
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            return Err("from.time: it ends before it begins".to_owned());
        }
    }
    let models: Vec<&DeclaredModel> = models_of(file, snapshot).collect();
    match file
        .elements()
        .iter()
        .find(|element| !is_declared(file, element, &models))
    {
        Some(element) => Err(format!(
            "from.{}: {element} is declared by none of its models; see `backtide get models`",
            from.contents.word()
        )),
        None => Ok(()),
    }
}

/// The models whose rows it may take.
fn models_of<'s>(
    file: &'s RuleFile,
    snapshot: &'s Snapshot,
) -> impl Iterator<Item = &'s DeclaredModel> {
    let from = &file.from;
    snapshot.models_after(None).filter(move |declared| {
        (from.models.is_empty() || from.models.contains(&declared.name))
            && (from.products.is_empty()
                || from.products.iter().any(|product| {
                    let product = snapshot.product(product);
                    product.is_some_and(|product| product.model_name == declared.name)
                }))
    })
}

fn is_declared(file: &RuleFile, element: &ElementName, models: &[&DeclaredModel]) -> bool {
    models.iter().any(|declared| {
        let model = &declared.model;
        match file.from.contents {
            RowKind::Points => model.passthrough || model.measurepoints.contains_key(element),
            RowKind::Events => model.events.contains_key(element),
            RowKind::Attributes => model.attributes.contains_key(element),
        }
    })
}

/// The names of the values that a row may have. `None`: any, since a model takes what it does not
/// declare.
type KnownNames = Option<BTreeSet<ElementName>>;

/// `after` what the rule leaves out of a row.
fn known_names(file: &RuleFile, models: &[&DeclaredModel], after: bool) -> KnownNames {
    let from = &file.from;
    if from.contents == RowKind::Points && models.iter().any(|declared| declared.model.passthrough)
    {
        return None;
    }
    let of_model = |model: &Model| -> Vec<ElementName> {
        match from.contents {
            RowKind::Points => model.measurepoints.keys().cloned().collect(),
            RowKind::Attributes => model.attributes.keys().cloned().collect(),
            RowKind::Events => {
                let events = model.events.iter();
                events
                    .filter(|(name, _)| from.events.is_empty() || from.events.contains(name))
                    .flat_map(|(_, event)| event.output.keys().cloned())
                    .collect()
            }
        }
    };
    let all = models.iter().flat_map(|declared| of_model(&declared.model));
    let named = file.elements();
    let is_limited = after && from.contents != RowKind::Events && !named.is_empty();
    Some(
        all.filter(|name| !is_limited || named.contains(name))
            .collect(),
    )
}

fn check_name(name: &ElementName, names: &KnownNames) -> Result<(), String> {
    match names {
        Some(known) if !known.contains(name) => {
            let shown: Vec<&str> = known.iter().take(20).map(ElementName::as_str).collect();
            Err(format!(
                "{name} is no value of its rows there; they have {}",
                shown.join(", ")
            ))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_conditions(file: &RuleFile, names: &KnownNames) -> Result<(), String> {
    for (name, comparison) in &file.from.conditions {
        check_name(name, names).map_err(|why| format!("from.where: {why}"))?;
        if *comparison == Comparison::default() {
            return Err(format!(
                "from.where: {name} is compared with nothing; write above, atLeast, below, atMost, \
                 equals or not"
            ));
        }
    }
    Ok(())
}

fn check_step(
    rule: &ObjectName,
    step: &Step,
    is_last: bool,
    names: &mut KnownNames,
) -> Result<(), String> {
    let expression = |source: &str, names: &KnownNames| -> Result<(), String> {
        let expression = Expression::new(source).map_err(|error| error.to_string())?;
        for name in expression.names().filter(|name| !OWN_NAMES.contains(name)) {
            let element = ElementName::new(name).map_err(|error| error.to_string())?;
            check_name(&element, names).map_err(|why| format!("expression {source}: {why}"))?;
        }
        Ok(())
    };
    match step {
        Step::Select(selected) => {
            if selected.is_empty() {
                return Err("select names nothing".to_owned());
            }
            selected
                .iter()
                .try_for_each(|name| check_name(name, names))?;
            *names = Some(selected.iter().cloned().collect());
        }
        Step::Rename(renamed) => {
            renamed
                .keys()
                .try_for_each(|name| check_name(name, names))?;
            let targets: BTreeSet<_> = renamed.values().collect();
            if targets.len() < renamed.len() {
                return Err("two values are renamed to one name".to_owned());
            }
            if let Some(known) = names {
                let kept: BTreeSet<_> = known
                    .iter()
                    .filter(|name| !renamed.contains_key(*name))
                    .cloned()
                    .collect();
                *names = Some(kept.into_iter().chain(renamed.values().cloned()).collect());
            }
        }
        Step::Scale(scaled) => {
            for (name, scale) in scaled {
                check_name(name, names)?;
                if !scale.factor.is_finite() || !scale.offset.is_finite() || scale.factor == 0.0 {
                    return Err(format!(
                        "{name}: factor and offset are numbers, the factor not 0"
                    ));
                }
            }
        }
        Step::Set(made) => {
            for (name, source) in made {
                expression(source, names)?;
                if let Some(known) = names {
                    known.insert(name.clone());
                }
            }
        }
        Step::Keep(source) => expression(source, names)?,
        Step::Script(source) => {
            if !is_last {
                return Err("a script is the last step; put the others before it".to_owned());
            }
            Program::transform(rule.as_str(), None, source.as_str().into())?;
            *names = None;
        }
    }
    Ok(())
}

fn check_destination(
    file: &RuleFile,
    models: &[&DeclaredModel],
    names: &KnownNames,
) -> Result<(), String> {
    let template = |what: &str, text: &str| {
        Template::new(text).map_err(|why| format!("to.{}.{what}: {why}", file.to.word()))
    };
    let headers = |headers: &BTreeMap<String, String>| {
        if headers.len() > RULE_HEADERS_MAX {
            return Err(format!(
                "{} headers, at most {RULE_HEADERS_MAX} are taken",
                headers.len()
            ));
        }
        Ok(())
    };
    match &file.to {
        Destination::Kafka(kafka) => {
            let topic = template("topic", &kafka.topic)?;
            check_topic(&topic)?;
            template("key", &kafka.key)?;
            headers(&kafka.headers)?;
            for text in kafka.headers.values() {
                template("headers", text)?;
            }
            Ok(())
        }
        Destination::Webhook(webhook) => {
            headers(&webhook.headers)?;
            crate::sink::webhook::check(webhook).map_err(|why| format!("to.webhook.{why}"))?;
            let (records, seconds) = (webhook.records_max, webhook.timeout_s);
            if !(1..=WEBHOOK_RECORDS_MAX).contains(&records) {
                return Err(format!(
                    "to.webhook.recordsMax: {records} is not between 1 and {WEBHOOK_RECORDS_MAX}"
                ));
            }
            if !(1..=WEBHOOK_TIMEOUT_S_MAX).contains(&seconds) {
                return Err(format!(
                    "to.webhook.timeoutS: {seconds} is not between 1 and {WEBHOOK_TIMEOUT_S_MAX}"
                ));
            }
            Ok(())
        }
        Destination::Calculated(calculated) => {
            if file.from.contents != RowKind::Points {
                return Err("to.calculated: only points are written back".to_owned());
            }
            if calculated.points.is_empty() {
                return Err("to.calculated.points: name the points to write back".to_owned());
            }
            if file.make.is_empty() {
                return Err(
                    "to.calculated: without a step in make nothing is calculated".to_owned(),
                );
            }
            calculated.points.iter().try_for_each(|point| {
                check_written(file, point, models, names)
                    .map_err(|why| format!("to.calculated.points: {why}"))
            })
        }
    }
}

/// What a topic may be named at Kafka, where its own text says so.
fn check_topic(topic: &Template) -> Result<(), String> {
    let mut text = Vec::new();
    topic.write(&mut text, |_, text| text.push(b'x'));
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    if text.is_empty() || text.len() > 249 || !text.iter().all(is_allowed) {
        return Err(
            "to.kafka.topic: a topic has 1 to 249 letters, digits, dots, underscores and dashes"
                .to_owned(),
        );
    }
    Ok(())
}

/// A point that is written back is declared by every model, is made by the rule, and none of those
/// it is made of.
fn check_written(
    file: &RuleFile,
    point: &ElementName,
    models: &[&DeclaredModel],
    names: &KnownNames,
) -> Result<(), String> {
    check_name(point, names)?;
    if let Some(lacking) = models
        .iter()
        .find(|declared| !declared.model.measurepoints.contains_key(point))
    {
        return Err(format!(
            "model {} does not declare {point}; declare it, or name other models in from.models",
            lacking.name
        ));
    }
    let is_made = file.script().is_some()
        || file.make.iter().any(|step| match step {
            Step::Rename(renamed) => renamed.values().any(|name| name == point),
            Step::Set(made) => made.contains_key(point),
            Step::Select(_) | Step::Scale(_) | Step::Keep(_) | Step::Script(_) => false,
        });
    if !is_made {
        return Err(format!(
            "{point} is made by no step: scaled values are written back under another name; rename \
             it or set a new one"
        ));
    }
    if file.from.points.contains(point) || file.from.conditions.contains_key(point) {
        return Err(format!(
            "{point} is among what it is made of; choose another name"
        ));
    }
    Ok(())
}

/// Refuses rules that feed each other, or themselves, through the calculated stream.
///
/// # Errors
/// The rules of the loop, in order.
pub(in crate::registry) fn check_loops<'s>(
    rules: impl Iterator<Item = &'s Rule>,
    snapshot: &'s Snapshot,
) -> Result<(), String> {
    let writers: Vec<(&Rule, &[ElementName])> = rules
        .filter_map(|rule| match &rule.file.to {
            Destination::Calculated(calculated) => Some((rule, calculated.points.as_slice())),
            Destination::Kafka(_) | Destination::Webhook(_) => None,
        })
        .collect();
    let feeds = |from: usize, to: usize| {
        let ((writer, written), (reader, _)) = (writers[from], writers[to]);
        reader.file.from.calculated != Calculated::Exclude
            && share_models(&writer.file, &reader.file, snapshot)
            && written.iter().any(|point| reads(&reader.file, point))
    };
    let mut states = vec![State::New; writers.len()];
    for start in 0..writers.len() {
        let mut path = Vec::new();
        if let Some(at) = visit(start, &feeds, &mut states, &mut path) {
            let mut names: Vec<&str> = path[at..]
                .iter()
                .map(|rule| writers[*rule].0.name.as_str())
                .collect();
            names.push(names[0]);
            return Err(format!(
                "rules feed each other through the calculated stream: {}; leave calculated: exclude \
                 in one of them, or name its points",
                names.join(" → ")
            ));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Done,
}

/// Walks depth first; where the path meets itself, from which place of it on.
fn visit(
    at: usize,
    feeds: &dyn Fn(usize, usize) -> bool,
    states: &mut [State],
    path: &mut Vec<usize>,
) -> Option<usize> {
    match states[at] {
        State::Done => return None,
        State::Open => return path.iter().position(|before| *before == at),
        State::New => {}
    }
    states[at] = State::Open;
    path.push(at);
    for next in 0..states.len() {
        if feeds(at, next)
            && let Some(found) = visit(next, feeds, states, path)
        {
            return Some(found);
        }
    }
    path.pop();
    states[at] = State::Done;
    None
}

fn share_models(one: &RuleFile, other: &RuleFile, snapshot: &Snapshot) -> bool {
    let names: BTreeSet<_> = models_of(one, snapshot)
        .map(|declared| &declared.name)
        .collect();
    models_of(other, snapshot).any(|declared| names.contains(&declared.name))
}

/// Whether a row with this point alone could be taken and matter.
fn reads(file: &RuleFile, point: &ElementName) -> bool {
    file.from.points.is_empty() || file.from.points.contains(point)
}
