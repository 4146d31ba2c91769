//! What an answer of a mail server means: for this message, or for all of them.

use std::error::Error as _;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::response::Response;
use tokio::time::error::Elapsed;

use crate::notifier::SendError;

const REASON_BYTES: usize = 200;

/// What has been said when the answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing about a message yet: connection, TLS, greeting, login.
    Opening,
    /// MAIL: who sends. It is the same for every message.
    Sender,
    /// RCPT: who gets it.
    Recipient,
    /// DATA: that the content is to come.
    Data,
    /// The content, up to the answer by which the server takes charge of it.
    Content,
}

impl Stage {
    /// The stage as a part of a reason.
    const fn named(self) -> &'static str {
        match self {
            Self::Opening => "at the opening",
            Self::Sender => "at MAIL",
            Self::Recipient => "at RCPT",
            Self::Data => "at DATA",
            Self::Content => "after the content",
        }
    }

    /// Whether this is the answer that lets the session go on. A server that is ahead or behind by one answer, such as
    /// one whose answers were mixed with those of somebody on the way before TLS began, does not pass.
    const fn is_met_by(self, code: u16) -> bool {
        match self {
            Self::Opening => code == 235,
            Self::Sender => code == 250,
            Self::Recipient => matches!(code, 250..=252),
            Self::Data => code == 354,
            Self::Content => code / 100 == 2,
        }
    }

    /// No answer, or none that can be read. After the content nobody knows whether the message was taken.
    fn lost(self, how: &str) -> SendError {
        let reason = format!("{how} {}", self.named());
        if self == Self::Content { SendError::Transient(reason) } else { SendError::unavailable(reason) }
    }

    /// The server has answered no.
    fn refused(self, code: u16, status: Option<Status>) -> SendError {
        let shown = status.map(|status| format!(" {status}")).unwrap_or_default();
        let reason = format!("the server answered {code}{shown} {}", self.named());
        match class(self, code, status) {
            Class::Unavailable => SendError::unavailable(reason),
            Class::Transient => SendError::Transient(reason),
            Class::Permanent => SendError::Permanent(reason),
        }
    }

    /// What an error of the connection comes to. Of what a server wrote only numbers are kept: it may have written the
    /// recipient's address.
    pub(super) fn fault(self, error: &Error) -> SendError {
        if let Some(code) = error.status() {
            let text = error.source().map(ToString::to_string).unwrap_or_default();
            return self.refused(code.into(), Status::parse(&text));
        }
        if error.is_response() {
            return self.lost("no answer of SMTP");
        }
        if error.is_timeout() {
            return self.lost("no answer in time");
        }
        if self == Self::Opening {
            // Here the text is the library's or the system's, and no address has been told yet.
            return SendError::unavailable(bounded(&error.to_string()));
        }
        self.lost("the connection broke")
    }

    /// What an answer, or the lack of one, comes to.
    ///
    /// # Errors
    /// As the table of `docs/MESSAGES.md` has it.
    pub(super) fn judge(self, answer: Result<Result<Response, Error>, Elapsed>) -> Result<(), SendError> {
        match answer {
            Ok(Ok(response)) if self.is_met_by(response.code().into()) => Ok(()),
            Ok(Ok(response)) => Err(self.lost(&format!("{} is no answer", response.code()))),
            Ok(Err(error)) => Err(self.fault(&error)),
            Err(_) => Err(self.lost("no answer in time")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Unavailable,
    Transient,
    Permanent,
}

/// Whom a refusal speaks against.
const fn class(stage: Stage, code: u16, status: Option<Status>) -> Class {
    // Before a recipient is named it is not the message that is refused.
    if matches!(stage, Stage::Opening | Stage::Sender) {
        return Class::Unavailable;
    }
    if let Some(Status { subject, detail, .. }) = status {
        let says_sender = subject == 1 && matches!(detail, 7 | 8);
        let says_system = subject == 3 && matches!(detail, 1 | 2);
        let says_login = subject == 7 && matches!(detail, 8 | 9 | 11..=14);
        if says_sender || says_system || says_login {
            return Class::Unavailable;
        }
    }
    match code {
        // Closing down; no TLS or no login for now.
        421 | 454 => Class::Unavailable,
        // Login wanted, refused, too weak, or in clear (RFC 4954, RFC 5248).
        523..=525 | 530 | 534 | 535 | 538 => Class::Unavailable,
        // A command that the server does not know, or not now; the content is none.
        500 | 502..=504 if !matches!(stage, Stage::Content) => Class::Unavailable,
        400..=499 => Class::Transient,
        _ => Class::Permanent,
    }
}

/// An enhanced status code (RFC 3463), such as 5.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    class: u16,
    subject: u16,
    detail: u16,
}

impl Status {
    /// Reads the first word of an answer.
    fn parse(text: &str) -> Option<Self> {
        let number = |part: &str| {
            let fits = (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            if fits { part.parse().ok() } else { None }
        };
        let mut parts = text.split_whitespace().next()?.split('.').map(number);
        let status = Self { class: parts.next()??, subject: parts.next()??, detail: parts.next()?? };
        parts.next().is_none().then_some(status)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// The text without control characters, and no longer than a line of a log.
fn bounded(text: &str) -> String {
    let mut short = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if short.len() + character.len_utf8() > REASON_BYTES {
            break;
        }
        short.push(character);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNAVAILABLE: &str = "unavailable";
    const TRANSIENT: &str = "transient";
    const PERMANENT: &str = "permanent";

    #[test]
    fn a_refusal_speaks_against_the_message_or_the_transport() {
        for (stage, code, text, class) in [
            (Stage::Opening, 421, "4.3.2 down", UNAVAILABLE),
            (Stage::Opening, 454, "", UNAVAILABLE),
            (Stage::Opening, 535, "5.7.8 wrong", UNAVAILABLE),
            (Stage::Opening, 554, "5.7.1 not you", UNAVAILABLE),
            (Stage::Sender, 450, "4.1.8 sender", UNAVAILABLE),
            (Stage::Sender, 530, "5.7.0 login first", UNAVAILABLE),
            (Stage::Sender, 550, "5.7.1 sender", UNAVAILABLE),
            (Stage::Sender, 503, "5.5.1 hello?", UNAVAILABLE),
            (Stage::Recipient, 421, "", UNAVAILABLE),
            (Stage::Recipient, 450, "4.2.1 later", TRANSIENT),
            (Stage::Recipient, 451, "4.7.1 greylisted", TRANSIENT),
            (Stage::Recipient, 451, "4.3.2 down", UNAVAILABLE),
            (Stage::Recipient, 452, "4.2.2 full", TRANSIENT),
            (Stage::Recipient, 452, "4.3.1 system full", UNAVAILABLE),
            (Stage::Recipient, 501, "5.1.3 syntax", PERMANENT),
            (Stage::Recipient, 502, "", UNAVAILABLE),
            (Stage::Recipient, 503, "5.5.1 order", UNAVAILABLE),
            (Stage::Recipient, 530, "", UNAVAILABLE),
            (Stage::Recipient, 550, "5.1.1 unknown", PERMANENT),
            (Stage::Recipient, 550, "", PERMANENT),
            (Stage::Recipient, 550, "5.1.8 sender's domain", UNAVAILABLE),
            (Stage::Recipient, 550, "5.7.13 account disabled", UNAVAILABLE),
            (Stage::Recipient, 553, "5.1.3 mailbox", PERMANENT),
            (Stage::Recipient, 554, "5.7.1 relay", PERMANENT),
            (Stage::Data, 451, "", TRANSIENT),
            (Stage::Data, 503, "", UNAVAILABLE),
            (Stage::Data, 554, "no recipients", PERMANENT),
            (Stage::Content, 421, "", UNAVAILABLE),
            (Stage::Content, 450, "", TRANSIENT),
            (Stage::Content, 500, "line too long", PERMANENT),
            (Stage::Content, 535, "", UNAVAILABLE),
            (Stage::Content, 552, "5.3.4 too big", PERMANENT),
            (Stage::Content, 554, "5.6.0 spam", PERMANENT),
        ] {
            let error = stage.refused(code, Status::parse(text));
            assert_eq!(error.as_str(), class, "{stage:?} {code} {text}");
        }
    }

    #[test]
    fn a_lost_answer_is_one_only_after_the_content() {
        for stage in [Stage::Opening, Stage::Sender, Stage::Recipient, Stage::Data] {
            assert!(stage.lost("no answer in time").is_unavailable());
        }
        let lost = Stage::Content.lost("no answer in time");
        assert_eq!(lost, SendError::Transient("no answer in time after the content".into()));
    }

    #[test]
    fn only_the_answer_that_is_due_lets_it_go_on() {
        for (stage, due, other) in [
            (Stage::Opening, 235, 250),
            (Stage::Sender, 250, 354),
            (Stage::Recipient, 251, 354),
            (Stage::Data, 354, 250),
            (Stage::Content, 250, 354),
        ] {
            assert!(stage.is_met_by(due) && !stage.is_met_by(other), "{stage:?}");
        }
    }

    #[test]
    fn of_what_a_server_writes_numbers_are_kept() {
        let text = "5.1.1 <alice@example.org>: no such mailbox";
        let error = Stage::Recipient.refused(550, Status::parse(text));
        assert_eq!(error, SendError::Permanent("the server answered 550 5.1.1 at RCPT".into()));
        for text in ["", "alice@example.org", "5.1", "5.1.1.1", "5.1.1234", "5.1.x", "5..1", "-5.1.1"] {
            assert_eq!(Status::parse(text), None, "{text}");
        }
        assert_eq!(bounded(&"ä\r\n\0".repeat(1_000)), "ä".repeat(100));
    }
}
