//! What a commit stores values for, without the values: devices, times, and which points a row has.

use backtide_model::Presence;

use super::{
    attributes, events, origin, points,
    record::{ATTRIBUTES, EVENTS, POINTS, REDRIVE, REFUSED},
    refused,
    wire::{DecodeError, Reader},
};

/// What one part of a commit stores values for.
#[derive(Debug, PartialEq)]
pub struct Keys<'r> {
    /// The product's key.
    pub product: &'r str,
    /// Keys of the devices that rows name.
    pub devices: Vec<&'r str>,
    /// Of each row, its place in `devices`.
    pub row_device: &'r [u32],
    /// Of each row, milliseconds since 1970 UTC.
    pub row_time: &'r [i64],
    /// The points, and which rows have a value of them.
    pub columns: Vec<(&'r str, Presence)>,
}

/// Where the rows of a part are put: one allocation serves many records.
#[derive(Debug, Default)]
pub(super) struct Rows {
    device: Vec<u32>,
    time: Vec<i64>,
}

/// Calls `each` for every part of a record that stores points.
pub(super) fn visit(
    bytes: &[u8],
    rows: &mut Rows,
    each: &mut dyn FnMut(&Keys<'_>),
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    origin::skim(&mut reader)?;
    let product = reader.str("the product")?;
    for _ in 0..reader.count(3, "parts")? {
        match reader.byte("a part's kind")? {
            POINTS => {
                let skimmed = points::skim(&mut reader, &mut rows.device, &mut rows.time)?;
                each(&Keys {
                    product,
                    devices: skimmed.devices,
                    row_device: &rows.device,
                    row_time: &rows.time,
                    columns: skimmed.columns,
                });
            }
            REDRIVE => {
                for what in [
                    "the re-driven commit",
                    "the re-driven part",
                    "the time of the re-drive",
                ] {
                    reader.varint(what)?;
                }
            }
            // Few are: they are decoded to come behind them.
            REFUSED => drop(refused::decode(&mut reader)?),
            EVENTS => drop(events::decode(&mut reader)?),
            ATTRIBUTES => drop(attributes::decode(&mut reader)?),
            tag => {
                let what = "a part";
                return Err(DecodeError::Tag { what, tag });
            }
        }
    }
    reader.end("the record")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Part,
        journal::record::{encode, tests::any_commit},
    };

    proptest! {
        #[test]
        fn every_part_with_points_is_visited_in_order(commit in any_commit()) {
            let mut out = Vec::new();
            encode(&commit, &mut out);
            let (mut rows, mut found) = (Rows::default(), Vec::new());
            visit(&out, &mut rows, &mut |keys| {
                assert_eq!(keys.product, commit.product.as_str());
                found.push((keys.row_time.to_vec(), keys.columns.len()));
            }).unwrap();
            let parts = commit.parts.iter().filter_map(|part| match part {
                Part::Points(batch) => Some((batch.row_time.clone(), batch.columns.len())),
                _ => None,
            });
            prop_assert_eq!(found, parts.collect::<Vec<_>>());
        }
    }
}
