//! What a question to `/tsdb-service` is about: assets, and which of their points.

use std::sync::Arc;

use backtide_model::{ElementName, Signal, Storage};
use backtide_store::{Order, Range};
use jiff::tz::TimeZone;

use super::super::{
    answer::{Refusal, TOO_LARGE},
    call::{Call, Params},
    items::{Form, Of},
    moments::{LocalTime, Span, zone_of},
};
use crate::{
    http::Api,
    limits, query,
    registry::{Device, Product, Snapshot},
};

const PAGE_SIZE_DEFAULT: usize = 1_000;

/// Which points an operation takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Any,
    /// Those that the model does not declare, and lets pass.
    Undeclared,
    /// Those of this signal, and those that declare none; numbers where they are folded.
    Signal(Signal),
}

/// A device that is asked about, and which of the points it has.
pub(super) struct Asset {
    pub(super) product: Arc<Product>,
    pub(super) device: Arc<Device>,
    pub(super) zone: TimeZone,
    pub(super) points: Vec<ElementName>,
}

/// What every question has in common.
pub(super) struct Question {
    pub(super) assets: Vec<Asset>,
    pub(super) form: Form,
}

impl Question {
    /// With `points` separated by commas, as they were asked for.
    pub(super) fn of(api: &Api, call: &Call, points: &str, takes: Takes) -> Result<Self, Refusal> {
        if let Some(format) = call
            .params
            .get("itemFormat")
            .filter(|format| *format != "0")
        {
            return Err(Refusal::parameter(format!(
                "itemFormat {format} is not answered; only 0 is"
            )));
        }
        let form = Form::new(call.style, LocalTime::of(call)?);
        let ids = Params::list(call.params.required("assetIds")?);
        let points = distinct(Params::list(points));
        if ids.is_empty() || points.is_empty() {
            return Err(Refusal::parameter(
                "assetIds and points each name at least one",
            ));
        }
        let series = ids.len().saturating_mul(points.len());
        if series > limits::VENDOR_SERIES_MAX {
            return Err(too_many(series, limits::VENDOR_SERIES_MAX));
        }
        let names: Vec<ElementName> = points
            .iter()
            .map(|point| {
                ElementName::new(point).map_err(|error| Refusal::parameter(error.to_string()))
            })
            .collect::<Result<_, _>>()?;
        let snapshot = api.registry.snapshot();
        let model = call.params.get("modelId");
        let assets: Vec<Asset> = distinct(ids)
            .into_iter()
            .map(|id| asset(&snapshot, id, model, &names, takes))
            .collect::<Result<_, _>>()?;
        let unknown = names
            .iter()
            .find(|name| !assets.iter().any(|asset| asset.points.contains(name)));
        match unknown {
            Some(name) => Err(unknown_point(&assets, name, takes)),
            None => Ok(Self { assets, form }),
        }
    }

    /// The range of each asset, in their order: milliseconds since 1970, the end exclusive.
    pub(super) fn spans(&self, params: &Params) -> Result<Vec<(i64, i64)>, Refusal> {
        let span = Span::of(params)?;
        let of = |asset: &Asset| span.at(&asset.zone);
        self.assets.iter().map(of).collect()
    }

    pub(super) fn series(&self) -> usize {
        self.assets.iter().map(|asset| asset.points.len()).sum()
    }

    pub(super) fn refuse_other_than_numbers(&self) -> Result<(), Refusal> {
        for asset in &self.assets {
            let other = asset.points.iter().find(|point| {
                let declared = asset.product.model.measurepoints.get(*point);
                declared.is_some_and(|point| {
                    matches!(point.data_type.storage(), Storage::Text | Storage::Bool)
                })
            });
            if let Some(point) = other {
                return Err(Refusal::parameter(format!("point {point} is no number")));
            }
        }
        Ok(())
    }
}

fn asset(
    snapshot: &Snapshot,
    id: &str,
    model: Option<&str>,
    names: &[ElementName],
    takes: Takes,
) -> Result<Asset, Refusal> {
    let (product, device) = snapshot
        .asset(id)
        .ok_or_else(|| Refusal::parameter(format!("asset {id} is not declared")))?;
    if let Some(model) = model.filter(|model| product.model_name.as_str() != *model) {
        return Err(Refusal::parameter(format!(
            "asset {id} is of model {}, not of {model}",
            product.model_name
        )));
    }
    let has = |name: &&ElementName| match product.model.measurepoints.get(*name) {
        None => product.model.passthrough,
        Some(point) => match (takes, point.signal) {
            (Takes::Undeclared, _) => false,
            (Takes::Signal(due), Some(signal)) => signal == due,
            (Takes::Signal(_), None) | (Takes::Any, _) => true,
        },
    };
    Ok(Asset {
        zone: zone_of(device),
        points: names.iter().filter(has).cloned().collect(),
        product: Arc::clone(product),
        device: Arc::clone(device),
    })
}

