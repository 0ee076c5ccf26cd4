//! The calculated stream: what a rule made becomes points of the model, stored by the one commit
//! path, under a topic that says which rule made them.
//!
//! Values pass the very check that messages of devices pass. The device of a row may be another than
//! that it was made of. Written twice, a value is the same value: at least once is enough.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use backtide_model::{
    ChannelName, ConflictPolicy, Content, ElementName, Items, Mode, Model, ObjectName, ProductKey,
    Rejection, Rules as CheckRules, TimeRule, check,
};
use backtide_store::{Commit, CommitError, Origin, Part, Sequence};
use bytes::Bytes;
use futures::future::BoxFuture;

use super::{Poison, Record, Sink, SinkError, Stretch};
use crate::{
    clock::Clock,
    message::{self, Body, CALCULATED_TOPIC, Row, Value, header},
    registry::{Registry, Snapshot},
    store::Way,
};

/// What is handed to the store at once, roughly; far below what it takes at once.
const SUBMISSION_BYTES: usize = 2 << 20;

/// Writes back what one rule makes.
pub struct Calculated {
    pub rule: ObjectName,
    /// These points are written; others of a row are not.
    pub points: Vec<ElementName>,
    pub registry: Arc<Registry>,
    /// The way that messages of devices take too.
    pub way: Arc<Way>,
    pub clock: Clock,
}

/// Rows that one commit made, as one commit.
struct Draft {
    commit: Commit,
    /// Those whose rows are in it.
    records: Vec<usize>,
}

/// A row as an item of a message, and its record.
struct Item {
    index: usize,
    text: String,
}

impl Calculated {
    async fn write_all(&self, records: &[Record]) -> Result<Vec<Poison>, SinkError> {
        let snapshot = self.registry.snapshot();
        let mut poison = Vec::new();
        let mut drafts = Vec::new();
        let mut bytes = 0;
        let mut first = 0;
        while first < records.len() {
            let source = Source::of(&records[first]);
            let same = records[first..]
                .iter()
                .take_while(|record| Source::of(record) == source);
            let range = first..first + same.count();
            first = range.end;
            bytes += records[range.clone()]
                .iter()
                .map(|record| record.value.len())
                .sum::<usize>();
            self.draft(records, range, &source, &snapshot, &mut poison, &mut drafts);
            if bytes >= SUBMISSION_BYTES {
                self.commit(std::mem::take(&mut drafts), &mut poison)
                    .await?;
                bytes = 0;
            }
        }
        self.commit(drafts, &mut poison).await?;
        poison.sort_by_key(|poison| poison.index);
        Ok(poison)
    }

    /// The rows of one source commit, checked: each is in a draft, or poison, or has none of the
    /// points.
    fn draft(
        &self,
        records: &[Record],
        range: Range<usize>,
        source: &Source<'_>,
        snapshot: &Snapshot,
        poison: &mut Vec<Poison>,
        drafts: &mut Vec<Draft>,
    ) {
        let mut items = Vec::new();
        let mut product: Option<ProductKey> = None;
        for index in range {
            let mut refuse = |reason: String| poison.push(Poison { index, reason });
            let text = String::from_utf8_lossy(&records[index].value);
            let (key, row) = match message::read(&text) {
                Ok(read) => read,
                Err(why) => {
                    refuse(format!("what the rule made is no message: {why}"));
                    continue;
                }
            };
            let Some(declared) = snapshot.product_by_key(&key) else {
                refuse(format!("the product of key {key} is not declared any more"));
                continue;
            };
            if product.as_ref().is_some_and(|product| *product != key) {
                refuse(format!(
                    "product {key} is another than that of the message it is made of"
                ));
                continue;
            }
            match self.item(&row, &declared.model) {
                Ok(None) => {}
                Ok(Some(text)) => {
                    items.push(Item { index, text });
                    product = Some(key);
                }
                Err(why) => refuse(why),
            }
        }
        let Some(key) = product else {
            return;
        };
        let Some(declared) = snapshot.product_by_key(&key) else {
            return;
        };
        let rules = CheckRules {
            model: &declared.model,
            mode: Mode::Lenient,
            time: TimeRule::Required,
            conflict: ConflictPolicy::KeepLast,
            // A rule says itself what it makes of values.
            policies: None,
            oldest: None,
        };
        let find = |key: &str| declared.find_device(key);
        let mut slices = vec![items.as_slice()];
        while let Some(slice) = slices.pop() {
            let params = slice.iter().map(|item| item.text.as_str());
            let params = format!("[{}]", params.collect::<Vec<_>>().join(","));
            let checked = check(Items::Points, &params, &rules, find);
            if checked.more > 0 && slice.len() > 1 {
                // Rows without a reason that was kept would be neither stored nor told of.
                let (first, second) = slice.split_at(slice.len() / 2);
                slices.extend([second, first]);
                continue;
            }
            let refused = refused(slice, checked.rejections);
            if let Content::Points(batch) = checked.content
                && batch.rows() > 0
            {
                let indexes = slice.iter().map(|item| item.index);
                drafts.push(Draft {
                    commit: Commit {
                        origin: self.origin(source),
                        product: key.clone(),
                        parts: vec![Part::Points(batch)],
                        redrive: None,
                    },
                    records: indexes
                        .filter(|index| !refused.contains_key(index))
                        .collect(),
                });
            }
            let refused = refused.into_iter();
            poison.extend(refused.map(|(index, reason)| Poison { index, reason }));
        }
    }

