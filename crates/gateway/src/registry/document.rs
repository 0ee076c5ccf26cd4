//! Object files: YAML of many documents, or JSON (an object, an array of objects, or one after the
//! other), read into declarations.
//!
//! Every document is read, so that one answer names every fault, with its line.

use std::fmt;

use backtide_model::{ChannelName, Model, ObjectName};
use serde::{
    Deserialize,
    de::{
        DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor,
        value::MapAccessDeserializer,
    },
};
use serde_json::value::RawValue;

use super::{
    Kind, access_key::AccessKeyFile, archive::ArchiveFile, channel::ChannelFile,
    device::DeviceFile, policy::PolicyFile, product::ProductFile, rule::RuleFile,
    script::ScriptFile, subscription::SubscriptionFile, thing_model,
};

/// How an object file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Yaml,
    Json,
}

/// Where a document stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub document: usize,
    /// Of its first character, from 1.
    pub line: usize,
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    /// What it declares, such as `device R80711`, where that much was readable.
    pub object: Option<String>,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// A document, well formed by itself.
#[derive(Debug, Clone)]
pub struct Document {
    pub place: Place,
    pub declared: Declared,
}

/// What a document declares: its name, and what its kind's file says.
#[derive(Debug, Clone)]
pub enum Declared {
    Model(ObjectName, Box<Model>),
    Product(ObjectName, ProductFile),
    Device(ObjectName, DeviceFile),
    Channel(ChannelName, ChannelFile),
    Script(ObjectName, Box<ScriptFile>),
    AccessKey(ObjectName, AccessKeyFile),
    Subscription(ObjectName, Box<SubscriptionFile>),
    Policy(ObjectName, Box<PolicyFile>),
    Rule(ObjectName, Box<RuleFile>),
    Archive(ObjectName, Box<ArchiveFile>),
}

impl Declared {
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Model(..) => Kind::Model,
            Self::Product(..) => Kind::Product,
            Self::Device(..) => Kind::Device,
            Self::Channel(..) => Kind::Channel,
            Self::Script(..) => Kind::Script,
            Self::AccessKey(..) => Kind::AccessKey,
            Self::Subscription(..) => Kind::Subscription,
            Self::Policy(..) => Kind::Policy,
            Self::Rule(..) => Kind::Rule,
            Self::Archive(..) => Kind::Archive,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Model(name, _)
            | Self::Product(name, _)
            | Self::Device(name, _)
            | Self::Script(name, _)
            | Self::AccessKey(name, _)
            | Self::Subscription(name, _)
            | Self::Policy(name, _)
            | Self::Rule(name, _)
            | Self::Archive(name, _) => name.as_str(),
            Self::Channel(name, _) => name.as_str(),
        }
    }

    /// The product that its name is unique in; only devices have one.
    pub fn owner(&self) -> &str {
        match self {
            Self::Device(_, file) => file.product.as_str(),
            Self::Model(..)
            | Self::Product(..)
            | Self::Channel(..)
            | Self::Script(..)
            | Self::AccessKey(..)
            | Self::Subscription(..)
            | Self::Policy(..)
            | Self::Rule(..)
            | Self::Archive(..) => "",
        }
    }

    /// `device R80711`.
    pub fn object(&self) -> String {
        format!("{} {}", self.kind(), self.name())
    }
}

/// Reads every document of `text`.
///
/// # Errors
/// Every fault found.
pub fn read(text: &str, form: Form) -> Result<Vec<Document>, Vec<Fault>> {
    let mut reader = Reader {
        documents: Vec::new(),
        faults: Vec::new(),
    };
    // Files from other systems begin with a byte order mark.
    let text = text.trim_start_matches('\u{feff}');
    match form {
        Form::Yaml => reader.yaml(text),
        Form::Json => reader.json(text),
    }
    if reader.faults.is_empty() {
        Ok(reader.documents)
    } else {
        Err(reader.faults)
    }
}

/// Reads one declaration that [`read`] took before.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read_json(text: &str) -> Result<Declared, String> {
    let mut object = None;
    let mut json = serde_json::Deserializer::from_str(text);
    Header {
        object: &mut object,
    }
    .deserialize(&mut json)
    .map_err(|error| error.to_string())
}

struct Reader {
    documents: Vec<Document>,
    faults: Vec<Fault>,
}

