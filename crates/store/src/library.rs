//! Everything that was flushed: segments, the manifest that names the live ones, and what is kept
//! small beside them.
//!
//! ```text
//! entries ─▶ run (sorted, folded) ─▶ segment file ─▶ manifest ─▶ shelf ─▶ reads
//!                                                       ▲
//!            classify: duplicates and conflicts ────────┤
//!            merge: many files into one ────────────────┘
//! ```
//!
//! Readers take the [`Shelf`], a snapshot, and hold no lock. The order of a change is always: the
//! files durable, then one transaction of the manifest, then the shelf. What stops before the
//! transaction leaves files that nobody names; the next open removes them.

mod cells;
mod chains;
mod chronicle;
mod chunks;
mod classify;
mod codec;
mod conflicts;
mod done;
mod fault;
mod floor;
mod fold;
mod going;
mod index;
mod keep;
mod latest;
mod manifest;
mod merge;
mod names;
mod origins;
mod reading;
mod run;
mod scan;
mod segment;
mod spans;
#[cfg(test)]
mod tests;
mod thin;
mod weave;
mod work;
mod write;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use backtide_model::{DeviceKey, ElementName, ProductKey, Storage};
use parking_lot::{Mutex, RwLock};

pub use chronicle::{
    AttributePlace, AttributeRange, ChronicleStats, EventPlace, EventRange, ExpirableRecords,
    StoredAttribute, StoredEvent,
};
pub use conflicts::{
    Conflict, ConflictFilter, ConflictPage, ConflictRow, ConflictRows, Side as ConflictSide,
};
pub use fault::FlushError;
pub(crate) use fault::OpenError;
pub use floor::Expirable;
pub use going::Going;
pub use keep::{Floor, Keep, PointKeep, RecordKeep, Thin, Thinning, View};
pub use latest::Latest;
pub(crate) use merge::Haste;
pub use names::{quality_column, value_column};
pub use origins::Lineage;
pub use spans::DeviceSpan;

use self::{
    chains::Chains,
    chronicle::Chronicle,
    classify::Repeats,
    done::Done,
    floor::Keeps,
    fold::Refusals,
    latest::Board,
    manifest::{Flushed, Manifest, unsigned},
    merge::Merge,
    names::{Role, product_dir, segment_file},
    run::{Run, StorageClash, Wanted},
    segment::{Card, Segment},
    write::{Packing, Plan, PointColumn, SegmentWriter, remove},
};
use crate::{
    Commit, Lead, Options, Origin, Part, Range, ReadError, Sequence, Slabs,
    disk::Disk,
    memtable::{Chapter, Entry},
};

/// Devices whose latest values are encoded under one hold of their lock.
const LATEST_DEVICES: usize = 256;

/// The flushed part of a store. `flush` and `work` each run on one thread; everything else from
/// any number.
pub(crate) struct Library {
    segments_dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// Runs of a product that a read joins at most.
    runs_max: usize,
    /// Rows of a merged file at most.
    file_rows: usize,
    store_id: u32,
    manifest: Manifest,
    chronicle: Arc<Chronicle>,
    shelf: RwLock<Arc<Shelf>>,
    /// The storage of every point ever noted, also of what is not flushed yet.
    points: RwLock<HashMap<ProductKey, BTreeMap<ElementName, Storage>>>,
    latest: Mutex<Board>,
    refusals: Refusals,
    keeps: Mutex<Keeps>,
    next_id: AtomicU64,
    /// Merges on their way; the last is the most urgent.
    merges: Mutex<Vec<Merge>>,
    /// Waiting for merges is of no use: the last one failed, or there is none to do.
    is_stuck: AtomicBool,
}

/// What is live.
#[derive(Debug, Default, Clone)]
struct Shelf {
    flushed: Sequence,
    /// Of each product, in order of commit.
    products: HashMap<ProductKey, Vec<Arc<Segment>>>,
    /// The most segments of each product that hold the same moment of the same device.
    heights: HashMap<ProductKey, usize>,
}

