//! One connection to the channel: publishes a window of messages, waits for each reply, and when
//! the link or the server is lost begins again with what is not answered, in order.
//!
//! The MQTT client behind it keeps nothing from one connection to the next: what is to be sent
//! again is decided here, by replies and not by acknowledgements.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event as MqttEvent, MqttOptions, Packet, QoS,
    SubscribeReasonCode,
};
use serde::Deserialize;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, sleep_until, timeout},
};

use crate::files::message::Message;

/// A reply that takes longer is not coming.
const REPLY_WITHIN: Duration = Duration::from_secs(60);
/// Time for CONNACK and SUBACK.
const OPEN_WITHIN: Duration = Duration::from_secs(15);
/// After so long without any answer a sender gives up.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Time for the last answers once the user wants to stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);
const PACKET_BYTES_MAX: usize = 1 << 20;

/// How a client logs in.
#[derive(Clone)]
pub struct Login {
    pub host: String,
    pub port: u16,
    pub client_id: String,
    pub username: String,
    pub password: String,
    /// Where requests are published.
    pub topic: String,
}

/// What a link tells.
#[derive(Debug)]
pub enum Event {
    Answered(Box<Answer>),
    /// The link is lost and will be opened again.
    Lost(String),
}

/// A message that is dealt with.
#[derive(Debug)]
pub struct Answer {
    pub message: Message,
    pub reply: Reply,
}

/// The reply as the gateway words it; other gateways leave `data` empty.
#[derive(Debug, Deserialize)]
pub struct Reply {
    id: String,
    pub code: u16,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub data: ReplyData,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReplyData {
    pub stored: Option<u64>,
    pub rejected: Vec<Rejected>,
}

#[derive(Debug, Deserialize)]
pub struct Rejected {
    #[serde(default)]
    pub index: Option<usize>,
    #[serde(default)]
    pub message: String,
}

impl Reply {
    const OK: u16 = 200;
    /// The sender is over its quota and may try again later.
    const THROTTLED: u16 = 1274;

    pub fn is_ok(&self) -> bool {
        self.code == Self::OK
    }
}

/// Why a link ended before its messages did.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the broker refuses the login: {0}")]
    Login(String),
    #[error("no answer for two minutes: {0}")]
    GaveUp(String),
    #[error("{0} messages have no reply")]
    Unanswered(usize),
}

enum Break {
    /// Try again.
    Lost(String),
    /// Trying again is of no use.
    Login(String),
}

/// A link and what it carries.
pub struct Link {
    login: Login,
    window: usize,
    messages: mpsc::Receiver<Message>,
    events: mpsc::Sender<Event>,
    stop: watch::Receiver<bool>,
    /// Published or to be published again, in order.
    waiting: VecDeque<Message>,
    /// No further messages come.
    drained: bool,
    answered_at: Instant,
    pause: Duration,
}

