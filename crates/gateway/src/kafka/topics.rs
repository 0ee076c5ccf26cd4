//! Topics that are made where they are absent.

use futures::executor::block_on;
use rdkafka::{
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigEntry, NewTopic, ResourceSpecifier,
        TopicReplication,
    },
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{Cluster, Told, explain, words};

/// How a topic is made.
#[derive(Debug, Clone)]
pub(crate) struct TopicForm<'a> {
    pub(crate) partitions: u16,
    /// Settings of the topic as Kafka names them.
    pub(crate) settings: Vec<(&'a str, String)>,
}

/// What came of making a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    New,
    /// With what partitions and settings it has.
    WasThere,
    /// We may not; perhaps it is there.
    NotAllowed,
}

/// Why a topic is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TopicError {
    #[error("{0}")]
    Unavailable(String),
    #[error("topic {topic} cannot be made: {reason}")]
    Refused { topic: String, reason: String },
}

/// As brokers check it.
pub(crate) fn is_topic_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.chars().all(allowed)
}

impl Cluster {
    /// Makes a topic, or says that it is there. Blocks until Kafka answers, or for as long as an
    /// attempt may take.
    pub(crate) fn make_topic(&self, name: &str, form: &TopicForm<'_>) -> Result<Made, TopicError> {
        self.try_topic(name, form, false)
    }

    /// Whether it could be made; nothing is.
    pub(super) fn could_make(&self, name: &str, form: &TopicForm<'_>) -> Result<Made, TopicError> {
        self.try_topic(name, form, true)
    }

    /// Sets a setting of a topic, if it is another one.
    pub(crate) fn agree_topic(
        &self,
        name: &str,
        (key, value): &(&str, String),
    ) -> Result<(), TopicError> {
        let admin = self.admin()?;
        let options = self.options();
        let resource = ResourceSpecifier::Topic(name);
        let found = block_on(admin.describe_configs([&resource], &options)).map_err(unavailable)?;
        let Some(Ok(found)) = found.into_iter().next() else {
            // We may not look: then we may not change it either.
            tracing::debug!(topic = name, key, "a setting of a topic may not be read");
            return Ok(());
        };
        let has = |entry: &ConfigEntry| entry.value.as_ref() == Some(value);
        if found.get(key).is_some_and(has) {
            return Ok(());
        }
        let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(key, value);
        let changed = block_on(admin.alter_configs([&change], &options)).map_err(unavailable)?;
        match changed.into_iter().next() {
            Some(Err((_, code))) => Err(refused(name.to_owned(), code)),
            _ => Ok(()),
        }
    }

    /// Deletes a topic, and these groups.
    pub(crate) fn delete_topic(&self, name: &str, groups: &[String]) -> Result<(), TopicError> {
        let admin = self.admin()?;
        let options = self.options();
        let gone = block_on(admin.delete_topics(&[name], &options)).map_err(unavailable)?;
        match gone.into_iter().next() {
            Some(Err((
                _,
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
            )))
            | Some(Ok(_)) => {}
            Some(Err((topic, code))) => return Err(refused(topic, code)),
            None => {}
        }
        if groups.is_empty() {
            return Ok(());
        }
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let gone = block_on(admin.delete_groups(&groups, &options)).map_err(unavailable)?;
        for (group, code) in gone.into_iter().filter_map(Result::err) {
            tracing::warn!(group, %code, "a consumer group is left behind in Kafka");
        }
        Ok(())
    }

    fn admin(&self) -> Result<AdminClient<Told>, TopicError> {
        let admin = self.client().create_with_context(Told::default());
        admin.map_err(unavailable)
    }

    fn options(&self) -> AdminOptions {
        let patience = self.patience();
        AdminOptions::new()
            .request_timeout(Some(patience))
            .operation_timeout(Some(patience))
    }

    fn try_topic(
        &self,
        name: &str,
        form: &TopicForm<'_>,
        validate_only: bool,
    ) -> Result<Made, TopicError> {
        let admin = self.admin()?;
        let options = self.options().validate_only(validate_only);
        let replication = self.settings().replication.map_or(-1, i32::from);
        let topic = NewTopic {
            name,
            num_partitions: form.partitions.into(),
            replication: TopicReplication::Fixed(replication),
            config: form
                .settings
                .iter()
                .map(|(k, v)| (*k, v.as_str()))
                .collect(),
        };
        let made = block_on(admin.create_topics([&topic], &options));
        let made = made.map_err(unavailable)?;
        match made.into_iter().next() {
            Some(Ok(_)) => {
                if !validate_only {
                    tracing::info!(
                        topic = name,
                        partitions = form.partitions,
                        "a topic was made"
                    );
                }
                Ok(Made::New)
            }
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(Made::WasThere),
            Some(Err((
                _,
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed,
            ))) => Ok(Made::NotAllowed),
            Some(Err((topic, code))) => Err(refused(topic, code)),
            None => Err(TopicError::Unavailable("Kafka said nothing".into())),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err takes")]
fn unavailable(error: KafkaError) -> TopicError {
    TopicError::Unavailable(explain(&error.to_string()))
}

fn refused(topic: String, code: RDKafkaErrorCode) -> TopicError {
    let reason = match code {
        RDKafkaErrorCode::InvalidReplicationFactor => {
            "the cluster has fewer brokers than replicas are asked for; see kafka.replication"
                .into()
        }
        RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut => {
            return TopicError::Unavailable(explain("the making of a topic timed out"));
        }
        other => words::of_code(other),
    };
    TopicError::Refused { topic, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_brokers_do() {
        assert!(is_topic_name("MEASURE_POINT_ORIGIN_OFFLINE_o1"));
        for wrong in ["", ".", "..", "a b", "ä", &"x".repeat(250)] {
            assert!(!is_topic_name(wrong), "{wrong}");
        }
    }
}
