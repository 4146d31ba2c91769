//! Policy: the rules that several flows share, and the knobs that set them.

use std::collections::BTreeSet;
use std::time::Duration;

pub use majordomo_model::GROUPS_LIMIT;
use majordomo_model::{
    Channel, Contact, Failure, Identifier, NormalisedPassword, Password, PasswordProblem, PasswordRules, Personal,
    ReservedNames, SessionId, Signal, Timestamp, TokenPurpose, is_fit_name,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::limits::Limits;
use super::message_budget::MessageLimits;
use crate::hasher::Presented;
use crate::keys::Keyring;
use crate::stamp::SealKey;
use crate::storage::{ContactRow, SessionRow, UserRow, UsernameRow};

/// What is asked of users; every field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Policy {
    /// Whether users have a username. Default: optional.
    pub username: Requirement,
    /// Usernames that nobody may take, nor one that looks like them. Default: `admin`, `root`, `postmaster` and the like.
    /// They do not concern whoever has one already.
    pub reserved_usernames: ReservedNames,
    /// Whether users have an e-mail address. Default: optional.
    pub email: Requirement,
    /// Whether users have a phone number. Default: optional.
    pub phone: Requirement,
    /// Whether a registration tells that an address is taken. Default: discreet.
    pub registration: Registration,
    /// How an address is proven. Default: by a link or a code.
    pub verification: Verification,
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
    /// How long a verification link works, 24 hours at most (SP 800-63B-4, 4.2.1.2). Default 24 hours. One that a text
    /// message carries works as long as a code.
    pub verification_lifetime: Duration,
    /// How long a reset link works, 24 hours at most. Default 1 hour. One that a text message carries works as long as a
    /// code.
    pub reset_lifetime: Duration,
    /// How long a change of how a user is reached or signs in can be undone, and the address that it replaced or removed
    /// stays reserved, 30 days at most. Default 7 days.
    pub undo_lifetime: Duration,
    /// How long a code works. Default 10 minutes (ASVS 6.5.5).
    pub code_lifetime: Duration,
    /// How many wrong codes a token bears. Default 5.
    pub code_attempts: u32,
    /// How many messages may be asked for.
    pub messages: MessageLimits,
    /// How long the outcome of a command is remembered. Default 24 hours.
    pub outcome_keep: Duration,
    /// How often what costs something, or gives something away, may be asked for or failed at.
    pub limits: Limits,
    /// How many wrong passwords in a row put a lock on the account; 1 to 100 (SP 800-63B, 3.2.2). Default 100.
    pub lock_after: u32,
    /// How long a lock lasts. Each wrong password after it, and before a right one, puts it on again. Default 24 hours.
    pub lock_lifetime: Duration,
    /// How long a device stays known without a login. Default 180 days.
    pub device_lifetime: Duration,
    /// How long wrong passwords are remembered while there are no others, and no right one. Default 30 days.
    pub failures_keep: Duration,
    /// How many failures of one source are recorded one by one in a minute; more are counted. Default 600.
    pub failures_per_source: u32,
}

impl Default for Policy {
    fn default() -> Self {
        let (minute, hour, day) = (Duration::from_secs(60), Duration::from_secs(3600), Duration::from_secs(24 * 3600));
        Self {
            username: Requirement::Optional,
            reserved_usernames: ReservedNames::default(),
            email: Requirement::Optional,
            phone: Requirement::Optional,
            registration: Registration::Discreet,
            verification: Verification::LinkOrCode,
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
            limits: Limits::default(),
            lock_after: 100,
            lock_lifetime: day,
            device_lifetime: 180 * day,
            failures_keep: 30 * day,
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

/// How an address is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verification {
    /// By the link of its message, or by the code where it was asked for. Whoever reads the address and follows the link
    /// proves it for whichever account asked, be it a stranger's.
    LinkOrCode,
    /// By the code alone, entered where it was asked for: messages carry no link that could be followed for a stranger.
    Code,
}

/// The longest life of a link that verifies or resets (SP 800-63B-4, 4.2.1.2: by e-mail 24 hours).
const LINK_CEILING: Duration = Duration::from_secs(24 * 3_600);
/// The longest span in which a change can be undone, and an address is kept from others meanwhile.
const UNDO_CEILING: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The longest life of a code, and of what a text message carries (ASVS 6.5.5; SP 800-63B-4, 4.2.1.2).
const CODE_CEILING: Duration = Duration::from_secs(600);

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
        if !self.reserved_usernames.unfit().is_empty() {
            faults.push("policy.reserved_usernames: each must be a username itself".to_owned());
        }
        self.span_faults(&mut faults);
        for (name, count) in [
            ("contacts_per_user", self.contacts_per_user),
            ("sessions_per_user", self.sessions_per_user),
            ("code_attempts", self.code_attempts as usize),
        ] {
            if !(1..=1_000).contains(&count) {
                faults.push(format!("policy.{name}: 1 to 1000"));
            }
        }
        if !(1..=100).contains(&self.lock_after) {
            faults.push("policy.lock_after: 1 to 100".to_owned());
        }
        faults.extend(self.limits.faults());
        faults.extend(self.messages.faults());
        faults
            .extend(self.passwords.words.faults().into_iter().map(|fault| format!("policy.passwords.words: {fault}")));
        faults
    }

