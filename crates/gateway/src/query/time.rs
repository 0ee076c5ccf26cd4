//! Moments in questions: ISO with an offset, or milliseconds since 1970.

use std::str::FromStr;

use jiff::Timestamp;

/// Why a text is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no time; write 2014-01-01T00:00:00Z or milliseconds since 1970")]
pub struct TimeError {
    text: String,
}

/// Milliseconds since 1970 UTC. A part below the millisecond counts as a whole one, so that
/// `from` and `to` still bound what they name.
///
/// # Errors
/// The text is neither.
pub fn moment(text: &str) -> Result<i64, TimeError> {
    let wrong = || TimeError {
        text: text.chars().take(60).collect(),
    };
    if let Ok(epoch_ms) = text.parse() {
        return Ok(epoch_ms);
    }
    // In a URL an unescaped plus sign arrives as a blank.
    let moment = Timestamp::from_str(text)
        .or_else(|_| Timestamp::from_str(&text.replace(' ', "+")))
        .map_err(|_| wrong())?;
    let nanoseconds = moment.as_nanosecond();
    i64::try_from(nanoseconds.div_euclid(1_000_000) + i128::from(nanoseconds % 1_000_000 != 0))
        .map_err(|_| wrong())
}

/// From (inclusive) and to (exclusive); what is not given bounds nothing.
///
/// # Errors
/// One of the texts is no moment.
pub(super) fn span(from: Option<&str>, to: Option<&str>) -> Result<(i64, i64), TimeError> {
    Ok((
        from.map_or(Ok(i64::MIN), moment)?,
        to.map_or(Ok(i64::MAX), moment)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_and_milliseconds_are_the_same_moment() {
        for text in [
            "1388534400003",
            "2014-01-01T00:00:00.003Z",
            "2014-01-01T01:00:00.003+01:00",
            "2014-01-01T01:00:00.003 01:00",
            "2014-01-01T00:00:00.0021Z",
        ] {
            assert_eq!(moment(text), Ok(1_388_534_400_003), "{text}");
        }
        assert!(
            moment("yesterday")
                .unwrap_err()
                .to_string()
                .contains("yesterday")
        );
        assert!(
            moment("2014-01-01T00:00:00").is_err(),
            "a local time is not guessed"
        );
    }
}
