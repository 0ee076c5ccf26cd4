//! Sessions: resumed, taken over, expired, kept over a restart.

use super::world::*;
use crate::{
    limits,
    mqtt::{Ending, Event},
};

async fn resume(world: &World, id: &str, present: u8) -> Peer {
    let mut peer = world.stream();
    peer.send(&connect_v3(id, false, 0)).await;
    peer.expect(&[0x20, 2, present, 0]).await;
    peer
}

async fn until_gone(world: &World, times: usize) {
    let gone = |event: &&Event| matches!(event, Event::Disconnected(_));
    world
        .until("gone", |house| {
            house.events.lock().iter().filter(gone).count() == times
        })
        .await;
}

#[tokio::test]
async fn an_unacknowledged_reply_comes_again_with_dup_and_waiting_ones_follow() {
    let world = World::new();
    world.hold_commits();
    let mut peer = resume(&world, "client", 0).await;
    peer.send(&subscribe(1, &[(POINTS_REPLY, 1)])).await;
    peer.expect(&[0x90, 3, 0, 1, 1]).await;
    peer.send(&publish(POINTS, 1, 1, b"first")).await;
    world.commit(1);
    peer.expect(&puback(1)).await;
    peer.expect(&publish(POINTS_REPLY, 1, 1, b"first")).await;
    peer.send(&publish(POINTS, 1, 2, b"second")).await;
    world
        .until("taken", |house| house.taken.lock().len() == 2)
        .await;
    drop(peer);
    until_gone(&world, 1).await;
    world.commit(1);

    let mut peer = resume(&world, "client", 1).await;
    let mut again = publish(POINTS_REPLY, 1, 1, b"first");
    again[0] |= 0x08;
    peer.expect(&again).await;
    peer.expect(&publish(POINTS_REPLY, 1, 2, b"second")).await;
    peer.send(&puback(1)).await;
    peer.send(&puback(2)).await;
    peer.ping().await;
    drop(peer);
    until_gone(&world, 2).await;
    resume(&world, "client", 1).await.ping().await;
}

#[tokio::test]
async fn a_clean_session_leaves_nothing_behind() {
    let world = World::new();
    let mut peer = resume(&world, "client", 0).await;
    peer.send(&subscribe(1, &[(POINTS_REPLY, 1)])).await;
    peer.expect(&[0x90, 3, 0, 1, 1]).await;
    peer.send(&[0xE0, 0]).await;
    peer.expect_end().await;
    until_gone(&world, 1).await;
    let mut peer = world.v3("client").await;
    peer.send(&publish(POINTS, 1, 1, b"a")).await;
    peer.expect(&puback(1)).await;
    peer.send(&[0xE0, 0]).await;
    peer.expect_end().await;
    until_gone(&world, 2).await;
    resume(&world, "client", 0).await;
}

#[tokio::test]
async fn a_clean_session_hears_no_reply_to_the_session_before_it() {
    let world = World::new();
    world.hold_commits();
    let mut before = world.v3("client").await;
    before.send(&publish(POINTS, 1, 1, b"before")).await;
    world
        .until("taken", |house| house.taken.lock().len() == 1)
        .await;
    let mut peer = world.v3("client").await;
    before.expect_end().await;
    peer.send(&subscribe(1, &[(POINTS_REPLY, 1)])).await;
    peer.expect(&[0x90, 3, 0, 1, 1]).await;
    world.commit(1);
    peer.send(&publish(POINTS, 1, 1, b"now")).await;
    world
        .until("taken", |house| house.taken.lock().len() == 2)
        .await;
    world.commit(1);
    peer.expect(&puback(1)).await;
    peer.expect(&publish(POINTS_REPLY, 1, 1, b"now")).await;
    peer.ping().await;
}

#[tokio::test]
async fn a_second_connection_with_the_same_client_id_takes_over() {
    let world = World::new();
    let mut first = world.v5("client").await;
    let mut second = world.v5("client").await;
    first.expect_disconnect(0x8E).await;
    second.ping().await;
    assert!(world.has_event(|event| *event == Event::Disconnected(Ending::TakenOver)));
    let mut third = world.v3("client").await;
    second.expect_disconnect(0x8E).await;
    third.ping().await;
}

