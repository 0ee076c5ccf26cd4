//! What once was passed over in silence.

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
