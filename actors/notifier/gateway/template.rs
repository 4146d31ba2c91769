//! Templates of requests: texts with placeholders, filled so that no value can leave the place that it is in.

use std::borrow::Cow;
use std::collections::BTreeMap;

use majordomo_model::{Channel, ServiceSecret};
use serde_json::{Map, Value};

use super::super::transport::Mailbox;
use super::fault::GatewayFault;

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
const SECRET: &str = "secret:";

/// The secrets that were handed over, by name.
pub(super) type Secrets = BTreeMap<String, ServiceSecret>;

/// What a placeholder stands for, secrets aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    To,
    ToDigits,
    Text,
    From,
    FromName,
    FromMailbox,
    Subject,
    Html,
}

impl Field {
    fn of(name: &str, channel: Channel) -> Option<Self> {
        match (name, channel) {
            ("id", _) => Some(Self::Id),
            ("to", _) => Some(Self::To),
            ("text", _) => Some(Self::Text),
            ("to_digits", Channel::Phone) => Some(Self::ToDigits),
            ("from", Channel::Email) => Some(Self::From),
            ("from_name", Channel::Email) => Some(Self::FromName),
            ("from_mailbox", Channel::Email) => Some(Self::FromMailbox),
            ("subject", Channel::Email) => Some(Self::Subject),
            ("html", Channel::Email) => Some(Self::Html),
            _ => None,
        }
    }

    /// Whether its values are one line of ASCII.
    const fn is_plain(self) -> bool {
        matches!(self, Self::Id | Self::To | Self::ToDigits | Self::From)
    }
}

/// What the placeholders of one message are replaced by.
pub(super) struct Values<'a> {
    pub(super) id: &'a str,
    pub(super) to: &'a str,
    pub(super) text: &'a str,
    pub(super) from: Option<&'a Mailbox>,
    pub(super) subject: Option<&'a str>,
    pub(super) html: Option<&'a str>,
}

impl Values<'_> {
    /// `None` if the message has no such part.
    fn get(&self, field: Field) -> Option<Cow<'_, str>> {
        let value = match field {
            Field::Id => Some(self.id),
            Field::To => Some(self.to),
            Field::ToDigits => Some(self.to.trim_start_matches('+')),
            Field::Text => Some(self.text),
            Field::From => self.from.map(|from| from.address.as_str()),
            Field::FromName => self.from.map(|from| from.name.as_str()),
            Field::FromMailbox => return self.from.map(|from| Cow::Owned(mailbox(from))),
            Field::Subject => self.subject,
            Field::Html => self.html,
        };
        value.map(Cow::Borrowed)
    }
}

/// The name in quotes, with what would end them escaped (RFC 5322, section 3.2.4).
fn mailbox(mailbox: &Mailbox) -> String {
    let name = mailbox.name.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{name}\" <{}>", mailbox.address)
}

enum Part {
    Literal(String),
    Field(Field),
    Secret(ServiceSecret),
}

/// A text with placeholders. It holds secrets: it is never printed.
pub(super) struct Template(Vec<Part>);

/// A message lacks what a template needs.
#[derive(Debug)]
pub(super) struct Lacking;

impl Template {
    /// Takes a text apart and puts the secrets in.
    pub(super) fn parse(text: &str, channel: Channel, secrets: &Secrets) -> Result<Self, GatewayFault> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, behind)) = rest.split_once(OPEN) {
            let (name, behind) =
                behind.split_once(CLOSE).ok_or_else(|| GatewayFault::OpenPlaceholder(text.to_owned()))?;
            parts.push(Part::Literal(literal.to_owned()));
            parts.push(match name.strip_prefix(SECRET) {
                Some(name) => Part::Secret(secret(name, secrets)?),
                None => Field::of(name, channel)
                    .map(Part::Field)
                    .ok_or_else(|| GatewayFault::UnknownPlaceholder(name.to_owned()))?,
            });
            rest = behind;
        }
        parts.push(Part::Literal(rest.to_owned()));
        Ok(Self(parts))
    }

    /// A text that is a secret as a whole.
    pub(super) fn secret(text: String) -> Self {
        Self(vec![Part::Secret(ServiceSecret::new(text))])
    }

    pub(super) fn has_secret(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Secret(_)))
    }

    /// Whether every message fills it with one line of ASCII, as far as its fields are concerned.
    pub(super) fn is_plain(&self) -> bool {
        self.0.iter().all(|part| !matches!(part, Part::Field(field) if !field.is_plain()))
    }

    /// The text, if it is the same for every message.
    pub(super) fn constant(&self) -> Option<String> {
        let text = |part: &Part| match part {
            Part::Literal(literal) => Some(literal.clone()),
            Part::Secret(secret) => Some(secret.expose().to_owned()),
            Part::Field(_) => None,
        };
        self.0.iter().map(text).collect()
    }

    /// The text with everything replaced as it is.
    pub(super) fn fill(&self, values: &Values<'_>) -> Result<String, Lacking> {
        self.fill_with(values, |text, value| text.push_str(value))
    }

    /// The text, which is a URL, with what is put in percent-encoded.
    pub(super) fn fill_url(&self, values: &Values<'_>) -> Result<String, Lacking> {
        self.fill_with(values, percent_encode)
    }

    fn fill_with(&self, values: &Values<'_>, put: fn(&mut String, &str)) -> Result<String, Lacking> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Field(field) => put(&mut text, &values.get(*field).ok_or(Lacking)?),
                Part::Secret(secret) => put(&mut text, secret.expose()),
            }
        }
        Ok(text)
    }
}

