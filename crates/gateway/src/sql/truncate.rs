//! `date_trunc`, quick for times of this gateway.
//!
//! DataFusion takes every zone the slow way, UTC too, a calendar for each value. A time in UTC
//! truncates as one without a zone does, and that is arithmetic.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, make_array},
        datatypes::{DataType, FieldRef},
    },
    common::{Result, internal_err},
    functions::datetime::date_trunc,
    logical_expr::{
        ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature,
        interval_arithmetic::Interval,
        sort_properties::{ExprProperties, SortProperties},
    },
};

/// DataFusion's, but for times in UTC.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Truncate {
    inner: Arc<ScalarUDF>,
}

/// The function as it is registered.
pub(super) fn truncate() -> ScalarUDF {
    ScalarUDF::new_from_impl(Truncate {
        inner: date_trunc(),
    })
}

/// The type without its zone, where that is UTC.
fn in_utc(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Timestamp(unit, Some(zone)) if matches!(&**zone, "+00:00" | "UTC" | "Z") => {
            Some(DataType::Timestamp(*unit, None))
        }
        _ => None,
    }
}

/// The same moments under another type of time.
fn renamed(array: &dyn Array, data_type: &DataType) -> Result<ColumnarValue> {
    let data = array.to_data().into_builder();
    let data = data.data_type(data_type.clone()).build()?;
    Ok(ColumnarValue::Array(make_array(data)))
}

impl ScalarUDFImpl for Truncate {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("return_field_from_args is called instead")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.inner().return_field_from_args(args)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let shown = match args.args.get(1) {
            Some(ColumnarValue::Array(times)) => times.data_type().clone(),
            Some(ColumnarValue::Scalar(_)) | None => {
                return self.inner.inner().invoke_with_args(args);
            }
        };
        let Some(plain) = in_utc(&shown) else {
            return self.inner.inner().invoke_with_args(args);
        };
        if let ColumnarValue::Array(times) = &args.args[1] {
            args.args[1] = renamed(times, &plain)?;
        }
        match self.inner.inner().invoke_with_args(args)? {
            ColumnarValue::Array(times) => renamed(&times, &shown),
            ColumnarValue::Scalar(scalar) => Ok(ColumnarValue::Scalar(scalar.cast_to(&shown)?)),
        }
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.inner().output_ordering(input)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.inner.inner().evaluate_bounds(input)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.inner().documentation()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::{
            array::{ArrayRef, TimestampMillisecondArray},
            datatypes::{Field, TimeUnit},
        },
        common::ScalarValue,
        config::ConfigOptions,
    };

    use super::*;

    fn invoked(function: &ScalarUDF, unit: &str, zone: &str) -> ArrayRef {
        let day_ms = 86_400_000;
        let times = [
            -1,
            0,
            1_388_534_399_999,
            1_388_534_400_000,
            1_393_632_000_123,
        ]
        .into_iter()
        .chain((0..400).map(|day| 1_388_534_400_000 + day * day_ms + day * 3_661_001));
        let times: TimestampMillisecondArray = times.map(Some).chain([None]).collect();
        let rows = times.len();
        let shown = DataType::Timestamp(TimeUnit::Millisecond, Some(zone.into()));
        let field = |data_type: &DataType| Arc::new(Field::new("a", data_type.clone(), true));
        let result = function.invoke_with_args(ScalarFunctionArgs {
            args: vec![
                ColumnarValue::Scalar(ScalarValue::Utf8(Some(unit.to_owned()))),
                ColumnarValue::Array(Arc::new(times.with_timezone(zone))),
            ],
            arg_fields: vec![field(&DataType::Utf8), field(&shown)],
            number_rows: rows,
            return_field: field(&shown),
            config_options: Arc::new(ConfigOptions::default()),
        });
        let array = result.unwrap().into_array(rows).unwrap();
        assert_eq!(array.data_type(), &shown);
        array
    }

    #[test]
    fn times_are_truncated_as_datafusion_does_it() {
        let units = [
            "millisecond",
            "second",
            "minute",
            "hour",
            "day",
            "week",
            "month",
            "quarter",
            "year",
        ];
        for zone in ["+00:00", "UTC", "Europe/Paris"] {
            for unit in units {
                let (ours, theirs) = (truncate(), date_trunc());
                let found = invoked(&ours, unit, zone);
                assert_eq!(&found, &invoked(&theirs, unit, zone), "{unit} {zone}");
            }
        }
    }
}
