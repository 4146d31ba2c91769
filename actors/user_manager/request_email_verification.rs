//! Request email verification: a message that proves an e-mail address is asked for, again.

use majordomo_model::{
    Channel, Failure, LimitedAction, Personal, RequestEmailVerification, RequestEmailVerificationReason, Signal,
    VerificationRequested,
};

use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::policy::{Policy, personal_contact};
use super::throttle::Counted;
use super::verification_request::{ClaimFacts, FreshRequest, Requested, Sought, shown};

/// Facts in, batch out. `typed` is the address as typed, for the signals where it is nobody's.
fn decide(
    facts: &ClaimFacts,
    typed: Option<&Personal>,
    fresh: &FreshRequest,
    policy: &Policy,
) -> Decision<RequestEmailVerification> {
    let requested = facts.request(Channel::Email, fresh, policy);
    let token = requested.answered.challenge;
    let end = match requested.due {
        Ok((user, contact)) => {
            let (user, address) = (user.id, personal_contact(contact));
            Signal::UserEmailVerificationRequestAccepted { user, address, token }
        }
        Err(reason) => {
            let (user, address) = (requested.known.user(), requested.known.address().or_else(|| typed.cloned()));
            let token = Some(token);
            Signal::UserEmailVerificationFailed { user, address, token, reason }
        }
    };
    let (subject, answer) = (requested.known.subject(), Ok(requested.reply()));
    let Requested { checks, writes, told, .. } = requested;
    Decision { checks, writes, told, end, subject, answer }
}

impl Perform for RequestEmailVerification {
    fn started(&self, services: &Services) -> Signal {
        let (user, identifier) = shown(&self.claimant, services);
        Signal::UserEmailVerificationRequested { user, identifier }
    }

    fn failed(&self, services: &Services, why: Failure) -> Signal {
        let (user, address) = shown(&self.claimant, services);
        Signal::UserEmailVerificationFailed { user, address, token: None, reason: why }
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        vec![Counted::of(LimitedAction::Resend)]
    }

    fn counts(_action: LimitedAction, answer: &Answer<Self>) -> bool {
        answer.is_ok()
    }

    fn is_discreet(answer: &Answer<Self>) -> bool {
        answer.is_ok()
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let services = run.services;
        let Some(sought) = Sought::of(&self.claimant, Channel::Email) else {
            let end = self.failed(services, Failure::EmailInvalid);
            let refused = || Decision::refuse(RequestEmailVerificationReason::EmailInvalid, end.clone());
            return run.settle(|_, _| Ok(refused())).await;
        };
        let (_, typed) = shown(&self.claimant, services);
        let fresh = FreshRequest::draw(&sought, &services.keys);
        run.settle(|view, now| {
            let facts = ClaimFacts::read(view, &services.keys, &sought, Channel::Email, now)?;
            Ok(decide(&facts, typed.as_ref(), &fresh, &services.policy))
        })
        .await
    }

    fn remember(answer: &Result<VerificationRequested, RequestEmailVerificationReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<VerificationRequested, RequestEmailVerificationReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use majordomo_model::{
        Claimant, ConfirmEmail, ContactId, Error, SignalKind, TokenId, TokenPurpose, UserId, UserStatus,
    };
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, unlimited};
    use super::super::verification::cases::{assert_sound, shape};
    use super::super::verification_request::cases::{claim_facts, fresh_request};
    use super::*;
    use crate::storage::{Check, Lookup, TokenEnd, TokenRow, Write};

    const REQUESTED: SignalKind = SignalKind::UserEmailVerificationRequested;
    const FAILED: SignalKind = SignalKind::UserEmailVerificationFailed;

    async fn request(fixture: &Fixture, claimant: &Claimant) -> Answer<RequestEmailVerification> {
        fixture.run(RequestEmailVerification { claimant: claimant.clone() }).await
    }

    fn typed(text: &str) -> Claimant {
        Claimant::Address(text.to_owned())
    }

    const fn of(user: UserId) -> Claimant {
        Claimant::User { user, contact: None }
    }

    /// What a request would change, decided and not committed.
    fn changes(fixture: &Fixture, claimant: &Claimant) -> Vec<std::mem::Discriminant<Write>> {
        let services = &fixture.services;
        let sought = Sought::of(claimant, Channel::Email).unwrap();
        let (fresh, now) = (FreshRequest::draw(&sought, &services.keys), services.clock.now());
        let read = |view: &_| ClaimFacts::read(view, &services.keys, &sought, Channel::Email, now);
        let facts = services.reader.snapshot(read).unwrap();
        shape(&decide(&facts, None, &fresh, &services.policy))
    }