/// What a library holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LibraryStats {
    pub segments: u64,
    pub bytes: u64,
    pub rows: u64,
    /// Values stored; one that stands in several segments counts for each.
    pub cells: u64,
    /// Versions found to be equal to what stood before.
    pub duplicates: u64,
    /// Versions found to be different from what stood before.
    pub conflicts: u64,
    /// Segments whose duplicates and conflicts are not known yet.
    pub unclassified_segments: u64,
    /// Segments that were never merged.
    pub unmerged_segments: u64,
    /// The most segments of one product that hold the same moment of the same device: what a read
    /// has to join row by row.
    pub overlapping_segments_max: u64,
}

impl Library {
    /// Opens or creates it: every live segment must be there with its length, everything else in
    /// the directory of segments is removed.
    ///
    /// # Errors
    /// What is missing or damaged. Nothing was changed but for files that no manifest names.
    pub(crate) fn open(
        dir: &Path,
        disk: Arc<dyn Disk>,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let segments_dir = dir.join("segments");
        disk.create_dir_all(&segments_dir)
            .map_err(|error| OpenError::io(&segments_dir, error))?;
        let manifest = Manifest::open(dir)?;
        let chronicle = open_chronicle(dir, &disk, &manifest)?;
        disk.sync_dir(dir)
            .map_err(|error| OpenError::io(dir, error))?;
        let flushed = Sequence(unsigned(manifest.about("flushed")?));
        let mut shelf = Shelf {
            flushed,
            products: HashMap::new(),
            heights: HashMap::new(),
        };
        let mut next_id = 1;
        for card in manifest.segments()? {
            next_id = next_id.max(card.id + 1);
            let path = segment_file(&segments_dir, &card.product, card.id);
            let segment = Arc::new(Segment::open(&disk, path, card)?);
            shelf
                .products
                .entry(segment.card.product.clone())
                .or_default()
                .push(segment);
        }
        for (product, segments) in &mut shelf.products {
            sort(segments);
            shelf.heights.insert(product.clone(), height(segments));
        }
        remove_orphans(disk.as_ref(), &segments_dir, &manifest.products()?, &shelf)?;
        let mut points: HashMap<ProductKey, BTreeMap<ElementName, Storage>> = HashMap::new();
        for (product, point, storage) in manifest.points()? {
            points.entry(product).or_default().insert(point, storage);
        }
        let mut latest = Board::default();
        for (product, device, cells) in manifest.latest()? {
            latest.load(&product, &device, &cells)?;
        }
        let store_id = manifest.about("store_id")?;
        let refusals = Refusals::new(manifest.first_refusal()?);
        Ok(Self {
            segments_dir,
            disk,
            runs_max: options.overlapping_segments_max,
            file_rows: merge::FILE_ROWS,
            store_id: u32::try_from(store_id)
                .map_err(|_| OpenError::Manifest(format!("store id {store_id} is out of range")))?,
            manifest,
            chronicle: Arc::new(chronicle),
            shelf: RwLock::new(Arc::new(shelf)),
            points: RwLock::new(points),
            latest: Mutex::new(latest),
            refusals,
            keeps: Mutex::default(),
            next_id: AtomicU64::new(next_id),
            merges: Mutex::new(Vec::new()),
            is_stuck: AtomicBool::new(false),
        })
    }

    /// Random, made with the store: the front of its receipts.
    pub(crate) fn store_id(&self) -> u32 {
        self.store_id
    }

    /// Every commit up to this one is in segments.
    pub(crate) fn flushed(&self) -> Sequence {
        self.shelf().flushed
    }

    /// What a point is stored as, or `None` where nothing was ever noted of it.
    pub(crate) fn storage_of(&self, product: &ProductKey, point: &ElementName) -> Option<Storage> {
        self.points.read().get(product)?.get(point).copied()
    }

    /// The points that anything was ever noted of.
    pub(crate) fn points_of(&self, product: &ProductKey) -> Vec<ElementName> {
        let points = self.points.read();
        let known = points.get(product).into_iter().flatten();
        known.map(|(point, _)| point.clone()).collect()
    }

