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
    #[serde(default)]
    groups: Option<BTreeSet<String>>,
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
        Self { kinds: Some(kinds.into_iter().collect()), ..Self::default() }
    }

    /// And only signals that speak of these users.
    #[must_use]
    pub fn users(mut self, users: impl IntoIterator<Item = UserId>) -> Self {
        self.users = Some(users.into_iter().collect());
        self
    }

    /// And only signals that speak of a user who is in one of these groups at the moment when the filter looks; of
    /// users who are deleted by then nothing passes.
    #[must_use]
    pub fn groups<S: Into<String>>(mut self, groups: impl IntoIterator<Item = S>) -> Self {
        self.groups = Some(groups.into_iter().map(Into::into).collect());
        self
    }

    /// Whether signals of this kind can pass.
    #[must_use]
    pub fn admits(&self, kind: SignalKind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    /// Whether this signal passes, groups aside.
    #[must_use]
    pub fn passes(&self, envelope: &Envelope) -> bool {
        let of_user = |users: &BTreeSet<UserId>| envelope.signal.user().is_some_and(|user| users.contains(&user));
        self.admits(envelope.signal.kind()) && self.users.as_ref().is_none_or(of_user)
    }

    /// Whether this signal passes where it comes to groups, given those that a user is in. They are asked for only where
    /// they decide.
    ///
    /// # Errors
    /// Those of `groups_of`.
    pub fn passes_groups<E>(
        &self,
        envelope: &Envelope,
        groups_of: impl FnOnce(UserId) -> Result<BTreeSet<String>, E>,
    ) -> Result<bool, E> {
        match (&self.groups, envelope.signal.user()) {
            (None, _) => Ok(true),
            (Some(_), None) => Ok(false),
            (Some(groups), Some(user)) => Ok(!groups_of(user)?.is_disjoint(groups)),
        }
    }
}
