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

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use backtide_model::Items;
use serde::Deserialize;

use super::value::{self, Form};
use crate::limits::FILE_COLUMNS_MAX;

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

/// The points that the channel's product knows.
#[derive(Debug, Clone)]
pub enum Points {
    Declared {
        model: String,
        forms: HashMap<String, Form>,
        passthrough: bool,
    },
    /// There is no registry to ask.
    Unknown,
    /// Every value is JSON: outputs of events.
    Json,
}

impl Points {
    /// How a point's values are written.
    ///
    /// # Errors
    /// The model has no such point: sending it would have every row refused.
    pub fn form(&self, point: &str, column: &str) -> Result<Form, String> {
        let (model, forms, passthrough) = match self {
            Self::Unknown => return Ok(Form::Guess),
            Self::Json => return Ok(Form::Json),
            Self::Declared {
                model,
                forms,
                passthrough,
            } => (model, forms, passthrough),
        };
        match forms.get(point) {
            Some(form) => Ok(*form),
            None if *passthrough => Ok(Form::Guess),
            None => Err(format!(
                "column {column:?}: model {model} has no point {point:?}; \
                 rename it with --map {column:?}=POINT or leave it out with --drop {column:?}"
            )),
        }
    }

    /// Of what a model declares: points, events or attributes.
    pub fn of(items: Items, declared: Self) -> Self {
        match items {
            Items::Points | Items::Attributes => declared,
            Items::Events => Self::Json,
        }
    }

    fn declares(&self, point: &str) -> bool {
        matches!(self, Self::Declared { forms, .. } if forms.contains_key(point))
    }
}

/// Where the device key of a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceAt {
    Column(usize),
    Fixed(String),
}

/// A column of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointAt {
    pub column: usize,
    /// The point's name as a JSON key with its colon.
    pub key: Vec<u8>,
    pub form: Form,
    /// Column of its qualities.
    pub quality: Option<usize>,
}

/// Where the values of a row are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cells {
    Wide(Vec<PointAt>),
    /// The columns of the point's name, its value, and its quality.
    Long {
        point: usize,
        value: usize,
        quality: Option<usize>,
    },
}

/// The columns of a file with a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub device: DeviceAt,
    /// Attributes have none.
    pub time: Option<usize>,
    pub cells: Cells,
}

impl Layout {
    /// # Errors
    /// A column that the mapping names is absent, or one is no point of the model.
    pub fn new(mapping: &Mapping, header: &[String], points: &Points) -> Result<Self, String> {
        if header.len() > FILE_COLUMNS_MAX {
            return Err(format!(
                "the file has {} columns, at most {FILE_COLUMNS_MAX} are read; split it",
                header.len()
            ));
        }
        let find = |name: &str, flag: &str| {
            header
                .iter()
                .position(|column| column == name)
                .ok_or_else(|| {
                    format!(
                        "there is no column {name:?} ({flag}); the file has {}",
                        header.join(", ")
                    )
                })
        };
        let device = match &mapping.device {
            Some(key) => DeviceAt::Fixed(key.clone()),
            None => DeviceAt::Column(find(mapping.device_column(), "--device-column")?),
        };
        let time = match mapping.items() {
            Items::Points | Items::Events => Some(find(mapping.time_column(), "--time-column")?),
            Items::Attributes => None,
        };
        let cells = match mapping.is_long() {
            true => long(mapping, header, find)?,
            false => Cells::Wide(wide(mapping, header, points, find)?),
        };
        Ok(Self {
            device,
            time,
            cells,
        })
    }
}

