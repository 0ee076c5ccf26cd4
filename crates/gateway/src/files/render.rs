//! A row of cells as an item: what CSV and Parquet have in common.

use std::collections::HashMap;

use super::{
    mapping::{self, Cells as CellsAt, DeviceAt, Layout, Mapping, PointAt, Points},
    moment::{Clockwork, MomentError},
    source::{Item, Row, SourceError, spoiled},
    value::{self, Form},
};

/// Names of points that a long file is remembered to have; further ones are looked up each time.
const NAMES_MAX: usize = 10_000;

/// The cells of one row.
pub(super) trait Cells {
    /// Whether an empty text is another thing than none: CSV cannot say so.
    const TELLS_EMPTY: bool;

    /// The text of a cell, in `text` if it has to be made; `None` where there is none.
    ///
    /// # Errors
    /// It is no text, because …
    fn cell<'c>(
        &'c self,
        column: usize,
        text: &'c mut String,
    ) -> Result<Option<&'c str>, &'static str>;

    /// # Errors
    /// The cell is no time.
    fn time_ms(&self, column: usize, clock: &mut Clockwork) -> Result<i64, MomentError>;
}

/// Makes items of rows of cells.
pub(super) struct Renderer {
    mapping: Mapping,
    layout: Layout,
    points: Points,
    pub(super) clock: Clockwork,
    /// The points of a long file, by the name in its cells.
    names: HashMap<String, Option<(Vec<u8>, Form)>>,
    buffers: [String; 3],
}

impl Renderer {
    pub(super) fn new(
        mapping: &Mapping,
        header: &[String],
        points: &Points,
        clock: Clockwork,
    ) -> Result<Self, SourceError> {
        Ok(Self {
            layout: Layout::new(mapping, header, points).map_err(SourceError::Usage)?,
            mapping: mapping.clone(),
            points: match mapping::is_archive(mapping, header) {
                true => Points::Json,
                false => points.clone(),
            },
            clock,
            names: HashMap::new(),
            buffers: Default::default(),
        })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn row(&mut self, cells: &impl Cells, item: &mut Item) -> Result<Row, SourceError> {
        match self.begun(cells, item)? {
            Some(unreadable) => Ok(unreadable),
            None => Ok(self.values(cells, item)),
        }
    }

    /// Begins the item with its device and time; says why it cannot.
    fn begun(&mut self, cells: &impl Cells, item: &mut Item) -> Result<Option<Row>, SourceError> {
        let [text, ..] = &mut self.buffers;
        text.clear();
        let device = match &self.layout.device {
            DeviceAt::Fixed(key) => key,
            DeviceAt::Column(column) => match cells
                .cell(*column, text)
                .map(|key| key.map(str::trim))
            {
                Ok(Some(key)) if !key.is_empty() => key,
                Ok(_) => return Ok(Some(Row::Unreadable("the device key is empty".to_owned()))),
                Err(why) => return Ok(Some(Row::Unreadable(format!("device key {why}")))),
            },
        };
        let time_ms = match self.layout.time {
            None => None,
            Some(column) => match cells.time_ms(column, &mut self.clock) {
                Ok(time_ms) => Some(time_ms),
                Err(error) => return spoiled(&error).map(Some),
            },
        };
        item.begin(self.mapping.items(), device, time_ms);
        Ok(None)
    }

    fn values(&mut self, cells: &impl Cells, item: &mut Item) -> Row {
        let [text, quality, name] = &mut self.buffers;
        let outcome = match &self.layout.cells {
            CellsAt::Wide(points) => points.iter().try_for_each(|point| {
                let PointAt {
                    column,
                    quality: at,
                    key,
                    form,
                } = point;
                add(
                    &self.mapping,
                    cells,
                    item,
                    (*column, *at),
                    (key, *form),
                    (text, quality),
                )
            }),
            CellsAt::Long {
                point,
                value,
                quality: at,
            } => {
                name.clear();
                match cells.cell(*point, name).map(|name| name.map(str::trim)) {
                    Ok(Some(name)) if !name.is_empty() => {
                        match named(&mut self.names, &self.mapping, &self.points, name) {
                            Some((key, form)) => add(
                                &self.mapping,
                                cells,
                                item,
                                (*value, *at),
                                (&key, form),
                                (text, quality),
                            ),
                            None => Ok(()),
                        }
                    }
                    Ok(_) => {
                        let noun = self.mapping.noun();
                        return Row::Unreadable(format!("the {noun}'s name is empty"));
                    }
                    Err(why) => return Row::Unreadable(format!("{} {why}", self.mapping.noun())),
                }
            }
        };
        match outcome {
            Ok(()) => item.end(),
            Err(why) => Row::Unreadable(format!("a cell {why}")),
        }
    }
}

/// Adds the value of a cell, with its quality where there is one.
fn add<C: Cells>(
    mapping: &Mapping,
    cells: &C,
    item: &mut Item,
    (value, quality): (usize, Option<usize>),
    (key, form): (&[u8], Form),
    (text, quality_text): (&mut String, &mut String),
) -> Result<(), &'static str> {
    text.clear();
    quality_text.clear();
    let Some(text) = cells
        .cell(value, text)?
        .filter(|text| !is_absent::<C>(mapping, form, text))
    else {
        return Ok(());
    };
    let quality = match quality {
        None => None,
        Some(column) => cells
            .cell(column, quality_text)?
            .filter(|text| !mapping.is_absent(text)),
    };
    item.value(key, |out| match quality {
        None => value::write(out, form, text),
        Some(quality) => {
            out.extend_from_slice(b"{\"value\":");
            value::write(out, form, text);
            out.extend_from_slice(b",\"quality\":");
            value::write(out, Form::Number, value::whole_number(quality));
            out.push(b'}');
        }
    });
    Ok(())
}

/// Whether there is nothing in a cell. A text may be empty where the file can say so, or be of blanks.
fn is_absent<C: Cells>(mapping: &Mapping, form: Form, text: &str) -> bool {
    match form {
        Form::Text => mapping.is_named_absent(text) || text.is_empty() && !C::TELLS_EMPTY,
        Form::Number | Form::Bool | Form::Json | Form::Guess => mapping.is_absent(text),
    }
}

/// What a point's name in a cell of a long file means: its key and form; `None` where it is left out.
/// A point that the model does not have goes as it is called: it is refused for what it is, and only it.
fn named(
    names: &mut HashMap<String, Option<(Vec<u8>, Form)>>,
    mapping: &Mapping,
    points: &Points,
    name: &str,
) -> Option<(Vec<u8>, Form)> {
    if let Some(known) = names.get(name) {
        return known.clone();
    }
    let found = mapping.point(name).map(|point| {
        (
            mapping::key(point),
            points.form(point, name).unwrap_or(Form::Guess),
        )
    });
    if names.len() < NAMES_MAX {
        names.insert(name.to_owned(), found.clone());
    }
    found
}
