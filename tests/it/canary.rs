//! Canaries: marked secrets go through every flow, and are then looked for wherever something could show them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{Debug, Display};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use majordomo::breach::{BreachCheck, BreachedPasswords, BreachedSuffix, HashPrefix};
use majordomo::notifier::{Maildir, SendError};
use majordomo::testing::{Operation, TestAccounts};
use majordomo::{
    Accounts, Actor, AddContact, Answer, AuditQuery, Authenticate, Authority, BreachCheckFailure, CONTEXT_TEXT_LIMIT,
    Change, ChangeContact, ChangeGroups, ChangePassword, Channel, Claimant, Command, Config, ConfirmEmail,
    ConfirmPhone, ContactClaim, Context, Delete, Disable, Enable, EndSessions, Envelope, Error, Filter, Import,
    Keyring, LogOut, LoggedIn, MakePrimary, Outcome, Personal, Profile, Proof, Question, Register, RegisterReason,
    RemoveContact, RequestEmailVerification, RequestPasswordReset, RequestPhoneVerification, ResetPassword,
    SessionsToEnd, Signal, SignalKind, Start, Subscriber, SubscriberContext, UndoChange, Unlock, Update, UserId,
    Verification,
};
use naughty_strings::BLNS;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::person::*;

/// What the process logs, a record an event, and what its panics say, from the first call of [`record`] on.
static LOGS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static RECORDING: Once = Once::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records everything at the lowest level. The actors run on threads of their own, so it is the whole process.
fn record() {
    RECORDING.call_once(|| {
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_max_level(LevelFilter::TRACE).with_writer(Log).finish();
        tracing::subscriber::set_global_default(subscriber).expect("nobody else listens");
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            lock(&PANICS).push(panic.to_string());
            before(panic);
        }));
    });
}

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&LOGS).push(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// Something that must not be found, with the texts that would give it away.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Canary {
    name: String,
    marks: Vec<Mark>,
}

/// A text of at least four bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    text: String,
    /// Whether it counts as a word by itself only, being too short to be told from chance otherwise.
    is_word: bool,
}

impl Canary {
    fn of(name: &str, texts: impl IntoIterator<Item = String>) -> Self {
        let marks = texts.into_iter().map(|text| Mark { text, is_word: false }).collect();
        Self { name: name.to_owned(), marks }
    }

    /// A text, whole or the first or last twelve bytes of it.
    fn text(name: &str, text: &str) -> Self {
        assert!(text.is_ascii() && text.len() >= 12, "{text}");
        Self::of(name, [text.split_at(12).0, text.split_at(text.len() - 12).1].map(str::to_owned))
    }

    /// A secret in base64url behind a prefix of four, and the bytes that it stands for but for `public` of them.
    fn token(name: &str, text: &str, public: usize) -> Self {
        let raw = base64url(text.split_at(4).1);
        let ends = [&raw[public..public + 12], &raw[raw.len() - 12..]].map(bytes_as_text);
        let Self { marks, .. } = Self::of(name, ends);
        let mut canary = Self::text(name, text);
        canary.marks.extend(marks);
        canary
    }

    fn code(name: &str, code: &str) -> Self {
        Self { name: name.to_owned(), marks: vec![Mark { text: code.to_owned(), is_word: true }] }
    }

    fn whole(name: &str, text: &str) -> Self {
        Self::of(name, [text.to_owned()])
    }

    fn is_in(&self, text: &str) -> bool {
        !hits(&[self.clone()].into(), &BTreeMap::from([("text", text.to_owned())])).is_empty()
    }
}

impl Mark {
    fn is_at(&self, place: usize, corpus: &[u8]) -> bool {
        let of_word = |place: Option<usize>| place.and_then(|it| corpus.get(it)).is_some_and(u8::is_ascii_alphanumeric);
        let (before, behind) = (place.checked_sub(1), place + self.text.len());
        corpus[place..].starts_with(self.text.as_bytes())
            && !(self.is_word && (of_word(before) || of_word(Some(behind))))
    }
}

/// Which canaries are found where, each corpus being gone through once.
fn hits(canaries: &BTreeSet<Canary>, corpora: &BTreeMap<&'static str, String>) -> BTreeSet<(String, &'static str)> {
    let mut by_start: HashMap<&[u8], Vec<(&Canary, &Mark)>> = HashMap::new();
    let mut may_start = vec![false; 1 << 16];
    for (canary, mark) in canaries.iter().flat_map(|canary| canary.marks.iter().map(move |mark| (canary, mark))) {
        let start = &mark.text.as_bytes()[..4];
        may_start[usize::from(u16::from_be_bytes([start[0], start[1]]))] = true;
        by_start.entry(start).or_default().push((canary, mark));
    }
    let mut found = BTreeSet::new();
    for (name, corpus) in corpora {
        let corpus = corpus.as_bytes();
        for (place, start) in corpus.windows(4).enumerate() {
            if may_start[usize::from(u16::from_be_bytes([start[0], start[1]]))] {
                let candidates = by_start.get(start).into_iter().flatten();
                let there = candidates.filter(|(_, mark)| mark.is_at(place, corpus));
                found.extend(there.map(|(canary, _)| (canary.name.clone(), *name)));
            }
        }
    }
    found
}

