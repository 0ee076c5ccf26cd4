//! `/connect-service/v2.1/integration`: what arrives over HTTP goes the way of what arrives over MQTT,
//! through a channel of its product: judged, stored or put into quarantine, and then answered.
//!
//! The channel is the one that the access key names for the product, or else the only one of the
//! product that is not paused. Items of several products are a message for each.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use axum::http::StatusCode;
use backtide_model::{ChannelName, Code, Items};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Answering,
    answer::{Data, Refusal, SERVICE},
    call::Call,
    lenient,
};
use crate::{
    http::Api,
    limits::PAYLOAD_BYTES_MAX,
    registry::{AccessKey, Product, Snapshot},
};

const MESSAGE: &str = "enos-message";
/// The part of the 2018 API.
const LEGACY_MESSAGE: &str = "data";

/// A message for a channel.
#[derive(Debug, Clone)]
pub struct Posted {
    pub channel: ChannelName,
    /// Who sends it, as the channel's log names it.
    pub client: Arc<str>,
    pub topic: String,
    /// An envelope, as MQTT takes it.
    pub payload: Bytes,
}

/// What became of a message. It is durable.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub code: Code,
    /// The reply that a client of MQTT would get.
    pub reply: Bytes,
}

/// Takes messages into the house: an error says why a message is not taken, and nothing of it is kept.
pub type Integrate = Box<
    dyn Fn(Posted) -> Pin<Box<dyn Future<Output = Result<Verdict, String>> + Send>> + Send + Sync,
>;

pub(super) fn points(api: Arc<Api>, call: Call) -> Answering {
    Box::pin(post(api, call, Items::Points))
}

pub(super) fn events(api: Arc<Api>, call: Call) -> Answering {
    Box::pin(post(api, call, Items::Events))
}

pub(super) fn attributes(api: Arc<Api>, call: Call) -> Answering {
    Box::pin(post(api, call, Items::Attributes))
}

pub(super) fn legacy_points(api: Arc<Api>, call: Call) -> Answering {
    Box::pin(async move {
        let sender = Sender::of(&api, &call)?;
        let text = message(&call, LEGACY_MESSAGE)?;
        let product = call.params.required("productKey")?;
        let params = lenient::strict(text).map_err(|error| malformed(&error.to_string()))?;
        let params: Vec<&RawValue> = serde_json::from_str(&params)
            .map_err(|error| malformed(&format!("data is no array of items: {error}")))?;
        let fields = Fields {
            id: None,
            version: None,
            method: None,
        };
        let messages = by_product(&sender, &params, Some(product), Items::Points, &fields)?;
        deliver(&api, &sender, messages).await
    })
}

async fn post(api: Arc<Api>, call: Call, items: Items) -> Result<Data, Refusal> {
    let sender = Sender::of(&api, &call)?;
    let text = message(&call, MESSAGE)?;
    let messages = {
        let strict = match lenient::strict(text) {
            Ok(strict) => strict,
            Err(error) => return unreadable(&api, &sender, items, text, &error.to_string()).await,
        };
        let message: Message<'_> = match serde_json::from_str(&strict) {
            Ok(message) => message,
            Err(error) => return unreadable(&api, &sender, items, text, &error.to_string()).await,
        };
        message.refuse_what_is_not_taken()?;
        let fields = Fields {
            id: message.id,
            version: message.version,
            method: message.method,
        };
        by_product(&sender, &message.params, None, items, &fields)?
    };
    deliver(&api, &sender, messages).await
}

/// The access key that posts, and what is declared now.
struct Sender {
    key: Arc<AccessKey>,
    snapshot: Arc<Snapshot>,
}

impl Sender {
    fn of(api: &Api, call: &Call) -> Result<Self, Refusal> {
        let key = call.key.clone();
        Ok(Self {
            key: key.ok_or_else(|| Refusal::bad("no access key"))?,
            snapshot: api.registry.snapshot(),
        })
    }

    fn client(&self) -> Arc<str> {
        format!("http:{}", self.key.name).into()
    }

    fn may_use(&self, channel: &ChannelName) -> bool {
        self.key.channels.is_empty() || self.key.channels.contains(channel)
    }

