//! `backtide script …`: drafts, test runs, versions of data parsing scripts.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::{
    Connection, Exit, Failure, Terminal,
    client::{Client, segment},
    listing::text,
    output::{self, Format},
};

#[derive(Debug, Subcommand)]
pub enum Script {
    /// List scripts
    Ls(List),
    /// Show how a script is doing, its versions, or the source of one
    Show(Show),
    /// Save a draft; nothing that runs changes
    Draft(Draft),
    /// Run a script on an input, or its golden tests
    Test(Test),
    /// Make the draft a version that runs at once
    Publish(Named),
    /// Let an earlier version run again
    Rollback(Rollback),
    /// Compare the sources of two versions
    Diff(Diff),
}

#[derive(Debug, clap::Args)]
pub struct List {
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Show {
    name: String,
    /// Print the source of a version (a number, `live` or `draft`) and nothing else
    #[arg(long, value_name = "VERSION")]
    source: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Form {
    #[default]
    Table,
    Json,
}

#[derive(Debug, clap::Args)]
pub struct Draft {
    name: String,
    /// JavaScript file; `-` is stdin
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE",
        required_unless_present = "drop"
    )]
    file: Option<PathBuf>,
    /// The product; that of the script where it is there already
    #[arg(long)]
    product: Option<String>,
    /// How it is called: rawDataToJsonStr, rawDataToProtocol, decodeUplink, Decoder or Decode
    #[arg(long)]
    dialect: Option<String>,
    /// JSON file that says whose values it decodes
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,
    /// Folder of golden tests, one JSON file each, to be kept with the draft
    #[arg(long, value_name = "DIR")]
    fixtures: Option<PathBuf>,
    /// Run the source once, not before every call
    #[arg(long)]
    keep_state: bool,
    #[arg(long)]
    description: Option<String>,
    /// Delete the draft
    #[arg(long, conflicts_with = "file")]
    drop: bool,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("input").multiple(false)))]
pub struct Test {
    name: String,
    /// Bytes to decode, as hex digits
    #[arg(long, group = "input")]
    hex: Option<String>,
    /// Bytes to decode, as base64
    #[arg(long, group = "input")]
    base64: Option<String>,
    /// Bytes to decode, as text
    #[arg(long, group = "input")]
    text: Option<String>,
    /// JSON document to encode
    #[arg(long, value_name = "JSON", group = "input")]
    encode: Option<String>,
    /// Folder of golden tests, one JSON file each; a draft keeps them
    #[arg(long, value_name = "DIR", group = "input")]
    fixtures: Option<PathBuf>,
    /// A version, `live` or `draft`; the draft unless given, or the live one without a draft
    #[arg(long)]
    version: Option<String>,
    /// What the script's clock says: epoch milliseconds; now unless given
    #[arg(long)]
    time: Option<i64>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Debug, clap::Args)]
pub struct Named {
    name: String,
}

#[derive(Debug, clap::Args)]
pub struct Rollback {
    name: String,
    /// The version that is to run; the one before unless given
    #[arg(long)]
    to: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub struct Diff {
    name: String,
    /// A version, `live` or `draft`; the live one unless given
    from: Option<String>,
    /// The same; the draft unless given, or the latest version without one
    to: Option<String>,
}

const PATH: &str = "/api/v1/scripts";
const JSON: &str = "application/json";

/// Which version runs now, and what that cures.
fn tell_live(name: &str, mut state: Value, terminal: &mut Terminal) -> Result<(), Failure> {
    let version = text(&state, "live");
    writeln!(terminal.talk, "script {name}: version {version} runs")?;
    let cures: Vec<super::apply::Cure> =
        serde_json::from_value(state["cures"].take()).unwrap_or_default();
    super::apply::tell_cures(&cures, &mut *terminal.talk)
}

fn path(name: &str, part: &str) -> String {
    format!("{PATH}/{}/{part}", segment(name))
}

impl Script {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        match self {
            Self::Ls(list) => list.print(&client, terminal)?,
            Self::Show(show) => show.print(&client, terminal)?,
            Self::Draft(draft) => draft.save(&client, terminal)?,
            Self::Test(test) => return test.print(&client, terminal),
            Self::Publish(Named { name }) => {
                let state: Value = client.post(&path(&name, "publish"), &[], JSON, b"")?;
                tell_live(&name, state, terminal)?;
            }
            Self::Rollback(Rollback { name, to }) => {
                let to = to.map(|to| to.to_string());
                let query: Vec<_> = to.iter().map(|to| ("to", to.as_str())).collect();
                let state: Value = client.post(&path(&name, "rollback"), &query, JSON, b"")?;
                tell_live(&name, state, terminal)?;
            }
            Self::Diff(diff) => {
                let query = super::listing::given(&[("from", &diff.from), ("to", &diff.to)]);
                let answer: Value = client.get(&path(&diff.name, "diff"), &query)?;
                terminal.out.write_all(text(&answer, "diff").as_bytes())?;
            }
        }
        Ok(Exit::Ok)
    }
}

