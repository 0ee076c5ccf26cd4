//! Thing models of others as JSON. The vendor's come in two shapes (`data-plane.md` §5.2): what its
//! API shows, and the file that its console exports; a third one of lists is common elsewhere. Each
//! becomes a model of ours; one of ours is shown as the vendor's API shows one.
//!
//! What a model of ours has not is left out: services, default values, tags, categories. What would
//! change the meaning of a value is refused instead, by name. Pure.

use backtide_model::{ElementFile, ItemType, Level, Model, ObjectName, Signal};
use serde_json::{Map, Value, json};

/// The name and the model that a JSON value is; `None` where it is no thing model at all.
pub fn read(value: &Value) -> Option<Result<(ObjectName, Model), String>> {
    // An answer of the API is taken as it stands.
    let value = value
        .get("data")
        .filter(|data| data.get("modelId").is_some())
        .unwrap_or(value);
    let object = value.as_object()?;
    let has = |names: [&str; 3]| names.into_iter().any(|name| object.contains_key(name));
    if object.contains_key("thingModelId")
        && has(["thingMeasurepointMap", "thingAttributeMap", "thingEventMap"])
    {
        return Some(exported(object));
    }
    if object.contains_key("modelId") && has(["measurepoints", "attributes", "events"]) {
        return Some(shown(object));
    }
    let is_list = object.get("properties").is_some_and(Value::is_array);
    (is_list && !object.contains_key("kind")).then(|| listed(object))
}

/// The same for a text; a byte order mark before it is passed over.
pub(super) fn read_text(text: &str) -> Option<Result<(ObjectName, Model), String>> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if !text.starts_with('{') {
        return None;
    }
    read(&serde_json::from_str(text).ok()?)
}

/// The shape that the API shows: maps keyed by identifier, each with its data type.
fn shown(object: &Map<String, Value>) -> Result<(ObjectName, Model), String> {
    let name = text_of(object, "modelId")?;
    let elements = Elements {
        points: "measurepoints",
        attributes: "attributes",
        events: "events",
        description: "desc",
    };
    model(&name, object, &elements)
}

/// The file that the console exports: types stand in `$class` alone.
fn exported(object: &Map<String, Value>) -> Result<(ObjectName, Model), String> {
    let name = text_of(object, "thingModelId")?;
    let elements = Elements {
        points: "thingMeasurepointMap",
        attributes: "thingAttributeMap",
        events: "thingEventMap",
        description: "thingModelDesc",
    };
    model(&name, object, &elements)
}

/// The shape of lists: elements name themselves, and their types hold what composes them.
fn listed(object: &Map<String, Value>) -> Result<(ObjectName, Model), String> {
    let profile = object
        .get("profile")
        .and_then(|profile| profile.get("productKey"));
    let candidates = [
        object.get("modelId"),
        object.get("identifier"),
        profile,
        object.get("name"),
    ];
    let name = candidates.into_iter().flatten().find_map(told);
    let name =
        name.ok_or("the model has neither modelId, identifier, profile.productKey nor name")?;
    let elements = Elements {
        points: "properties",
        attributes: "attributes",
        events: "events",
        description: "desc",
    };
    model(name, object, &elements)
}

/// What a shape calls its parts.
struct Elements {
    points: &'static str,
    attributes: &'static str,
    events: &'static str,
    description: &'static str,
}

fn model(
    name: &str,
    object: &Map<String, Value>,
    elements: &Elements,
) -> Result<(ObjectName, Model), String> {
    let name = ObjectName::new(name).map_err(|error| format!("the model's id: {error}"))?;
    let mut file = Map::new();
    if let Some(description) = object.get(elements.description).and_then(told) {
        file.insert("description".into(), json!(description));
    }
    let mut points = Map::new();
    for (id, point) in named(object.get(elements.points))? {
        let point = element(id, point, Part::Point)?;
        points.insert(id.to_owned(), json!(point));
    }
    let mut attributes = Map::new();
    for (id, attribute) in named(object.get(elements.attributes))? {
        let attribute = element(id, attribute, Part::Other)?;
        attributes.insert(id.to_owned(), json!(attribute));
    }
    let mut events = Map::new();
    for (id, event) in named(object.get(elements.events))? {
        events.insert(id.to_owned(), read_event(id, event)?);
    }
    file.insert("measurepoints".into(), points.into());
    file.insert("attributes".into(), attributes.into());
    file.insert("events".into(), events.into());
    let model = serde_json::from_value(Value::Object(file)).map_err(|error| error.to_string())?;
    Ok((name, model))
}