    /// A row with everything taken out that differs from one token to the next.
    fn outline(row: TokenRow) -> TokenRow {
        let same = TokenId::from_bytes([0; 16]);
        let delivery = majordomo_model::FlowId::from_bytes([0; 16]);
        let binding = crate::token::Binding::ContactRevision { contact: ContactId::from_bytes([0; 16]), revision: 0 };
        let delivered = crate::storage::DeliveryState::Pending;
        TokenRow { id: same, user: None, address: String::new(), binding, delivery, delivered, ..row }
    }

    #[tokio::test]
    async fn a_request_starts_a_delivery_and_the_older_link_stops_working() {
        let fixture = Fixture::new().await;
        let accepted = fixture.register("ada", Some("Ada@Example.com"), None).await;
        let (user, first) = (accepted.user, accepted.email_challenge.unwrap());
        for claimant in [typed("ADA@example.COM"), of(user)] {
            let older = fixture.newest_token(user, TokenPurpose::VerifyEmail);
            let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
            let requested = request(&fixture, &claimant).await.unwrap();
            assert_eq!(fixture.services.storage.observe().batches - commits, 1);
            assert_eq!(
                fixture.kinds_after(head),
                [
                    REQUESTED,
                    SignalKind::UserEmailVerificationTokenGenerated,
                    SignalKind::VerifyEmail,
                    SignalKind::UserEmailVerificationRequestAccepted,
                ]
            );
            let told = fixture.services.reader.signals_after(head, 4).unwrap();
            let Signal::UserEmailVerificationTokenGenerated { token, expires_at, supersedes, .. } = told[1].signal
            else {
                unreachable!()
            };
            assert_eq!((token, expires_at), (requested.challenge, requested.expires_at));
            assert_eq!(supersedes, Some(older));
            let row = fixture.stored_token(token);
            assert_eq!((told[2].flow, told[2].cause), (row.delivery, Some(told[0].flow)));
            let Signal::VerifyEmail { address, .. } = &told[2].signal else { unreachable!() };
            assert_eq!((address.expose(), row.user), (Some("ada@example.com"), Some(user)));
            assert_eq!(fixture.stored_token(older).end, Some(TokenEnd::Superseded));
            assert!(fixture.run(ConfirmEmail { proof: fixture.link(older) }).await.is_err());
        }
        assert_eq!(fixture.row(user).version, 1);
        let newest = fixture.newest_token(user, TokenPurpose::VerifyEmail);
        assert_ne!(newest, first);
        assert!(fixture.run(ConfirmEmail { proof: fixture.link(newest) }).await.is_ok());
    }

    #[tokio::test]
    async fn whatever_the_address_the_answer_and_what_is_recorded_look_alike() {
        let fixture = Fixture::new().await;
        let proven = fixture.register("ada", Some("ada@example.com"), None).await;
        let shadow = fixture.register("eve", Some("ada@example.com"), None).await.user;
        let link = fixture.link(proven.email_challenge.unwrap());
        assert!(fixture.run(ConfirmEmail { proof: link }).await.is_ok());
        let claimant = fixture.register("bob", Some("bob@example.com"), None).await.user;
        let disabled = fixture.register("dan", Some("dan@example.com"), None).await.user;
        fixture.change(disabled, |row| row.status = UserStatus::Disabled).await;
        let nameless = fixture.register("kim", None, None).await.user;
        let foreign = Claimant::User { user: claimant, contact: Some(ContactId::new()) };

        let real = changes(&fixture, &of(claimant));
        let first = request(&fixture, &of(claimant)).await.unwrap();
        let outlined = outline(fixture.stored_token(first.challenge));
        for (claimant, why) in [
            (typed("bob@example.com"), None),
            (of(shadow), Some(Failure::EmailTaken)),
            (typed("nobody@example.com"), Some(Failure::UserNotFound)),
            (typed("ada@example.com"), Some(Failure::AlreadyVerified)),
            (of(proven.user), Some(Failure::AlreadyVerified)),
            (typed("dan@example.com"), Some(Failure::UserInactive)),
            (of(disabled), Some(Failure::UserInactive)),
            (of(UserId::new()), Some(Failure::UserNotFound)),
            (of(nameless), Some(Failure::ContactNotFound)),
            (foreign, Some(Failure::ContactNotFound)),
        ] {
            assert_eq!(changes(&fixture, &claimant), real, "{why:?}");
            let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
            let requested = request(&fixture, &claimant).await.unwrap();
            assert_eq!(fixture.services.storage.observe().batches - commits, 1);
            assert_eq!(requested.expires_at, first.expires_at);
            let row = fixture.stored_token(requested.challenge);
            assert!(!row.address.is_empty());
            assert_eq!(outline(row), outlined, "{why:?}");
            let Some(why) = why else { continue };
            assert_eq!(fixture.kinds_after(head), [REQUESTED, FAILED], "{why}");
            let Signal::UserEmailVerificationFailed { reason, token, .. } = fixture.last_signal() else {
                unreachable!()
            };
            assert_eq!((reason, token), (why, Some(requested.challenge)));
        }
    }

