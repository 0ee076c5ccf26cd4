//! A subscription on Kafka: its messages lie in a topic of its own, its offsets in consumer groups
//! that Kafka's own tools show.
//!
//! ```text
//! log ─▶ publisher: filter, message text ─▶ Kafka topic ─▶ fetcher ─▶ topic: groups ─▶ members
//!                                                 ▲ committed offsets ──────┘
//! ```
//!
//! One gateway reads for all members of its groups and shares the partitions out among them: a
//! session that waits costs no connection to Kafka. A small file beside the others holds how far the
//! log is looked through and a copy of the offsets; where Kafka knows a group, its offsets win.

mod desk;
mod fetcher;
mod publisher;

use std::path::{Path, PathBuf};

use backtide_model::ObjectName;

pub(super) use desk::delete;
pub(super) use fetcher::Fetcher;
pub(super) use publisher::Publisher;

use crate::{kafka::is_topic_name, registry::Subscription};

const ENDING: &str = "kafka";

/// The Kafka topic of a subscription: by its name where Kafka can spell it.
pub(super) fn topic_name(organization: &ObjectName, subscription: &Subscription) -> String {
    let readable = format!("SUBSCRIPTION_{organization}_{}", subscription.name);
    if is_topic_name(&readable) {
        readable
    } else {
        format!("SUBSCRIPTION_{}", subscription.uid)
    }
}

/// The consumer group of Kafka for a group of a subscription: groups are one space there.
fn group_id(topic: &str, group: &str) -> String {
    format!("{topic}.{group}")
}

/// The file of a subscription; it says which topic goes with it.
pub(super) fn path(dir: &Path, uid: &str, topic: &str) -> PathBuf {
    dir.join(format!("{uid}@{topic}.{ENDING}"))
}

/// Whose file that is: the subscription's uid and its topic.
pub(super) fn owner(path: &Path) -> Option<(String, String)> {
    let is_ours = path.extension().is_some_and(|ending| ending == ENDING);
    let (uid, topic) = path.file_stem()?.to_str()?.split_once('@')?;
    is_ours.then(|| (uid.to_owned(), topic.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_whose_it_is() {
        let file = path(Path::new("/d"), "0a-1", "SUBSCRIPTION_o1_a.b");
        let owner = owner(&file).unwrap();
        assert_eq!(owner, ("0a-1".into(), "SUBSCRIPTION_o1_a.b".into()));
        assert_eq!(super::owner(Path::new("/d/0a-1.db")), None);
    }
}
