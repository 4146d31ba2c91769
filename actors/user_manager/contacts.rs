//! Contacts: the rules that the flows which change how a user is reached have in common.

use majordomo_model::{
    Channel, Contact, ContactClaim, ContactClaimed, ContactId, Email, Failure, Personal, Phone, Timestamp, UserId,
    UserStatus,
};

use super::authority::{Permit, holds};
use super::common_budget::Due;
use super::epoch::open_tokens;
use super::flow::{Decision, Perform, Told};
use super::fresh_token::{FreshToken, supersede};
use super::message_budget::{Destination, MessageBudget};
use super::policy::{Policy, Registration, personal_address, seal_key, verification_purpose};
use crate::keys::Keyring;
use crate::storage::{Check, ContactRow, Lookup, ReadError, ReadView, TokenRow, UniqueKey, UserRow, Write};

/// What a change of contacts is bound to beside facts.
pub(super) struct Terms<'a> {
    /// What was shown to permit it.
    pub(super) permit: &'a Permit,
    /// What is asked of users.
    pub(super) policy: &'a Policy,
    /// What the names of failed attempts are hashed under.
    pub(super) keys: &'a Keyring,
    /// When it is decided.
    pub(super) now: Timestamp,
}

impl Terms<'_> {
    /// Whether the user is let in and the permit good; otherwise the reason given for either, and the truth about it.
    pub(super) fn admit<R>(&self, user: &UserRow, inactive: R, not_authorised: R) -> Result<(), (R, Failure)> {
        if user.status != UserStatus::Active {
            Err((inactive, Failure::UserInactive))
        } else if self.holds(user) {
            Ok(())
        } else {
            Err((not_authorised, self.permit.failure()))
        }
    }

    /// A decision about a user, with what the permit adds to it: the comparison is told, a wrong password counted.
    pub(super) fn complete<F: Perform>(&self, mut decision: Decision<F>, user: &UserRow) -> Decision<F> {
        decision.told.splice(0..0, self.permit.told(user).map(Told::from));
        if self.holds(user) {
            decision.checks.extend(self.permit.check());
        } else {
            decision.writes.extend(self.permit.count_failure(self.keys, user, self.now, self.policy));
        }
        decision.about(user.id, seal_key(user))
    }

    fn holds(&self, user: &UserRow) -> bool {
        holds(self.permit, user, self.now, self.policy)
    }
}

/// Why an address cannot be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is none of its channel.
    Invalid(Channel),
    /// The user has it already, proven or claimed.
    Exists,
    /// The user has as many as are allowed.
    LimitReached,
    /// Another user has proven it, and open mode tells so.
    Taken(Channel),
}

impl Problem {
    /// What signals call it.
    pub(super) const fn failure(self) -> Failure {
        match self {
            Self::Invalid(Channel::Email) => Failure::EmailInvalid,
            Self::Invalid(Channel::Phone) => Failure::PhoneInvalid,
            Self::Exists => Failure::ContactExists,
            Self::LimitReached => Failure::ContactLimitReached,
            Self::Taken(Channel::Email) => Failure::EmailTaken,
            Self::Taken(Channel::Phone) => Failure::PhoneTaken,
        }
    }
}

/// Turns a problem into the reason of the same name of a flow, beside what signals call it.
macro_rules! claim_refusal {
    ($reason:ident, $problem:expr) => {{
        use majordomo_model::Channel::{Email, Phone};
        let problem: $crate::user_manager::contacts::Problem = $problem;
        let reason = match problem {
            Problem::Invalid(Email) => $reason::EmailInvalid,
            Problem::Invalid(Phone) => $reason::PhoneInvalid,
            Problem::Exists => $reason::ContactExists,
            Problem::LimitReached => $reason::ContactLimitReached,
            Problem::Taken(Email) => $reason::EmailTaken,
            Problem::Taken(Phone) => $reason::PhoneTaken,
        };
        (reason, problem.failure())
    }};
}
pub(super) use claim_refusal;

/// An address to be claimed, with the names drawn for its contact and its token.
pub(super) struct Claim {
    address: Contact,
    contact: ContactId,
    token: FreshToken,
    /// Where what bounds the messages to the address is kept.
    destination: Destination,
}

impl Claim {
    /// Parses what was typed, and draws names.
    pub(super) fn draw(typed: &ContactClaim, keys: &Keyring) -> Result<Self, Problem> {
        let address = match typed {
            ContactClaim::Email(text) => Email::parse(text).map(Contact::from),
            ContactClaim::Phone(text) => Phone::parse(text).map(Contact::from),
        };
        let address = address.map_err(|_| Problem::Invalid(typed.channel()))?;
        let destination = Destination::of(keys, address.channel(), address.canonical());
        Ok(Self { address, contact: ContactId::new(), token: FreshToken::draw(keys.current()), destination })
    }

    fn key(&self) -> UniqueKey {
        UniqueKey::address(self.address.channel(), self.address.canonical())
    }
}

/// What the store says about a user and an address.
#[derive(Clone, Debug, Default)]
pub(super) struct ClaimFacts {
    /// The user.
    pub(super) user: Option<UserRow>,
    /// Whom the address is kept for: who has proven it, or gave it up and may have it back.
    pub(super) holder: Option<UserId>,
    /// The user's open tokens of the channel.
    pub(super) tokens: Vec<TokenRow>,
    /// The messages to the address.
    pub(super) messages: MessageBudget,
}