impl Reader {
    fn yaml(&mut self, text: &str) {
        let options = serde_saphyr::options! { with_snippet: false };
        for (first_line, chunk) in yaml_documents(text) {
            let line = first_line + chunk.lines().take_while(|line| is_blank(line)).count();
            let place = Place {
                document: self.next_document(),
                line,
            };
            let mut object = None;
            let read = serde_saphyr::with_deserializer_from_str_with_options(
                chunk,
                options.clone(),
                |yaml| {
                    Header {
                        object: &mut object,
                    }
                    .deserialize(yaml)
                },
            );
            match read {
                Ok(declared) => self.documents.push(Document { place, declared }),
                Err(_) if object.is_none() && self.thing_model(chunk, place) => {}
                Err(error) => {
                    let at = error
                        .location()
                        .and_then(|at| usize::try_from(at.line()).ok());
                    let line = at.map_or(line, |at| first_line + at.saturating_sub(1));
                    let message = yaml_message(&error);
                    self.faults.push(Fault {
                        place: Place { line, ..place },
                        object,
                        message,
                    });
                }
            }
        }
    }

    fn json(&mut self, text: &str) {
        let mut lines = Lines {
            text,
            offset: 0,
            line: 1,
        };
        for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
            match value {
                Ok(value) if value.get().starts_with('[') => {
                    match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
                        Ok(objects) => {
                            objects
                                .iter()
                                .for_each(|object| self.json_object(object, &mut lines));
                        }
                        Err(error) => self.json_fault(&error, lines.at(value.get()), None),
                    }
                }
                Ok(value) => self.json_object(value, &mut lines),
                Err(error) => self.json_fault(&error, 1, None),
            }
        }
    }

    fn json_object(&mut self, value: &RawValue, lines: &mut Lines<'_>) {
        let line = lines.at(value.get());
        let mut object = None;
        let mut json = serde_json::Deserializer::from_str(value.get());
        match (Header {
            object: &mut object,
        })
        .deserialize(&mut json)
        {
            Ok(declared) => {
                let place = Place {
                    document: self.next_document(),
                    line,
                };
                self.documents.push(Document { place, declared });
            }
            Err(error) => {
                let place = Place {
                    document: self.next_document(),
                    line,
                };
                if object.is_some() || !self.thing_model(value.get(), place) {
                    self.json_fault(&error, line, object);
                }
            }
        }
    }

    /// Takes a document without a kind that is a thing model of the vendor.
    fn thing_model(&mut self, text: &str, place: Place) -> bool {
        match thing_model::read_text(text) {
            None => return false,
            Some(Ok((name, model))) => self.documents.push(Document {
                place,
                declared: Declared::Model(name, Box::new(model)),
            }),
            Some(Err(message)) => self.faults.push(Fault {
                place,
                object: Some("thing model".to_owned()),
                message,
            }),
        }
        true
    }

    fn json_fault(&mut self, error: &serde_json::Error, line: usize, object: Option<String>) {
        let place = Place {
            document: self.next_document(),
            line: line + error.line().saturating_sub(1),
        };
        // The place is told beside; serde_json appends it to the text as well.
        let text = error.to_string();
        let message = text
            .split(" at line ")
            .next()
            .unwrap_or_default()
            .to_owned();
        self.faults.push(Fault {
            place,
            object,
            message,
        });
    }

    fn next_document(&self) -> usize {
        self.documents.len() + self.faults.len() + 1
    }
}

/// The documents of a YAML stream, each with the line it begins at. A line of `---` begins a
/// document wherever it stands: YAML forbids it inside of any scalar (1.2.2, `c-forbidden`).
fn yaml_documents(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    let mut line = 1;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len();
        let mut from = 0;
        while let Some(at) = rest.get(from..).and_then(|text| text.find("\n---")) {
            let at = from + at;
            let after = rest.as_bytes().get(at + 4);
            if after.is_none_or(u8::is_ascii_whitespace) {
                end = at + 1;
                break;
            }
            from = at + 4;
        }
        let (document, remainder) = rest.split_at(end);
        rest = remainder;
        let first = line;
        line += document.bytes().filter(|byte| *byte == b'\n').count();
        Some((first, document))
    })
    .filter(|(_, document)| !is_blank(document))
}

/// Nothing but comments, blanks and the document's own marker.
fn is_blank(document: &str) -> bool {
    document.lines().all(|line| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        line.is_empty() || line.starts_with('#') || line == "..."
    })
}

/// The text of an error without its place, which is told beside.
fn yaml_message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.split(" at line ")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Counts lines up to a part of the text; parts are asked for in ascending order.
struct Lines<'t> {
    text: &'t str,
    offset: usize,
    line: usize,
}

impl Lines<'_> {
    fn at(&mut self, part: &str) -> usize {
        // `part` is borrowed from `text`: the distance of their beginnings is its offset.
        let offset = part
            .as_ptr()
            .addr()
            .saturating_sub(self.text.as_ptr().addr());
        let between = self
            .text
            .as_bytes()
            .get(self.offset..offset)
            .unwrap_or_default();
        self.line += between.iter().filter(|byte| **byte == b'\n').count();
        self.offset = offset.max(self.offset);
        self.line
    }
}

