//! The Kafka cluster that is configured: who it is met as, its topics, and plain words for what is
//! wrong with it.
//!
//! Nothing here connects by itself: a cluster that is away delays neither the start nor a reply.
//! librdkafka's calls block; whoever makes them has a thread for it.

pub mod check;
mod client;
mod topics;
mod words;

use std::{sync::Arc, time::Duration};

use backtide_model::ObjectName;
use rdkafka::ClientConfig;

pub(crate) use client::Told;
pub(crate) use topics::{Made, TopicError, TopicForm, is_topic_name};
pub(crate) use words::{explain, of_code};

use crate::config;

/// The cluster; clones are the same one.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: config::Kafka,
    organization: ObjectName,
    /// The store whose log is published: a cursor of another store says nothing about this one.
    store_id: u32,
}

impl Cluster {
    /// What is configured; nothing is connected to.
    pub fn new(settings: config::Kafka, organization: ObjectName, store_id: u32) -> Self {
        Self(Arc::new(Inner {
            settings,
            organization,
            store_id,
        }))
    }

    /// The topics that rules publish to unless they name others (`decisions.md` §6), and that of the
    /// change feed.
    pub fn default_topics(&self) -> Vec<String> {
        default_topics(&self.0.organization)
    }

    pub(crate) fn settings(&self) -> &config::Kafka {
        &self.0.settings
    }

    pub(crate) fn organization(&self) -> &ObjectName {
        &self.0.organization
    }

    pub(crate) fn store_id(&self) -> u32 {
        self.0.store_id
    }

    /// How long one attempt may take.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_millis(self.0.settings.delivery_timeout_ms.into())
    }

    /// What every client begins with.
    pub(crate) fn client(&self) -> ClientConfig {
        client::config(&self.0.settings)
    }

    /// A name of ours in the cluster, the same in every copy of the data directory.
    pub(crate) fn name(&self, what: &str) -> String {
        let Inner {
            settings,
            organization,
            ..
        } = &*self.0;
        format!("{}-{organization}-{what}", settings.transactional_id_prefix)
    }
}

fn default_topics(organization: &ObjectName) -> Vec<String> {
    let of_rules = [
        "MEASURE_POINT_ORIGIN_OFFLINE",
        "MEASURE_POINT_CAL_OFFLINE",
        "EVENT_ORIGIN_OFFLINE",
        "ATTRIBUTE_ORIGIN_OFFLINE",
    ];
    let mut topics: Vec<String> = of_rules
        .iter()
        .map(|topic| format!("{topic}_{organization}"))
        .collect();
    topics.push(changes_topic(organization));
    topics
}

/// The topic that the change feed of rollups and reductions is published to.
pub fn changes_topic(organization: &ObjectName) -> String {
    format!("HISTORY_CHANGE_OFFLINE_{organization}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_looks_at_every_topic_that_is_published_to_by_default() {
        let organization = ObjectName::new("o1").unwrap();
        let topics = default_topics(&organization);
        assert_eq!(
            topics,
            [
                "MEASURE_POINT_ORIGIN_OFFLINE_o1",
                "MEASURE_POINT_CAL_OFFLINE_o1",
                "EVENT_ORIGIN_OFFLINE_o1",
                "ATTRIBUTE_ORIGIN_OFFLINE_o1",
                "HISTORY_CHANGE_OFFLINE_o1",
            ]
        );
        assert!(topics.contains(&changes_topic(&organization)));
    }
}
