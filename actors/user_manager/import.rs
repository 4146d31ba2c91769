//! Import: a user of another system comes with the password hash that is stored there.

use std::collections::BTreeSet;

use majordomo_model::{
    Accepted, Channel, Contact, Error, Failure, Import, ImportReason, ImportedAddress, PasswordCause, Personal,
    Profile, ProofMethod, Signal, Timestamp, TokenId, UserId, UserStatus, Username, is_fit_name,
};

use super::common_budget::Due;
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, Told, recall, remember};
use super::message_budget::Destination;
use super::newcomer::{Facts, Field, Fresh, Names, Typed, Unfit, address_key, take_username, unfit_reason};
use super::policy::{GROUPS_LIMIT, Policy, personal_address, personal_username};
use super::throttle::Reservation;
use crate::bytes::Bytes;
use crate::hasher::{HashProblem, Hasher, Place, TakenIn};
use crate::keys::Keyring;
use crate::stamp::SealKey;
use crate::storage::{Check, ContactRow, CredentialRow, UserRow, UsernameRow, Write};

/// What was asked for, found acceptable.
struct Request {
    username: Option<Username>,
    addresses: Vec<Claim>,
    profile: Profile,
    groups: BTreeSet<String>,
    hash: TakenIn,
}

/// An address that comes with the user.
struct Claim {
    address: Contact,
    /// Whether the app vouches for it.
    is_proven: bool,
    /// Where what bounds the messages to it is kept.
    destination: Destination,
}

/// Why an import is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unacceptable {
    Names(Unfit),
    Hash(HashProblem),
    Profile(Vec<&'static str>),
    Groups,
}

impl Unacceptable {
    const fn reason(&self) -> ImportReason {
        match self {
            Self::Names(unfit) => unfit_reason!(ImportReason, *unfit),
            Self::Hash(HashProblem::Unrecognised) => ImportReason::HashUnrecognised,
            Self::Hash(HashProblem::TooDear) => ImportReason::HashTooDear,
            Self::Hash(HashProblem::NotBuiltIn) => ImportReason::HashNotBuiltIn,
            Self::Profile(_) => ImportReason::ProfileInvalid,
            Self::Groups => ImportReason::GroupInvalid,
        }
    }

    const fn failure(&self) -> Failure {
        match self {
            Self::Names(unfit) => unfit.failure(),
            Self::Hash(HashProblem::Unrecognised) => Failure::HashUnrecognised,
            Self::Hash(HashProblem::TooDear) => Failure::HashTooDear,
            Self::Hash(HashProblem::NotBuiltIn) => Failure::HashNotBuiltIn,
            Self::Profile(_) => Failure::ProfileInvalid,
            Self::Groups => Failure::GroupInvalid,
        }
    }

    fn fields(&self) -> Vec<&'static str> {
        match self {
            Self::Names(unfit) => vec![unfit.field().name()],
            Self::Hash(_) => vec!["hash"],
            Self::Profile(fields) => fields.clone(),
            Self::Groups => vec!["groups"],
        }
    }

    fn refusal(&self, typed: &Typed) -> Decision<Import> {
        Decision::refuse(self.reason(), failed(typed, self.failure(), &self.fields()))
    }
}

fn failed(typed: &Typed, reason: Failure, fields: &[&str]) -> Signal {
    let Typed { username, email, phone } = typed.clone();
    let fields = fields.iter().map(|&field| field.to_owned()).collect();
    Signal::UserImportFailed { username, email, phone, error_type: reason.error_type(), reason, fields }
}

fn names(message: &Import) -> Names<'_> {
    Names {
        username: message.username.as_deref(),
        email: message.email.as_ref().map(ImportedAddress::text),
        phone: message.phone.as_ref().map(ImportedAddress::text),
    }
}

