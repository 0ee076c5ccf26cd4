//! Moments in questions: milliseconds since 1970, ISO with an offset, or local time in a zone that is
//! named: `timezone=Europe/Paris`, or `2014-01-01T00:00[Europe/Paris]`.
//!
//! A bound of a question is never guessed: a local time that the clock skips or shows twice is
//! refused, with the moments that could be meant.

use std::str::FromStr;

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, Offset, TimeZone},
};

/// Why a text is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    #[error("{0:?} is no time; write 2014-01-01T00:00:00Z or milliseconds since 1970")]
    Unreadable(String),
    #[error("{0:?} has no offset; add one, such as Z or +01:00, or name its zone with timezone")]
    Local(String),
    #[error("{text:?} is left out in {zone}, where clocks go forward; write {before} or {after}")]
    Skipped {
        text: String,
        zone: String,
        before: String,
        after: String,
    },
    #[error("{text:?} comes twice in {zone}, where clocks go back; write {first} or {second}")]
    Twice {
        text: String,
        zone: String,
        first: String,
        second: String,
    },
    #[error("timezone {0:?} is unknown; give an IANA name such as Europe/Paris")]
    Zone(String),
}

/// A zone by its IANA name.
///
/// # Errors
/// There is none of that name.
pub fn zone(name: &str) -> Result<TimeZone, TimeError> {
    TimeZone::get(name).map_err(|_| TimeError::Zone(beginning(name)))
}

/// As [`moment_in`], where no zone is named beside the text.
///
/// # Errors
/// The text is no moment.
pub fn moment(text: &str) -> Result<i64, TimeError> {
    moment_in(text, None)
}

/// Milliseconds since 1970 UTC. A part below the millisecond counts as a whole one, so that
/// `from` and `to` still bound what they name. A time without an offset is in `local`.
///
/// # Errors
/// The text is none, or a local time that is not one moment.
pub fn moment_in(text: &str, local: Option<&TimeZone>) -> Result<i64, TimeError> {
    if let Ok(epoch_ms) = text.parse() {
        return Ok(epoch_ms);
    }
    // In a URL an unescaped plus sign arrives as a blank.
    let moment = Timestamp::from_str(text).or_else(|_| {
        // Which it is not between a date and its time.
        let (date, rest) = text.split_at_checked(11).unwrap_or((text, ""));
        Timestamp::from_str(&format!("{date}{}", rest.replace(' ', "+")))
    });
    if let (Ok(moment), false) = (&moment, text.contains('[')) {
        return ms(*moment).ok_or_else(|| TimeError::Unreadable(beginning(text)));
    }
    match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((time, name)) => of_local(text, time, &zone(name)?),
        None => match local {
            Some(zone) => of_local(text, text, zone),
            None if DateTime::from_str(text).is_ok() => Err(TimeError::Local(beginning(text))),
            None => Err(TimeError::Unreadable(beginning(text))),
        },
    }
}

fn of_local(text: &str, time: &str, zone: &TimeZone) -> Result<i64, TimeError> {
    let unreadable = || TimeError::Unreadable(beginning(text));
    // An offset says more than the zone beside it.
    if let Ok(moment) = Timestamp::from_str(time) {
        return ms(moment).ok_or_else(unreadable);
    }
    let local = DateTime::from_str(time).map_err(|_| unreadable())?;
    let found = zone.to_ambiguous_timestamp(local);
    let with = |offset: Offset| match offset.to_timestamp(local) {
        Ok(moment) => moment.display_with_offset(offset).to_string(),
        Err(_) => beginning(text),
    };
    let name = || zone.iana_name().unwrap_or("this zone").to_owned();
    match found.offset() {
        AmbiguousOffset::Unambiguous { .. } => {
            let moment = found.compatible().map_err(|_| unreadable())?;
            ms(moment).ok_or_else(unreadable)
        }
        AmbiguousOffset::Gap { before, after } => Err(TimeError::Skipped {
            text: beginning(text),
            zone: name(),
            before: with(before),
            after: with(after),
        }),
        AmbiguousOffset::Fold { before, after } => Err(TimeError::Twice {
            text: beginning(text),
            zone: name(),
            first: with(before),
            second: with(after),
        }),
    }
}

fn ms(moment: Timestamp) -> Option<i64> {
    let nanoseconds = moment.as_nanosecond();
    i64::try_from(nanoseconds.div_euclid(1_000_000) + i128::from(nanoseconds % 1_000_000 != 0)).ok()
}

fn beginning(text: &str) -> String {
    text.chars().take(60).collect()
}

/// From (inclusive) and to (exclusive); what is not given bounds nothing.
///
/// # Errors
/// One of the texts is no moment.
pub(super) fn span(
    from: Option<&str>,
    to: Option<&str>,
    local: Option<&TimeZone>,
) -> Result<(Option<i64>, Option<i64>), TimeError> {
    let bound = |text: Option<&str>| text.map(|text| moment_in(text, local)).transpose();
    Ok((bound(from)?, bound(to)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_and_milliseconds_are_the_same_moment() {
        for text in [
            "1388534400003",
            "2014-01-01T00:00:00.003Z",
            "2014-01-01 00:00:00.003Z",
            "2014-01-01T01:00:00.003+01:00",
            "2014-01-01T01:00:00.003 01:00",
            "2014-01-01T00:00:00.0021Z",
            "2014-01-01T01:00:00.003[Europe/Paris]",
            "2014-01-01T01:00:00.003+01:00[Europe/Paris]",
        ] {
            assert_eq!(moment(text), Ok(1_388_534_400_003), "{text}");
        }
        let told = |text: &str| moment(text).unwrap_err().to_string();
        assert!(told("yesterday").contains("yesterday"));
        assert!(
            told("2014-01-01T00:00:00").contains("timezone"),
            "a local time is not guessed"
        );
    }

    #[test]
    fn a_local_time_is_read_in_the_zone_that_is_named() {
        let paris = zone("Europe/Paris").unwrap();
        let read = |text: &str| moment_in(text, Some(&paris));
        assert_eq!(read("2014-01-01T01:00:00"), Ok(1_388_534_400_000));
        assert_eq!(read("2014-01-01 01:00"), Ok(1_388_534_400_000));
        assert_eq!(read("2014-07-01"), moment("2014-06-30T22:00:00Z"));
        assert_eq!(read("2014-01-01T00:00:00Z"), Ok(1_388_534_400_000));
        assert!(
            zone("Europe/Pariss")
                .unwrap_err()
                .to_string()
                .contains("Pariss")
        );
    }

    #[test]
    fn a_local_time_that_is_skipped_or_comes_twice_is_refused_with_what_could_be_meant() {
        let paris = zone("Europe/Paris").unwrap();
        let told = |text: &str| moment_in(text, Some(&paris)).unwrap_err().to_string();
        assert_eq!(
            told("2014-03-30T02:30:00"),
            "\"2014-03-30T02:30:00\" is left out in Europe/Paris, where clocks go forward; \
             write 2014-03-30T02:30:00+01:00 or 2014-03-30T02:30:00+02:00"
        );
        assert_eq!(
            told("2014-10-26T02:30:00"),
            "\"2014-10-26T02:30:00\" comes twice in Europe/Paris, where clocks go back; \
             write 2014-10-26T02:30:00+02:00 or 2014-10-26T02:30:00+01:00"
        );
    }
}
