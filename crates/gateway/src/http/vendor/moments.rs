//! Times as the vendor's API takes and tells them: local to each device, or one moment for all. Pure.

use std::str::FromStr;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::{
    answer::Refusal,
    call::{Call, Params},
};
use crate::registry::Device;

/// From (inclusive) to (exclusive), both in one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// Wall-clock times of each device.
    Local(DateTime, DateTime),
    /// Milliseconds since 1970 UTC, the same for every device.
    Absolute(i64, i64),
}

#[derive(Clone, Copy)]
enum Moment {
    Local(DateTime),
    Absolute(i64),
}

impl Span {
    pub(super) fn of(params: &Params) -> Result<Self, Refusal> {
        let (from, to) = (params.required("startTime")?, params.required("endTime")?);
        let span = match (moment(from)?, moment(to)?) {
            (Moment::Local(from), Moment::Local(to)) if from <= to => Self::Local(from, to),
            (Moment::Absolute(from), Moment::Absolute(to)) if from <= to => {
                Self::Absolute(from, to)
            }
            (Moment::Local(_), Moment::Local(_)) | (Moment::Absolute(_), Moment::Absolute(_)) => {
                return Err(Refusal::parameter(format!(
                    "startTime {from} is after endTime {to}"
                )));
            }
            (Moment::Local(_), Moment::Absolute(_)) | (Moment::Absolute(_), Moment::Local(_)) => {
                return Err(Refusal::parameter(
                    "startTime and endTime are not of one form: write both with an offset, or neither",
                ));
            }
        };
        Ok(span)
    }

    /// Milliseconds since 1970 UTC for a device of this zone. Of a local time that comes twice the
    /// earlier is meant, one that does not come counts on as if it did.
    pub(super) fn at(self, zone: &TimeZone) -> Result<(i64, i64), Refusal> {
        match self {
            Self::Absolute(from, to) => Ok((from, to)),
            Self::Local(from, to) => Ok((local_ms(from, zone)?, local_ms(to, zone)?)),
        }
    }
}

fn local_ms(time: DateTime, zone: &TimeZone) -> Result<i64, Refusal> {
    zone.to_timestamp(time)
        .map(Timestamp::as_millisecond)
        .map_err(|error| Refusal::parameter(format!("{time}: {error}")))
}

fn moment(text: &str) -> Result<Moment, Refusal> {
    // In a URL an unescaped plus sign arrives as a blank.
    let signed = || text.contains('T').then(|| text.replace(' ', "+"));
    let absolute = Timestamp::from_str(text)
        .ok()
        .or_else(|| Timestamp::from_str(&signed()?).ok());
    if let Some(moment) = absolute {
        return Ok(Moment::Absolute(moment.as_millisecond()));
    }
    DateTime::from_str(text).map(Moment::Local).map_err(|_| {
        Refusal::parameter(format!(
            "{text:?} is no time; write 2019-06-01 00:00:00 in the device's own time, or \
             2019-06-01T00:00:00+08:00"
        ))
    })
}

/// The zone of a device: UTC where it has none.
pub(super) fn zone_of(device: &Device) -> TimeZone {
    device
        .timezone
        .as_deref()
        .and_then(|name| TimeZone::get(name).ok())
        .unwrap_or(TimeZone::UTC)
}

/// The zone of an offset such as `+08:00`, as the IANA name of whole hours; an IANA name stays.
pub(super) fn zone_name(text: &str) -> Result<String, Refusal> {
    let Some(sign) = text.chars().next().filter(|first| "+-".contains(*first)) else {
        return Ok(text.to_owned());
    };
    let unknown = || {
        Refusal::bad(format!(
            "timezone {text:?} is no offset of whole hours; write an IANA name such as Asia/Kolkata"
        ))
    };
    let (hours, minutes) = text
        .get(1..)
        .and_then(|rest| rest.split_once(':'))
        .ok_or_else(unknown)?;
    let hours: u8 = hours.parse().map_err(|_| unknown())?;
    match (hours, minutes) {
        (0, "00") => Ok("Etc/UTC".to_owned()),
        // POSIX counts westwards: Etc/GMT-8 is east of Greenwich.
        (1..=14, "00") if sign == '+' => Ok(format!("Etc/GMT-{hours}")),
        (1..=12, "00") if sign == '-' => Ok(format!("Etc/GMT+{hours}")),
        _ => Err(unknown()),
    }
}

/// A zone as the vendor tells it: an offset where it is one.
pub(super) fn zone_text(name: Option<&str>) -> String {
    let Some(name) = name else {
        return "+00:00".to_owned();
    };
    match name
        .strip_prefix("Etc/GMT")
        .and_then(|hours| hours.parse::<i8>().ok())
    {
        Some(west) => {
            let sign = if west > 0 { '-' } else { '+' };
            format!("{sign}{:02}:00", west.unsigned_abs())
        }
        None if ["Etc/UTC", "UTC"].contains(&name) => "+00:00".to_owned(),
        None => name.to_owned(),
    }
}

