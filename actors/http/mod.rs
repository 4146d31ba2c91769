//! HTTP: one-shot calls of web services, bounded in time and size, and only of targets that may be called.
//!
//! What everything that speaks HTTP is built on, and the only home of `reqwest` and `rustls`.

mod retry_after;
mod target;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use majordomo_model::Timestamp;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, Url};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;
use serde::{Deserialize, Serialize};
use tokio::runtime::{self, Handle};
use tokio::time::Instant;

/// How many bytes of an answer's body are read, unless somebody wants more.
pub(crate) const BODY_LIMIT: usize = 16 * 1_024;
/// How many headers an answer may have; their bytes are bounded by hyper, at 408 KiB together.
const HEADER_LIMIT: usize = 64;
/// How long a connection is kept for the next call.
const IDLE_LIMIT: Duration = Duration::from_secs(20);
const USER_AGENT: &str = concat!("majordomo/", env!("CARGO_PKG_VERSION"));

/// How web services are called, and which may be.
///
/// Only `https`, and only public addresses: after the name was resolved, each address is looked at, and the connection
/// goes to one that was looked at. So a URL that somebody else chose reaches nothing that only this machine can reach
/// (server-side request forgery). Redirects are not followed, and proxies of the environment are not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// How long to connect may take, TLS included. Default 10 seconds.
    pub connect_timeout: Duration,
    /// How long a call may take altogether. Default 20 seconds; at most 50, which is within the deadline of a handler.
    pub timeout: Duration,
    /// Whether `http` without TLS may be called. Default `false`.
    pub allow_plain_http: bool,
    /// Networks that may be called although they are not public: loopback, private, link-local and the like.
    pub allowed_networks: Vec<IpNet>,
    /// Certificates (PEM) that are trusted beside those of the platform: of a private authority.
    pub root_certificates: Option<String>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(20),
            allow_plain_http: false,
            allowed_networks: Vec::new(),
            root_certificates: None,
        }
    }
}

/// The longest [`HttpSettings::timeout`].
const TIMEOUT_LIMIT: Duration = Duration::from_secs(50);

/// What is wrong with [`HttpSettings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum HttpFault {
    /// A timeout is zero or too long.
    #[error("a timeout is longer than nothing and 50 seconds at most")]
    InvalidTimeout,
    /// There is no certificate in what should hold some, or one that cannot be read.
    #[error("the root certificates are not certificates in PEM")]
    InvalidCertificate,
    /// The platform has no certificates that could be trusted.
    #[error("the platform's own certificates cannot be read")]
    NoTrust,
}

impl HttpFault {
    /// The stable name, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidTimeout => "invalid_timeout",
            Self::InvalidCertificate => "invalid_certificate",
            Self::NoTrust => "no_trust",
        }
    }
}

/// Why a call got no answer. It tells nothing of the URL, which may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Unreached {
    /// The URL or a header is malformed: nothing was sent.
    #[error("the request is malformed")]
    InvalidRequest,
    /// The target may not be called: not `https`, with user and password in the URL, or an address that is not public.
    #[error("the target may not be called")]
    TargetRefused,
    /// The name has no address, or the name service is out.
    #[error("the name was not resolved")]
    NameNotResolved,
    /// No connection came about: refused, unreachable, or not in time.
    #[error("no connection came about")]
    NotConnected,
    /// The other side does not prove who it is, or speaks no TLS.
    #[error("TLS failed")]
    TlsFailed,
    /// The request was sent, perhaps in part, and no answer came in time.
    #[error("no answer came in time")]
    TimedOut,
    /// The request was sent, perhaps in part, and what came back is broken off or is not HTTP.
    #[error("the answer was lost")]
    AnswerLost,
}

impl Unreached {
    /// The stable name, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::TargetRefused => "target_refused",
            Self::NameNotResolved => "name_not_resolved",
            Self::NotConnected => "not_connected",
            Self::TlsFailed => "tls_failed",
            Self::TimedOut => "timed_out",
            Self::AnswerLost => "answer_lost",
        }
    }

    /// Whether the same call may be answered later.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        !matches!(self, Self::InvalidRequest | Self::TargetRefused)
    }

    /// Whether the other side may have acted on the request all the same.
    #[must_use]
    pub const fn may_have_arrived(self) -> bool {
        matches!(self, Self::TimedOut | Self::AnswerLost)
    }
}

