//! A system for tests of flows: storage in memory, cheap hashes, a clock that stands still.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use majordomo_model::{
    Accepted, AddContact, Authority, Channel, Command, Contact, ContactClaim, ContactId, Context, Email, Envelope,
    Error, Flow, FlowId, FlowKind, LoggedIn, OneTimeToken, Phone, Profile, Proof, Register, RequestPasswordReset,
    SessionId, Signal, SignalKind, SystemId, Timestamp, TokenId, TokenPurpose, UserId, UserStatus, Username,
};
use proptest::prelude::*;

use super::authority::Permit;
use super::common_budget::TextLimits;
use super::flow::{Answer, Decision, Perform, Services, run};
use super::rehash::{self, Rehashes};
use super::throttle::Throttle;
use super::{Budget, Policy};
use crate::breach::Lookout;
use crate::bytes::Bytes;
use crate::clock::Clock;
use crate::guard::Panel;
use crate::hasher::{HashParameters, Hasher, HasherSettings};
use crate::keys::Keyring;
use crate::live::LiveGroup;
use crate::storage::{
    Batch, Check, ContactRow, Location, MemoryDisk, SessionRow, Storage, StorageSettings, UniqueKey, UserRow,
    UsernameRow, Verdict, Write,
};
use crate::supervision::{Child, Limits, Plan, spawn_supervisor};
use crate::token::{Tokens, parse_link};

/// A password that every rule accepts.
pub(crate) const PASSWORD: &str = "the quick brown fox is 1 animal";
/// Another one.
pub(crate) const OTHER_PASSWORD: &str = "pack my box with 5 dozen jugs";

