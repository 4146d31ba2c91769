//! Discretion: what is asked about an address that is owned is answered, and costs, what it is for a free one.

use std::fmt::Debug;
use std::time::Duration;

use majordomo::notifier::SendError;
use majordomo::testing::TestAccounts;
use majordomo::{
    AddContact, Answer, Authority, ChangePassword, Channel, Claimant, ConfirmEmail, ConfirmPhone, ContactClaim,
    Disable, Failure, FlowId, MessageKind, OneTimeCode, Password, Proof, Registration, RemoveContact,
    RequestEmailVerification, RequestPasswordReset, RequestPhoneVerification, ResetPassword, Signal, SignalKind,
    TokenId, UserId, VerificationRequested,
};

use crate::laws::assert_laws;
use crate::steps::{OTHER_PASSWORD, PASSWORD, log_in, proven, registration};

/// What a question came to: all that whoever asks can see, and all that could be measured from outside.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    question: &'static str,
    /// The reply, its identifiers masked, or the error.
    reply: String,
    jobs: u64,
    commits: u64,
}

/// A system that commits nothing but flows: its messages stay unsent, and what subscribers have to store waits.
async fn still(change: impl FnOnce(&mut majordomo::Config)) -> TestAccounts {
    TestAccounts::configured(|config| {
        config.storage.idle_flush = Duration::from_secs(24 * 3600);
        change(config);
    })
    .await
}

async fn hush(test: &TestAccounts) {
    test.drain().await;
    test.messages().fail_next(100_000, SendError::Transient("not now".to_owned()));
}

/// A text with every identifier in it replaced by a word: no two are equal.
fn masked(shown: &str) -> String {
    let hexadecimal = |character: char| character.is_ascii_hexdigit() || character == '-';
    let parts = shown.split_inclusive(|character| !hexadecimal(character));
    parts
        .map(|part| {
            let text = part.trim_end_matches(|character| !hexadecimal(character));
            if text.parse::<UserId>().is_ok() { part.replace(text, "IDENTIFIER") } else { part.to_owned() }
        })
        .collect()
}

/// Asks, and notes what can be seen of the answer.
async fn see<T: Debug, E: Debug>(
    test: &TestAccounts,
    question: &'static str,
    answer: impl Future<Output = Result<T, E>>,
) -> (Seen, Result<T, E>) {
    let (storage, hasher) = (test.storage_state(), test.hasher_state());
    let answer = answer.await;
    let reply = masked(&format!("{answer:?}"));
    let jobs = test.hasher_state().jobs_done - hasher.jobs_done;
    let commits = test.storage_state().commands - storage.commands;
    (Seen { question, reply, jobs, commits }, answer)
}

/// An address, and how to ask about it.
#[derive(Clone, Copy)]
struct Target {
    channel: Channel,
    address: &'static str,
}

impl Target {
    fn registration(self, username: &str) -> majordomo::Register {
        match self.channel {
            Channel::Email => registration(Some(username), Some(self.address), None),
            Channel::Phone => registration(Some(username), None, Some(self.address)),
        }
    }

    fn claim(self) -> ContactClaim {
        match self.channel {
            Channel::Email => ContactClaim::Email(self.address.to_owned()),
            Channel::Phone => ContactClaim::Phone(self.address.to_owned()),
        }
    }

    async fn request(self, test: &TestAccounts, claimant: Claimant) -> Result<VerificationRequested, String> {
        match self.channel {
            Channel::Email => {
                let asked = test.request_email_verification(RequestEmailVerification { claimant }).await;
                asked.map_err(|error| format!("{error:?}"))
            }
            Channel::Phone => {
                let asked = test.request_phone_verification(RequestPhoneVerification { claimant }).await;
                asked.map_err(|error| format!("{error:?}"))
            }
        }
    }

    async fn confirm(self, test: &TestAccounts, proof: Proof) -> Result<UserId, String> {
        match self.channel {
            Channel::Email => {
                let confirmed = test.confirm_email(ConfirmEmail { proof }).await;
                confirmed.map(|confirmed| confirmed.user).map_err(|error| format!("{error:?}"))
            }
            Channel::Phone => {
                let confirmed = test.confirm_phone(ConfirmPhone { proof }).await;
                confirmed.map(|confirmed| confirmed.user).map_err(|error| format!("{error:?}"))
            }
        }
    }
}

async fn reset(test: &TestAccounts, identifier: &str, channel: Channel) -> Answer<RequestPasswordReset> {
    test.request_password_reset(RequestPasswordReset { identifier: identifier.to_owned(), channel }).await
}