fn read_event(id: &str, event: &Value) -> Result<Value, String> {
    let kind = event
        .get("eventType")
        .or_else(|| event.get("type"))
        .and_then(Value::as_str)
        .unwrap_or("INFO");
    let level = match kind.to_ascii_lowercase().as_str() {
        "warn" | "warning" | "alert" => Level::Warn,
        "error" | "fault" => Level::Error,
        _ => Level::Info,
    };
    let mut output = Map::new();
    let data = event.get("outputData").filter(|data| !data.is_null());
    for (name, member) in named(data).map_err(|why| format!("event {id}: {why}"))? {
        let member =
            element(name, member, Part::Other).map_err(|why| format!("event {id}: {why}"))?;
        output.insert(name.to_owned(), json!(member));
    }
    let mut read = json!({ "level": level, "output": output });
    if let Some(description) = described(event) {
        read["description"] = json!(description);
    }
    Ok(read)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Point,
    Other,
}

/// Elements by identifier: a map, or a list of objects that name themselves.
fn named(value: Option<&Value>) -> Result<Vec<(&str, &Value)>, String> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        // The export puts a mark of its class into its maps.
        Some(Value::Object(map)) => Ok(map
            .iter()
            .filter(|(id, element)| *id != "$class" && element.is_object())
            .map(|(id, element)| (id.as_str(), element))
            .collect()),
        Some(Value::Array(list)) => list
            .iter()
            .map(|element| {
                let id = element.get("identifier").and_then(Value::as_str);
                let id = id.ok_or("an element has no identifier")?;
                Ok((id, element))
            })
            .collect(),
        Some(_) => Err("elements are neither a map nor a list".to_owned()),
    }
}

fn element(id: &str, element: &Value, part: Part) -> Result<ElementFile, String> {
    let mut file = data_type(id, element)?;
    file.unit = unit(element);
    file.description = described(element);
    if part == Part::Point {
        file.signal = match element.get("signalType").and_then(Value::as_str) {
            Some("AI") => Some(Signal::Analogue),
            Some("DI") => Some(Signal::Digital),
            Some("PI") => Some(Signal::Pulse),
            Some(generic) if generic.eq_ignore_ascii_case("generic") => Some(Signal::Generic),
            // UNKNOWN is seen too.
            Some(_) | None => None,
        };
        let is_number = ["int", "long", "float", "double"].contains(&file.type_word.as_str());
        let has_quality = element.get("hasQuality").and_then(Value::as_bool) == Some(true);
        file.quality = has_quality && is_number;
    }
    Ok(file)
}

