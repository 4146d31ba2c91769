//! Confirm email: an e-mail address is proven.

use majordomo_model::{Channel, ConfirmEmail, ConfirmEmailReason, Confirmed, Error, Failure, LimitedAction, Signal};

use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::policy::{personal_contact, seal_key};
use super::proof::Parsed;
use super::throttle::Counted;
use super::undo::Undo;
use super::verification::ProofFacts;

/// Facts in, batch out.
fn decide(facts: &ProofFacts, undo: &Undo<'_>) -> Decision<ConfirmEmail> {
    match facts.prove(Channel::Email, undo) {
        Ok(proven) => {
            let (user, address, via) = (proven.user.id, personal_contact(proven.contact), proven.via);
            let reason = proven.already.then_some(Failure::AlreadyVerified);
            Decision {
                told: proven.told(Signal::UserEmailVerified {
                    user,
                    address: address.clone(),
                    via,
                    undo: proven.undo_addition(),
                }),
                end: Signal::UserEmailVerificationSuccessful { user, address, reason },
                subject: Some((user, seal_key(proven.user))),
                answer: Ok(proven.reply()),
                checks: proven.checks,
                writes: proven.writes,
            }
        }
        Err(unproven) => Decision {
            told: Vec::new(),
            end: Signal::UserEmailVerificationFailed {
                user: unproven.known.user(),
                address: unproven.known.address(),
                token: unproven.token,
                reason: unproven.failure,
            },
            subject: unproven.known.subject(),
            answer: Err(Error::Refused(ConfirmEmailReason::InvalidToken)),
            checks: unproven.checks,
            writes: unproven.writes,
        },
    }
}

impl Perform for ConfirmEmail {
    fn started(&self, _services: &Services) -> Signal {
        Signal::UserEmailVerificationStarted { token: Parsed::of(&self.proof).token() }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        let token = Parsed::of(&self.proof).token();
        Signal::UserEmailVerificationFailed { user: None, address: None, token, reason: why }
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        vec![Counted::by_proof(&self.proof)]
    }

    fn counts(_action: LimitedAction, answer: &Answer<Self>) -> bool {
        matches!(answer, Err(Error::Refused(ConfirmEmailReason::InvalidToken)))
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let parsed = Parsed::of(&self.proof);
        let services = run.services;
        let undo = Undo::draw(services.tokens.current_key(), &services.policy);
        run.settle(|view, now| Ok(decide(&ProofFacts::read(view, services, &parsed, Channel::Email, now)?, &undo)))
            .await
    }