#[tokio::test]
async fn the_session_of_5_0_lasts_as_long_as_it_asks_and_no_longer_than_the_cap() {
    let world = World::with(limits::Mqtt {
        session_expiry_s_max: 60,
        ..limits::Mqtt::default()
    });
    let mut peer = world.stream();
    peer.send(&connect_v5("client", false, 0, &[0x11, 0, 0, 1, 0]))
        .await;
    let connack = peer.packet().await;
    assert_eq!(
        connack[5..10],
        [0x11, 0, 0, 0, 60],
        "the cap is announced: {connack:02x?}"
    );
    drop(peer);
    until_gone(&world, 1).await;
    let mut peer = world.stream();
    peer.send(&connect_v5("client", false, 0, &[0x11, 0, 0, 0, 9]))
        .await;
    assert_eq!(peer.packet().await[2], 1, "session present");
    // DISCONNECT with a session expiry of 0.
    peer.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    peer.expect_end().await;
    until_gone(&world, 2).await;
    let mut peer = world.stream();
    peer.send(&connect_v5("client", false, 0, &[])).await;
    assert_eq!(peer.packet().await[2], 0, "no session present");
    peer.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9]).await;
    peer.expect_disconnect(0x82).await;
}

#[tokio::test]
async fn an_empty_client_id_is_given_one() {
    let world = World::new();
    let mut peer = world.v5("").await;
    peer.ping().await;
    let mut old = world.v3("").await;
    old.ping().await;
    let mut refused = world.stream();
    refused.send(&connect_v3("", false, 0)).await;
    refused.expect(&[0x20, 2, 0, 2]).await;
    refused.expect_end().await;
}

#[tokio::test]
async fn the_receive_maximum_of_the_client_holds_replies_back() {
    let world = World::new();
    let mut peer = world.stream();
    peer.send(&connect_v5("client", true, 0, &[0x21, 0, 2]))
        .await;
    assert_eq!(peer.packet().await[0], 0x20);
    peer.send(&subscribe_v5(1, &[(POINTS_REPLY, 1)])).await;
    peer.expect(&[0x90, 4, 0, 1, 0, 1]).await;
    for id in 1..=3 {
        peer.send(&publish_v5(POINTS, 0, 0, &[b'0' + id])).await;
    }
    peer.expect(&publish_v5(POINTS_REPLY, 1, 1, b"1")).await;
    peer.expect(&publish_v5(POINTS_REPLY, 1, 2, b"2")).await;
    peer.ping().await;
    peer.send(&puback(2)).await;
    peer.expect(&publish_v5(POINTS_REPLY, 1, 3, b"3")).await;
}

#[tokio::test]
async fn sessions_and_waiting_replies_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sessions.db");
    let world = World::kept(limits::Mqtt::default(), Some(&path));
    let mut peer = resume(&world, "client", 0).await;
    peer.send(&subscribe(1, &[(POINTS_REPLY, 1)])).await;
    peer.expect(&[0x90, 3, 0, 1, 1]).await;
    peer.send(&publish(POINTS, 1, 1, b"a")).await;
    peer.expect(&puback(1)).await;
    peer.expect(&publish(POINTS_REPLY, 1, 1, b"a")).await;
    peer.send(&publish(POINTS, 2, 5, b"b")).await;
    peer.expect(&[0x50, 2, 0, 5]).await;
    world.door.close().await;
    drop(world);

    let world = World::kept(limits::Mqtt::default(), Some(&path));
    let mut peer = resume(&world, "client", 1).await;
    for (id, payload) in [(1, b"a"), (2, b"b")] {
        let mut again = publish(POINTS_REPLY, 1, id, payload);
        let got = peer.packet().await;
        again[0] = got[0];
        assert_eq!(got, again);
    }
    // The QoS 2 message that was not released is known still.
    peer.send(&publish(POINTS, 2, 5, b"b")).await;
    peer.expect(&[0x50, 2, 0, 5]).await;
    assert_eq!(world.taken(), [""; 0]);
}
