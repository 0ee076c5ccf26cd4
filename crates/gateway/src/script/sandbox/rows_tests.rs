//! Scripts over the rows of policies: what they are given, what they may say, and that a row never finds
//! anything of another.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{Call, Cause, Dialect, Done, Operation, Rows, wire::Load},
    Sandbox,
};
use crate::{limits::Scripts as Limits, script::Failure};

fn loaded(source: &str, reads: &[&str], points: &[&str]) -> Result<Sandbox, Failure> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    let load = Load {
        id: 1,
        source: source.to_owned(),
        dialect: Dialect::Transform,
        mapping: None,
        rows: Some(Rows {
            reads: names(reads),
            points: names(points),
        }),
        keep_state: false,
    };
    Sandbox::load(load, &Limits::default())
}

fn sandbox(source: &str) -> Sandbox {
    loaded(source, &["a", "b"], &["x", "y"]).unwrap()
}

fn call(sandbox: &mut Sandbox, rows: &Value) -> Done {
    let call = Call {
        operation: Operation::Decode,
        input: Bytes::from(rows.to_string()),
        time_ms: 0,
    };
    sandbox.call(&call, false)
}

fn said(sandbox: &mut Sandbox, rows: &Value) -> Value {
    serde_json::from_slice(&call(sandbox, rows).outcome.unwrap()).unwrap()
}

fn failure(sandbox: &mut Sandbox) -> Failure {
    call(sandbox, &json!([[1, 2]])).outcome.unwrap_err()
}

#[test]
fn a_row_is_an_object_of_what_is_read_and_the_result_one_of_what_is_given() {
    let mut sandbox = sandbox(
        "function transform(row) { return { x: row.a + row.b, y: row.a > 2 ? null : undefined }; }",
    );
    let rows = json!([[1, 2], [3, 0.5]]);
    assert_eq!(said(&mut sandbox, &rows), json!([[[3], 0], [[3.5], null]]));
}

#[test]
fn every_kind_of_value_goes_in_and_out() {
    let same = "const transform = (row) => ({ x: row.a, y: row.b });";
    let mut sandbox = sandbox(same);
    let rows = json!([[true, "é\"\\"], [[1, 2], { "k": [] }], [1e300, -0.5]]);
    let expected = json!([[[true], ["é\"\\"]], [[[1, 2]], [{ "k": [] }]], [[1e300], [-0.5]]]);
    assert_eq!(said(&mut sandbox, &rows), expected);
}

#[test]
fn points_may_have_the_names_of_members_that_every_object_has() {
    let source =
        "const transform = (row) => ({ x: row.constructor, ['__proto__']: row.__proto__ });";
    let mut sandbox = loaded(source, &["constructor", "__proto__"], &["x", "__proto__"]).unwrap();
    assert_eq!(said(&mut sandbox, &json!([[1, 2]])), json!([[[1], [2]]]));
}

#[test]
fn a_script_of_one_point_may_return_the_value_itself() {
    let source = "function transform({ a }) { return a < 0 ? null : a * 2; }";
    let mut sandbox = loaded(source, &["a"], &["x"]).unwrap();
    assert_eq!(
        said(&mut sandbox, &json!([[2], [-1]])),
        json!([[[4]], [null]])
    );
}

#[test]
fn what_is_no_result_is_told_in_words() {
    for (source, says) in [
        ("function transform(row) {}", "returned nothing"),
        (
            "function transform(row) { return 5; }",
            "not an object of points",
        ),
        (
            "function transform(row) { return { z: 1 }; }",
            "z, which is none",
        ),
        (
            "function transform(row) { return { x: 0 / 0 }; }",
            "NaN for x",
        ),
        (
            "function transform(row) { return { x: 1 / 0 }; }",
            "Infinity for x",
        ),
        (
            "function transform(row) { return { x() {} }; }",
            "a function for x",
        ),
        (
            "async function transform(row) { return { x: 1 }; }",
            "promise",
        ),
    ] {
        let failure = failure(&mut sandbox(source));
        assert_eq!(failure.cause, Cause::Result, "{source}");
        assert!(
            failure.message.contains(says),
            "{source}: {}",
            failure.message
        );
    }
    let missing = loaded("function other() {}", &["a"], &["x"]).err().unwrap();
    assert_eq!(missing.cause, Cause::Missing);
    let wrong = loaded("function transform(row) { return 1 +; }", &["a"], &["x"]);
    assert_eq!(wrong.err().unwrap().cause, Cause::Syntax);
}

#[test]
fn an_error_names_its_line_and_column() {
    let mut sandbox = sandbox("function transform(row) {\n  return row.nosuch.b;\n}");
    let failure = failure(&mut sandbox);
    assert_eq!((failure.cause, failure.line), (Cause::Threw, Some(2)));
    assert!(
        failure.message.starts_with("TypeError"),
        "{}",
        failure.message
    );
}

