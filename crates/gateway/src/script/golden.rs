//! Golden tests: inputs with the outcome that a script must give, now and in every later version.

use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Call, Detail, Done, Failure, Operation, Program, Scripts};

/// The time of receipt of a test that names none: 2024-01-01 UTC.
const TIME_MS: i64 = 1_704_067_200_000;
/// Orders in which a script that keeps state is tried.
const ORDERS: u32 = 4;

/// A golden test: what is decoded or encoded, and what must come of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Golden {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Bytes to decode, as hex digits; blanks are passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<String>,
    /// What to encode: a JSON document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encode: Option<Value>,
    /// The time of receipt, milliseconds since 1970 UTC; 2024-01-01 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// What comes out: a JSON document of a decode, hex digits of an encode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Value>,
    /// A part of the error that must come instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails: Option<String>,
}

/// How a golden test went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub name: String,
    pub passed: bool,
    /// What came out instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Golden {
    /// Checks that it can be run.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let name = self.name.as_deref().unwrap_or("without a name");
        let fault = |what: &str| Err(format!("golden test {name}: {what}"));
        match (&self.decode, &self.encode) {
            (Some(text), None) if bytes_of(text).is_none() => {
                return fault("decode is not a text of hex digits");
            }
            (Some(_), None) | (None, Some(_)) => {}
            (Some(_), Some(_)) | (None, None) => return fault("give one of decode and encode"),
        }
        match (&self.expect, &self.fails) {
            (Some(expected), None) if self.encode.is_some() => {
                match expected.as_str().and_then(bytes_of) {
                    Some(_) => Ok(()),
                    None => fault("expect of an encode is not a text of hex digits"),
                }
            }
            (Some(_), None) | (None, Some(_)) => Ok(()),
            (Some(_), Some(_)) | (None, None) => fault("give one of expect and fails"),
        }
    }

    fn title(&self, place: usize) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => format!("test {}", place + 1),
        }
    }

    fn call(&self) -> Call {
        let input = match (&self.decode, &self.encode) {
            (Some(text), _) => bytes_of(text).unwrap_or_default(),
            (None, Some(value)) => value.to_string().into_bytes(),
            (None, None) => Vec::new(),
        };
        Call {
            operation: match self.decode {
                Some(_) => Operation::Decode,
                None => Operation::Encode,
            },
            input: input.into(),
            time_ms: self.time.unwrap_or(TIME_MS),
        }
    }

    /// What is wrong with an outcome, if anything.
    fn fault(&self, outcome: &Result<Bytes, Failure>) -> Option<String> {
        match (outcome, &self.expect, &self.fails) {
            (Err(failure), _, Some(part)) if failure.to_string().contains(part.as_str()) => None,
            (Err(failure), _, _) => Some(failure.to_string()),
            (Ok(output), _, Some(part)) => Some(format!(
                "expected an error with {part:?}, got {}",
                shown(self, output)
            )),
            (Ok(output), Some(expected), None) => {
                let is_equal = match self.decode {
                    Some(_) => serde_json::from_slice(output)
                        .is_ok_and(|found: Value| is_equal(&found, expected)),
                    None => expected.as_str().and_then(bytes_of).as_deref() == Some(output),
                };
                (!is_equal).then(|| format!("expected {expected}, got {}", shown(self, output)))
            }
            (Ok(_), None, None) => Some("it expects nothing".to_owned()),
        }
    }
}

/// The bytes of hex digits.
pub fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    hex::decode(digits).ok()
}

fn shown(golden: &Golden, output: &[u8]) -> String {
    match golden.decode {
        Some(_) => String::from_utf8_lossy(output).into_owned(),
        None => hex::encode(output),
    }
}

/// The same document; 1 and 1.0 are the same number.
fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| is_equal(a, b)))
        }
        (a, b) => a == b,
    }
}

impl Scripts {
    /// Runs golden tests, in their order.
    pub async fn test(&self, program: &Arc<Program>, golden: &[Golden]) -> Vec<Verdict> {
        let calls = golden.iter().map(Golden::call).collect();
        let done = self.run(program, calls, Detail::Outcome).await;
        golden
            .iter()
            .zip(done)
            .enumerate()
            .map(|(place, (golden, done))| {
                let message = golden.fault(&done.outcome);
                Verdict {
                    name: golden.title(place),
                    passed: message.is_none(),
                    message,
                }
            })
            .collect()
    }

