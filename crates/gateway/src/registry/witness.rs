//! What a change made of the records that were there, for whoever keeps a trail.

use super::records::{Change, Records, RecordsError};

/// A record of the registry that is another now. Texts are JSON; channel secrets in them are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altered {
    /// The collection, such as `device` or `login`.
    pub kind: &'static str,
    /// Its owner, where it has one, a slash, and its name.
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Records of one change that are told with what they were; the rest is counted.
pub(super) const ALTERED_MAX: usize = 1_000;

/// Is told of every change after it was committed, in order: its records, and how many more.
pub type Witness = Box<dyn Fn(Vec<Altered>, usize) + Send + Sync>;

/// What changes about to be committed make of the records that are there.
pub(super) fn altered(
    records: &mut dyn Records,
    changes: &[Change],
) -> Result<Vec<Altered>, RecordsError> {
    let mut altered = Vec::new();
    for change in changes.iter().take(ALTERED_MAX) {
        let (key, after) = match change {
            Change::Put(record) => (&record.key, Some(record.body.clone())),
            Change::Remove(key) => (key, None),
        };
        let before = records.body(key)?;
        if before == after || !key.collection.is_told() {
            continue;
        }
        let name = match key.owner.as_str() {
            "" => key.name.clone(),
            owner => format!("{owner}/{}", key.name),
        };
        altered.push(Altered {
            kind: key.collection.word(),
            name,
            before,
            after,
        });
    }
    Ok(altered)
}
