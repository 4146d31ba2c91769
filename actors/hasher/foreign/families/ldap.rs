//! LDAP: `{SSHA}`, `{SSHA256}` and `{SSHA512}`, base64 of one salted hash and its salt. They cost an attacker nothing.

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

use super::encoding::{base64, salt};
use super::{Ceiling, Compare, HashProblem, Parsed, Refused, equal, read};

/// The shortest salt that is read, in bytes.
const MIN_SALT: usize = 4;

#[derive(Clone, Copy)]
enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

struct Salted {
    hash: Hash,
    tag: Vec<u8>,
    salt: Vec<u8>,
}

pub(super) fn parse(text: &str, _ceiling: &Ceiling) -> Parsed {
    let shapes = [("{SSHA}", Hash::Sha1, 20), ("{SSHA256}", Hash::Sha256, 32), ("{SSHA512}", Hash::Sha512, 64)];
    let (rest, hash, tag_bytes) =
        shapes.into_iter().find_map(|(prefix, hash, bytes)| Some((text.strip_prefix(prefix)?, hash, bytes)))?;
    read(take_apart(rest, hash, tag_bytes))
}

fn take_apart(rest: &str, hash: Hash, tag_bytes: usize) -> Result<Salted, HashProblem> {
    let bytes = base64(rest)?;
    let (tag, salted) = bytes.split_at_checked(tag_bytes).ok_or(HashProblem::Unrecognised)?;
    if salted.len() < MIN_SALT {
        return Err(HashProblem::Unrecognised);
    }
    Ok(Salted { hash, tag: tag.to_vec(), salt: salt(salted.to_vec())? })
}

impl Compare for Salted {
    fn matches(&self, password: &[u8]) -> Result<bool, Refused> {
        let computed = match self.hash {
            Hash::Sha1 => hashed::<Sha1>(password, &self.salt),
            Hash::Sha256 => hashed::<Sha256>(password, &self.salt),
            Hash::Sha512 => hashed::<Sha512>(password, &self.salt),
        };
        Ok(equal(&computed, &self.tag))
    }
}

fn hashed<D: Digest>(password: &[u8], salt: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(D::new().chain_update(password).chain_update(salt).finalize().to_vec())
}
