//! The check of a measurement point message against its product's model
//! (`mqtt-channel.md` §3.2, `decisions.md` §4).

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::{
    Batch, BatchBuilder, Cell, Code, ConflictPolicy, DeviceKey, ElementName, Measurepoint, Model,
    NO_QUALITY,
    types::{each_field, milliseconds, read_undeclared, shown, string},
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
#[derive(Debug, Clone, Copy)]
pub struct Rules<'m> {
    pub model: &'m Model,
    pub mode: Mode,
    pub time: TimeRule,
    /// For points that do not set their own.
    pub conflict: ConflictPolicy,
}

/// The verdict on a message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checked {
    /// What is to be stored; has no rows where there is nothing.
    pub batch: Batch,
    /// Items in the message.
    pub items: u32,
    /// Items that are stored (or hold no values).
    pub items_good: u32,
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
    pub point: Option<Box<str>>,
    pub code: Code,
    /// What, where, how to fix.
    pub message: String,
}

/// Checks every item of `params`, the JSON text of an array. `find` looks a device of the product
/// up by its key.
pub fn check_points<'d>(
    params: &str,
    rules: &Rules<'_>,
    find: impl Fn(&str) -> Option<&'d DeviceKey>,
) -> Checked {
    let mut checked = Checked::default();
    let items: Vec<&RawValue> = match serde_json::from_str(params) {
        Ok(items) => items,
        Err(error) => {
            checked.reject(
                Reason::whole(Code::Malformed, format!("params: {error}")),
                0,
                None,
            );
            return checked;
        }
    };
    let mut builder = BatchBuilder::new();
    let mut cells = Vec::new();
    for (index, raw) in (0u32..).zip(&items) {
        checked.items += 1;
        let item = Item::read(raw.get());
        match item.and_then(|item| item.check(rules, &find, &mut cells)) {
            Ok(row) => {
                checked.items_good += 1;
                if !cells.is_empty() {
                    builder.row(row.device, row.time_ms);
                    for (point, policy, cell, quality) in cells.drain(..) {
                        builder.cell(&point, policy, cell, quality);
                    }
                }
            }
            Err(refusal) => {
                cells.clear();
                for reason in refusal.reasons {
                    checked.reject(reason, index, refusal.device.as_deref());
                }
                if rules.mode == Mode::Lenient {
                    checked
                        .refused_params
                        .push(if checked.refused_params.is_empty() {
                            '['
                        } else {
                            ','
                        });
                    checked.refused_params.push_str(raw.get());
                }
            }
        }
    }
    if !checked.refused_params.is_empty() {
        checked.refused_params.push(']');
    }
    if rules.mode == Mode::Lenient || checked.rejections.is_empty() {
        checked.batch = builder.build();
    }
    checked
}

