//! From the first byte to CONNACK: nobody is known yet, so little is buffered and little time given.

use std::{net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Duration, Instant, timeout, timeout_at},
};

use super::{
    super::{
        ChannelHandle as _, Client, Event, House, Login, Peer, Reason, Refusal, Version,
        listener::Door,
        outbound::{self, Accepted},
        packet::{self, Connect},
        sessions::{Attached, RoomFull, Wish},
        strict::NotConnect,
    },
    Greeted, Inbox,
};
use crate::throttle::{Left, network};

/// How a TLS record of a handshake begins.
const TLS_HANDSHAKE: &[u8] = &[0x16, 0x03];

/// A CONNACK that refuses: the code of 3.1.1, that of 5.0, and words for the client.
struct No {
    code_v3: u8,
    reason: Reason,
    why: String,
}

/// Why no connection came of it. `refused` is what the metric says.
enum Failed {
    /// There is nobody to answer: not MQTT, gone, or silent.
    Silently { refused: &'static str },
    Answered {
        version: Version,
        no: No,
        packet_bytes_max: u32,
        refused: &'static str,
    },
}

/// Reads CONNECT, logs in, attaches the session, says CONNACK. `None` when it came to nothing;
/// everything has been said then.
pub(super) async fn greet<H, R, W>(
    door: &Arc<Door<H>>,
    reader: &mut R,
    writer: &mut W,
    peer: Peer,
    number: u64,
    connect_by: Instant,
) -> Option<Greeted<H>>
where
    H: House,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut inbox = Inbox::new(Arc::clone(&door.buffers), door.limits.chunk_bytes_max);
    let mut out = BytesMut::new();
    let address = peer.address;
    let greeted = match hello(door, reader, &mut inbox, address, connect_by).await {
        Ok(connect) => enter(door, connect, inbox, peer, number, &mut out),
        Err(failed) => Err(failed),
    };
    if let Err(failed) = &greeted {
        let refused = match failed {
            Failed::Silently { refused } => refused,
            Failed::Answered {
                version,
                no,
                packet_bytes_max,
                refused,
            } => {
                let No {
                    code_v3,
                    reason,
                    why,
                } = no;
                outbound::refused(
                    &mut out,
                    *version,
                    *code_v3,
                    *reason,
                    why,
                    *packet_bytes_max,
                );
                refused
            }
        };
        tracing::debug!(peer = %address, refused, "no MQTT connection");
        metrics::counter!("backtide_mqtt_connects_refused_total", "reason" => *refused)
            .increment(1);
    }
    let answer = async {
        writer.write_all_buf(&mut out).await?;
        writer.flush().await
    };
    let answered = timeout(Duration::from_secs(door.limits.write_s), answer).await;
    let greeted = greeted.ok()?;
    matches!(answered, Ok(Ok(()))).then_some(greeted)
}

async fn hello<H, R>(
    door: &Arc<Door<H>>,
    reader: &mut R,
    inbox: &mut Inbox,
    address: SocketAddr,
    connect_by: Instant,
) -> Result<Connect, Failed>
where
    H: House,
    R: AsyncRead + Unpin,
{
    let connect = timeout_at(connect_by, async {
        loop {
            match packet::connect(inbox.buffer(), &door.limits) {
                Ok(Some(connect)) => return Ok(connect),
                Ok(None) => {}
                Err(NotConnect::Foreign) if inbox.buffer().starts_with(TLS_HANDSHAKE) => {
                    tracing::info!(
                        peer = %address,
                        "no MQTT connection: a TLS client belongs at the port of mqtts"
                    );
                    return Err(Failed::Silently {
                        refused: "tls_at_plain_port",
                    });
                }
                Err(wrong) => return Err(Failed::from(wrong)),
            }
            // Never more than this, however much is sent: the buffer does not grow.
            let room = door.limits.connect_bytes_max.saturating_sub(inbox.len());
            let read = reader.take(room as u64).read_buf(inbox.buffer()).await;
            if !matches!(read, Ok(1..)) {
                return Err(Failed::Silently { refused: "gone" });
            }
        }
    });
    tokio::select! {
        connect = connect => connect.unwrap_or(Err(Failed::Silently { refused: "timeout" })),
        () = door.closing.cancelled() => Err(Failed::Silently { refused: "shutting_down" }),
    }
}

