//! Every cap in the product, with its unit in its name. A cap that is met is always visible: in a
//! reason code, a log entry or a metric, and in the documentation of limits.

/// The largest payload that is taken, of every kind, as it arrives and inflated.
pub const PAYLOAD_BYTES_MAX: usize = 512 * 1024;
/// Refusals named in one reply; the rest is counted, and whole in quarantine.
pub const REPLY_REJECTED_MAX: usize = 50;
/// Characters of a message on a reply.
pub const REPLY_MESSAGE_CHARS_MAX: usize = 256;

/// What is on its way to the store at one time, of all connections: below what its queue takes.
pub const ON_THE_WAY_BYTES_MAX: usize = 48 << 20;
/// What a submission counts as at least: so many of them stay below what the queue takes.
pub const SUBMISSION_BYTES_MIN: usize = 16 << 10;
/// Messages of a burst that are inflated before they are handed to the store.
pub const INFLATED_MESSAGES_MAX: usize = 8;

/// Messages a second of a re-drive that does not say how many.
pub const REDRIVE_MESSAGES_PER_S: u32 = 1_000;
/// Re-drives that wait or run.
pub const REDRIVE_JOBS_MAX: u64 = 100;
/// What the flight recorder and dry runs show of what a script made.
pub const MADE_BYTES_MAX: usize = 64 << 10;
/// Entries that one selection names by their ids.
pub const SELECTION_IDS_MAX: usize = 1_000;

/// Streams of live figures to browsers, in all …
pub const LIVE_STREAMS_MAX: usize = 200;
/// … and of one user or token.
pub const LIVE_STREAMS_PER_CALLER_MAX: usize = 20;
/// Buckets of a series that is reduced for a chart; each has four values at most.
pub const EXTREMES_BUCKETS_MAX: usize = 5_000;
/// Series, a device's point each, in one such answer.
pub const EXTREMES_SERIES_MAX: usize = 100;

/// Answers from history that are made or wait to be, in all: the threads for them and what waits …
pub const READS_MAX: usize = 72;
/// … and of one user or token.
pub const READS_PER_CALLER_MAX: usize = 16;
/// Windows of one device in an answer: fills make a row of each.
pub const AGGREGATE_WINDOWS_MAX: i64 = 10_000_000;
/// Gaps that one row of a coverage lists; all are counted.
pub const COVERAGE_GAPS_MAX: usize = 1_000;
/// Results that wait for the value that ends their gap, where gaps are filled with lines.
pub const AGGREGATE_WAITING_MAX: usize = 2_000_000;
/// Different values in one window whose durations are asked for, or of one point of the vendor's `di/duration`.
pub const AGGREGATE_STATES_MAX: usize = 1_000;

/// Rows of a prepared statement that a PostgreSQL client takes without a fetch size: they are in memory
/// together.
pub const SQL_ROWS_AT_ONCE_MAX: usize = 1_000_000;
/// Cursors that are open on one connection of a PostgreSQL client.
pub const SQL_CURSORS_MAX: usize = 8;
/// Settings of names of their own that one connection of a PostgreSQL client keeps.
pub const SQL_SETTINGS_MAX: usize = 100;
/// After so long a cursor that nobody fetches from is closed.
pub const SQL_CURSOR_IDLE_S: u64 = 600;

/// Caps of SQL, of all doors together.
#[derive(Debug, Clone)]
pub struct Sql {
    /// Threads that queries run on.
    pub threads: usize,
    /// Queries under way, in all …
    pub queries_max: usize,
    /// … and of one user or token.
    pub queries_per_caller_max: usize,
    /// What all of them hold in memory, beyond the batches on their way; more goes to disk.
    pub memory_bytes_max: usize,
    /// What they hold on disk.
    pub spill_bytes_max: u64,
    /// A query that takes longer ends.
    pub query_s: u64,
    /// Tables that are read at one time: each has a thread.
    pub scans_max: usize,
    /// The text of a statement.
    pub statement_bytes_max: usize,
    /// Connections of PostgreSQL's clients.
    pub connections_max: usize,
}

impl Default for Sql {
    fn default() -> Self {
        Self {
            threads: 2,
            queries_max: 16,
            queries_per_caller_max: 8,
            memory_bytes_max: 256 << 20,
            spill_bytes_max: 4 << 30,
            query_s: 300,
            scans_max: 64,
            statement_bytes_max: 1 << 20,
            connections_max: 100,
        }
    }
}

