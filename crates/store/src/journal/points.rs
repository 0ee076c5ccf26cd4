//! A batch of points as bytes: columnar, with its own dictionary of devices and points.

use std::collections::HashSet;

use backtide_model::{
    Batch, Column, ConflictPolicy, DeviceKey, ElementName, NO_QUALITY, Presence, Storage, Values,
};

use super::wire::{DecodeError, Reader, put_count, put_signed, put_str, put_varint};

pub(super) fn encode(batch: &Batch, out: &mut Vec<u8>) {
    put_count(out, batch.devices.len());
    for device in &batch.devices {
        put_str(out, device.as_str());
    }
    put_count(out, batch.rows());
    for device in &batch.row_device {
        put_varint(out, u64::from(*device));
    }
    // Rows mostly come some seconds apart: the step is one or two bytes where the time is eight.
    let mut before = 0_i64;
    for time in &batch.row_time {
        put_signed(out, time.wrapping_sub(before));
        before = *time;
    }
    put_count(out, batch.columns.len());
    for column in &batch.columns {
        encode_column(column, out);
    }
}

/// The batch holds every invariant that [`Batch`] names.
pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Batch, DecodeError> {
    let mut batch = Batch::default();
    let devices = decode_devices(reader)?;
    for device in devices {
        batch.devices.push(DeviceKey::new(device)?);
    }
    decode_rows(reader, &mut batch.row_device, &mut batch.row_time)?;
    let count = reader.count(COLUMN_BYTES_MIN, "columns")?;
    batch.columns.reserve(count);
    for _ in 0..count {
        batch.columns.push(decode_column(batch.rows(), reader)?);
    }
    check(&batch).map_err(DecodeError::Invalid)?;
    Ok(batch)
}

/// What comes before the columns, and of each column its point and rows: the batch without its values.
/// The rows of the batch take the place of what is in `row_device` and `row_time`.
pub(super) fn skim<'r>(
    reader: &mut Reader<'r>,
    row_device: &mut Vec<u32>,
    row_time: &mut Vec<i64>,
) -> Result<Skimmed<'r>, DecodeError> {
    let devices = decode_devices(reader)?;
    decode_rows(reader, row_device, row_time)?;
    if row_device
        .iter()
        .any(|device| *device as usize >= devices.len())
    {
        return Err(DecodeError::Invalid(STRAY_ROW));
    }
    let count = reader.count(COLUMN_BYTES_MIN, "columns")?;
    let mut columns = Vec::with_capacity(count);
    for _ in 0..count {
        let head = Head::decode(row_time.len(), reader)?;
        skip_values(head.storage, head.len, reader)?;
        if head.has_quality {
            reader.take(head.len, QUALITIES)?;
        }
        if let Presence::Some(rows) = &head.presence
            && rows
                .last()
                .is_some_and(|last| *last as usize >= row_time.len())
        {
            return Err(DecodeError::Invalid(STRAY_VALUE));
        }
        columns.push((head.point, head.presence));
    }
    Ok(Skimmed { devices, columns })
}

/// Devices, and points with the rows that have a value of them.
pub(super) struct Skimmed<'r> {
    pub(super) devices: Vec<&'r str>,
    pub(super) columns: Vec<(&'r str, Presence)>,
}

fn decode_devices<'r>(reader: &mut Reader<'r>) -> Result<Vec<&'r str>, DecodeError> {
    let count = reader.count(2, "devices")?;
    let mut devices = Vec::with_capacity(count);
    for _ in 0..count {
        devices.push(reader.str("a device key")?);
    }
    Ok(devices)
}

fn decode_rows(
    reader: &mut Reader<'_>,
    row_device: &mut Vec<u32>,
    row_time: &mut Vec<i64>,
) -> Result<(), DecodeError> {
    row_device.clear();
    row_time.clear();
    let rows = reader.count(2, "rows")?;
    row_device.reserve(rows);
    for _ in 0..rows {
        row_device.push(reader.number("a row's device")?);
    }
    row_time.reserve(rows);
    let mut before = 0_i64;
    for _ in 0..rows {
        before = before.wrapping_add(reader.signed("a row's time")?);
        row_time.push(before);
    }
    Ok(())
}