/// Everything that can be judged without the store.
fn acceptable(message: &Import, policy: &Policy, hasher: &Hasher, keys: &Keyring) -> Result<Request, Unacceptable> {
    let (username, addresses) = names(message).accept(policy).map_err(Unacceptable::Names)?;
    let faults = message.profile.faults();
    if !faults.is_empty() {
        return Err(Unacceptable::Profile(faults));
    }
    let groups = message.groups.as_ref().unwrap_or(&policy.default_groups).clone();
    if groups.len() > GROUPS_LIMIT || !groups.iter().all(|name| is_fit_name(name)) {
        return Err(Unacceptable::Groups);
    }
    let hash = hasher.take_in(message.hash.expose()).map_err(Unacceptable::Hash)?;
    let claim = |address: Contact| Claim {
        is_proven: message.address(address.channel()).is_some_and(ImportedAddress::is_proven),
        destination: Destination::of(keys, address.channel(), address.canonical()),
        address,
    };
    let addresses = addresses.into_iter().map(claim).collect();
    Ok(Request { username, addresses, profile: message.profile.clone(), groups, hash })
}

/// Facts in, batch out.
fn decide(request: &Request, typed: &Typed, fresh: &Fresh, facts: &Facts, policy: &Policy) -> Decision<Import> {
    if let Some(unfit) = taken(request, facts) {
        return Unacceptable::Names(unfit).refusal(typed);
    }
    let user = user_row(request, fresh, policy, facts.now);
    let scheme = request.hash.scheme.to_owned();
    let mut told = vec![Told::from(Signal::UserPasswordSet { user: user.id, cause: PasswordCause::Import, scheme })];
    let credential = CredentialRow::new(request.hash.text.as_str(), 1, facts.now);
    let mut checks = Vec::new();
    let mut writes = vec![Write::PutUser(Box::new(user.clone())), Write::PutCredential(user.id, credential)];
    take_username(&user, &mut checks, &mut writes);
    writes.extend(user.verify_by.map(|at| Write::ExpectVerification(user.id, at)));
    let (mut email_challenge, mut phone_challenge) = (None, None);
    let claims = request.addresses.iter().zip(&user.contacts).zip(fresh.contacts);
    for (((claim, contact), (_, drawn)), messages) in claims.zip(&facts.messages) {
        let key = address_key(&claim.address);
        checks.push(Check::Holder(key.clone(), None, facts.now));
        let personal = personal_address(&claim.address);
        if claim.is_proven {
            writes.push(Write::PutOwner(key, user.id));
            told.push(vouched_for(user.id, contact.channel, personal).into());
            continue;
        }
        writes.push(Write::PutClaim(contact.channel, contact.canonical.clone(), user.id));
        let token = drawn.verification(user.id, contact, facts.now, policy);
        let allowance = messages.spend(Due::Proof, facts.now, &policy.messages);
        let (token, verification) = allowance.verify(user.id, token, &personal, None);
        told.extend(verification);
        *challenge(&mut email_challenge, &mut phone_challenge, contact.channel) = Some(token.id);
        writes.push(Write::PutToken(Box::new(token)));
        allowance.enter(&mut checks, &mut writes);
    }
    let end = Signal::UserImported {
        user: user.id,
        username: user.username.as_ref().map(personal_username),
        addresses: request.addresses.iter().map(|claim| personal_address(&claim.address)).collect(),
        groups: user.groups.iter().cloned().collect(),
    };
    let answer = Ok(Accepted { user: user.id, email_challenge, phone_challenge });
    Decision { checks, writes, told, end, subject: Some((user.id, SealKey(fresh.seal_key))), answer }
}

/// What of the request belongs to somebody else. An operator is told, in discreet mode too.
fn taken(request: &Request, facts: &Facts) -> Option<Unfit> {
    if facts.username_owner.or(facts.skeleton_owner).is_some() {
        return Some(Unfit::Taken(Field::Username));
    }
    let held = request.addresses.iter().zip(&facts.holders).find(|(_, holder)| holder.is_some());
    held.map(|(claim, _)| Unfit::Taken(claim.address.channel().into()))
}

const fn challenge<'a>(
    email: &'a mut Option<TokenId>,
    phone: &'a mut Option<TokenId>,
    channel: Channel,
) -> &'a mut Option<TokenId> {
    match channel {
        Channel::Email => email,
        Channel::Phone => phone,
    }
}

fn vouched_for(user: UserId, channel: Channel, address: Personal) -> Signal {
    let (via, undo) = (ProofMethod::Admin, None);
    match channel {
        Channel::Email => Signal::UserEmailVerified { user, address, via, undo },
        Channel::Phone => Signal::UserPhoneVerified { user, address, via, undo },
    }
}

