//! Keeps the store true to the storage policies: what is too old, by event time or by time of import, is
//! not there any more, and what is thinned is shown so.

use std::{collections::HashMap, sync::Arc, time::Duration};

use backtide_model::{Oldest, ProductKey, TooOld};
use backtide_store::{
    Floor, Keep, PointKeep, ReadError, RecordKeep, Sequence, Store, Thin, Thinning,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    pool::Pool,
    registry::{ArchiveOf, Density, KeptBy, ProductStorage, Registry, RuleInForce, StorageRule},
};

/// How often floors rise.
const RISE: Duration = Duration::from_secs(60);

/// What keeps the store true.
#[derive(Clone)]
pub struct Retention {
    pub registry: Arc<Registry>,
    pub store: Store,
    pub clock: Clock,
}

impl Retention {
    /// Sets what is kept at this moment. Blocks. Before anything is read, and then again and again.
    pub fn set(&self) {
        let snapshot = self.registry.snapshot();
        let now_ms = self.clock.now_ms();
        let mut keeps: HashMap<ProductKey, Keep> = HashMap::new();
        for product in snapshot.products_after(None) {
            let Some(storage) = snapshot.storage(&product.name) else {
                continue;
            };
            match keep(&self.store, storage, now_ms) {
                Ok(keep) => drop(keeps.insert(product.key.clone(), keep)),
                // Then everything of it is kept, until the next time.
                Err(error) => {
                    tracing::warn!(product = %product.name, %error, "what is beyond its retention is not known");
                }
            }
        }
        self.store.set_keeps(keeps);
    }

    /// Keeps the store true until `closing`.
    pub async fn keep(self, pool: Pool, closing: CancellationToken) {
        let mut changes = self.registry.changes(closing);
        loop {
            let this = self.clone();
            if pool.run(move || this.set()).await.is_err() || !changes.next_within(RISE).await {
                return;
            }
        }
    }
}

/// What the rules of a product keep at a moment.
///
/// # Errors
/// The store cannot say when commits arrived.
pub fn keep(store: &Store, storage: &ProductStorage, now_ms: i64) -> Result<Keep, ReadError> {
    let of = |rule: &RuleInForce| point_keep(store, rule.rule(), now_ms);
    let mut points = std::collections::BTreeMap::new();
    for (point, rule) in &storage.points {
        points.insert(point.clone(), of(rule)?);
    }
    let records = |rule: &Option<RuleInForce>| {
        let rule = rule.as_ref().map(RuleInForce::rule);
        let oldest_ms = rule.and_then(|rule| rule.oldest_ms(now_ms));
        (oldest_ms, rule.map(|rule| rule.by))
    };
    let events = match records(&storage.events) {
        (Some(time_ms), Some(KeptBy::Event)) => RecordKeep {
            time_ms,
            ..RecordKeep::ALL
        },
        (Some(arrived_ms), Some(KeptBy::Import)) => RecordKeep {
            arrived_ms,
            ..RecordKeep::ALL
        },
        _ => RecordKeep::ALL,
    };
    // An attribute has no time of its own.
    let attributes = RecordKeep {
        arrived_ms: records(&storage.attributes).0.unwrap_or(i64::MIN),
        ..RecordKeep::ALL
    };
    Ok(Keep {
        rest: storage
            .rest
            .as_ref()
            .map(of)
            .transpose()?
            .unwrap_or_default(),
        points,
        events,
        attributes,
    })
}

/// At and above this, every point of a product is kept as its rules have it for new values: nothing of
/// it has gone, or been thinned with age. Of events and attributes likewise.
///
/// # Errors
/// The store cannot say when commits arrived.
pub fn whole_from(
    store: &Store,
    storage: &ProductStorage,
    of: ArchiveOf,
    now_ms: i64,
) -> Result<Floor, ReadError> {
    let keep = keep(store, storage, now_ms)?;
    let records = match of {
        ArchiveOf::Points => return Ok(points_whole_from(&keep)),
        ArchiveOf::Events => keep.events,
        ArchiveOf::Attributes => keep.attributes,
    };
    Ok(Floor {
        time_ms: records.time_ms,
        sequence: match records.arrived_ms {
            i64::MIN => Floor::NONE.sequence,
            arrived_ms => store.first_since(arrived_ms)?,
        },
    })
}

