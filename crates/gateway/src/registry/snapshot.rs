//! What readers see: everything declared, at one moment, in memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use backtide_model::{AssetId, ChannelName, DeviceKey, ObjectName, ProductKey};

use super::{
    AccessKey, Archive, Channel, Device, Product, Rule, Script, Subscription, model::DeclaredModel,
    policy::Policies,
};

/// The devices of a product, by key and by name.
#[derive(Debug, Clone, Default)]
pub struct Devices {
    by_key: HashMap<DeviceKey, Arc<Device>>,
    by_name: BTreeMap<ObjectName, Arc<Device>>,
}

impl Devices {
    /// The device of this key; what a message asks for each of its items.
    pub fn get(&self, key: &str) -> Option<&Arc<Device>> {
        self.by_key.get(key)
    }

    pub fn named(&self, name: &str) -> Option<&Arc<Device>> {
        self.by_name.get(name)
    }

    /// In the order of their names, those after `after`.
    pub fn after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<Device>> {
        self.by_name
            .range::<str, _>((beyond(after), std::ops::Bound::Unbounded))
            .map(|(_, d)| d)
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn put(&mut self, device: &Arc<Device>) {
        self.by_key.insert(device.key.clone(), Arc::clone(device));
        self.by_name.insert(device.name.clone(), Arc::clone(device));
    }

    pub(super) fn remove(&mut self, device: &Device) {
        self.by_key.remove(&device.key);
        self.by_name.remove(&device.name);
    }
}

/// Where an asset id belongs, for ever: the device may be gone, its history is not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AssetOwner {
    pub product_key: ProductKey,
    pub device_key: DeviceKey,
}

/// Everything declared, at one moment. Cheap to hold; never changes.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grows by one with every change.
    pub version: u64,
    pub(super) models: BTreeMap<ObjectName, DeclaredModel>,
    pub(super) products: BTreeMap<ObjectName, Arc<Product>>,
    pub(super) keys: HashMap<ProductKey, ObjectName>,
    pub(super) channels: BTreeMap<ChannelName, Arc<Channel>>,
    pub(super) scripts: BTreeMap<ObjectName, Arc<Script>>,
    pub(super) access_keys: BTreeMap<ObjectName, Arc<AccessKey>>,
    pub(super) subscriptions: BTreeMap<ObjectName, Arc<Subscription>>,
    pub(super) policies: Arc<Policies>,
    pub(super) rules: BTreeMap<ObjectName, Arc<Rule>>,
    pub(super) archives: BTreeMap<ObjectName, Arc<Archive>>,
    /// The default rules were made, whatever became of them.
    pub(super) has_made_rules: bool,
    pub(super) assets: Arc<Assets>,
}

/// Every asset id that was ever given.
#[derive(Debug, Clone, Default)]
pub(super) struct Assets {
    pub(super) owners: HashMap<AssetId, AssetOwner>,
    /// Of devices that were deleted: declared again, they are the same asset again.
    pub(super) retired: HashMap<AssetOwner, AssetId>,
}

impl Snapshot {
    /// The product of this key; what a login asks for.
    pub fn product_by_key(&self, key: impl AsRef<str>) -> Option<&Arc<Product>> {
        self.products.get(self.keys.get(key.as_ref())?)
    }

    /// The product of this name.
    pub fn product(&self, name: impl AsRef<str>) -> Option<&Arc<Product>> {
        self.products.get(name.as_ref())
    }

    pub fn channel(&self, name: impl AsRef<str>) -> Option<&Arc<Channel>> {
        self.channels.get(name.as_ref())
    }

    pub fn script(&self, name: impl AsRef<str>) -> Option<&Arc<Script>> {
        self.scripts.get(name.as_ref())
    }

    /// In the order of their names, those after `after`.
    pub fn scripts_after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<Script>> {
        self.scripts
            .range::<str, _>((beyond(after), std::ops::Bound::Unbounded))
            .map(|(_, s)| s)
    }

    /// The channels of the product of this name, of any state, in the order of their names.
    pub fn channels_of(&self, product: impl AsRef<str>) -> impl Iterator<Item = &Arc<Channel>> {
        self.product(product)
            .into_iter()
            .flat_map(|product| &product.channels)
    }

    pub fn model(&self, name: &str) -> Option<&DeclaredModel> {
        self.models.get(name)
    }

    pub fn access_key(&self, name: impl AsRef<str>) -> Option<&Arc<AccessKey>> {
        self.access_keys.get(name.as_ref())
    }

