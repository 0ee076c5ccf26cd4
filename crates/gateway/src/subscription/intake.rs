//! What a subscription takes next out of the committed log, wherever its messages go then.

use std::sync::Arc;

use backtide_model::ObjectName;
use backtide_store::{FollowError, FollowedSome, Store};

use super::{
    filter::{Draft, Filter},
    shelf::Place,
    topic::Topic,
};
use crate::registry::Registry;

pub(super) struct Intake {
    pub(super) topic: Arc<Topic>,
    /// Of the subscription: one of the same name that was declared anew has another.
    pub(super) uid: Box<str>,
    pub(super) store: Store,
    pub(super) registry: Arc<Registry>,
    pub(super) organization: ObjectName,
}

/// The messages of some commits, in order, and the place behind them.
pub(super) struct Taken {
    pub(super) drafts: Vec<Draft>,
    pub(super) place: Place,
}

impl Intake {
    /// What comes next; `None` at the end of the log, and where the subscription ends.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(super) fn next(&self) -> Result<Option<Taken>, FollowError> {
        let place = self.topic.place();
        let snapshot = self.registry.snapshot();
        let declared = snapshot.subscription(&self.topic.name);
        let Some(subscription) = declared.filter(|declared| declared.uid == self.uid) else {
            // It was deleted: the topic is about to end.
            return Ok(None);
        };
        if self.topic.bell.has_ended() {
            return Ok(None);
        }
        let filter = Filter::new(subscription, &snapshot, &self.organization);
        let stride = self.topic.limits.stride_bytes;
        match self
            .store
            .follow_wanted(place.reached, stride, filter.wanted())
        {
            Ok(followed) if followed.reached == place.reached => Ok(None),
            Ok(FollowedSome {
                commits, reached, ..
            }) => {
                let mut drafts = Vec::new();
                for followed in &commits {
                    filter.take(followed, |draft| drafts.push(draft));
                }
                let place = Place { reached, ..place };
                Ok(Some(Taken { drafts, place }))
            }
            Err(FollowError::Trimmed { oldest }) => Ok(Some(Taken {
                drafts: Vec::new(),
                place: place.skip_to(oldest, &self.topic.name),
            })),
            Err(error) => Err(error),
        }
    }
}
