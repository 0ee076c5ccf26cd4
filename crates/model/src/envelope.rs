//! The envelope around every JSON request (`mqtt-channel.md` §3.1).

use crate::{
    Code, Items, Kind, Mode,
    types::{each_field, shown},
};

/// Bytes of an `id`, as JSON text, that are echoed.
const ID_BYTES_MAX: usize = 256;

/// An opened envelope: `params` is valid JSON and an array; its items are not looked at yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub id: MessageId<'a>,
    pub items: Items,
    /// The array as JSON text.
    pub params: &'a str,
}

/// The `id` of a request as JSON text, so that the reply echoes its value and its type. `""` where
/// it is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId<'a>(&'a str);

impl MessageId<'_> {
    pub const ABSENT: MessageId<'static> = MessageId("\"\"");

    /// JSON text.
    pub fn as_json(&self) -> &str {
        self.0
    }
}

/// Why a request as a whole is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault<'a> {
    /// As far as it could be read.
    pub id: MessageId<'a>,
    pub code: Code,
    /// What, where, how to fix.
    pub message: String,
}

#[derive(Default)]
struct Fields<'a> {
    id: Option<&'a str>,
    version: Option<&'a str>,
    method: Option<&'a str>,
    params: Option<&'a str>,
}

/// Opens a payload that was published to a topic of `kind`; for [`Kind::Raw`] what the product's
/// script made of it, whose `method` says what its items are (§5.2). Checks the envelope's own fields
/// in the order of `mqtt-channel.md` §4.2.
pub fn open(payload: &[u8], kind: Kind, mode: Mode) -> Result<Envelope<'_>, Fault<'_>> {
    let absent = MessageId::ABSENT;
    let malformed = |id, message| Fault {
        id,
        code: Code::Malformed,
        message,
    };
    if payload.is_empty() {
        let message = "the payload is empty; send one JSON object".to_owned();
        return Err(Fault {
            id: absent,
            code: Code::Empty,
            message,
        });
    }
    let text = std::str::from_utf8(payload).map_err(|error| {
        malformed(
            absent,
            format!("the payload is not UTF-8 from byte {}", error.valid_up_to()),
        )
    })?;
    let fields = fields(text.trim()).map_err(|message| malformed(absent, message))?;
    let id = match fields.id {
        None => absent,
        Some(id) if id.len() <= ID_BYTES_MAX => MessageId(id),
        Some(id) => {
            let message = format!(
                "id has {} bytes of JSON, at most {ID_BYTES_MAX} are echoed",
                id.len()
            );
            return Err(malformed(absent, message));
        }
    };
    check_types(&fields, mode).map_err(|message| malformed(id, message))?;
    let items = read_method(fields.method, kind);
    let items = items.map_err(|(code, message)| Fault { id, code, message })?;
    match fields.params {
        Some(params) => Ok(Envelope { id, items, params }),
        None => Err(malformed(
            id,
            "params is absent; send an array of items".to_owned(),
        )),
    }
}

fn fields(text: &str) -> Result<Fields<'_>, String> {
    let mut fields = Fields::default();
    // The same key twice: the last one counts.
    let outcome = each_field(text, |name, value| match name.as_ref() {
        "id" => fields.id = Some(value),
        "version" => fields.version = Some(value),
        "method" => fields.method = Some(value),
        "params" => fields.params = Some(value),
        _ => {}
    });
    match outcome {
        Some(Ok(())) => Ok(fields),
        Some(Err(error)) => Err(format!("the payload is not valid JSON: {error}")),
        None => Err(format!(
            "the payload is not a JSON object but begins {}",
            shown(text)
        )),
    }
}

fn check_types(fields: &Fields<'_>, mode: Mode) -> Result<(), String> {
    match fields.version {
        None if mode == Mode::Strict => {
            return Err("version is absent; send \"version\":\"1.0\"".to_owned());
        }
        Some(version) if !version.starts_with('"') => {
            return Err(format!("version is {}, not a string", shown(version)));
        }
        _ => {}
    }
    if let Some(method) = fields.method.filter(|method| !method.starts_with('"')) {
        return Err(format!("method is {}, not a string", shown(method)));
    }
    if let Some(params) = fields.params.filter(|params| !params.starts_with('[')) {
        return Err(format!(
            "params is {}, not an array of items",
            shown(params)
        ));
    }
    Ok(())
}

