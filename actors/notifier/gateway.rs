//! Gateways: providers that take messages over HTTP, called and understood as a description says.

mod description;
mod fault;
mod template;
mod verdict;

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use majordomo_model::{Channel, ServiceSecret};

pub use description::{
    AnswerRule, FailureClass, FailureRule, GatewayAuthorization, GatewayBody, GatewayDescription, StatusRange,
};
pub use fault::GatewayFault;

use super::sms::{SmsGateway, SmsMessage};
use super::transport::{Mailbox, OutgoingMessage, SendError, Transport};
use crate::clock::Clock;
use crate::http::{HttpClient, HttpMethod, HttpRequest, HttpSettings, Unreached};
use template::{Body, Lacking, Secrets, Template, Tree, Values};
use verdict::Verdict;

/// The longest name.
const NAME_LIMIT: usize = 32;
/// Headers that belong to the connection or say how long the body is (RFC 9110, sections 7.2, 7.6.1 and 8.6).
const RESERVED_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Sends text messages through a provider's HTTP API. It stands behind an [`Sms`](super::Sms), which refuses what should
/// not be sent.
///
/// ```
/// use majordomo_actors::notifier::{GatewayDescription, HttpSettings, HttpSmsGateway, Sms, SmsSettings};
/// use majordomo_model::ServiceSecret;
///
/// let description: GatewayDescription = serde_json::from_str(r#"{
///     "name": "example", "method": "POST", "url": "https://sms.example.com/v1/messages",
///     "authorization": {"bearer": {"secret": "api_key"}},
///     "body": {"json": {"to": "{{to}}", "text": "{{text}}"}}
/// }"#)?;
/// # let key_from_the_environment = "key";
/// let secrets = [("api_key", ServiceSecret::new(key_from_the_environment))];
/// let gateway = HttpSmsGateway::new(&description, HttpSettings::default(), secrets)?;
/// let transport = Sms::new(gateway, SmsSettings::new(["GB"]))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HttpSmsGateway(Gateway);

impl HttpSmsGateway {
    /// A gateway of this description, with the secrets that it refers to.
    ///
    /// # Errors
    /// [`GatewayFault`], for everything that would fail when a message is due.
    pub fn new(
        description: &GatewayDescription,
        http: HttpSettings,
        secrets: impl IntoIterator<Item = (impl Into<String>, ServiceSecret)>,
    ) -> Result<Self, GatewayFault> {
        Gateway::new(description, http, named(secrets), Channel::Phone).map(Self)
    }
}

impl SmsGateway for HttpSmsGateway {
    async fn send(&self, message: &SmsMessage) -> Result<(), SendError> {
        let (id, to, text) = (message.id.to_string(), message.to.canonical(), message.text.as_str());
        self.0.send(&Values { id: &id, to, text, from: None, subject: None, html: None }).await
    }
}

/// The transport that sends e-mail through a provider's HTTP API.
///
/// It is built like an [`HttpSmsGateway`], and is a [`Transport`] by itself.
pub struct EmailApi(Gateway);

impl EmailApi {
    /// A transport of this description, with the secrets that it refers to.
    ///
    /// # Errors
    /// [`GatewayFault`], for everything that would fail when a message is due.
    pub fn new(
        description: &GatewayDescription,
        http: HttpSettings,
        secrets: impl IntoIterator<Item = (impl Into<String>, ServiceSecret)>,
    ) -> Result<Self, GatewayFault> {
        Gateway::new(description, http, named(secrets), Channel::Email).map(Self)
    }
}

impl Transport for EmailApi {
    fn channel(&self) -> Channel {
        Channel::Email
    }

    async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        let values = Values {
            id: &message.id.to_string(),
            to: &message.to,
            text: &message.text,
            from: message.from.as_ref(),
            subject: message.subject.as_deref(),
            html: message.html.as_deref(),
        };
        self.0.send(&values).await
    }
}

/// Shows the name.
impl fmt::Debug for HttpSmsGateway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpSmsGateway").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// Shows the name.
impl fmt::Debug for EmailApi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EmailApi").field("name", &self.0.name).finish_non_exhaustive()
    }
}

fn named(secrets: impl IntoIterator<Item = (impl Into<String>, ServiceSecret)>) -> Secrets {
    secrets.into_iter().map(|(name, secret)| (name.into(), secret)).collect()
}

/// What both channels share. It holds secrets: it is never printed.
struct Gateway {
    name: String,
    client: HttpClient,
    clock: Clock,
    method: HttpMethod,
    url: Template,
    headers: Vec<(String, Template)>,
    body: Option<Body>,
    verdict: Verdict,
}

impl Gateway {
    fn new(
        description: &GatewayDescription,
        http: HttpSettings,
        secrets: Secrets,
        channel: Channel,
    ) -> Result<Self, GatewayFault> {
        let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        let name = description.name.clone();
        if name.is_empty() || name.len() > NAME_LIMIT || !name.bytes().all(is_fit) {
            return Err(GatewayFault::Name);
        }
        let is_unfit =
            |secret: &ServiceSecret| secret.expose().is_empty() || secret.expose().contains(char::is_control);
        if let Some((name, _)) = secrets.iter().find(|(_, secret)| is_unfit(secret)) {
            return Err(GatewayFault::InvalidSecret(name.clone()));
        }
        let body = description.body.as_ref().map(|body| body_of(body, channel, &secrets)).transpose()?;
        let gateway = Self {
            name,
            client: HttpClient::new(http)?,
            clock: Clock::system(),
            method: description.method,
            url: url_of(&description.url, channel, &secrets)?,
            headers: headers_of(description, body.as_ref(), channel, &secrets)?,
            body,
            verdict: Verdict::new(description)?,
        };
        gateway.rehearse()?;
        Ok(gateway)
    }

