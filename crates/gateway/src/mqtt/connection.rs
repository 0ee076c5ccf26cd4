//! One connection, from its first byte to its last: a single task over any stream.
//!
//! ```text
//!           ┌── bytes ── decode all ── bursts ─▶ house.take ─┐   (in order, several in flight)
//! socket ◀─▶│                                                │
//!           └── out ◀── acks of whole bursts ◀───────────────┘──▶ replies, through the session
//! ```
//!
//! Reading stops while too much is in flight or unwritten: the client feels it as TCP back-pressure.
//! When the connection ends with bursts in flight, they are finished without it.

mod bursts;
mod deadlines;
mod handshake;
mod inbox;
mod subscriptions;

use std::{num::NonZeroU16, pin::pin, sync::Arc};

use bytes::BytesMut;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use metrics::{Counter, Gauge};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    time::{Duration, Instant, Sleep, sleep_until, timeout},
};

use self::inbox::{Charge, Inbox};
use super::{
    Ack, ChannelHandle as _, Client, Dropped, Ending, Event, Fault, House, Outcome, Payload, Peer,
    Publish, Qos, Reason, Reply, StoreDown, Version, filter,
    listener::{Door, Pass},
    outbound::{self, Delivery},
    packet::{Decoder, Next, Packet},
    sessions::{Attached, Router},
    strict::kind,
};

/// An idle connection gives its large buffer back after so long.
const IDLE: Duration = Duration::from_secs(2);
/// How long, and how much, a closed connection is still read, so that the client gets the last
/// words: closing a socket with unread bytes would discard them.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// Serves one stream until it ends.
pub(super) async fn run<H, S>(
    door: Arc<Door<H>>,
    stream: S,
    peer: Peer,
    number: u64,
    mut pass: Pass,
) where
    H: House,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let greeted = Box::pin(handshake::greet(
        &door,
        &mut reader,
        &mut writer,
        peer,
        number,
        pass.connect_by,
    ))
    .await;
    pass.handshake = None;
    if let Some(greeted) = greeted {
        let mut connection = Connection::new(&door, greeted);
        let ending = Box::pin(connection.talk(&mut reader, &mut writer)).await;
        Box::pin(connection.end(ending, &mut writer)).await;
    }
    linger(reader, writer).await;
}

