//! A request: a typed message with who acts, where from, until when, and the name that makes repeating it safe.

use std::net::IpAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::{CommandId, UserId};
use crate::signal::FlowKind;

/// The longest request id or user agent that is kept, in bytes; the rest is cut.
pub const CONTEXT_TEXT_LIMIT: usize = 256;

/// On whose behalf a request is made. The app asserts it: majordomo checks no permissions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// Nobody known, such as a visitor at the login page.
    #[default]
    Anonymous,
    /// A signed-in user.
    User(UserId),
    /// An operator, by the name the app knows them under.
    Admin(String),
    /// The system itself, such as the expiry of an account that was never verified.
    System,
}

/// The request behind a flow, as far as the app tells. It is stored with every signal of the flow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Context {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_ip: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

impl Context {
    /// A context that tells nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells the app's own name for the request. Control characters are dropped, [`CONTEXT_TEXT_LIMIT`] holds.
    #[must_use]
    pub fn request_id(mut self, text: &str) -> Self {
        self.request_id = Some(bounded(text));
        self
    }

    /// Tells where the request came from; an IPv4 address in IPv6 clothes becomes IPv4.
    #[must_use]
    pub fn client_ip(mut self, address: IpAddr) -> Self {
        self.client_ip = Some(address.to_canonical());
        self
    }

    /// Tells the client's software. Control characters are dropped, [`CONTEXT_TEXT_LIMIT`] holds.
    #[must_use]
    pub fn user_agent(mut self, text: &str) -> Self {
        self.user_agent = Some(bounded(text));
        self
    }

    /// The app's own name for the request.
    #[must_use]
    pub fn told_request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Where the request came from.
    #[must_use]
    pub const fn told_client_ip(&self) -> Option<IpAddr> {
        self.client_ip
    }

    /// The client's software.
    #[must_use]
    pub fn told_user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// Whether it tells nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn bounded(text: &str) -> String {
    let mut kept = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if kept.len() + character.len_utf8() > CONTEXT_TEXT_LIMIT {
            break;
        }
        kept.push(character);
    }
    kept
}

/// A typed message of the user manager: a flow is a struct with named fields, its reply and its reasons.
pub trait Flow: Send + Sync + Sized + 'static {
    /// Which flow the message starts.
    const KIND: FlowKind;
    /// What the caller gets when the flow succeeds.
    type Reply: Send + Sync + Clone + 'static;
    /// Why the flow may refuse.
    type Reason: Reason;

    /// The content of every field that is no secret, in one unambiguous text: what tells a repeated command from
    /// another one under the same id. It is hashed under a key, never stored or shown.
    fn visible(&self) -> String;
}

/// Why a flow refused: a closed list a flow, each with a stable name.
pub trait Reason: std::error::Error + Serialize + DeserializeOwned + Copy + PartialEq + Send + Sync + 'static {
    /// The stable snake_case name.
    fn as_str(&self) -> &'static str;
}

/// A message on its way: with its id, who acts, the request behind it and how long the caller waits.
///
/// Every method of the accounts handle takes `impl Into<Command<_>>`, so a bare message will do.
#[derive(Debug, Clone)]
pub struct Command<M> {
    /// The message.
    pub message: M,
    /// Names the command. Sent twice within the time that outcomes are kept (a day unless configured), it is done once
    /// and answered twice; with other content it is refused.
    pub id: CommandId,
    /// On whose behalf.
    pub actor: Actor,
    /// The request behind it.
    pub context: Context,
    /// How long the caller waits; the configured default if `None`.
    pub deadline: Option<Duration>,
}

impl<M> Command<M> {
    /// The message under a fresh id, for nobody known, without context, with the default deadline.
    #[must_use]
    pub fn new(message: M) -> Self {
        Self { message, id: CommandId::new(), actor: Actor::Anonymous, context: Context::default(), deadline: None }
    }

    /// Under this id, so that sending it again is safe.
    #[must_use]
    pub const fn id(mut self, id: CommandId) -> Self {
        self.id = id;
        self
    }

    /// On this one's behalf.
    #[must_use]
    pub fn actor(mut self, actor: Actor) -> Self {
        self.actor = actor;
        self
    }

    /// With the request behind it.
    #[must_use]
    pub fn context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// With a time the caller waits at most. The flow itself, once begun, runs to its end.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl<M: Flow> From<M> for Command<M> {
    fn from(message: M) -> Self {
        Self::new(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_is_bounded_clean_and_canonical() {
        let context = Context::new()
            .user_agent(&format!("a\r\nb{}", "é".repeat(300)))
            .client_ip("::ffff:192.0.2.7".parse().unwrap());
        let agent = context.told_user_agent().unwrap();
        assert!(agent.starts_with("abé") && agent.len() <= CONTEXT_TEXT_LIMIT);
        assert_eq!(context.told_client_ip().unwrap().to_string(), "192.0.2.7");
    }
}
