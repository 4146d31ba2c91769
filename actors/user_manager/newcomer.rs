//! Newcomers: what the flows that make a user have in common.

use majordomo_model::{Channel, Contact, ContactId, Email, Failure, Personal, Phone, Timestamp, UserId, Username};

use super::fresh_token::FreshToken;
use super::message_budget::{Destination, MessageBudget};
use super::policy::{Policy, Requirement, typed_optional};
use crate::keys::Keyring;
use crate::storage::{Check, Lookup, ReadError, ReadView, UniqueKey, UserRow, Write};
use crate::token::KeyId;

/// A kind of identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Username,
    Email,
    Phone,
}

impl Field {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Username => "username",
            Self::Email => "email",
            Self::Phone => "phone",
        }
    }
}

impl From<Channel> for Field {
    fn from(channel: Channel) -> Self {
        match channel {
            Channel::Email => Self::Email,
            Channel::Phone => Self::Phone,
        }
    }
}

/// Why identifiers are not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Policy forbids the kind.
    NotAllowed(Field),
    /// Policy requires the kind.
    Required(Field),
    /// None was given.
    Nameless,
    /// It is none of its kind.
    Invalid(Field),
    /// The username, or one that looks the same, is nobody's to take.
    Reserved,
    /// It is another user's.
    Taken(Field),
}

impl Unfit {
    /// The field concerned.
    pub(super) const fn field(self) -> Field {
        match self {
            Self::NotAllowed(field) | Self::Required(field) | Self::Invalid(field) | Self::Taken(field) => field,
            Self::Nameless | Self::Reserved => Field::Username,
        }
    }

    /// What signals call it.
    pub(super) const fn failure(self) -> Failure {
        use Field::{Email, Phone, Username};
        match self {
            Self::NotAllowed(_) => Failure::IdentifierNotAllowed,
            Self::Nameless => Failure::IdentifierRequired,
            Self::Required(Username) => Failure::UsernameRequired,
            Self::Required(Email) => Failure::EmailRequired,
            Self::Required(Phone) => Failure::PhoneRequired,
            Self::Invalid(Username) => Failure::UsernameInvalid,
            Self::Invalid(Email) => Failure::EmailInvalid,
            Self::Invalid(Phone) => Failure::PhoneInvalid,
            Self::Reserved => Failure::UsernameReserved,
            Self::Taken(Username) => Failure::UsernameTaken,
            Self::Taken(Email) => Failure::EmailTaken,
            Self::Taken(Phone) => Failure::PhoneTaken,
        }
    }
}

/// Turns what is unfit into the reason of the same name of a flow.
macro_rules! unfit_reason {
    ($reason:ident, $unfit:expr) => {{
        use $crate::user_manager::newcomer::{Field::*, Unfit};
        match $unfit {
            Unfit::NotAllowed(_) => $reason::IdentifierNotAllowed,
            Unfit::Nameless => $reason::IdentifierRequired,
            Unfit::Required(Username) => $reason::UsernameRequired,
            Unfit::Required(Email) => $reason::EmailRequired,
            Unfit::Required(Phone) => $reason::PhoneRequired,
            Unfit::Invalid(Username) => $reason::UsernameInvalid,
            Unfit::Invalid(Email) => $reason::EmailInvalid,
            Unfit::Invalid(Phone) => $reason::PhoneInvalid,
            Unfit::Reserved => $reason::UsernameReserved,
            Unfit::Taken(Username) => $reason::UsernameTaken,
            Unfit::Taken(Email) => $reason::EmailTaken,
            Unfit::Taken(Phone) => $reason::PhoneTaken,
        }
    }};
}
pub(super) use unfit_reason;

/// What is drawn for a newcomer, not decided.
#[derive(Clone)]
pub(super) struct Fresh {
    pub(super) user: UserId,
    pub(super) seal_key: [u8; 32],
    pub(super) contacts: [(ContactId, FreshToken); 2],
}

impl Fresh {
    pub(super) fn draw(key: KeyId) -> Result<Self, getrandom::Error> {
        let mut seal_key = [0; 32];
        getrandom::fill(&mut seal_key)?;
        let contact = || (ContactId::new(), FreshToken::draw(key));
        Ok(Self { user: UserId::new(), seal_key, contacts: [contact(), contact()] })
    }
}

