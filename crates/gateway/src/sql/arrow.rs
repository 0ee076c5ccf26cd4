//! Arrays of the store as arrays of DataFusion. They are of two versions of Arrow, whose memory is the
//! same: buffers are handed over, nothing is copied.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Array, ArrayData, ArrayRef, make_array, new_null_array},
    buffer::{BooleanBuffer, Buffer, NullBuffer},
    compute::cast,
    datatypes::DataType,
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

/// The same text so many times.
pub(super) fn repeated(text: &str, rows: usize) -> ArrayRef {
    let texts = std::iter::repeat_n(text, rows);
    Arc::new(datafusion::arrow::array::StringArray::from_iter_values(
        texts,
    ))
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
