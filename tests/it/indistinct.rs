//! Nobody is told apart: every question that a stranger can ask, about people in every state, has one answer and one cost.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use majordomo::notifier::SendError;
use majordomo::testing::TestAccounts;
use majordomo::{
    Authenticate, Authority, ChangeContact, Channel, Claimant, Command, ConfirmEmail, ConfirmPhone, ContactClaim,
    Context, Delete, Disable, Failure, HashParameters, OneTimeCode, OneTimeToken, Password, Proof, RemoveContact,
    RequestEmailVerification, RequestPasswordReset, RequestPhoneVerification, ResetPassword, Signal, TokenId,
    UndoChange, UserId,
};

use crate::laws::assert_laws;
use crate::steps::{OTHER_PASSWORD, PASSWORD, confirm, due, proven, registration};

/// A token that is spelled as one, and none.
const MADE_UP: &str = "mdt_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

/// How often a transaction has the disk keep what it has: it is committed in two phases.
const SYNCS: u64 = 2;

/// A system whose limits are out of the way of what is compared here.
async fn system(parameters: HashParameters) -> TestAccounts {
    TestAccounts::configured(|config| {
        config.hashing.parameters = parameters;
        config.storage.idle_flush = Duration::from_secs(24 * 3600);
    })
    .await
}

/// A request from somewhere else than every other one.
fn from_elsewhere<F>(message: F) -> Command<F> {
    static SOURCES: AtomicU32 = AtomicU32::new(0);
    let number = SOURCES.fetch_add(1, Ordering::Relaxed);
    let source = IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number % (1 << 24)));
    Command::new(message).context(Context::new().client_ip(source))
}

/// Somebody, or nobody, who is asked about.
#[derive(Clone, Debug)]
struct Person {
    /// Also the username.
    state: &'static str,
    email: String,
    phone: String,
    user: UserId,
    /// How links name the user.
    segment: String,
}

impl Person {
    fn new(number: u32, state: &'static str) -> Self {
        let (email, phone) = (format!("{state}@example.com"), format!("+4479111234{number:02}"));
        Self { state, email, phone, user: UserId::new(), segment: "BAQEBAQEBAQEBAQEBAQEBA".to_owned() }
    }

    /// Registers, proves both addresses, and is who they are then.
    async fn come(mut self, test: &TestAccounts) -> Self {
        self.user = proven(test, self.state, Some(&self.email), Some(&self.phone)).await;
        let link = test.messages().last_to(&self.email).unwrap().link().unwrap().to_owned();
        let Some(Proof::Link { user, .. }) = Proof::from_link(&link) else { panic!("{link}") };
        self.segment = user;
        self
    }
}

async fn give_up(test: &TestAccounts, user: UserId, address: &str) {
    let contacts = test.user(user).unwrap().unwrap().contacts;
    let contact = contacts.iter().find(|contact| contact.address.canonical() == address).unwrap().id;
    let authority = Authority::Password(Password::new(PASSWORD));
    test.remove_contact(RemoveContact { user, contact, authority }).await.unwrap();
}

/// Takes a change of address back, which leaves its user without any password.
async fn lose_password(test: &TestAccounts, person: &Person) {
    let contacts = test.user(person.user).unwrap().unwrap().contacts;
    let contact = contacts.iter().find(|contact| contact.address.canonical() == person.email).unwrap().id;
    let change = ChangeContact {
        user: person.user,
        contact,
        address: ContactClaim::Email("passing@example.org".to_owned()),
        authority: Authority::Password(Password::new(PASSWORD)),
    };
    test.change_contact(change).await.unwrap();
    test.drain().await;
    let passing = due(test).into_iter().rfind(|message| message.to == "passing@example.org").unwrap();
    confirm(test, &passing).await.unwrap();
    test.drain().await;
    let notice = test.messages().last_to(&person.email).unwrap();
    let proof = Proof::from_link(notice.link().unwrap()).unwrap();
    assert!(test.undo_change(UndoChange { proof }).await.unwrap().reset.is_some());
}

