//! `backtide query`: points, what is computed of them, events or attributes by device, name and time.

use std::io::{self, BufRead, BufReader, Read, Write};

use super::{
    Connection, Exit, Failure, Terminal,
    client::{Client, segment},
    listing::given,
    output::Format,
};

/// Rows of a table that are laid out together.
const TABLE_ROWS: usize = 1_000;

#[derive(Debug, clap::Args)]
pub struct Query {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    computed: Computed,
    /// Print what is there of each point, and what is missing
    #[arg(long, conflicts_with_all = ["aggregate", "quality", "long", "events", "attributes"])]
    coverage: bool,
    /// With --coverage: tell spans longer than this that have no value, such as 1h
    #[arg(
        long,
        value_name = "SPAN",
        requires = "coverage",
        conflicts_with = "interval"
    )]
    gap: Option<String>,
    /// Print the windows of a rollup, which are computed already
    #[arg(long, value_name = "NAME", conflicts_with_all = ["aggregate", "interval", "coverage", "filter", "quality", "events", "attributes"])]
    rollup: Option<String>,
    /// Print the values that a reduction keeps
    #[arg(long, value_name = "NAME", conflicts_with_all = ["rollup", "points", "aggregate", "interval", "coverage", "filter", "quality", "events", "attributes", "long"])]
    reduction: Option<String>,
    /// With --reduction: all values, each with what is said of it
    #[arg(long, requires = "reduction")]
    processing: bool,
    #[command(flatten)]
    records: Records,
    /// Rows at most
    #[arg(long)]
    limit: Option<usize>,
    /// Show the quality of values that have one
    #[arg(long)]
    quality: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Which products, devices, points and times.
#[derive(Debug, clap::Args)]
pub struct Selection {
    /// Product; may be left out where the device is unambiguous
    #[arg(long)]
    product: Option<String>,
    /// Device keys, separated by commas [default: all of the product]
    #[arg(long)]
    device: Option<String>,
    /// Points, separated by commas [default: all of the model]
    #[arg(long)]
    points: Option<String>,
    /// Begin, inclusive: ISO time, milliseconds since 1970, or local time in --timezone
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// End, exclusive
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Where times without an offset are local and days begin, such as Europe/Paris [default: UTC]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
}

/// What else than points.
#[derive(Debug, clap::Args)]
pub struct Records {
    /// Events instead of points
    #[arg(long, conflicts_with_all = ["attributes", "points", "quality", "aggregate", "filter", "long"])]
    events: bool,
    /// With --events: only these, separated by commas
    #[arg(long, requires = "events")]
    event: Option<String>,
    /// The values of attributes instead of points
    #[arg(long, conflicts_with_all = ["points", "quality", "from", "to", "timezone", "aggregate", "filter", "long"])]
    attributes: bool,
    /// With --attributes: only these, separated by commas
    #[arg(long, requires = "attributes")]
    attribute: Option<String>,
    /// With --attributes: the earlier values too, oldest first
    #[arg(long, requires = "attributes")]
    history: bool,
}

impl Records {
    /// Where to ask; `None` for points.
    pub(super) fn path(&self) -> Option<&'static str> {
        match (self.events, self.attributes) {
            (true, _) => Some("/api/v1/events"),
            (_, true) => Some("/api/v1/attributes"),
            (false, false) => None,
        }
    }

    /// What to ask beside the selection.
    pub(super) fn asked(&self) -> [(&'static str, Option<String>); 3] {
        [
            ("event", self.event.clone()),
            ("attribute", self.attribute.clone()),
            ("history", self.history.then(|| "true".to_owned())),
        ]
    }
}

