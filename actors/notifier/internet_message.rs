//! The Internet Message Format (RFC 5322, MIME: RFC 2045 to 2047): a message as a mail program reads it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use majordomo_model::Timestamp;

use super::transport::{Mailbox, OutgoingMessage, SendError};

const LINE_LIMIT: usize = 998;
const ENCODED_WIDTH: usize = 76;
/// Bytes of text in one encoded word: with a header's name before it the line keeps to 76 characters (RFC 2047, section 2).
const WORD_BYTES: usize = 39;
const DAY_MICROS: i64 = 86_400_000_000;
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The e-mail as text with CRLF line ends: headers, then plain text and HTML as alternatives.
///
/// The same message gives the same text, whenever and however often it is asked for.
///
/// # Errors
/// [`SendError::Permanent`] if an address, the subject or the sender's name could forge a header.
pub(super) fn mail(message: &OutgoingMessage) -> Result<String, SendError> {
    let from = message.from.as_ref().ok_or_else(|| SendError::Permanent("an e-mail needs a sender".to_owned()))?;
    check_address(&from.address)?;
    check_address(&message.to)?;
    check_line("the sender's name", &from.name)?;
    let subject = message.subject.as_deref().unwrap_or_default();
    check_line("the subject", subject)?;
    let domain = from.address.rsplit('@').next().unwrap_or_default();
    let mut text = String::new();
    let mut line = |parts: &[&str]| {
        text.extend(parts.iter().copied().chain(["\r\n"]));
    };
    line(&["From: ", &mailbox(from)]);
    line(&["To: ", &message.to]);
    line(&["Subject: ", &unstructured(subject)]);
    line(&["Date: ", &date(message.at)]);
    line(&["Message-ID: <", &message.id.to_string(), "@", domain, ">"]);
    line(&["Auto-Submitted: auto-generated"]);
    line(&["MIME-Version: 1.0"]);
    let plain = part("plain", &message.text);
    let Some(html) = &message.html else {
        line(&[&plain]);
        return Ok(text);
    };
    let boundary = format!("=_{}", message.id);
    line(&["Content-Type: multipart/alternative; boundary=\"", &boundary, "\"", "\r\n"]);
    for part in [plain, part("html", html)] {
        line(&["--", &boundary]);
        line(&[&part]);
    }
    line(&["--", &boundary, "--"]);
    Ok(text)
}

/// Refuses what is no bare address: control characters, spaces, and what separates addresses in a header.
pub(super) fn check_address(address: &str) -> Result<(), SendError> {
    let forbidden = |byte: u8| !byte.is_ascii_graphic() || b"<>()[],;:\\\"".contains(&byte);
    if address.is_empty() || address.bytes().any(forbidden) {
        return Err(SendError::Permanent("the address is not fit for a header".to_owned()));
    }
    Ok(())
}

fn check_line(what: &str, text: &str) -> Result<(), SendError> {
    if text.chars().any(char::is_control) {
        return Err(SendError::Permanent(format!("{what} has control characters")));
    }
    Ok(())
}

/// `"Name" <address>`.
fn mailbox(mailbox: &Mailbox) -> String {
    let name = if is_plain(&mailbox.name) {
        format!("\"{}\"", mailbox.name.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        encoded_words(&mailbox.name)
    };
    format!("{name} <{}>", mailbox.address)
}

fn unstructured(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { encoded_words(text) }
}

/// Whether a header takes the text as it is, on one line of moderate length.
fn is_plain(text: &str) -> bool {
    text.is_ascii() && text.len() <= ENCODED_WIDTH && !text.contains("=?")
}

/// The text as encoded words (RFC 2047), none of which splits a character.
fn encoded_words(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for character in text.chars() {
        match words.last_mut() {
            Some(word) if word.len() + character.len_utf8() <= WORD_BYTES => word.push(character),
            _ => words.push(character.to_string()),
        }
    }
    let encoded: Vec<_> = words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word))).collect();
    encoded.join("\r\n ")
}

/// The date as RFC 5322, section 3.3, writes it: `Thu, 01 Jan 1970 00:00:00 +0000`.
fn date(instant: Timestamp) -> String {
    let day_number = instant.as_micros().div_euclid(DAY_MICROS);
    let weekday = usize::try_from(day_number.rem_euclid(7)).ok().and_then(|day| WEEKDAYS.get(day));
    let text = instant.to_string();
    let mut fields = text.split(['-', 'T', '.', 'Z']);
    let mut field = || fields.next().unwrap_or_default();
    let (year, month, day, time) = (field(), field(), field(), field());
    let month = month.parse::<usize>().ok().and_then(|month| MONTHS.get(month.checked_sub(1)?));
    match (weekday, month) {
        (Some(weekday), Some(month)) => format!("{weekday}, {day} {month} {year} {time} +0000"),
        // Beyond the years 0 to 9999 there is no such date.
        _ => "Thu, 01 Jan 1970 00:00:00 +0000".to_owned(),
    }
}

/// The headers and the body of one MIME part: as it is where it is ASCII in short lines, else in base64. So any server
/// takes it, with 8BITMIME or without. A line of text ends with CRLF, encoded or not (RFC 2046, section 4.1.1).
fn part(subtype: &str, body: &str) -> String {
    let body = body.replace("\r\n", "\n");
    let is_short = body.lines().all(|line| line.len() <= LINE_LIMIT);
    let fits = is_short && body.is_ascii() && !body.contains(['\0', '\r']);
    let body = body.replace('\n', "\r\n");
    let (encoding, body) = if fits { ("7bit", body) } else { ("base64", wrapped(&STANDARD.encode(body))) };
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ =
        write!(text, "Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n");
    text.push_str(&body);
    text
}

