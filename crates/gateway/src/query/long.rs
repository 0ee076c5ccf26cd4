//! Wide rows as long ones: a row for each point, `deviceKey,time,point,value,quality` or
//! `deviceKey,time,point,avg,max`.
//!
//! A column has the type that all its points share; else whole numbers are longs, numbers doubles, and
//! anything else JSON text, of which CSV and files write texts without quotes. Longs beside doubles are
//! text too: a double has not all of their digits.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use backtide_model::{Cell, NO_QUALITY, Storage};
use backtide_store::Latest;

use super::{
    OutColumn, RowError,
    cells::{Cells, cell_of},
    columns::{DEVICE, TIME},
    records::{longs, names},
    rows::write_cell,
    shape::data_type,
};

const POINT: &str = "point";

/// How rows are turned.
#[derive(Debug, Clone)]
pub struct Long {
    parts: Vec<Part>,
    columns: Vec<OutColumn>,
    schema: SchemaRef,
}

/// What becomes the rows of one point.
#[derive(Debug, Clone)]
struct Part {
    point: String,
    /// For each column of the answer the slab's, and whether its text is JSON.
    sources: Vec<(String, bool)>,
}

impl Long {
    /// Of points as the store has them: `value`, and `quality` where asked for.
    pub fn of_points(points: &[OutColumn], with_quality: bool) -> Self {
        let part = |point: &OutColumn| {
            let mut sources = vec![(point.source.clone(), point.is_json)];
            if with_quality {
                sources.push((point.quality.clone().unwrap_or_default(), false));
            }
            Part {
                point: point.name.clone(),
                sources,
            }
        };
        let mut columns = vec![shared("value", points)];
        if with_quality {
            columns.push(OutColumn {
                storage: Storage::Int,
                is_json: false,
                ..shared("quality", &[])
            });
        }
        Self::new(points.iter().map(part).collect(), columns)
    }

    /// Of aggregates: each point with the columns of its functions; `functions` names those of the
    /// answer. A point without one has nothing there.
    pub fn of_functions(points: &[(String, Vec<OutColumn>)], functions: &[String]) -> Self {
        let named = |columns: &[OutColumn], point: &str, function: &str| {
            let name = format!("{point}.{function}");
            columns.iter().find(|column| column.name == name).cloned()
        };
        let columns = functions.iter().map(|function| {
            let of_points = points.iter();
            let found: Vec<OutColumn> = of_points
                .filter_map(|(point, columns)| named(columns, point, function))
                .collect();
            shared(function, &found)
        });
        let parts = points.iter().map(|(point, columns)| {
            let source = |function: &String| {
                let found = named(columns, point, function);
                found.map_or_else(Default::default, |column| (column.source, column.is_json))
            };
            Part {
                point: point.clone(),
                sources: functions.iter().map(source).collect(),
            }
        });
        Self::new(parts.collect(), columns.collect())
    }

    fn new(parts: Vec<Part>, values: Vec<OutColumn>) -> Self {
        let mut fields = vec![
            Field::new(DEVICE, DataType::Utf8, false),
            Field::new(TIME, DataType::Int64, false),
            Field::new(POINT, DataType::Utf8, false),
        ];
        let of_values = values.iter();
        fields.extend(of_values.map(|c| Field::new(&c.source, data_type(c.storage), true)));
        let mut columns = vec![OutColumn {
            storage: Storage::Text,
            is_json: false,
            ..shared(POINT, &[])
        }];
        columns.extend(values);
        Self {
            parts,
            columns,
            schema: Arc::new(Schema::new(fields)),
        }
    }

    /// The columns after device and time.
    pub fn columns(&self) -> Vec<OutColumn> {
        self.columns.clone()
    }

    /// How many long rows a wide one may become.
    pub fn rows_each(&self) -> usize {
        self.parts.len()
    }

