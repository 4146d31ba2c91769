//! The model: random commands come to what a few maps in memory say they must come to.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    Accounts, Actor, AddContact, Answer, Authority, Change, ChangePassword, Channel, Claimant, Command, ConfirmEmail,
    ConfirmPhone, ContactClaim, ContactId, Delete, Disable, Enable, Flow, MessageKind, OneTimeCode, Password, Proof,
    Register, RemoveContact, RequestEmailVerification, RequestPasswordReset, RequestPhoneVerification, ResetPassword,
    Signal, TokenId, UndoChange, Update, UserId, UserStatus,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::laws::assert_laws;
use crate::steps::log_in;

/// Usernames as typed, each with its canonical form and a number that look-alikes share.
const NAMES: [(&str, &str, u8); 5] = [
    ("ada.l", "ada.l", 0),
    ("Ada.L", "ada.l", 0),
    ("\u{430}da.l", "\u{430}da.l", 0),
    ("grace.h", "grace.h", 1),
    ("barbara.l", "barbara.l", 2),
];
/// Addresses as typed, each with its canonical form.
const ADDRESSES: [(&str, &str, Channel); 6] = [
    ("one@example.com", "one@example.com", Channel::Email),
    ("ONE@Example.COM", "one@example.com", Channel::Email),
    ("two@example.com", "two@example.com", Channel::Email),
    ("three@example.com", "three@example.com", Channel::Email),
    ("+44 7911 123456", "+447911123456", Channel::Phone),
    ("+447911123457", "+447911123457", Channel::Phone),
];
const PASSWORDS: [&str; 3] =
    ["nine lanterns over a quiet harbour", "seventeen purple elephants on ice", "the kettle sang an octave too low"];

const CASES: u32 = 90;
const COMMANDS: usize = 30;
/// How many messages an address may be sent in an hour: so few that they come to an end.
const BUDGET: usize = 3;
/// What is stuck ends.
const PATIENCE: Duration = Duration::from_secs(180);

type Name = (&'static str, &'static str, u8);
type Address = (&'static str, &'static str, Channel);
type Word = &'static str;

/// A command; whom and which message it is about is chosen among those that there are when it is run.
#[derive(Clone, Debug)]
enum Step {
    Register { name: Option<Name>, email: Option<Address>, phone: Option<Address>, password: Word },
    LogIn { identifier: Word, password: Word },
    Resend { user: Index, channel: Channel },
    Confirm { message: Index },
    Rename { user: Index, name: Option<Name> },
    Add { user: Index, address: Address, password: Word },
    Remove { user: Index, contact: Index, password: Word },
    Disable { user: Index },
    Enable { user: Index },
    Delete { user: Index },
    ChangePassword { user: Index, current: Word, new: Word },
    RequestReset { identifier: Word, channel: Channel },
    Reset { message: Index, new: Word },
    Wait,
    Undo { change: Index },
}

impl Step {
    const fn name(&self) -> &'static str {
        match self {
            Self::Register { .. } => "register",
            Self::LogIn { .. } => "log_in",
            Self::Resend { .. } => "resend",
            Self::Confirm { .. } => "confirm",
            Self::Rename { .. } => "rename",
            Self::Add { .. } => "add",
            Self::Remove { .. } => "remove",
            Self::Disable { .. } => "disable",
            Self::Enable { .. } => "enable",
            Self::Delete { .. } => "delete",
            Self::ChangePassword { .. } => "change_password",
            Self::RequestReset { .. } => "request_reset",
            Self::Reset { .. } => "reset",
            Self::Wait => "wait",
            Self::Undo { .. } => "undo",
        }
    }
}

