//! Text messages: what is refused before a gateway is asked, and what a gateway is.

mod segments;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;

use majordomo_model::{Channel, Phone, PhoneKind, SignalId};
use serde::{Deserialize, Serialize};

use super::transport::{OutgoingMessage, SendError, Transport};

/// The most that [`SmsSettings::segments`] may be.
const SEGMENTS_LIMIT: usize = 10;

/// Sends text messages: a provider's service, a modem. `HttpSmsGateway` (feature `webhook`) is one for most providers.
///
/// It is asked after [`Sms`] has refused what should not be sent. At least once, as with every [`Transport`].
///
/// ```
/// use majordomo_actors::notifier::{SendError, Sms, SmsGateway, SmsMessage, SmsSettings};
///
/// struct Modem;
///
/// impl SmsGateway for Modem {
///     async fn send(&self, message: &SmsMessage) -> Result<(), SendError> {
///         let _number = message.to.canonical();
///         Err(SendError::unavailable("the modem has no signal"))
///     }
/// }
///
/// let transport = Sms::new(Modem, SmsSettings::new(["GB", "IE"]))?;
/// # Ok::<(), majordomo_actors::notifier::SmsFault>(())
/// ```
pub trait SmsGateway: Send + Sync + 'static {
    /// Sends one message, and answers when the other side has taken charge of it. An answer is awaited for
    /// [`SEND_DEADLINE`](super::SEND_DEADLINE); the future is dropped then.
    ///
    /// # Errors
    /// [`SendError`]: the notifier tries again after a transient one, and gives up after a permanent one.
    fn send(&self, message: &SmsMessage) -> impl Future<Output = Result<(), SendError>> + Send;
}

/// A text message that is ready to be sent. It may hold a code that works: never log it, never store it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SmsMessage {
    /// The signal that it is for: the idempotency key, the same at every attempt.
    pub id: SignalId,
    /// The recipient; its canonical form is E.164.
    pub to: Phone,
    /// The text.
    pub text: String,
}

impl SmsMessage {
    /// A message.
    #[must_use]
    pub fn new(id: SignalId, to: Phone, text: impl Into<String>) -> Self {
        Self { id, to, text: text.into() }
    }
}

/// Shows neither the text nor the number.
impl fmt::Debug for SmsMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SmsMessage").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What may be sent. Whoever types a number into a form decides whom the app pays for: so only to countries that were
/// named, and never to a line that somebody earns by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmsSettings {
    /// Where messages may go: regions (ISO 3166-1 alpha-2, such as `GB`) and calling codes (such as `+44`, which holds
    /// Guernsey, Jersey and the Isle of Man too; `+1` holds some twenty countries). At least one.
    pub countries: BTreeSet<String>,
    /// How many segments a message may take: 1 to 10, 3 unless told. A segment is 160 characters of GSM 7-bit, or 70
    /// if one of them is of another alphabet, and a few less if there are several (3GPP TS 23.038, 23.040). Each is paid.
    #[serde(default = "three")]
    pub segments: usize,
}

const fn three() -> usize {
    3
}

impl SmsSettings {
    /// Settings with every default.
    #[must_use]
    pub fn new(countries: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { countries: countries.into_iter().map(Into::into).collect(), segments: three() }
    }
}

/// What is wrong with [`SmsSettings`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SmsFault {
    /// No country is allowed, so nothing could be sent.
    #[error("no country is allowed")]
    NoCountry,
    /// An entry is neither a region nor a calling code.
    #[error("{0:?} is neither a region in upper case, such as GB, nor a calling code, such as +44")]
    UnknownCountry(String),
    /// The number of segments.
    #[error("a message may take 1 to {SEGMENTS_LIMIT} segments")]
    Segments,
}

impl SmsFault {
    /// The stable name, in `snake_case`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NoCountry => "no_country",
            Self::UnknownCountry(_) => "unknown_country",
            Self::Segments => "segments",
        }
    }
}

