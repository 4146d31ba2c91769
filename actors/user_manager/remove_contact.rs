//! Remove contact: a user gives up an address.

use majordomo_model::{
    ChangeKind, Changed, Error, Failure, LimitedAction, RemoveContact, RemoveContactReason, Signal, TokenPurpose,
    UserId,
};

use super::authority::gather;
use super::contacts::Terms;
use super::epoch::open_tokens;
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::fresh_token::supersede;
use super::policy::{Policy, Requirement, personal_contact, reset_purpose, verification_purpose};
use super::throttle::Counted;
use super::undo::Undo;
use crate::storage::{ChangeRow, Check, ContactRow, Lookup, ReadError, ReadView, TokenRow, UniqueKey, UserRow, Write};

/// What the store says.
#[derive(Clone, Debug, Default)]
struct Facts {
    user: Option<UserRow>,
    /// The user's open tokens that prove addresses of the contact's channel, or reset the password.
    open: Vec<TokenRow>,
    /// The user's changes that can be undone.
    changes: Vec<ChangeRow>,
}

impl Facts {
    fn read(view: &ReadView, message: &RemoveContact) -> Result<Self, ReadError> {
        let user = view.user(message.user)?;
        let Some(contact) = user.as_ref().and_then(|user| user.contact(message.contact)) else {
            return Ok(Self { user, ..Self::default() });
        };
        let mut open = Vec::new();
        for purpose in sent_to(contact) {
            open.extend(view.open_tokens(message.user, purpose, None)?);
        }
        Ok(Self { user, open, changes: view.changes_of(message.user)? })
    }
}

/// The purposes of tokens whose message may go to a contact.
const fn sent_to(contact: &ContactRow) -> [TokenPurpose; 2] {
    [verification_purpose(contact.channel), reset_purpose(contact.channel)]
}

/// Facts in, batch out.
fn decide(message: &RemoveContact, facts: &Facts, undo: &Undo<'_>, terms: &Terms<'_>) -> Decision<RemoveContact> {
    let refuse = |(reason, failure)| Decision::refuse(reason, failed(message.user, failure));
    let Some(user) = &facts.user else {
        return refuse((RemoveContactReason::UserNotFound, Failure::UserNotFound));
    };
    terms.complete(remove(message, facts, user, (undo, terms)).unwrap_or_else(refuse), user)
}

fn remove(
    message: &RemoveContact,
    facts: &Facts,
    user: &UserRow,
    (undo, terms): (&Undo<'_>, &Terms<'_>),
) -> Result<Decision<RemoveContact>, (RemoveContactReason, Failure)> {
    terms.admit(user, RemoveContactReason::UserInactive, RemoveContactReason::NotAuthorised)?;
    let contact =
        user.contact(message.contact).ok_or((RemoveContactReason::ContactNotFound, Failure::ContactNotFound))?;
    if is_needed(user, contact, terms.policy) {
        return Err((RemoveContactReason::LastIdentifier, Failure::LastIdentifier));
    }
    let after = UserRow { version: user.version.saturating_add(1), contacts: others(user, contact), ..user.clone() };
    let version = after.version;
    let (channel, canonical) = (contact.channel, contact.canonical.clone());
    let mut writes = vec![Write::PutUser(Box::new(after))];
    writes.push(if contact.proven_at.is_some() {
        Write::RemoveOwner(UniqueKey::address(channel, &canonical))
    } else {
        Write::RemoveClaim(channel, canonical, user.id)
    });
    let mut ended = facts.open.clone();
    ended.retain(|token| match token.binding.contact() {
        Some(bound) => bound == contact.id,
        None => token.address == contact.canonical,
    });
    writes.extend(supersede(&ended));
    let undo = undo.record(user, ChangeKind::ContactRemoved, Some(contact), &facts.changes, terms.now);
    writes.extend(undo.writes);
    let mut checks = vec![Check::UserVersion(user.id, user.version)];
    checks.extend(sent_to(contact).map(|purpose| open_tokens(user.id, purpose, &facts.open)));
    let address = personal_contact(contact);
    Ok(Decision {
        checks,
        writes,
        told: Vec::new(),
        end: Signal::ContactRemoved { user: user.id, version, contact: contact.id, address, undo: undo.token },
        subject: None,
        answer: Ok(Changed { version }),
    })
}