async fn linger<S: AsyncRead + AsyncWrite>(mut reader: ReadHalf<S>, mut writer: WriteHalf<S>) {
    let farewell = async {
        writer.shutdown().await.ok()?;
        let mut scrap = vec![0; 4 * 1024];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match reader.read(&mut scrap).await {
                Ok(0) | Err(_) => break,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
        Some(())
    };
    // However it ends, the stream is dropped.
    drop(timeout(LINGER, farewell).await);
}

/// What the connection and its bursts share; it outlives the connection with them.
struct Link<H: House> {
    house: Arc<H>,
    channel: H::Channel,
    client: Client,
    router: Router,
    meters: Meters,
}

/// The metrics of one channel, looked up once.
struct Meters {
    connections: Gauge,
    publishes: Counter,
    payload_bytes: Counter,
    acks: Counter,
    replies: Counter,
    dropped: Counter,
    faults: Counter,
}

/// What a finished handshake hands over.
struct Greeted<H: House> {
    channel: H::Channel,
    client: Client,
    attached: Attached,
    inbox: Inbox,
    keep_alive: Option<Duration>,
    receive_max: u16,
    packet_bytes_max: u32,
}

/// Publishes handed over together, and how each is to be acknowledged.
struct Burst {
    acks: Vec<PendingAck>,
    bytes: usize,
    /// Keeps the account of the buffer that the payloads are slices of.
    _charge: Option<Arc<Charge>>,
}

/// How a publish is to be acknowledged.
#[derive(Clone, Copy)]
enum PendingAck {
    None,
    PubAck(NonZeroU16),
    PubRec(NonZeroU16),
    /// A QoS 2 message that came again before its PUBREL: acknowledged, not taken.
    PubRecAgain(NonZeroU16),
}

type Taken = (Burst, Result<Vec<Outcome>, StoreDown>);

struct Connection<H: House> {
    door: Arc<Door<H>>,
    link: Arc<Link<H>>,
    attached: Attached,
    inbox: Inbox,
    decoder: Decoder,
    out: BytesMut,
    is_flushed: bool,
    in_flight: FuturesOrdered<BoxFuture<'static, Taken>>,
    in_flight_messages: usize,
    in_flight_bytes: usize,
    has_published: bool,
    /// Subscriptions changed: they are kept before the client hears of it.
    has_subscribed: bool,
    keep_alive: Option<Duration>,
    receive_max: u16,
    packet_bytes_max: u32,
    /// Bytes that the decoder needs to go on; 0 while whole packets may be left in the inbox.
    wanted: usize,
    heard: Instant,
    wrote: Instant,
    packet_begun: Option<Instant>,
}

/// What the connection waits for.
enum Happened {
    Revoked,
    TakenOver,
    Closing,
    Done(Taken),
    Wrote(usize),
    Flushed,
    ReplyWaits,
    Room,
    Read(usize),
    Tick,
    Failed(std::io::Error),
}

impl<H: House> Connection<H> {
    fn new(door: &Arc<Door<H>>, greeted: Greeted<H>) -> Self {
        let Greeted {
            channel,
            client,
            attached,
            inbox,
            ..
        } = greeted;
        let version = client.version;
        let meters = Meters::of(channel.name().as_str());
        meters.connections.increment(1);
        let router = attached.router();
        let house = Arc::clone(&door.house);
        let now = Instant::now();
        Self {
            door: Arc::clone(door),
            link: Arc::new(Link {
                house,
                channel,
                client,
                router,
                meters,
            }),
            attached,
            inbox,
            decoder: Decoder::new(version, Arc::clone(&door.limits)),
            out: BytesMut::new(),
            is_flushed: true,
            in_flight: FuturesOrdered::new(),
            in_flight_messages: 0,
            in_flight_bytes: 0,
            has_published: false,
            has_subscribed: false,
            keep_alive: greeted.keep_alive,
            receive_max: greeted.receive_max,
            packet_bytes_max: greeted.packet_bytes_max,
            wanted: 0,
            heard: now,
            wrote: now,
            packet_begun: None,
        }
    }

    fn version(&self) -> Version {
        self.link.client.version
    }

    fn note(&self, event: Event) {
        self.link
            .house
            .note(&self.link.channel, &self.link.client, event);
    }

    /// The life of the connection. Returns why it ends; nothing of it ends in between.
    async fn talk<S: AsyncRead + AsyncWrite>(
        &mut self,
        reader: &mut ReadHalf<S>,
        writer: &mut WriteHalf<S>,
    ) -> Ending {
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            // Packets may be left from the handshake, or from when too much was in flight.
            if let Err(ending) = self.work_off() {
                return ending;
            }
            if std::mem::take(&mut self.has_subscribed) {
                self.attached.kept().await;
            }
            self.pump_replies();
            self.set_timer(timer.as_mut());
            match self.wait(reader, writer, timer.as_mut()).await {
                Happened::Done(taken) => {
                    if let Err(ending) = self.finish_bursts(taken) {
                        return ending;
                    }
                }
                Happened::Wrote(0) => return Ending::Gone("the socket is closed".to_owned()),
                Happened::Wrote(_) => {
                    self.wrote = Instant::now();
                    self.is_flushed = false;
                }
                Happened::Flushed => self.is_flushed = true,
                Happened::Read(0) => return Ending::Gone("end of stream".to_owned()),
                Happened::Read(read) => {
                    self.heard = Instant::now();
                    self.wanted = self.wanted.saturating_sub(read);
                }
                Happened::Room | Happened::ReplyWaits => {}
                Happened::Tick => {
                    if let Some(ending) = self.overdue() {
                        return ending;
                    }
                }
                Happened::Failed(error) => return Ending::Gone(error.to_string()),
                Happened::TakenOver => return Ending::TakenOver,
                Happened::Revoked => return Ending::Revoked,
                Happened::Closing => return Ending::ShuttingDown,
            }
        }
    }

    /// Waits for the next thing to do. Every branch may be dropped half-way without loss.
    async fn wait<S: AsyncRead + AsyncWrite>(
        &mut self,
        reader: &mut ReadHalf<S>,
        writer: &mut WriteHalf<S>,
        timer: std::pin::Pin<&mut Sleep>,
    ) -> Happened {
        let may_read = self.may_read();
        let wanted = self.wanted.max(1);
        tokio::select! {
            biased;
            () = self.attached.taken_over.cancelled() => Happened::TakenOver,
            () = self.link.channel.revoked().cancelled() => Happened::Revoked,
            () = self.door.closing.cancelled() => Happened::Closing,
            Some(taken) = self.in_flight.next() => Happened::Done(taken),
            wrote = write(writer, &mut self.out), if !self.out.is_empty() || !self.is_flushed => wrote,
            () = self.attached.woken() => Happened::ReplyWaits,
            read = read(reader, &mut self.inbox, wanted), if may_read => read,
            () = timer => Happened::Tick,
        }
    }

    /// Not while too much is in flight, or unwritten: then the client has to wait.
    fn may_read(&self) -> bool {
        self.may_take() && self.wanted > 0
    }

    fn may_take(&self) -> bool {
        let limits = &self.door.limits;
        self.in_flight_messages < usize::from(limits.in_flight_messages_max)
            && self.in_flight_bytes < limits.in_flight_bytes_max
            && self.out.len() < limits.outbox_bytes_max
    }

    /// Decodes what is buffered and hands it over, as far as may be in flight.
    fn work_off(&mut self) -> Result<(), Ending> {
        while self.may_take() && self.wanted == 0 {
            let before = self.inbox.len();
            let mut burst = Vec::new();
            let mut acks = Vec::new();
            let room = usize::from(self.door.limits.in_flight_messages_max)
                .saturating_sub(self.in_flight_messages)
                .min(self.burst_messages_max());
            let decoded = self.decode(room, &mut burst, &mut acks);
            // What came before a fault is good, and taken.
            let bytes = before - self.inbox.len();
            if !acks.is_empty() {
                self.hand_over(burst, acks, bytes);
            }
            decoded?;
        }
        Ok(())
    }

    fn burst_messages_max(&self) -> usize {
        if self.link.channel.is_paced() {
            1
        } else {
            self.door.limits.burst_messages_max
        }
    }

    /// Decodes up to `room` publishes, and acts at once on everything else.
    fn decode(
        &mut self,
        room: usize,
        burst: &mut Vec<Publish>,
        acks: &mut Vec<PendingAck>,
    ) -> Result<(), Ending> {
        while acks.len() < room && self.out.len() < self.door.limits.outbox_bytes_max {
            match self
                .decoder
                .next(self.inbox.buffer())
                .map_err(|fault| self.fault(fault))?
            {
                Next::Packet(packet) => {
                    self.packet_begun = None;
                    self.act(packet, burst, acks)?;
                }
                Next::More(wanted) => {
                    self.wanted = wanted;
                    let is_begun = !self.inbox.is_empty() && !self.decoder.is_draining();
                    if !is_begun {
                        self.packet_begun = None;
                    } else if self.packet_begun.is_none() {
                        self.packet_begun = Some(Instant::now());
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn fault(&self, fault: Fault) -> Ending {
        self.link.meters.faults.increment(1);
        Ending::Fault(fault)
    }

    fn act(
        &mut self,
        packet: Packet,
        burst: &mut Vec<Publish>,
        acks: &mut Vec<PendingAck>,
    ) -> Result<(), Ending> {
        let wrong = |why| Fault::protocol(why);
        match packet {
            Packet::Publish(publish) => self.publish(publish, burst, acks),
            Packet::PubAck(id) => {
                self.attached.session(|session| session.acked(id));
            }
            Packet::PubRec { id, failed } => {
                if self.attached.session(|session| session.is_unacked(id)) == Some(true) {
                    return Err(self.fault(wrong("PUBREC for a reply of QoS 1")));
                }
                if !failed {
                    let version = self.version();
                    outbound::ack(&mut self.out, kind::PUBREL, id, Reason::SUCCESS, version);
                }
            }
            Packet::PubRel(id) => {
                self.attached.session(|session| session.released(id));
                // A success also where the id is unknown: what it stood for is stored, and some
                // clients report "not found" as a failed publish.
                let version = self.version();
                outbound::ack(&mut self.out, kind::PUBCOMP, id, Reason::SUCCESS, version);
            }
            Packet::PubComp(id) => {
                if self.attached.session(|session| session.is_unacked(id)) == Some(true) {
                    return Err(self.fault(wrong("PUBCOMP for a reply of QoS 1")));
                }
            }
            Packet::Subscribe { id, tag, filters } => {
                self.has_subscribed = true;
                self.subscribe(id, tag, &filters);
            }
            Packet::Unsubscribe { id, filters } => {
                self.has_subscribed = true;
                self.unsubscribe(id, &filters);
            }
            Packet::Ping => outbound::pong(&mut self.out),
            Packet::Disconnect { session_expiry_s } => {
                if session_expiry_s.is_some_and(|expiry| !self.attached.set_expiry(expiry)) {
                    let why = "a session that ends with its connection cannot be made to stay";
                    return Err(self.fault(wrong(why)));
                }
                return Err(Ending::Goodbye);
            }
        }
        Ok(())
    }

    fn publish(&mut self, publish: Publish, burst: &mut Vec<Publish>, acks: &mut Vec<PendingAck>) {
        let bytes = match &publish.payload {
            Payload::Whole(payload) => payload.len() as u64,
            Payload::Oversize { bytes, .. } => *bytes,
        };
        self.link.meters.publishes.increment(1);
        self.link.meters.payload_bytes.increment(bytes);
        if !self.has_published {
            self.has_published = true;
            self.attached.publishes();
        }
        if publish.retain {
            self.note(Event::RetainIgnored {
                topic: publish.topic.to_string(),
            });
        }
        let ack = match (publish.qos, publish.packet_id) {
            (Qos::AtLeastOnce, Some(id)) => PendingAck::PubAck(id),
            (Qos::ExactlyOnce, Some(id)) => {
                let again = self.attached.session(|session| session.is_received(id));
                if again == Some(true) {
                    acks.push(PendingAck::PubRecAgain(id));
                    return;
                }
                PendingAck::PubRec(id)
            }
            (Qos::AtMostOnce | Qos::AtLeastOnce | Qos::ExactlyOnce, _) => PendingAck::None,
        };
        acks.push(ack);
        burst.push(publish);
    }

    /// Moves waiting replies to the socket's buffer, while it is not full.
    fn pump_replies(&mut self) {
        while self.out.len() < self.door.limits.outbox_bytes_max {
            let receive_max = self.receive_max;
            let next = self
                .attached
                .session(|session| session.next(receive_max))
                .flatten();
            let Some(outgoing) = next else { return };
            let delivery = Delivery {
                topic: &outgoing.reply.topic,
                payload: &outgoing.reply.payload,
                packet_id: outgoing.packet_id,
                dup: outgoing.dup,
                tags: &outgoing.tags,
            };
            let version = self.version();
            if outbound::publish(&mut self.out, delivery, version, self.packet_bytes_max) {
                self.link.meters.replies.increment(1);
                continue;
            }
            // MQTT-3.1.2-25: as if it had been sent.
            if let Some(id) = outgoing.packet_id {
                self.attached.session(|session| session.acked(id));
            }
            self.link.dropped(&outgoing.reply, Dropped::TooLarge);
        }
    }

    /// The last words, and what happens to bursts in flight.
    async fn end<S: AsyncRead + AsyncWrite>(mut self, ending: Ending, writer: &mut WriteHalf<S>) {
        if ending == Ending::ShuttingDown {
            let drain = Duration::from_secs(self.door.limits.drain_s);
            // Past it, the store hangs: without acks the clients still have everything.
            drop(timeout(drain, self.drain()).await);
        }
        if let Some(reason) = last_word(&ending)
            && self.version() == Version::V5
        {
            let why = ending.to_string();
            outbound::disconnect(&mut self.out, reason, &why, self.packet_bytes_max);
        }
        if !matches!(
            ending,
            Ending::Gone(_) | Ending::WriteTimeout | Ending::Goodbye
        ) {
            let last = async {
                writer.write_all_buf(&mut self.out).await?;
                writer.flush().await
            };
            // The client may be gone or not read: then there is nobody to tell.
            drop(timeout(Duration::from_secs(self.door.limits.write_s), last).await);
        }
        self.link.meters.connections.decrement(1);
        self.note(Event::Disconnected(ending));
        self.link.channel.leave();
        if !self.in_flight.is_empty() {
            let link = Arc::clone(&self.link);
            self.door
                .tasks
                .spawn(finish_alone(link, std::mem::take(&mut self.in_flight)));
        }
    }

    /// Finishes the bursts in flight, acknowledges them, and queues their replies for the socket.
    async fn drain(&mut self) {
        while let Some(taken) = self.in_flight.next().await {
            if self.finish_bursts(taken).is_err() {
                return;
            }
        }
        self.pump_replies();
    }
}

/// One write, or the flush after the last one.
async fn write<S: AsyncWrite>(writer: &mut WriteHalf<S>, out: &mut BytesMut) -> Happened {
    if out.is_empty() {
        return writer
            .flush()
            .await
            .map_or_else(Happened::Failed, |()| Happened::Flushed);
    }
    writer
        .write_buf(out)
        .await
        .map_or_else(Happened::Failed, Happened::Wrote)
}

/// Room for what is wanted, or, where there is room, one read.
async fn read<S: AsyncRead>(
    reader: &mut ReadHalf<S>,
    inbox: &mut Inbox,
    wanted: usize,
) -> Happened {
    if !inbox.has_room(wanted) {
        inbox.make_room(wanted).await;
        return Happened::Room;
    }
    inbox
        .read(reader)
        .await
        .map_or_else(Happened::Failed, Happened::Read)
}

/// The reason code that tells a client of 5.0 why, if there is somebody to tell.
fn last_word(ending: &Ending) -> Option<Reason> {
    match ending {
        Ending::Goodbye | Ending::Gone(_) | Ending::WriteTimeout => None,
        Ending::KeepAlive => Some(Reason::KEEP_ALIVE),
        Ending::PacketTimeout => Some(Reason::MALFORMED),
        Ending::Fault(fault) => Some(fault.reason),
        Ending::TakenOver => Some(Reason::TAKEN_OVER),
        Ending::Revoked => Some(Reason::ADMINISTRATIVE),
        Ending::ShuttingDown => Some(Reason::SHUTTING_DOWN),
        // DISCONNECT has no "server unavailable" (§3.14.2.1): the quota of the store is used up.
        Ending::StoreDown => Some(Reason::QUOTA),
    }
}

/// The connection is gone, its bursts are not: they are polled to their end, and their replies go
/// to the session, if that lives on.
async fn finish_alone<H: House>(
    link: Arc<Link<H>>,
    mut in_flight: FuturesOrdered<BoxFuture<'static, Taken>>,
) {
    while let Some((_, outcomes)) = in_flight.next().await {
        if let Ok(outcomes) = outcomes {
            link.deliver(&outcomes);
        }
    }
}

impl<H: House> Link<H> {
    fn deliver(&self, outcomes: &[Outcome]) {
        let mut replies = outcomes
            .iter()
            .filter_map(|outcome| outcome.reply.as_ref())
            .peekable();
        if replies.peek().is_some() {
            self.router
                .route(replies, |reply, reason| self.dropped(reply, reason));
        }
    }

    fn dropped(&self, reply: &Reply, reason: Dropped) {
        self.meters.dropped.increment(1);
        let topic = reply.topic.to_string();
        self.house.note(
            &self.channel,
            &self.client,
            Event::ReplyDropped { topic, reason },
        );
    }
}

impl Meters {
    fn of(channel: &str) -> Self {
        let counter = |name: &'static str| metrics::counter!(name, "channel" => channel.to_owned());
        Self {
            connections: metrics::gauge!("backtide_mqtt_connections", "channel" => channel.to_owned()),
            publishes: counter("backtide_mqtt_publishes_total"),
            payload_bytes: counter("backtide_mqtt_payload_bytes_total"),
            acks: counter("backtide_mqtt_acks_total"),
            replies: counter("backtide_mqtt_replies_delivered_total"),
            dropped: counter("backtide_mqtt_replies_dropped_total"),
            faults: counter("backtide_mqtt_protocol_errors_total"),
        }
    }
}
