//! Verdicts: what an answer of a gateway, or none, means for the message and for the gateway.

use serde_json::Value;

use super::super::transport::SendError;
use super::description::{AnswerRule, FailureClass, FailureRule, GatewayDescription};
use super::fault::GatewayFault;
use crate::http::{HttpAnswer, Unreached};

/// How many characters of a code are told.
const CODE_LIMIT: usize = 64;

/// How answers are read.
pub(super) struct Verdict {
    name: String,
    success: AnswerRule,
    failures: Vec<FailureRule>,
    code_pointers: Vec<String>,
}

impl Verdict {
    pub(super) fn new(description: &GatewayDescription) -> Result<Self, GatewayFault> {
        let mut success = description.success.clone();
        if success.statuses.is_empty() {
            success.statuses = AnswerRule::default().statuses;
        }
        let failures = description.failures.iter().map(|failure| &failure.when);
        for rule in failures.chain([&success]) {
            let is_bare = rule.statuses.is_empty() && rule.pointer.is_none();
            if is_bare || (rule.pointer.is_none() && !rule.values.is_empty()) {
                return Err(GatewayFault::Rule);
            }
            rule.pointer.iter().try_for_each(|pointer| check(pointer))?;
        }
        description.code_pointers.iter().try_for_each(|pointer| check(pointer))?;
        Ok(Self {
            name: description.name.clone(),
            success,
            failures: description.failures.clone(),
            code_pointers: description.code_pointers.clone(),
        })
    }

    /// What an answer means. `to` is what no reason may name.
    pub(super) fn of_answer(&self, answer: &HttpAnswer, to: &str) -> Result<(), SendError> {
        // What is not complete is not JSON.
        let body = serde_json::from_slice(&answer.body).ok().filter(|_| answer.is_complete);
        let body: Option<&Value> = body.as_ref();
        if fits(&self.success, answer.status, body) {
            return Ok(());
        }
        let rule = self.failures.iter().find(|rule| fits(&rule.when, answer.status, body));
        let class = rule.map_or_else(|| class_of(answer), |rule| rule.class);
        let code = body.and_then(|body| self.code(body, to)).map(|code| format!(", code {code}")).unwrap_or_default();
        let reason = format!("{} answered with status {}{code}", self.name, answer.status);
        Err(match class {
            FailureClass::Permanent => SendError::Permanent(reason),
            FailureClass::Transient => SendError::Transient(reason),
            FailureClass::Unavailable => SendError::Unavailable { reason, retry_after: answer.retry_after },
        })
    }

    /// What it means that there is no answer.
    pub(super) fn of_unreached(&self, unreached: Unreached) -> SendError {
        let reason = format!("{}: {unreached}", self.name);
        match unreached {
            Unreached::InvalidRequest => SendError::Permanent(reason),
            // It may have been sent all the same: another transport would send it twice.
            Unreached::AnswerLost | Unreached::TimedOut => SendError::Transient(reason),
            _ => SendError::unavailable(reason),
        }
    }

    /// The code of a failure, unless it names the recipient.
    fn code(&self, body: &Value, to: &str) -> Option<String> {
        let text_at = |pointer: &String| body.pointer(pointer).and_then(text_of).filter(|text| !text.is_empty());
        let code = self.code_pointers.iter().find_map(text_at)?;
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        let is_number = to.starts_with('+');
        let names_recipient = match is_number {
            true => digits(&code).contains(&digits(to)),
            false => code.to_lowercase().contains(&to.to_lowercase()),
        };
        let shown = code.chars().filter(|character| matches!(character, ' '..='~')).take(CODE_LIMIT).collect();
        (!names_recipient).then_some(shown)
    }
}

fn check(pointer: &str) -> Result<(), GatewayFault> {
    match pointer.starts_with('/') {
        true => Ok(()),
        false => Err(GatewayFault::Pointer(pointer.to_owned())),
    }
}

