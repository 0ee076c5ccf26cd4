//! Numbers in cells, and bounds in words.

use backtide_model::Cell;

/// A number; what arithmetic is done to was checked to be one.
pub(super) fn number(cell: &Cell) -> f64 {
    match cell {
        Cell::Int(value) => f64::from(*value),
        #[expect(
            clippy::cast_precision_loss,
            reason = "documented: arithmetic on longs beyond 2^53 is that of doubles"
        )]
        Cell::Long(value) => *value as f64,
        Cell::Float(value) => f64::from(*value),
        Cell::Double(value) => *value,
        Cell::Bool(_) | Cell::Text(_) => f64::NAN,
    }
}

/// Puts a number into a cell of its type: integers are rounded to the nearest.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what would be cut off is refused beforehand, and a float is the nearest one"
)]
pub(super) fn set(cell: &mut Cell, number: f64) -> Result<(), String> {
    /// 2^63: the first double that is no long.
    const LONG_END: f64 = 9_223_372_036_854_775_808.0;
    let rounded = number.round();
    let unfit = |word: &str| Err(format!("{number} does not fit {word}"));
    match cell {
        Cell::Double(_) if !number.is_finite() => return unfit("a double"),
        Cell::Double(value) => *value = number,
        Cell::Float(_) if !(number as f32).is_finite() => return unfit("a float"),
        Cell::Float(value) => *value = number as f32,
        Cell::Int(_) if !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&rounded) => {
            return unfit("an int");
        }
        Cell::Int(value) => *value = rounded as i32,
        Cell::Long(_) if !(-LONG_END..LONG_END).contains(&rounded) => return unfit("a long"),
        Cell::Long(value) => *value = rounded as i64,
        Cell::Bool(_) | Cell::Text(_) => return Err("it is not a number".to_owned()),
    }
    Ok(())
}

/// Least and greatest; infinite where one was not given.
///
/// # Errors
/// They are no bounds.
pub(super) fn bounded(min: Option<f64>, max: Option<f64>) -> Result<(f64, f64), String> {
    if min.is_none() && max.is_none() {
        return Err("min and max are absent; give one of them".to_owned());
    }
    let bounds = (
        min.unwrap_or(f64::NEG_INFINITY),
        max.unwrap_or(f64::INFINITY),
    );
    match bounds.0 <= bounds.1 {
        true => Ok(bounds),
        false => Err(format!("min {} is not below max {}", bounds.0, bounds.1)),
    }
}

pub(super) fn between(min: f64, max: f64) -> String {
    match (min.is_finite(), max.is_finite()) {
        (true, true) => format!("between {min} and {max}"),
        (true, false) => format!("{min} or above"),
        (false, _) => format!("{max} or below"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_rounded_into_a_whole_one_and_refused_where_it_does_not_fit() {
        let put = |mut cell: Cell, number| set(&mut cell, number).map(|()| cell);
        assert_eq!(put(Cell::Int(0), 1.5), Ok(Cell::Int(2)));
        assert_eq!(put(Cell::Long(0), -2.5), Ok(Cell::Long(-3)));
        for (cell, number) in [
            (Cell::Int(0), 3e9),
            (Cell::Long(0), 9.3e18),
            (Cell::Float(0.0), 1e39),
            (Cell::Double(0.0), f64::INFINITY),
            (Cell::Bool(true), 1.0),
        ] {
            assert!(put(cell, number).is_err(), "{number}");
        }
    }

    #[test]
    fn bounds_need_an_end_and_an_order() {
        assert_eq!(bounded(Some(1.0), None), Ok((1.0, f64::INFINITY)));
        assert!(bounded(None, None).is_err());
        assert!(bounded(Some(2.0), Some(1.0)).is_err());
        assert!(bounded(Some(f64::NAN), None).is_err());
    }
}
