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
