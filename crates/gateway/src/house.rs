//! Where the MQTT door meets the house: logins become channels, bursts become outcomes, what the
//! door sees becomes lines of the channel log.

use std::{collections::HashMap, sync::Arc};

use backtide_model::{ChannelName, Code, Compression, LoginError, ProductKey};
use backtide_store::State;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Admitted, AuthError, Shown, admit},
    channel_log::{Entry, What},
    http,
    ingest::{self, Gate, Ingest, NotTaken, Oversize, Sender, Uplink},
    mqtt::{
        Ack, ChannelHandle, Client, Event, Login, Outcome, Payload, Publish, Qos, Refusal, Reply,
        StoreDown, Transport,
    },
    registry,
    tls::ClientCertificate,
};

/// The house behind the MQTT door.
pub struct House {
    ingest: Arc<Ingest>,
    logins: Logins,
}

impl House {
    pub fn new(ingest: Arc<Ingest>) -> Self {
        Self {
            ingest,
            logins: Logins::default(),
        }
    }

    /// Ends the connections whose login no longer holds: their channel was paused or deleted, or
    /// the secret that signed them has ended.
    pub fn recheck_logins(&self) {
        let snapshot = self.ingest.registry.snapshot();
        let now_ms = self.ingest.clock.now_ms();
        self.logins.revoke_unless(|login| {
            snapshot
                .channel(&login.channel)
                .is_some_and(|channel| login.holds(channel, now_ms))
        });
    }

    fn log(&self, channel: &ChannelName, client: Arc<str>, what: What) {
        self.ingest.log.note(Entry {
            time_ms: self.ingest.clock.now_ms(),
            channel: channel.clone(),
            client,
            what,
        });
    }

    /// Says in every log concerned that a login was refused, and why.
    fn refused(&self, login: &Login<'_>, why: &str) {
        let message = format!("login from {} refused: {why}", login.peer.address);
        tracing::info!(client = login.client_id, %message);
        let client: Arc<str> = login.client_id.into();
        for channel in self.concerned(login.username) {
            self.log(&channel, Arc::clone(&client), error_line(message.clone()));
        }
    }

    /// The channels whose people should hear of a refused login: all of the product it names.
    fn concerned(&self, user_name: Option<&str>) -> Vec<ChannelName> {
        let snapshot = self.ingest.registry.snapshot();
        user_name
            .and_then(|name| name.rsplit_once('&'))
            .and_then(|(_, key)| snapshot.product_by_key(key))
            .map(|product| {
                snapshot
                    .channels_of(&product.name)
                    .map(|channel| channel.name.clone())
                    .collect()
            })
            .unwrap_or_default()
    }
}

/// How the HTTP door puts a message in: as a client of the channel that is not connected. A request that
/// goes away half-way takes nothing back, and what is over a quota waits for as long as a QoS 0 message.
pub fn integrate(ingest: Arc<Ingest>) -> http::Integrate {
    Box::new(move |posted| {
        let ingest = Arc::clone(&ingest);
        // A task of its own: it runs to its end, whoever listens.
        let taken = tokio::spawn(async move { take_posted(&ingest, posted).await });
        Box::pin(async move {
            let outcome = taken.await;
            outcome.unwrap_or_else(|_| {
                Err("the gateway failed to take it; its log says why".to_owned())
            })
        })
    })
}

async fn take_posted(ingest: &Ingest, posted: http::Posted) -> Result<http::Verdict, String> {
    let http::Posted {
        channel,
        client,
        topic,
        payload,
    } = posted;
    let sender = Sender {
        client,
        compression: Compression::None,
    };
    let uplink = Uplink {
        topic,
        payload: ingest::Payload::Whole(payload),
        packet_id: None,
        is_kept_by_client: false,
        rows: None,
    };
    let gate = Gate::default();
    let taken = ingest.take(&channel, &sender, &gate, vec![uplink]).await;
    let outcome = taken.map(|mut outcomes| outcomes.pop());
    match outcome {
        Ok(Some(outcome)) => Ok(http::Verdict {
            code: outcome.code,
            reply: outcome.reply,
        }),
        Ok(None) => Err("the message has no outcome".to_owned()),
        Err(error) => {
            tracing::error!(%channel, %error, "a message is not taken");
            ingest.log.note(Entry {
                time_ms: ingest.clock.now_ms(),
                channel,
                client: sender.client,
                what: error_line(format!(
                    "a message was not taken: {error}; its sender was told"
                )),
            });
            Err(error.to_string())
        }
    }
}

