//! Add contact: a user claims a further address.

use majordomo_model::{
    AddContact, AddContactReason, ContactClaimed, Error, Failure, LimitedAction, Personal, Signal, UserId,
};

use super::authority::gather;
use super::contacts::{Claim, ClaimFacts, Problem, Terms, claim, claim_refusal};
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::policy::{Requirement, typed};
use super::throttle::Counted;
use crate::storage::UserRow;

/// What is asked for, parsed.
struct Request {
    user: UserId,
    claim: Result<Claim, Problem>,
    /// The address as typed, as signals show it.
    shown: Personal,
    /// Whether users may have addresses of its channel.
    allowed: bool,
}

impl Request {
    fn of(message: &AddContact, services: &Services) -> Self {
        Self {
            user: message.user,
            claim: Claim::draw(&message.address, &services.keys),
            shown: typed(&services.keys, message.address.typed()),
            allowed: services.policy.channel(message.address.channel()) != Requirement::Forbidden,
        }
    }

    fn failed(&self, reason: Failure) -> Signal {
        Signal::ContactAddFailed { user: self.user, address: self.shown.clone(), reason }
    }
}

/// Facts in, batch out.
fn decide(request: &Request, facts: &ClaimFacts, terms: &Terms<'_>) -> Decision<AddContact> {
    let refuse = |(reason, failure)| Decision::refuse(reason, request.failed(failure));
    let Some(user) = &facts.user else {
        return refuse((AddContactReason::UserNotFound, Failure::UserNotFound));
    };
    terms.complete(add(request, facts, user, terms).unwrap_or_else(refuse), user)
}

fn add(
    request: &Request,
    facts: &ClaimFacts,
    user: &UserRow,
    terms: &Terms<'_>,
) -> Result<Decision<AddContact>, (AddContactReason, Failure)> {
    terms.admit(user, AddContactReason::UserInactive, AddContactReason::NotAuthorised)?;
    if !request.allowed {
        return Err((AddContactReason::IdentifierNotAllowed, Failure::IdentifierNotAllowed));
    }
    let wanted = request.claim.as_ref().map_err(|problem| claim_refusal!(AddContactReason, *problem))?;
    let claimed =
        claim(wanted, facts, user, None, terms).map_err(|problem| claim_refusal!(AddContactReason, problem))?;
    let (version, contact, address) = (claimed.version, claimed.reply.contact, claimed.address);
    let end = match claimed.taken {
        Some(taken) => request.failed(taken),
        None => Signal::ContactAdded { user: user.id, version, contact, address },
    };
    let (checks, writes, told) = (claimed.checks, claimed.writes, claimed.told);
    Ok(Decision { checks, writes, told, end, subject: None, answer: Ok(claimed.reply) })
}

impl Perform for AddContact {
    fn started(&self, services: &Services) -> Signal {
        Signal::ContactAddStarted { user: self.user, address: typed(&services.keys, self.address.typed()) }
    }

