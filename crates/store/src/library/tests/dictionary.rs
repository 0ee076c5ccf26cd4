//! Which columns of a segment have a dictionary, group by group.

use super::*;
use crate::library::{segment::Segment, write::Packing};

/// Groups in which a column of the only segment has a dictionary.
fn with_dictionary(segment: &Segment, name: &str, role: Role) -> Vec<bool> {
    let column = segment.points[&point(name)].by_role[&role];
    let groups = segment.metadata.metadata().row_groups().iter();
    let columns = groups.map(|group| group.column(column));
    columns
        .map(|column| column.dictionary_page_offset().is_some())
        .collect()
}

#[test]
fn a_column_without_repeats_does_without_a_dictionary_after_the_first_group() {
    let rows = 3 * i64::try_from(Packing::Tight.group_rows()).unwrap();
    let mut world = World::new();
    let mut batch = BatchBuilder::new();
    let last = ConflictPolicy::KeepLast;
    for time_ms in 0..rows {
        batch.row(&device("d"), time_ms);
        let value = f64::from(u32::try_from(time_ms).unwrap()) / 7.0;
        batch.cell(&point("different"), last, Cell::Double(value), NO_QUALITY);
        // Full after more than half of a group.
        let value = f64::from(u32::try_from(time_ms / 3).unwrap());
        batch.cell(&point("thrice"), last, Cell::Double(value), NO_QUALITY);
        let quality = u8::try_from(time_ms % 3).unwrap();
        batch.cell(&point("few"), last, Cell::Long(time_ms % 100), quality);
    }
    world.commit(batch.build());
    world.flush();
    world.work_to_the_end();
    let shelf = world.library.shelf();
    let [segment] = shelf.products[&product()].as_slice() else {
        panic!("all is in one segment");
    };
    assert_eq!(segment.packing, Packing::Tight);
    let of = |name, role| with_dictionary(segment, name, role);
    assert_eq!(of("different", Role::Value), [true, false, false]);
    assert_eq!(of("thrice", Role::Value), [true, true, true]);
    assert_eq!(of("few", Role::Value), [true, true, true]);
    assert_eq!(of("few", Role::Quality), [true, true, true]);
    drop(shelf);

    // And nothing of it is lost, neither of all nor of a few rows.
    for (from_ms, to_ms) in [(0, rows), (rows / 2, rows / 2 + 10)] {
        let range = Range {
            from_ms,
            to_ms,
            ..everything()
        };
        let mut time_ms = from_ms;
        for slab in world.read(&range) {
            let times = slab["_time"].as_primitive::<Int64Type>();
            let values = slab["different"].as_primitive::<Float64Type>();
            for (time, value) in times.values().iter().zip(values.values()) {
                assert_eq!(*time, time_ms);
                assert_eq!(*value, f64::from(u32::try_from(time_ms).unwrap()) / 7.0);
                time_ms += 1;
            }
        }
        assert_eq!(time_ms, to_ms);
    }
}