/// The transport for text messages: it refuses what should not be sent, for good, and hands the rest to a gateway.
///
/// Refused are numbers of countries that are not allowed; premium-rate, shared-cost, VoIP, personal, pager, voicemail
/// and universal access numbers and those whose plan does not say what they are; and texts that are too long.
#[derive(Clone)]
pub struct Sms<G> {
    gateway: G,
    settings: SmsSettings,
}

impl<G: SmsGateway> Sms<G> {
    /// A transport over this gateway.
    ///
    /// # Errors
    /// [`SmsFault`].
    pub fn new(gateway: G, settings: SmsSettings) -> Result<Self, SmsFault> {
        if settings.countries.is_empty() {
            return Err(SmsFault::NoCountry);
        }
        if let Some(unknown) = settings.countries.iter().find(|country| !Phone::is_area(country)) {
            return Err(SmsFault::UnknownCountry(unknown.clone()));
        }
        if !(1..=SEGMENTS_LIMIT).contains(&settings.segments) {
            return Err(SmsFault::Segments);
        }
        Ok(Self { gateway, settings })
    }

    /// What speaks against a message, without the number.
    fn refusal(&self, to: &Phone, text: &str) -> Option<String> {
        if !self.is_allowed(to) {
            return Some("the number belongs to a country that is not allowed".to_owned());
        }
        let kind = to.kind();
        if !is_fit(kind) {
            return Some(format!("nothing is sent to numbers of the kind {}", kind.as_str()));
        }
        let (count, limit) = (segments::count(text), self.settings.segments);
        (count > limit).then(|| format!("the text takes {count} segments, and {limit} are allowed"))
    }

    fn is_allowed(&self, to: &Phone) -> bool {
        let region = to.region().is_some_and(|region| self.settings.countries.contains(&region));
        region || to.calling_code().is_some_and(|code| self.settings.countries.contains(&format!("+{code}")))
    }
}

/// What costs more, pays somebody, or has no screen is not fit. A number for both fixed and mobile lines may be a phone.
const fn is_fit(kind: PhoneKind) -> bool {
    use PhoneKind::{FixedLine, FixedLineOrMobile, Mobile, TollFree};
    matches!(kind, Mobile | FixedLineOrMobile | FixedLine | TollFree)
}

impl<G: SmsGateway> Transport for Sms<G> {
    fn channel(&self) -> Channel {
        Channel::Phone
    }

    async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        let to = Phone::parse(&message.to).map_err(|reason| SendError::Permanent(reason.to_string()))?;
        if let Some(reason) = self.refusal(&to, &message.text) {
            return Err(SendError::Permanent(reason));
        }
        self.gateway.send(&SmsMessage::new(message.id, to, message.text.clone())).await
    }
}

