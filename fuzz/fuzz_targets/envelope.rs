//! Any payload is opened and checked, or refused: no panic, no time beyond its size.
#![no_main]

use backtide_model::{
    ConflictPolicy, Content, DeviceKey, Kind, Mode, Model, Rules, TimeRule, check, open,
};
use libfuzzer_sys::fuzz_target;

const MODEL: &str = r#"{"measurepoints":{
    "d":{"type":"double","quality":true},"i":{"type":"int"},"b":{"type":"bool"},
    "e":{"type":"enum","values":{"0":"off","1":"on"}},"s":{"type":"string","maxLength":8},
    "t":{"type":"timestamp"},"a":{"type":"array","items":"double"},"m":{"type":"map"},
    "x":{"type":"struct","members":{"y":{"type":"int","required":true}}}},
  "events":{"leak":{"output":{"d":{"type":"float"},"x":{"type":"struct","members":{"y":{"type":"string"}}}}}},
  "attributes":{"s":{"type":"string","maxLength":8},"a":{"type":"array","items":"string"}},"passthrough":true}"#;

fuzz_target!(|payload: &[u8]| {
    // As a decoded message: its method says what its items are.
    let Ok(envelope) = open(payload, Kind::Raw, Mode::Lenient) else { return };
    let model: Model = serde_json::from_str(MODEL).expect("the model is valid");
    let device = DeviceKey::new("dev").expect("the key is valid");
    let rules = Rules {
        model: &model,
        mode: Mode::Lenient,
        time: TimeRule::Arrival { now_ms: 0 },
        conflict: ConflictPolicy::KeepLast,
        policies: None,
        oldest: None,
    };
    let find = |key: &str| (key == "dev").then_some(&device);
    let checked = check(envelope.items, envelope.params, &rules, find);
    assert!(checked.items_good <= checked.items);
    match &checked.content {
        Content::Points(batch) => assert!(batch.rows() <= checked.items_good as usize),
        Content::Events(occurrences) => occurrences.iter().for_each(|o| is_json(&o.output)),
        Content::Attributes(values) => values.iter().for_each(|v| is_json(&v.value)),
    }
});

/// What is stored is given back as JSON.
fn is_json(text: &str) {
    serde_json::from_str::<&serde_json::value::RawValue>(text).expect("what is stored is JSON");
}