pub(crate) struct Fixture {
    pub(crate) services: Services,
    pub(crate) clock: Clock,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(Policy::default()).await
    }

    pub(crate) async fn with(policy: Policy) -> Self {
        Self::over(Location::Memory(MemoryDisk::new()), Keyring::ephemeral().unwrap(), policy).await
    }

    /// Over what this location holds, with these keys.
    pub(crate) async fn over(location: Location, keys: Keyring, policy: Policy) -> Self {
        let clock = Clock::manual(Timestamp::from_micros(1_800_000_000_000_000));
        let on_commit: crate::storage::CommitHook = Arc::new(|_| {});
        let storage = Storage::open(location, StorageSettings::default(), &keys, clock.clone(), on_commit).unwrap();
        let parameters = HashParameters::cheap_for_tests();
        let settings = HasherSettings { parameters, queue: Some(1_000), workers: Some(2), ..HasherSettings::default() };
        let hasher = Hasher::new(&settings).unwrap();
        let (stored, hashed) = (storage.clone(), hasher.clone());
        let storage_child = Child::new("storage", move |supervisor| {
            let storage = stored.clone();
            async move { storage.start(supervisor).await }
        });
        let hasher_child = Child::new("hasher", move |supervisor| {
            let hasher = hashed.clone();
            async move { Ok(hasher.start(Some(supervisor)).await?.get_cell()) }
        });
        let plan = Plan::new(Limits::default()).child(storage_child).child(hasher_child);
        spawn_supervisor(plan, None).await.unwrap();
        let services = Services {
            reader: storage.reader(),
            storage,
            hasher,
            tokens: Tokens::new(keys.clone()),
            keys,
            budget: Budget::new(policy.failures_per_source),
            throttle: Throttle::default(),
            policy,
            clock: clock.clone(),
            live: LiveGroup::new(SystemId::new()),
            guards: Panel::default(),
            breaches: Lookout::default(),
            rehashes: Rehashes::new(),
        };
        Self { services, clock }
    }

    /// Runs a flow to its end, as the user manager does.
    pub(crate) async fn run<F: Perform>(&self, message: impl Into<Command<F>>) -> Answer<F> {
        run(&self.services, &message.into(), None).await
    }

    /// Hashes anew what logins left to be hashed, as the user manager does.
    pub(crate) async fn rehash(&self) {
        for due in self.services.rehashes.take() {
            rehash::run(&self.services, due).await;
        }
    }

    /// Registers a user with this username and e-mail address, unproven.
    pub(crate) async fn register(&self, username: &str, email: Option<&str>, phone: Option<&str>) -> Accepted {
        let (email, phone) = (email.map(str::to_owned), phone.map(str::to_owned));
        let username = Some(username.to_owned());
        self.run(Register { username, email, phone, ..Register::new(PASSWORD) }).await.unwrap()
    }

    /// Registers a user and proves every address.
    pub(crate) async fn register_proven(&self, username: &str, email: Option<&str>, phone: Option<&str>) -> UserId {
        let user = self.register(username, email, phone).await.user;
        let mut row = self.services.reader.user_row(user).unwrap().unwrap();
        let checks = vec![Check::UserVersion(user, row.version)];
        row.version += 1;
        let mut writes: Vec<_> = row.verify_by.take().map(|_| Write::ForgetVerification(user)).into_iter().collect();
        for contact in &mut row.contacts {
            (contact.proven_at, contact.primary) = (Some(self.clock.now()), true);
            writes.push(Write::PutOwner(UniqueKey::address(contact.channel, &contact.canonical), user));
        }
        writes.push(Write::PutUser(Box::new(row)));
        self.write(checks, writes).await;
        user
    }

    /// Asks for a reset by e-mail, which the user must have proven.
    pub(crate) async fn reset_token(&self, identifier: &str) -> TokenId {
        let identifier = identifier.to_owned();
        let request = RequestPasswordReset { identifier, channel: Channel::Email };
        self.run(request).await.unwrap().challenge
    }

    /// Changes rows directly.
    pub(crate) async fn write(&self, checks: Vec<Check>, writes: Vec<Write>) {
        let batch = Batch { flow: FlowId::new(), outcome: None, checks, writes, signals: Vec::new() };
        let verdict = self.services.storage.commit(batch).await.unwrap();
        assert!(matches!(verdict, Verdict::Committed(_)));
    }

    /// Signs in with [`PASSWORD`].
    pub(crate) async fn sign_in(&self, identifier: &str) -> Answer<majordomo_model::Authenticate> {
        self.sign_in_with(identifier, PASSWORD).await
    }

    /// Signs in.
    pub(crate) async fn sign_in_with(&self, identifier: &str, password: &str) -> Answer<majordomo_model::Authenticate> {
        let password = majordomo_model::Password::new(password);
        self.run(majordomo_model::Authenticate { identifier: identifier.to_owned(), password }).await
    }

    /// Signs in and must succeed.
    pub(crate) async fn session(&self, identifier: &str) -> LoggedIn {
        self.sign_in(identifier).await.unwrap()
    }

    /// Every signal that is stored, in order, personal data opened.
    pub(crate) fn signals(&self) -> Vec<Envelope> {
        self.services.reader.signals_after(0, usize::MAX).unwrap()
    }

    /// The kinds of the signals stored behind a place.
    pub(crate) fn kinds_after(&self, seq: u64) -> Vec<SignalKind> {
        self.services.reader.signals_after(seq, usize::MAX).unwrap().iter().map(|told| told.signal.kind()).collect()
    }

    /// The last signal stored.
    pub(crate) fn last_signal(&self) -> Signal {
        self.signals().pop().unwrap().signal
    }

    /// The place of the last signal.
    pub(crate) fn head(&self) -> u64 {
        self.services.reader.head().unwrap()
    }

    /// The newest token of a purpose that was made for a user.
    pub(crate) fn newest_token(&self, user: UserId, purpose: TokenPurpose) -> TokenId {
        let open = self.services.reader.snapshot(|view| {
            use crate::storage::Lookup;
            view.open_tokens(user, purpose, None)
        });
        open.unwrap().into_iter().map(|token| token.id).max().unwrap()
    }

    /// The link of a token, as its message carries it.
    pub(crate) fn link(&self, token: TokenId) -> Proof {
        let row = self.services.reader.token(token).unwrap().unwrap();
        let path = self.services.tokens.path(&row.claims()).unwrap();
        let proof = Proof::from_link(&path).unwrap();
        if let Proof::Link { token: secret, .. } = &proof {
            assert_eq!(parse_link(secret.expose()).unwrap().0, token);
        }
        proof
    }

    /// The code of a token, as its message carries it.
    pub(crate) fn code(&self, token: TokenId) -> Proof {
        let row = self.services.reader.token(token).unwrap().unwrap();
        let code = self.services.tokens.code(&row.claims()).unwrap();
        Proof::Code { challenge: token, code: majordomo_model::OneTimeCode::new(code.as_str()) }
    }

    /// A code that is wrong for a token.
    pub(crate) fn wrong_code(&self, token: TokenId) -> Proof {
        let row = self.services.reader.token(token).unwrap().unwrap();
        let code = self.services.tokens.code(&row.claims()).unwrap();
        let wrong: String = code.chars().map(|digit| if digit == '9' { '0' } else { '9' }).collect();
        Proof::Code { challenge: token, code: majordomo_model::OneTimeCode::new(wrong) }
    }

    /// A link that is none of ours.
    pub(crate) fn foreign_link(user: &str) -> Proof {
        Proof::Link { user: user.to_owned(), token: OneTimeToken::new("mdt_nonsense") }
    }

    /// A user's row.
    pub(crate) fn user(&self, user: UserId) -> UserRow {
        self.services.reader.user_row(user).unwrap().unwrap()
    }

    /// Proves an address of a user without a flow.
    pub(crate) async fn prove(&self, user: UserId, canonical: &str) {
        let before = self.user(user);
        let mut row = UserRow { version: before.version + 1, verify_by: None, ..before.clone() };
        let position = row.contacts.iter().position(|contact| contact.canonical == canonical).unwrap();
        let channel = row.contacts[position].channel;
        let primary = !row.contacts.iter().any(|contact| contact.channel == channel && contact.primary);
        let proven_at = Some(self.clock.now());
        row.contacts[position] = ContactRow { proven_at, primary, ..row.contacts[position].clone() };
        let mut writes = vec![
            Write::PutUser(Box::new(row)),
            Write::PutOwner(UniqueKey::address(channel, canonical), user),
            Write::RemoveClaim(channel, canonical.to_owned(), user),
        ];
        writes.extend(before.verify_by.map(|_| Write::ForgetVerification(user)));
        self.write(Vec::new(), writes).await;
    }

    /// A contact of a user.
    pub(crate) fn contact(&self, user: UserId, canonical: &str) -> ContactRow {
        self.user(user).contacts.into_iter().find(|contact| contact.canonical == canonical).unwrap()
    }

    /// A user with a username and proven e-mail addresses.
    pub(crate) async fn proven(&self, username: &str, addresses: &[&str]) -> UserId {
        let user = self.register(username, None, None).await.user;
        for address in addresses {
            let address = ContactClaim::Email((*address).to_owned());
            self.run(AddContact { user, address, authority: authority() }).await.unwrap();
        }
        for address in addresses {
            self.prove(user, address).await;
        }
        user
    }

    /// Shuts a user out without a flow.
    pub(crate) async fn disable(&self, user: UserId) {
        let row = self.user(user);
        let (version, epoch) = (row.version + 1, row.epoch + 1);
        let row = UserRow { status: UserStatus::Disabled, version, epoch, ..row };
        self.write(Vec::new(), vec![Write::PutUser(Box::new(row))]).await;
    }

    /// Runs a flow that must be refused, in one commit that leaves the user as it was; the reason and what was told.
    pub(crate) async fn refused<F: Perform>(&self, user: UserId, message: F) -> (F::Reason, Vec<Signal>) {
        let (head, commits) = (self.head(), self.services.storage.observe().batches);
        let before = self.services.reader.user_row(user).unwrap();
        let Err(Error::Refused(reason)) = self.run(message).await else { panic!("not refused") };
        assert_eq!(self.services.storage.observe().batches - commits, 1, "{reason:?}");
        assert!(self.services.reader.user_row(user).unwrap() == before, "{reason:?}");
        let told = self.services.reader.signals_after(head, usize::MAX).unwrap();
        (reason, told.into_iter().map(|envelope| envelope.signal).collect())
    }

    /// Lets as much time pass as the same message is not asked for twice.
    pub(crate) fn cool_down(&self) {
        self.pass(self.services.policy.messages.cool_down);
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, span: Duration) {
        self.clock.advance(span);
    }
}