/// What has to come up among all cases, or they would prove little.
const OUTCOMES: [Outcome; 42] = [
    ("register", "ok"),
    ("register", "identifier_required"),
    ("register", "username_taken"),
    ("log_in", "ok"),
    ("log_in", "invalid_credentials"),
    ("log_in", "email_not_verified"),
    ("resend", "ok"),
    ("resend", "again"),
    ("confirm", "ok"),
    ("confirm", "already"),
    ("confirm", "invalid_token"),
    ("rename", "ok"),
    ("rename", "user_not_found"),
    ("rename", "username_taken"),
    ("rename", "username_required"),
    ("rename", "nothing_to_do"),
    ("add", "ok"),
    ("add", "user_not_found"),
    ("add", "user_inactive"),
    ("add", "not_authorised"),
    ("add", "contact_exists"),
    ("remove", "ok"),
    ("remove", "contact_not_found"),
    ("remove", "last_identifier"),
    ("disable", "ok"),
    ("disable", "nothing_to_do"),
    ("enable", "ok"),
    ("enable", "nothing_to_do"),
    ("delete", "ok"),
    ("delete", "user_not_found"),
    ("change_password", "ok"),
    ("change_password", "incorrect_password"),
    ("change_password", "user_inactive"),
    ("request_reset", "ok"),
    ("request_reset", "again"),
    ("reset", "ok"),
    ("reset", "invalid_token"),
    ("wait", "ok"),
    ("message", "over_budget"),
    ("undo", "ok"),
    ("undo", "already"),
    ("undo", "invalid_token"),
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || select(&NAMES[..]);
    let address = || select(&ADDRESSES[..]);
    // Mostly one password, so that most comparisons succeed.
    let password = || select(vec![PASSWORDS[0], PASSWORDS[0], PASSWORDS[0], PASSWORDS[1], PASSWORDS[2]]);
    let typed = NAMES.iter().map(|name| name.0).chain(ADDRESSES.iter().map(|address| address.0));
    let identifier = select(typed.collect::<Vec<_>>()).boxed();
    let channel = || select(&[Channel::Email, Channel::Phone][..]);
    let user = any::<Index>;
    let optional = |channel| {
        let of_channel: Vec<_> = ADDRESSES.into_iter().filter(|address| address.2 == channel).collect();
        prop::option::of(select(of_channel))
    };
    let registration = (prop::option::of(name()), optional(Channel::Email), optional(Channel::Phone), password())
        .prop_map(|(name, email, phone, password)| Step::Register { name, email, phone, password });
    let step = prop_oneof![
        6 => registration,
        3 => (identifier.clone(), password()).prop_map(|(identifier, password)| Step::LogIn { identifier, password }),
        2 => (user(), channel()).prop_map(|(user, channel)| Step::Resend { user, channel }),
        8 => user().prop_map(|message| Step::Confirm { message }),
        3 => (user(), prop::option::of(name())).prop_map(|(user, name)| Step::Rename { user, name }),
        4 => (user(), address(), password())
            .prop_map(|(user, address, password)| Step::Add { user, address, password }),
        3 => (user(), user(), password())
            .prop_map(|(user, contact, password)| Step::Remove { user, contact, password }),
        1 => user().prop_map(|user| Step::Disable { user }),
        1 => user().prop_map(|user| Step::Enable { user }),
        1 => user().prop_map(|user| Step::Delete { user }),
        2 => (user(), password(), password())
            .prop_map(|(user, current, new)| Step::ChangePassword { user, current, new }),
        4 => (identifier, channel()).prop_map(|(identifier, channel)| Step::RequestReset { identifier, channel }),
        4 => (user(), password()).prop_map(|(message, new)| Step::Reset { message, new }),
        2 => Just(Step::Wait),
        3 => user().prop_map(|change| Step::Undo { change }),
    ];
    prop::collection::vec(step, COMMANDS)
}

/// A user as the model knows one.
#[derive(Clone, Debug)]
struct Person {
    id: UserId,
    name: Option<Name>,
    contacts: Vec<Reach>,
    active: bool,
    password: Word,
    epoch: u32,
    /// Whether an address has to be proven before the first login.
    pending: bool,
}

/// An address of a user; its place in the list is what the store's contact has.
#[derive(Clone, Debug)]
struct Reach {
    id: ContactId,
    address: Address,
    proven: bool,
    primary: bool,
}

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Open,
    Used,
    Superseded,
}

/// A token that a message was sent for, and what it is bound to.
#[derive(Clone, Debug)]
struct Sent {
    user: UserId,
    address: &'static str,
    channel: Channel,
    proof: Proof,
    bound: Bound,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Contact(ContactId),
    Epoch(u32),
}

/// A change that can be undone: what there was before it, and who is told.
#[derive(Clone, Debug)]
struct Undoable {
    user: UserId,
    told: Reach,
    /// Whether the address that is told left the user with it, and is kept for them.
    reserves: bool,
    before: Vec<Reach>,
    /// The link in the notice.
    proof: Option<Proof>,
    standing: Standing,
}

