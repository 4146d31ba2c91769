//! Register: a person becomes a user.

use majordomo_model::{
    Accepted, Channel, Contact, Error, Failure, LimitedAction, PasswordCause, Personal, Profile, Register,
    RegisterReason, Signal, Timestamp, UserStatus, Username,
};

use super::common_budget::Due;
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, Told, recall, remember};
use super::message_budget::Destination;
use super::newcomer::{Facts, Fresh, Names, Typed, Unfit, address_key, take_username, unfit_reason};
use super::policy::{Policy, Registration, password_failure, password_reason, personal_address, personal_username};
use super::throttle::{Counted, Reservation};
use crate::bytes::Bytes;
use crate::guard::{Amendment, Proposal};
use crate::hasher::{HashError, Place};
use crate::stamp::SealKey;
use crate::storage::{Check, ContactRow, CredentialRow, UserRow, UsernameRow, Write};

/// What was asked for, found acceptable.
struct Request {
    username: Option<Username>,
    addresses: Vec<Contact>,
    /// Where what bounds the messages to each address is kept.
    destinations: Vec<Destination>,
    profile: Profile,
    phc: String,
}

/// Why a request is not acceptable as it stands, with the fields concerned.
struct Unacceptable {
    reason: RegisterReason,
    failure: Failure,
    fields: Vec<&'static str>,
}

impl From<Unfit> for Unacceptable {
    fn from(unfit: Unfit) -> Self {
        let reason = unfit_reason!(RegisterReason, unfit);
        Self { reason, failure: unfit.failure(), fields: vec![unfit.field().name()] }
    }
}

fn names(message: &Register) -> Names<'_> {
    Names { username: message.username.as_deref(), email: message.email.as_deref(), phone: message.phone.as_deref() }
}

/// The end of a registration that is refused.
fn refusal(typed: &Typed, reason: RegisterReason, failure: Failure, fields: &[&str]) -> Decision<Register> {
    Decision::refuse(reason, typed.failed(failure, fields))
}

impl Typed {
    fn failed(&self, reason: Failure, fields: &[&str]) -> Signal {
        let Self { username, email, phone } = self.clone();
        let fields = fields.iter().map(|&field| field.to_owned()).collect();
        Signal::UserRegistrationFailed { username, email, phone, error_type: reason.error_type(), reason, fields }
    }

    fn pre_register(&self) -> Signal {
        let Self { username, email, phone } = self.clone();
        Signal::UserPreRegister { username, email, phone }
    }
}

/// Facts in, batch out.
fn decide(
    request: &Request,
    typed: &Typed,
    fresh: &Fresh,
    facts: &Facts,
    terms: (&Policy, &Amendment),
) -> Decision<Register> {
    let (policy, amendment) = terms;
    if facts.username_owner.or(facts.skeleton_owner).is_some() {
        return refusal(typed, RegisterReason::UsernameTaken, Failure::UsernameTaken, &["username"]);
    }
    let taken = request.addresses.iter().zip(&facts.holders).find(|(_, holder)| holder.is_some());
    if let Some((address, _)) = taken.filter(|_| policy.registration == Registration::Open) {
        return match address.channel() {
            Channel::Email => refusal(typed, RegisterReason::EmailTaken, Failure::EmailTaken, &["email"]),
            Channel::Phone => refusal(typed, RegisterReason::PhoneTaken, Failure::PhoneTaken, &["phone"]),
        };
    }
    let user = user_row(request, fresh, policy, amendment, facts.now);
    let mut told = vec![Told::from(typed.pre_register())];
    told.push(
        Signal::UserPasswordSet { user: user.id, cause: PasswordCause::Registration, scheme: "argon2id".to_owned() }
            .into(),
    );
    let (mut checks, mut writes) = writes(request, &user, facts);
    let mut challenges = [None, None];
    let mut free = Vec::new();
    let claims = request.addresses.iter().zip(&user.contacts).zip(fresh.contacts);
    for (((address, contact), (_, drawn)), (holder, messages)) in claims.zip(facts.holders.iter().zip(&facts.messages))
    {
        let personal = personal_address(address);
        let token = drawn.verification(user.id, contact, facts.now, policy);
        checks.push(Check::Holder(address_key(address), *holder, facts.now));
        let allowance = messages.spend(Due::claim(holder.is_some()), facts.now, &policy.messages);
        let (token, claim) = allowance.claim(user.id, *holder, token, &personal, None);
        told.extend(claim);
        free.extend(holder.is_none().then_some(personal));
        if let Some(challenge) = challenges.get_mut(usize::from(address.channel() == Channel::Phone)) {
            *challenge = Some(token.id);
        }
        writes.push(Write::PutToken(Box::new(token)));
        allowance.enter(&mut checks, &mut writes);
    }
    let [email_challenge, phone_challenge] = challenges;
    let end = end(typed, &user, request, free);
    let answer = Ok(Accepted { user: user.id, email_challenge, phone_challenge });
    let subject = Some((user.id, SealKey(fresh.seal_key)));
    Decision { checks, writes, told, end, subject, answer }
}

