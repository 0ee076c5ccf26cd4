//! `backtide access-key show|rotate|revoke NAME`, `backtide access-key public-key`.

use std::io::Write;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::{
    Connection, Exit, Failure, Terminal,
    client::{Client, segment},
    output::Format,
};

#[derive(Debug, Subcommand)]
pub enum AccessKey {
    /// Show the access key and its secret
    Show(Show),
    /// Make a new secret; the old one stays valid for the overlap
    Rotate(Rotate),
    /// Take every secret away: sessions end, nobody logs in until the key is rotated
    Revoke(Show),
    /// Show the public key that users of enos-poseidon assign to poseidon.poseidon.pubkey
    PublicKey,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublicKey {
    public_key: String,
}

#[derive(Debug, clap::Args)]
pub struct Show {
    name: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub struct Rotate {
    #[command(flatten)]
    show: Show,
    /// How long the old secret stays valid, such as `24h`, `30min` or `0s`
    #[arg(long, default_value = "24h")]
    overlap: jiff::SignedDuration,
}

/// What an application signs with. Holds the secret: it is printed, and nothing else.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Credential {
    name: String,
    access_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_secret: Option<String>,
    revoked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_secret_valid_until: Option<String>,
}

impl AccessKey {
    pub(super) fn run(
        self,
        connection: &Connection,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let client = Client::new(connection)?;
        let path = |name: &str, verb| format!("/api/v1/access-keys/{}/{verb}", segment(name));
        let post = |path: &str, query: &[(&str, &str)]| {
            client.post::<Credential>(path, query, "application/json", b"")
        };
        let (credential, format) = match self {
            Self::Show(Show { name, output }) => {
                (client.get(&path(&name, "credential"), &[])?, output)
            }
            Self::Rotate(Rotate { show, overlap }) => {
                let seconds = overlap.as_secs().to_string();
                let query = [("overlapSeconds", seconds.as_str())];
                (post(&path(&show.name, "rotate"), &query)?, show.output)
            }
            Self::Revoke(Show { name, output }) => (post(&path(&name, "revoke"), &[])?, output),
            Self::PublicKey => {
                let key: PublicKey = client.get("/api/v1/vendor/public-key", &[])?;
                writeln!(terminal.out, "{}", key.public_key)?;
                return Ok(Exit::Ok);
            }
        };
        print(terminal, format, &credential)?;
        Ok(Exit::Ok)
    }
}

fn print(terminal: &mut Terminal, format: Format, credential: &Credential) -> Result<(), Failure> {
    let secret = credential.access_secret.as_deref();
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut terminal.out, credential)
                .map_err(std::io::Error::from)?;
            writeln!(terminal.out)?;
        }
        Format::Ndjson => {
            serde_json::to_writer(&mut terminal.out, credential).map_err(std::io::Error::from)?;
            writeln!(terminal.out)?;
        }
        Format::Csv => {
            writeln!(terminal.out, "accessKey,accessSecret")?;
            writeln!(
                terminal.out,
                "{},{}",
                credential.access_key,
                secret.unwrap_or_default()
            )?;
        }
        Format::Table => {
            writeln!(terminal.out, "accessKey     {}", credential.access_key)?;
            writeln!(
                terminal.out,
                "accessSecret  {}",
                secret.unwrap_or("(revoked)")
            )?;
            if let Some(until) = &credential.previous_secret_valid_until {
                writeln!(terminal.talk, "the old secret stays valid until {until}")?;
            }
        }
    }
    Ok(())
}