fn user_row(request: &Request, fresh: &Fresh, policy: &Policy, now: Timestamp) -> UserRow {
    let contacts = request.addresses.iter().zip(fresh.contacts).map(|(claim, (id, _))| ContactRow {
        proven_at: claim.is_proven.then_some(now),
        primary: claim.is_proven,
        ..ContactRow::claim(id, &claim.address, now)
    });
    let is_unproven = !request.addresses.is_empty() && !request.addresses.iter().any(|claim| claim.is_proven);
    UserRow {
        id: fresh.user,
        version: 1,
        created_at: now,
        status: UserStatus::Active,
        username: request.username.as_ref().map(UsernameRow::from),
        contacts: contacts.collect(),
        profile: request.profile.clone(),
        groups: request.groups.clone(),
        epoch: 1,
        verify_by: (policy.must_verify && is_unproven).then(|| now.plus(policy.unverified_lifetime)),
        seal_key: Bytes(fresh.seal_key),
    }
}

impl Perform for Import {
    fn started(&self, services: &Services) -> Signal {
        let Typed { username, email, phone } = names(self).typed(&services.keys);
        Signal::UserImportStarted { username, email, phone }
    }

    /// It needs no place at the hasher: the hash exists.
    fn admit(services: &Services, _: Option<&Reservation>) -> Result<Option<Place>, Error<ImportReason>> {
        // What is left of a disk that runs full is for those who are users already.
        if services.storage.has_room() { Ok(None) } else { Err(services.refused_without_storage()) }
    }

    fn failed(&self, services: &Services, why: Failure) -> Signal {
        failed(&names(self).typed(&services.keys), why, &[])
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let services = run.services;
        let typed = names(self).typed(&services.keys);
        let request = match acceptable(self, &services.policy, &services.hasher, &services.keys) {
            Ok(request) => request,
            Err(fault) => return run.settle(|_, _| Ok(fault.refusal(&typed))).await,
        };
        let fresh = Fresh::draw(services.tokens.current_key())?;
        run.settle(|view, now| {
            let addresses = request.addresses.iter().map(|claim| (&claim.address, &claim.destination));
            let facts = Facts::read(view, request.username.as_ref(), addresses, now)?;
            Ok(decide(&request, &typed, &fresh, &facts, &services.policy))
        })
        .await
    }

    fn remember(answer: &Result<Accepted, ImportReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Accepted, ImportReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{Command, CommandId, Email, Phone, SignalKind};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, assert_one_end};
    use super::super::message_budget::cases::budget;
    use super::*;
    use crate::token::Tokens;

    /// Of `password`, as passlib's own tests have it.
    const ARGON2: &str = "$argon2i$v=19$m=256,t=1,p=1$c29tZXNhbHQ$AJFIsNZTMKTAewB4+ETN1A";

    #[tokio::test]
    async fn an_import_is_one_commit_and_no_hash() {
        let fixture = Fixture::new().await;
        let email = Some(ImportedAddress::Proven("Ada@Example.com".to_owned()));
        let phone = Some(ImportedAddress::Claimed("+447911123456".to_owned()));
        let import = Import { username: Some("Ada".to_owned()), email, phone, ..Import::new(ARGON2) };
        let accepted = fixture.run(import).await.unwrap();
        assert_eq!(fixture.services.storage.observe().batches, 1);
        assert_eq!(fixture.services.hasher.observe().jobs_done, 0);
        assert_eq!(
            fixture.kinds_after(0),
            [
                SignalKind::UserImportStarted,
                SignalKind::UserPasswordSet,
                SignalKind::UserEmailVerified,
                SignalKind::UserPhoneVerificationTokenGenerated,
                SignalKind::VerifyPhone,
                SignalKind::UserImported,
            ]
        );
        let row = fixture.user(accepted.user);
        assert_eq!(row.verify_by, None, "an address is proven");
        let (mail, text) = (&row.contacts[0], &row.contacts[1]);
        assert!(mail.proven_at.is_some() && mail.primary && mail.original == "Ada@Example.com");
        assert!(text.proven_at.is_none() && !text.primary);
        assert_eq!((accepted.email_challenge, accepted.phone_challenge.is_some()), (None, true));
        assert_eq!(fixture.sign_in_with("ada@example.com", "password").await.unwrap().user, accepted.user);
    }

