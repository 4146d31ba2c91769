//! Proven: what a proof of an address changes about its user, and what is told of it.

use majordomo_model::{Confirmed, ProofMethod, Signal, Timestamp, TokenId};

use super::flow::Told;
use super::policy::{personal_contact, personal_recipient};
use crate::storage::{Check, ContactRow, UserRow, Write};

/// An address that is proven.
pub(super) struct Proven<'a> {
    pub(super) checks: Vec<Check>,
    pub(super) writes: Vec<Write>,
    /// Its user, as before.
    pub(super) user: &'a UserRow,
    /// Its contact, as before.
    pub(super) contact: &'a ContactRow,
    /// How it was proven.
    pub(super) via: ProofMethod,
    /// Whether it was proven before.
    pub(super) already: bool,
    /// The contact that gives way to it.
    pub(super) replaced: Option<&'a ContactRow>,
    /// The token of the link that undoes it.
    pub(super) undo: Option<TokenId>,
}

impl<'a> Proven<'a> {
    /// What was proven before.
    pub(super) const fn already(user: &'a UserRow, contact: &'a ContactRow, via: ProofMethod) -> Self {
        Self { checks: Vec::new(), writes: Vec::new(), user, contact, via, already: true, replaced: None, undo: None }
    }

    /// The token of the link that undoes it, unless it replaced a proven address, which is told of it then.
    pub(super) fn undo_addition(&self) -> Option<TokenId> {
        self.undo.filter(|_| !self.replaces_proven())
    }

    fn replaces_proven(&self) -> bool {
        self.replaced.is_some_and(|replaced| replaced.proven_at.is_some())
    }

    /// What is told between start and end, given the signal of the fact; nothing if it is no news.
    pub(super) fn told(&self, verified: Signal) -> Vec<Told> {
        if self.already {
            return Vec::new();
        }
        // Whoever never proved an address is nobody to be told that it was replaced: a stranger may have claimed it.
        let proven = self.replaced.filter(|_| self.replaces_proven());
        let changed = proven.map(|replaced| Signal::ContactChanged {
            user: self.user.id,
            contact: self.contact.id,
            address: personal_contact(self.contact),
            previous: personal_recipient(replaced),
            channel: self.contact.channel,
            undo: self.undo,
        });
        std::iter::once(verified).chain(changed).map(Told::from).collect()
    }

    pub(super) const fn reply(&self) -> Confirmed {
        Confirmed { user: self.user.id, contact: self.contact.id, already: self.already }
    }
}

/// The user once a contact is proven: what it replaces is gone, and it is primary if that was or if none is.
pub(super) fn with_proof(
    user: &UserRow,
    proven: &ContactRow,
    replaced: Option<&ContactRow>,
    now: Timestamp,
) -> UserRow {
    let mut user = UserRow { version: user.version.saturating_add(1), verify_by: None, ..user.clone() };
    if let Some(replaced) = replaced {
        user.contacts.retain(|contact| contact.id != replaced.id);
        for other in user.contacts.iter_mut().filter(|contact| contact.replaces == Some(replaced.id)) {
            other.replaces = None;
        }
    }
    let primary = !user.contacts.iter().any(|contact| contact.channel == proven.channel && contact.primary);
    for contact in user.contacts.iter_mut().filter(|contact| contact.id == proven.id) {
        contact.proven_at = Some(now);
        contact.primary = primary;
        contact.replaces = None;
    }
    user
}
