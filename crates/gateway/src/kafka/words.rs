//! What librdkafka and brokers say, in words that tell a person what to do.

use rdkafka::error::RDKafkaErrorCode as Code;

/// A complaint of librdkafka with what to do about it, where that is known.
pub(crate) fn explain(said: &str) -> String {
    match remedy(said) {
        Some(remedy) => format!("{}: {remedy}", said.trim_end_matches('.')),
        None => said.to_owned(),
    }
}

/// Ordered: the first that fits says most.
fn remedy(said: &str) -> Option<&'static str> {
    const REMEDIES: [(&str, &str); 16] = [
        (
            "Failed to resolve",
            "the name is not known; check the host in kafka.bootstrap_servers, and what the brokers \
             advertise",
        ),
        (
            "Connection refused",
            "nothing listens there; check the port in kafka.bootstrap_servers, and whether Kafka runs",
        ),
        (
            "connecting to a PLAINTEXT broker listener",
            "the listener speaks plain text; set kafka.tls.enabled = false or take the port of TLS",
        ),
        (
            "connecting to a SSL listener",
            "the listener may want TLS or SASL; see kafka.tls and kafka.sasl, and run `backtide \
             kafka check`",
        ),
        (
            "unable to get local issuer",
            "the broker's certificate is of an authority that is not known; name it in kafka.tls.ca",
        ),
        (
            "self-signed certificate",
            "the broker's certificate is of an authority that is not known; name it in kafka.tls.ca",
        ),
        (
            "certificate has expired",
            "the broker's certificate is past its date; renew it",
        ),
        (
            "hostname mismatch",
            "the broker's certificate is for another name; use the name it has, or make one with \
             this name",
        ),
        (
            "IP address mismatch",
            "the broker's certificate is for another address; use a name that it has",
        ),
        (
            "certificate required",
            "the broker wants a client's certificate; see kafka.tls.certificate and kafka.tls.key",
        ),
        (
            "bad certificate",
            "the broker does not take this client's certificate; see kafka.tls.certificate",
        ),
        (
            "authentication fail",
            "user or password is wrong; see kafka.sasl",
        ),
        (
            "Authentication failed",
            "user or password is wrong; see kafka.sasl",
        ),
        (
            "Invalid username or password",
            "user or password is wrong; see kafka.sasl",
        ),
        (
            "Unsupported SASL mechanism",
            "the broker has other mechanisms; see kafka.sasl.mechanism",
        ),
        (
            "timed out",
            "the broker does not answer; check the address, and whether a firewall drops it",
        ),
    ];
    REMEDIES
        .iter()
        .find(|(part, _)| said.contains(part))
        .map(|(_, remedy)| *remedy)
}

/// An error code of a broker in a person's words.
pub(crate) fn of_code(code: Code) -> String {
    match code {
        Code::TopicAuthorizationFailed => {
            "Kafka does not let this user write to the topic; grant it WRITE and DESCRIBE".into()
        }
        Code::ClusterAuthorizationFailed => {
            "Kafka does not let this user write idempotently or make topics; grant it \
             IDEMPOTENT_WRITE, and CREATE or make the topics yourself"
                .into()
        }
        Code::TransactionalIdAuthorizationFailed => {
            "Kafka does not let this user write in transactions; grant it WRITE and DESCRIBE on the \
             transactional id"
                .into()
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition => {
            "the topic does not exist, and could not be made".into()
        }
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => {
            "too few replicas of the topic are in sync; see its min.insync.replicas".into()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_says_what_to_do() {
        let said = "ssl://b:9093/bootstrap: SSL handshake failed: certificate verify failed: \
                    broker certificate could not be verified: self-signed certificate in chain.";
        assert!(explain(said).ends_with("name it in kafka.tls.ca"));
        assert!(explain("b:1/1: Connect to ipv4#1 failed: Connection refused").contains("runs"));
        assert_eq!(explain("something new"), "something new");
    }
}
