//! Which column of a file is the device, the time, a point: from flags or a mapping file.
//!
//! A mapping file is YAML with the names of the flags:
//!
//! ```yaml
//! device-column: turbine
//! time-column: at
//! timezone: Europe/Paris
//! map: { power: P_avg }
//! drop: [comment]
//! absent: [NaN]
//! ```
//!
//! Files of events and attributes are long ones, the event or attribute in the place of the point.
//!
//! A wide file has a column for each point; a long one a row for each, its name in `point-column`.

mod layout;
mod points;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use backtide_model::Items;
use serde::Deserialize;

pub use layout::{Cells, DeviceAt, Layout, PointAt, is_archive, key};
pub use points::Points;

/// The columns of files that `query` and `export` write.
const DEVICE_COLUMN: &str = "deviceKey";
const TIME_COLUMN: &str = "time";
const POINT_COLUMN: &str = "point";
const VALUE_COLUMN: &str = "value";
const QUALITY_COLUMN: &str = "quality";
const OUTPUT_COLUMN: &str = "output";
/// What files of events and attributes say beside them.
const CAME_COLUMNS: [&str; 5] = ["channel", "arrived", "receipt", "confirmed", CURRENT_COLUMN];
/// Archives of attributes have it. Their values are JSON, texts too.
const CURRENT_COLUMN: &str = "current";
/// A column of qualities has its point's name with this ending.
pub const QUALITY_ENDING: &str = ".quality";

/// How columns are read, as the user says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[command(next_help_heading = "Mapping")]
pub struct Mapping {
    /// Column that holds the device key [default: deviceKey]
    #[arg(long, value_name = "NAME")]
    pub device_column: Option<String>,
    /// Device key of every row, for files of one device
    #[arg(long, value_name = "KEY", conflicts_with = "device_column")]
    pub device: Option<String>,
    /// Column that holds the time: epoch ms, ISO with offset, or local [default: time]
    #[arg(long, value_name = "NAME")]
    pub time_column: Option<String>,
    /// Zone of local times, such as Europe/Paris
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// The column, or the name in a long file, is this point; others are points of the same name
    #[arg(long, value_name = "COLUMN=POINT", value_parser = renaming)]
    #[serde(deserialize_with = "renamings")]
    pub map: Vec<(String, String)>,
    /// Leave this column out, or this point of a long file
    #[arg(long, value_name = "COLUMN")]
    pub drop: Vec<String>,
    /// A row for each point: columns point, value and quality unless others are named
    #[arg(long)]
    pub long: bool,
    /// A row for each event: columns event and output, as `export --events` writes them
    #[arg(long, conflicts_with_all = ["attributes", "long", "quality_column"])]
    pub events: bool,
    /// A row for each value of an attribute: columns attribute and value, as `export --attributes` writes
    /// them
    #[arg(long, conflicts_with_all = ["long", "quality_column", "time_column", "timezone"])]
    pub attributes: bool,
    /// Column of a long file that holds the name of the point [default: point]
    #[arg(long, value_name = "NAME")]
    pub point_column: Option<String>,
    /// Column of a long file that holds the value [default: value]
    #[arg(long, value_name = "NAME")]
    pub value_column: Option<String>,
    /// Column of a long file that holds the quality [default: quality, if there is one]
    #[arg(long, value_name = "NAME")]
    pub quality_column: Option<String>,
    /// A cell with this text is as good as empty
    #[arg(long, value_name = "TEXT")]
    pub absent: Vec<String>,
    /// YAML file with the same names; flags win over it
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub mapping: Option<PathBuf>,
}

fn renaming(text: &str) -> Result<(String, String), String> {
    let (column, point) = text.split_once('=').ok_or("write COLUMN=POINT")?;
    Ok((column.to_owned(), point.to_owned()))
}

fn renamings<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, String)>, D::Error> {
    Ok(BTreeMap::<String, String>::deserialize(deserializer)?
        .into_iter()
        .collect())
}

impl Mapping {
    /// These flags over the mapping file they name, if any.
    ///
    /// # Errors
    /// The file cannot be read or says something unknown.
    pub fn complete(mut self) -> Result<Self, String> {
        let Some(path) = self.mapping.take() else {
            return Ok(self);
        };
        Ok(self.over(Self::from_file(&path)?))
    }