fn read_method(method: Option<&str>, kind: Kind) -> Result<Items, (Code, String)> {
    let due = match kind.items() {
        Some(due) => format!("{:?}", due.method()),
        None => "the method of its items, such as \"integration.measurepoint.post\"".to_owned(),
    };
    let Some(method) = method else {
        return Err((Code::UnknownMethod, format!("method is absent; send {due}")));
    };
    let name = method.trim_matches('"');
    let found = Items::ALL.into_iter().find(|items| items.method() == name);
    match (found, kind.items()) {
        (Some(found), None) => Ok(found),
        (Some(found), Some(items)) if found == items => Ok(found),
        (Some(_), Some(_)) => Err((
            Code::MethodMismatch,
            format!("method {method} does not fit the topic; it takes {due}"),
        )),
        // A script written for the session of a device (mqtt-channel.md §5.2).
        (None, None) if name.starts_with("thing.") => Err((
            Code::MethodMismatch,
            format!("method {method} names no device; the script must return {due}"),
        )),
        (None, _) => Err((
            Code::UnknownMethod,
            format!("method {} is unknown; send {due}", shown(method)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points(payload: &str) -> Result<Envelope<'_>, Fault<'_>> {
        open(payload.as_bytes(), Kind::Points, Mode::Strict)
    }

    #[test]
    fn an_envelope_opens_and_its_id_keeps_value_and_type() {
        for id in ["\"41\"", "41", "null", "\"\\u0061\"", "1.50"] {
            let payload = format!(
                " {{\"id\": {id} ,\"version\":\"1.1\",\"params\":[ ],\
                 \"method\":\"integration.measurepoint.post\",\"extra\":{{}}}}\n"
            );
            let envelope = points(&payload).unwrap();
            assert_eq!(envelope.id.as_json(), id);
            assert_eq!(envelope.params, "[ ]");
        }
    }

    #[test]
    fn each_fault_has_its_code_in_the_documented_order() {
        let good = "\"version\":\"1.0\",\"method\":\"integration.measurepoint.post\"";
        for (payload, code, id) in [
            (String::new(), Code::Empty, "\"\""),
            ("\u{feff}{}".into(), Code::Malformed, "\"\""),
            ("nonsense".into(), Code::Malformed, "\"\""),
            ("[]".into(), Code::Malformed, "\"\""),
            ("{\"id\":\"1\"".into(), Code::Malformed, "\"\""),
            ("{\"id\":\"1\"} x".into(), Code::Malformed, "\"\""),
            (
                "{\"id\":\"1\",\"params\":[]}".into(),
                Code::Malformed,
                "\"1\"",
            ),
            (
                "{\"id\":7,\"version\":1,\"params\":[]}".into(),
                Code::Malformed,
                "7",
            ),
            (
                "{\"id\":7,\"version\":\"1\",\"params\":[]}".into(),
                Code::UnknownMethod,
                "7",
            ),
            (
                "{\"id\":7,\"version\":\"1\",\"method\":\"x\",\"params\":[]}".into(),
                Code::UnknownMethod,
                "7",
            ),
            (
                "{\"version\":\"1\",\"method\":\"integration.event.post\",\"params\":[]}".into(),
                Code::MethodMismatch,
                "\"\"",
            ),
            (format!("{{{good}}}"), Code::Malformed, "\"\""),
            (
                format!("{{{good},\"params\":{{}}}}"),
                Code::Malformed,
                "\"\"",
            ),
            (
                format!("{{{good},\"params\":\"[]\"}}"),
                Code::Malformed,
                "\"\"",
            ),
        ] {
            let fault = points(&payload).unwrap_err();
            assert_eq!(
                (fault.code, fault.id.as_json()),
                (code, id),
                "{payload}: {fault:?}"
            );
        }
        let fault = open(&[0xff, 0xfe], Kind::Points, Mode::Strict).unwrap_err();
        assert_eq!(fault.code, Code::Malformed);
    }

    #[test]
    fn the_method_of_a_decoded_message_says_what_its_items_are() {
        let opened = |method: &str| {
            let text = format!("{{\"version\":\"1\",\"method\":\"{method}\",\"params\":[]}}");
            open(text.as_bytes(), Kind::Raw, Mode::Strict)
                .map(|envelope| envelope.items)
                .map_err(|fault| fault.code)
        };
        for items in Items::ALL {
            assert_eq!(opened(items.method()), Ok(items));
        }
        assert_eq!(opened("thing.event.post"), Err(Code::MethodMismatch));
        assert_eq!(opened("anything"), Err(Code::UnknownMethod));
    }

    #[test]
    fn lenient_mode_forgives_a_missing_version() {
        let payload = "{\"method\":\"integration.measurepoint.post\",\"params\":[]}";
        assert!(open(payload.as_bytes(), Kind::Points, Mode::Lenient).is_ok());
        assert!(open(payload.as_bytes(), Kind::Points, Mode::Strict).is_err());
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let payload = "{\"id\":\"1\",\"id\":\"2\",\"version\":\"1.0\",\"params\":7,\"params\":[],\
                       \"method\":\"integration.measurepoint.post\"}";
        assert_eq!(points(payload).unwrap().id.as_json(), "\"2\"");
    }

    proptest! {
        #[test]
        fn any_bytes_are_opened_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(open(&bytes, Kind::Points, Mode::Lenient));
        }
    }
}
