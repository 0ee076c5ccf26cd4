//! What archives, rules and subscriptions have in common: they run on their own, are listed with how
//! they stand, are stopped and started, and some have a secret.

use std::io::{self, Read, Write};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Failure, Terminal,
    client::{Client, segment},
    output::Format,
};

#[derive(Debug, clap::Args)]
pub struct Ls {
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Show {
    pub(super) name: String,
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Named {
    pub(super) name: String,
}

#[derive(Debug, clap::Args)]
pub struct Secret {
    name: String,
    /// Take it away
    #[arg(long)]
    remove: bool,
}

/// One kind of them, by its word in the API: `rule` stands under `/api/v1/rules`.
#[derive(Clone, Copy)]
pub(super) struct Running<'c> {
    pub(super) client: &'c Client,
    pub(super) word: &'static str,
}

#[derive(Deserialize)]
struct Statuses {
    items: Vec<Value>,
}

impl Running<'_> {
    pub(super) fn path(&self, name: &str, verb: &str) -> String {
        format!("/api/v1/{}s/{}/{verb}", self.word, segment(name))
    }

    /// How all of them stand.
    pub(super) fn statuses(&self) -> Result<Vec<Value>, Failure> {
        let path = format!("/api/v1/{}-status", self.word);
        let all: Statuses = self.client.get(&path, &[])?;
        Ok(all.items)
    }

    /// How one of them stands.
    pub(super) fn status(&self, name: &str) -> Result<Value, Failure> {
        self.client.get(&self.path(name, "status"), &[])
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        name: &str,
        verb: &str,
        query: &[(&str, &str)],
        body: &Value,
    ) -> Result<T, Failure> {
        let body = body.to_string();
        let path = self.path(name, verb);
        self.client
            .post(&path, query, "application/json", body.as_bytes())
    }

    /// Tells it to do something that needs no more words.
    pub(super) fn tell(&self, name: &str, verb: &str) -> Result<Value, Failure> {
        self.post(name, verb, &[], &json!({}))
    }

    /// Sets the secret that standard input has, or takes it away.
    pub(super) fn set_secret(
        &self,
        secret: &Secret,
        terminal: &mut Terminal,
    ) -> Result<(), Failure> {
        let given = match secret.remove {
            true => None,
            false => Some(from_input()?),
        };
        let body = json!({ "secret": given });
        let _: Value = self.post(&secret.name, "secret", &[], &body)?;
        let done = if secret.remove { "removed" } else { "set" };
        let (word, name) = (self.word, &secret.name);
        Ok(writeln!(
            terminal.talk,
            "the secret of {word} {name} is {done}"
        )?)
    }
}

fn from_input() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::io("cannot read the secret from standard input", error))?;
    let text = text.trim_end_matches(['\r', '\n']).to_owned();
    if text.is_empty() {
        return Err(Failure::Usage("standard input has no secret".to_owned()));
    }
    Ok(text)
}
