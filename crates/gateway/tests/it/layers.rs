//! Imports run one way (ARCHITECTURE.md). This fails on a forbidden one.

use std::{fs, path::Path};

/// A room and the rooms it must not know.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "mqtt",
        &[
            "http",
            "cli",
            "ingest",
            "registry",
            "auth",
            "house",
            "app",
            "quarantine",
        ],
    ),
    (
        "http",
        &["mqtt", "cli", "ingest", "house", "app", "postgres"],
    ),
    (
        "ingest",
        &["mqtt", "http", "cli", "house", "app", "auth", "redrive"],
    ),
    (
        "registry",
        &[
            "mqtt",
            "http",
            "cli",
            "ingest",
            "house",
            "app",
            "quarantine",
            "channel_log",
            "rules",
        ],
    ),
    (
        "access",
        &["mqtt", "http", "cli", "ingest", "house", "app", "store"],
    ),
    (
        "application",
        &[
            "mqtt", "http", "cli", "ingest", "house", "app", "store", "access",
        ],
    ),
    (
        "quarantine",
        &["mqtt", "http", "cli", "ingest", "house", "app"],
    ),
    (
        "channel_log",
        &["mqtt", "http", "cli", "ingest", "house", "app", "registry"],
    ),
    (
        "tls",
        &[
            "mqtt", "http", "cli", "ingest", "registry", "house", "app", "auth",
        ],
    ),
    (
        "subscription",
        &[
            "mqtt",
            "http",
            "cli",
            "ingest",
            "house",
            "app",
            "subscribe",
            "quarantine",
        ],
    ),
    (
        "subscribe",
        &["mqtt", "http", "cli", "ingest", "house", "app", "store"],
    ),
    (
        "policy",
        &[
            "mqtt", "http", "cli", "ingest", "registry", "store", "house", "app",
        ],
    ),
    (
        "retention",
        &["mqtt", "http", "cli", "ingest", "house", "app", "query"],
    ),
    (
        "derive",
        &[
            "mqtt",
            "http",
            "cli",
            "ingest",
            "house",
            "app",
            "rules",
            "subscription",
            "subscribe",
            "quarantine",
        ],
    ),
    ("redrive", &["mqtt", "http", "cli", "house", "app", "auth"]),
    ("imports", &["mqtt", "http", "cli", "house", "app", "auth"]),
    (
        "archive",
        &["mqtt", "http", "cli", "ingest", "house", "app", "auth"],
    ),
    (
        "compared",
        &[
            "mqtt", "http", "cli", "house", "app", "auth", "ingest", "registry",
        ],
    ),
    (
        "files",
        &[
            "mqtt", "http", "cli", "house", "app", "auth", "ingest", "registry", "store",
        ],
    ),
    (
        "rules",
        &[
            "mqtt",
            "http",
            "cli",
            "ingest",
            "house",
            "app",
            "subscribe",
            "subscription",
            "quarantine",
        ],
    ),
    (
        "sink",
        &[
            "mqtt",
            "http",
            "cli",
            "ingest",
            "house",
            "app",
            "rules",
            "subscription",
            "quarantine",
        ],
    ),
    (
        "expression",
        &[
            "mqtt", "http", "cli", "ingest", "house", "app", "rules", "registry", "store",
        ],
    ),
    (
        "template",
        &[
            "mqtt", "http", "cli", "ingest", "house", "app", "rules", "registry", "store",
            "message",
        ],
    ),
    (
        "recorder",
        &[
            "mqtt",
            "http",
            "cli",
            "ingest",
            "registry",
            "quarantine",
            "house",
            "app",
        ],
    ),
    (
        "kafka",
        &[
            "mqtt",
            "http",
            "cli",
            "ingest",
            "registry",
            "house",
            "app",
            "sink",
            "subscription",
            "store",
        ],
    ),
    (
        "sql",
        &[
            "mqtt", "http", "cli", "ingest", "house", "app", "postgres", "access", "rules",
        ],
    ),
    (
        "postgres",
        &[
            "mqtt",
            "http",
            "cli",
            "ingest",
            "house",
            "app",
            "subscribe",
            "store",
            "registry",
        ],
    ),
    ("query", &["mqtt", "http", "cli", "ingest", "house", "app"]),
    ("auth", &["mqtt", "http", "cli", "ingest", "house", "app"]),
    (
        "store",
        &["mqtt", "http", "cli", "ingest", "registry", "house", "app"],
    ),
];

#[test]
fn no_room_imports_one_that_stands_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files_read = 0;
    for &(room, forbidden) in FORBIDDEN {
        for file in files_of(&source, room) {
            files_read += 1;
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                for other in forbidden {
                    assert!(
                        !imports(line, other),
                        "{}:{}: {room} must not import {other}: {line}",
                        file.display(),
                        number + 1
                    );
                }
            }
        }
    }
    assert!(
        files_read > 20,
        "the rooms were not found: {files_read} files"
    );
}

/// `crate::other…` as a path; `use crate::{other…` spread over lines is caught by its first segment.
fn imports(line: &str, other: &str) -> bool {
    let line = line.trim_start();
    let starts = |text: &str| {
        text.strip_prefix(other)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ',', ';', ' ', '}']))
    };
    line.match_indices("crate::").any(|(at, found)| {
        let rest = line.split_at(at + found.len()).1;
        starts(rest.strip_prefix('{').unwrap_or(rest))
    }) || (line.starts_with(other) && line.contains("::") && starts(line) && !line.contains('('))
}

fn files_of(source: &Path, room: &str) -> Vec<std::path::PathBuf> {
    let mut files = vec![source.join(format!("{room}.rs"))];
    let mut folders = vec![source.join(room)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.retain(|file| file.exists());
    files
}
