//! Make primary: an address becomes the first of its channel.

use majordomo_model::{Changed, Error, Failure, LimitedAction, MakePrimary, MakePrimaryReason, Signal, UserId};

use super::authority::gather;
use super::contacts::Terms;
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::policy::personal_contact;
use super::throttle::Counted;
use crate::storage::{Check, Lookup, ReadError, ReadView, UserRow, Write};

/// What the store says.
struct Facts {
    user: Option<UserRow>,
}

impl Facts {
    fn read(view: &ReadView, message: &MakePrimary) -> Result<Self, ReadError> {
        Ok(Self { user: view.user(message.user)? })
    }
}

/// Facts in, batch out.
fn decide(message: &MakePrimary, facts: &Facts, terms: &Terms<'_>) -> Decision<MakePrimary> {
    let refuse = |(reason, failure)| Decision::refuse(reason, failed(message.user, failure));
    let Some(user) = &facts.user else {
        return refuse((MakePrimaryReason::UserNotFound, Failure::UserNotFound));
    };
    terms.complete(choose(message, user, terms).unwrap_or_else(refuse), user)
}

fn choose(
    message: &MakePrimary,
    user: &UserRow,
    terms: &Terms<'_>,
) -> Result<Decision<MakePrimary>, (MakePrimaryReason, Failure)> {
    terms.admit(user, MakePrimaryReason::UserInactive, MakePrimaryReason::NotAuthorised)?;
    let contact =
        user.contact(message.contact).ok_or((MakePrimaryReason::ContactNotFound, Failure::ContactNotFound))?;
    if contact.proven_at.is_none() {
        return Err((MakePrimaryReason::ContactNotVerified, Failure::ContactNotVerified));
    }
    if contact.primary {
        return Err((MakePrimaryReason::NothingToDo, Failure::NothingToDo));
    }
    let version = user.version.saturating_add(1);
    let mut after = UserRow { version, ..user.clone() };
    for other in after.contacts.iter_mut().filter(|other| other.channel == contact.channel) {
        other.primary = other.id == contact.id;
    }
    let address = personal_contact(contact);
    Ok(Decision {
        checks: vec![Check::UserVersion(user.id, user.version)],
        writes: vec![Write::PutUser(Box::new(after))],
        told: Vec::new(),
        end: Signal::ContactPrimaryChanged { user: user.id, version, contact: contact.id, address },
        subject: None,
        answer: Ok(Changed { version }),
    })
}

const fn failed(user: UserId, reason: Failure) -> Signal {
    Signal::ContactPrimaryFailed { user, reason }
}

impl Perform for MakePrimary {
    fn started(&self, _services: &Services) -> Signal {
        Signal::ContactPrimaryStarted { user: self.user }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        failed(self.user, why)
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        Counted::by_authority(self.user, &self.authority, None)
    }

    fn counts(_action: LimitedAction, answer: &Answer<Self>) -> bool {
        matches!(answer, Err(Error::Refused(MakePrimaryReason::NotAuthorised)))
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let services = run.services;
        let permit = gather(run, self.user, &self.authority).await?;
        run.settle(|view, now| {
            let permit = permit.anew(view)?;
            let terms = Terms { permit: &permit, policy: &services.policy, keys: &services.keys, now };
            Ok(decide(self, &Facts::read(view, self)?, &terms))
        })
        .await
    }