    #[tokio::test]
    async fn of_imports_of_one_name_at_once_one_makes_a_user() {
        let fixture = std::sync::Arc::new(Fixture::new().await);
        let mut runs = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let fixture = std::sync::Arc::clone(&fixture);
            let email = Some(ImportedAddress::Proven("ada@example.com".to_owned()));
            let import = Command::new(Import { email, ..Import::new(ARGON2) }).id(CommandId::new());
            runs.spawn(async move { fixture.run(import).await.err() });
        }
        let refused: Vec<_> = runs.join_all().await.into_iter().flatten().collect();
        assert_eq!(refused, vec![Error::Refused(ImportReason::EmailTaken); 7]);
    }

    #[tokio::test]
    async fn a_reserved_name_is_an_operator_s_neither() {
        let fixture = Fixture::new().await;
        for name in ["admin", "Admi\u{307}n"] {
            let import = Import { username: Some(name.to_owned()), ..Import::new(ARGON2) };
            let refused = fixture.run(import).await.unwrap_err();
            assert_eq!(refused, Error::Refused(ImportReason::UsernameReserved), "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once_and_makes_a_user_only_of_what_is_free(
            (named, name_taken, skeleton_taken, must_verify) in any::<(bool, bool, bool, bool)>(),
            email in prop::option::of(any::<(bool, bool)>()),
            phone in prop::option::of(any::<(bool, bool)>()),
            messages in prop::collection::vec(budget(NOW), 2),
        ) {
            let policy = Policy { must_verify, ..Policy::default() };
            let keys = Keyring::ephemeral().unwrap();
            let email = email.map(|state| (Contact::from(Email::parse("ada@example.com").unwrap()), state));
            let phone = phone.map(|state| (Contact::from(Phone::parse("+447911123456").unwrap()), state));
            let (addresses, taken): (Vec<_>, Vec<_>) = email.into_iter().chain(phone).map(|(address, (is_proven, taken))| {
                let destination = Destination::of(&keys, address.channel(), address.canonical());
                (Claim { address, is_proven, destination }, taken)
            }).unzip();
            let owner = |taken: bool| taken.then(UserId::new);
            let facts = Facts {
                username_owner: owner(named && name_taken),
                skeleton_owner: owner(named && skeleton_taken),
                holders: taken.iter().map(|&taken| owner(taken)).collect(),
                messages,
                now: NOW,
            };
            let hash = TakenIn { text: zeroize::Zeroizing::new("text".to_owned()), scheme: "bcrypt" };
            let username = named.then(|| Username::parse("ada").unwrap());
            let groups = policy.default_groups.clone();
            let request = Request { username, addresses, profile: Profile::default(), groups, hash };
            let typed = Names { username: Some("ada"), email: None, phone: None }.typed(&keys);
            let fresh = Fresh::draw(Tokens::new(keys).current_key()).unwrap();
            let decision = decide(&request, &typed, &fresh, &facts, &policy);
            assert_one_end(&decision);
            let refused = named && (name_taken || skeleton_taken) || taken.contains(&true);
            prop_assert_eq!(decision.answer.is_err(), refused);
            prop_assert_eq!(decision.end.kind() == SignalKind::UserImported, !refused);
            let Some(user) = decision.user_after() else {
                prop_assert!(refused && decision.writes.is_empty());
                return Ok(());
            };
            let proven = request.addresses.iter().filter(|claim| claim.is_proven).count();
            let tokens = decision.writes.iter().filter(|write| matches!(write, Write::PutToken(_))).count();
            prop_assert_eq!(tokens, request.addresses.len() - proven, "a message for each that is not proven");
            let waits = must_verify && proven == 0 && !request.addresses.is_empty();
            prop_assert_eq!(user.verify_by.is_some(), waits);
            let holders = decision.checks.iter().filter(|check| matches!(check, Check::Holder(_, None, _))).count();
            prop_assert_eq!(holders, request.addresses.len());
        }
    }
}
