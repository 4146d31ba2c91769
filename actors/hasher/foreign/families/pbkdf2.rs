//! PBKDF2: passlib's `$pbkdf2$`, `$pbkdf2-sha256$` and `$pbkdf2-sha512$`, Django's `pbkdf2_sha1$` and `pbkdf2_sha256$`.

use ::pbkdf2::pbkdf2_hmac;
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use zeroize::Zeroizing;

use super::ceilings::PBKDF2_ROUNDS;
use super::encoding::{adapted_base64, base64, decimal, fields, salt, tag};
use super::{Ceiling, Compare, HashProblem, Parsed, Refused, equal, read};

/// The hash below.
#[derive(Clone, Copy)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

/// What PBKDF2 makes of a password.
pub(super) struct Pbkdf2 {
    hash: Hash,
    rounds: u32,
    salt: Vec<u8>,
    tag: Vec<u8>,
}

pub(super) fn parse(text: &str, _ceiling: &Ceiling) -> Parsed {
    let of_passlib = [("$pbkdf2$", Hash::Sha1), ("$pbkdf2-sha256$", Hash::Sha256), ("$pbkdf2-sha512$", Hash::Sha512)];
    if let Some((rest, hash)) = stripped(text, of_passlib) {
        return read(take_apart(rest, hash, adapted_base64, adapted_base64));
    }
    let of_django = [("pbkdf2_sha1$", Hash::Sha1), ("pbkdf2_sha256$", Hash::Sha256)];
    let (rest, hash) = stripped(text, of_django)?;
    read(take_apart(rest, hash, |salted| Ok(salted.as_bytes().to_vec()), base64))
}

fn stripped(text: &str, prefixes: impl IntoIterator<Item = (&'static str, Hash)>) -> Option<(&str, Hash)> {
    prefixes.into_iter().find_map(|(prefix, hash)| Some((text.strip_prefix(prefix)?, hash)))
}

fn take_apart(
    rest: &str,
    hash: Hash,
    read_salt: impl Fn(&str) -> Result<Vec<u8>, HashProblem>,
    read_tag: impl Fn(&str) -> Result<Vec<u8>, HashProblem>,
) -> Result<Pbkdf2, HashProblem> {
    let [rounds, salted, hashed] = fields(rest, '$')?;
    Pbkdf2::new(hash, decimal(rounds)?, read_salt(salted)?, read_tag(hashed)?)
}

impl Pbkdf2 {
    /// Holds lengths and rounds to what is read.
    pub(super) fn new(hash: Hash, rounds: u32, salted: Vec<u8>, hashed: Vec<u8>) -> Result<Self, HashProblem> {
        let (salt, tag) = (salt(salted)?, tag(hashed)?);
        let block_bytes: usize = match hash {
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
            Hash::Sha512 => 64,
        };
        let blocks = u64::try_from(tag.len().div_ceil(block_bytes)).map_err(|_| HashProblem::TooDear)?;
        if rounds == 0 {
            return Err(HashProblem::Unrecognised);
        }
        if u64::from(rounds) * blocks > PBKDF2_ROUNDS {
            return Err(HashProblem::TooDear);
        }
        Ok(Self { hash, rounds, salt, tag })
    }
}

impl Compare for Pbkdf2 {
    fn matches(&self, password: &[u8]) -> Result<bool, Refused> {
        let mut computed = Zeroizing::new(vec![0; self.tag.len()]);
        match self.hash {
            Hash::Sha1 => pbkdf2_hmac::<Sha1>(password, &self.salt, self.rounds, &mut computed),
            Hash::Sha256 => pbkdf2_hmac::<Sha256>(password, &self.salt, self.rounds, &mut computed),
            Hash::Sha512 => pbkdf2_hmac::<Sha512>(password, &self.salt, self.rounds, &mut computed),
        }
        Ok(equal(&computed, &self.tag))
    }
}