/// What the store says of a newcomer's identifiers.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) username_owner: Option<UserId>,
    pub(super) skeleton_owner: Option<UserId>,
    /// Whom each address of the request is kept for, in its order: who has proven it, or gave it up and may have it back.
    pub(super) holders: Vec<Option<UserId>>,
    /// The messages to each.
    pub(super) messages: Vec<MessageBudget>,
    pub(super) now: Timestamp,
}

impl Facts {
    /// Of each address with where what bounds the messages to it is kept.
    pub(super) fn read<'a>(
        view: &ReadView,
        username: Option<&Username>,
        addresses: impl Iterator<Item = (&'a Contact, &'a Destination)> + Clone,
        now: Timestamp,
    ) -> Result<Self, ReadError> {
        let owner = |key: Option<UniqueKey>| key.map_or(Ok(None), |key| view.owner(&key));
        let holders = addresses.clone().map(|(address, _)| view.holder(&address_key(address), now));
        let messages = addresses.map(|(_, destination)| MessageBudget::read(view, destination));
        Ok(Self {
            username_owner: owner(username.map(|name| UniqueKey::username(name.canonical())))?,
            skeleton_owner: owner(username.map(|name| UniqueKey::skeleton(name.skeleton())))?,
            holders: holders.collect::<Result<_, _>>()?,
            messages: messages.collect::<Result<_, _>>()?,
            now,
        })
    }
}

/// The identifiers of a newcomer, as typed.
pub(super) struct Names<'a> {
    pub(super) username: Option<&'a str>,
    pub(super) email: Option<&'a str>,
    pub(super) phone: Option<&'a str>,
}

impl Names<'_> {
    /// The same, found acceptable.
    pub(super) fn accept(&self, policy: &Policy) -> Result<(Option<Username>, Vec<Contact>), Unfit> {
        let given = [
            (Field::Username, self.username.is_some(), policy.username),
            (Field::Email, self.email.is_some(), policy.email),
            (Field::Phone, self.phone.is_some(), policy.phone),
        ];
        for (field, given, requirement) in given {
            match (given, requirement) {
                (true, Requirement::Forbidden) => return Err(Unfit::NotAllowed(field)),
                (false, Requirement::Required) => return Err(Unfit::Required(field)),
                _ => {}
            }
        }
        if given.iter().all(|(_, given, _)| !given) {
            return Err(Unfit::Nameless);
        }
        let username = self.username.map(Username::parse).transpose().map_err(|_| Unfit::Invalid(Field::Username))?;
        let email = self.email.map(Email::parse).transpose().map_err(|_| Unfit::Invalid(Field::Email))?;
        let phone = self.phone.map(Phone::parse).transpose().map_err(|_| Unfit::Invalid(Field::Phone))?;
        if username.as_ref().is_some_and(|username| policy.reserved_usernames.hold(username)) {
            return Err(Unfit::Reserved);
        }
        Ok((username, email.map(Contact::from).into_iter().chain(phone.map(Contact::from)).collect()))
    }

    /// The same, for the signals that come before a user exists.
    pub(super) fn typed(&self, keys: &Keyring) -> Typed {
        let shown = |text: Option<&str>| typed_optional(keys, text.map(str::to_owned).as_ref());
        Typed { username: shown(self.username), email: shown(self.email), phone: shown(self.phone) }
    }
}

/// The identifiers as typed, for the signals that come before a user exists.
#[derive(Clone)]
pub(super) struct Typed {
    pub(super) username: Option<Personal>,
    pub(super) email: Option<Personal>,
    pub(super) phone: Option<Personal>,
}

/// The key under which an address is unique.
pub(super) fn address_key(address: &Contact) -> UniqueKey {
    UniqueKey::address(address.channel(), address.canonical())
}

/// Takes the username of a new user, if there is one and it is nobody's.
pub(super) fn take_username(user: &UserRow, checks: &mut Vec<Check>, writes: &mut Vec<Write>) {
    let Some(username) = &user.username else { return };
    for key in [UniqueKey::username(&username.canonical), UniqueKey::skeleton(&username.skeleton)] {
        checks.push(Check::Owner(key.clone(), None));
        writes.push(Write::PutOwner(key, user.id));
    }
}
