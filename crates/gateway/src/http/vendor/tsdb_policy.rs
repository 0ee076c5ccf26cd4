//! `/tsdb-policy`: which points are stored how, as the vendor's API reads and saves it
//! (`data-plane.md` §2.3). A vendor's policy is a policy object of ours of that name: its storage rules,
//! one for each model. The vendor has no call that makes one, so a policy is declared first.

use std::collections::BTreeMap;

use backtide_model::{ElementName, Measurepoint, ObjectName, Signal};
use serde_json::{Map, Value, json};

use super::{
    answer::{Data, Refusal},
    call::{Call, Params},
    connect::apply,
};
use crate::{
    http::Api,
    limits,
    registry::{Compression, Declared, Density, Of, Policy, Snapshot, StorageRule},
};

/// What the vendor answers where a policy is not there or cannot be saved.
const POLICY: u32 = 80_500;
const DAYS_OF_MONTH: u32 = 30;
const DAYS_OF_YEAR: u32 = 365;

/// How each of some points is stored: `{ modelId, tsdb_metadata: { point: [codes] } }`.
pub(super) fn of_points(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let models = Params::list(call.params.required("modelIds")?);
    let points = Params::list(call.params.required("measurepoints")?);
    let asked = models.len().saturating_mul(points.len());
    if asked > limits::VENDOR_SERIES_MAX {
        return Err(Refusal::parameter(format!(
            "{asked} points are asked about, at most {} are answered",
            limits::VENDOR_SERIES_MAX
        )));
    }
    let snapshot = api.registry.snapshot();
    let mut found = Vec::new();
    for model_id in models {
        let model = snapshot
            .model(model_id)
            .ok_or_else(|| Refusal::parameter(format!("model {model_id} is not declared")))?;
        let mut codes = Map::new();
        for name in &points {
            if let Some((point, declared)) = model.model.measurepoints.get_key_value(*name) {
                let rule = rule_of(&snapshot, model_id, point);
                codes.insert((*name).to_owned(), json!(codes_of(declared, rule)));
            }
        }
        found.push(json!({ "modelId": model_id, "tsdb_metadata": codes }));
    }
    Ok(Data::of(&found))
}

/// The rule of a point in the products of a model: those that a policy gives the model itself.
fn rule_of<'s>(
    snapshot: &'s Snapshot,
    model: &str,
    point: &ElementName,
) -> Option<&'s StorageRule> {
    let products = snapshot.products_after(None);
    let mut of_model = products.filter(|product| product.model_name.as_str() == model);
    let product = of_model.next()?;
    let storage = snapshot.storage(&product.name)?;
    storage.point(point).map(|in_force| in_force.rule())
}

/// Without a rule every value is kept.
fn codes_of(point: &Measurepoint, rule: Option<&StorageRule>) -> Vec<&'static str> {
    let raw = raw_code(point.signal);
    match rule.map(|rule| rule.keep) {
        Some(Density::Minute) if raw == "AI_RAW" => vec!["AI_NORMALIZED"],
        Some(Density::Both) if raw == "AI_RAW" => vec![raw, "AI_NORMALIZED"],
        None | Some(Density::Raw | Density::Minute | Density::Both) => vec![raw],
    }
}

fn raw_code(signal: Option<Signal>) -> &'static str {
    match signal {
        Some(Signal::Digital) => "DI",
        Some(Signal::Pulse) => "PI",
        Some(Signal::Generic) => "GENERIC",
        Some(Signal::Analogue) | None => "AI_RAW",
    }
}

/// One policy.
pub(super) fn get(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    let policy = policy(&snapshot, call)?;
    Ok(Data::of(&shown(&snapshot, policy)))
}

fn policy<'s>(snapshot: &'s Snapshot, call: &Call) -> Result<&'s std::sync::Arc<Policy>, Refusal> {
    let id = call.params.required("policyId")?;
    let policy = snapshot.policy(id).filter(|policy| {
        let mut rules = policy.file.storage.0.iter();
        rules.any(|rule| rule.of == Of::Points)
    });
    policy.ok_or_else(|| {
        Refusal::new(
            POLICY,
            format!("there is no policy {id} with storage of points; declare one with apply"),
        )
    })
}

fn shown(snapshot: &Snapshot, policy: &Policy) -> Value {
    let mut models: BTreeMap<&ObjectName, Vec<Value>> = BTreeMap::new();
    let rules = policy.file.storage.0.iter();
    let rules: Vec<&StorageRule> = rules.filter(|rule| rule.of == Of::Points).collect();
    let named: Vec<&ElementName> = rules.iter().flat_map(|rule| &rule.points).collect();
    for rule in &rules {
        for model in snapshot.models_after(None).filter(|model| {
            let is_among = |names: &[ObjectName]| names.is_empty() || names.contains(&model.name);
            is_among(&policy.file.models) && is_among(&rule.models)
        }) {
            let points = model.model.measurepoints.keys();
            let is_of_rule = |point: &&ElementName| match rule.points.is_empty() {
                true => !named.contains(point),
                false => rule.points.contains(point),
            };
            let points = points
                .filter(is_of_rule)
                .map(|point| shown_point(rule, point));
            models.entry(&model.name).or_default().extend(points);
        }
    }
    let first = rules.first();
    json!({
        "policyId": policy.name,
        "policyName": policy.name,
        "policyType": first.map_or("RAW", |rule| type_of(rule)),
        "retention": first.and_then(|rule| rule.keep_days).map(retention_code),
        "models": models
            .into_iter()
            .map(|(model, points)| json!({ "modelId": model, "points": points }))
            .collect::<Vec<_>>(),
    })
}

