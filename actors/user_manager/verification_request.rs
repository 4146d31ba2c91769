//! Verification request: what asking for a message that proves an address leaves behind, whatever the channel.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use majordomo_model::{
    Channel, Claimant, Contact, ContactId, Email, Failure, Personal, Phone, Timestamp, TokenId, UserId, UserStatus,
    VerificationRequested,
};

use super::common_budget::Due;
use super::flow::{Services, Told};
use super::fresh_token::FreshToken;
use super::message_budget::{Asked, MessageBudget, Remembered};
use super::policy::{Policy, personal_contact, typed, verification_purpose};
use super::verification::{Known, address_key, taken};
use crate::keys::Keyring;
use crate::storage::{
    Answered, Check, ContactRow, Lookup, ReadError, ReadView, TokenEnd, TokenRow, UniqueKey, UserRow, Write,
};
use crate::token::Binding;

/// Whose verification is asked for, found acceptable.
pub(super) enum Sought {
    /// Whoever has or claims this address.
    Address(Contact),
    /// A contact of this user; the first unproven one of the channel if none is named.
    Contact(UserId, Option<ContactId>),
}

impl Sought {
    /// What a claimant means; nothing if the address is not acceptable.
    pub(super) fn of(claimant: &Claimant, channel: Channel) -> Option<Self> {
        match (claimant, channel) {
            (Claimant::User { user, contact }, _) => Some(Self::Contact(*user, *contact)),
            (Claimant::Address(text), Channel::Email) => Some(Self::Address(Email::parse(text).ok()?.into())),
            (Claimant::Address(text), Channel::Phone) => Some(Self::Address(Phone::parse(text).ok()?.into())),
        }
    }

    /// The address that was typed, if one was.
    fn typed(&self) -> Option<&str> {
        match self {
            Self::Address(address) => Some(address.canonical()),
            Self::Contact(..) => None,
        }
    }

    /// The same, as cool-downs know it.
    fn asked(&self, channel: Channel) -> Asked {
        let (kind, text) = match self {
            Self::Address(address) => ("address", address.canonical().to_owned()),
            Self::Contact(user, None) => ("user", user.to_string()),
            Self::Contact(user, Some(contact)) => ("contact", format!("{user}/{contact}")),
        };
        Asked { purpose: verification_purpose(channel), kind, text }
    }

    /// The keyed hash that stands for it in the row of a token that is nobody's.
    fn hidden(&self, keys: &Keyring) -> String {
        URL_SAFE_NO_PAD.encode(match self {
            Self::Address(address) => keys.identifier_hash(address.channel().as_str(), address.canonical()),
            Self::Contact(user, _) => keys.identifier_hash("user", &user.to_string()),
        })
    }
}

/// How signals show a claimant before anything is looked up: the user, or what was typed.
pub(super) fn shown(claimant: &Claimant, services: &Services) -> (Option<UserId>, Option<Personal>) {
    match claimant {
        Claimant::Address(text) => (None, Some(typed(&services.keys, text))),
        Claimant::User { user, .. } => (Some(*user), None),
    }
}

/// What is drawn for a request, not decided.
#[derive(Clone, Debug)]
pub(super) struct FreshRequest {
    token: FreshToken,
    /// What a token that is nobody's is bound to.
    nobodys: ContactId,
    /// What a token that is nobody's tells of its address.
    hidden: String,
    /// A token that never was.
    spare: TokenId,
}

impl FreshRequest {
    pub(super) fn draw(sought: &Sought, keys: &Keyring) -> Self {
        let (token, hidden) = (FreshToken::draw(keys.current()), sought.hidden(keys));
        Self { token, nobodys: ContactId::new(), hidden, spare: TokenId::new() }
    }

    /// The row of a token that nobody is told of.
    fn nobodys(&self, channel: Channel, now: Timestamp, policy: &Policy) -> TokenRow {
        let binding = Binding::ContactRevision { contact: self.nobodys, revision: 0 };
        let span = policy.verification_span(channel, now);
        self.token.row(verification_purpose(channel), None, &self.hidden, binding, span)
    }
}