/// The invariants of a batch. Checked before a batch is journalled too: a record that could not be
/// read back would stop every later start.
///
/// # Errors
/// What is wrong.
pub(crate) fn check(batch: &Batch) -> Result<(), &'static str> {
    let rows = batch.rows();
    if u32::try_from(rows).is_err() || u32::try_from(batch.devices.len()).is_err() {
        return Err("a batch has more than 2^32 rows or devices");
    }
    if batch.row_device.len() != rows {
        return Err("a batch has not one device for each row");
    }
    if batch
        .row_device
        .iter()
        .any(|device| *device as usize >= batch.devices.len())
    {
        return Err(STRAY_ROW);
    }
    let mut seen = HashSet::with_capacity(batch.columns.len());
    for column in &batch.columns {
        if !seen.insert(column.point.as_str()) {
            return Err("a point stands in two columns");
        }
        check_column(column, rows)?;
    }
    Ok(())
}

fn check_column(column: &Column, rows: usize) -> Result<(), &'static str> {
    let values = column.values.len();
    match &column.presence {
        Presence::All if values != rows => return Err("a dense column has not one value a row"),
        Presence::All => {}
        Presence::Some(at) => {
            if at.len() != values {
                return Err("a sparse column has not one row for each value");
            }
            if !at.is_sorted_by(|before, after| before < after) {
                return Err("the rows of a sparse column do not ascend");
            }
            if at.last().is_some_and(|last| *last as usize >= rows) {
                return Err(STRAY_VALUE);
            }
        }
    }
    if let Some(quality) = &column.quality {
        if quality.len() != values {
            return Err("a column has not one quality for each value");
        }
        if quality
            .iter()
            .any(|quality| *quality > 9 && *quality != NO_QUALITY)
        {
            return Err("a quality is not 0 to 9");
        }
    }
    Ok(())
}

const STRAY_ROW: &str = "a row names a device that the batch does not list";
const STRAY_VALUE: &str = "a sparse column names a row that the batch does not have";
const QUALITIES: &str = "the qualities of a column";
/// An empty name, policy, storage, flags, no values; the name is refused afterwards.
const COLUMN_BYTES_MIN: usize = 4;
const SPARSE: u8 = 1;
const QUALITY: u8 = 2;

fn encode_column(column: &Column, out: &mut Vec<u8>) {
    put_str(out, column.point.as_str());
    out.push(match column.policy {
        ConflictPolicy::KeepLast => 0,
        ConflictPolicy::KeepFirst => 1,
        ConflictPolicy::HigherQuality => 2,
    });
    out.push(match column.values.storage() {
        Storage::Bool => 0,
        Storage::Int => 1,
        Storage::Long => 2,
        Storage::Float => 3,
        Storage::Double => 4,
        Storage::Text => 5,
    });
    let sparse = if matches!(column.presence, Presence::Some(_)) {
        SPARSE
    } else {
        0
    };
    let quality = if column.quality.is_some() { QUALITY } else { 0 };
    out.push(sparse | quality);
    if let Presence::Some(rows) = &column.presence {
        put_count(out, rows.len());
        let mut before = 0;
        for row in rows {
            put_varint(out, u64::from(row.wrapping_sub(before)));
            before = *row;
        }
    }
    encode_values(&column.values, out);
    if let Some(quality) = &column.quality {
        out.extend_from_slice(quality);
    }
}

/// A column but for its values and their qualities.
struct Head<'r> {
    point: &'r str,
    policy: ConflictPolicy,
    storage: u8,
    has_quality: bool,
    presence: Presence,
    /// How many values it has.
    len: usize,
}

impl<'r> Head<'r> {
    fn decode(rows: usize, reader: &mut Reader<'r>) -> Result<Self, DecodeError> {
        let point = reader.str("a point")?;
        let policy = match reader.byte("a conflict policy")? {
            0 => ConflictPolicy::KeepLast,
            1 => ConflictPolicy::KeepFirst,
            2 => ConflictPolicy::HigherQuality,
            tag => {
                let what = "a conflict policy";
                return Err(DecodeError::Tag { what, tag });
            }
        };
        let storage = reader.byte("a storage")?;
        let flags = reader.byte("a column's flags")?;
        if flags & !(SPARSE | QUALITY) != 0 {
            return Err(DecodeError::Tag {
                what: "a column's flags",
                tag: flags,
            });
        }
        let presence = match flags & SPARSE {
            0 => Presence::All,
            _ => Presence::Some(decode_presence(reader)?),
        };
        let len = match &presence {
            Presence::All => rows,
            Presence::Some(at) => at.len(),
        };
        Ok(Self {
            point,
            policy,
            storage,
            has_quality: flags & QUALITY != 0,
            presence,
            len,
        })
    }
}

fn decode_column(rows: usize, reader: &mut Reader<'_>) -> Result<Column, DecodeError> {
    let head = Head::decode(rows, reader)?;
    let values = decode_values(head.storage, head.len, reader)?;
    let quality = match head.has_quality {
        true => Some(reader.take(head.len, QUALITIES)?.to_vec()),
        false => None,
    };
    Ok(Column {
        point: ElementName::new(head.point)?,
        policy: head.policy,
        presence: head.presence,
        values,
        quality,
    })
}

