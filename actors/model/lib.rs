//! The words of majordomo: users, contacts, signals, requests and reasons, without I/O.

mod common_passwords;
mod contact;
mod email;
mod id;
mod identifier;
mod invalid_identifier;
mod password_rules;
mod phone;
mod secret;
mod time;
mod username;

pub use contact::{Channel, Contact};
pub use email::Email;
pub use id::{CommandId, ContactId, FlowId, ParseIdError, SessionId, SignalId, SystemId, TokenId, UserId};
pub use identifier::{Identifier, IdentifierKind};
pub use invalid_identifier::InvalidIdentifier;
pub use password_rules::{NormalisedPassword, PasswordProblem, PasswordRules};
pub use phone::Phone;
pub use secret::{OneTimeCode, OneTimeToken, Password, SessionToken};
pub use time::Timestamp;
pub use username::Username;
