//! Undo change: whoever reads the old address takes a change back, with all such changes that followed it.

use majordomo_model::{
    Channel, Failure, ResetRequested, RevocationCause, Signal, Timestamp, TokenId, TokenPurpose, UndoChange,
    UndoChangeReason, Undone, UserId, UserStatus,
};

use super::epoch::Bound;
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, Told, recall, remember};
use super::policy::{FreshToken, Policy, personal_contact, reset_purpose, seal_key, supersede};
use super::proof::{Judgement, Parsed, judge};
use crate::storage::{
    ChangeRow, Check, ContactRow, CredentialRow, Lookup, ReadError, ReadView, TokenEnd, TokenRow, UniqueKey, UserRow,
    Write,
};
use crate::token::{Binding, Tokens};

/// What the store says about a link, its user and the change that it undoes.
#[derive(Default)]
struct Facts {
    token: Option<TokenRow>,
    user: Option<UserRow>,
    credential: Option<CredentialRow>,
    bound: Bound,
    /// The change that the link is for.
    change: Option<ChangeRow>,
    /// The changes of the user that followed it.
    later: Vec<ChangeRow>,
    /// Whom each address from before the change is kept for now.
    holders: Vec<Option<UserId>>,
    now: Timestamp,
}

impl Facts {
    fn read(view: &ReadView, token: Option<TokenId>, now: Timestamp) -> Result<Self, ReadError> {
        let token = token.map_or(Ok(None), |token| view.token(token))?;
        let named = token.as_ref().and_then(|token| Some((token.user?, change_of(token)?)));
        let Some((id, version)) = named else { return Ok(Self { token, now, ..Self::default() }) };
        let change = view.change(id, version)?;
        let mut later = view.changes_of(id)?;
        later.retain(|other| other.version > version);
        let holder = |contact: &ContactRow| view.holder(&address_key(contact), now);
        let holders = change.iter().flat_map(|change| &change.contacts).map(holder).collect::<Result<_, _>>()?;
        let (user, credential, bound) = (view.user(id)?, view.credential(id)?, Bound::read(view, id)?);
        Ok(Self { token, user, credential, bound, change, later, holders, now })
    }
}

/// The change that a token is bound to.
const fn change_of(token: &TokenRow) -> Option<u64> {
    match token.binding {
        Binding::Change(version) => Some(version),
        _ => None,
    }
}

fn address_key(contact: &ContactRow) -> UniqueKey {
    UniqueKey::address(contact.channel, &contact.canonical)
}

fn same_address(one: &ContactRow, other: &ContactRow) -> bool {
    one.channel == other.channel && one.canonical == other.canonical
}

/// What a decision is bound to beside facts.
struct Terms<'a> {
    tokens: &'a Tokens,
    policy: &'a Policy,
    /// The token of the message that permits a new password.
    fresh: FreshToken,
}

/// What the link is worth now.
enum Standing<'a> {
    /// It undoes this change.
    Good(&'a TokenRow, &'a UserRow, &'a ChangeRow),
    /// It has undone its change.
    Used(&'a UserRow),
    /// Nothing.
    Bad(Failure),
}

fn standing<'a>(parsed: &Parsed<'_>, facts: &'a Facts, terms: &Terms<'_>) -> Standing<'a> {
    // A code is compared with nothing, so there is nothing to count.
    if !parsed.is_link() {
        return Standing::Bad(Failure::InvalidToken);
    }
    let token = facts.token.as_ref();
    let judgement = judge(terms.tokens, parsed, token, &[TokenPurpose::UndoChange], facts.now, terms.policy);
    match (judgement, token, &facts.user, &facts.change) {
        (Judgement::Good, Some(token), Some(user), Some(change)) => Standing::Good(token, user, change),
        (Judgement::Used, _, Some(user), _) => Standing::Used(user),
        (Judgement::Bad(failure), ..) => Standing::Bad(failure),
        _ => Standing::Bad(Failure::TokenMismatchOrExpired),
    }
}

