//! The words of majordomo: users, contacts, signals, requests and reasons, without I/O.

mod common_passwords;
mod contact;
mod denial_code;
mod email;
mod envelope;
mod error;
mod filter;
mod flow;
mod id;
mod identifier;
mod invalid_identifier;
mod password_names;
mod password_rules;
mod personal;
mod phone;
mod phone_plan;
mod reason;
mod request;
mod reserved_names;
mod sealed;
mod secret;
mod signal;
mod subscription;
mod time;
mod token_purpose;
mod user;
mod username;
mod username_tables;

pub use contact::{Channel, Contact};
pub use denial_code::{DenialCode, InvalidDenialCode};
pub use email::Email;
pub use envelope::{Envelope, Lane, SCHEMA_VERSION, Sender};
pub use error::Error;
pub use filter::Filter;
pub use flow::*;
pub use id::{CommandId, ContactId, FlowId, ParseIdError, SessionId, SignalId, StoreId, SystemId, TokenId, UserId};
pub use identifier::{Identifier, IdentifierKind};
pub use invalid_identifier::InvalidIdentifier;
pub use password_names::ForbiddenWords;
pub use password_rules::{NormalisedPassword, PasswordProblem, PasswordRules};
pub use personal::Personal;
pub use phone::Phone;
pub use phone_plan::PhoneKind;
pub use reason::{
    BreachCheckFailure, ChangeKind, DeletionCause, ErrorType, Failure, GuardFailure, LimitScope, LimitedAction,
    LoginMethod, MessageKind, PasswordCause, ProofMethod, RefusalCause, RevocationCause,
};
pub use request::{Actor, CONTEXT_TEXT_LIMIT, Command, Context, Flow, Reason};
pub use reserved_names::ReservedNames;
pub use sealed::Unseal;
pub use secret::{DeviceToken, OneTimeCode, OneTimeToken, Password, PasswordHash, ServiceSecret, SessionToken};
#[cfg(feature = "schema")]
pub use signal::json_schema;
pub use signal::{FlowKind, Signal, SignalClass, SignalField, SignalKind, catalogue_table};
pub use subscription::{Gap, MaxLag, OnFailure, RetryPolicy, Start};
pub use time::Timestamp;
pub use token_purpose::TokenPurpose;
pub use user::{
    ATTRIBUTE_DEPTH_LIMIT, ATTRIBUTES_LIMIT, GROUPS_LIMIT, NAME_LIMIT, PROFILE_FIELD_LIMIT, Profile, Session, User,
    UserContact, UserStatus, is_fit_name,
};
pub use username::Username;
