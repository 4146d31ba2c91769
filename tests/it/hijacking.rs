//! Accounts hijacked before they are made: whoever was there first with the address of another has nothing of theirs.
//!
//! The five ways are those of Sudhodanan and Paverd, "Pre-hijacked accounts", 2022 (arXiv 2205.10174). Two of them need
//! an identity provider, and there is none here; what is left of them is played all the same.

use majordomo::notifier::CapturedMessage;
use majordomo::testing::TestAccounts;
use majordomo::{
    AddContact, AuthenticateReason, ChangeContact, Channel, Claimant, ConfirmEmail, ConfirmPhone, ContactClaim, Error,
    LoggedIn, Proof, Register, RequestEmailVerification, UndoChange, UserId,
};

use crate::laws::assert_laws;
use crate::person::*;

const ATTACKERS: &str = "the attacker knows this one";
const ATTACKERS_PHONE: &str = "+4915112345678";
const ATTACKERS_EMAIL: &str = "mallory@evil.example";
/// Under each of these the attacker tries to get in.
const NAMES: [&str; 4] = ["mallory", EMAIL, ATTACKERS_PHONE, ATTACKERS_EMAIL];

/// What the attacker prepares with the address of somebody who is not here yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// An account with a password, hoped to be merged with the victim's later. Nothing here is ever merged.
    ClassicFederatedMerge,
    /// A session that is hoped to stay.
    UnexpiredSession,
    /// A further identifier of the attacker's own, hoped to stay.
    TrojanIdentifier,
    /// A change of the victim's address that waits for its confirmation.
    UnexpiredChange,
    /// An account of the attacker's own that is said to have the victim's address, and nobody verifies it.
    NonVerifyingProvider,
}

impl Way {
    const ALL: [Self; 5] = [
        Self::ClassicFederatedMerge,
        Self::UnexpiredSession,
        Self::TrojanIdentifier,
        Self::UnexpiredChange,
        Self::NonVerifyingProvider,
    ];
}

/// How the victim comes into possession of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// Registers, and proves it by the link of that.
    Registers,
    /// Opens a link of the attacker's account, sent by the attacker or asked for anew, and then resets the password.
    VerifiesAndResets,
}

/// What the attacker holds.
struct Attack {
    user: UserId,
    session: Option<LoggedIn>,
    /// A link to the attacker's own address, not used yet, which would replace the victim's.
    change: Option<Proof>,
    /// A code for a reset, sent to the attacker's own number, not used yet.
    reset: Option<Proof>,
    /// Everything that reached the attacker's own addresses.
    received: Vec<CapturedMessage>,
}

impl Attack {
    /// Empties everybody's mailboxes, and keeps what was in the attacker's.
    fn collect(&mut self, test: &TestAccounts) {
        let own = [ATTACKERS_EMAIL, ATTACKERS_PHONE];
        let sent = test.messages().take().into_iter();
        self.received.extend(sent.filter(|message| own.contains(&message.to.as_str())));
    }
}

async fn prove(test: &TestAccounts, address: &str) {
    test.confirm_email(ConfirmEmail { proof: link_proof(&link_to(test, address)) }).await.unwrap();
}

fn claim(address: &str) -> ContactClaim {
    ContactClaim::Email(address.to_owned())
}

async fn add(test: &TestAccounts, user: UserId, address: &str) {
    let (address, authority) = (claim(address), by_password(ATTACKERS));
    test.add_contact(AddContact { user, address, authority }).await.unwrap();
    soon(test.drain()).await;
}

