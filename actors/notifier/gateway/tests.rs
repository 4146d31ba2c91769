//! Tests of construction: what is wrong with a description is found before a message is due.

use super::*;
use serde_json::{Value, json};

const KEY: &str = "canary-7f3a-key";

fn secrets() -> [(&'static str, ServiceSecret); 2] {
    [("key", ServiceSecret::new(KEY)), ("user", ServiceSecret::new("canary-user"))]
}

fn description(change: impl FnOnce(&mut Value)) -> GatewayDescription {
    let mut json = json!({
        "name": "sample", "method": "POST", "url": "https://sms.example.com/v1/{{id}}?to={{to}}",
        "headers": {"Idempotency-Key": "{{id}}"}, "body": {"json": {"to": "{{to}}", "text": "{{text}}"}}
    });
    change(&mut json);
    serde_json::from_value(json).unwrap()
}

fn fault(change: impl FnOnce(&mut Value)) -> Option<&'static str> {
    let gateway = HttpSmsGateway::new(&description(change), HttpSettings::default(), secrets());
    gateway.err().map(|fault| {
        assert!(!format!("{fault:?} {fault}").contains("canary"), "{fault:?}");
        fault.as_str()
    })
}

#[test]
fn a_url_depends_on_nothing_before_its_path() {
    for url in ["https://example.com", "https://example.com/{{to}}", "https://example.com?k={{secret:key}}"] {
        assert_eq!(fault(|json| json["url"] = url.into()), None, "{url}");
    }
    for (url, expected) in [
        ("https://{{to}}/", "misplaced_placeholder"),
        ("https://example.com:{{to}}/", "misplaced_placeholder"),
        ("https://{{secret:key}}@example.com/", "misplaced_placeholder"),
        ("https:///{{to}}/", "url"),
        ("https:\\\\{{to}}/", "url"),
        ("https://example.com\\@{{to}}/", "url"),
        ("{{to}}://example.com/", "url"),
        ("ftp://example.com/", "url"),
        ("http://example.com/", "url"),
        ("https://ada:pass@example.com/", "url"),
        ("https://127.0.0.1/", "url"),
        ("https://[::1]/", "url"),
        ("https://exa mple.com/", "url"),
        ("", "url"),
    ] {
        assert_eq!(fault(|json| json["url"] = url.into()), Some(expected), "{url}");
    }
    for (url, is_elsewhere) in [
        ("https://example.com/a/../b", true),
        ("https://example.com/.", true),
        ("https://example.com/a.b/..c?d=../e", false),
    ] {
        assert_eq!(has_dot_segment(url), is_elsewhere, "{url}");
    }
}

#[test]
fn a_header_is_one_line_of_ascii_that_belongs_to_the_message() {
    for (name, value) in [("X-One", "1"), ("content-type", "application/vnd.api+json"), ("X-To", "{{to_digits}}")] {
        assert_eq!(fault(|json| json["headers"][name] = value.into()), None, "{name}");
    }
    assert_eq!(fault(|json| json["headers"]["Authorization"] = "App {{secret:key}}".into()), None);
    for (name, value, expected) in [
        ("X One", "1", "header"),
        ("", "1", "header"),
        ("X-One\r\nX-Two", "1", "header"),
        ("X-One", "1\r\nX-Two: 2", "header"),
        ("X-One", "é", "header"),
        ("Host", "example.org", "header"),
        ("Content-Length", "0", "header"),
        ("Transfer-Encoding", "chunked", "header"),
        ("idempotency-key", "twice", "header"),
        ("X-One", "{{text}}", "misplaced_placeholder"),
        ("X-One", "{{name}}", "unknown_placeholder"),
        ("Authorization", "Bearer 12345", "credential_in_clear"),
    ] {
        assert_eq!(fault(|json| json["headers"][name] = value.into()), Some(expected), "{name}: {value}");
    }
}

#[test]
fn secrets_are_there_and_are_none_of_the_description() {
    let basic = |user: &str, secret: &str| json!({"basic": {"user": user, "secret": secret}});
    let bearer = |secret: &str| json!({"bearer": {"secret": secret}});
    for (authorization, expected) in [
        (basic("api", "key"), None),
        (basic("{{secret:user}}", "key"), None),
        (bearer("key"), None),
        (basic("api", "other"), Some("missing_secret")),
        (basic("{{secret:other}}", "key"), Some("missing_secret")),
        (bearer(""), Some("missing_secret")),
        (basic("a:b", "key"), Some("user")),
        (basic("", "key"), Some("user")),
        (basic("{{to}}", "key"), Some("misplaced_placeholder")),
    ] {
        assert_eq!(fault(|json| json["authorization"] = authorization.clone()), expected, "{authorization}");
    }
    let twice = fault(|json| {
        json["authorization"] = bearer("key");
        json["headers"]["authorization"] = "App {{secret:key}}".into();
    });
    assert_eq!(twice, Some("header"));
    assert_eq!(fault(|json| json["body"]["json"]["key"] = "{{secret:kez}}".into()), Some("missing_secret"));
    for unfit in ["", "key\n", "a\u{0}b"] {
        let secrets = [("key", ServiceSecret::new(unfit))];
        let fault = HttpSmsGateway::new(&description(|_| ()), HttpSettings::default(), secrets).err().unwrap();
        assert_eq!(fault, GatewayFault::InvalidSecret("key".to_owned()));
    }
}

#[test]
fn the_rest_is_looked_at_too() {
    let sixteen = "x".repeat(33);
    for name in ["", "Sample", "a b", "a\n", sixteen.as_str()] {
        assert_eq!(fault(|json| json["name"] = name.into()), Some("name"), "{name}");
    }
    assert_eq!(fault(|json| json["body"] = json!({"form": [["{{to}}", "1"]]})), Some("misplaced_placeholder"));
    assert_eq!(fault(|json| json["body"] = json!({"form": [["to", "{{html}}"]]})), Some("unknown_placeholder"));
    assert_eq!(fault(|json| json["code_pointers"] = json!(["code"])), Some("pointer"));
    let email = description(|json| json["body"] = json!({"form": [["to", "{{to_digits}}"]]}));
    let fault = EmailApi::new(&email, HttpSettings::default(), secrets()).err().unwrap();
    assert_eq!(fault, GatewayFault::UnknownPlaceholder("to_digits".to_owned()));
    let slow = HttpSettings { timeout: std::time::Duration::ZERO, ..HttpSettings::default() };
    let fault = EmailApi::new(&description(|_| ()), slow, secrets()).err().unwrap();
    assert_eq!(fault.as_str(), "http");
}

#[test]
fn debug_shows_the_name_alone() {
    let description = description(|json| json["url"] = "https://example.com/{{secret:key}}".into());
    let phone = HttpSmsGateway::new(&description, HttpSettings::default(), secrets()).unwrap();
    let email = EmailApi::new(&description, HttpSettings::default(), secrets()).unwrap();
    assert_eq!(format!("{phone:?}"), "HttpSmsGateway { name: \"sample\", .. }");
    assert_eq!(format!("{email:?}"), "EmailApi { name: \"sample\", .. }");
    let written = format!("{description:?} {}", serde_json::to_string(&description).unwrap());
    assert!(!written.contains("canary"), "{written}");
}
