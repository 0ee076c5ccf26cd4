//! Arrays of the store as arrays of DataFusion. They are of two versions of Arrow, whose memory is the
//! same: buffers are handed over, nothing is copied.

use std::sync::Arc;

use datafusion::arrow::{
    array::{
        Array, ArrayBuilder, ArrayData, ArrayRef, RecordBatch, RecordBatchOptions, StringViewArray,
        StringViewBuilder, UInt32Array, make_array, new_null_array,
    },
    buffer::{BooleanBuffer, Buffer, NullBuffer},
    compute::{cast, take},
    datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef},
    error::ArrowError,
};

/// The same array, as `wanted`: where the types differ the values are cast.
///
/// # Errors
/// The type is none of the store's, or cannot be cast.
pub(super) fn of_store(
    array: &arrow_array::ArrayRef,
    wanted: &DataType,
) -> Result<ArrayRef, ArrowError> {
    use arrow_array::Array as _;
    use arrow_schema::DataType as Stored;
    let data_type = match array.data_type() {
        Stored::Null => return Ok(new_null_array(wanted, array.len())),
        Stored::Boolean => DataType::Boolean,
        Stored::Int32 => DataType::Int32,
        Stored::Int64 => DataType::Int64,
        Stored::UInt8 => DataType::UInt8,
        Stored::UInt64 => DataType::UInt64,
        Stored::Float32 => DataType::Float32,
        Stored::Float64 => DataType::Float64,
        Stored::Utf8 => DataType::Utf8,
        other => {
            let what = format!("the store has {other}");
            return Err(ArrowError::NotYetImplemented(what));
        }
    };
    if let (Some(texts), DataType::Utf8View) = (
        array.as_any().downcast_ref::<arrow_array::StringArray>(),
        wanted,
    ) {
        return views(texts);
    }
    let data = array.to_data();
    let nulls = data.nulls().map(|nulls| {
        let bits = buffer(nulls.buffer());
        NullBuffer::new(BooleanBuffer::new(bits, nulls.offset(), nulls.len()))
    });
    let data = ArrayData::builder(data_type)
        .len(data.len())
        .offset(data.offset())
        .nulls(nulls)
        .buffers(data.buffers().iter().map(buffer).collect())
        .build()?;
    let array = make_array(data);
    if array.data_type() == wanted {
        return Ok(array);
    }
    cast(&array, wanted)
}

fn buffer(buffer: &arrow_buffer::Buffer) -> Buffer {
    Buffer::from(bytes::Bytes::from(buffer.clone()))
}

/// Texts as views. Neighbours are often the same: each of those is looked at once, and its view is copied.
fn views(texts: &arrow_array::StringArray) -> Result<ArrayRef, ArrowError> {
    let rows = arrow_array::Array::len(texts);
    let mut different = StringViewBuilder::new();
    if is_one(texts) {
        different.append_value(texts.value(0));
        return take(&different.finish(), &UInt32Array::from(vec![0; rows]), None);
    }
    let (mut last, mut at) = (None, 0);
    let places = texts.iter().enumerate().map(|(row, text)| {
        if row == 0 || last != text {
            different.append_option(text);
            (last, at) = (text, place(different.len() - 1));
        }
        at
    });
    let places = UInt32Array::from_iter_values(places);
    take(&different.finish(), &places, None)
}

/// Whether there is a text, and all are the same: seen at one look at all of their bytes.
fn is_one(texts: &arrow_array::StringArray) -> bool {
    use arrow_array::Array as _;
    let ends = texts.value_offsets();
    let (Some(start), Some(end)) = (ends.first(), ends.last()) else {
        return false;
    };
    if texts.is_empty() || texts.null_count() > 0 {
        return false;
    }
    let length = ends[1] - start;
    let pairs = ends.windows(2);
    let is_even = pairs.fold(true, |even, pair| even & (pair[1] - pair[0] == length));
    let range = |from: i32, to: i32| Some(usize::try_from(from).ok()?..usize::try_from(to).ok()?);
    let (Some(before), Some(behind)) = (range(*start, end - length), range(start + length, *end))
    else {
        return false;
    };
    is_even && texts.value_data()[before] == texts.value_data()[behind]
}

/// The same text so many times.
pub(super) fn repeated(text: &str, rows: usize) -> Result<ArrayRef, ArrowError> {
    let text = StringViewArray::from_iter_values([text]);
    take(&text, &UInt32Array::from(vec![0; rows]), None)
}

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("a batch has fewer than 2^32 rows")
}

