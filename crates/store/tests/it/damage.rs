//! Journals that someone or something has changed.

use std::{fs, os::unix::fs::FileExt, path::Path, sync::Arc};

use backtide_store::{
    OpenError, Recovery, Salvaged, Sequence, Store,
    disk::{Disk, RealDisk},
    salvage,
};

use crate::{
    fault_disk::FaultDisk,
    world::{TestDir, commit, commit_one, follow_all, open, small, values, verify},
};

/// A closed store whose journal holds commits 1 to `count`, none of them in segments.
fn closed_store(count: u64) -> TestDir {
    let dir = TestDir::new();
    let options = backtide_store::Options {
        memtable_bytes_max: 64 << 20,
        ..small()
    };
    let store = open(&dir.store(), RealDisk, options);
    for id in 1..=count {
        commit_one(&store, id);
    }
    dir
}

fn reopen(dir: &TestDir) -> Result<(Store, Recovery), OpenError> {
    Store::open(&dir.store(), Arc::new(RealDisk), small())
}

/// Where frames begin in a journal file, and where the last one ends.
fn frames(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).unwrap();
    let mut at = 48;
    let mut found = Vec::new();
    while bytes.get(at..at + 4) == Some(b"BTFR") {
        found.push(at as u64);
        let body = u32::from_le_bytes(bytes[at + 36..at + 40].try_into().unwrap());
        at += 56 + body as usize;
    }
    found.push(at as u64);
    found
}

fn flip(path: &Path, offset: u64) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

#[test]
fn a_torn_last_frame_is_cut_and_counted() {
    let dir = closed_store(5);
    let file = dir.journal().remove(0);
    let ends = frames(&file);
    let [.., last, end] = ends[..] else {
        panic!("frames are missing")
    };
    for torn_at in [last + 1, last + 30, last + 57, last + (end - last) / 2] {
        let copy = TestDir::new();
        copy_dir(&dir.store(), &copy.store());
        let file = copy.journal().remove(0);
        // The rest of the frame never came: it reads as the zeros of preallocated space.
        let handle = fs::File::options().write(true).open(&file).unwrap();
        let rest = usize::try_from(end - torn_at).unwrap();
        handle.write_all_at(&vec![0; rest], torn_at).unwrap();

        let (store, recovery) = reopen(&copy).unwrap();
        assert_eq!(recovery.commits, 4);
        assert!(recovery.torn_bytes > 0);
        verify(
            &store,
            &(1..=4).map(|id| (Sequence(id), id)).collect::<Vec<_>>(),
        )
        .unwrap();
        assert_eq!(commit_one(&store, 50).sequence(), Sequence(5));
        drop(store);
        let (_, recovery) = reopen(&copy).unwrap();
        assert_eq!((recovery.commits, recovery.torn_bytes), (5, 0));
    }
}

#[test]
fn a_flipped_bit_in_the_last_frame_is_cut_as_a_torn_one() {
    let dir = closed_store(5);
    let file = dir.journal().remove(0);
    let ends = frames(&file);
    flip(&file, ends[ends.len() - 2] + 70);
    let (store, recovery) = reopen(&dir).unwrap();
    assert_eq!(recovery.commits, 4);
    assert!(recovery.torn_bytes > 0);
    assert_eq!(store.durable(), Sequence(4));
}

#[test]
fn a_flipped_bit_before_intact_frames_stops_the_start_and_says_where() {
    let dir = closed_store(6);
    let file = dir.journal().remove(0);
    let ends = frames(&file);
    // In a header, in a body; both leave the rest as it was.
    for offset in [ends[2] + 20, ends[2] + 60] {
        flip(&file, offset);
        let before = fs::read(&file).unwrap();
        let Err(error) = reopen(&dir) else {
            panic!("a damaged journal was opened")
        };
        let text = error.to_string();
        assert!(
            matches!(error, OpenError::Damaged { offset, later_offset, .. }
            if offset == ends[2] && later_offset == ends[3]),
            "{text}"
        );
        assert!(
            text.contains("backtide salvage") && text.contains("btj"),
            "{text}"
        );
        assert_eq!(fs::read(&file).unwrap(), before);
        flip(&file, offset);
    }
    verify(&reopen(&dir).unwrap().0, &[]).unwrap();
}

