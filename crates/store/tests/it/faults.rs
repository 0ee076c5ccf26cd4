//! Writes, syncs and allocations that fail.

use std::{io::ErrorKind, sync::Arc};

use backtide_store::{CommitError, Sequence, State, Store};

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
    let store = open(&dir.store(), disk.clone(), small());
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
