//! `/apim-token-service/v2.0/token`: access tokens of generation B.

use serde_json::json;

use super::{
    answer::{Data, Refusal},
    call::Call,
};
use crate::{application::Denied, http::Api};

/// The same request was made before.
const REPEATED: u32 = 1001;
const UNKNOWN_KEY: u32 = 1002;
const BAD_ENCRYPTION: u32 = 1003;
/// Ours: the token to be refreshed holds no longer.
const BAD_TOKEN: u32 = 1004;

pub(super) fn get(api: &Api, call: &Call) -> Result<Data, Refusal> {
    issue(api, call, None)
}

pub(super) fn refresh(api: &Api, call: &Call) -> Result<Data, Refusal> {
    issue(api, call, Some(call.params.required("accessToken")?))
}

fn issue(api: &Api, call: &Call, renewed: Option<&str>) -> Result<Data, Refusal> {
    let given = |name| call.params.required(name);
    let (key, timestamp) = (given("appKey")?, given("timestamp")?);
    let encryption = given("encryption")?;
    let issued = api
        .applications
        .token(key, timestamp, encryption, renewed, call.address);
    match issued {
        Ok((token, seconds)) => Ok(Data::of(
            &json!({ "accessToken": token, "expire": seconds }),
        )),
        Err(denied) => {
            let code = match denied {
                Denied::Repeated => REPEATED,
                Denied::UnknownKey | Denied::Revoked => UNKNOWN_KEY,
                Denied::Signature | Denied::Stale => BAD_ENCRYPTION,
                Denied::Token => BAD_TOKEN,
                Denied::Unsealable
                | Denied::Throttled
                | Denied::Busy
                | Denied::NoRight { .. }
                | Denied::OwnKey => return Err(Refusal::denied(&denied)),
            };
            Err(Refusal::new(code, denied.to_string()))
        }
    }
}
