//! Makes a damaged journal one that a store opens: keeps every intact frame, sets the damaged bytes
//! aside, and writes down which commits are left out. Only a person decides to run it.
//!
//! It may be interrupted and run again: a file is replaced only after everything intact in it
//! stands elsewhere.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use super::{
    file::{self, FRAMES_AT, FileHeader, Found, Window, path_of},
    frame::{Header, Mark, Records},
    record,
    recover::{Place, at},
};
use crate::{OpenError, Sequence, disk::File};

/// What a salvage did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Salvaged {
    /// Intact commits found in the journal.
    pub commits: u64,
    /// Damaged bytes, each range in a file of its own.
    pub aside: Vec<PathBuf>,
    /// Commits that the journal no longer has, from and to. Those that were in segments still are.
    pub left_out: Vec<(Sequence, Sequence)>,
}

pub(crate) fn salvage(place: &Place<'_>, aside: &Path) -> Result<Salvaged, OpenError> {
    place.disk.create_dir_all(aside).map_err(at(aside))?;
    if let Some(parent) = aside.parent() {
        place.disk.sync_dir(parent).map_err(at(parent))?;
    }
    let (written, report) = (HashSet::new(), Salvaged::default());
    let mut salvage = Salvage {
        place,
        aside,
        next: None,
        written,
        report,
    };
    for path in place.disk.list(place.dir).map_err(at(place.dir))? {
        // What this very run has written, perhaps over the copy of an interrupted one, is sound.
        if file::sequence_of(&path).is_some() && !salvage.written.contains(&path) {
            salvage.file(&path)?;
        }
    }
    salvage.end()?;
    Ok(salvage.report)
}

/// Frames back to back, in one sequence.
struct Run {
    from: u64,
    to: u64,
    first: Sequence,
    /// The sequence after the last.
    next: Sequence,
}

/// What a file holds.
struct Survey {
    mark: Mark,
    header: Option<FileHeader>,
    runs: Vec<Run>,
    damaged: Vec<(u64, u64)>,
}

struct Salvage<'a> {
    place: &'a Place<'a>,
    aside: &'a Path,
    /// The sequence due next; `None` before the first file.
    next: Option<Sequence>,
    written: HashSet<PathBuf>,
    report: Salvaged,
}

