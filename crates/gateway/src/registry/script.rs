//! Data parsing scripts as they are declared: a draft, and versions that never change.

use std::{collections::BTreeMap, sync::Arc};

use backtide_model::ObjectName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    records::{Collection, Record, RecordKey},
    sample::Sample,
};
use crate::{
    limits::{SCRIPT_GOLDEN_MAX, SCRIPT_SOURCE_BYTES_MAX},
    script::{Dialect, Golden, Mapping, Program},
};

/// A script in an object file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ScriptFile {
    /// The name of its product, whose format is custom; a product has one script.
    #[schemars(with = "String", length(min = 1, max = 64))]
    pub product: ObjectName,
    /// By which functions it is called.
    #[serde(default)]
    pub dialect: Dialect,
    /// Whose values it decodes, where the dialect does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<Mapping>,
    /// Run the source once, not before every call: faster, and taken only where the golden tests
    /// give the same in any order.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep_state: bool,
    /// JavaScript.
    #[schemars(length(min = 1, max = SCRIPT_SOURCE_BYTES_MAX))]
    pub source: String,
    /// Tests that must pass before it goes live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = SCRIPT_GOLDEN_MAX))]
    pub golden: Vec<Golden>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A script's text with the way to call it, ready to run. Never changes.
#[derive(Debug)]
pub struct ScriptVersion {
    /// From 1; absent of a draft.
    pub number: Option<u32>,
    /// When it was published, or the draft saved.
    pub created_ms: i64,
    pub file: ScriptFile,
    pub program: Arc<Program>,
}

/// The script of a product.
#[derive(Debug, Clone)]
pub struct Script {
    pub name: ObjectName,
    /// The name of its product.
    pub product: ObjectName,
    pub draft: Option<Arc<ScriptVersion>>,
    /// Ascending by number.
    pub versions: Vec<Arc<ScriptVersion>>,
    /// The version that runs; one of `versions`.
    pub live: Option<Arc<ScriptVersion>>,
    /// Payloads to try it on, by name.
    pub samples: BTreeMap<String, Arc<Sample>>,
}

impl Script {
    pub(super) fn new(name: ObjectName, product: ObjectName) -> Self {
        Self {
            name,
            product,
            draft: None,
            versions: Vec::new(),
            live: None,
            samples: BTreeMap::new(),
        }
    }

    pub fn version(&self, number: u32) -> Option<&Arc<ScriptVersion>> {
        let at = self
            .versions
            .binary_search_by_key(&Some(number), |version| version.number);
        self.versions.get(at.ok()?)
    }

    /// What `apply` takes: the version that runs, or the draft where none was published.
    pub fn shown(&self) -> Option<&Arc<ScriptVersion>> {
        self.live.as_ref().or(self.draft.as_ref())
    }

    pub(super) fn next_number(&self) -> u32 {
        let latest = self.versions.last().and_then(|version| version.number);
        latest.unwrap_or(0) + 1
    }

    pub(super) fn record(&self) -> ScriptRecord {
        ScriptRecord {
            product: self.product.clone(),
            live: self.live.as_ref().and_then(|version| version.number),
        }
    }
}

impl ScriptVersion {
    /// What a file would run as, to be tried before it is declared.
    ///
    /// # Errors
    /// What is wrong with the file by itself.
    pub fn untried(name: &ObjectName, file: ScriptFile) -> Result<Self, String> {
        let created_ms = 0;
        Self::new(name, None, ScriptVersionRecord { created_ms, file })
    }

    /// # Errors
    /// What is wrong with the file by itself; the source is not compiled here.
    pub(super) fn new(
        name: &ObjectName,
        number: Option<u32>,
        record: ScriptVersionRecord,
    ) -> Result<Self, String> {
        let ScriptVersionRecord { created_ms, file } = record;
        if file.golden.len() > SCRIPT_GOLDEN_MAX {
            return Err(format!(
                "it has {} golden tests, at most {SCRIPT_GOLDEN_MAX} are taken",
                file.golden.len()
            ));
        }
        file.golden.iter().try_for_each(Golden::check)?;
        let program = Program::new(
            name.as_str(),
            number,
            file.source.as_str().into(),
            (file.dialect, file.mapping.clone()),
            file.keep_state,
        )?;
        Ok(Self {
            number,
            created_ms,
            file,
            program: Arc::new(program),
        })
    }
}

/// A script at rest, its versions and draft beside it.
#[derive(Serialize, Deserialize)]
pub(super) struct ScriptRecord {
    pub(super) product: ObjectName,
    pub(super) live: Option<u32>,
}

/// A version or a draft at rest.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ScriptVersionRecord {
    pub(super) created_ms: i64,
    pub(super) file: ScriptFile,
}

/// Scripts as their records come, in any order.
#[derive(Default)]
pub(super) struct Scripts {
    heads: BTreeMap<ObjectName, ScriptRecord>,
    /// By script and number; a draft has none.
    texts: BTreeMap<(ObjectName, Option<u32>), ScriptVersionRecord>,
    samples: BTreeMap<(ObjectName, String), Sample>,
}

impl Scripts {
    /// # Errors
    /// What is wrong with the record.
    pub(super) fn take(&mut self, record: &Record) -> Result<(), String> {
        let text = |error: serde_json::Error| error.to_string();
        let named = |name: &str| ObjectName::new(name).map_err(|error| error.to_string());
        let RecordKey {
            collection,
            owner,
            name,
        } = &record.key;
        match collection {
            Collection::ScriptVersion => {
                let number = name.parse().map_err(|_| "it has no number".to_owned())?;
                let version = serde_json::from_str(&record.body).map_err(text)?;
                self.texts.insert((named(owner)?, Some(number)), version);
            }
            Collection::ScriptSample => {
                let sample = serde_json::from_str(&record.body).map_err(text)?;
                self.samples.insert((named(owner)?, name.clone()), sample);
            }
            Collection::ScriptDraft => {
                let draft = serde_json::from_str(&record.body).map_err(text)?;
                self.texts.insert((named(name)?, None), draft);
            }
            _ => {
                let head = serde_json::from_str(&record.body).map_err(text)?;
                self.heads.insert(named(name)?, head);
            }
        }
        Ok(())
    }

    /// # Errors
    /// Which script is damaged, and how.
    pub(super) fn whole(self) -> Result<Vec<Script>, (ObjectName, String)> {
        let mut scripts: BTreeMap<ObjectName, (Script, Option<u32>)> = self
            .heads
            .into_iter()
            .map(|(name, head)| {
                let script = Script::new(name.clone(), head.product);
                (name, (script, head.live))
            })
            .collect();
        for ((name, number), record) in self.texts {
            let damaged = |reason: String| (name.clone(), reason);
            let (script, _) = scripts
                .get_mut(&name)
                .ok_or_else(|| damaged("it has a version, but no product".to_owned()))?;
            let version = ScriptVersion::new(&name, number, record).map_err(damaged)?;
            match number {
                Some(_) => script.versions.push(Arc::new(version)),
                None => script.draft = Some(Arc::new(version)),
            }
        }
        for ((name, sample_name), sample) in self.samples {
            let (script, _) = scripts
                .get_mut(&name)
                .ok_or_else(|| (name.clone(), "it has a sample, but no product".to_owned()))?;
            script.samples.insert(sample_name, Arc::new(sample));
        }
        let with_live = scripts.into_values().map(|(mut script, live)| {
            script.live = live.and_then(|number| script.version(number).cloned());
            script
        });
        Ok(with_live.collect())
    }
}
