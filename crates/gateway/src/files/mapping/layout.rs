//! Which column of a file is what: a mapping, held against a header.

use std::collections::HashSet;

use backtide_model::Items;

use super::{
    super::value::{self, Form},
    CURRENT_COLUMN, Mapping, Points, QUALITY_COLUMN, QUALITY_ENDING, Role,
};
use crate::limits::FILE_COLUMNS_MAX;

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
