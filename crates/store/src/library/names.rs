//! The names of columns in files and slabs, and of files.
//!
//! A point's column has the point's name, and what belongs to it `<point>.<role>`. A point whose
//! own name could be taken for something else (`_time`, `a.quality`) is written `point:<name>`,
//! with roles `point:<name>:<role>`: no identifier has a colon.

use std::path::{Path, PathBuf};

use backtide_model::{ElementName, ProductKey};

pub(super) const DEVICE: &str = "_device";
pub(super) const TIME: &str = "_time";
pub(super) const SEQUENCE: &str = "_sequence";

/// What a column holds of its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Role {
    Value,
    Quality,
    /// The commit of a cell, where it is not the row's.
    Sequence,
    /// How the cell acts on an older one: [`super::fold::Rule`].
    Rule,
}

const ROLES: [(Role, &str); 3] = [
    (Role::Quality, "quality"),
    (Role::Sequence, "sequence"),
    (Role::Rule, "rule"),
];

pub(super) fn column_name(point: &ElementName, role: Role) -> String {
    let point = point.as_str();
    let suffix = ROLES
        .iter()
        .find(|(known, _)| *known == role)
        .map(|(_, suffix)| *suffix);
    match (is_ambiguous(point), suffix) {
        (false, None) => point.to_owned(),
        (false, Some(suffix)) => format!("{point}.{suffix}"),
        (true, None) => format!("point:{point}"),
        (true, Some(suffix)) => format!("point:{point}:{suffix}"),
    }
}

/// The column of a slab that has the values of a point.
pub fn value_column(point: &ElementName) -> String {
    column_name(point, Role::Value)
}

/// The column of a slab that has the qualities of a point's values, where any has one.
pub fn quality_column(point: &ElementName) -> String {
    column_name(point, Role::Quality)
}

fn is_ambiguous(point: &str) -> bool {
    point.starts_with('_')
        || ROLES.iter().any(|(_, suffix)| {
            point
                .strip_suffix(suffix)
                .is_some_and(|before| before.ends_with('.'))
        })
}

/// Undoes [`column_name`]; `None` for what is no point's column.
pub(super) fn parse_column(name: &str) -> Option<(ElementName, Role)> {
    let role_of = |text: &str| {
        ROLES
            .iter()
            .find(|(_, suffix)| *suffix == text)
            .map(|(role, _)| *role)
    };
    let (point, role) = match name.strip_prefix("point:") {
        Some(rest) => match rest.split_once(':') {
            Some((point, suffix)) => (point, role_of(suffix)?),
            None => (rest, Role::Value),
        },
        None if name.starts_with('_') => return None,
        None => match name
            .rsplit_once('.')
            .map(|(point, suffix)| (point, role_of(suffix)))
        {
            Some((point, Some(role))) => (point, role),
            _ => (name, Role::Value),
        },
    };
    Some((ElementName::new(point).ok()?, role))
}

/// The directory of a product's segments. A key may be `..` or hold a colon: anything but letters,
/// digits, `-` and `_` is written `%` and its hex code.
pub(super) fn product_dir(segments: &Path, product: &ProductKey) -> PathBuf {
    let mut name = String::new();
    for byte in product.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    segments.join(name)
}

pub(super) fn segment_file(segments: &Path, product: &ProductKey, id: u64) -> PathBuf {
    product_dir(segments, product).join(format!("{id:016x}.parquet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_name_reads_back_as_its_point_and_role() {
        let roles = [Role::Value, Role::Quality, Role::Sequence, Role::Rule];
        for point in [
            "P",
            "a.b",
            "a.quality",
            "_time",
            "_x.quality",
            "风",
            "a.quality.rule",
            ".rule",
        ] {
            let point = ElementName::new(point).unwrap();
            for role in roles {
                assert_eq!(
                    parse_column(&column_name(&point, role)),
                    Some((point.clone(), role))
                );
            }
        }
        assert_eq!(parse_column(TIME), None);
    }

    #[test]
    fn no_product_key_leaves_the_directory_of_segments() {
        let dir = product_dir(Path::new("segments"), &ProductKey::new("..").unwrap());
        assert_eq!(dir, Path::new("segments/%2E%2E"));
    }
}