async fn attack(test: &TestAccounts, way: Way) -> Attack {
    let own = |text: &str| Some(text.to_owned());
    let (email, phone) = match way {
        Way::ClassicFederatedMerge => (EMAIL, None),
        Way::NonVerifyingProvider => (ATTACKERS_EMAIL, None),
        _ => (EMAIL, own(ATTACKERS_PHONE)),
    };
    let request = Register { username: own("mallory"), email: own(email), phone, ..Register::new(ATTACKERS) };
    let accepted = test.register(request).await.unwrap();
    soon(test.drain()).await;
    let (user, received) = (accepted.user, Vec::new());
    let mut attack = Attack { user, session: None, change: None, reset: None, received };
    if let Some(challenge) = accepted.phone_challenge {
        let proof = code_proof(challenge, &code_to(test, ATTACKERS_PHONE));
        test.confirm_phone(ConfirmPhone { proof }).await.unwrap();
    }
    match way {
        Way::ClassicFederatedMerge => {
            let refused = sign_in(test, "mallory", ATTACKERS).await.unwrap_err();
            assert_eq!(refused, Error::Refused(AuthenticateReason::EmailNotVerified), "no session before a proof");
            return attack;
        }
        Way::UnexpiredSession => {}
        Way::TrojanIdentifier => {
            add(test, attack.user, ATTACKERS_EMAIL).await;
            prove(test, ATTACKERS_EMAIL).await;
        }
        Way::UnexpiredChange => {
            let (contact, address) = (contact(test, attack.user, EMAIL), claim(ATTACKERS_EMAIL));
            let change = ChangeContact { user: attack.user, contact, address, authority: by_password(ATTACKERS) };
            test.change_contact(change).await.unwrap();
            soon(test.drain()).await;
            attack.change = Some(link_proof(&link_to(test, ATTACKERS_EMAIL)));
        }
        Way::NonVerifyingProvider => {
            prove(test, ATTACKERS_EMAIL).await;
            add(test, attack.user, EMAIL).await;
        }
    }
    attack.session = Some(sign_in(test, "mallory", ATTACKERS).await.unwrap());
    if way != Way::NonVerifyingProvider {
        let challenge = request_reset(test, "mallory", Channel::Phone).await.challenge;
        attack.reset = Some(code_proof(challenge, &code_to(test, ATTACKERS_PHONE)));
    }
    attack
}

/// The victim's account, which opens under their address and [`NEW_PASSWORD`] then.
async fn arrive(test: &TestAccounts, attack: &mut Attack, arrival: Arrival) -> UserId {
    // Whoever forgot that they never were here is sent nothing, and changes nothing.
    attack.collect(test);
    request_reset(test, EMAIL, Channel::Email).await;
    assert!(test.messages().messages().iter().all(|message| message.to != EMAIL));
    test.advance(majordomo::Policy::default().messages.cool_down);
    match arrival {
        Arrival::Registers => {
            let request = Register { email: Some(EMAIL.to_owned()), ..Register::new(NEW_PASSWORD) };
            let user = test.register(request).await.unwrap().user;
            soon(test.drain()).await;
            prove(test, EMAIL).await;
            user
        }
        Arrival::VerifiesAndResets => {
            let claimant = Claimant::Address(EMAIL.to_owned());
            test.request_email_verification(RequestEmailVerification { claimant }).await.unwrap();
            soon(test.drain()).await;
            prove(test, EMAIL).await;
            request_reset(test, EMAIL, Channel::Email).await;
            reset(test, link_proof(&link_to(test, EMAIL)), NEW_PASSWORD).await.unwrap().user
        }
    }
}

/// Presents everything that ever reached the attacker's own addresses to every flow that might take it. Returns how many
/// links that were.
async fn present_all(test: &TestAccounts, attack: &mut Attack) -> usize {
    soon(test.drain()).await;
    attack.collect(test);
    let links = attack.received.iter().filter_map(|message| message.link().and_then(Proof::from_link));
    let links: Vec<_> = links.collect();
    for proof in &links {
        let _ = test.confirm_email(ConfirmEmail { proof: proof.clone() }).await;
        let _ = test.confirm_phone(ConfirmPhone { proof: proof.clone() }).await;
        let _ = test.undo_change(UndoChange { proof: proof.clone() }).await;
        let _ = reset(test, proof.clone(), ATTACKERS).await;
    }
    links.len()
}

