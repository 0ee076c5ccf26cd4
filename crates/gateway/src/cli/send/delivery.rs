//! Carries a file over its links, and keeps the tally.

use std::{
    future::Future,
    ops::ControlFlow,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use backtide_model::Items;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval},
};

use super::link::{Answer, Event, Link, LinkError, Login};
use crate::files::{
    message::{self, Builder, Ledger, Message, Readout},
    source::{Item, Meter, Rows, Source, SourceError},
};

/// Rejections that are kept to be shown.
const REJECTIONS_SHOWN_MAX: usize = 10;
/// Messages that are ready for a link.
const READY_MAX: usize = 4;
const TICK: Duration = Duration::from_millis(200);

/// What to carry, and over what.
pub struct Job {
    pub source: Source,
    /// Rows below are answered already.
    pub start_row: u64,
    /// One for each connection, with client ids of their own.
    pub logins: Vec<Login>,
    /// Rows in a message at most.
    pub rows_max: usize,
    /// Messages without a reply, in each connection, at most.
    pub window: usize,
    /// Makes this run's message ids its own.
    pub run: String,
}

/// How far it is.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Answered rows, stored or rejected.
    pub rows: u64,
    /// Values in them.
    pub values: u64,
    pub messages: u64,
    /// Rows that the gateway refused.
    pub rejected: u64,
    /// The first of them, worded.
    pub rejections: Vec<String>,
    /// Rows from the beginning of the file that are all answered.
    pub answered_prefix: u64,
    pub meter: Meter,
    pub begun: Instant,
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    Complete(Readout),
    Interrupted,
    GaveUp(LinkError),
    /// The file could not be read on.
    Source(SourceError),
}

