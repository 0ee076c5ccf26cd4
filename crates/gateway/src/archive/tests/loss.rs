//! What once was passed over in silence.

use backtide_store::Sequence;

use super::*;

const PART_16000: &str = "product=LHBfarm1/date=2013-10-22/part-0001.csv";
const PART_16001: &str = "product=LHBfarm1/date=2013-10-23/part-0001.csv";
const DAY_16002: &str = "product=LHBfarm1/date=2013-10-24/part-0000.csv";
const DAY_16003: &str = "product=LHBfarm1/date=2013-10-25/part-0000.csv";

impl World {
    /// Another store takes the place of this one; `refill` commits what the backup had.
    fn put_back(&mut self, name: &str, refill: impl Fn(&Self)) {
        let options = Options::default();
        let store = Store::open(&self.dir.path().join(name), Arc::new(RealDisk), options);
        self.store = store.unwrap().0;
        refill(self);
        self.reopen();
    }

    fn reopen(&mut self) {
        self.archives = opened(&self.dir, &self.registry, &self.store, &self.closing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_a_backup_was_put_back_is_written_and_no_file_of_before_is_lost() {
    let mut world = World::new(CSV);
    world.put(&[at(16_000, 0)], 1.0);
    world.put(&[at(16_001, 0)], 1.0);
    world.put(&[at(16_002, 0)], 1.0);
    assert_eq!(world.run().rows, 3);
    world.put_back("restored", |world| world.put(&[at(16_000, 0)], 1.0));
    // These commits have the numbers of the ones that were lost.
    world.put(&[at(16_001, 500)], 2.0);
    world.put(&[at(16_003, 0)], 2.0);
    let run = world.run();
    assert_eq!((run.state.as_str(), run.files), ("complete", 3));
    assert_eq!(
        world.files(),
        [
            DAY_16000, PART_16000, DAY_16001, PART_16001, DAY_16002, DAY_16003
        ]
    );
    assert!(world.file(DAY_16001).contains(",1.0,"));
    assert!(world.file(PART_16001).contains("00:00:00.500Z,2.0,"));
    assert!(world.file(DAY_16003).contains(",2.0,"));
    world.reopen();
    assert_eq!(world.run().files, 0, "it is told of once");
    world.put(&[at(16_002, 500)], 3.0);
    assert_eq!(world.run().rows, 1);
    assert!(
        world.file(DAY_16002).contains(",1.0,"),
        "the lost row stays"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_begins_anew_has_every_day_written_that_comes() {
    let mut world = World::new(CSV);
    world.put(&[at(16_000, 0), at(16_001, 0)], 1.0);
    world.put(&[at(16_001, 1)], 1.0);
    world.run();
    world.put_back("empty", |_| {});
    world.put(&[at(16_000, 500)], 2.0);
    world.put(&[at(16_002, 0)], 2.0);
    assert_eq!(world.run().files, 2);
    assert_eq!(world.files(), [DAY_16000, PART_16000, DAY_16001, DAY_16002]);
}

/// A day of which the first half is taken, written up to commit 2; then a value comes that commit 2
/// had refused.
fn redriven() -> (World, i64) {
    let world = World::new(CSV);
    let today = NOW_MS.div_euclid(DAY_MS);
    world.put(&[at(today - 10, 1_000)], 1.0);
    world.put(&[at(today - 1, 0)], 1.0);
    assert_eq!(world.run().rows, 2);
    world.keep_ten_days();
    let late = at(today - 10, DAY_MS - 1_000);
    let redrive = Redrive {
        order: Sequence(2),
        part: 0,
        tried_ms: NOW_MS,
    };
    world.commit_as(World::points(&[late], 2.0), Some(redrive));
    (world, late)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_driven_again_after_its_day_was_written_goes_into_the_next_part() {
    let (world, late) = redriven();
    assert_eq!(world.run().rows, 1);
    let files = world.files();
    assert!(files[1].ends_with("part-0001.csv"), "{files:?}");
    assert!(world.file(&files[1]).contains(",2.0,"));
    assert_eq!(world.run().files, 0);
    world.put(&[late + 1], 3.0);
    assert_eq!(world.run().rows, 1, "it is written once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_before_writes_more_of_its_days_that_are_due_rather_than_less() {
    let (mut world, _) = redriven();
    world.archives.catch_up().unwrap();
    let file = rusqlite::Connection::open(world.dir.path().join("archives.db")).unwrap();
    for table in ["redriven", "redriven_events", "redriven_attributes"] {
        file.execute(&format!("DROP TABLE {table}"), []).unwrap();
    }
    drop(file);
    world.reopen();
    assert_eq!(world.run().rows, 1);
    assert!(world.file(&world.files()[1]).contains(",2.0,"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_does_not_count_where_what_it_noted_was_forgotten_meanwhile() {
    let world = World::new(CSV);
    let mut shelf = world.archives.shelf.lock();
    let is_noted = |shelf: &Shelf, before| {
        let noted = shelf.set_swept(ArchiveOf::Points, "LHBfarm1", before);
        assert_eq!(
            shelf.is_swept(ArchiveOf::Points, "LHBfarm1").unwrap(),
            *noted.as_ref().unwrap()
        );
        noted.unwrap()
    };
    let before = shelf.forgotten(ArchiveOf::Points);
    shelf
        .followed(&[(ArchiveOf::Events, Vec::new())], 1)
        .unwrap();
    assert!(!is_noted(&shelf, before));
    let before = shelf.forgotten(ArchiveOf::Points);
    shelf
        .followed(&[(ArchiveOf::Points, Vec::new())], 2)
        .unwrap();
    assert!(is_noted(&shelf, before));
}
