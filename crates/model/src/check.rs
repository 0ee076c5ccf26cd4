//! The check of a message against its product's model (`mqtt-channel.md` §3, `decisions.md` §4).
//!
//! Here is the walk over the items, the same for every kind; what a kind makes of the values of an
//! item is its [`Reading`].

mod attributes;
mod events;
mod points;

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use self::{attributes::Attributes, events::Events, points::Points};
use crate::{
    Attribute, Code, ConflictPolicy, Content, DataType, DeviceKey, ElementName, Items, Model,
    Process, Processed,
    types::{canonical_text, each_field, milliseconds, shown, string},
};

/// Reasons kept for one message; further ones are counted.
const REJECTIONS_MAX: usize = 1_000;
/// 1970-01-01 and 2100-01-01, in milliseconds: the times that are taken.
const TIME_MS_MIN: i64 = 0;
const TIME_MS_MAX: i64 = 4_102_444_800_000;

/// What one bad item does to its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing of the message is stored.
    #[default]
    Strict,
    /// The good items are stored.
    Lenient,
}

/// What an item without a time gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeRule {
    /// It is refused.
    Required,
    /// The time of arrival.
    Arrival { now_ms: i64 },
}

/// What the check of a message needs to know of its channel.
#[derive(Clone, Copy)]
pub struct Rules<'m> {
    pub model: &'m Model,
    pub mode: Mode,
    pub time: TimeRule,
    /// For points that do not set their own.
    pub conflict: ConflictPolicy,
    /// What is too old to be stored.
    pub oldest: Option<&'m Oldest>,
    /// What is done to rows of points that fit the model.
    pub policies: Option<&'m dyn Process>,
}

/// What is too old to be stored. An event that is too old is refused; a value that is, is left out and
/// counted as reduced, and where an item has no other its item is refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Oldest {
    /// Of points that are not named; `None`: nothing is too old.
    pub rest: Option<TooOld>,
    pub points: BTreeMap<ElementName, Option<TooOld>>,
    pub events: Option<TooOld>,
}

impl Oldest {
    /// Whether a value of a point is too old, and why.
    fn of(&self, point: &ElementName, time_ms: i64) -> Option<&TooOld> {
        let rule = self.points.get(point).unwrap_or(&self.rest);
        rule.as_ref().filter(|rule| time_ms < rule.time_ms)
    }
}

/// When something is too old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooOld {
    /// The earliest time that is stored, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// Why what is earlier is not, and what to do.
    pub message: String,
}

/// The verdict on a message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checked {
    /// What is to be stored; empty where there is nothing.
    pub content: Content,
    /// Items in the message.
    pub items: u32,
    /// Items that are stored (or hold no values).
    pub items_good: u32,
    /// What policies did to the values of `content`.
    pub processed: Processed,
    /// In item order.
    pub rejections: Vec<Rejection>,
    /// Reasons beyond those kept.
    pub more: u32,
    /// The refused items alone as a JSON array; empty in strict mode, which refuses the message.
    pub refused_params: String,
}

impl Checked {
    /// The first error in item order, or ok.
    pub fn code(&self) -> Code {
        self.rejections
            .first()
            .map_or(Code::Ok, |rejection| rejection.code)
    }
}

/// Why an item, or a value of it, is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Position in `params`.
    pub index: u32,
    pub device: Option<Box<str>>,
    /// The point, the attribute, the event, or an event's output as `event.output`.
    pub point: Option<Box<str>>,
    pub code: Code,
    /// What, where, how to fix.
    pub message: String,
}

/// What a kind of message makes of the values of its items.
trait Reading: Default {
    /// The member of an item that holds its values.
    const MEMBER: &'static str;
    const HAS_TIME: bool;
    /// Values of one item.
    const VALUES_MAX: usize;

    /// Reads a value of the item. It waits until all of the item are read.
    fn read(&mut self, rules: &Rules<'_>, name: &str, json: &str) -> Result<(), Vec<Fault>>;
    /// All values of the item fit: what policies make of them.
    fn process(&mut self, _rules: &Rules<'_>, _time_ms: i64) -> Result<Processed, Vec<Fault>> {
        Ok(Processed::default())
    }
    /// Whether all of an item of this time is too old, and why.
    fn too_old<'r>(_rules: &Rules<'r>, _time_ms: i64) -> Option<&'r TooOld> {
        None
    }
    /// The item is good: its values are to be stored.
    fn keep(&mut self, device: &DeviceKey, time_ms: i64);
    /// The item is refused.
    fn forget(&mut self);
    /// What is to be stored of all items.
    fn finish(self) -> Content;
}

