//! `backtide send FILE --channel NAME`: the reference sender. A file over MQTT, each message
//! answered, resumable at any moment.
//!
//! Rows leave in the order of the file. A message counts as sent when its reply has come; what has
//! no reply when a link or the server is lost is sent again, which the gateway takes for what it
//! is: the same values.

pub mod account;
pub mod checkpoint;
pub mod delivery;
#[cfg(test)]
mod delivery_tests;
pub mod link;
pub mod progress;
pub mod target;

use std::{
    collections::{BTreeMap, HashSet},
    future::Future,
    io::{self, Write},
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant},
};

use backtide_model::Items;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    account::{Account, Compared},
    checkpoint::{Checkpoint, Identity, Place},
    delivery::{End, Job, Sight, Tally},
    progress::Progress,
    target::Target,
};
use super::{
    Connection, Exit, Failure, Terminal,
    client::Client,
    output::{self, Format},
};
use crate::{
    clock::Clock,
    files::{
        mapping::Mapping,
        message::{self, Readout},
        moment,
        source::{Source, SourceError},
    },
};

const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Names of unknown devices that a dry run shows.
const UNKNOWN_SHOWN_MAX: usize = 10;

#[derive(Debug, clap::Args)]
pub struct Send {
    /// CSV or NDJSON, also with .gz or .zst, or Parquet
    file: PathBuf,
    /// Channel to send over
    #[arg(
        long,
        required_unless_present = "broker_url",
        default_value = "",
        hide_default_value = true
    )]
    channel: String,
    #[command(flatten)]
    mapping: Mapping,
    /// Read and map everything, check it against the registry, send nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on where an interrupted run ended
    #[arg(long)]
    resume: bool,
    /// Where that is remembered [default: beside the file, or in the current folder]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// At the end wait until all is compared with what was there, to tell what was new: within a minute
    /// of quiet
    #[arg(long, conflicts_with_all = ["dry_run", "broker_url"])]
    compare: bool,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    broker: Broker,
    /// How to print the counts
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Pace")]
struct Pace {
    /// Rows in a message
    #[arg(long, value_name = "ROWS", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Messages in flight on each connection
    #[arg(long, value_name = "MESSAGES", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    window: u16,
    /// Connections; a device keeps to one of them
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: u16,
}

/// The connection strings, where the gateway's API cannot be asked for them.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Broker (instead of asking the gateway)")]
struct Broker {
    #[arg(long, value_name = "URL", requires_all = ["client_id", "username", "password"])]
    broker_url: Option<String>,
    #[arg(long, value_name = "ID", requires = "broker_url")]
    client_id: Option<String>,
    #[arg(long, value_name = "NAME", requires = "broker_url")]
    username: Option<String>,
    #[arg(long, value_name = "TEXT", requires = "broker_url")]
    password: Option<String>,
}

/// The counts that `-o` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    /// Rows sent in this run, those without any value left out.
    rows: u64,
    values: u64,
    messages: u64,
    /// Rows that the gateway refused, or that could not be sent.
    rejected: u64,
    /// Rows without any value.
    empty: u64,
    /// Rows of the file that were answered in an earlier run.
    resumed_at: u64,
    seconds: f64,
    /// What the ids of this run's messages begin with.
    messages_begin: String,
    /// What of it was there already, where the gateway could be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<Compared>,
}

