//! The words of majordomo: users, contacts, signals, requests and reasons, without I/O.

mod contact;
mod envelope;
mod error;
mod filter;
mod flow;
mod id;
mod personal;
mod reason;
mod request;
mod secret;
mod signal;
mod time;
mod user;

pub use contact::{Channel, Contact, Email, Identifier, IdentifierKind, InvalidIdentifier, Phone, Username};
pub use envelope::{Envelope, Lane, SCHEMA_VERSION, Sender};
pub use error::Error;
pub use filter::Filter;
pub use flow::*;
pub use id::{CommandId, ContactId, FlowId, ParseIdError, SessionId, SignalId, SystemId, TokenId, UserId};
pub use personal::Personal;
pub use reason::{
    DeletionCause, ErrorType, Failure, LoginMethod, MessageKind, PasswordCause, ProofMethod, RefusalCause,
    RevocationCause,
};
pub use request::{Actor, CONTEXT_TEXT_LIMIT, Command, Context, Flow, Reason};
pub use secret::{OneTimeCode, OneTimeToken, Password, SessionToken};
pub use signal::{FlowKind, Signal, SignalClass, SignalField, SignalKind};
pub use time::Timestamp;
pub use user::{
    ATTRIBUTES_LIMIT, NAME_LIMIT, PROFILE_FIELD_LIMIT, Profile, Session, User, UserContact, UserStatus, is_fit_name,
};
