//! Firebase's scrypt: `$firebase-scrypt$ln=14,r=8$salt$salt separator$signer key$hash`, each in base64 as exported.
//!
//! The key that scrypt makes encrypts the signer key of the project, which is the same for all of its users.

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};
use ctr::Ctr128BE;
use zeroize::Zeroizing;

use super::encoding::{base64, decimal, fields, salt, tag};
use super::scrypt::Costs;
use super::{Ceiling, Compare, HashProblem, Parsed, Refused, equal, read};

struct Firebase {
    costs: Costs,
    /// The user's salt and the project's separator.
    salt: Vec<u8>,
    signer_key: Zeroizing<Vec<u8>>,
    tag: Vec<u8>,
}

pub(super) fn parse(text: &str, ceiling: &Ceiling) -> Parsed {
    text.strip_prefix("$firebase-scrypt$").and_then(|rest| read(take_apart(rest, ceiling)))
}

fn take_apart(rest: &str, ceiling: &Ceiling) -> Result<Firebase, HashProblem> {
    let [costs, salted, separator, signer_key, hashed] = fields(rest, '$')?;
    let [mem_cost, rounds] = fields(costs, ',')?;
    let named = |field: &str, name| decimal(field.strip_prefix(name).ok_or(HashProblem::Unrecognised)?);
    let costs = Costs::new(named(mem_cost, "ln=")?, named(rounds, "r=")?, 1, ceiling)?;
    // The separator is the project's, and salts nobody alone.
    let mut whole_salt = salt(base64(salted)?)?;
    whole_salt.extend(base64(separator)?);
    let (signer_key, tag) = (Zeroizing::new(base64(signer_key)?), tag(base64(hashed)?)?);
    if signer_key.len() != tag.len() {
        return Err(HashProblem::Unrecognised);
    }
    Ok(Firebase { costs, salt: salt(whole_salt)?, signer_key, tag })
}

impl Compare for Firebase {
    fn matches(&self, password: &[u8]) -> Result<bool, Refused> {
        let mut key = Zeroizing::new([0; 32]);
        self.costs.compute(password, &self.salt, &mut *key)?;
        let mut computed = self.signer_key.clone();
        Ctr128BE::<Aes256>::new(&(*key).into(), &[0; 16].into()).apply_keystream(&mut computed);
        Ok(equal(&computed, &self.tag))
    }
}
