//! `backtide apply -f FILE…`: all files in one request, so that all of it holds, or none.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Connection, Exit, Failure, Terminal,
    client::{Client, Fault, Problem},
};

#[derive(Debug, clap::Args)]
pub struct Apply {
    /// YAML or JSON file; `-` is stdin; may be given several times
    #[arg(short, long = "file", required = true, num_args = 1.., value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Check and say what would happen, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print the outcome
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Form {
    #[default]
    Table,
    Json,
    Ndjson,
}

/// What the gateway did.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    created: u64,
    changed: u64,
    unchanged: u64,
    objects: Vec<Box<RawValue>>,
    #[serde(default)]
    cures: Vec<Cure>,
}

/// Quarantined messages that would be stored now.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cure {
    channel: String,
    would_cure: u64,
    advice: String,
}

#[derive(Debug, Deserialize)]
struct Applied {
    kind: String,
    name: String,
    result: String,
}

impl Apply {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        let body = Body::read(&self.file)?;
        let query: &[_] = if self.dry_run {
            &[("dryRun", "true")]
        } else {
            &[]
        };
        let answer: Box<RawValue> = client
            .post("/api/v1/apply", query, body.content_type, &body.text)
            .map_err(|failure| body.locate(failure, &mut *terminal.talk))?;
        let outcome: Outcome = read_answer(&answer)?;
        match self.output {
            Form::Json => writeln!(terminal.out, "{answer}")?,
            Form::Ndjson => {
                outcome
                    .objects
                    .iter()
                    .try_for_each(|object| writeln!(terminal.out, "{object}"))?;
            }
            Form::Table => {
                for object in &outcome.objects {
                    let Applied { kind, name, result } = read_answer(object)?;
                    writeln!(terminal.out, "{kind} {name} {result}")?;
                }
            }
        }
        let Outcome {
            created,
            changed,
            unchanged,
            cures,
            ..
        } = outcome;
        let note = if self.dry_run {
            " (dry run: nothing was changed)"
        } else {
            ""
        };
        writeln!(
            terminal.talk,
            "{created} created, {changed} changed, {unchanged} unchanged{note}"
        )?;
        tell_cures(&cures, &mut *terminal.talk)?;
        Ok(Exit::Ok)
    }
}

/// Says what a change cures.
pub(super) fn tell_cures(cures: &[Cure], talk: &mut dyn Write) -> Result<(), Failure> {
    for Cure {
        channel,
        would_cure,
        advice,
    } in cures
    {
        writeln!(
            talk,
            "would cure {would_cure} quarantined messages on channel {channel}: {advice}"
        )?;
    }
    Ok(())
}

fn read_answer<T: serde::de::DeserializeOwned>(answer: &RawValue) -> Result<T, Failure> {
    serde_json::from_str(answer.get())
        .map_err(|error| Failure::Failed(format!("the gateway answered unexpectedly: {error}")))
}

/// The files as one request body, and which lines of it each file is.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) text: Vec<u8>,
    pub(super) content_type: &'static str,
    /// Name of the file and its first line in the body, from 1; ascending.
    files: Vec<(String, usize)>,
}

impl Body {
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self, Failure> {
        let texts = paths
            .iter()
            .map(|path| read(path))
            .collect::<Result<Vec<_>, _>>()?;
        let all_json = texts.iter().all(|text| is_json(text));
        let mut body = Self {
            text: Vec::new(),
            content_type: if all_json {
                "application/json"
            } else {
                "application/yaml"
            },
            files: Vec::new(),
        };
        let mut line = 1;
        for (path, text) in paths.iter().zip(texts) {
            let before = body.text.len();
            if !all_json && before > 0 {
                body.text.extend_from_slice(b"---\n");
                line += 1;
            }
            body.files.push((path.display().to_string(), line));
            let from = body.text.len();
            if !all_json && is_json(&text) {
                json_as_yaml(&text, path, &mut body.text)?;
            } else {
                body.text.extend_from_slice(&text);
            }
            if body.text.last() != Some(&b'\n') {
                body.text.push(b'\n');
            }
            line += body.text[from..]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
        }
        Ok(body)
    }

    /// Prints every fault under the name and line of the file that it is in.
    pub(super) fn locate(&self, failure: Failure, talk: &mut dyn Write) -> Failure {
        match failure {
            Failure::Refused(problem) if !problem.errors.is_empty() => {
                let lines: Vec<String> = problem.errors.iter().map(|f| self.line_of(f)).collect();
                match talk.write_all(format!("{}\n", lines.join("\n")).as_bytes()) {
                    Ok(()) => Failure::Refused(Box::new(Problem {
                        place: None,
                        ..*problem
                    })),
                    Err(error) => error.into(),
                }
            }
            failure => failure,
        }
    }

    fn line_of(&self, fault: &Fault) -> String {
        let object = fault
            .object
            .as_ref()
            .map_or(String::new(), |object| format!("{object}: "));
        let at = fault.line.and_then(|line| {
            let (file, first) = self.files.iter().rev().find(|(_, first)| *first <= line)?;
            Some(format!("{file}:{}", line - first + 1))
        });
        let at = at.unwrap_or_else(|| format!("document {}", fault.document));
        format!("{at}: {object}{}", fault.message)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let done = if path == Path::new("-") {
        io::stdin().lock().read_to_end(&mut text).map(drop)
    } else {
        fs::read(path).map(|bytes| text = bytes)
    };
    // A file that is not there is the command line's mistake.
    done.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
    Ok(text)
}

/// YAML documents may be written in JSON's way: the line between them tells.
fn is_json(text: &[u8]) -> bool {
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'['))
        && !text
            .split(|byte| *byte == b'\n')
            .any(|line| line.trim_ascii_end() == b"---")
}

/// JSON objects among YAML files: each becomes a document on one line.
fn json_as_yaml(text: &[u8], path: &Path, out: &mut Vec<u8>) -> Result<(), Failure> {
    let mut separator = "";
    for value in serde_json::Deserializer::from_slice(text).into_iter::<serde_json::Value>() {
        let value = value.map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
        let objects = match value {
            serde_json::Value::Array(objects) => objects,
            object => vec![object],
        };
        for object in objects {
            out.extend_from_slice(format!("{separator}{object}\n").as_bytes());
            separator = "---\n";
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(files: &[(&str, &str)]) -> Body {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = files
            .iter()
            .map(|(name, text)| {
                let path = dir.path().join(name);
                fs::write(&path, text).unwrap();
                path
            })
            .collect();
        Body::read(&paths).unwrap()
    }

    #[test]
    fn files_of_both_forms_become_one_yaml_stream() {
        let body = body(&[
            ("a.yaml", "kind: A"),
            ("b.json", "[{\"kind\":\"B\"},{\"kind\":\"C\"}]"),
        ]);
        assert_eq!(
            String::from_utf8(body.text).unwrap(),
            "kind: A\n---\n{\"kind\":\"B\"}\n---\n{\"kind\":\"C\"}\n"
        );
        assert_eq!(body.content_type, "application/yaml");
    }

    #[test]
    fn a_fault_is_told_with_the_file_and_line_it_is_in() {
        let body = body(&[
            ("a.yaml", "kind: A\nname: b\n"),
            ("b.yaml", "kind: B\nnam: c\n"),
        ]);
        let fault = Fault {
            document: 2,
            line: Some(5),
            object: None,
            message: "no nam".into(),
        };
        assert!(
            body.line_of(&fault).ends_with("b.yaml:2: no nam"),
            "{}",
            body.line_of(&fault)
        );
    }
}
