//! A stretch is delivered when Kafka has acknowledged every record of it.

use std::sync::{Arc, atomic::AtomicBool};

use super::{
    super::{Poison, SinkError, Stretch},
    Cluster,
    post::{Batches, Post, PostError},
};

pub(super) struct AtLeastOnce {
    cluster: Cluster,
    post: Option<Post>,
    given_up: Arc<AtomicBool>,
}

impl AtLeastOnce {
    pub(super) fn new(cluster: Cluster, given_up: Arc<AtomicBool>) -> Self {
        Self {
            cluster,
            post: None,
            given_up,
        }
    }

    pub(super) fn close(&mut self) {
        self.post = None;
    }

    pub(super) fn deliver(&mut self, stretch: &Stretch) -> Result<Vec<Poison>, SinkError> {
        if stretch.records.is_empty() {
            return Ok(Vec::new());
        }
        let outcome = self.send(Batches::Full, stretch);
        let refused = match outcome {
            Ok(refused) if refused.is_empty() => return Ok(refused),
            // Which of them are refused by themselves? Once more, each in a batch of its own: what
            // arrived before comes again, in the order of commit.
            Ok(_) => {
                self.post = None;
                let outcome = self.send(Batches::Single, stretch);
                self.post = None;
                outcome
            }
            Err(error) => Err(error),
        };
        refused.inspect_err(|_| self.post = None)
    }

    fn send(&mut self, batches: Batches, stretch: &Stretch) -> Result<Vec<Poison>, SinkError> {
        let post = match &mut self.post {
            Some(post) => post,
            None => {
                let post = Post::open(&self.cluster, batches, None, &self.given_up);
                self.post.insert(post.map_err(unavailable)?)
            }
        };
        let sent = post.send(stretch.records.iter().enumerate());
        Ok(sent.map_err(unavailable)?.refused)
    }
}

fn unavailable(error: PostError) -> SinkError {
    match error {
        PostError::Unavailable(reason) => SinkError::Unavailable(reason),
        PostError::Fenced => {
            SinkError::Unavailable("Kafka forgot the producer; it begins anew".into())
        }
    }
}