/// Facts in, batch out.
fn decide(parsed: &Parsed<'_>, facts: &Facts, terms: &Terms<'_>) -> Decision<UndoChange> {
    match standing(parsed, facts, terms) {
        Standing::Good(token, user, change) => undo(token, user, change, facts, terms),
        Standing::Used(user) => already(user),
        Standing::Bad(reason) => {
            let end = failed(parsed.token(), facts.user.as_ref().map(|user| user.id), reason);
            let subject = facts.user.as_ref().map(|user| (user.id, seal_key(user)));
            Decision { subject, ..Decision::refuse(UndoChangeReason::InvalidToken, end) }
        }
    }
}

fn undo(
    token: &TokenRow,
    user: &UserRow,
    change: &ChangeRow,
    facts: &Facts,
    terms: &Terms<'_>,
) -> Decision<UndoChange> {
    let ending = facts.bound.end(user, None, RevocationCause::Undone, facts.now, terms.policy);
    let contacts = restored(user.id, change, &facts.holders);
    let (gone, back) = moved(user, &contacts);
    let after = UserRow { contacts, ..ending.user };
    let reset = reset(&after, &change.told, facts.now, terms);

    let mut checks = ending.checks;
    checks.push(Check::TokenOpen(token.id, token.attempts));
    checks.push(Check::CredentialRevision(user.id, facts.credential.as_ref().map(|credential| credential.revision)));
    let holders = change.contacts.iter().zip(&facts.holders);
    checks.extend(holders.map(|(contact, holder)| Check::Holder(address_key(contact), *holder, facts.now)));

    let mut writes = ending.writes;
    writes.extend(supersede(&facts.bound.proofs));
    // What goes comes first: an address that was claimed or proven anew since is among what goes and what is back.
    writes.extend(user.contacts.iter().map(|contact| leave(contact, user.id)));
    writes.extend(after.contacts.iter().map(|contact| Write::PutOwner(address_key(contact), user.id)));
    writes.push(Write::RemoveCredential(user.id));
    writes.push(Write::RemoveChange(user.id, change.version));
    for later in &facts.later {
        writes.push(Write::RemoveChange(user.id, later.version));
        writes.push(Write::EndToken(later.token, TokenEnd::Superseded));
    }
    writes.push(Write::EndToken(token.id, TokenEnd::Used));
    writes.extend(reset.iter().map(|(row, ..)| Write::PutToken(Box::new(row.clone()))));
    writes.push(Write::PutUser(Box::new(after.clone())));

    let removed = facts.credential.as_ref().map(|_| Signal::UserPasswordRemoved { user: user.id }.into());
    let moves = gone.into_iter().map(|contact| told_of(contact, user.id, false));
    let moves = moves.chain(back.into_iter().map(|contact| told_of(contact, user.id, true)));
    let mut told: Vec<_> = removed.into_iter().chain(ending.told).chain(moves.map(Told::from)).collect();
    told.extend(reset.iter().map(|(row, due, _)| Told::of(due.clone(), row.delivery)));
    let (sessions_revoked, version) = (ending.sessions_revoked, after.version);
    let (requested, reset) = reset.map(|(row, _, requested)| (requested, row.id)).unzip();
    let change = Some(change.kind);
    let end = Signal::ChangeUndone { user: user.id, version, change, sessions_revoked, reset, reason: None };
    let answer = Ok(Undone { user: user.id, sessions_revoked, reset: requested, already: false });
    Decision { checks, writes, told, end, subject: Some((user.id, seal_key(user))), answer }
}

/// The addresses that the user has again: as they were, but for one that another user owns nevertheless, which can be
/// only after its reservation has ended. A channel that has addresses has a first one.
fn restored(user: UserId, change: &ChangeRow, holders: &[Option<UserId>]) -> Vec<ContactRow> {
    let kept = change.contacts.iter().zip(holders);
    let kept = kept.filter(|(_, holder)| holder.is_none_or(|holder| holder == user));
    let mut contacts: Vec<_> = kept.map(|(contact, _)| ContactRow { replaces: None, ..contact.clone() }).collect();
    for channel in [Channel::Email, Channel::Phone] {
        if !contacts.iter().any(|contact| contact.channel == channel && contact.primary)
            && let Some(heir) = contacts.iter_mut().find(|contact| contact.channel == channel)
        {
            heir.primary = true;
        }
    }
    contacts
}

