//! Plain scripts beside the engine: where something is said of a row, the engine says the same.

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    super::{Call, Dialect, Operation, sandbox::Sandbox, wire::Load},
    *,
};
use crate::limits::Scripts as Limits;

mod writer;

/// What the rows of these tests hold: `[a, b, t, f]`.
type Row = (f64, f64, &'static str, bool);

fn rows() -> Rows {
    Rows {
        reads: ["a", "b", "t", "f"].map(Into::into).into(),
        points: ["x", "y"].map(Into::into).into(),
    }
}

fn compiled(source: &str) -> Result<Plain, NotPlain> {
    Plain::compile(source, &rows())
}

fn said(plain: &Plain, (a, b, t, f): Row) -> Option<String> {
    let values = [
        Value::Number(a),
        Value::Number(b),
        Value::Text(t),
        Value::Bool(f),
    ];
    let said = plain.say(values)?.into_iter().map(|output| match output {
        Output::Kept => "0".to_owned(),
        Output::Dropped => "null".to_owned(),
        Output::Number(number) => {
            format!("[{}]", dragonbox_ecma::Buffer::new().format(number))
        }
        Output::Value(json) => format!("[{json}]"),
    });
    Some(said.collect::<Vec<_>>().join(","))
}

struct Engine(Sandbox);

impl Engine {
    /// `None` where the engine takes it for no script at all.
    fn load(source: &str, rows: Rows) -> Option<Self> {
        let load = Load {
            id: 1,
            source: source.to_owned(),
            dialect: Dialect::Transform,
            mapping: None,
            rows: Some(rows),
            keep_state: false,
        };
        Sandbox::load(load, &Limits::default()).ok().map(Self)
    }

    /// `None` where it says why not.
    fn said(&mut self, (a, b, t, f): Row) -> Option<String> {
        let text = serde_json::Value::from(t);
        let call = Call {
            operation: Operation::Decode,
            input: Bytes::from(format!("[[{a:?},{b:?},{text},{f}]]")),
            time_ms: 0,
        };
        let outcome = self.0.call(&call, false).outcome.ok()?;
        let text = std::str::from_utf8(&outcome).unwrap();
        Some(text.strip_prefix("[[")?.strip_suffix("]]")?.to_owned())
    }
}

/// Says the same of rows of all kinds; how often something was said.
fn agree(source: &str, plain: &Plain) -> Result<usize, TestCaseError> {
    let Some(mut engine) = Engine::load(source, rows()) else {
        return Ok(0);
    };
    let mut times = 0;
    for row in ROWS {
        if let Some(ours) = said(plain, row) {
            times += 1;
            let theirs = engine.said(row);
            prop_assert_eq!(Some(ours), theirs, "{:?} of {}", row, source);
        }
    }
    Ok(times)
}

const ROWS: [Row; 8] = [
    (1.0, 2.0, "run", true),
    (0.0, -0.0, "", false),
    (-3.5, 1e21, "toString", true),
    (1e-7, 9_007_199_254_740_993.0, "stop", false),
    (2_147_483_648.0, -1.0, "é", true),
    (0.1, 0.2, "1", false),
    (7.0, 0.5, "length", true),
    (-1e300, 3.0, "10", false),
];

proptest! {
    /// Programs that nobody would write, of everything that is plain and some of what is not.
    #[test]
    fn what_is_said_without_an_engine_is_what_the_engine_says(choices in prop::collection::vec(any::<u8>(), 0..400)) {
        let source = writer::script(&choices);
        if let Ok(plain) = compiled(&source) {
            agree(&source, &plain)?;
        }
    }
}

#[test]
fn the_scripts_that_are_compared_are_plain_more_often_than_not() {
    let (mut plain, mut said) = (0, 0);
    for seed in 0..200_u8 {
        let mut state = u32::from(seed) + 1;
        let choices: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(200)
        .collect();
        let source = writer::script(&choices);
        if let Ok(compiled) = compiled(&source) {
            plain += 1;
            said += agree(&source, &compiled).unwrap();
        }
    }
    assert!(plain > 60, "{plain} of 200");
    assert!(said > 200, "{said} of {plain} times 8");
}

/// Scripts as people write them.
const PLAIN: [&str; 14] = [
    "function transform(row) { return { x: row.a * 2 }; }",
    "const transform = (row) => ({ x: row.a, y: row.b > 1 ? null : undefined });",
    "const transform = ({ a, b: speed }) => ({ x: Math.round(a * speed * 100) / 100 });",
    "const CURVE = [[0, 0.4], [10, 0.62], [20, 0.71]];
     function transform(row) {
       if (row.b < 0) throw new Error('below zero');
       const [, efficiency] = CURVE.findLast(([flow]) => row.a >= flow) ?? CURVE[0];
       return { x: row.a * row.b * efficiency, y: row.a > 0 ? 1 : null };
     }",
    "const STATES = { run: 1, stop: 0, 10: 7 };
     function transform(row) { return { x: STATES[row.t] ?? -1, y: STATES.run }; }",
    "function interpolate(table, at) {
       for (let i = 1; i < table.length; i++) {
         const [x0, y0] = table[i - 1], [x1, y1] = table[i];
         if (at <= x1) return y0 + (at - x0) / (x1 - x0) * (y1 - y0);
       }
       return table[table.length - 1][1];
     }
     const POWER = [[3, 0], [5, 90], [8, 600], [12, 2050]];
     function transform(row) { return { x: interpolate(POWER, row.a) }; }",
    "function transform(row) {
       const out = {};
       if (row.a > 0) out.x = row.a; else out.x = null;
       out.y = out.x === null ? 0 : 1;
       return out;
     }",
    "function transform(row) {
       let sum = 0;
       for (const [limit, weight] of [[1, 2], [3, 4], [5, 6]].slice ? [[1, 2]] : []) sum += limit * weight;
       return { x: sum };
     }",
    "function transform(row) {
       switch (row.t) { case 'run': case 'go': return { x: 1 }; case 'stop': return { x: 0 }; default: return null; }
     }",
    "const R = 287.05, ZERO = 273.15;
     const density = (celsius, pa) => pa / (R * (celsius + ZERO));
     const transform = (row) => ({ x: 0.5 * density(row.a, 101325) * Math.pow(row.b, 3) });",
    "function transform(row) { row.a *= 3.6; return { x: row.a, y: (row.b | 0) & 0xff }; }",
    "var transform = function (row) { var v = row.a; if (isNaN(v)) v = 0; return { x: v }; };",
    "const VALID = [1, 2, 3];
     const transform = (row) => VALID.includes(row.a) && VALID.some((v) => v === row.b) ? { x: 1 } : null;",
    "function transform(row) {
       let n = 0, v = row.a;
       while (v > 1 && n < 20) { v /= 2; n++; if (v === 3) continue; if (n === 19) break; }
       return { x: n, y: v };
     }",
];