impl List {
    fn print(&self, client: &Client, terminal: &mut Terminal) -> Result<(), Failure> {
        let mut rows: Vec<Value> = Vec::new();
        client.each(PATH, &[("limit", "1000")], |script: Value| {
            rows.push(client.get(&path(&text(&script, "name"), "status"), &[])?);
            Ok(())
        })?;
        let cell = |name: &'static str| move |row: &Value| text(row, name);
        let (name, product, live) = (cell("name"), cell("product"), cell("live"));
        let (draft, versions) = (cell("draft"), cell("versions"));
        let state = |row: &Value| match &row["running"]["paused"] {
            Value::Null => String::new(),
            _ => "paused".to_owned(),
        };
        let columns: [output::Column<'_, Value>; 6] = [
            ("name", &name),
            ("product", &product),
            ("live", &live),
            ("versions", &versions),
            ("draft", &draft),
            ("state", &state),
        ];
        Ok(output::write(
            &mut *terminal.out,
            self.output,
            &columns,
            &rows,
        )?)
    }
}

impl Show {
    fn print(&self, client: &Client, terminal: &mut Terminal) -> Result<(), Failure> {
        let out = &mut terminal.out;
        if let Some(version) = &self.source {
            let part = match version.as_str() {
                "draft" => "draft".to_owned(),
                "live" => String::new(),
                number => format!("versions/{}", segment(number)),
            };
            let address = path(&self.name, &part);
            let file: Value = client.get(address.trim_end_matches('/'), &[])?;
            return Ok(out.write_all(text(&file, "source").as_bytes())?);
        }
        let mut state: Value = client.get(&path(&self.name, "status"), &[])?;
        let versions: Value = client.get(&path(&self.name, "versions"), &[])?;
        if self.output == Form::Json {
            state["versions"] = versions["items"].clone();
            return print_json(out, &state);
        }
        writeln!(out, "name      {}", text(&state, "name"))?;
        writeln!(out, "product   {}", text(&state, "product"))?;
        writeln!(out, "live      {}", text(&state, "live"))?;
        writeln!(out, "draft     {}", text(&state, "draft"))?;
        let running = &state["running"];
        if running.is_object() {
            writeln!(
                out,
                "calls     {} ({} failed, {} killed), CPU p99 {} µs",
                text(running, "calls"),
                text(running, "failures"),
                text(running, "kills"),
                text(running, "cpuP99Us")
            )?;
        }
        if running["paused"].is_object() {
            let (reason, seconds) = (
                text(&running["paused"], "reason"),
                text(&running["paused"], "seconds"),
            );
            writeln!(out, "paused    for {seconds} s more: {reason}")?;
        }
        for version in versions["items"].as_array().into_iter().flatten() {
            let live = if version["live"] == true {
                "  live"
            } else {
                ""
            };
            let (number, published) = (text(version, "version"), text(version, "published"));
            writeln!(out, "version   {number}  {published}{live}")?;
        }
        Ok(())
    }
}

impl Draft {
    fn save(&self, client: &Client, terminal: &mut Terminal) -> Result<(), Failure> {
        let address = path(&self.name, "draft");
        let Some(file) = &self.file else {
            client.delete(&address, &[])?;
            writeln!(
                terminal.talk,
                "the draft of script {} is deleted",
                self.name
            )?;
            return Ok(());
        };
        let mut draft = self.before(client);
        draft.insert("source".into(), Value::String(read_text(file)?));
        let texts = [
            ("product", &self.product),
            ("dialect", &self.dialect),
            ("description", &self.description),
        ];
        for (member, value) in texts {
            if let Some(value) = value {
                draft.insert(member.into(), json!(value));
            }
        }
        if let Some(mapping) = &self.mapping {
            draft.insert("mapping".into(), read_json(mapping)?);
        }
        if let Some(folder) = &self.fixtures {
            draft.insert("golden".into(), Value::Array(fixtures(folder)?));
        }
        if self.keep_state {
            draft.insert("keepState".into(), json!(true));
        }
        if !draft.contains_key("product") {
            let name = &self.name;
            return Err(Failure::Usage(format!(
                "script {name} is new: name its product with --product"
            )));
        }
        let body = Value::Object(draft).to_string();
        let _: serde::de::IgnoredAny = client.put(&address, JSON, body.as_bytes())?;
        let name = &self.name;
        writeln!(
            terminal.talk,
            "the draft of script {name} is saved; try it with `backtide script test {name}`, then \
             `backtide script publish {name}`"
        )?;
        Ok(())
    }

    /// What the draft says already, or what runs: a new source keeps the rest.
    fn before(&self, client: &Client) -> Map<String, Value> {
        let draft = client.get::<Value>(&path(&self.name, "draft"), &[]);
        let known = draft.or_else(|_| client.get(&format!("{PATH}/{}", segment(&self.name)), &[]));
        match known {
            Ok(Value::Object(mut members)) => {
                members.remove("kind");
                members.remove("name");
                members
            }
            Ok(_) | Err(_) => Map::new(),
        }
    }
}