impl Salvage<'_> {
    fn file(&mut self, path: &Path) -> Result<(), OpenError> {
        let disk = &**self.place.disk;
        let file = disk.open(path).map_err(at(path))?;
        let len = file.len().map_err(at(path))?;
        let survey = self.survey(path, &mut Window::new(&*file, len), len)?;
        let due = self.due(survey.header, &survey.runs);
        self.next = Some(survey.runs.last().map_or(due, |run| run.next));
        if survey.is_whole(due) {
            return Ok(());
        }
        for (from, to) in &survey.damaged {
            self.set_aside(path, &*file, *from, *to)?;
        }
        let mut due = due;
        let mut replacement = None;
        for run in &survey.runs {
            let skipped = run.first.0 - due.0;
            if skipped > 0 {
                self.report.left_out.push((due, Sequence(run.first.0 - 1)));
            }
            due = run.next;
            let header = FileHeader {
                mark: survey.mark,
                first: run.first,
                skipped,
            };
            let new = self.write(&*file, run, &header)?;
            let target = path_of(self.place.dir, run.first);
            if target == path {
                replacement = Some(new);
            } else {
                disk.rename(&new, &target).map_err(at(&target))?;
                self.written.insert(target);
            }
        }
        // Directory fsync, contract: the runs stand under their names before the file they were
        // copied from goes.
        disk.sync_dir(self.place.dir).map_err(at(self.place.dir))?;
        match replacement {
            Some(new) => disk.rename(&new, path),
            None => disk.remove(path),
        }
        .map_err(at(path))?;
        disk.sync_dir(self.place.dir).map_err(at(self.place.dir))
    }

    /// The sequence that should come first in a file.
    fn due(&self, header: Option<FileHeader>, runs: &[Run]) -> Sequence {
        self.next.unwrap_or_else(|| {
            // What came before the oldest file was trimmed, if it is in segments.
            let unflushed = Sequence(self.place.flushed.0 + 1);
            let first = header
                .map(|header| header.first)
                .or(runs.first().map(|run| run.first));
            first.map_or(unflushed, |first| first.min(unflushed))
        })
    }

    fn survey(
        &mut self,
        path: &Path,
        window: &mut Window<'_>,
        len: u64,
    ) -> Result<Survey, OpenError> {
        let header = window.file_header().map_err(at(path))?.ok();
        let (store_id, expected) = (header.map(|it| it.mark.store_id), self.place.store_id);
        if let Some(found) = store_id.filter(|found| *found != expected) {
            return Err(OpenError::Foreign {
                file: path.to_owned(),
                found,
                expected,
            });
        }
        let begin = if header.is_some() { FRAMES_AT } else { 0 };
        let found = window.search(begin, |frame| frame.mark.store_id == expected);
        let mark = header
            .map(|header| header.mark)
            .or(found.map_err(at(path))?.map(|(_, frame)| frame.mark))
            .unwrap_or(Mark {
                store_id: expected,
                salt: 0,
            });
        let mut survey = Survey {
            mark,
            header,
            runs: Vec::new(),
            damaged: Vec::new(),
        };
        let mut offset = begin;
        let mut next = self.next.unwrap_or(Sequence(0));
        while offset < len {
            match window.find(offset, mark).map_err(at(path))? {
                Found::Frame(frame)
                    if frame.first >= next && self.is_intact(path, window, offset, &frame)? =>
                {
                    survey.add(offset, &frame);
                    next = Sequence(frame.last().0 + 1);
                    offset += frame.frame_bytes();
                }
                _ if window.is_zero_from(offset).map_err(at(path))? => break,
                _ => {
                    let is_next = |frame: &Header| frame.mark == mark && frame.first >= next;
                    let to = window.search(offset + 1, is_next).map_err(at(path))?;
                    let to = to.map_or(len, |(to, _)| to);
                    survey.damage(offset, to);
                    offset = to;
                }
            }
        }
        Ok(survey)
    }

    fn is_intact(
        &mut self,
        path: &Path,
        window: &mut Window<'_>,
        offset: u64,
        frame: &Header,
    ) -> Result<bool, OpenError> {
        let Some(body) = window.body(offset, frame).map_err(at(path))? else {
            return Ok(false);
        };
        // Intact bytes that do not read are of a newer version, which should salvage them.
        let unreadable = |error| {
            let (file, sequence) = (path.to_owned(), frame.first);
            OpenError::Record {
                file,
                sequence,
                error,
            }
        };
        let records = frame.open(body).map_err(unreadable)?;
        for record in Records::new(frame, &records) {
            record
                .and_then(|(_, bytes)| record::decode(bytes))
                .map_err(unreadable)?;
            self.report.commits += 1;
        }
        Ok(true)
    }

    fn set_aside(
        &mut self,
        path: &Path,
        file: &dyn File,
        from: u64,
        to: u64,
    ) -> Result<(), OpenError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = self.aside.join(format!("{name}.{from}-{to}"));
        let disk = &**self.place.disk;
        // Only an earlier, interrupted salvage made one of this name: of the same bytes.
        let taken = disk
            .list(self.aside)
            .map_err(at(self.aside))?
            .contains(&aside);
        if taken {
            disk.remove(&aside).map_err(at(&aside))?;
        }
        let copy = disk.create(&aside).map_err(at(&aside))?;
        copy_range(file, from, to, &*copy, 0).map_err(at(&aside))?;
        copy.sync().map_err(at(&aside))?;
        disk.sync_dir(self.aside).map_err(at(self.aside))?;
        self.report.aside.push(aside);
        Ok(())
    }

    /// Copies a run into a file of its own, not yet under its name.
    fn write(&self, file: &dyn File, run: &Run, header: &FileHeader) -> Result<PathBuf, OpenError> {
        let disk = &**self.place.disk;
        let new = path_of(self.place.dir, run.first).with_extension("new");
        if disk
            .list(self.place.dir)
            .map_err(at(self.place.dir))?
            .contains(&new)
        {
            disk.remove(&new).map_err(at(&new))?;
        }
        let copy = disk.create(&new).map_err(at(&new))?;
        copy.write_at(&header.encode(), 0).map_err(at(&new))?;
        copy_range(file, run.from, run.to, &*copy, FRAMES_AT).map_err(at(&new))?;
        // fdatasync, contract: the copy is on the medium before its name says so.
        copy.sync().map_err(at(&new))?;
        Ok(new)
    }

    /// Where the journal ends before what is in segments, it goes on behind them.
    fn end(&mut self) -> Result<(), OpenError> {
        let due = self.next.unwrap_or(Sequence(1));
        let flushed = self.place.flushed;
        if due > flushed {
            return Ok(());
        }
        self.report.left_out.push((due, flushed));
        let first = Sequence(flushed.0 + 1);
        let header = FileHeader::new(self.place.store_id, first, first.0 - due.0);
        let disk = &**self.place.disk;
        let target = path_of(self.place.dir, first);
        let new = target.with_extension("new");
        let file = disk.create(&new).map_err(at(&new))?;
        file.write_at(&header.encode(), 0).map_err(at(&new))?;
        file.sync().map_err(at(&new))?;
        disk.rename(&new, &target).map_err(at(&target))?;
        disk.sync_dir(self.place.dir).map_err(at(self.place.dir))
    }
}

impl Survey {
    fn add(&mut self, offset: u64, frame: &Header) {
        let (to, next) = (offset + frame.frame_bytes(), Sequence(frame.last().0 + 1));
        match self.runs.last_mut() {
            Some(run) if run.to == offset && run.next == frame.first => {
                run.to = to;
                run.next = next;
            }
            _ => self.runs.push(Run {
                from: offset,
                to,
                first: frame.first,
                next,
            }),
        }
    }

    fn damage(&mut self, from: u64, to: u64) {
        match self.damaged.last_mut() {
            Some((_, end)) if *end == from => *end = to,
            _ => self.damaged.push((from, to)),
        }
    }

    /// Whether the file can stay as it is.
    fn is_whole(&self, due: Sequence) -> bool {
        let Some(header) = self.header else {
            return false;
        };
        let first = self.runs.first().map_or(header.first, |run| run.first);
        self.damaged.is_empty()
            && self.runs.len() <= 1
            && header.first == first
            && header.continues(due)
    }
}

fn copy_range(
    from: &dyn File,
    begin: u64,
    end: u64,
    to: &dyn File,
    mut offset: u64,
) -> std::io::Result<()> {
    const STEP: usize = 256 << 10;
    let mut window = Window::new(from, end);
    let mut at = begin;
    while at < end {
        let bytes = window.bytes(at, STEP)?;
        if bytes.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        to.write_at(bytes, offset)?;
        at += bytes.len() as u64;
        offset += bytes.len() as u64;
    }
    Ok(())
}
