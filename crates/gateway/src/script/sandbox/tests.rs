//! Scripts in a sandbox of this very process: what they see, what they may not, what is said of
//! them. How long hangs last is tested over real workers.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    super::{
        Call, Cause, Dialect, Done, Failure, Operation,
        wire::{Functions, Load},
    },
    Sandbox,
};
use crate::limits::Scripts as Limits;

const FRAME: &str = include_str!("fixtures/frame.js");
const SAMPLE: &str = "01000000140100040000\
    25f502000a6162636465666768696a0300083ff23d70a3d70a3d04001400000001000000030000000500000007\
    0000000905000500\
    0001a703";

fn loaded(
    source: &str,
    dialect: Dialect,
    mapping: Value,
    keep_state: bool,
) -> Result<Sandbox, Failure> {
    let load = Load {
        id: 1,
        source: source.to_owned(),
        dialect,
        mapping: serde_json::from_value(mapping).unwrap(),
        rows: None,
        keep_state,
    };
    Sandbox::load(load, &Limits::default())
}

fn sandbox(source: &str) -> Sandbox {
    loaded(source, Dialect::default(), Value::Null, false).unwrap()
}

/// A script whose decoder has this body; `show(value)` is its result as text.
fn body(body: &str) -> Sandbox {
    sandbox(&format!(
        "function show(value) {{ return JSON.stringify({{ value: value }}); }}\n\
         function rawDataToJsonStr(bytes) {{ {body} }}"
    ))
}

fn decode(input: &[u8]) -> Call {
    Call {
        operation: Operation::Decode,
        input: Bytes::copy_from_slice(input),
        time_ms: 1_718_000_000_000,
    }
}

fn encode(text: &str) -> Call {
    Call {
        operation: Operation::Encode,
        ..decode(text.as_bytes())
    }
}

fn json_of(done: &Done) -> Value {
    serde_json::from_slice(done.outcome.as_ref().unwrap()).unwrap()
}

fn value_of(sandbox: &mut Sandbox, input: &[u8]) -> Value {
    json_of(&sandbox.call(&decode(input), false))["value"].take()
}

fn failure_of(sandbox: &mut Sandbox) -> Failure {
    sandbox.call(&decode(b"x"), false).outcome.unwrap_err()
}

