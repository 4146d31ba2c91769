//! Change contact: a user replaces an address, once the new one is proven.

use majordomo_model::{
    ChangeContact, ChangeContactReason, Channel, ContactClaimed, ContactId, Error, Failure, LimitedAction, Personal,
    Signal, UserId,
};

use super::authority::gather;
use super::contacts::{Claim, ClaimFacts, Problem, Terms, claim, claim_refusal};
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::policy::{personal_contact, typed};
use super::throttle::Counted;
use crate::storage::{ContactRow, UserRow};

/// What is asked for, parsed.
struct Request {
    user: UserId,
    /// The contact to be replaced.
    contact: ContactId,
    channel: Channel,
    claim: Result<Claim, Problem>,
    /// The new address as typed, as signals show it.
    shown: Personal,
}

impl Request {
    fn of(message: &ChangeContact, services: &Services) -> Self {
        Self {
            user: message.user,
            contact: message.contact,
            channel: message.address.channel(),
            claim: Claim::draw(&message.address, &services.keys),
            shown: typed(&services.keys, message.address.typed()),
        }
    }

    /// The contact that gives way. A replacement that is pending itself is replaced where it would have gone.
    fn target<'a>(&self, user: &'a UserRow) -> Option<&'a ContactRow> {
        let contact = user.contact(self.contact)?;
        let target = contact.replaces.map_or(Some(contact), |replaced| user.contact(replaced))?;
        (target.channel == self.channel).then_some(target)
    }

    fn failed(&self, reason: Failure) -> Signal {
        Signal::ContactChangeFailed { user: self.user, address: self.shown.clone(), reason }
    }
}

/// Facts in, batch out.
fn decide(request: &Request, facts: &ClaimFacts, terms: &Terms<'_>) -> Decision<ChangeContact> {
    let refuse = |(reason, failure)| Decision::refuse(reason, request.failed(failure));
    let Some(user) = &facts.user else {
        return refuse((ChangeContactReason::UserNotFound, Failure::UserNotFound));
    };
    terms.complete(change(request, facts, user, terms).unwrap_or_else(refuse), user)
}

fn change(
    request: &Request,
    facts: &ClaimFacts,
    user: &UserRow,
    terms: &Terms<'_>,
) -> Result<Decision<ChangeContact>, (ChangeContactReason, Failure)> {
    terms.admit(user, ChangeContactReason::UserInactive, ChangeContactReason::NotAuthorised)?;
    let target = request.target(user).ok_or((ChangeContactReason::ContactNotFound, Failure::ContactNotFound))?;
    let wanted = request.claim.as_ref().map_err(|problem| claim_refusal!(ChangeContactReason, *problem))?;
    let claimed = claim(wanted, facts, user, Some(target.id), terms)
        .map_err(|problem| claim_refusal!(ChangeContactReason, problem))?;
    let (version, contact, address) = (claimed.version, claimed.reply.contact, claimed.address);
    let end = match claimed.taken {
        Some(taken) => request.failed(taken),
        None => {
            let previous = personal_contact(target);
            Signal::ContactChangeAccepted { user: user.id, version, contact, address, previous }
        }
    };
    let (checks, writes, told) = (claimed.checks, claimed.writes, claimed.told);
    Ok(Decision { checks, writes, told, end, subject: None, answer: Ok(claimed.reply) })
}

impl Perform for ChangeContact {
    fn started(&self, services: &Services) -> Signal {
        Signal::ContactChangeStarted { user: self.user, address: typed(&services.keys, self.address.typed()) }
    }

    fn failed(&self, services: &Services, why: Failure) -> Signal {
        let address = typed(&services.keys, self.address.typed());
        Signal::ContactChangeFailed { user: self.user, address, reason: why }
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        Counted::by_authority(self.user, &self.authority, Some(LimitedAction::Resend))
    }

    fn counts(action: LimitedAction, answer: &Answer<Self>) -> bool {
        match action {
            // In open mode an address that is taken is told, as at a registration.
            LimitedAction::Resend => {
                matches!(
                    answer,
                    Ok(_) | Err(Error::Refused(ChangeContactReason::EmailTaken | ChangeContactReason::PhoneTaken))
                )
            }
            _ => matches!(answer, Err(Error::Refused(ChangeContactReason::NotAuthorised))),
        }
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let services = run.services;
        let permit = gather(run, self.user, &self.authority).await?;
        let request = Request::of(self, services);
        run.settle(|view, now| {
            let facts = ClaimFacts::read(view, self.user, request.claim.as_ref().ok(), now)?;
            let permit = permit.anew(view)?;
            let terms = Terms { permit: &permit, policy: &services.policy, keys: &services.keys, now };
            Ok(decide(&request, &facts, &terms))
        })
        .await
    }

