//! The laws of the catalogue, each as a test.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::{Actor, Context, Envelope, Lane, Personal, SCHEMA_VERSION, Timestamp, UserId};

const USER: &str = "0190d6d3-7f9a-7c3e-9d52-0a5c1b2e3f40";
const OTHER_ID: &str = "0190d6d3-7f9a-7c3e-9d52-0a5c1b2e3f41";
const CANARY: &str = "canary@example.com";

/// The names of the source documents, in their order.
const SOURCES: [&str; 32] = [
    "user_password_set",
    "user_password_set_failed",
    "user_password_checked",
    "user_password_check_failed",
    "user_email_verification_token_generated",
    "user_email_verified",
    "user_email_verification_failed",
    "user_registration_started",
    "user_pre_register",
    "user_registered",
    "user_email_verification_initiated",
    "user_registration_failed",
    "user_authentication_started",
    "user_authenticated",
    "user_authentication_failed",
    "user_email_verification_successful",
    "user_update_started",
    "user_updated",
    "user_update_failed",
    "user_deletion_started",
    "user_deleted",
    "user_deletion_failed",
    "password_reset_request_started",
    "password_reset_request_processed",
    "password_reset_request_failed",
    "password_reset_started",
    "password_reset_successful",
    "password_reset_failed",
    "reset_password_email",
    "reset_password_phone",
    "verify_email",
    "verify_phone",
];

/// A field of a signal as JSON. One meaning a name, so the name tells the type, save for causes and reasons.
fn sample_field(kind: SignalKind, field: &str) -> Value {
    match field {
        "user" | "owner" => json!(USER),
        "contact" | "token" | "supersedes" | "delivery" | "session" | "signal" | "undo" | "unlock" | "reset" => {
            json!(OTHER_ID)
        }
        "username" | "email" | "phone" | "address" | "previous" | "identifier" => {
            json!({ "redacted": "c***", "sealed": "AQID" })
        }
        "addresses" => json!([{ "redacted": "c***" }, { "redacted": "d***", "sealed": "AQID" }]),
        "groups" | "fields" => json!(["one", "two"]),
        "success" | "needs_rehash" | "allowed" => json!(true),
        "count" | "failures" | "version" | "sessions_revoked" | "expires_at" | "place" | "attempts" | "bytes"
        | "from" | "to" | "until" | "started" | "answered" => {
            json!(7)
        }
        "failure" if kind == SignalKind::BreachCheckFailed => json!("malformed"),
        "failure" if kind == SignalKind::GuardFailed => json!("panicked"),
        "scheme" | "subscriber" | "failure" | "guard" => json!("a text"),
        "region" => json!("44"),
        "code" => json!("invite_required"),
        "channel" => json!("phone"),
        "identifier_kind" => json!("username"),
        "error_type" => json!("validation_error"),
        "via" => json!("code"),
        "method" => json!("password"),
        "message" => json!("address_taken"),
        "action" => json!("login"),
        "scope" => json!("source"),
        "change" => json!("password_reset"),
        "flow" => json!("register"),
        "reason" if kind == SignalKind::RequestsRefused => json!("overloaded"),
        "reason" => json!("expired"),
        "cause" => match kind {
            SignalKind::UserPasswordSet => json!("rehash"),
            SignalKind::SessionRevoked => json!("evicted"),
            _ => json!("never_verified"),
        },
        unknown => panic!("a sample for the field {unknown} of {kind:?} is missing"),
    }
}

fn sample_json(kind: SignalKind) -> Value {
    let fields: serde_json::Map<_, _> =
        kind.fields().iter().map(|field| ((*field).to_owned(), sample_field(kind, field))).collect();
    json!({ "type": kind.as_str(), "data": fields })
}

fn sample(kind: SignalKind) -> Signal {
    serde_json::from_value(sample_json(kind)).unwrap_or_else(|error| panic!("{kind:?}: {error}"))
}

fn samples() -> impl Iterator<Item = (SignalKind, Signal)> {
    SignalKind::ALL.iter().map(|kind| (*kind, sample(*kind)))
}

fn count_personal(value: &Value) -> usize {
    match value {
        Value::Object(fields) if fields.contains_key("redacted") => 1,
        Value::Object(fields) => fields.values().map(count_personal).sum(),
        Value::Array(values) => values.iter().map(count_personal).sum(),
        _ => 0,
    }
}