fn fits(rule: &AnswerRule, status: u16, body: Option<&Value>) -> bool {
    let has_status = rule.statuses.is_empty() || rule.statuses.iter().any(|range| range.contains(status));
    let has_value = rule.pointer.as_ref().is_none_or(|pointer| {
        let value = body.and_then(|body| body.pointer(pointer)).filter(|value| !value.is_null());
        value.is_some_and(|value| {
            rule.values.is_empty() || text_of(value).is_some_and(|text| rule.values.contains(&text))
        })
    });
    has_status && has_value
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// What a failure means by its status alone (RFC 9110, section 15).
const fn class_of(answer: &HttpAnswer) -> FailureClass {
    if answer.retry_after.is_some() && !matches!(answer.status, 200..=299) {
        return FailureClass::Unavailable;
    }
    match answer.status {
        // Credentials, money, a quota, a page that is elsewhere: it would befall every message.
        300..=399 | 401..=403 | 407 | 429 | 503 => FailureClass::Unavailable,
        408 | 425 => FailureClass::Transient,
        400..=499 => FailureClass::Permanent,
        // A success that does not look like one may be one: nobody knows what became of the message.
        _ => FailureClass::Transient,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TO: &str = "+447911123412";

    fn verdict(rules: &str) -> Verdict {
        let json = format!(r#"{{"name": "sample", "method": "POST", "url": "https://example.com/"{rules}}}"#);
        Verdict::new(&serde_json::from_str(&json).unwrap()).unwrap()
    }

    fn class(verdict: &Verdict, status: u16, body: &str) -> &'static str {
        let answer = HttpAnswer { status, retry_after: None, body: body.into(), is_complete: true };
        verdict.of_answer(&answer, TO).map_or_else(|error| error.as_str(), |()| "sent")
    }

    #[test]
    fn a_status_has_a_meaning_without_rules() {
        let plain = verdict("");
        for (statuses, expected) in [
            (&[200, 201, 202, 204, 299][..], "sent"),
            (&[301, 302, 307, 401, 402, 403, 407, 429, 503], "unavailable"),
            (&[400, 404, 405, 409, 410, 413, 422, 451], "permanent"),
            (&[101, 408, 425, 500, 502, 504, 599], "transient"),
        ] {
            for status in statuses {
                assert_eq!(class(&plain, *status, "not JSON"), expected, "{status}");
            }
        }
        for status in [413, 500, 503, 429] {
            let pause = Some(Duration::from_secs(7));
            let answer = HttpAnswer { status, retry_after: pause, body: Vec::new(), is_complete: true };
            let Err(SendError::Unavailable { retry_after, .. }) = plain.of_answer(&answer, TO) else {
                panic!("{status}")
            };
            assert_eq!(retry_after, pause);
        }
    }

    #[test]
    fn a_success_has_to_look_like_one() {
        let inside = verdict(r#", "success": {"pointer": "/messages/0/status", "values": ["0"]}"#);
        assert_eq!(class(&inside, 200, r#"{"messages": [{"status": "0"}]}"#), "sent");
        assert_eq!(class(&inside, 200, r#"{"messages": [{"status": 0}]}"#), "sent");
        for garbage in ["", "OK", "{", r#"{"messages": []}"#, r#"{"messages": [{"status": "1"}]}"#, "[[[["] {
            assert_eq!(class(&inside, 200, garbage), "transient", "{garbage}");
        }
        let cut = HttpAnswer {
            status: 200,
            retry_after: None,
            body: br#"{"messages": [{"status": "0"}]}"#.to_vec(),
            is_complete: false,
        };
        assert_eq!(inside.of_answer(&cut, TO).unwrap_err().as_str(), "transient");
        let there = verdict(r#", "success": {"statuses": ["201"], "pointer": "/sid"}"#);
        assert_eq!(class(&there, 201, r#"{"sid": "SM1"}"#), "sent");
        assert_eq!(class(&there, 201, r#"{"sid": null}"#), "transient");
        assert_eq!(class(&there, 200, r#"{"sid": "SM1"}"#), "transient");
        assert_eq!(class(&there, 400, r#"{"sid": "SM1"}"#), "permanent");
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules = verdict(
            r#", "success": {"pointer": "/ok", "values": ["true"]}, "failures": [
                {"when": {"statuses": ["400"], "pointer": "/code", "values": ["7"]}, "class": "unavailable"},
                {"when": {"pointer": "/code", "values": ["7", "8"]}, "class": "permanent"},
                {"when": {"statuses": ["500-502", "404"]}, "class": "unavailable"},
                {"when": {"statuses": ["422"], "pointer": "/temporary"}, "class": "transient"}]"#,
        );
        for (status, body, expected) in [
            (200, r#"{"ok": true, "code": 7}"#, "sent"),
            (400, r#"{"code": 7}"#, "unavailable"),
            (200, r#"{"code": "7"}"#, "permanent"),
            (503, r#"{"code": 8}"#, "permanent"),
            (502, "", "unavailable"),
            (404, r#"{"code": 9}"#, "unavailable"),
            (422, r#"{"temporary": false}"#, "transient"),
            (422, "{}", "permanent"),
            (400, "garbage", "permanent"),
        ] {
            assert_eq!(class(&rules, status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn of_an_answer_the_code_is_kept_and_never_the_recipient() {
        let codes = verdict(r#", "code_pointers": ["/error/code", "/code"]"#);
        let reason = |body: String, to| {
            let answer = HttpAnswer { status: 400, retry_after: None, body: body.into_bytes(), is_complete: true };
            codes.of_answer(&answer, to).unwrap_err().to_string()
        };
        let bare = "not sent: sample answered with status 400";
        assert_eq!(reason(r#"{"code": 21211, "message": "+447911123412"}"#.into(), TO), format!("{bare}, code 21211"));
        assert_eq!(
            reason(r#"{"code": 1, "error": {"code": "x\u0000\n\u202ey"}}"#.into(), TO),
            format!("{bare}, code xy")
        );
        let long = reason(format!(r#"{{"code": "{}"}}"#, "c".repeat(5_000)), TO);
        assert_eq!(long, format!("{bare}, code {}", "c".repeat(CODE_LIMIT)));
        for echo in ["to +447911123412", "447911123412 is barred", "+44 (7911) 123-412", &("x".repeat(60) + TO)] {
            assert_eq!(reason(format!(r#"{{"code": "{echo}"}}"#), TO), bare, "{echo}");
        }
        assert_eq!(reason(r#"{"code": "No ADA@example.org"}"#.into(), "Ada@example.org"), bare);
        assert_eq!(reason(r#"{"code": ["a"]}"#.into(), TO), bare);
    }

    #[test]
    fn no_answer_speaks_against_the_gateway_unless_the_request_was_sent() {
        let plain = verdict("");
        for (unreached, expected) in [
            (Unreached::NotConnected, "unavailable"),
            (Unreached::NameNotResolved, "unavailable"),
            (Unreached::TlsFailed, "unavailable"),
            (Unreached::TargetRefused, "unavailable"),
            (Unreached::TimedOut, "transient"),
            (Unreached::AnswerLost, "transient"),
            (Unreached::InvalidRequest, "permanent"),
        ] {
            assert_eq!(plain.of_unreached(unreached).as_str(), expected, "{unreached}");
        }
    }

    #[test]
    fn rules_that_cannot_be_meant_are_faults() {
        for (rules, expected) in [
            (r#", "success": {"values": ["0"]}"#, "rule"),
            (r#", "failures": [{"when": {}, "class": "permanent"}]"#, "rule"),
            (r#", "failures": [{"when": {"statuses": ["400"], "values": ["1"]}, "class": "permanent"}]"#, "rule"),
            (r#", "success": {"pointer": "status"}"#, "pointer"),
            (r#", "code_pointers": [""]"#, "pointer"),
        ] {
            let json = format!(r#"{{"name": "a", "method": "POST", "url": "https://example.com/"{rules}}}"#);
            let fault = Verdict::new(&serde_json::from_str(&json).unwrap()).err().unwrap();
            assert_eq!(fault.as_str(), expected, "{rules}");
        }
    }
}
