//! `backtide cert ca|server|client`: a private authority and its certificates, for a trial.
//!
//! They are elliptic (P-256). Who has an authority needs none of this: the door takes any PEM.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use backtide_model::ObjectName;
use clap::Subcommand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use sha2::{Digest as _, Sha256};

use super::{Exit, Failure, Terminal};
use crate::clock::Clock;

const DAY_MS: i64 = 24 * 3_600 * 1_000;

#[derive(Debug, Subcommand)]
pub enum Cert {
    /// Make a private authority: ca.pem and ca.key
    Ca(Authority),
    /// Make a server certificate of that authority: server.pem and server.key
    Server(Server),
    /// Make a client certificate of that authority: NAME.pem and NAME.key
    Client(Client),
}

/// Where the files are, and how long they hold.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// Folder of the certificates
    #[arg(long, default_value = "backtide-certs", value_name = "DIR")]
    dir: PathBuf,
    /// Days until it expires
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=36_500))]
    days: u16,
    /// Write over files that are there
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub struct Authority {
    /// What it calls itself
    #[arg(long, default_value = "Backtide trial authority")]
    name: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
pub struct Server {
    /// A host name or address by which clients reach it; may be repeated
    #[arg(long = "name", default_values = ["localhost", "127.0.0.1"], value_name = "HOST")]
    names: Vec<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
pub struct Client {
    /// Whose it is: the common name (CN), and the name of its files
    #[arg(value_parser = |name: &str| ObjectName::new(name))]
    name: ObjectName,
    /// Organization (O)
    #[arg(long, value_name = "TEXT")]
    organization: Option<String>,
    #[command(flatten)]
    place: Place,
}

impl Cert {
    pub(super) fn run(self, terminal: &mut Terminal) -> Result<Exit, Failure> {
        match self {
            Self::Ca(authority) => authority.run(terminal)?,
            Self::Server(server) => server.run(terminal)?,
            Self::Client(client) => client.run(terminal)?,
        }
        Ok(Exit::Ok)
    }
}

impl Authority {
    fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let mut params = self.place.params(&[], &self.name, None)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(not_made)?;
        let certificate = params.self_signed(&key).map_err(not_made)?;
        let written = self.place.write("ca", &certificate.pem(), &key, terminal)?;
        writeln!(
            terminal.out,
            "# clients trust this server by\n# {certificate}\n\n\
             # and for client certificates, in backtide.toml:\n[mqtts]\nclient_ca = {certificate:?}",
            certificate = written.certificate.display().to_string(),
        )?;
        Ok(())
    }
}

impl Server {
    fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let name = self.names.first().map_or("", String::as_str);
        let mut params = self.place.params(&self.names, name, None)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (pem, key, _) = self.place.signed(&params)?;
        let written = self.place.write("server", &pem, &key, terminal)?;
        writeln!(
            terminal.out,
            "# in backtide.toml:\n[mqtts]\ncertificate = {:?}\nkey = {:?}",
            written.certificate.display().to_string(),
            written.key.display().to_string(),
        )?;
        Ok(())
    }
}

impl Client {
    fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let name = self.name.as_str();
        if matches!(name, "ca" | "server") {
            let message = format!("{name}.pem is not a client's; choose another name");
            return Err(Failure::Usage(message));
        }
        let mut params = self.place.params(&[], name, self.organization.as_deref())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (pem, key, fingerprint) = self.place.signed(&params)?;
        self.place.write(name, &pem, &key, terminal)?;
        writeln!(
            terminal.out,
            "# in the document of its channel:\nclientCertificate:\n  required: true\n  \
             subject: {{ CN: {name:?} }}\n  # or, this very certificate:\n  \
             # sha256: [{fingerprint:?}]"
        )?;
        Ok(())
    }
}

/// A certificate and its key, as they were written.
struct Written {
    certificate: PathBuf,
    key: PathBuf,
}

