//! Facts: what the templates may say, built in one place.

use majordomo_model::Timestamp;
use minijinja::value::Value;

/// What the templates may say.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) app_name: &'a str,
    pub(super) base_url: &'a str,
    pub(super) host: &'a str,
    pub(super) default_locale: &'a str,
    /// When what the message tells of happened.
    pub(super) happened_at: Timestamp,
    pub(super) detail: Detail<'a>,
}

/// What the templates of some messages may say too.
#[derive(Clone, Copy)]
pub(super) enum Detail<'a> {
    /// Nothing.
    None,
    /// A link, unless only a code is accepted, and a code while it lives.
    Token(TokenFacts<'a>),
    /// The link that takes a change back; [`Detail::None`] where there is none any more.
    Undo(UndoFacts<'a>),
    /// From where somebody signed in: words of the notifier's own, nothing that the client said.
    SignIn { device: Option<&'a str>, network: Option<&'a str> },
    /// Until when nobody but a known device can sign in, and the link that lifts the lock.
    Lock { until: Timestamp, link: Option<&'a str> },
}

/// The link that takes a change back.
#[derive(Clone, Copy)]
pub(super) struct UndoFacts<'a> {
    pub(super) link: &'a str,
    pub(super) expires_at: Timestamp,
}

/// A link, unless only a code is accepted, and a code while it lives.
#[derive(Clone, Copy)]
pub(super) struct TokenFacts<'a> {
    pub(super) link: Option<&'a str>,
    pub(super) expires_at: Timestamp,
    /// With its end; `None` once that is over.
    pub(super) code: Option<(&'a str, Timestamp)>,
}

impl Facts<'_> {
    /// The link and the base URL hold nothing that HTML gives a meaning to, so they are not escaped. What is absent is
    /// undefined: it can be asked for with `if`, and not be shown.
    pub(super) fn values(&self, locale: &str) -> Value {
        let url = |text: &str| Value::from_safe_string(text.to_owned());
        let time = |instant: Timestamp| Value::from(utc_minute(instant));
        let mut values = vec![
            ("app_name", Value::from(self.app_name)),
            ("base_url", url(self.base_url)),
            ("host", Value::from(self.host)),
            ("locale", Value::from(locale)),
            ("happened_at", time(self.happened_at)),
        ];
        match self.detail {
            Detail::None => {}
            Detail::Token(token) => {
                values.extend(token.link.map(|link| ("link", url(link))));
                values.push(("expires_at", time(token.expires_at)));
                if let Some((code, code_expires_at)) = token.code {
                    values.push(("code", Value::from(code)));
                    values.push(("code_expires_at", time(code_expires_at)));
                }
            }
            Detail::Undo(undo) => {
                values.push(("undo_link", url(undo.link)));
                values.push(("undo_expires_at", time(undo.expires_at)));
            }
            Detail::SignIn { device, network } => {
                values.extend(device.map(|device| ("device", Value::from(device))));
                values.extend(network.map(|network| ("network", Value::from(network))));
            }
            Detail::Lock { until, link } => {
                values.push(("locked_until", time(until)));
                values.extend(link.map(|link| ("unlock_link", url(link))));
            }
        }
        Value::from_pairs(values)
    }
}

/// An instant as in `2026-01-31 14:05 UTC`.
fn utc_minute(instant: Timestamp) -> String {
    let text = instant.to_string();
    match text.split_once('T').and_then(|(day, time)| Some((day, time.get(..5)?))) {
        Some((day, minute)) => format!("{day} {minute} UTC"),
        None => text,
    }
}
