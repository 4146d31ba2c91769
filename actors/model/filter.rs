//! A filter: which signals a subscriber asked for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::id::UserId;
use crate::signal::SignalKind;

/// Which signals reach a subscriber. A filter without any condition lets everything through; conditions add up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    kinds: Option<BTreeSet<SignalKind>>,
    users: Option<BTreeSet<UserId>>,
}

impl Filter {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Only signals of these kinds.
    #[must_use]
    pub fn kinds(kinds: impl IntoIterator<Item = SignalKind>) -> Self {
        Self { kinds: Some(kinds.into_iter().collect()), users: None }
    }

    /// And only signals that speak of these users.
    #[must_use]
    pub fn users(mut self, users: impl IntoIterator<Item = UserId>) -> Self {
        self.users = Some(users.into_iter().collect());
        self
    }

    /// Whether this signal passes.
    #[must_use]
    pub fn passes(&self, envelope: &Envelope) -> bool {
        let kind = self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&envelope.signal.kind()));
        let of_user = |users: &BTreeSet<UserId>| envelope.signal.user().is_some_and(|user| users.contains(&user));
        kind && self.users.as_ref().is_none_or(of_user)
    }
}