/// A system with people in every state, and how each is asked about. Nobody is the first.
async fn populated() -> (TestAccounts, Vec<Person>) {
    let dear = HashParameters { memory_kib: 7_168, passes: 5, lanes: 1 };
    let test = system(dear).await;
    let mut people = vec![Person::new(0, "unknown")];
    people.push(Person::new(1, "hashed-dearly").come(&test).await);
    let cheap = |config: &mut majordomo::Config| config.hashing.parameters = HashParameters::cheap_for_tests();
    let test = test.restart_with(|builder| builder.configure(cheap)).await.unwrap();
    for (number, state) in (2..).zip(["known", "disabled", "deleted", "passwordless", "gave-it-up"]) {
        people.push(Person::new(number, state).come(&test).await);
    }
    let mut unproven = Person::new(7, "unverified");
    let claim = registration(Some(unproven.state), Some(&unproven.email), Some(&unproven.phone));
    unproven.user = test.register(claim).await.unwrap().user;
    people.push(unproven);
    for person in &people {
        match person.state {
            "disabled" => drop(test.disable(Disable { user: person.user }).await.unwrap()),
            "deleted" => drop(test.delete(Delete::new(person.user)).await.unwrap()),
            "passwordless" => lose_password(&test, person).await,
            "gave-it-up" => {
                give_up(&test, person.user, &person.email).await;
                give_up(&test, person.user, &person.phone).await;
            }
            _ => {}
        }
    }
    test.drain().await;
    test.advance(majordomo::Policy::default().messages.cool_down);
    (test, people)
}

/// What a question came to: all that whoever asks can see, and all that could be measured from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    question: &'static str,
    /// The reply, its identifiers masked, or the error.
    reply: String,
    /// How long the reply was before.
    length: usize,
    /// Passwords hashed.
    jobs: u64,
    /// Outcomes committed, and batches refused because something changed meanwhile.
    commands: u64,
    conflicts: u64,
    /// Durable transactions, and how often the disk was told to keep what it has; nothing where messages go out meanwhile.
    transactions: u64,
    syncs: u64,
    is_resized: Untold,
}

/// Whether the file became longer or shorter, which is equal to everything: it is about all that is stored.
#[derive(Clone, Copy, Debug)]
struct Untold(bool);

impl PartialEq for Untold {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Untold {}

/// A text with every identifier in it replaced by a word: no two are equal.
fn masked(shown: &str) -> String {
    let hexadecimal = |character: char| character.is_ascii_hexdigit() || character == '-';
    let parts = shown.split_inclusive(|character| !hexadecimal(character));
    let mask = |part: &str| {
        let text = part.trim_end_matches(|character| !hexadecimal(character));
        if text.parse::<UserId>().is_ok() { part.replace(text, "IDENTIFIER") } else { part.to_owned() }
    };
    parts.map(mask).collect()
}

/// Asks, and notes what is seen.
struct Asking<'a> {
    test: &'a TestAccounts,
    /// Whether nothing is committed but what is asked for.
    is_still: bool,
    seen: Vec<Seen>,
}