/// The truth about how it ended: a user whose every address belongs to somebody else can never be more than a shadow.
fn end(typed: &Typed, user: &UserRow, request: &Request, free: Vec<Personal>) -> Signal {
    if free.is_empty()
        && let Some(taken) = request.addresses.first()
    {
        return match taken.channel() {
            Channel::Email => typed.failed(Failure::EmailTaken, &["email"]),
            Channel::Phone => typed.failed(Failure::PhoneTaken, &["phone"]),
        };
    }
    Signal::UserRegistered {
        user: user.id,
        username: user.username.as_ref().map(personal_username),
        addresses: free,
        groups: user.groups.iter().cloned().collect(),
    }
}

fn user_row(request: &Request, fresh: &Fresh, policy: &Policy, amendment: &Amendment, now: Timestamp) -> UserRow {
    let contacts = request.addresses.iter().zip(fresh.contacts);
    let contacts = contacts.map(|(address, (id, _))| ContactRow::claim(id, address, now));
    UserRow {
        id: fresh.user,
        version: 1,
        created_at: now,
        status: UserStatus::Active,
        username: request.username.as_ref().map(UsernameRow::from),
        contacts: contacts.collect(),
        profile: amendment.profile(&request.profile),
        groups: amendment.groups(&policy.default_groups),
        epoch: 1,
        verify_by: (policy.must_verify && !request.addresses.is_empty()).then(|| now.plus(policy.unverified_lifetime)),
        seal_key: Bytes(fresh.seal_key),
    }
}

fn writes(request: &Request, user: &UserRow, facts: &Facts) -> (Vec<Check>, Vec<Write>) {
    let mut checks = Vec::new();
    let mut writes = vec![
        Write::PutUser(Box::new(user.clone())),
        Write::PutCredential(user.id, CredentialRow::new(request.phc.clone(), 1, facts.now)),
    ];
    take_username(user, &mut checks, &mut writes);
    for contact in &user.contacts {
        writes.push(Write::PutClaim(contact.channel, contact.canonical.clone(), user.id));
    }
    writes.extend(user.verify_by.map(|at| Write::ExpectVerification(user.id, at)));
    (checks, writes)
}

impl Perform for Register {
    fn started(&self, services: &Services) -> Signal {
        let Typed { username, email, phone } = names(self).typed(&services.keys);
        Signal::UserRegistrationStarted { username, email, phone }
    }

    fn admit(services: &Services, _: Option<&Reservation>) -> Result<Option<Place>, Error<RegisterReason>> {
        // What is left of a disk that runs full is for those who are users already.
        if !services.storage.has_room() {
            return Err(services.refused_without_storage());
        }
        services.placed(services.hasher.keep_place_for_new_hash())
    }

    fn failed(&self, services: &Services, why: Failure) -> Signal {
        names(self).typed(&services.keys).failed(why, &[])
    }

    fn proposal(&self, decision: &Decision<Self>) -> Option<Proposal> {
        let user = decision.user_after()?.view(None);
        let (mut email, mut phone) = (None, None);
        for contact in user.contacts {
            match contact.address {
                Contact::Email(address) => email = Some(address),
                Contact::Phone(number) => phone = Some(number),
            }
        }
        let (username, profile, groups) = (user.username, Box::new(user.profile), user.groups);
        Some(Proposal::Register { username, email, phone, profile, groups })
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        vec![Counted::of(LimitedAction::Register)]
    }

    fn counts(_action: LimitedAction, answer: &Answer<Self>) -> bool {
        use RegisterReason::{EmailTaken, PhoneTaken, UsernameTaken};

        matches!(answer, Ok(_) | Err(Error::Refused(UsernameTaken | EmailTaken | PhoneTaken)))
    }

