//! One run of an archive: every day that is due, then the manifest.
//!
//! A day is read and written whole, into files that always have the same names, and then noted as
//! done, up to the last commit that was noted before it was read. So a run that is killed at any moment does its last
//! day again and nothing else, and what is committed meanwhile makes its day due once more: nothing is
//! missed, nothing is there twice. Where retention has taken of a day what its file still has, or the
//! store was put back from a backup that is older than the file, the file stays, and what is new goes
//! into a further part.

use std::sync::Arc;

use backtide_model::ElementName;
use backtide_store::{EventRange, Floor, Order, Range};
use serde::Serialize;

use super::{
    ArchiveError, Archives, DAY_MS, Planned, WHOLE,
    place::{Draft, Place},
    records::{self, Slabs},
    sheet::{Sheet, behind},
    shelf::{DueDay, FileRecord, RunRecord},
};
use crate::{
    clock,
    limits::{ARCHIVE_FILES_MAX, ARCHIVE_PLANNED_SHOWN_MAX},
    query::{AskedPoint, declared_points},
    registry::{Archive, ArchiveOf, Product},
    retention,
};

/// Days that are looked up at once.
const DAYS_AT_ONCE: usize = 100;
/// Files that are written to the manifest at once.
const LISTED_AT_ONCE: usize = 1_000;
/// Floors rise from minute to minute: so much later counts as taken already.
const RETENTION_MARGIN_MS: i64 = 3_600_000;
const MANIFEST: &str = "manifest.json";

/// What is written of a day.
struct Job<'a> {
    archive: &'a Archive,
    product: &'a Product,
    place: &'a Place,
    /// What retention takes of the product now.
    floor: Floor,
}

/// What one file is about, and the files that are there of it.
struct Unit<'a> {
    day: i64,
    point: Option<&'a ElementName>,
    points: &'a [AskedPoint],
    olds: Vec<&'a FileRecord>,
    /// They may have what the store lost.
    is_ahead: bool,
}

/// A file that is written, and not there before it is kept.
struct Ready {
    file: FileRecord,
    draft: Draft,
}

impl Ready {
    fn keep(self) -> Result<FileRecord, ArchiveError> {
        let written = self.draft.keep()?;
        Ok(FileRecord {
            bytes: written.bytes,
            sha256: written.sha256,
            ..self.file
        })
    }
}

impl Archives {
    /// Runs an archive; `run` says how far it is. Blocks.
    pub(super) fn run_all(
        &self,
        archive: &Archive,
        run: &mut RunRecord,
    ) -> Result<(), ArchiveError> {
        let place = Place::open(archive, &self.root, &self.runtime)?;
        self.catch_up()?;
        for product in self.products(archive) {
            self.sweep(archive.file.of, &product.key)?;
            let job = Job {
                archive,
                product: &product,
                place: &place,
                floor: self.floor(archive.file.of, &product)?,
            };
            let mut after = i64::MIN;
            loop {
                let key = product.key.as_str();
                let due = self.shelf.lock().due(
                    archive.file.of,
                    &archive.uid,
                    key,
                    after,
                    DAYS_AT_ONCE,
                )?;
                let Some(last) = due.last() else { break };
                after = last.day;
                for day in due {
                    self.check()?;
                    self.write_day(&job, &day, run)?;
                }
            }
        }
        if run.manifest_due {
            self.write_manifest(archive, &place)?;
            run.manifest_due = false;
        }
        Ok(())
    }

    /// What a run would write now, and how many files at least. Blocks.
    ///
    /// # Errors
    /// The store or the file cannot be read.
    pub fn plan(&self, archive: &Archive) -> Result<(u64, Vec<Planned>), ArchiveError> {
        self.catch_up()?;
        let (mut days, mut planned) = (0, Vec::new());
        for product in self.products(archive) {
            let of = archive.file.of;
            self.sweep(of, &product.key)?;
            let (uid, key) = (&archive.uid, product.key.as_str());
            let room = ARCHIVE_PLANNED_SHOWN_MAX - planned.len();
            let shelf = self.shelf.lock();
            days += shelf.due_count(of, uid, key)?;
            let due = shelf.due(of, uid, key, i64::MIN, room)?;
            planned.extend(due.into_iter().map(|day| Planned {
                product: key.to_owned(),
                date: super::date(day.day),
                is_new: day.through.is_none(),
            }));
        }
        Ok((days, planned))
    }

    /// The products of an archive that are declared now.
    pub(super) fn products(&self, archive: &Archive) -> Vec<Arc<Product>> {
        let snapshot = self.registry.snapshot();
        let all = snapshot.products_after(None);
        let names = &archive.file.products;
        all.filter(|product| names.is_empty() || names.contains(&product.name))
            .cloned()
            .collect()
    }

