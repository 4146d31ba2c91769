//! The families: a file each, which reads its shapes and computes what they hold.

mod aspnet;
mod bcrypt;
mod encoding;
mod firebase;
mod ldap;
mod md5_crypt;
mod pbkdf2;
mod phpass;
mod scrypt;
mod sha_crypt;

use subtle::ConstantTimeEq;

use super::{Compare, HashProblem, ceilings};
use crate::hasher::kernel::Refused;
use crate::hasher::parameters::Ceiling;

/// What a family makes of a text: nothing if it is none of its own.
type Parsed = Option<Result<Box<dyn Compare>, HashProblem>>;

/// Reads a text of any family.
pub(super) fn parse(text: &str, ceiling: &Ceiling) -> Result<Box<dyn Compare>, HashProblem> {
    let families = [
        bcrypt::parse,
        firebase::parse,
        scrypt::parse,
        pbkdf2::parse,
        sha_crypt::parse,
        md5_crypt::parse,
        phpass::parse,
        ldap::parse,
        aspnet::parse,
    ];
    families.iter().find_map(|family| family(text, ceiling)).unwrap_or(Err(HashProblem::Unrecognised))
}

/// What a family answers about a text of its own.
fn read<C: Compare + 'static>(parsed: Result<C, HashProblem>) -> Parsed {
    Some(parsed.map(|hash| Box::new(hash) as Box<dyn Compare>))
}

/// Compares without telling where two texts differ.
fn equal(computed: &[u8], stored: &[u8]) -> bool {
    std::hint::black_box(computed.ct_eq(stored)).into()
}