#[test]
fn scripts_as_people_write_them_are_plain() {
    for (place, source) in PLAIN.iter().enumerate() {
        // The one that asks whether there is a method, and the one that declares by `var` at the top.
        let is_plain = ![7, 11].contains(&place);
        match compiled(source) {
            Ok(plain) => {
                assert!(is_plain, "{source}");
                assert!(agree(source, &plain).unwrap() > 0, "{source}");
            }
            Err(not_plain) => assert!(!is_plain, "{not_plain}: {source}"),
        }
    }
}

#[test]
fn what_is_more_than_plain_is_found_with_its_place() {
    for (source, line, what) in [
        (
            "let n = 0;\nfunction transform(row) { return { x: ++n }; }",
            1,
            "let n = 0;",
        ),
        (
            "function transform(row) {\n  console.log(row.a);\n  return null;\n}",
            2,
            "console.log",
        ),
        (
            "function transform(row) {\n  return { x: `${row.a}` };\n}",
            2,
            "`${row.a}`",
        ),
        (
            "function transform(row) { return { x: row.constructor }; }",
            1,
            "row.constructor",
        ),
        (
            "function transform(row) { return { z: 1 }; }",
            1,
            "{ z: 1 }",
        ),
        ("function transform(row) { return row; }", 1, "row"),
        (
            "function transform(row) { const a = a1; const a1 = 1; return { x: a }; }",
            1,
            "a1",
        ),
        (
            "async function transform(row) { return null; }",
            1,
            "async function transform(row) { return n…",
        ),
        (
            "function transform(row) { try { return null; } catch {} }",
            1,
            "try { return null; } catch {}",
        ),
        ("function other() {}", 1, "function other() {}"),
    ] {
        let not_plain = compiled(source).err().unwrap_or_else(|| panic!("{source}"));
        assert_eq!((not_plain.line, &*not_plain.what), (line, what), "{source}");
    }
    let calls_itself =
        "function f(n) { return n < 1 ? 0 : f(n - 1); } const transform = (row) => f(row.a);";
    assert!(compiled(calls_itself).is_err());
    for source in [
        "function transform(row) { return 1 +; }",
        &" ".repeat(1 << 20),
    ] {
        let not_plain = compiled(source).err().unwrap();
        assert_eq!(not_plain.to_string(), "the script as a whole");
    }
}