    /// The channel that messages for a product go through.
    fn channel(&self, product: &Product) -> Result<ChannelName, Refusal> {
        let mut open = product
            .enabled_channels()
            .filter(|channel| self.may_use(&channel.name));
        match (open.next(), open.next()) {
            (Some(only), None) => Ok(only.name.clone()),
            (None, _) => Err(Refusal::bad(format!(
                "product {} has no channel that access key {} may use and that is not paused; declare \
                 one, or name it among the key's channels",
                product.key, self.key.name
            ))),
            (Some(_), Some(_)) => Err(Refusal::bad(format!(
                "product {} has several channels; name the one to use among the channels of access key {}",
                product.key, self.key.name
            ))),
        }
    }

    /// The only product whose channels the key names: whose quarantine keeps what names no product.
    fn only_product(&self) -> Option<&Arc<Product>> {
        let mut products = self.key.channels.iter().filter_map(|channel| {
            let channel = self.snapshot.channel(channel.as_str())?;
            self.snapshot.product(channel.product.as_str())
        });
        let first = products.next()?;
        products
            .all(|other| other.key == first.key)
            .then_some(first)
    }
}

/// The text of a message. Its size is looked at before it is read.
fn message<'c>(call: &'c Call, name: &str) -> Result<&'c str, Refusal> {
    let has_file =
        |part: &&super::call::Part| part.is_file && part.name != name && !part.bytes.is_empty();
    if let Some(file) = call.parts.iter().find(has_file) {
        return Err(Refusal::bad(format!(
            "part {:?} is a file; files are not kept here, send values alone",
            file.name
        )));
    }
    let part = call.parts.iter().find(|part| part.name == name);
    let bytes = part.map(|part| &part.bytes[..]);
    let bytes = bytes.or_else(|| call.params.get(name).map(str::as_bytes));
    let bytes = bytes.ok_or_else(|| {
        Refusal::bad(format!(
            "part {name} is missing; send multipart/form-data with a part of that name"
        ))
    })?;
    if bytes.len() > PAYLOAD_BYTES_MAX {
        let number = Code::TooLarge.number();
        let message = format!(
            "the message has {} bytes, at most {PAYLOAD_BYTES_MAX} are taken; send it in parts. It is \
             not kept",
            bytes.len()
        );
        return Err(Refusal::new(number, message));
    }
    std::str::from_utf8(bytes)
        .map_err(|error| malformed(&format!("the message is not UTF-8: {error}")))
}

fn malformed(what: &str) -> Refusal {
    Refusal::new(
        Code::Malformed.number(),
        format!("{what}; nothing of it is kept, correct it and send it again"),
    )
}

/// A message that cannot be read names no product. Where the key's channels are of one product it
/// goes into that one's quarantine, like any other; else it is refused and not kept, and says so.
async fn unreadable(
    api: &Api,
    sender: &Sender,
    items: Items,
    text: &str,
    why: &str,
) -> Result<Data, Refusal> {
    let Some(product) = sender.only_product() else {
        return Err(malformed(why));
    };
    let message = Outgoing {
        channel: sender.channel(product)?,
        topic: topic(product, items),
        payload: Bytes::copy_from_slice(text.as_bytes()),
        indices: Vec::new(),
    };
    deliver(api, sender, vec![message]).await
}

/// A message as it arrives.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'m> {
    #[serde(borrow)]
    id: Option<&'m RawValue>,
    #[serde(borrow)]
    version: Option<&'m RawValue>,
    #[serde(borrow)]
    method: Option<&'m RawValue>,
    #[serde(borrow)]
    params: Vec<&'m RawValue>,
    is_realtime_integration: Option<Value>,
    files: Option<Value>,
}

/// The fields of an envelope beside its items.
struct Fields<'m> {
    id: Option<&'m RawValue>,
    version: Option<&'m RawValue>,
    method: Option<&'m RawValue>,
}

impl Message<'_> {
    fn refuse_what_is_not_taken(&self) -> Result<(), Refusal> {
        let is_realtime = match &self.is_realtime_integration {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => !text.eq_ignore_ascii_case("false"),
            Some(_) => true,
        };
        if is_realtime {
            return Err(Refusal::bad(
                "isRealtimeIntegration is true, and this gateway keeps history; send false. Nothing of \
                 the message is kept",
            ));
        }
        let has_files = match &self.files {
            None | Some(Value::Null) => false,
            Some(files) => files.as_object().is_none_or(|files| !files.is_empty()),
        };
        match has_files {
            true => Err(Refusal::bad("files are not kept here; send values alone")),
            false => Ok(()),
        }
    }
}

