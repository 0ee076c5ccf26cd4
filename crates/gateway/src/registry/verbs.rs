//! What `apply` does not say of an object: its secret, whether it is paused or stopped, the versions of a
//! script. Each verb changes one object that is there, and gives it as it is then.

use std::{mem, sync::Arc};

use backtide_model::{ChannelName, ObjectName};
use secrecy::SecretString;

use super::{
    AccessKey, Archive, Channel, Held, Kind, Refused, Registry, Rule, Run, Sample, Script,
    ScriptFile, ScriptVersion, Secret, Snapshot, Subscription, channel::Previous, draft::Draft,
};

impl Registry {
    // --- channels ---

    /// Gives a channel a new secret; the one before stays valid for `overlap_ms`.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn rotate(&self, name: &str, overlap_ms: i64) -> Result<Arc<Channel>, Refused> {
        let valid_until_ms = self.clock.now_ms().saturating_add(overlap_ms);
        self.change_channel(name, |channel| {
            let new = Secret::new(channel.secret.id + 1);
            let secret = mem::replace(&mut channel.secret, new);
            channel.previous = Some(Previous {
                secret,
                valid_until_ms,
            });
        })
    }

    /// Shuts a channel, or opens it again; an open one is not held either.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_paused(&self, name: &str, paused: bool) -> Result<Arc<Channel>, Refused> {
        self.change_channel(name, |channel| {
            channel.paused = paused;
            if !paused {
                channel.held = None;
            }
        })
    }

    /// Takes nothing of a channel until it is opened again.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn hold(&self, name: &str, reason: &str) -> Result<Arc<Channel>, Refused> {
        let since = self.clock.now_ms();
        self.change_channel(name, |channel| {
            channel.held.get_or_insert_with(|| Held {
                since,
                reason: reason.to_owned(),
            });
        })
    }

    fn change_channel(
        &self,
        name: &str,
        change: impl FnOnce(&mut Channel),
    ) -> Result<Arc<Channel>, Refused> {
        // Channels are kept under names of their own kind: any other text is none of them.
        let valid = ChannelName::new(name).map_err(|_| Refused::not_found(Kind::Channel, name))?;
        self.change_one(
            (Kind::Channel, name),
            |snapshot| snapshot.channel(&valid),
            |draft, channel| draft.relogin(&channel.name, change),
        )
    }

    // --- scripts ---

    /// Saves the draft of a script; an earlier draft is replaced.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn draft_script(&self, name: &str, file: ScriptFile) -> Result<Arc<Script>, Refused> {
        let name = ObjectName::new(name).map_err(|error| Refused::Conflict(error.to_string()))?;
        self.change(Run::Commit, |draft| {
            draft
                .put_script_draft(&name, file)
                .map_err(Refused::Conflict)
        })?;
        self.script(name.as_str())
    }

    /// Deletes the draft of a script.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn drop_script_draft(&self, name: &str) -> Result<(), Refused> {
        let script = self.script(name)?;
        if script.draft.is_none() {
            return Err(Refused::Conflict(format!("script {name} has no draft")));
        }
        // It may be the last of the script: there is nothing to give then.
        self.change(Run::Commit, |draft| {
            let script = script_in(&draft.snapshot, name)?;
            draft.remove_script_draft(&script);
            Ok(())
        })
    }

    /// Makes the draft of a script a version, and that the one that runs. `tried` is the draft that
    /// passed its trial: another one is refused.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn publish_script(
        &self,
        name: &str,
        tried: &Arc<ScriptVersion>,
    ) -> Result<Arc<Script>, Refused> {
        self.change_script(name, |draft, script| {
            let is_same = script
                .draft
                .as_ref()
                .is_some_and(|now| Arc::ptr_eq(now, tried));
            if !is_same {
                return Err("the draft was changed meanwhile; publish again".to_owned());
            }
            draft.publish_script(script)
        })
    }

    /// Makes another version of a script the one that runs.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn roll_back_script(&self, name: &str, number: u32) -> Result<Arc<Script>, Refused> {
        self.change_script(name, |draft, script| draft.roll_back_script(script, number))
    }

    /// Keeps a sample payload with a script, in the place of one of the same name.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn keep_sample(
        &self,
        script: &str,
        name: &str,
        sample: Sample,
    ) -> Result<Arc<Script>, Refused> {
        self.change_script(script, |draft, script| {
            draft.put_sample(script, name, sample)
        })
    }

    /// Deletes a sample payload of a script.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn drop_sample(&self, script: &str, name: &str) -> Result<(), Refused> {
        self.change_script(script, |draft, script| draft.remove_sample(script, name))?;
        Ok(())
    }

    fn script(&self, name: &str) -> Result<Arc<Script>, Refused> {
        script_in(&self.current(), name)
    }

    fn change_script(
        &self,
        name: &str,
        change: impl FnOnce(&mut Draft<'_>, &Script) -> Result<(), String>,
    ) -> Result<Arc<Script>, Refused> {
        self.change_one(
            (Kind::Script, name),
            |snapshot| snapshot.script(name),
            change,
        )
    }

    // --- access keys ---

    /// Gives an access key a new secret; the one before stays valid for `overlap_ms`. One that was
    /// revoked signs again, with the new secret alone.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn rotate_access_key(
        &self,
        name: &str,
        overlap_ms: i64,
    ) -> Result<Arc<AccessKey>, Refused> {
        let valid_until_ms = self.clock.now_ms().saturating_add(overlap_ms);
        self.change_access_key(name, |key| key.rotate(valid_until_ms))
    }

    /// Takes every secret of an access key away, for good.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn revoke_access_key(&self, name: &str) -> Result<Arc<AccessKey>, Refused> {
        self.change_access_key(name, AccessKey::revoke)
    }

    fn change_access_key(
        &self,
        name: &str,
        change: impl FnOnce(&mut AccessKey),
    ) -> Result<Arc<AccessKey>, Refused> {
        self.change_one(
            (Kind::AccessKey, name),
            |snapshot| snapshot.access_key(name),
            |draft, key| {
                draft.reissue(&key.name, change);
                Ok(())
            },
        )
    }

    // --- what follows the log, and archives ---

    /// Stops a subscription, or starts it again.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_stopped(&self, name: &str, stopped: bool) -> Result<Arc<Subscription>, Refused> {
        self.change_one(
            (Kind::Subscription, name),
            |snapshot| snapshot.subscription(name),
            |draft, subscription| {
                draft.set_stopped(&subscription.name, stopped);
                Ok(())
            },
        )
    }

    /// Makes the default rules, unless that was done before: what was deleted since stays so.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn make_default_rules(&self) -> Result<(), Refused> {
        if self.current().has_made_rules {
            return Ok(());
        }
        self.change(Run::Commit, |draft| {
            draft.make_rules().map_err(Refused::Conflict)
        })
    }

    /// Stops a rule, or starts it again.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_rule_stopped(&self, name: &str, stopped: bool) -> Result<Arc<Rule>, Refused> {
        self.change_rule(name, |rule| rule.stopped = stopped)
    }

    /// Sets what `${secret}` stands for in a rule, or takes it away.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_rule_secret(
        &self,
        name: &str,
        secret: Option<SecretString>,
    ) -> Result<Arc<Rule>, Refused> {
        self.change_rule(name, |rule| rule.secret = secret)
    }

    fn change_rule(
        &self,
        name: &str,
        change: impl FnOnce(&mut Rule),
    ) -> Result<Arc<Rule>, Refused> {
        self.change_one(
            (Kind::Rule, name),
            |snapshot| snapshot.rule(name),
            |draft, rule| {
                draft.change_rule(&rule.name, change);
                Ok(())
            },
        )
    }

    /// Lets an archive run by itself no more, or again.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_archive_stopped(&self, name: &str, stopped: bool) -> Result<Arc<Archive>, Refused> {
        self.change_archive(name, |archive| archive.stopped = stopped)
    }

    /// Sets the secret of an archive's S3 access key, or takes it away.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn set_archive_secret(
        &self,
        name: &str,
        secret: Option<SecretString>,
    ) -> Result<Arc<Archive>, Refused> {
        self.change_archive(name, |archive| archive.secret = secret)
    }

    fn change_archive(
        &self,
        name: &str,
        change: impl FnOnce(&mut Archive),
    ) -> Result<Arc<Archive>, Refused> {
        self.change_one(
            (Kind::Archive, name),
            |snapshot| snapshot.archive(name),
            |draft, archive| {
                draft.change_archive(&archive.name, change);
                Ok(())
            },
        )
    }

    /// Changes an object that is there, and gives it as it is then.
    fn change_one<T>(
        &self,
        (kind, name): (Kind, &str),
        find: impl Fn(&Snapshot) -> Option<&Arc<T>>,
        change: impl FnOnce(&mut Draft<'_>, &T) -> Result<(), String>,
    ) -> Result<Arc<T>, Refused> {
        let found = |snapshot: &Snapshot| {
            let found = find(snapshot).cloned();
            found.ok_or_else(|| Refused::not_found(kind, name))
        };
        self.change(Run::Commit, |draft| {
            let object = found(&draft.snapshot)?;
            change(draft, &object).map_err(Refused::Conflict)
        })?;
        found(&self.current())
    }
}

fn script_in(snapshot: &Snapshot, name: &str) -> Result<Arc<Script>, Refused> {
    let found = snapshot.script(name).cloned();
    found.ok_or_else(|| Refused::not_found(Kind::Script, name))
}