/// Caps of the HTTP door. Long answers end by themselves: a client that takes nothing is given up.
#[derive(Debug, Clone, Copy)]
pub struct Http {
    /// Connections at one time, without those that became WebSockets.
    pub connections_max: usize,
    /// The head of a request, from when the connection waits for one: idle ones end too.
    pub header_s: u64,
    /// From one piece of a request's body to the next.
    pub body_s: u64,
    /// A clean end: how long requests under way may take.
    pub drain_s: u64,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            connections_max: 1_000,
            header_s: 30,
            body_s: 30,
            drain_s: 20,
        }
    }
}

/// Archives that are declared at one time.
pub const ARCHIVES_MAX: usize = 64;
/// The longest time from run to run of an archive: a year.
pub const ARCHIVE_EVERY_MINUTES_MAX: u32 = 527_040;
/// Files of one archive; the manifest lists them all.
pub const ARCHIVE_FILES_MAX: u64 = 1_000_000;
/// The path below the place of archives.
pub const ARCHIVE_PATH_BYTES_MAX: usize = 512;
/// The secret of an archive.
pub const ARCHIVE_SECRET_BYTES_MAX: usize = 4 << 10;
/// Files that a dry run of an archive names; all are counted.
pub const ARCHIVE_PLANNED_SHOWN_MAX: usize = 1_000;
/// Bytes of an object that are sent to S3 at once.
pub const ARCHIVE_PART_BYTES: usize = 8 << 20;
/// Bytes of log records that are looked through at once for what archives have to write.
pub const ARCHIVE_STRIDE_BYTES: usize = 4 << 20;

/// A row of a file that is imported: a line of NDJSON, a record of CSV.
pub const FILE_ROW_BYTES_MAX: u64 = 4 << 20;
/// Columns of a file that is imported.
pub const FILE_COLUMNS_MAX: usize = 10_000;
/// A file that is uploaded, as it comes.
pub const IMPORT_BYTES_MAX: u64 = 64 << 30;
/// A Parquet file that is uploaded: it is kept on disk while it is read.
pub const IMPORT_PARQUET_BYTES_MAX: u64 = 4 << 30;
/// Free disk below which no file is kept while it is read.
pub const IMPORT_SPOOL_RESERVE_BYTES: u64 = 2 << 30;
/// Imports that run at one time.
pub const IMPORTS_MAX: usize = 8;
/// Rows of an import in one message.
pub const IMPORT_MESSAGE_ROWS_MAX: usize = 500;
/// Messages of an import that are committed together.
pub const IMPORT_BURST_MESSAGES_MAX: usize = 8;
/// Pieces of an uploaded file that wait to be read.
pub const IMPORT_PIECES_WAITING_MAX: usize = 8;
/// What is read past of a file that is not imported to its end, so that its client reads why.
pub const IMPORT_READ_PAST_BYTES_MAX: usize = 1 << 30;
/// Imports that have ended and are still listed.
pub const IMPORTS_KEPT_MAX: u32 = 1_000;

/// How far the timestamp of an application's request may be from our clock, and for how long a request
/// that changes something is remembered, so that it is taken once.
pub const APPLICATION_WINDOW_S: i64 = 15 * 60;
/// Requests remembered; beyond, those that change something are refused until some have passed.
pub const APPLICATION_REPLAYS_REMEMBERED_MAX: usize = 100_000;
/// How long a token of an application holds.
pub const APPLICATION_TOKEN_S: i64 = 7_200;
/// Requests of one access key at once …
pub const APPLICATION_REQUESTS_BURST: u32 = 500;
/// … and one more after so long: 100 a second in the long run.
pub const APPLICATION_REQUEST_REFILL_MS: u64 = 10;
/// Failed requests in a row from one address before they are throttled.
pub const APPLICATION_FAILURES_BURST: u32 = 20;
/// One more failed request is allowed after so long.
pub const APPLICATION_FAILURE_REFILL_S: u64 = 6;
/// Access keys, and addresses, remembered for both.
pub const APPLICATION_TRACKED_MAX: usize = 10_000;

