//! A request: a typed message with who acts, where from, until when, and the name that makes repeating it safe.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{CommandId, UserId};
use crate::sealed::{Opener, Unseal};
use crate::secret::DeviceToken;
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
///
/// Where the client is and what it runs on is personal data. In a signal of a known user it is stored *sealed* under
/// that user's key, as [`Personal`](crate::Personal) is: read back while the user lives, gone with them. In a signal of
/// a flow that found no user there is no such key, and it is stored as it is. The request's id is always stored as it
/// is: it should name the request, not the person.
///
/// `serde` writes the sealed form, once there is one; `Debug` shows neither address nor software.
#[derive(Clone, Default)]
pub struct Context {
    request_id: Option<String>,
    client_ip: Option<IpAddr>,
    user_agent: Option<String>,
    sealed: Option<Vec<u8>>,
    opening: Option<Box<Opening>>,
}

/// What opens the sealed form, and what it came to once somebody asked.
#[derive(Clone)]
struct Opening {
    opener: Opener,
    opened: OnceLock<Parts>,
}

/// The address and the software.
type Parts = (Option<IpAddr>, Option<String>);

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
    pub fn told_client_ip(&self) -> Option<IpAddr> {
        self.client_ip.or_else(|| self.opened()?.0)
    }

    /// The client's software.
    #[must_use]
    pub fn told_user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref().or_else(|| self.opened()?.1.as_deref())
    }

    /// Whether it tells nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let Self { request_id, client_ip, user_agent, sealed, .. } = self;
        request_id.is_none() && client_ip.is_none() && user_agent.is_none() && sealed.is_none()
    }

    /// What of it is personal, as one text to be sealed: the address, and behind a line feed the software, which holds
    /// none itself. `None` if neither is told, or readable.
    #[must_use]
    pub fn personal(&self) -> Option<String> {
        let address = self.told_client_ip().map(|address| address.to_string());
        match (address, self.told_user_agent()) {
            (None, None) => None,
            (address, None) => address,
            (address, Some(agent)) => Some(format!("{}\n{agent}", address.unwrap_or_default())),
        }
    }

    /// Attaches what opens the sealed form; storage calls this as it reads the log for a subscriber.
    pub fn open_with(&mut self, opener: Arc<dyn Unseal>) {
        self.opening = Some(Box::new(Opening { opener: Opener(opener), opened: OnceLock::new() }));
    }

    fn opened(&self) -> Option<&Parts> {
        let (opening, sealed) = self.opening.as_deref().zip(self.sealed.as_deref())?;
        let open = || opening.opener.0.context(sealed).map(|text| parts(&text)).unwrap_or_default();
        Some(opening.opened.get_or_init(open))
    }

    /// The sealed form, as stored.
    #[must_use]
    pub fn sealed(&self) -> Option<&[u8]> {
        self.sealed.as_deref()
    }

    /// Attaches the sealed form, which is stored from now on instead of what it holds.
    pub fn set_sealed(&mut self, sealed: Vec<u8>) {
        self.sealed = Some(sealed);
    }

    /// Forgets what is personal in it, sealed or not.
    pub fn withhold_personal(&mut self) {
        let request_id = self.request_id.take();
        *self = Self { request_id, ..Self::default() };
    }

    fn stored(&self) -> Stored {
        let plain = self.sealed.is_none();
        Stored {
            request_id: self.request_id.clone(),
            client_ip: self.client_ip.filter(|_| plain),
            user_agent: self.user_agent.clone().filter(|_| plain),
            sealed: self.sealed.as_ref().map(|bytes| URL_SAFE_NO_PAD.encode(bytes)),
        }
    }
}

/// Two are equal when everything that is stored is equal.
impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        self.stored() == other.stored()
    }
}

impl Eq for Context {}

/// Shows the request's id, and of the rest only whether it is told.
impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |told: bool| if told { "***" } else { "untold" };
        formatter
            .debug_struct("Context")
            .field("request_id", &self.request_id)
            .field("client_ip", &format_args!("{}", shown(self.client_ip.is_some())))
            .field("user_agent", &format_args!("{}", shown(self.user_agent.is_some())))
            .field("is_sealed", &self.sealed.is_some())
            .finish()
    }
}

#[derive(PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Context"))]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_ip: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
}

impl Serialize for Context {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.stored().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Stored { request_id, client_ip, user_agent, sealed } = Stored::deserialize(deserializer)?;
        let sealed = sealed.map(|text| URL_SAFE_NO_PAD.decode(text)).transpose().map_err(serde::de::Error::custom)?;
        Ok(Self { request_id, client_ip, user_agent, sealed, ..Self::default() })
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Context {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Context".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Stored::json_schema(generator)
    }
}

/// The address and the software of what [`Context::personal`] told.
fn parts(text: &str) -> Parts {
    let (address, agent) = text.split_once('\n').map_or((text, None), |(address, agent)| (address, Some(agent)));
    (address.parse().ok(), agent.map(bounded))
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
    /// What the client kept of an earlier login ([`LoggedIn::device`](crate::LoggedIn::device)). It is neither stored nor
    /// shown, and is no part of what makes two commands the same.
    pub device: Option<DeviceToken>,
}

impl<M> Command<M> {
    /// The message under a fresh id, for nobody known, without context, with the default deadline.
    #[must_use]
    pub fn new(message: M) -> Self {
        Self {
            message,
            id: CommandId::new(),
            actor: Actor::Anonymous,
            context: Context::default(),
            deadline: None,
            device: None,
        }
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

    /// From a device that its user signed in from before.
    #[must_use]
    pub fn device(mut self, device: DeviceToken) -> Self {
        self.device = Some(device);
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

    #[test]
    fn once_sealed_nothing_personal_is_written_or_shown() {
        let plain = Context::new().request_id("r-1").client_ip("192.0.2.7".parse().unwrap()).user_agent("browser");
        let json = serde_json::to_string(&plain).unwrap();
        assert_eq!(json, r#"{"request_id":"r-1","client_ip":"192.0.2.7","user_agent":"browser"}"#);
        assert_eq!(serde_json::from_str::<Context>(&json).unwrap(), plain);
        let mut sealed = plain.clone();
        sealed.set_sealed(vec![7; 9]);
        assert!(sealed != plain && sealed.told_user_agent() == Some("browser"));
        let json = serde_json::to_string(&sealed).unwrap();
        assert_eq!(json, r#"{"request_id":"r-1","sealed":"BwcHBwcHBwcH"}"#);
        let packed: Context = rmp_serde::from_slice(&rmp_serde::to_vec_named(&sealed).unwrap()).unwrap();
        assert!(packed == sealed && packed.personal().is_none() && packed.sealed() == Some(&[7; 9]));
        for shown in [format!("{plain:?}"), format!("{sealed:?}")] {
            assert!(shown.contains("r-1") && !shown.contains("192.0.2.7") && !shown.contains("browser"), "{shown}");
        }
        sealed.withhold_personal();
        assert_eq!(sealed, Context::new().request_id("r-1"));
    }

    #[test]
    fn what_is_personal_comes_back() {
        let (address, agent) = ("2001:db8::1".parse().unwrap(), "a b");
        let told = [
            Context::new().client_ip(address),
            Context::new().user_agent(agent),
            Context::new().user_agent(""),
            Context::new().client_ip(address).user_agent(agent),
        ];
        for context in told {
            let (client_ip, user_agent) = parts(&context.personal().unwrap());
            assert_eq!(Context { client_ip, user_agent, ..Context::new() }, context);
        }
        assert_eq!(Context::new().request_id("r").personal(), None);
    }
}
