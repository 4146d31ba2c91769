//! Undo: what a change of how a user is reached or signs in leaves behind, so that it can be taken back.

use majordomo_model::{ChangeKind, Channel, Timestamp, TokenId, TokenPurpose};

use super::fresh_token::FreshToken;
use super::policy::Policy;
use crate::storage::{ChangeRow, ContactRow, UserRow, Write};
use crate::token::{Binding, KeyId};

/// How many changes of a user can be undone at a time. More leave no record until one of these has expired: whoever
/// changes an account again and again must not push the earliest out, whose link undoes all the others.
const CHANGES_LIMIT: usize = 50;

/// What a change draws, not decides, so that it can be undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undo<'a> {
    token: FreshToken,
    policy: &'a Policy,
}

/// A change as it is recorded; nothing where it cannot be undone.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub(super) writes: Vec<Write>,
    /// The token of the link, for the signal that tells of the change.
    pub(super) token: Option<TokenId>,
}

impl<'a> Undo<'a> {
    pub(super) fn draw(key: KeyId, policy: &'a Policy) -> Self {
        Self { token: FreshToken::draw(key), policy }
    }

    /// Records the change that makes the next version of a user, and the link that goes to an address from before it:
    /// of a user who has proven none there is nobody to ask whether it was meant.
    pub(super) fn record(
        &self,
        before: &UserRow,
        kind: ChangeKind,
        told: Option<&ContactRow>,
        earlier: &[ChangeRow],
        now: Timestamp,
    ) -> Recorded {
        let open = earlier.iter().filter(|change| change.is_open(now)).count();
        let Some(told) = told.filter(|told| told.proven_at.is_some() && open < CHANGES_LIMIT) else {
            return Recorded::default();
        };
        let (user, version) = (before.id, before.version.saturating_add(1));
        // Whoever came by a change that can still be undone must not outlast the link that takes that change back.
        let knew = |change: &ChangeRow| {
            change.contacts.iter().any(|one| one.channel == told.channel && one.canonical == told.canonical)
        };
        let elder = earlier.iter().filter(|change| change.is_open(now) && !knew(change));
        let last = now.plus(self.policy.undo_lifetime);
        let expires_at = elder.map(|change| change.expires_at).fold(last, Timestamp::min);
        let token = self.token.token;
        let contacts = before.contacts.iter().filter(|contact| contact.proven_at.is_some()).cloned().collect();
        let change = ChangeRow { user, version, kind, at: now, expires_at, contacts, told: told.clone(), token };
        let (purpose, binding) = (TokenPurpose::UndoChange, Binding::Change(version));
        let row = self.token.row(purpose, Some(user), &told.canonical, binding, (now, expires_at)).enclosed();
        Recorded {
            writes: vec![Write::PutChange(Box::new(change)), Write::PutToken(Box::new(row))],
            token: Some(token),
        }
    }
}

/// Where a user is told of what concerns all of the account: the first proven e-mail address, else phone number.
pub(super) fn told_first(user: &UserRow) -> Option<&ContactRow> {
    let first = |channel| user.contacts.iter().find(move |contact| contact.primary && contact.channel == channel);
    first(Channel::Email).or_else(|| first(Channel::Phone))
}
