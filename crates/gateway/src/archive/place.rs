//! Where files go: a folder, or a bucket. A file is there whole or not at all.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use object_store::{
    ClientOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    aws::AmazonS3Builder, path::Path as ObjectPath,
};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use crate::{
    limits::ARCHIVE_PART_BYTES,
    registry::{Archive, S3File},
};

/// An answer of S3, a piece of an object included.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const TRIES_MAX: usize = 4;
/// Folders above a file: its partitions, the archive's, and what these are in.
const FOLDERS_SYNCED: usize = 6;
const TRY_FOR: Duration = Duration::from_secs(60);

/// Why a place cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("s3: {0}")]
    Bucket(String),
    #[error(
        "the secret of its S3 access key is not set; set it with `backtide archive secret {0}`"
    )]
    NoSecret(String),
}

/// A place that is open.
#[derive(Clone)]
pub(super) enum Place {
    Folder(PathBuf),
    Bucket {
        objects: Arc<dyn ObjectStore>,
        prefix: String,
        runtime: Handle,
    },
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) bytes: u64,
    /// In hex.
    pub(super) sha256: String,
}

impl Place {
    /// Opens the place of an archive; folders are below `root`.
    pub(super) fn open(
        archive: &Archive,
        root: &Path,
        runtime: &Handle,
    ) -> Result<Self, PlaceError> {
        let to = &archive.file.to;
        match (&to.folder, &to.s3) {
            (_, Some(s3)) => bucket(archive, s3, runtime),
            (Some(folder), None) => Ok(Self::Folder(root.join(folder))),
            // What is declared names one of them.
            (None, None) => Ok(Self::Folder(root.join(archive.name.as_str()))),
        }
    }

    /// Begins a file. It is not there before it is kept. Blocks.
    pub(super) fn begin(&self, path: &str) -> Result<Draft, PlaceError> {
        let body = match self {
            Self::Folder(folder) => FileDraft::begin(&folder.join(path)).map(Body::File)?,
            Self::Bucket {
                objects,
                prefix,
                runtime,
            } => Body::Object(ObjectDraft {
                objects: Arc::clone(objects),
                path: object_path(prefix, path)?,
                runtime: runtime.clone(),
                piece: Vec::new(),
                upload: None,
            }),
        };
        Ok(Draft {
            body,
            sha256: Sha256::new(),
            bytes: 0,
        })
    }
}

fn bucket(archive: &Archive, s3: &S3File, runtime: &Handle) -> Result<Place, PlaceError> {
    let secret = archive.secret.as_ref();
    let secret = secret.ok_or_else(|| PlaceError::NoSecret(archive.name.to_string()))?;
    // Another part of the process may have been first: it is the same one.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = ClientOptions::new()
        .with_timeout(ANSWER_WITHIN)
        .with_connect_timeout(CONNECT_WITHIN);
    let retry = RetryConfig {
        max_retries: TRIES_MAX,
        retry_timeout: TRY_FOR,
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&s3.bucket)
        .with_region(&s3.region)
        .with_access_key_id(&s3.access_key_id)
        .with_secret_access_key(secret.expose_secret())
        .with_client_options(client)
        .with_retry(retry);
    if let Some(endpoint) = &s3.endpoint {
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"));
    }
    let objects = builder.build().map_err(|error| refused(&error))?;
    Ok(Place::Bucket {
        objects: Arc::new(objects),
        prefix: s3.prefix.clone(),
        runtime: runtime.clone(),
    })
}