/// What holds of the victim's account, whatever the attacker prepared. Returns the victim's session.
async fn assert_the_victims(test: &TestAccounts, attack: &Attack, victim: UserId, what: &str) -> LoggedIn {
    let opened = sign_in(test, EMAIL, NEW_PASSWORD).await.unwrap();
    assert_eq!(opened.user, victim, "{what}");
    assert_eq!(test.find_user(EMAIL).unwrap().map(|user| user.id), Some(victim), "{what}");
    for name in NAMES {
        let session = sign_in(test, name, ATTACKERS).await;
        assert!(session.is_err() || victim != attack.user, "{what}: {name} still opens by the old password");
    }
    assert!(sign_in(test, EMAIL, ATTACKERS).await.is_err(), "{what}");
    let of_session = attack.session.as_ref().and_then(|session| test.check_session(&session.token).unwrap());
    assert!(of_session.is_none_or(|(_, user)| user.id != victim), "{what}: the attacker's session is open");
    for proof in [&attack.change, &attack.reset].into_iter().flatten() {
        let confirmed = test.confirm_email(ConfirmEmail { proof: proof.clone() }).await;
        assert!(confirmed.is_err() || victim != attack.user, "{what}: the pending change is confirmed");
        let replaced = reset(test, proof.clone(), ATTACKERS).await;
        assert!(replaced.is_err() || victim != attack.user, "{what}: the attacker's reset is good");
    }
    assert!(is_open(test, &opened), "{what}");
    opened
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_prepared_a_victim_who_registers_shares_nothing_with_the_attacker() {
    for way in Way::ALL {
        let test = TestAccounts::start().await;
        let mut attack = attack(&test, way).await;
        let victim = arrive(&test, &mut attack, Arrival::Registers).await;
        assert_ne!(victim, attack.user, "{way:?}");
        // The attacker's account cannot come by the address, nor be told of what the victim does. Asked before
        // the attacker resets a password, with which an unproven claim ends.
        soon(test.drain()).await;
        attack.collect(&test);
        let claimant = Claimant::User { user: attack.user, contact: None };
        test.request_email_verification(RequestEmailVerification { claimant }).await.unwrap();
        request_reset(&test, EMAIL, Channel::Phone).await;
        let sent = test.messages().messages();
        assert!(sent.iter().all(|message| message.to != EMAIL || message.link().is_none()), "{way:?}");
        assert!(sent.iter().all(|message| message.to != ATTACKERS_PHONE), "{way:?}");
        let opened = assert_the_victims(&test, &attack, victim, &format!("{way:?}")).await;
        let addresses = test.user(victim).unwrap().unwrap().contacts;
        assert!(addresses.iter().all(|contact| contact.address.canonical() == EMAIL), "{way:?}: {addresses:?}");
        // It is not that nothing could have been sent there.
        soon(test.drain()).await;
        attack.collect(&test);
        request_reset(&test, "mallory", Channel::Phone).await;
        assert_eq!(test.messages().last_to(ATTACKERS_PHONE).is_some(), attack.reset.is_some(), "{way:?}");
        let presented = present_all(&test, &mut attack).await;
        assert_eq!(presented > 0, way != Way::ClassicFederatedMerge, "{way:?}: there is something to present");
        assert!(is_open(&test, &opened), "{way:?}");
        assert_eq!(sign_in(&test, EMAIL, NEW_PASSWORD).await.unwrap().user, victim, "{way:?}");
        assert_laws(&test);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_prepared_a_victim_who_verifies_and_resets_ends_password_session_change_and_token() {
    for way in Way::ALL {
        let test = TestAccounts::start().await;
        let mut attack = attack(&test, way).await;
        let victim = arrive(&test, &mut attack, Arrival::VerifiesAndResets).await;
        assert_eq!(victim, attack.user, "{way:?}: it is the attacker's account that is taken over");
        assert_the_victims(&test, &attack, victim, &format!("{way:?}")).await;
        assert!(attack.session.is_none_or(|session| !is_open(&test, &session)), "{way:?}");
        let proven: Vec<_> = test.user(victim).unwrap().unwrap().contacts;
        assert!(proven.iter().all(|contact| contact.proven_at.is_some()), "{way:?}: a claim is left, {proven:?}");
        assert_laws(&test);
    }
}
