//! Script steps on rows, with answers that a test gives: no engine runs here.

use std::{num::NonZeroU32, sync::Arc};

use backtide_model::{
    Cell, ConflictPolicy, ElementName, Model, NO_QUALITY, ObjectName, Objection, PointValue,
    Process, Processed,
};
use serde_json::{Value, json};

use super::*;
use crate::script::{Output, SaidOfRow};

fn chain(steps: Value) -> Result<Chain, StepFault> {
    let model: Model = serde_json::from_value(json!({ "measurepoints": {
        "P": { "type": "double", "quality": true }, "Q": { "type": "double" }, "n": { "type": "int" },
        "name": { "type": "string" }, "list": { "type": "array", "items": "int" },
    }}))
    .unwrap();
    let steps: Vec<StepFile> = serde_json::from_value(steps).unwrap();
    let policy = ObjectName::new("p").unwrap();
    let part = Part {
        policy: &policy,
        steps: &steps,
        programs: &Programs::new(&policy, 1, &steps),
    };
    let (conflict, revision) = (ConflictPolicy::KeepLast, NonZeroU32::MIN);
    let compiled = Chain::compile(&[part], &model, conflict, revision, |_, _, _| {});
    compiled.map(|chain| chain.expect("a step concerns the model"))
}

fn script(points: &[&str], reads: &[&str]) -> Value {
    json!({ "points": points, "script": { "reads": reads, "source": "// not run here" } })
}

fn value(point: &str, cell: Cell) -> PointValue {
    PointValue {
        point: ElementName::new(point).unwrap(),
        conflict: ConflictPolicy::KeepLast,
        cell,
        quality: NO_QUALITY,
    }
}

/// Passes a row until nothing is asked any more; how often it passed, and what became of it.
fn driven(
    chain: &Chain,
    row: &[PointValue],
    say: impl Fn(&str) -> SaidOfRow,
) -> (usize, Vec<PointValue>, Result<Processed, Vec<Objection>>) {
    let mut answers = Answers::default();
    for passes in 1.. {
        let (pass, mut values) = (Pass::new(chain, &answers), row.to_vec());
        let outcome = pass.row(&mut values);
        let is_waiting = pass.waiting() > 0;
        let questions = pass.questions();
        assert_eq!(is_waiting, !questions.is_empty());
        if questions.is_empty() {
            values.sort_by(|a, b| a.point.cmp(&b.point));
            return (passes, values, outcome);
        }
        for question in questions {
            let said = question.rows.iter().map(|row| say(row)).collect();
            answers.put(&question, said);
        }
    }
    unreachable!("the loop has no end of its own")
}

fn said(outputs: &[Output]) -> SaidOfRow {
    Ok(outputs.into())
}

fn number(json: &str) -> Output {
    Output::Value(json.into())
}