/// A wrong code for a challenge; it is right once in a million.
fn wrong_code(challenge: TokenId) -> Proof {
    Proof::Code { challenge, code: OneTimeCode::new("000000") }
}

/// Registers with an address and asks everything that can be asked afterwards.
async fn interrogate(test: &TestAccounts, target: Target, username: &str) -> Vec<Seen> {
    let mut all = Vec::new();
    let (seen, accepted) = see(test, "register", test.register(target.registration(username))).await;
    all.push(seen);
    let accepted = accepted.unwrap();
    let user = accepted.user;
    let challenge = accepted.email_challenge.or(accepted.phone_challenge).unwrap();
    assert_eq!(accepted.email_challenge.is_some(), target.channel == Channel::Email);

    let again = registration(Some(username), Some("elsewhere@example.org"), None);
    all.push(see(test, "register again with another address", test.register(again)).await.0);
    let other = format!("{username}-again");
    all.push(see(test, "register again under another name", test.register(target.registration(&other))).await.0);
    for (question, identifier, password) in [
        ("log in by name", username, PASSWORD),
        ("log in by name with a wrong password", username, OTHER_PASSWORD),
        ("log in by address", target.address, PASSWORD),
        ("log in by address with a wrong password", target.address, OTHER_PASSWORD),
    ] {
        all.push(see(test, question, log_in(test, identifier, password)).await.0);
    }
    for _ in 0..7 {
        all.push(see(test, "guess the code", target.confirm(test, wrong_code(challenge))).await.0);
    }
    let by_user = Claimant::User { user, contact: None };
    let (seen, asked) = see(test, "resend by user", target.request(test, by_user)).await;
    all.push(seen);
    all.push(see(test, "guess its code", target.confirm(test, wrong_code(asked.unwrap().challenge))).await.0);
    all.push(see(test, "guess the first code", target.confirm(test, wrong_code(challenge))).await.0);
    let contact = test.user(user).unwrap().unwrap().contacts[0].id;
    let by_contact = Claimant::User { user, contact: Some(contact) };
    all.push(see(test, "resend by contact", target.request(test, by_contact)).await.0);
    let by_address = || Claimant::Address(target.address.to_owned());
    let (seen, asked) = see(test, "resend by address", target.request(test, by_address())).await;
    all.push(seen);
    let challenge = asked.unwrap().challenge;
    for _ in 0..7 {
        all.push(see(test, "guess that code", target.confirm(test, wrong_code(challenge))).await.0);
    }
    all.push(see(test, "resend by address at once", target.request(test, by_address())).await.0);
    test.advance(majordomo::Policy::default().messages.cool_down);
    all.push(see(test, "resend by address again", target.request(test, by_address())).await.0);
    let unknown = Proof::from_link("/accounts/user_verification_confirm/abc/def/").unwrap();
    all.push(see(test, "present a made-up link", target.confirm(test, unknown)).await.0);
    for channel in [Channel::Email, Channel::Phone] {
        all.push(see(test, "reset by name", reset(test, username, channel)).await.0);
        let (seen, asked) = see(test, "reset by address", reset(test, target.address, channel)).await;
        all.push(seen);
        let challenge = asked.unwrap().challenge;
        let guess = ResetPassword {
            proof: Proof::Code { challenge, code: OneTimeCode::new("00000000") },
            new: Password::new(OTHER_PASSWORD),
        };
        all.push(see(test, "guess the reset code", test.reset_password(guess)).await.0);
    }
    all.extend(change_account(test, target, user, contact).await);
    all
}

/// What the holder of the password can do with the account before any address is proven.
async fn change_account(test: &TestAccounts, target: Target, user: UserId, contact: majordomo::ContactId) -> Vec<Seen> {
    let authority = || Authority::Password(Password::new(PASSWORD));
    let add = |address| AddContact { user, address, authority: authority() };
    let further = ContactClaim::Email("further@example.org".to_owned());
    let remove = RemoveContact { user, contact, authority: authority() };
    let change =
        ChangePassword { user, current: Password::new(PASSWORD), new: Password::new(OTHER_PASSWORD), keep: None };
    vec![
        see(test, "add the same address", test.add_contact(add(target.claim()))).await.0,
        see(test, "remove the only address", test.remove_contact(remove.clone())).await.0,
        see(test, "add another address", test.add_contact(add(further))).await.0,
        see(test, "remove the address", test.remove_contact(remove)).await.0,
        see(test, "claim it again", test.add_contact(add(target.claim()))).await.0,
        see(test, "change the password", test.change_password(change)).await.0,
    ]
}

