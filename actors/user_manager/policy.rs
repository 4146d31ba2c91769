//! Policy: the rules that several flows share, and the knobs that set them.

use std::collections::BTreeSet;
use std::time::Duration;

pub use majordomo_model::GROUPS_LIMIT;
use majordomo_model::{
    Channel, Contact, Failure, FlowId, Identifier, NormalisedPassword, Password, PasswordProblem, PasswordRules,
    Personal, SessionId, Signal, Timestamp, TokenId, TokenPurpose, UserId, is_fit_name,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::message_budget::MessageLimits;
use crate::hasher::Presented;
use crate::keys::Keyring;
use crate::stamp::SealKey;
use crate::storage::{ContactRow, DeliveryState, SessionRow, TokenEnd, TokenRow, UserRow, UsernameRow, Write};
use crate::token::{Binding, KeyId};

/// What is asked of users; every field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Policy {
    /// Whether users have a username. Default: optional.
    pub username: Requirement,
    /// Whether users have an e-mail address. Default: optional.
    pub email: Requirement,
    /// Whether users have a phone number. Default: optional.
    pub phone: Requirement,
    /// Whether a registration tells that an address is taken. Default: discreet.
    pub registration: Registration,
    /// Whether a user who gave addresses must prove one before the first login. Default: yes; discreet needs it.
    pub must_verify: bool,
    /// How long an account whose addresses are all unproven is kept. Default 7 days.
    pub unverified_lifetime: Duration,
    /// What passwords must be like.
    pub passwords: PasswordRules,
    /// The groups that new users join. Default: `users`.
    pub default_groups: BTreeSet<String>,
    /// The most addresses of a user, proven and claimed. Default 10.
    pub contacts_per_user: usize,
    /// How long a session lasts at most. Default 30 days.
    pub session_lifetime: Duration,
    /// How long a session lasts without being used. Default 14 days.
    pub session_idle: Duration,
    /// How long after it was opened a session permits what needs the password. Default 10 minutes.
    pub session_recent: Duration,
    /// The most sessions of a user; one more ends the oldest. Default 50.
    pub sessions_per_user: usize,
    /// How long a verification link works. Default 24 hours.
    pub verification_lifetime: Duration,
    /// How long a reset link works. Default 1 hour.
    pub reset_lifetime: Duration,
    /// How long a change of how a user is reached or signs in can be undone, and the address that it replaced or removed
    /// stays reserved. Default 7 days.
    pub undo_lifetime: Duration,
    /// How long a code works. Default 10 minutes (ASVS 6.5.5).
    pub code_lifetime: Duration,
    /// How many wrong codes a token bears. Default 5.
    pub code_attempts: u32,
    /// How many messages may be asked for.
    pub messages: MessageLimits,
    /// How long the outcome of a command is remembered. Default 24 hours.
    pub outcome_keep: Duration,
    /// How long failed attempts at an identifier are remembered. Default 24 hours.
    pub failures_keep: Duration,
    /// How many failures of one source are recorded one by one in a minute; more are counted. Default 600.
    pub failures_per_source: u32,
}

impl Default for Policy {
    fn default() -> Self {
        let (minute, hour, day) = (Duration::from_secs(60), Duration::from_secs(3600), Duration::from_secs(24 * 3600));
        Self {
            username: Requirement::Optional,
            email: Requirement::Optional,
            phone: Requirement::Optional,
            registration: Registration::Discreet,
            must_verify: true,
            unverified_lifetime: 7 * day,
            passwords: PasswordRules::default(),
            default_groups: BTreeSet::from(["users".to_owned()]),
            contacts_per_user: 10,
            session_lifetime: 30 * day,
            session_idle: 14 * day,
            session_recent: 10 * minute,
            sessions_per_user: 50,
            verification_lifetime: day,
            reset_lifetime: hour,
            undo_lifetime: 7 * day,
            code_lifetime: 10 * minute,
            code_attempts: 5,
            messages: MessageLimits::default(),
            outcome_keep: day,
            failures_keep: day,
            failures_per_source: 600,
        }
    }
}