/// The type of an element: its word, and what a composed one is composed of.
fn data_type(id: &str, element: &Value) -> Result<ElementFile, String> {
    let word = word_of(element).ok_or_else(|| format!("{id} has no data type"))?;
    let definition = definition(element);
    let detail = |names: &[&str]| {
        let find = |of: &'_ Value| {
            names
                .iter()
                .find_map(|name| of.get(name).filter(|v| !v.is_null()).cloned())
        };
        find(&definition).or_else(|| find(element))
    };
    let mut file = ElementFile {
        type_word: word.to_ascii_lowercase(),
        ..ElementFile::default()
    };
    match file.type_word.as_str() {
        "int" | "integer" | "int32" | "short" | "byte" => file.type_word = "int".into(),
        "long" | "int64" => file.type_word = "long".into(),
        "bool" | "boolean" => file.type_word = "bool".into(),
        "float" | "double" | "timestamp" | "date" | "file" | "map" => {}
        "datetime" | "localdatetime" => file.type_word = "datetime".into(),
        "object" => file.type_word = "map".into(),
        "string" | "text" => {
            file.type_word = "string".into();
            let length = detail(&["maxLength", "length"]);
            let length =
                length.and_then(|length| length.as_u64().or_else(|| length.as_str()?.parse().ok()));
            file.max_length = length
                .and_then(|length| usize::try_from(length).ok())
                .filter(|length| *length > 0);
        }
        "enum" => {
            let values = detail(&["enumDesc", "enumMap", "values"]);
            // In lists the definition itself is the map of values.
            let is_told = |values: &Value| {
                values
                    .as_object()
                    .is_some_and(|all| all.values().all(Value::is_string))
            };
            let values = values.or_else(|| Some(definition.clone()).filter(is_told));
            let values = values.as_ref().and_then(Value::as_object);
            let values = values.filter(|values| !values.is_empty());
            // Which values there are may stand nowhere: then any number is taken.
            match values {
                None => file.type_word = "int".into(),
                Some(values) => {
                    let text = |(value, told_as): (&String, &Value)| {
                        (value.clone(), told(told_as).unwrap_or(value).to_owned())
                    };
                    file.values = Some(values.iter().map(text).collect());
                }
            }
        }
        "array" => {
            let item = detail(&["itemType", "item", "elementType"]);
            let word = item
                .as_ref()
                .and_then(|item| item.as_str().or_else(|| word_of(item)));
            file.items = Some(item_type(id, word.unwrap_or("double"))?);
        }
        "struct" => {
            let members = match definition.is_array() {
                true => Some(definition.clone()),
                false => detail(&["items", "members", "structItems"]),
            };
            let members = named(members.as_ref()).map_err(|why| format!("{id}: {why}"))?;
            if members.is_empty() {
                // Which members there are may stand nowhere: then any object is taken.
                file.type_word = "map".into();
            } else {
                let mut files = std::collections::BTreeMap::new();
                for (name, member) in members {
                    let name = backtide_model::ElementName::new(name)
                        .map_err(|error| format!("{id}: {error}"))?;
                    files.insert(name.clone(), data_type(name.as_str(), member)?);
                }
                file.members = Some(files);
            }
        }
        other => {
            return Err(format!(
                "{id} is of data type {other:?}, which is not known here"
            ));
        }
    }
    Ok(file)
}

fn item_type(id: &str, word: &str) -> Result<ItemType, String> {
    let word = match word.to_ascii_lowercase().as_str() {
        "integer" | "int32" => "int".to_owned(),
        "int64" => "long".to_owned(),
        "text" => "string".to_owned(),
        word => word.to_owned(),
    };
    serde_json::from_value(json!(word))
        .map_err(|_| format!("{id} is an array of {word:?}, which is not known here"))
}

/// The word of a data type: told as one, or within an object, or hidden in the name of a class such as
/// `….measurepoint.TSLDoubleMeasurepoint`.
fn word_of(element: &Value) -> Option<&str> {
    let given = element.get("dataType").filter(|given| !given.is_null());
    let told = given.and_then(|given| given.as_str().or_else(|| given.get("type")?.as_str()));
    told.or_else(|| element.get("type").and_then(Value::as_str))
        .or_else(|| class_word(element.get("$class")?.as_str()?))
        .or_else(|| class_word(given?.get("$class")?.as_str()?))
}

fn class_word(class: &str) -> Option<&str> {
    let name = class.rsplit('.').next()?.strip_prefix("TSL")?;
    let word = [
        "Measurepoint",
        "Attribute",
        "Datapoint",
        "DataPoint",
        "Point",
    ]
    .into_iter()
    .find_map(|ending| name.strip_suffix(ending))
    .unwrap_or(name);
    (!word.is_empty()).then_some(word)
}