/// Reads a document. Leaves in `object` what it declares as soon as that is known, so that a fault
/// behind it can be told with its name.
struct Header<'o> {
    object: &'o mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Header<'_> {
    type Value = Declared;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Declared, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Header<'_> {
    type Value = Declared;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with kind and name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Declared, A::Error> {
        // `kind` stands first in a file that a person wrote; a program may have sorted the members.
        let mut early = Vec::new();
        let word = loop {
            match map.next_key::<String>()? {
                Some(key) if key == "kind" => break map.next_value::<String>()?,
                Some(key) => early.push((key, map.next_value()?)),
                None => return Err(A::Error::missing_field("kind")),
            }
        };
        let kind = Kind::from_word(&word).ok_or_else(|| {
            let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.word()).collect();
            A::Error::custom(format!(
                "kind {word:?} is unknown; known are {}",
                known.join(", ")
            ))
        })?;
        let mut name = None;
        let members = MapAccessDeserializer::new(Members {
            map,
            early: early.into_iter(),
            value: None,
            kind,
            name: &mut name,
            object: self.object,
        });
        let body = match kind {
            Kind::Model => Body::Model(Box::new(Model::deserialize(members)?)),
            Kind::Product => Body::Product(ProductFile::deserialize(members)?),
            Kind::Device => Body::Device(DeviceFile::deserialize(members)?),
            Kind::Channel => Body::Channel(ChannelFile::deserialize(members)?),
            Kind::Script => Body::Script(Box::new(ScriptFile::deserialize(members)?)),
            Kind::AccessKey => Body::AccessKey(AccessKeyFile::deserialize(members)?),
            Kind::Subscription => {
                Body::Subscription(Box::new(SubscriptionFile::deserialize(members)?))
            }
            Kind::Policy => Body::Policy(Box::new(PolicyFile::deserialize(members)?)),
            Kind::Rule => Body::Rule(Box::new(RuleFile::deserialize(members)?)),
            Kind::Archive => Body::Archive(Box::new(ArchiveFile::deserialize(members)?)),
        };
        let name = name.ok_or_else(|| A::Error::missing_field("name"))?;
        body.named(&name).map_err(A::Error::custom)
    }
}

/// A declaration whose name may still be to come.
enum Body {
    Model(Box<Model>),
    Product(ProductFile),
    Device(DeviceFile),
    Channel(ChannelFile),
    Script(Box<ScriptFile>),
    AccessKey(AccessKeyFile),
    Subscription(Box<SubscriptionFile>),
    Policy(Box<PolicyFile>),
    Rule(Box<RuleFile>),
    Archive(Box<ArchiveFile>),
}

impl Body {
    fn named(self, name: &str) -> Result<Declared, backtide_model::NameError> {
        Ok(match self {
            Self::Model(file) => Declared::Model(ObjectName::new(name)?, file),
            Self::Product(file) => Declared::Product(ObjectName::new(name)?, file),
            Self::Device(file) => Declared::Device(ObjectName::new(name)?, file),
            Self::Channel(file) => Declared::Channel(ChannelName::new(name)?, file),
            Self::Script(file) => Declared::Script(ObjectName::new(name)?, file),
            Self::AccessKey(file) => Declared::AccessKey(ObjectName::new(name)?, file),
            Self::Subscription(file) => Declared::Subscription(ObjectName::new(name)?, file),
            Self::Policy(file) => Declared::Policy(ObjectName::new(name)?, file),
            Self::Rule(file) => Declared::Rule(ObjectName::new(name)?, file),
            Self::Archive(file) => Declared::Archive(ObjectName::new(name)?, file),
        })
    }
}

/// The members of a document but `kind` and `name`: what the file of a kind says.
struct Members<'o, A> {
    map: A,
    early: std::vec::IntoIter<(String, serde_json::Value)>,
    /// Of the key given out last, where it came early.
    value: Option<serde_json::Value>,
    kind: Kind,
    name: &'o mut Option<String>,
    object: &'o mut Option<String>,
}

impl<A> Members<'_, A> {
    fn take_name(&mut self, name: String) {
        *self.object = Some(format!("{} {name}", self.kind));
        *self.name = Some(name);
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        for (key, value) in self.early.by_ref() {
            if key == "name" {
                let serde_json::Value::String(name) = value else {
                    return Err(A::Error::custom("name is not a text"));
                };
                // Not `take_name`: the iterator is borrowed.
                *self.object = Some(format!("{} {name}", self.kind));
                *self.name = Some(name);
                continue;
            }
            self.value = Some(value);
            return seed.deserialize(key.into_deserializer()).map(Some);
        }
        while let Some(key) = self.map.next_key::<String>()? {
            if key == "name" && self.name.is_none() {
                let name = self.map.next_value()?;
                self.take_name(name);
                continue;
            }
            return seed.deserialize(key.into_deserializer()).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(value).map_err(A::Error::custom),
            None => self.map.next_value_seed(seed),
        }
    }
}
