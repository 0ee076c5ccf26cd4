//! The door over real sockets: both framings, every quirk that SDKs rely on.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite};

use super::{
    door::{Door, bind},
    frame::{
        AuthReq, Commit, Request,
        tests::{Heard, heard, package, sub},
    },
    login,
};
use crate::{limits, subscription::tests::World};

const PATIENCE: Duration = Duration::from_secs(20);

struct Stage {
    world: World,
    door: std::sync::Arc<Door>,
    address: std::net::SocketAddr,
}

impl Stage {
    async fn new() -> Self {
        Self::with(limits::Subscribe {
            pull_wait_ms: 50,
            ..limits::Subscribe::default()
        })
        .await
    }

    async fn with(limits: limits::Subscribe) -> Self {
        let world = World::new();
        let door = Door::new(
            world.registry.clone(),
            world.subscriptions.clone(),
            world.clock.clone(),
            limits,
            None,
        );
        let (listener, address) = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        tokio::spawn(door.clone().serve(listener));
        Self {
            world,
            door,
            address,
        }
    }

    fn auth(&self, sub_type: i32) -> Request {
        let snapshot = self.world.registry.snapshot();
        let key = snapshot.access_key("analytics").unwrap();
        let secret = key.secret().map_or("revoked", |secret| secret.text());
        Request::Auth(AuthReq {
            access_key: key.key.to_string(),
            sub_id: "history".into(),
            sign: login::sign(&key.key, secret, "history"),
            sub_type,
        })
    }

    async fn plain(&self) -> Client {
        Client::Plain(TcpStream::connect(self.address).await.unwrap())
    }

    async fn web_socket(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (stream, _) = client_async("ws://backtide:9001/", stream).await.unwrap();
        Client::WebSocket(Box::new(stream))
    }

    /// A client that is a member of the group.
    async fn subscribed(&self, mut client: Client, group: &str) -> Client {
        assert_eq!(
            client.ask(&self.auth(3)).await,
            Some(Heard::Auth(0, String::new()))
        );
        let sub = Request::Sub(sub("history", 3, group));
        assert_eq!(client.ask(&sub).await, Some(Heard::Sub(0, String::new())));
        client
    }
}

enum Client {
    Plain(TcpStream),
    WebSocket(Box<WebSocketStream<TcpStream>>),
}

impl Client {
    async fn say(&mut self, request: &Request) {
        let package = package(request);
        match self {
            Self::Plain(stream) => stream.write_all(&framed(&package)).await.unwrap(),
            Self::WebSocket(stream) => {
                let message = tungstenite::Message::Binary(package);
                stream.send(message).await.unwrap();
            }
        }
    }

    /// What comes next; `None` where the door closed the connection.
    async fn hear(&mut self) -> Option<Heard> {
        timeout(PATIENCE, self.next())
            .await
            .expect("an answer comes")
            .map(heard)
    }

    async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Plain(stream) => {
                let mut length = 0;
                for at in 0.. {
                    let byte = stream.read_u8().await.ok()?;
                    length |= usize::from(byte & 0x7f) << (7 * at);
                    if byte & 0x80 == 0 {
                        break;
                    }
                }
                let mut package = vec![0; length];
                stream.read_exact(&mut package).await.ok()?;
                Some(package.into())
            }
            Self::WebSocket(stream) => loop {
                match stream.next().await? {
                    Ok(tungstenite::Message::Binary(package)) => return Some(package),
                    Ok(tungstenite::Message::Close(_)) | Err(_) => return None,
                    Ok(_) => {}
                }
            },
        }
    }

    async fn ask(&mut self, request: &Request) -> Option<Heard> {
        self.say(request).await;
        self.hear().await
    }

    /// Pulls until so many messages came.
    async fn pull(&mut self, count: usize) -> Vec<(i32, i64, String)> {
        let mut all = Vec::new();
        let mut id = 0;
        while all.len() < count {
            id += 1;
            match self.ask(&Request::Pull { id }).await {
                Some(Heard::Pull(answered, messages)) if answered == id => all.extend(messages),
                other => panic!("{other:?}"),
            }
        }
        all
    }
}

fn framed(package: &[u8]) -> Vec<u8> {
    let mut framed = Vec::new();
    prost::encode_length_delimiter(package.len(), &mut framed).unwrap();
    framed.extend_from_slice(package);
    framed
}

