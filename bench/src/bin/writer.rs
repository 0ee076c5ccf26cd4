//! The small writer that a user would put between a broker and a database: subscribes with QoS 1,
//! takes whatever has arrived (up to 64 messages) as one batch, commits it to the database, and only
//! then acknowledges and replies. Two batches are written side by side, to keep two cores busy.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use backtide_bench::mqtt::{self, Frame, Login};
use clap::{Parser, ValueEnum};
use serde::Deserialize;

#[derive(Parser)]
#[command(about = "MQTT to database, as a user would write it")]
struct Arguments {
    #[arg(long)]
    broker: SocketAddr,
    #[arg(long)]
    database: Database,
    /// InfluxDB: HOST:PORT. PostgreSQL: a connection string.
    #[arg(long)]
    to: String,
    #[arg(long, default_value_t = 2)]
    writers: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Database {
    Influxdb,
    Postgresql,
}

/// 6 400 rows where a message holds 100: what InfluxDB recommends for one request.
const BATCH_MESSAGES: usize = 64;
const QUEUE_MESSAGES: usize = 1_024;
const FILTER: &str = "/sys/+/integration/measurepoint/post";

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let login = Login {
        product_key: "writer".into(),
        secret: String::new(),
    };
    let broker = mqtt::open(arguments.broker, &login, 0, false, FILTER)?;
    let queue = Arc::new(Queue::default());
    let replies = Arc::new(Mutex::new(broker.try_clone()?));
    for _ in 0..arguments.writers {
        let mut table = open(arguments.database, &arguments.to)?;
        let (queue, replies) = (queue.clone(), replies.clone());
        std::thread::spawn(move || {
            if let Err(error) = write_batches(&queue, table.as_mut(), &replies) {
                eprintln!("writer: {error:#}");
                std::process::exit(1);
            }
        });
    }
    println!("ready");
    read_messages(broker, &queue)
}

struct Message {
    packet: u16,
    topic: String,
    payload: Vec<u8>,
}

/// Bounded: while it is full, nothing more is read from the broker.
#[derive(Default)]
struct Queue {
    messages: Mutex<VecDeque<Message>>,
    changed: Condvar,
}

impl Queue {
    fn push(&self, message: Message) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        while messages.len() >= QUEUE_MESSAGES {
            messages = self
                .changed
                .wait(messages)
                .unwrap_or_else(PoisonError::into_inner);
        }
        messages.push_back(message);
        drop(messages);
        self.changed.notify_all();
    }

    fn take_batch(&self) -> Vec<Message> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        while messages.is_empty() {
            messages = self
                .changed
                .wait(messages)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let end = messages.len().min(BATCH_MESSAGES);
        let batch = messages.drain(..end).collect();
        drop(messages);
        self.changed.notify_all();
        batch
    }
}

fn read_messages(mut broker: TcpStream, queue: &Queue) -> Result<()> {
    let mut inbox = vec![0; 1 << 20];
    let mut filled = 0;
    loop {
        let bytes = broker.read(&mut inbox[filled..])?;
        ensure!(bytes > 0, "the broker closed the connection");
        filled += bytes;
        let mut used = 0;
        while let Some((frame, bytes)) = Frame::first(&inbox[used..filled])? {
            used += bytes;
            if frame.kind() != mqtt::PUBLISH {
                continue;
            }
            let publish = frame.publish()?;
            let packet = publish.packet.context("a message without QoS 1")?;
            queue.push(Message {
                packet,
                topic: publish.topic.to_owned(),
                payload: publish.payload.to_vec(),
            });
        }
        inbox.copy_within(used..filled, 0);
        filled -= used;
    }
}

fn write_batches(queue: &Queue, table: &mut dyn Table, replies: &Mutex<TcpStream>) -> Result<()> {
    loop {
        let batch = queue.take_batch();
        let messages = batch
            .iter()
            .map(|message| serde_json::from_slice(&message.payload).context("no message"));
        let messages: Vec<Envelope<'_>> = messages.collect::<Result<_>>()?;
        table.write(&messages)?;

        let mut out = Vec::new();
        for (message, envelope) in batch.iter().zip(&messages) {
            let reply = format!("{{\"id\":\"{}\",\"code\":200,\"data\":{{}}}}", envelope.id);
            mqtt::puback(&mut out, message.packet);
            mqtt::publish(
                &mut out,
                &format!("{}_reply", message.topic),
                None,
                reply.as_bytes(),
            );
        }
        replies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&out)?;
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    id: &'a str,
    #[serde(borrow)]
    params: Vec<Item<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    device_key: &'a str,
    /// Epoch milliseconds.
    time: i64,
    measurepoints: Points,
}

#[derive(Deserialize, Clone, Copy)]
#[expect(non_snake_case, reason = "the points' own names")]
struct Points {
    Ba_avg: f64,
    P_avg: f64,
    Ws_avg: f64,
    Va_avg: f64,
    Ot_avg: f64,
    Ya_avg: f64,
    Wa_avg: f64,
}

