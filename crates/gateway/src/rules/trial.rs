//! A rule tried: on a message, an envelope or stored history, without publishing anything.

use std::sync::Arc;

use backtide_model::{
    ChannelName, ConflictPolicy, Content, DeviceKey, Kind, Mode, ProductKey, Rules as CheckRules,
    TimeRule, check, open,
};
use backtide_store::{Commit, Followed, Order, Origin, Part, Range, ReadError, Sequence};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Rules,
    plan::{Plan, Press, Source},
    replay,
    transform::transform,
};
use crate::{
    limits::RULE_TEST_ROWS_MAX,
    message,
    message::CALCULATED_TOPIC,
    query,
    registry::{Calculated, Destination, Rule, Snapshot},
    script::Detail,
};

/// What a rule is tried on.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum Sample {
    /// A message as it is published.
    Message(serde_json::Value),
    /// A request as a device sends it.
    Envelope(EnvelopeSample),
    /// What is stored of a device.
    History(HistorySample),
}

/// A request as a device sends it, and whose it would be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EnvelopeSample {
    /// The name of the product.
    product: String,
    /// The channel that it would come by.
    channel: Option<String>,
    /// With method and params.
    request: serde_json::Value,
}

/// What is stored of a device in a range of event time.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HistorySample {
    /// PRODUCT/NAME, or the asset id.
    device: String,
    /// ISO-8601 with an offset, or epoch milliseconds as text.
    from: Option<String>,
    to: Option<String>,
    /// Rows at most; 20 unless given.
    limit: Option<usize>,
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// Rows that were tried, and those that the rule takes.
    pub rows: usize,
    pub matched: u64,
    /// Records that would go out.
    pub records: Vec<TrialRecord>,
    /// Rows that would become dead letters.
    pub errors: Vec<TrialRow>,
    /// What the script printed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub console: String,
    /// kafka, webhook or calculated.
    pub destination: &'static str,
    /// Why nothing would go out at the moment, whatever the rule makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<String>,
}

/// A record that would go out.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrialRecord {
    /// The topic, the address, or the topic that calculated points are stored under.
    pub address: String,
    pub key: String,
    pub headers: std::collections::BTreeMap<String, String>,
    pub value: serde_json::Value,
}

/// A row that would become a dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrialRow {
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The message as it is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<serde_json::Value>,
}

