//! On which terms a transport is used, and how it stands.

use std::time::Duration;

use majordomo_model::{Channel, Timestamp};
use serde::{Deserialize, Serialize};

/// The most messages that a rate may count.
const MESSAGES_LIMIT: u32 = 10_000;
/// The longest span of a rate, and the longest pause.
const SPAN_LIMIT: Duration = Duration::from_secs(24 * 3_600);

/// On which terms a transport is used. Every field has a default.
///
/// ```
/// use std::time::Duration;
///
/// use majordomo_actors::notifier::TransportTerms;
///
/// let terms = TransportTerms::named("backup").rate(100, Duration::from_secs(60));
/// assert!(terms.faults().is_empty());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransportTerms {
    /// What it is called in logs and in [`TransportState`]; its channel and a number unless told.
    pub name: Option<String>,
    /// The most messages within any span of the given length: 1 to 10,000, within a day at most. No limit unless told.
    pub rate: Option<(u32, Duration)>,
    /// How often in a row it may be out before it is left alone. Default 5.
    pub failures: u32,
    /// For how long a message waits that found it out, and for how long it is left alone at first; each time that the one
    /// message which tries then finds it out again, twice as long. Default 5 seconds.
    pub pause: Duration,
    /// For how long it is left alone at most, unless it says itself when to come back, which is heeded up to an hour.
    /// Default 5 minutes: so much later than the transport a message is back.
    pub longest_pause: Duration,
}

impl Default for TransportTerms {
    fn default() -> Self {
        Self {
            name: None,
            rate: None,
            failures: 5,
            pause: Duration::from_secs(5),
            longest_pause: Duration::from_secs(5 * 60),
        }
    }
}

impl TransportTerms {
    /// The defaults, under a name.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// At most so many messages within any span of this length; what is more goes to the next transport, or waits.
    #[must_use]
    pub fn rate(self, messages: u32, per: Duration) -> Self {
        Self { rate: Some((messages, per)), ..self }
    }

    /// What is wrong with them, as sentences; nothing if they can be used.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let fits = |span: Duration| !span.is_zero() && span <= SPAN_LIMIT;
        let mut faults = Vec::new();
        if self.rate.is_some_and(|(messages, per)| !(1..=MESSAGES_LIMIT).contains(&messages) || !fits(per)) {
            faults.push(format!("rate: 1 to {MESSAGES_LIMIT} messages within a span of a day at most"));
        }
        if self.failures == 0 {
            faults.push("failures: at least 1".to_owned());
        }
        if !fits(self.pause) || !fits(self.longest_pause) || self.pause > self.longest_pause {
            faults.push("pause and longest_pause: more than nothing, a day at most, and in this order".to_owned());
        }
        faults
    }
}

/// How a transport stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    /// Its name.
    pub name: String,
    /// The channel that it serves.
    pub channel: Channel,
    /// Whether it is given messages.
    pub status: TransportStatus,
    /// Until when it is left alone, if it is.
    pub open_until: Option<Timestamp>,
    /// How often in a row it was out.
    pub failures_in_row: u32,
    /// How many messages it accepted since the system was started.
    pub accepted: u64,
    /// How many it refused for good since then.
    pub refused: u64,
    /// How many it put off since then, the transport being well.
    pub transient: u64,
    /// How often it was out since then, or did not answer in time.
    pub unavailable: u64,
    /// What it said last when it did not accept a message.
    pub last_failure: Option<String>,
}

/// Whether a transport is given messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TransportStatus {
    /// As always.
    Closed,
    /// It was out too often in a row, and is left alone for a while.
    Open,
    /// One message is trying whether it is back.
    Trying,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_with_their_defaults_and_have_their_limits() {
        let terms: TransportTerms = serde_json::from_str(r#"{"name": "main"}"#).unwrap();
        assert_eq!((terms.faults().len(), &terms), (0, &TransportTerms::named("main")));
        let second = Duration::from_secs(1);
        let bad = [
            TransportTerms::default().rate(0, second),
            TransportTerms::default().rate(10_001, second),
            TransportTerms::default().rate(1, Duration::ZERO),
            TransportTerms::default().rate(1, Duration::from_secs(86_401)),
            TransportTerms { failures: 0, ..TransportTerms::default() },
            TransportTerms { pause: Duration::ZERO, ..TransportTerms::default() },
            TransportTerms { longest_pause: second, ..TransportTerms::default() },
        ];
        assert!(bad.iter().all(|terms| terms.faults().len() == 1));
        assert!(serde_json::from_str::<TransportTerms>(r#"{"rates": 1}"#).is_err());
    }
}