    fn floor(&self, of: ArchiveOf, product: &Product) -> Result<Floor, ArchiveError> {
        let snapshot = self.registry.snapshot();
        let Some(storage) = snapshot.storage(&product.name) else {
            return Ok(Floor::NONE);
        };
        let soon_ms = self.clock.now_ms().saturating_add(RETENTION_MARGIN_MS);
        Ok(retention::whole_from(&self.store, storage, of, soon_ms)?)
    }

    fn write_day(
        &self,
        job: &Job<'_>,
        due: &DueDay,
        run: &mut RunRecord,
    ) -> Result<(), ArchiveError> {
        let uid = &*job.archive.uid;
        let key = job.product.key.as_str();
        let before = self.shelf.lock().files_of_day(uid, key, due.day)?;
        // Read before the rows are: what is committed meanwhile may be in them, and is looked at again. What
        // is not noted yet may have been driven again: only up to there is it known which rows are new.
        let of = job.archive.file.of;
        let (through, since) = self.shelf.lock().bounds(of, key, due)?;
        let points = declared_points(job.product);
        let units: Vec<(Option<&ElementName>, &[AskedPoint])> = match job.archive.file.by_point {
            true => points
                .iter()
                .map(|point| (Some(&point.name), std::slice::from_ref(point)))
                .collect(),
            false => vec![(None, &points)],
        };
        let mut files = Vec::new();
        for (point, points) in units {
            let name = point.map(ElementName::as_str);
            let olds = before.iter().filter(|old| old.point.as_deref() == name);
            let unit = Unit {
                day: due.day,
                point,
                points,
                olds: olds.collect(),
                is_ahead: due.is_ahead,
            };
            files.extend(self.write_unit(job, &unit, since)?);
        }
        let (total, ..) = self.shelf.lock().totals(uid)?;
        if total >= ARCHIVE_FILES_MAX {
            return Err(ArchiveError::TooManyFiles);
        }
        run.days += 1;
        run.manifest_due |= !files.is_empty();
        for file in &files {
            run.files += 1;
            run.rows += file.rows;
            run.bytes += file.bytes;
            let name = job.archive.name.to_string();
            metrics::counter!("backtide_archive_files_total", "archive" => name.clone())
                .increment(1);
            metrics::counter!("backtide_archive_rows_total", "archive" => name)
                .increment(file.rows);
        }
        let done = (key, due.day, through);
        self.shelf.lock().written(of, uid, done, &files, run)?;
        self.desk(uid).lock().run = Some(run.clone());
        Ok(())
    }

    /// Writes a day, or one point of it: anew, or what is new of it, behind `since`, as a further part.
    fn write_unit(
        &self,
        job: &Job<'_>,
        unit: &Unit<'_>,
        since: Option<u64>,
    ) -> Result<Option<FileRecord>, ArchiveError> {
        let next = unit.olds.iter().map(|old| old.part + 1).max();
        let rows_before: u64 = unit.olds.iter().map(|old| old.rows).sum();
        if next.is_none_or(|next| next == 1) && !job.is_taken_of(unit) {
            let whole = self.write_file(job, unit, 0, None)?;
            // Rows go only where retention takes them, perhaps by a policy that is there no more.
            if whole.as_ref().map_or(0, |ready| ready.file.rows) >= rows_before {
                return whole.map(Ready::keep).transpose();
            }
        }
        match (next, since) {
            (Some(part), Some(since)) => {
                let new = self.write_file(job, unit, part, Some(since))?;
                new.map(Ready::keep).transpose()
            }
            _ => Ok(None),
        }
    }

    /// Writes a file that is not there before it is kept; `None` where it would have no row.
    fn write_file(
        &self,
        job: &Job<'_>,
        unit: &Unit<'_>,
        part: u32,
        since: Option<u64>,
    ) -> Result<Option<Ready>, ArchiveError> {
        let path = path(job, unit.day, part, unit.point);
        let mut sheet = Sheet::new(&job.archive.file, unit.points)?;
        let mut draft: Option<Draft> = None;
        for slab in self.slabs(job, unit)? {
            self.check()?;
            let slab = slab?;
            let slab = match since {
                Some(since) => behind(&slab, since)?,
                None => slab,
            };
            if slab.num_rows() == 0 {
                continue;
            }
            sheet.write(&slab)?;
            let draft = match &mut draft {
                Some(draft) => draft,
                none => none.insert(job.place.begin(&path)?),
            };
            draft.write(&sheet.take())?;
        }
        let (Some(mut draft), (rest, Some(span))) = (draft, sheet.finish()?) else {
            return Ok(None);
        };
        draft.write(&rest)?;
        let file = FileRecord {
            path,
            product: job.product.key.to_string(),
            point: unit.point.map(ToString::to_string),
            day: unit.day,
            part,
            rows: span.rows,
            bytes: 0,
            sha256: String::new(),
            first_time: span.first_time,
            last_time: span.last_time,
            first_sequence: span.first_sequence,
            last_sequence: span.last_sequence,
        };
        Ok(Some(Ready { file, draft }))
    }