impl Send {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let mapping = self.mapping.clone().complete().map_err(Failure::Usage)?;
        let identity = Identity::of(&self.file)
            .map_err(|e| Failure::Usage(format!("cannot read {}: {e}", self.file.display())))?;
        let client = self
            .broker
            .broker_url
            .is_none()
            .then(|| Client::new(connection))
            .transpose()?;
        let target = self.target(client.as_ref(), mapping.items())?;
        let source = Source::open(&self.file, &mapping, &target.points)
            .map_err(|error| self.unusable(error))?;
        if self.dry_run {
            return self.rehearse(source, client.as_ref(), &target, terminal);
        }
        let place = Place::new(self.checkpoint.as_deref(), &self.file);
        let begin = self.beginning(&place, &identity, terminal)?;
        let logins = target.logins(self.pace.connections.into(), Clock::system().now_ms())?;
        let mut account =
            Account::begin(client.as_ref(), &self.channel, run_id(), mapping.items())?;
        let job = Job {
            source,
            start_row: begin.rows_answered,
            logins,
            rows_max: self.pace.batch.into(),
            window: self.pace.window.into(),
            run: account.run.clone(),
        };
        let mut keeper = Keeper {
            place,
            begin,
            last: Instant::now(),
        };
        let (tally, end) = run_until_stopped(job, &mut keeper, &mut *terminal.talk)?;
        if matches!(end, End::Complete(_)) {
            account.compare(&tally, self.compare)?;
        }
        self.finish(&keeper, (&tally, &account), end, target.is_strict, terminal)
    }

    fn target(&self, client: Option<&Client>, items: Items) -> Result<Target, Failure> {
        let Some(client) = client else {
            let text = |given: &Option<String>| given.clone().unwrap_or_default();
            let Broker {
                broker_url,
                client_id,
                username,
                password,
            } = &self.broker;
            return Ok(Target::given(
                text(broker_url),
                text(client_id),
                text(username),
                text(password),
                items,
            ));
        };
        Target::ask(client, &self.channel, items)
    }

    fn unusable(&self, error: SourceError) -> Failure {
        match error {
            SourceError::Usage(reason) => {
                Failure::Usage(format!("{}: {reason}", self.file.display()))
            }
            SourceError::Io(error) => {
                Failure::io(format!("cannot read {}", self.file.display()), error)
            }
        }
    }

    /// Where this run begins: at the first row, or where the checkpoint says.
    fn beginning(
        &self,
        place: &Place,
        identity: &Identity,
        terminal: &mut Terminal,
    ) -> Result<Checkpoint, Failure> {
        let first = Checkpoint {
            file: identity.clone(),
            channel: self.channel.clone(),
            rows_answered: 0,
            rows_rejected: 0,
        };
        let left = match place.read() {
            Ok(left) => left,
            Err(reason) if self.resume => return Err(Failure::Usage(reason)),
            Err(_) => None,
        };
        match (left, self.resume) {
            (None, false) => Ok(first),
            (None, true) => {
                writeln!(terminal.talk, "no checkpoint: beginning at the first row")?;
                Ok(first)
            }
            (Some(left), false) => {
                writeln!(
                    terminal.talk,
                    "beginning at the first row; --resume would go on at row {}",
                    left.rows_answered + 1
                )?;
                Ok(first)
            }
            (Some(left), true) if left.file != *identity || left.channel != self.channel => {
                Err(Failure::Usage(format!(
                    "the checkpoint is of another file, an earlier state of this one, or another \
                     channel ({}); send without --resume to begin again",
                    left.channel
                )))
            }
            (Some(left), true) => {
                writeln!(terminal.talk, "going on at row {}", left.rows_answered + 1)?;
                Ok(left)
            }
        }
    }

    fn finish(
        &self,
        keeper: &Keeper,
        (tally, account): (&Tally, &Account<'_>),
        end: End,
        is_strict: bool,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let unfinished = match end {
            End::Complete(readout) => {
                keeper.place.remove();
                let rejected_before = keeper.begin.rows_rejected;
                let counts = self.counts((tally, account), &readout, keeper.begin.rows_answered);
                self.print(&counts, terminal)?;
                account.tell(&mut *terminal.talk)?;
                tell_reading(&readout, &mut *terminal.talk)?;
                self.tell_rejections(tally, is_strict, rejected_before, &mut *terminal.talk)?;
                let is_partial = counts.rejected + rejected_before > 0;
                return Ok(if is_partial { Exit::Partial } else { Exit::Ok });
            }
            End::Interrupted => "interrupted".to_owned(),
            End::GaveUp(error) => error.to_string(),
            End::Source(error) if tally.answered_prefix == 0 => return Err(self.unusable(error)),
            End::Source(error) => self.unusable(error).to_string(),
        };
        let counts = self.counts(
            (tally, account),
            &Readout::default(),
            keeper.begin.rows_answered,
        );
        self.print(&counts, terminal)?;
        self.tell_rejections(
            tally,
            is_strict,
            keeper.begin.rows_rejected,
            &mut *terminal.talk,
        )?;
        let how = match keeper.save(tally) {
            Ok(()) => "the same command with --resume goes on there".to_owned(),
            Err(error) => format!("no checkpoint could be written ({error}): sending starts over"),
        };
        Err(Failure::Failed(format!(
            "{unfinished}; {} rows of the file are answered, {how}",
            tally.answered_prefix
        )))
    }

    fn counts(
        &self,
        (tally, account): (&Tally, &Account<'_>),
        readout: &Readout,
        resumed_at: u64,
    ) -> Counts {
        Counts {
            rows: tally.rows,
            values: tally.values,
            messages: tally.messages,
            rejected: tally.rejected + readout.unreadable,
            empty: readout.empty,
            resumed_at,
            seconds: tally.begun.elapsed().as_secs_f64(),
            messages_begin: account.messages_begin(),
            compared: account.compared.clone(),
        }
    }

    fn print(&self, counts: &Counts, terminal: &mut Terminal) -> Result<(), Failure> {
        match self.output {
            Format::Table => writeln!(
                terminal.talk,
                "{} rows with {} values in {} messages, {:.1} s; {} rows without values, {} rejected",
                counts.rows,
                counts.values,
                counts.messages,
                counts.seconds,
                counts.empty,
                counts.rejected,
            )?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut terminal.out, counts).map_err(io::Error::from)?;
                writeln!(terminal.out)?;
            }
            format @ (Format::Ndjson | Format::Csv) => {
                let columns: [output::Column<'_, &Counts>; 4] = [
                    ("rows", &|c| c.rows.to_string()),
                    ("values", &|c| c.values.to_string()),
                    ("messages", &|c| c.messages.to_string()),
                    ("rejected", &|c| c.rejected.to_string()),
                ];
                output::write(&mut *terminal.out, format, &columns, &[counts])?;
            }
        }
        Ok(())
    }

    fn tell_rejections(
        &self,
        tally: &Tally,
        is_strict: bool,
        before: u64,
        talk: &mut dyn Write,
    ) -> io::Result<()> {
        for rejection in &tally.rejections {
            writeln!(talk, "rejected {rejection}")?;
        }
        if tally.rejected + before == 0 {
            return Ok(());
        }
        let channel = &self.channel;
        writeln!(
            talk,
            "{} rows were rejected{}; see them with: backtide quarantine ls --channel {channel}",
            tally.rejected + before,
            if before > 0 {
                format!(", {before} of them before the resume")
            } else {
                String::new()
            },
        )?;
        if is_strict && tally.rejected > 0 {
            writeln!(
                talk,
                "channel {channel} is strict: one bad row refuses its whole message, up to {} rows; \
                 a smaller --batch or `mode: lenient` stores the others",
                self.pace.batch
            )?;
        }
        Ok(())
    }

    /// Everything but the sending.
    fn rehearse(
        &self,
        mut source: Source,
        client: Option<&Client>,
        target: &Target,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let known = client
            .map(|client| devices_of(client, &target.product))
            .transpose()?;
        let begun = Instant::now();
        let mut unknown: BTreeMap<String, u64> = BTreeMap::new();
        let mut builder =
            message::Builder::new("dry-run", 0, self.pace.batch.into()).of(source.items);
        let mut first: Option<message::Message> = None;
        let (mut rows, mut values, mut messages) = (0, 0, 0);
        let readout = message::read(source.rows.as_mut(), 0, |row, item| {
            if builder.is_full(item) {
                messages += 1;
                let message = builder.build();
                first.get_or_insert(message);
            }
            builder.add(row, item);
            rows += 1;
            values += u64::from(item.values);
            if known
                .as_ref()
                .is_some_and(|known| !known.contains(&item.device))
            {
                *unknown.entry(item.device.clone()).or_default() += 1;
            }
            ControlFlow::Continue(())
        })
        .map_err(|error| self.unusable(error))?;
        if !builder.is_empty() {
            messages += 1;
            let message = builder.build();
            first.get_or_insert(message);
        }
        if let Some(first) = first {
            let text = String::from_utf8_lossy(&first.payload);
            writeln!(
                terminal.talk,
                "the first message begins: {}",
                moment::beginning_of(&text, 500)
            )?;
        }
        let counts = Counts {
            rows,
            values,
            messages,
            rejected: unknown.values().sum::<u64>() + readout.unreadable,
            empty: readout.empty,
            resumed_at: 0,
            seconds: begun.elapsed().as_secs_f64(),
            messages_begin: String::new(),
            compared: None,
        };
        self.print(&counts, terminal)?;
        tell_reading(&readout, &mut *terminal.talk)?;
        for (device, rows) in unknown.iter().take(UNKNOWN_SHOWN_MAX) {
            let product = &target.product;
            writeln!(
                terminal.talk,
                "device {device} is not registered under product {product}: {rows} rows"
            )?;
        }
        if unknown.len() > UNKNOWN_SHOWN_MAX {
            let more = unknown.len() - UNKNOWN_SHOWN_MAX;
            writeln!(terminal.talk, "… and {more} more devices")?;
        }
        writeln!(terminal.talk, "dry run: nothing was sent")?;
        Ok(if counts.rejected > 0 {
            Exit::Partial
        } else {
            Exit::Ok
        })
    }
}

