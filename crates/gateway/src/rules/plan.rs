//! A rule as it is run: matcher, maker, templates, compiled once for a snapshot; what it makes of a
//! commit goes into a [`Press`], which becomes records.
//!
//! The texts of a stretch stand in one buffer, and a record's key and value are slices of it: a row
//! costs no allocation of its own here.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use backtide_model::ObjectName;
use backtide_store::{Followed, Sequence};
use bytes::Bytes;

use super::{maker::Maker, matcher::Matcher};
use crate::{
    message::{self, Body, Heading, Row, SCHEMA_VERSION, header},
    registry::{Destination, Rule, Snapshot},
    script::Program,
    sink::Record,
    template::Template,
};

/// A rule, compiled.
pub(super) struct Plan {
    pub(super) rule: Arc<Rule>,
    pub(super) snapshot: Arc<Snapshot>,
    organization: ObjectName,
    matcher: Matcher,
    maker: Maker,
    address: Template,
    key: Template,
    headers: Vec<(Arc<str>, Template)>,
    /// The script that is its last step.
    pub(super) program: Option<Arc<Program>>,
}

/// Which row a record is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source {
    pub(super) commit: Sequence,
    /// [`Row::sequence`]; `None`: it is known only by its commit.
    pub(super) row: Option<u64>,
}

/// A row that became nothing, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) source: Source,
    pub(super) reason: String,
    /// Of the script's source.
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
    /// The message as it was stored.
    pub(super) input: String,
}

/// Where texts of rows are laid out.
#[derive(Default)]
pub(super) struct Press {
    text: Vec<u8>,
    marks: Vec<Mark>,
    pub(super) failed: Vec<Failed>,
    /// Rows that the rule takes, whatever became of them.
    pub(super) matched: u64,
    address: Option<Arc<str>>,
    scratch: Vec<u8>,
}

struct Mark {
    source: Source,
    arrived_ms: i64,
    value: Range<usize>,
    key: Range<usize>,
    /// The text of the row's place in its commit; empty where it is not known.
    sequence: Range<usize>,
    own: Vec<(Arc<str>, Range<usize>)>,
    address: Arc<str>,
    channel: Bytes,
    receipt: Bytes,
}

/// A record with the row it is made of.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) source: Source,
    /// Arrival of its commit, milliseconds since 1970: the clock of its script.
    pub(super) arrived_ms: i64,
    pub(super) record: Record,
}

/// What all rows of a commit have in common.
struct Common<'c> {
    heading: &'c Heading,
    channel: &'c str,
    channel_bytes: Bytes,
    receipt: &'c str,
    receipt_bytes: Bytes,
    commit: Sequence,
    arrived_ms: i64,
    has_rows: bool,
}

impl Plan {
    /// # Errors
    /// What another version of the gateway took and this one does not.
    pub(super) fn new(
        rule: &Arc<Rule>,
        snapshot: &Arc<Snapshot>,
        organization: &ObjectName,
    ) -> Result<Self, String> {
        let no_headers = BTreeMap::new();
        let (address, key, headers) = match &rule.file.to {
            Destination::Kafka(kafka) => (kafka.topic.as_str(), kafka.key.as_str(), &kafka.headers),
            Destination::Webhook(_) => ("webhook", "{assetId}", &no_headers),
            Destination::Calculated(_) => ("calculated", "{assetId}", &no_headers),
        };
        let headers = headers
            .iter()
            .map(|(name, text)| Ok::<_, String>((Arc::from(name.as_str()), Template::new(text)?)));
        let program = rule.file.script().map(|source| {
            let program =
                Program::transform(rule.name.as_str(), Some(rule.revision), source.into());
            program.map(Arc::new)
        });
        Ok(Self {
            matcher: Matcher::new(rule, snapshot),
            maker: Maker::new(rule)?,
            address: Template::new(address)?,
            key: Template::new(key)?,
            headers: headers.collect::<Result<_, _>>()?,
            program: program.transpose()?,
            organization: organization.clone(),
            rule: Arc::clone(rule),
            snapshot: Arc::clone(snapshot),
        })
    }

