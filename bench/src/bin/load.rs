//! The load generator: sends measure point messages over MQTT, counts what is answered, measures
//! what that costs, and reads back what was answered. Prints a JSON object for each of the two.
//!
//! One thread drives all connections: it shares two cores with the server that it measures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use backtide_bench::link::{Answer, Link, Tally};
use backtide_bench::message::{self, Encoder};
use backtide_bench::mqtt::{self, Login};
use backtide_bench::order::{InOrder, Order, Shuffled};
use backtide_bench::process::Watched;
use backtide_bench::series::POINTS;
use backtide_bench::subscription::{self, Session};
use backtide_bench::truth;
use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::json;

#[derive(Parser)]
#[command(about = "MQTT load for the benchmark")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends messages as fast as answers allow, or at a rate.
    Send(Send),
    /// Opens connections that then say nothing, and measures what each costs the server.
    Idle(Idle),
    /// Pulls messages of a subscription, as fast as they come.
    Pull(Pull),
    /// Subscribes again and again, each session with a pull that waits, and measures what each costs.
    Wait(Wait),
}

#[derive(Args)]
struct Door {
    /// The broker.
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    product_key: String,
    /// The channel's secret; brokers without one take anything.
    #[arg(long, default_value = "")]
    secret: String,
    /// A server process to measure, as NAME=PID; several where a server is more than one.
    #[arg(long)]
    watch: Vec<Watched>,
}

#[derive(Args)]
struct Send {
    #[command(flatten)]
    door: Door,
    #[arg(long, default_value_t = 4)]
    connections: u32,
    /// Messages in flight on each connection.
    #[arg(long, default_value_t = 64)]
    window: u16,
    #[arg(long, default_value_t = 1_000)]
    devices: u32,
    #[arg(long, default_value_t = 100)]
    rows: usize,
    #[arg(long, default_value = "in-order")]
    order: OrderName,
    /// Rows of each hundred that are sent again.
    #[arg(long, default_value_t = 5)]
    duplicates: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Ends after so many messages.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    messages: u64,
    /// Points per second in all; without it as many as answers allow.
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value = "reply")]
    answer: Answer,
    /// Each connection publishes under a product key of its own: on a plain broker each would hear the
    /// replies to all others.
    #[arg(long)]
    own_topics: bool,
    /// Frames of 40 bytes with one row for a script, instead of JSON.
    #[arg(long, conflicts_with_all = ["check", "rows"])]
    raw: bool,
    /// After the load and a line on standard input: reads everything back with this backtide binary.
    #[arg(long)]
    check: Option<PathBuf>,
    /// The product to read back from.
    #[arg(long, default_value = "farm")]
    product: String,
}

#[derive(Args)]
struct Idle {
    #[command(flatten)]
    door: Door,
    #[arg(long, default_value_t = 900)]
    connections: u32,
}

#[derive(Args)]
struct SubscriptionDoor {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    access_key: String,
    #[arg(long)]
    secret: String,
    #[arg(long, default_value = "bench")]
    subscription: String,
    /// A server process to measure, as NAME=PID.
    #[arg(long)]
    watch: Vec<Watched>,
}

#[derive(Args)]
struct Pull {
    #[command(flatten)]
    door: SubscriptionDoor,
    #[arg(long, default_value = "bench")]
    group: String,
    /// Ends after so many messages.
    #[arg(long)]
    messages: u64,
}

#[derive(Args)]
struct Wait {
    #[command(flatten)]
    door: SubscriptionDoor,
    #[arg(long, default_value_t = 5_000)]
    sessions: u32,
    #[arg(long, default_value_t = 50)]
    groups: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum OrderName {
    InOrder,
    Shuffled,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Send(send) => send.run(),
        Command::Idle(idle) => idle.run(),
        Command::Pull(pull) => pull.run(),
        Command::Wait(wait) => wait.run(),
    }
}

/// How long answers may take once nothing more is sent.
const LAST_ANSWERS: Duration = Duration::from_secs(60);