impl Checked {
    fn reject(&mut self, reason: Reason, index: u32, device: Option<&str>) {
        if self.rejections.len() == REJECTIONS_MAX {
            self.more += 1;
            return;
        }
        let place = match &reason.point {
            Some(point) => format!("params[{index}].measurepoints.{point}: "),
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

    fn value((point, message): (String, String)) -> Self {
        Self {
            point: Some(shown(&point).into()),
            code: Code::ModelMismatch,
            message,
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

struct Row<'d> {
    device: &'d DeviceKey,
    time_ms: i64,
}

type PointCell = (ElementName, ConflictPolicy, Cell, u8);

/// An item's fields as they stand.
struct Item<'a> {
    device: std::borrow::Cow<'a, str>,
    time: Option<&'a str>,
    points: Option<&'a str>,
}

impl<'a> Item<'a> {
    fn read(json: &'a str) -> Result<Self, Refusal> {
        let (mut device, mut time, mut points) = (None, None, None);
        let outcome = each_field(json, |name, value| match name.as_ref() {
            "deviceKey" => device = Some(value),
            "time" => time = Some(value),
            "measurepoints" => points = Some(value),
            _ => {}
        });
        match outcome {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                return Err(Refusal::of(None, Code::Malformed, error.to_string()));
            }
            None => {
                let message = format!(
                    "{} is not an object with deviceKey, time and measurepoints",
                    shown(json)
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
            points,
        })
    }

    /// Device, then time, then values; every value is looked at. Leaves the good ones in `cells`.
    fn check<'d>(
        &self,
        rules: &Rules<'_>,
        find: impl Fn(&str) -> Option<&'d DeviceKey>,
        cells: &mut Vec<PointCell>,
    ) -> Result<Row<'d>, Refusal> {
        let key = self.device.as_ref();
        let device = find(key).ok_or_else(|| {
            let message = format!(
                "device {} is not registered under the product; declare it, then send again",
                shown(key)
            );
            Refusal::of(Some(&shown(key)), Code::UnknownDevice, message)
        })?;
        let malformed = |message| Refusal::of(Some(key), Code::Malformed, message);
        let time_ms = self.time_ms(rules.time).map_err(malformed)?;
        let Some(points) = self.points else {
            return Err(malformed(
                "measurepoints is absent; send an object".to_owned(),
            ));
        };
        let mut reasons: BTreeMap<String, String> = BTreeMap::new();
        let outcome = each_field(points, |name, json| match read_point(rules, &name, json) {
            Ok(cell) => {
                // The same point twice: the last one counts, so an earlier fault is forgotten.
                reasons.remove(name.as_ref());
                cells.push(cell);
            }
            Err(message) => drop(reasons.insert(name.into_owned(), message)),
        });
        match outcome {
            Some(Ok(())) if reasons.is_empty() => Ok(Row { device, time_ms }),
            Some(Ok(())) => Err(Refusal {
                device: Some(key.into()),
                reasons: reasons.into_iter().map(Reason::value).collect(),
            }),
            Some(Err(error)) => Err(malformed(format!("measurepoints: {error}"))),
            None => Err(malformed(format!(
                "measurepoints is {}, not an object",
                shown(points)
            ))),
        }
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

fn read_point(rules: &Rules<'_>, name: &str, json: &str) -> Result<PointCell, String> {
    let Some((identifier, point)) = rules.model.measurepoints.get_key_value(name) else {
        if !rules.model.passthrough {
            return Err("the point is not in the model; declare it, or leave it out".to_owned());
        }
        let identifier = ElementName::new(name).map_err(|error| error.to_string())?;
        return Ok((
            identifier,
            without_quality(rules.conflict),
            read_undeclared(json)?,
            NO_QUALITY,
        ));
    };
    let expected = |why| format!("{why}; the model declares {}", declared(point));
    let (cell, quality) = if point.quality && json.starts_with('{') {
        read_with_quality(point, json).map_err(expected)?
    } else {
        (point.data_type.read(json).map_err(expected)?, NO_QUALITY)
    };
    let policy = point.conflict.unwrap_or(match point.quality {
        true => rules.conflict,
        false => without_quality(rules.conflict),
    });
    Ok((identifier.clone(), policy, cell, quality))
}

/// Without qualities the higher one is always the last.
fn without_quality(policy: ConflictPolicy) -> ConflictPolicy {
    match policy {
        ConflictPolicy::HigherQuality => ConflictPolicy::KeepLast,
        other => other,
    }
}

fn declared(point: &Measurepoint) -> String {
    let unit = point
        .unit
        .as_ref()
        .map(|unit| format!(" in {unit}"))
        .unwrap_or_default();
    let quality = if point.quality { " with quality" } else { "" };
    format!("{}{unit}{quality}", point.data_type.word())
}

/// `{"value":<number>,"quality":<0–9>}`; either order, no other member.
fn read_with_quality(point: &Measurepoint, json: &str) -> Result<(Cell, u8), String> {
    let (mut value, mut quality, mut other) = (None, None, None);
    let outcome = each_field(json, |name, json| match name.as_ref() {
        "value" => value = Some(json),
        "quality" => quality = Some(json),
        name => other = Some(shown(name).into_owned()),
    });
    if let Some(Err(error)) = outcome {
        return Err(error.to_string());
    }
    if let Some(name) = other {
        return Err(format!("member {name:?} is neither value nor quality"));
    }
    let value = value.ok_or("member value is absent")?;
    let quality = match quality {
        None => NO_QUALITY,
        Some(json) => json
            .parse()
            .ok()
            .filter(|quality| *quality <= 9)
            .ok_or_else(|| format!("quality {} is not an integer 0–9", shown(json)))?,
    };
    Ok((point.data_type.read(value)?, quality))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{Presence, Values};

    fn model() -> Model {
        serde_json::from_value(json!({ "measurepoints": {
            "P": { "type": "double", "unit": "kW" },
            "n": { "type": "int" },
            "Q": { "type": "double", "quality": true },
        }}))
        .unwrap()
    }

    fn check(mode: Mode, params: &str) -> Checked {
        check_as(&model(), mode, TimeRule::Required, params)
    }

    fn check_as(model: &Model, mode: Mode, time: TimeRule, params: &str) -> Checked {
        let devices: BTreeSet<DeviceKey> = ["a", "b"]
            .into_iter()
            .map(|key| DeviceKey::new(key).unwrap())
            .collect();
        let rules = Rules {
            model,
            mode,
            time,
            conflict: ConflictPolicy::KeepLast,
        };
        check_points(params, &rules, |key| devices.get(key))
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
        let batch = &checked.batch;
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
        assert_eq!(checked.batch.rows(), 0);
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
        assert_eq!(checked.batch.row_time, [1, 3]);
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
            check_as(&model(), Mode::Strict, rule, params)
                .batch
                .row_time,
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
            checked.batch.columns[0].values,
            Values::Text(vec![r#"{"a":2,"b":1}"#.into()])
        );
        let params = r#"[{"deviceKey":"a","time":1,"measurepoints":{"a/b":1}}]"#;
        let checked = check_as(&model, Mode::Strict, TimeRule::Required, params);
        assert_eq!(checked.code(), Code::ModelMismatch);
    }

    #[test]
    fn the_last_of_two_equal_points_counts() {
        let params = r#"[{"deviceKey":"a","time":1,"measurepoints":{"P":"x","P":2}}]"#;
        let checked = check(Mode::Strict, params);
        assert_eq!(checked.code(), Code::Ok);
        assert_eq!(checked.batch.columns[0].values, Values::Double(vec![2.0]));
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
            prop_assert_eq!(checked.batch.rows(), checked.items_good as usize);
        }
    }
}
