//! Pwned Passwords: the range service of Have I Been Pwned, or a mirror of it, called by HTTP.

use majordomo_model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::{BreachCheckFailure, BreachedPasswords, BreachedSuffix, HashPrefix};
use crate::http::{HttpClient, HttpFault, HttpMethod, HttpRequest, HttpSettings, Unreached};

/// How many bytes an answer may have. With padding some 40 KB are usual.
const ANSWER_LIMIT: usize = 256 * 1_024;
/// Asks for padding, so that who counts the bytes of an answer does not learn the digits.
const PADDING: (&str, &str) = ("Add-Padding", "true");

/// Where the service is, and how it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PwnedSettings {
    /// What the five digits are put behind. Default `https://api.pwnedpasswords.com/range/`, which asks for no key.
    pub base_url: String,
    /// How it is called. As of all web services, only `https` and only public addresses, unless it says otherwise; the
    /// timeouts are 2 seconds by default.
    pub http: HttpSettings,
}

impl Default for PwnedSettings {
    fn default() -> Self {
        let timeout = Duration::from_secs(2);
        Self {
            base_url: "https://api.pwnedpasswords.com/range/".to_owned(),
            http: HttpSettings { connect_timeout: timeout, timeout, ..HttpSettings::default() },
        }
    }
}

/// What is wrong with [`PwnedSettings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PwnedFault {
    /// How it is called.
    #[error(transparent)]
    Http(#[from] HttpFault),
    /// The base URL is malformed or may not be called.
    #[error("the base URL is no https address that may be called")]
    InvalidUrl,
}

impl PwnedFault {
    /// The stable name, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http(fault) => fault.as_str(),
            Self::InvalidUrl => "invalid_url",
        }
    }
}

/// Asks the range service of Have I Been Pwned, or a mirror of it, which learns five digits of each new password's SHA-1,
/// and from where it is asked.
#[derive(Debug)]
pub struct PwnedPasswords {
    base_url: String,
    client: HttpClient,
}

impl PwnedPasswords {
    /// Calls it so.
    ///
    /// # Errors
    /// [`PwnedFault`].
    pub fn new(settings: PwnedSettings) -> Result<Self, PwnedFault> {
        let client = HttpClient::new(settings.http)?;
        let base_url = format!("{}/", settings.base_url.trim_end_matches('/'));
        client.check(&base_url).map_err(|_| PwnedFault::InvalidUrl)?;
        if base_url.contains(['?', '#']) {
            return Err(PwnedFault::InvalidUrl);
        }
        Ok(Self { base_url, client })
    }
}

impl BreachedPasswords for PwnedPasswords {
    async fn range(&self, prefix: HashPrefix) -> Result<Vec<BreachedSuffix>, BreachCheckFailure> {
        let url = format!("{}{}", self.base_url, prefix.as_str());
        let request = HttpRequest { method: HttpMethod::Get, url: &url, headers: &[PADDING], body: Vec::new() };
        // When to come back is the breaker's affair, so it does not matter what Retry-After is held against.
        let answer = self.client.call_for(request, Timestamp::from_micros(0), ANSWER_LIMIT).await;
        let answer = answer.map_err(|unreached| match unreached {
            Unreached::TimedOut => BreachCheckFailure::DeadlineExceeded,
            _ => BreachCheckFailure::Unreachable,
        })?;
        match (answer.status, answer.is_complete) {
            (200, true) => parse(&answer.body).ok_or(BreachCheckFailure::Malformed),
            (200, false) if answer.body.len() >= ANSWER_LIMIT => Err(BreachCheckFailure::TooLarge),
            (200, false) => Err(BreachCheckFailure::Unreachable),
            _ => Err(BreachCheckFailure::Refused),
        }
    }
}

/// A line a suffix, with its count behind a colon. There is no prefix of which nothing is known, so nothing is no answer.
fn parse(body: &[u8]) -> Option<Vec<BreachedSuffix>> {
    let lines = std::str::from_utf8(body).ok()?.lines().filter(|line| !line.is_empty());
    let parsed = lines.map(|line| {
        let (suffix, count) = line.split_once(':')?;
        BreachedSuffix::new(suffix, count.parse().ok()?)
    });
    parsed.collect::<Option<Vec<_>>>().filter(|known| !known.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUFFIX: &str = "1E4C9B93F3F0682250B6CF8331B7EE68FD8";

    #[test]
    fn an_answer_is_lines_of_suffix_and_count_or_malformed() {
        let known = parse(format!("{SUFFIX}:10\r\n{}:0\r\n", SUFFIX.replace('1', "2")).as_bytes()).unwrap();
        assert_eq!(known.iter().map(BreachedSuffix::count).collect::<Vec<_>>(), [10, 0]);
        let lines = [
            String::new(),
            "\r\n".to_owned(),
            "<html>".to_owned(),
            SUFFIX.to_owned(),
            format!("{SUFFIX}:"),
            format!("{SUFFIX}:-1"),
            format!("{SUFFIX}:1\n{SUFFIX}"),
            format!("X{SUFFIX}:1"),
        ];
        for line in lines {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(parse(b"\xff"), None);
    }

    #[test]
    fn only_an_https_address_is_a_base_url_unless_it_is_said_otherwise() {
        let new = |base_url: &str, http: HttpSettings| {
            let settings = PwnedSettings { base_url: base_url.to_owned(), http };
            PwnedPasswords::new(settings).map(|service| service.base_url)
        };
        let default = || PwnedSettings::default().http;
        assert_eq!(new("https://pwned.example/range", default()).unwrap(), "https://pwned.example/range/");
        for bad in ["http://pwned.example/", "https://127.0.0.1/", "pwned.example", "https://pwned.example/?q=", ""] {
            assert_eq!(new(bad, default()).unwrap_err(), PwnedFault::InvalidUrl, "{bad}");
        }
        let plain = HttpSettings { allow_plain_http: true, ..default() };
        assert!(new("http://pwned.example/", plain).is_ok());
        let hasty = HttpSettings { timeout: Duration::ZERO, ..default() };
        assert_eq!(new("https://pwned.example/", hasty).unwrap_err(), PwnedFault::Http(HttpFault::InvalidTimeout));
        assert!(PwnedPasswords::new(PwnedSettings::default()).is_ok());
    }
}