    /// Takes note of the first refusal among durable commits, `first` and those that follow; before
    /// anything of them can be read.
    pub(crate) fn note_refusals(&self, first: Sequence, commits: &[Commit]) {
        let is_refusal = |part: &Part| matches!(part, Part::Refused(_));
        let refuses = |commit: &Commit| commit.parts.iter().any(is_refusal);
        if let Some(at) = commits.iter().position(refuses) {
            self.refusals.note(Sequence(first.0 + at as u64));
        }
    }

    /// Takes note of a durable commit, in order of commit; again after a restart.
    pub(crate) fn noted(&self, entry: &Arc<Entry>) {
        self.latest.lock().note(entry);
        let is_known = {
            let points = self.points.read();
            points.get(&entry.product).is_some_and(|known| {
                entry
                    .batch
                    .columns
                    .iter()
                    .all(|column| known.contains_key(&column.point))
            })
        };
        if !is_known {
            let mut points = self.points.write();
            let known = points.entry(entry.product.clone()).or_default();
            for column in &entry.batch.columns {
                known
                    .entry(column.point.clone())
                    .or_insert(column.values.storage());
            }
        }
    }

    /// Makes segments of the memtable's entries and writes its chapter; they hold every commit after
    /// [`Self::flushed`] up to `through`. `origins` has those commits' origins in order of sequence.
    ///
    /// # Errors
    /// Nothing is live then and what was written is removed; the same flush may be tried again.
    pub(crate) fn flush(
        &self,
        entries: &[Arc<Entry>],
        chapter: &Chapter,
        origins: &[(Sequence, Arc<Origin>)],
        through: Sequence,
    ) -> Result<(), FlushError> {
        // First, since the transaction of the manifest lets the journal go; writing it again is safe.
        if !chapter.is_empty() {
            let arrived_ms = |product: &ProductKey| self.keep(product).events.arrived_ms;
            self.chronicle.flush(chapter, through, &arrived_ms)?;
        }
        let mut by_product: BTreeMap<&ProductKey, Vec<Arc<Entry>>> = BTreeMap::new();
        for entry in entries {
            by_product
                .entry(&entry.product)
                .or_default()
                .push(Arc::clone(entry));
        }
        let mut unnamed = Unnamed {
            disk: self.disk.as_ref(),
            paths: Vec::new(),
        };
        let (mut segments, mut points, mut duplicates) = (Vec::new(), Vec::new(), Repeats::new());
        for (product, entries) in by_product {
            let refusals = self.refusals_of(&self.keep(product));
            let run = Run::new(entries, &Wanted::ALL, refusals)
                .map_err(|clash| changed(product, &clash))?;
            let known = run.points.iter();
            points.extend(known.map(|point| (product.clone(), point.name.clone(), point.storage)));
            let Some((sequence_min, sequence_max)) = run.sequences().filter(|_| run.rows() > 0)
            else {
                continue;
            };
            // Before its directory is: the next open looks for orphans in the directories of known
            // products.
            if !self.shelf().products.contains_key(product) {
                self.manifest.know_product(product)?;
            }
            let plan = Plan {
                sequence_min,
                sequence_max,
                columns: flush_columns(&run),
                ..self.plan(product)
            };
            let (path, card, chains, repeats) = self.write_run(&run, plan)?;
            unnamed.paths.push(path);
            segments.push((card, chains));
            for (sequence, values) in repeats {
                *duplicates.entry(sequence).or_default() += values;
            }
        }
        let opened = segments
            .iter()
            .map(|(card, _)| self.open_segment(card.clone()));
        let opened: Vec<Arc<Segment>> = opened.collect::<Result<_, _>>()?;
        let saved = self.save_latest();
        let flushed = Flushed {
            through,
            has_chapter: !chapter.is_empty(),
            segments: &segments,
            origins: &origins::pack(origins),
            points: &points,
            latest: &saved,
            duplicates: &duplicates,
            first_refusal: self.refusals.known(),
        };
        if let Err(error) = self.manifest.flushed(&flushed) {
            self.latest.lock().unsaved(&saved);
            return Err(error);
        }
        unnamed.paths.clear();
        self.change_shelf(|shelf| {
            shelf.flushed = through;
            for segment in opened {
                shelf
                    .products
                    .entry(segment.card.product.clone())
                    .or_default()
                    .push(segment);
            }
        });
        Ok(())
    }

