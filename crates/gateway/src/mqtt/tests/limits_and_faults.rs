//! Time, bounds, and clients that break the rules.

use tokio::time::{Duration, Instant};

use super::world::*;
use crate::{
    limits,
    mqtt::{Dropped, Ending, Event},
};

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_after_one_and_a_half_keep_alives() {
    let world = World::new();
    let mut peer = world.stream();
    peer.send(&connect_v5("client", true, 10, &[])).await;
    assert_eq!(peer.packet().await[0], 0x20);
    tokio::time::sleep(Duration::from_secs(14)).await;
    peer.ping().await;
    let start = Instant::now();
    peer.expect_disconnect(0x8D).await;
    assert_eq!(start.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn keep_alive_0_never_closes_and_a_very_long_one_is_capped_in_5_0() {
    let world = World::new();
    let mut peer = world.v5("client").await;
    tokio::time::sleep(Duration::from_secs(100_000)).await;
    peer.ping().await;
    let mut peer = world.stream();
    peer.send(&connect_v5("other", true, u16::MAX, &[])).await;
    let connack = peer.packet().await;
    assert_eq!(connack[5..8], [0x13, 0x0E, 0x10], "{connack:02x?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_say_connect_is_closed_after_ten_seconds() {
    let world = World::new();
    let start = Instant::now();
    let mut silent = world.stream();
    silent.expect_end().await;
    assert_eq!(start.elapsed().as_secs(), 10);
    let mut half = world.stream();
    half.send(b"\x10\x0D\0\x04MQ").await;
    half.expect_end().await;
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test]
async fn a_connect_that_is_none_is_refused_with_the_right_words() {
    let world = World::new();
    for (bytes, answer) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], None),
        (b"\x30\x03\0\x01a", None),
        (
            b"\x10\x0D\0\x04MQTT\x06\x02\0\x0a\0\x01p",
            Some(&[0x20, 2, 0, 1][..]),
        ),
        (b"\x10\x0D\0\x04MQTT\x04\x03\0\x0a\0\x01p", None),
        (b"\x10\x0E\0\x04MQTT\x05\x03\0\x0a\0\0\x01p", Some(&[0x20])),
        (b"\x10\x80\x80\x04\0\x04MQTT\x04", None),
    ] {
        let mut peer = world.stream();
        peer.send(bytes).await;
        let got = peer.packet_or_end().await;
        assert_eq!(got.is_some(), answer.is_some(), "{bytes:02x?} {got:02x?}");
        if let (Some(got), Some(answer)) = (got, answer) {
            assert!(got.starts_with(answer), "{got:02x?}");
            peer.expect_end().await;
        }
    }
    // Enhanced authentication.
    let mut peer = world.stream();
    peer.send(&connect_v5("client", true, 0, b"\x15\0\x01x"))
        .await;
    assert_eq!(peer.packet().await[3], 0x8C);
}

#[tokio::test]
async fn each_malformed_packet_closes_with_its_reason_and_what_came_before_is_taken() {
    let world = World::new();
    for (bytes, reason) in [
        (&b"\x36\x05\0\x01a\0\x01"[..], 0x81),
        (b"\x38\x04\0\x01a\0", 0x81),
        (b"\x30\x05\0\x02a#\0", 0x81),
        (b"\x32\x06\0\x01a\0\0\0", 0x82),
        (b"\x82\x07\0\x01\0\0\x01a\x40", 0x81),
        (b"\xC0\x01\0", 0x81),
        (b"\x20\x02\0\0", 0x82),
        (b"\xF0\x00", 0x82),
        (b"\x10\x0E\0\x04MQTT\x05\x02\0\x0a\0\0\x01p", 0x82),
        (b"\x30\xFF\xFF\xFF\xFF\x01", 0x81),
        (b"\x82\xFF\x7F", 0x95),
        (b"\x00\x00", 0x82),
    ] {
        let before = world.taken().len();
        let mut peer = world.v5("client").await;
        let mut burst = publish_v5(POINTS, 0, 0, b"good");
        burst.extend_from_slice(bytes);
        peer.send(&burst).await;
        let got = peer.packet().await;
        assert_eq!((got[0], got[2]), (0xE0, reason), "{bytes:02x?}: {got:02x?}");
        peer.expect_end().await;
        world
            .until("taken", |house| house.taken.lock().len() == before + 1)
            .await;
    }
    let mut old = world.v3("client").await;
    old.send(&[0xC0, 1, 0]).await;
    old.expect_end().await;
}

#[tokio::test]
async fn a_publish_header_without_end_costs_no_memory() {
    let world = World::new();
    let mut peer = world.v5("client").await;
    // A PUBLISH of 200 MB whose properties never end.
    let mut bytes = b"\x30\x80\x80\xB0\x5F\0\x01a\x80\x80\xB0\x5F".to_vec();
    bytes.resize(60_000, 0x26);
    peer.send(&bytes).await;
    peer.expect_disconnect(0x95).await;
}