impl Send {
    fn run(&self) -> Result<()> {
        let mut links = self.links()?;
        let mut tally = Tally::new(self.devices);
        let mut meter = Meter::start(&self.door.watch)?;
        self.drive(&mut links, &mut tally, &mut meter)?;
        println!("{}", self.report(&links, &tally, &meter));
        drop(links);
        let Some(backtide) = &self.check else {
            return Ok(());
        };

        // Whoever started us looks at the server first, while it is as the load has left it.
        std::io::stdin().read_line(&mut String::new())?;
        let found = truth::check(&tally.answered, backtide, &self.product, self.seed)?;
        println!("{}", serde_json::to_string(&found)?);
        Ok(())
    }

    fn links(&self) -> Result<Vec<Link>> {
        ensure!(
            self.connections > 0 && self.window > 0 && self.rows > 0,
            "nothing would be sent"
        );
        ensure!(self.duplicates < 100, "not everything can be a duplicate");
        ensure!(
            self.devices >= self.connections,
            "every connection needs a device of its own"
        );
        (0..self.connections)
            .map(|client| self.link(client))
            .collect()
    }

    fn link(&self, client: u32) -> Result<Link> {
        let product_key = match self.own_topics {
            true => format!("{}-{client}", self.door.product_key),
            false => self.door.product_key.clone(),
        };
        let topic = match self.raw {
            true => message::raw_topic(&product_key),
            false => message::request_topic(&product_key),
        };
        let filter = format!("{topic}_reply");
        let stream = mqtt::open(
            self.door.address,
            &self.door.login(),
            client.into(),
            true,
            &filter,
        )?;
        let devices: Vec<u32> = (client..self.devices)
            .step_by(self.connections as usize)
            .collect();
        let order = match self.order {
            OrderName::InOrder => {
                Order::InOrder(InOrder::new(self.seed, &devices, self.duplicates))
            }
            OrderName::Shuffled => {
                Order::Shuffled(Shuffled::new(self.seed, &devices, self.duplicates))
            }
        };
        let (encoder, rows) = match self.raw {
            true => (Encoder::raw(&product_key), 1),
            false => (Encoder::new(&product_key, self.devices), self.rows),
        };
        Link::new(stream, self.answer, order, rows, encoder, self.window)
    }

    fn drive(&self, links: &mut [Link], tally: &mut Tally, meter: &mut Meter) -> Result<()> {
        let count = links.len() as u64;
        let interval_s = self.rate.map(|rate| self.points_a_message() as f64 / rate);
        let end = meter.started + Duration::from_secs_f64(self.seconds);
        loop {
            let now = Instant::now();
            meter.tick(now, tally.answered_rows)?;
            let sending = now < end && tally.sent_messages < self.messages;
            let mut next_due = now + Duration::from_millis(250);
            for (n, link) in links.iter_mut().enumerate() {
                while sending && tally.sent_messages < self.messages && link.has_room() {
                    let Some(interval_s) = interval_s else {
                        link.send(now, tally);
                        continue;
                    };
                    let place = link.sent() * count + n as u64;
                    let due = meter.started + Duration::from_secs_f64(place as f64 * interval_s);
                    if due > now {
                        next_due = next_due.min(due);
                        break;
                    }
                    link.send(due, tally);
                }
                link.flush()?;
            }
            if !sending
                && (links.iter().all(|link| link.in_flight() == 0) || now > end + LAST_ANSWERS)
            {
                return meter.stop(tally.last_answer);
            }
            wait(links, next_due.saturating_duration_since(now), tally)?;
        }
    }

    fn points_a_message(&self) -> usize {
        match self.raw {
            true => message::RAW_POINTS,
            false => self.rows * POINTS.len(),
        }
    }

