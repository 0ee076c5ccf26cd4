//! The sink over librdkafka's own imitation of a cluster: what happens when it is away, or refuses.
//! What the guarantees promise is shown with real Kafka, in `tests/outside`.

use std::collections::BTreeMap;

use bytes::Bytes;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
    mocking::MockCluster,
    producer::DefaultProducerContext,
};

use super::*;
use crate::{
    config::{Compression, Kafka},
    sink::Record,
};

const TOPIC: &str = "MEASURE_POINT_ORIGIN_OFFLINE_o1";

type Mock = MockCluster<'static, DefaultProducerContext>;

fn mock() -> Mock {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic(TOPIC, 3, 1).unwrap();
    mock.create_topic("BACKTIDE_CURSORS_o1", 1, 1).unwrap();
    mock
}

fn cluster(servers: String) -> Cluster {
    let settings = Kafka {
        bootstrap_servers: servers,
        compression: Compression::Lz4,
        partitions: 3,
        replication: None,
        message_bytes_max: 10_000,
        transactional_id_prefix: "test".into(),
        connect_timeout_ms: 1_000,
        delivery_timeout_ms: 3_000,
        tls: None,
        sasl: None,
    };
    Cluster::new(settings, backtide_model::ObjectName::new("o1").unwrap(), 7)
}

fn record(key: &str, value: &[u8]) -> Record {
    Record {
        address: TOPIC.into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value),
        headers: vec![("backtide-sequence".into(), "5".into())],
    }
}

fn stretch(records: Vec<Record>, reached: u64) -> Stretch {
    Stretch {
        records,
        reached: Sequence(reached),
    }
}

/// The texts of each key, in order.
fn read(mock: &Mock) -> BTreeMap<String, Vec<String>> {
    let consumer: BaseConsumer = cluster(mock.bootstrap_servers())
        .client()
        .set("group.id", "test")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut from_start = TopicPartitionList::new();
    for partition in 0..3 {
        from_start
            .add_partition_offset(TOPIC, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&from_start).unwrap();
    let (mut ended, mut found) = (0, BTreeMap::<_, Vec<_>>::new());
    while ended < 3 {
        match consumer.poll(std::time::Duration::from_secs(10)) {
            Some(Ok(record)) => {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let headers = record.headers().unwrap();
                assert_eq!(headers.get(0).value, Some(&b"5"[..]));
                let key = text(record.key().unwrap());
                found
                    .entry(key)
                    .or_default()
                    .push(text(record.payload().unwrap()));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            other => panic!("{other:?}"),
        }
    }
    found
}

#[tokio::test]
async fn a_stretch_is_delivered_in_order_of_each_key() {
    let mock = mock();
    let sink = cluster(mock.bootstrap_servers()).sink("r", Guarantee::AtLeastOnce);
    assert_eq!(sink.reached().await, Ok(None));
    let records = (0..300).map(|n| record(&format!("d{}", n % 3), format!("{n}").as_bytes()));
    assert_eq!(
        sink.deliver(&stretch(records.collect(), 9)).await,
        Ok(vec![])
    );
    for (key, texts) in read(&mock) {
        let wanted: Vec<_> = (0..300)
            .filter(|n| format!("d{}", n % 3) == key)
            .map(|n| n.to_string())
            .collect();
        assert_eq!(texts, wanted, "{key}");
    }
}

#[tokio::test]
async fn what_is_too_large_or_has_no_topic_is_told_and_the_rest_is_delivered() {
    let mock = mock();
    let sink = cluster(mock.bootstrap_servers()).sink("r", Guarantee::AtLeastOnce);
    let mut nowhere = record("d", b"2");
    nowhere.address = "no topic".into();
    let records = vec![
        record("d", b"0"),
        record("d", &[b'x'; 20_000]),
        nowhere,
        record("d", b"3"),
    ];
    let poison = sink.deliver(&stretch(records, 9)).await.unwrap();
    assert_eq!(
        poison.iter().map(|poison| poison.index).collect::<Vec<_>>(),
        [1, 2]
    );
    assert!(poison[0].reason.contains("max.message.bytes"), "{poison:?}");
    assert!(
        poison[1].reason.contains("no name of a topic"),
        "{poison:?}"
    );
    let texts = &read(&mock)["d"];
    assert_eq!(texts.first().map(String::as_str), Some("0"));
    assert_eq!(texts.last().map(String::as_str), Some("3"));
}

#[tokio::test]
async fn a_cluster_that_is_away_is_unavailable_in_plain_words_and_delivers_when_it_is_back() {
    let mock = mock();
    let sink = cluster(mock.bootstrap_servers()).sink("r", Guarantee::AtLeastOnce);
    let first = stretch(vec![record("d", b"0")], 1);
    assert_eq!(sink.deliver(&first).await, Ok(vec![]));
    mock.broker_down(1).unwrap();
    let second = stretch(vec![record("d", b"1")], 2);
    let error = sink.deliver(&second).await.unwrap_err();
    let SinkError::Unavailable(reason) = error else {
        panic!("{error:?}");
    };
    assert!(reason.contains("kafka.bootstrap_servers"), "{reason}");
    mock.broker_up(1).unwrap();
    let mut outcome = sink.deliver(&second).await;
    while matches!(outcome, Err(SinkError::Unavailable(_))) {
        outcome = sink.deliver(&second).await;
    }
    assert_eq!(outcome, Ok(vec![]));
    let texts = &read(&mock)["d"];
    assert_eq!(texts.first().map(String::as_str), Some("0"));
    assert_eq!(texts.last().map(String::as_str), Some("1"));
}

#[tokio::test]
async fn nobody_listens_there() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    let sink = cluster(address).sink("r", Guarantee::ExactlyOnce);
    let SinkError::Unavailable(reason) = sink.reached().await.unwrap_err() else {
        panic!("nobody can have fenced it");
    };
    assert!(reason.contains("nothing listens there"), "{reason}");
}