#[tokio::test]
async fn beyond_the_bound_in_flight_the_door_stops_reading() {
    let world = World::with(limits::Mqtt {
        in_flight_messages_max: 10,
        ..limits::Mqtt::default()
    });
    world.hold_commits();
    let mut peer = world.v3("client").await;
    let many: Vec<u8> = (1..=100)
        .flat_map(|id| publish(POINTS, 1, id, b"x"))
        .collect();
    peer.send(&many).await;
    world
        .until("taken", |house| house.taken.lock().len() == 10)
        .await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.taken().len(), 10);
    world.commit(1_000);
    for id in 1..=100 {
        peer.expect(&puback(id)).await;
    }
}

#[tokio::test]
async fn the_buffers_of_all_connections_are_bounded_together() {
    let world = World::with(limits::Mqtt {
        buffer_bytes_max: 1024 * 1024,
        ..limits::Mqtt::default()
    });
    world.hold_commits();
    let mut peers = Vec::new();
    for n in 0..8 {
        let mut peer = world.v3(&format!("client {n}")).await;
        // All but the last byte: the door has room for two of these at most.
        let packet = publish(POINTS, 1, 1, &vec![b'x'; 300 * 1024]);
        peers.push(tokio::spawn(async move {
            peer.send(&packet).await;
            peer.expect(&puback(1)).await;
        }));
    }
    world
        .until("the first are taken", |house| house.taken.lock().len() >= 2)
        .await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(world.taken().len() <= 3, "{}", world.taken().len());
    world.commit(8);
    for peer in peers {
        peer.await.unwrap();
    }
    drop(world.door.buffers.acquire_many(1024).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_closed_and_its_replies_are_bounded() {
    let world = World::with(limits::Mqtt {
        waiting_replies_max: 20,
        outbox_bytes_max: 1024,
        ..limits::Mqtt::default()
    });
    let mut peer = world.stream_from("127.0.0.1:1".parse().unwrap(), 4 * 1024);
    peer.send(&connect_v3("client", true, 0)).await;
    peer.expect(&[0x20, 2, 0, 0]).await;
    peer.send(&subscribe(1, &[(POINTS_REPLY, 0)])).await;
    peer.expect(&[0x90, 3, 0, 1, 0]).await;
    let start = Instant::now();
    let flood = async {
        loop {
            let packet = publish(POINTS, 0, 0, &[b'x'; 100]);
            if tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &packet)
                .await
                .is_err()
            {
                break;
            }
        }
    };
    flood.await;
    let waited = start.elapsed().as_secs();
    assert!((10..=12).contains(&waited), "{waited} s");
    assert!(world.has_event(|event| *event == Event::Disconnected(Ending::WriteTimeout)));
    let full = |event: &Event| {
        matches!(
            event,
            Event::ReplyDropped {
                reason: Dropped::Full | Dropped::SessionOver,
                ..
            }
        )
    };
    assert!(world.has_event(full) || world.taken().len() < 100);
}

#[tokio::test(start_paused = true)]
async fn a_packet_that_is_never_finished_is_given_up() {
    let world = World::new();
    let mut peer = world.v5("client").await;
    peer.send(&publish_v5(POINTS, 1, 1, b"whole")[..10]).await;
    let start = Instant::now();
    peer.expect_disconnect(0x81).await;
    assert_eq!(start.elapsed().as_secs(), 120);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_gives_its_large_buffer_back() {
    let world = World::new();
    let free = world.door.buffers.available_permits();
    let mut peer = world.v3("client").await;
    let sender = async {
        peer.send(&publish(POINTS, 1, 1, &vec![b'x'; 100_000]))
            .await;
        peer.expect(&puback(1)).await;
    };
    sender.await;
    world.house.taken.lock().clear();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.door.buffers.available_permits(), free);
    peer.ping().await;
}

#[tokio::test(start_paused = true)]
async fn closing_finishes_what_is_in_flight_and_says_goodbye() {
    let world = World::new();
    world.hold_commits();
    let mut peer = world.v5("client").await;
    peer.send(&publish_v5(POINTS, 1, 1, b"a")).await;
    world
        .until("taken", |house| house.taken.lock().len() == 1)
        .await;
    let door = std::sync::Arc::clone(&world.door);
    let closing = tokio::spawn(async move { door.close().await });
    tokio::task::yield_now().await;
    peer.send(&publish_v5(POINTS, 1, 2, b"too late")).await;
    world.commit(1);
    peer.expect(&puback(1)).await;
    peer.expect_disconnect(0x8B).await;
    closing.await.unwrap();
    assert_eq!(world.taken(), ["a"]);
}

#[tokio::test]
async fn revoking_a_channel_closes_its_connections() {
    let world = World::new();
    let mut peer = world.v5("client").await;
    world.house.revoked.cancel();
    peer.expect_disconnect(0x98).await;
}