#[test]
fn a_script_is_asked_once_with_what_it_reads_and_its_values_take_their_place() {
    let chain = chain(json!([script(&["P", "Q"], &["P", "n", "name", "list"])])).unwrap();
    let mut row = vec![
        value("P", Cell::Double(1.5)),
        value("n", Cell::Int(-2)),
        value("name", Cell::Text("a\"b".into())),
        value("list", Cell::Text("[1,2]".into())),
    ];
    row[0].quality = 3;
    let (passes, values, outcome) = driven(&chain, &row, |input| {
        assert_eq!(input, r#"[1.5,-2,"a\"b",[1,2]]"#);
        said(&[number("2.5"), number("7")])
    });
    assert_eq!(passes, 2);
    assert_eq!(outcome.unwrap().reduced, 0);
    let mut p = value("P", Cell::Double(2.5));
    p.quality = 3;
    assert_eq!(values[..2], [p, value("Q", Cell::Double(7.0))]);
}

#[test]
fn null_drops_silence_keeps_and_whole_numbers_are_rounded() {
    let chain = chain(json!([script(&["P", "Q", "n"], &["P"])])).unwrap();
    let row = [value("P", Cell::Double(1.0)), value("Q", Cell::Double(2.0))];
    let (_, values, outcome) = driven(&chain, &row, |_| {
        said(&[Output::Dropped, Output::Kept, number("2.5")])
    });
    assert_eq!(outcome.unwrap().reduced, 1);
    assert_eq!(
        values,
        [value("Q", Cell::Double(2.0)), value("n", Cell::Int(3))]
    );
}

#[test]
fn a_row_that_lacks_an_input_asks_nothing() {
    let chain = chain(json!([script(&["Q"], &["P", "n"])])).unwrap();
    let row = [value("P", Cell::Double(1.0))];
    let (passes, values, outcome) = driven(&chain, &row, |_| panic!("it was asked"));
    assert_eq!((passes, &values[..]), (1, &row[..]));
    outcome.unwrap();
}

#[test]
fn scripts_and_other_steps_act_in_the_declared_order() {
    let chain = chain(json!([
        { "points": ["P"], "scale": { "factor": 10.0 } },
        script(&["P"], &["P"]),
        { "points": ["P"], "scale": { "factor": 0.5 } },
        script(&["Q"], &["P"]),
    ]))
    .unwrap();
    let row = [value("P", Cell::Double(1.0))];
    let (passes, values, _) = driven(&chain, &row, |input| match input {
        "[10.0]" => said(&[number("12")]),
        "[6.0]" => said(&[number("-1")]),
        other => panic!("{other}"),
    });
    assert_eq!(passes, 3);
    assert_eq!(
        values,
        [
            value("P", Cell::Double(6.0)),
            value("Q", Cell::Double(-1.0))
        ]
    );
}

#[test]
fn what_a_script_throws_and_what_does_not_fit_refuses_the_row_with_the_step() {
    let chain = chain(json!([script(&["n"], &["P"])])).unwrap();
    let row = [value("P", Cell::Double(1.0))];
    let objection = |say: fn() -> SaidOfRow| {
        let (_, _, outcome) = driven(&chain, &row, |_| say());
        let mut objections = outcome.unwrap_err();
        assert_eq!(objections.len(), 1);
        objections.pop().unwrap()
    };
    let unfit = objection(|| said(&[number("3e9")]));
    assert_eq!(unfit.point.as_str(), "n");
    assert!(
        unfit
            .message
            .starts_with("policy p, step 1: the script gives n the value 3e9"),
        "{}",
        unfit.message
    );
    let text = objection(|| said(&[number("\"x\"")]));
    assert!(
        text.message.contains("the point is int"),
        "{}",
        text.message
    );
    let threw = objection(|| {
        Err(serde_json::from_value(json!({
            "cause": "threw", "message": "Error: too cold", "line": 3, "column": 5
        }))
        .unwrap())
    });
    assert_eq!(
        threw.message,
        "policy p, step 1: line 3, column 5: Error: too cold"
    );
}

#[test]
fn equal_rows_are_asked_about_once() {
    let chain = chain(json!([script(&["Q"], &["P"])])).unwrap();
    let answers = Answers::default();
    let pass = Pass::new(&chain, &answers);
    for _ in 0..3 {
        pass.row(&mut vec![value("P", Cell::Double(1.0))]).unwrap();
    }
    assert_eq!(pass.waiting(), 3);
    let questions = pass.questions();
    assert_eq!(questions.len(), 1);
    assert_eq!(questions[0].rows, ["[1.0]".into()]);
}

#[test]
fn a_script_step_that_makes_no_sense_is_refused_with_what_to_do() {
    for (step, says) in [
        (script(&["Q"], &[]), "reads is empty"),
        (
            script(&["Q"], &["nosuch"]),
            "nosuch is no point of the model",
        ),
        (script(&["Q"], &["P", "P"]), "P is named twice"),
        (script(&["Q", "Q"], &["P"]), "Q is named twice"),
        (
            json!({ "points": ["Q"], "script": { "reads": ["P"], "source": " " } }),
            "the source is empty",
        ),
        (
            json!({ "points": ["Q"], "copy": "P", "script": { "reads": ["P"], "source": "x" } }),
            "copy and script at once",
        ),
    ] {
        let fault = chain(json!([step])).err().unwrap().to_string();
        assert!(fault.contains(says), "{says}: {fault}");
    }
    let many = vec![script(&["Q"], &["P"]); crate::limits::POLICY_SCRIPTS_MAX + 1];
    let fault = chain(Value::from(many)).err().unwrap();
    assert!(fault.message.contains("put several into one"), "{fault}");
}

#[test]
fn a_step_tells_its_source_for_each_point_it_makes() {
    let chain = chain(json!([script(&["P", "Q"], &["n"])])).unwrap();
    for point in ["P", "Q"] {
        let steps = chain.steps_of(&ElementName::new(point).unwrap());
        assert_eq!(steps.len(), 1);
        assert_eq!(steps[0].point.as_str(), point);
        assert!(
            steps[0].does.starts_with("= transform(n) of script "),
            "{}",
            steps[0].does
        );
        assert_eq!(steps[0].script.as_deref(), Some("// not run here"));
    }
    assert!(chain.steps_of(&ElementName::new("n").unwrap()).is_empty());
}

#[test]
fn a_trial_believes_an_error_of_the_scripts_own_and_no_mistake() {
    let chain = chain(json!([script(&["n"], &["P", "name", "list"])])).unwrap();
    let trials: Vec<Trial<'_>> = chain.trials().collect();
    assert_eq!(trials.len(), 1);
    assert_eq!(&*trials[0].rows()[1], r#"[7.0,"",[]]"#);
    let failure = |cause: &str, message: &str| -> SaidOfRow {
        Err(serde_json::from_value(json!({ "cause": cause, "message": message })).unwrap())
    };
    let passes = |said: &[SaidOfRow]| trials[0].passes(said);
    assert_eq!(passes(&[said(&[number("1")])]), Ok(()));
    assert_eq!(passes(&[failure("threw", "Error: no such device")]), Ok(()));
    for wrong in [
        failure("threw", "ReferenceError: x is not defined"),
        failure("syntax", "SyntaxError: unexpected token"),
        failure("result", "transform returned nothing"),
        failure("killed", "the call ran for 120 ms of CPU and was killed"),
        said(&[number("\"text\"")]),
    ] {
        let why = passes(std::slice::from_ref(&wrong)).unwrap_err();
        assert!(why.starts_with("step 1: "), "{why}");
        assert_eq!(passes(&[wrong, said(&[number("1")])]), Ok(()));
    }
    let _: Arc<crate::script::Program> = trials[0].program();
}