/// Whether users have an identifier of some kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Requirement {
    /// Every user has one.
    Required,
    /// A user may have one.
    Optional,
    /// No user has one.
    Forbidden,
}

/// Whether a registration tells that an address is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// The caller gets the same answer; the owner of the address is told by message.
    Discreet,
    /// The caller is told.
    Open,
}

impl Policy {
    /// Every fault of these settings, as sentences for whoever wrote them.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let kinds = [self.username, self.email, self.phone];
        if kinds.iter().all(|kind| *kind == Requirement::Forbidden) {
            faults.push("policy: username, email and phone are all forbidden, so nobody could register".to_owned());
        }
        if self.registration == Registration::Discreet && !self.must_verify {
            faults.push(
                "policy.must_verify: discreet registration needs it, for whoever can log in at once sees the difference"
                    .to_owned(),
            );
        }
        let fit = |group: &String| is_fit_name(group);
        if self.default_groups.len() > GROUPS_LIMIT || !self.default_groups.iter().all(fit) {
            faults.push("policy.default_groups: 64 names at most, of letters, digits, '_', '-', '.'".to_owned());
        }
        for (name, span) in [
            ("unverified_lifetime", self.unverified_lifetime),
            ("session_lifetime", self.session_lifetime),
            ("session_idle", self.session_idle),
            ("verification_lifetime", self.verification_lifetime),
            ("reset_lifetime", self.reset_lifetime),
            ("undo_lifetime", self.undo_lifetime),
            ("code_lifetime", self.code_lifetime),
            ("outcome_keep", self.outcome_keep),
            ("failures_keep", self.failures_keep),
        ] {
            if span.is_zero() {
                faults.push(format!("policy.{name}: must be longer than nothing"));
            }
        }
        if self.code_lifetime > Duration::from_secs(600) {
            faults.push("policy.code_lifetime: 10 minutes at most (ASVS 6.5.5)".to_owned());
        }
        for (name, count) in [
            ("contacts_per_user", self.contacts_per_user),
            ("sessions_per_user", self.sessions_per_user),
            ("code_attempts", self.code_attempts as usize),
        ] {
            if !(1..=1_000).contains(&count) {
                faults.push(format!("policy.{name}: 1 to 1000"));
            }
        }
        faults.extend(self.messages.faults());
        faults
    }

    /// The requirement for addresses of a channel.
    #[must_use]
    pub const fn channel(&self, channel: Channel) -> Requirement {
        match channel {
            Channel::Email => self.email,
            Channel::Phone => self.phone,
        }
    }

    /// Checks a password to be, against the rules and its owner's names.
    pub(super) fn check_password(
        &self,
        password: &Password,
        own_names: &[&str],
    ) -> Result<NormalisedPassword, PasswordProblem> {
        self.passwords.check(password, own_names)
    }

    /// A password to be compared, in the form that is hashed here, and as typed for what was hashed elsewhere. One that is longer than any that could be set becomes
    /// the empty one, which matches none, so that it costs what any other costs and no more.
    pub(super) fn password_to_compare(&self, password: &Password) -> Presented {
        let Some(normalised) = self.passwords.normalise_for_login(password) else {
            return Presented { normalised: Zeroizing::default(), typed: None };
        };
        let bytes = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        let typed = password.expose().as_bytes();
        let differs = typed != normalised.as_bytes();
        Presented { normalised: bytes(normalised.as_bytes()), typed: differs.then(|| bytes(typed)) }
    }
}

/// What a password problem is called in signals.
pub(super) const fn password_failure(problem: PasswordProblem) -> Failure {
    match problem {
        PasswordProblem::TooShort => Failure::PasswordTooShort,
        PasswordProblem::TooLong => Failure::PasswordTooLong,
        PasswordProblem::ContainsOwnName => Failure::PasswordContainsOwnName,
        _ => Failure::PasswordCommon,
    }
}

