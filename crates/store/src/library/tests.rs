//! The library against a model that keeps every version in a map and compares one by one.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{Array, RecordBatch, cast::AsArray, types::*};
use arrow_select::concat::concat_batches;
use backtide_model::{
    BatchBuilder, Cell, ChannelName, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY, ProductKey,
};
use proptest::prelude::*;

use super::*;
use crate::{Lead, Order, disk::RealDisk};

mod chronicle;
mod dictionary;
mod faults;
mod floor;
mod keep;
mod real;

pub(super) fn device(key: &str) -> DeviceKey {
    DeviceKey::new(key).unwrap()
}

pub(super) fn point(name: &str) -> ElementName {
    ElementName::new(name).unwrap()
}

pub(super) fn product() -> ProductKey {
    ProductKey::new("farm").unwrap()
}

pub(super) fn origin(sequence: u64) -> Arc<Origin> {
    Arc::new(Origin {
        channel: ChannelName::new("scada").unwrap(),
        client: "client".into(),
        topic: "topic".into(),
        message_id: sequence.to_string().into(),
        packet_id: None,
        policies: None,
        arrived_ms: 1_000 + i64::try_from(sequence).unwrap(),
    })
}

/// A library and the commits that are not flushed yet.
pub(super) struct World {
    dir: tempfile::TempDir,
    pub(super) library: Library,
    pub(super) waiting: Vec<Arc<Entry>>,
    pub(super) chapter: Chapter,
    pub(super) next: u64,
}

impl World {
    /// Something was refused before the first commit: every duplicate leaves the last that said it.
    pub(super) fn new() -> Self {
        let world = Self::without_refusals();
        world.library.refusals.note(Sequence(0));
        world
    }

    pub(super) fn without_refusals() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = Library::open(dir.path(), Arc::new(RealDisk), &Options::default()).unwrap();
        Self {
            dir,
            library,
            waiting: Vec::new(),
            chapter: Chapter::default(),
            next: 1,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn commit(&mut self, batch: backtide_model::Batch) {
        self.redrive(batch, None);
    }

    /// Commits in the place of an earlier commit, where one is given.
    pub(super) fn redrive(&mut self, batch: backtide_model::Batch, order: Option<Sequence>) {
        let sequence = Sequence(self.next);
        self.next += 1;
        let entry = Arc::new(Entry {
            sequence,
            order: order.unwrap_or(sequence),
            product: product(),
            batch,
        });
        self.library.noted(&entry);
        self.waiting.push(entry);
    }

    pub(super) fn try_flush(&mut self) -> Result<(), FlushError> {
        let origins: Vec<_> = self
            .waiting
            .iter()
            .map(|e| (e.sequence, origin(e.sequence.0)))
            .collect();
        self.library.flush(
            &self.waiting,
            &self.chapter,
            &origins,
            Sequence(self.next - 1),
        )?;
        self.waiting.clear();
        Ok(())
    }

    pub(super) fn flush(&mut self) {
        self.try_flush().unwrap();
    }

    pub(super) fn work_to_the_end(&mut self) {
        while self.library.work(Haste::Quiet).unwrap() {}
    }

    pub(super) fn reopen(&mut self) {
        self.library =
            Library::open(self.dir.path(), Arc::new(RealDisk), &Options::default()).unwrap();
        self.library.refusals.note(Sequence(0));
        for entry in &self.waiting {
            self.library.noted(entry);
        }
    }

    pub(super) fn read(&self, range: &Range) -> Vec<RecordBatch> {
        let slabs = self
            .library
            .read(self.waiting.clone(), range, View::Kept)
            .unwrap();
        let slabs: Vec<RecordBatch> = slabs.collect::<Result<_, _>>().unwrap();
        self.check_values(range, &slabs);
        slabs
    }

    /// A read without commits has the same rows.
    fn check_values(&self, range: &Range, slabs: &[RecordBatch]) {
        let joined = |slabs: &[RecordBatch]| {
            let first = slabs.first()?;
            let mut joined = concat_batches(&first.schema(), slabs).unwrap();
            if let Ok(at) = joined.schema().index_of("_sequence") {
                joined.remove_column(at);
            }
            Some(joined)
        };
        for lead in [Lead::InStep, Lead::Ahead] {
            let waiting = self.waiting.clone();
            let values = self.library.values(waiting, range, View::Kept, lead);
            let values: Vec<RecordBatch> = values.unwrap().collect::<Result<_, _>>().unwrap();
            let has_commits = |slab: &RecordBatch| slab.column_by_name("_sequence").is_some();
            assert!(!values.iter().any(has_commits));
            assert_eq!(joined(&values), joined(slabs));
        }
    }
}

pub(super) fn everything() -> Range {
    Range {
        product: product(),
        devices: Vec::new(),
        points: Vec::new(),
        from_ms: i64::MIN,
        to_ms: i64::MAX,
        order: Order::DeviceTime,
        after: None,
        rows_max: usize::MAX,
    }
}

/// A cell as text that tells floats by their bits, its quality, and its commit.
type Value = (String, u8, u64);
type Place = (String, i64, String);

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Double(x) => format!("d{:x}", x.to_bits()),
        other => format!("{other:?}"),
    }
}

