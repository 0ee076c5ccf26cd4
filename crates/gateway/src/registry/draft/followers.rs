//! What follows the committed log: subscriptions and rules; and archives, which read what is stored.

use std::sync::Arc;

use backtide_model::ObjectName;

use super::{
    super::{
        Archive, Effect, Kind, Rule, Subscription,
        archive::{self, ArchiveFile, ArchiveState},
        records::{Change, Collection, Record},
        rule::{self, RuleFile, RuleState},
        subscription::{self, Begin, StateRecord, SubscriptionFile},
    },
    Draft, Trust, record_key,
};
use crate::{limits, secrets};

impl Draft<'_> {
    pub(super) fn put_subscription(
        &mut self,
        name: ObjectName,
        file: SubscriptionFile,
    ) -> Result<Effect, String> {
        let before = self.snapshot.subscriptions.get(&name).cloned();
        if before.as_ref().is_some_and(|before| before.file == file) {
            return Ok(Effect::Unchanged);
        }
        if self.trust == Trust::Declared {
            self.check_subscription(&file, before.as_deref())?;
        }
        let kept = match &before {
            Some(before) => Some(before.state()),
            None => self.states.remove(name.as_str()),
        };
        let is_new = kept.is_none();
        let state = kept.unwrap_or_else(|| StateRecord {
            uid: secrets::random_alphanumeric(16).into(),
            created_ms: self.now_ms,
            since: match file.begin {
                Begin::Now => self.stored.committed(),
                Begin::Oldest => 0,
            },
            stopped: false,
        });
        self.keep(Kind::Subscription, "", name.as_str(), &file);
        let subscription = Subscription::new(name, file, state);
        if is_new {
            self.keep_state(&subscription);
        }
        let name = subscription.name.clone();
        self.snapshot
            .subscriptions
            .insert(name, Arc::new(subscription));
        Ok(Effect::of(before.is_some()))
    }

    fn check_subscription(
        &self,
        file: &SubscriptionFile,
        before: Option<&Subscription>,
    ) -> Result<(), String> {
        if self.snapshot.access_key(&file.access_key).is_none() {
            return Err(format!("access key {} is not declared", file.access_key));
        }
        subscription::check(file, &self.snapshot)?;
        match before {
            Some(before) => subscription::check_change(&before.file, file),
            None if self.snapshot.subscriptions.len() < limits::SUBSCRIPTIONS_MAX => Ok(()),
            None => Err(format!(
                "there are {} subscriptions, the most there may be; delete one",
                limits::SUBSCRIPTIONS_MAX
            )),
        }
    }

    /// Changes what `apply` does not say about a subscription.
    pub(in crate::registry) fn set_stopped(&mut self, name: &ObjectName, stopped: bool) {
        let mut subscription = Subscription::clone(&self.snapshot.subscriptions[name]);
        subscription.stopped = stopped;
        self.keep_state(&subscription);
        let name = name.clone();
        self.snapshot
            .subscriptions
            .insert(name, Arc::new(subscription));
    }

    fn keep_state(&mut self, subscription: &Subscription) {
        let body = subscription.state_record();
        self.keep_beside(
            Collection::SubscriptionState,
            subscription.name.as_str(),
            body,
        );
    }

    pub(in crate::registry) fn remove_subscription(&mut self, name: &ObjectName) {
        self.snapshot.subscriptions.remove(name);
        self.forget(Collection::Subscription, "", name.as_str());
        self.forget(Collection::SubscriptionState, "", name.as_str());
    }

    pub(super) fn put_rule(&mut self, name: ObjectName, file: RuleFile) -> Result<Effect, String> {
        let before = self.snapshot.rules.get(&name).cloned();
        if before.as_ref().is_some_and(|before| before.file == file) {
            return Ok(Effect::Unchanged);
        }
        if self.trust == Trust::Declared {
            rule::check(&name, &file, &self.snapshot)?;
            if before.is_none() && self.snapshot.rules.len() >= limits::RULES_MAX {
                return Err(format!(
                    "there are {} rules, the most there may be; delete one",
                    limits::RULES_MAX
                ));
            }
        }
        let kept = match &before {
            Some(before) => Some(RuleState::of(before)),
            None => self.rule_states.remove(name.as_str()),
        };
        let is_loaded = self.trust == Trust::Kept;
        let mut state = kept.unwrap_or_else(|| RuleState {
            uid: secrets::random_alphanumeric(16).into(),
            created_ms: self.now_ms,
            since: match file.begin {
                Begin::Now => self.stored.committed(),
                Begin::Oldest => self.stored.trimmed(),
            },
            stopped: false,
            revision: 0,
            secret: None,
        });
        if !is_loaded {
            state.revision += 1;
        }
        self.keep(Kind::Rule, "", name.as_str(), &file);
        let rule = state.with(name, file);
        self.set_rule(rule);
        if !is_loaded {
            rule::check_loops(
                self.snapshot.rules.values().map(Arc::as_ref),
                &self.snapshot,
            )?;
        }
        Ok(Effect::of(before.is_some()))
    }

    /// Changes what `apply` does not say about a rule.
    pub(in crate::registry) fn change_rule(
        &mut self,
        name: &ObjectName,
        change: impl FnOnce(&mut Rule),
    ) {
        let mut rule = Rule::clone(&self.snapshot.rules[name]);
        change(&mut rule);
        self.set_rule(rule);
    }

    fn set_rule(&mut self, rule: Rule) {
        if self.trust == Trust::Declared {
            let body = rule.state_record(self.seal);
            self.keep_beside(Collection::RuleState, rule.name.as_str(), body);
        }
        self.snapshot
            .rules
            .insert(rule.name.clone(), Arc::new(rule));
    }

    /// Makes the default rules, once in the life of a registry.
    pub(in crate::registry) fn make_rules(&mut self) -> Result<(), String> {
        for (name, file) in RuleFile::defaults() {
            let name = ObjectName::new(name).expect("letters and dashes are a name");
            // Somebody was quicker, in a version of their own.
            if self.snapshot.rules.contains_key(&name) {
                continue;
            }
            self.put_rule(name, file)?;
        }
        self.snapshot.has_made_rules = true;
        let key = record_key(Collection::Made, "", "default-rules");
        let body = "{}".to_owned();
        self.changes.push(Change::Put(Record { key, body }));
        Ok(())
    }

    pub(in crate::registry) fn remove_rule(&mut self, name: &ObjectName) {
        self.snapshot.rules.remove(name);
        self.forget(Collection::Rule, "", name.as_str());
        self.forget(Collection::RuleState, "", name.as_str());
    }

    pub(super) fn put_archive(
        &mut self,
        name: ObjectName,
        file: ArchiveFile,
    ) -> Result<Effect, String> {
        let before = self.snapshot.archives.get(&name).cloned();
        if before.as_ref().is_some_and(|before| before.file == file) {
            return Ok(Effect::Unchanged);
        }
        if self.trust == Trust::Declared {
            archive::check(&file, &self.snapshot)?;
            match &before {
                Some(before) => archive::check_change(&before.file, &file)?,
                None if self.snapshot.archives.len() < limits::ARCHIVES_MAX => {}
                None => {
                    return Err(format!(
                        "there are {} archives, the most there may be; delete one",
                        limits::ARCHIVES_MAX
                    ));
                }
            }
        }
        let kept = match &before {
            Some(before) => Some(ArchiveState::of(before)),
            None => self.archive_states.remove(name.as_str()),
        };
        let state = kept.unwrap_or_else(|| ArchiveState {
            uid: secrets::random_alphanumeric(16).into(),
            created_ms: self.now_ms,
            stopped: false,
            secret: None,
        });
        self.keep(Kind::Archive, "", name.as_str(), &file);
        self.set_archive(state.with(name, file));
        Ok(Effect::of(before.is_some()))
    }

    /// Changes what `apply` does not say about an archive.
    pub(in crate::registry) fn change_archive(
        &mut self,
        name: &ObjectName,
        change: impl FnOnce(&mut Archive),
    ) {
        let mut archive = Archive::clone(&self.snapshot.archives[name]);
        change(&mut archive);
        self.set_archive(archive);
    }

    fn set_archive(&mut self, archive: Archive) {
        if self.trust == Trust::Declared {
            let body = archive.state_record(self.seal);
            self.keep_beside(Collection::ArchiveState, archive.name.as_str(), body);
        }
        self.snapshot
            .archives
            .insert(archive.name.clone(), Arc::new(archive));
    }

    pub(in crate::registry) fn remove_archive(&mut self, name: &ObjectName) {
        self.snapshot.archives.remove(name);
        self.forget(Collection::Archive, "", name.as_str());
        self.forget(Collection::ArchiveState, "", name.as_str());
    }
}
