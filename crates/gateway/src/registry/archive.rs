//! Archives: history as files, elsewhere, once or again and again.

use backtide_model::ObjectName;
use jiff::{
    Timestamp,
    civil::{Time, Weekday},
    tz::TimeZone,
};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    Snapshot,
    sealed::{self, Sealed},
};
use crate::{
    limits,
    secrets::{Seal, SecretError},
};

/// An archive in an object file. Whether it is stopped, and its secret, are not in the file: those have
/// verbs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ArchiveFile {
    /// Names of products; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub products: Vec<ObjectName>,
    /// What files are of.
    #[serde(default, skip_serializing_if = "ArchiveOf::is_points")]
    pub of: ArchiveOf,
    /// wide: a row has all points of a device and time. long: a row for each point.
    #[serde(default)]
    pub form: ArchiveForm,
    #[serde(default)]
    pub format: ArchiveFormat,
    /// A file for each point too, not only for each product and day.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_point: bool,
    /// When it runs by itself; without one it runs when it is told to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleFile>,
    pub to: PlaceFile,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What an archive is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveOf {
    /// Values of points: a file for each product and day of the event.
    #[default]
    Points,
    /// Events: likewise.
    Events,
    /// Every value that attributes had: a file for each product.
    Attributes,
}

impl ArchiveOf {
    pub const ALL: [Self; 3] = [Self::Points, Self::Events, Self::Attributes];

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
    fn is_points(&self) -> bool {
        *self == Self::Points
    }

    pub const fn word(self) -> &'static str {
        match self {
            Self::Points => "points",
            Self::Events => "events",
            Self::Attributes => "attributes",
        }
    }
}

/// How rows are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveForm {
    #[default]
    Wide,
    Long,
}

/// What files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveFormat {
    #[default]
    Parquet,
    Csv,
}

impl ArchiveFormat {
    /// The ending of its files.
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// When an archive runs: `everyMinutes` or `at`, one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ScheduleFile {
    /// Minutes from the beginning of one run to that of the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 527_040))]
    pub every_minutes: Option<u32>,
    /// A time of day, such as 02:30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Only on these days of the week; on all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// Where `at` is local, such as Europe/Paris; UTC unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    const fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}

/// Where files go: `folder` or `s3`, one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PlaceFile {
    /// A folder of the gateway's machine, below `archive.folder` of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3File>,
}

/// A bucket of S3, or of anything that speaks its protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct S3File {
    pub bucket: String,
    /// What the names of its objects begin with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Such as eu-central-1.
    #[serde(default = "us_east_1")]
    pub region: String,
    /// Of a server that is not Amazon's, such as `https://s3.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The secret that belongs to it is set by `backtide archive secret`.
    pub access_key_id: String,
}

fn us_east_1() -> String {
    "us-east-1".to_owned()
}

/// Checks an archive against what else is declared.
pub(super) fn check(file: &ArchiveFile, snapshot: &Snapshot) -> Result<(), String> {
    for product in &file.products {
        if snapshot.product(product.as_str()).is_none() {
            return Err(format!("products: product {product} is not declared"));
        }
    }
    if file.of != ArchiveOf::Points && (file.by_point || file.form == ArchiveForm::Long) {
        let member = if file.by_point { "byPoint" } else { "form" };
        return Err(format!(
            "{member}: it lays out points; an archive of {} has one file with a row for each",
            file.of.word()
        ));
    }
    if let Some(schedule) = &file.schedule {
        Schedule::of(schedule).map_err(|why| format!("schedule: {why}"))?;
    }
    check_place(&file.to).map_err(|why| format!("to: {why}"))
}

fn check_place(place: &PlaceFile) -> Result<(), String> {
    match (&place.folder, &place.s3) {
        (Some(folder), None) => check_path("folder", folder, false),
        (None, Some(s3)) => {
            check_path("s3.prefix", &s3.prefix, true)?;
            if s3.bucket.is_empty() || s3.access_key_id.is_empty() {
                return Err("s3: bucket and accessKeyId must not be empty".to_owned());
            }
            let endpoint = s3.endpoint.as_deref();
            match endpoint
                .is_none_or(|url| url.starts_with("https://") || url.starts_with("http://"))
            {
                true => Ok(()),
                false => Err("s3.endpoint: an address begins with https:// or http://".to_owned()),
            }
        }
        (Some(_), Some(_)) | (None, None) => {
            Err("name a folder or an s3 bucket, one of the two".to_owned())
        }
    }
}

