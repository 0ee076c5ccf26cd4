//! Thing models of the model service: the vendor's API view of what is declared, and back.

use serde_json::{Map, Value};

use super::{
    answer::{CONFLICT, Data, NOT_FOUND, Refusal},
    call::Call,
    connect::apply,
    search,
};
use crate::{
    http::Api,
    registry::{Declared, DeclaredModel, thing_model},
};

fn view(api: &Api, model: &DeclaredModel) -> Map<String, Value> {
    thing_model::api_view(model.name.as_str(), &model.model, api.organization.as_str())
}

pub(super) fn get(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let id = call.params.required("modelId")?;
    let snapshot = api.registry.snapshot();
    let model = snapshot
        .model(id)
        .ok_or_else(|| Refusal::new(NOT_FOUND, format!("model {id} is not declared")))?;
    Ok(Data::of(&view(api, model)))
}

pub(super) fn search(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let snapshot = api.registry.snapshot();
    search::page(
        &call.json,
        snapshot
            .models_after(None)
            .map(|model| move || view(api, model)),
    )
}

pub(super) fn create(api: &Api, call: &Call) -> Result<Data, Refusal> {
    let (name, model) = match thing_model::read(&call.json) {
        Some(read) => read.map_err(Refusal::bad)?,
        None => {
            return Err(Refusal::bad(
                "the body is no thing model: neither modelId with measurepoints, attributes or events, \
                 nor thingModelId with thingMeasurepointMap",
            ));
        }
    };
    if api.registry.current().model(name.as_str()).is_some() {
        return Err(Refusal::new(
            CONFLICT,
            format!("model {name} is declared already"),
        ));
    }
    apply(api, Declared::Model(name.clone(), Box::new(model)))?;
    Ok(Data::of(&name))
}