/// How an item tells the local time of its device.
#[derive(Debug, Clone, Copy)]
pub(super) enum LocalTime {
    Absent,
    Told { with_ms: bool, with_zone: bool },
}

impl LocalTime {
    pub(super) fn of(call: &Call) -> Result<Self, Refusal> {
        let params = &call.params;
        if !params.is_set("ifWithLocalTime", true)? {
            return Ok(Self::Absent);
        }
        let with_zone = match params.get("localTimeFormat") {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => {
                return Err(Refusal::parameter(format!(
                    "localTimeFormat {other:?} is neither 0 nor 1"
                )));
            }
        };
        Ok(Self::Told {
            with_ms: params.is_set("localTimeAccuracy", false)?,
            with_zone,
        })
    }

    /// Appends it as JSON.
    pub(super) fn write(self, out: &mut Vec<u8>, time_ms: i64, zone: &TimeZone) {
        let Self::Told { with_ms, with_zone } = self else {
            return out.extend_from_slice(b"null");
        };
        let Ok(time) = Timestamp::from_millisecond(time_ms) else {
            return out.extend_from_slice(b"null");
        };
        let time = time.to_zoned_datetime(zone.clone());
        let format = match (with_zone, with_ms) {
            (false, false) => "%Y-%m-%d %H:%M:%S",
            (false, true) => "%Y-%m-%d %H:%M:%S.%3f",
            (true, false) => "%Y-%m-%dT%H:%M:%S%:z",
            (true, true) => "%Y-%m-%dT%H:%M:%S.%3f%:z",
        };
        out.extend_from_slice(format!("\"{}\"", time.strftime(format)).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: &str, to: &str) -> Result<(i64, i64), Refusal> {
        let of = |text: &str| match moment(text) {
            Ok(moment) => moment,
            Err(_) => Moment::Absolute(-1),
        };
        let zone = TimeZone::get("Europe/Paris").unwrap();
        match (of(from), of(to)) {
            (Moment::Local(from), Moment::Local(to)) => Span::Local(from, to).at(&zone),
            (Moment::Absolute(from), Moment::Absolute(to)) => Span::Absolute(from, to).at(&zone),
            _ => Err(Refusal::parameter("mixed")),
        }
    }

    #[test]
    fn local_times_are_those_of_the_device_and_offsets_are_the_same_for_all() {
        let hour = 3_600_000;
        // Winter and summer of Paris.
        let (from, to) = span("2014-01-01 01:00:00", "2014-07-01T02:00:00").unwrap();
        assert_eq!((from, to), (1_388_534_400_000, 1_404_172_800_000));
        let told = span("2014-01-01T01:00:00+01:00", "2014-01-01T01:00:00 01:00").unwrap();
        assert_eq!(told, (from, from));
        // 02:30 does not come on that night, and comes twice on the other.
        let (gap, _) = span("2014-03-30 02:30:00", "2014-03-30 03:30:00").unwrap();
        assert_eq!(gap, 1_396_143_000_000);
        let (fold, after) = span("2014-10-26 02:30:00", "2014-10-26 03:00:00").unwrap();
        assert_eq!(after - fold, hour + hour / 2);
        for wrong in ["yesterday", "2014-13-01 00:00:00", "1388534400000"] {
            assert_eq!(moment(wrong).err().unwrap().code, 702, "{wrong}");
        }
    }

    #[test]
    fn offsets_are_zones_and_read_back() {
        for (offset, name) in [
            ("+08:00", "Etc/GMT-8"),
            ("-03:00", "Etc/GMT+3"),
            ("+00:00", "Etc/UTC"),
            ("Asia/Kolkata", "Asia/Kolkata"),
        ] {
            assert_eq!(zone_name(offset).unwrap(), name);
            assert_eq!(zone_text(Some(name)), offset);
            assert!(TimeZone::get(name).is_ok());
        }
        for wrong in ["+05:30", "+15:00", "+8", "-", "+é8:00"] {
            assert!(zone_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_item_tells_the_time_on_the_devices_clock() {
        let zone = TimeZone::get("Europe/Paris").unwrap();
        let told = |with_ms, with_zone| {
            let mut out = Vec::new();
            LocalTime::Told { with_ms, with_zone }.write(&mut out, 1_404_165_600_001, &zone);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(told(false, false), "\"2014-07-01 00:00:00\"");
        assert_eq!(told(true, false), "\"2014-07-01 00:00:00.001\"");
        assert_eq!(told(true, true), "\"2014-07-01T00:00:00.001+02:00\"");
    }
}
