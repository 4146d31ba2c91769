//! ASP.NET Identity: base64 of a version byte, and PBKDF2 in the layout of that version.

use super::encoding::base64;
use super::pbkdf2::{Hash, Pbkdf2};
use super::{Ceiling, HashProblem, Parsed, read};

/// The rounds of version 2, which does not store them.
const V2_ROUNDS: u32 = 1_000;
const V2_SALT_BYTES: usize = 16;
const V2_BYTES: usize = V2_SALT_BYTES + 32;

pub(super) fn parse(text: &str, _ceiling: &Ceiling) -> Parsed {
    if !text.starts_with('A') {
        return None;
    }
    read(base64(text).and_then(|bytes| take_apart(&bytes)))
}

fn take_apart(bytes: &[u8]) -> Result<Pbkdf2, HashProblem> {
    match bytes.split_first() {
        Some((0, rest)) if rest.len() == V2_BYTES => {
            let (salt, tag) = rest.split_at_checked(V2_SALT_BYTES).ok_or(HashProblem::Unrecognised)?;
            Pbkdf2::new(Hash::Sha1, V2_ROUNDS, salt.to_vec(), tag.to_vec())
        }
        Some((1, rest)) => version_3(rest),
        _ => Err(HashProblem::Unrecognised),
    }
}

/// The hash below, rounds and the length of the salt, each as a number of four bytes, then the salt and the rest.
fn version_3(rest: &[u8]) -> Result<Pbkdf2, HashProblem> {
    let (hash, rest) = number(rest)?;
    let (rounds, rest) = number(rest)?;
    let (salt_bytes, rest) = number(rest)?;
    let hash = match hash {
        0 => Hash::Sha1,
        1 => Hash::Sha256,
        2 => Hash::Sha512,
        _ => return Err(HashProblem::Unrecognised),
    };
    let salt_bytes = usize::try_from(salt_bytes).map_err(|_| HashProblem::Unrecognised)?;
    let (salt, tag) = rest.split_at_checked(salt_bytes).ok_or(HashProblem::Unrecognised)?;
    if salt.len() < 16 {
        return Err(HashProblem::Unrecognised);
    }
    Pbkdf2::new(hash, rounds, salt.to_vec(), tag.to_vec())
}

fn number(bytes: &[u8]) -> Result<(u32, &[u8]), HashProblem> {
    let (number, rest) = bytes.split_first_chunk().ok_or(HashProblem::Unrecognised)?;
    Ok((u32::from_be_bytes(*number), rest))
}
