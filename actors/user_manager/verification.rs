//! Verification: what a proof of an address changes, whatever the channel.

use majordomo_model::{
    ChangeKind, Channel, ContactId, Failure, Personal, ProofMethod, Timestamp, TokenId, UserId, UserStatus,
};

use super::common_budget::answered;
use super::flow::Services;
use super::policy::{personal_contact, reset_purpose, seal_key, verification_purpose};
use super::proof::{Judgement, Parsed, judge};
use super::proven::{Proven, with_proof};
use super::undo::{Recorded, Undo, told_first};
use crate::stamp::SealKey;
use crate::storage::{
    ChangeRow, Check, ContactRow, Lookup, ReadError, ReadView, TokenEnd, TokenRow, UniqueKey, UserRow, Write,
};
use crate::token::Binding;

/// What the store says about a presented proof.
#[derive(Clone, Debug)]
pub(super) struct ProofFacts {
    /// The token that the proof names.
    presented: Option<TokenId>,
    /// How the proof came.
    via: ProofMethod,
    /// What the proof is worth by its token's row.
    judgement: Judgement,
    token: Option<TokenRow>,
    user: Option<UserRow>,
    /// Whom the token's address is kept for: who has proven it, or gave it up and may have it back.
    holder: Option<UserId>,
    /// The user's open tokens that prove addresses of the channel.
    verifications: Vec<TokenRow>,
    /// The user's open tokens that reset the password by way of the channel.
    resets: Vec<TokenRow>,
    /// The user's changes that can be undone.
    changes: Vec<ChangeRow>,
    now: Timestamp,
}

impl ProofFacts {
    pub(super) fn read(
        view: &ReadView,
        services: &Services,
        parsed: &Parsed<'_>,
        channel: Channel,
        now: Timestamp,
    ) -> Result<Self, ReadError> {
        let (purpose, presented) = (verification_purpose(channel), parsed.token());
        let token = presented.map_or(Ok(None), |token| view.token(token))?;
        let judgement = judge(&services.tokens, parsed, token.as_ref(), &[purpose], now, &services.policy);
        let via = if parsed.is_link() { ProofMethod::Link } else { ProofMethod::Code };
        let mut facts = Self {
            presented,
            via,
            judgement,
            token: None,
            user: None,
            holder: None,
            verifications: Vec::new(),
            resets: Vec::new(),
            changes: Vec::new(),
            now,
        };
        if let Some((user, address)) = token.as_ref().and_then(|token| Some((token.user?, &token.address))) {
            facts.user = view.user(user)?;
            facts.holder = view.holder(&UniqueKey::address(channel, address), now)?;
            facts.verifications = view.open_tokens(user, purpose, None)?;
            facts.resets = view.open_tokens(user, reset_purpose(channel), None)?;
            facts.changes = view.changes_of(user)?;
        }
        Ok(Self { token, ..facts })
    }

    /// What the proof comes to.
    pub(super) fn prove(&self, channel: Channel, undo: &Undo<'_>) -> Result<Proven<'_>, Unproven<'_>> {
        let unproven = |failure| self.unproven(failure);
        match self.judgement {
            Judgement::Good | Judgement::Used => {}
            Judgement::WrongCode => return Err(self.wrong_code()),
            Judgement::Bad(failure) => return Err(unproven(failure)),
        }
        let token = self.token.as_ref().ok_or_else(|| unproven(Failure::InvalidToken))?;
        let (user, contact) = self.bound(token, channel).map_err(unproven)?;
        let open = self.judgement == Judgement::Good;
        match contact.proven_at {
            None if open => Ok(self.first_proof(token, user, contact, undo)),
            None => Err(unproven(Failure::TokenMismatchOrExpired)),
            Some(_) => {
                let mut proven = Proven::already(user, contact, self.via);
                if open {
                    proven.checks.push(Check::TokenOpen(token.id, token.attempts));
                    proven.writes.push(Write::EndToken(token.id, TokenEnd::Used));
                    proven.writes.extend(answered(token));
                }
                Ok(proven)
            }
        }
    }

    /// The user and the contact that a token is bound to, if they are as they were when it was made.
    fn bound(&self, token: &TokenRow, channel: Channel) -> Result<(&UserRow, &ContactRow), Failure> {
        let user = self.user.as_ref().ok_or(Failure::UserNotFound)?;
        let contact = bound_contact(token, user, channel).ok_or(Failure::TokenMismatchOrExpired)?;
        if user.status != UserStatus::Active {
            return Err(Failure::UserInactive);
        }
        match self.holder {
            Some(holder) if holder != user.id => Err(taken(channel)),
            _ => Ok((user, contact)),
        }
    }

