//! The engine room of majordomo: every actor, and the parts that they share.

mod address;
pub mod auditor;
pub mod breach;
mod breaker;
mod bytes;
pub mod clock;
mod delivery_end;
mod device;
#[cfg(any(test, feature = "testing"))]
pub mod fuzzing;
pub mod gauge;
pub mod guard;
pub mod hasher;
mod host;
#[cfg(feature = "webhook")]
mod http;
pub mod keys;
pub mod live;
pub mod notifier;
pub mod outbox;
mod priority;
mod seal;
mod session_secret;
pub mod stamp;
pub mod storage;
pub mod subscriber;
pub mod supervision;
pub mod supervisor;
pub mod telemetry;
pub mod token;
pub mod user_manager;