impl From<NotConnect> for Failed {
    fn from(wrong: NotConnect) -> Self {
        match wrong {
            NotConnect::Foreign => Self::Silently {
                refused: "not_mqtt",
            },
            // Said in the words of 3.1.1, which every client reads.
            NotConnect::UnsupportedLevel => Self::Answered {
                version: Version::V3,
                no: No {
                    code_v3: 1,
                    reason: Reason::UNSUPPORTED_VERSION,
                    why: "MQTT 3.1.1 and 5.0 are spoken here".to_owned(),
                },
                packet_bytes_max: u32::MAX,
                refused: "version",
            },
            NotConnect::EmptyClientId => Self::Answered {
                version: Version::V3,
                no: client_id_refused("an empty client id needs a clean session"),
                packet_bytes_max: u32::MAX,
                refused: "client_id",
            },
            // 3.1.1 has no code for it: the connection closes (MQTT-4.8.0-1).
            NotConnect::Fault(Version::V3, _) => Self::Silently {
                refused: "malformed",
            },
            NotConnect::Fault(version, fault) => Self::Answered {
                version,
                no: No {
                    code_v3: 0,
                    reason: fault.reason,
                    why: fault.why.to_owned(),
                },
                packet_bytes_max: u32::MAX,
                refused: "malformed",
            },
        }
    }
}

fn client_id_refused(why: &str) -> No {
    No {
        code_v3: 2,
        reason: Reason::CLIENT_ID_INVALID,
        why: why.to_owned(),
    }
}

fn enter<H: House>(
    door: &Arc<Door<H>>,
    connect: Connect,
    inbox: Inbox,
    peer: Peer,
    number: u64,
    out: &mut BytesMut,
) -> Result<Greeted<H>, Failed> {
    let version = connect.version;
    let packet_bytes_max = connect.packet_bytes_max;
    let answered = |no, refused| Failed::Answered {
        version,
        no,
        packet_bytes_max,
        refused,
    };
    if connect.has_auth_method {
        let why = "enhanced authentication is not supported".to_owned();
        let no = No {
            code_v3: 0,
            reason: Reason::BAD_AUTH_METHOD,
            why,
        };
        return Err(answered(no, "auth_method"));
    }
    if connect.client_id.len() > door.limits.client_id_bytes_max {
        return Err(answered(
            client_id_refused("the client id is too long"),
            "client_id",
        ));
    }
    let channel = log_in(door, &connect, &peer).map_err(|refusal| {
        let (no, refused) = refused(&refusal);
        answered(no, refused)
    })?;

    let assigned = connect
        .client_id
        .is_empty()
        .then(|| format!("auto-{}", uuid::Uuid::new_v4().simple()));
    let id: Arc<str> = assigned.as_deref().unwrap_or(&connect.client_id).into();
    let client = Client {
        id: Arc::clone(&id),
        peer,
        version,
        connection: number,
    };
    let wish = Wish {
        client_id: id,
        clean: connect.clean,
        expiry_s: connect.session_expiry_s,
        connection: number,
        connections_max: channel
            .connections_max()
            .unwrap_or(usize::MAX)
            .min(door.limits.connections_per_channel_max),
    };
    let attached = attach(door, &channel, &wish).map_err(|(refusal, is_told)| {
        let (no, refused) = refused(&refusal);
        if !is_told {
            door.house
                .note(&channel, &client, Event::LoginRefused(refusal));
        }
        answered(no, refused)
    })?;

    let limits = &door.limits;
    let keep_alive_s = connect.keep_alive_s.min(limits.keep_alive_s_max);
    let session_expiry_s = connect.session_expiry_s.min(limits.session_expiry_s_max);
    let accepted = Accepted {
        session_present: attached.session_present,
        session_expiry_s: (session_expiry_s != connect.session_expiry_s)
            .then_some(session_expiry_s),
        keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
        assigned_client_id: assigned,
        receive_max: limits.in_flight_messages_max,
        packet_bytes_max: packet_limit(limits),
        topic_alias_max: limits.topic_alias_max,
    };
    outbound::accepted(out, version, &accepted, packet_bytes_max);
    if out.is_empty() {
        return Err(Failed::Silently {
            refused: "packet_size",
        });
    }
    let session_present = attached.session_present;
    door.house
        .note(&channel, &client, Event::Connected { session_present });
    if let Some(topic) = connect.will_topic {
        door.house.note(
            &channel,
            &client,
            Event::WillIgnored {
                topic: topic.to_string(),
            },
        );
    }
    let keep_alive = (keep_alive_s > 0).then(|| Duration::from_secs(u64::from(keep_alive_s)));
    let receive_max = connect.receive_max;
    Ok(Greeted {
        channel,
        client,
        attached,
        inbox,
        keep_alive,
        receive_max,
        packet_bytes_max,
    })
}