    /// The revision stays, so that the used link still fits its contact and is told so; what else was open for the
    /// contact ends by name.
    fn first_proof<'a>(
        &'a self,
        token: &TokenRow,
        user: &'a UserRow,
        contact: &'a ContactRow,
        undo: &Undo<'_>,
    ) -> Proven<'a> {
        let replaced = contact.replaces.and_then(|replaced| user.contact(replaced));
        let key = address_key(contact);
        let names = |tokens: &[TokenRow]| tokens.iter().map(|token| token.id).collect();
        let mut checks = vec![
            Check::UserVersion(user.id, user.version),
            Check::TokenOpen(token.id, token.attempts),
            Check::Holder(key.clone(), self.holder, self.now),
            Check::OpenTokens(user.id, verification_purpose(contact.channel), names(&self.verifications)),
        ];
        let mut writes = vec![Write::EndToken(token.id, TokenEnd::Used)];
        writes.extend(answered(token));
        if let Some(replaced) = replaced {
            checks.push(Check::OpenTokens(user.id, reset_purpose(contact.channel), names(&self.resets)));
            let sent_there = self.resets.iter().filter(|reset| reset.address == replaced.canonical);
            writes.extend(sent_there.map(|reset| Write::EndToken(reset.id, TokenEnd::Superseded)));
            writes.push(match replaced.proven_at {
                Some(_) => Write::RemoveOwner(address_key(replaced)),
                None => Write::RemoveClaim(replaced.channel, replaced.canonical.clone(), user.id),
            });
        }
        let ends = |bound: ContactId| bound == contact.id || replaced.is_some_and(|replaced| replaced.id == bound);
        let others = self.verifications.iter().filter(|other| other.id != token.id);
        let others = others.filter(|other| other.binding.contact().is_some_and(ends));
        writes.extend(others.map(|other| Write::EndToken(other.id, TokenEnd::Superseded)));
        writes.extend(user.verify_by.map(|_| Write::ForgetVerification(user.id)));
        writes.push(Write::RemoveClaim(contact.channel, contact.canonical.clone(), user.id));
        writes.push(Write::PutOwner(key, user.id));
        writes.push(Write::PutUser(Box::new(with_proof(user, contact, replaced, self.now))));
        let undo = self.recorded(user, replaced, undo);
        writes.extend(undo.writes);
        let undo = undo.token;
        Proven { checks, writes, replaced, already: false, undo, ..Proven::already(user, contact, self.via) }
    }

    /// How it can be undone: from the address that gives way, else from where the user is told first. The first address
    /// that a user proves changes nothing that anybody else could want back.
    fn recorded(&self, user: &UserRow, replaced: Option<&ContactRow>, undo: &Undo<'_>) -> Recorded {
        let (kind, told) = match replaced.filter(|replaced| replaced.proven_at.is_some()) {
            Some(replaced) => (ChangeKind::ContactReplaced, Some(replaced)),
            None => (ChangeKind::ContactAdded, told_first(user)),
        };
        undo.record(user, kind, told, &self.changes, self.now)
    }

    /// Counted in the commit that refuses it, against the count it was compared under, so that no two guesses share a
    /// count. A token that has ended is worth no guess; there the count need not be exact.
    fn wrong_code(&self) -> Unproven<'_> {
        let mut unproven = self.unproven(Failure::InvalidToken);
        if let Some(token) = &self.token {
            unproven.writes.push(Write::CountAttempt(token.id));
            if token.end.is_none() {
                unproven.checks.push(Check::TokenOpen(token.id, token.attempts));
            }
        }
        unproven
    }

    fn unproven(&self, failure: Failure) -> Unproven<'_> {
        let user = self.user.as_ref();
        let named = self.token.as_ref().and_then(|token| token.binding.contact());
        let contact = user.zip(named).and_then(|(user, named)| user.contact(named));
        let known = Known { user, contact };
        Unproven { checks: Vec::new(), writes: Vec::new(), failure, token: self.presented, known }
    }
}

/// A proof that proves nothing.
pub(super) struct Unproven<'a> {
    pub(super) checks: Vec<Check>,
    pub(super) writes: Vec<Write>,
    /// The truth, which the caller is not told.
    pub(super) failure: Failure,
    /// The token that was named.
    pub(super) token: Option<TokenId>,
    /// Whom and what it is about.
    pub(super) known: Known<'a>,
}

