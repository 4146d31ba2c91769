//! Descriptions: how a provider's service is called and how its answers are read, as settings without secrets.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use crate::http::HttpMethod;

/// How a provider's HTTP API takes a message and answers. It is meant to be kept in a file, and holds no secret.
///
/// Texts may hold placeholders: `{{id}}` (the signal's id, the same at every attempt: an idempotency key), `{{to}}`,
/// `{{text}}`; for text messages `{{to_digits}}` (E.164 without the `+`); for e-mail `{{from}}` (the address),
/// `{{from_name}}`, `{{from_mailbox}}` (`"Name" <address>`), `{{subject}}`, `{{html}}`; and `{{secret:NAME}}`, which
/// stands for a secret that the app hands over by itself. Another placeholder is a fault. What replaces one is data:
/// it is never looked at for placeholders, and cannot end the string, the field or the part of a URL that it is in.
///
/// ```
/// use majordomo_actors::notifier::GatewayDescription;
///
/// let description: GatewayDescription = serde_json::from_str(r#"{
///     "name": "example",
///     "method": "POST",
///     "url": "https://sms.example.com/v1/messages",
///     "authorization": {"bearer": {"secret": "api_key"}},
///     "headers": {"Idempotency-Key": "{{id}}"},
///     "body": {"json": {"to": "{{to}}", "from": "Example", "text": "{{text}}"}},
///     "success": {"statuses": ["200-299"], "pointer": "/status", "values": ["accepted"]},
///     "code_pointers": ["/error/code"],
///     "failures": [{"when": {"pointer": "/error/code", "values": ["out_of_credit"]}, "class": "unavailable"}]
/// }"#)?;
/// assert_eq!(description.name, "example");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayDescription {
    /// What it is called in errors: 1 to 32 characters of `a` to `z`, `0` to `9`, `_` and `-`.
    pub name: String,
    /// The documentation that it was written after; for readers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documentation: Option<String>,
    /// The method.
    pub method: HttpMethod,
    /// The URL. Placeholders may stand behind the host; what replaces them is percent-encoded (RFC 3986).
    pub url: String,
    /// The Authorization header, unless there is none or it is among the headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<GatewayAuthorization>,
    /// Further headers. Of the placeholders only secrets and those that are ASCII by themselves: `{{id}}`, `{{to}}`,
    /// `{{to_digits}}`, `{{from}}`. `Content-Type` is that of the body unless it is here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<GatewayBody>,
    /// What an answer looks like by which the provider has taken charge of the message. Default: status 200 to 299.
    #[serde(default)]
    pub success: AnswerRule,
    /// Where the code of a failure may stand in a JSON answer (JSON pointers, RFC 6901): the first that is there is
    /// told in errors, up to 64 characters of it. Nothing else of an answer is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub code_pointers: Vec<String>,
    /// What failures mean, where the status alone does not tell. The first rule that fits counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailureRule>,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum GatewayAuthorization {
    /// A user and a password (RFC 7617).
    Basic {
        /// The user, without `:`; may hold `{{secret:NAME}}`.
        user: String,
        /// The name of the secret that is the password.
        secret: String,
    },
    /// A token (RFC 6750).
    Bearer {
        /// The name of the secret that is the token.
        secret: String,
    },
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GatewayBody {
    /// JSON. Placeholders are replaced inside its strings, not in the names of its members.
    Json(Value),
    /// Names and values (`application/x-www-form-urlencoded`). Placeholders are replaced in the values.
    Form(Vec<(String, String)>),
}

/// What an answer looks like: its status, and a value in its body if there is a pointer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerRule {
    /// The status is one of these. Default 200 to 299 for success, any for a failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<StatusRange>,
    /// Where the value stands in the body, which must be JSON (JSON pointer, RFC 6901).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The value is one of these: text as it is, numbers and truth values as JSON writes them. Empty: there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl Default for AnswerRule {
    /// Status 200 to 299, whatever the body is.
    fn default() -> Self {
        Self { statuses: vec![StatusRange { from: 200, to: 299 }], pointer: None, values: Vec::new() }
    }
}

/// What failures of a certain look mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureRule {
    /// What they look like.
    pub when: AnswerRule,
    /// What they mean.
    pub class: FailureClass,
}

/// What a failure means; see [`SendError`](super::super::SendError).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureClass {
    /// The message never goes through.
    Permanent,
    /// It may go through later.
    Transient,
    /// No message goes through now.
    Unavailable,
}

/// Statuses from one to another, both included; written as `"201"` or `"200-299"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatusRange {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

impl StatusRange {
    pub(super) const fn contains(self, status: u16) -> bool {
        self.from <= status && status <= self.to
    }

    fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.parse().ok().filter(|status| text.len() == 3 && (100..=599).contains(status));
        let range = Self { from: status(from)?, to: status(to)? };
        (range.from <= range.to).then_some(range)
    }
}

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.from == self.to {
            true => serializer.collect_str(&self.from),
            false => serializer.collect_str(&format_args!("{}-{}", self.from, self.to)),
        }
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| de::Error::custom("a status is 100 to 599, or two of them with a hyphen between"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_or_two() {
        for (text, range) in [("201", Some((201, 201))), ("200-299", Some((200, 299))), ("100-599", Some((100, 599)))] {
            assert_eq!(StatusRange::parse(text).map(|range| (range.from, range.to)), range);
            let range: StatusRange = serde_json::from_value(text.into()).unwrap();
            assert_eq!(serde_json::to_value(range).unwrap(), text);
        }
        for text in ["", "2xx", "99", "600", "299-200", "+200", "200-", "200-299-300", " 200", "0200"] {
            assert!(serde_json::from_value::<StatusRange>(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_description_survives_being_written_and_unknown_fields_are_refused() {
        let json = r#"{"name": "a", "method": "GET", "url": "https://example.com/"}"#;
        let mut description: GatewayDescription = serde_json::from_str(json).unwrap();
        assert_eq!(description.success, AnswerRule::default());
        description.authorization = Some(GatewayAuthorization::Basic { user: "u".into(), secret: "s".into() });
        description.body = Some(GatewayBody::Form(vec![("to".into(), "{{to}}".into())]));
        let written = serde_json::to_string(&description).unwrap();
        assert_eq!(serde_json::from_str::<GatewayDescription>(&written).unwrap(), description);
        assert!(serde_json::from_str::<GatewayDescription>(&json.replace("\"name\"", "\"x\": 1, \"name\"")).is_err());
    }
}