impl Asking<'_> {
    async fn ask<T: Debug, E: Debug>(
        &mut self,
        question: &'static str,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let look = || (self.test.storage_state(), self.test.hasher_state().jobs_done, self.test.disk().counts());
        let (storage, jobs, disk) = look();
        let answer = answer.await;
        let (storage_now, jobs_now, disk_now) = look();
        let shown = format!("{answer:?}");
        let still = |count: u64| if self.is_still { count } else { 0 };
        // A file grows when it is full, whoever's row finds no room, and shrinks; that is synced by itself.
        let counts = disk_now.since(disk);
        let (is_resized, syncs) = (counts.set_lens > 0, counts.syncs);
        self.seen.push(Seen {
            question,
            reply: masked(&shown),
            length: shown.len(),
            jobs: jobs_now - jobs,
            commands: storage_now.commands - storage.commands,
            conflicts: storage_now.conflicts - storage.conflicts,
            transactions: still(storage_now.transactions - storage.transactions),
            syncs: still(if is_resized { SYNCS } else { syncs }),
            is_resized: Untold(is_resized),
        });
        answer
    }

    async fn logins(&mut self, person: &Person) {
        for (question, identifier) in [
            ("log in by name", person.state),
            ("log in by e-mail address", &person.email),
            ("log in by phone number", &person.phone),
        ] {
            let (identifier, password) = (identifier.to_owned(), Password::new(OTHER_PASSWORD));
            let login = from_elsewhere(Authenticate { identifier, password });
            self.ask(question, self.test.authenticate(login)).await.unwrap_err();
        }
    }

    async fn registrations(&mut self, person: &Person) {
        let (test, name) = (self.test, |number: u32| format!("eve-{number}-{}", person.phone.trim_start_matches('+')));
        for (question, name, email, phone) in [
            ("register with the e-mail address", name(1), Some(person.email.as_str()), None),
            ("register with the phone number", name(2), None, Some(person.phone.as_str())),
            ("register with both", name(3), Some(person.email.as_str()), Some(person.phone.as_str())),
        ] {
            let register = from_elsewhere(registration(Some(&name), email, phone));
            self.ask(question, test.register(register)).await.unwrap();
        }
    }

    /// What was asked for a second time is within the cool-down.
    async fn resets(&mut self, person: &Person) {
        let test = self.test;
        for (question, identifier, channel) in [
            ("reset by e-mail, by name", person.state, Channel::Email),
            ("reset by text, by name", person.state, Channel::Phone),
            ("reset by e-mail, by its address", &person.email, Channel::Email),
            ("reset by text, by its number", &person.phone, Channel::Phone),
            ("reset by text, by e-mail address", &person.email, Channel::Phone),
            ("reset by e-mail, by phone number", &person.phone, Channel::Email),
            ("reset by e-mail, by name, again", person.state, Channel::Email),
        ] {
            let request = from_elsewhere(RequestPasswordReset { identifier: identifier.to_owned(), channel });
            let challenge = self.ask(question, test.request_password_reset(request)).await.unwrap().challenge;
            for question in ["guess its code", "guess its code again"] {
                let proof = Proof::Code { challenge, code: OneTimeCode::new("00000000") };
                let guess = from_elsewhere(ResetPassword { proof, new: Password::new(OTHER_PASSWORD) });
                self.ask(question, test.reset_password(guess)).await.unwrap_err();
            }
        }
        let proof = Proof::Link { user: person.segment.clone(), token: OneTimeToken::new(MADE_UP) };
        let guess = from_elsewhere(ResetPassword { proof, new: Password::new(OTHER_PASSWORD) });
        self.ask("present a made-up link for a reset", test.reset_password(guess)).await.unwrap_err();
    }

    async fn confirmations(&mut self, person: &Person, channel: Channel, challenge: TokenId) {
        let test = self.test;
        let guess = Proof::Code { challenge, code: OneTimeCode::new("000000") };
        let link = Proof::Link { user: person.segment.clone(), token: OneTimeToken::new(MADE_UP) };
        for (question, proof) in
            [("guess its code", guess.clone()), ("guess its code again", guess), ("present a made-up link", link)]
        {
            match channel {
                Channel::Email => {
                    let confirm = from_elsewhere(ConfirmEmail { proof });
                    self.ask(question, test.confirm_email(confirm)).await.unwrap_err();
                }
                Channel::Phone => {
                    let confirm = from_elsewhere(ConfirmPhone { proof });
                    self.ask(question, test.confirm_phone(confirm)).await.unwrap_err();
                }
            }
        }
    }

    async fn verifications(&mut self, person: &Person) {
        let test = self.test;
        let by_user = Claimant::User { user: person.user, contact: None };
        for (question, claimant) in [
            ("verify by e-mail address", Claimant::Address(person.email.clone())),
            ("verify by e-mail, by user", by_user.clone()),
            ("verify by e-mail address, again", Claimant::Address(person.email.clone())),
        ] {
            let request = from_elsewhere(RequestEmailVerification { claimant });
            let challenge = self.ask(question, test.request_email_verification(request)).await.unwrap().challenge;
            self.confirmations(person, Channel::Email, challenge).await;
        }
        for (question, claimant) in [
            ("verify by phone number", Claimant::Address(person.phone.clone())),
            ("verify by text, by user", by_user),
            ("verify by phone number, again", Claimant::Address(person.phone.clone())),
        ] {
            let request = from_elsewhere(RequestPhoneVerification { claimant });
            let challenge = self.ask(question, test.request_phone_verification(request)).await.unwrap().challenge;
            self.confirmations(person, Channel::Phone, challenge).await;
        }
    }
}