    /// This mapping, and where it says nothing, what the other one says.
    pub fn over(self, file: Self) -> Self {
        // A column named on the command line replaces the file's way to name the device.
        let (device_column, device) = match (self.device_column, self.device) {
            (None, None) => (file.device_column, file.device),
            given => given,
        };
        let mut map = file.map;
        map.retain(|(column, _)| !self.map.iter().any(|(flag, _)| flag == column));
        map.extend(self.map);
        Self {
            device_column,
            device,
            time_column: self.time_column.or(file.time_column),
            timezone: self.timezone.or(file.timezone),
            long: self.long || file.long,
            events: self.events || file.events,
            attributes: self.attributes || file.attributes,
            point_column: self.point_column.or(file.point_column),
            value_column: self.value_column.or(file.value_column),
            quality_column: self.quality_column.or(file.quality_column),
            map,
            drop: [file.drop, self.drop].concat(),
            absent: [file.absent, self.absent].concat(),
            mapping: None,
        }
    }

    fn from_file(path: &Path) -> Result<Self, String> {
        let say = |reason: String| format!("mapping file {}: {reason}", path.display());
        let text = fs::read_to_string(path).map_err(|error| say(error.to_string()))?;
        Self::from_text(&text).map_err(say)
    }

    /// A mapping as a mapping file says it.
    ///
    /// # Errors
    /// It says something unknown.
    pub fn from_text(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    /// What the rows of the file are.
    pub fn items(&self) -> Items {
        match (self.events, self.attributes) {
            (true, _) => Items::Events,
            (false, true) => Items::Attributes,
            (false, false) => Items::Points,
        }
    }

    /// What has a row of its own in a long file.
    pub fn noun(&self) -> &'static str {
        match self.items() {
            Items::Points => POINT_COLUMN,
            Items::Events => "event",
            Items::Attributes => "attribute",
        }
    }

    /// Whether a column says how a record came, or another thing that is not sent.
    pub fn is_left_out(&self, column: &str) -> bool {
        match self.items() {
            Items::Points => false,
            Items::Events => CAME_COLUMNS.contains(&column),
            Items::Attributes => column == TIME_COLUMN || CAME_COLUMNS.contains(&column),
        }
    }

    /// Whether the file has a row for each point, or for each record.
    pub fn is_long(&self) -> bool {
        if self.items() != Items::Points {
            return true;
        }
        let named = [&self.point_column, &self.value_column, &self.quality_column];
        self.long || named.iter().any(|column| column.is_some())
    }

    /// The point that a name in a long file means; `None` where it is left out.
    pub fn point<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        match self.map.iter().find(|(from, _)| from == name) {
            Some((_, point)) => Some(point),
            None if self.drop.iter().any(|dropped| dropped == name) => None,
            None => Some(name),
        }
    }

    pub fn point_column(&self) -> &str {
        self.point_column.as_deref().unwrap_or(self.noun())
    }

    pub fn value_column(&self) -> &str {
        let usual = match self.items() {
            Items::Events => OUTPUT_COLUMN,
            Items::Points | Items::Attributes => VALUE_COLUMN,
        };
        self.value_column.as_deref().unwrap_or(usual)
    }

    pub fn quality_column(&self) -> &str {
        self.quality_column.as_deref().unwrap_or(QUALITY_COLUMN)
    }

    pub fn time_column(&self) -> &str {
        self.time_column.as_deref().unwrap_or(TIME_COLUMN)
    }

    pub fn device_column(&self) -> &str {
        self.device_column.as_deref().unwrap_or(DEVICE_COLUMN)
    }

    pub fn is_absent(&self, text: &str) -> bool {
        text.trim().is_empty() || self.is_named_absent(text)
    }

    /// Whether the mapping says that this text is as good as empty.
    pub fn is_named_absent(&self, text: &str) -> bool {
        self.absent.iter().any(|absent| absent == text.trim())
    }

    /// What a column is by its name alone.
    pub fn role(&self, column: &str) -> Role<'_> {
        if let Some((_, point)) = self.map.iter().find(|(from, _)| from == column) {
            return Role::Point(point);
        }
        if self.drop.iter().any(|dropped| dropped == column) {
            return Role::Dropped;
        }
        if self.device.is_none() && column == self.device_column() {
            return Role::Device;
        }
        if column == self.time_column() {
            Role::Time
        } else {
            Role::PointOfItsName
        }
    }
}

/// What a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role<'a> {
    Device,
    Time,
    Point(&'a str),
    PointOfItsName,
    Dropped,
}