fn long(
    mapping: &Mapping,
    header: &[String],
    find: impl Fn(&str, &str) -> Result<usize, String>,
) -> Result<Cells, String> {
    let point = find(mapping.point_column(), "--point-column")?;
    let value = find(mapping.value_column(), "--value-column")?;
    let quality = match &mapping.quality_column {
        Some(named) => Some(find(named, "--quality-column")?),
        None if mapping.items() != Items::Points => None,
        None => header.iter().position(|column| column == QUALITY_COLUMN),
    };
    let known = [
        mapping.time_column(),
        mapping.point_column(),
        mapping.value_column(),
    ];
    let stranger = header.iter().find(|column| {
        let column = column.as_str();
        let is_device = mapping.device.is_none() && column == mapping.device_column();
        let is_dropped = mapping.drop.iter().any(|dropped| dropped == column);
        let is_left_out = is_dropped || mapping.is_left_out(column);
        !is_device && !is_left_out && !known.contains(&column) && column != mapping.quality_column()
    });
    match stranger {
        Some(column) => Err(format!(
            "column {column:?} is none of a long file{}; leave it out with --drop {column:?}",
            match mapping.items() {
                Items::Points => "",
                Items::Events => " of events",
                Items::Attributes => " of attributes",
            }
        )),
        None => Ok(Cells::Long {
            point,
            value,
            quality,
        }),
    }
}

fn wide(
    mapping: &Mapping,
    header: &[String],
    points: &Points,
    find: impl Fn(&str, &str) -> Result<usize, String>,
) -> Result<Vec<PointAt>, String> {
    for (column, _) in &mapping.map {
        find(column, "--map")?;
    }
    for column in &mapping.drop {
        find(column, "--drop")?;
    }
    let (mut taken, mut found) = (HashSet::new(), Vec::new());
    for (column, name) in header.iter().enumerate() {
        let point = match mapping.role(name) {
            Role::Device | Role::Time | Role::Dropped => continue,
            Role::PointOfItsName if is_quality(name, header, points) => continue,
            Role::PointOfItsName => name,
            Role::Point(point) => point,
        };
        if !taken.insert(point) {
            return Err(format!(
                "two columns are point {point:?}; leave one out with --drop"
            ));
        }
        let quality = header.iter().position(|other| {
            other.strip_suffix(QUALITY_ENDING) == Some(name) && is_quality(other, header, points)
        });
        found.push(PointAt {
            column,
            key: key(point),
            form: points.form(point, name)?,
            quality,
        });
    }
    if found.is_empty() {
        return Err(format!(
            "no column holds values; the file has {}",
            header.join(", ")
        ));
    }
    Ok(found)
}

/// Whether a file is an archive's of attributes: their values are JSON.
pub fn is_archive(mapping: &Mapping, header: &[String]) -> bool {
    mapping.items() == Items::Attributes && header.iter().any(|column| column == CURRENT_COLUMN)
}

/// Whether a column holds the qualities of another one.
fn is_quality(column: &str, header: &[String], points: &Points) -> bool {
    column
        .strip_suffix(QUALITY_ENDING)
        .is_some_and(|point| header.iter().any(|other| other == point) && !points.declares(column))
}