    /// The access key that goes by this GUID on the wire.
    pub fn access_key_by_key(&self, key: &str) -> Option<&Arc<AccessKey>> {
        // Few, and each comparison ends at the first letter: a map would be one more thing to keep true.
        self.access_keys.values().find(|known| *known.key == *key)
    }

    pub fn subscription(&self, name: impl AsRef<str>) -> Option<&Arc<Subscription>> {
        self.subscriptions.get(name.as_ref())
    }

    pub fn rule(&self, name: impl AsRef<str>) -> Option<&Arc<Rule>> {
        self.rules.get(name.as_ref())
    }

    /// In the order of their names, those after `after`.
    pub fn rules_after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules
            .range::<str, _>((beyond(after), std::ops::Bound::Unbounded))
            .map(|(_, rule)| rule)
    }

    pub fn archive(&self, name: impl AsRef<str>) -> Option<&Arc<Archive>> {
        self.archives.get(name.as_ref())
    }

    /// In the order of their names, those after `after`.
    pub fn archives_after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<Archive>> {
        self.archives
            .range::<str, _>((beyond(after), std::ops::Bound::Unbounded))
            .map(|(_, archive)| archive)
    }

    /// The device of this asset id, unless it was deleted.
    pub fn asset(&self, id: &str) -> Option<(&Arc<Product>, &Arc<Device>)> {
        let owner = self.assets.owners.get(id)?;
        let product = self.product_by_key(&owner.product_key)?;
        Some((product, product.devices.get(owner.device_key.as_str())?))
    }

    /// The asset id of a device, also of one that was deleted.
    pub fn asset_of(&self, product_key: &ProductKey, device_key: &DeviceKey) -> Option<&AssetId> {
        if let Some(device) = self
            .product_by_key(product_key)
            .and_then(|product| product.devices.get(device_key.as_str()))
        {
            return Some(&device.asset_id);
        }
        self.assets.retired.get(&AssetOwner {
            product_key: product_key.clone(),
            device_key: device_key.clone(),
        })
    }

    /// Every device of this key, with its product: one where the key is unambiguous.
    pub fn devices_of_key(&self, key: &str) -> impl Iterator<Item = (&Arc<Product>, &Arc<Device>)> {
        self.products
            .values()
            .filter_map(move |product| Some((product, product.devices.get(key)?)))
    }

    /// Every device of this name, with its product.
    pub fn devices_named(&self, name: &str) -> impl Iterator<Item = (&Arc<Product>, &Arc<Device>)> {
        self.products
            .values()
            .filter_map(move |product| Some((product, product.devices.named(name)?)))
    }

    /// In the order of their names, those after `after`.
    pub fn models_after(&self, after: Option<&str>) -> impl Iterator<Item = &DeclaredModel> {
        self.models
            .range::<str, _>((beyond(after), std::ops::Bound::Unbounded))
            .map(|(_, m)| m)
    }

    /// In the order of their names, those after `after`.
    pub fn products_after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<Product>> {
        self.products
            .range::<str, _>((beyond(after), std::ops::Bound::Unbounded))
            .map(|(_, p)| p)
    }

    /// In the order of their names, those after `after`.
    pub fn channels_after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<Channel>> {
        self.channels
            .range::<str, _>((beyond(after), std::ops::Bound::Unbounded))
            .map(|(_, c)| c)
    }

    /// In the order of their names, those after `after`.
    pub fn access_keys_after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<AccessKey>> {
        self.access_keys
            .range::<str, _>((beyond(after), std::ops::Bound::Unbounded))
            .map(|(_, key)| key)
    }

    /// In the order of their names, those after `after`.
    pub fn subscriptions_after(
        &self,
        after: Option<&str>,
    ) -> impl Iterator<Item = &Arc<Subscription>> {
        self.subscriptions
            .range::<str, _>((beyond(after), std::ops::Bound::Unbounded))
            .map(|(_, subscription)| subscription)
    }

    /// In the order of their products' names, then their own, those after `after` (product, name).
    pub fn devices_after<'s>(
        &'s self,
        after: Option<(&'s str, &'s str)>,
    ) -> impl Iterator<Item = &'s Arc<Device>> {
        let rest_of_first = after
            .and_then(|(product, name)| Some((self.products.get(product)?, name)))
            .map(|(product, name)| product.devices.after(Some(name)));
        let others = self.products_after(after.map(|(product, _)| product));
        rest_of_first
            .into_iter()
            .flatten()
            .chain(others.flat_map(|p| p.devices.after(None)))
    }

    pub fn devices_len(&self) -> usize {
        self.products
            .values()
            .map(|product| product.devices.len())
            .sum()
    }
}

pub(super) fn beyond(after: Option<&str>) -> std::ops::Bound<&str> {
    after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded)
}