/// A secret by its name.
pub(super) fn secret(name: &str, secrets: &Secrets) -> Result<ServiceSecret, GatewayFault> {
    let secret = secrets.get(name).ok_or_else(|| GatewayFault::MissingSecret(name.to_owned()))?;
    Ok(secret.clone())
}

/// Everything but what is unreserved (RFC 3986, section 2.3). It serves forms too.
fn percent_encode(text: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// A body with placeholders. It holds secrets: it is never printed.
pub(super) enum Body {
    Json(Tree),
    Form(Vec<(String, Template)>),
}

/// A JSON value whose strings are templates.
pub(super) enum Tree {
    Constant(Value),
    Text(Template),
    List(Vec<Tree>),
    Members(Vec<(String, Tree)>),
}

impl Tree {
    pub(super) fn parse(value: &Value, channel: Channel, secrets: &Secrets) -> Result<Self, GatewayFault> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::parse(text, channel, secrets)?),
            Value::Array(list) => {
                Self::List(list.iter().map(|item| Self::parse(item, channel, secrets)).collect::<Result<_, _>>()?)
            }
            Value::Object(members) => {
                let member =
                    |(name, value): (&String, &Value)| Ok((plain_name(name)?, Self::parse(value, channel, secrets)?));
                Self::Members(members.iter().map(member).collect::<Result<_, GatewayFault>>()?)
            }
            constant => Self::Constant(constant.clone()),
        })
    }

    fn fill(&self, values: &Values<'_>) -> Result<Value, Lacking> {
        Ok(match self {
            Self::Constant(value) => value.clone(),
            Self::Text(template) => Value::String(template.fill(values)?),
            Self::List(list) => Value::Array(list.iter().map(|item| item.fill(values)).collect::<Result<_, _>>()?),
            Self::Members(members) => {
                let member = |(name, tree): &(String, Self)| Ok((name.clone(), tree.fill(values)?));
                Value::Object(members.iter().map(member).collect::<Result<Map<_, _>, Lacking>>()?)
            }
        })
    }
}

/// The name of a member or a field, which is never a template.
pub(super) fn plain_name(name: &str) -> Result<String, GatewayFault> {
    match name.contains(OPEN) {
        true => Err(GatewayFault::MisplacedPlaceholder(name.to_owned())),
        false => Ok(name.to_owned()),
    }
}

