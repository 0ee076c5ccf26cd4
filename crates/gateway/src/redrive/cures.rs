//! What a declaration cures: causes whose entries the current model and script would take.
//!
//! Asked after every change, so it must be cheap: causes are counted in the quarantine already,
//! and entries are tried only of causes that the change is about, and only so many.

use std::collections::{BTreeMap, BTreeSet};

use backtide_model::Code;
use serde::Serialize;

use super::{RedriveError, Redriver};
use crate::quarantine::{Cause, Filter, Page};

/// Causes that are looked at for one question.
const CAUSES_MAX: usize = 1_000;
/// Devices of one change that are asked for by name; for more, the most frequent causes are gone
/// through.
const DEVICES_BY_NAME_MAX: usize = 100;
/// Entries of one cause, and of one question, that are tried.
const TRIED_OF_CAUSE_MAX: u64 = 500;
const TRIED_MAX: u64 = 5_000;
/// Entries that are read at once.
const STEP: usize = 50;

/// Something that was declared or published: what it may cure is of its product.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Declared {
    /// Product key and device key.
    Device(String, String),
    /// A product key: its model, its script, its channels.
    Product(String),
}

/// A cause, and what a re-drive of its entries would bring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cure {
    #[serde(flatten)]
    pub cause: Cause,
    /// Entries that a re-drive would store whole.
    pub would_cure: u64,
    /// Entries that were tried; where these are not all, `wouldCure` is reckoned from them.
    pub tried: u64,
    /// What to do: the command that re-drives, or what is to be declared first.
    pub advice: String,
}

impl Redriver {
    /// The most frequent causes, each with what to do about it. Blocks.
    ///
    /// # Errors
    /// The quarantine cannot be read.
    pub fn cures(&self, filter: &Filter, limit: usize) -> Result<Vec<Cure>, RedriveError> {
        let causes = self.quarantine.causes(filter, limit.min(CAUSES_MAX))?.found;
        self.tried(causes)
    }

    /// What a change that was just made cures; only causes of which it cures anything. Blocks.
    ///
    /// # Errors
    /// The quarantine cannot be read.
    pub fn cured_by(&self, declared: &BTreeSet<Declared>) -> Result<Vec<Cure>, RedriveError> {
        let mut causes: BTreeMap<i64, Cause> = BTreeMap::new();
        let mut add = |filter: &Filter, concerns: &dyn Fn(&Cause) -> bool| {
            let found = self.quarantine.causes(filter, CAUSES_MAX)?.found;
            let found = found.into_iter().filter(|cause| concerns(cause));
            causes.extend(found.map(|cause| (cause.id, cause)));
            Ok::<_, RedriveError>(())
        };
        let devices = declared.iter().filter_map(|declared| match declared {
            Declared::Device(product, device) => Some((product, device)),
            Declared::Product(_) => None,
        });
        let devices: BTreeSet<_> = devices.collect();
        if devices.len() <= DEVICES_BY_NAME_MAX {
            for (product, device) in &devices {
                let filter = Filter {
                    device: Some((*device).clone()),
                    ..Filter::default()
                };
                add(&filter, &|cause| cause.product_key == **product)?;
            }
        }
        let is_concerned = |cause: &Cause| {
            let of_product = Declared::Product(cause.product_key.clone());
            let device = cause.device_key.as_ref();
            declared.contains(&of_product)
                || device.is_some_and(|device| devices.contains(&(&cause.product_key, device)))
        };
        if devices.len() > DEVICES_BY_NAME_MAX || devices.len() < declared.len() {
            add(&Filter::default(), &is_concerned)?;
        }
        let mut cures = self.tried(causes.into_values().collect())?;
        cures.retain(|cure| cure.would_cure > 0);
        cures.sort_by_key(|cure| (std::cmp::Reverse(cure.would_cure), cure.cause.id));
        Ok(cures)
    }

    fn tried(&self, causes: Vec<Cause>) -> Result<Vec<Cure>, RedriveError> {
        let mut left = TRIED_MAX;
        let mut cures = Vec::with_capacity(causes.len());
        for cause in causes {
            let (tried, cured) = self.try_cause(&cause, left.min(TRIED_OF_CAUSE_MAX))?;
            left -= tried;
            let would_cure = match tried {
                0 => 0,
                tried if cured == tried => cause.entries,
                tried if tried >= cause.entries => cured,
                // A share of all, by what was tried.
                tried => {
                    u64::try_from(u128::from(cause.entries) * u128::from(cured) / u128::from(tried))
                        .unwrap_or(cause.entries)
                }
            };
            let advice = match would_cure {
                0 => advice(&cause),
                _ => format!("backtide quarantine redrive --cause {}", cause.id),
            };
            cures.push(Cure {
                would_cure,
                tried,
                advice,
                cause,
            });
        }
        Ok(cures)
    }

    /// How many entries of a cause were tried, and how many of these would be stored whole. Where
    /// neither of the first step would be, the rest is left alone: they are all alike.
    fn try_cause(&self, cause: &Cause, tried_max: u64) -> Result<(u64, u64), RedriveError> {
        let filter = Filter {
            cause: Some(cause.id),
            ..Filter::default()
        };
        let (mut tried, mut cured) = (0, 0);
        let mut page = Page::first(STEP);
        while tried < tried_max {
            page.limit = STEP.min(usize::try_from(tried_max - tried).unwrap_or(STEP));
            let found = self.with_bytes(&filter, page)?;
            let Some(last) = found.last else { break };
            page.after = Some(last);
            for (entry, payload) in &found.entries {
                tried += 1;
                cured += u64::from(self.dry_run(entry, payload).is_cured());
            }
            if cured == 0 {
                break;
            }
        }
        Ok((tried, cured))
    }
}

/// What would have to be done before a re-drive helps.
fn advice(cause: &Cause) -> String {
    let product = &cause.product_key;
    let code = Code::from_number(cause.code);
    match (code, &cause.device_key, &cause.point) {
        (Some(Code::UnknownDevice), Some(device), _) => format!(
            "register device {device} for product {product} (backtide apply), then re-drive"
        ),
        (Some(Code::ModelMismatch), _, Some(point)) => format!(
            "declare {point} in the model of product {product} as what is sent, then re-drive"
        ),
        (Some(Code::ModelMismatch), _, None) => {
            format!("mend the model of product {product}, then re-drive")
        }
        (Some(Code::Undecodable), _, _) => {
            format!("publish a script for product {product} that decodes it, then re-drive")
        }
        _ => format!(
            "no declaration cures this: mend the sender, then \
             backtide quarantine discard --cause {} --yes",
            cause.id
        ),
    }
}