/// Whom and what a refusal is about, as far as that is known.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) user: Option<&'a UserRow>,
    pub(super) contact: Option<&'a ContactRow>,
}

impl Known<'_> {
    pub(super) fn subject(self) -> Option<(UserId, SealKey)> {
        self.user.map(|user| (user.id, seal_key(user)))
    }

    pub(super) fn user(self) -> Option<UserId> {
        self.user.map(|user| user.id)
    }

    pub(super) fn address(self) -> Option<Personal> {
        self.contact.map(personal_contact)
    }
}

/// The contact that a token is bound to, in the state and with the address that it had then.
fn bound_contact<'a>(token: &TokenRow, user: &'a UserRow, channel: Channel) -> Option<&'a ContactRow> {
    let Binding::ContactRevision { contact, revision } = token.binding else { return None };
    let same = |contact: &&ContactRow| {
        contact.revision == revision && contact.channel == channel && contact.canonical == token.address
    };
    user.contact(contact).filter(same)
}

pub(super) fn address_key(contact: &ContactRow) -> UniqueKey {
    UniqueKey::address(contact.channel, &contact.canonical)
}

pub(super) const fn taken(channel: Channel) -> Failure {
    match channel {
        Channel::Email => Failure::EmailTaken,
        Channel::Phone => Failure::PhoneTaken,
    }
}

/// Facts of every shape, and what holds for whatever is decided on them.
#[cfg(test)]
pub(super) mod cases {
    use std::mem::discriminant;

    use majordomo_model::{Contact, Email, Flow, FlowId, Phone, TokenPurpose};
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::fixture::Fixture;
    use super::super::flow::Decision;
    use super::super::fresh_token::FreshToken;
    use super::*;
    use crate::bytes::Bytes;
    use crate::keys::Keyring;
    use crate::storage::{Batch, Verdict};

    pub(in super::super) const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    /// An address of each channel.
    pub(in super::super) fn address(channel: Channel, name: &str) -> Contact {
        match channel {
            Channel::Email => Email::parse(&format!("{name}@example.com")).unwrap().into(),
            Channel::Phone => Phone::parse(&format!("+4479111234{:02}", name.len())).unwrap().into(),
        }
    }

    /// A user with a contact that is to be proven and one that it may replace.
    pub(in super::super) fn user(channel: Channel) -> impl Strategy<Value = UserRow> {
        let status = select(&[UserStatus::Active, UserStatus::Disabled][..]);
        (status, any::<bool>(), any::<bool>(), any::<bool>(), 0..2_u32).prop_map(
            move |(status, proven, old_proven, replaces, revision)| {
                let old = ContactRow {
                    proven_at: old_proven.then_some(NOW),
                    primary: old_proven,
                    ..ContactRow::claim(ContactId::from_bytes([1; 16]), &address(channel, "old"), NOW)
                };
                let new = ContactRow {
                    proven_at: proven.then_some(NOW),
                    replaces: replaces.then_some(old.id),
                    revision,
                    ..ContactRow::claim(ContactId::from_bytes([2; 16]), &address(channel, "young"), NOW)
                };
                UserRow {
                    id: UserId::from_bytes([3; 16]),
                    version: 4,
                    created_at: NOW,
                    status,
                    username: None,
                    contacts: vec![old, new],
                    profile: majordomo_model::Profile::default(),
                    groups: std::collections::BTreeSet::new(),
                    epoch: 1,
                    verify_by: (!proven && !old_proven).then_some(NOW),
                    seal_key: Bytes([5; 32]),
                }
            },
        )
    }

    pub(in super::super) fn token(channel: Channel) -> impl Strategy<Value = TokenRow> {
        let end = select(&[None, Some(TokenEnd::Used), Some(TokenEnd::Superseded)][..]);
        (any::<[u8; 16]>(), any::<bool>(), 0..2_u32, 1..3_u8, 0..6_u32, end).prop_map(
            move |(id, held, revision, contact, attempts, end)| {
                let fresh = FreshToken {
                    token: TokenId::from_bytes(id),
                    delivery: FlowId::new(),
                    key: Keyring::ephemeral().unwrap().current(),
                };
                let binding = Binding::ContactRevision { contact: ContactId::from_bytes([contact; 16]), revision };
                let holder = held.then_some(UserId::from_bytes([3; 16]));
                let of = address(channel, if contact == 1 { "old" } else { "young" });
                let row = fresh.row(verification_purpose(channel), holder, of.canonical(), binding, (NOW, NOW));
                TokenRow { attempts, end, ..row }
            },
        )
    }