/// A character a byte, so that bytes are looked through as quickly as text.
fn bytes_as_text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn base64url(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for character in text.bytes() {
        let value = ALPHABET.iter().position(|other| *other == character).expect("base64url");
        bits = (bits << 6 | u32::try_from(value).unwrap()) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    bytes
}

/// Falls over when it is asked for the first time, and asks somebody else after that.
struct Falls<B>(B, AtomicBool);

impl<B: BreachedPasswords> BreachedPasswords for Falls<B> {
    async fn range(&self, prefix: HashPrefix) -> Result<Vec<BreachedSuffix>, BreachCheckFailure> {
        if !self.1.swap(true, Ordering::SeqCst) {
            panic!("the breach check fell over");
        }
        self.0.range(prefix).await
    }
}

fn falling(asked: impl BreachedPasswords) -> BreachCheck {
    BreachCheck::new(Falls(asked, AtomicBool::new(false)))
}

/// Falls over, then asks a service that fails once and knows nothing after that.
#[cfg(feature = "webhook")]
fn breach_check() -> BreachCheck {
    use majordomo::breach::{PwnedPasswords, PwnedSettings};

    use crate::gateways::{Server, answer, loopback};

    let server = Server::start([answer(503, "", ""), answer(200, "", &format!("{}:0\r\n", "0".repeat(35)))]);
    let settings = PwnedSettings { base_url: format!("http://127.0.0.1:{}/", server.port), http: loopback() };
    // It answers as long as the process lives.
    std::mem::forget(server);
    falling(PwnedPasswords::new(settings).unwrap())
}

#[cfg(not(feature = "webhook"))]
fn breach_check() -> BreachCheck {
    falling(Known(BREACHED))
}

/// A system under test, and all that was shown of what went through it.
struct Watched {
    test: TestAccounts,
    shown: Mutex<String>,
    secrets: Mutex<BTreeSet<Canary>>,
}

impl Watched {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        record();
        let mut config = cheap();
        change(&mut config);
        let test = TestAccounts::with(config, |builder| builder.breached_passwords(breach_check())).await;
        test.subscribe("talker", Filter::all(), Start::Beginning, Talker).await.unwrap();
        Self { test, shown: Mutex::default(), secrets: Mutex::default() }
    }

    fn show(&self, what: &impl Debug) {
        lock(&self.shown).push_str(&format!("{what:?}\n{what:#?}\n"));
    }

    fn guard(&self, canary: Canary) {
        lock(&self.secrets).insert(canary);
    }

    /// A marked password.
    fn password(&self, mark: &str) -> String {
        let text = format!("canary {mark} under seven umbrellas {}", UserId::new());
        self.guard(Canary::text(mark, &text));
        // A part of it is as bad as the whole.
        self.guard(Canary::whole(mark, &format!("canary {mark}")));
        // So is its hash, and the digits that a service for breached passwords is asked with; where they have no letter
        // they are told from no number.
        let hash = sha1(&text);
        if hash.split_at(5).0.contains(|digit: char| digit.is_ascii_alphabetic()) {
            self.guard(Canary::code(mark, hash.split_at(5).0));
        }
        self.guard(Canary::text(mark, hash.split_at(5).1));
        self.guard(Canary::text(mark, &hash.split_at(5).1.to_lowercase()));
        text
    }

    /// Asks, and shows whatever `Debug` and `Display` tell of question and answer.
    async fn ask<F>(&self, message: F) -> Answer<F>
    where
        F: Question + Debug,
        F::Reply: Debug,
        Error<F::Reason>: Debug + Display,
    {
        self.ask_as(Command::new(message).actor(Actor::Admin("operator".to_owned()))).await
    }

    /// As [`Watched::ask`], on behalf of whomever the command says.
    async fn ask_as<F>(&self, command: Command<F>) -> Answer<F>
    where
        F: Question + Debug,
        F::Reply: Debug,
        Error<F::Reason>: Debug + Display,
    {
        self.show(&command);
        let answer = soon(self.test.ask(command)).await;
        self.show(&answer);
        if let Err(error) = &answer {
            self.show(&error.to_string());
        }
        answer
    }

    /// Waits for messages, guards what they carry, and answers the last one's link and code.
    async fn mail(&self, address: &str) -> (Option<Proof>, String) {
        soon(self.test.drain()).await;
        let messages = self.test.messages().messages();
        self.show(&messages);
        for message in &messages {
            if let Some(link) = message.link() {
                let token = link.trim_end_matches('/').rsplit('/').next().unwrap();
                self.guard(Canary::token("link", token, 16));
            }
            if let Some(code) = message.code() {
                self.guard(Canary::code("code", code));
            }
        }
        let last = messages.iter().rfind(|message| message.to == address).expect("a message");
        let proof = last.link().map(link_proof);
        self.show(&proof);
        (proof, last.code().unwrap_or_default().to_owned())
    }

    async fn sign_in(&self, identifier: &str, text: &str) -> Answer<Authenticate> {
        let command = Command::new(Authenticate { identifier: identifier.to_owned(), password: password(text) });
        self.sign_in_as(command.actor(Actor::Admin("operator".to_owned()))).await
    }

    async fn sign_in_as(&self, command: Command<Authenticate>) -> Answer<Authenticate> {
        let answer = self.ask_as(command).await;
        if let Ok(LoggedIn { token, device, .. }) = &answer {
            self.guard(Canary::token("session token", token.expose(), 0));
            // Whose it is, which epoch and when are no secret.
            self.guard(Canary::token("device token", device.expose(), 16 + 8 + 8));
        }
        answer
    }

    /// Everything that could show a secret, by name.
    async fn corpora(&self) -> BTreeMap<&'static str, String> {
        soon(self.test.drain()).await;
        let recorded = self.test.recorded();
        let audited = self.audited().await;
        let export = soon(self.test.export_audit(majordomo::AuditRange::default(), Vec::new())).await.unwrap().0;
        let tree = self.test.tree().await;
        let json = |envelope: &Envelope| serde_json::to_string(envelope).unwrap();
        BTreeMap::from([
            ("signals as JSON", recorded.iter().map(json).collect()),
            ("signals as Debug", format!("{recorded:?}")),
            ("audit records", format!("{}{audited:?}", serde_json::to_string(&audited).unwrap())),
            ("audit export", String::from_utf8(export).unwrap()),
            ("logs", lock(&LOGS).concat()),
            ("panics", lock(&PANICS).concat()),
            ("what was shown", lock(&self.shown).clone()),
            ("tree", format!("{}{tree:?}", serde_json::to_string(&tree).unwrap())),
            ("disk", bytes_as_text(&self.test.disk().crash(0).unwrap().to_bytes())),
        ])
    }

    async fn audited(&self) -> Vec<majordomo::AuditRecord> {
        let (mut query, mut records) =
            (AuditQuery { newest_first: false, limit: 1_000, ..AuditQuery::default() }, vec![]);
        loop {
            let page = self.test.audit(query.clone()).await.unwrap();
            records.extend(page.records);
            let Some(next) = page.next else { return records };
            query = query.going_on(next);
        }
    }
}