    fn remember(answer: &Result<Confirmed, ConfirmEmailReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Confirmed, ConfirmEmailReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::time::Duration;

    use majordomo_model::{
        Contact, ContactId, Email, OneTimeCode, Proof, SignalKind, TokenId, TokenPurpose, UserId, UserStatus,
    };
    use proptest::prelude::*;

    use super::super::fixture::Fixture;
    use super::super::policy::Verification;
    use super::super::verification::cases::{assert_sound, proof_facts};
    use super::*;
    use crate::session_secret;
    use crate::storage::{ContactRow, Lookup, TokenEnd, UniqueKey, Write};
    use crate::token::Binding;

    const STARTED: SignalKind = SignalKind::UserEmailVerificationStarted;
    const VERIFIED: SignalKind = SignalKind::UserEmailVerified;
    const SUCCESSFUL: SignalKind = SignalKind::UserEmailVerificationSuccessful;
    const FAILED: SignalKind = SignalKind::UserEmailVerificationFailed;

    fn refused() -> Answer<ConfirmEmail> {
        Err(Error::Refused(ConfirmEmailReason::InvalidToken))
    }

    async fn ada(fixture: &Fixture) -> (UserId, TokenId) {
        let accepted = fixture.register("ada", Some("Ada@Example.com"), None).await;
        (accepted.user, accepted.email_challenge.unwrap())
    }

    async fn confirm(fixture: &Fixture, proof: Proof) -> Answer<ConfirmEmail> {
        fixture.run(ConfirmEmail { proof }).await
    }

    /// Must be refused like everything else, in one commit, and the signal must tell why.
    async fn must_refuse(fixture: &Fixture, proof: Proof, why: Failure) {
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        assert_eq!(confirm(fixture, proof).await, refused(), "{why}");
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(fixture.kinds_after(head), [STARTED, FAILED], "{why}");
        let Signal::UserEmailVerificationFailed { reason, .. } = fixture.last_signal() else { unreachable!() };
        assert_eq!(reason, why);
    }

    fn count(fixture: &Fixture, kind: SignalKind) -> usize {
        fixture.signals().iter().filter(|told| told.signal.kind() == kind).count()
    }

    #[tokio::test]
    async fn where_codes_alone_count_a_link_is_refused_like_a_forged_one() {
        let mut fixture = Fixture::new().await;
        fixture.services.policy.verification = Verification::Code;
        let (user, token) = ada(&fixture).await;
        must_refuse(&fixture, fixture.link(token), Failure::InvalidToken).await;
        assert!(!fixture.row(user).is_verified());
        assert!(!confirm(&fixture, fixture.code(token)).await.unwrap().already);
        // What was sent stays what it was, whatever the policy becomes.
        let other = fixture.register("grace", Some("grace@example.com"), None).await.email_challenge.unwrap();
        fixture.services.policy.verification = Verification::LinkOrCode;
        must_refuse(&fixture, fixture.link(other), Failure::InvalidToken).await;
    }

    #[tokio::test]
    async fn a_link_proves_an_address_in_one_commit_and_says_so_again() {
        let fixture = Fixture::new().await;
        let (user, token) = ada(&fixture).await;
        let contact = fixture.row(user).contacts[0].id;
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let confirmed = confirm(&fixture, fixture.link(token)).await;
        assert_eq!(confirmed, Ok(Confirmed { user, contact, already: false }));
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(fixture.kinds_after(head), [STARTED, VERIFIED, SUCCESSFUL]);
        let Signal::UserEmailVerificationSuccessful { address, reason: None, .. } = fixture.last_signal() else {
            panic!("{:?}", fixture.last_signal());
        };
        assert_eq!(address.expose(), Some("ada@example.com"));

        let row = fixture.row(user);
        assert_eq!((row.version, row.verify_by), (2, None));
        assert_eq!((row.contacts[0].proven_at, row.contacts[0].primary), (Some(fixture.clock.now()), true));
        assert_eq!(fixture.stored_token(token).end, Some(TokenEnd::Used));
        assert_eq!(fixture.owner_of(&row.contacts[0].address()), Some(user));
        let reader = &fixture.services.reader;
        let claimant = reader.snapshot(|view| view.newest_claimant(Channel::Email, "ada@example.com"));
        assert_eq!(claimant, Ok(None));
        let late = fixture.clock.now().plus(Duration::from_secs(30 * 24 * 3600));
        assert_eq!(reader.never_verified(late, 10), Ok(Vec::new()));
        fixture.session("ada@example.com").await;

        for proof in [fixture.link(token), fixture.code(token)] {
            let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
            assert_eq!(confirm(&fixture, proof).await, Ok(Confirmed { user, contact, already: true }));
            assert_eq!(fixture.services.storage.observe().batches - commits, 1);
            assert_eq!(fixture.kinds_after(head), [STARTED, SUCCESSFUL]);
            let Signal::UserEmailVerificationSuccessful { reason, .. } = fixture.last_signal() else { unreachable!() };
            assert_eq!(reason, Some(Failure::AlreadyVerified));
        }
        assert_eq!(fixture.row(user).version, 2);
    }

    #[tokio::test]
    async fn what_is_not_the_proof_is_refused_alike() {
        let fixture = Fixture::new().await;
        let (user, token) = ada(&fixture).await;
        let phone = fixture.register("eve", None, Some("+447911123456")).await;
        let reset =
            fixture.token(TokenPurpose::ResetByEmail, user, "ada@example.com", Binding::CredentialEpoch(1)).await;
        let Proof::Link { user: segment, token: secret } = fixture.link(token) else { unreachable!() };
        let Proof::Link { user: eve, .. } = fixture.link(phone.phone_challenge.unwrap()) else { unreachable!() };
        let with = |user: &str, token: &str| Proof::Link {
            user: user.to_owned(),
            token: majordomo_model::OneTimeToken::new(token),
        };
        let code = |challenge, code: &str| Proof::Code { challenge, code: OneTimeCode::new(code) };
        let (short, _) = secret.expose().split_at(40);
        let (head, tail) = secret.expose().split_at(30);
        let tampered = format!("{head}{}", tail.chars().rev().collect::<String>());
        for proof in [
            with("", ""),
            with(&segment, ""),
            with(&segment, short),
            with(&segment, &tampered),
            with("", secret.expose()),
            with("nonsense", secret.expose()),
            with(&eve, secret.expose()),
            Fixture::foreign_link(&segment),
            fixture.link(reset),
            fixture.code(reset),
            fixture.link(phone.phone_challenge.unwrap()),
            fixture.code(phone.phone_challenge.unwrap()),
            code(TokenId::new(), "123456"),
            code(token, ""),
            code(token, "1"),
            fixture.wrong_code(token),
        ] {
            must_refuse(&fixture, proof, Failure::InvalidToken).await;
        }
        assert_eq!(fixture.stored_token(token).attempts, 3);
        assert_eq!(fixture.row(user).version, 1);
        assert!(confirm(&fixture, fixture.code(token)).await.is_ok());
    }

    #[tokio::test]
    async fn a_proof_fits_what_it_was_made_for_or_nothing() {
        let fixture = Fixture::new().await;
        let (user, token) = ada(&fixture).await;
        let (link, before) = (fixture.link(token), fixture.row(user));
        let link = || link.clone();

        fixture.change(user, |row| row.contacts[0].canonical = "eve@example.com".to_owned()).await;
        must_refuse(&fixture, link(), Failure::TokenMismatchOrExpired).await;
        fixture.change(user, |row| row.contacts = vec![ContactRow { revision: 1, ..before.contacts[0].clone() }]).await;
        must_refuse(&fixture, link(), Failure::TokenMismatchOrExpired).await;
        fixture.change(user, |row| row.contacts.clear()).await;
        must_refuse(&fixture, link(), Failure::TokenMismatchOrExpired).await;
        fixture.change(user, |row| row.contacts.clone_from(&before.contacts)).await;
        fixture.change(user, |row| row.status = UserStatus::Disabled).await;
        must_refuse(&fixture, link(), Failure::UserInactive).await;
        fixture.change(user, |row| row.status = UserStatus::Active).await;
        let key = || UniqueKey::address(Channel::Email, "ada@example.com");
        fixture.store(vec![Write::PutOwner(key(), UserId::new())]).await;
        must_refuse(&fixture, link(), Failure::EmailTaken).await;
        fixture.store(vec![Write::RemoveOwner(key()), Write::EndToken(token, TokenEnd::Superseded)]).await;
        must_refuse(&fixture, link(), Failure::TokenMismatchOrExpired).await;
        fixture.store(vec![Write::RemoveUser(user)]).await;
        must_refuse(&fixture, link(), Failure::InvalidToken).await;
    }

    #[tokio::test]
    async fn a_link_ends_after_a_day_and_a_code_after_ten_minutes() {
        const MINUTE: Duration = Duration::from_secs(60);
        let second = Duration::from_secs(1);
        for (span, good) in [(10 * MINUTE - second, true), (10 * MINUTE, false), (10 * MINUTE + second, false)] {
            let fixture = Fixture::new().await;
            let (_, token) = ada(&fixture).await;
            fixture.pass(span);
            assert_eq!(confirm(&fixture, fixture.code(token)).await.is_ok(), good, "{span:?}");
        }
        for (span, good) in [(1440 * MINUTE - second, true), (1440 * MINUTE, false), (1440 * MINUTE + second, false)] {
            let fixture = Fixture::new().await;
            let (_, token) = ada(&fixture).await;
            fixture.pass(span);
            if good {
                assert!(confirm(&fixture, fixture.link(token)).await.is_ok());
            } else {
                must_refuse(&fixture, fixture.link(token), Failure::TokenMismatchOrExpired).await;
            }
        }
    }

    #[tokio::test]
    async fn a_proof_ends_what_was_open_for_its_address_and_nothing_else() {
        let fixture = Fixture::new().await;
        let accepted = fixture.register("ada", Some("ada@example.com"), Some("+447911123456")).await;
        let (user, token, phone) =
            (accepted.user, accepted.email_challenge.unwrap(), accepted.phone_challenge.unwrap());
        assert!(fixture.run(majordomo_model::ConfirmPhone { proof: fixture.link(phone) }).await.is_ok());
        let session = fixture.session("ada").await;
        let contact = fixture.row(user).contacts[0].clone();
        let other = ContactRow { canonical: "b@example.com".to_owned(), id: ContactId::new(), ..contact.clone() };
        fixture.change(user, |row| row.contacts.push(other.clone())).await;
        let bound = |contact: &ContactRow| Binding::ContactRevision { contact: contact.id, revision: contact.revision };
        let verify = TokenPurpose::VerifyEmail;
        let older = fixture.token(verify, user, "ada@example.com", bound(&contact)).await;
        let beside = fixture.token(verify, user, "b@example.com", bound(&other)).await;
        let epoch = fixture.row(user).epoch;
        let reset =
            fixture.token(TokenPurpose::ResetByEmail, user, "ada@example.com", Binding::CredentialEpoch(epoch)).await;

        assert!(confirm(&fixture, fixture.code(token)).await.is_ok());
        assert_eq!(fixture.stored_token(older).end, Some(TokenEnd::Superseded));
        assert_eq!([beside, reset].map(|token| fixture.stored_token(token).end), [None, None]);
        let hash = session_secret::hash(session.token.expose()).unwrap();
        assert!(fixture.services.reader.session(&hash).unwrap().is_some());
        assert_eq!(fixture.row(user).epoch, epoch);

        assert!(confirm(&fixture, fixture.link(beside)).await.is_ok());
        let primaries: Vec<_> = fixture.row(user).contacts.iter().map(|contact| contact.primary).collect();
        assert_eq!(primaries, [true, true, false], "the first of each channel");
    }

    #[tokio::test]
    async fn a_replacement_changes_places_with_the_old_address_in_one_commit() {
        let fixture = Fixture::new().await;
        let (user, token) = ada(&fixture).await;
        assert!(confirm(&fixture, fixture.link(token)).await.is_ok());
        let old = fixture.row(user).contacts[0].clone();
        let address = Contact::from(Email::parse("new@example.com").unwrap());
        let new =
            ContactRow { replaces: Some(old.id), ..ContactRow::claim(ContactId::new(), &address, fixture.clock.now()) };
        let rival = ContactRow { canonical: "rival@example.com".to_owned(), id: ContactId::new(), ..new.clone() };
        fixture.change(user, |row| row.contacts.extend([new.clone(), rival.clone()])).await;
        let bound = |contact: &ContactRow| Binding::ContactRevision { contact: contact.id, revision: 0 };
        let token = fixture.token(TokenPurpose::VerifyEmail, user, "new@example.com", bound(&new)).await;
        let stale = fixture.token(TokenPurpose::VerifyEmail, user, "ada@example.com", bound(&old)).await;
        let epoch = Binding::CredentialEpoch(1);
        let there = fixture.token(TokenPurpose::ResetByEmail, user, "ada@example.com", epoch).await;
        let elsewhere = fixture.token(TokenPurpose::ResetByPhone, user, "+447911123456", epoch).await;

        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        assert!(confirm(&fixture, fixture.link(token)).await.is_ok());
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(fixture.kinds_after(head), [STARTED, VERIFIED, SignalKind::ContactChanged, SUCCESSFUL]);
        let signals = fixture.signals();
        let Signal::ContactChanged { contact, address: now, previous, .. } = &signals[signals.len() - 2].signal else {
            unreachable!()
        };
        assert_eq!(
            (*contact, now.expose(), previous.expose()),
            (new.id, Some("new@example.com"), Some("Ada@Example.com"))
        );
        let row = fixture.row(user);
        let shown: Vec<_> =
            row.contacts.iter().map(|contact| (contact.id, contact.primary, contact.replaces)).collect();
        assert_eq!(shown, [(new.id, true, None), (rival.id, false, None)]);
        assert_eq!((fixture.owner_of(&old.address()), fixture.owner_of(&address)), (None, Some(user)));
        let superseded = Some(TokenEnd::Superseded);
        assert_eq!(
            [stale, there, elsewhere].map(|token| fixture.stored_token(token).end),
            [superseded, superseded, None]
        );
        assert!(fixture.sign_in("ada@example.com").await.is_err());
        fixture.session("new@example.com").await;
    }

    #[tokio::test]
    async fn an_unproven_address_that_is_replaced_frees_nothing_of_its_owner() {
        let fixture = Fixture::new().await;
        let (owner, token) = ada(&fixture).await;
        let shadow = fixture.register("eve", Some("ada@example.com"), None).await.user;
        assert!(confirm(&fixture, fixture.link(token)).await.is_ok());
        let old = fixture.row(shadow).contacts[0].clone();
        let address = Contact::from(Email::parse("eve@example.com").unwrap());
        let new =
            ContactRow { replaces: Some(old.id), ..ContactRow::claim(ContactId::new(), &address, fixture.clock.now()) };
        fixture.change(shadow, |row| row.contacts.push(new.clone())).await;
        let binding = Binding::ContactRevision { contact: new.id, revision: 0 };
        let token = fixture.token(TokenPurpose::VerifyEmail, shadow, "eve@example.com", binding).await;
        assert!(confirm(&fixture, fixture.link(token)).await.is_ok());
        assert_eq!((fixture.owner_of(&old.address()), fixture.owner_of(&address)), (Some(owner), Some(shadow)));
    }

    #[tokio::test]
    async fn what_changed_since_the_facts_were_read_is_decided_again() {
        let fixture = Fixture::new().await;
        let (user, token) = ada(&fixture).await;
        let rival = fixture.register("eve", Some("ada@example.com"), None).await.email_challenge.unwrap();
        let decided = |proof: Proof| {
            let (services, now) = (&fixture.services, fixture.clock.now());
            let parsed = Parsed::of(&proof);
            let facts = services.reader.snapshot(|view| ProofFacts::read(view, services, &parsed, Channel::Email, now));
            decide(&facts.unwrap(), &Undo::draw(services.tokens.current_key(), &services.policy))
        };
        let late = decided(fixture.code(token));
        assert!(confirm(&fixture, fixture.wrong_code(token)).await.is_err());
        assert!(!fixture.commit(late).await, "a right code counts the guesses before it");

        let first = [fixture.link(token), fixture.link(token), fixture.link(rival)].map(decided);
        let mut held = Vec::new();
        for decision in first {
            held.push(fixture.commit(decision).await);
        }
        assert_eq!(held, [true, false, false]);

        let old = fixture.row(user).contacts[0].clone();
        let address = Contact::from(Email::parse("new@example.com").unwrap());
        let new =
            ContactRow { replaces: Some(old.id), ..ContactRow::claim(ContactId::new(), &address, fixture.clock.now()) };
        fixture.change(user, |row| row.contacts.push(new.clone())).await;
        let binding = Binding::ContactRevision { contact: new.id, revision: 0 };
        let token = fixture.token(TokenPurpose::VerifyEmail, user, "new@example.com", binding).await;
        let replacement = decided(fixture.link(token));
        let reset = TokenPurpose::ResetByEmail;
        fixture.token(reset, user, "ada@example.com", Binding::CredentialEpoch(1)).await;
        assert!(!fixture.commit(replacement).await, "a reset that was sent to the old address meanwhile must end too");
        assert!(fixture.commit(decided(fixture.link(token))).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_hundred_uses_of_one_link_prove_once() {
        let fixture = Arc::new(Fixture::new().await);
        let (user, token) = ada(&fixture).await;
        let uses = (0..200).map(|_| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { confirm(&fixture, fixture.link(token)).await.unwrap().already })
        });
        let mut firsts = 0;
        for used in uses.collect::<Vec<_>>() {
            firsts += usize::from(!used.await.unwrap());
        }
        assert_eq!((firsts, count(&fixture, VERIFIED), count(&fixture, SUCCESSFUL)), (1, 1, 200));
        assert_eq!(fixture.row(user).version, 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_two_hundred_claimants_of_one_address_the_first_proof_wins() {
        let fixture = Arc::new(Fixture::with(super::super::fixture::unlimited()).await);
        let spellings = [
            "Ada@b\u{fc}cher.example",
            "ada@xn--bcher-kva.example",
            "ADA@B\u{dc}CHER.example",
            "aDa@XN--BCHER-KVA.Example",
        ];
        let mut tokens = Vec::new();
        for (number, spelling) in spellings.iter().cycle().take(200).enumerate() {
            let accepted = fixture.register(&format!("user{number}"), Some(spelling), None).await;
            tokens.push(accepted.email_challenge.unwrap());
        }
        let addresses: HashSet<_> = tokens.iter().map(|token| fixture.stored_token(*token).address).collect();
        assert_eq!(addresses.len(), 1);
        let proofs = tokens.into_iter().map(|token| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { confirm(&fixture, fixture.link(token)).await })
        });
        let mut won = Vec::new();
        for proof in proofs.collect::<Vec<_>>() {
            match proof.await.unwrap() {
                Ok(confirmed) => won.push(confirmed.user),
                lost => assert_eq!(lost, refused()),
            }
        }
        assert_eq!((won.len(), count(&fixture, VERIFIED), count(&fixture, FAILED)), (1, 1, 199));
        for told in fixture.signals() {
            if let Signal::UserEmailVerificationFailed { reason, .. } = told.signal {
                assert_eq!(reason, Failure::EmailTaken);
            }
        }
        let address = fixture.row(won[0]).contacts[0].address();
        assert_eq!(fixture.owner_of(&address), Some(won[0]));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_five_hundred_wrong_codes_five_are_counted_and_then_the_right_one_is_refused() {
        let fixture = Arc::new(Fixture::new().await);
        let (_, token) = ada(&fixture).await;
        let guesses = (0..500).map(|_| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { confirm(&fixture, fixture.wrong_code(token)).await })
        });
        for guess in guesses.collect::<Vec<_>>() {
            assert_eq!(guess.await.unwrap(), refused());
        }
        assert_eq!(fixture.stored_token(token).attempts, 5);
        let compared = fixture.signals().into_iter().filter(|told| {
            matches!(told.signal, Signal::UserEmailVerificationFailed { reason: Failure::InvalidToken, .. })
        });
        assert_eq!((compared.count(), count(&fixture, FAILED)), (5, 500));
        must_refuse(&fixture, fixture.code(token), Failure::TooManyAttempts).await;
        assert!(confirm(&fixture, fixture.link(token)).await.is_ok(), "a link cannot be guessed");
    }

