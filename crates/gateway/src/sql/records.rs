//! The other tables: what is declared, and what happened besides measurements. Rows are few or come
//! from SQLite, so that they are made one by one.

mod declared;
mod happened;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{RecordBatch, RecordBatchOptions},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::{Session, TableProvider},
    common::{Result, ScalarValue},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};
use tokio::sync::Semaphore;

use super::{
    Sources,
    history::{pushed, time_type},
    scan::{Batches, Scan, Source},
    wanted::{TIME, Wanted},
};

/// Rows that are made into a batch.
const BATCH_ROWS: usize = 1_024;

/// The tables that are always there, beside `points`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Products,
    Devices,
    Channels,
    Events,
    Attributes,
    ChannelLog,
    Quarantine,
    Rollups,
}

/// The cells of a row, in the order of the table's columns.
type Row = Vec<ScalarValue>;
/// Rows, some at a time.
type Slabs = Box<dyn Iterator<Item = Result<Vec<Row>>>>;

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Products,
        Self::Devices,
        Self::Channels,
        Self::Events,
        Self::Attributes,
        Self::ChannelLog,
        Self::Quarantine,
        Self::Rollups,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Products => "products",
            Self::Devices => "devices",
            Self::Channels => "channels",
            Self::Events => "events",
            Self::Attributes => "attributes",
            Self::ChannelLog => "channel_log",
            Self::Quarantine => "quarantine",
            Self::Rollups => "rollups",
        }
    }

    fn columns(self) -> &'static [(&'static str, Is)] {
        match self {
            Self::Products => declared::PRODUCTS,
            Self::Devices => declared::DEVICES,
            Self::Channels => declared::CHANNELS,
            Self::Events => happened::EVENTS,
            Self::Attributes => happened::ATTRIBUTES,
            Self::ChannelLog => happened::CHANNEL_LOG,
            Self::Quarantine => happened::QUARANTINE,
            Self::Rollups => declared::ROLLUPS,
        }
    }

    /// Columns whose conditions are taken.
    fn named(self) -> &'static [&'static str] {
        match self {
            Self::Products | Self::Channels | Self::Rollups => &[],
            Self::Devices => &["product"],
            Self::Events => &["product", "device", "event"],
            Self::Attributes => &["product", "device", "attribute"],
            Self::ChannelLog | Self::Quarantine => &["channel"],
        }
    }

    /// Whether conditions on the time are taken.
    fn has_time(self) -> bool {
        self.columns().iter().any(|(name, _)| *name == TIME)
    }

    fn slabs(self, sources: &Sources, wanted: &Wanted) -> Result<Slabs> {
        match self {
            Self::Products => Ok(declared::products(sources)),
            Self::Devices => Ok(declared::devices(sources, wanted)),
            Self::Channels => Ok(declared::channels(sources)),
            Self::Events => Ok(happened::events(sources, wanted)),
            Self::Attributes => Ok(happened::attributes(sources, wanted)),
            Self::ChannelLog => Ok(happened::channel_log(sources, wanted)),
            Self::Quarantine => Ok(happened::quarantine(sources, wanted)),
            Self::Rollups => Ok(declared::rollups(sources)),
        }
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Time,
    Text,
    Int,
    Long,
    Double,
    Bool,
}

impl Is {
    fn data_type(self) -> DataType {
        match self {
            Self::Time => time_type(),
            Self::Text => DataType::Utf8,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Bool => DataType::Boolean,
        }
    }
}

fn text(text: impl AsRef<str>) -> ScalarValue {
    ScalarValue::Utf8(Some(text.as_ref().to_owned()))
}

fn text_or_none(text: Option<impl AsRef<str>>) -> ScalarValue {
    ScalarValue::Utf8(text.map(|text| text.as_ref().to_owned()))
}

fn time(time_ms: Option<i64>) -> ScalarValue {
    ScalarValue::TimestampMillisecond(time_ms, Some("+00:00".into()))
}

fn long(number: impl TryInto<i64>) -> ScalarValue {
    ScalarValue::Int64(number.try_into().ok())
}

/// One of these tables.
pub(super) struct Records {
    kind: Kind,
    sources: Sources,
    readers: Arc<Semaphore>,
    schema: SchemaRef,
}

impl Records {
    pub(super) fn new(kind: Kind, sources: Sources, readers: Arc<Semaphore>) -> Self {
        let columns = kind.columns().iter();
        let fields: Vec<Field> = columns
            .map(|(name, is)| Field::new(*name, is.data_type(), true))
            .collect();
        Self {
            kind,
            sources,
            readers,
            schema: Arc::new(Schema::new(fields)),
        }
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({})", self.kind.name())
    }
}

#[async_trait]
impl TableProvider for Records {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(pushed(filters, self.kind.named(), self.kind.has_time()))
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let places = projection.cloned().unwrap_or(all);
        let schema = Arc::new(self.schema.project(&places)?);
        let read = Read {
            kind: self.kind,
            sources: self.sources.clone(),
            wanted: Wanted::of(filters, self.kind.named(), self.kind.has_time()),
            places: places.into(),
            schema: Arc::clone(&schema),
            rows_max: limit.unwrap_or(usize::MAX),
        };
        let scan = Scan::new(Arc::new(read), schema, Vec::new(), self.readers.clone());
        Ok(Arc::new(scan))
    }
}

struct Read {
    kind: Kind,
    sources: Sources,
    wanted: Wanted,
    /// The columns that are wanted.
    places: Arc<[usize]>,
    schema: SchemaRef,
    rows_max: usize,
}

impl Source for Read {
    fn batches(&self) -> Result<Batches> {
        if self.wanted.is_nothing() {
            return Ok(Box::new(std::iter::empty()));
        }
        let (places, schema) = (Arc::clone(&self.places), Arc::clone(&self.schema));
        let mut rows_left = self.rows_max;
        let slabs = self.kind.slabs(&self.sources, &self.wanted)?;
        let limited = slabs.map_while(move |slab| {
            if rows_left == 0 {
                return None;
            }
            let slab = slab.map(|mut rows| {
                rows.truncate(rows_left);
                rows_left -= rows.len();
                rows
            });
            Some(slab.and_then(|rows| batch(&rows, &places, &schema)))
        });
        Ok(Box::new(limited))
    }
}

fn batch(rows: &[Row], places: &[usize], schema: &SchemaRef) -> Result<RecordBatch> {
    if rows.is_empty() {
        return Ok(RecordBatch::new_empty(Arc::clone(schema)));
    }
    let column = |at: &usize| ScalarValue::iter_to_array(rows.iter().map(|row| row[*at].clone()));
    let arrays = places.iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?;
    Ok(batch)
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        for column in self.kind.named() {
            if let Some(names) = self.wanted.names(column) {
                write!(f, ", {column}={names:?}")?;
            }
        }
        if self.wanted.from_ms != i64::MIN {
            write!(f, ", from={}", crate::clock::iso(self.wanted.from_ms))?;
        }
        if self.wanted.to_ms != i64::MAX {
            write!(f, ", to={}", crate::clock::iso(self.wanted.to_ms))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_taken_on_columns_that_are_there() {
        for kind in Kind::ALL {
            for named in kind.named() {
                let found = kind.columns().iter().find(|(name, _)| name == named);
                assert_eq!(found.map(|(_, is)| *is), Some(Is::Text), "{kind:?} {named}");
            }
        }
    }
}
