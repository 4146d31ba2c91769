//! Reasons: what a failure signal tells about why, and the shape that every flow's own reasons share.

use serde::{Deserialize, Serialize};

/// Declares a closed list of words: an enum whose variants have a stable snake_case name and a sentence.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal: $sentence:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[non_exhaustive]
        pub enum $name {
            $(#[doc = $sentence] #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of the list.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable snake_case name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(match self { $(Self::$variant => $sentence,)+ })
            }
        }
    };
}

/// Declares the reasons of one flow: words that are also errors and implement [`Reason`](crate::Reason).
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($body:tt)+ }) => {
        $crate::reason::words! { $(#[$doc])* $name { $($body)+ } }
        impl std::error::Error for $name {}
        impl $crate::request::Reason for $name {
            fn as_str(&self) -> &'static str { Self::as_str(*self) }
        }
    };
}

pub(crate) use {reasons, words};

words! {
    /// Why something failed, as the signals tell it: the truth, which the caller of an uniform answer does not get.
    Failure {
        UsernameInvalid = "username_invalid": "the username is not acceptable",
        UsernameReserved = "username_reserved": "the username, or one that looks the same, is nobody's to take",
        EmailInvalid = "email_invalid": "the e-mail address is not acceptable",
        PhoneInvalid = "phone_invalid": "the phone number is not acceptable",
        UsernameRequired = "username_required": "a username is required",
        EmailRequired = "email_required": "an e-mail address is required",
        PhoneRequired = "phone_required": "a phone number is required",
        IdentifierRequired = "identifier_required": "at least one identifier is required",
        IdentifierInvalid = "identifier_invalid": "that is no username, e-mail address or phone number",
        IdentifierNotAllowed = "identifier_not_allowed": "this kind of identifier is not allowed here",
        PasswordTooShort = "password_too_short": "the password is too short",
        PasswordTooLong = "password_too_long": "the password is too long",
        PasswordCommon = "password_common": "the password is a common one",
        PasswordContainsOwnName = "password_contains_own_name": "the password repeats a name of its owner or a word of the app",
        PasswordBreached = "password_breached": "the password is known from a breach",
        HashUnrecognised = "hash_unrecognised": "the hash has no shape that is read",
        HashTooDear = "hash_too_dear": "checking the hash would cost more than is allowed",
        HashNotBuiltIn = "hash_not_built_in": "hashes of that kind need the feature foreign-hashes",
        ProfileInvalid = "profile_invalid": "a profile field or attribute is not acceptable",
        GroupInvalid = "group_invalid": "a group name is not acceptable",
        UsernameTaken = "username_taken": "the username is taken",
        EmailTaken = "email_taken": "the e-mail address is proven by another user",
        PhoneTaken = "phone_taken": "the phone number is proven by another user",
        VersionConflict = "version_conflict": "the user has changed since that version",
        ContactExists = "contact_exists": "the user has this contact already",
        ContactLimitReached = "contact_limit_reached": "the user has as many contacts as are allowed",
        LastIdentifier = "last_identifier": "it is the last means to reach or name the user",
        NothingToDo = "nothing_to_do": "it is so already",
        UserNotFound = "user_not_found": "there is no such user",
        ContactNotFound = "contact_not_found": "the user has no such contact",
        ContactNotVerified = "contact_not_verified": "the contact is not verified",
        SessionNotFound = "session_not_found": "there is no such session",
        IncorrectPassword = "incorrect_password": "the password is wrong",
        NoPassword = "no_password": "the user has no password",
        UserInactive = "user_inactive": "the user is disabled",
        UserLocked = "user_locked": "nobody may sign in as the user for a while, but from a known device",
        EmailNotVerified = "email_not_verified": "no contact of the user is verified",
        MalformedHash = "malformed_hash": "the stored hash is malformed or beyond the allowed cost",
        PasswordHashingError = "password_hashing_error": "the hasher failed",
        InvalidToken = "invalid_token": "the token or code is none of ours",
        TokenMismatchOrExpired = "token_mismatch_or_expired": "the token or code is expired, used, superseded or for something else",
        TokenUsed = "token_used": "the token or code was used before",
        TooManyAttempts = "too_many_attempts": "the code was guessed at too often",
        AlreadyVerified = "already_verified": "the address is verified already",
        CoolDown = "cool_down": "the same was asked for a moment ago, and its message is on its way",
        MessageLimitReached = "message_limit_reached": "as many messages were sent as are allowed, to the address, to those like it or in all",
        EmailSendFailed = "email_send_failed": "the message was given up",
        Expired = "expired": "it was not done in the time allowed",
        Overloaded = "overloaded": "there was no hashing capacity",
        DeadlineExceeded = "deadline_exceeded": "the deadline passed",
        Interrupted = "interrupted": "the flow was interrupted",
        Contended = "contended": "others changed the same rows again and again",
        CommandIdReused = "command_id_reused": "the command id was used before with other content",
        DeniedByGuard = "denied_by_guard": "a guard denied it",
        GuardUnavailable = "guard_unavailable": "a guard that must be heard gave no ruling",
        RepositoryError = "repository_error": "storage failed or was unavailable",
        UnexpectedException = "unexpected_exception": "the flow panicked",
    }
}

words! {
    /// The coarse class of a failure, under the names of the source documents where they have one.
    ErrorType {
        ValidationError = "validation_error": "the request was not acceptable",
        UserNotFound = "user_not_found": "there is no such user",
        InvalidToken = "invalid_token": "the token or code was not acceptable",
        PasswordHashingError = "password_hashing_error": "the hasher failed or was overloaded",
        EmailSendFailed = "email_send_failed": "the message was given up",
        RepositoryError = "repository_error": "storage failed or was unavailable",
        UnexpectedException = "unexpected_exception": "the flow failed inside",
    }
}

impl Failure {
    /// The coarse class of this failure.
    #[must_use]
    pub const fn error_type(self) -> ErrorType {
        match self {
            Self::UserNotFound => ErrorType::UserNotFound,
            Self::InvalidToken | Self::TokenMismatchOrExpired | Self::TokenUsed | Self::TooManyAttempts => {
                ErrorType::InvalidToken
            }
            Self::PasswordHashingError | Self::MalformedHash | Self::Overloaded => ErrorType::PasswordHashingError,
            Self::EmailSendFailed | Self::Expired | Self::MessageLimitReached => ErrorType::EmailSendFailed,
            Self::RepositoryError | Self::Contended => ErrorType::RepositoryError,
            Self::UnexpectedException | Self::Interrupted | Self::DeadlineExceeded | Self::GuardUnavailable => {
                ErrorType::UnexpectedException
            }
            _ => ErrorType::ValidationError,
        }
    }
}

words! {
    /// Why a password credential was stored.
    PasswordCause {
        Registration = "registration": "the user registered",
        Reset = "reset": "the user reset it with a token or code",
        Change = "change": "the user changed it, knowing the old one",
        Rehash = "rehash": "the same password under newer parameters",
        Import = "import": "the hash came with the user from another system",
        Admin = "admin": "reserved",
    }
}

words! {
    /// How an address was proven.
    ProofMethod {
        Link = "link": "by the link",
        Code = "code": "by the code",
        Admin = "admin": "an operator vouched for it",
    }
}

words! {
    /// What a user signed in with.
    LoginMethod {
        Password = "password": "by password",
    }
}

words! {
    /// Why a session ended before its time.
    RevocationCause {
        LogOut = "log_out": "the user logged out",
        Ended = "ended": "it was ended from the list of sessions",
        PasswordReset = "password_reset": "the password was reset",
        PasswordChange = "password_change": "the password was changed",
        Disabled = "disabled": "the user was disabled",
        Deleted = "deleted": "the user was deleted",
        Repeated = "repeated": "the same login command was sent again",
        Evicted = "evicted": "the user opened more sessions than are kept",
        Undone = "undone": "a change of how the user is reached or signs in was undone",
    }
}

words! {
    /// A change of how a user is reached or signs in, which can be undone for a while.
    ChangeKind {
        ContactAdded = "contact_added": "a further address was proven",
        ContactReplaced = "contact_replaced": "a proven address took the place of another one",
        ContactRemoved = "contact_removed": "a proven address was given up",
        PasswordChanged = "password_changed": "the password was changed",
        PasswordReset = "password_reset": "the password was reset",
    }
}

words! {
    /// Why a user was deleted.
    DeletionCause {
        Requested = "requested": "somebody asked for it",
        NeverVerified = "never_verified": "no address was verified in the time allowed",
    }
}

words! {
    /// Why a request was refused at admission, before any flow began.
    RefusalCause {
        Overloaded = "overloaded": "there was no place",
        StorageUnavailable = "storage_unavailable": "storage was out",
        Stopped = "stopped": "the system was shutting down",
        CalledFromGuard = "called_from_guard": "a guard asked the system in turn",
        Throttled = "throttled": "whoever asked had asked, or failed, too often",
    }
}

words! {
    /// What is limited: how often it may be asked for, or failed at.
    LimitedAction {
        Login = "login": "a wrong password, in a login or where the current password is asked for",
        Register = "register": "a registration",
        Reset = "reset": "a request for a message that permits a new password",
        Resend = "resend": "a request for a message that proves an address",
        Verify = "verify": "a link that is worth nothing",
        Code = "code": "a code that is worth nothing",
    }
}

words! {
    /// Whose attempts a limit counts.
    LimitScope {
        AccountAndSource = "account_and_source": "one account's or name's from one source, or from one known device",
        Source = "source": "one source's: an IPv4 address, or an IPv6 network of 64 bits",
        Network = "network": "one IPv6 network's of 48 bits",
        Global = "global": "everybody's",
    }
}

words! {
    /// Why a guard gave no ruling that holds.
    GuardFailure {
        Panicked = "panicked": "it panicked",
        DeadlineExceeded = "deadline_exceeded": "it did not answer in time",
        InvalidAmendment = "invalid_amendment": "it amended what it may not, or to something that is not acceptable",
        Overloaded = "overloaded": "it was asked as much at once as it may be",
        Suspended = "suspended": "it failed too often in a row and is not asked for a while",
        OutOfService = "out_of_service": "it blocks as many threads as it may, or none could be started",
    }
}

words! {
    /// Why it was not found out whether a password is known from a breach.
    BreachCheckFailure {
        Unreachable = "unreachable": "the service was not reached, or its answer was lost",
        DeadlineExceeded = "deadline_exceeded": "it did not answer in time",
        Refused = "refused": "the service answered with another status than success",
        TooLarge = "too_large": "the answer was larger than any that is expected",
        Malformed = "malformed": "the answer is not what the service is said to answer",
        Panicked = "panicked": "it panicked",
        Overloaded = "overloaded": "it was asked as much at once as it may be",
        Suspended = "suspended": "it failed too often in a row and is not asked for a while",
        OutOfService = "out_of_service": "there was no thread for it",
    }
}

impl std::error::Error for BreachCheckFailure {}

/// The kind of message a delivery is about; each has a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MessageKind {
    /// The link (and code) that verifies an e-mail address.
    VerifyEmail,
    /// The code (and link) that verifies a phone number.
    VerifyPhone,
    /// The link (and code) that resets a password, by e-mail.
    ResetPasswordEmail,
    /// The code (and link) that resets a password, by phone.
    ResetPasswordPhone,
    /// Tells the owner of an address that somebody tried to register with it.
    AddressTaken,
    /// Tells the old address that it was replaced.
    ContactChanged,
    /// Tells the user that the password was changed or reset.
    PasswordChanged,
    /// Tells the user that somebody signed in from where they have not signed in before.
    NewSignIn,
    /// Tells the user that nobody can sign in for a while, after too many failed attempts.
    AccountLocked,
    /// Tells the user's first address that another one was added.
    ContactAdded,
    /// Tells the address that was given up.
    ContactRemoved,
    /// Tells the user that the username was changed.
    UsernameChanged,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<W: Serialize + std::fmt::Debug + std::fmt::Display + Copy>(all: &[W], word: fn(W) -> &'static str) {
        let mut seen = std::collections::BTreeSet::new();
        for value in all {
            let word = word(*value);
            assert_eq!(serde_json::to_value(value).unwrap(), word);
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{word}");
            assert!(!value.to_string().is_empty() && seen.insert(word), "{value:?}");
        }
        assert!(!seen.is_empty());
    }

    #[test]
    fn words_are_their_serde_form_and_distinct() {
        check(Failure::ALL, Failure::as_str);
        check(ErrorType::ALL, ErrorType::as_str);
        check(PasswordCause::ALL, PasswordCause::as_str);
        check(ProofMethod::ALL, ProofMethod::as_str);
        check(LoginMethod::ALL, LoginMethod::as_str);
        check(RevocationCause::ALL, RevocationCause::as_str);
        check(ChangeKind::ALL, ChangeKind::as_str);
        check(DeletionCause::ALL, DeletionCause::as_str);
        check(RefusalCause::ALL, RefusalCause::as_str);
        check(LimitedAction::ALL, LimitedAction::as_str);
        check(LimitScope::ALL, LimitScope::as_str);
        check(GuardFailure::ALL, GuardFailure::as_str);
        check(BreachCheckFailure::ALL, BreachCheckFailure::as_str);
        check(crate::FlowKind::ALL, crate::FlowKind::as_str);
        check(crate::SignalClass::ALL, crate::SignalClass::as_str);
    }

    #[test]
    fn a_failure_that_names_a_class_is_of_that_class() {
        for failure in Failure::ALL {
            if let Some(class) = ErrorType::ALL.iter().find(|class| class.as_str() == failure.as_str()) {
                assert_eq!(failure.error_type(), *class);
            }
        }
    }
}
