//! Policies, each of which says something else from one revision on.

use std::sync::Arc;

use backtide_model::ObjectName;

use super::{
    super::{
        Effect, Kind,
        policy::{self, Policy, PolicyFile, SaidRecord},
        records::{Change, Collection, Record},
    },
    Draft, Trust, record_key,
};
use crate::limits;

impl Draft<'_> {
    pub(super) fn put_policy(
        &mut self,
        name: &ObjectName,
        file: &PolicyFile,
    ) -> Result<Effect, String> {
        let before = self.snapshot.policies.live.get(name);
        if before.is_some_and(|before| before.file == *file) {
            return Ok(Effect::Unchanged);
        }
        let was_there = before.is_some();
        if self.trust == Trust::Declared {
            policy::check(name, file, &self.snapshot)?;
            let policies = self.snapshot.policies.live.len();
            if !was_there && policies >= limits::POLICIES_MAX {
                return Err(format!(
                    "there are {policies} policies, the most there may be; delete one"
                ));
            }
        }
        let record = SaidRecord {
            file: Some(file.clone()),
        };
        self.keep(Kind::Policy, "", name.as_str(), file);
        self.say(name, &record)?;
        Ok(Effect::of(was_there))
    }

    pub(in crate::registry) fn remove_policy(&mut self, name: &ObjectName) -> Result<(), String> {
        self.forget(Collection::Policy, "", name.as_str());
        self.say(name, &SaidRecord { file: None })
    }

    /// A policy says something else from a new revision on. What it says is loaded by [`Self::said`].
    fn say(&mut self, name: &ObjectName, record: &SaidRecord) -> Result<(), String> {
        if self.trust == Trust::Kept {
            return Ok(());
        }
        let revision = self.snapshot.policies.revision + 1;
        if revision > limits::POLICY_REVISIONS_MAX {
            return Err(format!(
                "policies were changed {} times, the most there may be",
                limits::POLICY_REVISIONS_MAX
            ));
        }
        let body = serde_json::to_string(record).expect("a file that was read writes");
        let key = record_key(
            Collection::PolicyRevision,
            name.as_str(),
            &revision.to_string(),
        );
        self.changes.push(Change::Put(Record { key, body }));
        self.said(name.clone(), revision, record.file.clone());
        Ok(())
    }

    /// What a policy says from a revision on; in order of revision.
    pub(in crate::registry) fn said(
        &mut self,
        name: ObjectName,
        revision: u32,
        file: Option<PolicyFile>,
    ) {
        self.has_stale_policies = true;
        let policies = Arc::make_mut(&mut self.snapshot.policies);
        policies.revision = policies.revision.max(revision);
        let said = file.map(|file| Arc::new(Policy::new(name.clone(), file, revision)));
        match &said {
            Some(policy) => policies.live.insert(name.clone(), Arc::clone(policy)),
            None => policies.live.remove(&name),
        };
        policies
            .history
            .entry(name)
            .or_default()
            .push((revision, said));
    }

    /// Compiles the policies anew where something that they are made from was changed.
    pub(in crate::registry) fn settle_policies(&mut self) -> Result<(), String> {
        if !std::mem::take(&mut self.has_stale_policies) {
            return Ok(());
        }
        self.snapshot.settle_policies(self.trust == Trust::Declared)
    }
}