impl crate::mqtt::House for House {
    type Channel = Channel;

    fn login(&self, login: &Login<'_>) -> Result<Channel, Refusal> {
        if self.ingest.store.health() != State::Ok {
            self.refused(login, "the store takes nothing now");
            return Err(Refusal::NotReady);
        }
        let now_ms = self.ingest.clock.now_ms();
        let snapshot = self.ingest.registry.snapshot();
        match admit(
            &snapshot,
            login.client_id,
            login.username,
            login.password,
            &Shown {
                certificate: login.peer.transport.certificate(),
                transport: login.peer.transport.as_str(),
            },
            now_ms,
        ) {
            Ok(admitted) => {
                let declared = snapshot.channel(&admitted.channel);
                let is_paced = declared.is_some_and(|channel| channel.quotas.is_some());
                Ok(self.logins.channel(admitted, is_paced))
            }
            Err(error) => {
                self.refused(login, &error.to_string());
                Err(refusal(error))
            }
        }
    }

    fn throttled(&self, login: &Login<'_>) {
        self.refused(login, &Refusal::Throttled.to_string());
    }

    async fn take(
        &self,
        channel: &Channel,
        client: &Client,
        burst: Vec<Publish>,
    ) -> Result<Vec<Outcome>, StoreDown> {
        let sender = Sender {
            client: client.id.clone(),
            compression: channel.compression,
        };
        let burst = burst.into_iter().map(uplink).collect();
        match self
            .ingest
            .take(&channel.name, &sender, &channel.gate, burst)
            .await
        {
            Ok(outcomes) => Ok(outcomes.into_iter().map(outcome).collect()),
            Err(NotTaken::ClientGone) => Err(StoreDown),
            Err(error) => {
                tracing::error!(channel = %channel.name, %error, "a burst is not taken");
                let line = error_line(not_taken(&error));
                self.log(&channel.name, Arc::clone(&client.id), line);
                Err(StoreDown)
            }
        }
    }

    fn note(&self, channel: &Channel, client: &Client, event: Event) {
        let what = match event {
            Event::Connected { .. } => What::Connect {
                remote: client.peer.address.to_string().into(),
                protocol: protocol(client),
            },
            Event::Disconnected(ending) => What::Disconnect {
                reason: ending.to_string().into(),
            },
            Event::LoginRefused(refusal) => {
                let address = client.peer.address;
                error_line(format!("login from {address} refused: {refusal}"))
            }
            Event::Subscribed { filter } => {
                tracing::debug!(channel = %channel.name, filter, "subscribed");
                return;
            }
            Event::SubscriptionRefused { filter, reason } => {
                error_line(format!("subscription to {filter} refused: {reason}"))
            }
            Event::WillIgnored { topic } => error_line(format!(
                "the will on {topic} is ignored: history has no wills"
            )),
            Event::RetainIgnored { topic } => error_line(format!(
                "the retain flag of a publish to {topic} is ignored: it is stored, not retained"
            )),
            Event::ReplyDropped { topic, reason } => {
                error_line(format!("a reply on {topic} was not delivered: {reason}"))
            }
        };
        self.log(&channel.name, Arc::clone(&client.id), what);
    }
}

fn error_line(message: String) -> What {
    What::Error {
        topic: None,
        code: None,
        message: message.into(),
        device_key: None,
        point: None,
    }
}

/// Such as `3.1.1`, or `5.0 over TLS`.
fn protocol(client: &Client) -> Box<str> {
    let version = client.version.as_str();
    match &client.peer.transport {
        Transport::Tcp => version.into(),
        other => format!("{version} over {}", other.as_str()).into(),
    }
}

