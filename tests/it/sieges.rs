//! Sieges: what a flood of guesses, of numbers and of crossing changes leaves of what it was aimed at.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    Authenticate, ChangeContact, Channel, Claimant, Command, Config, ConfirmEmail, ContactClaim, ContactId, Context,
    Register, RequestPhoneVerification, SignalKind, UserId,
};

use crate::person::*;

const MINUTE: Duration = Duration::from_secs(60);
/// Bounds what could otherwise wait for ever; the handling of ten thousand signals takes a while.
const PATIENCE: Duration = Duration::from_secs(300);

/// A system under siege: whatever limits it has by default are on, but for those that a test is not about.
async fn besieged(change: impl FnOnce(&mut Config)) -> TestAccounts {
    TestAccounts::configured(change).await
}

/// A source by its number: each is a network of its own, whichever of the usual lengths networks are told apart by.
fn source(number: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 1))
}

fn from<F>(number: u16, message: F) -> Command<F> {
    Command::new(message).context(Context::new().client_ip(source(number)))
}

async fn drained(test: &TestAccounts) {
    tokio::time::timeout(PATIENCE, test.drain()).await.unwrap();
}

/// How many wrong passwords there are, and from how many sources.
const GUESSES: u16 = 10_000;
const SOURCES: u16 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_wrong_passwords_from_fifty_sources_end_no_session_and_leave_a_reset_possible() {
    let test = besieged(|_| {}).await;
    let ada = ada(&test).await;
    let sessions = [sign_in(&test, "ada", PASSWORD).await.unwrap(), sign_in(&test, EMAIL, PASSWORD).await.unwrap()];
    let names = ["ada", EMAIL, PHONE];
    let of_source = (0..SOURCES).map(|number| {
        let accounts = test.accounts().clone();
        tokio::spawn(async move {
            for guess in 0..GUESSES / SOURCES {
                let name = names[usize::from(guess) % names.len()].to_owned();
                let guessed = password(&format!("guess {guess} from source {number}"));
                let login = Authenticate { identifier: name, password: guessed };
                accounts.authenticate(from(number, login)).await.unwrap_err();
            }
        })
    });
    let all: Vec<_> = of_source.collect();
    for source in all {
        tokio::time::timeout(PATIENCE, source).await.unwrap().unwrap();
    }
    assert!(sessions.iter().all(|session| is_open(&test, session)));
    assert!(test.user(ada).unwrap().unwrap().status == majordomo::UserStatus::Active);
    drained(&test).await;
    drop(test.messages().take());
    let ended = |kind: &&SignalKind| matches!(kind, SignalKind::SessionRevoked | SignalKind::UserDisabled);
    assert_eq!(test.kinds_of(ada).iter().find(ended), None);

    // From one of those sources, too.
    let request = majordomo::RequestPasswordReset { identifier: EMAIL.to_owned(), channel: Channel::Email };
    test.request_password_reset(from(0, request)).await.unwrap();
    drained(&test).await;
    let proof = link_proof(&link_to(&test, EMAIL));
    let reset = majordomo::ResetPassword { proof, new: password(NEW_PASSWORD) };
    let replaced = test.reset_password(from(0, reset)).await.unwrap();
    assert_eq!((replaced.user, replaced.sessions_revoked), (ada, 2), "they were open until the reset");
    let login = Authenticate { identifier: EMAIL.to_owned(), password: password(NEW_PASSWORD) };
    assert_eq!(test.authenticate(from(1_000, login)).await.unwrap().user, ada, "from where nobody guessed");
}

/// How many adjacent numbers are sent to.
const NUMBERS: u32 = 1_000;
/// How often each is asked for, a minute apart.
const ROUNDS: u16 = 6;
/// The most that all of them are sent, for they have one prefix: twenty at once, and one more every three minutes.
const MOST: usize = 20 + ROUNDS as usize / 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_adjacent_numbers_are_sent_no_more_than_they_are_allowed() {
    let test = Arc::new(besieged(|_| {}).await);
    let number = |of: u32| format!("+447911{:06}", 120_000 + of);
    let all: Vec<_> = (0..NUMBERS).collect();
    for round in 0..ROUNDS {
        for numbers in all.chunks(100) {
            let asking = numbers.iter().map(|of| {
                let (test, phone) = (Arc::clone(&test), number(*of));
                let source = u16::try_from(*of).unwrap();
                tokio::spawn(async move {
                    if round == 0 {
                        let register = Register { phone: Some(phone), ..Register::new(PASSWORD) };
                        let _ = test.register(from(source, register)).await;
                    } else {
                        let request = RequestPhoneVerification { claimant: Claimant::Address(phone) };
                        let _ = test.request_phone_verification(from(source, request)).await;
                    }
                })
            });
            for asked in asking.collect::<Vec<_>>() {
                soon(asked).await.unwrap();
            }
        }
        drained(&test).await;
        test.advance(MINUTE);
    }
    let mut sent = BTreeMap::<String, usize>::new();
    for message in test.messages().take() {
        *sent.entry(message.to.clone()).or_default() += 1;
    }
    assert!(!sent.is_empty());
    assert!(sent.keys().all(|to| all.iter().any(|of| number(*of) == *to)), "only where it was asked for");
    let allowed = majordomo::Policy::default().messages.per_hour.unwrap() as usize;
    assert!(sent.values().all(|count| *count <= allowed), "{sent:?}");
    let all = sent.values().sum::<usize>();
    assert!((20..=MOST).contains(&all), "{all} messages");
}

