//! Numbers as JavaScript computes with them, where that differs from what `f64` does.

use std::cmp::Ordering;

use super::tree::BinaryOperator;

/// 2^32.
const TURN: f64 = 4_294_967_296.0;

/// Arithmetic on numbers; `None` of an operator that is none.
pub(super) fn arithmetic(operator: BinaryOperator, left: f64, right: f64) -> Option<f64> {
    Some(match operator {
        BinaryOperator::Addition => left + right,
        BinaryOperator::Subtraction => left - right,
        BinaryOperator::Multiplication => left * right,
        BinaryOperator::Division => left / right,
        BinaryOperator::Remainder => left % right,
        BinaryOperator::Exponential => power(left, right),
        BinaryOperator::BitwiseAnd => f64::from(int32(left) & int32(right)),
        BinaryOperator::BitwiseOR => f64::from(int32(left) | int32(right)),
        BinaryOperator::BitwiseXOR => f64::from(int32(left) ^ int32(right)),
        BinaryOperator::ShiftLeft => f64::from(int32(left) << (uint32(right) & 31)),
        BinaryOperator::ShiftRight => f64::from(int32(left) >> (uint32(right) & 31)),
        BinaryOperator::ShiftRightZeroFill => f64::from(uint32(left) >> (uint32(right) & 31)),
        _ => return None,
    })
}

/// Whether an order is what an operator asks for; `None` of an operator that asks for none. What has no
/// order is neither.
pub(super) fn is_so(operator: BinaryOperator, order: Option<Ordering>) -> Option<bool> {
    let holds: fn(Ordering) -> bool = match operator {
        BinaryOperator::LessThan => Ordering::is_lt,
        BinaryOperator::LessEqualThan => Ordering::is_le,
        BinaryOperator::GreaterThan => Ordering::is_gt,
        BinaryOperator::GreaterEqualThan => Ordering::is_ge,
        _ => return None,
    };
    Some(order.is_some_and(holds))
}

/// One to an infinite power is not one.
pub(super) fn power(base: f64, exponent: f64) -> f64 {
    match base.abs() == 1.0 && !exponent.is_finite() {
        true => f64::NAN,
        false => base.powf(exponent),
    }
}

/// The nearest whole number, the greater of two; the sign of a zero is that of what it was.
pub(super) fn round(number: f64) -> f64 {
    let below = number.floor();
    let rounded = if number - below >= 0.5 {
        below + 1.0
    } else {
        below
    };
    rounded.copysign(number)
}

pub(super) fn sign(number: f64) -> f64 {
    match number == 0.0 || number.is_nan() {
        true => number,
        false => number.signum(),
    }
}

/// NaN where one of them is; zero is greater than its negative.
pub(super) fn max(left: f64, right: f64) -> f64 {
    match left.partial_cmp(&right) {
        None => f64::NAN,
        Some(Ordering::Less) => right,
        Some(Ordering::Equal) if left.is_sign_negative() => right,
        Some(Ordering::Equal | Ordering::Greater) => left,
    }
}

pub(super) fn min(left: f64, right: f64) -> f64 {
    -max(-left, -right)
}

/// The last 32 bits of what is left of a number without its fraction.
pub(super) fn uint32(number: f64) -> u32 {
    if !number.is_finite() {
        return 0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole, at least 0 and below 2^32"
    )]
    let bits = number.trunc().rem_euclid(TURN) as u32;
    bits
}

pub(super) fn int32(number: f64) -> i32 {
    uint32(number).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_up_where_two_are_as_near() {
        for (number, rounded) in [
            (2.5, 3.0),
            (-2.5, -2.0),
            (0.499_999_999_999_999_94, 0.0),
            (4_503_599_627_370_497.5, 4_503_599_627_370_498.0),
            (1e300, 1e300),
        ] {
            assert_eq!(round(number), rounded, "{number}");
        }
        assert!(round(-0.2).is_sign_negative());
        assert!(round(f64::NAN).is_nan());
    }

    #[test]
    fn bits_are_those_of_the_number_without_its_fraction() {
        for (number, bits) in [
            (-1.9, -1),
            (4_294_967_297.0, 1),
            (2_147_483_648.0, i32::MIN),
            (-2_147_483_649.0, i32::MAX),
            (f64::INFINITY, 0),
        ] {
            assert_eq!(int32(number), bits, "{number}");
        }
        assert_eq!(
            arithmetic(BinaryOperator::ShiftRightZeroFill, -1.0, 33.0),
            Some(2_147_483_647.0)
        );
    }

    #[test]
    fn the_greater_of_two_zeros_is_the_positive_one() {
        assert!(max(-0.0, 0.0).is_sign_positive() && max(0.0, -0.0).is_sign_positive());
        assert!(min(-0.0, 0.0).is_sign_negative() && min(0.0, -0.0).is_sign_negative());
        assert!(max(1.0, f64::NAN).is_nan() && min(f64::NAN, 1.0).is_nan());
        assert!(power(1.0, f64::INFINITY).is_nan() && power(-1.0, f64::NAN).is_nan());
    }
}