    fn is_discreet(answer: &Answer<Self>) -> bool {
        answer.is_ok()
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let (services, typed) = (run.services, names(self).typed(&run.services.keys));
        let prepared = match acceptable(self, &services.policy) {
            Ok(prepared) => prepared,
            Err(fault) => {
                return run.settle(|_, _| Ok(refusal(&typed, fault.reason, fault.failure, &fault.fields))).await;
            }
        };
        let ((username, addresses), password) = prepared;
        // Asked before the store is, so that it makes no difference whose an address is.
        if run.is_breached(&password).await {
            let (reason, failure) = (RegisterReason::PasswordBreached, Failure::PasswordBreached);
            return run.settle(|_, _| Ok(refusal(&typed, reason, failure, &["password"]))).await;
        }
        let phc = match run.hash(password).await {
            Ok(phc) => phc.into_string(),
            Err(error) => return run.settle(|_, _| Ok(hashing_failed(&typed, error))).await,
        };
        let to = |address: &Contact| Destination::of(&services.keys, address.channel(), address.canonical());
        let destinations = addresses.iter().map(to).collect();
        let request = Request { username, addresses, destinations, profile: self.profile.clone(), phc };
        let fresh = Fresh::draw(services.tokens.current_key())?;
        run.settle_amended(|view, now, amendment| {
            let addresses = request.addresses.iter().zip(&request.destinations);
            let facts = Facts::read(view, request.username.as_ref(), addresses, now)?;
            Ok(decide(&request, &typed, &fresh, &facts, (&services.policy, amendment)))
        })
        .await
    }

