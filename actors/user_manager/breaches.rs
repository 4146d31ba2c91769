//! Breaches: how a run asks whether a new password is known from one, and what it tells if that was not found out.

use majordomo_model::{Signal, UserId};
use tracing::Instrument;

use super::flow::{Perform, Run, Told};

impl<F: Perform> Run<'_, F> {
    /// Whether the password, which breaks no other rule, is known from a breach. If that is not found out, it is not, and the
    /// run tells so with its end.
    pub(super) async fn is_breached(&self, password: &[u8]) -> bool {
        if !self.services.breaches.is_manned() {
            return false;
        }
        let asked = self.services.breaches.is_breached(password, self.deadline);
        // Boxed: it is seldom there, and every flow's future would have to hold it.
        let found = Box::pin(asked.instrument(tracing::debug_span!("breaches"))).await;
        found.unwrap_or_else(|failure| {
            let _ = self.breach_check_failure.set(failure);
            false
        })
    }

    /// What is told if it was not found out.
    pub(super) fn breach_check_failed(&self, user: Option<UserId>) -> Option<Told> {
        let failure = *self.breach_check_failure.get()?;
        Some(Signal::BreachCheckFailed { flow: F::KIND, failure, user }.into())
    }
}
