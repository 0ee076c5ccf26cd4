//! The committed log: the journal files as followers read them, and their removal.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};

use super::{
    file::{FRAMES_AT, FileHeader, Found, Window},
    frame::{Header, Records},
    keys::{self, Keys},
    record::{self, Wanted},
    wire::DecodeError,
};
use crate::{
    Commit, Sequence,
    disk::{Disk, File},
};

/// One commit as a follower gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Followed {
    pub sequence: Sequence,
    pub commit: Commit,
}

/// Those among some commits that a follower has a use for.
#[derive(Debug, Clone, PartialEq)]
pub struct FollowedSome {
    /// Every one of them, in order; perhaps others.
    pub commits: Vec<Followed>,
    /// The last commit looked at.
    pub reached: Sequence,
    /// The latest arrival among all commits looked at, milliseconds since 1970 UTC; `None` where there
    /// was none.
    pub arrived_ms: Option<i64>,
}

/// Why the log cannot be followed from there.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("the log begins at commit {}: what came before was trimmed; read the segments", oldest.0)]
    Trimmed { oldest: Sequence },
    #[error("journal file {file} is damaged at byte {offset}: {reason}")]
    Damaged {
        file: String,
        offset: u64,
        reason: String,
    },
    #[error("journal file {file}: {error}")]
    Io { file: String, error: io::Error },
}

/// Journal files, oldest first, the last being written. Shared by the committer, who appends,
/// the followers and the trimmer.
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    files: RwLock<Vec<Arc<LogFile>>>,
}

/// One journal file, open.
pub(crate) struct LogFile {
    pub(crate) header: FileHeader,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn File>,
    extent: Mutex<Extent>,
}

struct Extent {
    /// Frames end here, or a little before in a file that no one has read yet.
    end: u64,
    /// No commit in the file arrived later; `None` while unknown.
    newest_ms: Option<i64>,
    /// Where some frames begin, ascending: at most one each [`INDEX_STEP_BYTES`].
    index: Vec<(Sequence, u64)>,
}

/// A follower walks over fewer headers than fit this; 64 MiB of log cost 16 KiB of memory.
const INDEX_STEP_BYTES: u64 = 64 << 10;

impl LogFile {
    pub(crate) fn new(header: FileHeader, path: PathBuf, file: Box<dyn File>, end: u64) -> Self {
        let extent = Extent {
            end,
            newest_ms: None,
            index: Vec::new(),
        };
        Self {
            header,
            path,
            file,
            extent: Mutex::new(extent),
        }
    }

    /// Takes note of a durable frame that ends at `end`.
    pub(crate) fn extend(&self, header: &Header, end: u64) {
        let mut extent = self.extent.lock();
        extent.end = end;
        extent.newest_ms = extent.newest_ms.max(Some(header.newest_ms));
        extent.remember(header.first, end - header.frame_bytes());
    }

    /// Frames end exactly here.
    pub(crate) fn close_at(&self, end: u64) {
        self.extent.lock().end = end;
    }

    pub(crate) fn set_newest_ms(&self, newest_ms: i64) {
        self.extent.lock().newest_ms = Some(newest_ms);
    }

    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn bytes(&self) -> u64 {
        self.extent.lock().end
    }

    fn newest_ms(&self) -> Option<i64> {
        self.extent.lock().newest_ms
    }

    /// A frame at or before the one with `want`, and where frames end.
    fn seek(&self, want: Sequence) -> (u64, u64) {
        let extent = self.extent.lock();
        let after = extent.index.partition_point(|(first, _)| *first <= want);
        let offset = after
            .checked_sub(1)
            .map_or(FRAMES_AT, |at| extent.index[at].1);
        (offset, extent.end)
    }

    fn io(&self, error: io::Error) -> FollowError {
        FollowError::Io {
            file: self.name(),
            error,
        }
    }

    fn damaged(&self, offset: u64, reason: &impl ToString) -> FollowError {
        FollowError::Damaged {
            file: self.name(),
            offset,
            reason: reason.to_string(),
        }
    }

