//! Request phone verification: a message that proves a phone number is asked for, again.

use majordomo_model::{
    Channel, Failure, LimitedAction, Personal, RequestPhoneVerification, RequestPhoneVerificationReason, Signal,
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
) -> Decision<RequestPhoneVerification> {
    let requested = facts.request(Channel::Phone, fresh, policy);
    let token = requested.answered.challenge;
    let end = match requested.due {
        Ok((user, contact)) => {
            let (user, address) = (user.id, personal_contact(contact));
            Signal::UserPhoneVerificationRequestAccepted { user, address, token }
        }
        Err(reason) => {
            let (user, address) = (requested.known.user(), requested.known.address().or_else(|| typed.cloned()));
            let token = Some(token);
            Signal::UserPhoneVerificationFailed { user, address, token, reason }
        }
    };
    let (subject, answer) = (requested.known.subject(), Ok(requested.reply()));
    let Requested { checks, writes, told, .. } = requested;
    Decision { checks, writes, told, end, subject, answer }
}

impl Perform for RequestPhoneVerification {
    fn started(&self, services: &Services) -> Signal {
        let (user, identifier) = shown(&self.claimant, services);
        Signal::UserPhoneVerificationRequested { user, identifier }
    }

    fn failed(&self, services: &Services, why: Failure) -> Signal {
        let (user, address) = shown(&self.claimant, services);
        Signal::UserPhoneVerificationFailed { user, address, token: None, reason: why }
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
        let Some(sought) = Sought::of(&self.claimant, Channel::Phone) else {
            let end = self.failed(services, Failure::PhoneInvalid);
            let refused = || Decision::refuse(RequestPhoneVerificationReason::PhoneInvalid, end.clone());
            return run.settle(|_, _| Ok(refused())).await;
        };
        let (_, typed) = shown(&self.claimant, services);
        let fresh = FreshRequest::draw(&sought, &services.keys);
        run.settle(|view, now| {
            let facts = ClaimFacts::read(view, &services.keys, &sought, Channel::Phone, now)?;
            Ok(decide(&facts, typed.as_ref(), &fresh, &services.policy))
        })
        .await
    }

    fn remember(answer: &Result<VerificationRequested, RequestPhoneVerificationReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<VerificationRequested, RequestPhoneVerificationReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{Claimant, ConfirmPhone, Error, SignalKind, UserId};
    use proptest::prelude::*;

    use super::super::fixture::Fixture;
    use super::super::verification::cases::assert_sound;
    use super::super::verification_request::cases::{claim_facts, fresh_request};
    use super::*;

    const REQUESTED: SignalKind = SignalKind::UserPhoneVerificationRequested;
    const FAILED: SignalKind = SignalKind::UserPhoneVerificationFailed;

    async fn request(fixture: &Fixture, claimant: Claimant) -> Answer<RequestPhoneVerification> {
        fixture.run(RequestPhoneVerification { claimant }).await
    }

    #[tokio::test]
    async fn a_request_starts_a_delivery_and_the_older_code_stops_working() {
        let fixture = Fixture::new().await;
        let accepted = fixture.register("ada", Some("ada@example.com"), Some("+447911123456")).await;
        let (user, older) = (accepted.user, accepted.phone_challenge.unwrap());
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let requested = request(&fixture, Claimant::User { user, contact: None }).await.unwrap();
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(
            fixture.kinds_after(head),
            [
                REQUESTED,
                SignalKind::UserPhoneVerificationTokenGenerated,
                SignalKind::VerifyPhone,
                SignalKind::UserPhoneVerificationRequestAccepted,
            ]
        );
        assert_eq!(fixture.stored_token(accepted.email_challenge.unwrap()).end, None, "another channel's stays");
        assert!(fixture.run(ConfirmPhone { proof: fixture.code(older) }).await.is_err());
        assert!(fixture.run(ConfirmPhone { proof: fixture.code(requested.challenge) }).await.is_ok());
    }

    #[tokio::test]
    async fn the_truth_is_told_to_the_signals_alone() {
        let fixture = Fixture::new().await;
        let proven = fixture.register("ada", None, Some("+447911123456")).await;
        let shadow = fixture.register("eve", None, Some("+447911123456")).await.user;
        let proof = fixture.code(proven.phone_challenge.unwrap());
        assert!(fixture.run(ConfirmPhone { proof }).await.is_ok());
        let of = |user| Claimant::User { user, contact: None };
        let mut replies = Vec::new();
        for (claimant, why) in [
            (of(shadow), Failure::PhoneTaken),
            (Claimant::Address("+44 7911 123456".to_owned()), Failure::AlreadyVerified),
            (Claimant::Address("+447911123457".to_owned()), Failure::UserNotFound),
            (of(UserId::new()), Failure::UserNotFound),
        ] {
            let head = fixture.head();
            let requested = request(&fixture, claimant).await.unwrap();
            assert_eq!(fixture.kinds_after(head), [REQUESTED, FAILED], "{why}");
            let Signal::UserPhoneVerificationFailed { reason, .. } = fixture.last_signal() else { unreachable!() };
            assert_eq!(reason, why);
            replies.push(requested.expires_at);
        }
        replies.dedup();
        assert_eq!(replies.len(), 1);
    }

    #[tokio::test]
    async fn a_number_that_is_none_is_refused() {
        let fixture = Fixture::new().await;
        for text in ["", "112", "ada@example.com"] {
            let head = fixture.head();
            let answer = request(&fixture, Claimant::Address(text.to_owned())).await;
            assert_eq!(answer, Err(Error::Refused(RequestPhoneVerificationReason::PhoneInvalid)), "{text}");
            assert_eq!(fixture.kinds_after(head), [REQUESTED, FAILED]);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once(facts in claim_facts(Channel::Phone)) {
            let decision = decide(&facts, None, &fresh_request(Channel::Phone), &Policy::default());
            assert_sound(&decision);
            prop_assert_eq!(decision.told.is_empty(), decision.end.kind() == FAILED);
        }
    }
}