#[derive(Debug, Clone, Copy)]
struct RowSpec {
    device: usize,
    time: i64,
    points: u8,
    value: u8,
    quality: u8,
}

#[derive(Debug, Clone)]
enum Step {
    /// In the place of the commit `back` before it; 0: its own.
    Commit {
        rows: Vec<RowSpec>,
        last: bool,
        back: u64,
    },
    Flush,
    Work {
        quiet: bool,
        units: usize,
    },
    Reopen,
}

const DEVICES: [&str; 3] = ["a", "b:1", "c"];
const POINTS: [&str; 3] = ["P", "state.quality", "_note"];

fn cell_of(point: usize, value: u8) -> Cell {
    match point {
        0 => Cell::Double([0.1, -0.0, 0.0][usize::from(value)]),
        1 => Cell::Int(i32::from(value)),
        _ => Cell::Text(["x", "", "y"][usize::from(value)].into()),
    }
}

#[derive(Default)]
struct Model {
    /// Versions that ever came.
    versions: u64,
    /// Which commits said a value.
    said: BTreeSet<(Place, Value)>,
    standing: BTreeMap<Place, (Cell, u8, u64)>,
    conflicts: Vec<(Place, Value, Value)>,
    duplicates: u64,
    latest: BTreeMap<(String, String), i64>,
}

impl Model {
    fn meet(
        &mut self,
        place: Place,
        cell: Cell,
        quality: u8,
        sequence: u64,
        policy: ConflictPolicy,
    ) {
        let latest = self
            .latest
            .entry((place.0.clone(), place.2.clone()))
            .or_insert(i64::MIN);
        *latest = (*latest).max(place.1);
        self.versions += 1;
        self.said
            .insert((place.clone(), (text(&cell), quality, sequence)));
        let Some((stands, stands_quality, stands_sequence)) = self.standing.get(&place).cloned()
        else {
            self.standing.insert(place, (cell, quality, sequence));
            return;
        };
        let rank = |quality: u8| {
            if quality == NO_QUALITY {
                -1
            } else {
                i32::from(quality)
            }
        };
        let is_late = sequence < stands_sequence;
        let wins = match policy {
            ConflictPolicy::KeepLast => !is_late,
            ConflictPolicy::KeepFirst => is_late,
            ConflictPolicy::HigherQuality if is_late => rank(quality) > rank(stands_quality),
            ConflictPolicy::HigherQuality => rank(quality) >= rank(stands_quality),
        };
        let old = (text(&stands), stands_quality, stands_sequence);
        let new = (text(&cell), quality, sequence);
        if (&old.0, old.1) == (&new.0, new.1) {
            self.duplicates += 1;
        } else {
            let (loser, winner) = if wins { (old, new) } else { (new, old) };
            self.conflicts.push((place.clone(), loser, winner));
        }
        if wins {
            self.standing.insert(place, (cell, quality, sequence));
        }
    }
}

