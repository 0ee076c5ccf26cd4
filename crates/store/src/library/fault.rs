//! What can go wrong with segments and the manifest.

use std::{io, path::Path};

use parquet::errors::ParquetError;

use super::codec::Damaged;
use crate::ReadError;

/// Why a flush, a merge or a classification failed. Nothing of it is live, and what it wrote is
/// removed; trying again is safe.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    #[error("the disk is full while writing {file}: free space on it")]
    DiskFull { file: String },
    #[error("{file}: {source}")]
    Io { file: String, source: io::Error },
    /// A file or a blob does not hold what was written to it.
    #[error("{file} is damaged: {reason}")]
    Damaged { file: String, reason: String },
    #[error("manifest: {0}")]
    Manifest(String),
    #[error("chronicle: {0}")]
    Chronicle(String),
    /// The committer let two storages of one point pass.
    #[error("point {point} of product {product} arrived as {given:?} and is stored as {stored:?}")]
    StorageChanged {
        product: String,
        point: String,
        stored: backtide_model::Storage,
        given: backtide_model::Storage,
    },
}

pub(super) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl FlushError {
    pub(super) fn io(file: &Path, source: io::Error) -> Self {
        let file = file.display().to_string();
        if is_disk_full(&source) {
            Self::DiskFull { file }
        } else {
            Self::Io { file, source }
        }
    }

    pub(super) fn parquet(file: &Path, error: ParquetError) -> Self {
        let damaged = |reason| Self::Damaged {
            file: file.display().to_string(),
            reason,
        };
        match error {
            ParquetError::External(source) => match source.downcast::<io::Error>() {
                // A read that met wrong checksums says so by this kind.
                Ok(source) if source.kind() == io::ErrorKind::InvalidData => {
                    damaged(source.to_string())
                }
                Ok(source) => Self::io(file, *source),
                Err(source) => damaged(source.to_string()),
            },
            error => damaged(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for FlushError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull {
                file: "manifest.db".into(),
            },
            _ => Self::Manifest(error.to_string()),
        }
    }
}

impl From<Damaged> for FlushError {
    fn from(damaged: Damaged) -> Self {
        Self::Manifest(damaged.to_string())
    }
}

impl From<ReadError> for FlushError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Segment { file, reason } => Self::Damaged { file, reason },
            ReadError::Manifest(reason) => Self::Manifest(reason),
            ReadError::Chronicle(reason) => Self::Chronicle(reason),
        }
    }
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Manifest(error.to_string())
    }
}

impl From<Damaged> for ReadError {
    fn from(damaged: Damaged) -> Self {
        Self::Manifest(damaged.to_string())
    }
}

/// Why a library did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("manifest: {0}")]
    Manifest(String),
    #[error("manifest has format {found}, this version reads {known}")]
    Format { found: i64, known: i64 },
    #[error("chronicle.db: {0}")]
    Chronicle(String),
    #[error("segment {file} is missing: restore it from a backup")]
    Missing { file: String },
    #[error("segment {file} has {found} bytes instead of {expected}: restore it from a backup")]
    Length {
        file: String,
        found: u64,
        expected: u64,
    },
    #[error("segment {file} is damaged: {reason}")]
    Damaged { file: String, reason: String },
    #[error("{file}: {source}")]
    Io { file: String, source: io::Error },
}

impl OpenError {
    pub(super) fn io(file: &Path, source: io::Error) -> Self {
        Self::Io {
            file: file.display().to_string(),
            source,
        }
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Manifest(error.to_string())
    }
}

impl From<Damaged> for OpenError {
    fn from(damaged: Damaged) -> Self {
        Self::Manifest(damaged.to_string())
    }
}