/// A message on its way to its channel.
struct Outgoing {
    channel: ChannelName,
    topic: String,
    payload: Bytes,
    /// Where its items stood in the request.
    indices: Vec<usize>,
}

fn topic(product: &Product, items: Items) -> String {
    let kind = match items {
        Items::Points => "measurepoint",
        Items::Events => "event",
        Items::Attributes => "attribute",
    };
    format!("/sys/{}/integration/{kind}/post", product.key)
}

/// Items of one product, with their places.
#[derive(Default)]
struct Group {
    items: Vec<String>,
    indices: Vec<usize>,
}

/// Sorts items by product, and names each device by its key: what a channel understands.
fn by_product(
    sender: &Sender,
    params: &[&RawValue],
    product_key: Option<&str>,
    items: Items,
    fields: &Fields<'_>,
) -> Result<Vec<Outgoing>, Refusal> {
    let named: Vec<Item> = params
        .iter()
        .map(|item| Item::read(item, product_key, &sender.snapshot))
        .collect();
    // An item whose product nobody knows is refused, and kept, beside the others of the message.
    let known = named.iter().find_map(|item| item.product.clone());
    let fallback = known.or_else(|| sender.only_product().map(|product| product.key.to_string()));
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (index, item) in named.into_iter().enumerate() {
        let Some(product) = item.product.or_else(|| fallback.clone()) else {
            return Err(Refusal::new(
                Code::UnknownDevice.number(),
                format!(
                    "params[{index}]: neither assetId nor productKey leads to a product here. Nothing of \
                     the message is kept; declare the device and send it again, or name a channel on \
                     access key {}, whose quarantine then keeps it",
                    sender.key.name
                ),
            ));
        };
        let group = groups.entry(product).or_default();
        group.items.push(item.text);
        group.indices.push(index);
    }
    if groups.is_empty()
        && let Some(product) = fallback
    {
        groups.insert(product, Group::default());
    }
    groups
        .into_iter()
        .map(|(product, group)| {
            let product = sender.snapshot.product_by_key(&product).ok_or_else(|| {
                let code = Code::UnknownDevice.number();
                Refusal::new(
                    code,
                    format!("product {product} is not declared; nothing is kept"),
                )
            })?;
            Ok(Outgoing {
                channel: sender.channel(product)?,
                topic: topic(product, items),
                payload: envelope(fields, items, &group.items).into(),
                indices: group.indices,
            })
        })
        .collect()
}

fn envelope(fields: &Fields<'_>, items: Items, params: &[String]) -> String {
    let method = format!("\"{}\"", items.method());
    let or = |field: Option<&RawValue>, default: &str| {
        field.map_or_else(|| default.to_owned(), |field| field.get().to_owned())
    };
    format!(
        "{{\"id\":{},\"version\":{},\"method\":{},\"params\":[{}]}}",
        or(fields.id, "\"\""),
        or(fields.version, "\"1.0\""),
        or(fields.method, &method),
        params.join(",")
    )
}

/// An item, with the product that it is for.
struct Item {
    /// The key of a product, declared or not.
    product: Option<String>,
    /// JSON, its device named by key alone.
    text: String,
}

impl Item {
    fn read(item: &RawValue, product_key: Option<&str>, snapshot: &Snapshot) -> Self {
        let as_it_is = || Self {
            product: product_key.map(ToOwned::to_owned),
            text: item.get().to_owned(),
        };
        let Ok(mut members) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(item.get())
        else {
            return as_it_is();
        };
        let mut taken = |name: &str| members.remove(name).and_then(|value| id_text(&value));
        let (asset, own_product, device) =
            (taken("assetId"), taken("productKey"), taken("deviceKey"));
        let by_asset = asset.as_deref().and_then(|id| snapshot.asset(id));
        let (product, device) = match (
            by_asset,
            own_product.or_else(|| product_key.map(ToOwned::to_owned)),
        ) {
            (Some((product, device)), None) => {
                (Some(product.key.to_string()), Some(device.key.to_string()))
            }
            // An asset of another product than the one that is named is none of its devices.
            (Some((product, device)), Some(named)) if *named == *product.key.as_str() => {
                (Some(named), Some(device.key.to_string()))
            }
            (_, Some(named)) => (Some(named), device.or(asset)),
            (None, None) => {
                let mut owners = device.iter().flat_map(|key| snapshot.devices_of_key(key));
                let only = match (owners.next(), owners.next()) {
                    (Some((product, _)), None) => Some(product.key.to_string()),
                    (None, _) | (Some(_), Some(_)) => None,
                };
                drop(owners);
                (only, device.or(asset))
            }
        };
        let mut text = String::from("{");
        if let Some(device) = device {
            text.push_str(&format!("\"deviceKey\":{}", json!(device)));
        }
        for (name, value) in &members {
            let comma = if text.len() > 1 { "," } else { "" };
            text.push_str(&format!("{comma}{}:{value}", json!(name)));
        }
        text.push('}');
        Self { product, text }
    }
}