    /// Turns a slab; a point without anything in a row has none.
    ///
    /// # Errors
    /// The store breaks its contract.
    pub fn apply(&self, slab: &RecordBatch) -> Result<RecordBatch, RowError> {
        let column = |name: &str| {
            let array = slab.column_by_name(name);
            array.filter(|array| !matches!(array.data_type(), DataType::Null))
        };
        let arrays: Vec<Vec<Option<&ArrayRef>>> = self
            .parts
            .iter()
            .map(|part| part.sources.iter().map(|(name, _)| column(name)).collect())
            .collect();
        let mut picks: Vec<(usize, usize)> = Vec::new();
        for row in 0..slab.num_rows() {
            for (part, arrays) in arrays.iter().enumerate() {
                let has_any = arrays.iter().flatten().any(|array| array.is_valid(row));
                if has_any {
                    picks.push((row, part));
                }
            }
        }
        let rows: UInt32Array = picks
            .iter()
            .map(|(row, _)| u32::try_from(*row).unwrap_or(u32::MAX))
            .collect();
        let key = |name: &str| {
            let array = slab.column_by_name(name);
            let array = array.ok_or_else(|| RowError::of(name, None))?;
            arrow_select::take::take(array, &rows, None)
                .map_err(|_| RowError::of(name, Some(array)))
        };
        let points = picks
            .iter()
            .map(|(_, part)| self.parts[*part].point.as_str());
        let points: ArrayRef = Arc::new(StringArray::from_iter_values(points));
        let mut out = vec![key(DEVICE)?, key(TIME)?, points];
        for (at, column) in self.columns.iter().skip(1).enumerate() {
            let cell = |(row, part): &(usize, usize)| {
                let cell = cell_of(arrays[*part][at]?, *row)?;
                let is_json = self.parts[*part].sources[at].1;
                Some(fitting(cell, column, is_json))
            };
            let mut cells = Cells::new(column.storage);
            picks.iter().map(cell).for_each(|cell| cells.push(cell));
            out.push(cells.take(picks.len()));
        }
        RecordBatch::try_new(Arc::clone(&self.schema), out).map_err(|_| RowError::of(POINT, None))
    }
}

impl Long {
    /// Latest values as rows, of [`Long::of_points`] with qualities.
    ///
    /// # Errors
    /// The store breaks its contract.
    pub fn of_latest(&self, latest: &[Latest]) -> Result<RecordBatch, RowError> {
        let [_, value, _] = &self.columns[..] else {
            return Err(RowError::of("quality", None));
        };
        let is_json = |point: &str| {
            let part = self.parts.iter().find(|part| part.point == point);
            part.is_some_and(|part| part.sources[0].1)
        };
        let mut values = Cells::new(value.storage);
        let mut qualities = Cells::new(Storage::Int);
        for found in latest {
            let is_json = is_json(found.point.as_str());
            values.push(Some(fitting(found.cell.clone(), value, is_json)));
            let quality = (found.quality != NO_QUALITY).then(|| Cell::Int(found.quality.into()));
            qualities.push(quality);
        }
        let columns = vec![
            names(latest, |found| found.device.as_str()),
            longs(latest, |found| found.time_ms),
            names(latest, |found| found.point.as_str()),
            values.take(latest.len()),
            qualities.take(latest.len()),
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|_| RowError::of(POINT, None))
    }
}

/// A cell for a column that has several types: as JSON.
fn fitting(cell: Cell, column: &OutColumn, is_json: bool) -> Cell {
    if column.storage != Storage::Text || !column.is_json || is_json {
        return cell;
    }
    let mut text = Vec::new();
    write_cell(&mut text, &cell, false);
    Cell::Text(String::from_utf8_lossy(&text).into())
}