/// The method of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum HttpMethod {
    /// GET.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
}

/// A call to be made. Its URL, headers and body may hold secrets: it is never printed.
pub(crate) struct HttpRequest<'a> {
    pub(crate) method: HttpMethod,
    pub(crate) url: &'a str,
    /// Names and values; every value is treated as sensitive.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    /// What Retry-After says, from now, at most a day.
    pub(crate) retry_after: Option<Duration>,
    /// The first bytes of the body, as many as were wanted, or fewer if the rest did not come.
    pub(crate) body: Vec<u8>,
    /// Whether that is all of the body.
    pub(crate) is_complete: bool,
}

type LookUp = dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync;

/// Calls web services. Cancel-safe: a call that is dropped is given up; whether it arrived is unknown then.
pub(crate) struct HttpClient {
    settings: HttpSettings,
    tls: ClientConfig,
    look_up: Arc<LookUp>,
    /// The connections that are kept, and the runtime that they live on: on another one they would be dead.
    kept: Mutex<Option<(runtime::Id, Client)>>,
}

impl HttpClient {
    /// A client for these settings.
    ///
    /// # Errors
    /// [`HttpFault`].
    pub(crate) fn new(settings: HttpSettings) -> Result<Self, HttpFault> {
        Self::with_look_up(settings, Arc::new(|host| Box::pin(look_up(host))))
    }

    fn with_look_up(settings: HttpSettings, look_up: Arc<LookUp>) -> Result<Self, HttpFault> {
        for timeout in [settings.timeout, settings.connect_timeout] {
            if timeout.is_zero() || timeout > TIMEOUT_LIMIT {
                return Err(HttpFault::InvalidTimeout);
            }
        }
        let tls = trust(settings.root_certificates.as_deref())?;
        Ok(Self { settings, tls, look_up, kept: Mutex::new(None) })
    }

    /// Whether a URL may be called, as far as that can be told without looking its name up.
    ///
    /// # Errors
    /// [`Unreached::InvalidRequest`], [`Unreached::TargetRefused`].
    pub(crate) fn check(&self, url: &str) -> Result<(), Unreached> {
        self.target(url).map(drop)
    }

    /// Makes one call, once. Every status is an answer, redirects too. `now` is what a date in Retry-After is held
    /// against.
    ///
    /// # Errors
    /// [`Unreached`] if no answer came.
    pub(crate) async fn call(&self, request: HttpRequest<'_>, now: Timestamp) -> Result<HttpAnswer, Unreached> {
        self.call_for(request, now, BODY_LIMIT).await
    }

