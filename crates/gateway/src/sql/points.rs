//! The table `points`: every value of every product as a row of its own.
//!
//! A point is read after the other, so that each row has the sequence of its own commit, and a
//! product's points are never all in memory at once.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use backtide_model::{ElementName, Storage};
use backtide_store::{Lead, Order, Range, Store, View, quality_column, value_column};
use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::{Session, TableProvider},
    common::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};
use tokio::sync::Semaphore;

use super::{
    arrow::{of_store, repeated},
    error::unreadable,
    history::{DEVICE, SEQUENCE, devices, pushed, time_type},
    scan::{Batches, Scan, Source},
    wanted::{TIME, Wanted},
};
use crate::registry::{Product, Snapshot};

const NAMED: [&str; 3] = ["product", DEVICE, "point"];

/// Every value.
pub(super) struct Points {
    declared: Arc<Snapshot>,
    store: Store,
    readers: Arc<Semaphore>,
    schema: SchemaRef,
}

impl Points {
    pub(super) fn new(declared: Arc<Snapshot>, store: Store, readers: Arc<Semaphore>) -> Self {
        Self {
            declared,
            store,
            readers,
            schema: Arc::new(Schema::new(vec![
                Field::new(TIME, time_type(), false),
                Field::new("product", DataType::Utf8View, false),
                Field::new(DEVICE, DataType::Utf8View, false),
                Field::new("point", DataType::Utf8View, false),
                Field::new("value", DataType::Float64, true),
                Field::new("text", DataType::Utf8, true),
                Field::new("quality", DataType::Int16, true),
                Field::new(SEQUENCE, DataType::Int64, false),
            ])),
        }
    }

    fn series(&self, wanted: &Wanted, rows_max: usize) -> Vec<Series> {
        let Some(devices) = devices(wanted).filter(|_| !wanted.is_nothing()) else {
            return Vec::new();
        };
        let products = self.declared.products_after(None);
        let products = products.filter(|product| wanted.wants("product", product.name.as_ref()));
        let series = products.flat_map(|product| {
            let devices = &devices;
            points(product, wanted)
                .into_iter()
                .map(move |point| Series {
                    product: product.name.to_string(),
                    point: point.to_string(),
                    is_text: self.store.storage_of(&product.key, &point) == Some(Storage::Text),
                    range: Range {
                        product: product.key.clone(),
                        devices: devices.clone(),
                        points: vec![point],
                        from_ms: wanted.from_ms,
                        to_ms: wanted.to_ms,
                        order: Order::DeviceTime,
                        after: None,
                        rows_max,
                    },
                })
        });
        series.collect()
    }
}

/// The points of a product that are wanted: declared ones, or any that is named where the model lets
/// them pass.
fn points(product: &Product, wanted: &Wanted) -> Vec<ElementName> {
    let declared = &product.model.measurepoints;
    match wanted.names("point") {
        None => declared.keys().cloned().collect(),
        Some(names) => {
            let known =
                |name: &ElementName| product.model.passthrough || declared.contains_key(name);
            let names = names.iter().filter_map(|name| ElementName::new(name).ok());
            names.filter(known).collect()
        }
    }
}

impl fmt::Debug for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Points")
    }
}

#[async_trait]
impl TableProvider for Points {
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
        Ok(pushed(filters, &NAMED, true))
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = Wanted::of(filters, &NAMED, true);
        let schema = match projection {
            Some(places) => Arc::new(self.schema.project(places)?),
            None => Arc::clone(&self.schema),
        };
        let read = Read {
            store: self.store.clone(),
            series: self.series(&wanted, limit.unwrap_or(usize::MAX)).into(),
            schema: Arc::clone(&schema),
        };
        let scan = Scan::new(Arc::new(read), schema, Vec::new(), self.readers.clone());
        Ok(Arc::new(scan))
    }
}

/// The values of one point.
#[derive(Clone)]
struct Series {
    product: String,
    point: String,
    is_text: bool,
    range: Range,
}

/// A read of the store for each series.
struct Read {
    store: Store,
    series: Arc<[Series]>,
    schema: SchemaRef,
}

impl Source for Read {
    fn batches(&self) -> Result<Batches> {
        let (store, series) = (self.store.clone(), Arc::clone(&self.series));
        let schema = Arc::clone(&self.schema);
        let each = (0..series.len()).flat_map(move |at| {
            let (series, schema) = (series[at].clone(), Arc::clone(&schema));
            let slabs = match schema.column_with_name(SEQUENCE) {
                Some(_) => store.read(&series.range),
                None => store.values(&series.range, View::Kept, Lead::Ahead),
            };
            let batches: Batches = match slabs {
                Err(error) => Box::new(std::iter::once(Err(unreadable(error)))),
                Ok(slabs) => Box::new(
                    slabs.map(move |slab| series.batch(&slab.map_err(unreadable)?, &schema)),
                ),
            };
            batches
        });
        Ok(Box::new(each))
    }
}

impl Series {
    fn batch(&self, slab: &arrow_array::RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let arrays = schema.fields().iter();
        let arrays = arrays.map(|field| self.column(slab, field));
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(slab.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?;
        Ok(batch)
    }

    fn column(&self, slab: &arrow_array::RecordBatch, field: &Field) -> Result<ArrayRef> {
        let (rows, data_type) = (slab.num_rows(), field.data_type());
        let point = &self.range.points[0];
        let source = match field.name().as_str() {
            "product" => return Ok(repeated(&self.product, rows)?),
            "point" => return Ok(repeated(&self.point, rows)?),
            TIME => "_time".to_owned(),
            DEVICE => "_device".to_owned(),
            SEQUENCE => "_sequence".to_owned(),
            "quality" => quality_column(point),
            "text" if self.is_text => value_column(point),
            "value" if !self.is_text => value_column(point),
            _ => return Ok(new_null_array(data_type, rows)),
        };
        match slab.column_by_name(&source) {
            Some(array) => Ok(of_store(array, data_type)?),
            None => Ok(new_null_array(data_type, rows)),
        }
    }
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Series that EXPLAIN shows.
        const SHOWN: usize = 3;
        write!(f, "series={}", self.series.len())?;
        for series in self.series.iter().take(SHOWN) {
            write!(f, "; product={}", series.product)?;
            super::history::show(f, &series.range)?;
        }
        Ok(())
    }
}
