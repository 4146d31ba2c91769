//! The body of a webhook: what of a signal an endpoint is told.

use majordomo_model::{Envelope, Lane, Personal, UserId};
use serde_json::{Map, Value, json};

use super::settings::WebhookFormat;

/// What stands in for a personal value until it is put in place; no value of a signal begins so.
const MARK: char = '\u{0}';

/// A finished body.
pub(super) struct Payload {
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Payload {
    /// The body for a signal; the same at every attempt, but that personal data is gone once its user is. `None` if the
    /// signal cannot be written as JSON.
    pub(super) fn new(envelope: &Envelope, format: &WebhookFormat, expose: bool) -> Option<Self> {
        let data = data(envelope, expose)?;
        let (kind, time) = (envelope.signal.kind().as_str(), envelope.at.to_string());
        let (content_type, body) = match format {
            WebhookFormat::Standard => ("application/json", json!({ "type": kind, "timestamp": time, "data": data })),
            WebhookFormat::CloudEvents { source, type_prefix } => {
                let name = [type_prefix, ".", kind].concat();
                let mut event = json!({
                    "specversion": "1.0",
                    "id": envelope.id,
                    "source": source,
                    "type": name,
                    "time": time,
                    "datacontenttype": "application/json",
                    "data": data,
                });
                if let (Some(event), Some(user)) = (event.as_object_mut(), user_of(envelope)) {
                    event.insert("subject".to_owned(), user.to_string().into());
                }
                ("application/cloudevents+json", event)
            }
        };
        Some(Self { content_type, body: serde_json::to_vec(&body).ok()? })
    }
}

/// The user that a signal speaks of, else the one in whose lane it stands.
fn user_of(envelope: &Envelope) -> Option<UserId> {
    let in_lane = match envelope.lane {
        Lane::User(user) => Some(user),
        Lane::Flow(_) => None,
    };
    envelope.signal.user().or(in_lane)
}

fn data(envelope: &Envelope, expose: bool) -> Option<Value> {
    let mut data = json!({
        "id": envelope.id,
        "seq": envelope.seq,
        "flow": envelope.flow,
        "actor": envelope.actor,
        "schema": envelope.schema,
        "fields": fields(envelope, expose)?,
    });
    let further = data.as_object_mut()?;
    if let Some(cause) = envelope.cause {
        further.insert("cause".to_owned(), json!(cause));
    }
    if let Some(user) = user_of(envelope) {
        further.insert("user".to_owned(), json!(user));
    }
    Some(data)
}

/// A signal's fields, each personal value as `redacted`, and as `full` if it is to be exposed: never sealed, and no hash.
fn fields(envelope: &Envelope, expose: bool) -> Option<Value> {
    let mut signal = envelope.signal.clone();
    let mut values: Vec<Map<String, Value>> = Vec::new();
    signal.visit_personal(&mut |personal| {
        let mut value = Map::from_iter([("redacted".to_owned(), personal.redacted().into())]);
        if let Some(full) = personal.expose().filter(|_| expose) {
            value.insert("full".to_owned(), full.into());
        }
        *personal = Personal::redacted_only(format!("{MARK}{}", values.len()));
        values.push(value);
    });
    let mut fields = match serde_json::to_value(&signal).ok()? {
        Value::Object(mut tagged) => tagged.remove("data").unwrap_or_else(|| json!({})),
        _ => json!({}),
    };
    put_in_place(&mut fields, &values);
    Some(fields)
}

fn put_in_place(value: &mut Value, values: &[Map<String, Value>]) {
    match value {
        Value::Object(fields) => {
            let mark = fields.get("redacted").and_then(Value::as_str).and_then(|text| text.strip_prefix(MARK));
            if let Some(personal) = mark.and_then(|number| values.get(number.parse::<usize>().ok()?)) {
                fields.clone_from(personal);
                return;
            }
            fields.values_mut().for_each(|field| put_in_place(field, values));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| put_in_place(item, values)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{Actor, Channel, Context, FlowId, SCHEMA_VERSION, Sender, Signal, SignalId, Timestamp};

    use super::*;

    fn sample(user: UserId) -> Envelope {
        let mut address = Personal::known("a***@e***.com", "ada@example.com");
        address.set_sealed(b"sealed canary".to_vec());
        Envelope {
            seq: Some(7),
            id: SignalId::new(),
            flow: FlowId::new(),
            cause: None,
            lane: Lane::User(user),
            at: Timestamp::from_micros(1_800_000_000_000_000),
            sender: Sender::USER_MANAGER,
            actor: Actor::User(user),
            path: Vec::new(),
            context: Context::new().client_ip("192.0.2.1".parse().unwrap()),
            schema: SCHEMA_VERSION,
            signal: Signal::AddressTaken { owner: user, address, channel: Channel::Email },
        }
    }

    fn body(envelope: &Envelope, format: &WebhookFormat, expose: bool) -> (String, Value) {
        let payload = Payload::new(envelope, format, expose).unwrap();
        let text = String::from_utf8(payload.body).unwrap();
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    #[test]
    fn the_standard_form_tells_the_signal_and_redacts() {
        let user = UserId::new();
        let envelope = sample(user);
        let (text, value) = body(&envelope, &WebhookFormat::Standard, false);
        let expected = json!({
            "type": "address_taken",
            "timestamp": "2027-01-15T08:00:00Z",
            "data": {
                "id": envelope.id, "seq": 7, "flow": envelope.flow, "user": user, "schema": SCHEMA_VERSION,
                "actor": envelope.actor,
                "fields": { "owner": user, "address": { "redacted": "a***@e***.com" }, "channel": "email" },
            },
        });
        assert_eq!(value, expected);
        for hidden in ["ada@", "sealed", "192.0.2.1", "hash"] {
            assert!(!text.contains(hidden), "{text}");
        }
    }

    #[test]
    fn personal_data_is_exposed_on_purpose_and_never_in_a_sealed_form() {
        let envelope = sample(UserId::new());
        let (text, value) = body(&envelope, &WebhookFormat::Standard, true);
        let address = json!({ "redacted": "a***@e***.com", "full": "ada@example.com" });
        assert_eq!(value["data"]["fields"]["address"], address);
        assert!(!text.contains("sealed"), "{text}");
        // What somebody typed has a hash, which is nobody's business.
        let identifier = Personal::unmatched("n***", [7; 32]);
        let signal = Signal::UserRegistrationStarted { username: Some(identifier), email: None, phone: None };
        let (text, value) = body(&Envelope { signal, ..envelope }, &WebhookFormat::Standard, true);
        assert_eq!(value["data"]["fields"]["username"], json!({ "redacted": "n***" }));
        assert!(!text.contains("hash"), "{text}");
    }

    #[test]
    fn a_cloud_event_has_its_attributes() {
        let user = UserId::new();
        let envelope = Envelope { cause: Some(FlowId::new()), ..sample(user) };
        let format = WebhookFormat::CloudEvents { source: "urn:example".into(), type_prefix: "com.example".into() };
        let payload = Payload::new(&envelope, &format, false).unwrap();
        assert_eq!(payload.content_type, "application/cloudevents+json");
        let (_, value) = body(&envelope, &format, false);
        let mut attributes = value.clone();
        let data = attributes.as_object_mut().unwrap().remove("data").unwrap();
        let expected = json!({
            "specversion": "1.0", "id": envelope.id, "source": "urn:example", "type": "com.example.address_taken",
            "subject": user, "time": "2027-01-15T08:00:00Z", "datacontenttype": "application/json",
        });
        assert_eq!(attributes, expected);
        assert_eq!(data, body(&envelope, &WebhookFormat::Standard, false).1["data"]);
        assert_eq!(data["cause"], json!(envelope.cause));
    }
}