/// Keeps the checkpoint while the file is sent.
struct Keeper {
    place: Place,
    begin: Checkpoint,
    last: Instant,
}

impl Keeper {
    fn see(&mut self, sight: &Sight<'_>) {
        if let Sight::Tick(tally) = sight
            && self.last.elapsed() >= CHECKPOINT_EVERY
            && tally.answered_prefix > self.begin.rows_answered
        {
            self.last = Instant::now();
            // A checkpoint that cannot be written is told of when it is needed: at the end.
            drop(self.save(tally));
        }
    }

    fn save(&self, tally: &Tally) -> io::Result<()> {
        let checkpoint = Checkpoint {
            rows_answered: tally.answered_prefix,
            rows_rejected: self.begin.rows_rejected + tally.rejected,
            ..self.begin.clone()
        };
        self.place.write(&checkpoint).map(drop)
    }
}

fn run_until_stopped(
    job: Job,
    keeper: &mut Keeper,
    talk: &mut dyn Write,
) -> Result<(Tally, End), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("cannot start sending", error))?;
    let mut progress = Progress::new(talk);
    let outcome = runtime.block_on(async {
        let stop = stop_signal()?;
        let outcome = delivery::deliver(job, stop, |sight| {
            keeper.see(&sight);
            progress.see(&sight);
        })
        .await;
        Ok::<_, io::Error>(outcome)
    });
    progress.finish();
    outcome.map_err(|error| Failure::io("cannot listen for signals", error))
}

