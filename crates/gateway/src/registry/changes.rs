//! Waiting for what is declared to change, until whoever waits is told to end.

use std::time::Duration;

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

/// Tells of changes; those in quick succession may be told as one.
pub struct Changes {
    pub(super) version: watch::Receiver<u64>,
    pub(super) closing: CancellationToken,
}

impl Changes {
    /// Waits for the next change; whether there was one, and not the end.
    pub async fn next(&mut self) -> bool {
        tokio::select! {
            () = self.closing.cancelled() => false,
            changed = self.version.changed() => changed.is_ok(),
        }
    }

    /// Waits for the next change, but no longer than that; whether it is not the end.
    pub async fn next_within(&mut self, most: Duration) -> bool {
        tokio::select! {
            () = self.closing.cancelled() => false,
            changed = self.version.changed() => changed.is_ok(),
            () = sleep(most) => true,
        }
    }
}
