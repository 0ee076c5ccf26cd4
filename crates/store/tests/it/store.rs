//! What a user of the store relies on.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use backtide_model::{BatchBuilder, Cell, ConflictPolicy, DeviceKey, NO_QUALITY, Storage};
use backtide_store::{
    Commit, CommitError, FollowError, OpenError, Options, Part, Sequence, Store, disk::RealDisk,
};
use proptest::prelude::*;

use crate::world::{
    TestDir, commit, commit_one, follow_all, open, origin, point, product, small, values, verify,
};

#[test]
fn a_read_sees_what_was_answered() {
    let dir = TestDir::new();
    let store = open(&dir.store(), RealDisk, small());
    thread::scope(|scope| {
        for writer in 0..16_u64 {
            let store = &store;
            scope.spawn(move || {
                for turn in 0..12_u64 {
                    // A place of its own: 7 and 50 have no common factor.
                    let id = (turn * 16 + writer) % 350;
                    commit_one(store, id);
                    let place = (format!("d{}", id % 7), i64::try_from(id % 50).unwrap());
                    assert_eq!(values(store).get(&place), Some(&(id as f64)));
                }
            });
        }
    });
    assert_eq!(store.durable(), Sequence(192));
    verify(&store, &[]).unwrap();
}

#[test]
fn a_point_never_changes_its_storage_and_only_the_commit_that_tries_is_refused() {
    let dir = TestDir::new();
    let with = |cell| {
        let mut batch = BatchBuilder::new();
        batch.row(&DeviceKey::new("d").unwrap(), 1);
        batch.cell(
            &point("fresh"),
            ConflictPolicy::KeepLast,
            Cell::Int(1),
            NO_QUALITY,
        );
        batch.cell(&point("state"), ConflictPolicy::KeepLast, cell, NO_QUALITY);
        let parts = vec![Part::Points(batch.build())];
        Commit {
            origin: origin(0),
            product: product(),
            parts,
            redrive: None,
        }
    };
    let refused = Err(CommitError::StorageChanged {
        product: product(),
        point: "state".into(),
        stored: Storage::Int,
        given: Storage::Text,
    });
    let store = open(&dir.store(), RealDisk, small());
    let results = store
        .commit(vec![
            with(Cell::Int(1)),
            with(Cell::Text("a".into())),
            commit(1),
        ])
        .unwrap();
    assert_eq!(results[0].as_ref().unwrap().sequence(), Sequence(1));
    assert_eq!(results[1], refused);
    assert_eq!(results[2].as_ref().unwrap().sequence(), Sequence(2));

    // Known after a restart, from the journal and from segments alike.
    drop(store);
    let store = open(&dir.store(), RealDisk, small());
    assert_eq!(
        store.commit(vec![with(Cell::Text("a".into()))]).unwrap()[0],
        refused
    );
    store.flush_now().unwrap();
    drop(store);
    let store = open(&dir.store(), RealDisk, small());
    assert_eq!(
        store.commit(vec![with(Cell::Text("a".into()))]).unwrap()[0],
        refused
    );
}

#[test]
fn a_malformed_batch_is_refused_before_it_could_stop_a_start() {
    let dir = TestDir::new();
    let store = open(&dir.store(), RealDisk, small());
    let mut bad = commit(1);
    let Part::Points(batch) = &mut bad.parts[0] else {
        unreachable!()
    };
    batch.row_device[0] = 3;
    let results = store.commit(vec![bad, commit(2)]).unwrap();
    assert!(matches!(results[0], Err(CommitError::Malformed { .. })));
    assert_eq!(results[1].as_ref().unwrap().sequence(), Sequence(1));
}

#[test]
fn a_store_is_open_once_at_a_time() {
    let dir = TestDir::new();
    let again = || Store::open(&dir.store(), Arc::new(RealDisk), small());
    let store = open(&dir.store(), RealDisk, small());
    assert!(matches!(again(), Err(OpenError::Locked { .. })));
    store.close();
    assert!(again().is_ok());
}

#[test]
fn what_is_queued_at_close_is_committed_and_later_submissions_are_refused() {
    let dir = TestDir::new();
    let store = open(&dir.store(), RealDisk, small());
    let done = Arc::new(AtomicU64::new(0));
    for id in 1..=100 {
        let done = Arc::clone(&done);
        let count = move |results: Vec<Result<_, _>>| {
            assert!(results[0].is_ok());
            done.fetch_add(1, Ordering::Relaxed);
        };
        store.submit(vec![commit(id)], Box::new(count)).unwrap();
    }
    store.close();
    assert_eq!(done.load(Ordering::Relaxed), 100);
    assert_eq!(store.commit(vec![commit(101)]), Err(CommitError::Closing));
}

#[test]
fn the_queue_is_bounded_and_says_when_it_is_full() {
    let dir = TestDir::new();
    let options = Options {
        queue_submissions_max: 3,
        ..small()
    };
    let store = open(&dir.store(), RealDisk, options);
    // The committer is held inside the answer to the first submission.
    let (entered, leave) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let gates = (Arc::clone(&entered), Arc::clone(&leave));
    let hold = move |_| {
        gates.0.wait();
        gates.1.wait();
    };
    store.submit(vec![commit(1)], Box::new(hold)).unwrap();
    entered.wait();
    for id in 2..=4 {
        store.submit(vec![commit(id)], Box::new(drop)).unwrap();
    }
    assert_eq!(
        store.submit(vec![commit(5)], Box::new(drop)),
        Err(CommitError::QueueFull)
    );
    leave.wait();
    store.close();
    assert_eq!(store.durable(), Sequence(4));
}