    fn origin(&self, source: &Source<'_>) -> Origin {
        let channel = std::str::from_utf8(source.channel).ok();
        let channel = channel.and_then(|name| ChannelName::new(name).ok());
        let receipt = String::from_utf8_lossy(source.receipt);
        Origin {
            channel: channel
                .unwrap_or_else(|| ChannelName::new("calculated").expect("ten letters are a name")),
            client: self.rule.as_str().into(),
            topic: format!("{CALCULATED_TOPIC}{}", self.rule).into(),
            // What it is made of.
            message_id: serde_json::to_string(&receipt)
                .expect("a text is JSON")
                .into(),
            packet_id: None,
            policies: None,
            arrived_ms: self.clock.now_ms(),
        }
    }

    /// A row as an item of a message. `None`: it has none of the points.
    fn item(&self, row: &Row<'_>, model: &Model) -> Result<Option<String>, String> {
        let Body::Points(values) = &row.body else {
            return Err("what the rule made has no measurepoints".to_owned());
        };
        let mut item = String::new();
        for value in values {
            let point = self
                .points
                .iter()
                .find(|point| point.as_str() == value.point);
            let Some(point) = point else {
                continue;
            };
            let declared = model.measurepoints.get(point);
            item.push(if item.is_empty() { '{' } else { ',' });
            item.push_str(&quoted(point.as_str()));
            item.push(':');
            let json = number_as(
                &value.value,
                declared.map(|point| point.data_type.storage()),
            );
            match (value.quality, declared.is_some_and(|point| point.quality)) {
                (Some(quality), true) => {
                    item.push_str(&format!("{{\"value\":{json},\"quality\":{quality}}}"));
                }
                (Some(_) | None, _) => item.push_str(&json),
            }
        }
        if item.is_empty() {
            return Ok(None);
        }
        item.push('}');
        Ok(Some(format!(
            "{{\"deviceKey\":{},\"time\":{},\"measurepoints\":{item}}}",
            quoted(row.device_key.as_str()),
            row.time_ms
        )))
    }

    async fn commit(&self, drafts: Vec<Draft>, poison: &mut Vec<Poison>) -> Result<(), SinkError> {
        if drafts.is_empty() {
            return Ok(());
        }
        let unavailable = |error: CommitError| SinkError::Unavailable(error.to_string());
        let (commits, records): (Vec<_>, Vec<_>) = drafts
            .into_iter()
            .map(|draft| (draft.commit, draft.records))
            .unzip();
        let submitted = self.way.submit(commits).await.map_err(unavailable)?;
        let results = submitted.results().await.map_err(unavailable)?;
        for (result, records) in results.into_iter().zip(records) {
            match result {
                Ok(_) => {}
                Err(
                    error @ (CommitError::StorageChanged { .. }
                    | CommitError::Malformed { .. }
                    | CommitError::TooLarge { .. }),
                ) => poison.extend(records.into_iter().map(|index| Poison {
                    index,
                    reason: error.to_string(),
                })),
                Err(error) => return Err(unavailable(error)),
            }
        }
        Ok(())
    }
}

/// Records of rows that did not pass, and why. More than one point of a row may be wrong: the row is
/// one letter, with the first reason.
fn refused(items: &[Item], rejections: Vec<Rejection>) -> BTreeMap<usize, String> {
    let mut refused = BTreeMap::new();
    for rejection in rejections {
        let at = usize::try_from(rejection.index).ok();
        if let Some(item) = at.and_then(|at| items.get(at)) {
            refused.entry(item.index).or_insert(rejection.message);
        }
    }
    refused
}

/// What a record is made of.
#[derive(PartialEq)]
struct Source<'r> {
    channel: &'r [u8],
    receipt: &'r [u8],
}

impl<'r> Source<'r> {
    fn of(record: &'r Record) -> Self {
        let named = |name: &str| -> &'r [u8] {
            let mut headers = record.headers.iter();
            let found = headers.find(|(own, _)| own == name);
            found.map_or(&[], |(_, value): &(_, Bytes)| value)
        };
        Self {
            channel: named(header::CHANNEL),
            receipt: named(header::RECEIPT),
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

/// Whole numbers of expressions are floats: as whole ones again where the point is whole.
fn number_as(value: &Value<'_>, storage: Option<backtide_model::Storage>) -> String {
    use backtide_model::Storage;
    if let (Value::Double(number), Some(Storage::Int | Storage::Long)) = (value, storage)
        && number.fract() == 0.0
        && number.abs() < 9_007_199_254_740_992.0
    {
        return format!("{number:.0}");
    }
    value.json()
}

impl Sink for Calculated {
    fn reached(&self) -> BoxFuture<'_, Result<Option<Sequence>, SinkError>> {
        Box::pin(async { Ok(None) })
    }

    fn deliver<'a>(
        &'a self,
        stretch: &'a Stretch,
    ) -> BoxFuture<'a, Result<Vec<Poison>, SinkError>> {
        Box::pin(self.write_all(&stretch.records))
    }
}