fn apply(world: &mut World, model: &mut Model, rows: &[RowSpec], policy: ConflictPolicy) {
    apply_late(world, model, rows, policy, 0);
}

/// Commits rows in the place of the commit `back` before.
fn apply_late(
    world: &mut World,
    model: &mut Model,
    rows: &[RowSpec],
    policy: ConflictPolicy,
    back: u64,
) {
    let mut builder = BatchBuilder::new();
    let sequence = world.next.saturating_sub(back).max(1);
    for row in rows {
        builder.row(&device(DEVICES[row.device]), row.time);
        for (number, name) in POINTS.iter().enumerate() {
            if row.points & (1 << number) == 0 {
                continue;
            }
            let quality = if row.quality == 2 {
                NO_QUALITY
            } else {
                row.quality
            };
            let cell = cell_of(number, row.value);
            builder.cell(&point(name), policy, cell.clone(), quality);
            let place = (DEVICES[row.device].to_owned(), row.time, (*name).to_owned());
            model.meet(place, cell, quality, sequence, policy);
        }
    }
    world.redrive(builder.build(), Some(Sequence(sequence)));
}

fn cell_at(array: &dyn Array, row: usize) -> Option<Cell> {
    use arrow_schema::DataType;
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Float64 => Cell::Double(array.as_primitive::<Float64Type>().value(row)),
        DataType::Int32 => Cell::Int(array.as_primitive::<Int32Type>().value(row)),
        DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row).into()),
        DataType::Null => return None,
        other => panic!("unexpected {other}"),
    })
}

/// Rows of slabs: (device, time), `_sequence`, and each point's cell and quality.
type ReadRow = ((String, i64), u64, CellsRead);
type CellsRead = BTreeMap<String, (String, u8)>;

fn rows_of(batches: &[RecordBatch]) -> Vec<ReadRow> {
    let mut rows = Vec::new();
    for batch in batches {
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let key = (
                batch.column(0).as_string::<i32>().value(row).to_owned(),
                batch.column(1).as_primitive::<Int64Type>().value(row),
            );
            let sequence = batch.column(2).as_primitive::<UInt64Type>().value(row);
            let mut cells: BTreeMap<String, (String, u8)> = BTreeMap::new();
            for (at, field) in schema.fields().iter().enumerate().skip(3) {
                let (point, role) = names::parse_column(field.name()).unwrap();
                match role {
                    Role::Value => {
                        if let Some(cell) = cell_at(batch.column(at), row) {
                            cells.insert(point.to_string(), (text(&cell), NO_QUALITY));
                        }
                    }
                    Role::Quality => {
                        let quality = batch.column(at).as_primitive::<UInt8Type>();
                        if quality.is_valid(row) {
                            cells.get_mut(point.as_str()).unwrap().1 = quality.value(row);
                        }
                    }
                    role => panic!("unexpected {role:?}"),
                }
            }
            rows.push((key, sequence, cells));
        }
    }
    rows
}

impl Model {
    fn rows(&self, range: &Range, sequences: bool) -> Vec<ReadRow> {
        let mut rows: BTreeMap<(String, i64), (u64, CellsRead)> = BTreeMap::new();
        for ((key, time_ms, name), (cell, quality, sequence)) in &self.standing {
            let wanted = (range.devices.is_empty() || range.devices.contains(&device(key)))
                && (range.points.is_empty() || range.points.contains(&point(name)))
                && (range.from_ms..range.to_ms).contains(time_ms);
            if wanted {
                let row = rows.entry((key.clone(), *time_ms)).or_default();
                row.0 = row.0.max(if sequences { *sequence } else { 0 });
                row.1.insert(name.clone(), (text(cell), *quality));
            }
        }
        let mut rows: Vec<ReadRow> = rows
            .into_iter()
            .map(|(key, (sequence, cells))| (key, sequence, cells))
            .collect();
        if range.order == Order::TimeDevice {
            rows.sort_by(|a, b| (a.0.1, &a.0.0).cmp(&(b.0.1, &b.0.0)));
        }
        if let Some((after_device, after_ms)) = &range.after {
            let after = (after_device.as_str(), *after_ms);
            rows.retain(|((key, time_ms), _, _)| match range.order {
                Order::DeviceTime => (key.as_str(), *time_ms) > after,
                Order::TimeDevice => (*time_ms, key.as_str()) > (after.1, after.0),
            });
        }
        rows.truncate(range.rows_max);
        rows
    }
}