#[test]
fn there_is_no_clock_no_chance_and_no_text_that_is_run() {
    for source in [
        "Date.now()",
        "new Date().getTime()",
        "Date()",
        "Math.random()",
        "eval('1')",
        "(0, eval)('1')",
        "performance.now()",
    ] {
        let text = format!("function transform(row) {{ return {{ x: {source} }}; }}");
        assert_eq!(failure(&mut sandbox(&text)).cause, Cause::Threw, "{source}");
    }
    let fixed = "function transform(row) { return { x: new Date(86400000).getUTCDate() }; }";
    assert_eq!(
        said(&mut sandbox(fixed), &json!([[0, 0]])),
        json!([[[2], 0]])
    );
}

/// Each tries to count rows; none may get beyond the first.
const LEAKS: [&str; 21] = [
    "n = (typeof n === 'undefined' ? 0 : n) + 1; return { x: n };",
    "globalThis.n = (globalThis.n || 0) + 1; return { x: globalThis.n };",
    "Object.defineProperty(globalThis, 'n', { value: (globalThis.n || 0) + 1 }); return { x: globalThis.n };",
    "return { x: ++count };} let count = 0; function other() {",
    "return { x: ++kept.n };} const kept = { n: 0 }; function other() {",
    "return { x: transform.n = (transform.n || 0) + 1 };",
    "Array.prototype.n = ([].n || 0) + 1; return { x: [].n };",
    "Object.prototype.n = ({}.n || 0) + 1; return { x: ({}).n };",
    "Math.n = (Math.n || 0) + 1; return { x: Math.n };",
    "Math.abs.n = (Math.abs.n || 0) + 1; return { x: Math.abs.n };",
    "const abs = Math.abs; Math.abs = (x) => abs(x) + 1; return { x: Math.abs(0) };",
    "console.n = (console.n || 0) + 1; return { x: console.n };",
    "Buffer.prototype.n = (Buffer.from([1]).n || 0) + 1; return { x: Buffer.from([1]).n };",
    "const g = Object.getPrototypeOf(function* () {}); g.n = (g.n || 0) + 1; return { x: g.n };",
    "Error.stackTraceLimit = (Error.stackTraceLimit || 0) + 1; return { x: Error.stackTraceLimit };",
    "Error.prepareStackTrace = () => 1; return { x: 1 };",
    "const f = Function('globalThis.n = (globalThis.n || 0) + 1; return globalThis.n'); return { x: f() };",
    "const f = (function () {}).constructor('n = 1; return n'); return { x: f() };",
    "const tag = (strings) => strings; const t = tag`a`; t.n = (t.n || 0) + 1; return { x: t.n };",
    "const p = Reflect.getPrototypeOf(new Map()[Symbol.iterator]()); p.n = (p.n || 0) + 1; return { x: p.n };",
    "Promise.resolve().then(() => { globalThis.n = 1; }); return { x: globalThis.n ? 2 : 1 };",
];

#[test]
fn a_row_finds_nothing_of_the_one_before() {
    for leak in LEAKS {
        let mut sandbox = sandbox(&format!("function transform(row) {{ {leak} }}"));
        let alone: Vec<_> = (0..3)
            .map(|_| call(&mut sandbox, &json!([[0, 0]])).outcome)
            .collect();
        assert!(
            alone.windows(2).all(|pair| pair[0] == pair[1]),
            "{leak}: {alone:?}"
        );
        let together = call(&mut sandbox, &json!([[0, 0], [0, 0], [0, 0]])).outcome;
        match (&alone[0], &together) {
            (Ok(one), Ok(all)) => {
                let (one, all): (Value, Value) = (
                    serde_json::from_slice(one).unwrap(),
                    serde_json::from_slice(all).unwrap(),
                );
                let rows = all.as_array().unwrap();
                assert!(rows.iter().all(|row| *row == one[0]), "{leak}: {all}");
            }
            (Err(_), Err(_)) => {}
            (alone, together) => panic!("{leak}: {alone:?} but {together:?}"),
        }
        assert!(sandbox.looks_untouched(), "{leak}");
    }
}

proptest! {
    /// Rows in any order, cut into calls anyhow, have the same said of them.
    #[test]
    fn what_is_said_of_a_row_depends_on_it_alone(
        rows in prop::collection::vec((-9..9_i32, -9..9_i32), 1..12),
        cut in 1..5_usize,
        rotate in 0..12_usize,
    ) {
        let mut sandbox = sandbox(
            "let seen = []; function transform(row) { seen.push(row.a); row.a += seen.length; \
             return { x: row.a * row.b, y: seen.length > 1 ? 1 : null }; }",
        );
        let mut turned = rows.clone();
        turned.rotate_left(rotate % rows.len());
        let mut found = Vec::new();
        for chunk in turned.chunks(cut) {
            let given = json!(chunk.iter().map(|(a, b)| [a, b]).collect::<Vec<_>>());
            let said = said(&mut sandbox, &given);
            found.extend(said.as_array().unwrap().iter().cloned());
        }
        for ((a, b), said) in turned.iter().zip(&found) {
            prop_assert_eq!(said, &json!([[(a + 1) * b], null]));
        }
    }
}