/// Why a rule could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The rule or the sample is wrong: where, what, how to mend it.
    #[error("{0}")]
    Wrong(String),
    #[error("no script worker can be had: {0}")]
    NoWorker(String),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Rules {
    /// Tries a rule. Blocks on the store; publishes nothing, changes nothing.
    ///
    /// # Errors
    /// [`TrialError`].
    pub async fn try_out(&self, rule: Arc<Rule>, sample: Sample) -> Result<Trial, TrialError> {
        let snapshot = self.setting.registry.snapshot();
        let plan = Plan::new(&rule, &snapshot, &self.setting.organization);
        let plan = plan.map_err(TrialError::Wrong)?;
        let mut press = Press::default();
        let (rows, inputs) = self.lay(&plan, &snapshot, sample, &mut press)?;
        let matched = press.matched;
        let made = press.records();
        let mut errors: Vec<TrialRow> = press
            .failed
            .into_iter()
            .map(|failed| TrialRow {
                reason: failed.reason,
                line: failed.line,
                column: failed.column,
                message: serde_json::from_str(&failed.input).ok(),
            })
            .collect();
        let (made, console) = match &plan.program {
            None => (made, String::new()),
            Some(program) => {
                let run = transform(&self.setting.scripts, program, made, Detail::Everything).await;
                let transformed = run.map_err(TrialError::NoWorker)?;
                errors.extend(transformed.misfits.into_iter().map(|misfit| {
                    TrialRow {
                        reason: misfit.reason,
                        line: misfit.line,
                        column: misfit.column,
                        message: inputs
                            .iter()
                            .find(|(source, _)| *source == misfit.source)
                            .and_then(|(_, input)| serde_json::from_str(input).ok()),
                    }
                }));
                (transformed.made, transformed.console)
            }
        };
        let records = made.into_iter().map(|made| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let record = made.record;
            let headers = record
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)));
            let value = text(&record.value);
            TrialRecord {
                address: match &rule.file.to {
                    Destination::Kafka(_) => record.address.to_string(),
                    Destination::Webhook(webhook) => webhook.url.clone(),
                    Destination::Calculated(_) => format!("{CALCULATED_TOPIC}{}", rule.name),
                },
                key: text(&record.key),
                headers: headers.collect(),
                value: serde_json::from_str(&value).unwrap_or(serde_json::Value::String(value)),
            }
        });
        Ok(Trial {
            rows,
            matched,
            records: records.collect(),
            errors,
            console,
            destination: rule.file.to.word(),
            idle: self.setting.destinations.check(&rule).err(),
        })
    }

    /// Lays the sample out; its rows, and the message of each.
    fn lay(
        &self,
        plan: &Plan,
        snapshot: &Snapshot,
        sample: Sample,
        press: &mut Press,
    ) -> Result<(usize, Vec<(Source, String)>), TrialError> {
        let followed = match sample {
            Sample::Message(message) => {
                let text = message.to_string();
                let read = message::read(&text);
                let (product, row) =
                    read.map_err(|why| TrialError::Wrong(format!("message: {why}")))?;
                let source = Source {
                    commit: Sequence(0),
                    row: Some(0),
                };
                let heading = plan.heading(&product);
                if !plan.matcher().has_product(&heading) {
                    return Ok((1, Vec::new()));
                }
                let channel = plan.rule.file.from.channels.first();
                let channel = channel.map_or("test", |channel| channel.as_str());
                let now_ms = self.setting.clock.now_ms();
                plan.take_one(&row, &heading, (source, "test", channel, now_ms), press);
                return Ok((1, vec![(source, text)]));
            }
            Sample::Envelope(sample) => vec![self.envelope(plan, snapshot, &sample)?],
            Sample::History(sample) => self.history(snapshot, &sample)?,
        };
        let mut inputs = Vec::new();
        let mut rows = 0;
        for followed in &followed {
            let receipt = match followed.sequence.0 {
                0 => "test".to_owned(),
                _ => self.setting.store.receipt(followed.sequence).to_string(),
            };
            let heading = plan.heading(&followed.commit.product);
            for row in message::rows(&heading, snapshot, &followed.commit) {
                rows += 1;
                let source = Source {
                    commit: followed.sequence,
                    row: Some(row.sequence),
                };
                inputs.push((source, row.text(&heading)));
            }
            plan.take(followed, &receipt, true, press);
        }
        Ok((rows, inputs))
    }

    fn envelope(
        &self,
        plan: &Plan,
        snapshot: &Snapshot,
        sample: &EnvelopeSample,
    ) -> Result<Followed, TrialError> {
        let wrong = |why: String| TrialError::Wrong(format!("envelope: {why}"));
        let product = snapshot
            .product(sample.product.as_str())
            .ok_or_else(|| wrong(format!("product {} is not declared", sample.product)))?;
        let text = sample.request.to_string();
        let envelope = open(text.as_bytes(), Kind::Raw, Mode::Lenient)
            .map_err(|fault| wrong(fault.message))?;
        let now_ms = self.setting.clock.now_ms();
        let rules = CheckRules {
            model: &product.model,
            mode: Mode::Strict,
            time: TimeRule::Arrival { now_ms },
            conflict: ConflictPolicy::KeepLast,
            // The sample says what is stored.
            policies: None,
            oldest: None,
        };
        let checked = check(envelope.items, envelope.params, &rules, |key| {
            product.find_device(key)
        });
        if let Some(rejection) = checked.rejections.first() {
            return Err(wrong(rejection.message.clone()));
        }
        let part = match checked.content {
            Content::Points(batch) => Part::Points(batch),
            Content::Events(events) => Part::Events(events),
            Content::Attributes(values) => Part::Attributes(values),
        };
        let channel = sample.channel.as_deref();
        let channel = channel.or(plan
            .rule
            .file
            .from
            .channels
            .first()
            .map(ChannelName::as_str));
        // A rule that takes calculated rows alone is tried as if these were some.
        let topic = match plan.rule.file.from.calculated {
            Calculated::Only => format!("{CALCULATED_TOPIC}test"),
            Calculated::Exclude | Calculated::Include => "test".to_owned(),
        };
        Ok(Followed {
            sequence: Sequence(0),
            commit: Commit {
                origin: Origin {
                    channel: ChannelName::new(channel.unwrap_or("test"))
                        .map_err(|error| wrong(error.to_string()))?,
                    client: "test".into(),
                    topic: topic.into(),
                    message_id: "".into(),
                    packet_id: None,
                    policies: None,
                    arrived_ms: now_ms,
                },
                product: product.key.clone(),
                parts: vec![part],
                redrive: None,
            },
        })
    }

    fn history(
        &self,
        snapshot: &Snapshot,
        sample: &HistorySample,
    ) -> Result<Vec<Followed>, TrialError> {
        let wrong = |why: String| TrialError::Wrong(format!("history: {why}"));
        let (product, device) = device_of(&sample.device, snapshot).ok_or_else(|| {
            wrong(format!(
                "device {} is not declared; write PRODUCT/NAME or an asset id",
                sample.device
            ))
        })?;
        let moment = |text: &Option<String>| text.as_deref().map(query::moment).transpose();
        let from_ms = moment(&sample.from).map_err(|error| wrong(error.to_string()))?;
        let to_ms = moment(&sample.to).map_err(|error| wrong(error.to_string()))?;
        let limit = sample.limit.unwrap_or(20);
        if !(1..=RULE_TEST_ROWS_MAX).contains(&limit) {
            return Err(wrong(format!(
                "limit {limit} is not between 1 and {RULE_TEST_ROWS_MAX}"
            )));
        }
        let range = Range {
            product,
            devices: vec![device],
            points: Vec::new(),
            from_ms: from_ms.unwrap_or(i64::MIN),
            to_ms: to_ms.unwrap_or(i64::MAX),
            order: Order::DeviceTime,
            after: None,
            rows_max: limit,
        };
        Ok(replay::of_range(&self.setting.store, &range)?)
    }
}

fn device_of(device: &str, snapshot: &Snapshot) -> Option<(ProductKey, DeviceKey)> {
    let (product, device) = match device.split_once('/') {
        Some((product, name)) => {
            let product = snapshot.product(product)?;
            (product, product.devices.named(name)?)
        }
        None => snapshot.asset(device)?,
    };
    Some((product.key.clone(), device.key.clone()))
}