    #[tokio::test]
    async fn a_wrong_code_for_a_used_token_is_counted_too() {
        let fixture = Fixture::new().await;
        let (_, token) = ada(&fixture).await;
        assert!(confirm(&fixture, fixture.link(token)).await.is_ok());
        for _ in 0..5 {
            must_refuse(&fixture, fixture.wrong_code(token), Failure::InvalidToken).await;
        }
        must_refuse(&fixture, fixture.code(token), Failure::TooManyAttempts).await;
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once_and_changes_only_what_it_may(facts in proof_facts(Channel::Email)) {
            let (keys, policy) = (crate::keys::Keyring::ephemeral().unwrap(), super::super::policy::Policy::default());
            let decision = decide(&facts, &Undo::draw(keys.current(), &policy));
            assert_sound(&decision);
            let proves = decision.told.iter().any(|told| told.signal.kind() == VERIFIED);
            let owns = decision.writes.iter().any(|write| matches!(write, Write::PutOwner(..)));
            let already = decision.answer.as_ref().is_ok_and(|confirmed| confirmed.already);
            prop_assert_eq!((proves, owns), (decision.answer.is_ok() && !already, proves));
            if decision.answer.is_err() {
                prop_assert!(decision.told.is_empty());
                prop_assert!(decision.writes.iter().all(|write| matches!(write, Write::CountAttempt(_))));
            }
        }
    }
}