/// What is wrong with a value.
struct Fault {
    /// As in [`Rejection::point`].
    point: Box<str>,
    message: String,
}

impl Fault {
    fn of(point: &str, message: String) -> Self {
        Self {
            point: shown(point).into(),
            message,
        }
    }
}

/// Checks every item of `params`, the JSON text of an array. `find` looks a device of the product
/// up by its key.
pub fn check<'d>(
    items: Items,
    params: &str,
    rules: &Rules<'_>,
    find: impl Fn(&str) -> Option<&'d DeviceKey>,
) -> Checked {
    match items {
        Items::Points => walk::<Points>(params, rules, &find),
        Items::Events => walk::<Events>(params, rules, &find),
        Items::Attributes => walk::<Attributes>(params, rules, &find),
    }
}

fn walk<'d, R: Reading>(
    params: &str,
    rules: &Rules<'_>,
    find: &impl Fn(&str) -> Option<&'d DeviceKey>,
) -> Checked {
    let mut checked = Checked::default();
    let items: Vec<&RawValue> = match serde_json::from_str(params) {
        Ok(items) => items,
        Err(error) => {
            let reason = Reason::whole(Code::Malformed, format!("params: {error}"));
            checked.reject::<R>(reason, 0, None);
            return checked;
        }
    };
    let mut reading = R::default();
    for (index, raw) in (0u32..).zip(&items) {
        checked.items += 1;
        let item = Item::read::<R>(raw.get());
        match item.and_then(|item| item.check(rules, find, &mut reading)) {
            Ok(good) => {
                checked.items_good += 1;
                checked.processed.is_touched |= good.processed.is_touched;
                checked.processed.reduced += good.processed.reduced;
                reading.keep(good.device, good.time_ms);
            }
            Err(refusal) => {
                reading.forget();
                for reason in refusal.reasons {
                    checked.reject::<R>(reason, index, refusal.device.as_deref());
                }
                if rules.mode == Mode::Lenient {
                    let separator = match checked.refused_params.is_empty() {
                        true => '[',
                        false => ',',
                    };
                    checked.refused_params.push(separator);
                    checked.refused_params.push_str(raw.get());
                }
            }
        }
    }
    if !checked.refused_params.is_empty() {
        checked.refused_params.push(']');
    }
    if rules.mode == Mode::Lenient || checked.rejections.is_empty() {
        checked.content = reading.finish();
    } else {
        // Nothing is stored, so nothing of it was reduced either.
        checked.processed = Processed::default();
    }
    checked
}

/// An item that is to be stored.
struct Good<'d> {
    device: &'d DeviceKey,
    time_ms: i64,
    processed: Processed,
}

impl Checked {
    fn reject<R: Reading>(&mut self, reason: Reason, index: u32, device: Option<&str>) {
        if self.rejections.len() == REJECTIONS_MAX {
            self.more += 1;
            return;
        }
        let place = match &reason.point {
            Some(point) => format!("params[{index}].{}.{point}: ", R::MEMBER),
            None => format!("params[{index}]: "),
        };
        self.rejections.push(Rejection {
            index,
            device: device.map(Into::into),
            message: format!("{place}{}", reason.message),
            point: reason.point,
            code: reason.code,
        });
    }
}

struct Refusal {
    device: Option<Box<str>>,
    reasons: Vec<Reason>,
}

struct Reason {
    point: Option<Box<str>>,
    code: Code,
    message: String,
}

impl Reason {
    fn whole(code: Code, message: String) -> Self {
        Self {
            point: None,
            code,
            message,
        }
    }

    fn value(fault: Fault) -> Self {
        Self {
            point: Some(fault.point),
            code: Code::ModelMismatch,
            message: fault.message,
        }
    }
}

impl Refusal {
    fn of(device: Option<&str>, code: Code, message: String) -> Self {
        Self {
            device: device.map(Into::into),
            reasons: vec![Reason::whole(code, message)],
        }
    }
}