    /// What a file is made of.
    fn slabs(&self, job: &Job<'_>, unit: &Unit<'_>) -> Result<Slabs, ArchiveError> {
        let product = &job.product.key;
        let from_ms = unit.day.saturating_mul(DAY_MS);
        let to_ms = from_ms.saturating_add(DAY_MS);
        match job.archive.file.of {
            ArchiveOf::Points => {
                let points = unit.points.iter();
                let range = Range {
                    product: product.clone(),
                    devices: Vec::new(),
                    points: points.map(|point| point.name.clone()).collect(),
                    from_ms,
                    to_ms,
                    order: Order::DeviceTime,
                    after: None,
                    rows_max: usize::MAX,
                };
                let slabs = self.store.read(&range)?;
                Ok(Box::new(slabs.map(|slab| Ok(slab?))))
            }
            ArchiveOf::Events => {
                let range = EventRange {
                    product: product.clone(),
                    devices: Vec::new(),
                    events: Vec::new(),
                    from_ms,
                    to_ms,
                    after: None,
                    rows_max: usize::MAX,
                };
                records::events(&self.store, &range)
            }
            ArchiveOf::Attributes => records::attributes(&self.store, product),
        }
    }

    /// Lists every file of the archive in `manifest.json`, which is written last.
    fn write_manifest(&self, archive: &Archive, place: &Place) -> Result<(), ArchiveError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Head<'a> {
            version: u32,
            archive: &'a str,
            written: String,
            of: ArchiveOf,
            form: crate::registry::ArchiveForm,
            format: crate::registry::ArchiveFormat,
            files: u64,
            rows: u64,
            bytes: u64,
        }
        let uid = &*archive.uid;
        let (files, rows, bytes) = self.shelf.lock().totals(uid)?;
        let head = Head {
            version: 1,
            archive: archive.name.as_str(),
            written: clock::iso(self.clock.now_ms()),
            of: archive.file.of,
            form: archive.file.form,
            format: archive.file.format,
            files,
            rows,
            bytes,
        };
        let mut draft = place.begin(MANIFEST)?;
        let head = serde_json::to_string(&head).expect("numbers and texts are JSON");
        // The list is the last member: the closing brace comes behind it.
        draft.write(head.trim_end_matches('}').as_bytes())?;
        draft.write(b",\"list\":[")?;
        let mut after = (String::new(), i64::MIN, String::new());
        let mut separator = "\n";
        loop {
            let key = (after.0.as_str(), after.1, after.2.as_str());
            let page = self.shelf.lock().files_after(uid, key, LISTED_AT_ONCE)?;
            let Some(last) = page.last() else { break };
            let next = (last.product.clone(), last.day, last.path.clone());
            for file in &page {
                let line = serde_json::to_string(file).expect("numbers and texts are JSON");
                draft.write(separator.as_bytes())?;
                draft.write(line.as_bytes())?;
                separator = ",\n";
            }
            after = next;
        }
        draft.write(b"\n]}\n")?;
        draft.keep()?;
        Ok(())
    }
}

impl Job<'_> {
    /// Whether retention takes, or has taken, of a day what its files still have; or a backup that was
    /// put back.
    fn is_taken_of(&self, unit: &Unit<'_>) -> bool {
        let by_time = self.floor.time_ms > unit.day.saturating_mul(DAY_MS);
        let floor = self.floor.sequence.0;
        let by_commit = unit.olds.iter().any(|old| old.first_sequence < floor);
        !unit.olds.is_empty() && (by_time || by_commit || unit.is_ahead)
    }
}

/// Such as `product=LHBfarm1/date=2014-03-30/part-0000.parquet`; of attributes without a date.
fn path(job: &Job<'_>, day: i64, part: u32, point: Option<&ElementName>) -> String {
    let product = escaped(job.product.key.as_str());
    let point = point.map_or_else(String::new, |point| {
        format!("point={}/", escaped(point.as_str()))
    });
    let date = match day {
        WHOLE => String::new(),
        day => format!("date={}/", super::date(day)),
    };
    let ending = job.archive.file.format.ending();
    format!("product={product}/{point}{date}part-{part:04}.{ending}")
}

/// A name as a part of a path, as Hive and all who read its partitions write it.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                text.push(char::from(byte))
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert_eq!(escaped("P_avg-1.x"), "P_avg-1.x");
        assert_eq!(escaped("a/b:c=ü"), "a%2Fb%3Ac%3D%C3%BC");
    }
}