/// A subscriber that tells all it sees, and falls over every registration once.
struct Talker;

impl Subscriber for Talker {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        let user = envelope.signal.user().map(|user| context.user(user));
        tracing::info!(?envelope, ?user, json = serde_json::to_string(envelope).unwrap(), "seen");
        if envelope.signal.kind() == SignalKind::UserRegistered && context.attempt() == 1 {
            panic!("fell over {envelope:?} of {user:?}");
        }
        Outcome::done()
    }
}

/// The most wrong passwords before the lock.
const LOCK_AFTER: u32 = 20;
const RENAMED: &str = "canary.renamed";
const PERSON_EMAIL: &str = "Canary.Person@canary-mail.example";
const SECOND_EMAIL: &str = "second.canary@canary-mail.example";
const THIRD_EMAIL: &str = "third.canary@canary-mail.example";
const PERSON_PHONE: &str = "+44 7400 123 789";
const SECOND_PHONE: &str = "+4915123456987";

fn personal() -> BTreeSet<Canary> {
    let all = [
        RENAMED,
        PERSON_EMAIL,
        "canary.person@canary-mail.example",
        SECOND_EMAIL,
        THIRD_EMAIL,
        PERSON_PHONE,
        "+447400123789",
        SECOND_PHONE,
    ];
    all.map(|text| Canary::whole(text, text)).into()
}

async fn register_and_prove(watched: &Watched, secret: &str) -> UserId {
    let request = Register {
        username: Some("canary.person".to_owned()),
        email: Some(PERSON_EMAIL.to_owned()),
        phone: Some(PERSON_PHONE.to_owned()),
        ..Register::new(secret)
    };
    watched.test.fail_hashing(1);
    watched.ask(request.clone()).await.unwrap_err();
    let accepted = watched.ask(request.clone()).await.unwrap();
    watched.ask(request).await.unwrap_err();
    let (link, code) = watched.mail("Canary.Person@canary-mail.example").await;
    let wrong = code_proof(accepted.email_challenge.unwrap(), &wrong_code(&code));
    watched.ask(ConfirmEmail { proof: wrong }).await.unwrap_err();
    let claimant = Claimant::User { user: accepted.user, contact: None };
    watched.ask(RequestEmailVerification { claimant: claimant.clone() }).await.unwrap();
    watched.ask(ConfirmEmail { proof: link.unwrap() }).await.unwrap_err();
    let (link, _) = watched.mail("Canary.Person@canary-mail.example").await;
    watched.ask(ConfirmEmail { proof: link.unwrap() }).await.unwrap();
    let phone = watched.ask(RequestPhoneVerification { claimant }).await.unwrap();
    let (_, code) = watched.mail("+447400123789").await;
    watched.ask(ConfirmPhone { proof: code_proof(phone.challenge, &code) }).await.unwrap();
    accepted.user
}