    fn report(&self, links: &[Link], tally: &Tally, meter: &Meter) -> serde_json::Value {
        let points = tally.answered_rows * POINTS.len() as u64;
        let server_cpu_s: f64 = meter.cpu_s.values().sum();
        let latency = &tally.latency_us;
        let ms = |us: u64| us as f64 / 1_000.0;
        let mut slices = meter.points_a_second.clone();
        slices.sort_unstable();
        json!({
            "seconds": meter.seconds,
            "messages": tally.answered_messages,
            "points": points,
            "pointsUnique": tally.answered.rows() * POINTS.len() as u64,
            "rowsUnique": tally.answered.rows(),
            "payloadBytes": tally.answered_payload_bytes,
            "unanswered": links.iter().map(Link::in_flight).sum::<usize>(),
            "refused": tally.refused,
            "firstRefusal": tally.first_refusal,
            "pointsPerSecond": points as f64 / meter.seconds,
            "pointsPerSecondMedian": slices.get(slices.len() / 2),
            "pointsPerSecondSlowest": slices.first(),
            "pointsASecond": meter.points_a_second,
            "serverCpuSeconds": meter.cpu_s,
            "generatorCpuSeconds": meter.generator_cpu_s,
            "pointsPerServerCpuSecond": points as f64 / server_cpu_s,
            "serverResidentBytesMax": meter.resident_bytes_max,
            "latencyMs": {
                "p50": ms(latency.value_at_quantile(0.5)),
                "p99": ms(latency.value_at_quantile(0.99)),
                "p999": ms(latency.value_at_quantile(0.999)),
                "max": ms(latency.max()),
            },
        })
    }
}

fn wait(links: &mut [Link], at_most: Duration, tally: &mut Tally) -> Result<()> {
    let ready: Vec<bool> = {
        let flags = |link: &Link| match link.wants_to_write() {
            true => PollFlags::IN | PollFlags::OUT,
            false => PollFlags::IN,
        };
        let mut fds: Vec<PollFd<'_>> = links
            .iter()
            .map(|link| PollFd::new(&link.stream, flags(link)))
            .collect();
        let at_most = Timespec {
            tv_sec: at_most.as_secs() as i64,
            tv_nsec: at_most.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut fds, Some(&at_most)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        fds.iter()
            .map(|fd| {
                fd.revents()
                    .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            })
            .collect()
    };
    for (link, _) in links.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
        link.receive(tally)?;
    }
    Ok(())
}

/// Clocks beside the run: wall, CPU of everyone, memory, answers by the second.
struct Meter {
    started: Instant,
    watched: Vec<Watched>,
    cpu_before_s: Vec<f64>,
    generator_before_s: f64,
    next_look: Instant,
    next_slice: Instant,
    rows_before_slice: u64,

    seconds: f64,
    cpu_s: BTreeMap<String, f64>,
    generator_cpu_s: f64,
    resident_bytes_max: BTreeMap<String, u64>,
    points_a_second: Vec<u64>,
}

const LOOK: Duration = Duration::from_millis(200);
const SLICE: Duration = Duration::from_secs(1);

impl Meter {
    fn start(watched: &[Watched]) -> Result<Self> {
        let cpu_before_s = watched.iter().map(Watched::cpu_s).collect::<Result<_>>()?;
        let started = Instant::now();
        Ok(Self {
            started,
            watched: watched.to_vec(),
            cpu_before_s,
            generator_before_s: Watched::this().cpu_s()?,
            next_look: started,
            next_slice: started + SLICE,
            rows_before_slice: 0,
            seconds: 0.0,
            cpu_s: BTreeMap::new(),
            generator_cpu_s: 0.0,
            resident_bytes_max: BTreeMap::new(),
            points_a_second: Vec::new(),
        })
    }

    fn tick(&mut self, now: Instant, rows: u64) -> Result<()> {
        if now >= self.next_look {
            self.next_look = now + LOOK;
            for process in &self.watched {
                let max = self
                    .resident_bytes_max
                    .entry(process.name.clone())
                    .or_default();
                *max = (*max).max(process.resident_bytes()?);
            }
        }
        if now >= self.next_slice {
            let late = now - self.next_slice;
            let slice_s = (SLICE + late).as_secs_f64();
            let points = (rows - self.rows_before_slice) * POINTS.len() as u64;
            self.points_a_second.push((points as f64 / slice_s) as u64);
            self.rows_before_slice = rows;
            self.next_slice = now + SLICE;
        }
        Ok(())
    }

