//! The engine room of majordomo: every actor, and the parts that they share.

pub mod address;
pub mod auditor;
pub mod bytes;
pub mod clock;
mod delivery_end;
pub mod gauge;
pub mod hasher;
pub mod keys;
pub mod live;
pub mod notifier;
pub mod outbox;
pub mod seal;
pub mod session_secret;
pub mod stamp;
pub mod storage;
pub mod subscriber;
pub mod supervision;
pub mod supervisor;
pub mod token;
pub mod user_manager;