/// A body of the vendor-compatible API.
pub const VENDOR_BODY_BYTES_MAX: usize = 4 << 20;
/// Parts of a multipart body.
pub const VENDOR_PARTS_MAX: usize = 32;
/// Assets times points of a query (the vendor's limit).
pub const VENDOR_SERIES_MAX: usize = 3_000;
/// Assets times points times page size of a query, and records that a scan of durations looks at (the
/// vendor's limit).
pub const VENDOR_RECORDS_MAX: usize = 640_000;
/// Readings that an answer holds to tell them in another order than they are read in …
pub const VENDOR_HELD_READINGS_MAX: usize = 1 << 16;
/// … and after how many bytes of texts it holds no more.
pub const VENDOR_HELD_BYTES_MAX: usize = 4 << 20;
/// Assets times points of a query of durations (the vendor's limit).
pub const VENDOR_DURATION_SERIES_MAX: usize = 10;
/// Devices of one `batchCreate`.
pub const VENDOR_BATCH_DEVICES_MAX: usize = 1_000;
/// Objects in a page of a search.
pub const VENDOR_PAGE_MAX: usize = 1_000;
/// How deep a lenient message nests.
pub const VENDOR_JSON_DEPTH_MAX: usize = 32;

/// Partitions of a topic that is made in Kafka.
pub const KAFKA_PARTITIONS_MAX: u16 = 1_000;
/// A record, or a batch of them: what a broker takes in one request is 100 MB unless configured.
pub const KAFKA_MESSAGE_BYTES_MAX: u32 = 64 << 20;
/// Records of one producer that wait to be delivered, whatever their size.
pub const KAFKA_WAITING_RECORDS_MAX: u32 = 100_000;
/// The same in KiB.
pub const KAFKA_WAITING_KIB_MAX: u32 = 64 << 10;

/// Partitions that groups of one subscription on Kafka read at one time, each with a connection.
pub const KAFKA_READERS_MAX: usize = 64;

/// Subscriptions that are declared at one time: each follows the log on a thread of its own.
pub const SUBSCRIPTIONS_MAX: usize = 64;
/// Partitions of a subscription.
pub const PARTITIONS_MAX: u16 = 64;
/// How long a subscription may keep messages: a year.
pub const RETENTION_HOURS_MAX: u32 = 8_760;

/// Policies that are declared at one time.
pub const POLICIES_MAX: usize = 256;
/// Steps of one policy.
pub const POLICY_STEPS_MAX: usize = 100;
/// Points that one step names.
pub const POLICY_POINTS_MAX: usize = 1_000;
/// Steps with a script that act on what comes by one channel: a message waits for each in turn.
pub const POLICY_SCRIPTS_MAX: usize = 8;
/// Days that a storage policy may keep values: a hundred years.
pub const KEEP_DAYS_MAX: u32 = 36_500;
/// Storage rules of one policy.
pub const STORAGE_RULES_MAX: usize = 100;
/// How long nothing of a day may have to arrive before it is thinned to its changes, at least and at
/// most, milliseconds: a minute, and a year.
pub const CHANGES_QUIET_MS_MIN: i64 = 60_000;
pub const CHANGES_QUIET_MS_MAX: i64 = 366 * 24 * 3_600_000;
/// Devices whose values that would go a preview lists by point; further ones are counted.
pub const PREVIEW_DEVICES_MAX: usize = 200;
/// Rollups and reductions of one policy …
pub const POLICY_DERIVED_MAX: usize = 32;
/// … and of all of them.
pub const DERIVED_MAX: usize = 256;
/// The shortest and the longest window of a rollup, milliseconds: a minute, and about a month.
pub const ROLLUP_MS_MIN: i64 = 60_000;
pub const ROLLUP_MS_MAX: i64 = 31 * 24 * 3_600_000;
/// After so long at most a reduction begins anew: a day.
pub const RESTART_MS_MAX: i64 = 24 * 3_600_000;
/// How far a value may hold, or be looked for, in a rollup: a year.
pub const ROLLUP_REACH_MS_MAX: i64 = 366 * 24 * 3_600_000;
/// How long a window may be left alone after a value: a day.
pub const ANALYSIS_WAIT_MS_MAX: i64 = 24 * 3_600_000;
/// Spans of windows of one device that wait to be computed; beyond, neighbours become one.
pub const DIRTY_SPANS_MAX: usize = 128;
/// The same of all devices: beyond, a device has one.
pub const DIRTY_SPANS_ALL_MAX: usize = 500_000;
/// Cells of rows that one step of upkeep computes, roughly: 16 MiB of numbers.
pub const DERIVED_STEP_CELLS: usize = 2_000_000;
/// Entries of the change feed that are kept.
pub const CHANGES_KEPT_MAX: u64 = 1_000_000;
/// Entries of the change feed in a page.
pub const CHANGES_PAGE_MAX: usize = 10_000;
/// Points that a preview of a change shows.
pub const PREVIEW_POINTS_MAX: usize = 1_000;
/// Changes of policies, each kept for ever: values name the revision that processed them.
pub const POLICY_REVISIONS_MAX: u32 = 100_000;

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
    /// Connects at once, from one address and to one channel, before they are throttled.
    pub connects_burst: u32,
    /// One more is allowed after so long.
    pub connect_refill_ms: u64,
    /// Failed logins in a row, from one address or with one client id, before they are throttled.
    pub failed_logins_burst: u32,
    /// One more failed login is allowed after so long.
    pub failed_login_refill_s: u64,
    /// Addresses, client ids and channels remembered for throttling, each by itself.
    pub throttle_tracked_max: usize,

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
            connects_burst: 1_000,
            connect_refill_ms: 20,
            throttle_tracked_max: 10_000,
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