/// What the watcher of a delivery is told.
pub enum Sight<'a> {
    /// Some time has passed.
    Tick(&'a Tally),
    /// A link was lost and is being opened again.
    Lost(&'a str),
}

/// Carries everything, until the end or until `stop` is ready.
pub async fn deliver(
    job: Job,
    stop: impl Future<Output = ()>,
    mut watcher: impl FnMut(Sight<'_>),
) -> (Tally, End) {
    let ledger = Arc::new(Ledger::starting_at(job.start_row));
    let mut tally = Tally {
        rows: 0,
        values: 0,
        messages: 0,
        rejected: 0,
        rejections: Vec::new(),
        answered_prefix: job.start_row,
        meter: job.source.meter.clone(),
        begun: Instant::now(),
    };
    let (stopper, stopped) = watch::channel(false);
    let (events, mut happenings) = mpsc::channel(job.window * job.logins.len() + 16);
    let mut links = JoinSet::new();
    let mut lanes = Vec::new();
    for login in job.logins {
        let (lane, messages) = mpsc::channel(READY_MAX);
        lanes.push(lane);
        links.spawn(Link::new(login, job.window, messages, events.clone(), stopped.clone()).run());
    }
    drop(events);
    let reading = spawn_reader(Reader {
        items: job.source.items,
        rows: job.source.rows,
        start_row: job.start_row,
        rows_max: job.rows_max,
        run: job.run,
        lanes,
        ledger: ledger.clone(),
    });

    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    let mut interrupted = false;
    let mut failure = None;
    loop {
        tokio::select! {
            event = happenings.recv() => match event {
                Some(Event::Answered(answer)) => tally.count(&answer, &ledger),
                Some(Event::Lost(reason)) => watcher(Sight::Lost(&reason)),
                None => break,
            },
            Some(ended) = links.join_next() => {
                if let Some(error) = failure_of(ended) {
                    // One link that gives up takes the others with it: the file is not complete.
                    failure.get_or_insert(error);
                    stopper.send_replace(true);
                }
            }
            _ = ticks.tick() => {
                tally.answered_prefix = ledger.answered();
                watcher(Sight::Tick(&tally));
            }
            () = &mut stop, if !interrupted => {
                interrupted = true;
                stopper.send_replace(true);
            }
        }
    }
    while let Some(ended) = links.join_next().await {
        failure = failure.or(failure_of(ended));
    }
    tally.answered_prefix = ledger.answered();
    watcher(Sight::Tick(&tally));
    let end = match (failure, reading.await) {
        (Some(error), _) => End::GaveUp(error),
        (None, Ok(Err(error))) => End::Source(error),
        (None, Ok(Ok(_))) if interrupted => End::Interrupted,
        // No link gave up and yet not all is answered: never call that complete.
        (None, Ok(Ok(_))) if ledger.open() > 0 => End::GaveUp(LinkError::Unanswered(ledger.open())),
        (None, Ok(Ok(readout))) => End::Complete(readout),
        (None, Err(_)) => End::Source(SourceError::Io(std::io::Error::other(
            "the reader panicked",
        ))),
    };
    (tally, end)
}

fn failure_of(ended: Result<Result<(), LinkError>, JoinError>) -> Option<LinkError> {
    ended
        .unwrap_or_else(|panicked| Err(LinkError::GaveUp(panicked.to_string())))
        .err()
}

impl Tally {
    fn count(&mut self, answer: &Answer, ledger: &Ledger) {
        let Answer { message, reply } = answer;
        let rows = u64::try_from(message.rows.len()).expect("a usize fits 64 bits");
        self.rows += rows;
        self.values += message.values;
        self.messages += 1;
        ledger.close(message.rows[0]);
        if reply.is_ok() {
            return;
        }
        self.rejected += rows.saturating_sub(reply.data.stored.unwrap_or(0));
        let mut show = |text: String| {
            if self.rejections.len() < REJECTIONS_SHOWN_MAX {
                self.rejections.push(text);
            }
        };
        for item in &reply.data.rejected {
            match item.index.and_then(|index| message.rows.get(index)) {
                Some(row) => show(format!("row {}: {}", row + 1, item.message)),
                None => show(item.message.clone()),
            }
        }
        if reply.data.rejected.is_empty() {
            let last = message.rows[message.rows.len() - 1];
            show(format!(
                "rows {} to {}: {} {}",
                message.rows[0] + 1,
                last + 1,
                reply.code,
                reply.message
            ));
        }
    }

    /// Values a second since the beginning.
    pub fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let values = self.values as f64;
        values / self.begun.elapsed().as_secs_f64().max(0.001)
    }
}

/// Reads the file in a thread of its own and fills the lanes.
struct Reader {
    items: Items,
    rows: Box<dyn Rows>,
    start_row: u64,
    rows_max: usize,
    run: String,
    lanes: Vec<mpsc::Sender<Message>>,
    ledger: Arc<Ledger>,
}

fn spawn_reader(reader: Reader) -> oneshot::Receiver<Result<Readout, SourceError>> {
    let (done, outcome) = oneshot::channel();
    let spawned = thread::Builder::new()
        .name("send-reader".to_owned())
        .spawn(move || {
            // The receiver is gone when the run was given up.
            drop(done.send(reader.read()));
        });
    // Without a thread the sender is dropped, which the receiver sees.
    drop(spawned);
    outcome
}

impl Reader {
    fn read(mut self) -> Result<Readout, SourceError> {
        let mut builders: Vec<_> = (0..self.lanes.len())
            .map(|lane| Builder::new(&self.run, lane, self.rows_max).of(self.items))
            .collect();
        let (lanes, ledger) = (&self.lanes, &self.ledger);
        let readout = message::read(self.rows.as_mut(), self.start_row, |row, item: &Item| {
            let at = message::lane_of(&item.device, lanes.len());
            let builder = &mut builders[at];
            if builder.is_full(item) && lanes[at].blocking_send(builder.build()).is_err() {
                return ControlFlow::Break(());
            }
            ledger.enter(row, builder.is_empty());
            builder.add(row, item);
            ControlFlow::Continue(())
        })?;
        for (builder, lane) in builders.iter_mut().zip(lanes) {
            if !builder.is_empty() && lane.blocking_send(builder.build()).is_err() {
                break;
            }
        }
        Ok(readout)
    }
}
