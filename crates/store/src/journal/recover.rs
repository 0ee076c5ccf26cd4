//! Reads the journal when a store opens: hands on what is not in segments yet, cuts a torn tail,
//! and refuses every other damage.
//!
//! A group is written only after the one before it was made durable. So a frame that is not
//! intact and has nothing behind it was never answered: an interrupted write, cut here. One with
//! any intact frame behind it was durable once: that is damage, and someone must know.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    file::{self, FRAMES_AT, FileHeader, Found, Window},
    frame::{Header, Records},
    log::{Log, LogFile},
    record,
    writer::Writer,
};
use crate::{Commit, OpenError, Sequence, disk::Disk};

/// What opening a store found in its journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Journal files kept.
    pub files: usize,
    /// Commits that were in no segment yet.
    pub commits: u64,
    /// Bytes of journal they took.
    pub bytes: u64,
    /// Bytes of an interrupted write that were cut off; no one was told that they are stored.
    pub torn_bytes: u64,
}

/// A journal, read and ready to go on.
pub(crate) struct Opened {
    pub(crate) log: Arc<Log>,
    pub(crate) writer: Writer,
    /// The newest commit; all up to here are durable.
    pub(crate) last: Sequence,
    pub(crate) recovery: Recovery,
}

/// What a journal belongs to.
pub(crate) struct Place<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    /// The directory of the journal files.
    pub(crate) dir: &'a Path,
    pub(crate) store_id: u32,
    /// Commits up to here are in segments.
    pub(crate) flushed: Sequence,
    pub(crate) file_bytes: u64,
}

/// Takes one recovered commit.
pub(crate) type Replay<'a> = dyn FnMut(Sequence, Commit) -> Result<(), OpenError> + 'a;

pub(crate) fn open(place: &Place<'_>, replay: &mut Replay<'_>) -> Result<Opened, OpenError> {
    let files = open_files(place)?;
    // Files before this one hold only commits that are in segments: they are read by followers.
    let begin = files
        .partition_point(|file| file.header.first.0 <= place.flushed.0 + 1)
        .saturating_sub(1);
    date_unread(files.get(..=begin).unwrap_or_default())?;

    let unflushed = Sequence(place.flushed.0 + 1);
    let next = files
        .get(begin)
        .map_or(unflushed, |file| file.header.first.min(unflushed));
    let mut scan = Scan {
        place,
        replay,
        next,
        recovery: Recovery::default(),
    };
    let mut end = None;
    for (at, file) in files.iter().enumerate().skip(begin) {
        end = Some(scan.file(file, &files[at + 1..])?);
    }
    let (last, mut recovery) = (Sequence(scan.next.0 - 1), scan.recovery);
    if last < place.flushed || (files.is_empty() && place.flushed > Sequence(0)) {
        let end = if files.is_empty() { Sequence(0) } else { last };
        return Err(OpenError::Behind {
            end,
            flushed: place.flushed,
        });
    }
    recovery.files = files.len();
    let log = Arc::new(Log::new(Arc::clone(place.disk), place.dir, files));
    let disk = Arc::clone(place.disk);
    let writer = Writer::new(
        disk,
        Arc::clone(&log),
        place.store_id,
        place.file_bytes,
        end,
    );
    Ok(Opened {
        log,
        writer,
        last,
        recovery,
    })
}

fn open_files(place: &Place<'_>) -> Result<Vec<Arc<LogFile>>, OpenError> {
    let failed = at(place.dir);
    place.disk.create_dir_all(place.dir).map_err(&failed)?;
    if let Some(parent) = place.dir.parent() {
        // Directory fsync, contract: the journal's directory survives power loss before anything
        // is put into it.
        place.disk.sync_dir(parent).map_err(&failed)?;
    }
    let mut files = Vec::new();
    for path in place.disk.list(place.dir).map_err(&failed)? {
        if path.extension().is_some_and(|extension| extension == "new") {
            // A rotation was interrupted before the file got its name.
            place.disk.remove(&path).map_err(at(&path))?;
        } else if file::sequence_of(&path).is_some() {
            files.push(Arc::new(open_file(place, path)?));
        }
    }
    if let Some(newest) = files.last() {
        // What a killed process wrote may so far be in the page cache only. fdatasync and
        // directory fsync, contract: what is read below survives power loss, so that no one is
        // told of a commit whose sequence could be given away again.
        newest.file.sync().map_err(at(&newest.path))?;
        place.disk.sync_dir(place.dir).map_err(&failed)?;
    }
    Ok(files)
}

fn open_file(place: &Place<'_>, path: PathBuf) -> Result<LogFile, OpenError> {
    let file = place.disk.open(&path).map_err(at(&path))?;
    let end = file.len().map_err(at(&path))?;
    let header = Window::new(&*file, end).file_header().map_err(at(&path))?;
    let header: FileHeader = header.map_err(|error| OpenError::FileHeader {
        file: path.clone(),
        error,
    })?;
    if header.mark.store_id != place.store_id {
        let (found, expected) = (header.mark.store_id, place.store_id);
        return Err(OpenError::Foreign {
            file: path,
            found,
            expected,
        });
    }
    if file::sequence_of(&path) != Some(header.first) {
        let error = super::DecodeError::Invalid("the file's name is not its first sequence");
        return Err(OpenError::FileHeader { file: path, error });
    }
    Ok(LogFile::new(header, path, file, end))
}

