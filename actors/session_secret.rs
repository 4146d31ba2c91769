//! Session secrets: 32 random bytes for the bearer, their SHA-256 for the database.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const PREFIX: &str = "mds_";
const WIRE_LENGTH: usize = 4 + 43;

/// A fresh session secret: what its bearer gets, `mds_` and 32 random bytes in base64url without padding (47
/// characters), and the SHA-256 of those bytes, which is all that is stored.
///
/// A plain hash is enough: nobody guesses 256 random bits.
///
/// # Errors
/// The operating system gave no random bytes.
pub fn generate() -> Result<(Zeroizing<String>, [u8; 32]), getrandom::Error> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *secret)?;
    Ok((encode(&secret), Sha256::digest(secret.as_slice()).into()))
}

/// The hash under which a presented session secret is stored. `None`, without any lookup, unless the text is spelled
/// exactly as [`generate`] spells it.
#[must_use]
pub fn hash(wire: &str) -> Option<[u8; 32]> {
    if wire.len() != WIRE_LENGTH {
        return None;
    }
    let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(wire.strip_prefix(PREFIX)?).ok()?);
    Some(Sha256::digest(decoded.as_slice()).into())
}

fn encode(secret: &[u8; 32]) -> Zeroizing<String> {
    let mut wire = Zeroizing::new(String::with_capacity(WIRE_LENGTH));
    wire.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(secret, &mut wire);
    wire
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const WIRE: &str = "mds_BgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgY";

    #[test]
    fn the_wire_form_is_pinned() {
        assert_eq!(*encode(&[6; 32]), WIRE);
        let shown: String = hash(WIRE).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, "e802086ad6a1e16b78352ad7296d2aabd835b1b16dbe951e1135b97c68e29d81");
    }

    #[test]
    fn a_fresh_secret_hashes_to_what_is_stored_and_never_repeats() {
        let mut seen = HashSet::new();
        for _ in 0..1_000 {
            let (wire, stored) = generate().unwrap();
            assert_eq!(hash(&wire), Some(stored));
            assert!(seen.insert(stored));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let body = &WIRE[PREFIX.len()..];
        let mut other_trailing_bits = WIRE.to_owned();
        other_trailing_bits.replace_range(46.., "Z");
        for text in [
            String::new(),
            PREFIX.to_owned(),
            body.to_owned(),
            format!("mdt_{body}"),
            format!("MDS_{body}"),
            format!("{WIRE}="),
            format!("{WIRE}A"),
            format!(" {WIRE}"),
            WIRE[..46].to_owned(),
            format!("mds_+{}", &body[1..]),
            other_trailing_bits,
        ] {
            assert_eq!(hash(&text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_hashed_or_refused(text in ".{0,60}", tail in "[A-Za-z0-9_=+/-]{40,46}") {
            let _ = hash(&text);
            let wire = format!("{PREFIX}{tail}");
            if hash(&wire).is_some() {
                let secret: [u8; 32] = URL_SAFE_NO_PAD.decode(&tail).unwrap().try_into().unwrap();
                prop_assert_eq!(encode(&secret).to_string(), wire);
            }
        }
    }
}