/// Whether policy requires the contact, or the user could be let in by nothing that is left: neither a name nor a
/// proven address, nor, where none was proven, an address to prove.
fn is_needed(user: &UserRow, contact: &ContactRow, policy: &Policy) -> bool {
    let left = || user.contacts.iter().filter(|other| other.id != contact.id);
    let as_good = |other: &ContactRow| other.proven_at.is_some() || contact.proven_at.is_none();
    let same_channel = left().any(|other| other.channel == contact.channel && as_good(other));
    let may_use_name = user.username.is_some() && user.verify_by.is_none();
    (policy.channel(contact.channel) == Requirement::Required && !same_channel)
        || !(may_use_name || left().any(as_good))
}

/// The contacts that are left. What was to replace the one that goes becomes a claim like any other, and the oldest
/// proven one of the channel steps in for a primary one.
fn others(user: &UserRow, contact: &ContactRow) -> Vec<ContactRow> {
    let mut others: Vec<_> = user.contacts.iter().filter(|other| other.id != contact.id).cloned().collect();
    for other in others.iter_mut().filter(|other| other.replaces == Some(contact.id)) {
        other.replaces = None;
    }
    let mut candidates = others.iter_mut().filter(|other| other.channel == contact.channel);
    if contact.primary
        && let Some(heir) = candidates.find(|other| other.proven_at.is_some())
    {
        heir.primary = true;
    }
    others
}

const fn failed(user: UserId, reason: Failure) -> Signal {
    Signal::ContactRemoveFailed { user, reason }
}

impl Perform for RemoveContact {
    fn started(&self, _services: &Services) -> Signal {
        Signal::ContactRemoveStarted { user: self.user }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        failed(self.user, why)
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        Counted::by_authority(self.user, &self.authority, None)
    }

    fn counts(_action: LimitedAction, answer: &Answer<Self>) -> bool {
        matches!(answer, Err(Error::Refused(RemoveContactReason::NotAuthorised)))
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let services = run.services;
        let permit = gather(run, self.user, &self.authority).await?;
        let undo = Undo::draw(services.tokens.current_key(), &services.policy);
        run.settle(|view, now| {
            let permit = permit.anew(view)?;
            let terms = Terms { permit: &permit, policy: &services.policy, keys: &services.keys, now };
            Ok(decide(self, &Facts::read(view, self)?, &undo, &terms))
        })
        .await
    }

