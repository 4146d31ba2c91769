//! bcrypt: `$2a$`, `$2b$` and `$2y$`, bare and as Django stores it, and Django's over SHA-256.
//!
//! The 72-byte rule: bcrypt reads 72 bytes and no more. Most systems cut what is longer without a word. Here a password
//! of more than 72 bytes matches no bare hash, for whoever knows the first 72 would know it all; unless the import says
//! by `{TRUNCATE72}` that the system cut: then the first 72 bytes are compared. Django's `bcrypt$` is of such a system.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::ceilings::BCRYPT_COST;
use super::encoding::{bcrypt_base64, decimal};
use super::{Ceiling, Compare, HashProblem, Parsed, Refused, equal, read};

/// What bcrypt reads of a password, in bytes.
const READ_BYTES: usize = 72;
/// What stands for its hash, of which the last byte of 24 is dropped.
const TAG_BYTES: usize = 23;
/// What costs there are; below the first, bcrypt is not defined.
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;

/// What is done to a password before bcrypt reads it.
#[derive(Clone, Copy)]
enum Before {
    /// Nothing; one that is longer than bcrypt reads matches none.
    Whole,
    /// It is cut to what bcrypt reads.
    Cut,
    /// It is hashed by SHA-256, in hexadecimal.
    Sha256,
}

struct Bcrypt {
    before: Before,
    cost: u32,
    salt: [u8; 16],
    tag: Vec<u8>,
}

pub(super) fn parse(text: &str, _ceiling: &Ceiling) -> Parsed {
    let shapes = [
        ("bcrypt_sha256$", Before::Sha256),
        ("bcrypt$", Before::Cut),
        ("{TRUNCATE72}", Before::Cut),
        ("", Before::Whole),
    ];
    let (prefix, before) = shapes.into_iter().find(|(prefix, _)| text.starts_with(prefix))?;
    let bare = text.strip_prefix(prefix)?;
    let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|version| bare.strip_prefix(version));
    match rest {
        Some(rest) => read(take_apart(rest, before)),
        None if prefix.is_empty() => None,
        None => Some(Err(HashProblem::Unrecognised)),
    }
}

fn take_apart(rest: &str, before: Before) -> Result<Bcrypt, HashProblem> {
    let (cost, encoded) = rest.split_once('$').ok_or(HashProblem::Unrecognised)?;
    if cost.len() != 2 || encoded.len() != 53 {
        return Err(HashProblem::Unrecognised);
    }
    let cost = decimal(cost.strip_prefix('0').unwrap_or(cost))?;
    if !COSTS.contains(&cost) {
        return Err(HashProblem::Unrecognised);
    }
    if cost > BCRYPT_COST {
        return Err(HashProblem::TooDear);
    }
    let (salt, tag) = encoded.split_at_checked(22).ok_or(HashProblem::Unrecognised)?;
    let salt = bcrypt_base64(salt)?.try_into().map_err(|_| HashProblem::Unrecognised)?;
    let tag = bcrypt_base64(tag)?;
    if tag.len() != TAG_BYTES {
        return Err(HashProblem::Unrecognised);
    }
    Ok(Bcrypt { before, cost, salt, tag })
}

impl Compare for Bcrypt {
    fn matches(&self, password: &[u8]) -> Result<bool, Refused> {
        let mut key = Zeroizing::new(Vec::with_capacity(password.len().max(2 * 32).saturating_add(1)));
        match self.before {
            Before::Sha256 => Sha256::digest(password).iter().for_each(|byte| key.extend(hexadecimal(*byte))),
            Before::Whole | Before::Cut => key.extend_from_slice(password),
        }
        // A string of C ends at its first zero.
        let is_readable = !key.contains(&0) && (key.len() <= READ_BYTES || matches!(self.before, Before::Cut));
        key.push(0);
        key.truncate(READ_BYTES);
        let computed = Zeroizing::new(::bcrypt::bcrypt(self.cost, self.salt, &key));
        Ok(equal(computed.get(..TAG_BYTES).unwrap_or_default(), &self.tag) && is_readable)
    }
}

fn hexadecimal(byte: u8) -> [u8; 2] {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + (value - 10) };
    [digit(byte >> 4), digit(byte & 15)]
}