impl Test {
    fn print(&self, client: &Client, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let answer: Value = client.post(
            &path(&self.name, "test"),
            &[],
            JSON,
            self.body(client)?.to_string().as_bytes(),
        )?;
        let golden = answer["golden"].as_array();
        let has_failed = answer["failure"].is_object()
            || golden.is_some_and(|all| all.iter().any(|one| one["passed"] != true));
        match self.output {
            Form::Json => print_json(&mut terminal.out, &answer)?,
            Form::Table => print_outcome(&answer, terminal)?,
        }
        Ok(if has_failed { Exit::Failed } else { Exit::Ok })
    }

    fn body(&self, client: &Client) -> Result<Value, Failure> {
        let mut body = Map::new();
        if let Some(version) = &self.version {
            body.insert("version".into(), json!(version));
        }
        if let Some(time) = self.time {
            body.insert("time".into(), json!(time));
        }
        let inputs = [
            ("hex", &self.hex),
            ("base64", &self.base64),
            ("text", &self.text),
        ];
        if let Some((form, input)) = inputs
            .iter()
            .find_map(|(form, input)| Some((*form, input.as_ref()?)))
        {
            body.insert("decode".into(), json!({ form: input }));
        }
        if let Some(encode) = &self.encode {
            let value: Value = serde_json::from_str(encode)
                .map_err(|error| Failure::Usage(format!("--encode is no JSON: {error}")))?;
            body.insert("encode".into(), value);
        }
        if let Some(folder) = &self.fixtures {
            body.insert("golden".into(), Value::Array(fixtures(folder)?));
            body.insert("keep".into(), json!(self.is_of_draft(client)));
        }
        Ok(Value::Object(body))
    }

    /// Whether the run is of a draft, which keeps its golden tests.
    fn is_of_draft(&self, client: &Client) -> bool {
        match self.version.as_deref() {
            Some(version) => version == "draft",
            None => client.get::<Value>(&path(&self.name, "draft"), &[]).is_ok(),
        }
    }
}

fn print_outcome(answer: &Value, terminal: &mut Terminal) -> Result<(), Failure> {
    let out = &mut terminal.out;
    writeln!(terminal.talk, "{}", text(answer, "script"))?;
    if answer["decoded"] != Value::Null {
        print_json(out, &answer["decoded"])?;
    }
    if answer["encoded"] != Value::Null {
        writeln!(out, "{}", text(answer, "encoded"))?;
    }
    let failure = &answer["failure"];
    if failure.is_object() {
        let place = match failure["line"].as_u64() {
            Some(line) => format!("line {line}, column {}: ", text(failure, "column")),
            None => String::new(),
        };
        writeln!(terminal.talk, "{place}{}", text(failure, "message"))?;
    }
    for line in text(answer, "console").lines() {
        writeln!(terminal.talk, "console: {line}")?;
    }
    if answer["cpuMs"] != Value::Null {
        let heap_kib = answer["heapBytes"].as_u64().unwrap_or(0) / 1024;
        let cpu_ms = text(answer, "cpuMs");
        writeln!(terminal.talk, "CPU {cpu_ms} ms, memory {heap_kib} KiB")?;
    }
    let model = &answer["model"];
    if model.is_object() {
        let (code, good, items) = (
            text(model, "code"),
            text(model, "good"),
            text(model, "items"),
        );
        writeln!(
            terminal.talk,
            "model: {code}, {good} of {items} items are good"
        )?;
        for reason in model["rejected"].as_array().into_iter().flatten() {
            let (code, message) = (text(reason, "code"), text(reason, "message"));
            writeln!(terminal.talk, "model: {code} {message}")?;
        }
    }
    for golden in answer["golden"].as_array().into_iter().flatten() {
        let word = if golden["passed"] == true {
            "ok    "
        } else {
            "FAILED"
        };
        let (name, message) = (text(golden, "name"), text(golden, "message"));
        writeln!(out, "{word}  {name}  {message}")?;
    }
    Ok(())
}

fn print_json(out: &mut dyn Write, value: &Value) -> Result<(), Failure> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

/// The golden tests of a folder, in the order of the files' names; each is named by its file unless
/// it names itself.
fn fixtures(folder: &Path) -> Result<Vec<Value>, Failure> {
    let unreadable =
        |error: io::Error| Failure::Usage(format!("cannot read {}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        let folder = folder.display();
        return Err(Failure::Usage(format!("{folder} holds no .json file")));
    }
    let mut golden = Vec::new();
    for file in files {
        let name = file
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let tests = match read_json(&file)? {
            Value::Array(tests) => tests,
            test => vec![test],
        };
        for mut test in tests {
            if let (Value::Object(members), Some(name)) = (&mut test, &name) {
                members.entry("name").or_insert_with(|| json!(name));
            }
            golden.push(test);
        }
    }
    Ok(golden)
}

fn read_json(file: &Path) -> Result<Value, Failure> {
    serde_json::from_str(&read_text(file)?)
        .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))
}

fn read_text(file: &Path) -> Result<String, Failure> {
    let text = if file == Path::new("-") {
        io::read_to_string(io::stdin().lock())
    } else {
        fs::read_to_string(file)
    };
    text.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))
}
