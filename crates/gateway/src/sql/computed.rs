//! The tables of rollups and reductions: what is computed already, one for each and each product.
//!
//! Of a rollup a row for each device and window, of a reduction one for each device and time of which it
//! keeps a value.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use backtide_model::{DeviceKey, ElementName, Storage};
use backtide_store::{Order, Range, Store};
use datafusion::{
    arrow::datatypes::{DataType, Schema, SchemaRef},
    catalog::{Session, TableProvider},
    common::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};
use tokio::sync::Semaphore;

use super::{
    Sources,
    error::unreadable,
    history::{Column, DEVICE, batch, devices, free, ordering, pushed, stored_as, time_type},
    scan::{Batches, Scan, Source},
    wanted::{TIME, Wanted},
};
use crate::{
    derive::{Derived, Marks, RowsAsked, Series, Work, kept},
    query::OutColumn,
    registry::Snapshot,
};

/// Goes before the name of a table that is called as another one.
const PREFIX: &str = "rollup_";

/// A table of what is computed.
pub(super) struct Table {
    pub(super) name: String,
    pub(super) id: i64,
    pub(super) series: Arc<Series>,
}

/// All of them, in the order of policies, then of products: `PRODUCT_NAME`, unless that is `taken` by
/// another table.
pub(super) fn tables(derived: &Derived, taken: impl Fn(&str) -> bool) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for (id, series) in derived.series() {
        let mut name = format!("{}_{}", series.product.name, series.name);
        while taken(&name) || tables.iter().any(|table| table.name == name) {
            name.insert_str(0, PREFIX);
        }
        tables.push(Table { name, id, series });
    }
    tables
}

/// A rollup or a reduction of a product.
pub(super) struct Computed {
    table: Table,
    derived: Arc<Derived>,
    store: Store,
    columns: Arc<[Column]>,
    schema: SchemaRef,
    readers: Arc<Semaphore>,
}

impl Computed {
    pub(super) fn new(
        table: Table,
        snapshot: &Snapshot,
        sources: &Sources,
        readers: Arc<Semaphore>,
    ) -> Self {
        let columns = columns(&table.series, snapshot);
        let fields: Vec<_> = columns.iter().map(|column| column.field.clone()).collect();
        Self {
            table,
            derived: Arc::clone(&sources.derived),
            store: sources.store.clone(),
            columns: columns.into(),
            schema: Arc::new(Schema::new(fields)),
            readers,
        }
    }
}

fn columns(series: &Series, snapshot: &Snapshot) -> Vec<Column> {
    let mut columns = vec![
        Column::new(TIME, time_type(), false, "_time"),
        Column::new(DEVICE, DataType::Utf8View, false, "_device"),
    ];
    let own = match &series.work {
        Work::Rollup { .. } => series.columns(),
        Work::Reduction { points, .. } => OutColumn::of(points),
    };
    for column in own {
        let data_type = match is_moment(&column, series, snapshot) {
            true => time_type(),
            false => stored_as(column.storage),
        };
        let name = free(&columns, column.name);
        columns.push(Column::new(&name, data_type, true, &column.source));
    }
    columns
}

/// Whether its numbers are moments: it says so, or it is a value of a point whose values are.
fn is_moment(column: &OutColumn, series: &Series, snapshot: &Snapshot) -> bool {
    let of_point = |point: &ElementName, name: &str| {
        let product = snapshot.product(series.product.name.as_ref());
        let declared = product.and_then(|product| product.model.measurepoints.get(point));
        let is_value = column.name == name
            || ["first", "last", "min", "max"]
                .iter()
                .any(|function| column.name == format!("{name}.{function}"));
        is_value
            && column.storage == Storage::Long
            && declared
                .is_some_and(|point| matches!(point.data_type, backtide_model::DataType::Timestamp))
    };
    let mut points = series.points().into_iter();
    column.is_time || points.any(|point| of_point(&point.name, point.name.as_str()))
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Computed({})", self.table.name)
    }
}