    fn span_faults(&self, faults: &mut Vec<String>) {
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
            ("lock_lifetime", self.lock_lifetime),
            ("device_lifetime", self.device_lifetime),
        ] {
            if span.is_zero() {
                faults.push(format!("policy.{name}: must be longer than nothing"));
            }
        }
        for (name, span, ceiling, words) in [
            ("code_lifetime", self.code_lifetime, CODE_CEILING, "10 minutes at most (ASVS 6.5.5)"),
            ("verification_lifetime", self.verification_lifetime, LINK_CEILING, "24 hours at most (SP 800-63B-4)"),
            ("reset_lifetime", self.reset_lifetime, LINK_CEILING, "24 hours at most (SP 800-63B-4)"),
            ("undo_lifetime", self.undo_lifetime, UNDO_CEILING, "30 days at most"),
        ] {
            if span > ceiling {
                faults.push(format!("policy.{name}: {words}"));
            }
        }
    }

    /// From when to when a token that proves an address works.
    pub(super) fn verification_span(&self, channel: Channel, now: Timestamp) -> (Timestamp, Timestamp) {
        let by_code = self.verification == Verification::Code;
        let lifetime = if by_code { self.code_lifetime } else { self.sent_by(channel, self.verification_lifetime) };
        (now, now.plus(lifetime))
    }

    /// From when to when a token that permits a new password works.
    pub(super) fn reset_span(&self, channel: Channel, now: Timestamp) -> (Timestamp, Timestamp) {
        (now, now.plus(self.sent_by(channel, self.reset_lifetime)))
    }

    /// How long a link works: nothing that a text message carries outlives a code.
    fn sent_by(&self, channel: Channel, lifetime: Duration) -> Duration {
        match channel {
            Channel::Email => lifetime,
            Channel::Phone => lifetime.min(self.code_lifetime),
        }
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
        PasswordProblem::Breached => Failure::PasswordBreached,
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
            majordomo_model::PasswordProblem::Breached => $reason::PasswordBreached,
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
    use majordomo_model::ForbiddenWords;

    use super::*;

    #[test]
    fn the_default_policy_is_sound_and_faults_come_all_at_once() {
        assert_eq!(Policy::default().faults(), Vec::<String>::new());
        let policy = Policy {
            must_verify: false,
            code_attempts: 0,
            session_lifetime: Duration::ZERO,
            code_lifetime: Duration::from_secs(601),
            reserved_usernames: ReservedNames::default().and(["two words"]),
            passwords: PasswordRules { words: ForbiddenWords::new(["!"]), ..PasswordRules::default() },
            ..Policy::default()
        };
        assert_eq!(policy.faults().len(), 6, "{:?}", policy.faults());
    }

    #[test]
    fn what_is_sent_may_live_as_long_as_its_ceiling_and_not_a_moment_longer() {
        let (code, link, undo) = (CODE_CEILING, LINK_CEILING, UNDO_CEILING);
        let with = |beyond: Duration| Policy {
            code_lifetime: code + beyond,
            verification_lifetime: link + beyond,
            reset_lifetime: link + beyond,
            undo_lifetime: undo + beyond,
            ..Policy::default()
        };
        assert_eq!(with(Duration::ZERO).faults(), Vec::<String>::new());
        let faults = with(Duration::from_micros(1)).faults();
        for name in ["code_lifetime", "verification_lifetime", "reset_lifetime", "undo_lifetime"] {
            assert!(faults.iter().any(|fault| fault.contains(&format!("policy.{name}:"))), "{name}: {faults:?}");
        }
        assert_eq!(faults.len(), 4);
    }

    #[test]
    fn nothing_that_a_text_message_carries_outlives_a_code() {
        let (policy, now) = (Policy::default(), Timestamp::from_micros(7));
        let lives = |(from, to): (Timestamp, Timestamp)| {
            assert_eq!(from, now);
            to
        };
        let code = now.plus(policy.code_lifetime);
        assert_eq!(lives(policy.verification_span(Channel::Phone, now)), code);
        assert_eq!(lives(policy.reset_span(Channel::Phone, now)), code);
        assert_eq!(lives(policy.verification_span(Channel::Email, now)), now.plus(policy.verification_lifetime));
        assert_eq!(lives(policy.reset_span(Channel::Email, now)), now.plus(policy.reset_lifetime));
        let by_code = Policy { verification: Verification::Code, ..policy };
        assert_eq!(lives(by_code.verification_span(Channel::Email, now)), code);
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