/// Caps of data parsing scripts. Time is CPU time of the worker process.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Scripts {
    /// Worker processes; none runs before there is a script.
    pub workers: usize,
    /// The worker stops a call itself after so long …
    pub cpu_soft_ms: u64,
    /// … and is killed after so long: what the engine never polls for is stopped all the same.
    pub cpu_hard_ms: u64,
    /// Of one script: its source, state and what a call makes.
    pub heap_bytes_max: usize,
    pub stack_bytes_max: usize,
    /// Values in a decoded text, containers included.
    pub output_nodes_max: usize,
    pub output_depth_max: usize,
    /// A decoded text, or the bytes of a reply.
    pub output_bytes_max: usize,
    /// What is kept of a call's console output.
    pub console_bytes_max: usize,
    /// Scripts that a worker holds ready; the one not used for longest goes first.
    pub loaded_max: usize,
    /// Address space of a worker process.
    pub address_space_bytes_max: u64,
}

/// A script's source.
pub const SCRIPT_SOURCE_BYTES_MAX: usize = 256 << 10;
/// Calls of one script that wait for a worker. Further ones wait at the door.
pub const SCRIPT_CALLS_WAITING_MAX: usize = 1_024;
/// Calls handed to a worker at once, of one script: others then have their turn.
pub const SCRIPT_SLICE_CALLS: usize = 64;
/// The same in bytes; a single call may have more.
pub const SCRIPT_SLICE_BYTES: usize = 1 << 20;
/// Rows that a script of a policy is given in one call …
pub const SCRIPT_ROWS: usize = 64;
/// … and bytes of their text; a single row may have more.
pub const SCRIPT_ROWS_BYTES: usize = 64 << 10;
/// A script of a policy is compiled where it has no more text than this …
pub const SCRIPT_PLAIN_SOURCE_BYTES_MAX: usize = 8 << 10;
/// … no more expressions and statements, each function counted at each of its calls …
pub const SCRIPT_PLAIN_NODES_MAX: u32 = 2_000;
/// … and nothing nested deeper.
pub const SCRIPT_PLAIN_DEPTH_MAX: u32 = 64;
/// What its loops may take for a row, in expressions and statements: beyond it an engine is asked, which
/// has a clock.
pub const SCRIPT_PLAIN_STEPS_MAX: u32 = 10_000;
/// Characters of a script's error that are kept.
pub const SCRIPT_MESSAGE_CHARS_MAX: usize = 512;
/// A worker that neither answers nor uses its CPU for so long is replaced.
pub const SCRIPT_STALLED_S: u64 = 60;
/// The breaker looks back so far …
pub const SCRIPT_BREAKER_WINDOW_S: u64 = 10;
/// … pauses a script after so many killed workers …
pub const SCRIPT_BREAKER_KILLS: usize = 5;
/// … or when the calls that ran into a limit took so much of all workers' time …
pub const SCRIPT_BREAKER_CPU_PERCENT: u64 = 25;
/// … for so long.
pub const SCRIPT_PAUSE_S: u64 = 30;
/// Versions of one script that are kept.
pub const SCRIPT_VERSIONS_MAX: usize = 1_000;
/// Golden tests of one script.
pub const SCRIPT_GOLDEN_MAX: usize = 200;
/// Sample payloads that are kept with one script …
pub const SCRIPT_SAMPLES_MAX: usize = 200;
/// … what they come to as text, all together …
pub const SCRIPT_SAMPLES_BYTES_MAX: usize = 4 << 20;
/// … and the length of a sample's name and description.
pub const SCRIPT_SAMPLE_NAME_CHARS_MAX: usize = 100;
pub const SCRIPT_SAMPLE_DESCRIPTION_CHARS_MAX: usize = 1_000;