/// The column that takes the values of all these.
fn shared(name: &str, of: &[OutColumn]) -> OutColumn {
    let is_whole = |column: &OutColumn| matches!(column.storage, Storage::Int | Storage::Long);
    let is_number = |column: &OutColumn| {
        is_whole(column) || matches!(column.storage, Storage::Float | Storage::Double)
    };
    let is_long = |column: &OutColumn| column.storage == Storage::Long;
    let first = of.first().map_or(Storage::Text, |column| column.storage);
    let is_one = of.iter().all(|column| column.storage == first);
    let storage = match () {
        () if is_one => first,
        () if of.iter().all(is_whole) => Storage::Long,
        () if of.iter().all(is_number) && !of.iter().any(is_long) => Storage::Double,
        () => Storage::Text,
    };
    OutColumn {
        name: name.to_owned(),
        source: name.to_owned(),
        quality: None,
        storage,
        is_json: !is_one && storage == Storage::Text || of.iter().any(|column| column.is_json),
        is_time: is_one && of.first().is_some_and(|column| column.is_time),
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, Int32Array, Int64Array, UInt8Array};
    use backtide_model::ElementName;

    use super::*;
    use crate::query::{AskedPoint, RowForm, RowWriter};

    #[test]
    fn each_point_that_a_row_has_becomes_a_row() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            (DEVICE, Arc::new(StringArray::from(vec!["a", "b"]))),
            (TIME, Arc::new(Int64Array::from(vec![0, 1]))),
            ("n", Arc::new(Int32Array::from(vec![Some(1), None]))),
            (
                "P",
                Arc::new(Float64Array::from(vec![Some(0.5), Some(2.0)])),
            ),
            ("P.quality", Arc::new(UInt8Array::from(vec![None, Some(9)]))),
            ("text", Arc::new(StringArray::from(vec![None, Some("x")]))),
        ];
        let columns = columns.into_iter().map(|(name, array)| (name, array, true));
        let slab = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let point = |(name, storage): (&str, Storage)| AskedPoint {
            name: ElementName::new(name).unwrap(),
            storage,
            is_json: false,
        };
        let written = |points: &[(&str, Storage)], form| {
            let points: Vec<_> = points.iter().copied().map(point).collect();
            let long = Long::of_points(&OutColumn::of(&points), true);
            let mut writer = RowWriter::new(form, long.columns(), false);
            let mut out = Vec::new();
            writer.begin(&mut out);
            writer.write(&mut out, &long.apply(&slab).unwrap()).unwrap();
            String::from_utf8(out).unwrap()
        };
        let numbers = [("n", Storage::Int), ("P", Storage::Double)];
        assert_eq!(
            written(&numbers, RowForm::Csv),
            "deviceKey,time,point,value,quality\n\
             a,1970-01-01T00:00:00.000Z,n,1.0,\n\
             a,1970-01-01T00:00:00.000Z,P,0.5,\n\
             b,1970-01-01T00:00:00.001Z,P,2.0,9\n"
        );
        let mixed = [("n", Storage::Int), ("text", Storage::Text)];
        assert_eq!(
            written(&mixed, RowForm::Csv),
            "deviceKey,time,point,value,quality\n\
             a,1970-01-01T00:00:00.000Z,n,1,\n\
             b,1970-01-01T00:00:00.001Z,text,x,\n",
            "a text has no quotes of JSON"
        );
        assert_eq!(
            written(&mixed, RowForm::Ndjson),
            "{\"deviceKey\":\"a\",\"time\":0,\"point\":\"n\",\"value\":1}\n\
             {\"deviceKey\":\"b\",\"time\":1,\"point\":\"text\",\"value\":\"x\"}\n"
        );
    }

    #[test]
    fn a_long_beside_doubles_keeps_all_its_digits() {
        let point = |(name, storage): (&str, Storage)| AskedPoint {
            name: ElementName::new(name).unwrap(),
            storage,
            is_json: false,
        };
        let long = |of: &[(&str, Storage)]| {
            let points: Vec<_> = of.iter().copied().map(point).collect();
            Long::of_points(&OutColumn::of(&points), false).columns()[1].clone()
        };
        let mixed = long(&[("l", Storage::Long), ("d", Storage::Double)]);
        assert_eq!((mixed.storage, mixed.is_json), (Storage::Text, true));
        let numbers = long(&[("i", Storage::Int), ("d", Storage::Double)]);
        assert_eq!(numbers.storage, Storage::Double);
    }
}
