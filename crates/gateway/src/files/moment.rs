//! Text to moments: epoch milliseconds, ISO with an offset, or local time in a named zone.
//!
//! The rule for local times where clocks change: a time that the clock skips is read with the
//! offset from before the change (02:30 becomes 03:30), a time that comes twice as its first.
//! Both are counted.

use std::{fmt::Write as _, str::FromStr};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Reads the times of one file.
#[derive(Debug, Default)]
pub struct Clockwork {
    zone: Option<TimeZone>,
    pub notes: Notes,
}

/// What was decided on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notes {
    /// Local times that do not exist: moved forward by the length of the gap.
    pub skipped: u64,
    /// Local times that exist twice: read as the first.
    pub repeated: u64,
    /// Times with a part below the millisecond, which was cut off.
    pub cut: u64,
}

/// Why a text is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    #[error("{0:?} has no offset; name its zone with --timezone, such as --timezone Europe/Paris")]
    Local(String),
    #[error("{0:?} is no time; write 2014-01-01T01:00:00+01:00 or milliseconds since 1970")]
    Unreadable(String),
}

/// A zone by its IANA name.
///
/// # Errors
/// A sentence that names the zone.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| {
        format!("timezone {name:?} is unknown; give an IANA name such as Europe/Paris")
    })
}

impl Clockwork {
    pub fn new(zone: Option<TimeZone>) -> Self {
        Self {
            zone,
            notes: Notes::default(),
        }
    }

    /// Milliseconds since 1970 UTC.
    ///
    /// # Errors
    /// The text is no time, or a local one and no zone was given.
    pub fn read(&mut self, text: &str) -> Result<i64, MomentError> {
        let text = text.trim();
        if let Ok(epoch_ms) = i64::from_str(text) {
            return Ok(epoch_ms);
        }
        if let Ok(moment) = Timestamp::from_str(text) {
            return Ok(self.whole_ms(moment));
        }
        let Ok(local) = DateTime::from_str(text) else {
            return Err(MomentError::Unreadable(beginning(text)));
        };
        self.read_local(local).ok_or_else(|| match self.zone {
            None => MomentError::Local(beginning(text)),
            Some(_) => MomentError::Unreadable(beginning(text)),
        })
    }

    /// A local moment in the zone of this file; `None` where there is no zone, or it lies beyond
    /// the calendar.
    pub fn read_local(&mut self, local: DateTime) -> Option<i64> {
        let ambiguous = self.zone.as_ref()?.to_ambiguous_timestamp(local);
        match ambiguous.offset() {
            jiff::tz::AmbiguousOffset::Gap { .. } => self.notes.skipped += 1,
            jiff::tz::AmbiguousOffset::Fold { .. } => self.notes.repeated += 1,
            jiff::tz::AmbiguousOffset::Unambiguous { .. } => {}
        }
        let moment = ambiguous.compatible().ok()?;
        Some(self.whole_ms(moment))
    }

    /// Cuts off what is below the millisecond, towards the past.
    pub fn whole_ms(&mut self, moment: Timestamp) -> i64 {
        let nanoseconds = moment.as_nanosecond();
        if nanoseconds % 1_000_000 != 0 {
            self.notes.cut += 1;
        }
        i64::try_from(nanoseconds.div_euclid(1_000_000))
            .expect("the calendar ends in the year 9999")
    }
}

/// Enough of a text to recognise it.
pub fn beginning(text: &str) -> String {
    beginning_of(text, 60)
}

pub fn beginning_of(text: &str, chars_max: usize) -> String {
    let mut short: String = text.chars().take(chars_max).collect();
    if short.len() < text.len() {
        write!(short, "…").expect("a string takes every write");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paris() -> Clockwork {
        Clockwork::new(Some(zone("Europe/Paris").unwrap()))
    }

    #[test]
    fn milliseconds_and_iso_with_any_offset_are_the_same_moment() {
        let mut clock = Clockwork::default();
        for text in [
            "1388534400000",
            "2014-01-01T00:00:00Z",
            "2014-01-01T01:00:00+01:00",
            " 2014-01-01 01:00:00+01 ",
            "2014-01-01T00:00:00.000Z",
        ] {
            assert_eq!(clock.read(text), Ok(1_388_534_400_000), "{text}");
        }
        assert_eq!(clock.read("-1"), Ok(-1));
        assert_eq!(clock.notes, Notes::default());
    }

    #[test]
    fn a_local_time_without_a_zone_is_not_guessed() {
        let error = Clockwork::default()
            .read("2014-07-01 12:00:00")
            .unwrap_err();
        assert!(error.to_string().contains("--timezone"), "{error}");
        assert!(matches!(
            paris().read("yesterday"),
            Err(MomentError::Unreadable(_))
        ));
    }

    #[test]
    fn local_times_follow_the_zone_through_the_year() {
        let mut clock = paris();
        assert_eq!(
            clock.read("2014-07-01 12:00:00"),
            Clockwork::default().read("2014-07-01T12:00:00+02:00")
        );
        assert_eq!(
            clock.read("2014-01-01 12:00"),
            Clockwork::default().read("2014-01-01T12:00:00+01:00")
        );
    }

    #[test]
    fn a_skipped_time_moves_forward_and_a_repeated_one_is_its_first() {
        let mut clock = paris();
        assert_eq!(
            clock.read("2014-03-30 02:30"),
            Clockwork::default().read("2014-03-30T03:30+02:00")
        );
        assert_eq!(
            clock.read("2014-10-26 02:30"),
            Clockwork::default().read("2014-10-26T02:30+02:00")
        );
        assert_eq!(
            clock.notes,
            Notes {
                skipped: 1,
                repeated: 1,
                cut: 0
            }
        );
    }

    #[test]
    fn what_is_below_the_millisecond_is_cut_off_and_counted() {
        let mut clock = Clockwork::default();
        assert_eq!(clock.read("1970-01-01T00:00:00.0019Z"), Ok(1));
        assert_eq!(clock.read("1969-12-31T23:59:59.9999Z"), Ok(-1));
        assert_eq!(clock.notes.cut, 2);
    }
}
