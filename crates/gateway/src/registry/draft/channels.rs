//! Channels and access keys: who may bring history, and who may ask for it.

use std::sync::Arc;

use backtide_model::{ChannelName, ObjectName};

use super::{
    super::{
        AccessKey, Channel, ENABLED_CHANNELS_MAX, Effect, Kind, Product,
        access_key::{self, AccessKeyFile, Credential},
        channel::{self, ChannelFile, Login},
        records::Collection,
    },
    Draft, Trust, product_mut,
};
use crate::secrets;

impl Draft<'_> {
    pub(super) fn put_channel(
        &mut self,
        name: ChannelName,
        file: ChannelFile,
    ) -> Result<Effect, String> {
        channel::check(&file)?;
        let Some(product) = self.snapshot.products.get(&file.product) else {
            return Err(format!("product {} is not declared", file.product));
        };
        let before = self.snapshot.channels.get(&name).cloned();
        if let Some(before) = &before
            && before.product != file.product
        {
            return Err(format!(
                "it belongs to product {} and stays there; declare a channel of another name",
                before.product
            ));
        }
        if before.as_ref().is_some_and(|before| before.file() == file) {
            return Ok(Effect::Unchanged);
        }
        if before.is_none() && self.trust == Trust::Declared {
            check_room(product)?;
        }
        let product_key = product.key.clone();
        let kept = match &before {
            Some(before) => Some(Login::of(before)),
            None => self.logins.remove(name.as_str()),
        };
        let is_new = kept.is_none();
        let login = kept.unwrap_or_else(|| Login::new(self.now_ms));
        self.keep(Kind::Channel, "", name.as_str(), &file);
        let channel = Channel {
            name,
            product: file.product,
            product_key,
            mode: file.mode,
            stamp_arrival: file.stamp_arrival,
            conflict: file.conflict,
            connections_max: file.connections_max,
            client_certificate: file.client_certificate,
            quotas: file.quotas,
            refuse: file.refuse,
            error_budget: file.error_budget,
            description: file.description,
            paused: login.paused,
            held: login.held,
            created_ms: login.created_ms,
            secret: login.secret,
            previous: login.previous,
        };
        if is_new {
            self.keep_login(&channel);
        }
        self.set_channel(channel);
        Ok(Effect::of(before.is_some()))
    }

    /// Changes what `apply` does not say about a channel.
    pub(in crate::registry) fn relogin(
        &mut self,
        name: &ChannelName,
        change: impl FnOnce(&mut Channel),
    ) -> Result<(), String> {
        let before = &self.snapshot.channels[name];
        let mut channel = Channel::clone(before);
        change(&mut channel);
        if before.paused && !channel.paused {
            check_room(&self.snapshot.products[&channel.product])?;
        }
        self.keep_login(&channel);
        self.set_channel(channel);
        Ok(())
    }

    fn set_channel(&mut self, channel: Channel) {
        self.has_stale_policies = true;
        let channel = Arc::new(channel);
        let product = product_mut(&mut self.snapshot, &channel.product);
        match product
            .channels
            .binary_search_by(|other| other.name.cmp(&channel.name))
        {
            Ok(at) => product.channels[at] = Arc::clone(&channel),
            Err(at) => product.channels.insert(at, Arc::clone(&channel)),
        }
        self.snapshot.channels.insert(channel.name.clone(), channel);
    }

    fn keep_login(&mut self, channel: &Channel) {
        let body = channel.login_record(self.seal);
        self.keep_beside(Collection::Login, channel.name.as_str(), body);
    }

    pub(in crate::registry) fn remove_channel(&mut self, channel: &Channel) {
        self.has_stale_policies = true;
        self.snapshot.channels.remove(&channel.name);
        let product = product_mut(&mut self.snapshot, &channel.product);
        product.channels.retain(|other| other.name != channel.name);
        self.forget(Collection::Channel, "", channel.name.as_str());
        self.forget(Collection::Login, "", channel.name.as_str());
    }

    pub(super) fn put_access_key(
        &mut self,
        name: ObjectName,
        file: AccessKeyFile,
    ) -> Result<Effect, String> {
        access_key::check(&file)?;
        if let Some(channel) = file
            .channels
            .iter()
            .find(|name| self.snapshot.channel(name.as_str()).is_none())
        {
            return Err(format!("channel {channel} is not declared"));
        }
        let before = self.snapshot.access_keys.get(&name).cloned();
        let key = match (file.key, &before) {
            (Some(given), Some(before)) if given != before.key => {
                return Err(format!(
                    "key {} cannot change to {given}: applications log in with it",
                    before.key
                ));
            }
            (_, Some(before)) => before.key.clone(),
            (Some(given), None) => given,
            (None, None) => secrets::guid().into(),
        };
        let others = self.snapshot.access_keys.values();
        if let Some(other) = others
            .filter(|other| other.name != name)
            .find(|other| other.key == key)
        {
            return Err(format!("key {key} belongs to access key {}", other.name));
        }
        let kept = match &before {
            Some(before) => Some(Credential::of(before)),
            None => self.credentials.remove(name.as_str()),
        };
        let is_new = kept.is_none();
        let credential = kept.unwrap_or_else(|| Credential::new(self.now_ms));
        let key = AccessKey {
            name,
            key,
            description: file.description,
            rights: file.rights,
            channels: file.channels,
            created_ms: credential.created_ms,
            issued: credential.issued,
            secret: credential.secret,
            previous: credential.previous,
        };
        if before
            .as_ref()
            .is_some_and(|before| before.file() == key.file())
        {
            return Ok(Effect::Unchanged);
        }
        self.keep(Kind::AccessKey, "", key.name.as_str(), &key.file());
        if is_new {
            self.keep_credential(&key);
        }
        self.snapshot
            .access_keys
            .insert(key.name.clone(), Arc::new(key));
        Ok(Effect::of(before.is_some()))
    }

    /// Changes what `apply` does not say about an access key.
    pub(in crate::registry) fn reissue(
        &mut self,
        name: &ObjectName,
        change: impl FnOnce(&mut AccessKey),
    ) {
        let mut key = AccessKey::clone(&self.snapshot.access_keys[name]);
        change(&mut key);
        self.keep_credential(&key);
        self.snapshot
            .access_keys
            .insert(key.name.clone(), Arc::new(key));
    }

    fn keep_credential(&mut self, key: &AccessKey) {
        let body = key.credential_record(self.seal);
        self.keep_beside(Collection::Credential, key.name.as_str(), body);
    }

    pub(in crate::registry) fn remove_access_key(&mut self, name: &ObjectName) {
        self.snapshot.access_keys.remove(name);
        self.forget(Collection::AccessKey, "", name.as_str());
        self.forget(Collection::Credential, "", name.as_str());
    }
}

/// The login check tries every enabled channel of a product, so there are few of them.
fn check_room(product: &Product) -> Result<(), String> {
    if product.enabled_channels().count() < ENABLED_CHANNELS_MAX {
        return Ok(());
    }
    Err(format!(
        "product {} has {ENABLED_CHANNELS_MAX} enabled channels, the most it may have; pause or \
         delete one",
        product.name
    ))
}
