//! The table of a product: a row for each device and time, a column for each point of its model.
//!
//! A row is there whatever columns are asked for: `count(*)` counts rows that have any value.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use backtide_model::{DataType as PointType, DeviceKey, ElementName, Storage};
use backtide_store::{Lead, Order, Range, Store, View, quality_column, value_column};
use datafusion::{
    arrow::{
        array::{RecordBatch, RecordBatchOptions},
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    },
    catalog::{Session, TableProvider},
    common::Result,
    logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType},
    physical_expr::{LexOrdering, PhysicalSortExpr, expressions::Column as SortColumn},
    physical_plan::ExecutionPlan,
};
use tokio::sync::Semaphore;

use super::{
    arrow::of_store,
    error::unreadable,
    scan::{Batches, Scan, Source},
    wanted::{TIME, Wanted},
};
use crate::registry::Product;

pub(super) const DEVICE: &str = "device";
pub(super) const SEQUENCE: &str = "sequence";
/// As the store's slabs call them.
const STORED: [(&str, &str); 3] = [
    (TIME, "_time"),
    (DEVICE, "_device"),
    (SEQUENCE, "_sequence"),
];

/// A moment: milliseconds since 1970, shown in UTC.
pub(super) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

/// The history of one product.
pub(super) struct History {
    product: Arc<Product>,
    columns: Arc<[Column]>,
    schema: SchemaRef,
    store: Store,
    readers: Arc<Semaphore>,
}

/// A column, and where slabs have it.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) field: Arc<Field>,
    source: String,
    /// The point that it is of.
    point: Option<ElementName>,
}

impl Column {
    /// A column of no point.
    pub(super) fn new(name: &str, data_type: DataType, nullable: bool, source: &str) -> Self {
        Self {
            field: Arc::new(Field::new(name, data_type, nullable)),
            source: source.to_owned(),
            point: None,
        }
    }
}

impl History {
    pub(super) fn new(product: Arc<Product>, store: Store, readers: Arc<Semaphore>) -> Self {
        let columns = columns(&product);
        let fields: Vec<_> = columns.iter().map(|column| column.field.clone()).collect();
        Self {
            product,
            columns: columns.into(),
            schema: Arc::new(Schema::new(fields)),
            store,
            readers,
        }
    }
}

fn columns(product: &Product) -> Vec<Column> {
    let fixed = STORED.map(|(name, source)| {
        let data_type = match name {
            TIME => time_type(),
            DEVICE => DataType::Utf8View,
            _ => DataType::Int64,
        };
        Column::new(name, data_type, false, source)
    });
    let mut columns = Vec::from(fixed);
    for (name, point) in &product.model.measurepoints {
        let value = (
            name.to_string(),
            data_type(&point.data_type),
            value_column(name),
        );
        let quality = point.quality.then(|| {
            let shown = format!("{name}.quality");
            (shown, DataType::Int16, quality_column(name))
        });
        for (shown, data_type, source) in [Some(value), quality].into_iter().flatten() {
            let shown = free(&columns, shown);
            columns.push(Column {
                field: Arc::new(Field::new(shown, data_type, true)),
                source,
                point: Some(name.clone()),
            });
        }
    }
    columns
}

/// A name that no column has: a point may be called as one of ours, or as the quality of another.
pub(super) fn free(columns: &[Column], mut name: String) -> String {
    while columns.iter().any(|column| *column.field.name() == name) {
        name.push_str(".value");
    }
    name
}

fn data_type(point: &PointType) -> DataType {
    match (point, point.storage()) {
        (PointType::Timestamp, Storage::Long) => time_type(),
        (_, storage) => stored_as(storage),
    }
}

/// The type of a column of plain values.
pub(super) fn stored_as(storage: Storage) -> DataType {
    match storage {
        Storage::Bool => DataType::Boolean,
        Storage::Int => DataType::Int32,
        Storage::Long => DataType::Int64,
        Storage::Float => DataType::Float32,
        Storage::Double => DataType::Float64,
        Storage::Text => DataType::Utf8,
    }
}

impl History {
    /// Whether only rows fit that have a value of one of the points.
    fn needs_a_value(&self, filter: &Expr) -> bool {
        let is_point = |name: &str| {
            let mut columns = self.columns.iter();
            columns.any(|column| column.point.is_some() && column.field.name() == name)
        };
        needs_a_value(filter, &is_point)
    }
}

/// Whether a condition is true of nothing that has NULL in a column of a point.
fn needs_a_value(filter: &Expr, is_point: &dyn Fn(&str) -> bool) -> bool {
    let is_value = |expr: &Expr| match expr {
        Expr::Column(column) => is_point(&column.name),
        Expr::Cast(cast) => matches!(&*cast.expr, Expr::Column(column) if is_point(&column.name)),
        _ => false,
    };
    match filter {
        Expr::IsNotNull(expr) => is_value(expr),
        Expr::Between(between) => is_value(&between.expr),
        Expr::InList(list) => is_value(&list.expr),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => needs_a_value(left, is_point) || needs_a_value(right, is_point),
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq => is_value(left) || is_value(right),
            _ => false,
        },
        _ => false,
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "History({})", self.product.name)
    }
}