#[test]
fn the_signals_of_the_sources_are_all_there_under_their_numbers() {
    let ours: Vec<_> = SignalKind::ALL.iter().filter(|kind| kind.number() <= 100).collect();
    let listed: Vec<_> = ours.iter().map(|kind| (usize::from(kind.number()), kind.as_str())).collect();
    assert_eq!(listed, (1..).zip(SOURCES).collect::<Vec<_>>());
}

#[test]
fn names_and_numbers_are_unique_and_ours_begin_at_101() {
    let names: BTreeSet<_> = SignalKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let numbers: BTreeSet<_> = SignalKind::ALL.iter().map(|kind| kind.number()).collect();
    assert_eq!(names.len(), SignalKind::ALL.len());
    assert_eq!(numbers.len(), SignalKind::ALL.len());
    assert!(SignalKind::ALL.is_sorted_by_key(|kind| kind.number()));
    assert!(numbers.iter().all(|number| (1..=32).contains(number) || *number >= 101));
    for kind in SignalKind::ALL {
        assert!(kind.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{kind:?}");
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        let camel: String = kind.as_str().split('_').map(capitalised).collect();
        assert_eq!(format!("{kind:?}"), camel);
        assert!(kind.summary().ends_with('.'), "{kind:?}");
    }
}

fn capitalised(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

#[test]
fn every_flow_has_one_start_and_ends_in_success_or_failure() {
    for flow in FlowKind::ALL {
        let starts: Vec<_> = flow.starts().map(SignalKind::number).collect();
        if *flow == FlowKind::Delivery {
            assert_eq!(starts, [29, 30, 31, 32]);
        } else {
            assert_eq!(starts.len(), 1, "{flow:?}");
        }
        let good = |class| matches!(class, SignalClass::Fact | SignalClass::Delivery);
        let (successes, failures): (Vec<_>, Vec<_>) = flow.ends().partition(|kind| good(kind.class()));
        assert!(!successes.is_empty() && !failures.is_empty(), "{flow:?}: {successes:?} {failures:?}");
        for failure in failures {
            assert_eq!(failure.class(), SignalClass::Attempt, "{failure:?}");
            assert!(failure.fields().contains(&"reason"), "{failure:?} does not tell why");
        }
    }
}

#[test]
fn only_starts_and_due_messages_start_a_flow() {
    for kind in SignalKind::ALL {
        // Told ahead like a start, in the middle of its flow.
        let is_ahead = *kind == SignalKind::UserPreRegister;
        let may_start = (kind.class() == SignalClass::Start && !is_ahead) || (29..=32).contains(&kind.number());
        assert_eq!(!kind.starts().is_empty(), may_start, "{kind:?}");
        assert!(kind.starts().iter().all(|flow| !kind.ends().contains(flow)), "{kind:?} is start and end of a flow");
        if kind.class() == SignalClass::Operation {
            assert!(kind.ends().is_empty(), "{kind:?}");
        }
    }
}

#[test]
fn every_signal_survives_json_and_message_pack() {
    for (kind, signal) in samples() {
        assert_eq!(signal.kind(), kind);
        assert_eq!(serde_json::to_value(&signal).unwrap(), sample_json(kind), "{kind:?}");
        let packed = rmp_serde::to_vec_named(&signal).unwrap();
        assert_eq!(rmp_serde::from_slice::<Signal>(&packed).unwrap(), signal, "{kind:?}");
    }
}

#[test]
fn optional_fields_may_be_null_and_unknown_ones_are_skipped() {
    let mut json = sample_json(SignalKind::UserPasswordSetFailed);
    json["data"]["user"] = Value::Null;
    json["data"]["added_later"] = json!(1);
    let signal: Signal = serde_json::from_value(json).unwrap();
    assert_eq!(signal.user(), None);
    assert!(serde_json::from_value::<Signal>(json!({ "type": "no_such_signal", "data": {} })).is_err());
}

#[test]
fn the_user_of_a_signal_is_found() {
    let user: UserId = USER.parse().unwrap();
    for (kind, signal) in samples() {
        let names_one = kind.fields().iter().any(|field| matches!(*field, "user" | "owner"));
        assert_eq!(signal.user(), names_one.then_some(user), "{kind:?}");
    }
}

#[test]
fn every_personal_value_is_reached_and_none_is_shown_in_full() {
    for (kind, mut signal) in samples() {
        let mut reached = 0;
        signal.visit_personal(&mut |personal| {
            reached += 1;
            *personal = Personal::known(personal.redacted(), CANARY);
        });
        assert_eq!(reached, count_personal(&sample_json(kind)), "{kind:?}");
        let packed = rmp_serde::to_vec_named(&signal).unwrap();
        let shown = format!("{signal:?} {} {}", json!(signal), String::from_utf8_lossy(&packed));
        assert!(!shown.contains(CANARY), "{shown}");
        let mut kept = Vec::new();
        signal.visit_personal(&mut |personal: &mut Personal| kept.extend(personal.expose().map(str::to_owned)));
        assert_eq!(kept, vec![CANARY; reached], "{kind:?}");
    }
}

#[test]
fn the_table_has_a_row_a_signal_and_every_row_has_the_same_columns() {
    let table = catalogue_table();
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), SignalKind::ALL.len() + 2);
    assert!(rows.iter().all(|row| row.matches('|').count() == 8), "{table}");
    assert!(rows[8].starts_with("| 7 | `user_email_verification_failed` | attempt |  | `request_email_verification`,"));
}

