//! Steps on rows, whatever kinds they are.

use std::num::NonZeroU32;

use proptest::prelude::*;
use serde_json::{Value, json};

use backtide_model::{
    Cell, ConflictPolicy, DataType, ElementName, Model, NO_QUALITY, ObjectName, Objection,
    PointValue, Process, Processed,
};

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
    let policy = ObjectName::new("p").unwrap();
    let part = Part {
        policy: &policy,
        steps: &steps,
        programs: &Programs::new(&policy, 1, &steps),
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

/// What a chain without scripts makes of a row.
fn passed(chain: &Chain, values: &mut Vec<PointValue>) -> Result<Processed, Vec<Objection>> {
    Pass::new(chain, &Answers::default()).row(values)
}

type Shown = Vec<(String, Cell, u8)>;

/// What the steps make of a row, by point, and how many values they drop.
fn row(steps: Value, values: &[PointValue]) -> Result<(Shown, u32), Vec<String>> {
    let mut values = values.to_vec();
    let processed = passed(&chain(steps).unwrap().unwrap(), &mut values);
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
    let processed = passed(&chain.unwrap().unwrap(), &mut values).unwrap();
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
            let processed = passed(&chain, &mut values);
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