/// The session of a login, unless its channel has too many connections, or they come too fast; and
/// whether the channel's log has that already.
fn attach<H: House>(
    door: &Arc<Door<H>>,
    channel: &H::Channel,
    wish: &Wish,
) -> Result<Attached, (Refusal, bool)> {
    match door.connecting_channels.left(channel.name()) {
        Left::Some => door.connecting_channels.spend(channel.name().clone()),
        left => return Err((Refusal::Throttled, left == Left::None)),
    }
    door.sessions
        .enter(channel.name(), wish)
        .map_err(|RoomFull| (Refusal::TooManyConnections, false))
}

/// The largest packet that is taken whole. Larger payloads are drained and answered, but a client
/// that knows the limit need not try.
fn packet_limit(limits: &crate::limits::Mqtt) -> u32 {
    let bytes = 5 + limits.publish_header_bytes_max + limits.payload_bytes_max;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Asks the house, unless this address or client id has failed too often.
fn log_in<H: House>(
    door: &Arc<Door<H>>,
    connect: &Connect,
    peer: &Peer,
) -> Result<H::Channel, Refusal> {
    let address = network(peer.address.ip());
    let client_id = connect.client_id.to_string();
    let login = Login {
        client_id: &connect.client_id,
        username: connect.username.as_deref(),
        password: connect.password.as_deref(),
        peer,
        version: connect.version,
    };
    let left = [
        door.failed_addresses.left(&address),
        door.failed_clients.left(&client_id),
    ];
    if left != [Left::Some; 2] {
        if left.contains(&Left::NoneAtFirst) {
            door.house.throttled(&login);
        }
        return Err(Refusal::Throttled);
    }
    let channel = door.house.login(&login);
    if let Err(Refusal::BadCredentials | Refusal::NotAuthorized) = channel {
        door.failed_addresses.spend(address);
        door.failed_clients.spend(client_id);
    }
    channel
}

/// The one table from a refusal to its codes (3.1.1 §3.2.2.3, 5.0 §3.2.2.2) and its metric.
fn refused(refusal: &Refusal) -> (No, &'static str) {
    let (code_v3, reason, metric) = match refusal {
        Refusal::BadCredentials => (4, Reason::BAD_CREDENTIALS, "credentials"),
        Refusal::NotAuthorized => (5, Reason::NOT_AUTHORIZED, "not_authorized"),
        Refusal::NotReady => (3, Reason::UNAVAILABLE, "not_ready"),
        Refusal::Paused => (3, Reason::UNAVAILABLE, "paused"),
        Refusal::BadCompression(_) => (2, Reason::CLIENT_ID_INVALID, "compression"),
        Refusal::Throttled => (3, Reason::RATE, "throttled"),
        Refusal::TooManyConnections => (3, Reason::QUOTA, "too_many"),
    };
    (
        No {
            code_v3,
            reason,
            why: refusal.to_string(),
        },
        metric,
    )
}