async fn sign_in_and_out(watched: &Watched, user: UserId, secret: &str) {
    let wrong = watched.password("wrong");
    // People type passwords where names belong.
    let typed = watched.password("typed-as-name");
    let shaped_like_a_name = "canary.typed.as.username";
    watched.guard(Canary::text("shaped like a name", shaped_like_a_name));
    for identifier in [typed.as_str(), shaped_like_a_name] {
        watched.sign_in(identifier, &wrong).await.unwrap_err();
        for channel in [Channel::Email, Channel::Phone] {
            let _ = watched.ask(RequestPasswordReset { identifier: identifier.to_owned(), channel }).await;
        }
        let claimant = Claimant::Address(identifier.to_owned());
        watched.ask(RequestEmailVerification { claimant: claimant.clone() }).await.unwrap_err();
        watched.ask(RequestPhoneVerification { claimant }).await.unwrap_err();
    }
    for field in 0..3 {
        let mut request = Register::new(secret);
        *[&mut request.username, &mut request.email, &mut request.phone][field] = Some(typed.clone());
        watched.ask(request).await.unwrap_err();
    }
    watched.sign_in(PERSON_EMAIL, &wrong).await.unwrap_err();
    watched.test.fail_hashing(1);
    watched.sign_in(PERSON_PHONE, secret).await.unwrap_err();
    watched.test.disk().fail_nth(Operation::Sync, 1, io::ErrorKind::Other);
    let _ = watched.sign_in("canary.person", secret).await;
    let opened = watched.sign_in("canary.person", secret).await.unwrap();
    watched.show(&watched.test.check_session(&opened.token));
    watched.show(&watched.test.sessions(user));
    watched.ask(LogOut { token: opened.token.clone() }).await.unwrap();
    watched.ask(LogOut { token: opened.token }).await.unwrap_err();
    for which in [SessionsToEnd::All, SessionsToEnd::One(opened.session)] {
        let _ = watched.ask(EndSessions { user, which }).await;
    }
}

/// Locks the account, signs in on a device that is known, and lifts the lock by every way there is.
async fn lock_and_unlock(watched: &Watched, user: UserId, secret: &str) {
    let wrong = watched.password("guess");
    let device = watched.sign_in("canary.person", secret).await.unwrap().device;
    watched.show(&device);
    for way in ["link", "operator"] {
        for _ in 0..LOCK_AFTER {
            watched.sign_in("canary.person", &wrong).await.unwrap_err();
        }
        watched.sign_in("canary.person", secret).await.unwrap_err();
        let login = Authenticate { identifier: "canary.person".to_owned(), password: password(secret) };
        watched.sign_in_as(Command::new(login).device(device.clone())).await.unwrap();
        let (link, _) = watched.mail("Canary.Person@canary-mail.example").await;
        let unlock = |unlock: Unlock| watched.ask(unlock);
        unlock(Unlock::Link(code_proof(majordomo::TokenId::new(), "123456"))).await.unwrap_err();
        if way == "link" {
            for already in [false, true] {
                assert_eq!(unlock(Unlock::Link(link.clone().unwrap())).await.unwrap().already, already);
            }
        } else {
            unlock(Unlock::Operator(user)).await.unwrap();
        }
    }
    watched.sign_in("canary.person", secret).await.unwrap();
}

/// Uses up what a source may try. Of whoever is refused then nothing stays, neither what was typed nor where from.
async fn be_refused(watched: &Watched) {
    let wrong = watched.password("refused");
    let login = |identifier: &str, address: &str| {
        let message = Authenticate { identifier: identifier.to_owned(), password: password(&wrong) };
        Command::new(message).context(Context::new().client_ip(address.parse().unwrap()))
    };
    for number in 0..50 {
        watched.sign_in_as(login(&format!("nobody{number}"), SPENT_SOURCE)).await.unwrap_err();
    }
    for address in [SPENT_SOURCE_V4; 6] {
        watched.sign_in_as(login("nobody", address)).await.unwrap_err();
    }
    for (identifier, mark) in [
        ("Canary.refused", "canary.refused"),
        ("Canary.Refused@canary-mail.example", "canary.refused"),
        ("+44 7400 123 456", "+447400123456"),
    ] {
        for mark in [identifier, mark] {
            watched.guard(Canary::whole("who was refused", mark));
        }
        let refused = watched.sign_in_as(login(identifier, REFUSED)).await.unwrap_err();
        assert!(refused.retry_after().is_some(), "{refused:?}");
    }
    let half: u64 = 0xcafe_0bee_f00d_0ace;
    let spellings = ["cafe:bee:f00d:ace".to_owned(), format!("{half:x}"), bytes_as_text(&half.to_be_bytes())];
    watched.guard(Canary::of("where a refused request came from", spellings));
}

/// Of one network of 64 bits, whose attempts are used up by the first.
const SPENT_SOURCE: &str = "2001:db8:77:1::1";
const REFUSED: &str = "2001:db8:77:1:cafe:bee:f00d:ace";
const SPENT_SOURCE_V4: &str = "203.0.113.77";

/// What tells where attempts came from that were counted.
fn sources() -> BTreeSet<Canary> {
    [SPENT_SOURCE, "2001:0db8:0077:0001", "20010db800770001", SPENT_SOURCE_V4, "cb00714d"]
        .map(|text| Canary::whole(text, text))
        .into()
}

/// Of `canary imported under seven umbrellas`: made by `openssl passwd -5 -salt canary7f3a`.
const IMPORTED: &str = "$5$canary7f3a$4jNXClxyimUFphb9R5XtSCkf5LY3lvpR/rCZmkRVXZ7";