/// Names of folders with slashes between, none of which leads out or hides.
fn check_path(member: &str, path: &str, may_be_empty: bool) -> Result<(), String> {
    if path.is_empty() && may_be_empty {
        return Ok(());
    }
    let is_good = |part: &str| {
        let letters = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(letters)
    };
    match path.len() <= limits::ARCHIVE_PATH_BYTES_MAX && path.split('/').all(is_good) {
        true => Ok(()),
        false => Err(format!(
            "{member}: {path:?} is no path below the place of archives; write names of letters, digits, \
             - _ . with / between, such as lake/farm"
        )),
    }
}

/// What stays as it was: the files that are there would be of another kind.
pub(super) fn check_change(before: &ArchiveFile, after: &ArchiveFile) -> Result<(), String> {
    let changed = [
        ("of", before.of != after.of),
        ("form", before.form != after.form),
        ("format", before.format != after.format),
        ("byPoint", before.by_point != after.by_point),
        ("to", place_of(&before.to) != place_of(&after.to)),
    ];
    match changed.into_iter().find(|(_, is_changed)| *is_changed) {
        Some((member, _)) => Err(format!(
            "{member} cannot change: the files that are there would not fit; declare an archive of \
             another name"
        )),
        None => Ok(()),
    }
}

/// What names a place, without what opens it.
fn place_of(place: &PlaceFile) -> (Option<&str>, Option<[&str; 3]>) {
    let s3 = place.s3.as_ref().map(|s3| {
        let endpoint = s3.endpoint.as_deref().unwrap_or_default();
        [s3.bucket.as_str(), s3.prefix.as_str(), endpoint]
    });
    (place.folder.as_deref(), s3)
}

/// A schedule that makes sense.
#[derive(Debug, Clone)]
pub enum Schedule {
    Every {
        ms: i64,
    },
    At {
        time: Time,
        days: Vec<Day>,
        zone: TimeZone,
    },
}

impl Schedule {
    /// # Errors
    /// Why it makes no sense.
    pub fn of(file: &ScheduleFile) -> Result<Self, String> {
        match (file.every_minutes, &file.at) {
            (Some(minutes), None) => {
                if !file.days.is_empty() || file.timezone.is_some() {
                    return Err("days and timezone go with at, not with everyMinutes".to_owned());
                }
                if minutes == 0 || minutes > limits::ARCHIVE_EVERY_MINUTES_MAX {
                    let max = limits::ARCHIVE_EVERY_MINUTES_MAX;
                    return Err(format!(
                        "everyMinutes: {minutes} is not between 1 and {max}"
                    ));
                }
                Ok(Self::Every {
                    ms: i64::from(minutes) * 60_000,
                })
            }
            (None, Some(at)) => {
                let zone = file.timezone.as_deref().unwrap_or("UTC");
                Ok(Self::At {
                    time: Time::strptime("%H:%M", at)
                        .map_err(|_| format!("at: {at:?} is no time of day; write 02:30"))?,
                    days: file.days.clone(),
                    zone: TimeZone::get(zone).map_err(|_| {
                        format!(
                            "timezone: {zone:?} is unknown; give an IANA name such as Europe/Paris"
                        )
                    })?,
                })
            }
            (Some(_), Some(_)) | (None, None) => {
                Err("name everyMinutes or at, one of the two".to_owned())
            }
        }
    }

    /// When the next run begins after one that began then. A time of day that the clock skips is at
    /// the end of the gap; one that comes twice is its first.
    pub fn next_ms(&self, after_ms: i64) -> Option<i64> {
        match self {
            Self::Every { ms } => Some(after_ms.saturating_add(*ms)),
            Self::At { time, days, zone } => {
                let after = Timestamp::from_millisecond(after_ms).ok()?;
                let mut date = zone.to_datetime(after).date();
                // A week and a day: today's time may be over.
                for _ in 0..9 {
                    let moment = zone
                        .to_ambiguous_timestamp(date.to_datetime(*time))
                        .compatible()
                        .ok()?;
                    let is_day =
                        days.is_empty() || days.iter().any(|day| day.weekday() == date.weekday());
                    if is_day && moment > after {
                        return Some(moment.as_millisecond());
                    }
                    date = date.tomorrow().ok()?;
                }
                None
            }
        }
    }
}

/// An archive.
#[derive(Debug, Clone)]
pub struct Archive {
    pub name: ObjectName,
    pub file: ArchiveFile,
    /// Unlike that of any other, before or after it: names what is kept of its files.
    pub uid: Box<str>,
    pub created_ms: i64,
    /// Runs by itself no more.
    pub stopped: bool,
    /// The secret of its S3 access key.
    pub secret: Option<SecretString>,
}