/// A system of its own, so that the clock of one interrogation is not ahead of the other's, with an owner of addresses.
async fn interrogated(target: Target) -> Vec<Seen> {
    let test = still(|_| {}).await;
    let user = proven(&test, "owner", Some("owner@example.com"), Some("+447911123456")).await;
    let new = Password::new("a password that nobody else has");
    test.change_password(ChangePassword { user, current: Password::new(PASSWORD), new, keep: None }).await.unwrap();
    hush(&test).await;
    let seen = interrogate(&test, target, &format!("eve-{}", target.channel.as_str())).await;
    assert_laws(&test);
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_after_a_discreet_registration_an_owned_address_answers_as_a_free_one() {
    for (channel, free, owned) in [
        (Channel::Email, "fresh@example.com", "Owner@example.com"),
        (Channel::Phone, "+447911123457", "+44 7911 123456"),
    ] {
        let name = channel.as_str();
        let free = interrogated(Target { channel, address: free }).await;
        let owned = interrogated(Target { channel, address: owned }).await;
        for (free, owned) in free.iter().zip(&owned) {
            assert_eq!(free, owned, "{name}");
            assert_eq!(free.commits, 1, "every question is one commit: {free:?}");
        }
        assert_eq!(free.len(), owned.len());
        assert_eq!(free[0].jobs, 1, "{free:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_kept_for_whoever_gave_it_up_answers_as_a_free_one() {
    for (channel, free, kept) in [
        (Channel::Email, "fresh@example.com", "Owner@example.com"),
        (Channel::Phone, "+447911123457", "+44 7911 123456"),
    ] {
        let name = channel.as_str();
        // Each on a system of its own: the questions take time.
        let (beside, test) = (gave_up_all().await, gave_up_all().await);
        let free = interrogate(&beside, Target { channel, address: free }, "eve").await;
        let kept = interrogate(&test, Target { channel, address: kept }, "eve").await;
        assert_eq!(free, kept, "{name}");
        assert!(test.find_user("owner@example.com").unwrap().is_none());
        assert_laws(&test);
    }
}

/// A system whose one user has given up both addresses, which are kept for that user.
async fn gave_up_all() -> TestAccounts {
    let test = still(|_| {}).await;
    let user = proven(&test, "owner", Some("owner@example.com"), Some("+447911123456")).await;
    for contact in test.user(user).unwrap().unwrap().contacts {
        let authority = Authority::Password(Password::new(PASSWORD));
        test.remove_contact(RemoveContact { user, contact: contact.id, authority }).await.unwrap();
    }
    hush(&test).await;
    test
}

/// The kinds and reasons of one flow, with the deliveries that it caused.
fn told(test: &TestAccounts, flow: FlowId) -> Vec<Signal> {
    let of_flow = |envelope: &majordomo::Envelope| envelope.flow == flow || envelope.cause == Some(flow);
    test.recorded().into_iter().filter(of_flow).map(|envelope| envelope.signal).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_an_address_is_told_of_the_attempt_and_gets_no_verification_message() {
    let test = TestAccounts::start().await;
    let owner = proven(&test, "owner", Some("Olga.Owner@example.com"), Some("+447911123456")).await;
    drop(test.messages().take());
    for (channel, address) in [(Channel::Email, "olga.OWNER@EXAMPLE.com"), (Channel::Phone, "+44 7911-123456")] {
        let target = Target { channel, address };
        let shadow = test.register(target.registration(&format!("eve-{}", channel.as_str()))).await.unwrap().user;
        test.drain().await;
        let sent = test.messages().take();
        let [notice] = sent.as_slice() else { panic!("{} messages", sent.len()) };
        assert_eq!((notice.kind, notice.channel), (MessageKind::AddressTaken, channel));
        let stored = if channel == Channel::Email { "Olga.Owner@example.com" } else { "+447911123456" };
        assert_eq!(notice.to, stored, "it goes to the address as its owner wrote it");
        assert_eq!(notice.code(), None);
        assert!(notice.text.contains("omebody tried to use"), "{}", notice.text);

        let started = |envelope: &majordomo::Envelope| envelope.signal.kind() == SignalKind::UserRegistrationStarted;
        let flow = test.recorded().into_iter().rev().find(started).unwrap().flow;
        let truth = told(&test, flow);
        let kinds: Vec<_> = truth.iter().map(Signal::kind).collect();
        assert_eq!(
            kinds,
            [
                SignalKind::UserRegistrationStarted,
                SignalKind::UserPreRegister,
                SignalKind::UserPasswordSet,
                SignalKind::AddressTaken,
                SignalKind::UserRegistrationFailed,
            ]
        );
        assert!(
            matches!(truth[3], Signal::AddressTaken { owner: of, channel: by, .. } if (of, by) == (owner, channel))
        );
        let taken = if channel == Channel::Email { Failure::EmailTaken } else { Failure::PhoneTaken };
        assert!(matches!(truth[4], Signal::UserRegistrationFailed { reason, .. } if reason == taken));

        target.request(&test, Claimant::User { user: shadow, contact: None }).await.unwrap();
        target.request(&test, Claimant::Address(address.to_owned())).await.unwrap();
        test.drain().await;
        assert_eq!(test.messages().take().len(), 0, "asking again sends nothing to the owner");
        let refused = test.recorded().into_iter().filter_map(|envelope| match envelope.signal {
            Signal::UserEmailVerificationFailed { user, reason, .. }
            | Signal::UserPhoneVerificationFailed { user, reason, .. } => Some((user, reason)),
            _ => None,
        });
        let refused: Vec<_> = refused.collect();
        assert!(refused.ends_with(&[(Some(shadow), taken), (Some(owner), Failure::AlreadyVerified)]), "{refused:?}");
        assert_eq!(test.find_user(address).unwrap().unwrap().id, owner);

        // What the shadow leaves behind ends with it, and its name is free again.
        test.advance(majordomo::Policy::default().unverified_lifetime + Duration::from_secs(1));
        test.sweep().await;
        assert_eq!(test.user(shadow).unwrap(), None);
    }
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_whose_owner_leaves_is_a_claim_like_any_other() {
    let test = TestAccounts::start().await;
    let owner = proven(&test, "owner", Some("owner@example.com"), None).await;
    let target = Target { channel: Channel::Email, address: "owner@example.com" };
    let shadow = test.register(target.registration("eve")).await.unwrap().user;
    test.delete(majordomo::Delete::new(owner)).await.unwrap();
    test.drain().await;
    drop(test.messages().take());
    target.request(&test, Claimant::User { user: shadow, contact: None }).await.unwrap();
    test.drain().await;
    let link = test.messages().last_to("owner@example.com").unwrap().link().unwrap().to_owned();
    assert_eq!(target.confirm(&test, Proof::from_link(&link).unwrap()).await, Ok(shadow));
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_registration_tells_that_an_address_is_taken() {
    let test = TestAccounts::configured(|config| config.policy.registration = Registration::Open).await;
    let owner = proven(&test, "owner", Some("owner@example.com"), Some("+447911123456")).await;
    drop(test.messages().take());
    for (channel, address, reason) in
        [(Channel::Email, "OWNER@example.com", "email_taken"), (Channel::Phone, "+44 7911 123456", "phone_taken")]
    {
        let target = Target { channel, address };
        assert_eq!(test.register(target.registration("eve")).await.unwrap_err().as_str(), reason);
        assert_eq!(test.find_user("eve").unwrap(), None, "nothing is reserved");
    }
    // A claim that nobody has proven takes nothing, in this mode either.
    let claim = || registration(None, Some("claimed@example.com"), None);
    test.register(claim()).await.unwrap();
    test.register(claim()).await.unwrap();
    assert_eq!(test.users(None, 10).await.unwrap().len(), 3);
    test.drain().await;
    assert!(test.messages().messages().iter().all(|message| message.kind == MessageKind::VerifyEmail));
    assert_eq!(test.find_user("owner").unwrap().unwrap().id, owner);
    assert_laws(&test);
}

/// People in every state that a login or a request could tell apart.
async fn populated() -> TestAccounts {
    let test = still(|_| {}).await;
    proven(&test, "known", Some("known@example.com"), Some("+447911123456")).await;
    let disabled = proven(&test, "disabled", Some("disabled@example.com"), Some("+447911123457")).await;
    test.disable(Disable { user: disabled }).await.unwrap();
    test.register(registration(Some("claimant"), Some("claimed@example.com"), Some("+447911123458"))).await.unwrap();
    test.register(registration(Some("nameonly"), None, None)).await.unwrap();
    hush(&test).await;
    test
}

/// Asserts that everything that was seen is the same, but for the name of the question.
fn assert_alike(seen: &[Seen], jobs: u64) {
    let visible = |seen: &Seen| (seen.reply.clone(), seen.jobs, seen.commits);
    for one in seen {
        assert_eq!(visible(one), visible(&seen[0]), "{} and {}", one.question, seen[0].question);
        assert_eq!((one.jobs, one.commits), (jobs, 1), "{}", one.question);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_looks_and_costs_the_same_whatever_the_reason() {
    let test = populated().await;
    let endless = "x".repeat(10_000);
    let mut seen = Vec::new();
    for (question, identifier, password) in [
        ("unknown name", "nobody", PASSWORD),
        ("unknown e-mail address", "nobody@example.com", PASSWORD),
        ("unknown phone number", "+447911123499", PASSWORD),
        ("wrong password by name", "known", OTHER_PASSWORD),
        ("wrong password by e-mail address", "known@example.com", OTHER_PASSWORD),
        ("wrong password by phone number", "+447911123456", OTHER_PASSWORD),
        ("wrong password of somebody unverified", "claimant", OTHER_PASSWORD),
        ("disabled, with the right password", "disabled", PASSWORD),
        ("disabled, with a wrong password", "disabled", OTHER_PASSWORD),
        ("disabled, by address", "disabled@example.com", PASSWORD),
        ("an unproven e-mail address", "claimed@example.com", PASSWORD),
        ("an unproven phone number", "+447911123458", PASSWORD),
        ("empty", "", PASSWORD),
        ("no name at all", "two words", PASSWORD),
        ("no e-mail address at all", "@", PASSWORD),
        ("no phone number at all", "+", PASSWORD),
        ("endless", &endless, PASSWORD),
        ("an empty password", "known", ""),
        ("an empty password of nobody", "nobody", ""),
    ] {
        seen.push(see(&test, question, log_in(&test, identifier, password)).await.0);
    }
    assert_alike(&seen, 1);
    let reasons = test.recorded().into_iter().filter_map(|envelope| match envelope.signal {
        Signal::UserAuthenticationFailed { reason, .. } => Some(reason),
        _ => None,
    });
    let [unknown, wrong, disabled] = [Failure::UserNotFound, Failure::IncorrectPassword, Failure::UserInactive];
    let truth =
        [vec![unknown; 3], vec![wrong; 4], vec![disabled, wrong, disabled], vec![unknown; 7], vec![wrong, unknown]];
    assert_eq!(reasons.collect::<Vec<_>>(), truth.concat(), "the truth is in the signals");
    assert_eq!(log_in(&test, "claimant", PASSWORD).await.unwrap_err().as_str(), "email_not_verified");
    log_in(&test, "known@example.com", PASSWORD).await.unwrap();
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_reset_looks_and_costs_the_same_whoever_is_meant() {
    let test = populated().await;
    for channel in [Channel::Email, Channel::Phone] {
        let mut seen = Vec::new();
        for identifier in [
            "nobody",
            "nobody@example.com",
            "+447911123499",
            "known",
            "known@example.com",
            "+447911123456",
            "known",
            "nobody",
            "disabled",
            "disabled@example.com",
            "claimant",
            "claimed@example.com",
            "+447911123458",
            "nameonly",
        ] {
            seen.push(see(&test, identifier, reset(&test, identifier, channel)).await.0);
        }
        assert_alike(&seen, 0);
    }
    let recorded = test.recorded();
    let accepted = |signal: &Signal| signal.kind() == SignalKind::PasswordResetRequestAccepted;
    let cooled =
        |signal: &Signal| matches!(signal, Signal::PasswordResetRequestFailed { reason: Failure::CoolDown, .. });
    let count = |of: &dyn Fn(&Signal) -> bool| recorded.iter().filter(|envelope| of(&envelope.signal)).count();
    assert_eq!((count(&accepted), count(&cooled)), (6, 4), "the truth is in the signals");
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_verification_message_looks_and_costs_the_same_whoever_is_meant() {
    let test = populated().await;
    let id = |name: &str| test.find_user(name).unwrap().unwrap().id;
    let user = |user| Claimant::User { user, contact: None };
    for (channel, addresses) in [
        (Channel::Email, ["nobody@example.com", "claimed@example.com", "known@example.com", "disabled@example.com"]),
        (Channel::Phone, ["+447911123499", "+447911123458", "+447911123456", "+447911123457"]),
    ] {
        let mut seen = Vec::new();
        for address in addresses {
            let target = Target { channel, address };
            let asked = target.request(&test, Claimant::Address(address.to_owned()));
            seen.push(see(&test, address, asked).await.0);
        }
        let target = Target { channel, address: "" };
        for (question, user) in [
            ("a user that is not", user(UserId::new())),
            ("a claimant", user(id("claimant"))),
            ("somebody verified", user(id("known"))),
            ("somebody disabled", user(id("disabled"))),
            ("somebody without an address", user(id("nameonly"))),
            ("a contact that is not", Claimant::User { user: id("known"), contact: Some(majordomo::ContactId::new()) }),
        ] {
            seen.push(see(&test, question, target.request(&test, user)).await.0);
        }
        assert_alike(&seen, 0);
    }
    assert_laws(&test);
}