    /// As [`HttpClient::call`], and reads so many bytes of the body.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn call_for(
        &self,
        request: HttpRequest<'_>,
        now: Timestamp,
        body_limit: usize,
    ) -> Result<HttpAnswer, Unreached> {
        let until = Instant::now() + self.settings.timeout;
        let url = self.target(request.url)?;
        let method = match request.method {
            HttpMethod::Get => Method::GET,
            HttpMethod::Post => Method::POST,
            HttpMethod::Put => Method::PUT,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unreached::InvalidRequest)?;
            let mut value = HeaderValue::from_str(value).map_err(|_| Unreached::InvalidRequest)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let call = self.client()?.request(method, url).headers(headers).body(request.body).send();
        let response = match tokio::time::timeout_at(until, call).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(class_of(&error)),
            Err(_) => return Err(Unreached::TimedOut),
        };
        let status = response.status().as_u16();
        let value = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = value.and_then(|value| retry_after::parse(value, now));
        let (body, is_complete) = read_body(response, until, body_limit).await;
        Ok(HttpAnswer { status, retry_after, body, is_complete })
    }

    /// The connector leaves an address in the URL to itself, so it is looked at here; a name goes to the resolver.
    fn target(&self, url: &str) -> Result<Url, Unreached> {
        let url = Url::parse(url).map_err(|_| Unreached::InvalidRequest)?;
        let scheme = url.scheme() == "https" || (url.scheme() == "http" && self.settings.allow_plain_http);
        if !scheme || !url.username().is_empty() || url.password().is_some() {
            return Err(Unreached::TargetRefused);
        }
        // The other spellings of an address (octal, hexadecimal, one number) are canonical by now (WHATWG URL).
        let host = url.host_str().ok_or(Unreached::InvalidRequest)?;
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
        match literal {
            Ok(address) if !target::is_permitted(address, &self.settings.allowed_networks) => {
                Err(Unreached::TargetRefused)
            }
            _ => Ok(url),
        }
    }

    /// The client of the runtime that this runs on.
    fn client(&self) -> Result<Client, Unreached> {
        let here = Handle::current().id();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = kept.as_ref().filter(|(runtime, _)| *runtime == here) {
            return Ok(client.clone());
        }
        let client = self.build().map_err(|_| Unreached::InvalidRequest)?;
        *kept = Some((here, client.clone()));
        Ok(client)
    }

    fn build(&self) -> reqwest::Result<Client> {
        let allowed = self.settings.allowed_networks.clone();
        Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .dns_resolver(Guarded { look_up: Arc::clone(&self.look_up), allowed: Arc::new(allowed) })
            .https_only(!self.settings.allow_plain_http)
            .connect_timeout(self.settings.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .http1_only()
            .http1_max_headers(HEADER_LIMIT)
            .pool_idle_timeout(IDLE_LIMIT)
            .user_agent(USER_AGENT)
            .build()
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpClient").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// TLS that trusts what the platform trusts, and these certificates beside. Nothing is set for the whole process.
fn trust(root_certificates: Option<&str>) -> Result<ClientConfig, HttpFault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificates = CertificateDer::pem_slice_iter(root_certificates.unwrap_or_default().as_bytes());
    let roots = certificates.collect::<Result<Vec<_>, _>>().map_err(|_| HttpFault::InvalidCertificate)?;
    if root_certificates.is_some() && roots.is_empty() {
        return Err(HttpFault::InvalidCertificate);
    }
    let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider)).map_err(|error| match error {
        rustls::Error::InvalidCertificate(_) => HttpFault::InvalidCertificate,
        _ => HttpFault::NoTrust,
    })?;
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|_| HttpFault::NoTrust)?;
    let config = versions.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}

async fn look_up(host: String) -> io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
}

/// Resolves names to addresses that may be called. It is the connecting that asks: no other address takes their place.
struct Guarded {
    look_up: Arc<LookUp>,
    allowed: Arc<Vec<IpNet>>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.look_up)(name.as_str().to_owned());
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let found = found.await.map_err(|_| Unreached::NameNotResolved)?;
            if found.is_empty() {
                return Err(Unreached::NameNotResolved.into());
            }
            let permitted = found.into_iter().filter(|address| target::is_permitted(*address, &allowed));
            let permitted: Vec<_> = permitted.map(|address| SocketAddr::new(address, 0)).collect();
            if permitted.is_empty() {
                return Err(Unreached::TargetRefused.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

/// What an error comes to, by what it holds.
fn class_of(error: &reqwest::Error) -> Unreached {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(ours) = cause.downcast_ref::<Unreached>() {
            return *ours;
        }
        // Behind the handshake the request may have been sent.
        if cause.is::<rustls::Error>() && error.is_connect() {
            return Unreached::TlsFailed;
        }
        // What an I/O error wraps is not its source: that is the source of what it wraps.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        source = wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| cause.source());
    }
    match () {
        () if error.is_builder() => Unreached::InvalidRequest,
        () if error.is_connect() => Unreached::NotConnected,
        () if error.is_timeout() => Unreached::TimedOut,
        () => Unreached::AnswerLost,
    }
}

/// The body as far as it is wanted and comes in time. The answer stands whatever becomes of its body.
async fn read_body(mut response: Response, until: Instant, limit: usize) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let chunk = match tokio::time::timeout_at(until, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return (body, true),
            Ok(Err(_)) | Err(_) => return (body, false),
        };
        let room = limit.saturating_sub(body.len());
        body.extend(chunk.iter().take(room));
        if chunk.len() > room {
            return (body, false);
        }
    }
}

#[cfg(test)]
mod tests;