/// `sequences`: whether they are exact, see [`super::fold`].
fn check_read(world: &World, model: &Model, range: &Range, sequences: bool) {
    let mut rows = rows_of(&world.read(range));
    if !sequences {
        rows.iter_mut().for_each(|row| row.1 = 0);
    }
    assert_eq!(rows, model.rows(range, sequences), "{range:?}");
}

fn check_conflicts(world: &World, model: &Model) {
    let mut found = Vec::new();
    let mut filter = ConflictFilter {
        limit: 7,
        ..ConflictFilter::default()
    };
    loop {
        let page = world.library.conflicts(&filter).unwrap();
        assert_eq!(page.total, model.conflicts.len() as u64);
        for conflict in page.conflicts {
            let place = (
                conflict.device.to_string(),
                conflict.time_ms,
                conflict.point.to_string(),
            );
            let side = |side: ConflictSide| (text(&side.cell), side.quality, side.sequence.0);
            found.push((place, side(conflict.loser), side(conflict.winner)));
        }
        filter.after = page.next;
        if page.next.is_none() {
            break;
        }
    }
    let mut expected = model.conflicts.clone();
    for (place, loser, winner) in found.iter_mut().chain(&mut expected) {
        for side in [loser, winner] {
            // Which of the commits that said it: the flushes decide.
            assert!(model.said.contains(&(place.clone(), side.clone())));
            side.2 = 0;
        }
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let rows: BTreeSet<_> = expected
        .iter()
        .map(|(place, _, _)| (&place.0, place.1))
        .collect();
    let filter = ConflictFilter {
        limit: 1_000,
        ..ConflictFilter::default()
    };
    let listed = world.library.conflict_rows(&filter).unwrap();
    assert_eq!(
        (listed.total, listed.rows.len()),
        (rows.len() as u64, rows.len())
    );
    let stats = world.library.stats().unwrap();
    assert_eq!(stats.conflicts, model.conflicts.len() as u64);
    assert_eq!(stats.duplicates, model.duplicates);
    assert_eq!(stats.unclassified_segments, 0);
}

fn check_latest(world: &World, model: &Model) {
    let latest = world.library.latest(&product(), &[], &[]);
    assert_eq!(latest.len(), model.latest.len());
    for latest in latest {
        let key = (latest.device.to_string(), latest.point.to_string());
        let time_ms = model.latest[&key];
        assert_eq!(latest.time_ms, time_ms);
        let (cell, quality, sequence) = &model.standing[&(key.0, time_ms, key.1)];
        assert_eq!(
            (text(&latest.cell), latest.quality, latest.sequence.0),
            (text(cell), *quality, *sequence)
        );
    }
}

fn row_spec() -> impl Strategy<Value = RowSpec> {
    (0..DEVICES.len(), 0..5_i64, 1_u8..8, 0_u8..3, 0_u8..3).prop_map(
        |(device, time, points, value, quality)| RowSpec {
            device,
            time,
            points,
            value,
            quality,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (proptest::collection::vec(row_spec(), 1..6), any::<bool>())
            .prop_map(|(rows, last)| Step::Commit { rows, last, back: 0 }),
        3 => Just(Step::Flush),
        2 => (any::<bool>(), 1_usize..4).prop_map(|(quiet, units)| Step::Work { quiet, units }),
        1 => Just(Step::Reopen),
    ]
}

/// The same, and half of the commits are re-driven ones.
fn late_step() -> impl Strategy<Value = Step> {
    (step(), prop_oneof![Just(0), 1_u64..12]).prop_map(|(step, back)| match step {
        Step::Commit { rows, last, .. } => Step::Commit { rows, last, back },
        other => other,
    })
}

fn ranges() -> Vec<Range> {
    let mut ranges = Vec::new();
    for order in [Order::DeviceTime, Order::TimeDevice] {
        ranges.push(Range {
            order,
            ..everything()
        });
        ranges.push(Range {
            order,
            devices: vec![device("c"), device("a"), device("zz")],
            points: vec![point("_note"), point("P")],
            from_ms: 1,
            to_ms: 4,
            ..everything()
        });
        ranges.push(Range {
            order,
            after: Some((device("b:1"), 2)),
            rows_max: 3,
            ..everything()
        });
        ranges.push(Range {
            order,
            after: Some((device("aa"), 3)),
            rows_max: 1,
            ..everything()
        });
    }
    ranges
}

fn play(steps: &[Step], other: ConflictPolicy, mixed: bool, file_rows: usize) {
    let (mut world, mut model) = (World::new(), Model::default());
    world.library.file_rows = file_rows;
    // Exact where every version has the same policy.
    let sequences = other == ConflictPolicy::KeepLast || !mixed;
    for step in steps {
        match step {
            Step::Commit { rows, last, back } => {
                let policy = if mixed && *last {
                    ConflictPolicy::KeepLast
                } else {
                    other
                };
                apply_late(&mut world, &mut model, rows, policy, *back);
            }
            Step::Flush => world.flush(),
            Step::Work { quiet, units } => {
                for _ in 0..*units {
                    let haste = if *quiet { Haste::Quiet } else { Haste::Busy };
                    world.library.work(haste).unwrap();
                }
            }
            Step::Reopen => {
                world.reopen();
                world.library.file_rows = file_rows;
            }
        }
    }
    for range in ranges() {
        check_read(&world, &model, &range, sequences);
    }
    check_latest(&world, &model);
    world.flush();
    for range in ranges() {
        check_read(&world, &model, &range, sequences);
    }
    world.work_to_the_end();
    // Where commits come late, the flushes decide which version meets which first; but each meets one.
    let is_late = |step: &Step| matches!(step, Step::Commit { back: 1.., .. });
    let stats = world.library.stats().unwrap();
    assert_eq!(
        stats.conflicts + stats.duplicates,
        model.versions - stats.cells
    );
    if !steps.iter().any(is_late) {
        check_conflicts(&world, &model);
    }
    world.reopen();
    if !steps.iter().any(is_late) {
        check_conflicts(&world, &model);
    }
    check_latest(&world, &model);
    for range in ranges() {
        check_read(&world, &model, &range, sequences);
    }
    world.library.verify().unwrap();
    let stats = world.library.stats().unwrap();
    assert!(
        stats.overlapping_segments_max <= 1
            && (stats.unmerged_segments == 1
                || stats.rows <= stats.segments.saturating_mul(file_rows as u64)),
        "quiet leaves no overlap in a small product: {stats:?}"
    );
    assert_eq!(stats.cells, model.standing.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn keep_last_reads_and_conflicts_are_those_of_one_by_one(
        steps in proptest::collection::vec(step(), 1..24),
        file_rows in prop_oneof![Just(usize::MAX), Just(3)],
    ) {
        play(&steps, ConflictPolicy::KeepLast, false, file_rows);
    }

    #[test]
    fn keep_first_reads_and_conflicts_are_those_of_one_by_one(
        steps in proptest::collection::vec(step(), 1..24), mixed in any::<bool>()
    ) {
        play(&steps, ConflictPolicy::KeepFirst, mixed, usize::MAX);
    }

    #[test]
    fn higher_quality_reads_and_conflicts_are_those_of_one_by_one(
        steps in proptest::collection::vec(step(), 1..24), mixed in any::<bool>()
    ) {
        play(&steps, ConflictPolicy::HigherQuality, mixed, usize::MAX);
    }

    #[test]
    fn what_is_re_driven_takes_the_place_of_its_first_arrival(
        steps in proptest::collection::vec(late_step(), 1..24),
        policy in prop_oneof![
            Just(ConflictPolicy::KeepLast),
            Just(ConflictPolicy::KeepFirst),
            Just(ConflictPolicy::HigherQuality),
        ],
        file_rows in prop_oneof![Just(usize::MAX), Just(3)],
    ) {
        play(&steps, policy, false, file_rows);
    }
}

#[test]
fn a_commit_that_memtable_and_segment_both_hold_counts_once() {
    let (mut world, mut model) = (World::new(), Model::default());
    let row = RowSpec {
        device: 0,
        time: 1,
        points: 7,
        value: 0,
        quality: 2,
    };
    apply(&mut world, &mut model, &[row], ConflictPolicy::KeepLast);
    apply(
        &mut world,
        &mut model,
        &[RowSpec { value: 1, ..row }],
        ConflictPolicy::KeepLast,
    );
    let held = world.waiting.clone();
    world.flush();
    world.waiting = held;
    check_read(&world, &model, &everything(), true);
}

#[test]
fn origins_cursors_and_the_store_id_survive_a_restart() {
    let (mut world, mut model) = (World::new(), Model::default());
    let row = RowSpec {
        device: 0,
        time: 1,
        points: 1,
        value: 0,
        quality: 2,
    };
    for time in 0..5 {
        apply(
            &mut world,
            &mut model,
            &[RowSpec { time, ..row }],
            ConflictPolicy::KeepLast,
        );
    }
    let store_id = world.library.store_id();
    world.flush();
    world.library.set_cursor("kafka", Sequence(3)).unwrap();
    world.library.set_cursor("gone", Sequence(1)).unwrap();
    world.library.drop_cursor("gone").unwrap();
    world.reopen();
    assert_eq!(world.library.store_id(), store_id);
    assert_eq!(world.library.flushed(), Sequence(5));
    assert_eq!(
        world.library.cursors().unwrap(),
        [("kafka".to_owned(), Sequence(3))]
    );
    let found = world
        .library
        .origins(&[Sequence(2), Sequence(5), Sequence(9)])
        .unwrap();
    let expected: Vec<_> = [2, 5]
        .map(|n| Lineage {
            sequence: Sequence(n),
            origin: origin(n).as_ref().clone(),
        })
        .into();
    assert_eq!(found, expected);
    assert_eq!(
        world.library.storage_of(&product(), &point("P")),
        Some(Storage::Double)
    );
}

#[test]
fn a_reader_keeps_the_files_it_began_with_while_they_are_merged_away() {
    let (mut world, mut model) = (World::new(), Model::default());
    for time in 0..3 {
        let row = RowSpec {
            device: 0,
            time,
            points: 7,
            value: 0,
            quality: 2,
        };
        apply(&mut world, &mut model, &[row], ConflictPolicy::KeepLast);
        world.flush();
    }
    let slabs = world
        .library
        .read(Vec::new(), &everything(), View::Kept)
        .unwrap();
    world.work_to_the_end();
    assert_eq!(world.library.stats().unwrap().segments, 1);
    let batches: Vec<RecordBatch> = slabs.collect::<Result<_, _>>().unwrap();
    assert_eq!(rows_of(&batches), model.rows(&everything(), true));
    drop(batches);
    let dir = product_dir(&world.dir().join("segments"), &product());
    assert_eq!(
        RealDisk.list(&dir).unwrap().len(),
        1,
        "merged files go with their last reader"
    );
}

#[test]
fn what_comes_again_before_anything_was_refused_stays_with_its_first_commit() {
    let (mut world, mut model) = (World::without_refusals(), Model::default());
    let row = RowSpec {
        device: 0,
        time: 1,
        points: 7,
        value: 0,
        quality: 2,
    };
    let mut again = |world: &mut World| {
        apply(world, &mut model, &[row], ConflictPolicy::KeepLast);
        let in_memory = rows_of(&world.read(&everything()))[0].1;
        world.flush();
        world.work_to_the_end();
        assert_eq!(rows_of(&world.read(&everything()))[0].1, in_memory);
        in_memory
    };
    assert_eq!((again(&mut world), again(&mut world)), (1, 1));
    world.library.refusals.note(Sequence(3));
    assert_eq!((again(&mut world), again(&mut world)), (1, 4));
    assert_eq!(world.library.manifest.first_refusal().unwrap(), Some(3));
}