/// Asks everything about everybody, in the same order.
async fn interrogate(test: &TestAccounts, people: &[Person], is_still: bool) -> BTreeMap<&'static str, Vec<Seen>> {
    let mut all = BTreeMap::new();
    for person in people {
        let mut asking = Asking { test, is_still, seen: Vec::new() };
        asking.logins(person).await;
        asking.registrations(person).await;
        asking.resets(person).await;
        asking.verifications(person).await;
        all.insert(person.state, asking.seen);
    }
    all
}

/// Why logins failed, as the signals tell.
fn reasons(test: &TestAccounts) -> Vec<Failure> {
    let reason = |signal: Signal| match signal {
        Signal::UserAuthenticationFailed { reason, .. } => Some(reason),
        _ => None,
    };
    test.recorded().into_iter().filter_map(|envelope| reason(envelope.signal)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_and_whoever_is_meant_the_reply_the_hashes_the_commits_and_the_syncs_are_the_same() {
    let (test, people) = populated().await;
    // From here on nothing is committed but what is asked for.
    for subscriber in ["notifier", "auditor"] {
        test.detach(subscriber).await.unwrap();
    }
    let all = interrogate(&test, &people, true).await;
    let unknown = &all["unknown"];
    for (state, seen) in &all {
        assert_eq!(seen.len(), unknown.len());
        for (seen, unknown) in seen.iter().zip(unknown) {
            assert_eq!(seen, unknown, "{state}");
        }
    }
    for seen in unknown {
        let hashes = u64::from(seen.question.starts_with("log in") || seen.question.starts_with("register"));
        assert_eq!((seen.jobs, seen.commands, seen.transactions, seen.conflicts), (hashes, 1, 1, 0), "{seen:?}");
        assert_eq!(seen.syncs, SYNCS, "{seen:?}");
    }
    let resized = all.values().flatten().filter(|seen| seen.is_resized.0).count();
    assert!(resized * 10 < people.len() * unknown.len(), "{resized} were not compared");
    // They are in the states that they are called by, as the truth tells.
    let by_name: Vec<_> = reasons(&test).chunks(3).map(|of_person| of_person[0]).collect();
    let [unknown, wrong] = [Failure::UserNotFound, Failure::IncorrectPassword];
    let truth = [unknown, wrong, wrong, wrong, unknown, Failure::NoPassword, wrong, wrong];
    assert_eq!(by_name, truth, "{people:?}");
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_messages_no_reply_tells() {
    let transient = || SendError::Transient("the mail server is down".to_owned());
    let permanent = || SendError::Permanent("the mail server knows nobody".to_owned());
    let mut first: Option<Vec<(&'static str, String, usize)>> = None;
    for fault in [None, Some(transient()), Some(permanent())] {
        let (test, people) = populated().await;
        drop(test.messages().take());
        if let Some(fault) = fault.clone() {
            test.messages().fail_next(100_000, fault);
        }
        for (state, seen) in interrogate(&test, &people, false).await {
            let replies: Vec<_> = seen.into_iter().map(|seen| (seen.question, seen.reply, seen.length)).collect();
            assert_eq!(&replies, first.get_or_insert_with(|| replies.clone()), "{state}, {fault:?}");
        }
        if fault.is_none() {
            test.drain().await;
        }
        assert_eq!(test.messages().messages().is_empty(), fault.is_some(), "{fault:?}");
    }
}