impl ClaimFacts {
    /// Reads them; of the user alone, if there is nothing to claim.
    pub(super) fn read(
        view: &ReadView,
        user: UserId,
        claim: Option<&Claim>,
        now: Timestamp,
    ) -> Result<Self, ReadError> {
        let row = view.user(user)?;
        let Some(claim) = claim else { return Ok(Self { user: row, ..Self::default() }) };
        Ok(Self {
            user: row,
            holder: view.holder(&claim.key(), now)?,
            tokens: view.open_tokens(user, verification_purpose(claim.address.channel()), None)?,
            messages: MessageBudget::read(view, &claim.destination)?,
        })
    }
}

/// What a claim comes to.
pub(super) struct Claimed {
    /// What must hold when it is committed.
    pub(super) checks: Vec<Check>,
    /// What changes.
    pub(super) writes: Vec<Write>,
    /// What is told of it.
    pub(super) told: Vec<Told>,
    /// The user's version after it.
    pub(super) version: u64,
    /// The address, as signals of its user show it.
    pub(super) address: Personal,
    /// The truth about an address that another user has proven; whoever asked gets the same reply, and the same rows.
    pub(super) taken: Option<Failure>,
    /// What the caller gets.
    pub(super) reply: ContactClaimed,
}

/// Claims an address for a user, in place of one of theirs if given. Of the claims to one place the last one counts.
pub(super) fn claim(
    claim: &Claim,
    facts: &ClaimFacts,
    user: &UserRow,
    replaces: Option<ContactId>,
    terms: &Terms<'_>,
) -> Result<Claimed, Problem> {
    let (address, policy) = (&claim.address, terms.policy);
    let (channel, canonical) = (address.channel(), address.canonical());
    let earlier = |contact: &ContactRow| replaces.is_some() && contact.replaces == replaces;
    let (earlier, mut contacts): (Vec<_>, Vec<_>) = user.contacts.iter().cloned().partition(earlier);
    if contacts.iter().any(|contact| contact.channel == channel && contact.canonical == canonical) {
        return Err(Problem::Exists);
    }
    if contacts.len() >= policy.contacts_per_user {
        return Err(Problem::LimitReached);
    }
    let taken = facts.holder.filter(|holder| *holder != user.id);
    if taken.is_some() && policy.registration == Registration::Open {
        return Err(Problem::Taken(channel));
    }
    let contact = ContactRow { replaces, ..ContactRow::claim(claim.contact, address, terms.now) };
    let token = claim.token.verification(user.id, &contact, terms.now, policy);
    contacts.push(contact);
    let version = user.version.saturating_add(1);
    let after = UserRow { version, contacts, ..user.clone() };

    let mut checks =
        vec![Check::UserVersion(user.id, user.version), Check::Holder(claim.key(), facts.holder, terms.now)];
    let mut writes = vec![Write::PutUser(Box::new(after))];
    let of_earlier = |token: &&TokenRow| earlier.iter().any(|contact| token.binding.contact() == Some(contact.id));
    let superseded: Vec<_> = facts.tokens.iter().filter(of_earlier).cloned().collect();
    if !earlier.is_empty() {
        checks.push(open_tokens(user.id, verification_purpose(channel), &facts.tokens));
    }
    writes.extend(earlier.iter().map(|old| Write::RemoveClaim(channel, old.canonical.clone(), user.id)));
    writes.extend(supersede(&superseded));
    writes.push(Write::PutClaim(channel, canonical.to_owned(), user.id));

    let address = personal_address(address);
    let allowance = facts.messages.spend(Due::claim(taken.is_some()), terms.now, &policy.messages);
    let supersedes = superseded.last().map(|token| token.id);
    let (token, told) = allowance.claim(user.id, taken, token, &address, supersedes);
    writes.push(Write::PutToken(Box::new(token.clone())));
    allowance.enter(&mut checks, &mut writes);
    let (contact, challenge, expires_at) = (claim.contact, token.id, token.expires_at);
    let code_expires_at = token.code_expires_at(policy.code_lifetime);
    let reply = ContactClaimed { contact, challenge, expires_at, code_expires_at };
    let taken = taken.map(|_| Problem::Taken(channel).failure());
    Ok(Claimed { checks, writes, told, version, address, taken, reply })
}

#[cfg(test)]
mod tests {
    use std::mem::discriminant;

    use super::super::fixture::{recent_session, user_row};
    use super::*;

    #[test]
    fn a_taken_address_writes_the_rows_of_a_free_one() {
        let (keys, policy, user) = (Keyring::ephemeral().unwrap(), Policy::default(), user_row("ada", None));
        let (permit, now) = (recent_session(&user, user.created_at), user.created_at);
        let terms = Terms { permit: &permit, policy: &policy, keys: &keys, now };
        let typed = ContactClaim::Email("ada@example.com".to_owned());
        let wanted = Claim::draw(&typed, &keys).unwrap();
        let shape = |holder| {
            let facts = ClaimFacts { holder, ..ClaimFacts::default() };
            let claimed = claim(&wanted, &facts, &user, None, &terms).ok().unwrap();
            let rows: Vec<_> = claimed.writes.iter().map(discriminant).collect();
            (rows, claimed.checks.len(), claimed.version, claimed.reply)
        };
        assert_eq!(shape(Some(UserId::new())), shape(None));
    }
}