/// A policy under which messages may be asked for without end, for what is not about that.
pub(crate) fn unlimited() -> Policy {
    let mut policy = Policy::default();
    (policy.messages.cool_down, policy.messages.per_hour, policy.messages.per_day) = (Duration::ZERO, None, None);
    policy.messages.texts = TextLimits::none();
    policy
}

/// The instant that arbitrary facts are about.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// Fails unless the decision ends its flow, once.
pub(crate) fn assert_one_end<F: Flow>(decision: &Decision<F>) {
    let end = decision.end.kind();
    assert!(end.ends().contains(&F::KIND), "{end:?} does not end {:?}", F::KIND);
    for told in &decision.told {
        let kind = told.signal.kind();
        // What belongs to the flow of a delivery may be called as an end of this one.
        let ends = told.delivery.is_none() && kind.ends().contains(&F::KIND);
        assert!(!ends && !kind.starts().contains(&F::KIND), "{kind:?} in {:?}", F::KIND);
        let of_delivery = kind.starts().contains(&FlowKind::Delivery) || kind.ends().contains(&FlowKind::Delivery);
        assert_eq!(told.delivery.is_some(), of_delivery, "{kind:?} starts or ends a delivery, or does not");
    }
}

/// A user in any state, who may have a username, an e-mail address and a phone number, proven or not.
pub(crate) fn any_user() -> impl Strategy<Value = UserRow> {
    let contact = prop::option::of((any::<bool>(), any::<bool>()));
    let state = (any::<bool>(), 0_u64..3, 1_u64..9, prop::option::of(-1_i64..2));
    (any::<bool>(), contact.clone(), contact, state).prop_map(|(named, email, phone, state)| {
        let (active, epoch, version, verify_by) = state;
        let email = email.map(|state| (Contact::from(Email::parse("ada@example.com").unwrap()), state));
        let phone = phone.map(|state| (Contact::from(Phone::parse("+447911123456").unwrap()), state));
        let contacts = email.into_iter().chain(phone).map(|(address, (proven, primary))| ContactRow {
            proven_at: proven.then_some(NOW),
            primary: proven && primary,
            ..ContactRow::claim(ContactId::new(), &address, NOW)
        });
        UserRow {
            id: UserId::from_bytes([1; 16]),
            version,
            created_at: NOW,
            status: if active { UserStatus::Active } else { UserStatus::Disabled },
            username: named.then(|| UsernameRow::from(&Username::parse("ada").unwrap())),
            contacts: contacts.collect(),
            profile: Profile::default(),
            groups: BTreeSet::new(),
            epoch,
            verify_by: verify_by.map(|micros| Timestamp::from_micros(NOW.as_micros() + micros)),
            seal_key: Bytes([7; 32]),
        }
    })
}

