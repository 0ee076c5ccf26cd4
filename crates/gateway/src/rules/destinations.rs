//! The destinations that there are.

use std::sync::Arc;

use super::Destinations;
use crate::{
    clock::Clock,
    kafka::Cluster,
    registry::{self, Destination, Registry, Rule},
    sink::{Sink, calculated::Calculated, kafka::Guarantee, webhook, webhook::Webhook},
    store::Way,
};

const NO_KAFKA: &str = "no Kafka cluster is configured; set kafka.bootstrap_servers in the \
                        gateway's configuration and restart it";

/// Makes the sinks of this gateway.
pub struct OfGateway {
    pub registry: Arc<Registry>,
    pub way: Arc<Way>,
    pub clock: Clock,
    /// The cluster that is configured, if one is.
    pub kafka: Option<Cluster>,
}

impl OfGateway {
    fn cluster(&self) -> Result<&Cluster, String> {
        self.kafka.as_ref().ok_or_else(|| NO_KAFKA.to_owned())
    }
}

impl Destinations for OfGateway {
    fn sink(&self, rule: &Rule) -> Result<Arc<dyn Sink>, String> {
        match &rule.file.to {
            Destination::Kafka(kafka) => {
                let guarantee = match kafka.guarantee {
                    registry::Guarantee::AtLeastOnce => Guarantee::AtLeastOnce,
                    registry::Guarantee::ExactlyOnce => Guarantee::ExactlyOnce,
                };
                Ok(self.cluster()?.sink(&rule.uid, guarantee))
            }
            Destination::Webhook(webhook) => {
                Ok(Arc::new(Webhook::new(webhook, rule.secret.as_ref())?))
            }
            Destination::Calculated(calculated) => Ok(Arc::new(Calculated {
                rule: rule.name.clone(),
                points: calculated.points.clone(),
                registry: Arc::clone(&self.registry),
                way: Arc::clone(&self.way),
                clock: self.clock.clone(),
            })),
        }
    }

    fn check(&self, rule: &Rule) -> Result<(), String> {
        match &rule.file.to {
            Destination::Kafka(_) => self.cluster().map(drop),
            Destination::Webhook(file) if webhook::needs_secret(file) && rule.secret.is_none() => {
                Err("its headers name ${secret} and it has none; set it with `backtide rule secret`"
                    .to_owned())
            }
            Destination::Webhook(_) | Destination::Calculated(_) => Ok(()),
        }
    }
}
