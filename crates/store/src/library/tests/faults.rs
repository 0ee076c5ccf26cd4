//! What happens when the disk fails.

use std::{io, sync::atomic::AtomicI64};

use super::*;
use crate::disk::File;

/// The real disk until a number of operations that change it; from then on each fails.
struct Failing {
    left: Arc<AtomicI64>,
    kind: io::ErrorKind,
}

impl Failing {
    fn check(&self) -> io::Result<()> {
        check(&self.left, self.kind)
    }
}

fn check(left: &AtomicI64, kind: io::ErrorKind) -> io::Result<()> {
    if left.fetch_sub(1, Ordering::SeqCst) <= 0 {
        Err(io::Error::from(kind))
    } else {
        Ok(())
    }
}

/// A disk that fails from its `operations`th change on.
pub(super) fn failing(operations: i64) -> Arc<dyn Disk> {
    Arc::new(Failing {
        left: Arc::new(AtomicI64::new(operations)),
        kind: io::ErrorKind::Other,
    })
}

struct FailingFile {
    file: Box<dyn File>,
    left: Arc<AtomicI64>,
    kind: io::ErrorKind,
}

impl Disk for Failing {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.check()?;
        let file = RealDisk.create(path)?;
        Ok(Box::new(FailingFile {
            file,
            left: Arc::clone(&self.left),
            kind: self.kind,
        }))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        RealDisk.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check()?;
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.check()?;
        RealDisk.create_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check()?;
        RealDisk.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

impl File for FailingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check(&self.left, self.kind)?;
        self.file.write_at(buf, offset)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
    fn sync(&self) -> io::Result<()> {
        check(&self.left, self.kind)?;
        self.file.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

fn segment_files(world: &World) -> usize {
    let dir = product_dir(&world.dir().join("segments"), &product());
    RealDisk.list(&dir).map_or(0, |files| files.len())
}

fn two_commits() -> (World, Model) {
    let (mut world, mut model) = (World::new(), Model::default());
    let row = RowSpec {
        device: 0,
        time: 1,
        points: 7,
        value: 0,
        quality: 2,
    };
    apply(&mut world, &mut model, &[row], ConflictPolicy::KeepLast);
    world.flush();
    apply(
        &mut world,
        &mut model,
        &[RowSpec { time: 2, ..row }, row],
        ConflictPolicy::KeepLast,
    );
    (world, model)
}

#[test]
fn a_flush_that_fails_at_any_operation_leaves_nothing_and_succeeds_when_tried_again() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        let mut failures = 0;
        for operations in 0.. {
            let (mut world, model) = two_commits();
            let before = segment_files(&world);
            let left = Arc::new(AtomicI64::new(operations));
            world.library.disk = Arc::new(Failing {
                left: Arc::clone(&left),
                kind,
            });
            let flushed = world.try_flush();
            if flushed.is_ok() {
                break;
            }
            failures += 1;
            let is_full = matches!(flushed, Err(FlushError::DiskFull { .. }));
            assert_eq!(is_full, kind == io::ErrorKind::StorageFull, "{flushed:?}");
            assert_eq!(
                segment_files(&world),
                before,
                "after {operations} operations"
            );
            check_read(&world, &model, &everything(), true);
            left.store(i64::MAX, Ordering::SeqCst);
            world.flush();
            world.work_to_the_end();
            check_read(&world, &model, &everything(), true);
            check_conflicts(&world, &model);
        }
        assert!(
            failures >= 6,
            "create, write, sync, rename and two directories can fail"
        );
    }
}

#[test]
fn a_merge_that_fails_at_any_operation_leaves_the_inputs_live() {
    for operations in 0.. {
        let (mut world, model) = two_commits();
        world.flush();
        let left = Arc::new(AtomicI64::new(operations));
        world.library.disk = Arc::new(Failing {
            left: Arc::clone(&left),
            kind: io::ErrorKind::StorageFull,
        });
        let failed = loop {
            match world.library.work(Haste::Quiet) {
                Ok(true) => {}
                Ok(false) => break false,
                Err(error) => {
                    assert!(matches!(error, FlushError::DiskFull { .. }), "{error}");
                    break true;
                }
            }
        };
        if !failed {
            break;
        }
        assert_eq!(segment_files(&world), 2);
        check_read(&world, &model, &everything(), true);
        left.store(i64::MAX, Ordering::SeqCst);
        world.work_to_the_end();
        check_read(&world, &model, &everything(), true);
        check_conflicts(&world, &model);
    }
}

#[test]
fn files_that_no_manifest_names_are_removed_and_missing_or_short_ones_refuse_the_start() {
    let (mut world, model) = two_commits();
    world.flush();
    let dir = product_dir(&world.dir().join("segments"), &product());
    RealDisk.create(&dir.join("00000000000000ff.tmp")).unwrap();
    RealDisk
        .create(&dir.join("00000000000000fe.parquet"))
        .unwrap();
    world.reopen();
    assert_eq!(segment_files(&world), 2);
    check_read(&world, &model, &everything(), true);

    let file = RealDisk.list(&dir).unwrap().remove(0);
    let open = || Library::open(world.dir(), Arc::new(RealDisk), &Options::default());
    let opened = RealDisk.open(&file).unwrap();
    opened.truncate(opened.len().unwrap() - 1).unwrap();
    assert!(matches!(open().err(), Some(OpenError::Length { .. })));
    RealDisk.remove(&file).unwrap();
    assert!(matches!(open().err(), Some(OpenError::Missing { .. })));
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_never_served() {
    let (mut world, _) = two_commits();
    world.flush();
    let dir = product_dir(&world.dir().join("segments"), &product());
    let file = RealDisk.open(&RealDisk.list(&dir).unwrap()[0]).unwrap();
    for offset in (0..file.len().unwrap()).step_by(97) {
        let mut byte = [0];
        file.read_at(&mut byte, offset).unwrap();
        file.write_at(&[byte[0] ^ 4], offset).unwrap();
        assert!(matches!(
            world.library.verify(),
            Err(ReadError::Segment { .. })
        ));
        let read = world.library.read(Vec::new(), &everything(), View::Kept);
        assert!(
            read.and_then(|slabs| slabs.collect::<Result<Vec<_>, _>>())
                .is_err()
        );
        file.write_at(&byte, offset).unwrap();
    }
    world.library.verify().unwrap();
}