/// Imports users with hashes of other systems, good ones and others, and lets one of them in.
async fn import(watched: &Watched) {
    let right = "canary imported under seven umbrellas";
    for text in [right, IMPORTED] {
        watched.guard(Canary::text("import", text));
    }
    let wrong = watched.password("not-imported");
    let import = |hash: &str| Import { username: Some("canary.imported".to_owned()), ..Import::new(hash) };
    for hash in
        ["$5$canary9d1c$unrecognised.text", "$2b$19$canary8e2bcanary8e2bcanary8e2bcanary8e2bcanary8e2bca", &wrong]
    {
        watched.guard(Canary::text("refused import", hash));
        watched.ask(import(hash)).await.unwrap_err();
    }
    watched.ask(import(IMPORTED)).await.unwrap();
    watched.ask(import(IMPORTED)).await.unwrap_err();
    watched.sign_in("canary.imported", &wrong).await.unwrap_err();
    watched.test.fail_hashing(1);
    watched.sign_in("canary.imported", right).await.unwrap_err();
    watched.test.hold_rehashing(true);
    watched.sign_in("canary.imported", right).await.unwrap();
    watched.test.fail_hashing(1);
    watched.test.hold_rehashing(false);
    soon(watched.test.drain()).await;
    watched.sign_in("canary.imported", right).await.unwrap();
    soon(watched.test.drain()).await;
}

/// Renames the user, and back.
async fn rename(watched: &Watched, user: UserId, secret: &str) {
    let wrong = watched.password("not-to-rename");
    let rename = |name: &str, text: &str| {
        let (username, authority) = (Change::Set(name.to_owned()), Some(by_password(text)));
        watched.ask_as(Command::new(Update { username, authority, ..Update::new(user) }))
    };
    rename(RENAMED, &wrong).await.unwrap_err();
    rename("postmaster", secret).await.unwrap_err();
    let reserved = Register { username: Some("\u{430}dmin".to_owned()), ..Register::new(secret) };
    watched.ask(reserved).await.unwrap_err();
    rename(RENAMED, secret).await.unwrap();
    watched.mail("Canary.Person@canary-mail.example").await;
    rename("canary.person", secret).await.unwrap();
}

async fn change_addresses(watched: &Watched, user: UserId, secret: &str) {
    let wrong = watched.password("wrong-authority");
    let email = |text: &str| ContactClaim::Email(text.to_owned());
    let add = |address, authority| AddContact { user, address, authority };
    watched.ask(add(email(SECOND_EMAIL), by_password(&wrong))).await.unwrap_err();
    watched.ask(add(email(SECOND_EMAIL), by_password(secret))).await.unwrap();
    let phone = ContactClaim::Phone(SECOND_PHONE.to_owned());
    let opened = watched.sign_in("canary.person", secret).await.unwrap();
    let claimed = watched.ask(add(phone, Authority::RecentSession(opened.token))).await.unwrap();
    let (_, code) = watched.mail(SECOND_PHONE).await;
    watched.ask(ConfirmPhone { proof: code_proof(claimed.challenge, &code) }).await.unwrap();
    let (link, _) = watched.mail(SECOND_EMAIL).await;
    watched.ask(ConfirmEmail { proof: link.unwrap() }).await.unwrap();
    let second = contact(&watched.test, user, SECOND_EMAIL);
    watched.ask(MakePrimary { user, contact: second, authority: by_password(&wrong) }).await.unwrap_err();
    watched.ask(MakePrimary { user, contact: second, authority: by_password(secret) }).await.unwrap();
    let change = ChangeContact { user, contact: second, address: email(THIRD_EMAIL), authority: by_password(secret) };
    watched.ask(change).await.unwrap();
    let (link, _) = watched.mail(THIRD_EMAIL).await;
    watched.ask(ConfirmEmail { proof: link.unwrap() }).await.unwrap();
    let number = contact(&watched.test, user, SECOND_PHONE);
    watched.ask(RemoveContact { user, contact: number, authority: by_password(secret) }).await.unwrap();
    // The owner of a taken address is told.
    let taken = Register { email: Some(THIRD_EMAIL.to_owned()), ..Register::new(secret) };
    watched.ask(taken).await.unwrap();
}

async fn change_passwords(watched: &Watched, user: UserId, secret: &str) {
    let (wrong, next, last) = (watched.password("not-current"), watched.password("changed"), watched.password("reset"));
    let change = |current: &str, new: &str| {
        watched.ask(ChangePassword { user, current: password(current), new: password(new), keep: None })
    };
    change(&wrong, &next).await.unwrap_err();
    watched.test.fail_hashing(1);
    change(secret, &next).await.unwrap_err();
    change(secret, &next).await.unwrap();
    let request = |channel| RequestPasswordReset { identifier: "canary.person".to_owned(), channel };
    watched.test.messages().fail_next(1, SendError::Permanent("no such mailbox".to_owned()));
    watched.ask(request(Channel::Email)).await.unwrap();
    soon(watched.test.drain()).await;
    watched.ask(request(Channel::Email)).await.unwrap();
    let (link, _) = watched.mail(THIRD_EMAIL).await;
    let reset = |proof, new: &str| watched.ask(ResetPassword { proof, new: password(new) });
    let by_phone = watched.ask(request(Channel::Phone)).await.unwrap();
    let (_, code) = watched.mail("+447400123789").await;
    reset(code_proof(by_phone.challenge, &wrong_code(&code)), &last).await.unwrap_err();
    reset(code_proof(by_phone.challenge, &code), "too short").await.unwrap_err();
    watched.test.fail_hashing(1);
    reset(code_proof(by_phone.challenge, &code), &last).await.unwrap_err();
    reset(code_proof(by_phone.challenge, &code), &last).await.unwrap();
    reset(link.unwrap(), &last).await.unwrap_err();
    watched.sign_in("canary.person", &last).await.unwrap();
    let (link, _) = watched.mail(THIRD_EMAIL).await;
    let undo = |proof| watched.ask(UndoChange { proof });
    undo(code_proof(by_phone.challenge, &code)).await.unwrap_err();
    for already in [false, true] {
        assert_eq!(undo(link.clone().unwrap()).await.unwrap().already, already);
    }
    watched.mail(THIRD_EMAIL).await;
    watched.sign_in("canary.person", &last).await.unwrap_err();
}