/// What is computed of points, and which of their values count.
#[derive(Debug, clap::Args)]
pub struct Computed {
    /// Functions, separated by commas: count, sum, min, max, avg, first, last, twa, durations,
    /// increase, stddev, firstTime, lastTime
    #[arg(long, value_name = "FUNCTIONS", conflicts_with = "quality")]
    aggregate: Option<String>,
    /// A row for each: 10m, 1h, 1d, 1mo [default: one for the whole range]
    #[arg(long)]
    interval: Option<String>,
    /// With --aggregate: what stands where an interval has no result
    #[arg(long, requires = "aggregate", value_parser = ["none", "null", "previous", "linear"])]
    fill: Option<String>,
    /// With --aggregate: how long a value holds at most, for twa and durations
    #[arg(long, value_name = "SPAN", requires = "aggregate")]
    hold: Option<String>,
    /// With --aggregate: how far before --from the value before is looked for [default: 1d]
    #[arg(long, value_name = "SPAN", requires = "aggregate")]
    lookback: Option<String>,
    /// Only values for which comparisons hold, such as 'P_avg>=0,P_avg.quality<3'
    #[arg(long)]
    filter: Option<String>,
    /// A row for each point instead of each device and time
    #[arg(long)]
    long: bool,
}

impl Computed {
    /// Where to ask, and what to ask beside the selection.
    pub(super) fn asked(&self) -> (&'static str, [(&'static str, Option<String>); 7]) {
        let path = match self.aggregate {
            Some(_) => "/api/v1/points/aggregates",
            None => "/api/v1/points",
        };
        let asked = [
            ("aggregate", self.aggregate.clone()),
            ("interval", self.interval.clone()),
            ("fill", self.fill.clone()),
            ("hold", self.hold.clone()),
            ("lookback", self.lookback.clone()),
            ("filter", self.filter.clone()),
            ("form", self.long.then(|| "long".to_owned())),
        ];
        (path, asked)
    }

    /// # Errors
    /// An interval of nothing.
    pub(super) fn check(&self, coverage: bool) -> Result<(), Failure> {
        match self.interval.is_some() && self.aggregate.is_none() && !coverage {
            true => Err(Failure::Usage(
                "--interval is of --aggregate or --coverage; add one of them".to_owned(),
            )),
            false => Ok(()),
        }
    }
}

impl Selection {
    /// Asks for the rows as a stream of bytes in this format.
    pub(super) fn ask(
        &self,
        client: &Client,
        path: &str,
        format: &str,
        more: &[(&str, &Option<String>)],
    ) -> Result<impl Read + use<>, Failure> {
        let mut query = given(&[
            ("product", &self.product),
            ("device", &self.device),
            ("points", &self.points),
            ("from", &self.from),
            ("to", &self.to),
            ("timezone", &self.timezone),
        ]);
        query.push(("format", format));
        query.extend(given(more));
        client.get_stream(path, &query, "*/*")
    }
}

impl Query {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        self.computed.check(self.coverage)?;
        let client = Client::new(connection)?;
        let format = match self.output {
            Format::Ndjson | Format::Json => "ndjson",
            Format::Csv | Format::Table => "csv",
        };
        let limit = self.limit.map(|limit| limit.to_string());
        let given = |flag: bool| flag.then(|| "true".to_owned());
        let (quality, processing) = (given(self.quality), given(self.processing));
        let (path, computed) = self.computed.asked();
        let records = self.records.asked();
        let mut more = vec![
            ("limit", &limit),
            ("gap", &self.gap),
            ("quality", &quality),
            ("reduction", &self.reduction),
            ("processing", &processing),
        ];
        let further = computed.iter().chain(&records);
        more.extend(further.map(|(name, value)| (*name, value)));
        // What is text stands to the left, numbers to the right.
        let (path, texts) = match self.records.path() {
            Some(path) => (path, usize::MAX),
            None if self.coverage => ("/api/v1/points/coverage", 3),
            _ if self.computed.long => (path, 3),
            _ => (path, 2),
        };
        let of_rollup = self.rollup.as_deref();
        let of_rollup = of_rollup.map(|name| format!("/api/v1/rollups/{}/rows", segment(name)));
        let path = match (&of_rollup, &self.reduction) {
            (Some(path), _) => path,
            (None, Some(_)) => "/api/v1/points/reduced",
            (None, None) => path,
        };
        let answer = self.selection.ask(&client, path, format, &more)?;
        let out = &mut *terminal.out;
        match self.output {
            Format::Ndjson | Format::Csv => copy(answer, out)?,
            Format::Json => array(BufReader::new(answer), out)?,
            Format::Table => table(answer, texts, out)?,
        }
        Ok(Exit::Ok)
    }
}

