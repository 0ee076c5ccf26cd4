//! Who asks for what is done. Travels with a request, onto the threads of a [`crate::pool::Pool`]
//! too, so that a room deep inside can write down who changed something without every call between
//! naming them.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Serialize;

/// How somebody has shown who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// Nobody asked: the gateway does it by itself.
    Gateway,
    /// The text of `admin.token`.
    AdminToken,
    /// An API token.
    Token,
    /// A user who has signed in.
    Session,
    /// An application with its access key.
    AccessKey,
}

impl Via {
    /// The word for it in the API and in the audit trail.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::AdminToken => "admin-token",
            Self::Token => "token",
            Self::Session => "session",
            Self::AccessKey => "access-key",
        }
    }
}

/// Who asks, for one request. Clones are the same request.
#[derive(Debug, Clone)]
pub struct Author {
    /// The name of the user or of the token.
    pub name: Arc<str>,
    pub via: Via,
    pub address: Option<IpAddr>,
    is_noted: Arc<AtomicBool>,
}

tokio::task_local! {
    static AUTHOR: Author;
}

impl Author {
    pub fn new(name: &str, via: Via, address: Option<IpAddr>) -> Self {
        Self {
            name: name.into(),
            via,
            address,
            is_noted: Arc::default(),
        }
    }

    /// Whoever asks for what runs here; the gateway itself where nobody does.
    pub fn current() -> Self {
        AUTHOR
            .try_with(Self::clone)
            .unwrap_or_else(|_| Self::new("gateway", Via::Gateway, None))
    }

    /// Runs what this author asks for.
    pub async fn asks<F: Future>(self, work: F) -> F::Output {
        AUTHOR.scope(self, work).await
    }

    /// The same for work on a thread.
    pub fn asks_blocking<T>(self, work: impl FnOnce() -> T) -> T {
        AUTHOR.sync_scope(self, work)
    }

    /// Says that the audit trail has an entry of this request.
    pub fn set_noted(&self) {
        self.is_noted.store(true, Ordering::Relaxed);
    }

    pub fn is_noted(&self) -> bool {
        self.is_noted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;

    #[tokio::test]
    async fn the_author_of_a_request_is_known_on_the_threads_that_work_for_it() {
        let pool = Pool::start("test", 1, 1).unwrap();
        let author = Author::new("mei", Via::Session, None);
        let seen = author
            .clone()
            .asks(pool.run(|| Author::current().name.to_string()))
            .await;
        assert_eq!(seen.unwrap(), "mei");
        let seen = pool.run(|| Author::current().via).await;
        assert_eq!(seen.unwrap(), Via::Gateway);
    }
}
