//! Every cap in the product, with its unit in its name. A cap that is met is always visible: in a
//! reason code, a log entry or a metric, and in the documentation of limits.

/// The largest payload that is taken, of every kind, as it arrives and inflated.
pub const PAYLOAD_BYTES_MAX: usize = 512 * 1024;
/// Refusals named in one reply; the rest is counted, and whole in quarantine.
pub const REPLY_REJECTED_MAX: usize = 50;
/// Characters of a message on a reply.
pub const REPLY_MESSAGE_CHARS_MAX: usize = 256;

/// Subscriptions that are declared at one time: each follows the log on a thread of its own.
pub const SUBSCRIPTIONS_MAX: usize = 64;
/// Partitions of a subscription.
pub const PARTITIONS_MAX: u16 = 64;
/// How long a subscription may keep messages: a year.
pub const RETENTION_HOURS_MAX: u32 = 8_760;

/// Caps of what subscriptions keep.
#[derive(Debug, Clone)]
pub struct Topics {
    /// Bytes of log records that are looked through at once.
    pub stride_bytes: usize,
    /// Text of the messages that are compressed together; one message may be larger.
    pub block_bytes_max: usize,
    pub block_messages_max: usize,
    /// How late a message or a committed offset reaches the disk, so that many do together.
    pub gather_ms: u64,
    /// Disk that one subscription takes. Beyond, its oldest messages go before their time.
    pub bytes_max: u64,
    pub groups_max: usize,
    pub group_name_bytes_max: usize,
    /// A group that nobody has been in for so long is forgotten.
    pub group_idle_days_max: u32,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            stride_bytes: 1024 * 1024,
            block_bytes_max: 64 * 1024,
            block_messages_max: 500,
            gather_ms: 50,
            bytes_max: 8 << 30,
            groups_max: 64,
            group_name_bytes_max: 128,
            group_idle_days_max: 30,
        }
    }
}

/// Caps of the subscription door.
#[derive(Debug, Clone)]
pub struct Subscribe {
    /// A request: the largest one is a commit of all partitions.
    pub request_bytes_max: usize,
    /// From accept to the answer to the subscription request, a TLS handshake included.
    pub connect_s: u64,
    /// The last byte of a request after its first.
    pub request_s: u64,
    /// A socket that takes no byte for so long is closed.
    pub write_s: u64,
    /// A session that says nothing for so long is closed; a ping says something.
    pub idle_s: u64,
    /// A pull without messages is answered after so long. Clients commit and ping in between.
    pub pull_wait_ms: u64,
    /// Text of the messages in one answer; one message may be larger.
    pub pull_bytes_max: usize,
    pub pull_messages_max: usize,

    pub connections_max: usize,
    pub connections_per_address_max: usize,
    /// Connections that have not subscribed yet.
    pub handshakes_max: usize,
    pub handshakes_per_address_max: usize,
    /// Failed logins in a row from one address before they are throttled.
    pub failed_logins_burst: u32,
    /// One more failed login is allowed after so long.
    pub failed_login_refill_s: u64,
    /// Addresses remembered for throttling.
    pub failed_logins_tracked_max: usize,
}

impl Default for Subscribe {
    fn default() -> Self {
        Self {
            request_bytes_max: 16 * 1024,
            connect_s: 10,
            request_s: 30,
            write_s: 30,
            idle_s: 300,
            pull_wait_ms: 2_000,
            pull_bytes_max: 64 * 1024,
            pull_messages_max: 500,
            connections_max: 10_000,
            connections_per_address_max: 1_000,
            handshakes_max: 500,
            handshakes_per_address_max: 100,
            failed_logins_burst: 10,
            failed_login_refill_s: 6,
            failed_logins_tracked_max: 10_000,
        }
    }
}

/// Caps of the MQTT door. The defaults are for one node with a few thousand clients.
#[derive(Debug, Clone)]
pub struct Mqtt {
    /// The largest payload that is taken whole, of every kind. Larger ones are drained and answered.
    pub payload_bytes_max: usize,
    /// The topic, packet id and properties of a PUBLISH.
    pub publish_header_bytes_max: usize,
    /// What is kept of a payload over the limit, for quarantine.
    pub oversize_head_bytes: usize,
    /// Everything buffered of a client before its CONNECT is accepted.
    pub connect_bytes_max: usize,
    /// A packet that is neither CONNECT nor PUBLISH.
    pub control_packet_bytes_max: usize,
    pub client_id_bytes_max: usize,
    pub user_properties_max: usize,
    pub topic_alias_max: u16,

