//! Keeps the store's floors true to the storage policies: what is too old, by event time or by time of
//! import, is not there any more.

use std::{collections::HashMap, sync::Arc, time::Duration};

use backtide_model::ProductKey;
use backtide_store::{Floor, ReadError, Store};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    pool::Pool,
    registry::{KeptBy, Registry, Snapshot, StorageRule},
};

/// How often floors rise.
const RISE: Duration = Duration::from_secs(60);

/// What keeps the floors.
#[derive(Clone)]
pub struct Retention {
    pub registry: Arc<Registry>,
    pub store: Store,
    pub clock: Clock,
}

impl Retention {
    /// Sets the floors of this moment. Blocks. Before anything is read, and then again and again.
    pub fn set(&self) {
        let snapshot = self.registry.snapshot();
        let now_ms = self.clock.now_ms();
        let mut floors: HashMap<ProductKey, Floor> = HashMap::new();
        for product in snapshot.products_after(None) {
            let Some((_, storage)) = snapshot.storage(&product.name) else {
                continue;
            };
            match floor(&self.store, storage, now_ms) {
                Ok(floor) => drop(floors.insert(product.key.clone(), floor)),
                // Then everything of it is kept, until the next time.
                Err(error) => {
                    tracing::warn!(product = %product.name, %error, "what is beyond its retention is not known");
                }
            }
        }
        self.store.set_floors(floors);
    }

    /// Keeps the floors true until `closing`.
    pub async fn keep(self, pool: Pool, closing: CancellationToken) {
        let mut changes = self.registry.subscribe();
        loop {
            changes.borrow_and_update();
            let this = self.clone();
            if pool.run(move || this.set()).await.is_err() {
                return;
            }
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(RISE) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// What a storage policy takes at a moment.
///
/// # Errors
/// The store cannot say when commits arrived.
pub fn floor(store: &Store, storage: StorageRule, now_ms: i64) -> Result<Floor, ReadError> {
    let oldest_ms = storage.oldest_ms(now_ms);
    Ok(match storage.by {
        KeptBy::Event => Floor {
            time_ms: oldest_ms,
            ..Floor::NONE
        },
        KeptBy::Import => Floor {
            sequence: store.first_since(oldest_ms)?,
            ..Floor::NONE
        },
    })
}

/// Why an item that is too old is refused.
pub fn refusal(snapshot: &Snapshot, product: &str) -> Option<String> {
    let (policy, StorageRule { keep_days, by }) = snapshot.storage(product)?;
    Some(format!(
        "it is older than the {keep_days} days that storage policy {} keeps by {} time; it would not \
         be there. Let the policy keep more, then send it again",
        policy.name,
        by.word()
    ))
}
