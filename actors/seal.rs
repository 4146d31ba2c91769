//! Sealing of personal data under a key of its user, so that destroying the key destroys the data.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 24;

/// Why a text was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random(#[source] getrandom::Error),
    /// The text is longer than the cipher takes, 256 GiB.
    #[error("the text is too long to be sealed")]
    TooLong,
}

/// Seals a text with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) under a random nonce.
///
/// `associated` is not stored but must be given again to open: name there the row and the field, so that a sealed text
/// moved to another place does not open. The result is the format byte 1, the nonce (24 bytes), and the ciphertext
/// with its tag (16 bytes longer than the text); it tells the text's length.
///
/// # Errors
/// [`SealError`].
pub fn seal(key: &[u8; 32], plain: &str, associated: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(SealError::Random)?;
    seal_with(key, nonce, plain, associated).ok_or(SealError::TooLong)
}

/// The text, or `None` if it was not sealed under this key with this associated data, or was changed since.
#[must_use]
pub fn open(key: &[u8; 32], sealed: &[u8], associated: &[u8]) -> Option<String> {
    let (&FORMAT, rest) = sealed.split_first()? else { return None };
    let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>()?;
    let payload = Payload { msg: ciphertext, aad: associated };
    let plain = XChaCha20Poly1305::new(key.into()).decrypt(&XNonce::from(*nonce), payload).ok()?;
    String::from_utf8(plain).ok()
}

fn seal_with(key: &[u8; 32], nonce: [u8; NONCE_BYTES], plain: &str, associated: &[u8]) -> Option<Vec<u8>> {
    let payload = Payload { msg: plain.as_bytes(), aad: associated };
    let ciphertext = XChaCha20Poly1305::new(key.into()).encrypt(&XNonce::from(nonce), payload).ok()?;
    Some([&[FORMAT], nonce.as_slice(), ciphertext.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    // draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    #[test]
    fn the_published_vector_is_met() {
        let key: [u8; 32] = std::array::from_fn(|index| 0x80 + index as u8);
        let nonce: [u8; 24] = std::array::from_fn(|index| 0x40 + index as u8);
        let plain = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                     sunscreen would be it.";
        let associated = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let sealed = seal_with(&key, nonce, plain, &associated).unwrap();
        let (head, ciphertext) = sealed.split_at(25);
        assert_eq!(head, [&[1], nonce.as_slice()].concat());
        let shown: String = ciphertext.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            shown,
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb\
             731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452\
             2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
             21f9664c97637da9768812f615c68b13b52e\
             c0875924c1c7987947deafd8780acf49"
        );
        assert_eq!(open(&key, &sealed, &associated).as_deref(), Some(plain));
    }

    #[test]
    fn only_the_same_key_and_place_open_it() {
        let sealed = seal(&KEY, "anna@example.com", b"user/email").unwrap();
        assert_eq!(open(&KEY, &sealed, b"user/email").as_deref(), Some("anna@example.com"));
        assert_eq!(open(&[8; 32], &sealed, b"user/email"), None);
        assert_eq!(open(&KEY, &sealed, b"user/phone"), None);
        assert_eq!(open(&KEY, &sealed, b""), None);
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let sealed = seal(&KEY, "anna", b"").unwrap();
        for index in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[index] ^= 1 << bit;
                assert_eq!(open(&KEY, &changed, b""), None, "byte {index} bit {bit}");
            }
            assert_eq!(open(&KEY, &sealed[..index], b""), None, "cut at {index}");
        }
        assert_eq!(open(&KEY, &[sealed.as_slice(), b"x"].concat(), b""), None);
    }

    #[test]
    fn the_same_text_is_sealed_differently_each_time() {
        let (one, other) = (seal(&KEY, "anna", b"").unwrap(), seal(&KEY, "anna", b"").unwrap());
        assert_ne!(one[1..25], other[1..25]);
        assert_ne!(one[25..], other[25..]);
        assert!(!one.windows(4).any(|window| window == b"anna"));
    }

    proptest! {
        #[test]
        fn any_text_comes_back(plain in ".{0,200}", associated in prop::collection::vec(any::<u8>(), 0..40)) {
            let sealed = seal(&KEY, &plain, &associated).unwrap();
            prop_assert_eq!(sealed.len(), 1 + 24 + plain.len() + 16);
            prop_assert_eq!(open(&KEY, &sealed, &associated), Some(plain));
        }

        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(open(&KEY, &bytes, b""), None);
            prop_assert_eq!(open(&KEY, &[&[FORMAT], bytes.as_slice()].concat(), b""), None);
        }
    }
}
