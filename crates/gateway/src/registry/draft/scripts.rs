//! Scripts: a draft, versions, and the one that runs.

use std::sync::Arc;

use backtide_model::ObjectName;

use super::{
    super::{
        Effect,
        records::Collection,
        script::{Script, ScriptFile, ScriptVersion, ScriptVersionRecord},
    },
    Draft, product_mut,
};
use crate::limits::SCRIPT_VERSIONS_MAX;

impl Draft<'_> {
    /// Declares what runs from now on: a version of its own, unless it is what runs already.
    pub(super) fn put_script(
        &mut self,
        name: &ObjectName,
        file: ScriptFile,
    ) -> Result<Effect, String> {
        let mut script = self.script_for(name, &file.product)?;
        if script.live.as_ref().is_some_and(|live| live.file == file) {
            return Ok(Effect::Unchanged);
        }
        let was_there = script.live.is_some();
        self.add_version(&mut script, file)?;
        self.set_script(script);
        Ok(Effect::of(was_there))
    }

    /// Saves what may run one day.
    pub(in crate::registry) fn put_script_draft(
        &mut self,
        name: &ObjectName,
        file: ScriptFile,
    ) -> Result<(), String> {
        let mut script = self.script_for(name, &file.product)?;
        let record = ScriptVersionRecord {
            created_ms: self.now_ms,
            file,
        };
        self.keep_script(Collection::ScriptDraft, "", name.as_str(), &record);
        let draft = ScriptVersion::new(name, None, record)?;
        script.draft = Some(Arc::new(draft));
        self.set_script(script);
        Ok(())
    }

    /// Deletes a draft; a script that has nothing else goes with it.
    pub(in crate::registry) fn remove_script_draft(&mut self, script: &Script) {
        self.forget(Collection::ScriptDraft, "", script.name.as_str());
        let script = Script {
            draft: None,
            ..script.clone()
        };
        match script.versions.is_empty() {
            true => self.remove_script(&script),
            false => self.set_script(script),
        }
    }

    /// Makes a draft the version that runs.
    pub(in crate::registry) fn publish_script(&mut self, script: &Script) -> Result<(), String> {
        let mut script = script.clone();
        let Some(draft) = script.draft.take() else {
            return Err(format!("script {} has no draft", script.name));
        };
        self.forget(Collection::ScriptDraft, "", script.name.as_str());
        self.add_version(&mut script, draft.file.clone())?;
        self.set_script(script);
        Ok(())
    }

    /// Makes an earlier version the one that runs.
    pub(in crate::registry) fn roll_back_script(
        &mut self,
        script: &Script,
        number: u32,
    ) -> Result<(), String> {
        let Some(version) = script.version(number) else {
            return Err(format!("script {} has no version {number}", script.name));
        };
        let live = Some(Arc::clone(version));
        self.set_script(Script {
            live,
            ..script.clone()
        });
        Ok(())
    }

    /// The script of this name, which may be new; a product has one.
    fn script_for(&self, name: &ObjectName, product: &ObjectName) -> Result<Script, String> {
        let owner = self
            .snapshot
            .products
            .get(product)
            .ok_or_else(|| format!("product {product} is not declared"))?;
        if owner.is_json() {
            return Err(format!(
                "product {product} has format json; declare it with format: custom"
            ));
        }
        if let Some(other) = &owner.script
            && other.name != *name
        {
            return Err(format!(
                "product {product} has script {} already; a product has one",
                other.name
            ));
        }
        match self.snapshot.scripts.get(name) {
            Some(script) if script.product != *product => Err(format!(
                "it belongs to product {} and stays there; declare a script of another name",
                script.product
            )),
            Some(script) => Ok(Script::clone(script)),
            None => Ok(Script::new(name.clone(), product.clone())),
        }
    }

    fn add_version(&mut self, script: &mut Script, file: ScriptFile) -> Result<(), String> {
        if script.versions.len() >= SCRIPT_VERSIONS_MAX {
            return Err(format!(
                "script {} has {SCRIPT_VERSIONS_MAX} versions, the most it may have",
                script.name
            ));
        }
        let number = script.next_number();
        let record = ScriptVersionRecord {
            created_ms: self.now_ms,
            file,
        };
        self.keep_script(
            Collection::ScriptVersion,
            script.name.as_str(),
            &number.to_string(),
            &record,
        );
        let version = Arc::new(ScriptVersion::new(&script.name, Some(number), record)?);
        script.versions.push(Arc::clone(&version));
        script.live = Some(version);
        Ok(())
    }

    /// Puts a whole script in, as it is loaded or after a change.
    pub(in crate::registry) fn set_script(&mut self, script: Script) {
        self.keep_script(
            Collection::Script,
            "",
            script.name.as_str(),
            &script.record(),
        );
        let script = Arc::new(script);
        product_mut(&mut self.snapshot, &script.product).script = Some(Arc::clone(&script));
        self.snapshot.scripts.insert(script.name.clone(), script);
    }

    pub(in crate::registry) fn remove_script(&mut self, script: &Script) {
        self.snapshot.scripts.remove(&script.name);
        product_mut(&mut self.snapshot, &script.product).script = None;
        self.forget(Collection::Script, "", script.name.as_str());
        self.forget(Collection::ScriptDraft, "", script.name.as_str());
        for version in &script.versions {
            let number = version.number.unwrap_or_default().to_string();
            self.forget(Collection::ScriptVersion, script.name.as_str(), &number);
        }
        for sample in script.samples.keys() {
            self.forget(Collection::ScriptSample, script.name.as_str(), sample);
        }
    }
}
