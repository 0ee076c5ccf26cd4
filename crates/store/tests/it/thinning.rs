//! Thinning over a disk that loses power: whatever was being written again when it went, a read shows what
//! the rules say of everything in the log.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow_array::{Array, Float64Array, Int64Array, StringArray};
use backtide_model::{BatchBuilder, Cell, ConflictPolicy, DeviceKey, NO_QUALITY};
use backtide_store::{
    Commit, Floor, Keep, Order, Part, PointKeep, Range, Sequence, Store, Thin, Thinning,
};

use crate::{
    crash::seeds,
    fault_disk::FaultDisk,
    world::{TestDir, follow_all, id_of, origin, point, product, small},
};

const LIVES: u64 = 3;
const COMMITS: u64 = 120;
/// A commit's values are so much later than those of the one before: some to a minute.
const STEP_MS: i64 = 7_000;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// Kept where it changes, and kept by the minute.
const STATE: &str = "S";
const METER: &str = "M";

#[test]
fn thinned_points_read_as_the_rules_say_whenever_the_power_goes() {
    let mut thinned = 0;
    for seed in 0..seeds() {
        match live_and_die(&FaultDisk::new(seed), seed) {
            Ok(cells) => thinned += cells,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(thinned > 0, "nothing was ever taken off the disk");
}

#[test]
fn without_fsync_of_segments_this_test_finds_a_loss() {
    assert!((0..seeds()).any(|seed| {
        let disk = FaultDisk::new(seed);
        disk.lie_about_sync("LHBfarm1");
        live_and_die(&disk, seed).is_err()
    }));
}

/// Some lives of one store, each ended by a kill or a power loss; how many values are off the disk at the
/// end.
fn live_and_die(disk: &FaultDisk, seed: u64) -> Result<u64, String> {
    let dir = TestDir::new();
    let open = || {
        let opened = Store::open(&dir.store(), Arc::new(disk.clone()), small());
        let (store, _) = opened.map_err(|error| error.to_string())?;
        // A keep is not kept: whoever opens the store says it before anything is read.
        store.set_keeps(HashMap::from([(product(), keep())]));
        Ok::<_, String>(store)
    };
    let (mut next_id, mut acknowledged) = (1, Vec::new());
    for life in 0..LIVES {
        let at = |error: String| format!("life {life}: {error}");
        disk.cut_power_after(20 + disk.random(500));
        if let Ok(store) = open() {
            commit_until_it_fails(disk, &store, &mut next_id, &mut acknowledged);
        }
        if disk.random(4) == 0 {
            disk.kill();
        } else {
            disk.lose_power();
        }
        let store = open().map_err(at)?;
        verify(&store, &acknowledged).map_err(at)?;
        // Late values would find thinned stretches: the next life goes on behind all of them.
        next_id = next_id.max(store.durable().0 + 1);
        if seed.is_multiple_of(2) {
            store.compact().map_err(|error| at(error.to_string()))?;
            verify(&store, &acknowledged).map_err(|error| at(format!("merged: {error}")))?;
        }
        drop(store);
    }
    let store = open()?;
    store.compact().map_err(|error| error.to_string())?;
    verify(&store, &acknowledged)?;
    let cells = store
        .segment_stats()
        .map_err(|error| error.to_string())?
        .cells;
    Ok((2 * store.durable().0).saturating_sub(cells))
}

fn keep() -> Keep {
    let thin = |kind| Thin {
        kind,
        before_ms: i64::MAX,
        quiet: Sequence(u64::MAX),
    };
    let of = |kind| PointKeep::new(Floor::NONE, Some(thin(kind)));
    Keep {
        points: BTreeMap::from([
            (point(STATE), of(Thinning::Changes)),
            (point(METER), of(Thinning::Minute)),
        ]),
        ..Keep::default()
    }
}

fn place(id: u64) -> (String, i64) {
    let time = i64::try_from(id).unwrap() * STEP_MS;
    (format!("d{}", id % 2), time)
}

/// Stretches of equal states.
fn state(id: u64) -> f64 {
    (id / 9 % 3) as f64
}

fn commit(id: u64) -> Commit {
    let (device, time) = place(id);
    let mut batch = BatchBuilder::new();
    batch.row(&DeviceKey::new(&device).unwrap(), time);
    for (name, number) in [(STATE, state(id)), (METER, id as f64)] {
        let last = ConflictPolicy::KeepLast;
        batch.cell(&point(name), last, Cell::Double(number), NO_QUALITY);
    }
    Commit {
        origin: origin(id),
        product: product(),
        parts: vec![Part::Points(batch.build())],
        redrive: None,
    }
}

fn commit_until_it_fails(
    disk: &FaultDisk,
    store: &Store,
    next_id: &mut u64,
    acknowledged: &mut Vec<u64>,
) {
    for turn in 0..COMMITS {
        let id = *next_id;
        *next_id += 1;
        match store.commit(vec![commit(id)]) {
            Ok(results) if results.iter().all(Result::is_ok) => acknowledged.push(id),
            Ok(_) | Err(_) => return,
        }
        if turn % 20 == disk.random(20) {
            let done = match disk.random(2) {
                0 => store.flush_now().is_ok(),
                _ => store.compact().is_ok(),
            };
            if !done {
                return;
            }
        }
    }
}

/// Device and time of each value, by point.
type Shown = BTreeMap<(&'static str, String, i64), f64>;

fn verify(store: &Store, acknowledged: &[u64]) -> Result<(), String> {
    let log = follow_all(store, Sequence(0))?;
    let mut ids: Vec<u64> = log.iter().map(|one| id_of(&one.commit)).collect();
    ids.sort_unstable();
    if let Some(lost) = acknowledged
        .iter()
        .find(|id| ids.binary_search(id).is_err())
    {
        return Err(format!("commit {lost} was answered and is lost"));
    }
    let (found, expected) = (shown(store), expected(&ids));
    match found == expected {
        true => Ok(()),
        false => Err(format!("read {found:?}, expected {expected:?}")),
    }
}

/// The rules, as plainly as can be: of a state the first of a day and what differs from the one before, of a
/// meter the last of each minute.
fn expected(ids: &[u64]) -> Shown {
    let mut all = Shown::new();
    for device in ["d0", "d1"] {
        let own = ids.iter().map(|id| (place(*id), *id));
        let own: Vec<(i64, u64)> = own
            .filter(|((of, _), _)| of == device)
            .map(|((_, time), id)| (time, id))
            .collect();
        for (at, (time, id)) in own.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| own[before]);
            let is_repeat = before.is_some_and(|(before, was)| {
                before / DAY_MS == time / DAY_MS && state(was) == state(*id)
            });
            if !is_repeat {
                all.insert((STATE, device.to_owned(), *time), state(*id));
            }
            let after = own.get(at + 1);
            if after.is_none_or(|(after, _)| after / MINUTE_MS != time / MINUTE_MS) {
                all.insert((METER, device.to_owned(), *time), *id as f64);
            }
        }
    }
    all
}

fn shown(store: &Store) -> Shown {
    let range = Range {
        product: product(),
        devices: Vec::new(),
        points: vec![point(STATE), point(METER)],
        from_ms: i64::MIN,
        to_ms: i64::MAX,
        order: Order::DeviceTime,
        after: None,
        rows_max: usize::MAX,
    };
    let mut all = Shown::new();
    for slab in store.read(&range).unwrap() {
        let slab = slab.unwrap();
        let column = |name| slab.column_by_name(name).unwrap().as_any();
        let devices: &StringArray = column("_device").downcast_ref().unwrap();
        let times: &Int64Array = column("_time").downcast_ref().unwrap();
        for name in [STATE, METER] {
            let Some(values) = slab.column_by_name(name) else {
                continue;
            };
            let values: &Float64Array = values.as_any().downcast_ref().unwrap();
            for row in (0..slab.num_rows()).filter(|row| values.is_valid(*row)) {
                let place = (name, devices.value(row).to_owned(), times.value(row));
                assert!(
                    all.insert(place, values.value(row)).is_none(),
                    "a row came twice"
                );
            }
        }
    }
    all
}