/// A step and what it was answered with.
type Outcome = (&'static str, Word);
/// A message that must go out.
type Message = (MessageKind, String);

/// What the store must hold.
#[derive(Debug, Default)]
struct Model {
    people: Vec<Person>,
    /// Everybody who ever was, so that commands about the deleted come up.
    ever: Vec<UserId>,
    sent: Vec<Sent>,
    /// Every change of an account that can be undone, the earliest first.
    changes: Vec<Undoable>,
    /// What the last command sends.
    due: Vec<Message>,
    /// How many seconds have passed.
    now: u64,
    /// What messages were asked for by, when, and what that was answered.
    asked: Vec<(String, u64, TokenId)>,
    /// When messages to an address were started that anybody can ask for.
    started: Vec<(String, u64)>,
    /// Whether one was not.
    over_budget: bool,
}

impl Model {
    fn person(&mut self, id: UserId) -> Option<&mut Person> {
        self.people.iter_mut().find(|person| person.id == id)
    }

    fn chosen(&self, index: Index) -> UserId {
        if self.ever.is_empty() { UserId::new() } else { *index.get(&self.ever) }
    }

    /// Who has a name that looks like this one.
    fn holder(&self, name: Name) -> Option<UserId> {
        let looks_alike = |person: &&Person| person.name.is_some_and(|other| other.2 == name.2);
        self.people.iter().find(looks_alike).map(|person| person.id)
    }

    /// Who has proven an address.
    fn owner(&self, canonical: &str) -> Option<UserId> {
        let proven = |reach: &Reach| reach.proven && reach.address.1 == canonical;
        self.people.iter().find(|person| person.contacts.iter().any(proven)).map(|person| person.id)
    }

    /// Whom an address is kept for: its owner, or who gave it up. No step takes as long as that lasts.
    fn kept_for(&self, canonical: &str) -> Option<UserId> {
        let keeps = |change: &&Undoable| {
            change.reserves && change.standing == Standing::Open && change.told.address.1 == canonical
        };
        self.owner(canonical).or_else(|| self.changes.iter().find(keeps).map(|change| change.user))
    }

    /// Where a user is told of what concerns all of the account.
    fn first(&mut self, user: UserId) -> Option<Reach> {
        let person = self.person(user)?;
        let first = |channel| person.contacts.iter().find(move |reach| reach.primary && reach.address.2 == channel);
        first(Channel::Email).or_else(|| first(Channel::Phone)).filter(|told| told.proven).cloned()
    }

    /// Notes a change of a user who has proven something, before it is made.
    fn note(&mut self, user: UserId, told: Option<Reach>, reserves: bool, kind: MessageKind) {
        let told = told.or_else(|| self.first(user));
        let Some(person) = self.person(user).cloned() else { return };
        let Some(told) = told.filter(|told| told.proven) else { return };
        self.due.push((kind, told.address.1.to_owned()));
        let before = person.contacts.into_iter().filter(|reach| reach.proven).collect();
        self.changes.push(Undoable { user, told, reserves, before, proof: None, standing: Standing::Open });
    }

    /// Whom a typed identifier names.
    fn named(&self, typed: &str) -> Option<Person> {
        let id = match ADDRESSES.iter().find(|address| address.0 == typed) {
            Some(address) => self.owner(address.1),
            None => {
                let canonical = NAMES.iter().find(|name| name.0 == typed).map(|name| name.1);
                let same = |person: &&Person| person.name.is_some() && person.name.map(|name| name.1) == canonical;
                self.people.iter().find(same).map(|person| person.id)
            }
        };
        self.people.iter().find(|person| Some(person.id) == id).cloned()
    }

    fn supersede(&mut self, these: impl Fn(&Sent) -> bool) {
        for sent in self.sent.iter_mut().filter(|sent| sent.standing == Standing::Open && these(sent)) {
            sent.standing = Standing::Superseded;
        }
    }

    /// What the same request was answered within the last minute.
    fn answered(&self, question: &str) -> Option<TokenId> {
        let same = |asked: &&(String, u64, TokenId)| asked.0 == question && self.now < asked.1 + 60;
        self.asked.iter().find(same).map(|asked| asked.2)
    }

    /// Whether one more message may go to an address, or one more that resets a password: so many an hour, and no run is
    /// longer than that.
    fn spends(&mut self, subject: String) -> bool {
        let may = self.started.iter().filter(|started| started.0 == subject).count() < BUDGET;
        self.started.extend(may.then_some((subject, self.now)));
        self.over_budget |= !may;
        may
    }

    /// A message to somebody who claims an address, or to whoever has proven it, unless it was sent too many; to nobody
    /// while it is kept for another.
    fn claimed(&mut self, claimant: UserId, address: Address) {
        if !self.spends(address.1.to_owned()) {
            return;
        }
        let kind = match (self.owner(address.1), address.2) {
            (Some(_), _) => MessageKind::AddressTaken,
            (None, Channel::Email) => MessageKind::VerifyEmail,
            (None, Channel::Phone) => MessageKind::VerifyPhone,
        };
        let kept = self.owner(address.1).is_none() && self.kept_for(address.1).is_some_and(|holder| holder != claimant);
        if !kept {
            self.due.push((kind, address.1.to_owned()));
        }
    }

    /// The end of a credential epoch, with a new password or without.
    fn end_epoch(&mut self, id: UserId, password: Option<Word>) {
        self.supersede(|sent| sent.user == id && matches!(sent.bound, Bound::Epoch(_)));
        let Some(person) = self.person(id) else { return };
        person.epoch += 1;
        // Whoever had the password until now could have made the claims of a user who has proven an address.
        if person.contacts.iter().any(|reach| reach.proven) {
            person.contacts.retain(|reach| reach.proven);
        }
        let left: Vec<_> = person.contacts.iter().map(|reach| reach.id).collect();
        self.supersede(|sent| {
            sent.user == id && matches!(sent.bound, Bound::Contact(contact) if !left.contains(&contact))
        });
        let Some(person) = self.person(id) else { return };
        let Some(password) = password else { return };
        person.password = password;
        self.note(id, None, false, MessageKind::PasswordChanged);
    }
}

/// The name of an answer.
fn word<F: Flow>(answer: &Answer<F>) -> Word {
    match answer {
        Ok(_) => "ok",
        Err(error) => error.as_str(),
    }
}

/// Runs a step on both, compares what they answer, and tells it.
async fn take(accounts: &TestAccounts, model: &mut Model, step: &Step) -> Outcome {
    let (found, expected) = match step.clone() {
        Step::Register { name, email, phone, password } => {
            register(accounts, model, name, [email, phone], password).await
        }
        Step::LogIn { identifier, password } => (
            word::<majordomo::Authenticate>(&log_in(accounts, identifier, password).await),
            model.log_in(identifier, password),
        ),
        Step::Resend { user, channel } => resend(accounts, model, user, channel).await,
        Step::Confirm { message } => confirm(accounts, model, message).await,
        Step::Rename { user, name } => {
            let user = model.chosen(user);
            let username = name.map_or(Change::Clear, |name| Change::Set(name.0.to_owned()));
            let update = Command::new(Update { username, ..Update::new(user) }).actor(Actor::Admin("ops".to_owned()));
            (word::<Update>(&accounts.update(update).await), model.rename(user, name))
        }
        Step::Add { user, address, password } => add(accounts, model, user, address, password).await,
        Step::Remove { user, contact, password } => remove(accounts, model, user, contact, password).await,
        Step::Disable { user } => {
            let user = model.chosen(user);
            (word::<Disable>(&accounts.disable(Disable { user }).await), model.set_active(user, false))
        }
        Step::Enable { user } => {
            let user = model.chosen(user);
            (word::<Enable>(&accounts.enable(Enable { user }).await), model.set_active(user, true))
        }
        Step::Delete { user } => {
            let user = model.chosen(user);
            (word::<Delete>(&accounts.delete(Delete::new(user)).await), model.delete(user))
        }
        Step::ChangePassword { user, current, new } => {
            let user = model.chosen(user);
            let (old, offered) = (Password::new(current), Password::new(new));
            let change = ChangePassword { user, current: old, new: offered, keep: None };
            (word::<ChangePassword>(&accounts.change_password(change).await), model.change_password(user, current, new))
        }
        Step::RequestReset { identifier, channel } => {
            let request = RequestPasswordReset { identifier: identifier.to_owned(), channel };
            let challenge = accounts.request_password_reset(request).await.map(|reply| reply.challenge);
            let names = NAMES.iter().map(|name| (name.0, name.1));
            let typed = names.chain(ADDRESSES.iter().map(|address| (address.0, address.1)));
            let canonical = typed.into_iter().find(|typed| typed.0 == identifier).unwrap().1;
            let question = format!("reset {} {canonical}", channel.as_str());
            let (found, again) = asked(model, question, challenge.map_err(|error| error.as_str()));
            (found, if again { "again" } else { model.request_reset(identifier, channel) })
        }
        Step::Reset { message, new } => reset(accounts, model, message, new).await,
        Step::Wait => {
            // Never so long that a code expires.
            if model.now < 8 * 61 {
                accounts.advance(Duration::from_secs(61));
                model.now += 61;
            }
            ("ok", "ok")
        }
        Step::Undo { change } => undo(accounts, model, change).await,
    };
    assert_eq!(found, expected, "{step:?}\n{model:#?}");
    (step.name(), found)
}

async fn register(
    accounts: &Accounts,
    model: &mut Model,
    name: Option<Name>,
    addresses: [Option<Address>; 2],
    password: Word,
) -> (Word, Word) {
    let typed = |address: Option<Address>| address.map(|address| address.0.to_owned());
    let request = Register {
        username: name.map(|name| name.0.to_owned()),
        email: typed(addresses[0]),
        phone: typed(addresses[1]),
        ..Register::new(password)
    };
    let answer = accounts.register(request).await;
    let addresses: Vec<_> = addresses.into_iter().flatten().collect();
    let expected = if name.is_none() && addresses.is_empty() {
        "identifier_required"
    } else if name.is_some_and(|name| model.holder(name).is_some()) {
        "username_taken"
    } else {
        "ok"
    };
    if let Ok(accepted) = &answer {
        let stored = accounts.user(accepted.user).unwrap().unwrap();
        let reach =
            |(id, address): (ContactId, &Address)| Reach { id, address: *address, proven: false, primary: false };
        let contacts: Vec<_> = stored.contacts.iter().map(|contact| contact.id).zip(&addresses).map(reach).collect();
        let pending = !addresses.is_empty();
        addresses.iter().for_each(|address| model.claimed(stored.id, *address));
        model.ever.push(stored.id);
        model.people.push(Person { id: stored.id, name, contacts, active: true, password, epoch: 1, pending });
    }
    (word::<Register>(&answer), expected)
}

impl Model {
    fn log_in(&self, identifier: Word, password: Word) -> Word {
        match self.named(identifier) {
            Some(person) if person.password == password && person.active => {
                if person.pending {
                    "email_not_verified"
                } else {
                    "ok"
                }
            }
            _ => "invalid_credentials",
        }
    }

    fn rename(&mut self, user: UserId, name: Option<Name>) -> Word {
        let taken = name.and_then(|name| self.holder(name)).is_some_and(|holder| holder != user);
        let Some(person) = self.person(user) else { return "user_not_found" };
        let verified = person.contacts.iter().any(|reach| reach.proven);
        if taken {
            "username_taken"
        } else if name.is_none() && person.name.is_some() && !verified {
            "username_required"
        } else if person.name == name {
            "nothing_to_do"
        } else {
            person.name = name;
            let first = self.first(user);
            self.due.extend(first.map(|told| (MessageKind::UsernameChanged, told.address.1.to_owned())));
            "ok"
        }
    }

    fn set_active(&mut self, user: UserId, active: bool) -> Word {
        let Some(person) = self.person(user) else { return "user_not_found" };
        if person.active == active {
            return "nothing_to_do";
        }
        person.active = active;
        if !active {
            self.end_epoch(user, None);
        }
        "ok"
    }

    fn delete(&mut self, user: UserId) -> Word {
        if self.person(user).is_none() {
            return "user_not_found";
        }
        self.people.retain(|person| person.id != user);
        self.changes.iter_mut().filter(|change| change.user == user).for_each(|change| change.reserves = false);
        "ok"
    }

    fn change_password(&mut self, user: UserId, current: Word, new: Word) -> Word {
        let Some(person) = self.person(user) else { return "user_not_found" };
        if person.password != current {
            return "incorrect_password";
        }
        if !person.active {
            return "user_inactive";
        }
        self.end_epoch(user, Some(new));
        "ok"
    }

    /// The caller is told the same whatever comes of it.
    fn request_reset(&mut self, identifier: Word, channel: Channel) -> Word {
        let Some(person) = self.named(identifier).filter(|person| person.active) else { return "ok" };
        let typed = ADDRESSES.iter().find(|address| address.0 == identifier && address.2 == channel);
        let mut contacts = person.contacts.iter().filter(|reach| reach.address.2 == channel && reach.proven);
        let asked = typed.and_then(|typed| contacts.clone().find(|reach| reach.address.1 == typed.1));
        if let Some(reach) = asked.or_else(|| contacts.find(|reach| reach.primary)) {
            let kind = match channel {
                Channel::Email => MessageKind::ResetPasswordEmail,
                Channel::Phone => MessageKind::ResetPasswordPhone,
            };
            let same = |sent: &Sent| matches!(sent.bound, Bound::Epoch(_)) && sent.channel == channel;
            if self.spends(format!("reset {}", reach.address.1)) {
                self.due.push((kind, reach.address.1.to_owned()));
                self.supersede(|sent| sent.user == person.id && same(sent));
            }
        }
        "ok"
    }

    /// What a proof of an address comes to, `already` if it had been proven by the same.
    fn confirm(&mut self, which: usize) -> Word {
        let Sent { user, address, channel, bound, standing, .. } = self.sent[which].clone();
        let other = self.kept_for(address).is_some_and(|holder| holder != user);
        let has_proven = |person: &Person| person.contacts.iter().any(|reach| reach.proven);
        let Some(person) = self.person(user).filter(|person| person.active && !other) else { return "invalid_token" };
        let first = !person.contacts.iter().any(|reach| reach.address.2 == channel && reach.primary);
        let contact = person.contacts.iter_mut().find(|reach| bound == Bound::Contact(reach.id));
        match (contact, standing) {
            (None, _) | (_, Standing::Superseded) => "invalid_token",
            (Some(reach), _) if reach.proven => {
                self.sent[which].standing = Standing::Used;
                "already"
            }
            (Some(_), Standing::Used) => "invalid_token",
            (Some(_), Standing::Open) => {
                if self.person(user).is_some_and(|person| has_proven(person)) {
                    self.note(user, None, false, MessageKind::ContactAdded);
                }
                let Some(person) = self.person(user) else { return "invalid_token" };
                person.pending = false;
                for reach in person.contacts.iter_mut().filter(|reach| bound == Bound::Contact(reach.id)) {
                    (reach.proven, reach.primary) = (true, first);
                }
                self.sent[which].standing = Standing::Used;
                self.supersede(|sent| sent.bound == bound);
                "ok"
            }
        }
    }

    fn reset(&mut self, which: usize, new: Word) -> Word {
        let Sent { user, address, bound, standing, .. } = self.sent[which].clone();
        let Some(person) = self.person(user) else { return "invalid_token" };
        let theirs = person.contacts.iter().any(|reach| reach.proven && reach.address.1 == address);
        if standing != Standing::Open || !theirs || bound != Bound::Epoch(person.epoch) || !person.active {
            return "invalid_token";
        }
        self.sent[which].standing = Standing::Used;
        self.end_epoch(user, Some(new));
        "ok"
    }

    fn undo(&mut self, which: usize) -> Word {
        let Undoable { user, told, before, standing, .. } = self.changes[which].clone();
        let Some(person) = self.person(user) else { return "invalid_token" };
        match standing {
            Standing::Used => return "already",
            Standing::Superseded => return "invalid_token",
            Standing::Open => {}
        }
        let active = person.active;
        for (place, change) in self.changes.iter_mut().enumerate().filter(|(_, change)| change.user == user) {
            if place > which && change.standing == Standing::Open {
                change.standing = Standing::Superseded;
            }
        }
        self.changes[which].standing = Standing::Used;
        self.end_epoch(user, None);
        self.supersede(|sent| sent.user == user);
        let Some(person) = self.person(user) else { return "invalid_token" };
        // No step offers this one.
        (person.contacts, person.password) = (before, "");
        let kind = match told.address.2 {
            Channel::Email => MessageKind::ResetPasswordEmail,
            Channel::Phone => MessageKind::ResetPasswordPhone,
        };
        self.due.extend(active.then(|| (kind, told.address.1.to_owned())));
        "ok"
    }

    /// What a user who shows a password is refused with.
    fn unauthorised(&mut self, user: UserId, password: Word) -> Option<Word> {
        match self.person(user) {
            None => Some("user_not_found"),
            Some(person) if !person.active => Some("user_inactive"),
            Some(person) if person.password != password => Some("not_authorised"),
            Some(_) => None,
        }
    }
}

/// Notes what a request for a message was answered; whether it has to be what the same one was answered before.
fn asked(model: &mut Model, question: String, challenge: Result<TokenId, Word>) -> (Word, bool) {
    let expected = model.answered(&question);
    let found = match challenge {
        Ok(challenge) if Some(challenge) == expected => "again",
        Ok(challenge) => {
            model.asked.retain(|asked| asked.0 != question);
            model.asked.push((question, model.now, challenge));
            "ok"
        }
        Err(reason) => reason,
    };
    (found, expected.is_some())
}

async fn resend(accounts: &Accounts, model: &mut Model, user: Index, channel: Channel) -> (Word, Word) {
    let user = model.chosen(user);
    let claimant = Claimant::User { user, contact: None };
    let challenge = match channel {
        Channel::Email => {
            let reply = accounts.request_email_verification(RequestEmailVerification { claimant }).await;
            reply.map(|reply| reply.challenge).map_err(|error| error.as_str())
        }
        Channel::Phone => {
            let reply = accounts.request_phone_verification(RequestPhoneVerification { claimant }).await;
            reply.map(|reply| reply.challenge).map_err(|error| error.as_str())
        }
    };
    let (found, again) = asked(model, format!("verify {} {user}", channel.as_str()), challenge);
    if again {
        return (found, "again");
    }
    let unproven = |reach: &&Reach| reach.address.2 == channel && !reach.proven;
    let person = model.person(user).cloned();
    let meant = person.as_ref().and_then(|person| person.contacts.iter().find(unproven).cloned());
    if let Some((person, reach)) = person.zip(meant) {
        let is_due = person.active && model.kept_for(reach.address.1).is_none_or(|holder| holder == person.id);
        let messages = model.due.len();
        if is_due {
            model.claimed(person.id, reach.address);
        }
        if !is_due || model.due.len() > messages {
            model.supersede(|sent| sent.bound == Bound::Contact(reach.id));
        }
    }
    (found, "ok")
}

async fn add(accounts: &Accounts, model: &mut Model, user: Index, address: Address, password: Word) -> (Word, Word) {
    let user = model.chosen(user);
    let claim = match address.2 {
        Channel::Email => ContactClaim::Email(address.0.to_owned()),
        Channel::Phone => ContactClaim::Phone(address.0.to_owned()),
    };
    let authority = Authority::Password(Password::new(password));
    let answer = accounts.add_contact(AddContact { user, address: claim, authority }).await;
    let has = |person: &mut Person| person.contacts.iter().any(|reach| reach.address.1 == address.1);
    let expected = match model.unauthorised(user, password) {
        Some(refused) => refused,
        None if model.person(user).is_some_and(has) => "contact_exists",
        None => "ok",
    };
    if let Ok(claimed) = &answer {
        model.claimed(user, address);
        let reach = Reach { id: claimed.contact, address, proven: false, primary: false };
        model.person(user).unwrap().contacts.push(reach);
    }
    (word::<AddContact>(&answer), expected)
}

async fn remove(accounts: &Accounts, model: &mut Model, user: Index, contact: Index, password: Word) -> (Word, Word) {
    let user = model.chosen(user);
    let contacts = model.person(user).map(|person| person.contacts.clone()).unwrap_or_default();
    let chosen = (!contacts.is_empty()).then(|| contact.get(&contacts).clone());
    let id = chosen.as_ref().map_or_else(ContactId::new, |reach| reach.id);
    let authority = Authority::Password(Password::new(password));
    let answer = accounts.remove_contact(RemoveContact { user, contact: id, authority }).await;
    let found = word::<RemoveContact>(&answer);
    if let Some(refused) = model.unauthorised(user, password) {
        return (found, refused);
    }
    let Some(gone) = chosen else { return (found, "contact_not_found") };
    let person = model.person(user).unwrap();
    let left = |reach: &&Reach| reach.id != gone.id && (reach.proven || !gone.proven);
    if !(person.name.is_some() && !person.pending || person.contacts.iter().any(|reach| left(&reach))) {
        return (found, "last_identifier");
    }
    if gone.proven {
        model.note(user, Some(gone.clone()), true, MessageKind::ContactRemoved);
    }
    let person = model.person(user).unwrap();
    person.contacts.retain(|reach| reach.id != gone.id);
    let heir = person.contacts.iter_mut().find(|reach| reach.proven && reach.address.2 == gone.address.2);
    if let Some(heir) = heir.filter(|_| gone.primary) {
        heir.primary = true;
    }
    let reset = |sent: &Sent| matches!(sent.bound, Bound::Epoch(_)) && sent.address == gone.address.1;
    model.supersede(|sent| sent.user == user && (sent.bound == Bound::Contact(gone.id) || reset(sent)));
    (found, "ok")
}

/// The places of the messages that prove an address, or of those that reset a password.
fn places(model: &Model, verifying: bool) -> Vec<usize> {
    let of_kind = |sent: &Sent| matches!(sent.bound, Bound::Contact(_)) == verifying;
    (0..model.sent.len()).filter(|place| of_kind(&model.sent[*place])).collect()
}

async fn confirm(accounts: &Accounts, model: &mut Model, message: Index) -> (Word, Word) {
    let places = places(model, true);
    if places.is_empty() {
        return ("ok", "ok");
    }
    let which = *message.get(&places);
    let (proof, channel) = (model.sent[which].proof.clone(), model.sent[which].channel);
    let confirmed = match channel {
        Channel::Email => accounts.confirm_email(ConfirmEmail { proof }).await.map_err(|error| error.as_str()),
        Channel::Phone => accounts.confirm_phone(ConfirmPhone { proof }).await.map_err(|error| error.as_str()),
    };
    let found = match confirmed {
        Ok(confirmed) if confirmed.already => "already",
        Ok(_) => "ok",
        Err(reason) => reason,
    };
    (found, model.confirm(which))
}

async fn reset(accounts: &Accounts, model: &mut Model, message: Index, new: Word) -> (Word, Word) {
    let places = places(model, false);
    if places.is_empty() {
        return ("ok", "ok");
    }
    let which = *message.get(&places);
    let command = ResetPassword { proof: model.sent[which].proof.clone(), new: Password::new(new) };
    (word::<ResetPassword>(&accounts.reset_password(command).await), model.reset(which, new))
}

async fn undo(accounts: &Accounts, model: &mut Model, change: Index) -> (Word, Word) {
    if model.changes.is_empty() {
        return ("ok", "ok");
    }
    let which = change.index(model.changes.len());
    let proof = model.changes[which].proof.clone().expect("a notice with a link");
    let found = match accounts.undo_change(UndoChange { proof }).await {
        Ok(undone) if undone.already => "already",
        Ok(_) => "ok",
        Err(error) => error.as_str(),
    };
    (found, model.undo(which))
}

/// Takes the messages that a step sent, compares them with what is due, and keeps the proofs that they bear.
fn collect(test: &TestAccounts, model: &mut Model) {
    let recorded = test.recorded();
    let messages = test.messages().take();
    let mut sent: Vec<_> = messages.iter().map(|message| (message.kind, message.to.to_lowercase())).collect();
    let mut due = std::mem::take(&mut model.due);
    sent.sort_by_key(|message| format!("{message:?}"));
    due.sort_by_key(|message| format!("{message:?}"));
    assert_eq!(sent, due, "{model:#?}");
    for message in &messages {
        let signal = &recorded.iter().find(|envelope| envelope.id == message.id).unwrap().signal;
        let (user, token, verifies) = match signal {
            Signal::VerifyEmail { user, token, .. } | Signal::VerifyPhone { user, token, .. } => (*user, *token, true),
            Signal::ResetPasswordEmail { user, token, .. } | Signal::ResetPasswordPhone { user, token, .. } => {
                (*user, *token, false)
            }
            _ => {
                if let Some(change) = model.changes.iter_mut().find(|change| change.proof.is_none()) {
                    change.proof = message.link().and_then(Proof::from_link);
                }
                continue;
            }
        };
        let canonical = message.to.to_lowercase();
        let address = ADDRESSES.iter().find(|address| address.1 == canonical).unwrap().1;
        let person = model.person(user).unwrap();
        let contact = person.contacts.iter().find(|reach| reach.address.1 == address).unwrap().id;
        let bound = if verifies { Bound::Contact(contact) } else { Bound::Epoch(person.epoch) };
        let proof = match message.channel {
            Channel::Email => Proof::from_link(message.link().unwrap()).unwrap(),
            Channel::Phone => Proof::Code { challenge: token, code: OneTimeCode::new(message.code().unwrap()) },
        };
        let (channel, standing) = (message.channel, Standing::Open);
        model.sent.push(Sent { user, address, channel, proof, bound, standing });
    }
}

/// Compares what the store holds with what it must hold: who is there, who owns what, who can log in.
async fn compare(test: &TestAccounts, model: &Model) {
    let users = test.users(None, 1_000).await.unwrap();
    assert_eq!(users.len(), model.people.len(), "{model:#?}");
    for (user, person) in users.iter().zip(&model.people) {
        assert_eq!(user.id, person.id);
        assert_eq!(user.username.as_ref().map(majordomo::Username::original), person.name.map(|name| name.0));
        assert_eq!(user.status == UserStatus::Active, person.active);
        let stored = user
            .contacts
            .iter()
            .map(|contact| (contact.id, contact.address.canonical(), contact.proven_at.is_some(), contact.primary));
        let known = person.contacts.iter().map(|reach| (reach.id, reach.address.1, reach.proven, reach.primary));
        assert_eq!(stored.collect::<Vec<_>>(), known.collect::<Vec<_>>(), "{model:#?}");
    }
    for typed in NAMES.iter().map(|name| name.0).chain(ADDRESSES.iter().map(|address| address.0)) {
        let found = test.find_user(typed).unwrap().map(|user| user.id);
        assert_eq!(found, model.named(typed).map(|person| person.id), "{typed}\n{model:#?}");
        // What names nobody lets nobody in, whatever the password.
        for password in PASSWORDS.into_iter().take(if found.is_some() { 3 } else { 1 }) {
            let answer = log_in(test, typed, password).await;
            let expected = model.log_in(typed, password);
            assert_eq!(word::<majordomo::Authenticate>(&answer), expected, "{typed}\n{model:#?}");
        }
    }
}

async fn run(steps: &[Step]) -> Vec<Outcome> {
    let test = TestAccounts::configured(|config| {
        config.policy.messages.per_hour = u32::try_from(BUDGET).ok();
        config.policy.limits = majordomo::Limits::none();
        config.policy.messages.texts = majordomo::TextLimits::none();
    })
    .await;
    let mut model = Model::default();
    let mut outcomes = Vec::new();
    for step in steps {
        outcomes.push(take(&test, &mut model, step).await);
        outcomes.extend(model.over_budget.then_some(("message", "over_budget")));
        test.drain().await;
        collect(&test, &mut model);
    }
    compare(&test, &model).await;
    assert_laws(&test);
    test.shutdown().await;
    outcomes
}

#[test]
fn random_commands_come_to_what_a_simple_model_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let seen = RefCell::new(BTreeSet::new());
    let outcome = runner.run(&steps(), |steps| {
        let bounded = async { tokio::time::timeout(PATIENCE, run(&steps)).await.unwrap() };
        seen.borrow_mut().extend(runtime.block_on(bounded));
        Ok(())
    });
    outcome.unwrap();
    let missing: Vec<_> = OUTCOMES.into_iter().filter(|outcome| !seen.borrow().contains(outcome)).collect();
    assert_eq!(missing, [], "never came up");
}