fn points_whole_from(keep: &Keep) -> Floor {
    let mut whole = Floor::NONE;
    for point in keep.points.values().chain([&keep.rest]) {
        let thinned_ms = point.thin().map(|thin| thin.before_ms);
        let thinned_ms = thinned_ms.filter(|before_ms| *before_ms < i64::MAX);
        let floor = point.floor();
        whole.time_ms = whole
            .time_ms
            .max(floor.time_ms)
            .max(thinned_ms.unwrap_or(i64::MIN));
        whole.sequence = whole.sequence.max(floor.sequence);
    }
    whole
}

fn point_keep(store: &Store, rule: &StorageRule, now_ms: i64) -> Result<PointKeep, ReadError> {
    let floor = match (rule.oldest_ms(now_ms), rule.by) {
        (None, _) => Floor::NONE,
        (Some(time_ms), KeptBy::Event) => Floor {
            time_ms,
            ..Floor::NONE
        },
        (Some(arrived_ms), KeptBy::Import) => Floor {
            sequence: store.first_since(arrived_ms)?,
            ..Floor::NONE
        },
    };
    let thin = |kind, before_ms, quiet| {
        Some(Thin {
            kind,
            before_ms,
            quiet,
        })
    };
    let always = Sequence(u64::MAX);
    let thin = match (rule.keep, rule.raw_oldest_ms(now_ms)) {
        _ if rule.change_only => {
            let quiet = store.first_since(now_ms.saturating_sub(rule.quiet_ms()))?;
            thin(Thinning::Changes, i64::MAX, quiet)
        }
        (Density::Minute, _) => thin(Thinning::Minute, i64::MAX, always),
        (Density::Both, Some(before_ms)) => thin(Thinning::Minute, before_ms, always),
        (Density::Both, None) | (Density::Raw, _) => None,
    };
    Ok(PointKeep::new(floor, thin))
}

/// What of a product is too old to be stored at a moment, of a message that arrived at another: a
/// re-driven one may have grown too old since.
pub fn oldest(storage: &ProductStorage, arrived_ms: i64, now_ms: i64) -> Oldest {
    let of = |rule: &RuleInForce| {
        let oldest_ms = rule.rule().oldest_ms(now_ms)?;
        let time_ms = match rule.rule().by {
            // As the store has it: what is thinned goes by whole windows.
            KeptBy::Event => {
                let floor = Floor {
                    time_ms: oldest_ms,
                    ..Floor::NONE
                };
                let kind = match (rule.rule().change_only, rule.rule().keep) {
                    (true, _) => Some(Thinning::Changes),
                    (false, Density::Minute) => Some(Thinning::Minute),
                    (false, Density::Both) if rule.rule().raw_days.is_some() => {
                        Some(Thinning::Minute)
                    }
                    (false, Density::Raw | Density::Both) => None,
                };
                let thin = kind.map(|kind| Thin {
                    kind,
                    before_ms: i64::MAX,
                    quiet: Sequence(0),
                });
                PointKeep::new(floor, thin).floor().time_ms
            }
            KeptBy::Import if arrived_ms < oldest_ms => i64::MAX,
            KeptBy::Import => return None,
        };
        Some(TooOld {
            time_ms,
            message: refusal(rule),
        })
    };
    let points = storage.points.iter();
    Oldest {
        rest: storage.rest.as_ref().and_then(of),
        points: points
            .map(|(point, rule)| (point.clone(), of(rule)))
            .collect(),
        events: storage.events.as_ref().and_then(of),
    }
}

/// Why what is too old is refused.
fn refusal(rule: &RuleInForce) -> String {
    let (policy, rule) = (&rule.policy.name, rule.rule());
    format!(
        "it is older than the {} days that storage policy {policy} keeps by {} time; it would not be \
         there. Let the policy keep more, then send it again",
        rule.keep_days.unwrap_or_default(),
        rule.by.word()
    )
}