#[async_trait]
impl TableProvider for Computed {
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
        Ok(pushed(filters, &[DEVICE], true))
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns: Vec<Column> = match projection {
            Some(places) => places.iter().map(|at| self.columns[*at].clone()).collect(),
            None => self.columns.to_vec(),
        };
        let wanted = Wanted::of(filters, &[DEVICE], true);
        let devices = devices(&wanted).filter(|_| !wanted.is_nothing());
        let has_one_device = devices.as_ref().is_some_and(|devices| devices.len() == 1);
        let sorted_by: &[&str] = match has_one_device {
            true => &[TIME],
            false => &[DEVICE, TIME],
        };
        let fields: Vec<_> = columns.iter().map(|column| column.field.clone()).collect();
        let schema = Arc::new(Schema::new(fields));
        let orderings = ordering(&schema, sorted_by).into_iter().collect();
        let asked = devices.map(|devices| RowsAsked {
            id: self.table.id,
            series: Arc::clone(&self.table.series),
            // They come out of a set: sorted, each once.
            devices,
            from_ms: wanted.from_ms,
            to_ms: wanted.to_ms,
            after: None,
        });
        let read = Read {
            name: self.table.name.clone(),
            derived: Arc::clone(&self.derived),
            store: self.store.clone(),
            asked,
            rows_max: limit.unwrap_or(usize::MAX),
            columns: columns.into(),
            schema: Arc::clone(&schema),
        };
        let scan = Scan::new(Arc::new(read), schema, orderings, self.readers.clone());
        Ok(Arc::new(scan))
    }
}

/// A read of what is computed.
struct Read {
    name: String,
    derived: Arc<Derived>,
    store: Store,
    /// `None`: no row can fit.
    asked: Option<RowsAsked>,
    rows_max: usize,
    columns: Arc<[Column]>,
    schema: SchemaRef,
}

type Stored = Box<dyn Iterator<Item = Result<arrow_array::RecordBatch>>>;

impl Read {
    fn rows(&self, asked: &RowsAsked) -> Result<Stored> {
        let rows = self.derived.rows(asked.clone()).map_err(unreadable)?;
        let Work::Reduction { points, .. } = &asked.series.work else {
            return Ok(Box::new(rows.map(|rows| rows.map_err(unreadable))));
        };
        let range = Range {
            product: asked.series.product.key.clone(),
            devices: asked.devices.clone(),
            points: points.iter().map(|point| point.name.clone()).collect(),
            from_ms: asked.from_ms,
            to_ms: asked.to_ms,
            order: Order::DeviceTime,
            after: None,
            rows_max: usize::MAX,
        };
        let slabs = self.store.read(&range).map_err(unreadable)?;
        let (series, mut marks) = (Arc::clone(&asked.series), Marks::new(rows, &asked.series));
        Ok(Box::new(slabs.map(move |slab| {
            let slab = slab.map_err(unreadable)?;
            let marked = marks.of(&slab).map_err(unreadable)?;
            kept(&slab, &series, &marked).map_err(unreadable)
        })))
    }
}

impl Source for Read {
    fn batches(&self) -> Result<Batches> {
        let Some(asked) = &self.asked else {
            return Ok(Box::new(std::iter::empty()));
        };
        let (columns, schema) = (Arc::clone(&self.columns), Arc::clone(&self.schema));
        let (rows, mut rows_left) = (self.rows(asked)?, self.rows_max);
        Ok(Box::new(rows.map_while(move |rows| {
            if rows_left == 0 {
                return None;
            }
            Some(rows.and_then(|rows| {
                let rows = rows.slice(0, rows.num_rows().min(rows_left));
                rows_left -= rows.num_rows();
                batch(&rows, &columns, &schema)
            }))
        })))
    }
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let Some(asked) = &self.asked else {
            return f.write_str(", nothing fits");
        };
        if !asked.devices.is_empty() {
            let devices: Vec<&str> = asked.devices.iter().map(DeviceKey::as_str).collect();
            write!(f, ", devices=[{}]", devices.join(", "))?;
        }
        if asked.from_ms != i64::MIN {
            write!(f, ", from={}", crate::clock::iso(asked.from_ms))?;
        }
        if asked.to_ms != i64::MAX {
            write!(f, ", to={}", crate::clock::iso(asked.to_ms))?;
        }
        match self.rows_max {
            usize::MAX => Ok(()),
            rows_max => write!(f, ", limit={rows_max}"),
        }
    }
}