    fn failed(&self, services: &Services, why: Failure) -> Signal {
        let address = typed(&services.keys, self.address.typed());
        Signal::ContactAddFailed { user: self.user, address, reason: why }
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
                    Ok(_) | Err(Error::Refused(AddContactReason::EmailTaken | AddContactReason::PhoneTaken))
                )
            }
            _ => matches!(answer, Err(Error::Refused(AddContactReason::NotAuthorised))),
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

    fn remember(answer: &Result<ContactClaimed, AddContactReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<ContactClaimed, AddContactReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use majordomo_model::{
        Authority, Channel, ContactClaim, Error, Password, SessionToken, SignalKind, TokenPurpose, UserStatus,
    };
    use proptest::prelude::*;

    use super::super::authority::Permit;
    use super::super::fixture::{Fixture, NOW, assert_well_formed, authority, recent_session, user_row};
    use super::super::message_budget::cases::budget;
    use super::super::policy::{Policy, Registration};
    use super::*;
    use crate::keys::Keyring;
    use crate::storage::{Lookup, Write};

    fn email(user: UserId, address: &str) -> AddContact {
        AddContact { user, address: ContactClaim::Email(address.to_owned()), authority: authority() }
    }

    fn phone(user: UserId, number: &str) -> AddContact {
        AddContact { address: ContactClaim::Phone(number.to_owned()), ..email(user, "") }
    }

    #[tokio::test]
    async fn an_address_is_claimed_and_its_message_starts_in_one_commit() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", None, None).await.user;
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let claimed = fixture.run(email(user, "Ada@Example.com")).await.unwrap();
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(
            fixture.kinds_after(head),
            [
                SignalKind::ContactAddStarted,
                SignalKind::UserPasswordChecked,
                SignalKind::UserEmailVerificationTokenGenerated,
                SignalKind::VerifyEmail,
                SignalKind::ContactAdded,
            ]
        );
        let told = fixture.services.reader.signals_after(head, usize::MAX).unwrap();
        assert!(told[3].flow != told[0].flow && told[3].cause == Some(told[0].flow));
        let Signal::ContactAdded { version, contact, address, .. } = &told[4].signal else { panic!("{told:?}") };
        assert_eq!((*version, *contact, address.expose()), (2, claimed.contact, Some("ada@example.com")));
        let row = fixture.contact(user, "ada@example.com");
        assert_eq!((row.id, row.proven_at, row.primary, row.replaces), (claimed.contact, None, false, None));
        assert_eq!(claimed.challenge, fixture.newest_token(user, TokenPurpose::VerifyEmail));
        let claimant = fixture.services.reader.snapshot(|view| view.newest_claimant(Channel::Email, "ada@example.com"));
        assert_eq!(claimant.unwrap(), Some(user));
    }

    #[tokio::test]
    async fn a_recent_session_permits_a_phone_number() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", None, None).await.user;
        let token = fixture.session("ada").await.token;
        let session = || Authority::RecentSession(token.clone());
        let head = fixture.head();
        fixture.run(AddContact { authority: session(), ..phone(user, "+447911123456") }).await.unwrap();
        assert_eq!(
            fixture.kinds_after(head),
            [
                SignalKind::ContactAddStarted,
                SignalKind::UserPhoneVerificationTokenGenerated,
                SignalKind::VerifyPhone,
                SignalKind::ContactAdded,
            ]
        );
        fixture.pass(fixture.services.policy.session_recent);
        let late = AddContact { authority: session(), ..email(user, "ada@example.com") };
        let (reason, told) = fixture.refused(user, late).await;
        assert_eq!((reason, told.len()), (AddContactReason::NotAuthorised, 2));
        assert!(matches!(told[1], Signal::ContactAddFailed { reason: Failure::SessionNotFound, .. }));
    }

    #[tokio::test]
    async fn refusals_are_told_by_name_and_change_nothing() {
        let mut fixture = Fixture::new().await;
        fixture.services.policy.contacts_per_user = 2;
        let user = fixture.register("ada", Some("ada@example.com"), Some("+447911123456")).await.user;
        let eve = fixture.register("eve", Some("eve@example.com"), None).await.user;
        fixture.prove(eve, "eve@example.com").await;
        let barred = fixture.register("bob", None, None).await.user;
        fixture.disable(barred).await;
        let foreign = fixture.session("eve").await.token;
        let with = |authority| AddContact { authority, ..email(user, "new@example.com") };
        for (message, reason, truth, compared) in [
            (email(UserId::new(), "x"), AddContactReason::UserNotFound, Failure::UserNotFound, false),
            (email(barred, "bob@example.com"), AddContactReason::UserInactive, Failure::UserInactive, true),
            (
                with(Authority::Password(Password::new("a password that is wrong"))),
                AddContactReason::NotAuthorised,
                Failure::IncorrectPassword,
                true,
            ),
            (with(Authority::RecentSession(foreign)), AddContactReason::NotAuthorised, Failure::SessionNotFound, false),
            (
                with(Authority::RecentSession(SessionToken::new("nonsense"))),
                AddContactReason::NotAuthorised,
                Failure::SessionNotFound,
                false,
            ),
            (email(user, "no"), AddContactReason::EmailInvalid, Failure::EmailInvalid, true),
            (phone(user, "112"), AddContactReason::PhoneInvalid, Failure::PhoneInvalid, true),
            (email(user, "ADA@example.com"), AddContactReason::ContactExists, Failure::ContactExists, true),
            (email(eve, "eve@example.com"), AddContactReason::ContactExists, Failure::ContactExists, true),
            (email(user, "new@example.com"), AddContactReason::ContactLimitReached, Failure::ContactLimitReached, true),
        ] {
            let (told_reason, told) = fixture.refused(message.user, message).await;
            assert_eq!(told_reason, reason);
            let kinds: Vec<_> = told.iter().map(Signal::kind).collect();
            let middle = compared.then_some(SignalKind::UserPasswordChecked);
            let expected =
                [SignalKind::ContactAddStarted].into_iter().chain(middle).chain([SignalKind::ContactAddFailed]);
            assert_eq!(kinds, expected.collect::<Vec<_>>(), "{reason:?}");
            let Some(Signal::ContactAddFailed { reason: told, .. }) = told.last() else { panic!("{told:?}") };
            assert_eq!(*told, truth);
        }
    }

    #[tokio::test]
    async fn a_forbidden_channel_and_a_taken_address_are_told_in_open_mode() {
        let open = Policy { registration: Registration::Open, phone: Requirement::Forbidden, ..Policy::default() };
        let fixture = Fixture::with(open).await;
        fixture.proven("eve", &["eve@example.com"]).await;
        let user = fixture.register("ada", None, None).await.user;
        for (message, reason) in [
            (phone(user, "+447911123456"), AddContactReason::IdentifierNotAllowed),
            (email(user, "Eve@example.com"), AddContactReason::EmailTaken),
        ] {
            assert_eq!(fixture.refused(user, message).await.0, reason);
        }
    }

    #[tokio::test]
    async fn discreetly_a_taken_address_looks_like_a_free_one() {
        let fixture = Fixture::new().await;
        let owner = fixture.proven("eve", &["eve@example.com"]).await;
        let user = fixture.register("ada", None, None).await.user;
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let claimed = fixture.run(email(user, "eve@example.com")).await.unwrap();
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(
            fixture.kinds_after(head),
            [
                SignalKind::ContactAddStarted,
                SignalKind::UserPasswordChecked,
                SignalKind::AddressTaken,
                SignalKind::ContactAddFailed,
            ]
        );
        let Signal::ContactAddFailed { reason: Failure::EmailTaken, .. } = fixture.last_signal() else { panic!() };
        let told = fixture.services.reader.signals_after(head + 2, 1).unwrap();
        assert!(matches!(told[0].signal, Signal::AddressTaken { owner: told, .. } if told == owner));
        let free = fixture.run(email(user, "free@example.com")).await.unwrap();
        assert_eq!(claimed.expires_at, free.expires_at);
        let (taken, free) = (fixture.contact(user, "eve@example.com"), fixture.contact(user, "free@example.com"));
        assert_eq!((taken.id, taken.proven_at, taken.primary), (claimed.contact, free.proven_at, free.primary));
        assert_eq!(fixture.services.reader.token(claimed.challenge).unwrap().unwrap().user, Some(user));
    }

    #[tokio::test]
    async fn a_claim_shuts_nobody_out_and_lets_nobody_in() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", None, None).await.user;
        fixture.run(email(user, "ada@example.com")).await.unwrap();
        fixture.session("ada").await;
        fixture.sign_in("ada@example.com").await.unwrap_err();
        let unverified = fixture.register("bob", Some("bob@example.com"), None).await.user;
        fixture.run(email(unverified, "bob@example.org")).await.unwrap();
        assert_eq!(fixture.sign_in("bob").await.unwrap_err().as_str(), "email_not_verified");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn claims_at_once_neither_repeat_an_address_nor_pass_the_limit() {
        let fixture = Arc::new(Fixture::new().await);
        let user = fixture.register("ada", None, None).await.user;
        let claims = (0..40).map(|number| {
            let fixture = Arc::clone(&fixture);
            let message = email(user, &format!("ada+{}@example.com", number / 2));
            tokio::spawn(async move { fixture.run(message).await })
        });
        let mut added = 0;
        for claim in claims.collect::<Vec<_>>() {
            match claim.await.unwrap() {
                Ok(_) => added += 1,
                Err(Error::Refused(AddContactReason::ContactExists | AddContactReason::ContactLimitReached)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        let addresses: std::collections::BTreeSet<_> =
            fixture.user(user).contacts.into_iter().map(|contact| contact.canonical).collect();
        assert_eq!((added, addresses.len()), (10, 10));
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once(
            (found, active, permitted, allowed, open, owned) in any::<(bool, bool, bool, bool, bool, bool)>(),
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
            let claim = Claim::draw(&ContactClaim::Email(typed.to_owned()), &keys);
            let request = Request { user: user.id, claim, shown: Personal::redacted_only("***"), allowed };
            let user = found.then_some(user);
            let facts = ClaimFacts { user, holder: owned.then(UserId::new), messages, ..ClaimFacts::default() };
            let terms = Terms { permit: &permit, policy: &policy, keys: &keys, now };
            let decision = decide(&request, &facts, &terms);
            assert_well_formed(&decision);
            let stored = decision.writes.iter().any(|write| matches!(write, Write::PutUser(_)));
            prop_assert_eq!(decision.answer.is_ok(), stored);
            prop_assert!(!stored || (found && active && permitted && allowed && typed == "new@example.com"));
            prop_assert_eq!(decision.end.kind() == SignalKind::ContactAdded, stored && !owned);
        }
    }
}
