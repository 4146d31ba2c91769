//! The encodings: numbers in their one spelling, and the base64 of other systems.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::HashProblem;

const INDIFFERENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, INDIFFERENT);
/// Some writers leave bits behind the last whole byte.
const BCRYPT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::BCRYPT, INDIFFERENT.with_decode_allow_trailing_bits(true));

/// The digits of crypt(3) in base 64.
const CRYPT: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The lengths of a salt that are read, in bytes.
const SALT_RANGE: std::ops::RangeInclusive<usize> = 1..=64;
/// The lengths of a hash that are read, in bytes.
pub(super) const TAG_RANGE: std::ops::RangeInclusive<usize> = 16..=64;

/// Reads base64 with or without padding, in the alphabet of RFC 4648 or in that for URLs.
pub(super) fn base64(text: &str) -> Result<Vec<u8>, HashProblem> {
    let standard = text.replace('-', "+").replace('_', "/");
    STANDARD.decode(standard).map_err(|_| HashProblem::Unrecognised)
}

/// Reads passlib's base64: with `.` for `+`, without padding.
pub(super) fn adapted_base64(text: &str) -> Result<Vec<u8>, HashProblem> {
    base64(&text.replace('.', "+"))
}

/// Reads bcrypt's base64.
pub(super) fn bcrypt_base64(text: &str) -> Result<Vec<u8>, HashProblem> {
    BCRYPT.decode(text).map_err(|_| HashProblem::Unrecognised)
}

/// A salt of a length that is read.
pub(super) fn salt(bytes: Vec<u8>) -> Result<Vec<u8>, HashProblem> {
    if SALT_RANGE.contains(&bytes.len()) { Ok(bytes) } else { Err(HashProblem::Unrecognised) }
}

/// A hash of a length that is read.
pub(super) fn tag(bytes: Vec<u8>) -> Result<Vec<u8>, HashProblem> {
    if TAG_RANGE.contains(&bytes.len()) { Ok(bytes) } else { Err(HashProblem::Unrecognised) }
}

/// The fields of a text, if there are as many as that.
pub(super) fn fields<const COUNT: usize>(text: &str, separator: char) -> Result<[&str; COUNT], HashProblem> {
    let fields: Vec<_> = text.split(separator).take(COUNT + 1).collect();
    fields.try_into().map_err(|_| HashProblem::Unrecognised)
}

/// Reads a decimal number in its one spelling: digits only, no leading zero. One that no machine could count to is too
/// dear, whatever it counts.
pub(super) fn decimal(text: &str) -> Result<u32, HashProblem> {
    let digits = !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.starts_with('0') && text != "0") {
        return Err(HashProblem::Unrecognised);
    }
    text.parse().map_err(|_| HashProblem::TooDear)
}

/// The value of a digit of crypt(3).
pub(super) fn crypt_digit(digit: u8) -> Option<u32> {
    let value = CRYPT.iter().position(|known| *known == digit)?;
    u32::try_from(value).ok()
}

/// Whether a text has so many digits of crypt(3), and nothing else.
pub(super) fn is_crypt(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|digit| crypt_digit(digit).is_some())
}

/// Writes bytes in digits of crypt(3): three at a time, the first the lowest, each group's lowest digit first.
pub(super) fn crypt_text(bytes: impl IntoIterator<Item = u8>) -> Zeroizing<Vec<u8>> {
    let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(bytes.into_iter().collect());
    let mut text = Zeroizing::new(Vec::with_capacity(bytes.len().saturating_mul(2)));
    for group in bytes.chunks(3) {
        let mut value = group.iter().rev().fold(0_usize, |value, byte| (value << 8) | usize::from(*byte));
        for _ in 0..=group.len() {
            text.extend(CRYPT.get(value & 63));
            value >>= 6;
        }
    }
    text
}

/// The bytes of a digest in another order.
pub(super) fn reordered(digest: &[u8], order: &[u8]) -> Vec<u8> {
    order.iter().filter_map(|place| digest.get(usize::from(*place)).copied()).collect()
}