    fn remember(answer: &Result<ContactClaimed, ChangeContactReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<ContactClaimed, ChangeContactReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use majordomo_model::{Authority, ContactClaim, Password, SignalKind, TokenPurpose, UserStatus};
    use proptest::prelude::*;

    use super::super::authority::Permit;
    use super::super::fixture::{Fixture, NOW, assert_well_formed, authority, recent_session, user_row};
    use super::super::message_budget::cases::budget;
    use super::super::policy::{Policy, Registration};
    use super::*;
    use crate::keys::Keyring;
    use crate::storage::{Lookup, TokenEnd, Write};

    fn email(user: UserId, contact: ContactId, address: &str) -> ChangeContact {
        ChangeContact { user, contact, address: ContactClaim::Email(address.to_owned()), authority: authority() }
    }

    #[tokio::test]
    async fn the_old_address_stays_in_force_until_the_new_one_is_proven() {
        let fixture = Fixture::new().await;
        let user = fixture.proven("ada", &["old@example.com"]).await;
        let old = fixture.contact(user, "old@example.com");
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let claimed = fixture.run(email(user, old.id, "New@example.com")).await.unwrap();
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(
            fixture.kinds_after(head),
            [
                SignalKind::ContactChangeStarted,
                SignalKind::UserPasswordChecked,
                SignalKind::UserEmailVerificationTokenGenerated,
                SignalKind::VerifyEmail,
                SignalKind::ContactChangeAccepted,
            ]
        );
        let Signal::ContactChangeAccepted { contact, address, previous, .. } = fixture.last_signal() else { panic!() };
        assert_eq!((contact, address.expose()), (claimed.contact, Some("new@example.com")));
        assert_eq!(previous.expose(), Some("old@example.com"));
        let (kept, pending) = (fixture.contact(user, "old@example.com"), fixture.contact(user, "new@example.com"));
        assert!(kept == old && old.primary);
        assert_eq!((pending.proven_at, pending.primary, pending.replaces), (None, false, Some(old.id)));
        fixture.session("old@example.com").await;
        fixture.sign_in("new@example.com").await.unwrap_err();
    }

    #[tokio::test]
    async fn a_second_change_takes_the_place_of_the_first() {
        let fixture = Fixture::new().await;
        let user = fixture.proven("ada", &["old@example.com"]).await;
        let old = fixture.contact(user, "old@example.com").id;
        let first = fixture.run(email(user, old, "first@example.com")).await.unwrap();
        for (named, address) in [(old, "second@example.com"), (old, "second@example.com")] {
            let earlier = fixture.newest_token(user, TokenPurpose::VerifyEmail);
            let head = fixture.head();
            let claimed = fixture.run(email(user, named, address)).await.unwrap();
            let generated = &fixture.services.reader.signals_after(head + 2, 1).unwrap()[0].signal;
            let Signal::UserEmailVerificationTokenGenerated { supersedes, .. } = generated else { panic!() };
            assert_eq!(*supersedes, Some(earlier));
            assert_eq!(fixture.services.reader.token(earlier).unwrap().unwrap().end, Some(TokenEnd::Superseded));
            assert_eq!(fixture.newest_token(user, TokenPurpose::VerifyEmail), claimed.challenge);
            assert_eq!(fixture.user(user).contacts.len(), 2);
        }
        let pending = fixture.contact(user, "second@example.com").id;
        fixture.run(email(user, pending, "third@example.com")).await.unwrap();
        let third = fixture.contact(user, "third@example.com");
        assert_eq!((third.replaces, fixture.user(user).contacts.len()), (Some(old), 2));
        assert_ne!(first.contact, third.id);
        let claimant = |address: &str| {
            let found = fixture.services.reader.snapshot(|view| view.newest_claimant(Channel::Email, address));
            found.unwrap()
        };
        assert_eq!(
            ["first@example.com", "second@example.com", "third@example.com"].map(claimant),
            [None, None, Some(user)]
        );
    }

    #[tokio::test]
    async fn an_address_that_is_not_proven_can_be_replaced() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", Some("typo@example.com"), None).await.user;
        let typo = fixture.contact(user, "typo@example.com").id;
        fixture.run(email(user, typo, "ada@example.com")).await.unwrap();
        assert_eq!(fixture.contact(user, "ada@example.com").replaces, Some(typo));
    }

