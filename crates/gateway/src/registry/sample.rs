//! Sample payloads of a script: what its test runs and golden tests begin with. They are kept with
//! the script and go with it; no version has them, and nothing that runs reads them.

use serde::{Deserialize, Serialize};

use super::{draft::Draft, records::Collection, script::Script};
use crate::{
    limits::{
        PAYLOAD_BYTES_MAX, SCRIPT_SAMPLE_DESCRIPTION_CHARS_MAX, SCRIPT_SAMPLE_NAME_CHARS_MAX,
        SCRIPT_SAMPLES_BYTES_MAX, SCRIPT_SAMPLES_MAX,
    },
    script::Input,
};

/// A payload that is kept with a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    pub payload: Input,
    /// Bytes of the payload.
    pub bytes: usize,
    /// When it was saved, milliseconds since 1970 UTC.
    pub saved_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl Sample {
    /// # Errors
    /// Which part makes no sense, and why.
    pub fn new(
        name: &str,
        payload: Input,
        description: Option<String>,
        now_ms: i64,
    ) -> Result<Self, (&'static str, String)> {
        check_name(name).map_err(|reason| ("name", reason))?;
        let bytes = payload.bytes().map_err(|reason| ("payload", reason))?.len();
        if !(1..=PAYLOAD_BYTES_MAX).contains(&bytes) {
            let reason = format!("it has {bytes} bytes; a message has 1 to {PAYLOAD_BYTES_MAX}");
            return Err(("payload", reason));
        }
        let is_long = |text: &String| text.chars().count() > SCRIPT_SAMPLE_DESCRIPTION_CHARS_MAX;
        if description.as_ref().is_some_and(is_long) {
            let reason = format!("give at most {SCRIPT_SAMPLE_DESCRIPTION_CHARS_MAX} characters");
            return Err(("description", reason));
        }
        Ok(Self {
            payload,
            bytes,
            saved_ms: now_ms,
            description,
        })
    }

    /// What it takes to keep it.
    fn kept_bytes(&self) -> usize {
        let (Input::Hex(text) | Input::Base64(text) | Input::Text(text)) = &self.payload;
        text.len() + self.description.as_ref().map_or(0, String::len)
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let length = name.chars().count();
    if !(1..=SCRIPT_SAMPLE_NAME_CHARS_MAX).contains(&length) {
        return Err(format!(
            "a name has 1 to {SCRIPT_SAMPLE_NAME_CHARS_MAX} characters"
        ));
    }
    match name.chars().find(|c| c.is_control() || *c == '/') {
        Some(c) => Err(format!("{c:?} cannot stand in a name")),
        None => Ok(()),
    }
}

impl Draft<'_> {
    /// Adds a sample, or replaces the one of that name.
    pub(super) fn put_sample(
        &mut self,
        script: &Script,
        name: &str,
        sample: Sample,
    ) -> Result<(), String> {
        let mut script = script.clone();
        let before = script.samples.remove(name);
        if before.is_none() && script.samples.len() >= SCRIPT_SAMPLES_MAX {
            return Err(format!(
                "script {} has {SCRIPT_SAMPLES_MAX} samples, the most it may have; delete one",
                script.name
            ));
        }
        let others: usize = script
            .samples
            .values()
            .map(|other| other.kept_bytes())
            .sum();
        if others + sample.kept_bytes() > SCRIPT_SAMPLES_BYTES_MAX {
            return Err(format!(
                "the samples of script {} would come to more than {SCRIPT_SAMPLES_BYTES_MAX} bytes; \
                 delete some",
                script.name
            ));
        }
        self.keep_script(
            Collection::ScriptSample,
            script.name.as_str(),
            name,
            &sample,
        );
        script.samples.insert(name.to_owned(), sample.into());
        self.set_script(script);
        Ok(())
    }

    pub(super) fn remove_sample(&mut self, script: &Script, name: &str) -> Result<(), String> {
        let mut script = script.clone();
        if script.samples.remove(name).is_none() {
            return Err(format!("script {} has no sample {name}", script.name));
        }
        self.forget(Collection::ScriptSample, script.name.as_str(), name);
        self.set_script(script);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str, payload: Input) -> (&'static str, String) {
        Sample::new(name, payload, None, 0).unwrap_err()
    }

    #[test]
    fn a_sample_is_bytes_of_a_message_under_a_name() {
        let sample = Sample::new("历史 1 · 10:00", Input::Hex("01 02".into()), None, 7).unwrap();
        assert_eq!((sample.bytes, sample.saved_ms), (2, 7));
        assert_eq!(fault("", Input::Text("a".into())).0, "name");
        assert_eq!(fault("a/b", Input::Text("a".into())).0, "name");
        assert_eq!(fault("a", Input::Hex("0".into())).0, "payload");
        assert_eq!(fault("a", Input::Base64("?".into())).0, "payload");
        assert_eq!(fault("a", Input::Text(String::new())).0, "payload");
        let much = "a".repeat(PAYLOAD_BYTES_MAX + 1);
        assert!(fault("a", Input::Text(much)).1.contains("1 to 524288"));
    }
}
