//! What a session has set. It is kept with its connection, in the library's metadata, under names in
//! small letters.

use std::{collections::HashMap, time::Duration};

use datafusion_postgres::pgwire::{api::ClientInfo, error::PgWireResult};

use super::super::fault;
use crate::{
    limits::SQL_SETTINGS_MAX,
    sql::{SETTINGS, setting},
};

const STATEMENT_TIMEOUT: &str = "statement_timeout";
/// Whatever is set, it is this.
const READ_ONLY: &[&str] = &["transaction_read_only", "default_transaction_read_only"];
const UTF8: &[&str] = &["UTF8", "UTF-8", "UNICODE"];

/// Settings as a client names them when it connects, in `options` too (`-c name=value`), under the
/// names that sessions keep them by.
///
/// # Errors
/// One of them cannot be had.
pub(in crate::postgres) fn at_startup<C: ClientInfo>(client: &mut C) -> PgWireResult<()> {
    let asked = client.metadata().clone();
    let options = asked.get("options").map(String::as_str).unwrap_or_default();
    let mut words = options.split_whitespace();
    let mut named: Vec<(String, String)> = Vec::new();
    while let Some(word) = words.next() {
        let pair = match word.strip_prefix("-c") {
            Some("") => words.next(),
            Some(pair) => Some(pair),
            None => word.strip_prefix("--"),
        };
        if let Some((name, value)) = pair.and_then(|pair| pair.split_once('=')) {
            named.push((name.to_owned(), value.to_owned()));
        }
    }
    for (name, value) in asked.into_iter().chain(named) {
        if setting(&name).is_some() {
            keep(client.metadata_mut(), &name, &value)?;
        }
    }
    Ok(())
}

/// Keeps what is set, under its name in small letters. Settings that PostgreSQL would know and this
/// server has no use for are taken and not kept; names with a dot are the client's own.
pub(super) fn keep(
    kept: &mut HashMap<String, String>,
    name: &str,
    value: &str,
) -> PgWireResult<()> {
    let invalid = |hint: &str| {
        let message = format!("invalid value for {name}: \"{value}\"");
        Err(fault::of("ERROR", "22023", &message, hint))
    };
    if setting(name).is_some_and(|setting| !setting.is_settable) {
        let message = format!("{name} cannot be changed");
        return Err(fault::of("ERROR", "55P02", &message, "leave it as it is"));
    }
    if name.eq_ignore_ascii_case(STATEMENT_TIMEOUT) && span(value).is_none() {
        return invalid("give milliseconds, or a number with us, ms, s, min, h or d");
    }
    let is_utf8 = UTF8.iter().any(|utf8| value.eq_ignore_ascii_case(utf8));
    if name.eq_ignore_ascii_case("client_encoding") && !is_utf8 {
        return invalid("texts are UTF-8 here: set it to UTF8");
    }
    let name = name.to_lowercase();
    let is_own = name.contains('.');
    if is_own && !kept.contains_key(&name) && kept.len() >= SQL_SETTINGS_MAX {
        let message = format!("{SQL_SETTINGS_MAX} settings are kept already");
        return Err(fault::of(
            "ERROR",
            "53400",
            &message,
            "reset those that are not needed: RESET ALL",
        ));
    }
    let is_known = setting(&name).is_some() && !READ_ONLY.contains(&name.as_str());
    if is_known || is_own {
        kept.insert(name, value.to_owned());
    }
    Ok(())
}

/// What `SHOW` answers: what the session has set, else the default.
pub(super) fn value_of(name: &str, client: &(impl ClientInfo + ?Sized)) -> Option<String> {
    let known = setting(name);
    let kept = known
        .is_none_or(|setting| setting.is_settable)
        .then(|| client.metadata().get(&name.to_lowercase()).cloned())
        .flatten();
    kept.or_else(|| known.map(|setting| setting.value.to_owned()))
}

/// Every setting is what it is by default.
pub(super) fn forget(kept: &mut HashMap<String, String>) {
    for setting in SETTINGS {
        kept.remove(&setting.name.to_lowercase());
    }
    kept.retain(|name, _| !name.contains('.'));
}

/// The time limit that a session has set itself.
pub(in crate::postgres) fn statement_timeout(
    client: &(dyn ClientInfo + Send + Sync),
) -> Option<Duration> {
    let set = client.metadata().get(STATEMENT_TIMEOUT)?;
    span(set).filter(|span| !span.is_zero())
}

/// A span of time as PostgreSQL writes it; milliseconds where there is no unit.
fn span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let micros = match unit.trim() {
        "us" => 1,
        "" | "ms" => 1_000,
        "s" => 1_000_000,
        "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    number.checked_mul(micros).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use datafusion_postgres::pgwire::error::PgWireError;

    use super::*;

    fn code(kept: PgWireResult<()>) -> Option<String> {
        match kept {
            Err(PgWireError::UserError(info)) => Some(info.code),
            _ => None,
        }
    }

    #[test]
    fn spans_have_units_and_are_milliseconds_without() {
        assert_eq!(span("1500"), Some(Duration::from_millis(1500)));
        assert_eq!(span("5s"), Some(Duration::from_secs(5)));
        assert_eq!(span(" 2 min"), Some(Duration::from_secs(120)));
        assert_eq!(span("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(span("soon"), None);
        assert_eq!(span("5 weeks"), None);
        assert_eq!(span("99999999999999999d"), None);
    }

    #[test]
    fn what_is_set_is_kept_and_what_cannot_be_is_told() {
        let mut kept = HashMap::new();
        keep(&mut kept, "DateStyle", "ISO, DMY").unwrap();
        keep(&mut kept, "my.own", "1").unwrap();
        keep(&mut kept, "default_transaction_read_only", "off").unwrap();
        assert_eq!(kept["datestyle"], "ISO, DMY");
        assert_eq!(kept["my.own"], "1");
        assert_eq!(kept.len(), 2);
        assert_eq!(
            code(keep(&mut kept, "server_version", "9")).unwrap(),
            "55P02"
        );
        assert_eq!(
            code(keep(&mut kept, "statement_timeout", "soon")).unwrap(),
            "22023"
        );
        assert_eq!(
            code(keep(&mut kept, "client_encoding", "LATIN1")).unwrap(),
            "22023"
        );
    }

    #[test]
    fn names_of_a_clients_own_are_kept_up_to_a_bound_and_names_of_no_use_are_not() {
        let mut kept = HashMap::new();
        keep(&mut kept, "enable_seqscan", "off").unwrap();
        assert!(kept.is_empty());
        for number in 0..SQL_SETTINGS_MAX {
            keep(&mut kept, &format!("my.{number}"), "1").unwrap();
        }
        keep(&mut kept, "my.0", "2").unwrap();
        assert_eq!(code(keep(&mut kept, "my.more", "1")).unwrap(), "53400");
    }
}
