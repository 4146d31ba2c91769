//! Session secrets: random bytes for the bearer, their hash for the database.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use majordomo_model::Timestamp;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const PREFIX: &str = "mds_";
/// Random bytes.
const SECRET: usize = 32;
/// Bytes behind them that say when it was made.
const TIME: usize = 6;
const BYTES: usize = SECRET + TIME;
const WIRE_LENGTH: usize = 4 + 51;
/// Of a secret without a time, as they were made at first.
const TIMELESS_WIRE_LENGTH: usize = 4 + 43;

/// A fresh session secret: what its bearer gets, `mds_` and 32 random bytes and the milliseconds since 1970 in 6 more, in
/// base64url without padding (55 characters); and what is stored: these 6 bytes, then the first 26 of the SHA-256 of
/// all of them.
///
/// A plain hash is enough: nobody guesses 256 random bits. The time comes first in what is stored so that new
/// sessions lie side by side in the database, not each on a page of its own.
///
/// # Errors
/// The operating system gave no random bytes.
pub fn generate(now: Timestamp) -> Result<(Zeroizing<String>, [u8; 32]), getrandom::Error> {
    let mut secret = Zeroizing::new([0; BYTES]);
    let (random, time) = secret.split_at_mut(SECRET);
    getrandom::fill(random)?;
    let [_, _, milliseconds @ ..] = (now.as_micros().max(0) / 1_000).to_be_bytes();
    time.copy_from_slice(&milliseconds);
    Ok((encode(secret.as_slice()), stored(secret.as_slice())))
}

/// The hash under which a presented session secret is stored. `None`, without any lookup, unless the text is spelled
/// exactly as [`generate`] spells it, or did before there was a time in it.
#[must_use]
pub fn hash(wire: &str) -> Option<[u8; 32]> {
    if wire.len() != WIRE_LENGTH && wire.len() != TIMELESS_WIRE_LENGTH {
        return None;
    }
    let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(wire.strip_prefix(PREFIX)?).ok()?);
    Some(stored(&decoded))
}

fn stored(secret: &[u8]) -> [u8; 32] {
    let (time, hash) = (secret.get(SECRET..).unwrap_or_default(), Sha256::digest(secret));
    let mut bytes = time.iter().chain(&hash);
    std::array::from_fn(|_| bytes.next().copied().unwrap_or_default())
}

fn encode(secret: &[u8]) -> Zeroizing<String> {
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

    const TIMELESS: &str = "mds_BgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgY";
    const WIRE: &str = "mds_BgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYBAgMEBQY";
    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    #[test]
    fn both_wire_forms_are_pinned() {
        let shown = |wire| hash(wire).unwrap().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(*encode(&[6; 32]), TIMELESS);
        assert_eq!(shown(TIMELESS), "e802086ad6a1e16b78352ad7296d2aabd835b1b16dbe951e1135b97c68e29d81");
        assert_eq!(*encode(&[[6; 32].as_slice(), &[1, 2, 3, 4, 5, 6]].concat()), WIRE);
        assert_eq!(shown(WIRE), "010203040506691c9c606412abfb5faea2564785b4fe5b91927f3c47318d995d");
    }

    #[test]
    fn what_is_stored_is_in_the_order_of_time() {
        let at = |milliseconds: i64| generate(Timestamp::from_micros(milliseconds * 1_000 + 999)).unwrap().1;
        let times = [-1, 0, 1, 255, 256, 1_700_000_000_000, (1 << 48) - 1];
        assert!(times.windows(2).all(|pair| at(pair[0])[..6] <= at(pair[1])[..6]));
        assert_eq!(at(1_700_000_000_000)[..6], 1_700_000_000_000_u64.to_be_bytes()[2..]);
    }

    #[test]
    fn a_fresh_secret_hashes_to_what_is_stored_and_never_repeats() {
        let mut seen = HashSet::new();
        for _ in 0..1_000 {
            let (wire, stored) = generate(NOW).unwrap();
            assert_eq!(hash(&wire), Some(stored));
            assert!(seen.insert(stored));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let body = &WIRE[PREFIX.len()..];
        let mut other_trailing_bits = TIMELESS.to_owned();
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
            WIRE[..54].to_owned(),
            TIMELESS[..46].to_owned(),
            format!("{TIMELESS}="),
            format!("mds_+{}", &body[1..]),
            other_trailing_bits,
        ] {
            assert_eq!(hash(&text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_hashed_or_refused(text in ".{0,60}", tail in "[A-Za-z0-9_=+/-]{40,54}") {
            let _ = hash(&text);
            let wire = format!("{PREFIX}{tail}");
            if hash(&wire).is_some() {
                let secret = URL_SAFE_NO_PAD.decode(&tail).unwrap();
                prop_assert!(secret.len() == 32 || secret.len() == BYTES);
                prop_assert_eq!(encode(&secret).to_string(), wire);
            }
        }
    }
}
