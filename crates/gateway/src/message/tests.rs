//! Messages as they leave, held against the text that is documented.

use std::sync::Arc;

use backtide_model::{
    BatchBuilder, Cell, ChannelName, ConflictPolicy, ElementName, ProductKey, Storage,
};
use backtide_store::Origin;
use serde_json::json;

use super::*;
use crate::{
    clock::Clock,
    registry::{self, Form, Kind, Registry, Run, StoredTypes},
};

const FARM: &str = "
kind: Model
name: turbine
measurepoints:
  P_avg: { type: double, quality: true }
  n: { type: long }
  f: { type: float }
  label: { type: string }
  pos: { type: map }
---
{ kind: Product, name: farm, key: FARM, model: turbine }
---
{ kind: Device, name: a, product: farm, assetId: asset-a }
---
{ kind: Device, name: b, product: farm, assetId: asset-b }
";

struct Nothing;

impl StoredTypes for Nothing {
    fn stored_as(&self, _: &ProductKey, _: &ElementName) -> Option<Storage> {
        None
    }
}

fn registry(dir: &std::path::Path) -> Registry {
    let registry = Registry::open(dir, Arc::new(Nothing), Clock::stopped(0)).unwrap();
    registry
        .apply(registry::read(FARM, Form::Yaml).unwrap(), Run::Commit)
        .unwrap();
    registry
}

/// Of (device, time, points with values and qualities).
type TestRow<'a> = (&'a str, i64, &'a [(&'a str, Cell, u8)]);

fn commit(rows: &[TestRow<'_>]) -> Commit {
    let mut builder = BatchBuilder::new();
    for (device, time_ms, cells) in rows {
        builder.row(&DeviceKey::new(device).unwrap(), *time_ms);
        for (point, cell, quality) in *cells {
            let point = ElementName::new(point).unwrap();
            builder.cell(&point, ConflictPolicy::KeepLast, cell.clone(), *quality);
        }
    }
    Commit {
        origin: Origin {
            channel: ChannelName::new("c").unwrap(),
            client: "".into(),
            topic: "".into(),
            message_id: "".into(),
            packet_id: None,
            policies: None,
            arrived_ms: 0,
        },
        product: ProductKey::new("FARM").unwrap(),
        parts: vec![Part::Points(builder.build())],
        redrive: None,
    }
}

fn published(snapshot: &Snapshot, commit: &Commit) -> Vec<(u64, String, String)> {
    let heading = Heading::new(&ObjectName::new("o1").unwrap(), snapshot, &commit.product);
    rows(&heading, snapshot, commit)
        .map(|row| (row.sequence, row.asset_id.to_string(), row.text(&heading)))
        .collect()
}

#[test]
fn a_row_is_published_as_it_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(dir.path());
    let commit = commit(&[
        (
            "a",
            1_388_534_400_000,
            &[("P_avg", Cell::Double(642.780_03), 4)],
        ),
        ("b", 5, &[("label", Cell::Text("a\"b".into()), NO_QUALITY)]),
    ]);
    let messages = published(&registry.snapshot(), &commit);
    assert_eq!(
        messages[0].2,
        concat!(
            r#"{"orgId":"o1","modelId":"turbine","modelIdPath":"/turbine","assetId":"asset-a","#,
            r#""productKey":"FARM","deviceKey":"a","time":1388534400000,"channel":"OFFLINE","#,
            r#""payload":[{"assetId":"asset-a","time":1388534400000,"#,
            r#""measurepoints":{"P_avg":642.78003},"points":"{\"P_avg\":642.78003}"}],"dq":{"P_avg":4}}"#,
        )
    );
    let second: serde_json::Value = serde_json::from_str(&messages[1].2).unwrap();
    assert_eq!(
        second["payload"][0]["measurepoints"],
        json!({"label": "a\"b"})
    );
    assert!(second.get("dq").is_none());
}

#[test]
fn values_of_every_storage_and_json_keep_their_kind() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(dir.path());
    let commit = commit(&[(
        "a",
        1,
        &[
            ("n", Cell::Long(i64::MAX), NO_QUALITY),
            ("f", Cell::Float(0.1), NO_QUALITY),
            ("pos", Cell::Text(r#"{"x":[1]}"#.into()), NO_QUALITY),
        ],
    )]);
    let text = &published(&registry.snapshot(), &commit)[0].2;
    assert!(
        text.contains(r#""measurepoints":{"n":9223372036854775807,"f":0.1,"pos":{"x":[1]}}"#),
        "{text}"
    );
    let message: serde_json::Value = serde_json::from_str(text).unwrap();
    let points = message["payload"][0]["points"].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(points).unwrap(),
        message["payload"][0]["measurepoints"]
    );
}

#[test]
fn a_row_without_values_is_left_out_and_still_counted() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(dir.path());
    let commit = commit(&[
        ("a", 1, &[("n", Cell::Long(1), NO_QUALITY)]),
        ("a", 2, &[]),
        ("b", 3, &[("f", Cell::Float(2.0), NO_QUALITY)]),
    ]);
    let messages = published(&registry.snapshot(), &commit);
    let ids: Vec<_> = messages
        .iter()
        .map(|(sequence, asset, _)| (*sequence, asset.as_str()))
        .collect();
    assert_eq!(ids, [(0, "asset-a"), (2, "asset-b")]);
}

