//! The device door: MQTT 3.1.1 and 5.0 in, publishes to the house, acks and replies out.
//!
//! ```text
//! listener ─▶ connection ─▶ house.take(burst) ─▶ acks in order, replies through the session
//!  (caps)     (one loop)      (durable)            (a state machine without I/O)
//! ```
//!
//! The door knows packets, sessions and limits. It knows nothing of models or stores: what a
//! publish means and whether it is accepted is the [`House`]'s word alone.
//!
//! What it must never do: acknowledge a publish before the house has said that its outcome is
//! durable; acknowledge out of order (MQTT-4.6.0-2); cancel a burst that the house has begun
//! because its connection is gone; buffer without a bound; print a CONNECT, which holds a password.
//!
//! What a crash can lose: the last second of waiting replies, and QoS 2 packet ids. Then a client
//! misses a reply and asks again, or a message is stored a second time, which changes nothing. Data
//! is never lost: without PUBACK or PUBREC the client still has it.

mod connection;
mod filter;
mod kept;
mod listener;
mod outbound;
mod packet;
mod session;
mod sessions;
mod strict;

#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, num::NonZeroU16, sync::Arc};

use backtide_model::{ChannelName, ProductKey};
use bytes::Bytes;
use bytestring::ByteString;
use tokio_util::sync::CancellationToken;

use crate::tls::ClientCertificate;

pub use kept::KeptError;
pub use listener::{BindError, Door, bind};
#[doc(hidden)]
pub use packet::decode_anything;

/// What the door needs from the house. One object for the process.
pub trait House: Send + Sync + 'static {
    type Channel: ChannelHandle;

    /// CONNECT credentials to the channel, or why not. Logs refusals itself.
    ///
    /// # Errors
    /// The [`Refusal`], which the door says to the client as a CONNACK code.
    fn login(&self, login: &Login<'_>) -> Result<Self::Channel, Refusal>;

    /// Logins like this one have failed so often that the next ones are refused unheard. Said once
    /// until one is heard again. For the log.
    fn throttled(&self, login: &Login<'_>);

    /// Takes a burst of publishes of one connection, in order. Resolves when the outcome of each
    /// is final and durable, with as many outcomes as publishes, in order.
    ///
    /// Several bursts of one connection are in flight at once. They are polled for the first time
    /// in the order of their arrival: hand the burst to the store, or take a place in a queue,
    /// before the first await. A connection that goes away does not drop the future.
    ///
    /// # Errors
    /// [`StoreDown`]: nothing of the burst is acknowledged and the connection is closed.
    fn take(
        &self,
        channel: &Self::Channel,
        client: &Client,
        burst: Vec<Publish>,
    ) -> impl Future<Output = Result<Vec<Outcome>, StoreDown>> + Send;

    /// For the log of the channel. Must not block.
    fn note(&self, channel: &Self::Channel, client: &Client, event: Event);
}

/// A channel that a client has logged in to.
pub trait ChannelHandle: Clone + Send + Sync + 'static {
    fn name(&self) -> &ChannelName;
    fn product(&self) -> &ProductKey;
    /// Connections at one time; the door's own cap when absent.
    fn connections_max(&self) -> Option<usize>;
    /// Cancelled when the connections of this login must go: paused, rotated out, deleted.
    fn revoked(&self) -> &CancellationToken;
    /// The house may make each message wait: bursts are of one, so that none waits for another's
    /// acknowledgement.
    fn is_paced(&self) -> bool;
    /// The connection is gone. What the house makes wait, and the client still has, may be let go.
    fn leave(&self);
}

/// What a CONNECT says about who it is. No `Debug`: it holds the password.
pub struct Login<'a> {
    pub client_id: &'a str,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub peer: &'a Peer,
    pub version: Version,
}

/// Who is at the other end of a stream, and what lies between.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    pub transport: Transport,
}

#[derive(Debug, Clone)]
pub enum Transport {
    Tcp,
    /// With the certificate that the client has proved to be its own, if it has one.
    Tls(Option<Arc<ClientCertificate>>),
    WebSocket,
}

impl Transport {
    /// The certificate that the client has proved to be its own.
    pub fn certificate(&self) -> Option<&Arc<ClientCertificate>> {
        match self {
            Self::Tls(certificate) => certificate.as_ref(),
            Self::Tcp | Self::WebSocket => None,
        }
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Tls(_) => "TLS",
            Self::WebSocket => "WebSocket",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1, and 3.1, which differs in its name only.
    V3,
    V5,
}

impl Version {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V3 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

/// Why a CONNECT is refused. The text is for the client: it must not help somebody guess.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("bad user name or password")]
    BadCredentials,
    #[error("this client may not use the channel")]
    NotAuthorized,
    #[error("the store is not ready, try again later")]
    NotReady,
    #[error("the channel is paused")]
    Paused,
    #[error("compression is not supported: {0}")]
    BadCompression(String),
    #[error("too many logins or failed logins in a short time, try again later")]
    Throttled,
    #[error("too many connections")]
    TooManyConnections,
}

/// Who is connected: for lineage and logs.
#[derive(Debug, Clone)]
pub struct Client {
    /// The MQTT client identifier, or the one that the door assigned to an empty one.
    pub id: Arc<str>,
    pub peer: Peer,
    pub version: Version,
    /// Counts connections since the process began: tells two of one client apart.
    pub connection: u64,
}

/// One PUBLISH, checked by the protocol's rules and by nothing else.
#[derive(Debug, Clone)]
pub struct Publish {
    pub topic: ByteString,
    pub payload: Payload,
    pub qos: Qos,
    pub packet_id: Option<NonZeroU16>,
    pub retain: bool,
    pub dup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

#[derive(Clone)]
pub enum Payload {
    Whole(Bytes),
    /// Larger than `payload_bytes_max`: drained, not kept.
    Oversize {
        bytes: u64,
        sha256: [u8; 32],
        /// Its first 4 KiB.
        head: Bytes,
    },
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(payload) => write!(f, "{} bytes", payload.len()),
            Self::Oversize { bytes, .. } => write!(f, "{bytes} bytes, drained"),
        }
    }
}