impl Place {
    fn params(
        &self,
        names: &[String],
        common_name: &str,
        organization: Option<&str>,
    ) -> Result<CertificateParams, Failure> {
        let mut params = CertificateParams::new(names).map_err(not_made)?;
        params.distinguished_name = DistinguishedName::new();
        let subject = &mut params.distinguished_name;
        subject.push(DnType::CommonName, common_name);
        if let Some(organization) = organization {
            subject.push(DnType::OrganizationName, organization);
        }
        // From yesterday on: a client's clock may be behind.
        params.not_before = midnight(-1)?;
        params.not_after = midnight(i64::from(self.days))?;
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    /// A certificate of the authority in the folder: its PEM, its key, its fingerprint.
    fn signed(&self, params: &CertificateParams) -> Result<(String, KeyPair, String), Failure> {
        let read = |name: &str| {
            let path = self.dir.join(name);
            let what = format!(
                "{}: make an authority with `backtide cert ca`",
                path.display()
            );
            fs::read_to_string(&path).map_err(|source| Failure::io(what, source))
        };
        let authority_key = KeyPair::from_pem(&read("ca.key")?).map_err(not_made)?;
        let authority =
            Issuer::from_ca_cert_pem(&read("ca.pem")?, authority_key).map_err(not_made)?;
        let key = KeyPair::generate().map_err(not_made)?;
        let certificate = params.signed_by(&key, &authority).map_err(not_made)?;
        let fingerprint = hex::encode(Sha256::digest(certificate.der()));
        Ok((certificate.pem(), key, fingerprint))
    }

    fn write(
        &self,
        name: &str,
        certificate: &str,
        key: &KeyPair,
        terminal: &mut Terminal,
    ) -> Result<Written, Failure> {
        let folder = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir);
        folder.map_err(|source| Failure::io(self.dir.display().to_string(), source))?;
        let written = Written {
            certificate: self.dir.join(format!("{name}.pem")),
            key: self.dir.join(format!("{name}.key")),
        };
        // The key first: a certificate without a key is of no use, and says so.
        self.write_file(&written.key, 0o600, &key.serialize_pem())?;
        self.write_file(&written.certificate, 0o644, certificate)?;
        let (certificate, key) = (written.certificate.display(), written.key.display());
        writeln!(
            terminal.talk,
            "made {certificate} and {key}, valid for {} days",
            self.days
        )?;
        // As the server will read them, wherever it is started.
        let absolute = |path: &Path| std::path::absolute(path);
        Ok(Written {
            certificate: absolute(&written.certificate)?,
            key: absolute(&written.key)?,
        })
    }

    fn write_file(&self, path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
        if self.force {
            // Not written over: the old file may be readable by others.
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Failure::io(path.display().to_string(), error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Failure::Usage(format!(
                "{} is there already; give --force to write over it",
                path.display()
            )),
            _ => Failure::io(path.display().to_string(), source),
        })
    }
}

/// Midnight of the day that begins or began so many days from now.
fn midnight(days_from_now: i64) -> Result<time::OffsetDateTime, Failure> {
    let today = Clock::system().now_ms() / DAY_MS;
    let second = (today + days_from_now) * (DAY_MS / 1_000);
    time::OffsetDateTime::from_unix_timestamp(second).map_err(not_made)
}

fn not_made(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("the certificate cannot be made: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser as _;

    use super::*;
    use crate::tls::Files;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        cert: Cert,
    }

    fn cert(dir: &Path, line: &str) -> Result<Exit, Failure> {
        let words = ["cert"].into_iter().chain(line.split_whitespace());
        let dir = ["--dir", dir.to_str().unwrap()];
        let mut terminal = Terminal {
            out: Box::new(io::sink()),
            talk: Box::new(io::sink()),
        };
        Line::parse_from(words.chain(dir)).cert.run(&mut terminal)
    }

    #[test]
    fn what_it_makes_is_what_the_door_takes() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let error = cert(dir, "server").unwrap_err().to_string();
        assert!(error.contains("backtide cert ca"), "{error}");
        cert(dir, "ca").unwrap();
        cert(dir, "server --name gateway.example.org --name 10.0.0.7").unwrap();
        cert(dir, "client plant-7 --organization Acme").unwrap();
        let files = Files {
            certificate: dir.join("server.pem"),
            key: dir.join("server.key"),
            client_ca: Some(dir.join("ca.pem")),
        };
        files.check(Clock::system().now_ms()).unwrap();
        for key in ["ca.key", "server.key", "plant-7.key"] {
            let mode = fs::metadata(dir.join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        assert!(matches!(cert(dir, "ca"), Err(Failure::Usage(_))));
        assert!(matches!(cert(dir, "client ca"), Err(Failure::Usage(_))));
        cert(dir, "server --force").unwrap();
    }
}
