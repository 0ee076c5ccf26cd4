//! Folds of many devices, several at a time: groups of devices, in their order, are read and folded
//! by threads of their own, and what they make leaves in order. What waits is bounded: a few batches of
//! each group.

use std::{
    collections::VecDeque,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use arrow_array::{RecordBatch, cast::AsArray};
use backtide_model::DeviceKey;
use backtide_store::{Lead, Range, Store, View};
use parking_lot::Mutex;

use super::{
    Problem,
    stream::Ended,
    tables::{self, Taker},
};
use crate::query::{
    Filter,
    aggregate::{Fold, Plan},
};

/// Groups for each thread, so that all end at about the same time.
const GROUPS_A_THREAD: usize = 4;
/// Fewer devices are not worth a group.
const GROUP_DEVICES_MIN: usize = 8;
const THREADS_MAX: usize = 4;
/// Batches of a group that wait for those before.
const BATCHES_AHEAD: usize = 2;
/// How often it is looked whether the client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is to be folded.
pub(super) struct Job {
    pub(super) plan: Plan,
    pub(super) range: Range,
    pub(super) filter: Filter,
    /// Where groups may end: device keys, sorted.
    pub(super) devices: Vec<DeviceKey>,
}

/// A part of a job: devices up to one, the last without bound.
struct Group {
    plan: Plan,
    range: Range,
    last: Option<DeviceKey>,
}

type Made = Result<RecordBatch, Ended>;

/// Folds in one pass, as much as is taken: for pages.
pub(super) fn in_one(store: &Store, job: &Job, taker: &mut Taker<'_>) -> Result<(), Ended> {
    let mut fold = Fold::new(&job.plan);
    tables::read_ahead(store, &job.range, View::Kept, |slab| {
        taker.check()?;
        let slab = job.filter.apply(slab).map_err(Problem::from)?;
        fold.add(&slab, &mut |batch| taker.take(batch))
    })?;
    fold.finish(&mut |batch| taker.take(batch))
}

/// Folds on several threads: for all there is.
pub(super) fn in_groups(store: &Store, job: &Job, taker: &mut Taker<'_>) -> Result<(), Ended> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(THREADS_MAX);
    let groups = groups(job, threads * GROUPS_A_THREAD);
    if groups.len() < 2 || threads < 2 {
        return in_one(store, job, taker);
    }
    let (waiting, made): (VecDeque<_>, Vec<_>) = groups
        .into_iter()
        .map(|group| {
            let (give, take) = mpsc::sync_channel(BATCHES_AHEAD);
            ((group, give), take)
        })
        .unzip();
    let (waiting, is_over) = (Mutex::new(waiting), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..threads {
            let worker = thread::Builder::new().name("history-fold".to_owned());
            let work = || work(store, &job.filter, &waiting, &is_over);
            worker.spawn_scoped(scope, work).map_err(|error| {
                // Those that have begun find nothing to do.
                waiting.lock().clear();
                tracing::error!(%error, "no thread to fold with");
                tables::unreadable()
            })?;
        }
        // Groups are begun in their order: the one that is waited for is always being made.
        let taken = made.into_iter().try_for_each(|made| take(&made, taker));
        is_over.store(true, Ordering::Relaxed);
        taken
    })
}

