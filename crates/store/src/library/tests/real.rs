//! Real history: two years of a wind farm, with the traps of every real import. The folder that
//! `BACKTIDE_TEST_DATA` names has the file; without it there is nothing to test with.

use std::{fs::File, io::Read};

use super::*;

const MESSAGE_ROWS: usize = 100;
const FLUSH_MESSAGES: usize = 1_000;
const POINTS: [&str; 7] = [
    "Ba_avg", "P_avg", "Ws_avg", "Va_avg", "Ot_avg", "Ya_avg", "Wa_avg",
];

struct HistoryRow {
    device: DeviceKey,
    time_ms: i64,
    values: [Option<f64>; 7],
}

fn history() -> Option<Vec<HistoryRow>> {
    let folder = PathBuf::from(std::env::var_os("BACKTIDE_TEST_DATA")?);
    let file = File::open(folder.join("la-haute-borne-2014-2015.csv.zst")).unwrap();
    let mut text = String::new();
    zstd::Decoder::new(file)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    Some(text.lines().skip(1).map(parse).collect())
}

fn parse(line: &str) -> HistoryRow {
    let mut fields = line.split(',');
    let device = device(fields.next().unwrap());
    let time_ms = parse_time(fields.next().unwrap());
    let mut values = [None; 7];
    for (value, field) in values.iter_mut().zip(fields) {
        *value = (!field.is_empty()).then(|| field.parse().unwrap());
    }
    HistoryRow {
        device,
        time_ms,
        values,
    }
}

/// `2014-01-01T01:00:00+01:00`
fn parse_time(text: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| text.get(range).unwrap().parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days since 1970, by the calendar of the Gregorian era that begins in March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = (days * 24 + number(11..13)) * 3600 + number(14..16) * 60 + number(17..19);
    let offset = number(20..22) * 3600 + number(23..25) * 60;
    1000 * (seconds - offset)
}

/// Sends rows in messages, flushed now and then.
fn import<'a>(world: &mut World, rows: impl Iterator<Item = &'a HistoryRow>) {
    let mut rows = rows
        .filter(|row| row.values.iter().any(Option::is_some))
        .peekable();
    let mut messages = 0;
    while rows.peek().is_some() {
        let mut builder = BatchBuilder::new();
        for row in rows.by_ref().take(MESSAGE_ROWS) {
            builder.row(&row.device, row.time_ms);
            for (name, value) in POINTS.iter().zip(row.values) {
                if let Some(value) = value {
                    let (name, cell) = (point(name), Cell::Double(value));
                    builder.cell(&name, ConflictPolicy::KeepLast, cell, NO_QUALITY);
                }
            }
        }
        world.commit(builder.build());
        messages += 1;
        if messages % FLUSH_MESSAGES == 0 {
            world.flush();
        }
    }
    world.flush();
    world.work_to_the_end();
}

#[test]
fn two_years_are_small_their_conflicts_found_and_sent_again_they_stay_small() {
    let Some(mut history) = history() else {
        eprintln!("BACKTIDE_TEST_DATA is not set");
        return;
    };
    let mut world = World::without_refusals();
    import(&mut world, history.iter());
    let stats = world.library.stats().unwrap();
    assert_eq!(
        (stats.cells, stats.conflicts, stats.duplicates),
        (2_925_377 - 336, 307, 29)
    );
    let filter = ConflictFilter {
        limit: 1_000,
        ..ConflictFilter::default()
    };
    assert_eq!(world.library.conflict_rows(&filter).unwrap().total, 48);
    let bytes_per_value = bytes(&stats) / 2_925_041.0;
    eprintln!(
        "{bytes_per_value:.3} bytes a value, {} segments",
        stats.segments
    );
    assert!(bytes_per_value < 2.2);

    let expected = rows_of(&world.read(&everything()));
    let mut last: BTreeMap<(&str, i64, usize), f64> = BTreeMap::new();
    for row in &history {
        for (at, value) in row.values.iter().enumerate() {
            last.extend(value.map(|value| ((row.device.as_str(), row.time_ms, at), value)));
        }
    }
    let mut found = 0;
    for ((key, time_ms), _, cells) in &expected {
        for (name, (cell, _)) in cells {
            let at = POINTS.iter().position(|known| known == name).unwrap();
            assert_eq!(
                *cell,
                text(&Cell::Double(last[&(key.as_str(), *time_ms, at)]))
            );
            found += 1;
        }
    }
    assert_eq!(found, last.len());

    // A shuffle that needs no randomness: strides that share no factor with the number of rows.
    let rows = history.len();
    history = {
        let mut rest: Vec<Option<HistoryRow>> = history.into_iter().map(Some).collect();
        (0..rows)
            .map(|at| rest[at * 7_919 % rows].take().unwrap())
            .collect()
    };
    import(&mut world, history.iter());
    let again = world.library.stats().unwrap();
    assert_eq!(again.cells, stats.cells);
    let growth = bytes(&again) / bytes(&stats) - 1.0;
    eprintln!(
        "sent again: {:.3} % larger, {} segments",
        100.0 * growth,
        again.segments
    );
    assert!(growth < 0.01);
}

#[expect(clippy::cast_precision_loss, reason = "a few megabytes are exact")]
fn bytes(stats: &LibraryStats) -> f64 {
    stats.bytes as f64
}