fn decode_presence(reader: &mut Reader<'_>) -> Result<Vec<u32>, DecodeError> {
    let what = "the rows of a column";
    let count = reader.count(1, what)?;
    let mut rows = Vec::with_capacity(count);
    let mut before = 0_u32;
    for _ in 0..count {
        before = before
            .checked_add(reader.number(what)?)
            .ok_or(DecodeError::Number { what })?;
        rows.push(before);
    }
    Ok(rows)
}

fn encode_values(values: &Values, out: &mut Vec<u8>) {
    match values {
        Values::Bool(values) => out.extend(values.iter().map(|value| u8::from(*value))),
        Values::Int(values) => put_fixed(out, values, |value| value.to_le_bytes()),
        Values::Long(values) => put_fixed(out, values, |value| value.to_le_bytes()),
        Values::Float(values) => put_fixed(out, values, |value| value.to_le_bytes()),
        Values::Double(values) => put_fixed(out, values, |value| value.to_le_bytes()),
        Values::Text(values) => values.iter().for_each(|value| put_str(out, value)),
    }
}

fn decode_values(storage: u8, len: usize, reader: &mut Reader<'_>) -> Result<Values, DecodeError> {
    Ok(match storage {
        0 => Values::Bool(decode_bools(len, reader)?),
        1 => Values::Int(take_fixed(len, reader, i32::from_le_bytes)?),
        2 => Values::Long(take_fixed(len, reader, i64::from_le_bytes)?),
        3 => Values::Float(take_fixed(len, reader, f32::from_le_bytes)?),
        4 => Values::Double(take_fixed(len, reader, f64::from_le_bytes)?),
        5 => Values::Text(decode_texts(len, reader)?),
        tag => {
            return Err(DecodeError::Tag {
                what: "a storage",
                tag,
            });
        }
    })
}

fn skip_values(storage: u8, len: usize, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let bytes = match storage {
        0 => 1,
        1 | 3 => 4,
        2 | 4 => 8,
        5 => {
            for _ in 0..len {
                reader.bytes("a text value")?;
            }
            return Ok(());
        }
        tag => {
            let what = "a storage";
            return Err(DecodeError::Tag { what, tag });
        }
    };
    let what = "the values of a column";
    let bytes = len.checked_mul(bytes).ok_or(DecodeError::Short { what })?;
    reader.take(bytes, what).map(drop)
}

fn put_fixed<T: Copy, const N: usize>(out: &mut Vec<u8>, values: &[T], to: fn(T) -> [u8; N]) {
    out.reserve(values.len() * N);
    for value in values {
        out.extend_from_slice(&to(*value));
    }
}

fn take_fixed<T, const N: usize>(
    len: usize,
    reader: &mut Reader<'_>,
    from: fn([u8; N]) -> T,
) -> Result<Vec<T>, DecodeError> {
    let what = "the values of a column";
    let bytes = reader.take(len.checked_mul(N).ok_or(DecodeError::Short { what })?, what)?;
    let (chunks, _) = bytes.as_chunks::<N>();
    Ok(chunks.iter().map(|chunk| from(*chunk)).collect())
}

fn decode_bools(len: usize, reader: &mut Reader<'_>) -> Result<Vec<bool>, DecodeError> {
    reader
        .take(len, "the values of a column")?
        .iter()
        .map(|byte| match byte {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::Tag {
                what: "a bool",
                tag: *tag,
            }),
        })
        .collect()
}

fn decode_texts(len: usize, reader: &mut Reader<'_>) -> Result<Vec<Box<str>>, DecodeError> {
    // A text takes at least the byte of its length.
    if len > reader.left() {
        return Err(DecodeError::Short {
            what: "the texts of a column",
        });
    }
    let mut texts = Vec::with_capacity(len);
    for _ in 0..len {
        texts.push(Box::from(reader.str("a text value")?));
    }
    Ok(texts)
}

#[cfg(test)]
pub(in crate::journal) mod tests {
    use backtide_model::{BatchBuilder, Cell};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn any_cell() -> impl Strategy<Value = (usize, Cell)> {
        prop_oneof![
            any::<bool>().prop_map(|v| (0, Cell::Bool(v))),
            any::<i32>().prop_map(|v| (1, Cell::Int(v))),
            any::<i64>().prop_map(|v| (2, Cell::Long(v))),
            (-1e9_f32..1e9).prop_map(|v| (3, Cell::Float(v))),
            any::<f64>()
                .prop_filter("a NaN is not equal to itself", |v| !v.is_nan())
                .prop_map(|v| (4, Cell::Double(v))),
            any::<String>().prop_map(|v| (5, Cell::Text(v.into()))),
        ]
    }