    /// Rows of a range: of segments, and of `entries` that are not in one yet. Take the entries
    /// before the call: what is flushed in between is then seen once.
    ///
    /// # Errors
    /// A damaged segment.
    pub(crate) fn read(
        &self,
        entries: Vec<Arc<Entry>>,
        range: &Range,
        view: View,
    ) -> Result<Box<dyn Slabs>, ReadError> {
        let keep = self.keep(&range.product);
        self.query(entries, range, (&keep, view)).slabs()
    }

    /// The same, without the commits of rows.
    ///
    /// # Errors
    /// A damaged segment.
    pub(crate) fn values(
        &self,
        entries: Vec<Arc<Entry>>,
        range: &Range,
        view: View,
        lead: Lead,
    ) -> Result<Box<dyn Slabs>, ReadError> {
        let keep = self.keep(&range.product);
        let query = self.query(entries, range, (&keep, view));
        query.without_sequences().at(lead).slabs()
    }

    /// Rows that have none of the points of the range too, but others; the slabs may have more points,
    /// and have commits where they are asked for.
    ///
    /// # Errors
    /// A damaged segment.
    pub(crate) fn every_row(
        &self,
        entries: Vec<Arc<Entry>>,
        range: &Range,
        with_sequences: bool,
    ) -> Result<Box<dyn Slabs>, ReadError> {
        let keep = self.keep(&range.product);
        let mut points = self.points_of(&range.product);
        let told = entries.iter().flat_map(|entry| &entry.batch.columns);
        points.extend(told.map(|column| column.point.clone()));
        if let Some(shown_ms) = keep.all_shown_from(&points, range.from_ms) {
            let range = Range {
                from_ms: range.from_ms.max(shown_ms),
                ..range.clone()
            };
            let query = self.query(entries, &range, (&keep, View::Kept));
            let query = query.with_every_row();
            return match with_sequences {
                true => query.slabs(),
                false => query.without_sequences().slabs(),
            };
        }
        // Whether anything of a row is shown, all of its points say together.
        let range = Range {
            points: Vec::new(),
            ..range.clone()
        };
        self.query(entries, &range, (&keep, View::Kept)).slabs()
    }

    fn query(
        &self,
        mut entries: Vec<Arc<Entry>>,
        range: &Range,
        (keep, view): (&Keep, View),
    ) -> reading::Query {
        let shelf = self.shelf();
        entries.retain(|entry| entry.product == range.product && entry.sequence > shelf.flushed);
        entries.sort_by_key(|entry| entry.sequence);
        let mut known = self
            .points
            .read()
            .get(&range.product)
            .cloned()
            .unwrap_or_default();
        for column in entries.iter().flat_map(|entry| &entry.batch.columns) {
            known
                .entry(column.point.clone())
                .or_insert(column.values.storage());
        }
        let points = if range.points.is_empty() {
            known
                .into_iter()
                .map(|(point, storage)| (point, Some(storage)))
                .collect()
        } else {
            let mut seen = HashSet::new();
            let wanted = range.points.iter().filter(|point| seen.insert(*point));
            wanted
                .map(|point| (point.clone(), known.get(point).copied()))
                .collect()
        };
        let segments = shelf
            .products
            .get(&range.product)
            .cloned()
            .unwrap_or_default();
        let refusals = self.refusals_of(keep);
        reading::Query::new(segments, entries, points, range, (keep, view), refusals)
    }

    /// Events and attribute values.
    pub(crate) fn chronicle(&self) -> &Arc<Chronicle> {
        &self.chronicle
    }