/// Turns a password problem into the reason of the same name of a flow.
macro_rules! password_reason {
    ($reason:ident, $problem:expr) => {
        match $problem {
            majordomo_model::PasswordProblem::TooShort => $reason::PasswordTooShort,
            majordomo_model::PasswordProblem::TooLong => $reason::PasswordTooLong,
            majordomo_model::PasswordProblem::ContainsOwnName => $reason::PasswordContainsOwnName,
            _ => $reason::PasswordCommon,
        }
    };
}
pub(super) use password_reason;

/// The same of an optional identifier.
pub(super) fn typed_optional(keys: &Keyring, text: Option<&String>) -> Option<Personal> {
    text.map(|text| typed(keys, text))
}

/// What somebody typed, before it is known whether it names a user: a keyed hash, and a redaction that shows nothing
/// of a text that may as well be a password.
pub(super) fn typed(keys: &Keyring, text: &str) -> Personal {
    shown(keys, text, Identifier::guess(text).ok().as_ref())
}

/// As [`typed`], of a text that was parsed already: into this, if it can name a user at all.
pub(super) fn shown(keys: &Keyring, text: &str, identifier: Option<&Identifier>) -> Personal {
    match identifier {
        Some(Identifier::Username(name)) => {
            Personal::unmatched("***", keys.identifier_hash("username", name.canonical()))
        }
        Some(identifier) => {
            let hash = keys.identifier_hash(identifier.kind().as_str(), identifier.canonical());
            Personal::unmatched(identifier.redacted(), hash)
        }
        None => Personal::unmatched("***", keys.identifier_hash("text", text)),
    }
}

/// An address of a known user.
pub(super) fn personal_contact(contact: &ContactRow) -> Personal {
    Personal::known(contact.address().redacted(), contact.canonical.clone())
}

/// An address of a known user that a message goes to: as it was typed, since only its own host may fold its case.
pub(super) fn personal_recipient(contact: &ContactRow) -> Personal {
    Personal::known(contact.address().redacted(), contact.original.clone())
}

/// An address that a known user is about to have.
pub(super) fn personal_address(address: &Contact) -> Personal {
    Personal::known(address.redacted(), address.canonical())
}

/// The name of a known user.
pub(super) fn personal_username(username: &UsernameRow) -> Personal {
    Personal::known(username.word().redacted(), username.canonical.clone())
}

/// The names that a user's password may not repeat.
pub(super) fn own_names(user: &UserRow) -> Vec<String> {
    let username = user.username.iter().map(|username| username.canonical.clone());
    username.chain(user.contacts.iter().map(|contact| contact.canonical.clone())).collect()
}

/// The key that a user's personal data is sealed under.
pub(super) const fn seal_key(user: &UserRow) -> SealKey {
    SealKey(user.seal_key.0)
}

/// The purpose of the token that proves an address of a channel.
pub(super) const fn verification_purpose(channel: Channel) -> TokenPurpose {
    match channel {
        Channel::Email => TokenPurpose::VerifyEmail,
        Channel::Phone => TokenPurpose::VerifyPhone,
    }
}

/// The purpose of the token that permits a new password, by the channel of its message.
pub(super) const fn reset_purpose(channel: Channel) -> TokenPurpose {
    match channel {
        Channel::Email => TokenPurpose::ResetByEmail,
        Channel::Phone => TokenPurpose::ResetByPhone,
    }
}

/// What makes a token: names and times that are not decided but drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreshToken {
    /// The token's name.
    pub(super) token: TokenId,
    /// The flow that will deliver its message.
    pub(super) delivery: FlowId,
    /// The master key that its secret is derived from.
    pub(super) key: KeyId,
}

impl FreshToken {
    /// Draws a token under the current key.
    pub(super) fn draw(key: KeyId) -> Self {
        Self { token: TokenId::new(), delivery: FlowId::new(), key }
    }