    pub(in crate::journal) fn any_batch() -> impl Strategy<Value = Batch> {
        let quality = prop_oneof![3 => Just(NO_QUALITY), 1 => 0..10_u8];
        let row = (
            0..4_u8,
            any::<i64>(),
            vec((any_cell(), 0..3_u8, quality), 0..6),
        );
        vec(row, 0..20).prop_map(|rows| {
            let mut builder = BatchBuilder::new();
            for (device, time, cells) in rows {
                builder.row(&DeviceKey::new(&format!("d{device}")).unwrap(), time);
                for ((storage, cell), point, quality) in cells {
                    let point = ElementName::new(&format!("p{storage}.{point}")).unwrap();
                    builder.cell(&point, ConflictPolicy::HigherQuality, cell, quality);
                }
            }
            builder.build()
        })
    }

    proptest! {
        #[test]
        fn a_batch_reads_back(batch in any_batch()) {
            let mut out = Vec::new();
            encode(&batch, &mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(decode(&mut reader).unwrap(), batch);
            prop_assert!(reader.end("batch").is_ok());
        }

        #[test]
        fn a_skim_finds_all_but_the_values(batch in any_batch()) {
            let mut out = Vec::new();
            encode(&batch, &mut out);
            let mut reader = Reader::new(&out);
            let (mut row_device, mut row_time) = (vec![7], vec![7]);
            let skimmed = skim(&mut reader, &mut row_device, &mut row_time).unwrap();
            prop_assert!(reader.end("batch").is_ok());
            let devices: Vec<&str> = batch.devices.iter().map(DeviceKey::as_str).collect();
            prop_assert_eq!(skimmed.devices, devices);
            prop_assert_eq!((row_device, row_time), (batch.row_device, batch.row_time));
            let columns = batch.columns.iter();
            let columns: Vec<_> =
                columns.map(|column| (column.point.as_str(), column.presence.clone())).collect();
            prop_assert_eq!(skimmed.columns, columns);
        }

        #[test]
        fn a_skim_of_a_damaged_batch_names_no_row_that_is_not_there(
            batch in any_batch(), at: prop::sample::Index, to: u8,
        ) {
            let mut out = Vec::new();
            encode(&batch, &mut out);
            let at = at.index(out.len());
            out[at] = to;
            let (mut row_device, mut row_time) = (Vec::new(), Vec::new());
            if let Ok(skimmed) = skim(&mut Reader::new(&out), &mut row_device, &mut row_time) {
                prop_assert_eq!(row_device.len(), row_time.len());
                prop_assert!(row_device.iter().all(|at| (*at as usize) < skimmed.devices.len()));
                for (_, presence) in skimmed.columns {
                    let Presence::Some(rows) = presence else { continue };
                    prop_assert!(rows.iter().all(|row| (*row as usize) < row_time.len()));
                }
            }
        }

        #[test]
        fn a_damaged_batch_is_an_error_or_another_valid_batch(
            batch in any_batch(), at: prop::sample::Index, to: u8,
        ) {
            let mut out = Vec::new();
            encode(&batch, &mut out);
            let at = at.index(out.len());
            out[at] = to;
            if let Ok(other) = decode(&mut Reader::new(&out)) {
                prop_assert_eq!(check(&other), Ok(()));
            }
        }
    }

    #[test]
    fn a_batch_that_breaks_an_invariant_is_named() {
        let point = |presence, values| Column {
            point: ElementName::new("P").unwrap(),
            policy: ConflictPolicy::KeepLast,
            presence,
            values,
            quality: None,
        };
        let batch = |columns| Batch {
            devices: vec![DeviceKey::new("d").unwrap()],
            row_device: vec![0, 0],
            row_time: vec![1, 2],
            columns,
        };
        let dense = point(Presence::All, Values::Int(vec![1, 2]));
        assert_eq!(check(&batch(vec![dense.clone()])), Ok(()));
        assert_eq!(
            check(&batch(vec![dense.clone(), dense.clone()])),
            Err("a point stands in two columns")
        );
        let repeated = point(Presence::Some(vec![1, 1]), Values::Int(vec![1, 2]));
        assert_eq!(
            check(&batch(vec![repeated])),
            Err("the rows of a sparse column do not ascend")
        );
        let mut stray = batch(vec![dense]);
        stray.row_device[1] = 7;
        assert_eq!(
            check(&stray),
            Err("a row names a device that the batch does not list")
        );
    }
}