fn object_path(prefix: &str, path: &str) -> Result<ObjectPath, PlaceError> {
    let whole = match prefix {
        "" => path.to_owned(),
        prefix => format!("{prefix}/{path}"),
    };
    ObjectPath::parse(&whole).map_err(|error| PlaceError::Bucket(error.to_string()))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> PlaceError {
    let path = path.display().to_string();
    move |source| PlaceError::File {
        path: path.clone(),
        source,
    }
}

/// What S3 said, without the middle of a page of XML.
fn refused(error: &object_store::Error) -> PlaceError {
    PlaceError::Bucket(error.to_string().chars().take(500).collect())
}

/// A file that is being written. Dropped, it never was.
pub(super) struct Draft {
    body: Body,
    sha256: Sha256,
    bytes: u64,
}

enum Body {
    File(FileDraft),
    Object(ObjectDraft),
}

impl Draft {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PlaceError> {
        self.sha256.update(bytes);
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match &mut self.body {
            Body::File(file) => file.write(bytes),
            Body::Object(object) => object.write(bytes),
        }
    }

    /// Makes it a file, durably; one of its name that was there is replaced in one step.
    pub(super) fn keep(self) -> Result<Written, PlaceError> {
        match self.body {
            Body::File(file) => file.keep()?,
            Body::Object(object) => object.keep()?,
        }
        Ok(Written {
            bytes: self.bytes,
            sha256: hex::encode(self.sha256.finalize()),
        })
    }
}

struct FileDraft {
    file: Option<BufWriter<File>>,
    /// Always the same name for the same file: what a kill leaves is written over.
    temporary: PathBuf,
    target: PathBuf,
}

impl FileDraft {
    fn begin(target: &Path) -> Result<Self, PlaceError> {
        let folder = target.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(".tmp");
        let temporary = folder.join(name);
        let file = File::create(&temporary).map_err(failed(&temporary))?;
        Ok(Self {
            file: Some(BufWriter::with_capacity(256 << 10, file)),
            temporary,
            target: target.to_owned(),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PlaceError> {
        let written = self
            .file
            .as_mut()
            .map_or(Ok(()), |file| file.write_all(bytes));
        written.map_err(failed(&self.temporary))
    }

    fn keep(mut self) -> Result<(), PlaceError> {
        let place = failed(&self.target);
        if let Some(file) = self.file.take() {
            let file = file
                .into_inner()
                .map_err(|error| place(error.into_error()))?;
            file.sync_all().map_err(&place)?;
        }
        fs::rename(&self.temporary, &self.target).map_err(&place)?;
        // The rename is durable once every folder up to one that was there before is.
        for folder in self.target.ancestors().skip(1).take(FOLDERS_SYNCED) {
            match File::open(folder) {
                Ok(folder) => folder.sync_all().map_err(&place)?,
                // Not ours: it was there before.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
                Err(error) => return Err(place(error)),
            }
        }
        Ok(())
    }
}

impl Drop for FileDraft {
    fn drop(&mut self) {
        // Kept, it has another name by now; what cannot be removed is written over next time.
        drop(fs::remove_file(&self.temporary));
    }
}

struct ObjectDraft {
    objects: Arc<dyn ObjectStore>,
    path: ObjectPath,
    runtime: Handle,
    piece: Vec<u8>,
    /// A small object goes in one request.
    upload: Option<Box<dyn MultipartUpload>>,
}

impl ObjectDraft {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PlaceError> {
        self.piece.extend_from_slice(bytes);
        while self.piece.len() >= ARCHIVE_PART_BYTES {
            let rest = self.piece.split_off(ARCHIVE_PART_BYTES);
            let piece = std::mem::replace(&mut self.piece, rest);
            self.send(piece)?;
        }
        Ok(())
    }

    /// Sends a piece, and waits for it: no more than one is in memory.
    fn send(&mut self, piece: Vec<u8>) -> Result<(), PlaceError> {
        let sent = self.runtime.block_on(async {
            let upload = match &mut self.upload {
                Some(upload) => upload,
                none => none.insert(self.objects.put_multipart(&self.path).await?),
            };
            upload.put_part(PutPayload::from(piece)).await
        });
        sent.map_err(|error| refused(&error))
    }

    fn keep(mut self) -> Result<(), PlaceError> {
        let piece = std::mem::take(&mut self.piece);
        if self.upload.is_none() {
            let put = self.objects.put(&self.path, PutPayload::from(piece));
            return self
                .runtime
                .block_on(put)
                .map(drop)
                .map_err(|error| refused(&error));
        }
        if !piece.is_empty() {
            self.send(piece)?;
        }
        if let Some(upload) = &mut self.upload {
            let complete = self.runtime.block_on(upload.complete());
            complete.map_err(|error| refused(&error))?;
        }
        self.upload = None;
        Ok(())
    }
}

impl Drop for ObjectDraft {
    fn drop(&mut self) {
        if let Some(upload) = &mut self.upload {
            // Pieces that stay behind are no object; a bucket's own rule for them removes them.
            if let Err(error) = self.runtime.block_on(upload.abort()) {
                tracing::warn!(%error, path = %self.path, "pieces of an upload stay behind");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all_and_replaced_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::Folder(dir.path().join("lake"));
        let path = "product=p/date=2014-03-30/part-0000.csv";
        let target = dir.path().join("lake").join(path);
        let mut draft = place.begin(path).unwrap();
        draft.write(b"half").unwrap();
        assert!(!target.exists());
        drop(draft);
        let left: Vec<_> = fs::read_dir(target.parent().unwrap()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        for text in ["one", "another"] {
            let mut draft = place.begin(path).unwrap();
            draft.write(text.as_bytes()).unwrap();
            let written = draft.keep().unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
            assert_eq!(written.sha256, hex::encode(Sha256::digest(text)));
        }
    }
}
