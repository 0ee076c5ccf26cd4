//! The configuration: where each value comes from, and what is said of a wrong one.

use super::*;
use crate::quarantine::WhenFull;

fn read(file: &str, variables: &[(&str, &str)]) -> Result<Raw, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backtide.toml");
    std::fs::write(&path, file).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    Raw::read_with(Some(&path), variables, Overrides::default()).map_err(|error| error.to_string())
}

fn refused(file: &str, variables: &[(&str, &str)]) -> String {
    match read(file, variables) {
        Err(error) => error,
        Ok(raw) => raw.check().unwrap_err().to_string(),
    }
}

#[test]
fn the_defaults_stand_and_read_back_as_they_are_shown() {
    let raw = read("", &[]).unwrap();
    assert_eq!(raw, Raw::default());
    insta::assert_snapshot!(raw.to_toml());
    assert_eq!(read(&raw.to_toml(), &[]).unwrap(), raw);
    let config = raw.check().unwrap();
    assert_eq!(config.mqtt.listen.port(), 11883);
    assert!((config.store.clock)() > 0);
}

#[test]
fn the_environment_wins_over_the_file_and_the_command_line_over_both() {
    let file = "organization = \"file\"\n[mqtt]\nlisten = \"0.0.0.0:1\"\n[http]\nthreads = 2\n";
    let variables = [
        ("BACKTIDE__ORGANIZATION", "007"),
        ("BACKTIDE__MQTT__LISTEN", "127.0.0.1:2"),
        ("BACKTIDE__QUARANTINE__WHEN_FULL", "drop-oldest"),
        ("BACKTIDE__STORE__LOG_BYTES_MAX", "1000"),
        ("BACKTIDE__MQTT__CONNECTIONS_MAX", "9"),
        ("BACKTIDE_URL", "http://elsewhere"),
    ];
    let config = read(file, &variables).unwrap().check().unwrap();
    assert_eq!(config.organization.as_str(), "007");
    assert_eq!(config.mqtt.listen.port(), 2);
    assert_eq!(config.mqtt.connections_max, Some(9));
    assert_eq!(config.http.threads, 2);
    assert_eq!(config.quarantine.when_full, WhenFull::DropOldest);
    assert_eq!(config.store.log_bytes_max, 1_000);
    let overrides = Overrides {
        mqtt: Some(([0, 0, 0, 0], 3).into()),
        ..Overrides::default()
    };
    let variables = HashMap::from([("BACKTIDE__MQTT__LISTEN".into(), "127.0.0.1:2".into())]);
    let raw = Raw::read_with(None, variables, overrides).unwrap();
    assert_eq!(raw.mqtt.listen.port(), 3);
}

#[test]
fn what_is_wrong_is_named_with_its_key_its_place_and_what_is_expected() {
    for (file, variables, expected) in [
        (
            "datadir = 1",
            &[][..],
            &["key datadir in", "backtide.toml", "data_dir"][..],
        ),
        ("[mqtt]\nlistn = 1", &[], &["key mqtt.listn in", "listen"]),
        (
            "",
            &[("BACKTIDE__HTTP__LISTN", "1")],
            &["key http.listn in the environment"],
        ),
        (
            "[http]\nthreads = \"four\"",
            &[],
            &["http.threads", "backtide.toml", "integer"],
        ),
        (
            "[mqtt]\nlisten = \"localhost\"",
            &[],
            &["mqtt.listen", "socket address"],
        ),
        (
            "",
            &[("BACKTIDE__HTTP__THREADS", "x")],
            &["http.threads", "the environment"],
        ),
        (
            "[http]\nthreads = 0",
            &[],
            &["http.threads", "0 is below 1"],
        ),
        ("[log]\nformat = \"xml\"", &[], &["log.format", "text"]),
        (
            "[log]\nlevel = \"warnn\"",
            &[],
            &["log.level", "\"warnn\" is none of off, error"],
        ),
        ("organization = \"a b\"", &[], &["organization", "' '"]),
        (
            "[mqtt]\nadvertised_url = \"host\"",
            &[],
            &["mqtt.advertised_url", "tcp://"],
        ),
        (
            "[mqtts]\ncertificate = \"c.pem\"",
            &[],
            &["mqtts.key", "go together"],
        ),
        (
            "[mqtts]\nclient_ca = \"ca.pem\"",
            &[],
            &["mqtts.client_ca", "mqtts.certificate"],
        ),
        (
            "[kafka]\nbootstrap_servers = \"kafka\"",
            &[],
            &["kafka.bootstrap_servers", "\"kafka\" is not host:port"],
        ),
        (
            "[kafka.sasl]\nmechanism = \"PLAIN\"\nusername = \"u\"",
            &[],
            &["kafka.sasl.password", "go together"],
        ),
        (
            "[kafka.tls]\nenabled = true",
            &[],
            &["kafka.bootstrap_servers", "is missing"],
        ),
        (
            "[kafka]\nbootstrap_servers = \"k:9\"\n[kafka.tls]\nca = \"ca.pem\"",
            &[],
            &["kafka.tls.enabled", "is false"],
        ),
        (
            "[kafka]\nbootstrap_servers = \"k:9\"\ncompression = \"rar\"",
            &[],
            &["kafka.compression", "lz4"],
        ),
        ("[mqtt", &[], &["backtide.toml"]),
    ] {
        let message = refused(file, variables);
        for part in expected {
            assert!(message.contains(part), "{file} {variables:?}: {message}");
        }
    }
}

#[test]
fn a_password_is_neither_shown_nor_logged() {
    let file = "[kafka]\nbootstrap_servers = \"k:9092\"\n";
    let variables = [
        ("BACKTIDE__KAFKA__SASL__MECHANISM", "SCRAM-SHA-512"),
        ("BACKTIDE__KAFKA__SASL__USERNAME", "backtide"),
        ("BACKTIDE__KAFKA__SASL__PASSWORD", "swordfish"),
    ];
    let raw = read(file, &variables).unwrap();
    assert!(raw.to_toml().contains("(hidden)"));
    let config = raw.clone().check().unwrap();
    for shown in [raw.to_toml(), format!("{raw:?}"), format!("{config:?}")] {
        assert!(!shown.contains("swordfish"), "{shown}");
    }
    let sasl = config.kafka.unwrap().sasl.unwrap();
    assert_eq!(sasl.password.reveal(), "swordfish");
    assert_eq!(sasl.mechanism.name(), "SCRAM-SHA-512");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Raw::read(Some(Path::new("/nowhere/b.toml")), Overrides::default());
    assert!(error.unwrap_err().to_string().contains("/nowhere/b.toml"));
}