fn type_of(rule: &StorageRule) -> &'static str {
    match (rule.keep, rule.change_only) {
        (Density::Minute, _) => "NORMALIZED",
        (_, true) => "DI",
        (Density::Raw | Density::Both, false) => "RAW",
    }
}

fn shown_point(rule: &StorageRule, point: &ElementName) -> Value {
    let mut shown = json!({ "pointId": point });
    if let Some(Compression { sdt, db }) = rule.compression.get(point) {
        for (name, parameters) in [("sdt", sdt), ("db", db)] {
            if !parameters.is_empty() {
                shown[name] = json!(parameters);
            }
        }
    }
    shown
}

/// Whole years and months as the vendor writes them, else days.
fn retention_code(days: u32) -> String {
    if days.is_multiple_of(DAYS_OF_YEAR) {
        format!("{}y", days / DAYS_OF_YEAR)
    } else if days.is_multiple_of(DAYS_OF_MONTH) {
        format!("{}M", days / DAYS_OF_MONTH)
    } else {
        format!("{days}d")
    }
}

fn days_of(retention: &str) -> Result<u32, Refusal> {
    let unit = retention.chars().last();
    let days = match unit {
        Some('M') => DAYS_OF_MONTH,
        Some('y' | 'Y') => DAYS_OF_YEAR,
        Some('d') => 1,
        Some(_) | None => 0,
    };
    let number: Option<u32> = retention
        .get(..retention.len().saturating_sub(1))
        .and_then(|number| number.parse().ok());
    number
        .and_then(|number| number.checked_mul(days))
        .filter(|days| *days > 0)
        .ok_or_else(|| {
            Refusal::parameter(format!(
                "retention {retention:?} is none; give such as 3M, 1y or 90d"
            ))
        })
}

/// Saves which points a policy is about, and for how long. How dense it keeps them, and what its age
/// counts from, stays as its first rule says.
pub(super) fn save(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    let policy = policy(&snapshot, call)?;
    let first = policy
        .file
        .storage
        .0
        .iter()
        .find(|rule| rule.of == Of::Points);
    let mut kind = first.cloned().unwrap_or_default();
    if let Some(retention) = call.params.get("retention") {
        kind.keep_days = Some(days_of(retention)?);
    }
    let models = call.json.get("models").and_then(Value::as_array);
    let models = models.filter(|models| !models.is_empty()).ok_or_else(|| {
        Refusal::parameter("models is absent; send {\"models\":[{\"modelId\":…,\"points\":[…]}]}")
    })?;
    let mut file = policy.file.clone();
    file.storage.0.retain(|rule| rule.of != Of::Points);
    for model in models {
        let rule = rule_for(model, &kind)?;
        if !file.models.is_empty() && rule.models.iter().any(|name| !file.models.contains(name)) {
            file.models.extend(rule.models.iter().cloned());
        }
        file.storage.0.push(rule);
    }
    apply(api, Declared::Policy(policy.name.clone(), Box::new(file)))
        .map_err(|refusal| Refusal::new(POLICY, refusal.message))?;
    Ok(Data::null())
}

fn rule_for(model: &Value, kind: &StorageRule) -> Result<StorageRule, Refusal> {
    let id = model
        .get("modelId")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let name = ObjectName::new(id)
        .map_err(|error| Refusal::parameter(format!("modelId {id:?}: {error}")))?;
    let points = model.get("points").and_then(Value::as_array);
    let points = points.filter(|points| !points.is_empty()).ok_or_else(|| {
        Refusal::parameter(format!(
            "points of model {id} is absent; send a list of points"
        ))
    })?;
    let mut rule = StorageRule {
        models: vec![name],
        points: Vec::with_capacity(points.len()),
        compression: BTreeMap::new(),
        ..kind.clone()
    };
    for point in points {
        // v2.0 sends identifiers, v2.1 objects.
        let id = point.as_str().or_else(|| point.get("pointId")?.as_str());
        let id = id.ok_or_else(|| Refusal::parameter(format!("point {point} has no pointId")))?;
        let id = ElementName::new(id)
            .map_err(|error| Refusal::parameter(format!("pointId {id:?}: {error}")))?;
        let compression = Compression {
            sdt: parameters(point, "sdt")?,
            db: parameters(point, "db")?,
        };
        if compression != Compression::default() {
            rule.compression.insert(id.clone(), compression);
        }
        rule.points.push(id);
    }
    Ok(rule)
}

fn parameters(point: &Value, name: &str) -> Result<BTreeMap<String, f64>, Refusal> {
    match point.get(name) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(given) => serde_json::from_value(given.clone()).map_err(|error| {
            Refusal::parameter(format!("{name} of point {}: {error}", point["pointId"]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retentions_are_read_and_written_as_the_vendor_does() {
        for (code, days) in [("3M", 90), ("1y", 365), ("20y", 7_300), ("7d", 7)] {
            assert_eq!(days_of(code).unwrap(), days);
            assert_eq!(retention_code(days), code);
        }
        for wrong in ["", "M", "0y", "3", "-1M", "y3", "9999999999y"] {
            assert!(days_of(wrong).is_err(), "{wrong}");
        }
    }
}
