//! Events and attributes against a map that keeps every statement.

use std::collections::BTreeMap;

use backtide_model::{AttributeValue, DeviceKey, ElementName, Occurrence};
use backtide_store::{
    AttributeRange, Commit, EventPlace, EventRange, Options, Part, Redrive, Sequence, Store,
    StoredAttribute, StoredEvent, disk::RealDisk,
};
use proptest::{collection::vec, prelude::*};

use crate::world::{TestDir, follow_all, open, origin, product, small};

fn device(key: &str) -> DeviceKey {
    DeviceKey::new(key).unwrap()
}

fn name(text: &str) -> ElementName {
    ElementName::new(text).unwrap()
}

fn occurrence(key: &str, time_ms: i64, event: &str, output: &str) -> Occurrence {
    Occurrence {
        device: device(key),
        time_ms,
        event: name(event),
        output: output.into(),
    }
}

fn value(key: &str, attribute: &str, value: &str) -> AttributeValue {
    AttributeValue {
        device: device(key),
        attribute: name(attribute),
        value: value.into(),
    }
}

fn commit(store: &Store, part: Part) -> Sequence {
    commit_as(store, part, None)
}

/// Commits, for a refusal that stands in the commit `of`.
fn commit_as(store: &Store, part: Part, of: Option<Sequence>) -> Sequence {
    let id = store.durable().0 + 1;
    let commit = Commit {
        origin: origin(id),
        product: product(),
        parts: vec![part],
        redrive: of.map(|order| Redrive {
            order,
            part: 0,
            tried_ms: 0,
        }),
    };
    let committed = store.commit(vec![commit]).unwrap().remove(0).unwrap();
    assert_eq!(committed.sequence(), Sequence(id));
    committed.sequence()
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

fn events(store: &Store, range: &EventRange) -> Vec<StoredEvent> {
    let slabs = store.events(range).unwrap();
    slabs.flat_map(Result::unwrap).collect()
}

fn all_attributes(history: bool) -> AttributeRange {
    AttributeRange {
        product: product(),
        devices: Vec::new(),
        attributes: Vec::new(),
        history,
        after: None,
        rows_max: usize::MAX,
    }
}

fn attributes(store: &Store, range: &AttributeRange) -> Vec<StoredAttribute> {
    let slabs = store.attributes(range).unwrap();
    slabs.flat_map(Result::unwrap).collect()
}

/// (device, time, event, output, commit) of every event.
fn shown(events: &[StoredEvent]) -> Vec<(String, i64, String, String, u64)> {
    let row = |stored: &StoredEvent| {
        let EventPlace {
            time_ms,
            device,
            event,
            ..
        } = &stored.place;
        assert_eq!(stored.arrived_ms, i64::try_from(stored.sequence.0).unwrap());
        (
            device.to_string(),
            *time_ms,
            event.to_string(),
            stored.output.to_string(),
            stored.sequence.0,
        )
    };
    events.iter().map(row).collect()
}

#[test]
fn an_event_is_stored_once_and_another_output_is_a_second_event() {
    let dir = TestDir::new();
    let store = open(&dir.store(), RealDisk, Options::default());
    let leak = |output| occurrence("a", 5, "leak", output);
    let first = commit(&store, Part::Events(vec![leak("{}"), leak("{}")]));
    commit(&store, Part::Events(vec![leak("{\"litres\":4.0}")]));
    let check = |store: &Store| {
        commit(store, Part::Events(vec![leak("{}")]));
        let found = events(store, &all_events());
        assert_eq!(found.len(), 2);
        assert!(found.iter().any(|stored| stored.sequence == first));
    };
    check(&store);
    store.flush_now().unwrap();
    check(&store);
    store.flush_now().unwrap();
    let stats = store.chronicle_stats().unwrap();
    assert_eq!((stats.events, stats.event_duplicates), (2, 3));
    drop(store);
    check(&open(&dir.store(), RealDisk, Options::default()));
}

#[test]
fn an_attribute_keeps_its_history_and_a_repeated_value_adds_nothing() {
    let dir = TestDir::new();
    let store = open(&dir.store(), RealDisk, Options::default());
    for (turn, text) in ["1", "1", "2", "2", "1"].into_iter().enumerate() {
        commit(&store, Part::Attributes(vec![value("a", "serial", text)]));
        if turn % 2 == 1 {
            store.flush_now().unwrap();
        }
    }
    let history = |store: &Store| -> Vec<(u64, i64, i64, String)> {
        attributes(store, &all_attributes(true))
            .iter()
            .map(|s| {
                let value = s.value.to_string();
                (s.place.sequence.0, s.arrived_ms, s.confirmed_ms, value)
            })
            .collect()
    };
    let expected = [
        (1, 1, 2, "1".to_owned()),
        (3, 3, 4, "2".to_owned()),
        (5, 5, 5, "1".to_owned()),
    ];
    assert_eq!(history(&store), expected);
    let current = attributes(&store, &all_attributes(false));
    assert_eq!(current.len(), 1);
    assert_eq!(
        (current[0].place.sequence, &*current[0].value),
        (Sequence(5), "1")
    );
    store.flush_now().unwrap();
    assert_eq!(history(&store), expected);
    assert_eq!(store.chronicle_stats().unwrap().attribute_values, 3);
}

#[test]
fn an_attribute_that_is_driven_again_takes_the_place_of_its_first_arrival() {
    // Refused as commit 2; the others were taken as 1, 3 and 4. Flushed at every place in between.
    for flushed_after in 0..5 {
        let dir = TestDir::new();
        let store = open(&dir.store(), RealDisk, Options::default());
        let steps = [
            ("1", None),
            ("refused", None),
            ("3", None),
            ("3", None),
            ("2", Some(Sequence(2))),
        ];
        for (at, (text, of)) in steps.into_iter().enumerate() {
            let values = match text {
                "refused" => Vec::new(),
                text => vec![value("a", "serial", text)],
            };
            commit_as(&store, Part::Attributes(values), of);
            if at == flushed_after {
                store.flush_now().unwrap();
            }
        }
        for history in [false, true] {
            let found = attributes(&store, &all_attributes(history));
            let values: Vec<&str> = found.iter().map(|stored| &*stored.value).collect();
            let expected: &[&str] = if history { &["1", "2", "3"] } else { &["3"] };
            assert_eq!(values, expected, "flushed after {flushed_after}");
        }
    }
}

#[test]
fn a_store_whose_chronicle_is_gone_or_too_old_does_not_open() {
    let dir = TestDir::new();
    let file = dir.store().join("chronicle.db");
    let store = open(&dir.store(), RealDisk, Options::default());
    drop(store);
    let old = std::fs::read(&file).unwrap();
    let store = open(&dir.store(), RealDisk, Options::default());
    commit(&store, Part::Events(vec![occurrence("a", 1, "leak", "{}")]));
    store.flush_now().unwrap();
    drop(store);
    let reopen = || {
        Store::open(
            &dir.store(),
            std::sync::Arc::new(RealDisk),
            Options::default(),
        )
        .map(drop)
        .map_err(|error| error.to_string())
    };
    assert_eq!(reopen(), Ok(()));
    std::fs::write(&file, old).unwrap();
    assert!(reopen().unwrap_err().contains("written up to commit 1"));
    std::fs::remove_file(&file).unwrap();
    assert!(reopen().unwrap_err().contains("chronicle.db"));
}

#[test]
fn a_journal_that_was_never_flushed_is_read_back_with_everything_in_it() {
    let dir = TestDir::new();
    let store = open(&dir.store(), RealDisk, Options::default());
    let parts = [
        Part::Events(vec![occurrence("a", 1, "leak", "{\"litres\":4.0}")]),
        Part::Attributes(vec![value("a", "serial", "\"A-1\"")]),
    ];
    for part in &parts {
        commit(&store, part.clone());
    }
    drop(store);
    let store = open(&dir.store(), RealDisk, Options::default());
    let followed = follow_all(&store, Sequence(0)).unwrap();
    let found: Vec<_> = followed.into_iter().flat_map(|f| f.commit.parts).collect();
    assert_eq!(found, parts);
    assert_eq!(events(&store, &all_events()).len(), 1);
    assert_eq!(attributes(&store, &all_attributes(false)).len(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Events(Vec<(u8, i64, u8, u8)>),
    Attributes(Vec<(u8, u8, u8)>),
    Flush,
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => vec((0..3_u8, 0..6_i64, 0..2_u8, 0..3_u8), 1..8).prop_map(Step::Events),
        4 => vec((0..3_u8, 0..2_u8, 0..3_u8), 1..5).prop_map(Step::Attributes),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

/// Everything that was ever said.
#[derive(Default)]
struct Model {
    events: BTreeMap<(i64, String, String, String), u64>,
    attributes: BTreeMap<(String, String), Vec<(u64, String)>>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_map_over_flushes_and_restarts(steps in vec(any_step(), 1..24), page in 1..7_usize) {
        let dir = TestDir::new();
        let mut store = open(&dir.store(), RealDisk, small());
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Events(rows) => {
                    let rows: Vec<_> = rows.into_iter().map(|(d, time, e, output)| {
                        occurrence(&format!("d{d}"), time, &format!("e{e}"), &format!("{{\"n\":{output}}}"))
                    }).collect();
                    let at = commit(&store, Part::Events(rows.clone()));
                    for row in rows {
                        let key = (row.time_ms, row.device.to_string(), row.event.to_string(), row.output.to_string());
                        model.events.entry(key).or_insert(at.0);
                    }
                }
                Step::Attributes(rows) => {
                    let rows: Vec<_> = rows.into_iter().map(|(d, a, v)| {
                        value(&format!("d{d}"), &format!("a{a}"), &v.to_string())
                    }).collect();
                    let at = commit(&store, Part::Attributes(rows.clone()));
                    for row in rows {
                        let key = (row.device.to_string(), row.attribute.to_string());
                        let history = model.attributes.entry(key).or_default();
                        if history.last().is_none_or(|(_, last)| **last != *row.value) {
                            history.push((at.0, row.value.to_string()));
                        }
                    }
                }
                Step::Flush => store.flush_now().unwrap(),
                Step::Reopen => {
                    drop(store);
                    store = open(&dir.store(), RealDisk, small());
                }
            }
        }
        check_events(&store, &model, page);
        check_attributes(&store, &model, page);
    }
}

fn check_events(store: &Store, model: &Model, page: usize) {
    let found = events(store, &all_events());
    assert!(found.is_sorted_by(|a, b| a.place < b.place));
    let as_map: BTreeMap<_, _> = shown(&found)
        .into_iter()
        .map(|(device, time, event, output, sequence)| ((time, device, event, output), sequence))
        .collect();
    assert_eq!(as_map, model.events);
    assert_eq!(as_map.len(), found.len());
    // Page by page, it is the same.
    let mut paged: Vec<StoredEvent> = Vec::new();
    loop {
        let range = EventRange {
            after: paged.last().map(|last| last.place.clone()),
            rows_max: page,
            ..all_events()
        };
        let of_page = events(store, &range);
        assert!(of_page.len() <= page);
        if of_page.is_empty() {
            break;
        }
        paged.extend(of_page);
    }
    assert_eq!(paged, found);
    // A part of it is a part of it.
    let range = EventRange {
        devices: vec![device("d1"), device("d2")],
        events: vec![name("e1")],
        from_ms: 1,
        to_ms: 4,
        ..all_events()
    };
    let is_in = |stored: &StoredEvent| {
        stored.place.device != device("d0")
            && stored.place.event == name("e1")
            && (1..4).contains(&stored.place.time_ms)
    };
    let expected: Vec<_> = found.iter().filter(|s| is_in(s)).cloned().collect();
    assert_eq!(events(store, &range), expected);
}

fn check_attributes(store: &Store, model: &Model, page: usize) {
    for history in [true, false] {
        let found = attributes(store, &all_attributes(history));
        assert!(found.is_sorted_by(|a, b| a.place < b.place));
        let mut as_map: BTreeMap<(String, String), Vec<(u64, String)>> = BTreeMap::new();
        for stored in &found {
            let key = (
                stored.place.device.to_string(),
                stored.place.attribute.to_string(),
            );
            let entry = (stored.place.sequence.0, stored.value.to_string());
            as_map.entry(key).or_default().push(entry);
        }
        let mut expected = model.attributes.clone();
        if !history {
            expected
                .values_mut()
                .for_each(|all| drop(all.drain(..all.len() - 1)));
        }
        assert_eq!(as_map, expected);
        let mut paged: Vec<StoredAttribute> = Vec::new();
        loop {
            let range = AttributeRange {
                after: paged.last().map(|last| last.place.clone()),
                rows_max: page,
                ..all_attributes(history)
            };
            let of_page = attributes(store, &range);
            if of_page.is_empty() {
                break;
            }
            paged.extend(of_page);
        }
        assert_eq!(paged, found);
        let range = AttributeRange {
            devices: vec![device("d1")],
            attributes: vec![name("a0")],
            ..all_attributes(history)
        };
        let key = ("d1".to_owned(), "a0".to_owned());
        let of_one = expected.get(&key).map_or(0, Vec::len);
        assert_eq!(attributes(store, &range).len(), of_one);
    }
}
