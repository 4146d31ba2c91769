//! The attempts of a webhook: what became of each call, kept where an operator can read it.

use std::sync::{Mutex, PoisonError};

use majordomo_model::{SignalId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::subscriber::{SubscriberContext, Unanswered};

/// How many attempts are kept of an endpoint.
pub const ATTEMPTS_KEPT: u64 = 1_000;
/// How many bytes of an answer are kept.
const ANSWER_LIMIT: usize = 200;
const ELLIPSIS: char = '…';
/// What the key of each attempt starts with, in the projection of its subscription.
pub const ATTEMPT_PREFIX: &[u8] = b"attempt/";
const NEXT: &[u8] = b"next";

/// One call of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WebhookAttempt {
    /// Counts the attempts of the endpoint; the newest has the highest.
    pub number: u64,
    /// When it was made.
    pub at: Timestamp,
    /// The signal, which is the `webhook-id`.
    pub signal: SignalId,
    /// Its place in the log.
    pub place: u64,
    /// Which attempt at the signal it was. What costs no attempt, such as an endpoint that is down, is not counted.
    pub attempt: u32,
    /// The status of the answer, if one came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why none came, as [`Unreached::as_str`](super::Unreached::as_str).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The beginning of the answer, if that refused and the endpoint is sent no personal data in full: at most 200 bytes,
    /// without control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

impl WebhookAttempt {
    /// An attempt as it is stored; `None` for bytes that are none.
    #[must_use]
    pub fn decode(stored: &[u8]) -> Option<Self> {
        serde_json::from_slice(stored).ok()
    }
}

/// The beginning of an answer, as it may be shown; it ends with an ellipsis if that is not all.
pub(super) fn shown(body: &[u8], is_complete: bool) -> Option<String> {
    let beginning = body.get(..ANSWER_LIMIT).unwrap_or(body);
    let text = String::from_utf8_lossy(beginning);
    let (mut shown, mut is_all) = (String::new(), is_complete && beginning.len() == body.len());
    for letter in text.chars().filter(|letter| !letter.is_control()) {
        if shown.len() + letter.len_utf8() + ELLIPSIS.len_utf8() > ANSWER_LIMIT {
            is_all = false;
            break;
        }
        shown.push(letter);
    }
    if !is_all && !shown.is_empty() {
        shown.push(ELLIPSIS);
    }
    (!shown.is_empty()).then_some(shown)
}

/// Numbers the attempts, of which the newest take the places of the oldest.
#[derive(Debug, Default)]
pub(super) struct Journal(Mutex<Option<u64>>);

impl Journal {
    /// Whether it goes on where the process before left off. Until then nothing is to be called: what a handler has read
    /// of the projection has to stand until its end, or its signal would be sent again.
    pub(super) fn is_open(&self) -> bool {
        self.next().is_some()
    }

    /// Finds out where the process before left off.
    pub(super) fn open(&self, context: &SubscriberContext) -> Result<(), Unanswered> {
        let stored = context.projection(NEXT)?;
        let number = stored.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
        self.next().get_or_insert(number);
        Ok(())
    }

    /// Keeps an attempt, which is numbered by this.
    pub(super) fn keep(&self, attempt: WebhookAttempt, context: &SubscriberContext) {
        let mut next = self.next();
        let number = next.unwrap_or_default();
        let attempt = WebhookAttempt { number, ..attempt };
        *next = Some(number.saturating_add(1));
        let Ok(value) = serde_json::to_vec(&attempt) else { return };
        let place = u16::try_from(number % ATTEMPTS_KEPT).unwrap_or_default();
        context.record([ATTEMPT_PREFIX, &place.to_be_bytes()].concat(), value);
        context.record(NEXT.to_vec(), number.saturating_add(1).to_be_bytes().to_vec());
    }

    fn next(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use majordomo_model::{StoreId, TokenId, User, UserId};

    use super::*;
    use crate::subscriber::{Claiming, Delivery, Desk};

    /// A projection, and nothing else.
    #[derive(Default)]
    struct Shelf(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

    impl Desk for Shelf {
        fn user(&self, _: UserId) -> Result<Option<User>, Unanswered> {
            Err(Unanswered::StorageUnavailable)
        }

        fn delivery(&self, _: TokenId) -> Result<Delivery, Unanswered> {
            Err(Unanswered::NotGranted)
        }

        fn projection(&self, key: &[u8]) -> Result<(Option<Vec<u8>>, u64), Unanswered> {
            Ok((self.0.lock().unwrap().get(key).cloned(), 0))
        }

        fn store(&self) -> Result<StoreId, Unanswered> {
            Err(Unanswered::StorageUnavailable)
        }

        fn claim(&self, _: SignalId, _: u64) -> Claiming<'_> {
            Box::pin(std::future::ready(Err(Unanswered::NotGranted)))
        }

        fn now(&self) -> Timestamp {
            Timestamp::from_micros(0)
        }
    }

    fn keep(journal: &Journal, shelf: &Arc<Shelf>) {
        let context = SubscriberContext::new(Arc::clone(shelf) as Arc<dyn Desk>, 1, false);
        let attempt = WebhookAttempt {
            number: 0,
            at: context.now(),
            signal: SignalId::new(),
            place: 1,
            attempt: 1,
            status: Some(204),
            failure: None,
            took_ms: 5,
            answer: None,
        };
        journal.keep(attempt, &context);
        assert_eq!(context.read(), [], "nothing that has to stand until the end");
        shelf.0.lock().unwrap().extend(context.recorded());
    }

    #[test]
    fn the_newest_attempts_take_the_places_of_the_oldest_across_processes() {
        let shelf = Arc::new(Shelf::default());
        for process in 0..3 {
            let journal = Journal::default();
            assert!(!journal.is_open());
            journal.open(&SubscriberContext::new(Arc::clone(&shelf) as Arc<dyn Desk>, 1, false)).unwrap();
            assert!(journal.is_open());
            (0..400 + process).for_each(|_| keep(&journal, &shelf));
        }
        let stored = shelf.0.lock().unwrap();
        let attempts = stored.iter().filter(|(key, _)| key.starts_with(ATTEMPT_PREFIX));
        let mut numbers: Vec<_> = attempts.map(|(_, value)| WebhookAttempt::decode(value).unwrap().number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (203..1_203).collect::<Vec<_>>());
        assert_eq!(stored.len(), 1_001);
        assert!(WebhookAttempt::decode(b"something else").is_none());
    }

    #[test]
    fn an_answer_is_shown_short_and_clean() {
        assert_eq!(shown(b"no\x1b[31m such\r\nkey\0", true), Some("no[31m suchkey".to_owned()));
        assert_eq!(shown(b"begun", false), Some("begun…".to_owned()));
        assert_eq!((shown(b"", false), shown(b"\r\n", true)), (None, None));
        assert_eq!(shown(&[b'x'; 5_000], true).unwrap(), "x".repeat(197) + "…");
        assert!(shown(&[0xff; 5_000], false).unwrap().len() <= 200);
    }
}