    fn stop(&mut self, last_answer: Instant) -> Result<()> {
        self.seconds = (last_answer - self.started).as_secs_f64();
        self.generator_cpu_s = Watched::this().cpu_s()? - self.generator_before_s;
        for (process, before) in self.watched.iter().zip(&self.cpu_before_s) {
            self.cpu_s
                .insert(process.name.clone(), process.cpu_s()? - before);
        }
        Ok(())
    }
}

impl Idle {
    fn run(&self) -> Result<()> {
        let door = &self.door;
        let filter = format!("{}_reply", message::request_topic(&door.product_key));
        let resident = || {
            door.watch
                .iter()
                .map(Watched::resident_bytes)
                .sum::<Result<u64>>()
        };
        let before = resident()?;
        let started = Instant::now();
        let streams = (0..self.connections)
            .map(|client| mqtt::open(door.address, &door.login(), client.into(), true, &filter))
            .collect::<Result<Vec<_>>>()?;
        let seconds = started.elapsed().as_secs_f64();
        let after = resident()?;
        let report = json!({
            "connections": streams.len(),
            "seconds": seconds,
            "residentBytesBefore": before,
            "residentBytesAfter": after,
            "residentBytesPerConnection": (after as f64 - before as f64) / streams.len() as f64,
        });
        println!("{report}");
        Ok(())
    }
}

impl Pull {
    fn run(&self) -> Result<()> {
        let door = &self.door;
        let mut session = Session::open(door.address, &door.login(), &self.group)?;
        let cpu_s = |watched: &[Watched]| watched.iter().map(Watched::cpu_s).sum::<Result<f64>>();
        let (server_before_s, own_before_s) = (cpu_s(&door.watch)?, Watched::this().cpu_s()?);
        let started = Instant::now();
        let (mut messages, mut bytes, mut committed) = (0, 0, started);
        while messages < self.messages {
            session.ask()?;
            let pulled = session.pulled()?;
            messages += pulled.messages;
            bytes += pulled.bytes;
            // As often as an SDK does.
            if committed.elapsed() >= COMMIT_EVERY {
                session.commit()?;
                committed = Instant::now();
            }
        }
        session.commit()?;
        let seconds = started.elapsed().as_secs_f64();
        let server_cpu_s = cpu_s(&door.watch)? - server_before_s;
        let report = json!({
            "messages": messages,
            "bytes": bytes,
            "seconds": seconds,
            "serverCpuSeconds": server_cpu_s,
            "generatorCpuSeconds": Watched::this().cpu_s()? - own_before_s,
        });
        println!("{report}");
        Ok(())
    }
}

impl Wait {
    fn run(&self) -> Result<()> {
        let door = &self.door;
        let resident = || door.watch.iter().map(Watched::resident_bytes).sum::<Result<u64>>();
        // What the first one brings about is no cost of each.
        Session::open(door.address, &door.login(), "g0")?;
        let before = resident()?;
        let started = Instant::now();
        let mut sessions = Vec::new();
        for number in 0..self.sessions {
            let group = format!("g{}", number % self.groups);
            let mut session = Session::open(door.address, &door.login(), &group)?;
            session.ask()?;
            sessions.push(session);
        }
        let seconds = started.elapsed().as_secs_f64();
        // Every one of them was answered empty, and waits again.
        for session in &mut sessions {
            session.pulled()?;
            session.ask()?;
        }
        let after = resident()?;
        let report = json!({
            "connections": sessions.len(),
            "seconds": seconds,
            "residentBytesPerConnection": (after as f64 - before as f64) / sessions.len() as f64,
        });
        println!("{report}");
        Ok(())
    }
}

/// How often a subscriber says how far it is.
const COMMIT_EVERY: Duration = Duration::from_secs(3);

impl SubscriptionDoor {
    fn login(&self) -> subscription::Login {
        subscription::Login {
            access_key: self.access_key.clone(),
            secret: self.secret.clone(),
            subscription: self.subscription.clone(),
        }
    }
}

impl Door {
    fn login(&self) -> Login {
        Login {
            product_key: self.product_key.clone(),
            secret: self.secret.clone(),
        }
    }
}
