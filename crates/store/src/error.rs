//! Why a store does not open.

use std::{io, path::PathBuf};

use crate::{Sequence, journal::DecodeError, library};

/// Why a store does not open. No journal file was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("the store {} is open elsewhere: stop the other process", dir.display())]
    Locked { dir: PathBuf },
    /// Damage that no interrupted write explains: intact commits follow it.
    #[error(
        "journal file {} is damaged at byte {offset} ({reason}), but intact commits follow in {} \
         at byte {later_offset}: this is no interrupted write. The journal is as it was. Restore the \
         file from a backup, or run `backtide salvage`, which keeps what is intact and sets the \
         rest aside",
        file.display(), later_file.display()
    )]
    Damaged {
        file: PathBuf,
        offset: u64,
        reason: String,
        later_file: PathBuf,
        later_offset: u64,
    },
    #[error(
        "journal file {} has a damaged header ({error}). The journal is as it was. Restore the file \
         from a backup, or run `backtide salvage`",
        file.display()
    )]
    FileHeader { file: PathBuf, error: DecodeError },
    #[error(
        "journal file {} belongs to the store {found:08x}, this one is {expected:08x}: was it \
         copied here? move it away",
        file.display()
    )]
    Foreign {
        file: PathBuf,
        found: u32,
        expected: u32,
    },
    /// Whole commits are missing.
    #[error(
        "the journal has a gap: commits {} to {} should stand before {}. The journal is as it was. \
         Restore the missing file from a backup, or run `backtide salvage` to go on without them",
        from.0, to.0, before.display()
    )]
    Gap {
        from: Sequence,
        to: Sequence,
        before: PathBuf,
    },
    /// The segments hold commits that the journal should end with.
    #[error(
        "the journal ends at commit {} but commits up to {} were stored: its newest file is \
         missing or damaged. The journal is as it was. Restore it from a backup, or run \
         `backtide salvage` to go on without it",
        end.0, flushed.0
    )]
    Behind { end: Sequence, flushed: Sequence },
    #[error(
        "commit {} in journal file {} cannot be read: {error}; was it written by a newer \
         version?",
        sequence.0, file.display()
    )]
    Record {
        file: PathBuf,
        sequence: Sequence,
        error: DecodeError,
    },
    #[error("the disk is full: commits in the journal need space to be moved to segments")]
    DiskFull,
    #[error(transparent)]
    Library(#[from] library::OpenError),
    #[error("commits in the journal were not moved to segments: {0}")]
    Flush(library::FlushError),
}