    pub(super) fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    pub(super) fn heading(&self, product: &backtide_model::ProductKey) -> Heading {
        Heading::new(&self.organization, &self.snapshot, product)
    }

    /// Lays out what the rule makes of a commit. Without `has_rows` the places of its rows are not
    /// those that they had when they came.
    pub(super) fn take(
        &self,
        followed: &Followed,
        receipt: &str,
        has_rows: bool,
        press: &mut Press,
    ) {
        let commit = &followed.commit;
        if !self.matcher.has_commit(commit) {
            return;
        }
        let heading = self.heading(&commit.product);
        if !self.matcher.has_product(&heading) {
            return;
        }
        let channel = commit.origin.channel.as_str();
        let common = Common {
            heading: &heading,
            channel,
            channel_bytes: Bytes::copy_from_slice(channel.as_bytes()),
            receipt,
            receipt_bytes: Bytes::copy_from_slice(receipt.as_bytes()),
            commit: followed.sequence,
            arrived_ms: commit.origin.arrived_ms,
            has_rows,
        };
        let mut failed = Vec::new();
        for row in message::rows(&heading, &self.snapshot, commit) {
            let place = row.sequence;
            if let Err(reason) = self.take_row(row, &common, press) {
                failed.push((place, reason));
            }
        }
        if failed.is_empty() {
            return;
        }
        let places: BTreeSet<u64> = failed.iter().map(|(place, _)| *place).collect();
        let mut inputs = self.inputs(followed, &places);
        let failed = failed.into_iter().map(|(place, reason)| Failed {
            source: Source {
                commit: followed.sequence,
                row: has_rows.then_some(place),
            },
            reason,
            line: None,
            column: None,
            input: inputs.remove(&place).unwrap_or_default(),
        });
        press.failed.extend(failed);
    }

    /// The same with one row that stands by itself.
    pub(super) fn take_one(
        &self,
        row: &Row<'_>,
        heading: &Heading,
        (source, receipt, channel, arrived_ms): (Source, &str, &str, i64),
        press: &mut Press,
    ) {
        let common = Common {
            heading,
            channel,
            channel_bytes: Bytes::copy_from_slice(channel.as_bytes()),
            receipt,
            receipt_bytes: Bytes::copy_from_slice(receipt.as_bytes()),
            commit: source.commit,
            arrived_ms,
            has_rows: source.row.is_some(),
        };
        let again = Row {
            sequence: source.row.unwrap_or(0),
            ..row.clone()
        };
        if let Err(reason) = self.take_row(again, &common, press) {
            press.failed.push(Failed {
                source,
                reason,
                line: None,
                column: None,
                input: row.text(heading),
            });
        }
    }

    fn take_row<'a>(
        &'a self,
        mut row: Row<'a>,
        common: &Common<'_>,
        press: &mut Press,
    ) -> Result<(), String> {
        let source = Source {
            commit: common.commit,
            row: common.has_rows.then_some(row.sequence),
        };
        if !self.matcher.takes(&mut row)? {
            return Ok(());
        }
        press.matched += 1;
        if self.maker.make(&mut row, common.heading, common.channel)? {
            press.lay(self, &row, source, common);
        }
        Ok(())
    }

    /// Messages of rows as they were stored, before any step: what dead letters keep.
    pub(super) fn inputs(
        &self,
        followed: &Followed,
        places: &BTreeSet<u64>,
    ) -> BTreeMap<u64, String> {
        let heading = self.heading(&followed.commit.product);
        message::rows(&heading, &self.snapshot, &followed.commit)
            .filter(|row| places.contains(&row.sequence))
            .map(|row| (row.sequence, row.text(&heading)))
            .collect()
    }
}