fn wrapped(encoded: &str) -> String {
    let mut lines = String::with_capacity(encoded.len() + encoded.len() / 38 + 2);
    for (position, character) in encoded.chars().enumerate() {
        if position > 0 && position % ENCODED_WIDTH == 0 {
            lines.push_str("\r\n");
        }
        lines.push(character);
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::notifier::sample_message;

    type Headers = BTreeMap<String, String>;

    fn split(text: &str) -> (Headers, &str) {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let unfolded = head.replace("\r\n ", " ");
        let headers = unfolded.split("\r\n").map(|line| line.split_once(": ").unwrap());
        (headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), body)
    }

    fn decoded(words: &str) -> String {
        let word = |word: &str| {
            assert!(word.len() <= 75, "{word}");
            let inner = word.strip_prefix("=?utf-8?B?").unwrap().strip_suffix("?=").unwrap();
            String::from_utf8(STANDARD.decode(inner).unwrap()).unwrap()
        };
        words.split(' ').map(word).collect()
    }

    fn body_of(part: &str) -> (String, String) {
        let (headers, body) = split(part);
        let body = match headers["Content-Transfer-Encoding"].as_str() {
            "base64" => String::from_utf8(STANDARD.decode(body.replace("\r\n", "")).unwrap()).unwrap(),
            _ => body.to_owned(),
        };
        assert_eq!(body.replace("\r\n", "").matches(['\r', '\n']).count(), 0);
        (headers["Content-Type"].clone(), body.replace("\r\n", "\n"))
    }

    #[test]
    fn a_mail_reads_back() {
        let mut message = sample_message(majordomo_model::Channel::Email);
        message.subject = Some("Bestätigen Sie Ihre Adresse bei Müller & Söhne, Straße der Übermütigen".into());
        message.html = Some("<p>x</p>".repeat(400));
        let text = mail(&message).unwrap();
        assert_eq!(text.replace("\r\n", "").matches(['\r', '\n']).count(), 0);
        assert!(text.split("\r\n").all(|line| line.len() <= LINE_LIMIT));
        assert!(text.is_ascii(), "a server without 8BITMIME would not take it");

        let (headers, body) = split(&text);
        assert_eq!(headers["From"], "\"Example \\\"One\\\"\" <no-reply@example.com>");
        assert_eq!(headers["To"], "Alice@example.org");
        assert_eq!(decoded(&headers["Subject"]), message.subject.clone().unwrap());
        assert_eq!(headers["Date"], "Thu, 01 Jan 2026 00:00:07 +0000");
        assert_eq!(headers["Message-ID"], format!("<{}@example.com>", message.id));
        assert_eq!(headers["Auto-Submitted"], "auto-generated");

        let boundary = headers["Content-Type"].split('"').nth(1).unwrap();
        let parts: Vec<_> = body.split(&format!("--{boundary}")).collect();
        assert_eq!((parts.len(), parts[0], parts[3]), (4, "", "--\r\n"));
        let inner = |part: &str| body_of(part.strip_prefix("\r\n").unwrap().strip_suffix("\r\n").unwrap());
        assert_eq!(inner(parts[1]), ("text/plain; charset=utf-8".into(), message.text.clone()));
        assert_eq!(inner(parts[2]), ("text/html; charset=utf-8".into(), message.html.clone().unwrap()));
        assert_eq!(mail(&message).unwrap(), text);
    }

    #[test]
    fn what_could_forge_a_header_is_refused() {
        let refused = |change: &dyn Fn(&mut OutgoingMessage)| {
            let mut message = sample_message(majordomo_model::Channel::Email);
            change(&mut message);
            !mail(&message).unwrap_err().is_transient()
        };
        for bad in ["", "a@b.c\r\nBcc: d@e.f", "a@b.c\n", "a@b.c,d@e.f", "A <a@b.c>", "a b@c.d", "a@b.c\u{0}", "ä@b.c"]
        {
            assert!(refused(&|message| message.to = bad.into()), "{bad:?}");
            let from = |message: &mut OutgoingMessage| message.from.as_mut().unwrap().address = bad.into();
            assert!(refused(&from), "{bad:?}");
        }
        for bad in ["a\r\nBcc: d@e.f", "a\nb", "a\rb", "a\u{0}b"] {
            assert!(refused(&|message| message.subject = Some(bad.into())), "{bad:?}");
            assert!(refused(&|message| message.from.as_mut().unwrap().name = bad.into()), "{bad:?}");
        }
        assert!(refused(&|message| message.from = None));
    }

    #[test]
    fn dates_know_their_weekday() {
        for (micros, shown) in [
            (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (-1, "Wed, 31 Dec 1969 23:59:59 +0000"),
            (951_782_400_123_456, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_785_542_399_000_000, "Fri, 31 Jul 2026 23:59:59 +0000"),
        ] {
            assert_eq!(date(Timestamp::from_micros(micros)), shown);
        }
    }

    #[test]
    fn odd_names_are_encoded_whole() {
        let name = "日本語".repeat(12);
        let shown = mailbox(&Mailbox { name: name.clone(), address: "a@b.c".into() });
        let (words, address) = shown.rsplit_once(' ').unwrap();
        assert_eq!((decoded(&words.replace("\r\n ", " ")), address), (name, "<a@b.c>"));
        assert_eq!(decoded(&unstructured("=?utf-8?B?QQ==?=")), "=?utf-8?B?QQ==?=");
    }
}