/// Gives the files that are not scanned an age: they are at most as new as the first frame of the
/// next one.
fn date_unread(files: &[Arc<LogFile>]) -> Result<(), OpenError> {
    for pair in files.windows(2) {
        let [file, next] = pair else { continue };
        let end = next.file.len().map_err(at(&next.path))?;
        let found = Window::short(&*next.file, end)
            .find(FRAMES_AT, next.header.mark)
            .map_err(at(&next.path))?;
        if let Found::Frame(header) = found {
            file.set_newest_ms(header.newest_ms);
        }
    }
    Ok(())
}

struct Scan<'a> {
    place: &'a Place<'a>,
    replay: &'a mut Replay<'a>,
    /// The sequence that must come next.
    next: Sequence,
    recovery: Recovery,
}

impl Scan<'_> {
    /// Reads one file; returns where its frames end and how far it is allocated.
    fn file(&mut self, file: &LogFile, later: &[Arc<LogFile>]) -> Result<(u64, u64), OpenError> {
        let header = &file.header;
        if !header.continues(self.next) {
            return Err(OpenError::Gap {
                from: self.next,
                to: Sequence(header.first.0.saturating_sub(1)),
                before: file.path.clone(),
            });
        }
        self.next = header.first;
        let len = file.file.len().map_err(at(&file.path))?;
        let mut window = Window::new(&*file.file, len);
        let mut offset = FRAMES_AT;
        let reason = loop {
            match window.find(offset, header.mark).map_err(at(&file.path))? {
                Found::Nothing { reason } => break reason,
                Found::Frame(frame) if frame.first != self.next => {
                    break "the frame is not the next in sequence";
                }
                Found::Frame(frame) => {
                    if !self.frame(file, &mut window, offset, &frame)? {
                        break "the frame does not fit its checksum";
                    }
                    offset += frame.frame_bytes();
                    file.extend(&frame, offset);
                    self.next = Sequence(frame.last().0 + 1);
                }
            }
        };
        file.close_at(offset);
        if window.is_zero_from(offset).map_err(at(&file.path))? {
            return Ok((offset, len));
        }
        self.refuse_damage(file, &mut window, offset, reason, later)?;
        self.cut(file, offset, len)?;
        Ok((offset, offset))
    }

    /// Hands on the commits of a frame that are in no segment; false if it is damaged.
    fn frame(
        &mut self,
        file: &LogFile,
        window: &mut Window<'_>,
        offset: u64,
        frame: &Header,
    ) -> Result<bool, OpenError> {
        if frame.last() <= self.place.flushed {
            return Ok(true);
        }
        let Some(body) = window.body(offset, frame).map_err(at(&file.path))? else {
            return Ok(false);
        };
        let unreadable = |sequence| {
            let file = file.path.clone();
            move |error| OpenError::Record {
                file,
                sequence,
                error,
            }
        };
        let records = frame.open(body).map_err(unreadable(frame.first))?;
        for record in Records::new(frame, &records) {
            let (sequence, bytes) = record.map_err(unreadable(frame.first))?;
            if sequence <= self.place.flushed {
                continue;
            }
            let commit = record::decode(bytes).map_err(unreadable(sequence))?;
            (self.replay)(sequence, commit)?;
            self.recovery.commits += 1;
        }
        self.recovery.bytes += frame.frame_bytes();
        Ok(true)
    }

    /// Looks for anything durable behind a frame that is not intact.
    fn refuse_damage(
        &self,
        file: &LogFile,
        window: &mut Window<'_>,
        offset: u64,
        reason: &str,
        later: &[Arc<LogFile>],
    ) -> Result<(), OpenError> {
        let damaged = |later_file: &Path, later_offset| OpenError::Damaged {
            file: file.path.clone(),
            offset,
            reason: reason.to_owned(),
            later_file: later_file.to_owned(),
            later_offset,
        };
        let mark = file.header.mark;
        let is_later = |frame: &Header| frame.mark == mark && frame.first != self.next;
        if let Some((at, _)) = window.search(offset, is_later).map_err(at(&file.path))? {
            return Err(damaged(&file.path, at));
        }
        // A further file was begun only after the last frame of this one was durable.
        match later.first() {
            Some(next) => Err(damaged(&next.path, 0)),
            None => Ok(()),
        }
    }

    fn cut(&mut self, file: &LogFile, offset: u64, len: u64) -> Result<(), OpenError> {
        tracing::warn!(
            file = file.name(),
            offset,
            "an interrupted write at the end of the journal was cut off"
        );
        file.file.truncate(offset).map_err(at(&file.path))?;
        // fdatasync, contract: the torn bytes are gone before a frame is written over them; else
        // a part of them could come back behind it after a power loss.
        file.file.sync().map_err(at(&file.path))?;
        self.recovery.torn_bytes = len - offset;
        Ok(())
    }
}

pub(super) fn at(path: &Path) -> impl Fn(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |error| OpenError::Io {
        path: path.clone(),
        error,
    }
}
