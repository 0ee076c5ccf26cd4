//! `backtide policy show|preview`.

use std::{io::Write, path::PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Connection, Exit, Failure, Terminal,
    apply::Body,
    client::Client,
    listing::{text, time},
    output::{self, Column, Format},
};

#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Show which policies are in force for a point
    Show(Show),
    /// Show what files would change for points, without declaring them
    Preview(Preview),
}

#[derive(Debug, clap::Args)]
pub struct Show {
    /// The device's key
    #[arg(long)]
    device: String,
    #[arg(long)]
    point: String,
    /// Name or key of the product; may be left out where the device is unambiguous
    #[arg(long)]
    product: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Preview {
    /// YAML or JSON file, as `apply` takes it; `-` is stdin; may be given several times
    #[arg(short, long = "file", required = true, num_args = 1.., value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Do not count by reading what would go: say at most how much
    #[arg(long)]
    quick: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Policy {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        match self {
            Self::Show(show) => show.run(&client, terminal),
            Self::Preview(preview) => preview.run(&client, terminal),
        }
    }
}

impl Show {
    fn run(&self, client: &Client, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let mut query = vec![("device", self.device.as_str()), ("point", &self.point)];
        query.extend(self.product.as_deref().map(|product| ("product", product)));
        let effective: Value = client.get("/api/v1/effective-policy", &query)?;
        if whole(terminal, self.output, &effective)? {
            return Ok(Exit::Ok);
        }
        let lines = list(&effective, "processing").flat_map(|of_channel| {
            let channel = text(of_channel, "channel");
            list(of_channel, "steps").map(move |step| with(step, "channel", &channel))
        });
        let lines: Vec<Value> = lines.collect();
        for (member, what) in [
            ("storage", ""),
            ("events", "events "),
            ("attributes", "attributes "),
        ] {
            if let Some(kept) = effective.get(member) {
                writeln!(terminal.talk, "{what}kept {}", kept_in_words(kept))?;
            }
        }
        for derived in list(&effective, "derived") {
            let [kind, name, policy, does] =
                ["kind", "name", "policy", "does"].map(|member| text(derived, member));
            writeln!(terminal.talk, "{kind} {name} (policy {policy}): {does}")?;
        }
        if lines.is_empty() {
            let (device, point) = (&self.device, &self.point);
            writeln!(
                terminal.talk,
                "no policy acts on {point} of {device}: values are stored as they come"
            )?;
        }
        let columns: [Column<'_, Value>; 5] = [
            ("channel", &|line| text(line, "channel")),
            ("policy", &|line| text(line, "policy")),
            ("step", &|line| text(line, "step")),
            ("point", &|line| text(line, "point")),
            ("does", &|line| text(line, "does")),
        ];
        output::write(&mut *terminal.out, self.output, &columns, &lines)?;
        Ok(Exit::Ok)
    }
}

impl Preview {
    fn run(&self, client: &Client, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let body = Body::read(&self.file)?;
        let quick: &[(&str, &str)] = match self.quick {
            true => &[("quick", "true")],
            false => &[],
        };
        let preview: Value = client
            .post(
                "/api/v1/policy-preview",
                quick,
                body.content_type,
                &body.text,
            )
            .map_err(|failure| body.locate(failure, &mut *terminal.talk))?;
        if whole(terminal, self.output, &preview)? {
            return Ok(Exit::Ok);
        }
        let lines: Vec<Value> = list(&preview, "processing").cloned().collect();
        let columns: [Column<'_, Value>; 6] = [
            ("product", &|line| text(line, "product")),
            ("channel", &|line| text(line, "channel")),
            ("point", &|line| text(line, "point")),
            ("devices", &|line| text(line, "devices")),
            ("before", &|line| in_words(line, "before")),
            ("after", &|line| in_words(line, "after")),
        ];
        output::write(&mut *terminal.out, self.output, &columns, &lines)?;
        match (lines.len(), preview["more"].as_u64().unwrap_or_default()) {
            (0, _) => writeln!(terminal.talk, "the processing of no point would change")?,
            (_, 0) => {}
            (_, more) => writeln!(terminal.talk, "and {more} more")?,
        }
        for of_product in list(&preview, "storage") {
            tell(terminal, of_product)?;
        }
        for derived in list(&preview, "derived") {
            let [kind, name, product, devices, windows, interval] = [
                "kind",
                "name",
                "product",
                "devices",
                "windowsMax",
                "interval",
            ]
            .map(|member| text(derived, member));
            let would = match text(derived, "change").as_str() {
                "appears" => "would appear and be computed",
                "goes" => "would go, with its rows",
                _ => "would be computed once more",
            };
            writeln!(
                terminal.talk,
                "product {product}: {kind} {name} {would}: {devices} devices, at most {windows} \
                 windows of {interval}"
            )?;
        }
        writeln!(terminal.talk, "nothing was changed")?;
        Ok(Exit::Ok)
    }
}

/// What a change of storage would do to a product.
fn tell(terminal: &mut Terminal, of_product: &Value) -> Result<(), Failure> {
    let product = text(of_product, "product");
    for of_point in list(of_product, "points") {
        let kept = match of_point.get("after") {
            Some(kept) => kept_in_words(kept),
            None => "for ever".to_owned(),
        };
        let values = match of_point.get("values") {
            Some(values) => format!("{values} values would go"),
            None => "its values are not counted".to_owned(),
        };
        let point = text(of_point, "point");
        writeln!(
            terminal.talk,
            "product {product}: {point} would be kept {kept}: {values}"
        )?;
    }
    for of_device in list(of_product, "devices") {
        let of_points = of_device["values"].as_object().into_iter().flatten();
        let of_points: Vec<String> = of_points
            .map(|(point, values)| format!("{values} of {point}"))
            .collect();
        let (device, lost) = (text(of_device, "deviceKey"), of_points.join(", "));
        writeln!(terminal.talk, "  device {device} would lose {lost}")?;
    }
    match of_product["moreDevices"].as_u64().unwrap_or_default() {
        0 => {}
        more => writeln!(terminal.talk, "  and {more} more devices")?,
    }
    let [most, events, attributes] =
        ["valuesMax", "events", "attributeValues"].map(|member| text(of_product, member));
    let exact = match of_product.get("values") {
        Some(values) => format!("{values} values"),
        None => format!("at most {most} values"),
    };
    writeln!(
        terminal.talk,
        "product {product} would lose {exact}, {events} events and {attributes} attribute values"
    )?;
    Ok(())
}

/// Prints an answer as it is, where that is asked for.
fn whole(terminal: &mut Terminal, format: Format, answer: &Value) -> Result<bool, Failure> {
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut terminal.out, answer)
                .map_err(std::io::Error::from)?;
            writeln!(terminal.out)?;
        }
        Format::Ndjson => writeln!(terminal.out, "{answer}")?,
        Format::Table | Format::Csv => return Ok(false),
    }
    Ok(true)
}

fn list<'v>(of: &'v Value, member: &str) -> impl Iterator<Item = &'v Value> {
    of[member].as_array().into_iter().flatten()
}

fn with(of: &Value, member: &str, text: &str) -> Value {
    let mut of = of.clone();
    of[member] = json!(text);
    of
}

/// `365 days by event time (policy farm-year), now from 2025-11-29T…`.
fn kept_in_words(kept: &Value) -> String {
    let [does, policy] = ["does", "policy"].map(|member| text(kept, member));
    match kept.get("from") {
        Some(_) => format!("{does} (policy {policy}), now from {}", time(kept, "from")),
        None => format!("{does} (policy {policy})"),
    }
}

fn in_words(line: &Value, member: &str) -> String {
    let steps: Vec<String> = list(line, member).map(|step| text(step, "does")).collect();
    match steps.is_empty() {
        true => "as it comes".to_owned(),
        false => steps.join("; "),
    }
}
