//! Writes, syncs and allocations that fail.

use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use backtide_store::{CommitError, Options, Sequence, State, Store};

use crate::{
    fault_disk::{FaultDisk, Op},
    world::{TestDir, commit, commit_one, open, small, verify},
};

#[test]
fn a_failed_write_or_sync_of_the_journal_poisons_and_a_restart_has_all_that_was_answered() {
    for op in [Op::Write, Op::Sync] {
        let (dir, disk) = (TestDir::new(), FaultDisk::new(1));
        let store = open(&dir.store(), disk.clone(), small());
        let answered: Vec<_> = (1..=5)
            .map(|id| (commit_one(&store, id).sequence(), id))
            .collect();

        disk.fail(op, 0, ErrorKind::Other);
        let results = store.commit(vec![commit(6), commit(7)]).unwrap();
        assert!(
            results
                .iter()
                .all(|it| matches!(it, Err(CommitError::Poisoned { .. })))
        );
        assert!(matches!(
            store.commit(vec![commit(8)]),
            Err(CommitError::Poisoned { .. })
        ));
        assert!(matches!(store.health(), State::Poisoned { .. }));
        assert_eq!(store.durable(), Sequence(5));

        drop(store);
        disk.lose_power();
        let store = open(&dir.store(), disk, small());
        assert_eq!(store.health(), State::Ok);
        verify(&store, &answered).unwrap();
        commit_one(&store, 9);
    }
}

#[test]
fn the_nth_operation_of_any_kind_may_fail_and_nothing_answered_is_lost() {
    for op in Op::ALL {
        for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
            for nth in 0..12 {
                fail_nth(op, nth, kind).unwrap_or_else(|error| {
                    panic!("{op:?} number {nth} failing with {kind:?}: {error}")
                });
            }
        }
    }
}

fn fail_nth(op: Op, nth: u64, kind: ErrorKind) -> Result<(), String> {
    let (dir, disk) = (TestDir::new(), FaultDisk::new(nth));
    disk.fail(op, nth, kind);
    let mut answered = Vec::new();
    if let Ok((store, _)) = Store::open(&dir.store(), Arc::new(disk.clone()), small()) {
        for id in 1..=120 {
            let Ok(mut results) = store.commit(vec![commit(id)]) else {
                break;
            };
            if let Ok(committed) = results.remove(0) {
                answered.push((committed.sequence(), id));
            }
        }
    }
    let has_failed = disk.has_failed();
    disk.mend();
    disk.lose_power();
    let (store, _) = Store::open(&dir.store(), Arc::new(disk.clone()), small())
        .map_err(|error| error.to_string())?;
    verify(&store, &answered)?;
    if has_failed && kind == ErrorKind::StorageFull && op == Op::Allocate {
        // A refusal for want of space costs that group alone.
        assert!(answered.len() >= 119, "{} answered", answered.len());
    }
    Ok(())
}