    #[tokio::test]
    async fn a_challenge_that_is_nobodys_bears_as_many_guesses_as_a_real_one() {
        let fixture = Fixture::new().await;
        let nobodys = request(&fixture, &typed("nobody@example.com")).await.unwrap().challenge;
        assert!(!fixture.stored_token(nobodys).address.contains("nobody"));
        for attempt in 0..7 {
            let proof = if attempt % 2 == 0 { fixture.wrong_code(nobodys) } else { fixture.code(nobodys) };
            assert!(fixture.run(ConfirmEmail { proof }).await.is_err());
        }
        assert_eq!(fixture.stored_token(nobodys).attempts, 5);
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_and_leaves_nothing() {
        let fixture = Fixture::new().await;
        for text in ["", "ada", "ada@", "+447911123456", "a@b@example.com"] {
            let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
            let answer = request(&fixture, &typed(text)).await;
            assert_eq!(answer, Err(Error::Refused(RequestEmailVerificationReason::EmailInvalid)), "{text}");
            assert_eq!(fixture.services.storage.observe().batches - commits, 1);
            assert_eq!(fixture.kinds_after(head), [REQUESTED, FAILED]);
            let Signal::UserEmailVerificationFailed { reason, .. } = fixture.last_signal() else { unreachable!() };
            assert_eq!(reason, Failure::EmailInvalid);
        }
    }

    #[tokio::test]
    async fn the_newest_claimant_of_an_address_is_meant() {
        let fixture = Fixture::new().await;
        let older = fixture.register("ada", Some("ada@example.com"), None).await;
        let newer = fixture.register("eve", Some("ada@example.com"), None).await.user;
        let requested = request(&fixture, &typed("ada@example.com")).await.unwrap();
        assert_eq!(fixture.stored_token(requested.challenge).user, Some(newer));
        assert_eq!(fixture.stored_token(older.email_challenge.unwrap()).end, None, "others keep theirs");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_fifty_requests_at_once_one_token_is_left() {
        let fixture = Arc::new(Fixture::with(unlimited()).await);
        let user = fixture.register("ada", Some("ada@example.com"), None).await.user;
        let requests = (0..50).map(|_| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { request(&fixture, &typed("ada@example.com")).await.unwrap() })
        });
        for requested in requests.collect::<Vec<_>>() {
            requested.await.unwrap();
        }
        let open = fixture.services.reader.snapshot(|view| view.open_tokens(user, TokenPurpose::VerifyEmail, None));
        assert_eq!(open.unwrap().len(), 1);
        let superseded = fixture.signals().into_iter().filter_map(|told| match told.signal {
            Signal::UserEmailVerificationTokenGenerated { supersedes, .. } => supersedes,
            _ => None,
        });
        assert_eq!(superseded.collect::<std::collections::HashSet<_>>().len(), 50, "each gives way to one other");
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once_with_a_token_and_the_same_reply(facts in claim_facts(Channel::Email)) {
            let fresh = fresh_request(Channel::Email);
            let decision = decide(&facts, None, &fresh, &Policy::default());
            assert_sound(&decision);
            if decision.writes.is_empty() {
                prop_assert_eq!((decision.end.kind(), decision.told.len()), (FAILED, 0), "cooled down");
                return Ok(());
            }
            let tokens: Vec<_> = decision.writes.iter().filter_map(|write| match write {
                Write::PutToken(row) => Some(row),
                _ => None,
            }).collect();
            prop_assert_eq!(tokens.len(), 1);
            let reply = decision.answer.as_ref().unwrap();
            prop_assert_eq!((reply.challenge, reply.expires_at), (tokens[0].id, tokens[0].expires_at));
            let delivers = decision.told.iter().any(|told| told.delivery == Some(tokens[0].delivery));
            prop_assert_eq!(delivers, decision.end.kind() != FAILED);
            let free = |check: &Check| {
                matches!(check, Check::Holder(_, holder, _) if holder.is_none_or(|holder| tokens[0].user == Some(holder)))
            };
            prop_assert!(!delivers || decision.checks.iter().any(free));
            prop_assert!(tokens[0].user.is_some() || !delivers);
        }
    }
}
