//! What the notifier has to be told about the app.

use std::time::Duration;

use majordomo_model::Email;
use serde::{Deserialize, Serialize};

use super::message::TemplateFaults;
use super::transport::Mailbox;

const APP_NAME_CHARACTERS: usize = 64;
const LOCALE_BYTES: usize = 35;
const THREE_DAYS: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// What the messages say about the app, and how long they are tried.
///
/// The base URL is configured and never taken from a request: a forged `Host` header cannot lead a link elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifierSettings {
    /// The app's name as people know it: 1 to 64 characters, no control characters.
    pub app_name: String,
    /// Where the app is reached, such as `https://example.com/app`. A link is this and a path that starts with `/`.
    ///
    /// `https`, except for the hosts `localhost` and `127.0.0.1`; without user, query and fragment; in ASCII.
    pub base_url: String,
    /// The address that e-mail comes from; `no-reply@` and the base URL's host unless told.
    #[serde(default)]
    pub sender: Option<String>,
    /// The language (BCP 47) of the templates that have none in their name; `en` unless told.
    #[serde(default = "english")]
    pub default_locale: String,
    /// For how long a notice that bears no token is tried, counted from its signal; 3 days unless told. A message with
    /// a link or code is tried until that expires.
    #[serde(default = "three_days")]
    pub give_up_after: Duration,
}

fn english() -> String {
    "en".to_owned()
}

const fn three_days() -> Duration {
    THREE_DAYS
}

/// Why a notifier cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotifierFault {
    /// The app's name.
    #[error("the app name must have 1 to {APP_NAME_CHARACTERS} characters and no control characters")]
    AppName,
    /// The base URL is none.
    #[error("the base URL must be an absolute URL in ASCII without user, query and fragment")]
    BaseUrl,
    /// The base URL is not protected.
    #[error("the base URL must be https, unless its host is localhost or 127.0.0.1")]
    BaseUrlNotHttps,
    /// The sender's address.
    #[error("the sender must be an e-mail address")]
    Sender,
    /// The default locale.
    #[error("the default locale must be a language tag (BCP 47)")]
    DefaultLocale,
    /// The terms of a transport.
    #[error("a transport: {0}")]
    Terms(String),
    /// Some templates.
    #[error(transparent)]
    Templates(#[from] TemplateFaults),
}

impl NotifierFault {
    /// The stable snake_case name.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::AppName => "app_name",
            Self::BaseUrl => "base_url",
            Self::BaseUrlNotHttps => "base_url_not_https",
            Self::Sender => "sender",
            Self::DefaultLocale => "default_locale",
            Self::Terms(_) => "terms",
            Self::Templates(_) => "templates",
        }
    }
}

impl NotifierSettings {
    /// Settings with every default.
    #[must_use]
    pub fn new(app_name: impl Into<String>, base_url: impl Into<String>) -> Self {
        Self {
            app_name: app_name.into(),
            base_url: base_url.into(),
            sender: None,
            default_locale: english(),
            give_up_after: THREE_DAYS,
        }
    }

    /// Whether a notifier can be built of them.
    ///
    /// # Errors
    /// The first [`NotifierFault`], in the order of the fields.
    pub fn validate(&self) -> Result<(), NotifierFault> {
        let length = self.app_name.chars().count();
        if self.app_name.trim().is_empty()
            || length > APP_NAME_CHARACTERS
            || self.app_name.chars().any(|character| character.is_control() || is_line_break(character))
        {
            return Err(NotifierFault::AppName);
        }
        let address = BaseUrl::parse(&self.base_url).ok_or(NotifierFault::BaseUrl)?;
        if !address.is_secure && !matches!(address.host, "localhost" | "127.0.0.1") {
            return Err(NotifierFault::BaseUrlNotHttps);
        }
        if self.sender.as_ref().is_some_and(|sender| Email::parse(sender).is_err()) {
            return Err(NotifierFault::Sender);
        }
        if !is_language_tag(&self.default_locale) {
            return Err(NotifierFault::DefaultLocale);
        }
        Ok(())
    }

    /// The base URL without the slash at its end.
    pub(super) fn home(&self) -> &str {
        self.base_url.trim_end_matches('/')
    }

    /// The host of the base URL.
    pub(super) fn host(&self) -> &str {
        BaseUrl::parse(&self.base_url).map_or("", |address| address.host)
    }