impl Points {
    fn named(&self) -> [(&'static str, f64); 7] {
        [
            ("Ba_avg", self.Ba_avg),
            ("P_avg", self.P_avg),
            ("Ws_avg", self.Ws_avg),
            ("Va_avg", self.Va_avg),
            ("Ot_avg", self.Ot_avg),
            ("Ya_avg", self.Ya_avg),
            ("Wa_avg", self.Wa_avg),
        ]
    }
}

trait Table {
    /// Returns once the database has committed every row.
    fn write(&mut self, messages: &[Envelope<'_>]) -> Result<()>;
}

fn open(database: Database, to: &str) -> Result<Box<dyn Table + Send>> {
    Ok(match database {
        Database::Influxdb => Box::new(Influxdb::open(to)?),
        Database::Postgresql => Box::new(Postgresql::open(to)?),
    })
}

/// Line protocol over one kept-alive HTTP connection.
struct Influxdb {
    host: String,
    stream: BufReader<TcpStream>,
    lines: Vec<u8>,
}

impl Influxdb {
    fn open(host: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(host).with_context(|| format!("no connection to {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            host: host.to_owned(),
            stream: BufReader::new(stream),
            lines: Vec::new(),
        })
    }

    fn answer(&mut self) -> Result<()> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(
                self.stream.read_line(&mut head)? > 0,
                "InfluxDB closed the connection"
            );
        }
        if !head.starts_with("HTTP/1.1 204") {
            bail!("InfluxDB answered {head}");
        }
        Ok(())
    }
}

impl Table for Influxdb {
    fn write(&mut self, messages: &[Envelope<'_>]) -> Result<()> {
        let lines = &mut self.lines;
        let mut digits = ryu::Buffer::new();
        lines.clear();
        for item in messages.iter().flat_map(|message| &message.params) {
            lines.extend_from_slice(b"turbine,device=");
            lines.extend_from_slice(item.device_key.as_bytes());
            for (n, (name, value)) in item.measurepoints.named().into_iter().enumerate() {
                lines.push(if n == 0 { b' ' } else { b',' });
                lines.extend_from_slice(name.as_bytes());
                lines.push(b'=');
                lines.extend_from_slice(digits.format(value).as_bytes());
            }
            writeln!(lines, " {}", item.time)?;
        }
        let head = format!(
            "POST /write?db=bench&precision=ms HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            self.lines.len()
        );
        self.stream.get_mut().write_all(head.as_bytes())?;
        self.stream.get_mut().write_all(&self.lines)?;
        self.answer()
    }
}

/// One wide upsert for a batch, by arrays.
struct Postgresql {
    client: postgres::Client,
    upsert: postgres::Statement,
    ids: HashMap<String, i32>,
}

impl Postgresql {
    fn open(to: &str) -> Result<Self> {
        let mut client = postgres::Client::connect(to, postgres::NoTls)
            .context("no connection to PostgreSQL")?;
        let upsert = client.prepare(
            "INSERT INTO turbine (device, time, ba_avg, p_avg, ws_avg, va_avg, ot_avg, ya_avg, wa_avg) \
             SELECT * FROM unnest($1::int[], $2::timestamptz[], $3::float8[], $4::float8[], $5::float8[], \
             $6::float8[], $7::float8[], $8::float8[], $9::float8[]) \
             ON CONFLICT (device, time) DO UPDATE SET ba_avg = EXCLUDED.ba_avg, p_avg = EXCLUDED.p_avg, \
             ws_avg = EXCLUDED.ws_avg, va_avg = EXCLUDED.va_avg, ot_avg = EXCLUDED.ot_avg, \
             ya_avg = EXCLUDED.ya_avg, wa_avg = EXCLUDED.wa_avg",
        )?;
        let ids = client.query("SELECT key, id FROM device", &[])?;
        let ids = ids.iter().map(|row| (row.get(0), row.get(1))).collect();
        Ok(Self {
            client,
            upsert,
            ids,
        })
    }
}

impl Table for Postgresql {
    fn write(&mut self, messages: &[Envelope<'_>]) -> Result<()> {
        let mut rows = Vec::new();
        for item in messages.iter().flat_map(|message| &message.params) {
            let id = self.ids.get(item.device_key);
            let id = *id.with_context(|| format!("no device {}", item.device_key))?;
            rows.push((
                (id, item.time),
                item.measurepoints.named().map(|(_, value)| value),
            ));
        }
        // One command may touch a row once, and two commands must touch rows in one order.
        rows.sort_by_key(|(key, _)| *key);
        rows.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = later.1;
            }
            same
        });
        let moment = |ms: i64| SystemTime::UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs());
        let devices: Vec<i32> = rows.iter().map(|((id, _), _)| *id).collect();
        let times: Vec<SystemTime> = rows.iter().map(|((_, time), _)| moment(*time)).collect();
        let point = |p: usize| {
            rows.iter()
                .map(|(_, values)| values[p])
                .collect::<Vec<f64>>()
        };
        let points: [Vec<f64>; 7] = std::array::from_fn(point);
        let [ba, p, ws, va, ot, ya, wa] = &points;
        self.client
            .execute(&self.upsert, &[&devices, &times, ba, p, ws, va, ot, ya, wa])?;
        Ok(())
    }
}
