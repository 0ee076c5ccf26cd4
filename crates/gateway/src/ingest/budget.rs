//! Watches the error budgets of channels: how many of the last messages were refused.
//!
//! Counting is part of a message's way and takes a short lock. What follows when a budget is spent,
//! the alarm and the hold, is done by whoever receives the alarms, off that way.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use backtide_model::ChannelName;
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};

use crate::registry::ErrorBudget;

/// A window is counted in so many slots: it forgets the oldest of them at once.
const SLOTS: u32 = 30;
/// Alarms that wait to be raised. Beyond, the next refusal raises its own.
const ALARMS_MAX: usize = 64;

/// A channel has spent its budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Alarm {
    pub channel: ChannelName,
    pub budget: ErrorBudget,
    /// Messages of the window, and those of them that were refused.
    pub messages: u64,
    pub refused: u64,
}

/// The windows of all channels that have a budget.
pub struct Budgets {
    windows: Mutex<HashMap<ChannelName, Window>>,
    alarms: mpsc::Sender<Alarm>,
}

#[derive(Default)]
struct Window {
    slots: VecDeque<Slot>,
    /// The alarm is raised; the next only after the share has been within budget.
    is_over: bool,
}

struct Slot {
    began: Instant,
    messages: u64,
    refused: u64,
}

impl Budgets {
    /// And where its alarms come out.
    pub fn new() -> (Self, mpsc::Receiver<Alarm>) {
        let (alarms, raised) = mpsc::channel(ALARMS_MAX);
        let windows = Mutex::default();
        (Self { windows, alarms }, raised)
    }

    /// Counts messages that were just answered.
    pub(super) fn count(
        &self,
        channel: &ChannelName,
        budget: ErrorBudget,
        messages: u64,
        refused: u64,
    ) {
        let mut windows = self.windows.lock();
        if !windows.contains_key(channel) {
            windows.insert(channel.clone(), Window::default());
            gauge(channel, 0.0);
        }
        let window = windows.get_mut(channel).expect("inserted when absent");
        let was_over = window.is_over;
        let Some((messages, refused)) = window.count(budget, messages, refused) else {
            if was_over && !window.is_over {
                gauge(channel, 0.0);
            }
            return;
        };
        let alarm = Alarm {
            channel: channel.clone(),
            budget,
            messages,
            refused,
        };
        gauge(channel, 1.0);
        if self.alarms.try_send(alarm).is_err() {
            window.is_over = false;
        } else if budget.hold {
            // When the hold ends, the count begins anew.
            windows.remove(channel);
        }
    }
}

fn gauge(channel: &ChannelName, is_over: f64) {
    metrics::gauge!("backtide_channel_over_budget", "channel" => channel.to_string()).set(is_over);
}

impl Window {
    /// What is in the window, where that is over budget from now on.
    fn count(&mut self, budget: ErrorBudget, messages: u64, refused: u64) -> Option<(u64, u64)> {
        let now = Instant::now();
        let window = Duration::from_secs(u64::from(budget.window_seconds));
        while self
            .slots
            .front()
            .is_some_and(|slot| now.duration_since(slot.began) >= window)
        {
            self.slots.pop_front();
        }
        match self.slots.back_mut() {
            Some(slot) if now.duration_since(slot.began) < window / SLOTS => {
                slot.messages += messages;
                slot.refused += refused;
            }
            _ => self.slots.push_back(Slot {
                began: now,
                messages,
                refused,
            }),
        }
        let messages: u64 = self.slots.iter().map(|slot| slot.messages).sum();
        let refused: u64 = self.slots.iter().map(|slot| slot.refused).sum();
        // Counts stay far below 2^52, where a double stops being exact.
        #[expect(clippy::cast_precision_loss, reason = "see above")]
        let is_spent = refused as f64 > budget.refused * messages as f64;
        let is_over = is_spent && messages >= u64::from(budget.messages_min);
        let is_news = is_over && !self.is_over;
        self.is_over = is_over;
        is_news.then_some((messages, refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: ErrorBudget = ErrorBudget {
        refused: 0.2,
        window_seconds: 300,
        messages_min: 20,
        hold: false,
    };

    fn channel() -> ChannelName {
        ChannelName::new("scada-history").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_over_its_budget_is_told_of_once_until_it_has_been_within_again() {
        let (budgets, mut alarms) = Budgets::new();
        budgets.count(&channel(), BUDGET, 19, 19);
        assert!(alarms.try_recv().is_err(), "too few to say anything");
        budgets.count(&channel(), BUDGET, 81, 1);
        assert!(alarms.try_recv().is_err(), "a fifth is within budget");
        budgets.count(&channel(), BUDGET, 1, 1);
        let alarm = alarms.try_recv().unwrap();
        assert_eq!((alarm.messages, alarm.refused), (101, 21));
        budgets.count(&channel(), BUDGET, 1, 1);
        assert!(alarms.try_recv().is_err(), "it is known");
        budgets.count(&channel(), BUDGET, 100, 0);
        budgets.count(&channel(), BUDGET, 100, 100);
        assert!(alarms.try_recv().is_ok(), "it was within budget in between");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_the_window_is_forgotten() {
        let (budgets, mut alarms) = Budgets::new();
        budgets.count(&channel(), BUDGET, 100, 20);
        tokio::time::advance(Duration::from_secs(301)).await;
        budgets.count(&channel(), BUDGET, 100, 19);
        assert!(alarms.try_recv().is_err());
        for _ in 0..40 {
            tokio::time::advance(Duration::from_secs(7)).await;
            budgets.count(&channel(), BUDGET, 1, 0);
        }
        assert!(budgets.windows.lock()[&channel()].slots.len() <= 31);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_hold_the_count_begins_anew() {
        let (budgets, mut alarms) = Budgets::new();
        let budget = ErrorBudget {
            hold: true,
            ..BUDGET
        };
        budgets.count(&channel(), budget, 20, 20);
        assert!(alarms.try_recv().is_ok());
        budgets.count(&channel(), budget, 19, 19);
        assert!(alarms.try_recv().is_err());
    }
}