    /// Adds to `page` what this file holds from `page.want` on.
    fn read(&self, durable: Sequence, page: &mut Page<'_>) -> Result<(), FollowError> {
        let (mut offset, end) = self.seek(page.want);
        let mut window = Window::new(&*self.file, end);
        while let Found::Frame(header) = window
            .find(offset, self.header.mark)
            .map_err(|error| self.io(error))?
        {
            if header.first > durable {
                page.is_full = true;
                return Ok(());
            }
            if header.last() >= page.want {
                let body = window
                    .body(offset, &header)
                    .map_err(|error| self.io(error))?;
                let body =
                    body.ok_or_else(|| self.damaged(offset, &"a frame does not fit its checksum"))?;
                let records = header
                    .open(body)
                    .map_err(|error| self.damaged(offset, &error))?;
                for record in Records::new(&header, &records) {
                    let (sequence, bytes) = record.map_err(|error| self.damaged(offset, &error))?;
                    if sequence < page.want {
                        continue;
                    }
                    if !page.has_room(bytes.len()) {
                        page.is_full = true;
                        return Ok(());
                    }
                    page.take(sequence, bytes)
                        .map_err(|error| self.damaged(offset, &error))?;
                }
            }
            self.extent.lock().remember(header.first, offset);
            offset += header.frame_bytes();
        }
        page.stopped_at = offset;
        Ok(())
    }
}

impl Extent {
    fn remember(&mut self, first: Sequence, offset: u64) {
        let next = self
            .index
            .last()
            .map_or(FRAMES_AT, |(_, last)| last + INDEX_STEP_BYTES);
        if offset >= next {
            self.index.push((first, offset));
        }
    }
}

fn missing(sequence: Sequence) -> String {
    format!("commit {} should stand here", sequence.0)
}

/// Which commits are decoded; all are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice {
    All,
    /// What may hold a refusal, or tries one again.
    Refusals,
    Of(Wanted),
}

/// One call of follow, on its way through the log.
struct Page<'t> {
    want: Sequence,
    taker: &'t mut dyn Taker,
    bytes: usize,
    bytes_max: usize,
    is_full: bool,
    stopped_at: u64,
}

/// What is made of the records that are come by.
trait Taker {
    fn take(&mut self, sequence: Sequence, bytes: &[u8]) -> Result<(), DecodeError>;
}

impl<'t> Page<'t> {
    fn new(from: Sequence, bytes_max: usize, taker: &'t mut dyn Taker) -> Self {
        Self {
            want: Sequence(from.0 + 1),
            taker,
            bytes: 0,
            bytes_max,
            is_full: false,
            stopped_at: 0,
        }
    }

    /// At least one commit goes into a page, whatever its size.
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes == 0 || self.bytes.saturating_add(bytes) <= self.bytes_max
    }

    fn take(&mut self, sequence: Sequence, bytes: &[u8]) -> Result<(), DecodeError> {
        self.taker.take(sequence, bytes)?;
        self.want = Sequence(sequence.0 + 1);
        self.bytes += bytes.len();
        Ok(())
    }

    /// The last commit looked at.
    fn reached(&self) -> Sequence {
        Sequence(self.want.0 - 1)
    }
}

/// Decodes the chosen commits.
struct Chosen {
    choice: Choice,
    followed: Vec<Followed>,
    /// The latest of all, where not all are wanted.
    arrived_ms: Option<i64>,
}

impl Chosen {
    fn new(choice: Choice) -> Self {
        Self {
            choice,
            followed: Vec::new(),
            arrived_ms: None,
        }
    }

    fn glance<'r>(&mut self, bytes: &'r [u8]) -> Result<record::Glance<'r>, DecodeError> {
        let seen = record::glance(bytes)?;
        self.arrived_ms = self.arrived_ms.max(Some(seen.arrived_ms));
        Ok(seen)
    }
}

impl Taker for Chosen {
    fn take(&mut self, sequence: Sequence, bytes: &[u8]) -> Result<(), DecodeError> {
        let is_wanted = match self.choice {
            Choice::All => true,
            Choice::Refusals => self.glance(bytes)?.may_refuse(),
            Choice::Of(wanted) => self.glance(bytes)?.may_be(wanted),
        };
        if is_wanted {
            let commit = record::decode(bytes)?;
            self.followed.push(Followed { sequence, commit });
        }
        Ok(())
    }
}

/// Decodes no values.
struct KeysOnly<'e> {
    rows: keys::Rows,
    each: &'e mut dyn FnMut(&Keys<'_>),
}

impl Taker for KeysOnly<'_> {
    fn take(&mut self, _: Sequence, bytes: &[u8]) -> Result<(), DecodeError> {
        keys::visit(bytes, &mut self.rows, self.each)
    }
}