#[test]
fn a_follower_hears_of_news_and_reads_on_from_where_it_was() {
    let dir = TestDir::new();
    let store = open(&dir.store(), RealDisk, small());
    let heard = Arc::new(AtomicU64::new(0));
    let watch = {
        let heard = Arc::clone(&heard);
        store.watch(Box::new(move |at| heard.store(at.0, Ordering::Release)))
    };
    for id in 1..=300 {
        commit_one(&store, id);
    }
    while heard.load(Ordering::Acquire) < 300 {
        thread::yield_now();
    }
    drop(watch);
    commit_one(&store, 301);
    let tail = follow_all(&store, Sequence(290)).unwrap();
    let sequences: Vec<u64> = tail.iter().map(|followed| followed.sequence.0).collect();
    assert_eq!(sequences, (291..=301).collect::<Vec<_>>());
    assert_eq!(heard.load(Ordering::Acquire), 300);
    assert!(store.follow(Sequence(301), 1000).unwrap().is_empty());
}

#[test]
fn the_log_is_trimmed_only_behind_every_cursor_and_what_is_flushed() {
    let dir = TestDir::new();
    let options = Options {
        log_bytes_max: 0,
        ..small()
    };
    let store = open(&dir.store(), RealDisk, options.clone());
    store.set_cursor("kafka", Sequence(40)).unwrap();
    for id in 1..=300 {
        commit_one(&store, id);
    }
    store.flush_now().unwrap();
    // Everything is flushed, but a follower has only come to 40.
    assert_eq!(follow_all(&store, Sequence(40)).unwrap().len(), 260);

    store.set_cursor("kafka", Sequence(300)).unwrap();
    commit_one(&store, 301);
    store.flush_now().unwrap();
    while store.stats().log_files > 1 {
        thread::yield_now();
    }
    let oldest = store.stats().oldest.unwrap();
    assert!(oldest > Sequence(41));
    assert!(matches!(
        store.follow(Sequence(40), 1000),
        Err(FollowError::Trimmed { oldest: found }) if found == oldest
    ));
    assert!(
        !follow_all(&store, Sequence(oldest.0 - 1))
            .unwrap()
            .is_empty()
    );

    // And so after a restart.
    drop(store);
    let store = open(&dir.store(), RealDisk, options);
    assert_eq!(store.durable(), Sequence(301));
    assert_eq!(store.stats().oldest, Some(oldest));
    assert_eq!(commit_one(&store, 302).sequence(), Sequence(302));
}

#[test]
fn the_log_is_kept_for_its_retention() {
    let dir = TestDir::new();
    // The newest of these commits arrived at 300 ms.
    let at = |clock| Options {
        clock,
        log_retention_ms: 1000,
        ..small()
    };
    let store = open(&dir.store(), RealDisk, at(|| 1200));
    for id in 1..=300 {
        commit_one(&store, id);
    }
    store.flush_now().unwrap();
    drop(store);
    let files = dir.journal().len();
    assert!(files > 3);
    let store = open(&dir.store(), RealDisk, at(|| 1301));
    while store.stats().log_files > 1 {
        thread::yield_now();
    }
    assert_eq!(dir.journal().len(), 1);
}

#[test]
fn recovery_flushes_as_it_goes() {
    let dir = TestDir::new();
    let large = Options {
        memtable_bytes_max: 64 << 20,
        ..small()
    };
    let store = open(&dir.store(), RealDisk, large);
    for id in 1..=300 {
        commit_one(&store, id);
    }
    assert_eq!(store.stats().flushed, Sequence(0));
    drop(store);
    let (store, recovery) = Store::open(&dir.store(), Arc::new(RealDisk), small()).unwrap();
    assert_eq!(recovery.commits, 300);
    assert_eq!(recovery.torn_bytes, 0);
    assert!(store.stats().flushed > Sequence(0));
    assert!(store.stats().memtable.bytes < 2 * small().memtable_bytes_max);
    verify(&store, &[]).unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<u64>),
    Flush,
    Reopen,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_store_equals_a_map(steps in prop::collection::vec(
        prop_oneof![
            6 => prop::collection::vec(0..400_u64, 1..8).prop_map(Step::Commit),
            1 => Just(Step::Flush),
            1 => Just(Step::Reopen),
        ],
        1..40,
    )) {
        let dir = TestDir::new();
        let mut store = open(&dir.store(), RealDisk, small());
        let mut map = std::collections::BTreeMap::new();
        for step in steps {
            match step {
                Step::Commit(ids) => {
                    let commits = ids.iter().map(|id| commit(*id)).collect();
                    for result in store.commit(commits).unwrap() {
                        result.unwrap();
                    }
                    for id in ids {
                        let place = (format!("d{}", id % 7), i64::try_from(id % 50).unwrap());
                        map.insert(place, id as f64);
                    }
                }
                Step::Flush => store.flush_now().unwrap(),
                Step::Reopen => {
                    drop(store);
                    store = open(&dir.store(), RealDisk, small());
                }
            }
            prop_assert_eq!(&values(&store), &map);
        }
    }
}