/// The columns that an answer has: texts as everybody reads them.
pub(super) fn shown(schema: &SchemaRef) -> SchemaRef {
    let field = |field: &FieldRef| match field.data_type() {
        DataType::Utf8View => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        _ => Arc::clone(field),
    };
    let fields: Fields = schema.fields().iter().map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// A batch with the columns that [`shown`] tells of.
///
/// # Errors
/// A column cannot be cast.
pub(super) fn as_shown(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(
        |(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        },
    );
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::{array::AsArray, datatypes::Float64Type};

    #[test]
    fn a_slice_of_the_store_is_the_same_here_and_shares_its_memory() {
        let stored = arrow_array::Float64Array::from(vec![Some(1.5), None, Some(-0.0), Some(7.0)]);
        let sliced: arrow_array::ArrayRef = Arc::new(stored.slice(1, 3));
        let here = of_store(&sliced, &DataType::Float64).unwrap();
        let here = here.as_primitive::<Float64Type>();
        assert_eq!(
            here.iter().collect::<Vec<_>>(),
            [None, Some(-0.0), Some(7.0)]
        );
        assert_eq!(here.values().as_ptr(), stored.values()[1..].as_ptr());
    }

    #[test]
    fn short_and_long_names_are_the_same_as_views() {
        let names = [
            Some("d1"),
            Some("d1"),
            None,
            Some("a name of many bytes"),
            Some("a name of many bytes"),
            Some(""),
        ];
        let stored: arrow_array::ArrayRef =
            Arc::new(arrow_array::StringArray::from(names.to_vec()));
        let here = of_store(&stored, &DataType::Utf8View).unwrap();
        let here = here.as_string_view();
        assert_eq!(here.iter().collect::<Vec<_>>(), names);
        assert_eq!(here.data_buffers().len(), 1);
        let batch =
            RecordBatch::try_from_iter([("n", Arc::new(here.clone()) as ArrayRef)]).unwrap();
        let schema = shown(&batch.schema());
        let plain = as_shown(&batch, &schema).unwrap();
        assert_eq!(
            plain
                .column(0)
                .as_string::<i32>()
                .iter()
                .collect::<Vec<_>>(),
            names
        );
    }

    #[test]
    fn texts_are_one_where_no_byte_and_no_length_differs() {
        let is_seen = |texts: &[Option<&str>]| {
            let framed = [&[Some("other")], texts, &[None]].concat();
            let all = arrow_array::StringArray::from(framed);
            let texts = all.slice(1, texts.len());
            let here = views(&texts).unwrap();
            let here = here.as_string_view().iter().collect::<Vec<_>>();
            assert_eq!(here, texts.iter().collect::<Vec<_>>());
            is_one(&texts)
        };
        assert!(is_seen(&[Some("ab")]));
        assert!(is_seen(&[Some("ab"), Some("ab"), Some("ab")]));
        assert!(is_seen(&[Some("a name of many bytes"); 3]));
        assert!(is_seen(&[Some(""), Some("")]));
        for texts in [
            &[][..],
            &[None],
            &[Some("ab"), None],
            &[Some("ab"), Some("ac")],
            &[Some("ab"), Some("ab"), Some("bb")],
            // The same bytes, otherwise parted.
            &[Some("aa"), Some("a")],
            &[Some("a"), Some("aa")],
            &[Some("aa"), Some("a"), Some("aaa")],
            &[Some(""), Some("a")],
        ] {
            assert!(!is_seen(texts), "{texts:?}");
        }
    }

    #[test]
    fn texts_bits_and_columns_without_values_come_over_too() {
        let texts: arrow_array::ArrayRef =
            Arc::new(arrow_array::StringArray::from(vec![Some("é"), None, Some("")]).slice(0, 2));
        let here = of_store(&texts, &DataType::Utf8).unwrap();
        assert_eq!(
            here.as_string::<i32>().iter().collect::<Vec<_>>(),
            [Some("é"), None]
        );
        let bits: arrow_array::ArrayRef =
            Arc::new(arrow_array::BooleanArray::from(vec![true, false, true]).slice(1, 2));
        let here = of_store(&bits, &DataType::Boolean).unwrap();
        assert_eq!(
            here.as_boolean().iter().collect::<Vec<_>>(),
            [Some(false), Some(true)]
        );
        let none: arrow_array::ArrayRef = Arc::new(arrow_array::NullArray::new(2));
        let here = of_store(&none, &DataType::Float64).unwrap();
        assert_eq!(here.null_count(), 2);
    }
}
