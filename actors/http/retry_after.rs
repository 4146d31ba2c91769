//! Retry-After: when the other side says to come back (RFC 9110, section 10.2.3).

use std::time::Duration;

use jiff::fmt::strtime;
use majordomo_model::Timestamp;

/// What lies further ahead is taken as this.
pub(super) const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(86_400);
/// No date is longer.
const LENGTH_LIMIT: usize = 40;
/// The three forms of a date (RFC 9110, section 5.6.7), the two obsolete ones too.
const FORMS: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// How long to stay away: seconds, or until a date, which may be past. `None` for what is neither.
pub(super) fn parse(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim_matches([' ', '\t']);
    if value.is_empty() || value.len() > LENGTH_LIMIT {
        return None;
    }
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds are a long time.
        return Some(value.parse().map_or(RETRY_AFTER_LIMIT, Duration::from_secs).min(RETRY_AFTER_LIMIT));
    }
    let date = FORMS.iter().find_map(|form| strtime::parse(form, value).ok()?.to_datetime().ok())?;
    let until_then = |instant: jiff::Zoned| Timestamp::from_micros(instant.timestamp().as_microsecond()).since(now);
    // Only the last day of the year 9999 is no instant.
    let pause = date.to_zoned(jiff::tz::TimeZone::UTC).map_or(RETRY_AFTER_LIMIT, until_then);
    Some(pause.min(RETRY_AFTER_LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_capped() {
        // 1994-11-06T08:49:37Z, the example of the RFC.
        let date = Timestamp::from_micros(784_111_777_000_000);
        let before = date.minus(Duration::from_secs(90));
        for form in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(form, before), Some(Duration::from_secs(90)), "{form}");
            assert_eq!(parse(form, date.plus(Duration::from_secs(5))), Some(Duration::ZERO), "{form}");
        }
        assert_eq!(parse(" 120 ", date), Some(Duration::from_secs(120)));
        assert_eq!(parse("0", date), Some(Duration::ZERO));
        assert_eq!(parse("999999999999", date), Some(RETRY_AFTER_LIMIT));
        assert_eq!(parse("99999999999999999999999999", date), Some(RETRY_AFTER_LIMIT));
        assert_eq!(parse("Fri, 31 Dec 9999 23:59:59 GMT", date), Some(RETRY_AFTER_LIMIT));
        for garbage in ["", "-1", "1.5", "soon", "Sun, 06 Nov 1994", "１２０", "+5", &"9".repeat(41)] {
            assert_eq!(parse(garbage, date), None, "{garbage}");
        }
    }
}