async fn change_the_user(watched: &Watched, user: UserId) {
    let update = Update { given_name: Change::Set("Ada".to_owned()), ..Update::new(user) };
    watched.ask(update).await.unwrap();
    let join = BTreeSet::from(["staff".to_owned()]);
    watched.ask(ChangeGroups { user, join, leave: BTreeSet::new() }).await.unwrap();
    watched.ask(Disable { user }).await.unwrap();
    watched.ask(Enable { user }).await.unwrap();
    watched.ask(Disable { user: UserId::new() }).await.unwrap_err();
    watched.show(&watched.test.user(user));
    watched.show(&watched.test.find_user(PERSON_EMAIL));
    watched.show(&watched.test.users(None, 10).await);
    watched.show(&(watched.test.accounts(), &watched.test, watched.test.messages()));
    watched.show(&(Keyring::ephemeral().unwrap(), Accounts::builder()));
}

/// Everything that is said of a secret by mistake, to show that the scan would find it.
async fn plant(watched: &Watched, user: UserId, planted: &str) {
    let spoken = planted.to_owned();
    let spoken = std::thread::spawn(move || {
        tracing::trace!(spoken, "planted");
        catch_unwind(AssertUnwindSafe(|| panic!("{spoken}"))).unwrap_err();
    });
    spoken.join().unwrap();
    watched.show(&planted);
    let update = Update { display_name: Change::Set(planted.to_owned()), ..Update::new(user) };
    let command =
        Command::new(update).actor(Actor::Admin(planted.to_owned())).context(Context::new().user_agent(planted));
    watched.test.update(command).await.unwrap();
    watched.test.subscribe(planted, Filter::all(), Start::Now, Talker).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_in_signals_trail_logs_panics_debug_tree_or_database() {
    let watched = Watched::start(|config| config.policy.lock_after = LOCK_AFTER).await;
    let secret = watched.password("registered");
    let user = register_and_prove(&watched, &secret).await;
    sign_in_and_out(&watched, user, &secret).await;
    lock_and_unlock(&watched, user, &secret).await;
    be_refused(&watched).await;
    import(&watched).await;
    rename(&watched, user, &secret).await;
    change_addresses(&watched, user, &secret).await;
    change_passwords(&watched, user, &secret).await;
    change_the_user(&watched, user).await;

    let kinds: BTreeSet<_> = watched.test.recorded().iter().map(|envelope| envelope.signal.kind().as_str()).collect();
    assert!(kinds.len() >= 70, "{} kinds of signals: {kinds:?}", kinds.len());
    let corpora = watched.corpora().await;
    for kind in ["breach_check_failed", "limit_reached", "password_rehash_failed", "password_rehashed", "user_unlocked"]
    {
        assert!(kinds.contains(kind), "{kind}");
    }
    for (name, corpus) in &corpora {
        assert!(corpus.len() > 100, "nothing is in {name}");
    }
    for (corpus, proof) in [
        ("logs", "a hash job panicked"),
        ("panics", "injected fault"),
        ("panics", "fell over Envelope"),
        ("panics", "the breach check fell over"),
    ] {
        assert!(Canary::whole(proof, proof).is_in(&corpora[corpus]), "{proof} is not in {corpus}");
    }
    // Neither ours nor anybody's hash is readable anywhere.
    watched.guard(Canary::whole("a hash", "$argon2"));
    let secrets = lock(&watched.secrets).clone();
    assert!(secrets.len() > 60, "{}", secrets.len());
    assert_eq!(hits(&secrets, &corpora), BTreeSet::new());
    let but_the_disk = corpora.iter().filter(|(name, _)| **name != "disk");
    let but_the_disk = but_the_disk.map(|(name, corpus)| (*name, corpus.clone())).collect();
    assert_eq!(hits(&personal(), &but_the_disk), BTreeSet::new());
    // Where somebody came from who named nobody, signals tell in clear; what the talker says of these is its own.
    let told_by_us = lock(&LOGS).iter().filter(|record| !record.contains("canary: seen ")).cloned().collect();
    let told_by_us = BTreeMap::from([("logs", told_by_us), ("what was shown", corpora["what was shown"].clone())]);
    assert_eq!(hits(&sources(), &told_by_us), BTreeSet::new());

    let planted = "planted.canary-7f3a";
    plant(&watched, user, planted).await;
    let found = hits(&[Canary::text("planted", planted)].into(), &watched.corpora().await);
    let found: BTreeSet<_> = found.into_iter().map(|(_, corpus)| corpus).collect();
    assert_eq!(found, corpora.into_keys().collect(), "the scan overlooks what was planted");
    watched.ask(Delete::new(user)).await.unwrap();
    assert_eq!(hits(&secrets, &watched.corpora().await), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_codes_alone_prove_an_address_none_is_found_in_signals_trail_logs_debug_tree_or_database() {
    let watched = Watched::start(|config| config.policy.verification = Verification::Code).await;
    let secret = watched.password("by-code");
    let request = Register {
        email: Some(SECOND_EMAIL.to_owned()),
        phone: Some(SECOND_PHONE.to_owned()),
        ..Register::new(secret.as_str())
    };
    let accepted = watched.ask(request).await.unwrap();
    let (link, code) = watched.mail(SECOND_EMAIL).await;
    assert!(link.is_none(), "there is nothing to follow");
    let challenge = accepted.email_challenge.unwrap();
    watched.ask(ConfirmEmail { proof: code_proof(challenge, &wrong_code(&code)) }).await.unwrap_err();
    watched.ask(ConfirmEmail { proof: code_proof(challenge, &code) }).await.unwrap();
    let (_, code) = watched.mail(SECOND_PHONE).await;
    watched.ask(ConfirmPhone { proof: code_proof(accepted.phone_challenge.unwrap(), &code) }).await.unwrap();
    watched.sign_in(SECOND_EMAIL, &secret).await.unwrap();
    let secrets = lock(&watched.secrets).clone();
    assert!(secrets.iter().filter(|canary| canary.name == "code").count() >= 2);
    assert_eq!(hits(&secrets, &watched.corpora().await), BTreeSet::new());
}

#[test]
fn the_scan_finds_texts_bytes_and_words_and_no_part_of_a_word() {
    let token = "mds_BgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgY";
    let canary = Canary::token("token", token, 0);
    assert!(canary.is_in(&format!("x{}y", token.split_at(12).0)));
    assert!(!canary.is_in(token.split_at(11).0));
    assert!(canary.is_in(&bytes_as_text(&[[1; 5].as_slice(), &[6; 32], &[0xff]].concat())));
    assert!(!canary.is_in(&bytes_as_text(&[6; 11])));
    let code = Canary::code("code", "123456");
    assert_eq!(["code:123456", "123456", "\"123456\"", "#123456\n"].map(|text| code.is_in(text)), [true; 4]);
    assert_eq!(["0123456", "1234567", "a123456"].map(|text| code.is_in(text)), [false; 3]);
    assert_eq!(base64url("AAECAwQFBgf_-w"), [0, 1, 2, 3, 4, 5, 6, 7, 0xff, 0xfb]);
}

/// The personal data of the signals that speak of a user.
fn personal_of(test: &TestAccounts, user: UserId) -> Vec<Personal> {
    let all = test.recorded().into_iter().flat_map(|envelope| match envelope.signal {
        Signal::UserRegistered { user: of, username, addresses, .. } if of == user => {
            username.into_iter().chain(addresses).collect()
        }
        Signal::UserEmailVerified { user: of, address, .. }
        | Signal::VerifyEmail { user: of, address, .. }
        | Signal::ResetPasswordEmail { user: of, address, .. }
            if of == user =>
        {
            vec![address]
        }
        _ => Vec::new(),
    });
    all.collect()
}

#[tokio::test]
async fn once_a_user_is_deleted_what_was_sealed_in_the_signals_stays_shut() {
    let test = TestAccounts::start().await;
    let user = ada(&test).await;
    let other = proven(&test, Some("eve"), Some("eve@example.com"), None).await;
    request_reset(&test, EMAIL, Channel::Email).await;
    let ids = |test: &TestAccounts| test.recorded().iter().map(|envelope| envelope.id).collect::<Vec<_>>();
    let (before, told) = (ids(&test), personal_of(&test, user));
    let exposed: BTreeSet<_> = told.iter().map(|personal| personal.expose().unwrap()).collect();
    assert_eq!((exposed, told.len()), (BTreeSet::from(["ada", EMAIL, PHONE]), 6));
    test.delete(Delete::new(user)).await.unwrap();
    soon(test.drain()).await;
    let test = test.restart().await.unwrap();
    assert!(ids(&test).starts_with(&before));
    let after = personal_of(&test, user);
    assert_eq!(after, told);
    assert!(after.iter().all(|personal| personal.expose().is_none() && personal.sealed().is_some()));
    assert!(personal_of(&test, other).iter().all(|personal| personal.expose().is_some()));
}

fn is_fit_text(text: &str) -> bool {
    text.len() <= 256 && !text.chars().any(char::is_control)
}

fn is_fit_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// Strings that have broken something somewhere, and some that break lines and headers.
fn naughty() -> impl Iterator<Item = &'static str> {
    const MORE: [&str; 6] = [
        "a\r\nTo: eve@example.com",
        "a\nBcc: eve@example.com\n\nbody",
        "a@example.com,eve@example.com",
        "a@example.com\u{2028}level=ERROR forged",
        "\u{1b}[2J\u{1b}]0;title\u{7}",
        "ada@example.com\0.evil",
    ];
    BLNS.iter().copied().chain(MORE)
}

/// Hands a naughty string to every text that a request can carry, and answers the user if it could register.
async fn hand_over(test: Accounts, number: usize, text: &str) -> Option<UserId> {
    let own = text.to_owned();
    let context = Context::new().request_id(text).user_agent(text);
    let admin = Actor::Admin(own.clone());
    let profile = Profile {
        display_name: Some(own.clone()),
        given_name: Some(own.clone()),
        family_name: Some(own.clone()),
        locale: Some(own.clone()),
        time_zone: Some(own.clone()),
        attributes: BTreeMap::new(),
    };
    let email = format!("canary{number}@example.com");
    let request = Register { email: Some(email.clone()), profile, ..Register::new(PASSWORD) };
    let answer = test.register(Command::new(request).context(context.clone()).actor(admin.clone())).await;
    let accepted = match answer {
        Ok(accepted) => Some(accepted.user),
        Err(error) => {
            assert_eq!(error, Error::Refused(RegisterReason::ProfileInvalid), "{text:?}");
            None
        }
    };
    assert_eq!(accepted.is_some(), is_fit_text(text), "{text:?}");
    for field in 0..3 {
        let mut request = Register::new(PASSWORD);
        *[&mut request.username, &mut request.email, &mut request.phone][field] = Some(own.clone());
        let _ = test.register(Command::new(request).context(context.clone())).await;
    }
    let login = Authenticate { identifier: own.clone(), password: password(text) };
    assert!(test.authenticate(Command::new(login).actor(admin)).await.is_err());
    let _ =
        test.request_password_reset(RequestPasswordReset { identifier: own.clone(), channel: Channel::Email }).await;
    let claimant = Claimant::Address(own.clone());
    let _ = test.request_email_verification(RequestEmailVerification { claimant: claimant.clone() }).await;
    let _ = test.request_phone_verification(RequestPhoneVerification { claimant }).await;
    let proof = Proof::Link { user: own.clone(), token: majordomo::OneTimeToken::new(text) };
    assert!(test.confirm_email(ConfirmEmail { proof }).await.is_err());
    assert_eq!(test.check_session(&majordomo::SessionToken::new(text)).unwrap(), None);
    test.find_user(text).unwrap();
    if let Some(user) = accepted {
        let attributes = BTreeMap::from([(own.clone(), Change::Set(own.clone().into()))]);
        let updated = test.update(Update { attributes, ..Update::new(user) }).await;
        assert_eq!(updated.is_ok(), is_fit_name(text), "{text:?}");
        let groups = ChangeGroups { user, join: BTreeSet::from([own]), leave: BTreeSet::new() };
        assert_eq!(test.change_groups(groups).await.is_ok(), is_fit_name(text) && text != "users", "{text:?}");
    }
    accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn naughty_strings_in_every_field_break_no_flow_no_line_and_no_message() {
    record();
    let test = TestAccounts::start().await;
    // Side by side, so that they are committed together.
    let hand_over = |(number, text)| tokio::spawn(hand_over(test.accounts().clone(), number, text));
    let tasks: Vec<_> = naughty().enumerate().map(hand_over).collect();
    let mut fit = 0;
    for task in tasks {
        fit += usize::from(soon(task).await.unwrap().is_some());
    }
    assert!(fit > 300, "{fit}");
    soon(test.drain()).await;
    let of_canaries = |message: &&majordomo::notifier::CapturedMessage| message.to.starts_with("canary");
    let messages = test.messages().messages();
    assert_eq!(messages.iter().filter(of_canaries).count(), fit);
    for message in &messages {
        let to = &message.to;
        assert!(to.is_ascii() && !to.contains(|c: char| c.is_control() || c.is_whitespace() || ",;<>\"".contains(c)));
        assert_eq!(to.matches('@').count(), usize::from(message.channel == Channel::Email), "{to}");
        assert!(message.subject.as_ref().is_none_or(|subject| !subject.contains(char::is_control)));
    }
    for envelope in test.recorded() {
        let told = [envelope.context.told_user_agent(), envelope.context.told_request_id()];
        for text in told.into_iter().flatten() {
            assert!(text.len() <= CONTEXT_TEXT_LIMIT && !text.contains(char::is_control), "{text:?}");
        }
        assert!(!serde_json::to_string(&envelope).unwrap().contains(|c: char| c < ' '));
    }
    let of_the_trail: Vec<_> = lock(&LOGS).iter().filter(|record| record.contains("audit: signal")).cloned().collect();
    assert!(of_the_trail.len() > 1_000, "{}", of_the_trail.len());
    for record in of_the_trail {
        let line = record.strip_suffix('\n').expect("a line");
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{2028}'), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_on_its_way_has_one_of_each_header_whatever_was_typed() {
    let folder = tempfile::tempdir().unwrap();
    let mail = folder.path().join("mail");
    let accounts = Accounts::builder().in_memory().config(cheap()).transport(Maildir::email(&mail));
    let accounts = accounts.spawn().await.unwrap();
    let mut sent = 0;
    for text in naughty() {
        for email in [text.to_owned(), format!("{text}@example.com"), format!("ada@{text}.example")] {
            let profile = Profile { locale: Some(text.to_owned()), ..Profile::default() };
            let profile = if is_fit_text(text) { profile } else { Profile::default() };
            let request = Register { email: Some(email), profile, ..Register::new(PASSWORD) };
            sent += usize::from(accounts.register(request).await.is_ok());
        }
    }
    soon(accounts.drain()).await;
    let files: Vec<_> = std::fs::read_dir(mail.join("new")).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), sent);
    assert!(sent > 20, "{sent}");
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let head = text.replace("\r\n", "\n");
        let (head, _) = head.split_once("\n\n").unwrap();
        for header in ["To", "From", "Subject", "Message-ID", "Date"] {
            let of_header = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{}:", header.to_lowercase()));
            assert_eq!(head.lines().filter(of_header).count(), 1, "{header} in {head}");
        }
        for header in ["cc:", "bcc:", "x-"] {
            assert!(!head.lines().any(|line| line.to_ascii_lowercase().starts_with(header)), "{head}");
        }
    }
    assert!(accounts.shutdown().await);
}