    /// From accept to CONNECT, a TLS handshake included.
    pub connect_s: u64,
    /// The last byte of a packet after its first, unless it is drained.
    pub packet_s: u64,
    /// A socket that takes no byte for so long is closed.
    pub write_s: u64,
    /// A clean end: how long bursts in flight and their acks may take.
    pub drain_s: u64,
    /// The server's cap of keep-alive, announced in 5.0. 0 (none) stays allowed: TCP probes then.
    pub keep_alive_s_max: u16,

    pub connections_max: usize,
    pub connections_per_channel_max: usize,
    pub connections_per_address_max: usize,
    /// Connections that have not been accepted yet.
    pub handshakes_max: usize,
    pub handshakes_per_address_max: usize,
    /// Failed logins in a row, from one address or with one client id, before they are throttled.
    pub failed_logins_burst: u32,
    /// One more failed login is allowed after so long.
    pub failed_login_refill_s: u64,
    /// Addresses and client ids remembered for throttling.
    pub failed_logins_tracked_max: usize,

    /// Publishes of one connection that are taken and not yet final. Announced in 5.0.
    pub in_flight_messages_max: u16,
    pub in_flight_bytes_max: usize,
    /// Publishes handed over at once.
    pub burst_messages_max: usize,
    /// Buffers of all connections together, beyond the first 4 KiB of each.
    pub buffer_bytes_max: usize,
    /// The buffer that a connection reads into when it is busy.
    pub chunk_bytes_max: usize,
    /// Bytes waiting for the socket of one client, before the door stops reading from it.
    pub outbox_bytes_max: usize,

    pub filters_per_subscribe_max: usize,
    pub subscriptions_max: usize,
    /// Replies waiting in one session, sent and unacknowledged ones included.
    pub waiting_replies_max: usize,
    pub waiting_reply_bytes_max: usize,
    /// Waiting replies of all sessions together.
    pub waiting_reply_bytes_total_max: usize,
    /// How long a reply waits for a client that is away.
    pub waiting_reply_age_s: u64,
    /// Sessions of one channel. Beyond, the one whose client has been away longest ends.
    pub sessions_per_channel_max: usize,
    /// How long a session outlives its connection, at most; 3.1.1 has no way to ask for less.
    pub session_expiry_s_max: u32,
    /// QoS 2 packet ids between PUBREC and PUBREL. Beyond, the oldest is forgotten: at worst its
    /// message is stored again, which changes nothing.
    pub received_ids_max: usize,
    /// How late a change of a session reaches the disk.
    pub session_save_ms: u64,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            publish_header_bytes_max: 8 * 1024,
            oversize_head_bytes: 4 * 1024,
            connect_bytes_max: 4 * 1024,
            control_packet_bytes_max: 8 * 1024,
            client_id_bytes_max: 256,
            user_properties_max: 16,
            topic_alias_max: 16,
            connect_s: 10,
            packet_s: 120,
            write_s: 10,
            drain_s: 10,
            keep_alive_s_max: 3_600,
            connections_max: 10_000,
            connections_per_channel_max: 1_000,
            connections_per_address_max: 1_000,
            handshakes_max: 500,
            handshakes_per_address_max: 100,
            failed_logins_burst: 10,
            failed_login_refill_s: 6,
            failed_logins_tracked_max: 10_000,
            in_flight_messages_max: 1_000,
            in_flight_bytes_max: 8 * 1024 * 1024,
            burst_messages_max: 256,
            buffer_bytes_max: 256 * 1024 * 1024,
            chunk_bytes_max: 64 * 1024,
            outbox_bytes_max: 64 * 1024,
            filters_per_subscribe_max: 8,
            subscriptions_max: 16,
            waiting_replies_max: 1_000,
            waiting_reply_bytes_max: 1024 * 1024,
            waiting_reply_bytes_total_max: 64 * 1024 * 1024,
            waiting_reply_age_s: 24 * 3_600,
            sessions_per_channel_max: 10_000,
            session_expiry_s_max: 7 * 24 * 3_600,
            received_ids_max: 1_000,
            session_save_ms: 1_000,
        }
    }
}