/// An item's fields as they stand.
struct Item<'a> {
    device: std::borrow::Cow<'a, str>,
    time: Option<&'a str>,
    values: Option<&'a str>,
}

impl<'a> Item<'a> {
    fn read<R: Reading>(json: &'a str) -> Result<Self, Refusal> {
        let (mut device, mut time, mut values) = (None, None, None);
        let outcome = each_field(json, |name, value| match name.as_ref() {
            "deviceKey" => device = Some(value),
            "time" => time = Some(value),
            member if member == R::MEMBER => values = Some(value),
            _ => {}
        });
        match outcome {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                return Err(Refusal::of(None, Code::Malformed, error.to_string()));
            }
            None => {
                let members = if R::HAS_TIME {
                    "deviceKey, time"
                } else {
                    "deviceKey"
                };
                let message = format!(
                    "{} is not an object with {members} and {}",
                    shown(json),
                    R::MEMBER
                );
                return Err(Refusal::of(None, Code::Malformed, message));
            }
        }
        let Some(device) = device else {
            let message = "deviceKey is absent; name the device".to_owned();
            return Err(Refusal::of(None, Code::Malformed, message));
        };
        let device = string(device)
            .map_err(|why| Refusal::of(None, Code::Malformed, format!("deviceKey: {why}")))?;
        Ok(Self {
            device,
            time,
            values,
        })
    }

    /// Device, then time, then values; every value is looked at, the good ones wait in `reading`. Then
    /// policies act, on all of them or none.
    fn check<'d, R: Reading>(
        &self,
        rules: &Rules<'_>,
        find: &impl Fn(&str) -> Option<&'d DeviceKey>,
        reading: &mut R,
    ) -> Result<Good<'d>, Refusal> {
        let key = self.device.as_ref();
        let device = find(key).ok_or_else(|| {
            let message = format!(
                "device {} is not registered under the product; declare it, then send again",
                shown(key)
            );
            Refusal::of(Some(&shown(key)), Code::UnknownDevice, message)
        })?;
        let malformed = |message| Refusal::of(Some(key), Code::Malformed, message);
        let time_ms = match R::HAS_TIME {
            true => self.time_ms(rules.time).map_err(malformed)?,
            false => 0,
        };
        if let Some(oldest) = R::too_old(rules, time_ms) {
            let message = format!("time {time_ms}: {}", oldest.message);
            return Err(Refusal::of(Some(key), Code::ModelMismatch, message));
        }
        let member = R::MEMBER;
        let Some(values) = self.values else {
            return Err(malformed(format!("{member} is absent; send an object")));
        };
        let mut count = 0;
        let mut faults: BTreeMap<String, Vec<Fault>> = BTreeMap::new();
        let outcome = each_field(values, |name, json| {
            count += 1;
            match reading.read(rules, &name, json) {
                // The same value twice: the last one counts, so an earlier fault is forgotten.
                Ok(()) => drop(faults.remove(name.as_ref())),
                Err(of_value) => drop(faults.insert(name.into_owned(), of_value)),
            }
        });
        match outcome {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(malformed(format!("{member}: {error}"))),
            None => {
                let message = format!("{member} is {}, not an object", shown(values));
                return Err(malformed(message));
            }
        }
        let mut reasons: Vec<Reason> = faults.into_values().flatten().map(Reason::value).collect();
        if count > R::VALUES_MAX {
            let message = format!(
                "{member} has {count} values, at most {} are taken in one item; send the others in \
                 a further item",
                R::VALUES_MAX
            );
            reasons.insert(0, Reason::whole(Code::ModelMismatch, message));
        }
        let refusal = |reasons| Refusal {
            device: Some(key.into()),
            reasons,
        };
        if !reasons.is_empty() {
            return Err(refusal(reasons));
        }
        let processed = reading
            .process(rules, time_ms)
            .map_err(|faults| refusal(faults.into_iter().map(Reason::value).collect()))?;
        Ok(Good {
            device,
            time_ms,
            processed,
        })
    }

    fn time_ms(&self, rule: TimeRule) -> Result<i64, String> {
        let json = match (self.time, rule) {
            (Some(json), _) => json,
            (None, TimeRule::Arrival { now_ms }) => return Ok(now_ms),
            (None, TimeRule::Required) => {
                return Err("time is absent; send milliseconds since 1970-01-01 UTC".to_owned());
            }
        };
        let time_ms = milliseconds(json).map_err(|why| format!("time: {why}"))?;
        if !(TIME_MS_MIN..TIME_MS_MAX).contains(&time_ms) {
            return Err(format!(
                "time: {} is outside 1970 to 2100; send milliseconds since 1970-01-01 UTC",
                shown(json)
            ));
        }
        Ok(time_ms)
    }
}