/// Copies an answer; tells an answer that breaks off from an output that does.
pub(super) fn copy(mut answer: impl Read, out: &mut dyn Write) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = answer.read(&mut buffer).map_err(broken_off)?;
        if count == 0 {
            return Ok(());
        }
        out.write_all(&buffer[..count])?;
    }
}

fn broken_off(error: io::Error) -> Failure {
    Failure::io("the gateway's answer breaks off", error)
}

/// Lines as the items of an array.
fn array(lines: impl BufRead, out: &mut dyn Write) -> Result<(), Failure> {
    let mut separator = "[\n";
    for line in lines.lines() {
        write!(out, "{separator}  {}", line.map_err(broken_off)?)?;
        separator = ",\n";
    }
    writeln!(out, "{}", if separator == "[\n" { "[]" } else { "\n]" })?;
    Ok(())
}

/// CSV as a table, its first `texts` columns to the left. The first rows decide how wide it is; longer
/// ones later stick out.
pub(super) fn table(answer: impl Read, texts: usize, out: &mut dyn Write) -> Result<(), Failure> {
    let broken = |error: csv::Error| broken_off(io::Error::from(error));
    let mut reader = csv::Reader::from_reader(answer);
    let titles = reader.headers().map_err(broken)?.clone();
    let mut widths: Option<Vec<usize>> = None;
    let mut rows = Vec::new();
    let mut records = reader.records();
    loop {
        rows.clear();
        for record in records.by_ref().take(TABLE_ROWS) {
            rows.push(record.map_err(broken)?);
        }
        if rows.is_empty() && widths.is_some() {
            return Ok(());
        }
        let lay_out = || {
            let cells = |at: usize| {
                rows.iter()
                    .chain([&titles])
                    .filter_map(move |row| row.get(at))
            };
            let width = |at| {
                cells(at)
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            };
            (0..titles.len()).map(width).collect::<Vec<_>>()
        };
        let is_first = widths.is_none();
        let widths = widths.get_or_insert_with(lay_out);
        for row in is_first.then_some(&titles).into_iter().chain(&rows) {
            let cells: Vec<String> = row
                .iter()
                .zip(widths.iter())
                .enumerate()
                .map(|(at, (cell, width))| match at < texts {
                    true => format!("{cell:<width$}"),
                    false => format!("{cell:>width$}"),
                })
                .collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_numbers_stand_to_the_right() {
        let csv = "deviceKey,time,P_avg,Ws_avg\nR80711,2014-01-01T00:00:00.000Z,642.78003,\nR1,x,-1,2.5\n";
        let mut out = Vec::new();
        table(csv.as_bytes(), 2, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "deviceKey  time                          P_avg  Ws_avg\n\
             R80711     2014-01-01T00:00:00.000Z  642.78003\n\
             R1         x                                -1     2.5\n"
        );
    }

    #[test]
    fn lines_become_an_array_and_none_an_empty_one() {
        let printed = |lines: &str| {
            let mut out = Vec::new();
            array(lines.as_bytes(), &mut out).unwrap();
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()
        };
        assert_eq!(printed(""), serde_json::json!([]));
        assert_eq!(
            printed("{\"a\":1}\n{\"a\":2}\n"),
            serde_json::json!([{"a": 1}, {"a": 2}])
        );
    }
}