#[test]
fn damage_at_the_end_of_a_file_with_another_behind_it_stops_the_start() {
    let dir = closed_store(100);
    let files = dir.journal();
    assert!(files.len() > 2);
    let ends = frames(&files[0]);
    flip(&files[0], ends[ends.len() - 2] + 60);
    let Err(error) = reopen(&dir) else {
        panic!("a damaged journal was opened")
    };
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn a_missing_file_stops_the_start_and_is_named_by_its_commits() {
    let dir = closed_store(100);
    let files = dir.journal();
    fs::remove_file(&files[1]).unwrap();
    let Err(error) = reopen(&dir) else {
        panic!("a journal with a gap was opened")
    };
    assert!(matches!(error, OpenError::Gap { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(files[2].to_str().unwrap()), "{text}");
}

#[test]
fn a_journal_that_ends_before_what_is_in_segments_stops_the_start() {
    let dir = TestDir::new();
    let store = open(&dir.store(), RealDisk, small());
    for id in 1..=100 {
        commit_one(&store, id);
    }
    store.flush_now().unwrap();
    drop(store);
    let newest = dir.journal().pop().unwrap();
    fs::remove_file(newest).unwrap();
    let Err(error) = reopen(&dir) else {
        panic!("a journal without its end was opened")
    };
    assert!(
        matches!(
            error,
            OpenError::Behind {
                flushed: Sequence(100),
                ..
            }
        ),
        "{error}"
    );
}

fn salvage_all(dir: &TestDir) -> Salvaged {
    let real: Arc<dyn Disk> = Arc::new(RealDisk);
    salvage(&dir.store(), &real, &small()).unwrap()
}

/// The sequences that the log of a store has.
fn log(store: &Store) -> Vec<u64> {
    let oldest = store.stats().oldest.unwrap();
    let log = follow_all(store, Sequence(oldest.0 - 1)).unwrap();
    for followed in &log {
        assert_eq!(followed.commit, commit(followed.sequence.0));
    }
    log.iter().map(|followed| followed.sequence.0).collect()
}

#[test]
fn a_salvage_of_a_sound_journal_changes_nothing() {
    let dir = closed_store(100);
    let before: Vec<_> = dir
        .journal()
        .iter()
        .map(|file| fs::read(file).unwrap())
        .collect();
    let salvaged = salvage_all(&dir);
    assert_eq!(
        salvaged,
        Salvaged {
            commits: 100,
            ..Salvaged::default()
        }
    );
    let after: Vec<_> = dir
        .journal()
        .iter()
        .map(|file| fs::read(file).unwrap())
        .collect();
    assert!(before == after);
}

#[test]
fn a_salvage_keeps_what_is_intact_and_sets_the_rest_aside() {
    let dir = closed_store(100);
    let files = dir.journal();
    let ends = frames(&files[1]);
    let damaged = ends[3]..ends[4];
    let first: u64 = files[1]
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let lost = first + 3;
    let bytes = fs::read(&files[1]).unwrap();
    flip(&files[1], damaged.start + 60);
    assert!(reopen(&dir).is_err());

    let salvaged = salvage_all(&dir);
    assert_eq!(salvaged.commits, 99);
    assert_eq!(salvaged.left_out, [(Sequence(lost), Sequence(lost))]);
    let [aside] = &salvaged.aside[..] else {
        panic!("one range is damaged")
    };
    let mut kept = fs::read(aside).unwrap();
    kept[60] ^= 4;
    let range = usize::try_from(damaged.start).unwrap()..usize::try_from(damaged.end).unwrap();
    assert_eq!(kept, &bytes[range]);

    let (store, _) = reopen(&dir).unwrap();
    let expected: Vec<u64> = (1..=100).filter(|sequence| *sequence != lost).collect();
    assert_eq!(log(&store), expected);
    assert_eq!(commit_one(&store, 101).sequence(), Sequence(101));
    drop(store);
    assert_eq!(log(&reopen(&dir).unwrap().0).len(), 100);
    // Nothing is left to do.
    assert!(salvage_all(&dir).aside.is_empty());
}

#[test]
fn a_salvage_reads_the_frames_behind_a_damaged_file_header() {
    for at in 0..3 {
        let dir = closed_store(100);
        flip(&dir.journal()[at], 20);
        let salvaged = salvage_all(&dir);
        assert_eq!((salvaged.commits, salvaged.left_out.len()), (100, 0));
        assert_eq!(log(&reopen(&dir).unwrap().0), (1..=100).collect::<Vec<_>>());
    }
}

#[test]
fn a_salvage_goes_on_without_files_that_are_gone() {
    let dir = closed_store(100);
    let files = dir.journal();
    let first =
        |file: &Path| -> u64 { file.file_stem().unwrap().to_str().unwrap().parse().unwrap() };
    let (from, to) = (first(&files[1]), first(&files[2]) - 1);
    fs::remove_file(&files[1]).unwrap();
    let salvaged = salvage_all(&dir);
    assert_eq!(salvaged.left_out, [(Sequence(from), Sequence(to))]);
    let (store, _) = reopen(&dir).unwrap();
    assert_eq!(
        log(&store),
        (1..from).chain(to + 1..=100).collect::<Vec<_>>()
    );
}

#[test]
fn a_salvage_goes_on_behind_the_segments_where_the_newest_file_is_gone() {
    let dir = TestDir::new();
    let store = open(&dir.store(), RealDisk, small());
    for id in 1..=100 {
        commit_one(&store, id);
    }
    store.flush_now().unwrap();
    let all = values(&store);
    drop(store);
    fs::remove_file(dir.journal().pop().unwrap()).unwrap();
    assert!(reopen(&dir).is_err());
    assert_eq!(salvage_all(&dir).left_out.len(), 1);
    let (store, _) = reopen(&dir).unwrap();
    assert_eq!(values(&store), all);
    assert_eq!(commit_one(&store, 101).sequence(), Sequence(101));
}

#[test]
fn a_salvage_may_be_interrupted_at_any_operation_and_run_again() {
    for operations in 0..60 {
        let (dir, disk) = (TestDir::new(), FaultDisk::new(operations));
        let options = backtide_store::Options {
            memtable_bytes_max: 64 << 20,
            ..small()
        };
        let store = open(&dir.store(), disk.clone(), options);
        for id in 1..=40 {
            commit_one(&store, id);
        }
        drop(store);
        let file = &dir.journal()[0];
        let ends = frames(file);
        disk.damage(file, ends[2] + 60);
        disk.damage(file, ends[6] + 60);

        disk.cut_power_after(operations);
        let as_disk: Arc<dyn Disk> = Arc::new(disk.clone());
        drop(salvage(&dir.store(), &as_disk, &small()));
        disk.lose_power();
        salvage(&dir.store(), &as_disk, &small()).unwrap();
        let (store, _) = Store::open(&dir.store(), Arc::new(disk), small()).unwrap();
        let expected: Vec<u64> = (1..=40).filter(|it| *it != 3 && *it != 7).collect();
        assert_eq!(log(&store), expected, "interrupted after {operations}");
    }
}

#[test]
fn a_journal_of_another_store_is_refused() {
    let dir = closed_store(3);
    let file = dir.journal().remove(0);
    let mut header = fs::read(&file).unwrap()[..48].to_vec();
    header[8] ^= 1;
    let handle = fs::File::options().write(true).open(&file).unwrap();
    handle.write_all_at(&header, 0).unwrap();
    let Err(error) = reopen(&dir) else {
        panic!("a damaged header was accepted")
    };
    assert!(matches!(error, OpenError::FileHeader { .. }), "{error}");

    let crc = crc32c::crc32c(&header[..44]);
    header[44..].copy_from_slice(&crc.to_le_bytes());
    handle.write_all_at(&header, 0).unwrap();
    let Err(error) = reopen(&dir) else {
        panic!("another store's journal was accepted")
    };
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
