//! Names of a part: each is written once, rows say its number.

use std::collections::HashMap;

use backtide_model::NameError;

use super::wire::{DecodeError, Reader, put_count, put_str};

#[derive(Default)]
pub(super) struct Names<'a> {
    numbers: HashMap<&'a str, u64>,
    in_order: Vec<&'a str>,
}

impl<'a> Names<'a> {
    pub(super) fn of(names: impl Iterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        for name in names {
            let next = u64::try_from(all.in_order.len()).expect("a length fits 64 bits");
            all.numbers.entry(name).or_insert_with(|| {
                all.in_order.push(name);
                next
            });
        }
        all
    }

    /// Of a name that [`Names::of`] was given.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.numbers[name]
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_count(out, self.in_order.len());
        self.in_order.iter().for_each(|name| put_str(out, name));
    }
}

pub(super) fn decode<N>(
    reader: &mut Reader<'_>,
    what: &'static str,
    name: fn(&str) -> Result<N, NameError>,
) -> Result<Vec<N>, DecodeError> {
    let count = reader.count(2, what)?;
    let mut names = Vec::with_capacity(count);
    for _ in 0..count {
        names.push(name(reader.str(what)?)?);
    }
    Ok(names)
}

/// The name that a row says the number of.
pub(super) fn named<N: Clone>(
    reader: &mut Reader<'_>,
    names: &[N],
    what: &'static str,
) -> Result<N, DecodeError> {
    let number: usize = reader.number(what)?;
    names
        .get(number)
        .cloned()
        .ok_or(DecodeError::Number { what })
}
