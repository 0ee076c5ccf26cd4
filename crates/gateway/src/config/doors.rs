//! The doors: MQTT, MQTT over TLS, HTTP, subscriptions.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    ConfigError,
    check::{at_least, check_url, require},
};
use crate::{limits, tls};

/// The MQTT door. What is `None` is the door's own limit.
#[derive(Debug, Clone)]
pub struct Mqtt {
    pub listen: SocketAddr,
    /// What `channel show` prints as the broker's address; the bound address unless given.
    pub advertised_url: Option<String>,
    pub connections_max: Option<usize>,
    pub connections_per_channel_max: Option<usize>,
    pub connections_per_address_max: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawMqtt {
    pub(super) listen: SocketAddr,
    advertised_url: Option<String>,
    connections_max: Option<usize>,
    connections_per_channel_max: Option<usize>,
    connections_per_address_max: Option<usize>,
}

impl Default for RawMqtt {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 11883).into(),
            advertised_url: None,
            connections_max: None,
            connections_per_channel_max: None,
            connections_per_address_max: None,
        }
    }
}

impl RawMqtt {
    pub(super) fn check(self) -> Result<Mqtt, ConfigError> {
        check_url("mqtt.advertised_url", self.advertised_url.as_deref())?;
        let (all, per_channel) = (self.connections_max, self.connections_per_channel_max);
        let per_address = self.connections_per_address_max;
        at_least("mqtt.connections_max", all, 1)?;
        at_least("mqtt.connections_per_channel_max", per_channel, 1)?;
        at_least("mqtt.connections_per_address_max", per_address, 1)?;
        Ok(Mqtt {
            listen: self.listen,
            advertised_url: self.advertised_url,
            connections_max: all,
            connections_per_channel_max: per_channel,
            connections_per_address_max: per_address,
        })
    }
}

/// The MQTT door over TLS.
#[derive(Debug, Clone)]
pub struct Mqtts {
    pub listen: SocketAddr,
    pub files: tls::Files,
    /// What `channel show` prints as its address; the bound address unless given.
    pub advertised_url: Option<String>,
}

/// On when a certificate is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawMqtts {
    pub(super) listen: SocketAddr,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    advertised_url: Option<String>,
}

impl Default for RawMqtts {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 18883).into(),
            certificate: None,
            key: None,
            client_ca: None,
            advertised_url: None,
        }
    }
}

impl RawMqtts {
    /// Only whether the files are named: what is in them is looked at when they are read.
    pub(super) fn check(self) -> Result<Option<Mqtts>, ConfigError> {
        check_url("mqtts.advertised_url", self.advertised_url.as_deref())?;
        let (certificate, key) = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => {
                require("mqtts.client_ca", self.client_ca.is_none(), || {
                    "needs mqtts.certificate and mqtts.key: without them TLS is off".into()
                })?;
                return Ok(None);
            }
            (certificate, _) => {
                let key = match certificate {
                    Some(_) => "mqtts.key",
                    None => "mqtts.certificate",
                };
                let reason = "is missing: a certificate and its key go together".into();
                return Err(ConfigError::Value { key, reason });
            }
        };
        Ok(Some(Mqtts {
            listen: self.listen,
            files: tls::Files {
                certificate,
                key,
                client_ca: self.client_ca,
            },
            advertised_url: self.advertised_url,
        }))
    }
}

/// The HTTP door.
#[derive(Debug, Clone)]
pub struct Http {
    pub listen: SocketAddr,
    /// Threads for requests that block.
    pub threads: usize,
    /// Requests that wait for one.
    pub waiting_max: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHttp {
    pub(super) listen: SocketAddr,
    threads: usize,
    waiting_max: usize,
}

impl Default for RawHttp {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8080).into(),
            threads: 4,
            waiting_max: 64,
        }
    }
}

impl RawHttp {
    pub(super) fn check(&self) -> Result<Http, ConfigError> {
        at_least("http.threads", Some(self.threads), 1)?;
        at_least("http.waiting_max", Some(self.waiting_max), 1)?;
        Ok(Http {
            listen: self.listen,
            threads: self.threads,
            waiting_max: self.waiting_max,
        })
    }
}

/// The subscription door, and what subscriptions keep. What is `None` is the door's own limit.
#[derive(Debug, Clone)]
pub struct Subscribe {
    pub listen: SocketAddr,
    pub connections_max: Option<usize>,
    pub connections_per_address_max: Option<usize>,
    /// Disk that one subscription takes.
    pub bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSubscribe {
    pub(super) listen: SocketAddr,
    connections_max: Option<usize>,
    connections_per_address_max: Option<usize>,
    bytes_max: u64,
}

impl Default for RawSubscribe {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 9001).into(),
            connections_max: None,
            connections_per_address_max: None,
            bytes_max: limits::Topics::default().bytes_max,
        }
    }
}

impl RawSubscribe {
    pub(super) fn check(self) -> Result<Subscribe, ConfigError> {
        let (all, per_address) = (self.connections_max, self.connections_per_address_max);
        at_least("subscribe.connections_max", all, 1)?;
        at_least("subscribe.connections_per_address_max", per_address, 1)?;
        at_least("subscribe.bytes_max", Some(self.bytes_max), 1 << 20)?;
        Ok(Subscribe {
            listen: self.listen,
            connections_max: all,
            connections_per_address_max: per_address,
            bytes_max: self.bytes_max,
        })
    }
}
