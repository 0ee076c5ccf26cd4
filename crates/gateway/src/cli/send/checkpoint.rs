//! How far a file is sent: written beside it while sending, so that `--resume` goes on there.
//!
//! It counts the rows of the file up to the first that is not answered. It is replaced by rename,
//! never written in place: a crash leaves the old or the new one.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const ENDING: &str = ".backtide-checkpoint";
/// Bytes of the file's beginning that identify it.
const HEAD_BYTES: u64 = 64 << 10;

/// What is known of a file that is being sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    pub file: Identity,
    pub channel: String,
    /// Rows from the beginning of the file that are all answered.
    pub rows_answered: u64,
    /// How many of them the gateway refused.
    pub rows_rejected: u64,
}

/// Tells a file from another, and from itself after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    pub bytes: u64,
    pub modified_ms: u64,
    /// SHA-256 of the first 64 KiB.
    pub head_sha256: String,
}

impl Identity {
    /// # Errors
    /// The file cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let modified = metadata
            .modified()?
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut head = Vec::new();
        file.take(HEAD_BYTES).read_to_end(&mut head)?;
        Ok(Self {
            bytes: metadata.len(),
            modified_ms: u64::try_from(modified.as_millis()).unwrap_or(u64::MAX),
            head_sha256: hex::encode(Sha256::digest(&head)),
        })
    }
}

/// Where the checkpoint of a file is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    candidates: Vec<PathBuf>,
}

impl Place {
    /// The named path, or else beside the file, or else, where that folder is read-only, in the
    /// current one.
    pub fn new(named: Option<&Path>, file: &Path) -> Self {
        if let Some(named) = named {
            return Self {
                candidates: vec![named.to_owned()],
            };
        }
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(ENDING);
        let mut candidates = vec![file.with_file_name(&name)];
        if candidates[0] != Path::new(&name) {
            candidates.push(PathBuf::from(name));
        }
        Self { candidates }
    }

    /// The checkpoint that an earlier run left.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(&self) -> Result<Option<Checkpoint>, String> {
        for path in &self.candidates {
            let text = match fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(format!(
                        "cannot read checkpoint {}: {error}",
                        path.display()
                    ));
                }
            };
            return serde_json::from_str(&text).map(Some).map_err(|error| {
                format!(
                    "{} is no checkpoint ({error}); remove it to begin again",
                    path.display()
                )
            });
        }
        Ok(None)
    }

    /// Writes the checkpoint and returns where.
    ///
    /// # Errors
    /// No place takes it.
    pub fn write(&self, checkpoint: &Checkpoint) -> io::Result<&Path> {
        let mut last = io::Error::other("no place for a checkpoint");
        for path in &self.candidates {
            match replace(path, checkpoint) {
                Ok(()) => return Ok(path),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The file is sent: its checkpoint is of no more use.
    pub fn remove(&self) {
        for path in &self.candidates {
            // One that is not there, or cannot be removed, says nothing wrong: all is answered.
            drop(fs::remove_file(path));
        }
    }
}

fn replace(path: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = File::create(&new)?;
    serde_json::to_writer_pretty(&mut file, checkpoint)?;
    file.write_all(b"\n")?;
    // Content before name: after a power loss the name must not lead to an empty file.
    file.sync_data()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(path: &Path, rows_answered: u64) -> Checkpoint {
        Checkpoint {
            file: Identity::of(path).unwrap(),
            channel: "scada-history".into(),
            rows_answered,
            rows_rejected: 0,
        }
    }

    #[test]
    fn a_checkpoint_reads_back_and_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("year.csv");
        fs::write(&file, "a,b\n1,2\n").unwrap();
        let place = Place::new(None, &file);
        assert_eq!(place.read().unwrap(), None);
        place.write(&sent(&file, 10)).unwrap();
        let path = place.write(&sent(&file, 20)).unwrap();
        assert_eq!(path, dir.path().join("year.csv.backtide-checkpoint"));
        assert_eq!(place.read().unwrap(), Some(sent(&file, 20)));
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            2,
            "nothing is left over"
        );
        place.remove();
        assert_eq!(place.read().unwrap(), None);
    }

    #[test]
    fn a_changed_file_is_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("year.csv");
        fs::write(&file, "a,b\n1,2\n").unwrap();
        let before = Identity::of(&file).unwrap();
        assert_eq!(Identity::of(&file).unwrap(), before);
        fs::write(&file, "a,b\n1,3\n").unwrap();
        assert_ne!(Identity::of(&file).unwrap().head_sha256, before.head_sha256);
    }

    #[test]
    fn where_the_folder_takes_no_file_the_next_place_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("year.csv");
        fs::write(&file, "a\n").unwrap();
        let fallback = dir.path().join("fallback");
        let place = Place {
            candidates: vec![dir.path().join("no-such-folder/x"), fallback.clone()],
        };
        assert_eq!(place.write(&sent(&file, 3)).unwrap(), fallback);
        assert_eq!(place.read().unwrap(), Some(sent(&file, 3)));
    }

    #[test]
    fn what_is_no_checkpoint_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("mine");
        fs::write(&named, "{}").unwrap();
        let error = Place::new(Some(&named), Path::new("x.csv"))
            .read()
            .unwrap_err();
        assert!(
            error.contains("mine") && error.contains("remove it"),
            "{error}"
        );
    }
}