    /// The row of a token that proves a contact of a user.
    pub(super) fn verification(self, user: UserId, contact: &ContactRow, now: Timestamp, policy: &Policy) -> TokenRow {
        let binding = Binding::ContactRevision { contact: contact.id, revision: contact.revision };
        let purpose = verification_purpose(contact.channel);
        self.row(purpose, Some(user), &contact.canonical, binding, (now, now.plus(policy.verification_lifetime)))
    }

    /// A row of any purpose; `span` is when it begins and ends.
    pub(super) fn row(
        self,
        purpose: TokenPurpose,
        user: Option<UserId>,
        address: &str,
        binding: Binding,
        span: (Timestamp, Timestamp),
    ) -> TokenRow {
        TokenRow {
            id: self.token,
            purpose,
            user,
            address: address.to_owned(),
            binding,
            key: self.key,
            created_at: span.0,
            expires_at: span.1,
            attempts: 0,
            end: None,
            delivery: self.delivery,
            delivered: if user.is_some() { DeliveryState::Pending } else { DeliveryState::Withheld },
        }
    }
}

/// The signals that tell of a new verification token and start its delivery: 5 and 31, or their phone counterparts.
pub(super) fn verification_signals(
    user: UserId,
    row: &TokenRow,
    address: &Personal,
    supersedes: Option<TokenId>,
) -> [Signal; 2] {
    let (token, expires_at) = (row.id, row.expires_at);
    let address = address.clone();
    if row.purpose == TokenPurpose::VerifyPhone {
        [
            Signal::UserPhoneVerificationTokenGenerated {
                user,
                address: address.clone(),
                token,
                expires_at,
                supersedes,
            },
            Signal::VerifyPhone { user, phone: address, token },
        ]
    } else {
        [
            Signal::UserEmailVerificationTokenGenerated {
                user,
                address: address.clone(),
                token,
                expires_at,
                supersedes,
            },
            Signal::VerifyEmail { user, address, token },
        ]
    }
}

/// The writes that end tokens because something took their place.
pub(super) fn supersede(tokens: &[TokenRow]) -> Vec<Write> {
    tokens.iter().map(|token| Write::EndToken(token.id, TokenEnd::Superseded)).collect()
}

/// The signals that tell of ended sessions.
pub(super) fn revoked<'a>(
    sessions: impl IntoIterator<Item = &'a SessionRow>,
    cause: majordomo_model::RevocationCause,
) -> Vec<Signal> {
    let told = |session: &SessionRow| Signal::SessionRevoked { user: session.user, session: session.id, cause };
    sessions.into_iter().map(told).collect()
}

/// The sessions of a user that a change ends: all of the list but the one that is kept.
pub(super) fn ended_sessions(sessions: &[([u8; 32], SessionRow)], keep: Option<SessionId>) -> Vec<&SessionRow> {
    sessions.iter().map(|(_, session)| session).filter(|session| Some(session.id) != keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_is_sound_and_faults_come_all_at_once() {
        assert_eq!(Policy::default().faults(), Vec::<String>::new());
        let policy = Policy {
            must_verify: false,
            code_attempts: 0,
            session_lifetime: Duration::ZERO,
            code_lifetime: Duration::from_secs(601),
            ..Policy::default()
        };
        assert_eq!(policy.faults().len(), 4, "{:?}", policy.faults());
    }

    #[test]
    fn what_may_be_a_password_is_not_shown() {
        let keys = Keyring::ephemeral().unwrap();
        assert_eq!(typed(&keys, "hunter2 my password").redacted(), "***");
        assert_eq!(typed(&keys, "hunter2").redacted(), "***");
        assert_eq!(typed(&keys, "ada@example.com").redacted(), "a***@e***.com");
        assert_eq!(typed(&keys, "Ada@example.com").hash(), typed(&keys, "ada@example.com").hash());
    }
}