fn envelope(signal: Signal) -> Envelope {
    Envelope {
        seq: Some(1),
        id: OTHER_ID.parse().unwrap(),
        flow: OTHER_ID.parse().unwrap(),
        cause: None,
        lane: Lane::User(USER.parse().unwrap()),
        at: Timestamp::from_micros(7),
        sender: signal.kind().sender(),
        actor: Actor::Admin("ops".to_owned()),
        path: Vec::new(),
        context: Context::new().request_id("r-1"),
        schema: SCHEMA_VERSION,
        signal,
    }
}

#[test]
fn an_envelope_of_every_kind_survives_json_and_message_pack() {
    for (kind, signal) in samples() {
        let envelope = envelope(signal);
        let json = serde_json::to_value(&envelope).unwrap();
        assert_eq!(serde_json::from_value::<Envelope>(json).unwrap(), envelope, "{kind:?}");
        let packed = rmp_serde::to_vec_named(&envelope).unwrap();
        assert_eq!(rmp_serde::from_slice::<Envelope>(&packed).unwrap(), envelope, "{kind:?}");
    }
}

/// Whether the fields of an object are among those that its schema names, and those that it requires are there.
#[cfg(feature = "schema")]
fn assert_fields_fit(object: &Value, schema: &Value) {
    let fields: BTreeSet<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    let named = schema["properties"].as_object().unwrap();
    assert!(fields.iter().all(|field| named.contains_key(*field)), "{object} does not fit {schema}");
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(fields.contains(required.as_str().unwrap()), "{object} lacks {required}");
    }
}

#[cfg(feature = "schema")]
#[test]
fn an_envelope_of_every_kind_fits_the_schema() {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    let variants = schema["$defs"]["Signal"]["oneOf"].as_array().unwrap();
    for (kind, signal) in samples() {
        let json = serde_json::to_value(envelope(signal)).unwrap();
        assert_fields_fit(&json, &schema);
        let of_kind = |variant: &&Value| variant["properties"]["type"]["const"] == kind.as_str();
        let variant = variants.iter().find(of_kind).unwrap();
        assert_fields_fit(&json["signal"], variant);
        assert_fields_fit(&json["signal"]["data"], &variant["properties"]["data"]);
    }
}

#[cfg(feature = "schema")]
#[test]
fn the_schema_names_every_type_and_field() {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    assert_eq!(schema["$id"], "majordomo-signal-v1");
    let variants = schema["$defs"]["Signal"]["oneOf"].as_array().unwrap();
    assert_eq!(variants.len(), SignalKind::ALL.len());
    for (kind, variant) in SignalKind::ALL.iter().zip(variants) {
        assert_eq!(variant["properties"]["type"]["const"], kind.as_str());
        let fields = variant["properties"]["data"]["properties"].as_object().unwrap();
        let named: BTreeSet<_> = fields.keys().map(String::as_str).collect();
        assert_eq!(named, kind.fields().iter().copied().collect(), "{kind:?}");
    }
}