/// Sessions of that user, live and dead; the public name of each repeats the first byte of its hash.
pub(crate) fn any_sessions() -> impl Strategy<Value = Vec<([u8; 32], SessionRow)>> {
    let session = (0_u64..3, -1_i64..3);
    prop::collection::vec(session, 0..5).prop_map(|sessions| {
        let row = |(number, (epoch, left)): (u8, (u64, i64))| {
            let session = SessionRow {
                id: SessionId::from_bytes([number; 16]),
                user: UserId::from_bytes([1; 16]),
                epoch,
                created_at: NOW,
                last_seen_at: NOW,
                expires_at: Timestamp::from_micros(NOW.as_micros() + left),
                context: Context::new(),
            };
            ([number; 32], session)
        };
        (0..).zip(sessions).map(row).collect()
    })
}

/// The current password of every user of a fixture.
pub(crate) fn authority() -> Authority {
    Authority::Password(majordomo_model::Password::new(PASSWORD))
}

/// A permit that holds for a user right now: a session just opened.
pub(super) fn recent_session(user: &UserRow, now: Timestamp) -> Permit {
    let session = SessionRow {
        id: SessionId::new(),
        user: user.id,
        epoch: user.epoch,
        created_at: now,
        last_seen_at: now,
        expires_at: now.plus(Duration::from_secs(60)),
        context: Context::new(),
    };
    Permit::Session(Some(([7; 32], session)))
}

/// An active user of version 7 with a username, and with an e-mail address that is proven.
pub(crate) fn user_row(username: &str, proven: Option<&str>) -> UserRow {
    let now = Timestamp::from_micros(1_800_000_000_000_000);
    let proven = proven.map(|address| ContactRow {
        proven_at: Some(now),
        primary: true,
        ..ContactRow::claim(ContactId::new(), &Contact::Email(Email::parse(address).unwrap()), now)
    });
    UserRow {
        version: 7,
        username: Some(UsernameRow::from(&Username::parse(username).unwrap())),
        contacts: proven.into_iter().collect(),
        ..UserRow::unknown(UserId::new(), now)
    }
}

/// Whether a decision obeys the laws: its end ends its flow, no signal before it starts or ends that flow, and a
/// write of a user's row raises the version by one and is guarded by the version before.
pub(crate) fn assert_well_formed<F: Perform>(decision: &Decision<F>) {
    assert!(decision.end.kind().ends().contains(&F::KIND), "{:?}", decision.end);
    for told in &decision.told {
        let kind = told.signal.kind();
        assert!(!kind.ends().contains(&F::KIND) && !kind.starts().contains(&F::KIND), "{kind:?}");
    }
    for write in &decision.writes {
        let Write::PutUser(row) = write else { continue };
        let guard = |check: &Check| matches!(check, Check::UserVersion(id, version) if *id == row.id && version + 1 == row.version);
        assert!(decision.checks.iter().any(guard));
    }
}