impl Archive {
    pub(super) fn state_record(&self, seal: &Seal) -> String {
        let owner = owner(self.name.as_str());
        let record = ArchiveRecord {
            uid: self.uid.clone(),
            created_ms: self.created_ms,
            stopped: self.stopped,
            secret: Sealed::new(&owner, self.secret.as_ref(), seal),
        };
        serde_json::to_string(&record).expect("numbers and texts are JSON")
    }

    /// Whether two are the same, their secrets included.
    pub fn is_same(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.file == other.file
            && sealed::is_same(self.secret.as_ref(), other.secret.as_ref())
    }
}

fn owner(name: &str) -> String {
    format!("archive/{name}")
}

/// What a file does not say about an archive.
#[derive(Debug, Clone)]
pub(super) struct ArchiveState {
    pub(super) uid: Box<str>,
    pub(super) created_ms: i64,
    pub(super) stopped: bool,
    pub(super) secret: Option<SecretString>,
}

/// [`ArchiveState`] at rest, the secret sealed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchiveRecord {
    uid: Box<str>,
    created_ms: i64,
    stopped: bool,
    #[serde(default, skip_serializing_if = "Sealed::is_none")]
    secret: Sealed,
}

impl ArchiveState {
    pub(super) fn of(archive: &Archive) -> Self {
        Self {
            uid: archive.uid.clone(),
            created_ms: archive.created_ms,
            stopped: archive.stopped,
            secret: archive.secret.clone(),
        }
    }

    pub(super) fn with(self, name: ObjectName, file: ArchiveFile) -> Archive {
        Archive {
            name,
            file,
            uid: self.uid,
            created_ms: self.created_ms,
            stopped: self.stopped,
            secret: self.secret,
        }
    }

    pub(super) fn from_record(name: &str, record: &str, seal: &Seal) -> Result<Self, SecretError> {
        let owner = owner(name);
        let record: ArchiveRecord = sealed::read(&owner, record)?;
        Ok(Self {
            uid: record.uid,
            created_ms: record.created_ms,
            stopped: record.stopped,
            secret: record.secret.open(&owner, seal)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(yaml: &str) -> Result<Schedule, String> {
        Schedule::of(&serde_saphyr::from_str(yaml).unwrap())
    }

    fn next(schedule: &Schedule, after: &str) -> String {
        let after: Timestamp = after.parse().unwrap();
        let next = schedule.next_ms(after.as_millisecond()).unwrap();
        Timestamp::from_millisecond(next).unwrap().to_string()
    }

    #[test]
    fn a_time_of_day_follows_the_clock_of_its_zone_across_its_changes() {
        let paris = schedule("{ at: '02:30', timezone: Europe/Paris }").unwrap();
        assert_eq!(next(&paris, "2014-03-29T00:00:00Z"), "2014-03-29T01:30:00Z");
        // The clock goes from 02:00 to 03:00: half past two is half past three.
        assert_eq!(next(&paris, "2014-03-29T01:30:00Z"), "2014-03-30T01:30:00Z");
        assert_eq!(next(&paris, "2014-03-30T01:30:00Z"), "2014-03-31T00:30:00Z");
        // It comes twice: the first counts.
        assert_eq!(next(&paris, "2014-10-25T12:00:00Z"), "2014-10-26T00:30:00Z");
        assert_eq!(next(&paris, "2014-10-26T00:30:00Z"), "2014-10-27T01:30:00Z");
        let weekly = schedule("{ at: '02:30', days: [mon] }").unwrap();
        assert_eq!(
            next(&weekly, "2014-03-31T02:30:00Z"),
            "2014-04-07T02:30:00Z"
        );
    }

    #[test]
    fn a_schedule_that_makes_no_sense_says_why() {
        for (yaml, named) in [
            ("{}", "one of the two"),
            ("{ everyMinutes: 5, at: '02:30' }", "one of the two"),
            ("{ everyMinutes: 0 }", "everyMinutes"),
            ("{ everyMinutes: 5, days: [mon] }", "days"),
            ("{ at: '25:00' }", "25:00"),
            ("{ at: '02:30', timezone: Mars }", "Mars"),
        ] {
            let error = schedule(yaml).unwrap_err();
            assert!(error.contains(named), "{yaml}: {error}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_place_of_archives() {
        let folder = |path: &str| {
            check_place(&PlaceFile {
                folder: Some(path.to_owned()),
                s3: None,
            })
        };
        assert_eq!(folder("lake/farm-1"), Ok(()));
        for path in [
            "", "/etc", "../x", "a/../b", "a//b", ".hidden", "a/", "a b", "x\0",
        ] {
            assert!(folder(path).is_err(), "{path:?}");
        }
    }
}