/// What further describes a type: an object, or its JSON as a text.
fn definition(element: &Value) -> Value {
    let inner = || element.get("dataType").filter(|inner| inner.is_object());
    let given = element
        .get("dataDefinition")
        .or_else(|| inner()?.get("specs"))
        .or_else(inner);
    match given {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        Some(other) => other.clone(),
        None => Value::Null,
    }
}

fn unit(element: &Value) -> Option<String> {
    let definition = definition(element);
    let unit = element.get("unit").or_else(|| definition.get("unit"))?;
    let told = unit.as_str().or_else(|| {
        let id = unit.get("unitId").or_else(|| unit.get("id"))?;
        id.as_str()
    });
    told.map(str::trim)
        .filter(|unit| !unit.is_empty())
        .map(ToOwned::to_owned)
}

fn described(element: &Value) -> Option<String> {
    let told_as = |name: &str| element.get(name).and_then(told).map(ToOwned::to_owned);
    told_as("desc")
        .or_else(|| told_as("i18nDesc"))
        .or_else(|| told_as("name"))
}

/// A text, or the default of a text in several languages.
fn told(value: &Value) -> Option<&str> {
    let text = value
        .as_str()
        .or_else(|| value.get("defaultValue")?.as_str())?;
    let text = text.trim();
    (!text.is_empty()).then_some(text)
}

fn text_of(object: &Map<String, Value>, name: &str) -> Result<String, String> {
    object
        .get(name)
        .and_then(told)
        .map(ToOwned::to_owned)
        .ok_or_else(|| format!("{name} is no text"))
}

/// A model of ours as the vendor's API shows one.
pub fn api_view(name: &str, model: &Model, organization: &str) -> Map<String, Value> {
    let texts =
        |text: Option<&str>| json!({ "defaultValue": text.unwrap_or_default(), "i18nValue": {} });
    let view_of = |id: &str, file: &ElementFile| {
        let mut view = type_view(file);
        view["identifier"] = json!(id);
        view["name"] = texts(Some(id));
        view["desc"] = texts(file.description.as_deref());
        view["tags"] = json!({});
        let unit = file.unit.as_ref();
        view["unit"] = unit.map_or(
            Value::Null,
            |unit| json!({ "unitId": unit, "multiplier": null }),
        );
        view
    };
    let points: Map<String, Value> = model
        .measurepoints
        .iter()
        .map(|(id, point)| {
            let file = ElementFile::from(point.clone());
            let mut view = view_of(id.as_str(), &file);
            view["signalType"] =
                json!(file.signal.map_or("Generic".into(), |signal| json!(signal)));
            if file.signal.is_none() {
                view["signalType"] = json!("UNKNOWN");
            }
            view["hasQuality"] = json!(file.quality);
            (id.to_string(), view)
        })
        .collect();
    let attributes: Map<String, Value> = model
        .attributes
        .iter()
        .map(|(id, attribute)| {
            let mut view = view_of(id.as_str(), &ElementFile::from(attribute.clone()));
            view["isRequired"] = json!(false);
            view["defaultValue"] = Value::Null;
            (id.to_string(), view)
        })
        .collect();
    let events: Map<String, Value> = model
        .events
        .iter()
        .map(|(id, event)| {
            let output = event.output.iter();
            let output: Vec<_> = output
                .map(|(id, member)| view_of(id.as_str(), &ElementFile::from(member.clone())))
                .collect();
            let kind = match event.level {
                Level::Info => "INFO",
                Level::Warn => "WARN",
                Level::Error => "ERROR",
            };
            let view = json!({
                "identifier": id, "name": texts(Some(id.as_str())), "tags": {},
                "desc": texts(event.description.as_deref()), "eventType": kind, "outputData": output,
            });
            (id.to_string(), view)
        })
        .collect();
    let view = json!({
        "modelId": name, "modelIdPath": format!("/{name}"), "orgId": organization,
        "name": texts(Some(name)), "desc": texts(model.description.as_deref()), "category": "", "tags": {},
        "attributes": attributes, "measurepoints": points, "services": {}, "events": events,
    });
    match view {
        Value::Object(view) => view,
        _ => Map::new(),
    }
}