/// Shows the settings.
impl<G> fmt::Debug for Sms<G> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sms").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::notifier::sample_message;

    /// Keeps what it is given.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<SmsMessage>>>);

    impl SmsGateway for Kept {
        async fn send(&self, message: &SmsMessage) -> Result<(), SendError> {
            self.0.lock().unwrap().push(message.clone());
            Ok(())
        }
    }

    async fn send(countries: &[&str], to: &str, text: &str) -> (Result<(), SendError>, Vec<SmsMessage>) {
        let kept = Kept::default();
        let transport = Sms::new(kept.clone(), SmsSettings::new(countries.iter().copied())).unwrap();
        let mut message = sample_message(Channel::Phone);
        (message.to, message.text) = (to.to_owned(), text.to_owned());
        let sent = Transport::send(&transport, &message).await;
        let kept = kept.0.lock().unwrap().clone();
        (sent, kept)
    }

    #[tokio::test]
    async fn what_may_go_goes_to_the_gateway_as_it_is() {
        for (countries, to) in [
            (&["GB"][..], "+447912345678"),
            (&["+44"], "+447781123456"),
            (&["DE", "GG"], "+447781123456"),
            (&["US"], "+12015550123"),
            (&["+1"], "+18765230123"),
            (&["GB"], "+442070313000"),
        ] {
            let (sent, kept) = send(countries, to, "Grüße 123456").await;
            assert_eq!(sent, Ok(()), "{to}");
            assert_eq!((kept[0].to.canonical(), kept[0].text.as_str()), (to, "Grüße 123456"));
            assert!(!format!("{:?}", kept[0]).contains("123456"));
        }
    }

    #[tokio::test]
    async fn what_may_not_go_never_reaches_the_gateway_and_no_reason_names_a_number() {
        let long = "x".repeat(460);
        let cases = [
            (&["DE"][..], "+447912345678", "1", "country"),
            (&["US"], "+18765230123", "1", "country"),
            (&["GB"], "+447781123456", "1", "country"),
            (&["+44"], "+449187654321", "1", "premium_rate"),
            (&["US"], "+19002345678", "1", "premium_rate"),
            (&["+979"], "+979123456789", "1", "premium_rate"),
            (&["FR"], "+33810123456", "1", "shared_cost"),
            (&["GB"], "+445631231234", "1", "voip"),
            (&["GB"], "+447031231234", "1", "personal"),
            (&["GB"], "+447640123456", "1", "pager"),
            (&["GB"], "+445512345678", "1", "universal_access"),
            (&["GB"], "+447912345678", long.as_str(), "4 segments"),
            (&["GB"], "+44", "1", "phone number"),
        ];
        for (countries, to, text, word) in cases {
            let (sent, kept) = send(countries, to, text).await;
            assert!(kept.is_empty(), "{to}");
            let Err(SendError::Permanent(reason)) = sent else { panic!("{to}: {sent:?}") };
            assert!(reason.contains(word) && !reason.contains(&to[3..]) || to == "+44", "{to}: {reason}");
        }
    }

    #[tokio::test]
    async fn of_every_plan_only_phones_and_lines_where_the_called_pay_get_texts() {
        let mut sent_to = BTreeMap::new();
        for line in include_str!("../model/tests/data/phone_examples.txt").lines() {
            let number = line.split(' ').next_back().unwrap();
            let Ok(phone) = Phone::parse(number) else { continue };
            let area = format!("+{}", phone.calling_code().unwrap());
            let (sent, kept) = send(&[&area], number, "1").await;
            assert_eq!(sent.is_ok(), kept.len() == 1, "{number}");
            let counts: &mut [u32; 2] = sent_to.entry(phone.kind().as_str()).or_default();
            counts[usize::from(sent.is_err())] += 1;
        }
        let fit: Vec<_> = sent_to.iter().filter(|(_, counts)| counts[1] == 0).map(|(kind, _)| *kind).collect();
        assert_eq!(fit, ["fixed_line", "fixed_line_or_mobile", "mobile", "toll_free"]);
        assert!(sent_to.values().all(|[sent, refused]| *sent == 0 || *refused == 0));
        assert_eq!(sent_to["premium_rate"], [0, 118]);
        assert_eq!(sent_to.len(), 11, "{sent_to:?}");
    }

    #[test]
    fn settings_that_would_send_nothing_are_refused() {
        let fault = |settings| Sms::new(Kept::default(), settings).err().map(|fault| fault.as_str());
        assert_eq!(fault(SmsSettings::new([""; 0])), Some("no_country"));
        assert_eq!(fault(SmsSettings::new(["GB", "uk"])), Some("unknown_country"));
        for segments in [0, 11] {
            assert_eq!(fault(SmsSettings { segments, ..SmsSettings::new(["GB"]) }), Some("segments"));
        }
        let settings: SmsSettings = serde_json::from_str(r#"{"countries": ["GB", "+353"]}"#).unwrap();
        assert_eq!(settings, SmsSettings::new(["+353", "GB"]));
        assert_eq!(fault(settings), None);
        assert!(serde_json::from_str::<SmsSettings>("{}").is_err());
    }
}
