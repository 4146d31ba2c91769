//! Register: a person becomes a user.

use serde::{Deserialize, Serialize};

use super::flow;
use crate::id::{TokenId, UserId};
use crate::reason::reasons;
use crate::secret::Password;
use crate::user::Profile;

/// Registers a user. Which identifiers are allowed and required is configuration.
///
/// When the reply comes, the user, the username's reservation, the address claims and every signal are durable; the
/// verification messages are on their way. An address that is given is a *claim* until it is proven.
#[derive(Clone)]
pub struct Register {
    /// The username, as typed.
    pub username: Option<String>,
    /// The e-mail address, as typed.
    pub email: Option<String>,
    /// The phone number in E.164, as typed; spaces, hyphens, dots and parentheses are dropped.
    pub phone: Option<String>,
    /// The password.
    pub password: Password,
    /// What else is known of the person.
    pub profile: Profile,
}

impl Register {
    /// A registration with this password and nothing else, to be completed by struct update syntax.
    #[must_use]
    pub fn new(password: impl Into<String>) -> Self {
        let password = Password::new(password);
        Self { username: None, email: None, phone: None, password, profile: Profile::default() }
    }
}

/// A registration or an import was accepted.
///
/// In discreet mode it looks the same when an address is already proven by somebody else: that address can then never
/// be verified by this user, and its owner is told.
/// Of an import, an address that is proven has no challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The new user.
    pub user: UserId,
    /// What the code in the e-mail answers.
    pub email_challenge: Option<TokenId>,
    /// What the code in the text message answers.
    pub phone_challenge: Option<TokenId>,
}

reasons! {
    /// Why a registration was refused.
    RegisterReason {
        UsernameRequired = "username_required": "a username is required",
        EmailRequired = "email_required": "an e-mail address is required",
        PhoneRequired = "phone_required": "a phone number is required",
        IdentifierRequired = "identifier_required": "a username, an e-mail address or a phone number is required",
        IdentifierNotAllowed = "identifier_not_allowed": "this kind of identifier is not allowed here",
        UsernameInvalid = "username_invalid": "the username is not acceptable",
        UsernameReserved = "username_reserved": "the username, or one that looks the same, is nobody's to take",
        EmailInvalid = "email_invalid": "the e-mail address is not acceptable",
        PhoneInvalid = "phone_invalid": "the phone number is not acceptable",
        PasswordTooShort = "password_too_short": "the password is too short",
        PasswordTooLong = "password_too_long": "the password is too long",
        PasswordCommon = "password_common": "the password is a common one",
        PasswordContainsOwnName = "password_contains_own_name": "the password repeats a name of its owner or a word of the app",
        PasswordBreached = "password_breached": "the password is known from a breach",
        ProfileInvalid = "profile_invalid": "a profile field or attribute is not acceptable",
        UsernameTaken = "username_taken": "the username, or one that looks the same, is taken",
        EmailTaken = "email_taken": "the e-mail address is taken (told in open mode only)",
        PhoneTaken = "phone_taken": "the phone number is taken (told in open mode only)",
    }
}

flow!(Register, Register, Accepted, RegisterReason, |m| (
    (&m.username, &m.email, &m.phone),
    serde_json::to_string(&m.profile).ok()
));
