//! Acks, replies and their order.

use std::sync::atomic::Ordering;

use super::world::*;
use crate::mqtt::{Ending, Event, Payload};

#[tokio::test]
async fn a_reply_follows_the_ack_to_a_client_that_subscribed_without_waiting() {
    let world = World::new();
    let mut peer = world.v3("client").await;
    let mut burst = subscribe(7, &[(POINTS_REPLY, 1)]);
    burst.extend(publish(POINTS, 1, 1, b"a"));
    peer.send(&burst).await;
    peer.expect(&[0x90, 3, 0, 7, 1]).await;
    peer.expect(&puback(1)).await;
    peer.expect(&publish(POINTS_REPLY, 1, 1, b"a")).await;
    peer.send(&puback(1)).await;
    peer.ping().await;
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_durable() {
    let world = World::new();
    world.hold_commits();
    let mut peer = world.v3("client").await;
    peer.send(&publish(POINTS, 1, 1, b"a")).await;
    world
        .until("taken", |house| house.taken.lock().len() == 1)
        .await;
    // The answer to the ping overtakes: nothing else was there to be said.
    peer.ping().await;
    world.commit(1);
    peer.expect(&puback(1)).await;
}

#[tokio::test]
async fn bursts_are_taken_while_earlier_ones_are_in_flight_and_acknowledged_in_order() {
    let world = World::new();
    world.hold_commits();
    let mut peer = world.v3("client").await;
    for id in 1..=5 {
        peer.send(&publish(POINTS, 1, id, id.to_string().as_bytes()))
            .await;
        world
            .until("taken", |house| house.taken.lock().len() == usize::from(id))
            .await;
    }
    assert_eq!(world.taken(), ["1", "2", "3", "4", "5"]);
    world.commit(5);
    for id in 1..=5 {
        peer.expect(&puback(id)).await;
    }
}

#[tokio::test]
async fn everything_buffered_is_one_burst_and_its_acks_are_one_write() {
    let world = World::new();
    world.hold_commits();
    let mut peer = world.v3("client").await;
    // Less than the first buffer of a connection.
    let many: Vec<u8> = (1..=50)
        .flat_map(|id| publish(POINTS, 1, id, b"x"))
        .collect();
    peer.send(&many).await;
    world
        .until("taken", |house| house.taken.lock().len() == 50)
        .await;
    assert_eq!(world.house.bursts.load(Ordering::Relaxed), 1);
    world.commit(1);
    for id in 1..=50 {
        peer.expect(&puback(id)).await;
    }
}

#[tokio::test]
async fn qos_0_is_taken_without_ack_and_a_foreign_topic_is_acknowledged_as_not_authorized() {
    let world = World::new();
    let mut peer = world.v5("client").await;
    peer.send(&publish_v5(POINTS, 0, 0, b"a")).await;
    peer.send(&publish_v5("other/topic", 1, 2, b"b")).await;
    peer.expect(&[0x40, 3, 0, 2, 0x87]).await;
    let mut old = world.v3("old").await;
    old.send(&publish("other/topic", 1, 2, b"c")).await;
    old.expect(&puback(2)).await;
    assert_eq!(world.taken(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_qos_2_message_that_comes_again_before_its_release_is_not_taken_again() {
    let world = World::new();
    let mut peer = world.v3("client").await;
    peer.send(&publish(POINTS, 2, 9, b"a")).await;
    peer.expect(&[0x50, 2, 0, 9]).await;
    let mut again = publish(POINTS, 2, 9, b"a");
    again[0] |= 0x08;
    peer.send(&again).await;
    peer.expect(&[0x50, 2, 0, 9]).await;
    peer.send(&[0x62, 2, 0, 9]).await;
    peer.expect(&[0x70, 2, 0, 9]).await;
    assert_eq!(world.taken(), ["a"]);
    peer.send(&publish(POINTS, 2, 9, b"b")).await;
    peer.expect(&[0x50, 2, 0, 9]).await;
    assert_eq!(world.taken(), ["a", "b"]);
}

#[tokio::test]
async fn a_refused_qos_2_message_of_5_0_ends_with_its_pubrec() {
    let world = World::new();
    let mut peer = world.v5("client").await;
    for _ in 0..2 {
        peer.send(&publish_v5("other/topic", 2, 9, b"a")).await;
        peer.expect(&[0x50, 3, 0, 9, 0x87]).await;
    }
    assert_eq!(world.taken().len(), 2, "the id was free again");
}

#[tokio::test]
async fn replies_go_to_the_sender_and_only_without_subscription_to_a_listener() {
    let world = World::new();
    let mut listener = world.v3("listener").await;
    listener.send(&subscribe(1, &[("/sys/PK/#", 0)])).await;
    listener.expect(&[0x90, 3, 0, 1, 0]).await;
    let mut sender = world.v3("sender").await;
    sender.send(&publish(POINTS, 1, 1, b"heard")).await;
    sender.expect(&puback(1)).await;
    listener
        .expect(&publish(POINTS_REPLY, 0, 0, b"heard"))
        .await;

    sender.send(&subscribe(1, &[(POINTS_REPLY, 0)])).await;
    sender.expect(&[0x90, 3, 0, 1, 0]).await;
    sender.send(&publish(POINTS, 1, 2, b"own")).await;
    sender.expect(&puback(2)).await;
    sender.expect(&publish(POINTS_REPLY, 0, 0, b"own")).await;
    listener.ping().await;
}

#[tokio::test]
async fn a_client_that_publishes_never_hears_the_replies_to_another() {
    let world = World::new();
    let mut neighbour = world.v3("neighbour").await;
    neighbour.send(&subscribe(1, &[(POINTS_REPLY, 0)])).await;
    neighbour.expect(&[0x90, 3, 0, 1, 0]).await;
    neighbour.send(&publish(POINTS, 0, 0, b"mine")).await;
    neighbour
        .expect(&publish(POINTS_REPLY, 0, 0, b"mine"))
        .await;
    let mut sender = world.v3("sender").await;
    sender.send(&publish(POINTS, 1, 1, b"another's")).await;
    sender.expect(&puback(1)).await;
    neighbour.ping().await;
}

#[tokio::test]
async fn topic_aliases_stand_for_their_topics() {
    let world = World::new();
    let mut peer = world.v5("client").await;
    peer.send(&publish(POINTS, 1, 1, b"\x03\x23\0\x10a")).await;
    peer.send(&publish("", 1, 2, b"\x03\x23\0\x10b")).await;
    peer.expect(&puback(1)).await;
    peer.expect(&puback(2)).await;
    assert_eq!(&*world.house.taken.lock()[1].topic, POINTS);
    peer.send(&publish("", 1, 3, b"\x03\x23\0\x11c")).await;
    peer.expect_disconnect(0x94).await;
}

#[tokio::test]
async fn subscriptions_are_granted_by_the_rules_with_the_codes_of_each_version() {
    let world = World::new();
    let filters = [
        (POINTS_REPLY, 2),
        ("sys/PK/#", 0),
        ("#", 1),
        ("$share/g/sys/PK/#", 1),
    ];
    let mut peer = world.v3("old").await;
    peer.send(&subscribe(3, &filters)).await;
    peer.expect(&[0x90, 6, 0, 3, 1, 0, 0x80, 0x80]).await;
    let mut peer = world.v5("new").await;
    peer.send(&subscribe_v5(3, &filters)).await;
    peer.expect(&[0x90, 7, 0, 3, 0, 1, 0, 0x87, 0x9E]).await;
    peer.send(b"\xA2\x0F\0\x04\0\0\x08sys/PK/#\0\x00").await;
    peer.expect_disconnect(0x81).await;
    assert!(world.has_event(|event| matches!(event, Event::SubscriptionRefused { .. })));
}

#[tokio::test]
async fn unsubscribing_stops_replies() {
    let world = World::new();
    let mut peer = world.v5("client").await;
    peer.send(&subscribe_v5(3, &[("/sys/PK/#", 0)])).await;
    peer.expect(&[0x90, 4, 0, 3, 0, 0]).await;
    peer.send(b"\xA2\x0E\0\x04\0\0\x09/sys/PK/#").await;
    peer.expect(&[0xB0, 4, 0, 4, 0, 0]).await;
    peer.send(b"\xA2\x0E\0\x05\0\0\x09/sys/PK/#").await;
    peer.expect(&[0xB0, 4, 0, 5, 0, 0x11]).await;
    peer.send(&publish_v5(POINTS, 1, 1, b"a")).await;
    peer.expect(&puback(1)).await;
    peer.ping().await;
}

#[tokio::test]
async fn too_many_filters_or_subscriptions_are_refused_one_by_one() {
    let world = World::new();
    let mut peer = world.v5("client").await;
    let nine = [("sys/PK/#", 0); 9];
    peer.send(&subscribe_v5(1, &nine)).await;
    assert_eq!(peer.packet().await[5..], [0, 0, 0, 0, 0, 0, 0, 0, 0x97]);
    let distinct: Vec<String> = ["", "/"]
        .iter()
        .flat_map(|slash| {
            ["event", "attribute", "attributes", "measurepoint"]
                .iter()
                .flat_map(move |kind| {
                    ["integration", "+"]
                        .map(|first| format!("{slash}sys/PK/{first}/{kind}/post_reply"))
                })
        })
        .collect();
    assert_eq!(distinct.len(), 16);
    for chunk in distinct.chunks(8) {
        let chunk: Vec<(&str, u8)> = chunk.iter().map(|filter| (filter.as_str(), 0)).collect();
        peer.send(&subscribe_v5(2, &chunk)).await;
        let got = peer.packet().await;
        if chunk[0].0 == distinct[0] {
            assert_eq!(got[5..], [0; 8]);
        } else {
            // One subscription was there already.
            assert_eq!(got[5..], [0, 0, 0, 0, 0, 0, 0, 0x97]);
        }
    }
}

#[tokio::test]
async fn a_payload_over_the_limit_is_drained_and_answered_and_the_connection_stays() {
    let world = World::new();
    let mut peer = world.v3("client").await;
    peer.send(&subscribe(1, &[(POINTS_REPLY, 0)])).await;
    peer.expect(&[0x90, 3, 0, 1, 0]).await;
    let payload: Vec<u8> = (0..20_u32 << 20).map(|n| n.to_le_bytes()[1]).collect();
    let free = world.door.buffers.available_permits();
    let sending = async {
        let packet = publish(POINTS, 1, 1, &payload);
        for chunk in packet.chunks(50_000) {
            peer.send(chunk).await;
            let used = free - world.door.buffers.available_permits();
            assert!(used <= 64, "{used} KiB are buffered");
        }
    };
    sending.await;
    peer.expect(&puback(1)).await;
    peer.expect(&publish(POINTS_REPLY, 0, 0, b"too large: 20971520"))
        .await;
    peer.ping().await;
    let taken = world.house.taken.lock();
    let Payload::Oversize {
        bytes,
        sha256,
        head,
    } = &taken[0].payload
    else {
        panic!()
    };
    use sha2::Digest as _;
    assert_eq!(*bytes, 20 << 20);
    assert_eq!(sha256[..], sha2::Sha256::digest(&payload)[..]);
    assert_eq!(head[..], payload[..4096]);
}

#[tokio::test]
async fn the_limit_is_on_the_payload_not_on_the_packet() {
    let world = World::new();
    let mut peer = world.stream_from("127.0.0.1:1".parse().unwrap(), 1 << 21);
    peer.send(&connect_v3("client", true, 0)).await;
    peer.expect(&[0x20, 2, 0, 0]).await;
    peer.send(&publish(POINTS, 1, 1, &vec![1; 512 * 1024]))
        .await;
    peer.send(&publish(POINTS, 1, 2, &vec![1; 512 * 1024 + 1]))
        .await;
    peer.expect(&puback(1)).await;
    peer.expect(&puback(2)).await;
    let taken = world.house.taken.lock();
    assert!(matches!(&taken[0].payload, Payload::Whole(whole) if whole.len() == 512 * 1024));
    assert!(matches!(
        &taken[1].payload,
        Payload::Oversize { bytes: 524_289, .. }
    ));
}

#[tokio::test]
async fn a_store_that_is_down_means_no_ack_and_the_end() {
    let world = World::new();
    let mut peer = world.v5("client").await;
    world.house.is_down.store(true, Ordering::Relaxed);
    peer.send(&publish_v5(POINTS, 1, 1, b"a")).await;
    peer.expect_disconnect(0x97).await;
    assert!(world.has_event(|event| *event == Event::Disconnected(Ending::StoreDown)));
}

#[tokio::test]
async fn a_message_without_an_outcome_is_not_acknowledged() {
    let world = World::new();
    let mut peer = world.v5("client").await;
    world.house.is_forgetful.store(true, Ordering::Relaxed);
    peer.send(&publish_v5(POINTS, 1, 1, b"a")).await;
    peer.expect_disconnect(0x97).await;
    assert!(world.has_event(|event| *event == Event::Disconnected(Ending::StoreDown)));
}

#[tokio::test]
async fn a_connection_that_goes_away_does_not_cancel_its_bursts() {
    let world = World::new();
    world.hold_commits();
    let mut listener = world.v3("listener").await;
    listener.send(&subscribe(1, &[("/sys/PK/#", 0)])).await;
    listener.expect(&[0x90, 3, 0, 1, 0]).await;
    let mut peer = world.v3("client").await;
    peer.send(&publish(POINTS, 1, 1, b"a")).await;
    world
        .until("taken", |house| house.taken.lock().len() == 1)
        .await;
    drop(peer);
    let gone = |event: &Event| matches!(event, Event::Disconnected(Ending::Gone(_)));
    world
        .until("gone", |house| house.events.lock().iter().any(gone))
        .await;
    world.commit(1);
    listener.expect(&publish(POINTS_REPLY, 0, 0, b"a")).await;
}

#[tokio::test]
async fn retained_publishes_and_wills_are_taken_without_effect_but_a_note() {
    let world = World::new();
    let mut peer = world.stream();
    peer.send(b"\x10\x13\0\x04MQTT\x04\x06\0\0\0\x01p\0\x01w\0\x01m")
        .await;
    peer.expect(&[0x20, 2, 0, 0]).await;
    let mut retained = publish(POINTS, 1, 1, b"a");
    retained[0] |= 1;
    peer.send(&retained).await;
    peer.expect(&puback(1)).await;
    assert!(world.has_event(|event| matches!(event, Event::WillIgnored { .. })));
    assert!(world.has_event(|event| matches!(event, Event::RetainIgnored { .. })));
}