/// The type of an element, with what composes it as JSON text.
fn type_view(file: &ElementFile) -> Value {
    let definition = match file.type_word.as_str() {
        "enum" => json!({ "enumDesc": file.values }),
        "string" => json!({ "maxLength": file.max_length }),
        "array" => json!({ "itemType": file.items }),
        "struct" => {
            let members = file.members.iter().flatten();
            let members: Vec<_> = members
                .map(|(id, member)| {
                    let mut view = type_view(member);
                    view["identifier"] = json!(id);
                    view
                })
                .collect();
            json!({ "items": members })
        }
        _ => Value::Null,
    };
    let mut view = json!({ "dataType": file.type_word.to_ascii_uppercase() });
    if !definition.is_null() {
        view["dataDefinition"] = json!(definition.to_string());
    }
    view
}

#[cfg(test)]
mod tests {
    use backtide_model::{DataType, ElementName};

    use super::*;

    fn name(text: &str) -> ElementName {
        ElementName::new(text).unwrap()
    }

    #[test]
    fn the_shape_of_the_api_is_read() {
        let (id, model) = read(&json!({ "code": 0, "data": {
            "modelId": "turbine", "modelIdPath": "/turbine", "desc": "A turbine",
            "measurepoints": {
                "P_avg": { "identifier": "P_avg", "dataType": "DOUBLE", "signalType": "AI", "hasQuality": true,
                    "unit": { "unitId": "kW", "multiplier": "1" }, "name": { "defaultValue": "Power" } },
                "state": { "identifier": "state", "dataType": "ENUM", "signalType": "DI",
                    "dataDefinition": "{\"enumDesc\":{\"0\":{\"defaultValue\":\"off\"},\"1\":\"on\"}}" },
                "loose": { "identifier": "loose", "dataType": "STRUCT", "signalType": "UNKNOWN" },
            },
            "attributes": { "serial": { "identifier": "serial", "dataType": "STRING", "unit": null } },
            "events": { "alarm": { "eventType": "ERROR", "outputData": [{ "identifier": "code", "dataType": "INT" }] } },
            "services": { "stop": {} },
        }})).unwrap().unwrap();
        assert_eq!(id.as_str(), "turbine");
        let power = &model.measurepoints[&name("P_avg")];
        assert_eq!((&power.data_type, power.quality), (&DataType::Double, true));
        assert_eq!(
            (power.signal, power.unit.as_deref()),
            (Some(Signal::Analogue), Some("kW"))
        );
        assert_eq!(power.description.as_deref(), Some("Power"));
        assert!(
            matches!(&model.measurepoints[&name("state")].data_type, DataType::EnumInt(v) if v.len() == 2)
        );
        assert_eq!(model.measurepoints[&name("loose")].data_type, DataType::Map);
        let alarm = &model.events[&name("alarm")];
        assert_eq!((alarm.level, alarm.output.len()), (Level::Error, 1));
    }

    #[test]
    fn the_file_of_the_console_is_read_with_its_byte_order_mark() {
        let class =
            |kind: &str| format!("com.envision.tsl.model.measurepoint.TSL{kind}Measurepoint");
        let file = json!({
            "thingModelId": "SmartBattery", "ou": "o1", "thingModelName": { "defaultValue": "Battery" },
            "thingModelDesc": { "defaultValue": "A battery" }, "thingModelCatagory": "",
            "thingMeasurepointMap": {
                "temp": { "$class": class("Double"), "identifier": "temp", "signalType": "AI", "hasQuality": false,
                    "unit": { "unitId": "C" }, "minimum": -40, "required": false },
                "cycles": { "$class": class("Int"), "identifier": "cycles", "signalType": "PI" },
            },
            "thingAttributeMap": { "mass": { "$class": "x.attribute.TSLFloatAttribute", "identifier": "mass" } },
            "thingServiceMap": {}, "thingEventMap": {}, "tag": { "tagMap": {} },
        });
        let (id, model) = read_text(&format!("\u{feff}{file}")).unwrap().unwrap();
        assert_eq!(
            (id.as_str(), model.description.as_deref()),
            ("SmartBattery", Some("A battery"))
        );
        assert_eq!(
            model.measurepoints[&name("temp")].data_type,
            DataType::Double
        );
        assert_eq!(
            model.measurepoints[&name("cycles")].signal,
            Some(Signal::Pulse)
        );
        assert_eq!(model.attributes[&name("mass")].data_type, DataType::Float);
    }