    #[tokio::test]
    async fn refusals_are_told_by_name_and_change_nothing() {
        let mut fixture = Fixture::new().await;
        let user = fixture.proven("ada", &["ada@example.com", "ada@example.org"]).await;
        let contact = fixture.contact(user, "ada@example.com").id;
        let barred = fixture.proven("bob", &["bob@example.com"]).await;
        let of_barred = fixture.contact(barred, "bob@example.com").id;
        fixture.disable(barred).await;
        fixture.proven("eve", &["eve@example.com"]).await;
        fixture.services.policy.registration = Registration::Open;
        let phone = |number: &str| ChangeContact {
            address: ContactClaim::Phone(number.to_owned()),
            ..email(user, contact, "")
        };
        let wrong = Authority::Password(Password::new("a password that is wrong"));
        for (message, reason, truth) in [
            (email(UserId::new(), contact, "x"), ChangeContactReason::UserNotFound, Failure::UserNotFound),
            (email(barred, of_barred, "new@example.com"), ChangeContactReason::UserInactive, Failure::UserInactive),
            (
                ChangeContact { authority: wrong, ..email(user, contact, "new@example.com") },
                ChangeContactReason::NotAuthorised,
                Failure::IncorrectPassword,
            ),
            (email(user, of_barred, "new@example.com"), ChangeContactReason::ContactNotFound, Failure::ContactNotFound),
            (phone("+447911123456"), ChangeContactReason::ContactNotFound, Failure::ContactNotFound),
            (email(user, contact, "no"), ChangeContactReason::EmailInvalid, Failure::EmailInvalid),
            (email(user, contact, "Ada@example.com"), ChangeContactReason::ContactExists, Failure::ContactExists),
            (email(user, contact, "ada@example.org"), ChangeContactReason::ContactExists, Failure::ContactExists),
            (email(user, contact, "eve@example.com"), ChangeContactReason::EmailTaken, Failure::EmailTaken),
        ] {
            let (told_reason, told) = fixture.refused(message.user, message).await;
            assert_eq!(told_reason, reason);
            assert_eq!(told[0].kind(), SignalKind::ContactChangeStarted);
            let Some(Signal::ContactChangeFailed { reason: told, .. }) = told.last() else { panic!("{told:?}") };
            assert_eq!(*told, truth);
        }
        fixture.services.policy.contacts_per_user = 2;
        let (reason, _) = fixture.refused(user, email(user, contact, "new@example.com")).await;
        assert_eq!(reason, ChangeContactReason::ContactLimitReached);
    }

    #[tokio::test]
    async fn discreetly_a_taken_address_looks_like_a_free_one() {
        let fixture = Fixture::new().await;
        fixture.proven("eve", &["eve@example.com"]).await;
        let user = fixture.proven("ada", &["ada@example.com"]).await;
        let contact = fixture.contact(user, "ada@example.com").id;
        let head = fixture.head();
        let claimed = fixture.run(email(user, contact, "eve@example.com")).await.unwrap();
        assert_eq!(
            fixture.kinds_after(head),
            [
                SignalKind::ContactChangeStarted,
                SignalKind::UserPasswordChecked,
                SignalKind::AddressTaken,
                SignalKind::ContactChangeFailed,
            ]
        );
        let pending = fixture.contact(user, "eve@example.com");
        assert_eq!((pending.id, pending.replaces), (claimed.contact, Some(contact)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_changes_at_once_one_is_pending_with_its_own_token() {
        let fixture = Arc::new(Fixture::new().await);
        let user = fixture.proven("ada", &["old@example.com"]).await;
        let old = fixture.contact(user, "old@example.com").id;
        let changes = (0..40).map(|number| {
            let fixture = Arc::clone(&fixture);
            let message = email(user, old, &format!("new{number}@example.com"));
            tokio::spawn(async move { fixture.run(message).await })
        });
        for change in changes.collect::<Vec<_>>() {
            change.await.unwrap().unwrap();
        }
        let contacts = fixture.user(user).contacts;
        assert_eq!((contacts.len(), contacts[1].replaces), (2, Some(old)));
        let open = fixture.services.reader.snapshot(|view| view.open_tokens(user, TokenPurpose::VerifyEmail, None));
        let open: Vec<_> = open.unwrap().into_iter().filter(|token| token.address != "old@example.com").collect();
        assert_eq!(open.len(), 1);
        assert_eq!((&open[0].address, open[0].binding.contact()), (&contacts[1].canonical, Some(contacts[1].id)));
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once(
            (found, active, permitted, known, open, owned) in any::<(bool, bool, bool, bool, bool, bool)>(),
            typed in prop_oneof![Just("ada@example.com"), Just("new@example.com"), Just("no")],
            limit in 1_usize..3,
            messages in budget(NOW),
        ) {
            let (keys, now) = (Keyring::ephemeral().unwrap(), user_row("ada", None).created_at);
            let status = if active { UserStatus::Active } else { UserStatus::Disabled };
            let user = UserRow { status, ..user_row("ada", Some("ada@example.com")) };
            let registration = if open { Registration::Open } else { Registration::Discreet };
            let policy = Policy { contacts_per_user: limit, registration, ..Policy::default() };
            let permit = if permitted { recent_session(&user, now) } else { Permit::Session(None) };
            let request = Request {
                user: user.id,
                contact: if known { user.contacts[0].id } else { ContactId::new() },
                channel: Channel::Email,
                claim: Claim::draw(&ContactClaim::Email(typed.to_owned()), &keys),
                shown: Personal::redacted_only("***"),
            };
            let user = found.then_some(user);
            let facts = ClaimFacts { user, holder: owned.then(UserId::new), messages, ..ClaimFacts::default() };
            let terms = Terms { permit: &permit, policy: &policy, keys: &keys, now };
            let decision = decide(&request, &facts, &terms);
            assert_well_formed(&decision);
            let stored = decision.writes.iter().any(|write| matches!(write, Write::PutUser(_)));
            prop_assert_eq!(decision.answer.is_ok(), stored);
            prop_assert!(!stored || (found && active && permitted && known && typed == "new@example.com"));
            prop_assert_eq!(decision.end.kind() == SignalKind::ContactChangeAccepted, stored && !owned);
        }
    }
}
