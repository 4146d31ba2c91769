//! The words of majordomo: users, contacts, signals, requests and reasons, without I/O.

mod id;
mod time;
mod token_purpose;

pub use id::{CommandId, ContactId, FlowId, ParseIdError, SessionId, SignalId, SystemId, TokenId, UserId};
pub use time::Timestamp;
pub use token_purpose::TokenPurpose;
