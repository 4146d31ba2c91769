//! The secret of a webhook, and the signatures that are made with it (Standard Webhooks 1.0.0).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use majordomo_model::{SignalId, Timestamp};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::settings::WebhookFault;

const PREFIX: &str = "whsec_";
/// How many bytes a secret has, at least and at most.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How many bytes one that is made here has.
const MADE_BYTES: usize = 32;

/// A secret that an endpoint and this process share: `whsec_` and 24 to 64 bytes in base64. It is never printed.
#[derive(Clone)]
pub struct WebhookSecret(Zeroizing<Vec<u8>>);

impl WebhookSecret {
    /// The secret that is written so.
    ///
    /// # Errors
    /// [`WebhookFault::InvalidSecret`] without the prefix, for what is not base64, and for fewer than 24 or more than 64
    /// bytes, so that an empty one is no secret.
    pub fn parse(text: &str) -> Result<Self, WebhookFault> {
        let encoded = text.strip_prefix(PREFIX).ok_or(WebhookFault::InvalidSecret)?;
        let bytes = STANDARD.decode(encoded).map(Zeroizing::new).map_err(|_| WebhookFault::InvalidSecret)?;
        if BYTES.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(WebhookFault::InvalidSecret) }
    }

    /// A new one, of 32 random bytes.
    ///
    /// # Errors
    /// [`WebhookFault::NoRandomness`] if the operating system gives none.
    pub fn generate() -> Result<Self, WebhookFault> {
        let mut bytes = Zeroizing::new(vec![0; MADE_BYTES]);
        getrandom::fill(&mut bytes).map_err(|_| WebhookFault::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// As it is written, for whoever runs the endpoint.
    #[must_use]
    pub fn expose(&self) -> String {
        [PREFIX, &STANDARD.encode(&*self.0)].concat()
    }

    /// The signature of one attempt: `v1,` and HMAC-SHA-256 over id, time and body in base64.
    fn signature(&self, id: &str, timestamp: &str, body: &[u8]) -> Option<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        Some(["v1,", &STANDARD.encode(mac.finalize().into_bytes())].concat())
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WebhookSecret(..)")
    }
}

/// The headers that prove one attempt.
pub(super) struct Proof {
    pub(super) id: String,
    pub(super) timestamp: String,
    pub(super) signatures: String,
}

impl Proof {
    /// Signs a body with every secret, in their order. The id stays; the time is that of the attempt.
    pub(super) fn new(secrets: &[WebhookSecret], id: SignalId, at: Timestamp, body: &[u8]) -> Self {
        let (id, timestamp) = (id.to_string(), at.as_micros().div_euclid(1_000_000).to_string());
        let signatures: Vec<_> = secrets.iter().filter_map(|secret| secret.signature(&id, &timestamp, body)).collect();
        Self { id, timestamp, signatures: signatures.join(" ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The vector of the reference libraries.
    #[test]
    fn the_published_vector_is_met() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = secret.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body);
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_secret_signs_in_its_order() {
        let secrets = [WebhookSecret::generate().unwrap(), WebhookSecret::generate().unwrap()];
        let (id, at) = (SignalId::new(), Timestamp::from_micros(1_674_087_231_999_999));
        let proof = Proof::new(&secrets, id, at, b"{}");
        let alone = secrets.each_ref().map(|secret| Proof::new(std::slice::from_ref(secret), id, at, b"{}").signatures);
        assert_eq!((proof.timestamp.as_str(), proof.signatures), ("1674087231", alone.join(" ")));
        assert_ne!(alone[0], alone[1]);
        assert_eq!(Proof::new(&secrets, id, Timestamp::from_micros(-1), b"").timestamp, "-1");
    }

    #[test]
    fn a_secret_is_long_enough_and_shows_nothing() {
        let written = |bytes: usize| ["whsec_", &STANDARD.encode(vec![7; bytes])].concat();
        for bytes in [24, 32, 64] {
            assert_eq!(WebhookSecret::parse(&written(bytes)).unwrap().expose(), written(bytes));
        }
        let bare = STANDARD.encode([7; 32]);
        for text in
            ["", "whsec_", &written(23), &written(65), &bare, "whsec_!!!!", " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
        {
            assert_eq!(WebhookSecret::parse(text).unwrap_err(), WebhookFault::InvalidSecret, "{text}");
        }
        assert_eq!(format!("{:?}", WebhookSecret::generate().unwrap()), "WebhookSecret(..)");
    }
}
