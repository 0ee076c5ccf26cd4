//! The language of these tests: a house, a door to it, clients over in-memory streams.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use backtide_model::{ChannelName, ProductKey};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::Semaphore,
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    limits,
    mqtt::{
        self, Ack, ChannelHandle, Client, Door, Event, House, Login, Outcome, Payload, Publish,
        Refusal, Reply, StoreDown, Transport,
    },
};

pub(super) const POINTS: &str = "/sys/PK/integration/measurepoint/post";
pub(super) const POINTS_REPLY: &str = "/sys/PK/integration/measurepoint/post_reply";

/// Takes everything, answers under the product key `PK` with the payload, refuses other topics.
/// Tests hold its commits back, or take its store down.
pub(super) struct TestHouse {
    pub(super) taken: Mutex<Vec<Publish>>,
    pub(super) events: Mutex<Vec<Event>>,
    /// Each burst needs one to become durable.
    pub(super) commits: Semaphore,
    pub(super) is_down: AtomicBool,
    /// The last message of each burst has no outcome.
    pub(super) is_forgetful: AtomicBool,
    pub(super) refuses: Mutex<Option<Refusal>>,
    pub(super) revoked: CancellationToken,
    pub(super) bursts: AtomicU64,
}

#[derive(Clone)]
pub(super) struct TestChannel {
    name: ChannelName,
    product: ProductKey,
    revoked: CancellationToken,
}

impl ChannelHandle for TestChannel {
    fn name(&self) -> &ChannelName {
        &self.name
    }

    fn product(&self) -> &ProductKey {
        &self.product
    }

    fn connections_max(&self) -> Option<usize> {
        None
    }

    fn revoked(&self) -> &CancellationToken {
        &self.revoked
    }

    fn is_paced(&self) -> bool {
        false
    }

    fn leave(&self) {}
}

impl House for TestHouse {
    type Channel = TestChannel;

    fn login(&self, login: &Login<'_>) -> Result<TestChannel, Refusal> {
        if let Some(refusal) = &*self.refuses.lock() {
            return Err(refusal.clone());
        }
        if login.password == Some(b"wrong") {
            return Err(Refusal::BadCredentials);
        }
        Ok(TestChannel {
            name: ChannelName::new("history").unwrap(),
            product: ProductKey::new("PK").unwrap(),
            revoked: self.revoked.clone(),
        })
    }

    fn throttled(&self, _: &Login<'_>) {}

    async fn take(
        &self,
        _: &TestChannel,
        _: &Client,
        burst: Vec<Publish>,
    ) -> Result<Vec<Outcome>, StoreDown> {
        // In the order of arrival, before the first await, as the contract says.
        let mut outcomes: Vec<_> = burst.iter().map(outcome).collect();
        self.bursts.fetch_add(1, Ordering::Relaxed);
        self.taken.lock().extend(burst);
        self.commits.acquire().await.unwrap().forget();
        if self.is_down.load(Ordering::Relaxed) {
            return Err(StoreDown);
        }
        if self.is_forgetful.load(Ordering::Relaxed) {
            outcomes.pop();
        }
        Ok(outcomes)
    }

    fn note(&self, _: &TestChannel, _: &Client, event: Event) {
        self.events.lock().push(event);
    }
}

fn outcome(publish: &Publish) -> Outcome {
    let own = publish
        .topic
        .strip_prefix('/')
        .unwrap_or(&publish.topic)
        .starts_with("sys/PK/");
    let payload = match &publish.payload {
        Payload::Whole(payload) => payload.clone(),
        Payload::Oversize { bytes, .. } => Bytes::from(format!("too large: {bytes}")),
    };
    let reply = own.then(|| Reply {
        topic: format!("{}_reply", publish.topic).into(),
        payload,
    });
    Outcome {
        ack: if own {
            Ack::Success
        } else {
            Ack::NotAuthorized
        },
        reply,
    }
}

pub(super) struct World {
    pub(super) house: Arc<TestHouse>,
    pub(super) door: Arc<Door<TestHouse>>,
}

static NOW_MS: AtomicU64 = AtomicU64::new(1_700_000_000_000);

/// Wall time for sessions: stands still.
pub(super) fn clock() -> i64 {
    i64::try_from(NOW_MS.load(Ordering::Relaxed)).unwrap()
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(limits::Mqtt::default())
    }

    pub(super) fn with(limits: limits::Mqtt) -> Self {
        Self::kept(limits, None)
    }

    pub(super) fn kept(limits: limits::Mqtt, path: Option<&std::path::Path>) -> Self {
        let house = Arc::new(TestHouse {
            taken: Mutex::default(),
            events: Mutex::default(),
            commits: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            is_down: AtomicBool::new(false),
            is_forgetful: AtomicBool::new(false),
            refuses: Mutex::new(None),
            revoked: CancellationToken::new(),
            bursts: AtomicU64::new(0),
        });
        let door = Door::open(Arc::clone(&house), limits, clock, path).unwrap();
        Self { house, door }
    }

    /// From now on bursts become durable only by [`World::commit`].
    pub(super) fn hold_commits(&self) {
        self.house.commits.forget_permits(usize::MAX);
    }

    pub(super) fn commit(&self, bursts: usize) {
        self.house.commits.add_permits(bursts);
    }

    pub(super) fn taken(&self) -> Vec<String> {
        self.house.taken.lock().iter().map(text).collect()
    }

    pub(super) fn stream(&self) -> Peer {
        self.stream_from("127.0.0.1:1".parse().unwrap(), 64 * 1024)
    }