#[test]
fn rows_of_devices_and_products_that_were_deleted_keep_their_asset() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(dir.path());
    let commit = commit(&[("a", 1, &[("n", Cell::Long(1), NO_QUALITY)])]);
    for (kind, name) in [
        (Kind::Device, "a"),
        (Kind::Device, "b"),
        (Kind::Product, "farm"),
    ] {
        registry.delete(kind, name, None).unwrap();
        let message = published(&registry.snapshot(), &commit).remove(0);
        assert_eq!(message.1, "asset-a");
    }
    let message = published(&registry.snapshot(), &commit).remove(0).2;
    assert!(message.contains(r#""modelId":"""#), "{message}");
}

#[test]
fn a_message_reads_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(dir.path());
    let snapshot = registry.snapshot();
    let commit = commit(&[(
        "a",
        1,
        &[
            ("P_avg", Cell::Double(0.1), 7),
            ("n", Cell::Long(-5), NO_QUALITY),
            ("label", Cell::Text("a\"\\b".into()), NO_QUALITY),
            ("pos", Cell::Text(r#"{"x":[1]}"#.into()), NO_QUALITY),
        ],
    )]);
    let text = published(&snapshot, &commit).remove(0).2;
    let (product, row) = read(&text).unwrap();
    let heading = Heading::new(&ObjectName::new("o1").unwrap(), &snapshot, &product);
    assert_eq!(row.text(&heading), text);
    assert!(read("{}").unwrap_err().contains("productKey"));
}

#[test]
fn events_and_attributes_are_rows_of_their_own_and_counted_together() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(dir.path());
    let snapshot = registry.snapshot();
    let mut commit = commit(&[("a", 1, &[("n", Cell::Long(1), NO_QUALITY)])]);
    let device = |key| DeviceKey::new(key).unwrap();
    let name = |text| ElementName::new(text).unwrap();
    let set = |key, attribute, value: &str| AttributeValue {
        device: device(key),
        attribute: name(attribute),
        value: value.into(),
    };
    commit.origin.arrived_ms = 77;
    commit.parts.push(Part::Events(vec![Occurrence {
        device: device("b"),
        time_ms: 5,
        event: name("alarm"),
        output: r#"{"code":3}"#.into(),
    }]));
    commit.parts.push(Part::Attributes(vec![
        set("a", "serial", "\"x\""),
        set("a", "year", "2014"),
        set("b", "serial", "\"y\""),
    ]));
    let messages = published(&snapshot, &commit);
    let places: Vec<u64> = messages.iter().map(|(sequence, ..)| *sequence).collect();
    assert_eq!(places, [0, 1, 2, 4]);
    let items: Vec<_> = messages
        .iter()
        .map(|(.., text)| {
            let message: serde_json::Value = serde_json::from_str(text).unwrap();
            message["payload"][0].clone()
        })
        .collect();
    assert_eq!(
        items[1],
        json!({"assetId": "asset-b", "time": 5, "event": "alarm", "output": {"code": 3}})
    );
    assert_eq!(
        items[2],
        json!({"assetId": "asset-a", "time": 77, "attributes": {"serial": "x", "year": 2014}})
    );
    for (.., text) in messages {
        let (product, row) = read(&text).unwrap();
        let heading = Heading::new(&ObjectName::new("o1").unwrap(), &snapshot, &product);
        assert_eq!(row.text(&heading), text);
    }
}

#[test]
fn text_that_a_changed_model_calls_json_stays_text() {
    let mut out = Vec::new();
    Value::Json("plain".into()).write(&mut out);
    assert_eq!(out, b"\"plain\"");
}

#[test]
fn the_schema_names_the_members_that_are_written() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(dir.path());
    let commit = commit(&[("a", 1, &[("P_avg", Cell::Double(1.0), 1)])]);
    let text = published(&registry.snapshot(), &commit).remove(0).2;
    let message: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let described = schema["properties"].as_object().unwrap();
    let (mut written, mut named): (Vec<_>, Vec<_>) =
        (message.keys().collect(), described.keys().collect());
    written.sort();
    named.sort();
    assert_eq!(written, named);
}