/// What became of a publish. It is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub ack: Ack,
    pub reply: Option<Reply>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    Success,
    /// 0x87 in 5.0; 3.1.1 cannot say it.
    NotAuthorized,
}

/// What the house answers on the request's topic plus `_reply`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub topic: ByteString,
    pub payload: Bytes,
}

/// The store cannot make anything durable now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store takes nothing now")]
pub struct StoreDown;

/// What the log of a channel hears from the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Connected {
        session_present: bool,
    },
    Disconnected(Ending),
    /// The password was right, and yet.
    LoginRefused(Refusal),
    Subscribed {
        filter: String,
    },
    SubscriptionRefused {
        filter: String,
        reason: &'static str,
    },
    /// Accepted by the protocol, without effect.
    WillIgnored {
        topic: String,
    },
    /// Accepted by the protocol; stored, but never retained.
    RetainIgnored {
        topic: String,
    },
    ReplyDropped {
        topic: String,
        reason: Dropped,
    },
}

/// Why a reply did not reach, and will not reach, its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    #[error("the client reads too slowly or is away: too many replies wait")]
    Full,
    #[error("the client is away and its session does not keep QoS 0")]
    Away,
    #[error("it waited too long for a client that is away")]
    TooOld,
    #[error("it is larger than the client's maximum packet size")]
    TooLarge,
    #[error("the session ended")]
    SessionOver,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    #[error("the client said goodbye")]
    Goodbye,
    #[error("the client is gone: {0}")]
    Gone(String),
    #[error("nothing was heard for 1.5 times the keep-alive")]
    KeepAlive,
    #[error("the client does not read")]
    WriteTimeout,
    #[error("a packet was begun and not finished in time")]
    PacketTimeout,
    #[error("{0}")]
    Fault(Fault),
    #[error("another connection uses the same client id")]
    TakenOver,
    #[error("the channel no longer allows this login")]
    Revoked,
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error("the store takes nothing now")]
    StoreDown,
}

/// How a client broke the protocol: the reason code of 5.0, and the words for its log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why} (0x{:02x})", reason.0)]
pub struct Fault {
    pub(crate) reason: Reason,
    pub(crate) why: &'static str,
}

impl Fault {
    fn malformed(why: &'static str) -> Self {
        Self {
            reason: Reason::MALFORMED,
            why,
        }
    }

    fn protocol(why: &'static str) -> Self {
        Self {
            reason: Reason::PROTOCOL_ERROR,
            why,
        }
    }

    /// The reason code of MQTT 5.0, §2.4.
    pub fn code(&self) -> u8 {
        self.reason.0
    }
}

/// A reason code of MQTT 5.0, §2.4. 3.1.1 has none but in CONNACK and SUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) u8);

impl Reason {
    pub(crate) const SUCCESS: Self = Self(0x00);
    pub(crate) const NO_SUBSCRIPTION: Self = Self(0x11);
    pub(crate) const MALFORMED: Self = Self(0x81);
    pub(crate) const PROTOCOL_ERROR: Self = Self(0x82);
    pub(crate) const UNSUPPORTED_VERSION: Self = Self(0x84);
    pub(crate) const CLIENT_ID_INVALID: Self = Self(0x85);
    pub(crate) const BAD_CREDENTIALS: Self = Self(0x86);
    pub(crate) const NOT_AUTHORIZED: Self = Self(0x87);
    pub(crate) const UNAVAILABLE: Self = Self(0x88);
    pub(crate) const SHUTTING_DOWN: Self = Self(0x8B);
    pub(crate) const BAD_AUTH_METHOD: Self = Self(0x8C);
    pub(crate) const KEEP_ALIVE: Self = Self(0x8D);
    pub(crate) const TAKEN_OVER: Self = Self(0x8E);
    pub(crate) const TOPIC_ALIAS_INVALID: Self = Self(0x94);
    pub(crate) const PACKET_TOO_LARGE: Self = Self(0x95);
    pub(crate) const QUOTA: Self = Self(0x97);
    pub(crate) const ADMINISTRATIVE: Self = Self(0x98);
    pub(crate) const SHARED_UNSUPPORTED: Self = Self(0x9E);
    pub(crate) const RATE: Self = Self(0x9F);
}

/// Reads wall time, in milliseconds since 1970 UTC.
pub type WallClock = fn() -> i64;