fn take(made: &Receiver<Made>, taker: &mut Taker<'_>) -> Result<(), Ended> {
    loop {
        match made.recv_timeout(LOOK_EVERY) {
            Ok(batch) => taker.take(&batch?)?,
            Err(RecvTimeoutError::Timeout) => taker.check()?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn work(
    store: &Store,
    filter: &Filter,
    waiting: &Mutex<VecDeque<(Group, SyncSender<Made>)>>,
    is_over: &AtomicBool,
) {
    loop {
        let next = waiting.lock().pop_front();
        let Some((group, give)) = next else { return };
        if let Err(ended) = fold(store, filter, &group, &give, is_over) {
            // Nobody is there to hear of it any more.
            drop(give.send(Err(ended)));
        }
    }
}

fn fold(
    store: &Store,
    filter: &Filter,
    group: &Group,
    give: &SyncSender<Made>,
    is_over: &AtomicBool,
) -> Result<(), Ended> {
    let mut emit = |batch: &RecordBatch| match give.send(Ok(batch.clone())) {
        Ok(()) => Ok(()),
        Err(_) => Err(Ended::Gone),
    };
    let mut fold = Fold::new(&group.plan);
    let slabs = store.values(&group.range, View::Kept, Lead::InStep);
    for slab in slabs.map_err(Problem::from)? {
        if is_over.load(Ordering::Relaxed) {
            return Err(Ended::Gone);
        }
        let slab = slab.map_err(Problem::from)?;
        let rows = rows_up_to(&slab, group.last.as_ref());
        let own = filter.apply(&slab.slice(0, rows)).map_err(Problem::from)?;
        fold.add(&own, &mut emit)?;
        if rows < slab.num_rows() {
            break;
        }
    }
    fold.finish(&mut emit)
}

/// How many rows are of devices up to this one.
fn rows_up_to(slab: &RecordBatch, last: Option<&DeviceKey>) -> usize {
    let rows = slab.num_rows();
    let devices = slab
        .columns()
        .first()
        .and_then(|array| array.as_string_opt::<i32>());
    let (Some(last), Some(devices)) = (last, devices) else {
        return rows;
    };
    if rows == 0 || devices.value(rows - 1) <= last.as_str() {
        return rows;
    }
    // Rows come by device.
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = low.midpoint(high);
        match devices.value(middle) <= last.as_str() {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

/// Cuts a job at devices, the first group going on where the job does.
fn groups(job: &Job, count: usize) -> Vec<Group> {
    let begin = job.range.after.as_ref().map(|(device, _)| device);
    let is_left = |device: &&DeviceKey| begin.is_none_or(|begin| *device >= begin);
    let devices: Vec<&DeviceKey> = job.devices.iter().filter(is_left).collect();
    let each = devices.len().div_ceil(count.max(1)).max(GROUP_DEVICES_MIN);
    let parts: Vec<&[&DeviceKey]> = devices.chunks(each).collect();
    let mut before: Option<DeviceKey> = None;
    let mut groups = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let last = part.last().filter(|_| number + 1 < parts.len());
        let last = last.map(|device| (*device).clone());
        let is_own = |device: &str| {
            before
                .as_ref()
                .is_none_or(|before| device > before.as_str())
                && last.as_ref().is_none_or(|last| device <= last.as_str())
        };
        let (mut plan, mut range) = (job.plan.clone(), job.range.clone());
        plan.devices.retain(|device| is_own(device));
        range.devices.retain(|device| is_own(device.as_str()));
        if let Some(before) = &before {
            plan.after = None;
            range.after = Some((before.clone(), i64::MAX));
        }
        before = last.clone();
        groups.push(Group { plan, range, last });
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::StringArray;
    use backtide_model::ProductKey;
    use backtide_store::Order;

    use super::*;
    use crate::query::aggregate::Windows;

    fn key(number: usize) -> DeviceKey {
        DeviceKey::new(&format!("d{number:03}")).unwrap()
    }

    fn job(devices: usize, is_listed: bool, after: Option<usize>) -> Job {
        let devices: Vec<DeviceKey> = (0..devices).map(key).collect();
        let mut plan = Plan::new(Vec::new(), Windows::Whole);
        plan.devices = devices
            .iter()
            .map(|device| device.as_str().into())
            .collect();
        plan.after = after.map(|device| (key(device).as_str().into(), 7));
        Job {
            plan,
            range: Range {
                product: ProductKey::new("p").unwrap(),
                devices: if is_listed {
                    devices.clone()
                } else {
                    Vec::new()
                },
                points: Vec::new(),
                from_ms: 0,
                to_ms: 10,
                order: Order::DeviceTime,
                after: after.map(|device| (key(device), 7)),
                rows_max: usize::MAX,
            },
            filter: Filter::default(),
            devices,
        }
    }

    #[test]
    fn groups_have_every_device_once_and_in_order() {
        for (devices, after) in [
            (0, None),
            (5, None),
            (8, None),
            (9, None),
            (100, None),
            (100, Some(50)),
        ] {
            let job = job(devices, true, after);
            let groups = groups(&job, 8);
            let listed: Vec<_> = groups
                .iter()
                .flat_map(|group| &group.range.devices)
                .collect();
            let told: Vec<_> = groups
                .iter()
                .flat_map(|group| &group.plan.devices)
                .collect();
            assert_eq!(
                listed,
                job.range.devices.iter().collect::<Vec<_>>(),
                "{devices}"
            );
            assert_eq!(
                told,
                job.plan.devices.iter().collect::<Vec<_>>(),
                "{devices}"
            );
            for (number, group) in groups.iter().enumerate() {
                let is_first = number == 0;
                assert_eq!(
                    group.plan.after,
                    job.plan.after.clone().filter(|_| is_first)
                );
                let begin = group.range.after.as_ref().map(|(device, _)| device);
                match is_first {
                    true => assert_eq!(group.range.after, job.range.after),
                    false => assert_eq!(begin, groups[number - 1].last.as_ref()),
                }
                assert_eq!(group.last.is_none(), number + 1 == groups.len());
            }
        }
        assert_eq!(groups(&job(100, false, None), 8).len(), 8);
    }

    #[test]
    fn rows_of_a_later_group_are_left_to_it() {
        let devices: arrow_array::ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "b", "c"]));
        let slab = RecordBatch::try_from_iter(vec![("_device", devices)]).unwrap();
        let up_to = |last: &str| rows_up_to(&slab, Some(&DeviceKey::new(last).unwrap()));
        assert_eq!(
            ["0", "a", "aa", "b", "c", "d"].map(up_to),
            [0, 1, 1, 3, 4, 4]
        );
        assert_eq!(rows_up_to(&slab, None), 4);
    }
}