/// How often the size of the data directory is measured …
pub const GROWTH_SAMPLE_S: u64 = 300;
/// … how far back measurements count …
pub const GROWTH_WINDOW_S: u64 = 3 * 86_400;
/// … and how long they must reach back before they say anything.
pub const GROWTH_KNOWN_S: u64 = 3_600;
/// A disk that is full sooner than this is warned of.
pub const GROWTH_WARN_DAYS: f64 = 7.0;
/// Further off than this is as good as never.
pub const GROWTH_DAYS_MAX: f64 = 3_650.0;

impl Default for Scripts {
    fn default() -> Self {
        Self {
            workers: 2,
            cpu_soft_ms: 20,
            cpu_hard_ms: 100,
            heap_bytes_max: 8 << 20,
            stack_bytes_max: 256 << 10,
            output_nodes_max: 10_000,
            output_depth_max: 32,
            output_bytes_max: PAYLOAD_BYTES_MAX,
            console_bytes_max: 4 << 10,
            loaded_max: 64,
            address_space_bytes_max: 1 << 30,
        }
    }
}

/// Rules that are declared at one time: each follows the log on a thread of its own.
pub const RULES_MAX: usize = 64;
/// Steps that a rule makes a row with.
pub const RULE_STEPS_MAX: usize = 32;
/// Headers that a rule adds of its own.
pub const RULE_HEADERS_MAX: usize = 32;
/// Messages that one row becomes by a rule's script.
pub const RULE_MESSAGES_PER_ROW_MAX: usize = 100;
/// An expression of a rule or a policy.
pub const EXPRESSION_BYTES_MAX: usize = 4 << 10;
/// The secret of a rule.
pub const RULE_SECRET_BYTES_MAX: usize = 4 << 10;
/// Records in one request of a webhook.
pub const WEBHOOK_RECORDS_MAX: usize = 10_000;
/// Bytes of the records in one request of a webhook; one record may be larger.
pub const WEBHOOK_BYTES_MAX: usize = 1 << 20;
/// How long a webhook may take.
pub const WEBHOOK_TIMEOUT_S_MAX: u64 = 300;
/// What is read of a webhook's answer: it is quoted where it refuses.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 64 << 10;
/// Rows, messages or records that one test of a rule shows.
pub const RULE_TEST_ROWS_MAX: usize = 1_000;

/// Caps of rules.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Bytes of log records that are looked through at once.
    pub stride_bytes: usize,
    /// Records that are delivered at once, and their bytes; the rows of one commit stay together.
    pub records_max: usize,
    pub bytes_max: usize,
    /// How late the place of a rule reaches the disk: after a crash so much is delivered again.
    pub save_ms: u64,
    /// The first pause after a failed delivery; it doubles up to the second.
    pub pause_ms: u64,
    pub pause_ms_max: u64,
    /// Disk that the dead letters of one rule take. Beyond, the oldest go.
    pub dead_letter_bytes_max: u64,
    pub dead_letter_age_days_max: u32,
    /// Dead letters that are driven again at once.
    pub redrive_batch: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            stride_bytes: 1 << 20,
            records_max: 10_000,
            bytes_max: 8 << 20,
            save_ms: 200,
            pause_ms: 200,
            pause_ms_max: 30_000,
            dead_letter_bytes_max: 256 << 20,
            dead_letter_age_days_max: 30,
            redrive_batch: 500,
        }
    }
}