/// A name as a JSON key with its colon.
pub fn key(point: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(point.len() + 3);
    value::quote(&mut key, point);
    key.push(b':');
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(columns: &str) -> Vec<String> {
        columns.split(',').map(str::to_owned).collect()
    }

    fn turbine() -> Points {
        let forms = [
            ("P_avg".to_owned(), Form::Number),
            ("state".to_owned(), Form::Text),
        ]
        .into();
        Points::Declared {
            model: "turbine".into(),
            forms,
            passthrough: false,
        }
    }

    fn mapping(device: &str, time: &str) -> Mapping {
        Mapping {
            device_column: Some(device.into()),
            time_column: Some(time.into()),
            ..Mapping::default()
        }
    }

    #[test]
    fn columns_are_points_of_their_name_unless_mapped_or_dropped() {
        let mapping = Mapping {
            map: vec![("power".into(), "P_avg".into())],
            drop: vec!["comment".into()],
            ..mapping("turbine", "at")
        };
        let layout = Layout::new(
            &mapping,
            &header("turbine,at,power,comment,state"),
            &turbine(),
        )
        .unwrap();
        assert_eq!((layout.device, layout.time), (DeviceAt::Column(0), Some(1)));
        let Cells::Wide(points) = layout.cells else {
            panic!("the file is wide");
        };
        let points: Vec<_> = points
            .iter()
            .map(|p| (p.column, &p.key[..], p.form))
            .collect();
        assert_eq!(
            points,
            [
                (2, &b"\"P_avg\":"[..], Form::Number),
                (4, b"\"state\":", Form::Text)
            ]
        );
    }

    #[test]
    fn files_of_query_need_no_flags_and_carry_qualities() {
        let header = header("deviceKey,time,P_avg,P_avg.quality");
        let layout = Layout::new(&Mapping::default(), &header, &turbine()).unwrap();
        let Cells::Wide(points) = layout.cells else {
            panic!("the file is wide");
        };
        assert_eq!((points.len(), points[0].quality), (1, Some(3)));
    }

    #[test]
    fn a_long_file_names_its_columns_and_has_no_others() {
        let long = Mapping {
            long: true,
            ..Mapping::default()
        };
        let layout = |mapping: &Mapping, columns: &str| {
            Layout::new(mapping, &header(columns), &turbine()).map(|layout| layout.cells)
        };
        let (point, value) = (2, 3);
        assert_eq!(
            layout(&long, "deviceKey,time,point,value"),
            Ok(Cells::Long {
                point,
                value,
                quality: None
            })
        );
        let named = Mapping {
            point_column: Some("tag".into()),
            drop: vec!["unit".into()],
            ..Mapping::default()
        };
        assert_eq!(
            layout(&named, "deviceKey,time,tag,value,quality,unit"),
            Ok(Cells::Long {
                point,
                value,
                quality: Some(4)
            })
        );
        let error = layout(&long, "deviceKey,time,point,value,unit").unwrap_err();
        assert!(
            error.contains("unit") && error.contains("--drop"),
            "{error}"
        );
        assert!(
            layout(&named, "deviceKey,time,value,unit")
                .unwrap_err()
                .contains("--point-column")
        );
    }

    #[test]
    fn a_wrong_name_is_named() {
        for (mapping, columns, named) in [
            (mapping("nope", "at"), "turbine,at", "nope"),
            (mapping("turbine", "nope"), "turbine,at", "nope"),
            (mapping("turbine", "at"), "turbine,at,comment", "comment"),
            (
                Mapping {
                    map: vec![("at2".into(), "x".into())],
                    ..mapping("turbine", "at")
                },
                "turbine,at",
                "at2",
            ),
            (
                Mapping {
                    map: vec![("p".into(), "P_avg".into())],
                    ..mapping("turbine", "at")
                },
                "turbine,at,p,P_avg",
                "P_avg",
            ),
        ] {
            let error = Layout::new(&mapping, &header(columns), &turbine()).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn flags_win_over_the_mapping_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mapping.yaml");
        let text = "device-column: turbine\ntime-column: at\ntimezone: Europe/Paris\n\
                    map: { power: P_avg, wind: Ws_avg }\ndrop: [comment]\nabsent: [NaN]\n";
        fs::write(&path, text).unwrap();
        let flags = Mapping {
            device: Some("R1".into()),
            map: vec![("power".into(), "P_max".into())],
            mapping: Some(path.clone()),
            ..Mapping::default()
        };
        let complete = flags.complete().unwrap();
        assert_eq!(
            (
                complete.device.as_deref(),
                complete.device_column.as_deref()
            ),
            (Some("R1"), None)
        );
        assert_eq!(complete.time_column(), "at");
        assert_eq!(complete.role("power"), Role::Point("P_max"));
        assert_eq!(complete.role("wind"), Role::Point("Ws_avg"));
        assert!(complete.is_absent(" NaN ") && complete.is_absent(""));
        fs::write(&path, "device-colum: turbine\n").unwrap();
        let flags = Mapping {
            mapping: Some(path),
            ..Mapping::default()
        };
        assert!(flags.complete().unwrap_err().contains("device-colum"));
    }
}
