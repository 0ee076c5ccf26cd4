//! `backtide kafka check`: says in plain words what is wrong with an address, a certificate, a
//! credential or a topic. Writes nothing that a reader of a topic could see.

mod probe;
mod topic;

use std::{
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    metadata::Metadata,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Cluster, Told, explain};

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It works, and somebody should know.
    Warning,
    /// It does not work.
    Wrong,
}

impl Verdict {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub verdict: Verdict,
    /// Such as `address localhost:9092` or `topic MEASURE_POINT_ORIGIN_OFFLINE_o1`.
    pub subject: String,
    /// What is so, and what to do about it.
    pub message: String,
}

/// Everything that was looked at, in the order of looking. What cannot be known because of what is
/// wrong before it is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Report {
    /// Nothing is wrong.
    pub ok: bool,
    pub findings: Vec<Finding>,
}

impl Report {
    fn of(findings: Vec<Finding>) -> Self {
        let ok = findings.iter().all(|f| f.verdict != Verdict::Wrong);
        Self { ok, findings }
    }
}

/// Notes what is found.
#[derive(Debug, Default)]
struct Notes(Vec<Finding>);

impl Notes {
    fn note(&mut self, verdict: Verdict, subject: &str, message: impl Into<String>) {
        self.0.push(Finding {
            verdict,
            subject: subject.to_owned(),
            message: message.into(),
        });
    }
}

impl Cluster {
    /// Looks at the cluster and at these topics. Blocks, for a few seconds where much is wrong.
    pub fn check(&self, topics: &[String]) -> Report {
        let mut notes = Notes::default();
        let reaches_some = self.check_servers(&mut notes);
        if !reaches_some {
            return Report::of(notes.0);
        }
        let told = Told::default();
        let consumer = match self.client().create_with_context(told.clone()) {
            Ok(consumer) => consumer,
            Err(error) => {
                notes.note(Verdict::Wrong, "settings", explain(&error.to_string()));
                return Report::of(notes.0);
            }
        };
        let Some(metadata) = self.check_login(&consumer, &told, &mut notes) else {
            return Report::of(notes.0);
        };
        self.check_advertised(&metadata, &mut notes);
        for name in topics {
            topic::check(self, &consumer, name, metadata.brokers().len(), &mut notes);
        }
        topic::check_transactions(self, &mut notes);
        Report::of(notes.0)
    }

    /// Every address that is configured, by itself. True where Kafka is met at one of them.
    fn check_servers(&self, notes: &mut Notes) -> bool {
        let servers: Vec<&str> = self.settings().bootstrap_servers.split(',').collect();
        let mut met = Vec::new();
        for server in servers.iter().map(|server| server.trim()) {
            let subject = format!("address {server}");
            match self.meet(server) {
                Ok(message) => {
                    notes.note(Verdict::Ok, &subject, message);
                    met.push(server);
                }
                Err(message) => notes.note(Verdict::Wrong, &subject, message),
            }
        }
        if !met.is_empty() {
            // One is enough to begin with.
            for finding in &mut notes.0 {
                if finding.verdict == Verdict::Wrong {
                    finding.verdict = Verdict::Warning;
                }
            }
        }
        !met.is_empty()
    }

    fn meet(&self, server: &str) -> Result<String, String> {
        let patience = Duration::from_millis(self.settings().connect_timeout_ms.into());
        let (host, _) = server.rsplit_once(':').unwrap_or((server, ""));
        let stream = connect(server, patience)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match &self.settings().tls {
            None => probe::plain(stream, patience),
            Some(tls) => probe::tls(stream, host, tls, patience),
        }
    }

    /// Logs in, and asks who is in the cluster.
    fn check_login(
        &self,
        consumer: &BaseConsumer<Told>,
        told: &Told,
        notes: &mut Notes,
    ) -> Option<Metadata> {
        let subject = match &self.settings().sasl {
            Some(sasl) => format!("user {}", sasl.username),
            None => "cluster".to_owned(),
        };
        let patience = Duration::from_millis(self.settings().connect_timeout_ms.into());
        let deadline = Instant::now() + patience;
        loop {
            match consumer.fetch_metadata(Some("BACKTIDE_CHECK"), LOOK_EVERY * 10) {
                Ok(metadata) => {
                    let brokers = metadata.brokers().len();
                    let message = format!("taken; the cluster has {brokers} brokers");
                    notes.note(Verdict::Ok, &subject, message);
                    return Some(metadata);
                }
                Err(error) => {
                    // Complaints come by the queue.
                    drop(consumer.poll(LOOK_EVERY));
                    let said = told.last();
                    let is_refused = said.as_deref().is_some_and(probe::is_refusal);
                    if is_refused || Instant::now() >= deadline {
                        let said = said.unwrap_or_else(|| plain_words(&error));
                        notes.note(Verdict::Wrong, &subject, explain(&said));
                        return None;
                    }
                }
            }
        }
    }

    /// Clients are sent on to the addresses that the brokers give for themselves.
    fn check_advertised(&self, metadata: &Metadata, notes: &mut Notes) {
        let patience = Duration::from_millis(self.settings().connect_timeout_ms.into());
        for broker in metadata.brokers() {
            let address = format!("{}:{}", broker.host(), broker.port());
            let subject = format!("broker {} at {address}", broker.id());
            match connect(&address, patience) {
                Ok(_) => notes.note(Verdict::Ok, &subject, "can be reached"),
                Err(message) => notes.note(
                    Verdict::Wrong,
                    &subject,
                    format!(
                        "{message} (this is what the broker advertises: see its \
                             advertised.listeners)"
                    ),
                ),
            }
        }
    }
}

fn plain_words(error: &KafkaError) -> String {
    let code = error.rdkafka_error_code();
    code.map_or_else(|| error.to_string(), super::of_code)
}

fn connect(server: &str, patience: Duration) -> Result<TcpStream, String> {
    let addresses: Vec<SocketAddr> = server
        .to_socket_addrs()
        .map_err(|_| "the host name does not resolve; check its spelling and the DNS".to_owned())?
        .collect();
    let mut why = "the host name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                why = format!(
                    "connection refused by {address}: nothing listens there; check the port, and \
                     whether Kafka runs"
                );
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                why = format!(
                    "no answer from {address}: check the address, and whether a firewall drops it"
                );
            }
            Err(error) => why = format!("{address} cannot be reached: {error}"),
        }
    }
    Err(why)
}
