//! Undelivered: messages that were due until their token was long over, because nobody sent them.

use futures_util::future::join_all;
use majordomo_model::{Actor as OnBehalfOf, Context, Failure, FlowId, Lane, SignalId, Timestamp};

use super::flow::Services;
use super::policy::seal_key;
use crate::delivery_end;
use crate::stamp::Stamp;
use crate::storage::{Batch, Check, CommitError, DeliveryState, TokenRow, UserRow};

/// How many deliveries one sweep ends.
const DELIVERIES: usize = 1_000;

/// Ends the deliveries of tokens that the sweeper would remove, were there not their end to tell: no notifier was
/// there in all that time, or none that came through. What a notifier ends at the same moment is left to it.
pub(super) async fn end(services: &Services) {
    let now = services.clock.now();
    let overdue = match services.reader.undelivered(now, DELIVERIES) {
        Ok(overdue) => overdue,
        Err(error) => return tracing::debug!(%error, "overdue deliveries are left for later"),
    };
    let ends = overdue.iter().filter_map(|token| {
        let user = services.reader.user_row(token.user?).ok().flatten()?;
        Some(services.storage.commit(batch(token, &user, now)?))
    });
    for ended in join_all(ends).await {
        if let Err(error @ (CommitError::Failed | CommitError::Interrupted)) = ended {
            tracing::warn!(?error, "an overdue delivery could not be ended");
        }
    }
}

fn batch(token: &TokenRow, user: &UserRow, now: Timestamp) -> Option<Batch> {
    let reason = Failure::Expired;
    let end = delivery_end::failed(token, reason.error_type(), reason)?;
    let (actor, context) = (OnBehalfOf::System, Context::new());
    let stamp = Stamp { flow: token.delivery, cause: None, lane: Lane::User(user.id), actor, context };
    Some(Batch {
        flow: FlowId::new(),
        outcome: None,
        checks: vec![Check::UserVersion(user.id, user.version), Check::DeliveryPending(token.id)],
        writes: delivery_end::writes(token, DeliveryState::Failed),
        signals: vec![stamp.envelope(SignalId::new(), now, end, Some(seal_key(user)))],
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use majordomo_model::{FlowKind, Signal};

    use super::super::fixture::Fixture;
    use super::*;

    #[tokio::test]
    async fn a_delivery_that_nobody_made_ends_as_expired_once_and_then_its_row_goes() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let reset = fixture.reset_token("ada").await;
        fixture.reset_token("nobody").await;
        let delivery = fixture.services.reader.token(reset).unwrap().unwrap().delivery;
        let head = fixture.head();
        fixture.pass(Duration::from_secs(7 * 24 * 3600));
        end(&fixture.services).await;
        assert_eq!(fixture.head(), head, "whoever sends messages still has time");
        fixture.pass(Duration::from_secs(25 * 3600));
        for _ in 0..2 {
            end(&fixture.services).await;
        }
        let told = fixture.services.reader.signals_after(head, 9).unwrap();
        assert_eq!(told.len(), 2, "of the registration and the reset");
        for end in &told {
            assert!(end.signal.kind().ends().contains(&FlowKind::Delivery) && end.lane == Lane::User(user));
        }
        let end = told.iter().find(|end| end.flow == delivery).unwrap();
        assert!(matches!(end.signal, Signal::PasswordResetRequestFailed { reason: Failure::Expired, .. }));
        fixture.services.storage.sweep().await.unwrap();
        assert_eq!(fixture.services.reader.token(reset).unwrap(), None);
    }
}
