//! SHA-crypt: `$5$` and `$6$`, by Ulrich Drepper, with or without `rounds=`.

use ::sha_crypt::{Params, sha256_crypt, sha512_crypt};
use zeroize::Zeroizing;

use super::ceilings::{ITERATED_PASSWORD_BYTES, SHA_CRYPT_ROUNDS};
use super::encoding::{crypt_text, decimal, fields, is_crypt, reordered};
use super::{Ceiling, Compare, HashProblem, Parsed, Refused, equal, read};

/// The rounds where the text names none.
const DEFAULT_ROUNDS: u32 = 5_000;
const MIN_ROUNDS: u32 = 1_000;
const SALT_RANGE: std::ops::RangeInclusive<usize> = 1..=16;

/// In which order the bytes of a digest are written.
const ORDER_256: [u8; 32] = [
    20, 10, 0, 11, 1, 21, 2, 22, 12, 23, 13, 3, 14, 4, 24, 5, 25, 15, 26, 16, 6, 17, 7, 27, 8, 28, 18, 29, 19, 9, 30,
    31,
];
const ORDER_512: [u8; 64] = [
    42, 21, 0, 1, 43, 22, 23, 2, 44, 45, 24, 3, 4, 46, 25, 26, 5, 47, 48, 27, 6, 7, 49, 28, 29, 8, 50, 51, 30, 9, 10,
    52, 31, 32, 11, 53, 54, 33, 12, 13, 55, 34, 35, 14, 56, 57, 36, 15, 16, 58, 37, 38, 17, 59, 60, 39, 18, 19, 61, 40,
    41, 20, 62, 63,
];

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha512,
}

struct ShaCrypt {
    hash: Hash,
    rounds: Params,
    salt: Vec<u8>,
    tag: Vec<u8>,
}

pub(super) fn parse(text: &str, _ceiling: &Ceiling) -> Parsed {
    if let Some(rest) = text.strip_prefix("$5$") {
        return read(take_apart(rest, Hash::Sha256, 43));
    }
    text.strip_prefix("$6$").and_then(|rest| read(take_apart(rest, Hash::Sha512, 86)))
}

fn take_apart(rest: &str, hash: Hash, digits: usize) -> Result<ShaCrypt, HashProblem> {
    let (rounds, rest) = match rest.strip_prefix("rounds=") {
        Some(rest) => {
            rest.split_once('$').ok_or(HashProblem::Unrecognised).map(|(rounds, rest)| (decimal(rounds), rest))?
        }
        None => (Ok(DEFAULT_ROUNDS), rest),
    };
    let (rounds, [salt, tag]) = (rounds?, fields(rest, '$')?);
    let is_fit = SALT_RANGE.contains(&salt.len()) && salt.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if rounds < MIN_ROUNDS || !is_fit || !is_crypt(tag, digits) {
        return Err(HashProblem::Unrecognised);
    }
    if rounds > SHA_CRYPT_ROUNDS {
        return Err(HashProblem::TooDear);
    }
    let rounds = Params::new(rounds).map_err(|_| HashProblem::Unrecognised)?;
    Ok(ShaCrypt { hash, rounds, salt: salt.as_bytes().to_vec(), tag: tag.as_bytes().to_vec() })
}

impl Compare for ShaCrypt {
    fn matches(&self, password: &[u8]) -> Result<bool, Refused> {
        let is_readable = password.len() <= ITERATED_PASSWORD_BYTES && !password.contains(&0);
        let password = if is_readable { password } else { &[] };
        let computed = match self.hash {
            Hash::Sha256 => {
                let digest = Zeroizing::new(sha256_crypt(password, &self.salt, self.rounds));
                crypt_text(reordered(&*digest, &ORDER_256))
            }
            Hash::Sha512 => {
                let digest = Zeroizing::new(sha512_crypt(password, &self.salt, self.rounds));
                crypt_text(reordered(&*digest, &ORDER_512))
            }
        };
        Ok(equal(&computed, &self.tag) && is_readable)
    }
}