fn not_taken(error: &NotTaken) -> String {
    format!(
        "messages were not taken and not acknowledged: {error}; the client still has those of QoS 1 \
         and 2, those of QoS 0 are lost"
    )
}

fn refusal(error: AuthError) -> Refusal {
    match error {
        AuthError::Paused(_) => Refusal::Paused,
        AuthError::Malformed(LoginError::Compression(name)) => Refusal::BadCompression(name),
        AuthError::Certificate { .. } => Refusal::NotAuthorized,
        AuthError::Malformed(_)
        | AuthError::UnknownProduct(_)
        | AuthError::WrongPassword(_)
        | AuthError::MethodRefused { .. } => Refusal::BadCredentials,
    }
}

fn uplink(publish: Publish) -> Uplink {
    Uplink {
        rows: None,
        topic: publish.topic.to_string(),
        is_kept_by_client: publish.qos > Qos::AtMostOnce,
        packet_id: publish
            .packet_id
            .filter(|_| publish.qos == Qos::ExactlyOnce),
        payload: match publish.payload {
            Payload::Whole(payload) => ingest::Payload::Whole(payload),
            Payload::Oversize {
                bytes,
                sha256,
                head,
            } => ingest::Payload::Oversize(Oversize {
                bytes,
                sha256,
                head,
            }),
        },
    }
}

fn outcome(outcome: ingest::Outcome) -> Outcome {
    Outcome {
        ack: match outcome.code {
            Code::NoPermission => Ack::NotAuthorized,
            _ => Ack::Success,
        },
        reply: Some(Reply {
            topic: outcome.reply_topic.into(),
            payload: outcome.reply,
        }),
    }
}

/// A channel as one connection has it.
#[derive(Clone)]
pub struct Channel {
    name: ChannelName,
    product: ProductKey,
    compression: Compression,
    connections_max: Option<usize>,
    revoked: CancellationToken,
    is_paced: bool,
    gate: Arc<Gate>,
}

impl ChannelHandle for Channel {
    fn name(&self) -> &ChannelName {
        &self.name
    }

    fn product(&self) -> &ProductKey {
        &self.product
    }

    fn connections_max(&self) -> Option<usize> {
        self.connections_max
    }

    fn revoked(&self) -> &CancellationToken {
        &self.revoked
    }

    fn is_paced(&self) -> bool {
        self.is_paced
    }

    fn leave(&self) {
        self.gate.leave();
    }
}

/// The logins that hold, each with the token that ends its connections.
#[derive(Default)]
struct Logins(Mutex<HashMap<Held, CancellationToken>>);

/// What a login holds by.
#[derive(PartialEq, Eq, Hash)]
struct Held {
    channel: ChannelName,
    secret_id: u64,
    certificate: Option<Arc<ClientCertificate>>,
}

impl Held {
    fn holds(&self, channel: &registry::Channel, now_ms: i64) -> bool {
        let shown = self.certificate.as_deref();
        !channel.paused
            && channel
                .secrets(now_ms)
                .any(|secret| secret.id == self.secret_id)
            && channel
                .client_certificate
                .as_ref()
                .is_none_or(|rule| rule.admits(shown))
    }
}

impl Logins {
    fn channel(&self, admitted: Admitted, is_paced: bool) -> Channel {
        let held = Held {
            channel: admitted.channel.clone(),
            secret_id: admitted.secret_id,
            certificate: admitted.certificate,
        };
        let revoked = self.0.lock().entry(held).or_default().clone();
        Channel {
            name: admitted.channel,
            product: admitted.product,
            compression: admitted.compression,
            connections_max: admitted
                .connections_max
                .and_then(|max| usize::try_from(max).ok()),
            revoked,
            is_paced,
            gate: Arc::default(),
        }
    }

    fn revoke_unless(&self, holds: impl Fn(&Held) -> bool) {
        self.0.lock().retain(|login, revoked| {
            let holds = holds(login);
            if !holds {
                revoked.cancel();
            }
            holds
        });
    }
}
