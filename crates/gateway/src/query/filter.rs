//! Which values count: comparisons of a point's value or quality, such as `P_avg>=0,P_avg.quality<3`.
//!
//! Each comparison is about the values of one point, `quality` alone about those of all. A value
//! that fails one is left out as if it were not stored; a row without any value left goes too.

use std::{cmp::Ordering, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, RecordBatch,
    cast::AsArray,
    make_array,
    types::{Float32Type, Float64Type, Int32Type, Int64Type, UInt8Type},
};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::{ArrowError, DataType};
use backtide_model::Storage;

use super::{AskedPoint, OutColumn, RowError};

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error(
        "{0:?} is no comparison; write a point or its quality, one of = != < <= > >=, and a value, \
         such as P_avg>=0 or P_avg.quality<3"
    )]
    Unreadable(String),
    #[error("{0} is not among the points that are asked for")]
    NotAsked(String),
    #[error("{0:?} compares a point with something of another type; {1}")]
    Type(String, &'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Test {
    /// Two signs before one: `<=` begins with `<`.
    const ALL: [(&str, Self); 6] = [
        ("!=", Self::Unequal),
        ("<=", Self::LessOrEqual),
        (">=", Self::GreaterOrEqual),
        ("=", Self::Equal),
        ("<", Self::Less),
        (">", Self::Greater),
    ];

    fn passes(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::Unequal => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => order.is_some_and(Ordering::is_le),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        }
    }
}

/// What a value is compared with.
#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Whole(i64),
    Number(f64),
    Truth(bool),
    Text(Box<str>),
    /// Of a quality: that there is none.
    None,
}

#[derive(Debug, Clone, PartialEq)]
struct Term {
    /// `None`: all of them.
    point: Option<usize>,
    is_of_quality: bool,
    test: Test,
    operand: Operand,
}

/// Comparisons that all have to hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    columns: Vec<OutColumn>,
    terms: Vec<Term>,
}