impl Press {
    /// Bytes laid out so far.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    fn lay(&mut self, plan: &Plan, row: &Row<'_>, source: Source, common: &Common<'_>) {
        let begin = self.text.len();
        row.write(common.heading, &mut self.text);
        let value = begin..self.text.len();
        let fill = |place: &'static str, out: &mut Vec<u8>| fill(place, out, plan, row, common);
        let begin = self.text.len();
        if plan.key.is_asset() {
            self.text
                .extend_from_slice(row.asset_id.as_str().as_bytes());
        } else {
            plan.key.write(&mut self.text, fill);
        }
        let key = begin..self.text.len();
        let begin = self.text.len();
        if let Some(place) = source.row {
            self.text
                .extend_from_slice(itoa::Buffer::new().format(place).as_bytes());
        }
        let sequence = begin..self.text.len();
        let own = plan.headers.iter().map(|(name, template)| {
            let begin = self.text.len();
            template.write(&mut self.text, fill);
            (Arc::clone(name), begin..self.text.len())
        });
        let own = own.collect();
        self.scratch.clear();
        plan.address.write(&mut self.scratch, fill);
        let is_same = self
            .address
            .as_ref()
            .is_some_and(|last| last.as_bytes() == self.scratch);
        let address = match &self.address {
            Some(address) if is_same => Arc::clone(address),
            Some(_) | None => {
                let address: Arc<str> = String::from_utf8_lossy(&self.scratch).into();
                Arc::clone(self.address.insert(address))
            }
        };
        self.marks.push(Mark {
            source,
            arrived_ms: common.arrived_ms,
            value,
            key,
            sequence,
            own,
            address,
            channel: common.channel_bytes.clone(),
            receipt: common.receipt_bytes.clone(),
        });
    }

    /// The records, in order; the press is empty then.
    pub(super) fn records(&mut self) -> Vec<Made> {
        let text = Bytes::from(std::mem::take(&mut self.text));
        let made = self.marks.drain(..).map(|mark| {
            let mut headers: Vec<(Cow<'static, str>, Bytes)> =
                Vec::with_capacity(4 + mark.own.len());
            headers.push((Cow::Borrowed(header::CHANNEL), mark.channel));
            headers.push((Cow::Borrowed(header::RECEIPT), mark.receipt));
            if mark.sequence.is_empty() {
                let segments = Bytes::from_static(b"segments");
                headers.push((Cow::Borrowed(header::REPLAY), segments));
            } else {
                headers.push((Cow::Borrowed(header::SEQUENCE), text.slice(mark.sequence)));
            }
            let version = Bytes::from_static(SCHEMA_VERSION.as_bytes());
            headers.push((Cow::Borrowed(header::SCHEMA), version));
            let own = mark.own.into_iter();
            headers
                .extend(own.map(|(name, range)| (Cow::Owned(name.to_string()), text.slice(range))));
            Made {
                source: mark.source,
                arrived_ms: mark.arrived_ms,
                record: Record {
                    address: mark.address,
                    key: text.slice(mark.key),
                    value: text.slice(mark.value),
                    headers,
                },
            }
        });
        made.collect()
    }
}

/// What a place of a template stands for.
fn fill(place: &'static str, out: &mut Vec<u8>, plan: &Plan, row: &Row<'_>, common: &Common<'_>) {
    let text = match place {
        "org" => plan.organization.as_str(),
        "rule" => plan.rule.name.as_str(),
        "channel" => common.channel,
        "productKey" => common.heading.product_key().as_str(),
        "modelId" => common.heading.model_id(),
        "assetId" => row.asset_id.as_str(),
        "deviceKey" => row.device_key.as_str(),
        "receipt" => common.receipt,
        "event" => match &row.body {
            Body::Event { event, .. } => event,
            Body::Points(_) | Body::Attributes(_) => "",
        },
        // "time"
        _ => {
            out.extend_from_slice(itoa::Buffer::new().format(row.time_ms).as_bytes());
            return;
        }
    };
    out.extend_from_slice(text.as_bytes());
}
