//! Raises the alarm of a channel that has spent its error budget: in its log, in the process's log,
//! in the metrics; and holds the channel where its file says so.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    channel_log::Log,
    channel_log::{Entry, What},
    clock::Clock,
    ingest::Alarm,
    pool::Pool,
    registry::Registry,
};

/// What an alarm is raised with.
pub struct Alarms {
    pub registry: Arc<Registry>,
    pub log: Arc<Log>,
    pub clock: Clock,
    /// Writes the hold down.
    pub pool: Pool,
}

impl Alarms {
    /// Until `closing`.
    pub async fn raise_all(self, mut alarms: mpsc::Receiver<Alarm>, closing: CancellationToken) {
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                alarm = alarms.recv() => match alarm {
                    Some(alarm) => self.raise(alarm).await,
                    None => return,
                },
            }
        }
    }

    async fn raise(&self, alarm: Alarm) {
        let Alarm {
            channel,
            budget,
            messages,
            refused,
        } = alarm;
        let spent = format!(
            "over its error budget: {refused} of the {messages} messages of the last {} s were \
             refused, {} of 1 is the budget",
            budget.window_seconds, budget.refused
        );
        let mut message = format!("alarm: the channel is {spent}");
        if budget.hold {
            let registry = Arc::clone(&self.registry);
            let (name, reason) = (channel.to_string(), spent);
            let held = self.pool.run(move || registry.hold(&name, &reason)).await;
            match held {
                Ok(Ok(_)) => message.push_str(&format!(
                    "; it is held: nothing is taken until `backtide channel resume {channel}`"
                )),
                Ok(Err(error)) => tracing::error!(%channel, %error, "a channel cannot be held"),
                Err(error) => tracing::error!(%channel, %error, "a channel cannot be held"),
            }
        }
        tracing::error!(%channel, hold = budget.hold, "{message}");
        metrics::counter!("backtide_channel_alarms_total", "channel" => channel.to_string())
            .increment(1);
        self.log.note(Entry {
            time_ms: self.clock.now_ms(),
            channel,
            client: "".into(),
            what: What::Error {
                topic: None,
                code: None,
                message: message.into(),
                device_key: None,
                point: None,
            },
        });
    }
}
