//! What a rule could not write down at first is neither lost nor done twice.

use rusqlite::Connection;

use super::*;

const ONCE: &str =
    "{ kind: Rule, name: once, to: { kafka: { topic: once, guarantee: exactly-once } } }";

/// A second connection to the file of a rule, which says what cannot be written there.
struct Fault(Connection);

impl Fault {
    /// From here on the rule's file takes none of `writes`, as `INSERT` or `DELETE`, of letters.
    fn of_letters(world: &World, rule: &str, write: &str) -> Self {
        let connection = Connection::open(world.file(rule)).unwrap();
        let trigger = format!(
            "CREATE TRIGGER fault BEFORE {write} ON letter
             BEGIN SELECT RAISE(ABORT, 'as the test says'); END"
        );
        connection.execute_batch(&trigger).unwrap();
        Self(connection)
    }

    fn mend(self) {
        self.0.execute_batch("DROP TRIGGER fault").unwrap();
    }
}

impl World {
    fn file(&self, rule: &str) -> PathBuf {
        let uid = &self.rule(rule).uid;
        self.dir.path().join("rules").join(format!("{uid}.db"))
    }

    /// A rule has tried to write, in vain.
    async fn fails_to_write(&self, rule: &str) {
        self.until("failing", || {
            let error = self.standing(rule).error;
            error.is_some_and(|error| error.reason.contains("rule file: as the test says"))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stretch_whose_poison_cannot_be_put_aside_stays_whole() {
    let world = World::new();
    *world.topic("once").cursor.lock() = Some(None);
    *world.topic("once").poison.lock() = Some("13.0".into());
    world.apply(ONCE).await;
    let fault = Fault::of_letters(&world, "once", "INSERT");
    for number in 10..20 {
        world.value("a", number, number as f64);
    }
    world.fails_to_write("once").await;
    fault.mend();
    world.caught_up("once").await;
    let expected: Vec<f64> = (10..20).filter(|n| *n != 13).map(f64::from).collect();
    assert_eq!(powers(&world.topic("once")), expected);
    assert_eq!(world.letters("once").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_that_cannot_be_written_are_written_later_and_nothing_goes_out_twice() {
    let world = World::new();
    *world.topic("all").poison.lock() = Some("13.0".into());
    world.apply(&all("all")).await;
    let fault = Fault::of_letters(&world, "all", "INSERT");
    for number in 10..20 {
        world.value("a", number, number as f64);
    }
    world.fails_to_write("all").await;
    fault.mend();
    world.caught_up("all").await;
    let expected: Vec<f64> = (10..20).filter(|n| *n != 13).map(f64::from).collect();
    assert_eq!(powers(&world.topic("all")), expected);
    let letters = world.letters("all");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "too odd");
    assert_eq!(world.standing("all").published, 9);
    world
        .until("well", || world.standing("all").error.is_none())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_that_cannot_be_written_down_delivers_once() {
    let world = World::new();
    *world.topic("all").poison.lock() = Some("13.0".into());
    world.apply(&all("all")).await;
    for number in 10..16 {
        world.value("a", number, number as f64);
    }
    world.caught_up("all").await;
    *world.topic("all").poison.lock() = None;
    let fault = Fault::of_letters(&world, "all", "DELETE");
    let rule = world.rule("all");
    world.rules.redrive(&rule, &Letters::All).unwrap();
    world.fails_to_write("all").await;
    fault.mend();
    world
        .until("delivered", || world.letters("all").is_empty())
        .await;
    let published = powers(&world.topic("all"));
    assert_eq!(published, [10.0, 11.0, 12.0, 14.0, 15.0, 13.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_delivered_commits_could_not_become_is_told_of_however_often_a_write_fails() {
    let mut world = World::new();
    *world.topic("once").cursor.lock() = Some(None);
    world
        .apply(
            "{ kind: Rule, name: once, make: [{ set: { ratio: '1 / (P_avg - 13)' } }],
               to: { kafka: { topic: once, guarantee: exactly-once } } }",
        )
        .await;
    for number in 10..20 {
        world.value("a", number, number as f64);
    }
    world.caught_up("once").await;
    assert_eq!(world.letters("once").len(), 1);
    // As if a crash had come behind the delivery and before place and letters were written.
    let (path, rule) = (world.file("once"), world.rule("once"));
    world = world.restart().await;
    world.rules.close().await;
    world.rules.discard(&rule, &Letters::All).unwrap();
    Drawer::open(&path)
        .unwrap()
        .write(Place::default(), None, &[], 0)
        .unwrap();
    let fault = Fault::of_letters(&world, "once", "INSERT");
    world = world.restart().await;
    world.fails_to_write("once").await;
    fault.mend();
    world.caught_up("once").await;
    assert_eq!(world.letters("once").len(), 1);
    assert_eq!(powers(&world.topic("once")).len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_of_which_some_is_refused_goes_on_before_what_is_new() {
    let world = World::new();
    *world.topic("once").cursor.lock() = Some(None);
    *world.topic("once").poison.lock() = Some("13.0".into());
    world.apply(ONCE).await;
    world.value("a", 1, 13.0);
    world.value("a", 2, 113.0);
    world.caught_up("once").await;
    assert_eq!(world.letters("once").len(), 2);
    // Much is new when the redrive begins.
    world.topic("once").is_down.store(true, Ordering::SeqCst);
    for number in 20..60 {
        world.value("a", number, number as f64);
    }
    world
        .until("failing", || world.standing("once").error.is_some())
        .await;
    *world.topic("once").poison.lock() = Some("113.0".into());
    let rule = world.rule("once");
    world.rules.redrive(&rule, &Letters::All).unwrap();
    world.topic("once").is_down.store(false, Ordering::SeqCst);
    world.caught_up("once").await;
    let published = powers(&world.topic("once"));
    let place = published.iter().position(|power| *power == 13.0);
    assert!(place.is_some_and(|place| place <= 3), "{published:?}");
    assert_eq!(published.len(), 41);
    let letters = world.letters("once");
    assert_eq!((letters.len(), letters[0].attempts), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_rule_takes_what_the_old_one_passed_over_and_did_not_deliver() {
    let world = World::new();
    let rule = |kind: &str| {
        format!(
            "{{ kind: Rule, name: r, begin: oldest, from: {{ type: {kind} }},
                to: {{ kafka: {{ topic: r }} }} }}"
        )
    };
    // All of it is there before the rule looks: what it reads first is one page.
    for number in 1..=3 {
        world.commit(Part::Events(vec![Occurrence {
            device: DeviceKey::new("a").unwrap(),
            time_ms: number,
            event: ElementName::new("alarm").unwrap(),
            output: format!("{{\"code\":{number}}}").into(),
        }]));
        world.value("a", number, number as f64);
    }
    world.topic("r").is_down.store(true, Ordering::SeqCst);
    world.apply(&rule("events")).await;
    world
        .until("failing", || world.standing("r").error.is_some())
        .await;
    world.apply(&rule("points")).await;
    world.topic("r").is_down.store(false, Ordering::SeqCst);
    world.caught_up("r").await;
    assert_eq!(powers(&world.topic("r")), [1.0, 2.0, 3.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_calculated_row_of_a_large_commit_is_stored_or_a_letter() {
    let world = World::new();
    world
        .apply(
            "{ kind: Rule, name: mw, make: [{ set: { power_mw: 'P_avg / 1000' } }],
               to: { calculated: { points: [power_mw] } } }",
        )
        .await;
    world
        .apply(
            "{ kind: Rule, name: cal, from: { calculated: only }, to: { kafka: { topic: cal } } }",
        )
        .await;
    let cells = [("P_avg", Cell::Double(1.0))];
    let mut rows: Vec<TestRow<'_>> = (0..1_500).map(|time| ("gone", time, &cells[..])).collect();
    rows.extend((0..10).map(|time| ("a", time, &cells[..])));
    world.put(&rows);
    world.caught_up("mw").await;
    world
        .until("stored", || values(&world.topic("cal")).len() == 10)
        .await;
    world
        .until("told of", || world.standing("mw").dead_letters == 1_500)
        .await;
    assert_eq!(world.standing("mw").published, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_of_which_a_rule_makes_too_much_stay_and_nothing_else_is_blamed() {
    let world = World::new();
    let rule = |steps: &str| {
        format!("{{ kind: Rule, name: r, make: [{steps}], to: {{ kafka: {{ topic: r }} }} }}")
    };
    world.apply(&rule("{ set: { ratio: 'P_avg / 0' } }")).await;
    let cells = [("P_avg", Cell::Double(1.0))];
    let rows: Vec<TestRow<'_>> = (0..40).map(|time| ("a", time, &cells[..])).collect();
    world.put(&rows);
    world.value("a", 100, 13.0);
    world.value("a", 101, 14.0);
    world.caught_up("r").await;
    assert_eq!(world.letters("r").len(), 42);
    // Of each of the forty rows of one commit it makes two texts of 1 MiB.
    let mut steps = "{ set: { t: \"'0123456789abcdef'\" } }".to_owned();
    for _ in 0..16 {
        steps.push_str(", { set: { t: 't + t' } }");
    }
    world.apply(&rule(&steps)).await;
    *world.topic("r").poison.lock() = Some("13.0".into());
    let rule = world.rule("r");
    assert_eq!(world.rules.redrive(&rule, &Letters::All).unwrap(), 42);
    world
        .until("driven again", || {
            let letters = world.letters("r");
            letters.iter().all(|letter| letter.attempts == 1)
        })
        .await;
    let letters = world.letters("r");
    let (odd, beyond): (Vec<_>, Vec<_>) = letters.iter().partition(|l| l.cause == "refused");
    assert_eq!(odd.len(), 1);
    let message = odd[0].message.as_ref().unwrap();
    assert_eq!(message["payload"][0]["measurepoints"]["P_avg"], 13.0);
    assert!(!beyond.is_empty() && beyond.len() < 40, "{}", beyond.len());
    for letter in &beyond {
        assert!(letter.reason.contains("64 MiB"), "{}", letter.reason);
    }
    // Of each letter either the record went out or it is still there.
    let published = world.topic("r").records.lock().len();
    assert_eq!(published + letters.len(), 42);
}
