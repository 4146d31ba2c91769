//! The claim: of several subscriptions that may deliver, one sends the message that a signal asks for.

use std::time::Duration;

use majordomo_model::{FlowId, SignalId, Timestamp};

use super::desk::SubscriptionDesk;
use crate::storage::{Batch, Check, DispatchRow, Verdict, Write};
use crate::subscriber::{Claim, Unanswered};

/// How often it is tried against others who claim at the same moment.
const TRIES: u32 = 8;

/// What a claim comes to, given the one that is stored.
#[derive(Debug, PartialEq, Eq)]
enum Ruling {
    /// Nothing is to be written.
    Answer(Claim),
    /// It is the subscription's as soon as this is stored.
    Take(DispatchRow),
}

/// A claim holds for as long as a handler may be at work, and as long again: a handler that finds at least half of it
/// left needs no other.
fn rule(stored: Option<&DispatchRow>, place: u64, claimant: &str, now: Timestamp, deadline: Duration) -> Ruling {
    let take = Ruling::Take(DispatchRow {
        place,
        holder: claimant.to_owned(),
        until: now.plus(deadline.saturating_mul(2)),
        settled: false,
    });
    match stored {
        Some(row) if row.settled => Ruling::Answer(Claim::Settled),
        Some(row) if row.holder == claimant && row.until.since(now) >= deadline => Ruling::Answer(Claim::Yours),
        Some(row) if row.holder != claimant && row.until > now => Ruling::Answer(Claim::Held { until: row.until }),
        _ => take,
    }
}

/// Claims the message that the signal of a place asks for. What is answered is durable.
pub(super) async fn claim(desk: &SubscriptionDesk, signal: SignalId, place: u64) -> Result<Claim, Unanswered> {
    if !desk.may_deliver() {
        return Err(Unanswered::NotGranted);
    }
    for _ in 0..TRIES {
        let stored = desk.reader.dispatch(signal)?;
        let row = match rule(stored.as_ref(), place, &desk.name, desk.clock.now(), desk.deadline) {
            Ruling::Answer(claim) => return Ok(claim),
            Ruling::Take(row) => row,
        };
        let (checks, writes) = (vec![Check::Dispatch(signal, stored)], vec![Write::PutDispatch(signal, row)]);
        let batch = Batch { flow: FlowId::new(), outcome: None, checks, writes, signals: Vec::new() };
        match desk.storage.commit(batch).await {
            Ok(Verdict::Committed(_)) => return Ok(Claim::Yours),
            // Somebody else was quicker, or this very batch was committed before its answer was lost.
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(?error, subscription = desk.name, "a message could not be claimed");
                return Err(Unanswered::StorageUnavailable);
            }
        }
    }
    Err(Unanswered::StorageUnavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);
    const DEADLINE: Duration = Duration::from_secs(60);

    fn row(holder: &str, seconds: u64, settled: bool) -> DispatchRow {
        DispatchRow { place: 7, holder: holder.to_owned(), until: NOW.plus(Duration::from_secs(seconds)), settled }
    }

    #[test]
    fn a_message_is_its_holders_until_the_time_is_over_and_nobodys_once_settled() {
        let rule = |stored: Option<DispatchRow>| rule(stored.as_ref(), 7, "mail", NOW, DEADLINE);
        let take = || Ruling::Take(row("mail", 120, false));
        assert_eq!(rule(None), take());
        assert_eq!(rule(Some(row("other", 1, false))), Ruling::Answer(Claim::Held { until: row("", 1, false).until }));
        assert_eq!(rule(Some(row("other", 0, false))), take(), "its time is over");
        assert_eq!(rule(Some(row("mail", 60, false))), Ruling::Answer(Claim::Yours), "its own, as after a crash");
        assert_eq!(rule(Some(row("mail", 59, false))), take(), "there has to be time enough for a handler");
        for holder in ["mail", "other"] {
            assert_eq!(rule(Some(row(holder, 0, true))), Ruling::Answer(Claim::Settled));
        }
    }
}
