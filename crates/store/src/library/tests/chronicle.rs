//! What stands in the chronicle when a flush ends half-way.

use backtide_model::{AttributeValue, Occurrence};

use super::*;
use crate::{AttributeRange, EventRange, RecordKeep, memtable::Told};

fn told<T>(sequence: u64, items: Vec<T>) -> Arc<Told<T>> {
    Arc::new(Told {
        sequence: Sequence(sequence),
        order: Sequence(sequence),
        origin: origin(sequence),
        product: product(),
        items,
    })
}

fn leak(output: &str) -> Occurrence {
    Occurrence {
        device: device("a"),
        time_ms: 1,
        event: point("leak"),
        output: output.into(),
    }
}

fn serial(value: &str) -> AttributeValue {
    AttributeValue {
        device: device("a"),
        attribute: point("serial"),
        value: value.into(),
    }
}

fn all_events() -> EventRange {
    EventRange {
        product: product(),
        devices: Vec::new(),
        events: Vec::new(),
        from_ms: i64::MIN,
        to_ms: i64::MAX,
        after: None,
        rows_max: usize::MAX,
    }
}

#[test]
fn a_chapter_that_was_written_before_a_crash_is_written_again_without_a_trace() {
    let mut world = World::new();
    world.next = 4;
    world.chapter.events = vec![
        told(1, vec![leak("{}"), leak("{}")]),
        told(2, vec![leak("{\"litres\":1.0}")]),
    ];
    world.chapter.attributes = vec![told(3, vec![serial("1"), serial("2"), serial("2")])];
    let chronicle = Arc::clone(world.library.chronicle());
    // The manifest's transaction does not come: the process is killed here.
    chronicle
        .flush(&world.chapter, Sequence(3), &|_| i64::MIN)
        .unwrap();
    let before = chronicle.stats().unwrap();
    assert_eq!(
        (
            before.events,
            before.event_duplicates,
            before.attribute_values
        ),
        (2, 1, 2)
    );
    world.try_flush().unwrap();
    assert_eq!(chronicle.stats().unwrap(), before);
    let range = all_events();
    // Still in memory while a reader looks: each is seen once.
    let events = chronicle
        .events(&world.chapter.events, &range, RecordKeep::ALL)
        .unwrap();
    let events: Vec<_> = events.flat_map(Result::unwrap).collect();
    assert_eq!(events.len(), 2);
    let range = AttributeRange {
        product: product(),
        devices: Vec::new(),
        attributes: Vec::new(),
        history: true,
        after: None,
        rows_max: usize::MAX,
    };
    let values = chronicle
        .attributes(&world.chapter.attributes, &range, RecordKeep::ALL)
        .unwrap();
    let values: Vec<_> = values
        .flat_map(Result::unwrap)
        .map(|stored| stored.value)
        .collect();
    assert_eq!(values, ["1".into(), "2".into()]);
}

#[test]
fn an_event_that_comes_again_is_kept_from_then_where_it_is_kept_by_arrival() {
    let mut world = World::new();
    let chronicle = Arc::clone(world.library.chronicle());
    let range = all_events();
    let since = |arrived_ms| {
        let keep = RecordKeep {
            arrived_ms,
            ..RecordKeep::ALL
        };
        let events = chronicle.events(&[], &range, keep).unwrap();
        events.flat_map(Result::unwrap).collect::<Vec<_>>()
    };
    for (sequence, oldest_ms) in [(1, 500), (5, 500), (9, i64::MIN)] {
        world.chapter.events = vec![told(sequence, vec![leak("{}")])];
        chronicle
            .flush(&world.chapter, Sequence(sequence), &|_| oldest_ms)
            .unwrap();
    }
    // It is the event of the first commit, kept as the second: without a rule the third says nothing new.
    let kept = since(1_005);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].sequence, Sequence(1));
    assert!(since(1_006).is_empty());
    assert_eq!(chronicle.stats().unwrap().event_duplicates, 2);
}