fn commit(partition: i32, offset: i64) -> Request {
    Request::Commit(vec![Commit {
        topic: "history".into(),
        partition,
        offset,
    }])
}

fn rows(times: std::ops::Range<i64>) -> Vec<(&'static str, i64)> {
    times.map(|time| ("R80711", time)).collect()
}

#[tokio::test]
async fn both_framings_on_one_port_give_the_same_messages() {
    let stage = Stage::new().await;
    stage.world.put(&rows(0..10));
    let mut plain = stage.subscribed(stage.plain().await, "a").await;
    let mut web_socket = stage.subscribed(stage.web_socket().await, "b").await;
    let messages = plain.pull(10).await;
    assert_eq!(web_socket.pull(10).await, messages);
    let offsets: Vec<_> = messages.iter().map(|(_, offset, _)| *offset).collect();
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
    assert!(messages[3].2.contains("\"time\":3"), "{}", messages[3].2);
}

#[tokio::test]
async fn bytes_that_come_one_by_one_are_understood() {
    let stage = Stage::new().await;
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in framed(&package(&stage.auth(3))) {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut client = Client::Plain(stream);
    assert_eq!(client.hear().await, Some(Heard::Auth(0, String::new())));
}

#[tokio::test]
async fn a_commit_is_never_answered_and_an_empty_pull_is_after_its_wait() {
    let stage = Stage::new().await;
    for client in [stage.plain().await, stage.web_socket().await] {
        let mut client = stage.subscribed(client, "g").await;
        client.say(&commit(0, 0)).await;
        // The next answer is that of the pull.
        let empty = Heard::Pull(7, Vec::new());
        assert_eq!(client.ask(&Request::Pull { id: 7 }).await, Some(empty));
        assert!(matches!(
            client.ask(&Request::Idle).await,
            Some(Heard::Idle(_))
        ));
    }
}

#[tokio::test]
async fn a_second_pull_ends_the_first() {
    let stage = Stage::with(limits::Subscribe::default()).await;
    let mut client = stage.subscribed(stage.plain().await, "g").await;
    client.say(&Request::Pull { id: 1 }).await;
    let empty = Heard::Pull(1, Vec::new());
    assert_eq!(client.ask(&Request::Pull { id: 2 }).await, Some(empty));
    stage.world.put(&rows(0..1));
    assert!(matches!(client.hear().await, Some(Heard::Pull(2, messages)) if messages.len() == 1));
}

#[tokio::test]
async fn last_and_last_plus_one_are_both_resumed_without_a_gap() {
    let stage = Stage::new().await;
    stage.world.put(&rows(0..10));
    for (group, given, expected) in [("last", 9, 9), ("behind it", 10, 10)] {
        let mut client = stage.subscribed(stage.plain().await, group).await;
        let messages = client.pull(10).await;
        let partition = messages[0].0;
        client.say(&commit(partition, given)).await;
        assert_eq!(client.ask(&Request::Close).await, None);
        let mut client = stage.subscribed(stage.plain().await, group).await;
        let next = Heard::Pull(1, messages[usize::try_from(expected).unwrap()..].to_vec());
        assert_eq!(client.ask(&Request::Pull { id: 1 }).await, Some(next));
    }
}

#[tokio::test]
async fn a_refused_login_is_answered_and_the_connection_closed() {
    let stage = Stage::new().await;
    let wrong = "the access key, its secret or the subscription's id is wrong";
    let Request::Auth(auth) = stage.auth(3) else {
        unreachable!()
    };
    let cases = [
        (
            AuthReq {
                sign: "0".repeat(64),
                ..auth.clone()
            },
            wrong,
        ),
        (
            AuthReq {
                sub_id: "other".into(),
                ..auth.clone()
            },
            wrong,
        ),
        (
            AuthReq {
                access_key: "other".into(),
                ..auth.clone()
            },
            wrong,
        ),
        (
            AuthReq {
                sub_type: 0,
                ..auth.clone()
            },
            "subscription history is of type points, which clients ask for as 3, not as 0",
        ),
    ];
    for (auth, reason) in cases {
        for mut client in [stage.plain().await, stage.web_socket().await] {
            let answer = client.ask(&Request::Auth(auth.clone())).await;
            assert_eq!(answer, Some(Heard::Auth(1, reason.into())));
            assert_eq!(client.hear().await, None);
        }
    }
}

#[tokio::test]
async fn guesses_are_throttled_by_address() {
    let stage = Stage::new().await;
    let Request::Auth(auth) = stage.auth(3) else {
        unreachable!()
    };
    let guess = Request::Auth(AuthReq {
        sign: "0".repeat(64),
        ..auth
    });
    for _ in 0..10 {
        stage.plain().await.ask(&guess).await;
    }
    let mut client = stage.plain().await;
    let throttled = "too many failed logins from this address".to_owned();
    assert_eq!(
        client.ask(&stage.auth(3)).await,
        Some(Heard::Auth(1, throttled))
    );
}

#[tokio::test]
async fn what_comes_out_of_turn_or_is_no_package_ends_the_connection() {
    let stage = Stage::new().await;
    for request in [
        Request::Pull { id: 1 },
        commit(0, 1),
        Request::Sub(sub("history", 3, "g")),
    ] {
        assert_eq!(stage.plain().await.ask(&request).await, None);
    }
    let mut again = stage.subscribed(stage.plain().await, "g").await;
    assert_eq!(again.ask(&stage.auth(3)).await, None);
    for bytes in [
        &b"\xff\xff\xff\xff\x0f"[..],
        b"\xff\xff\xff\xff\xff\xff",
        b"\x04\x08\x63\x12\x00",
        b"\x03\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
    ] {
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap();
        assert!(
            read.is_err() || rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"),
            "{rest:?}"
        );
    }
    let mut client = stage.web_socket().await;
    if let Client::WebSocket(stream) = &mut client {
        stream
            .send(tungstenite::Message::Text("hello".into()))
            .await
            .unwrap();
    }
    assert_eq!(client.hear().await, None);
}

#[tokio::test]
async fn a_client_that_does_not_log_in_is_not_waited_for() {
    let stage = Stage::with(limits::Subscribe {
        connect_s: 0,
        ..limits::Subscribe::default()
    })
    .await;
    assert_eq!(stage.plain().await.hear().await, None);
}

#[tokio::test]
async fn a_silent_client_is_closed_and_a_ping_is_a_sign_of_life() {
    let stage = Stage::with(limits::Subscribe {
        idle_s: 1,
        ..limits::Subscribe::default()
    })
    .await;
    let mut client = stage.subscribed(stage.web_socket().await, "g").await;
    assert_eq!(client.hear().await, None);
}

#[tokio::test]
async fn sessions_end_when_what_let_them_in_does() {
    type Ends = fn(&Stage);
    let ends: [(&str, Ends); 3] = [
        ("revoked", |stage| {
            stage.world.registry.revoke_access_key("analytics").unwrap();
        }),
        ("rotated", |stage| {
            stage
                .world
                .registry
                .rotate_access_key("analytics", 0)
                .unwrap();
        }),
        ("stopped", |stage| {
            stage.world.registry.set_stopped("history", true).unwrap();
        }),
    ];
    for (what, end) in ends {
        let stage = Stage::new().await;
        let mut client = stage.subscribed(stage.plain().await, "g").await;
        end(&stage);
        assert_eq!(client.hear().await, None, "{what}");
        let mut client = stage.plain().await;
        let answer = client.ask(&stage.auth(3)).await.unwrap();
        let lets_in = matches!(answer, Heard::Auth(0, _));
        assert_eq!(lets_in, what == "rotated", "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn closing_the_door_ends_every_session() {
    let stage = Stage::new().await;
    let mut client = stage.subscribed(stage.plain().await, "g").await;
    stage.door.close().await;
    assert_eq!(client.hear().await, None);
}

#[tokio::test]
async fn one_message_larger_than_an_answer_comes_alone() {
    let stage = Stage::with(limits::Subscribe {
        pull_bytes_max: 100,
        ..limits::Subscribe::default()
    })
    .await;
    stage.world.put(&rows(0..5));
    let mut client = stage.subscribed(stage.plain().await, "g").await;
    for id in 0..5 {
        let answer = client.ask(&Request::Pull { id }).await;
        assert!(matches!(answer, Some(Heard::Pull(_, messages)) if messages.len() == 1));
    }
}