#[test]
fn the_documented_frame_is_read_and_its_reply_written() {
    for keep_state in [false, true] {
        let mut sandbox = loaded(FRAME, Dialect::default(), Value::Null, keep_state).unwrap();
        let both = Functions {
            decodes: true,
            encodes: true,
        };
        assert_eq!(sandbox.functions(), both);
        let done = sandbox.call(&decode(&hex::decode(SAMPLE).unwrap()), false);
        assert_eq!(
            json_of(&done),
            json!({
                "id": "20", "version": "1.0", "method": "integration.measurepoint.post",
                "params": [{ "deviceKey": "pump-7", "time": 1_718_000_000_000_i64, "measurepoints": {
                    "mp_int": 9717, "mp_string": "abcdefghij", "mp_double": 1.14,
                    "mp_array": [1, 3, 5, 7, 9], "mp_int_quality": { "value": 423, "quality": 3 }
                }}]
            })
        );
        let reply = sandbox.call(&encode(r#"{"id":20,"code":200,"data":""}"#), false);
        assert_eq!(hex::encode(reply.outcome.unwrap()), "0000001400c8");
        assert!(sandbox.is_untouched());
    }
}

#[test]
fn a_call_finds_nothing_of_the_one_before() {
    for leak in [
        "n = (typeof n === 'undefined' ? 0 : n) + 1; return show(n);",
        "this.n = (this.n || 0) + 1; return show(this.n);",
        "globalThis.n = (globalThis.n || 0) + 1; return show(n);",
        "Object.defineProperty(globalThis, 'n', { value: (globalThis.n || 0) + 1, configurable: true }); return show(n);",
        "Object.defineProperty(globalThis, 'n', { value: 1 }); return show(Object.getOwnPropertyDescriptor(globalThis, 'n').value);",
        "return show(count++ + 1);} var count = 0; function other() {",
        "(0, eval)('var n = (typeof n === \"undefined\" ? 0 : n) + 1'); return show(n);",
        "exports.n = (exports.n || 0) + 1; return show(exports.n);",
        "console.n = (console.n || 0) + 1; return show(console.n);",
        "Array.prototype.n = (Array.prototype.n || 0) + 1; return show([].n);",
        "Object.prototype.n = ({}.n || 0) + 1; var n = {}.n; return '{\"value\":' + n + '}';",
        "Math.n = (Math.n || 0) + 1; return show(Math.n);",
        "var old = Math.abs; Math.abs = function (x) { return old(x) + 1; }; return show(Math.abs(0));",
        "Buffer.prototype.n = (Buffer.prototype.n || 0) + 1; return show(Buffer.from([1]).n);",
        "var g = Object.getPrototypeOf(function* () {}); g.n = (g.n || 0) + 1; return show(g.n);",
        "var p = Object.getPrototypeOf([][Symbol.iterator]()); p.n = (p.n || 0) + 1; return show(p.n);",
        "Error.stackTraceLimit = Error.stackTraceLimit + 1; return show(Error.stackTraceLimit - 10);",
        "JSON = { stringify: function () { return '{\"value\":1}'; } }; return show(7);",
        "var s = Symbol.for('n'); globalThis[s] = (globalThis[s] || 0) + 1; return show(globalThis[s]);",
    ] {
        let mut sandbox = body(leak);
        // As the worker does it: until it is certain, nothing counts.
        let first = value_of(&mut sandbox, b"x");
        assert_eq!(first, json!(1), "{leak}");
        let mut second = value_of(&mut sandbox, b"x");
        if !sandbox.is_untouched() {
            second = value_of(&mut sandbox, b"x");
        }
        assert_eq!(second, json!(1), "{leak}");
        assert_eq!(value_of(&mut sandbox, b"x"), json!(1), "{leak}");
        assert!(sandbox.is_untouched());
    }
}

#[test]
fn an_ordinary_script_is_not_suspected() {
    let mut sandbox = sandbox(FRAME);
    for _ in 0..3 {
        sandbox.call(&decode(&hex::decode(SAMPLE).unwrap()), false);
    }
    assert!(sandbox.is_untouched());
    assert!(!sandbox.needs_fresh_realm());
}

#[test]
fn kept_state_is_kept() {
    let source =
        "var n = 0; function rawDataToJsonStr() { return JSON.stringify({ value: ++n }); }";
    let mut sandbox = loaded(source, Dialect::default(), Value::Null, true).unwrap();
    let counted: Vec<_> = (0..3).map(|_| value_of(&mut sandbox, b"")).collect();
    assert_eq!(counted, [json!(1), json!(2), json!(3)]);
}

#[test]
fn the_clock_stands_and_chance_is_the_same_again() {
    let mut sandbox = body(
        "return show([Date.now(), new Date().getTime(), +new Date(0), new Date(2014, 0).toISOString(), \
         typeof Date(), new Date() instanceof Date, Date.UTC(1970, 0), new Date().getTimezoneOffset(), \
         new Date().constructor === Date, Math.random(), Math.random()]);",
    );
    let first = value_of(&mut sandbox, b"x");
    let (fixed, chance) = first.as_array().unwrap().split_at(9);
    assert_eq!(
        json!(fixed),
        json!([
            1_718_000_000_000_i64,
            1_718_000_000_000_i64,
            0,
            "2014-01-01T00:00:00.000Z",
            "string",
            true,
            0,
            0,
            true
        ])
    );
    assert_ne!(chance[0], chance[1]);
    assert_eq!(value_of(&mut sandbox, b"x"), first);
    assert_ne!(
        value_of(&mut sandbox, b"y").as_array().unwrap()[9],
        chance[0]
    );
}

#[test]
fn bytes_are_a_plain_array_and_buffer_is_there() {
    let mut sandbox = body(
        "var b = Buffer.from(bytes); return show([Array.isArray(bytes), bytes.length, b.readUInt16BE(0), b.readInt8(2), \
         b.toString('hex'), b.slice(1).toString('base64'), Buffer.from('61ff', 'hex')[1], Buffer.from('aGk=', 'base64').toString(), \
         Buffer.concat([b, Buffer.from('ü')]).length, b.readUintLE(0, 3), Buffer.isBuffer(b), b instanceof Uint8Array, \
         Buffer.alloc(4).writeFloatBE(1.5), new Buffer([7])[0], Buffer([8])[0], Buffer.from([1, 2, 3]).equals(Buffer.from('010203', 'hex'))]);",
    );
    assert_eq!(
        value_of(&mut sandbox, &[1, 2, 0xff]),
        json!([
            true, 3, 258, -1, "0102ff", "Av8=", 255, "hi", 5, 0xff_0201, true, true, 4, 7, 8, true
        ])
    );
}

#[test]
fn what_a_script_must_not_have_is_not_there() {
    let mut sandbox = body(
        "return show(['require', 'process', 'fetch', 'setTimeout', 'performance', 'Atomics', 'WeakRef', 'std', 'os', \
         'XMLHttpRequest', 'Worker'].filter(function (name) { return typeof globalThis[name] !== 'undefined'; }));",
    );
    assert_eq!(value_of(&mut sandbox, b""), json!([]));
}

#[test]
fn a_syntax_error_is_told_by_the_users_own_line_and_column() {
    for (source, line, column) in [
        ("function rawDataToJsonStr(b) { return 1 +; }", 1, 42),
        ("\n\nvar a = ;", 3, 9),
        ("function f() {}\n}\n", 2, 1),
        ("let a = 1;\nlet a = 2;", 2, 7),
    ] {
        let failure = loaded(source, Dialect::default(), Value::Null, false)
            .err()
            .unwrap();
        assert_eq!(failure.cause, Cause::Syntax, "{failure:?}");
        assert_eq!(
            (failure.line, failure.column),
            (Some(line), Some(column)),
            "{source}: {failure:?}"
        );
    }
    // Braces that would close ours are still nobody's.
    let escape = loaded("} evil(); {", Dialect::default(), Value::Null, false)
        .err()
        .unwrap();
    assert_eq!((escape.cause, escape.line), (Cause::Syntax, Some(1)));
}

#[test]
fn a_throw_is_told_with_its_place() {
    for keep_state in [false, true] {
        let source = "function rawDataToJsonStr(b) { return b.x.y; }\n";
        let mut sandbox = loaded(source, Dialect::default(), Value::Null, keep_state).unwrap();
        let failure = failure_of(&mut sandbox);
        assert_eq!(failure.cause, Cause::Threw);
        assert_eq!(
            (failure.line, failure.column),
            (Some(1), Some(39)),
            "{failure:?}"
        );
        assert!(
            failure.message.starts_with("TypeError: "),
            "{}",
            failure.message
        );
    }
    let mut sandbox = body("throw { code: 7 };");
    assert_eq!(failure_of(&mut sandbox).message, "{\"code\":7} was thrown");
    let mut sandbox = body("throw 'out of sync';");
    assert_eq!(
        failure_of(&mut sandbox).message,
        "\"out of sync\" was thrown"
    );
}

#[test]
fn results_that_are_none_are_refused_by_name() {
    for (result, expected) in [
        ("return;", "returned nothing, not a text"),
        ("return {};", "returned an object, not a text"),
        ("return 7;", "returned a number"),
        ("return '';", "an empty text"),
        ("return 'nonsense';", "not JSON"),
        (
            "return Promise.resolve('{}');",
            "promise; scripts are synchronous",
        ),
        (
            "return (async function () { return '{}'; })();",
            "promise; scripts are synchronous",
        ),
        ("return new String('{}');", "returned an object"),
        (
            "return '[' + new Array(20001).join('1,') + '1]';",
            "more than 10000 values",
        ),
        (
            "return new Array(100).join('[') + new Array(100).join(']');",
            "deeper than 32",
        ),
        ("return '\"' + 'x'.repeat(600000) + '\"';", "at most 524288"),
        (
            "return JSON.stringify({ get x() { throw new Error('no'); } });",
            "Error: no",
        ),
    ] {
        let mut sandbox = body(result);
        let failure = failure_of(&mut sandbox);
        assert!(failure.message.contains(expected), "{result}: {failure:?}");
        // And the next call is as good as ever.
        assert_eq!(failure_of(&mut sandbox).message, failure.message);
    }
}

#[test]
fn limits_end_a_call_and_the_next_one_is_fine() {
    for (hostile, cause) in [
        ("while (true) {}", Cause::Time),
        (
            "try { while (true) {} } catch (e) {} while (true) {}",
            Cause::Time,
        ),
        (
            "for (;;) { try { for (;;) {} } finally { continue; } }",
            Cause::Time,
        ),
        ("return /^(a+)+$/.test('a'.repeat(40) + 'b');", Cause::Time),
        ("(function f() { f(); })();", Cause::Memory),
        (
            "var a = []; for (;;) a.push(new Array(1000).fill(1));",
            Cause::Memory,
        ),
        ("var s = 'x'; for (;;) s += s;", Cause::Memory),
        (
            "var o = { get x() { return this.x; } }; return o.x;",
            Cause::Memory,
        ),
        (
            "return JSON.stringify({ toJSON: function () { for (;;) {} } });",
            Cause::Time,
        ),
        (
            "throw { toString: function () { for (;;) {} } , toJSON: function () { for (;;) {} } };",
            Cause::Time,
        ),
    ] {
        let mut sandbox = body(&format!(
            "if (bytes[0] === 120) {{ {hostile} }} return show(bytes.length);"
        ));
        let failure = failure_of(&mut sandbox);
        assert_eq!(failure.cause, cause, "{hostile}: {failure:?}");
        assert_eq!(value_of(&mut sandbox, b"good"), json!(4), "{hostile}");
        assert!(sandbox.is_untouched());
    }
}

#[test]
fn console_output_is_caught_and_bounded() {
    let mut sandbox = body(
        "console.log('a', 1, { b: [2] }, null); console.error(undefined); \
         if (bytes.length) for (var i = 0; i < 1000; i++) console.log('0123456789'); return '{}';",
    );
    let quiet = sandbox.call(&decode(b""), true);
    assert_eq!(&*quiet.console, "a 1 {\"b\":[2]} null\nundefined\n");
    assert!(quiet.heap_bytes > 10_000);
    assert!((4_090..=4_096).contains(&sandbox.call(&decode(b"x"), true).console.len()));
    assert_eq!(&*sandbox.call(&decode(b""), false).console, "");
}

#[test]
fn foreign_dialects_become_envelopes_by_their_mapping() {
    let envelope = |device: &str, time: i64, points: Value| {
        json!({ "id": "", "version": "1.0", "method": "integration.measurepoint.post",
            "params": [{ "deviceKey": device, "time": time, "measurepoints": points }] })
    };
    let at = 1_718_000_000_000_i64;
    for (source, dialect, mapping, input, expected) in [
        (
            "function decodeUplink(input) { return { data: { port: input.fPort, n: input.bytes.length, skip: null }, warnings: [] }; }",
            Dialect::DecodeUplink,
            json!({ "device": "probe", "fPort": 7 }),
            &b"abc"[..],
            envelope("probe", at, json!({ "port": 7, "n": 3 })),
        ),
        (
            "exports.decodeUplink = (input) => ({ data: { first: input.bytes[0], port: input.fPort } });",
            Dialect::DecodeUplink,
            json!({ "device": { "bytes": [0, 2] }, "fPort": { "byte": 2 }, "payload": { "from": 3 },
                "time": { "bytes": [3, 7], "unit": "s" } }),
            &[0xab, 0x01, 9, 0x53, 0, 0, 0][..],
            envelope(
                "ab01",
                0x5300_0000 * 1_000,
                json!({ "first": 0x53, "port": 9 }),
            ),
        ),
        (
            "function Decoder(bytes, port) { return { serial: 'S' + bytes[0], t: { c: 21.5 }, when: '2020-01-01T00:00:00Z' }; }",
            Dialect::Decoder,
            json!({ "device": { "result": "serial" }, "time": { "result": "when" }, "points": { "temperature": "t.c", "absent": "t.x" } }),
            &[4][..],
            envelope("S4", 1_577_836_800_000, json!({ "temperature": 21.5 })),
        ),
        (
            "'use strict'; const Decode = (fPort, bytes) => { class P { constructor() { this.port = fPort; } } return { ...new P(), sum: bytes.reduce((a, b) => a + b, 0) }; };",
            Dialect::Decode,
            json!({ "device": { "bytes": [0, 4], "as": "text" } }),
            b"dev1",
            envelope(
                "dev1",
                at,
                json!({ "port": 1, "sum": 100 + 101 + 118 + 49 }),
            ),
        ),
        (
            "function rawDataToProtocol(bytes) { return { id: '1', version: '1.0', method: 'integration.event.post', params: [] }; }",
            Dialect::RawDataToProtocol,
            Value::Null,
            b"x",
            json!({ "id": "1", "version": "1.0", "method": "integration.event.post", "params": [] }),
        ),
    ] {
        let mut sandbox = loaded(source, dialect, mapping, false).unwrap();
        assert_eq!(
            json_of(&sandbox.call(&decode(input), false)),
            expected,
            "{source}"
        );
        assert!(sandbox.is_untouched());
    }
}

#[test]
fn a_foreign_decoder_says_that_it_cannot() {
    let refused = |source: &str, mapping: Value| {
        let mut sandbox = loaded(source, Dialect::DecodeUplink, mapping, false).unwrap();
        failure_of(&mut sandbox).message
    };
    let constant = json!({ "device": "a" });
    for (source, mapping, expected) in [
        (
            "function decodeUplink() { return { errors: ['unknown port', 'x'] }; }",
            constant.clone(),
            "cannot decode it: unknown port; x",
        ),
        (
            "function decodeUplink() { return {}; }",
            constant.clone(),
            "no values",
        ),
        (
            "async function decodeUplink() { return { data: {} }; }",
            constant,
            "a promise",
        ),
        (
            "function decodeUplink() { return { data: {} }; }",
            json!({ "device": { "result": "data.id" } }),
            "no device at data.id",
        ),
        (
            "function decodeUplink() { return { data: {} }; }",
            json!({ "device": { "bytes": [0, 8] } }),
            "the device up to byte 8",
        ),
    ] {
        let message = refused(source, mapping);
        assert!(message.contains(expected), "{source}: {message}");
    }
}

#[test]
fn encoders_give_bytes_of_any_kind() {
    for (result, expected) in [
        ("[1, 255, -1]", "01ffff"),
        ("new Uint8Array([1, 2])", "0102"),
        ("Buffer.from('ff', 'hex')", "ff"),
        ("new Int8Array([-1])", "ff"),
        ("[1.0]", "01"),
    ] {
        let mut sandbox = sandbox(&format!(
            "function jsonStrToRawData(text) {{ return {result}; }}"
        ));
        let done = sandbox.call(&encode("{}"), false);
        assert_eq!(hex::encode(done.outcome.unwrap()), expected, "{result}");
    }
    for (result, expected) in [
        ("[]", "no bytes"),
        ("[256]", "item 0 of the result is a number, not a byte"),
        ("['1']", "item 0 of the result is a text"),
        ("'text'", "returned a text, not an array of bytes"),
        (
            "(function () { var a = []; a.length = 4294967295; return a; })()",
            "4294967295 bytes, at most",
        ),
        ("undefined", "returned nothing"),
    ] {
        let mut sandbox = sandbox(&format!(
            "function jsonStrToRawData(text) {{ return {result}; }}"
        ));
        let failure = sandbox.call(&encode("{}"), false).outcome.unwrap_err();
        assert!(failure.message.contains(expected), "{result}: {failure:?}");
    }
}

#[test]
fn a_script_without_the_function_is_refused_when_it_is_loaded() {
    let missing = loaded(
        "var a = 1;",
        Dialect::Decoder,
        json!({ "device": "a" }),
        false,
    )
    .err()
    .unwrap();
    assert_eq!(
        (missing.cause, missing.message.as_str()),
        (Cause::Missing, "the script defines no function Decoder")
    );
    let throws = loaded("\nnope();", Dialect::default(), Value::Null, false)
        .err()
        .unwrap();
    assert_eq!(
        (throws.cause, throws.line),
        (Cause::Threw, Some(2)),
        "{throws:?}"
    );
}
