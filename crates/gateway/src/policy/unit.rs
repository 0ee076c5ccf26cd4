//! Unit conversions as factor and offset, looked up once when a policy is applied.

use octofhir_ucum::{Number, UnitAnalysis, analyse, is_comparable};

/// Similar units that a refusal names.
const SUGGESTIONS_SHOWN: usize = 3;

/// The factor and offset that take a value in `from` to one in `to`.
///
/// # Errors
/// What is wrong with a unit, or why there is no such conversion.
pub(super) fn linear(from: &str, to: &str) -> Result<(f64, f64), String> {
    let (source, target) = (known(from)?, known(to)?);
    let comparable = is_comparable(from, to).map_err(|error| error.to_string())?;
    if !comparable {
        return Err(format!(
            "{from} ({}) cannot be converted to {to} ({}): they measure different things",
            source.dimension, target.dimension
        ));
    }
    let steps = || {
        let factor = |unit: &UnitAnalysis| unit.factor.checked_mul(unit.scale);
        let per_unit = factor(&target)?;
        let factor = factor(&source)?.checked_div(per_unit)?;
        let offset = source.offset.checked_sub(target.offset)?;
        Some((factor, offset.checked_div(per_unit)?))
    };
    let (factor, offset) =
        steps().ok_or_else(|| format!("from {from} to {to} is out of the range of numbers"))?;
    // Exact to 28 digits up to here, so that km/h to m/s is the double nearest to 1/3.6.
    Ok((Number::to_f64(factor), Number::to_f64(offset)))
}

fn known(unit: &str) -> Result<UnitAnalysis, String> {
    let analysis = analyse(unit).map_err(|error| {
        let hint = match error.suggestions.is_empty() {
            true => "Units are written in UCUM: kW, m/s, Cel, [degF], kW.h, m3/h".to_owned(),
            false => {
                let shown = error.suggestions.iter().take(SUGGESTIONS_SHOWN);
                shown.cloned().collect::<Vec<_>>().join("; ")
            }
        };
        format!("unit {unit:?}: {}. {hint}", error.message)
    })?;
    // Of special units only temperatures have an offset; the others are logarithms and the like.
    if analysis.special.is_some() && analysis.offset.is_zero() {
        return Err(format!(
            "unit {unit:?} is logarithmic or otherwise not linear; use an expression instead"
        ));
    }
    Ok(analysis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_become_factor_and_offset() {
        let of = |from, to| linear(from, to).unwrap();
        assert_eq!(of("kW", "MW"), (0.001, 0.0));
        assert_eq!(of("m/s", "km/h"), (3.6, 0.0));
        assert_eq!(of("km/h", "m/s"), (1.0 / 3.6, 0.0));
        assert_eq!(of("bar", "kPa"), (100.0, 0.0));
        assert_eq!(of("kW.h", "MJ"), (3.6, 0.0));
        assert_eq!(of("Cel", "K"), (1.0, 273.15));
        assert_eq!(of("K", "Cel"), (1.0, -273.15));
        assert_eq!(of("%", "1"), (0.01, 0.0));
        assert_eq!(of("{turns}/min", "Hz"), (1.0 / 60.0, 0.0));
        let (factor, offset) = of("[degF]", "Cel");
        assert!((98.6 * factor + offset - 37.0).abs() < 1e-12);
        let (factor, offset) = of("Cel", "[degF]");
        assert!((37.0 * factor + offset - 98.6).abs() < 1e-12);
    }

    #[test]
    fn what_has_no_factor_and_offset_is_refused_with_a_way_out() {
        let why = |from, to| linear(from, to).unwrap_err();
        assert!(why("kW", "m").contains("measure different things"));
        assert!(
            why("degF", "Cel").contains("[degF]"),
            "{}",
            why("degF", "Cel")
        );
        assert!(why("°C", "K").contains("UCUM"), "{}", why("°C", "K"));
        assert!(why("B[W]", "W").contains("not linear"));
        assert!(why("", "W").contains("unit \"\""));
    }
}