#[async_trait]
impl TableProvider for History {
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
        let mut pushed = pushed(filters, &[DEVICE], true);
        for (filter, pushed) in filters.iter().zip(&mut pushed) {
            // It is applied again, and says which rows are not worth reading.
            if *pushed == TableProviderFilterPushDown::Unsupported && self.needs_a_value(filter) {
                *pushed = TableProviderFilterPushDown::Inexact;
            }
        }
        Ok(pushed)
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
        let mut points: Vec<ElementName> = columns.iter().filter_map(|c| c.point.clone()).collect();
        points.dedup();
        if points.is_empty() {
            // None asks for all; any one will do to walk over the rows.
            points.extend(self.product.model.measurepoints.keys().next().cloned());
        }
        let range = devices.map(|devices| Range {
            product: self.product.key.clone(),
            devices,
            points,
            from_ms: wanted.from_ms,
            to_ms: wanted.to_ms,
            order: Order::DeviceTime,
            after: None,
            rows_max: limit.unwrap_or(usize::MAX),
        });
        let has_one_device = wanted.names(DEVICE).is_some_and(|names| names.len() == 1);
        let sorted_by: &[&str] = match has_one_device {
            true => &[TIME],
            false => &[DEVICE, TIME],
        };
        let fields: Vec<_> = columns.iter().map(|column| column.field.clone()).collect();
        let schema = Arc::new(Schema::new(fields));
        let orderings = ordering(&schema, sorted_by).into_iter().collect();
        // A row without any of the points may count, and has a sequence.
        let has_sequence = columns.iter().any(|column| column.field.name() == SEQUENCE);
        let is_every_row = has_sequence || !filters.iter().any(|filter| self.needs_a_value(filter));
        let read = Read {
            product: self.product.name.to_string(),
            store: self.store.clone(),
            is_every_row,
            range,
            columns: columns.into(),
            schema: Arc::clone(&schema),
        };
        let scan = Scan::new(Arc::new(read), schema, orderings, self.readers.clone());
        Ok(Arc::new(scan))
    }
}

/// Which conditions a table takes.
pub(super) fn pushed(
    filters: &[&Expr],
    named: &[&str],
    has_time: bool,
) -> Vec<TableProviderFilterPushDown> {
    let taken = |filter: &&Expr| match Wanted::takes(filter, named, has_time) {
        true => TableProviderFilterPushDown::Exact,
        false => TableProviderFilterPushDown::Unsupported,
    };
    filters.iter().map(taken).collect()
}

/// The devices that are wanted, as the store takes them: an empty list asks for all. `None`: no
/// device can have one of the names.
pub(super) fn devices(wanted: &Wanted) -> Option<Vec<DeviceKey>> {
    let Some(names) = wanted.names(DEVICE) else {
        return Some(Vec::new());
    };
    let keys = names.iter().filter_map(|name| DeviceKey::new(name).ok());
    let keys: Vec<_> = keys.collect();
    (!keys.is_empty()).then_some(keys)
}

/// What the rows of a read are sorted by, as far as the columns are there.
pub(super) fn ordering(schema: &Schema, by: &[&str]) -> Option<LexOrdering> {
    let column = |name: &&str| {
        let at = schema.index_of(name).ok()?;
        Some(PhysicalSortExpr::new_default(Arc::new(SortColumn::new(
            name, at,
        ))))
    };
    // As far as the columns are there: device and time, or device alone.
    LexOrdering::new(by.iter().map_while(column))
}

/// A read of the store.
struct Read {
    product: String,
    store: Store,
    /// Rows that have none of the points too.
    is_every_row: bool,
    /// `None`: no row can fit.
    range: Option<Range>,
    columns: Arc<[Column]>,
    schema: SchemaRef,
}

impl Source for Read {
    fn batches(&self) -> Result<Batches> {
        let Some(range) = &self.range else {
            return Ok(Box::new(std::iter::empty()));
        };
        let mut fields = self.schema.fields().iter();
        let with_sequences = fields.any(|field| field.name() == SEQUENCE);
        let slabs = match self.is_every_row {
            true => self.store.every_row(range, with_sequences),
            false => self.store.values(range, View::Kept, Lead::Ahead),
        };
        let slabs = slabs.map_err(unreadable)?;
        let (columns, schema) = (Arc::clone(&self.columns), Arc::clone(&self.schema));
        Ok(Box::new(slabs.map(move |slab| {
            batch(&slab.map_err(unreadable)?, &columns, &schema)
        })))
    }
}

/// A slab as rows of a table.
pub(super) fn batch(
    slab: &arrow_array::RecordBatch,
    columns: &[Column],
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let rows = slab.num_rows();
    let arrays = columns.iter().map(|column| {
        let data_type = column.field.data_type();
        match slab.column_by_name(&column.source) {
            Some(array) => of_store(array, data_type),
            // No value has a quality.
            None => Ok(datafusion::arrow::array::new_null_array(data_type, rows)),
        }
    });
    let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
    // A batch may have no columns: they are counted only.
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
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
        write!(f, "product={}", self.product)?;
        match &self.range {
            None => write!(f, ", nothing fits"),
            Some(range) if self.is_every_row => show(f, range),
            Some(range) => {
                f.write_str(", rows with a value")?;
                show(f, range)
            }
        }
    }
}

/// What of a product is read, as EXPLAIN shows it.
pub(super) fn show(f: &mut fmt::Formatter<'_>, range: &Range) -> fmt::Result {
    let points: Vec<&str> = range.points.iter().map(AsRef::as_ref).collect();
    write!(f, ", points=[{}]", points.join(", "))?;
    if !range.devices.is_empty() {
        let devices: Vec<&str> = range.devices.iter().map(DeviceKey::as_str).collect();
        write!(f, ", devices=[{}]", devices.join(", "))?;
    }
    if range.from_ms != i64::MIN {
        write!(f, ", from={}", crate::clock::iso(range.from_ms))?;
    }
    if range.to_ms != i64::MAX {
        write!(f, ", to={}", crate::clock::iso(range.to_ms))?;
    }
    match range.rows_max {
        usize::MAX => Ok(()),
        rows_max => write!(f, ", limit={rows_max}"),
    }
}