/// Where a user is reached by e-mail.
fn reached_at(test: &TestAccounts, user: UserId) -> (ContactId, String) {
    let user = test.user(user).unwrap().unwrap();
    let proven =
        |contact: &&majordomo::UserContact| contact.proven_at.is_some() && contact.address.channel() == Channel::Email;
    let all: Vec<_> = user.contacts.iter().filter(proven).collect();
    let [one] = all.as_slice() else { panic!("{all:?}") };
    (one.id, one.address.canonical().to_owned())
}

async fn change(test: &TestAccounts, user: UserId, contact: ContactId, address: &str) -> bool {
    let address = ContactClaim::Email(address.to_owned());
    let change = ChangeContact { user, contact, address, authority: by_password(PASSWORD) };
    soon(test.change_contact(change)).await.is_ok()
}

async fn prove(test: &TestAccounts, proof: Option<majordomo::Proof>) -> bool {
    match proof {
        Some(proof) => soon(test.confirm_email(ConfirmEmail { proof })).await.is_ok_and(|confirmed| !confirmed.already),
        None => false,
    }
}

fn proof_to(test: &TestAccounts, address: &str) -> Option<majordomo::Proof> {
    test.messages().last_to(address).map(|message| link_proof(message.link().unwrap()))
}

/// How many users there are, and how often two changes of the address of each cross: a thousand times in all.
const USERS: usize = 8;
const CROSSINGS: usize = 125;

/// What came of two changes that crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crossed {
    /// The first was proven while the second was asked for.
    is_first: bool,
    /// The second was accepted meanwhile.
    is_asked: bool,
    /// The first was proven when both were confirmed.
    is_first_late: bool,
    is_second: bool,
}

async fn cross(test: &TestAccounts, user: UserId, first: &str, second: &str) -> Crossed {
    let (contact, before) = reached_at(test, user);
    assert!(change(test, user, contact, first).await);
    soon(test.drain()).await;
    let of_first = proof_to(test, first);
    assert!(of_first.is_some());
    let (is_first, is_asked) = tokio::join!(prove(test, of_first.clone()), change(test, user, contact, second));
    let (contact, now) = reached_at(test, user);
    assert_eq!(now, if is_first { first } else { before.as_str() });
    if !is_asked {
        assert!(change(test, user, contact, second).await);
    }
    soon(test.drain()).await;
    let of_second = proof_to(test, second);
    assert!(of_second.is_some());
    let (is_first_late, is_second) = tokio::join!(prove(test, of_first), prove(test, of_second));
    let expected = match (is_first_late, is_second) {
        (true, true) => panic!("both were proven, of which one superseded the other"),
        (true, false) => first,
        (false, true) => second,
        (false, false) => now.as_str(),
    };
    assert_eq!(reached_at(test, user).1, expected);
    Crossed { is_first, is_asked, is_first_late, is_second }
}

/// Devise CVE-2026-32700: the confirmation of one change proved the address of the other.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_of_address_that_cross_a_thousand_times_each_link_proves_its_own_address_or_nothing() {
    let unlimited = |config: &mut Config| {
        let limits = &mut config.policy.messages;
        (limits.cool_down, limits.per_hour, limits.per_day) = (Duration::ZERO, None, None);
    };
    let test = Arc::new(besieged(unlimited).await);
    let mut crossing = tokio::task::JoinSet::new();
    for number in 0..USERS {
        let test = Arc::clone(&test);
        crossing.spawn(async move {
            let (name, email) = (format!("ada-{number}"), format!("ada-{number}@example.com"));
            let user = proven(&test, Some(&name), Some(&email), None).await;
            let mut all = Vec::new();
            for turn in 0..CROSSINGS {
                let [first, second] = ["one", "two"].map(|which| format!("{which}-{turn}-{number}@example.com"));
                all.push(cross(&test, user, &first, &second).await);
            }
            all
        });
    }
    let mut outcomes = BTreeMap::<Crossed, usize>::new();
    // Whichever of them fails first fails the test, whatever the others wait for then.
    while let Some(of_user) = tokio::time::timeout(PATIENCE, crossing.join_next()).await.unwrap() {
        for crossed in of_user.unwrap() {
            *outcomes.entry(crossed).or_default() += 1;
        }
    }
    assert_eq!(outcomes.values().sum::<usize>(), USERS * CROSSINGS);
    let is_twice = |crossed: &Crossed| crossed.is_first && crossed.is_first_late;
    assert!(!outcomes.keys().any(is_twice), "twice by one link: {outcomes:?}");
    assert!(outcomes.keys().any(|crossed| crossed.is_first), "{outcomes:?}");
    assert!(outcomes.keys().any(|crossed| !crossed.is_first && crossed.is_second), "{outcomes:?}");
}