/// An attribute or an output as canonical JSON.
fn read_declared(attribute: &Attribute, json: &str) -> Result<Box<str>, String> {
    let Attribute {
        data_type, unit, ..
    } = attribute;
    canonical_text(data_type, json).map_err(|why| {
        format!(
            "{why}; the model declares {}",
            declared(data_type, unit.as_ref())
        )
    })
}

/// A type as a message names it: `double in kW`.
fn declared(data_type: &DataType, unit: Option<&String>) -> String {
    let unit = unit.map(|unit| format!(" in {unit}")).unwrap_or_default();
    format!("{}{unit}", data_type.word())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{AttributeValue, Batch, NO_QUALITY, Occurrence, Presence, Values};

    fn model() -> Model {
        serde_json::from_value(json!({ "measurepoints": {
            "P": { "type": "double", "unit": "kW" },
            "n": { "type": "int" },
            "Q": { "type": "double", "quality": true },
        }, "events": {
            "leak": { "output": {
                "litres": { "type": "double", "unit": "l" },
                "where": { "type": "struct", "members": {
                    "x": { "type": "int", "required": true }, "note": { "type": "string" } } },
                "parts": { "type": "array", "items": "int" },
                "kind": { "type": "enum", "values": { "0": "slow", "1": "fast" } },
            }},
            "restart": {},
        }, "attributes": {
            "serial": { "type": "string", "maxLength": 4 },
            "geo": { "type": "struct", "members": { "lat": { "type": "float" } } },
            "since": { "type": "timestamp" },
        }}))
        .unwrap()
    }

    fn batch(checked: &Checked) -> &Batch {
        let Content::Points(batch) = &checked.content else {
            panic!("points are expected")
        };
        batch
    }

    fn events(checked: &Checked) -> Vec<(String, i64, String, String)> {
        let Content::Events(occurrences) = &checked.content else {
            panic!("events are expected")
        };
        let shown = |o: &'_ Occurrence| {
            let Occurrence {
                device,
                time_ms,
                event,
                output,
            } = o;
            (
                device.to_string(),
                *time_ms,
                event.to_string(),
                output.to_string(),
            )
        };
        occurrences.iter().map(shown).collect()
    }

    fn attributes(checked: &Checked) -> Vec<(String, String, String)> {
        let Content::Attributes(values) = &checked.content else {
            panic!("attributes are expected")
        };
        let shown = |v: &'_ AttributeValue| {
            let AttributeValue {
                device,
                attribute,
                value,
            } = v;
            (device.to_string(), attribute.to_string(), value.to_string())
        };
        values.iter().map(shown).collect()
    }

    fn check(mode: Mode, params: &str) -> Checked {
        check_as(&model(), mode, TimeRule::Required, params)
    }

    fn check_as(model: &Model, mode: Mode, time: TimeRule, params: &str) -> Checked {
        check_items(Items::Points, model, mode, time, params)
    }

    fn check_items(
        items: Items,
        model: &Model,
        mode: Mode,
        time: TimeRule,
        params: &str,
    ) -> Checked {
        let devices: BTreeSet<DeviceKey> = ["a", "b"]
            .into_iter()
            .map(|key| DeviceKey::new(key).unwrap())
            .collect();
        let rules = Rules {
            model,
            mode,
            time,
            conflict: ConflictPolicy::KeepLast,
            policies: None,
            oldest: None,
        };
        super::check(items, params, &rules, |key| devices.get(key))
    }

    fn reasons(checked: &Checked) -> Vec<(u32, u16, Option<&str>)> {
        let reason = |r: &'_ Rejection| (r.index, r.code.number());
        checked
            .rejections
            .iter()
            .map(|r| (reason(r).0, reason(r).1, r.point.as_deref()))
            .collect()
    }

    #[test]
    fn good_items_become_rows_in_order() {
        let checked = check(
            Mode::Strict,
            r#"[{"deviceKey":"b","time":1718000000000,"measurepoints":{"P":1.25,"n":3}},
                {"measurepoints":{"Q":{"quality":7,"value":2}},"deviceKey":"a","time":"1718000000001"},
                {"deviceKey":"a","time":1.718e12,"measurepoints":{"Q":4}},
                {"deviceKey":"a","time":1,"measurepoints":{}}]"#,
        );
        assert_eq!(checked.code(), Code::Ok, "{:?}", checked.rejections);
        assert_eq!((checked.items, checked.items_good), (4, 4));
        let batch = batch(&checked);
        assert_eq!(
            batch.row_time,
            [1_718_000_000_000, 1_718_000_000_001, 1_718_000_000_000]
        );
        assert_eq!(batch.row_device, [0, 1, 1]);
        assert_eq!(batch.columns[0].values, Values::Double(vec![1.25]));
        assert_eq!(batch.columns[2].presence, Presence::Some(vec![1, 2]));
        assert_eq!(batch.columns[2].quality, Some(vec![7, NO_QUALITY]));
    }

    #[test]
    fn strict_stores_nothing_and_names_every_fault() {
        let checked = check(
            Mode::Strict,
            r#"[{"deviceKey":"a","time":1,"measurepoints":{"P":1}},
                7,
                {"time":1,"measurepoints":{"P":1}},
                {"deviceKey":"c","time":"x","measurepoints":{"P":"x"}},
                {"deviceKey":"a","measurepoints":{"P":"x"}},
                {"deviceKey":"a","time":4102444800000,"measurepoints":{}},
                {"deviceKey":"a","time":-1,"measurepoints":{}},
                {"deviceKey":"a","time":1.5,"measurepoints":{}},
                {"deviceKey":"a","time":1},
                {"deviceKey":"a","time":1,"measurepoints":{"P":null,"x":1,"n":1.5,"Q":{"value":1,"quality":10}}}]"#,
        );
        assert!(checked.content.is_empty());
        assert_eq!(checked.code(), Code::Malformed);
        assert_eq!(
            reasons(&checked),
            [
                (1, 1220, None),
                (2, 1220, None),
                (3, 1257, None),
                (4, 1220, None),
                (5, 1220, None),
                (6, 1220, None),
                (7, 1220, None),
                (8, 1220, None),
                (9, 1204, Some("P")),
                (9, 1204, Some("Q")),
                (9, 1204, Some("n")),
                (9, 1204, Some("x")),
            ]
        );
        assert_eq!(
            checked.rejections[8].message,
            "params[9].measurepoints.P: null is not a number; the model declares double in kW"
        );
        assert!(checked.refused_params.is_empty());
    }

    #[test]
    fn lenient_stores_the_good_items_and_sets_the_bad_ones_apart() {
        let checked = check(
            Mode::Lenient,
            r#"[{"deviceKey":"a","time":1,"measurepoints":{"P":1}},
                {"deviceKey":"a","time":2,"measurepoints":{"P":1,"n":"x"}},
                {"deviceKey":"b","time":3,"measurepoints":{"P":2}},
                "x"]"#,
        );
        assert_eq!(checked.code(), Code::ModelMismatch);
        assert_eq!(batch(&checked).row_time, [1, 3]);
        assert_eq!((checked.items, checked.items_good), (4, 2));
        assert_eq!(
            checked.refused_params,
            r#"[{"deviceKey":"a","time":2,"measurepoints":{"P":1,"n":"x"}},"x"]"#
        );
    }

    #[test]
    fn an_absent_time_is_the_arrival_where_the_channel_says_so() {
        let rule = TimeRule::Arrival { now_ms: 77 };
        let params = r#"[{"deviceKey":"a","measurepoints":{"P":1}}]"#;
        assert_eq!(
            batch(&check_as(&model(), Mode::Strict, rule, params)).row_time,
            [77]
        );
    }

    #[test]
    fn passthrough_stores_what_the_model_does_not_declare_as_json_text() {
        let model = Model {
            passthrough: true,
            ..model()
        };
        let params = r#"[{"deviceKey":"a","time":1,"measurepoints":{"new":{"b":1, "a":2}}}]"#;
        let checked = check_as(&model, Mode::Strict, TimeRule::Required, params);
        assert_eq!(
            batch(&checked).columns[0].values,
            Values::Text(vec![r#"{"a":2,"b":1}"#.into()])
        );
        let params = r#"[{"deviceKey":"a","time":1,"measurepoints":{"a/b":1}}]"#;
        let checked = check_as(&model, Mode::Strict, TimeRule::Required, params);
        assert_eq!(checked.code(), Code::ModelMismatch);
    }

    fn strict(items: Items, params: &str) -> Checked {
        check_items(items, &model(), Mode::Strict, TimeRule::Required, params)
    }

    #[test]
    fn events_become_occurrences_with_canonical_output() {
        let checked = strict(
            Items::Events,
            r#"[{"deviceKey":"b","time":5,"events":{
                  "restart":{}, "leak":{"where":{"x":1,"note":"a\"b"},"litres":4,"kind":1,"parts":[1,2]}}},
                {"deviceKey":"a","time":"6","events":{}}]"#,
        );
        assert_eq!(checked.code(), Code::Ok, "{:?}", checked.rejections);
        assert_eq!((checked.items, checked.items_good), (2, 2));
        let row = |event: &str, output: &str| ("b".into(), 5, event.into(), output.into());
        assert_eq!(
            events(&checked),
            [
                row(
                    "leak",
                    r#"{"kind":1,"litres":4.0,"parts":[1,2],"where":{"note":"a\"b","x":1}}"#
                ),
                row("restart", "{}"),
            ]
        );
    }

    #[test]
    fn every_fault_of_an_event_is_named() {
        let checked = strict(
            Items::Events,
            r#"[{"deviceKey":"a","events":{}},
                {"deviceKey":"a","time":1},
                {"deviceKey":"a","time":1,"events":[]},
                {"deviceKey":"z","time":1,"events":{}},
                {"deviceKey":"a","time":1,"events":{
                  "fire":{},"restart":{"why":1},"leak":{"litres":"4","where":{},"kind":2,"parts":[1]}}},
                {"deviceKey":"a","time":1,"events":{"leak":7}},
                {"deviceKey":"a","time":1,"events":{"leak":7,"leak":{"litres":null,"litres":1}}}]"#,
        );
        assert!(checked.content.is_empty());
        assert_eq!(
            reasons(&checked),
            [
                (0, 1220, None),
                (1, 1220, None),
                (2, 1220, None),
                (3, 1257, None),
                (4, 1204, Some("fire")),
                (4, 1204, Some("leak.kind")),
                (4, 1204, Some("leak.litres")),
                (4, 1204, Some("leak.where")),
                (4, 1204, Some("restart.why")),
                (5, 1204, Some("leak")),
            ]
        );
        assert_eq!(
            checked.rejections[6].message,
            "params[4].events.leak.litres: \"4\" is not a number; the model declares double in l"
        );
    }

    #[test]
    fn attributes_have_no_time_and_keep_their_last_value() {
        let checked = strict(
            Items::Attributes,
            r#"[{"deviceKey":"a","time":"noon","attributes":{"serial":"A","serial":"B","since":"7"}},
                {"deviceKey":"a","attributes":{}},
                {"deviceKey":"b","attributes":{"geo":{"lat":48.1}}}]"#,
        );
        assert_eq!(checked.code(), Code::Ok, "{:?}", checked.rejections);
        let row =
            |device: &str, name: &str, value: &str| (device.into(), name.into(), value.into());
        assert_eq!(
            attributes(&checked),
            [
                row("a", "serial", "\"B\""),
                row("a", "since", "7"),
                row("b", "geo", r#"{"lat":48.1}"#),
            ]
        );
        let checked = strict(
            Items::Attributes,
            r#"[{"deviceKey":"a"},{"deviceKey":"a","attributes":{"serial":"12345","nothing":1}},
                {"deviceKey":"a","attributes":7}]"#,
        );
        assert_eq!(
            reasons(&checked),
            [
                (0, 1220, None),
                (1, 1204, Some("nothing")),
                (1, 1204, Some("serial")),
                (2, 1220, None),
            ]
        );
    }

    #[test]
    fn an_item_takes_two_hundred_attributes_and_no_more() {
        let model = Model {
            passthrough: true,
            ..model()
        };
        let with = |count: usize| {
            let given: Vec<String> = (0..count).map(|n| format!("\"a{n}\":{n}")).collect();
            let params = format!(
                r#"[{{"deviceKey":"a","attributes":{{{}}}}}]"#,
                given.join(",")
            );
            let rule = TimeRule::Required;
            check_items(Items::Attributes, &model, Mode::Strict, rule, &params)
        };
        assert_eq!(with(200).content.values(), 200);
        let checked = with(201);
        assert_eq!(reasons(&checked), [(0, 1204, None)]);
        assert_eq!(
            checked.rejections[0].message,
            "params[0]: attributes has 201 values, at most 200 are taken in one item; send the \
             others in a further item"
        );
    }

    #[test]
    fn passthrough_takes_events_outputs_and_attributes_that_are_not_declared() {
        let model = Model {
            passthrough: true,
            ..model()
        };
        let check =
            |items, params| check_items(items, &model, Mode::Strict, TimeRule::Required, params);
        let checked = check(
            Items::Events,
            r#"[{"deviceKey":"a","time":1,"events":{"new":{"b":[1, 2],"a":{"d":1,"c":2}},"leak":{"more":1}}}]"#,
        );
        let outputs: Vec<String> = events(&checked).into_iter().map(|row| row.3).collect();
        assert_eq!(
            outputs,
            [r#"{"more":1}"#, r#"{"a":{"c":2,"d":1},"b":[1,2]}"#]
        );
        let checked = check(
            Items::Attributes,
            r#"[{"deviceKey":"a","attributes":{"new":{"b":1, "a":2}}}]"#,
        );
        assert_eq!(attributes(&checked)[0].2, r#"{"a":2,"b":1}"#);
        let wrong = [
            (
                Items::Events,
                r#"[{"deviceKey":"a","time":1,"events":{"new":1}}]"#,
            ),
            (
                Items::Events,
                r#"[{"deviceKey":"a","time":1,"events":{"new":{"a/b":1}}}]"#,
            ),
            (
                Items::Attributes,
                r#"[{"deviceKey":"a","attributes":{"new":null}}]"#,
            ),
        ];
        for (items, params) in wrong {
            assert_eq!(check(items, params).code(), Code::ModelMismatch, "{params}");
        }
    }

    #[test]
    fn the_last_of_two_equal_points_counts() {
        let params = r#"[{"deviceKey":"a","time":1,"measurepoints":{"P":"x","P":2}}]"#;
        let checked = check(Mode::Strict, params);
        assert_eq!(checked.code(), Code::Ok);
        assert_eq!(batch(&checked).columns[0].values, Values::Double(vec![2.0]));
    }

    #[test]
    fn reasons_are_counted_beyond_those_kept() {
        let items = vec!["1"; REJECTIONS_MAX + 5].join(",");
        let checked = check(Mode::Strict, &format!("[{items}]"));
        assert_eq!(
            (checked.rejections.len(), checked.more),
            (REJECTIONS_MAX, 5)
        );
    }

    proptest! {
        #[test]
        fn every_item_is_either_good_or_has_a_reason(
            items in prop::collection::vec(
                prop_oneof![
                    Just(r#"{"deviceKey":"a","time":5,"measurepoints":{"P":1}}"#.to_owned()),
                    Just(r#"{"deviceKey":"z","time":5,"measurepoints":{"P":1}}"#.to_owned()),
                    Just(r#"{"deviceKey":"b","time":5,"measurepoints":{"n":true}}"#.to_owned()),
                    "[0-9]{1,4}",
                ].prop_filter("valid JSON", |json| serde_json::from_str::<serde_json::Value>(json).is_ok()),
                0..20,
            ),
        ) {
            let checked = check(Mode::Lenient, &format!("[{}]", items.join(",")));
            let refused: BTreeSet<u32> = checked.rejections.iter().map(|r| r.index).collect();
            prop_assert_eq!(usize::try_from(checked.items).unwrap(), items.len());
            prop_assert_eq!(checked.items_good as usize + refused.len(), items.len());
            prop_assert_eq!(batch(&checked).rows(), checked.items_good as usize);
        }
    }
}
