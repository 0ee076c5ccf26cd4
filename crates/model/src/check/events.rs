//! The values of an event message (`mqtt-channel.md` §3.3).

use std::collections::BTreeMap;

use super::{Fault, Reading, Rules, TooOld, read_declared};
use crate::{
    Content, DeviceKey, ElementName, Event, Occurrence,
    types::{each_field, object_text, read_undeclared_text, shown},
};

#[derive(Default)]
pub(super) struct Events {
    occurrences: Vec<Occurrence>,
    /// Of the item that is being read: each event with its output.
    outputs: BTreeMap<ElementName, Box<str>>,
}

impl Reading for Events {
    const MEMBER: &'static str = "events";
    const HAS_TIME: bool = true;
    const VALUES_MAX: usize = usize::MAX;

    fn too_old<'r>(rules: &Rules<'r>, time_ms: i64) -> Option<&'r TooOld> {
        let too_old = rules.oldest?.events.as_ref()?;
        (time_ms < too_old.time_ms).then_some(too_old)
    }

    fn read(&mut self, rules: &Rules<'_>, name: &str, json: &str) -> Result<(), Vec<Fault>> {
        let fault = |why| vec![Fault::of(name, why)];
        let (event, output) = match rules.model.events.get_key_value(name) {
            Some((event, declared)) => (event.clone(), read_output(rules, declared, name, json)?),
            None if rules.model.passthrough => {
                let event = ElementName::new(name).map_err(|error| fault(error.to_string()))?;
                (event, read_output(rules, &Event::default(), name, json)?)
            }
            None => {
                let why = "the event is not in the model; declare it, or leave it out";
                return Err(fault(why.to_owned()));
            }
        };
        // The same event twice in an item: the last one counts.
        self.outputs.insert(event, output);
        Ok(())
    }

    fn keep(&mut self, device: &DeviceKey, time_ms: i64) {
        let outputs = std::mem::take(&mut self.outputs);
        let occurrence = |(event, output)| Occurrence {
            device: device.clone(),
            time_ms,
            event,
            output,
        };
        self.occurrences.extend(outputs.into_iter().map(occurrence));
    }

    fn forget(&mut self) {
        self.outputs.clear();
    }

    fn finish(self) -> Content {
        Content::Events(self.occurrences)
    }
}

/// An event's output as canonical JSON. Every output is looked at; none is required.
fn read_output(
    rules: &Rules<'_>,
    declared: &Event,
    event: &str,
    json: &str,
) -> Result<Box<str>, Vec<Fault>> {
    let mut texts = BTreeMap::new();
    // By output: the last of two equal ones counts, so an earlier fault is forgotten.
    let mut faults = BTreeMap::new();
    let outcome = each_field(json, |output, json| {
        let read = match declared.output.get(output.as_ref()) {
            Some(output) => read_declared(output, json),
            None if rules.model.passthrough => ElementName::new(&output)
                .map_err(|error| error.to_string())
                .and_then(|_| read_undeclared_text(json)),
            None => Err("the output is not in the model; declare it, or leave it out".to_owned()),
        };
        match read {
            Ok(text) => {
                faults.remove(&output);
                texts.insert(output, text);
            }
            Err(why) => drop(faults.insert(output, why)),
        }
    });
    match outcome {
        Some(Ok(())) if faults.is_empty() => Ok(object_text(&texts)),
        Some(Ok(())) => Err(faults
            .into_iter()
            .map(|(output, why)| Fault::of(&format!("{event}.{output}"), why))
            .collect()),
        Some(Err(error)) => Err(vec![Fault::of(event, error.to_string())]),
        None => {
            let why = format!("{} is not an object of outputs", shown(json));
            Err(vec![Fault::of(event, why)])
        }
    }
}