/// What the store says about a request for a verification message.
#[derive(Clone, Debug)]
pub(super) struct ClaimFacts {
    user: Option<UserRow>,
    /// The contact of the user that is meant.
    contact: Option<ContactRow>,
    /// The address that is meant, if one is, and whom it is kept for.
    holder: Option<(UniqueKey, Option<UserId>)>,
    /// The user's open tokens that prove addresses of the channel.
    open: Vec<TokenRow>,
    /// The last request of the same.
    last: Remembered,
    /// The messages to where this one would go.
    budget: MessageBudget,
    now: Timestamp,
}

impl ClaimFacts {
    pub(super) fn read(
        view: &ReadView,
        keys: &Keyring,
        sought: &Sought,
        channel: Channel,
        now: Timestamp,
    ) -> Result<Self, ReadError> {
        let (user, contact, key) = match sought {
            Sought::Address(address) => {
                let key = UniqueKey::address(channel, address.canonical());
                let holder = view.holder(&key, now)?;
                let claimant =
                    holder.map_or_else(|| view.newest_claimant(channel, address.canonical()), |id| Ok(Some(id)));
                let user = claimant?.map_or(Ok(None), |id| view.user(id))?;
                let contact = user.as_ref().and_then(|user| user.contact_at(channel, address.canonical())).cloned();
                (user, contact, Some(key))
            }
            Sought::Contact(user, contact) => {
                let user = view.user(*user)?;
                let contact = user.as_ref().and_then(|user| meant(user, *contact, channel)).cloned();
                let key = contact.as_ref().map(address_key);
                (user, contact, key)
            }
        };
        let holder = key.map(|key| view.holder(&key, now).map(|holder| (key, holder))).transpose()?;
        let open = user.as_ref().map(|user| view.open_tokens(user.id, verification_purpose(channel), None));
        let open = open.transpose()?.unwrap_or_default();
        let asked = sought.asked(channel);
        let address = contact.as_ref().map(|contact| contact.canonical.as_str()).or_else(|| sought.typed());
        let budget = MessageBudget::read(view, &asked.destination(keys, channel, address))?;
        let last = Remembered::read(view, asked.cool_down(keys))?;
        Ok(Self { user, contact, holder, open, last, budget, now })
    }

    /// What is recorded and told.
    pub(super) fn request(&self, channel: Channel, fresh: &FreshRequest, policy: &Policy) -> Requested<'_> {
        let known = Known { user: self.user.as_ref(), contact: self.contact.as_ref() };
        if let Some(answered) = self.last.answered(self.now, &policy.messages) {
            let (checks, writes, told) = (Vec::new(), Vec::new(), Vec::new());
            return Requested { checks, writes, told, answered, due: Err(Failure::CoolDown), known };
        }
        let due = self.due(channel);
        let allowance = self.budget.spend(Due::proof(due.is_ok()), self.now, &policy.messages);
        let held = self.holder.iter().map(|(key, holder)| Check::Holder(key.clone(), *holder, self.now));
        let mut checks: Vec<_> = held.collect();
        let claim = self.user.as_ref().zip(self.contact.as_ref().filter(|contact| contact.proven_at.is_none()));
        let (mut supersedes, mut told) = (Vec::new(), Vec::new());
        let token = match claim {
            Some((user, contact)) => {
                let names = self.open.iter().map(|token| token.id).collect();
                checks.push(Check::UserVersion(user.id, user.version));
                checks.push(Check::OpenTokens(user.id, verification_purpose(channel), names));
                let earlier = self.open.iter().filter(|token| token.binding.contact() == Some(contact.id));
                // A message that is not sent takes nobody's link away.
                let earlier = earlier.filter(|_| due.is_err() || allowance.is_granted);
                supersedes.extend(earlier.map(|token| token.id));
                let token = fresh.token.verification(user.id, contact, self.now, policy);
                if due.is_ok() {
                    let newest = supersedes.iter().max().copied();
                    let (token, signals) = allowance.verify(user.id, token, &personal_contact(contact), newest);
                    told = signals;
                    token
                } else {
                    token.withheld()
                }
            }
            None => fresh.nobodys(channel, self.now, policy),
        };
        // A token that never was ends where no earlier one does, so that every request changes as much.
        let ended = if supersedes.is_empty() { std::slice::from_ref(&fresh.spare) } else { supersedes.as_slice() };
        let mut writes: Vec<_> = ended.iter().map(|token| Write::EndToken(*token, TokenEnd::Superseded)).collect();
        let code_expires_at = token.code_expires_at(policy.code_lifetime);
        let (challenge, expires_at) = (token.id, token.expires_at);
        let answered = Answered { at: self.now, challenge, expires_at, code_expires_at };
        writes.push(Write::PutToken(Box::new(token)));
        allowance.enter(&mut checks, &mut writes);
        self.last.answer(answered, &policy.messages).enter(&mut checks, &mut writes);
        Requested { checks, writes, told, answered, due, known }
    }

    /// The claim that a message is due for, or why none is.
    fn due(&self, channel: Channel) -> Result<(&UserRow, &ContactRow), Failure> {
        let user = self.user.as_ref().ok_or(Failure::UserNotFound)?;
        let contact = self.contact.as_ref().ok_or(Failure::ContactNotFound)?;
        if contact.proven_at.is_some() {
            Err(Failure::AlreadyVerified)
        } else if self.holder.as_ref().is_some_and(|(_, holder)| holder.is_some_and(|holder| holder != user.id)) {
            Err(taken(channel))
        } else if user.status != UserStatus::Active {
            Err(Failure::UserInactive)
        } else {
            Ok((user, contact))
        }
    }
}

