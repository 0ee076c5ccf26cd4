//! The destinations that there are.

use std::sync::Arc;

use backtide_store::Store;

use super::Destinations;
use crate::{
    clock::Clock,
    registry::{Destination, Registry, Rule},
    sink::{Sink, calculated::Calculated, webhook, webhook::Webhook},
};

const NO_KAFKA: &str = "no Kafka cluster is configured; set kafka.brokers in the gateway's \
                        configuration and restart it";

/// Makes the sinks of this gateway.
pub struct OfGateway {
    pub registry: Arc<Registry>,
    pub store: Store,
    pub clock: Clock,
}

impl Destinations for OfGateway {
    fn sink(&self, rule: &Rule) -> Result<Arc<dyn Sink>, String> {
        match &rule.file.to {
            Destination::Kafka(_) => Err(NO_KAFKA.to_owned()),
            Destination::Webhook(webhook) => {
                Ok(Arc::new(Webhook::new(webhook, rule.secret.as_ref())?))
            }
            Destination::Calculated(calculated) => Ok(Arc::new(Calculated {
                rule: rule.name.clone(),
                points: calculated.points.clone(),
                registry: Arc::clone(&self.registry),
                store: self.store.clone(),
                clock: self.clock.clone(),
            })),
        }
    }

    fn check(&self, rule: &Rule) -> Result<(), String> {
        match &rule.file.to {
            Destination::Kafka(_) => Err(NO_KAFKA.to_owned()),
            Destination::Webhook(file) if webhook::needs_secret(file) && rule.secret.is_none() => {
                Err("its headers name ${secret} and it has none; set it with `backtide rule secret`"
                    .to_owned())
            }
            Destination::Webhook(_) | Destination::Calculated(_) => Ok(()),
        }
    }
}