    /// Commits behind `after` up to `through` that said values again, `limit` at most, in order, and how
    /// many of their values were there already.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(crate) fn repeats(
        &self,
        after: Sequence,
        through: Sequence,
        limit: usize,
    ) -> Result<Vec<(Sequence, u64)>, ReadError> {
        Ok(self.manifest.repeats(after, through, limit)?)
    }

    /// Commits behind `after` up to `through` of which values were other than what stood there, `limit` at
    /// most, in order, and how many.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(crate) fn differences(
        &self,
        after: Sequence,
        through: Sequence,
        limit: usize,
    ) -> Result<Vec<(Sequence, u64)>, ReadError> {
        let differences = |db: &_| conflicts::differences(db, after, through, limit);
        Ok(self.manifest.list(differences)?)
    }

    /// The last commit up to which everything is compared with what stood there.
    pub(crate) fn compared(&self) -> Sequence {
        let shelf = self.shelf();
        let segments = shelf.products.values().flatten();
        let open = segments.filter(|segment| !segment.card.is_classified);
        let first = open.map(|segment| segment.card.sequence_min).min();
        match first {
            Some(first) => Sequence(first.saturating_sub(1)).min(shelf.flushed),
            None => shelf.flushed,
        }
    }

    /// Conflicts, in the order in which they were found.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(crate) fn conflicts(&self, filter: &ConflictFilter) -> Result<ConflictPage, ReadError> {
        self.manifest.list(|db| Ok(conflicts::page(db, filter)))?
    }

    /// Rows with conflicts.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(crate) fn conflict_rows(&self, filter: &ConflictFilter) -> Result<ConflictRows, ReadError> {
        self.manifest.list(|db| Ok(conflicts::rows(db, filter)))?
    }

    /// The latest values by event time; empty `devices` or `points`: all of them.
    pub(crate) fn latest(
        &self,
        product: &ProductKey,
        devices: &[DeviceKey],
        points: &[ElementName],
    ) -> Vec<Latest> {
        let keep = self.keep(product);
        let mut latest = self.latest.lock().list(product, devices, points);
        latest.retain(|one| {
            let floor = keep.of(&one.point).floor();
            floor.keeps(one.time_ms, one.sequence.0)
        });
        latest
    }

    /// Where flushed commits came from; others are left out. Sorted sequences decode each chunk once.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(crate) fn origins(&self, sequences: &[Sequence]) -> Result<Vec<Lineage>, ReadError> {
        let mut chunk: Vec<Lineage> = Vec::new();
        let mut found = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let is_in = |chunk: &[Lineage]| {
                chunk
                    .first()
                    .is_some_and(|first| first.sequence <= *sequence)
                    && chunk.last().is_some_and(|last| *sequence <= last.sequence)
            };
            if !is_in(&chunk) {
                let Some(bytes) = self.manifest.origins(*sequence)? else {
                    continue;
                };
                chunk = origins::read(&bytes)?;
            }
            if let Ok(at) = chunk.binary_search_by_key(sequence, |lineage| lineage.sequence) {
                found.push(chunk[at].clone());
            }
        }
        Ok(found)
    }

    /// How far a named follower of the committed log has come.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(crate) fn cursor(&self, name: &str) -> Result<Option<Sequence>, ReadError> {
        Ok(self
            .cursors()?
            .into_iter()
            .find(|(known, _)| known == name)
            .map(|(_, at)| at))
    }

    /// Durable when it returns.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub(crate) fn set_cursor(&self, name: &str, at: Sequence) -> Result<(), ReadError> {
        Ok(self.manifest.set_cursor(name, at)?)
    }

    /// Forgets a cursor.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub(crate) fn drop_cursor(&self, name: &str) -> Result<(), ReadError> {
        Ok(self.manifest.drop_cursor(name)?)
    }

    /// Every cursor, by name.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(crate) fn cursors(&self) -> Result<Vec<(String, Sequence)>, ReadError> {
        Ok(self.manifest.cursors()?)
    }

    /// What it holds.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(crate) fn stats(&self) -> Result<LibraryStats, ReadError> {
        let shelf = self.shelf();
        let mut stats = LibraryStats {
            duplicates: unsigned(self.manifest.about("duplicates")?),
            conflicts: unsigned(self.manifest.about("conflicts")?),
            ..LibraryStats::default()
        };
        for segments in shelf.products.values() {
            for segment in segments {
                let card = &segment.card;
                stats.segments += 1;
                stats.bytes += card.bytes;
                stats.rows += segment.rows() as u64;
                stats.cells += card.cells;
                stats.unclassified_segments += u64::from(!card.is_classified);
                stats.unmerged_segments += u64::from(!card.is_merged);
            }
        }
        stats.overlapping_segments_max = self.height() as u64;
        Ok(stats)
    }

    /// Reads every byte of every live segment and checks it.
    #[cfg(test)]
    fn verify(&self) -> Result<(), ReadError> {
        let shelf = self.shelf();
        shelf
            .products
            .values()
            .flatten()
            .try_for_each(|segment| segment.verify())
    }

    /// A new segment's, everything but its commits and columns.
    fn plan(&self, product: &ProductKey) -> Plan {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Plan {
            id,
            product: product.clone(),
            path: segment_file(&self.segments_dir, product, id),
            sequence_min: 0,
            sequence_max: 0,
            is_classified: false,
            is_merged: false,
            packing: Packing::Quick,
            columns: Vec::new(),
            done: Done::default(),
        }
    }

    /// A few devices at a time: commits wait for the same lock.
    fn save_latest(&self) -> Vec<latest::Saved> {
        let dirty = self.latest.lock().dirty();
        let some = dirty.chunks(LATEST_DEVICES);
        some.flat_map(|some| self.latest.lock().save(some))
            .collect()
    }

    fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelf.read())
    }

    /// Flush and work both change the shelf: each changes only what it knows of.
    fn change_shelf(&self, change: impl FnOnce(&mut Shelf)) {
        let mut shelf = self.shelf.write();
        let mut next = Shelf::clone(&shelf);
        change(&mut next);
        for (product, segments) in &mut next.products {
            sort(segments);
            let before = shelf.products.get(product);
            if before.is_none_or(|before| !same(before, segments)) {
                next.heights.insert(product.clone(), height(segments));
            }
        }
        *shelf = Arc::new(next);
    }

    /// Whether one more segment of some product would be more than a read shall have to join, and
    /// merges are about to change that. Where they fail it is better to go on.
    pub(crate) fn waits_for_merges(&self, mut products: impl Iterator<Item = ProductKey>) -> bool {
        let shelf = self.shelf();
        let is_high = |product: ProductKey| {
            let height = shelf.heights.get(&product);
            height.is_some_and(|height| self.is_high(*height))
        };
        !self.is_stuck.load(Ordering::Relaxed) && products.any(is_high)
    }

    /// The most segments of one product that hold the same moment of the same device.
    pub(crate) fn height(&self) -> usize {
        self.shelf().heights.values().copied().max().unwrap_or(0)
    }

    fn is_high(&self, height: usize) -> bool {
        height >= self.runs_max.max(2)
    }

    fn open_segment(&self, card: Card) -> Result<Arc<Segment>, FlushError> {
        let path = segment_file(&self.segments_dir, &card.product, card.id);
        let segment = Segment::open(&self.disk, path.clone(), card);
        segment.map(Arc::new).map_err(|error| FlushError::Damaged {
            file: path.display().to_string(),
            reason: error.to_string(),
        })
    }

    /// Writes a run; gives its chains and the duplicates that are so whatever stood before.
    fn write_run(
        &self,
        run: &Run,
        plan: Plan,
    ) -> Result<(PathBuf, Card, Chains, Repeats), FlushError> {
        let mut writer = SegmentWriter::create(&self.disk, plan)?;
        let columns = writer.plan().columns.clone();
        for rows in work::groups(run) {
            work::write_keys(&mut writer, run, rows.clone())?;
            let mut at = 3;
            for of_point in columns.chunk_by(|a, b| a.point == b.point) {
                let cells = run.cells(&of_point[0].point, rows.clone());
                for column in of_point {
                    writer.column(at, &work::role_array(column, cells.as_ref(), rows.len()))?;
                    at += 1;
                }
            }
            writer.end_rows()?;
        }
        let (mut chains, mut duplicates) = (Chains::default(), Repeats::new());
        for point in &run.points {
            run.meetings(point, |met| {
                let place = (run.device(met.row).clone(), run.times[met.row]);
                if met.is_duplicate_for_sure() && !chains.has(&place, &point.name) {
                    let sequence = met.newcomer.version().sequence;
                    *duplicates.entry(sequence).or_default() += 1;
                    return;
                }
                let points = chains.0.entry(place).or_default();
                let chain = points.entry(point.name.clone()).or_default();
                if chain.is_empty() {
                    chain.push(met.standing.version());
                }
                chain.push(met.newcomer.version());
            });
        }
        let (path, card) = writer.finish()?;
        Ok((path, card, chains, duplicates))
    }
}

