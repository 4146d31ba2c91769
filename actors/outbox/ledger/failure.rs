//! The failures of a signal that are kept: few, and each of them short.

use majordomo_model::Timestamp;

use crate::storage::FailureRow;

/// How many failures of a signal are kept.
pub(super) const FAILURES_KEPT: usize = 5;
/// How much of a failure's words is kept, in bytes.
const FAILURE_LIMIT: usize = 200;

/// Adds a failure, and forgets the oldest beyond [`FAILURES_KEPT`].
pub(in crate::outbox) fn push_failure(failures: &mut Vec<FailureRow>, at: Timestamp, failure: &str) {
    if failures.len() >= FAILURES_KEPT {
        failures.remove(0);
    }
    failures.push(FailureRow { at, failure: shortened(failure).to_owned() });
}

/// As much of a failure's words as is kept.
pub(in crate::outbox) fn shortened(failure: &str) -> &str {
    failure.get(..failure.floor_char_boundary(FAILURE_LIMIT)).unwrap_or_default()
}