/// An id, written as a text or as a number.
fn id_text(value: &RawValue) -> Option<String> {
    match serde_json::from_str(value.get()).ok()? {
        Value::String(text) => Some(text),
        Value::Number(_) => Some(value.get().to_owned()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What a reply says beside its code.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Reply {
    message: Option<String>,
    data: ReplyData,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ReplyData {
    stored: u64,
    rejected: Vec<serde_json::Map<String, Value>>,
    more: u64,
    receipt: Option<String>,
}

/// Sends each message through its channel, one after the other. The first refusal is the code of the
/// answer; what it says of items counts them as the request does.
async fn deliver(api: &Api, sender: &Sender, messages: Vec<Outgoing>) -> Result<Data, Refusal> {
    let mut refused: Option<(Code, String)> = None;
    let (mut stored, mut more) = (0, 0);
    let (mut rejected, mut receipts) = (Vec::new(), Vec::new());
    for (done, message) in messages.into_iter().enumerate() {
        let indices = message.indices;
        let posted = Posted {
            channel: message.channel,
            client: sender.client(),
            topic: message.topic,
            payload: message.payload,
        };
        let verdict = (api.integrate)(posted).await.map_err(|why| {
            let so_far = match done {
                0 => "nothing of it is kept".to_owned(),
                done => format!(
                    "{done} of its products are stored already; storing them again is harmless"
                ),
            };
            Refusal::new(SERVICE, format!("{why}; {so_far}, send it again"))
                .with_status(StatusCode::SERVICE_UNAVAILABLE)
        })?;
        let reply: Reply = serde_json::from_slice(&verdict.reply).unwrap_or_default();
        if verdict.code == Code::Ok {
            stored += u64::try_from(indices.len()).unwrap_or(u64::MAX);
            continue;
        }
        stored += reply.data.stored;
        more += reply.data.more;
        receipts.extend(reply.data.receipt);
        rejected.extend(reply.data.rejected.into_iter().map(|mut item| {
            let own = item.get("index").and_then(Value::as_u64);
            let own = own.and_then(|own| indices.get(usize::try_from(own).ok()?));
            if let Some(index) = own {
                item.insert("index".to_owned(), json!(index));
            }
            item
        }));
        refused.get_or_insert_with(|| (verdict.code, reply.message.unwrap_or_default()));
    }
    let Some((code, message)) = refused else {
        return Ok(Data::of(&json!({ "uriInfoList": [] })));
    };
    let mut refusal = Refusal::new(code.number(), message);
    let data = json!({
        "uriInfoList": [], "stored": stored, "rejected": rejected, "more": more, "receipts": receipts,
    });
    refusal.data = Some(data.to_string());
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str, product: Option<&str>) -> (Option<String>, Value) {
        let raw = RawValue::from_string(text.to_owned()).unwrap();
        let item = Item::read(&raw, product, &Snapshot::default());
        (item.product, serde_json::from_str(&item.text).unwrap())
    }

    #[test]
    fn an_item_names_its_device_by_key_and_keeps_its_digits() {
        let (product, read) = item(
            r#"{"productKey":"p","deviceKey":7,"time":1,"measurepoints":{"a":1.10}}"#,
            None,
        );
        assert_eq!(product.as_deref(), Some("p"));
        assert_eq!(read["deviceKey"], "7");
        let raw = RawValue::from_string(r#"{"deviceKey":"d","v":1.10}"#.to_owned()).unwrap();
        assert!(
            Item::read(&raw, Some("p"), &Snapshot::default())
                .text
                .contains("1.10")
        );
        // An asset that nobody knows stays visible in what is refused.
        assert_eq!(
            item(r#"{"assetId":"gone"}"#, Some("p")).1["deviceKey"],
            "gone"
        );
        assert_eq!(item("[1]", Some("p")).1, json!([1]));
    }
}