/// The chronicle, made with the store or by the first version that has one; missing or older than the
/// manifest later, it has lost what the journal let go.
fn open_chronicle(
    dir: &Path,
    disk: &Arc<dyn Disk>,
    manifest: &Manifest,
) -> Result<Chronicle, OpenError> {
    if let Some(must_have) = manifest.chronicle()? {
        return Chronicle::open(dir, must_have);
    }
    let chronicle = Chronicle::create(dir)?;
    disk.sync_dir(dir)
        .map_err(|error| OpenError::io(dir, error))?;
    manifest.know_chronicle()?;
    Ok(chronicle)
}

/// In order of commit; the files of one merge by their first device and time.
fn sort(segments: &mut [Arc<Segment>]) {
    segments.sort_by(|a, b| {
        let first = |segment: &Segment| {
            segment
                .card
                .index
                .0
                .first()
                .map(|stretch| (stretch.device.clone(), stretch.first_ms))
        };
        (a.card.sequence_min, first(a)).cmp(&(b.card.sequence_min, first(b)))
    });
}

fn same(a: &[Arc<Segment>], b: &[Arc<Segment>]) -> bool {
    let ids = |segments: &[Arc<Segment>]| -> Vec<u64> {
        segments.iter().map(|segment| segment.card.id).collect()
    };
    ids(a) == ids(b)
}

