//! `backtide demo`: a gateway on embedded defaults, real history sent through its own MQTT door,
//! read back.
//!
//! Nothing here takes a short cut: the objects are applied and the rows are read over HTTP, and the
//! sender is that of `backtide send`.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use backtide_model::Items;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

use super::{
    Connection, Exit, Failure, Terminal,
    client::Client,
    query,
    send::{
        self,
        delivery::{self, End, Job, Tally},
        progress::Progress,
        target::Target,
    },
    serve::runtime,
};
use crate::{
    app::{self, Running},
    clock::Clock,
    config::{Overrides, Raw},
    files::{mapping::Mapping, source::Source},
    telemetry,
};

const FARM: &[u8] = include_bytes!("../../../../examples/la-haute-borne/farm.yaml");
const SAMPLE: &[u8] = include_bytes!("../../../../examples/la-haute-borne/sample.csv");
const DEVICE_COLUMN: &str = "Wind_turbine_name";
const TIME_COLUMN: &str = "Date_time";
const CHANNEL: &str = "scada-history";
/// The morning on which the clocks went forward.
const SHOWN: &str = "--device R80711 --points P_avg,Ws_avg,Ot_avg \
                     --from 2014-03-30T00:30:00Z --to 2014-03-30T01:30:00Z";

#[derive(Debug, clap::Args)]
pub struct Demo {
    /// End after the read-back instead of staying up until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Address of the MQTT door [default: 127.0.0.1:11883, or a free port]
    #[arg(long, value_name = "ADDR")]
    mqtt: Option<SocketAddr>,
    /// Address of the HTTP door [default: 127.0.0.1:8080, or a free port]
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Address of the subscription door [default: 127.0.0.1:9001, or a free port]
    #[arg(long, value_name = "ADDR")]
    subscribe: Option<SocketAddr>,
}

impl Demo {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let folder = Folder::new(connection.data_dir.as_deref())?;
        let runtime = runtime()?;
        let running = self.start(&runtime, folder.path(), terminal)?;
        let url = format!("http://{}", running.addresses.http);
        let doors = Doors {
            url: &url,
            postgres: running.addresses.postgres,
        };
        let outcome = self.show(&runtime, &doors, folder.path(), terminal);
        runtime.block_on(running.stop());
        outcome
    }

    fn start(
        &self,
        runtime: &Runtime,
        data_dir: &Path,
        terminal: &mut Terminal,
    ) -> Result<Running, Failure> {
        let overrides = Overrides {
            data_dir: Some(data_dir.to_owned()),
            mqtt: Some(free_or_own(self.mqtt, "MQTT", 11_883, terminal)?),
            http: Some(free_or_own(self.http, "HTTP", 8_080, terminal)?),
            subscribe: Some(free_or_own(
                self.subscribe,
                "subscriptions",
                9_001,
                terminal,
            )?),
            postgres: match cfg!(feature = "sql") {
                true => Some(free_or_own(None, "PostgreSQL", 5_433, terminal)?),
                false => None,
            },
            ..Overrides::default()
        };
        let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
        let config = Raw::read(None, overrides)
            .and_then(Raw::check)
            .map_err(|e| failed(&e))?;
        // Only what is wrong: the rest of the screen is the demo's.
        telemetry::log_to_stderr(config.log.format, "warn").map_err(|e| failed(&e))?;
        runtime.block_on(app::start(config)).map_err(|e| failed(&e))
    }

    /// Everything that a user would do by hand.
    fn show(
        &self,
        runtime: &Runtime,
        doors: &Doors<'_>,
        data_dir: &Path,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let connection = Connection {
            url: doors.url.to_owned(),
            token: None,
            data_dir: Some(data_dir.to_owned()),
        };
        let client = Client::new(&connection)?;
        let _: Box<RawValue> = client.post("/api/v1/apply", &[], "application/yaml", FARM)?;
        let target = Target::ask(&client, CHANNEL, Items::Points)?;
        writeln!(
            terminal.out,
            "a gateway is up, the wind farm La Haute Borne is declared"
        )?;
        terminal.out.flush()?;

        let (tally, end) = load(runtime, &target, &mut *terminal.talk)?;
        match end {
            End::Complete(_) => {}
            End::Interrupted => return Err(Failure::Failed("interrupted".to_owned())),
            End::GaveUp(error) => return Err(Failure::Failed(error.to_string())),
            End::Source(error) => return Err(Failure::Failed(error.to_string())),
        }
        let out = &mut *terminal.out;
        writeln!(
            out,
            "sent over MQTT, every message answered: {} rows, {} values, {} messages in {:.1} s",
            tally.rows,
            tally.values,
            tally.messages,
            tally.begun.elapsed().as_secs_f64()
        )?;
        read_back(&client, out)?;
        tell_strings(&target, out)?;
        self.tell_more(doors, data_dir, out)?;
        out.flush()?;
        if tally.rejected > 0 {
            return Ok(Exit::Partial);
        }
        if !self.once {
            let failed = |error| Failure::io("signals cannot be taken", error);
            // The listener for signals is made inside the runtime.
            runtime
                .block_on(async {
                    send::stop_signal()?.await;
                    Ok(())
                })
                .map_err(failed)?;
        }
        Ok(Exit::Ok)
    }

    fn tell_more(&self, doors: &Doors<'_>, data_dir: &Path, out: &mut dyn Write) -> io::Result<()> {
        if self.once {
            return Ok(());
        }
        let url = doors.url;
        let environment = format!(
            "{}BACKTIDE_URL={url} BACKTIDE__DATA_DIR={}",
            own_folder_first(),
            data_dir.display()
        );
        writeln!(
            out,
            "\nIn another terminal:\n  export {environment}\n  \
             backtide query {SHOWN} -o csv\n  backtide conflicts\n  \
             backtide channel log {CHANNEL} -f\n\nAPI: {url}/api/openapi.json · \
             metrics: {url}/metrics\n\
             Console: {url}/ · its first sign-in takes the token in {}",
            data_dir.join("admin.token").display()
        )?;
        if let Some(postgres) = doors.postgres {
            writeln!(
                out,
                "PostgreSQL: psql -h {} -p {} -U demo backtide · the password is the same token",
                postgres.ip(),
                postgres.port()
            )?;
        }
        writeln!(out, "Ctrl-C ends it.")
    }
}

