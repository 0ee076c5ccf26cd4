//! Refusals: of the house, of throttling, of the caps; and the door over real TCP.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Duration,
};

use super::world::*;
use crate::{
    limits,
    mqtt::{Event, Refusal, bind},
};

#[tokio::test]
async fn every_refusal_has_its_code_in_both_versions() {
    let world = World::new();
    for (refusal, v3, v5) in [
        (Refusal::BadCredentials, 4, 0x86),
        (Refusal::NotAuthorized, 5, 0x87),
        (Refusal::NotReady, 3, 0x88),
        (Refusal::Paused, 3, 0x88),
        (Refusal::BadCompression("LZO".to_owned()), 2, 0x85),
        (Refusal::TooManyConnections, 3, 0x97),
    ] {
        *world.house.refuses.lock() = Some(refusal);
        let mut peer = world.stream();
        peer.send(&connect_v3("old", true, 0)).await;
        peer.expect(&[0x20, 2, 0, v3]).await;
        peer.expect_end().await;
        let mut peer = world.stream();
        peer.send(&connect_v5("new", true, 0, &[])).await;
        assert_eq!(peer.packet().await[2..4], [0, v5]);
        peer.expect_end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn failed_logins_are_throttled_per_address_and_per_client_id() {
    let world = World::new();
    let attacker: SocketAddr = "192.0.2.1:5".parse().unwrap();
    let other: SocketAddr = "192.0.2.2:5".parse().unwrap();
    let login = async |address, id: &str, password| {
        let mut peer = world.stream_from(address, 4 * 1024);
        peer.send(&connect_with_password(id, password)).await;
        peer.packet().await[3]
    };
    for n in 0..10 {
        assert_eq!(login(attacker, &format!("client {n}"), "wrong").await, 4);
    }
    assert_eq!(login(attacker, "client", "right").await, 3, "throttled");
    assert_eq!(login(other, "client", "right").await, 0);
    for n in 3..13 {
        let address = SocketAddr::new([192, 0, 2, n].into(), 5);
        assert_eq!(login(address, "victim", "wrong").await, 4);
    }
    assert_eq!(login(other, "victim", "wrong").await, 3, "throttled");
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(login(attacker, "client", "right").await, 0);
}

#[tokio::test]
async fn connections_are_capped_per_channel_and_per_address() {
    let world = World::with(limits::Mqtt {
        connections_per_channel_max: 2,
        connections_per_address_max: 4,
        ..limits::Mqtt::default()
    });
    let _first = world.v3("a").await;
    let mut second = world.v3("b").await;
    let mut third = world.stream();
    third.send(&connect_v3("c", true, 0)).await;
    third.expect(&[0x20, 2, 0, 3]).await;
    third.expect_end().await;
    second.send(&[0xE0, 0]).await;
    second.expect_end().await;
    // Its place is free as soon as the door has let go of it.
    let place = loop {
        let mut peer = world.stream();
        peer.send(&connect_v3("c", true, 0)).await;
        match peer.packet_or_end().await {
            Some(connack) if connack[3] == 0 => break peer,
            _ => tokio::task::yield_now().await,
        }
    };
    drop((second, third));
    world
        .until("the sweep, `a` and `c` are left", |_| {
            world.door.tasks.len() == 3
        })
        .await;
    let (mut x, mut y, mut z) = (world.stream(), world.stream(), world.stream());
    z.expect_end().await;
    for peer in [&mut x, &mut y] {
        peer.send(&connect_v3("d", true, 0)).await;
        peer.expect(&[0x20, 2, 0, 3]).await;
    }
    drop(place);
}

#[tokio::test]
async fn the_door_serves_tcp_and_names_an_address_it_cannot_have() {
    let world = World::new();
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = bind(address).await.unwrap_err().to_string();
    assert!(taken.contains(&address.to_string()), "{taken}");
    let serving = tokio::spawn(Arc::clone(&world.door).serve(listener, None));

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(&connect_v3("client", true, 0))
        .await
        .unwrap();
    stream
        .write_all(&publish(POINTS, 1, 1, b"a"))
        .await
        .unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0, 0x40, 2, 0, 1]);

    let closing = world.door.close();
    let mut rest = Vec::new();
    let (read, ()) = tokio::join!(stream.read_to_end(&mut rest), closing);
    assert_eq!(read.unwrap(), 0);
    serving.await.unwrap();
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test(start_paused = true)]
async fn connects_that_come_too_fast_are_throttled_per_channel_and_per_address() {
    let world = World::with(limits::Mqtt {
        connects_burst: 2,
        ..limits::Mqtt::default()
    });
    let connect = async |last: u8, id: &str| {
        let address = SocketAddr::new([192, 0, 2, last].into(), 5);
        let mut peer = world.stream_from(address, 4 * 1024);
        peer.send(&connect_v3(id, true, 0)).await;
        peer.packet().await[3]
    };
    assert_eq!(connect(1, "a").await, 0);
    assert_eq!(connect(1, "b").await, 0);
    assert_eq!(connect(2, "c").await, 3, "the channel has had its two");
    assert_eq!(connect(3, "d").await, 3);
    let told = |events: &[Event]| {
        let refused = Event::LoginRefused(Refusal::Throttled);
        events.iter().filter(|event| **event == refused).count()
    };
    assert_eq!(told(&world.house.events.lock()), 1, "the log hears it once");
    let mut late = world.stream_from("192.0.2.1:5".parse().unwrap(), 4 * 1024);
    late.expect_end().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(connect(1, "e").await, 0);
}
