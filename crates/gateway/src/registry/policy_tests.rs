//! Policies as objects: validated whole, kept for ever, compiled once.

use backtide_model::ElementName;

use super::{
    tests::{FARM, World, message},
    *,
};
use crate::policy::Step;

const KILOWATTS: &str = "kind: Policy\nname: kilowatts\nproducts: [wind-farm]\nprocessing:\n  \
                         - points: [P_avg]\n    scale: { factor: 0.001 }\n";

fn steps(snapshot: &Snapshot, point: &str) -> Vec<String> {
    let point = ElementName::new(point).unwrap();
    let chain = snapshot.chain("scada-history");
    let steps = chain.map_or_else(Vec::new, |chain| chain.steps_of(&point));
    let shown = |step: Step| format!("{} {}: {}", step.policy, step.step, step.does);
    steps.into_iter().map(shown).collect()
}

#[test]
fn a_policy_is_in_force_once_applied_and_after_a_restart() {
    let world = World::with_farm();
    world.apply(KILOWATTS).unwrap();
    let expected = ["kilowatts 1: × 0.001 + 0"];
    assert_eq!(steps(&world.registry.snapshot(), "P_avg"), expected);
    assert!(steps(&world.registry.snapshot(), "Ws_avg").is_empty());
    let effect = world.apply(KILOWATTS).unwrap()[0].effect;
    assert_eq!(effect, Effect::Unchanged);
    let world = world.restart();
    assert_eq!(steps(&world.registry.snapshot(), "P_avg"), expected);
    assert_eq!(world.registry.snapshot().policies().revision(), 1);
}

#[test]
fn policies_act_by_their_order_then_by_their_names() {
    let world = World::with_farm();
    let one = |name: &str, order: i32, factor: u8| {
        format!(
            "---\nkind: Policy\nname: {name}\norder: {order}\nprocessing:\n  - points: [P_avg]\n    \
             scale: {{ factor: {factor} }}\n"
        )
    };
    let all = [one("c", 0, 2), one("b", 0, 3), one("a", 1, 4)].concat();
    world.apply(&all).unwrap();
    assert_eq!(
        steps(&world.registry.snapshot(), "P_avg"),
        ["b 1: × 3 + 0", "c 1: × 2 + 0", "a 1: × 4 + 0"]
    );
}

#[test]
fn what_a_policy_said_before_can_be_told_for_ever() {
    let world = World::with_farm();
    world.apply(KILOWATTS).unwrap();
    world.apply(&KILOWATTS.replace("0.001", "1000")).unwrap();
    world
        .registry
        .delete(Kind::Policy, "kilowatts", None)
        .unwrap();
    let world = world.restart();
    let snapshot = world.registry.snapshot();
    assert!(snapshot.chain("scada-history").is_none());
    let factor_at = |revision| {
        let policies = snapshot.policies().at(revision);
        let steps = policies.first().map(|policy| &policy.file.processing);
        steps.map(|steps| steps[0].scale.unwrap().factor)
    };
    assert_eq!(
        [0, 1, 2, 3].map(factor_at),
        [None, Some(0.001), Some(1000.0), None]
    );
    assert_eq!(snapshot.policies().revision(), 3);
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_with_what_to_do() {
    let world = World::with_farm();
    let refused = |members: &str| {
        let text = format!("kind: Policy\nname: p\n{members}\n");
        message(world.apply(&text))
    };
    let steps = "processing: [{ points: [P_avg], clamp: { min: 0 } }]";
    for (members, says) in [
        ("order: 1", "it says nothing"),
        (
            "processing: [{ points: [], clamp: { min: 0 } }]",
            "points is empty",
        ),
        (
            "processing: [{ points: [nosuch], clamp: { min: 0 } }]",
            "nosuch is in none",
        ),
        ("processing: [{ points: [P_avg] }]", "nothing to do"),
        (
            "processing: [{ points: [P_avg], unit: { from: kWh, to: J } }]",
            "unit \"kWh\"",
        ),
        (
            "processing: [{ points: [P_avg], range: { min: 0, otherwise: flag, quality: 2 } }]",
            "no quality",
        ),
        (
            &format!("models: [none]\n{steps}"),
            "model none is not declared",
        ),
        (
            &format!("products: [none]\n{steps}"),
            "product none is not declared",
        ),
        (
            &format!("channels: [none]\n{steps}"),
            "channel none is not declared",
        ),
        ("procesing: []", "unknown field"),
    ] {
        let why = refused(members);
        assert!(why.contains(says), "{members}: {why}");
        assert!(why.contains("policy p"), "{why}");
    }
    assert_eq!(world.registry.snapshot().policies().revision(), 0);
}

#[test]
fn what_a_policy_needs_is_not_taken_away_from_it() {
    let world = World::with_farm();
    world.apply(KILOWATTS).unwrap();
    world
        .apply(
            "kind: Policy\nname: of-channel\nchannels: [scada-history]\nprocessing:\n  - points: \
             [Ws_avg]\n    clamp: { min: 0 }\n",
        )
        .unwrap();
    let users = |kind, name: &str| match world.registry.delete(kind, name, None) {
        Err(Refused::InUse { users, .. }) => users.iter().map(User::to_string).collect(),
        _ => vec![],
    };
    let of_product: Vec<String> = users(Kind::Product, "wind-farm");
    assert!(of_product.contains(&"policy kilowatts".to_owned()));
    assert_eq!(users(Kind::Channel, "scada-history"), ["policy of-channel"]);
    let without = FARM.replace("  P_avg: { type: double, unit: kW, signal: AI }\n", "");
    let why = message(world.apply(&without));
    assert!(why.contains("policy kilowatts would not fit"), "{why}");
    let as_text = FARM.replace("P_avg: { type: double,", "P_avg: { type: string,");
    let why = message(world.apply(&as_text));
    assert!(why.contains("not a number"), "{why}");
}

#[test]
fn a_preview_shows_what_would_change_and_changes_nothing() {
    let world = World::with_farm();
    let documents = read(KILOWATTS, Form::Yaml).unwrap();
    let (before, after) = world.registry.preview(documents).unwrap();
    assert!(steps(&before, "P_avg").is_empty());
    assert_eq!(steps(&after, "P_avg"), ["kilowatts 1: × 0.001 + 0"]);
    assert!(world.registry.snapshot().policy("kilowatts").is_none());
}