impl Link {
    pub fn new(
        login: Login,
        window: usize,
        messages: mpsc::Receiver<Message>,
        events: mpsc::Sender<Event>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            login,
            window,
            messages,
            events,
            stop,
            waiting: VecDeque::new(),
            drained: false,
            answered_at: Instant::now(),
            pause: PAUSE_MIN,
        }
    }

    /// Carries all messages, over as many connections as it takes.
    pub async fn run(mut self) -> Result<(), LinkError> {
        self.answered_at = Instant::now();
        loop {
            let lost = match self.carry().await {
                Ok(()) => return Ok(()),
                Err(Break::Login(reason)) => return Err(LinkError::Login(reason)),
                Err(Break::Lost(reason)) => reason,
            };
            if *self.stop.borrow() {
                return Ok(());
            }
            if self.answered_at.elapsed() > PATIENCE {
                return Err(LinkError::GaveUp(lost));
            }
            self.tell(Event::Lost(lost)).await;
            tokio::select! {
                () = sleep(self.pause) => {}
                () = stopped(&mut self.stop) => return Ok(()),
            }
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }

    /// One connection's time. `Ok`: everything is answered, or the user wants to stop.
    async fn carry(&mut self) -> Result<(), Break> {
        let opening = timeout(OPEN_WITHIN, Connection::open(&self.login, self.window));
        let mut connection = tokio::select! {
            opened = opening => opened
                .unwrap_or_else(|_| Err(Break::Lost("the broker does not answer".to_owned())))?,
            () = stopped(&mut self.stop) => return Ok(()),
        };
        for message in &self.waiting {
            let payload = message.payload.clone();
            connection.publish(&self.login.topic, payload).await?;
        }
        let mut stop = self.stop.clone();
        let mut quiet_since = Instant::now();
        loop {
            let stopping = *self.stop.borrow();
            if stopping {
                self.messages.close();
                self.drained = true;
            }
            if self.drained && self.waiting.is_empty() {
                connection.close().await;
                return Ok(());
            }
            let within = if stopping { STOP_WITHIN } else { REPLY_WITHIN };
            tokio::select! {
                reply = connection.reply() => {
                    let reply = reply?;
                    quiet_since = Instant::now();
                    self.settle(reply).await?;
                }
                message = self.messages.recv(), if !self.drained && self.waiting.len() < self.window => {
                    match message {
                        None => self.drained = true,
                        Some(message) => {
                            if self.waiting.is_empty() {
                                quiet_since = Instant::now();
                            }
                            self.take_on(message, &connection).await?;
                        }
                    }
                }
                () = sleep_until((quiet_since + within).into()), if !self.waiting.is_empty() => {
                    return Err(Break::Lost(format!("no reply within {} s", within.as_secs())));
                }
                () = stopped(&mut stop), if !stopping => {}
            }
        }
    }

    /// A message is among those that wait for a reply before it is published: a connection that just
    /// broke takes nothing, and the next one begins with what waits.
    async fn take_on(&mut self, message: Message, connection: &Connection) -> Result<(), Break> {
        let payload = message.payload.clone();
        self.waiting.push_back(message);
        connection.publish(&self.login.topic, payload).await
    }

    async fn settle(&mut self, reply: Reply) -> Result<(), Break> {
        // Replies to another client of the channel, and second replies, are none of ours.
        let Some(at) = self
            .waiting
            .iter()
            .position(|message| message.id == reply.id)
        else {
            return Ok(());
        };
        self.answered_at = Instant::now();
        if reply.code == Reply::THROTTLED {
            // The rest of the window would be refused alike; pause, then send it again in order.
            return Err(Break::Lost(reply.message));
        }
        self.pause = PAUSE_MIN;
        let message = self
            .waiting
            .remove(at)
            .expect("the position was just found");
        self.tell(Event::Answered(Box::new(Answer { message, reply })))
            .await;
        Ok(())
    }

    async fn tell(&self, event: Event) {
        // Nobody listens once the run is over.
        drop(self.events.send(event).await);
    }
}

/// A live MQTT connection that is subscribed to its replies.
struct Connection {
    client: AsyncClient,
    packets: mpsc::Receiver<Result<Packet, ConnectionError>>,
    pump: JoinHandle<()>,
}