    fn remember(answer: &Result<Accepted, RegisterReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Accepted, RegisterReason>> {
        recall(remembered)
    }
}

type Acceptable = ((Option<Username>, Vec<Contact>), zeroize::Zeroizing<Vec<u8>>);

/// Everything that can be judged without the store.
fn acceptable(message: &Register, policy: &Policy) -> Result<Acceptable, Unacceptable> {
    let (username, addresses) = names(message).accept(policy)?;
    let faults = message.profile.faults();
    if !faults.is_empty() {
        let (reason, failure) = (RegisterReason::ProfileInvalid, Failure::ProfileInvalid);
        return Err(Unacceptable { reason, failure, fields: faults });
    }
    let names = username.iter().map(Username::canonical).chain(addresses.iter().map(Contact::canonical));
    let names: Vec<_> = names.collect();
    let password = policy.check_password(&message.password, &names).map_err(|problem| Unacceptable {
        reason: password_reason!(RegisterReason, problem),
        failure: password_failure(problem),
        fields: vec!["password"],
    })?;
    Ok(((username, addresses), zeroize::Zeroizing::new(password.as_bytes().to_vec())))
}

fn hashing_failed(typed: &Typed, error: HashError) -> Decision<Register> {
    let fault = Fault::from(error);
    Decision {
        checks: Vec::new(),
        writes: Vec::new(),
        told: vec![Signal::UserPasswordSetFailed { user: None, reason: fault.failure() }.into()],
        end: typed.failed(fault.failure(), &["password"]),
        subject: None,
        answer: Err(fault.error()),
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{Email, Error, Phone, SignalKind, UserId};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, PASSWORD, assert_one_end};
    use super::super::message_budget::cases::budget;
    use super::*;
    use crate::keys::Keyring;
    use crate::token::Tokens;

    #[tokio::test]
    async fn a_registration_tells_its_story_in_one_commit() {
        let fixture = Fixture::new().await;
        let accepted = fixture.register("Ada", Some("Ada@Example.com"), Some("+447911123456")).await;
        assert_eq!(fixture.services.storage.observe().batches, 1);
        assert_eq!(
            fixture.kinds_after(0),
            [
                SignalKind::UserRegistrationStarted,
                SignalKind::UserPreRegister,
                SignalKind::UserPasswordSet,
                SignalKind::UserEmailVerificationTokenGenerated,
                SignalKind::VerifyEmail,
                SignalKind::UserPhoneVerificationTokenGenerated,
                SignalKind::VerifyPhone,
                SignalKind::UserRegistered,
            ]
        );
        let signals = fixture.signals();
        let due = &signals[4];
        assert!(due.flow != signals[0].flow && due.cause == Some(signals[0].flow));
        let Signal::VerifyEmail { user, address, token } = &due.signal else { panic!("{due:?}") };
        assert_eq!(
            (*user, Some(*token), address.expose()),
            (accepted.user, accepted.email_challenge, Some("ada@example.com"))
        );
    }

    #[tokio::test]
    async fn lookalike_usernames_cannot_stand_side_by_side() {
        let fixture = Fixture::new().await;
        fixture.register("paypal", None, None).await;
        for name in ["paypal", "PayPal", "p\u{430}ypal"] {
            let request = Register { username: Some(name.to_owned()), ..Register::new(PASSWORD) };
            let refused = fixture.run(request).await;
            assert_eq!(refused.unwrap_err(), Error::Refused(RegisterReason::UsernameTaken), "{name}");
        }
    }

    #[tokio::test]
    async fn what_is_not_acceptable_is_refused_by_name_and_hashes_nothing() {
        let fixture = Fixture::new().await;
        let named = |name: &str| Register { username: Some(name.to_owned()), ..Register::new(PASSWORD) };
        for (request, reason) in [
            (Register::new(PASSWORD), RegisterReason::IdentifierRequired),
            (named("a b"), RegisterReason::UsernameInvalid),
            (Register { email: Some("no".into()), ..named("ada") }, RegisterReason::EmailInvalid),
            (Register { phone: Some("112".into()), ..named("ada") }, RegisterReason::PhoneInvalid),
            (Register { username: Some("ada".into()), ..Register::new("short") }, RegisterReason::PasswordTooShort),
            (
                Register { username: Some("ada".into()), ..Register::new("x".repeat(1025)) },
                RegisterReason::PasswordTooLong,
            ),
        ] {
            let head = fixture.head();
            assert_eq!(fixture.run(request).await.unwrap_err(), Error::Refused(reason));
            let kinds = fixture.kinds_after(head);
            assert_eq!(kinds, [SignalKind::UserRegistrationStarted, SignalKind::UserRegistrationFailed]);
        }
        assert_eq!(fixture.services.hasher.observe().jobs_done, 0);
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once_and_makes_a_user_only_of_a_free_name(
            (named, name_taken, skeleton_taken) in any::<(bool, bool, bool)>(),
            email in prop::option::of(any::<bool>()),
            phone in prop::option::of(any::<bool>()),
            (open, must_verify) in any::<(bool, bool)>(),
            messages in prop::collection::vec(budget(NOW), 2),
        ) {
            let registration = if open { Registration::Open } else { Registration::Discreet };
            let policy = Policy { registration, must_verify, ..Policy::default() };
            let keys = Keyring::ephemeral().unwrap();
            let email = email.map(|taken| (Contact::from(Email::parse("ada@example.com").unwrap()), taken));
            let phone = phone.map(|taken| (Contact::from(Phone::parse("+447911123456").unwrap()), taken));
            let (addresses, taken): (Vec<_>, Vec<_>) = email.into_iter().chain(phone).unzip();
            let owner = |taken: bool| taken.then(UserId::new);
            let facts = Facts {
                username_owner: owner(named && name_taken),
                skeleton_owner: owner(named && skeleton_taken),
                holders: taken.iter().map(|&taken| owner(taken)).collect(),
                messages,
                now: NOW,
            };
            let request = Request {
                username: named.then(|| Username::parse("ada").unwrap()),
                addresses,
                destinations: Vec::new(),
                profile: Profile::default(),
                phc: "phc".to_owned(),
            };
            let shown = Some(super::super::policy::typed(&keys, "ada"));
            let typed = Typed { username: shown.clone(), email: shown.clone(), phone: shown };
            let fresh = Fresh::draw(Tokens::new(keys).current_key()).unwrap();
            let decision = decide(&request, &typed, &fresh, &facts, (&policy, &Amendment::new()));
            assert_one_end(&decision);
            let refused = named && (name_taken || skeleton_taken) || open && taken.contains(&true);
            prop_assert_eq!(decision.answer.is_err(), refused);
            let made = decision.writes.iter().any(|write| matches!(write, Write::PutUser(_)));
            prop_assert_eq!(made, !refused);
            // Whoever claims nothing but what others have proven is answered as anybody, and told as the failure it is.
            let shadow = !taken.is_empty() && !taken.contains(&false);
            prop_assert_eq!(decision.end.kind() == SignalKind::UserRegistered, !refused && !shadow);
        }
    }
}