    pub(in super::super) fn owner() -> impl Strategy<Value = Option<UserId>> {
        select(vec![None, Some(UserId::from_bytes([3; 16])), Some(UserId::from_bytes([9; 16]))])
    }

    pub(in super::super) fn proof_facts(channel: Channel) -> impl Strategy<Value = ProofFacts> {
        let judgement = prop_oneof![
            3 => Just(Judgement::Good),
            1 => Just(Judgement::Used),
            1 => Just(Judgement::WrongCode),
            1 => select(Failure::ALL).prop_map(Judgement::Bad),
        ];
        let open = || prop::collection::vec(token(channel), 0..3);
        let rows = (prop::option::of(token(channel)), prop::option::of(user(channel)), open(), open());
        (judgement, owner(), rows).prop_map(|(judgement, owner, (token, user, verifications, resets))| ProofFacts {
            presented: token.as_ref().map(|token| token.id),
            via: ProofMethod::Link,
            judgement,
            token,
            user,
            holder: owner,
            verifications,
            resets,
            changes: Vec::new(),
            now: NOW,
        })
    }

    /// One end, which ends this flow; nothing between that starts or ends it; no row of a user without its guard.
    pub(in super::super) fn assert_sound<F: Flow>(decision: &Decision<F>) {
        assert!(decision.end.kind().ends().contains(&F::KIND), "{:?}", decision.end);
        for told in &decision.told {
            // What belongs to the flow of a delivery may be called as an end of this one.
            let kind = told.signal.kind();
            let ends = told.delivery.is_none() && kind.ends().contains(&F::KIND);
            assert!(!kind.starts().contains(&F::KIND) && !ends, "{kind:?}");
        }
        for write in &decision.writes {
            let Write::PutUser(after) = write else { continue };
            let guarded = |check: &Check| match check {
                Check::UserVersion(user, version) => *user == after.id && version + 1 == after.version,
                _ => false,
            };
            assert!(decision.checks.iter().any(guarded));
            let primaries = after.contacts.iter().filter(|contact| contact.primary);
            assert_eq!(primaries.count(), 1);
        }
    }

    /// The kinds of a decision's changes, in order.
    pub(in super::super) fn shape<F: Flow>(decision: &Decision<F>) -> Vec<std::mem::Discriminant<Write>> {
        decision.writes.iter().map(discriminant).collect()
    }

    impl Fixture {
        /// Stores rows as some other flow would.
        pub(in super::super) async fn store(&self, writes: Vec<Write>) {
            let batch = Batch { flow: FlowId::new(), outcome: None, checks: Vec::new(), writes, signals: Vec::new() };
            self.services.storage.commit(batch).await.unwrap();
        }

        /// Changes a user's row as some other flow would.
        pub(in super::super) async fn change(&self, user: UserId, change: impl FnOnce(&mut UserRow)) {
            let mut row = self.row(user);
            change(&mut row);
            row.version += 1;
            self.store(vec![Write::PutUser(Box::new(row))]).await;
        }

        /// Commits what was decided, and tells whether its facts still held.
        pub(in super::super) async fn commit<F: Flow>(&self, decision: Decision<F>) -> bool {
            let Decision { checks, writes, .. } = decision;
            let batch = Batch { flow: FlowId::new(), outcome: None, checks, writes, signals: Vec::new() };
            matches!(self.services.storage.commit(batch).await.unwrap(), Verdict::Committed(_))
        }

        pub(in super::super) fn row(&self, user: UserId) -> UserRow {
            self.services.reader.user_row(user).unwrap().unwrap()
        }

        pub(in super::super) fn stored_token(&self, token: TokenId) -> TokenRow {
            self.services.reader.token(token).unwrap().unwrap()
        }

        pub(in super::super) fn owner_of(&self, address: &Contact) -> Option<UserId> {
            let key = UniqueKey::address(address.channel(), address.canonical());
            self.services.reader.snapshot(|view| view.owner(&key)).unwrap()
        }

        /// An open token of any purpose.
        pub(in super::super) async fn token(
            &self,
            purpose: TokenPurpose,
            user: UserId,
            address: &str,
            binding: Binding,
        ) -> TokenId {
            let now = self.clock.now();
            let fresh = FreshToken::draw(self.services.tokens.current_key());
            let span = (now, now.plus(std::time::Duration::from_secs(3600)));
            let row = fresh.row(purpose, Some(user), address, binding, span);
            self.store(vec![Write::PutToken(Box::new(row))]).await;
            fresh.token
        }
    }
}
