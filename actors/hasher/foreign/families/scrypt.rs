//! scrypt: passlib's `$scrypt$ln=..,r=..,p=..$` and Django's `scrypt$N$salt$r$p$hash`.

use ::scrypt::Params;
use zeroize::Zeroizing;

use super::ceilings::{SCRYPT_BLOCKS, SCRYPT_WORK};
use super::encoding::{base64, decimal, fields, salt, tag};
use super::{Ceiling, Compare, HashProblem, Parsed, Refused, equal, read};

struct Scrypt {
    costs: Costs,
    salt: Vec<u8>,
    tag: Vec<u8>,
}

pub(super) fn parse(text: &str, ceiling: &Ceiling) -> Parsed {
    if let Some(rest) = text.strip_prefix("$scrypt$") {
        return read(of_passlib(rest, ceiling));
    }
    text.strip_prefix("scrypt$").and_then(|rest| read(of_django(rest, ceiling)))
}

fn of_passlib(rest: &str, ceiling: &Ceiling) -> Result<Scrypt, HashProblem> {
    let [costs, salted, hashed] = fields(rest, '$')?;
    let [log_n, r, p] = fields(costs, ',')?;
    let named = |field: &str, name| decimal(field.strip_prefix(name).ok_or(HashProblem::Unrecognised)?);
    let costs = Costs::new(named(log_n, "ln=")?, named(r, "r=")?, named(p, "p=")?, ceiling)?;
    Ok(Scrypt { costs, salt: salt(base64(salted)?)?, tag: tag(base64(hashed)?)? })
}

fn of_django(rest: &str, ceiling: &Ceiling) -> Result<Scrypt, HashProblem> {
    let [n, salted, r, p, hashed] = fields(rest, '$')?;
    let n = decimal(n)?;
    if !n.is_power_of_two() {
        return Err(HashProblem::Unrecognised);
    }
    let costs = Costs::new(n.trailing_zeros(), decimal(r)?, decimal(p)?, ceiling)?;
    Ok(Scrypt { costs, salt: salt(salted.as_bytes().to_vec())?, tag: tag(base64(hashed)?)? })
}

impl Compare for Scrypt {
    fn matches(&self, password: &[u8]) -> Result<bool, Refused> {
        let mut computed = Zeroizing::new(vec![0; self.tag.len()]);
        self.costs.compute(password, &self.salt, &mut computed)?;
        Ok(equal(&computed, &self.tag))
    }
}

/// Costs below the ceilings.
pub(super) struct Costs {
    parameters: Params,
    bytes: usize,
}

impl Costs {
    /// Holds costs to the ceilings: the work to that of the family, the memory to that of argon2.
    pub(super) fn new(log_n: u32, r: u32, p: u32, ceiling: &Ceiling) -> Result<Self, HashProblem> {
        if log_n == 0 || r == 0 || p == 0 {
            return Err(HashProblem::Unrecognised);
        }
        let n = 1_u64.checked_shl(log_n).ok_or(HashProblem::TooDear)?;
        let (r, p) = (u64::from(r), u64::from(p));
        let work = n.checked_mul(r).and_then(|work| work.checked_mul(p)).ok_or(HashProblem::TooDear)?;
        if work > SCRYPT_WORK || r * p > SCRYPT_BLOCKS {
            return Err(HashProblem::TooDear);
        }
        // What the work admits multiplies without overflow. Beside the memory that is set there is room for one block.
        let bytes = 128 * r * (n + p + 1);
        if bytes > u64::from(ceiling.memory_kib) * 1_024 + 1_024 * 1_024 {
            return Err(HashProblem::TooDear);
        }
        let whole = |value: u64| u32::try_from(value).map_err(|_| HashProblem::TooDear);
        let log_n = u8::try_from(log_n).map_err(|_| HashProblem::TooDear)?;
        let parameters = Params::new(log_n, whole(r)?, whole(p)?).map_err(|_| HashProblem::Unrecognised)?;
        Ok(Self { parameters, bytes: usize::try_from(bytes).map_err(|_| HashProblem::TooDear)? })
    }

    /// Computes the hash of a password; its length is that of `tag`.
    pub(super) fn compute(&self, password: &[u8], salt: &[u8], tag: &mut [u8]) -> Result<(), Refused> {
        // The crate ends the process where the machine has no memory left, so the machine is asked first.
        Vec::<u8>::new().try_reserve_exact(self.bytes).map_err(|_| Refused)?;
        ::scrypt::scrypt(password, salt, &self.parameters, tag).map_err(|_| Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first one of RFC 7914, section 12, to 32 bytes: of nothing, with no salt, which no stored text may have.
    #[test]
    fn the_published_vector_without_a_salt_is_met() {
        let costs = Costs::new(4, 1, 1, &Ceiling::default()).ok().unwrap();
        let mut computed = [0; 32];
        costs.compute(b"", b"", &mut computed).unwrap();
        let expected = base64("d9ZXYjhleyA7GcpCwYoEl/FrSETjB0ro39/6P+3iFEI").unwrap();
        assert_eq!(computed.to_vec(), expected);
    }
}