    /// Who sends the mail.
    pub(super) fn mailbox(&self) -> Mailbox {
        let address = self.sender.as_ref().and_then(|sender| Email::parse(sender).ok());
        let address = address.map_or_else(|| format!("no-reply@{}", self.host()), |sender| sender.deliverable());
        Mailbox { name: self.app_name.clone(), address }
    }
}

/// Whether a text looks like a language tag (BCP 47): letters, digits and hyphens.
pub(super) fn is_language_tag(text: &str) -> bool {
    let subtag = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.len() <= LOCALE_BYTES && text.split('-').all(subtag)
}

const fn is_line_break(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}')
}

struct BaseUrl<'a> {
    is_secure: bool,
    host: &'a str,
}

impl<'a> BaseUrl<'a> {
    /// Takes less than RFC 3986 does: what a link in a message needs, and nothing that HTML or a header could misread.
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        let fit_host =
            |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let fit_port = port.is_none_or(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        let fit_path = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte));
        (host.split('.').all(fit_host) && fit_port && fit_path).then_some(Self { is_secure, host })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(change: impl FnOnce(&mut NotifierSettings)) -> Option<NotifierFault> {
        let mut settings = NotifierSettings::new("Example", "https://example.com");
        change(&mut settings);
        settings.validate().err()
    }

    #[test]
    fn only_a_plain_https_address_is_a_base_url() {
        for good in [
            "https://example.com",
            "https://example.com/",
            "https://a.example.com:8443/app/",
            "http://localhost",
            "http://localhost:3000",
            "http://127.0.0.1:3000/x",
        ] {
            assert_eq!(fault(|settings| settings.base_url = good.into()), None, "{good}");
        }
        for bad in [
            "",
            "example.com",
            "//example.com",
            "javascript://example.com",
            "HTTPS://example.com",
            "https://",
            "https:///path",
            "https://user@example.com",
            "https://example.com?x=1",
            "https://example.com/#top",
            "https://example.com\r\nBcc: a@b.c",
            "https://example.com/\"><script>",
            "https://example.com:0",
            "https://example.com:+80",
            "https://example..com",
            "https://exämple.com",
            "https://example.com/ ",
        ] {
            assert_eq!(fault(|settings| settings.base_url = bad.into()), Some(NotifierFault::BaseUrl), "{bad}");
        }
        for bare in
            ["http://example.com", "http://localhost.example.com", "http://127.0.0.2", "http://127.0.0.1.example"]
        {
            assert_eq!(
                fault(|settings| settings.base_url = bare.into()),
                Some(NotifierFault::BaseUrlNotHttps),
                "{bare}"
            );
        }
    }

    #[test]
    fn names_that_could_forge_a_header_are_refused() {
        for bad in ["", "  ", "Example\r\nBcc: a@b.c", "Exa\u{0}mple", "Exa\u{2028}mple", &"x".repeat(65)] {
            assert_eq!(fault(|settings| settings.app_name = bad.into()), Some(NotifierFault::AppName), "{bad:?}");
        }
        for bad in ["nobody", "a@b.c\r\nBcc: d@e.f", "A <a@example.com>", ""] {
            assert_eq!(fault(|settings| settings.sender = Some(bad.into())), Some(NotifierFault::Sender), "{bad:?}");
        }
        for bad in ["", "de_AT", "de-", "../de", "deutschland"] {
            let found = fault(|settings| settings.default_locale = bad.into());
            assert_eq!(found, Some(NotifierFault::DefaultLocale), "{bad:?}");
        }
    }

    #[test]
    fn settings_are_read_with_their_defaults() {
        let json = r#"{"app_name": "Example", "base_url": "https://example.com/app/"}"#;
        let settings: NotifierSettings = serde_json::from_str(json).unwrap();
        assert_eq!(settings, NotifierSettings::new("Example", "https://example.com/app/"));
        assert_eq!((settings.home(), settings.host()), ("https://example.com/app", "example.com"));
        assert_eq!(settings.mailbox().address, "no-reply@example.com");
        assert!(
            serde_json::from_str::<NotifierSettings>(r#"{"app_name": "a", "base_url": "b", "bse_url": "c"}"#).is_err()
        );
    }
}
