//! Signals: what happened, one closed catalogue, each under the name the source documents give it.

mod catalogue;
mod field;
mod kind;

pub use catalogue::{Signal, SignalKind};
pub use field::SignalField;
pub use kind::{FlowKind, SignalClass};