    fn remember(answer: &Result<Changed, MakePrimaryReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Changed, MakePrimaryReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use majordomo_model::{
        AddContact, Authority, Channel, ContactClaim, ContactId, Error, Password, SignalKind, UserStatus,
    };
    use proptest::prelude::*;

    use super::super::authority::Permit;
    use super::super::fixture::{Fixture, assert_well_formed, authority, recent_session, user_row};
    use super::super::policy::Policy;
    use super::*;
    use crate::keys::Keyring;
    use crate::storage::ContactRow;

    fn choice(user: UserId, contact: ContactId) -> MakePrimary {
        MakePrimary { user, contact, authority: authority() }
    }

    fn primaries(user: &UserRow, channel: Channel) -> Vec<&str> {
        let of_channel = user.contacts.iter().filter(|contact| contact.primary && contact.channel == channel);
        of_channel.map(|contact| contact.canonical.as_str()).collect()
    }

    #[tokio::test]
    async fn one_address_of_each_channel_is_primary() {
        let fixture = Fixture::new().await;
        let user = fixture.proven("ada", &["a@example.com", "b@example.com"]).await;
        let address = ContactClaim::Phone("+447911123456".to_owned());
        fixture.run(AddContact { user, address, authority: authority() }).await.unwrap();
        fixture.prove(user, "+447911123456").await;
        let contact = fixture.contact(user, "b@example.com").id;
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let version = fixture.run(choice(user, contact)).await.unwrap().version;
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(
            fixture.kinds_after(head),
            [SignalKind::ContactPrimaryStarted, SignalKind::UserPasswordChecked, SignalKind::ContactPrimaryChanged]
        );
        let Signal::ContactPrimaryChanged { address, version: told, .. } = fixture.last_signal() else { panic!() };
        assert_eq!((address.expose(), told), (Some("b@example.com"), version));
        let row = fixture.user(user);
        assert_eq!(primaries(&row, Channel::Email), ["b@example.com"]);
        assert_eq!(primaries(&row, Channel::Phone), ["+447911123456"]);
    }

    #[tokio::test]
    async fn refusals_are_told_by_name_and_change_nothing() {
        let fixture = Fixture::new().await;
        let user = fixture.proven("ada", &["a@example.com", "b@example.com"]).await;
        let first = fixture.contact(user, "a@example.com").id;
        let second = fixture.contact(user, "b@example.com").id;
        let address = ContactClaim::Email("c@example.com".to_owned());
        let claim = fixture.run(AddContact { user, address, authority: authority() }).await.unwrap().contact;
        let barred = fixture.proven("bob", &["bob@example.com"]).await;
        fixture.disable(barred).await;
        let wrong = Authority::Password(Password::new("a password that is wrong"));
        for (message, reason, truth) in [
            (choice(UserId::new(), first), MakePrimaryReason::UserNotFound, Failure::UserNotFound),
            (choice(barred, first), MakePrimaryReason::UserInactive, Failure::UserInactive),
            (
                MakePrimary { authority: wrong, ..choice(user, second) },
                MakePrimaryReason::NotAuthorised,
                Failure::IncorrectPassword,
            ),
            (choice(user, ContactId::new()), MakePrimaryReason::ContactNotFound, Failure::ContactNotFound),
            (choice(user, claim), MakePrimaryReason::ContactNotVerified, Failure::ContactNotVerified),
            (choice(user, first), MakePrimaryReason::NothingToDo, Failure::NothingToDo),
        ] {
            let (told_reason, told) = fixture.refused(message.user, message).await;
            assert_eq!(told_reason, reason);
            assert_eq!(told[0].kind(), SignalKind::ContactPrimaryStarted);
            let Some(Signal::ContactPrimaryFailed { reason: told, .. }) = told.last() else { panic!("{told:?}") };
            assert_eq!(*told, truth);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_choices_at_once_one_is_primary() {
        let fixture = Arc::new(Fixture::new().await);
        let addresses: Vec<_> = (0..8).map(|number| format!("ada+{number}@example.com")).collect();
        let user = fixture.proven("ada", &addresses.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let choices = fixture.user(user).contacts.into_iter().map(|contact| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.run(choice(user, contact.id)).await })
        });
        for choice in choices.collect::<Vec<_>>() {
            match choice.await.unwrap() {
                Ok(_) | Err(Error::Refused(MakePrimaryReason::NothingToDo)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(primaries(&fixture.user(user), Channel::Email).len(), 1);
    }

    #[tokio::test]
    async fn a_session_that_is_ended_meanwhile_permits_nothing() {
        let fixture = Fixture::new().await;
        let user = fixture.proven("ada", &["a@example.com", "b@example.com"]).await;
        let second = fixture.contact(user, "b@example.com");
        let opened = fixture.session("ada").await;
        let recent = Authority::RecentSession(opened.token.clone());
        let message = MakePrimary { authority: recent, ..choice(user, second.id) };
        let command = majordomo_model::Command::new(message);
        let run = Run::new(&fixture.services, &command, majordomo_model::FlowId::new(), None, None);
        let permit = gather(&run, user, &command.message.authority).await.unwrap();
        let decided = |permit: &Permit| {
            let Services { policy, keys, reader, .. } = &fixture.services;
            let now = fixture.clock.now();
            reader.snapshot(|view| {
                let permit = permit.anew(view)?;
                let terms = Terms { permit: &permit, policy, keys, now };
                Ok(decide(&command.message, &Facts::read(view, &command.message)?, &terms))
            })
        };
        let before = decided(&permit).unwrap();
        assert!(before.answer.is_ok());
        fixture.run(majordomo_model::LogOut { token: opened.token }).await.unwrap();
        assert!(!fixture.commit(before).await);
        let after = decided(&permit).unwrap();
        assert_eq!(after.answer, Err(Error::Refused(MakePrimaryReason::NotAuthorised)));
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once(
            (found, active, permitted, known, proven, primary) in any::<(bool, bool, bool, bool, bool, bool)>(),
        ) {
            let (keys, now) = (Keyring::ephemeral().unwrap(), user_row("ada", None).created_at);
            let mut user = user_row("ada", Some("ada@example.com"));
            user.status = if active { UserStatus::Active } else { UserStatus::Disabled };
            let contact = ContactRow {
                proven_at: proven.then_some(now),
                primary: proven && primary,
                ..user.contacts[0].clone()
            };
            user.contacts = vec![contact];
            let permit = if permitted { recent_session(&user, now) } else { Permit::Session(None) };
            let message = choice(user.id, if known { user.contacts[0].id } else { ContactId::new() });
            let policy = Policy::default();
            let terms = Terms { permit: &permit, policy: &policy, keys: &keys, now };
            let decision = decide(&message, &Facts { user: found.then_some(user) }, &terms);
            assert_well_formed(&decision);
            let chosen = found && active && permitted && known && proven && !primary;
            prop_assert_eq!(decision.answer.is_ok(), chosen);
            prop_assert_eq!(decision.end.kind() == SignalKind::ContactPrimaryChanged, chosen);
            prop_assert_eq!(decision.writes.is_empty(), !chosen);
        }
    }
}