    #[test]
    fn the_shape_of_lists_is_read() {
        let (id, model) = read(&json!({ "profile": { "productKey": "thermo" }, "properties": [
            { "identifier": "temperature", "dataType": { "type": "double", "specs": { "unit": "°C" } } },
            { "identifier": "mode", "dataType": { "type": "enum", "specs": { "0": "heat", "1": "cool" } } },
            { "identifier": "text", "dataType": { "type": "text", "specs": { "length": "64" } } },
            { "identifier": "pos", "dataType": { "type": "struct", "specs": [
                { "identifier": "x", "dataType": { "type": "int" } } ] } },
            { "identifier": "row", "dataType": { "type": "array", "specs": { "item": { "type": "float" } } } },
        ], "events": [ { "identifier": "hot", "type": "alert", "outputData": [] } ] }))
        .unwrap()
        .unwrap();
        assert_eq!(id.as_str(), "thermo");
        assert_eq!(
            model.measurepoints[&name("temperature")].unit.as_deref(),
            Some("°C")
        );
        assert!(
            matches!(&model.measurepoints[&name("mode")].data_type, DataType::EnumInt(v) if v[&1] == "cool")
        );
        assert_eq!(
            model.measurepoints[&name("text")].data_type,
            DataType::String { bytes_max: 64 }
        );
        assert!(
            matches!(&model.measurepoints[&name("pos")].data_type, DataType::Struct(m) if m.len() == 1)
        );
        assert!(matches!(
            &model.measurepoints[&name("row")].data_type,
            DataType::Array {
                items: ItemType::Float,
                ..
            }
        ));
        assert_eq!(model.events[&name("hot")].level, Level::Warn);
    }

    #[test]
    fn what_would_change_its_meaning_is_refused_and_what_is_no_model_is_not_taken_for_one() {
        let of =
            |kind: &str| json!({ "modelId": "m", "measurepoints": { "p": { "dataType": kind } } });
        let error = read(&of("QUATERNION")).unwrap().unwrap_err();
        assert!(error.contains("p is of data type"), "{error}");
        assert!(
            read(&json!({ "modelId": "a b", "events": {} }))
                .unwrap()
                .is_err()
        );
        for other in [
            json!({ "kind": "Model", "name": "m" }),
            json!([]),
            json!({ "modelId": "m" }),
        ] {
            assert!(read(&other).is_none());
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        let declared = json!({
            "description": "d",
            "measurepoints": {
                "a": { "type": "double", "unit": "kW", "signal": "AI", "quality": true, "description": "a" },
                "b": { "type": "enum", "values": { "0": "off", "1": "on" }, "description": "b" },
                "c": { "type": "struct", "members": { "x": { "type": "int" } }, "description": "c" },
                "d": { "type": "array", "items": "int", "description": "d" },
            },
            "events": { "e": { "level": "warn", "description": "e", "output":
                { "code": { "type": "int", "description": "f" } } } },
            "attributes": { "s": { "type": "string", "maxLength": 20, "description": "g" } },
        });
        let model: Model = serde_json::from_value(declared).unwrap();
        let view = api_view("m", &model, "o1");
        assert_eq!(
            read(&Value::Object(view)).unwrap().unwrap(),
            (ObjectName::new("m").unwrap(), model)
        );
    }
}