/// The most segments that hold the same moment of the same device.
fn height(segments: &[Arc<Segment>]) -> usize {
    index::height(segments.iter().map(|segment| segment.card.index.as_ref()))
}

fn flush_columns(run: &Run) -> Vec<PointColumn> {
    let mut columns = Vec::new();
    for point in &run.points {
        let mut add = |role| {
            columns.push(PointColumn {
                point: point.name.clone(),
                storage: point.storage,
                role,
            });
        };
        add(Role::Value);
        if point.has_quality {
            add(Role::Quality);
        }
        if point.has_sequences {
            add(Role::Sequence);
        }
        if point.has_rules {
            add(Role::Rule);
        }
    }
    columns
}

fn changed(product: &ProductKey, clash: &StorageClash) -> FlushError {
    FlushError::StorageChanged {
        product: product.to_string(),
        point: clash.point.to_string(),
        stored: clash.stored,
        given: clash.given,
    }
}

/// Finished files that the manifest does not name yet: removed where it never will.
struct Unnamed<'a> {
    disk: &'a dyn Disk,
    paths: Vec<PathBuf>,
}

impl Drop for Unnamed<'_> {
    fn drop(&mut self) {
        self.paths.iter().for_each(|path| remove(self.disk, path));
    }
}

/// Removes files that the manifest does not name: of a flush or a merge that did not end, or merged
/// away while a reader held them.
fn remove_orphans(
    disk: &dyn Disk,
    segments_dir: &Path,
    products: &[ProductKey],
    shelf: &Shelf,
) -> Result<(), OpenError> {
    let live: HashSet<&Path> = shelf
        .products
        .values()
        .flatten()
        .map(|segment| segment.path.as_path())
        .collect();
    for product in products {
        let dir = product_dir(segments_dir, product);
        let files = match disk.list(&dir) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(OpenError::io(&dir, error)),
        };
        for path in files {
            if !live.contains(path.as_path()) {
                disk.remove(&path)
                    .map_err(|error| OpenError::io(&path, error))?;
            }
        }
    }
    Ok(())
}