impl Connection {
    async fn open(login: &Login, window: usize) -> Result<Self, Break> {
        let mut options = MqttOptions::new(&login.client_id, &login.host, login.port);
        options
            .set_credentials(&login.username, &login.password)
            .set_keep_alive(Duration::from_secs(60))
            .set_clean_session(true)
            .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX)
            // The window is ours; the client's own must never hold a message back.
            .set_inflight(u16::try_from(2 * window + 16).unwrap_or(u16::MAX));
        let (client, mut mqtt) = AsyncClient::new(options, window + 16);
        let (forward, packets) = mpsc::channel(2 * window + 16);
        // A task of its own: a poll of this client must not be cancelled half-way.
        let pump = tokio::spawn(async move {
            loop {
                let packet = match mqtt.poll().await {
                    Ok(MqttEvent::Incoming(packet)) => Ok(packet),
                    Ok(MqttEvent::Outgoing(_)) => continue,
                    Err(error) => Err(error),
                };
                let is_end = packet.is_err();
                if forward.send(packet).await.is_err() || is_end {
                    return;
                }
            }
        });
        let mut connection = Self {
            client,
            packets,
            pump,
        };
        connection
            .expect(|packet| matches!(packet, Packet::ConnAck(_)).then_some(()))
            .await?;
        let replies = format!("{}_reply", login.topic);
        connection
            .client
            .subscribe(replies, QoS::AtLeastOnce)
            .await
            .map_err(lost)?;
        let granted = connection
            .expect(|packet| match packet {
                Packet::SubAck(ack) => Some(ack.return_codes.clone()),
                _ => None,
            })
            .await?;
        if granted.contains(&SubscribeReasonCode::Failure) {
            return Err(Break::Login(
                "it may not subscribe to its replies".to_owned(),
            ));
        }
        Ok(connection)
    }

    async fn expect<T>(&mut self, wanted: impl Fn(&Packet) -> Option<T>) -> Result<T, Break> {
        loop {
            if let Some(found) = wanted(&self.packet().await?) {
                return Ok(found);
            }
        }
    }

    async fn packet(&mut self) -> Result<Packet, Break> {
        match self.packets.recv().await {
            Some(Ok(packet)) => Ok(packet),
            Some(Err(ConnectionError::ConnectionRefused(code))) => Err(match code {
                ConnectReturnCode::ServiceUnavailable => {
                    Break::Lost("the channel is paused, or the broker is unavailable".to_owned())
                }
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                    Break::Login("wrong client id, user name or password".to_owned())
                }
                other => Break::Login(format!("{other:?}")),
            }),
            Some(Err(error)) => Err(lost(error)),
            None => Err(Break::Lost("the connection is closed".to_owned())),
        }
    }

    async fn publish(&self, topic: &str, payload: Bytes) -> Result<(), Break> {
        self.client
            .publish_bytes(topic, QoS::AtLeastOnce, false, payload)
            .await
            .map_err(lost)
    }

    /// The next reply; safe to drop while it waits.
    async fn reply(&mut self) -> Result<Reply, Break> {
        loop {
            if let Packet::Publish(publish) = self.packet().await?
                && let Ok(reply) = serde_json::from_slice(&publish.payload)
            {
                return Ok(reply);
            }
        }
    }

    /// Says goodbye, so that the gateway need not wait for the keep-alive.
    async fn close(mut self) {
        if self.client.disconnect().await.is_err() {
            return;
        }
        let goodbye = async { while let Some(Ok(_)) = self.packets.recv().await {} };
        // A broker that does not close the connection is not waited for.
        drop(timeout(Duration::from_secs(1), goodbye).await);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Ready once the user wants to stop, or nobody could tell any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

fn lost(error: impl std::fmt::Display) -> Break {
    Break::Lost(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_that_meets_a_broken_connection_waits_for_the_next() {
        let login = Login {
            host: "127.0.0.1".into(),
            port: 1,
            client_id: "P".into(),
            username: "u".into(),
            password: "p".into(),
            topic: "t".into(),
        };
        let (_lane, messages) = mpsc::channel(1);
        let (events, _happenings) = mpsc::channel(1);
        let (_stopper, stop) = watch::channel(false);
        let mut link = Link::new(login, 8, messages, events, stop);
        let (client, ended) = AsyncClient::new(MqttOptions::new("P", "127.0.0.1", 1), 8);
        drop(ended);
        let (_forward, packets) = mpsc::channel(1);
        let broken = Connection {
            client,
            packets,
            pump: tokio::spawn(async {}),
        };
        let message = Message {
            id: "run-0-1".into(),
            rows: vec![0],
            values: 1,
            payload: Bytes::from_static(b"{}"),
        };
        let taken_on = link.take_on(message, &broken).await;
        assert!(matches!(taken_on, Err(Break::Lost(_))));
        let waiting: Vec<&str> = link.waiting.iter().map(|m| m.id.as_str()).collect();
        assert_eq!(waiting, ["run-0-1"]);
    }
}
