//! Deleting what nothing uses, and who uses what.

use super::{
    Channel, Kind, NAMED_MAX, PolicyFile, Product, Refused, Registry, Rule, Run, Snapshot,
    Subscription, User, device_named,
};

impl Registry {
    /// Deletes a declaration that nothing uses. `product` tells devices of one name apart.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn delete(&self, kind: Kind, name: &str, product: Option<&str>) -> Result<(), Refused> {
        self.change(Run::Commit, |draft| {
            let snapshot = draft.snapshot.clone();
            let not_found = || Refused::not_found(kind, name);
            let unused = |users: Vec<User>| unused(kind, name, users);
            match kind {
                Kind::Model => {
                    let model = snapshot.model(name).ok_or_else(not_found)?;
                    unused(users_of_model(&snapshot, name))?;
                    draft.remove_model(&model.name);
                }
                Kind::Product => {
                    let product = snapshot.product(name).ok_or_else(not_found)?;
                    unused(users_of_product(&snapshot, product))?;
                    draft.remove_product(product);
                }
                Kind::Device => {
                    let (product, device) = device_named(&snapshot, name, product)?;
                    draft.remove_device(product, device);
                }
                Kind::Channel => {
                    let channel = snapshot.channel(name).ok_or_else(not_found)?;
                    unused(users_of_channel(&snapshot, channel))?;
                    draft.remove_channel(channel);
                }
                Kind::Script => {
                    draft.remove_script(snapshot.script(name).ok_or_else(not_found)?);
                }
                Kind::AccessKey => {
                    let key = snapshot.access_key(name).ok_or_else(not_found)?;
                    let signs = |s: &Subscription| s.file.access_key == key.name;
                    unused(subscriptions(&snapshot, signs).collect())?;
                    draft.remove_access_key(&key.name);
                }
                Kind::Subscription => {
                    let subscription = snapshot.subscription(name).ok_or_else(not_found)?;
                    draft.remove_subscription(&subscription.name);
                }
                Kind::Policy => {
                    let policy = snapshot.policy(name).ok_or_else(not_found)?;
                    draft
                        .remove_policy(&policy.name)
                        .map_err(Refused::Conflict)?;
                }
                Kind::Rule => {
                    let rule = snapshot.rule(name).ok_or_else(not_found)?;
                    draft.remove_rule(&rule.name);
                }
                Kind::Archive => {
                    let archive = snapshot.archive(name).ok_or_else(not_found)?;
                    draft.remove_archive(&archive.name);
                }
            }
            Ok(())
        })
    }
}

fn unused(kind: Kind, name: &str, users: Vec<User>) -> Result<(), Refused> {
    let more = users.len().saturating_sub(NAMED_MAX);
    match users.is_empty() {
        true => Ok(()),
        false => Err(Refused::InUse {
            kind,
            name: name.to_owned(),
            users: users.into_iter().take(NAMED_MAX).collect(),
            more,
        }),
    }
}

fn users_of_model(snapshot: &Snapshot, name: &str) -> Vec<User> {
    let products = snapshot
        .products_after(None)
        .filter(|product| product.model_name.as_str() == name)
        .map(|product| user(Kind::Product, &product.name));
    let has_it = |s: &Subscription| s.file.models.iter().any(|model| model.as_str() == name);
    let listens = |rule: &Rule| {
        let models = &rule.file.from.models;
        models.iter().any(|model| model.as_str() == name)
    };
    let is_about = |file: &PolicyFile| file.models.iter().any(|model| model.as_str() == name);
    products
        .chain(subscriptions(snapshot, has_it))
        .chain(rules(snapshot, listens))
        .chain(policies(snapshot, is_about))
        .collect()
}

fn users_of_product(snapshot: &Snapshot, product: &Product) -> Vec<User> {
    let is_about = |file: &PolicyFile| file.products.contains(&product.name);
    let listens = |rule: &Rule| rule.file.from.products.contains(&product.name);
    let channels = product.channels.iter();
    let scripts = product.script.iter();
    let devices = product.devices.after(None);
    let archives = snapshot
        .archives_after(None)
        .filter(|archive| archive.file.products.contains(&product.name));
    channels
        .map(|channel| user(Kind::Channel, &channel.name))
        .chain(scripts.map(|script| user(Kind::Script, &script.name)))
        .chain(policies(snapshot, is_about))
        .chain(devices.map(|device| user(Kind::Device, &device.name)))
        .chain(rules(snapshot, listens))
        .chain(archives.map(|archive| user(Kind::Archive, &archive.name)))
        .collect()
}

fn users_of_channel(snapshot: &Snapshot, channel: &Channel) -> Vec<User> {
    let listens = |rule: &Rule| rule.file.from.channels.contains(&channel.name);
    let is_about = |file: &PolicyFile| file.channels.contains(&channel.name);
    let keys = snapshot
        .access_keys_after(None)
        .filter(|key| key.channels.contains(&channel.name))
        .map(|key| user(Kind::AccessKey, &key.name));
    rules(snapshot, listens)
        .chain(keys)
        .chain(policies(snapshot, is_about))
        .collect()
}

fn policies(snapshot: &Snapshot, that: impl Fn(&PolicyFile) -> bool) -> impl Iterator<Item = User> {
    let all = snapshot.policies_after(None);
    all.filter(move |policy| that(&policy.file))
        .map(|policy| user(Kind::Policy, &policy.name))
}

fn rules(snapshot: &Snapshot, that: impl Fn(&Rule) -> bool) -> impl Iterator<Item = User> {
    let all = snapshot.rules_after(None);
    all.filter(move |rule| that(rule))
        .map(|rule| user(Kind::Rule, &rule.name))
}

fn subscriptions(
    snapshot: &Snapshot,
    that: impl Fn(&Subscription) -> bool,
) -> impl Iterator<Item = User> {
    let all = snapshot.subscriptions_after(None);
    all.filter(move |subscription| that(subscription))
        .map(|subscription| user(Kind::Subscription, &subscription.name))
}

fn user(kind: Kind, name: &impl ToString) -> User {
    User {
        kind,
        name: name.to_string(),
    }
}