    /// What must hold before a program goes live: it compiles, has a decoder, and passes its golden
    /// tests; one that keeps state passes them in any order.
    ///
    /// # Errors
    /// What does not hold, with line and column where the source is to blame.
    pub async fn trial(&self, program: &Arc<Program>, golden: &[Golden]) -> Result<(), Failure> {
        let fault = |message: String| Failure::new(super::Cause::Result, message);
        self.compiles(program).await?;
        for verdict in self.test(program, golden).await {
            if let Some(message) = verdict.message {
                return Err(fault(format!("golden test {}: {message}", verdict.name)));
            }
        }
        if !program.keep_state {
            return Ok(());
        }
        if golden.len() < 2 {
            return Err(fault(
                "keepState needs golden tests, two at least, that give the same in any order"
                    .to_owned(),
            ));
        }
        for order in 0..ORDERS {
            let places = shuffled(golden.len(), order);
            // Twice over: what a test leaves behind meets itself too.
            let calls = places.iter().chain(&places);
            let calls = calls.map(|place| golden[*place].call()).collect();
            let done = self.run(program, calls, Detail::Outcome).await;
            for (place, done) in places.iter().chain(&places).zip(done) {
                if let Some(message) = golden[*place].fault(&done.outcome) {
                    return Err(fault(format!(
                        "keepState: golden test {} gives another result in another order: {message}",
                        golden[*place].title(*place)
                    )));
                }
            }
        }
        Ok(())
    }

    /// Whether a program loads: a call of no bytes tells, whatever it says of them.
    async fn compiles(&self, program: &Arc<Program>) -> Result<(), Failure> {
        let call = Call {
            operation: Operation::Decode,
            input: Bytes::new(),
            time_ms: TIME_MS,
        };
        let done = self.run(program, vec![call], Detail::Outcome).await;
        match done.into_iter().next().map(|Done { outcome, .. }| outcome) {
            Some(Err(failure)) if failure.is_of_loading() => Err(failure),
            Some(_) | None => Ok(()),
        }
    }
}

/// The places in one of several orders: as they are, backwards, and by chance that is always the
/// same.
fn shuffled(count: usize, order: u32) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    match order {
        0 => {}
        1 => places.reverse(),
        seed => {
            let mut state = u64::from(seed);
            places.sort_by_cached_key(|place| {
                state = state.wrapping_mul(6_364_136_223_846_793_005) + *place as u64 + 1;
                state >> 32
            });
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn golden(value: Value) -> Golden {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_test_says_what_it_runs_and_what_it_expects() {
        for good in [
            json!({ "decode": "01 ff", "expect": {} }),
            json!({ "encode": { "id": 1 }, "expect": "00ff" }),
            json!({ "decode": "", "fails": "empty" }),
        ] {
            assert_eq!(golden(good.clone()).check(), Ok(()), "{good}");
        }
        for bad in [
            json!({ "expect": {} }),
            json!({ "decode": "0", "expect": {} }),
            json!({ "decode": "00", "encode": {}, "expect": {} }),
            json!({ "encode": {}, "expect": {} }),
            json!({ "decode": "00" }),
        ] {
            assert!(golden(bad.clone()).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn documents_are_compared_not_texts() {
        let expects = golden(json!({ "decode": "", "expect": { "a": 1, "b": [2.5] } }));
        let outcome = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        assert_eq!(expects.fault(&outcome("{\"b\":[2.50],\"a\":1.0}")), None);
        assert!(expects.fault(&outcome("{\"a\":1}")).is_some());
        let fails = golden(json!({ "decode": "", "fails": "short" }));
        let failure = Failure::new(super::super::Cause::Threw, "Error: too short");
        assert_eq!(fails.fault(&Err(failure)), None);
        assert!(fails.fault(&outcome("{}")).is_some());
    }

    #[test]
    fn the_orders_differ_and_hold_every_test() {
        let orders: Vec<_> = (0..ORDERS).map(|order| shuffled(6, order)).collect();
        for (place, order) in orders.iter().enumerate() {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4, 5]);
            assert!(!orders[..place].contains(order), "{orders:?}");
        }
    }
}