    /// Fills everything with a sample, so that what is malformed is found now.
    fn rehearse(&self) -> Result<(), GatewayFault> {
        let from = Mailbox { name: "Example".to_owned(), address: "no-reply@example.com".to_owned() };
        let values = Values { id: "1", to: "1", text: "1", from: Some(&from), subject: Some("1"), html: Some("1") };
        let malformed = |Lacking| GatewayFault::Url(Unreached::InvalidRequest);
        let url = self.url.fill_url(&values).map_err(malformed)?;
        self.client.check(&url).map_err(GatewayFault::Url)?;
        for (name, template) in &self.headers {
            let value = template.fill(&values).map_err(malformed)?;
            if !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                return Err(GatewayFault::Header(name.clone()));
            }
        }
        Ok(())
    }

    async fn send(&self, values: &Values<'_>) -> Result<(), SendError> {
        let lacking = |Lacking| SendError::Permanent(format!("{}: the message lacks a part that is sent", self.name));
        let url = self.url.fill_url(values).map_err(lacking)?;
        if has_dot_segment(&url) {
            return Err(self.verdict.of_unreached(Unreached::InvalidRequest));
        }
        let filled = self.headers.iter().map(|(name, template)| Ok((name.as_str(), template.fill(values)?)));
        let headers = filled.collect::<Result<Vec<_>, _>>().map_err(lacking)?;
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = self.body.as_ref().map(|body| body.fill(values)).transpose().map_err(lacking)?.unwrap_or_default();
        let request = HttpRequest { method: self.method, url: &url, headers: &headers, body };
        match self.client.call(request, self.clock.now()).await {
            Ok(answer) => self.verdict.of_answer(&answer, values.to),
            Err(unreached) => Err(self.verdict.of_unreached(unreached)),
        }
    }
}

fn body_of(body: &GatewayBody, channel: Channel, secrets: &Secrets) -> Result<Body, GatewayFault> {
    Ok(match body {
        GatewayBody::Json(value) => Body::Json(Tree::parse(value, channel, secrets)?),
        GatewayBody::Form(fields) => {
            let field = |(name, value): &(String, String)| {
                Ok((template::plain_name(name)?, Template::parse(value, channel, secrets)?))
            };
            Body::Form(fields.iter().map(field).collect::<Result<_, GatewayFault>>()?)
        }
    })
}

/// Neither the scheme nor the host may depend on a message, however a parser might read them.
fn url_of(text: &str, channel: Channel, secrets: &Secrets) -> Result<Template, GatewayFault> {
    let behind_scheme = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let authority = behind_scheme.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if authority.is_empty() || text.contains('\\') {
        return Err(GatewayFault::Url(Unreached::InvalidRequest));
    }
    template::plain_name(authority)?;
    Template::parse(text, channel, secrets)
}

/// A segment that leads elsewhere in the path (RFC 3986, section 3.3). Encoding does not take its meaning away.
fn has_dot_segment(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

fn headers_of(
    description: &GatewayDescription,
    body: Option<&Body>,
    channel: Channel,
    secrets: &Secrets,
) -> Result<Vec<(String, Template)>, GatewayFault> {
    let (mut headers, mut seen) = (Vec::new(), BTreeSet::new());
    if let Some(authorization) = &description.authorization {
        seen.insert("authorization".to_owned());
        headers.push(("authorization".to_owned(), credentials(authorization, channel, secrets)?));
    }
    for (name, value) in &description.headers {
        let lower = name.to_ascii_lowercase();
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_fit = !name.is_empty() && name.bytes().all(is_token) && !RESERVED_HEADERS.contains(&lower.as_str());
        if !is_fit || !seen.insert(lower.clone()) {
            return Err(GatewayFault::Header(name.clone()));
        }
        let template = Template::parse(value, channel, secrets)?;
        if !template.is_plain() {
            return Err(GatewayFault::MisplacedPlaceholder(name.clone()));
        }
        if lower == "authorization" && !template.has_secret() {
            return Err(GatewayFault::CredentialInClear);
        }
        headers.push((lower, template));
    }
    if let Some(body) = body.filter(|_| !seen.contains("content-type")) {
        let content_type = Template::parse(body.content_type(), channel, secrets)?;
        headers.push(("content-type".to_owned(), content_type));
    }
    Ok(headers)
}

fn credentials(
    authorization: &GatewayAuthorization,
    channel: Channel,
    secrets: &Secrets,
) -> Result<Template, GatewayFault> {
    match authorization {
        GatewayAuthorization::Bearer { secret } => {
            let token = template::secret(secret, secrets)?;
            Ok(Template::secret(["Bearer ", token.expose()].concat()))
        }
        GatewayAuthorization::Basic { user, secret } => {
            let template = Template::parse(user, channel, secrets)?;
            let user = template.constant().ok_or_else(|| GatewayFault::MisplacedPlaceholder(user.clone()))?;
            if user.is_empty() || user.contains(':') {
                return Err(GatewayFault::User);
            }
            let password = template::secret(secret, secrets)?;
            let pair = BASE64_STANDARD.encode([&user, ":", password.expose()].concat());
            Ok(Template::secret(["Basic ", &pair].concat()))
        }
    }
}

#[cfg(test)]
mod tests;