/// What a request for a verification message comes to. Whether or not a message is due, a token is recorded and the
/// reply is the same; if the same was asked for a moment ago, nothing is recorded, whoever was meant.
pub(super) struct Requested<'a> {
    pub(super) checks: Vec<Check>,
    pub(super) writes: Vec<Write>,
    /// What is told of the message, if one is due.
    pub(super) told: Vec<Told>,
    /// What the caller gets.
    pub(super) answered: Answered,
    /// The claim that a message is due for, or why none is: the truth, which the caller is not told.
    pub(super) due: Result<(&'a UserRow, &'a ContactRow), Failure>,
    /// Whom and what it is about.
    pub(super) known: Known<'a>,
}

impl Requested<'_> {
    pub(super) const fn reply(&self) -> VerificationRequested {
        let Answered { challenge, expires_at, code_expires_at, .. } = self.answered;
        VerificationRequested { challenge, expires_at, code_expires_at }
    }
}

/// The contact that a user means: the named one, else the first that is unproven, else the first.
fn meant(user: &UserRow, named: Option<ContactId>, channel: Channel) -> Option<&ContactRow> {
    let mut contacts = user.contacts.iter().filter(|contact| contact.channel == channel);
    match named {
        Some(named) => contacts.find(|contact| contact.id == named),
        None => contacts.clone().find(|contact| contact.proven_at.is_none()).or_else(|| contacts.next()),
    }
}

/// Facts of every shape.
#[cfg(test)]
pub(super) mod cases {
    use proptest::prelude::*;

    use super::super::message_budget::cases::{budget, remembered};
    use super::super::verification::cases::{NOW, address, owner, token, user};
    use super::*;

    pub(in super::super) fn claim_facts(channel: Channel) -> impl Strategy<Value = ClaimFacts> {
        let open = prop::collection::vec(token(channel), 0..3);
        let messages = (remembered(NOW), budget(NOW));
        (prop::option::of(user(channel)), prop::option::of(0..2_usize), owner(), open, messages).prop_map(
            move |(user, which, owner, open, (last, budget))| {
                let contact = user.as_ref().zip(which).and_then(|(user, which)| user.contacts.get(which)).cloned();
                let holder = contact.as_ref().map(|contact| (address_key(contact), owner));
                ClaimFacts { user, contact, holder, open, last, budget, now: NOW }
            },
        )
    }

    /// What a request draws, for a proptest.
    pub(in super::super) fn fresh_request(channel: Channel) -> FreshRequest {
        let keys = Keyring::ephemeral().unwrap();
        FreshRequest::draw(&Sought::Address(address(channel, "young")), &keys)
    }
}
