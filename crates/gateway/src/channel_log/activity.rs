//! What each channel does at the moment, counted in memory from what the log takes: clients,
//! messages, values, the last errors. Begins anew with the gateway.

use std::collections::{HashMap, VecDeque};

use backtide_model::ChannelName;
use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Entry, What};

const HOUR_MS: i64 = 3_600_000;
/// Hours that are remembered, the one that runs included.
const HOURS: i64 = 24;
/// The last errors of all channels.
const ERRORS_MAX: usize = 20;

/// What a channel does. Counts begin with the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Doing {
    /// Clients that are connected.
    pub clients: u64,
    /// Messages that were answered.
    pub messages: u64,
    /// Of them, those whose code is not 200.
    pub refused: u64,
    /// Values that were stored.
    pub values: u64,
    /// When the last message arrived, milliseconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_message: Option<i64>,
    /// The last 24 hours in which something came, oldest first.
    #[schema(value_type = Vec<Hour>)]
    pub hours: VecDeque<Hour>,
}

/// An hour of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Hour {
    /// When it began.
    pub time: i64,
    pub messages: u64,
    pub refused: u64,
}

/// What all channels do.
#[derive(Default)]
pub struct Activity {
    channels: Mutex<HashMap<ChannelName, Doing>>,
    errors: Mutex<VecDeque<Entry>>,
}

impl Activity {
    pub(super) fn note(&self, entry: &Entry) {
        match &entry.what {
            What::Connect { .. } => self.of(&entry.channel, |doing| doing.clients += 1),
            What::Disconnect { .. } => self.of(&entry.channel, |doing| {
                doing.clients = doing.clients.saturating_sub(1);
            }),
            What::Transmission { code, .. } => self.of(&entry.channel, |doing| {
                doing.transmitted(entry.time_ms, *code != 200);
            }),
            What::Error { .. } => {
                let mut errors = self.errors.lock();
                if errors.len() == ERRORS_MAX {
                    errors.pop_front();
                }
                errors.push_back(entry.clone());
            }
            What::Audit { .. } | What::Dropped { .. } => {}
        }
    }

    /// Counts values of a channel that were stored.
    pub fn stored(&self, channel: &ChannelName, values: u64) {
        self.of(channel, |doing| doing.values += values);
    }

    fn of(&self, channel: &ChannelName, change: impl FnOnce(&mut Doing)) {
        let mut channels = self.channels.lock();
        match channels.get_mut(channel) {
            Some(doing) => change(doing),
            None => change(channels.entry(channel.clone()).or_default()),
        }
    }

    /// What a channel does.
    pub fn doing(&self, channel: &ChannelName) -> Doing {
        let channels = self.channels.lock();
        channels.get(channel).cloned().unwrap_or_default()
    }

    /// The sum over all channels, without hours.
    pub fn total(&self) -> Doing {
        let mut total = Doing::default();
        for doing in self.channels.lock().values() {
            total.clients += doing.clients;
            total.messages += doing.messages;
            total.refused += doing.refused;
            total.values += doing.values;
            total.last_message = total.last_message.max(doing.last_message);
        }
        total
    }

    /// The last errors of all channels, the last first.
    pub fn last_errors(&self) -> Vec<Entry> {
        self.errors.lock().iter().rev().cloned().collect()
    }
}

impl Doing {
    fn transmitted(&mut self, time_ms: i64, is_refused: bool) {
        self.messages += 1;
        self.refused += u64::from(is_refused);
        self.last_message = self.last_message.max(Some(time_ms));
        let hour_ms = time_ms.div_euclid(HOUR_MS) * HOUR_MS;
        if self.hours.back().is_none_or(|hour| hour.time < hour_ms) {
            self.hours.push_back(Hour {
                time: hour_ms,
                ..Hour::default()
            });
        }
        while self
            .hours
            .front()
            .is_some_and(|hour| hour.time <= hour_ms - HOURS * HOUR_MS)
        {
            self.hours.pop_front();
        }
        if let Some(hour) = self.hours.back_mut() {
            hour.messages += 1;
            hour.refused += u64::from(is_refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_counted_by_themselves_and_forgotten_after_a_day() {
        let mut doing = Doing::default();
        doing.transmitted(0, false);
        doing.transmitted(1, true);
        doing.transmitted(HOUR_MS, false);
        let counts: Vec<_> = doing
            .hours
            .iter()
            .map(|h| (h.messages, h.refused))
            .collect();
        assert_eq!(counts, [(2, 1), (1, 0)]);
        doing.transmitted(24 * HOUR_MS, false);
        assert_eq!(doing.hours.front().map(|hour| hour.time), Some(HOUR_MS));
        assert_eq!((doing.messages, doing.refused), (4, 1));
        assert_eq!(doing.last_message, Some(24 * HOUR_MS));
    }
}
