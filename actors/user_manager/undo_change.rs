//! Undo change: whoever reads the old address takes a change back, with all such changes that followed it.

use majordomo_model::{
    Channel, Error, Failure, LimitedAction, ResetRequested, RevocationCause, Signal, Timestamp, TokenId, TokenPurpose,
    UndoChange, UndoChangeReason, Undone, UserId, UserStatus,
};

use super::epoch::Bound;
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, Told, recall, remember};
use super::fresh_token::{FreshToken, supersede};
use super::policy::{Policy, personal_contact, reset_purpose, seal_key};
use super::proof::{Judgement, Parsed, judge};
use super::throttle::Counted;
use crate::storage::{
    ChangeRow, Check, ContactRow, Lookup, ReadError, ReadView, StoredCredential, TokenEnd, TokenRow, UniqueKey,
    UserRow, Write,
};
use crate::token::{Binding, Tokens};

/// What the store says about a link, its user and the change that it undoes.
#[derive(Default)]
struct Facts {
    token: Option<TokenRow>,
    user: Option<UserRow>,
    credential: Option<StoredCredential>,
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
    let span = policy.reset_span(contact.channel, now);
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

    fn counted(&self) -> Vec<Counted<'_>> {
        vec![Counted::by_proof(&self.proof)]
    }

    fn counts(_action: LimitedAction, answer: &Answer<Self>) -> bool {
        matches!(answer, Err(Error::Refused(UndoChangeReason::InvalidToken)))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use majordomo_model::{
        AddContact, ChangeContact, ChangeKind, ChangePassword, ConfirmEmail, ContactClaim, Disable, Error, Password,
        Proof, RemoveContact, ResetPassword, SignalKind,
    };
    use proptest::prelude::*;

    use super::super::fixture::{
        Fixture, NOW, OTHER_PASSWORD, PASSWORD, any_sessions, any_user, assert_one_end, assert_well_formed, authority,
        unlimited, user_row,
    };
    use super::*;
    use crate::keys::Keyring;

    /// The token of the link that undoes the last change of a user.
    fn newest(fixture: &Fixture, user: UserId) -> TokenId {
        let changes = fixture.services.reader.snapshot(|view| view.changes_of(user)).unwrap();
        changes.last().unwrap().token
    }

    async fn replace(fixture: &Fixture, user: UserId, old: &str, new: &str) -> TokenId {
        let contact = fixture.contact(user, old).id;
        let address = ContactClaim::Email(new.to_owned());
        let claimed = fixture.run(ChangeContact { user, contact, address, authority: authority() }).await.unwrap();
        fixture.run(ConfirmEmail { proof: fixture.link(claimed.challenge) }).await.unwrap();
        newest(fixture, user)
    }

    async fn undo(fixture: &Fixture, proof: Proof) -> Answer<UndoChange> {
        fixture.run(UndoChange { proof }).await
    }

    async fn refusal(fixture: &Fixture, proof: Proof) -> Failure {
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let refused = undo(fixture, proof).await.unwrap_err();
        assert_eq!(refused, Error::Refused(UndoChangeReason::InvalidToken));
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(fixture.kinds_after(head), [SignalKind::UndoStarted, SignalKind::UndoFailed]);
        let Signal::UndoFailed { reason, .. } = fixture.last_signal() else { panic!() };
        reason
    }

    fn credential(fixture: &Fixture, user: UserId) -> Option<StoredCredential> {
        fixture.services.reader.snapshot(|view| view.credential(user)).unwrap()
    }

    #[tokio::test]
    async fn a_replacement_is_taken_back_in_one_commit_and_who_the_user_is_must_be_shown_anew() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("Ada@example.com"), Some("+447911123456")).await;
        let before = fixture.user(user).contacts;
        let link = replace(&fixture, user, "ada@example.com", "eve@example.com").await;
        let session = fixture.session("ada").await;
        let reset = fixture.reset_token("ada").await;
        let further = ContactClaim::Email("more@example.com".to_owned());
        let further = fixture.run(AddContact { user, address: further, authority: authority() }).await.unwrap();
        let row = fixture.services.reader.token(link).unwrap().unwrap();
        assert_eq!(
            (row.address.as_str(), row.expires_at),
            ("ada@example.com", NOW.plus(fixture.services.policy.undo_lifetime))
        );

        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let undone = undo(&fixture, fixture.link(link)).await.unwrap();
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!((undone.user, undone.sessions_revoked, undone.already), (user, 1, false));
        assert_eq!(
            fixture.kinds_after(head),
            [
                SignalKind::UndoStarted,
                SignalKind::UserPasswordRemoved,
                SignalKind::SessionRevoked,
                SignalKind::ContactRevoked,
                SignalKind::ContactRestored,
                SignalKind::ResetPasswordEmail,
                SignalKind::ChangeUndone,
            ]
        );
        assert!(fixture.user(user).contacts == before, "as they were, with their names");
        assert_eq!(credential(&fixture, user), None);
        assert_eq!(super::super::session::check(&fixture.services, &session.token).unwrap(), None);
        for proof in [fixture.link(reset), fixture.code(reset)] {
            let new = Password::new(OTHER_PASSWORD);
            assert!(fixture.run(ResetPassword { proof, new }).await.is_err());
        }
        assert!(fixture.run(ConfirmEmail { proof: fixture.link(further.challenge) }).await.is_err());
        fixture.sign_in("ada@example.com").await.unwrap_err();
        let Signal::UserAuthenticationFailed { reason, .. } = fixture.last_signal() else { panic!() };
        assert_eq!(reason, Failure::NoPassword);

        let (challenge, new) = (undone.reset.unwrap().challenge, Password::new(OTHER_PASSWORD));
        assert_eq!(fixture.services.reader.token(challenge).unwrap().unwrap().address, "ada@example.com");
        fixture.run(ResetPassword { proof: fixture.code(challenge), new }).await.unwrap();
        fixture.sign_in_with("ada@example.com", OTHER_PASSWORD).await.unwrap();
        fixture.proven("eve", &["eve@example.com"]).await;
    }

    #[tokio::test]
    async fn the_link_of_an_earlier_change_takes_back_what_followed_and_voids_the_later_links() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("a@example.com"), None).await;
        let before = fixture.user(user).contacts;
        let first = replace(&fixture, user, "a@example.com", "b@example.com").await;
        let second = replace(&fixture, user, "b@example.com", "c@example.com").await;
        let (current, new) = (Password::new(PASSWORD), Password::new(OTHER_PASSWORD));
        fixture.run(ChangePassword { user, current, new, keep: None }).await.unwrap();
        let third = newest(&fixture, user);
        let told = |token| fixture.services.reader.token(token).unwrap().unwrap().address;
        assert_eq!([told(first), told(second), told(third)], ["a@example.com", "b@example.com", "c@example.com"]);
        let links = [second, third].map(|token| fixture.link(token));
        undo(&fixture, fixture.link(first)).await.unwrap();
        assert!(fixture.user(user).contacts == before);
        for link in links {
            assert_eq!(refusal(&fixture, link).await, Failure::TokenMismatchOrExpired);
        }
        assert!(fixture.services.reader.snapshot(|view| view.changes_of(user)).unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_link_of_a_later_change_leaves_the_earlier_ones_good() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("a@example.com"), None).await;
        let first = replace(&fixture, user, "a@example.com", "b@example.com").await;
        let second = replace(&fixture, user, "b@example.com", "c@example.com").await;
        undo(&fixture, fixture.link(second)).await.unwrap();
        assert_eq!(fixture.user(user).contacts[0].canonical, "b@example.com");
        undo(&fixture, fixture.link(first)).await.unwrap();
        assert_eq!(fixture.user(user).contacts[0].canonical, "a@example.com");
        assert!(undo(&fixture, fixture.link(second)).await.unwrap().already);
    }

    #[tokio::test]
    async fn a_further_address_is_told_to_the_first_one_which_can_take_it_back() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("a@example.com"), None).await;
        let before = fixture.user(user).contacts;
        let address = ContactClaim::Email("eve@example.com".to_owned());
        let claimed = fixture.run(AddContact { user, address, authority: authority() }).await.unwrap();
        fixture.run(ConfirmEmail { proof: fixture.link(claimed.challenge) }).await.unwrap();
        let signals = fixture.signals();
        let told = signals.iter().rev().find_map(|told| match told.signal {
            Signal::UserEmailVerified { undo, .. } => undo,
            _ => None,
        });
        assert_eq!(told, Some(newest(&fixture, user)));
        undo(&fixture, fixture.link(told.unwrap())).await.unwrap();
        assert!(fixture.user(user).contacts == before);
    }

    #[tokio::test]
    async fn who_has_proven_nothing_leaves_nothing_to_undo() {
        let fixture = Fixture::new().await;
        let accepted = fixture.register("ada", Some("a@example.com"), None).await;
        fixture.run(ConfirmEmail { proof: fixture.link(accepted.email_challenge.unwrap()) }).await.unwrap();
        let named = fixture.register("eve", None, None).await.user;
        let (current, new) = (Password::new(PASSWORD), Password::new(OTHER_PASSWORD));
        fixture.run(ChangePassword { user: named, current, new, keep: None }).await.unwrap();
        assert!(matches!(fixture.last_signal(), Signal::PasswordChanged { undo: None, .. }));
        for user in [accepted.user, named] {
            assert!(fixture.services.reader.snapshot(|view| view.changes_of(user)).unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_disabled_user_is_protected_and_sent_nothing() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("a@example.com"), None).await;
        let link = replace(&fixture, user, "a@example.com", "b@example.com").await;
        fixture.run(Disable { user }).await.unwrap();
        let undone = undo(&fixture, fixture.link(link)).await.unwrap();
        assert_eq!(undone.reset, None);
        let row = fixture.user(user);
        assert_eq!((row.status, row.contacts[0].canonical.as_str()), (UserStatus::Disabled, "a@example.com"));
        assert_eq!(credential(&fixture, user), None);
    }

    #[tokio::test]
    async fn a_link_works_once_to_the_last_instant_and_a_code_never() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("a@example.com"), Some("+447911123456")).await;
        let link = replace(&fixture, user, "a@example.com", "b@example.com").await;
        let contact = fixture.contact(user, "+447911123456").id;
        fixture.run(RemoveContact { user, contact, authority: authority() }).await.unwrap();
        let later = newest(&fixture, user);
        let reset = fixture.reset_token("ada").await;
        let code = Proof::Code { challenge: link, code: majordomo_model::OneTimeCode::new("00000000") };
        for (proof, failure) in [
            (code, Failure::InvalidToken),
            (fixture.link(reset), Failure::InvalidToken),
            (fixture.code(reset), Failure::InvalidToken),
            (Fixture::foreign_link("AAAAAAAAAAAAAAAAAAAAAA"), Failure::InvalidToken),
        ] {
            assert_eq!(refusal(&fixture, proof).await, failure);
        }
        let new = Password::new(OTHER_PASSWORD);
        assert!(fixture.run(ResetPassword { proof: fixture.link(link), new }).await.is_err());
        assert!(fixture.run(ConfirmEmail { proof: fixture.link(link) }).await.is_err());
        fixture.pass(fixture.services.policy.undo_lifetime - std::time::Duration::from_micros(1));
        let links = [fixture.link(link), fixture.link(later)];
        undo(&fixture, links[0].clone()).await.unwrap();
        fixture.pass(std::time::Duration::from_micros(1));
        let (head, version) = (fixture.head(), fixture.user(user).version);
        assert!(undo(&fixture, links[0].clone()).await.unwrap().already);
        assert_eq!(fixture.kinds_after(head), [SignalKind::UndoStarted, SignalKind::ChangeUndone]);
        assert_eq!(fixture.user(user).version, version);
        assert_eq!(refusal(&fixture, links[1].clone()).await, Failure::TokenMismatchOrExpired);

        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("a@example.com"), None).await;
        let link = fixture.link(replace(&fixture, user, "a@example.com", "b@example.com").await);
        fixture.pass(fixture.services.policy.undo_lifetime);
        assert_eq!(refusal(&fixture, link).await, Failure::TokenMismatchOrExpired);
    }

    #[tokio::test]
    async fn however_often_an_account_is_changed_the_earliest_links_are_kept() {
        let fixture = Fixture::with(unlimited()).await;
        let user = fixture.register_proven("ada", Some("a@example.com"), None).await;
        let first = replace(&fixture, user, "a@example.com", "b@example.com").await;
        for number in 0..60 {
            let (from, to) = if number % 2 == 0 { ("b", "c") } else { ("c", "b") };
            replace(&fixture, user, &format!("{from}@example.com"), &format!("{to}@example.com")).await;
        }
        let changes = fixture.services.reader.snapshot(|view| view.changes_of(user)).unwrap();
        assert_eq!((changes.len(), changes[0].token), (50, first));
        undo(&fixture, fixture.link(first)).await.unwrap();
        assert_eq!(fixture.user(user).contacts[0].canonical, "a@example.com");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_a_hundred_uses_at_once_one_undoes_it() {
        let fixture = Arc::new(Fixture::new().await);
        let user = fixture.register_proven("ada", Some("a@example.com"), None).await;
        let link = replace(&fixture, user, "a@example.com", "b@example.com").await;
        let version = fixture.user(user).version;
        let uses = (0..100).map(|_| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { undo(&fixture, fixture.link(link)).await.unwrap() })
        });
        let mut done = 0;
        for used in uses.collect::<Vec<_>>() {
            done += usize::from(!used.await.unwrap().already);
        }
        assert_eq!((done, fixture.user(user).version), (1, version + 1));
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once_with_the_addresses_of_the_change_and_no_password(
            user in any_user(),
            sessions in any_sessions(),
            (late, superseded, used, recorded, stolen) in any::<(bool, bool, bool, bool, bool)>(),
        ) {
            let (keys, policy) = (Keyring::ephemeral().unwrap(), Policy::default());
            let tokens = Tokens::new(keys.clone());
            let told = user_row("ada", Some("old@example.com")).contacts.remove(0);
            let expires_at = if late { NOW } else { NOW.plus(std::time::Duration::from_micros(1)) };
            let fresh = FreshToken::draw(keys.current());
            let span = (NOW, expires_at);
            let row = fresh.row(TokenPurpose::UndoChange, Some(user.id), &told.canonical, Binding::Change(4), span);
            let end = if used { Some(TokenEnd::Used) } else { superseded.then_some(TokenEnd::Superseded) };
            let row = TokenRow { end, ..row.enclosed() };
            let proof = Proof::from_link(&tokens.path(&row.claims()).unwrap()).unwrap();
            let contacts = vec![told.clone()];
            let (kind, token) = (ChangeKind::ContactReplaced, row.id);
            let change = ChangeRow { user: user.id, version: 4, kind, at: NOW, expires_at, contacts, told, token };
            let holder = if stolen { UserId::new() } else { user.id };
            let active = user.status == UserStatus::Active;
            let facts = Facts {
                token: Some(row),
                user: Some(user),
                bound: Bound { sessions, ..Bound::default() },
                change: recorded.then_some(change),
                holders: vec![Some(holder)],
                now: NOW,
                ..Facts::default()
            };
            let terms = Terms { tokens: &tokens, policy: &policy, fresh: FreshToken::draw(keys.current()) };
            let decision = decide(&Parsed::of(&proof), &facts, &terms);
            assert_one_end(&decision);
            assert_well_formed(&decision);
            let good = !late && !superseded && !used && recorded;
            prop_assert_eq!(decision.answer.is_ok(), good || used);
            prop_assert_eq!(decision.writes.is_empty(), !good);
            if let Some(after) = decision.user_after() {
                let left: Vec<_> = after.contacts.iter().map(|contact| contact.canonical.as_str()).collect();
                prop_assert_eq!(left, if stolen { vec![] } else { vec!["old@example.com"] });
                prop_assert!(decision.writes.iter().any(|write| matches!(write, Write::RemoveCredential(_))));
                prop_assert!(!decision.writes.iter().any(|write| matches!(write, Write::PutCredential(..))));
                let sends = decision.answer.as_ref().unwrap().reset.is_some();
                prop_assert_eq!(sends, active && !stolen);
                prop_assert_eq!(sends, decision.told.iter().any(|told| told.delivery.is_some()));
            }
        }
    }
}
