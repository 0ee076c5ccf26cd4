//! Power loss and kill at random moments: what was answered is there afterwards, in order, once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use backtide_store::{Sequence, Store};
use parking_lot::Mutex;

use crate::{
    fault_disk::FaultDisk,
    world::{TestDir, commit, small, verify},
};

const LIVES: usize = 4;
const WRITERS: usize = 3;
const SUBMISSIONS: usize = 25;

#[expect(
    clippy::disallowed_methods,
    reason = "the soak runs the same test with more seeds"
)]
pub(crate) fn seeds() -> u64 {
    std::env::var("BACKTIDE_SEEDS").map_or(50, |seeds| seeds.parse().unwrap())
}

#[test]
fn what_was_answered_survives_power_loss_in_order_and_once() {
    for seed in 0..seeds() {
        if let Err(error) = live_and_die(&FaultDisk::new(seed), seed) {
            panic!("seed {seed}: {error}");
        }
    }
}

#[test]
fn without_fsync_this_test_finds_a_loss() {
    assert!((0..seeds()).any(|seed| {
        let disk = FaultDisk::new(seed);
        disk.lie_about_sync("journal");
        live_and_die(&disk, seed).is_err()
    }));
}

#[test]
fn without_directory_fsync_this_test_finds_a_loss() {
    assert!((0..seeds()).any(|seed| {
        let disk = FaultDisk::new(seed);
        disk.lie_about_sync_dir("journal");
        live_and_die(&disk, seed).is_err()
    }));
}

/// Some lives of one store, each ended by a kill or a power loss.
fn live_and_die(disk: &FaultDisk, seed: u64) -> Result<(), String> {
    let dir = TestDir::new();
    let next_id = Arc::new(AtomicU64::new(1));
    let mut acknowledged = Vec::new();
    for life in 0..LIVES {
        disk.cut_power_after(disk.random(250));
        // A start may be what the power cuts short: then this life is over.
        if let Ok((store, _)) = Store::open(&dir.store(), Arc::new(disk.clone()), small()) {
            acknowledged.extend(commit_until_it_fails(&store, &next_id));
            drop(store);
        }
        if disk.random(4) == 0 {
            disk.kill();
        } else {
            disk.lose_power();
        }
        let (store, _) = Store::open(&dir.store(), Arc::new(disk.clone()), small())
            .map_err(|error| format!("life {life}: {error}"))?;
        verify(&store, &acknowledged).map_err(|error| format!("life {life}: {error}"))?;
        if seed.is_multiple_of(2) {
            drop(store);
        } else {
            // What a start has found must stay found, without another word from the store.
            drop(store);
            disk.lose_power();
        }
    }
    Ok(())
}

fn commit_until_it_fails(store: &Store, next_id: &Arc<AtomicU64>) -> Vec<(Sequence, u64)> {
    let acknowledged = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                for turn in 0..SUBMISSIONS {
                    let ids: Vec<u64> = (0..=turn % 3)
                        .map(|_| next_id.fetch_add(1, Ordering::Relaxed))
                        .collect();
                    let commits = ids.iter().map(|id| commit(*id)).collect();
                    let Ok(results) = store.commit(commits) else {
                        return;
                    };
                    for (result, id) in results.into_iter().zip(ids) {
                        let Ok(committed) = result else { return };
                        acknowledged.lock().push((committed.sequence(), id));
                    }
                }
            });
        }
    });
    acknowledged.into_inner()
}