/// Where to look at what the demo did.
struct Doors<'a> {
    url: &'a str,
    /// In a binary built with SQL.
    postgres: Option<SocketAddr>,
}

/// Puts the folder of this program first in the path of a shell: `make demo` does not install it.
fn own_folder_first() -> String {
    let own = std::env::current_exe().ok();
    own.as_deref()
        .and_then(Path::parent)
        .map(|folder| format!("PATH=\"{}:$PATH\" ", folder.display()))
        .unwrap_or_default()
}

/// The data directory: the given one, or one that goes with the demo.
enum Folder {
    Given(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    fn new(given: Option<&Path>) -> Result<Self, Failure> {
        if let Some(given) = given {
            return Ok(Self::Given(given.to_owned()));
        }
        let made = tempfile::Builder::new().prefix("backtide-demo-").tempdir();
        let failed = |error| Failure::io("no temporary directory can be made", error);
        made.map(Self::Temporary).map_err(failed)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// The address that is asked for, or the default one, or a free port where that is taken.
fn free_or_own(
    given: Option<SocketAddr>,
    door: &str,
    port: u16,
    terminal: &mut Terminal,
) -> Result<SocketAddr, Failure> {
    let usual = SocketAddr::from(([127, 0, 0, 1], port));
    if let Some(given) = given {
        return Ok(given);
    }
    if TcpListener::bind(usual).is_ok() {
        return Ok(usual);
    }
    writeln!(
        terminal.talk,
        "port {port} is busy: the {door} door takes a free one"
    )?;
    Ok(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn load(runtime: &Runtime, target: &Target, talk: &mut dyn Write) -> Result<(Tally, End), Failure> {
    let mapping = Mapping {
        device_column: Some(DEVICE_COLUMN.to_owned()),
        time_column: Some(TIME_COLUMN.to_owned()),
        ..Mapping::default()
    };
    let source = Source::of_csv(SAMPLE, &mapping, &target.points)
        .map_err(|error| Failure::Failed(format!("the sample: {error}")))?;
    let job = Job {
        source,
        start_row: 0,
        logins: target.logins(1, Clock::system().now_ms())?,
        rows_max: 200,
        window: 32,
        run: send::run_id(),
    };
    let mut progress = Progress::new(talk);
    let delivered = runtime.block_on(async {
        let stop = send::stop_signal()?;
        Ok(delivery::deliver(job, stop, |sight| progress.see(&sight)).await)
    });
    progress.finish();
    delivered.map_err(|error: io::Error| Failure::io("signals cannot be taken", error))
}

/// Counts what is stored, shows a piece of it and what was found on the way.
fn read_back(client: &Client, out: &mut dyn Write) -> Result<(), Failure> {
    let _: Box<RawValue> = client.post("/api/v1/store/compact", &[], "application/json", b"")?;
    let all = [("product", "wind-farm"), ("format", "csv")];
    let (mut rows, mut values) = (0_u64, 0_u64);
    let lines = BufReader::new(client.get_stream("/api/v1/points", &all, "text/csv")?).lines();
    for line in lines.skip(1) {
        let line = line.map_err(|error| Failure::io("the gateway's answer breaks off", error))?;
        rows += 1;
        let cells = line
            .split(',')
            .skip(2)
            .filter(|cell| !cell.is_empty())
            .count();
        values += u64::try_from(cells).expect("a usize fits 64 bits");
    }
    writeln!(
        out,
        "read back: {rows} rows, {values} values. A piece of it:\n"
    )?;
    let piece = [
        ("device", "R80711"),
        ("points", "P_avg,Ws_avg,Ot_avg"),
        ("from", "2014-03-30T00:30:00Z"),
        ("to", "2014-03-30T01:30:00Z"),
        ("format", "csv"),
    ];
    query::table(
        client.get_stream("/api/v1/points", &piece, "text/csv")?,
        2,
        out,
    )?;
    let conflicts: Total = client.get("/api/v1/conflicts", &[("limit", "1")])?;
    let rows: Total = client.get("/api/v1/conflicts", &[("limit", "1"), ("by", "row")])?;
    writeln!(
        out,
        "\nOn that morning the clocks went forward, and the exporter wrote some moments twice:\n\
         {} values in {} rows were overwritten by different ones. `backtide conflicts` has both.",
        conflicts.total, rows.total
    )?;
    Ok(())
}

#[derive(Deserialize)]
struct Total {
    total: u64,
}

fn tell_strings(target: &Target, out: &mut dyn Write) -> io::Result<()> {
    let strings = target.strings();
    writeln!(out, "\nTo connect any MQTT client:")?;
    writeln!(out, "  broker URL  {}", strings.broker_url)?;
    writeln!(out, "  client id   {}", strings.client_id)?;
    writeln!(out, "  user name   {}", strings.username)?;
    writeln!(out, "  password    {}", strings.password)
}