/// The proven addresses that a user loses, and those that are back.
fn moved<'a>(user: &'a UserRow, after: &'a [ContactRow]) -> (Vec<ContactRow>, Vec<ContactRow>) {
    let proven = || user.contacts.iter().filter(|contact| contact.proven_at.is_some());
    let gone = proven().filter(|contact| !after.iter().any(|other| same_address(contact, other)));
    let back = after.iter().filter(|contact| !proven().any(|other| same_address(contact, other)));
    (gone.cloned().collect(), back.cloned().collect())
}

/// Frees an address, or forgets that it was claimed.
fn leave(contact: &ContactRow, user: UserId) -> Write {
    match contact.proven_at {
        Some(_) => Write::RemoveOwner(address_key(contact)),
        None => Write::RemoveClaim(contact.channel, contact.canonical.clone(), user),
    }
}

fn told_of(contact: ContactRow, user: UserId, back: bool) -> Signal {
    let (contact, address, channel) = (contact.id, personal_contact(&contact), contact.channel);
    if back {
        Signal::ContactRestored { user, contact, address, channel }
    } else {
        Signal::ContactRevoked { user, contact, address, channel }
    }
}

/// The message that permits a new password: to the address whose link it was, unless the user is disabled.
fn reset(
    user: &UserRow,
    told: &ContactRow,
    now: Timestamp,
    terms: &Terms<'_>,
) -> Option<(TokenRow, Signal, ResetRequested)> {
    let contact = user.contacts.iter().find(|contact| same_address(contact, told));
    let contact = contact.filter(|_| user.status == UserStatus::Active)?;
    let (fresh, policy) = (terms.fresh, terms.policy);
    let (purpose, binding) = (reset_purpose(contact.channel), Binding::CredentialEpoch(user.epoch));
    let span = (now, now.plus(policy.reset_lifetime));
    let row = fresh.row(purpose, Some(user.id), &contact.canonical, binding, span);
    let (address, token) = (personal_contact(contact), fresh.token);
    let due = match contact.channel {
        Channel::Email => Signal::ResetPasswordEmail { user: user.id, address, token },
        Channel::Phone => Signal::ResetPasswordPhone { user: user.id, phone: address, token },
    };
    let code_expires_at = row.code_expires_at(policy.code_lifetime);
    let requested = ResetRequested { challenge: token, expires_at: span.1, code_expires_at };
    Some((row, due, requested))
}

/// The same link again: told so, and nothing changes.
fn already(user: &UserRow) -> Decision<UndoChange> {
    let (change, reset, reason) = (None, None, Some(Failure::NothingToDo));
    Decision {
        checks: vec![Check::UserVersion(user.id, user.version)],
        writes: Vec::new(),
        told: Vec::new(),
        end: Signal::ChangeUndone { user: user.id, version: user.version, change, sessions_revoked: 0, reset, reason },
        subject: Some((user.id, seal_key(user))),
        answer: Ok(Undone { user: user.id, sessions_revoked: 0, reset: None, already: true }),
    }
}

const fn failed(token: Option<TokenId>, user: Option<UserId>, reason: Failure) -> Signal {
    Signal::UndoFailed { token, user, reason }
}

impl Perform for UndoChange {
    fn started(&self, _services: &Services) -> Signal {
        Signal::UndoStarted { token: Parsed::of(&self.proof).token() }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        failed(Parsed::of(&self.proof).token(), None, why)
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let Services { tokens, policy, .. } = run.services;
        let parsed = Parsed::of(&self.proof);
        let terms = Terms { tokens, policy, fresh: FreshToken::draw(tokens.current_key()) };
        run.settle(|view, now| Ok(decide(&parsed, &Facts::read(view, parsed.token(), now)?, &terms))).await
    }

    fn remember(answer: &Result<Undone, UndoChangeReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Undone, UndoChangeReason>> {
        recall(remembered)
    }
}