fn unknown_point(assets: &[Asset], name: &ElementName, takes: Takes) -> Refusal {
    let declared = assets
        .iter()
        .find_map(|asset| asset.product.model.measurepoints.get(name));
    match (declared.and_then(|point| point.signal), takes) {
        (Some(signal), Takes::Signal(due)) => Refusal::parameter(format!(
            "point {name} is of signal type {}, and this reads {}; ask /raw, which reads any",
            signal_word(signal),
            signal_word(due)
        )),
        _ if takes == Takes::Undeclared => Refusal::parameter(format!(
            "point {name} is in the model of the assets, or their model lets no others pass; ask /raw"
        )),
        _ => Refusal::parameter(format!(
            "point {name} is in the model of none of the assets"
        )),
    }
}

const fn signal_word(signal: Signal) -> &'static str {
    match signal {
        Signal::Analogue => "AI",
        Signal::Digital => "DI",
        Signal::Pulse => "PI",
        Signal::Generic => "Generic",
    }
}

fn distinct(texts: Vec<&str>) -> Vec<&str> {
    let mut seen = std::collections::HashSet::new();
    texts
        .into_iter()
        .filter(|text| seen.insert(*text))
        .collect()
}

pub(super) fn too_many(series: usize, most: usize) -> Refusal {
    Refusal::parameter(format!(
        "assets times points are {series}, at most {most} are answered; ask for fewer at a time"
    ))
}

pub(super) fn missing(name: &str) -> Refusal {
    Refusal::parameter(format!("{name} is missing"))
}

/// Records of one point of one asset, so that all of them stay within the limit.
pub(super) fn page_size(call: &Call, question: &Question) -> Result<usize, Refusal> {
    let page: usize = call.params.number("pageSize")?.unwrap_or(PAGE_SIZE_DEFAULT);
    if page == 0 {
        return Err(Refusal::parameter("pageSize 0 answers nothing"));
    }
    let series = question.series().max(1);
    let most = limits::VENDOR_RECORDS_MAX / series;
    // Who names no page size is not told of a limit that is not theirs.
    match call.params.get("pageSize") {
        None => Ok(page.min(most)),
        Some(_) if page <= most => Ok(page),
        Some(_) => Err(Refusal::new(
            TOO_LARGE,
            format!(
                "assets times points times pageSize are {}, at most {} are answered; ask for a pageSize \
                 of {most}, and cut the time range",
                series.saturating_mul(page),
                limits::VENDOR_RECORDS_MAX
            ),
        )),
    }
}

/// Which of a range come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sorted {
    EarliestFirst,
    LatestFirst,
}

impl Sorted {
    pub(super) fn of(params: &Params) -> Result<Self, Refusal> {
        let Some(order) = params.get("orderBy") else {
            return Ok(Self::EarliestFirst);
        };
        let order = order.to_ascii_lowercase();
        match order.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["timestamp"] | ["timestamp", "asc"] => Ok(Self::EarliestFirst),
            ["timestamp", "desc"] => Ok(Self::LatestFirst),
            _ => Err(Refusal::parameter(format!(
                "orderBy {order:?} is neither timestamp asc nor timestamp desc"
            ))),
        }
    }
}

/// What changes values is not done silently.
pub(super) fn refuse_interpolation(params: &Params) -> Result<(), Refusal> {
    for name in ["boundaryType", "interpolation", "interval"] {
        let inside =
            |value: &str| ["inside", "none", "0"].contains(&value.to_ascii_lowercase().as_str());
        if params.get(name).is_some_and(|value| !inside(value)) {
            return Err(Refusal::parameter(format!(
                "{name} is not answered: values are returned as they are stored"
            )));
        }
    }
    Ok(())
}

impl Asset {
    pub(super) fn of<'a>(&'a self, key: &'a str, point: &ElementName) -> Of<'a> {
        Of {
            asset_id: self.device.asset_id.as_str(),
            zone: &self.zone,
            point: key,
            is_json: query::is_json(&self.product, point),
        }
    }

    /// Declared as a number, or a truth.
    pub(super) fn is_short(&self, point: &ElementName) -> bool {
        let declared = self.product.model.measurepoints.get(point);
        declared.is_some_and(|point| point.data_type.storage() != Storage::Text)
    }

    pub(super) fn range(
        &self,
        points: &[ElementName],
        (from_ms, to_ms): (i64, i64),
        rows_max: usize,
    ) -> Range {
        Range {
            product: self.product.key.clone(),
            devices: vec![self.device.key.clone()],
            points: points.to_vec(),
            from_ms,
            to_ms,
            order: Order::DeviceTime,
            after: None,
            rows_max,
        }
    }
}
