//! phpass: `$P$` and, as phpBB writes it, `$H$`: rounds of MD5 in a number that one digit tells.

use md5::{Digest, Md5};
use zeroize::Zeroizing;

use super::ceilings::{ITERATED_PASSWORD_BYTES, PHPASS_LOG_ROUNDS};
use super::encoding::{crypt_digit, crypt_text, is_crypt};
use super::{Ceiling, Compare, HashProblem, Parsed, Refused, equal, read};

/// The binary logarithms of the rounds that phpass knows.
const LOG_ROUNDS: std::ops::RangeInclusive<u32> = 7..=30;
const SALT_BYTES: usize = 8;
const TAG_DIGITS: usize = 22;

struct Phpass {
    log_rounds: u32,
    salt: Vec<u8>,
    tag: Vec<u8>,
}

pub(super) fn parse(text: &str, _ceiling: &Ceiling) -> Parsed {
    let rest = text.strip_prefix("$P$").or_else(|| text.strip_prefix("$H$"))?;
    read(take_apart(rest))
}

fn take_apart(rest: &str) -> Result<Phpass, HashProblem> {
    if !is_crypt(rest, 1 + SALT_BYTES + TAG_DIGITS) {
        return Err(HashProblem::Unrecognised);
    }
    let (log_rounds, rest) = rest.as_bytes().split_first().ok_or(HashProblem::Unrecognised)?;
    let log_rounds = crypt_digit(*log_rounds).filter(|rounds| LOG_ROUNDS.contains(rounds));
    let log_rounds = log_rounds.ok_or(HashProblem::Unrecognised)?;
    if log_rounds > PHPASS_LOG_ROUNDS {
        return Err(HashProblem::TooDear);
    }
    let (salt, tag) = rest.split_at_checked(SALT_BYTES).ok_or(HashProblem::Unrecognised)?;
    Ok(Phpass { log_rounds, salt: salt.to_vec(), tag: tag.to_vec() })
}

impl Compare for Phpass {
    fn matches(&self, password: &[u8]) -> Result<bool, Refused> {
        let is_readable = password.len() <= ITERATED_PASSWORD_BYTES;
        let password = if is_readable { password } else { &[] };
        let mut digest = Md5::new().chain_update(&self.salt).chain_update(password).finalize();
        for _ in 0..1_u64 << self.log_rounds {
            digest = Md5::new().chain_update(digest).chain_update(password).finalize();
        }
        let digest = Zeroizing::new(digest.to_vec());
        Ok(equal(&crypt_text(digest.iter().copied()), &self.tag) && is_readable)
    }
}