impl Body {
    pub(super) const fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json",
            Self::Form(_) => "application/x-www-form-urlencoded",
        }
    }

    pub(super) fn fill(&self, values: &Values<'_>) -> Result<Vec<u8>, Lacking> {
        match self {
            Self::Json(tree) => Ok(tree.fill(values)?.to_string().into_bytes()),
            Self::Form(fields) => {
                let mut text = String::new();
                for (name, template) in fields {
                    if !text.is_empty() {
                        text.push('&');
                    }
                    percent_encode(&mut text, name);
                    text.push('=');
                    percent_encode(&mut text, &template.fill(values)?);
                }
                Ok(text.into_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NASTY: &str = "\"}, {{secret:key}} &to=+1%00\\ \u{0}\r\nX: 1 {{to}} 😀";

    fn secrets() -> Secrets {
        Secrets::from([("key".to_owned(), ServiceSecret::new("s\"3&cr=t"))])
    }

    fn values<'a>(text: &'a str, from: &'a Mailbox) -> Values<'a> {
        Values { id: "1-2", to: "+447911123412", text, from: Some(from), subject: None, html: None }
    }

    fn mailbox_of(name: &str) -> Mailbox {
        Mailbox { name: name.to_owned(), address: "no-reply@example.com".to_owned() }
    }

    #[test]
    fn no_value_breaks_out_of_a_json_string() {
        let tree = json!({
            "to": "{{to}}", "text": "<{{text}}>", "list": [{"key": "{{secret:key}}"}, 7, null, true], "plain": "a } b"
        });
        let body = Body::Json(Tree::parse(&tree, Channel::Phone, &secrets()).unwrap());
        let sent: Value = serde_json::from_slice(&body.fill(&values(NASTY, &mailbox_of("a"))).unwrap()).unwrap();
        assert_eq!(
            sent,
            json!({
                "to": "+447911123412", "text": format!("<{NASTY}>"), "list": [{"key": "s\"3&cr=t"}, 7, null, true],
                "plain": "a } b"
            })
        );
    }

    #[test]
    fn no_value_breaks_out_of_a_form_or_a_url() {
        let template = |text| Template::parse(text, Channel::Phone, &secrets()).unwrap();
        let fields = vec![("a b".to_owned(), template("{{to}}")), ("key".to_owned(), template("x{{secret:key}}"))];
        let from = mailbox_of("a");
        let form = Body::Form(fields).fill(&values("", &from)).unwrap();
        assert_eq!(String::from_utf8(form).unwrap(), "a%20b=%2B447911123412&key=xs%223%26cr%3Dt");
        let url = template("https://example.com/{{to_digits}}?t={{text}}&k={{secret:key}}");
        let filled = url.fill_url(&values("a/b?c#d\n&é", &from)).unwrap();
        assert_eq!(filled, "https://example.com/447911123412?t=a%2Fb%3Fc%23d%0A%26%C3%A9&k=s%223%26cr%3Dt");
        let nasty = url.fill_url(&values(NASTY, &from)).unwrap();
        assert!(nasty.bytes().all(|byte| byte.is_ascii_graphic()) && nasty.matches(['&', '?', '#']).count() == 2);
    }

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let from = mailbox_of("Ada\" <eve@example.org>, \\");
        let template = Template::parse("{{from_mailbox}}", Channel::Email, &secrets()).unwrap();
        let filled = template.fill(&values("", &from)).unwrap();
        assert_eq!(filled, r#""Ada\" <eve@example.org>, \\" <no-reply@example.com>"#);
    }

    #[test]
    fn placeholders_are_known_closed_and_of_the_channel() {
        let fault = |text: &str, channel| Template::parse(text, channel, &secrets()).err().map(|fault| fault.as_str());
        for text in ["", "{", "}}", "{ {to} }", "{{id}}{{to}}{{text}}{{secret:key}}"] {
            assert_eq!(fault(text, Channel::Phone), None, "{text}");
            assert_eq!(fault(text, Channel::Email), None, "{text}");
        }
        for text in ["{{}}", "{{ to }}", "{{TO}}", "{{name}}", "{{link}}", "{{{to}}}", "{{secret}}"] {
            assert_eq!(fault(text, Channel::Phone), Some("unknown_placeholder"), "{text}");
        }
        for text in ["{{from}}", "{{from_name}}", "{{from_mailbox}}", "{{subject}}", "{{html}}"] {
            assert_eq!(fault(text, Channel::Phone), Some("unknown_placeholder"), "{text}");
            assert_eq!(fault(text, Channel::Email), None, "{text}");
        }
        assert_eq!(fault("{{to_digits}}", Channel::Email), Some("unknown_placeholder"));
        assert_eq!(fault("{{to", Channel::Phone), Some("open_placeholder"));
        assert_eq!(fault("{{secret:other}}", Channel::Phone), Some("missing_secret"));
        let member = Tree::parse(&json!({"{{to}}": 1}), Channel::Phone, &secrets()).err().unwrap();
        assert_eq!(member.as_str(), "misplaced_placeholder");
    }

    #[test]
    fn what_a_message_lacks_is_not_made_up() {
        let template = Template::parse("{{html}}", Channel::Email, &secrets()).unwrap();
        assert!(template.fill(&values("", &mailbox_of("a"))).is_err());
    }
}
