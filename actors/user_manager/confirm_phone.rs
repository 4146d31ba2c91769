//! Confirm phone: a phone number is proven.

use majordomo_model::{Channel, ConfirmPhone, ConfirmPhoneReason, Confirmed, Error, Failure, LimitedAction, Signal};

use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::policy::{personal_contact, seal_key};
use super::proof::Parsed;
use super::throttle::Counted;
use super::undo::Undo;
use super::verification::ProofFacts;

/// Facts in, batch out.
fn decide(facts: &ProofFacts, undo: &Undo<'_>) -> Decision<ConfirmPhone> {
    match facts.prove(Channel::Phone, undo) {
        Ok(proven) => {
            let (user, address, via) = (proven.user.id, personal_contact(proven.contact), proven.via);
            let reason = proven.already.then_some(Failure::AlreadyVerified);
            Decision {
                told: proven.told(Signal::UserPhoneVerified {
                    user,
                    address: address.clone(),
                    via,
                    undo: proven.undo_addition(),
                }),
                end: Signal::UserPhoneVerificationSuccessful { user, address, reason },
                subject: Some((user, seal_key(proven.user))),
                answer: Ok(proven.reply()),
                checks: proven.checks,
                writes: proven.writes,
            }
        }
        Err(unproven) => Decision {
            told: Vec::new(),
            end: Signal::UserPhoneVerificationFailed {
                user: unproven.known.user(),
                address: unproven.known.address(),
                token: unproven.token,
                reason: unproven.failure,
            },
            subject: unproven.known.subject(),
            answer: Err(Error::Refused(ConfirmPhoneReason::InvalidToken)),
            checks: unproven.checks,
            writes: unproven.writes,
        },
    }
}

impl Perform for ConfirmPhone {
    fn started(&self, _services: &Services) -> Signal {
        Signal::UserPhoneVerificationStarted { token: Parsed::of(&self.proof).token() }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        let token = Parsed::of(&self.proof).token();
        Signal::UserPhoneVerificationFailed { user: None, address: None, token, reason: why }
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        vec![Counted::by_proof(&self.proof)]
    }

    fn counts(_action: LimitedAction, answer: &Answer<Self>) -> bool {
        matches!(answer, Err(Error::Refused(ConfirmPhoneReason::InvalidToken)))
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let parsed = Parsed::of(&self.proof);
        let services = run.services;
        let undo = Undo::draw(services.tokens.current_key(), &services.policy);
        run.settle(|view, now| Ok(decide(&ProofFacts::read(view, services, &parsed, Channel::Phone, now)?, &undo)))
            .await
    }

    fn remember(answer: &Result<Confirmed, ConfirmPhoneReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Confirmed, ConfirmPhoneReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use majordomo_model::{ConfirmEmail, ProofMethod, SignalKind};
    use proptest::prelude::*;

    use super::super::fixture::Fixture;
    use super::super::verification::cases::{assert_sound, proof_facts};
    use super::*;

    const STARTED: SignalKind = SignalKind::UserPhoneVerificationStarted;
    const FAILED: SignalKind = SignalKind::UserPhoneVerificationFailed;

    #[tokio::test]
    async fn a_code_proves_a_number_in_one_commit_and_says_so_again() {
        let fixture = Fixture::new().await;
        let accepted = fixture.register("ada", None, Some("+447911123456")).await;
        let (user, token) = (accepted.user, accepted.phone_challenge.unwrap());
        let contact = fixture.row(user).contacts[0].id;
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let confirmed = fixture.run(ConfirmPhone { proof: fixture.code(token) }).await;
        assert_eq!(confirmed, Ok(Confirmed { user, contact, already: false }));
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        let successful = SignalKind::UserPhoneVerificationSuccessful;
        assert_eq!(fixture.kinds_after(head), [STARTED, SignalKind::UserPhoneVerified, successful]);
        let signals = fixture.signals();
        let Signal::UserPhoneVerified { via, .. } = signals[signals.len() - 2].signal else { unreachable!() };
        assert_eq!(via, ProofMethod::Code);
        fixture.session("+447911123456").await;
        let head = fixture.head();
        let again = fixture.run(ConfirmPhone { proof: fixture.link(token) }).await;
        assert_eq!(again, Ok(Confirmed { user, contact, already: true }));
        assert_eq!(fixture.kinds_after(head), [STARTED, successful]);
    }

    #[tokio::test]
    async fn a_late_code_and_one_of_another_channel_are_refused_alike() {
        let fixture = Fixture::new().await;
        let accepted = fixture.register("ada", Some("ada@example.com"), Some("+447911123456")).await;
        let (email, phone) = (accepted.email_challenge.unwrap(), accepted.phone_challenge.unwrap());
        fixture.pass(Duration::from_secs(601));
        for (proof, why) in [
            (fixture.code(phone), Failure::TokenMismatchOrExpired),
            (fixture.code(email), Failure::InvalidToken),
            (fixture.link(email), Failure::InvalidToken),
        ] {
            let head = fixture.head();
            let answer = fixture.run(ConfirmPhone { proof }).await;
            assert_eq!(answer, Err(Error::Refused(ConfirmPhoneReason::InvalidToken)));
            assert_eq!(fixture.kinds_after(head), [STARTED, FAILED]);
            let Signal::UserPhoneVerificationFailed { reason, .. } = fixture.last_signal() else { unreachable!() };
            assert_eq!(reason, why);
        }
        assert!(fixture.run(ConfirmEmail { proof: fixture.link(email) }).await.is_ok(), "a link lasts longer");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_two_proofs_of_one_number_by_two_users_one_wins() {
        let fixture = Arc::new(Fixture::new().await);
        let mut proofs = Vec::new();
        for (name, number) in [("ada", "+447911123456"), ("eve", "+44 7911 123456")] {
            let token = fixture.register(name, None, Some(number)).await.phone_challenge.unwrap();
            let fixture = Arc::clone(&fixture);
            proofs.push(tokio::spawn(async move { fixture.run(ConfirmPhone { proof: fixture.code(token) }).await }));
        }
        let mut won = 0;
        for proof in proofs {
            won += usize::from(proof.await.unwrap().is_ok());
        }
        assert_eq!(won, 1);
        let lost = fixture.signals().into_iter().filter_map(|told| match told.signal {
            Signal::UserPhoneVerificationFailed { reason, .. } => Some(reason),
            _ => None,
        });
        assert_eq!(lost.collect::<Vec<_>>(), [Failure::PhoneTaken]);
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once(facts in proof_facts(Channel::Phone)) {
            let (keys, policy) = (crate::keys::Keyring::ephemeral().unwrap(), super::super::policy::Policy::default());
            assert_sound(&decide(&facts, &Undo::draw(keys.current(), &policy)));
        }
    }
}