    /// A client whose pipe to the door holds so many bytes.
    pub(super) fn stream_from(&self, address: SocketAddr, pipe_bytes: usize) -> Peer {
        let (client, server) = tokio::io::duplex(pipe_bytes);
        let transport = Transport::Tcp;
        let peer = mqtt::Peer { address, transport };
        tokio::spawn(Arc::clone(&self.door).attend(server, peer));
        Peer {
            stream: client,
            buffer: BytesMut::new(),
        }
    }

    pub(super) async fn v3(&self, id: &str) -> Peer {
        let mut peer = self.stream();
        peer.send(&connect_v3(id, true, 0)).await;
        peer.expect(&[0x20, 2, 0, 0]).await;
        peer
    }

    pub(super) async fn v5(&self, id: &str) -> Peer {
        let mut peer = self.stream();
        peer.send(&connect_v5(id, true, 0, &[])).await;
        assert_eq!(peer.packet().await[0], 0x20);
        peer
    }

    /// Waits until something is true, however long the machine takes.
    pub(super) async fn until(&self, what: &str, mut is_true: impl FnMut(&TestHouse) -> bool) {
        for _ in 0..100_000 {
            if is_true(&self.house) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("never: {what}");
    }

    pub(super) fn has_event(&self, is_it: impl Fn(&Event) -> bool) -> bool {
        self.house.events.lock().iter().any(is_it)
    }
}

fn text(publish: &Publish) -> String {
    match &publish.payload {
        Payload::Whole(payload) => String::from_utf8_lossy(payload).into_owned(),
        Payload::Oversize { bytes, .. } => format!("oversize {bytes}"),
    }
}

/// A client: bytes out, whole packets in.
pub(super) struct Peer {
    pub(super) stream: DuplexStream,
    buffer: BytesMut,
}

impl Peer {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet, header and all.
    pub(super) async fn packet(&mut self) -> Vec<u8> {
        self.packet_or_end().await.expect("a packet, not the end")
    }

    /// The next packet, or `None` when the door has closed the connection.
    pub(super) async fn packet_or_end(&mut self) -> Option<Vec<u8>> {
        let wait = Duration::from_secs(130);
        timeout(wait, async {
            loop {
                if let Some(len) = whole(&self.buffer) {
                    return Some(self.buffer.split_to(len).to_vec());
                }
                if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                    assert!(
                        !self.buffer.has_remaining(),
                        "half a packet: {:02x?}",
                        self.buffer
                    );
                    return None;
                }
            }
        })
        .await
        .expect("an answer")
    }

    pub(super) async fn expect(&mut self, packet: &[u8]) {
        let got = self.packet().await;
        assert_eq!(got, packet, "got {got:02x?}, expected {packet:02x?}");
    }

    pub(super) async fn expect_end(&mut self) {
        let got = self.packet_or_end().await;
        assert_eq!(got, None, "the connection should be closed");
    }

    /// DISCONNECT of 5.0 with this reason, then the end.
    pub(super) async fn expect_disconnect(&mut self, reason: u8) {
        let got = self.packet().await;
        assert_eq!((got[0], got[2]), (0xE0, reason), "got {got:02x?}");
        self.expect_end().await;
    }

    /// Says PINGREQ and expects nothing but its answer: everything before has been worked off.
    pub(super) async fn ping(&mut self) {
        self.send(&[0xC0, 0]).await;
        self.expect(&[0xD0, 0]).await;
    }
}

fn whole(buffer: &[u8]) -> Option<usize> {
    let mut len = 0;
    for (at, byte) in buffer.iter().skip(1).take(4).enumerate() {
        len |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let whole = 2 + at + len;
            return (buffer.len() >= whole).then_some(whole);
        }
    }
    None
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut len = body.len();
    while len >= 0x80 {
        out.push(u8::try_from(len & 0x7F).unwrap() | 0x80);
        len >>= 7;
    }
    out.push(u8::try_from(len).unwrap());
    out.extend_from_slice(body);
    out
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap());
    out.put_slice(text.as_bytes());
}

pub(super) fn connect_v3(id: &str, clean: bool, keep_alive_s: u16) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.push(if clean { 2 } else { 0 });
    body.put_u16(keep_alive_s);
    put(&mut body, id);
    packet(0x10, &body)
}

pub(super) fn connect_with_password(id: &str, password: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04\xC2\0\0".to_vec();
    put(&mut body, id);
    put(&mut body, "user");
    put(&mut body, password);
    packet(0x10, &body)
}

pub(super) fn connect_v5(id: &str, clean: bool, keep_alive_s: u16, properties: &[u8]) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x05".to_vec();
    body.push(if clean { 2 } else { 0 });
    body.put_u16(keep_alive_s);
    body.push(u8::try_from(properties.len()).unwrap());
    body.put_slice(properties);
    put(&mut body, id);
    packet(0x10, &body)
}

/// QoS 0 with id 0. In 5.0 a property length of 0 is to be part of the payload.
pub(super) fn publish(topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    put(&mut body, topic);
    if qos > 0 {
        body.put_u16(id);
    }
    body.put_slice(payload);
    packet(0x30 | qos << 1, &body)
}

pub(super) fn publish_v5(topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    publish(topic, qos, id, &[&[0], payload].concat())
}

pub(super) fn subscribe(id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    subscribe_in(id, &[], filters)
}

pub(super) fn subscribe_v5(id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    subscribe_in(id, &[0], filters)
}

fn subscribe_in(id: u16, properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.put_slice(properties);
    for (filter, options) in filters {
        put(&mut body, filter);
        body.push(*options);
    }
    packet(0x82, &body)
}

pub(super) fn puback(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}