/// Ready once the user wants to stop: Ctrl-C or SIGTERM.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Tells this run's messages from those of any other.
pub fn run_id() -> String {
    uuid::Uuid::new_v4()
        .simple()
        .to_string()
        .chars()
        .take(8)
        .collect()
}

fn devices_of(client: &Client, product: &str) -> Result<HashSet<String>, Failure> {
    #[derive(serde::Deserialize)]
    struct Device {
        key: String,
    }
    let mut keys = HashSet::new();
    client.each(
        "/api/v1/devices",
        &[("product", product), ("limit", "1000")],
        |device: Device| {
            keys.insert(device.key);
            Ok(())
        },
    )?;
    Ok(keys)
}

fn tell_reading(readout: &Readout, talk: &mut dyn Write) -> io::Result<()> {
    for reason in &readout.reasons {
        writeln!(talk, "not sent: {reason}")?;
    }
    if readout.unreadable > 0 {
        writeln!(
            talk,
            "{} rows could not be read and were not sent",
            readout.unreadable
        )?;
    }
    let notes = readout.notes;
    if notes.skipped > 0 {
        writeln!(
            talk,
            "{} local times do not exist, as the clock skips them; they were moved forward",
            notes.skipped
        )?;
    }
    if notes.repeated > 0 {
        writeln!(
            talk,
            "{} local times exist twice, as the clock goes back; they were read as the first",
            notes.repeated
        )?;
    }
    if notes.cut > 0 {
        writeln!(talk, "{} times were cut to the millisecond", notes.cut)?;
    }
    Ok(())
}
