//! The seam to the disk: the few operations the store needs, so that tests can inject faults.
//!
//! A write is durable only after [`File::sync`]; a created, renamed or removed name only after
//! [`Disk::sync_dir`] of its directory.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Names in directories.
pub trait Disk: Send + Sync {
    /// Makes an empty file for reading and writing; fails where the name exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The files of a directory, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names of a directory durable: fsync of the directory.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that an unprivileged writer may still use.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Keeps everyone else out of a directory until the result is dropped or the process ends;
    /// [`io::ErrorKind::WouldBlock`] if someone is in. A disk that only one test sees needs none.
    fn lock(&self, _dir: &Path) -> io::Result<Lock> {
        Ok(Box::new(()))
    }
}

/// Held while a directory is in use.
pub type Lock = Box<dyn Send + Sync>;

#[expect(
    clippy::len_without_is_empty,
    reason = "a length on disk, which may fail; no collection"
)]
/// Bytes in a file. Positions are explicit, so that readers and the writer share one handle.
pub trait File: Send + Sync {
    /// Reads up to `buf.len()` bytes; 0 at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf`.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Reserves and zero-fills up to `len`, so that later writes below it cannot run out of space.
    fn allocate(&self, len: u64) -> io::Result<()>;
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable: fdatasync.
    fn sync(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
}

/// The machine's own file system.
#[derive(Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(
            fs::File::options().read(true).write(true).open(path)?,
        )))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push(entry.path());
            }
        }
        files.sort();
        Ok(files)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // fsync on a directory handle is how Linux makes names durable.
        fs::File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, dir: &Path) -> io::Result<Lock> {
        let path = dir.join("lock");
        let file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.try_lock()?;
        Ok(Box::new(file))
    }
}

struct RealFile(fs::File);

impl RealFile {
    fn fill(&self, len: u64) -> io::Result<()> {
        let zeros = [0; 64 << 10];
        let mut at = self.len()?;
        while at < len {
            let step = usize::try_from(len - at).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.0.write_all_at(&zeros[..step], at)?;
            at += step as u64;
        }
        Ok(())
    }
}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // Some network and copy-on-write file systems cannot reserve: write the zeros.
            Err(rustix::io::Errno::OPNOTSUPP) => self.fill(len),
            Err(error) => Err(error.into()),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
