//! Models, products and devices.

use std::sync::Arc;

use backtide_model::{AssetId, DeviceKey, Model, ObjectName, ProductKey};

use super::{
    super::{
        Device, Effect, Kind, Product, StoredTypes,
        device::{self, DeviceFile},
        model::DeclaredModel,
        product::ProductFile,
        records::{Change, Collection, Record, RecordKey},
        snapshot::AssetOwner,
    },
    Draft, Trust, product_mut, record_key,
};
use crate::secrets;

impl Draft<'_> {
    pub(super) fn put_model(&mut self, name: ObjectName, model: Model) -> Result<Effect, String> {
        let before = self.snapshot.models.get(&name);
        if before.is_some_and(|before| *before.model == model) {
            return Ok(Effect::Unchanged);
        }
        let effect = Effect::of(before.is_some());
        self.has_stale_policies = true;
        let model = Arc::new(model);
        for product in self
            .snapshot
            .products
            .values_mut()
            .filter(|p| p.model_name == name)
        {
            if self.trust == Trust::Declared {
                check_stored(self.stored, &product.name, &product.key, &model)?;
            }
            Arc::make_mut(product).model = Arc::clone(&model);
        }
        self.keep(Kind::Model, "", name.as_str(), &*model);
        self.snapshot
            .models
            .insert(name.clone(), DeclaredModel { name, model });
        Ok(effect)
    }

    pub(super) fn put_product(
        &mut self,
        name: ObjectName,
        file: ProductFile,
    ) -> Result<Effect, String> {
        let model = self.snapshot.models.get(&file.model).ok_or_else(|| {
            format!(
                "model {} is not declared; declare it in the same or an earlier file",
                file.model
            )
        })?;
        let model = Arc::clone(&model.model);
        let before = self.snapshot.products.get(&name).cloned();
        let key = match (file.key, &before) {
            (Some(key), _) => key,
            (None, Some(before)) => before.key.clone(),
            (None, None) => self.free_product_key(),
        };
        if let Some(owner) = self.snapshot.keys.get(&key)
            && *owner != name
        {
            return Err(format!("key {key} belongs to product {owner} already"));
        }
        if let Some(before) = &before
            && before.key != key
        {
            if !before.devices.is_empty() || !before.channels.is_empty() {
                return Err(format!(
                    "key {} cannot change to {key}: the product has {} devices and {} channels",
                    before.key,
                    before.devices.len(),
                    before.channels.len()
                ));
            }
            self.snapshot.keys.remove(&before.key);
        }
        if self.trust == Trust::Declared {
            check_stored(self.stored, &name, &key, &model)?;
        }
        let product = Product {
            key,
            model_name: file.model,
            model,
            format: file.format,
            description: file.description,
            devices: before
                .as_ref()
                .map(|p| Arc::clone(&p.devices))
                .unwrap_or_default(),
            channels: before
                .as_ref()
                .map(|p| p.channels.clone())
                .unwrap_or_default(),
            script: before.as_ref().and_then(|p| p.script.clone()),
            name,
        };
        if let Some(script) = &product.script
            && product.is_json()
        {
            return Err(format!(
                "format json has no use for script {}; delete that first",
                script.name
            ));
        }
        if before
            .as_ref()
            .is_some_and(|before| before.file() == product.file())
        {
            return Ok(Effect::Unchanged);
        }
        self.has_stale_policies = true;
        self.keep(Kind::Product, "", product.name.as_str(), &product.file());
        self.snapshot
            .keys
            .insert(product.key.clone(), product.name.clone());
        self.snapshot
            .products
            .insert(product.name.clone(), Arc::new(product));
        Ok(Effect::of(before.is_some()))
    }

    fn free_product_key(&self) -> ProductKey {
        loop {
            let key = ProductKey::new(&secrets::random_alphanumeric(8))
                .expect("letters and digits are a key");
            if !self.snapshot.keys.contains_key(&key) {
                return key;
            }
        }
    }

    pub(super) fn put_device(
        &mut self,
        name: ObjectName,
        file: DeviceFile,
    ) -> Result<Effect, String> {
        let Some(product) = self.snapshot.products.get(&file.product) else {
            return Err(format!("product {} is not declared", file.product));
        };
        if self.trust == Trust::Declared {
            device::check(&file, &product.model)?;
        }
        let before = product.devices.named(name.as_str()).cloned();
        let key = match (file.key, &before) {
            (Some(key), _) => key,
            (None, Some(before)) => before.key.clone(),
            (None, None) => DeviceKey::new(name.as_str()).map_err(|error| {
                format!("its name cannot serve as its key ({error}); give a key")
            })?,
        };
        if let Some(other) = product.devices.get(key.as_str())
            && other.name != name
        {
            return Err(format!(
                "key {key} belongs to device {} already",
                other.name
            ));
        }
        if let Some(before) = &before
            && before.key != key
        {
            return Err(format!(
                "key {} cannot change to {key}: its history is kept under its key",
                before.key
            ));
        }
        let owner = AssetOwner {
            product_key: product.key.clone(),
            device_key: key.clone(),
        };
        let asset_id = self.asset_id(file.asset_id, before.as_deref(), &owner)?;
        let device = Device {
            name,
            product: product.name.clone(),
            key,
            asset_id,
            timezone: file.timezone,
            attributes: file.attributes,
        };
        if before.as_deref() == Some(&device) {
            return Ok(Effect::Unchanged);
        }
        self.keep(
            Kind::Device,
            device.product.as_str(),
            device.name.as_str(),
            &device.file(),
        );
        let assets = Arc::make_mut(&mut self.snapshot.assets);
        if assets.retired.remove(&owner).is_some() {
            self.changes.push(Change::Remove(retired_key(&owner)));
        }
        assets.owners.insert(device.asset_id.clone(), owner);
        let product = product_mut(&mut self.snapshot, &device.product);
        Arc::make_mut(&mut product.devices).put(&Arc::new(device));
        Ok(Effect::of(before.is_some()))
    }

    /// The asset id of a device: for ever the same.
    fn asset_id(
        &self,
        given: Option<AssetId>,
        before: Option<&Device>,
        owner: &AssetOwner,
    ) -> Result<AssetId, String> {
        let assets = &self.snapshot.assets;
        let known = before
            .map(|device| &device.asset_id)
            .or_else(|| assets.retired.get(owner));
        match (given, known) {
            (None, Some(known)) => Ok(known.clone()),
            (Some(given), Some(known)) if given == *known => Ok(given),
            (Some(given), Some(known)) => Err(format!(
                "assetId {known} cannot change to {given}: its history is known by it"
            )),
            (Some(given), None) => match assets.owners.get(&given) {
                Some(other) => Err(format!(
                    "assetId {given} was given to device {} of product key {} already",
                    other.device_key, other.product_key
                )),
                None => Ok(given),
            },
            // 22 of 62: as hard to meet twice as a UUID.
            (None, None) => Ok(AssetId::new(&secrets::random_alphanumeric(22))
                .expect("letters and digits are an asset id")),
        }
    }

    pub(in crate::registry) fn remove_model(&mut self, name: &ObjectName) {
        self.snapshot.models.remove(name);
        self.forget(Collection::Model, "", name.as_str());
    }

    pub(in crate::registry) fn remove_product(&mut self, product: &Product) {
        self.snapshot.products.remove(&product.name);
        self.snapshot.keys.remove(&product.key);
        self.forget(Collection::Product, "", product.name.as_str());
    }

    /// Its asset id stays taken: the history is still there.
    pub(in crate::registry) fn remove_device(&mut self, product: &Product, device: &Device) {
        let owner = AssetOwner {
            product_key: product.key.clone(),
            device_key: device.key.clone(),
        };
        self.forget(
            Collection::Device,
            product.name.as_str(),
            device.name.as_str(),
        );
        self.changes.push(Change::Put(Record {
            key: retired_key(&owner),
            body: serde_json::to_string(&device.asset_id).expect("a text is JSON"),
        }));
        let assets = Arc::make_mut(&mut self.snapshot.assets);
        assets.retired.insert(owner, device.asset_id.clone());
        let product = product_mut(&mut self.snapshot, &product.name);
        Arc::make_mut(&mut product.devices).remove(device);
    }
}

fn retired_key(owner: &AssetOwner) -> RecordKey {
    record_key(
        Collection::RetiredAsset,
        owner.product_key.as_str(),
        owner.device_key.as_str(),
    )
}

/// A point keeps the type that its values are stored as.
fn check_stored(
    stored: &dyn StoredTypes,
    product: &ObjectName,
    key: &ProductKey,
    model: &Model,
) -> Result<(), String> {
    for (name, point) in &model.measurepoints {
        match stored.stored_as(key, name) {
            Some(before) if before != point.data_type.storage() => {
                return Err(format!(
                    "point {name} of product {product} has values stored as {}, {} would be stored \
                     as {}; declare a point of another name",
                    word(before),
                    point.data_type.word(),
                    word(point.data_type.storage()),
                ));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

fn word(storage: backtide_model::Storage) -> String {
    format!("{storage:?}").to_lowercase()
}