impl Log {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path, files: Vec<Arc<LogFile>>) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
            files: RwLock::new(files),
        }
    }

    pub(crate) fn push(&self, file: Arc<LogFile>) {
        self.files.write().push(file);
    }

    pub(crate) fn newest(&self) -> Option<Arc<LogFile>> {
        self.files.read().last().cloned()
    }

    /// The first commit that can still be followed.
    pub(crate) fn oldest(&self) -> Option<Sequence> {
        self.files.read().first().map(|file| file.header.first)
    }

    /// Files, and bytes used in them.
    pub(crate) fn size(&self) -> (usize, u64) {
        let files = self.files.read();
        (files.len(), files.iter().map(|file| file.bytes()).sum())
    }

    /// Commits behind `from` up to `durable`, in order, about `bytes_max` of records at most.
    pub(crate) fn follow(
        &self,
        from: Sequence,
        durable: Sequence,
        bytes_max: usize,
    ) -> Result<Vec<Followed>, FollowError> {
        let mut chosen = Chosen::new(Choice::All);
        self.turn(&mut Page::new(from, bytes_max, &mut chosen), durable)?;
        Ok(chosen.followed)
    }

    /// The chosen ones among as many commits.
    pub(crate) fn follow_some(
        &self,
        from: Sequence,
        durable: Sequence,
        bytes_max: usize,
        choice: Choice,
    ) -> Result<FollowedSome, FollowError> {
        let mut chosen = Chosen::new(choice);
        let mut page = Page::new(from, bytes_max, &mut chosen);
        self.turn(&mut page, durable)?;
        Ok(FollowedSome {
            reached: page.reached(),
            commits: chosen.followed,
            arrived_ms: chosen.arrived_ms,
        })
    }

    /// What as many commits store points for; the last commit looked at. After an error `each` may have
    /// been called for some of them.
    pub(crate) fn follow_keys(
        &self,
        from: Sequence,
        durable: Sequence,
        bytes_max: usize,
        each: &mut dyn FnMut(&Keys<'_>),
    ) -> Result<Sequence, FollowError> {
        let rows = keys::Rows::default();
        let mut keys = KeysOnly { rows, each };
        let mut page = Page::new(from, bytes_max, &mut keys);
        self.turn(&mut page, durable)?;
        Ok(page.reached())
    }

    /// Fills a page.
    fn turn(&self, page: &mut Page<'_>, durable: Sequence) -> Result<(), FollowError> {
        if page.want > durable {
            return Ok(());
        }
        let files = self.files.read().clone();
        let after = files.partition_point(|file| file.header.first <= page.want);
        let mut before: Option<&Arc<LogFile>> = None;
        for file in &files[after.saturating_sub(1)..] {
            if page.want < file.header.first {
                match before {
                    _ if file.header.continues(page.want) => page.want = file.header.first,
                    None => {
                        return Err(FollowError::Trimmed {
                            oldest: file.header.first,
                        });
                    }
                    Some(before) => {
                        return Err(before.damaged(page.stopped_at, &missing(page.want)));
                    }
                }
            }
            file.read(durable, page)?;
            if page.is_full || page.want > durable {
                return Ok(());
            }
            before = Some(file);
        }
        // What is durable stands in some file, unless all were taken away.
        match before {
            None => Err(FollowError::Trimmed {
                oldest: Sequence(durable.0 + 1),
            }),
            Some(newest) => Err(newest.damaged(page.stopped_at, &missing(page.want))),
        }
    }

    /// Removes the oldest files while every commit in them is `settled` (flushed, and passed by
    /// every cursor) and they are older than `retention_ms` or all files together larger than
    /// `bytes_max`. Returns how many went.
    pub(crate) fn trim(
        &self,
        settled: Sequence,
        now_ms: i64,
        retention_ms: i64,
        bytes_max: u64,
    ) -> io::Result<usize> {
        let mut removed = 0;
        loop {
            let (_, bytes) = self.size();
            let files = self.files.read().clone();
            let [oldest, next, ..] = files.as_slice() else {
                return Ok(removed);
            };
            let is_settled = next.header.first.0 <= settled.0.saturating_add(1);
            let is_old = oldest
                .newest_ms()
                .is_some_and(|newest_ms| now_ms.saturating_sub(newest_ms) > retention_ms);
            if !is_settled || !(is_old || bytes > bytes_max) {
                return Ok(removed);
            }
            self.disk.remove(&oldest.path)?;
            // Directory fsync, contract: this name is gone before the next one goes. So what a
            // power loss leaves is always the end of the log, never a log with a hole.
            self.disk.sync_dir(&self.dir)?;
            self.files.write().remove(0);
            removed += 1;
        }
    }
}
