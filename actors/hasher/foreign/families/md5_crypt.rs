//! md5-crypt: `$1$salt$hash`, a thousand rounds of MD5 by Poul-Henning Kamp. Its own author calls it broken.

use md5::{Digest, Md5};
use zeroize::Zeroizing;

use super::ceilings::ITERATED_PASSWORD_BYTES;
use super::encoding::{crypt_digit, crypt_text, fields, is_crypt, reordered};
use super::{Ceiling, Compare, HashProblem, Parsed, Refused, equal, read};

const MAGIC: &str = "$1$";
const ROUNDS: u32 = 1_000;
const SALT_RANGE: std::ops::RangeInclusive<usize> = 1..=8;
/// In which order the bytes of the digest are written.
const ORDER: [u8; 16] = [12, 6, 0, 13, 7, 1, 14, 8, 2, 15, 9, 3, 5, 10, 4, 11];

struct Md5Crypt {
    salt: Vec<u8>,
    tag: Vec<u8>,
}

pub(super) fn parse(text: &str, _ceiling: &Ceiling) -> Parsed {
    text.strip_prefix(MAGIC).and_then(|rest| read(take_apart(rest)))
}

fn take_apart(rest: &str) -> Result<Md5Crypt, HashProblem> {
    let [salt, tag] = fields(rest, '$')?;
    let is_fit = SALT_RANGE.contains(&salt.len()) && salt.bytes().all(|digit| crypt_digit(digit).is_some());
    if !is_fit || !is_crypt(tag, 22) {
        return Err(HashProblem::Unrecognised);
    }
    Ok(Md5Crypt { salt: salt.as_bytes().to_vec(), tag: tag.as_bytes().to_vec() })
}

impl Compare for Md5Crypt {
    fn matches(&self, password: &[u8]) -> Result<bool, Refused> {
        let is_readable = password.len() <= ITERATED_PASSWORD_BYTES && !password.contains(&0);
        let password = if is_readable { password } else { &[] };
        let computed = crypt_text(reordered(&self.digest(password), &ORDER));
        Ok(equal(&computed, &self.tag) && is_readable)
    }
}

impl Md5Crypt {
    fn digest(&self, password: &[u8]) -> Zeroizing<Vec<u8>> {
        let salt = &self.salt;
        let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
        let mut outer = Md5::new().chain_update(password).chain_update(MAGIC).chain_update(salt);
        for part in password.chunks(inner.len()) {
            outer.update(inner.get(..part.len()).unwrap_or_default());
        }
        let mut left = password.len();
        while left > 0 {
            outer.update(if left & 1 == 1 { &[0] } else { password.get(..1).unwrap_or_default() });
            left >>= 1;
        }
        let mut digest = Zeroizing::new(outer.finalize().to_vec());
        for round in 0..ROUNDS {
            let (first, last) = if round & 1 == 1 { (password, &**digest) } else { (&**digest, password) };
            let mut hash = Md5::new().chain_update(first);
            if round % 3 != 0 {
                hash.update(salt);
            }
            if round % 7 != 0 {
                hash.update(password);
            }
            hash.update(last);
            digest = Zeroizing::new(hash.finalize().to_vec());
        }
        digest
    }
}