#[test]
fn names_mean_what_they_mean_to_the_engine() {
    for source in [
        "const k = 1; function f() { return k; } function transform(row) { const k = 2; return { x: f(), y: k }; }",
        "function transform(row) { const k = 2; { const k = 3; row.a = k; } return { x: k, y: row.a }; }",
        "function transform(row) { const g = () => n; let n = 4; n += g(); return { x: n }; }",
        "function transform(row) { return { x: f(f(row.a)), y: f() }; function f(v) { return v ?? 9; } }",
        "const f = (a, { b = a } = {}) => b; const transform = (row) => ({ x: f(1) });",
        "const f = ([a, b = a], c) => a + b + c; const transform = (row) => ({ x: f([1][0] ? T[0] : T[1], 2) }); const T = [[5], [6, 7]];",
        "const NaN_ = 1, E = Math.E; const transform = (Math) => ({ x: Math.a, y: E });",
        "function transform(row) { for (let i = 0; i < 3; i++) { let k; if (i) k = (k ?? 0) + 1; row.a += k ?? 10; } return { x: row.a }; }",
        "function transform(row) { if (row.f) { var v = 1; row.b = v; } return { x: row.b }; }",
        "function transform(row) { let v = 1; const set = (n) => { v = n; return n; }; const r = v + set(5) + v; return { x: r, y: v }; }",
        "function transform(row) { let k = 1; const f = (p, q) => p + q; return { x: f(k, k = 5), y: k++ + ++k }; }",
        "const T = [[1, 'a'], [2, 'b']]; function transform(row) { for (const [n, t] of T) { if (n > row.a) return { x: n, y: t }; } return { x: T.findIndex((p, i) => i === row.b) }; }",
        "const T = [[1], [2]]; function transform(row) { const out = {}; for (const [n] of T) { if (row.a < n) { out.x = n; break; } } return out; }",
        "function transform(row) { const out = {}; for (let i = 0; i < 2; i++) { if (i === 1) return out; out.x = row.a * 2; } return null; }",
        "function transform(row) { const out = {}; for (let i = 0; i < 2; i++) { if (i === 1) return { ...out }; out.x = row.a * 2; } return null; }",
        "function transform(row) { switch (row.a) { default: return { x: row.y }; case (row.y = 5): return { x: 1 }; } }",
        "function transform(row) { const o = { x: 1, ...row, a: 2 }; const { a, b } = o; return { x: a, y: b }; }",
    ] {
        let plain = compiled(source);
        let not_plain = plain.as_ref().err().map(ToString::to_string);
        match plain {
            Ok(plain) => assert!(agree(source, &plain).unwrap() > 0, "{source}"),
            // Not known is right as well, and said of these.
            Err(_) => assert!(
                [
                    "() => n",
                    "{ b = a }",
                    "[1][0]",
                    "var v",
                    "(Math)",
                    "i === 1"
                ]
                .iter()
                .any(|known| source.contains(known)),
                "{not_plain:?}: {source}"
            ),
        }
    }
}

#[test]
fn loops_end_where_only_a_clock_could_end_them() {
    let endless = "function transform(row) { while (true) row.a++; return null; }";
    let plain = compiled(endless).unwrap();
    assert_eq!(said(&plain, ROWS[0]), None);
    let nested = "const T = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        const transform = (row) => ({ x: T.some((a) => T.some((b) => T.some((c) => T.some((d) => T.some((e) => a + b + c + d + e < 0))))) ? 1 : 0 });";
    assert_eq!(said(&compiled(nested).unwrap(), ROWS[0]), None);
}

#[test]
fn what_nests_as_deep_as_it_is_long_ends_no_process() {
    let length = crate::limits::SCRIPT_PLAIN_SOURCE_BYTES_MAX;
    for part in [
        "(",
        "[",
        "{",
        "!",
        "a=>",
        "`${",
        "a?",
        "a?b:",
        "if(a)",
        "{a:",
        "([{",
        "a=",
        "-",
        "new ",
        "a**",
        "class{[",
        "function f(){",
        "a?.[",
        "(a,",
        "async()=>",
        "for(;;)",
        "a:",
        "[...",
        "({a(){",
        "typeof ",
        "do ",
        "await ",
    ] {
        let nested = part.repeat(length / part.len());
        assert!(compiled(&nested).is_err(), "{part}");
        let body = format!("function transform(row) {{ return {nested}");
        assert!(compiled(body.get(..length).unwrap()).is_err(), "{part}");
    }
}
