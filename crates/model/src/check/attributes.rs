//! The values of an attribute message (`mqtt-channel.md` §3.4).

use std::collections::BTreeMap;

use super::{Fault, Reading, Rules, read_declared};
use crate::{AttributeValue, Content, DeviceKey, ElementName, types::read_undeclared_text};

/// Attributes of one item (`mqtt-channel.md` §3.4).
pub(super) const ATTRIBUTES_MAX: usize = 200;

#[derive(Default)]
pub(super) struct Attributes {
    values: Vec<AttributeValue>,
    /// Of the item that is being read.
    given: BTreeMap<ElementName, Box<str>>,
}

impl Reading for Attributes {
    const MEMBER: &'static str = "attributes";
    const HAS_TIME: bool = false;
    const VALUES_MAX: usize = ATTRIBUTES_MAX;

    fn read(&mut self, rules: &Rules<'_>, name: &str, json: &str) -> Result<(), Vec<Fault>> {
        let fault = |why| vec![Fault::of(name, why)];
        let (attribute, value) = match rules.model.attributes.get_key_value(name) {
            Some((attribute, declared)) => {
                let value = read_declared(declared, json).map_err(fault)?;
                (attribute.clone(), value)
            }
            None if rules.model.passthrough => {
                let attribute = ElementName::new(name).map_err(|error| fault(error.to_string()))?;
                (attribute, read_undeclared_text(json).map_err(fault)?)
            }
            None => {
                let why = "the attribute is not in the model; declare it, or leave it out";
                return Err(fault(why.to_owned()));
            }
        };
        // The same attribute twice in an item: the last one counts.
        self.given.insert(attribute, value);
        Ok(())
    }

    fn keep(&mut self, device: &DeviceKey, _time_ms: i64) {
        let given = std::mem::take(&mut self.given);
        let value = |(attribute, value)| AttributeValue {
            device: device.clone(),
            attribute,
            value,
        };
        self.values.extend(given.into_iter().map(value));
    }

    fn forget(&mut self) {
        self.given.clear();
    }

    fn finish(self) -> Content {
        Content::Attributes(self.values)
    }
}
