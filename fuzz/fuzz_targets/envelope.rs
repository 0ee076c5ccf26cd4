//! Any payload is opened and checked, or refused: no panic, no time beyond its size.
#![no_main]

use backtide_model::{
    ConflictPolicy, DeviceKey, Kind, Mode, Model, Rules, TimeRule, check_points, open,
};
use libfuzzer_sys::fuzz_target;

const MODEL: &str = r#"{"measurepoints":{
    "d":{"type":"double","quality":true},"i":{"type":"int"},"b":{"type":"bool"},
    "e":{"type":"enum","values":{"0":"off","1":"on"}},"s":{"type":"string","maxLength":8},
    "t":{"type":"timestamp"},"a":{"type":"array","items":"double"},"m":{"type":"map"},
    "x":{"type":"struct","members":{"y":{"type":"int","required":true}}}},"passthrough":true}"#;

fuzz_target!(|payload: &[u8]| {
    let Ok(envelope) = open(payload, Kind::Points, Mode::Lenient) else { return };
    let model: Model = serde_json::from_str(MODEL).expect("the model is valid");
    let device = DeviceKey::new("dev").expect("the key is valid");
    let rules = Rules {
        model: &model,
        mode: Mode::Lenient,
        time: TimeRule::Arrival { now_ms: 0 },
        conflict: ConflictPolicy::KeepLast,
    };
    let checked = check_points(envelope.params, &rules, |key| (key == "dev").then_some(&device));
    assert!(checked.items_good <= checked.items);
    assert!(checked.batch.rows() <= checked.items_good as usize);
});
