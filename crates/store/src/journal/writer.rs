//! Appends groups to the journal, one write and one fdatasync each, and rotates its files.

use std::{io, path::PathBuf, sync::Arc};

use super::{
    file::{FRAMES_AT, FileHeader, path_of},
    frame::FrameBuilder,
    log::{Log, LogFile},
};
use crate::{Sequence, disk::Disk};

/// Why a group was not appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// No space for another file. Nothing of the group was written: it may be tried again.
    #[error("no space for another journal file")]
    DiskFull,
    /// What is on disk is unknown.
    #[error("journal file {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    log: Arc<Log>,
    store_id: u32,
    file_bytes: u64,
    active: Option<Active>,
}

struct Active {
    file: Arc<LogFile>,
    /// The next frame goes here.
    end: u64,
    /// Below this, writing cannot run out of space.
    allocated: u64,
}

impl Writer {
    /// A writer that goes on at `end` of the log's newest file, behind which nothing stands but
    /// zeros; or that begins a file, where there is none.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        log: Arc<Log>,
        store_id: u32,
        file_bytes: u64,
        end: Option<(u64, u64)>,
    ) -> Self {
        let active = log
            .newest()
            .zip(end)
            .map(|(file, (end, allocated))| Active {
                file,
                end,
                allocated,
            });
        Self {
            disk,
            log,
            store_id,
            file_bytes,
            active,
        }
    }

    /// Makes a group durable. `first` is the sequence of its first record.
    pub(crate) fn append(
        &mut self,
        group: &mut FrameBuilder,
        first: Sequence,
    ) -> Result<(), AppendError> {
        let bytes = group.pack();
        let active = self.with_room(bytes, first)?;
        let file = &active.file;
        let failed = |error| AppendError::Io {
            path: file.path.clone(),
            error,
        };
        let (frame, header) = group.seal(file.header.mark, first);

        // One write into allocated space. Contract: none yet; until the sync below any part of it
        // may be on disk or not.
        file.file.write_at(frame, active.end).map_err(failed)?;
        // fdatasync. Contract: when it returns, the frame is on the medium and survives power
        // loss; the file's name and size are already there (`begin`). Only now may anyone be told,
        // and only now may the next group be written: a frame with another behind it was durable.
        file.file.sync().map_err(failed)?;

        active.end += bytes;
        file.extend(&header, active.end);
        Ok(())
    }

    fn with_room(&mut self, bytes: u64, first: Sequence) -> Result<&mut Active, AppendError> {
        let fits_allocated = self
            .active
            .as_ref()
            .is_some_and(|active| active.end + bytes <= active.allocated);
        if !fits_allocated {
            let fits_file = self
                .active
                .as_ref()
                .filter(|active| active.end + bytes <= self.file_bytes);
            match fits_file {
                Some(active) => {
                    // Allocation, contract: blocks are reserved, so that a write cannot fail for
                    // lack of space. Their durability comes with the fdatasync of what is written.
                    active
                        .file
                        .file
                        .allocate(self.file_bytes)
                        .map_err(|error| full_or_io(error, active.file.path.clone()))?;
                    let end = active.end;
                    let file = Arc::clone(&active.file);
                    self.active = Some(Active {
                        file,
                        end,
                        allocated: self.file_bytes,
                    });
                }
                None => self.rotate(bytes, first)?,
            }
        }
        Ok(self.active.as_mut().expect("a file was there or was begun"))
    }

    fn rotate(&mut self, bytes: u64, first: Sequence) -> Result<(), AppendError> {
        let len = self.file_bytes.max(FRAMES_AT + bytes);
        let file = begin(&*self.disk, &self.log, self.store_id, first, 0, len)?;
        if let Some(full) = &self.active
            && let Err(error) = full.file.file.truncate(full.end)
        {
            // Only the free space behind the last frame stays reserved.
            tracing::warn!(file = full.file.name(), %error, "a full journal file was not shortened");
        }
        self.log.push(Arc::clone(&file));
        self.active = Some(Active {
            file,
            end: FRAMES_AT,
            allocated: len,
        });
        Ok(())
    }
}

/// Makes a journal file without frames, whole and durable under its name.
pub(super) fn begin(
    disk: &dyn Disk,
    log: &Log,
    store_id: u32,
    first: Sequence,
    skipped: u64,
    len: u64,
) -> Result<Arc<LogFile>, AppendError> {
    let path = path_of(&log.dir, first);
    let new = path.with_extension("new");
    let header = FileHeader::new(store_id, first, skipped);
    let prepared = disk.create(&new).and_then(|file| {
        file.allocate(len)?;
        file.write_at(&header.encode(), 0)?;
        // fdatasync, contract: header and length are on the medium before the name says that
        // this is a journal file.
        file.sync()?;
        Ok(file)
    });
    let file = match prepared {
        Ok(file) => file,
        Err(error) => {
            // The next attempt needs the name; a start removes it too.
            if let Err(error) = disk.remove(&new) {
                tracing::warn!(file = %new.display(), %error, "a journal file half made stays");
            }
            return Err(full_or_io(error, new));
        }
    };
    let failed = |error| AppendError::Io {
        path: path.clone(),
        error,
    };
    disk.rename(&new, &path).map_err(failed)?;
    // Directory fsync, contract: the name survives power loss before the first frame is written
    // under it.
    disk.sync_dir(&log.dir).map_err(failed)?;
    Ok(Arc::new(LogFile::new(header, path, file, FRAMES_AT)))
}

fn full_or_io(error: io::Error, path: PathBuf) -> AppendError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::DiskFull,
        _ => AppendError::Io { path, error },
    }
}
