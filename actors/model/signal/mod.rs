//! Signals: what happened, one closed catalogue, each under the name the source documents give it.

mod catalogue;
mod define;
mod document;
mod field;
mod kind;

#[cfg(test)]
mod tests;

pub use catalogue::{Signal, SignalKind};
pub use document::catalogue_table;
#[cfg(feature = "schema")]
pub use document::json_schema;
pub use field::SignalField;
pub use kind::{FlowKind, SignalClass};