#[test]
fn a_disk_without_room_for_another_journal_file_refuses_and_goes_on_when_there_is_room() {
    let (dir, disk) = (TestDir::new(), FaultDisk::new(1));
    // A flush is due, too, before the journal needs another file.
    let options = Options {
        memtable_bytes_max: 2 << 10,
        ..small()
    };
    let store = open(&dir.store(), disk.clone(), options);
    let mut answered = vec![(commit_one(&store, 1).sequence(), 1)];

    disk.set_full(true);
    let mut refused = 0;
    for id in 2..200 {
        match store.commit(vec![commit(id)]).unwrap().remove(0) {
            Ok(committed) => answered.push((committed.sequence(), id)),
            Err(CommitError::DiskFull { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
    assert!(matches!(store.health(), State::DiskFull { .. }));

    disk.set_full(false);
    let mut id = 200;
    // The flush that found no space is tried again after a second.
    while store.commit(vec![commit(id)]).unwrap().remove(0).is_err() {
        id += 1;
        std::thread::yield_now();
    }
    // No sequence was skipped by what was refused.
    answered.push((Sequence(answered.len() as u64 + 1), id));
    verify(&store, &answered).unwrap();
    assert_eq!(store.health(), State::Ok);
}

#[test]
fn commits_are_refused_while_less_than_the_reserve_is_free() {
    let (dir, disk) = (TestDir::new(), FaultDisk::new(1));
    disk.set_free_bytes(1000);
    let store = open(&dir.store(), disk.clone(), small());
    let full = State::DiskFull {
        free_bytes: 1000,
        reserve_bytes: 1 << 20,
    };
    assert_eq!(store.health(), full);
    assert_eq!(
        store.commit(vec![commit(1)]).unwrap(),
        [Err(CommitError::DiskFull {
            free_bytes: 1000,
            reserve_bytes: 1 << 20
        })]
    );
    disk.set_free_bytes(1 << 30);
    assert_eq!(commit_one(&store, 2).sequence(), Sequence(1));
    assert_eq!(store.health(), State::Ok);
}

/// Opened with journal files large enough that only a flush makes files.
fn flush_fails(kind: ErrorKind) -> (TestDir, FaultDisk, Store) {
    let (dir, disk) = (TestDir::new(), FaultDisk::new(1));
    let options = Options {
        journal_file_bytes: 1 << 20,
        ..small()
    };
    let store = open(&dir.store(), disk.clone(), options);
    commit_one(&store, 1);
    disk.fail(Op::Create, 0, kind);
    (dir, disk, store)
}

#[test]
fn a_flush_without_space_refuses_commits_until_one_succeeds() {
    let (_dir, _disk, store) = flush_fails(ErrorKind::StorageFull);
    assert!(matches!(
        store.flush_now(),
        Err(CommitError::DiskFull { .. })
    ));
    assert!(matches!(store.health(), State::DiskFull { .. }));
    let refused = store.commit(vec![commit(2)]).unwrap().remove(0);
    assert!(matches!(refused, Err(CommitError::DiskFull { .. })));
    verify(&store, &[(Sequence(1), 1)]).unwrap();
    // It is tried again by itself.
    while store.stats().flushed < Sequence(1) {
        std::thread::yield_now();
    }
    while store.health() != State::Ok {
        std::thread::yield_now();
    }
    assert_eq!(commit_one(&store, 3).sequence(), Sequence(2));
    verify(&store, &[(Sequence(1), 1), (Sequence(2), 3)]).unwrap();
}

#[test]
fn a_flush_that_fails_otherwise_poisons_and_reads_go_on() {
    let (dir, disk, store) = flush_fails(ErrorKind::Other);
    assert!(matches!(
        store.flush_now(),
        Err(CommitError::Poisoned { .. })
    ));
    assert!(matches!(
        store.commit(vec![commit(2)]),
        Err(CommitError::Poisoned { .. })
    ));
    verify(&store, &[(Sequence(1), 1)]).unwrap();
    drop(store);
    disk.lose_power();
    let store = open(&dir.store(), disk, small());
    verify(&store, &[(Sequence(1), 1)]).unwrap();
}

#[test]
fn commits_wait_while_flushes_are_behind_and_are_all_made_in_the_end() {
    let dir = TestDir::new();
    let options = Options {
        memtable_bytes_max: 2 << 10,
        ..small()
    };
    let store = open(&dir.store(), FaultDisk::new(1), options.clone());
    let told = Arc::new(AtomicU64::new(0));
    let mut fullest = 0;
    for id in 1..=400 {
        let told = Arc::clone(&told);
        let count = move |results: Vec<Result<_, _>>| {
            assert!(results[0].is_ok());
            told.fetch_add(1, Ordering::Relaxed);
        };
        store.submit(vec![commit(id)], Box::new(count)).unwrap();
        fullest = fullest.max(store.stats().memtable.bytes);
    }
    store.flush_now().unwrap();
    store.close();
    assert_eq!(told.load(Ordering::Relaxed), 400);
    // Two frozen tables and the active one, each over its bound by a group at most.
    let bound = 3 * (options.memtable_bytes_max + options.group_bytes_max);
    assert!(fullest <= bound, "{fullest} bytes waited");
    verify(&store, &[]).unwrap();
}
