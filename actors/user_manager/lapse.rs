//! Lapse: subscriptions that lie too far behind to keep the log from being pruned any longer.

use futures_util::future::join_all;
use majordomo_model::{Actor as OnBehalfOf, Context, FlowId, Lane, Sender, Signal, SignalId, Timestamp};

use super::flow::Services;
use crate::stamp::Stamp;
use crate::storage::{Batch, Check, CursorRow, Follower, Verdict, Write};

/// How often a sweep looks again, where subscriptions moved while they were to lapse.
const ROUNDS: usize = 3;

/// Lets those that are due lapse, and tells of each. One that moves at the same moment is looked at again, as it may
/// have come near enough.
pub(super) async fn tell(services: &Services) {
    for _ in 0..ROUNDS {
        let due = match services.storage.lapses().await {
            Ok(due) if due.is_empty() => return,
            Ok(due) => due,
            Err(error) => return tracing::debug!(?error, "no subscription lapses for now"),
        };
        let now = services.clock.now();
        let told = join_all(due.iter().map(|follower| services.storage.commit(batch(follower, now)))).await;
        for (follower, told) in due.iter().zip(told) {
            match told {
                Ok(Verdict::Committed(_)) => {
                    tracing::warn!(subscription = %follower.name, lag = ?follower.lag, "a subscription has lapsed");
                }
                Ok(_) => {}
                Err(error) => return tracing::debug!(?error, "the rest lapses later"),
            }
        }
    }
}

fn batch(follower: &Follower, now: Timestamp) -> Batch {
    let Follower { name, cursor, lag } = follower;
    let revision = cursor.foreign_revision();
    let row = CursorRow { revision, lapsed_at: Some(now), ..cursor.clone() };
    let (subscriber, place) = (name.clone(), cursor.floor());
    let signal = Signal::SubscriberLapsed { subscriber, place, count: lag.signals, bytes: lag.bytes };
    let flow = FlowId::new();
    let stamp = Stamp { flow, cause: None, lane: Lane::Flow(flow), actor: OnBehalfOf::System, context: Context::new() };
    let mut envelope = stamp.envelope(SignalId::new(), now, signal, None);
    // No subscription is handed signals about itself.
    envelope.path = vec![Sender::subscriber(name)];
    Batch {
        flow,
        outcome: None,
        checks: vec![Check::Cursor(name.clone(), cursor.revision)],
        writes: vec![Write::PutCursor(name.clone(), row)],
        signals: vec![envelope],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use majordomo_model::{MaxLag, SignalKind};

    use super::super::fixture::Fixture;
    use super::*;

    #[tokio::test]
    async fn a_subscription_that_lies_too_far_behind_lapses_once_and_is_told_of_by_name() {
        let fixture = Fixture::new().await;
        let max_lag = MaxLag { age: Some(Duration::from_secs(60)), bytes: None };
        let row = |taken| CursorRow {
            revision: 4,
            taken,
            max_lag,
            created_at: Timestamp::from_micros(0),
            ..CursorRow::default()
        };
        let put = |name: &str, row| Write::PutCursor(name.to_owned(), row);
        fixture.register("ada", None, None).await;
        let head = fixture.head();
        fixture.write(Vec::new(), vec![put("mail", row(1)), put("audit", row(head))]).await;
        tell(&fixture.services).await;
        assert_eq!(fixture.head(), head, "not yet");

        fixture.pass(Duration::from_secs(61));
        let bytes = fixture.services.reader.bytes_behind(1).unwrap();
        for _ in 0..2 {
            tell(&fixture.services).await;
        }
        let told = fixture.services.reader.signals_after(head, 9).unwrap();
        let [told] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(
            (told.signal.kind(), told.path.as_slice()),
            (SignalKind::SubscriberLapsed, &[Sender::subscriber("mail")][..])
        );
        let (subscriber, count) = ("mail".to_owned(), head - 1);
        assert_eq!(told.signal, Signal::SubscriberLapsed { subscriber, place: 1, count, bytes });
        let lapsed = fixture.services.reader.cursor("mail").unwrap().unwrap();
        assert_eq!(
            lapsed,
            CursorRow { revision: row(1).foreign_revision(), lapsed_at: Some(fixture.services.clock.now()), ..row(1) }
        );
        assert!(fixture.services.storage.is_overdue(&lapsed).unwrap());
        assert!(!fixture.services.storage.is_overdue(&row(head)).unwrap());
        assert_eq!(fixture.services.reader.cursor("audit").unwrap(), Some(row(head)));
    }
}
