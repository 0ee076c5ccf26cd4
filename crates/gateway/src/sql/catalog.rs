//! Which tables there are: those that are always there, one for each product that is declared at the
//! moment, and one for each rollup and reduction of it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::DataType,
    catalog::{SchemaProvider, TableProvider},
    common::{Result, ScalarValue},
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};
use tokio::sync::Semaphore;

use super::{
    Sources,
    computed::{self, Computed},
    history::History,
    points::Points,
    records::{Kind, Records},
};
use crate::registry::{Product, Snapshot};

const POINTS: &str = "points";
/// Goes before the name of a product that is called as a table of ours.
const PREFIX: &str = "product_";
/// What PostgreSQL's clients ask, to know what they may ask.
const VERSION: &str = concat!("PostgreSQL 16.6 (Backtide ", env!("CARGO_PKG_VERSION"), ")");

/// All tables.
pub(super) struct Tables {
    sources: Sources,
    readers: Arc<Semaphore>,
}

impl Tables {
    pub(super) fn new(sources: Sources, readers: Arc<Semaphore>) -> Self {
        Self { sources, readers }
    }
}

fn is_ours(name: &str) -> bool {
    name == POINTS || Kind::ALL.iter().any(|kind| kind.name() == name)
}

/// What the table of a product is called.
fn table_of(product: &Product) -> String {
    match is_ours(product.name.as_ref()) {
        true => format!("{PREFIX}{}", product.name),
        false => product.name.to_string(),
    }
}

fn product_of<'a>(snapshot: &'a Snapshot, table: &str) -> Option<&'a Arc<Product>> {
    let of_prefixed = table.strip_prefix(PREFIX).filter(|name| is_ours(name));
    let is_of_table = |product: &&Arc<Product>| table_of(product) == table;
    snapshot
        .product(table)
        .filter(is_of_table)
        .or_else(|| snapshot.product(of_prefixed?))
}

impl Tables {
    fn computed(&self, snapshot: &Snapshot) -> Vec<computed::Table> {
        computed_tables(&self.sources, snapshot)
    }
}

/// The tables of rollups and reductions: others keep their names.
pub(super) fn computed_tables(sources: &Sources, snapshot: &Snapshot) -> Vec<computed::Table> {
    computed::tables(&sources.derived, |name| {
        is_ours(name) || product_of(snapshot, name).is_some()
    })
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tables")
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        let snapshot = self.sources.registry.snapshot();
        let products = snapshot
            .products_after(None)
            .map(|product| table_of(product));
        let ours = Kind::ALL.iter().map(|kind| kind.name().to_owned());
        let computed = self.computed(&snapshot).into_iter();
        [POINTS.to_owned()]
            .into_iter()
            .chain(ours)
            .chain(products)
            .chain(computed.map(|table| table.name))
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let (sources, readers) = (&self.sources, self.readers.clone());
        let snapshot = sources.registry.snapshot();
        if name == POINTS {
            let points = Points::new(snapshot, sources.store.clone(), readers);
            return Ok(Some(Arc::new(points)));
        }
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name) {
            let records = Records::new(kind, sources.clone(), readers);
            return Ok(Some(Arc::new(records)));
        }
        if let Some(product) = product_of(&snapshot, name) {
            let history = History::new(Arc::clone(product), sources.store.clone(), readers);
            return Ok(Some(Arc::new(history)));
        }
        let mut computed = self.computed(&snapshot).into_iter();
        Ok(computed.find(|table| table.name == name).map(|table| {
            Arc::new(Computed::new(table, &snapshot, sources, readers)) as Arc<dyn TableProvider>
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        let snapshot = self.sources.registry.snapshot();
        is_ours(name)
            || product_of(&snapshot, name).is_some()
            || self
                .computed(&snapshot)
                .iter()
                .any(|table| table.name == name)
    }
}

/// `version()`, as PostgreSQL's clients expect it.
pub(super) fn version() -> ScalarUDF {
    let text = ScalarValue::Utf8(Some(VERSION.to_owned()));
    create_udf(
        "version",
        Vec::new(),
        DataType::Utf8,
        Volatility::Stable,
        Arc::new(move |_| Ok(ColumnarValue::Scalar(text.clone()))),
    )
}