impl Filter {
    /// Comparisons, separated by commas; none pass everything.
    ///
    /// # Errors
    /// What is wrong with the first of them that is.
    pub fn parse(text: &str, points: &[AskedPoint]) -> Result<Self, FilterError> {
        let terms = text
            .split(',')
            .map(str::trim)
            .filter(|term| !term.is_empty());
        Ok(Self {
            columns: OutColumn::of(points),
            terms: terms
                .map(|text| term(text, points))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Everything passes.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Leaves out what does not pass.
    ///
    /// # Errors
    /// The store breaks its contract.
    pub fn apply(&self, slab: &RecordBatch) -> Result<RecordBatch, RowError> {
        if self.is_empty() {
            return Ok(slab.clone());
        }
        let schema = slab.schema();
        let mut arrays = slab.columns().to_vec();
        let mut has_any = vec![false; slab.num_rows()];
        for (point, column) in self.columns.iter().enumerate() {
            let Some((at, _)) = schema.column_with_name(&column.source) else {
                continue;
            };
            let quality = column.quality.as_ref();
            let quality = quality.and_then(|name| schema.column_with_name(name));
            let values = Arc::clone(&arrays[at]);
            if matches!(values.data_type(), DataType::Null) {
                continue;
            }
            let qualities = quality.map(|(at, _)| Arc::clone(&arrays[at]));
            let kept = self.kept(point, &values, qualities.as_ref());
            for (has_any, kept) in has_any.iter_mut().zip(&kept) {
                *has_any |= kept;
            }
            let wrong = |_: ArrowError| RowError::of(&column.source, Some(&values));
            arrays[at] = masked(&values, &kept).map_err(wrong)?;
            if let (Some((at, _)), Some(qualities)) = (quality, qualities) {
                arrays[at] = masked(&qualities, &kept).map_err(wrong)?;
            }
        }
        let wrong = |_: ArrowError| RowError::of("rows", None);
        let masked = RecordBatch::try_new(schema, arrays).map_err(wrong)?;
        if has_any.iter().all(|has_any| *has_any) {
            return Ok(masked);
        }
        arrow_select::filter::filter_record_batch(&masked, &BooleanArray::from(has_any))
            .map_err(wrong)
    }

    /// Which values of a point pass.
    fn kept(&self, point: usize, values: &ArrayRef, qualities: Option<&ArrayRef>) -> BooleanBuffer {
        let rows = values.len();
        let mut kept = match values.nulls() {
            Some(nulls) => nulls.inner().clone(),
            None => BooleanBuffer::new_set(rows),
        };
        let of_point = |term: &&Term| term.point.is_none_or(|of| of == point);
        for term in self.terms.iter().filter(of_point) {
            let passing = if term.is_of_quality {
                let qualities = qualities.and_then(|array| array.as_primitive_opt::<UInt8Type>());
                let quality = |row| {
                    let qualities = qualities.filter(|array| array.is_valid(row))?;
                    Some(i64::from(qualities.value(row)))
                };
                BooleanBuffer::collect_bool(rows, |row| term.passes_quality(quality(row)))
            } else {
                term.passing(values)
            };
            kept = &kept & &passing;
        }
        kept
    }
}

impl Term {
    /// A value without a quality passes only what asks for that, or for another one.
    fn passes_quality(&self, quality: Option<i64>) -> bool {
        let order = match (&self.operand, quality) {
            (Operand::None, None) => Some(Ordering::Equal),
            (Operand::Whole(wanted), Some(quality)) => Some(quality.cmp(wanted)),
            _ => None,
        };
        self.test.passes(order)
    }

    fn passing(&self, values: &ArrayRef) -> BooleanBuffer {
        let rows = values.len();
        macro_rules! numbers {
            ($type:ty) => {{
                let numbers = values.as_primitive::<$type>().values();
                BooleanBuffer::collect_bool(rows, |row| {
                    self.test.passes(self.order_of(f64::from(numbers[row])))
                })
            }};
        }
        match values.data_type() {
            DataType::Int32 => numbers!(Int32Type),
            DataType::Float32 => numbers!(Float32Type),
            DataType::Float64 => numbers!(Float64Type),
            DataType::Int64 => {
                let numbers = values.as_primitive::<Int64Type>().values();
                BooleanBuffer::collect_bool(rows, |row| {
                    let order = match self.operand {
                        Operand::Whole(wanted) => Some(numbers[row].cmp(&wanted)),
                        _ => self.order_of(numbers[row] as f64),
                    };
                    self.test.passes(order)
                })
            }
            DataType::Boolean => {
                let truths = values.as_boolean().values();
                BooleanBuffer::collect_bool(rows, |row| {
                    let order = match self.operand {
                        Operand::Truth(wanted) => Some(truths.value(row).cmp(&wanted)),
                        _ => None,
                    };
                    self.test.passes(order)
                })
            }
            DataType::Utf8 => {
                let texts = values.as_string::<i32>();
                BooleanBuffer::collect_bool(rows, |row| {
                    let order = match &self.operand {
                        Operand::Text(wanted) => Some(texts.value(row).cmp(wanted)),
                        _ => None,
                    };
                    self.test.passes(order)
                })
            }
            _ => BooleanBuffer::new_unset(rows),
        }
    }

    fn order_of(&self, value: f64) -> Option<Ordering> {
        match self.operand {
            Operand::Whole(wanted) => value.partial_cmp(&(wanted as f64)),
            Operand::Number(wanted) => value.partial_cmp(&wanted),
            Operand::Truth(_) | Operand::Text(_) | Operand::None => None,
        }
    }
}

fn masked(array: &ArrayRef, kept: &BooleanBuffer) -> Result<ArrayRef, ArrowError> {
    let nulls = NullBuffer::union(array.nulls(), Some(&NullBuffer::new(kept.clone())));
    let masked = array.to_data().into_builder().nulls(nulls).build()?;
    Ok(make_array(masked))
}

fn term(text: &str, points: &[AskedPoint]) -> Result<Term, FilterError> {
    let short = || text.chars().take(60).collect::<String>();
    let unreadable = || FilterError::Unreadable(short());
    // The first sign decides: a value may have others.
    let found = text.find(['=', '!', '<', '>']).ok_or_else(unreadable)?;
    let (name, rest) = text.split_at(found);
    let (sign, test) = Test::ALL
        .into_iter()
        .find(|(sign, _)| rest.starts_with(sign))
        .ok_or_else(unreadable)?;
    let (name, value) = (name.trim(), rest.split_at(sign.len()).1.trim());
    if name.is_empty() || value.is_empty() {
        return Err(unreadable());
    }
    let place = |name: &str| points.iter().position(|point| point.name.as_str() == name);
    let (point, is_of_quality) = match (place(name), name.strip_suffix(".quality")) {
        (Some(point), _) => (Some(point), false),
        (None, Some(of)) if place(of).is_some() => (place(of), true),
        (None, _) if name == "quality" => (None, true),
        (None, _) => return Err(FilterError::NotAsked(name.to_owned())),
    };
    let wrong = |fix| FilterError::Type(short(), fix);
    let operand = match point.filter(|_| !is_of_quality) {
        None if value == "none" => Operand::None,
        None => {
            let quality = value.parse();
            Operand::Whole(quality.map_err(|_| wrong("a quality is 0 to 9, or none"))?)
        }
        Some(point) => match points[point].storage {
            Storage::Bool => {
                let truth = value.parse();
                Operand::Truth(truth.map_err(|_| wrong("write true or false"))?)
            }
            Storage::Text => Operand::Text(value.into()),
            Storage::Int | Storage::Long | Storage::Float | Storage::Double => {
                let number: Option<f64> = value.parse().ok().filter(|n: &f64| n.is_finite());
                match (value.parse(), number) {
                    (Ok(whole), _) => Operand::Whole(whole),
                    (Err(_), Some(number)) => Operand::Number(number),
                    (Err(_), None) => return Err(wrong("write a number")),
                }
            }
        },
    };
    let is_ordered = !matches!(
        operand,
        Operand::Truth(_) | Operand::Text(_) | Operand::None
    );
    if !is_ordered && !matches!(test, Test::Equal | Test::Unequal) {
        return Err(wrong("it is equal or not: use = or !="));
    }
    Ok(Term {
        point,
        is_of_quality,
        test,
        operand,
    })
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, Int64Array, StringArray, UInt8Array};
    use backtide_model::ElementName;

    use super::*;

    fn points() -> Vec<AskedPoint> {
        [
            ("P", Storage::Double),
            ("n", Storage::Long),
            ("on", Storage::Bool),
            ("text", Storage::Text),
        ]
        .map(|(name, storage)| AskedPoint {
            name: ElementName::new(name).unwrap(),
            storage,
            is_json: false,
        })
        .into()
    }

    fn slab() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("_time", Arc::new(Int64Array::from(vec![0, 1, 2, 3]))),
            (
                "P",
                Arc::new(Float64Array::from(vec![
                    Some(-1.0),
                    Some(0.0),
                    Some(2.5),
                    None,
                ])),
            ),
            (
                "P.quality",
                Arc::new(UInt8Array::from(vec![Some(0), None, Some(9), None])),
            ),
            (
                "n",
                Arc::new(Int64Array::from(vec![
                    None,
                    None,
                    Some(i64::MAX),
                    Some(i64::MAX - 1),
                ])),
            ),
            (
                "on",
                Arc::new(BooleanArray::from(vec![
                    None,
                    Some(true),
                    Some(false),
                    None,
                ])),
            ),
            (
                "text",
                Arc::new(StringArray::from(vec![None, Some("a=b"), None, Some("c")])),
            ),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
            .unwrap()
    }

    /// Times of the rows that have the column.
    fn left(filter: &str, column: &str) -> Vec<i64> {
        let left = Filter::parse(filter, &points())
            .unwrap()
            .apply(&slab())
            .unwrap();
        let times = left
            .column_by_name("_time")
            .unwrap()
            .as_primitive::<Int64Type>();
        let column = left.column_by_name(column).unwrap();
        let rows = (0..left.num_rows()).filter(|row| column.is_valid(*row));
        rows.map(|row| times.value(row)).collect()
    }

    #[test]
    fn each_comparison_leaves_out_the_values_of_its_point() {
        for (filter, column, times) in [
            ("", "P", vec![0, 1, 2]),
            ("P>=0", "P", vec![1, 2]),
            ("P>=0, P<2.5", "P", vec![1]),
            ("P != 0", "P", vec![0, 2]),
            ("P>100", "on", vec![1, 2]),
            ("P.quality<3", "P", vec![0]),
            ("P.quality!=9", "P", vec![0, 1]),
            ("P.quality=none", "P", vec![1]),
            ("P.quality!=none", "P", vec![0, 2]),
            ("quality<=0", "P", vec![0]),
            ("quality<=0", "text", vec![]),
            ("n=9223372036854775806", "n", vec![3]),
            ("on=false", "on", vec![2]),
            ("text=a=b", "text", vec![1]),
            ("P<0", "_time", vec![0, 1, 2, 3]),
            ("quality=9", "_time", vec![2]),
        ] {
            assert_eq!(left(filter, column), times, "{filter:?} {column}");
        }
    }

    #[test]
    fn what_is_no_filter_says_what_is() {
        for (filter, told) in [
            ("P", "such as P_avg>=0"),
            ("P=", "such as P_avg>=0"),
            ("P!1", "such as P_avg>=0"),
            ("x=1", "x is not among"),
            ("P=low", "write a number"),
            ("P=NaN", "write a number"),
            ("P.quality=bad", "0 to 9"),
            ("on=1", "true or false"),
            ("on<true", "= or !="),
            ("text>a", "= or !="),
        ] {
            let error = Filter::parse(filter, &points()).unwrap_err().to_string();
            assert!(error.contains(told), "{filter}: {error}");
        }
    }
}
