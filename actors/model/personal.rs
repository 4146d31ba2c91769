//! Personal data inside a signal: shown redacted, stored sealed, read in full on purpose.

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sealed::{Opener, Unseal};

/// A contact, username or typed identifier as a signal carries it.
///
/// Three forms, of which only the first is ever printed:
/// * *redacted*, such as `a***@e***.com`: what `Debug`, `Display` and logs show;
/// * *sealed*: encrypted under a key of the user's own, which is what the log stores and `serde` writes; deleting the
///   user destroys the key, and with it this value;
/// * *full*: within reach while the user lives and the signal is handed to a subscriber of this process;
///   [`Personal::expose`] reads it, and opens what is sealed the first time.
///
/// An identifier that matches no user (people type passwords there) has no sealed and no full form, only a keyed hash
/// by which equal ones can be counted.
#[derive(Clone, Default)]
pub struct Personal {
    redacted: String,
    sealed: Option<Vec<u8>>,
    hash: Option<[u8; 32]>,
    opener: Option<Opener>,
    /// Empty until it is asked for, unless it was never sealed.
    full: OnceLock<Option<SecretString>>,
}

impl Personal {
    /// Data of a known user: shown as `redacted`, sealed before it is stored.
    #[must_use]
    pub fn known(redacted: impl Into<String>, full: impl Into<String>) -> Self {
        let full = OnceLock::from(Some(SecretString::from(full.into())));
        Self { redacted: redacted.into(), full, ..Self::default() }
    }

    /// What somebody typed and matches no user yet: a redaction and a keyed hash, nothing else.
    #[must_use]
    pub fn unmatched(redacted: impl Into<String>, hash: [u8; 32]) -> Self {
        Self { redacted: redacted.into(), hash: Some(hash), ..Self::default() }
    }

    /// Data of which only the redaction is kept, such as the name of a deleted user.
    #[must_use]
    pub fn redacted_only(redacted: impl Into<String>) -> Self {
        Self { redacted: redacted.into(), ..Self::default() }
    }

    /// The printable form.
    #[must_use]
    pub fn redacted(&self) -> &str {
        &self.redacted
    }

    /// The full value; `None` once its user is deleted, for an unmatched identifier, and after `serde`.
    #[must_use]
    pub fn expose(&self) -> Option<&str> {
        let full = self.full.get_or_init(|| {
            let (Opener(opener), sealed) = self.opener.as_ref().zip(self.sealed.as_deref())?;
            opener.personal(sealed).map(SecretString::from)
        });
        full.as_ref().map(SecretString::expose_secret)
    }

    /// The keyed hash of an unmatched identifier.
    #[must_use]
    pub const fn hash(&self) -> Option<&[u8; 32]> {
        self.hash.as_ref()
    }

    /// The sealed form, as stored.
    #[must_use]
    pub fn sealed(&self) -> Option<&[u8]> {
        self.sealed.as_deref()
    }

    /// Attaches the sealed form; storage calls this as it writes the log.
    pub fn set_sealed(&mut self, sealed: Vec<u8>) {
        self.sealed = Some(sealed);
    }

    /// Attaches what opens the sealed form; storage calls this as it reads the log for a subscriber.
    pub fn open_with(&mut self, opener: Arc<dyn Unseal>) {
        (self.opener, self.full) = (Some(Opener(opener)), OnceLock::new());
    }
}

impl fmt::Display for Personal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.redacted)
    }
}

impl fmt::Debug for Personal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.redacted, formatter)
    }
}

/// Two are equal when everything that is stored is equal; the full value is not compared.
impl PartialEq for Personal {
    fn eq(&self, other: &Self) -> bool {
        self.redacted == other.redacted && self.sealed == other.sealed && self.hash == other.hash
    }
}

impl Eq for Personal {}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Personal"))]
struct Stored {
    redacted: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

impl Serialize for Personal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = Stored {
            redacted: self.redacted.clone(),
            sealed: self.sealed.as_ref().map(|bytes| URL_SAFE_NO_PAD.encode(bytes)),
            hash: self.hash.map(|bytes| URL_SAFE_NO_PAD.encode(bytes)),
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Personal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        let decode = |text: String| URL_SAFE_NO_PAD.decode(text).map_err(serde::de::Error::custom);
        let hash = stored.hash.map(decode).transpose()?;
        let hash = hash.map(|bytes| <[u8; 32]>::try_from(bytes.as_slice())).transpose();
        Ok(Self {
            redacted: stored.redacted,
            sealed: stored.sealed.map(decode).transpose()?,
            hash: hash.map_err(serde::de::Error::custom)?,
            opener: None,
            full: OnceLock::new(),
        })
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Personal {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Personal".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Stored::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn the_full_value_is_neither_printed_nor_serialised() {
        let mut address = Personal::known("a***@e***.com", "alice@example.com");
        address.set_sealed(vec![1, 2, 3]);
        assert_eq!(address.expose(), Some("alice@example.com"));
        for shown in [format!("{address:?}"), address.to_string(), serde_json::to_string(&address).unwrap()] {
            assert!(!shown.contains("alice"), "{shown}");
        }
    }

    #[test]
    fn what_is_sealed_is_opened_once_and_only_when_it_is_asked_for() {
        struct Counting(AtomicU32);
        impl Unseal for Counting {
            fn personal(&self, sealed: &[u8]) -> Option<String> {
                self.0.fetch_add(1, Ordering::SeqCst);
                (sealed == [7]).then(|| "alice".to_owned())
            }

            fn context(&self, _sealed: &[u8]) -> Option<String> {
                None
            }
        }
        let counting = Arc::new(Counting(AtomicU32::new(0)));
        let mut address = Personal::redacted_only("a***");
        address.set_sealed(vec![7]);
        assert_eq!(address.expose(), None);
        address.open_with(counting.clone());
        assert_eq!((serde_json::to_string(&address).is_ok(), counting.0.load(Ordering::SeqCst)), (true, 0));
        assert_eq!((address.expose(), address.expose()), (Some("alice"), Some("alice")));
        assert_eq!((address.clone().expose(), counting.0.load(Ordering::SeqCst)), (Some("alice"), 1));
        address.set_sealed(vec![8]);
        address.open_with(counting);
        assert_eq!(address.expose(), None, "it is sealed under another key");
    }

    #[test]
    fn serde_keeps_redaction_seal_and_hash() {
        let mut address = Personal::known("a***", "alice");
        address.set_sealed(vec![7; 40]);
        for value in [address, Personal::unmatched("***", [9; 32]), Personal::redacted_only("b***")] {
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Personal>(&json).unwrap(), value);
            let packed = rmp_serde::to_vec_named(&value).unwrap();
            assert_eq!(rmp_serde::from_slice::<Personal>(&packed).unwrap(), value);
        }
    }
}
