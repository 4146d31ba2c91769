//! The envelope: what surrounds every signal, whoever emits it.

use std::borrow::Cow;
use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{FlowId, SignalId, UserId};
use crate::request::{Actor, Context};
use crate::signal::Signal;
use crate::time::Timestamp;

/// The version of the signal catalogue that this build writes into [`Envelope::schema`].
pub const SCHEMA_VERSION: u16 = 1;

/// A signal with everything that is known about its coming to be.
///
/// `serde` writes the stored form: personal data redacted and sealed, never in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Envelope {
    /// The place in the log: gapless and ascending from 1. Absent on a live start, which precedes its durable copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The signal's name for life: the idempotency key of whoever passes it on.
    pub id: SignalId,
    /// The run of the flow that emitted it.
    pub flow: FlowId,
    /// The run that led to this one, such as the registration behind a delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<FlowId>,
    /// What it is ordered within.
    pub lane: Lane,
    /// When it happened; a start keeps its own time although it is stored with its flow's end.
    pub at: Timestamp,
    /// The part that emitted it.
    pub sender: Sender,
    /// On whose behalf the flow ran, as the app asserted it.
    pub actor: Actor,
    /// The subscriptions that this signal descends from, nearest last; empty unless it is a follow-up. None of them is
    /// handed it, so that no chain of follow-ups is without end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<Sender>,
    /// The request behind it, as far as the app told.
    #[serde(default, skip_serializing_if = "Context::is_empty")]
    pub context: Context,
    /// The catalogue version it was written under.
    pub schema: u16,
    /// The signal itself: `type` and `data`.
    pub signal: Signal,
}

/// What signals are ordered within: subscribers see the signals of one lane in `seq` order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Everything about one user.
    User(UserId),
    /// A flow that never found a user.
    Flow(FlowId),
}

/// The part that emitted a signal, by its snake_case name.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transparent))]
#[serde(transparent)]
pub struct Sender(Cow<'static, str>);

impl Sender {
    /// The user record: its password and its verified addresses.
    pub const USER: Self = Self(Cow::Borrowed("user"));
    /// The user manager, which runs the flows.
    pub const USER_MANAGER: Self = Self(Cow::Borrowed("user_manager"));
    /// The system about itself: refusals, losses, restarts.
    pub const SYSTEM: Self = Self(Cow::Borrowed("system"));

    /// The subscriber of this name, for its follow-up signals.
    #[must_use]
    pub fn subscriber(name: &str) -> Self {
        Self(Cow::Owned(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The names of our own parts are not copied.
impl<'de> Deserialize<'de> for Sender {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Sender;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a part")
            }

            fn visit_str<E>(self, name: &str) -> Result<Sender, E> {
                let ours = [Sender::USER, Sender::USER_MANAGER, Sender::SYSTEM];
                Ok(ours.into_iter().find(|ours| ours.as_str() == name).unwrap_or_else(|| Sender::subscriber(name)))
            }
        }

        deserializer.deserialize_str(Name)
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}