    fn remember(answer: &Result<Changed, RemoveContactReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Changed, RemoveContactReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use majordomo_model::{
        AddContact, AddContactReason, Authority, ChangeContact, ContactClaim, ContactId, Error, FlowId, Password,
        SignalKind, UserStatus,
    };
    use proptest::prelude::*;

    use super::super::authority::Permit;
    use super::super::fixture::{Fixture, assert_well_formed, authority, recent_session, user_row};
    use super::super::fresh_token::FreshToken;
    use super::super::policy::Registration;
    use super::*;
    use crate::keys::Keyring;
    use crate::storage::{Batch, TokenEnd, Verdict};
    use crate::token::Binding;

    fn removal(user: UserId, contact: ContactId) -> RemoveContact {
        RemoveContact { user, contact, authority: authority() }
    }

    fn reset(fixture: &Fixture, user: UserId, address: &str) -> TokenRow {
        let now = fixture.clock.now();
        let span = (now, now.plus(fixture.services.policy.reset_lifetime));
        let fresh = FreshToken::draw(fixture.services.tokens.current_key());
        fresh.row(TokenPurpose::ResetByEmail, Some(user), address, Binding::CredentialEpoch(1), span)
    }

    #[tokio::test]
    async fn an_address_goes_with_its_tokens_and_is_free() {
        let mut fixture = Fixture::new().await;
        let user = fixture.proven("ada", &["ada@example.com", "ada@example.org"]).await;
        let contact = fixture.contact(user, "ada@example.com").id;
        let resets = ["ada@example.com", "ada@example.org"].map(|address| reset(&fixture, user, address));
        fixture.write(Vec::new(), resets.iter().cloned().map(|row| Write::PutToken(Box::new(row))).collect()).await;
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let version = fixture.run(removal(user, contact)).await.unwrap().version;
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(
            fixture.kinds_after(head),
            [SignalKind::ContactRemoveStarted, SignalKind::UserPasswordChecked, SignalKind::ContactRemoved]
        );
        let Signal::ContactRemoved { address, version: told, .. } = fixture.last_signal() else { panic!() };
        assert_eq!((address.expose(), told), (Some("ada@example.com"), version));
        let ends = resets.map(|row| fixture.services.reader.token(row.id).unwrap().unwrap().end);
        assert_eq!(ends, [Some(TokenEnd::Superseded), None]);
        let verifying =
            fixture.services.reader.snapshot(|view| view.open_tokens(user, TokenPurpose::VerifyEmail, None));
        assert!(verifying.unwrap().iter().all(|token| token.address == "ada@example.org"));
        fixture.sign_in("ada@example.com").await.unwrap_err();
        fixture.session("ada@example.org").await;
        assert!(fixture.contact(user, "ada@example.org").primary);
        fixture.services.policy.registration = Registration::Open;
        let claim = ContactClaim::Email("ada@example.com".to_owned());
        let eve = fixture.register("eve-early", None, None).await.user;
        let early = fixture.run(AddContact { user: eve, address: claim, authority: authority() }).await.unwrap_err();
        assert_eq!(early, Error::Refused(AddContactReason::EmailTaken), "it is kept for its old owner");
        fixture.pass(fixture.services.policy.undo_lifetime);
        fixture.proven("eve", &["ada@example.com"]).await;
        fixture.session("ada@example.com").await;
    }

    #[tokio::test]
    async fn a_token_made_meanwhile_makes_it_decide_again() {
        let fixture = Fixture::new().await;
        let user = fixture.proven("ada", &["ada@example.com"]).await;
        let message = removal(user, fixture.contact(user, "ada@example.com").id);
        let facts = fixture.services.reader.snapshot(|view| Facts::read(view, &message)).unwrap();
        let (policy, keys, now) = (&fixture.services.policy, &fixture.services.keys, fixture.clock.now());
        let permit = recent_session(&fixture.user(user), now);
        let undo = Undo::draw(keys.current(), policy);
        let decision = decide(&message, &facts, &undo, &Terms { permit: &permit, policy, keys, now });
        fixture.write(Vec::new(), vec![Write::PutToken(Box::new(reset(&fixture, user, "ada@example.com")))]).await;
        let (checks, writes) = (decision.checks, decision.writes);
        let batch = Batch { flow: FlowId::new(), outcome: None, checks, writes, signals: Vec::new() };
        assert!(matches!(fixture.services.storage.commit(batch).await, Ok(Verdict::Conflict)));
    }

    #[tokio::test]
    async fn the_oldest_proven_address_of_the_channel_becomes_primary() {
        let fixture = Fixture::new().await;
        let user = fixture.proven("ada", &["a@example.com", "b@example.com", "c@example.com"]).await;
        for (gone, primary) in [("a@example.com", Some("b@example.com")), ("c@example.com", Some("b@example.com"))] {
            fixture.run(removal(user, fixture.contact(user, gone).id)).await.unwrap();
            let first = fixture.user(user).contacts.into_iter().find(|contact| contact.primary);
            assert_eq!(first.map(|contact| contact.canonical).as_deref(), primary);
        }
    }

    #[tokio::test]
    async fn a_pending_replacement_becomes_a_claim_of_its_own() {
        let fixture = Fixture::new().await;
        let user = fixture.proven("ada", &["old@example.com"]).await;
        let contact = fixture.contact(user, "old@example.com").id;
        let address = ContactClaim::Email("new@example.com".to_owned());
        fixture.run(ChangeContact { user, contact, address, authority: authority() }).await.unwrap();
        fixture.run(removal(user, contact)).await.unwrap();
        let pending = fixture.contact(user, "new@example.com");
        assert_eq!((pending.replaces, pending.proven_at, pending.primary), (None, None, false));
        fixture.run(removal(user, pending.id)).await.unwrap();
        let claimant = fixture
            .services
            .reader
            .snapshot(|view| view.newest_claimant(majordomo_model::Channel::Email, "new@example.com"));
        assert_eq!(claimant.unwrap(), None);
        fixture.session("ada").await;
    }

    #[tokio::test]
    async fn refusals_are_told_by_name_and_change_nothing() {
        let mut fixture = Fixture::new().await;
        let user = fixture.proven("ada", &["ada@example.com"]).await;
        let contact = fixture.contact(user, "ada@example.com").id;
        let barred = fixture.proven("bob", &["bob@example.com"]).await;
        fixture.disable(barred).await;
        fixture.services.policy.email = Requirement::Required;
        let wrong = Authority::Password(Password::new("a password that is wrong"));
        for (message, reason, truth) in [
            (removal(UserId::new(), contact), RemoveContactReason::UserNotFound, Failure::UserNotFound),
            (removal(barred, contact), RemoveContactReason::UserInactive, Failure::UserInactive),
            (
                RemoveContact { authority: wrong, ..removal(user, contact) },
                RemoveContactReason::NotAuthorised,
                Failure::IncorrectPassword,
            ),
            (removal(user, ContactId::new()), RemoveContactReason::ContactNotFound, Failure::ContactNotFound),
            (removal(user, contact), RemoveContactReason::LastIdentifier, Failure::LastIdentifier),
        ] {
            let (told_reason, told) = fixture.refused(message.user, message).await;
            assert_eq!(told_reason, reason);
            assert_eq!(told[0].kind(), SignalKind::ContactRemoveStarted);
            let Some(Signal::ContactRemoveFailed { reason: told, .. }) = told.last() else { panic!("{told:?}") };
            assert_eq!(*told, truth);
        }
    }

    #[test]
    fn the_last_means_to_get_in_stays() {
        let optional = Policy::default();
        let required = Policy { email: Requirement::Required, ..Policy::default() };
        let user = user_row("ada", Some("ada@example.com"));
        let proven = &user.contacts[0];
        let claim = ContactRow { id: ContactId::new(), proven_at: None, primary: false, ..proven.clone() };
        let second = ContactRow { id: ContactId::new(), primary: false, ..proven.clone() };
        let having = |name: bool, verify: bool, contacts: &[&ContactRow]| UserRow {
            username: user.username.clone().filter(|_| name),
            verify_by: verify.then_some(user.created_at),
            contacts: contacts.iter().map(|&contact| contact.clone()).collect(),
            ..user.clone()
        };
        for (case, user, contact, needed_where_optional, needed_where_required) in [
            ("a name is left", having(true, false, &[proven]), proven, false, true),
            ("nothing is left", having(false, false, &[proven]), proven, true, true),
            ("a claim is left", having(false, false, &[proven, &claim]), proven, true, true),
            ("a proven one is left", having(false, false, &[proven, &second]), proven, false, false),
            ("a claim goes", having(false, false, &[proven, &claim]), &claim, false, false),
            ("the one to prove goes", having(true, true, &[&claim]), &claim, true, true),
            (
                "another to prove is left",
                having(false, true, &[&claim, &ContactRow { id: ContactId::new(), ..claim.clone() }]),
                &claim,
                false,
                false,
            ),
        ] {
            assert_eq!(is_needed(&user, contact, &optional), needed_where_optional, "{case}, optional");
            assert_eq!(is_needed(&user, contact, &required), needed_where_required, "{case}, required");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_removals_at_once_the_last_is_refused() {
        let mut fixture = Fixture::new().await;
        let user = fixture.proven("ada", &["a@example.com", "b@example.com", "c@example.com"]).await;
        fixture.services.policy.email = Requirement::Required;
        let fixture = Arc::new(fixture);
        let removals = fixture.user(user).contacts.into_iter().map(|contact| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.run(removal(user, contact.id)).await })
        });
        let mut refused = Vec::new();
        for removal in removals.collect::<Vec<_>>() {
            refused.extend(removal.await.unwrap().err());
        }
        assert_eq!(refused, [Error::Refused(RemoveContactReason::LastIdentifier)]);
        assert!(matches!(fixture.user(user).contacts.as_slice(), [last] if last.primary));
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once(
            (found, active, permitted, known, named, required) in any::<(bool, bool, bool, bool, bool, bool)>(),
        ) {
            let (keys, now) = (Keyring::ephemeral().unwrap(), user_row("ada", None).created_at);
            let mut user = user_row("ada", Some("ada@example.com"));
            user.status = if active { UserStatus::Active } else { UserStatus::Disabled };
            user.username = user.username.filter(|_| named);
            let email = if required { Requirement::Required } else { Requirement::Optional };
            let policy = Policy { email, ..Policy::default() };
            let permit = if permitted { recent_session(&user, now) } else { Permit::Session(None) };
            let message = removal(user.id, if known { user.contacts[0].id } else { ContactId::new() });
            let facts = Facts { user: found.then_some(user), ..Facts::default() };
            let terms = Terms { permit: &permit, policy: &policy, keys: &keys, now };
            let undo = Undo::draw(keys.current(), &policy);
            let decision = decide(&message, &facts, &undo, &terms);
            assert_well_formed(&decision);
            let removed = found && active && permitted && known && named && !required;
            prop_assert_eq!(decision.answer.is_ok(), removed);
            prop_assert_eq!(decision.end.kind() == SignalKind::ContactRemoved, removed);
            prop_assert_eq!(decision.writes.is_empty(), !removed);
        }
    }
}
